"""Fathom: depth, surface normals, regions and things of a picture, for ComfyUI, the shell and Python.

    import fathom
    est = fathom.load("fathom-tiny")
    depth = est(image)              # image: float32 (B,H,W,3) in 0..1, or a PIL image
    depth.values, depth.to_image()

The same folder is ComfyUI's node pack. Nothing heavy is imported before a network is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import FathomError, PictureError, SettingError, SignalError, WeightsError
from .version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from .annotator.estimator import Estimator
    from .annotator.runtime import Annotator
    from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    from .signals import (
        Depth,
        Instances,
        Intrinsics,
        Mask,
        Normals,
        Scene,
        Segmentation,
        Signal,
        Thing,
        load_signal,
    )

WEB_DIRECTORY = "./web"

# What needs torch is imported when it is first asked for: who wants the version or the help waits for nothing.
_OF_NODES = ("NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS")
_OF_SIGNALS = (
    "Depth",
    "Instances",
    "Intrinsics",
    "Mask",
    "Normals",
    "Scene",
    "Segmentation",
    "Signal",
    "Thing",
    "load_signal",
)

__all__ = [
    "NODE_CLASS_MAPPINGS",
    "NODE_DISPLAY_NAME_MAPPINGS",
    "WEB_DIRECTORY",
    "Depth",
    "FathomError",
    "Instances",
    "Intrinsics",
    "Mask",
    "Normals",
    "PictureError",
    "Scene",
    "Segmentation",
    "SettingError",
    "Signal",
    "SignalError",
    "Thing",
    "WeightsError",
    "__version__",
    "decompose",
    "detect",
    "estimators",
    "load",
    "load_signal",
]


def __getattr__(name: str) -> Any:
    if name in _OF_NODES:
        from . import nodes as source
    elif name in _OF_SIGNALS:
        from . import signals as source
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(source, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_OF_NODES, *_OF_SIGNALS})


def estimators() -> Mapping[str, Estimator]:
    """Every estimator by id, such as "depth-anything-v2-small" or "midas-dpt-hybrid"."""
    from .models import estimators

    return estimators()


def load(
    id: str | Estimator,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Annotator:
    """Load an estimator by id. Called with pictures, the result returns its main signal, such as a Depth; its `scene`
    returns every signal of one forward.

    weights: a checkpoint file or a Hugging Face style folder (config.json + weights); None = find it in the model
    folders or download it. device: None = the best there is. dtype: None = float32.

    Raises SettingError for an unknown id and WeightsError when the weights cannot be had, trusted or loaded.
    """
    from .annotator import loading
    from .models import estimator

    chosen: Any = estimator(id) if isinstance(id, str) else id
    return loading.load(chosen, weights, device, dtype)


def decompose(image: Any, slots: Mapping[str, str | Estimator], resolution: int | None = None) -> Scene:
    """Several estimators over one picture or batch: a Scene with one signal for each slot.

    slots: {"depth": "moge-2-small", "faces": "yunet"}: what each slot is called, and the estimator that fills it. An
    estimator that fills several runs once; loaded networks are kept and shared. image, resolution and errors as in
    `Annotator.__call__`.
    """
    from .annotator import loading
    from .models import estimator

    chosen = {slot: estimator(id) if isinstance(id, str) else id for slot, id in slots.items()}
    return loading.decompose(image, chosen, resolution)


def detect(path: str | Path) -> list[str]:
    """The ids of the estimators that a weights file or folder fits, by the names and shapes of its tensors, not by its
    own name; empty where none does. Reads no numbers. Raises WeightsError for what is no checkpoint."""
    from .annotator.detect import detect
    from .models import estimators

    return detect(path, estimators())
