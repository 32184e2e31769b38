"""On which device nodes meet: whatever a node takes and gives lies where ComfyUI hands results on."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from ..annotator import host
from ..signals import Scene, Signal

_MOVES = (Tensor, Signal, Scene)


def meets_others(node: type) -> None:
    """Let `node` take its inputs from any device, and give its results on ComfyUI's.

    Started with --gpu-only, ComfyUI hands results on between nodes on the GPU, while pictures and depth that come from
    a file lie in the host's memory: a node that joins both would fail.
    """
    name: str = node.FUNCTION  # pyright: ignore[reportAttributeAccessIssue]
    function: Callable[..., Any] = getattr(node, name)

    @wraps(function)
    def in_one_place(self: Any, *args: Any, **inputs: Any) -> Any:
        where = host.output_device()
        taken = {key: moved(value, where) for key, value in inputs.items()}
        return moved(function(self, *(moved(value, where) for value in args), **taken), where)

    setattr(node, name, in_one_place)


def moved(value: Any, where: torch.device) -> Any:
    """`value` with every tensor, signal and bundle in it on `where`; itself where nothing had to move."""
    if isinstance(value, _MOVES):
        return value.to(where)
    if type(value) in (list, tuple):
        there = [moved(part, where) for part in value]
        return value if all(a is b for a, b in zip(there, value, strict=True)) else type(value)(there)
    if type(value) is dict:
        parts = {key: moved(part, where) for key, part in value.items()}
        return value if all(parts[key] is value[key] for key in value) else parts
    return value
