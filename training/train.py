"""Train Fathom Tiny from nothing on procedural scenes: ``python -m fathom.training.train``.

A few processes each draw scenes, train on them and share their gradients; each scene is used several times,
and the learning rate follows the clock: ``--minutes`` is the whole budget. The mean of the weights over time,
with batch normalisation folded in, is exported with every checkpoint, so a run may be stopped any time.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import os
import tempfile
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..models.tiny import TinyDepth
from .scenes import render

log = logging.getLogger("fathom.training")

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "weights" / "fathom-tiny.safetensors"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = ((192, 256), (256, 192), (224, 224), (192, 256), (160, 288))
SMALL = 0.625
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
    prediction: Tensor, target: Tensor, gradient_weight: float = 0.2, correlation_weight: float = 0.5
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


def augment(images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, zoom and re-tint a batch: (B,3,H,W) in 0..1 and (B,H,W), the same shapes back."""
    if rng.random() < 0.5:
        images, targets = images.flip(3), targets.flip(2)
    height, width = images.shape[-2:]
    if rng.random() < 0.5:
        zoom = rng.uniform(0.55, 1.0)
        h, w = int(height * zoom), int(width * zoom)
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        images = images[:, :, top : top + h, left : left + w]
        targets = targets[:, top : top + h, left : left + w]
        images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
        targets = F.interpolate(targets[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    batch = images.shape[0]

    def vary(low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (batch, channels, 1, 1)).astype(np.float32)).to(images)

    images = images ** vary(0.7, 1.4) * vary(0.85, 1.15, 3)
    images = (images - images.mean((2, 3), keepdim=True)) * vary(0.7, 1.3) + images.mean((2, 3), keepdim=True)
    return images.clamp(0, 1), targets


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


def from_export(net: nn.Module, path: Path, images: Tensor) -> None:
    """Load exported weights into a net of ``with_batch_norm``; its normalisation, folded away by the export,
    is measured anew on `images` (B,3,H,W), normalised, such that the function stays what it was.
    """
    plain = {name: value.float() for name, value in load_file(path).items()}
    state = net.state_dict()
    for name, value in plain.items():
        kind, _, leaf = name.rpartition(".")
        state[name if name in state else f"{kind}.0.{leaf}"].copy_(value)

    def measure(layer: nn.Module, inputs: tuple[Tensor], _: Tensor) -> Tensor:
        (x,) = inputs
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        for name, value in {
            "running_mean": mean,
            "running_var": variance,
            "bias": mean,
            "weight": (variance + cast(nn.BatchNorm2d, layer).eps).sqrt(),
        }.items():
            getattr(layer, name).data.copy_(value)
        return x

    handles = [m.register_forward_hook(measure) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        net.eval()(images)
    for handle in handles:
        handle.remove()


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


def share(net: nn.Module, processes: int, numbers: list[float]) -> list[float]:
    """Replace every gradient by its mean over the processes; `numbers` come back averaged the same way."""
    if processes == 1:
        return numbers
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), gradients[0].new_tensor(numbers)])
    dist.all_reduce(flat)
    flat /= processes
    means = flat.split([g.numel() for g in gradients] + [len(numbers)])
    for gradient, mean in zip(gradients, means[:-1], strict=True):
        gradient.copy_(mean.view_as(gradient))
    return flat[-len(numbers) :].tolist()


def draw(first: int, count: int, shape: int, small: bool, device: str) -> tuple[Tensor, Tensor]:
    """Render `count` scenes from seed `first` on: pictures uint8 (B,3,H,W) and targets float16 (B,H,W)."""
    scale = SMALL if small else 1.0
    height, width = (int(32 * round(side * scale / 32)) for side in SIZES[shape])
    scenes = render(range(first, first + count), height, width, device)
    return (scenes.image * 255).round().to(torch.uint8), target(scenes.depth).half()


def run(rank: int, args: argparse.Namespace, meeting: str) -> None:
    """One training process: draw, train, share gradients. Process 0 also writes the mean weights."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if args.processes > 1:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.processes)
    if args.device == "cpu":
        # One thread each: on a busy machine threads that wait for one another cost more than they bring.
        torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    net = with_batch_norm(TinyDepth()).to(args.device, memory_format=torch.channels_last)
    mean = copy.deepcopy(net)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}],
        lr=args.rate,
        fused=True,
    )
    step = 0
    if args.resume and args.resume.suffix == ".safetensors":
        images, _ = draw(TRAINING_SEEDS, 32, 0, True, args.device)
        from_export(net, args.resume, normalise(images.float() / 255))
        mean.load_state_dict(net.state_dict())
    elif args.resume:
        saved = torch.load(args.resume, map_location=args.device, weights_only=True)
        net.load_state_dict(saved["net"])
        mean.load_state_dict(saved["mean"])
        optimiser.load_state_dict(saved["optimiser"])
        step = saved["step"]

    def write() -> None:
        state = {"net": net, "mean": mean, "optimiser": optimiser}
        torch.save({name: part.state_dict() for name, part in state.items()} | {"step": step}, args.checkpoint)
        export(mean, args.output)

    rng = np.random.default_rng((args.seed, rank))
    pool: dict[tuple[int, bool], list[tuple[Tensor, Tensor]]] = {}
    seed = TRAINING_SEEDS * (1 + args.processes * args.seed + rank)
    begun = saved_at = time.monotonic()
    first_step, running, progress = step, 0.0, 0.0
    while progress < 1:
        # Small pictures first: most of what there is to learn is in their layout, and they cost a third.
        shape = (step % len(SIZES), progress < 0.65 or bool(step // 2 % 2))
        past = pool.setdefault(shape, [])
        if not past or step % args.every == 0:
            past.append(draw(seed, args.fresh, *shape, args.device))
            seed += args.fresh
            del past[:-100]
        # Drawing a scene costs more than training on it: earlier ones come back mirrored, zoomed, re-tinted.
        chosen = [past[-1], *(past[int(rng.integers(len(past)))] for _ in range(args.groups - 1))]
        parts = [augment(x.float() / 255, y.float(), rng) for x, y in chosen]
        images, targets = torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

        net.train()
        prediction = net(normalise(images).contiguous(memory_format=torch.channels_last))
        loss = depth_loss(prediction, targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        # The processes must agree on the time, or their rates and their weights would drift apart.
        elapsed = (time.monotonic() - begun) / 60
        progress, shared_loss = share(net, args.processes, [elapsed / args.minutes, loss.item()])
        warm = min(1.0, (step - first_step + 1) / 100)
        rate = args.rate * warm * (0.505 + 0.495 * math.cos(math.pi * min(1.0, progress)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        running = shared_loss if step == first_step + 1 else 0.98 * running + 0.02 * shared_loss
        if rank > 0:
            continue
        keep = min(0.995, (1 + step) / (10 + step))
        with torch.no_grad():
            for ours, theirs in zip(mean.state_dict().values(), net.state_dict().values(), strict=True):
                if ours.is_floating_point():
                    ours.lerp_(theirs, 1 - keep)
                else:
                    ours.copy_(theirs)
        if step % 50 == 0:
            log.info("step %d  %.1f min  rate %.2g  loss %.4f", step, elapsed, rate, running)
        if time.monotonic() - saved_at > 180:
            saved_at = time.monotonic()
            write()
    if rank == 0:
        write()
        log.info("wrote %s after %d steps", args.output, step)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=70.0, help="wall-clock budget, ends the schedule")
    parser.add_argument("--processes", type=int, default=0, help="how many work side by side; 0 = choose")
    parser.add_argument("--fresh", type=int, default=4, help="scenes drawn together")
    parser.add_argument("--every", type=int, default=4, help="steps between drawings")
    parser.add_argument("--groups", type=int, default=3, help="such drawings, new and old, in a step's batch")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="which training scenes to draw")
    parser.add_argument("--resume", type=Path, default=None, help="a checkpoint, or exported weights, to continue from")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "output" / "tiny.pt", help="written now and then")
    parser.add_argument("--output", type=Path, default=WEIGHTS, help="the exported weights")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.processes == 0:
        args.processes = 1 if args.device != "cpu" else 2 * max(2, (os.cpu_count() or 2) // 2)
    args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    if args.processes == 1:
        run(0, args, "")
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run, (args, Path(folder, "meeting").as_uri()), args.processes)


if __name__ == "__main__":
    main()
