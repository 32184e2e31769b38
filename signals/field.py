"""Checks and statistics that every signal shares."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SignalError

SCOPES = ("image", "batch")


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


def percentiles(values: Tensor, points: tuple[float, float], valid: Tensor | None, scope: str) -> tuple[Tensor, Tensor]:
    """Two percentiles of each picture (scope "image") or of all together ("batch").

    values (B,H,W) float; valid (B,H,W) bool or None; points in 0..100. Between two samples the value is
    interpolated linearly, as numpy.percentile does. Returns two tensors (B,1,1); where a picture has no
    valid pixel both are 0. Raises SignalError for an unknown scope.
    """
    if scope not in SCOPES:
        raise SignalError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}.")
    if scope == "batch":
        chosen = values[valid] if valid is not None else values.reshape(-1)
        low, high = (_percentile(chosen, p) for p in points)
        return low.expand(len(values))[:, None, None], high.expand(len(values))[:, None, None]
    if valid is None and points == (0.0, 100.0):
        return values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    rows = list(values) if valid is None else [v[m] for v, m in zip(values, valid, strict=True)]
    pairs = [[_percentile(row.reshape(-1), p) for row in rows] for p in points]
    low, high = (torch.stack(p)[:, None, None] for p in pairs)
    return low, high


def _percentile(row: Tensor, point: float) -> Tensor:
    # torch.quantile refuses more than 2^24 elements; kthvalue does not, and needs no full sort.
    if row.numel() == 0:
        return row.new_zeros(())
    place = (row.numel() - 1) * point / 100
    below = int(place)
    low = row.amin() if below == 0 else row.kthvalue(below + 1).values
    if place == below:
        return low
    return torch.lerp(low, row.kthvalue(below + 2).values, place - below)


def stretch(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(values - low) / (high - low) clamped to 0..1; where high equals low the result is 0, never NaN."""
    span = high - low
    flat = span == 0
    return ((values - low) / torch.where(flat, torch.ones_like(span), span)).masked_fill(flat, 0.0).clamp_(0, 1)
