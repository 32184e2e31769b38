"""How much a node costs beyond the bare network: node execute() over est.network on the same pixels, side by side.

    python benchmarks/overhead.py [ID ...] [--size 512] [--repeats 15] [--warm-ups 2]

Both run warm and alternate in one process; the medians and their ratio are printed, and the floating point operations
of one forward (a product and its sum are two). Of a film everything is for one frame. An estimator whose weights are
not on disk runs on seeded random ones of the published layout, which cost the same.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from networks import load, network_inputs, prompt
from torch.utils.flop_counter import FlopCounterMode


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
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.size} px, median of {args.repeats}")
    print(f"{'estimator':40} {'node ms':>10} {'network ms':>11} {'ratio':>7} {'GFLOP':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for id in args.ids:
            est = load(id, Path(folder))
            inputs, count = network_inputs(est, args.size), est.estimator.window
            image = torch.rand(count, args.size, args.size, 3, generator=torch.Generator().manual_seed(0))
            beside = prompt(est.estimator, count)

            def node(est=est, image=image, beside=beside):
                return est(image, args.size, **beside).to_image()

            def network(est=est, inputs=inputs):
                with torch.inference_mode():
                    return est.network(*inputs)

            with FlopCounterMode(display=False) as counter:
                network()
            work = counter.get_total_flops() / 1e9 / count

            times: dict[str, list[float]] = {"node": [], "network": []}
            for turn in range(args.repeats + args.warm_ups):
                for name, run in (("node", node), ("network", network)):
                    taken = seconds(run, est.device)
                    if turn >= args.warm_ups:
                        times[name].append(taken)
            a, b = (statistics.median(times[n]) * 1e3 / count for n in ("node", "network"))
            print(f"{id:40} {a:10.1f} {b:11.1f} {a / b:7.3f} {work:8.1f}", flush=True)


if __name__ == "__main__":
    main()
