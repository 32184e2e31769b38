"""NormalBae: surface normals from one picture, trained on ScanNet.

An EfficientNet-B5 encoder and a decoder that refines its normals from 1/8 of the input's size to 1/1, pixel by pixel.
Source: Bae, Budvytis, Cipolla, "Estimating and Exploiting the Aleatoric Uncertainty in Surface Normal Estimation" (ICCV
2021), github.com/baegwangbin/surface_normal_uncertainty; the annotator of control_v11p_sd15_normalbae.

The network's own frame is x left, y up, z towards the viewer: red is left, green is top, blue is front in its picture
(n+1)/2, as the README of ControlNet 1.1 says. Fathom's frame is x right, so x changes its sign here, once, and back
when the picture for the ControlNet is painted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence
from ..annotator.sizing import Fit, Size
from ..annotator.weights import Checkpoint
from ..signals import Normals
from ..signals.normals import Channels, unit_vectors
from ._controlnet import controlnet_picture
from ._enlarged import convolve_enlarged
from ._sources import published

TO_FATHOM = (-1.0, 1.0, 1.0)
PICTURE: Channels = ("-x", "+y", "+z")


@dataclass(frozen=True)
class Architecture:
    """encoder: a timm EfficientNet of seven stages. decoder: channels at 1/32, 1/16, 1/8, 1/4, 1/2. hidden: of the
    pixel-wise refinements."""

    encoder: str = "tf_efficientnet_b5"
    decoder: tuple[int, int, int, int, int] = (2048, 1024, 512, 256, 128)
    hidden: int = 128


def _upsample(x: Tensor, size: Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


class Encoder(nn.Module):
    """(B,3,h,w) -> features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""

    stages = (0, 1, 2, 4)

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm

        network: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        self.original_model = network
        self.channels = (*(f["num_chs"] for f in network.feature_info[:4]), network.conv_head.out_channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        network: Any = self.original_model
        x = network.bn1(network.conv_stem(x))
        features = []
        for stage, block in enumerate(network.blocks):
            x = block(x)
            if stage in self.stages:
                features.append(x)
        # The published decoder reads the last convolution before its normalisation.
        return [*features, network.conv_head(x)]


class UpSample(nn.Module):
    """Coarse features at the skip's size, joined with it and mixed."""

    def __init__(self, coarse: int, skip: int, out: int) -> None:
        super().__init__()
        self._net = nn.Sequential(
            nn.Conv2d(coarse + skip, out, 3, 1, 1),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(out, out, 3, 1, 1),
            nn.BatchNorm2d(out),
            nn.LeakyReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        first: Any = self._net[0]
        # Published code convolves the enlarged map and the skip as one.
        of_coarse, of_skip = first.weight.split([x.shape[1], skip.shape[1]], 1)
        mixed = F.conv2d(skip, of_skip, first.bias, padding=1)
        mixed = mixed + convolve_enlarged(x, of_coarse, (skip.shape[-2], skip.shape[-1]), align_corners=True)
        return self._net[1:](mixed)


class Refine(nn.Sequential):
    """Per pixel: features and the estimate of the scale below, both enlarged twofold -> a finer estimate.

    features (B,c,h,w), estimate (B,4,h,w) -> (B,4,2h,2w). The convolutions are one-dimensional in the official file.
    """

    def __init__(self, features: int, hidden: int) -> None:
        layers: list[nn.Module] = []
        for cin in (features + 4, hidden, hidden):
            layers += [nn.Conv1d(cin, hidden, 1), nn.ReLU(inplace=True)]
        super().__init__(*layers, nn.Conv1d(hidden, 4, 1))

    def forward(self, features: Tensor, estimate: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        size = (features.shape[-2] * 2, features.shape[-1] * 2)
        first, *rest = (layer for layer in self if isinstance(layer, nn.Conv1d))
        # Enlarging after the first convolution gives the same, by linearity, for a quarter of the work.
        x = F.conv2d(torch.cat([features, estimate], 1), first.weight[..., None], first.bias)
        # Convolutions over single pixels are products of matrices where the channels lie together.
        x = _upsample(x.contiguous(memory_format=torch.channels_last), size)
        for layer in rest:
            x = F.conv2d(F.relu_(x), layer.weight[..., None], layer.bias)
        return _unit(x)


def _unit(estimate: Tensor) -> Tensor:
    """Channels 0..2 of (B,4,h,w) at unit length; the fourth, the concentration kappa, positive."""
    normal, kappa = estimate.split([3, 1], 1)
    return torch.cat([normal / (normal.norm(dim=1, keepdim=True) + 1e-10), F.elu(kappa) + 1.01], 1)


class Decoder(nn.Module):
    """Five feature maps, finest first -> normals and kappa (B,4,h,w) at twice the size of the finest."""

    def __init__(self, channels: tuple[int, ...], a: Architecture) -> None:
        super().__init__()
        c32, c16, c8, c4, c2 = a.decoder
        self.conv2 = nn.Conv2d(channels[4], c32, 1)
        self.up1 = UpSample(c32, channels[3], c16)
        self.up2 = UpSample(c16, channels[2], c8)
        self.up3 = UpSample(c8, channels[1], c4)
        self.up4 = UpSample(c4, channels[0], c2)
        self.out_conv_res8 = nn.Conv2d(c8, 4, 3, 1, 1)
        self.out_conv_res4 = Refine(c8, a.hidden)
        self.out_conv_res2 = Refine(c4, a.hidden)
        self.out_conv_res1 = Refine(c2, a.hidden)

    def forward(self, features: list[Tensor]) -> Tensor:
        f2, f4, f8, f16, f32 = features
        x8 = self.up2(self.up1(self.conv2(f32), f16), f8)
        x4 = self.up3(x8, f4)
        x2 = self.up4(x4, f2)
        estimate = _unit(self.out_conv_res8(x8))
        estimate = self.out_conv_res4(x8, estimate)
        estimate = self.out_conv_res2(x4, estimate)
        return self.out_conv_res1(x2, estimate)


class NormalBae(nn.Module):
    """(B,3,h,w) with ImageNet normalisation, multiples of 32 -> normals (B,3,h,w): x left, y up, z to the viewer."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.encoder = Encoder(a.encoder)
        self.decoder = Decoder(self.encoder.channels, a)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))[:, :3]


@dataclass(frozen=True, kw_only=True)
class NormalBaeEstimator(Estimator):
    """architecture: sizes of the network."""

    architecture: Architecture = Architecture()

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return NormalBae(self.architecture)

    def tiny(self) -> NormalBaeEstimator:
        return replace(self, architecture=Architecture("tf_efficientnet_b0", (16, 16, 16, 8, 8), 8))

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        """The published test squeezes every picture to 480x640; the ControlNet annotator keeps the aspect."""
        if resolution is None:
            return Fit((height, width), (480, 640), "bilinear_pil", "bilinear")
        network, way_in = controlnet_picture(height, width, resolution)
        return Fit((height, width), network, way_in, "bilinear")

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        """Unit normals (B,3,height,width) in the network's frame.

        The published code stops at the network's size. Resizing between two directions shortens a vector, so the
        length is restored after it.
        """
        raw = super().raw(network, pixels, fit, size, options)
        return raw if size == fit.network else F.normalize(raw, dim=1)

    def signal(self, raw: Tensor) -> Normals:
        vectors = unit_vectors(raw.permute(0, 2, 3, 1)) * raw.new_tensor(TO_FATHOM)
        return Normals(vectors, None, self.name, PICTURE)


ESTIMATORS = (
    NormalBaeEstimator(
        id="normal-bae",
        name="NormalBae",
        family="normal_bae",
        produces=("normals",),
        licence=Licence("MIT", True, "https://github.com/baegwangbin/surface_normal_uncertainty/blob/main/LICENSE"),
        parameters=72_422_336,
        sources=(published("lllyasviel/Annotators", "scannet.pt"),),
        about="Surface normals, best indoors; the annotator that the ControlNet 1.1 for normals was trained with.",
        memory=1450,
        tf32=True,
        channels_last=True,
    ),
)
