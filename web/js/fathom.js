// @ts-check
// The one entry of Fathom's front end: ComfyUI loads every .js file of this folder by itself, so the modules that the
// entry chooses to load end in .mjs.

// @ts-expect-error served by ComfyUI
import { app as comfyApp } from "../../../scripts/app.js";
// @ts-expect-error served by ComfyUI
import { api as comfyApi } from "../../../scripts/api.js";
import { attachInspector } from "./inspector.mjs";
import { attachModels, tellMissing } from "./models.mjs";
import { attachPickers } from "./pickers.mjs";
import { dropLivePreviews } from "./previews.mjs";
import { bringSamples } from "./samples.mjs";
import { settings } from "./settings.mjs";
import { colourSockets } from "./sockets.mjs";
import { learn } from "./words.mjs";

/** @type {import("@comfyorg/comfyui-frontend-types").ComfyApp} */
const app = comfyApp;
/** @type {import("@comfyorg/comfyui-frontend-types").ComfyApi} */
const api = comfyApi;

// A folder whose name has to be quoted is served under two addresses.
const loaded = app.extensions?.some((extension) => extension.name === "Fathom");
if (!loaded)
  app.registerExtension({
    name: "Fathom",
    settings,
    async init() {
      await learn(app, api);
      dropLivePreviews(app, api);
      tellMissing(app, api);
    },
    setup: () => colourSockets(app),
    beforeConfigureGraph: (graph) => bringSamples(graph, app, api),
    afterConfigureGraph: () => colourSockets(app),
    nodeCreated(node) {
      if (!node.comfyClass?.startsWith("Fathom")) return;
      attachModels(node, app);
      attachPickers(node, app, api);
      if (node.comfyClass === "FathomDepthInspector") attachInspector(node, app, api);
    },
  });
