"""Nodes whose network gives several things in one forward: depth with its lens, normals, sky."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from ..annotator import host
from ..annotator.loading import cache
from ..annotator.pictures import as_pictures
from ..models import estimator as by_id
from ..models import estimators
from ..signals import Depth, Mask, Normals
from ..tools import convert
from .base import Node
from .fields import (
    ESTIMATE_CATEGORY,
    IMAGE,
    NORMAL_CONVENTION,
    SCOPE,
    UNKNOWN,
    advanced,
    choice,
    depth_input,
    number,
    option,
    resolution,
)


def _family(name: str) -> list[str]:
    return [e.id for e in estimators().values() if e.family == name]


class FathomMoGe(Node):
    """MoGe-2: metres, normals and the lens in one pass."""

    DISPLAY_NAME = "Fathom MoGe"
    DESCRIPTION = (
        "MoGe-2 (Wang et al., 2025): depth in metres, surface normals, the camera's lens, and where the network is "
        "sure, from one picture in one pass. Any picture; the weights may be used commercially."
    )
    CATEGORY = ESTIMATE_CATEGORY
    SEARCH_ALIASES = ["moge", "metric depth", "normal map", "point map", "focal length", "geometry", "metres"]
    RETURN_TYPES = ("IMAGE", "IMAGE", "FATHOM_DEPTH", "FATHOM_NORMALS")
    RETURN_NAMES = ("image", "normal_image", "depth", "normals")
    OUTPUT_TOOLTIPS = (
        "The depth map, near is white; black where the network is not sure.",
        "The normal map; its colours follow the convention chosen.",
        "The depth in metres with its lens, for Fathom's depth tools.",
        "The normals, for Fathom's other nodes.",
    )
    PREVIEW = ("image", "normal_image")
    DEFAULT = "moge-2-small"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        (tokens,) = by_id(cls.DEFAULT).options
        return {
            "required": {
                "image": IMAGE,
                "estimator": choice(_family("moge"), cls.DEFAULT),
                "resolution": resolution(0),
            },
            "optional": {
                "scope": SCOPE,
                "convention": NORMAL_CONVENTION,
                tokens.name: advanced(option(tokens)),
            },
        }

    def execute(
        self,
        image: Any,
        estimator: str,
        resolution: int = 0,
        scope: str = "image",
        convention: Any = "controlnet",
        num_tokens: int = 3600,
    ) -> tuple[Tensor, Tensor, Depth, Normals]:
        scene = cache.take(by_id(estimator)).annotate(image, resolution, {"num_tokens": num_tokens})
        depth, normals = cast(Depth, scene["depth"]), cast(Normals, scene["normals"])
        return depth.to_image(scope), normals.to_image(convention), depth, normals


class FathomDepthAnything3(Node):
    """Depth Anything 3."""

    DISPLAY_NAME = "Fathom Depth Anything 3"
    DESCRIPTION = (
        "Depth Anything 3 (Lin et al., 2025): depth right up to one factor. Small, Base and Large tell the lens and "
        "how sure they are; Mono and Metric tell where the sky is. Metric gives metres once it knows the lens: from "
        "field_of_view, or from a depth that has one, such as Fathom MoGe's. Large may not be used commercially."
    )
    CATEGORY = ESTIMATE_CATEGORY
    SEARCH_ALIASES = ["depth anything 3", "DA3", "depth map", "depth", "metric depth", "sky mask", "disparity"]
    RETURN_TYPES = ("IMAGE", "FATHOM_DEPTH", "MASK")
    RETURN_NAMES = ("image", "depth", "sky")
    OUTPUT_TOOLTIPS = (
        "The depth map, near is white.",
        "The depth with its unit, for Fathom's depth tools.",
        "How likely each pixel is sky; Mono and Metric alone tell it.",
    )
    PREVIEW = ("image",)
    DEFAULT = "depth-anything-3-small"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        (process,) = by_id(cls.DEFAULT).options
        return {
            "required": {
                "image": IMAGE,
                "estimator": choice(_family("depth_anything_3"), cls.DEFAULT),
                "resolution": resolution(0),
            },
            "optional": {
                "scope": SCOPE,
                "field_of_view": number(
                    0.0, 0.0, 179.0, 0.1, "metric-large only: horizontal field of view in degrees. " + UNKNOWN
                ),
                "lens": depth_input("metric-large only: a depth of the same picture whose lens is taken."),
                process.name: advanced(option(process)),
            },
        }

    def execute(
        self,
        image: Any,
        estimator: str,
        resolution: int = 0,
        scope: str = "image",
        field_of_view: float = 0.0,
        lens: Depth | None = None,
        process_res: int = 504,
    ) -> tuple[Tensor, Depth, Any]:
        annotator = cache.take(by_id(estimator))
        options: dict[str, Any] = {"process_res": process_res}
        if field_of_view:
            options["field_of_view"] = field_of_view
        pictures = as_pictures(image)
        parts = [(pictures, options)]
        if lens is not None and not field_of_view:
            focal = convert.focal_at(lens, pictures.shape[2], len(pictures)).tolist()
            # Each picture may have been taken with another lens; one for all is one run.
            alone = pictures.split(1) if len(set(focal)) > 1 else (pictures,)
            parts = [(part, {**options, "focal": f}) for part, f in zip(alone, focal, strict=False)]
        scenes = [annotator.annotate(part, resolution, settings) for part, settings in parts]
        depth = Depth.join([cast(Depth, slots["depth"]) for slots in scenes])
        if "sky" not in scenes[0]:
            reason = f"{annotator.estimator.name} tells no sky: choose depth-anything-3-mono-large or -metric-large."
            return depth.to_image(scope), depth, host.blocked(reason)
        return depth.to_image(scope), depth, Mask.join([cast(Mask, slots["sky"]) for slots in scenes]).values


NODES = (FathomMoGe, FathomDepthAnything3)
