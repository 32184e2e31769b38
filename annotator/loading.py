"""From an estimator's description to a loaded Annotator, and the cache of those used last."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import SettingError, WeightsError
from ..signals import Scene, Signal
from ..signals.exif import focal_length
from . import detect, host, weights
from .estimator import Estimator
from .layers import compute_float32_products, speed_up_linear_layers
from .meta import parameters_on_meta as parameters_on_meta
from .pictures import as_pictures, to_pixels
from .runtime import Annotator
from .weights import Checkpoint, Found, Stamp

log = logging.getLogger(__name__)

KEEP = 3

# Networks that several estimators run over, while any of them is held.
_shared: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()


def locate(estimator: Estimator, weights_path: str | Path | None = None) -> Found:
    """The weights of `estimator`: those at `weights_path`, a file or a folder; None = the ones that ship with the pack,
    else found on disk, else downloaded. Raises WeightsError."""
    if weights_path is None and estimator.embedded is not None:
        weights_path = Path(__file__).parents[1] / estimator.embedded
    if weights_path is None:
        return weights.obtain(estimator.sources, name=estimator.name)
    return weights.resolve(weights_path, estimator.sources, name=estimator.name)


def load(
    estimator: Estimator,
    weights_path: str | Path | Found | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Annotator:
    """Load an estimator's weights, strictly.

    weights_path: a file, a Hugging Face style folder, or what `locate` found; None = find or download. device: None =
    the host's. dtype: None = `host.precision`'s choice, float32 on a processor; float32 by name is never TF32. The
    network keeps no tie to the files: they may be overwritten afterwards. Raises WeightsError when the weights cannot
    be had or do not fit the network.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise SettingError(f"dtype must be a floating point type such as torch.float16, got {dtype}.")
    found = weights_path if isinstance(weights_path, Found) else locate(estimator, weights_path)
    where = None if device is None else torch.device(device)
    runs_on = where or host.device()
    key = estimator.shares, found.stamp(), str(runs_on), dtype, host.chosen_precision()
    if estimator.shares and (resident := _shared.get(key)) is not None:
        return Annotator(estimator, resident, found)
    checkpoint = estimator.read(found)
    try:
        estimator, network = _filled(estimator, checkpoint)
    except WeightsError as error:
        # A diffusers folder is told by its index.
        path = found.root if found.path.name == "model_index.json" else found.path
        raise WeightsError(f"{error}{detect.advice(estimator, path)}") from error
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
    resident = host.Resident(network, where)
    if estimator.shares:
        _shared[key] = resident
    return Annotator(estimator, resident, found)


def _filled(estimator: Estimator, checkpoint: Checkpoint) -> tuple[Estimator, nn.Module]:
    """The estimator adapted to a checkpoint, and its network with that checkpoint's tensors."""
    estimator = estimator.adapt(checkpoint)
    with parameters_on_meta():
        network = estimator.build(checkpoint)
    tensors = estimator.translate(checkpoint.tensors)
    weights.load_strict(network, tensors, extras=estimator.extras, name=estimator.name, path=checkpoint.path)
    return estimator, network


class AnnotatorCache:
    """The few annotators used last, so that a second run reads no file. keep: how many at most; None = as many as the
    user chose (FATHOM_KEEP_LOADED, or ComfyUI's settings panel), `KEEP` unless said otherwise."""

    def __init__(self, keep: int | None = None) -> None:
        self._keep = keep
        self._entries: OrderedDict[tuple[str, torch.dtype | None, str], tuple[Annotator, Stamp]] = OrderedDict()
        self._lock = threading.RLock()
        self._loading: dict[Any, threading.Lock] = {}

    def take(self, estimator: Estimator, dtype: torch.dtype | None = None) -> Annotator:
        """The loaded annotator of `estimator`, loading it when it is not here. Errors as in `load`.

        When any file of the model was replaced on disk, it is loaded anew; what was deleted stays while it is here.
        Threads that ask for different models load them side by side.
        """
        keep = host.setting("KeepLoaded", "FATHOM_KEEP_LOADED", KEEP) if self._keep is None else self._keep
        key = (estimator.id, dtype, host.chosen_precision())
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            with self._lock:
                # Out while it is looked at: `release_unloaded` may come in between, from a node that is being dropped,
                # and two of a kind would take the memory twice.
                entry = self._entries.pop(key, None)
            if entry is None or entry[0].found.stamp() not in (entry[1], None):
                entry = None
                found = locate(estimator)
                # Of before the reading: what changes meanwhile is seen next time.
                stamp = found.stamp() or ()
                entry = load(estimator, found, dtype=dtype), stamp
                log.info("Fathom: loaded %s from %s", estimator.name, found.path)
            with self._lock:
                self._entries[key] = entry
                for oldest in list(self._entries)[: max(0, len(self._entries) - max(0, keep))]:
                    self._entries.pop(oldest, None)
            return entry[0]

    def clear(self) -> None:
        """Let go of every annotator; their memory returns when no graph holds them either."""
        with self._lock:
            self._entries.clear()

    def release_unloaded(self) -> None:
        """Let go of the annotators that ComfyUI has taken off the device.

        Called when a graph's nodes are gone. ComfyUI has no other word for "free the host's memory too": on that
        request it first unloads every network and then drops the nodes.
        """
        with self._lock:
            for key, (annotator, _) in list(self._entries.items()):
                if not annotator.loaded:
                    self._entries.pop(key, None)


cache = AnnotatorCache()


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
    scenes: dict[str, dict[str, Signal]] = {}
    slots = {}
    for slot, estimator in estimators.items():
        if estimator.id not in scenes:
            options = estimator.with_focal({}, focal_length(image))
            scenes[estimator.id] = (take or cache.take)(estimator).annotate(picture, resolution, options)
        slots[slot] = scenes[estimator.id][estimator.slot(slot)]
    return Scene(picture.to(host.output_device()), slots)
