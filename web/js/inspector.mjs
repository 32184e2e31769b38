// @ts-check
// The widget of Fathom Depth Inspector: false colour, value under the pointer, histogram with a band, before and after,
// point cloud. It reads and writes the node's own widgets, so a graph means the same with and without it.

import { Depth, colourTable } from "./depth.mjs";
import { holder } from "./graph.mjs";
import { say } from "./words.mjs";

/** @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApp} ComfyApp */
/** @typedef {import("@comfyorg/comfyui-frontend-types").ComfyApi} ComfyApi */
/** @typedef {import("./depth.mjs").Told} Told */
/** @typedef {import("./depth.mjs").FileName} FileName */
/** @typedef {import("./depth.mjs").Space} Space */
/** @typedef {import("./depth.mjs").Band} Band */
/** @typedef {{across: number, down: number}} Spot shares of the picture */
/** @typedef {"depth" | "mask" | "compare" | "points"} View */
/** @typedef {{view: View, split: number, told: Told | null, frame: number, spot: Spot | null}} Kept */

const BINS = 128;
const MIN_HEIGHT = 360;
/** Pixels of the histogram within which an end of the band is taken hold of. */
const REACH = 7;
const PROPERTY = "fathom_inspector";
/** What a key moves the band's ends or the focus by, as a share of the axis. */
const STEP = 0.01;
const VIEWS = /** @type {View[]} */ (["depth", "mask", "compare", "points"]);

/**
 * What the last run told each inspector, by workflow, graph and node. Undo puts the graph back to how it was, and may
 * know of no run; the depth is still there.
 * @type {Map<string, Told>}
 */
const lastTold = new Map();

const STYLE = `
.fathom-inspector { display: flex; flex-direction: column; gap: 4px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: ${MIN_HEIGHT}px; padding: 2px; font: 11px/1.4 sans-serif; color: var(--input-text, #ddd); user-select: none; }
.fathom-inspector nav { display: flex; flex-wrap: wrap; gap: 2px; align-items: center; }
.fathom-inspector button { flex: 0 0 auto; padding: 2px 8px; border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px;
  background: var(--comfy-input-bg, #222); color: inherit; font: inherit; cursor: pointer; }
.fathom-inspector button[aria-pressed="true"] { background: var(--p-primary-color, #0b8ce9); color: #fff; }
.fathom-inspector button:disabled { opacity: 0.4; cursor: default; }
.fathom-inspector output { flex: 0 0 100%; min-height: 1.4em; text-align: right; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; font-variant-numeric: tabular-nums; }
.fathom-inspector section { position: relative; flex: 1 1 0; min-height: 120px; overflow: hidden; border-radius: 4px;
  background: #000; }
.fathom-inspector section > * { position: absolute; inset: 0; width: 100%; height: 100%; touch-action: none; }
.fathom-inspector section > p { display: flex; align-items: center; justify-content: center; margin: 0; padding: 12px;
  box-sizing: border-box; text-align: center; color: #bbb; pointer-events: none; }
.fathom-inspector .fathom-histogram { flex: 0 0 92px; width: 100%; height: 92px; touch-action: none; cursor: ew-resize; }
.fathom-inspector canvas:focus-visible { outline: 2px solid var(--p-primary-color, #0b8ce9); outline-offset: -2px; }
.fathom-inspector .fathom-frames { display: flex; align-items: center; }
.fathom-inspector .fathom-frames button { padding: 2px 6px; }
.fathom-inspector .fathom-frames span { padding: 0 4px; font-variant-numeric: tabular-nums; }
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
    /** The file that is here, for all pictures of a batch. @type {{name: string, values: ArrayBuffer, photos: ArrayBuffer | null} | null} */
    this.file = null;
    /** @type {{focus: number, spot: Spot | null} | null} where the focus is, where nobody clicked */
    this.mark = null;
    this.shown = "";
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
    this.frames = document.createElement("div");
    this.counter = document.createElement("span");
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
    for (const view of VIEWS) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = say(view);
      button.title = say(`${view}Hint`);
      button.dataset.view = view;
      this.on(button, "click", () => this.keep({ view }));
      this.buttons.set(view, button);
      bar.append(button);
    }
    this.frames.className = "fathom-frames";
    this.frames.hidden = true;
    this.frames.append(this.stepper("◀", say("previous"), -1), this.counter, this.stepper("▶", say("next"), 1));
    bar.append(this.frames);
    bar.append(this.readout);

    const stage = document.createElement("section");
    stage.append(this.canvas, this.space3d, this.message);
    this.histogram.className = "fathom-histogram";
    this.canvas.tabIndex = this.histogram.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", say("pictureKeys"));
    this.histogram.setAttribute("role", "slider");
    this.histogram.setAttribute("aria-label", say("histogramKeys"));
    this.histogram.title = say("dragHint");
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
    this.on(this.canvas, "keydown", (event) => this.key(event, event.shiftKey ? null : "focus"));
    this.on(this.histogram, "keydown", (event) => this.key(event, event.shiftKey ? "far" : "near"));
  }

  /** A button that steps through the pictures of a batch. @param {string} text @param {string} title @param {number} by */
  stepper(text, title, by) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.title = title;
    button.setAttribute("aria-label", title);
    this.on(button, "click", () => this.step(by));
    return button;
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
      if (!told) return;
      lastTold.set(this.name, told);
      // Where a batch was looked at, there the next one is, unless the widget says another picture.
      const same = this.kept.told?.picture === told.picture && this.kept.frame < (told.frames?.length ?? 1);
      this.keep({ told, frame: same ? this.kept.frame : frameOf(told) });
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
    this.cloud = this.photo = this.depth = this.file = null;
  }

  /** @param {string} name */
  widget(name) {
    return this.node.widgets?.find((/** @type {any} */ w) => w.name === name);
  }

  /**
   * What a widget of the node says; of one that a subgraph shows outside, what it says there; of one that another node
   * decides, what it was in the last run.
   * @param {string} name
   * @returns {any}
   */
  read(name) {
    const held = holder(this.app, this.node, name);
    return held ? held.value : (this.kept.told?.chosen?.[name] ?? this.widget(name)?.value);
  }

  /** Write a widget's value, unless another node decides it. @param {string} name @param {number} value */
  write(name, value) {
    const held = holder(this.app, this.node, name);
    if (!held) return;
    held.value = value;
    this.node.setDirtyCanvas?.(true, true);
  }

  /** What this node is among all graphs of the page. */
  get name() {
    const workflow = /** @type {any} */ (this.app.extensionManager)?.workflow?.activeWorkflow;
    const { graph, id } = this.node;
    // The id of a whole graph changes when undo reads it anew.
    return [workflow?.path, graph === (this.app.rootGraph ?? this.app.graph) ? "" : graph?.id, id].join();
  }

  /** Let the front end note that the graph has changed: undo, and the mark of an unsaved graph. */
  changed() {
    this.node.graph?.afterChange?.(this.node);
    const manager = /** @type {any} */ (this.app.extensionManager);
    const tracker = manager?.workflow?.activeWorkflow?.changeTracker;
    if (tracker?.captureCanvasState) tracker.captureCanvasState();
    else tracker?.checkState?.();
  }

  /** What is saved with the graph besides the node's widgets. @returns {Kept} */
  get kept() {
    const kept = this.node.properties?.[PROPERTY] ?? {};
    const told = kept.told ?? lastTold.get(this.name) ?? null;
    return { view: "depth", split: 0.5, spot: null, frame: frameOf(told), ...kept, told };
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

  /** The band that the widgets say. @param {Depth} depth @returns {Band} */
  band(depth) {
    const ends = ["near", "far"].map((name) => depth.fromSpace(Number(this.read(name)), this.space));
    const softness = Number(this.read("softness") ?? 0);
    return { least: Math.min(...ends), most: Math.max(...ends), softness, space: this.space };
  }

  /** Show another picture of the batch. @param {number} by */
  step(by) {
    const { told, frame } = this.kept;
    const last = (told?.frames?.length ?? 1) - 1;
    this.keep({ frame: Math.min(last, Math.max(0, frame + by)) });
  }

  // ------------------------------------------------------------------------------------------ what is shown

  /** Fetch what is not here yet, and draw. */
  async show() {
    const { told, view, frame } = this.kept;
    for (const [name, button] of this.buttons) button.setAttribute("aria-pressed", String(name === view));
    if (!told) this.tellAll(say("run"));
    else if (this.shown !== shownKey(told, frame)) await this.open(told, frame);
    if (this.ended.signal.aborted) return;
    const compare = /** @type {HTMLButtonElement} */ (this.buttons.get("compare"));
    compare.disabled = !this.photo;
    compare.title = say(this.photo ? "compareHint" : "noPhoto");
    this.count(told, frame);
    await this.points(view === "points" && this.depth !== null);
    this.draw();
  }

  /** @param {Told | null} told @param {number} frame */
  count(told, frame) {
    const frames = told?.frames;
    this.frames.hidden = !frames;
    if (!told || !frames) return;
    this.counter.textContent = `${(frames[frame]?.[0] ?? 0) + 1}/${told.pictures}`;
    const [back, , on] = /** @type {any} */ (this.frames.children);
    back.disabled = frame <= 0;
    on.disabled = frame >= frames.length - 1;
  }

  /** @param {Told} told @param {number} frame */
  async open(told, frame) {
    const ask = ++this.asked;
    try {
      const file = this.file?.name === told.values.filename ? this.file : await this.fetch(told);
      const photo = file.photos && told.photos ? cut(file.photos, told.photos, frame) : null;
      const bitmap = photo ? await createImageBitmap(new Blob([photo], { type: "image/jpeg" })) : null;
      if (ask !== this.asked || this.ended.signal.aborted) return;
      this.file = file;
      this.photo?.close();
      this.depth = pictureOf(told, file.values, frame);
      this.photo = bitmap;
      this.shown = shownKey(told, frame);
      this.counts = this.depth.histogram(BINS);
      this.coloured = null;
      this.mark = null;
      this.cloud?.dispose();
      this.cloud = null;
      this.tellAll("");
      this.tell(null);
    } catch (error) {
      if (ask !== this.asked || this.ended.signal.aborted) return;
      this.depth = this.file = null;
      this.shown = "";
      this.tellAll(error instanceof Gone ? say("run") : `${say("noDepth")} ${error}`);
    }
  }

  /** @param {Told} told */
  async fetch(told) {
    const [values, photos] = await Promise.all([this.load(told.values), told.photo ? this.load(told.photo) : null]);
    return { name: told.values.filename, values, photos };
  }

  /** @param {FileName} name */
  async load(name) {
    const query = new URLSearchParams({ filename: name.filename, subfolder: name.subfolder, type: name.type });
    const reply = await this.api.fetchApi(`/view?${query}`, { signal: this.ended.signal });
    if (reply.status === 404) throw new Gone();
    if (!reply.ok) throw new Error(`the server answered with ${reply.status}`);
    return reply.arrayBuffer();
  }

  /** A line in the middle of the picture. @param {string} text */
  tellAll(text) {
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
    const masked = this.kept.view === "mask";
    const key = [this.shown, masked, this.read("palette"), ...Object.values(band)].join();
    if (this.coloured?.key !== key) {
      const canvas = this.coloured?.canvas ?? document.createElement("canvas");
      canvas.width = depth.told.width;
      canvas.height = depth.told.height;
      const rgba = masked ? depth.mask(band) : depth.colours(this.table, band);
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
    if (view === "depth") this.circle(pen, { x, y, width, height });
  }

  /** The mark of the focus: where it was clicked, or else where the picture has that depth. @param {any} pen @param {any} box */
  circle(pen, box) {
    const depth = /** @type {Depth} */ (this.depth);
    const focus = depth.fromSpace(Number(this.read("focus")), this.space);
    const { spot } = this.kept;
    const told = spot && depth.values[this.pixel(spot)];
    const holds = told != null && Math.abs(depth.share(told) - depth.share(focus)) < 0.005;
    if (!holds && this.mark?.focus !== focus) this.mark = { focus, spot: depth.find(focus) };
    const at = holds ? spot : this.mark?.spot;
    if (!at) return;
    for (const [colour, thick] of [
      ["#000", 4],
      ["#0cf", 2],
    ]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.beginPath();
      pen.arc(box.x + at.across * box.width, box.y + at.down * box.height, 7, 0, 2 * Math.PI);
      pen.stroke();
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
    const band = this.band(depth);
    const [least, most] = [band.least, band.most].map((value) => clamp(depth.onAxis(value)));
    // The height is that of the fullest bins but a few, so that one flat wall does not flatten the rest.
    const full = Math.max(1, [...counts].sort((a, b) => b - a)[3]);
    for (let i = 0; i < BINS; i++) {
      const [from, to] = [(i / BINS) * wide, ((i + 1) / BINS) * wide];
      const entry = Math.round(clamp(depth.share(depth.fromAxis((i + 0.5) / BINS))) * 255) * 3;
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
    const focus = depth.onAxis(depth.fromSpace(Number(this.read("focus")), this.space));
    if (focus >= 0 && focus <= 1) {
      pen.fillStyle = "#0cf";
      pen.beginPath();
      pen.moveTo(focus * wide, top + tall - 1);
      pen.lineTo(focus * wide - 5, top + tall + bar + 4);
      pen.lineTo(focus * wide + 5, top + tall + bar + 4);
      pen.fill();
    }
    this.legend(pen, depth, wide, top + tall + bar + 14, ink);
    const [near, far] = ["near", "far"].map((name) => `${say(/** @type {any} */ (name))} ${this.read(name)}`);
    this.histogram.setAttribute("aria-valuetext", `${far}, ${near}`);
    this.histogram.setAttribute("aria-valuenow", String(this.read("near")));
    if (least <= 0 && most >= 1) {
      pen.font = "11px sans-serif";
      pen.textAlign = "center";
      const half = pen.measureText(say("dragHint")).width / 2 + 6;
      pen.fillStyle = "#000c";
      pen.fillRect(wide / 2 - half, top + 14, half * 2, 18);
      pen.fillStyle = "#fff";
      pen.fillText(say("dragHint"), wide / 2, top + 27);
    }
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
    pen.textAlign = "left";
    pen.fillText(say("far"), 1, base);
    pen.textAlign = "right";
    pen.fillText(say("near"), wide - 1, base);
    const end = wide - 1 - pen.measureText(say("near")).width;
    let taken = 1 + pen.measureText(say("far")).width;
    pen.textAlign = "center";
    for (const [share, text] of depth.ticks(this.space).sort((a, b) => a[0] - b[0])) {
      const half = pen.measureText(text).width / 2;
      const at = Math.min(wide - half - 1, Math.max(half + 1, share * wide));
      if (at - half < taken + 6 || at + half > end - 6) continue;
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
    const { full } = this.depth.told;
    const value = this.depth.values[this.pixel({ across, down })];
    return { across, down, x: Math.floor(across * full[0]), y: Math.floor(down * full[1]), value };
  }

  /** The pixel of a place in the picture. @param {Spot} spot */
  pixel({ across, down }) {
    const { width, height } = /** @type {Depth} */ (this.depth).told;
    return Math.floor(down * height) * width + Math.floor(across * width);
  }

  /** Tell the value under the pointer, or else what the depth is. @param {PointerEvent | null} event */
  tell(event) {
    const depth = this.depth;
    const found = event && this.under(event);
    if (!depth) this.readout.textContent = "";
    else if (!found) this.readout.textContent = `${depth.told.source} · ${say(depth.told.kind)}`;
    else if (Number.isNaN(found.value)) this.readout.textContent = `${say("pixel")} ${found.x}, ${found.y}: ${say("notMeasured")}`;
    else {
      const place = `${say("place")} ${depth.share(found.value).toFixed(3)}`;
      this.readout.textContent = `${say("pixel")} ${found.x}, ${found.y}: ${depth.text(found.value)} · ${place}`;
    }
    this.readout.title = this.readout.textContent ?? "";
  }

  /** A press on the picture: the wipe in before and after, else the focus. @param {PointerEvent} event */
  press(event) {
    if (event.button !== 0 || !this.depth) return;
    if (this.kept.view === "compare" && this.photo) {
      this.follow(this.canvas, event, (moved) => {
        const box = this.canvas.getBoundingClientRect();
        const { x, width } = this.place(/** @type {Depth} */ (this.depth));
        const at = (((moved.clientX - box.left) / box.width) * this.canvas.clientWidth - x) / width;
        this.keep({ split: clamp(at) });
      });
      return;
    }
    const found = this.under(event);
    if (!found || Number.isNaN(found.value)) return;
    this.write("focus", this.depth.toSpace(found.value, this.space));
    this.keep({ spot: { across: found.across, down: found.down } });
    this.changed();
  }

  /** The keys of the picture and of the histogram. @param {KeyboardEvent} event @param {string | null} name the widget that the arrows move */
  key(event, name) {
    const page = { PageUp: -1, PageDown: 1 }[event.key];
    const by = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP }[event.key];
    const depth = this.depth;
    if (!depth || !(page || (by && name))) return;
    event.preventDefault();
    event.stopPropagation();
    if (page) return this.step(page);
    const at = clamp(depth.onAxis(depth.fromSpace(Number(this.read(String(name))), this.space)));
    this.write(String(name), depth.toSpace(depth.fromAxis(clamp(at + Number(by))), this.space));
    this.changed();
    this.draw();
  }

  /** A drag on the histogram: one end of the band where it is taken hold of, a new band elsewhere. @param {PointerEvent} event */
  sweep(event) {
    const depth = this.depth;
    if (event.button !== 0 || !depth) return;
    const share = (/** @type {PointerEvent} */ e) => {
      const box = this.histogram.getBoundingClientRect();
      return clamp((e.clientX - box.left) / box.width);
    };
    const reach = REACH / this.histogram.clientWidth;
    const start = share(event);
    const ends = ["near", "far"].map((name) => {
      return { name, at: clamp(depth.onAxis(depth.fromSpace(Number(this.read(name)), this.space))) };
    });
    const held = ends.sort((a, b) => Math.abs(a.at - start) - Math.abs(b.at - start))[0];
    const fixed = Math.abs(held.at - start) <= reach ? ends[1].at : start;
    this.follow(this.histogram, event, (moved) => {
      const at = share(moved);
      // A click that does not move keeps the band.
      if (fixed === start && Math.abs(at - start) < reach / 2) return;
      this.write("far", depth.toSpace(depth.fromAxis(Math.min(fixed, at)), this.space));
      this.write("near", depth.toSpace(depth.fromAxis(Math.max(fixed, at)), this.space));
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
      this.cloud = createCloud(this.space3d, depth, this.dots(depth), say("pointsHint"));
      this.tellAll("");
    } catch (error) {
      this.tellAll(`${say("noCloud")} ${error instanceof Error ? error.message : error}`);
    }
  }

  /** A colour for each point: the photo's, or false colour. @param {Depth} depth */
  dots(depth) {
    if (!this.photo) return depth.colours(this.table, null);
    const canvas = document.createElement("canvas");
    canvas.width = depth.told.width;
    canvas.height = depth.told.height;
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
    pen.drawImage(this.photo, 0, 0, canvas.width, canvas.height);
    return pen.getImageData(0, 0, canvas.width, canvas.height).data;
  }
}

/** @param {number} share */
function clamp(share) {
  return Math.min(1, Math.max(0, share));
}

/** Which of the frames that were sent the node asks to see first. @param {Told | null} told */
function frameOf(told) {
  const found = told?.frames?.findIndex(([place]) => place >= told.picture) ?? 0;
  return Math.max(0, found);
}

/** @param {Told} told @param {number} frame */
function shownKey(told, frame) {
  return `${told.values.filename} ${frame}`;
}

/** One picture of what was sent. @param {Told} told @param {ArrayBuffer} values @param {number} frame */
function pictureOf(told, values, frame) {
  const count = told.width * told.height;
  if (!told.frames) return new Depth(told, new Float32Array(values));
  const [picture, low, high, focal] = told.frames[frame];
  return new Depth({ ...told, picture, low, high, focal }, new Float32Array(values, frame * count * 4, count));
}

/** One of several files that lie in one. @param {ArrayBuffer} files @param {number[]} ends @param {number} at */
function cut(files, ends, at) {
  const which = Math.min(at, ends.length - 1);
  return files.slice(which ? ends[which - 1] : 0, ends[which]);
}

/** The file is no longer there: ComfyUI empties its temp folder when it ends. */
class Gone extends Error {}
