"""From a weights file to the first result, over the least that this can cost: reading the bytes and one forward.

    python benchmarks/cold.py [ID ...] [--size 512] [--repeats 5]

The file lies in the page cache and the libraries are imported; both sides alternate in one process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from networks import checkpoint
from safetensors.torch import save_file

import fathom


def as_safetensors(path: Path) -> Path:
    """The same tensors in the format that Fathom prefers."""
    if path.suffix == ".safetensors":
        return path
    state = torch.load(path, weights_only=True)
    state = state.get("model", state)
    new = path.with_suffix(".safetensors")
    save_file({name: value.contiguous() for name, value in state.items()}, new)
    return new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=["depth-anything-v2-small", "midas-dpt-hybrid"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    image = torch.rand(1, args.size, args.size, 3, generator=torch.Generator().manual_seed(0))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.size} px, median of {args.repeats}")
    print(f"{'estimator':32} {'MB':>6} {'first result ms':>16} {'read ms':>8} {'forward ms':>11} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for id in args.ids:
            path = as_safetensors(checkpoint(id, Path(folder)))
            first, read, forward = [], [], []
            for turn in range(args.repeats + 1):
                start = time.perf_counter()
                est = fathom.load(id, path)
                est(image, args.size)
                took = time.perf_counter() - start
                x = torch.rand(1, 3, *est.estimator.fit(args.size, args.size, args.size).network, dtype=est.dtype)
                with torch.inference_mode():
                    est.network(x)
                    start = time.perf_counter()
                    est.network(x)
                    ran = time.perf_counter() - start
                start = time.perf_counter()
                path.read_bytes()
                got = time.perf_counter() - start
                if turn:
                    first.append(took)
                    read.append(got)
                    forward.append(ran)
            a, b, c = (statistics.median(v) * 1e3 for v in (first, read, forward))
            size = path.stat().st_size / 2**20
            print(f"{id:32} {size:6.0f} {a:16.0f} {b:8.0f} {c:11.0f} {a / (b + c):6.2f}", flush=True)


if __name__ == "__main__":
    main()
