"""From the bytes of a picture file to upright RGB: EXIF orientation, ICC profiles, CMYK, 16 bits, huge pictures."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from typing import Any

from ..errors import PictureError
from ..signals.opencv import opencv

# Half of what PNG and most cameras can hold; float work on it takes 16 GB.
MOST_PIXELS = 2**28

PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .tga .ppm .pgm .pnm .jp2 .j2k .avif .heic .heif "
    ".ico .psd .pcx .sgi .dds".split()
)

_log = logging.getLogger(__name__)


def decode(data: bytes, name: str) -> Any:
    """A picture file as what estimators take: a PIL image, or a float32 tensor (1,H,W,3) if it holds 16-bit colour.

    Upright by EXIF; colours moved to sRGB by an embedded ICC profile; CMYK and YCCK become RGB; of animated files and
    those with several pages the first picture. Raises PictureError naming `name` and what is wrong.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    _heif()
    if not data:
        raise PictureError(f"{name} is empty.")
    try:
        try:
            image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            # Pillow knows no TIFF of 16-bit colour.
            if data[:4] in (b"II*\0", b"MM\0*") and (wide := _sixteen(data)) is not None:
                return _tensor(wide, _tiff_orientation(data))
            raise
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise PictureError(
                    f"{name} has {image.width}x{image.height} pixels, more than {MOST_PIXELS // 2**20} megapixels: "
                    "cut it into pieces."
                )
            if _is_wide(image, data) and (wide := _sixteen(data)) is not None:
                return _tensor(wide, image.getexif().get(0x0112, 1))
            image.load()
            return _to_srgb(ImageOps.exif_transpose(image), image.info.get("icc_profile"), name)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"{name} is not a picture that Pillow can read.") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} is larger than Pillow's limit: annotate its folder instead.") from None
    except MemoryError:
        raise PictureError(f"{name} does not fit into memory.") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error) as error:
        raise PictureError(f"{name} cannot be read: {error}.") from None


def _heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _to_srgb(image: Any, profile: bytes | None, name: str) -> Any:
    """The picture with its colours in sRGB; unchanged without a profile, or with one that is sRGB itself."""
    from PIL import ImageCms

    if not profile or image.mode.startswith(("I", "F", "P")) or b"sRGB" in profile[:4096]:
        return image.convert("RGB") if image.mode == "CMYK" else image
    try:
        alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
        base = image.convert(image.mode[:-1]) if alpha else image
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        turned = ImageCms.profileToProfile(base, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        if turned is None:
            return image
        if alpha:
            turned.putalpha(alpha)
        return turned
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        _log.warning("%s: its ICC profile is left out: %s", name, error)
        return image.convert("RGB") if image.mode == "CMYK" else image


def _is_wide(image: Any, data: bytes) -> bool:
    """Whether it is 16-bit colour, of which Pillow keeps the upper 8 bits."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] in (2, 6)
    return image.format == "TIFF" and tuple(image.tag_v2.get(258, ()))[:3] == (16, 16, 16)


def _sixteen(data: bytes) -> Any:
    """16-bit colour as a numpy array (H,W,3) of uint16 RGB, None when it is something else."""
    import numpy as np

    cv2 = opencv("Reading 16-bit colour")
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if array is None or array.dtype != np.uint16 or array.ndim != 3 or array.shape[2] not in (3, 4):
        return None
    return array[..., [2, 1, 0, 3]] if array.shape[2] == 4 else array[..., ::-1]


def _tensor(array: Any, orientation: int) -> Any:
    import numpy as np
    import torch

    flipped = {2, 4, 5, 7}
    turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}  # quarter turns counter-clockwise
    array = np.rot90(array, turns.get(orientation, 0))
    if orientation in flipped:
        array = array[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32) / 65535))[None]


def _tiff_orientation(data: bytes) -> int:
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    for i in range(count):
        tag, _, _, value = struct.unpack_from(order + "HHIH", data, at + 2 + 12 * i)
        if tag == 0x0112:
            return value
    return 1
