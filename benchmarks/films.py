"""Frames per second of a film through an estimator that sees several together, beside its bare network.

    python benchmarks/films.py [ID] [--frames 76] [--size 196 252] [--input-size 196]

The network alone takes windows of 32 frames, one after the other; a film gives it the same frames in windows that
share 10, aligned, at the picture's size. A frame goes through the transformer once, however many windows show it.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from networks import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("id", nargs="?", default="video-depth-anything-small")
    parser.add_argument("--frames", type=int, default=76)
    parser.add_argument("--size", type=int, nargs=2, default=[196, 252], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--input-size", type=int, default=196)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        annotator: Any = load(args.id, Path(folder))
        options = annotator.estimator.settings({"input_size": args.input_size})
        height, width = annotator.estimator.plan(*args.size, None, options).network
        window = torch.randn(1, annotator.estimator.window, 3, height, width)
        frames = torch.rand(args.frames, *args.size, 3)
        with torch.inference_mode():
            annotator.network(window[:, :2])
            start = time.perf_counter()
            annotator.network(window)
            bare = window.shape[1] / (time.perf_counter() - start)
        start = time.perf_counter()
        annotator(frames, **options)
        film = args.frames / (time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{args.id} at {width}x{height}: network {bare:.2f} frames/s, film of {args.frames} {film:.2f} frames/s")
    print(f"film / network {film / bare:.2f}; peak memory of the process {peak:.2f} GiB")


if __name__ == "__main__":
    main()
