"""UniFormer-S with an UPerNet head: the ADE20K annotator of ControlNet 1.0 (Li et al., ICLR 2022, arXiv 2201.04676).

Network and parameter names: annotator/uniformer of lllyasviel/ControlNet; weights: lllyasviel/Annotators. The annotator
hands an RGB picture to a pipeline that expects BGR and swaps the channels, so that its network sees BGR; control models
were trained on what came out. The true order is an option; with it most regions are named otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence, Option
from ..annotator.filters import Filter, argmax_at, resize
from ..annotator.sizing import Fit, Size
from ..annotator.weights import Checkpoint
from ..signals import Palette, Segmentation
from ._controlnet import controlnet_picture
from ._enlarged import convolve_enlarged
from ._sources import published
from .oneformer import labelling_memory

POOLS = (1, 2, 3, 6)  # sides of the pyramid pooling of the head


class ConvolutionBlock(nn.Module):
    """A block of the first two stages: a 5x5 depthwise convolution stands for attention. (B,c,h,w) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 1)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.attn = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm2 = nn.BatchNorm2d(width)
        self.mlp = _mlp(partial(nn.Conv2d, kernel_size=1), width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed(x)
        x = x + self.conv2(self.attn(self.conv1(self.norm1(x))))
        return x + _run_mlp(self.mlp, self.norm2(x))


class AttentionBlock(nn.Module):
    """A block of the last two stages: attention over the whole picture. (B,c,h,w) -> the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.pos_embed = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = _mlp(nn.Linear, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed(x)
        size = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self._attend(self.norm1(tokens))
        tokens = tokens + _run_mlp(self.mlp, self.norm2(tokens))
        return tokens.transpose(1, 2).unflatten(2, size)

    def _attend(self, tokens: Tensor) -> Tensor:
        query, key, value = self.attn["qkv"](tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.attn["proj"](mixed.transpose(1, 2).flatten(2))


def _mlp(layer: Any, width: int) -> nn.ModuleDict:
    return nn.ModuleDict({"fc1": layer(width, 4 * width), "fc2": layer(4 * width, width)})


def _run_mlp(mlp: nn.ModuleDict, x: Tensor) -> Tensor:
    return mlp["fc2"](F.gelu(mlp["fc1"](x)))


class PatchEmbedding(nn.Module):
    """(B,c,h,w) -> (B,C,h/side,w/side), normed over the channels."""

    def __init__(self, channels: int, width: int, side: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Conv2d(channels, width, side, stride=side)

    def forward(self, x: Tensor) -> Tensor:
        return _norm_channels(self.norm, self.proj(x))


def _norm_channels(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()


class Backbone(nn.Module):
    """Input: (B,3,h,w) normalised. Output: four maps at 1/4, 1/8, 1/16 and 1/32, rounded down, each with its own norm;
    the next stage goes on from the map before the norm. widths, depths: of the stages. head: channels of one head."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], head: int) -> None:
        super().__init__()
        for stage, (before, width, depth) in enumerate(zip((3, *widths), widths, depths, strict=False), 1):
            self.add_module(f"patch_embed{stage}", PatchEmbedding(before, width, 4 if stage == 1 else 2))
            block = partial(ConvolutionBlock, width) if stage < 3 else partial(AttentionBlock, width, width // head)
            self.add_module(f"blocks{stage}", nn.Sequential(*(block() for _ in range(depth))))
            self.add_module(f"norm{stage}", nn.LayerNorm(width, eps=1e-6))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in range(1, 5):
            x = getattr(self, f"blocks{stage}")(getattr(self, f"patch_embed{stage}")(x))
            maps.append(_norm_channels(getattr(self, f"norm{stage}"), x))
        return maps


class ConvBnRelu(nn.Module):
    """A convolution without bias, its norm and a ReLU, under the names of mmcv's ConvModule."""

    def __init__(self, channels: int, width: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, side, padding=side // 2, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Head(nn.Module):
    """mmsegmentation's UPerHead (Xiao et al., ECCV 2018): four maps -> class scores (B,classes,h/4,w/4)."""

    def __init__(self, channels: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(width, classes, 1)
        # Number 0 is the pooling, which has no weights.
        self.psp_modules = nn.ModuleList(nn.ModuleDict({"1": ConvBnRelu(channels[-1], width, 1)}) for _ in POOLS)
        self.bottleneck = ConvBnRelu(channels[-1] + len(POOLS) * width, width, 3)
        self.lateral_convs = nn.ModuleList(ConvBnRelu(c, width, 1) for c in channels[:-1])
        self.fpn_convs = nn.ModuleList(ConvBnRelu(width, width, 3) for _ in channels[:-1])
        self.fpn_bottleneck = ConvBnRelu(len(channels) * width, width, 3)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        maps = [*(mix(x) for mix, x in zip(self.lateral_convs, features, strict=False)), self._pooled(features[-1])]
        for level in range(len(maps) - 1, 0, -1):
            maps[level - 1] = maps[level - 1] + _enlarge(maps[level], maps[level - 1].shape[-2:])
        maps[:-1] = [mix(x) for mix, x in zip(self.fpn_convs, maps, strict=False)]
        last, size = self.fpn_bottleneck, (maps[0].shape[-2], maps[0].shape[-1])
        finest, *weights = last.conv.weight.split(maps[0].shape[1], 1)
        joined = F.conv2d(maps[0], finest, padding=1)
        for x, weight in zip(maps[1:], weights, strict=True):
            joined += convolve_enlarged(x, weight, size, align_corners=False)
        return self.conv_seg(F.relu(last.bn(joined), inplace=True))

    def _pooled(self, x: Tensor) -> Tensor:
        pools = [
            _enlarge(module["1"](F.adaptive_avg_pool2d(x, side)), x.shape[-2:])  # pyright: ignore[reportIndexIssue]
            for side, module in zip(POOLS, self.psp_modules, strict=True)
        ]
        return self.bottleneck(torch.cat([x, *pools], 1))


def _enlarge(x: Tensor, size: Any) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class UniFormer(nn.Module):
    """Input: (B,3,h,w) normalised, BGR or RGB, sides of at least 32. Output: class scores (B,150,h/4,w/4), float32."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int], head: int, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = Backbone(widths, depths, head)
        self.decode_head = Head(widths, width, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B,3,h,w) normalised -> class scores (B,150,h/4,w/4)."""
        return self.decode_head(self.backbone(pixels)).float()


@dataclass(frozen=True)
class TwoSteps(Fit):
    """A Fit that resizes twice: to `first` by the filter `first_way` as the annotator does, then as mmsegmentation."""

    first: Size = (0, 0)
    first_way: Filter = "area"

    def enter(self, pixels: Tensor) -> Tensor:
        """Pictures (B,3,H,W) in 0..1 as the network sees them, not yet normalised."""
        return super().enter(resize(pixels, self.first, self.first_way))


@dataclass(frozen=True, kw_only=True)
class UniFormerEstimator(Estimator):
    """widths, depths: of the backbone's stages. head: channels of one attention head. width: of the decoder.
    short, long: the bounds of mmsegmentation's test size in pixels. detect: the annotator's own resolution."""

    widths: tuple[int, ...] = (64, 128, 320, 512)
    depths: tuple[int, ...] = (3, 4, 8, 3)
    head: int = 64
    width: int = 512
    short: int = 512
    long: int = 2048
    detect: int = 512

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return UniFormer(self.widths, self.depths, self.head, self.width, len(Palette.named("ade20k")))

    def tiny(self) -> Estimator:
        small: dict[str, Any] = {"widths": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "head": 8, "width": 8}
        return replace(self, **small, short=64, long=256, detect=64, sources=())

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        asked = self.detect if resolution is None else resolution
        first, first_way = controlnet_picture(height, width, asked)
        scale = min(self.long / max(first), self.short / min(first))
        rows, columns = (max(32, int(side * scale + 0.5)) for side in first)
        return TwoSteps((height, width), (rows, columns), "bilinear_cv", "bilinear", first=first, first_way=first_way)

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        """Labels int64 (B,height,width)."""
        inside = next(network.parameters()).dtype
        rows = []
        # One at a time: the scores of a picture, not its features, take the memory.
        for picture in pixels.split(1):
            seen = fit.enter(picture)
            seen = seen.flip(1) if options["channel_order"] == "bgr" else seen
            scores = network(self.normalise(seen).to(inside))
            if fit.network != tuple(size):
                # The published code goes by way of the network's size, which makes the borders of regions smoother.
                scores = resize(scores, fit.network, "bilinear")
            rows.append(argmax_at(scores, size))
        return torch.cat(rows)

    def signal(self, raw: Tensor) -> Segmentation:
        return Segmentation(raw, Palette.named("ade20k"), self.name)

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        # The scores of all classes at the network's size come when its maps are gone.
        scores = 4 * len(Palette.named("ade20k")) * fit.network[0] * fit.network[1]
        pictures = 12 * batch * fit.source[0] * fit.source[1]
        return max(super().memory_required(1, fit, dtype) + pictures, labelling_memory(0, batch, fit, dtype) + scores)


ESTIMATORS: tuple[Estimator, ...] = (
    UniFormerEstimator(
        id="uniformer-ade20k",
        name="UniFormer ADE20K",
        family="uniformer",
        produces=("segmentation",),
        # The code is Apache-2.0; neither the annotator's nor the weights' repository says anything of the file.
        licence=Licence("not stated", None, "https://github.com/lllyasviel/ControlNet/blob/main/annotator/uniformer"),
        parameters=50_744_790,
        sources=(published("lllyasviel/Annotators", "upernet_global_small.pth"),),
        about="150 classes of ADE20K as the first ControlNet for segmentation saw them; coarser than OneFormer.",
        memory=1050,
        options=(
            Option(
                "channel_order",
                "bgr",
                choices=("bgr", "rgb"),
                about="bgr: as the published annotator runs, red and blue swapped; rgb: as the network was trained.",
            ),
        ),
        extras={"auxiliary_head.*": "a second head that helps training alone"},
    ),
)
