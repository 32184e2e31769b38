"""A pack for tests in a running ComfyUI: models whose weights are not on disk answer through small stand-ins.

The node `UseStandIns` names a folder. `<id>.safetensors` there holds seeded weights of the estimator's tiny variant;
`<id>.pt` holds the labels or vectors that it answers with, whatever it sees; `<id>.<height>x<width>.<slot>.npz` the
signal that it answers with for pictures of that size. `<id>.onnx` is a network itself. `packages` there holds Python
packages that ComfyUI's own environment lacks.
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
    """An annotator whose signals are the truth. truth: fields of the main signal. kept: gives the signal of a picture's
    size and a slot, or None."""

    def __init__(self, annotator, truth, kept):
        self.annotator, self.truth, self.kept = annotator, truth, kept

    def annotate(self, image, resolution=None, options=None):
        return self._truth(image, self.annotator.annotate(image, 64))

    def __call__(self, image, resolution=None, **options):
        main = self.annotator.estimator.produces[0]
        return self._truth(image, {main: self.annotator(image, 64, **options)})[main]

    def _truth(self, image, made):
        main = self.annotator.estimator.produces[0]
        if self.truth:
            made = {**made, main: replace(made[main], **self.truth)}
        size = f"{image.shape[1]}x{image.shape[2]}"
        return {slot: self.kept(size, slot) or signal for slot, signal in made.items()}


def _stand_in(loading, folder):
    cache, held = loading.cache, {}
    real = type(cache).take

    load_signal = next(m for name, m in sorted(sys.modules.items()) if name.endswith(".signals.files")).load_signal

    real_locate = loading.locate

    def seeded(estimator):
        files = (folder / f"{estimator.id}{end}" for end in (".safetensors", ".onnx"))
        return None if loading.weights.find(estimator.sources) else next((p for p in files if p.is_file()), None)

    def locate(estimator, weights_path=None):
        return real_locate(estimator, weights_path or seeded(estimator))

    def take(estimator, dtype=None):
        file = seeded(estimator)
        if file is None:
            return real(cache, estimator, dtype)
        if estimator.id not in held:
            held[estimator.id] = loading.load(estimator.tiny(), file)
        answer = folder / f"{estimator.id}.pt"
        truth = torch.load(answer, weights_only=True) if answer.is_file() else {}

        def kept(size, slot):
            path = folder / f"{estimator.id}.{size}.{slot}.npz"
            return load_signal(path) if path.is_file() else None

        answers = bool(truth) or any(folder.glob(f"{estimator.id}.*.npz"))
        return Answer(held[estimator.id], truth, kept) if answers else held[estimator.id]

    cache.take, loading.locate = take, locate


NODE_CLASS_MAPPINGS = {"UseStandIns": UseStandIns}
