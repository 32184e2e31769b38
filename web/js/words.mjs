// @ts-check
// What the front end says, in the language of ComfyUI's settings: locales/*/main.json, where it is under "fathom".

export const WORDS = {
  depth: "Depth",
  mask: "Mask",
  compare: "Before / after",
  points: "Points",
  depthHint: "Click the picture to set the focus",
  maskHint: "The mask as the next run makes it",
  compareHint: "Drag to wipe between the photo and its depth",
  pointsHint: "Drag to turn the point cloud, scroll to come closer",
  noPhoto: "Connect an image to compare with",
  run: "Run the graph to see the depth.",
  noDepth: "The depth cannot be shown:",
  noCloud: "The point cloud cannot be shown:",
  dragHint: "Drag here to choose a band of depths",
  pictureKeys: "The depth. Arrow keys move the focus, Page Up and Page Down change the picture.",
  histogramKeys: "The band. Arrow keys move its near end, with Shift its far end.",
  previous: "Previous picture",
  next: "Next picture",
  near: "near",
  far: "far",
  focus: "focus",
  pixel: "pixel",
  place: "place",
  notMeasured: "not measured",
  metric: "metres",
  affine_inverse: "1 / distance, unscaled",
  scale_inverse: "1 / distance, unscaled",
  affine_depth: "distance, unscaled",
  ordinal: "order only",
  preview: "rough preview",
  here: "on this machine",
  fetched: "to be fetched",
  about: "about",
  models: "Models",
  classes: "Classes",
  search: "Search",
  close: "Close",
  licence: "Licence",
  missing: "The weights of this model are not on this machine",
  copyLink: "Copy the link",
  copyFolder: "Copy the folder",
  copied: "Copied",
  openLink: "Open the page",
  putInto: "Put the file into",
  colour: "Choose the colour",
  clickFocus: "Click here to focus",
  presets: "Presets",
  upload: "Choose a file to upload",
  enlarges: "The picture is smaller than this resolution, so the result is enlarged:",
};

/** @typedef {keyof typeof WORDS} Word */

/** @type {Record<string, string>} */
let translated = {};

/** Learn the words of the user's language. Without them English stays. @param {any} app @param {any} api */
export async function learn(app, api) {
  const language = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en";
  if (language === "en") return;
  try {
    const reply = await api.fetchApi("/i18n");
    const known = await reply.json();
    translated = known[language]?.fathom ?? known[language.split("-")[0]]?.fathom ?? {};
  } catch {
    // A ComfyUI that serves no languages.
  }
}

/** A word of the front end. @param {Word} word */
export function say(word) {
  return translated[word] ?? WORDS[word];
}
