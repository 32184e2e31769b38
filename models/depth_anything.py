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
from ..annotator.sizing import Filter, Fit, Size, round_to
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
        self, spec: Spec, taps: tuple[int, ...], reach: float | None, place: Callable[[Tensor, Size], Tensor]
    ) -> None:
        super().__init__()
        self.taps, self.reach, self.place = taps, reach, place
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
        tokens, grid = run_blocks(self.pretrained, pixels, self.taps, self.place)
        depth = self.depth_head([self.pretrained.norm(x)[:, 1:] for x in tokens], grid)[:, 0]
        return depth if self.reach is None else depth * self.reach


_NAMES = (
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
        place = partial(place_by_size, mode="bicubic") if self.transformers else place_by_scale
        return DepthAnythingNetwork(self.spec, self.taps, self.reach, place)

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.transformers:
            return official_names(tensors, _NAMES)
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


def _hf(repo: str, sha256: str | None = None, revision: str = "main") -> Source:
    return Source(repo, "model.safetensors", "transformers", sha256=sha256, revision=revision)


_SOURCES = {
    "depth-anything-v2-small": (
        Source(
            _KIJAI,
            "depth_anything_v2_vits_fp32.safetensors",
            sha256="cb2d537ed6e45921f27f61f0b605dcfafb6b97c7d1a15e551280bdd867605c86",
            size=99165460,
            revision="43285a591f11e5c514987f456f21456c97188204",
        ),
        Source(
            "depth-anything/Depth-Anything-V2-Small",
            "depth_anything_v2_vits.pth",
            sha256="715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378",
            size=99218434,
            revision="65ae6e3ee054faf5f2a0b3d079fbf181aaad86a0",
        ),
        _hf(
            "depth-anything/Depth-Anything-V2-Small-hf",
            "3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
            "5426e4f0f36572d16453bbda7a8389317b1bef99",
        ),
        Source(
            _KIJAI,
            "depth_anything_v2_vits_fp16.safetensors",
            sha256="a7c1a8c8cdd7885fb8391069cd1eee789126c8d896f7de6750499b1097f817ea",
            size=49595202,
            revision="b26fb38c9d69b776652d9cf1f56b4072e56c7e4d",
        ),
    ),
    "depth-anything-v2-base": (
        Source(
            _KIJAI,
            "depth_anything_v2_vitb_fp32.safetensors",
            sha256="faf1f5673511fb897525781a177c5001fc790c266cff518b95e516f4912cc42b",
            size=389908700,
            revision="43285a591f11e5c514987f456f21456c97188204",
        ),
        Source(
            "depth-anything/Depth-Anything-V2-Base",
            "depth_anything_v2_vitb.pth",
            sha256="0d2b7002e62d39d655571c371333340bd88f67ab95050c03591555aa05645328",
            size=389961218,
            revision="f11825d6a03793a70dfb594c89a0e990986de230",
        ),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Base-hf", revision="b1958afc87fb45a9e3746cb387596094de553ed8"),
        Source(
            _KIJAI,
            "depth_anything_v2_vitb_fp16.safetensors",
            sha256="386758cbd2a2cac62ca62286d3ba810734561b3097d86a585dd3dac357153941",
            size=194967018,
            revision="43285a591f11e5c514987f456f21456c97188204",
        ),
    ),
    "depth-anything-v2-large": (
        Source(
            _KIJAI,
            "depth_anything_v2_vitl_fp32.safetensors",
            sha256="203aba6a1b551aa6a1818652b92ac9a43a50fdc7daef9780eb265e4ee9c7521e",
            size=1341306404,
            revision="c7612d063b872d3ad95949ef4ff9d3e4b2ab4274",
        ),
        Source(
            "depth-anything/Depth-Anything-V2-Large",
            "depth_anything_v2_vitl.pth",
            sha256="a7ea19fa0ed99244e67b624c72b8580b7e9553043245905be58796a608eb9345",
            size=1341395338,
            revision="129f0ac32e2ce7c16f945b2c62bac6e09dd6cb87",
        ),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Large-hf"),
        Source(
            _KIJAI,
            "depth_anything_v2_vitl_fp16.safetensors",
            sha256="f075a9099f94bae54a5bfe21a1423346429309bae40abb85b9935985b1f35a09",
            size=670674810,
            revision="ee1eee1fc40404a6f66f580d5ed9287c6ee0ebe1",
        ),
    ),
    # Known by name only; the authors' page announced it for a long time before it linked it.
    "depth-anything-v2-giant": (Source("depth-anything/Depth-Anything-V2-Giant", "depth_anything_v2_vitg.pth"),),
    "depth-anything-v2-metric-indoor-small": (
        # Known by name only, both.
        Source("depth-anything/Depth-Anything-V2-Metric-Hypersim-Small", "depth_anything_v2_metric_hypersim_vits.pth"),
        _hf("depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"),
    ),
    "depth-anything-v2-metric-indoor-base": (
        Source(
            "depth-anything/Depth-Anything-V2-Metric-Hypersim-Base",
            "depth_anything_v2_metric_hypersim_vitb.pth",
            sha256="9dc9e274c5eff55c6daf27b660c0ced0eca4e8593a6da90cdcb04d2b4d3f3fa2",
        ),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Indoor-Base-hf"),
    ),
    "depth-anything-v2-metric-indoor-large": (
        Source(
            _KIJAI,
            "depth_anything_v2_metric_hypersim_vitl_fp32.safetensors",
            sha256="76bc12f47f4fc543d67d4c3b695d09ae5399aa2f212382a204965a9aca4dc8bd",
            size=1341306404,
            revision="a0553a672ad67f58cfb110a5a5c244a167f672bc",
        ),
        Source(
            "depth-anything/Depth-Anything-V2-Metric-Hypersim-Large",
            "depth_anything_v2_metric_hypersim_vitl.pth",
            sha256="6f82ff2bc543ac02ddff4aa31fa363676a8305dd3ccf04e80e2af115a044cb6d",
            revision="2c34ee4472cd0e02174fef0a39376cbdcbad295c",
        ),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Indoor-Large-hf"),
    ),
    "depth-anything-v2-metric-outdoor-small": (
        Source(
            "depth-anything/Depth-Anything-V2-Metric-VKITTI-Small",
            "depth_anything_v2_metric_vkitti_vits.pth",
            sha256="9203e538d35255c90dda4b7fedb47ff33fe725497bcca3b1e53b3a65ee63f0cb",
            revision="a49638011c708103f1f0fcbdf138392539558bca",
        ),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf"),
    ),
    "depth-anything-v2-metric-outdoor-base": (
        Source(
            "depth-anything/Depth-Anything-V2-Metric-VKITTI-Base",
            "depth_anything_v2_metric_vkitti_vitb.pth",
            sha256="4dad67a7cc10b462bca48e6b8569c762b8eb3c1adada170a3851a6d3ba37bb3e",
            size=389964656,
            revision="c3208e5f0ea82b95f0e418ce28008d8aed48d205",
        ),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Outdoor-Base-hf"),
    ),
    "depth-anything-v2-metric-outdoor-large": (
        Source(
            _KIJAI,
            "depth_anything_v2_metric_vkitti_vitl_fp32.safetensors",
            sha256="eebc4c27a8067bf904c26c51e648dd17d47cada7cff61267393eda06cd8b649b",
            size=1341306404,
            revision="5aa7ab578df757d94c743998b157a0204ff29215",
        ),
        Source(
            "depth-anything/Depth-Anything-V2-Metric-VKITTI-Large",
            "depth_anything_v2_metric_vkitti_vitl.pth",
            sha256="239b1054a369e66da2576e9a118d6d7c12d90dc8ebe609579a9a09cd8e05fe38",
            size=1341401064,
            revision="d749ee03c2788eea07378440e26a530442dc4fc9",
        ),
        # Known by name only.
        _hf("depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf"),
    ),
    "depth-anything-small": (
        Source(
            "spaces/LiheYoung/Depth-Anything",
            "checkpoints/depth_anything_vits14.pth",
            sha256="59afe57cfd9f4284deaf5b753d954723d7136ae842fba3e068ba03537ca1e60e",
        ),
        _hf(
            "LiheYoung/depth-anything-small-hf",
            "7997c812d8964a741eec21e6816ec2db1e442b5109ea2e7db26dcb03c9060ef0",
            "16030b54c8f28bf6a81db58d5d738ac990a3f0a8",
        ),
        # Known by name only.
        Source("LiheYoung/depth_anything_vits14", "pytorch_model.bin"),
    ),
    "depth-anything-base": (
        Source(
            "spaces/LiheYoung/Depth-Anything",
            "checkpoints/depth_anything_vitb14.pth",
            sha256="64ae214ae4e27424b644c49464c0aa243016f6f753d95097c8eb9ad0b9cb2d9b",
        ),
        _hf(
            "LiheYoung/depth-anything-base-hf",
            "91a6561491e7cca06cec2522f2353037f59a8d8ec8e3436a7520883d1cf99d65",
        ),
        # Known by name only.
        Source("LiheYoung/depth_anything_vitb14", "pytorch_model.bin"),
    ),
    "depth-anything-large": (
        Source(
            "spaces/LiheYoung/Depth-Anything",
            "checkpoints/depth_anything_vitl14.pth",
            sha256="6c6a383e33e51c5fdfbf31e7ebcda943973a9e6a1cbef1564afe58d7f2e8fe63",
            size=1341401882,
        ),
        _hf(
            "LiheYoung/depth-anything-large-hf",
            "bc27360a3e6906e5ddd8f618e2dcde11362327361918b8f76793e42e25de31b3",
            "27ccb0920352c0c37b3a96441873c8d37bd52fb6",
        ),
        # Known by name only.
        Source("LiheYoung/depth_anything_vitl14", "pytorch_model.bin"),
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
