"""Depth Anything V1 and V2: relative inverse depth, and V2's metric models for indoor and outdoor scenes.

Yang et al., "Depth Anything", CVPR 2024 (LiheYoung/Depth-Anything), and "Depth Anything V2", NeurIPS 2024
(DepthAnything/Depth-Anything-V2). A DINOv2 transformer and a DPT head. The official files, Kijai's safetensors copies
and the repositories in the layout of transformers load. The last have a published rule of their own: another network
size, another filter, positions resized by size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence
from ..annotator.filters import Filter
from ..annotator.sizing import Fit, Size, round_to
from ..annotator.weights import Checkpoint, Source
from ..errors import WeightsError
from ..signals import Depth, DepthLook
from ..signals.depth import depth_from_metres
from ._dpt import (
    Scratch,
    lower_bound,
    minimal,
    official_names,
    place_by_scale,
    place_by_size,
    rescale,
    run_blocks,
    vision_transformer,
)
from ._sources import published

PATCH = 14
GRID = 37  # patches on each side of the position table
SHORT = GRID * PATCH  # pixels: the published network size


@dataclass(frozen=True)
class Spec:
    """The sizes of one network. width, depth, heads: of the transformer. gated: SwiGLU instead of GELU layers.
    channels, features: of the head. taps: the blocks whose tokens the head of V2 sees; V1 sees the last four.
    memory, parameters: see Estimator.
    """

    width: int
    depth: int
    heads: int
    channels: tuple[int, int, int, int]
    features: int
    taps: tuple[int, int, int, int]
    memory: int
    parameters: int
    gated: bool = False


SPECS = {
    "small": Spec(384, 12, 6, (48, 96, 192, 384), 64, (2, 5, 8, 11), 480, 24_710_849),
    "base": Spec(768, 12, 12, (96, 192, 384, 768), 128, (2, 5, 8, 11), 830, 97_174_849),
    "large": Spec(1024, 24, 16, (256, 512, 1024, 1024), 256, (4, 11, 17, 23), 1400, 334_134_465),
    "giant": Spec(1536, 40, 24, (1536, 1536, 1536, 1536), 384, (9, 19, 29, 39), 2700, 1_255_475_713, gated=True),
}


class Head(nn.Module):
    """Tokens (B,h*w,C) of four blocks to one map (B,1,14h,14w), before the last activation's unit."""

    def __init__(self, spec: Spec, last: nn.Module) -> None:
        super().__init__()
        half = spec.features // 2
        self.projects = nn.ModuleList(nn.Conv2d(spec.width, c, 1) for c in spec.channels)
        self.resize_layers = nn.ModuleList(rescale(level, c) for level, c in enumerate(spec.channels, 1))
        self.scratch: Any = Scratch(spec.channels, spec.features)
        self.scratch.output_conv1 = nn.Conv2d(spec.features, half, 3, padding=1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(half, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, 1, 1), last
        )

    def forward(self, tokens: list[Tensor], grid: Size) -> Tensor:
        maps = [
            rescaled(project(x.transpose(1, 2).unflatten(2, grid)))
            for x, project, rescaled in zip(tokens, self.projects, self.resize_layers, strict=True)
        ]
        x = self.scratch.output_conv1(self.scratch(maps))
        x = F.interpolate(x, (grid[0] * PATCH, grid[1] * PATCH), mode="bilinear", align_corners=True)
        return self.scratch.output_conv2(x)


class DepthAnythingNetwork(nn.Module):
    """Input: (B,3,h,w) normalised with the ImageNet mean and deviation, h and w multiples of 14.
    Output: (B,h,w), relative inverse depth of at least 0 (larger = closer), or with `reach` metres below `reach`.
    """

    def __init__(
        self, spec: Spec, taps: tuple[int, ...], reach: float | None, positions: Callable[[Tensor, Size], Tensor]
    ) -> None:
        super().__init__()
        self.taps, self.reach, self.positions = taps, reach, positions
        gated: dict[str, Any] = {}
        if spec.gated:
            from timm.layers.mlp import SwiGLUPacked

            # DINOv2 takes 2/3 of four widths for each of the two halves, 5.33 together.
            gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 5.33334}
        self.pretrained = vision_transformer(
            spec.width, spec.depth, spec.heads, grid=GRID, patch=PATCH, init_values=1.0, **gated
        )
        self.depth_head = Head(spec, nn.ReLU(inplace=True) if reach is None else nn.Sigmoid())

    def forward(self, pixels: Tensor) -> Tensor:
        tokens, grid = run_blocks(self.pretrained, pixels, self.taps, self.positions)
        depth = self.depth_head([self.pretrained.norm(x)[:, 1:] for x in tokens], grid)[:, 0]
        return depth if self.reach is None else depth * self.reach


NAMES = (
    (r"^backbone\.embeddings\.position_embeddings$", "pretrained.pos_embed"),
    (r"^backbone\.embeddings\.patch_embeddings\.projection\.", "pretrained.patch_embed.proj."),
    (r"^backbone\.embeddings\.", "pretrained."),
    (r"^backbone\.encoder\.layer\.", "pretrained.blocks."),
    (r"^backbone\.layernorm\.", "pretrained.norm."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.projection\.", r"depth_head.projects.\1."),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.resize\.", r"depth_head.resize_layers.\1."),
    (r"^head\.conv1\.", "scratch.output_conv1."),
    (r"^head\.conv2\.", "scratch.output_conv2.0."),
    (r"^head\.conv3\.", "scratch.output_conv2.2."),
    (r"^scratch\.", "depth_head.scratch."),
)


@dataclass(frozen=True, kw_only=True)
class DepthAnything(Estimator):
    """One Depth Anything model.

    spec: its sizes. taps: the blocks that the head sees. reach: metres that the metric head ends at, None =
    relative. way_out: the filter of the result. transformers: whether the checkpoint has that library's layout.
    short: pixels of the short side in the published rule.
    """

    spec: Spec
    taps: tuple[int, ...]
    reach: float | None = None
    way_out: Filter = "bilinear_corners"
    transformers: bool = False
    short: int = SHORT

    def adapt(self, checkpoint: Checkpoint) -> DepthAnything:
        tensors = checkpoint.tensors
        transformers = "backbone.embeddings.cls_token" in tensors
        token = tensors.get("backbone.embeddings.cls_token" if transformers else "pretrained.cls_token")
        if token is not None and token.shape[-1] != self.spec.width:
            raise WeightsError(self._other_size(checkpoint, token.shape[-1]))
        if not transformers:
            return self
        self._check_config(checkpoint)
        return replace(self, transformers=True, way_out="bicubic")

    def _other_size(self, checkpoint: Checkpoint, width: int) -> str:
        size = next((name for name, spec in SPECS.items() if spec.width == width), None)
        stem = self.id.rpartition("-")[0]
        wanted = next((e.id for e in ESTIMATORS if e.id == f"{stem}-{size}"), None)
        looks = f"It looks like the {size.capitalize()} model" if size else "No Depth Anything model has that"
        advice = f"choose {wanted}, or " if wanted else ""
        return (
            f"{self.name}: {checkpoint.path} belongs to another size: its tokens are {width} wide, expected "
            f"{self.spec.width}. {looks}; {advice}give another file."
        )

    def _check_config(self, checkpoint: Checkpoint) -> None:
        """The tensors of V1, V2 and the metric models have the same names and shapes; config.json tells them apart."""
        config = checkpoint.config or {}
        taps = checkpoint.setting("backbone_config.out_indices")
        if taps and taps != [tap + 1 for tap in self.taps]:
            raise WeightsError(
                f"{self.name}: {checkpoint.path} is the other version of Depth Anything: its config.json lists the "
                f"blocks {taps}, expected {[tap + 1 for tap in self.taps]} (V1 takes the last four). Choose the "
                "estimator of that version."
            )
        kind = config.get("depth_estimation_type", "relative")
        reach = checkpoint.number("max_depth", 1) if kind == "metric" else None
        if config and reach != self.reach:
            said = {r: f"metric up to {r:g} m" if r else "relative" for r in (reach, self.reach)}
            raise WeightsError(
                f"{self.name}: {checkpoint.path} is another kind of Depth Anything: its config.json says "
                f"{said[reach]}, expected {said[self.reach]}. Choose the estimator of that kind."
            )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        positions = partial(place_by_size, mode="bicubic") if self.transformers else place_by_scale
        return DepthAnythingNetwork(self.spec, self.taps, self.reach, positions)

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.transformers:
            return official_names(tensors, NAMES)
        if self.spec.gated:
            return {k.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."): t for k, t in tensors.items()}
        return tensors

    def tiny(self) -> DepthAnything:
        spec = Spec(32, 4, 2, (8, 8, 16, 16), 16, (0, 1, 2, 3), 0, 0, self.spec.gated)
        return replace(self, spec=spec, taps=spec.taps, short=GRID // 4 * PATCH, sources=())

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        if resolution is None and self.transformers:
            return Fit((height, width), minimal(height, width, self.short, PATCH), "bicubic_pil", self.way_out)
        least = self.short if resolution is None else round_to(resolution or min(height, width), PATCH)
        return Fit((height, width), lower_bound(height, width, least, PATCH), "bicubic", self.way_out)

    def signal(self, raw: Tensor) -> Depth:
        if self.reach is None:
            # Larger is closer already: the networks were trained on inverse depth, scale and shift left free.
            return Depth(raw[:, 0], "affine_inverse", source=self.name)
        # The metric head gives distance, larger = farther; Depth holds its inverse, and renders the metres themselves.
        return depth_from_metres(raw[:, 0], source=self.name, look=DepthLook("metres"))


# ---------------------------------------------------------------------------------------------- the models

_EXTRAS = {
    "pretrained.mask_token": "stands for hidden patches, in training only",
    "depth_head.scratch.refinenet4.resConfUnit1.*": "the coarsest level has nothing to merge",
}
_APACHE = Licence("Apache-2.0", True, "https://github.com/LiheYoung/Depth-Anything/blob/main/LICENSE")
_APACHE_V2 = Licence("Apache-2.0", True, "https://github.com/DepthAnything/Depth-Anything-V2#license")
_NC = Licence("CC-BY-NC-4.0", False, "https://github.com/DepthAnything/Depth-Anything-V2#license")
# The repositories of the metric Base and Large models say Apache-2.0; what they were tuned from is CC-BY-NC-4.0.
_MIXED = Licence(
    "Apache-2.0 by its repository, tuned from a CC-BY-NC-4.0 model",
    None,
    "https://github.com/DepthAnything/Depth-Anything-V2#license",
)
_KIJAI = "Kijai/DepthAnythingV2-safetensors"


def _hf(repo: str) -> Source:
    return published(repo, "model.safetensors", "transformers")


_SOURCES = {
    "depth-anything-v2-small": (
        published(_KIJAI, "depth_anything_v2_vits_fp32.safetensors"),
        published("depth-anything/Depth-Anything-V2-Small", "depth_anything_v2_vits.pth"),
        _hf("depth-anything/Depth-Anything-V2-Small-hf"),
        published(_KIJAI, "depth_anything_v2_vits_fp16.safetensors"),
    ),
    "depth-anything-v2-base": (
        published(_KIJAI, "depth_anything_v2_vitb_fp32.safetensors"),
        published("depth-anything/Depth-Anything-V2-Base", "depth_anything_v2_vitb.pth"),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Base-hf"),
        published(_KIJAI, "depth_anything_v2_vitb_fp16.safetensors"),
    ),
    "depth-anything-v2-large": (
        published(_KIJAI, "depth_anything_v2_vitl_fp32.safetensors"),
        published("depth-anything/Depth-Anything-V2-Large", "depth_anything_v2_vitl.pth"),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Large-hf"),
        published(_KIJAI, "depth_anything_v2_vitl_fp16.safetensors"),
    ),
    # Known by name only; the authors' page announced it for a long time before it linked it.
    "depth-anything-v2-giant": (published("depth-anything/Depth-Anything-V2-Giant", "depth_anything_v2_vitg.pth"),),
    "depth-anything-v2-metric-indoor-small": (
        # Known by name only, both.
        published(
            "depth-anything/Depth-Anything-V2-Metric-Hypersim-Small", "depth_anything_v2_metric_hypersim_vits.pth"
        ),
        _hf("depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"),
    ),
    "depth-anything-v2-metric-indoor-base": (
        published(
            "depth-anything/Depth-Anything-V2-Metric-Hypersim-Base", "depth_anything_v2_metric_hypersim_vitb.pth"
        ),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Indoor-Base-hf"),
    ),
    "depth-anything-v2-metric-indoor-large": (
        published(_KIJAI, "depth_anything_v2_metric_hypersim_vitl_fp32.safetensors"),
        published(
            "depth-anything/Depth-Anything-V2-Metric-Hypersim-Large", "depth_anything_v2_metric_hypersim_vitl.pth"
        ),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf"),
    ),
    "depth-anything-v2-metric-outdoor-small": (
        published("depth-anything/Depth-Anything-V2-Metric-VKITTI-Small", "depth_anything_v2_metric_vkitti_vits.pth"),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf"),
    ),
    "depth-anything-v2-metric-outdoor-base": (
        published("depth-anything/Depth-Anything-V2-Metric-VKITTI-Base", "depth_anything_v2_metric_vkitti_vitb.pth"),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Outdoor-Base-hf"),
    ),
    "depth-anything-v2-metric-outdoor-large": (
        published(_KIJAI, "depth_anything_v2_metric_vkitti_vitl_fp32.safetensors"),
        published("depth-anything/Depth-Anything-V2-Metric-VKITTI-Large", "depth_anything_v2_metric_vkitti_vitl.pth"),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf"),
    ),
    "depth-anything-small": (
        published("spaces/LiheYoung/Depth-Anything", "checkpoints/depth_anything_vits14.pth"),
        _hf("LiheYoung/depth-anything-small-hf"),
        # Known by name only.
        published("LiheYoung/depth_anything_vits14", "pytorch_model.bin"),
    ),
    "depth-anything-base": (
        published("spaces/LiheYoung/Depth-Anything", "checkpoints/depth_anything_vitb14.pth"),
        _hf("LiheYoung/depth-anything-base-hf"),
        # Known by name only.
        published("LiheYoung/depth_anything_vitb14", "pytorch_model.bin"),
    ),
    "depth-anything-large": (
        published("spaces/LiheYoung/Depth-Anything", "checkpoints/depth_anything_vitl14.pth"),
        _hf("LiheYoung/depth-anything-large-hf"),
        # Known by name only.
        published("LiheYoung/depth_anything_vitl14", "pytorch_model.bin"),
    ),
}


def _model(
    stem: str,
    name: str,
    size: str,
    licence: Licence,
    about: str,
    *,
    version: int = 2,
    reach: float | None = None,
) -> DepthAnything:
    spec = SPECS[size]
    id = f"{stem}-{size}"
    return DepthAnything(
        id=id,
        name=f"{name} {size.capitalize()}",
        family="depth_anything",
        produces=("depth",),
        licence=licence,
        parameters=spec.parameters,
        sources=_SOURCES[id],
        about=about,
        memory=spec.memory,
        half=size != "giant",  # which was not measured
        channels_last=True,
        extras=_EXTRAS,
        spec=spec,
        taps=spec.taps if version == 2 else tuple(range(spec.depth - 4, spec.depth)),
        reach=reach,
        way_out="bilinear_corners" if version == 2 else "bilinear",
    )


_V2 = "Relative depth with fine detail on any picture; "
_INDOOR = "Metres up to 20 m, for rooms; "
_OUTDOOR = "Metres up to 80 m, for streets; "
_V1 = "The first version: robust relative depth, softer detail than V2; "
_SPEED = {
    "small": "the fastest size.",
    "base": "the middle size.",
    "large": "a large network.",
    "giant": "the largest network.",
}

ESTIMATORS = (
    *(
        _model("depth-anything-v2", "Depth Anything V2", size, licence, _V2 + _SPEED[size])
        for size, licence in (("small", _APACHE_V2), ("base", _NC), ("large", _NC), ("giant", _NC))
    ),
    *(
        _model(
            f"depth-anything-v2-metric-{scene}",
            f"Depth Anything V2 Metric {scene.capitalize()}",
            size,
            licence,
            about + _SPEED[size],
            reach=reach,
        )
        for scene, about, reach in (("indoor", _INDOOR, 20.0), ("outdoor", _OUTDOOR, 80.0))
        for size, licence in (("small", _APACHE_V2), ("base", _MIXED), ("large", _MIXED))
    ),
    *(
        _model("depth-anything", "Depth Anything", size, _APACHE, _V1 + _SPEED[size], version=1)
        for size in ("small", "base", "large")
    ),
)
