"""A second generator, for evaluation only: sphere-traced distance fields, not ``scenes.py``'s unit shapes.

Rolling terrain, superquadrics, prisms, smoothly blended bodies and columned halls, with solid textures, their
own light and their own cameras. Training imports nothing from here, so a score on these scenes says how the
network does on pictures from another hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .scenes import Scenes

Field = Callable[[Tensor], Tensor]
FAR = 250.0


def _turned(p: Tensor, centre: np.ndarray, turn: np.ndarray) -> Tensor:
    """World points (N,3) in the frame of a body at `centre` with rows of `turn` (3,3) as its axes."""
    return (p - p.new_tensor(centre)) @ p.new_tensor(turn).T


def superquadric(centre: np.ndarray, turn: np.ndarray, half: np.ndarray, power: float) -> Field:
    """|x/a|^n + |y/b|^n + |z/c|^n = 1 for n = `power`: star-like below 1.5, a ball at 2, a block from 6."""

    def distance(p: Tensor) -> Tensor:
        q = (_turned(p, centre, turn) / p.new_tensor(half)).abs().clamp_min(1e-5)
        radius = (q**power).sum(1) ** (1 / power)
        return (radius - 1) * float(min(half)) * 0.7

    return distance


def capsule(a: np.ndarray, b: np.ndarray, radius: float, end: float | None = None) -> Field:
    """All points within `radius` of the segment a-b, tapering to `end` at b."""
    end = radius if end is None else end

    def distance(p: Tensor) -> Tensor:
        start, span = p.new_tensor(a), p.new_tensor(b - a)
        along = (((p - start) * span).sum(1) / (span * span).sum()).clamp(0, 1)
        return ((p - start - along[:, None] * span).norm(dim=1) - radius - (end - radius) * along) * 0.95

    return distance


def prism(centre: np.ndarray, turn: np.ndarray, sides: int, radius: float, half: float, lean: float) -> Field:
    """Upright prism or pyramid with `sides` flat faces; `lean`: how steeply they fall inwards."""
    angles = np.arange(sides) * 2 * math.pi / sides
    faces = np.stack([np.cos(angles), np.full(sides, lean), np.sin(angles)], 1)
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)

    def distance(p: Tensor) -> Tensor:
        q = _turned(p, centre, turn)
        side = (q @ q.new_tensor(faces).T).amax(1) - radius
        return torch.maximum(side, q[:, 1].abs() - half)

    return distance


def terrain(
    rng: np.random.Generator, amplitude: float, wavelength: float
) -> tuple[Field, Callable[[float, float], float]]:
    """A height field of crossing waves: its distance bound, and its height in metres at (x, z)."""
    count = 7
    angle, phase = rng.uniform(0, 6.28, count), rng.uniform(0, 6.28, count)
    octave = 2.0 ** (np.arange(count) * 0.6)
    k = 2 * math.pi / wavelength * octave
    size = amplitude / octave**1.25

    def height(x: Tensor, z: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for j in range(count):
            total = total + size[j] * torch.sin(k[j] * (math.cos(angle[j]) * x + math.sin(angle[j]) * z) + phase[j])
        return total

    steep = math.sqrt(1 + float((size * k).sum()) ** 2)

    def distance(p: Tensor) -> Tensor:
        return (p[:, 1] - height(p[:, 0], p[:, 2])) / min(steep, 2.2)

    def at(x: float, z: float) -> float:
        return float(height(torch.tensor([x]), torch.tensor([z])))

    return distance, at


def slab(normal: tuple[float, float, float], offset: float) -> Field:
    """The half space below the plane normal . p = offset, with a unit normal."""
    return lambda p: p @ p.new_tensor(normal) - offset


def blended(bodies: list[Field], softness: float) -> Field:
    """One body of many, their joints rounded over about `softness` metres."""

    def distance(p: Tensor) -> Tensor:
        return -softness * torch.logsumexp(torch.stack([-body(p) / softness for body in bodies]), 0)

    return distance


@dataclass
class World:
    """One scene: distance fields with a colour pair each, a camera and the light."""

    rng: np.random.Generator
    bodies: list[Field] = field(default_factory=list)
    looks: list[np.ndarray] = field(default_factory=list)  # two colours, texture frequency, texture kind
    eye: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.5, 0.0]))
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    fov: float = 1.0
    haze: float = 0.0

    def put(self, body: Field, frequency: float, muted: float = 0.5) -> None:
        """Add a body with a random solid texture of `frequency` per metre."""
        rng = self.rng
        base = rng.uniform(0.05, 0.9) * (muted + (1 - muted) * rng.random(3))
        other = np.clip(base * rng.uniform(0.3, 1.6) + rng.normal(0, 0.08, 3), 0.01, 1)
        self.bodies.append(body)
        self.looks.append(np.concatenate([base, other, [frequency * np.exp(rng.normal(0, 0.7)), rng.integers(4)]]))


def _turn(rng: np.random.Generator, upright: bool) -> np.ndarray:
    yaw = rng.uniform(0, 2 * math.pi)
    turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    if upright:
        return turn
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q @ turn


def _solid(w: World, foot: np.ndarray, size: float) -> None:
    """Some body of about `size` metres standing at `foot`."""
    rng = w.rng
    half = size * rng.uniform(0.25, 0.6, 3)
    centre = foot + np.array([0, half[1], 0])
    kind = rng.integers(3)
    if kind == 0:
        body = superquadric(centre, _turn(rng, True), half, float(rng.choice([1.4, 2.0, 3.0, 8.0])))
    elif kind == 1:
        body = prism(
            centre,
            _turn(rng, True),
            int(rng.integers(3, 8)),
            float(half[0]),
            float(half[1]),
            float(rng.choice([0.0, 0.0, 0.3])),
        )
    else:
        lean = rng.normal(0, 0.25, 3) * size
        body = capsule(foot, foot + np.array([lean[0], size, lean[2]]), size * rng.uniform(0.05, 0.25), size * 0.06)
    w.put(body, 3 / size)


def _creature(w: World, foot: np.ndarray, size: float) -> None:
    """A blended upright body with limbs and a head."""
    rng = w.rng
    hip, neck = foot + np.array([0, 0.45 * size, 0]), foot + np.array([0, 0.8 * size, 0])
    bodies = [capsule(hip, neck, 0.13 * size, 0.09 * size)]
    head = neck + np.array([rng.uniform(-0.05, 0.05), 0.14, rng.uniform(-0.1, 0.02)]) * size
    bodies.append(superquadric(head, np.eye(3), np.array([0.08, 0.11, 0.09]) * size, 2.2))
    for side in (-1, 1):
        hand = neck + np.array([side * rng.uniform(0.15, 0.4), rng.uniform(-0.35, 0.25), rng.uniform(-0.3, 0.1)]) * size
        bodies.append(capsule(neck - np.array([0, 0.05 * size, 0]), hand, 0.05 * size, 0.03 * size))
        bodies.append(
            capsule(
                hip,
                foot + np.array([side * 0.1 * size, 0, rng.uniform(-0.15, 0.15) * size]),
                0.07 * size,
                0.04 * size,
            )
        )
    w.put(blended(bodies, 0.02 * size), 4 / size)


def _land(w: World) -> None:
    rng = w.rng
    amplitude = rng.uniform(0.5, 6)
    ground, height = terrain(rng, amplitude, rng.uniform(20, 70))
    w.put(ground, 0.4)
    eye_height = rng.uniform(1.2, 9)
    w.eye = np.array([0.0, max(height(0.0, 0.0), height(0.0, 3.0)) + eye_height, 0.0])
    for _ in range(rng.integers(2, 8)):
        z = 4 + 45 * rng.random() ** 1.5
        x = z * rng.uniform(-0.5, 0.5)
        foot = np.array([x, height(x, z) - 0.1, z])
        if rng.random() < 0.25:
            _creature(w, foot, rng.uniform(1.5, 2.2))
        else:
            _solid(w, foot, rng.uniform(1, 7))
    w.pitch, w.fov, w.haze = (
        rng.uniform(-0.3, 0.12),
        rng.uniform(0.8, 1.2),
        float(rng.choice([0.0, 0.01, 0.03])),
    )


def _hall(w: World) -> None:
    rng = w.rng
    wide, tall, deep = rng.uniform(2, 6), rng.uniform(2.4, 6), rng.uniform(5, 18)
    for normal, offset in (
        ((0, 1, 0), 0.0),
        ((0, -1, 0), -tall),
        ((1, 0, 0), -wide),
        ((-1, 0, 0), -wide),
        ((0, 0, -1), -deep),
        ((0, 0, 1), -1.5),
    ):
        w.put(slab(normal, offset), 0.8)
    for k in range(rng.integers(0, 4)):
        z = 2.5 + 3.0 * k
        if z < deep - 0.5:
            for side in (-1, 1):
                foot = np.array([side * wide * 0.7, 0, z])
                w.put(prism(foot + np.array([0, tall / 2, 0]), np.eye(3), 8, wide * 0.06, tall / 2, 0.0), 1.5)
    for _ in range(rng.integers(1, 6)):
        foot = np.array([rng.uniform(-0.75, 0.75) * wide, 0, rng.uniform(1.8, deep - 0.5)])
        (_creature if rng.random() < 0.3 else _solid)(w, foot, rng.uniform(0.5, 1.8))
    w.eye = np.array([rng.uniform(-0.4, 0.4) * wide, rng.uniform(0.6, tall * 0.7), 0.0])
    w.yaw, w.pitch, w.fov = rng.uniform(-0.6, 0.6), rng.uniform(-0.45, 0.3), rng.uniform(0.9, 1.4)


def _still(w: World) -> None:
    rng = w.rng
    w.put(superquadric(np.array([0, -0.05, 0]), _turn(rng, True), np.array([0.9, 0.05, 0.9]), 12.0), 5.0)
    w.put(slab((0, 1, 0), -rng.uniform(0.4, 0.8)), 2.0)
    wall = rng.uniform(-0.3, 0.3)
    w.put(slab((math.sin(wall), 0, -math.cos(wall)), -rng.uniform(1.3, 4.0)), 1.0)
    for _ in range(rng.integers(2, 8)):
        foot = np.array([rng.uniform(-0.45, 0.45), 0, rng.uniform(-0.35, 0.45)])
        _solid(w, foot, rng.uniform(0.08, 0.35))
    down, away = rng.uniform(0.15, 1.3), rng.uniform(0.8, 1.6)
    w.eye = np.array([0.0, away * math.sin(down) + 0.08, -away * math.cos(down)])
    w.pitch, w.fov = -down + rng.uniform(-0.06, 0.06), rng.uniform(0.6, 0.95)


def _figure(w: World) -> None:
    rng = w.rng
    size = rng.uniform(0.4, 2.0)
    away = size * rng.uniform(0.7, 1.8)
    _creature(w, np.array([rng.uniform(-0.2, 0.2) * size, -0.75 * size, away]), size)
    behind = away + size * rng.uniform(0.8, 6)
    if rng.random() < 0.6:
        turn = rng.uniform(-0.5, 0.5)
        w.put(slab((math.sin(turn), 0, -math.cos(turn)), -behind * math.cos(turn)), 1.5 / behind)
    if rng.random() < 0.6:
        w.put(slab((0, 1, 0), -0.75 * size), 1.5)
    for _ in range(rng.integers(0, 6)):
        _solid(
            w,
            np.array(
                [
                    rng.uniform(-0.7, 0.7) * behind,
                    rng.uniform(-0.8, 0.2) * size,
                    behind * rng.uniform(0.7, 1.0),
                ]
            ),
            size * rng.uniform(0.3, 1.2),
        )
    w.eye = np.array([0.0, rng.uniform(-0.2, 0.2) * size, 0.0])
    w.pitch, w.yaw, w.fov = rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12), rng.uniform(0.6, 1.1)


def _avenue(w: World) -> None:
    rng = w.rng
    w.put(slab((0, 1, 0), 0.0), 0.5)
    side = rng.uniform(3, 9)
    for k in range(rng.integers(4, 10)):
        tall = rng.uniform(2, 18)
        z, x = 4 + 5.0 * k * rng.uniform(0.7, 1.3), (side + rng.uniform(2, 4)) * (-1) ** k
        w.put(
            prism(
                np.array([x, tall / 2, z]),
                _turn(rng, True),
                int(rng.integers(3, 7)),
                rng.uniform(1.5, 3.5),
                tall / 2,
                float(rng.choice([0.0, 0.0, 0.15])),
            ),
            0.6,
        )
    for _ in range(rng.integers(1, 5)):
        z = rng.uniform(3.5, 18)
        _creature(w, np.array([rng.uniform(-0.3, 0.3) * z, 0, z]), rng.uniform(1.5, 1.9))
    w.eye = np.array([rng.uniform(-1, 1), rng.uniform(0.8, 6), 0.0])
    w.yaw, w.pitch, w.fov = rng.uniform(-0.2, 0.2), rng.uniform(-0.25, 0.2), rng.uniform(0.8, 1.3)


KINDS: dict[str, Callable[[World], None]] = {
    "land": _land,
    "hall": _hall,
    "still": _still,
    "figure": _figure,
    "avenue": _avenue,
}


def lattice_noise(p: Tensor) -> Tensor:
    """Smooth solid noise (N,) in 0..1 of points (N,3): hashed values on the integer lattice, blended."""
    cell, f = p.floor(), p - p.floor()
    f = f * f * (3 - 2 * f)
    total = torch.zeros_like(p[:, 0])
    for corner in range(8):
        bits = p.new_tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
        q = cell + bits
        value = torch.sin(q[:, 0] * 127.1 + q[:, 1] * 311.7 + q[:, 2] * 74.7) * 43758.5453
        total = total + (value - value.floor()) * torch.where(bits > 0, f, 1 - f).prod(1)
    return total


def _march(bodies: list[Field], origin: Tensor, ray: Tensor, steps: int, far: float) -> Tensor:
    """Distance (N,) along unit rays (N,3) to the nearest surface, inf where none is met before `far`.

    A ray that skims a surface until its steps run out counts as meeting it there.
    """
    travelled = torch.full_like(ray[:, 0], 1e-3)
    result = torch.full_like(travelled, torch.inf)
    alive = torch.arange(len(ray), device=ray.device)
    for _ in range(steps):
        p = origin[alive] + travelled[alive, None] * ray[alive]
        gap = torch.stack([body(p) for body in bodies]).amin(0)
        t = travelled[alive] + gap.clamp_min(0)
        travelled[alive] = t
        close = gap < 4e-4 * t + 1e-5
        result[alive[close]] = t[close]
        alive = alive[~close & (t < far)]
        if len(alive) == 0:
            break
    result[alive] = travelled[alive]
    return result


def _sky(ray: Tensor, rng: np.random.Generator) -> Tensor:
    """Colours (N,3) of the open sky along unit rays."""
    low, high = rng.uniform(0.3, 1.0, 3), rng.uniform(0.05, 0.8, 3)
    up = ray[:, 1:2].clamp(0, 1)
    cloud = lattice_noise(ray * 4 + 3) * lattice_noise(ray * 11)
    return torch.lerp(ray.new_tensor(low), ray.new_tensor(high), up) + rng.uniform(0, 0.6) * cloud[:, None]


def _draw(
    seed: int, height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, float, str]:
    rng = np.random.default_rng((seed, 77))
    kind = list(KINDS)[seed % len(KINDS)]
    w = World(rng)
    KINDS[kind](w)
    w.roll = float(rng.normal(0, 0.04))
    focal = max(height, width) / 2 / math.tan(w.fov / 2)
    v, u = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    camera = torch.stack([(u + 0.5 - width / 2) / focal, (height / 2 - v - 0.5) / focal, torch.ones_like(u)], -1)
    cy, sy, cp, sp, cr, sr = (f(a) for a in (w.yaw, w.pitch, w.roll) for f in (math.cos, math.sin))
    look = (
        torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ torch.tensor([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        @ torch.tensor([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    ).to(device)
    ray = F.normalize((camera @ look.T).view(-1, 3), dim=1)
    forward = look[:, 2]
    origin = ray.new_tensor(w.eye).expand_as(ray)
    t = _march(w.bodies, origin, ray, 110, FAR)
    hit = torch.isfinite(t)
    p = origin[hit] + t[hit, None] * ray[hit]
    which = torch.stack([body(p) for body in w.bodies]).argmin(0)

    def gap(q: Tensor) -> Tensor:
        return torch.stack([body(q) for body in w.bodies]).amin(0)

    # Differences over four tetrahedral directions: fewer evaluations than central differences need, no bias.
    step = (1e-3 * t[hit]).clamp(1e-4, 2e-2)[:, None]
    corners = ray.new_tensor([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]])
    normal = F.normalize(sum(c * gap(p + c * step)[:, None] for c in corners), dim=1)

    looks = ray.new_tensor(np.stack(w.looks))[which]
    scaled = p * looks[:, 6:7]
    grain = lattice_noise(scaled * 3)
    mix = torch.stack(
        [
            grain,
            (grain + 0.5 * lattice_noise(scaled * 13)) / 1.5,
            0.5 + 0.5 * torch.sin(6 * scaled[:, 0] + 4 * grain),
            (torch.sin(scaled * 5).prod(1) > 0).float() * 0.8 + 0.2 * grain,
        ]
    )
    mix = mix.gather(0, looks[:, 7].long()[None])[0][:, None]
    albedo = torch.lerp(looks[:, :3], looks[:, 3:6], mix)

    sun = F.normalize(ray.new_tensor([rng.normal(), rng.uniform(0.3, 1.5), rng.normal() - 0.4]), dim=0)
    lit = torch.ones_like(t[hit])
    if kind != "hall":
        blocked = _march(w.bodies, p + normal * (4e-3 * t[hit] + 2e-3)[:, None], sun.expand_as(p), 30, 15.0)
        lit = torch.isinf(blocked).float()
    reach = 0.05 * t[hit][:, None]
    open_air = (gap(p + normal * reach) / reach[:, 0]).clamp(0.2, 1)
    power, fill = rng.uniform(0.2, 1.4), rng.uniform(0.2, 0.7)
    bounce = 0.65 + 0.35 * normal[:, 1]
    colour = albedo * (power * (normal @ sun).clamp_min(0) * lit + fill * bounce * open_air)[:, None]
    air = ray.new_tensor(rng.uniform(0.4, 0.9, 3))
    colour = torch.lerp(air, colour, torch.exp(-w.haze * t[hit])[:, None])

    image = _sky(ray, rng)
    image[hit] = colour
    image = image / image.mean() * 0.2 * float(np.exp(rng.normal(0, 0.3)))
    image = image.clamp(0, 1) ** (1 / 2.2)
    noise = torch.from_numpy(rng.normal(0, 0.012, (height * width, 3)).astype(np.float32)).to(device)
    image = (image + noise).clamp(0, 1).view(height, width, 3).permute(2, 0, 1)
    image = F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0] * 0.5 + image * 0.5

    depth = (t * (ray @ forward)).view(height, width)
    normals = torch.zeros_like(ray)
    normals[:, 2] = 1
    normals[hit] = (normal @ look) * ray.new_tensor([1.0, 1.0, -1.0])
    regions = torch.zeros(len(ray), dtype=torch.long, device=device)
    regions[hit] = which + 1
    return image, depth, normals.view(height, width, 3), regions.view(height, width), focal, kind


@torch.no_grad()
def render_heldout(seeds: Sequence[int], height: int, width: int, device: str | torch.device = "cpu") -> Scenes:
    """Draw one scene per seed, in the same terms as ``scenes.render``; the kind goes round with the seed."""
    drawn = [_draw(seed, height, width, torch.device(device)) for seed in seeds]
    image, depth, normals, regions = (torch.stack([scene[k] for scene in drawn]) for k in range(4))
    return Scenes(
        image,
        depth,
        normals,
        regions,
        torch.tensor([scene[4] for scene in drawn], device=device),
        [scene[5] for scene in drawn],
    )
