// @ts-check
// A template opens with a picture or a film in it: where ComfyUI's input folder has none of the name that the template
// gives, the pack's own sample is put there.

/** What templates name, and the file of web/samples that stands in for it. @type {Record<string, string>} */
const SAMPLES = { "example.png": "example.jpg", "video.mp4": "video.mp4" };

/**
 * Put the samples that a template of Fathom names, and that are not there, into the input folder.
 * @param {any} graph the graph about to be opened, as the file holds it
 * @param {any} app
 * @param {any} api
 */
export async function bringSamples(graph, app, api) {
  if (!graph?.extra?.fathom?.template) return;
  let brought = false;
  for (const node of graph.nodes ?? []) {
    const name = node.widgets_values?.[0];
    if (!["LoadImage", "LoadVideo"].includes(node.type) || !Object.hasOwn(SAMPLES, name)) continue;
    const answer = await api.fetchApi(`/view?type=input&filename=${name}`, { method: "HEAD", cache: "no-store" });
    if (answer.status !== 404) continue;
    const put = await upload(name, api);
    if (put) node.widgets_values[0] = put;
    brought ||= !!put;
  }
  // Lists of files are made anew: by its older name, which says so in a message, where the front end has no other.
  if (brought) await (app.reloadNodeDefs ?? app.refreshComboInNodes)?.call(app);
}

/** Put one sample into the input folder; its name there, or null where that fails. @param {string} name @param {any} api */
async function upload(name, api) {
  try {
    const answer = await fetch(new URL(`../samples/${SAMPLES[name]}`, import.meta.url));
    if (!answer.ok) return null;
    const file = await answer.blob();
    const form = new FormData();
    form.append("image", name.endsWith(".png") ? await asPng(file) : file, name);
    const put = await api.fetchApi("/upload/image", { method: "POST", body: form });
    return put.ok ? (await put.json()).name : null;
  } catch (error) {
    console.warn("A sample could not be put into the input folder", error);
    return null;
  }
}

/** A picture as PNG, so that its name is true. @param {Blob} file @returns {Promise<Blob>} */
async function asPng(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}
