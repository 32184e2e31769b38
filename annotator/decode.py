"""From the bytes of a picture file to upright RGB: EXIF orientation, colour profiles, CMYK, 16 bits, huge pictures."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from contextlib import suppress
from typing import Any

from ..errors import PictureError, SignalError
from ..signals.opencv import opencv
from .colour import Colours, adobe_rgb, by_tables, png_colours, png_is_hdr, profile_colours
from .pictures import in_unit_range

# Half of what PNG and most cameras can hold; float work on it takes 16 GB.
MOST_PIXELS = 2**28

PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .bmp .dib .gif .tif .tiff .tga .ppm .pgm .pnm .jp2 .j2k .avif .heic .heif "
    ".ico .psd .pcx .sgi .dds".split()
)

_log = logging.getLogger(__name__)


def decode(data: bytes, name: str) -> Any:
    """A picture file as what estimators take: a PIL image, or a float32 tensor (1,H,W,1|3|4) if it holds more than 8
    bits.

    Upright by EXIF; colours moved to sRGB by an embedded ICC profile, else by what PNG (cICP, gAMA, cHRM) or EXIF
    (Adobe RGB) say; CMYK, YCCK and Lab become RGB; of animated files and those with several pages the first picture.
    Raises PictureError naming `name` and what is wrong.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    from ..signals.tiff import is_tiff

    _heif()
    if not data:
        raise PictureError(f"{name} is empty.")
    try:
        try:
            image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            # Pillow knows no TIFF of 16-bit colour.
            if is_tiff(data):
                return _from_tiff(data, name)
            raise
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise PictureError(
                    f"{name} has {image.width}x{image.height} pixels, more than {MOST_PIXELS // 2**20} megapixels: "
                    "cut it into pieces."
                )
            if image.format == "TIFF" and _is_wide(image):
                return _from_tiff(data, name)
            image.load()
            turn = image.getexif().get(0x0112, 1)
            profile = image.info.get("icc_profile")
            if image.format == "PNG" and data[24] == 16 and data[25] in (2, 4, 6):
                # Pillow keeps the upper 8 bits of 16-bit colour.
                said = None if profile else _said(image, data, name)
                return _tensor(_wide_to_srgb(_sixteen_png(data), profile, said, name), turn)
            upright = ImageOps.exif_transpose(image)
            converted = _to_srgb(upright, profile, None if profile else _said(image, data, name), name)
            if isinstance(converted, Image.Image) and "exif" in upright.info:
                converted.info["exif"] = upright.info["exif"]  # which tells the lens
            return converted
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(f"{name} is not a picture that Pillow can read.") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name} is larger than Pillow's limit: annotate its folder instead.") from None
    except MemoryError:
        raise PictureError(f"{name} does not fit into memory.") from None
    except SignalError as error:
        raise PictureError(f"{name} cannot be read: {error}") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        TypeError,
        KeyError,
        AttributeError,
        NotImplementedError,
        RecursionError,
        ArithmeticError,
        struct.error,
        zlib.error,
    ) as error:
        raise PictureError(f"{name} cannot be read: {error}.") from None


def _heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


# ---------------------------------------------------------------------------------------------- 8 bits


def _said(image: Any, data: bytes, name: str) -> Colours | None:
    """The colours of a picture that carries no profile but says something else of them."""
    if image.format == "PNG":
        if png_is_hdr(data):
            _log.warning("%s is encoded for HDR displays: its colours are taken as those of a photo.", name)
        return png_colours(data)
    exif = image.getexif()
    # 2 is no standard, but written; the standard way is "uncalibrated" and the index R03.
    uses_adobe_rgb = exif.get_ifd(0x8769).get(0xA001) == 2 or str(_directory(exif, 0xA005).get(1, "")).startswith("R03")
    return adobe_rgb() if uses_adobe_rgb and image.mode in ("RGB", "RGBA") else None


def _directory(exif: Any, tag: int) -> dict[int, Any]:
    """A directory within EXIF's own; Pillow before 11.1 raises KeyError where there is none."""
    with suppress(KeyError):
        return exif.get_ifd(tag)
    return {}


def _to_srgb(image: Any, profile: bytes | None, said: Colours | None, name: str) -> Any:
    """The picture with its colours in sRGB; itself where they are."""
    from PIL import Image, ImageCms

    if image.mode in ("F", "I") or not (profile or said or image.mode in ("CMYK", "LAB")):
        return image
    if image.mode == "LAB":
        return _by_littlecms(image, ImageCms.createProfile("LAB"))
    if image.mode.startswith("I;16"):
        import numpy as np

        return _tensor(_wide_to_srgb(np.asarray(image).astype(np.uint16), profile, said, name), 1)
    colours = profile_colours(profile) if profile else said
    if image.mode == "P" or image.mode == "PA":
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    base = image.convert(image.mode[:-1]) if alpha else image
    if colours is not None and not colours.grey and base.mode == "L":
        base = base.convert("RGB")
    try:
        if colours is not None and (base.mode == "L") == colours.grey and base.mode in ("L", "RGB"):
            if colours.is_srgb():
                return image
            import numpy as np

            srgb = (colours.to_srgb(np.asarray(base)) * 255 + 0.5).astype(np.uint8)
            turned = Image.fromarray(srgb if srgb.shape[2] == 3 else srgb[..., 0])
        elif profile:
            turned = _by_littlecms(base, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        else:
            return image.convert("RGB") if image.mode == "CMYK" else image
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        _log.warning("%s: its ICC profile is left out: %s", name, error)
        return image.convert("RGB") if image.mode == "CMYK" else image
    if alpha:
        turned = turned.convert("RGB")
        turned.putalpha(alpha)
    return turned


def _by_littlecms(image: Any, source: Any) -> Any:
    from PIL import ImageCms

    turned = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    if turned is None:
        raise ValueError("LittleCMS gave nothing back")
    return turned


# ---------------------------------------------------------------------------------------------- more than 8 bits


def _is_wide(image: Any) -> bool:
    """Whether a TIFF that Pillow opens holds anything but whole numbers of up to 8 bits, of which it is sure."""
    return max(image.tag_v2.get(258, (1,))) > 8 or max(image.tag_v2.get(339, (1,))) > 1


def _from_tiff(data: bytes, name: str) -> Any:
    import numpy as np

    from ..signals.tiff import read_tiff

    try:
        page = read_tiff(data)
    except SignalError as error:
        # Without tifffile: OpenCV reads 16-bit colour rightly where it lies pixel by pixel.
        if "tifffile" not in str(error) or (wide := _sixteen(data)) is None:
            raise
        tags = _tiff_tags(data)
        return _tensor(_wide_to_srgb(wide, tags.get("profile"), None, name), tags.get("orientation", 1))
    if page.colour not in ("grey", "rgb"):
        raise PictureError(f"{name} is a TIFF of more than 8 bits whose colours are of kind {page.colour}, not RGB.")
    numbers = page.numbers if page.numbers.dtype in (np.uint8, np.uint16) else in_unit_range(page.numbers, name)
    if page.alpha is not None:
        numbers = numbers if numbers.ndim == 3 else numbers[..., None]
        alpha = page.alpha.astype(np.float32)[..., None]
        if numbers.dtype.kind == "u":
            numbers = numbers.astype(np.float32) / np.iinfo(numbers.dtype).max
        if page.premultiplied:
            numbers = np.clip(numbers / np.maximum(alpha, 1e-6), 0, 1)
        numbers = np.concatenate([numbers, alpha], -1)
    return _tensor(_wide_to_srgb(numbers, page.profile, None, name), page.orientation)


def _wide_to_srgb(numbers: Any, profile: bytes | None, said: Colours | None, name: str) -> Any:
    """Numbers (H,W) or (H,W,1|2|3|4), uint8, uint16 or floats, as float32 (H,W,1|3|4) sRGB in 0..1, alpha last."""
    import numpy as np
    from PIL import ImageCms

    numbers = numbers if numbers.ndim == 3 else numbers[..., None]
    top = np.iinfo(numbers.dtype).max if numbers.dtype.kind == "u" else 1
    alpha = numbers[..., -1:] if numbers.shape[2] in (2, 4) else None
    base = numbers[..., : numbers.shape[2] - (alpha is not None)]
    colours = profile_colours(profile) if profile else said
    if colours is not None and not colours.grey and base.shape[2] == 1:
        base = base.repeat(3, 2)
    srgb = None
    if colours is not None and colours.grey == (base.shape[2] == 1):
        srgb = None if colours.is_srgb() else colours.to_srgb(base)
    elif profile and colours is None:
        try:
            sixteen = (
                base if base.dtype == np.uint16 else np.rint(base * (65535 / top)).clip(0, 65535).astype(np.uint16)
            )
            srgb = by_tables(sixteen if sixteen.shape[2] == 3 else sixteen.repeat(3, 2), profile)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            _log.warning("%s: its ICC profile is left out: %s", name, error)
    if srgb is None:
        srgb = base.astype(np.float32) / top
    if alpha is None:
        return srgb
    srgb = srgb if srgb.shape[2] == 3 else srgb.repeat(3, 2)
    return np.concatenate([srgb, alpha.astype(np.float32) / top], -1)


def _sixteen_png(data: bytes) -> Any:
    from ..signals.foreign import deep_png

    return deep_png(data)


def _sixteen(data: bytes) -> Any:
    """16-bit colour as a numpy array (H,W,3) of uint16 RGB, None when it is something else."""
    import numpy as np

    if _tiff_tags(data).get("planes", 1) != 1:
        return None
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
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]


def _tiff_tags(data: bytes) -> dict[str, Any]:
    """Orientation, whether colours lie in planes (2), and the ICC profile of a TIFF's first picture."""
    from PIL import TiffImagePlugin

    tags: Any = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
    stream = io.BytesIO(data)
    stream.seek(tags.next)
    tags.load(stream)
    found = {"orientation": tags.get(0x0112, 1), "planes": tags.get(284, 1), "profile": tags.get(34675)}
    return {key: value for key, value in found.items() if value is not None}
