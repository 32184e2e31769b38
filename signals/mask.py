"""Mask: how much of each pixel belongs to one thing, such as the sky."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import SignalError
from .base import Signal
from .field import check_shape


@dataclass(frozen=True, eq=False)
class Mask(Signal):
    """A batch of soft masks.

    values: float32 (B,H,W) in 0..1, 1 = all of it.
    source: what made it, for people to read.

    Raises SignalError for a wrong shape or dtype, and for values outside 0..1 or NaN.
    """

    KIND: ClassVar[str] = "mask"
    SLOTS: ClassVar[tuple[str, ...]] = ("sky", "mask")

    values: Tensor
    source: str = ""

    def __post_init__(self) -> None:
        check_shape("a mask", self.values, 3)
        if self.values.dtype != torch.float32:
            raise SignalError(f"a mask must be float32, got {self.values.dtype}: call .float() first.")
        if self.values.numel():
            least, most = (float(end) for end in torch.aminmax(self.values))
            if not (least >= 0 and most <= 1):
                raise SignalError(f"a mask must lie in 0..1, got {least:.4g}..{most:.4g}.")

    def to_image(self) -> Tensor:
        """Grey, float32 (B,H,W,3) in 0..1, 1 = white."""
        return self.values[..., None].repeat(1, 1, 1, 3)
