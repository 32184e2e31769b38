// @ts-check
// The widget of Fathom Depth Inspector: false colour, value under the pointer, histogram with a band, before and after,
// point cloud. It reads and writes the node's own widgets, so a graph means the same with and without it.

import { Depth, colourTable } from "./depth.mjs";

/** @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApp} ComfyApp */
/** @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApi} ComfyApi */
/** @typedef {import("./depth.mjs").Told} Told */
/** @typedef {import("./depth.mjs").FileName} FileName */
/** @typedef {import("./depth.mjs").Space} Space */
/** @typedef {"depth" | "compare" | "points"} View */
/** @typedef {{view: View, split: number, told: Told | null}} Kept */

const BINS = 128;
const MIN_HEIGHT = 340;
/** Pixels of the histogram within which an end of the band is taken hold of. */
const REACH = 7;
const PROPERTY = "fathom_inspector";

const STYLE = `
.fathom-inspector { display: flex; flex-direction: column; gap: 4px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: ${MIN_HEIGHT}px; padding: 2px; font: 11px/1.4 sans-serif; color: var(--input-text, #ddd); user-select: none; }
.fathom-inspector nav { display: flex; gap: 2px; align-items: center; }
.fathom-inspector button { flex: 0 0 auto; padding: 2px 8px; border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px;
  background: var(--comfy-input-bg, #222); color: inherit; font: inherit; cursor: pointer; }
.fathom-inspector button[aria-pressed="true"] { background: var(--p-primary-color, #0b8ce9); color: #fff; }
.fathom-inspector button:disabled { opacity: 0.4; cursor: default; }
.fathom-inspector output { flex: 1; min-width: 0; text-align: right; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; font-variant-numeric: tabular-nums; }
.fathom-inspector section { position: relative; flex: 1 1 0; min-height: 120px; overflow: hidden; border-radius: 4px;
  background: #000; }
.fathom-inspector section > * { position: absolute; inset: 0; width: 100%; height: 100%; touch-action: none; }
.fathom-inspector section > p { display: flex; align-items: center; justify-content: center; margin: 0; padding: 12px;
  box-sizing: border-box; text-align: center; color: #bbb; pointer-events: none; }
.fathom-inspector .fathom-histogram { flex: 0 0 92px; width: 100%; height: 92px; touch-action: none; cursor: ew-resize; }
.fathom-inspector [hidden] { display: none; }
`;

/**
 * Give a Depth Inspector node its widget. Where the front end lacks what it needs the node keeps its plain preview.
 * @param {any} node the LiteGraph node
 * @param {ComfyApp} app
 * @param {ComfyApi} api
 */
export function attachInspector(node, app, api) {
  if (typeof node.addDOMWidget !== "function") return;
  new Inspector(node, app, api);
}

class Inspector {
  /**
   * @param {any} node
   * @param {ComfyApp} app
   * @param {ComfyApi} api
   */
  constructor(node, app, api) {
    this.node = node;
    this.app = app;
    this.api = api;
    /** @type {Depth | null} */
    this.depth = null;
    /** @type {ImageBitmap | null} */
    this.photo = null;
    /** @type {{key: string, canvas: HTMLCanvasElement} | null} */
    this.coloured = null;
    /** @type {Uint32Array | null} */
    this.counts = null;
    /** @type {{resize(): void, colour(rgba: Uint8ClampedArray): void, dispose(): void} | null} */
    this.cloud = null;
    this.frame = 0;
    /** Counts what is asked for, so that an answer that comes late is known. */
    this.asked = 0;
    this.ended = new AbortController();
    this.space = /** @type {Space} */ (this.read("space") ?? "relative");

    this.root = document.createElement("div");
    this.readout = document.createElement("output");
    this.canvas = document.createElement("canvas");
    this.space3d = document.createElement("div");
    this.message = document.createElement("p");
    this.histogram = document.createElement("canvas");
    /** @type {Map<View, HTMLButtonElement>} */
    this.buttons = new Map();
    this.build();
    const widget = node.addDOMWidget("inspector", "fathom_inspector", this.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => MIN_HEIGHT,
    });
    widget.serialize = false;
    // The properties panel gives every widget that it lists its own width, which would hold on the node too.
    Object.defineProperty(widget, "width", { get: () => undefined, set: () => {}, configurable: true });
    const [width, height] = node.size;
    node.setSize?.([Math.max(width, 380), Math.max(height, 640)]);
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.root);
    this.hook();
    this.show();
  }

  // ------------------------------------------------------------------------------------------ the page

  build() {
    this.root.className = "fathom-inspector";
    const style = document.createElement("style");
    style.textContent = STYLE;
    const bar = document.createElement("nav");
    for (const [view, text, title] of /** @type {[View, string, string][]} */ ([
      ["depth", "Depth", "Click the picture to set the focus"],
      ["compare", "Before | after", "Drag to wipe between the photo and its depth"],
      ["points", "Points", "Drag to turn the point cloud, scroll to come closer"],
    ])) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.title = title;
      button.dataset.view = view;
      this.on(button, "click", () => this.keep({ view }));
      this.buttons.set(view, button);
      bar.append(button);
    }
    bar.append(this.readout);

    const stage = document.createElement("section");
    stage.append(this.canvas, this.space3d, this.message);
    this.histogram.className = "fathom-histogram";
    this.root.append(style, bar, stage, this.histogram);

    // The graph must not drag the node, pan or open its menu while the widget is used.
    for (const kind of ["pointerdown", "pointerup", "dblclick", "contextmenu"])
      this.on(this.root, kind, (event) => event.stopPropagation());
    this.on(this.space3d, "wheel", (event) => event.stopPropagation());
    this.space3d.dataset.captureWheel = "true";
    this.on(this.canvas, "pointermove", (event) => this.tell(event));
    this.on(this.canvas, "pointerleave", () => this.tell(null));
    this.on(this.canvas, "pointerdown", (event) => this.press(event));
    this.on(this.histogram, "pointerdown", (event) => this.sweep(event));
  }

  /**
   * Listen until the node is removed.
   * @param {HTMLElement} element
   * @param {string} kind
   * @param {(event: any) => void} listener
   */
  on(element, kind, listener) {
    element.addEventListener(kind, listener, { signal: this.ended.signal });
  }

  // ------------------------------------------------------------------------------------------ the node

  hook() {
    const node = this.node;
    // The plain preview is what others see; here it would show the same picture twice, in either node renderer.
    node.hideOutputImages = true;
    node.onDrawBackground = () => {};
    /** @param {string} name @param {(...given: any[]) => void} after */
    const chain = (name, after) => {
      const before = node[name];
      node[name] = function (/** @type {any[]} */ ...given) {
        const result = before?.apply(this, given);
        after(...given);
        return result;
      };
    };
    chain("onExecuted", (output) => {
      const told = output?.fathom_depth?.[0];
      if (told) this.keep({ told });
    });
    chain("onConfigure", () => {
      this.space = this.read("space") ?? "relative";
      this.show();
    });
    chain("onRemoved", () => this.remove());
    for (const widget of node.widgets ?? []) {
      if (widget.name === "inspector") continue;
      const before = widget.callback;
      widget.callback = (/** @type {any[]} */ ...given) => {
        const result = before?.apply(widget, given);
        if (widget.name === "space") this.convert();
        if (widget.name === "palette" && this.depth) this.cloud?.colour(this.dots(this.depth));
        this.draw();
        return result;
      };
    }
  }

  remove() {
    this.ended.abort();
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
    this.cloud?.dispose();
    this.photo?.close();
    this.cloud = this.photo = this.depth = null;
  }

  /** @param {string} name */
  widget(name) {
    return this.node.widgets?.find((/** @type {any} */ w) => w.name === name);
  }

  /** What a widget of the node says. @param {string} name @returns {any} */
  read(name) {
    return this.widget(name)?.value;
  }

  /** Write a widget's value, unless a link decides it. @param {string} name @param {number} value */
  write(name, value) {
    const linked = this.node.inputs?.find((/** @type {any} */ input) => input.widget?.name === name);
    const widget = this.widget(name);
    if (!widget || (linked && linked.link != null)) return;
    widget.value = value;
    this.node.setDirtyCanvas?.(true, true);
  }

  /** Let the front end note that the graph has changed: undo, and the mark of an unsaved graph. */
  changed() {
    this.node.graph?.afterChange?.(this.node);
    const manager = /** @type {any} */ (this.app.extensionManager);
    manager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
  }

  /** What is saved with the graph besides the node's widgets. @returns {Kept} */
  get kept() {
    return { view: "depth", split: 0.5, told: null, ...this.node.properties?.[PROPERTY] };
  }

  /** @param {Partial<Kept>} change */
  keep(change) {
    this.node.properties ??= {};
    this.node.properties[PROPERTY] = { ...this.kept, ...change };
    this.show();
  }

  /** The band and the focus in the new space, when the user changes the space. */
  convert() {
    const space = /** @type {Space} */ (this.read("space"));
    if (space === this.space) return;
    if (this.depth?.hasMetres)
      for (const name of ["near", "far", "focus"])
        this.write(name, this.depth.toSpace(this.depth.fromSpace(this.read(name), this.space), space));
    this.space = space;
  }

  /** The values of the band's ends, the far one first. @param {Depth} depth @returns {[number, number]} */
  band(depth) {
    const ends = ["near", "far"].map((name) => depth.fromSpace(Number(this.read(name)), this.space));
    return [Math.min(...ends), Math.max(...ends)];
  }

  // ------------------------------------------------------------------------------------------ what is shown

  /** Fetch what is not here yet, and draw. */
  async show() {
    const { told, view } = this.kept;
    for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === view));
    const key = told ? told.values.filename : "";
    if (!told) this.say("Run the graph to see the depth.");
    else if (this.depth?.told.values.filename !== key) await this.fetch(told);
    if (this.ended.signal.aborted) return;
    const compare = /** @type {HTMLButtonElement} */ (this.buttons.get("compare"));
    compare.disabled = !this.photo;
    compare.title = this.photo ? "Drag to wipe between the photo and its depth" : "Connect an image to compare with";
    await this.points(view === "points" && this.depth !== null);
    this.draw();
  }

  /** @param {Told} told */
  async fetch(told) {
    const ask = ++this.asked;
    try {
      const [values, photo] = await Promise.all([this.file(told.values), told.photo ? this.file(told.photo) : null]);
      const bitmap = photo ? await createImageBitmap(await photo.blob()) : null;
      const depth = new Depth(told, new Float32Array(await values.arrayBuffer()));
      if (ask !== this.asked || this.ended.signal.aborted) return;
      this.photo?.close();
      this.depth = depth;
      this.photo = bitmap;
      this.counts = depth.histogram(BINS);
      this.coloured = null;
      this.cloud?.dispose();
      this.cloud = null;
      this.say("");
      this.tell(null);
    } catch (error) {
      if (ask !== this.asked || this.ended.signal.aborted) return;
      this.depth = null;
      this.say(error instanceof Gone ? "Run the graph to see the depth." : `The depth cannot be shown: ${error}`);
    }
  }

  /** @param {FileName} name */
  async file(name) {
    const query = new URLSearchParams({ filename: name.filename, subfolder: name.subfolder, type: name.type });
    const reply = await this.api.fetchApi(`/view?${query}`, { signal: this.ended.signal });
    if (reply.status === 404) throw new Gone();
    if (!reply.ok) throw new Error(`the server answered with ${reply.status}`);
    return reply;
  }

  /** @param {string} text */
  say(text) {
    this.message.textContent = text;
    this.message.hidden = !text;
  }

  /** Draw with the next frame, once. */
  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      if (this.ended.signal.aborted) return;
      this.paint();
      this.chart();
      this.cloud?.resize();
    });
  }

  /** The colours that the palette stands for. */
  get table() {
    const spec = this.node.constructor?.nodeData?.input?.required?.palette?.[1];
    return colourTable(spec?.colours?.[this.read("palette")] ?? ["000000", "ffffff"]);
  }

  /** The depth in false colour at its own size. @param {Depth} depth */
  picture(depth) {
    const band = this.band(depth);
    const key = [depth.told.values.filename, this.read("palette"), ...band].join();
    if (this.coloured?.key !== key) {
      const canvas = this.coloured?.canvas ?? document.createElement("canvas");
      canvas.width = depth.told.width;
      canvas.height = depth.told.height;
      const rgba = depth.colours(this.table, ...band);
      canvas.getContext("2d")?.putImageData(new ImageData(rgba, canvas.width, canvas.height), 0, 0);
      this.coloured = { key, canvas };
    }
    return this.coloured.canvas;
  }

  /** Where the picture lies on the stage, in its layout pixels. @param {Depth} depth */
  place(depth) {
    const { clientWidth, clientHeight } = this.canvas;
    const [width, height] = depth.told.full;
    const scale = Math.min(clientWidth / width, clientHeight / height);
    return {
      x: (clientWidth - width * scale) / 2,
      y: (clientHeight - height * scale) / 2,
      width: width * scale,
      height: height * scale,
    };
  }

  /** The drawing context of a canvas in layout pixels, cleared; null while it has no size. @param {HTMLCanvasElement} canvas */
  pen(canvas) {
    const { clientWidth, clientHeight } = canvas;
    if (!clientWidth || !clientHeight) return null;
    const sharp = Math.min(3, Math.max(1, devicePixelRatio) * 1.5);
    const [width, height] = [Math.round(clientWidth * sharp), Math.round(clientHeight * sharp)];
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const pen = canvas.getContext("2d");
    pen?.setTransform(width / clientWidth, 0, 0, height / clientHeight, 0, 0);
    pen?.clearRect(0, 0, clientWidth, clientHeight);
    return pen;
  }

  paint() {
    const { view, split } = this.kept;
    this.canvas.hidden = view === "points";
    this.space3d.hidden = view !== "points";
    const pen = this.pen(this.canvas);
    if (!pen || !this.depth) return;
    const { x, y, width, height } = this.place(this.depth);
    pen.drawImage(this.picture(this.depth), x, y, width, height);
    if (view === "compare" && this.photo) {
      pen.save();
      pen.beginPath();
      pen.rect(x, y, width * split, height);
      pen.clip();
      pen.drawImage(this.photo, x, y, width, height);
      pen.restore();
      pen.fillStyle = "#fff";
      pen.fillRect(x + width * split - 1, y, 2, height);
      pen.beginPath();
      pen.arc(x + width * split, y + height / 2, 6, 0, 2 * Math.PI);
      pen.fill();
    }
  }

  /** The histogram over the legend: far at the left, near at the right. */
  chart() {
    const pen = this.pen(this.histogram);
    const { depth, counts } = this;
    if (!pen || !depth || !counts) return;
    const { clientWidth: wide } = this.histogram;
    const [top, bar, tall] = [8, 10, 52];
    const table = this.table;
    const ink = getComputedStyle(this.root).color;
    const [least, most] = this.band(depth).map((value) => Math.min(1, Math.max(0, depth.share(value))));
    // The height is that of the fullest bins but a few, so that one flat wall does not flatten the rest.
    const full = Math.max(1, [...counts].sort((a, b) => b - a)[3]);
    for (let i = 0; i < BINS; i++) {
      const [from, to] = [(i / BINS) * wide, ((i + 1) / BINS) * wide];
      const entry = Math.round((i / (BINS - 1)) * 255) * 3;
      pen.fillStyle = `rgb(${table[entry]} ${table[entry + 1]} ${table[entry + 2]})`;
      pen.fillRect(from, top + tall + 2, to - from + 0.5, bar);
      const inside = (i + 0.5) / BINS >= least && (i + 0.5) / BINS <= most;
      pen.globalAlpha = inside ? 1 : 0.3;
      pen.fillStyle = ink;
      const high = Math.min(1, counts[i] / full) * tall;
      pen.fillRect(from, top + tall - high, to - from - 0.5, high);
      pen.globalAlpha = 1;
    }
    pen.fillStyle = "#f80";
    for (const end of [least, most]) {
      const at = Math.min(wide - 1, Math.max(1, end * wide));
      pen.fillRect(at - 1, top - 4, 2, tall + bar + 6);
      pen.fillRect(at - 3, top - 6, 6, 6);
    }
    const focus = depth.share(depth.fromSpace(Number(this.read("focus")), this.space));
    if (focus >= 0 && focus <= 1) {
      pen.fillStyle = "#0cf";
      pen.beginPath();
      pen.moveTo(focus * wide, top + tall - 1);
      pen.lineTo(focus * wide - 5, top + tall + bar + 4);
      pen.lineTo(focus * wide + 5, top + tall + bar + 4);
      pen.fill();
    }
    this.legend(pen, depth, wide, top + tall + bar + 14, ink);
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {Depth} depth
   * @param {number} wide
   * @param {number} base
   * @param {string} ink
   */
  legend(pen, depth, wide, base, ink) {
    pen.fillStyle = ink;
    pen.font = "10px sans-serif";
    pen.textAlign = "center";
    let taken = -1;
    for (const [share, text] of depth.ticks().sort((a, b) => a[0] - b[0])) {
      const half = pen.measureText(text).width / 2;
      const at = Math.min(wide - half - 1, Math.max(half + 1, share * wide));
      if (at - half < taken + 6) continue;
      pen.fillText(text, at, base);
      taken = at + half;
    }
  }

  // ------------------------------------------------------------------------------------------ the pointer

  /**
   * The pixel under the pointer, and its value; null beside the picture.
   * @param {PointerEvent} event
   */
  under(event) {
    if (!this.depth) return null;
    const box = this.canvas.getBoundingClientRect();
    const { x, y, width, height } = this.place(this.depth);
    // The graph's zoom scales the box, not the layout.
    const across = (((event.clientX - box.left) / box.width) * this.canvas.clientWidth - x) / width;
    const down = (((event.clientY - box.top) / box.height) * this.canvas.clientHeight - y) / height;
    if (!(across >= 0 && across < 1 && down >= 0 && down < 1)) return null;
    const { width: columns, height: rows, full } = this.depth.told;
    const value = this.depth.values[Math.floor(down * rows) * columns + Math.floor(across * columns)];
    return { across, x: Math.floor(across * full[0]), y: Math.floor(down * full[1]), value };
  }

  /** Tell the value under the pointer, or else what the depth is. @param {PointerEvent | null} event */
  tell(event) {
    const depth = this.depth;
    const found = event && this.under(event);
    if (!depth) this.readout.textContent = "";
    else if (!found) this.readout.textContent = `${depth.told.source} · ${depth.unit}`;
    else {
      const share = Number.isNaN(found.value) ? "" : ` · ${depth.share(found.value).toFixed(3)}`;
      this.readout.textContent = `${found.x}, ${found.y}: ${depth.text(found.value)}${share}`;
    }
  }

  /** A press on the picture: the wipe in before and after, else the focus. @param {PointerEvent} event */
  press(event) {
    if (event.button !== 0 || !this.depth) return;
    if (this.kept.view === "compare" && this.photo) {
      this.follow(this.canvas, event, (moved) => {
        const box = this.canvas.getBoundingClientRect();
        const { x, width } = this.place(/** @type {Depth} */ (this.depth));
        const at = (((moved.clientX - box.left) / box.width) * this.canvas.clientWidth - x) / width;
        this.keep({ split: Math.min(1, Math.max(0, at)) });
      });
      return;
    }
    const found = this.under(event);
    if (!found || Number.isNaN(found.value)) return;
    this.write("focus", this.depth.toSpace(found.value, this.space));
    this.changed();
    this.draw();
  }

  /** A drag on the histogram: one end of the band where it is taken hold of, a new band elsewhere. @param {PointerEvent} event */
  sweep(event) {
    const depth = this.depth;
    if (event.button !== 0 || !depth) return;
    const share = (/** @type {PointerEvent} */ e) => {
      const box = this.histogram.getBoundingClientRect();
      return Math.min(1, Math.max(0, (e.clientX - box.left) / box.width));
    };
    const reach = REACH / this.histogram.clientWidth;
    const start = share(event);
    const ends = ["near", "far"].map((name) => {
      const at = depth.share(depth.fromSpace(Number(this.read(name)), this.space));
      return { name, at: Math.min(1, Math.max(0, at)) };
    });
    const held = ends.sort((a, b) => Math.abs(a.at - start) - Math.abs(b.at - start))[0];
    const fixed = Math.abs(held.at - start) <= reach ? ends[1].at : start;
    this.follow(this.histogram, event, (moved) => {
      const at = share(moved);
      // A click that does not move keeps the band.
      if (fixed === start && Math.abs(at - start) < reach / 2) return;
      this.write("far", depth.toSpace(depth.atShare(Math.min(fixed, at)), this.space));
      this.write("near", depth.toSpace(depth.atShare(Math.max(fixed, at)), this.space));
      this.draw();
    });
  }

  /**
   * Call `move` until the pointer is let go.
   * @param {HTMLElement} element
   * @param {PointerEvent} event
   * @param {(event: PointerEvent) => void} move
   */
  follow(element, event, move) {
    const done = new AbortController();
    const signal = AbortSignal.any?.([done.signal, this.ended.signal]) ?? done.signal;
    const end = () => {
      done.abort();
      this.changed();
    };
    element.setPointerCapture?.(event.pointerId);
    element.addEventListener("pointermove", move, { signal });
    element.addEventListener("pointerup", end, { signal });
    element.addEventListener("pointercancel", end, { signal });
    event.preventDefault();
    move(event);
  }

  // ------------------------------------------------------------------------------------------ the point cloud

  /** Bring the point cloud up or take it down. @param {boolean} wanted */
  async points(wanted) {
    if (!wanted) {
      this.cloud?.dispose();
      this.cloud = null;
      return;
    }
    if (this.cloud || !this.depth) return;
    const depth = this.depth;
    try {
      const { createCloud } = await import("./cloud.mjs");
      if (this.ended.signal.aborted || this.depth !== depth || this.cloud || this.kept.view !== "points") return;
      this.cloud = createCloud(this.space3d, depth, this.dots(depth));
      this.say("");
    } catch (error) {
      this.say(`The point cloud cannot be shown: ${error instanceof Error ? error.message : error}`);
    }
  }

  /** A colour for each point: the photo's, or false colour. @param {Depth} depth */
  dots(depth) {
    if (!this.photo) return depth.colours(this.table, -Infinity, Infinity);
    const canvas = document.createElement("canvas");
    canvas.width = depth.told.width;
    canvas.height = depth.told.height;
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    pen.drawImage(this.photo, 0, 0, canvas.width, canvas.height);
    return pen.getImageData(0, 0, canvas.width, canvas.height).data;
  }
}

/** The file is no longer there: ComfyUI empties its temp folder when it ends. */
class Gone extends Error {}
