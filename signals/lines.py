"""Lines: how strong a line runs through every pixel, whichever annotator found it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import SignalError
from .base import Signal


@dataclass(frozen=True, eq=False)
class Lines(Signal):
    """A batch of line drawings or edge maps.

    strength: float32 (B,H,W), 0 = no line, 1 = the strongest; larger = stronger. source: what found them.

    Raises SignalError for another shape or type, and for numbers outside 0..1 or not finite.
    """

    KIND: ClassVar[str] = "lines"
    SLOTS: ClassVar[tuple[str, ...]] = ("lines",)

    strength: Tensor
    source: str = ""

    def __post_init__(self) -> None:
        strength = self.strength
        if not isinstance(strength, Tensor) or strength.ndim != 3 or strength.numel() == 0:
            came = tuple(strength.shape) if isinstance(strength, Tensor) else type(strength).__name__
            raise SignalError(f"the strength of lines must be (B,H,W), got {came}.")
        if strength.dtype != torch.float32:
            raise SignalError(f"the strength of lines must be float32, got {strength.dtype}: call .float() first.")
        # False for NaN as well.
        if not bool(((strength >= 0) & (strength <= 1)).all()):
            raise SignalError(
                f"the strength of lines from {self.source or 'an unnamed source'} must lie in 0..1, got "
                f"{float(strength.amin())}..{float(strength.amax())}."
            )

    def to_image(self) -> Tensor:
        """White lines on black, as the ControlNets for lines expect them, float32 (B,H,W,3) in 0..1."""
        return self.strength[..., None].expand(-1, -1, -1, 3).contiguous()
