"""What half precision costs in exactness and brings in time, per estimator: error against float32 on the same weights.

    python benchmarks/precision.py [ID ...]

Error: the 99.9th percentile, and the largest, of |half - float32| over the float32 result's range, on the test picture
at the published size unless told otherwise. Under 1/510 = 0.00196 it is below half a step of an 8-bit picture.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from networks import LAYOUTS, load
from PIL import Image

from fathom.signals import Depth, Normals

LIMIT = 1 / 510
PICTURE = Path(__file__).parents[1] / "tests" / "data" / "inputs" / "land640x427.png"


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
    parser.add_argument("--resolution", type=int, default=None, help="short side; default: the published size")
    args = parser.parse_args()
    picture = torch.from_numpy(np.array(Image.open(PICTURE).convert("RGB")))[None]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'estimator':40} {'precision':10} {'p99.9':>9} {'largest':>9} {'time':>6}   below 1/510")
    with tempfile.TemporaryDirectory() as folder:
        for id in args.ids:
            exact, base = None, 0.0
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                est = load(id, Path(folder), dtype)
                taken = []
                for _ in range(args.repeats):
                    start = time.perf_counter()
                    result = numbers(est(picture, args.resolution))
                    taken.append(time.perf_counter() - start)
                seconds = statistics.median(taken)
                if exact is None:
                    exact, base = result, seconds
                    continue
                off = ((result - exact).abs() / (exact.amax() - exact.amin())).flatten()
                high = float(off.kthvalue(round(0.999 * off.numel())).values)
                name = str(dtype).removeprefix("torch.")
                verdict = "yes" if high < LIMIT else "no"
                row = f"{id:40} {name:10} {high:9.5f} {float(off.max()):9.5f} {seconds / base:6.2f}   {verdict}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
