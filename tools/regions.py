"""Depth and regions together: one depth per object, who stands before whom, edges that follow the photo."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..annotator import host
from ..annotator.pictures import as_pixels
from ..errors import SettingError, SignalError
from ..signals import Depth, Segmentation
from ..signals.instances import Instances
from .pixels import (
    check_choice,
    check_range,
    check_whole,
    each_picture,
    match_depth,
    match_mask,
    nth,
    nth_depth,
    together,
)

Statistic = Literal["median", "mean", "percentile"]
Fill = Literal["edge-snapping", "flat"]
Method = Literal["joint", "guided"]

_STRIP = 512  # rows worked on at a time
_BEYOND = 0.25  # of a region's own range
_USUAL = 4  # pixels: the blur of estimators' depth where it cannot be measured
_CLEAR = 24  # courses across borders that tell the blur
_MOST = 20000  # of them that are looked at


@dataclass(frozen=True)
class Region:
    """Where one region is, and the part of it that is measured."""

    name: str
    where: Tensor  # bool (H,W)
    core: Tensor  # bool (H,W), away from the region's border


# ---------------------------------------------------------------------------------------------- depth by region


def depth_by_region(
    depth: Depth,
    regions: Tensor | Segmentation | Instances,
    statistic: Statistic = "median",
    percentile: float = 50.0,
    erode: int | None = None,
    fill: Fill = "edge-snapping",
    follow_blur: bool = False,
) -> tuple[Depth, str]:
    """A depth whose borders are those of the regions, and each region's numbers as JSON.

    regions: a Segmentation, every label one region; Instances, every thing one region, of those that overlap the first
    on top; or MASKs (N,H,W), above 0.5, every mask one region of one picture.
    With a batch of B pictures, N = 1 serves all, otherwise N must be a multiple of B: the first N/B masks belong to the
    first picture. Masks of another size are resized to the nearest pixel; of overlapping masks the later lies on top.

    erode: pixels near a region's border that its depth is not measured on, because estimators blur depth across
    borders; None = as wide as this picture's depth is blurred there (`blur_at_borders`). follow_blur: that width where
    it is more than `erode`. A region too thin for that is measured whole. statistic: of the valid depth values in that
    core; percentile: 0 = farthest, 100 = closest. fill: "flat" gives the whole region its statistic; "edge-snapping"
    keeps the core as it is and continues it along its slope to the border; what lies in no region is treated as one
    more region. Filled pixels become valid; a region without any valid depth stays as it is.

    The JSON is a list with one object per region: picture, region, pixels, measured, value, mean, low and high
    (percentiles 5 and 95), unit, and for a metric depth metres. value is null where nothing was measured.
    """
    check_measure(statistic, percentile, erode)
    check_choice("fill", fill, get_args(Fill))
    count = _pictures(depth, regions)
    values = depth.values.new_empty(count, *depth.values.shape[1:])
    valid = torch.empty_like(values, dtype=torch.bool)
    least = 0.0 if depth.kind == "metric" else -torch.inf
    report: list[dict[str, Any]] = []
    for i in each_picture(count, "Depth by region"):
        here = nth_depth(depth, i)
        known = _valid(here)
        named = _regions(regions, i, count, here)
        reach = _erosion(here.values[0], known, named, erode, follow_blur)
        found = _with_cores(named, reach)
        measured = [measure(here, here.values[0], known, r, statistic, percentile) for r in found]
        report += [{"picture": i, "region": r.name, **m} for r, m in zip(found, measured, strict=True)]
        values[i], valid[i] = here.values[0], known
        if fill == "flat":
            for region, numbers in zip(found, measured, strict=True):
                if numbers["value"] is not None:
                    values[i][region.where] = numbers["value"]
                    valid[i] |= region.where
        else:
            values[i], valid[i] = _snapped(here.values[0], known, found, reach, least)
    whole = bool(valid.all())
    result = replace(depth, values=values.masked_fill_(~valid, 0.0), valid=None if whole else valid)
    return result, json.dumps(report)


def order_regions(
    depth: Depth,
    regions: Tensor | Segmentation | Instances,
    k: int = 1,
    statistic: Statistic = "median",
    percentile: float = 50.0,
    erode: int | None = None,
    follow_blur: bool = False,
) -> tuple[Tensor, Tensor, str]:
    """Regions from nearest to farthest: (all as MASK (N,H,W), the k-th of each picture as MASK (B,H,W), JSON).

    k: 1 = nearest, 2 = the next, -1 = farthest. The other settings as in `depth_by_region`, except that overlapping
    masks are each measured whole. Regions without any valid depth come last; equals keep their order. The pictures of
    a batch follow each other in the first result. The JSON lists the regions in order, as `depth_by_region` does, with
    "place".

    Raises SettingError when k names no region, SignalError when there is none. Of Instances, of which a picture may
    have few or none, the k-th is then an empty mask, with an entry in the JSON whose region is null.
    """
    check_measure(statistic, percentile, erode)
    count = _pictures(depth, regions)
    ordered: list[Tensor] = []
    chosen: list[Tensor] = []
    report: list[dict[str, Any]] = []
    for i in each_picture(count, "Order regions"):
        here = nth_depth(depth, i)
        known = _valid(here)
        named = _regions(regions, i, count, here, on_top=False)
        reach = _erosion(here.values[0], known, named, erode, follow_blur)
        found = _with_cores(named, reach, on_top=isinstance(regions, Segmentation))
        lenient = isinstance(regions, Instances)
        if not found and not lenient:
            raise SignalError(f"picture {i} has no region: every mask is empty.")
        measured = [measure(here, here.values[0], known, r, statistic, percentile) for r in found]
        places = sorted(range(len(found)), key=lambda n: -_rank(measured[n]["value"]))
        has = k != 0 and -len(found) <= k <= len(found)
        if k == 0 or not (has or lenient):
            raise SettingError(
                f"k must lie in 1..{len(found)} (nearest first) or -{len(found)}..-1 for picture {i}, got {k}."
            )
        nothing = torch.zeros_like(known, dtype=torch.float32)
        sorted_masks = torch.stack([found[n].where.float() for n in places]) if found else nothing[None]
        ordered.append(sorted_masks)
        chosen.append(sorted_masks[k - 1 if k > 0 else k] if has else nothing)
        report += [
            {"picture": i, "place": rank + 1, "region": found[n].name, **measured[n]} for rank, n in enumerate(places)
        ]
        if not has:
            report.append({"picture": i, "place": k, "region": None})
    return torch.cat(ordered), torch.stack(chosen), json.dumps(report)


def _rank(value: float | None) -> float:
    return float("-inf") if value is None else value


def check_measure(statistic: str, percentile: float, erode: int | None) -> None:
    check_choice("statistic", statistic, get_args(Statistic))
    check_range("percentile", percentile, 0, 100)
    if erode is not None:
        check_whole("erode", erode, 0, 256)


def _valid(depth: Depth) -> Tensor:
    return torch.ones_like(depth.values[0], dtype=torch.bool) if depth.valid is None else depth.valid[0]


def _pictures(depth: Depth, regions: Tensor | Segmentation | Instances) -> int:
    if isinstance(regions, Segmentation):
        return together(depth=len(depth), segmentation=len(regions))
    if isinstance(regions, Instances):
        same_pictures(depth, regions)
        return len(depth)
    masks = 1 if regions.ndim == 2 else len(regions)
    if masks != 1 and masks % len(depth):
        raise SignalError(
            f"{masks} masks cannot be shared out among {len(depth)} pictures: give one mask, or the same number of "
            "masks for every picture, those of the first picture first."
        )
    return len(depth)


def same_pictures(depth: Depth, instances: Instances) -> None:
    """Raise SignalError unless both are of equally many pictures: things do not stand where those of another do."""
    if len(depth) != len(instances):
        raise SignalError(
            f"there are instances of {len(instances)} pictures and depth of {len(depth)}: find both in the same "
            "pictures."
        )


def mask_at(mask: Tensor, height: int, width: int) -> Tensor:
    """A bool mask (H,W) at another size, to the nearest pixel."""
    if mask.shape == (height, width):
        return mask
    return F.interpolate(mask[None, None].float(), (height, width), mode="nearest-exact")[0, 0] > 0.5


def _regions(
    regions: Tensor | Segmentation | Instances, index: int, count: int, depth: Depth, on_top: bool = True
) -> list[tuple[str, Tensor]]:
    """The names and places, bool (H,W), of the regions of picture `index` that are not empty, at the depth's size.

    on_top: later masks hide earlier ones.
    """
    return [(name, where) for name, where in _places(regions, index, count, depth, on_top) if bool(where.any())]


def _places(
    regions: Tensor | Segmentation | Instances, index: int, count: int, depth: Depth, on_top: bool
) -> Iterator[tuple[str, Tensor]]:
    height, width = depth.values.shape[1:]
    device = depth.values.device
    if isinstance(regions, Segmentation):
        labels = nth(regions.labels, index).to(device)
        if labels.shape[1:] != (height, width):
            labels = F.interpolate(labels[:, None].float(), (height, width), mode="nearest-exact")[:, 0].long()
        for label in labels[0].unique().tolist():
            if label >= 0:
                yield regions.names[label], labels[0] == label
        return
    if isinstance(regions, Instances):
        above = torch.zeros(height, width, dtype=torch.bool, device=device)
        for number, thing in enumerate(regions.things[index], 1):
            where = mask_at(thing.shape(regions.size).whole().to(device), height, width)
            if on_top:
                where, above = where & ~above, where | above
            yield f"{thing.name} {number}", where
        return
    masks = regions if regions.ndim == 3 else regions[None]
    each = len(masks) // count if len(masks) > 1 else 1
    first = index * each if len(masks) > 1 else 0
    binary = match_mask(masks[first : first + each], height, width, device) >= 0.5
    above = torch.zeros_like(binary[0])
    listed = []
    for n in reversed(range(each)):
        listed.append((f"mask {n + 1}", binary[n] & ~above if on_top else binary[n]))
        above = above | binary[n]
    yield from reversed(listed)


def _with_cores(named: Sequence[tuple[str, Tensor]], erode: int, on_top: bool = True) -> list[Region]:
    """Regions and what is measured of them. on_top: no two overlap."""
    if on_top and named:
        core = core_of(_labels(named), erode)
        return [Region(name, where, where & core) for name, where in named]
    return [Region(name, where, eroded(where, erode)) for name, where in named]


def _labels(named: Sequence[tuple[str, Tensor]]) -> Tensor:
    """The number of the region of each pixel, int32 (H,W); -1 = of none. The last lies on top."""
    labels = torch.full_like(named[0][1], -1, dtype=torch.int32)
    for number, (_, where) in enumerate(named):
        labels[where] = number
    return labels


def _erosion(
    values: Tensor, known: Tensor, named: Sequence[tuple[str, Tensor]], erode: int | None, follow_blur: bool
) -> int:
    """The erosion that the settings ask for; of what cannot be measured _USUAL."""
    if erode is not None and not follow_blur:
        return erode
    blur = blur_at_borders(values, known, _labels(named)) if named else None
    least = 0 if erode is None else erode
    return max(least, (_USUAL if erode is None else 0) if blur is None else blur)


def blur_at_borders(values: Tensor, known: Tensor, labels: Tensor) -> int | None:
    """Over how many pixels to each side the depth is blurred across the borders of regions; None where none is clear.

    values float, known bool, labels int, (H,W) each. Along the rows and columns that cross a border, the middle course
    from one region's depth to the other's is taken, both continued along their slopes; the blur reaches from the border
    to where nine tenths of the way are done, and, as such courses fade out, 0.4 times as far again. Masks that lie
    beside the depth's edge count as blur to that side.
    """
    least = None
    for reach in (4, 8, 16, 32):
        sides = ((values, known, labels), (values.mT, known.mT, labels.mT))
        courses = torch.cat([_courses(v, k, n, reach) for v, k, n in sides])
        if len(courses) < _CLEAR:
            break
        shares = _shares(courses, reach)
        least = least or 0
        if len(shares) < _CLEAR:
            continue  # a blur much wider than this looks like a slope
        middle = shares.median(0).values
        half = max(_crossing(1 - middle.flip(0)), _crossing(middle))
        least = max(0, math.ceil(1.4 * half - 0.6))
        if half <= 0.35 * reach:
            return least
    # The regions are too narrow to show where the blur ends.
    return None if least is None else max(least, 2 * _USUAL)


def _shares(courses: Tensor, reach: int) -> Tensor:
    """How much of the way from the one depth to the other is done along each course (N, 2*reach), of clear steps."""
    outer = max(2, reach // 4)
    at = torch.arange(2 * reach, device=courses.device) - reach + 0.5

    def line(part: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        middle = part.mean(1, keepdim=True)
        off = places - places.mean()
        slope = ((part - middle) * off).sum(1, keepdim=True) / off.square().sum()
        return middle + slope * (at - places.mean()), slope

    before, falls = line(courses[:, :outer], at[:outer])
    behind, rises = line(courses[:, -outer:], at[-outer:])
    jump = behind - before
    border = jump[:, reach - 1 : reach + 1].mean(1).abs()
    clear = torch.maximum(falls.abs(), rises.abs())[:, 0] * reach < border
    if not bool(clear.any()):
        return courses[:0]
    # Between regions of nearly one depth there is no step to measure.
    clear &= border >= border[clear].median()
    clear &= (jump.sign() == jump[:, :1].sign()).all(1) & (jump != 0).all(1)
    return ((courses - before) / jump)[clear]


def _courses(values: Tensor, known: Tensor, labels: Tensor, reach: int) -> Tensor:
    """Depth along the rows, from `reach` pixels before a border to `reach` behind it: (N, 2*reach). Only borders
    between two regions that both go on so far, and of many an even choice."""
    if labels.shape[1] < 2 * reach:
        return values.new_empty(0, 2 * reach)
    wide = labels.unfold(1, 2 * reach, 1)
    border = labels[:, reach - 1 : labels.shape[1] - reach] != labels[:, reach : labels.shape[1] - reach + 1]
    rows, columns = border.nonzero(as_tuple=True)
    step = max(1, len(rows) // _MOST)
    rows, columns = rows[::step], columns[::step]
    along = wide[rows, columns]
    even = (along[:, :reach] == along[:, :1]).all(1) & (along[:, reach:] == along[:, -1:]).all(1)
    even &= known.unfold(1, 2 * reach, 1)[rows, columns].all(1)
    return values.unfold(1, 2 * reach, 1)[rows[even], columns[even]].float()


def _crossing(course: Tensor) -> float:
    """How far behind its middle a course from 0 to 1 passes 0.9 for good, in pixels."""
    reach = len(course) // 2
    below = int((course < 0.9).nonzero().amax())
    before, after = float(course[below]), float(course[min(below + 1, len(course) - 1)])
    share = (0.9 - before) / (after - before) if after > before else 0.0
    return max(0.0, below + share - reach + 0.5)


def core_of(labels: Tensor, erode: int) -> Tensor:
    """Where all pixels of the square of `erode` around carry the same label: bool (H,W). The picture's edge is none."""
    if not erode:
        return torch.ones_like(labels, dtype=torch.bool)
    field = labels.float()[None, None]
    return (_widest(field, erode) == field).logical_and_(-_widest(-field, erode) == field)[0, 0]


def eroded(mask: Tensor, reach: int) -> Tensor:
    """Where all pixels of the square of `reach` around are True: bool (H,W). The picture's edge is none."""
    padded = F.pad(mask, (reach, reach, reach, reach), value=True)
    return _all_along(_all_along(padded, 2 * reach + 1, 0), 2 * reach + 1, 1)


def _all_along(mask: Tensor, length: int, axis: int) -> Tensor:
    """Whether `length` pixels from each one on are all True; the result is shorter by `length` - 1."""
    seen = 1
    while seen < length:
        # Two spans that touch or overlap make one, so each step doubles what is seen.
        step = min(seen, length - seen)
        count = mask.shape[axis] - step
        mask = mask.narrow(axis, 0, count) & mask.narrow(axis, step, count)
        seen += step
    return mask


def _widest(field: Tensor, reach: int) -> Tensor:
    rows = F.max_pool2d(field, (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))


def measure(
    depth: Depth, values: Tensor, known: Tensor, region: Region, statistic: Statistic, percentile: float
) -> dict[str, Any]:
    """The numbers of one region, as `depth_by_region` tells them. depth: whose unit they have. values float and known
    bool (H,W): the whole of a picture or a part, of the region's size."""
    seen = values[region.core & known]
    if not len(seen):
        seen = values[region.where & known]
    facts: dict[str, Any] = {"pixels": int(region.where.sum()), "measured": len(seen), "unit": depth.unit}
    if not len(seen):
        return {**facts, "value": None, "mean": None, "low": None, "high": None}
    ordered = _sorted(seen)
    mean = float(seen.double().mean())
    value = mean if statistic == "mean" else _percentile(ordered, 50.0 if statistic == "median" else percentile)
    facts |= {"value": value, "mean": mean, "low": _percentile(ordered, 5), "high": _percentile(ordered, 95)}
    if depth.kind == "metric":
        facts["metres"] = 1 / value if value > 0 else None
    return facts


def _sorted(values: Tensor) -> Tensor:
    """The values (n,) in order."""
    if values.device.type != "cpu":
        return values.sort().values
    import numpy as np

    # Some ten times as fast as torch's sort on a processor.
    return torch.from_numpy(np.sort(values.numpy()))


def _percentile(ordered: Tensor, point: float) -> float:
    position = (len(ordered) - 1) * point / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    low, high = float(ordered[below]), float(ordered[above])
    return low + (high - low) * (position - below)


def _snapped(values: Tensor, known: Tensor, found: list[Region], erode: int, least: float) -> tuple[Tensor, Tensor]:
    """`values` (H,W) with every region's core continued to its border along its slope, and where it is valid. No new
    value lies below `least`."""
    labels = torch.full_like(values, -1, dtype=torch.int32)
    for number, region in enumerate(found):
        labels[region.where] = number
    sure = core_of(labels, erode) & known
    for region in found:
        if not bool((sure & region.where).any()):
            sure |= region.where & known  # too thin to have a core
    low, high = _extent(values, sure, labels, len(found))
    # A slope may lead beyond what the core shows, but not far.
    margin = _BEYOND * (high - low)
    low, high = (low - margin).clamp_min(least), high + margin
    snapped, filled = values.clone(), sure.clone()
    height = len(values)
    halo = 3 * erode + 2  # what the slope's mean and the rings reach
    for top in range(0, height, _STRIP):
        host.check_interrupt()
        rows = slice(max(top - halo, 0), min(top + _STRIP + halo, height))
        inner = slice(top - rows.start, min(top + _STRIP, height) - rows.start)
        if bool(sure[rows].all()):
            continue
        strip = (plane[rows] for plane in (values, sure, labels, known, low, high))
        value, new = _continued(*strip, erode=erode)
        snapped[top : top + _STRIP], filled[top : top + _STRIP] = value[inner], new[inner]
    return torch.where(filled, snapped, values), filled | known


def _continued(
    values: Tensor, sure: Tensor, labels: Tensor, known: Tensor, low: Tensor, high: Tensor, erode: int
) -> tuple[Tensor, Tensor]:
    """What is `sure` continued ring by ring along its slope, within low..high, and what is filled then; (H,W) each."""
    value = torch.where(sure, values, torch.zeros_like(values))
    # A plane is straight in inverse depth, so what lies beside the core follows from its slope there.
    slope, sloped = _slope(value, sure, labels)
    for _ in range(erode):
        slope = _gather(slope, sloped.to(value), labels, itself=True)[0]
    for _ in range(2 * erode + 1):
        moved, weight = _gather(torch.cat([value[None], slope]), sure.to(value), labels, along=True)
        # Outside all regions nothing is made up where nothing was measured.
        new = ~sure & (weight > 0) & (known | (labels >= 0))
        if not bool(new.any()):
            break
        value = torch.where(new, moved[0].clamp(low, high), value)
        slope = torch.where(new, moved[1:], slope)
        sure = sure | new
    return value, sure


_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


def _gather(
    planes: Tensor, trust: Tensor, labels: Tensor, itself: bool = False, along: bool = False
) -> tuple[Tensor, Tensor]:
    """The mean (C,H,W) over neighbours of the same region, weighted by `trust` (H,W), and the sum of weights.

    itself: the pixel counts too. along: planes are value, slope down, slope right; the value is moved along the slope.
    """
    weight = trust.clone() if itself else torch.zeros_like(trust)
    total = planes * weight
    for dy, dx in _NEIGHBOURS:
        here, there = _overlap(trust.shape, dy, dx)
        part = trust[there] * (labels[there] == labels[here]) * (1.0 if dx == 0 or dy == 0 else 0.5)
        seen = planes[there]
        if along:
            seen = torch.cat([(seen[0] - dy * seen[1] - dx * seen[2])[None], seen[1:]])
        total[here] += part * seen
        weight[here] += part
    return total / weight.clamp_min(1e-6), weight


def _slope(value: Tensor, sure: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How `value` rises down and to the right, (2,H,W), and where both are known; 0 elsewhere."""
    slopes = torch.zeros(2, *value.shape, device=value.device)
    both = sure.clone()
    for axis in (0, 1):
        inner, before, after = ([slice(None)] * 2 for _ in range(3))
        inner[axis], before[axis], after[axis] = slice(1, -1), slice(None, -2), slice(2, None)
        middle, first, last = tuple(inner), tuple(before), tuple(after)
        there = torch.zeros_like(sure)
        same = (labels[first] == labels[middle]) & (labels[last] == labels[middle])
        there[middle] = sure[first] & sure[last] & same
        slopes[axis][middle] = (value[last] - value[first]) / 2
        both &= there
    return slopes * both, both


def _extent(value: Tensor, sure: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The least and greatest sure value of each pixel's region, (H,W) each."""
    index = (labels.flatten() + 1).long()
    ends = []
    for most, how in ((torch.inf, "amin"), (-torch.inf, "amax")):
        table = torch.full((count + 1,), most, device=value.device)
        table.scatter_reduce_(0, index, torch.where(sure, value, torch.full_like(value, most)).flatten(), how)
        ends.append(table[index].view_as(value))
    return ends[0], ends[1]


def _overlap(shape: torch.Size, dy: int, dx: int) -> tuple[Any, Any]:
    """The pixels (..., H, W) that have a neighbour at (dy, dx), and these neighbours, as indices."""
    height, width = shape
    here = (..., slice(max(-dy, 0), height - max(dy, 0)), slice(max(-dx, 0), width - max(dx, 0)))
    there = (..., slice(max(dy, 0), height - max(-dy, 0)), slice(max(dx, 0), width - max(-dx, 0)))
    return here, there


# ---------------------------------------------------------------------------------------------- refine


def refine_edges(
    depth: Depth,
    image: Any,
    radius: int = 6,
    sensitivity: float = 0.03,
    method: Method = "joint",
) -> Depth:
    """The depth with its edges where the photo has them, at the size of the photo.

    image: the photo (B,H,W,C); a smaller depth is enlarged to it. radius: how far edges may move, pixels of the photo.
    sensitivity: the step in the photo's colour, 0..1, from which on it counts as an edge; smaller follows finer edges.
    method: "joint": the joint bilateral filter (Petschnigg et al., 2004): sharper, time grows with radius squared.
    "guided": the guided filter with the photo's three colours (He, Sun, Tang, 2013): fast.
    In both a pixel on the ramp that a blurred edge is counts little, so that values come from the level sides.

    Values stay within those of their neighbourhood. Pixels that are not valid take no part and stay so.
    """
    check_choice("method", method, get_args(Method))
    check_whole("radius", radius, 1, 64)
    check_range("sensitivity", sensitivity, 1e-4, 1)
    pixels = as_pixels(image)
    depth = match_depth(depth, pixels)
    count = together(depth=len(depth), image=len(pixels))
    height, width = pixels.shape[-2:]
    values = pixels.new_empty(count, height, width)
    halo = (3 if method == "guided" else 2) * radius  # each average or span reaches this much farther
    tops = range(0, height, _STRIP)
    with host.progress(count * len(tops), "Refine edges", "strip") as bar:
        for i in range(count):
            here = nth_depth(depth, i)
            known = _valid(here)
            for top in tops:
                rows = slice(max(top - halo, 0), min(top + _STRIP + halo, height))
                inner = slice(top - rows.start, min(top + _STRIP, height) - rows.start)
                plane, mask = here.values[0, rows], known[rows]
                plane = torch.where(mask, plane, torch.zeros_like(plane))
                guide = nth(pixels, i)[0, :, rows]
                work = guided if method == "guided" else _joint
                trust = _steadiness(plane, mask, int(radius)) * mask
                values[i, top : top + _STRIP] = work(plane, trust, guide, int(radius), sensitivity)[inner]
                bar.update()
    valid = depth.valid
    if valid is not None:
        if len(valid) < count:
            valid = valid.expand(count, -1, -1)
        values.masked_fill_(~valid, 0.0)
    return replace(depth, values=values, valid=valid)


def _steadiness(plane: Tensor, mask: Tensor, radius: int) -> Tensor:
    """How far each pixel is from being on the ramp that a blurred edge is: 1 on level ground, near 0 on the ramp."""

    def span(reach: int) -> Tensor:
        high = _widest(plane.masked_fill(~mask, -torch.inf)[None, None], reach)
        low = _widest((-plane).masked_fill(~mask, -torch.inf)[None, None], reach)
        return (high + low)[0, 0].masked_fill(~mask, 0.0)

    steep = span(1) / span(radius).clamp_min(1e-12)
    return (1 - steep).clamp(0, 1).pow(4).clamp_min(1e-3)


def _mean(planes: Tensor, reach: int) -> Tensor:
    """The mean over a square of `reach` around, (C,H,W), of what lies in the picture."""
    planes = planes[:, None]
    rows = F.avg_pool2d(planes, (2 * reach + 1, 1), 1, (reach, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach), count_include_pad=False)[:, 0]


def guided(plane: Tensor, weight: Tensor, guide: Tensor, radius: int, sensitivity: float) -> Tensor:
    """The guided filter of `refine_edges` over one plane (H,W). weight (H,W): how much each pixel counts. guide: the
    photo (3,H,W)."""
    # Every mean is one over the weighted pixels. The depth's own mean is taken off first: large sums lose digits.
    share = _mean(weight[None], radius).clamp_min(1e-6)
    offset = (plane * weight).sum() / weight.sum().clamp_min(1)
    plane = (plane - offset).masked_fill(weight == 0, 0.0)

    def mean(planes: Tensor) -> Tensor:
        return _mean(planes * weight, radius) / share

    centre = mean(guide)
    level = mean(plane[None])[0]
    red, green, blue = guide
    pairs = mean(torch.stack([red * red, red * green, red * blue, green * green, green * blue, blue * blue]))
    r, g, b = centre
    smooth = sensitivity * sensitivity
    rr, rg, rb = pairs[0] - r * r + smooth, pairs[1] - r * g, pairs[2] - r * b
    gg, gb, bb = pairs[3] - g * g + smooth, pairs[4] - g * b, pairs[5] - b * b + smooth
    shared = mean(guide * plane) - centre * level
    # The inverse of the symmetric 3x3 covariance by its cofactors.
    c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rg * rb - rr * gb, rr * gg - rg * rg
    size = rr * c_rr + rg * c_rg + rb * c_rb
    x, y, z = shared
    slope = torch.stack(
        [c_rr * x + c_rg * y + c_rb * z, c_rg * x + c_gg * y + c_gb * z, c_rb * x + c_gb * y + c_bb * z]
    ) / size.clamp_min(1e-12)
    base = level - (slope * centre).sum(0)
    both = mean(torch.cat([slope, base[None]]))
    fitted = (both[:3] * guide).sum(0) + both[3]
    high = _widest(plane.masked_fill(weight == 0, -torch.inf)[None, None], radius)[0, 0]
    low = -_widest((-plane).masked_fill(weight == 0, -torch.inf)[None, None], radius)[0, 0]
    return torch.minimum(torch.maximum(fitted, low), high) + offset


def _joint(plane: Tensor, weight: Tensor, guide: Tensor, radius: int, sensitivity: float) -> Tensor:
    total, share = torch.zeros_like(plane), torch.full_like(plane, 1e-12)
    spread = (radius / 2) ** 2
    for dy in range(-radius, radius + 1):
        host.check_interrupt()
        for dx in range(-radius, radius + 1):
            if abs(dy) >= plane.shape[0] or abs(dx) >= plane.shape[1]:
                continue
            here, there = _overlap(plane.shape, dy, dx)
            step = (guide[there] - guide[here]).square().sum(0)
            near = torch.exp(-0.5 * (step / sensitivity**2 + (dy * dy + dx * dx) / spread)) * weight[there]
            total[here] += near * plane[there]
            share[here] += near
    return total / share
