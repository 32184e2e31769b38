"""What ComfyUI calls: every node takes its inputs from any device, and shows its result on itself."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..annotator import host
from ..annotator.loading import cache
from ..annotator.runtime import Annotator
from ..errors import SettingError
from ..signals import Scene, Signal
from ..signals.base import kinds
from ..signals.thumbnail import MOST, SIDE, thumbnails

log = logging.getLogger(__name__)

# What a choice among words may hold; the node itself tells which.
_WORDS = (str, int, float, bool)

# What is shown of a node's outputs unless its class says so itself: the first of these that it has.
_SHOWN = ("depth_image", "image", "depth", "frames", "mask", "ordered", "previews")


# The longest side of a single picture that is shown as large as it is.
WHOLE = 2048


class Node:
    """A node of the graph. ComfyUI calls `run`: inputs are brought together on one device, `execute` works on them,
    the results go where ComfyUI hands them on, and what can be seen of them is shown on the node.

    METHOD: the method that works, for ids of other packs under the name that it has there. PREVIEW: the names of the
    outputs to show; None = the first that can be seen, () = none.
    """

    FUNCTION = "run"
    METHOD: ClassVar[str] = "execute"
    PREVIEW: ClassVar[tuple[str, ...] | None] = None
    RETURN_TYPES: ClassVar[tuple[Any, ...]]
    _known_inputs: ClassVar[Mapping[str, tuple[type | tuple[type, ...], bool]]]

    def __init__(self) -> None:
        # ComfyUI drops its nodes to free the host's memory, and has no other word for that. Not at exit: by then the
        # modules that are needed may be gone.
        weakref.finalize(self, cache.release_unloaded).atexit = False

    def run(self, *args: Any, **inputs: Any) -> Any:
        """What `execute` gives for these inputs, and its previews where ComfyUI shows them. Raises SettingError for a
        socket that was given something else than its type, for a choice that is a list or an object, and for NaN: a
        graph sent by a program may hold all three, and ComfyUI's own bounds let NaN through."""
        for name, value in inputs.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingError(f"the input {name!r} takes a finite number, got {value}.")
        for name, (wanted, needed) in self._inputs().items():
            value = inputs.get(name)
            if not isinstance(value, wanted) and (value is not None or (needed and name in inputs)):
                raise SettingError(
                    f"the input {name!r} takes {wanted.__name__}, got {type(value).__name__}: connect an output of "
                    "that type."
                    if isinstance(wanted, type)
                    else f"the input {name!r} takes one of the words that it lists, got {type(value).__name__}."
                )
        where = host.output_device()
        method = getattr(self, self.METHOD)
        result = moved(method(*moved(args, where), **moved(inputs, where)), where)
        return self._with_previews(result)

    @classmethod
    def _inputs(cls) -> Mapping[str, tuple[type | tuple[type, ...], bool]]:
        """The class of each socket, the classes of each choice, and whether None is refused; read once, since some
        nodes list folders for it."""
        if "_known_inputs" not in vars(cls):
            declared: dict[str, Any] = cls.INPUT_TYPES()  # pyright: ignore[reportAttributeAccessIssue]
            inputs = {**declared.get("required", {}), **declared.get("optional", {})}
            types = socket_types()
            named = {name: kind for name, (kind, *_) in inputs.items() if isinstance(kind, str)}
            needed = declared.get("required", {})
            choices = {name: (_WORDS, False) for name, (kind, *_) in inputs.items() if isinstance(kind, list)}
            sockets = {n: (types[kind], n in needed) for n, kind in named.items() if kind in types}
            cls._known_inputs = {**choices, **sockets}
        return cls._known_inputs

    @classmethod
    def outputs(cls) -> list[str]:
        """The names of the outputs."""
        return list(getattr(cls, "RETURN_NAMES", cls.RETURN_TYPES))

    @classmethod
    def shown(cls) -> tuple[str, ...]:
        """The names of the outputs that the node shows; none when it has nothing to see."""
        if cls.PREVIEW is not None:
            return cls.PREVIEW
        return next(((name,) for name in _SHOWN if name in cls.outputs()), ())

    def _with_previews(self, result: Any) -> Any:
        names = self.shown()
        answer = result if isinstance(result, dict) else {"result": result}
        ui = answer.get("ui", {})
        if not names or ui.get("images"):
            return result
        outputs = self.outputs()
        files = save_previews([answer["result"][outputs.index(name)] for name in names])
        return {**answer, "ui": {**ui, "images": files}} if files else result


def socket_types() -> dict[str, type]:
    """The class of what a socket of each type hands on."""
    signals = {f"FATHOM_{name.upper()}": kind for name, kind in kinds().items()}
    loaded = dict.fromkeys(("DAMODEL", "DA3MODEL", "MARIGOLDMODEL", "VDAMODEL"), Annotator)
    return {"IMAGE": Tensor, "MASK": Tensor, "LATENT": dict, "FATHOM_BUNDLE": Scene, **loaded, **signals}


def moved(value: Any, where: torch.device) -> Any:
    """`value` with every tensor, signal and scene in it on `where`; itself where nothing had to move.

    Started with --gpu-only, ComfyUI hands results on between nodes on the GPU, while pictures and depth that come from
    a file lie in the host's memory: a node that joins both would fail.
    """
    if isinstance(value, (Tensor, Signal, Scene)):
        return value.to(where)
    if type(value) in (list, tuple):
        there = [moved(part, where) for part in value]
        return value if all(a is b for a, b in zip(there, value, strict=True)) else type(value)(there)
    if type(value) is dict:
        parts = {key: moved(part, where) for key, part in value.items()}
        return value if all(parts[key] is value[key] for key in value) else parts
    return value


def save_previews(results: Sequence[Any], side: int | None = None, most: int = MOST) -> list[dict[str, str]]:
    """Save what can be seen of `results` as small JPEGs in ComfyUI's temp folder, in the form that `ui` takes.

    side: longest side in pixels; None = their own size up to WHOLE where each is a single picture, for ComfyUI writes
    the size of what it shows beneath, else as in `thumbnails`. most: as there. Empty outside ComfyUI, and where the
    folder cannot be written to: a preview is never worth a failed run. Empty too where the user wants none (ComfyUI's
    settings panel, or FATHOM_NODE_PREVIEWS=0).
    """
    folder = host.temp_folder()
    if folder is None or not host.setting("NodePreviews", "FATHOM_NODE_PREVIEWS", 1):
        return []
    if side is None:
        side = WHOLE if all(isinstance(r, (Tensor, Signal)) and len(r) == 1 for r in results) else SIDE
    try:
        return [host.save_temp(picture, folder) for result in results for picture in thumbnails(result, side, most)]
    except OSError as error:
        log.warning("no preview: %s", error)
        return []
