"""Train Fathom Tiny from nothing on procedural scenes: ``python -m fathom.training.train``.

Processes lay out scenes; the trainer renders them where it trains, each once, takes several photographs of each, and
the learning rate follows the clock: ``--minutes`` is the whole budget. The mean of the weights over time, with batch
normalisation folded in, is exported with every checkpoint, so a run may be stopped any time and continued with
``--resume``, which spends what is left of the budget.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import os
import queue
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..models.tiny import TinyDepth
from .patterns import pattern_bank
from .photo import PHOTO_NAMES, develop
from .scenes import Packed, draw_packed, trace

log = logging.getLogger("fathom.training")

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "weights" / "fathom-tiny.safetensors"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((288, 384), (384, 288), (320, 320))
SMALL_SIZES = ((192, 256), (256, 192))
TRAINING_SEEDS = 1_000_000
"""Training draws seeds from here upwards; everything below is held out for evaluation."""


def closeness(depth: Tensor) -> Tensor:
    """Training target from metres (B,H,W): median / (median + z), in 0..1, larger = closer, sky 0.

    It keeps the order of inverse depth, needs no far limit, and spends its range evenly on both sides of the
    median.
    """
    flat = depth.flatten(1)
    median = torch.where(torch.isfinite(flat), flat, torch.nan).nanmedian(1).values.nan_to_num(1.0)
    return median[:, None, None] / (median[:, None, None] + depth)


def target(depth: Tensor) -> Tensor:
    """What the network learns, from metres (B,H,W): the mean of ``closeness`` and of its rank in 0..1.

    Only order is promised, and on open land most of the picture lies far away, where closeness alone hardly
    changes; the rank gives those distances their share. Depths within about one percent of each other and the
    sky are ties, so that a wall seen head on does not teach rounding errors.
    """
    near = closeness(depth)
    count = 1024
    level = torch.log(near / (1 - near)).clamp(-5, 5)  # log(median / z), the sky at -5
    bins = ((level + 5) / 10 * (count - 1)).long().flatten(1)
    share = torch.zeros(len(near), count, device=near.device)
    share.scatter_add_(1, bins, torch.full(bins.shape, 1 / bins.shape[1], device=near.device))
    rank = (share.cumsum(1) - share / 2).gather(1, bins).view_as(near)
    return (near + rank) / 2


def _centred(maps: Tensor) -> Tensor:
    return maps - maps.mean((1, 2), keepdim=True)


def _standardise(maps: Tensor) -> Tensor:
    """(B,H,W) shifted to mean 0 and scaled to mean absolute deviation 1, each map by itself."""
    centred = _centred(maps)
    return centred / centred.abs().mean((1, 2), keepdim=True).clamp_min(1e-3)


def depth_loss(
    prediction: Tensor, target: Tensor, gradient_weight: float = 0.4, correlation_weight: float = 0.5
) -> Tensor:
    """Scale-and-shift-invariant error of (B,H,W) maps and its gradients, after MiDaS, arXiv 1907.01341, and one
    minus Pearson's correlation.

    Where a picture allows several readings, the absolute error asks for the likeliest and the correlation for
    the mean of them, which is the better guess by rank.
    """
    residual = _standardise(prediction) - _standardise(target)
    correlation = F.cosine_similarity(_centred(prediction).flatten(1), _centred(target).flatten(1), eps=1e-3)
    loss = residual.abs().mean() + correlation_weight * (1 - correlation).mean()
    for level in range(4):
        step = F.avg_pool2d(residual[:, None], 2**level)[:, 0] if level else residual
        across, down = step.diff(dim=2).abs().mean(), step.diff(dim=1).abs().mean()
        loss = loss + gradient_weight * (across + down)
    return loss


def normal_loss(prediction: Tensor, truth: Tensor) -> Tensor:
    """One minus the cosine between (B,3,H,W) and (B,3,H,W), unit, or 0 where nothing is to be learnt.

    The root of it is added, which goes on asking where the angle is small already.
    """
    apart = 1 - F.cosine_similarity(prediction, truth, dim=1, eps=1e-3)
    known = truth.square().sum(1) > 0.5
    return ((apart + 0.3 * (apart + 1e-3).sqrt()) * known).sum() / known.sum().clamp_min(1)


class Pool:
    """The last scenes drawn in one size, at most `room` of them, in the precision that learning needs.

    radiance (N,3,H,W), metres (N,H,W), targets (N,H,W), normals (N,3,H,W), 0 in the sky, and the cameras' numbers.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.count = 0
        self._next = 0
        self._maps: list[Tensor] = []
        self._how: dict[str, Tensor] = {}

    def draw(self, packed: list[Packed], height: int, width: int, device: torch.device, bank: Tensor) -> None:
        """Render packed scenes; they take the place of the oldest."""
        scenes, how = trace(packed, height, width, device, bank)
        normals = scenes.normals.permute(0, 3, 1, 2) * torch.isfinite(scenes.depth)[:, None]
        new = [scenes.image.clamp(0, 1000).half(), scenes.depth, target(scenes.depth).half(), normals.half()]
        how = {name: how[name] for name in PHOTO_NAMES}
        if not self._maps:
            self._maps = [x.new_empty(self.room, *x.shape[1:]) for x in new]
            self._how = {name: x.new_empty(self.room, *x.shape[1:]) for name, x in how.items()}
        rows = (self._next + torch.arange(len(packed), device=device)) % self.room
        for kept, x in zip(self._maps, new, strict=True):
            kept[rows] = x
        for name, x in how.items():
            self._how[name][rows] = x
        self._next = (self._next + len(packed)) % self.room
        self.count = min(self.room, self.count + len(packed))

    def sample(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures (B,3,H,W) in 0..1 of `count` scenes by chance, their targets (B,H,W) and normals (B,3,H,W).

        Each is taken as some other scene's was, but for the focus.
        """
        device = self._maps[0].device
        rows, others = torch.randint(self.count, (2, count), device=device)
        radiance, depth, targets, normals = (x[rows] for x in self._maps)
        how = {name: x[rows if name in ("focus", "bokeh") else others] for name, x in self._how.items()}
        return develop(radiance.float(), depth, how), targets.float(), normals.float()


def augment(
    images: Tensor, targets: Tensor, normals: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mirror, zoom and re-tint a batch: (B,3,H,W) in 0..1, (B,H,W) and (B,3,H,W), the same shapes back."""
    if rng.random() < 0.5:
        images, targets = images.flip(3), targets.flip(2)
        normals = normals.flip(3) * normals.new_tensor([-1.0, 1, 1])[:, None, None]
    height, width = images.shape[-2:]
    if rng.random() < 0.4:
        zoom = rng.uniform(0.55, 1.0)
        h, w = int(height * zoom), int(width * zoom)
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        images, targets, normals = (x[..., top : top + h, left : left + w] for x in (images, targets, normals))
        images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
        # A mean across an edge would be a depth where nothing is.
        targets = F.interpolate(targets[:, None], (height, width), mode="nearest-exact")[:, 0]
        normals = F.interpolate(normals, (height, width), mode="nearest-exact")
    batch = images.shape[0]

    def vary(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (batch, channels, 1, 1)).astype(np.float32)).to(images)

    images = images ** vary(0.8, 1.25) * vary(0.9, 1.1, 3)
    return images.clamp(0, 1), targets, normals


def normalise(images: Tensor) -> Tensor:
    """(B,3,H,W) in 0..1 -> the network's input, by the ImageNet mean and standard deviation."""
    return (images - images.new_tensor(MEAN)[:, None, None]) / images.new_tensor(STD)[:, None, None]


def with_batch_norm(net: TinyDepth) -> TinyDepth:
    """The network with batch normalisation after every convolution but the last, for training."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and name != "head":
                setattr(parent, name, nn.Sequential(child, nn.BatchNorm2d(child.out_channels, momentum=0.03)))
    return net


def folded(net: nn.Module) -> nn.Module:
    """A copy without batch normalisation that computes the same in eval mode: a plain TinyDepth again."""
    net = copy.deepcopy(net).eval()
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Sequential) and len(child) == 2 and isinstance(child[1], nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(child[0], child[1]))
    return net


def export(net: nn.Module, path: Path) -> None:
    """Write the folded weights as float16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.half().contiguous() for name, value in folded(net).state_dict().items()}
    save_file(state, path, metadata={"format": "pt", "model": "fathom-tiny", "licence": "Apache-2.0"})


def lay_out(rank: int, processes: int, first: int, patterns: int, scenes: Any) -> None:
    """Put packed scenes into the queue `scenes`, sixteen at a time, for ever, of every `processes`-th seed."""
    torch.set_num_threads(1)
    seed = first + rank
    while True:
        drawn = []
        for _ in range(16):
            drawn.append(draw_packed(seed, patterns=patterns))
            seed += processes
        scenes.put(drawn)


class Scenery:
    """A stream of packed scenes that processes of their own lay out."""

    def __init__(self, processes: int, first: int, patterns: int) -> None:
        context = torch.multiprocessing.get_context("spawn")
        self._queue = context.Queue(maxsize=4 * processes)
        self._rest: list[Packed] = []
        self._processes = [
            context.Process(target=lay_out, args=(rank, processes, first, patterns, self._queue), daemon=True)
            for rank in range(processes)
        ]
        for process in self._processes:
            process.start()

    def take(self, count: int) -> list[Packed]:
        """The next `count` scenes. Raises RuntimeError when a process has died."""
        while len(self._rest) < count:
            try:
                self._rest += self._queue.get(timeout=60)
            except queue.Empty:
                if not all(process.is_alive() for process in self._processes):
                    raise RuntimeError("a process that lays out scenes has died; its message is above") from None
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.terminate()


def batches(
    args: argparse.Namespace, scenery: Scenery, bank: Tensor
) -> Generator[tuple[Tensor, Tensor, Tensor], float, None]:
    """Pictures, targets and normals of one size for a step each, for ever. Send the progress 0..1 to get the next.

    Drawing a scene costs more than training on it: earlier ones come back, photographed anew, mirrored and zoomed.
    """
    device = torch.device(args.device)
    rng = np.random.default_rng(args.seed)
    pools: dict[tuple[int, int], Pool] = {}
    step, progress = 0, 0.0
    while True:
        # Small pictures first: most of what there is to learn is in their layout, and they cost half.
        sizes = SMALL_SIZES if progress < args.small else SIZES
        size = sizes[step % len(sizes)]
        pools = {known: pool for known, pool in pools.items() if known in sizes}
        pool = pools.setdefault(size, Pool(args.keep))
        if pool.count < 2 * args.fresh or step // len(sizes) % args.every == 0:
            pool.draw(scenery.take(args.fresh), *size, device, bank)
        progress = yield augment(*pool.sample(args.batch), rng)
        step += 1


def run(args: argparse.Namespace) -> None:
    """Draw, train, and now and then write a checkpoint and the mean weights."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(args.seed)
    net = with_batch_norm(TinyDepth()).to(args.device, memory_format=torch.channels_last)
    mean = copy.deepcopy(net).requires_grad_(False)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.03}, {"params": rest, "weight_decay": 0.0}],
        lr=args.rate,
        fused=True,
    )
    step, spent = 0, 0.0
    if args.resume:
        saved = torch.load(args.resume, map_location=args.device, weights_only=True)
        net.load_state_dict(saved["net"])
        mean.load_state_dict(saved["mean"])
        optimiser.load_state_dict(saved["optimiser"])
        step, spent = saved["step"], saved["minutes"]

    def elapsed() -> float:
        return spent + (time.monotonic() - begun) / 60

    def write() -> None:
        state = {"net": net, "mean": mean, "optimiser": optimiser}
        about = {"step": step, "minutes": elapsed()}
        torch.save({name: part.state_dict() for name, part in state.items()} | about, args.checkpoint)
        export(mean, args.output)

    bank = pattern_bank(args.seed + 1, args.patterns, torch.device(args.device))
    # A resumed run goes on with scenes that it has not seen.
    first = TRAINING_SEEDS * (1 + args.seed) + 1000 * step
    scenery = Scenery(args.processes, first, args.patterns)
    stream = batches(args, scenery, bank)
    begun = saved_at = time.monotonic()
    first_step, running, progress = step, torch.zeros(2, device=args.device), spent / args.minutes
    averaged = [
        (ours, theirs)
        for ours, theirs in zip(mean.state_dict().values(), net.state_dict().values(), strict=True)
        if ours.is_floating_point()
    ]
    images, targets, normals = next(stream)
    while progress < 1:
        net.train()
        with torch.autocast(torch.device(args.device).type, torch.bfloat16, enabled=args.device != "cpu"):
            raw = net(normalise(images).contiguous(memory_format=torch.channels_last)).float()
        losses = torch.stack([depth_loss(raw[:, 0], targets), normal_loss(raw[:, 1:], normals)])
        optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()
        warm = min(1.0, (step - first_step + 1) / 150)
        for group in optimiser.param_groups:
            group["lr"] = args.rate * warm * (0.505 + 0.495 * math.cos(math.pi * min(1.0, progress)))
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        running = losses.detach() if step == first_step + 1 else running.lerp(losses.detach(), 0.02)
        if step % 4 == 0:
            keep = min(0.998, (1 + step) / (10 + step)) ** 4
            with torch.no_grad():
                for ours, theirs in averaged:
                    ours.lerp_(theirs, 1 - keep)
        progress = elapsed() / args.minutes
        if step % 50 == 0:
            log.info("step %d  %.1f of %g min  loss %.4f depth, %.4f normals", step, elapsed(), args.minutes, *running)
        if time.monotonic() - saved_at > 60 * args.save_every:
            saved_at = time.monotonic()
            write()
        images, targets, normals = stream.send(progress)
    write()
    scenery.close()
    log.info("wrote %s after %d steps", args.output, step)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    gpu = torch.cuda.is_available()
    parser.add_argument("--minutes", type=float, default=9.0 if gpu else 600.0, help="wall clock, ends the schedule")
    parser.add_argument("--processes", type=int, default=0, help="how many lay out scenes; 0 = all cores but two")
    parser.add_argument("--fresh", type=int, default=48 if gpu else 4, help="scenes drawn together")
    parser.add_argument("--every", type=int, default=3, help="steps of each size between drawings")
    parser.add_argument("--batch", type=int, default=64 if gpu else 8, help="scenes, new and old, of a step")
    parser.add_argument("--keep", type=int, default=1920 if gpu else 400, help="scenes of each size that may come back")
    parser.add_argument("--patterns", type=int, default=1536 if gpu else 256, help="how many patterns surfaces have")
    parser.add_argument("--small", type=float, default=0.35, help="share of the time that begins with small pictures")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="which training scenes to draw")
    parser.add_argument("--resume", type=Path, default=None, help="a checkpoint to continue from")
    parser.add_argument("--save-every", type=float, default=2.0, help="minutes between checkpoints")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "output" / "tiny.pt", help="written now and then")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="the exported weights")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    args = parser.parse_args()
    args.processes = args.processes or max(1, (os.cpu_count() or 2) - 2)
    args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    run(args)


if __name__ == "__main__":
    main()
