"""Estimator: the description of one model, and the line that a picture takes through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..signals import Signal
from .description import Description, Licence, Option
from .sizing import Fit, Size
from .weights import Checkpoint, Found, read

__all__ = ["HALF_MEAN", "HALF_STD", "IMAGENET_MEAN", "IMAGENET_STD", "Estimator", "FilmInFlight", "Licence", "Option"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF_MEAN, HALF_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


class FilmInFlight(Protocol):
    """A film on its way through an estimator that sees several frames together. What it holds does not grow."""

    def push(self, pixels: Tensor) -> Iterator[dict[str, Signal]]:
        """Take the next frames (n,3,H,W); yield the signals of every frame that is final, one frame at a time."""
        ...

    def flush(self) -> Iterator[dict[str, Signal]]:
        """The film is over: yield the signals of the frames that are left."""
        ...


@dataclass(frozen=True, kw_only=True)
class Estimator(Description):
    """One model that people choose by name. A family subclasses this in its own file under models/.

    Beside what `Description` tells: memory: bytes that one pixel of the network's input takes during a
    float32 forward, measured. mean, std: normalisation of 0..1 RGB.
    extras: patterns of known keys that checkpoints hold and the network does not need, each with the reason.
    half: whether float16 moves no more than a
    thousandth of the pixels by over 1/510 of the result's range, measured (docs/performance.md); it is then the
    precision on devices that are faster in it. tf32: whether the same holds for TF32, in which a GPU then computes
    float32 products; None = not measured, torch decides. channels_last: whether a processor is quicker with the
    convolutions' weights in that memory layout, measured (docs/performance.md). fast_linear: whether linear layers on a
    processor may sum in another order to be faster (annotator/layers.py). shares: estimators that name the same
    run over one network: over the same files one is in memory for all of them, so they `adapt` to nothing. window: how
    many frames of a film the network sees together; with more than one a batch is one film and goes through `film`.
    """

    memory: int = 1024
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    extras: Mapping[str, str] = field(default_factory=dict)
    half: bool = False
    tf32: bool | None = None
    channels_last: bool = False
    fast_linear: bool = True
    shares: str = ""
    window: int = 1

    # ------------------------------------------------------------------------------ the network

    def read(self, found: Found) -> Checkpoint:
        """The checkpoint of these weights: one file, unless a family keeps its parts in several."""
        return read(found)

    def adapt(self, checkpoint: Checkpoint) -> Estimator:
        """The estimator that reads this checkpoint's layout: self, or a variant that differs in keys or sizes.

        Raises WeightsError when the file belongs to another model.
        """
        return self

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        """The network: normalised (B,3,h,w) in, raw out. Parameters need no values yet."""
        raise NotImplementedError(f"{type(self).__name__} must say how its network is built")

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The checkpoint's tensors under the names that `build`'s network uses."""
        return tensors

    def tiny(self) -> Estimator:
        """The same estimator over a network of few layers, for tests: same code, seconds instead of minutes."""
        raise NotImplementedError(f"{type(self).__name__} must offer a tiny variant")

    # ------------------------------------------------------------------------------ one picture's way

    def with_focal(self, options: Mapping[str, Any], focal: float | None) -> Mapping[str, Any]:
        """`options` with the focal length that a photo's file tells, in pixels of the photo, where this estimator has
        use for it and was given none."""
        return options

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        """How a picture of this size enters the network. resolution None = the published inference rule;
        otherwise the short side that the user asked for, 0 = the picture's own."""
        raise NotImplementedError(f"{type(self).__name__} must say which size its network sees")

    def plan(self, height: int, width: int, resolution: int | None, options: Mapping[str, Any]) -> Fit:
        """As `fit`, for an estimator whose options change the size that its network sees."""
        return self.fit(height, width, resolution)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B,3,h,w) in 0..1 as the network was trained to see it."""
        mean = pixels.new_tensor(self.mean)[:, None, None]
        std = pixels.new_tensor(self.std)[:, None, None]
        return (pixels - mean) / std

    def infer(
        self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> dict[str, Signal]:
        """The signals of one forward by slot, those of `produces`, for pictures (B,3,H,W) in 0..1 on the network's
        device: each (B,height,width,...) at `size`. Every convention of the network is converted here, once.

        A network of one result needs `signal` alone, and `raw` where its way is its own.
        """
        (slot,) = self.produces
        return {slot: self.signal(self.raw(network, pixels, fit, size, options))}

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        """The network's one result for (B,3,H,W) in 0..1, at `size` (height, width), float32: (B,C,height,width)."""
        inside = next(network.parameters()).dtype
        raw = network(self.normalise(fit.enter(pixels)).to(inside)).float()
        return fit.leave(raw[:, None] if raw.ndim == 3 else raw, size)

    def film(self, network: nn.Module, fit: Fit, size: Size, options: Mapping[str, Any]) -> FilmInFlight:
        """What takes the frames of one film in order and gives the signals of each, for an estimator whose `window` is
        more than 1. Arguments as in `infer`."""
        raise NotImplementedError(f"{type(self).__name__} sees one picture at a time")

    def signal(self, raw: Tensor) -> Signal:
        """The typed signal of `raw`'s result."""
        raise NotImplementedError(f"{type(self).__name__} must say what its result means")

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        """Bytes of device memory that a forward of `batch` pictures takes beside the weights."""
        height, width = fit.network
        per_pixel = self.memory * dtype.itemsize // 4
        picture = fit.source[0] * fit.source[1] * 3 * 4
        return batch * (height * width * per_pixel + 4 * picture)

    def check_prompt(self, prompt: Signal | None, count: int) -> None:
        """Raises SettingError when `prompt` is not what this estimator needs beside `count` pictures."""
        if not self.takes:
            if prompt is not None:
                raise SettingError(f"{self.id} takes a picture and nothing beside it: leave prompt out.")
            return
        needed = " or ".join(self.takes)
        if prompt is None:
            raise SettingError(
                f"{self.id} needs a measured {needed} beside the picture: give it as prompt, or use Fathom Complete "
                "Depth."
            )
        if getattr(prompt, "KIND", None) not in self.takes:
            raise SettingError(f"{self.id} takes a {needed} as prompt, got {type(prompt).__name__}.")
        if len(prompt) != count:
            raise SettingError(
                f"{self.id} takes one {needed} for each picture: got {len(prompt)} for {count} pictures."
            )
