"""From a clean rendering to something that looks taken: defocus, exposure, colour casts, noise, sharpening, JPEG.

Everything works on a batch at once, with parameters of each picture's own, on whatever device the pictures are.
"""

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
_REACH = 4  # taps on either side of a blur


def photo_parameters(rng: np.random.Generator, focus: float | None) -> dict[str, np.ndarray]:
    """How one picture is taken, drawn at random. `focus` in metres asks for defocus; None = all sharp."""
    phone = rng.random() < 0.5
    blur = 0.45 if phone else float(rng.choice([0.3, 0.4, 0.55, 0.75, 1.2], p=[0.2, 0.3, 0.25, 0.15, 0.1]))
    values = {
        "focus": 1.0 if focus is None else focus,
        "bokeh": 0.0 if focus is None else rng.uniform(1.5, 9.0),
        "exposure": 0.25 * 2 ** rng.normal(0, 0.6),
        "cast": np.exp(rng.normal(0, 0.12 if rng.random() < 0.5 else 0.03, 3)),
        "vignette": rng.uniform(0.1, 0.6) if rng.random() < 0.35 else 0.0,
        "blur": blur,
        "filmic": float(rng.random() < 0.7),
        "gamma": rng.uniform(0.38, 0.55),
        "contrast": rng.uniform(0.85, 1.6),
        "saturation": 0.0 if rng.random() < 0.06 else rng.uniform(0.6, 1.4),
        "noise": min(0.06, rng.exponential(0.014)) if rng.random() < 0.6 else 0.0,
        "sharpen": rng.uniform(0.2, 1.5) if phone or rng.random() < 0.3 else 0.0,
        "quality": rng.uniform(35, 96) if rng.random() < 0.6 else 100.0,
        "grain_seed": float(rng.integers(1 << 20)),
    }
    return {name: np.asarray(value, dtype=np.float32) for name, value in values.items()}


PHOTO_NAMES = tuple(photo_parameters(np.random.default_rng(0), None))


def blur_each(images: Tensor, sigma: Tensor) -> Tensor:
    """(B,C,H,W) blurred with a standard deviation of `sigma` (B,) pixels, up to 3; edges replicate."""
    batch, channels, height, width = images.shape
    taps = torch.arange(-_REACH, _REACH + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (taps[None] / sigma.clamp_min(0.05)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(images.dtype)
    result = F.pad(images, (_REACH,) * 4, mode="replicate")
    weights = kernel[:, :, None, None, None]
    # Sums of shifted copies: a convolution with weights of each picture's own is slower on every device.
    across = result[..., :width] * weights[:, 0]
    for k in range(1, 2 * _REACH + 1):
        across = across + result[..., k : k + width] * weights[:, k]
    down = across[..., :height, :] * weights[:, 0]
    for k in range(1, 2 * _REACH + 1):
        down = down + across[..., k : k + height, :] * weights[:, k]
    return down


def _wide_blur(images: Tensor, sigma: float) -> Tensor:
    """(B,C,H,W) blurred by `sigma` pixels at a quarter of the size."""
    small = F.avg_pool2d(images, 4)
    small = blur_each(small, small.new_full((len(small),), sigma / 4))
    return F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)


def defocus(images: Tensor, depth: Tensor, focus: Tensor, strength: Tensor) -> Tensor:
    """Blur (B,3,H,W) by the thin-lens circle of confusion, strength * |1 - focus / depth| pixels; both (B,).

    What lies behind the focus is blurred with weights that leave the focused subject out, so that the subject
    does not bleed into its background, as a lens would not let it.
    """
    circle = (strength[:, None, None] * (1 - focus[:, None, None] / depth.clamp_min(1e-3)))[:, None]
    result = images
    for low, sigma in ((0.0, 1.0), (1.5, 2.5), (4.0, 6.0)):
        weight = (circle > 0.5 * low).to(images.dtype) + 1e-4
        both = torch.cat([images * weight, weight], 1)
        blurred = _wide_blur(both, sigma) if sigma > 3 else blur_each(both, strength.new_full(strength.shape, sigma))
        result = torch.lerp(result, blurred[:, :3] / blurred[:, 3:], ((circle - low) / max(1.0, low)).clamp(0, 1))
    near = (-circle).clamp(0, 4)
    soft = blur_each(torch.cat([images, near], 1), strength.new_full(strength.shape, 2.5))
    return torch.lerp(result, soft[:, :3], (soft[:, 3:] / 2).clamp(0, 1))


def jpeg(images: Tensor, quality: Tensor) -> Tensor:
    """Quantise the 8x8 cosine coefficients of (B,3,H,W), sides multiples of 8, as JPEG at `quality` (B,) 1-100."""
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality) / 100
    table = images.new_tensor(_QUANT) * scale[:, None, None]
    table = (table.clamp_min(1) / 255)[:, None, None, None]
    k = torch.arange(8, dtype=images.dtype, device=images.device)
    basis = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= math.sqrt(2)
    grey = images.mean(1, keepdim=True)
    planes = torch.cat([grey, images[:, :1] - grey, images[:, 2:] - grey], 1)
    b, c, h, w = planes.shape
    blocks = planes.view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ (torch.round(coefficients / table) * table) @ basis
    planes = blocks.transpose(3, 4).reshape(b, c, h, w)
    red, blue = planes[:, 0] + planes[:, 1], planes[:, 0] + planes[:, 2]
    return torch.stack([red, 3 * planes[:, 0] - red - blue, blue], 1)


def grain(shape: torch.Size, seeds: Tensor) -> Tensor:
    """Noise of zero mean and unit deviation, (B,C,H,W), the same for the same seed (B,) on every device."""
    count = shape[1] * shape[2] * shape[3]
    value = torch.arange(count, device=seeds.device)[None] + seeds.long()[:, None] * 0x9E3779B1
    total = torch.zeros(shape[0], count, device=seeds.device)
    for factor in (0x45D9F3B, 0x2C1B3C6D):
        value = ((value ^ (value >> 16)) * factor) & 0xFFFFFFFF
        value = ((value ^ (value >> 15)) * 0x27D4EB2D) & 0xFFFFFFFF
        total += (value & 0xFFFF).float() + (value >> 16).float()
    # Four uniform numbers added up are as good as a normal one.
    return ((total / 65535 - 2) * math.sqrt(3)).view(shape)


@torch.no_grad()
def develop(images: Tensor, depth: Tensor, how: dict[str, Tensor]) -> Tensor:
    """Linear radiance (B,3,H,W) and metres (B,H,W) -> pictures in 0..1, taken as ``photo_parameters`` says."""

    def each(name: str) -> Tensor:
        return how[name].view(len(images), -1, 1, 1)

    height, width = images.shape[-2:]
    long_side = max(height, width)
    soft = (how["bokeh"] > 0).nonzero()[:, 0]
    if len(soft):
        images = images.clone()
        strength = how["bokeh"][soft] * long_side / 224
        images[soft] = defocus(images[soft], depth[soft], how["focus"][soft], strength)
    # Exposure puts the mean luminance where a camera's meter would; one lamp in the frame does not darken all else.
    level = images.clamp(max=4 * images.mean((1, 2, 3), keepdim=True)).mean((1, 2, 3), keepdim=True)
    images = images * (each("exposure") / level.clamp_min(1e-3)) * each("cast")
    axis_y = torch.linspace(-1, 1, height, device=images.device)[:, None]
    axis_x = torch.linspace(-1, 1, width, device=images.device)[None]
    images = images * (1 - each("vignette") * (axis_x**2 + axis_y**2) / 2)
    images = blur_each(images, how["blur"] * long_side / 288).clamp_min(0)
    curved = images * (1 + images / 4) / (1 + images)
    images = torch.where(each("filmic") > 0, curved, images).clamp(1e-6, 1) ** each("gamma")
    middle = images.mean((1, 2, 3), keepdim=True)
    images = (images - middle) * each("contrast") + middle
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * each("saturation")
    # Shot noise: what is dark has more of it once the curve has lifted it.
    images = images + grain(images.shape, how["grain_seed"]) * each("noise") * (1.4 - grey.clamp(0, 1))
    images = images + each("sharpen") * (images - blur_each(images, torch.ones_like(how["blur"])))
    images = images.clamp(0, 1)
    return torch.where(each("quality") < 100, jpeg(images, how["quality"].clamp(max=99)), images).clamp(0, 1)
