"""Where a picture's results go: files in a mirrored tree, or the members of a tar for each chunk."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..errors import PictureError
from ..signals import Depth, Signal
from ..signals.codec import SUFFIXES
from .job import FRAMES, Chunk, Job, Wanted, becomes_video
from .sources import Item
from .stores import Store


def encode(signal: Signal, item: Item, wanted: Wanted, job: Job) -> dict[str, bytes]:
    """The files of one signal of one picture: <name>_<signal>.<suffix> in a tree, <key>.<signal>.<suffix> in a tar."""
    format = wanted.format
    if becomes_video(item, job):
        # Depth is kept exactly until the range of all frames is known.
        format = "png16" if isinstance(signal, Depth) or format == "png16" else "png"
    suffix = SUFFIXES[format]
    name = f"{item.name}_{wanted.name}{suffix}"
    if becomes_video(item, job):
        name = FRAMES + name
    elif job.layout == "shards":
        # WebDataset takes what stands before the first dot of a member's file name as the sample's key.
        inner = item.name.removeprefix(f"{item.container}/") if item.kind != "frame" else item.name
        folder, _, last = inner.rpartition("/")
        key = (folder.replace(".", "%2E") + "/" if folder else "") + last.replace(".", "%2E")
        name = f"{key}.{wanted.name}{suffix}"
    files = signal.encode(name, format)
    return {path.as_posix(): data for path, data in files.items()}


class Tree:
    """Every file by itself, at once."""

    def __init__(self, store: Store, chunk: Chunk) -> None:
        self._store = store

    def put(self, index: int, files: Mapping[str, bytes]) -> None:
        """Write the files of the picture at `index` of the chunk, all or none. Raises OutputError, or PictureError when
        the disk does not take one of the names."""
        try:
            for name, data in files.items():
                self._store.write(name, data)
        except PictureError:
            for name in files:
                with suppress(OSError):
                    self._store.remove(name)
            raise

    def finish(self, whole: bool) -> dict[str, int]:
        """All pictures are put. Returns files that hold the chunk's results beside the pictures' own."""
        return {}


class Shard:
    """One tar, members in the order of the pictures whatever order they come in; published when it is whole."""

    def __init__(self, store: Store, chunk: Chunk) -> None:
        self.name = f"{chunk.id}.tar"
        self._lock = threading.Lock()
        self._early: dict[int, Mapping[str, bytes]] = {}
        self._next = 0
        self._writing = store.writing(self.name)
        self._tar: tarfile.TarFile | None = None
        self._file: Any = None

    def put(self, index: int, files: Mapping[str, bytes]) -> None:
        """As in Tree. A failed picture puts no files."""
        with self._lock:
            self._early[index] = files
            while self._next in self._early:
                for name, data in self._early.pop(self._next).items():
                    self._add(name, data)
                self._next += 1

    def _add(self, name: str, data: bytes) -> None:
        if self._tar is None:
            self._file = self._writing.__enter__()
            self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        member = tarfile.TarInfo(name)  # time 0, no owner: the same bytes at every run
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def finish(self, whole: bool) -> dict[str, int]:
        """As in Tree. whole: False = the run stops, nothing is published."""
        if self._tar is None:
            return {}
        if not whole:
            self._writing.__exit__(RuntimeError, None, None)
            return {}
        self._tar.close()
        size = self._file.tell()
        self._writing.__exit__(None, None, None)
        return {self.name: size}


def sink(job: Job, store: Store, chunk: Chunk) -> Tree | Shard:
    """The sink of one chunk."""
    shard = job.layout == "shards" and not becomes_video(chunk.items[0], job)
    return Shard(store, chunk) if shard else Tree(store, chunk)
