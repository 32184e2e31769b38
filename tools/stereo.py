"""Depth from two cameras: a stereo pair is aligned, evened and matched (semi-global matching)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import PictureError, SettingError
from ..signals import Depth
from ..signals.field import check_shape
from ..signals.opencv import opencv

log = logging.getLogger(__name__)

LAYOUTS = (
    "two pictures",
    "side by side, left first",
    "side by side, right first",
    "top-bottom, left first",
    "top-bottom, right first",
)

_COARSE = 320  # width at which the search range is found
_FEATURES = 1200  # width at which rows are compared
_OFF_ROW = 0.5  # pixels by which rows may be off before the right picture is turned
_AGREE = 0.6  # pixels by which both directions of the match may differ
_SPECKLE = 50  # pixels that a surface has at least
_UNLIKE = 0.12  # share of neighbours that are not as in the match, times the share of pixels around without a match


@dataclass(eq=False)
class _Found:
    """One matched pair. disparity: float32 (H,W), pixels. valid: bool (H,W). notes: what was found out, for people."""

    disparity: Any
    valid: Any
    notes: list[str] = field(default_factory=list)


def split_pair(image: Tensor, right: Tensor | None, layout: str) -> tuple[Tensor, Tensor]:
    """The left and the right picture, float (B,h,w,C) each.

    layout: one of LAYOUTS; all but the first cut `image` in the middle, "right first" is the cross-eyed order. Raises
    SettingError for another layout or a missing picture, PictureError for an odd side.
    """
    if layout == LAYOUTS[0]:
        if right is None:
            raise SettingError("the right picture is missing: connect it, or choose a side by side layout.")
        return image, right
    if layout not in LAYOUTS:
        raise SettingError(f"the layout must be one of {'; '.join(LAYOUTS)}, got {layout!r}.")
    kind = layout.split(",")[0]
    if right is not None:
        raise SettingError(f"a {kind} picture holds both views: disconnect the right picture.")
    axis, side = (2, "width") if kind == "side by side" else (1, "height")
    length = image.shape[axis]
    if length % 2:
        raise PictureError(f"a {kind} picture has an even {side}, got {length} pixels.")
    first, second = image.split(length // 2, axis)
    return (first, second) if layout.endswith("left first") else (second, first)


def stereo_depth(
    left: Tensor,
    right: Tensor,
    *,
    focal: float | None = None,
    baseline: float | None = None,
    max_disparity: int = 0,
    offset: float = 0.0,
    report: list[str] | None = None,
    tick: Callable[[], Any] = lambda: None,
) -> Depth:
    """Depth of the left picture of a pair, by semi-global matching (OpenCV's StereoSGBM).

    left, right: float (B,H,W,3) in 0..1 of two cameras side by side; a batch of 1 serves all. focal: pixels. baseline:
    metres between the cameras. With both the depth is metric, else affine_inverse with the disparity in pixels as
    values. offset: pixels by which the right camera's principal point lies further right than the left one's
    (Middlebury's doffs): z = focal * baseline / (disparity + offset). max_disparity: pixels beyond which nothing is
    believed, 0 = no limit. report: gets a sentence for everything that was found out of a pair. tick: called after each
    pair.

    Rows that do not show equal points (an offset, a turn of the right camera) are found by features and undone, other
    exposure is evened, and the range of disparities, of both signs, is found in a small copy. Each pixel is matched
    from both sides; valid is False where the two disagree, where nothing matches, between the edge of a near thing and
    where its match begins, which the right camera does not see, and where a pixel does not look like its match among
    others that have none, as between near things.

    Raises PictureError when sizes differ, when the pair is swapped, or when disparities contradict focal and baseline;
    SettingError for a bad number.
    """
    check_shape("the left picture", left, 4, 3)
    check_shape("the right picture", right, 4, 3)
    if left.shape[1:] != right.shape[1:] or (len(left) != len(right) and 1 not in (len(left), len(right))):
        sizes = f"{tuple(left.shape)} and {tuple(right.shape)}"
        raise PictureError(f"the pictures of a pair must be equal in size, got {sizes}.")
    for name, number in (("focal", focal), ("baseline", baseline)):
        if number is not None and not 0 < number < math.inf:
            raise SettingError(f"{name} must be positive, got {number}.")
    if not math.isfinite(offset):
        raise SettingError(f"offset must be a number of pixels, got {offset}.")
    width = left.shape[2]
    if max_disparity < 0 or max_disparity >= width:
        raise SettingError(f"max_disparity must lie between 0 and the width, {width}, got {max_disparity}.")
    count = max(len(left), len(right))
    maps, valids = [], []
    pairs = zip(left.expand(count, -1, -1, -1), right.expand(count, -1, -1, -1), strict=True)
    for index, (one, two) in enumerate(pairs):
        found = _match_pair(_bytes(one), _bytes(two))
        if max_disparity:
            found.valid &= found.disparity <= max_disparity
        for sentence in found.notes:
            log.info("stereo pair %d: %s", index, sentence)
            if report is not None:
                report.append(f"pair {index}: {sentence}")
        maps.append(torch.from_numpy(found.disparity))
        valids.append(torch.from_numpy(found.valid))
        tick()
    disparity, valid = torch.stack(maps).to(left.device), torch.stack(valids).to(left.device)
    if focal is None or baseline is None:
        return Depth(disparity.masked_fill_(~valid, 0.0), "affine_inverse", valid, focal, "stereo")
    return _metric(disparity + offset, valid, focal, baseline)


def _metric(shift: Tensor, valid: Tensor, focal: float, baseline: float) -> Depth:
    """Metric depth of disparities between parallel cameras."""
    behind = valid & (shift < -1)
    share = float(behind.sum()) / max(1, int(valid.sum()))
    if share > 0.05:
        raise PictureError(
            f"{share:.0%} of the pixels have a negative disparity (down to {float(shift[valid].min()):.0f} pixels), as "
            "of things beyond infinity: the cameras are turned towards each other, or the pictures were shifted. Give "
            "the offset of the principal points (doffs), or leave focal and baseline at 0 for depth without metres."
        )
    valid = valid & ~behind
    values = shift.clamp_min(0).masked_fill(~valid, 0.0) / (focal * baseline)
    return Depth(values, "metric", valid, focal, "stereo")


def _bytes(picture: Tensor) -> Any:
    # The matcher takes 8-bit pictures only.
    return picture.detach().clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def _match_pair(left: Any, right: Any) -> _Found:
    cv2 = opencv("Stereo depth")
    notes: list[str] = []
    right, inside = _align_rows(cv2, left, right, notes)
    right = _even_exposure(left, right, notes)
    low, high = _search_range(cv2, left, right)
    disparity, valid = _measure(cv2, left, right, inside, low, high)
    # Grain and blur hide at half the size what keeps the two sides from agreeing.
    scale = 1
    while valid.mean() < 0.5 and left.shape[1] // (2 * scale) >= _COARSE:
        scale *= 2
        wider = _measure_smaller(cv2, left, right, inside, low, high, scale)
        if wider[1].mean() < 1.2 * valid.mean():
            break
        disparity, valid = wider
        notes.append(f"matched at 1/{scale} of the size: at its own the pictures are too grainy or blurred")
    _check_order(left, disparity, valid, notes)
    notes.append(f"disparities {low} to {high} searched, {valid.mean():.0%} of the pixels measured")
    return _Found(disparity, valid, notes)


def _measure(cv2: Any, left: Any, right: Any, inside: Any, low: int, high: int) -> tuple[Any, Any]:
    """Disparity and where it is to be believed."""
    disparity, valid = _match(cv2, left, right, inside, low, high)
    valid &= ~_before_edges(left, disparity, valid) & ~_unlike(cv2, left, right, disparity, valid)
    return disparity, _without_speckles(cv2, disparity, valid, _SPECKLE)


def _measure_smaller(cv2: Any, left: Any, right: Any, inside: Any, low: int, high: int, scale: int) -> tuple[Any, Any]:
    """The same, found in copies of 1/scale of the size."""
    height, width = left.shape[:2]
    size = width // scale, height // scale
    one, two = (cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in (left, right))
    within = cv2.resize(inside.astype("uint8"), size, interpolation=cv2.INTER_NEAREST).astype(bool)
    disparity, valid = _measure(cv2, one, two, within, low // scale - 1, -(-high // scale) + 1)
    grown = cv2.resize(disparity, (width, height), interpolation=cv2.INTER_NEAREST) * (width / size[0])
    return grown, cv2.resize(valid.astype("uint8"), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


# ---------------------------------------------------------------------------------------------- before the match


def _align_rows(cv2: Any, left: Any, right: Any, notes: list[str]) -> tuple[Any, Any]:
    """The right picture with its rows as the left one's, and where it shows something, bool (H,W)."""
    import numpy as np

    height, width = left.shape[:2]
    whole = np.ones((height, width), bool)
    places = _features(cv2, left, right)
    if places is None:
        return right, whole
    x, y, off = places
    fit = _robust_plane(x - (width - 1) / 2, y - (height - 1) / 2, off)
    if fit is None:
        return right, whole
    shift, turn, stretch = fit
    ys, xs = np.meshgrid(np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32), indexing="ij")
    dx, dy = xs - (width - 1) / 2, ys - (height - 1) / 2
    moved = shift + turn * dx + stretch * dy
    if float(np.abs(moved).max()) < 2 * _OFF_ROW and abs(shift) < _OFF_ROW:
        return right, whole
    notes.append(
        f"the rows of the right picture were off by {shift:+.1f} pixels in the middle and turned by "
        f"{math.degrees(turn):+.2f} degrees, undone"
    )
    # A camera turned about its axis moves points along the rows as well.
    from_x, from_y = (xs - turn * dy).astype(np.float32), (ys + moved).astype(np.float32)
    inside = (from_x >= 0) & (from_x <= width - 1) & (from_y >= 0) & (from_y <= height - 1)
    return cv2.remap(right, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), inside


def _features(cv2: Any, left: Any, right: Any) -> tuple[Any, Any, Any] | None:
    """Points seen in both pictures: x in the right one, y in the left one, how much lower it lies in the right one."""
    import numpy as np

    scale = min(1.0, _FEATURES / left.shape[1])
    grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY) for p in (left, right)]
    if scale < 1:
        grey = [cv2.resize(g, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for g in grey]
    finder = cv2.SIFT_create(4000)
    (points_a, marks_a), (points_b, marks_b) = (finder.detectAndCompute(g, None) for g in grey)
    if marks_a is None or marks_b is None or min(len(points_a), len(points_b)) < 2:
        return None
    pairs = cv2.BFMatcher().knnMatch(marks_a, marks_b, k=2)
    good = [best for best, second in pairs if best.distance < 0.7 * second.distance]
    if len(good) < 30:
        return None
    a = np.array([points_a[m.queryIdx].pt for m in good]) / scale
    b = np.array([points_b[m.trainIdx].pt for m in good]) / scale
    return b[:, 0], a[:, 1], b[:, 1] - a[:, 1]


def _robust_plane(x: Any, y: Any, off: Any) -> tuple[float, float, float] | None:
    """The plane off = shift + turn*x + stretch*y that most points lie on; None when too few do."""
    import numpy as np

    generator = np.random.default_rng(0)
    design = np.stack((np.ones_like(x), x, y), 1)
    best = np.zeros(len(x), bool)
    for _ in range(300):
        three = generator.choice(len(x), 3, replace=False)
        try:
            plane = np.linalg.solve(design[three], off[three])
        except np.linalg.LinAlgError:
            continue
        near = np.abs(design @ plane - off) < 1.5
        if near.sum() > best.sum():
            best = near
    if best.sum() < max(30, 0.4 * len(x)):
        return None
    shift, turn, stretch = np.linalg.lstsq(design[best], off[best], rcond=None)[0]
    for _ in range(2):
        near = np.abs(design @ (shift, turn, stretch) - off) < 1.0
        if near.sum() < 30:
            return None
        shift, turn, stretch = np.linalg.lstsq(design[near], off[near], rcond=None)[0]
    return float(shift), float(turn), float(stretch)


def _even_exposure(left: Any, right: Any, notes: list[str]) -> Any:
    """The right picture with the left one's distribution of each channel, where the two differ."""
    import numpy as np

    levels = np.arange(256)
    tables, most = [], 0.0
    for channel in range(3):
        counts = [np.bincount(p[..., channel].reshape(-1), minlength=256) for p in (left, right)]
        shares = [(np.cumsum(c) - c / 2) / c.sum() for c in counts]
        table = np.interp(shares[1], shares[0] + levels * 1e-12, levels)
        most = max(most, float((np.abs(table - levels) * counts[1]).sum() / counts[1].sum()))
        tables.append(table)
    if most < 4:
        return right
    notes.append(f"the exposure of the pictures differs by {most:.0f} of 255 levels, evened")
    return np.stack([tables[c][right[..., c]] for c in range(3)], -1).round().clip(0, 255).astype(np.uint8)


def _search_range(cv2: Any, left: Any, right: Any) -> tuple[int, int]:
    """The smallest and the largest disparity to look for, from a match of small copies over half the width."""
    import numpy as np

    width = left.shape[1]
    scale = min(1.0, _COARSE / width)
    one, two = (
        p if scale == 1 else cv2.resize(p, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for p in (left, right)
    )
    reach = max(8, one.shape[1] // 2 - 8)
    whole = np.ones(one.shape[:2], bool)
    disparity, valid = _match(cv2, one, two, whole, -reach, reach)
    valid = _without_speckles(cv2, disparity, valid, 40)
    if valid.sum() < 0.01 * valid.size:
        return 0, max(16, width // 8)
    low, high = np.percentile(disparity[valid], (0.2, 99.8))
    slack = 3 + 0.06 * (high - low)
    return math.floor((low - slack) / scale), math.ceil((high + slack) / scale)


# ---------------------------------------------------------------------------------------------- the match


def _match(cv2: Any, left: Any, right: Any, inside: Any, low: int, high: int) -> tuple[Any, Any]:
    """Disparity (H,W) float32 of the left picture within low..high, and where both directions agree, bool (H,W)."""
    import numpy as np

    count = -(-(high - low + 1) // 16) * 16
    width = left.shape[1]
    # The matcher leaves out columns whose search would leave the picture, on either side.
    margin = max(abs(low), abs(low + count)) + 1
    matcher = cv2.StereoSGBM.create(
        minDisparity=low,
        numDisparities=count,
        blockSize=3,
        P1=100,
        P2=300,
        uniquenessRatio=10,
        disp12MaxDiff=-1,
        mode=cv2.StereoSGBM.MODE_SGBM_3WAY if hasattr(cv2.StereoSGBM, "MODE_SGBM_3WAY") else 2,
    )
    wide = [cv2.copyMakeBorder(p, 0, 0, margin, margin, cv2.BORDER_REPLICATE) for p in (left, right)]
    there = matcher.compute(*wide)
    # A mirrored pair with its sides exchanged is a pair again: its left picture is the mirrored right one.
    back = matcher.compute(*(np.ascontiguousarray(p[:, ::-1]) for p in reversed(wide)))[:, ::-1]
    there, back = (m[:, margin : margin + width].astype(np.float32) / 16 for m in (there, back))
    landing = np.round(np.arange(width) - there).astype(np.int64)
    valid = (there >= low) & (landing >= 0) & (landing < width)
    landing = landing.clip(0, width - 1)
    seen = np.take_along_axis(back, landing, 1)
    valid &= (seen >= low) & (np.abs(there - seen) <= _AGREE) & np.take_along_axis(inside, landing, 1)
    # What is clipped at an end of the range has its match beyond it.
    valid &= (there > low + 0.5) & (there < low + count - 1.5)
    return there, valid


def _without_speckles(cv2: Any, disparity: Any, valid: Any, size: int) -> Any:
    """`valid` without patches of fewer than `size` pixels."""
    import numpy as np

    nothing = np.iinfo(np.int16).min
    steps = np.where(valid, np.round(disparity * 4), nothing).astype(np.int16)
    cv2.filterSpeckles(steps, nothing, size, 4)
    return steps != nothing


def _contrast(picture: Any) -> Any:
    """How much each pixel differs from the one to its left, float32 (H,W)."""
    import numpy as np

    wide = picture.astype(np.float32)
    contrast = np.zeros(picture.shape[:2], np.float32)
    contrast[:, 1:] = np.abs(wide[:, 1:] - wide[:, :-1]).max(-1)
    return contrast


def _rises(disparity: Any, valid: Any, least: float) -> tuple[Any, Any, Any, Any]:
    """Where, to the right, disparity jumps up: rows, columns, the column of the last valid pixel before, the jump."""
    import numpy as np

    height, width = disparity.shape
    last = np.maximum.accumulate(np.where(valid, np.arange(width), -1), 1)
    before = np.concatenate((np.full((height, 1), -1), last[:, :-1]), 1)
    jump = disparity - np.take_along_axis(disparity, before.clip(0), 1)
    rows, columns = np.nonzero(valid & (before >= 0) & (jump > least))
    return rows, columns, before[rows, columns], jump[rows, columns]


def _before_edges(left: Any, disparity: Any, valid: Any) -> Any:
    """Valid pixels left of the edge of the near thing whose disparity they have: matching fattens near things, over
    what the right camera does not see. Its edge is the strongest one near the jump."""
    import numpy as np

    reach, weakest = 8, 8
    rows, columns, _, _ = _rises(disparity, valid, 1.5)
    offsets = np.arange(-2, reach + 1)
    width = disparity.shape[1]
    near = _contrast(left)[rows[:, None], (columns[:, None] + offsets).clip(0, width - 1)]
    edge = offsets[near.argmax(1)] if len(near) else np.zeros(0, np.int64)
    clear = near.max(1) > weakest if len(near) else np.zeros(0, bool)
    fat = np.zeros_like(valid)
    for step in range(reach):
        inside = clear & (edge > step) & (columns + step < width)
        fat[rows[inside], columns[inside] + step] = True
    return fat & valid


def _unlike(cv2: Any, left: Any, right: Any, disparity: Any, valid: Any) -> Any:
    """Pixels that do not look like their match, where many around them have none: what the left camera alone sees
    between near things takes their disparity. Compared is which of a pixel's neighbours are brighter than it, the
    census of Zabih and Woodfill (ECCV 1994), which other exposure does not change."""
    import numpy as np

    height, width = disparity.shape
    columns, rows = np.arange(width) - disparity, np.arange(height, dtype=np.float32)[:, None]
    match = cv2.remap(
        right,
        columns.astype(np.float32),
        np.repeat(rows, width, 1),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    one, two = (np.pad(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), 2, mode="edge") for p in (left, match))
    differs = np.zeros((height, width), np.float32)
    for down in range(5):
        for across in range(5):
            near = slice(down, down + height), slice(across, across + width)
            differs += (one[near] > one[2:-2, 2:-2]) != (two[near] > two[2:-2, 2:-2])
    unlike = cv2.blur(differs / 24, (5, 5))
    return unlike * cv2.blur((~valid).astype(np.float32), (9, 9)) > _UNLIKE


def _check_order(left: Any, disparity: Any, valid: Any, notes: list[str]) -> None:
    """Raise PictureError when the pair is swapped.

    Swapped, far things get the larger disparity. What one camera alone sees then lies on the wrong side: in the left
    picture it belongs to the surface behind and ends, to the right, at an edge of the near one.
    """
    import numpy as np

    rows, columns, before, jump = _rises(disparity, valid, 3.0)
    gap = columns - before - 1
    fits = (gap >= 3) & (gap >= 0.5 * jump) & (gap <= 1.5 * jump + 2)
    rows, columns, before = rows[fits], columns[fits], before[fits]
    contrast, width = _contrast(left), disparity.shape[1]

    def strength(at: Any) -> Any:
        return np.max([contrast[rows, (at + o).clip(0, width - 1)] for o in (-1, 0, 1)], 0)

    if len(rows) < 60:
        if valid.any() and float(np.percentile(disparity[valid], 98)) < -1:
            notes.append("all disparities are negative: if nearer things look farther, exchange left and right")
        return
    ends_right = float((strength(columns) > strength(before + 1)).mean())
    if ends_right < 0.5 - 1.5 / math.sqrt(len(rows)) and ends_right < 0.42:
        raise PictureError(
            f"the pair looks swapped: what one camera alone sees lies on the wrong side of near things at "
            f"{1 - ends_right:.0%} of {len(rows)} edges. Exchange left and right."
        )
