"""How much a node costs beyond the bare network: node execute() over est.network on the same pixels, side by side.

    python benchmarks/overhead.py [ID ...] [--size 512] [--repeats 15] [--warm-ups 2]

Both run warm and alternate in one process; the medians and their ratio are printed. An estimator whose weights are not
on disk runs on seeded random ones of the published layout, which cost the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from networks import load


def seconds(run, device: torch.device) -> float:
    """Wall time of one call, the device's queue drained."""
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=["fathom-tiny"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--warm-ups", type=int, default=2)
    args = parser.parse_args()
    image = torch.rand(1, args.size, args.size, 3, generator=torch.Generator().manual_seed(0))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.size} px, median of {args.repeats}")
    print(f"{'estimator':40} {'node ms':>10} {'network ms':>11} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for id in args.ids:
            est = load(id, Path(folder))
            height, width = est.estimator.fit(args.size, args.size, args.size).network
            x = torch.rand(1, 3, height, width, device=est.device, dtype=est.dtype)

            def node(est=est):
                return est(image, args.size).to_image()

            def network(est=est, x=x):
                with torch.inference_mode():
                    return est.network(x)

            times: dict[str, list[float]] = {"node": [], "network": []}
            for turn in range(args.repeats + args.warm_ups):
                for name, run in (("node", node), ("network", network)):
                    taken = seconds(run, est.device)
                    if turn >= args.warm_ups:
                        times[name].append(taken)
            a, b = (statistics.median(times[n]) * 1e3 for n in ("node", "network"))
            print(f"{id:40} {a:10.1f} {b:11.1f} {a / b:7.3f}")


if __name__ == "__main__":
    main()
