"""The cameras of a spatial photo: which pictures of a HEIF file are the left and the right view, and their lenses.

ISO/IEC 23008-12: an entity group "ster" names the left and the right item; the item properties "cmin" and "cmex" hold
each camera's intrinsic matrix and its place in micrometres.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Lens:
    """Shares of the picture's width (focal_x, centre_x) and height; position: metres."""

    focal_x: float | None = None
    focal_y: float | None = None
    centre_x: float | None = None
    centre_y: float | None = None
    position: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class StereoGroup:
    """The items of a stereo pair and what the file tells of their cameras."""

    left: int
    right: int
    lenses: tuple[Lens, Lens]

    @property
    def baseline(self) -> float | None:
        """Metres between the cameras."""
        one, two = (lens.position for lens in self.lenses)
        distance = 0.0 if one is None or two is None else math.dist(one, two)
        return distance or None


def stereo_group(raw: bytes) -> StereoGroup | None:
    """The stereo pair of a HEIF file; None when it has none or its boxes cannot be read."""
    try:
        return _stereo_group(raw)
    except (struct.error, IndexError, ValueError):
        return None


def _stereo_group(raw: bytes) -> StereoGroup | None:
    meta = next((b for kind, b in _boxes(raw) if kind == b"meta"), None)
    if meta is None:
        return None
    inner = dict(_boxes(meta[4:]))
    pair = next((_entities(b) for kind, b in _boxes(inner.get(b"grpl", b"")) if kind == b"ster"), [])
    if len(pair) != 2:
        return None
    properties = dict(_boxes(inner.get(b"iprp", b"")))
    known = list(_boxes(properties.get(b"ipco", b"")))
    used = _associations(properties.get(b"ipma", b""))
    lenses = [_lens([known[i - 1] for i in used.get(item, []) if 0 < i <= len(known)]) for item in pair]
    return StereoGroup(pair[0], pair[1], (lenses[0], lenses[1]))


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        size = size or len(data) - at
        if size < head:
            return
        yield kind, data[at + head : at + size]
        at += size


def _entities(box: bytes) -> list[int]:
    (count,) = struct.unpack_from(">I", box, 8)
    return list(struct.unpack_from(f">{min(count, 16)}I", box, 12))


def _associations(box: bytes) -> dict[int, list[int]]:
    """Which properties, counted from 1, belong to each item."""
    if not box:
        return {}
    version, wide = box[0], box[3] & 1
    (count,) = struct.unpack_from(">I", box, 4)
    at, found = 8, {}
    for _ in range(count):
        (item,) = struct.unpack_from(">H" if version < 1 else ">I", box, at)
        at += 2 if version < 1 else 4
        number = box[at]
        at += 1
        marks = struct.unpack_from(f">{number}{'H' if wide else 'B'}", box, at)
        at += number * (2 if wide else 1)
        found[item] = [mark & (0x7FFF if wide else 0x7F) for mark in marks]
    return found


def _lens(boxes: list[tuple[bytes, bytes]]) -> Lens:
    focal_x = focal_y = centre_x = centre_y = position = None
    for kind, box in boxes:
        flags = int.from_bytes(box[1:4], "big")
        if kind == b"cmin":
            unit = 2.0 ** ((flags >> 8) & 0x1F)
            across, centre_x, centre_y = (n / unit for n in struct.unpack_from(">iii", box, 4))
            focal_x = across
            focal_y = struct.unpack_from(">i", box, 16)[0] / unit if flags & 1 else None
        elif kind == b"cmex":
            axes, at = [0.0, 0.0, 0.0], 4
            for axis in range(3):
                if flags & (1 << axis):
                    axes[axis] = struct.unpack_from(">i", box, at)[0] / 1e6
                    at += 4
            position = (axes[0], axes[1], axes[2])
    return Lens(focal_x, focal_y, centre_x, centre_y, position)
