"""Nodes for depth that was measured: phones, stereo pairs and depth cameras."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..annotator import host
from ..annotator.decode import decode
from ..annotator.pictures import as_pixels
from ..signals import Depth
from ..signals.exif import focal_length
from ..tools import intrinsics_files, phones, rgbd, stereo
from .base import Node
from .fields import FromFile, advanced, input_file, number

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
    return input_file(suffixes, f"A file ({kinds}) in ComfyUI's input folder. Choose one to upload, or drop it here.")


NONE = "none"


def other_file(suffixes: tuple[str, ...], tooltip: str) -> tuple[list[str], dict[str, Any]]:
    """The widget for a further file of the input folder that may be left out."""
    return [NONE, *host.input_files(suffixes)], {"default": NONE, "tooltip": tooltip}


def chosen(file: str) -> Path | None:
    """The file that such a widget names."""
    return None if file == NONE else host.input_file(file)


INTRINSICS_WIDTH: tuple[str, dict[str, Any]] = (
    "INT",
    {
        "default": 0,
        "min": 0,
        "max": 100000,
        "tooltip": "Width of the picture that the intrinsics are of, where it is not the depth's own (a phone's photo "
        "of 1920 beside LiDAR of 256) and the file does not say it. 0 = as the file says.",
    },
)


def intrinsics() -> dict[str, Any]:
    """The widgets for a file of intrinsics."""
    kinds = "a camera's fx, fy, cx, cy or 3x3 matrix (JSON, K.txt, calib.txt, npz)"
    return {
        "intrinsics": advanced(other_file(intrinsics_files.SUFFIXES, f"A file of the input folder with {kinds}.")),
        "intrinsics_width": advanced(INTRINSICS_WIDTH),
    }


class FathomLoadPhoneDepth(FromFile):
    """The depth in a phone's photo."""

    DISPLAY_NAME = "Fathom Load Phone Depth"
    DESCRIPTION = (
        f"Reads a photo with the depth that a phone or a stereo camera stored in it: {phones.READABLE}. The depth is "
        "metric only when the file says that it is absolute. HEIC needs the package pillow-heif."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "heic",
        "iphone",
        "portrait",
        "lidar",
        "load depth",
        "heif",
        "mpo",
        "gdepth",
        "lens blur",
        "spatial photo",
    ]
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
        return {"required": {"file": _file(phones.SUFFIXES)}}

    def execute(self, file: str) -> tuple[Any, Depth, Any, str]:
        found = phones.load_phone_depth(host.input_file(file))
        return found.image, found.depth, found.depth.to_image(), json.dumps(found.metadata, indent=1)


class FathomLoadPhoto(FromFile):
    """A photo and its lens."""

    DISPLAY_NAME = "Fathom Load Photo"
    DESCRIPTION = (
        "Reads a photo upright, its colours in sRGB, with the field of view that its EXIF tells: what Fathom Depth "
        "Anything 3 needs for metres, and the geometry nodes for true shapes. ComfyUI's Load Image drops it."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["load image", "exif", "field of view", "focal length", "lens", "camera", "heic"]
    RETURN_TYPES = ("IMAGE", "FLOAT", "FLOAT")
    RETURN_NAMES = ("image", "field_of_view", "focal")
    OUTPUT_TOOLTIPS = (
        "The photo, upright.",
        "The horizontal field of view in degrees; 0 = the file does not tell.",
        "The focal length in pixels of the photo; 0 = the file does not tell.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"file": _file((".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".heic", ".heif"))}}

    def execute(self, file: str) -> tuple[Any, float, float]:
        path = host.input_file(file)
        photo = decode(path.read_bytes(), path.name)
        focal = focal_length(photo) or 0.0
        image = as_pixels(photo).permute(0, 2, 3, 1)
        return image, math.degrees(2 * math.atan(image.shape[2] / 2 / focal)) if focal else 0.0, focal


class FathomStereoDepth(Node):
    """Depth from two cameras."""

    DISPLAY_NAME = "Fathom Stereo Depth"
    DESCRIPTION = (
        "Measures depth from a stereo pair by semi-global matching. Rows that are off, a turned camera and other "
        "exposure are evened first. With focal length and baseline the depth is in metres. Points that only one "
        "camera sees are told as holes."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["stereo", "disparity", "side by side", "sbs", "sgbm", "3d photo"]
    RETURN_TYPES = ("FATHOM_DEPTH", "IMAGE", "MASK", "STRING")
    RETURN_NAMES = ("depth", "image", "holes", "report")
    OUTPUT_TOOLTIPS = (
        "The depth of the left picture.",
        "The depth as a picture, near is white, holes black.",
        "1 where nothing could be measured.",
        "What was found out of each pair: rows, exposure, range.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The left picture, or both in one."}),
                "layout": (
                    list(stereo.LAYOUTS),
                    {"default": stereo.LAYOUTS[0], "tooltip": "Where the two views are."},
                ),
            },
            "optional": {
                "right": ("IMAGE", {"tooltip": "The right picture, unless both are in one."}),
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
                        "tooltip": "Pixels that the nearest thing may shift between the views: what shifts more is a "
                        "hole. 0 = no limit; the range is found in the pictures.",
                    },
                ),
                "offset": advanced(
                    number(
                        0.0,
                        -100000.0,
                        100000.0,
                        0.01,
                        "Pixels by which the right camera's principal point lies further right than the left one's: "
                        "cx1 - cx0, doffs in Middlebury's calib.txt.",
                    )
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
        offset: float = 0.0,
    ) -> tuple[Depth, Any, Any, str]:
        pair = stereo.split_pair(image, right, layout)
        one, two = (as_pixels(p).permute(0, 2, 3, 1) for p in pair)
        with host.progress(max(len(one), len(two)), self.DISPLAY_NAME, "pair") as bar:
            report: list[str] = []
            depth = stereo.stereo_depth(
                one,
                two,
                focal=focal or None,
                baseline=baseline or None,
                max_disparity=max_disparity,
                offset=offset,
                report=report,
                tick=bar.update,
            )
        return depth, depth.to_image(), rgbd.holes(depth), "\n".join(report)


class FathomRGBDDepth(FromFile):
    """The depth of a depth camera."""

    DISPLAY_NAME = "Fathom RGB-D Depth"
    DESCRIPTION = (
        "Reads the 16-bit PNG that a depth camera (RealSense, Kinect), a LiDAR app or an RGB-D data set wrote. 0 means "
        "not measured; holes can be filled, and a mask tells where."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "realsense",
        "kinect",
        "rgbd",
        "16-bit png",
        "tof",
        "load depth",
        "lidar",
        "arkit",
        "stray scanner",
    ]
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
                **intrinsics(),
                "confidence": advanced(
                    other_file(
                        (".png",), "ARKit's confidence map of the same frame (0, 1, 2), as scanner apps write it."
                    )
                ),
                "least_confidence": advanced(
                    (
                        "INT",
                        {
                            "default": 1,
                            "min": 0,
                            "max": 2,
                            "tooltip": "What the confidence must be at least: 0 low, 1 medium, 2 high. Less is a hole.",
                        },
                    )
                ),
            },
        }

    @classmethod
    def state(cls, file: str, intrinsics: str | None = NONE, confidence: str | None = NONE, **_more: Any) -> str:
        paths = [path for name in (file, intrinsics, confidence) if (path := chosen(name or NONE))]
        return " ".join(f"{state.st_mtime_ns} {state.st_size}" for state in (path.stat() for path in paths))

    def execute(
        self,
        file: str,
        units_per_metre: float,
        max_range: float = 0.0,
        focal: float = 0.0,
        fill: int = 0,
        intrinsics: str = NONE,
        intrinsics_width: int = 0,
        confidence: str = NONE,
        least_confidence: int = 1,
    ) -> tuple[Depth, Any, Any, Any]:
        depth, filled = rgbd.load_rgbd(
            host.input_file(file),
            units_per_metre=units_per_metre,
            max_range=max_range or None,
            focal=focal or None,
            fill=fill,
            intrinsics=chosen(intrinsics),
            intrinsics_width=intrinsics_width,
            confidence=chosen(confidence),
            least_confidence=least_confidence,
        )
        return depth, depth.to_image(), rgbd.holes(depth), filled


NODES = (FathomLoadPhoneDepth, FathomLoadPhoto, FathomStereoDepth, FathomRGBDDepth)
