"""The node that lets a person look into a depth."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

from ..annotator import host
from ..signals import Depth
from ..signals.thumbnail import SIDE, jpeg, thumbnails
from ..tools import inspection
from .base import Node
from .fields import PLACE, SCOPE, depth_input, number, space

CATEGORY = "Fathom/Depth Tools"


class FathomDepthInspector(Node):
    """A depth in false colour, with its values, a histogram and a band to choose."""

    DISPLAY_NAME = "Fathom Depth Inspector"
    DESCRIPTION = (
        "Shows a depth in false colour with a legend in its own unit, the value under the pointer, a histogram, before "
        "and after, and a point cloud to turn. Click the picture to set the focus; drag on the histogram to choose a "
        "band of depths, which comes out as a mask."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "preview depth",
        "depth viewer",
        "false color",
        "colormap",
        "turbo",
        "histogram",
        "depth picker",
        "depth to mask",
        "point cloud viewer",
    ]
    RETURN_TYPES = ("FATHOM_DEPTH", "MASK", "IMAGE", "FLOAT", "FLOAT", "FLOAT")
    RETURN_NAMES = ("depth", "mask", "image", "focus", "near", "far")
    OUTPUT_TOOLTIPS = (
        "The depth that came in.",
        "White between near and far; black where nothing was measured.",
        "The depth in false colour.",
        "The focus, for Fathom Lens Blur.",
        "The near end of the band.",
        "The far end of the band.",
    )
    OUTPUT_NODE = True
    PREVIEW = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": depth_input(),
                "palette": (
                    list(inspection.PALETTES),
                    {
                        "default": "turbo",
                        "tooltip": "The colours. turbo and Spectral tell many depths apart, close is red; inferno and "
                        "grey grow brighter towards the viewer.",
                        # For the widget in the browser: it draws before the first run and without asking.
                        "colours": inspection.PALETTES,
                    },
                ),
                "space": space("near, far and focus"),
                "near": number(1.0, -1e6, 1e6, 0.001, f"The near end of the band. Drag on the histogram. {PLACE}"),
                "far": number(0.0, -1e6, 1e6, 0.001, f"The far end of the band. Drag on the histogram. {PLACE}"),
                "focus": number(1.0, -1e6, 1e6, 0.001, f"The depth in focus. Click the picture to set it. {PLACE}"),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "The photo, for before and after and the colours of the point cloud."}),
                "softness": number(
                    0.0, 0.0, 1e6, 0.001, "How far the mask fades out beside the band, in the same measure."
                ),
                "scope": SCOPE,
                "picture": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 100000,
                        "tooltip": "Which picture of a batch is seen first, from 0; the arrows above the picture step "
                        "through all of them. The mask is made for all.",
                        "advanced": True,
                    },
                ),
            },
        }

    def execute(
        self,
        depth: Depth,
        palette: str,
        space: str,
        near: float,
        far: float,
        focus: float,
        image: Any = None,
        softness: float = 0.0,
        scope: str = "image",
        picture: int = 0,
    ) -> dict[str, Any]:
        mask = inspection.depth_band(depth, near, far, softness, space, scope)
        coloured = inspection.false_colour(depth, palette, scope)
        result = (depth, mask, coloured, focus, near, far)
        values, report = inspection.depth_samples(depth, picture, scope, SIDE)
        folder = host.temp_folder()
        if folder is None:
            return {"ui": {}, "result": result}
        if len(depth) > 1:
            values, report["frames"], (report["width"], report["height"]) = inspection.film_samples(depth, scope, SIDE)
        report["values"] = host.save_temp(values, folder, ".bin")
        # What a link decided, the browser cannot read off the widgets.
        report["chosen"] = {"near": near, "far": far, "focus": focus, "softness": softness}
        if image is not None:
            shown = [index for index, *_ in report.get("frames", [(picture,)])]
            report["photos"], report["photo"] = _photos(image, shown, folder)
        return {"ui": {"fathom_depth": [report]}, "result": result}


def _photos(image: Any, shown: list[int], folder: Path) -> tuple[list[int], dict[str, str]]:
    """One file with a small JPEG for each of the places `shown`, and where in it each ends. A single picture, or the
    last one, stands for places that the batch does not have."""
    one = len(image) == 1
    jpegs = [jpeg(thumbnails(image[min(at, len(image) - 1)][None])[0]) for at in (shown[:1] if one else shown)]
    return list(accumulate(len(part) for part in jpegs)), host.save_temp(b"".join(jpegs), folder, ".bin")


NODES = (FathomDepthInspector,)
