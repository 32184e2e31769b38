"""What a person sees in the graph. Each module lists its classes in NODES; the class name is the node's id."""

from __future__ import annotations

from pathlib import Path

from ..annotator import host
from . import (
    bundle,
    completion,
    depth_io,
    depth_tools,
    dropin,
    estimate,
    geometry,
    inspector,
    instances,
    lines,
    one_pass,
    preset,
    regions,
    sensors,
)

NODES: tuple[type, ...] = (
    *estimate.NODES,
    *preset.NODES,
    *depth_io.NODES,
    *depth_tools.NODES,
    *inspector.NODES,
    *regions.NODES,
    *instances.NODES,
    *lines.NODES,
    *geometry.NODES,
    *sensors.NODES,
    *completion.NODES,
    *bundle.NODES,
    *one_pass.NODES,
)
_FREE = dropin.free(host.holds_node)
_OFFERED = dropin.offer(_FREE)  # ComfyUI's editor replaces ids that are not registered, and those alone
_DROP_INS = {id: node for id, node in _FREE.items() if id not in _OFFERED}

NODE_CLASS_MAPPINGS: dict[str, type] = {**{node.__name__: node for node in NODES}, **_DROP_INS}
NODE_DISPLAY_NAME_MAPPINGS = {id: vars(node)["DISPLAY_NAME"] for id, node in NODE_CLASS_MAPPINGS.items()}
WEB_DIRECTORY = "./web"

host.register_folders()
host.serve_web(Path(__file__).parents[1])
dropin.follow()
