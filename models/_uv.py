"""The view plane that MoGe and Depth Anything 3 tell their networks about."""

from __future__ import annotations

import torch
from torch import Tensor


def view_plane(rows: int, columns: int, aspect: float) -> Tensor:
    """(rows,columns,2) float32: x to the right and y down of every pixel's centre, the picture's half diagonal being 1.

    aspect: width / height of the picture, which is not always that of the map. Source: normalized_view_plane_uv of
    github.com/microsoft/MoGe (moge/utils/geometry_torch.py).
    """
    diagonal = (1 + aspect * aspect) ** 0.5
    x = _centres(columns, aspect / diagonal)
    y = _centres(rows, 1 / diagonal)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def _centres(count: int, span: float) -> Tensor:
    end = span * (count - 1) / count
    return torch.linspace(-end, end, count)
