"""MiDaS DPT: relative inverse depth, the networks behind ControlNet's first depth and normal annotators.

Ranftl et al., "Towards Robust Monocular Depth Estimation", TPAMI 2022, and "Vision Transformers for Dense
Prediction", ICCV 2021 (isl-org/MiDaS, isl-org/DPT). The official files and Intel's repositories in the layout of
transformers load. The latter have a published rule of their own: 384x384 whatever the picture's aspect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import HALF_MEAN, HALF_STD, Estimator, Licence
from ..annotator.sizing import Fit
from ..annotator.weights import Checkpoint
from ..errors import WeightsError
from ..signals import Depth
from ._controlnet import controlnet_picture
from ._dpt import Scratch, minimal, official_names, place_by_size, rescale, run_blocks, vision_transformer
from ._sources import published

GRID = 24  # patches on each side of the position table
SHORT = 384  # pixels: the published network size


@dataclass(frozen=True)
class Spec:
    """The sizes of one network. width, depth, heads: of the transformer. channels, features: of the head. taps: the
    blocks whose tokens the head sees. stages: (blocks, channels) of the convolutional stages before the transformer,
    the first two of which the head sees as well; empty = patches of the picture.
    """

    width: int
    depth: int
    heads: int
    channels: tuple[int, int, int, int]
    features: int
    taps: tuple[int, ...]
    stages: tuple[tuple[int, int], ...] = ()


HYBRID = Spec(768, 12, 12, (256, 512, 768, 768), 256, (8, 11), ((3, 256), (4, 512), (9, 1024)))
LARGE = Spec(1024, 24, 16, (256, 512, 1024, 1024), 256, (5, 11, 17, 23))


class Readout(nn.Module):
    """Mixes the class token into every other one. (B,1+n,C) -> (B,n,C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        # The published code repeats the class token beside each other one; its part of the product is the same for all.
        mix: Any = self.project[0]
        own, shared = mix.weight.chunk(2, 1)
        return F.gelu(F.linear(x[:, 1:], own) + F.linear(x[:, :1], shared, mix.bias))


def _stages(spec: Spec) -> nn.Module:
    from timm.layers.std_conv import StdConv2dSame
    from timm.models.resnetv2 import ResNetV2

    return ResNetV2(
        layers=[blocks for blocks, _ in spec.stages],
        channels=tuple(width for _, width in spec.stages),
        num_classes=0,
        global_pool="",
        preact=False,
        stem_type="same",
        conv_layer=partial(StdConv2dSame, eps=1e-8),
    )


class MiDaSNetwork(nn.Module):
    """Input: (B,3,h,w) normalised with mean and deviation 0.5, h and w multiples of 32.
    Output: (B,h,w), relative inverse depth of at least 0, larger = closer.
    """

    def __init__(self, spec: Spec, eps: float) -> None:
        super().__init__()
        self.taps, self.hybrid = spec.taps, bool(spec.stages)
        inner = {"patch": 1, "channels": spec.stages[-1][1]} if spec.stages else {"patch": 16}
        vit = vision_transformer(spec.width, spec.depth, spec.heads, grid=GRID, eps=eps, **inner)
        vit.norm = nn.Identity()
        if self.hybrid:
            vit.patch_embed.backbone = _stages(spec)
        self.pretrained = nn.Module()
        self.pretrained.model = vit
        for level, width in enumerate(spec.channels, 1):
            if level > 4 - len(spec.taps):
                parts: dict[str, nn.Module] = {"0": Readout(spec.width), "3": nn.Conv2d(spec.width, width, 1)}
                if level != 3:
                    parts["4"] = rescale(level, width)
                self.pretrained.add_module(f"act_postprocess{level}", nn.ModuleDict(parts))
        self.scratch: Any = Scratch(spec.channels, spec.features)
        self.scratch.output_conv = nn.Sequential(
            nn.Conv2d(spec.features, spec.features // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(spec.features // 2, 32, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 1, 1),
            nn.ReLU(inplace=True),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        vit: Any = self.pretrained.model
        maps: list[Tensor] = []
        if self.hybrid:
            pixels = vit.patch_embed.backbone.stem(pixels)
            for stage in vit.patch_embed.backbone.stages:
                pixels = stage(pixels)
                maps.append(pixels)
            maps = maps[:2]
        tokens, grid = run_blocks(vit, pixels, self.taps, partial(place_by_size, mode="bilinear"))
        for x in tokens:
            post = getattr(self.pretrained, f"act_postprocess{len(maps) + 1}")
            x = post["3"](post["0"](x).transpose(1, 2).unflatten(2, grid))
            maps.append(post["4"](x) if "4" in post else x)
        return self.scratch.output_conv(self.scratch(maps))[:, 0]


_NAMES = (
    (r"^dpt\.embeddings\.backbone\.bit\.embedder\.convolution\.", "pretrained.model.patch_embed.backbone.stem.conv."),
    (r"^dpt\.embeddings\.backbone\.bit\.embedder\.", "pretrained.model.patch_embed.backbone.stem."),
    (
        r"^dpt\.embeddings\.backbone\.bit\.encoder\.stages\.(\d)\.layers\.",
        r"pretrained.model.patch_embed.backbone.stages.\1.blocks.",
    ),
    (r"^dpt\.embeddings\.(patch_embeddings\.)?projection\.", "pretrained.model.patch_embed.proj."),
    (r"^dpt\.embeddings\.position_embeddings$", "pretrained.model.pos_embed"),
    (r"^dpt\.embeddings\.", "pretrained.model."),
    (r"^dpt\.encoder\.layer\.", "pretrained.model.blocks."),
    (r"^dpt\.layernorm\.", "pretrained.model.norm."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (
        r"^neck\.reassemble_stage\.readout_projects\.(\d)\.0\.",
        lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.0.project.0.",
    ),
    (
        r"^neck\.reassemble_stage\.layers\.(\d)\.projection\.",
        lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.3.",
    ),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.resize\.", lambda m: f"pretrained.act_postprocess{int(m[1]) + 1}.4."),
    (r"^head\.head\.", "scratch.output_conv."),
)


@dataclass(frozen=True, kw_only=True)
class MiDaS(Estimator):
    """One MiDaS DPT model. spec: its sizes. transformers: whether the checkpoint has that library's layout. short:
    pixels of the short side in the published rule."""

    spec: Spec
    transformers: bool = False
    short: int = SHORT

    def adapt(self, checkpoint: Checkpoint) -> MiDaS:
        tensors = checkpoint.tensors
        transformers = "dpt.embeddings.cls_token" in tensors
        token = tensors.get("dpt.embeddings.cls_token" if transformers else "pretrained.model.cls_token")
        if token is not None and token.shape[-1] != self.spec.width:
            other = next((e for e in ESTIMATORS if e.spec.width == token.shape[-1]), None)
            looks = f"It looks like {other.name}; choose {other.id}, or" if other else "No such MiDaS model is known;"
            raise WeightsError(
                f"{self.name}: {checkpoint.path} belongs to another size: its tokens are {token.shape[-1]} wide, "
                f"expected {self.spec.width}. {looks} give another file."
            )
        return replace(self, transformers=transformers)

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        # The class in transformers has another epsilon in its norms than the official code.
        eps = checkpoint.number("layer_norm_eps", 1e-12) if self.transformers else 1e-6
        return MiDaSNetwork(self.spec, eps)

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return official_names(tensors, _NAMES) if self.transformers else tensors

    def tiny(self) -> MiDaS:
        if self.spec.stages:
            spec = Spec(32, 2, 2, (128, 128, 16, 16), 16, (0, 1), ((1, 128), (1, 128), (1, 128)))
        else:
            spec = Spec(32, 4, 2, (8, 8, 16, 16), 16, (0, 1, 2, 3))
        return replace(self, spec=spec, short=SHORT // 4, sources=())

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        if resolution is not None:
            network, way_in = controlnet_picture(height, width, resolution)
            return Fit((height, width), network, way_in, "bicubic")
        if self.transformers:
            return Fit((height, width), (self.short, self.short), "bilinear_pil", "bicubic")
        return Fit((height, width), minimal(height, width, self.short, 32), "bicubic", "bicubic")

    def signal(self, raw: Tensor) -> Depth:
        # Larger is closer already: the networks were trained on inverse depth, scale and shift left free.
        return Depth(raw[:, 0], "affine_inverse", source=self.name)


_EXTRAS = {
    "pretrained.model.norm.*": "the head sees the blocks' tokens as they are",
    "pretrained.model.head.*": "the classifier that the transformer was first trained with",
    "scratch.refinenet4.resConfUnit1.*": "the coarsest level has nothing to merge",
}
_LICENCE = Licence("MIT", True, "https://github.com/isl-org/MiDaS/blob/master/LICENSE")

ESTIMATORS = (
    MiDaS(
        id="midas-dpt-hybrid",
        name="MiDaS DPT-Hybrid",
        family="midas",
        produces=("depth",),
        licence=_LICENCE,
        parameters=121_196_289,
        sources=(
            published("lllyasviel/Annotators", "dpt_hybrid-midas-501f0c75.pt"),
            # Proposed to the repository, never merged into it.
            published("Intel/dpt-hybrid-midas", "model.safetensors", "transformers"),
            published("Intel/dpt-hybrid-midas", "pytorch_model.bin", "transformers"),
        ),
        about="The depth that the first depth and normal ControlNets were trained on.",
        memory=1600,
        tf32=False,
        channels_last=True,
        mean=HALF_MEAN,
        std=HALF_STD,
        extras=_EXTRAS,
        spec=HYBRID,
    ),
    MiDaS(
        id="midas-dpt-large",
        name="MiDaS DPT-Large",
        family="midas",
        produces=("depth",),
        licence=_LICENCE,
        parameters=341_848_257,
        sources=(
            published("https://github.com/isl-org/DPT/releases/download/1_0", "dpt_large-midas-2f21e586.pt"),
            published("Intel/dpt-large", "model.safetensors", "transformers"),
            published("Intel/dpt-large", "pytorch_model.bin", "transformers"),
        ),
        about="A pure transformer: smoother and slower than DPT-Hybrid.",
        memory=1600,
        tf32=True,
        channels_last=True,
        mean=HALF_MEAN,
        std=HALF_STD,
        extras=_EXTRAS,
        spec=LARGE,
    ),
)
