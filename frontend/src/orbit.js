// @ts-check
// Turning a camera around a point with the pointer. three.js's own OrbitControls listens on the document, which pointer
// events of a widget on a ComfyUI node do not reach.

import { Spherical, Vector3 } from "three";

/** @typedef {import("three").PerspectiveCamera} PerspectiveCamera */

/**
 * Turn `camera` around `target`: drag turns, with the right button or shift it moves, the wheel comes closer, a double
 * click goes back to the start.
 * @param {HTMLElement} element what listens
 * @param {PerspectiveCamera} camera
 * @param {Vector3} target
 * @param {number} reach the distance of the target from where the picture was taken
 * @param {() => void} draw called after each change
 * @returns {AbortController} abort() ends it
 */
export function orbit(element, camera, target, reach, draw) {
  const ended = new AbortController();
  const { signal } = ended;
  const place = new Spherical();
  const centre = new Vector3();

  const look = () => {
    place.makeSafe();
    camera.position.setFromSpherical(place).add(centre);
    camera.lookAt(centre);
    draw();
  };
  const home = () => {
    centre.copy(target);
    // A little aside of where the photo was taken from, so that it is seen to be a cloud.
    place.setFromVector3(new Vector3(0.25 * reach, 0.15 * reach, 1.35 * reach));
    look();
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
      if (span() > 0) place.radius *= apart / span();
    } else if (event.shiftKey || event.buttons & 2) {
      const way = new Vector3(-right, down, 0).multiplyScalar(place.radius);
      centre.add(way.applyQuaternion(camera.quaternion));
    } else {
      place.theta -= right * Math.PI;
      place.phi -= down * Math.PI;
    }
    look();
  };
  /** @param {PointerEvent} event */
  const release = (event) => {
    held.delete(event.pointerId);
  };
  /** @param {WheelEvent} event */
  const wheel = (event) => {
    event.preventDefault();
    place.radius *= 1.001 ** event.deltaY;
    look();
  };

  element.tabIndex = 0;
  element.style.outline = "none";
  element.addEventListener("pointerdown", press, { signal });
  element.addEventListener("pointermove", move, { signal });
  element.addEventListener("pointerup", release, { signal });
  element.addEventListener("pointercancel", release, { signal });
  element.addEventListener("dblclick", home, { signal });
  element.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
  element.addEventListener("wheel", wheel, { signal, passive: false });
  home();
  return ended;
}
