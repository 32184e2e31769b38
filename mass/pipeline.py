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
from ..errors import PictureError, SettingError
from ..signals import Signal
from ..signals.exif import focal_length
from . import manifest, sinks
from .films import FilmRun, is_fatal, reason
from .job import Chunk, Job, becomes_video, sees_films
from .manifest import Ledger, Record
from .network import NetworkQueue, Queued, Stopped, Ticket, Window
from .sources import Item, Reader
from .stores import Store

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
        self._stopped = False

    def stop(self) -> None:
        """End `run` soon, from any thread: pictures that are on their way are dropped, what is finished is kept."""
        self._stopped = True
        self._queue.stop()

    def run(self, chunks: Iterator[Chunk], ledger: Ledger, report: Report) -> None:
        """Annotate and commit every chunk.

        Raises OutputError when nothing can be written, Stopped after `stop`, or what went wrong.
        """
        self._queue = network = NetworkQueue(self._batch)
        if self._stopped:
            raise Stopped
        tasks: queue.Queue[Any] = queue.Queue(maxsize=self._threads)
        ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        errors: list[BaseException] = []
        opened: set[_Open] = set()

        def fail(error: BaseException) -> None:
            if not isinstance(error, Stopped):
                errors.append(error)
            network.stop()

        def hand_over(task: Any) -> None:
            while not network.stopped:
                try:
                    return tasks.put(task, timeout=0.1)
                except queue.Full:
                    continue
            raise Stopped

        def feed() -> None:
            try:
                for chunk in chunks:
                    for task in self._tasks(chunk, ledger, report, opened):
                        hand_over(task)
                for _ in workers:
                    hand_over(None)
            except BaseException as error:  # the calling thread raises it
                fail(error)

        def work() -> None:
            # The network thread has the cores; here each thread is one of many.
            torch.set_num_threads(1)
            ready.put(None)
            try:
                while not network.stopped:
                    try:
                        task = tasks.get(timeout=0.1)
                    except queue.Empty:
                        continue
                    if task is None:
                        return
                    state, at, ticket = task
                    if at is None:
                        self._film(state, ledger, report, opened)
                    else:
                        self._picture(state, at, ticket, ledger, report, opened)
            except BaseException as error:  # as above
                fail(error)

        def watch() -> None:
            for worker in workers:
                worker.join()
            network.stop()

        before = torch.get_num_threads()
        workers = [threading.Thread(target=work, name=f"fathom-{i}", daemon=True) for i in range(self._threads)]
        feeder = threading.Thread(target=feed, name="fathom-feed", daemon=True)
        watcher = threading.Thread(target=watch, name="fathom-watch", daemon=True)
        try:
            for worker in workers:
                worker.start()
            # Some of torch's libraries know one number for the whole process: the last word has to be the network's.
            for _ in workers:
                ready.get()
            torch.set_num_threads(self.job.cores or before)
            feeder.start()
            watcher.start()
            network.run()
        finally:
            network.stop()
            for thread in (feeder, *workers):
                if thread.is_alive():
                    thread.join()
            torch.set_num_threads(before)
            report.add(network=network.seconds)
            for left in opened:
                left.sink.finish(whole=False)
        if errors:
            raise errors[0]
        if self._stopped:
            raise Stopped

    def _tasks(self, chunk: Chunk, ledger: Ledger, report: Report, opened: set[_Open]) -> Iterator[Any]:
        """The pictures of a chunk that are not whole yet, each with its ticket for the queue."""
        committed, records = ledger.recall(chunk)
        todo = [i for i in range(len(chunk.items)) if i not in records or "error" in records[i]]
        if committed and all(i in records for i in todo):
            # Failures of an earlier run alone: they come again only when they can be read now.
            todo = [i for i in todo if self._readable(chunk.items[i])]
        film = sees_films(self.job) and chunk.items[0].kind == "frame"
        whole = film or self._batch > 1 or (self.job.layout == "shards" and not becomes_video(chunk.items[0], self.job))
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
        if film:
            yield state, None, Ticket()
            return
        for start in range(0, len(todo), WINDOW):
            part = todo[start : start + WINDOW]
            window = Window(len(part)) if self._batch > 1 else None
            for index in part:
                yield state, index, Ticket(window, index)

    def _readable(self, item: Item) -> bool:
        if item.kind == "bad":
            return False
        try:
            as_pixels(self._reader.read(item).image)
        except Exception:  # whatever it is, it has been told
            return False
        return True

    def _picture(
        self, state: _Open, at: int, ticket: Ticket, ledger: Ledger, report: Report, opened: set[_Open]
    ) -> None:
        item = state.chunk.items[at]
        try:
            try:
                record, files = self._annotated(item, ticket, report)
                state.sink.put(at, files)
            except Exception as error:
                if is_fatal(error):
                    raise
                record = manifest.failed(item, reason(error))
                state.sink.put(at, {})
        finally:
            self._queue.leave(ticket)
        self._keep(state, at, record, ledger, report, opened)

    def _film(self, state: _Open, ledger: Ledger, report: Report, opened: set[_Open]) -> None:
        """The frames of a film that some estimator sees together, one after the other in this thread."""
        taken = 0
        window = max(annotator.estimator.window for annotator in self.annotators)

        def read(item: Item) -> tuple[Any, Tensor]:
            nonlocal taken
            picture = self._reader.read(item)
            image = _tensor(picture.image, self._device)
            # As much as a window holds of the film, for as long as it lasts.
            taken = taken or self._budget.take(window * image.shape[1] * image.shape[2])
            return picture, image

        film = FilmRun(self.job, self.annotators, lambda network: Queued(self._queue, network, Ticket()))
        try:
            for at, record, files in film.run(state.chunk.items, read):
                try:
                    state.sink.put(at, files)
                except PictureError as error:
                    record = manifest.failed(state.chunk.items[at], reason(error))
                    state.sink.put(at, {})
                report.add(pixels=film.pixels, written=sum(map(len, files.values())))
                self._keep(state, at, record, ledger, report, opened)
        finally:
            if taken:
                self._budget.give(taken)

    def _keep(self, state: _Open, at: int, record: Record, ledger: Ledger, report: Report, opened: set[_Open]) -> None:
        """Put the record of one picture into the books; of the last one of its chunk, commit the chunk."""
        if isinstance(state.sink, sinks.Tree) or "error" in record:
            ledger.note(state.chunk, record)
        report.add(**{"failed" if "error" in record else "done": 1})
        with state.lock:
            state.records[at] = record
            state.left -= 1
            last = state.left == 0
        if last:
            opened.discard(state)
            outputs = state.sink.finish(whole=True)
            records = [state.records[i] for i in range(len(state.chunk.items))]
            for one in records:
                if outputs and "outputs" in one:
                    # The pictures' files are in the shard; its size is what a later run looks for.
                    one["members"], one["outputs"] = one["outputs"], {n: {"size": s} for n, s in outputs.items()}
            ledger.commit(state.chunk, records)

    def _annotated(self, item: Item, ticket: Ticket, report: Report) -> tuple[Record, dict[str, bytes]]:
        """The record and the files of one picture."""
        files: dict[str, bytes] = {}
        taken = 0
        try:
            with torch.inference_mode():
                picture = self._reader.read(item)
                image, focal = _tensor(picture.image, self._device), focal_length(picture.image)
                size = image.shape[1] * image.shape[2]
                if size > SHARED_PIXELS:
                    self._queue.leave(ticket)
                if ticket.window is None:
                    taken = self._budget.take(size)
                scenes: dict[Any, dict[str, Signal]] = {}
                for number, (wanted, annotator) in enumerate(zip(self.job.signals, self.annotators, strict=True)):
                    ticket.signal, ticket.call = number, 0
                    if annotator.estimator.window > 1:
                        raise SettingError(
                            f"{annotator.estimator.id} sees the frames of a film together, and this is a single "
                            "picture: give it the video, or choose an estimator for pictures."
                        )
                    # One forward fills every slot of the estimator.
                    if (forward := (wanted.estimator, wanted.weights, wanted.options)) not in scenes:
                        scenes[forward] = annotator.annotate(
                            image,
                            self.job.resolution,
                            annotator.estimator.with_focal(dict(wanted.options), focal),
                            lambda network: Queued(self._queue, network, ticket),
                        )
                    signal = scenes[forward][annotator.estimator.slot(wanted.name)].to("cpu")
                    files |= sinks.encode(signal, item, wanted, self.job)
        finally:
            if taken:
                self._budget.give(taken)
        input = {"sha256": picture.sha256, "size": picture.size, "changed": picture.changed}
        if item.kind == "frame":
            input["time"] = item.at
        report.add(pixels=size, written=sum(map(len, files.values())))
        return manifest.done(item, input, files), files


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


def count_in_background(counted: Callable[[], int], report: Report) -> threading.Thread:
    """Count the pictures of the sources beside the run, for the time left."""

    def count() -> None:
        try:
            report.total = counted()
        except Exception:  # the run itself meets and tells it
            report.total = None

    thread = threading.Thread(target=count, daemon=True, name="fathom-count")
    thread.start()
    return thread
