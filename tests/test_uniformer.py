"""UniFormer: the annotator's two resizes and its swapped channels, and the official numbers at full size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import DATA, fill, published
from PIL import Image

import fathom
from fathom import SettingError, WeightsError
from fathom.annotator.loading import parameters_on_meta
from fathom.annotator.pictures import as_pixels
from fathom.annotator.weights import Checkpoint

ID = "uniformer-ade20k"
FILE = "upernet_global_small.pth"


def uniformer() -> Any:
    return fathom.estimators()[ID]


def test_the_parameter_count_is_the_networks() -> None:
    with parameters_on_meta():
        network = uniformer().build(Checkpoint(Path(), {}))
    assert sum(p.numel() for p in network.parameters()) == uniformer().parameters


def test_a_picture_is_resized_as_the_annotator_does_and_then_as_mmsegmentation() -> None:
    sizes = {512: ((512, 768), (512, 768)), 384: ((384, 576), (512, 768)), 1024: ((1024, 1536), (512, 768))}
    for resolution, (first, network) in sizes.items():
        fit = uniformer().fit(427, 640, resolution)
        assert (fit.first, fit.network) == (first, network)
        assert fit.first_way == ("lanczos4" if resolution > 427 else "area")
    assert uniformer().fit(427, 640, None) == uniformer().fit(427, 640, 512)
    long = uniformer().fit(480, 3840, 512)
    assert (long.first, long.network) == ((512, 4096), (256, 2048))  # the long side is at most 2048


def test_two_steps_equal_opencvs_one_after_the_other() -> None:
    import cv2

    levels = np.random.default_rng(3).integers(0, 256, (427, 640, 3), dtype=np.uint8)
    fit = uniformer().fit(427, 640, 384)
    expected = cv2.resize(levels, (576, 384), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(expected, (768, 512), interpolation=cv2.INTER_LINEAR)
    seen = fit.enter(torch.from_numpy(levels).permute(2, 0, 1)[None] / 255)
    off = np.abs((seen[0].permute(1, 2, 0) * 255).round().numpy() - expected)
    assert off.max() <= 1 and (off > 0).mean() <= 1e-3


def test_the_published_annotator_swaps_red_and_blue(tiny_annotator: Any) -> None:
    tiny = tiny_annotator(ID)
    seen: list[torch.Tensor] = []
    hook = tiny.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(5))
    tiny(picture)
    tiny(picture, channel_order="rgb")
    tiny(picture.flip(-1), channel_order="rgb")
    hook.remove()
    as_published, true, swapped = seen
    assert torch.equal(as_published, swapped) and not torch.equal(as_published, true)
    with pytest.raises(SettingError, match="channel_order must be one of bgr, rgb"):
        tiny(picture, channel_order="grb")


def test_the_published_wrapping_loads_and_a_missing_norm_is_told(seeded: Any, tmp_path: Path) -> None:
    tiny = uniformer().tiny()
    state = seeded(tiny.build(Checkpoint(Path(), {})))
    training = {"auxiliary_head.conv_seg.weight": torch.zeros(150, 8, 1, 1)}
    whole = {"meta": {"CLASSES": ["wall"], "PALETTE": [[1, 2, 3]]}, "state_dict": state | training, "optimizer": {}}
    torch.save(whole, tmp_path / FILE)
    fathom.load(tiny, weights=tmp_path / FILE, device="cpu")
    del state["backbone.norm4.weight"]
    torch.save({"meta": {}, "state_dict": state}, tmp_path / FILE)
    with pytest.raises(WeightsError, match=r"1 missing: backbone\.norm4\.weight"):
        fathom.load(tiny, weights=tmp_path / FILE, device="cpu")


@pytest.mark.parity
def test_the_official_file_gives_the_official_numbers(tmp_path: Path) -> None:
    annotator = fathom.load(ID, weights=published(f"uniformer/{FILE}", tmp_path), device="cpu")
    estimator, network = annotator.estimator, annotator.network
    picture = as_pixels(Image.open(DATA / "inputs" / "land640x427.png").convert("RGB"))
    goldens = np.load(DATA / "uniformer" / "goldens.npz")
    for number, about in enumerate(json.loads((DATA / "uniformer" / "goldens.json").read_text())):
        if about["kind"] == "raw":
            pixels = fill.field(*about["input"])
            assert fill.sha(pixels) == about["sha256"]
            with torch.inference_mode():
                scores = network(torch.from_numpy(pixels)[None])
            off = np.abs(scores[0, ::10, ::8, ::8].numpy() - goldens[str(number)])
            assert list(scores.shape[1:]) == about["shape"]
            assert off.max() <= 1e-5 * (about["max"] - about["min"])
            continue
        fit = estimator.plan(427, 640, about["detect"], {})
        assert list(fit.network) == about["network"]
        for order in ("bgr", "rgb"):
            if f"{number}_{order}" in goldens:
                expected = goldens[f"{number}_{order}"]
                with torch.inference_mode():
                    labels = estimator.raw(network, picture, fit, expected.shape, {"channel_order": order})
                assert (labels[0].numpy() == expected).mean() >= 0.999, (about, order)
