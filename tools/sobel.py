"""The normal map that the MiDaS annotator of ControlNet derives from its depth."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError
from ..signals import Depth, Normals
from ..signals.normals import unit_vectors
from .pixels import check_range

# Sobel along x of inverse depth grows where the surface turns away to the left, so it is -x of our frame; along y
# (rows run down) it grows on a floor, so it is +y. The annotator hands z, y, x to red, green, blue.
_TRAINED = ("+z", "+y", "-x")


def sobel_normals(depth: Depth, a: float = 6.283185307179586, bg_threshold: float = 0.1) -> Normals:
    """Normals from the gradient of `depth.values`: x, y = Sobel 3x3, z = `a`, then unit length.

    a: how flat the result is, > 0 (ControlNet: 2*pi). bg_threshold: where the depth, scaled to 0..1 per picture, is
    less than this share, x and y are 0, so that the background faces the viewer. The picture to_image() is the one
    that ControlNet's normal annotator makes. Source: lllyasviel/ControlNet, annotator/midas.

    The gradient of MiDaS's own numbers is meant, whose scale is part of the look: normals of true geometry come from
    tools.geometry instead. Raises SettingError for a value outside 0..5*pi or 0..1.
    """
    if not 0 <= a <= 15.8:
        raise SettingError(f"a must lie in 0..15.71 (5*pi), got {a}.")
    if not 0 <= bg_threshold <= 1:
        raise SettingError(f"bg_threshold must lie in 0..1, got {bg_threshold}.")
    values = depth.values[:, None]
    # cv2's default border repeats all but the edge itself; a side of one pixel has nothing to repeat.
    rows, columns = (1 if n > 1 else 0 for n in values.shape[-2:])
    padded = F.pad(values, (columns, columns, rows, rows), mode="reflect")
    padded = F.pad(padded, (1 - columns, 1 - columns, 1 - rows, 1 - rows), mode="replicate")
    smooth, slope = values.new_tensor([1.0, 2.0, 1.0]), values.new_tensor([-1.0, 0.0, 1.0])
    x = _sobel(padded, smooth, slope)
    y = _sobel(padded, slope, smooth)
    near = foreground(depth, bg_threshold)
    vectors = values.new_empty(*depth.values.shape, 3)
    vectors[..., 0] = -x * near
    vectors[..., 1] = y * near
    vectors[..., 2] = a
    return Normals(unit_vectors(vectors), depth.valid, f"{depth.source} (Sobel)", _TRAINED)


def foreground(depth: Depth, bg_threshold: float) -> Tensor:
    """Where the depth, scaled to 0..1 per picture, is at least `bg_threshold`: float32 (B,H,W), 0 or 1."""
    check_range("bg_threshold", bg_threshold, -1e9, 1e9)
    return (depth.unit_range() >= bg_threshold).float()


def _sobel(padded: Tensor, down: Tensor, across: Tensor) -> Tensor:
    kernel = down[:, None] * across[None, :]
    return F.conv2d(padded, kernel[None, None])[:, 0]
