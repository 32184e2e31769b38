"""Layers that compute what torch's own compute, in less time where that was measured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Multiplications from which on the convolution is the faster way (benchmarks/layouts.py).
_LARGE = 2**28


class ProcessorLinear(nn.Linear):
    """A linear layer whose large float32 products on a processor go through oneDNN instead of MKL.

    torch leaves linear layers to MKL and convolutions to oneDNN, whose threads share the work better. The input is
    looked at as a picture of one row with its channels last, and convolved with a 1x1 kernel: views, no copies. Equal
    to nn.Linear up to the order of sums.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        rows = input.numel() // self.in_features
        plain = input.device.type != "cpu" or input.dtype != torch.float32
        if plain or rows * self.in_features * self.out_features < _LARGE:
            return super().forward(input)
        picture = input.reshape(1, 1, rows, self.in_features).movedim(-1, 1)
        product = F.conv2d(picture, self.weight[:, :, None, None], self.bias)
        return product.movedim(1, -1).reshape(*input.shape[:-1], self.out_features)


def speed_up_linear_layers(network: nn.Module) -> None:
    """Turn every nn.Linear of `network` into a `ProcessorLinear`, in place; names and parameters stay.

    Does nothing where torch was built without MKL or oneDNN, as on ARM: nobody measured that.
    """
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = ProcessorLinear
