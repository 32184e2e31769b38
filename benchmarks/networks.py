"""Loaded estimators for the benchmarks, also on machines that hold no weights."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch

import fathom
from fathom.annotator import weights
from fathom.annotator.runtime import Annotator

DATA = Path(__file__).parents[1] / "tests" / "data"
LAYOUTS = {
    "depth-anything-v2-small": "depth_anything/depth_anything_v2_vits.pth",
    "depth-anything-v2-base": "depth_anything/depth_anything_v2_vitb.pth",
    "depth-anything-v2-metric-indoor-small": "depth_anything/depth_anything_v2_metric_hypersim_vits.pth",
    "midas-dpt-hybrid": "midas/dpt_hybrid-midas-501f0c75.pt",
    "midas-dpt-large": "midas/dpt_large-midas-2f21e586.pt",
    "zoedepth-n": "zoe/ZoeD_M12_N.pt",
    "normal-bae": "normal_bae/scannet.pt",
}


def checkpoint(id: str, folder: Path) -> Path:
    """A checkpoint of `id` in `folder`, filled from a seed, in the published layout where the tests hold it.

    Speed does not depend on the values; error measures on them stand in for those on the published weights.
    """
    if id in LAYOUTS:
        state, manifest = _filled(LAYOUTS[id])
        path = folder / Path(LAYOUTS[id]).name
        torch.save({manifest["wrapper"]: state} if manifest.get("wrapper") else state, path)
        return path
    from safetensors.torch import save_file

    network = fathom.estimators()[id].build(weights.Checkpoint(folder, {}))
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in network.state_dict().items():
        value = torch.randn(tensor.shape, generator=generator) * 0.02 if tensor.is_floating_point() else tensor
        if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            value = value.abs() + 1
        state[name] = value.contiguous()
    path = folder / f"{id}.safetensors"
    save_file(state, path)
    return path


def _filled(layout: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a published file, filled from a seed, and what the tests know of that file."""
    spec = importlib.util.spec_from_file_location("fill", DATA / "fill.py")
    assert spec and spec.loader
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    with gzip.open(DATA / f"{layout}.json.gz") as stream:
        manifest = json.load(stream)
    return {name: torch.from_numpy(value) for name, value in fill.state_dict(manifest, 0).items()}, manifest


# How the published repositories of transformers models prepare a picture.
_HALF = {"do_resize": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
_PREPARE = {
    "midas/Intel--dpt-hybrid-midas": _HALF
    | {"size": {"height": 384, "width": 384}, "image_processor_type": "DPTImageProcessor"},
    "zoe/Intel--zoedepth-nyu-kitti": _HALF
    | {
        "size": {"height": 384, "width": 512},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 32,
        "do_pad": True,
        "image_processor_type": "ZoeDepthImageProcessor",
    },
}


def repository(layout: str, hub: Path) -> Path:
    """A transformers repository in a Hugging Face cache at `hub`, its weights filled from a seed; its weights file."""
    from safetensors.torch import save_file

    state, manifest = _filled(f"{layout}__model.safetensors")
    folder = hub / f"models--{layout.split('/')[1]}"
    snapshot = folder / "snapshots" / "seed0"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("seed0")
    (snapshot / "config.json").write_text(json.dumps(manifest["config"]))
    (snapshot / "preprocessor_config.json").write_text(json.dumps(_PREPARE[layout]))
    path = snapshot / "model.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path, {"format": "pt"})
    return path


def load(id: str, folder: Path, dtype: torch.dtype | None = None) -> Annotator:
    """The loaded estimator, on its real weights where they are on disk, else on `checkpoint`'s."""
    estimator = fathom.estimators()[id]
    if estimator.embedded or weights.find(estimator.sources):
        return fathom.load(id, dtype=dtype)
    path = folder / Path(LAYOUTS.get(id, f"{id}.safetensors")).name
    return fathom.load(id, path if path.exists() else checkpoint(id, folder), dtype=dtype)
