"""The Swin Transformer backbone (Liu et al., ICCV 2021, arXiv 2103.14030) with the parameter names of transformers 4.

transformers has renamed its Swin's parameters and reordered its sums since (5.x), while checkpoints keep the old
names, and networks with hard attention masks behind it turn the last bit of a sum into other regions. The order of
the operations here is that of transformers 4.50.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Swin(nn.Module):
    """Input: (B,3,h,w), any size. Output: `.feature_maps`, one normed (B,c,h',w') per stage; h' is h/4, h/8, h/16 and
    h/32, each rounded up. width: channels of the first stage. depths, heads: blocks and heads of each stage."""

    def __init__(self, width: int, depths: Sequence[int], heads: Sequence[int], window: int) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(len(depths))]
        self.embeddings = nn.Module()
        self.embeddings.patch_embeddings = nn.Module()
        self.embeddings.patch_embeddings.projection = nn.Conv2d(3, width, 4, 4)
        self.embeddings.norm = nn.LayerNorm(width)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(
            _Stage(channels, depth, count, window, merge=channels != widths[-1])
            for channels, depth, count in zip(widths, depths, heads, strict=True)
        )
        self.hidden_states_norms = nn.ModuleDict({f"stage{i + 1}": nn.LayerNorm(c) for i, c in enumerate(widths)})

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        """(B,3,h,w) -> the stages' features."""
        height, width = pixels.shape[-2:]
        pixels = F.pad(pixels, (0, -width % 4, 0, -height % 4))
        x = self.embeddings.patch_embeddings.projection(pixels)  # pyright: ignore
        x = self.embeddings.norm(x.permute(0, 2, 3, 1))  # pyright: ignore
        maps = []
        for stage, norm in zip(self.encoder.layers, self.hidden_states_norms.values(), strict=True):  # pyright: ignore
            for block in stage.blocks:
                x = block(x)
            maps.append(norm(x).permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return SimpleNamespace(feature_maps=maps)


class _Stage(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, window: int, merge: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, heads, window, window // 2 * (i % 2)) for i in range(depth))
        self.downsample = _Merge(width) if merge else None


class _Merge(nn.Module):
    """Four neighbours become one of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class _Block(nn.Module):
    """Attention inside windows, shifted by `shift`, then an MLP. (B,h,w,c) -> the same."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.layernorm_before = nn.LayerNorm(width)
        self.attention = nn.ModuleDict({"self": _Attention(width, heads, window), "output": nn.Module()})
        self.attention["output"].dense = nn.Linear(width, width)
        self.layernorm_after = nn.LayerNorm(width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = nn.ModuleDict({"dense": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        size, shift = self.window, self.shift
        y = F.pad(self.layernorm_before(x), (0, 0, 0, -width % size, 0, -height % size))
        rows, columns = y.shape[1] // size, y.shape[2] // size
        if shift:
            y = torch.roll(y, (-shift, -shift), (1, 2))
        y = y.view(batch, rows, size, columns, size, channels).transpose(2, 3).reshape(-1, size * size, channels)
        apart = self._apart(rows * size, columns * size, y) if shift else None
        y = self.attention["output"].dense(self.attention["self"](y, apart))  # pyright: ignore
        y = y.view(batch, rows, columns, size, size, channels).transpose(2, 3)
        y = y.reshape(batch, rows * size, columns * size, channels)
        if shift:
            y = torch.roll(y, (shift, shift), (1, 2))
        x = x + y[:, :height, :width]
        return x + self.output["dense"](F.gelu(self.intermediate["dense"](self.layernorm_after(x))))

    def _apart(self, height: int, width: int, like: Tensor) -> Tensor:
        """(windows, n, n): -100 between places that only the shift has brought into one window."""

        def part(length: int) -> Tensor:
            index = torch.arange(length, device=like.device)
            return (index >= length - self.window).long() + (index >= length - self.shift).long()

        size = self.window
        region = part(height)[:, None] * 3 + part(width)
        region = region.view(height // size, size, width // size, size).transpose(1, 2).reshape(-1, size * size)
        return (region[:, None] != region[:, :, None]).to(like.dtype) * -100.0


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        row, column = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        row, column = row.flatten(), column.flatten()
        index = (row[:, None] - row + window - 1) * (2 * window - 1) + column[:, None] - column + window - 1
        self.register_buffer("relative_position_index", index, persistent=False)

    def forward(self, x: Tensor, apart: Tensor | None) -> Tensor:
        count, length, width = x.shape
        each = width // self.heads
        query, key, value = (
            layer(x).view(count, length, self.heads, each).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(each)
        index: Tensor = self.relative_position_index  # pyright: ignore[reportAssignmentType]
        bias = self.relative_position_bias_table[index.view(-1)].view(length, length, -1).permute(2, 0, 1)
        scores = scores + bias.contiguous()
        if apart is not None:
            scores = scores.view(-1, len(apart), self.heads, length, length) + apart[:, None]
            scores = scores.view(count, self.heads, length, length)
        return (scores.softmax(-1) @ value).transpose(1, 2).reshape(count, length, width)
