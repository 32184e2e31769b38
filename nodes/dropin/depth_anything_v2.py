"""ComfyUI-DepthAnythingV2 (kijai) and ComfyUI-Depth-Anything-Tensorrt (yuvraj108c)."""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from torch import Tensor

from ...annotator import host
from ...annotator.loading import cache
from ...annotator.runtime import Annotator
from ...errors import SettingError
from ...models import estimator as by_id
from ...signals import Depth
from ..estimate import run
from .base import DropIn, by_file, chosen, combo, with_even_sides

_SIZES = {"vits": "small", "vitb": "base", "vitl": "large", "vitg": "giant"}
_FILES = {
    **{
        f"depth_anything_v2_{size}_{precision}.safetensors": f"depth-anything-v2-{name}"
        for size, name in _SIZES.items()
        for precision in (("fp16", "fp32") if size != "vitg" else ("fp32",))
    },
    "depth_anything_v2_metric_hypersim_vitl_fp32.safetensors": "depth-anything-v2-metric-indoor-large",
    "depth_anything_v2_metric_vkitti_vitl_fp32.safetensors": "depth-anything-v2-metric-outdoor-large",
}
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class LoadDepthAnythingV2(DropIn):
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
        precisions = combo(["auto", "bf16", "fp16", "fp32"], "auto", "What the network computes in; auto = float32.")
        return {
            "required": {"model": combo(list(_FILES), cls.DEFAULT, "Which model.")},
            "optional": {"precision": precisions},
        }

    def loadmodel(self, model: Any, precision: Any = "fp32") -> tuple[Annotator]:
        id = by_file(model, _FILES, self.DEFAULT, "model")
        if precision == "auto":
            precision = "fp16" if "fp16" in chosen(model, "") and host.device().type != "cpu" else "fp32"
        if (precision := chosen(precision, "fp32")) not in PRECISIONS:
            raise SettingError(f"precision must be one of auto, {', '.join(PRECISIONS)}, got {precision!r}.")
        return (cache.take(by_id(id), PRECISIONS[precision]),)


class RunDepthAnythingV2(DropIn):
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
        return (with_even_sides(cast(Depth, da_model(images, 0))).to_image(),)


_ENGINES = [
    *(f"v1_depth_anything_vit{size}14-fp16.engine" for size in "sbl"),
    *(f"v2_depth_anything_vit{size}-fp16.engine" for size in "sbl"),
    "v2_depth_anything_metric_hypersim_vitl-fp16.engine",
    "v2_depth_anything_metric_vkitti_vitl-fp16.engine",
    "DA3Mono-Large-fp16.engine",
    "DA3Metric-Large-fp16.engine",
]


def engine_id(engine: Any) -> str:
    """The estimator whose network a TensorRT engine holds, by the engine's name: nothing else tells it. Raises
    SettingError where the name does not."""
    name = str(engine).lower()
    if "da3" in name and (kind := re.search("mono|metric", name)):
        return f"depth-anything-3-{kind[0]}-large"
    size = re.search(r"vit[sblg](?![a-z])", name)
    if size and "distill" not in name and "da3" not in name and "depth_anything" in name:
        if domain := re.search("hypersim|vkitti", name):
            return f"depth-anything-v2-metric-{'indoor' if domain[0] == 'hypersim' else 'outdoor'}-{_SIZES[size[0]]}"
        if re.search("v2", name):
            return f"depth-anything-v2-{_SIZES[size[0]]}"
        if size[0] != "vitg" and f"{size[0]}14" in name:
            return f"depth-anything-{_SIZES[size[0]]}"
    raise SettingError(
        f"engine {engine!r}: its name does not tell a network that Fathom has. It runs the networks of names such as "
        f"{', '.join(_ENGINES[i] for i in (0, 3, 6, 8))}, from their published weights and without TensorRT."
    )


class DepthAnythingTensorrt(DropIn):
    """Engines stand for the networks they were made of."""

    DISPLAY_NAME = "Depth Anything Tensorrt"
    DESCRIPTION = (
        "Runs old graphs: the network that the engine was made of, without TensorRT. In new ones use Fathom Depth "
        "Anything V2 or Fathom Depth Map."
    )
    CATEGORY = "tensorrt"
    METHOD = "main"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The pictures."}),
                "engine": combo(_ENGINES, _ENGINES[3], "Whose network; the engine's file is not needed."),
            }
        }

    def main(self, images: Any, engine: Any) -> tuple[Tensor]:
        return (cast(Depth, run(engine_id(engine), images, 0, "depth")).to_image(),)


NODES: dict[str, type[DropIn]] = {
    "DownloadAndLoadDepthAnythingV2Model": LoadDepthAnythingV2,
    "DepthAnything_V2": RunDepthAnythingV2,
    "DepthAnythingTensorrt": DepthAnythingTensorrt,
}
