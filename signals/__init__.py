"""What a prediction is: Depth, Normals, Segmentation, each with its convention, rendering and files."""

from .depth import Depth, DepthKind, DepthLook
from .normals import Normals
from .segmentation import Palette, Segmentation

__all__ = ["Depth", "DepthKind", "DepthLook", "Normals", "Palette", "Segmentation", "Signal"]

Signal = Depth | Normals | Segmentation
