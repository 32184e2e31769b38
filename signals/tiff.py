"""TIFF as it is: every layout and kind of number, through tifffile, or Pillow for what that reads rightly.

Pillow knows no 16-bit colour and no planes, OpenCV mixes planes up and both forget which end of grey is white, so the
tags decide. https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import SignalError

MOST_PIXELS = 2**28

_INSTALL = "pip install tifffile imagecodecs, or save the file anew."
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_GDAL_METADATA, _GDAL_NO_DATA = 42112, 42113


@dataclass(frozen=True)
class TiffPage:
    """One picture of a TIFF file.

    numbers: numpy (H,W) or (H,W,C) of the colour or grey alone, in the machine's byte order, larger = lighter for
    whole numbers. alpha: (H,W) in 0..1 or None. premultiplied: whether the colours are multiplied by it. colour:
    "grey", "rgb", or the number that the file names another kind by.
    pages: how many full-size pictures the file holds. profile: its ICC profile. orientation: of EXIF. nothing: the
    number that stands for no measurement; scale, offset: what is measured = number * scale + offset, NaN
    where the file names no number; all three of the first band, by GDAL's tags
    (https://gdal.org/en/stable/drivers/raster/gtiff.html).
    """

    numbers: Any
    alpha: Any
    premultiplied: bool
    colour: str
    pages: int
    profile: bytes | None
    orientation: int
    nothing: float | None = None
    scale: float = 1.0
    offset: float = 0.0


def is_tiff(data: bytes) -> bool:
    """Whether the bytes begin as TIFF or BigTIFF do."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(data: bytes, page: int | None = None) -> TiffPage:
    """Picture `page` of a TIFF file, counted from 0; None = the first of full size.

    Raises SignalError when it is damaged, larger than MOST_PIXELS, has no such page, or needs a library that is not
    there: the message names it.
    """
    from PIL import Image

    try:
        import tifffile
    except ImportError:
        tifffile = None
    # Before 2025.2 tifffile's own error is no ValueError.
    own = () if tifffile is None else (tifffile.TiffFileError,)
    try:
        return _by_pillow(data, page) if tifffile is None else _by_tifffile(tifffile, data, page)
    except SignalError:
        raise
    except MemoryError:
        raise SignalError("the TIFF file does not fit into memory.") from None
    except Image.DecompressionBombError:
        raise SignalError("the TIFF file is larger than Pillow's limit: cut it into pieces.") from None
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, ArithmeticError,
            AssertionError, EOFError, SyntaxError, struct.error, zlib.error, *own) as error:  # fmt: skip
        reason = str(error).strip() or type(error).__name__
        hint = f" It needs another library: {_INSTALL}" if "imagecodecs" in reason else ""
        raise SignalError(
            f"the TIFF file is truncated, damaged or of an unknown kind: {reason[:200]}.{hint}"
        ) from error


def _by_tifffile(tifffile: Any, data: bytes, page: int | None) -> TiffPage:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        full = [p for p in (file.pages[i] for i in range(min(len(file.pages), 10_000))) if not p.is_reduced] or [
            file.pages[0]
        ]
        chosen = _nth(full, page)
        _check_size(chosen.imagewidth, chosen.imagelength * max(1, chosen.imagedepth), chosen.samplesperpixel)
        if any(o + n > len(data) or n <= 0 for o, n in zip(chosen.dataoffsets, chosen.databytecounts, strict=True)):
            raise SignalError("the TIFF file is truncated: a piece of its picture is missing.")
        if not chosen.dataoffsets or chosen.dtype is None or chosen.imagedepth > 1:
            raise SignalError("the TIFF file holds no plain picture.")
        if int(chosen.photometric) in (3, 6, 8):  # palette, YCbCr, Lab: Pillow knows them
            return _by_pillow(data, page)
        numbers = chosen.asarray()
        samples = chosen.samplesperpixel
        if numbers.ndim == 3 and int(chosen.planarconfig) == 2:
            numbers = np.moveaxis(numbers, 0, -1)
        numbers = numbers.reshape(chosen.imagelength, chosen.imagewidth, samples)
        bits = chosen.bitspersample if isinstance(chosen.bitspersample, int) else chosen.bitspersample[0]
        icc, turn, *gdal = (chosen.tags.get(tag) for tag in (34675, 274, _GDAL_METADATA, _GDAL_NO_DATA))
        found = _page(
            numbers.astype(numbers.dtype.newbyteorder("=")),
            int(chosen.photometric),
            bits,
            [int(e) for e in chosen.extrasamples],
            len(full),
            bytes(icc.value) if icc is not None else None,
            int(turn.value) if turn is not None else 1,
        )
        return _as_gdal_says(found, *(tag.value if tag is not None else None for tag in gdal))


def _by_pillow(data: bytes, page: int | None) -> TiffPage:
    from PIL import Image, UnidentifiedImageError

    try:
        image: Any = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        raise SignalError(f"this kind of TIFF file needs the library tifffile: {_INSTALL}") from None
    with image:
        pages = getattr(image, "n_frames", 1)
        image.seek(0 if page is None else _nth(list(range(pages)), page))
        _check_size(image.width, image.height, len(image.getbands()))
        tags = image.tag_v2
        bits: tuple[int, ...] = tuple(tags.get(258, (1,)))
        photometric = int(tags.get(262, _BLACK_IS_ZERO))
        wide = max(bits) > 8
        if (wide and (len(bits) > 1 or int(tags.get(339, (1,))[0]) not in (1, 3))) or (
            int(tags.get(284, 1)) == 2 and len(bits) > 1 and wide
        ):
            raise SignalError(f"this kind of TIFF file needs the library tifffile: {_INSTALL}")
        image.load()
        profile, turn = image.info.get("icc_profile"), int(tags.get(274, 1))
        if not wide:
            # Pillow has turned white-is-zero, palettes and YCbCr already.
            alpha = "A" in image.getbands() or "transparency" in image.info
            grey = image.mode in ("1", "L", "LA")
            array = np.asarray(image.convert("LA" if grey and alpha else "L" if grey else "RGBA" if alpha else "RGB"))
            array = array.reshape(image.height, image.width, -1)
            return _page(array, _BLACK_IS_ZERO if grey else _RGB, 8, [2] if alpha else [], pages, profile, turn)
        array = np.asarray(image)
        if bits == (32,) and array.dtype == np.int32 and int(tags.get(339, (1,))[0]) == 1:
            array = array.view(np.uint32)
        array = array.astype(array.dtype.newbyteorder("="))
        found = _page(array[..., None], photometric, max(bits), [], pages, profile, turn)
        return _as_gdal_says(found, tags.get(_GDAL_METADATA), tags.get(_GDAL_NO_DATA))


def _as_gdal_says(page: TiffPage, metadata: Any, nothing: Any) -> TiffPage:
    measured = {"scale": 1.0, "offset": 0.0}
    for item, text in re.findall(r"<Item\s([^<>]{1,500})>([^<>]{0,100})<", str(metadata or "")[:100_000]):
        about = dict(re.findall(r'(\w+)="([^"]*)"', item))
        if about.get("role") in measured and about.get("sample", "0") == "0":
            number = _number(text)
            measured[about["role"]] = math.nan if number is None else number
    return replace(page, nothing=_number(nothing), **measured)


def _number(value: Any) -> float | None:
    try:
        return float(str(value).strip("\0 "))
    except ValueError:
        return None


def _page(
    numbers: Any, photometric: int, bits: int, extra: list[int], pages: int, profile: bytes | None, turn: int
) -> TiffPage:
    kind = numbers.dtype.kind
    if kind == "b":
        numbers, bits, kind = numbers.astype(np.uint8), 1, "u"
    if kind not in "uif":
        raise SignalError(f"the TIFF file holds {numbers.dtype} numbers.")
    alpha, premultiplied = None, extra[:1] == [1]
    count = numbers.shape[2] - len(extra)
    if count < 1:
        raise SignalError("the TIFF file has no channel beside its transparency.")
    if extra and extra[0] in (1, 2):
        alpha = numbers[..., count].astype(np.float32)
        if kind == "u":
            alpha /= 2**bits - 1
    numbers = numbers[..., :count]
    if kind == "u" and photometric == _WHITE_IS_ZERO:
        numbers = (2**bits - 1) - numbers
    if kind == "u" and bits not in (8, 16, 32, 64):
        # Numbers of 1, 2, 4, 10, 12 or 14 bits fill their own range.
        wide = np.uint8 if bits < 8 else np.uint16
        numbers = np.rint(numbers.astype(np.float64) * (np.iinfo(wide).max / (2**bits - 1))).astype(wide)
    colour = "grey" if photometric in (0, 1) or count == 1 else "rgb" if photometric == _RGB else str(photometric)
    return TiffPage(numbers[..., 0] if count == 1 else numbers, alpha, premultiplied, colour, pages, profile, turn)


def _nth(pages: list[Any], page: int | None) -> Any:
    if page is None:
        return pages[0]
    if not 0 <= page < len(pages):
        raise SignalError(f"the TIFF file has the pages 0 to {len(pages) - 1}, and {page} is asked for.")
    return pages[page]


def _check_size(width: int, height: int, samples: int) -> None:
    if width < 1 or height < 1 or samples < 1:
        raise SignalError("the TIFF file holds an empty picture.")
    if width * height > MOST_PIXELS or width * height * samples > 4 * MOST_PIXELS:
        raise SignalError(
            f"the TIFF file says it is {width}x{height}, more than {MOST_PIXELS // 2**20} megapixels: it is damaged, "
            "or must be cut into pieces."
        )
