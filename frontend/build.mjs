// @ts-check
// Build web/js/cloud.mjs: npm run build.

import { copyFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const web = fileURLToPath(new URL("../web/js/", import.meta.url));
await build({
  entryPoints: [fileURLToPath(new URL("src/cloud.js", import.meta.url))],
  outfile: `${web}cloud.mjs`,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "inline",
  banner: {
    js: "// @ts-nocheck\n// Built from frontend/src/cloud.js by npm run build. three.js: THREE-LICENSE.txt.",
  },
});
await copyFile(fileURLToPath(new URL("node_modules/three/LICENSE", import.meta.url)), `${web}THREE-LICENSE.txt`);
