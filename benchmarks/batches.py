"""What a batch brings: milliseconds for each picture of a film, by how many go through the network at once.

    python benchmarks/batches.py [ID ...] [--size 512] [--count 8] [--most 1 2 4 8] [--repeats 3] [--dtype fp16]

"auto": as many as Fathom chooses from free memory. speed-up: single pictures over "auto". use: the operations of the
network alone, over what a large product of matrices of the same type reaches on this device in the same run.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from networks import load
from overhead import seconds
from torch.utils.flop_counter import FlopCounterMode

from fathom.annotator.runtime import Annotator

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest of ten large matrix products."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(10))


def operations(est: Annotator, picture: torch.Tensor, size: int) -> float:
    """Floating point operations of the network for one picture, in all its looks; NaN where it goes by its values."""
    seen: list[torch.Size] = []
    with est.network.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape)):
        est(picture, size)
    network: Any = copy.deepcopy(est.network).to("meta")
    try:
        with FlopCounterMode(display=False) as counter:
            for shape in seen:
                network(torch.empty(shape, device="meta", dtype=est.dtype))
    except (NotImplementedError, RuntimeError):
        return float("nan")
    return counter.get_total_flops()


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=["fathom-tiny", "depth-anything-v2-small"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--most", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dtype", choices=TYPES)
    args = parser.parse_args()
    film = torch.rand(args.count, args.size, args.size, 3, generator=torch.Generator().manual_seed(0))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.count} pictures of {args.size} px")
    names = [str(most) for most in args.most] + ["auto"]
    heads = (f"{name:>8}" for name in names)
    print(f"{'estimator':28} {'single':>8}", *heads, f"{'speed-up':>9} {'GFLOP':>7} {'use':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for id in args.ids:
            est = load(id, Path(folder), TYPES.get(args.dtype))

            def singles(est=est):
                for picture in film.split(1):
                    est(picture, args.size).to_image()

            def together(est=est):
                est(film, args.size).to_image()

            times: dict[str, list[float]] = {name: [] for name in ("single", *names)}
            for turn in range(args.repeats + 1):
                for name, taken in times.items():
                    chosen = patch.object(Annotator, "_best_batch", lambda *_, most=name: int(most))
                    if name.isdigit():
                        with chosen:
                            took = seconds(together, est.device)
                    else:
                        took = seconds(singles if name == "single" else together, est.device)
                    if turn:
                        taken.append(took)
            per = {name: statistics.median(taken) / args.count for name, taken in times.items()}
            work = operations(est, film[:1], args.size)
            use = work / per["auto"] / product_rate(est.device, est.dtype)
            columns = (f"{per[name] * 1e3:8.1f}" for name in times)
            print(f"{id:28}", *columns, f"{per['single'] / per['auto']:9.2f} {work / 1e9:7.0f} {use:6.0%}", flush=True)


if __name__ == "__main__":
    main()
