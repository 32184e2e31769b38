"""Nodes that bring depth in from pictures, files and other nodes, and out again."""

from __future__ import annotations

import json
from typing import Any, get_args

from ..annotator import host
from ..signals import Depth, Mask, Signal, foreign
from ..signals.field import Scope
from ..signals.files import FORMATS, fingerprint, load_signal, save_series, summary
from ..tools import convert
from ..tools.convert import Even, Meaning, Mode, Near, Quantity, Saved, Unit, Units
from .base import Node
from .fields import SCOPE, UNKNOWN, FromFile, advanced, depth_input, input_file, metres, number

CATEGORY = "Fathom/Depth In and Out"
# The front end rounds to the digits of the step, and scales such as 1/256 and 1/65535 need them all.
FINE = 1e-9
# The kinds of signal that go on as more than a picture, and their sockets.
_SOCKETS = {
    "depth": "FATHOM_DEPTH",
    "normals": "FATHOM_NORMALS",
    "segmentation": "FATHOM_SEGMENTATION",
    "mask": "MASK",
    "instances": "FATHOM_INSTANCES",
}


class FathomDepthFromImage(Node):
    """A depth map picture as a typed depth."""

    DISPLAY_NAME = "Fathom Depth from Image"
    DESCRIPTION = "Turns a grey depth map from any other node or program into a depth that Fathom's tools understand."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["image to depth", "depth map to depth", "import depth", "disparity", "z-depth"]
    RETURN_TYPES = ("FATHOM_DEPTH",)
    RETURN_NAMES = ("depth",)
    OUTPUT_TOOLTIPS = ("The depth, for Fathom's depth tools.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The grey depth map. A coloured one is refused."}),
                "meaning": (
                    list(get_args(Meaning)),
                    {
                        "default": "inverse",
                        "tooltip": "What grey is. inverse: 1/distance, as depth maps for ControlNet are. metric: "
                        "distance. disparity: the shift between two cameras, in pixels.",
                    },
                ),
                "scale": number(1.0, 1e-9, 1e9, FINE, "What white (1.0) stands for, in the unit."),
                "unit": (
                    list(get_args(Unit)),
                    {
                        "default": "relative",
                        "tooltip": "The unit of the scale; for inverse it is 1/unit. relative = unknown.",
                    },
                ),
                "near": (
                    list(get_args(Near)),
                    {
                        "default": "auto",
                        "tooltip": "Which end of the grey scale is close. auto: white for inverse and disparity, black "
                        "for metric.",
                    },
                ),
            },
            "optional": {
                "focal": number(0.0, 0.0, 1e6, 0.1, f"Focal length in pixels of this picture. {UNKNOWN}"),
                "baseline": number(0.0, 0.0, 1e3, 0.001, f"For disparity: metres between the two cameras. {UNKNOWN}"),
                "valid": ("MASK", {"tooltip": "White where the depth was measured. Without it: everywhere."}),
            },
        }

    def execute(
        self,
        image: Any,
        meaning: Meaning,
        scale: float,
        unit: Unit,
        near: Near,
        focal: float = 0.0,
        baseline: float = 0.0,
        valid: Any = None,
    ) -> tuple[Depth]:
        lens = focal or None, baseline or None
        return (convert.depth_from_image(image, meaning, scale, unit, near, *lens, valid),)


class FathomDepthToImage(Node):
    """A depth as a grey picture."""

    DISPLAY_NAME = "Fathom Depth to Image"
    DESCRIPTION = "Draws a depth as a grey picture, near is white, with the range that you choose."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["depth map", "normalize depth", "remap depth", "render depth", "preview depth"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The depth map, near is white; black where nothing was measured.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": depth_input(),
                "mode": (
                    list(get_args(Mode)),
                    {
                        "default": "min-max",
                        "tooltip": "What becomes black and white. min-max: the farthest and the closest pixel. "
                        "percentile: low and high below, so that a few odd pixels do not matter. fixed: the distances "
                        "far and near, for metric depth.",
                    },
                ),
                "scope": SCOPE,
                "gamma": number(1.0, 0.01, 100.0, 0.01, "Power on grey: below 1 lifts what is far, above darkens it."),
            },
            "optional": {
                "low": number(2.0, 0.0, 100.0, 0.1, "For percentile: the percentile that becomes black."),
                "high": number(98.0, 0.0, 100.0, 0.1, "For percentile: the percentile that becomes white."),
                "near": number(0.0, 0.0, 1e6, 0.01, "For fixed: metres that become white."),
                "far": number(0.0, 0.0, 1e6, 0.01, "For fixed: metres that become black."),
                "space": (
                    list(get_args(Even)),
                    {
                        "default": "inverse",
                        "advanced": True,
                        "tooltip": "What grey is even in. inverse: 1/distance, fine steps close by. metres: distance, "
                        "for metric depth.",
                    },
                ),
            },
        }

    def execute(
        self,
        depth: Depth,
        mode: Mode,
        scope: Scope,
        gamma: float,
        low: float = 2.0,
        high: float = 98.0,
        near: float = 0.0,
        far: float = 0.0,
        space: Even = "inverse",
    ) -> tuple[Any]:
        ends = near or None, far or None
        return (convert.depth_to_image(depth, mode, scope, gamma, low, high, *ends, space),)


class FathomConvertDepth(Node):
    """A depth as metres, inverse or disparity."""

    DISPLAY_NAME = "Fathom Convert Depth"
    DESCRIPTION = (
        "Makes a depth metric, from the distances of its closest and farthest pixel or from known points, and gives "
        "its numbers as metres, 1/metre or disparity."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["metric depth", "calibrate depth", "disparity", "inverse depth", "scale depth", "align depth"]
    RETURN_TYPES = ("FATHOM_DEPTH", "IMAGE", "STRING")
    RETURN_NAMES = ("depth", "numbers", "report")
    OUTPUT_TOOLTIPS = (
        "The depth in metres, for Fathom's depth tools.",
        "The bare numbers as a float picture, not stretched to 0..1.",
        "What was done, as JSON; after a fit to points the error that is left, in metres.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": depth_input(),
                "to": (
                    list(get_args(Quantity)),
                    {
                        "default": "metric",
                        "tooltip": "What the numbers are: metres, 1/metre, or pixels between two cameras.",
                    },
                ),
            },
            "optional": {
                "near": metres("closest", "with far it makes the depth metric."),
                "far": metres("farthest", "with near it makes the depth metric."),
                "points": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "Known distances instead of near and far: one point per line as x y metres, in "
                        "pixels of the depth. Two or more.",
                    },
                ),
                "focal": advanced(number(0.0, 0.0, 1e6, 0.1, "Focal length in pixels. 0 = the depth's own.")),
                "baseline": advanced(number(0.0, 0.0, 1e3, 0.001, "For disparity: metres between the two cameras.")),
            },
        }

    def execute(
        self,
        depth: Depth,
        to: Quantity,
        near: float = 0.0,
        far: float = 0.0,
        points: str = "",
        focal: float = 0.0,
        baseline: float = 0.0,
    ) -> tuple[Depth, Any, str]:
        metric, numbers, report = convert.convert_depth(
            depth, to, near or None, far or None, focal or None, baseline or None, points or None
        )
        return metric, convert.numbers_to_image(numbers), report


class FathomDepthFromGeometry(Node):
    """The depth of ComfyUI's own geometry nodes."""

    DISPLAY_NAME = "Fathom Depth from Geometry"
    DESCRIPTION = (
        "Takes the depth of ComfyUI's own Depth Anything 3 and MoGe nodes, with its metres, holes, lens and "
        "confidence, and MoGe's normals and the sky. With both connected, Depth Anything 3 takes MoGe's lens for its "
        "metres."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["da3", "depth anything 3", "moge", "geometry to depth", "metric depth"]
    RETURN_TYPES = ("FATHOM_DEPTH", "IMAGE", "FATHOM_NORMALS", "MASK")
    RETURN_NAMES = ("depth", "image", "normals", "sky")
    OUTPUT_TOOLTIPS = (
        "The depth, for Fathom's depth tools.",
        "The depth as a picture, near is white.",
        "MoGe 2's normals.",
        "How likely each pixel is sky, from Depth Anything 3 Mono and Metric.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "units": (
                    list(get_args(Units)),
                    {
                        "default": "metres",
                        "tooltip": "What the model's distances are; the geometry does not say it. metres: MoGe 2, and "
                        "Depth Anything 3 Metric, which needs the field of view or a lens. relative: Depth Anything 3 "
                        "Small, Base, Mono, MoGe 1, panoramas.",
                    },
                ),
            },
            "optional": {
                "da3_geometry": ("DA3_GEOMETRY", {"tooltip": "From Run Depth Anything 3."}),
                "moge_geometry": ("MOGE_GEOMETRY", {"tooltip": "From Run MoGe Inference."}),
                "field_of_view": number(
                    0.0, 0.0, 179.0, 0.1, "Horizontal field of view in degrees, for Depth Anything 3. " + UNKNOWN
                ),
                "lens": depth_input(
                    "A depth of the same picture whose lens is taken, such as one with EXIF or MoGe's."
                ),
                "near": metres("closest", "one known distance makes relative depth metric."),
                "far": metres("farthest", "one known distance makes relative depth metric."),
                "process_res": advanced(
                    (
                        "INT",
                        {
                            "default": 504,
                            "min": 14,
                            "max": 4096,
                            "tooltip": "The longest side that Depth Anything 3 saw: the resolution of Run Depth "
                            "Anything 3. Its metres depend on it.",
                        },
                    )
                ),
            },
        }

    def execute(
        self,
        units: Units,
        da3_geometry: Any = None,
        moge_geometry: Any = None,
        field_of_view: float = 0.0,
        lens: Depth | None = None,
        near: float = 0.0,
        far: float = 0.0,
        process_res: int = 504,
    ) -> tuple[Depth, Any, Any, Any]:
        taken = moge_geometry if da3_geometry is None else da3_geometry
        convert.check_geometry(taken)
        count, _, width = taken["depth"].shape
        focal = None
        if field_of_view:
            focal = convert.focal_from_view(field_of_view, width)
        elif lens is not None:
            focal = convert.focal_at(lens, width, count)
        elif da3_geometry is not None and moge_geometry is not None:
            focal = convert.focal_at(convert.depth_from_geometry(moge_geometry, "relative"), width, count)
        depth = convert.depth_from_geometry(taken, units, focal, process_res, near or None, far or None)
        normals = None if moge_geometry is None else convert.normals_from_geometry(moge_geometry)
        sky = taken.get("sky")
        return (
            depth,
            depth.to_image(),
            host.blocked("This geometry has no normals: they come from MoGe 2.") if normals is None else normals,
            host.blocked("This geometry tells no sky: Depth Anything 3 Mono and Metric do.")
            if sky is None
            else sky.float().clamp(0, 1),
        )


class FathomSaveDepth(Node):
    """Depth into files of the output folder."""

    DISPLAY_NAME = "Fathom Save Depth"
    DESCRIPTION = (
        "Saves a depth so that it comes back as it was: with its kind, what is valid, focal length and the workflow."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["export depth", "16-bit png", "exr", "z channel", "npz", "write depth"]
    RETURN_TYPES = ("FATHOM_DEPTH",)
    RETURN_NAMES = ("depth",)
    OUTPUT_TOOLTIPS = ("The depth that came in.",)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "depth": depth_input(),
                "filename_prefix": (
                    "STRING",
                    {
                        "default": "depth/fathom",
                        "tooltip": "Name in the output folder, as in Save Image: folders and marks such as "
                        "%date:yyyy-MM-dd% and %width% work.",
                    },
                ),
                "format": (
                    list(FORMATS),
                    {
                        "default": "exr",
                        "tooltip": "exr: exact, channel Z, one file per picture. png16: 65535 steps, viewable, one "
                        "file per picture and its description beside it. npz, safetensors: exact, a batch in one file.",
                    },
                ),
            },
            "optional": {
                "metres": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "advanced": True,
                        "tooltip": "For exr: Z holds metres, as renderers and compositing programs expect, instead of "
                        "1/metre. Metric depth only.",
                    },
                ),
                "scope": advanced(SCOPE),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def execute(
        self,
        depth: Depth,
        filename_prefix: str,
        format: str,
        metres: bool = False,
        scope: str = "image",
        prompt: Any = None,
        extra_pnginfo: Any = None,
    ) -> dict[str, Any]:
        height, width = depth.values.shape[1:]
        files = len(depth) if FORMATS[format] in (".png", ".exr") else 1
        first, _ = host.output_file(filename_prefix, FORMATS[format], width, height, files)
        with host.released_on_error(first, files):
            written = save_series(depth, first, metres=metres, scope=scope, texts=_texts(prompt, extra_pnginfo))
        folder = first.parent.relative_to(host.output_folder())
        shown = [{"filename": p.name, "subfolder": folder.as_posix(), "type": "output"} for p in written]
        # The front end shows pictures only; of other formats it gets a preview of the depth.
        return {"ui": {"images": shown if format == "png16" else []}, "result": (depth,)}


def _texts(prompt: Any, extra: Any) -> dict[str, str]:
    """What Save Image embeds in its pictures."""
    if not host.embeds_metadata():
        return {}
    named = {**({} if prompt is None else {"prompt": prompt}), **(extra or {})}
    return {name: json.dumps(value) for name, value in named.items()}


class FathomLoadDepth(FromFile):
    """Depth from a file of the input folder."""

    DISPLAY_NAME = "Fathom Load Depth"
    DESCRIPTION = (
        "Loads a depth that Fathom saved, or the depth in another program's file: PNG, EXR, TIFF, PFM, PGM, npy or npz."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["import depth", "16-bit png", "exr", "tiff", "pfm", "z channel", "npz", "read depth"]
    RETURN_TYPES = ("FATHOM_DEPTH", "IMAGE")
    RETURN_NAMES = ("depth", "image")
    OUTPUT_TOOLTIPS = ("The depth, for Fathom's depth tools.", "The depth as a picture, near is white.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "file": input_file(
                    tuple(dict.fromkeys((*FORMATS.values(), *foreign.SUFFIXES))),
                    "A file in ComfyUI's input folder: safetensors, npz, PNG, EXR, TIFF, PFM, PGM or npy. Choose one "
                    "to upload below, or drop it on the node.",
                    image_upload=True,
                ),
            },
            "optional": {
                "meaning": (
                    list(get_args(Saved)),
                    {
                        "default": "as saved",
                        "tooltip": "as saved: a file of Fathom says it itself. Otherwise what another program's "
                        "numbers are: 1/distance, distance, or disparity.",
                    },
                ),
                "scale": number(1.0, 1e-9, 1e9, FINE, "For other programs' files: what the number 1 stands for."),
                "unit": (
                    list(get_args(Unit)),
                    {
                        "default": "m",
                        "tooltip": "For other programs' files: the unit of the scale. Depth cameras often write mm.",
                    },
                ),
                "channel": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "For other programs' files that hold several: an EXR channel such as "
                        "ViewLayer.Depth.Z, an array of an npz, a page of a TIFF from 0. Empty = the depth.",
                    },
                ),
                "reading": (
                    list(get_args(foreign.Reading)),
                    {
                        "default": "plain",
                        "tooltip": "plain: numbers as they stand. SUN RGB-D: 16-bit PNG of that data set, whose bits "
                        "are rotated.",
                    },
                ),
            },
        }

    @classmethod
    def state(cls, file: str, **_more: Any) -> str:
        return fingerprint(host.input_file(file))

    def execute(
        self,
        file: str,
        meaning: Saved = "as saved",
        scale: float = 1.0,
        unit: Unit = "m",
        channel: str = "",
        reading: foreign.Reading = "plain",
    ) -> tuple[Depth, Any]:
        depth = convert.depth_from_file(host.input_file(file), meaning, scale, unit, channel, reading)
        return depth, depth.to_image()


class FathomLoadSignal(FromFile):
    """A signal of any kind from a file of the input folder."""

    DISPLAY_NAME = "Fathom Load Signal"
    DESCRIPTION = (
        "Loads what Fathom saved, in a graph or from the shell, whatever it is: depth, normals, regions, masks, things."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["import normals", "load segmentation", "load annotation", "npz", "safetensors", "exr"]
    RETURN_TYPES = ("IMAGE", *_SOCKETS.values(), "STRING")
    RETURN_NAMES = ("image", *_SOCKETS, "report")
    OUTPUT_TOOLTIPS = (
        "The signal as the picture that a ControlNet takes.",
        *(f"The {kind}, when the file holds that." for kind in _SOCKETS),
        "What the file holds, as JSON.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tooltip = "A file of Fathom in ComfyUI's input folder: 16-bit PNG, EXR, npz or safetensors."
        return {"required": {"file": input_file(tuple(FORMATS.values()), tooltip)}}

    @classmethod
    def state(cls, file: str, **_more: Any) -> str:
        return fingerprint(host.input_file(file))

    def execute(self, file: str) -> tuple[Any, ...]:
        signal = load_signal(host.input_file(file))
        report = json.dumps(summary(signal), indent=1)
        return signal.to_image(), *(_of_kind(signal, kind, file) for kind in _SOCKETS), report


def _of_kind(signal: Signal, kind: str, file: str) -> Any:
    """The signal as the output for `kind` gives it; a block with a word to whatever follows where it is another."""
    if signal.KIND != kind:
        return host.blocked(f"{file} holds {signal.KIND}, no {kind}: connect the output of that name.")
    return signal.values if isinstance(signal, Mask) else signal


NODES = (
    FathomDepthFromImage,
    FathomDepthToImage,
    FathomConvertDepth,
    FathomDepthFromGeometry,
    FathomSaveDepth,
    FathomLoadDepth,
    FathomLoadSignal,
)
