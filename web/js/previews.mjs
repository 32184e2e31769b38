// @ts-check
// The pictures that a node shows while it works give way to its results. ComfyUI keeps the last of them in front.

/**
 * Drop the live preview of each of the pack's nodes once its results are there.
 * @param {any} app
 * @param {any} api
 */
export function dropLivePreviews(app, api) {
  api.addEventListener("executed", (/** @type {any} */ { detail }) => {
    const id = String(detail?.display_node ?? detail?.node ?? "");
    if (!detail?.output?.images?.length || !find(app, id)?.comfyClass?.startsWith("Fathom")) return;
    const outputs = app.extensionManager?._p?._s?.get?.("nodeOutput");
    if (outputs?.revokePreviewsByExecutionId) outputs.revokePreviewsByExecutionId(id);
    else delete app.nodePreviewImages?.[id];
  });
}

/** The node that ran under an id, which names the subgraphs around it too. @param {any} app @param {string} id */
export function find(app, id) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of id.split(":")) {
    node = graph?.getNodeById?.(part) ?? graph?.getNodeById?.(Number(part));
    graph = node?.subgraph;
  }
  return node;
}
