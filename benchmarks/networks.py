"""Loaded estimators for the benchmarks, also on machines that hold no weights."""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path

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
        spec = importlib.util.spec_from_file_location("fill", DATA / "fill.py")
        assert spec and spec.loader
        fill = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(fill)
        with gzip.open(DATA / f"{LAYOUTS[id]}.json.gz") as stream:
            manifest = json.load(stream)
        state = {name: torch.from_numpy(value) for name, value in fill.state_dict(manifest, 0).items()}
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


def load(id: str, folder: Path, dtype: torch.dtype | None = None) -> Annotator:
    """The loaded estimator, on its real weights where they are on disk, else on `checkpoint`'s."""
    estimator = fathom.estimators()[id]
    if estimator.embedded or weights.find(estimator.sources):
        return fathom.load(id, dtype=dtype)
    path = folder / Path(LAYOUTS.get(id, f"{id}.safetensors")).name
    return fathom.load(id, path if path.exists() else checkpoint(id, folder), dtype=dtype)
