"""Video Depth Anything: depth of a film that holds still (Chen et al., CVPR 2025, arXiv 2501.12375).

Depth Anything V2 whose head also attends along the time of 32 frames. A longer film goes through windows of 32 frames
that share 10 of them; the scale and the shift of each window are fitted to the one before. Network, windows and
alignment are those of DepthAnything/Video-Depth-Anything. What the transformer makes of a frame does not depend on
the others, so here each frame goes through it once, and what overlaps is kept instead of computed again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import interrupt
from ..annotator.estimator import Estimator, Licence, Option
from ..annotator.sizing import Fit, Size, round_to
from ..annotator.weights import Checkpoint, Source
from ..errors import WeightsError
from ..signals import Depth, DepthLook
from ..signals.depth import depth_from_metres
from ._dpt import Scratch, lower_bound, place_by_scale, rescale, run_blocks, vision_transformer
from ._sources import published
from .depth_anything import GRID, PATCH, SHORT, SPECS, Spec

WINDOW = 32  # frames that the network sees at once
OVERLAP = 10  # of them shared with the window before
STEP = WINDOW - OVERLAP
KEYFRAMES = (0, 12, *range(24, WINDOW))  # the places in a window whose frames open the next one
BLEND = 8  # frames over which one window passes into the next
ANCHORS = OVERLAP - BLEND  # shared frames that the alignment is fitted on
PLACES = 2**13  # of a map, whose frames see each other together
_WIDEST = 1.78  # longer pictures than 16:9 enter smaller

# ---------------------------------------------------------------------------------------------- network


class TemporalAttention(nn.Module):
    """Attention along time at each place of its own: (N,T,c) -> (N,T,c)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.pos_encoder = nn.Module()
        self.pos_encoder.register_buffer("pe", torch.zeros(1, WINDOW, width))

    def forward(self, x: Tensor) -> Tensor:
        table: Any = self.pos_encoder.pe
        x = x + table[:, : x.shape[1]]
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))


class TemporalBlock(nn.Module):
    """Two attentions along time and a gated layer, each behind a norm and around a shortcut: (N,T,c) -> (N,T,c)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(TemporalAttention(width, heads) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        gate = nn.ModuleDict({"proj": nn.Linear(width, 8 * width)})
        # Number 1 is a dropout, which has no weights.
        self.ff = nn.ModuleDict({"net": nn.ModuleDict({"0": gate, "2": nn.Linear(4 * width, width)})})
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        for attend, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attend(norm(x))
        layers: Any = self.ff["net"]
        value, gate = layers["0"]["proj"](self.ff_norm(x)).chunk(2, -1)
        return x + layers["2"](value * F.gelu(gate))


class TemporalTransformer(nn.Module):
    """Lets the maps of a window see each other: (T,c,h,w) -> (T,c,h,w)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(32, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(width, heads)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, maps: Tensor) -> Tensor:
        places = self.norm(maps).flatten(2).permute(2, 0, 1)
        # Places do not see each other; some at a time, because attention on a GPU takes 65535 at most.
        mixed = torch.cat([self._mix(some) for some in places.split(PLACES)])
        return maps + mixed.permute(1, 2, 0).unflatten(2, maps.shape[-2:])

    def _mix(self, x: Tensor) -> Tensor:
        x = self.proj_in(x)
        for block in self.transformer_blocks:
            x = block(x)
        return self.proj_out(x)


class Head(nn.Module):
    """The head of Depth Anything with four temporal transformers, in the three parts that a film needs apart."""

    def __init__(self, spec: Spec, heads: int) -> None:
        super().__init__()
        half = spec.features // 2
        self.projects = nn.ModuleList(nn.Conv2d(spec.width, c, 1) for c in spec.channels)
        self.resize_layers = nn.ModuleList(rescale(level, c) for level, c in enumerate(spec.channels, 1))
        self.scratch: Any = Scratch(spec.channels, spec.features)
        self.scratch.output_conv1 = nn.Conv2d(spec.features, half, 3, padding=1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(half, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, 1, 1), nn.ReLU(inplace=True)
        )
        widths = (spec.channels[2], spec.channels[3], spec.features, spec.features)
        self.motion_modules = nn.ModuleList(
            nn.ModuleDict({"temporal_transformer": TemporalTransformer(width, heads)}) for width in widths
        )

    def maps(self, tokens: Sequence[Tensor], grid: Size) -> list[Tensor]:
        """Each frame's four maps of 4, 2, 1 and 1/2 times the patch grid; the first two mixed already."""
        maps = [
            rescaled(project(x.transpose(1, 2).unflatten(2, grid)))
            for x, project, rescaled in zip(tokens, self.projects, self.resize_layers, strict=True)
        ]
        return [self.scratch.layer1_rn(maps[0]), self.scratch.layer2_rn(maps[1]), *maps[2:]]

    def fuse(self, third: Tensor, fourth: Tensor, size: Size) -> Tensor:
        """What depends on the whole window: its third and fourth maps to one of `size` per frame."""
        scratch = self.scratch
        third, fourth = scratch.layer3_rn(self._along(0, third)), scratch.layer4_rn(self._along(1, fourth))
        path = self._along(2, scratch.refinenet4(None, fourth, (third.shape[-2], third.shape[-1])))
        return self._along(3, scratch.refinenet3(path, third, size))

    def finish(self, path: Tensor, second: Tensor, first: Tensor) -> Tensor:
        """(n,1,14h,14w) for n frames on a patch grid of h x w."""
        scratch, (height, width) = self.scratch, first.shape[-2:]
        path = scratch.refinenet2(path, second, (height, width))
        x = scratch.output_conv1(scratch.refinenet1(path, first, (2 * height, 2 * width)))
        size = (height * PATCH // 4, width * PATCH // 4)
        return scratch.output_conv2(F.interpolate(x, size, mode="bilinear", align_corners=True))

    def _along(self, number: int, maps: Tensor) -> Tensor:
        module: Any = self.motion_modules[number]
        return module["temporal_transformer"](maps)


class VideoDepthAnythingNetwork(nn.Module):
    """Input: (B,T,3,h,w), T at most 32, normalised with the ImageNet mean and deviation, h and w multiples of 14.
    Output: (B,T,h,w), at least 0: relative inverse depth (larger = closer), or metres with the metric weights.

    Called with `part`, it runs one of the three parts of that, so that a film keeps what its windows share:
    "encode": frames (n,3,h,w) -> four maps per frame; "fuse": the third and the fourth map of T frames and the second
    map of one -> a map per frame; "finish": that map, the second and the first of n frames -> depth (n,h,w).
    """

    def __init__(self, spec: Spec, heads: int) -> None:
        super().__init__()
        self.taps = spec.taps
        self.pretrained = vision_transformer(
            spec.width, spec.depth, spec.heads, grid=GRID, patch=PATCH, init_values=1.0
        )
        self.head = Head(spec, heads)

    def forward(self, x: Tensor, *maps: Tensor, part: str = "") -> Any:
        if part == "encode":
            tokens, grid = run_blocks(self.pretrained, x, self.taps, place_by_scale)
            return self.head.maps([self.pretrained.norm(t)[:, 1:] for t in tokens], grid)
        if part == "fuse":
            fourth, second = maps
            return self.head.fuse(x, fourth, (second.shape[-2], second.shape[-1]))
        if part == "finish":
            return self.head.finish(x, *maps)[:, 0]
        return torch.stack([self._window(frames) for frames in x])

    def _window(self, frames: Tensor) -> Tensor:
        # A few frames at a time: the last maps take a hundred times the memory of the picture.
        parts = [self(few, part="encode") for few in frames.split(4)]
        first, second, third, fourth = (torch.cat(level) for level in zip(*parts, strict=True))
        path = self(third, fourth, second, part="fuse")
        few = zip(path.split(4), second.split(4), first.split(4), strict=True)
        return torch.cat([self(*each, part="finish") for each in few])


# ---------------------------------------------------------------------------------------------- windows


@dataclass
class Alignment:
    """Brings the depths of one window after the other to the scale and shift of the first: `BLEND` + `ANCHORS` maps in
    memory, whatever the length of the film. metric: take them as they are, and only pass from one to the next.
    """

    metric: bool = False
    _anchors: list[Tensor] = field(default_factory=list)
    _tail: list[Tensor] = field(default_factory=list)

    def add(self, window: Callable[[int], Tensor]) -> Iterator[Tensor]:
        """The frames that are final now, in order. window: a place 0..31 in the window -> its depth (H,W).

        The last `BLEND` frames of a window are final only with the next: `rest` gives them at the end of the film.
        """
        first = not self._anchors
        scale, shift = (1.0, 0.0) if first else self._fit([window(index) for index in range(ANCHORS)])

        def aligned(index: int) -> Tensor:
            depth = window(index)
            return depth if first else (depth * scale + shift).clamp_(min=0)

        for i, before in enumerate(self._tail):
            yield torch.lerp(before, aligned(ANCHORS + i), i / (BLEND - 1))
        anchors = self._anchors[:1]
        for index in range(0 if first else OVERLAP, WINDOW - BLEND):
            depth = aligned(index)
            if index in KEYFRAMES[not first : ANCHORS]:
                anchors.append(depth)
            yield depth
        self._anchors = anchors
        self._tail = [aligned(index) for index in range(WINDOW - BLEND, WINDOW)]

    def rest(self) -> Iterator[Tensor]:
        """The frames that wait for another window, when there is none."""
        tail, self._tail, self._anchors = self._tail, [], []
        yield from tail

    def _fit(self, opening: Sequence[Tensor]) -> tuple[float, float]:
        """The scale and shift that bring a window's first frames onto the anchors, by least squares."""
        if self.metric:
            return 1.0, 0.0
        sums = torch.zeros(4, dtype=torch.float64)
        for one, other in zip(opening, self._anchors, strict=True):
            x, y = one.cpu().double(), other.cpu().double()
            sums += torch.stack([(x * x).sum(), x.sum(), (x * y).sum(), y.sum()])
        xx, x, xy, y = sums.tolist()
        count = sum(frame.numel() for frame in opening)
        spread = xx * count - x * x
        # Frames without any relief determine no scale.
        if spread <= 1e-12 * xx * count:
            return 1.0, 0.0
        return (count * xy - x * y) / spread, (xx * y - x * xy) / spread


class FilmInWindows:
    """A film on its way through the network: frames go in by `push` and come out by and by, in order, by `flush` all.

    A frame comes out at the latest when the 31st after it has gone in. What is held does not grow with the length.
    network: a VideoDepthAnythingNetwork or what calls one. enter: (n,3,H,W) in 0..1 -> the network's input. leave:
    (n,h,w) of the network -> the result's size. give: what comes out for a depth (H,W). metric: see `Alignment`.
    """

    FEW = 4  # frames whose last maps are in memory together

    def __init__(
        self,
        network: Any,
        enter: Callable[[Tensor], Tensor],
        leave: Callable[[Tensor], Tensor],
        give: Callable[[Tensor], Any],
        metric: bool,
    ) -> None:
        self._network, self._enter, self._leave, self._give = network, enter, leave, give
        self._alignment = Alignment(metric)
        self._frames: list[list[Tensor]] = []  # four maps for each place of the window to come
        self._opening: list[list[Tensor]] = []  # the places that the window before gives it
        self._windows = 0
        self._pushed = self._given = 0

    def push(self, pixels: Tensor) -> Iterator[Any]:
        """Take frames (n,3,H,W) in 0..1; yield those that are final."""
        for few in pixels.split(self.FEW):
            maps = self._network(self._enter(few), part="encode")
            for frame in zip(*(level.split(1) for level in maps), strict=True):
                self._pushed += 1
                self._frames.append(list(frame))
                if len(self._frames) == WINDOW:
                    yield from map(self._give, self._run())

    def flush(self) -> Iterator[Any]:
        """Yield what is left. The film is filled up with its last frame, as published."""
        total = self._pushed
        # Every window starts on a frame of the film; the last one may hold few.
        while total and self._windows * STEP < total:
            while len(self._frames) < WINDOW:
                self._frames.append(self._frames[-1])
            for depth in self._run():
                if self._given <= total:
                    yield self._give(depth)
        for depth in self._alignment.rest():
            self._given += 1
            if self._given <= total:
                yield self._give(depth)
        self._frames, self._opening, self._windows, self._pushed, self._given = [], [], 0, 0, 0

    def _run(self) -> Iterator[Tensor]:
        frames = self._frames
        window = [*self._opening, *frames[len(self._opening) :]]
        levels = [torch.cat([frame[level] for frame in window]) for level in (2, 3)]
        path = self._network(levels[0], levels[1], window[0][1], part="fuse")
        cache: dict[int, Tensor] = {}

        def depth(index: int) -> Tensor:
            if index not in cache:
                interrupt.check()
                few = range(index, min(index + self.FEW, WINDOW))
                second, first = (torch.cat([window[i][level] for i in few]) for level in (1, 0))
                raw = self._network(path[few.start : few.stop], second, first, part="finish")
                cache.clear()
                cache.update(zip(few, self._leave(raw.float()), strict=True))
            return cache[index]

        for frame in self._alignment.add(depth):
            self._given += 1
            yield frame
        self._windows += 1
        self._opening = [window[i] for i in KEYFRAMES[:ANCHORS]]
        self._frames = frames[STEP:]


# ---------------------------------------------------------------------------------------------- estimator


@dataclass(frozen=True, kw_only=True)
class VideoDepthAnything(Estimator):
    """One Video Depth Anything model. spec: its sizes. heads: of the temporal attention. metric: whether it gives
    metres."""

    spec: Spec
    heads: int = 8
    metric: bool = False

    def adapt(self, checkpoint: Checkpoint) -> VideoDepthAnything:
        token = checkpoint.tensors.get("pretrained.cls_token")
        if "depth_head.projects.0.weight" in checkpoint.tensors:
            raise WeightsError(
                f"{self.name}: {checkpoint.path} is a Depth Anything network for single pictures, not for film: choose "
                "that estimator, or give another file."
            )
        if token is not None and token.shape[-1] != self.spec.width:
            wanted = next((e.id for e in ESTIMATORS if e.spec.width == token.shape[-1] and not e.metric), None)
            advice = f"choose {wanted}, or " if wanted else ""
            raise WeightsError(
                f"{self.name}: {checkpoint.path} belongs to another size: its tokens are {token.shape[-1]} wide, "
                f"expected {self.spec.width}; {advice}give another file."
            )
        return self

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return VideoDepthAnythingNetwork(self.spec, self.heads)

    def tiny(self) -> VideoDepthAnything:
        spec = Spec(32, 4, 2, (8, 8, 32, 32), 32, (0, 1, 2, 3), 0, 0)
        return replace(self, spec=spec, heads=2, options=(replace(_INPUT_SIZE, default=2 * PATCH),), sources=())

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        return self.plan(height, width, resolution, self.settings({}))

    def plan(self, height: int, width: int, resolution: int | None, options: Mapping[str, Any]) -> Fit:
        """The network's size follows `input_size` alone: 32 frames of it take the memory."""
        least = options["input_size"]
        ratio = max(height, width) / min(height, width)
        if ratio > _WIDEST:
            least = int(least * 1.777 / ratio)
        network = lower_bound(height, width, round_to(least, PATCH) if ratio > _WIDEST else least, PATCH)
        return Fit((height, width), network, "bicubic", "bilinear_corners")

    def film(self, network: nn.Module, fit: Fit, size: Size, options: Mapping[str, Any]) -> FilmInWindows:
        return self._film(network, fit, size, lambda depth: {"depth": self.signal(depth[None, None])})

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        """The depths (B,1,height,width) of a whole film."""
        film = self._film(network, fit, size, lambda depth: depth)
        return torch.stack([*film.push(pixels), *film.flush()])[:, None]

    def _film(self, network: nn.Module, fit: Fit, size: Size, give: Callable[[Tensor], Any]) -> FilmInWindows:
        inside = next(network.parameters()).dtype
        return FilmInWindows(
            network,
            lambda pixels: self.normalise(fit.enter(pixels)).to(inside),
            lambda raw: fit.leave(raw[:, None], size)[:, 0],
            give,
            self.metric,
        )

    def signal(self, raw: Tensor) -> Depth:
        if not self.metric:
            return Depth(raw[:, 0], "affine_inverse", source=self.name)
        # The last activation cuts at 0, which no distance is: those pixels are not valid.
        return depth_from_metres(raw[:, 0], source=self.name, look=DepthLook("metres"))

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        """Bytes of a window, whatever the length of the film, and of `batch` pictures going in or coming out."""
        network, picture = math.prod(fit.network), math.prod(fit.source)
        return network * self.memory * dtype.itemsize // 4 + (batch + BLEND + ANCHORS) * 4 * picture * 4


_INPUT_SIZE = Option(
    "input_size",
    SHORT,
    least=PATCH,
    most=2048,
    about="The short side in pixels that the network sees; 518 as published.",
)
_EXTRAS = {
    "pretrained.mask_token": "stands for hidden patches, in training only",
    "head.scratch.refinenet4.resConfUnit1.*": "the coarsest level has nothing to merge",
}
_PAGE = "https://github.com/DepthAnything/Video-Depth-Anything#license"
_APACHE, _NC = Licence("Apache-2.0", True, _PAGE), Licence("CC-BY-NC-4.0", False, _PAGE)


def _model(
    id: str, name: str, size: str, licence: Licence, about: str, source: Source, parameters: int, memory: int
) -> VideoDepthAnything:
    return VideoDepthAnything(
        id=id,
        name=name,
        family="video_depth_anything",
        produces=("depth",),
        licence=licence,
        parameters=parameters,
        sources=(source,),
        about=about,
        memory=memory,
        options=(_INPUT_SIZE,),
        channels_last=True,
        window=WINDOW,
        extras=_EXTRAS,
        spec=SPECS[size],
        metric="metric" in id,
    )


_SMALL = published("depth-anything/Video-Depth-Anything-Small", "video_depth_anything_vits.pth")
_METRIC_SMALL = published("depth-anything/Metric-Video-Depth-Anything-Small", "metric_video_depth_anything_vits.pth")
_BASE = published("depth-anything/Video-Depth-Anything-Base", "video_depth_anything_vitb.pth")
_LARGE = published("depth-anything/Video-Depth-Anything-Large", "video_depth_anything_vitl.pth")

# Memory is that of a window of 32 frames and of the maps that wait for the next one: measured over 32 and 76 frames for
# Small, over 32 for the others, with what waits by the width of their maps.
_FILM = "Relative depth of a film that holds still from frame to frame; "
ESTIMATORS = (
    _model(
        *("video-depth-anything-small", "Video Depth Anything Small", "small", _APACHE, _FILM + "the fastest size."),
        *(_SMALL, 28_960_897, 5200),
    ),
    _model(
        *("video-depth-anything-base", "Video Depth Anything Base", "base", _NC, _FILM + "the middle size."),
        *(_BASE, 114_145_473, 11000),
    ),
    _model(
        *("video-depth-anything-large", "Video Depth Anything Large", "large", _NC, _FILM + "a large network."),
        *(_LARGE, 383_209_153, 23000),
    ),
    _model(
        *("video-depth-anything-metric-small", "Video Depth Anything Metric Small", "small", _APACHE),
        *("Metres of a film that hold still from frame to frame; the fastest size.", _METRIC_SMALL, 28_960_897, 5200),
    ),
)
