"""What a prediction is: Depth, Normals, Segmentation, Intrinsics, each with its convention, rendering and files."""

from .depth import Depth, DepthKind, DepthLook
from .intrinsics import Intrinsics, Layer
from .normals import Normals
from .segmentation import Palette, Segmentation

__all__ = ["Depth", "DepthKind", "DepthLook", "Intrinsics", "Layer", "Normals", "Palette", "Segmentation", "Signal"]

Signal = Depth | Normals | Segmentation | Intrinsics
