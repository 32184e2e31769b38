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
        loading = next(m for name, m in sorted(sys.modules.items()) if name.endswith(".annotator.loading"))
        _stand_in(loading, Path(folder))
        return {"ui": {"text": [folder]}}


class Answer:
    """An annotator whose main signal is the truth. truth: fields of that signal."""

    def __init__(self, annotator, truth):
        self.annotator, self.truth = annotator, truth

    def annotate(self, image, resolution=None, options=None):
        made = self.annotator.annotate(image, 64)
        main = self.annotator.estimator.produces[0]
        return {**made, main: replace(made[main], **self.truth)}


def _stand_in(loading, folder):
    cache, held = loading.cache, {}
    real = type(cache).take

    def take(estimator, dtype=None):
        seeded = folder / f"{estimator.id}.safetensors"
        if not seeded.is_file() or loading.weights.find(estimator.sources):
            return real(cache, estimator, dtype)
        if estimator.id not in held:
            held[estimator.id] = loading.load(estimator.tiny(), seeded)
        answer = folder / f"{estimator.id}.pt"
        if answer.is_file():
            truth = torch.load(answer, weights_only=True)
            return Answer(held[estimator.id], truth)
        return held[estimator.id]

    cache.take = take


NODE_CLASS_MAPPINGS = {"UseStandIns": UseStandIns}
