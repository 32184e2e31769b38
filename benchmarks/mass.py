"""What `fathom annotate` adds to the network: wall time over the sum of the forwards, on many mixed photos.

    python benchmarks/mass.py [--count 1000] [--estimator fathom-tiny] [--resolution R] [--format png] [--layout tree]

The photos are made once and kept in --folder: eight sizes from 0.2 to 2.8 megapixels, JPEG and PNG. An estimator whose
weights are not on disk runs on seeded random ones of the published layout, which cost the same. Printed: pictures/s,
the ratio, bytes read and written per picture, and the memory in use after each quarter of the run.

--ray 1 2 measures the Ray engine with so many workers, each on a node of its own that is bound to one core, beside the
local engine bound to one core. Steady rates are those between the first and the last finished chunk, so starting Ray
and loading networks is not in them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from overhead import annotator
from PIL import Image

from fathom.mass.job import Job
from fathom.mass.pipeline import Report
from fathom.mass.run import annotate_locally, wanted_signals

SIZES = [(640, 480), (480, 640), (1024, 768), (800, 1200), (1280, 720), (1600, 1200), (512, 512), (2048, 1365)]


@cache
def scene(width: int, height: int, number: int) -> np.ndarray:
    """A picture (height,width,3) of uint8 with structure at every scale, which JPEG compresses as it does real ones."""
    random = np.random.default_rng(number)
    picture = np.zeros((height, width, 3), np.float32)
    for scale, strength in ((4, 90), (16, 50), (64, 25), (256, 12)):
        noise = random.integers(0, 255, (scale * 3 // 4, scale, 3), dtype=np.uint8)
        large = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        picture += (np.asarray(large, np.float32) - 127) * (strength / 127)
    return (picture + 127).clip(0, 255).astype(np.uint8)


def make_photos(folder: Path, count: int) -> None:
    """Photos of every size, no two alike; the same at every call."""
    for number in range(count):
        path = folder / f"{number % 10}" / f"photo{number:05}.{'png' if number % 11 == 0 else 'jpg'}"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = scene(*SIZES[number % len(SIZES)], number // len(SIZES) % 3)
        Image.fromarray(np.roll(picture, (7 * number, 13 * number), (0, 1))).save(path, quality=90)


def resident() -> int:
    """Bytes of memory in use by this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def watch(report: Report, count: int, ended: threading.Event) -> list[int]:
    """The most memory in use in each quarter of a run."""
    most = [0, 0, 0, 0]
    while not ended.wait(0.05):
        quarter = min(3, 4 * (report.done + report.failed) // count)
        most[quarter] = max(most[quarter], resident())
    return most


def rate(out: Path, skip: int = 1) -> float:
    """Pictures a second between the first and the last finished chunk."""
    finished = sorted((p.stat().st_mtime, len(p.read_text().splitlines()) - 1) for p in out.glob(".fathom/manifest/*"))
    return sum(n for _, n in finished[skip:]) / (finished[-1][0] - finished[skip - 1][0])


def local(job: Job, count: int) -> None:
    """Run the local engine and print what it took."""
    report, ended, memory = Report(), threading.Event(), []
    watcher = threading.Thread(target=lambda: memory.extend(watch(report, count, ended)))
    start = time.perf_counter()
    watcher.start()
    try:
        annotate_locally(job, report)
    finally:
        ended.set()
        watcher.join()
    wall = time.perf_counter() - start
    loading = wall - report.seconds if report.seconds < wall else 0.0
    print(f"local: {report.done} pictures, {report.done / wall:.2f} pictures/s ({rate(Path(job.out)):.2f} steady)")
    print(f"  wall {wall:.1f} s, forwards {report.network:.1f} s, ratio {wall / report.network:.3f}")
    print(f"  {report.pixels / report.done / 1e6:.2f} MP and {report.written / report.done / 1e3:.0f} kB a picture")
    print(f"  memory by quarter: {', '.join(f'{m / 2**20:.0f}' for m in memory)} MiB; before the run {loading:.1f} s")


def on_ray(job: Job, workers: int) -> None:
    """Run the Ray engine and print its rate."""
    from fathom.mass.ray_engine import annotate_on_ray

    report = Report()
    start = time.perf_counter()
    annotate_on_ray(job, report, workers=str(workers), cpus=1, gpus=0)
    wall = time.perf_counter() - start
    steady = rate(Path(job.out), workers)
    print(f"ray, {workers} x 1 core: {report.done / wall:.2f} pictures/s with its start, {steady:.2f} steady")


def start_cluster(nodes: int) -> None:
    """A Ray cluster on this machine whose nodes are bound to one core each, as what they start inherits."""
    import ray
    from ray.cluster_utils import Cluster

    every = sorted(os.sched_getaffinity(0))
    room = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **room})
    for core in every[:nodes]:
        os.sched_setaffinity(0, {core})
        cluster.add_node(num_cpus=1, **room)
    os.sched_setaffinity(0, every)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--estimator", default="fathom-tiny")
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--format", default="png")
    parser.add_argument("--layout", default="tree")
    parser.add_argument("--chunk", type=int, default=16)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fathom-photos")
    parser.add_argument("--ray", type=int, nargs="*", help="numbers of workers")
    parser.add_argument("--cpus", type=int, default=0)
    args = parser.parse_args()
    source = args.folder / str(args.count)
    make_photos(source, args.count)
    with tempfile.TemporaryDirectory() as folder:
        weights = str(annotator(args.estimator, Path(folder)).path)
        out = Path(folder) / "out"
        job = Job(
            (str(source),),
            str(out),
            wanted_signals([], args.estimator, args.format, weights),
            resolution=args.resolution,
            layout=args.layout,
            chunk=args.chunk,
            batch=args.batch,
            cores=args.cpus,
        )
        if args.ray:
            start_cluster(max(args.ray))
            for workers in args.ray:
                on_ray(job, workers)
                shutil.rmtree(out)
            # Threads that are made from here on.
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
            job = replace(job, cores=1)
        print(f"torch {torch.__version__}, {job.cores or torch.get_num_threads()} network threads, {args.estimator}")
        local(job, args.count)


if __name__ == "__main__":
    main()
