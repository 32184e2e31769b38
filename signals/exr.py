"""One float32 plane, or one colour picture, in an OpenEXR file, through PyAV, which ComfyUI ships.

FFmpeg's coder is exact for float32 in both directions (NaN and infinity included; PyAV 14.2 to 18) and reads every
common compression, but knows one grey channel only, called Y. So the channel's name is changed in the file's
header: to Z after writing, to Y before reading, where the other channels get a name that FFmpeg skips. Layout of
the header: https://openexr.com/en/latest/OpenEXRFileLayout.html
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from ..errors import SignalError

_MAGIC = b"\x76\x2f\x31\x01"
_DEPTH_NAMES = ("Z", "depth", "Y")


def encode(plane: Tensor, texts: Mapping[str, str]) -> bytes:
    """The file of `plane` float32 (H,W): one channel Z, float, ZIP; or of a colour (H,W,3): R, G, B. texts: string
    attributes of the header; the format cuts their names to 31 ASCII characters."""
    from av import VideoFrame
    from av.codec import CodecContext

    height, width = plane.shape[:2]
    # FFmpeg's planes of a colour are green, blue, red.
    kind, planes = ("grayf32le", [plane]) if plane.ndim == 2 else ("gbrpf32le", [plane[..., c] for c in (1, 2, 0)])
    coder = CodecContext.create("exr", "w")
    coder.width, coder.height, coder.pix_fmt, coder.time_base = width, height, kind, Fraction(1, 1)  # pyright: ignore[reportAttributeAccessIssue]
    coder.options = {"compression": "zip16", "format": "float"}
    frame = VideoFrame(width, height, kind)
    for into, values in zip(frame.planes, planes, strict=True):
        torch.frombuffer(into, dtype=torch.float32).view(height, -1)[:, :width] = values
    data = b"".join(bytes(p) for p in [*coder.encode(frame), *coder.encode(None)])  # pyright: ignore[reportAttributeAccessIssue]
    attributes, end = _attributes(data)
    name = attributes["channels"][1]
    extra = b"".join(_text_attribute(key, value) for key, value in texts.items())
    chunks = -(-height // 16)
    offsets = [o + len(extra) for o in struct.unpack_from(f"<{chunks}Q", data, end)]
    table = struct.pack(f"<{chunks}Q", *offsets)
    head = data[: end - 1] if plane.ndim == 3 else data[:name] + b"Z" + data[name + 1 : end - 1]
    return b"".join([head, extra, b"\0", table, data[end + len(table) :]])


def decode(data: bytes) -> tuple[Tensor, str, dict[str, str]]:
    """The depth channel float32 (H,W), its name in the file, and the header's string attributes.

    The channel is the one called Z (in any layer: "ViewLayer.Depth.Z"), else depth or Y, else the only one.
    Raises SignalError for data that is not EXR, is truncated, or has no such channel.
    """
    from av import Packet
    from av.codec import CodecContext
    from av.error import FFmpegError

    if data[:4] != _MAGIC:
        raise SignalError("it does not begin as an EXR file does.")
    try:
        attributes, end = _attributes(data)
        channels = _channels(data, attributes["channels"][1])
        _check_whole(data, attributes, end)
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise SignalError("the EXR file is truncated or damaged.") from error
    chosen = _choose([name for name, _ in channels])
    patched = bytearray(data)
    for name, last in channels:
        patched[last : last + 1] = b"Y" if name == chosen else b"#"
    coder = CodecContext.create("exr", "r")
    layer, _, last_part = chosen.rpartition(".")
    if len(last_part) > 1:
        # FFmpeg knows names of one letter: what stands before the last letter becomes the layer.
        raise SignalError(f"the EXR file calls its depth {chosen!r}; it must be called Z, or Z in a layer.")
    if layer:
        coder.options = {"layer": layer}
    try:
        frames = [*coder.decode(Packet(bytes(patched))), *coder.decode(None)]  # pyright: ignore[reportAttributeAccessIssue]
    except FFmpegError as error:
        raise SignalError(f"FFmpeg cannot read this kind of EXR file ({error.strerror}).") from error
    if not frames or not frames[0].format.name.startswith(("grayf32", "grayf16")):
        raise SignalError(f"the EXR channel {chosen} does not hold floating point numbers.")
    frame = frames[0]
    kind = torch.float32 if frame.format.name.startswith("grayf32") else torch.float16
    rows = torch.frombuffer(frame.planes[0], dtype=kind).view(frame.height, -1)
    return rows[:, : frame.width].float().clone(), chosen, _texts(data, attributes)


def decode_colour(data: bytes) -> tuple[Tensor, dict[str, str]]:
    """The picture (H,W,3) of an EXR file with channels R, G and B, float32, and the header's string attributes.

    Raises SignalError for data that is truncated or has no such channels.
    """
    from av import Packet
    from av.codec import CodecContext
    from av.error import FFmpegError

    try:
        attributes, end = _attributes(data)
        _check_whole(data, attributes, end)
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise SignalError("the EXR file is truncated or damaged.") from error
    coder = CodecContext.create("exr", "r")
    try:
        frames = [*coder.decode(Packet(data)), *coder.decode(None)]  # pyright: ignore[reportAttributeAccessIssue]
    except FFmpegError as error:
        raise SignalError(f"FFmpeg cannot read this kind of EXR file ({error.strerror}).") from error
    if not frames or frames[0].format.name != "gbrpf32le":
        raise SignalError("the EXR file has no channels R, G and B of 32-bit numbers.")
    frame = frames[0]
    rows = [torch.frombuffer(plane, dtype=torch.float32).view(frame.height, -1) for plane in frame.planes]
    planes = [rows[c][:, : frame.width] for c in (2, 0, 1)]  # FFmpeg's are green, blue, red
    return torch.stack(planes, -1), _texts(data, attributes)


def is_colour(data: bytes) -> bool:
    """Whether an EXR file has the channels R, G and B and no other."""
    try:
        attributes, _ = _attributes(data)
        return {name for name, _ in _channels(data, attributes["channels"][1])} == {"R", "G", "B"}
    except (KeyError, IndexError, ValueError, struct.error):
        return False


def _texts(data: bytes, attributes: dict[str, tuple[str, int, int]]) -> dict[str, str]:
    return {
        key: data[at : at + size].decode("utf-8", "replace")
        for key, (type_, at, size) in attributes.items()
        if type_ == "string"
    }


def _attributes(data: bytes) -> tuple[dict[str, tuple[str, int, int]], int]:
    """Every attribute of the header as name: (type, where its value begins, its size); and where the header ends."""
    found: dict[str, tuple[str, int, int]] = {}
    at = 8
    while data[at]:
        middle = data.index(0, at)
        end = data.index(0, middle + 1)
        (size,) = struct.unpack_from("<I", data, end + 1)
        found[data[at:middle].decode("latin-1")] = (data[middle + 1 : end].decode("latin-1"), end + 5, size)
        at = end + 5 + size
    return found, at + 1


def _channels(data: bytes, at: int) -> list[tuple[str, int]]:
    """Every channel's name and where the name's last letter stands."""
    found = []
    while data[at]:
        end = data.index(0, at)
        found.append((data[at:end].decode("latin-1"), end - 1))
        at = end + 17
    return found


def _choose(names: list[str]) -> str:
    for wanted in _DEPTH_NAMES:
        for name in names:
            if name.rpartition(".")[2].casefold() == wanted.casefold():
                return name
    if len(names) == 1:
        return names[0]
    raise SignalError(f"the EXR file has no depth channel: it holds {', '.join(names)}, and Z is wanted.")


def _check_whole(data: bytes, attributes: dict[str, tuple[str, int, int]], end: int) -> None:
    # FFmpeg fills what is missing with nothing and says so in its log only.
    if "tiles" in attributes:
        return
    left, top, right, bottom = struct.unpack_from("<4i", data, attributes["dataWindow"][1])
    if right < left or bottom < top:
        raise ValueError("empty window")
    lines = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256}[data[attributes["compression"][1]]]
    chunks = -(-(bottom - top + 1) // lines)
    for offset in struct.unpack_from(f"<{chunks}Q", data, end):
        (size,) = struct.unpack_from("<I", data, offset + 4)
        if offset + 8 + size > len(data):
            raise ValueError("truncated")


def _text_attribute(name: str, value: str) -> bytes:
    data = value.encode("utf-8")
    return name.encode("ascii", "replace")[:31] + b"\0string\0" + struct.pack("<I", len(data)) + data
