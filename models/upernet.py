"""UPerNet on ConvNeXt-T: a light, freely licensed ADE20K segmentation (Xiao et al., ECCV 2018; Liu et al., CVPR 2022).

Network: transformers' UperNetForSemanticSegmentation; weights of OpenMMLab's repository on the Hugging Face Hub. The
published rule of that repository squashes the picture to 512x512. Where the user asks for a resolution, the network
sees the picture in its own aspect instead, by the test rule of mmsegmentation, which trained it: short side 512, long
side at most 2048.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence
from ..annotator.filters import argmax_at
from ..annotator.sizing import Fit, Size
from ..annotator.weights import Checkpoint
from ..signals import Palette, Segmentation
from ._enlarged import convolve_enlarged
from ._sources import published
from .oneformer import labelling_memory

_CONVNEXT_TINY = {"depths": [3, 3, 9, 3], "hidden_sizes": [96, 192, 384, 768]}


class UperNet(nn.Module):
    """Input: (B,3,h,w) normalised. Output: class scores (B,150,h,w), float32, enlarged from a quarter of that."""

    def __init__(self, backbone: Mapping[str, Any], width: int, classes: int) -> None:
        super().__init__()
        from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

        stages = [f"stage{i + 1}" for i in range(len(backbone["depths"]))]
        settings: dict[str, Any] = {
            "backbone_config": ConvNextConfig(**{**backbone, "out_features": stages}),
            **{"hidden_size": width, "num_labels": classes, "use_auxiliary_head": False},
        }
        config = UperNetConfig(**settings)
        whole = UperNetForSemanticSegmentation(config)
        self.backbone: Any = whole.backbone
        self.decode_head: Any = whole.decode_head

    def forward(self, pixels: Tensor) -> Tensor:
        """(B,3,h,w) normalised -> class scores (B,150,h,w)."""
        scores = self._scores(self.backbone(pixels).feature_maps).float()
        return F.interpolate(scores, pixels.shape[-2:], mode="bilinear", align_corners=False)

    def _scores(self, features: Sequence[Tensor]) -> Tensor:
        """The forward of transformers' UperNetHead, but for how its last convolution sees the coarser maps: that one
        takes most of the time, since it runs over all of them joined and enlarged to the finest."""
        head = self.decode_head
        maps = [*(mix(x) for mix, x in zip(head.lateral_convs, features, strict=False)), head.psp_forward(features)]
        sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        for level in range(len(maps) - 1, 0, -1):
            coarser = F.interpolate(maps[level], sizes[level - 1], mode="bilinear", align_corners=False)
            maps[level - 1] = maps[level - 1] + coarser
        maps[:-1] = [mix(x) for mix, x in zip(head.fpn_convs, maps, strict=False)]
        last = head.fpn_bottleneck
        finest, *weights = last.conv.weight.split(maps[0].shape[1], 1)
        joined = F.conv2d(maps[0], finest, padding=1)
        for x, weight in zip(maps[1:], weights, strict=True):
            joined += convolve_enlarged(x, weight, sizes[0], align_corners=False)
        return head.classifier(last.activation(last.batch_norm(joined)))


@dataclass(frozen=True, kw_only=True)
class UperNetEstimator(Estimator):
    """backbone: arguments of ConvNextConfig. width: channels of the head. side: the network's short side."""

    backbone: Mapping[str, Any] = field(default_factory=lambda: dict(_CONVNEXT_TINY))
    width: int = 512
    side: int = 512

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return UperNet(self.backbone, self.width, len(Palette.named("ade20k")))

    def tiny(self) -> Estimator:
        return replace(self, backbone={"depths": [1] * 4, "hidden_sizes": [8, 8, 16, 16]}, width=8, side=64)

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        network = (self.side, self.side)
        if resolution is not None:
            scale = min(self.side / min(height, width), 4 * self.side / max(height, width))
            network = (max(32, round(height * scale)), max(32, round(width * scale)))
        return Fit((height, width), network, "bilinear_pil", "bilinear")

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        """Labels int64 (B,height,width)."""
        inside = next(network.parameters()).dtype
        # One at a time: the scores of a picture, not its features, take the memory.
        return torch.cat([argmax_at(network(self.normalise(fit.enter(p)).to(inside)), size) for p in pixels.split(1)])

    def signal(self, raw: Tensor) -> Segmentation:
        return Segmentation(raw, Palette.named("ade20k"), self.name)

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        return labelling_memory(self.memory, batch, fit, dtype)


ESTIMATORS: tuple[Estimator, ...] = (
    UperNetEstimator(
        id="upernet-convnext-tiny",
        name="UPerNet ConvNeXt-T",
        family="upernet",
        produces=("segmentation",),
        licence=Licence("MIT", True, "https://huggingface.co/openmmlab/upernet-convnext-tiny"),
        parameters=59_318_838,
        sources=(
            published("openmmlab/upernet-convnext-tiny", "model.safetensors", "transformers"),
            published("openmmlab/upernet-convnext-tiny", "pytorch_model.bin", "transformers"),
        ),
        about="150 classes of ADE20K with a quarter of OneFormer's size, for small machines; coarser regions.",
        memory=700,
        extras={"auxiliary_head.*": "a second head that helps training alone"},
    ),
)
