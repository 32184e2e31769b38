"""From a graph in the editor's format to the prompt that ComfyUI's API takes, with every step checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTES = ("Note", "MarkdownNote")
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMPOSITOR")
# What the front end adds after a widget of this kind, with a value in the file and none in the prompt.
UPLOADS = ("image_upload", "video_upload")


def declared(info: Mapping[str, Any]) -> list[tuple[str, Any, dict[str, Any]]]:
    """(name, type, options) of a node's inputs, in order."""
    groups = (info["input"].get(group, {}) for group in ("required", "optional"))
    listed = [(name, spec) for group in groups for name, spec in group.items()]
    return [(name, spec[0], spec[1] if len(spec) > 1 else {}) for name, spec in listed]


def is_widget(kind: Any, options: Mapping[str, Any]) -> bool:
    """Whether the editor shows an input as a widget."""
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def widget_names(info: Mapping[str, Any]) -> list[str | None]:
    """The widgets of a node in the order of `widgets_values`; None for one that the prompt does not hold."""
    names: list[str | None] = []
    for name, kind, options in declared(info):
        if is_widget(kind, options):
            names.append(name)
            if (kind == "INT" and name in ("seed", "noise_seed")) or options.get("control_after_generate"):
                names.append(None)
            if any(options.get(upload) for upload in UPLOADS):
                names.append(None)
    return names


def to_prompt(graph: Mapping[str, Any], nodes: Mapping[str, Any]) -> dict[str, Any]:
    """The API prompt of `graph`. nodes: what ComfyUI's /object_info gives. Fails where the two do not agree."""
    by_id = {node["id"]: node for node in graph["nodes"]}
    links = {link[0]: link for link in graph["links"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] in NOTES:
            continue
        where, info = f"{node['type']} {node['id']}", nodes[node["type"]]
        given = dict(zip_equal(widget_names(info), node["widgets_values"], where))
        given.pop(None, None)
        kinds = {name: kind for name, kind, _ in declared(info)}
        for slot, socket in enumerate(node["inputs"]):
            assert socket["name"] in kinds, f"{where} has no input {socket['name']}"
            if socket["link"] is None:
                continue
            _, source, out, target, place, kind = links[socket["link"]]
            assert (target, place) == (node["id"], slot), f"link {socket['link']} does not end at {where}"
            outputs = nodes[by_id[source]["type"]]["output"]
            assert set(outputs[out].split(",")) & set(kind.split(",")), f"{by_id[source]['type']} gives no {kind}"
            assert kinds[socket["name"]] in (kind, "*"), f"{where}.{socket['name']} takes no {kind}"
            assert socket["link"] in by_id[source]["outputs"][out]["links"]
            given[socket["name"]] = [str(source), out]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": given}
    return prompt


def zip_equal(names: list[str | None], values: list[Any], where: str) -> list[tuple[str | None, Any]]:
    """Pairs; fails when the two differ in length."""
    assert len(names) == len(values), f"{where}: widgets are {names}, the file holds {values}"
    return list(zip(names, values, strict=True))


def without(prompt: Mapping[str, Any], types: set[str]) -> dict[str, Any]:
    """The prompt without the nodes of these types and all that needs them."""
    gone = {id for id, node in prompt.items() if node["class_type"] in types}
    while True:
        more = {
            id
            for id, node in prompt.items()
            if id not in gone and any(isinstance(v, list) and v[0] in gone for v in node["inputs"].values())
        }
        if not more:
            return {id: node for id, node in prompt.items() if id not in gone}
        gone |= more
