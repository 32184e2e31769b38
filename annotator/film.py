"""A film that goes through an estimator frame by frame, whatever its length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from ..errors import PictureError
from ..signals import Signal
from . import host
from .estimator import FilmInFlight
from .pictures import as_pictures, to_pixels
from .sizing import Size

T = TypeVar("T")
_OVER: Any = object()


class FilmStream:
    """A film of any length: frames go in by `push`, each comes out as soon as it is final, and `flush` gives the rest.

    How many frames it looks ahead is the estimator's: fewer than its window. Made by `Annotator.film`.
    """

    FEW = 4  # frames that become pixels together

    def __init__(
        self,
        size: Size,
        film: FilmInFlight,
        step: Callable[[Callable[[], Any]], Any],
        device: torch.device,
    ) -> None:
        self._size, self._film, self._step, self._device = size, film, step, device
        self._count = 0

    def push(self, image: Any) -> Iterator[dict[str, Signal]]:
        """Take the next frames, any picture that `as_pictures` takes; yield the signals of every frame that is final,
        by slot, one frame at a time and in order. Nothing happens before the result is iterated over.

        Raises PictureError for frames of another size than the first ones, FathomError where memory does not suffice.
        """
        frames = as_pictures(image)
        height, width = frames.shape[1:3]
        if (height, width) != self._size:
            raise PictureError(
                f"frame {self._count + 1} is {width}x{height}, but the film began with "
                f"{self._size[1]}x{self._size[0]}: the frames of a film have one size. Cut it where the size changes, "
                "or resize its frames."
            )
        for few in frames.split(self.FEW):
            yield from self._steps(lambda few=few: self._film.push(to_pixels(few).to(self._device).contiguous()))
            self._count += len(few)

    def flush(self) -> Iterator[dict[str, Signal]]:
        """The film is over: yield the signals of the frames that are left. The next frame begins a new film."""
        yield from self._steps(self._film.flush)
        self._count = 0

    def _steps(self, begin: Callable[[], Iterator[dict[str, Signal]]]) -> Iterator[dict[str, Signal]]:
        # Between two steps whoever iterates may run anything, also under gradients; within one, nobody else does.
        frames = self._step(begin)
        while True:
            with torch.inference_mode():
                signals: Any = self._step(lambda: next(frames, _OVER))
            if signals is _OVER:
                return
            yield {slot: signal.to(host.output_device()) for slot, signal in signals.items()}
