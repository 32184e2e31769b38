"""Estimator: the description of one model, and the line that a picture takes through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import SettingError
from ..signals import Signal
from .sizing import Fit, Size
from .weights import Checkpoint, Found, Source, read

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF_MEAN, HALF_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Licence:
    """The licence of the weights. commercial: whether it allows commercial use; None = nobody has said."""

    name: str
    commercial: bool | None
    url: str = ""

    def __str__(self) -> str:
        return self.name + {True: "", False: ", non-commercial", None: ", terms unclear"}[self.commercial]


@dataclass(frozen=True)
class Option:
    """One setting of an estimator beyond `resolution`: a switch, a number with its range, or a choice."""

    name: str
    default: bool | int | float | str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    about: str = ""

    @property
    def takes(self) -> str:
        """The values that it takes, for people: "1..50", "true, false", the choices."""
        if isinstance(self.default, bool):
            return "true, false"
        return ", ".join(self.choices) or f"{self.least}..{self.most}"

    def parse(self, text: str) -> Any:
        """The value that a shell's `text` stands for, checked. Raises SettingError."""
        value: Any = text
        if isinstance(self.default, bool):
            value = {"true": True, "false": False}.get(text.lower(), text)
        elif isinstance(self.default, (int, float)):
            with suppress(ValueError):
                value = type(self.default)(text)
        return self.check(value)

    def check(self, value: Any) -> Any:
        """`value`, or the default for None. Raises SettingError naming the range for anything outside it."""
        if value is None:
            return self.default
        if self.choices:
            if value not in self.choices:
                raise SettingError(f"{self.name} must be one of {', '.join(self.choices)}, got {value!r}.")
            return value
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise SettingError(f"{self.name} must be True or False, got {value!r}.")
            return value
        whole = isinstance(self.default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise SettingError(f"{self.name} must be a {'whole number' if whole else 'number'}, got {value!r}.")
        if (self.least is not None and value < self.least) or (self.most is not None and value > self.most):
            raise SettingError(f"{self.name} must lie in {self.least}..{self.most}, got {value}.")
        return value


class FilmInFlight(Protocol):
    """A film on its way through an estimator that sees several frames together. What it holds does not grow."""

    def push(self, pixels: Tensor) -> Iterator[dict[str, Signal]]:
        """Take the next frames (n,3,H,W); yield the signals of every frame that is final, one frame at a time."""
        ...

    def flush(self) -> Iterator[dict[str, Signal]]:
        """The film is over: yield the signals of the frames that are left."""
        ...


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """One model that people choose by name. A family subclasses this in its own file under models/.

    id: what graphs and shells write, stable. name: what people read. family: the file's subject. produces: the slots
    that one forward fills, the main one first, such as ("depth", "normals"). licence: of the
    weights. parameters: how many numbers the network holds. sources: published files, the preferred first.
    about: one sentence on what it is good at. memory: bytes that one pixel of the network's input takes during a
    float32 forward, measured. options: settings beyond the resolution. mean, std: normalisation of 0..1 RGB.
    extras: patterns of known keys that checkpoints hold and the network does not need, each with the reason.
    embedded: the weights file that ships with the pack, relative to it. half: whether float16 moves no more than a
    thousandth of the pixels by over 1/510 of the result's range, measured (docs/performance.md); it is then the
    precision on devices that are faster in it. tf32: whether the same holds for TF32, in which a GPU then computes
    float32 products; None = not measured, torch decides. channels_last: whether a processor is quicker with the
    convolutions' weights in that memory layout, measured (docs/performance.md). fast_linear: whether linear layers on a
    processor may sum in another order to be faster (annotator/layers.py). shares: estimators that name the same
    run over one network: over the same files one is in memory for all of them, so they `adapt` to nothing. window: how
    many frames of a film the network sees together; with more than one a batch is one film and goes through `film`.
    takes: the kinds of signal of which it needs one beside the picture, such as ("depth",) for a measured map; `infer`
    finds it in its options as "prompt".
    """

    id: str
    name: str
    family: str
    produces: tuple[str, ...]
    licence: Licence
    parameters: int
    sources: tuple[Source, ...]
    about: str = ""
    memory: int = 1024
    options: tuple[Option, ...] = ()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    extras: Mapping[str, str] = field(default_factory=dict)
    embedded: str | None = None
    half: bool = False
    tf32: bool | None = None
    channels_last: bool = False
    fast_linear: bool = True
    shares: str = ""
    window: int = 1
    takes: tuple[str, ...] = ()

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

    def slot(self, name: str) -> str:
        """Which of `produces` a scene's slot of this name takes: the one called so, else the main one."""
        return name if name in self.produces else self.produces[0]

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        """Bytes of device memory that a forward of `batch` pictures takes beside the weights."""
        height, width = fit.network
        per_pixel = self.memory * dtype.itemsize // 4
        picture = fit.source[0] * fit.source[1] * 3 * 4
        return batch * (height * width * per_pixel + 4 * picture)

    def parse(self, text: str) -> dict[str, Any]:
        """The options that lines of name=value set. Raises SettingError for a line that is none, an unknown name, or a
        value that it does not take."""
        known = {o.name: o for o in self.options}
        chosen: dict[str, Any] = {}
        for line in filter(None, map(str.strip, text.splitlines())):
            name, equals, value = (part.strip() for part in line.partition("="))
            if not equals:
                raise SettingError(f"an option is name=value, such as steps=10; got {line!r}.")
            chosen[name] = known[name].parse(value) if name in known else value
        self.settings(chosen)
        return chosen

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its checked value. Raises SettingError for an unknown name or a bad value."""
        known = {o.name: o for o in self.options}
        for name in given:
            if name not in known:
                have = f"its options are {', '.join(known)}" if known else "it has no options"
                raise SettingError(f"{self.id} has no option {name!r}: {have}.")
        return {name: option.check(given.get(name)) for name, option in known.items()}

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
