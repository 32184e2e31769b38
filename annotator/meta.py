"""Building networks without memory for their parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# What these make has no values worth keeping: networks call them for parameters, never for buffers.
_WITHOUT_VALUES = {torch.empty, torch.rand, torch.randn, torch.empty_like, torch.rand_like, torch.randn_like}


class _WithoutValues(TorchFunctionMode):
    """Puts every tensor that is made without values, or with random ones, on torch's meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _WITHOUT_VALUES and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Build modules without memory or random values for their parameters; buffers are computed for real.

    Buffers that a network derives from its configuration (position indices, bin edges) are not in every checkpoint,
    so torch's meta device as a whole would lose them. Small parameters that start as constants may have them. The
    mode holds in the calling thread alone: what others build meanwhile is as ever.
    """
    with _WithoutValues():
        yield
