"""Depth of field: the blur of a lens with a real aperture."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..annotator import host
from ..annotator.pictures import as_pixels
from ..errors import SettingError, SignalError
from ..signals import Depth
from ..signals.field import Scope, percentiles
from .pixels import (
    check_choice,
    check_range,
    match_depth,
    match_mask,
    nth,
    nth_depth,
    to_linear,
    to_srgb,
    together,
)

FocusBy = Literal["value", "metres", "point", "mask"]

_SHARP = 0.5  # pixels of radius of the sharpest layer that is blurred
_STEP = 0.75  # pixels of radius between layers of little blur
_TILE = 2048  # what is worked on at once: bounds the memory
_BLOCK = 128  # squares of a layer that are transformed, or left out where nothing of it lies
_FINE = 6  # samples per pixel and axis along the rim of the aperture


def lens_blur(
    image: Any,
    depth: Depth,
    radius: float = 12.0,
    focus_by: FocusBy = "value",
    focus: float = 1.0,
    point: tuple[float, float] = (0.5, 0.5),
    mask: Tensor | None = None,
    highlights: float = 0.0,
    blades: int = 0,
    rotation: float = 0.0,
    scope: Scope = "image",
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """A picture as a lens with a wide aperture sees it: (IMAGE (B,H,W,3), blur as MASK (B,H,W): radius / `radius`).

    The circle of confusion has the radius `radius` * |inverse - focus| pixels, where inverse is the inverse distance,
    0 at the farthest and 1 at the closest pixel (of each picture or of the batch: `scope`). That is the law of a thin
    lens for metric, affine_inverse and scale_inverse depth; the values of an affine_depth are taken as they are, unless
    `to_metric` made it metric, as those of an ordinal depth always are.

    focus_by: "value": `focus` in 0..1, 1 = closest. "metres": `focus` metres, for a metric depth.
    "point": what `point`, (x, y) as shares of width and height, shows. "mask": the median of what `mask` covers.
    highlights: 0..1, how much brighter than white the brightest light is taken to be before it spreads (1/(1-0.95h)).
    blades: 3 or more = an aperture with so many straight blades, turned by `rotation` degrees; 0 = a disc.

    The picture is cut into layers of equal blur. Each spreads as a whole, and they are laid over each other from
    front to back, so foreground spreads over what is sharp behind it, and nothing behind ever bleeds onto what stands
    before it; what the foreground hid is continued from its surroundings. Light is blurred, not stored values. Where
    the depth is not valid the picture counts as in focus. device: where to compute; None = where the image lies.

    Raises SettingError or SignalError for a focus that cannot be found and values out of range.
    """
    check_choice("focus_by", focus_by, get_args(FocusBy))
    check_range("radius", radius, 0, 500)
    check_range("highlights", highlights, 0, 1)
    check_range("rotation", rotation, -360, 360)
    if blades not in (0, *range(3, 33)):
        raise SettingError(f"blades must be 0 (a disc) or 3..32, got {blades}.")
    pixels = as_pixels(image)
    depth = match_depth(depth, pixels)
    chosen = match_mask(mask, pixels.shape[-2], pixels.shape[-1], pixels.device) if mask is not None else None
    count = together(image=len(pixels), depth=len(depth), mask=1 if chosen is None else len(chosen))
    share, low, high = _shares(depth, scope)
    where = _focus(depth, share, low, high, focus_by, focus, point, chosen, count)
    lens = _Lens(radius, blades, rotation, device or pixels.device)
    gain = 0.95 * highlights
    picture = pixels.new_empty(count, *pixels.shape[-2:], 3)
    amount = pixels.new_empty(count, *pixels.shape[-2:])
    corners = _tiles(pixels.shape[-2], pixels.shape[-1], lens.tile)
    with host.progress(count * len(corners), "Lens blur", "tile") as bar:
        for i in range(count):
            offset = nth(share, i)[0] - where[i]
            valid = nth_depth(depth, i).valid
            if valid is not None:
                offset = offset.masked_fill(~valid[0], 0.0)
            amount[i] = offset.abs().clamp(0, 1)
            layers = lens.layer(offset * radius)
            for rows, columns in corners:
                picture[i, rows, columns] = _blur_tile(nth(pixels, i)[0], layers, rows, columns, lens, gain, device)
                bar.update()
    return picture, amount


# ---------------------------------------------------------------------------------------------- focus


def _shares(depth: Depth, scope: Scope) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse distance from 0 (farthest) to 1 (closest), and the inverse distances (B,1,1) of these ends, if known."""
    if depth.kind != "metric":
        unknown = depth.values.new_full((len(depth), 1, 1), math.nan)
        return depth.unit_range(scope), unknown, unknown
    low, high = percentiles(depth.values, (0.0, 100.0), depth.valid, scope)
    return depth.unit_range(scope), low, high


def _focus(
    depth: Depth,
    share: Tensor,
    low: Tensor,
    high: Tensor,
    focus_by: FocusBy,
    focus: float,
    point: tuple[float, float],
    mask: Tensor | None,
    count: int,
) -> list[float]:
    """The share in focus, one per picture."""
    if focus_by == "value":
        check_range("focus", focus, 0, 1)
        return [focus] * count
    if focus_by == "metres":
        check_range("focus", focus, 1e-6)
        if bool(low.isnan().all()):
            raise SignalError(
                f"this depth is {depth.kind} and has no metres of its own: give near and far, or focus by value."
            )
        at = (1 / focus - low) / (high - low).clamp_min(1e-12)
        return [float(nth(at, i)) for i in range(count)]
    height, width = share.shape[1:]
    places = []
    for i in range(count):
        valid = nth_depth(depth, i).valid
        near_by = torch.zeros(height, width, dtype=torch.bool, device=share.device)
        if focus_by == "mask":
            if mask is None:
                raise SettingError("focus by mask needs a mask: connect one.")
            near_by = nth(mask, i)[0] >= 0.5
        else:
            check_range("point x", point[0], 0, 1)
            check_range("point y", point[1], 0, 1)
            row, column = min(int(point[1] * height), height - 1), min(int(point[0] * width), width - 1)
            near_by[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        if valid is not None:
            near_by = near_by & valid[0]
        if not bool(near_by.any()):
            reason = "the mask is empty, or covers" if focus_by == "mask" else "the point shows"
            raise SignalError(f"nothing to focus on in picture {i}: {reason} only pixels whose depth is not valid.")
        places.append(float(nth(share, i)[0][near_by].median()))
    return places


# ---------------------------------------------------------------------------------------------- layers


class _Lens:
    """The radii of the layers and their spread functions. Layer 0 is sharp, positive ones lie before the focus."""

    def __init__(self, most: float, blades: int, rotation: float, device: torch.device) -> None:
        radii = [0.0, min(_SHARP, most)]
        while radii[-1] < most:
            radii.append(max(radii[-1] + _STEP, radii[-1] * 1.08))
        radii[-1] = most
        self.radii = radii
        self.reach = math.ceil(most) + 1
        self.tile = max(_TILE, 2 * self.reach)
        self.block = max(_BLOCK, 2 * self.reach)
        self.device = device
        self._blades, self._turn = blades, math.radians(rotation)
        self._spectra: dict[int, Tensor] = {}

    def layer(self, signed: Tensor) -> Tensor:
        """The layer of each signed radius (H,W), int16."""
        edges = torch.tensor([(a + b) / 2 for a, b in zip(self.radii, self.radii[1:], strict=False)])
        index = torch.bucketize(signed.abs(), edges.to(signed))
        return (index * signed.sign()).to(torch.int16)

    def kernel(self, layer: int) -> Tensor:
        """How one point of `layer` spreads: float32 (k,k), sum 1. Before the focus the aperture shows upside down."""
        radius = self.radii[abs(layer)]
        reach = math.ceil(radius)
        fine = (torch.arange((2 * reach + 1) * _FINE) + 0.5) / _FINE - reach - 0.5
        x, y = fine[None, :], fine[:, None]
        if self._blades:
            angle = torch.atan2(y, x) - self._turn
            step = 2 * math.pi / self._blades
            inner = math.cos(step / 2)
            inside = torch.hypot(x, y) * torch.cos(torch.remainder(angle, step) - step / 2) <= radius * inner
        else:
            inside = torch.hypot(x, y) <= radius
        spread = F.avg_pool2d(inside.float()[None, None], _FINE)[0, 0]
        return (spread if layer < 0 else spread.flip(0, 1)) / spread.sum()

    def spread(self, light: Tensor, layer: Tensor, this: int, into: Tensor) -> list[tuple[slice, slice]]:
        """Add what the part of a picture in one layer spreads to `into` (4,H,W): light times coverage, and coverage.

        light (3,H,W); layer (H,W). Returns the places that may have changed, which do not overlap. Only squares that
        hold some of the layer are transformed, each by itself: it stays in the processor's cache. What leaves the frame
        is lost.
        """
        height, width = layer.shape
        side, reach = self.block, math.ceil(self.radii[abs(this)])
        size = _fast(side + 2 * reach)
        spectrum = self._spectrum(this, size)
        touched: set[tuple[int, int]] = set()
        for top in range(0, height, side):
            for left in range(0, width, side):
                at = slice(top, min(top + side, height)), slice(left, min(left + side, width))
                mine = layer[at] == this
                if not bool(mine.any()):
                    continue
                planes = torch.cat([light[(slice(None), *at)] * mine, mine[None].to(light)])
                blurred = torch.fft.irfft2(torch.fft.rfft2(planes, (size, size)) * spectrum, (size, size))
                # The kernel's middle lies at `reach`: what comes begins that much before the square.
                y, x = max(top - reach, 0), max(left - reach, 0)
                bottom, right = min(at[0].stop + reach, height), min(at[1].stop + reach, width)
                from_y, from_x = y - top + reach, x - left + reach
                into[:, y:bottom, x:right] += blurred[:, from_y : from_y + bottom - y, from_x : from_x + right - x]
                rows = range(y // side * side, bottom, side)
                columns = range(x // side * side, right, side)
                touched.update((r, c) for r in rows for c in columns)
        return [(slice(r, min(r + side, height)), slice(c, min(c + side, width))) for r, c in touched]

    def _spectrum(self, this: int, size: int) -> Tensor:
        if (kept := self._spectra.get(this)) is None:
            kept = self._spectra[this] = torch.fft.rfft2(self.kernel(this), (size, size)).to(self.device)
        return kept

    def surround(self, planes: Tensor) -> Tensor:
        """Planes (C,h,w) spread over a cone as wide as the widest blur."""
        height, width = planes.shape[-2:]
        at = torch.arange(-self.reach, self.reach + 1, device=planes.device, dtype=torch.float32)
        weight = (self.reach + 1 - torch.hypot(at[None, :], at[:, None])).clamp_min(0)
        size = tuple(_fast(side + 2 * self.reach) for side in (height, width))
        blurred = torch.fft.irfft2(torch.fft.rfft2(planes, size) * torch.fft.rfft2(weight / weight.sum(), size), size)
        return blurred[:, self.reach : self.reach + height, self.reach : self.reach + width]


def _fast(length: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5: Fourier transforms are quick there."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1


def _tiles(height: int, width: int, side: int) -> list[tuple[slice, slice]]:
    return [
        (slice(top, min(top + side, height)), slice(left, min(left + side, width)))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def _blur_tile(
    pixels: Tensor, layers: Tensor, rows: slice, columns: slice, lens: _Lens, gain: float, device: torch.device | None
) -> Tensor:
    """The blurred pixels (h,w,3) of one tile, seen with all that can spread into it."""
    height, width = layers.shape
    top, left = max(rows.start - lens.reach, 0), max(columns.start - lens.reach, 0)
    around = (slice(top, min(rows.stop + lens.reach, height)), slice(left, min(columns.stop + lens.reach, width)))
    inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    layer = layers[around].to(device or layers.device)
    present = sorted(layer.unique().tolist(), reverse=True)
    original = pixels[(slice(None), *around)].to(device or pixels.device)
    if present == [0]:
        return original[(slice(None), *inner)].permute(1, 2, 0).to(pixels.device)
    light = to_linear(original)
    light = light / (1 - gain * light)
    before = _over([v for v in present if v > 0], light, layer, lens)
    behind = _over([v for v in present if v <= 0], light, layer, lens)
    sharp = (layer == 0) & (before[3] < 1e-4)
    hidden = layer > 0
    if bool(hidden.any()):
        # What lies behind the foreground is unknown: continue it from around.
        seen = (~hidden).to(light)
        known = lens.surround(torch.cat([light * seen, seen[None]])).clamp_min(0)
        some = known[3] > 1e-4
        fill = known[:3] / known[3].clamp_min(1e-4)
        rest = ((1 - behind[3]) * (hidden & some)).clamp_min(0)
        behind = torch.cat([behind[:3] + fill * rest, (behind[3] + rest)[None]])
    back = behind[:3] / behind[3].clamp_min(1e-4)
    weight = (1 - before[3]) * (behind[3] > 1e-4)
    total = before[:3] + back * weight
    total = total / (before[3] + weight).clamp_min(1e-4)
    blurred = to_srgb(total / (1 + gain * total))
    blurred = torch.where(sharp, original, blurred)
    return blurred[(slice(None), *inner)].permute(1, 2, 0).to(pixels.device)


def _over(layers: list[int], light: Tensor, layer: Tensor, lens: _Lens) -> Tensor:
    """Light times coverage, and coverage, (4,h,w) of `layers`, given from front to back.

    Layers that touch are parts of one surface, so each fills what the ones before it left free, and no more.
    """
    total = torch.zeros(4, *layer.shape, device=light.device)
    spread = torch.zeros_like(total)
    for this in layers:
        if not this:
            mine = (layer == this).to(light)
            _fill(total, torch.cat([light * mine, mine[None]]))
            continue
        for rows, columns in lens.spread(light, layer, this, spread):
            piece = spread[:, rows, columns]
            _fill(total[:, rows, columns], piece)
            piece.zero_()
    return total


def _fill(total: Tensor, piece: Tensor) -> None:
    """Lay a piece behind what is there, both (4,h,w): it shows as far as that leaves room."""
    cover = piece[3]
    room = torch.minimum(cover.clamp(0, 1), (1 - total[3]).clamp_min_(0))
    # Less than this is rounding of the Fourier transform.
    room.mul_(cover > 1e-6)
    total[:3].addcmul_(piece[:3], room / cover.clamp(1e-6, 1))
    total[3] += room
