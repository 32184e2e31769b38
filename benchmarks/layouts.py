"""Whether another memory layout, linear layers through oneDNN (annotator/layers.py) or torch.compile make a network
faster, over the plain forward, side by side.

    python benchmarks/layouts.py [ID ...] [--size 512] [--repeats 5] [--compile]

compile's first call is timed apart; the last column tells after how many pictures it has paid back.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from networks import load, plain_linear_layers

from fathom.annotator.layers import speed_up_linear_layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=["depth-anything-v2-small", "normal-bae", "leres"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.size} px, median of {args.repeats}")
    heads = f"{'channels_last':>14} {'oneDNN linear':>14} {'compiled':>9} {'first call s':>13} {'pays after':>11}"
    print(f"{'estimator':28} {'plain s':>8} {heads}")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for id in args.ids:
            est = load(id, Path(folder))
            network: Any = copy.deepcopy(est.network).to(memory_format=torch.contiguous_format)
            network = plain_linear_layers(network)
            x = torch.rand(1, 3, *est.estimator.fit(args.size, args.size, args.size).network, device=est.device)
            last = copy.deepcopy(network).to(memory_format=torch.channels_last)
            x_last = x.contiguous(memory_format=torch.channels_last)
            runs: dict[str, Callable[[], Any]] = {"plain": lambda n=network, x=x: n(x)}
            runs["last"] = lambda n=last, x=x_last: n(x)
            linear = copy.deepcopy(network)
            speed_up_linear_layers(linear)
            runs["linear"] = lambda n=linear, x=x: n(x)
            first = math.nan
            if args.compile:
                compiled = torch.compile(copy.deepcopy(network))
                start = time.perf_counter()
                compiled(x)
                first = time.perf_counter() - start
                runs["compiled"] = lambda n=compiled, x=x: n(x)
            times: dict[str, list[float]] = {name: [] for name in runs}
            for turn in range(args.repeats + 1):
                for name, run in runs.items():
                    start = time.perf_counter()
                    run()
                    if est.device.type == "cuda":
                        torch.cuda.synchronize(est.device)
                    if turn:
                        times[name].append(time.perf_counter() - start)
            plain, channels, products = (statistics.median(times[name]) for name in ("plain", "last", "linear"))
            third = statistics.median(times["compiled"]) if args.compile else math.nan
            pays = first / (plain - third) if plain > third else math.inf
            shares = f"{channels / plain:14.2f} {products / plain:14.2f} {third / plain:9.2f}"
            print(f"{id:28} {plain:8.2f} {shares} {first:13.1f} {pays:11.0f}", flush=True)


if __name__ == "__main__":
    main()
