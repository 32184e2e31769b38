"""Filters: how pixels are resized.

Every resize here works on float tensors (B,C,H,W) on their own device. The filters carry the names of what the
published code uses, because the filter decides whether results equal the published ones:

- "bilinear", "bicubic": torch and cv2 INTER_LINEAR, INTER_CUBIC (a = -0.75, no antialiasing).
- "bilinear_corners": torch with align_corners=True.
- "bilinear_aa": PIL BILINEAR, antialiased, in float.
- "area_float": cv2 INTER_AREA on float data, for shrinking.

The next ones round to 256 levels as published code does, bit for bit, because networks amplify a single grey level:

- "bilinear_cv": cv2 INTER_LINEAR.
- "area": cv2 INTER_AREA (for shrinking; each output pixel is the mean of the area it covers).
- "lanczos4": cv2 INTER_LANCZOS4 (8 taps, no antialiasing).
- "bicubic_cv": cv2 INTER_CUBIC (a = -0.75, no antialiasing); of 100 000 values, one that cv2's float32 puts on a half
  level may come out beside it.
- "bilinear_pil", "bicubic_pil": PIL BILINEAR, BICUBIC (a = -0.5), antialiased.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError

Filter = Literal[
    "bilinear",
    "bilinear_corners",
    "bicubic",
    "area",
    "area_float",
    "bilinear_cv",
    "lanczos4",
    "bicubic_cv",
    "bilinear_aa",
    "bilinear_pil",
    "bicubic_pil",
]
Size = tuple[int, int]


def reflect_pad(pixels: Tensor, rows: int, columns: int) -> Tensor:
    """Mirror the border without repeating it; a picture too small for that is mirrored as often as needed."""
    height, width = pixels.shape[-2:]
    if rows < height and columns < width:
        return F.pad(pixels, (columns, columns, rows, rows), mode="reflect")
    return pixels[..., _mirrored(height, rows).to(pixels.device), :][..., _mirrored(width, columns).to(pixels.device)]


def _mirrored(length: int, extra: int) -> Tensor:
    if length == 1:
        return torch.zeros(1 + 2 * extra, dtype=torch.long)
    index = torch.arange(-extra, length + extra).abs() % (2 * length - 2)
    return torch.minimum(index, 2 * length - 2 - index)


def resize(pixels: Tensor, size: Size, how: Filter) -> Tensor:
    """Resize (B,C,H,W) float to (height, width) `size`. The input is returned unchanged when it already fits.

    Raises SettingError for an unknown filter.
    """
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    if how in ("bilinear", "bicubic"):
        return F.interpolate(pixels, size, mode=how, align_corners=False)
    if how == "bilinear_corners":
        return F.interpolate(pixels, size, mode="bilinear", align_corners=True)
    if how == "bilinear_aa":
        return F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    if how == "area_float":
        return _average(pixels, size)
    if how in ("area", "lanczos4", "bilinear_cv", "bicubic_cv", "bilinear_pil", "bicubic_pil"):
        levels = (pixels * 255).round_().clamp_(0, 255)
        if how in ("bilinear_pil", "bicubic_pil"):
            levels = _resize_pil(levels.long(), size, how)
        elif how == "lanczos4":
            levels = _resize_cv_lanczos4(levels.long(), size)
        elif how == "bilinear_cv":
            levels = _resize_cv_linear(levels, size)
        elif how == "bicubic_cv":
            levels = _resize_cv_cubic(levels, size)
        # cv2 takes areas only when no side grows; otherwise it blends two neighbours on both axes.
        elif pixels.shape[-2] >= size[0] and pixels.shape[-1] >= size[1]:
            levels = _resize_cv_area(levels, size)
        else:
            levels = _resize_cv_area_larger(levels.long(), size)
        return levels.to(pixels.dtype) / 255
    raise SettingError(f"there is no resize filter {how!r}.")


ARGMAX_ELEMENTS = 2**25


def argmax_at(scores: Tensor, size: Size) -> Tensor:
    """The best class at every pixel: class scores (B,C,h,w), brought bilinearly to `size`, -> int64 (B,height,width).

    Labels are never resized themselves. Classes are enlarged a few at a time, so memory does not grow with their
    number; classes that can win nowhere are left out. The result is that of the whole enlargement (the first class
    wins a tie).
    """
    few = max(1, ARGMAX_ELEMENTS // (size[0] * size[1]))
    # Worth a look at every score where there are far more pixels; a GPU would wait for the number of classes.
    some = scores.device.type == "cpu" and size[0] * size[1] >= 4 * scores.shape[-2] * scores.shape[-1]
    rows = []
    for picture in scores.split(1):
        classes = None
        if some:
            classes = _contenders(picture).nonzero()[:, 0]
            picture = picture[:, classes]
        best, labels = resize(picture[:, :few], size, "bilinear").max(1)
        for start in range(few, picture.shape[1], few):
            value, label = resize(picture[:, start : start + few], size, "bilinear").max(1)
            better = value > best
            best = torch.where(better, value, best)
            labels = torch.where(better, label + start, labels)
        rows.append(labels if classes is None else classes[labels])
    return torch.cat(rows)


def _contenders(scores: Tensor) -> Tensor:
    """Which classes of (1,C,h,w) may be the best one at some place between pixels, by bilinear scores: bool (C).

    Between four pixels a score lies between their least and their largest one. A class whose largest is below another
    one's least, by more than rounding, does not win there.
    """
    least = largest = scores
    for dim in (-2, -1):
        if (last := scores.shape[dim] - 1) > 0:
            least = torch.minimum(least.narrow(dim, 0, last), least.narrow(dim, 1, last))
            largest = torch.maximum(largest.narrow(dim, 0, last), largest.narrow(dim, 1, last))
    ahead = (largest - least.amax(1, keepdim=True)).amax((0, 2, 3))
    # So that NaN and infinity leave every class in.
    return ~(ahead < -64 * torch.finfo(scores.dtype).eps * scores.abs().amax())


def _apply_taps(pixels: Tensor, dim: int, index: Tensor, weight: Tensor) -> Tensor:
    # index, weight: (out, taps). One gather per tap keeps the memory at one output instead of `taps` of them.
    index = index.to(pixels.device)
    weight = weight.to(pixels.device, pixels.dtype)
    shape = [1] * pixels.ndim
    shape[dim] = len(index)
    total = pixels.index_select(dim, index[:, 0]) * weight[:, 0].view(shape)
    for tap in range(1, index.shape[1]):
        total += pixels.index_select(dim, index[:, tap]) * weight[:, tap].view(shape)
    return total


def _average(pixels: Tensor, size: Size) -> Tensor:
    # The rows first, as cv2: float32 sums that fall on half a level do so in one order only.
    for dim in (-1, -2):
        pixels = _apply_taps(pixels, dim, *_area_taps(pixels.shape[dim], size[dim]))
    return pixels


def _resize_cv_area(levels: Tensor, size: Size) -> Tensor:
    halves = tuple(levels.shape[-2:]) == (2 * size[0], 2 * size[1])
    levels = _average(levels, size)
    # cv2 rounds half to even, but half up where four pixels become one.
    return (levels + 0.5).floor_() if halves else levels.round_()


def _area_taps(length: int, out: int) -> tuple[Tensor, Tensor]:
    scale = length / out
    start = torch.arange(out, dtype=torch.float64) * scale
    end = (start + scale).clamp_(max=length)
    index = start.floor().long()[:, None] + torch.arange(math.ceil(scale) + 1)
    weight = (torch.minimum(end[:, None], index + 1.0) - torch.maximum(start[:, None], index.double())).clamp_(0)
    return index.clamp_(max=length - 1), weight / weight.sum(1, keepdim=True)


_CV_BITS = 11  # cv2 computes on 8-bit data with integer weights of this many bits, in float32 up to there


def _resize_cv_linear(levels: Tensor, size: Size) -> Tensor:
    # cv2 takes the mean of four pixels where both sides halve exactly.
    if tuple(levels.shape[-2:]) == (2 * size[0], 2 * size[1]):
        return _resize_cv_area(levels, size)
    rows, columns = (_linear_taps(n, out) for n, out in zip(levels.shape[-2:], size, strict=True))
    # Beyond the first and last column cv2 takes that column alone; beyond a row it blends the row with itself.
    alone = columns[0][:, 0] == columns[0][:, 1]
    columns[1][alone] = torch.tensor([1 << _CV_BITS, 0])
    return _blend_two(levels.long(), rows, columns)


def _linear_taps(length: int, out: int) -> tuple[Tensor, Tensor]:
    position = ((torch.arange(out, dtype=torch.float64) + 0.5) * (1 / (out / length)) - 0.5).float()
    first = position.floor()
    share = position - first
    index = torch.stack([first, first + 1], 1).long().clamp_(0, length - 1)
    return index, (torch.stack([1 - share, share], 1) * (1 << _CV_BITS)).round_().long()


def _resize_cv_area_larger(levels: Tensor, size: Size) -> Tensor:
    return _blend_two(levels, *(_area_linear_taps(n, out) for n, out in zip(levels.shape[-2:], size, strict=True)))


def _blend_two(levels: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    # Rounds after each axis as cv2's 16-bit arithmetic does.
    index, weight = rows
    levels = _apply_taps(levels, -1, *columns) >> 4
    weight = weight.to(levels.device)[:, :, None]
    index = index.to(levels.device)
    first, second = (levels.index_select(-2, index[:, tap]) * weight[:, tap] >> 16 for tap in (0, 1))
    return (first + second + 2) >> 2


def _area_linear_taps(length: int, out: int) -> tuple[Tensor, Tensor]:
    # Written as cv2 rounds: at exact multiples one ulp decides which neighbour is taken.
    inverse = out / length
    position = torch.arange(out, dtype=torch.float64)
    first = (position * (1 / inverse)).floor()
    share = (position + 1 - (first + 1) * inverse).float().clamp_(0).frac()
    index = torch.stack([first, first + 1], 1).long().clamp_(0, length - 1)
    return index, (torch.stack([1 - share, share], 1) * (1 << _CV_BITS)).round_().long()


def _resize_cv_lanczos4(levels: Tensor, size: Size) -> Tensor:
    for dim in (-1, -2):
        levels = _apply_taps(levels, dim, *_lanczos_taps(levels.shape[dim], size[dim]))
    bits = 2 * _CV_BITS
    return ((levels + (1 << (bits - 1))) >> bits).clamp_(0, 255)


def _lanczos_taps(length: int, out: int) -> tuple[Tensor, Tensor]:
    centre = ((torch.arange(out, dtype=torch.float64) + 0.5) * (1 / (out / length)) - 0.5).float()
    first = centre.floor()
    distance = ((centre - first) + 3)[:, None] - torch.arange(8)
    angle = distance.double() * (math.pi / 4)
    # sin(x) sin(4 x) / (4 x^2): the second sine is the same for every tap but for its sign, and falls out below.
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(4)
    weight = (sign * torch.sin(angle) / angle**2).float()
    weight = torch.where(distance.abs() < 1e-6, 1e30, weight)
    weight = weight * weight.sum(1, keepdim=True).reciprocal()
    index = (first[:, None] + torch.arange(-3, 5)).long().clamp_(0, length - 1)
    return index, (weight * (1 << _CV_BITS)).round_().long()


def _resize_cv_cubic(levels: Tensor, size: Size) -> Tensor:
    for dim in (-1, -2):
        levels = _apply_taps(levels, dim, *_cubic_taps(levels.shape[dim], size[dim]))
    return levels.round_().clamp_(0, 255)


def _cubic_taps(length: int, out: int) -> tuple[Tensor, Tensor]:
    # As cv2 5 does. Before, the weights were integers of few bits, which moves one value in 25 by one level.
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * (length / out) - 0.5
    first = centre.floor()
    near, a = centre - first, -0.75
    far, other = near + 1, 1 - near
    weight = [
        ((a * far - 5 * a) * far + 8 * a) * far - 4 * a,
        ((a + 2) * near - (a + 3)) * near * near + 1,
        ((a + 2) * other - (a + 3)) * other * other + 1,
    ]
    weight.append(1 - weight[0] - weight[1] - weight[2])
    return (first[:, None] + torch.arange(-1, 3)).long().clamp_(0, length - 1), torch.stack(weight, 1)


_PIL_BITS = 22


def _resize_pil(levels: Tensor, size: Size, how: str) -> Tensor:
    # PIL resizes 8-bit data in two passes with 22-bit integer weights, rounding after each pass. The width comes
    # first, except (measured on Pillow 13; older ones differ by one level there) where the height shrinks far more.
    less_height, less_width = levels.shape[-2] - size[0], levels.shape[-1] - size[1]
    for dim in (-2, -1) if less_height > max(0, 2 * less_width) else (-1, -2):
        if levels.shape[dim] == size[dim]:
            continue
        total = _apply_taps(levels, dim, *_pil_taps(levels.shape[dim], size[dim], how))
        levels = ((total + (1 << (_PIL_BITS - 1))) >> _PIL_BITS).clamp_(0, 255)
    return levels


def _pil_taps(length: int, out: int, how: str) -> tuple[Tensor, Tensor]:
    scale = length / out
    stretch = max(scale, 1.0)
    reach = stretch * (1 if how == "bilinear_pil" else 2)
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * scale
    first = (centre - reach + 0.5).to(torch.int64).clamp_(min=0)
    last = (centre + reach + 0.5).to(torch.int64).clamp_(max=length)
    offset = torch.arange(math.ceil(reach) * 2 + 1)
    index = first[:, None] + offset
    distance = ((index - centre[:, None] + 0.5) / stretch).abs()
    if how == "bilinear_pil":
        weight = (1 - distance).clamp_(0)
    else:
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((5 - distance) * distance - 8) * distance / 2 + 2
        weight = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    weight = weight * (index < last[:, None])
    weight = weight / weight.sum(1, keepdim=True) * (1 << _PIL_BITS)
    # Half away from zero.
    return index.clamp_(max=length - 1), (weight + torch.where(weight < 0, -0.5, 0.5)).trunc_().long()
