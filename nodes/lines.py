"""Nodes for lines and poses: any annotator's, and what depth makes of them."""

from __future__ import annotations

import json
from typing import Any, cast

from torch import Tensor

from ..annotator.loading import cache
from ..models import estimator as by_id
from ..models import ids
from ..signals import Depth
from ..signals.instances import Instances
from ..signals.lines import Lines
from ..signals.pose import to_openpose
from ..tools.depth_field import Space
from ..tools.lines import lines_by_depth
from ..tools.pose import draw_poses
from .base import Node
from .estimate import run
from .fields import IMAGE, OPTIONS, PLACE, choice, depth_input, in_metres, metres, number, resolution, space

CATEGORY = "Fathom/Lines and Pose"


class FathomLines(Node):
    """Lines of a picture by any annotator."""

    DISPLAY_NAME = "Fathom Lines"
    DESCRIPTION = (
        "Finds lines and edges for ControlNet, white on black. canny and lineart-standard run at once and offline; the "
        "others need the library controlnet-aux (pip install controlnet-aux) and fetch their network once."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "canny",
        "edges",
        "lineart",
        "line art",
        "hed",
        "soft edge",
        "scribble",
        "pidinet",
        "mlsd",
        "teed",
        "anyline",
        "controlnet preprocessor",
    ]
    RETURN_TYPES = ("IMAGE", "FATHOM_LINES")
    RETURN_NAMES = ("image", "lines")
    OUTPUT_TOOLTIPS = (
        "The lines as the ControlNets for lines expect them, white on black.",
        "The strength of the lines, for Fathom Lines by Depth.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE, "estimator": choice(ids("lines"), "canny"), "resolution": resolution()},
            "optional": {"options": OPTIONS},
        }

    def execute(self, image: Any, estimator: str, resolution: int = 512, options: str = "") -> tuple[Tensor, Lines]:
        lines = cast(Lines, run(estimator, image, resolution, "lines", by_id(estimator).parse(options)))
        return lines.to_image(), lines


class FathomPose(Node):
    """People and the points of their bodies, hands and faces."""

    DISPLAY_NAME = "Fathom Pose"
    DESCRIPTION = (
        "Finds people with the points of their bodies, hands and faces. Fathom Pick takes the nearest, the second, the "
        "largest of them. Needs the library controlnet-aux (pip install controlnet-aux); OpenPose's licence forbids "
        "commercial use."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["openpose", "pose", "skeleton", "keypoints", "dwpose", "body", "hands", "controlnet preprocessor"]
    RETURN_TYPES = ("IMAGE", "FATHOM_INSTANCES", "STRING")
    RETURN_NAMES = ("image", "instances", "openpose")
    OUTPUT_TOOLTIPS = (
        "The poses drawn as the ControlNet for poses expects them.",
        "The people, for Fathom Pick and the other nodes of things.",
        "The points as OpenPose writes them, as JSON: one entry for each picture.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        switch = "Find and draw the points of {}."
        return {
            "required": {
                "image": IMAGE,
                "estimator": choice(ids("people"), "openpose"),
                "body": ("BOOLEAN", {"default": True, "tooltip": "Draw bodies; they are found in any case."}),
                "hands": ("BOOLEAN", {"default": True, "tooltip": switch.format("hands")}),
                "faces": ("BOOLEAN", {"default": True, "tooltip": switch.format("faces")}),
                "resolution": resolution(),
            },
            "optional": {
                "instances": (
                    "FATHOM_INSTANCES",
                    {"tooltip": "People found before, such as the one that Fathom Pick took: they are drawn alone."},
                )
            },
        }

    def execute(
        self,
        image: Any,
        estimator: str,
        body: bool = True,
        hands: bool = True,
        faces: bool = True,
        resolution: int = 512,
        instances: Instances | None = None,
    ) -> tuple[Tensor, Instances, str]:
        if instances is None:
            chosen = by_id(estimator)
            settings = {"hands": hands, "faces": faces}
            instances = cast(Instances, cache.take(chosen).annotate(image, resolution, settings)["people"])
        picture = draw_poses(instances, body, hands, faces)
        return picture, instances, json.dumps(to_openpose(instances))


class FathomLinesByDepth(Node):
    """The lines of what is near."""

    DISPLAY_NAME = "Fathom Lines by Depth"
    DESCRIPTION = (
        "Keeps the lines of the nearest things alone, and draws them the thicker the closer they are. The background "
        "stays free for the model to invent."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["outline", "foreground lines", "mask lines", "line weight", "thickness", "nearest edges"]
    RETURN_TYPES = ("IMAGE", "FATHOM_LINES")
    RETURN_NAMES = ("image", "lines")
    OUTPUT_TOOLTIPS = ("What is left of the lines, white on black.", "The same, for Fathom's other nodes.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        grow = "How many pixels the closest line grows to each side; the farthest stays as it is."
        beside = "How many pixels beside a thing a line still counts as its outline."
        return {
            "required": {
                "lines": ("FATHOM_LINES", {"tooltip": "From Fathom Lines."}),
                "depth": depth_input("The depth of the same pictures."),
                "nearer": number(0.5, 0.0, 1e6, 0.01, f"Lines of what is closer than this stay. {PLACE}"),
                "softness": number(0.05, 0.0, 1e6, 0.01, "Lines fade over this much around it."),
                "thick": ("INT", {"default": 0, "min": 0, "max": 64, "tooltip": grow}),
                "reach": ("INT", {"default": 2, "min": 0, "max": 64, "tooltip": beside}),
                "space": space("nearer and softness"),
            },
            "optional": {
                "near": metres("closest", "needed for metres."),
                "far": metres("farthest", "needed for metres."),
            },
        }

    def execute(
        self,
        lines: Lines,
        depth: Depth,
        nearer: float,
        softness: float,
        thick: int,
        reach: int,
        space: Space,
        near: float = 0.0,
        far: float = 0.0,
    ) -> tuple[Tensor, Lines]:
        kept = lines_by_depth(lines, in_metres(depth, near, far), nearer, softness, thick, reach, space)
        return kept.to_image(), kept


NODES = (FathomLines, FathomPose, FathomLinesByDepth)
