"""The focal length and the shift of MoGe's points.

The published code asks MINPACK for them (lmdif, by way of scipy.optimize.least_squares, method "lm") and lets it stop
early, at a thousandth of the error; where it stops is part of the result. So its steps are taken here, for one
unknown. Source: Moré, Garbow, Hillstrom, "User Guide for MINPACK-1" (1980); recover_focal_shift of
github.com/microsoft/MoGe (moge/utils/geometry_torch.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ._uv import view_plane

SAMPLES = (64, 64)
_TOLERANCE = 1e-3
_LEAST = 1e-8  # of a step, and of a gradient, beside what they belong to
_EPSILON = torch.finfo(torch.float64).eps
_MOST_CALLS = 200


def focal_and_shift(points: Tensor, mask: Tensor) -> tuple[float, float]:
    """(focal, shift) of one picture's points.

    points: (H,W,3), x right, y down, z forward, right up to a shift of z. mask: bool (H,W), the points to believe.
    focal: where the picture's half diagonal is 1. shift: what is to be added to z. With fewer than two points 1 and 0.
    """
    height, width = mask.shape
    plane = view_plane(height, width, width / height)
    samples = [_sampled(x.movedim(-1, 0)).movedim(0, -1).cpu() for x in (points.float(), plane)]
    seen = _sampled(mask[None].float())[0].cpu() > 0
    points, plane = (x[seen] for x in samples)
    if len(points) < 2:
        return 1.0, 0.0
    across, z, plane64 = points[:, :2].double(), points[:, 2:].double(), plane.double()

    def errors(shift: float) -> Tensor:
        projected = across / (z + shift)
        focal = (projected * plane64).sum() / projected.square().sum()
        return (focal * projected - plane64).flatten()

    shift = torch.tensor(least_squares(errors), dtype=torch.float32)
    projected = points[:, :2] / (points[:, 2:] + shift)
    return float((projected * plane).sum() / projected.square().sum()), float(shift)


def _sampled(x: Tensor) -> Tensor:
    return F.interpolate(x[None], SAMPLES, mode="nearest")[0]


def least_squares(errors: Callable[[float], Tensor]) -> float:
    """The x near 0 with the least sum of `errors(x)` squared, float64 (n,), as MINPACK's lmdif finds it."""
    x, damping, reach, scale, calls = 0.0, 0.0, 0.0, 0.0, 1
    error = errors(x)
    size = float(error.norm())
    while True:
        step = _EPSILON**0.5 * (abs(x) or 1.0)
        slope = (errors(x + step) - error) / step
        calls += 1
        steep = float(slope.norm())
        along = float(slope @ error) / steep if steep else 0.0
        if size == 0 or steep == 0 or abs(along) / size <= _LEAST:
            return x
        # Lengths are measured in the steepest slope so far, as scipy has it since 1.16.
        scale = max(scale, steep)
        first = reach == 0
        reach = reach or 100.0
        while True:
            move, damping = _move(steep / scale, along, reach, damping)
            if first:
                reach, first = min(reach, abs(move)), False
            moved = errors(x + move / scale)
            calls += 1
            left = float(moved.norm())
            # How much smaller the squared error is, and how much smaller a straight line would have made it.
            gain = 1 - (left / size) ** 2 if 0.1 * left < size else -1.0
            bent, damped = (steep / scale * move / size) ** 2, damping * (move / size) ** 2
            hoped = bent + 2 * damped
            share = gain / hoped if hoped else 0.0
            if share <= 0.25:
                shrink = 0.5 if gain >= 0 else 0.5 * (bent + damped) / (bent + damped - 0.5 * gain)
                shrink = 0.1 if 0.1 * left >= size or shrink < 0.1 else shrink
                reach, damping = shrink * min(reach, abs(move) / 0.1), damping / shrink
            elif damping == 0 or share >= 0.75:
                reach, damping = 2 * abs(move), damping / 2
            if share >= 1e-4:
                x, error, size = x + move / scale, moved, left
            if (abs(gain) <= _TOLERANCE and hoped <= _TOLERANCE and share <= 2) or reach <= _LEAST * scale * abs(x):
                return x
            if calls >= _MOST_CALLS or reach <= _EPSILON * scale * abs(x):
                return x
            if share >= 1e-4:
                break


def _move(steep: float, along: float, reach: float, damping: float) -> tuple[float, float]:
    """The step and its damping: the whole step where it reaches no farther than allowed, a tenth more or less."""
    whole = -along / steep
    beyond = abs(whole) - reach
    if beyond <= 0.1 * reach:
        return whole, 0.0
    least, most = beyond / reach * steep**2, abs(steep * along) / reach
    damping = min(max(damping, least), most) or abs(steep * along) / abs(whole)
    for _ in range(10):
        square = steep**2 + damping
        step = -steep * along / square
        beyond = abs(step) - reach
        if abs(beyond) <= 0.1 * reach:
            break
        least, most = (max(least, damping), most) if beyond > 0 else (least, min(most, damping))
        damping = max(least, damping + beyond / reach * square)
    return -steep * along / (steep**2 + damping), damping
