"""Instances: the things that stand in a picture, each by itself. None is a right answer, not an error.

Masks are kept as run lengths inside their own extent: a thousand of them in a picture of sixteen megapixels would
otherwise take sixteen gigabytes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError, SignalError
from . import codec
from .base import Gather, Signal, format_of

Box = tuple[float, float, float, float]

FACE = "face"

_MOST_PIXELS = 2**28  # of a picture: a file may say any size, and masks take its memory


@dataclass(frozen=True, eq=False)
class Runs:
    """A mask of `size` (height, width), all False outside its extent.

    extent: top, left, height, width, in pixels. lengths: int32, row by row through the extent, how many pixels are
    False, then True, then False, ...; the first may be 0.
    """

    size: tuple[int, int]
    extent: tuple[int, int, int, int]
    lengths: Tensor

    @staticmethod
    def of(mask: Tensor) -> Runs:
        """The runs of a bool mask (H,W), on its device."""
        size = int(mask.shape[0]), int(mask.shape[1])
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        if not len(rows):
            return Runs(size, (0, 0, 0, 0), torch.zeros(0, dtype=torch.int32, device=mask.device))
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
        lengths = run_lengths(mask[top : top + height, left : left + width].reshape(-1))
        return Runs(size, (top, left, height, width), lengths)

    def inside(self) -> Tensor:
        """The mask within its extent, bool (height,width)."""
        _, _, height, width = self.extent
        return from_run_lengths(self.lengths).view(height, width)

    def whole(self) -> Tensor:
        """The mask, bool (H,W)."""
        mask = torch.zeros(self.size, dtype=torch.bool, device=self.lengths.device)
        top, left, height, width = self.extent
        mask[top : top + height, left : left + width] = self.inside()
        return mask

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Runs):
            return NotImplemented
        return (self.size, self.extent) == (other.size, other.extent) and _equal(self.lengths, other.lengths)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @property
    def area(self) -> int:
        """How many pixels are True."""
        return int(self.lengths[1::2].sum())

    @property
    def box(self) -> Box:
        """The extent as x0, y0, x1, y1."""
        top, left, height, width = self.extent
        return float(left), float(top), float(left + width), float(top + height)


def run_lengths(flat: Tensor) -> Tensor:
    """Run lengths, int32, of a bool (n,): False first, so the first length may be 0."""
    changes = (flat[1:] != flat[:-1]).nonzero()[:, 0] + 1
    first = changes.new_zeros(2 if len(flat) and bool(flat[0]) else 1)
    return torch.cat([first, changes, changes.new_tensor([len(flat)])]).diff().int()


def from_run_lengths(lengths: Tensor) -> Tensor:
    """The bool (n,) of run lengths, False first."""
    values = torch.arange(len(lengths), device=lengths.device) % 2 == 1
    return values.repeat_interleave(lengths.long())


class Thing:
    """One thing in one picture; never changed.

    name: the data set's own word ("face", "person"). score: 0..1, None where nobody gave one. box: x0, y0, x1, y1 in
    pixels of the picture, half-open; None = the extent of the mask. mask: bool (H,W), the picture's size, or None.
    points: float32 (N,2), landmarks as x, y in pixels, or None. None of them is copied more than compact storage asks.

    Raises SignalError for a box that is not finite or turned round, a score outside 0..1, a mask or points of another
    shape or type, and for a thing with neither box nor mask.
    """

    __slots__ = ("box", "name", "points", "runs", "score")

    def __init__(
        self,
        name: str,
        score: float | None = None,
        box: Sequence[float] | None = None,
        mask: Tensor | Runs | None = None,
        points: Tensor | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise SignalError(f"a thing's name must be text, got {type(name).__name__}.")
        self.name = name
        self.score = _checked_score(name, score)
        if isinstance(mask, Tensor):
            if mask.ndim != 2 or mask.dtype != torch.bool or mask.numel() == 0:
                raise SignalError(
                    f"the mask of {name!r} must be bool (H,W), got {mask.dtype} {tuple(mask.shape)}: mask > 0.5 makes "
                    "it one."
                )
            mask = Runs.of(mask)
        elif not isinstance(mask, (Runs, type(None))):
            raise SignalError(f"the mask of {name!r} must be a bool tensor (H,W) or None, got {type(mask).__name__}.")
        self.runs = mask
        if box is None and mask is None:
            raise SignalError(f"{name!r} has neither a box nor a mask: give one of them.")
        self.box = _checked_box(name, mask.box if box is None and mask is not None else box)
        if points is not None and (
            not isinstance(points, Tensor) or points.ndim != 2 or points.shape[1] != 2 or not points.is_floating_point()
        ):
            came = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
            raise SignalError(f"the points of {name!r} must be float (N,2), x and y in pixels, got {came}.")
        self.points = None if points is None else points.float()

    @property
    def mask(self) -> Tensor | None:
        """The mask, bool (H,W), made anew at every call; None where there is none."""
        return None if self.runs is None else self.runs.whole()

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the box, x and y."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    def shape(self, size: tuple[int, int]) -> Runs:
        """What the thing covers in a picture of `size` (height, width): its mask, the box's oval for a face, the box
        for others."""
        return self.runs if self.runs is not None else box_runs(self.box, size, oval=self.name == FACE)

    def to(self, device: torch.device | str) -> Thing:
        """The same thing with its tensors on `device`."""
        runs = None if self.runs is None else replace(self.runs, lengths=self.runs.lengths.to(device))
        points = None if self.points is None else self.points.to(device)
        return Thing(self.name, self.score, self.box, runs, points)

    def __eq__(self, other: object) -> bool:
        """Whether both are the same to the last bit."""
        if not isinstance(other, Thing):
            return NotImplemented
        if (self.name, self.score, self.box, self.runs) != (other.name, other.score, other.box, other.runs):
            return False
        return _equal(self.points, other.points)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Thing({self.name!r}, score={self.score}, box={self.box})"


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one.cpu(), other.cpu())


def _checked_score(name: str, score: float | None) -> float | None:
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise SignalError(f"the score of {name!r} must lie in 0..1, or be None where there is none; got {score!r}.")
    return float(score)


def _checked_box(name: str, box: Any) -> Box:
    values = tuple(float(v) for v in box) if isinstance(box, (tuple, list)) and len(box) == 4 else ()
    if len(values) != 4 or not all(map(math.isfinite, values)) or values[2] < values[0] or values[3] < values[1]:
        raise SignalError(f"the box of {name!r} must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, got {box!r}.")
    return values  # pyright: ignore[reportReturnType]


def box_runs(box: Box, size: tuple[int, int], oval: bool = False) -> Runs:
    """The pixels of `size` (height, width) whose centres lie in a half-open box, or in the oval that it holds."""
    height, width = size
    # A pixel's centre lies half a pixel from its left edge.
    left, right = (min(max(math.ceil(v - 0.5), 0), width) for v in (box[0], box[2]))
    top, bottom = (min(max(math.ceil(v - 0.5), 0), height) for v in (box[1], box[3]))
    if right <= left or bottom <= top:
        return Runs(size, (0, 0, 0, 0), torch.zeros(0, dtype=torch.int32))
    if not oval:
        return Runs(
            size, (top, left, bottom - top, right - left), torch.tensor([0, (bottom - top) * (right - left)]).int()
        )
    x = (torch.arange(left, right) + 0.5 - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2)
    y = (torch.arange(top, bottom) + 0.5 - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2)
    within = Runs.of(y[:, None] ** 2 + x**2 <= 1)
    return Runs(size, (top + within.extent[0], left + within.extent[1], *within.extent[2:]), within.lengths)


@dataclass(frozen=True, eq=False)
class Instances(Signal):
    """The things of a batch of pictures.

    things: for each picture a tuple of its things, as the estimator scored them, highest first; they may overlap, and
    may be none. size: (height, width) of every picture. classes: every name that the estimator could have given, as
    its data set spells them; () = unknown. source: what made it, for people to read.

    Raises SignalError for a batch of no pictures, a mask of another size, and a box that lies wholly outside.
    """

    KIND: ClassVar[str] = "instances"
    SLOTS: ClassVar[tuple[str, ...]] = ("objects", "faces", "people")
    FORMATS: ClassVar[tuple[str, ...]] = ("json", "png", "npz", "safetensors", "webp")

    things: tuple[tuple[Thing, ...], ...]
    size: tuple[int, int]
    classes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(isinstance(s, int) and 0 < s <= _MOST_PIXELS for s in self.size):
            got = str(self.size)[:100]
            raise SignalError(f"the size of instances must be (height, width) in whole pixels, got {got}.")
        if self.size[0] * self.size[1] > _MOST_PIXELS:
            raise SignalError(f"the size of instances is {self.size[1]}x{self.size[0]}: more than a picture can have.")
        try:
            object.__setattr__(self, "things", tuple(tuple(picture) for picture in self.things))
        except TypeError:
            raise SignalError(
                f"the things of instances must be a tuple of them for every picture, got {self.things!r:.200}."
            ) from None
        if not self.things:
            raise SignalError("instances need a tuple of things for every picture, got none: an empty picture is ().")
        for i, picture in enumerate(self.things):
            for thing in picture:
                self._check(i, thing)

    def _check(self, picture: int, thing: Thing) -> None:
        height, width = self.size
        if not isinstance(thing, Thing):
            raise SignalError(f"picture {picture} holds a {type(thing).__name__} among its things.")
        if thing.runs is not None and thing.runs.size != tuple(self.size):
            of = thing.runs.size
            raise SignalError(
                f"the mask of {thing.name!r} in picture {picture} is {of[1]}x{of[0]}, the picture {width}x{height}: "
                "they must be the same."
            )
        x0, y0, x1, y1 = thing.box
        if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
            raise SignalError(
                f"the box {tuple(round(v, 1) for v in thing.box)} of {thing.name!r} lies outside picture {picture}, "
                f"which is {width}x{height}: were the boxes found in a picture of another size?"
            )

    def __len__(self) -> int:
        return len(self.things)

    def __getitem__(self, index: int | slice) -> Instances:
        """The picture or pictures at `index`, still as a batch."""
        at = slice(index, index + 1 or None) if isinstance(index, int) else index
        return replace(self, things=self.things[at])

    def to(self, device: torch.device | str) -> Instances:
        """The same things with their tensors on `device`; itself where they lie there."""
        target = torch.device(device)
        tensors = [t for picture in self.things for thing in picture for t in _tensors(thing)]
        if all(t.device.type == target.type and target.index in (None, t.device.index) for t in tensors):
            return self
        return replace(self, things=tuple(tuple(thing.to(device) for thing in picture) for picture in self.things))

    def masks(self, picture: int) -> Tensor:
        """What each thing of a picture covers, bool (N,H,W): its mask, the box's oval for a face, the box for others.

        (0,H,W) where there is none. Of many things in a large picture take `shape` of one at a time instead.
        """
        things = self.things[picture]
        if not things:
            return torch.zeros(0, *self.size, dtype=torch.bool)
        return torch.stack([thing.shape(self.size).whole() for thing in things])

    def ids(self, picture: int) -> Tensor:
        """Which thing is seen at every pixel, int32 (H,W): 1 is the first, 0 none; of two that overlap, the first."""
        ids = torch.zeros(self.size, dtype=torch.int32)
        for number, thing in reversed(list(enumerate(self.things[picture], 1))):
            runs = thing.shape(self.size)
            top, left, height, width = runs.extent
            ids[top : top + height, left : left + width].masked_fill_(runs.inside().cpu(), number)
        return ids

    def to_image(self) -> Tensor:
        """Each thing in a colour of its own on black, float32 (B,H,W,3) in 0..1; of two that overlap, the first."""
        return torch.stack([colours(int(ids.amax()))[ids.long()] for ids in map(self.ids, range(len(self)))])

    def resized(self, height: int, width: int) -> Instances:
        """The same things in pictures of another size; masks to the nearest pixel. Itself where it is that size."""
        if self.size == (height, width):
            return self
        down, across = height / self.size[0], width / self.size[1]
        things = tuple(tuple(_resized(t, height, width, down, across) for t in picture) for picture in self.things)
        return replace(self, things=things, size=(height, width))

    def called(self, query: str) -> tuple[tuple[int, ...], ...]:
        """For each picture the places of the things that are called `query`, or by one of its names parted by commas.

        Case is ignored, and each synonym of a class that is spelled "person, individual" counts. Raises SettingError
        naming the closest when no class has such a name.
        """
        wanted = {part.strip().casefold() for part in query.replace(";", ",").split(",")} - {""}
        known = self.classes or tuple(dict.fromkeys(t.name for picture in self.things for t in picture))
        spoken = {name: set(synonyms(name)) for name in known}
        for word in sorted(wanted):
            if known and not any(word in words for words in spoken.values()):
                raise SettingError(f"there is no class {word!r} here.{_closest(word, spoken.values())}")
        chosen = {name for name, words in spoken.items() if words & wanted}
        return tuple(tuple(i for i, t in enumerate(picture) if t.name in chosen) for picture in self.things)

    # ------------------------------------------------------------------------------ there and back

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """(what JSON holds, tensors by name), from which `unpack` makes the same things again, bit for bit."""
        every = [thing for picture in self.things for thing in picture]
        about = {
            "size": list(self.size),
            "classes": list(self.classes),
            "source": self.source,
            "names": [thing.name for thing in every],
        }
        runs = [thing.runs for thing in every]
        points = [thing.points for thing in every]
        tensors = {
            "count": torch.tensor([len(picture) for picture in self.things]),
            "score": torch.tensor([math.nan if t.score is None else t.score for t in every], dtype=torch.float64),
            "box": torch.tensor([t.box for t in every], dtype=torch.float64).view(-1, 4),
            # -1 tells a thing without a mask from one whose mask is empty.
            "extent": torch.tensor([(-1,) * 4 if r is None else r.extent for r in runs], dtype=torch.int64).view(-1, 4),
            "runs": torch.tensor([0 if r is None else len(r.lengths) for r in runs], dtype=torch.int64),
            "lengths": _joined([r.lengths for r in runs if r is not None], torch.int32),
            "landmarks": torch.tensor([-1 if p is None else len(p) for p in points], dtype=torch.int64),
            "points": _joined([p for p in points if p is not None], torch.float32).view(-1, 2),
        }
        return about, tensors

    @classmethod
    def unpack(cls, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Instances:
        """What `pack` took apart. Raises KeyError, TypeError, ValueError or SignalError for what is none."""
        return _unpacked(metadata, tensors)

    @classmethod
    def join(cls, parts: Sequence[Instances]) -> Instances:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The pictures of all parts as one batch. Raises SignalError when their pictures differ in size."""
        first = parts[0]
        for other in parts[1:]:
            if other.size != first.size:
                raise SignalError(f"instances of {other.size} pictures cannot follow those of {first.size}.")
        classes = dict.fromkeys(name for part in parts for name in part.classes)
        return replace(first, things=tuple(p for part in parts for p in part.things), classes=tuple(classes))

    @classmethod
    def gather(cls, total: int) -> Gather[Instances]:
        """What takes the parts of a batch of `total` pictures as they come."""
        return _GatherThings(total)

    def encode(
        self, path: str | Path, format: str | None = None, texts: Mapping[str, str] | None = None
    ) -> dict[Path, bytes]:
        """As `Signal.encode`. "json": COCO's annotation form, of the whole batch, exactly. "png": which thing is seen
        at every pixel of one picture, in 16 bits: 1 is the first, 0 none. "webp": each thing in a colour of its own."""
        path = Path(path)
        format = self.check_format(format or format_of(path, self.FORMATS))
        if format == "json":
            from . import coco

            return {path: codec.described(self.KIND, coco.to_coco(self)).encode()}
        if format == "png":
            metadata, _ = self.one(format).pack()
            numbers = {"score": [t.score for t in self.things[0]], "box": [list(t.box) for t in self.things[0]]}
            about = codec.described(self.KIND, {**metadata, **numbers})
            return {path: codec.png16(self.ids(0), {codec.KEY: about, **(texts or {})})}
        return super().encode(path, format, texts)

    @classmethod
    def from_file(cls, content: codec.Content) -> Instances:
        """The instances in a file that `encode` wrote. Of a PNG each thing has what is seen of it as its mask."""
        if "annotations" in content.metadata:
            from . import coco

            return coco.from_coco(content.metadata)
        if content.format != "png16":
            return super().from_file(content)
        metadata, ids = content.metadata, content.tensors["plane"]
        things = tuple(
            Thing(name, score, box, ids == number)
            for number, (name, score, box) in enumerate(
                zip(metadata["names"], metadata["score"], metadata["box"], strict=True), 1
            )
        )
        return cls((things,), tuple(metadata["size"]), tuple(metadata["classes"]), metadata["source"])


class _GatherThings(Gather[Instances]):
    """The parts of a batch of instances, which have no rows to be written into."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self._parts: list[Instances] = []

    def add(self, part: Instances) -> None:
        self._parts.append(part)

    def whole(self) -> Instances:
        came = sum(map(len, self._parts))
        if came != self._total:
            raise SignalError(f"{self._total} pictures were to come, {came} came.")
        return Instances.join(self._parts)


def _resized(thing: Thing, height: int, width: int, down: float, across: float) -> Thing:
    x0, y0, x1, y1 = thing.box
    runs = thing.runs
    if runs is not None:
        whole = F.interpolate(runs.whole()[None, None].float(), (height, width), mode="nearest-exact")[0, 0]
        runs = Runs.of(whole > 0.5)
    points = None if thing.points is None else thing.points * thing.points.new_tensor([across, down])
    return Thing(thing.name, thing.score, (x0 * across, y0 * down, x1 * across, y1 * down), runs, points)


def without_empty(instances: Instances) -> Instances:
    """The things that cover at least one pixel."""
    size = instances.size
    kept = (tuple(t for t in picture if t.shape(size).area > 0) for picture in instances.things)
    return replace(instances, things=tuple(kept))


def without_duplicates(instances: Instances, overlap: float = 0.8) -> Instances:
    """Of things of one name that share at least `overlap` of what both cover together, the first, that is the best."""
    pictures = []
    for picture in instances.things:
        kept: list[Thing] = []
        for thing in picture:
            if all(thing.name != k.name or iou(thing, k, instances.size) < overlap for k in kept):
                kept.append(thing)
        pictures.append(tuple(kept))
    return replace(instances, things=tuple(pictures))


def iou(a: Thing, b: Thing, size: tuple[int, int]) -> float:
    """How much of what two things cover together both cover, 0..1, in a picture of `size`; 0 for empty ones."""
    one, other = a.shape(size), b.shape(size)
    shared = shared_area(one, other)
    whole = one.area + other.area - shared
    return shared / whole if whole else 0.0


def shared_area(one: Runs, other: Runs) -> int:
    """How many pixels two masks share; nothing is made larger than the place where their extents meet."""
    (t1, l1, h1, w1), (t2, l2, h2, w2) = one.extent, other.extent
    top, left, bottom, right = max(t1, t2), max(l1, l2), min(t1 + h1, t2 + h2), min(l1 + w1, l2 + w2)
    if bottom <= top or right <= left:
        return 0
    cuts = (
        r.inside()[top - r.extent[0] : bottom - r.extent[0], left - r.extent[1] : right - r.extent[1]]
        for r in (one, other)
    )
    first, second = cuts
    return int((first & second.to(first.device)).sum())


def _tensors(thing: Thing) -> list[Tensor]:
    return [t for t in (thing.runs and thing.runs.lengths, thing.points) if isinstance(t, Tensor)]


def _joined(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([p.reshape(-1).cpu() for p in parts]) if parts else torch.zeros(0, dtype=dtype)


def _unpacked(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Instances:
    height, width = about["size"]
    counts, scores = tensors["count"].tolist(), tensors["score"].tolist()
    boxes, extents = tensors["box"].tolist(), tensors["extent"].tolist()
    lengths = tensors["lengths"].split(tensors["runs"].tolist())
    landmarks = tensors["landmarks"].tolist()
    points = list(tensors["points"].split([max(0, n) for n in landmarks]))
    names = about["names"]
    if not len(names) == len(scores) == len(boxes) == len(extents) == len(lengths) == sum(counts):
        raise SignalError("these instances are damaged: their parts differ in number.")
    every = []
    for i, name in enumerate(names):
        runs = None if extents[i][0] < 0 else Runs((height, width), tuple(extents[i]), lengths[i])
        if runs is not None:
            _check_runs(name, runs)
        score = None if math.isnan(scores[i]) else scores[i]
        every.append(Thing(name, score, boxes[i], runs, None if landmarks[i] < 0 else points[i]))
    things, start = [], 0
    for count in counts:
        things.append(tuple(every[start : start + count]))
        start += count
    return Instances(tuple(things), (height, width), tuple(about["classes"]), about["source"])


def _check_runs(name: str, runs: Runs) -> None:
    top, left, height, width = runs.extent
    fits = min(runs.extent) >= 0 and top + height <= runs.size[0] and left + width <= runs.size[1]
    if not fits or int(runs.lengths.sum()) != height * width or (len(runs.lengths) and int(runs.lengths.amin()) < 0):
        raise SignalError(f"these instances are damaged: the mask of {name!r} does not fill its extent.")


def colours(count: int) -> Tensor:
    """Colours that differ from their neighbours, float32 (count+1,3) in 0..1; the first is black, for no thing."""
    # Steps of the golden section never come near an earlier hue soon.
    hue = (torch.arange(count, dtype=torch.float64) * 0.618033988749895) % 1.0
    ramp = ((hue[:, None] * 6 + torch.tensor([5.0, 3.0, 1.0])) % 6).double()
    rgb = 1 - 0.85 * torch.minimum(ramp, 4 - ramp).clamp(0, 1)
    return torch.cat([torch.zeros(1, 3), rgb.float()])


def synonyms(name: str) -> list[str]:
    """A class's name as written and each of its words for the same thing, in small letters."""
    whole = name.casefold()
    return [whole, *(part.strip() for part in whole.replace(";", ",").split(",") if part.strip())]


def _closest(word: str, known: Iterable[set[str]]) -> str:
    every = sorted(set().union(*known))
    near = difflib.get_close_matches(word, every, 5, 0.5) or [s for s in every if word in s][:5]
    return f" Did you mean {', '.join(near)}?" if near else f" There are {', '.join(every[:8])}."
