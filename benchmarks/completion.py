"""Making a coarse measured depth whole: Fathom Complete Depth beside joint bilateral filling, on rendered scenes.

    python benchmarks/completion.py [--scenes 8] [--size 384 512] [--estimator prompt-depth-anything-small]

A scene's true depth (training/scenes.py) is brought to a quarter of its size, as a phone's LiDAR gives it, blurred as
far as one of its pixels, or to its own size with holes, as a depth camera gives it. Error: the mean of |z - true| /
true in percent, over all pixels and over those within four of a step in depth. Three ways: enlarged (holes filled from
their surroundings), the joint bilateral filter over that with the photo (Fathom Refine Edges), and Complete Depth. A
network whose weights are not on disk is filled from a seed: its row then says that this runs, and how far the
correction by the measured points goes over a picture of noise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import load
from torch import Tensor

from fathom import Depth
from fathom.signals.depth import depth_from_metres
from fathom.signals.field import fill_smoothly
from fathom.tools import completion
from fathom.tools.regions import refine_edges
from fathom.training.scenes import render

COARSE = 4  # pixels of the photo for one of a phone's
STEP = 1.1  # ratio of two neighbouring distances that is an edge
FARTHEST = 20.0


def lidar(metres: Tensor) -> Depth:
    """What a phone measures of metres (1,H,W)."""
    return depth_from_metres(F.avg_pool2d(metres[:, None], COARSE)[:, 0])


def camera(metres: Tensor, seed: int) -> Depth:
    """What a depth camera measures of metres (1,H,W): nothing in patches, nor beside edges."""
    noise = torch.randn(1, 1, 12, 16, generator=torch.Generator().manual_seed(seed))
    patches = F.interpolate(noise, metres.shape[1:], mode="bicubic")[:, 0] > 0.8
    return depth_from_metres(metres, valid=~(patches | near_edges(metres, 3)))


def near_edges(metres: Tensor, reach: int) -> Tensor:
    """Where metres (1,H,W) step within `reach` pixels: bool (1,H,W)."""
    field = metres.log()[:, None]
    side = 2 * reach + 1
    span = F.max_pool2d(field, side, 1, reach) + F.max_pool2d(-field, side, 1, reach)
    return span[:, 0].exp() > STEP


def enlarged(measured: Depth, size: tuple[int, int]) -> Depth:
    """The measured depth at another size, holes filled from their surroundings."""
    inverse = measured.values[:, None]
    if measured.valid is not None:
        inverse = fill_smoothly(inverse, measured.valid[:, None])
    return Depth(F.interpolate(inverse, size, mode="bilinear", align_corners=False)[:, 0], "metric")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(384, 512))
    parser.add_argument("--estimator", default="prompt-depth-anything-small")
    args = parser.parse_args()
    height, width = args.size
    with tempfile.TemporaryDirectory() as folder:
        network = load(args.estimator, Path(folder))

    def completed(photo: Tensor, measured: Depth) -> Depth:
        known = completion.measured(measured, (1, height, width))
        return completion.keep_measured(network(photo, 0, prompt=known), known)

    ways: dict[str, Callable[[Tensor, Depth], Depth]] = {
        "enlarged": lambda photo, measured: enlarged(measured, (height, width)),
        "joint bilateral": lambda photo, measured: refine_edges(enlarged(measured, (height, width)), photo),
        "Complete Depth": completed,
    }
    errors: dict[tuple[str, str], list[list[float]]] = {}
    for seed in range(args.scenes):
        scene = render([seed], height, width, kind="interior")
        photo, metres = scene.image.permute(0, 2, 3, 1), scene.depth.clamp(max=FARTHEST)
        edges = near_edges(metres, 4)
        for source, measured in (("LiDAR", lidar(metres)), ("depth camera", camera(metres, seed))):
            for way, make in ways.items():
                start = time.perf_counter()
                off = (make(photo, measured).metres() - metres).abs() / metres * 100
                seconds = time.perf_counter() - start
                errors.setdefault((source, way), []).append([float(off.mean()), float(off[edges].mean()), seconds])
    print("| measured by | way | error, % | at edges, % | s |\n|---|---|---|---|---|")
    for (source, way), rows in errors.items():
        mean, edge, seconds = torch.tensor(rows).mean(0).tolist()
        print(f"| {source} | {way} | {mean:.2f} | {edge:.2f} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
