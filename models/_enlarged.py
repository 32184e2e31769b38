"""A 3x3 convolution of an enlarged map, computed at the map's own size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..annotator.sizing import Size


def convolve_enlarged(x: Tensor, weight: Tensor, size: Size, align_corners: bool) -> Tensor:
    """`conv2d(interpolate(x, size, mode="bilinear"), weight, padding=1)`, up to rounding.

    x (B,C,h,w), weight (O,C,3,3), size (H,W) -> (B,O,H,W). Enlarging and convolving are both linear, so what the
    nine taps of the kernel give at every pixel of x can be enlarged and shifted afterwards: a quarter of the
    multiplications for twice the size, and no enlarged map of all C channels in memory. Where shifting costs more
    than that saves, the plain way is taken.
    """
    (batch, channels, h, w), out, (height, width) = x.shape, len(weight), size
    shifting = out * (3 * h * 3 * w * width + height * 3 * h * width)
    if 9 * channels * out * h * w + shifting > 9 * channels * out * height * width / 2:
        enlarged = F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
        return F.conv2d(enlarged, weight, padding=1)
    taps = F.conv2d(x, weight.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1))
    taps = taps.reshape(batch, out, 3, 3, h, w).transpose(3, 4).reshape(batch, -1, 3 * w)
    wide = (taps @ _enlarge_and_shift(x, w, width, align_corners).T).reshape(batch, out, 3 * h, width)
    return _enlarge_and_shift(x, h, height, align_corners) @ wide


def _enlarge_and_shift(like: Tensor, n: int, size: int, align_corners: bool) -> Tensor:
    """(size, 3n): what each of n samples gives to each of `size` under the three taps of the kernel along one axis.

    The sample before the first and behind the last is the convolution's zero.
    """
    single = torch.eye(n, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)[None]
    weights = F.interpolate(single, size, mode="linear", align_corners=align_corners)[0]
    padded = F.pad(weights.T, (0, 0, 1, 1)).to(like.dtype)
    return torch.cat([padded[:-2], padded[1:-1], padded[2:]], 1)
