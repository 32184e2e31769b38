"""One thread runs every network; many threads prepare and finish pictures around it.

An estimator's own `infer` runs in the thread of its picture, with a `Queued` in place of the network: the call hands
the tensor over, waits, and gets the result, so resizing in, resizing back and rendering overlap with the network, for
every estimator and without a second version of its code.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..annotator import host
from ..errors import FathomError


class Stopped(Exception):
    """The run has stopped; whoever waits lets go."""


@dataclass
class Window:
    """Pictures whose network inputs of the same size go through together: they wait until all are there or gone.

    What shares a forward follows from the sources and the settings alone, so a second run gives the same bits.
    """

    running: int
    waiting: list[tuple[tuple[int, int, int], _Request]] = field(default_factory=list)


@dataclass
class Place:
    """One picture's place in the queue. window: None = its tensors go through alone. number: within the window."""

    window: Window | None = None
    number: int = 0
    signal: int = 0
    call: int = 0


@dataclass
class _Request:
    network: Callable[..., Tensor]
    x: Tensor
    rest: tuple[Any, ...]
    named: dict[str, Any]
    answer: Future[Tensor]
    place: Place

    @property
    def plain(self) -> bool:
        return not self.rest and not self.named


class Queued:
    """Stands for a network inside `infer`."""

    def __init__(self, queue: NetworkQueue, network: nn.Module, place: Place) -> None:
        self._queue, self._network, self._place = queue, network, place

    def __call__(self, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        """The network's result, computed by the network thread."""
        self._place.call += 1
        return self._queue.ask(_Request(self._network, x, rest, named, Future(), self._place))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


class NetworkQueue:
    """Runs the networks in the thread that calls `run`. batch: most pictures in one forward.

    seconds: what the forwards took together, by the clock. forwards, pictures: how many.
    """

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.seconds = 0.0
        self.forwards = 0
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = threading.Event()

    def ask(self, request: _Request) -> Tensor:
        """Hand a request over and wait for its answer. Raises Stopped when the run stops."""
        if self._stopped.is_set():
            raise Stopped
        self._queue.put(request)
        return request.answer.result()

    def leave(self, place: Place) -> None:
        """A picture is done, failed, or too large to share: its window waits for it no longer."""
        if place.window is not None:
            window, place.window = place.window, None
            self._queue.put(window)

    def stop(self) -> None:
        """Let `run` return; whoever waits gets Stopped."""
        self._stopped.set()
        self._queue.put(None)

    def run(self) -> None:
        """Answer requests until `stop`."""
        windows: list[Window] = []
        request: Any = None
        try:
            with torch.inference_mode():
                while not self._stopped.is_set():
                    request = self._queue.get()
                    if isinstance(request, Window):
                        request.running -= 1
                        self._flush(request)
                    elif request is not None:
                        window = request.place.window
                        if window is None or not request.plain:
                            self._answer([request])
                        else:
                            place = request.place
                            window.waiting.append(((place.signal, place.call, place.number), request))
                            window.running -= 1
                            windows = [w for w in windows if w.waiting and w is not window] + [window]
                            self._flush(window)
                    request = None
        finally:
            self._stopped.set()
            held = [r for w in windows for _, r in w.waiting] + [request]
            while not self._queue.empty():
                held.append(self._queue.get())
            for left in held:
                if isinstance(left, _Request) and not left.answer.done():
                    left.answer.set_exception(Stopped())

    def _flush(self, window: Window) -> None:
        """When nobody of the window is still on the way: answer those that are least far."""
        if window.running or not window.waiting:
            return
        window.waiting.sort(key=lambda w: w[0])
        first = window.waiting[0][0][:2]
        ready = [request for at, request in window.waiting if at[:2] == first]
        window.waiting = [w for w in window.waiting if w[0][:2] != first]
        window.running += len(ready)
        groups: dict[Any, list[_Request]] = {}
        for request in ready:
            groups.setdefault((request.x.shape[1:], request.x.dtype), []).append(request)
        for group in groups.values():
            for start in range(0, len(group), self.batch):
                self._answer(group[start : start + self.batch])

    def _answer(self, requests: Sequence[_Request]) -> None:
        first = requests[0]
        start = time.perf_counter()
        try:
            if len(requests) == 1:
                parts: Sequence[Tensor] = [first.network(first.x, *first.rest, **first.named)]
            else:
                x = torch.cat([r.x for r in requests])
                parts = first.network(x).split([len(r.x) for r in requests])
            if first.x.is_cuda:
                torch.cuda.synchronize(first.x.device)
        except torch.OutOfMemoryError:
            self._too_large(requests)
            return
        except FathomError as error:
            for request in requests:
                request.answer.set_exception(error)
            return
        self.seconds += time.perf_counter() - start
        self.forwards += 1
        for request, part in zip(requests, parts, strict=True):
            request.answer.set_result(part)

    def _too_large(self, requests: Sequence[_Request]) -> None:
        host.release_device_memory()
        if len(requests) == 1:
            height, width = requests[0].x.shape[-2:]
            requests[0].answer.set_exception(
                FathomError(f"the network ran out of memory at {width}x{height}: lower the resolution.")
            )
            return
        half = len(requests) // 2
        self._answer(requests[:half])
        self._answer(requests[half:])
