"""Pictures side by side, each under its name."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError

_STRIP = 28
_GAP = 4


def contact_sheet(pictures: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Lay out named pictures in a grid that is as square as their number allows.

    pictures: (name, float (B,H,W,3|4) in 0..1), all of one batch size; the first picture's are brought to the size of
    the second's, because results share one size. Returns float32 (B,h,w,3) on the device of the first. Raises
    SettingError when there is nothing to lay out, or for different batch sizes.
    """
    if not pictures:
        raise SettingError("there is nothing to lay out: name at least one estimator.")
    size = pictures[-1][1].shape[1:3]
    batch, device = len(pictures[0][1]), pictures[0][1].device
    if any(len(p) != batch for _, p in pictures):
        raise SettingError(f"pictures to compare need one batch size, got {[len(p) for _, p in pictures]}.")
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    high, wide = size[0] + _STRIP, size[1]
    sheet = torch.ones(batch, rows * (high + _GAP) - _GAP, columns * (wide + _GAP) - _GAP, 3, device=device)
    for index, (name, picture) in enumerate(pictures):
        y, x = (index // columns) * (high + _GAP), (index % columns) * (wide + _GAP)
        sheet[:, y : y + _STRIP, x : x + wide] = _caption(name, wide).to(device)
        sheet[:, y + _STRIP : y + high, x : x + wide] = _sized(picture[..., :3].float().to(device), size)
    return sheet


def _sized(picture: Tensor, size: torch.Size) -> Tensor:
    if picture.shape[1:3] == size:
        return picture
    planes = F.interpolate(picture.permute(0, 3, 1, 2), tuple(size), mode="bilinear", antialias=True)
    return planes.permute(0, 2, 3, 1).clamp(0, 1)


def _caption(name: str, width: int) -> Tensor:
    # A strip of text is no picture data: 8 bits are all that letters need.
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, _STRIP), "white")
    ImageDraw.Draw(strip).text((6, 5), name, fill="black", font=ImageFont.load_default(16))
    return torch.from_numpy(np.asarray(strip, dtype=np.float32) / 255)
