"""The ids of older packs, hidden from menus, so that their graphs, API calls and Python callers run on Fathom.

Each class takes the names, order and defaults that the older node had, and gives its first output at the same size.
What those nodes did wrongly (8 bits, colours, an ignored resolution) is done rightly: docs/migration.md.

An id that another pack has registered is left to that pack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..annotator import host
from ..annotator.loading import cache
from ..annotator.runtime import Annotator
from ..errors import SettingError
from ..models import estimator as by_id
from ..signals import Depth, Normals, Segmentation
from ..tools.sobel import sobel_normals
from .base import Node
from .estimate import run
from .fields import DEPTH_CATEGORY, SEGMENTATION_CATEGORY

_PREFIX = "Inference_Core_"


class _Widget(str):
    """A widget type that ComfyUI shows and links as "INT", "FLOAT" ..., but leaves null values to the node.

    Graphs saved before a widget existed post null for it; ComfyUI's own conversion would refuse them.
    """

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return not str.__eq__(self, other)


def _number(kind: str, about: str, **limits: Any) -> tuple[str, dict[str, Any]]:
    return _Widget(kind), {**limits, "tooltip": about}


def _combo(values: list[str], default: str, about: str) -> tuple[list[str], dict[str, Any]]:
    return values, {"default": default, "tooltip": about}


_RESOLUTION = _number("INT", "Short side of the result.", default=512, min=64, max=16384, step=64)


class _DropIn(Node):
    """What every replaced node shares."""

    DEPRECATED = True
    CATEGORY = DEPTH_CATEGORY
    RETURN_TYPES: ClassVar[tuple[Any, ...]] = ("IMAGE",)
    OUTPUT_TOOLTIPS: tuple[str, ...] = ("What the node of this name gave, in float.",)
    PREVIEW = ()
    WIDGETS: Mapping[str, Any] = {}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE", {"tooltip": "The picture."})}, "optional": dict(cls.WIDGETS)}

    @classmethod
    def VALIDATE_INPUTS(cls, **_given: Any) -> bool:
        # Old graphs hold values outside of today's ranges; the node itself falls back as the old one did.
        return True


def _resolution(given: Any) -> int:
    """The old packs' rule: anything that is not a whole number of at least 64 means 512."""
    usable = isinstance(given, (int, float)) and not isinstance(given, bool) and given >= 64
    return int(given) if usable else 512


def _or(given: Any, default: Any) -> Any:
    return default if given is None else given


def _depth(id: str, image: Any, resolution: Any) -> Tensor:
    return cast(Depth, run(id, image, _resolution(resolution))).to_image()


class MiDaSDepth(_DropIn):
    DISPLAY_NAME = "MiDaS Depth Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom MiDaS Depth."
    WIDGETS = {
        "a": _number("FLOAT", "No effect on depth.", default=math.pi * 2, min=0.0, max=math.pi * 5, step=0.05),
        "bg_threshold": _number("FLOAT", "No effect on depth.", default=0.1, min=0.0, max=1.0, step=0.05),
        "resolution": _RESOLUTION,
    }

    def execute(
        self, image: Any, a: Any = math.pi * 2, bg_threshold: Any = 0.1, resolution: Any = 512, **_: Any
    ) -> tuple[Tensor]:
        return (_depth("midas-dpt-hybrid", image, resolution),)


class MiDaSNormal(MiDaSDepth):
    DISPLAY_NAME = "MiDaS Normal Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom MiDaS Normal."

    def execute(
        self, image: Any, a: Any = math.pi * 2, bg_threshold: Any = 0.1, resolution: Any = 512, **_: Any
    ) -> tuple[Tensor]:
        depth = cast(Depth, run("midas-dpt-hybrid", image, _resolution(resolution)))
        return (sobel_normals(depth, float(_or(a, math.pi * 2)), float(_or(bg_threshold, 0.1))).to_image(),)


def _by_file(name: Any, files: Mapping[str, str], default: str) -> str:
    name = _or(name, default)
    if name not in files:
        raise SettingError(f"ckpt_name must be one of {', '.join(files)}, got {name!r}.")
    return files[name]


class DepthAnything(_DropIn):
    DISPLAY_NAME = "Depth Anything"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Anything."
    DEFAULT = "depth_anything_vitl14.pth"
    FILES: Mapping[str, str] = {
        "depth_anything_vitl14.pth": "depth-anything-large",
        "depth_anything_vitb14.pth": "depth-anything-base",
        "depth_anything_vits14.pth": "depth-anything-small",
    }
    WIDGETS = {"ckpt_name": _combo(list(FILES), DEFAULT, "Which model."), "resolution": _RESOLUTION}

    def execute(self, image: Any, ckpt_name: Any = DEFAULT, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return (_depth(_by_file(ckpt_name, self.FILES, self.DEFAULT), image, resolution),)


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
    WIDGETS = {"ckpt_name": _combo(list(FILES), DEFAULT, "Which model."), "resolution": _RESOLUTION}

    def execute(self, image: Any, ckpt_name: Any = DEFAULT, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return super().execute(image, ckpt_name, resolution)


class ZoeDepth(_DropIn):
    DISPLAY_NAME = "Zoe Depth Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom ZoeDepth."
    WIDGETS = {"resolution": _RESOLUTION}

    def execute(self, image: Any, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return (_depth("zoedepth-n", image, resolution),)


class NormalBae(_DropIn):
    DISPLAY_NAME = "BAE Normal Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom NormalBae."
    WIDGETS = {"resolution": _RESOLUTION}

    def execute(self, image: Any, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return (cast(Normals, run("normal-bae", image, _resolution(resolution))).to_image(),)


class LeReS(_DropIn):
    DISPLAY_NAME = "LeReS Depth Map"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom LeReS."
    WIDGETS = {
        "rm_nearest": _number(
            "FLOAT",
            "Flatten the nearest share of the depth, in percent, to white.",
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.01,
        ),
        "rm_background": _number(
            "FLOAT", "Blacken the farthest share of the depth, in percent.", default=0.0, min=0.0, max=100.0, step=0.01
        ),
        "boost": _combo(["disable", "enable"], "disable", "LeReS++: two sizes and patches, merged. Slow."),
        "resolution": _RESOLUTION,
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
        if (cut := float(_or(rm_nearest, 0))) != 0:
            near = near.masked_fill(1 - near <= cut / 100, 1.0)
        if (cut := float(_or(rm_background, 0))) != 0:
            near = near.masked_fill(near <= cut / 100, 0.0)
        return (near,)


class _Segment(_DropIn):
    CATEGORY = SEGMENTATION_CATEGORY
    METHOD = "semantic_segmentate"
    WIDGETS = {"resolution": _RESOLUTION}
    ID = ""

    def semantic_segmentate(self, image: Any, resolution: Any = 512) -> tuple[Tensor]:
        return (cast(Segmentation, run(self.ID, image, _resolution(resolution))).to_image(),)


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
    DESCRIPTION = (
        "Runs old graphs with the light ADE20K model: UniFormer's code has no maintained home. In new graphs use "
        "Fathom Segment."
    )
    ID = "upernet-convnext-tiny"


PREPROCESSORS: dict[str, type[_DropIn]] = {
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
_CHOICES = ["none", *PREPROCESSORS]


def _preprocessor(name: Any) -> type[_DropIn] | None:
    if name in (None, "none"):
        return None
    if name not in PREPROCESSORS:
        raise SettingError(
            f"Fathom has no preprocessor {name!r}; it has {', '.join(PREPROCESSORS)}. For others install "
            "comfyui_controlnet_aux, which then takes this node over."
        )
    return PREPROCESSORS[name]


class AIOPreprocessor(_DropIn):
    DISPLAY_NAME = "AIO Aux Preprocessor"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Estimate Depth, Fathom Estimate Normals or Fathom Segment."
    CATEGORY = "ControlNet Preprocessors"
    WIDGETS = {
        "preprocessor": _combo(_CHOICES, "none", "Which preprocessor; none hands the picture on."),
        "resolution": _RESOLUTION,
    }

    def execute(self, preprocessor: Any = "none", image: Any = None, resolution: Any = 512) -> tuple[Tensor]:
        node = _preprocessor(preprocessor)
        if node is None:
            return (image,)
        return getattr(node(), node.METHOD)(image=image, resolution=resolution)


class PreprocessorSelector(_DropIn):
    DISPLAY_NAME = "Preprocessor Selector"
    DESCRIPTION = "Runs old graphs: hands the name of a preprocessor to AIO Aux Preprocessor."
    CATEGORY = "ControlNet Preprocessors"
    RETURN_TYPES = (_CHOICES,)
    RETURN_NAMES = ("preprocessor",)
    OUTPUT_TOOLTIPS = ("For AIO Aux Preprocessor.",)
    METHOD = "get_preprocessor"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"preprocessor": _combo(_CHOICES, "none", "Which preprocessor.")}}

    def get_preprocessor(self, preprocessor: Any) -> tuple[str]:
        _preprocessor(preprocessor)
        return (_or(preprocessor, "none"),)


# ------------------------------------------------------------------------------- kijai's packs

_DAV2_IDS = {"vits": "small", "vitb": "base", "vitl": "large", "vitg": "giant"}
_DAV2_FILES = {
    **{
        f"depth_anything_v2_{size}_{precision}.safetensors": f"depth-anything-v2-{name}"
        for size, name in _DAV2_IDS.items()
        for precision in (("fp16", "fp32") if size != "vitg" else ("fp32",))
    },
    "depth_anything_v2_metric_hypersim_vitl_fp32.safetensors": "depth-anything-v2-metric-indoor-large",
    "depth_anything_v2_metric_vkitti_vitl_fp32.safetensors": "depth-anything-v2-metric-outdoor-large",
}
_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class LoadDepthAnythingV2(_DropIn):
    DISPLAY_NAME = "DownloadAndLoadDepthAnythingV2Model"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Anything V2, which loads by itself."
    CATEGORY = "DepthAnythingV2"
    RETURN_TYPES = ("DAMODEL",)
    RETURN_NAMES = ("da_v2_model",)
    OUTPUT_TOOLTIPS = ("For Depth Anything V2.",)
    METHOD = "loadmodel"
    DEFAULT = "depth_anything_v2_vitl_fp32.safetensors"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        precisions = _combo(["auto", "bf16", "fp16", "fp32"], "auto", "What the network computes in; auto = float32.")
        return {
            "required": {"model": _combo(list(_DAV2_FILES), cls.DEFAULT, "Which model.")},
            "optional": {"precision": precisions},
        }

    def loadmodel(self, model: Any, precision: Any = "fp32") -> tuple[Annotator]:
        id = _by_file(model, _DAV2_FILES, self.DEFAULT)
        if precision == "auto":
            precision = "fp16" if "fp16" in _or(model, "") and host.device().type != "cpu" else "fp32"
        return (cache.take(by_id(id), _PRECISIONS[_or(precision, "fp32")]),)


class RunDepthAnythingV2(_DropIn):
    DISPLAY_NAME = "Depth Anything V2"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Anything V2."
    CATEGORY = "DepthAnythingV2"
    RETURN_NAMES = ("image",)
    METHOD = "process"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "da_model": ("DAMODEL", {"tooltip": "From DownloadAndLoadDepthAnythingV2Model."}),
                "images": ("IMAGE", {"tooltip": "The pictures."}),
            }
        }

    def process(self, da_model: Annotator, images: Any) -> tuple[Tensor]:
        depth = cast(Depth, da_model(images, 0)).to_image()
        # The old node gave even sides, for video encoders.
        size = max(depth.shape[1] // 2 * 2, 1), max(depth.shape[2] // 2 * 2, 1)
        if depth.shape[1:3] != size:
            depth = F.interpolate(depth.permute(0, 3, 1, 2), size, mode="bilinear").permute(0, 2, 3, 1)
        return (depth,)


_MARIGOLD = {
    "prs-eth/marigold-depth-v1-1": "marigold-depth",
    "prs-eth/marigold-depth-lcm-v1-0": "marigold-depth-lcm",
    "prs-eth/marigold-normals-v1-1": "marigold-normals",
}


class LoadMarigold(_DropIn):
    DISPLAY_NAME = "MarigoldModelLoader"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Marigold Depth, which loads by itself."
    CATEGORY = "Marigold"
    RETURN_TYPES = ("MARIGOLDMODEL",)
    RETURN_NAMES = ("marigold_model",)
    OUTPUT_TOOLTIPS = ("For MarigoldDepthEstimation_v2.",)
    METHOD = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        listed = list(_MARIGOLD)
        return {"required": {"model": _combo(listed, listed[1], "Which model.")}}

    def load(self, model: Any) -> tuple[Annotator]:
        if model not in _MARIGOLD:
            raise SettingError(f"Fathom runs {', '.join(_MARIGOLD)}, got {model!r}.")
        return (cache.take(by_id(_MARIGOLD[model])),)


class RunMarigold(_DropIn):
    DISPLAY_NAME = "MarigoldDepthEstimation_v2"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Marigold Depth or Fathom Marigold Normals."
    CATEGORY = "Marigold"
    RETURN_NAMES = ("image",)
    METHOD = "process"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        widgets = {
            "seed": (
                "INT",
                {"default": 123, "min": 0, "max": 2**64 - 1, "step": 1, "tooltip": "Same seed, same result."},
            ),
            "denoise_steps": ("INT", {"default": 4, "min": 1, "max": 4096, "step": 1, "tooltip": "Denoising steps."}),
            "ensemble_size": ("INT", {"default": 3, "min": 1, "max": 4096, "step": 1, "tooltip": "Results to merge."}),
            "processing_resolution": (
                "INT",
                {"default": 768, "min": 64, "max": 4096, "step": 8, "tooltip": "Long side inside the network."},
            ),
            "scheduler": _combo(["DDIMScheduler", "LCMScheduler"], "LCMScheduler", "No effect, as in the old node."),
            "use_taesd_vae": (
                "BOOLEAN",
                {"default": False, "tooltip": "Ignored: Fathom uses the model's own decoder."},
            ),
        }
        keep = ("BOOLEAN", {"default": False, "tooltip": "Ignored: ComfyUI decides what stays loaded."})
        return {
            "required": {
                "marigold_model": ("MARIGOLDMODEL", {"tooltip": "From MarigoldModelLoader."}),
                "image": ("IMAGE", {"tooltip": "The pictures."}),
                **widgets,
            },
            "optional": {"keep_model_loaded": keep},
        }

    def process(
        self,
        marigold_model: Annotator,
        image: Any,
        seed: int,
        denoise_steps: int,
        processing_resolution: int,
        ensemble_size: int,
        scheduler: str,
        use_taesd_vae: bool,
        keep_model_loaded: bool = False,
    ) -> tuple[Tensor]:
        result = marigold_model(
            image,
            0,
            steps=denoise_steps,
            ensemble_size=ensemble_size,
            seed=seed,
            processing_resolution=processing_resolution,
        )
        return (cast("Depth | Normals", result).to_image(),)


_OTHERS: dict[str, type[_DropIn]] = {
    "AIO_Preprocessor": AIOPreprocessor,
    "ControlNetPreprocessorSelector": PreprocessorSelector,
}
DROP_INS: dict[str, type[_DropIn]] = {
    **PREPROCESSORS,
    **_OTHERS,
    **{_PREFIX + id: node for id, node in {**PREPROCESSORS, **_OTHERS}.items()},
    "DownloadAndLoadDepthAnythingV2Model": LoadDepthAnythingV2,
    "DepthAnything_V2": RunDepthAnythingV2,
    "MarigoldModelLoader": LoadMarigold,
    "MarigoldDepthEstimation_v2": RunMarigold,
}


def free(held: Callable[[str], bool]) -> dict[str, type[_DropIn]]:
    """The drop-ins whose ids nobody holds; held(id) tells whether another pack does."""
    return {id: node for id, node in DROP_INS.items() if not held(id)}
