"""From a clean rendering to something that looks taken: defocus, exposure, colour casts, noise, JPEG."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Luminance table of the JPEG standard (ITU-T T.81, table K.1); it serves the chroma here too.
_QUANT = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """(C,H,W) blurred with a standard deviation of `sigma` pixels; edges replicate."""
    if sigma < 0.2:
        return image
    shrink = 1
    small = image[None]
    # A wide blur at a reduced size is the same picture for a fraction of the time.
    while sigma > 3.0 and min(small.shape[-2:]) >= 32:
        small, sigma, shrink = F.avg_pool2d(small, 2), sigma / 2, shrink * 2
    radius = max(1, int(math.ceil(2.5 * sigma)))
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=image.device) / sigma) ** 2)
    taps = (taps / taps.sum()).to(image.dtype)
    channels = small.shape[1]
    small = F.pad(small, (radius, radius, radius, radius), mode="replicate")
    small = F.conv2d(small, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    small = F.conv2d(small, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    if shrink > 1:
        small = F.interpolate(small, image.shape[-2:], mode="bilinear", align_corners=False)
    return small[0]


def defocus(image: Tensor, depth: Tensor, focus: float, strength: float) -> Tensor:
    """Blur (3,H,W) by the thin-lens circle of confusion, strength * |1 - focus / depth| pixels.

    What lies behind the focus is blurred with weights that leave the focused subject out, so that the subject
    does not bleed into its background, as a lens would not let it.
    """
    circle = strength * (1 - focus / depth.clamp_min(1e-3))
    result = image
    for low, sigma in ((0.0, 1.0), (1.5, 2.5), (4.0, 6.0)):
        if strength < low:
            break
        weight = (circle > 0.5 * low).to(image.dtype)[None] + 1e-4
        blurred = gaussian_blur(torch.cat([image * weight, weight]), sigma)
        blurred = blurred[:3] / blurred[3:]
        result = torch.lerp(result, blurred, ((circle - low) / max(1.0, low)).clamp(0, 1)[None])
    near = (-circle).clamp(0, 4)[None]
    if float(near.max()) > 0.5:
        soft = gaussian_blur(torch.cat([image, near]), 2.5)
        result = torch.lerp(result, soft[:3], (soft[3:] / 2).clamp(0, 1))
    return result


def jpeg(image: Tensor, quality: float) -> Tensor:
    """Quantise the 8x8 cosine coefficients of (3,H,W), sides multiples of 8, as JPEG at `quality` 1-100."""
    scale = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
    table = (torch.tensor(_QUANT, dtype=image.dtype, device=image.device) * scale).clamp_min(1) / 255
    k = torch.arange(8, dtype=image.dtype, device=image.device)
    basis = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= math.sqrt(2)
    grey = image.mean(0, keepdim=True)
    planes = torch.cat([grey, image[:1] - grey, image[2:] - grey])
    c, h, w = planes.shape
    blocks = planes.view(c, h // 8, 8, w // 8, 8).permute(0, 1, 3, 2, 4)
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ (torch.round(coefficients / table) * table) @ basis
    planes = blocks.permute(0, 1, 3, 2, 4).reshape(c, h, w)
    red, blue = planes[0] + planes[1], planes[0] + planes[2]
    return torch.stack([red, 3 * planes[0] - red - blue, blue])


def develop(image: Tensor, depth: Tensor, seed: int, focus: float | None) -> Tensor:
    """Linear radiance (3,H,W) -> picture in 0..1. `focus` in metres asks for defocus; None = all sharp."""
    rng = np.random.default_rng((seed, 2))
    height, width = image.shape[-2:]
    long_side = max(height, width)
    if focus is not None:
        image = defocus(image, depth, focus, long_side / 224 * float(rng.uniform(1.5, 9.0)))
    # Exposure puts the mean luminance where a camera's meter would, give or take a stop.
    target = 0.22 * 2 ** float(rng.normal(0, 0.55))
    image = image * (target / image.mean().clamp_min(1e-3))
    if rng.random() < 0.5:
        cast = torch.tensor(np.exp(rng.normal(0, 0.12, 3)), dtype=image.dtype, device=image.device)
        image = image * cast[:, None, None]
    if rng.random() < 0.35:
        axis_y = torch.linspace(-1, 1, height, device=image.device)[:, None]
        axis_x = torch.linspace(-1, 1, width, device=image.device)[None]
        image = image * (1 - float(rng.uniform(0.1, 0.5)) * (axis_x**2 + axis_y**2) / 2)
    image = gaussian_blur(image, long_side / 224 * float(rng.choice([0.35, 0.5, 0.6, 0.8, 1.4])))
    image = image.clamp_min(0)
    image = (image * (1 + image / 4) / (1 + image)).clamp(0, 1) if rng.random() < 0.7 else image.clamp(0, 1)
    image = image ** float(rng.uniform(0.38, 0.62))
    contrast, saturation = float(rng.uniform(0.8, 1.8)), float(rng.uniform(0.6, 1.4))
    if rng.random() < 0.08:
        saturation = 0.0
    image = (image - image.mean()) * contrast + image.mean()
    grey = image.mean(0, keepdim=True)
    image = grey + (image - grey) * saturation
    if rng.random() < 0.6:
        noise = torch.from_numpy(rng.standard_normal((3, height, width), dtype=np.float32)).to(image)
        image = image + noise * min(0.05, float(rng.exponential(0.014)))
    if rng.random() < 0.5:
        image = jpeg(image, float(rng.uniform(30, 95)))
    return image.clamp(0, 1)
