"""What a film costs in host memory beyond its input and its output, and what a forward costs against what is declared.

    python benchmarks/memory.py film [--frames 250 500 1000 2000] [--size 256]
    python benchmarks/memory.py forward [ID ...] [--size 512]

film: peak memory of one node over so many frames, less the frames and the results; it should not grow. forward: the
peak of what tensors take during one forward on this device beside the weights, over `Estimator.memory_required`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from networks import LAYOUTS, load, prompt


def resident() -> int:
    """Bytes of this process in memory now."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


def film(frames: int, size: int) -> None:
    """Print what `frames` pictures took at most, in this process."""
    from fathom.nodes.estimate import FathomEstimateDepth

    node = FathomEstimateDepth()
    node.execute(torch.rand(4, size, size, 3), "fathom-tiny", size)
    pictures = torch.rand(frames, size, size, 3)
    before, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    image, depth = node.execute(pictures, "fathom-tiny", size)
    done.set()
    watcher.join()
    output = (image.numel() + depth.values.numel()) * 4
    held, extra = pictures.numel() * 4, max(peak, resident()) - before - output
    print(f"{frames:7} {held / 2**20:9.0f} {output / 2**20:10.0f} {extra / 2**20:9.0f}", flush=True)


def peak_of_forward(run) -> int:
    """Bytes that tensors took at most during `run()`, beside what lived before."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def forward(ids: list[str], size: int) -> None:
    """Print the peak of each estimator beside its declaration."""
    print(f"{'estimator':40} {'measured MB':>12} {'declared MB':>12} {'(weights + peak) / (weights + declared)':>40}")
    with tempfile.TemporaryDirectory() as folder:
        for id in ids:
            est = load(id, Path(folder))
            count = est.estimator.window
            image, beside = torch.rand(count, size, size, 3), prompt(est.estimator, count)
            est(image, size, **beside)
            peak = peak_of_forward(lambda est=est, image=image, beside=beside: est(image, size, **beside))
            fit = est.estimator.fit(size, size, size)
            declared = est.estimator.memory_required(count, fit, est.dtype)
            weights = sum(p.numel() * p.element_size() for p in est.network.parameters())
            ratio = (weights + peak) / (weights + declared)
            print(f"{id:40} {peak / 2**20:12.0f} {declared / 2**20:12.0f} {ratio:40.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["film", "forward"])
    parser.add_argument("ids", nargs="*", default=["fathom-tiny", *LAYOUTS])
    parser.add_argument("--frames", type=int, nargs="+", default=[250, 500, 1000, 2000])
    parser.add_argument("--size", type=int, default=None)
    args = parser.parse_args()
    if args.what == "forward":
        forward(args.ids, args.size or 512)
    elif len(args.frames) == 1:
        film(args.frames[0], args.size or 256)
    else:
        print(f"{'frames':>7} {'input MB':>9} {'output MB':>10} {'extra MB':>9}", flush=True)
        for frames in args.frames:
            again = [sys.executable, __file__, "film", "--frames", str(frames), "--size", str(args.size or 256)]
            subprocess.run(again, check=True)


if __name__ == "__main__":
    main()
