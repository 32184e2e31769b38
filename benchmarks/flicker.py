"""How much depth flickers: a film estimator beside one that sees single frames, on rendered films of known motion.

    python benchmarks/flicker.py [ID ...] [--films 4] [--frames 60] [--size 256 384]

A film is a procedural scene (training/scenes.py) past which a camera moves and turns. Every depth is drawn with scope
"video" and fitted to the true inverse depth, one scale and one shift for the whole film. Flicker: how far the error at
a point of the scene changes from one frame to the next, its mean over what both frames see, in percent of the true
range. Error: the mean of the error itself. Networks whose weights are not on disk are filled from a seed: their figures
say that this runs and nothing of the models.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from networks import load
from torch import Tensor

from fathom.training.scenes import Scenes, draw_layout, render_layouts

IDS = ["fathom-tiny", "depth-anything-v2-small", "video-depth-anything-small"]
STEP = 0.02  # metres that the camera moves aside between two frames
TURN = 0.002  # radians that it turns
SAME = 0.02  # by which share two distances of one point may differ


def film(seed: int, frames: int, height: int, width: int) -> tuple[Scenes, list[Any]]:
    """The frames of one scene, and their layouts with the cameras."""
    layouts = []
    for number in range(frames):
        _, layout = draw_layout(seed)
        angle = TURN * (number - frames / 2)
        turn = np.array([[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]])
        layout.eye = layout.eye + layout.look[:, 0] * STEP * (number - frames / 2)
        layout.look = layout.look @ turn
        layouts.append(layout)
    parts = [render_layouts([layout], [seed], height, width) for layout in layouts]
    joined = {name: torch.cat([getattr(p, name) for p in parts]) for name in ("image", "depth", "normals", "regions")}
    return Scenes(**joined, focal=parts[0].focal, kinds=[]), layouts


def rays(height: int, width: int, focal: float) -> Tensor:
    """(3,H,W) in the camera's frame, advancing 1 along the optical axis."""
    x = (torch.arange(width) + 0.5 - width / 2) / focal
    y = (height / 2 - torch.arange(height) - 0.5) / focal
    return torch.stack([x[None].expand(height, width), y[:, None].expand(height, width), torch.ones(height, width)])


def follow(depth: Tensor, here: Any, there: Any, focal: float) -> tuple[Tensor, Tensor]:
    """Where the points of one frame lie in another: (H,W,2) for grid_sample, and their distance there (H,W)."""
    height, width = depth.shape
    look, eye = (torch.as_tensor(x, dtype=torch.float32) for x in (here.look, here.eye))
    look2, eye2 = (torch.as_tensor(x, dtype=torch.float32) for x in (there.look, there.eye))
    world = torch.einsum("ij,jhw->ihw", look, rays(height, width, focal) * depth) + eye[:, None, None]
    x, y, z = torch.einsum("ji,jhw->ihw", look2, world - eye2[:, None, None])
    return torch.stack([x / z * focal / (width / 2), -y / z * focal / (height / 2)], -1), z


def sample(plane: Tensor, grid: Tensor) -> Tensor:
    """plane (H,W) at grid (H,W,2), bilinear."""
    return F.grid_sample(plane[None, None], grid[None], align_corners=False)[0, 0]


def measure(grey: Tensor, scenes: Scenes, layouts: list[Any]) -> tuple[float, float]:
    """(flicker, error) of grey (T,H,W), larger = closer, in percent of the range of the true inverse depth."""
    seen = scenes.depth.isfinite()
    truth = scenes.depth.reciprocal()
    x, y = grey[seen].double(), truth[seen].double()
    a, b = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None]).solution[:, 0].float()
    low, high = (float(np.percentile(y.numpy(), p)) for p in (1, 99))
    error = (grey * a + b - truth) / (high - low)
    changes = []
    for number in range(len(grey) - 1):
        depth = scenes.depth[number].masked_fill(~seen[number], 1e4)
        grid, z = follow(depth, layouts[number], layouts[number + 1], float(scenes.focal[0]))
        other = sample(scenes.depth[number + 1].masked_fill(~seen[number + 1], 1e4), grid)
        both = seen[number] & (grid.abs() < 1).all(-1) & ((other / z - 1).abs() < SAME)
        changes.append((sample(error[number + 1].nan_to_num(), grid) - error[number])[both].abs().mean())
    return 100 * float(torch.stack(changes).mean()), 100 * float(error[seen].abs().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=IDS)
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, nargs=2, default=[256, 384], metavar=("HEIGHT", "WIDTH"))
    args = parser.parse_args()
    films = [film(1000 + number, args.frames, *args.size) for number in range(args.films)]
    truth = [measure(1 / s.depth.nan_to_num(posinf=1e4), s, layouts) for s, layouts in films]
    print(f"{'estimator':36} {'flicker %':>9} {'error %':>9}")
    print(f"{'the truth itself':36} " + " ".join(f"{np.mean(column):9.3f}" for column in zip(*truth, strict=True)))
    for id in args.ids:
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            annotator: Any = load(id, Path(folder))
            for scenes, layouts in films:
                depth = annotator(scenes.image.permute(0, 2, 3, 1))
                rows.append(measure(depth.to_image("video")[..., 0], scenes, layouts))
        print(f"{id:36} " + " ".join(f"{np.mean(column):9.3f}" for column in zip(*rows, strict=True)))


if __name__ == "__main__":
    main()
