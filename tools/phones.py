"""The depth in photos of phones: HEIC, JPEG with a depth frame, Google's depth maps, stereo MPO, spatial photos."""

from __future__ import annotations

import base64
import binascii
import io
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FathomError, PictureError, SettingError
from ..signals import Depth
from ..signals.depth import depth_from_metres
from ..signals.exif import focal_length
from . import jpeg, xmp
from .heif_camera import Lens, StereoGroup, stereo_group
from .stereo import stereo_depth

log = logging.getLogger(__name__)

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
SUFFIXES = (*HEIC_SUFFIXES, ".jpg", ".jpeg", ".mpo")
READABLE = (
    "HEIC with depth (iPhone portrait, LiDAR), spatial HEIC, iPhone JPEG with depth, Google depth JPEG (Lens Blur, "
    "Dynamic Depth), stereo MPO"
)
_LARGEST = 512 << 20  # bytes of a file
_MOST_PIXELS = 1 << 28

# ITU-T H.265, annex G, depth representation information
_UNIFORM_INVERSE, _UNIFORM_DISPARITY, _UNIFORM_DISTANCE, _NONUNIFORM_DISPARITY = range(4)
_QUARTERS = {1: 0, 3: 2, 6: -1, 8: 1}  # turns anticlockwise that show a picture of this EXIF orientation upright


@dataclass(frozen=True, eq=False)
class PhonePhoto:
    """A photo with its depth. image: float32 (1,H,W,3) in 0..1. depth: of its own, usually smaller size. metadata: what
    the file says of the depth, as plain values for JSON."""

    image: Tensor
    depth: Depth
    metadata: dict[str, Any] = field(default_factory=dict)


def load_phone_depth(path: Path) -> PhonePhoto:
    """The photo and the depth map of a phone's or a stereo camera's file, upright; see READABLE for the kinds.

    The numbers are read as the file describes them: by Apple's XMP, the HEVC depth representation message, or Google's
    GDepth and Dynamic Depth. Depth whose accuracy is "absolute" or whose unit is metres is metric. All other is what it
    can be trusted for: disparity of two cameras ("relative") is affine_inverse even where its numbers look like
    1/metre; relative distance is affine_depth; a range without unit is scale_inverse; a file that describes nothing
    gives ordinal depth, taken as larger = closer. Two views (MPO, spatial HEIC) are matched, see tools.stereo: metric
    where the file tells focal length and baseline.

    Raises PictureError when the file is damaged or holds no depth (naming what it does hold), SettingError when
    pillow-heif is not installed.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise PictureError(f"{path.name} has {path.stat().st_size >> 20} MiB, more than any photo of a phone.")
        raw = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path.name} cannot be read: {error}.") from error
    if raw.startswith(b"\xff\xd8"):
        return _load_jpeg(raw, path.name)
    return _load_heic(raw, path.name)


# ---------------------------------------------------------------------------------------------- HEIC


def _load_heic(raw: bytes, name: str) -> PhonePhoto:
    try:
        import pillow_heif
    except ImportError as error:
        raise SettingError(
            "HEIC files need the package pillow-heif: pip install pillow-heif (or comfy-fathom[heic])."
        ) from error
    try:
        heif: Any = pillow_heif.open_heif(raw)
        maps = heif.info.get("depth_images") or []
        group = None if maps else stereo_group(raw)
        pair = _spatial(heif, group, name) if group is not None and len(heif) >= 2 else None
        photo = heif.to_pillow() if maps else None
        pixels = _levels(maps[0].to_pillow()) if maps else None
    except FathomError:
        raise
    except Exception as error:  # whatever the decoder says of damaged bytes
        raise PictureError(
            f"{name} cannot be read as HEIC, it is damaged or of another type: {error}. What can be read: {READABLE}."
        ) from error
    if pair is not None:
        return pair()
    if photo is None or pixels is None:
        raise PictureError(f"{name} holds no depth. It holds {_inventory(heif)}. Phones store depth in portrait mode.")
    bits = 8 if pixels.dtype == torch.uint8 else 16
    metadata = {**_apple(list(xmp.packets(raw))), **maps[0].info["metadata"], "depth_images": len(maps), "bits": bits}
    orientation = photo.info.get("original_orientation") or 1
    pixels = _upright(pixels, photo, orientation, name)
    return _photo(photo, pixels, metadata, orientation, name)


def _spatial(heif: Any, group: StereoGroup, name: str) -> Callable[[], PhonePhoto]:
    """What matches the two views of a spatial photo."""
    items = sorted((group.left, group.right))
    # Pictures come in the order of their numbers, as far as no other picture stands between them.
    left, right = (heif[items.index(item)].to_pillow() for item in (group.left, group.right))
    lens = group.lenses[0]
    focal = None if lens.focal_x is None else lens.focal_x * left.width
    metadata = {"stereo": "spatial photo", "focal": focal, "baseline": group.baseline}
    # Disparity at infinity is where the two axes point, each camera's own.
    offset = 0.0
    if focal is not None and None not in (lens.centre_x, group.lenses[1].centre_x):
        offset = ((group.lenses[1].centre_x or 0) - (lens.centre_x or 0)) * left.width
    return partial(_matched, left, right, metadata, focal, group.baseline, offset, name, lens)


def _matched(
    left: Any,
    right: Any,
    metadata: dict[str, Any],
    focal: float | None,
    baseline: float | None,
    offset: float,
    name: str,
    lens: Lens | None = None,
) -> PhonePhoto:
    """The left photo with the depth that its pair gives."""
    pictures = [_image(p) for p in (left, right)]
    report: list[str] = []
    depth = stereo_depth(*pictures, focal=focal, baseline=baseline, offset=offset, report=report)
    if focal is not None and lens is not None and lens.centre_x is not None and lens.centre_y is not None:
        x, y = lens.centre_x * left.width - 0.5, lens.centre_y * left.height - 0.5
        depth = replace(depth, principal=torch.tensor([[x, y]]))
    metadata |= {"kind": depth.kind, "size": [left.width, left.height], "report": report}
    return PhonePhoto(pictures[0], replace(depth, source=name), metadata)


# ---------------------------------------------------------------------------------------------- JPEG


def _load_jpeg(raw: bytes, name: str) -> PhonePhoto:
    from PIL import ImageOps

    try:
        photo = _decoded(raw)
        orientation = photo.getexif().get(0x0112) or 1
        found = jpeg.frames(raw)
        packets = jpeg.properties(raw)
        stereo = [f for f in found if f.kind == jpeg.DISPARITY]
        pair = _multi_picture(stereo, photo, name) if len(stereo) >= 2 else None
        metadata, pixels, sure = _google(packets, raw, name)
        if pixels is None and pair is None:
            metadata, pixels = _apple_frame(found, raw)
        before, photo = (photo.width, photo.height), ImageOps.exif_transpose(photo)
    except FathomError:
        raise
    except Exception as error:  # whatever the decoder says of damaged bytes
        raise PictureError(f"{name} cannot be read as JPEG, it is damaged: {error}.") from error
    if pair is not None:
        return pair()
    if pixels is None:
        raise PictureError(
            f"{name} holds no depth: it is a JPEG of {before[0]}x{before[1]} with {max(1, len(found))} "
            f"picture{'s' * (len(found) > 1)}. What can be read: {READABLE}."
        )
    turns = _QUARTERS.get(orientation, 0)
    height, width = pixels.shape
    if turns and (width > height) == (before[0] > before[1]):
        pixels = torch.rot90(pixels, turns)
        sure = None if sure is None else torch.rot90(sure, turns)
    else:
        orientation = 1
    return _photo(photo, pixels, metadata, orientation, name, sure)


def _decoded(raw: bytes) -> Any:
    from PIL import Image

    image = Image.open(io.BytesIO(raw), formats=("JPEG", "PNG"))
    if image.width * image.height > _MOST_PIXELS:
        raise PictureError(f"a picture of {image.width}x{image.height} is larger than any camera's.")
    image.load()
    return image


def _multi_picture(stereo: list[jpeg.Frame], photo: Any, name: str) -> Callable[[], PhonePhoto]:
    """What matches a stereo picture of several JPEG frames, the left one first (CIPA DC-007)."""
    if all(f.number for f in stereo):
        stereo = sorted(stereo, key=lambda f: f.number)
    left, right = (_decoded(f.data) for f in stereo[:2])
    focal = focal_length(photo)
    focal = focal and focal * math.hypot(left.width, left.height) / math.hypot(photo.width, photo.height)
    baseline = next((f.baseline for f in stereo if f.baseline), None)
    metadata = {"stereo": "multi-picture", "focal": focal, "baseline": baseline}
    # Such cameras shift their views so that some distance has no disparity, by an amount that they do not tell.
    return partial(_matched, left, right, metadata, focal, None, 0.0, name)


def _apple_frame(found: list[jpeg.Frame], raw: bytes) -> tuple[dict[str, Any], Tensor | None]:
    """The depth map that an iPhone stores as a further JPEG frame, described by that frame's XMP."""
    for frame in found[1:]:
        metadata = _apple(jpeg.properties(frame.data))
        if metadata:
            return {**metadata, "depth_images": 1, "bits": 8}, _levels(_decoded(frame.data))
    return {}, None


def _google(packets: list[xmp.Element], raw: bytes, name: str) -> tuple[dict[str, Any], Tensor | None, Tensor | None]:
    """Google's depth: what is told of it, its levels and its confidence; GDepth first, then Dynamic Depth."""
    metadata: dict[str, Any] = {}
    for prefix in ("GDepth", "DepthMap"):
        for key in ("Format", "Units", "MeasureType"):
            metadata[key] = _anywhere(packets, f"{prefix}:{key}")
        for key in ("Near", "Far"):
            metadata[key.lower()] = xmp.as_number(_anywhere(packets, f"{prefix}:{key}"))
        if prefix == "GDepth":
            data = _base64(_anywhere(packets, "GDepth:Data"), name)
            trust = _base64(_anywhere(packets, "GDepth:Confidence"), name)
        else:
            items = _items(packets, raw)
            data = _item(items, _anywhere(packets, "DepthMap:DepthURI"), ("Depth", "DepthMap"))
            trust = _item(items, _anywhere(packets, "DepthMap:ConfidenceURI"), ())
            metadata |= _imaging_model(packets)
        if data is not None and metadata["Format"]:
            pixels = _levels(_decoded(data))
            sure = None if trust is None else _levels(_decoded(trust))
            if sure is not None and sure.shape != pixels.shape:
                sure = None
            metadata = {key: value for key, value in metadata.items() if value is not None}
            return {**metadata, "google": prefix, "bits": 8 if pixels.dtype == torch.uint8 else 16}, pixels, sure
    return {}, None, None


def _anywhere(packets: list[xmp.Element], name: str) -> str | None:
    return next((value for packet in packets if (value := packet.find(name)) is not None), None)


def _base64(text: str | None, name: str) -> bytes | None:
    if not text:
        return None
    try:
        return base64.b64decode("".join(text.split()) + "=" * (-len("".join(text.split())) % 4))
    except (binascii.Error, ValueError) as error:
        raise PictureError(f"the depth in {name} is damaged: {error}.") from error


def _items(packets: list[xmp.Element], raw: bytes) -> list[tuple[str, str, bytes]]:
    """(semantic, URI, bytes) of what a Container appends to the main picture, in the file's order."""
    listed = [e for packet in packets for e in packet.every() if e.value("Item:Mime") is not None]
    # None is negative, so that all together are no longer than the file.
    lengths = [max(0, int(xmp.as_number(e.value("Item:Length")) or 0)) for e in listed]
    # Lengths are known of all but the main picture, which comes first: they count from the end.
    at = len(raw) - sum(lengths[1:])
    found = []
    for element, length in zip(listed[1:], lengths[1:], strict=True):
        if at >= 0 and length > 0:
            names = element.value("Item:Semantic") or "", element.value("Item:DataURI") or ""
            found.append((*names, raw[at : at + length]))
        at += length
    return found


def _item(items: list[tuple[str, str, bytes]], uri: str | None, semantics: tuple[str, ...]) -> bytes | None:
    return next((data for s, u, data in items if (uri and u == uri) or (not uri and s in semantics)), None)


def _imaging_model(packets: list[xmp.Element]) -> dict[str, Any]:
    """Dynamic Depth's lens, in pixels of its picture."""
    names = ("FocalLengthX", "FocalLengthY", "PrincipalPointX", "PrincipalPointY", "ImageWidth", "ImageHeight")
    found = {n: xmp.as_number(_anywhere(packets, f"ImagingModel:{n}")) for n in names}
    if not found["FocalLengthX"] or not found["ImageWidth"] or not found["ImageHeight"]:
        return {}
    fx, fy = found["FocalLengthX"], found["FocalLengthY"] or found["FocalLengthX"]
    metadata: dict[str, Any] = {"reference_width": found["ImageWidth"], "reference_height": found["ImageHeight"]}
    x, y = found["PrincipalPointX"], found["PrincipalPointY"]
    return {**metadata, "intrinsics": [fx, 0.0, 0.0, 0.0, fy, 0.0, x or 0.0, y or 0.0, 1.0]}


# ---------------------------------------------------------------------------------------------- what the numbers mean


def _photo(
    photo: Any, pixels: Tensor, metadata: dict[str, Any], orientation: int, name: str, sure: Tensor | None = None
) -> PhonePhoto:
    depth = _google_depth(pixels, metadata, name) if "google" in metadata else _described(pixels, metadata, name)
    focal, principal, how = _lens(metadata, photo, pixels, orientation)
    metadata |= {"kind": depth.kind, "size": [pixels.shape[1], pixels.shape[0]], "focal_from": how}
    metadata["focal"] = focal
    depth = replace(depth, focal=focal, principal=principal, source=name)
    if metadata.get("MeasureType", "").lower() == "opticray":
        depth = _along_axis(depth, name)
    if sure is not None:
        depth = replace(depth, confidence=sure[None].float() / (255 if sure.dtype == torch.uint8 else 65535))
    return PhonePhoto(_image(photo), depth, metadata)


def _image(photo: Any) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(photo.convert("RGB")))[None].float().div_(255)


def _levels(image: Any) -> Tensor:
    """The stored integers, (H,W) uint8 or int32."""
    import numpy as np

    array = np.asarray(image if image.mode.startswith("I") else image.convert("L"))
    return torch.from_numpy(array.astype(np.uint8 if array.dtype == np.uint8 else np.int32))


def _inventory(heif: Any) -> str:
    width, height = heif.size
    listed = [f"{len(heif)} picture{'s' * (len(heif) != 1)} (the main one {width}x{height})"]
    listed += [f"{kind} x{len(items)}" for kind, items in (heif.info.get("aux") or {}).items()]
    listed += [f"{len(heif.info.get('thumbnails') or [])} thumbnails"]
    return ", ".join(listed)


def _apple(packets: list[xmp.Element]) -> dict[str, Any]:
    """What Apple's XMP says of the depth map."""
    for packet in packets:
        if packet.find("apdi:AuxiliaryImageSubType"):
            continue  # a matte, which calls itself depth as well
        quantity = packet.find("apdi:AuxiliaryImageType")
        if quantity not in ("disparity", "depth"):
            continue
        metadata: dict[str, Any] = {"quantity": quantity}
        for name, key in (("FloatMinValue", "low"), ("FloatMaxValue", "high"), ("IntMinValue", "int_low"),
                          ("IntMaxValue", "int_high")):  # fmt: skip
            metadata[key] = packet.number(f"apdi:{name}")
        for name in ("Accuracy", "Quality", "Filtered"):
            metadata[name.lower()] = packet.find(f"depthData:{name}")
        metadata["reference_width"] = packet.number("depthData:IntrinsicMatrixReferenceWidth")
        metadata["reference_height"] = packet.number("depthData:IntrinsicMatrixReferenceHeight")
        metadata["intrinsics"] = packet.numbers("depthData:IntrinsicMatrix") or None
        return {key: value for key, value in metadata.items() if value is not None}
    return {}


def _upright(pixels: Tensor, photo: Any, orientation: int, name: str) -> Tensor:
    """The map turned as the photo is. The decoder turns both by the file's marks; some files mark the photo only."""
    height, width = pixels.shape
    if (width > height) == (photo.width > photo.height) or width == height or photo.width == photo.height:
        return pixels
    turns = {6: -1, 8: 1}.get(orientation)
    if turns is None:
        raise PictureError(
            f"the depth of {name} is {width}x{height} and its photo {photo.width}x{photo.height}, turned, and the file "
            "does not say which way. Open and save it on the phone once more."
        )
    return torch.rot90(pixels, turns)


def _described(pixels: Tensor, metadata: dict[str, Any], name: str) -> Depth:
    """The depth that the integers stand for, by Apple's XMP or the HEVC message, without focal length."""
    top = 255 if pixels.dtype == torch.uint8 else 65535
    share = (pixels.float() / top)[None]
    if "quantity" in metadata and {"low", "high"} <= set(metadata):
        low, high = metadata["low"], metadata["high"]
        span = metadata.get("int_high", top) - metadata.get("int_low", 0.0)
        if span <= 0:
            raise PictureError(f"{name} says that its depth has no range: {metadata}.")
        values = low + (pixels.float()[None] - metadata.get("int_low", 0.0)) / span * (high - low)
        absolute = metadata.get("accuracy") == "absolute"
        if metadata["quantity"] == "depth":
            return depth_from_metres(values) if absolute else Depth(-values, "affine_depth")
        return Depth(values.clamp_min(0), "metric") if absolute else Depth(values, "affine_inverse")
    kind = metadata.get("representation_type")
    if kind == _UNIFORM_DISTANCE:
        near, far = metadata.get("z_near", 0.0), metadata.get("z_far", 1.0)
        return Depth(-(near + share * (far - near)), "affine_depth")
    if kind in (_UNIFORM_INVERSE, _UNIFORM_DISPARITY):
        low, high = metadata.get("d_min"), metadata.get("d_max")
        if kind == _UNIFORM_INVERSE and metadata.get("z_near") and metadata.get("z_far"):
            low, high = 1 / metadata["z_far"], 1 / metadata["z_near"]
        scaled = share if low is None or high is None or low == high else low + share * (high - low)
        return Depth(scaled, "affine_inverse")
    if kind != _NONUNIFORM_DISPARITY:
        log.warning("%s does not say what its depth means: taken as order only, larger = closer", name)
    return Depth(share, "ordinal")


def _google_depth(pixels: Tensor, metadata: dict[str, Any], name: str) -> Depth:
    """Google's depth, whose level 0 is near: RangeInverse is linear in 1/distance, RangeLinear in distance.

    With a unit it is metric; without one near and far are right up to one factor.
    """
    top = 255 if pixels.dtype == torch.uint8 else 65535
    share = (pixels.double() / top)[None]
    near, far, shape = metadata.get("near"), metadata.get("far"), metadata["Format"].lower()
    if shape not in ("rangeinverse", "rangelinear"):
        raise PictureError(f"{name} has depth as {metadata['Format']!r}; RangeInverse and RangeLinear are understood.")
    if near is None or far is None or not 0 < near < far:
        kind = "affine_inverse" if shape == "rangeinverse" else "affine_depth"
        return Depth(1 - share.float(), kind)
    if shape == "rangeinverse":
        inverse = 1 / near - share * (1 / near - 1 / far)
    else:
        inverse = 1 / (near + share * (far - near))
    unit = {"m": 1.0, "meters": 1.0, "metres": 1.0, "mm": 1e-3}.get(metadata.get("Units", "").lower())
    if unit is None:
        if metadata.get("Units"):
            log.warning("%s gives its depth in %s, which is no length: taken up to a factor", name, metadata["Units"])
        return Depth(inverse.float(), "scale_inverse")
    return Depth((inverse / unit).float(), "metric")


def _along_axis(depth: Depth, name: str) -> Depth:
    """Depth along the optical axis of depth along each pixel's ray."""
    lens = depth.camera()
    if lens is None:
        log.warning("%s measures along rays and tells no focal length: taken as order only", name)
        return replace(depth, kind="ordinal")
    height, width = depth.values.shape[1:]
    x = (torch.arange(width) - lens[0, 2]) / lens[0, 0]
    y = (torch.arange(height)[:, None] - lens[0, 3]) / lens[0, 1]
    longer = (1 + x * x + y * y).sqrt()
    if depth.kind == "affine_depth":
        return replace(depth, values=depth.values / longer)
    return replace(depth, values=depth.values * longer)


def _lens(
    metadata: dict[str, Any], photo: Any, pixels: Tensor, orientation: int
) -> tuple[float | None, Tensor | None, str]:
    """Focal length and principal point in pixels of the upright depth map, and where they come from."""
    height, width = pixels.shape
    longest = max(height, width)
    matrix = metadata.get("intrinsics")
    wide, high = metadata.get("reference_width", 0), metadata.get("reference_height", 0)
    if matrix and len(matrix) == 9 and matrix[0] and max(wide, high):
        scale = longest / max(wide, high)
        centre = None
        if wide and high and matrix[6] and matrix[7] and abs(min(wide, high) * scale - min(height, width)) < 2:
            centre = _turned((matrix[6] + 0.5) * scale - 0.5, (matrix[7] + 0.5) * scale - 0.5, wide * scale,
                             high * scale, (width, height), orientation)  # fmt: skip
        return matrix[0] * scale, centre, "intrinsics"
    focal = focal_length(photo)
    if focal:
        return focal * math.hypot(height, width) / math.hypot(photo.width, photo.height), None, "35 mm equivalent"
    return None, None, ""


def _turned(x: float, y: float, wide: float, high: float, size: tuple[int, int], orientation: int) -> Tensor | None:
    """A place of the stored picture of wide x high in the upright one of `size`; None where the turn is not known."""
    stands = (size[0] > size[1]) == (wide > high)
    if orientation == 1:
        position = (x, y) if stands else None
    elif orientation == 3:
        position = (wide - 1 - x, high - 1 - y)
    elif orientation == 6:
        position = (high - 1 - y, x) if not stands else None
    elif orientation == 8:
        position = (y, wide - 1 - x) if not stands else None
    else:
        position = None
    return None if position is None else torch.tensor([position], dtype=torch.float32)
