"""What MiDaS and Depth Anything share: a timm vision transformer and the dense prediction head of DPT.

Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021. Parameters carry the names of the official
code (isl-org/MiDaS, DepthAnything/Depth-Anything-V2), so its files load as they are; `official_names` turns the names
of transformers' classes into these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.sizing import Size, bounded, round_to

# ---------------------------------------------------------------------------------------------- transformer


def vision_transformer(
    width: int, depth: int, heads: int, *, grid: int, patch: int, channels: int = 3, eps: float = 1e-6, **more: Any
) -> Any:
    """timm's VisionTransformer without its classifier, its position table for `grid` x `grid` patches."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=grid * patch,
        patch_size=patch,
        in_chans=channels,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        norm_layer=partial(nn.LayerNorm, eps=eps),
        weight_init="skip",
        **more,
    )


def run_blocks(
    vit: Any,
    pixels: Tensor,
    taps: Sequence[int],
    positions: Callable[[Tensor, Size], Tensor],
    blocks: int | None = None,
) -> tuple[list[Tensor], Size]:
    """The tokens (B,1+h*w,C), class token first, behind each block in `taps`, and the grid (h, w).

    positions: gives the position table (1,1+n*n,C) for a grid. blocks: how many of the transformer's run, None = all.
    """
    patches = vit.patch_embed.proj(pixels)
    grid = (patches.shape[-2], patches.shape[-1])
    first = vit.cls_token.expand(len(patches), -1, -1)
    x = torch.cat([first, patches.flatten(2).transpose(1, 2)], 1) + positions(vit.pos_embed, grid)
    kept = []
    for number, block in enumerate(vit.blocks[:blocks]):
        x = block(x)
        if number in taps:
            kept.append(x)
    return kept, grid


def place_by_size(table: Tensor, grid: Size, mode: str) -> Tensor:
    """A position table (1,1+n*n,C) resized to `grid` by the filter `mode`; the class token's row stays."""
    return _resample(table, grid, mode=mode, size=grid)


def place_by_scale(table: Tensor, grid: Size) -> Tensor:
    """As `place_by_size`, the way of facebookresearch/dinov2: bicubic by a scale that holds a tenth of a patch more
    than the grid, which moves every sample a little."""
    side = math.isqrt(table.shape[1] - 1)
    return _resample(table, grid, mode="bicubic", scale_factor=[(n + 0.1) / side for n in grid])


def _resample(table: Tensor, grid: Size, **how: Any) -> Tensor:
    side = math.isqrt(table.shape[1] - 1)
    if grid == (side, side):
        return table
    square = table[:, 1:].float().transpose(1, 2).unflatten(2, (side, side))
    square = F.interpolate(square, **how).flatten(2).transpose(1, 2)
    return torch.cat([table[:, :1], square.to(table.dtype)], 1)


# ---------------------------------------------------------------------------------------------- head


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each behind a ReLU, around a shortcut. (B,c,h,w) -> (B,c,h,w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """One step from coarse to fine: the finer map is added, the sum mixed and enlarged."""

    def __init__(self, channels: int, merges: bool) -> None:
        super().__init__()
        if merges:
            self.resConfUnit1 = ResidualUnit(channels)
        self.resConfUnit2 = ResidualUnit(channels)
        self.out_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, coarse: Tensor | None, fine: Tensor, size: Size) -> Tensor:
        x = fine if coarse is None else coarse + self.resConfUnit1(fine)
        # Published code enlarges before this 1x1 convolution; they commute, and this order takes a quarter of the work.
        x = self.out_conv(self.resConfUnit2(x))
        return F.interpolate(x, size, mode="bilinear", align_corners=True)


class Scratch(nn.Module):
    """Four maps of 4, 2, 1 and 1/2 times the patch grid to one of 8 times, `features` channels."""

    def __init__(self, channels: Sequence[int], features: int) -> None:
        super().__init__()
        self.features = features
        for level, width in enumerate(channels, 1):
            self.add_module(f"layer{level}_rn", nn.Conv2d(width, features, 3, padding=1, bias=False))
        self.add_branch("")

    def add_branch(self, ending: str) -> None:
        """Further fusions over the same maps, their names with this ending; see `forward`."""
        for level in range(1, 5):
            self.add_module(f"refinenet{level}{ending}", Fusion(self.features, merges=level < 4))

    def forward(self, maps: Sequence[Tensor], branch: str = "") -> Tensor:
        even = [getattr(self, f"layer{level}_rn")(x) for level, x in enumerate(maps, 1)]
        height, width = even[0].shape[-2:]
        sizes = [(2 * height, 2 * width), *((x.shape[-2], x.shape[-1]) for x in even[:3])]
        path = None
        for level in (4, 3, 2, 1):
            path = getattr(self, f"refinenet{level}{branch}")(path, even[level - 1], sizes[level - 1])
        return path


def rescale(level: int, channels: int) -> nn.Module:
    """What brings a map on the patch grid to its level: 4, 2, 1 or 1/2 times (level 1 to 4)."""
    if level < 3:
        times = 4 if level == 1 else 2
        return nn.ConvTranspose2d(channels, channels, times, stride=times)
    return nn.Identity() if level == 3 else nn.Conv2d(channels, channels, 3, stride=2, padding=1)


# ---------------------------------------------------------------------------------------------- names

_FUSION = (
    (r"^neck\.convs\.(\d)\.", lambda m: f"scratch.layer{int(m[1]) + 1}_rn."),
    (r"^neck\.fusion_stage\.layers\.(\d)\.", lambda m: f"scratch.refinenet{4 - int(m[1])}."),
    (r"\.residual_layer(\d)\.convolution(\d)\.", r".resConfUnit\1.conv\2."),
    (r"^(scratch\.refinenet\d)\.projection\.", r"\1.out_conv."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
)


def official_names(tensors: Mapping[str, Tensor], rules: Sequence[tuple[str, Any]]) -> dict[str, Tensor]:
    """A checkpoint of a transformers class under the official names: `rules` (regular expression, replacement), and
    the query, key and value of each block in one tensor."""
    named: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        for pattern, new in (*_FUSION, *rules):
            key = re.sub(pattern, new, key)
        named[key] = tensor
    for key in [k for k in named if ".attn.query." in k]:
        parts = [named.pop(key.replace("query", part), None) for part in ("query", "key", "value")]
        named[key.replace("query", "qkv")] = torch.cat([p for p in parts if p is not None])
    return named


# ---------------------------------------------------------------------------------------------- sizes


def lower_bound(height: int, width: int, least: int, multiple: int) -> Size:
    """Aspect kept, both sides at least `least`, multiples of `multiple`; less where a network cannot be that large."""
    scale = max(least / height, least / width)
    tall, wide = bounded(height * scale, width * scale, multiple)
    if (tall, wide) != (height * scale, width * scale):
        least = 0
    return round_to(tall, multiple, least), round_to(wide, multiple, least)


def minimal(height: int, width: int, target: int, multiple: int) -> Size:
    """Scaled as little as possible so that one side is `target`, aspect kept, multiples of `multiple`."""
    scale = min((target / height, target / width), key=lambda s: abs(1 - s))
    tall, wide = bounded(height * scale, width * scale, multiple)
    return round_to(tall, multiple), round_to(wide, multiple)
