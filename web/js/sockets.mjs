// @ts-check
// The sockets and links of the pack's own kinds in colours that tell them apart.

const STYLE = "fathom-sockets";
const COLOURS = {
  FATHOM_DEPTH: "#f0a040",
  FATHOM_NORMALS: "#8f8fff",
  FATHOM_SEGMENTATION: "#7bc96f",
  FATHOM_INSTANCES: "#e86fa8",
  FATHOM_BUNDLE: "#c8b273",
  FATHOM_SCENE: "#c8b273",
};

/** Give ComfyUI the colours. Its colour themes blank those of unknown kinds, so this is called with every graph. @param {any} app */
export function colourSockets(app) {
  const links = /** @type {any} */ (globalThis).LGraphCanvas?.link_type_colors ?? {};
  const sockets = app.canvas?.default_connection_color_byType ?? {};
  Object.assign(links, COLOURS);
  Object.assign(sockets, COLOURS);
  if (document.getElementById(STYLE)) return;
  const style = Object.assign(document.createElement("style"), { id: STYLE });
  const rules = Object.entries(COLOURS).map(([kind, colour]) => `--color-datatype-${kind}: ${colour};`);
  style.textContent = `:root { ${rules.join(" ")} }`;
  document.head.append(style);
}
