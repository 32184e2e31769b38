"""Depth of depth cameras: 16-bit PNG, with the confidence map and the camera's intrinsics that lie beside it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import PictureError, SettingError
from ..signals import Depth
from ..signals.depth import depth_from_metres
from ..signals.foreign import LZFSE, is_lzfse
from ..signals.opencv import opencv
from .intrinsics_files import with_camera
from .pixels import check_whole

# What scanner apps write for ARKit's confidence low, medium and high.
_CONFIDENCE = ((0, 1, 2), (0, 54, 255), (0, 127, 255), (0, 128, 255))


def load_rgbd(
    path: Path,
    *,
    units_per_metre: float = 1000.0,
    max_range: float | None = None,
    focal: float | None = None,
    fill: int = 0,
    confidence: Path | None = None,
    least_confidence: int = 1,
    intrinsics: Path | None = None,
    intrinsics_width: int = 0,
) -> tuple[Depth, Tensor]:
    """The depth in a 16-bit PNG of a depth camera (RealSense, Kinect, TUM: 5000 units, LiDAR), and what was filled in.

    Value 0 is no measurement. units_per_metre: 1000 for millimetres. max_range: metres beyond which nothing is
    believed. focal: pixels. confidence: the map of ARKit's confidence that scanner apps write beside the depth (Stray
    Scanner, Polycam: 0, 1, 2 or 0, 54, 255), of the depth's size; pixels below least_confidence (0 low, 1 medium, 2
    high) are not valid. intrinsics, intrinsics_width: the camera's file, see intrinsics_files.with_camera. fill: a
    pixel without measurement at most this many pixels from one is filled in from its surroundings (OpenCV's inpaint on
    inverse distance) and stays within what was measured; 0 = none.

    Returns the metric Depth, filled pixels valid, and float32 (1,H,W), 1 where a value was filled in. Raises
    PictureError for a damaged file, one that is not 16-bit grey, or a confidence map of another size or meaning;
    SettingError for a number outside its range.
    """
    if not 0 < units_per_metre < math.inf:
        raise SettingError(f"units_per_metre must be positive, got {units_per_metre}.")
    if max_range is not None and not max_range > 0:
        raise SettingError(f"max_range must be positive metres, got {max_range}.")
    check_whole("fill", fill, 0)
    if focal is not None and intrinsics is not None:
        raise SettingError("give the focal length or a file of intrinsics, not both.")
    metres = _read_png16(path) / units_per_metre
    if max_range is not None:
        metres = metres.masked_fill(metres > max_range, 0.0)
    sure = None if confidence is None else _confidence(confidence, metres)
    valid = None if sure is None else sure >= least_confidence
    depth = depth_from_metres(metres, valid=valid, focal=focal, source=path.name)
    if sure is not None:
        depth = replace(depth, confidence=sure.float())
    if intrinsics is not None:
        depth = with_camera(depth, intrinsics, intrinsics_width)
    if depth.valid is None or not fill or not bool(depth.valid.any()):
        return depth, torch.zeros_like(depth.values)
    cv2 = opencv("Filling holes of a depth camera")
    hole = (~depth.valid[0]).numpy().astype("uint8")
    # The other method, Telea's, is wrong by whole ranges on float pictures.
    filled = cv2.inpaint(depth.values[0].numpy(), hole, 3, cv2.INPAINT_NS)
    measured = depth.values[depth.valid]
    filled = filled.clip(float(measured.min()), float(measured.max()))
    reach = torch.from_numpy(cv2.distanceTransform(hole, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))[None]
    invented = (reach > 0) & (reach <= fill)
    values = torch.where(invented, torch.from_numpy(filled)[None], depth.values)
    known = depth.valid | invented
    return replace(depth, values=values, valid=None if bool(known.all()) else known), invented.float()


def _confidence(path: Path, metres: Tensor) -> Tensor:
    """ARKit's levels 0, 1, 2: int64 (1,H,W)."""
    import numpy as np

    levels = _open(path)
    if levels.shape != tuple(metres.shape[1:]):
        raise PictureError(
            f"the confidence map {path.name} is {levels.shape[1]}x{levels.shape[0]} and the depth "
            f"{metres.shape[2]}x{metres.shape[1]}: give the map of the same frame."
        )
    found = np.unique(levels).tolist()
    for known in _CONFIDENCE:
        if set(found) <= set(known):
            return torch.from_numpy(np.searchsorted(known, levels))[None]
    raise PictureError(
        f"{path.name} is no confidence map: it holds {found[:4]}{'...' if len(found) > 4 else ''}, and ARKit's "
        "confidence is written as 0, 1, 2 or 0, 54, 255 or 0, 127, 255."
    )


def _read_png16(path: Path) -> Tensor:
    """float32 (1,H,W) of the integers in a 16-bit grey PNG."""
    import numpy as np

    return torch.from_numpy(_open(path, deep=True).astype(np.float32))[None]


def _open(path: Path, deep: bool = False) -> Any:
    """The numbers of a grey picture, (H,W). deep: of 16 bits."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            if deep and not image.mode.startswith("I"):
                bits = {"L": "8-bit grey", "P": "8-bit palette", "RGB": "8-bit colour", "RGBA": "8-bit colour"}
                raise PictureError(
                    f"{path.name} is {bits.get(image.mode, image.mode)}, and depth cameras write 16-bit grey. An 8-bit "
                    "copy has lost the distances: load the camera's own file."
                )
            if not deep and image.mode not in ("L", "P", "I", "I;16"):
                raise PictureError(f"{path.name} is {image.mode}, and confidence maps are grey: give the app's own.")
            return np.asarray(image)
    except PictureError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if is_lzfse(path):
            raise PictureError(f"{path.name} {LZFSE}") from error
        raise PictureError(f"{path.name} cannot be read as PNG ({error}): it is damaged or of another type.") from error


def holes(depth: Depth) -> Tensor:
    """Where nothing was measured: float32 (B,H,W), 1 = unknown."""
    return torch.zeros_like(depth.values) if depth.valid is None else (~depth.valid).float()
