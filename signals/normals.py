"""Normals: what a surface normal estimator predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import SignalError
from .field import check_mask, check_shape, on_device

NormalConvention = Literal["controlnet", "opengl", "directx"]
Channel = Literal["+x", "-x", "+y", "-y", "+z", "-z"]
Channels = tuple[Channel, Channel, Channel]

_CHANNELS: dict[str, Channels] = {"opengl": ("+x", "+y", "+z"), "directx": ("+x", "-y", "+z")}


@dataclass(frozen=True, eq=False)
class Normals:
    """A batch of surface normals in camera space: x right, y up, z towards the viewer.

    vectors: float32 (B,H,W,3), unit length.
    valid: bool (B,H,W) or None = everywhere.
    source: what made it, for people to read.
    trained: what red, green and blue hold in the picture that the estimator's ControlNet was trained on.

    Raises SignalError for a wrong shape or dtype, values that are not finite, or vectors not of unit length.
    """

    vectors: Tensor
    valid: Tensor | None = None
    source: str = ""
    trained: Channels = ("+x", "+y", "+z")

    def __post_init__(self) -> None:
        check_shape("normals", self.vectors, 4, 3)
        if self.vectors.dtype != torch.float32:
            raise SignalError(f"normals must be float32, got {self.vectors.dtype}: call .float() first.")
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

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int | slice) -> Normals:
        """The picture or pictures at `index`, still as a batch."""
        at = slice(index, index + 1 or None) if isinstance(index, int) else index
        return replace(self, vectors=self.vectors[at], valid=None if self.valid is None else self.valid[at])

    def to(self, device: torch.device | str) -> Normals:
        """The same normals on `device`; itself where they lie there."""
        return on_device(self, device)

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


def _lengths(vectors: Tensor) -> Tensor:
    """The lengths (...) of vectors (...,3). torch's norm takes many times as long where channels lie apart."""
    x, y, z = vectors.unbind(-1)
    return (x * x + y * y + z * z).sqrt()


def unit_vectors(vectors: Tensor) -> Tensor:
    """`vectors` (...,3) divided by their length; a vector of length 0 becomes (0,0,1), facing the viewer."""
    length = _lengths(vectors)[..., None]
    ahead = vectors.new_tensor((0.0, 0.0, 1.0))
    return torch.where(length > 1e-12, vectors / length.clamp_min(1e-12), ahead)
