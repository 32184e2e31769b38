"""Fathom beside other packs inside ComfyUI, in one run, on the same checkpoints and at the same network size.

    python benchmarks/peers.py --comfyui PATH [--controlnet-aux PATH] [--kijai PATH] [--repeats 5] [--batch 8]

PATH: checkouts of ComfyUI, comfyui_controlnet_aux and ComfyUI-DepthAnythingV2. The Python must have what these need.
Each node is called as ComfyUI calls it. The pack comfyui_controlnet_aux loads its network in every call, because that
is what its users get; "without loading" takes the time that loading takes, measured apart, off again.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def module(name: str, path: Path) -> ModuleType:
    """A custom node pack, imported as ComfyUI imports it."""
    spec = importlib.util.spec_from_file_location(name, path / "__init__.py", submodule_search_locations=[str(path)])
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def measure(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--controlnet-aux", type=Path)
    parser.add_argument("--kijai", type=Path)
    parser.add_argument("--only", default="", help="the peers with this in their name")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    sys.argv = sys.argv[:1]
    folder = tempfile.TemporaryDirectory()
    models = Path(folder.name)
    os.environ |= {"AUX_ANNOTATOR_CKPTS_PATH": str(models / "aux"), "HF_HUB_OFFLINE": "1", "FATHOM_PRECISION": "fp32"}
    os.environ["HF_HUB_CACHE"] = str(models / "hub")
    sys.path.insert(0, str(args.comfyui))
    from comfy.cli_args import args as comfy_args  # pyright: ignore[reportMissingImports]

    comfy_args.cpu = not torch.cuda.is_available()
    import folder_paths  # pyright: ignore[reportMissingImports]

    folder_paths.models_dir = str(models)
    fathom = module("fathom", ROOT)
    from networks import checkpoint, repository
    from safetensors.torch import save_file

    from fathom.annotator import loading

    places = {
        "depth-anything-v2-small": "depth-anything/Depth-Anything-V2-Small",
        "normal-bae": "lllyasviel/Annotators",
    }
    files: dict[str, Path] = {}
    for id, place in places.items():
        (models / "aux" / place).mkdir(parents=True, exist_ok=True)
        files[id] = path = checkpoint(id, models / "aux" / place)
        if id.startswith("depth-anything"):
            (models / "depthanything").mkdir()
            name = "depth_anything_v2_vits_fp32.safetensors"
            save_file(torch.load(path, weights_only=True), models / "depthanything" / name)

    # Found by itself such a file would be refused: it is not the published one.
    strict = loading.locate
    loading.locate = lambda estimator, path=None: strict(estimator, path or files[estimator.id])
    ours = fathom.NODE_CLASS_MAPPINGS
    cases: list[tuple[str, str, int, Callable[..., Any], Callable[..., Any], Callable[[], Any] | None]] = []
    if args.controlnet_aux:
        aux = module("aux_pack", args.controlnet_aux).NODE_CLASS_MAPPINGS
        from custom_controlnet_aux.depth_anything_v2 import DepthAnythingV2Detector  # pyright: ignore
        from custom_controlnet_aux.midas import MidasDetector  # pyright: ignore
        from custom_controlnet_aux.normalbae import NormalBaeDetector  # pyright: ignore
        from custom_controlnet_aux.zoe import ZoeDetector  # pyright: ignore

        files["midas-dpt-hybrid"] = repository("midas/Intel--dpt-hybrid-midas", models / "hub")
        files["zoedepth-nk"] = repository("zoe/Intel--zoedepth-nyu-kitti", models / "hub")
        midas, zoe = "MiDaS-DepthMapPreprocessor", "Zoe-DepthMapPreprocessor"
        da, bae = "DepthAnythingV2Preprocessor", "BAE-NormalMapPreprocessor"
        vits = "depth_anything_v2_vits.pth"
        cases += [
            (
                "controlnet_aux Depth Anything V2 S", "FathomDepthAnythingV2", 512,
                lambda x: aux[da]().execute(x, vits, 512),
                lambda x: ours["FathomDepthAnythingV2"]().execute(x, "depth-anything-v2-small", 512),
                lambda: DepthAnythingV2Detector.from_pretrained(filename=vits),
            ),
            (
                "controlnet_aux NormalBae", "FathomNormalBae", 512,
                lambda x: aux[bae]().execute(x, 512),
                lambda x: ours["FathomNormalBae"]().execute(x, "normal-bae", 512),
                NormalBaeDetector.from_pretrained,
            ),
            (
                # That pack's network sees every picture at 384x384.
                "controlnet_aux MiDaS hybrid", "FathomMiDaSDepth", 384,
                lambda x: aux[midas]().execute(x, resolution=384),
                lambda x: ours["FathomMiDaSDepth"]().execute(x, resolution=384),
                MidasDetector.from_pretrained,
            ),
            (
                "controlnet_aux ZoeDepth NK", "FathomZoeDepth", 512,
                lambda x: aux[zoe]().execute(x, 512),
                lambda x: ours["FathomZoeDepth"]().execute(x, "zoedepth-nk", 512),
                ZoeDetector.from_pretrained,
            ),
            (
                # As that pack runs it: without the mirrored look.
                "controlnet_aux ZoeDepth NK, one look", "FathomZoeDepth", 512,
                lambda x: aux[zoe]().execute(x, 512),
                lambda x: ours["FathomZoeDepth"]().execute(x, "zoedepth-nk", 512, flip_augmentation=False),
                ZoeDetector.from_pretrained,
            ),
        ]  # fmt: skip
    if args.kijai:
        pack = module("kijai_pack", args.kijai).NODE_CLASS_MAPPINGS
        load = pack["DownloadAndLoadDepthAnythingV2Model"]()
        (loaded,) = load.loadmodel("depth_anything_v2_vits_fp32.safetensors", "fp32")
        cases.append(
            (
                "kijai Depth Anything V2 S", "FathomDepthAnythingV2", 520,
                lambda x: pack["DepthAnything_V2"]().process(loaded, x),
                lambda x: ours["FathomDepthAnythingV2"]().execute(x, "depth-anything-v2-small", 520),
                None,
            )
        )  # fmt: skip
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, median of {args.repeats}")
    print(f"{'peer':36} {'pictures':>8} {'peer s':>8} {'Fathom s':>9} {'peer / Fathom':>14} {'without loading':>16}")
    for name, _, side, peer, mine, load in cases:
        if args.only not in name:
            continue
        for count in (1, args.batch):
            image = torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(0))
            runs = {"peer": lambda p=peer, x=image: p(x), "mine": lambda m=mine, x=image: m(x)}
            if load is not None:
                runs["loading"] = load
            with torch.inference_mode():
                took = measure(runs, args.repeats)
            bare = (took["peer"] - took.get("loading", 0.0)) / took["mine"]
            ratio = took["peer"] / took["mine"]
            print(f"{name:36} {count:8} {took['peer']:8.2f} {took['mine']:9.2f} {ratio:14.2f} {bare:16.2f}", flush=True)


if __name__ == "__main__":
    main()
