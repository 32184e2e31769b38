"""A GPU that is not there: tensors that say they lie on "cuda" and compute on the processor.

Inside `pretend_gpu()` torch's own rules hold between the two places, and what breaks on a real GPU raises here: tensors
of both in one operation, numpy on a tensor of the GPU, a module whose buffer stayed behind. What a real GPU has to wait
for is written down: every copy in either direction and every value that Python asks for.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from fathom.annotator.layers import tf32_allowed

aten: Any = torch.ops.aten
PACK = Path(__file__).resolve().parents[1]
# Their result's size depends on values, so a GPU has to be waited for.
_ASKING = (aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount)
_PRODUCTS = (aten.convolution, aten.mm, aten.addmm, aten.bmm, aten.baddbmm)
# A GPU takes indices from either place, and copies of them from the other.
_INDEXING = (aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_)


class OnGPU(Tensor):
    """A tensor on the pretended GPU. inner: its values, on the processor."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGPU:
        """Around `inner`, whose memory it shares."""
        made = Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device="cuda:0",
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} on the pretended GPU outside pretend_gpu()")

    def tolist(self) -> Any:
        """torch refuses this for subclasses; on a GPU it is a copy to the processor."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:
        return f"OnGPU({self.inner!r})"


@dataclass
class Traffic:
    """What went between the places. up, down: (bytes, line of the pack) of each copy. asked: the line that waited for
    a value, each time. tf32: for each kind of product there, whether the GPU might have taken TF32 for it."""

    up: list[tuple[int, str]] = field(default_factory=list)
    down: list[tuple[int, str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tf32: dict[str, set[bool]] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget everything."""
        self.up.clear(), self.down.clear(), self.asked.clear(), self.tf32.clear()


@cache
def _inside(file: str) -> str | None:
    """The name of a file of the pack, relative to it; None for any other, the tests among them."""
    path = Path(file).resolve()
    return None if path.is_relative_to(PACK / "tests") or not path.is_relative_to(PACK) else str(path.relative_to(PACK))


def _line() -> str:
    """The innermost line of the pack that is being run: "file.py:12 code"."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if name := _inside(frame.f_code.co_filename):
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
            return f"{name}:{frame.f_lineno} {line}"
        frame = frame.f_back
    return "outside the pack"


class _Mode(TorchDispatchMode):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self.traffic = traffic

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        # Inference mode hands composite operators over whole; their parts are what runs on a device.
        with self:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        there = [x for x in tensors if isinstance(x, OnGPU)]
        here = [x for x in tensors if not isinstance(x, OnGPU) and x.ndim and not x.is_meta]
        packet = func.overloadpacket
        onto_gpu = bool(there)
        if kwargs.get("device") is not None:
            onto_gpu = torch.device(kwargs["device"]).type == "cuda"
            if kwargs["device"] != torch.device("meta"):
                kwargs["device"] = torch.device("cpu")
        if packet is aten.copy_:
            onto_gpu = isinstance(args[0], OnGPU)
        if packet in (aten._to_copy, aten.copy_):
            source = args[0] if packet is aten._to_copy else args[1]
            if isinstance(source, OnGPU) != onto_gpu and not source.is_meta:
                note = (source.numel() * source.element_size(), _line())
                (self.traffic.up if onto_gpu else self.traffic.down).append(note)
        elif there and here:
            if packet not in _INDEXING or not isinstance(args[0], OnGPU):
                raise RuntimeError(f"{func}: tensors on both cuda:0 and the processor, at {_line()}")
            self.traffic.up.extend((x.numel() * x.element_size(), _line()) for x in here)
        if there and packet in _PRODUCTS:
            convolutions, others = tf32_allowed()
            self.traffic.tf32.setdefault(str(packet), set()).add(convolutions if packet is aten.convolution else others)
        if there and (packet is aten._local_scalar_dense or packet in _ASKING):
            self.traffic.asked.append(_line())
        if packet is aten._fused_sdp_choice and there:
            # By torch's plain operators: what it would call is not written for processors.
            return 0
        args, kwargs = tree_map_only(OnGPU, lambda x: x.inner, (args, kwargs))
        result = func(*args, **kwargs)
        if not onto_gpu:
            return result
        # What an operation in place gives back is the tensor that it was called on.
        same = {id(x.inner): x for x in there}
        for x in there:
            if x.shape != x.inner.shape:  # squeeze_ and the like
                with torch.inference_mode(x.is_inference()):
                    x.data = OnGPU(x.inner)

        def wrapped(x: Tensor) -> Tensor:
            return x if x.is_meta else same[id(x)] if id(x) in same else OnGPU(x)

        # Views of a module's parameters would otherwise be refused: those were made outside inference mode.
        with torch.inference_mode(False):
            return tree_map_only(Tensor, wrapped, result)


@contextmanager
def pretend_gpu() -> Iterator[Traffic]:
    """torch with a device "cuda" that computes on the processor; yields what went over to it and back."""
    from fathom.annotator import host

    lifts: Any = torch._C
    traffic = Traffic()
    before = lifts._only_lift_cpu_tensors(), torch.__future__.get_overwrite_module_params_on_conversion()
    if not hasattr(lifts, "_ensureCUDADeviceGuardSet"):
        pytest.skip("the pretended GPU needs torch 2.7 or newer")
    lifts._ensureCUDADeviceGuardSet()
    lifts._set_only_lift_cpu_tensors(True)
    # Modules would otherwise keep their parameter objects and lose the class of what lies in them.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with (
            mock.patch("torch.cuda._lazy_init"),
            mock.patch.object(host, "free_memory", lambda where: 2**34),
            mock.patch.object(host, "release_device_memory"),
            torch.backends.cudnn.flags(enabled=False),
            _Mode(traffic),
        ):
            yield traffic
    finally:
        lifts._set_only_lift_cpu_tensors(before[0])
        torch.__future__.set_overwrite_module_params_on_conversion(before[1])
