"""Fathom Tiny: the small depth network that ships with the pack.

A strided convolutional encoder down to 1/32, a few global attention blocks there, and a top-down decoder
whose last step is a sub-pixel convolution, so edges are as sharp as the input. The weights are trained from
nothing on the pictures that ``training/scenes.py`` draws; ``docs/model-card-tiny.md`` says how and how well.

The network holds no normalisation layer between convolutions: training adds batch normalisation after each
of them and folds it into the weights when it exports (``training/train.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence
from ..annotator.sizing import Fit, Size, bounded, round_to
from ..annotator.weights import Checkpoint
from ..signals import Depth

SHORT = 224
"""Short side in pixels at which the network sees a picture, whatever the result's size."""
LOOKS = ((1.0, False), (6 / 7, True), (4 / 7, True))
"""How often it looks: the size as a share of the first, and whether at the mirror image. A small picture is ordered
better as a whole, a large one has the edges; the mean ranks depth better than each alone (docs/model-card-tiny.md)."""


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project; added to the input where the shapes agree.

    (B,cin,h,w) -> (B,cout,h/stride,w/stride).
    """

    def __init__(self, cin: int, cout: int, stride: int = 1, expand: int = 3, kernel: int = 5) -> None:
        super().__init__()
        mid = cin * expand
        self.expand = nn.Conv2d(cin, mid, 1)
        self.depthwise = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid)
        self.project = nn.Conv2d(mid, cout, 1)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.expand(x))
        y = F.hardswish(self.depthwise(y))
        y = self.project(y)
        return x + y if self.residual else y


class Residual(nn.Module):
    """Two full 3x3 convolutions around a shortcut. (B,c,h,w) -> (B,c,h,w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.hardswish(self.conv1(x)))


class GlobalBlock(nn.Module):
    """Self-attention over every position, then a pointwise MLP. (B,c,h,w) -> (B,c,h,w), for any h and w.

    A depthwise convolution ahead of it carries position: its zero padding marks the borders.
    """

    def __init__(self, channels: int, heads: int, expand: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, channels * 3)
        self.out = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp1 = nn.Linear(channels, channels * expand)
        self.mlp2 = nn.Linear(channels * expand, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = (x + self.position(x)).flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm1(x)).view(b, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        x = x + self.out(attended.transpose(1, 2).reshape(b, h * w, c))
        x = x + self.mlp2(F.hardswish(self.mlp1(self.norm2(x))))
        return x.transpose(1, 2).reshape(b, c, h, w)


class Merge(nn.Module):
    """Coarse features brought up twofold, added to the skip, and mixed. -> (B,cskip,2h,2w)."""

    def __init__(self, coarse: int, skip: int, kernel: int = 5) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(coarse, skip, 1)
        self.lateral = nn.Conv2d(skip, skip, 1)
        self.mix = InvertedResidual(skip, skip, expand=2, kernel=kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = F.interpolate(self.reduce(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.mix(F.hardswish(up + self.lateral(skip)))


class TinyDepth(nn.Module):
    """Relative depth from one picture.

    Input: (B,3,h,w) normalised with the ImageNet mean and standard deviation, h and w multiples of 32.
    Output: (B,h,w), larger = closer. Only the order of the values means anything: scale and offset change
    from one picture to the next.
    """

    def __init__(self, width: int = 16, depth: int = 2, context: int = 3) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = width, width * 2, width * 4, width * 7, width * 11
        self.stem = nn.Conv2d(3, c2, 3, 2, 1)
        self.down4 = nn.Conv2d(c2, c4, 3, 2, 1)
        self.stage4 = Residual(c4)
        self.stage8 = nn.Sequential(
            InvertedResidual(c4, c8, 2, expand=4), *(InvertedResidual(c8, c8) for _ in range(depth))
        )
        self.stage16 = nn.Sequential(
            InvertedResidual(c8, c16, 2, expand=4), *(InvertedResidual(c16, c16) for _ in range(depth + 1))
        )
        self.stage32 = nn.Sequential(
            InvertedResidual(c16, c32, 2, expand=4), *(GlobalBlock(c32, width // 4) for _ in range(context))
        )
        self.merge16 = Merge(c32, c16)
        self.merge8 = Merge(c16, c8)
        self.merge4 = Merge(c8, c4)
        self.reduce2 = nn.Conv2d(c4, c2, 1)
        self.lateral2 = nn.Conv2d(c2, c2, 3, padding=1)
        self.refine = nn.Conv2d(c2, c2, 3, padding=1)
        self.head = nn.Conv2d(c2, 4, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B,3,h,w) normalised -> (B,h,w), larger = closer."""
        f2 = F.hardswish(self.stem(pixels))
        f4 = self.stage4(F.hardswish(self.down4(f2)))
        f8 = self.stage8(f4)
        f16 = self.stage16(f8)
        f32 = self.stage32(f16)
        x = self.merge4(self.merge8(self.merge16(f32, f16), f8), f4)
        x = F.interpolate(self.reduce2(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        x = F.hardswish(x + self.lateral2(f2))
        x = x + F.hardswish(self.refine(x))
        return F.pixel_shuffle(self.head(x), 2)[:, 0]


@dataclass(frozen=True, kw_only=True)
class Tiny(Estimator):
    """The embedded estimator over TinyDepth. width, depth, context: TinyDepth's own."""

    width: int = 16
    depth: int = 2
    context: int = 3

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return TinyDepth(self.width, self.depth, self.context)

    def tiny(self) -> Estimator:
        return replace(self, width=8, depth=1, context=1, embedded=None)

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        # `resolution` sizes the result alone: on larger pictures the network loses sight of the whole.
        scale = SHORT / min(height, width)
        inner = bounded(height * scale, width * scale, 32)
        size = round_to(inner[0], 32), round_to(inner[1], 32)
        return Fit((height, width), size, "bilinear_aa", "bilinear")

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        total = pixels.new_zeros(len(pixels), 1, *fit.network)
        for share, mirrored in LOOKS:
            inner = round_to(fit.network[0] * share, 32), round_to(fit.network[1] * share, 32)
            seen = pixels.flip(-1) if mirrored else pixels
            raw = super().raw(network, seen, replace(fit, network=inner), fit.network, options)
            raw = raw.flip(-1) if mirrored else raw
            # Each answer has an offset and a scale of its own.
            raw = raw - raw.mean((1, 2, 3), keepdim=True)
            total += raw / raw.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-6)
        return fit.leave(total, size)

    def signal(self, raw: Tensor) -> Depth:
        # Larger is closer already: the network was trained on inverse distance.
        return Depth(raw[:, 0], "ordinal", source=self.name)


ESTIMATORS = (
    Tiny(
        id="fathom-tiny",
        name="Fathom Tiny",
        family="tiny",
        produces=("depth",),
        licence=Licence("Apache-2.0", True, "https://www.apache.org/licenses/LICENSE-2.0"),
        parameters=1_443_572,
        sources=(),
        about="A rough preview that ships with the pack and needs no download; order of depth only.",
        memory=100,
        embedded="weights/fathom-tiny.safetensors",
        half=True,
        channels_last=True,
    ),
)
