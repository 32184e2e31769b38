"""One depth plane, or one colour picture, in an OpenEXR file.

Written: float32, ZIP, through PyAV, which ComfyUI ships. FFmpeg's coder is exact for float32 (NaN and infinity
included; PyAV 14.2 to 18) but knows one grey channel only, called Y, so the name is changed to Z in the header.

Read: scan lines that are not compressed, ZIPS or ZIP are unpacked here, each piece checked against the header, as not
every version of the library does. The rest by the library OpenEXR where it is installed (the extra `exr`): every
compression, part, tile and name. Without it FFmpeg reads RLE, PIZ, PXR24, B44 and tiles; what it would read wrong
(DWAA, DWAB, HTJ2K, several parts) is refused by name, and so is a block that comes back empty, for FFmpeg fills what it
cannot read with zeros and says so in its log only.

Layout of the file: https://openexr.com/en/latest/OpenEXRFileLayout.html
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SignalError

MOST_PIXELS = 2**28
"""The largest picture that is unpacked: 268 million pixels, 1 GiB of float32."""

_MAGIC = b"\x76\x2f\x31\x01"
_COMPRESSIONS = (
    *("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB"),
    *("HTJ2K256", "HTJ2K32", "LJ2K", "ZSTD"),
)
_LINES = {0: 1, 1: 1, 2: 1, 3: 16, 4: 32, 5: 16, 6: 32, 7: 32, 8: 32, 9: 256, 10: 256, 11: 32}
_FFMPEG = ("RLE", "PIZ", "PXR24", "B44", "B44A")
_TYPES: dict[int, Any] = {0: np.dtype("<u4"), 1: np.dtype("<f2"), 2: np.dtype("<f4")}
_MOST_BYTES = 2**33  # of all channels together, which the library unpacks at once
_INSTALL = 'The library OpenEXR reads it: pip install "OpenEXR>=3.3".'

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Channel:
    """One channel of a part: its name in the file, kind of number (numpy), and whether every pixel has one."""

    name: str
    kind: Any
    full: bool


@dataclass(frozen=True)
class Part:
    """One part's header. data, display: windows (left, top, right, bottom), inclusive. names_end: where the last letter
    of each channel's name stands. told_chunks: how many the header tells, 0 = not told. offsets: of its chunks."""

    name: str
    view: str
    channels: tuple[Channel, ...]
    compression: int
    data: Box
    display: Box
    tile: tuple[int, int] | None
    one_level: bool
    deep: bool
    texts: dict[str, str]
    views: tuple[str, ...]
    names_end: tuple[int, ...]
    told_chunks: int
    offsets: tuple[int, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the data window."""
        return self.data[3] - self.data[1] + 1, self.data[2] - self.data[0] + 1


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
    attributes, end = _attributes(data, 8)
    name = attributes["channels"][1]
    extra = b"".join(_text_attribute(key, value) for key, value in texts.items())
    chunks = -(-height // 16)
    offsets = [o + len(extra) for o in struct.unpack_from(f"<{chunks}Q", data, end)]
    table = struct.pack(f"<{chunks}Q", *offsets)
    head = data[: end - 1] if plane.ndim == 3 else data[:name] + b"Z" + data[name + 1 : end - 1]
    return b"".join([head, extra, b"\0", table, data[end + len(table) :]])


def decode(data: bytes, channel: str = "") -> tuple[Tensor, str, dict[str, str]]:
    """The depth channel float32 (H,W) of the display window, its name, and the header's string attributes.

    What the display window holds and the data window does not is NaN. channel: the name as the file has it, or
    "part/name"; "" = the depth, which is, the first that is there: Z; Depth.Z in any layer; another layer of depth
    (depth.Z, Depth.V, Pz, ZDepth.R, ...WorldDepth.R); the only channel; red, green and blue that are all equal. A Z
    with X and Y beside it is a vector.

    Raises SignalError for data that is not EXR, is truncated, deep, too large or of a kind that cannot be read here,
    and when no channel or more than one can be meant: the message lists them.
    """
    parts = headers(data)
    picked, at, grey = _choose(parts, channel)
    part = parts[picked]
    names = [c.name for c in part.channels]
    wanted = [at] if not grey else [names.index(n) for n in grey]
    planes = _planes(data, parts, picked, wanted)
    if grey and any(not np.array_equal(planes[0], other, equal_nan=True) for other in planes[1:]):
        raise SignalError(f"the EXR file has no depth channel: {_listed(parts)}. Choose one with the input channel.")
    shown = _in_display(planes[0], part)
    return torch.from_numpy(shown), part.channels[wanted[0]].name, parts[0].texts | part.texts


def decode_colour(data: bytes) -> tuple[Tensor, dict[str, str]]:
    """The picture (H,W,3) of the channels R, G and B of an EXR file, float32, and the header's string attributes.

    Raises SignalError for data that is truncated or has no such channels, and as `decode`.
    """
    parts = headers(data)
    names = [c.name for c in parts[0].channels]
    if not {"R", "G", "B"} <= set(names):
        raise SignalError(f"the EXR file has no channels R, G and B: {_listed(parts)}.")
    planes = _planes(data, parts, 0, [names.index(c) for c in "RGB"])
    return torch.from_numpy(np.stack([_in_display(p, parts[0]) for p in planes], -1)), parts[0].texts


def is_colour(data: bytes) -> bool:
    """Whether an EXR file has one part with the channels R, G and B and no other."""
    try:
        parts = headers(data)
    except SignalError:
        return False
    return len(parts) == 1 and {c.name for c in parts[0].channels} == {"R", "G", "B"}


def headers(data: bytes) -> list[Part]:
    """Every part of an EXR file, its sizes checked against the length of the file. Raises SignalError as `decode`."""
    if data[:4] != _MAGIC:
        raise SignalError("it does not begin as an EXR file does.")
    try:
        return _headers(data)
    except (KeyError, IndexError, ValueError, OverflowError, struct.error) as error:
        if isinstance(error, SignalError):
            raise
        raise SignalError("the EXR file is truncated or damaged.") from error


# ---------------------------------------------------------------------------------------------- header


def _headers(data: bytes) -> list[Part]:
    (flags,) = struct.unpack_from("<I", data, 4)
    several = bool(flags & 0x1000)
    parts, at = [], 8
    while not several or data[at]:
        attributes, at = _attributes(data, at)
        parts.append(_part(data, attributes, bool(flags & 0x200) and not several))
        if not several:
            break
        if len(parts) > 1000:
            raise ValueError("too many parts")
    at += several
    if not parts:
        raise ValueError("no part")
    done = []
    for part in parts:
        count = part.told_chunks if several else _chunks(part)
        if several and part.one_level and not part.deep and count != _chunks(part):
            raise ValueError("chunks")
        if at + 8 * count > len(data):
            raise ValueError("truncated")
        offsets = struct.unpack_from(f"<{count}Q", data, at)
        at += 8 * count
        done.append(replace(part, offsets=offsets))
    for part in done:
        _check_chunks(data, part, several)
    return done


def _attributes(data: bytes, at: int) -> tuple[dict[str, tuple[str, int, int]], int]:
    """Every attribute of the header as name: (type, where its value begins, its size); and where the header ends."""
    found: dict[str, tuple[str, int, int]] = {}
    while data[at]:
        middle = data.index(0, at)
        end = data.index(0, middle + 1)
        (size,) = struct.unpack_from("<I", data, end + 1)
        if end + 5 + size > len(data):
            raise ValueError("truncated")
        found[data[at:middle].decode("latin-1")] = (data[middle + 1 : end].decode("latin-1"), end + 5, size)
        at = end + 5 + size
    return found, at + 1


def _part(data: bytes, attributes: dict[str, tuple[str, int, int]], tiled: bool) -> Part:
    def text(name: str) -> str:
        _, at, size = attributes.get(name, ("", 0, 0))
        return data[at : at + size].decode("utf-8", "replace")

    def box(name: str) -> Box:
        left, top, right, bottom = struct.unpack_from("<4i", data, attributes[name][1])
        if right < left or bottom < top:
            raise ValueError("empty window")
        if _area((left, top, right, bottom)) > MOST_PIXELS:
            raise SignalError(
                f"the EXR file says it is {right - left + 1}x{bottom - top + 1}, more than {MOST_PIXELS // 2**20} "
                "megapixels: it is damaged, or must be cut into pieces."
            )
        return left, top, right, bottom

    channels, ends = _channels(data, *attributes["channels"][1:])
    shown, stored = box("displayWindow"), box("dataWindow")
    if _area(shown) > max(2**26, 16 * _area(stored)):
        raise SignalError(
            f"the EXR file says it shows {_area(shown) / 1e6:.0f} megapixels and holds {_area(stored) / 1e6:.2f}: it "
            "is damaged, or must be cut."
        )
    kind = text("type")
    deep = kind.startswith("deep") or "maxSamplesPerPixel" in attributes
    tile, one_level = None, True
    if "tiles" in attributes and (tiled or kind in ("tiledimage", "deeptile")):
        across, down, mode = struct.unpack_from("<IIB", data, attributes["tiles"][1])
        if not (0 < across < 2**20 and 0 < down < 2**20):
            raise ValueError("tile size")
        tile, one_level = (across, down), mode & 15 == 0
    return Part(
        text("name"),
        text("view"),
        channels,
        data[attributes["compression"][1]],
        stored,
        shown,
        tile,
        one_level,
        deep,
        {
            key: data[at : at + size].decode("utf-8", "replace")
            for key, (type_, at, size) in attributes.items()
            if type_ == "string"
        },
        _views(data, *attributes["multiView"][1:]) if attributes.get("multiView", ("",))[0] == "stringvector" else (),
        ends,
        struct.unpack_from("<I", data, attributes["chunkCount"][1])[0] if "chunkCount" in attributes else 0,
    )


def _area(box: Box) -> int:
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def _channels(data: bytes, at: int, size: int) -> tuple[tuple[Channel, ...], tuple[int, ...]]:
    """Every channel, and where the last letter of each one's name stands."""
    found, ends, stop = [], [], at + size
    while at < stop and data[at]:
        end = data.index(0, at)
        kind, _, across, down = struct.unpack_from("<iB3xii", data, end + 1)
        if kind not in _TYPES or across < 1 or down < 1:
            raise ValueError("channel")
        found.append(Channel(data[at:end].decode("utf-8", "replace"), _TYPES[kind], across == down == 1))
        ends.append(end - 1)
        at = end + 17
    if not found:
        raise SignalError("the EXR file has no channel.")
    return tuple(found), tuple(ends)


def _views(data: bytes, at: int, size: int) -> tuple[str, ...]:
    views, stop = [], at + size
    while at < stop:
        (length,) = struct.unpack_from("<i", data, at)
        if not 0 <= length <= stop - at - 4:
            raise ValueError("views")
        views.append(data[at + 4 : at + 4 + length].decode("utf-8", "replace"))
        at += 4 + length
    return tuple(views)


def _chunks(part: Part) -> int:
    """How many chunks the part has: of scan lines, or of tiles in the finest level alone."""
    height, width = part.size
    if part.tile:
        return -(-width // part.tile[0]) * -(-height // part.tile[1])
    return -(-height // _LINES.get(part.compression, 1))


def _check_chunks(data: bytes, part: Part, several: bool) -> None:
    # More levels of tiles lie in the table before other parts' offsets: OpenEXR checks those itself.
    if part.deep or not part.one_level or part.compression not in _LINES:
        return
    head = (8 if several and part.tile is None else 4 if part.tile is None else 16) + (
        4 if several and part.tile else 0
    )
    for offset in part.offsets:
        (size,) = struct.unpack_from("<i", data, offset + head)
        if size < 0 or offset + head + 4 + size > len(data):
            raise ValueError("truncated")


# ---------------------------------------------------------------------------------------------- which channel


def _choose(parts: list[Part], channel: str) -> tuple[int, int, tuple[str, ...]]:
    """The part and the channel that are the depth, and the names of a colour that must prove to be grey."""
    if channel.strip():
        return (*_named(parts, channel.strip()), ())
    ranked = [
        (_rank(parts, p, found.name), p, c)
        for p, part in enumerate(parts)
        for c, found in enumerate(part.channels)
        if found.full and not _is_vector(part, found.name)
    ]
    best = min((rank for rank, _, _ in ranked if rank), default=None)
    if best is not None:
        found = [(p, c) for rank, p, c in ranked if rank == best]
        if len(found) == 1:
            return (*found[0], ())
        raise SignalError(
            f"the EXR file has {len(found)} channels that may be its depth: "
            f"{', '.join(_label(parts, p, c) for p, c in found)}. Choose one with the input channel."
        )
    first = [c.name for c in parts[0].channels]
    colours = [n for n in first if n.rpartition(".")[2].upper() != "A"]
    if len(parts) == 1 and len(colours) == 1 and parts[0].channels[first.index(colours[0])].full:
        return 0, first.index(colours[0]), ()
    if len(parts) == 1 and sorted(colours) == ["B", "G", "R"]:
        return 0, first.index("R"), ("R", "G", "B")
    raise SignalError(f"the EXR file has no depth channel: {_listed(parts)}. Choose one with the input channel.")


def _rank(parts: list[Part], part: int, name: str) -> tuple[int, bool] | None:
    """How surely a channel is the depth, lower = more, a stereo file's further views last; None = not at all."""
    *layers, last = _in_layer(parts, part, name).casefold().split(".")
    views = [v.casefold() for v in parts[part].views]
    other_view = any(layer in views[1:] for layer in layers)
    layers = [layer for layer in layers if layer not in views]
    own = layers[-1] if layers else ""
    if last == "z":
        rank = {"": 0, "z": 0, "depth": 1 if len(layers) > 1 else 2}.get(own, 9 if "depth" in own else None)
    elif not layers:
        rank = {"depth": 3, "pz": 5}.get(last, 6 if _ends_in_zdepth(last) else None)
    elif own == "pz":
        rank = 5
    elif own == "depth" or _ends_in_zdepth(own):
        rank = {"v": 4, "r": 6, "y": 7}.get(last)
    else:
        rank = 8 if last == "r" and own.endswith("worlddepth") else None
    return None if rank is None else (rank, other_view)


def _ends_in_zdepth(name: str) -> bool:
    """zdepth, VRayZDepth, CGeometry_ZDepth, Z-Depth, Z Depth."""
    return re.sub("[^a-z]", "", name.casefold()).endswith("zdepth")


def _in_layer(parts: list[Part], part: int, name: str) -> str:
    """The name with its layer, which the parts of a file may carry in their own names instead."""
    at = parts[part]
    if len(parts) == 1 or "." in name:
        return name
    lead = at.name
    for joint in ("_", "."):
        lead = lead.removesuffix(joint + at.view) if at.view else lead
    return f"{lead}.{name}" if lead else name


def _is_vector(part: Part, name: str) -> bool:
    layer, _, last = name.casefold().rpartition(".")
    others = {
        c.name.casefold().rpartition(".")[2] for c in part.channels if c.name.casefold().rpartition(".")[0] == layer
    }
    return last[-1:] in ("x", "y", "z") and {last[:-1] + "x", last[:-1] + "y"} <= others


def _named(parts: list[Part], channel: str) -> tuple[int, int]:
    every = [(p, c, found.name) for p, part in enumerate(parts) for c, found in enumerate(part.channels)]
    for same in (lambda text: text, str.casefold):
        wanted = same(channel)
        hits = [(p, c) for p, c, name in every if wanted in (same(name), same(f"{parts[p].name}/{name}"))]
        if len(hits) == 1:
            p, c = hits[0]
            if not parts[p].channels[c].full:
                raise SignalError(f"the EXR channel {channel} does not have a number for every pixel.")
            return p, c
        if hits:
            raise SignalError(
                f"several parts of the EXR file have a channel {channel}: choose one of "
                f"{', '.join(_label(parts, p, c) for p, c in hits)}."
            )
    raise SignalError(f"the EXR file has no channel {channel!r}: {_listed(parts)}.")


def _label(parts: list[Part], part: int, channel: int) -> str:
    name = parts[part].channels[channel].name
    return f"{parts[part].name}/{name}" if len(parts) > 1 else name


def _listed(parts: list[Part]) -> str:
    names = [_label(parts, p, c) for p, part in enumerate(parts) for c in range(len(part.channels))]
    more = f" and {len(names) - 60} more" if len(names) > 60 else ""
    return f"it holds {', '.join(names[:60])}{more}"


# ---------------------------------------------------------------------------------------------- pixels


def _planes(data: bytes, parts: list[Part], picked: int, channels: list[int]) -> list[Any]:
    """Channels of a part as numpy float32 arrays the size of its data window."""
    part = parts[picked]
    if part.deep:
        raise SignalError(
            "it is a deep EXR file, which has many depths in one pixel: flatten it (in Nuke: DeepToImage)."
        )
    whole = sum(p.size[0] * p.size[1] * sum(c.kind.itemsize for c in p.channels) for p in parts)
    number = part.compression
    name = _COMPRESSIONS[number] if number < len(_COMPRESSIONS) else f"an unknown kind (number {number})"
    try:
        import OpenEXR
    except ImportError:
        OpenEXR = None
    if (
        part.tile is None
        and name in ("none", "ZIPS", "ZIP")
        and all(c.full for c in part.channels)
        and all(part.offsets)
    ):
        found = _by_lines(data, part, channels, len(parts) > 1)
    elif OpenEXR is not None:
        if whole > _MOST_BYTES:
            raise SignalError(f"the EXR file would take {whole / 2**30:.0f} GiB of memory: save its depth alone.")
        found = _by_library(OpenEXR, data, parts, picked, [part.channels[c].name for c in channels])
    elif len(parts) > 1:
        raise SignalError(f"the EXR file has {len(parts)} parts of compression {name}. {_INSTALL}")
    elif name not in (*_FFMPEG, "none", "ZIPS", "ZIP"):
        raise SignalError(f"the EXR file is compressed by {name}. {_INSTALL}")
    else:
        found = [_by_ffmpeg(data, part, c) for c in channels]
    return [np.ascontiguousarray(plane, dtype=np.float32) for plane in found]


def _by_library(OpenEXR: Any, data: bytes, parts: list[Part], picked: int, names: list[str]) -> list[Any]:
    import tempfile
    from pathlib import Path

    try:
        try:
            file = OpenEXR.File(io.BytesIO(data), separate_channels=True)
        except TypeError:  # before 3.5 it reads files only
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "picture.exr"
                path.write_bytes(data)
                file = OpenEXR.File(str(path), separate_channels=True)
        # It leaves a part out that it cannot read, and says so on the terminal only.
        if len(file.parts) != len(parts):
            raise SignalError("the EXR file is truncated or damaged: OpenEXR cannot read all of it.")
        found = [file.parts[picked].channels[name].pixels for name in names]
        if any(plane.shape != parts[picked].size for plane in found):
            raise SignalError("the EXR file is damaged: OpenEXR reads another size than it tells.")
        return found
    except SignalError:
        raise
    except MemoryError:
        raise SignalError("the EXR file does not fit into memory.") from None
    except Exception as error:
        # The library raises RuntimeError, ValueError and its own kinds for files it does not like.
        reason = str(error).strip() or type(error).__name__
        raise SignalError(f"the EXR file is damaged or of a kind that OpenEXR does not read: {reason}.") from error


def _by_lines(data: bytes, part: Part, channels: list[int], several: bool) -> list[Any]:
    """Scan lines that are not compressed, or by zlib over bytes that are split in two halves and differenced."""
    height, width = part.size
    lines = _LINES[part.compression]
    starts = np.cumsum([0, *(c.kind.itemsize * width for c in part.channels)])
    planes = [np.zeros((height, width), part.channels[c].kind) for c in channels]
    seen = np.zeros(height, bool)
    for offset in part.offsets:
        at = offset + 4 * several
        row, size = struct.unpack_from("<ii", data, at)
        row -= part.data[1]
        count = min(lines, height - row)
        if not 0 <= row < height or row % lines or seen[row]:
            raise SignalError("the EXR file is damaged: its rows do not fit together.")
        seen[row : row + count] = True
        block = _unpacked(data[at + 8 : at + 8 + size], count * int(starts[-1]))
        for plane, c in zip(planes, channels, strict=True):
            plane[row : row + count] = block.reshape(count, -1)[:, starts[c] : starts[c + 1]].copy().view(plane.dtype)
    if not seen.all():
        raise SignalError("the EXR file is damaged: rows are missing.")
    return planes


def _unpacked(packed: bytes, expected: int) -> Any:
    if len(packed) == expected:
        return np.frombuffer(packed, np.uint8)
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(packed, expected + 1) if len(packed) < expected else b""
    except zlib.error as error:
        raise SignalError(f"the EXR file is damaged: {error}.") from error
    if len(plain) != expected:
        raise SignalError("the EXR file is damaged: a piece of it does not fill the window that the header tells.")
    summed = np.frombuffer(plain, np.uint8).copy()
    summed[1:] -= 128
    summed = np.cumsum(summed, dtype=np.uint8)
    mixed = np.empty_like(summed)
    half = -(-expected // 2)
    mixed[::2], mixed[1::2] = summed[:half], summed[half:]
    return mixed


def _by_ffmpeg(data: bytes, part: Part, channel: int) -> Any:
    from av import Packet
    from av.codec import CodecContext
    from av.error import FFmpegError

    chosen = part.channels[channel]
    layer, _, last = chosen.name.rpartition(".")
    if len(last) > 1 or not chosen.full:
        # FFmpeg knows names of one letter: what stands before the last letter becomes the layer.
        raise SignalError(f"the EXR file calls its depth {chosen.name!r}. {_INSTALL}")
    if chosen.kind == np.dtype("<u4"):
        raise SignalError(f"the EXR channel {chosen.name} holds whole numbers. {_INSTALL}")
    patched = bytearray(data)
    for index, at in enumerate(part.names_end):
        patched[at : at + 1] = b"Y" if index == channel else b"#"
    coder = CodecContext.create("exr", "r")
    if layer:
        coder.options = {"layer": layer}
    try:
        frames = [*coder.decode(Packet(bytes(patched))), *coder.decode(None)]  # pyright: ignore[reportAttributeAccessIssue]
    except (FFmpegError, ValueError) as error:
        raise SignalError(f"FFmpeg cannot read this kind of EXR file ({error}). {_INSTALL}") from error
    if not frames or not frames[0].format.name.startswith(("grayf32", "grayf16")):
        raise SignalError(f"the EXR channel {chosen.name} does not hold floating point numbers.")
    frame = frames[0]
    kind = np.float32 if frame.format.name.startswith("grayf32") else np.float16
    plane: Any = frame.planes[0]
    rows = np.frombuffer(plane, kind).reshape(frame.height, -1)[:, : frame.width].astype(np.float32)
    height, width = part.size
    if rows.shape != (height, width):
        # FFmpeg gives the display window; what lies outside it is not needed.
        rows = _from_display(rows, part)
    _check_filled(rows, part)
    return rows


def _from_display(rows: Any, part: Part) -> Any:
    plane = np.zeros(part.size, np.float32)
    to, of = _overlap(part)
    if rows.shape != (part.display[3] - part.display[1] + 1, part.display[2] - part.display[0] + 1):
        raise SignalError(f"FFmpeg reads another size than the EXR file tells. {_INSTALL}")
    plane[of] = rows[to]
    return plane


def _check_filled(rows: Any, part: Part) -> None:
    height, width = part.size
    across, down = part.tile or (width, _LINES[part.compression])
    shown = _overlap(part)[1]
    top, bottom, left, right = shown[0].start, shown[0].stop, shown[1].start, shown[1].stop
    for row in range(top - top % down, bottom, down):
        for column in range(left - left % across, right, across):
            block = rows[max(row, top) : min(row + down, bottom), max(column, left) : min(column + across, right)]
            if not block.any():
                raise SignalError(
                    f"FFmpeg reads nothing in rows {row} to {min(row + down, height) - 1} of the EXR file, which it "
                    f"also does where it fails. {_INSTALL}"
                )


def _overlap(part: Part) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The pixels that both windows hold: where they lie in the display window, and where in the data window."""
    left, top = max(part.data[0], part.display[0]), max(part.data[1], part.display[1])
    right, bottom = min(part.data[2], part.display[2]), min(part.data[3], part.display[3])
    if right < left or bottom < top:
        raise SignalError("the EXR file's picture is empty: its data lie outside the window that is shown.")

    def within(box: Box) -> tuple[slice, slice]:
        return slice(top - box[1], bottom + 1 - box[1]), slice(left - box[0], right + 1 - box[0])

    return within(part.display), within(part.data)


def _in_display(plane: Any, part: Part) -> Any:
    if part.data == part.display:
        return plane
    to, of = _overlap(part)
    shown = np.full((part.display[3] - part.display[1] + 1, part.display[2] - part.display[0] + 1), np.nan, np.float32)
    shown[to] = plane[of]
    return shown


def _text_attribute(name: str, value: str) -> bytes:
    data = value.encode("utf-8")
    return name.encode("ascii", "replace")[:31] + b"\0string\0" + struct.pack("<I", len(data)) + data
