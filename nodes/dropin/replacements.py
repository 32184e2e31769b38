"""Old ids whose node has one heir with the same widgets: ComfyUI's editor offers to put the heir in their place.

ComfyUI replaces unregistered ids alone (its app/node_replace_manager.py), so there these ids are not registered.
Prompts posted by programs still run on the alias: they are given the id of a fork, which is the same class and stays
registered, before ComfyUI looks at them. In older ComfyUIs the ids themselves are registered.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NamedTuple

from ...annotator.host import registry

PREFIX = "Inference_Core_"


class Offer(NamedTuple):
    """heir: the new node. widgets: the old node's, in order, each of the same name on the heir; fixed: what else the
    heir needs."""

    heir: str
    widgets: tuple[str, ...] = ("resolution",)
    fixed: Mapping[str, Any] = {}

    def fields(self) -> dict[str, Any]:
        """The fields of ComfyUI's NodeReplace, but for the old id."""
        inputs = [{"new_id": name, "old_id": name} for name in ("image", *self.widgets)]
        return {
            "new_node_id": self.heir,
            "old_widget_ids": list(self.widgets),
            "input_mapping": inputs + [{"new_id": name, "set_value": value} for name, value in self.fixed.items()],
            "output_mapping": [{"new_idx": 0, "old_idx": 0}],
        }


_MIDAS = ("a", "bg_threshold", "resolution")
OFFERS: dict[str, Offer] = {
    "MiDaS-DepthMapPreprocessor": Offer("FathomMiDaSDepth", _MIDAS),
    "MiDaS-NormalMapPreprocessor": Offer("FathomMiDaSNormal", _MIDAS),
    "Zoe-DepthMapPreprocessor": Offer("FathomZoeDepth", fixed={"estimator": "zoedepth-n"}),
    "BAE-NormalMapPreprocessor": Offer("FathomNormalBae", fixed={"estimator": "normal-bae"}),
    "OneFormer-ADE20K-SemSegPreprocessor": Offer("FathomOneFormer", fixed={"estimator": "oneformer-ade20k"}),
    "OneFormer-COCO-SemSegPreprocessor": Offer("FathomOneFormer", fixed={"estimator": "oneformer-coco"}),
    "UniFormer-SemSegPreprocessor": Offer("FathomSegment", fixed={"estimator": "uniformer-ade20k"}),
    "SemSegPreprocessor": Offer("FathomSegment", fixed={"estimator": "uniformer-ade20k"}),
}


def offer(free: Container[str]) -> set[str]:
    """Offer the replacement of every id in `free`, those that nobody holds. Returns the ids that must then stay
    unregistered; none where ComfyUI has no replacements."""
    offered = {id: replacement.fields() for id, replacement in OFFERS.items() if id in free}
    return set(offered) if offered and registry.offer_replacements(offered) else set()


def rename(graph: Mapping[str, Any], registered: Container[str]) -> None:
    """Give the nodes of a posted graph whose old id nobody holds the id that stays registered."""
    for node in graph.values():
        old = node.get("class_type") if isinstance(node, dict) else None
        if isinstance(old, str) and old in OFFERS and old not in registered:
            node["class_type"] = PREFIX + old
