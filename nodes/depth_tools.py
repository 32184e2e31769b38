"""Nodes that vary a picture by its depth: weights, fog, blends, halo, bands, lens blur."""

from __future__ import annotations

from typing import Any, get_args

from ..annotator import host
from ..errors import SettingError
from ..signals import Depth
from ..signals.field import Scope
from ..tools import atmosphere, depth_field, lens_blur
from ..tools.atmosphere import Spacing
from ..tools.depth_field import Easing, Shape, Space
from ..tools.lens_blur import FocusBy
from .base import Node
from .fields import IMAGE, PLACE, SCOPE, advanced, depth_input, in_metres, metres, number, picker, space

CATEGORY = "Fathom/Depth Tools"

_PICTURE: dict[str, Any] = {"image": IMAGE, "depth": depth_input("The depth of the picture; it may be smaller.")}


def colour(default: str, tooltip: str) -> tuple[str, dict[str, Any]]:
    """The widget for a colour."""
    return "STRING", {"default": default, "picker": "colour", "tooltip": f"{tooltip} Written #rrggbb."}


class FathomDepthField(Node):
    """Depth as a mask."""

    DISPLAY_NAME = "Fathom Depth Field"
    DESCRIPTION = (
        "A mask from depth: a smooth ramp from far to near, a band of distances, or everything but a band. With start "
        "equal to end the ramp is a hard cut."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "matting",
        "remove background",
        "subject mask",
        "depth mask",
        "depth to mask",
        "depth range",
        "threshold",
        "foreground mask",
        "background mask",
    ]
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)
    OUTPUT_TOOLTIPS = ("The weight of each pixel; black where nothing was measured.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": depth_input(),
                "shape": (
                    list(get_args(Shape)),
                    {
                        "default": "ramp",
                        "tooltip": "ramp: black at start, white at end, in either direction. band: white between "
                        "start and end. inverse band: black between them.",
                    },
                ),
                "start": number(0.0, -1e6, 1e6, 0.01, f"Where the ramp is black, or one end of the band. {PLACE}"),
                "end": number(1.0, -1e6, 1e6, 0.01, f"Where the ramp is white, or the other end. {PLACE}"),
                "softness": number(
                    0.0, 0.0, 1e6, 0.01, "How wide the edges are, in the same measure: 0 = as start and end say."
                ),
                "easing": (
                    list(get_args(Easing)),
                    {"default": "linear", "tooltip": "How grey goes from black to white."},
                ),
                "gamma": number(1.0, 0.01, 100.0, 0.01, "Power on the mask: above 1 darkens, below 1 lifts."),
            },
            "optional": {
                "space": space("start, end and softness"),
                "near": metres("closest", "needed for metres."),
                "far": metres("farthest", "needed for metres."),
                "scope": SCOPE,
            },
        }

    def execute(
        self,
        depth: Depth,
        shape: Shape,
        start: float,
        end: float,
        softness: float,
        easing: Easing,
        gamma: float,
        space: Space = "relative",
        near: float = 0.0,
        far: float = 0.0,
        scope: Scope = "image",
    ) -> tuple[Any]:
        if near or far:
            if space != "metres":
                raise SettingError('near and far matter only with space "metres"; leave them at 0.')
            depth = in_metres(depth, near, far)
        return (depth_field.depth_field(depth, shape, start, end, softness, easing, gamma, space, scope),)


# What the button of presets sets, and what its list says of each.
FOGS = {
    "mist": {"density": 0.5, "colour": "#dfe6ea", "height_falloff": 0.0},
    "fog": {"density": 1.5, "colour": "#c8d2dc", "height_falloff": 0.0},
    "dense fog": {"density": 4.0, "colour": "#d5dade", "height_falloff": 0.0},
    "warm haze": {"density": 0.8, "colour": "#e8c9a0", "height_falloff": 0.0},
    "night": {"density": 1.5, "colour": "#1d2633", "height_falloff": 0.0},
    "metres: haze, one sees 400 m": {"density": 0.01, "colour": "#dfe6ea", "height_falloff": 0.0},
    "metres: fog, one sees 80 m": {"density": 0.05, "colour": "#c8d2dc", "height_falloff": 0.0},
    "metres: dense fog, one sees 20 m": {"density": 0.2, "colour": "#d5dade", "height_falloff": 0.0},
    "metres: ground fog": {"density": 0.15, "colour": "#dfe6ea", "height_falloff": 1.0},
}
LENSES = {
    "portrait, the closest sharp": {"radius": 12.0, "focus_by": "value", "focus": 1.0, "highlights": 0.0, "blades": 0},
    "portrait, lights as discs": {"radius": 16.0, "focus_by": "value", "focus": 1.0, "highlights": 0.6, "blades": 0},
    "six blades": {"radius": 16.0, "focus_by": "value", "focus": 1.0, "highlights": 0.6, "blades": 6},
    "close-up": {"radius": 32.0, "focus_by": "value", "focus": 0.95, "highlights": 0.2, "blades": 0},
    "middle distance": {"radius": 12.0, "focus_by": "value", "focus": 0.5, "highlights": 0.0, "blades": 0},
    "the farthest sharp": {"radius": 12.0, "focus_by": "value", "focus": 0.0, "highlights": 0.0, "blades": 0},
}


class FathomFog(Node):
    """A picture seen through fog."""

    DISPLAY_NAME = "Fathom Fog"
    DESCRIPTION = "Fog, mist or haze that thickens with distance as real air does, and may thin out with height."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["mist", "haze", "atmosphere", "aerial perspective", "smoke", "depth fog"]
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "amount")
    OUTPUT_TOOLTIPS = ("The picture in fog.", "How much of each pixel is fog.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                **_PICTURE,
                "density": picker(
                    number(
                        1.0,
                        0.0,
                        1e4,
                        0.01,
                        "How fast light is lost. In metres (metric depth, or near and far given): per metre, 0.05 "
                        "hides most beyond 50 m. Otherwise over the picture's whole depth: 1 leaves a third of the "
                        "farthest.",
                    ),
                    "presets",
                    presets=FOGS,
                ),
                "colour": colour("#c8d2dc", "The colour of the fog."),
            },
            "optional": {
                "height_falloff": number(
                    0.0, 0.0, 1e4, 0.01, "How fast the fog thins out with height, per metre; 0 = even."
                ),
                "horizon": number(
                    0.5, -10.0, 10.0, 0.01, "For the falloff: the row of the horizon, 0 = top, 1 = bottom."
                ),
                "near": metres("closest", "with far the density is per metre."),
                "far": metres("farthest", "with near the density is per metre."),
                "scope": SCOPE,
            },
        }

    def execute(
        self,
        image: Any,
        depth: Depth,
        density: float,
        colour: str,
        height_falloff: float = 0.0,
        horizon: float = 0.5,
        near: float = 0.0,
        far: float = 0.0,
        scope: Scope = "image",
    ) -> tuple[Any, Any]:
        depth = in_metres(depth, near, far)
        return atmosphere.fog(image, depth, density, colour, height_falloff, horizon, scope)


class FathomBlendByDepth(Node):
    """One picture near, another far."""

    DISPLAY_NAME = "Fathom Blend by Depth"
    DESCRIPTION = (
        "Shows one picture where it is near and another where it is far: isolate a subject, fade into a drawing."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "remove background",
        "matting",
        "composite",
        "mix by depth",
        "background replace",
        "subject isolation",
        "depth blend",
    ]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The blend, at the size of near_image.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "near_image": ("IMAGE", {"tooltip": "What is seen near."}),
                "far_image": ("IMAGE", {"tooltip": "What is seen far; resized to near_image."}),
                "linear": (
                    "BOOLEAN",
                    {"default": True, "tooltip": "Blend light, as lenses do; off: blend values, as paint programs do."},
                ),
            },
            "optional": {
                "depth": depth_input("Blends evenly from the farthest to the closest pixel. Connect this or field."),
                "field": (
                    "MASK",
                    {"tooltip": "White = near_image, for instance from Depth Field. Connect this or depth."},
                ),
            },
        }

    def execute(
        self, near_image: Any, far_image: Any, linear: bool, depth: Depth | None = None, field: Any = None
    ) -> tuple[Any]:
        return (atmosphere.blend_by_depth(near_image, far_image, depth, field, linear),)


class FathomDreamHalo(Node):
    """A glow behind the subject."""

    DISPLAY_NAME = "Fathom Dream Halo"
    DESCRIPTION = (
        "Lets the light behind the subject glow, wider and stronger the farther it is; the subject stays crisp."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["glow", "bloom", "orton", "dreamy", "soft light", "halo"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The picture with the glow.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                **_PICTURE,
                "strength": number(0.8, 0.0, 10.0, 0.01, "How strong the glow is at the farthest pixel."),
                "radius": number(3.0, 0.0, 25.0, 0.1, "How wide it spreads there, percent of the longer side."),
                "threshold": number(0.4, 0.0, 1.0, 0.01, "How bright a pixel must be to glow."),
                "subject": number(
                    0.7, 0.0, 1.0, 0.01, "From where on nothing changes: 0 = farthest, 1 = closest pixel."
                ),
                "tint": colour("#ffffff", "The colour of the glow."),
            },
            "optional": {"scope": SCOPE},
        }

    def execute(
        self,
        image: Any,
        depth: Depth,
        strength: float,
        radius: float,
        threshold: float,
        subject: float,
        tint: str,
        scope: Scope = "image",
    ) -> tuple[Any]:
        return (atmosphere.dream_halo(image, depth, strength, radius, threshold, subject, tint, scope),)


class FathomBandStyle(Node):
    """Bands of depth, each with its own look."""

    DISPLAY_NAME = "Fathom Band Style"
    DESCRIPTION = "Cuts the picture into bands of depth and gives each its own look, like layers of paper."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["posterize", "paper cut", "depth layers", "slices", "stylize"]
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "bands")
    OUTPUT_TOOLTIPS = ("The picture in bands.", "The bands in grey, the nearest is white.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        listed = "\n".join(f"{name}: {about}" for name, about in atmosphere.TREATMENTS.items())
        return {
            "required": {
                **_PICTURE,
                "styles": (
                    "STRING",
                    {
                        "default": "keep\nposterise 5\ngrey",
                        "multiline": True,
                        "tooltip": f"One line per band, from near to far; join styles by +.\n{listed}",
                    },
                ),
                "softness": number(0.0, 0.0, 1.0, 0.01, "How far neighbouring bands blend, as a share of a band."),
                "spacing": (
                    list(get_args(Spacing)),
                    {
                        "default": "distance",
                        "tooltip": "distance: bands of equal depth. area: bands of equally many pixels.",
                    },
                ),
            },
            "optional": {"scope": SCOPE},
        }

    def execute(
        self, image: Any, depth: Depth, styles: str, softness: float, spacing: Spacing, scope: Scope = "image"
    ) -> tuple[Any, Any]:
        return atmosphere.band_style(image, depth, styles, softness, spacing, scope)


class FathomLensBlur(Node):
    """Depth of field."""

    DISPLAY_NAME = "Fathom Lens Blur"
    DESCRIPTION = (
        "The depth of field of a fast lens: sharp in focus, soft before and behind it, with round or bladed highlights."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["bokeh", "depth of field", "dof", "portrait mode", "tilt shift", "background blur"]
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("image", "blur")
    OUTPUT_TOOLTIPS = ("The picture through the lens.", "How blurred each pixel is, 1 = the full radius.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                **_PICTURE,
                "radius": picker(
                    number(
                        12.0,
                        0.0,
                        500.0,
                        0.5,
                        "Pixels of blur between the closest and the farthest pixel of the picture.",
                    ),
                    "presets",
                    presets=LENSES,
                ),
                "focus_by": (
                    list(get_args(FocusBy)),
                    {
                        "default": "value",
                        "tooltip": "What sets the focus. value: focus from 0 = farthest to 1 = closest. metres: focus "
                        "in metres. point: what lies at point_x, point_y. mask: what the mask covers.",
                    },
                ),
                "focus": number(1.0, 0.0, 1e6, 0.01, "The focus, for value and metres."),
                "highlights": number(0.0, 0.0, 1.0, 0.01, "How much brighter than white bright lights are."),
                "blades": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 32,
                        "tooltip": "Blades of the aperture: 0 = round, 3 or more = a polygon.",
                    },
                ),
            },
            "optional": {
                "mask": ("MASK", {"tooltip": "For focus by mask: the subject."}),
                "point_x": advanced(
                    picker(number(0.5, 0.0, 1.0, 0.01, "For focus by point: 0 = left, 1 = right."), "point")
                ),
                "point_y": advanced(number(0.5, 0.0, 1.0, 0.01, "For focus by point: 0 = top, 1 = bottom.")),
                "rotation": advanced(number(0.0, -360.0, 360.0, 1.0, "Turns the blades, degrees.")),
                "near": advanced(
                    metres("closest", "makes the blur of affine depth true, and focus in metres possible.")
                ),
                "far": advanced(
                    metres("farthest", "makes the blur of affine depth true, and focus in metres possible.")
                ),
                "scope": advanced(SCOPE),
            },
        }

    def execute(
        self,
        image: Any,
        depth: Depth,
        radius: float,
        focus_by: FocusBy,
        focus: float,
        highlights: float,
        blades: int,
        mask: Any = None,
        point_x: float = 0.5,
        point_y: float = 0.5,
        rotation: float = 0.0,
        near: float = 0.0,
        far: float = 0.0,
        scope: Scope = "image",
    ) -> tuple[Any, Any]:
        depth, at = in_metres(depth, near, far), (point_x, point_y)
        return lens_blur.lens_blur(
            image, depth, radius, focus_by, focus, at, mask, highlights, blades, rotation, scope, host.device()
        )


NODES = (FathomDepthField, FathomFog, FathomBlendByDepth, FathomDreamHalo, FathomBandStyle, FathomLensBlur)
