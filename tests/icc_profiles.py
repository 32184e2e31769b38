"""Small ICC profiles, and PNG files with chunks of any kind, for tests to write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

SRGB = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)]
WIDE = [(0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)]


def _fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)


def gamma(power: float) -> bytes:
    """A curve of one power."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(power * 256)) + b"\0\0"


def table(values: np.ndarray) -> bytes:
    """A curve of samples in 0..1."""
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + np.rint(values * 65535).astype(">u2").tobytes()


def parametric(kind: int, *numbers: float) -> bytes:
    """A curve of a formula."""
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _fixed(*numbers)


def profile(name: str, curve: bytes, primaries: Sequence[Sequence[float]] | None = None) -> bytes:
    """A profile of three equal curves and a matrix; of a grey curve without primaries."""
    text = name.encode() + b"\0"
    tags = [
        (b"desc", b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)),
        (b"cprt", b"text\0\0\0\0none\0"),
        (b"wtpt", b"XYZ \0\0\0\0" + _fixed(0.9642, 1.0, 0.8249)),
    ]
    if primaries is None:
        tags.append((b"kTRC", curve))
    for letter, xyz in zip(b"rgb", primaries or (), strict=False):
        tags.append((bytes([letter]) + b"XYZ", b"XYZ \0\0\0\0" + _fixed(*xyz)))
        tags.append((bytes([letter]) + b"TRC", curve))
    at, listed, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags:
        data += bytes(-len(data) % 4)
        listed += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    space = b"GRAY" if primaries is None else b"RGB "
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(0.9642, 1.0, 0.8249)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + listed + body


def png(array: np.ndarray, kind: int, chunks: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG whose numbers are just these, uint8 or uint16. kind: 0 grey, 2 colour, 4 and 6 with transparency."""
    height, width = array.shape[:2]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    bits = array.dtype.itemsize * 8
    rows = b"".join(b"\0" + r.astype(">u2" if bits == 16 else "u1").tobytes() for r in array)
    made = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    made += b"".join(chunk(*c) for c in chunks)
    return made + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def icc_chunk(data: bytes) -> tuple[bytes, bytes]:
    """The chunk of a profile."""
    return b"iCCP", b"p\0\0" + zlib.compress(data)
