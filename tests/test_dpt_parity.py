"""MiDaS and Depth Anything at full size: checkpoints of the official layout, filled from a seed, give the numbers that
the official code gave on the same files.

tests/data/<family> holds the layouts (names, shapes and fill rules), and every 16th row and column of the official
results with the mean, deviation and ends of the whole.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from checkpoints import DATA, fill, published
from PIL import Image

import fathom
from fathom.annotator.pictures import as_pixels

FILES = {
    "depth_anything_v2_vits.pth": ("depth_anything", "depth-anything-v2-small"),
    "depth_anything_v2_vitb.pth": ("depth_anything", "depth-anything-v2-base"),
    "depth_anything_v2_metric_hypersim_vits.pth": ("depth_anything", "depth-anything-v2-metric-indoor-small"),
    "depth_anything_v2_metric_vkitti_vits.pth": ("depth_anything", "depth-anything-v2-metric-outdoor-small"),
    "depth_anything_vits14.pth": ("depth_anything", "depth-anything-small"),
    "depth-anything--Depth-Anything-V2-Small-hf__model.safetensors": ("depth_anything", "depth-anything-v2-small"),
    "dpt_hybrid-midas-501f0c75.pt": ("midas", "midas-dpt-hybrid"),
    "dpt_large-midas-2f21e586.pt": ("midas", "midas-dpt-large"),
    "Intel--dpt-hybrid-midas__model.safetensors": ("midas", "midas-dpt-hybrid"),
}


def compare(ours: np.ndarray, golden: np.ndarray, about: dict, most: float, mean: float) -> None:
    scale = about["max"] - about["min"]
    assert list(ours.shape) == about["shape"]
    off = np.abs(ours[::16, ::16] - golden) / scale
    assert off.max() <= most and off.mean() <= mean, (about["file"], about["kind"], off.max(), off.mean())
    for name in ("mean", "std", "min", "max"):
        assert abs(float(getattr(ours, name)()) - about[name]) / scale <= most, (about["file"], about["kind"], name)


@pytest.mark.parity
@pytest.mark.parametrize("file", FILES)
def test_official_files_give_the_official_numbers(file, tmp_path):
    family, id = FILES[file]
    annotator = fathom.load(id, weights=published(f"{family}/{file}", tmp_path), device="cpu")
    estimator = annotator.estimator
    picture = Image.open(DATA / "inputs" / "land640x427.png").convert("RGB")
    kinds = []
    with np.load(DATA / family / "goldens.npz") as goldens:
        for number, about in enumerate(json.loads((DATA / family / "goldens.json").read_text())):
            if about["file"] != file:
                continue
            kinds.append(about["kind"])
            if about["kind"] == "raw":
                pixels = fill.field(*about["input"])
                assert fill.sha(pixels) == about["sha256"]
                with torch.inference_mode():
                    ours = annotator.network(torch.from_numpy(pixels)[None])[0].numpy()
                compare(ours, goldens[str(number)], about, 1e-5, 1e-6)
                continue
            fit = estimator.fit(picture.height, picture.width, 512 if about["kind"] == "annotator" else None)
            assert list(fit.network) == about["network"]
            if about["kind"] == "annotator":  # the official annotator leaves its result at the network's size
                with torch.inference_mode():
                    ours = estimator.raw(annotator.network, as_pixels(picture), fit, fit.network, {})[0, 0].numpy()
            else:
                signal = annotator(picture)
                ours = (signal.metres() if signal.kind == "metric" else signal.values)[0].numpy()
            compare(ours, goldens[str(number)], about, 1e-3, 1e-4)
    assert kinds.count("raw") == 3 and "endtoend" in kinds
    assert ("annotator" in kinds) == (file.endswith(".pt"))
