"""Depth in the files of other programs: their bare numbers, and what among them is no measurement.

Nothing here knows what the numbers mean: that the person says (inverse, metric or disparity, scale, unit). Read are
PNG, EXR, TIFF, PFM, PGM, npy and npz.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import FathomError, SettingError, SignalError
from . import exr
from .tiff import read_tiff

Reading = Literal["plain", "SUN RGB-D"]

SUFFIXES = (".png", ".exr", ".tif", ".tiff", ".pfm", ".pgm", ".npy", ".npz")
MOST_PIXELS = 2**28
FAR = 1e8
"""From here on a renderer's distance is its word for nothing there: 1e10 (Blender), 1e30 (Arnold), 3.4e38."""

_HALF_MAX = 65504.0
_DEPTHS = ("depth", "depths", "depth_map", "disparity", "disp", "inverse_depth", "z", "values")
_MASKS = ("valid", "mask", "valid_mask", "depth_mask")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Numbers:
    """What a file holds: values float32 (B,H,W) as they stand there; valid bool (B,H,W) or None = the file marks none;
    bits of one number; whole: whether it stores whole numbers; name: of the channel, array or page."""

    values: Tensor
    valid: Tensor | None
    bits: int
    whole: bool
    name: str = ""


def read_numbers(path: str | Path, channel: str = "", reading: Reading = "plain") -> Numbers:
    """The bare numbers of another program's depth file, by its suffix, one of SUFFIXES.

    channel: which of several: an EXR channel ("part/channel" where there are parts), an array of an npz, a page of a
    TIFF counted from 0; "" = the one that can be meant. reading: "SUN RGB-D" turns the bits of 16-bit numbers as that
    data set stores them, (v >> 3) | (v << 13). Transparent pixels, and what lies outside an EXR's data window, are
    not valid.

    Raises SignalError naming the file when it is damaged, too large, holds no depth or several; SettingError for a
    suffix, channel or reading that does not exist; FathomError when the file cannot be opened.
    """
    path = Path(path)
    read = _READERS.get(path.suffix.lower())
    if read is None and is_lzfse(path):
        raise SignalError(f"{path.name} {LZFSE}")
    if read is None:
        raise SettingError(f"{path.name}: the suffix must be one of {', '.join(SUFFIXES)}.")
    if reading not in ("plain", "SUN RGB-D"):
        raise SettingError(f"reading must be plain or SUN RGB-D, got {reading!r}.")
    try:
        found = read(path.read_bytes(), channel.strip())
    except FileNotFoundError:
        raise FathomError(f"there is no file {path}.") from None
    except SignalError as error:
        raise SignalError(f"{path.name}: {error}") from error
    except SettingError as error:
        raise SettingError(f"{path.name}: {error}") from error
    except MemoryError:
        raise SignalError(f"{path.name} does not fit into memory.") from None
    except OSError as error:
        if error.errno is not None:
            raise FathomError(f"{path} cannot be read: {error.strerror}.") from None
        raise SignalError(f"{path.name} is truncated or damaged: {error}.") from error
    except (ValueError, KeyError, IndexError, TypeError, EOFError, SyntaxError, RecursionError, ArithmeticError,
            RuntimeError, struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError) as error:  # fmt: skip
        raise SignalError(f"{path.name} is truncated, damaged or not a depth file: {str(error)[:200]}.") from error
    return _turned(found, path.name) if reading == "SUN RGB-D" else found


LZFSE = (
    "is compressed by Apple's LZFSE, as Record3D's own .depth and .conf files are, which Fathom does not read: let the "
    "app export EXR or PNG."
)


def is_lzfse(path: Path) -> bool:
    """Whether a file begins as Apple's LZFSE does (github.com/lzfse/lzfse, src/lzfse_internal.h)."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"bvx-", b"bvx1", b"bvx2", b"bvxn")
    except OSError:
        return False


def without_marks(numbers: Numbers, meaning: str, name: str) -> tuple[Tensor, Tensor]:
    """Values and validity (B,H,W) with the numbers that are no measurement taken out, each kind told in the log.

    meaning: "metric": 1e8 and more, infinity, and 65504 in floating point are infinitely far (valid); when no number
    is above 0 and some are below, the camera looks along -z and they are turned round; else negative ones, 0 and NaN
    are not valid. "disparity": NaN, infinity, 0, a single negative number, and a smallest one that stands a pixel or
    more apart from all others are not valid. "inverse": NaN and infinity are not valid.
    """
    values = numbers.values
    valid = torch.ones_like(values, dtype=torch.bool) if numbers.valid is None else numbers.valid.clone()
    valid &= ~values.isnan()
    if meaning == "metric":
        return _distances(values, valid, not numbers.whole, name)
    valid &= values.isfinite()
    if not numbers.whole:
        valid &= values.abs() < FAR
    if meaning == "disparity":
        valid = _matched(values, valid, name)
    return values, valid


# ---------------------------------------------------------------------------------------------- no measurement


def _distances(values: Tensor, valid: Tensor, floating: bool, name: str) -> tuple[Tensor, Tensor]:
    if floating:
        seen = values[valid]
        near = seen[seen.abs() < FAR]
        if near.numel() and float(near.amax()) <= 0 and float(near.amin()) < 0:
            _log.info("%s: every distance is negative: its camera looks along -z, so they are turned round.", name)
            # The renderer's word for nothing may keep either sign.
            values = torch.where(values.abs() >= FAR, values.abs(), -values)
        far = (values >= FAR) | (values == _HALF_MAX)
        count = int((far & valid & values.isfinite()).sum())
        if count:
            _log.info("%s: %d numbers of %g and more mean that nothing stands there.", name, count, min(FAR, _HALF_MAX))
        values = values.masked_fill(far, torch.inf)
    return values, valid & (values > 0)


def _matched(values: Tensor, valid: Tensor, name: str) -> Tensor:
    seen = values[valid]
    below = seen[seen < 0].unique()
    valid = valid & (values != 0) if len(below) < 2 else valid
    if len(below) == 1:
        return valid & (values > 0)
    kept = values[valid].unique()
    # A matcher's mark lies one whole pixel (16 in OpenCV's fixed point) or more below what it may find.
    if len(kept) > 16 and float(kept[0]) == round(float(kept[0])):
        steps = kept.diff()
        marks = values == kept[0]
        # Where it searches above 0 the mark could be a far wall, but matchers leave a whole border unmatched.
        border = kept[0] < 0 or bool((marks[..., 0].all(-1) | marks[..., -1].all(-1)).all())
        apart = float(steps[0]) >= max(0.99, 15.9 * float(steps[1:].amin()))
        if apart and border and float(marks.float().mean()) > 0.001:
            _log.info("%s: %g, the smallest number, stands apart from all others: no disparity.", name, kept[0])
            valid = valid & ~marks
    return valid


def _turned(numbers: Numbers, name: str) -> Numbers:
    if not numbers.whole or numbers.bits != 16:
        raise SettingError(f"{name}: the reading SUN RGB-D is for 16-bit whole numbers, this file has {numbers.bits}.")
    codes = numbers.values.int()
    return replace(numbers, values=(((codes >> 3) | (codes << 13)) & 0xFFFF).float())


def told_rotated(numbers: Numbers, name: str) -> None:
    """Warn when 16-bit distances look like SUN RGB-D's: every one a multiple of 8, and some beyond 8000."""
    if not numbers.whole or numbers.bits != 16:
        return
    values = numbers.values
    if float(values.amax()) > 8000 and bool((values % 8 == 0).all()) and len(values.unique()) > 16:
        _log.warning(
            "%s: every number is a multiple of 8, up to %d: SUN RGB-D stores its millimetres with rotated bits, and "
            "read plainly they are 8 times too far. Choose the reading SUN RGB-D if the file comes from there.",
            name,
            int(values.amax()),
        )


# ---------------------------------------------------------------------------------------------- formats


def _exr(data: bytes, channel: str) -> Numbers:
    plane, name, _ = exr.decode(data, channel)
    return Numbers(plane[None], ~plane.isnan()[None], 32, False, name)


def _png(data: bytes, channel: str) -> Numbers:
    _no_channel(channel, "PNG")
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 33:
        raise SignalError("it is not a PNG file.")
    if data.rfind(b"IEND\xaeB`\x82") < 0:
        raise SignalError("the PNG file is truncated.")
    width, height, bits, kind = struct.unpack_from(">IIBB", data, 16)
    _check_size("PNG", width, height)
    array = deep_png(data) if bits == 16 and kind != 0 else _plain_png(data)
    array = array.reshape(height, width, -1)
    colours = array.shape[2] - (array.shape[2] in (2, 4))
    alpha = torch.from_numpy(array[..., -1] > 0)[None] if array.shape[2] in (2, 4) else None
    grey = _grey(array[..., :colours], 255 if bits < 16 else 65535, "PNG")
    if alpha is not None and bool(alpha.all()):
        alpha = None
    if alpha is not None:
        _log.info("%d transparent pixels are not valid.", int((~alpha).sum()))
    plane = _tensor(grey)[None]
    if bits == 16 and bool(plane.any()) and bool((plane % 257 == 0).all()):
        _log.warning(
            "The 16-bit PNG was made from 8 bits: it holds %d levels only, so distances come in coarse steps.",
            len(plane.unique()),
        )
    return Numbers(plane, alpha, 8 if bits < 16 else 16, True)


def _plain_png(data: bytes) -> Any:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.mode.startswith("I"):
                return np.asarray(image).astype(np.uint16)
            alpha = "A" in image.getbands() or "transparency" in image.info
            return np.asarray(image.convert("LA" if alpha and image.mode in ("1", "L", "LA") else "RGBA" if alpha
                                            else "L" if image.mode in ("1", "L") else "RGB"))  # fmt: skip
    except Image.DecompressionBombError:
        raise SignalError("the PNG file is larger than Pillow's limit: cut it into pieces.") from None


def deep_png(data: bytes) -> Any:
    """A 16-bit PNG with colours or transparency, of which Pillow keeps the upper 8 bits: numpy uint16 (H,W,1..4).

    Raises SignalError when it is damaged. What is cut off must be found out before: FFmpeg fills it with black.
    """
    from av import Packet
    from av.codec import CodecContext
    from av.error import FFmpegError

    coder = CodecContext.create("png", "r")
    try:
        frames = [*coder.decode(Packet(data)), *coder.decode(None)]  # pyright: ignore[reportAttributeAccessIssue]
    except FFmpegError as error:
        raise SignalError(f"the PNG file is damaged: {error.strerror}.") from error
    channels = {"gray16be": 1, "ya16be": 2, "rgb48be": 3, "rgba64be": 4}.get(frames[0].format.name if frames else "", 0)
    if not channels:
        raise SignalError("the PNG file is damaged.")
    frame = frames[0]
    plane: Any = frame.planes[0]
    rows = np.frombuffer(plane, ">u2").reshape(frame.height, -1)[:, : frame.width * channels]
    return rows.reshape(frame.height, frame.width, channels).astype(np.uint16)


def _tiff(data: bytes, channel: str) -> Numbers:
    if channel and not channel.isdecimal():
        raise SettingError(f"the channel of a TIFF file is the number of its page, from 0, got {channel!r}.")
    page = read_tiff(data, int(channel) if channel and len(channel) < 9 else None)
    if page.pages > 1 and not channel:
        raise SignalError(
            f"the TIFF file has {page.pages} pages: choose one, 0 to {page.pages - 1}, with the input channel."
        )
    kind = page.numbers.dtype
    most = 1.0 if kind.kind == "f" else float(np.iinfo(kind).max)
    array = page.numbers if page.numbers.ndim == 3 else page.numbers[..., None]
    grey = _grey(array, most, "TIFF")
    seen = np.ones(grey.shape[:2], bool) if page.alpha is None else page.alpha > 0
    if page.nothing is not None:
        # GDAL writes the number in decimals that single precision does not hold.
        seen = seen & (grey.astype(np.float32) != np.float32(page.nothing))
    valid = None if bool(seen.all()) else torch.from_numpy(seen)[None]
    if (page.scale, page.offset) != (1.0, 0.0):
        if not (math.isfinite(page.scale) and page.scale and math.isfinite(page.offset)):
            raise SignalError(
                f"the TIFF file says by GDAL's tag that its numbers are to be multiplied by {page.scale:g} and "
                f"{page.offset:g} added, which gives no distance: remove the tag, or save the numbers as meant."
            )
        grey = grey.astype(np.float64) * page.scale + page.offset
        _log.warning("The TIFF file says what its numbers mean: times %g, plus %g.", page.scale, page.offset)
        return Numbers(_tensor(grey)[None], valid, 32, False, channel)
    return Numbers(_tensor(grey)[None], valid, kind.itemsize * 8, kind.kind in "ui", channel)


def _pfm(data: bytes, channel: str) -> Numbers:
    """http://netpbm.sourceforge.net/doc/pfm.html: rows from the bottom up; the sign of the scale is the byte order."""
    _no_channel(channel, "PFM")
    head = _header(
        data,
        rb"P([fF])",
        rb"(\d{1,9})",
        rb"(\d{1,9})",
        rb"([-+]?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30})(?:[eE][-+]?\d{1,3})?)",
    )
    if not head:
        raise SignalError("it does not begin as a PFM file does.")
    width, height, scale = int(head[2]), int(head[3]), float(head[4])
    colours = 3 if head[1] == b"F" else 1
    _check_size("PFM", width, height)
    start = _after(head, data, width * height * colours * 4, "PFM")
    array = np.frombuffer(data, "<f4" if scale < 0 else ">f4", width * height * colours, start)
    return Numbers(_tensor(_grey(array.reshape(height, width, colours)[::-1], 1.0, "PFM"))[None], None, 32, False)


def _header(data: bytes, *words: bytes) -> re.Match[bytes] | None:
    """The words that a file of the Netpbm family begins with, parted by white space and lines of comment."""
    return re.match(rb"(?:\s|#[^\n]*\n)+".join(words) + rb"\s", data[:4096])


def _after(head: re.Match[bytes], data: bytes, size: int, what: str) -> int:
    """Where the numbers begin. One white space parts them from the header: of two that a program on Windows wrote for
    one, the second is no number where the file's length says so."""
    left = len(data) - head.end()
    if left < size:
        raise SignalError(f"the {what} file is truncated.")
    return head.end() + (left == size + 1 and data[head.end() - 1 : head.end() + 1] == b"\r\n")


def _pgm(data: bytes, channel: str) -> Numbers:
    """http://netpbm.sourceforge.net/doc/pgm.html, the binary kind: 16-bit numbers have the upper byte first."""
    _no_channel(channel, "PGM")
    head = _header(data, rb"P5", rb"(\d{1,9})", rb"(\d{1,9})", rb"(\d{1,9})")
    if not head:
        if data[:2] == b"P2":
            raise SignalError("it is a text PGM (P2): save it as a binary one (P5).")
        raise SignalError("it does not begin as a binary PGM file does.")
    width, height, most = int(head[1]), int(head[2]), int(head[3])
    _check_size("PGM", width, height)
    if not 0 < most < 65536:
        raise SignalError(f"the PGM file tells {most} as its greatest number.")
    kind = np.dtype(">u2" if most > 255 else "u1")
    start = _after(head, data, width * height * kind.itemsize, "PGM")
    array = np.frombuffer(data, kind, width * height, start).reshape(height, width)
    return Numbers(_tensor(array)[None], None, kind.itemsize * 8, True)


def _npy(data: bytes, channel: str) -> Numbers:
    _no_channel(channel, "npy")
    shape, _, kind = _npy_header(io.BytesIO(data))
    _check_array("the array", shape, kind)
    if len(data) < int(np.prod(shape, dtype=np.int64)) * kind.itemsize:
        raise SignalError("the npy file is truncated.")
    return _batch(np.load(io.BytesIO(data), allow_pickle=False), None, "")


def _npz(data: bytes, channel: str) -> Numbers:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {i.filename.removesuffix(".npy"): i for i in archive.infolist() if i.filename.endswith(".npy")}
        if "fathom" in members:
            raise SettingError(
                'the npz file is one of Fathom, which says what it holds: choose the meaning "as saved".'
            )
        fitting = {}
        for name, info in members.items():
            if info.flag_bits & 1:
                raise SignalError("the npz file is encrypted.")
            with archive.open(info) as stream:
                shape, _, kind = _npy_header(stream)
            if kind.kind in "fiub" and len(shape) >= 2 and min(shape) > 1 or len(shape) > 2:
                fitting[name] = (shape, kind)
        picked = _pick(channel, fitting, list(members))
        masks = [n for n in _MASKS if n in fitting and n != picked and fitting[n][0] == fitting[picked][0]]
        arrays = [_member(archive, members[name], *fitting[name]) for name in (picked, *masks[:1])]
    return _batch(arrays[0], arrays[1] != 0 if masks else None, picked)


def _pick(channel: str, fitting: dict[str, Any], every: list[str]) -> str:
    if channel:
        if channel not in fitting:
            raise SignalError(f"the npz file has no picture {channel!r}: it holds {', '.join(every[:60])}.")
        return channel
    numeric = [n for n, (_, kind) in fitting.items() if kind.kind != "b" and n.casefold() not in _MASKS]
    named = [n for n in numeric if n.casefold() in _DEPTHS]
    for found in (numeric, named):
        if len(found) == 1:
            return found[0]
    if not numeric:
        raise SignalError(f"the npz file holds no picture of numbers: it holds {', '.join(every[:60]) or 'nothing'}.")
    raise SignalError(
        f"the npz file holds {len(numeric)} arrays that may be the depth: {', '.join((named or numeric)[:60])}. "
        "Choose one with the input channel."
    )


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shape: tuple[int, ...], kind: Any) -> Any:
    _check_array(info.filename, shape, kind)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if not size < info.file_size < size + 2**20:
        raise SignalError(f"{info.filename} in the npz file does not have the size that it tells.")
    if info.file_size > 2**26 and info.file_size > 256 * info.compress_size:
        raise SignalError(
            f"{info.filename} would unpack {info.compress_size} bytes to {info.file_size}: it is not a depth map."
        )
    with archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _npy_header(stream: Any) -> tuple[tuple[int, ...], bool, Any]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise SignalError(f"the array has the unknown layout {version[0]}.{version[1]}.")


_READERS: dict[str, Any] = {
    ".png": _png,
    ".exr": _exr,
    ".tif": _tiff,
    ".tiff": _tiff,
    ".pfm": _pfm,
    ".pgm": _pgm,
    ".npy": _npy,
    ".npz": _npz,
}


# ---------------------------------------------------------------------------------------------- helpers


def _batch(array: Any, mask: Any, name: str) -> Numbers:
    """An array (H,W), (H,W,1) or (B,H,W)."""
    kind = array.dtype
    if array.ndim == 3 and array.shape[2] == 1:
        array, mask = array[..., 0], None if mask is None else mask[..., 0]
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        at = 1 if array.shape[1] == 1 else 3
        array, mask = array.squeeze(at), None if mask is None else mask.squeeze(at)
    if array.ndim == 2:
        array, mask = array[None], None if mask is None else mask[None]
    elif array.ndim != 3 or array.shape[2] in (2, 3, 4):
        raise SignalError(f"a depth must be shaped (H,W) or (B,H,W), and the array is {tuple(array.shape)}.")
    valid = None if mask is None else torch.from_numpy(np.ascontiguousarray(mask))
    return Numbers(_tensor(array), valid, kind.itemsize * 8, kind.kind in "iu", name)


def _check_array(name: str, shape: tuple[int, ...], kind: Any) -> None:
    if kind.kind not in "fiub" or kind.itemsize > 16:
        raise SignalError(f"{name} holds {kind}, not plain numbers.")
    if any(n < 1 for n in shape):
        raise SignalError(f"{name} is empty: its shape is {shape}.")
    pixels = 1
    for n in shape:
        pixels *= n
    if pixels > MOST_PIXELS:
        raise SignalError(f"{name} says it is shaped {shape}, more than {MOST_PIXELS // 2**20} million numbers.")


def _check_size(kind: str, width: int, height: int) -> None:
    if not (width and height):
        raise SignalError(f"the {kind} file holds an empty picture.")
    if width * height > MOST_PIXELS:
        raise SignalError(
            f"the {kind} file says it is {width}x{height}, more than {MOST_PIXELS // 2**20} megapixels: it is damaged, "
            "or must be cut into pieces."
        )


def _grey(array: Any, most: float, kind: str) -> Any:
    """One plane of (H,W,C), whose colours must be equal."""
    if array.shape[2] == 1:
        return array[..., 0]
    if array.shape[2] == 3:
        first, second, third = (array[..., i].astype(np.float64) for i in range(3))
        with np.errstate(invalid="ignore"):
            spread = np.maximum(abs(first - second), abs(second - third))
        if not float(np.nanmax(spread, initial=0.0)) > 8 / 255 * most:
            return array[..., 0]
    raise SignalError(
        f"the {kind} file is coloured, so its grey is not its depth: a colour map cannot be turned back. Use the file "
        "with one channel."
    )


def _no_channel(channel: str, kind: str) -> None:
    if channel:
        raise SettingError(f"a {kind} file has no channels to choose from: leave channel empty, got {channel!r}.")


def _tensor(array: Any) -> Tensor:
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
