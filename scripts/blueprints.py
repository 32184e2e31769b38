"""Write subgraphs/*.json, the blueprints that ComfyUI lists under the pack's name.

    python scripts/blueprints.py

Each is one node of the editor with a graph inside: sockets and a few widgets of the inner nodes lead outwards.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from templates import Graph

FOLDER = Path(__file__).parents[1] / "subgraphs"
FIRST_END = 101  # links to the ends are numbered from here, those between nodes from 1
WITHIN, WITHOUT = -10, -20  # what the editor calls the two ends of a subgraph


def _id(*names: str) -> str:
    # The same ids from run to run, so that a file changes when its graph does.
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(("fathom", *names))))


class Blueprint:
    """A graph with ends: nodes are added as to `Graph`, `take` and `give` lead inputs in and outputs out."""

    def __init__(self, name: str) -> None:
        self.name, self.graph = name, Graph("")
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[dict[str, Any]] = []
        self._ends: list[dict[str, Any]] = []
        self._promoted: list[list[str]] = []

    def add(self, type: str, **given: Any) -> Any:
        """Add an inner node; see `Graph.add`."""
        return self.graph.add(type, **given)

    def take(self, name: str, *targets: tuple[Any, str]) -> None:
        """An input of the blueprint, led to sockets or widgets of inner nodes: (what `add` gave, its input)."""
        ends = [self._end(_node_of(made), socket) for made, socket in targets]
        kind, widget = ends[0]["type"], ends[0].get("widget")
        index = len(self.inputs)
        for node, slot, end in ((_node_of(made), e["slot"], e) for (made, _), e in zip(targets, ends, strict=True)):
            end["socket"]["link"] = self._link(WITHIN, index, node, slot, kind)
        entry = {"id": _id(self.name, "in", name), "name": name, "type": kind, "linkIds": []}
        entry["linkIds"] = [end["socket"]["link"] for end in ends]
        self.inputs.append({**entry, "promoted": widget})
        if widget:
            self._promoted += [[str(_node_of(made)), socket] for made, socket in targets]

    def give(self, name: str, output: Any) -> None:
        """An output of the blueprint."""
        link = self._link(output.id, output.slot, WITHOUT, len(self.outputs), output.kind)
        self.graph.nodes[output.id - 1]["outputs"][output.slot]["links"].append(link)
        self.outputs.append({"id": _id(self.name, "out", name), "name": name, "type": output.kind, "linkIds": [link]})

    def _end(self, node: int, name: str) -> dict[str, Any]:
        held = self.graph.nodes[node - 1]
        names = [socket["name"] for socket in held["inputs"]]
        if name not in names:
            kind = _widget_kind(held["type"], name)
            held["inputs"].append({"name": name, "type": kind, "widget": {"name": name}, "link": None})
            names.append(name)
        socket = held["inputs"][names.index(name)]
        return {"slot": names.index(name), "type": socket["type"], "widget": socket.get("widget"), "socket": socket}

    def _link(self, source: int, slot: int, target: int, into: int, kind: str) -> int:
        id = FIRST_END + len(self._ends)
        self._ends.append(
            {
                "id": id,
                "origin_id": source,
                "origin_slot": slot,
                "target_id": target,
                "target_slot": into,
                "type": kind,
            }
        )
        return id

    def data(self) -> dict[str, Any]:
        """The blueprint as the editor saves it: a graph of the one node, and what is inside it."""
        names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        links = [dict(zip(names, link, strict=True)) for link in self.graph.links]
        nodes = []
        for node in self.graph.nodes:
            place = [40 + 390 * node["column"], 40 + 60 * (node["id"] - 1)]
            nodes.append({k: v for k, v in {**node, "pos": place}.items() if k != "column"})
        wide = 430 + 390 * max(node["column"] for node in self.graph.nodes)
        inner = {
            "id": _id(self.name),
            "version": 1,
            "state": {
                "lastGroupId": 0,
                "lastNodeId": len(nodes),
                "lastLinkId": FIRST_END + len(self._ends) - 1,
                "lastRerouteId": 0,
            },
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": WITHIN, "bounding": [-200, 40, 160, 40 + 20 * len(self.inputs)]},
            "outputNode": {"id": WITHOUT, "bounding": [wide, 40, 120, 40 + 20 * len(self.outputs)]},
            "inputs": [
                {**{k: v for k, v in entry.items() if k != "promoted"}, "pos": [-60, 60 + 20 * row]}
                for row, entry in enumerate(self.inputs)
            ],
            "outputs": [{**entry, "pos": [wide + 20, 60 + 20 * row]} for row, entry in enumerate(self.outputs)],
            "widgets": [],
            "nodes": nodes,
            "groups": [],
            "links": links + self._ends,
            "extra": {},
        }
        outer = {
            "id": len(nodes) + 1,
            "type": inner["id"],
            "pos": [0, 0],
            "size": [360, 60 + 30 * max(len(self.inputs), len(self.outputs))],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": [
                {"name": e["name"], "type": e["type"], "link": None}
                | ({"widget": {"name": e["name"]}} if e["promoted"] else {})
                for e in self.inputs
            ],
            "outputs": [{"name": e["name"], "type": e["type"], "links": []} for e in self.outputs],
            "properties": {"proxyWidgets": self._promoted},
            "widgets_values": [],
            "title": self.name,
        }
        return {
            "revision": 0,
            "last_node_id": outer["id"],
            "last_link_id": 0,
            "nodes": [outer],
            "links": [],
            "version": 0.4,
            "definitions": {"subgraphs": [inner]},
            "extra": {},
        }


def _node_of(made: Any) -> int:
    return next(iter(made.values())).id


def _widget_kind(type: str, name: str) -> str:
    import fathom

    types = fathom.NODE_CLASS_MAPPINGS[type].INPUT_TYPES()
    kind = {**types["required"], **types.get("optional", {})}[name][0]
    return kind if isinstance(kind, str) else "COMBO"


def depth_for_controlnet(to: Blueprint) -> None:
    """The control picture of a control model, by its name."""
    made = to.add("FathomControlNetPreset", control_model="SDXL depth (diffusers)")
    for name in ("image", "control_model", "size"):
        to.take(name, (made, name))
    to.give("image", made["image"])


def normals_for_controlnet(to: Blueprint) -> None:
    """NormalBae's normals."""
    made = to.add("FathomEstimateNormals", estimator="normal-bae")
    for name in ("image", "estimator", "resolution", "convention"):
        to.take(name, (made, name))
    to.give("image", made["image"])
    to.give("normals", made["normals"])


def regions_for_controlnet(to: Blueprint) -> None:
    """Regions, and a mask of the classes that are named."""
    made = to.add("FathomSegment", estimator="oneformer-ade20k")
    mask = to.add("FathomClassMask", labels=made["labels"], classes="person")
    for name in ("image", "estimator", "resolution"):
        to.take(name, (made, name))
    to.take("classes", (mask, "classes"))
    to.give("image", made["image"])
    to.give("mask", mask["mask"])
    to.give("legend", made["legend"])


def subject_with_soft_depth(to: Blueprint) -> None:
    """A mask of what is near, its border at the picture's edges and soft in depth."""
    made = to.add("FathomEstimateDepth", estimator="depth-anything-v2-small", resolution=0)
    sharp = to.add("FathomRefineEdges", depth=made["depth"])
    to.take("image", (made, "image"), (sharp, "image"))
    to.take("estimator", (made, "estimator"))
    field = to.add("FathomDepthField", depth=sharp["depth"], shape="ramp", start=0.45, end=0.7)
    for name in ("start", "end"):
        to.take(name, (field, name))
    to.give("mask", field["mask"])


def fog_and_lens_blur(to: Blueprint) -> None:
    """Fog that thickens with distance, then a lens focused on what is near."""
    made = to.add("FathomEstimateDepth", estimator="depth-anything-v2-small", resolution=0)
    sharp = to.add("FathomRefineEdges", depth=made["depth"])
    fog = to.add("FathomFog", depth=sharp["depth"])
    blur = to.add("FathomLensBlur", image=fog["image"], depth=sharp["depth"])
    to.take("image", (made, "image"), (sharp, "image"), (fog, "image"))
    to.take("estimator", (made, "estimator"))
    for name in ("density", "colour"):
        to.take(name, (fog, name))
    for name in ("radius", "focus"):
        to.take(name, (blur, name))
    to.give("image", blur["image"])


def film_without_flicker(to: Blueprint) -> None:
    """Depth of a film, its range following each shot."""
    made = to.add("FathomEstimateDepth", estimator="video-depth-anything-small", scope="video")
    to.take("frames", (made, "image"))
    for name in ("estimator", "resolution", "scope"):
        to.take(name, (made, name))
    to.give("frames", made["image"])
    to.give("depth", made["depth"])


def nearest_face(to: Blueprint) -> None:
    """A mask and the box of the face that is closest."""
    faces = to.add("FathomFindFaces")
    depth = to.add("FathomEstimateDepth", estimator="depth-anything-v2-small", resolution=0)
    pick = to.add("FathomPick", instances=faces["instances"], depth=depth["depth"], by="depth")
    to.take("image", (faces, "image"), (depth, "image"))
    to.take("estimator", (depth, "estimator"))
    to.take("score", (faces, "score"))
    to.take("rank", (pick, "rank"))
    to.give("mask", pick["mask"])
    to.give("box", pick["box"])


BLUEPRINTS: dict[str, Callable[[Blueprint], None]] = {
    "Depth for ControlNet (Fathom)": depth_for_controlnet,
    "Normals for ControlNet (Fathom)": normals_for_controlnet,
    "Regions for ControlNet (Fathom)": regions_for_controlnet,
    "Subject with Soft Depth (Fathom)": subject_with_soft_depth,
    "Fog and Lens Blur (Fathom)": fog_and_lens_blur,
    "Film without Flicker (Fathom)": film_without_flicker,
    "Nearest Face (Fathom)": nearest_face,
}


def made(name: str) -> str:
    """The file of a blueprint."""
    to = Blueprint(name)
    BLUEPRINTS[name](to)
    return json.dumps(to.data(), indent=1) + "\n"


def main(names: Sequence[str] = tuple(BLUEPRINTS)) -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        (FOLDER / f"{name}.json").write_text(made(name), encoding="utf-8")


if __name__ == "__main__":
    main()
