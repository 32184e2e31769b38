"""Prompt Depth Anything: both layouts, each by its own rule, and what it does with a map that has holes."""

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
from fathom.models.prompt_depth_anything import measured_everywhere
from fathom.signals.depth import depth_from_metres

ID = "prompt-depth-anything-small"
FILES = ("promptda_vits.ckpt", "depth-anything--prompt-depth-anything-vits-hf__model.safetensors")
NOWHERE = Path("some.ckpt")


def small() -> Any:
    return fathom.estimators()[ID]


def lidar(seed: int = 0, height: int = 12, width: int = 16) -> torch.Tensor:
    """Metres (1,height,width) between 1 and 4."""
    return 1 + 3 * torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed))


def test_the_parameter_count_is_the_networks() -> None:
    with parameters_on_meta():
        network = small().build(Checkpoint(NOWHERE, {}))
    assert sum(p.numel() for p in network.parameters()) == small().parameters


def test_each_layout_has_its_own_size_rule() -> None:
    assert small().fit(427, 640, None).network == (420, 630)  # under 1008: whole patches, nothing else
    assert small().plan(1440, 1920, None, {"max_size": 1008}).network == (756, 1008)
    assert small().plan(1440, 1920, None, {"max_size": 640}).network == (462, 630)
    assert small().plan(1440, 1920, None, {"max_size": 630}).way_in == "area_float"
    folder = small().adapt(
        Checkpoint(
            NOWHERE,
            {
                "backbone.embeddings.cls_token": torch.zeros(1, 1, 384),
                "neck.fusion_stage.layers.0.prompt_depth_layer.x": torch.zeros(1),
            },
        )
    )
    fit = folder.fit(427, 640, None)
    assert (fit.network, fit.way_in, fit.way_out) == ((504, 756), "bicubic_pil", "bicubic")


def test_the_folder_of_transformers_gives_what_its_class_gives(tmp_path: Path) -> None:
    from transformers import Dinov2Config, PromptDepthAnythingConfig, PromptDepthAnythingForDepthEstimation

    backbone = Dinov2Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, image_size=518, patch_size=14,
        out_indices=[1, 2, 3, 4], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = PromptDepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16, head_hidden_size=32, patch_size=14, depth_estimation_type="metric", max_depth=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = PromptDepthAnythingForDepthEstimation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(tmp_path)
    ours = fathom.load(small().tiny(), weights=tmp_path, device="cpu")
    pixels, prompt = torch.randn(2, 3, 70, 112), torch.cat([lidar(1), lidar(2)])[:, None]
    with torch.inference_mode():
        expected = model(pixels, prompt_depth=prompt).predicted_depth
        depth = ours.network(pixels, prompt)
    assert float(expected.std()) > 0
    torch.testing.assert_close(depth, expected, rtol=0, atol=1e-4 * float(expected.max() - expected.min()))


@pytest.mark.parametrize("prefix", ["", "pipeline.", "lightning.model."])
def test_the_authors_checkpoint_loads_whatever_its_prefix(prefix: str, seeded: Any, tmp_path: Path) -> None:
    tiny = small().tiny()
    state = seeded(tiny.build(Checkpoint(NOWHERE, {})))
    extra = {"_mean": torch.zeros(1, 3, 1, 1), "_std": torch.ones(1, 3, 1, 1), "pretrained.mask_token": torch.zeros(1)}
    torch.save({"state_dict": {prefix + k: v for k, v in (state | extra).items()}}, tmp_path / "model.ckpt")
    assert not fathom.load(tiny, weights=tmp_path / "model.ckpt", device="cpu").estimator.transformers


def test_a_depth_anything_file_is_told() -> None:
    plain = {"pretrained.cls_token": torch.zeros(1, 1, 384), "depth_head.projects.0.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match="takes no measured depth: it looks like Depth Anything V2"):
        small().adapt(Checkpoint(NOWHERE, plain))
    large = {"pipeline.pretrained.cls_token": torch.zeros(1, 1, 1024)}
    with pytest.raises(WeightsError, match="1024 wide, expected 384"):
        small().adapt(Checkpoint(NOWHERE, large))


def test_the_result_stays_within_the_maps_range_and_a_constant_map_is_no_nan(seeded: Any) -> None:
    tiny = small().tiny()
    network = tiny.build(Checkpoint(NOWHERE, {})).eval()
    network.load_state_dict(seeded(network))
    pixels = torch.randn(2, 3, 56, 70)
    prompt = torch.cat([lidar(), torch.full((1, 12, 16), 2.5)])[:, None]
    with torch.inference_mode():
        metres = network(pixels, prompt)
    assert float(prompt[0].min()) <= float(metres[0].min()) and float(metres[0].max()) <= float(prompt[0].max())
    assert torch.equal(metres[1], torch.full((56, 70), 2.5))


def test_holes_are_filled_from_their_surroundings() -> None:
    metres, valid = torch.full((1, 9, 13), 2.0), torch.ones(1, 9, 13, dtype=torch.bool)
    metres[:, :, 7:] = 4.0
    valid[:, 2:5, 2:5] = False
    valid[:, 6:, 9:] = False
    broken = metres.masked_fill(~valid, float("nan"))
    filled = measured_everywhere(broken, valid)
    assert torch.equal(filled[valid], metres[valid]) and filled.isfinite().all()
    assert 2.0 <= float(filled.min()) and float(filled.max()) <= 4.0
    assert float(filled[0, 3, 3]) < 2.1 and float(filled[0, 8, 12]) > 3.9
    assert measured_everywhere(metres, None) is metres
    one = torch.zeros(1, 640, 480, dtype=torch.bool)
    one[0, 11, 401] = True
    assert torch.equal(measured_everywhere(torch.full((1, 640, 480), 3.0), one), torch.full((1, 640, 480), 3.0))


def test_a_map_without_a_valid_pixel_is_told() -> None:
    metres = torch.cat([lidar(), lidar()])
    valid = torch.ones(2, 12, 16, dtype=torch.bool)
    valid[1] = False
    with pytest.raises(SettingError, match="picture 2 of the measured depth has no valid pixel"):
        measured_everywhere(metres, valid)


@pytest.mark.parity
@pytest.mark.parametrize("file", FILES)
def test_official_files_give_the_official_numbers(file: str, tmp_path: Path) -> None:
    annotator = fathom.load(ID, weights=published(f"prompt_depth_anything/{file}", tmp_path), device="cpu")
    estimator, network = annotator.estimator, annotator.network
    picture = as_pixels(Image.open(DATA / "inputs" / "land640x427.png").convert("RGB"))
    goldens = np.load(DATA / "prompt_depth_anything" / "goldens.npz")
    for number, about in enumerate(json.loads((DATA / "prompt_depth_anything" / "goldens.json").read_text())):
        if about["file"] != file:
            continue
        levels = np.round((fill.field(0, about["prompt"], 192, 256)[0] * 0.6 + 2.5) * 1000).astype(np.uint16)
        metres = torch.from_numpy(levels.astype(np.float32) / 1000)[None]
        with torch.inference_mode():
            if about["kind"] == "raw":
                pixels = torch.from_numpy(fill.field(*about["input"]))[None]
                ours = network(pixels, metres[:, None])[0]
            else:
                options = {"max_size": about["max_size"], "prompt": depth_from_metres(metres)}
                fit = estimator.plan(427, 640, None, options)
                assert list(fit.network) == about["network"]
                ours = estimator.raw(network, picture, fit, tuple(about["shape"]), options)[0, 0]
        assert list(ours.shape) == about["shape"]
        off = np.abs(ours.numpy()[::16, ::16] - goldens[str(number)]) / (about["max"] - about["min"])
        assert off.max() <= (1e-5 if about["kind"] == "raw" else 1e-3), about
