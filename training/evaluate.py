"""Measure Fathom Tiny and show it on photographs: ``python -m fathom.training.evaluate``.

Prints the mean Spearman rank correlation with true inverse depth on held-out seeds of ``scenes.py`` and on
the scenes of ``heldout.py``, each beside what a plain vertical ramp (lower in the picture = closer) gets, and
writes a contact sheet of real photographs from scikit-image's wheel.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..models.tiny import ESTIMATORS, TinyDepth
from .heldout import render_heldout
from .scenes import Scenes, render
from .train import WEIGHTS

log = logging.getLogger("fathom.training")

PHOTOS = ("coffee", "astronaut", "chelsea", "rocket", "camera")
SHAPES = ((192, 256), (256, 192), (224, 224))


def load_tiny(path: Path = WEIGHTS) -> TinyDepth:
    """The network with its shipped weights, float32, in eval mode."""
    net = TinyDepth()
    net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return net.eval()


def ranks(values: Tensor) -> Tensor:
    """Ranks of (N,) values, ties given their mean rank, float64."""
    _, inverse, counts = torch.unique(values, sorted=True, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts.double() - 1) / 2)[inverse]


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two maps of one shape; 0 where either is constant."""
    a, b = ranks(a.flatten()), ranks(b.flatten())
    a, b = a - a.mean(), b - b.mean()
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def attainable(truth: Tensor) -> float:
    """The highest Spearman correlation that a map without ties can have with `truth`.

    A sky is one large tie. Over a share f of the picture it leaves sqrt(1 - f**3) to a perfect prediction.
    """
    _, counts = torch.unique(truth, return_counts=True)
    total, ties = float(truth.numel()), counts.double()
    return math.sqrt(1 - float((ties**3 - ties).sum()) / (total**3 - total)) if total > 1 else 1.0


def ramp(height: int, width: int) -> Tensor:
    """The baseline: the row number, (H,W)."""
    return torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)


@torch.inference_mode()
def estimate(net: nn.Module, images: Tensor) -> Tensor:
    """Closeness (B,H,W) of pictures (B,3,H,W) in 0..1, on the way that the shipped estimator takes."""
    estimator, size = ESTIMATORS[0], (images.shape[-2], images.shape[-1])
    return estimator.raw(net, images, estimator.fit(*size, None), size, {})[:, 0]


def score(net: nn.Module, scenes: Scenes) -> tuple[list[float], list[float]]:
    """Rank correlations with 1/z (sky 0) of the estimator and of the ramp, scene by scene."""
    prediction = estimate(net, scenes.image)
    inverse = 1 / scenes.depth
    base = ramp(*inverse.shape[1:])
    ours = [spearman(p, t) for p, t in zip(prediction, inverse, strict=True)]
    return ours, [spearman(base, t) for t in inverse]


def evaluate(net: nn.Module, draw: Callable[[range, int, int], Scenes], count: int, name: str) -> float:
    """Score `count` scenes, a third in each picture shape, and log the means by kind. Returns the mean."""
    kinds: list[str] = []
    rows: list[tuple[float, float, float]] = []
    for first in range(0, count, 8):
        height, width = SHAPES[first // 8 % len(SHAPES)]
        scenes = draw(range(first, min(first + 8, count)), height, width)
        limits = [attainable(1 / depth) for depth in scenes.depth]
        kinds += scenes.kinds
        rows += zip(*score(net, scenes), limits, strict=True)
    table = np.array(rows)
    for kind in sorted(set(kinds)):
        mine = table[[k == kind for k in kinds]]
        log.info("  %-10s %4d scenes  network %.3f  ramp %.3f  attainable %.3f", kind, len(mine), *mine.mean(0))
    ours, base, limit = table.mean(0)
    log.info("%s, %d scenes: network %.4f  ramp %.4f  attainable %.4f", name, count, ours, base, limit)
    log.info(
        "  network: median %.4f, share of attainable %.4f",
        np.median(table[:, 0]),
        (table[:, 0] / table[:, 2]).mean(),
    )
    return float(ours)


def stereo_photo(net: nn.Module) -> tuple[float, float]:
    """Rank correlation on the one photograph at hand with measured disparity, and the ramp's.

    The motorcycle of Middlebury 2014 (Scharstein et al.), as scikit-image ships it, where it was measured.
    """
    import skimage.data

    left, _, disparity = skimage.data.stereo_motorcycle()
    image = torch.from_numpy(np.array(left)).float().permute(2, 0, 1)[None] / 255
    truth = torch.from_numpy(np.array(disparity)).float()
    known = torch.isfinite(truth) & (truth > 0)
    base = ramp(*truth.shape)
    return spearman(predict(net, image)[known], truth[known]), spearman(base[known], truth[known])


def predict(net: nn.Module, image: Tensor) -> Tensor:
    """Closeness (H,W) in 0..1 of one picture (1,3,H,W) in 0..1."""
    raw = estimate(net, image)[0]
    return (raw - raw.min()) / (raw.max() - raw.min()).clamp_min(1e-6)


def photographs() -> dict[str, Tensor]:
    """Real photographs that ship in scikit-image's wheel, (1,3,H,W) in 0..1."""
    import skimage.data

    found = {}
    for name in PHOTOS:
        picture = np.atleast_3d(getattr(skimage.data, name)())[..., :3]
        picture = np.array(np.broadcast_to(picture, (*picture.shape[:2], 3)))
        found[name] = torch.from_numpy(picture).float().permute(2, 0, 1)[None] / 255
    return found


def contact_sheet(net: nn.Module, images: list[Tensor], height: int = 240, columns: int = 3) -> np.ndarray:
    """Pictures (1,3,H,W) beside their closeness, white = close, in rows of `columns` pairs. uint8 (H,W,3)."""
    from PIL import Image

    cells = []
    for image in images:
        depth = predict(net, image)[..., None].expand(-1, -1, 3)
        pair = torch.cat([image[0].permute(1, 2, 0), depth], 1)
        picture = Image.fromarray((pair * 255).round().byte().numpy())
        cells.append(np.asarray(picture.resize((max(1, picture.width * height // picture.height), height))))
    rows = [np.concatenate(cells[k : k + columns], 1) for k in range(0, len(cells), columns)]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows])


def speed(net: nn.Module, side: int = 512, repeats: int = 20) -> float:
    """Median milliseconds of one forward pass at side x side on two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    net = net.to(memory_format=torch.channels_last)
    picture = torch.rand(1, 3, side, side).contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(repeats + 3):
            begun = time.perf_counter()
            net(picture)
            times.append(time.perf_counter() - begun)
    torch.set_num_threads(threads)
    return float(np.median(times[3:])) * 1000


def main() -> None:
    """The command line."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=240, help="held-out scenes of each generator")
    parser.add_argument("--sheet", type=Path, default=Path("tiny-photos.jpg"), help="where the contact sheet goes")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="further photographs for the sheet")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    net = load_tiny(args.weights)
    if args.count:
        evaluate(net, render, args.count, "held-out seeds of scenes.py")
        evaluate(net, render_heldout, args.count, "heldout.py")
    log.info("motorcycle against measured disparity: network %.4f  ramp %.4f", *stereo_photo(net))
    log.info("512x512 forward on two threads: %.1f ms", speed(net))
    images = list(photographs().values())
    for path in args.photos:
        with Image.open(path) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255
        images.append(pixels.permute(2, 0, 1)[None])
    Image.fromarray(contact_sheet(net, images)).save(args.sheet, quality=82)
    log.info("wrote %s", args.sheet)


if __name__ == "__main__":
    main()
