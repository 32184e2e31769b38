"""Sizes: how large the network sees a picture, how large the result is, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from ..errors import SettingError
from .filters import Filter, Size, reflect_pad, resize

MAX_RESULT_PIXELS = 2**28
MAX_NETWORK_PIXELS = 2048 * 2048


def check_resolution(resolution: object) -> int:
    """`resolution` as an int of at least 0. Raises SettingError for anything else (bool, float, str ...)."""
    if isinstance(resolution, bool) or not isinstance(resolution, int):
        raise SettingError(
            f"resolution must be a whole number of pixels (0 = the picture's own size), got {resolution!r}."
        )
    if not 0 <= resolution <= 16384:
        raise SettingError(f"resolution must lie in 0..16384 (0 = the picture's own size), got {resolution}.")
    return resolution


def result_size(height: int, width: int, resolution: int) -> Size:
    """(height, width) of the result: the short side is `resolution`, the aspect is kept; 0 = the own size.

    Rounds half to even, as the ControlNet annotators do. Raises SettingError when the result would be larger
    than 2^28 pixels.
    """
    if resolution == 0:
        return height, width
    scale = resolution / min(height, width)
    size = round(height * scale), round(width * scale)
    if size[0] * size[1] > MAX_RESULT_PIXELS:
        raise SettingError(
            f"a {width}x{height} picture with a short side of {resolution} would become {size[1]}x{size[0]}, more than "
            f"{MAX_RESULT_PIXELS // 2**20} megapixels. Lower resolution, or set it to 0 for the picture's own size."
        )
    return size


def round_to(value: float, multiple: int, least: int = 0) -> int:
    """`value` rounded (half to even) to a multiple, then up to the next multiple if that is less than `least`."""
    rounded = round(value / multiple) * multiple
    if rounded < least:
        rounded = math.ceil(value / multiple) * multiple
    return max(rounded, multiple)


def bounded(height: float, width: float, multiple: int, most: int = MAX_NETWORK_PIXELS) -> tuple[float, float]:
    """(height, width) shrunk, aspect kept, until the network's area is at most `most` pixels.

    Attention grows with the square of the area: without a bound a long strip would ask for terabytes.
    """
    shrink = math.sqrt(most / (max(height, multiple) * max(width, multiple)))
    if shrink >= 1:
        return height, width
    height, width = height * shrink, width * shrink
    # A side cannot fall under one multiple, so the other one carries the rest.
    return min(height, most / multiple), min(width, most / multiple)


@dataclass(frozen=True)
class Fit:
    """How one picture size goes into a network and how its result comes back.

    source: (height, width) of the picture. network: what the network sees, without the padding `pad` (rows and
    columns added on each side of the picture, reflected, before resizing; counted in source pixels).
    way_in, way_out: filters.
    """

    source: Size
    network: Size
    way_in: Filter
    way_out: Filter
    pad: Size = (0, 0)

    def enter(self, pixels: Tensor) -> Tensor:
        """Pictures (B,3,H,W) in 0..1 as the network sees them, not yet normalised."""
        rows, columns = self.pad
        if rows or columns:
            pixels = reflect_pad(pixels, rows, columns)
        return resize(pixels, self.network, self.way_in)

    def leave(self, raw: Tensor, size: Size) -> Tensor:
        """A network result (B,C,h,w) at `size` (height, width), with the padding cut off."""
        rows, columns = self.pad
        if not (rows or columns):
            return resize(raw, size, self.way_out)
        height, width = self.source
        raw = resize(raw, (height + 2 * rows, width + 2 * columns), self.way_out)
        raw = raw[..., rows : rows + height, columns : columns + width]
        return resize(raw, size, self.way_out)
