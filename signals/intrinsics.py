"""Intrinsics: what an intrinsic image decomposition predicts. Colours and measures of the surface and of its light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..errors import SettingError, SignalError
from . import codec, exr
from .base import Signal, format_of
from .field import check_shape, percentiles

ColourSpace = Literal["srgb", "linear"]

# The encoding that the estimators' authors train and publish with, in both directions.
_GAMMA = 2.2


@dataclass(frozen=True)
class Layer:
    """One map of a decomposition.

    name: such as "albedo" or "roughness". channels: 3 = a colour, 1 = a measure such as roughness. space: of a colour,
    "srgb" = as pictures are stored, "linear" = in proportion to light. up_to_scale: whether all of the map may be
    multiplied by one unknown factor; otherwise 0 and 1 mean what they say. Raises SignalError for anything else.
    """

    name: str
    channels: Literal[1, 3] = 3
    space: ColourSpace = "linear"
    up_to_scale: bool = False

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or self.space not in get_args(ColourSpace):
            raise SignalError(f"a layer has 1 or 3 channels and is srgb or linear, got {self}.")


@dataclass(frozen=True, eq=False)
class Intrinsics(Signal):
    """A batch of pictures, each taken apart into several maps.

    values: float32 (B,H,W,C) in 0..1, the channels of all layers side by side, each in its layer's own space.
    layers: what they are, in that order.
    source: what made it, for people to read.

    Raises SignalError for a wrong shape or dtype, values that are not finite, or layers that do not fit them.
    """

    KIND: ClassVar[str] = "intrinsics"
    SLOTS: ClassVar[tuple[str, ...]] = ("intrinsics",)
    FORMATS: ClassVar[tuple[str, ...]] = ("png", "png16", "exr", "npz", "safetensors", "webp")

    values: Tensor
    layers: tuple[Layer, ...]
    source: str = ""

    def __post_init__(self) -> None:
        if len({layer.name for layer in self.layers}) != len(self.layers) or not self.layers:
            raise SignalError(f"layers need names of their own, got {[layer.name for layer in self.layers]}.")
        check_shape("intrinsics", self.values, 4, sum(layer.channels for layer in self.layers))
        if self.values.dtype != torch.float32:
            raise SignalError(f"intrinsics must be float32, got {self.values.dtype}: call .float() first.")
        if not bool(self.values.sum().isfinite()) and (bad := int((~self.values.isfinite()).sum())):
            raise SignalError(
                f"{bad} of {self.values.numel()} values of {self.source or 'an unnamed source'} are NaN or infinite. "
                "Run the estimator in float32."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers."""
        return tuple(layer.name for layer in self.layers)

    def layer(self, name: str) -> Layer:
        """The layer called `name`. Raises SettingError naming the layers there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise SettingError(f"{self.source or 'this decomposition'} has no {name!r}: it has {', '.join(self.names)}.")

    def map(self, name: str) -> Tensor:
        """The numbers of one layer, in its own space: (B,H,W,3) of a colour, (B,H,W) of a measure.

        Raises SettingError for an unknown layer.
        """
        layer = self.layer(name)
        start = sum(other.channels for other in self.layers[: self.layers.index(layer)])
        chosen = self.values[..., start : start + layer.channels]
        return chosen if layer.channels == 3 else chosen[..., 0]

    def to_image(self, name: str | None = None, space: ColourSpace = "srgb", scope: str = "image") -> Tensor:
        """The picture of one layer, float32 (B,H,W,3) in 0..1.

        name: None = the first layer. space: "srgb" = to be looked at, where a colour known up to scale is first
        divided by its largest value; "linear" = in proportion to light and divided by nothing, to compute with. A
        measure is grey, its own number, in either. scope: whether the largest value is that of each picture ("image"),
        of all together ("batch"), or follows the shots of a video ("video").

        Raises SettingError for an unknown layer, SignalError for another space or scope.
        """
        if space not in get_args(ColourSpace):
            raise SignalError(f"the colour space must be one of {', '.join(get_args(ColourSpace))}, got {space!r}.")
        layer = self.layers[0] if name is None else self.layer(name)
        values = self.map(layer.name).clamp(0, 1)
        if layer.channels == 1:
            return values[..., None].repeat(1, 1, 1, 3)
        if space == "linear":
            return values if layer.space == "linear" else values.pow_(_GAMMA)
        if layer.space == "srgb":
            return values
        if layer.up_to_scale:
            _, most = percentiles(values.amax(-1), (0.0, 100.0), None, scope)
            values = values.div_(most[..., None].clamp_min(1e-6))
        return values.pow_(1 / _GAMMA)

    def encode(
        self, path: str | Path, format: str | None = None, texts: Mapping[str, str] | None = None
    ) -> dict[Path, bytes]:
        """As `Signal.encode`. Pictures, and "exr" in linear light, are one file for each layer:
        <stem>_<layer>.<suffix>. An exr comes back as a signal of that layer alone."""
        path = Path(path)
        format = self.check_format(format or format_of(path, self.FORMATS))
        if format in ("npz", "safetensors"):
            return super().encode(path, format, texts)
        one = self.one(format).to("cpu")
        return {
            path.with_name(f"{path.stem}_{layer.name}{path.suffix}"): one._layer_file(layer, format, texts or {})
            for layer in self.layers
        }

    def _layer_file(self, layer: Layer, format: str, texts: Mapping[str, str]) -> bytes:
        if format in ("png", "webp"):
            return codec.picture(self.to_image(layer.name)[0], format)
        if format == "png16":
            return codec.png16(self.to_image(layer.name)[0].mul(65535).round_(), texts)
        stored = asdict(replace(layer, space="linear"))
        about = codec.described(self.KIND, {"layers": [stored], "source": self.source}, **stored)
        light = self.to_image(layer.name, "linear")[0]
        return exr.encode(light if layer.channels == 3 else light[..., 0], {codec.KEY: about, **texts})

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        metadata, _ = super().pack()
        return metadata, {name: self.map(name).detach().cpu().contiguous() for name in self.names}

    @classmethod
    def unpack(cls, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Intrinsics:
        layers = cls._word("layers", metadata["layers"])
        maps = [tensors[layer.name] if layer.channels == 3 else tensors[layer.name][..., None] for layer in layers]
        return super().unpack(metadata, {"values": torch.cat(maps, -1)})

    @classmethod
    def from_file(cls, content: codec.Content) -> Intrinsics:
        if content.format != "exr":
            return super().from_file(content)
        (layer,) = cls._word("layers", content.metadata["layers"])
        return cls.unpack(content.metadata, {layer.name: content.tensors["plane"][None]})

    @classmethod
    def _word(cls, name: str, value: Any) -> Any:
        return tuple(Layer(**layer) for layer in value) if name == "layers" else value
