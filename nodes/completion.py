"""The node that makes a measured depth whole."""

from __future__ import annotations

from typing import Any, cast

from ..annotator.loading import cache
from ..annotator.pictures import as_pictures
from ..models import estimator as by_id
from ..models import estimators
from ..signals import Depth
from ..tools import completion
from .base import Node
from .fields import IMAGE, SCOPE, choice, depth_input, number
from .sensors import CATEGORY


class FathomCompleteDepth(Node):
    """A measured depth made whole and sharp with the help of its photo."""

    DISPLAY_NAME = "Fathom Complete Depth"
    DESCRIPTION = (
        "Makes a measured depth whole and as sharp as its photo: a phone's coarse LiDAR map, or a depth camera's with "
        "holes. Prompt Depth Anything (Lin et al., 2025) sees both; what was measured is kept. The depth is in metres."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "lidar",
        "depth completion",
        "depth upsampling",
        "depth super resolution",
        "sparse depth",
        "prompt depth anything",
        "promptda",
        "arkit",
        "fill holes",
        "rgbd",
    ]
    RETURN_TYPES = ("IMAGE", "FATHOM_DEPTH")
    RETURN_NAMES = ("image", "depth")
    OUTPUT_TOOLTIPS = ("The depth as a picture, near is white.", "The whole depth in metres, at the photo's size.")
    DEFAULT = "prompt-depth-anything-small"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        listed = [e.id for e in estimators().values() if "depth" in e.takes]
        measured = "What was measured of the same view, in metres, at any size; not valid where nothing was."
        least = "Measurements that are trusted less than this are left out. LiDAR of a phone: 0, 0.5 and 1."
        return {
            "required": {"image": IMAGE, "measured": depth_input(measured), "estimator": choice(listed, cls.DEFAULT)},
            "optional": {
                "trust": (
                    "MASK",
                    {"tooltip": "How far each measurement is trusted, white = fully; else what the depth itself says."},
                ),
                "least_trust": number(0.5, 0.0, 1.0, 0.05, least),
                "keep_measured": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Correct the estimate so that it gives the measured distances, without seams. Off: "
                        "as the network gives it, for measurements with noise.",
                    },
                ),
                "scope": SCOPE,
            },
        }

    def execute(
        self,
        image: Any,
        measured: Depth,
        estimator: str = DEFAULT,
        trust: Any = None,
        least_trust: float = 0.5,
        keep_measured: bool = True,
        scope: str = "image",
    ) -> tuple[Any, Depth]:
        pictures = as_pictures(image)
        count, height, width = pictures.shape[:3]
        known = completion.measured(measured, (count, height, width), trust, least_trust)
        full = cast(Depth, cache.take(by_id(estimator))(pictures, 0, prompt=known))
        if keep_measured:
            full = completion.keep_measured(full, known)
        full = completion.with_camera_of(full, known)
        return full.to_image(scope), full


NODES = (FathomCompleteDepth,)
