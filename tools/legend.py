"""The legend of a segmentation."""

from __future__ import annotations

from ..signals import Segmentation


def legend(segmentation: Segmentation) -> str:
    """One line for each class present, the largest first: name, colour as #RRGGBB, share of the pixels."""
    colours = segmentation.palette.colours
    return "\n".join(
        f"{name}  #{bytes(colours[label]).hex()}  {share:.1%}" for label, name, share in segmentation.present()
    )
