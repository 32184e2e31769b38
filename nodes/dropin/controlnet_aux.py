"""comfyui_controlnet_aux (Fannovel16), and its fork ComfyUI-Inference-Core-Nodes: names, order and defaults of its
node_wrappers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from ...errors import SettingError
from ...signals import Depth, Normals, Segmentation
from ...tools.sobel import sobel_normals
from ..estimate import run
from ..fields import SEGMENTATION_CATEGORY
from . import lines
from .base import RESOLUTION, DropIn, by_file, chosen, combo, number, short_side, value

_ROOT = "ControlNet Preprocessors"
_TWO_PI = math.pi * 2


def _depth(id: str, image: Any, resolution: Any) -> Tensor:
    return cast(Depth, run(id, image, short_side(resolution))).to_image()


class MiDaSDepth(DropIn):
    DISPLAY_NAME = "MiDaS Depth Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom MiDaS Depth."
    WIDGETS = {
        "a": number("FLOAT", "No effect on depth.", default=_TWO_PI, min=0.0, max=math.pi * 5, step=0.05),
        "bg_threshold": number("FLOAT", "No effect on depth.", default=0.1, min=0.0, max=1.0, step=0.05),
        "resolution": RESOLUTION,
    }

    def execute(
        self, image: Any, a: Any = _TWO_PI, bg_threshold: Any = 0.1, resolution: Any = 512, **_: Any
    ) -> tuple[Tensor]:
        return (_depth("midas-dpt-hybrid", image, resolution),)


class MiDaSNormal(MiDaSDepth):
    DISPLAY_NAME = "MiDaS Normal Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom MiDaS Normal."

    def execute(
        self, image: Any, a: Any = _TWO_PI, bg_threshold: Any = 0.1, resolution: Any = 512, **_: Any
    ) -> tuple[Tensor]:
        depth = cast(Depth, run("midas-dpt-hybrid", image, short_side(resolution)))
        return (sobel_normals(depth, value("a", a, _TWO_PI), value("bg_threshold", bg_threshold, 0.1)).to_image(),)


class DepthAnything(DropIn):
    DISPLAY_NAME = "Depth Anything"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Anything."
    DEFAULT = "depth_anything_vitl14.pth"
    FILES: Mapping[str, str] = {
        "depth_anything_vitl14.pth": "depth-anything-large",
        "depth_anything_vitb14.pth": "depth-anything-base",
        "depth_anything_vits14.pth": "depth-anything-small",
    }
    WIDGETS = {"ckpt_name": combo(list(FILES), DEFAULT, "Which model."), "resolution": RESOLUTION}

    def execute(self, image: Any, ckpt_name: Any = DEFAULT, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return (_depth(by_file(ckpt_name, self.FILES, self.DEFAULT), image, resolution),)


class DepthAnythingV2(DepthAnything):
    DISPLAY_NAME = "Depth Anything V2 - Relative"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Anything V2."
    DEFAULT = "depth_anything_v2_vitl.pth"
    FILES = {
        "depth_anything_v2_vitg.pth": "depth-anything-v2-giant",
        "depth_anything_v2_vitl.pth": "depth-anything-v2-large",
        "depth_anything_v2_vitb.pth": "depth-anything-v2-base",
        "depth_anything_v2_vits.pth": "depth-anything-v2-small",
    }
    WIDGETS = {"ckpt_name": combo(list(FILES), DEFAULT, "Which model."), "resolution": RESOLUTION}

    def execute(self, image: Any, ckpt_name: Any = DEFAULT, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return super().execute(image, ckpt_name, resolution)


class DepthAnythingV2Metric(DropIn):
    """Written in that pack, never registered by it, and posted by public graphs of its forks all the same."""

    DISPLAY_NAME = "Depth Anything V2 - Metric"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Anything V2 Metric."
    FILES: Mapping[str, str] = {
        "indoor": "depth-anything-v2-metric-indoor-large",
        "outdoor": "depth-anything-v2-metric-outdoor-large",
    }
    WIDGETS = {
        "environment": combo(list(FILES), "indoor", "Rooms, or streets."),
        "max_depth": number(
            "FLOAT", "No effect: the picture spans the depths that occur.", default=20.0, min=0, max=100, step=0.01
        ),
        "resolution": RESOLUTION,
    }

    def execute(
        self, image: Any, environment: Any = "indoor", max_depth: Any = 20.0, resolution: Any = 512, **_: Any
    ) -> tuple[Tensor]:
        return (_depth(by_file(environment, self.FILES, "indoor", "environment"), image, resolution),)


class ZoeDepth(DropIn):
    DISPLAY_NAME = "Zoe Depth Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom ZoeDepth."
    WIDGETS = {"resolution": RESOLUTION}

    def execute(self, image: Any, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return (_depth("zoedepth-n", image, resolution),)


class NormalBae(DropIn):
    DISPLAY_NAME = "BAE Normal Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom NormalBae."
    WIDGETS = {"resolution": RESOLUTION}

    def execute(self, image: Any, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return (cast(Normals, run("normal-bae", image, short_side(resolution))).to_image(),)


class LeReS(DropIn):
    DISPLAY_NAME = "LeReS Depth Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom LeReS."
    WIDGETS = {
        "rm_nearest": number(
            "FLOAT",
            "Flatten the nearest share of the depth, in percent, to white.",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.01,
        ),
        "rm_background": number(
            "FLOAT", "Blacken the farthest share of the depth, in percent.", default=0.0, min=0.0, max=100.0, step=0.01
        ),
        "boost": combo(["disable", "enable"], "disable", "LeReS++: two sizes and patches, merged. Slow."),
        "resolution": RESOLUTION,
    }

    def execute(
        self,
        image: Any,
        rm_nearest: Any = 0,
        rm_background: Any = 0,
        resolution: Any = 512,
        boost: Any = "disable",
        **_: Any,
    ) -> tuple[Tensor]:
        near = _depth("leres-boost" if boost == "enable" else "leres", image, resolution)
        # The old node cut on distance first, where near is 0, and made what it cut white when it inverted.
        if (cut := value("rm_nearest", rm_nearest, 0)) != 0:
            near = near.masked_fill(1 - near <= cut / 100, 1.0)
        if (cut := value("rm_background", rm_background, 0)) != 0:
            near = near.masked_fill(near <= cut / 100, 0.0)
        return (near,)


class _Segment(DropIn):
    CATEGORY = SEGMENTATION_CATEGORY
    METHOD = "semantic_segmentate"
    WIDGETS = {"resolution": RESOLUTION}
    ID = ""

    def semantic_segmentate(self, image: Any, resolution: Any = 512) -> tuple[Tensor]:
        return (cast(Segmentation, run(self.ID, image, short_side(resolution))).to_image(),)


class OneFormerADE20K(_Segment):
    DISPLAY_NAME = "OneFormer ADE20K Segmentor"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom OneFormer."
    ID = "oneformer-ade20k"


class OneFormerCOCO(_Segment):
    DISPLAY_NAME = "OneFormer COCO Segmentor"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom OneFormer."
    ID = "oneformer-coco"


class UniFormer(_Segment):
    DISPLAY_NAME = "UniFormer Segmentor"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Segment with uniformer-ade20k."
    ID = "uniformer-ade20k"


# Depth, normals and regions: what the setting may take over while the pack itself is there.
MAPS: dict[str, type[DropIn]] = {
    "MiDaS-DepthMapPreprocessor": MiDaSDepth,
    "MiDaS-NormalMapPreprocessor": MiDaSNormal,
    "DepthAnythingPreprocessor": DepthAnything,
    "DepthAnythingV2Preprocessor": DepthAnythingV2,
    "Zoe-DepthMapPreprocessor": ZoeDepth,
    "BAE-NormalMapPreprocessor": NormalBae,
    "OneFormer-ADE20K-SemSegPreprocessor": OneFormerADE20K,
    "OneFormer-COCO-SemSegPreprocessor": OneFormerCOCO,
    "UniFormer-SemSegPreprocessor": UniFormer,
    "SemSegPreprocessor": UniFormer,
    "LeReS-DepthMapPreprocessor": LeReS,
}
PREPROCESSORS: dict[str, type[DropIn]] = {**MAPS, **lines.PREPROCESSORS}
FORKS: dict[str, type[DropIn]] = {"Metric_DepthAnythingV2Preprocessor": DepthAnythingV2Metric}
_CHOICES = ["none", *PREPROCESSORS]
# These ids stay unregistered, so that ComfyUI and its Manager name the pack that is missing; where a graph gives the
# name as a value, this is the answer.
NEAR: dict[str, str] = {
    **lines.NEAR,
    "Zoe_DepthAnythingPreprocessor": "It is ZoeDepth's head on Depth Anything 1 in metres, whose weights nothing else "
    "reads; near to it is Metric_DepthAnythingV2Preprocessor, the authors' later network for metres.",
    "Metric3D-DepthMapPreprocessor": "Metric3D computes metres from the focal length it is given; near to it is "
    "Fathom MoGe, which finds metres and the focal length by itself: other numbers.",
    "Metric3D-NormalMapPreprocessor": "Near to Metric3D's normals are Fathom MoGe's and BAE-NormalMapPreprocessor's, "
    "the latter those that control models know: other numbers.",
    "DSINE-NormalMapPreprocessor": "Near to DSINE is its author's earlier network, BAE-NormalMapPreprocessor, which "
    "control models were trained with; it takes no field of view, and its normals are softer.",
    "MeshGraphormer-DepthMapPreprocessor": "It fits a mesh to hands and draws that mesh's depth alone. No estimator of "
    "Fathom does so: a depth of the whole picture shows hands too, but does not repair them.",
}


def _preprocessor(name: Any) -> type[DropIn] | None:
    if name in (None, "none"):
        return None
    if name in FORKS:
        return FORKS[name]
    if name not in PREPROCESSORS:
        near = f"{NEAR[name]} " if name in NEAR else f"It has {', '.join(PREPROCESSORS)}. "
        raise SettingError(
            f"Fathom has no preprocessor {name!r}. {near}For {name!r} itself install comfyui_controlnet_aux, "
            "which then takes this node over."
        )
    return PREPROCESSORS[name]


class AIOPreprocessor(DropIn):
    DISPLAY_NAME = "AIO Aux Preprocessor"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Map, Fathom Normal Map or Fathom Segment."
    CATEGORY = _ROOT
    WIDGETS = {
        "preprocessor": combo(_CHOICES, "none", "Which preprocessor; none hands the picture on."),
        "resolution": RESOLUTION,
    }

    def execute(self, preprocessor: Any = "none", image: Any = None, resolution: Any = 512) -> tuple[Tensor]:
        node = _preprocessor(preprocessor)
        if node is None:
            return (image,)
        return getattr(node(), node.METHOD)(image=image, resolution=resolution)


class PreprocessorSelector(DropIn):
    DISPLAY_NAME = "Preprocessor Selector"
    DESCRIPTION = "Runs old graphs: hands the name of a preprocessor to AIO Aux Preprocessor."
    CATEGORY = _ROOT
    RETURN_TYPES = (_CHOICES,)
    RETURN_NAMES = ("preprocessor",)
    OUTPUT_TOOLTIPS = ("For AIO Aux Preprocessor.",)
    METHOD = "get_preprocessor"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"preprocessor": combo(_CHOICES, "none", "Which preprocessor.")}}

    def get_preprocessor(self, preprocessor: Any) -> tuple[str]:
        _preprocessor(preprocessor)
        return (chosen(preprocessor, "none"),)


_MODES = ["Just Resize", "Crop and Resize", "Resize and Fill"]


class PixelPerfectResolution(DropIn):
    """The `resolution` at which a preprocessor's result fits a picture to be generated without being resized again."""

    DISPLAY_NAME = "Pixel Perfect Resolution"
    DESCRIPTION = "Runs old graphs: the short side that fits the picture to be generated, for `resolution`."
    CATEGORY = _ROOT
    RETURN_TYPES = ("INT",)
    RETURN_NAMES = ("RESOLUTION (INT)",)
    OUTPUT_TOOLTIPS = ("For the resolution of a preprocessor, or of any Fathom node.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 512, "min": 64, "max": 8192, "step": 8}
        return {
            "required": {
                "original_image": ("IMAGE", {"tooltip": "The picture that the preprocessor gets."}),
                "image_gen_width": number("INT", "Width of the picture to be generated.", **side),
                "image_gen_height": number("INT", "Height of the picture to be generated.", **side),
                "resize_mode": combo(_MODES, _MODES[0], "How the control picture is brought to that size later."),
            }
        }

    def execute(
        self, original_image: Tensor, image_gen_width: Any, image_gen_height: Any, resize_mode: Any
    ) -> tuple[int]:
        if chosen(resize_mode, _MODES[0]) not in _MODES:
            raise SettingError(f"resize_mode must be one of {', '.join(_MODES)}, got {resize_mode!r}.")
        height, width = original_image.shape[1:3]
        scales = (
            value("image_gen_height", image_gen_height, 512) / height,
            value("image_gen_width", image_gen_width, 512) / width,
        )
        scale = min(scales) if resize_mode == "Resize and Fill" else max(scales)
        return (round(scale * min(height, width)),)


class _Sides(DropIn):
    CATEGORY = _ROOT
    RETURN_TYPES = ("INT", "INT")
    RETURN_NAMES = ("IMAGE_GEN_WIDTH (INT)", "IMAGE_GEN_HEIGHT (INT)")
    OUTPUT_TOOLTIPS = ("Width in pixels.", "Height in pixels.")


class ImageGenResolutionFromImage(_Sides):
    DISPLAY_NAME = "Generation Resolution From Image"
    DESCRIPTION = "Runs old graphs: width and height of a picture."

    def execute(self, image: Tensor) -> tuple[int, int]:
        return image.shape[2], image.shape[1]


class ImageGenResolutionFromLatent(_Sides):
    DISPLAY_NAME = "Generation Resolution From Latent"
    DESCRIPTION = "Runs old graphs: width and height of the picture that a latent stands for, at 8 pixels a cell."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"latent": ("LATENT", {"tooltip": "The latent."})}}

    def execute(self, latent: Mapping[str, Tensor]) -> tuple[int, int]:
        if not isinstance(samples := latent.get("samples"), Tensor) or samples.ndim < 2:
            raise SettingError("latent: expected a latent of ComfyUI's, whose samples are a tensor.")
        height, width = samples.shape[-2:]
        return width * 8, height * 8


OTHERS: dict[str, type[DropIn]] = {
    "AIO_Preprocessor": AIOPreprocessor,
    "ControlNetPreprocessorSelector": PreprocessorSelector,
}
SIZES: dict[str, type[DropIn]] = {
    "PixelPerfectResolution": PixelPerfectResolution,
    "ImageGenResolutionFromImage": ImageGenResolutionFromImage,
    "ImageGenResolutionFromLatent": ImageGenResolutionFromLatent,
}
