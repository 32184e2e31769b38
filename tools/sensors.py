"""Depth that was measured instead of estimated: phones, stereo pairs and depth cameras."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import PictureError, SettingError
from ..signals import Depth
from ..signals.depth import depth_from_metres
from ..signals.field import check_shape
from ..signals.opencv import opencv

log = logging.getLogger(__name__)

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
LAYOUTS = ("two pictures", "side by side, left first", "side by side, right first")

# ---------------------------------------------------------------------------------------------- phones

# ITU-T H.265, annex G, depth representation information
_UNIFORM_INVERSE, _UNIFORM_DISPARITY, _UNIFORM_DISTANCE, _NONUNIFORM_DISPARITY = range(4)
_DIAGONAL_35MM = math.hypot(36, 24)


@dataclass(frozen=True, eq=False)
class PhonePhoto:
    """A photo with its depth. image: float32 (1,H,W,3) in 0..1. depth: of its own, usually smaller size. told: what
    the file says of the depth, as plain values for JSON."""

    image: Tensor
    depth: Depth
    told: dict[str, Any]


def load_phone_depth(path: Path) -> PhonePhoto:
    """The photo and the depth map of a HEIC file (portrait or LiDAR), upright.

    The numbers are read as the file describes them, by Apple's XMP or else by the HEVC depth representation message.
    Depth whose accuracy is "absolute" is metric. All other is what it can be trusted for: disparity of two cameras
    ("relative") is affine_inverse even where its numbers look like 1/metre; relative distance is affine_depth;
    a file that describes nothing gives ordinal depth, taken as larger = closer.

    Raises PictureError when the file is damaged or holds no depth (naming what it does hold), SettingError when
    pillow-heif is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise SettingError(
            "HEIC files need the package pillow-heif: pip install pillow-heif (or comfy-fathom[heic])."
        ) from error
    try:
        raw = path.read_bytes()
        heif: Any = pillow_heif.open_heif(raw)
        maps = heif.info.get("depth_images") or []
        photo = heif.to_pillow() if maps else None
        pixels = _levels(maps[0].to_pillow()) if maps else None
    except (OSError, ValueError, EOFError, SyntaxError, RuntimeError) as error:
        raise PictureError(f"{path.name} cannot be read as HEIC, it is damaged or of another type: {error}.") from error
    if photo is None or pixels is None:
        raise PictureError(
            f"{path.name} holds no depth. It holds {_inventory(heif)}. Phones store depth in portrait mode."
        )
    bits = 8 if pixels.dtype == torch.uint8 else 16
    told = {**_xmp(raw), **maps[0].info["metadata"], "depth_images": len(maps), "bits": bits}
    pixels = _upright(pixels, photo, path.name)
    depth = _described(pixels, told, path.name)
    focal, how = _phone_focal(told, photo, pixels)
    told |= {"kind": depth.kind, "size": [pixels.shape[1], pixels.shape[0]], "focal": focal, "focal_from": how}
    depth = replace(depth, focal=focal, source=path.name)
    import numpy as np

    image = torch.from_numpy(np.array(photo.convert("RGB")))[None].float().div_(255)
    return PhonePhoto(image, depth, told)


def _levels(image: Any) -> Tensor:
    """The stored integers, (H,W) uint8 or int32."""
    import numpy as np

    array = np.asarray(image if image.mode.startswith("I") else image.convert("L"))
    return torch.from_numpy(array.astype(np.uint8 if array.dtype == np.uint8 else np.int32))


def _inventory(heif: Any) -> str:
    width, height = heif.size
    held = [f"{len(heif)} picture{'s' * (len(heif) != 1)} (the main one {width}x{height})"]
    held += [f"{kind} x{len(items)}" for kind, items in (heif.info.get("aux") or {}).items()]
    held += [f"{len(heif.info.get('thumbnails') or [])} thumbnails"]
    return ", ".join(held)


def _xmp(raw: bytes) -> dict[str, Any]:
    """What Apple's XMP says of the depth map. XMP packets are made to be found by scanning a file of any type."""
    for packet in re.findall(rb"<x:xmpmeta.*?</x:xmpmeta>", raw, re.DOTALL):
        text = packet.decode("utf-8", "replace")
        if _field(text, "apdi", "AuxiliaryImageSubType"):
            continue  # a matte, which calls itself depth as well
        quantity = _field(text, "apdi", "AuxiliaryImageType")
        if quantity not in ("disparity", "depth"):
            continue
        told: dict[str, Any] = {"quantity": quantity}
        for name, key in (("FloatMinValue", "low"), ("FloatMaxValue", "high"), ("IntMinValue", "int_low"),
                          ("IntMaxValue", "int_high")):
            told[key] = _number(_field(text, "apdi", name))
        for name in ("Accuracy", "Quality", "Filtered"):
            told[name.lower()] = _field(text, "depthData", name)
        told["reference_width"] = _number(_field(text, "depthData", "IntrinsicMatrixReferenceWidth"))
        told["reference_height"] = _number(_field(text, "depthData", "IntrinsicMatrixReferenceHeight"))
        matrix = re.search(r"<depthData:IntrinsicMatrix>(.*?)</depthData:IntrinsicMatrix>", text, re.DOTALL)
        told["intrinsics"] = [_number(n) for n in re.findall(r"<rdf:li>(.*?)</rdf:li>", matrix[1])] if matrix else None
        return {key: value for key, value in told.items() if value is not None}
    return {}


def _field(text: str, space: str, name: str) -> str | None:
    """A simple property of XMP, which may be written as an element or as an attribute."""
    found = re.search(rf'<{space}:{name}>([^<]*)<|\b{space}:{name}="([^"]*)"', text)
    return None if found is None else (found[1] if found[1] is not None else found[2]).strip()


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _upright(pixels: Tensor, photo: Any, name: str) -> Tensor:
    """The map turned as the photo is. The decoder turns both by the file's marks; some files mark the photo only."""
    height, width = pixels.shape
    if (width > height) == (photo.width > photo.height) or width == height or photo.width == photo.height:
        return pixels
    turns = {6: -1, 8: 1}.get(photo.info.get("original_orientation") or 1)
    if turns is None:
        raise PictureError(
            f"the depth of {name} is {width}x{height} and its photo {photo.width}x{photo.height}, turned, and the file "
            "does not say which way. Open and save it on the phone once more."
        )
    return torch.rot90(pixels, turns)


def _described(pixels: Tensor, told: dict[str, Any], name: str) -> Depth:
    """The depth that the integers stand for, without focal length."""
    top = 255 if pixels.dtype == torch.uint8 else 65535
    share = (pixels.float() / top)[None]
    if "quantity" in told and {"low", "high"} <= set(told):
        low, high = told["low"], told["high"]
        span = told.get("int_high", top) - told.get("int_low", 0.0)
        if span <= 0:
            raise PictureError(f"{name} says that its depth has no range: {told}.")
        values = low + (pixels.float()[None] - told.get("int_low", 0.0)) / span * (high - low)
        absolute = told.get("accuracy") == "absolute"
        if told["quantity"] == "depth":
            return depth_from_metres(values) if absolute else Depth(-values, "affine_depth")
        return Depth(values.clamp_min(0), "metric") if absolute else Depth(values, "affine_inverse")
    kind = told.get("representation_type")
    if kind == _UNIFORM_DISTANCE:
        near, far = told.get("z_near", 0.0), told.get("z_far", 1.0)
        return Depth(-(near + share * (far - near)), "affine_depth")
    if kind in (_UNIFORM_INVERSE, _UNIFORM_DISPARITY):
        low, high = told.get("d_min"), told.get("d_max")
        if kind == _UNIFORM_INVERSE and told.get("z_near") and told.get("z_far"):
            low, high = 1 / told["z_far"], 1 / told["z_near"]
        scaled = share if low is None or high is None or low == high else low + share * (high - low)
        return Depth(scaled, "affine_inverse")
    if kind != _NONUNIFORM_DISPARITY:
        log.warning("%s does not say what its depth means: taken as order only, larger = closer", name)
    return Depth(share, "ordinal")


def _phone_focal(told: dict[str, Any], photo: Any, pixels: Tensor) -> tuple[float | None, str]:
    """The focal length in pixels of the depth map, and where it comes from."""
    longest = max(pixels.shape)
    matrix, reference = told.get("intrinsics"), max(told.get("reference_width", 0), told.get("reference_height", 0))
    if matrix and len(matrix) == 9 and matrix[0] and reference:
        return matrix[0] * longest / reference, "intrinsics"
    equivalent = photo.getexif().get_ifd(0x8769).get(0xA405)  # FocalLengthIn35mmFilm
    if equivalent:
        return float(equivalent) / _DIAGONAL_35MM * math.hypot(*pixels.shape), "35 mm equivalent"
    return None, ""


# ---------------------------------------------------------------------------------------------- stereo


def split_pair(image: Tensor, right: Tensor | None, layout: str) -> tuple[Tensor, Tensor]:
    """The left and the right picture, float (B,h,w,C) each.

    layout: one of LAYOUTS; "side by side" cuts `image` in the middle, "right first" is the cross-eyed order. Raises
    SettingError for another layout or a missing picture, PictureError for an odd width.
    """
    if layout == LAYOUTS[0]:
        if right is None:
            raise SettingError("the right picture is missing: connect it, or choose a side by side layout.")
        return image, right
    if layout not in LAYOUTS:
        raise SettingError(f"the layout must be one of {'; '.join(LAYOUTS)}, got {layout!r}.")
    if right is not None:
        raise SettingError("a side by side picture holds both views: disconnect the right picture.")
    width = image.shape[2]
    if width % 2:
        raise PictureError(f"a side by side picture has an even width, got {width} pixels.")
    first, second = image[:, :, : width // 2], image[:, :, width // 2 :]
    return (first, second) if layout == LAYOUTS[1] else (second, first)


def stereo_depth(
    left: Tensor,
    right: Tensor,
    *,
    focal: float | None = None,
    baseline: float | None = None,
    max_disparity: int = 0,
    tick: Callable[[], Any] = lambda: None,
) -> Depth:
    """Depth of the left picture of a rectified pair, by semi-global matching (OpenCV's StereoSGBM).

    left, right: float (B,H,W,3) in 0..1, equal rows show equal points; a batch of 1 serves all. focal: pixels.
    baseline: metres between the cameras. With both the depth is metric, else affine_inverse with the disparity in
    pixels as values. max_disparity: pixels, 0 = an eighth of the width. tick: called after each pair.

    Each pixel is matched from both sides; where the two disagree by more than 1 pixel, and where nothing matches,
    valid is False. Raises PictureError when sizes differ or the pair is swapped, SettingError for a bad number.
    """
    check_shape("the left picture", left, 4, 3)
    check_shape("the right picture", right, 4, 3)
    if left.shape[1:] != right.shape[1:] or (len(left) != len(right) and 1 not in (len(left), len(right))):
        sizes = f"{tuple(left.shape)} and {tuple(right.shape)}"
        raise PictureError(f"the pictures of a pair must be equal in size, got {sizes}.")
    for name, number in (("focal", focal), ("baseline", baseline)):
        if number is not None and not 0 < number < math.inf:
            raise SettingError(f"{name} must be positive, got {number}.")
    width = left.shape[2]
    span = max_disparity or max(16, width // 8)
    if span < 1 or span >= width:
        raise SettingError(f"max_disparity must lie between 1 and the width, {width}, got {span}.")
    count = max(len(left), len(right))
    maps, valids = [], []
    for one, two in zip(left.expand(count, -1, -1, -1), right.expand(count, -1, -1, -1), strict=True):
        a, b = _bytes(one), _bytes(two)
        disparity, valid = _match(a, b, span)
        share = float(valid.float().mean())
        if share < 0.5:
            other = float(_match(b, a, span)[1].float().mean())
            if other > 2 * share and other > 0.3:
                raise PictureError(
                    f"the pair looks swapped: {share:.0%} of the pixels match as given, {other:.0%} the other way "
                    "round. Exchange left and right."
                )
        maps.append(disparity)
        valids.append(valid)
        tick()
    disparity, valid = torch.stack(maps).to(left.device), torch.stack(valids).to(left.device)
    disparity = disparity.masked_fill_(~valid, 0.0)
    if focal is None or baseline is None:
        return Depth(disparity, "affine_inverse", valid, focal, "stereo")
    return Depth(disparity / (focal * baseline), "metric", valid, focal, "stereo")


def _bytes(picture: Tensor) -> Any:
    # The matcher takes 8-bit pictures only.
    return picture.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def _match(left: Any, right: Any, span: int) -> tuple[Tensor, Tensor]:
    """Disparity (H,W) float32 of the left picture, and where both directions agree."""
    import numpy as np

    cv2 = opencv("Stereo depth")
    block, channels = 5, 3
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=-(-span // 16) * 16,
        blockSize=block,
        P1=8 * channels * block**2,
        P2=32 * channels * block**2,
        uniquenessRatio=5,
        speckleWindowSize=100,
        speckleRange=2,
    )

    def run(a: Any, b: Any) -> Tensor:
        return torch.from_numpy(matcher.compute(a, b).astype(np.float32) / 16)

    there = run(left, right)
    # A mirrored pair with its sides exchanged is a pair again: its left picture is the mirrored right one.
    flipped = [np.ascontiguousarray(p[:, ::-1]) for p in (right, left)]
    back = run(*flipped).flip(1)
    columns = torch.arange(there.shape[1])
    landing = (columns - there.round()).long()
    known = (there >= 0) & (landing >= 0)
    seen_back = back.gather(1, landing.clamp(0, there.shape[1] - 1))
    return there, known & (seen_back >= 0) & ((there - seen_back).abs() <= 1)


# ---------------------------------------------------------------------------------------------- depth cameras


def load_rgbd(
    path: Path,
    *,
    units_per_metre: float = 1000.0,
    max_range: float | None = None,
    focal: float | None = None,
    fill: int = 0,
) -> tuple[Depth, Tensor]:
    """The depth in a 16-bit PNG of a depth camera (RealSense, Kinect, TUM: 5000 units), and what was filled in.

    Value 0 is no measurement. units_per_metre: 1000 for millimetres. max_range: metres beyond which nothing is
    believed. focal: pixels. fill: a pixel without measurement at most this many pixels from one is filled in from
    its surroundings (OpenCV's inpaint on inverse distance) and stays within what was measured; 0 = none.

    Returns the metric Depth, filled pixels valid, and float32 (1,H,W), 1 where a value was filled in. Raises
    PictureError for a damaged file or one that is not 16-bit grey, SettingError for a number outside its range.
    """
    if not 0 < units_per_metre < math.inf:
        raise SettingError(f"units_per_metre must be positive, got {units_per_metre}.")
    if max_range is not None and not max_range > 0:
        raise SettingError(f"max_range must be positive metres, got {max_range}.")
    if fill < 0:
        raise SettingError(f"fill must be at least 0 pixels, got {fill}.")
    metres = _read_png16(path) / units_per_metre
    if max_range is not None:
        metres = metres.masked_fill(metres > max_range, 0.0)
    depth = depth_from_metres(metres, focal=focal, source=path.name)
    if depth.valid is None or not fill or not bool(depth.valid.any()):
        return depth, torch.zeros_like(depth.values)
    cv2 = opencv("Filling holes of a depth camera")
    hole = (~depth.valid[0]).numpy().astype("uint8")
    # The other method, Telea's, is wrong by whole ranges on float pictures.
    filled = cv2.inpaint(depth.values[0].numpy(), hole, 3, cv2.INPAINT_NS)
    measured = depth.values[depth.valid]
    filled = filled.clip(float(measured.min()), float(measured.max()))
    reach = torch.from_numpy(cv2.distanceTransform(hole, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))[None]
    invented = (reach > 0) & (reach <= fill)
    values = torch.where(invented, torch.from_numpy(filled)[None], depth.values)
    valid = depth.valid | invented
    return Depth(values, "metric", None if bool(valid.all()) else valid, focal, path.name, depth.look), invented.float()


def _read_png16(path: Path) -> Tensor:
    """float32 (1,H,W) of the integers in a 16-bit grey PNG."""
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            if not image.mode.startswith("I"):
                bits = {"L": "8-bit grey", "P": "8-bit palette", "RGB": "8-bit colour", "RGBA": "8-bit colour"}
                raise PictureError(
                    f"{path.name} is {bits.get(image.mode, image.mode)}, and depth cameras write 16-bit grey. An 8-bit "
                    "copy has lost the distances: load the camera's own file."
                )
            array = np.asarray(image)
    except PictureError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"{path.name} cannot be read as PNG ({error}): it is damaged or of another type.") from error
    return torch.from_numpy(array.astype(np.float32))[None]


def holes(depth: Depth) -> Tensor:
    """Where nothing was measured: float32 (B,H,W), 1 = unknown."""
    return torch.zeros_like(depth.values) if depth.valid is None else (~depth.valid).float()
