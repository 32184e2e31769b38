// @ts-check
// Buttons where people look rather than type: colours, classes, files to upload, the point in focus.

import { chooseFrom, openDialog } from "./dialog.mjs";
import { say } from "./words.mjs";

/**
 * Give the inputs of a node that say so ("picker" in their declaration) a button each.
 * @param {any} node
 * @param {any} app
 * @param {any} api
 */
export function attachPickers(node, app, api) {
  if (typeof node.addWidget !== "function") return;
  const spec = { ...node.constructor?.nodeData?.input?.required, ...node.constructor?.nodeData?.input?.optional };
  /** @type {Record<string, (widget: any, told: any) => void>} */
  const pickers = {
    colour: (widget) => add(node, say("colour"), () => pickColour(widget.value, (hex) => write(node, widget, hex))),
    classes: (widget, told) =>
      add(node, `${say("classes")} …`, () =>
        chooseFrom(say("classes"), told.classes, parts(widget.value), true, (names) => write(node, widget, names.join(", "))),
      ),
    presets: (_, told) => add(node, `${say("presets")} …`, () => pickPreset(node, told.presets)),
    point: () => add(node, say("clickFocus"), () => pickPoint(node, app, api)),
    upload: (widget, told) => {
      const take = (/** @type {File} */ file) => upload(api, node, widget, file);
      add(node, say("upload"), () => pickFile(told.suffixes, take));
      acceptDrops(node, told.suffixes, take);
    },
  };
  for (const [name, [kind, told]] of /** @type {[string, any][]} */ (Object.entries(spec))) {
    // ComfyUI's own button repeats what its input says.
    if (kind === "IMAGEUPLOAD") continue;
    const widget = node.widgets?.find((/** @type {any} */ w) => w.name === name);
    if (widget && told?.picker) pickers[told.picker]?.(widget, told);
  }
}

/** A button that is no part of the saved graph. @param {any} node @param {string} text @param {() => void} press */
function add(node, text, press) {
  const made = node.addWidget("button", text, null, press);
  made.serialize = false;
  made.options.serialize = false;
}

/** @param {any} node @param {any} widget @param {any} value */
function write(node, widget, value) {
  widget.value = value;
  widget.callback?.(value);
  node.setDirtyCanvas?.(true, true);
  node.graph?.afterChange?.(node);
}

/** @param {string} text */
function parts(text) {
  return String(text)
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
}

/** Set several widgets at once. @param {any} node @param {Record<string, Record<string, any>>} presets */
function pickPreset(node, presets) {
  const about = (/** @type {Record<string, any>} */ values) =>
    Object.entries(values)
      .map((pair) => pair.join(" "))
      .join(", ");
  const entries = Object.entries(presets).map(([name, values]) => ({ name, about: about(values) }));
  chooseFrom(say("presets"), entries, [], false, ([chosen]) => {
    for (const [name, value] of Object.entries(presets[chosen])) {
      const widget = node.widgets.find((/** @type {any} */ w) => w.name === name);
      if (widget) write(node, widget, value);
    }
  });
}

/** @param {string} colour @param {(hex: string) => void} choose */
function pickColour(colour, choose) {
  const input = Object.assign(document.createElement("input"), { type: "color", value: colour });
  input.addEventListener("input", () => choose(input.value));
  const dialog = openDialog(say("colour"), [input]);
  input.style.cssText = "width: 240px; height: 80px";
  input.addEventListener("change", () => dialog.close());
  input.focus();
}

/** @param {string[]} suffixes @param {(file: File) => void} take */
function pickFile(suffixes, take) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: suffixes.join(",") });
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) take(file);
  });
  input.click();
}

/** Files dropped on the node. @param {any} node @param {string[]} suffixes @param {(file: File) => void} take */
function acceptDrops(node, suffixes, take) {
  const fits = (/** @type {File} */ file) => suffixes.some((suffix) => file.name.toLowerCase().endsWith(suffix));
  const [over, drop] = [node.onDragOver, node.onDragDrop];
  node.onDragOver = function (/** @type {any} */ event) {
    return [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file") || !!over?.call(this, event);
  };
  node.onDragDrop = function (/** @type {any} */ event) {
    const file = [...(event.dataTransfer?.files ?? [])].find(fits);
    if (!file) return drop?.call(this, event) ?? false;
    take(file);
    return true;
  };
}

/** Put a file into ComfyUI's input folder and choose it. @param {any} api @param {any} node @param {any} widget @param {File} file */
async function upload(api, node, widget, file) {
  const body = new FormData();
  body.append("image", file);
  const reply = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!reply.ok) {
    openDialog(say("upload"), [`${file.name}: ${reply.status} ${reply.statusText}`]);
    return;
  }
  const { name, subfolder } = await reply.json();
  const path = subfolder ? `${subfolder}/${name}` : name;
  const values = widget.options?.values;
  if (Array.isArray(values) && !values.includes(path)) values.push(path);
  write(node, widget, path);
}

/** Click a picture to say what is in focus: the node's input where it can be seen, else its last result. @param {any} node @param {any} app @param {any} api */
function pickPoint(node, app, api) {
  const widget = (/** @type {string} */ name) => node.widgets.find((/** @type {any} */ w) => w.name === name);
  const source = picture(node.getInputNode?.(node.findInputSlot?.("image")), app, api) ?? picture(node, app, api);
  if (!source) {
    openDialog(say("clickFocus"), [say("run")]);
    return;
  }
  const image = Object.assign(document.createElement("img"), { src: source, alt: say("clickFocus") });
  image.style.cssText = "max-width: 80vw; max-height: 65vh; cursor: crosshair; display: block";
  const dialog = openDialog(say("clickFocus"), [image]);
  image.addEventListener("click", (event) => {
    const box = image.getBoundingClientRect();
    write(node, widget("focus_by"), "point");
    write(node, widget("point_x"), Number(((event.clientX - box.left) / box.width).toFixed(3)));
    write(node, widget("point_y"), Number(((event.clientY - box.top) / box.height).toFixed(3)));
    dialog.close();
  });
}

/** The address of the first picture that a node shows. @param {any} node @param {any} app @param {any} api */
function picture(node, app, api) {
  if (!node) return null;
  if (node.imgs?.[0]?.src) return node.imgs[0].src;
  const shown = app.nodeOutputs?.[String(node.id)]?.images?.[0];
  return shown ? api.apiURL(`/view?${new URLSearchParams(shown)}`) : null;
}
