"""MiDaS: sizes, layouts and other files told apart, on networks of few layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fathom
from fathom import WeightsError
from fathom.annotator.loading import parameters_on_meta
from fathom.annotator.sizing import MAX_NETWORK_PIXELS
from fathom.annotator.weights import Checkpoint
from fathom.models.midas import ESTIMATORS, Readout

HYBRID, LARGE = ESTIMATORS
NOWHERE = Path("some.pt")


def of_transformers(estimator):
    key = {"dpt.embeddings.cls_token": torch.zeros(1, 1, estimator.spec.width)}
    return estimator.adapt(Checkpoint(NOWHERE, key))


@pytest.mark.parametrize("size", [(384, 384), (96, 96)])  # its class takes squares only
def test_folders_of_transformers_give_what_its_class_gives(size, tmp_path):
    from transformers import DPTConfig, DPTForDepthEstimation

    config = DPTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=128, image_size=384,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=16,
        readout_type="project", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = DPTForDepthEstimation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(tmp_path)
    ours = fathom.load(LARGE.tiny(), weights=tmp_path, device="cpu")
    pixels = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected = model(pixels).predicted_depth
        depth = ours.network(pixels)
    assert depth.shape == (2, *size) and float(expected.std()) > 0
    torch.testing.assert_close(depth, expected, rtol=1e-4, atol=1e-4 * float(expected.max() - expected.min()))


def test_the_readout_mixes_the_class_token_into_each_other_one():
    readout, tokens = Readout(8), torch.randn(2, 6, 8)
    beside = torch.cat([tokens[:, 1:], tokens[:, :1].expand(-1, 5, -1)], -1)
    torch.testing.assert_close(readout(tokens), torch.nn.functional.gelu(readout.project[0](beside)))


@pytest.mark.parametrize("key", ["pretrained.model.cls_token", "dpt.embeddings.cls_token"])
def test_a_file_of_another_size_is_told_by_its_name(key):
    with pytest.raises(WeightsError, match="looks like MiDaS DPT-Large; choose midas-dpt-large"):
        HYBRID.adapt(Checkpoint(NOWHERE, {key: torch.zeros(1, 1, 1024)}))
    with pytest.raises(WeightsError, match="looks like MiDaS DPT-Hybrid; choose midas-dpt-hybrid"):
        LARGE.adapt(Checkpoint(NOWHERE, {key: torch.zeros(1, 1, 768)}))
    with pytest.raises(WeightsError, match="No such MiDaS model"):
        LARGE.adapt(Checkpoint(NOWHERE, {key: torch.zeros(1, 1, 640)}))


def test_a_depth_anything_file_is_refused(seeded, tmp_path):
    from safetensors.torch import save_file

    other = fathom.estimators()["depth-anything-v2-small"].tiny()
    save_file(seeded(other.build(Checkpoint(NOWHERE, {}))), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="looks like a Depth Anything network"):
        fathom.load(LARGE.tiny(), weights=tmp_path / "other.safetensors")


def test_official_files_hold_a_classifier_that_is_left_out(seeded, tmp_path):
    tiny = HYBRID.tiny()
    state = seeded(tiny.build(Checkpoint(NOWHERE, {})))
    extra = {
        "pretrained.model.head.weight": torch.zeros(1000, 32),
        "pretrained.model.norm.weight": torch.ones(32),
        "scratch.refinenet4.resConfUnit1.conv1.weight": torch.zeros(16, 16, 3, 3),
    }
    torch.save({"optimizer": {"state": {}}, "model": {**state, **extra}}, tmp_path / "midas.pt")
    annotator = fathom.load(tiny, weights=tmp_path / "midas.pt", device="cpu")
    assert not any("head" in name or "norm.weight" == name for name, _ in annotator.network.named_parameters())
    torch.save({**state, "pretrained.model.surplus": torch.zeros(1)}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match="surplus"):
        fathom.load(tiny, weights=tmp_path / "odd.pt", device="cpu")


@pytest.mark.parametrize("one", ESTIMATORS, ids=lambda e: e.id)
def test_the_parameter_count_is_the_networks(one):
    with parameters_on_meta():
        network = one.build(Checkpoint(NOWHERE, {}))
    assert sum(p.numel() for p in network.parameters()) == one.parameters


def test_the_published_rule_and_the_annotators_choose_the_networks_size():
    for source, published, annotator in (
        ((427, 640), (384, 576), (512, 768)),
        ((720, 480), (576, 384), (768, 512)),
        ((512, 512), (384, 384), (512, 512)),
        ((200, 100), (384, 192), (1024, 512)),  # scaled as little as possible: the long side becomes 384
    ):
        fit = HYBRID.fit(*source, None)
        assert (fit.network, fit.way_in, fit.way_out) == (published, "bicubic", "bicubic")
        fit = HYBRID.fit(*source, 512)
        assert (fit.network, fit.way_in) == (annotator, "lanczos4" if min(source) < 512 else "area")
        assert of_transformers(HYBRID).fit(*source, 512) == fit
    fit = of_transformers(HYBRID).fit(427, 640, None)
    assert (fit.network, fit.way_in, fit.way_out) == ((384, 384), "bilinear_pil", "bicubic")


@given(height=st.integers(1, 16384), width=st.integers(1, 16384), resolution=st.none() | st.integers(0, 4096))
@settings(max_examples=200, deadline=None)
def test_every_size_is_whole_patches_and_bounded(height, width, resolution):
    rows, columns = LARGE.fit(height, width, resolution).network
    step = 32 if resolution is None else 64
    assert rows % step == 0 and columns % step == 0 and min(rows, columns) >= step
    assert rows * columns <= MAX_NETWORK_PIXELS * 1.6  # rounding up a side of one step


def test_larger_is_closer_as_the_network_gives_it():
    raw = torch.tensor([[[[0.0, 3.0, 7.0]]]])
    depth = HYBRID.signal(raw)
    assert depth.kind == "affine_inverse" and torch.equal(depth.values, raw[:, 0])
    torch.testing.assert_close(depth.to_image()[0, 0, :, 0], torch.tensor([0.0, 3 / 7, 1.0]))


@pytest.mark.parametrize("id", [e.id for e in ESTIMATORS])
@pytest.mark.parametrize("size", [(1, 1), (65, 1), (30, 400)])
def test_extreme_pictures_run(id, size, tiny_annotator):
    annotator = tiny_annotator(id)
    assert annotator(torch.rand(1, *size, 3)).values.shape == (1, *size)
    assert annotator(torch.rand(1, *size, 3), resolution=0).values.shape == (1, *size)
