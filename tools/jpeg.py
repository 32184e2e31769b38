"""What a JPEG file carries beside its picture: XMP of any length, and further pictures (MPF, CIPA DC-007)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from . import xmp

_STANDARD = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
_MPF = b"MPF\0"
DISPARITY = 0x020002  # type of the frames of a stereo picture
_ENTRIES, _NUMBER, _BASELINE = 0xB002, 0xB101, 0xB206  # the fields of an index that are read


@dataclass(frozen=True)
class Frame:
    """A further picture of the file. kind: its MP type. number: its place among the viewpoints, 1 = leftmost, or 0.
    baseline: metres between the viewpoints, or None."""

    data: bytes
    kind: int
    number: int = 0
    baseline: float | None = None


def segments(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(marker, place of the content, content) of each segment before the picture's data."""
    at = 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker in (0xD9, 0xDA):
            return
        length = struct.unpack_from(">H", raw, at + 2)[0]
        if length < 2:
            return
        yield marker, at + 4, raw[at + 4 : at + 2 + length]
        at += 2 + length


def properties(raw: bytes) -> list[xmp.Element]:
    """The XMP of a JPEG file: the packet, then what did not fit into it."""
    found: list[xmp.Element] = []
    parts: dict[bytes, list[tuple[int, bytes]]] = {}
    for marker, _, content in segments(raw):
        if marker != 0xE1:
            continue
        if content.startswith(_STANDARD):
            packet = xmp.parse(content[len(_STANDARD) :].strip(b"\0"))
            found += [] if packet is None else [packet]
        elif content.startswith(_EXTENDED) and len(content) >= len(_EXTENDED) + 40:
            name = content[len(_EXTENDED) : len(_EXTENDED) + 32]
            offset = struct.unpack_from(">I", content, len(_EXTENDED) + 36)[0]
            parts.setdefault(name, []).append((offset, content[len(_EXTENDED) + 40 :]))
    for pieces in parts.values():
        whole = xmp.parse(b"".join(piece for _, piece in sorted(pieces, key=lambda p: p[0])))
        found += [] if whole is None else [whole]
    return found


def frames(raw: bytes) -> list[Frame]:
    """All pictures of a file with several, the main one first; none when it does not say that it has several."""
    for marker, start, content in segments(raw):
        if marker == 0xE2 and content.startswith(_MPF):
            return _frames(raw, content[4:], start + 4)
    return []


def _frames(raw: bytes, index: bytes, base: int) -> list[Frame]:
    fields = _fields(index)
    entries = fields.get(_ENTRIES, b"")
    order = ">" if index[:2] == b"MM" else "<"
    found: list[Frame] = []
    left = len(raw)  # pictures of one file do not overlap, so together they are no longer than it
    for at in range(0, min(len(entries), 16 * 64) - 15, 16):
        attribute, size, offset = struct.unpack_from(order + "III", entries, at)
        start = base + offset if offset else 0
        data = raw[start : start + size]
        if not data.startswith(b"\xff\xd8"):
            continue
        left -= len(data)
        if left < 0:
            break
        number, baseline = _view(data)
        found.append(Frame(data, attribute & 0xFFFFFF, number, baseline))
    return found


def _view(data: bytes) -> tuple[int, float | None]:
    """The number of the viewpoint and the baseline in metres that a frame tells of itself."""
    for marker, _, content in segments(data):
        if marker == 0xE2 and content.startswith(_MPF):
            index = content[4:]
            fields = _fields(index)
            order = ">" if index[:2] == b"MM" else "<"
            number = fields.get(_NUMBER, b"")
            length = fields.get(_BASELINE, b"")
            top, bottom = struct.unpack(order + "II", length[:8]) if len(length) >= 8 else (0, 0)
            known = top and bottom and 0xFFFFFFFF not in (top, bottom)
            return (
                struct.unpack(order + "I", number[:4])[0] if len(number) >= 4 else 0,
                top / bottom if known else None,
            )
    return 0, None


def _fields(index: bytes) -> dict[int, bytes]:
    """The values of the fields of an MPF index that are read here, all its directories together."""
    if index[:4] not in (b"MM\0*", b"II*\0"):
        return {}
    order = ">" if index[:2] == b"MM" else "<"
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8}
    found: dict[int, bytes] = {}
    (at,) = struct.unpack_from(order + "I", index, 4) if len(index) >= 8 else (0,)
    for _ in range(2):  # the index, then what the frame tells of itself
        if not 8 <= at <= len(index) - 2:
            break
        (count,) = struct.unpack_from(order + "H", index, at)
        for entry in range(at + 2, min(at + 2 + 12 * count, len(index) - 11), 12):
            tag, kind, number = struct.unpack_from(order + "HHI", index, entry)
            size = sizes.get(kind, 1) * number
            start = entry + 8 if size <= 4 else struct.unpack_from(order + "I", index, entry + 8)[0]
            if tag in (_ENTRIES, _NUMBER, _BASELINE):
                found.setdefault(tag, index[start : start + size])
        end = at + 2 + 12 * count
        at = struct.unpack_from(order + "I", index, end)[0] if end + 4 <= len(index) else 0
    return found
