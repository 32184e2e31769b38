"""Slopes of depth that moves in steps: planes fitted over windows that grow with the step and keep to one surface.

Depth of 8 bits, of a depth camera or in whole millimetres is a staircase: the difference of two neighbours is zero or
a whole step, whatever the surface does. Over pixels a plane is linear in inverse distance, so a least-squares plane
over a window finds its slope again. The sums that it needs come from integral images, for windows of any size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .pixels import check_whole

RADII = (1, 2, 3, 5, 8, 12, 18, 27)
LARGEST = 64
# Levels that a map must have, and pixels on each of them, before the gaps between its values are called its step.
_LEVELS, _CROWD = 24, 6
_ROUNDING = 12**-0.5  # standard deviation of what rounding leaves, in steps
_NOISE = 1.1  # the most that may be left over of a window, in steps: depth cameras are off by more than rounding
_TURN = 0.04  # the expected error of a normal, in radians, at which a window is large enough
# Beyond this change of the distance per unit of ray neighbouring pixels are taken for different things.
_JUMP = 3.0
_BAND = 1 << 19  # pixels at a time
_SHIFTS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


def step_of(inverse: Tensor, valid: Tensor) -> Tensor | None:
    """The size of the step at each pixel of one picture (H,W), in the unit of `inverse`; None where it has no steps.

    Depth cameras measure in steps that grow with the distance, so the step is a function of the value: the usual gap
    between the values that occur near it.
    """
    seen = inverse[valid]
    seen = seen[:: max(1, seen.numel() >> 20)]
    levels = seen.unique()
    if len(levels) < _LEVELS or len(levels) * _CROWD > len(seen):
        return None
    gaps = levels.diff()
    reach = 4
    near = F.pad(gaps[None, None], (reach, reach), mode="replicate")[0, 0].unfold(0, 2 * reach + 1, 1)
    # The mean of the smaller half: a level that nothing shows doubles a gap, and distances rounded to whole
    # millimetres make neighbouring gaps differ.
    usual = near.sort(-1).values[:, : reach + 1].mean(-1)
    usual = torch.cat((usual, usual[-1:]))
    return usual[torch.searchsorted(levels, inverse.contiguous()).clamp_(max=len(levels) - 1)]


def fit_planes(
    inverse: Tensor, valid: Tensor, across: Tensor, down: Tensor, focal: tuple[float, float], radius: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """One picture's slopes per pixel, to the right and down, and its inverse distance, freed of steps; (H,W) each.

    inverse: 1/metre, 0 where `valid` is False. across, down: the slopes between neighbours, which stay where no window
    fits. focal: pixels, of a row and of a column. radius: None = as large as the picture's own steps ask for at each
    pixel, so that depth without steps comes back untouched; 0 = untouched; n = windows up to n pixels to each side,
    wherever they fit the picture's usual noise. Raises SettingError for a radius outside 0..64.

    A window fits when what is left over is no more than steps and noise explain, at this pixel too. It may lie to any
    side of the pixel and so need not cross an edge. Windows grow until the expected error is about two degrees.
    """
    if radius is not None:
        check_whole("radius", radius, 0, LARGEST)
    if radius == 0 or not bool(valid.any()):
        return across, down, inverse
    step = step_of(inverse, valid) if radius is None else None
    if radius is None and step is None:
        return across, down, inverse
    # Differences of sums need double precision, which not every device has.
    where = torch.device("cpu") if inverse.device.type == "mps" else inverse.device
    work, seen, slopes = inverse.to(where).double(), valid.to(where), [across.to(where), down.to(where)]
    noise = _usual_noise(work, seen) if step is None else step.to(where).double()
    radii = RADII if radius is None else (*(r for r in RADII if r < radius), radius)
    height, width = inverse.shape
    rows, halo = max(1, _BAND // width), 2 * radii[-1]
    parts = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        outer = slice(max(0, top - halo), min(height, bottom + halo))
        planes = _fit_band(
            work[outer], seen[outer], noise[outer], [s[outer].double() for s in slopes], focal, radii, radius is None
        )
        parts.append(planes[:, top - outer.start : bottom - outer.start].float())
    fitted = torch.cat(parts, 1).to(inverse.device)
    return fitted[0], fitted[1], fitted[2]


def _usual_noise(inverse: Tensor, valid: Tensor) -> Tensor:
    """What small windows usually leave over, times two: (H,W), the same everywhere."""
    left_over = _Windows(inverse, valid).planes(2)[3, 2:-2, 2:-2]
    fitting = left_over[valid & left_over.isfinite()]
    usual = 2 * fitting.median() if len(fitting) else inverse.new_zeros(())
    return usual.expand(inverse.shape)


def _fit_band(
    inverse: Tensor,
    valid: Tensor,
    noise: Tensor,
    slopes: list[Tensor],
    focal: tuple[float, float],
    radii: tuple[int, ...],
    enough: bool,
) -> Tensor:
    """(3,H,W): slopes and inverse distance. enough: whether windows stop to grow at the expected error."""
    windows = _Windows(inverse, valid)
    height, width = inverse.shape
    result = torch.stack((*slopes, inverse))
    plane = windows.planes(1)[:, 1:-1, 1:-1]
    along = max(focal)
    smooth = valid & (plane[3] * along < _JUMP * inverse)
    result = torch.where(smooth, torch.stack((plane[0], plane[1], windows.value(plane))), result)
    growing = valid.clone()
    for radius in radii:
        planes = windows.planes(radius)
        wide = planes.shape[-1]
        here = torch.arange(height, device=inverse.device)[:, None] * wide + torch.arange(width, device=inverse.device)
        best, chosen = torch.full_like(inverse, torch.inf), here
        for dy, dx in _SHIFTS[: 1 if radius == 1 else None]:
            y, x = radius + dy * radius, radius + dx * radius
            plane = planes[:, y : y + height, x : x + width]
            left_over = plane[3]
            fits = left_over <= _NOISE * noise
            fits &= (windows.value(plane) - inverse).abs() <= 3 * left_over + 0.5 * noise
            # The window around the pixel bends a curved surface least.
            score = left_over * 0.6 if dy == dx == 0 else left_over
            better = fits & (score < best)
            best = torch.where(better, score, best)
            chosen = torch.where(better, here + (y * wide + x), chosen)
        found = planes.reshape(5, -1)[:, chosen.reshape(-1)].reshape(5, height, width)
        take = growing & best.isfinite()
        result = torch.where(take, torch.stack((found[0], found[1], windows.value(found))), result)
        if enough:
            turned = (found[0] * focal[0]).square() + (found[1] * focal[1]).square() + inverse.square()
            # Rounding errs alike along a stair, so that averages win less than they would over noise.
            error = torch.maximum(found[3], _ROUNDING * noise) / _ROUNDING / found[4].clamp_min(1) ** 0.75
            growing &= ~(take & (error * along <= _TURN * turned.sqrt()))
            if not bool(growing.any()):
                break
    return result


class _Windows:
    """Least-squares planes over square windows of one picture, inverse float64 (H,W), or of a band of its rows."""

    def __init__(self, inverse: Tensor, valid: Tensor) -> None:
        height, width = inverse.shape
        x = torch.arange(width, dtype=inverse.dtype, device=inverse.device).expand(height, width)
        y = torch.arange(height, dtype=inverse.dtype, device=inverse.device)[:, None].expand(height, width)
        self.x, self.y = x, y
        seen = valid.to(inverse.dtype)
        w = inverse * seen
        terms = (seen, x * seen, y * seen, x * x * seen, x * y * seen, y * y * seen, w, w * x, w * y, w * w)
        self.sums = [F.pad(term.cumsum(0).cumsum(1), (1, 0, 1, 0)) for term in terms]

    def value(self, plane: Tensor) -> Tensor:
        """What a plane, (5,H,W) for each pixel, has at that pixel."""
        return plane[2] + plane[0] * self.x + plane[1] * self.y

    def planes(self, radius: int) -> Tensor:
        """The planes over all windows of this radius whose middle lies up to `radius` pixels outside: (5,H+2r,W+2r).

        Slope to the right, slope down, value at pixel (0, 0), root mean square of what is left over (infinite where
        too few pixels tell a plane), number of pixels.
        """
        height, width = self.x.shape
        rows = torch.arange(-radius, height + radius, device=self.x.device)
        columns = torch.arange(-radius, width + radius, device=self.x.device)
        top, bottom = (rows - radius).clamp(0, height), (rows + radius + 1).clamp(0, height)
        left, right = (columns - radius).clamp(0, width), (columns + radius + 1).clamp(0, width)

        def box(total: Tensor) -> Tensor:
            inside = total[bottom] - total[top]
            return inside[:, right] - inside[:, left]

        pixels, x, y, xx, xy, yy, w, wx, wy, ww = (box(total) for total in self.sums)
        count = pixels.clamp_min(1)
        x, y, w = x / count, y / count, w / count
        xx, xy, yy = xx / count - x * x, xy / count - x * y, yy / count - y * y
        wx, wy, ww = wx / count - w * x, wy / count - w * y, ww / count - w * w
        spread = xx * yy - xy * xy
        # A few pixels in a line tell no slope across it.
        known = (pixels >= max(5, (2 * radius + 1) ** 2 / 4)) & (spread > 1e-3 * radius**4)
        spread = spread.masked_fill(~known, 1.0)
        across, down = (wx * yy - wy * xy) / spread, (wy * xx - wx * xy) / spread
        left_over = (ww - across * wx - down * wy).clamp_min(0).sqrt().masked_fill(~known, torch.inf)
        return torch.stack((across, down, w - across * x - down * y, left_over, pixels))
