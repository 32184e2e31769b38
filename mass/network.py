"""One thread runs every network; many threads prepare and finish pictures around it.

An estimator's own `infer` runs in the thread of its picture, with a `Queued` in place of the network: the call hands
the tensor over, waits, and gets the result, so resizing in, resizing back and rendering overlap with the network, for
every estimator and without a second version of its code.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..annotator import host
from ..annotator.runtime import out_of_memory
from ..errors import FathomError

_LOOK = 0.25  # seconds between two looks whether the run has stopped


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
class Ticket:
    """What a picture queues with. window: None = its tensors go through alone. number: within the window."""

    window: Window | None = None
    number: int = 0
    signal: int = 0
    call: int = 0


@dataclass
class _Request:
    network: Callable[..., Any]
    x: Tensor
    rest: tuple[Any, ...]
    named: dict[str, Any]
    ticket: Ticket
    answer: queue.SimpleQueue[tuple[Any, Exception | None]] = field(default_factory=queue.SimpleQueue)

    @property
    def plain(self) -> bool:
        return not self.rest and not self.named


class Queued:
    """Stands for a network inside `infer`."""

    def __init__(self, queue: NetworkQueue, network: nn.Module, ticket: Ticket) -> None:
        self._queue, self._network, self._ticket = queue, network, ticket

    def __call__(self, x: Tensor, *rest: Any, **named: Any) -> Any:
        """The network's result, computed by the network thread."""
        self._ticket.call += 1
        return self._queue.ask(_Request(self._network, x, rest, named, self._ticket))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


class NetworkQueue:
    """Runs the networks in the thread that calls `run`. batch: most pictures in one forward.

    An interrupt may strike `run` at any line, between taking a request and keeping it as well. So nobody trusts it to
    answer: who asks looks by himself, now and then, whether the run has stopped. What both sides share are simple
    queues and one flag, which have no lock that an interrupt could leave closed.

    seconds: what the forwards took together, by the clock. forwards, pictures: how many.
    """

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch
        self.seconds = 0.0
        self.forwards = 0
        self.stopped = False
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask(self, request: _Request) -> Any:
        """Hand a request over and wait for its answer. Raises Stopped when the run stops."""
        if not self.stopped:
            self._queue.put(request)
        while not self.stopped:
            try:
                result, error = request.answer.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            return result
        raise Stopped

    def leave(self, ticket: Ticket) -> None:
        """A picture is done, failed, or too large to share: its window waits for it no longer."""
        if ticket.window is not None:
            window, ticket.window = ticket.window, None
            self._queue.put(window)

    def stop(self) -> None:
        """Let `run` return; whoever waits gets Stopped."""
        self.stopped = True
        self._queue.put(None)

    def run(self) -> None:
        """Answer requests until `stop`."""
        try:
            with torch.inference_mode():
                while not self.stopped:
                    request = self._queue.get()
                    if isinstance(request, Window):
                        request.running -= 1
                        self._flush(request)
                    elif request is not None:
                        self._take(request)
        finally:
            self.stopped = True

    def _take(self, request: _Request) -> None:
        window = request.ticket.window
        if window is None or not request.plain:
            self._answer([request])
            return
        ticket = request.ticket
        window.waiting.append(((ticket.signal, ticket.call, ticket.number), request))
        window.running -= 1
        self._flush(window)

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
        waiting = [list(requests)]
        while waiting:
            group = waiting.pop()
            try:
                parts = self._forward(group)
            except Exception as error:
                if is_device_lost(error):
                    raise
                failure = None if out_of_memory(error) else error
            else:
                for request, part in zip(group, parts, strict=True):
                    request.answer.put((part, None))
                continue
            # Out of `except`: until here the error held every activation of the forward that failed.
            if failure is None and len(group) > 1:
                host.release_device_memory()
                half = len(group) // 2
                waiting += [group[half:], group[:half]]
                continue
            if failure is None:
                host.release_device_memory()
                height, width = group[0].x.shape[-2:]
                failure = FathomError(f"the network ran out of memory at {width}x{height}: lower the resolution.")
            for request in group:
                request.answer.put((None, failure))

    def _forward(self, requests: Sequence[_Request]) -> Sequence[Any]:
        first = requests[0]
        start = time.perf_counter()
        if len(requests) == 1:
            parts: Sequence[Any] = [first.network(first.x, *first.rest, **first.named)]
        else:
            parts = _split(first.network(torch.cat([r.x for r in requests])), [len(r.x) for r in requests])
        if first.x.is_cuda:
            torch.cuda.synchronize(first.x.device)
        self.seconds += time.perf_counter() - start
        self.forwards += 1
        return parts


def _split(result: Any, sizes: list[int]) -> Sequence[Any]:
    """The parts of a network's result for each picture: of a tensor, or of each tensor in a dict or a tuple."""
    if isinstance(result, Mapping):
        parts = {name: _split(value, sizes) for name, value in result.items()}
        return [{name: part[i] for name, part in parts.items()} for i in range(len(sizes))]
    if isinstance(result, (tuple, list)):
        return list(zip(*(_split(value, sizes) for value in result), strict=True))
    return result.split(sizes)


def is_device_lost(error: BaseException) -> bool:
    """Whether an error leaves the device unusable for everything after it."""
    if out_of_memory(error):
        return False
    return isinstance(error, getattr(torch, "AcceleratorError", ())) or "CUDA error" in str(error)
