"""What a person sees in the graph. Each module lists its classes in NODES; the class name is the node's id."""

from __future__ import annotations

from ..annotator import host
from . import estimate

NODES: tuple[type, ...] = estimate.NODES

NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: node.DISPLAY_NAME for node in NODES}  # pyright: ignore[reportAttributeAccessIssue]
WEB_DIRECTORY = "./web"

host.register_folders()
