"""Completing a measured depth: what has to be checked before, and how the measured points are kept after.

A measurement (a phone's LiDAR, a depth camera, points of a reconstruction) is right where it is and missing or coarse
elsewhere; an estimator that was shown it (models/prompt_depth_anything.py) gives every pixel, but not those numbers.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError
from ..signals import Depth
from ..signals.field import check_shape, fill_smoothly

ASPECT = 0.05  # by how much the shapes of a picture and its measurement may differ
_FARTHEST = 1000.0  # metres that no depth sensor's typical pixel lies beyond


def measured(depth: Depth, picture: tuple[int, int, int], trust: Tensor | None = None, least: float = 0.5) -> Depth:
    """`depth` as what was measured of pictures, checked, without what is not believed.

    depth: metric, one map for each picture, of any size. picture: (B,H,W). trust: float (B,h,w) or (1,h,w), of any
    size, how far each measurement is believed; None = the confidence that `depth` has, if any. least: what is believed
    less is left out. Raises SettingError for a depth without metres, of another number or view than the pictures, in
    other units than metres, or without a valid pixel.
    """
    if depth.kind != "metric":
        raise SettingError(
            f"the measured depth must be in metres, this one is {depth.kind} ({depth.unit}). Bring it to metres first, "
            "or load it with the unit that its file has."
        )
    count = picture[0]
    if len(depth) != count:
        raise SettingError(f"each picture needs its own measured depth: got {len(depth)} for {count} pictures.")
    _check_view((depth.values.shape[1], depth.values.shape[2]), picture[1:])
    known = depth.values > 0 if depth.valid is None else depth.valid & (depth.values > 0)
    trust = depth.confidence if trust is None else trust
    if trust is not None:
        known = known & _believed(trust, known, least)
    for number, seen in enumerate(known, 1):
        if not bool(seen.any()):
            raise SettingError(
                f"picture {number} has no measured depth that is believed: nothing can be completed from it. Lower the "
                "confidence that you ask for, or check that the map was recorded."
            )
        middle = float(depth.values[number - 1][seen].median().reciprocal())
        if middle > _FARTHEST:
            raise SettingError(
                f"the measured depth of picture {number} lies at {middle:,.0f} metres: these are probably millimetres. "
                "Load it with 1000 units per metre."
            )
    return replace(depth, valid=None if bool(known.all()) else known)


def _check_view(map: tuple[int, int], picture: tuple[int, int]) -> None:
    rows, columns = map
    height, width = picture
    # A map of few rows and columns cannot have the picture's shape to the last percent.
    slack = ASPECT + 1 / min(rows, columns)
    ratio = (columns / rows) / (width / height)
    if 1 / (1 + slack) <= ratio <= 1 + slack:
        return
    turned = (rows / columns) / (width / height)
    advice = "crop the wider one to what both show"
    if 1 / (1 + slack) <= turned <= 1 + slack:
        advice = "turn one of them by 90 degrees"
    raise SettingError(
        f"the measured depth ({columns}x{rows}) and the picture ({width}x{height}) do not show the same view: {advice}."
    )


def _believed(trust: Tensor, known: Tensor, least: float) -> Tensor:
    check_shape("trust", trust, 3)
    if len(trust) not in (1, len(known)):
        raise SettingError(f"trust must have one map for each picture: got {len(trust)} for {len(known)} pictures.")
    size = (known.shape[1], known.shape[2])
    there = F.interpolate(trust[:, None].float(), size, mode="nearest-exact")[:, 0]
    return there.to(known.device) >= least


def keep_measured(full: Depth, known: Depth) -> Depth:
    """`full` corrected so that it gives the measured distances where there are any, without seams.

    full: metric (B,H,W). known: metric, of any size, `valid` where it was measured. Between measured points the ratio
    of measured to estimated distance passes smoothly from one to the next, so the detail of `full` stays. Where both
    have the same size the measured pixels come out exactly; a coarser map is met near the centres of its pixels.
    """
    size, coarse = full.values.shape[1:], known.values.shape[1:]
    estimate = full.values[:, None]
    there = F.interpolate(estimate, coarse, mode="bilinear", align_corners=False)
    seen = _seen(known)[:, None] & (there > 0)
    ratio = torch.where(seen, known.values[:, None] / there.clamp_min(1e-9), 1.0).clamp_min(1e-9).log()
    ratio = F.interpolate(fill_smoothly(ratio, seen), size, mode="bilinear", align_corners=False)
    values = (estimate * ratio.exp())[:, 0]
    if size == coarse:
        values = torch.where(seen[:, 0], known.values, values)
    return replace(full, values=values)


def with_camera_of(full: Depth, known: Depth) -> Depth:
    """`full` with the focal length and the optical axis of `known`, the same view at another size."""
    camera = known.camera()
    if camera is None:
        return full
    across, down = (full.values.shape[d] / known.values.shape[d] for d in (2, 1))
    scale = camera.new_tensor([across, down])
    # Pixel centres are whole numbers, so the map's edge lies half a pixel before the first.
    principal = None if known.principal is None else (camera[:, 2:] + 0.5) * scale - 0.5
    return replace(full, focal=camera[:, :2] * scale, principal=principal)


def _seen(depth: Depth) -> Tensor:
    return torch.ones_like(depth.values, dtype=torch.bool) if depth.valid is None else depth.valid
