"""Nodes that join depth and regions."""

from __future__ import annotations

from typing import Any, get_args

from ..errors import SettingError
from ..signals import Depth
from ..tools import regions
from ..tools.regions import Fill, Method, Statistic
from .base import Node
from .fields import IMAGE, advanced, depth_input, number

CATEGORY = "Fathom/Regions"

_REGIONS: dict[str, Any] = {
    "masks": (
        "MASK",
        {
            "tooltip": "One mask per region; a smaller one is resized. For a batch of pictures: one mask for all, or "
            "the same number for each, those of the first picture first."
        },
    ),
    "segmentation": ("FATHOM_SEGMENTATION", {"tooltip": "Every class is a region. Connect this or masks."}),
    "instances": ("FATHOM_INSTANCES", {"tooltip": "Every thing is a region. Connect this instead of the others."}),
}
MEASURE: dict[str, Any] = {
    "statistic": (
        list(get_args(Statistic)),
        {"default": "median", "tooltip": "How a region's depth is measured. The median is not misled by a few pixels."},
    ),
    "percentile": advanced(
        number(50.0, 0.0, 100.0, 0.5, "For percentile: 0 = the region's farthest, 100 = its closest pixel.")
    ),
    "erode": (
        "INT",
        {
            "default": 4,
            "min": 0,
            "max": 256,
            "advanced": True,
            "tooltip": "Pixels at a region's border that are not measured, because depth is blurred there. About the "
            "width of the blur.",
        },
    ),
}

FOLLOW: dict[str, Any] = {
    "follow_blur": advanced(
        (
            "BOOLEAN",
            {
                "default": True,
                "tooltip": "Measure how far depth is blurred across the regions' borders, and leave out at least that.",
            },
        )
    )
}


def _one_of(*given: Any) -> Any:
    connected = [what for what in given if what is not None]
    if len(connected) != 1:
        raise SettingError("connect either masks, segmentation or instances: one of them says what the regions are.")
    return connected[0]


class FathomDepthByRegion(Node):
    """A depth with the borders of regions."""

    DISPLAY_NAME = "Fathom Depth by Region"
    DESCRIPTION = (
        "Gives depth the crisp borders of masks or of a segmentation: each region flat at one depth, or with its own "
        "shape continued to its border."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["sharpen depth", "flatten depth", "depth per object", "depth statistics", "average depth of mask"]
    RETURN_TYPES = ("FATHOM_DEPTH", "IMAGE", "STRING")
    RETURN_NAMES = ("depth", "image", "statistics")
    OUTPUT_TOOLTIPS = (
        "The depth, for Fathom's depth tools.",
        "The depth as a picture, near is white.",
        "The numbers of every region, as JSON.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": depth_input(),
                "fill": (
                    list(get_args(Fill)),
                    {
                        "default": "edge-snapping",
                        "tooltip": "edge-snapping: keep each region's shape and continue it to its border. flat: the "
                        "whole region at one depth.",
                    },
                ),
                **MEASURE,
            },
            "optional": {**_REGIONS, **FOLLOW},
        }

    def execute(
        self,
        depth: Depth,
        fill: Fill,
        statistic: Statistic,
        percentile: float,
        erode: int,
        masks: Any = None,
        segmentation: Any = None,
        instances: Any = None,
        follow_blur: bool = True,
    ) -> tuple[Depth, Any, str]:
        which = _one_of(masks, segmentation, instances)
        crisp, report = regions.depth_by_region(depth, which, statistic, percentile, erode, fill, follow_blur)
        return crisp, crisp.to_image(), report


class FathomOrderRegions(Node):
    """Regions from nearest to farthest."""

    DISPLAY_NAME = "Fathom Order Regions"
    DESCRIPTION = "Sorts masks or the classes of a segmentation from nearest to farthest: which face is furthest back?"
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["sort masks", "nearest mask", "farthest", "depth order", "front to back", "layer order"]
    RETURN_TYPES = ("MASK", "MASK", "STRING")
    RETURN_NAMES = ("ordered", "kth", "order")
    OUTPUT_TOOLTIPS = (
        "All regions, nearest first.",
        "The region that k names, one per picture.",
        "The order with every region's numbers, as JSON.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": depth_input(),
                "k": (
                    "INT",
                    {
                        "default": 1,
                        "min": -1000,
                        "max": 1000,
                        "tooltip": "Which region to give: 1 = nearest, 2 = the next; -1 = farthest.",
                    },
                ),
                **MEASURE,
            },
            "optional": {**_REGIONS, **FOLLOW},
        }

    def execute(
        self,
        depth: Depth,
        k: int,
        statistic: Statistic,
        percentile: float,
        erode: int,
        masks: Any = None,
        segmentation: Any = None,
        instances: Any = None,
        follow_blur: bool = True,
    ) -> tuple[Any, Any, str]:
        which = _one_of(masks, segmentation, instances)
        return regions.order_regions(depth, which, k, statistic, percentile, erode, follow_blur)


class FathomRefineEdges(Node):
    """Depth edges after the photo."""

    DISPLAY_NAME = "Fathom Refine Edges"
    DESCRIPTION = "Moves the soft edges of a depth to the edges of the photo, and enlarges the depth to its size."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["guided filter", "joint bilateral", "upsample depth", "sharpen depth", "clean depth edges"]
    RETURN_TYPES = ("FATHOM_DEPTH", "IMAGE")
    RETURN_NAMES = ("depth", "image")
    OUTPUT_TOOLTIPS = ("The depth, for Fathom's depth tools.", "The depth as a picture, near is white.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": depth_input(),
                "image": IMAGE,
                "radius": (
                    "INT",
                    {
                        "default": 6,
                        "min": 1,
                        "max": 64,
                        "tooltip": "How far edges may move, in pixels of the photo. About the width of the blur.",
                    },
                ),
                "sensitivity": number(
                    0.03, 0.0001, 1.0, 0.001, "The step in colour that counts as an edge: smaller finds fainter edges."
                ),
                "method": (
                    list(get_args(Method)),
                    {
                        "default": "joint",
                        "tooltip": "joint: sharper, slower the larger the radius. guided: fast, softer.",
                    },
                ),
            }
        }

    def execute(self, depth: Depth, image: Any, radius: int, sensitivity: float, method: Method) -> tuple[Depth, Any]:
        refined = regions.refine_edges(depth, image, radius, sensitivity, method)
        return refined, refined.to_image()


NODES = (FathomDepthByRegion, FathomOrderRegions, FathomRefineEdges)
