"""The local engine: many threads decode, resize, render and write; one runs the networks.

Memory does not grow with the number of pictures: each thread holds one picture, and the pixels of all of them
together are bounded.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..annotator.pictures import as_pixels
from ..annotator.runtime import Annotator
from ..errors import FathomError, WeightsError
from ..signals import Signal
from . import manifest, sinks
from .job import Chunk, Job, becomes_video
from .manifest import Ledger, Record
from .network import NetworkQueue, Place, Queued, Stopped, Window
from .sources import Item, Reader
from .stores import OutputError, Store

WINDOW = 16  # pictures that may share forwards
SHARED_PIXELS = 2**24  # a larger picture shares no forward: it would keep the others waiting in memory
_BYTES_PER_PIXEL = 48  # of a picture on its way: 8-bit, float, result, rendering, file


@dataclass
class Report:
    """How a run goes, live. Every field is only ever added to.

    done, failed, skipped: pictures. pixels, written: of the pictures read, bytes of the files written. network:
    seconds of the forwards. total: pictures in the sources, None while they are counted.
    """

    started: float = field(default_factory=time.monotonic)
    done: int = 0
    failed: int = 0
    skipped: int = 0
    pixels: int = 0
    written: int = 0
    network: float = 0.0
    total: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, **numbers: float) -> None:
        """Add to the fields named."""
        with self.lock:
            for name, number in numbers.items():
                setattr(self, name, getattr(self, name) + number)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started


class _Budget:
    """Pixels that may be on their way together. One picture larger than all of it goes alone."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._changed = threading.Condition()

    def take(self, pixels: int) -> int:
        pixels = min(pixels, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        return pixels

    def give(self, pixels: int) -> None:
        with self._changed:
            self._free += pixels
            self._changed.notify_all()


class _Open:
    """A chunk on its way."""

    def __init__(self, chunk: Chunk, records: dict[int, Record], todo: list[int], sink: Any) -> None:
        self.chunk, self.records, self.sink = chunk, records, sink
        self.left = len(todo)
        self.lock = threading.Lock()


def threads_for(device: torch.device) -> int:
    """How many pictures are on their way at once."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 2 * cores + 2 if device.type == "cpu" else max(2 * WINDOW, min(cores + 4, 4 * WINDOW))


class Engine:
    """Annotates chunks with loaded estimators. annotators: one for each of the job's signals, in order.

    threads: pictures on their way at once, None = by device.
    """

    def __init__(self, job: Job, store: Store, annotators: list[Annotator], threads: int | None = None) -> None:
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = None  # decode has its own limit
        self.job, self.store, self.annotators = job, store, annotators
        device = annotators[0].device
        batch = job.batch or (1 if device.type == "cpu" else 8)
        self._batch = batch
        self._queue = NetworkQueue(batch)
        self._threads = threads or threads_for(device)
        if batch > 1:
            self._threads = max(self._threads, WINDOW + 2)
        self._reader = Reader()
        self._device = device
        self._budget = _Budget(_pixels_in_memory())

    def run(self, chunks: Iterator[Chunk], ledger: Ledger, report: Report) -> None:
        """Annotate and commit every chunk. Raises OutputError when nothing can be written, or what went wrong."""
        self._queue = NetworkQueue(self._batch)
        tasks: queue.Queue[Any] = queue.Queue(maxsize=self._threads)
        errors: list[BaseException] = []
        stop = threading.Event()
        opened: set[_Open] = set()

        def fail(error: BaseException) -> None:
            if not isinstance(error, Stopped):
                errors.append(error)
            stop.set()
            self._queue.stop()

        def feed() -> None:
            try:
                for chunk in chunks:
                    for task in self._tasks(chunk, ledger, report, opened):
                        while not stop.is_set():
                            try:
                                tasks.put(task, timeout=0.1)
                                break
                            except queue.Full:
                                continue
                        if stop.is_set():
                            return
            except BaseException as error:  # the calling thread raises it
                fail(error)
            finally:
                for _ in workers:
                    while not stop.is_set():
                        try:
                            tasks.put(None, timeout=0.1)
                            break
                        except queue.Full:
                            continue

        def work() -> None:
            # The network thread has the cores; here each thread is one of many.
            torch.set_num_threads(1)
            try:
                while not stop.is_set():
                    try:
                        task = tasks.get(timeout=0.1)
                    except queue.Empty:
                        continue
                    if task is None:
                        return
                    state, at, place = task
                    self._picture(state, at, place, ledger, report, opened)
            except BaseException as error:  # as above
                fail(error)

        def watch() -> None:
            for worker in workers:
                worker.join()
            self._queue.stop()

        before = torch.get_num_threads()
        workers = [threading.Thread(target=work, name=f"fathom-{i}", daemon=True) for i in range(self._threads)]
        feeder = threading.Thread(target=feed, name="fathom-feed", daemon=True)
        watcher = threading.Thread(target=watch, name="fathom-watch", daemon=True)
        try:
            for thread in [*workers, feeder, watcher]:
                thread.start()
            torch.set_num_threads(self.job.cores or before)
            self._queue.run()
        finally:
            stop.set()
            self._queue.stop()
            for thread in [feeder, *workers]:
                thread.join()
            torch.set_num_threads(before)
            report.add(network=self._queue.seconds)
            for left in opened:
                left.sink.finish(whole=False)
        if errors:
            raise errors[0]

    def _tasks(self, chunk: Chunk, ledger: Ledger, report: Report, opened: set[_Open]) -> Iterator[Any]:
        """The pictures of a chunk that are not whole yet, each with its place in the queue."""
        committed, records = ledger.recall(chunk)
        todo = [i for i in range(len(chunk.items)) if i not in records or "error" in records[i]]
        if committed and all(i in records for i in todo):
            # Failures of an earlier run alone: they come again only when they can be read now.
            todo = [i for i in todo if self._readable(chunk.items[i])]
        whole = self._batch > 1 or (self.job.layout == "shards" and not becomes_video(chunk.items[0], self.job))
        if whole and (todo or not committed):
            todo = list(range(len(chunk.items)))
        again = set(todo)
        kept = {i: record for i, record in records.items() if i not in again}
        failures = sum("error" in r for r in kept.values())
        report.add(skipped=len(kept) - failures, failed=failures)
        if not todo:
            ledger.commit(chunk, [kept[i] for i in range(len(chunk.items))], changed=not committed)
            return
        state = _Open(chunk, kept, todo, sinks.sink(self.job, self.store, chunk))
        opened.add(state)
        for start in range(0, len(todo), WINDOW):
            part = todo[start : start + WINDOW]
            window = Window(len(part)) if self._batch > 1 else None
            for place in part:
                yield state, place, Place(window, place)

    def _readable(self, item: Item) -> bool:
        if item.kind == "bad":
            return False
        try:
            as_pixels(self._reader.read(item).image)
        except FathomError:
            return False
        return True

    def _picture(self, state: _Open, at: int, place: Place, ledger: Ledger, report: Report, opened: set[_Open]) -> None:
        item = state.chunk.items[at]
        files: dict[str, bytes] = {}
        taken = 0
        try:
            with torch.inference_mode():
                picture = self._reader.read(item)
                image = _tensor(picture.image, self._device)
                size = image.shape[1] * image.shape[2]
                if size > SHARED_PIXELS:
                    self._queue.leave(place)
                if place.window is None:
                    taken = self._budget.take(size)
                made: dict[Any, dict[str, Signal]] = {}
                for number, (wanted, annotator) in enumerate(zip(self.job.signals, self.annotators, strict=True)):
                    place.signal, place.call = number, 0
                    key = wanted.estimator, wanted.options
                    if key not in made:
                        made[key] = annotator.annotate(
                            image,
                            self.job.resolution,
                            dict(wanted.options),
                            lambda network: Queued(self._queue, network, place),
                        )
                    signal = made[key][annotator.estimator.slot(wanted.name)].to("cpu")
                    files |= sinks.encode(signal, item, wanted, self.job)
            input = {"sha256": picture.sha256, "size": picture.size, "changed": picture.changed}
            record = manifest.done(item, input, files)
            report.add(pixels=size, written=sum(map(len, files.values())))
        except (OutputError, WeightsError):
            raise
        except FathomError as error:
            files = {}
            record = manifest.failed(item, str(error))
        except MemoryError:
            files = {}
            record = manifest.failed(item, "it does not fit into memory.")
        finally:
            self._queue.leave(place)
            if taken:
                self._budget.give(taken)
        state.sink.put(at, files)
        if isinstance(state.sink, sinks.Tree) or "error" in record:
            ledger.note(state.chunk, record)
        report.add(**{"failed" if "error" in record else "done": 1})
        with state.lock:
            state.records[at] = record
            state.left -= 1
            last = state.left == 0
        if last:
            opened.discard(state)
            held = state.sink.finish(whole=True)
            records = [state.records[i] for i in range(len(state.chunk.items))]
            for one in records:
                if held and "outputs" in one:
                    # The pictures' files are in the shard; its size is what a later run looks for.
                    one["members"], one["outputs"] = one["outputs"], {n: {"size": s} for n, s in held.items()}
            ledger.commit(state.chunk, records)


def _tensor(image: Any, device: torch.device) -> Tensor:
    """A decoded picture as a tensor (1,H,W,C), 8-bit where it has 8 bits, on its way to the device."""
    if not isinstance(image, Tensor):
        if image.mode in ("RGB", "RGBA"):
            import numpy as np

            image = torch.from_numpy(np.array(image))[None]
        else:
            image = as_pixels(image).permute(0, 2, 3, 1)
    if device.type == "cuda":
        return image.pin_memory().to(device, non_blocking=True)
    return image


def _pixels_in_memory() -> int:
    from ..annotator import host

    return max(2**24, min(2**30, int(host.free_memory(torch.device("cpu")) * 0.3) // _BYTES_PER_PIXEL))


def count_in_background(items: Callable[[], Iterator[Any]], report: Report) -> threading.Thread:
    """Count the pictures of the sources beside the run, for the time left."""

    def count() -> None:
        try:
            report.total = sum(1 for _ in items())
        except Exception:  # the run itself meets and tells it
            report.total = None

    thread = threading.Thread(target=count, daemon=True, name="fathom-count")
    thread.start()
    return thread
