"""ComfyUI-DepthAnythingV3 (PozzettiAndrea): the loader, and depth of single pictures. What its other nodes do - several
views, gaussians, streaming - Fathom has not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ...annotator import host
from ...annotator.loading import cache
from ...annotator.runtime import Annotator
from ...errors import SettingError
from ...models import estimator as by_id
from ...signals import Depth
from .base import DropIn, by_file, chosen, combo, even, grey, switch

_CATEGORY = "image/depth"
_FILES: Mapping[str, str] = {
    "da3_small.safetensors": "depth-anything-3-small",
    "da3_base.safetensors": "depth-anything-3-base",
    "da3_large.safetensors": "depth-anything-3-large",
    "da3mono_large.safetensors": "depth-anything-3-mono-large",
    "da3metric_large.safetensors": "depth-anything-3-metric-large",
}
_PRECISIONS = {"auto": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_MODES = ["Standard", "V2-Style", "Raw"]
_ABSENT = "Fathom gives no rays, extrinsics or gaussians: install ComfyUI-DepthAnythingV3 for them."
_LONGEST = 2048  # what `process_res` goes to


class LoadDepthAnything3(DropIn):
    DISPLAY_NAME = "(Down)Load Depth Anything V3 Model"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Anything 3, which loads by itself."
    CATEGORY = _CATEGORY
    RETURN_TYPES = ("DA3MODEL",)
    RETURN_NAMES = ("da3_model",)
    OUTPUT_TOOLTIPS = ("For Depth Anything V3.",)
    DEFAULT = "da3_large.safetensors"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        attention = ["auto", "sdpa", "flash_attn", "sage"]
        return {
            "required": {"model": combo(list(_FILES), cls.DEFAULT, "Which model.")},
            "optional": {
                "precision": combo(list(_PRECISIONS), "auto", "What the network computes in; auto = Fathom's choice."),
                "attention": combo(attention, "auto", "No effect: torch chooses."),
            },
        }

    def execute(self, model: Any, precision: Any = "auto", attention: Any = "auto") -> tuple[Annotator]:
        if chosen(precision, "auto") not in _PRECISIONS:
            raise SettingError(f"precision must be one of {', '.join(_PRECISIONS)}, got {precision!r}.")
        id = by_file(model, _FILES, self.DEFAULT, "model")
        return (cache.take(by_id(id), _PRECISIONS[chosen(precision, "auto")]),)


class RunDepthAnything3(DropIn):
    DISPLAY_NAME = "Depth Anything V3"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Anything 3."
    CATEGORY = _CATEGORY
    RETURN_TYPES = (
        *("IMAGE",) * 5,
        *("STRING",) * 2,
        "MASK",
        "EXTRINSICS",
        "INTRINSICS",
        "STRING",
    )
    RETURN_NAMES = (
        "depth",
        "confidence",
        "resized_rgb_image",
        "ray_origin",
        "ray_direction",
        "extrinsics_json",
        "intrinsics_json",
        "sky_mask",
        "extrinsics",
        "intrinsics",
        "gaussian_ply_path",
    )
    OUTPUT_TOOLTIPS = (
        "The depth map.",
        "How sure the network is, each picture on its own range; white from models that do not tell.",
        "The picture at the size of the depth map.",
        *("Not given by Fathom.",) * 3,
        "The lens of each picture as a 3x3 matrix, from models that tell it.",
        "How likely a pixel is sky; black from models that do not tell.",
        *("Not given by Fathom.",) * 3,
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        methods = ["resize", "crop", "pad"]
        about_size = "No effect: Fathom's results have the picture's size, sides rounded down to even."
        return {
            "required": {
                "da3_model": ("DA3MODEL", {"tooltip": "From the loader."}),
                "images": ("IMAGE", {"tooltip": "The pictures."}),
                "normalization_mode": combo(_MODES, "V2-Style", "How depth becomes a picture."),
            },
            "optional": {
                "camera_params": ("CAMERA_PARAMS", {"tooltip": "Refused: Fathom takes no measured camera."}),
                "resize_method": combo(methods, "resize", "resize alone: the whole picture at multiples of 14."),
                "invert_depth": switch(False, "On: far is white."),
                "keep_model_size": switch(False, about_size),
            },
        }

    def execute(
        self,
        da3_model: Annotator,
        images: Tensor,
        normalization_mode: Any = "V2-Style",
        camera_params: Any = None,
        resize_method: Any = "resize",
        invert_depth: Any = False,
        keep_model_size: Any = False,
    ) -> tuple[Any, ...]:
        if (mode := chosen(normalization_mode, "V2-Style")) not in _MODES:
            raise SettingError(f"normalization_mode must be one of {', '.join(_MODES)}, got {normalization_mode!r}.")
        if camera_params is not None or chosen(resize_method, "resize") != "resize":
            raise SettingError(
                "Fathom runs DepthAnything_V3 without camera_params and with resize_method resize. For the rest "
                "install ComfyUI-DepthAnythingV3, which then takes this node over."
            )
        height, width = images.shape[1:3]
        scene = da3_model.annotate(images, 0, {"process_res": min(max(height, width), _LONGEST)})
        depth = cast(Depth, scene["depth"])
        sky = cast(Any, scene["sky"]).values if "sky" in scene else torch.zeros_like(depth.values)
        sure = torch.ones_like(sky) if depth.confidence is None else _spread(depth.confidence)
        size = even(height), even(width)
        planes = [_at(plane, size) for plane in (_drawn(depth.values, sky, mode, bool(invert_depth)), sure, sky)]
        picture = _at(images.movedim(-1, 1), size).movedim(1, -1).clamp(0, 1)
        absent = host.blocked(_ABSENT)
        lenses = _lenses(depth, size)
        return (
            grey(planes[0] if mode == "Raw" else planes[0].clamp(0, 1)),
            grey(planes[1].clamp(0, 1)),
            picture,
            absent,
            absent,
            absent,
            absent if lenses is None else json.dumps({"intrinsics": lenses}),
            planes[2].clamp(0, 1),
            absent,
            absent,
            absent,
        )


def _at(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,H,W) or (B,C,H,W) at another size."""
    if tuple(plane.shape[-2:]) == size:
        return plane
    stacked = plane if plane.ndim == 4 else plane[:, None]
    resized = F.interpolate(stacked, size, mode="bilinear")
    return resized if plane.ndim == 4 else resized[:, 0]


def _spread(field: Tensor) -> Tensor:
    low, high = field.amin((1, 2), keepdim=True), field.amax((1, 2), keepdim=True)
    return torch.where(high > low, (field - low) / (high - low).clamp_min(1e-8), torch.ones_like(field))


def _drawn(near: Tensor, sky: Tensor, mode: str, inverted: bool) -> Tensor:
    """Depth as that pack draws it. near: 1/distance."""
    distance = near.clamp_min(1e-6).reciprocal()
    if mode == "Raw":
        return distance.amax((1, 2), keepdim=True) - distance if inverted else distance
    if mode == "Standard":
        low, high = distance.amin((1, 2), keepdim=True), distance.amax((1, 2), keepdim=True)
        far = (distance - low) / (high - low).clamp_min(1e-8)
        return far if inverted else 1 - far
    ground = sky < 0.3
    low, high = _ends_of(near, ground)
    drawn = ((near - low) / (high - low).clamp_min(1e-6)).clamp(0, 1).sqrt() * _softened(ground)
    return 1 - drawn if inverted else drawn


def _ends_of(near: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """The 1st and 99th percentile of what is no sky, of all where that is too little; (B,1,1) each."""
    ends = []
    for field, inside in zip(near, ground, strict=True):
        kept = field[inside] if int(inside.sum()) > 100 else field.flatten()
        ordered = kept.sort().values
        ends.append(ordered[[int(len(ordered) * 0.01), min(int(len(ordered) * 0.99), len(ordered) - 1)]])
    both = torch.stack(ends)[..., None, None]
    return both[:, 0], both[:, 1]


def _softened(ground: Tensor) -> Tensor:
    """A mask whose border alone is blurred, over 3x3 pixels."""
    mask = ground[:, None].float()
    wide, narrow = F.max_pool2d(mask, 3, 1, 1), 1 - F.max_pool2d(1 - mask, 3, 1, 1)
    blurred = F.avg_pool2d(mask, 3, 1, 1)
    return torch.where(wide - narrow > 0.01, blurred, mask)[:, 0]


def _lenses(depth: Depth, size: tuple[int, int]) -> list[list[list[float]]] | None:
    """3x3 matrices at the size of the result; None where the network told no lens."""
    lens = depth.camera()
    if lens is None:
        return None
    height, width = depth.values.shape[1:]
    scale = torch.tensor([size[1] / width, size[0] / height])
    return [
        [[round(fx, 4), 0.0, size[1] / 2], [0.0, round(fy, 4), size[0] / 2], [0.0, 0.0, 1.0]]
        for fx, fy in (lens.cpu()[:, :2] * scale).tolist()
    ]


NODES: dict[str, type[DropIn]] = {
    "DownloadAndLoadDepthAnythingV3Model": LoadDepthAnything3,
    "DepthAnything_V3": RunDepthAnything3,
}
