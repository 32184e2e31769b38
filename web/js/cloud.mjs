// @ts-check
// The point cloud of the Depth Inspector: points of a depth drawn with WebGL 2, turned by the pointer or the keys.

/** @typedef {import("./depth.mjs").Depth} Depth */
/** @typedef {[number, number, number]} Vector */

/** The field of view of a depth that tells no focal length: that of a usual lens, in degrees across. */
const USUAL_VIEW = 55;
/** How much farther than its closest point a depth without metres is taken to reach. */
const GUESSED_REACH = 4;
/** What the keys turn by, in radians. */
const TURN = 0.1;

const VERTEX = `#version 300 es
uniform mat4 camera;
uniform float size;
in vec3 place;
in vec3 colour;
out vec3 shade;
void main() {
  gl_Position = camera * vec4(place, 1.0);
  gl_PointSize = size;
  shade = colour;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec3 shade;
out vec4 painted;
void main() {
  painted = vec4(shade, 1.0);
}`;

/**
 * Show a depth as points. Drag turns it, with the right button or shift it moves, the wheel comes closer, a double click
 * goes back to the start; so do the arrow keys, + and -, and Home. Throws where the browser has no WebGL 2.
 * @param {HTMLElement} parent filled with the view
 * @param {Depth} depth
 * @param {Uint8ClampedArray} rgba a colour for each pixel
 * @param {string} label what the view is called
 */
export function createCloud(parent, depth, rgba, label) {
  const canvas = document.createElement("canvas");
  canvas.style.cssText = "width: 100%; height: 100%; display: block; touch-action: none";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  const gl = canvas.getContext("webgl2", { antialias: true, preserveDrawingBuffer: true });
  if (!gl) throw new Error("this browser has no WebGL 2.");
  parent.replaceChildren(canvas);

  const program = link(gl);
  const { places, kept } = unproject(depth);
  const colours = new Uint8Array(kept.length * 3);
  gl.useProgram(program);
  fill(gl, program, "place", places, gl.FLOAT);
  const paint = fill(gl, program, "colour", colours, gl.UNSIGNED_BYTE);
  gl.uniform1f(gl.getUniformLocation(program, "size"), 2 * sharpness());
  gl.enable(gl.DEPTH_TEST);
  gl.clearColor(0, 0, 0, 1);
  const camera = gl.getUniformLocation(program, "camera");

  let frame = 0;
  const draw = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.uniformMatrix4fv(camera, false, turning.matrix(canvas.width / canvas.height));
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.drawArrays(gl.POINTS, 0, kept.length);
    });
  };
  const turning = orbit(canvas, median(places), draw);

  /** @param {Uint8ClampedArray} rgba */
  const colour = (rgba) => {
    kept.forEach((pixel, i) => {
      for (let c = 0; c < 3; c++) colours[i * 3 + c] = rgba[pixel * 4 + c];
    });
    gl.bindBuffer(gl.ARRAY_BUFFER, paint);
    gl.bufferData(gl.ARRAY_BUFFER, colours, gl.STATIC_DRAW);
    draw();
  };

  const resize = () => {
    const { clientWidth, clientHeight } = parent;
    if (!clientWidth || !clientHeight) return;
    canvas.width = Math.round(clientWidth * sharpness());
    canvas.height = Math.round(clientHeight * sharpness());
    draw();
  };

  const dispose = () => {
    cancelAnimationFrame(frame);
    turning.ended.abort();
    gl.getExtension("WEBGL_lose_context")?.loseContext();
    canvas.remove();
  };

  colour(rgba);
  resize();
  return { resize, colour, dispose };
}

/** Pixels of the screen for one of the page. */
function sharpness() {
  return Math.min(2, devicePixelRatio || 1);
}

/** @param {WebGL2RenderingContext} gl */
function link(gl) {
  const program = /** @type {WebGLProgram} */ (gl.createProgram());
  for (const [kind, text] of /** @type {[number, string][]} */ ([
    [gl.VERTEX_SHADER, VERTEX],
    [gl.FRAGMENT_SHADER, FRAGMENT],
  ])) {
    const shader = /** @type {WebGLShader} */ (gl.createShader(kind));
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? "WebGL 2");
  return program;
}

/**
 * A buffer of three numbers a point for the input `name` of the program.
 * @param {WebGL2RenderingContext} gl
 * @param {WebGLProgram} program
 * @param {string} name
 * @param {Float32Array | Uint8Array} numbers
 * @param {number} type
 */
function fill(gl, program, name, numbers, type) {
  const buffer = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, numbers, gl.STATIC_DRAW);
  const at = gl.getAttribLocation(program, name);
  gl.enableVertexAttribArray(at);
  gl.vertexAttribPointer(at, 3, type, type === gl.UNSIGNED_BYTE, 0, 0);
  return buffer;
}

/**
 * A camera that turns around a point in front of where the picture was taken.
 * @param {HTMLElement} element what listens
 * @param {number} middle the z of that point
 * @param {() => void} draw called after each change
 */
function orbit(element, middle, draw) {
  const ended = new AbortController();
  const { signal } = ended;
  const reach = -middle;
  // A little aside of where the picture was taken from, so that it is seen to be a cloud.
  const start = { turn: 0.18, tilt: 0.11, away: 1.38 * reach, centre: /** @type {Vector} */ ([0, 0, middle]) };
  let view = structuredClone(start);

  const axes = () => {
    const [ct, st, cp, sp] = [Math.cos(view.turn), Math.sin(view.turn), Math.cos(view.tilt), Math.sin(view.tilt)];
    return {
      right: /** @type {Vector} */ ([ct, 0, -st]),
      up: /** @type {Vector} */ ([-st * sp, cp, -ct * sp]),
      back: /** @type {Vector} */ ([st * cp, sp, ct * cp]),
    };
  };
  /** The projection of the view, by columns. @param {number} aspect */
  const matrix = (aspect) => {
    // The whole width of the picture is seen, however narrow the node.
    const degrees = aspect < 1.5 ? 50 * (1.5 / aspect) ** 0.7 : 50;
    const zoom = 1 / Math.tan((degrees / 2) * (Math.PI / 180));
    const [near, far] = [view.away / 200, view.away * 200];
    const { right, up, back } = axes();
    const eye = view.centre.map((c, i) => c + back[i] * view.away);
    const rows = [right, up, back].map((axis) => [...axis, -axis.reduce((sum, a, i) => sum + a * eye[i], 0)]);
    const made = new Float32Array(16);
    for (let column = 0; column < 4; column++) {
      made[column * 4] = (rows[0][column] * zoom) / aspect;
      made[column * 4 + 1] = rows[1][column] * zoom;
      made[column * 4 + 2] = ((far + near) / (near - far)) * rows[2][column] + (column === 3 ? (2 * far * near) / (near - far) : 0);
      made[column * 4 + 3] = -rows[2][column];
    }
    return made;
  };
  /** @param {number} turn @param {number} tilt */
  const rotate = (turn, tilt) => {
    view.turn += turn;
    view.tilt = Math.max(-1.55, Math.min(1.55, view.tilt + tilt));
  };
  const home = () => {
    view = structuredClone(start);
    draw();
  };

  /** @type {Map<number, PointerEvent>} */
  const held = new Map();
  const span = () => {
    const [one, other] = [...held.values()];
    return other ? Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) : 0;
  };
  /** @param {PointerEvent} event */
  const press = (event) => {
    element.setPointerCapture(event.pointerId);
    // ComfyUI leaves the wheel to the element that has the focus.
    element.focus({ preventScroll: true });
    held.set(event.pointerId, event);
  };
  /** @param {PointerEvent} event */
  const move = (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    const box = element.getBoundingClientRect();
    const right = (event.clientX - before.clientX) / box.height;
    const down = (event.clientY - before.clientY) / box.height;
    const apart = span();
    held.set(event.pointerId, event);
    if (held.size > 1) {
      if (span() > 0) view.away *= apart / span();
    } else if (event.shiftKey || event.buttons & 2) {
      const { right: across, up } = axes();
      for (let i = 0; i < 3; i++) view.centre[i] += (up[i] * down - across[i] * right) * view.away;
    } else rotate(-right * Math.PI, down * Math.PI);
    draw();
  };
  /** @param {PointerEvent} event */
  const release = (event) => {
    held.delete(event.pointerId);
  };
  /** @param {WheelEvent} event */
  const wheel = (event) => {
    event.preventDefault();
    view.away *= 1.001 ** event.deltaY;
    draw();
  };
  /** @type {Record<string, () => void>} */
  const keys = {
    ArrowLeft: () => rotate(-TURN, 0),
    ArrowRight: () => rotate(TURN, 0),
    ArrowUp: () => rotate(0, TURN),
    ArrowDown: () => rotate(0, -TURN),
    "+": () => (view.away /= 1.1),
    "-": () => (view.away *= 1.1),
    Home: home,
  };
  /** @param {KeyboardEvent} event */
  const key = (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
    draw();
  };

  element.tabIndex = 0;
  element.addEventListener("pointerdown", press, { signal });
  element.addEventListener("pointermove", move, { signal });
  element.addEventListener("pointerup", release, { signal });
  element.addEventListener("pointercancel", release, { signal });
  element.addEventListener("dblclick", home, { signal });
  element.addEventListener("keydown", key, { signal });
  element.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
  element.addEventListener("wheel", wheel, { signal, passive: false });
  return { matrix, ended };
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
  if (depth.told.kind.endsWith("_inverse")) return 1 / (share + (1 - share) / GUESSED_REACH);
  return share + (1 - share) * GUESSED_REACH;
}

/** The median of z. @param {Float32Array} places */
function median(places) {
  const depths = new Float32Array(places.length / 3);
  for (let i = 0; i < depths.length; i++) depths[i] = places[i * 3 + 2];
  return depths.sort()[depths.length >> 1] ?? -1;
}
