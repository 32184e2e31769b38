"""The lens of a photo, as its file tells it."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

_DIAGONAL_35MM = math.hypot(36, 24)
_SUB, _FOCAL, _FOCAL_35MM = 0x8769, 0x920A, 0xA405
_WIDTH, _HEIGHT, _DENSITY, _UNIT = 0xA002, 0xA003, 0xA20E, 0xA210
_MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of the unit that the sensor's pixels are counted in
_SHARES = (0.1, 100.0)  # focal length over diagonal: a fisheye's to a telescope's
_CUT = 0.02  # by how much a photo's shape may differ from its sensor's


def focal_length(photo: Any) -> float | None:
    """The focal length in pixels of a PIL image, by EXIF: the 35 mm equivalent, else the lens's own and the density of
    the sensor's pixels. None for anything else than a PIL image, where the file does not tell, and for a photo of
    another shape than the one that was taken, which was cut since."""
    if not hasattr(photo, "getexif"):
        return None
    tags: Any = {}
    with suppress(Exception):  # a damaged record is none
        tags = photo.getexif().get_ifd(_SUB)
    size = math.hypot(photo.width, photo.height)
    wide, high = _number(tags.get(_WIDTH)), _number(tags.get(_HEIGHT))
    if wide and high:
        taken, seen = (max(side) / min(side) for side in ((wide, high), photo.size))
        if abs(taken / seen - 1) > _CUT + 1 / min(photo.size):
            return None
    share = _number(tags.get(_FOCAL_35MM)) / _DIAGONAL_35MM
    density = _number(tags.get(_DENSITY)) / _MILLIMETRES.get(int(_number(tags.get(_UNIT, 2))), math.inf)
    if not share and wide and high:
        share = _number(tags.get(_FOCAL)) * density / math.hypot(wide, high)
    return share * size if _SHARES[0] <= share <= _SHARES[1] else None


def _number(value: Any) -> float:
    """A positive number of EXIF, 0 where it is none."""
    with suppress(TypeError, ValueError, ZeroDivisionError):
        number = float(value)
        if 0 < number < math.inf:
            return number
    return 0.0
