"""Inputs that several nodes share, and the words of their tooltips."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, get_args

from ..annotator import host
from ..annotator.estimator import Estimator, Option
from ..annotator.weights import places
from ..models import estimators
from ..signals import Depth
from ..signals.depth import to_metric
from ..signals.field import Scope
from ..signals.intrinsics import ColourSpace
from ..signals.normals import NormalConvention
from ..tools.depth_field import Space
from .base import Node

# Seconds for which a look at the disk holds.
_LOOKED_AT_EVERY = 10

# Where people look for the pack; the other two are where other packs keep what its ids stand in for.
ESTIMATE_CATEGORY = "Fathom/Estimate"
DEPTH_CATEGORY = "ControlNet Preprocessors/Normal and Depth Estimators"
SEGMENTATION_CATEGORY = "ControlNet Preprocessors/Semantic Segmentation"

IMAGE: tuple[str, dict[str, Any]] = ("IMAGE", {"tooltip": "The picture, or a batch of pictures of one size."})
SCOPE = (
    list(get_args(Scope)),
    {
        "default": "image",
        "tooltip": "Which pixels decide what is white and what is black: each picture's own, those of the whole batch, "
        "or for a video a range that follows each shot slowly and starts anew at a cut, so that nothing flickers.",
    },
)
NORMAL_CONVENTION = (
    list(get_args(NormalConvention)),
    {
        "default": "controlnet",
        "tooltip": "controlnet: as the ControlNet of this model was trained. opengl, directx: for other programs; they "
        "differ in the direction of green.",
    },
)
COLOUR_SPACE = (
    list(get_args(ColourSpace)),
    {
        "default": "srgb",
        "tooltip": "srgb: to be looked at and saved; shading and residual are brightened until their lightest pixel is "
        "white. linear: the model's own numbers in linear light, to compute with.",
    },
)
OPTIONS: tuple[str, dict[str, Any]] = (
    "STRING",
    {
        "default": "",
        "multiline": True,
        "advanced": True,
        "tooltip": "Settings of the model that have no widget here, one name=value per line, such as steps=10. "
        "`fathom models options` lists them.",
    },
)
UNKNOWN = "0 = unknown."
PLACE = "0 = farthest, 1 = closest; metres when space is metres."


def depth_input(tooltip: str = "The depth of any Fathom node.") -> tuple[str, dict[str, Any]]:
    """The socket for a depth."""
    return "FATHOM_DEPTH", {"tooltip": tooltip}


def number(default: float, least: float, most: float, step: float, tooltip: str) -> tuple[str, dict[str, Any]]:
    """A widget for a number."""
    settings = {"default": default, "min": least, "max": most, "step": step, "round": False, "tooltip": tooltip}
    return "FLOAT", settings


def metres(which: str, use: str) -> tuple[str, dict[str, Any]]:
    """The widget for the distance of the closest or farthest pixel."""
    tooltip = f"Metres of the {which} pixel, for depth that has none of its own: {use} {UNKNOWN}"
    return number(0.0, 0.0, 1e6, 0.01, tooltip)


def in_metres(depth: Depth, near: float = 0.0, far: float = 0.0) -> Depth:
    """The depth as the widgets of `metres` make it: metric where they say distances, as it came where both are 0."""
    return to_metric(depth, near or None, far or None) if near or far else depth


def space(measured: str) -> tuple[list[str], dict[str, Any]]:
    """The widget for the measure of places in depth. measured: the names of their widgets."""
    return list(get_args(Space)), {"default": "relative", "tooltip": f"What {measured} are measured in."}


def advanced(spec: tuple[Any, dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
    """The widget, kept out of sight until the user asks for advanced inputs; such ones stand last on a node."""
    return spec[0], {**spec[1], "advanced": True}


def picker(spec: tuple[Any, dict[str, Any]], kind: str, **more: Any) -> tuple[Any, dict[str, Any]]:
    """The widget with a button beside it, in the browser: kind and more as web/js/pickers.mjs knows them."""
    return spec[0], {**spec[1], "picker": kind, **more}


def option(of: Option) -> tuple[Any, dict[str, Any]]:
    """The widget of an estimator's own option."""
    if of.choices:
        return list(of.choices), {"default": of.default, "tooltip": of.about}
    if isinstance(of.default, bool):
        return "BOOLEAN", {"default": of.default, "tooltip": of.about}
    kind = "INT" if isinstance(of.default, int) else "FLOAT"
    limits = {k: v for k, v in (("min", of.least), ("max", of.most)) if v is not None}
    return kind, {"default": of.default, **limits, "tooltip": of.about}


def resolution(default: int = 512) -> tuple[str, dict[str, Any]]:
    """The widget for the short side of the result."""
    return (
        "INT",
        {
            "default": default,
            "min": 0,
            "max": 16384,
            "step": 8,
            "tooltip": "Short side of the result in pixels; the aspect is kept. 0 = the size of the picture; a picture "
            "smaller than this is enlarged. The network works at the nearest size it can, so higher finds finer "
            "detail and takes longer.",
        },
    )


def choice(ids: Iterable[str], default: str) -> tuple[list[str], dict[str, Any]]:
    """A drop-down of estimators. Its tooltip tells of the default; "estimators" holds of every one what the front end
    shows of the one that is chosen and in its list: about, licence, size in bytes, whether it is on this machine."""
    listed = list(ids)
    every = estimators()
    chosen = every[default]
    tooltip = (
        f"{default}: {chosen.about} Licence: {chosen.licence}.\n"
        "The list at the foot of the node tells the same of all, and what has to be fetched."
    )
    return listed, {"default": default, "tooltip": tooltip, "estimators": estimator_facts(listed)}


def estimator_facts(ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the front end shows of each estimator (web/js/models.mjs, `Model`)."""
    every = estimators()
    return {id: _facts(every[id]) for id in ids}


def _facts(estimator: Estimator) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "about": estimator.about,
        "licence": str(estimator.licence),
        "commercial": estimator.licence.commercial,
    }
    if estimator.embedded is not None:
        return {**facts, "here": True, "preview": True}
    source = estimator.sources[0]
    sizes = [source.size, *(pin[1] for pin in source.pins.values())]
    published = sum(size for size in sizes if size) if source.size else 0
    return {
        **facts,
        # Only where somebody sees it: looking into the hub's cache imports its library.
        "here": host.inside_comfyui() and _on_disk(estimator.id, int(time.monotonic() / _LOOKED_AT_EVERY)),
        "size": published or estimator.parameters * 4,
        "url": source.url,
        "folder": f"models/annotators/{source.folder}",
    }


@lru_cache(maxsize=256)
def _on_disk(id: str, _moment: int) -> bool:
    """Whether the weights lie on this machine, looked at once a moment: ComfyUI asks for a node's inputs many times in
    a run."""
    return any(True for source in estimators()[id].sources for _ in places(source))


def input_file(suffixes: tuple[str, ...], tooltip: str, **more: Any) -> tuple[list[str], dict[str, Any]]:
    """A drop-down of the files in ComfyUI's input folder that end in one of `suffixes`, and a button to upload one."""
    return host.input_files(suffixes), {"tooltip": tooltip, "picker": "upload", "suffixes": list(suffixes), **more}


class FromFile(Node):
    """A node over one file of the input folder, which its input `file` names."""

    @classmethod
    def IS_CHANGED(cls, file: str | None = None, **more: Any) -> str | float:
        """What changes when the file does, so that ComfyUI runs the node again; NaN, which never equals itself, where
        another node names the file."""
        return math.nan if file is None else cls.state(file, **more)

    @classmethod
    def state(cls, file: str, **_more: Any) -> str:
        """The state of the file of this name."""
        state = host.input_file(file).stat()
        return f"{state.st_mtime_ns} {state.st_size}"

    @classmethod
    def VALIDATE_INPUTS(cls, file: str | None = None) -> bool | str:
        """Whether the file may be read; what is wrong when not. Not asked where another node names it, or none is
        named, which ComfyUI tells itself."""
        if file is None:
            return True
        try:
            host.input_file(file)
        except ValueError as error:
            return str(error)
        return True
