"""Procedural pictures with exact depth, normals and regions: a batched ray tracer in plain torch.

``render(seeds, height, width)`` draws the scenes of ``layouts.py``. Rays go through a pinhole camera; the
picture is cut into tiles, parts whose bounding ball misses a tile's cone are dropped, and every (tile, part)
pair that remains is one row of a batch of rays against unit shapes. It runs on whatever device it is told to.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import layouts as grammar
from .layouts import BOX, CARD, DISC, FRUSTUM, GROUND, LEAVES, SPHERE, TORUS, Layout
from .patterns import PLAIN, SIZE, pattern_bank, sample_bank
from .photo import blur_each, develop, photo_parameters
from .rooms import EYE_LEVEL

TILE = 32
PATTERNS = 5
LAMPS = 3
SCENES = {**grammar.SCENES, **EYE_LEVEL}
"""Kinds of scenes by name: the function that lays one out, and its weight."""
_ROWS = {"cpu": 384, "cuda": 8192}  # (tile, part) pairs traced at a time: on a processor they stay in its cache
_EPS = 1e-4


@dataclass
class Scenes:
    """A batch of rendered scenes.

    image: (B,3,H,W) float32 in 0..1. depth: (B,H,W) metres along the optical axis, inf where all is sky.
    normals: (B,H,W,3) unit, camera frame x right, y up, z towards the viewer; (0,0,1) in the sky.
    regions: (B,H,W) int64 object number, 0 = sky. focal: (B,) pixels. kinds: the kind of each scene.
    """

    image: Tensor
    depth: Tensor
    normals: Tensor
    regions: Tensor
    focal: Tensor
    kinds: list[str]


@dataclass
class _Parts:
    """Every part of every scene of the batch, one row each."""

    scene: Tensor  # (N,) long
    kind: Tensor  # (N,) long
    region: Tensor  # (N,) long
    centre: Tensor  # (N,3) metres, world
    inverse: Tensor  # (N,3,3) world -> unit shape
    radius: Tensor  # (N,) bounding ball in metres, inf for endless planes
    shape: Tensor  # (N,)
    metric: Tensor  # (N,3) half sizes in metres
    uv: Tensor  # (N,3) offset and turn of the pattern
    surface: Tensor  # (N,12): dark 3, light 3, pattern, tile, grain, gloss, bump, glow


@dataclass
class Packed:
    """A layout as plain arrays, ready for another process or device.

    parts: (N,34) float32, a row each: kind, region, centre 3, inverse 9, radius, shape, metric 3, uv 3, surface 12.
    scene: arrays by name, of shapes that do not differ from scene to scene: camera, light, air, patterns, camera noise.
    """

    kind: str
    parts: np.ndarray
    scene: dict[str, np.ndarray]


_COLUMNS = {
    "kind": 1,
    "region": 1,
    "centre": 3,
    "inverse": 9,
    "radius": 1,
    "shape": 1,
    "metric": 3,
    "uv": 3,
    "surface": 12,
}


def pack(name: str, layout: Layout, seed: int, patterns: int = 96) -> Packed:
    """`layout` with the light, patterns (of a bank of `patterns`) and camera noise that `seed` chooses."""
    rows = layout.parts
    axes = np.stack([part["axes"] for part in rows])
    kind = np.array([part["kind"] for part in rows])
    shape = np.array([part["shape"] for part in rows], dtype=float)
    length = np.linalg.norm(axes, axis=1)
    ball = length.max(1)
    corner = np.linalg.norm(length, axis=1)
    widest = np.maximum(1.0, np.abs(shape))
    across = np.maximum(length[:, 0], length[:, 2])
    radius = np.select(
        [kind == GROUND, kind == BOX, kind == CARD, kind == FRUSTUM, kind == TORUS],
        [
            np.inf,
            corner,
            np.hypot(length[:, 0], length[:, 2]),
            np.hypot(across * widest, length[:, 1]),
            ball * (1 + np.abs(shape)),
        ],
        np.where(kind == DISC, across, ball),
    )
    surface = [
        np.concatenate([m.dark, m.light, [m.pattern, m.tile, m.grain, m.gloss, m.bump, m.glow]])
        for m in (part["material"] for part in rows)
    ]
    columns = [
        kind[:, None],
        np.array([[part["object"]] for part in rows]),
        np.stack([part["origin"] for part in rows]),
        np.linalg.inv(axes).reshape(-1, 9),
        radius[:, None],
        shape[:, None],
        np.stack([part["metric"] for part in rows]),
        np.stack([part["uv"] for part in rows]),
        np.stack(surface),
    ]
    rng = np.random.default_rng((seed, 1))
    chosen = rng.integers(0, patterns, PATTERNS)
    # The first pattern serves as clouds and as the grain of surfaces.
    chosen[0] = rng.integers(0, max(1, int(patterns * PLAIN)))
    scene = {
        "eye": layout.eye,
        "look": layout.look,
        "fov": np.float64(layout.fov),
        "fog": np.float64(layout.fog),
        "patterns": chosen,
        **_lights(seed, layout),
        **photo_parameters(np.random.default_rng((seed, 2)), layout.focus),
    }
    return Packed(
        name,
        np.concatenate(columns, 1).astype(np.float32),
        {key: np.asarray(value, dtype=np.float32) for key, value in scene.items()},
    )


def _collect(packed: Sequence[Packed], device: torch.device) -> tuple[_Parts, dict[str, Tensor]]:
    """All parts of the batch on `device`, and the scenes' own numbers stacked by name."""
    table = torch.from_numpy(np.concatenate([one.parts for one in packed])).to(device)
    index = np.repeat(np.arange(len(packed)), [len(one.parts) for one in packed])
    columns = dict(zip(_COLUMNS, table.split(list(_COLUMNS.values()), 1), strict=True))
    scene = {
        name: torch.from_numpy(np.stack([one.scene[name] for one in packed])).to(device) for name in packed[0].scene
    }
    parts = _Parts(
        scene=torch.from_numpy(index).to(device),
        kind=columns["kind"][:, 0].long(),
        region=columns["region"][:, 0].long(),
        centre=columns["centre"],
        inverse=columns["inverse"].view(-1, 3, 3),
        radius=columns["radius"][:, 0],
        shape=columns["shape"][:, 0],
        metric=columns["metric"],
        uv=columns["uv"],
        surface=columns["surface"],
    )
    return parts, scene


def _first(near: Tensor, far: Tensor) -> Tensor:
    """The nearer of two distances that lies ahead, inf where neither does."""
    inf = torch.full_like(near, torch.inf)
    return torch.where(near > _EPS, near, torch.where(far > _EPS, far, inf))


def _leafy(p: Tensor, frequency: Tensor) -> Tensor:
    """Whether the points (K,3,P) of a unit ball lie on a leaf rather than in a gap."""
    x, y, z = (p * frequency[:, None, None]).unbind(1)
    wave = torch.sin(x + 2 * torch.sin(0.7 * z)) + torch.sin(1.3 * y + 2 * torch.sin(x)) + torch.sin(1.1 * z + 1.7 * y)
    return wave + 0.5 * torch.sin(2.7 * x + 1.9 * y) * torch.sin(2.3 * z) > -0.6


def _intersect(kind: int, o: Tensor, d: Tensor, shape: Tensor) -> Tensor:
    """Rays `o` + t `d`, both (K,3,P) in the unit frame, against one shape each: t (K,P), inf for a miss."""
    inf = torch.full_like(d[:, 0], torch.inf)
    (ox, oy, oz), (dx, dy, dz) = o.unbind(1), d.unbind(1)
    if kind in (GROUND, CARD, DISC):
        t = -oy / torch.where(dy.abs() < 1e-9, torch.full_like(dy, 1e-9), dy)
        hit = t > _EPS
        if kind != GROUND:
            x, z = ox + t * dx, oz + t * dz
            hit &= (x * x + z * z <= 1) if kind == DISC else (torch.maximum(x.abs(), z.abs()) <= 1)
        return torch.where(hit, t, inf)
    if kind == BOX:
        inverse = 1 / torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
        middle, reach = -o * inverse, inverse.abs()
        near, far = (middle - reach).amax(1), (middle + reach).amin(1)
        return torch.where(near <= far, _first(near, far), inf)
    if kind in (SPHERE, LEAVES):
        a, b, c = (d * d).sum(1), (o * d).sum(1), (o * o).sum(1) - 1
        root = b * b - a * c
        hit = root >= 0
        root = root.clamp_min(0).sqrt()
        near, far = (-b - root) / a, (-b + root) / a
        if kind == LEAVES:
            near = torch.where(_leafy(o + near[:, None] * d, shape), near, -inf)
            far = torch.where(_leafy(o + far[:, None] * d, shape), far, -inf)
        return torch.where(hit, _first(near, far), inf)
    if kind == FRUSTUM:
        top = shape.abs()[:, None]
        slope, mean = (top - 1) / 2, (top + 1) / 2
        ry, rd = mean + slope * oy, slope * dy
        a, b, c = dx * dx + dz * dz - rd * rd, ox * dx + oz * dz - ry * rd, ox * ox + oz * oz - ry * ry
        a = torch.where(a.abs() < 1e-9, torch.full_like(a, 1e-9), a)
        root = b * b - a * c
        best = inf
        spread = root.clamp_min(0).sqrt()
        for t in ((-b - spread) / a, (-b + spread) / a):
            y = oy + t * dy
            fits = (root >= 0) & (t > _EPS) & (y.abs() <= 1)
            best = torch.minimum(best, torch.where(fits, t, inf))
        flat = torch.where(dy.abs() < 1e-9, torch.full_like(dy, 1e-9), dy)
        for side, radius in ((-1.0, torch.ones_like(top)), (1.0, shape[:, None].clamp_min(0))):
            t = (side - oy) / flat
            x, z = ox + t * dx, oz + t * dz
            best = torch.minimum(best, torch.where((t > _EPS) & (x * x + z * z <= radius * radius), t, inf))
        return best
    # Torus: march along the ray from where it enters the bounding ball.
    tube = shape[:, None]
    speed = (d * d).sum(1).sqrt()
    unit = d / speed[:, None]
    b = (o * unit).sum(1)
    root = b * b - (o * o).sum(1) + (1 + tube) ** 2
    inside = root >= 0
    travelled = (-b - root.clamp_min(0).sqrt()).clamp_min(0)
    for _ in range(32):
        p = o + travelled[:, None] * unit
        gap = torch.hypot(torch.hypot(p[:, 0], p[:, 2]) - 1, p[:, 1]) - tube
        travelled = travelled + gap
    return torch.where(inside & (gap.abs() < 2e-3) & (travelled > _EPS), travelled / speed, inf)


def _trace(parts: _Parts, origin: Tensor, rays: Tensor, tiles: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest hit of each tile's rays.

    `origin` (T,3,1 or P) and `rays` (T,3,P) world; the pairs are tile `tiles` (K,) with part `rows` (K,).
    Returns t (T,P), inf for a miss, and the part hit (T,P), -1 for none.
    """
    count, _, points = rays.shape
    nearest = torch.full((count, points), torch.inf, device=rays.device)
    winner = torch.full((count, points), -1, dtype=torch.long, device=rays.device)
    kinds = parts.kind[rows]
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for kind in range(GROUND + 1):
        mine = (kinds == kind).nonzero()[:, 0]
        for chunk in mine.split(_ROWS.get(rays.device.type, 8192)):
            tile, row = tiles[chunk], rows[chunk]
            inverse = parts.inverse[row]
            o = inverse @ (origin[tile] - parts.centre[row][:, :, None])
            t = _intersect(kind, o, inverse @ rays[tile], parts.shape[row])
            with warnings.catch_warnings():
                # index_reduce_ calls itself beta; scatter_reduce_ is a third slower here.
                warnings.simplefilter("ignore", UserWarning)
                nearest.index_reduce_(0, tile, t, "amin")
            found.append((tile, row, t))
    for tile, row, t in found:
        first, column = ((t == nearest[tile]) & (t < torch.inf)).nonzero(as_tuple=True)
        winner[tile[first], column] = row[first]
    return nearest, winner


def _to_tiles(maps: Tensor, size: int) -> Tensor:
    """(B,C,H,W) -> (B * H/size * W/size, C, size * size)."""
    b, c, h, w = maps.shape
    tiles = maps.view(b, c, h // size, size, w // size, size).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(-1, c, size * size)


def _from_tiles(tiles: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `_to_tiles`."""
    c = tiles.shape[1]
    maps = tiles.view(-1, height // size, width // size, c, size, size).permute(0, 3, 1, 4, 2, 5)
    return maps.reshape(-1, c, height, width)


def _visible(parts: _Parts, scene: Tensor, eye: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """(tile, part) pairs whose cone and bounding ball meet. `scene` (T,), `eye` (T,3), `rays` (T,3,P)."""
    axis = F.normalize(rays.mean(2), dim=1)
    half = torch.acos((F.normalize(rays, dim=1) * axis[:, :, None]).sum(1).amin(1).clamp(-1, 1))
    tile, row = (scene[:, None] == parts.scene[None]).nonzero(as_tuple=True)
    offset = parts.centre[row] - eye[tile]
    distance = offset.norm(dim=1).clamp_min(1e-6)
    angle = torch.acos(((offset * axis[tile]).sum(1) / distance).clamp(-1, 1))
    ball = torch.asin((parts.radius[row] / distance).clamp(max=1.0))
    keep = (angle <= half[tile] + ball + 1e-3) | (parts.radius[row] >= distance)
    return tile[keep], row[keep]


def _shadow(parts: _Parts, scene: Tensor, points: Tensor, light: Tensor, ahead: Tensor) -> Tensor:
    """Whether something stands between `points` (T,3,P) and the sun; 1 = lit, (T,P).

    `light` (T,3) unit, towards the sun; `ahead` (T,P): whether a surface is there at all. Endless planes and
    room walls (cards over 3 m) cast no shadow: the sun would never get in.
    """
    low = points.masked_fill(~ahead[:, None], torch.inf).amin(2)
    high = points.masked_fill(~ahead[:, None], -torch.inf).amax(2)
    some = ahead.any(1)
    low, high = low.masked_fill(~some[:, None], 0), high.masked_fill(~some[:, None], 0)
    middle, reach = (low + high) / 2, (high - low).norm(dim=1) / 2
    wall = (parts.kind == CARD) & (parts.radius > 3)
    casts = torch.isfinite(parts.radius) & ~wall
    tile, row = ((scene[:, None] == parts.scene[None]) & casts[None] & some[:, None]).nonzero(as_tuple=True)
    offset = parts.centre[row] - middle[tile]
    along = (offset * light[tile]).sum(1)
    aside = (offset - along[:, None] * light[tile]).norm(dim=1)
    sum_radii = parts.radius[row] + reach[tile]
    keep = (aside <= sum_radii) & (along > -sum_radii)
    rays = light[:, :, None].expand(-1, -1, points.shape[2])
    nearest, _ = _trace(parts, points, rays, tile[keep], row[keep])
    return torch.isinf(nearest).float()


def _cameras(scene: dict[str, Tensor], height: int, width: int) -> tuple[Tensor, Tensor]:
    """World rays (B,3,H,W), advancing 1 along the optical axis, and focal lengths (B,) in pixels."""
    focal = max(height, width) / 2 / torch.tan(scene["fov"] / 2)
    x = torch.arange(width, device=focal.device) + 0.5 - width / 2
    y = height / 2 - (torch.arange(height, device=focal.device) + 0.5)
    plane = torch.stack([x[None].expand(height, width), y[:, None].expand(height, width)])
    flat = torch.cat([plane[None] / focal[:, None, None, None], plane.new_ones(len(focal), 1, height, width)], 1)
    return torch.einsum("bij,bjhw->bihw", scene["look"], flat), focal


def _local_normals(kind: Tensor, p: Tensor, shape: Tensor) -> Tensor:
    """Normals (3,N) in the unit frame, not yet unit length, of the points `p` (3,N)."""
    normal = p.clone()
    up = torch.zeros_like(p)
    up[1] = 1
    flat = (kind == CARD) | (kind == DISC) | (kind == GROUND)
    normal = torch.where(flat, up, normal)
    magnitude = p.abs()
    face = torch.where(magnitude == magnitude.amax(0, keepdim=True), p.sign(), torch.zeros_like(p))
    normal = torch.where(kind == BOX, face, normal)
    top = shape.abs()
    slope = (top - 1) / 2
    side = torch.stack([p[0], -slope * ((top + 1) / 2 + slope * p[1]), p[2]])
    # A lid's points have |y| = 1 but lie within its rim; the wall's points lie on the radius.
    inside = p[0] ** 2 + p[2] ** 2 < ((top + 1) / 2 + slope * p[1]) ** 2 * 0.999
    side = torch.where((p[1].abs() > 0.999) & inside, up * p[1].sign(), side)
    normal = torch.where(kind == FRUSTUM, side, normal)
    ring = torch.hypot(p[0], p[2]).clamp_min(1e-6)
    tube = torch.stack([p[0] * (1 - 1 / ring), p[1], p[2] * (1 - 1 / ring)])
    return torch.where(kind == TORUS, tube, normal)


def _albedo(
    bank: Tensor,
    surface: Tensor,
    uv: Tensor,
    p: Tensor,
    normal: Tensor,
    metric: Tensor,
    patterns: Tensor,
    footprint: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (3,N) of surface points, plus two fine noises (N,) in -0.5..0.5 for bumps.

    `surface` (N,12), `uv` (N,3), `p` and `normal` (3,N) in the unit frame, `metric` (N,3), `patterns` (N,PATTERNS)
    rows of the bank, `footprint` (N,) metres that a pixel covers there.
    """
    real = p * metric.T
    facing = (normal / metric.T.clamp_min(1e-6)).abs()
    axis = facing.argmax(0)
    a = torch.where(axis == 0, real[2], real[0])
    b = torch.where(axis == 1, real[2], real[1])
    cos, sin = torch.cos(uv[:, 2] * 6.2832), torch.sin(uv[:, 2] * 6.2832)
    # Most man-made patterns sit square on their object.
    cos, sin = (
        torch.where(uv[:, 2] < 0.6, torch.ones_like(cos), cos),
        torch.where(uv[:, 2] < 0.6, torch.zeros_like(sin), sin),
    )
    tile = surface[:, 7].clamp_min(1e-4)
    grid = torch.stack([cos * a - sin * b, sin * a + cos * b]) / tile + uv[:, :2].T
    level = torch.log2((footprint / tile * SIZE).clamp_min(1e-3)) + 0.3
    mix = sample_bank(bank, patterns.gather(1, surface[:, 6:7].long())[:, 0], grid, level)
    fine = sample_bank(bank, patterns[:, 0], grid * 5.3 + 0.37, level + 2.4) - 0.5
    finer = sample_bank(bank, patterns[:, 0], grid.flip(0) * 2.1 + 0.71, level + 1.1) - 0.5
    colour = torch.lerp(surface[:, :3].T, surface[:, 3:6].T, mix)
    # No surface in a photograph is of one even colour: wear and dirt, larger than the pattern, lie on all of them.
    stain = sample_bank(bank, patterns[:, 0], grid * 0.23 + 0.19, level - 2.1)
    colour = colour * (0.85 + 0.3 * stain)
    return (colour * (1 + surface[:, 8] * (1.6 * fine + 0.8 * finer))).clamp(0, 1.5), fine, finer


def _direction(rng: np.random.Generator, low: float) -> np.ndarray:
    """A unit vector with an elevation of at least asin(low)."""
    y, turn = rng.uniform(low, 1.0), rng.uniform(0, 2 * math.pi)
    flat = math.sqrt(1 - y * y)
    return np.array([flat * math.cos(turn), y, flat * math.sin(turn)])


def _lamps(rng: np.random.Generator, layout: Layout) -> np.ndarray:
    """(LAMPS,6): place in metres and colour (linear RGB) of the soft lamps of a room; black where there are fewer."""
    lamps = np.zeros((LAMPS, 6))
    given = list(layout.lamps)
    rng.shuffle(given)
    if layout.indoor:
        for _ in range(rng.integers(0, 3)):
            ahead = np.array([rng.uniform(-2, 2), rng.uniform(0.1, 1.2), rng.uniform(-0.5, 4)])
            given.append((layout.eye + layout.look @ ahead, rng.uniform(0.5, 6)))
    for k, (at, strength) in enumerate(given[:LAMPS]):
        warm = np.array([1.0, 0.8, 0.55]) if rng.random() < 0.5 else np.ones(3)
        lamps[k] = np.concatenate([at, min(strength, 8.0) * rng.uniform(0.3, 1.2) * warm])
    return lamps


def _lights(seed: int, layout: Layout) -> dict[str, np.ndarray]:
    """The light and sky of one scene, linear RGB."""
    rng = np.random.default_rng((seed, 3))
    indoor = layout.indoor

    def tint(amount: float) -> np.ndarray:
        return np.exp(rng.normal(0, amount, 3))

    sky_style = rng.choice(["blue", "grey", "white", "dusk", "night", "odd"], p=[0.4, 0.2, 0.15, 0.1, 0.08, 0.07])
    zenith, horizon = {
        "blue": (np.array([0.12, 0.3, 0.75]) * rng.uniform(0.4, 1.6), np.array([0.6, 0.75, 0.95])),
        "grey": (np.full(3, rng.uniform(0.25, 0.7)), np.full(3, rng.uniform(0.4, 0.9))),
        "white": (np.full(3, 0.95), np.full(3, 1.0)),
        "dusk": (np.array([0.15, 0.15, 0.35]), np.array([1.0, 0.5, 0.2])),
        "night": (np.full(3, 0.01), np.array([0.04, 0.05, 0.08])),
        "odd": (rng.random(3), rng.random(3)),
    }[sky_style]
    sun = rng.uniform(0.3, 3.0) if rng.random() < 0.75 else 0.0
    return {
        "toward": _direction(rng, 0.1),
        "lamps": _lamps(rng, layout),
        "sun": sun * tint(0.15),
        "ambient": rng.uniform(0.15, 0.9) * tint(0.1),
        "below": rng.uniform(0.02, 0.5) * tint(0.15),
        "fill_toward": _direction(rng, -0.6),
        "fill": (rng.uniform(0.0, 0.9) if rng.random() < 0.6 else 0.0) * tint(0.1),
        "zenith": zenith * tint(0.05),
        "horizon": horizon * tint(0.05),
        "clouds": np.array(
            [rng.uniform(0, 1) if rng.random() < 0.6 else 0.0, rng.uniform(0.2, 1.2), rng.uniform(0.3, 1.2)]
        ),
        "lamp": np.array([rng.uniform(0.3, 2.0) if rng.random() < (0.35 if indoor else 0.08) else 0.0]),
        "soft": np.array([rng.choice([0.0, 1.0, 3.0])]),
        "occlusion": np.array([rng.uniform(0, 1.2)]),
    }


def draw_layout(seed: int, kind: str | None = None) -> tuple[str, Layout]:
    """The scene that `seed` names: its kind (drawn by weight unless given) and its layout."""
    layout = Layout(np.random.default_rng((seed, 0)), PATTERNS)
    weights = np.array([weight for _, weight in SCENES.values()])
    drawn = str(layout.rng.choice(list(SCENES), p=weights / weights.sum()))
    SCENES[kind or drawn][0](layout)
    return kind or drawn, layout


def draw_packed(seed: int, kind: str | None = None, patterns: int = 96) -> Packed:
    """The scene that `seed` names, laid out and packed."""
    return pack(*draw_layout(seed, kind), seed, patterns)


@cache
def evaluation_bank(device: torch.device) -> Tensor:
    """The patterns of all scenes but those of training, which has more of its own."""
    return pattern_bank(0, 96, device)


def render(
    seeds: Sequence[int], height: int, width: int, device: str | torch.device = "cpu", kind: str | None = None
) -> Scenes:
    """Draw one scene per seed, `height` and `width` multiples of 32.

    The same seed and size give the same picture. `kind` names one of ``SCENES`` for all of them; None lets each seed
    draw its own.
    """
    return render_packed([draw_packed(seed, kind) for seed in seeds], height, width, torch.device(device))


def render_layouts(layouts: Sequence[Layout], seeds: Sequence[int], height: int, width: int) -> Scenes:
    """Draw given layouts; each seed still chooses that scene's patterns, light and camera noise."""
    packed = [pack("given", layout, seed) for layout, seed in zip(layouts, seeds, strict=True)]
    return render_packed(packed, height, width, torch.device("cpu"))


def render_packed(packed: Sequence[Packed], height: int, width: int, device: torch.device) -> Scenes:
    """Draw packed layouts and take a picture of each."""
    scenes, scene = trace(packed, height, width, device, evaluation_bank(device))
    scenes.image = develop(scenes.image, scenes.depth, scene)
    return scenes


@torch.no_grad()
def trace(
    packed: Sequence[Packed], height: int, width: int, device: torch.device, bank: Tensor
) -> tuple[Scenes, dict[str, Tensor]]:
    """What lies before each camera, `image` as linear radiance, and the scenes' own numbers for ``develop``."""
    if height % TILE or width % TILE:
        raise ValueError(f"height and width must be multiples of {TILE}, not {height} and {width}")
    count = len(packed)
    parts, light = _collect(packed, device)
    eye, look = light["eye"], light["look"]
    rays, focal = _cameras(light, height, width)
    tiled = _to_tiles(rays, TILE)
    per_scene = (height // TILE) * (width // TILE)
    scene = torch.arange(count, device=device).repeat_interleave(per_scene)
    tile, row = _visible(parts, scene, eye[scene], tiled)
    t, winner = _trace(parts, eye[scene][:, :, None], tiled, tile, row)
    depth = _from_tiles(t[:, None], TILE, height, width)[:, 0]
    hit = torch.isfinite(t)
    points = eye[scene][:, :, None] + torch.where(hit, t, torch.ones_like(t))[:, None] * tiled

    where = hit.nonzero(as_tuple=True)
    part = winner[where]
    here = scene[where[0]]
    p_world, ray = points.transpose(1, 2)[where].T, tiled.transpose(1, 2)[where].T
    inverse = parts.inverse[part]
    p = (inverse * (p_world - parts.centre[part].T).T[:, None]).sum(2).T
    local = _local_normals(parts.kind[part], p, parts.shape[part])
    normal = F.normalize((inverse * local.T[:, :, None]).sum(1).T, dim=0)
    view = F.normalize(ray, dim=0)
    facing = (normal * view).sum(0)
    normal = torch.where(facing > 0, -normal, normal)

    surface = parts.surface[part]
    footprint = t[where] / focal[here] / facing.abs().clamp_min(0.15)
    patterns = light["patterns"].long()[here]
    albedo, fine, finer = _albedo(bank, surface, parts.uv[part], p, local, parts.metric[part], patterns, footprint)
    bump = surface[:, 10] * torch.stack([fine, finer, fine - finer])
    shaded = F.normalize(normal + bump, dim=0)

    lit_maps = torch.ones(count, 1, height, width, device=device)
    toward = light["toward"]
    if bool((light["sun"].amax(1) > 0).any()):
        # Shadows at half size: their edges are soft, and they cost a quarter.
        full_normal = torch.zeros_like(tiled).transpose(1, 2).contiguous()
        full_normal[where] = normal.T
        lifted = points + (2e-3 * torch.where(hit, t, torch.ones_like(t)))[:, None] * full_normal.transpose(1, 2)
        half_points = _to_tiles(_from_tiles(lifted, TILE, height, width)[:, :, ::2, ::2], TILE // 2)
        half_hit = _to_tiles(torch.isfinite(depth)[:, None, ::2, ::2], TILE // 2)[:, 0]
        half_hit &= (light["sun"].amax(1) > 0)[scene][:, None]
        lit = _from_tiles(
            _shadow(parts, scene, half_points, toward[scene], half_hit)[:, None],
            TILE // 2,
            height // 2,
            width // 2,
        )
        lit = blur_each(lit, light["soft"][:, 0])
        lit_maps = F.interpolate(lit, (height, width), mode="bilinear", align_corners=False)
    occlusion = _occlusion(depth) * light["occlusion"][:, :, None, None]
    shade_maps = _to_tiles(torch.cat([lit_maps, 1 - occlusion.clamp(0, 0.8)], 1), TILE).transpose(1, 2)
    lit_here, open_here = shade_maps[where].T

    sunny = (shaded * toward[here].T).sum(0).clamp_min(0) * lit_here
    filled = ((shaded * light["fill_toward"][here].T).sum(0) * 0.6 + 0.4).clamp_min(0)
    wrap = 0.5 + 0.5 * shaded[1]
    ambient = torch.lerp(light["below"][here].T, light["ambient"][here].T, wrap) * open_here
    flash = light["lamp"][here, 0] * facing.abs() * 4 / (1 + (t[where] ** 2))
    irradiance = light["sun"][here].T * sunny + light["fill"][here].T * filled * open_here + ambient + flash
    shine = torch.zeros_like(irradiance)
    for k in range(LAMPS):
        lamp = light["lamps"][:, k]
        offset = lamp[here, :3].T - p_world
        square = (offset * offset).sum(0) + 0.15
        toward_lamp = offset * square.rsqrt()
        # Lamps in rooms are soft and walls send their light back: half of it comes round corners.
        strength = lamp[here, 3:].T / square
        irradiance = irradiance + strength * (0.3 + 0.9 * (shaded * toward_lamp).sum(0)).clamp_min(0) * open_here
        halfway = F.normalize(toward_lamp - view, dim=0)
        shine = shine + strength * (shaded * halfway).sum(0).clamp_min(0) ** 50 * surface[:, 9]
    colour = albedo * irradiance + shine
    middle = F.normalize(toward[here].T - view, dim=0)
    glint = (shaded * middle).sum(0).clamp_min(0) ** 40 * (lit_here * surface[:, 9])
    mirror = view - 2 * (view * shaded).sum(0) * shaded
    sheen = surface[:, 9] * (0.04 + 0.4 * (1 - facing.abs()) ** 4)
    colour = colour + light["sun"][here].T * glint
    colour = torch.lerp(colour, _sky(light, bank, here, mirror), sheen) + albedo * surface[:, 11]
    colour = torch.lerp(light["horizon"][here].T * 0.9, colour, torch.exp(-light["fog"][here] * t[where]))

    image = torch.zeros(tiled.shape[0], TILE * TILE, 3, device=device)
    normals = torch.zeros_like(image)
    normals[..., 2] = 1
    sky = (~hit).nonzero(as_tuple=True)
    sky_rays = F.normalize(tiled.transpose(1, 2)[sky].T, dim=0)
    image[sky] = _sky(light, bank, scene[sky[0]], sky_rays).T
    image[where] = colour.T
    camera = (look[here] * normal.T[:, :, None]).sum(1)
    normals[where] = camera * torch.tensor([1.0, 1.0, -1.0], device=device)
    regions = torch.zeros(tiled.shape[0], 1, TILE * TILE, dtype=torch.long, device=device)
    regions[where[0], 0, where[1]] = parts.region[part]

    image = _from_tiles(image.transpose(1, 2), TILE, height, width)
    scenes = Scenes(
        image=image,
        depth=depth,
        normals=_from_tiles(normals.transpose(1, 2), TILE, height, width).permute(0, 2, 3, 1).contiguous(),
        regions=_from_tiles(regions, TILE, height, width)[:, 0],
        focal=focal,
        kinds=[one.kind for one in packed],
    )
    return scenes, light


def _occlusion(depth: Tensor) -> Tensor:
    """Darkening of creases, (B,1,H,W): how far a point lies behind the mean of what surrounds it."""
    inverse = (1 / depth)[:, None]
    small = F.avg_pool2d(inverse, 4)
    total = torch.zeros_like(inverse)
    for window in (5, 13):
        around = F.avg_pool2d(small, window, 1, window // 2, count_include_pad=False)
        around = F.interpolate(around, inverse.shape[-2:], mode="bilinear", align_corners=False)
        total += ((around - inverse) / inverse.clamp_min(1e-3)).clamp(0, 1) / 2
    return total * (inverse > 0)


def _sky(light: dict[str, Tensor], bank: Tensor, scene: Tensor, ray: Tensor) -> Tensor:
    """Radiance (3,N) from the directions `ray` (3,N) unit."""
    up = ray[1].clamp_min(0)
    colour = torch.lerp(light["horizon"][scene].T, light["zenith"][scene].T, (up * 1.3).clamp(0, 1) ** 0.6)
    amount, size, bright = light["clouds"][scene].T
    flat = torch.stack([ray[0], ray[2]]) / (up + 0.25) * size
    cloud = sample_bank(bank, light["patterns"].long()[scene, 0], flat, torch.ones_like(up))
    cover = ((cloud - 0.45) * 4).clamp(0, 1) * amount
    return torch.lerp(colour, bright * (0.6 + 0.4 * light["horizon"][scene].T), cover)
