// @ts-check
// The point cloud of the Depth Inspector. Built into web/js/cloud.mjs together with three.js: npm run build.

import { BufferAttribute, BufferGeometry, PerspectiveCamera, Points, PointsMaterial, Scene, Vector3, WebGLRenderer } from "three";
import { orbit } from "./orbit.js";

/** @typedef {import("../../web/js/depth.mjs").Depth} Depth */

/** The field of view of a depth that tells no focal length: that of a usual lens, in degrees across. */
const USUAL_VIEW = 55;
/** How much farther than its closest point a depth without metres is taken to reach. */
const GUESSED_REACH = 4;

/**
 * Show a depth as points that the pointer turns.
 * @param {HTMLElement} parent filled with the view
 * @param {Depth} depth
 * @param {Uint8ClampedArray} rgba a colour for each pixel
 */
export function createCloud(parent, depth, rgba) {
  const renderer = new WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
  const canvas = renderer.domElement;
  canvas.style.cssText = "width: 100%; height: 100%; display: block; touch-action: none";
  parent.replaceChildren(canvas);

  const { places, kept } = unproject(depth);
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(places, 3));
  const colours = new BufferAttribute(new Float32Array(kept.length * 3), 3);
  geometry.setAttribute("color", colours);
  const material = new PointsMaterial({ vertexColors: true, size: 2, sizeAttenuation: false });
  const scene = new Scene();
  scene.add(new Points(geometry, material));

  const camera = new PerspectiveCamera(50, 1, 0.001, 1000);
  const middle = median(places);
  let frame = 0;
  const draw = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => renderer.render(scene, camera));
  };
  const turning = orbit(canvas, camera, new Vector3(0, 0, middle), -middle, draw);

  /** @param {Uint8ClampedArray} rgba */
  const colour = (rgba) => {
    kept.forEach((pixel, i) => {
      // Colours of pictures are sRGB, the renderer's are light.
      for (let c = 0; c < 3; c++) colours.array[i * 3 + c] = light(rgba[pixel * 4 + c] / 255);
    });
    colours.needsUpdate = true;
    draw();
  };

  const resize = () => {
    const { clientWidth: width, clientHeight: height } = parent;
    if (!width || !height) return;
    renderer.setPixelRatio(Math.min(2, devicePixelRatio || 1));
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    // The whole width of the picture is seen, however narrow the node.
    camera.fov = camera.aspect < 1.5 ? 50 * (1.5 / camera.aspect) ** 0.7 : 50;
    camera.updateProjectionMatrix();
    draw();
  };

  const dispose = () => {
    cancelAnimationFrame(frame);
    turning.abort();
    geometry.dispose();
    material.dispose();
    renderer.dispose();
    renderer.forceContextLoss();
    canvas.remove();
  };

  colour(rgba);
  resize();
  return { resize, colour, dispose };
}

/**
 * The pixels in space, x right, y up, looking along -z, closest at -1; and which pixels they are. What is not valid or
 * far beyond the rest is left out.
 * @param {Depth} depth
 */
function unproject(depth) {
  const { width, height, focal } = depth.told;
  const length = focal ?? width / 2 / Math.tan((USUAL_VIEW / 2) * (Math.PI / 180));
  const distances = new Float32Array(depth.values.length);
  for (let i = 0; i < distances.length; i++) distances[i] = distance(depth, depth.values[i]);
  const sorted = distances.filter((z) => z > 0 && Number.isFinite(z)).sort();
  const closest = sorted[0] ?? 1;
  // Sky and the last percent would shrink everything else to a speck.
  const farthest = Math.min(sorted[Math.floor((sorted.length - 1) * 0.99)] ?? 1, closest * 100);
  /** @type {number[]} */
  const kept = [];
  for (let i = 0; i < distances.length; i++) if (distances[i] > 0 && distances[i] <= farthest) kept.push(i);
  const places = new Float32Array(kept.length * 3);
  kept.forEach((pixel, i) => {
    const z = distances[pixel] / closest;
    places[i * 3] = (((pixel % width) + 0.5 - width / 2) / length) * z;
    places[i * 3 + 1] = ((height / 2 - Math.floor(pixel / width) - 0.5) / length) * z;
    places[i * 3 + 2] = -z;
  });
  return { places, kept };
}

/** The distance that a value stands for; a guess where the depth has no metres. @param {Depth} depth @param {number} value */
function distance(depth, value) {
  if (depth.hasMetres) return 1 / value;
  const share = depth.share(value);
  if (depth.told.kind === "affine_inverse") return 1 / (share + (1 - share) / GUESSED_REACH);
  return share + (1 - share) * GUESSED_REACH;
}

/** The median of z. @param {Float32Array} places */
function median(places) {
  const depths = new Float32Array(places.length / 3);
  for (let i = 0; i < depths.length; i++) depths[i] = places[i * 3 + 2];
  return depths.sort()[depths.length >> 1] ?? -1;
}

/** sRGB as light. @param {number} level */
function light(level) {
  return level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4;
}
