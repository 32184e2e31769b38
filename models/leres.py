"""LeReS: relative depth from one picture.

A ResNeXt-101 encoder and a convolutional decoder. Source: Yin et al., "Learning to Recover 3D Scene Shape from a Single
Image" (CVPR 2021), github.com/aim-uofa/AdelaiDepth, folder LeReS. The network gives a*z + b with unknown a > 0 and b,
larger = farther; Fathom's depth is its negative. ``leres_boost.py`` runs it in several sizes.

The ports of this annotator (controlnet_aux, sd-webui-controlnet) hand the network blue, green, red in 0..255, where it
was trained on red, green, blue in 0..1. Here it sees what it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence
from ..annotator.sizing import Fit
from ..annotator.weights import Checkpoint
from ..signals import Depth
from ._controlnet import controlnet_picture
from ._sources import published


@dataclass(frozen=True)
class Architecture:
    """blocks, groups, group: of the ResNeXt. features: channels of the decoder, from 1/32 to 1/4."""

    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    groups: int = 32
    group: int = 8
    features: tuple[int, int, int, int] = (512, 256, 256, 256)


TINY = Architecture((1, 1, 1, 1), 1, 4, (8, 8, 8, 8))


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class Encoder(nn.Module):
    """(B,3,h,w), multiples of 32 -> features at 1/4, 1/8, 1/16, 1/32 with 256, 512, 1024, 2048 channels."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        from torchvision.models.resnet import Bottleneck, ResNet

        network: Any = ResNet(Bottleneck, list(a.blocks), groups=a.groups, width_per_group=a.group)
        network.fc = nn.Identity()
        self.encoder = network

    def forward(self, x: Tensor) -> list[Tensor]:
        e: Any = self.encoder
        x = e.maxpool(e.relu(e.bn1(e.conv1(x))))
        maps = []
        for layer in (e.layer1, e.layer2, e.layer3, e.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class Transform(nn.Module):
    """A convolution, then a residual unit of two. (B,cin,h,w) -> (B,cout,h,w)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, 1, 1)
        # The activation that opens the branch works in place in the published code: the shortcut sees its result.
        self.conv_branch = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(cout, cout, 3, 1, 1),
            nn.BatchNorm2d(cout),
            nn.ReLU(inplace=True),
            nn.Conv2d(cout, cout, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        return F.relu(x + self.conv_branch(x))


class Merge(nn.Module):
    """Finer features transformed, coarser ones added, the sum transformed and enlarged twofold."""

    def __init__(self, fine: int, features: int) -> None:
        super().__init__()
        self.ftb1 = Transform(fine, features)
        self.ftb2 = Transform(features, features)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return _twice(self.ftb2(self.ftb1(fine) + coarse))


class Output(nn.Module):
    """(B,c,h/2,w/2) -> (B,1,h,w)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.adapt_conv = nn.Sequential(
            nn.Conv2d(features, features // 2, 3, 1, 1),
            nn.BatchNorm2d(features // 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(features // 2, 1, 3, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return _twice(self.adapt_conv(x))


class Decoder(nn.Module):
    """The encoder's four maps -> (B,1,h,w)."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        f32, f16, f8, f4 = a.features
        self.conv = Transform(2048, f32)
        self.conv1 = nn.Conv2d(f32, f16, 3, 1, 1)
        self.ffm2 = Merge(1024, f16)
        self.ffm1 = Merge(512, f8)
        self.ffm0 = Merge(256, f4)
        self.outconv = Output(f4)

    def forward(self, maps: list[Tensor]) -> Tensor:
        m4, m8, m16, m32 = maps
        x = _twice(self.conv1(self.conv(m32)))
        return self.outconv(self.ffm0(m4, self.ffm1(m8, self.ffm2(m16, x))))


class LeReS(nn.Module):
    """(B,3,h,w) with ImageNet normalisation, multiples of 32 -> a*z + b (B,h,w), larger = farther."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        parts = {"encoder_modules": Encoder(a), "decoder_modules": Decoder(a)}
        self.depth_model = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.depth_model
        return parts["decoder_modules"](parts["encoder_modules"](x))[:, 0]


@dataclass(frozen=True, kw_only=True)
class LeReSEstimator(Estimator):
    """architecture: sizes of the network."""

    architecture: Architecture = Architecture()

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return LeReS(self.architecture)

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        # Batch normalisation counts its training steps; inference never reads that, and old files lack it.
        ends = [key.removesuffix("running_mean") for key in tensors if key.endswith(".running_mean")]
        return {**{f"{key}num_batches_tracked": torch.tensor(0) for key in ends}, **tensors}

    def tiny(self) -> LeReSEstimator:
        return replace(self, architecture=TINY)

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        """The published test squeezes every picture to 448x448; the ControlNet annotator keeps the aspect."""
        if resolution is None:
            return Fit((height, width), (448, 448), "bilinear", "bilinear")
        network, way_in = controlnet_picture(height, width, resolution)
        return Fit((height, width), network, way_in, "bicubic")

    def signal(self, raw: Tensor) -> Depth:
        return Depth(-raw[:, 0], "affine_depth", source=self.name)


ESTIMATORS = (
    LeReSEstimator(
        id="leres",
        name="LeReS",
        family="leres",
        produces=("depth",),
        licence=Licence(
            "Adobe Research License", False, "https://github.com/aim-uofa/AdelaiDepth/blob/main/LeReS/LICENSE"
        ),
        parameters=115_360_833,
        sources=(published("lllyasviel/Annotators", "res101.pth"),),
        about="Relative depth with sharp edges; one of the annotators that the depth ControlNet was trained with.",
        memory=800,
        tf32=True,
    ),
)
