"""ZoeDepth: metric depth from one picture, in metres.

A MiDaS DPT network over BEiT-L gives features at five scales; a head turns them into a distribution over distances
for every pixel. N was finished on indoor pictures (NYU Depth v2), K on streets (KITTI), NK carries a head for each and
chooses by the picture. Source: Bhat et al., "ZoeDepth: Zero-shot Transfer by Combining Relative and Metric Depth"
(arXiv 2302.12288), github.com/isl-org/ZoeDepth, on github.com/isl-org/MiDaS.

The network is written here, on torch alone, with the parameter names of the official files. The classes at hand cost
accuracy or time: timm's BEiT holds one window size, transformers' class lets the pictures of a batch vote for one
common head, controlnet-aux's patches timm, and all of them gather the position bias of each layer element by element.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import HALF_MEAN, HALF_STD, Estimator, Licence, Option
from ..annotator.filters import Filter, resize
from ..annotator.sizing import Fit, Size, bounded, round_to
from ..annotator.weights import Checkpoint, Source
from ..errors import WeightsError
from ..signals import Depth, DepthLook
from ..signals.depth import depth_from_metres
from ._controlnet import controlnet_picture
from ._dpt import Scratch, official_names, rescale
from ._sources import published

Variant = Literal["n", "k", "nk"]

ATTRACTORS = (16, 8, 4, 1)
NEAREST = 1e-3  # metres: the least distance that the bins of any variant can name

# The position bias of one layer holds heads * tokens^2 numbers: 1 GB at this size.
_MOST_NETWORK_PIXELS = 1024 * 1024


@dataclass(frozen=True)
class Architecture:
    """The sizes of a ZoeDepth network; the defaults are those of all published ones."""

    width: int = 1024
    depth: int = 24
    heads: int = 16
    window: int = 24
    taps: tuple[int, int, int, int] = (5, 11, 17, 23)
    reassembled: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    features: int = 256
    relative: int = 32
    embedding: int = 128
    bins: int = 64
    norm_eps: float = 1e-6


TINY = Architecture(
    width=16, depth=4, heads=2, taps=(0, 1, 2, 3), reassembled=(8, 8, 16, 16), features=8, relative=4, bins=8
)


def _upsample(x: Tensor, size: Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


# ---------------------------------------------------------------------------------------------- BEiT


class Attention(nn.Module):
    """Self-attention with a learned bias for every relative position, for any grid. (B,1+h*w,c) -> the same."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.empty(width))
        self.v_bias = nn.Parameter(torch.empty(width))
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2 + 3, heads))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, grid: Size) -> Tensor:
        batch, count, width = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).view(batch, count, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        # Keys in reverse order leave the result as it is and let the bias be one plain copy.
        x = F.scaled_dot_product_attention(q, k.flip(2), v.flip(2), attn_mask=self._bias(grid))
        return self.proj(x.transpose(1, 2).reshape(batch, count, width))

    def _bias(self, grid: Size) -> Tensor:
        """(1, heads, 1+h*w queries, 1+h*w keys in reverse order); row 0 and the last column are the class token's."""
        height, width = grid
        table, side = self.relative_position_bias_table.T, 2 * self.window - 1
        between = table[:, :-3].reshape(1, self.heads, side, side)
        if (2 * height - 1, 2 * width - 1) != (side, side):
            between = F.interpolate(between, (2 * height - 1, 2 * width - 1), mode="bilinear")
        count = height * width
        bias = table.new_empty(self.heads, count + 1, count + 1)
        # Query (y, x) and key (h-1-v, w-1-u) are (y+v, x+u) apart, counted from the table's corner: a sliding window.
        patches = bias[:, 1:, :-1].unflatten(1, grid).unflatten(3, grid)
        patches.copy_(between[0].unfold(1, height, 1).unfold(2, width, 1))
        bias[:, 0, :-1] = table[:, -3, None]
        bias[:, 1:, -1] = table[:, -2, None]
        bias[:, 0, -1] = table[:, -1]
        return bias[None]


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each normalised before, scaled after, and added. (B,n,c) -> (B,n,c)."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.empty(a.width))
        self.gamma_2 = nn.Parameter(torch.empty(a.width))
        self.norm1 = nn.LayerNorm(a.width, a.norm_eps)
        self.attn = Attention(a.width, a.heads, a.window)
        self.norm2 = nn.LayerNorm(a.width, a.norm_eps)
        self.mlp = Mlp(a.width)

    def forward(self, x: Tensor, grid: Size) -> Tensor:
        x = x + self.gamma_1 * self.attn(self.norm1(x), grid)
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Beit(nn.Module):
    """(B,3,h,w), multiples of 16 -> the tokens after the tapped blocks, class token first, and their grid."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.taps = a.taps
        self.cls_token = nn.Parameter(torch.empty(1, 1, a.width))
        self.patch_embed = PatchEmbed(a.width)
        self.blocks = nn.ModuleList(Block(a) for _ in range(a.depth))

    def forward(self, x: Tensor) -> tuple[list[Tensor], Size]:
        x = self.patch_embed(x)
        grid = (x.shape[-2], x.shape[-1])
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1)
        tapped = []
        for index, block in enumerate(self.blocks):
            x = block(x, grid)
            if index in self.taps:
                tapped.append(x)
        return tapped, grid


# ---------------------------------------------------------------------------------------------- DPT


class Readout(nn.Module):
    """The class token mixed into every patch token. (B,1+n,c) -> (B,n,c)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        linear: Any = self.project[0]
        of_patch, of_class = linear.weight.chunk(2, 1)
        # The class token's share is the same for every patch: one product instead of n.
        return F.gelu(F.linear(x[:, 1:], of_patch) + F.linear(x[:, :1], of_class, linear.bias))


class Reassemble(nn.ModuleDict):
    """Tokens as a feature map at 1/4, 1/8, 1/16 or 1/32 of the input (level 1 to 4); names as in the official file."""

    def __init__(self, width: int, channels: int, level: int) -> None:
        super().__init__({"0": Readout(width), "3": nn.Conv2d(width, channels, 1), "4": rescale(level, channels)})

    def forward(self, x: Tensor, grid: Size) -> Tensor:
        x = self["0"](x).transpose(1, 2).unflatten(2, grid)
        return self["4"](self["3"](x))


class Pretrained(nn.Module):
    """The backbone with its four reassembling stages. (B,3,h,w) -> four feature maps, finest first."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.model = Beit(a)
        for level, channels in enumerate(a.reassembled, 1):
            self.add_module(f"act_postprocess{level}", Reassemble(a.width, channels, level))

    def forward(self, x: Tensor) -> list[Tensor]:
        tapped, grid = self.model(x)
        return [getattr(self, f"act_postprocess{i}")(t, grid) for i, t in enumerate(tapped, 1)]


class Decoder(Scratch):
    """Four feature maps -> the relative depth (B,1,h,w), the features under it, and the metric head's inputs: the
    coarsest map, then the four fused ones from coarse to fine."""

    def __init__(self, a: Architecture) -> None:
        super().__init__(a.reassembled, a.features)
        half = a.features // 2
        self.output_conv = nn.ModuleDict(
            {
                "0": nn.Conv2d(a.features, half, 3, 1, 1),
                "2": nn.Conv2d(half, a.relative, 3, 1, 1),
                "4": nn.Conv2d(a.relative, 1, 1),
            }
        )

    def forward(self, maps: list[Tensor], size: Size) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        even = [getattr(self, f"layer{level}_rn")(x) for level, x in enumerate(maps, 1)]
        sizes = [(2 * even[0].shape[-2], 2 * even[0].shape[-1]), *((x.shape[-2], x.shape[-1]) for x in even[:3])]
        fused: list[Tensor] = []
        for level in (4, 3, 2, 1):
            below = fused[-1] if fused else None
            fused.append(getattr(self, f"refinenet{level}")(below, even[level - 1], sizes[level - 1]))
        features = _upsample(self.output_conv["0"](fused[-1]), size)
        features = F.relu(self.output_conv["2"](features))
        relative = F.relu(self.output_conv["4"](features))
        return relative, features, even[3], fused


class Midas(nn.Module):
    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.pretrained = Pretrained(a)
        self.scratch = Decoder(a)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        return self.scratch(self.pretrained(x), (x.shape[-2], x.shape[-1]))


# ---------------------------------------------------------------------------------------------- metric head


class Pointwise(nn.Module):
    """Two 1x1 convolutions with a ReLU between. (B,cin,h,w) -> (B,cout,h,w)."""

    def __init__(self, cin: int, hidden: int, cout: int) -> None:
        super().__init__()
        self._net = nn.Sequential(nn.Conv2d(cin, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, cout, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self._net(x)


class LogBinomial(nn.Module):
    """Where in the row of bins each pixel lies, and how sharply: the two parameters of a log-binomial distribution.

    features (B,c,h,w), embedding (B,e,h',w') -> share and temperature, float32 (B,1,h,w) each.
    """

    def __init__(self, features: int, embedding: int, narrowing: int) -> None:
        super().__init__()
        inside = (features + embedding) // narrowing
        self.mlp = nn.ModuleDict({"0": nn.Conv2d(features + embedding, inside, 1), "2": nn.Conv2d(inside, 4, 1)})

    def forward(self, features: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        first: Any = self.mlp["0"]
        of_features, of_embedding = first.weight.split([features.shape[1], embedding.shape[1]], 1)
        # The embedding's share is computed at its own, smaller size and then enlarged: the same by linearity.
        share = F.conv2d(embedding, of_embedding)
        x = F.conv2d(features, of_features, first.bias) + _upsample(share, (features.shape[-2], features.shape[-1]))
        p, t = (F.softplus(self.mlp["2"](F.gelu(x)).float()) + 1e-4).split(2, 1)
        share, warmth = (pair[:, :1] / (pair[:, :1] + pair[:, 1:]) for pair in (p, t))
        return share, (50.0 - 0.0212) * warmth + 0.0212


def _expected(centres: Tensor, share: Tensor, temperature: Tensor) -> Tensor:
    """The mean of the bin centres (B,n,h,w) under the distribution. -> (B,h,w).

    Every step rounds as the published code does: at the lowest temperature a rounding of one ulp in the logarithms
    (Stirling's formula for the binomial coefficient) moves the result by 1e-4 of its range.
    """
    eps = 1e-7
    k = torch.arange(centres.shape[1], device=centres.device, dtype=torch.float32)[:, None, None]
    n = k[-1:]
    some = k + eps
    log_choose = n * n.log() - some * some.log() - (n - some) * (n - some + eps).log()
    y = log_choose + k * share.clamp(1e-4, 1).log() + (n - k) * (1 - share).clamp(1e-4, 1).log()
    return (y.div_(temperature).softmax(1) * centres).sum(1)


def _attract(attractors: Tensor, centres: Tensor) -> Tensor:
    """Bin centres (B,n,h,w) moved towards the attractors (B,a,h,w), float32, by the mean of their pulls."""
    pull = torch.zeros_like(centres)
    for one in attractors.split(1, 1):
        away = one - centres
        pull += away / (1 + 300 * away.square())
    return centres + pull.div_(attractors.shape[1])


def _seeds(raw: Tensor, far: float | None) -> Tensor:
    """The first bin centres: free distances, or (far given) shares of the span NEAREST..far that sum to 1."""
    if far is None:
        return F.softplus(raw)
    widths = F.relu(raw) + 1e-3
    widths = widths / widths.sum(1, True)
    return widths.cumsum(1) - widths / 2


class ZoeDepth(nn.Module):
    """N and K. (B,3,h,w), normalised to -1..1, multiples of 32 -> metres (B,h,w).

    far: metres of the last bin's end where the bins share a span (K); None = free bins (N).
    """

    def __init__(self, a: Architecture, far: float | None) -> None:
        super().__init__()
        self.far = far
        self.core = nn.ModuleDict({"core": Midas(a)})
        self.conv2 = nn.Conv2d(a.features, a.features, 1)
        self.seed_bin_regressor = Pointwise(a.features, 2 * a.embedding, a.bins)
        self.seed_projector = Pointwise(a.features, a.embedding, a.embedding)
        self.projectors = nn.ModuleList(Pointwise(a.features, a.embedding, a.embedding) for _ in ATTRACTORS)
        # Normed attractors were trained with twice the outputs, of which the published code uses every other one.
        times = 1 if far is None else 2
        self.attractors = nn.ModuleList(Pointwise(a.embedding, a.embedding, n * times) for n in ATTRACTORS)
        self.conditional_log_binomial = LogBinomial(a.relative + 1, a.embedding, 2)

    def forward(self, x: Tensor) -> Tensor:
        relative, features, coarsest, fused = self.core["core"](x)
        x = self.conv2(coarsest)
        centres = _seeds(self.seed_bin_regressor(x).float(), self.far)
        embedding = self.seed_projector(x)
        centres, embedding = _refine(self.projectors, self.attractors, fused, centres, embedding, self.far)
        share, temperature = self.conditional_log_binomial(torch.cat([features, relative], 1), embedding)
        centres = _upsample(centres, (share.shape[-2], share.shape[-1]))
        return _expected(centres, share, temperature)


def _refine(
    projectors: nn.ModuleList,
    attractors: nn.ModuleList,
    fused: list[Tensor],
    centres: Tensor,
    embedding: Tensor,
    far: float | None,
) -> tuple[Tensor, Tensor]:
    """Bin centres and embedding brought from the coarsest scale to the finest; the centres come back in metres."""
    for project, attract, features in zip(projectors, attractors, fused, strict=True):
        size = (features.shape[-2], features.shape[-1])
        own = project(features)
        raw = attract(own + _upsample(embedding, size)).float()
        points = F.softplus(raw) if far is None else F.relu(raw[:, ::2]) + 1e-3
        centres, embedding = _attract(points, _upsample(centres, size)), own
    if far is not None:
        metres = (far - NEAREST) * centres + NEAREST
        centres = metres.sort(1).values.clamp(NEAREST, far)
    return centres, embedding


class Domains(nn.Module):
    """A small transformer over the coarsest features that tells indoors (0) from streets (1). -> logits (B,2)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.embedding_convPxP = nn.Conv2d(features, width, 1)
        layer = nn.TransformerEncoderLayer(width, 4, 8 * width, batch_first=True)
        self.transformer_encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.embedding_convPxP(x).flatten(2), (1, 0)).transpose(1, 2)
        index = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)[:, None]
        rate = torch.arange(0, x.shape[2], 2, device=x.device, dtype=torch.float32)
        angle = index * torch.exp(rate * (-math.log(10000.0) / x.shape[2]))
        x = x + torch.cat([angle.sin(), angle.cos()], 1).to(x.dtype)
        return self.transformer_encoder(x)[:, 0]


class ZoeDepthNK(nn.Module):
    """NK: a head for indoors and one for streets. (B,3,h,w), normalised to -1..1, multiples of 32 -> metres (B,h,w).

    Each picture takes the head that its own features ask for; the published code lets a batch vote for a common one.
    """

    domains = ("nyu", "kitti")

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        half = a.embedding // 2
        self.core = nn.ModuleDict({"core": Midas(a)})
        self.conv2 = nn.Conv2d(a.features, a.features, 1)
        self.patch_transformer = Domains(a.features, a.embedding)
        self.mlp_classifier = nn.Sequential(
            nn.Linear(a.embedding, a.embedding), nn.ReLU(), nn.Linear(a.embedding, len(self.domains))
        )
        self.seed_projector = Pointwise(a.features, half, a.embedding)
        self.projectors = nn.ModuleList(Pointwise(a.features, half, a.embedding) for _ in ATTRACTORS)
        self.seed_bin_regressors = nn.ModuleDict({d: Pointwise(a.features, half, a.bins) for d in self.domains})
        # All four have 16 outputs: the published network passes its counts to another argument.
        self.attractors = nn.ModuleDict(
            {
                d: nn.ModuleList(Pointwise(a.embedding, a.embedding, ATTRACTORS[0]) for _ in ATTRACTORS)
                for d in self.domains
            }
        )
        self.conditional_log_binomial = nn.ModuleDict(
            {d: LogBinomial(a.relative, a.embedding, 4) for d in self.domains}
        )

    def forward(self, x: Tensor) -> Tensor:
        _, features, coarsest, fused = self.core["core"](x)
        x = self.conv2(coarsest)
        chosen = self.mlp_classifier(self.patch_transformer(x)).argmax(1)
        metres = features.new_empty((len(x), *features.shape[-2:]), dtype=torch.float32)
        for index in chosen.unique().tolist():
            rows = (chosen == index).nonzero()[:, 0]
            metres[rows] = self._head(self.domains[index], x[rows], features[rows], [f[rows] for f in fused])
        return metres

    def _head(self, domain: str, x: Tensor, features: Tensor, fused: list[Tensor]) -> Tensor:
        centres = _seeds(self.seed_bin_regressors[domain](x).float(), None)
        attractors: Any = self.attractors[domain]
        centres, embedding = _refine(self.projectors, attractors, fused, centres, self.seed_projector(x), None)
        share, temperature = self.conditional_log_binomial[domain](features, embedding)
        return _expected(_upsample(centres, (share.shape[-2], share.shape[-1])), share, temperature)


# ---------------------------------------------------------------------------------------------- layouts

# Names of the transformers layout and what they are called officially, besides those that all DPT networks share.
_NAMES = (
    (r"^scratch\.", "core.core.scratch."),
    (r"^backbone\.embeddings\.patch_embeddings\.projection\.", "core.core.pretrained.model.patch_embed.proj."),
    (r"^backbone\.embeddings\.", "core.core.pretrained.model."),
    (r"^backbone\.encoder\.layer\.", "core.core.pretrained.model.blocks."),
    (r"\.lambda_([12])$", r".gamma_\1"),
    (r"\.attn\.relative_position_bias\.", ".attn."),
    (r"\.attn\.(q|v)(?:uery|alue)\.bias$", r".attn.\1_bias"),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (
        r"^neck\.reassemble_stage\.readout_projects\.(\d)\.",
        lambda m: f"core.core.pretrained.act_postprocess{int(m[1]) + 1}.0.project.",
    ),
    (
        r"^neck\.reassemble_stage\.layers\.(\d)\.(projection|resize)\.",
        lambda m: f"core.core.pretrained.act_postprocess{int(m[1]) + 1}.{3 if m[2] == 'projection' else 4}.",
    ),
    (r"^relative_head\.conv([123])\.", lambda m: f"core.core.scratch.output_conv.{2 * int(m[1]) - 2}."),
    (r"^metric_head\.mlp_classifier\.linear([12])\.", lambda m: f"mlp_classifier.{2 * int(m[1]) - 2}."),
    (r"^metric_head\.(.+)\.conv([12])\.", lambda m: f"{m[1]}._net.{2 * int(m[2]) - 2}."),
    (r"^metric_head\.", ""),
    (r"^(patch_transformer\.transformer_encoder)\.(\d)\.self_attn\.(query|key|value)\.", r"\1.layers.\2.attn.\3."),
    (r"^(patch_transformer\.transformer_encoder)\.(\d)\.", r"\1.layers.\2."),
)


def _zoe_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformers layout under the official names."""
    named = official_names(tensors, _NAMES)
    # The domain transformer is torch's own, which joins query, key and value under a name of its own.
    joined = r"^(patch_transformer\..*)\.attn\.qkv\.(weight|bias)$"
    return {re.sub(joined, r"\1.self_attn.in_proj_\2", key): tensor for key, tensor in named.items()}


# ---------------------------------------------------------------------------------------------- the estimators


@dataclass(frozen=True)
class ZoeFit(Fit):
    """As Fit; `source` is the picture that the padding goes around. first: how a ControlNet annotator makes it from the
    user's picture, None = they are the same."""

    first: Filter | None = None


_CLUES = {"n": "ZoeD N (indoors)", "k": "ZoeD K (streets)", "nk": "ZoeD NK (both)"}


@dataclass(frozen=True, kw_only=True)
class ZoeEstimator(Estimator):
    """variant: which of the three. architecture: sizes of the network. layout: "official" or "transformers".
    frame: (height, width) that the picture is scaled towards."""

    variant: Variant
    architecture: Architecture = Architecture()
    layout: str = "official"
    frame: Size = (384, 512)

    def adapt(self, checkpoint: Checkpoint) -> ZoeEstimator:
        """Tells the layout by the names, and the variant by names and shapes. Raises WeightsError for another one."""
        tensors = checkpoint.tensors
        layout, prefix, last = "official", "", "_net.2"
        if any(key.startswith(("backbone.", "metric_head.")) for key in tensors):
            layout, prefix, last = "transformers", "metric_head.", "conv2"
        came: Variant | None = None
        attractors = tensors.get(f"{prefix}attractors.0.{last}.weight")
        if any(key.startswith(f"{prefix}patch_transformer.") for key in tensors):
            came = "nk"
        elif attractors is not None:
            came = "k" if len(attractors) == 2 * ATTRACTORS[0] else "n"
        if came is not None and came != self.variant:
            raise WeightsError(
                f"{self.name} needs a file of {_CLUES[self.variant]}; {checkpoint.path} looks like {_CLUES[came]}. "
                f"Choose zoedepth-{came} for this file, or another file."
            )
        if layout == "official":
            return self
        eps = checkpoint.number("backbone_config.layer_norm_eps", 1e-12)
        # Their processor has one frame for all three, also for K.
        architecture = replace(self.architecture, norm_eps=eps)
        return replace(self, layout=layout, architecture=architecture, frame=(384, 512))

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        if self.variant == "nk":
            return ZoeDepthNK(self.architecture)
        # K was trained on 0.001..80 m. The published settings for using it leave the 10 m of N in place, in both
        # layouts, and give an eighth of the distance (github.com/isl-org/ZoeDepth issues 28, 139).
        return ZoeDepth(self.architecture, 80.0 if self.variant == "k" else None)

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return tensors if self.layout == "official" else _zoe_names(tensors)

    def tiny(self) -> ZoeEstimator:
        return replace(self, architecture=TINY, frame=(self.frame[0] // 4, self.frame[1] // 4))

    def fit(self, height: int, width: int, resolution: int | None) -> ZoeFit:
        """The published rule for the picture itself (None), or for the picture as the ControlNet annotator resizes it.

        Padding takes the network's border artefacts; the network then sees the padded picture scaled as little as
        possible towards `frame`, whatever the resolution: it was trained at that size only.
        """
        first = None
        if resolution is not None:
            (height, width), first = controlnet_picture(height, width, resolution)
        pad = int(math.sqrt(height / 2) * 3), int(math.sqrt(width / 2) * 3)
        rows, columns = height + 2 * pad[0], width + 2 * pad[1]
        scale_rows, scale_columns = self.frame[0] / rows, self.frame[1] / columns
        scale = scale_columns if abs(1 - scale_columns) < abs(1 - scale_rows) else scale_rows
        rows, columns = bounded(scale * rows, scale * columns, 32, _MOST_NETWORK_PIXELS)
        network = round_to(rows, 32), round_to(columns, 32)
        return ZoeFit((height, width), network, "bilinear_corners", "bicubic", pad, first)

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        """Metres (B,1,height,width): as published the mean of the picture's result and its mirror image's."""
        if isinstance(fit, ZoeFit) and fit.first:
            pixels = resize(pixels, fit.source, fit.first)
        metres = super().raw(network, pixels, fit, fit.source, options)
        if options["flip_augmentation"]:
            mirrored = super().raw(network, pixels.flip(-1), fit, fit.source, options)
            metres = (metres + mirrored.flip(-1)) / 2
        return resize(metres, size, fit.way_out)

    def signal(self, raw: Tensor) -> Depth:
        # Bicubic enlargement overshoots below zero beside near edges: that is as near as can be, not "no measurement".
        metres = raw[:, 0].clamp(min=NEAREST)
        return depth_from_metres(metres, source=self.name, look=DepthLook("metres", 2, 85))

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        tokens = fit.network[0] * fit.network[1] // 256 + 1
        return super().memory_required(batch, fit, dtype) + 2 * self.architecture.heads * tokens**2 * dtype.itemsize


_EXTRAS = {
    "*.relative_position_index": "follows from the grid",
    "*.log_binomial_transform.*": "constants of the bin count",
    "core.core.pretrained.model.fc_norm.*": "BEiT's classifier, which depth does not use",
    "core.core.pretrained.model.head.*": "BEiT's classifier, which depth does not use",
    "*.refinenet4.resConfUnit1.*": "the coarsest map has no coarser one to merge with",
}
_MIT = Licence("MIT", True, "https://github.com/isl-org/ZoeDepth/blob/main/LICENSE")
_RELEASE = "https://github.com/isl-org/ZoeDepth/releases/download/v1.0"


def _zoe(
    variant: Variant, name: str, parameters: int, about: str, sources: tuple[Source, ...], frame: Size
) -> ZoeEstimator:
    return ZoeEstimator(
        id=f"zoedepth-{variant}",
        name=name,
        family="zoe",
        produces=("depth",),
        licence=_MIT,
        parameters=parameters,
        sources=sources,
        about=about,
        memory=1400,
        # Not measured where a classifier chooses between two heads.
        tf32=None if variant == "nk" else True,
        channels_last=True,
        options=(
            Option(
                "flip_augmentation",
                True,
                about="As published: the mean of the picture's depth and its mirror image's. Off takes half the time.",
            ),
        ),
        mean=HALF_MEAN,
        std=HALF_STD,
        extras=_EXTRAS,
        variant=variant,
        frame=frame,
    )


ESTIMATORS = (
    _zoe(
        "n",
        "ZoeDepth N",
        342609538,
        "Metres of indoor scenes; the Zoe annotator that the depth ControlNet was trained with.",
        (
            published("lllyasviel/Annotators", "ZoeD_M12_N.pt"),
            published("Intel/zoedepth-nyu", "model.safetensors", "transformers", ("config.json",)),
        ),
        (384, 512),
    ),
    _zoe(
        "k",
        "ZoeDepth K",
        342613279,
        "Metres of street scenes up to 80 m.",
        (
            # Known by name only: no page publishes a hash or a size of this file.
            published(_RELEASE, "ZoeD_M12_K.pt"),
            # Its commit is known, hash and size are not.
            published("Intel/zoedepth-kitti", "model.safetensors", "transformers", ("config.json",)),
        ),
        (384, 768),
    ),
    _zoe(
        "nk",
        "ZoeDepth NK",
        343893147,
        "Metres of any scene: takes its indoor or its street head, by the picture.",
        (
            published("Intel/zoedepth-nyu-kitti", "model.safetensors", "transformers", ("config.json",)),
            # Known by name only, as K.
            published(_RELEASE, "ZoeD_M12_NK.pt"),
        ),
        (384, 512),
    ),
)
