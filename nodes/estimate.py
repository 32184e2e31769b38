"""Nodes that estimate depth, normals, regions or intrinsic maps: any model of a kind, and one node for each family."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor

from ..annotator import host
from ..annotator.loading import cache
from ..models import estimator as by_id
from ..models import estimators, ids
from ..signals import Depth, Intrinsics, Normals, Segmentation, Signal
from ..signals.field import Scope
from ..signals.intrinsics import ColourSpace
from ..signals.normals import NormalConvention
from ..signals.segmentation import Palette
from ..tools.contact_sheet import contact_sheet
from ..tools.legend import legend
from ..tools.sobel import foreground, sobel_normals
from .base import Node
from .fields import (
    COLOUR_SPACE,
    ESTIMATE_CATEGORY,
    IMAGE,
    NORMAL_CONVENTION,
    OPTIONS,
    SCOPE,
    advanced,
    choice,
    estimator_facts,
    option,
    picker,
    resolution,
)

_DEPTH_OUTPUTS = (
    "The depth map that the model's ControlNet was trained on, near is white.",
    "The depth with its unit, for Fathom's depth tools.",
)
_NORMAL_OUTPUTS = (
    "The normal map; its colours follow the convention chosen.",
    "The normals, for Fathom's other nodes.",
)
_SEGMENTATION_OUTPUTS = (
    "The regions in the data set's own colours, as the segmentation ControlNet expects them.",
    "The class of every pixel, for Fathom Class Mask and the region tools.",
    "The classes found, the largest first: name, colour, share of the picture.",
)


def _family(name: str, produces: str) -> list[str]:
    return [e.id for e in estimators().values() if e.family == name and produces in e.produces]


def run(
    id: str, image: Any, resolution: int | None, slot: str = "", options: Mapping[str, Any] | None = None
) -> Signal:
    """The signal of `image` by the estimator `id`, loading it when it is not loaded. slot: which one of several, the
    main one where it has none of that name. options: the estimator's own."""
    chosen = by_id(id)
    return cache.take(chosen).annotate(image, resolution, options)[chosen.slot(slot)]


class _DepthNode(Node):
    """One family's depth node: the choices of the family, IMAGE and FATHOM_DEPTH out."""

    CATEGORY = ESTIMATE_CATEGORY
    RETURN_TYPES = ("IMAGE", "FATHOM_DEPTH")
    RETURN_NAMES = ("image", "depth")
    OUTPUT_TOOLTIPS = _DEPTH_OUTPUTS
    DEFAULT: ClassVar[str]

    @classmethod
    def choices(cls) -> list[str]:
        """The ids that the node offers."""
        default = by_id(cls.DEFAULT)
        return _family(default.family, "depth")


class _PlainDepthNode(_DepthNode):
    """A family without options of its own."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE, "estimator": choice(cls.choices(), cls.DEFAULT), "resolution": resolution()},
            "optional": {"scope": SCOPE},
        }

    def execute(
        self, image: Any, estimator: str, resolution: int = 512, scope: Scope = "image"
    ) -> tuple[Tensor, Depth]:
        depth = cast(Depth, run(estimator, image, resolution, "depth"))
        return depth.to_image(scope), depth


class FathomEstimateDepth(_DepthNode):
    """Depth of a picture by any depth estimator."""

    DISPLAY_NAME = "Fathom Depth Map"
    DESCRIPTION = (
        "Estimates how far every pixel is: a depth map for ControlNet (near is white), and the depth itself for "
        "Fathom's other nodes. fathom-tiny comes with the pack and needs no download, but gives a rough preview only; "
        "depth-anything-v2-small is the one to work with. Models are fetched once, when they first run."
    )
    SEARCH_ALIASES = [
        "controlnet depth",
        "depth controlnet",
        "estimate depth",
        "depth",
        "depth map",
        "depth estimation",
        "z-depth",
        "zdepth",
        "disparity",
        "controlnet",
        "preprocessor",
        "annotator",
        "midas",
        "dpt",
        "depth anything",
        "DAv2",
        "zoe",
        "marigold",
        "leres",
        "tiny",
    ]
    DEFAULT = "fathom-tiny"

    @classmethod
    def choices(cls) -> list[str]:
        return ids("depth")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE, "estimator": choice(cls.choices(), cls.DEFAULT), "resolution": resolution()},
            "optional": {"scope": SCOPE, "options": OPTIONS},
        }

    def execute(
        self, image: Any, estimator: str, resolution: int = 512, scope: Scope = "image", options: str = ""
    ) -> tuple[Tensor, Depth]:
        depth = cast(Depth, run(estimator, image, resolution, "depth", by_id(estimator).parse(options)))
        return depth.to_image(scope), depth


class FathomDepthAnythingV2(_PlainDepthNode):
    """Depth Anything V2."""

    DISPLAY_NAME = "Fathom Depth Anything V2"
    DESCRIPTION = (
        "Depth Anything V2 (Yang et al., 2024): sharp relative depth. The Small model may be used commercially; Base, "
        "Large and Giant may not."
    )
    SEARCH_ALIASES = ["depth anything", "DAv2", "depth anything v2", "depth map", "depth", "disparity", "controlnet"]
    DEFAULT = "depth-anything-v2-small"

    @classmethod
    def choices(cls) -> list[str]:
        return [
            i for i in _family("depth_anything", "depth") if i.startswith("depth-anything-v2-") and "metric" not in i
        ]


class FathomDepthAnythingV2Metric(_PlainDepthNode):
    """Depth Anything V2 in metres."""

    DISPLAY_NAME = "Fathom Depth Anything V2 Metric"
    DESCRIPTION = (
        "Depth Anything V2 trained for distances in metres, up to 20 m indoors and up to 80 m outdoors. The depth "
        "output is metric: fog, point clouds and measurements need nothing more."
    )
    SEARCH_ALIASES = ["metric depth", "metres", "depth anything", "distance", "DAv2"]
    DEFAULT = "depth-anything-v2-metric-indoor-small"

    @classmethod
    def choices(cls) -> list[str]:
        return [i for i in _family("depth_anything", "depth") if i.startswith("depth-anything-v2-metric-")]


class FathomDepthAnything(_PlainDepthNode):
    """Depth Anything, the first version."""

    DISPLAY_NAME = "Fathom Depth Anything"
    DESCRIPTION = "Depth Anything V1 (Yang et al., 2024): relative depth; all three sizes may be used commercially."
    SEARCH_ALIASES = ["depth anything", "depth map", "depth", "disparity"]
    DEFAULT = "depth-anything-small"

    @classmethod
    def choices(cls) -> list[str]:
        return [i for i in _family("depth_anything", "depth") if not i.startswith("depth-anything-v2-")]


class FathomZoeDepth(_DepthNode):
    """ZoeDepth."""

    DISPLAY_NAME = "Fathom ZoeDepth"
    DESCRIPTION = (
        "ZoeDepth (Bhat et al., 2023): depth in metres, rendered as its ControlNet was trained, from the 2nd to the "
        "85th percentile of the distances. N = indoor, K = streets, NK = chooses by itself."
    )
    SEARCH_ALIASES = ["zoe", "zoedepth", "metric depth", "depth map", "depth", "controlnet"]
    DEFAULT = "zoedepth-n"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        (flip,) = by_id(cls.DEFAULT).options
        return {
            "required": {"image": IMAGE, "estimator": choice(cls.choices(), cls.DEFAULT), "resolution": resolution()},
            "optional": {"scope": SCOPE, flip.name: advanced(option(flip))},
        }

    def execute(
        self,
        image: Any,
        estimator: str,
        resolution: int = 512,
        scope: Scope = "image",
        flip_augmentation: bool = True,
    ) -> tuple[Tensor, Depth]:
        chosen = {"flip_augmentation": flip_augmentation}
        depth = cast(Depth, run(estimator, image, resolution, "depth", chosen))
        return depth.to_image(scope), depth


class FathomLeReS(_PlainDepthNode):
    """LeReS."""

    DISPLAY_NAME = "Fathom LeReS"
    DESCRIPTION = "LeReS (Yin et al., 2021): relative depth with rich background detail."
    SEARCH_ALIASES = ["leres", "depth map", "depth", "controlnet"]
    DEFAULT = "leres"


def _marigold_inputs(listed: list[str], default: str, last: dict[str, Any]) -> dict[str, Any]:
    known = {o.name: o for o in by_id(default).options}
    return {
        "required": {"image": IMAGE, "estimator": choice(listed, default), "resolution": resolution(0)},
        "optional": {
            **{n: option(known[n]) for n in ("steps", "ensemble_size", "seed", "processing_resolution")},
            **last,
        },
    }


class FathomMarigoldDepth(_DepthNode):
    """Marigold depth."""

    DISPLAY_NAME = "Fathom Marigold Depth"
    DESCRIPTION = (
        "Marigold (Ke et al., 2024): relative depth by diffusion, fine detail at the price of time. The same seed "
        "gives the same result."
    )
    SEARCH_ALIASES = ["marigold", "depth map", "depth", "diffusion depth"]
    DEFAULT = "marigold-depth"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return _marigold_inputs(cls.choices(), cls.DEFAULT, {"scope": SCOPE})

    def execute(
        self,
        image: Any,
        estimator: str,
        resolution: int = 0,
        scope: Scope = "image",
        steps: int = 0,
        ensemble_size: int = 1,
        seed: int = 0,
        processing_resolution: int = 768,
    ) -> tuple[Tensor, Depth]:
        options = {
            "steps": steps,
            "ensemble_size": ensemble_size,
            "seed": seed,
            "processing_resolution": processing_resolution,
        }
        depth = cast(Depth, run(estimator, image, resolution, options=options))
        return depth.to_image(scope), depth


class FathomMarigoldNormals(Node):
    """Marigold normals."""

    DISPLAY_NAME = "Fathom Marigold Normals"
    DESCRIPTION = "Marigold's surface normals by diffusion. The same seed gives the same result."
    CATEGORY = ESTIMATE_CATEGORY
    SEARCH_ALIASES = ["marigold", "normal map", "normals", "bump"]
    RETURN_TYPES = ("IMAGE", "FATHOM_NORMALS")
    RETURN_NAMES = ("image", "normals")
    OUTPUT_TOOLTIPS = _NORMAL_OUTPUTS
    DEFAULT = "marigold-normals"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        listed = _family("marigold", "normals")
        return _marigold_inputs(listed, cls.DEFAULT, {"convention": NORMAL_CONVENTION})

    def execute(
        self,
        image: Any,
        estimator: str,
        resolution: int = 0,
        steps: int = 0,
        ensemble_size: int = 1,
        seed: int = 0,
        processing_resolution: int = 768,
        convention: NormalConvention = "controlnet",
    ) -> tuple[Tensor, Normals]:
        options = {
            "steps": steps,
            "ensemble_size": ensemble_size,
            "seed": seed,
            "processing_resolution": processing_resolution,
        }
        normals = cast(Normals, run(estimator, image, resolution, options=options))
        return normals.to_image(convention), normals


class _MarigoldMaps(Node):
    """One of Marigold's decompositions: a picture of each of its maps."""

    CATEGORY = ESTIMATE_CATEGORY
    RETURN_NAMES: ClassVar[tuple[str, ...]]
    DEFAULT: ClassVar[str]

    @classmethod
    def inputs(cls, last: dict[str, Any]) -> dict[str, Any]:
        """What the node declares. last: inputs of its own."""
        listed = [id for id in _family("marigold", "intrinsics") if id.startswith(cls.DEFAULT)]
        return _marigold_inputs(listed, cls.DEFAULT, last)

    def execute(
        self,
        image: Any,
        estimator: str,
        resolution: int = 0,
        steps: int = 0,
        ensemble_size: int = 1,
        seed: int = 0,
        processing_resolution: int = 768,
        scope: Scope = "image",
        colour_space: ColourSpace = "srgb",
    ) -> tuple[Tensor, ...]:
        options = {
            "steps": steps,
            "ensemble_size": ensemble_size,
            "seed": seed,
            "processing_resolution": processing_resolution,
        }
        intrinsics = cast(Intrinsics, run(estimator, image, resolution, options=options))
        return tuple(intrinsics.to_image(name, colour_space, scope) for name in self.RETURN_NAMES)


class FathomMarigoldAppearance(_MarigoldMaps):
    """Marigold's decomposition into albedo, roughness and metallicity."""

    DISPLAY_NAME = "Fathom Marigold Appearance"
    DESCRIPTION = (
        "Marigold (Ke et al., 2025) tells what the surfaces of a picture are like whatever the light: their colour, "
        "how rough they are, whether they are metal. Trained on rooms. The same seed gives the same result."
    )
    SEARCH_ALIASES = [
        "marigold",
        "albedo",
        "roughness",
        "metallic",
        "metalness",
        "base color",
        "delight",
        "PBR",
        "material",
        "intrinsic image decomposition",
        "IID",
    ]
    RETURN_TYPES = ("IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("albedo", "roughness", "metallicity")
    OUTPUT_TOOLTIPS = (
        "The colour of the surfaces without light and shadow.",
        "How rough each surface is, as PBR materials take it: black is a mirror, white is matt.",
        "Where metal is: white is metal, black is anything else.",
    )
    PREVIEW = RETURN_NAMES
    DEFAULT = "marigold-appearance"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return cls.inputs({})


class FathomMarigoldLighting(_MarigoldMaps):
    """Marigold's decomposition into albedo, shading and residual."""

    DISPLAY_NAME = "Fathom Marigold Lighting"
    DESCRIPTION = (
        "Marigold (Ke et al., 2025) takes the light off a picture: the colour of the surfaces, the diffuse light on "
        "them, and what is left, such as highlights and lamps. In linear light, albedo x shading + residual gives the "
        "picture up to one factor. Trained on rooms. The same seed gives the same result."
    )
    SEARCH_ALIASES = [
        "marigold",
        "albedo",
        "shading",
        "residual",
        "relight",
        "delight",
        "remove shadows",
        "specular",
        "intrinsic image decomposition",
        "IID",
    ]
    RETURN_TYPES = ("IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("albedo", "shading", "residual")
    OUTPUT_TOOLTIPS = (
        "The colour of the surfaces without light and shadow.",
        "The diffuse light that falls on the surfaces, with its colour.",
        "What is neither: highlights, reflections, lamps.",
    )
    PREVIEW = RETURN_NAMES
    DEFAULT = "marigold-lighting"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return cls.inputs({"scope": SCOPE, "colour_space": COLOUR_SPACE})


class _NormalsNode(Node):
    """Normals by the estimators that a subclass lists."""

    CATEGORY = ESTIMATE_CATEGORY
    RETURN_TYPES = ("IMAGE", "FATHOM_NORMALS")
    RETURN_NAMES = ("image", "normals")
    OUTPUT_TOOLTIPS = _NORMAL_OUTPUTS
    SEARCH_ALIASES = [
        "normal",
        "normal map",
        "surface normal",
        "controlnet",
        "preprocessor",
        "bae",
        "normalbae",
        "bump",
    ]
    DEFAULT = "normal-bae"

    @classmethod
    def choices(cls) -> list[str]:
        """The ids that the node offers."""
        return ids("normals")


class FathomEstimateNormals(_NormalsNode):
    """Surface normals by any estimator."""

    DISPLAY_NAME = "Fathom Normal Map"
    DESCRIPTION = "Estimates which way every surface faces: a normal map for ControlNet, and the normals themselves."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE, "estimator": choice(cls.choices(), cls.DEFAULT), "resolution": resolution()},
            "optional": {"convention": NORMAL_CONVENTION, "options": OPTIONS},
        }

    def execute(
        self,
        image: Any,
        estimator: str,
        resolution: int = 512,
        convention: NormalConvention = "controlnet",
        options: str = "",
    ) -> tuple[Tensor, Normals]:
        normals = cast(Normals, run(estimator, image, resolution, "normals", by_id(estimator).parse(options)))
        return normals.to_image(convention), normals


class FathomNormalBae(_NormalsNode):
    """NormalBae."""

    DISPLAY_NAME = "Fathom NormalBae"
    DESCRIPTION = (
        "NormalBae (Bae et al., 2021): the surface normals that ControlNet 1.1's normal model was trained on. "
        "Any resolution; it was trained at 480x640."
    )

    @classmethod
    def choices(cls) -> list[str]:
        return _family(by_id(cls.DEFAULT).family, "normals")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE, "estimator": choice(cls.choices(), cls.DEFAULT), "resolution": resolution()},
            "optional": {"convention": NORMAL_CONVENTION},
        }

    def execute(
        self,
        image: Any,
        estimator: str,
        resolution: int = 512,
        convention: NormalConvention = "controlnet",
    ) -> tuple[Tensor, Normals]:
        normals = cast(Normals, run(estimator, image, resolution, "normals"))
        return normals.to_image(convention), normals


class FathomMiDaSDepth(Node):
    """MiDaS depth, its normal map and its foreground, from one forward."""

    DISPLAY_NAME = "Fathom MiDaS Depth"
    DESCRIPTION = (
        "MiDaS DPT (Ranftl et al., 2021), the annotator of the first depth and normal ControlNets. One run gives the "
        "depth map, the normal map and the foreground."
    )
    CATEGORY = ESTIMATE_CATEGORY
    SEARCH_ALIASES = ["midas", "dpt", "depth", "depth map", "disparity", "normal map", "controlnet"]
    RETURN_TYPES = ("IMAGE", "IMAGE", "MASK", "FATHOM_DEPTH")
    RETURN_NAMES = ("image", "normal_image", "foreground", "depth")
    OUTPUT_TOOLTIPS = (
        "The depth map, near is white.",
        "The normal map of the first normal ControlNet: slopes of the depth, set off by `a`.",
        "White where the depth reaches `bg_threshold`.",
        "The depth with its unit, for Fathom's depth tools.",
    )
    DEFAULT = "midas-dpt-hybrid"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE},
            "optional": {
                **midas_inputs(),
                "resolution": resolution(),
                "estimator": choice(_family("midas", "depth"), cls.DEFAULT),
                "scope": SCOPE,
            },
        }

    def execute(
        self,
        image: Any,
        a: float = 6.283185307179586,
        bg_threshold: float = 0.1,
        resolution: int = 512,
        estimator: str = DEFAULT,
        scope: Scope = "image",
    ) -> tuple[Tensor, Tensor, Tensor, Depth]:
        depth = cast(Depth, run(estimator, image, resolution))
        normals = sobel_normals(depth, a, bg_threshold)
        return depth.to_image(scope), normals.to_image(), foreground(depth, bg_threshold), depth


class FathomMiDaSNormal(Node):
    """The normal map of MiDaS's depth."""

    DISPLAY_NAME = "Fathom MiDaS Normal"
    DESCRIPTION = "The normal map that the first normal ControlNet was trained on: slopes of MiDaS's depth."
    CATEGORY = ESTIMATE_CATEGORY
    SEARCH_ALIASES = ["midas", "normal", "normal map", "bump", "controlnet"]
    RETURN_TYPES = ("IMAGE", "FATHOM_NORMALS", "FATHOM_DEPTH")
    RETURN_NAMES = ("image", "normals", "depth")
    OUTPUT_TOOLTIPS = (*_NORMAL_OUTPUTS, "The depth that the normals come from.")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE},
            "optional": {
                **midas_inputs(),
                "resolution": resolution(),
                "estimator": choice(_family("midas", "depth"), FathomMiDaSDepth.DEFAULT),
                "convention": NORMAL_CONVENTION,
            },
        }

    def execute(
        self,
        image: Any,
        a: float = 6.283185307179586,
        bg_threshold: float = 0.1,
        resolution: int = 512,
        estimator: str = FathomMiDaSDepth.DEFAULT,
        convention: NormalConvention = "controlnet",
    ) -> tuple[Tensor, Normals, Depth]:
        depth = cast(Depth, run(estimator, image, resolution))
        normals = sobel_normals(depth, a, bg_threshold)
        return normals.to_image(convention), normals, depth


def midas_inputs() -> dict[str, Any]:
    """The widgets `a` and `bg_threshold` of the MiDaS nodes."""
    about_a = "How flat the normal map is: higher means flatter. ControlNet used 2 pi."
    about_bg = "Depth below this share of the range counts as background: no slope there, and black in the mask."
    return {
        "a": (
            "FLOAT",
            {"default": 6.283185307179586, "min": 0.0, "max": 15.707963267948966, "step": 0.05, "tooltip": about_a},
        ),
        "bg_threshold": ("FLOAT", {"default": 0.1, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": about_bg}),
    }


class _SegmentNode(Node):
    """Regions by the estimators that a subclass lists."""

    CATEGORY = ESTIMATE_CATEGORY
    RETURN_TYPES = ("IMAGE", "FATHOM_SEGMENTATION", "STRING")
    RETURN_NAMES = ("image", "labels", "legend")
    OUTPUT_TOOLTIPS = _SEGMENTATION_OUTPUTS
    SEARCH_ALIASES = [
        "segmentation",
        "semantic segmentation",
        "seg",
        "regions",
        "controlnet",
        "preprocessor",
        "oneformer",
        "ade20k",
        "coco",
        "upernet",
        "uniformer",
    ]
    DEFAULT = "oneformer-ade20k"

    @classmethod
    def choices(cls) -> list[str]:
        """The ids that the node offers."""
        return ids("segmentation")


class FathomSegment(_SegmentNode):
    """Regions by any segmentation estimator."""

    DISPLAY_NAME = "Fathom Segment"
    DESCRIPTION = (
        "Tells which kind of thing every pixel shows, in the colours that segmentation ControlNets were trained on. "
        "Masks of single classes come from Fathom Class Mask."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE, "estimator": choice(cls.choices(), cls.DEFAULT), "resolution": resolution()},
            "optional": {"options": OPTIONS},
        }

    def execute(
        self, image: Any, estimator: str, resolution: int = 512, options: str = ""
    ) -> tuple[Tensor, Segmentation, str]:
        chosen = by_id(estimator).parse(options)
        found = cast(Segmentation, run(estimator, image, resolution, "segmentation", chosen))
        return found.to_image(), found, legend(found)


class FathomOneFormer(_SegmentNode):
    """OneFormer."""

    DISPLAY_NAME = "Fathom OneFormer"
    DESCRIPTION = "OneFormer (Jain et al., 2023) with Swin-L: 150 classes of ADE20K, or 133 of COCO."

    @classmethod
    def choices(cls) -> list[str]:
        return _family(by_id(cls.DEFAULT).family, "segmentation")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"image": IMAGE, "estimator": choice(cls.choices(), cls.DEFAULT), "resolution": resolution()}
        }

    def execute(self, image: Any, estimator: str, resolution: int = 512) -> tuple[Tensor, Segmentation, str]:
        found = cast(Segmentation, run(estimator, image, resolution, "segmentation"))
        return found.to_image(), found, legend(found)


def _classes() -> list[dict[str, str]]:
    """Every class of the data sets by its first name, and which of them have it."""
    found: dict[str, list[str]] = {}
    for title, name in (("ADE20K", "ade20k"), ("COCO", "coco_panoptic")):
        for every in Palette.named(name).names:
            found.setdefault(re.split("[,;]", every)[0].strip(), []).append(title)
    return [{"name": name, "about": ", ".join(sets)} for name, sets in sorted(found.items())]


class FathomClassMask(Node):
    """A mask of the classes that are named."""

    DISPLAY_NAME = "Fathom Class Mask"
    DESCRIPTION = (
        "Makes a mask of the classes you name, such as: person, sky. The legend of the segmentation lists them."
    )
    CATEGORY = ESTIMATE_CATEGORY
    SEARCH_ALIASES = [
        "sky mask",
        "mask by class",
        "semantic mask",
        "person mask",
        "class mask",
        "segment mask",
        "mask by name",
    ]
    RETURN_TYPES = ("MASK",)
    RETURN_NAMES = ("mask",)
    OUTPUT_TOOLTIPS = ("White where any of the classes is.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        about = "Class names of the data set, separated by commas; any synonym works. Numbers are labels."
        return {
            "required": {
                "labels": ("FATHOM_SEGMENTATION", {"tooltip": "From Fathom Segment or Fathom OneFormer."}),
                "classes": picker(("STRING", {"default": "person", "tooltip": about}), "classes", classes=_classes()),
            }
        }

    def execute(self, labels: Segmentation, classes: str) -> tuple[Tensor]:
        names = [part.strip() for part in classes.split(",") if part.strip()]
        return (labels.mask([int(n) if n.isdigit() else n for n in names]),)


class FathomCompareEstimators(Node):
    """Several estimators over one picture, side by side."""

    DISPLAY_NAME = "Fathom Compare Estimators"
    DESCRIPTION = "Runs several models over one picture and lays the results out side by side with their names."
    CATEGORY = ESTIMATE_CATEGORY
    SEARCH_ALIASES = ["compare", "contact sheet", "grid", "all preprocessors"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The picture and every result, each under its name.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        about = "Ids separated by commas. There are: " + ", ".join(estimators())
        return {
            "required": {
                "image": IMAGE,
                "estimators": (
                    "STRING",
                    {
                        "default": "fathom-tiny, depth-anything-v2-small",
                        "tooltip": about,
                        "estimators": estimator_facts(estimators()),
                    },
                ),
                "resolution": resolution(),
            }
        }

    def execute(self, image: Any, estimators: str, resolution: int = 512) -> tuple[Tensor]:
        names = [part.strip() for part in estimators.replace("\n", ",").split(",") if part.strip()]
        chosen = [by_id(name) for name in names]
        results = [(e.name, cache.take(e)(image, resolution).to_image()) for e in chosen]
        return (contact_sheet([("Picture", image), *results]).to(host.output_device()),)


NODES = (
    FathomEstimateDepth,
    FathomEstimateNormals,
    FathomSegment,
    FathomMiDaSDepth,
    FathomMiDaSNormal,
    FathomDepthAnythingV2,
    FathomDepthAnythingV2Metric,
    FathomDepthAnything,
    FathomZoeDepth,
    FathomMarigoldDepth,
    FathomMarigoldNormals,
    FathomMarigoldAppearance,
    FathomMarigoldLighting,
    FathomNormalBae,
    FathomLeReS,
    FathomOneFormer,
    FathomClassMask,
    FathomCompareEstimators,
)
