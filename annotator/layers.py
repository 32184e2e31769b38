"""How a network's products are computed: linear layers on a processor, float32 on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

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


_switches = threading.Lock()
_running = 0
_before: tuple[bool, bool] | None = None


@contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Let float32 products on a GPU be TF32 inside, or not.

    torch's switches are the process's own: who comes first decides, and who leaves last puts them back. Where others
    use torch's newer switches it lets nobody read these; then they stay as they are.
    """
    global _running, _before
    with _switches:
        if not _running:
            with suppress(RuntimeError):
                _before = tf32_allowed()
                _allow_tf32(tf32, tf32)
        _running += 1
    try:
        yield
    finally:
        with _switches:
            _running -= 1
            if not _running and _before is not None:
                _allow_tf32(*_before)
                _before = None


def tf32_allowed() -> tuple[bool, bool]:
    """Whether float32 convolutions, and other float32 products, may be TF32 on a GPU."""
    return bool(torch.backends.cudnn.allow_tf32), bool(torch.backends.cuda.matmul.allow_tf32)


def _allow_tf32(convolutions: bool, others: bool) -> None:
    torch.backends.cudnn.allow_tf32 = convolutions
    torch.backends.cuda.matmul.allow_tf32 = others


class _Decided:
    """A module whose float32 products are TF32, or not, while it runs."""

    tf32 = False

    def __call__(self, *args: Any, **named: Any) -> Any:
        # Not forward hooks: torch leaves them out when a cancelled run ends by a BaseException, as ComfyUI's does.
        with float32_products(self.tf32):
            return super().__call__(*args, **named)  # pyright: ignore[reportAttributeAccessIssue]


@cache
def _decided(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (_Decided, kind), {})


def compute_float32_products(network: nn.Module, tf32: bool) -> None:
    """Let the float32 products of `network` on a GPU be TF32, or not, whoever calls it or one of its parts.

    TF32 keeps 10 bits of the mantissa and is several times as fast. torch takes it for convolutions unless told
    otherwise, and not for other products.
    """
    for module in (network, *network.children()):
        module.__class__ = _decided(type(module))
        setattr(module, "tf32", tf32)  # noqa: B010 - what the class says for type checkers is nn.Module
