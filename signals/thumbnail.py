"""Small pictures of anything that can be seen, for previews."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Signal
from .depth import Depth, DepthLook

SIDE = 512
MOST = 16


@torch.inference_mode()
def thumbnails(result: Any, side: int = SIDE, most: int = MOST) -> list[Tensor]:
    """Small pictures of `result`, uint8 (h,w,3) on the CPU.

    result: pictures (B,H,W,C), masks (B,H,W), a signal, or a list of them; anything else gives nothing. side: longest
    side in pixels. most: pictures of a batch, taken evenly from it.
    """
    if isinstance(result, (list, tuple)):
        return [small for part in result[:most] for small in thumbnails(part, side, most)][:most]
    if not isinstance(result, (Tensor, Signal)):
        return []
    return [_small(_picture(result, i), side) for i in _evenly(len(result), most)]


def jpeg(picture: Tensor) -> bytes:
    """A picture, uint8 (h,w,3) on the CPU, as the bytes of a JPEG file."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(picture.numpy()).save(file, "JPEG", quality=90)
    return file.getvalue()


def _evenly(count: int, most: int) -> list[int]:
    return list(range(count)) if count <= most else [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _picture(of: Any, index: int) -> Tensor:
    """One picture of a batch, float (1,C,H,W)."""
    if isinstance(of, Tensor):
        one = of[index : index + 1]
    elif isinstance(of, Depth):
        # One pixel of far sky would turn metres from end to end white; inverse distance shows something.
        plain = of.look == DepthLook("metres")
        one = of[index].to_image(look=DepthLook() if plain else None)
    else:
        one = of[index].to_image()
    if one.ndim == 3:
        one = one[..., None]
    return one[..., :3].movedim(-1, 1)


def _small(picture: Tensor, side: int) -> Tensor:
    height, width = picture.shape[-2:]
    # Every second pixel, or every third ..., as long as twice the size remains: nobody sees it, and it is quick.
    stride = max(1, max(height, width) // (2 * side))
    picture = picture[..., ::stride, ::stride].float().cpu()
    height, width = picture.shape[-2:]
    if (scale := side / max(height, width)) < 1:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
    levels = picture.nan_to_num(0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return levels[0].expand(3, -1, -1).permute(1, 2, 0).contiguous()
