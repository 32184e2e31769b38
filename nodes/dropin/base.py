"""What every replaced node shares: hidden from menus, lenient about old widgets, strict about what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from ...errors import SettingError
from ...signals import Depth
from ..base import Node
from ..fields import DEPTH_CATEGORY


class Widget(str):
    """A widget type that ComfyUI shows and links as "INT", "FLOAT" ..., but leaves null values to the node.

    Graphs saved before a widget existed post null for it; ComfyUI's own conversion would refuse them.
    """

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return not str.__eq__(self, other)


class DropIn(Node):
    """A node of another pack. WIDGETS: its optional inputs."""

    DEPRECATED = True
    CATEGORY = DEPTH_CATEGORY
    RETURN_TYPES: ClassVar[tuple[Any, ...]] = ("IMAGE",)
    OUTPUT_TOOLTIPS: tuple[str, ...] = ("What the node of this name gave, in float.",)
    PREVIEW = ()
    WIDGETS: Mapping[str, Any] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {"tooltip": "The picture."})}, "optional": dict(cls.WIDGETS)}

    @classmethod
    def VALIDATE_INPUTS(cls, **_given: Any) -> bool:
        # Old graphs hold values outside of today's ranges; the node itself falls back as the old one did.
        return True


def number(kind: str, about: str, **limits: Any) -> tuple[str, dict[str, Any]]:
    """The widget of a number; kind: "INT" or "FLOAT"."""
    return Widget(kind), {**limits, "tooltip": about}


def combo(values: list[str], default: str, about: str) -> tuple[list[str], dict[str, Any]]:
    """The widget of a choice."""
    return values, {"default": default, "tooltip": about}


def switch(default: bool, about: str) -> tuple[str, dict[str, Any]]:
    """The widget of a yes or no."""
    return "BOOLEAN", {"default": default, "tooltip": about}


RESOLUTION = number("INT", "Short side of the result.", default=512, min=64, max=16384, step=64)


def value(name: str, given: Any, default: float) -> float:
    """The number that a widget holds: itself, written as text, or `default` for null. Raises SettingError for anything
    else."""
    if given is None:
        return default
    try:
        read = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        read = math.nan
    if not math.isfinite(read):
        raise SettingError(f"{name} must be a number, got {given!r}.")
    return read


def integer(name: str, given: Any, default: int) -> int:
    """As `value`, for a whole number: every digit of one counts. Raises SettingError."""
    return given if type(given) is int else int(value(name, given, default))


def short_side(given: Any) -> int:
    """What `resolution` means: comfyui_controlnet_aux takes 512 for null and for less than 64."""
    read = value("resolution", given, 512)
    return int(read) if read >= 64 else 512


def chosen(given: Any, default: Any) -> Any:
    """What a widget holds, `default` for null."""
    return default if given is None else given


def by_file(name: Any, files: Mapping[str, str], default: str, widget: str = "ckpt_name") -> str:
    """The id that the file of a drop-down stands for. Raises SettingError listing those there are."""
    name = chosen(name, default)
    if name not in files:
        raise SettingError(f"{widget} must be one of {', '.join(files)}, got {name!r}.")
    return files[name]


def even(size: int) -> int:
    """The side that packs made for video encoders give: even, rounded down."""
    return max(size // 2 * 2, 1)


def with_even_sides(depth: Depth) -> Depth:
    """The depth at even sides, before it is rendered, so that its picture still spans 0..1. Its lens and what is not
    valid are left out: nothing but a picture is made of it."""
    size = even(depth.values.shape[1]), even(depth.values.shape[2])
    plain = replace(depth, valid=None, focal=None, principal=None, confidence=None)
    if depth.values.shape[1:] == size:
        return plain
    return replace(plain, values=F.interpolate(depth.values[:, None], size, mode="bilinear")[:, 0])


def grey(field: Tensor) -> Tensor:
    """(B,H,W) as a picture (B,H,W,3)."""
    return field[..., None].expand(-1, -1, -1, 3).contiguous()
