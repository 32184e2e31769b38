"""What the depth tools share: batches and sizes that fit together, colours, linear light."""

from __future__ import annotations

import logging
import operator
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..annotator import host
from ..errors import SettingError, SignalError
from ..signals import Depth

Colour = str | Sequence[float]

_log = logging.getLogger(__name__)


def together(**lengths: int) -> int:
    """The batch size of inputs used together: each must hold 1 picture, which serves all, or the same number.

    Raises SignalError naming the lengths that differ.
    """
    most = max(lengths.values())
    if any(n not in (1, most) for n in lengths.values()):
        listed = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in lengths.items())
        raise SignalError(f"the batches do not fit together: {listed}. Each must hold 1 picture or {most}.")
    return most


def nth(batch: Tensor, index: int) -> Tensor:
    """Picture `index` of a batch, still as a batch; a batch of one serves every index."""
    at = index if len(batch) > 1 else 0
    return batch[at : at + 1]


def nth_depth(depth: Depth, index: int) -> Depth:
    """The same for a Depth."""
    return depth[index if len(depth) > 1 else 0]


def match_depth(depth: Depth, like: Tensor) -> Depth:
    """`depth` at the height and width of the picture `like` (B,3,H,W), and on its device.

    Bilinear, antialiased when it shrinks; values that are not valid take no part. The camera follows.
    """
    height, width = like.shape[-2:]
    depth = depth.to(like.device)
    old_height, old_width = depth.values.shape[1:]
    if (old_height, old_width) == (height, width):
        return depth
    # A resized result is off by rounding at most; anything else is likely another picture.
    if abs(old_width * height - old_height * width) > 2 * max(height, width, old_height, old_width):
        _log.warning(
            "The depth is %dx%d and the picture %dx%d: their shapes differ, so the depth is stretched.",
            old_width, old_height, width, height,
        )  # fmt: skip
    sure = None if depth.confidence is None else _resize(depth.confidence, height, width)
    same = {**depth.lens_at(height, width), "confidence": sure}
    if depth.valid is None:
        return replace(depth, values=_resize(depth.values, height, width), **same)
    weight = _resize(depth.valid.float(), height, width)
    values = _resize(depth.values.masked_fill(~depth.valid, 0.0), height, width) / weight.clamp_min(1e-6)
    return replace(depth, values=values, valid=weight >= 0.5, **same)


def match_mask(mask: Tensor, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """A MASK (B,H,W) or (H,W) as float32 (B,height,width) in 0..1.

    A mask of another size is resized to the nearest pixel, so that a hard mask stays hard. Raises SignalError for
    another shape or values that are not finite.
    """
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3) or mask.numel() == 0:
        came = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise SignalError(f"a mask must be shaped (B,H,W), got {came}.")
    mask = (mask if mask.ndim == 3 else mask[None]).float().to(device or mask.device)
    if not bool(mask.isfinite().all()):
        raise SignalError("the mask holds NaN or infinite values.")
    if mask.shape[1:] != (height, width):
        mask = F.interpolate(mask[:, None], (height, width), mode="nearest-exact")[:, 0]
    return mask.clamp(0, 1)


def match_pixels(pixels: Tensor, like: Tensor) -> Tensor:
    """Pixels (B,C,H,W) at the size and on the device of `like`, bilinear, antialiased when they shrink."""
    pixels = pixels.to(like.device)
    size = like.shape[-2:]
    if pixels.shape[-2:] == size:
        return pixels
    return F.interpolate(pixels, size, mode="bilinear", antialias=True)


def each_picture(count: int, label: str) -> Iterator[int]:
    """0, 1, ... count-1, with progress where there are several; raises the host's interrupt when the user cancels."""
    if count == 1:
        host.check_interrupt()
        yield 0
        return
    with host.progress(count, label, "picture") as bar:
        for index in range(count):
            yield index
            bar.update()


def to_linear(pixels: Tensor) -> Tensor:
    """sRGB values in 0..1 as light (IEC 61966-2-1)."""
    return torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Tensor) -> Tensor:
    """Light in 0..1 as sRGB values; more is clamped."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(1e-9) ** (1 / 2.4) - 0.055)


def whole_levels(picture: Tensor) -> Any:
    """A picture in 0..1 as OpenCV takes it: uint8 array of the same shape, rounded."""
    return (picture.float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def colour(given: Colour) -> tuple[float, float, float]:
    """A colour as three sRGB values in 0..1, from "#rrggbb", "#rgb" or three numbers. Raises SettingError."""
    if isinstance(given, str):
        digits = given.strip().lstrip("#")
        if re.fullmatch(r"[0-9a-fA-F]{3}", digits):
            digits = "".join(2 * d for d in digits)
        if re.fullmatch(r"[0-9a-fA-F]{6}", digits):
            red, green, blue = bytes.fromhex(digits)
            return red / 255, green / 255, blue / 255
    else:
        with suppress(TypeError, ValueError, OverflowError):
            red, green, blue = (float(part) for part in given)
            if all(0 <= part <= 1 for part in (red, green, blue)):
                return red, green, blue
    raise SettingError(f'a colour must be written "#rrggbb" or be three numbers in 0..1, got {given!r:.200}.')


def check_range(name: str, value: float, least: float, most: float = float("inf")) -> None:
    """Raise SettingError unless `value` is a number in least..most."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        span = f"in {least:g}..{most:g}" if most != float("inf") else f"{least:g} or more"
        raise SettingError(f"{name} must be a number {span}, got {value!r}.")


def check_whole(name: str, value: int, least: int, most: int = 2**31 - 1) -> None:
    """Raise SettingError unless `value` is a whole number in least..most."""
    try:
        fits = not isinstance(value, bool) and least <= operator.index(value) <= most
    except TypeError:
        fits = False
    if not fits:
        span = f"in {least}..{most}" if most != 2**31 - 1 else f"from {least} on"
        raise SettingError(f"{name} must be a whole number {span}, got {value!r:.80}.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise SettingError unless `value` is one of `choices`."""
    if value not in choices:
        raise SettingError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def _resize(planes: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(planes[:, None], (height, width), mode="bilinear", antialias=True)[:, 0]
