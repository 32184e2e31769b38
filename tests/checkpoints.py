"""Checkpoints for tests: the published layouts filled from a seed, and weights that keep a small network lively.

data/<family> holds the layouts: the names, shapes and fill rules of a published file's tensors.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Any

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
        torch.save({manifest["wrapper"]: state} if manifest["wrapper"] else state, path)
        return path
    from safetensors.torch import save_file

    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(manifest["config"]))
    return folder


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
