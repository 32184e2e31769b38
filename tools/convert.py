"""Depth from pictures, files and other packages' geometry, and back into pictures and numbers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..annotator.pictures import as_pictures, as_pixels
from ..errors import PictureError, SettingError, SignalError
from ..signals import Depth, DepthKind, DepthLook, Normals, files, foreign
from ..signals.depth import depth_from_metres, focal_of_view
from ..signals.depth import to_metric as in_metres
from ..signals.normals import unit_vectors
from .pixels import check_choice, check_range, match_mask, nth, together

Meaning = Literal["inverse", "metric", "disparity"]
Unit = Literal["relative", "m", "cm", "mm", "ft", "in"]
Near = Literal["auto", "white", "black"]
Mode = Literal["min-max", "percentile", "fixed"]
Quantity = Literal["metric", "inverse", "disparity"]
Even = Literal["inverse", "metres"]
Units = Literal["metres", "relative"]
Saved = Literal["as saved", "inverse", "metric", "disparity"]
Points = Sequence[Sequence[float]]

METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001, "ft": 0.3048, "in": 0.0254}

_log = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------------- in


def depth_from_image(
    image: Any,
    meaning: Meaning = "inverse",
    scale: float = 1.0,
    unit: Unit = "relative",
    near: Near = "auto",
    focal: float | None = None,
    baseline: float | None = None,
    valid: Tensor | None = None,
) -> Depth:
    """The depth in a grey picture (B,H,W,C) in 0..1, whose grey becomes numbers by `grey * scale`.

    meaning: "inverse": inverse distance, as depth maps for ControlNet: relative gives an affine depth, a unit gives
    1/unit. "metric": distance in `unit`, or relative distance; 0 is no measurement. "disparity": pixels of disparity of
    this picture's width; with `focal` (pixels) and `baseline` (metres) it becomes metric, without it is affine.
    near: what is drawn close; "auto" = white for inverse and disparity, black for metric. Where the other end of the
    grey scale is close, 1 - grey is scaled instead. valid: MASK of what was measured, above 0.5; None = everywhere.
    Transparent pixels of an RGBA picture are not valid.

    A picture of 8 bits is told in the log and in `source`. Raises PictureError for a coloured picture (a colour map
    cannot be turned back), SettingError for a scale or unit that means nothing.
    """
    check_choice("near", near, get_args(Near))
    image, seen = _straight(image)
    grey = _grey(image)
    coarse = bool(((grey * 255).round() / 255 - grey).abs().amax() < 1e-6)
    source = "a picture of 8 bits" if coarse else "a picture"
    if coarse and meaning != "inverse":
        _log.warning("The depth picture has 8 bits: its distances come in 255 coarse steps. Use a 16-bit PNG or EXR.")
    if near == ("black" if meaning != "metric" else "white"):
        grey = 1 - grey
    measured = seen if valid is None else _measured(valid, grey) if seen is None else _measured(valid, grey) & seen
    return depth_from_numbers(grey, meaning, scale, unit, focal, baseline, measured, source)


def depth_from_numbers(
    numbers: Tensor,
    meaning: Meaning,
    scale: float = 1.0,
    unit: Unit = "m",
    focal: float | None = None,
    baseline: float | None = None,
    valid: Tensor | None = None,
    source: str = "",
) -> Depth:
    """The depth in bare numbers (B,H,W) times `scale`; meaning, unit, focal and baseline as in `depth_from_image`.

    valid: bool (B,H,W) or None. NaN is not valid, and neither is a negative number unless it is relative, nor a
    disparity of 0 unless others are negative, as of converged cameras.
    """
    check_choice("meaning", meaning, get_args(Meaning))
    check_choice("unit", unit, get_args(Unit))
    check_range("scale", scale, 1e-12)
    numbers = numbers.float() * scale
    if meaning == "metric" and unit != "relative":
        return depth_from_metres(numbers * METRES[unit], valid=valid, focal=focal, source=source)
    known = ~numbers.isnan() if valid is None else ~numbers.isnan() & valid
    if meaning == "metric":
        # Distances up to one factor: b - a*z with b = 0.
        known &= (numbers > 0) & numbers.isfinite()
        return _depth(-numbers, known, "affine_depth", focal, source)
    known &= numbers.isfinite()
    metric = unit != "relative" if meaning == "inverse" else focal is not None and baseline is not None
    if meaning == "disparity":
        # Files and matchers write 0 where they know nothing; of a converged pair, with both signs, it is a disparity.
        known &= (numbers > 0) if metric or not bool((numbers[known] < 0).any()) else known
    if metric:
        known &= numbers >= 0
        if meaning == "disparity":
            numbers = numbers / _lens(focal, baseline)
        else:
            numbers = numbers / METRES[unit]
    return _depth(numbers, known, "metric" if metric else "affine_inverse", focal, source)


def depth_from_file(
    path: str | Path,
    meaning: Saved = "as saved",
    scale: float = 1.0,
    unit: Unit = "m",
    channel: str = "",
    reading: foreign.Reading = "plain",
) -> Depth:
    """The depth in a file: of Fathom, or of another program, whose numbers the arguments explain.

    meaning: "as saved" = the file was written by Fathom and says it itself. Otherwise what the numbers of another
    program's PNG, EXR, TIFF, PFM, PGM, npy or npz are: as they stand in the file (0..65535 in a 16-bit PNG) times
    `scale` in `unit`, see `depth_from_image`. A sensor's PNG in millimetres is "metric", 1.0, "mm"; a renderer's EXR
    and a float TIFF in metres are "metric", 1.0, "m". channel, reading: as in `signals.foreign.read_numbers`.

    Of whole numbers 0 is not measured; the other marks of no measurement are those of `foreign.without_marks`. Raises
    SignalError, SettingError or FathomError as `signals.files.load_depth` and `read_numbers` do, and PictureError for
    an 8-bit file that is said to hold distances.
    """
    path = Path(path)
    if meaning == "as saved":
        if channel or reading != "plain":
            raise SettingError("channel and reading are for other programs' files: choose the meaning of the numbers.")
        return files.load_depth(path)
    check_choice("meaning", meaning, get_args(Meaning))
    if path.suffix.lower() == ".safetensors":
        raise SettingError(f'safetensors files say what they hold: choose the meaning "as saved" for {path.name}.')
    numbers = foreign.read_numbers(path, channel, reading)
    if numbers.whole and numbers.bits < 16 and meaning == "metric" and unit != "relative":
        raise PictureError(
            f"{path.name} has {numbers.bits} bits, so it cannot hold distances in {unit}: a 16-bit file was likely "
            "saved as an ordinary picture. Use the original file, or load it as relative."
        )
    if meaning == "metric" and reading == "plain":
        foreign.told_rotated(numbers, path.name)
    values, valid = foreign.without_marks(numbers, meaning, path.name)
    if numbers.whole and not (meaning == "disparity" and bool((values[valid] < 0).any())):
        valid = valid & (values != 0)
    source = f"{path.name}: {numbers.name}" if numbers.name else path.name
    return depth_from_numbers(values, meaning, scale, unit, valid=valid, source=source)


CANONICAL = 300.0  # pixels: the focal length for which Depth Anything 3 Metric's numbers are metres


def depth_from_geometry(
    geometry: Mapping[str, Any],
    units: Units = "metres",
    focal: Tensor | None = None,
    longest: int = 504,
    near: float | None = None,
    far: float | None = None,
) -> Depth:
    """The depth in a DA3_GEOMETRY or MOGE_GEOMETRY of ComfyUI's own nodes (0.25 and later).

    geometry: a dict with "depth" (B,H,W), distance along the axis (panoramas: from the viewpoint), and where the
    model gives them "mask" (B,H,W) bool, "sky" (B,H,W) probability, "confidence" (B,H,W), "intrinsics" (B,3,3) or
    (1,B,3,3).
    units: the dict does not say whether its distances are metres. "metres": MoGe 2, and Depth Anything 3 Metric, whose
    numbers become metres by the focal length (metric kind). "relative": Depth Anything 3 Small, Base and Mono, MoGe 1
    and panoramas, right up to one factor (scale_inverse kind). Sky is infinitely far; what the mask leaves out is not
    valid.
    focal: (B,) or (1,), the focal length in pixels of this map's width, for a geometry without intrinsics. longest:
    the longest side that Depth Anything 3 saw, in pixels; its metres are metres = focal length in pixels of what it
    saw * number / 300. near, far: metres of the closest or farthest pixel, which make relative distances metric.

    Raises SignalError for another dict, and when metres are asked of a geometry that cannot have them, or that lacks
    the focal length that they need.
    """
    check_choice("units", units, ("metres", "relative"))
    check_geometry(geometry)
    distance = geometry["depth"].float()
    moge = "points" in geometry or "mask" in geometry
    maker = "MoGe" if moge else "Depth Anything 3"
    known = near is not None or far is not None
    panorama = moge and "intrinsics" not in geometry
    if units == "metres" and not known and ("confidence" in geometry or panorama):
        reason = "a panorama" if moge else "Depth Anything 3 Small or Base"
        raise SignalError(
            f"this geometry comes from {reason}, whose distances are not metres: choose units relative, or give the "
            "metres of the closest pixel."
        )
    lens = _lens_of(geometry, distance)
    if lens is None and focal is not None:
        lens = focal.float().cpu().expand(len(distance)).contiguous()
    if units == "metres" and not moge and not known:
        distance = distance * _metres_per_number(lens, distance, longest)
    valid = geometry["mask"].bool() if "mask" in geometry else None
    if "sky" in geometry:
        distance = distance.masked_fill(geometry["sky"] >= 0.5, torch.inf)
    sure = geometry.get("confidence")
    depth = depth_from_metres(
        distance, valid=valid, focal=lens, source=maker, confidence=None if sure is None else sure.float()
    )
    if units == "relative" or known:
        depth = replace(depth, kind="scale_inverse", look=DepthLook())
    return to_metric(depth, near, far)[0] if known else depth


def check_geometry(geometry: Any) -> None:
    """Raises SignalError for what is no geometry of ComfyUI's own nodes."""
    if not isinstance(geometry, Mapping) or not isinstance(geometry.get("depth"), Tensor):
        came = ", ".join(geometry) if isinstance(geometry, Mapping) else type(geometry).__name__
        raise SignalError(f'a geometry must be a dict with a tensor "depth" (B,H,W), got {came}.')


def _lens_of(geometry: Mapping[str, Any], distance: Tensor) -> Tensor | None:
    """The focal lengths (B,) in pixels of the map's width that a geometry holds."""
    if "intrinsics" not in geometry:
        return None
    lens = geometry["intrinsics"].float().reshape(-1, 3, 3).cpu()
    # The principal point lies in the middle, which tells the width that the numbers refer to: MoGe's is 1, Depth
    # Anything's that of its network.
    focal = lens[:, 0, 0] / (2 * lens[:, 0, 2]) * distance.shape[-1]
    whole = len(focal) == len(distance) and bool((focal.isfinite() & (focal > 0)).all())
    return focal if whole else None


def _metres_per_number(focal: Tensor | None, distance: Tensor, longest: int) -> Tensor:
    """(B,1,1): what Depth Anything 3 Metric's numbers are multiplied by to be metres."""
    if focal is None:
        raise SignalError(
            "the distances of Depth Anything 3 Metric are metres only for a known focal length: give the field of "
            "view, or connect MoGe's geometry or a depth with a lens of the same picture. Without one choose units "
            "relative."
        )
    height, width = distance.shape[-2:]
    scale = longest / max(height, width)
    # The network rounds both sides to whole patches.
    rows, columns = (max(1, (round(side * scale) + 7) // 14) * 14 for side in (height, width))
    inside = focal * (columns / width + rows / height) / 2
    return (inside / CANONICAL).to(distance)[:, None, None]


def focal_from_view(field_of_view: float, width: int) -> Tensor:
    """(1,): the focal length, in pixels of a picture `width` pixels wide, of a horizontal field of view in degrees.

    Raises SettingError for an angle outside 0..180.
    """
    return torch.tensor([focal_of_view(field_of_view, width)])


def focal_at(depth: Depth, width: int, count: int | None = None) -> Tensor:
    """(B,): the focal lengths that came with a depth, in pixels of a picture `width` pixels wide.

    count: how many pictures they are for; one serves all. Raises SignalError for a depth without a focal length, and
    for one of another number of pictures.
    """
    camera = depth.camera()
    if camera is None:
        raise SignalError(
            f"{depth.source or 'this depth'} has no lens to take: connect one that has, such as MoGe's, or give the "
            "field of view."
        )
    if count is not None and len(depth) not in (1, count):
        raise SignalError(
            f"the lens is that of {len(depth)} pictures, and there are {count}: give one, or one for each."
        )
    return camera[:, 0].cpu().expand(count or len(depth)) * (width / depth.values.shape[-1])


def normals_from_geometry(geometry: Mapping[str, Any]) -> Normals | None:
    """The normals in a MOGE_GEOMETRY; None where it has none, as MoGe 1 and panoramas.

    The geometry's are x right, y down, z away from the viewer; length 0 is not valid.
    """
    vectors = geometry.get("normal")
    if vectors is None:
        return None
    vectors = vectors.float()
    valid = vectors.norm(dim=-1) > 0.5
    if "mask" in geometry:
        valid &= geometry["mask"].bool()
    turned = unit_vectors(vectors) * vectors.new_tensor([1.0, -1.0, -1.0])
    return Normals(turned, None if bool(valid.all()) else valid, "MoGe")


# ---------------------------------------------------------------------------------------------- out


def depth_to_image(
    depth: Depth,
    mode: Mode = "min-max",
    scope: str = "image",
    gamma: float = 1.0,
    low: float = 2.0,
    high: float = 98.0,
    near: float | None = None,
    far: float | None = None,
    space: Even = "inverse",
) -> Tensor:
    """A grey picture of the depth, near = white: float32 (B,H,W,3) in 0..1.

    mode: "min-max": from the farthest to the closest pixel. "percentile": from percentile `low` to `high`, the rest
    clamped. "fixed": white at `near` metres and black at `far`, for a metric depth. scope: "image" or "batch", as in
    Depth.to_image. space: what grey is linear in, inverse distance (as the values stand) or metres (metric only).
    gamma: power > 0 on grey. Not valid pixels are black. Raises SettingError and SignalError for what does not fit.
    """
    check_choice("mode", mode, get_args(Mode))
    check_choice("space", space, ("inverse", "metres"))
    check_range("gamma", gamma, 0.01, 100)
    fixed, ends = None, (0.0, 100.0)
    if mode == "percentile":
        check_range("low", low, 0, 100)
        check_range("high", high, low, 100)
        # Counted from the far end; metres run the other way.
        ends = (low, high) if space == "inverse" else (100 - high, 100 - low)
    elif mode == "fixed":
        if depth.kind != "metric":
            raise SignalError(
                f"fixed near and far are metres, and this depth is {depth.kind}: convert it to metric first, or use "
                "min-max with scope batch."
            )
        near, far = _near_far(near, far)
        fixed = (1 / far, 1 / near) if space == "inverse" else (near, far)
    look = DepthLook("values" if space == "inverse" else "metres", *ends, fixed)
    image = depth.to_image(scope, look)
    return image if gamma == 1 else image.pow_(gamma)


@dataclass(frozen=True)
class Fit:
    """How an affine depth was made metric from known points, one entry per picture.

    scale, offset: of 1/metre = scale * value + offset ("inverse") or metre = scale * value + offset ("depth").
    residual: root mean square of the distance error at the points, metres. worst: the largest, metres. points: how
    many. beyond: share of the pixels that came out behind infinity or in front of the camera.
    """

    space: str
    scale: list[float]
    offset: list[float]
    residual: list[float]
    worst: list[float]
    points: int
    beyond: list[float]


def to_metric(
    depth: Depth, near: float | None = None, far: float | None = None, points: Points | None = None
) -> tuple[Depth, Fit | None]:
    """A metric Depth from any depth that can become one, and the fit if points were used.

    metric: as it is. affine: by `near` and `far`, the metres of the closest and farthest valid pixel of each picture;
    lone pixels far beyond all others do not count as such and take the end (`signals.depth.without_hot_pixels`);
    or by a least squares fit to `points`, rows (x, y, metres) with x and y in pixels of this map, at least two,
    applied to every picture. scale_inverse: by one of the two, or at least one point. Pixels that the fit puts behind
    infinity become infinitely far, those it puts at or behind the camera not valid.

    Raises SignalError for an ordinal depth, when nothing is given, or when points contradict the order of the depth;
    SettingError for points that are malformed or outside the picture.
    """
    if points is not None and depth.kind != "metric":
        if near is not None or far is not None:
            raise SettingError("give either points, or near and far.")
        return _fit(depth, points)
    return in_metres(depth, near, far), None


def convert_depth(
    depth: Depth,
    to: Quantity = "metric",
    near: float | None = None,
    far: float | None = None,
    focal: float | None = None,
    baseline: float | None = None,
    points: str | Points | None = None,
) -> tuple[Depth, Tensor, str]:
    """A depth as a metric Depth, its numbers in another quantity, and a report in JSON.

    to: what the numbers float32 (B,H,W) are: "metric" = metres, "inverse" = 1/metre, "disparity" = pixels of
    disparity between two cameras of `focal` pixels that stand `baseline` metres apart. focal: None = the depth's own.
    points: rows (x, y, metres), or text with one row per line. The rest and the errors as in `to_metric`. Numbers are
    0 where the depth is not valid; metres are infinite where nothing stands.
    """
    check_choice("to", to, get_args(Quantity))
    known = parse_points(points) if isinstance(points, str) else points
    metric, fit = to_metric(depth, near, far, known or None)
    if focal is not None:
        metric = replace(metric, focal=focal)
    if to == "metric":
        numbers = metric.metres()
    elif to == "inverse":
        numbers = metric.values.clone()
    else:
        numbers = disparity(metric, baseline)
    if metric.valid is not None:
        numbers = numbers.masked_fill(~metric.valid, 0.0)
    report = {
        "from": depth.kind,
        "numbers": {"metric": "metres", "inverse": "1/metre", "disparity": "pixels of disparity"}[to],
        "fit": None if fit is None else asdict(fit),
    }
    return metric, numbers, json.dumps(report)


def numbers_to_image(numbers: Tensor) -> Tensor:
    """Numbers (B,H,W) as an IMAGE (B,H,W,3), not stretched or clamped. Infinity becomes the largest finite number of
    its picture, for no IMAGE can hold it."""
    finite = numbers.isfinite()
    most = numbers.masked_fill(~finite, 0.0).amax((1, 2), keepdim=True)
    return torch.where(finite, numbers, most)[..., None].expand(*numbers.shape, 3).contiguous()


def disparity(depth: Depth, baseline: float | None, focal: float | None = None) -> Tensor:
    """Disparity in pixels, focal * baseline / distance: float32 (B,H,W). focal: pixels; None = the depth's own.

    Raises SignalError when the depth is not metric or no focal length is known.
    """
    if depth.kind != "metric":
        raise SignalError(f"disparity needs a metric depth, got {depth.kind}: give near and far, or points.")
    lens = depth.focal if focal is None else focal
    if lens is None:
        raise SignalError("disparity needs a focal length in pixels: the depth has none, so give focal.")
    factor = torch.as_tensor(lens, dtype=torch.float32, device=depth.values.device).reshape(-1, 1, 1)
    return depth.values * factor * _lens(1.0, baseline)


def parse_points(text: str) -> list[list[float]]:
    """Rows of three numbers from text, one row per line, separated by spaces or commas. Raises SettingError."""
    rows = []
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            rows.append([float(part) for part in line.replace(",", " ").split()])
        except ValueError:
            raise SettingError(f"a point must be written as x y metres, got {line.strip()!r}.") from None
    return rows


# ---------------------------------------------------------------------------------------------- helpers


def _straight(image: Any) -> tuple[Any, Tensor | None]:
    """The picture without its transparency, and which pixels (B,H,W) are not transparent, None = all."""
    pictures = as_pictures(image)
    if pictures.shape[-1] != 4:
        return pictures, None
    seen = pictures[..., 3] > 0
    return pictures[..., :3], None if bool(seen.all()) else seen


def _grey(image: Any) -> Tensor:
    pixels = as_pixels(image)
    spread = (pixels.amax(1) - pixels.amin(1)).amax()
    if float(spread) > 8 / 255:
        raise PictureError(
            "the depth picture is coloured, so its grey is not its depth: a colour map cannot be turned back. Use the "
            "grey depth map."
        )
    return pixels[:, 1]


def _measured(mask: Tensor, like: Tensor) -> Tensor:
    mask = match_mask(mask, like.shape[1], like.shape[2], like.device) >= 0.5
    together(picture=len(like), mask=len(mask))
    if len(mask) > len(like):
        raise SignalError(f"the mask has {len(mask)} pictures and the depth picture {len(like)}.")
    return torch.cat([nth(mask, i) for i in range(len(like))])


def _depth(values: Tensor, known: Tensor, kind: DepthKind, focal: float | None, source: str) -> Depth:
    valid = None if bool(known.all()) else known
    look = DepthLook("metres") if kind == "metric" else DepthLook()
    return Depth(values if valid is None else values.masked_fill(~known, 0.0), kind, valid, focal, source, look)


def _lens(focal: float | None, baseline: float | None) -> float:
    if focal is None or baseline is None or not (focal > 0 and baseline > 0):
        raise SettingError(f"disparity needs focal (pixels) and baseline (metres) above 0, got {focal} and {baseline}.")
    return focal * baseline


def _near_far(near: float | None, far: float | None) -> tuple[float, float]:
    if near is None or far is None or not 0 < near < far:
        raise SettingError(f"near and far must be metres with 0 < near < far, got near={near}, far={far}.")
    return near, far


def _fit(depth: Depth, points: Points) -> tuple[Depth, Fit]:
    if depth.kind == "ordinal":
        raise SignalError("an ordinal depth gives order only: no fit makes metres of it. Use an affine estimator.")
    count, height, width = depth.values.shape
    scaled = depth.kind == "scale_inverse"
    try:
        points = [(float(x), float(y), float(metres)) for x, y, metres in points]
    except (TypeError, ValueError, OverflowError):
        raise SettingError(f"points are (x, y, metres) each, got {points!r:.200}.") from None
    if len(points) < 2 - scaled:
        least = "one point" if scaled else "two points"
        raise SettingError(f"at least {least} (x, y, metres) are needed, got {[list(p) for p in points]}.")
    for x, y, metres in points:
        if not (0 <= x < width and 0 <= y < height) or not 0 < metres < float("inf"):
            raise SettingError(
                f"point ({x:g}, {y:g}, {metres:g}): x must lie in 0..{width - 1}, y in 0..{height - 1}, metres above 0."
            )
    columns = torch.tensor([int(p[0]) for p in points], device=depth.values.device)
    rows = torch.tensor([int(p[1]) for p in points], device=depth.values.device)
    if depth.valid is not None and not bool(depth.valid[:, rows, columns].all()):
        raise SettingError("a point lies where the depth is not valid: choose another place.")
    seen = depth.values[:, rows, columns].double()
    wanted = torch.tensor([float(p[2]) for p in points], dtype=torch.float64, device=seen.device)
    inverse = scaled or depth.kind == "affine_inverse"
    target = wanted.reciprocal() if inverse else wanted
    # With an unknown shift the line goes through the middle of the points, without one through 0.
    middle = seen.new_zeros(count, 1) if scaled else seen.mean(1, keepdim=True)
    level = 0.0 if scaled else target.mean()
    centred = seen - middle
    spread = centred.square().sum(1)
    if bool((spread <= 1e-12 * seen.square().sum(1)).any()):
        reason = "the points are infinitely far" if scaled else "the points lie at one and the same depth"
        raise SignalError(f"{reason}: choose one close and one far.")
    scale = (centred * (target - level)).sum(1) / spread
    if bool((scale <= 0).any() if inverse else (scale >= 0).any()):
        raise SignalError("the points contradict the depth: what they call closer, it shows farther away.")
    offset = level - scale * middle[:, 0]
    fitted = scale[:, None] * seen + offset[:, None]
    wrong = (fitted.clamp_min(1e-12).reciprocal() if inverse else fitted) - wanted
    every = (depth.values.double() * scale[:, None, None] + offset[:, None, None]).float()
    beyond = every <= 0 if depth.valid is None else (every <= 0) & depth.valid
    share = beyond.float().mean((1, 2))
    fit = Fit(
        "inverse" if inverse else "depth",
        scale.tolist(),
        offset.tolist(),
        wrong.square().mean(1).sqrt().tolist(),
        wrong.abs().amax(1).tolist(),
        len(points),
        share.tolist(),
    )
    if inverse:
        values = every.clamp_min(0)
        if depth.valid is not None:
            values = values.masked_fill(~depth.valid, 0.0)
        return replace(depth, values=values, kind="metric", look=DepthLook("metres")), fit
    metric = depth_from_metres(every, valid=depth.valid, focal=depth.focal, source=depth.source)
    return metric, fit
