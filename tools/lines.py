"""What depth makes of lines: only the nearest things' outlines, thick near and thin far; and a picture shuffled."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SignalError
from ..signals import Depth
from ..signals.lines import Lines
from ..signals.opencv import opencv
from .depth_field import Space, depth_field
from .pixels import check_whole, each_picture, nth_depth, whole_levels


def lines_by_depth(
    lines: Lines,
    depth: Depth,
    nearer: float = 0.5,
    softness: float = 0.05,
    thick: int = 0,
    reach: int = 2,
    space: Space = "relative",
) -> Lines:
    """The lines of what is nearer than `nearer`, wider the closer it is.

    nearer: in `space`, see `depth_field`; "relative": 0 keeps every line, 1 the closest pixel's. softness: lines fade
    over this much around it. thick: how many pixels the closest line grows to each side; the farthest does not grow.
    reach: how many pixels beside a thing a line still counts as its own, for outlines run along the border of what is
    near and what lies behind it. Lines of the size of `lines`; depth of another size is brought to it.

    Raises SignalError when there is not one depth for each drawing, SettingError for a value out of range.
    """
    for name, value, most in (("thick", thick, 64), ("reach", reach, 64)):
        check_whole(name, value, 0, most)
    if len(depth) not in (1, len(lines)):
        raise SignalError(
            f"there are {len(lines)} drawings and {len(depth)} depths: give one for each, or one for all."
        )
    pictures = []
    for at in each_picture(len(lines), "Lines by depth"):
        strength, here = lines.strength[at : at + 1], nth_depth(depth, at)
        size = strength.shape[-2:]
        keep = _widest(_at(depth_field(here, "ramp", nearer, nearer, softness, space=space), size), reach)
        kept = strength * keep.to(strength.device)
        if thick:
            near = _widest(_at(depth_field(here), size), reach).to(strength.device)
            width = (near * thick).round()
            grown = kept
            for radius in range(1, thick + 1):
                grown = torch.maximum(grown, _widest(torch.where(width >= radius, kept, 0.0), radius))
            kept = grown
        pictures.append(kept.clamp(0, 1).float())
    return Lines(torch.cat(pictures), lines.source)


def _at(field: Tensor, size: Any) -> Tensor:
    if field.shape[-2:] == size:
        return field
    return F.interpolate(field[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]


def _widest(field: Tensor, reach: int) -> Tensor:
    """The largest value within `reach` pixels, in an octagon, (B,H,W)."""
    wide = field[:, None]
    for step in range(reach):
        rows = F.max_pool2d(wide, (3, 1), 1, (1, 0))
        columns = F.max_pool2d(wide, (1, 3), 1, (0, 1))
        # Square and cross by turns come near a disc.
        wide = F.max_pool2d(rows, (1, 3), 1, (0, 1)) if step % 2 else torch.maximum(rows, columns)
    return wide[:, 0]


def without_spots(strength: Tensor, least: float, corners: bool = False) -> Tensor:
    """A drawing (H,W) without its spots: what hangs together in fewer than `least` pixels. corners: whether pixels that
    touch at a corner hang together."""
    import numpy as np

    cv2 = opencv("Removing spots")
    lines = (strength > 0).cpu().numpy().astype(np.uint8)
    _, labels, measured, _ = cv2.connectedComponentsWithStats(lines, connectivity=8 if corners else 4)
    keep = measured[:, cv2.CC_STAT_AREA] >= least
    return strength * torch.from_numpy(keep[labels]).to(strength.device)


def content_shuffle(picture: Tensor, seed: int = 0, cell: int = 256) -> Tensor:
    """A picture whose parts are swept to other places, which keeps its colours and hides what it shows.

    picture: float (H,W,3) in 0..1. seed: which sweep. cell: how far apart the sweep changes, in pixels. float32 (H,W,3)
    in whole levels. The sweep is that of ControlNet's annotator "shuffle" after numpy.random.seed(seed).
    """
    import numpy as np

    cv2 = opencv("Shuffling a picture")
    check_whole("seed", seed, -(2**63), 2**64 - 1)
    check_whole("cell", cell, 1, 16384)
    levels = whole_levels(picture)
    height, width = levels.shape[:2]
    random = np.random.RandomState(seed % 2**32)
    columns = _waves(cv2, random, height, width, cell) * float(width - 1)
    rows = _waves(cv2, random, height, width, cell) * float(height - 1)
    flow = np.stack([columns, rows], 2).astype(np.float32)
    return torch.from_numpy(cv2.remap(levels, flow, None, cv2.INTER_LINEAR)).float() / 255


def _waves(cv2: Any, random: Any, height: int, width: int, cell: int) -> Any:
    """Smooth noise that spans 0..1, float64 (height,width)."""
    coarse = random.uniform(0, 1, (height // cell + 2, width // cell + 2, 1))
    fine = cv2.resize(coarse, (width + 2 * cell, height + 2 * cell), interpolation=cv2.INTER_CUBIC)
    fine = fine[cell : cell + height, cell : cell + width]
    fine = fine - fine.min()
    return fine / (fine.max() or 1.0)
