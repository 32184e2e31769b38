"""What a prediction is: Depth, Normals, Segmentation, Intrinsics, each with its convention, rendering and files; and
Scene, which holds several of one batch."""

from .base import Signal, kind_of_slot, kinds
from .depth import Depth, DepthKind, DepthLook
from .files import load_signal
from .instances import Instances, Thing
from .intrinsics import Intrinsics, Layer
from .mask import Mask
from .normals import Normals
from .scene import Scene
from .segmentation import Palette, Segmentation

__all__ = [
    "Depth",
    "DepthKind",
    "DepthLook",
    "Instances",
    "Intrinsics",
    "Layer",
    "Mask",
    "Normals",
    "Palette",
    "Scene",
    "Segmentation",
    "Signal",
    "Thing",
    "kind_of_slot",
    "kinds",
    "load_signal",
]
