"""A loaded estimator: pictures in, signals out, in batches that fit into memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import FathomError, SettingError
from ..signals import Scene, Signal
from ..signals.base import Gather
from ..signals.exif import focal_length
from ..signals.thumbnail import thumbnails
from . import host, weights
from .estimator import Estimator
from .film import FilmStream
from .pictures import as_pictures, to_pixels
from .sizing import Fit, Size, check_resolution, result_size

T = TypeVar("T")

_MOST_PER_BATCH = 32
# Seconds that several pictures together may take: then the run tells how far it is, and can be cancelled.
_ANSWER_WITHIN = 1.0
_MOST_PER_CPU_BATCH = 4
# A processor gains from a batch only while it fits into the caches; a larger one delays every sign of progress.
_CPU_BATCH_BYTES = 2**27


class Annotator:
    """A loaded estimator: the one way from pictures to signals.

    estimator: its description, adapted to the layout of the weights file. found: its files.
    """

    def __init__(self, estimator: Estimator, resident: host.Resident, found: weights.Found) -> None:
        self.estimator = estimator
        self.found = found
        self._resident = resident

    @property
    def network(self) -> nn.Module:
        """The bare network, eval, on its device: normalised (B,3,h,w) in, raw out as published: depth (B,h,w),
        normals (B,3,h,w), class scores (B,C,h,w), intrinsic maps (B,3n,h,w); of several results a dict by name."""
        return self._resident.ready(0)

    @property
    def device(self) -> torch.device:
        """Where the network runs."""
        return self._resident.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the network computes in."""
        return next(self._resident.module.parameters()).dtype

    @property
    def loaded(self) -> bool:
        """Whether the network lies ready on its device; outside ComfyUI always."""
        return self._resident.loaded

    @property
    def patcher(self) -> Any:
        """ComfyUI's ModelPatcher of the network, None outside ComfyUI."""
        return self._resident.patcher

    def __call__(
        self, image: Any, resolution: int | None = None, *, prompt: Signal | None = None, **options: Any
    ) -> Signal:
        """The main signal of a picture or a batch: the first of `estimator.produces`.

        image: float (B,H,W,1|3|4) in 0..1, uint8, or a PIL image; never changed. The focal length that a photo's EXIF
        tells is taken where the estimator has use for one and `options` give none. resolution: the short side of the
        result, aspect kept; 0 = the picture's own size; None = the published inference rule, result at the
        picture's own size. prompt: a signal of the same pictures, for an estimator that takes one. options: the
        estimator's own, see `Estimator.options`.

        Returns a Signal on the host's output device. Raises PictureError or SettingError for bad input, FathomError
        where memory does not suffice, and the host's interrupt when the user cancels.
        """
        return self.annotate(image, resolution, options, prompt=prompt)[self.estimator.produces[0]]

    def scene(
        self, image: Any, resolution: int | None = None, *, prompt: Signal | None = None, **options: Any
    ) -> Scene:
        """Every signal of one forward in its slot, with the picture. Arguments and errors as in a call."""
        options = dict(self.estimator.with_focal(options, focal_length(image)))
        pictures = as_pictures(image)
        plain = pictures.dtype == torch.float32 and pictures.shape[-1] == 3
        shown = pictures if plain else to_pixels(pictures).permute(0, 2, 3, 1)
        return Scene(shown.to(host.output_device()), self.annotate(pictures, resolution, options, prompt=prompt))

    @torch.inference_mode()
    def annotate(
        self,
        image: Any,
        resolution: int | None = None,
        options: Mapping[str, Any] | None = None,
        lend: Callable[[nn.Module], Any] | None = None,
        prompt: Signal | None = None,
    ) -> dict[str, Signal]:
        """The signals of one forward by slot. Arguments and errors as in a call.

        lend: gives what is called in place of the network, for whoever runs networks elsewhere, such as in a thread
        that joins the pictures of many; nothing shows progress then.
        """
        if resolution is not None:
            check_resolution(resolution)
        options = self.estimator.with_focal(options or {}, focal_length(image))
        settings = self.estimator.settings(options)
        # A film is checked as a whole before anything runs, but becomes pixels a few frames at a time.
        pictures = as_pictures(image)
        total, height, width, _ = pictures.shape
        self.estimator.check_prompt(prompt, total)
        if self.estimator.window > 1:
            return self._film(pictures, self.film(height, width, resolution, options, lend), lend is None)
        size = result_size(height, width, resolution or 0)
        fit = self.estimator.plan(height, width, resolution, settings)
        gathered: dict[str, Gather[Any]] = {}
        batch = most = self._best_batch(total, fit)
        show = host.progress(total, self.estimator.name, "picture") if lend is None else nullcontext()
        with show as bar:
            done = 0
            while done < total:
                started = time.monotonic()
                part = to_pixels(pictures[done : done + batch])
                beside = {} if prompt is None else {"prompt": prompt[done : done + len(part)]}
                signals = self._within_memory(part, fit, size, {**settings, **beside}, lend)
                if signals is None:
                    if len(part) == 1:
                        raise FathomError(_too_little_memory(self.estimator, fit, self.device))
                    batch = most = len(part) // 2
                    host.release_device_memory()
                    continue
                for slot, signal in signals.items():
                    there = signal.to(host.output_device())
                    gathered.setdefault(slot, type(there).gather(total)).add(there)
                done += len(part)
                if bar is not None:
                    main = signals[self.estimator.produces[0]]
                    bar.update(len(part), lambda: thumbnails(main[-1])[0])  # noqa: B023 - called at once
                    # The user can cancel between two forwards only: none is to take longer than a single one must.
                    took = max(time.monotonic() - started, 1e-6)
                    batch = max(1, min(most, int(len(part) * _ANSWER_WITHIN / took)))
        return {slot: parts.whole() for slot, parts in gathered.items()}

    def film(
        self,
        height: int,
        width: int,
        resolution: int | None = None,
        options: Mapping[str, Any] | None = None,
        lend: Callable[[nn.Module], Any] | None = None,
    ) -> FilmStream:
        """A film of height x width frames that come one after the other, for an estimator that sees several together.

        Arguments as in `annotate`. Raises SettingError for an estimator that sees single pictures.
        """
        if resolution is not None:
            check_resolution(resolution)
        if self.estimator.window < 2:
            raise SettingError(f"{self.estimator.id} sees one picture at a time: call it on the frames themselves.")
        settings = self.estimator.settings(options or {})
        fit = self.estimator.plan(height, width, resolution, settings)
        size = result_size(height, width, resolution or 0)
        network = self._resident.module
        lent = network if lend is None else lend(network)

        def step(run: Callable[[], T]) -> T:
            done = self._with_room(1, fit, lambda _: (run(),))
            if done is None:
                raise FathomError(_too_little_memory(self.estimator, fit, self.device))
            return done[0]

        return FilmStream((height, width), self.estimator.film(lent, fit, size, settings), step, self.device)

    def _film(self, pictures: Tensor, film: FilmStream, shown: bool) -> dict[str, Signal]:
        """The signals of a film that lies in memory as a whole."""
        total, few = len(pictures), FilmStream.FEW
        gathered: dict[str, Gather[Any]] = {}
        show = host.progress(total, self.estimator.name, "frame") if shown else nullcontext()

        def keep(signals: dict[str, Signal]) -> None:
            for slot, signal in signals.items():
                gathered.setdefault(slot, type(signal).gather(total)).add(signal)
            if bar is not None:
                main = signals[self.estimator.produces[0]]
                bar.update(0, lambda: thumbnails(main[-1])[0])

        with show as bar:
            for start in range(0, total, few):
                part = pictures[start : start + few]
                for signals in film.push(part):
                    keep(signals)
                if bar is not None:
                    bar.update(len(part))
            for signals in film.flush():
                keep(signals)
        return {slot: parts.whole() for slot, parts in gathered.items()}

    def _within_memory(
        self, pixels: Tensor, fit: Fit, size: Size, settings: Mapping[str, Any], lend: Callable[[nn.Module], Any] | None
    ) -> dict[str, Signal] | None:
        """The signals of a few pictures; None where memory did not suffice."""

        def infer(network: nn.Module) -> dict[str, Signal]:
            lent = network if lend is None else lend(network)
            return self.estimator.infer(lent, pixels.to(self.device).contiguous(), fit, size, settings)

        return self._with_room(len(pixels), fit, infer)

    def _with_room(self, pictures: int, fit: Fit, run: Callable[[nn.Module], T]) -> T | None:
        """What `run` gives for the network, ready for a few pictures; None where memory did not suffice. By then
        nothing holds what the failed forward had computed: an error keeps the frames that it went through alive."""
        try:
            network = self._resident.ready(self.estimator.memory_required(pictures, fit, self.dtype))
            # Whoever calls may be inside autocast; the precision is the estimator's.
            with torch.autocast(self.device.type, enabled=False):
                return run(network)
        except Exception as error:
            if not out_of_memory(error):
                raise
        return None

    def _best_batch(self, count: int, fit: Fit) -> int:
        single = self.estimator.memory_required(1, fit, self.dtype)
        room = int(host.free_memory(self.device) * 0.8) // max(single, 1)
        most = _MOST_PER_BATCH
        if self.device.type == "cpu":
            most = min(_MOST_PER_CPU_BATCH, _CPU_BATCH_BYTES // max(single, 1))
        return max(1, min(count, room, most))


def out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: torch's own error of a GPU, what it raises on a processor, or Python's."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def _too_little_memory(estimator: Estimator, fit: Fit, device: torch.device) -> str:
    height, width = fit.network
    return (
        f"{estimator.name} ran out of memory on {device} with a single picture at {width}x{height} network pixels. "
        "Lower resolution, choose a smaller model, or start ComfyUI with --lowvram or --cpu."
    )
