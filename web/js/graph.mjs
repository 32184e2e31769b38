// @ts-check
// Where a widget's value lies: on its node, or, shown outside by a subgraph, on the node that stands for the subgraph.

/** The node that the links from a subgraph's inputs come from. */
const SUBGRAPH_INPUTS = -10;

/**
 * The widget that decides the input `name` of a node; null where another node does.
 * @param {any} app
 * @param {any} node
 * @param {string} name
 * @returns {{value: any} | null}
 */
export function holder(app, node, name) {
  const widget = node.widgets?.find((/** @type {any} */ w) => w.name === name) ?? null;
  const input = node.inputs?.find((/** @type {any} */ i) => i.widget?.name === name);
  if (input?.link == null) return widget;
  const link = node.graph?.getLink?.(input.link) ?? node.graph?.links?.[input.link];
  if (Number(link?.origin_id) !== SUBGRAPH_INPUTS) return null;
  const outside = node.graph.inputs?.[link.origin_slot]?.name;
  const host = find(app.rootGraph ?? app.graph, (n) => n.subgraph === node.graph);
  return host && outside ? holder(app, host, outside) : null;
}

/** The first node of a graph, or of the subgraphs in it, that `wanted` says. @param {any} graph @param {(node: any) => boolean} wanted @returns {any} */
function find(graph, wanted) {
  for (const node of graph?.nodes ?? graph?._nodes ?? []) {
    if (wanted(node)) return node;
    const inside = node.subgraph && find(node.subgraph, wanted);
    if (inside) return inside;
  }
  return null;
}
