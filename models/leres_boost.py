"""LeReS++: LeReS over a picture in two sizes and over patches of it, merged by a second network.

Miangoleh et al., "Boosting Monocular Depth Estimation Models to High-Resolution via Content-Adaptive Multi-Resolution
Merging", CVPR 2021 (compphoto/BoostingMonocularDepth). A small view of the picture orders it, a large one has the
detail but loses the whole wherever nothing within the network's reach tells it; the merge network, a U-Net, takes the
order from one and the detail from the other. How large the large view may be, and which patches are worth a closer
look, the picture's edges decide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator import host
from ..annotator.filters import reflect_pad, resize
from ..annotator.sizing import Fit, Size
from ..annotator.weights import Checkpoint, Found, read
from ..errors import WeightsError
from ._controlnet import controlnet_picture
from ._sources import published
from .leres import ESTIMATORS as PLAIN
from .leres import TINY, Architecture, LeReS, LeReSEstimator

MERGE_FILE = "latest_net_G.pth"
UNSURE = 0.2  # the share of the picture that may lie out of reach of every edge: R20 of the paper
STRONG = 0.4  # from which share of the range of the gradient on a pixel is an edge


@dataclass(frozen=True)
class Rule:
    """base: the small view's side, the reach of the network. largest, annotator: the longest side of the large view, as
    published and in the ControlNet annotator. cell: edges are looked for on a grid of this many pixels. merge: the side
    at which the merge network works. downs, width: its levels and channels.
    """

    base: int = 448
    largest: int = 3000
    annotator: int = 1600
    cell: int = 32
    merge: int = 1024
    downs: int = 10
    width: int = 64


@dataclass(frozen=True, kw_only=True)
class BoostFit(Fit):
    """As Fit; `network` is the picture that is looked at in parts.

    largest: the most that the large view may measure. patches_below: patches are looked at while it measures no more.
    """

    largest: int
    patches_below: float


class MergeNetwork(nn.Module):
    """Depth of the whole and depth with detail, (B,2,n,n) in -1..1 -> the detail in the order of the whole, (B,1,n,n).

    n is a multiple of 2 ** downs. The U-Net of pix2pix (Isola et al., CVPR 2017), no normalisation.
    """

    def __init__(self, downs: int, width: int) -> None:
        super().__init__()
        widths = [width * min(2**level, 8) for level in range(downs)]
        above = [2, *widths[:-1]]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in zip(above, widths, strict=True))
        self.up = nn.ModuleList()
        for level, inner in enumerate(widths):
            joined = inner if level == downs - 1 else 2 * inner
            self.up.append(nn.ConvTranspose2d(joined, above[level] if level else 1, 4, 2, 1, bias=not level))

    def forward(self, pair: Tensor) -> Tensor:
        x, kept = pair, []
        for level, layer in enumerate(self.down):
            if level:
                # The published code activates in place, so what is handed across is the activated map as well.
                x = F.leaky_relu(x, 0.2)
                kept.append(x)
            x = layer(x)
        for layer in reversed(self.up):
            x = layer(F.relu(x))
            if kept:
                x = torch.cat([kept.pop(), x], 1)
        return torch.tanh(x)


class BoostedLeReS(LeReS):
    """LeReS, and beside it the network that merges two of its answers. Called, it is LeReS alone."""

    def __init__(self, architecture: Architecture, rule: Rule) -> None:
        super().__init__(architecture)
        self.merge = MergeNetwork(rule.downs, rule.width)


def _merge_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The nested names of pix2pix's code, "model.model.1.model.3.model.5.weight", by level."""
    named = {}
    for key, tensor in tensors.items():
        if found := re.fullmatch(r"model\.((?:model\.\d\.)+)(weight|bias)", key):
            *outer, last = re.findall(r"\d", found[1])
            way = "down" if last == ("1" if outer else "0") else "up"
            key = f"merge.{way}.{len(outer)}.{found[2]}"
        named[key] = tensor
    return named


def _edges(picture: Tensor) -> Tensor:
    """(1,3,H,W) -> (1,1,H,W): sum of the absolute 3x3 Sobel derivatives of the grey picture, its border mirrored."""
    weights = picture.new_tensor([0.2989, 0.5870, 0.1140])[:, None, None]
    grey = (picture * weights).sum(1, keepdim=True)
    grey = reflect_pad(grey, 1, 1)
    # Differences first: where the picture is flat they are exactly 0, and such pixels are left out of a mean below.
    across, down = grey[..., 2:] - grey[..., :-2], grey[..., 2:, :] - grey[..., :-2, :]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return across.abs() + down.abs()


def _dilated(grid: Tensor, side: int) -> Tensor:
    """The largest value within a square of `side` cells around each; an even one reaches farther up and left."""
    before, behind = side // 2, side - 1 - side // 2
    return F.max_pool2d(F.pad(grid, (before, behind, before, behind)), side, 1)


def best_size(picture: Tensor, rule: Rule, largest: int) -> tuple[int, float]:
    """The side of the large view of (1,3,H,W), and the share of the picture that lies near edges.

    The largest size at which a network that reaches `rule.base` pixels far still has an edge within reach almost
    everywhere: without one it guesses.
    """
    side = min(picture.shape[-2:])
    strength = resize(_edges(picture), (side, side), "bilinear")
    low, high = strength.min(), strength.max()
    strong = ((strength >= low + STRONG * (high - low)) & (high > low)).float()
    reach = rule.base // rule.cell
    most = int(min(largest, 3 * max(picture.shape[-2:])) / rule.cell)
    best, grid = reach, strong
    for cells in range(reach, max(most, reach + 1), reach // 2):
        grid = F.max_pool2d(strong, max(1, side // cells), ceil_mode=True)
        grid = (resize(grid, (cells, cells), "bilinear") >= 0.5).float()
        if 1 - _dilated(grid, reach).mean() > UNSURE:
            break
        best = cells
    return best * rule.cell, float(_dilated(grid, reach // 4).mean())


def patches(picture: Tensor, span: int, step: int) -> list[tuple[int, int, int]]:
    """The squares (left, top, side) of (1,3,H,W) that hold more edges than the picture on average, the largest first.

    They start on a grid with `span` pixels a side, and each grows by `step` for as long as that stays true.
    """
    edges = _edges(picture)[0, 0]
    if not (edges > 0).any():
        return []
    edges = torch.where(edges < edges[edges > 0].mean(), 0, edges)
    height, width = edges.shape
    table = F.pad(edges.cpu().double().cumsum(0).cumsum(1), (1, 0, 1, 0)).numpy()
    average = table[-1, -1] / (height * width)

    def worth(left: int, top: int, side: int) -> bool:
        right, bottom = left + side, top + side
        edges = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
        return bool(edges / side**2 >= average)

    found = []
    stride = round(span // 2 * 0.75)
    for left in range(0, width - span, stride):
        for top in range(0, height - span, stride):
            square = left, top, span
            if not worth(*square):
                continue
            while True:
                wider = square[0] - step // 2, square[1] - step // 2, square[2] + step
                inside = min(wider[:2]) >= 0 and wider[0] + wider[2] <= width and wider[1] + wider[2] <= height
                if not inside or not worth(*wider):
                    break
                square = wider
            found.append(square)
    return sorted(found, key=lambda square: -square[2])


def _fade(height: int, width: int) -> Tensor:
    """(height, width): 1 in the middle of a patch, 0 along its border; a blurred box."""
    samples = 3000  # as published, then resized
    sigma = samples // 16
    position = torch.arange(-2 * sigma, 2 * sigma + 1, dtype=torch.float64)
    blur = torch.exp(-(position**2) / (2 * sigma**2))
    border = int(0.15 * samples)
    box = torch.zeros(samples, dtype=torch.float64)
    box[border : samples - border] = 1
    profile = F.conv1d(box[None, None], (blur / blur.sum())[None, None], padding=2 * sigma)
    rows, columns = (
        F.interpolate(profile, n, mode="linear", align_corners=False)[0, 0].float() for n in (height, width)
    )
    return rows[:, None] * columns


def _unit(x: Tensor) -> Tensor:
    low, high = x.min(), x.max()
    return (x - low) / (high - low).clamp_min(1e-12)


def _onto(x: Tensor, target: Tensor) -> Tensor:
    """`x` scaled and shifted to lie nearest to `target`, in the least squares' sense.

    Published code fits in float32, where numpy's tolerance drops the shift of a map that varies little.
    """
    mean, wanted = x.mean(), target.mean()
    slope = ((x - mean) * (target - wanted)).mean() / (x - mean).square().mean().clamp_min(1e-12)
    return (x - mean) * slope + wanted


@dataclass(frozen=True, kw_only=True)
class BoostedEstimator(LeReSEstimator):
    """rule: the sizes that the merging works with."""

    rule: Rule = Rule()

    def read(self, found: Found) -> Checkpoint:
        """Both files as one checkpoint. Raises WeightsError when the merge network does not lie beside LeReS."""
        checkpoint = super().read(found)
        if any(key.startswith("merge.") for key in checkpoint.tensors):
            return checkpoint
        path = found.root / MERGE_FILE
        if not path.is_file():
            where = f" from {self.sources[0].url}" if self.sources else ""
            raise WeightsError(
                f"{self.name} needs two files: {found.path}, which is there, and beside it {path}, which is not. "
                f"Fetch it{where}, or choose leres, which needs one."
            )
        return replace(checkpoint, tensors={**checkpoint.tensors, **_merge_names(read(path).tensors)})

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return BoostedLeReS(self.architecture, self.rule)

    def tiny(self) -> BoostedEstimator:
        return replace(self, architecture=TINY, rule=Rule(64, 320, 160, 8, 32, 5, 4), sources=())

    def fit(self, height: int, width: int, resolution: int | None) -> BoostFit:
        """The picture itself, as published, or the one that the ControlNet annotator makes of it."""
        size = height, width
        if resolution is None:
            return BoostFit(size, size, "bilinear", "bicubic", largest=self.rule.largest, patches_below=math.inf)
        network, way_in = controlnet_picture(height, width, resolution)
        most = self.rule.annotator
        return BoostFit(size, network, way_in, "bicubic", largest=most, patches_below=max(network))

    def raw(self, network: Any, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        assert isinstance(fit, BoostFit)  # noqa: S101 - made by fit
        boosted = [self._boost(network, picture[None], fit) for picture in fit.enter(pixels)]
        return fit.leave(torch.cat(boosted), size)

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        """The most that one picture can take: pictures go one after another, and their edges choose the sizes."""
        assert isinstance(fit, BoostFit)  # noqa: S101 - made by fit
        side = max(2 * self.rule.base, min(fit.largest, 3 * max(fit.network)))
        return side**2 * self.memory * dtype.itemsize // 4 + batch * 9 * fit.source[0] * fit.source[1] * 4

    def _boost(self, network: Any, picture: Tensor, fit: BoostFit) -> Tensor:
        """(1,3,H,W) in 0..1 -> (1,1,H,W), about 0..1, larger = farther."""
        rule, (height, width) = self.rule, picture.shape[-2:]
        best, near = best_size(picture, rule, fit.largest)
        whole = self._double(network, picture, best)
        if fit.patches_below < best:
            return resize(whole, (height, width), "bicubic")
        factor = max(min(1.0, 4 * near * best / fit.largest), 0.2)
        rows, columns = (
            max(1, round(round(2 * best * side / max(height, width)) / factor)) for side in (height, width)
        )
        large = resize(picture, (rows, columns), "bicubic")
        squares = patches(large, 2 * rule.base, int(rule.cell / factor))
        back = height / rows
        squares = [square for square in squares if round(square[2] * back) > 1]  # of a picture of a few pixels
        # Published so: the picture is enlarged to find the patches, and these are cut out at its own size again.
        view = resize(large, (round(rows * back), max(1, round(columns * back))), "bicubic")
        start = resize(whole, (view.shape[-2], view.shape[-1]), "bicubic")
        result = start.clone()
        with host.progress(len(squares), self.name, "patch") as bar:
            for left, top, side in squares:
                x, y, n = round(left * back), round(top * back), round(side * back)
                here = (..., slice(y, y + n), slice(x, x + n))
                detail = self._double(network, view[here], 2 * rule.base)
                outer = resize(start[here], (rule.merge, rule.merge), "bicubic")
                shape = start[here].shape[-2], start[here].shape[-1]
                patch = resize(_onto(self._merged(network, outer, detail), outer), shape, "bicubic")
                fade = _fade(*shape).to(patch)
                result[here] = result[here] * (1 - fade) + patch * fade
                bar.update(1)
        return resize(result, (height, width), "bicubic")

    def _double(self, network: Any, picture: Tensor, large: int) -> Tensor:
        """The picture seen small and `large`, merged: (1,1,merge,merge) in 0..1."""
        side = self.rule.merge
        views = (self._single(network, picture, n) for n in (self.rule.base, large))
        low, high = (resize(view, (side, side), "bicubic") for view in views)
        return _unit(self._merged(network, low, high))

    def _single(self, network: Any, picture: Tensor, side: int) -> Tensor:
        """What LeReS says of the picture squeezed to a square: (1,1,H,W), at the picture's size."""
        host.check_interrupt()
        shape = picture.shape[-2], picture.shape[-1]
        return super().raw(network, picture, Fit(shape, (side, side), "bilinear", "bicubic"), shape, {})

    def _merged(self, network: Any, whole: Tensor, detail: Tensor) -> Tensor:
        inside = next(network.parameters()).dtype
        pair = torch.cat([_unit(whole), _unit(detail)], 1) * 2 - 1
        return (network.merge(pair.to(inside)).float() + 1) / 2


_LERES = PLAIN[0].sources[0]

ESTIMATORS = (
    BoostedEstimator(
        id="leres-boost",
        name="LeReS++",
        family="leres",
        produces=("depth",),
        licence=PLAIN[0].licence,
        parameters=PLAIN[0].parameters + 79_564_801,
        sources=(published(_LERES.repo, _LERES.file, also=(MERGE_FILE,)),),
        about="LeReS in two sizes and over patches, merged: far finer detail, for many times its work.",
        memory=800,
    ),
)
