"""Depth: what a depth estimator predicts, with its unit and direction in the type."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError, SignalError
from . import codec, exr
from .base import Signal, format_of
from .field import check_mask, check_scope, check_shape, percentiles, sketches, slices, steady, stretch

_log = logging.getLogger(__name__)

DepthKind = Literal["metric", "affine_inverse", "scale_inverse", "affine_depth", "ordinal"]

_MEANING = {
    "metric": "1/metre",
    "affine_inverse": "a/z + b with unknown a > 0 and b",
    "scale_inverse": "a/z with unknown a > 0",
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


_STEPS = 65534  # of a 16-bit PNG, where code 0 says not valid


@dataclass(frozen=True, eq=False)
class Depth(Signal):
    """A batch of depth maps. Larger is always closer; `kind` says what the numbers are.

    values: float32 (B,H,W).
        "metric": 1/metre, infinitely far is 0.
        "affine_inverse": a/z + b with a > 0 unknown (MiDaS, Depth Anything 1 and 2).
        "scale_inverse": a/z with a > 0 unknown: right up to one factor (Depth Anything 3).
        "affine_depth": b - a*z with a > 0 unknown (Marigold).
        "ordinal": only the order means anything (Fathom Tiny).
    valid: bool (B,H,W), False where nothing was measured; None = everywhere.
    focal: focal length in pixels of this map: one number, (B,), or (B,2) = across and down; None = unknown.
    source: what made it, for people to read.
    look: the rendering published with the estimator.
    principal: where the optical axis meets this map, (B,2) = (x, y) in pixels whose centres are whole numbers; None =
        the middle, ((W-1)/2, (H-1)/2).
    confidence: how sure the estimator is, float (B,H,W), larger = surer, in a measure of its own; None = it does not
        say.

    Raises SignalError when a shape, a dtype or the kind is wrong, or when valid values are not finite.
    """

    KIND: ClassVar[str] = "depth"
    SLOTS: ClassVar[tuple[str, ...]] = ("depth",)
    FORMATS: ClassVar[tuple[str, ...]] = ("png", "png16", "exr", "npz", "safetensors", "webp")

    values: Tensor
    kind: DepthKind
    valid: Tensor | None = None
    focal: float | Tensor | None = None
    source: str = ""
    look: DepthLook = DepthLook()
    principal: Tensor | None = None
    confidence: Tensor | None = None

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
        self._check_camera()
        if self.confidence is not None:
            check_shape("confidence", self.confidence, 3)
            if self.confidence.shape != self.values.shape or not self.confidence.is_floating_point():
                raise SignalError(
                    f"confidence must be float {tuple(self.values.shape)}, got {tuple(self.confidence.shape)} "
                    f"{self.confidence.dtype}."
                )

    def _check_camera(self) -> None:
        count = len(self.values)
        if self.focal is not None:
            focal = torch.as_tensor(self.focal, dtype=torch.float64)
            if focal.shape not in ((), (count,), (count, 2)):
                raise SignalError(
                    f"focal must be one number, or ({count},) or ({count},2) numbers for {count} pictures, got shape "
                    f"{tuple(focal.shape)}."
                )
            if not bool(((focal > 0) & focal.isfinite()).all()):
                raise SignalError(f"focal must be positive and finite (pixels), got {self.focal}.")
            if focal.ndim == 0:
                object.__setattr__(self, "focal", float(focal))
        if self.principal is not None and (
            not isinstance(self.principal, Tensor)
            or self.principal.shape != (count, 2)
            or not bool(self.principal.isfinite().all())
        ):
            raise SignalError(f"principal must be finite pixels ({count},2), got {self.principal}.")

    def camera(self) -> Tensor | None:
        """(B,4): focal length across and down, and x and y of the optical axis, in pixels of this map; float32 on its
        device. None without a focal length."""
        if self.focal is None:
            return None
        count, height, width = self.values.shape
        focal = torch.as_tensor(self.focal, dtype=torch.float32, device=self.values.device)
        focal = focal.reshape(-1, 1).expand(count, 2) if focal.ndim < 2 else focal
        middle = focal.new_tensor([(width - 1) / 2, (height - 1) / 2]).expand(count, 2)
        return torch.cat([focal, middle if self.principal is None else self.principal.to(focal)], 1)

    def lens_at(self, height: int, width: int) -> dict[str, Any]:
        """`focal` and `principal` of this depth resized to another height and width: the fields for `replace`."""
        down, across = height / self.values.shape[1], width / self.values.shape[2]
        focal, principal = self.focal, self.principal
        if isinstance(focal, Tensor) and focal.ndim == 2 or (focal is not None and abs(down - across) > 1e-9):
            lens = torch.as_tensor(focal, dtype=torch.float32, device=self.values.device)
            lens = lens.reshape(-1, 1) if lens.ndim < 2 else lens
            focal = lens.expand(len(self), 2) * lens.new_tensor([across, down])
        elif focal is not None:
            focal = focal * across
        if principal is not None:
            # The centre of the first pixel is 0, its border -1/2.
            principal = (principal + 0.5) * principal.new_tensor([across, down]) - 0.5
        return {"focal": focal, "principal": principal}

    @property
    def unit(self) -> str:
        """What one number of `values` means, for people to read."""
        return _MEANING[self.kind]

    def metres(self, near: float | None = None, far: float | None = None) -> Tensor:
        """Distance along the optical axis in metres, float32 (B,H,W); infinite where nothing stands.

        A metric depth needs no arguments. An affine depth has no metres of its own: it needs the distances
        `near` and `far` (metres, 0 < near < far) of its closest and farthest valid pixel; a depth up to one factor
        needs one of them. Not valid pixels come back as they were computed. Raises SignalError when the distances are
        missing, or for an ordinal depth, whose differences mean nothing.
        """
        if self.kind == "metric" and (near is not None or far is not None):
            raise SignalError("a metric depth has its own metres: leave near and far out.")
        return self.inverse(near, far).reciprocal()

    def inverse(self, near: float | None = None, far: float | None = None) -> Tensor:
        """Inverse distance in 1/metre, float32 (B,H,W). Arguments and errors as in `metres`."""
        if self.kind == "metric":
            return self.values
        if self.kind == "ordinal":
            raise SignalError(
                f"{self.source or 'this depth'} gives order only, so distances cannot be had from it. "
                "Use a metric estimator, or one that gives affine depth together with near and far."
            )
        if self.kind == "scale_inverse" and (near is None) != (far is None):
            return self._scaled(near, far)
        if near is None or far is None:
            if self.kind == "scale_inverse":
                raise SignalError(
                    f"{self.source or 'this depth'} is right up to one factor ({self.unit}): metres need one known "
                    "distance. Give near or far in metres, or use a metric estimator."
                )
            raise SignalError(
                f"{self.source or 'this depth'} is {self.kind} ({self.unit}): metres need two known distances. "
                "Give near and far in metres, or use a metric estimator."
            )
        if not 0 < near < far:
            raise SignalError(f"near and far must be metres with 0 < near < far, got near={near}, far={far}.")
        share = self.unit_range()
        if self.kind in ("affine_inverse", "scale_inverse"):
            return torch.lerp(share.new_tensor(1 / far), share.new_tensor(1 / near), share)
        return torch.lerp(share.new_tensor(far), share.new_tensor(near), share).reciprocal()

    def _scaled(self, near: float | None, far: float | None) -> Tensor:
        """1/metre of a depth up to one factor whose closest, or farthest, valid pixel is that many metres away."""
        known = near if far is None else far
        if known is None or not 0 < known < float("inf"):
            raise SignalError(f"a known distance must be metres above 0, got {known}.")
        low, high = percentiles(self.values, (0.0, 100.0), self.valid, "image")
        end = high if far is None else low
        if bool((end <= 0).any()):
            raise SignalError(
                "the farthest pixel is infinitely far, which tells no factor: give the distance of the closest one."
            )
        return self.values / (end * known)

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
        metres = Depth(values, self.kind, valid, source=self.source).metres()
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

    # ------------------------------------------------------------------------------ files

    def encode(
        self,
        path: str | Path,
        format: str | None = None,
        texts: Mapping[str, str] | None = None,
        *,
        metres: bool = False,
        ends: tuple[float, float] | None = None,
    ) -> dict[Path, bytes]:
        """As `Signal.encode`. "png16": 1..65535 from low to high, near = white, 0 = not valid; the description as text
        in the file and beside it as .json. Back come the same 16-bit numbers: values within half a step. "exr": channel
        Z, NaN = not valid; back come the same bits.

        metres: EXR only: Z holds metres instead of `values`, as renderers and compositors expect; the depth must be
        metric. Metres come back exactly, 1/metre to the last bit but one. ends: png16 only: the values that become
        black and white, which must enclose those of the picture; None = its own least and greatest.
        """
        path = Path(path)
        format = super().check_format(format or format_of(path, self.FORMATS))
        if metres and format != "exr":
            raise SettingError(f"metres can be written to .exr only, not to {path.suffix}.")
        if format not in ("png16", "exr"):
            return super().encode(path, format, texts)
        one = self.one(format).to("cpu")
        metadata, _ = one.pack()
        metadata |= {"focal": one._number_of("focal"), "principal": one._number_of("principal")}
        if format == "png16":
            codes, low, high = one._codes(ends)
            about = codec.described(self.KIND, metadata, low=low, high=high)
            aside = codec.described(self.KIND, metadata, low=low, high=high, indent=1)
            return {
                path.with_suffix(".json"): aside.encode(),
                path: codec.png16(codes, {codec.KEY: about, **(texts or {})}),
            }
        plane = one.metres() if metres else one.values
        if one.valid is not None:
            plane = plane.masked_fill(~one.valid, torch.nan)
        about = codec.described(self.KIND, metadata, stored="metres" if metres else "values")
        return {path: exr.encode(plane[0], {codec.KEY: about, **(texts or {})})}

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        metadata, tensors = super().pack()
        return {**metadata, "unit": self.unit, "masked": self.valid is not None}, tensors

    @classmethod
    def _word(cls, name: str, value: Any) -> Any:
        if name != "look":
            return value
        fixed = value.get("fixed")
        ends = None if fixed is None else (float(fixed[0]), float(fixed[1]))
        return DepthLook(value["space"], float(value["low"]), float(value["high"]), ends)

    @classmethod
    def from_file(cls, content: codec.Content) -> Depth:
        if content.format not in ("png16", "exr"):
            return super().from_file(content)
        about, plane = content.metadata, content.tensors["plane"]
        plane = plane[..., 0] if plane.ndim == 3 else plane
        if content.format == "exr":
            known = ~plane.isnan()[None]
            values = plane[None].masked_fill(~known, 0.0)
            if about["stored"] == "metres":
                values = depth_from_metres(plane[None], valid=known).values
        else:
            low, high = float(about["low"]), float(about["high"])
            known = plane[None] > 0
            values = (low + (high - low) * (plane[None].double() - 1) / _STEPS).float().masked_fill(~known, 0.0)
        tensors = {"values": values, **({"valid": known} if about["masked"] else {})}
        for name in ("focal", "principal"):
            if isinstance(about.get(name), list):
                tensors[name] = torch.tensor(about[name], dtype=torch.float32)[None]
        return cls.unpack(about, tensors)

    def _number_of(self, name: str) -> Any:
        """A field of one picture as JSON takes it."""
        value = getattr(self, name)
        return value[0].tolist() if isinstance(value, Tensor) else value

    def _codes(self, ends: tuple[float, float] | None) -> tuple[Tensor, float, float]:
        """The 16-bit codes (H,W) of one picture, and the values that codes 1 and 65535 stand for."""
        seen = self.values if self.valid is None else self.values[self.valid]
        low, high = own = (float(seen.amin()), float(seen.amax())) if seen.numel() else (0.0, 0.0)
        if ends is not None:
            low, high = ends
            if own[0] < low or own[1] > high:
                raise SettingError(f"ends must enclose the values {own[0]:g}..{own[1]:g}, got {low:g}..{high:g}.")
        share = (self.values[0].double() - low) / ((high - low) or 1.0)
        if self.valid is not None:
            share = share.masked_fill(~self.valid[0], 0.0)
        codes = share.mul_(_STEPS).round_().add_(1)
        return (codes if self.valid is None else codes.masked_fill_(~self.valid[0], 0.0)).int(), low, high

    def _blank(self, field: Tensor) -> Tensor:
        return field if self.valid is None else field.masked_fill(~self.valid, 0.0)


def depth_from_metres(
    metres: Tensor,
    *,
    valid: Tensor | None = None,
    focal: float | Tensor | None = None,
    source: str = "",
    look: DepthLook | None = None,
    principal: Tensor | None = None,
    confidence: Tensor | None = None,
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
    shown = look or DepthLook("metres")
    return Depth(values, "metric", None if whole else known, focal, source, shown, principal, confidence)


def to_metric(depth: Depth, near: float | None = None, far: float | None = None, focal: float | None = None) -> Depth:
    """The same depth in metres: where tools that need metres take it, and the one place where it is made.

    near, far: metres of the closest and the farthest valid pixel of each picture; lone pixels far beyond all others do
    not count as such and take the end (`without_hot_pixels`). A metric depth needs neither, and is handed back; an
    affine one needs both; one right up to a factor needs one of them. focal: a focal length in pixels of this map where
    the depth has none. Raises SignalError telling what is missing.
    """
    lens = depth.focal if depth.focal is not None else focal
    if depth.kind == "metric" and near is None and far is None:
        return depth if lens is depth.focal else replace(depth, focal=lens)
    if depth.kind == "metric":
        raise SignalError("a metric depth has its own metres: leave near and far out.")
    values = without_hot_pixels(depth).inverse(near, far)
    if depth.valid is not None:
        values = values.masked_fill(~depth.valid, 0.0)
    return replace(depth, values=values, kind="metric", focal=lens, look=DepthLook("metres"))


def focal_of_view(field_of_view: float, width: int) -> float:
    """The focal length, in pixels of a picture `width` pixels wide, of a horizontal field of view in degrees.

    Raises SettingError for an angle outside 0..180, and for one so small that its focal length is no number.
    """
    half = math.tan(math.radians(field_of_view) / 2) if 0 < field_of_view < 180 else 0.0
    if half <= 1e-12:
        raise SettingError(f"the field of view must lie between 0 and 180 degrees, got {field_of_view}.")
    return width / 2 / half


def without_hot_pixels(depth: Depth) -> Depth:
    """The depth with lone pixels that stand far out moved to the ends of all others; itself where there are none.

    Far out is a tenth of the range of all but the outermost thousandth (at least 4 pixels) at either end; lone are
    fewer than 4 such pixels within 5x5. How many, and in which picture, is told in the log.
    """
    pictures, changed = [], False
    for index in range(len(depth)):
        values = depth.values[index]
        seen = values.flatten() if depth.valid is None else values[depth.valid[index]]
        rank = max(4, len(seen) // 1000)
        if len(seen) < 64:
            pictures.append(values)
            continue
        low, high = seen.kthvalue(rank).values, seen.kthvalue(len(seen) + 1 - rank).values
        margin = 0.1 * (high - low)
        hot = _lone(values > high + margin, depth.valid, index) | _lone(values < low - margin, depth.valid, index)
        count = int(hot.sum())
        if count:
            kept = values[~hot] if depth.valid is None else values[~hot & depth.valid[index]]
            values = torch.where(hot, values.clamp(kept.amin(), kept.amax()), values)
            _log.warning(
                "%d lone pixels of picture %d stand far out from all others (as hot pixels do): they do not count as "
                "its closest or farthest.",
                count,
                index + 1,
            )
            changed = True
        pictures.append(values)
    return replace(depth, values=torch.stack(pictures)) if changed else depth


def _lone(out: Tensor, valid: Tensor | None, index: int) -> Tensor:
    """The pixels (H,W) of `out` that have fewer than 3 others of it within 5x5."""
    if valid is not None:
        out = out & valid[index]
    if not bool(out.any()):
        return out
    beside = F.avg_pool2d(out[None, None].float(), 5, 1, 2)[0, 0] * 25
    return out & (beside < 3.5)
