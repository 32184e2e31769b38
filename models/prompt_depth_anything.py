"""Prompt Depth Anything: metric depth of a photo from a coarse measured map of it (Lin et al., CVPR 2025, 2412.14015).

Depth Anything V2 whose head also sees a depth map in metres at each of its four levels: 256x192 of a phone's LiDAR, for
one. The result never leaves the map's range. Both published layouts load, each with its publisher's rule: the authors'
checkpoint (DepthAnything/PromptDA) and the folder in the layout of transformers differ by a tenth of the range away
from 518x518, because they place positions in different ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence, Option
from ..annotator.sizing import Fit, Size, bounded
from ..annotator.weights import Checkpoint
from ..errors import SettingError, WeightsError
from ..signals import Depth, DepthLook
from ..signals.depth import depth_from_metres
from ..signals.field import fill_smoothly
from ._dpt import (
    Scratch,
    minimal,
    official_names,
    place_by_scale,
    place_by_size,
    rescale,
    run_blocks,
    vision_transformer,
)
from ._sources import published
from .depth_anything import GRID, PATCH, SPECS, Spec
from .depth_anything import NAMES as DEPTH_ANYTHING_NAMES

LARGEST = 1008  # pixels of the long side, the authors' default
SHORT = 756  # pixels that one side becomes in transformers' processor

# ---------------------------------------------------------------------------------------------- network


class PromptScratch(Scratch):
    """The fusion of Depth Anything with a measured map (B,1,H,W) in 0..1 added at each level."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec.channels, spec.features)
        for level in range(1, 5):
            fusion: Any = getattr(self, f"refinenet{level}")
            fusion.resConfUnit_depth = nn.Sequential(
                *(nn.Conv2d(1, spec.features, 3, padding=1), nn.ReLU()),
                *(nn.Conv2d(spec.features, spec.features, 3, padding=1), nn.ReLU()),
                nn.Conv2d(spec.features, spec.features, 3, padding=1),
            )

    def fuse(self, maps: list[Tensor], prompt: Tensor) -> Tensor:
        """Four maps of 4, 2, 1 and 1/2 times the patch grid and the prompt to one map of 8 times."""
        even = [getattr(self, f"layer{level}_rn")(x) for level, x in enumerate(maps, 1)]
        path: Tensor | None = None
        for level in (4, 3, 2, 1):
            step, fine = getattr(self, f"refinenet{level}"), even[level - 1]
            x = fine if path is None else path + step.resConfUnit1(fine)
            shown = F.interpolate(prompt, x.shape[-2:], mode="bilinear", align_corners=False)
            x = step.out_conv(step.resConfUnit2(x) + step.resConfUnit_depth(shown))
            size = even[level - 2].shape[-2:] if level > 1 else (2 * x.shape[-2], 2 * x.shape[-1])
            path = F.interpolate(x, size, mode="bilinear", align_corners=True)
        assert path is not None  # noqa: S101 - the loop has run
        return path


class Head(nn.Module):
    """Tokens (B,h*w,C) of four blocks and the prompt to one map (B,1,14h,14w) in 0..1."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        half = spec.features // 2
        self.projects = nn.ModuleList(nn.Conv2d(spec.width, c, 1) for c in spec.channels)
        self.resize_layers = nn.ModuleList(rescale(level, c) for level, c in enumerate(spec.channels, 1))
        self.scratch: Any = PromptScratch(spec)
        self.scratch.output_conv1 = nn.Conv2d(spec.features, half, 3, padding=1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(half, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, 1, 1), nn.Sigmoid()
        )

    def forward(self, tokens: list[Tensor], grid: Size, prompt: Tensor) -> Tensor:
        maps = [
            rescaled(project(x.transpose(1, 2).unflatten(2, grid)))
            for x, project, rescaled in zip(tokens, self.projects, self.resize_layers, strict=True)
        ]
        x = self.scratch.output_conv1(self.scratch.fuse(maps, prompt))
        x = F.interpolate(x, (grid[0] * PATCH, grid[1] * PATCH), mode="bilinear", align_corners=True)
        return self.scratch.output_conv2(x)


class PromptDepthAnythingNetwork(nn.Module):
    """Input: (B,3,h,w) normalised with the ImageNet mean and deviation, h and w multiples of 14, and a prompt
    (B,1,h',w') in metres of any size, measured everywhere. Output: metres (B,h,w), larger = farther, float32."""

    def __init__(self, spec: Spec, positions: Callable[[Tensor, Size], Tensor]) -> None:
        super().__init__()
        self.taps, self.positions = spec.taps, positions
        self.pretrained = vision_transformer(
            spec.width, spec.depth, spec.heads, grid=GRID, patch=PATCH, init_values=1.0
        )
        self.depth_head = Head(spec)

    def forward(self, pixels: Tensor, prompt: Tensor) -> Tensor:
        prompt = prompt.float()
        nearest, farthest = prompt.amin((1, 2, 3), keepdim=True), prompt.amax((1, 2, 3), keepdim=True)
        # A map of one distance has no range to divide by: it becomes 0, and the result that distance.
        share = (prompt - nearest) / (farthest - nearest).clamp_min(torch.finfo(prompt.dtype).tiny)
        tokens, grid = run_blocks(self.pretrained, pixels, self.taps, self.positions)
        normed = [self.pretrained.norm(x)[:, 1:] for x in tokens]
        depth = self.depth_head(normed, grid, share.to(pixels.dtype)).float()
        return (depth * (farthest - nearest) + nearest)[:, 0]


_NAMES = (
    (
        r"^(scratch\.refinenet\d)\.prompt_depth_layer\.convolution(\d)\.",
        lambda m: f"{m[1]}.resConfUnit_depth.{2 * int(m[2]) - 2}.",
    ),
    *DEPTH_ANYTHING_NAMES,
)
_CLASS = "pretrained.cls_token"


def measured_everywhere(metres: Tensor, valid: Tensor | None) -> Tensor:
    """metres (B,H,W) with every pixel that `valid` excludes filled from its surroundings, smoothly.

    Raises SettingError for a picture of which nothing is measured.
    """
    known = metres > 0 if valid is None else valid & (metres > 0)
    known = known & metres.isfinite()
    for number, seen in enumerate(known):
        if not bool(seen.any()):
            raise SettingError(
                f"picture {number + 1} of the measured depth has no valid pixel: there is nothing to complete. A LiDAR "
                "map is empty where its confidence was cut off; lower the confidence that you ask for."
            )
    if bool(known.all()):
        return metres
    return fill_smoothly(metres[:, None], known[:, None])[:, 0]


# ---------------------------------------------------------------------------------------------- estimator


@dataclass(frozen=True, kw_only=True)
class PromptDepthAnything(Estimator):
    """One Prompt Depth Anything model. spec: its sizes. transformers: whether the checkpoint has that library's layout.
    short: pixels that one side becomes in that layout's rule."""

    spec: Spec
    transformers: bool = False
    short: int = SHORT

    def adapt(self, checkpoint: Checkpoint) -> PromptDepthAnything:
        tensors = checkpoint.tensors
        transformers = "backbone.embeddings.cls_token" in tensors
        names = tensors if transformers else _without_prefix(tensors)
        token = names.get("backbone.embeddings.cls_token" if transformers else _CLASS)
        if token is not None and token.shape[-1] != self.spec.width:
            raise WeightsError(
                f"{self.name}: {checkpoint.path} belongs to another size: its tokens are {token.shape[-1]} wide, "
                f"expected {self.spec.width}. Give the file of the size that you chose."
            )
        if token is not None and not any("resConfUnit_depth" in k or "prompt_depth_layer" in k for k in names):
            raise WeightsError(
                f"{self.name}: {checkpoint.path} takes no measured depth: it looks like Depth Anything V2. Choose that "
                "estimator, or give another file."
            )
        return replace(self, transformers=transformers)

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        positions = partial(place_by_size, mode="bicubic") if self.transformers else place_by_scale
        return PromptDepthAnythingNetwork(self.spec, positions)

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return official_names(tensors, _NAMES) if self.transformers else _without_prefix(tensors)

    def tiny(self) -> PromptDepthAnything:
        spec = Spec(32, 4, 2, (8, 8, 16, 16), 16, (0, 1, 2, 3), 0, 0)
        small = replace(_MAX_SIZE, default=GRID // 4 * PATCH)
        return replace(self, spec=spec, short=GRID // 4 * PATCH, options=(small,), sources=())

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        return self.plan(height, width, resolution, {option.name: option.default for option in self.options})

    def plan(self, height: int, width: int, resolution: int | None, options: Mapping[str, Any]) -> Fit:
        """The network's size follows the layout's rule alone: the authors' takes the long side down to `max_size`."""
        if self.transformers:
            return Fit((height, width), minimal(height, width, self.short, PATCH), "bicubic_pil", "bicubic")
        most = options["max_size"] // PATCH * PATCH
        scale = min(1.0, most / max(height, width))
        tall, wide = bounded(height * scale, width * scale, PATCH)
        network = max(int(tall // PATCH) * PATCH, PATCH), max(int(wide // PATCH) * PATCH, PATCH)
        shrinks = network[0] <= height and network[1] <= width
        return Fit((height, width), network, "area_float" if shrinks else "bilinear", "bilinear")

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        """Metres (B,1,height,width). options["prompt"]: a metric Depth of these pictures, of any size."""
        prompt: Depth = options["prompt"].to(str(pixels.device))
        metres = measured_everywhere(prompt.metres(), prompt.valid)
        inside = next(network.parameters()).dtype
        raw = network(self.normalise(fit.enter(pixels)).to(inside), metres[:, None])
        return fit.leave(raw[:, None], size)

    def signal(self, raw: Tensor) -> Depth:
        return depth_from_metres(raw[:, 0], source=self.name, look=DepthLook("metres"))


def _without_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' checkpoint holds the network inside a training module, whose name stands before every key."""
    prefix = next((key.removesuffix(_CLASS) for key in tensors if key.endswith(_CLASS)), "")
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}


# ---------------------------------------------------------------------------------------------- the models

_MAX_SIZE = Option(
    "max_size",
    LARGEST,
    least=PATCH,
    most=4032,
    about="Longest side in pixels that the network sees, by the authors' checkpoint; 1008 as published.",
)

ESTIMATORS = (
    PromptDepthAnything(
        id="prompt-depth-anything-small",
        name="Prompt Depth Anything Small",
        family="prompt_depth_anything",
        produces=("depth",),
        # The code is Apache-2.0; nothing is said of the weights where the project could look.
        licence=Licence("not stated", None, "https://github.com/DepthAnything/PromptDA"),
        parameters=25_008_833,
        sources=(
            published("depth-anything/prompt-depth-anything-vits", "model.ckpt"),
            published("depth-anything/prompt-depth-anything-vits-hf", "model.safetensors", "transformers"),
        ),
        about="Metres at the photo's size from a coarse measured depth, such as a phone's LiDAR; needs that depth.",
        memory=420,
        options=(_MAX_SIZE,),
        channels_last=True,
        takes=("depth",),
        extras={
            "pretrained.mask_token": "stands for hidden patches, in training only",
            "depth_head.scratch.refinenet4.resConfUnit1.*": "the coarsest level has nothing to merge",
            "_mean": "the mean of the normalisation, which is the estimator's own",
            "_std": "the deviation of the normalisation, which is the estimator's own",
        },
        spec=SPECS["small"],
    ),
)
