"""Measure Fathom Tiny and show it on photographs: ``python -m fathom.training.evaluate``.

Real figures first: ``--real FOLDER`` names a folder with an ``index.json``, a list of photographs with measured depth
(``read_real`` says its fields). Then the mean Spearman rank correlation with true inverse depth, the median angular
error of the normals and the error at edges on held-out seeds of ``scenes.py`` and on the scenes of ``heldout.py``, each
beside what a plain vertical ramp (lower in the picture = closer) gets, and a contact sheet of photographs from
scikit-image's wheel.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import FathomError
from ..models.tiny import ESTIMATORS, TinyDepth
from ..signals import Depth, Normals
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
def estimate(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Closeness (B,H,W) and normals (B,H,W,3) of pictures (B,3,H,W) in 0..1, as the shipped estimator makes them."""
    estimator, size = ESTIMATORS[0], (images.shape[-2], images.shape[-1])
    slots = estimator.infer(net, images, estimator.fit(*size, None), size, {})
    return cast(Depth, slots["depth"]).values, cast(Normals, slots["normals"]).vectors


@dataclass
class RealPhoto:
    """A photograph with measured depth: picture (1,3,H,W) in 0..1, closeness (h,w), and where that was measured."""

    name: str
    image: Tensor
    closeness: Tensor
    known: Tensor


def read_real(folder: Path) -> list[RealPhoto]:
    """The photographs that `folder`/index.json lists.

    An entry has "picture" and "depth", files in the folder (depth: .npy, or an image of one channel); "kind", what the
    depth's numbers are: "distance" or "disparity"; and, where they are needed, "scale" (the numbers are multiplied by
    it), "invalid" (the number, or a list of them, that says that nothing was measured) and "far" (what is at this or
    beyond was not measured). Zeros, infinities and NaN never count. A picture and a depth of different aspects are
    refused. Raises FathomError.
    """
    index = folder / "index.json"
    if not index.is_file():
        raise FathomError(f"{folder} has no index.json: write a list of entries with picture, depth and kind there.")
    return [_read_entry(folder, entry) for entry in json.loads(index.read_text())]


def _read_entry(folder: Path, entry: dict) -> RealPhoto:
    from PIL import Image, ImageOps

    missing = {"picture", "depth", "kind"} - entry.keys()
    if missing:
        raise FathomError(f"an entry of {folder / 'index.json'} lacks {', '.join(sorted(missing))}: {entry}")
    if entry["kind"] not in ("distance", "disparity"):
        raise FathomError(f"kind must be distance or disparity, got {entry['kind']!r} for {entry['depth']}.")
    with Image.open(folder / entry["picture"]) as picture:
        pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    path = folder / entry["depth"]
    if path.suffix == ".npy":
        numbers = np.load(path, allow_pickle=False).astype(np.float64)
    else:
        with Image.open(path) as stored:
            numbers = np.array(stored).astype(np.float64)
    if numbers.ndim != 2:
        raise FathomError(f"{path} must hold one number a pixel, its shape is {numbers.shape}.")
    wide, tall = pixels.shape[1] / numbers.shape[1], pixels.shape[0] / numbers.shape[0]
    if abs(wide / tall - 1) > 0.02:
        raise FathomError(f"{entry['picture']} is {pixels.shape[:2]} and its depth {numbers.shape}: crop one of them.")
    known = np.isfinite(numbers) & (numbers > 0) & ~np.isin(numbers, entry.get("invalid", []))
    numbers = numbers * entry.get("scale", 1.0)
    if "far" in entry:
        known &= numbers < entry["far"]
    numbers = np.where(known, numbers, 1.0)
    return RealPhoto(
        entry["picture"],
        torch.from_numpy(pixels).float().permute(2, 0, 1)[None] / 255,
        torch.from_numpy(1 / numbers if entry["kind"] == "distance" else numbers),
        torch.from_numpy(known),
    )


def evaluate_real(net: nn.Module, photos: list[RealPhoto]) -> list[tuple[float, float]]:
    """Rank correlations (network, ramp) with measured closeness, where it was measured; logged photo by photo."""
    rows = []
    for photo in photos:
        size = (photo.closeness.shape[0], photo.closeness.shape[1])
        closeness = F.interpolate(estimate(net, photo.image)[0][:, None], size, mode="bilinear", antialias=True)[0, 0]
        truth = photo.closeness[photo.known]
        rows.append((spearman(closeness[photo.known], truth), spearman(ramp(*size)[photo.known], truth)))
        upper = nearest_above(photo.closeness, photo.known)
        log.info("  %-32s network %.3f  ramp %.3f  nearest tenth above: %.2f", photo.name, *rows[-1], upper)
    log.info("%d real photographs: network %.4f  ramp %.4f", len(rows), *np.mean(rows, axis=0))
    return rows


def nearest_above(closeness: Tensor, known: Tensor) -> float:
    """The share of the nearest tenth of the `known` places of (H,W) that lies in the upper half of the picture.

    Scenes and real photographs should be alike in it: a ramp says 0.
    """
    values = closeness[known]
    if not len(values):
        return math.nan
    level = values.sort().values[int(0.9 * (len(values) - 1))]
    near = known & (closeness >= level)
    return float(near[: len(near) // 2].sum() / near.sum())


def edge_error(prediction: Tensor, truth: Tensor) -> float:
    """Mean absolute difference of ranks (0..1) within two pixels of where true closeness (H,W) jumps."""
    level = torch.log(truth.clamp_min(1e-4))
    jump = torch.zeros_like(level, dtype=torch.bool)
    jump[:, 1:] |= level.diff(dim=1).abs() > 0.15
    jump[1:] |= level.diff(dim=0).abs() > 0.15
    near = F.max_pool2d(jump[None, None].float(), 5, 1, 2)[0, 0] > 0
    if not bool(near.any()):
        return math.nan
    apart = (ranks(prediction.flatten()) - ranks(truth.flatten())).abs().view_as(truth) / truth.numel()
    return float(apart[near].mean())


def angle(normals: Tensor, truth: Tensor, known: Tensor) -> float:
    """Median angle in degrees between unit normals (H,W,3), where `known` (H,W)."""
    cosine = (normals * truth).sum(-1)[known].clamp(-1, 1)
    return float(torch.rad2deg(torch.acos(cosine)).median()) if len(cosine) else math.nan


def score(net: nn.Module, scenes: Scenes) -> list[tuple[float, float, float, float]]:
    """For each scene: rank correlation with 1/z (sky 0) of the estimator and of a ramp, the median angular error of
    the normals in degrees, the error at edges."""
    closeness, normals = estimate(net, scenes.image)
    rows = []
    for i, inverse in enumerate(1 / scenes.depth):
        base = spearman(ramp(*inverse.shape), inverse)
        turned = angle(normals[i], scenes.normals[i], inverse > 0)
        rows.append((spearman(closeness[i], inverse), base, turned, edge_error(closeness[i], inverse)))
    return rows


def evaluate(net: nn.Module, draw: Callable[[range, int, int], Scenes], count: int, name: str) -> float:
    """Score `count` scenes, a third in each picture shape, and log the means by kind. Returns the mean correlation."""
    kinds: list[str] = []
    rows: list[tuple[float, ...]] = []
    upper: list[float] = []
    for first in range(0, count, 8):
        height, width = SHAPES[first // 8 % len(SHAPES)]
        scenes = draw(range(first, min(first + 8, count)), height, width)
        limits = [attainable(1 / depth) for depth in scenes.depth]
        kinds += scenes.kinds
        rows += [(*row, limit) for row, limit in zip(score(net, scenes), limits, strict=True)]
        upper += [nearest_above(1 / depth, torch.isfinite(depth)) for depth in scenes.depth]
    table = np.array(rows)
    text = "network %.3f  ramp %.3f  normals %.1f degrees  edges %.3f  attainable %.3f"
    for kind in sorted(set(kinds)):
        mine = table[[k == kind for k in kinds]]
        log.info("  %-10s %4d scenes  " + text, kind, len(mine), *np.nanmean(mine, 0))
    log.info("%s, %d scenes: " + text, name, count, *np.nanmean(table, 0))
    log.info(
        "  nearest tenth in the upper half: %.2f; share of scenes that a ramp orders above 0.8: %.2f",
        np.nanmean(upper),
        (table[:, 1] > 0.8).mean(),
    )
    return float(table[:, 0].mean())


def motorcycle() -> RealPhoto:
    """The motorcycle of Middlebury 2014 (Scharstein et al.), as scikit-image ships it, with its measured disparity."""
    import skimage.data

    left, _, disparity = skimage.data.stereo_motorcycle()
    image = torch.from_numpy(np.array(left)).float().permute(2, 0, 1)[None] / 255
    truth = torch.from_numpy(np.array(disparity)).double()
    known = torch.isfinite(truth) & (truth > 0)
    return RealPhoto("motorcycle", image, torch.where(known, truth, 1.0), known)


def predict(net: nn.Module, image: Tensor) -> Tensor:
    """Closeness (H,W) in 0..1 of one picture (1,3,H,W) in 0..1."""
    raw = estimate(net, image)[0][0]
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


def contact_sheet(net: nn.Module, images: list[Tensor], height: int = 240, columns: int = 2) -> np.ndarray:
    """Pictures (1,3,H,W) beside their closeness, white = close, and their normals, x, y, z as red, green, blue, in rows
    of `columns`. uint8 (H,W,3)."""
    from PIL import Image

    cells = []
    for image in images:
        depth = predict(net, image)[..., None].expand(-1, -1, 3)
        normals = estimate(net, image)[1][0] / 2 + 0.5
        pair = torch.cat([image[0].permute(1, 2, 0), depth, normals], 1)
        picture = Image.fromarray((pair * 255).round().byte().numpy())
        cells.append(np.asarray(picture.resize((max(1, picture.width * height // picture.height), height))))
    rows = [np.concatenate(cells[k : k + columns], 1) for k in range(0, len(cells), columns)]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows])


def speed(net: nn.Module, side: int = 512, repeats: int = 20) -> float:
    """Median milliseconds of the whole estimator, both slots, for a picture of side x side on two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    net = net.to(memory_format=torch.channels_last)
    picture = torch.rand(1, 3, side, side)
    times = []
    for _ in range(repeats + 3):
        begun = time.perf_counter()
        estimate(net, picture)
        times.append(time.perf_counter() - begun)
    torch.set_num_threads(threads)
    return float(np.median(times[3:])) * 1000


def main() -> None:
    """The command line."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, default=None, help="a folder of photographs with measured depth")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=240, help="held-out scenes of each generator")
    parser.add_argument("--sheet", type=Path, default=Path("tiny-photos.jpg"), help="where the contact sheet goes")
    parser.add_argument("--photos", type=Path, nargs="*", default=[], help="further photographs for the sheet")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    net = load_tiny(args.weights)
    photos = [motorcycle(), *(read_real(args.real) if args.real else [])]
    evaluate_real(net, photos)
    if args.count:
        evaluate(net, render, args.count, "held-out seeds of scenes.py")
        evaluate(net, render_heldout, args.count, "heldout.py")
    log.info("512x512, both slots, on two threads: %.1f ms", speed(net))
    images = list(photographs().values())
    for path in args.photos:
        with Image.open(path) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).float() / 255
        images.append(pixels.permute(2, 0, 1)[None])
    Image.fromarray(contact_sheet(net, images)).save(args.sheet, quality=82)
    log.info("wrote %s", args.sheet)


if __name__ == "__main__":
    main()
