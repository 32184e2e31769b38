"""Lines and poses beside the library controlnet-aux: its own loop over a batch, and its loading in every run.

    python benchmarks/lines.py [ID ...] [--batch 8] [--repeats 3] [--size 512]

Networks of full size, filled from a seed. "loop": the library's detector, loaded once, over the pictures one after the
other. "reload": its detector loaded from the disk and run, as comfyui_controlnet_aux does in every execution; Fathom
runs a second time. Both sides take turns in one process. Poses: one person, whose points are painted into what the
body's network gives, so that both hands and the face are looked for too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fathom
from fathom.annotator.loading import parameters_on_meta
from fathom.annotator.weights import Checkpoint
from fathom.models.controlnet_aux import library

# The library's module and class, and the name under which it looks for its file.
DETECTORS = {
    "hed": ("hed", "HEDdetector", "ControlNetHED.pth"),
    "pidinet": ("pidi", "PidiNetDetector", "table5_pidinet.pth"),
    "lineart": ("lineart", "LineartDetector", "sk_model.pth"),
    "lineart-coarse": ("lineart", "LineartDetector", "sk_model2.pth"),
    "lineart-anime": ("lineart_anime", "LineartAnimeDetector", "netG.pth"),
    "mlsd": ("mlsd", "MLSDdetector", "mlsd_large_512_fp32.pth"),
    "teed": ("teed", "TEEDdetector", "5_model.pth"),
    "anyline": ("anyline", "AnylineDetector", "MTEED.pth"),
    "openpose": ("open_pose", "OpenposeDetector", "body_pose_model.pth"),
}
POSE_FILES = {"body": "body_pose_model.pth", "hand": "hand_pose_model.pth", "face": "facenet.pth"}


def write(id: str, folder: Path) -> Path:
    """The published files of `id` in `folder`, filled from a seed; the one that Fathom is given."""
    with parameters_on_meta():
        wanted = fathom.estimators()[id].build(Checkpoint(folder, {})).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in wanted.items():
        value = torch.randn(tensor.shape, generator=generator) * 0.02 if tensor.is_floating_point() else tensor
        if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            value = value.abs() + 1
        state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype) if value.is_meta else value
    path = folder / DETECTORS[id][2]
    if id == "openpose":
        for part, file in POSE_FILES.items():
            # The published files do not know the stages that the library keeps the layers of bodies and hands in.
            depth = 1 if part == "face" else 2
            torch.save({k.split(".", depth)[depth]: v for k, v in state.items() if k.startswith(part)}, folder / file)
    elif id == "pidinet":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    else:
        torch.save(state, path)
        if id in ("lineart", "lineart-coarse"):
            # The library reads both of its networks, whichever is asked for.
            for file in ("sk_model.pth", "sk_model2.pth"):
                torch.save(state, folder / file)
    return path


def paint_a_person() -> None:
    """Let the network of bodies, whoever runs it, see one person beside what it computes."""
    network = library("open_pose.model", "openpose").bodypose_model
    forward = network.forward

    def painted(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fields, heat = (torch.zeros_like(part) for part in forward(self, x))
        height, width = heat.shape[-2:]
        for index in range(18):
            row, column = height * (1 + index // 6) // 5, width * (1 + index % 6) // 8
            heat[:, index, row, column] = 1.0
        return fields + 0.7, heat

    network.forward = painted


def measure(runs: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of each, by the clock and of processor time, taken in turns after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    worked: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start, before = time.perf_counter(), time.process_time()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
                worked[name].append(time.process_time() - before)
    median = statistics.median
    return {n: median(taken) for n, taken in times.items()}, {n: median(taken) for n, taken in worked.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=list(DETECTORS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()
    cuda, size = torch.cuda.is_available(), args.size
    pictures = np.random.default_rng(0).integers(0, 256, (args.batch, size // 8, size // 8, 3), np.uint8)
    pictures = pictures.repeat(8, 1).repeat(8, 2)
    images = torch.from_numpy(pictures)
    paint_a_person()
    device = "cuda" if cuda else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {device}, {size} px, median of {args.repeats}, seconds")
    print(
        f"{'estimator':16} {'loop of ' + str(args.batch):>10} {'Fathom':>8} {'8-bit':>8} {'loop / Fathom':>14}", end=""
    )
    print(
        f" {'/ 8-bit':>8} {'of CPU':>8} {'/ 8-bit':>8} {'reload':>8} {'second':>8} {'reload / second':>16}", flush=True
    )
    for id in args.ids:
        module, name, file = DETECTORS[id]
        kind = getattr(library(module, id), name)
        with tempfile.TemporaryDirectory() as folder:
            path = write(id, Path(folder))
            ours = fathom.load(id, path)

            def made(folder: str = folder, kind: Any = kind, file: str = file, id: str = id) -> Any:
                named = {} if id.startswith(("lineart", "openpose")) else {"filename": file}
                made = kind.from_pretrained(folder, **named)
                return made.to("cuda") if cuda else made

            def run(detector: Any, picture: Any, id: str = id) -> Any:
                shown = {} if id in ("teed", "anyline") else {"image_resolution": size}
                if id == "openpose":
                    # Found, not drawn: its drawing of hands needs matplotlib, and Fathom's networks do not draw either.
                    return detector.detect_poses(picture, include_hand=True, include_face=True)
                if id == "lineart-coarse":
                    shown |= {"coarse": True}
                return detector(picture, detect_resolution=size, output_type="np", **shown)

            theirs = made()
            drawn = {"drawing": "8-bit"} if any(o.name == "drawing" for o in ours.estimator.options) else {}
            runs = {
                "loop": lambda r=run, t=theirs: [r(t, picture) for picture in pictures],
                "float": lambda o=ours: o.annotate(images, size),
                "8-bit": lambda o=ours, d=drawn: o.annotate(images, size, d),
                "reload": lambda r=run, m=made: r(m(), pictures[0]),
                "second": lambda o=ours: o.annotate(images[:1], size),
            }
            with contextlib.redirect_stdout(io.StringIO()):
                took, cpu = measure(runs, args.repeats)
        print(f"{id:16} {took['loop']:10.3f} {took['float']:8.3f} {took['8-bit']:8.3f}", end="")
        print(f" {took['loop'] / took['float']:14.2f} {took['loop'] / took['8-bit']:8.2f}", end="")
        print(f" {cpu['loop'] / cpu['float']:8.2f} {cpu['loop'] / cpu['8-bit']:8.2f}", end="")
        print(f" {took['reload']:8.3f} {took['second']:8.3f} {took['reload'] / took['second']:16.2f}", flush=True)


if __name__ == "__main__":
    main()
