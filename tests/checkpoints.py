"""Checkpoints for tests: the published layouts filled from a seed, and weights that keep a small network lively.

data/<family> holds the layouts: the names, shapes and fill rules of a published file's tensors.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

DATA = Path(__file__).parent / "data"


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fill = _load(DATA / "fill.py")


def published(layout: str, folder: Path) -> Path:
    """The file whose layout is `layout`, such as "midas/dpt_hybrid-midas-501f0c75.pt", filled and written into
    `folder` as its publisher ships it: a torch file, or a folder with config.json.
    """
    with gzip.open(DATA / f"{layout}.json.gz") as stream:
        manifest = json.load(stream)
    state = {name: torch.from_numpy(value) for name, value in fill.state_dict(manifest, 0).items()}
    if not layout.endswith(".safetensors"):
        path = folder / Path(layout).name
        beside = manifest.get("wrapper_extra", {})
        torch.save({**beside, manifest["wrapper"]: state} if manifest["wrapper"] else state, path)
        return path
    from safetensors.torch import save_file

    save_file(state, folder / "model.safetensors", metadata=manifest.get("metadata") or {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(manifest["config"]))
    return folder


def published_shapes(layout: str) -> dict[str, tuple[int, ...]]:
    """The names and shapes in the file whose layout is `layout`."""
    with gzip.open(DATA / f"{layout}.json.gz") as stream:
        return {name: tuple(tensor["shape"]) for name, tensor in json.load(stream)["tensors"].items()}


def goldens(family: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What the official code gave for each file, picture and size of data/<family>: what was done, and every 16th row
    and column of each of its results."""
    folder = DATA / family
    with np.load(folder / "goldens.npz") as kept:
        arrays = dict(kept)
    described = json.loads((folder / "goldens.json").read_text())
    return [
        (about, {name: arrays[f"{number}.{name}"] for name in about["outputs"]})
        for number, about in enumerate(described)
    ]


def golden_input(about: dict[str, Any]) -> torch.Tensor:
    """The network's input of a raw golden, (1,3,h,w)."""
    pixels = fill.field(*about["input"])
    if about["after"]:
        assert about["after"] == "/ 4 + 0.5"
        pixels = pixels / 4 + 0.5
    assert fill.sha(pixels) == about["sha256"]
    return torch.from_numpy(pixels)[None]


def assert_golden(ours: Any, golden: Any, about: dict[str, Any], name: str, most: float) -> None:
    """`ours` is the official result but for `most` of its range."""
    expected = about["outputs"][name]
    ours = np.asarray(ours, dtype=np.float64)
    assert list(ours.shape) == expected["shape"], name
    step = (16, 16) if expected["layout"] in ("hw", "hwc") else ()
    thin = ours[tuple(slice(None, None, n) for n in step)]
    finite = np.isfinite(golden)
    scale = (expected["max"] - expected["min"]) or 1.0
    off = float(np.abs(thin[finite] - golden[finite]).max() / scale)
    assert off <= most, (about["file"], about["kind"], name, off)
    if np.isfinite(golden).all() and np.isfinite(ours).all():
        for end in ("mean", "std", "min", "max"):
            assert abs(float(getattr(ours, end)()) - expected[end]) / scale <= most, (about["file"], name, end)


def lively(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Seeded weights under which a signal stays alive through the norms, so that labels differ."""
    generator, state = torch.Generator().manual_seed(4), {}
    for name, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if not tensor.is_floating_point():
            state[name] = tensor
        elif tensor.ndim > 1:
            state[name] = noise * (2 / tensor[0].numel()) ** 0.5
        else:
            state[name] = 0.1 * noise + (name.endswith(("weight", "running_var", "layer_scale_parameter")))
    return state
