"""Depth Anything: sizes, layouts, versions and kinds told apart, on networks of few layers."""

from __future__ import annotations

import json
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
from fathom.models.depth_anything import ESTIMATORS, SPECS

BY_ID = {e.id: e for e in ESTIMATORS}
SMALL = BY_ID["depth-anything-v2-small"]
NOWHERE = Path("some.safetensors")


def transformers_folder(folder, metric=None, out_indices=(1, 2, 3, 4)):
    """A folder as transformers saves it, with the sizes of the tiny variant; and the model."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    backbone = Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=518, patch_size=14,
        out_indices=list(out_indices), reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    kind = {"depth_estimation_type": "metric", "max_depth": metric} if metric else {}
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16, head_hidden_size=32, patch_size=14, **kind,
    )  # fmt: skip
    torch.manual_seed(0)
    model = DepthAnythingForDepthEstimation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        # The last activation cuts below 0; how much lies there depends on the library's initial values.
        model.head.conv3.bias.add_(1)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "id, metric", [("depth-anything-v2-small", None), ("depth-anything-v2-metric-indoor-small", 20)]
)
@pytest.mark.parametrize("size", [(70, 112), (518, 518)])
def test_folders_of_transformers_give_what_its_class_gives(id, metric, size, tmp_path):
    model = transformers_folder(tmp_path, metric)
    ours = fathom.load(BY_ID[id].tiny(), weights=tmp_path, device="cpu")
    pixels = torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected = model(pixels).predicted_depth
        depth = ours.network(pixels)
    assert depth.shape == (2, *size) and float(expected.std()) > 0
    torch.testing.assert_close(depth, expected, rtol=1e-4, atol=1e-4 * float(expected.max() - expected.min()))


def test_a_config_of_another_version_or_kind_is_told(tmp_path):
    transformers_folder(tmp_path)
    with pytest.raises(WeightsError, match="another kind.*relative, expected metric up to 80 m"):
        fathom.load(BY_ID["depth-anything-v2-metric-outdoor-small"].tiny(), weights=tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["backbone_config"]["out_indices"] = [9, 10, 11, 12]
    token = {"backbone.embeddings.cls_token": torch.zeros(1, 1, 384)}
    with pytest.raises(WeightsError, match=r"other version.*\[9, 10, 11, 12\], expected \[3, 6, 9, 12\]"):
        SMALL.adapt(Checkpoint(NOWHERE, token, config))
    assert BY_ID["depth-anything-small"].adapt(Checkpoint(NOWHERE, token, config)).transformers


@pytest.mark.parametrize("key", ["pretrained.cls_token", "backbone.embeddings.cls_token"])
def test_a_file_of_another_size_is_told_by_its_name(key):
    large = Checkpoint(NOWHERE, {key: torch.zeros(1, 1, 1024)})
    with pytest.raises(WeightsError, match="looks like the Large model; choose depth-anything-v2-large"):
        SMALL.adapt(large)
    with pytest.raises(WeightsError, match="choose depth-anything-v2-metric-outdoor-large"):
        BY_ID["depth-anything-v2-metric-outdoor-base"].adapt(large)
    with pytest.raises(WeightsError, match="48 wide, expected 384. No Depth Anything model has that"):
        SMALL.adapt(Checkpoint(NOWHERE, {key: torch.zeros(1, 1, 48)}))


def test_each_version_hands_its_own_blocks_to_the_head():
    assert SMALL.taps == (2, 5, 8, 11) and BY_ID["depth-anything-small"].taps == (8, 9, 10, 11)
    assert BY_ID["depth-anything-v2-large"].taps == (4, 11, 17, 23)
    assert BY_ID["depth-anything-large"].taps == (20, 21, 22, 23)
    assert BY_ID["depth-anything-v2-giant"].taps == (9, 19, 29, 39)


def test_giant_reads_the_official_names_of_its_gated_layers(seeded):
    giant = BY_ID["depth-anything-v2-giant"]
    tiny = giant.tiny()
    network = tiny.build(Checkpoint(NOWHERE, {})).eval()
    state = seeded(network)
    official = {k.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3."): v for k, v in state.items()}
    assert any("w12" in k for k in official)
    assert tiny.translate(official).keys() == state.keys()
    network.load_state_dict(tiny.translate(official))
    mlp, x = network.pretrained.blocks[0].mlp, torch.randn(1, 5, 32)
    weight, bias = (official[f"pretrained.blocks.0.mlp.w12.{n}"] for n in ("weight", "bias"))
    gate, value = torch.nn.functional.linear(x, weight, bias).chunk(2, -1)
    last = [official[f"pretrained.blocks.0.mlp.w3.{n}"] for n in ("weight", "bias")]
    expected = torch.nn.functional.linear(torch.nn.functional.silu(gate) * value, *last)
    torch.testing.assert_close(mlp(x), expected)
    with parameters_on_meta():
        full = giant.build(Checkpoint(NOWHERE, {})).pretrained.blocks[0].mlp
    assert full.fc1.weight.shape == (8192, 1536) and full.fc2.weight.shape == (1536, 4096)


@pytest.mark.parametrize("id", ["depth-anything-v2-small", "depth-anything-v2-base", "depth-anything-v2-giant"])
def test_the_parameter_count_is_the_networks(id):
    with parameters_on_meta():
        network = BY_ID[id].build(Checkpoint(NOWHERE, {}))
    assert sum(p.numel() for p in network.parameters()) == BY_ID[id].parameters


def test_the_published_rule_and_the_widget_choose_the_networks_size():
    v2 = {(427, 640): (518, 770), (720, 480): (784, 518), (512, 512): (518, 518), (1080, 1920): (518, 924)}
    for source, network in v2.items():
        fit = SMALL.fit(*source, None)
        assert fit.network == network and fit.way_in == "bicubic" and fit.way_out == "bilinear_corners"
        assert SMALL.fit(*source, 512) == fit
    assert BY_ID["depth-anything-small"].fit(427, 640, None).way_out == "bilinear"
    assert SMALL.fit(427, 640, 0).network == (420, 630)  # 30.5 patches round to even
    assert SMALL.fit(427, 640, 1024).network == (1022, 1526)  # 73 patches on the short side; 109.4 on the long one
    folder = SMALL.adapt(Checkpoint(NOWHERE, {"backbone.embeddings.cls_token": torch.zeros(1, 1, 384)}))
    fit = folder.fit(427, 640, None)
    assert (fit.network, fit.way_in, fit.way_out) == ((350, 518), "bicubic_pil", "bicubic")
    assert folder.fit(427, 640, 512).network == (518, 770)


@given(height=st.integers(1, 16384), width=st.integers(1, 16384), resolution=st.none() | st.integers(0, 4096))
@settings(max_examples=200, deadline=None)
def test_every_size_is_whole_patches_and_bounded(height, width, resolution):
    for folder in (False, True):
        key = "backbone.embeddings.cls_token" if folder else "pretrained.cls_token"
        estimator = SMALL.adapt(Checkpoint(NOWHERE, {key: torch.zeros(1, 1, 384)}))
        rows, columns = estimator.fit(height, width, resolution).network
        assert rows % 14 == 0 and columns % 14 == 0 and min(rows, columns) >= 14
        assert rows * columns <= MAX_NETWORK_PIXELS * 1.6  # rounding up a side of one patch


def test_metric_models_give_inverse_metres_and_show_near_as_white():
    indoor = BY_ID["depth-anything-v2-metric-indoor-small"]
    metres = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    depth = indoor.signal(metres)
    assert depth.kind == "metric"
    torch.testing.assert_close(depth.values, 1 / metres[:, 0])
    torch.testing.assert_close(depth.to_image()[0, 0, :, 0], torch.tensor([1.0, 2 / 3, 0.0]))
    relative = SMALL.signal(metres)
    assert relative.kind == "affine_inverse" and torch.equal(relative.values, metres[:, 0])


def test_metric_networks_give_metres_within_their_reach(tiny_annotator):
    network = tiny_annotator("depth-anything-v2-metric-outdoor-small").network
    with torch.inference_mode():
        metres = network(torch.randn(1, 3, 56, 70))
    assert metres.shape == (1, 56, 70) and 0 < float(metres.min()) and float(metres.max()) < 80


def test_positions_follow_dinov2s_scale_away_from_the_trained_grid():
    from fathom.models._dpt import place_by_scale, place_by_size

    table = torch.randn(1, 1 + 37 * 37, 8)
    assert place_by_scale(table, (37, 37)) is table
    square = table[:, 1:].transpose(1, 2).reshape(1, 8, 37, 37)
    expected = torch.nn.functional.interpolate(square, scale_factor=(28.1 / 37, 49.1 / 37), mode="bicubic")
    placed = place_by_scale(table, (28, 49))
    assert placed.shape == (1, 1 + 28 * 49, 8) and torch.equal(placed[:, 0], table[:, 0])
    torch.testing.assert_close(placed[:, 1:].transpose(1, 2).reshape(1, 8, 28, 49), expected)
    assert float((placed - place_by_size(table, (28, 49), "bicubic")).abs().max()) > 1e-2


@pytest.mark.parametrize("size", [(1, 1), (9, 3)])
def test_the_smallest_pictures_run(size, tiny_annotator):
    annotator = tiny_annotator("depth-anything-small")
    assert annotator(torch.rand(2, *size, 3), resolution=0).values.shape == (2, *size)


def test_specs_have_the_sizes_of_dinov2():
    for spec in SPECS.values():
        assert spec.width == spec.heads * 64 and max(spec.taps) == spec.depth - 1 and len(spec.channels) == 4
