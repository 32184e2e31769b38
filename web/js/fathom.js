// @ts-check
// The one entry of Fathom's front end: ComfyUI loads every .js file of this folder by itself, so the modules that the
// entry chooses to load end in .mjs.

// @ts-expect-error served by ComfyUI
import { app as comfyApp } from "../../../scripts/app.js";
// @ts-expect-error served by ComfyUI
import { api as comfyApi } from "../../../scripts/api.js";
import { attachInspector } from "./inspector.mjs";
import { settings } from "./settings.mjs";

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
    nodeCreated(node) {
      if (node.comfyClass === "FathomDepthInspector") attachInspector(node, app, api);
    },
  });
