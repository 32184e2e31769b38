"""Depth as a continuous weight per pixel."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..signals import Depth
from ..signals.field import Scope
from .pixels import check_choice, check_range

Shape = Literal["ramp", "band", "inverse band"]
Space = Literal["relative", "metres"]
Easing = Literal["linear", "smoothstep", "smootherstep", "exponential"]


def depth_field(
    depth: Depth,
    shape: Shape = "ramp",
    start: float = 0.0,
    end: float = 1.0,
    softness: float = 0.0,
    easing: Easing = "linear",
    gamma: float = 1.0,
    space: Space = "relative",
    scope: Scope = "image",
) -> Tensor:
    """A weight from each pixel's depth: float32 (B,H,W) in 0..1, a MASK.

    space: what start, end and softness are measured in. "relative": 0 = farthest, 1 = closest pixel (of each
    picture, or of the batch: `scope`), good for every kind. "metres": distance, of a metric depth (`to_metric`
    makes one).

    shape: "ramp" goes from 0 at `start` to 1 at `end`, whichever is closer; with start equal to end it is a step that
    keeps what is closer. "band" is 1 between start and end, "inverse band" is 1 outside. softness: the ramp begins
    and ends this much farther out; beside a band the weight falls to 0 over this width.
    easing: the way from 0 to 1; "exponential" stays low for long, 2^(10(t-1)) scaled to reach 0. gamma: power > 0 on
    the weight. Not valid pixels weigh 0, in every shape.

    Raises SettingError for a value out of range, SignalError when metres are asked of a depth that has none.
    """
    check_choice("shape", shape, get_args(Shape))
    check_choice("space", space, get_args(Space))
    check_choice("easing", easing, get_args(Easing))
    check_range("softness", softness, 0)
    check_range("gamma", gamma, 0.01, 100)
    for name, value in (("start", start), ("end", end)):
        check_range(name, value, -1e9, 1e9)
    if space == "metres":
        # A pixel that is not valid may hold anything; it is blanked below.
        metres = depth.metres()
    else:
        metres = depth.unit_range(scope)
    if shape == "ramp":
        closer = -1.0 if space == "metres" else 1.0
        direction = closer if start == end else (1.0 if end > start else -1.0)
        begin, length = start - direction * softness, abs(end - start) + 2 * softness
        along = (metres - begin) * direction
        weight = (along >= 0).float() if length == 0 else along.div_(length).clamp_(0, 1)
    else:
        low, high = min(start, end), max(start, end)
        outside = torch.maximum(low - metres, metres - high).clamp_(min=0)
        weight = (
            (outside == 0).float() if softness == 0 else outside.div_(max(softness, 1e-30)).clamp_(max=1).neg_().add_(1)
        )
    weight = _eased(weight, easing)
    if shape == "inverse band":
        weight = 1 - weight
    if gamma != 1:
        weight = weight.pow(gamma)
    return weight if depth.valid is None else weight.masked_fill(~depth.valid, 0.0)


def _eased(t: Tensor, easing: Easing) -> Tensor:
    if easing == "smoothstep":
        return t * t * (3 - 2 * t)
    if easing == "smootherstep":
        return t * t * t * (t * (6 * t - 15) + 10)
    if easing == "exponential":
        return (torch.exp2(10 * t) - 1) / 1023
    return t
