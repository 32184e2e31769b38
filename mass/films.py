"""A film in a run of many pictures: its frames in order through estimators of which some see several together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..annotator.film import FilmStream
from ..annotator.runtime import Annotator, out_of_memory
from ..errors import FathomError, WeightsError
from ..signals import Signal
from . import manifest, sinks
from .job import Job, Wanted
from .manifest import Record
from .network import Stopped, is_device_lost
from .sources import Item
from .stores import OutputError

Forward = tuple[Any, ...]


def is_fatal(error: Exception) -> bool:
    """Whether an error ends the run instead of costing one picture."""
    return isinstance(error, (OutputError, WeightsError, Stopped)) or is_device_lost(error)


def reason(error: Exception) -> str:
    """Why a picture failed, for people to read."""
    if out_of_memory(error):
        return "it does not fit into memory: lower the resolution."
    if isinstance(error, FathomError):
        return str(error)
    return f"it cannot be annotated: {type(error).__name__}: {error}"


@dataclass
class _Frame:
    """A frame on its way. missing: forwards that have not given theirs yet."""

    at: int
    item: Item
    input: Record
    missing: int
    files: dict[str, bytes] = field(default_factory=dict)


class FilmRun:
    """One film on its way. What it holds are the frames between the first that goes into a window and the last that has
    come out of it. lend: as in `Annotator.annotate`. pixels: of one frame.
    """

    def __init__(self, job: Job, annotators: Sequence[Annotator], lend: Callable[[nn.Module], Any]) -> None:
        self._job, self._lend = job, lend
        self._forwards: dict[Forward, list[tuple[Wanted, Annotator]]] = {}
        for wanted, annotator in zip(job.signals, annotators, strict=True):
            # One forward fills every slot of the estimator.
            forward = wanted.estimator, wanted.weights, wanted.options
            self._forwards.setdefault(forward, []).append((wanted, annotator))
        self._streams: dict[Forward, FilmStream] = {}
        self._waiting: dict[Forward, deque[_Frame]] = {}
        self._open: dict[int, _Frame] = {}
        self.pixels = 0

    def run(
        self, items: Sequence[Item], read: Callable[[Item], tuple[Any, Tensor]]
    ) -> Iterator[tuple[int, Record, dict[str, bytes]]]:
        """(place, record, files) of every frame as it is finished. read: gives a frame and its tensor (1,H,W,C).

        A frame that cannot be read costs itself alone: the film goes on without it. Where an estimator fails, such as
        at a frame of another size, the film ends there, and every frame without a result is told why.
        """
        broken = ""
        for at, item in enumerate(items):
            try:
                if broken:
                    raise FathomError(broken)
                picture, image = read(item)
            except Exception as error:
                if is_fatal(error):
                    raise
                yield at, manifest.failed(item, reason(error)), {}
                continue
            self.pixels = image.shape[1] * image.shape[2]
            input = {"sha256": picture.sha256, "size": picture.size, "changed": picture.changed, "time": item.at}
            self._open[at] = _Frame(at, item, input, len(self._forwards))
            try:
                for frame in self._push(self._open[at], image):
                    yield self._finished(frame)
            except Exception as error:
                if is_fatal(error):
                    raise
                broken = f"the film ends before it is whole: {reason(error)}"
                yield from self._failed(broken)
        if not broken:
            try:
                for frame in self._flush():
                    yield self._finished(frame)
            except Exception as error:
                if is_fatal(error):
                    raise
                yield from self._failed(f"the film ends before it is whole: {reason(error)}")

    def _push(self, frame: _Frame, image: Tensor) -> Iterator[_Frame]:
        for forward, wanted in self._forwards.items():
            annotator, options = wanted[0][1], dict(wanted[0][0].options)
            resolution, (height, width) = self._job.resolution, image.shape[1:3]
            if annotator.estimator.window < 2:
                with torch.inference_mode():
                    signals = annotator.annotate(image, resolution, options, self._lend)
                yield from self._deliver(forward, frame, signals)
                continue
            if forward not in self._streams:
                self._streams[forward] = annotator.film(height, width, resolution, options, self._lend)
                self._waiting[forward] = deque()
            waiting = self._waiting[forward]
            waiting.append(frame)
            for signals in self._streams[forward].push(image):
                yield from self._deliver(forward, waiting.popleft(), signals)

    def _flush(self) -> Iterator[_Frame]:
        for forward, stream in self._streams.items():
            for signals in stream.flush():
                yield from self._deliver(forward, self._waiting[forward].popleft(), signals)

    def _deliver(self, forward: Forward, frame: _Frame, signals: dict[str, Signal]) -> Iterator[_Frame]:
        for wanted, annotator in self._forwards[forward]:
            signal = signals[annotator.estimator.slot(wanted.name)].to("cpu")
            frame.files |= sinks.encode(signal, frame.item, wanted, self._job)
        frame.missing -= 1
        if not frame.missing:
            yield frame

    def _finished(self, frame: _Frame) -> tuple[int, Record, dict[str, bytes]]:
        del self._open[frame.at]
        return frame.at, manifest.done(frame.item, frame.input, frame.files), frame.files

    def _failed(self, why: str) -> Iterator[tuple[int, Record, dict[str, bytes]]]:
        left, self._open = self._open, {}
        for at, frame in left.items():
            yield at, manifest.failed(frame.item, why), {}
