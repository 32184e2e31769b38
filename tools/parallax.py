"""2.5D parallax: the picture seen from a camera that moves a little."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError, SignalError
from ..signals import Depth
from ..signals.field import check_shape
from .pixels import check_whole

PATHS = ("swing", "circle", "rise", "dolly", "vertigo")
_COVERED = 0.25  # share of a pixel that splats must cover before it counts as seen
_SAME = 0.02  # splats within this share of the nearest distance belong to one surface


def camera_path(path: str, frames: int, loop: bool = True) -> Tensor:
    """Camera positions (frames,3): x right, y up, z forward, each in -1..1.

    swing: from side to side. rise: up and down. circle: around. dolly, vertigo: forward. loop: the last frame leads
    back to the first; else swing, rise go from one end to the other and dolly from the start to the end. Raises
    SettingError for another path or no frames.
    """
    if path not in PATHS:
        raise SettingError(f"the path must be one of {', '.join(PATHS)}, got {path!r}.")
    check_whole("frames", frames, 1, 100_000)
    share = torch.arange(frames) / (frames if loop else max(frames - 1, 1))
    to_and_fro = torch.sin(math.tau * share) if loop else 2 * share - 1
    forward = (1 - torch.cos(math.tau * share)) / 2 if loop else share
    still = torch.zeros(frames)
    x, y, z = {
        "swing": (to_and_fro, still, still),
        "rise": (still, to_and_fro, still),
        "circle": (torch.cos(math.tau * share), torch.sin(math.tau * share), still),
        "dolly": (still, still, forward),
        "vertigo": (still, still, forward),
    }[path]
    return torch.stack((x, y, z), -1)


def parallax(
    image: Tensor,
    depth: Depth,
    *,
    path: str = "swing",
    frames: int = 24,
    strength: float = 0.03,
    focus: float = 0.5,
    loop: bool = True,
    fill: bool = True,
    tick: Callable[[], Any] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Frames of a camera move and what they uncover: float32 (F,H,W,3) in 0..1 and (F,H,W), 1 = to be inpainted.

    image: float (1 or F,H,W,3); depth: 1 or F maps, of any size. strength: swing, rise, circle: how far the nearest
    thing moves against the farthest, as share of the picture's width at the end of the path; dolly, vertigo: how far
    the camera goes, as share of the nearest thing's distance. focus: what stays in place, 0 = the farthest thing, 1 =
    the nearest, between them in inverse distance; vertigo keeps it at its size. fill: uncovered pixels get colours
    from the background around them, else black. tick: called after each frame.

    The move needs inverse distance. Metric depth has it; for affine_inverse the farthest thing is taken as infinitely
    far; affine_depth must be made metric first (`to_metric`). Each pixel is splatted onto the four nearest of its
    target, nearer surfaces hide farther ones. Raises SignalError as `Depth.inverse`, for a depth without a
    valid pixel and for sizes of batches that do not fit, SettingError for numbers outside their range.
    """
    check_shape("the picture", image, 4, 3)
    if not 0 <= strength <= 0.5:
        raise SettingError(f"strength must lie in 0..0.5, got {strength}.")
    if not 0 <= focus <= 1:
        raise SettingError(f"focus must lie in 0..1, got {focus}.")
    moves = camera_path(path, frames, loop).tolist()
    for name, batch in (("pictures", len(image)), ("depths", len(depth))):
        if batch not in (1, frames):
            raise SignalError(f"there are {batch} {name} for {frames} frames: give one, or one for each frame.")
    height, width = image.shape[1:3]
    nearness, seen = _nearness(depth.to(image.device), (height, width))
    view, uncovered = image.new_empty(frames, height, width, 3, dtype=torch.float32), []
    for frame, (x, y, z) in enumerate(moves):
        colours = image[min(frame, len(image) - 1)].float()
        close, known = (t[min(frame, len(t) - 1)] for t in (nearness, seen))
        target = _moved(close, x * strength * width, y * strength * width, z * strength, focus, path == "vertigo")
        view[frame], front, hole = _splat(colours, close, known, *target)
        if fill:
            view[frame] = _fill(view[frame], front, hole)
        uncovered.append(hole.float())
        tick()
    return view, torch.stack(uncovered)


def _nearness(depth: Depth, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Inverse distance, the nearest 1, at the picture's size (B,H,W); and where it is known."""
    if depth.kind == "affine_inverse":
        inverse = depth.unit_range("batch")
    elif depth.kind == "scale_inverse":
        inverse = depth.values
    else:
        inverse = depth.inverse()
    seen = torch.ones_like(inverse, dtype=torch.bool) if depth.valid is None else depth.valid
    inverse = inverse.masked_fill(~seen, 0.0)
    most = inverse.amax()
    if not bool(seen.any()) or (float(most) == 0 and depth.kind == "metric"):
        raise SignalError(f"{depth.source or 'this depth'} has no valid pixel at a finite distance: nothing can move.")
    inverse = inverse / most.clamp_min(1e-12)
    if inverse.shape[1:] != size:
        # Nearest: a mixture of a near and a far distance is a place where nothing stands.
        inverse = F.interpolate(inverse[:, None], size, mode="nearest-exact")[:, 0]
        seen = F.interpolate(seen[:, None].float(), size, mode="nearest-exact")[:, 0] > 0.5
    return inverse, seen


def _moved(close: Tensor, right: float, up: float, forward: float, focus: float, hold: bool) -> tuple[Tensor, Tensor]:
    """Where each pixel of (H,W) lands: x, y in pixels. right, up: shift of the nearest in pixels."""
    height, width = close.shape
    low, high = close.amin(), close.amax()
    pivot = low + focus * (high - low)
    grow = (1 - forward * close).reciprocal_()
    if hold:
        grow *= 1 - forward * pivot
    across = torch.arange(width, device=close.device, dtype=torch.float32) + (0.5 - width / 2)
    down = (torch.arange(height, device=close.device, dtype=torch.float32) + (0.5 - height / 2))[:, None]
    # The camera goes right, the scene goes left.
    away = close - pivot
    x = grow * across - away * right + (width / 2 - 0.5)
    y = grow * down + away * up + (height / 2 - 0.5)
    return x, y


def _splat(colours: Tensor, close: Tensor, known: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The picture (H,W,3) that the moved pixels make, the nearness (H,W) of what is seen, and where nothing is."""
    height, width = close.shape
    left, top = x.floor(), y.floor()
    corners = [(i, j) for j in (0, 1) for i in (0, 1)]

    def landing(i: int, j: int) -> tuple[Tensor, Tensor]:
        """The index of the corner's pixel for every source pixel, and its share (0 outside the picture)."""
        column, row = left + i, top + j
        share = (1 - (x - column).abs()) * (1 - (y - row).abs())
        inside = known & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = row.clamp(0, height - 1).long().mul_(width).add_(column.clamp(0, width - 1).long())
        return index.view(-1), share.mul_(inside).view(-1)

    front = close.new_full((height * width,), -1.0)
    nearness = close.reshape(-1)
    for corner in corners:
        index, share = landing(*corner)
        # A corner that is hardly touched must not hide what lies behind.
        front.scatter_reduce_(0, index, nearness.masked_fill(share < _COVERED, -1.0), "amax")
    weight = close.new_zeros(height * width)
    total = colours.new_zeros(height * width, 3)
    flat = colours.reshape(-1, 3)
    for corner in corners:
        index, share = landing(*corner)
        share.masked_fill_(nearness < front[index] - _SAME, 0.0)
        weight.index_add_(0, index, share)
        total.index_add_(0, index, flat * share[:, None])
    hole = weight < _COVERED
    total /= weight.clamp_min(1e-6)[:, None]
    view = total.masked_fill_(hole[:, None], 0.0)
    return view.view(height, width, 3), front.view(height, width), hole.view(height, width)


def _fill(view: Tensor, front: Tensor, hole: Tensor) -> Tensor:
    """Holes get the colours of the first seen pixels to the left, right, top and bottom, the farthest of them; the
    closer in the picture the more. A hole without any stays black."""
    rows, columns = hole.nonzero(as_tuple=True)
    if not len(rows):
        return view
    height, width = hole.shape
    candidates = []
    for dim, at, size in ((1, columns, width), (0, rows, height)):
        places = torch.arange(size, device=hole.device)
        places = places if dim else places[:, None]
        places = places.expand(height, width)
        before = places.masked_fill(hole, -1).cummax(dim).values[rows, columns]
        after = places.masked_fill(hole, size).flip(dim).cummin(dim).values.flip(dim)[rows, columns]
        for found, there in ((before, before >= 0), (after, after < size)):
            found = found.clamp(0, size - 1)
            index = (rows, found) if dim else (found, columns)
            nearness = front[index].masked_fill(~there, torch.inf)
            candidates.append((nearness, (found - at).abs().clamp_min(1), view[index]))
    farthest = torch.stack([nearness for nearness, _, _ in candidates]).amin(0)
    total, weight = view.new_zeros(len(rows), 3), view.new_zeros(len(rows), 1)
    for nearness, distance, colour in candidates:
        share = ((nearness <= farthest + _SAME) & nearness.isfinite()).div(distance)[:, None]
        total += share * colour
        weight += share
    filled = view.clone()
    filled[rows, columns] = total / weight.clamp_min(1e-12)
    return filled
