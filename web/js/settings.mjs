// @ts-check
// Fathom's page in ComfyUI's settings. Python reads what is chosen here (annotator/host.py, `setting`).

/** @type {import("@comfyorg/comfyui-frontend-types").ComfyExtension["settings"]} */
export const settings = [
  {
    id: /** @type {any} */ ("Fathom.Precision"),
    category: ["Fathom", "Models", "Precision"],
    name: "Precision of the networks",
    tooltip: "auto: half precision where it is exact enough and faster. The environment variable FATHOM_PRECISION goes first.",
    type: "combo",
    options: ["auto", "fp32", "tf32", "fp16", "bf16"],
    defaultValue: "auto",
  },
  {
    id: /** @type {any} */ ("Fathom.KeepLoaded"),
    category: ["Fathom", "Models", "KeepLoaded"],
    name: "Models kept loaded",
    tooltip: "How many models stay in memory after they ran, the ones used last. 0 lets each go at once.",
    type: "number",
    attrs: { min: 0, max: 20, step: 1 },
    defaultValue: 3,
  },
  {
    id: /** @type {any} */ ("Fathom.BundleLimit"),
    category: ["Fathom", "Bundles", "BundleLimit"],
    name: "Space for bundles in GiB",
    tooltip: "What limit_gb of a new Fathom Bundle node starts with. Reload the page after changing it.",
    type: "number",
    attrs: { min: 1, max: 10000, step: 1 },
    defaultValue: 20,
  },
  {
    id: /** @type {any} */ ("Fathom.NodePreviews"),
    category: ["Fathom", "Nodes", "NodePreviews"],
    name: "Show results on the nodes",
    tooltip: "Small pictures of depth, normals, regions and masks on the nodes that make them, from the next run on.",
    type: "boolean",
    defaultValue: true,
  },
  {
    id: /** @type {any} */ ("Fathom.AnswerForAux"),
    category: ["Fathom", "Old graphs", "AnswerForAux"],
    name: "Answer in place of comfyui_controlnet_aux",
    tooltip: "Its depth, normal and segmentation nodes run on Fathom, from the next run on. Off: they are its own again. The environment variable FATHOM_ANSWER_FOR_AUX goes first.",
    type: "boolean",
    defaultValue: false,
  },
];
