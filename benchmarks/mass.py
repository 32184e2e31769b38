"""What `fathom annotate` adds to the network: wall time over the sum of the forwards, on many mixed photos.

    python benchmarks/mass.py [--count 1000] [--estimator fathom-tiny] [--resolution R] [--format png] [--layout tree]

The photos are made once and kept in --folder: eight sizes from 0.2 to 2.8 megapixels, JPEG and PNG. An estimator whose
weights are not on disk runs on seeded random ones of the published layout, which cost the same. Printed: pictures/s,
the ratio, bytes read and written per picture, and the memory in use after each quarter of the run.

--ray 1 2 measures the Ray engine with so many workers, each on a node of its own that is bound to one core, beside the
local engine bound to one core. Steady rates are those between the first and the last finished chunk, so starting Ray
and loading networks is not in them. Beside each stands the CPU time of all processes for one picture in that span:
on a machine that does other work as well it tells more than the clock.
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
from networks import load
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


class Cpu:
    """CPU seconds of this process and all below it, by time; read five times a second."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._sums: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Cpu:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        tick = os.sysconf("SC_CLK_TCK")
        while not self._ended.wait(0.2):
            parents, spent = {}, {}
            for entry in Path("/proc").iterdir():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else None
                except OSError:
                    continue
                if fields:
                    parents[int(entry.name)] = int(fields[1])
                    spent[int(entry.name)] = (int(fields[11]) + int(fields[12])) / tick
            ours = {os.getpid()}
            for _ in range(6):
                ours |= {pid for pid, parent in parents.items() if parent in ours}
            # What has ended keeps its last number.
            self._seen.update({pid: spent[pid] for pid in ours if pid in spent})
            self._sums.append((time.time(), sum(self._seen.values())))

    def between(self, start: float, end: float) -> float:
        """CPU seconds spent from `start` to `end`."""
        times, sums = zip(*self._sums, strict=True)
        first, last = np.interp([start, end], times, sums)
        return float(last - first)


def span(out: Path, skip: int = 1) -> tuple[float, float, int]:
    """When the chunk `skip` and the last one were finished, and how many pictures came between."""
    finished = sorted((p.stat().st_mtime, len(p.read_text().splitlines()) - 1) for p in out.glob(".fathom/manifest/*"))
    return finished[skip - 1][0], finished[-1][0], sum(n for _, n in finished[skip:])


def steady(out: Path, cpu: Cpu, skip: int = 1) -> str:
    """The steady rate and the CPU time of a picture."""
    start, end, count = span(out, skip)
    if not count:
        return "one chunk only"
    return f"{count / (end - start):.2f} steady, {cpu.between(start, end) / count * 1e3:.0f} ms of CPU a picture"


def local(job: Job, count: int) -> None:
    """Run the local engine and print what it took."""
    report, ended, memory = Report(), threading.Event(), []
    watcher = threading.Thread(target=lambda: memory.extend(watch(report, count, ended)))
    start = time.perf_counter()
    watcher.start()
    try:
        with Cpu() as cpu:
            annotate_locally(job, report)
    finally:
        ended.set()
        watcher.join()
    wall = time.perf_counter() - start
    print(f"local: {report.done} pictures, {report.done / wall:.2f} pictures/s, {steady(Path(job.out), cpu)}")
    print(f"  wall {wall:.1f} s, forwards {report.network:.1f} s, ratio {wall / report.network:.3f}")
    print(f"  {report.pixels / report.done / 1e6:.2f} MP and {report.written / report.done / 1e3:.0f} kB a picture")
    print(f"  memory by quarter: {', '.join(f'{m / 2**20:.0f}' for m in memory)} MiB")


def on_ray(job: Job, workers: int) -> None:
    """Run the Ray engine and print its rate."""
    from fathom.mass.ray_engine import annotate_on_ray

    report = Report()
    start = time.perf_counter()
    with Cpu() as cpu:
        annotate_on_ray(job, report, workers=str(workers), cpus=1, gpus=0)
    wall = time.perf_counter() - start
    told = steady(Path(job.out), cpu, 2 * workers)
    print(f"ray, {workers} x 1 core: {report.done / wall:.2f} pictures/s with its start, {told}")


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
        weights = str(load(args.estimator, Path(folder)).path)
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
