"""Nodes for depth that was measured: phones, stereo pairs and depth cameras."""

from __future__ import annotations

import json
from typing import Any

from ..annotator import host
from ..annotator.pictures import as_pixels
from ..signals import Depth
from ..tools import sensors
from .base import Node
from .fields import FromFile

CATEGORY = "Fathom/Depth Sources"

FOCAL: tuple[str, dict[str, Any]] = (
    "FLOAT",
    {
        "default": 0.0,
        "min": 0.0,
        "max": 100000.0,
        "step": 0.1,
        "tooltip": "Focal length in pixels, from the camera's calibration; 0 = unknown.",
    },
)


def _file(suffixes: tuple[str, ...]) -> tuple[list[str], dict[str, Any]]:
    kinds = ", ".join(suffixes)
    return host.input_files(suffixes), {"tooltip": f"A file ({kinds}) in ComfyUI's input folder."}


class FathomLoadPhoneDepth(FromFile):
    """The depth in a phone's photo."""

    DISPLAY_NAME = "Fathom Load Phone Depth"
    DESCRIPTION = (
        "Reads a portrait or LiDAR photo (HEIC) with the depth that the phone stored in it. The depth is metric only "
        "when the phone says that it is absolute. Needs the package pillow-heif."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["heic", "iphone", "portrait", "lidar", "load depth", "heif"]
    RETURN_TYPES = ("IMAGE", "FATHOM_DEPTH", "IMAGE", "STRING")
    RETURN_NAMES = ("image", "depth", "depth_image", "info")
    OUTPUT_TOOLTIPS = (
        "The photo, upright.",
        "The depth at its own size, which is usually smaller than the photo's.",
        "The depth as a picture, near is white.",
        "What the file says of its depth, as JSON.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"file": _file(sensors.HEIC_SUFFIXES)}}

    def execute(self, file: str) -> tuple[Any, Depth, Any, str]:
        found = sensors.load_phone_depth(host.input_file(file))
        return found.image, found.depth, found.depth.to_image(), json.dumps(found.told, indent=1)


class FathomStereoDepth(Node):
    """Depth from two cameras."""

    DISPLAY_NAME = "Fathom Stereo Depth"
    DESCRIPTION = (
        "Measures depth from a rectified stereo pair by semi-global matching. With focal length and baseline the depth "
        "is in metres. Points that only one camera sees are told as holes."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["stereo", "disparity", "side by side", "sbs", "sgbm", "3d photo"]
    RETURN_TYPES = ("FATHOM_DEPTH", "IMAGE", "MASK")
    RETURN_NAMES = ("depth", "image", "holes")
    OUTPUT_TOOLTIPS = (
        "The depth of the left picture.",
        "The depth as a picture, near is white, holes black.",
        "1 where nothing could be measured.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The left picture, or both side by side."}),
                "layout": (
                    list(sensors.LAYOUTS),
                    {"default": sensors.LAYOUTS[0], "tooltip": "Where the two views are."},
                ),
            },
            "optional": {
                "right": ("IMAGE", {"tooltip": "The right picture, unless both are side by side."}),
                "focal": FOCAL,
                "baseline": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 1000.0,
                        "step": 0.001,
                        "tooltip": "Metres between the two cameras; 0 = unknown.",
                    },
                ),
                "max_disparity": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 4096,
                        "step": 16,
                        "advanced": True,
                        "tooltip": "How many pixels the nearest thing may shift between the views; 0 = an eighth of "
                        "the width.",
                    },
                ),
            },
        }

    def execute(
        self,
        image: Any,
        layout: str,
        right: Any = None,
        focal: float = 0.0,
        baseline: float = 0.0,
        max_disparity: int = 0,
    ) -> tuple[Depth, Any, Any]:
        pair = sensors.split_pair(image, right, layout)
        one, two = (as_pixels(p).permute(0, 2, 3, 1) for p in pair)
        with host.progress(max(len(one), len(two)), self.DISPLAY_NAME, "pair") as bar:
            depth = sensors.stereo_depth(
                one, two, focal=focal or None, baseline=baseline or None, max_disparity=max_disparity, tick=bar.update
            )
        return depth, depth.to_image(), sensors.holes(depth)


class FathomRGBDDepth(FromFile):
    """The depth of a depth camera."""

    DISPLAY_NAME = "Fathom RGB-D Depth"
    DESCRIPTION = (
        "Reads the 16-bit PNG that a depth camera (RealSense, Kinect) or an RGB-D data set wrote. 0 means not "
        "measured; holes can be filled, and a mask tells where."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["realsense", "kinect", "rgbd", "16-bit png", "tof", "load depth"]
    RETURN_TYPES = ("FATHOM_DEPTH", "IMAGE", "MASK", "MASK")
    RETURN_NAMES = ("depth", "image", "holes", "filled")
    OUTPUT_TOOLTIPS = (
        "The depth in metres.",
        "The depth as a picture, near is white, holes black.",
        "1 where the depth is unknown.",
        "1 where the depth was filled in.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "file": _file((".png",)),
                "units_per_metre": (
                    "FLOAT",
                    {
                        "default": 1000.0,
                        "min": 0.001,
                        "max": 1e6,
                        "step": 1.0,
                        "tooltip": "What one metre is in the file: 1000 for RealSense and Kinect, 5000 for TUM.",
                    },
                ),
            },
            "optional": {
                "max_range": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 1000.0,
                        "step": 0.1,
                        "tooltip": "Metres beyond which the camera is not believed; 0 = no limit.",
                    },
                ),
                "focal": FOCAL,
                "fill": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 1024,
                        "tooltip": "Fill holes from their surroundings, up to this many pixels from a measurement; "
                        "0 = leave them.",
                    },
                ),
            },
        }

    def execute(
        self, file: str, units_per_metre: float, max_range: float = 0.0, focal: float = 0.0, fill: int = 0
    ) -> tuple[Depth, Any, Any, Any]:
        depth, filled = sensors.load_rgbd(
            host.input_file(file),
            units_per_metre=units_per_metre,
            max_range=max_range or None,
            focal=focal or None,
            fill=fill,
        )
        return depth, depth.to_image(), sensors.holes(depth), filled


NODES = (FathomLoadPhoneDepth, FathomStereoDepth, FathomRGBDDepth)
