"""A pack for tests in a running ComfyUI: models whose weights are not on disk answer through small stand-ins.

The node `UseStandIns` names a folder. `<id>.safetensors` there holds seeded weights of the estimator's tiny variant;
`<id>.pt` holds the labels or vectors that it answers with, whatever it sees. `packages` there holds Python packages
that ComfyUI's own environment lacks.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch


class UseStandIns:
    RETURN_TYPES = ()
    FUNCTION = "execute"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"folder": ("STRING", {"default": ""})}}

    @classmethod
    def IS_CHANGED(cls, folder):
        return float("nan")

    def execute(self, folder):
        packages = str(Path(folder) / "packages")
        if packages not in sys.path:
            sys.path.append(packages)
        runtime = next(m for name, m in sorted(sys.modules.items()) if name.endswith(".annotator.runtime"))
        _stand_in(runtime, Path(folder))
        return {"ui": {"text": [folder]}}


def _stand_in(runtime, folder):
    shelf, held = runtime.shelf, {}
    real = type(shelf).take

    def take(estimator, dtype=None):
        seeded = folder / f"{estimator.id}.safetensors"
        if not seeded.is_file() or runtime.weights.find(estimator.sources):
            return real(shelf, estimator, dtype)
        if estimator.id not in held:
            held[estimator.id] = runtime.load(estimator.tiny(), seeded)
        answer = folder / f"{estimator.id}.pt"
        if answer.is_file():
            truth = torch.load(answer, weights_only=True)
            return lambda image, resolution=None, **options: replace(held[estimator.id](image, 64), **truth)
        return held[estimator.id]

    shelf.take = take


NODE_CLASS_MAPPINGS = {"UseStandIns": UseStandIns}
