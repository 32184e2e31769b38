"""Fathom Tiny: the small network that ships with the pack, for depth and normals in one forward.

A convolutional encoder down to 1/32, global attention blocks there, and a top-down decoder whose last step is a
sub-pixel convolution, so edges are as sharp as the input. Plain 3x3 convolutions down to 1/8, where processors and
GPUs are quickest in them, inverted residuals below. The weights are trained from nothing on the pictures that
``training/scenes.py`` draws; ``docs/model-card-tiny.md`` says how and how well.

The network holds no normalisation layer between convolutions: training adds batch normalisation after each
of them and folds it into the weights when it exports (``training/train.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence
from ..annotator.sizing import Fit, Size, bounded, round_to
from ..annotator.weights import Checkpoint
from ..signals import Depth, Normals, Signal
from ..signals.normals import unit_vectors

SHORT = 320
"""Short side in pixels at which the network sees a picture, whatever the result's size: that of its training."""
LOOKS = (1.0, 0.5)
"""How often it looks, as shares of that size. A small picture is ordered better as a whole, a large one has the edges;
the mean ranks depth better than each alone (docs/model-card-tiny.md). The normals come from the first."""


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
    """Coarse features brought up twofold, added to the skip, and mixed, by `full` convolutions or not.

    (B,coarse,h,w) and (B,skip,2h,2w) -> (B,skip,2h,2w).
    """

    def __init__(self, coarse: int, skip: int, full: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(coarse, skip, 1)
        self.lateral = nn.Conv2d(skip, skip, 1)
        self.mix = Residual(skip) if full else InvertedResidual(skip, skip, expand=2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = F.interpolate(self.reduce(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.mix(F.hardswish(up + self.lateral(skip)))


class TinyDepth(nn.Module):
    """Relative depth and surface normals from one picture.

    Input: (B,3,h,w) normalised with the ImageNet mean and standard deviation, h and w multiples of 32.
    Output: (B,4,h,w). Channel 0 is depth, larger = closer: only the order of the values means anything, scale and
    offset change from one picture to the next. Channels 1 to 3 are the normal, x right, y up, z towards the viewer,
    of any length.
    """

    def __init__(self, width: int = 24, depth: int = 2, context: int = 4) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = width, width * 2, width * 4, width * 20 // 3, width * 10
        self.stem = nn.Conv2d(3, c2, 3, 2, 1)
        self.down4 = nn.Conv2d(c2, c4, 3, 2, 1)
        self.stage4 = Residual(c4)
        self.down8 = nn.Conv2d(c4, c8, 3, 2, 1)
        self.stage8 = nn.Sequential(*(Residual(c8) for _ in range(depth)))
        self.stage16 = nn.Sequential(
            InvertedResidual(c8, c16, 2, expand=4), *(InvertedResidual(c16, c16) for _ in range(2 * depth))
        )
        self.stage32 = nn.Sequential(
            InvertedResidual(c16, c32, 2, expand=4), *(GlobalBlock(c32, width // 3) for _ in range(context))
        )
        self.merge16 = Merge(c32, c16, full=False)
        self.merge8 = Merge(c16, c8, full=True)
        self.merge4 = Merge(c8, c4, full=True)
        self.reduce2 = nn.Conv2d(c4, c2, 1)
        self.lateral2 = nn.Conv2d(c2, c2, 3, padding=1)
        self.refine = nn.Conv2d(c2, c2, 3, padding=1)
        self.head = nn.Conv2d(c2, 16, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B,3,h,w) normalised -> (B,4,h,w): closeness and the normal."""
        f2 = F.hardswish(self.stem(pixels))
        f4 = self.stage4(F.hardswish(self.down4(f2)))
        f8 = self.stage8(F.hardswish(self.down8(f4)))
        f16 = self.stage16(f8)
        f32 = self.stage32(f16)
        x = self.merge4(self.merge8(self.merge16(f32, f16), f8), f4)
        x = F.interpolate(self.reduce2(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        x = F.hardswish(x + self.lateral2(f2))
        x = x + F.hardswish(self.refine(x))
        return F.pixel_shuffle(self.head(x), 2)


@dataclass(frozen=True, kw_only=True)
class Tiny(Estimator):
    """The embedded estimator over TinyDepth. width, depth, context: TinyDepth's own."""

    width: int = 24
    depth: int = 2
    context: int = 4

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return TinyDepth(self.width, self.depth, self.context)

    def tiny(self) -> Estimator:
        return replace(self, width=12, depth=1, context=1, embedded=None)

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        # `resolution` sizes the result alone: on larger pictures the network loses sight of the whole.
        scale = SHORT / min(height, width)
        inner = bounded(height * scale, width * scale, 32)
        size = round_to(inner[0], 32), round_to(inner[1], 32)
        return Fit((height, width), size, "bilinear_aa", "bilinear")

    def infer(
        self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> dict[str, Signal]:
        inside = next(network.parameters()).dtype
        looks = []
        for share in LOOKS:
            inner = round_to(fit.network[0] * share, 32), round_to(fit.network[1] * share, 32)
            look = replace(fit, network=inner)
            looks.append(look.leave(network(self.normalise(look.enter(pixels)).to(inside)).float(), size))
        # Larger is closer already: the network was trained on inverse distance.
        depth = Depth(_mean_order([look[:, 0] for look in looks]), "ordinal", source=self.name)
        vectors = unit_vectors(looks[0][:, 1:].permute(0, 2, 3, 1))
        return {"depth": depth, "normals": Normals(vectors, None, self.name)}


def _mean_order(maps: list[Tensor]) -> Tensor:
    """The mean of maps (B,H,W) of one order each, every one first centred and scaled: they have units of their own."""
    total = torch.zeros_like(maps[0])
    for one in maps:
        centred = one - one.mean((1, 2), keepdim=True)
        total += centred / centred.abs().mean((1, 2), keepdim=True).clamp_min(1e-6)
    return total


ESTIMATORS = (
    Tiny(
        id="fathom-tiny",
        name="Fathom Tiny",
        family="tiny",
        produces=("depth", "normals"),
        licence=Licence("Apache-2.0", True, "https://www.apache.org/licenses/LICENSE-2.0"),
        parameters=3_784_344,
        sources=(),
        about="A rough preview that ships with the pack and needs no download: the order of depth, and normals.",
        memory=150,
        embedded="weights/fathom-tiny.safetensors",
        half=True,
        channels_last=True,
    ),
)
