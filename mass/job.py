"""What a run is asked to do, and how its pictures are divided into chunks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..annotator.sizing import check_resolution
from ..errors import SettingError
from ..models import estimator as by_id
from ..version import __version__
from .sources import Item
from .stores import WORK

Layout = Literal["tree", "shards"]


@dataclass(frozen=True)
class Wanted:
    """One signal to make. name: what its files are called after. model: digest of its files. weights: None = the
    known ones. options: the estimator's own, (name, value) each; its defaults for the others."""

    name: str
    estimator: str
    format: str
    model: str = ""
    weights: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What the results depend on."""
        chosen = {"options": dict(self.options)} if self.options else {}
        return {"estimator": self.estimator, "model": self.model, "format": self.format, **chosen}


@dataclass(frozen=True)
class Job:
    """The settings of a run. Picklable: every worker gets the same one.

    resolution: short side of the results, 0 = the picture's, None = the model's. layout: "tree" mirrors the sources'
    folders, "shards" makes WebDataset tars. chunk: pictures in one shard, or about as many in one manifest. batch:
    pictures of one network size in one forward, 0 = by device. device: None = the best there is. column: of Parquet
    files. half: run networks in float16. cores: that a network uses on a CPU, 0 = all; sums in another order give other
    last bits, so runs that must agree to the bit need the same number.
    """

    sources: tuple[str, ...]
    out: str
    signals: tuple[Wanted, ...]
    resolution: int | None = None
    layout: Layout = "tree"
    chunk: int = 128
    batch: int = 0
    device: str | None = None
    column: str = ""
    half: bool = False
    cores: int = 0
    video: Literal["frames", "video"] = "frames"

    @property
    def settings(self) -> dict[str, Any]:
        """What the results depend on: two runs into one folder must agree on it."""
        return {
            "signals": {wanted.name: wanted.settings for wanted in self.signals},
            "resolution": self.resolution,
            "precision": "float16" if self.half else "float32",
            "layout": self.layout,
            "chunk": self.chunk,
            "video": self.video,
        }

    @property
    def about(self) -> dict[str, Any]:
        """The settings with what made them, as manifests tell it."""
        return {"fathom": "annotation", "version": 1, "made_by": f"fathom {__version__}", **self.settings}


@dataclass(frozen=True)
class Chunk:
    """Pictures that are finished together. id: stands in the manifest's name. index: place among all chunks."""

    id: str
    index: int
    items: tuple[Item, ...]


FRAMES = f"{WORK}/frames/"


def becomes_video(item: Item, job: Job) -> bool:
    """Whether the item's results are frames of a video that is put together when all of them are there."""
    return item.kind == "frame" and job.video == "video"


def sees_films(job: Job) -> bool:
    """Whether an estimator of the job sees several frames of a film together."""
    return any(by_id(wanted.estimator).window > 1 for wanted in job.signals)


def chunks(items: Iterator[Item], job: Job, start: int = 0) -> Iterator[Chunk]:
    """Divide items into chunks, the same ones at every run over the same sources.

    Tree: a chunk ends where a hash of the last name says so, `job.chunk` names apart on average and at most four times
    that, so a picture that is added to the sources later changes its own chunk alone. Shards: `job.chunk` pictures
    each, but one for each tar or Parquet file that is a source, under its name. Frames that an estimator sees together:
    one chunk for each film, whatever its length. start: the first one's index.
    """
    pending: list[Item] = []
    index = start
    shards = job.layout == "shards"
    films = sees_films(job)
    for item in items:
        # Frames of one film are never parted, and share a chunk with nothing else.
        frames = films and "frame" in (item.kind, pending[-1].kind if pending else "")
        shards = job.layout == "shards" and not becomes_video(item, job)
        apart = bool(pending) and item.container != pending[-1].container
        full = len(pending) >= job.chunk and not (item.container and item.kind != "frame")
        if frames:
            ends = apart
        elif shards:
            ends = apart or full
        else:
            ends = bool(pending) and _ends(pending, job.chunk)
        if pending and ends:
            yield _chunk(pending, index, shards)
            pending, index = [], index + 1
        pending.append(item)
    if pending:
        yield _chunk(pending, index, shards)


def _ends(pending: list[Item], size: int) -> bool:
    if len(pending) >= 4 * size:
        return True
    digest = hashlib.blake2b(pending[-1].name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % size == 0


def _chunk(items: list[Item], index: int, shards: bool) -> Chunk:
    if not shards:
        id = hashlib.sha256("\n".join(i.name for i in items).encode()).hexdigest()[:20]
    elif items[0].container and items[0].kind != "frame":
        id = items[0].container
    else:
        id = f"{index:06}"
    return Chunk(id, index, tuple(items))


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Which settings differ, for people to read."""
    listed = [
        f"{key}: {json.dumps(old.get(key))} then, {json.dumps(new[key])} now" for key in new if old.get(key) != new[key]
    ]
    return "; ".join(listed)


def check(job: Job) -> None:
    """Raises SettingError for settings that cannot be."""
    if not 1 <= job.chunk <= 100_000:
        raise SettingError(f"the chunk must hold 1 to 100000 pictures, got {job.chunk}.")
    if not 0 <= job.batch <= 256:
        raise SettingError(f"the batch must lie in 0..256 (0 = by device), got {job.batch}.")
    if not 0 <= job.cores <= 4096:
        raise SettingError(f"the cores of a network must lie in 0..4096 (0 = all), got {job.cores}.")
    if job.resolution is not None:
        check_resolution(job.resolution)
    if job.layout == "tree":
        _check_names([w.name for w in job.signals])
    for wanted in job.signals:
        if job.video == "video" and by_id(wanted.estimator).slot(wanted.name) == "intrinsics":
            raise SettingError(
                f"{wanted.name} has several maps for each picture, and a video shows one: use --video frames."
            )


def _check_names(names: list[str]) -> None:
    """Raises SettingError for names of signals under which the files of two pictures could be one: a.png's far_depth
    and a_far.png's depth are both a_far_depth."""
    for one in names:
        for other in names:
            if one.endswith(f"_{other}") or one.startswith(f"{other}_"):
                raise SettingError(
                    f"the signals {other!r} and {one!r} could give files of two pictures one name: call them "
                    f"otherwise, for instance {one.replace('_', '-')!r}."
                )
