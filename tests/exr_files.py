"""Small EXR files as the format's description says, of any channels and windows, not compressed, RLE, ZIPS or ZIP."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

Channels = dict[str, np.ndarray]
KINDS = {np.dtype("u4"): 0, np.dtype("f2"): 1, np.dtype("f4"): 2}
LINES = {0: 1, 1: 1, 2: 1, 3: 16}
Pack = Callable[[bytes], bytes]


def attribute(name: str, kind: str, data: bytes) -> bytes:
    """One attribute of a header."""
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<I", len(data)) + data


def header(
    channels: Channels, compression: int = 0, data: Any = None, display: Any = None, extra: bytes = b""
) -> bytes:
    """The header of one part. data, display: windows (left, top, right, bottom)."""
    height, width = next(iter(channels.values())).shape
    data = data or (0, 0, width - 1, height - 1)
    names = sorted(channels)
    listed = b"".join(n.encode() + b"\0" + struct.pack("<iiii", KINDS[channels[n].dtype], 0, 1, 1) for n in names)
    head = attribute("channels", "chlist", listed + b"\0")
    head += attribute("compression", "compression", bytes([compression]))
    head += attribute("dataWindow", "box2i", struct.pack("<4i", *data))
    head += attribute("displayWindow", "box2i", struct.pack("<4i", *(display or data)))
    head += attribute("lineOrder", "lineOrder", b"\0") + attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    head += attribute("screenWindowCenter", "v2f", bytes(8))
    return head + attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + extra + b"\0"


def chunks_of(
    channels: Channels, compression: int, top: int = 0, lead: bytes = b"", pack: Pack = zlib.compress
) -> list[bytes]:
    """The chunks of one part. lead: what stands before each, its part's number in a file of several."""
    height = next(iter(channels.values())).shape[0]
    lines, made = LINES[compression], []
    for row in range(0, height, lines):
        rows = range(row, min(height, row + lines))
        data = b"".join(channels[n][r].tobytes() for r in rows for n in sorted(channels))
        if compression:
            plain = np.frombuffer(data, np.uint8)
            mixed = np.concatenate([plain[::2], plain[1::2]]).astype(np.int16)
            mixed[1:] = (np.diff(mixed) + 128 + 256) % 256
            packed = pack(mixed.astype(np.uint8).tobytes())
            data = packed if len(packed) < len(data) else data
        made.append(lead + struct.pack("<iI", top + row, len(data)) + data)
    return made


def exr_file(
    channels: Channels,
    compression: int = 0,
    data: Any = None,
    display: Any = None,
    extra: bytes = b"",
    pack: Pack = zlib.compress,
) -> bytes:
    """A file of one part. pack: what compresses a block; RLE needs one of its own."""
    head = b"\x76\x2f\x31\x01" + struct.pack("<I", 2) + header(channels, compression, data, display, extra)
    return _assembled(head, [chunks_of(channels, compression, data[1] if data else 0, pack=pack)])


def exr_parts(parts: dict[str, Channels], compression: int = 0, view: str = "") -> bytes:
    """A file of several parts, by name. view: of the last part."""
    head, every = b"\x76\x2f\x31\x01" + struct.pack("<I", 2 | 0x1000), []
    for place, (name, channels) in enumerate(parts.items()):
        every.append(chunks_of(channels, compression, lead=struct.pack("<i", place)))
        extra = attribute("name", "string", name.encode()) + attribute("type", "string", b"scanlineimage")
        extra += attribute("chunkCount", "int", struct.pack("<i", len(every[-1])))
        if view and place == len(parts) - 1:
            extra += attribute("view", "string", view.encode())
        head += header(channels, compression, extra=extra)
    return _assembled(head + b"\0", every)


def _assembled(head: bytes, parts: list[list[bytes]]) -> bytes:
    at, table = len(head) + 8 * sum(len(p) for p in parts), b""
    for chunk in (c for p in parts for c in p):
        table += struct.pack("<Q", at)
        at += len(chunk)
    return head + table + b"".join(c for p in parts for c in p)
