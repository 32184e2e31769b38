"""Checks and statistics that every signal shares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import interrupt
from ..errors import SignalError

Scope = Literal["image", "batch", "video"]
SCOPES = get_args(Scope)
AHEAD = 12
"""Frames that the range of a video looks back and ahead: half a second of film."""
_AT_ONCE = 2**22


def check_shape(name: str, tensor: Tensor, dims: int, last: int | None = None) -> None:
    """Raise SignalError unless `tensor` has `dims` axes, none of them empty, and `last` as its last size."""
    wanted = {3: "(B,H,W)", 4: f"(B,H,W,{last})"}[dims]
    if not isinstance(tensor, Tensor):
        raise SignalError(f"{name} must be a torch tensor {wanted}, got {type(tensor).__name__}.")
    if tensor.ndim != dims or (last is not None and tensor.shape[-1] != last):
        raise SignalError(f"{name} must be shaped {wanted}, got {tuple(tensor.shape)}.")
    if tensor.numel() == 0:
        raise SignalError(f"{name} is empty: its shape is {tuple(tensor.shape)}, every size must be at least 1.")


def check_mask(name: str, mask: Tensor, like: Tensor) -> None:
    """Raise SignalError unless `mask` is bool and has the (B,H,W) of `like`."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != like.shape[:3]:
        came = f"{tuple(mask.shape)} {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
        raise SignalError(f"{name} must be a bool tensor {tuple(like.shape[:3])}, got {came}.")


def slices(pictures: Tensor) -> Iterator[slice]:
    """Pieces of a batch (B,H,W,...), so that what is computed for one piece never takes the memory of all, and the
    work can be cancelled between two."""
    step = max(1, _AT_ONCE // max(1, pictures[0].numel()))
    for start in range(0, len(pictures), step):
        interrupt.check()
        yield slice(start, start + step)


def check_scope(scope: str) -> None:
    """Raise SignalError for a scope that does not exist."""
    if scope not in SCOPES:
        raise SignalError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}.")


def percentiles(values: Tensor, points: tuple[float, float], valid: Tensor | None, scope: str) -> tuple[Tensor, Tensor]:
    """Two percentiles of each picture (scope "image"), of all together ("batch"), or running along ("video").

    values (B,H,W) float; valid (B,H,W) bool or None; points in 0..100. Between two samples the value is
    interpolated linearly, as numpy.percentile does. Returns two tensors (B,1,1); where a picture has no
    valid pixel both are 0. Raises SignalError for an unknown scope.
    """
    check_scope(scope)
    if scope == "video":
        return steady(*percentiles(values, points, valid, "image"), sketches(values, valid))
    if scope == "batch":
        chosen = values[valid] if valid is not None else values.reshape(-1)
        low, high = (_percentile(chosen, p) for p in points)
        return low.expand(len(values))[:, None, None], high.expand(len(values))[:, None, None]
    if valid is None and points == (0.0, 100.0):
        return values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    rows = list(values) if valid is None else [v[m] for v, m in zip(values, valid, strict=True)]
    pairs = []
    for row in rows:
        interrupt.check()
        pairs.append(torch.stack([_percentile(row.reshape(-1), p) for p in points]))
    low, high = torch.stack(pairs, 1)[..., None, None]
    return low, high


def sketches(values: Tensor, valid: Tensor | None = None) -> Tensor:
    """(B,H,W) as (B,16,16) means, by which `steady` tells one shot from the next. Not valid pixels count as 0."""
    shown = values if valid is None else values.masked_fill(~valid, 0.0)
    return F.adaptive_avg_pool2d(shown[:, None], 16)[:, 0]


def scene_cuts(thumbs: Tensor) -> list[int]:
    """Indices at which a new shot begins, 0 the first. thumbs (B,16,16), frames of a video in order.

    Frames are compared by shape, whatever offset and scale the estimator gave each; a cut changes it by more than
    three tenths of its deviation and by three times what frames around it change by.
    """
    if len(thumbs) < 2:
        return [0]
    flat = thumbs.flatten(1) - thumbs.mean((1, 2))[:, None]
    flat = flat / flat.square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
    change = flat.diff(dim=0).abs().mean(1).tolist()
    cuts = [0]
    for at, here in enumerate(change, 1):
        around = sorted(change[max(0, at - 1 - AHEAD) : at - 1] + change[at : at + AHEAD])
        usual = around[len(around) // 2] if around else 0.0
        if here > max(0.3, 3 * usual):
            cuts.append(at)
    return cuts


def steady(low: Tensor, high: Tensor, thumbs: Tensor) -> tuple[Tensor, Tensor]:
    """The ends (B,1,1) of each frame's range, made to move slowly within a shot and to start anew at a cut.

    The range of a frame is the widest of `AHEAD` frames before and after it, then averaged over as many: it holds
    every frame whole, and no frame pumps the brightness of its neighbours.
    """
    result = low.clone(), high.clone()
    starts = scene_cuts(thumbs)
    for start, end in zip(starts, [*starts[1:], len(low)], strict=True):
        for ends, sign in zip(result, (-1.0, 1.0), strict=True):
            shot = sign * ends[start:end].reshape(1, 1, -1)
            # Borders repeat: the mean of widest ranges stays wide enough there as well.
            widest = F.max_pool1d(F.pad(shot, (AHEAD, AHEAD), mode="replicate"), 2 * AHEAD + 1, 1)
            smooth = F.avg_pool1d(F.pad(widest, (AHEAD, AHEAD), mode="replicate"), 2 * AHEAD + 1, 1)
            # Averaging rounds, and a constant shot must keep its exact ends.
            ends[start:end] = sign * torch.maximum(smooth, shot).reshape(-1, 1, 1)
    return result


def _percentile(row: Tensor, point: float) -> Tensor:
    # torch.quantile refuses more than 2^24 elements; kthvalue does not, and needs no full sort.
    if row.numel() == 0:
        return row.new_zeros(())
    position = (row.numel() - 1) * point / 100
    below = int(position)
    low = row.amin() if below == 0 else row.kthvalue(below + 1).values
    if position == below:
        return low
    return torch.lerp(low, row.kthvalue(below + 2).values, position - below)


def stretch(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(values - low) / (high - low) clamped to 0..1; where high equals low the result is 0, never NaN."""
    span = high - low
    flat = span == 0
    return ((values - low) / torch.where(flat, torch.ones_like(span), span)).masked_fill(flat, 0.0).clamp_(0, 1)


def fill_smoothly(values: Tensor, known: Tensor) -> Tensor:
    """values (B,C,H,W) with every place that `known` (B,1,H,W) bool excludes filled from its surroundings.

    From fine to coarse the known places are averaged over twice the side, until nothing is unknown; then each unknown
    place takes the finest average there is. Known places keep their values. Every picture needs a known place.
    """
    if bool(known.all()):
        return values
    values = values.masked_fill(~known, 0.0)
    share = F.avg_pool2d(known.to(values.dtype), 2, ceil_mode=True)
    coarse = F.avg_pool2d(values, 2, ceil_mode=True) / share.clamp_min(1e-6)
    coarse = fill_smoothly(coarse, share > 0)
    return torch.where(known, values, F.interpolate(coarse, values.shape[-2:], mode="bilinear", align_corners=False))
