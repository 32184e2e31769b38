"""Depth: what a depth estimator predicts, with its unit and direction in the type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import SignalError
from .field import check_mask, check_shape, percentiles, stretch

DepthKind = Literal["metric", "affine_inverse", "affine_depth", "ordinal"]

_MEANING = {
    "metric": "1/metre",
    "affine_inverse": "a/z + b with unknown a > 0 and b",
    "affine_depth": "b - a*z with unknown a > 0 and b",
    "ordinal": "order only",
}


@dataclass(frozen=True)
class DepthLook:
    """How a depth becomes the picture that a ControlNet was trained on.

    space: "values" (larger = closer, as stored) or "metres" (the metric distance, turned so that near is white).
    low, high: the percentiles, 0..100, of that space which become the ends of the grey scale.
    fixed: (low, high) in that space instead of percentiles.
    """

    space: Literal["values", "metres"] = "values"
    low: float = 0.0
    high: float = 100.0
    fixed: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Depth:
    """A batch of depth maps. Larger is always closer; `kind` says what the numbers are.

    values: float32 (B,H,W).
        "metric": 1/metre, infinitely far is 0.
        "affine_inverse": a/z + b with a > 0 unknown (MiDaS, Depth Anything).
        "affine_depth": b - a*z with a > 0 unknown (Marigold).
        "ordinal": only the order means anything (Fathom Tiny).
    valid: bool (B,H,W), False where nothing was measured; None = everywhere.
    focal: focal length in pixels of this map's width and height, one per picture, or None.
    source: what made it, for people to read.
    look: the rendering published with the estimator.

    Raises SignalError when a shape, a dtype or the kind is wrong, or when valid values are not finite.
    """

    values: Tensor
    kind: DepthKind
    valid: Tensor | None = None
    focal: float | Tensor | None = None
    source: str = ""
    look: DepthLook = DepthLook()

    def __post_init__(self) -> None:
        check_shape("depth values", self.values, 3)
        if self.values.dtype != torch.float32:
            raise SignalError(f"depth values must be float32, got {self.values.dtype}: call .float() first.")
        if self.kind not in get_args(DepthKind):
            raise SignalError(f"depth kind must be one of {', '.join(get_args(DepthKind))}, got {self.kind!r}.")
        if self.valid is not None:
            check_mask("valid", self.valid, self.values)
        good = self.values.isfinite() if self.valid is None else self.values.isfinite() | ~self.valid
        if not bool(good.all()):
            count = int((~good).sum())
            raise SignalError(
                f"{count} of {good.numel()} depth values of {self.source or 'an unnamed source'} are NaN or infinite. "
                "Run the estimator in float32, or mark the pixels as not valid."
            )
        if self.kind == "metric":
            shown = self.values if self.valid is None else self.values[self.valid]
            if shown.numel() and float(shown.amin()) < 0:
                raise SignalError(
                    f"metric depth holds 1/metre and cannot be negative, got {float(shown.amin()):.4g}."
                )
        if self.focal is not None:
            self._check_focal()

    def _check_focal(self) -> None:
        focal = torch.as_tensor(self.focal, dtype=torch.float64)
        if focal.ndim > 1 or (focal.ndim == 1 and len(focal) != len(self.values)):
            raise SignalError(
                f"focal must be one number or one per picture ({len(self.values)}), got shape {tuple(focal.shape)}."
            )
        if not bool(((focal > 0) & focal.isfinite()).all()):
            raise SignalError(f"focal must be positive and finite (pixels), got {self.focal}.")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int | slice) -> Depth:
        """The picture or pictures at `index`, still as a batch."""
        at = slice(index, index + 1 or None) if isinstance(index, int) else index
        focal = self.focal[at] if isinstance(self.focal, Tensor) and self.focal.ndim == 1 else self.focal
        valid = None if self.valid is None else self.valid[at]
        return replace(self, values=self.values[at], valid=valid, focal=focal)

    def to(self, device: torch.device | str) -> Depth:
        """The same depth on `device`."""
        return replace(
            self,
            values=self.values.to(device),
            valid=None if self.valid is None else self.valid.to(device),
            focal=self.focal.to(device) if isinstance(self.focal, Tensor) else self.focal,
        )

    @property
    def unit(self) -> str:
        """What one number of `values` means, for people to read."""
        return _MEANING[self.kind]

    def metres(self, near: float | None = None, far: float | None = None) -> Tensor:
        """Distance along the optical axis in metres, float32 (B,H,W); infinite where nothing stands.

        A metric depth needs no arguments. An affine depth has no metres of its own: it needs the distances
        `near` and `far` (metres, 0 < near < far) of its closest and farthest valid pixel. Not valid pixels
        come back as they were computed. Raises SignalError when the distances are missing, or for an
        ordinal depth, whose differences mean nothing.
        """
        if self.kind == "metric":
            if near is not None or far is not None:
                raise SignalError("a metric depth has its own metres: leave near and far out.")
            return self.values.reciprocal()
        inverse = self.inverse(near, far)
        return inverse.reciprocal()

    def inverse(self, near: float | None = None, far: float | None = None) -> Tensor:
        """Inverse distance in 1/metre, float32 (B,H,W). Arguments and errors as in `metres`."""
        if self.kind == "metric":
            return self.values
        if self.kind == "ordinal":
            raise SignalError(
                f"{self.source or 'this depth'} gives order only, so distances cannot be had from it. "
                "Use a metric estimator, or one that gives affine depth together with near and far."
            )
        if near is None or far is None:
            raise SignalError(
                f"{self.source or 'this depth'} is {self.kind} ({self.unit}): metres need two known distances. "
                "Give near and far in metres, or use a metric estimator."
            )
        if not 0 < near < far:
            raise SignalError(f"near and far must be metres with 0 < near < far, got near={near}, far={far}.")
        share = self.unit_range()
        if self.kind == "affine_inverse":
            return torch.lerp(share.new_tensor(1 / far), share.new_tensor(1 / near), share)
        return torch.lerp(share.new_tensor(far), share.new_tensor(near), share).reciprocal()

    def unit_range(self, scope: str = "image", low: float = 0.0, high: float = 100.0) -> Tensor:
        """`values` with their `low` and `high` percentile moved to 0 and 1 and clamped: float32 (B,H,W), 1 = closest.

        scope: "image" takes the percentiles of each picture, "batch" those of the whole batch (a video must not
        flicker). A constant picture gives 0. Not valid pixels give 0.
        """
        ends = percentiles(self.values, (low, high), self.valid, scope)
        return self._blank(stretch(self.values, *ends))

    def to_image(self, scope: str = "image", look: DepthLook | None = None) -> Tensor:
        """The grey picture of this depth, float32 (B,H,W,3) in 0..1, near = white.

        look: None = the one published with the estimator. scope: "image" or "batch", as in `unit_range`.
        Not valid pixels are black. Raises SignalError when the look needs metres and the kind has none.
        """
        look = look or self.look
        if look.space == "values":
            values = self.values
            low, high = self._ends(values, look, self.valid, scope)
            grey = stretch(values, low, high)
        else:
            # Sky has no distance: infinity would swallow the percentiles, so it takes no part and renders black.
            metres = self.metres()
            seen = metres.isfinite() if self.valid is None else metres.isfinite() & self.valid
            metres = metres.masked_fill(~seen, 0.0)
            low, high = self._ends(metres, look, None if bool(seen.all()) else seen, scope)
            grey = (1 - stretch(metres, low, high)).masked_fill(~seen | (low == high), 0.0)
        return self._blank(grey)[..., None].expand(*grey.shape, 3).contiguous()

    def _ends(self, values: Tensor, look: DepthLook, valid: Tensor | None, scope: str) -> tuple[Tensor, Tensor]:
        if look.fixed is None:
            return percentiles(values, (look.low, look.high), valid, scope)
        low, high = (values.new_tensor(end).expand(len(values), 1, 1) for end in look.fixed)
        return low, high

    def _blank(self, field: Tensor) -> Tensor:
        return field if self.valid is None else field.masked_fill(~self.valid, 0.0)


def depth_from_metres(
    metres: Tensor,
    *,
    valid: Tensor | None = None,
    focal: float | Tensor | None = None,
    source: str = "",
    look: DepthLook | None = None,
) -> Depth:
    """A metric Depth from distances along the optical axis.

    metres: float (B,H,W). Infinite is infinitely far (0 in 1/metre). Zero, negative and NaN distances are no
    measurement: they become not valid.
    """
    check_shape("metres", metres, 3)
    metres = metres.float()
    known = metres > 0
    if valid is not None:
        check_mask("valid", valid, metres)
        known &= valid
    values = torch.where(known, metres, torch.ones_like(metres)).reciprocal().masked_fill(~known, 0.0)
    whole = bool(known.all())
    return Depth(values, "metric", None if whole else known, focal, source, look or DepthLook("metres"))


def stack_depths(parts: Sequence[Depth]) -> Depth:
    """One Depth from several of the same size and kind, in order. Raises SignalError when they differ."""
    if not parts:
        raise SignalError("there are no depths to put together.")
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if part.kind != first.kind or part.values.shape[1:] != first.values.shape[1:]:
            raise SignalError(
                f"depths differ: {first.kind} {tuple(first.values.shape[1:])} and "
                f"{part.kind} {tuple(part.values.shape[1:])} cannot stand in one batch."
            )
    valid = None
    if any(p.valid is not None for p in parts):
        valid = torch.cat([torch.ones_like(p.values, dtype=torch.bool) if p.valid is None else p.valid for p in parts])
    focal = first.focal
    if any(p.focal is not None for p in parts):
        if any(p.focal is None for p in parts):
            raise SignalError("some of the depths have a focal length and some have none.")
        focal = torch.cat([torch.as_tensor(p.focal, dtype=torch.float32).reshape(-1).expand(len(p)) for p in parts])
    return replace(first, values=torch.cat([p.values for p in parts]), valid=valid, focal=focal)
