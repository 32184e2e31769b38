"""Depth Anything 3: depth, confidence and the camera from one picture, or depth and sky.

Lin et al., "Depth Anything 3: Recovering the Visual Space from Any Views" (2025), github.com/ByteDance-Seed/
Depth-Anything-3; here with one view. Small, Base and Large: a DINOv2 transformer whose later blocks know where their
patches lie by rotation, a DPT head with two outputs, and a decoder for the camera. Mono Large and Metric Large: a plain
DINOv2 transformer and a DPT head for depth and sky.

All of them give distance, larger = farther; Depth holds its inverse. Its scale is unknown, but for Metric Large with a
known focal length: metres = focal length in pixels of the network's input * output / 300.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence, Option
from ..annotator.filters import Filter, resize
from ..annotator.sizing import Fit, Size
from ..annotator.weights import Checkpoint, Source
from ..errors import SettingError, WeightsError
from ..signals import Depth, DepthLook, Signal
from ..signals.depth import depth_from_metres, focal_of_view
from ..signals.mask import Mask
from ._dpt import Scratch, place_by_scale, rescale, run_blocks, vision_transformer
from ._uv import view_plane

PATCH = 14
GRID = 37  # patches on each side of the position table
CANONICAL = 300.0  # pixels of the network's input: the focal length that the metric model takes every camera for
SKY = 0.3  # from where on the published code fills a pixel as sky
_FEW = 10  # pixels: with no more of either, sky is not filled
_DRAWS = 100_000  # values of which the published code takes the quantile


@dataclass(frozen=True)
class Spec:
    """The sizes of one network. width, depth, heads: of the transformer. channels, features: of the head. taps: the
    blocks whose tokens the head sees. turns: the first block with rotated positions and the camera's token, None = a
    plain transformer with a head for sky. memory, parameters: see Estimator.
    """

    width: int
    depth: int
    heads: int
    channels: tuple[int, int, int, int]
    features: int
    taps: tuple[int, int, int, int]
    turns: int | None = None
    memory: int = 0
    parameters: int = 0


SPECS = {
    "small": Spec(384, 12, 6, (48, 96, 192, 384), 64, (5, 7, 9, 11), 4, 560, 26_815_378),
    "base": Spec(768, 12, 12, (96, 192, 384, 768), 128, (5, 7, 9, 11), 4, 1000, 105_543_026),
    "large": Spec(1024, 24, 16, (256, 512, 1024, 1024), 256, (11, 15, 19, 23), 8, 1700, 355_476_402),
    "sky": Spec(1024, 24, 16, (256, 512, 1024, 1024), 256, (4, 11, 17, 23), None, 1600, 334_171_394),
}

# ---------------------------------------------------------------------------------------------- transformer


class TurningAttention(nn.Module):
    """Self-attention whose queries and keys are normalised and then turned by their patch's row and column."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads)
        self.k_norm = nn.LayerNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """x (B,n,C); cosine, sine (n, C/heads), see `turns`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (_turn(norm(y), cosine, sine) for norm, y in ((self.q_norm, q), (self.k_norm, k)))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


def _turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    # Each half of a head holds pairs (i, i + a quarter of the head): the first half for the row, the second the column.
    a, b, c, d = x.chunk(4, -1)
    return x * cosine + torch.cat([-b, a, -d, c], -1) * sine


def turns(positions: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, float32 (n,channels), of the angles for `positions` (n,2), row and column of each token."""
    quarter = channels // 4
    speed = 100.0 ** (-torch.arange(quarter, device=positions.device, dtype=torch.float32) / quarter)
    angle = (positions.float()[:, :, None] * speed).repeat(1, 1, 2).flatten(1)
    return angle.cos(), angle.sin()


class Backbone(nn.Module):
    """(B,3,h,w) -> for each tap the tokens of the camera or class (B,C) and of the patches (B,h*w,C), and the grid."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.taps, self.first = spec.taps, spec.turns
        self.pretrained = vision_transformer(
            spec.width, spec.depth, spec.heads, grid=GRID, patch=PATCH, init_values=1.0
        )
        # The blocks norm with another epsilon than what comes behind them.
        self.pretrained.norm = nn.LayerNorm(spec.width)
        if spec.turns is None:
            return
        self.pretrained.camera_token = nn.Parameter(torch.zeros(1, 2, spec.width))
        for block in self.pretrained.blocks[spec.turns :]:
            block.attn = TurningAttention(spec.width, spec.heads)

    def forward(self, pixels: Tensor) -> tuple[list[tuple[Tensor, Tensor]], Size]:
        vit = self.pretrained
        if self.first is None:
            kept, grid = run_blocks(vit, pixels, self.taps, place_by_scale)
            return [(x[:, 0], vit.norm(x[:, 1:])) for x in kept], grid
        (x,), grid = run_blocks(vit, pixels, (self.first - 1,), place_by_scale, self.first)
        x = torch.cat([vit.camera_token[:, :1].expand(len(x), -1, -1), x[:, 1:]], 1)
        kept, local = [], x
        angles = self._angles(grid, x)
        for number, block in enumerate(vit.blocks[self.first :], self.first):
            x = x + block.ls1(block.attn(block.norm1(x), *angles[number % 2]))
            x = x + block.ls2(block.mlp(block.norm2(x)))
            if number % 2 == 0:
                local = x
            if number in self.taps:
                # Only the second half is normed, and the camera's decoder reads neither half normed.
                patches = torch.cat([local[:, 1:], vit.norm(x[:, 1:])], -1)
                kept.append((torch.cat([local[:, 0], x[:, 0]], -1), patches))
        return kept, grid

    def _angles(self, grid: Size, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Of even blocks, where every patch has a place, and of odd ones, whose patches all share one."""
        rows, columns = (torch.arange(1, n + 1, device=x.device) for n in grid)
        places = F.pad(torch.cartesian_prod(rows, columns), (0, 0, 1, 0))
        head = self.pretrained.blocks[-1].attn.q_norm.normalized_shape[0]
        return [
            (cosine.to(x.dtype), sine.to(x.dtype))
            for cosine, sine in (turns(places, head), turns(places.clamp(max=1), head))
        ]


# ---------------------------------------------------------------------------------------------- heads


class Head(nn.Module):
    """What both heads share: the tokens of four blocks brought to four maps and fused to one of 8 times the grid."""

    def __init__(self, spec: Spec, width: int, outputs: int) -> None:
        super().__init__()
        half = spec.features // 2
        self.projects = nn.ModuleList(nn.Conv2d(width, c, 1) for c in spec.channels)
        self.resize_layers = nn.ModuleList(rescale(level, c) for level, c in enumerate(spec.channels, 1))
        self.scratch: Any = Scratch(spec.channels, spec.features)
        self.scratch.output_conv1 = nn.Conv2d(spec.features, half, 3, padding=1)
        self.scratch.output_conv2 = _last(half, outputs)


def _last(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, outputs, 1))


def _full(x: Tensor, grid: Size) -> Tensor:
    return F.interpolate(x, (grid[0] * PATCH, grid[1] * PATCH), mode="bilinear", align_corners=True)


class SkyHead(Head):
    """Tokens (B,h*w,C) of four blocks -> depth and sky (B,14h,14w) before the sky is filled."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, spec.width, 1)
        self.scratch.sky_output_conv2 = _last(spec.features // 2, 1)

    def forward(self, tokens: Sequence[Tensor], grid: Size) -> tuple[Tensor, Tensor]:
        maps = [
            rescaled(project(x.transpose(1, 2).unflatten(2, grid)))
            for x, project, rescaled in zip(tokens, self.projects, self.resize_layers, strict=True)
        ]
        x = _full(self.scratch.output_conv1(self.scratch(maps)), grid)
        depth, sky = self.scratch.output_conv2(x)[:, 0], self.scratch.sky_output_conv2(x)[:, 0]
        return depth.float().exp(), F.relu(sky.float())


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B,C,h,w)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class DualHead(Head):
    """Tokens (B,h*w,2C) of four blocks -> depth and its confidence (B,14h,14w), and on demand the rays of the pixels
    (B,8h,8w,6) and their confidence (B,8h,8w)."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, 2 * spec.width, 2)
        features, half = spec.features, spec.features // 2
        self.norm = nn.LayerNorm(2 * spec.width)
        self.scratch.add_branch("_aux")
        # The files hold such layers for the coarser levels too, which nothing reads: "3" is the finest.
        pairs = [(features, half), (half, features)] * 2 + [(features, half)]
        self.scratch.output_conv1_aux = nn.ModuleDict({"3": nn.Sequential(*(_plain(*pair) for pair in pairs))})
        last = nn.Sequential(
            _plain(half, 32), nn.Identity(), ChannelNorm(32), nn.Identity(), nn.ReLU(), nn.Conv2d(32, 7, 1)
        )
        self.scratch.output_conv2_aux = nn.ModuleDict({"3": last})

    def forward(self, tokens: Sequence[Tensor], grid: Size, rays: bool = False) -> dict[str, Tensor]:
        aspect = grid[1] / grid[0]
        maps = [
            rescaled(_placed(project(self.norm(x).transpose(1, 2).unflatten(2, grid)), aspect))
            for x, project, rescaled in zip(tokens, self.projects, self.resize_layers, strict=True)
        ]
        x = _full(self.scratch.output_conv1(self.scratch(maps)), grid)
        depth, confidence = self.scratch.output_conv2(_placed(x, aspect)).float().unbind(1)
        found = {"depth": depth.exp(), "conf": confidence.exp() + 1}
        if rays:
            x = self.scratch.output_conv1_aux["3"](self.scratch(maps, "_aux"))
            x = self.scratch.output_conv2_aux["3"](_placed(x, aspect)).float().movedim(1, -1)
            found |= {"ray": x[..., :-1], "ray_conf": x[..., -1].exp() + 1}
        return found


def _plain(channels: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(channels, outputs, 3, padding=1)


def _placed(x: Tensor, aspect: float) -> Tensor:
    """`x` (B,C,h,w), written over, with a tenth of the sines and cosines of where its pixels lie in the picture."""
    channels, rows, columns = x.shape[1:]
    speed = 100.0 ** (-torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
    plane = view_plane(rows, columns, aspect).double()
    across, down = (0.1 * _waves(position[:, None] * speed).to(x) for position in (plane[0, :, 0], plane[:, 0, 1]))
    x[:, : channels // 2] += across[:, None, :]
    x[:, channels // 2 :] += down[:, :, None]
    return x


def _waves(angle: Tensor) -> Tensor:
    """(n,c) -> (2c,n): sines, then cosines."""
    return torch.cat([angle.sin(), angle.cos()], -1).T


class CameraDecoder(nn.Module):
    """The camera's token (B,2C) -> translation (B,3), quaternion x, y, z, w (B,4) and the angles of view, down and
    across, in radians (B,2): (B,9)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.fc_t = nn.Linear(width, 3)
        self.fc_qvec = nn.Linear(width, 4)
        self.fc_fov = nn.Sequential(nn.Linear(width, 2), nn.ReLU())

    def forward(self, token: Tensor) -> Tensor:
        x = self.backbone(token)
        return torch.cat([self.fc_t(x), self.fc_qvec(x), self.fc_fov(x)], -1).float()


def intrinsics(camera: Tensor, height: int, width: int) -> Tensor:
    """(B,3,3) of `CameraDecoder`'s result, in pixels of a picture of that size whose centre is (width/2, height/2)."""
    down, across = (camera[:, 7:] / 2).tan().clamp_min(1e-6).unbind(-1)
    matrix = camera.new_zeros(len(camera), 3, 3)
    matrix[:, 0, 0], matrix[:, 1, 1] = width / 2 / across, height / 2 / down
    matrix[:, 0, 2], matrix[:, 1, 2], matrix[:, 2, 2] = width / 2, height / 2, 1
    return matrix


def extrinsics(camera: Tensor) -> Tensor:
    """World to camera (B,3,4) of `CameraDecoder`'s result, which holds camera to world."""
    x, y, z, w = camera[:, 3:7].unbind(-1)
    two = 2 / camera[:, 3:7].square().sum(-1)
    rows = [
        [1 - two * (y * y + z * z), two * (x * y - z * w), two * (x * z + y * w)],
        [two * (x * y + z * w), 1 - two * (x * x + z * z), two * (y * z - x * w)],
        [two * (x * z - y * w), two * (y * z + x * w), 1 - two * (x * x + y * y)],
    ]
    back = torch.stack([torch.stack(row, -1) for row in rows], -2).transpose(1, 2)
    return torch.cat([back, -back @ camera[:, :3, None]], -1)


# ---------------------------------------------------------------------------------------------- networks


class DepthAnything3Network(nn.Module):
    """Input: (B,3,h,w) normalised with the ImageNet mean and deviation, h and w multiples of 14.

    Output: "depth" (B,h,w), larger = farther, right up to a factor; "conf" (B,h,w), at least 1; "pose_enc" (B,9),
    see `CameraDecoder`; "intrinsics" (B,3,3) in pixels of the input; "extrinsics" (B,3,4). With `rays` also "ray"
    (B,8h/14,8w/14,6) and "ray_conf" (B,8h/14,8w/14).
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.backbone = Backbone(spec)
        self.head = DualHead(spec)
        self.cam_dec = CameraDecoder(2 * spec.width)

    def forward(self, pixels: Tensor, rays: bool = False) -> dict[str, Tensor]:
        taps, grid = self.backbone(pixels)
        camera = self.cam_dec(taps[-1][0])
        found = self.head([patches for _, patches in taps], grid, rays)
        matrix = intrinsics(camera, pixels.shape[-2], pixels.shape[-1])
        return found | {"pose_enc": camera, "intrinsics": matrix, "extrinsics": extrinsics(camera)}


class SkyNetwork(nn.Module):
    """Input: as `DepthAnything3Network`.

    Output: "depth" (B,h,w), larger = farther, sky as far as the rest reaches; "depth_head" (B,h,w), the same before the
    sky was filled; "sky" (B,h,w) from 0, larger = more likely.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.backbone = Backbone(spec)
        self.head = SkyHead(spec)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        taps, grid = self.backbone(pixels)
        depth, sky = self.head([patches for _, patches in taps], grid)
        filled = torch.stack([_fill_sky(d, s) for d, s in zip(depth, sky, strict=True)])
        return {"depth": filled, "depth_head": depth, "sky": sky}


def _fill_sky(depth: Tensor, sky: Tensor) -> Tensor:
    """`depth` (h,w) with its sky at the 99th percentile of the rest.

    The published code takes it of random draws where there is much. They are drawn here by a generator of their own:
    nothing else moves them, nor they anything else.
    """
    ground = sky < SKY
    seen = depth[ground]
    if seen.numel() <= _FEW or depth.numel() - seen.numel() <= _FEW:
        return depth
    if seen.numel() > _DRAWS:
        draws = torch.randint(0, seen.numel(), (_DRAWS,), generator=torch.Generator().manual_seed(0))
        seen = seen[draws.to(seen.device)]
    return torch.where(ground, depth, torch.quantile(seen, 0.99))


# ---------------------------------------------------------------------------------------------- sizes


@dataclass(frozen=True)
class TwoSteps(Fit):
    """A picture that is resized twice on its way in, in 8 bits each time. middle: (height, width) in between. first:
    the filter of the first step; `way_in` is that of the second."""

    middle: Size = (0, 0)
    first: Filter = "area"

    def enter(self, pixels: Tensor) -> Tensor:
        return resize(resize(pixels, self.middle, self.first), self.network, self.way_in)


def upper_bound(height: int, width: int, longest: int) -> TwoSteps:
    """The published way ("upper_bound_resize"): the longest side becomes `longest`, then each side the nearest multiple
    of the patch, the upper one of two as near. cv2's cubic filter enlarges, its area filter shrinks."""
    scale = longest / max(height, width)
    middle = max(1, round(height * scale)), max(1, round(width * scale))
    rows, columns = (max(1, (side + PATCH // 2) // PATCH) * PATCH for side in middle)
    grows = rows > middle[0] or columns > middle[1]
    second: Filter = "bicubic_cv" if grows else "area"
    first: Filter = "bicubic_cv" if scale > 1 else "area"
    return TwoSteps((height, width), (rows, columns), second, "bilinear", middle=middle, first=first)


# ---------------------------------------------------------------------------------------------- estimators

_NEAREST = 1e-12  # what a distance is at least: its inverse must be a number
_LOOK = DepthLook("values", 2.0, 98.0)


@dataclass(frozen=True, kw_only=True)
class DepthAnything3(Estimator):
    """One Depth Anything 3 model. spec: its sizes. published: the name of the model in config.json."""

    spec: Spec
    published: str

    def adapt(self, checkpoint: Checkpoint) -> DepthAnything3:
        """Raises WeightsError naming the right id for the file of another Depth Anything 3 model."""
        token = checkpoint.tensors.get("model.backbone.pretrained.cls_token")
        if token is None:
            return self
        turns = "model.backbone.pretrained.camera_token" in checkpoint.tensors
        fitting = [e for e in ESTIMATORS if e.spec.width == token.shape[-1] and (e.spec.turns is not None) == turns]
        if (token.shape[-1], turns) != (self.spec.width, self.spec.turns is not None):
            ids = " or ".join(e.id for e in fitting)
            advice = f"It looks like {ids}: choose that, or" if ids else "Fathom has no such model:"
            seen = f"{token.shape[-1]}, {'with' if turns else 'without'} a camera's token"
            raise WeightsError(
                f"{self.name}: {checkpoint.path} belongs to another Depth Anything 3 model: its tokens are {seen}; "
                f"expected {self.spec.width}, {'with' if self.spec.turns is not None else 'without'}. {advice} give "
                "another file."
            )
        # Mono and Metric have the same names and shapes: only the configuration tells them apart.
        named = (checkpoint.config or {}).get("model_name")
        for other in fitting:
            if other.published == named and other.id != self.id:
                raise WeightsError(
                    f"{self.name}: {checkpoint.path} is another Depth Anything 3 model: its config.json says {named}, "
                    f"expected {self.published}. Choose {other.id}, or give another file."
                )
        return self

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return SkyNetwork(self.spec) if self.spec.turns is None else DepthAnything3Network(self.spec)

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        named = {key.removeprefix("model."): tensor for key, tensor in tensors.items()}
        for kind in ("weight", "bias"):
            # One norm for all levels, which files without metadata hold under the first one's name alone.
            shared = named.get(f"head.scratch.output_conv2_aux.0.2.{kind}")
            if shared is not None:
                named.setdefault(f"head.scratch.output_conv2_aux.3.2.{kind}", shared)
        return named

    def tiny(self) -> DepthAnything3:
        plain = self.spec.turns is None
        taps, depth, turns = ((0, 1, 2, 3), 4, None) if plain else ((3, 5, 7, 9), 10, 2)
        spec = Spec(32, depth, 2, (8, 8, 16, 16), 16, taps, turns)
        options = tuple(replace(o, default=98) if o.name == "process_res" else o for o in self.options)
        return replace(self, spec=spec, options=options, sources=())

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        return self.plan(height, width, resolution, self.settings({}))

    def plan(self, height: int, width: int, resolution: int | None, options: Mapping[str, Any]) -> Fit:
        """`process_res` says what the network sees; `resolution` is the result's alone."""
        return upper_bound(height, width, options["process_res"])

    def infer(
        self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> dict[str, Signal]:
        """ "depth": right up to a factor, with the focal length and the confidence."""
        found = self._forward(network, pixels, fit)
        leave = _leaver(fit, size)
        matrix = found["intrinsics"]
        across = matrix[:, 0, 0] * size[1] / fit.network[1]
        down = matrix[:, 1, 1] * size[0] / fit.network[0]
        depth = Depth(
            _inverse(leave(found["depth"])),
            "scale_inverse",
            focal=torch.stack([across, down], 1),
            source=self.name,
            look=_LOOK,
            principal=matrix.new_tensor([(size[1] - 1) / 2, (size[0] - 1) / 2]).repeat(len(matrix), 1),
            confidence=leave(found["conf"]),
        )
        return {"depth": depth}

    def _forward(self, network: nn.Module, pixels: Tensor, fit: Fit) -> dict[str, Tensor]:
        return network(self.normalise(fit.enter(pixels)).to(next(network.parameters()).dtype))


def _leaver(fit: Fit, size: Size) -> Any:
    return lambda plane: fit.leave(plane[:, None], size)[:, 0]


def _inverse(distance: Tensor) -> Tensor:
    """Larger = closer, of the network's distances."""
    return distance.clamp_min(_NEAREST).reciprocal()


@dataclass(frozen=True, kw_only=True)
class DepthAnything3Mono(DepthAnything3):
    """A Depth Anything 3 model with a head for sky."""

    def infer(
        self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> dict[str, Signal]:
        """ "depth": right up to a factor, the sky as far as the rest reaches; "sky": how likely a pixel is sky."""
        found = self._forward(network, pixels, fit)
        leave = _leaver(fit, size)
        sky = Mask(leave(found["sky"]).clamp(0, 1), self.name)
        return {"depth": self._depth(leave(found["depth"]), fit, size, options), "sky": sky}

    def _depth(self, distance: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Depth:
        return Depth(_inverse(distance), "scale_inverse", source=self.name, look=_LOOK)


@dataclass(frozen=True, kw_only=True)
class DepthAnything3Metric(DepthAnything3Mono):
    """The Depth Anything 3 model whose result is metres once the focal length is known."""

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """As `Estimator.settings`. Raises SettingError for a focal length and a field of view together."""
        settings = super().settings(given)
        if settings["focal"] and settings["field_of_view"]:
            raise SettingError(f"{self.id}: give focal or field_of_view, not both.")
        return settings

    def with_focal(self, options: Mapping[str, Any], focal: float | None) -> Mapping[str, Any]:
        if focal is None or options.get("focal") or options.get("field_of_view"):
            return options
        return {**options, "focal": focal}

    def _depth(self, distance: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Depth:
        """Metres with a focal length; without one what the network gives, right up to a factor."""
        height, width = fit.source
        focal = options["focal"]
        if view := options["field_of_view"]:
            focal = focal_of_view(view, width)
        if not focal:
            return super()._depth(distance, fit, size, options)
        inside = focal * (fit.network[1] / width + fit.network[0] / height) / 2
        camera = distance.new_tensor([focal * size[1] / width, focal * size[0] / height]).repeat(len(distance), 1)
        metres = distance.clamp_min(_NEAREST) * (inside / CANONICAL)
        return depth_from_metres(metres, focal=camera, source=self.name, look=_LOOK)


# ---------------------------------------------------------------------------------------------- the models

_REPOSITORY = "https://github.com/ByteDance-Seed/Depth-Anything-3"
_APACHE = Licence("Apache-2.0", True, f"{_REPOSITORY}#-model-cards")
_NC = Licence("CC-BY-NC-4.0", False, f"{_REPOSITORY}#-model-cards")
_EXTRAS = {
    "cam_enc.*": "takes cameras that somebody else measured",
    "head.scratch.output_conv1_aux.[012].*": "rays of coarser levels, for training only",
    "head.scratch.output_conv2_aux.[012].*": "rays of coarser levels, for training only",
    "backbone.pretrained.mask_token": "stands for hidden patches, in training only",
}
_PROCESS = Option("process_res", 504, 14, 2048, about="Longest side that the network sees, in pixels.")
_FOCAL = (
    Option(
        "focal", 0.0, 0.0, 1e6, about="Focal length in pixels of the picture: makes the result metres; 0 = unknown."
    ),
    Option(
        "field_of_view",
        0.0,
        0.0,
        179.0,
        about="Horizontal field of view in degrees, instead of the focal length; 0 = unknown.",
    ),
)


def _model(
    kind: type[DepthAnything3],
    size: str,
    spec: str,
    licence: Licence,
    about: str,
    source: Source,
    published: str,
    produces: tuple[str, ...] = ("depth", "sky"),
    options: tuple[Option, ...] = (),
) -> DepthAnything3:
    return kind(
        id=f"depth-anything-3-{size}",
        name=f"Depth Anything 3 {size.replace('-', ' ').title()}",
        family="depth_anything_3",
        produces=produces,
        licence=licence,
        parameters=SPECS[spec].parameters,
        sources=(source,),
        about=about,
        memory=SPECS[spec].memory,
        options=(_PROCESS, *options),
        extras=_EXTRAS,
        spec=SPECS[spec],
        published=published,
    )


def _source(name: str, sha256: str | None = None, size: int | None = None, revision: str = "main") -> Source:
    return Source(f"depth-anything/{name}", "model.safetensors", sha256=sha256, size=size, revision=revision)


_CAMERA = "Depth right up to one factor, with its confidence and the focal length; "

ESTIMATORS = (
    _model(
        DepthAnything3,
        "small",
        "small",
        _APACHE,
        _CAMERA + "the fastest size.",
        _source(
            "DA3-SMALL",
            "364492e38a3a06d221ac75da7f6621ada3f2361cd24fde11ba79091e9f40efcf",
            137248940,
            "e08cab65ca0ec38e7826075418411ab90cab4da3",
        ),
        "da3-small",
        ("depth",),
    ),
    _model(
        DepthAnything3,
        "base",
        "base",
        _APACHE,
        _CAMERA + "the middle size.",
        _source(
            "DA3-BASE",
            "e01067dc1659613083d9145a9a2547ccdbe6ccbbf83c4fe7b3e8a4e2bdae78b5",
            541518028,
            "f4a6c9b3c95e41c82048423d3493a81ec3fa810e",
        ),
        "da3-base",
        ("depth",),
    ),
    _model(
        DepthAnything3,
        "large",
        "large",
        _NC,
        _CAMERA + "the largest size, version 1.1.",
        # It took the place of DA3-LARGE, which its authors ask not to use any more.
        _source(
            "DA3-LARGE-1.1",
            "739905c423cf0d6ccaf9e61a8401d82ba1ac32d7f4d3ee6dca8f92b377633f64",
            1643843860,
            "0e109ae307c5982f319a67cf6f9f99ccdc0ec97c",
        ),
        "da3-large",
        ("depth",),
    ),
    _model(
        DepthAnything3Mono,
        "mono-large",
        "sky",
        _APACHE,
        "Depth right up to one factor, made for single pictures, and where the sky is.",
        _source(
            "DA3MONO-LARGE",
            "7a799a7f95eb8d4c404c2ca8be3dc3276b350a417ddc4420db72ba850cc0e960",
            revision="f465978e618db8cc79c83b8bbf24964857db1875",
        ),
        "da3mono-large",
    ),
    _model(
        DepthAnything3Metric,
        "metric-large",
        "sky",
        _APACHE,
        "Metres once the focal length or the field of view is given, and where the sky is.",
        _source(
            "DA3METRIC-LARGE",
            "bbea5b0b3ee389849cffa7ddae89de064a90abd2b055fc5aa99aac68db324776",
            1336734448,
            "4010e39f3634a45bc60553321fb49fb760bd594e",
        ),
        "da3metric-large",
        options=_FOCAL,
    ),
)
