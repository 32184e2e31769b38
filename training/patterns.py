"""Tileable grey patterns for the surfaces of ``scenes.py``: noise, stripes, checks, bricks, cells, dots."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 128
LEVELS = 7
PLAIN = 0.125
"""The first patterns of a bank, this share of it, are plain fractal noise."""


def _leaves(rng: np.random.Generator) -> np.ndarray:
    """Dead leaves (S,S): discs of all sizes over one another, whose statistics are close to those of photographs.

    The radii follow a cubic power law (Lee, Mumford and Huang 2001), and each leaf has a shade and a slope of its own.
    """
    axis = np.arange(SIZE) / SIZE
    picture = np.full((SIZE, SIZE), rng.random(), dtype=np.float32)
    low, high = rng.uniform(0.01, 0.03), rng.uniform(0.12, 0.4)
    count = int(rng.integers(60, 260))
    radius = (low**-2 + rng.random(count) * (high**-2 - low**-2)) ** -0.5
    square = rng.random() < 0.3
    for size in np.sort(radius)[::-1]:
        x, y, turn = rng.random(3)
        dx = np.abs((axis - x + 0.5) % 1 - 0.5)[None]
        dy = np.abs((axis - y + 0.5) % 1 - 0.5)[:, None]
        inside = np.maximum(dx, dy * (0.5 + turn)) < size if square else dx**2 + (dy * (0.5 + turn)) ** 2 < size**2
        shade = rng.random() + (dx - dy) / size * rng.normal(0, 0.15)
        picture = np.where(inside, shade, picture)
    return np.clip(picture, 0, 1).astype(np.float32)


def _spectral(noise: Tensor, slope: Tensor, stretch: Tensor, angle: Tensor) -> Tensor:
    """White noise (K,S,S) filtered to a 1/f**slope field, periodic, zero mean and unit deviation.

    `stretch` > 1 draws the grain out along `angle` (radians). All three parameters are (K,).
    """
    size = noise.shape[-1]
    fy = torch.fft.fftfreq(size, device=noise.device)[:, None] * size
    fx = torch.fft.rfftfreq(size, device=noise.device)[None, :] * size
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = cos * fx + sin * fy, cos * fy - sin * fx
    radius = ((along * stretch[:, None, None]) ** 2 + across**2).sqrt().clamp_min(1.0)
    field = torch.fft.irfft2(torch.fft.rfft2(noise) * radius ** -slope[:, None, None], s=(size, size))
    field = field - field.mean((1, 2), keepdim=True)
    return field / field.std((1, 2), keepdim=True).clamp_min(1e-6)


def _draw(kind: str, field: Tensor, warp: Tensor, rng: np.random.Generator) -> Tensor:
    """One pattern (S,S) in 0..1. `field` and `warp` are unit-deviation noise (S,S)."""
    size = field.shape[-1]
    axis = torch.arange(size, device=field.device) / size
    u = axis[None, :] + 0.02 * warp * float(rng.choice([0.0, 0.0, 1.0, 3.0]))
    v = axis[:, None] + 0.02 * field * float(rng.choice([0.0, 0.0, 1.0]))
    nu, nv = int(rng.integers(1, 10)), int(rng.integers(1, 10))
    if kind == "fractal":
        return torch.sigmoid(field * float(rng.uniform(0.7, 2.0)))
    if kind == "blotch":
        return torch.sigmoid((field + float(rng.uniform(-0.8, 0.8))) * 10)
    if kind == "stripe":
        wave = torch.sin(2 * math.pi * (nu * u + float(rng.integers(0, 3)) * v) + float(rng.uniform(0, 2)) * field)
        return torch.sigmoid(wave * float(rng.choice([1.5, 4.0, 15.0])) + float(rng.uniform(-1, 1)))
    if kind == "check":
        return torch.sigmoid(20 * torch.sin(2 * math.pi * nu * u) * torch.sin(2 * math.pi * nv * v))
    if kind == "brick":
        rows = 2 * nv
        shift = 0.5 / nu * ((v * rows).floor() % 2)
        edge_u = ((u + shift) * nu % 1 - 0.5).abs() * rows / nu
        edge_v = (v * rows % 1 - 0.5).abs()
        joint = torch.maximum(edge_u - 0.5 * rows / nu + 0.5, edge_v)
        cell = torch.sin(((u + shift) * nu).floor() * 12.9 + (v * rows).floor() * 78.2) * 0.5 + 0.5
        return (0.5 + 0.4 * cell) * torch.sigmoid((float(rng.uniform(0.38, 0.47)) - joint) * 60)
    if kind == "cell":
        count = int(rng.integers(8, 60))
        points = torch.from_numpy(rng.random((count, 2), dtype=np.float32)).to(field.device)
        du = (axis[:, None] - points[None, :, 0] + 0.5) % 1 - 0.5
        dv = (axis[:, None] - points[None, :, 1] + 0.5) % 1 - 0.5
        near, which = (dv[:, None] ** 2 + du[None] ** 2).min(-1)
        shade = torch.from_numpy(rng.random(count, dtype=np.float32)).to(field.device)[which]
        return (shade * (1 - (near.sqrt() * count**0.5 * float(rng.choice([0.0, 0.6, 1.2]))))).clamp(0, 1)
    if kind == "dot":
        du, dv = (u * nu % 1) - 0.5, (v * nv % 1) - 0.5
        return torch.sigmoid((float(rng.uniform(0.15, 0.4)) - (du**2 + dv**2).sqrt()) * 40)
    if kind == "vein":
        return (field.abs() * float(rng.uniform(0.6, 2.5))).clamp(0, 1)
    if kind == "mosaic":
        grid = torch.from_numpy(rng.random((4 * nv, 4 * nu), dtype=np.float32)).to(field.device)
        if rng.random() < 0.5:
            grid = (grid > 0.5).float()
        return F.interpolate(grid[None, None], (size, size), mode="nearest")[0, 0]
    if kind == "leaves":
        grain = 0.08 * float(rng.random()) * field
        return (torch.from_numpy(_leaves(rng)).to(field.device) + grain).clamp(0, 1)
    if kind == "speck":
        return torch.sigmoid((field.abs() - float(rng.uniform(1.2, 2.4))) * 12)
    return torch.full_like(field, 0.5)


KINDS = (
    "flat",
    "fractal",
    "fractal",
    "blotch",
    "stripe",
    "check",
    "brick",
    "cell",
    "dot",
    "vein",
    "mosaic",
    "speck",
    "leaves",
    "leaves",
    "leaves",
    "leaves",
)


def pattern_bank(seed: int, count: int, device: torch.device) -> Tensor:
    """`count` patterns with their mip pyramids, (count, texels) in 0..1: SIZE**2, then (SIZE/2)**2, ...

    The first ones (``PLAIN``) are plain fractal noise, which also serves as clouds and surface grain.
    """
    rng = np.random.default_rng((seed, 1))
    noise = torch.from_numpy(rng.standard_normal((2, count, SIZE, SIZE), dtype=np.float32)).to(device)
    slope = torch.from_numpy(rng.uniform(0.5, 2.2, count).astype(np.float32)).to(device)
    stretch = torch.from_numpy(rng.choice([1.0, 1.0, 1.0, 4.0, 12.0], count).astype(np.float32)).to(device)
    angle = torch.from_numpy(rng.uniform(0, math.pi, count).astype(np.float32)).to(device)
    plain = max(1, int(count * PLAIN))
    slope[:plain], stretch[:plain] = 1.3, 1.0
    fields = _spectral(noise[0], slope, stretch, angle)
    warps = _spectral(noise[1], slope.clamp_min(1.6), torch.ones_like(stretch), angle)
    kinds = ["fractal"] * plain + [str(rng.choice(KINDS)) for _ in range(count - plain)]
    base = torch.stack([_draw(kind, fields[k], warps[k], rng) for k, kind in enumerate(kinds)])
    pyramid, level = [base.flatten(1)], base[:, None]
    for _ in range(LEVELS - 1):
        level = F.avg_pool2d(level, 2)
        pyramid.append(level.flatten(1))
    return torch.cat(pyramid, 1)


def sample_bank(bank: Tensor, which: Tensor, uv: Tensor, level: Tensor) -> Tensor:
    """Bilinear, wrapped lookup. `bank` (K,texels), `which` (N,) pattern, `uv` (2,N) in tiles.

    `level` (N,) chooses the mip. Returns (N,) in 0..1. SIZE must halve LEVELS - 1 times without remainder.
    """
    level = level.clamp(0, LEVELS - 1).long()
    sizes = torch.tensor([SIZE >> k for k in range(LEVELS)], device=bank.device)
    offsets = torch.cat([torch.zeros_like(sizes[:1]), (sizes**2).cumsum(0)[:-1]])
    size = sizes[level]
    u, v = (uv - uv.floor()) * size - 0.5
    u0, v0 = u.floor(), v.floor()
    fu, fv = u - u0, v - v0
    u0, v0 = u0.long() % size, v0.long() % size
    u1, v1 = (u0 + 1) % size, (v0 + 1) % size
    flat = bank.flatten()
    start = which * bank.shape[1] + offsets[level]
    top = torch.lerp(flat[start + v0 * size + u0], flat[start + v0 * size + u1], fu)
    bottom = torch.lerp(flat[start + v1 * size + u0], flat[start + v1 * size + u1], fu)
    return torch.lerp(top, bottom, fv)
