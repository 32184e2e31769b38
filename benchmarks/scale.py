"""The work of one picture for every estimator: floating point operations of all its forwards at the published size.

    python benchmarks/scale.py [--width 1024 --height 768]

Counted on torch's meta device, so nothing is computed. With the sustained speed of a machine (measure it with
benchmarks/mass.py) they give its pictures/s; the table below uses the --teraflops given.
"""

from __future__ import annotations

import argparse
import logging

import torch
from torch.utils.flop_counter import FlopCounterMode

import fathom
from fathom.annotator.loading import parameters_on_meta
from fathom.annotator.weights import Checkpoint


def operations(id: str, height: int, width: int) -> float:
    """Floating point operations for one picture, a multiplication and its addition counted as two; some estimators
    look at it more than once."""
    estimator = fathom.estimators()[id]
    with parameters_on_meta():
        network = estimator.build(Checkpoint(None, {}))  # type: ignore[arg-type]
    network = network.to("meta").eval()
    fit, pixels = estimator.fit(height, width, None), torch.empty(1, 3, height, width, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        estimator.infer(network, pixels, fit, (height, width), estimator.settings({}))
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--height", type=int, default=768)
    parser.add_argument("--teraflops", type=float, default=40.0, help="sustained")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    print("| estimator | network sees | GFLOP a picture | hours for 10^6 | 10^8 | 5x10^9 |\n|---|---|---|---|---|---|")
    for id, estimator in fathom.estimators().items():
        try:
            work = operations(id, args.height, args.width)
        except Exception as error:
            print(f"| `{id}` | not counted: {type(error).__name__} | | | | |")
            continue
        rows, columns = estimator.fit(args.height, args.width, None).network
        hours = [work * n / (args.teraflops * 1e12) / 3600 for n in (1e6, 1e8, 5e9)]
        times = " | ".join(f"{h:,.1f}" if h < 10 else f"{h:,.0f}" for h in hours)
        print(f"| `{id}` | {columns}x{rows} | {work / 1e9:,.1f} | {times} |")


if __name__ == "__main__":
    main()
