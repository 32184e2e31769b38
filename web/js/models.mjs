// @ts-check
// Which estimator is chosen: its licence, size, and whether it is here, on the node, in a list and where it is missed.

import { button, chooseFrom, openDialog } from "./dialog.mjs";
import { find } from "./previews.mjs";
import { say } from "./words.mjs";

/**
 * What Python tells of an estimator (nodes/fields.py, `choice`).
 * @typedef {object} Model
 * @property {string} about
 * @property {string} licence
 * @property {boolean | null} commercial
 * @property {boolean} here
 * @property {boolean} [preview]
 * @property {number} [size] bytes
 * @property {string} [url]
 * @property {string} [folder]
 */

/** The inputs of a node that name estimators. @param {any} node @returns {[string, Record<string, Model>][]} */
function inputs(node) {
  const spec = { ...node.constructor?.nodeData?.input?.required, ...node.constructor?.nodeData?.input?.optional };
  return Object.entries(spec).flatMap(([name, told]) => (told[1]?.estimators ? [[name, told[1].estimators]] : []));
}

/** @param {Model} model */
function brief(model) {
  const size = model.size ? `${say("about")} ${Math.round(model.size / 1e6)} MB, ${say(model.here ? "here" : "fetched")}` : "";
  return [model.preview ? say("preview") : "", model.licence, size].filter(Boolean).join(" · ");
}

/** The widget for the size of the result. @param {any} node */
function resolution(node) {
  return node.widgets?.find((/** @type {any} */ w) => w.name === "resolution");
}

/** The size of the picture that the chosen resolution would enlarge; "" where it does not, or nobody knows. @param {any} node */
function enlarged(node) {
  const source = node.graph && node.getInputNode?.(node.findInputSlot?.("image"));
  const { naturalWidth: width, naturalHeight: height } = source?.imgs?.[0] ?? {};
  return width && Math.min(width, height) < Number(resolution(node)?.value) ? `${width} × ${height}` : "";
}

/**
 * Give a node that runs estimators a line on the chosen one, which opens the list.
 * @param {any} node
 * @param {any} app
 */
export function attachModels(node, app) {
  for (const [name, models] of inputs(node)) {
    const widget = node.widgets?.find((/** @type {any} */ w) => w.name === name);
    if (!widget || typeof node.addWidget !== "function") continue;
    const several = widget.type !== "combo";
    const names = () => String(widget.value).split(/[\s,]+/).filter(Boolean);
    const line = node.addWidget("button", `${name} …`, null, () => {
      const entries = Object.entries(models).map(([id, model]) => ({ name: id, about: `${brief(model)}. ${model.about}` }));
      chooseFrom(say("models"), entries, names(), several, (chosen) => {
        widget.value = chosen.join(", ");
        widget.callback?.(widget.value, app.canvas, node);
        tell();
        node.graph?.afterChange?.(node);
      });
    });
    line.serialize = false;
    line.options.serialize = false;
    const tell = () => {
      const model = several ? undefined : models[widget.value];
      const small = enlarged(node);
      line.label = [model ? brief(model) : say("models"), small && `↑ ${small}`].filter(Boolean).join(" · ");
      if (small) line.tooltip = `${say("enlarges")} ${small}`;
      else if (model) widget.tooltip = line.tooltip = `${widget.value}: ${model.about} ${say("licence")}: ${model.licence}.`;
      node.setDirtyCanvas?.(true, true);
    };
    for (const hook of ["onConfigure", "onAdded", "onConnectionsChange", "onExecuted"]) {
      const before = node[hook];
      node[hook] = function (/** @type {any[]} */ ...given) {
        const result = before?.apply(this, given);
        tell();
        return result;
      };
    }
    for (const deciding of [widget, resolution(node)]) {
      if (!deciding) continue;
      const before = deciding.callback;
      deciding.callback = (/** @type {any[]} */ ...given) => {
        const result = before?.apply(deciding, given);
        tell();
        return result;
      };
    }
    tell();
  }
  // The names of models are longer than ComfyUI's usual nodes are wide.
  if (inputs(node).length && node.size[0] < 330) node.setSize?.([330, node.size[1]]);
}

/**
 * Where a run ends because weights are missing: what, how large, which licence, where from and where to.
 * @param {any} app
 * @param {any} api
 */
export function tellMissing(app, api) {
  api.addEventListener("execution_error", (/** @type {any} */ { detail }) => {
    if (!/\bWeightsError$/.test(detail?.exception_type ?? "")) return;
    const node = find(app, String(detail.node_id));
    if (!node) return;
    const message = String(detail.exception_message);
    for (const [input, models] of inputs(node)) {
      const given = detail.current_inputs?.[input];
      const id = String(Array.isArray(given) ? given[0] : (given ?? ""));
      if (models[id]?.url && message.includes("not on this machine")) return showMissing(id, models[id], message);
    }
  });
}

/** @param {string} id @param {Model} model @param {string} message */
function showMissing(id, model, message) {
  /** @param {string} text @param {HTMLElement} [value] */
  const row = (text, value) => {
    const made = document.createElement("p");
    made.append(text, ...(value ? [" ", value] : []));
    return made;
  };
  const code = (/** @type {string} */ text) => Object.assign(document.createElement("code"), { textContent: text });
  const copy = (/** @type {import("./words.mjs").Word} */ word, /** @type {string} */ text) => {
    const made = button(say(word), async () => {
      await navigator.clipboard?.writeText(text);
      made.textContent = say("copied");
    });
    return made;
  };
  const link = document.createElement("a");
  Object.assign(link, { href: model.url, target: "_blank", rel: "noreferrer", textContent: say("openLink") });
  const more = document.createElement("details");
  const all = document.createElement("pre");
  all.style.whiteSpace = "pre-wrap";
  all.textContent = message;
  more.append(Object.assign(document.createElement("summary"), { textContent: "…" }), all);
  const rows = [
    row(`${id} · ${brief(model)}`),
    row("", code(model.url ?? "")),
    row(`${say("putInto")}:`, code(model.folder ?? "")),
    more,
  ];
  const buttons = [copy("copyLink", model.url ?? ""), copy("copyFolder", model.folder ?? ""), link];
  for (const open of document.querySelectorAll("dialog.fathom-missing")) open.remove();
  openDialog(say("missing"), rows, buttons, false).classList.add("fathom-missing");
}
