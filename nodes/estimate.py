"""Nodes that estimate depth, normals or regions with any model of their kind."""

from __future__ import annotations

from typing import Any, cast

from ..annotator.runtime import shelf
from ..models import estimator as by_id
from ..models import ids
from ..signals import Depth
from .fields import DEPTH_CATEGORY, IMAGE, SCOPE, choice, resolution


class FathomEstimateDepth:
    """Depth of a picture by any depth estimator."""

    DISPLAY_NAME = "Fathom Estimate Depth"
    DESCRIPTION = (
        "Estimates how far every pixel is: a depth map for ControlNet (near is white), and the depth itself for "
        "Fathom's other nodes. fathom-tiny comes with the pack and needs no download; the others are fetched once."
    )
    CATEGORY = DEPTH_CATEGORY
    SEARCH_ALIASES = ["depth", "depth map", "z-depth", "disparity", "midas", "depth anything", "zoe", "marigold"]
    RETURN_TYPES = ("IMAGE", "FATHOM_DEPTH")
    RETURN_NAMES = ("image", "depth")
    OUTPUT_TOOLTIPS = (
        "The depth map that the model's ControlNet was trained on, near is white.",
        "The depth with its unit, for Fathom's depth tools.",
    )
    FUNCTION = "execute"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE, "estimator": choice(ids("depth"), "fathom-tiny"), "resolution": resolution()},
            "optional": {"scope": SCOPE},
        }

    def execute(self, image: Any, estimator: str, resolution: int = 512, scope: str = "image") -> tuple[Any, Depth]:
        depth = cast(Depth, shelf.take(by_id(estimator))(image, resolution))
        return depth.to_image(scope), depth


NODES = (FathomEstimateDepth,)
