"""Fathom: depth, surface normals and regions of a picture, for ComfyUI, the shell and Python.

    import fathom
    est = fathom.load("fathom-tiny")
    depth = est(image)              # image: float32 (B,H,W,3) in 0..1, or a PIL image
    depth.values, depth.to_image()

The same folder is ComfyUI's node pack. Nothing heavy is imported before a network is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FathomError, PictureError, SettingError, SignalError, WeightsError
from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, WEB_DIRECTORY
from .signals import Depth, Intrinsics, Normals, Segmentation
from .version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from .annotator.estimator import Estimator
    from .annotator.runtime import Annotator

__all__ = [
    "NODE_CLASS_MAPPINGS",
    "NODE_DISPLAY_NAME_MAPPINGS",
    "WEB_DIRECTORY",
    "Depth",
    "FathomError",
    "Intrinsics",
    "Normals",
    "PictureError",
    "Segmentation",
    "SettingError",
    "SignalError",
    "WeightsError",
    "__version__",
    "estimators",
    "load",
]


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
    """Load an estimator by id. The result is called with pictures and returns Depth, Normals, Segmentation or
    Intrinsics.

    weights: a checkpoint file or a Hugging Face style folder (config.json + weights); None = find it in the model
    folders or download it. device: None = the best there is. dtype: None = float32.

    Raises SettingError for an unknown id and WeightsError when the weights cannot be had, trusted or loaded.
    """
    from .annotator import runtime
    from .models import estimator

    chosen: Any = estimator(id) if isinstance(id, str) else id
    return runtime.load(chosen, weights, device, dtype)
