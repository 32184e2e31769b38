"""Normals: what a surface normal estimator predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..errors import SignalError
from . import codec, exr
from .base import Signal, format_of
from .field import check_mask, check_shape

NormalConvention = Literal["controlnet", "opengl", "directx"]
Channel = Literal["+x", "-x", "+y", "-y", "+z", "-z"]
Channels = tuple[Channel, Channel, Channel]

_CHANNELS: dict[str, Channels] = {"opengl": ("+x", "+y", "+z"), "directx": ("+x", "-y", "+z")}


@dataclass(frozen=True, eq=False)
class Normals(Signal):
    """A batch of surface normals in camera space: x right, y up, z towards the viewer.

    vectors: float32 (B,H,W,3), unit length.
    valid: bool (B,H,W) or None = everywhere.
    source: what made it, for people to read.
    trained: what red, green and blue hold in the picture that the estimator's ControlNet was trained on.

    Raises SignalError for a wrong shape or dtype, values that are not finite, vectors not of unit length, or
    `trained` that does not hold each axis once.
    """

    KIND: ClassVar[str] = "normals"
    SLOTS: ClassVar[tuple[str, ...]] = ("normals",)
    FORMATS: ClassVar[tuple[str, ...]] = ("png", "png16", "exr", "npz", "safetensors", "webp")

    vectors: Tensor
    valid: Tensor | None = None
    source: str = ""
    trained: Channels = ("+x", "+y", "+z")

    def __post_init__(self) -> None:
        check_shape("normals", self.vectors, 4, 3)
        if self.vectors.dtype != torch.float32:
            raise SignalError(f"normals must be float32, got {self.vectors.dtype}: call .float() first.")
        if not set(self.trained) <= set(get_args(Channel)) or sorted(axis[1] for axis in self.trained) != list("xyz"):
            raise SignalError(f"trained must hold x, y and z once, each with its sign, got {str(self.trained)[:100]}.")
        if self.valid is not None:
            check_mask("valid", self.valid, self.vectors)
        length = _lengths(self.vectors)
        unit = (length - 1).abs() < 1e-2  # False for NaN as well
        if self.valid is not None:
            unit |= ~self.valid
        if not bool(unit.all()):
            raise SignalError(
                f"{int((~unit).sum())} of {unit.numel()} normals from {self.source or 'an unnamed source'} are not of "
                "unit length (or not finite). Divide by the length first."
            )

    def to_image(self, convention: NormalConvention = "controlnet") -> Tensor:
        """The picture (n+1)/2, float32 (B,H,W,3) in 0..1.

        convention: "controlnet" = as the ControlNet of this estimator was trained (`trained`); "opengl" = x, y, z in
        red, green, blue, y up; "directx" = the same, y down. Pixels that are not valid are black. Raises
        SignalError for another convention.
        """
        if convention not in get_args(NormalConvention):
            wanted = ", ".join(get_args(NormalConvention))
            raise SignalError(f"the normal convention must be one of {wanted}, got {convention!r}.")
        channels = _CHANNELS.get(convention, self.trained)
        order = ["xyz".index(c[1]) for c in channels]
        signs = self.vectors.new_tensor([-1.0 if c[0] == "-" else 1.0 for c in channels])
        image = (self.vectors[..., order] * signs).add_(1).mul_(0.5).clamp_(0, 1)
        return image if self.valid is None else image.masked_fill(~self.valid[..., None], 0.0)

    def encode(
        self, path: str | Path, format: str | None = None, texts: Mapping[str, str] | None = None
    ) -> dict[Path, bytes]:
        """As `Signal.encode`. "png16": the picture for ControlNet in 16 bits; back come vectors within half a step.
        "exr": red, green, blue are x right, y up, z to the viewer in -1..1, and 0 where there is none, to the bit."""
        path = Path(path)
        format = self.check_format(format or format_of(path, self.FORMATS))
        if format not in ("png16", "exr"):
            return super().encode(path, format, texts)
        one = self.one(format).to("cpu")
        about = codec.described(self.KIND, {**one.pack()[0], "masked": one.valid is not None})
        every = {codec.KEY: about, **(texts or {})}
        if format == "png16":
            return {path: codec.png16(one.to_image()[0].mul(65535).round_(), every)}
        vectors = one.vectors[0] if one.valid is None else one.vectors[0] * one.valid[0, ..., None]
        return {path: exr.encode(vectors, every)}

    @classmethod
    def from_file(cls, content: codec.Content) -> Normals:
        if content.format not in ("png16", "exr"):
            return super().from_file(content)
        about, plane = content.metadata, content.tensors["plane"]
        if plane.ndim != 3:
            raise SignalError("it holds one channel, and normals have three.")
        valid = (plane != 0).any(-1)[None] if about["masked"] else None
        vectors = plane[None]
        if content.format == "png16":
            shown = vectors / 65535 * 2 - 1
            trained = tuple(about["trained"])
            # The channel that holds x, y or z, with its sign taken back.
            back = [next((c, s[0]) for c, s in enumerate(trained) if s[1] == axis) for axis in "xyz"]
            signs = [-1.0 if sign == "-" else 1.0 for _, sign in back]
            vectors = unit_vectors(shown[..., [c for c, _ in back]] * shown.new_tensor(signs))
        if valid is not None:
            vectors = vectors * valid[..., None]
        return cls.unpack(about, {"vectors": vectors, **({} if valid is None else {"valid": valid})})

    @classmethod
    def _word(cls, name: str, value: Any) -> Any:
        return tuple(value) if name == "trained" else value


def _lengths(vectors: Tensor) -> Tensor:
    """The lengths (...) of vectors (...,3). torch's norm takes many times as long where channels lie apart."""
    x, y, z = vectors.unbind(-1)
    return (x * x + y * y + z * z).sqrt()


def unit_vectors(vectors: Tensor) -> Tensor:
    """`vectors` (...,3) divided by their length; a vector of length 0 becomes (0,0,1), facing the viewer."""
    length = _lengths(vectors)[..., None]
    ahead = vectors.new_tensor((0.0, 0.0, 1.0))
    return torch.where(length > 1e-12, vectors / length.clamp_min(1e-12), ahead)
