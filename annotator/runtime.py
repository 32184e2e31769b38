"""From an estimator's id to results: loading, keeping, running in batches."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FathomError, SettingError
from ..signals import Scene, Signal
from ..signals.base import Gather
from ..signals.thumbnail import thumbnails
from . import host, weights
from .estimator import Estimator
from .layers import compute_float32_products, speed_up_linear_layers
from .pictures import as_pictures, to_pixels
from .sizing import Fit, Size, check_resolution, result_size

log = logging.getLogger(__name__)

KEEP = 3
_MOST_PER_BATCH = 32
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

    def __call__(self, image: Any, resolution: int | None = None, **options: Any) -> Signal:
        """The main signal of a picture or a batch: the first of `estimator.produces`.

        image: float (B,H,W,1|3|4) in 0..1, uint8, or a PIL image; never changed. resolution: the short side of the
        result, aspect kept; 0 = the picture's own size; None = the published inference rule, result at the
        picture's own size. options: the estimator's own, see `Estimator.options`.

        Returns a Signal on the host's output device. Raises PictureError or SettingError for bad input, FathomError
        where memory does not suffice, and the host's interrupt when the user cancels.
        """
        return self.annotate(image, resolution, options)[self.estimator.produces[0]]

    def scene(self, image: Any, resolution: int | None = None, **options: Any) -> Scene:
        """Every signal of one forward in its slot, with the picture. Arguments and errors as in a call."""
        pictures = as_pictures(image)
        plain = pictures.dtype == torch.float32 and pictures.shape[-1] == 3
        shown = pictures if plain else to_pixels(pictures).permute(0, 2, 3, 1)
        return Scene(shown.to(host.output_device()), self.annotate(pictures, resolution, options))

    @torch.inference_mode()
    def annotate(
        self,
        image: Any,
        resolution: int | None = None,
        options: Mapping[str, Any] | None = None,
        lend: Callable[[nn.Module], Any] | None = None,
    ) -> dict[str, Signal]:
        """The signals of one forward by slot. Arguments and errors as in a call.

        lend: gives what is called in place of the network, for whoever runs networks elsewhere, such as in a thread
        that joins the pictures of many; nothing shows progress then.
        """
        if resolution is not None:
            check_resolution(resolution)
        settings = self.estimator.settings(options or {})
        # A film is checked as a whole before anything runs, but becomes pixels a few frames at a time.
        pictures = as_pictures(image)
        total, height, width, _ = pictures.shape
        size = result_size(height, width, resolution or 0)
        fit = self.estimator.plan(height, width, resolution, settings)
        gathered: dict[str, Gather[Any]] = {}
        batch = self._best_batch(total, fit)
        show = host.progress(total, self.estimator.name, "picture") if lend is None else nullcontext()
        with show as bar:
            done = 0
            while done < total:
                part = to_pixels(pictures[done : done + batch])
                signals = self._within_memory(part, fit, size, settings, lend)
                if signals is None:
                    if len(part) == 1:
                        raise FathomError(_too_little_memory(self.estimator, fit, self.device))
                    batch = len(part) // 2
                    host.release_device_memory()
                    continue
                for slot, signal in signals.items():
                    there = signal.to(host.output_device())
                    gathered.setdefault(slot, type(there).gather(total)).add(there)
                done += len(part)
                if bar is not None:
                    main = signals[self.estimator.produces[0]]
                    bar.update(len(part), lambda: thumbnails(main[-1])[0])  # noqa: B023 - called at once
        return {slot: parts.whole() for slot, parts in gathered.items()}

    def _within_memory(
        self, pixels: Tensor, fit: Fit, size: Size, settings: Mapping[str, Any], lend: Callable[[nn.Module], Any] | None
    ) -> dict[str, Signal] | None:
        """The signals of a few pictures; None where memory did not suffice. By then nothing holds what the failed
        forward had computed: an error keeps the frames that it went through alive."""
        try:
            network = self._resident.ready(self.estimator.memory_required(len(pixels), fit, self.dtype))
            lent = network if lend is None else lend(network)
            # Whoever calls may be inside autocast; the precision is the estimator's.
            with torch.autocast(self.device.type, enabled=False):
                return self.estimator.infer(lent, pixels.to(self.device).contiguous(), fit, size, settings)
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


def decompose(
    image: Any,
    estimators: Mapping[str, Estimator],
    resolution: int | None = None,
    take: Callable[[Estimator], Annotator] | None = None,
) -> Scene:
    """Several estimators over one picture: a Scene with the slots that `estimators` names.

    A slot holds what its estimator calls so, else the estimator's main signal. One that fills several of them runs
    once. take: loads an estimator; None = from the ones used last. Other arguments and errors as in `Annotator`.
    """
    picture = to_pixels(as_pictures(image)).permute(0, 2, 3, 1)
    made: dict[str, dict[str, Signal]] = {}
    slots = {}
    for slot, estimator in estimators.items():
        if estimator.id not in made:
            made[estimator.id] = (take or shelf.take)(estimator).annotate(picture, resolution)
        slots[slot] = made[estimator.id][estimator.slot(slot)]
    return Scene(picture.to(host.output_device()), slots)


# ---------------------------------------------------------------------------------------------- loading


_building = threading.Lock()


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Build modules without memory or random values for their parameters; buffers are computed for real.

    Buffers that a network derives from its configuration (position indices, bin edges) are not in every
    checkpoint, so torch's meta device as a whole would lose them.
    """
    register = nn.Module.register_parameter

    def on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, param)
        if param is not None:
            self._parameters[name] = nn.Parameter(param.data.to("meta"), requires_grad=False)

    with _building:
        nn.Module.register_parameter = on_meta
        try:
            yield
        finally:
            nn.Module.register_parameter = register


def load(
    estimator: Estimator,
    weights_path: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Annotator:
    """Load an estimator's weights, strictly.

    weights_path: a file, or a Hugging Face style folder; None = find or download. device: None = the host's.
    dtype: None = `host.precision`'s choice, float32 on a processor; float32 by name is never TF32. Raises WeightsError
    when the weights cannot be had or do not fit the network.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise SettingError(f"dtype must be a floating point type such as torch.float16, got {dtype}.")
    if weights_path is None and estimator.embedded is not None:
        weights_path = Path(__file__).parents[1] / estimator.embedded
    if weights_path is None:
        found = weights.obtain(estimator.sources, name=estimator.name)
    else:
        found = weights.resolve(weights_path, estimator.sources, name=estimator.name)
    checkpoint = estimator.read(found)
    estimator = estimator.adapt(checkpoint)
    with parameters_on_meta():
        network = estimator.build(checkpoint)
    tensors = estimator.translate(checkpoint.tensors)
    weights.load_strict(network, tensors, extras=estimator.extras, name=estimator.name, path=found.path)
    where = None if device is None else torch.device(device)
    runs_on = where or host.device()
    network.to(dtype or host.precision(estimator.half, runs_on))
    # Who names a dtype wants it as it is.
    tf32 = host.tf32(estimator.tf32) if dtype is None else False
    if tf32 is not None and runs_on.type == "cuda":
        compute_float32_products(network, tf32)
    if estimator.fast_linear and runs_on.type == "cpu":
        speed_up_linear_layers(network)
    if estimator.channels_last and runs_on.type == "cpu":
        # The calls of `to` with a memory format alone are missing from torch's type hints.
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return Annotator(estimator, host.Resident(network, where), found)


Stamp = tuple[tuple[str, int, int], ...]


def _stamp(path: Path) -> Stamp:
    """Names, sizes and times of a weights file or folder: what tells that somebody replaced it. Opens nothing."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return tuple((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files)


class Shelf:
    """The few annotators used last, so that a second run reads no file. keep: how many at most; None = as many as the
    user chose (FATHOM_KEEP_LOADED, or ComfyUI's settings panel), `KEEP` unless said otherwise."""

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        self._held: OrderedDict[tuple[str, torch.dtype | None, str], tuple[Annotator, Stamp]] = OrderedDict()
        self._lock = threading.RLock()

    def take(self, estimator: Estimator, dtype: torch.dtype | None = None) -> Annotator:
        """The loaded annotator of `estimator`, loading it when it is not here. Errors as in `load`.

        Weights that were replaced on disk are loaded anew; those that were deleted stay while they are held.
        """
        keep = host.setting("KeepLoaded", "FATHOM_KEEP_LOADED", KEEP) if self._keep is None else self._keep
        key = (estimator.id, dtype, host.chosen_precision())
        with self._lock:
            # Out while it is looked at: `release_unloaded` may come in between, from a node that is being dropped,
            # and two of a kind would take the memory twice.
            held = self._held.pop(key, None)
            if held is None or _stamp(held[0].found.path) not in (held[1], ()):
                held = None
                annotator = load(estimator, dtype=dtype)
                held = annotator, _stamp(annotator.found.path)
                log.info("Fathom: loaded %s from %s", estimator.name, annotator.found.path)
            self._held[key] = held
            for oldest in list(self._held)[: max(0, len(self._held) - max(0, keep))]:
                self._held.pop(oldest, None)
            return held[0]

    def clear(self) -> None:
        """Let go of every annotator; their memory returns when no graph holds them either."""
        with self._lock:
            self._held.clear()

    def release_unloaded(self) -> None:
        """Let go of the annotators that ComfyUI has taken off the device.

        Called when a graph's nodes are gone. ComfyUI has no other word for "free the host's memory too": on that
        request it first unloads every network and then drops the nodes.
        """
        with self._lock:
            for key, (annotator, _) in list(self._held.items()):
                if not annotator.loaded:
                    self._held.pop(key, None)


shelf = Shelf()
