"""What less precision costs in exactness and brings in time, per estimator: error against float32 on the same weights.

    python benchmarks/precision.py [ID ...]

Error: the 99.9th percentile, and the largest, of |half - float32| over the float32 result's range, on the test picture
at the published size unless told otherwise. Under 1/510 = 0.00196 it is below half a step of an 8-bit picture.

TF32, in which a GPU computes float32 products unless it is told not to, is imitated: what goes into a convolution
("tf32 conv", as torch has it by default) or into any product ("tf32") keeps 10 bits of its mantissa.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import LAYOUTS, load, plain_linear_layers, prompt
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from fathom.signals import Depth, Normals

LIMIT = 1 / 510
PICTURE = Path(__file__).parents[1] / "tests" / "data" / "inputs" / "land640x427.png"


class Tf32(TorchDispatchMode):
    """Products of float32 numbers as TF32 gives them. everywhere: not in convolutions alone."""

    def __init__(self, everywhere: bool) -> None:
        super().__init__()
        self._parts = ("conv", "linear", "mm", "matmul", "attention") if everywhere else ("conv",)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(part in str(func) for part in self._parts):
            args = tree_map_only(torch.Tensor, _ten_bits, args)
        return func(*args, **(kwargs or {}))


def _ten_bits(x: torch.Tensor) -> torch.Tensor:
    """`x` rounded to a mantissa of 10 bits, float32."""
    if x.dtype != torch.float32:
        return x
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


# (dtype, what runs around it, repeats where its time says nothing)
PRECISIONS: dict[str, tuple[torch.dtype, Callable[[], AbstractContextManager[Any]], int]] = {
    "float32": (torch.float32, nullcontext, 0),
    "tf32 conv": (torch.float32, lambda: Tf32(everywhere=False), 1),
    "tf32": (torch.float32, lambda: Tf32(everywhere=True), 1),
    "bfloat16": (torch.bfloat16, nullcontext, 0),
    "float16": (torch.float16, nullcontext, 0),
}


def numbers(signal: object) -> torch.Tensor:
    """The floats of a signal."""
    if isinstance(signal, Depth):
        return signal.values
    assert isinstance(signal, Normals)
    return signal.vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=["fathom-tiny", *LAYOUTS])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(PRECISIONS), help="some of: " + ", ".join(PRECISIONS))
    parser.add_argument("--resolution", type=int, default=None, help="short side; default: the published size")
    args = parser.parse_args()
    picture = torch.from_numpy(np.array(Image.open(PICTURE).convert("RGB")))[None]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'estimator':40} {'precision':10} {'p99.9':>9} {'largest':>9} {'time':>6}   below 1/510")
    with tempfile.TemporaryDirectory() as folder:
        for id in args.ids:
            exact, base = None, 0.0
            for name, (dtype, mode, repeats) in PRECISIONS.items():
                if name != "float32" and name not in args.only:
                    continue
                est = load(id, Path(folder), dtype)
                if name.startswith("tf32"):
                    plain_linear_layers(est.network)
                taken = []
                for _ in range(repeats or args.repeats):
                    start = time.perf_counter()
                    with mode():
                        result = numbers(est(picture, args.resolution, **prompt(est.estimator, 1)))
                    taken.append(time.perf_counter() - start)
                seconds = statistics.median(taken)
                if exact is None:
                    exact, base = result, seconds
                    continue
                off = ((result - exact).abs() / (exact.amax() - exact.amin())).flatten()
                high = float(off.kthvalue(round(0.999 * off.numel())).values)
                verdict = "yes" if high < LIMIT else "no"
                speed = "" if repeats else f"{seconds / base:.2f}"
                row = f"{id:40} {name:10} {high:9.5f} {float(off.max()):9.5f} {speed:>6}   {verdict}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
