"""Things in a picture: which are wanted, which of them stands where in depth, the same one along a video, drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..annotator.pictures import as_pixels
from ..errors import SettingError, SignalError
from ..signals import Depth
from ..signals.instances import Instances, Runs, Thing, colours, iou
from .pixels import check_choice, check_range, check_whole, each_picture, nth_depth
from .regions import Region, Statistic, check_measure, eroded, mask_at, measure, same_pictures

By = Literal["depth", "size", "score", "left to right", "point"]

REMEMBERED = 12
"""Frames for which a thing that has gone is still known when it comes back: half a second of film."""


def select(instances: Instances, names: str = "", score: float = 0.0, least: float = 0.0, most: int = 0) -> Instances:
    """The things wanted, in the order they had.

    names: of classes, parted by commas, synonyms too; "" = all. score: the least; a thing without one stays. least:
    the least size, as a share of the picture, 0..1. most: how many of a picture, the first; 0 = all. Raises
    SettingError for a name that no class has, naming the closest.
    """
    check_range("score", score, 0, 1)
    check_range("least", least, 0, 1)
    check_whole("most", most, 0)
    places = instances.called(names) if names.strip() else [range(len(picture)) for picture in instances.things]
    pixels = instances.size[0] * instances.size[1]
    pictures = []
    for picture, wanted in zip(instances.things, places, strict=True):
        kept = [picture[n] for n in wanted if picture[n].score is None or (picture[n].score or 0.0) >= score]
        if least:
            kept = [thing for thing in kept if thing.shape(instances.size).area >= least * pixels]
        pictures.append(tuple(kept[:most] if most else kept))
    return replace(instances, things=tuple(pictures))


def masks_of(instances: Instances) -> Tensor:
    """One MASK for each thing, float32 (N,H,W), those of the first picture first; one empty mask where there is none
    at all."""
    masks = [instances.masks(i) for i in range(len(instances))]
    whole = torch.cat([mask.float().cpu() for mask in masks])
    return whole if len(whole) else torch.zeros(1, *instances.size)


# ---------------------------------------------------------------------------------------------- pick


@dataclass(frozen=True, eq=False)
class Picked:
    """What `pick` chose. instances: one thing or none for each picture. mask: float32 (B,H,W), empty where there is
    none. choices: for each picture what was chosen, its numbers, or why there is none."""

    instances: Instances
    mask: Tensor
    choices: list[dict[str, Any]]

    @property
    def depth(self) -> float:
        """The depth of what was chosen in the first picture that has it: metres, or the depth's own value where it has
        none; NaN where nothing was chosen or measured."""
        values = [t.get("metres", t.get("value")) for t in self.choices if t["number"] is not None]
        return next((float(v) for v in values if v is not None), math.nan)

    def boxes(self) -> Any:
        """The boxes as ComfyUI's BOUNDING_BOX, in whole pixels inside the picture: one box for one picture, else a list
        for each picture."""
        lists = boxes_of(self.instances)
        return lists[0][0] if len(lists) == 1 and lists[0] else lists

    def json(self) -> str:
        """What was chosen, as JSON."""
        return json.dumps(self.choices)


def boxes_of(instances: Instances) -> list[list[dict[str, Any]]]:
    """The boxes of each picture as ComfyUI's BOUNDING_BOX, in whole pixels inside it, with label and score."""
    return [[_whole_box(thing, *instances.size) for thing in picture] for picture in instances.things]


def _whole_box(thing: Thing, height: int, width: int) -> dict[str, Any]:
    x0, y0 = max(0, math.floor(thing.box[0])), max(0, math.floor(thing.box[1]))
    x1, y1 = min(width, math.ceil(thing.box[2])), min(height, math.ceil(thing.box[3]))
    box: dict[str, Any] = {"x": x0, "y": y0, "width": max(0, x1 - x0), "height": max(0, y1 - y0), "label": thing.name}
    return box if thing.score is None else {**box, "score": thing.score}


def pick(
    instances: Instances,
    depth: Depth | None = None,
    by: By = "depth",
    rank: int = 1,
    names: str = "",
    point: tuple[float, float] | None = None,
    video: bool = False,
    statistic: Statistic = "median",
    percentile: float = 50.0,
    erode: int = 4,
) -> Picked:
    """One thing of each picture, by its rank.

    by: "depth": 1 = nearest, -1 = furthest, of those whose depth was measured. "size": 1 = largest. "score": 1 = best.
    "left to right": 1 = leftmost middle. "point": of the things that hold `point`, 1 = the smallest. rank counts from
    the other end when it is negative. Equals keep the order they have. names: only things of these classes. point: x
    and y in pixels. depth: needed for "depth"; measures what was chosen otherwise. statistic, percentile, erode: as
    in `depth_by_region`.

    video: the pictures are frames in order: the thing that has the rank in the first frame that has it is followed
    through the others, and where it cannot be followed there is none.

    A picture that does not have the rank gives an empty mask and says so, never another thing. Raises SettingError for
    a rank of 0, a missing depth or point, an unknown name; SignalError for a depth of another number of pictures.
    """
    check_choice("by", by, get_args(By))
    check_measure(statistic, percentile, erode)
    if isinstance(rank, bool) or not isinstance(rank, int) or rank == 0:
        raise SettingError(f"rank must be a whole number, 1 = the first, -1 = the last, got {rank!r}.")
    if by == "depth" and depth is None:
        raise SettingError("to pick by depth, connect a depth.")
    if by == "point" and point is None:
        raise SettingError("to pick by a point, give its x and y.")
    if depth is not None:
        same_pictures(depth, instances)
    wanted = instances.called(names) if names.strip() else [range(len(picture)) for picture in instances.things]
    tracks = follow(instances) if video else None
    followed: int | None = None
    chosen: list[int | None] = []
    report: list[dict[str, Any]] = []
    for i in each_picture(len(instances), "Pick"):
        things = instances.things[i]
        numbers = _Numbers(None if depth is None else nth_depth(depth, i), instances.size, statistic, percentile, erode)
        if tracks is not None and followed is not None:
            here = next((n for n in range(len(things)) if tracks[i][n] == followed), None)
            reason = "lost: nothing here overlaps what was followed"
            of = len(things)
        else:
            order = _ordered(things, wanted[i], by, point, numbers)
            of = len(order)
            here = order[rank - 1 if rank > 0 else rank] if -of <= rank <= of else None
            reason = f"there are {of} to choose from" if of else "there is none to choose from"
            if tracks is not None and here is not None:
                followed = tracks[i][here]
        chosen.append(here)
        report.append(
            {"picture": i, "rank": rank, "number": None, "why": reason}
            if here is None
            else {"picture": i, "rank": rank, "number": here + 1, "of": of, **numbers.all(things, here)}
        )
    kept = tuple(() if n is None else (picture[n],) for n, picture in zip(chosen, instances.things, strict=True))
    picked = replace(instances, things=kept)
    mask = torch.zeros(len(kept), *instances.size)
    for i, picture in enumerate(kept):
        for thing in picture:
            mask[i] = thing.shape(instances.size).whole().float()
    return Picked(picked, mask, report)


@dataclass
class _Numbers:
    """Measures the things of one picture."""

    depth: Depth | None
    size: tuple[int, int]
    statistic: Statistic
    percentile: float
    erode: int

    def of(self, thing: Thing) -> dict[str, Any]:
        """The depth of a thing, as `depth_by_region` tells it; {} without a depth."""
        return (
            {}
            if self.depth is None
            else thing_depth(thing, self.size, self.depth, self.statistic, self.percentile, self.erode)
        )

    def all(self, things: Sequence[Thing], number: int) -> dict[str, Any]:
        """What is told of a thing."""
        thing = things[number]
        return {"name": thing.name, "score": thing.score, "box": list(thing.box), **self.of(thing)}


def thing_depth(
    thing: Thing,
    size: tuple[int, int],
    depth: Depth,
    statistic: Statistic = "median",
    percentile: float = 50.0,
    erode: int = 4,
) -> dict[str, Any]:
    """The depth of one thing in a picture of `size`: pixels, measured, value (null where nothing was), mean, low, high,
    unit, and metres of a metric depth. depth: of that picture; a mask of another size is brought to it."""
    height, width = depth.values.shape[1:]
    runs = thing.shape(size)
    if size != (height, width):
        runs = Runs.of(mask_at(runs.whole(), height, width))
    top, left, rows, columns = runs.extent
    # Around the extent, so that its own edge is not taken for that of the picture.
    y, x = slice(max(0, top - erode), top + rows + erode), slice(max(0, left - erode), left + columns + erode)
    values = depth.values[0, y, x]
    known = torch.ones_like(values, dtype=torch.bool) if depth.valid is None else depth.valid[0, y, x]
    where = torch.zeros_like(known)
    where[top - y.start :, left - x.start :][:rows, :columns] = runs.inside().to(where.device)
    core = eroded(where, erode) if where.numel() else where
    return measure(depth, values, known, Region(thing.name, where, core), statistic, percentile)


def _ordered(
    things: Sequence[Thing],
    wanted: Sequence[int] | range,
    by: By,
    point: tuple[float, float] | None,
    numbers: _Numbers,
) -> list[int]:
    """The places of the things that can have a rank, the first rank first."""
    size = numbers.size
    if by == "depth":
        values = {n: numbers.of(things[n])["value"] for n in wanted}
        return sorted((n for n in wanted if values[n] is not None), key=lambda n: -values[n])
    if by == "size":
        return sorted(wanted, key=lambda n: -things[n].shape(size).area)
    if by == "score":
        return sorted((n for n in wanted if things[n].score is not None), key=lambda n: -(things[n].score or 0.0))
    if by == "left to right":
        return sorted(wanted, key=lambda n: things[n].centre[0])
    assert point is not None  # noqa: S101 - `pick` has checked it
    under = [n for n in wanted if _holds(things[n].shape(size), point)]
    return sorted(under, key=lambda n: things[n].shape(size).area)


def _holds(runs: Runs, point: tuple[float, float]) -> bool:
    column, row = math.floor(point[0]) - runs.extent[1], math.floor(point[1]) - runs.extent[0]
    if not (0 <= row < runs.extent[2] and 0 <= column < runs.extent[3]):
        return False
    return bool(runs.inside()[row, column])


# ---------------------------------------------------------------------------------------------- video


def follow(instances: Instances, overlap: float = 0.3) -> list[list[int]]:
    """Which things of the frames of a video are one and the same: for each frame a number for each of its things.

    A thing is the one of its name that it overlaps most (intersection over union), at least by `overlap`, among those
    seen within the last `REMEMBERED` frames, the latest first where they overlap alike; else it is a new one.
    """
    check_range("overlap", overlap, 0, 1)
    last: dict[int, tuple[int, Thing]] = {}
    numbers: list[list[int]] = []
    for frame, things in enumerate(instances.things):
        last = {track: seen for track, seen in last.items() if frame - seen[0] <= REMEMBERED}
        pairs = []
        for index, thing in enumerate(things):
            for track, (when, other) in last.items():
                if thing.name == other.name and _meet(thing, other):
                    shared = iou(thing, other, instances.size)
                    if shared >= overlap and shared > 0:
                        pairs.append((-shared, -when, index, track))
        given: dict[int, int] = {}
        for *_, index, track in sorted(pairs):
            if index not in given and track not in given.values():
                given[index] = track
        fresh = max([-1, *(t for frame_numbers in numbers for t in frame_numbers)]) + 1
        for index in range(len(things)):
            if index not in given:
                given[index] = fresh
                fresh += 1
            last[given[index]] = frame, things[index]
        numbers.append([given[index] for index in range(len(things))])
    return numbers


def _meet(a: Thing, b: Thing) -> bool:
    return a.box[0] < b.box[2] and b.box[0] < a.box[2] and a.box[1] < b.box[3] and b.box[1] < a.box[3]


# ---------------------------------------------------------------------------------------------- drawn


def draw(image: Any, instances: Instances, strength: float = 0.4) -> Tensor:
    """The pictures with what was found in them: masks tinted, boxes, landmarks, names and scores; IMAGE (B,H,W,3).

    image: (B,H,W,C), or one picture for all; the instances are brought to its size. strength: of the tint, 0..1.
    """
    from PIL import Image, ImageDraw

    check_range("strength", strength, 0, 1)
    pixels = as_pixels(image)
    instances = on_picture(instances, pixels)
    drawn = torch.empty(len(instances), *instances.size, 3)
    for i in each_picture(len(instances), "Draw"):
        levels = (pixels[i if len(pixels) > 1 else 0].permute(1, 2, 0).cpu() * 255).round()
        tints = colours(len(instances.things[i]))[1:] * 255
        for thing, tint in reversed(list(zip(instances.things[i], tints, strict=True))):
            if thing.runs is not None:
                top, left, rows, columns = thing.runs.extent
                part = levels[top : top + rows, left : left + columns]
                inside = thing.runs.inside().cpu()
                part[inside] = torch.lerp(part[inside], tint, strength)
        canvas = Image.fromarray(levels.to(torch.uint8).numpy())
        pen = ImageDraw.Draw(canvas)
        for thing, tint in reversed(list(zip(instances.things[i], tints, strict=True))):
            _outline(pen, thing, tuple(int(c) for c in tint), instances.size)
        import numpy as np

        drawn[i] = torch.from_numpy(np.array(canvas)).float() / 255
    return drawn


def on_picture(instances: Instances, pixels: Tensor) -> Instances:
    """Instances at the size of the pictures (B,3,H,W) in which they were found, which may have been resized since.

    Raises SignalError for another number of pictures (one serves all), or another shape than theirs.
    """
    (height, width), (rows, columns) = instances.size, pixels.shape[-2:]
    same_shape = abs(width * rows - height * columns) <= max(height, width, rows, columns)
    if not same_shape or len(pixels) not in (1, len(instances)):
        raise SignalError(
            f"the instances belong to {len(instances)} pictures of {width}x{height}, the image holds {len(pixels)} of "
            f"{columns}x{rows}."
        )
    return instances.resized(rows, columns)


def _outline(pen: Any, thing: Thing, tint: tuple[int, ...], size: tuple[int, int]) -> None:
    line = max(1, round(min(size) / 300))
    x0, y0, x1, y1 = thing.box
    pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=tint, width=line)
    # A face has five; a mesh of hundreds would hide it.
    for x, y in thing.points.tolist() if thing.points is not None and len(thing.points) <= 20 else ():
        pen.ellipse((x - line, y - line, x + line, y + line), fill=tint)
    words = thing.name.split(",")[0] + ("" if thing.score is None else f" {thing.score:.2f}")
    left, top, right, bottom = pen.textbbox((max(0.0, x0), max(0.0, y0)), words)
    pen.rectangle((left, top, right + 2, bottom + 2), fill=tint)
    pen.text((max(0.0, x0), max(0.0, y0)), words, fill=(0, 0, 0))
