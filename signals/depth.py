"""Depth: what a depth estimator predicts, with its unit and direction in the type."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import SignalError
from .field import check_mask, check_scope, check_shape, on_device, percentiles, sketches, slices, steady, stretch

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
        bad, least = 0, 0.0
        for at in slices(self.values):
            seen = self.values[at] if self.valid is None else self.values[at][self.valid[at]]
            # One sum tells the usual case without a mask; a finite overflow counts no bad value below.
            if not bool(seen.sum().isfinite()):
                bad += int((~seen.isfinite()).sum())
            elif self.kind == "metric" and seen.numel():
                least = min(least, float(seen.amin()))
        if bad:
            raise SignalError(
                f"{bad} of {self.values.numel()} depth values of {self.source or 'an unnamed source'} are NaN or "
                "infinite. Run the estimator in float32, or mark the pixels as not valid."
            )
        if least < 0:
            raise SignalError(f"metric depth holds 1/metre and cannot be negative, got {least:.4g}.")
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
        """The same depth on `device`; itself where it lies there."""
        return on_device(self, device)

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

        scope: "image" takes the percentiles of each picture, "batch" those of the whole batch, "video" a range that
        moves slowly along the frames of a shot and begins anew at a cut. A constant picture gives 0. Not valid pixels
        give 0.
        """
        ends = percentiles(self.values, (low, high), self.valid, scope)
        return self._blank(stretch(self.values, *ends))

    def to_image(self, scope: str = "image", look: DepthLook | None = None) -> Tensor:
        """The grey picture of this depth, float32 (B,H,W,3) in 0..1, near = white.

        look: None = the one published with the estimator. scope: as in `unit_range`.
        Not valid pixels are black. Raises SignalError when the look needs metres and the kind has none.
        """
        look = look or self.look
        low, high = self._ends(look, scope)
        image = self.values.new_empty(*self.values.shape, 3)
        for at in slices(image):
            values, seen = self._space(look, at)
            grey = stretch(values, low[at], high[at])
            if look.space == "metres":
                grey = (1 - grey).masked_fill(low[at] == high[at], 0.0)
            image[at] = (grey if seen is None else grey.masked_fill(~seen, 0.0))[..., None]
        return image

    def _space(self, look: DepthLook, at: slice) -> tuple[Tensor, Tensor | None]:
        """The numbers that a look shows, and which of them take part, None = all."""
        values, valid = self.values[at], None if self.valid is None else self.valid[at]
        if look.space == "values":
            return values, valid
        # Sky has no distance: infinity would swallow the percentiles, so it takes no part and renders black.
        metres = replace(self, values=values, valid=valid, focal=None).metres()
        seen = metres.isfinite() if valid is None else metres.isfinite() & valid
        return (metres, None) if bool(seen.all()) else (metres.masked_fill(~seen, 0.0), seen)

    def _ends(self, look: DepthLook, scope: str) -> tuple[Tensor, Tensor]:
        """The numbers (B,1,1) that become black and white in the space of the look."""
        check_scope(scope)
        if look.fixed is not None:
            low, high = (self.values.new_tensor(end).expand(len(self), 1, 1) for end in look.fixed)
            return low, high
        points = look.low, look.high
        if scope == "batch":
            values, seen = self._space(look, slice(None))
            return percentiles(values, points, seen, scope)
        pairs = []
        for at in slices(self.values):
            values, seen = self._space(look, at)
            pairs.append(percentiles(values, points, seen, "image"))
        low, high = (torch.cat([pair[end] for pair in pairs]) for end in (0, 1))
        if scope == "image":
            return low, high
        valid = self.valid
        thumbs = [sketches(self.values[at], None if valid is None else valid[at]) for at in slices(self.values)]
        return steady(low, high, torch.cat(thumbs))

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
