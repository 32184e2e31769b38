"""MoGe-2: metric depth, normals, validity and the focal length from one picture, in one forward.

A DINOv2 transformer, a pyramid of convolutions over its tokens, and a head each for points, normals and validity; one
number per picture brings the points to metres. Source: Wang et al., "MoGe-2: Accurate Monocular Geometry with Metric
Scale and Sharp Details" (2025), github.com/microsoft/MoGe.

The network's camera looks along z with x right and y down, and its z grows with the distance. Fathom's normals are x
right, y up, z towards the viewer, so y and z change their sign here, and Depth holds 1 / z.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence, Option
from ..annotator.filters import resize
from ..annotator.sizing import Fit, Size
from ..annotator.weights import Checkpoint, Source
from ..errors import WeightsError
from ..signals import DepthLook, Normals, Signal
from ..signals.depth import depth_from_metres
from ..signals.normals import unit_vectors
from ._dpt import place_by_scale, run_blocks, vision_transformer
from ._focal import focal_and_shift
from ._uv import view_plane

PATCH = 14
GRID = 37  # patches on each side of the position table
LEVELS = 5  # of the pyramid, from the patch grid to 16 times it
TOKENS = 3600  # of the published default, the highest of its levels of detail


@dataclass(frozen=True)
class Spec:
    """The sizes of one network. width, depth, heads: of the transformer. taps: the blocks whose tokens are summed.
    channels: of the pyramid's levels, coarse to fine. neck, head: residual blocks of each level. memory, parameters:
    see Estimator.
    """

    width: int
    depth: int
    heads: int
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    neck: tuple[int, ...]
    head: tuple[int, ...] = (0, 1, 1, 1, 0)
    memory: int = 0
    parameters: int = 0


_PYRAMID = (256, 128, 64, 32)
_ONE, _TWO = (0, 1, 1, 1, 0), (0, 2, 2, 2, 0)
SPECS = {
    "small": Spec(384, 12, 6, (5, 11), (384, *_PYRAMID), _ONE, memory=1850, parameters=35_103_272),
    "base": Spec(768, 12, 12, (5, 11), (768, *_PYRAMID), _ONE, memory=1900, parameters=104_742_824),
    "large": Spec(1024, 24, 16, (5, 11, 17, 23), (1024, *_PYRAMID), _TWO, memory=2050, parameters=330_900_520),
}
TO_FATHOM = (1.0, -1.0, -1.0)
TINY = Spec(32, 4, 2, (1, 3), (32, 16, 16, 8, 8), _ONE)


def token_grid(height: int, width: int, tokens: int) -> Size:
    """(rows, columns) of the patch grid for a picture: its aspect, about `tokens` patches, at least one a side."""
    rows, columns = round(math.sqrt(tokens * height / width)), round(math.sqrt(tokens * width / height))
    return min(max(rows, 1), tokens), min(max(columns, 1), tokens)


# ---------------------------------------------------------------------------------------------- network


class Residual(nn.Module):
    """(B,c,h,w) plus two 3x3 convolutions of it, each behind a ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The places of norms that these files do without keep the published numbering.
        self.layers = nn.Sequential(
            nn.Identity(), nn.ReLU(), _convolution(channels, channels),
            nn.Identity(), nn.ReLU(), _convolution(channels, channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _convolution(channels: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, padding_mode="replicate")


def _enlarge(level: int, channels: int, out: int) -> nn.Sequential:
    """Twice the size; the last step is bilinear, the others learned."""
    if level < LEVELS - 2:
        return nn.Sequential(nn.ConvTranspose2d(channels, out, 2, stride=2), _convolution(out, out))
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), _convolution(channels, out))


class Pyramid(nn.Module):
    """Maps of five levels in, each twice as large as the one before, and a map of each level out.

    inputs: channels of the maps that come in. channels: inside. blocks: residual blocks of each level. out: channels
    of the finest map that leaves, None = all leave as they are.
    """

    def __init__(
        self, inputs: Sequence[int], channels: Sequence[int], blocks: Sequence[int], out: int | None = None
    ) -> None:
        super().__init__()
        self.input_blocks = nn.ModuleList(nn.Conv2d(i, c, 1) for i, c in zip(inputs, channels, strict=True))
        self.resamplers = nn.ModuleList(
            _enlarge(level, *pair) for level, pair in enumerate(zip(channels, channels[1:], strict=False))
        )
        self.res_blocks = nn.ModuleList(
            nn.Sequential(*(Residual(c) for _ in range(n))) for c, n in zip(channels, blocks, strict=True)
        )
        last = nn.Identity() if out is None else nn.Conv2d(channels[-1], out, 1)
        self.output_blocks = nn.ModuleList([*(nn.Identity() for _ in channels[1:]), last])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        x, leaving = maps[0], []
        for level, entering in enumerate(maps):
            entering = self.input_blocks[level](entering)
            x = entering if level == 0 else self.resamplers[level - 1](x) + entering
            x = self.res_blocks[level](x)
            leaving.append(self.output_blocks[level](x))
        return leaving


class Encoder(nn.Module):
    """(B,3,h,w) in 0..1, multiples of 14 -> the summed tokens (B,C,h/14,w/14) and the class token (B,C)."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.taps = spec.taps
        self.backbone = vision_transformer(spec.width, spec.depth, spec.heads, grid=GRID, patch=PATCH, init_values=1.0)
        self.output_projections = nn.ModuleList(nn.Conv2d(spec.width, spec.width, 1) for _ in spec.taps)
        self.register_buffer("image_mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("image_std", torch.ones(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = (pixels - self.image_mean) / self.image_std
        kept, grid = run_blocks(self.backbone, pixels, self.taps, place_by_scale)
        tokens = [self.backbone.norm(x) for x in kept]
        maps = [
            project(x[:, 1:].transpose(1, 2).unflatten(2, grid))
            for x, project in zip(tokens, self.output_projections, strict=True)
        ]
        total = maps[0]
        for other in maps[1:]:
            total = total + other
        return total, tokens[-1][:, 0]


class MoGeNetwork(nn.Module):
    """Input: pictures (B,3,H,W) in 0..1, of any size, not normalised.

    Output, at the pictures' size or at `size`: "points" (B,H,W,3), x right, y down, z forward, right up to a shift of
    z and the scale; "normal" (B,H,W,3), unit length, in the same frame; "mask" (B,H,W), how likely a point can be
    trusted, 0..1; "metric_scale" (B,), what the shifted points are multiplied by to be metres.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        first, *others = spec.channels
        self.encoder = Encoder(spec)
        self.neck = Pyramid([spec.width + 2, *(2 for _ in others)], spec.channels, spec.neck)
        self.points_head = Pyramid(spec.channels, spec.channels, spec.head, 3)
        self.mask_head = Pyramid(spec.channels, spec.channels, spec.head, 1)
        self.normal_head = Pyramid(spec.channels, spec.channels, spec.head, 3)
        layers = [nn.Linear(first, first), nn.ReLU(), nn.Linear(first, first), nn.ReLU(), nn.Linear(first, 1)]
        self.scale_head = nn.Sequential(*layers)

    def forward(self, pixels: Tensor, num_tokens: int = TOKENS, size: Size | None = None) -> dict[str, Tensor]:
        height, width = pixels.shape[-2:]
        grid = token_grid(height, width, num_tokens)
        inside = next(self.parameters()).dtype
        small = resize(pixels, (grid[0] * PATCH, grid[1] * PATCH), "bilinear_aa").to(inside)
        tokens, token = self.encoder(small)
        maps = self.neck(self._inputs(tokens, width / height))
        points, normal, mask = (
            # The activations come behind the resize: an exponential between two pixels is not their mean.
            resize(head(maps)[-1].float(), size or (height, width), "bilinear")
            for head in (self.points_head, self.normal_head, self.mask_head)
        )
        z = points[:, 2:].exp()
        return {
            "points": torch.cat([points[:, :2] * z, z], 1).movedim(1, -1),
            "normal": F.normalize(normal, dim=1).movedim(1, -1),
            "mask": mask[:, 0].sigmoid(),
            "metric_scale": self.scale_head(token).float()[:, 0].exp(),
        }

    def _inputs(self, tokens: Tensor, aspect: float) -> list[Tensor]:
        rows, columns = tokens.shape[-2:]
        planes = []
        for level in range(LEVELS):
            plane = view_plane(rows << level, columns << level, aspect).to(tokens)
            planes.append(plane.movedim(-1, 0).expand(len(tokens), -1, -1, -1))
        return [torch.cat([tokens, planes[0]], 1), *planes[1:]]


# ---------------------------------------------------------------------------------------------- estimator

_SAME = ("points_head", "normal_head", "mask_head")


@dataclass(frozen=True, kw_only=True)
class MoGe(Estimator):
    """One MoGe-2 model. spec: its sizes."""

    spec: Spec

    def adapt(self, checkpoint: Checkpoint) -> MoGe:
        """The estimator with the blocks that the file's own configuration names. Raises WeightsError for MoGe-1, for
        the variants without normals, for another size, and for a configuration that this network does not have."""
        tensors = checkpoint.tensors
        if "backbone.cls_token" in tensors or "head.projects.0.weight" in tensors:
            raise WeightsError(
                f"{self.name}: {checkpoint.path} looks like MoGe-1, which Fathom has not: give it the file of MoGe-2, "
                f"{self.sources[0].url if self.sources else 'model.pt'}."
            )
        token = tensors.get("encoder.backbone.cls_token")
        if token is None:
            return self
        if token.shape[-1] != self.spec.width:
            raise WeightsError(self._other_size(checkpoint, token.shape[-1]))
        if not any(key.startswith("normal_head.") for key in tensors):
            raise WeightsError(
                f"{self.name}: {checkpoint.path} is the variant of MoGe-2 without normals: give it the one whose "
                "repository ends in -normal."
            )
        return self._configured(checkpoint)

    def _other_size(self, checkpoint: Checkpoint, width: int) -> str:
        size = next((name for name, spec in SPECS.items() if spec.width == width), None)
        advice = f"It looks like moge-2-{size}: choose that, or" if size else "No MoGe-2 model has that:"
        return (
            f"{self.name}: {checkpoint.path} belongs to another size: its tokens are {width} wide, expected "
            f"{self.spec.width}. {advice} give another file."
        )

    def _configured(self, checkpoint: Checkpoint) -> MoGe:
        config = checkpoint.config or {}
        self._expect(checkpoint, "remap_output", config.get("remap_output"), "exp")
        for part in ("neck", *_SAME):
            settings = config.get(part)
            if not isinstance(settings, Mapping):
                continue
            for name in ("res_block_in_norm", "res_block_hidden_norm"):
                self._expect(checkpoint, f"{part}.{name}", settings.get(name), "none")
            ways = ["conv_transpose"] * (LEVELS - 2) + ["bilinear"]
            self._expect(checkpoint, f"{part}.resamplers", settings.get("resamplers"), ways)
        encoder = config.get("encoder")
        taps = encoder.get("intermediate_layers") if isinstance(encoder, Mapping) else None
        if taps is None:
            return self
        depth, count = self.spec.depth, len(self.spec.taps)
        whole = isinstance(taps, list) and all(isinstance(tap, int) for tap in taps)
        if not whole or len(taps) != count or taps != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < depth:
            wanted = f"{count} of its {depth} blocks in order, such as {list(self.spec.taps)}"
            raise WeightsError(self._unfit(checkpoint, "encoder.intermediate_layers", taps, wanted))
        return replace(self, spec=replace(self.spec, taps=tuple(taps)))

    def _expect(self, checkpoint: Checkpoint, key: str, value: Any, wanted: Any) -> None:
        if value is not None and value != wanted:
            raise WeightsError(self._unfit(checkpoint, key, value, repr(wanted)))

    def _unfit(self, checkpoint: Checkpoint, key: str, value: Any, wanted: str) -> str:
        return (
            f"{self.name}: {checkpoint.path} holds the configuration of another network: {key} is {value!r}, expected "
            f"{wanted}. Give it the published file."
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return MoGeNetwork(self.spec)

    def tiny(self) -> MoGe:
        options = tuple(replace(o, default=24) if o.name == "num_tokens" else o for o in self.options)
        return replace(self, spec=TINY, options=options, sources=())

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        return self.plan(height, width, resolution, self.settings({}))

    def plan(self, height: int, width: int, resolution: int | None, options: Mapping[str, Any]) -> Fit:
        """`num_tokens` says what the transformer sees; `resolution` is the result's alone."""
        rows, columns = token_grid(height, width, options["num_tokens"])
        return Fit((height, width), (rows * PATCH, columns * PATCH), "bilinear_aa", "bilinear")

    def infer(
        self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> dict[str, Signal]:
        """ "depth": metric, valid where the network trusts it and it lies ahead, with the focal length; "normals",
        valid in the same places."""
        raw = network(pixels, options["num_tokens"], size)
        points, height, width = raw["points"], *size
        solved = [focal_and_shift(p, m) for p, m in zip(points, raw["mask"] > 0.5, strict=True)]
        focal, shift = points.new_tensor(solved).unbind(1)
        z = points[..., 2] + shift[:, None, None]
        valid = (raw["mask"] > 0.5) & (z > 0)
        # The solver's unit is half the diagonal. A camera that looks backwards is no solution; 1 is what the published
        # code says where it finds none.
        focal = torch.where(focal > 0, focal, 1.0) * (math.hypot(width, height) / 2)
        depth = depth_from_metres(
            z * raw["metric_scale"][:, None, None],
            valid=valid,
            focal=focal[:, None].repeat(1, 2),
            source=self.name,
            look=DepthLook("values", 0.1, 99.0),
            principal=points.new_tensor([(width - 1) / 2, (height - 1) / 2]).repeat(len(points), 1),
        )
        vectors = unit_vectors(raw["normal"]) * points.new_tensor(TO_FATHOM)
        return {"depth": depth, "normals": Normals(vectors, depth.valid, self.name)}

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        """As `Estimator.memory_required`, and what the heads hold at the picture's own size."""
        return super().memory_required(batch, fit, dtype) + batch * fit.source[0] * fit.source[1] * 96


# ---------------------------------------------------------------------------------------------- the models

_MIT = Licence("MIT", True, "https://github.com/microsoft/MoGe/blob/main/LICENSE")
_PUBLISHED = {
    "small": ("s", "79a16621928c2bf0ed04659218c55c01075e950507f40bb3332fb4c873d3e1dc", 140550416),
    "base": ("b", "16b8110e86d5dc5a849db120ca96ef3a223fd30b0c9146d1d81db504073da5f6", 419110160),
    "large": ("l", "280741fd09bc3f403ccff9967784c2a391b52d2c0742ae3efdb21d9f90cc1a01", 1323815904),
}
_SPEED = {"small": "the fastest size.", "base": "the middle size.", "large": "the largest size."}


def _model(size: str) -> MoGe:
    letter, sha256, length = _PUBLISHED[size]
    return MoGe(
        id=f"moge-2-{size}",
        name=f"MoGe-2 {size.capitalize()}",
        family="moge",
        produces=("depth", "normals"),
        licence=_MIT,
        parameters=SPECS[size].parameters,
        sources=(Source(f"Ruicheng/moge-2-vit{letter}-normal", "model.pt", sha256=sha256, size=length),),
        about="Metres, normals and the focal length in one pass, on any picture; " + _SPEED[size],
        memory=SPECS[size].memory,
        options=(
            Option(
                "num_tokens",
                TOKENS,
                1,
                16384,
                about="Patches that the transformer sees, 1200 to 3600 as it was trained; more give more detail.",
            ),
        ),
        extras={"encoder.backbone.mask_token": "stands for hidden patches, in training only"},
        channels_last=False,
        spec=SPECS[size],
    )


ESTIMATORS = tuple(_model(size) for size in SPECS)
