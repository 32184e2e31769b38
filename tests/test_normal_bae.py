"""NormalBae: the frame, the sizes, and the official numbers at full size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import DATA, fill, published
from PIL import Image

import fathom
from fathom import WeightsError
from fathom.annotator.pictures import as_pixels
from fathom.annotator.weights import Checkpoint
from fathom.models.normal_bae import ESTIMATORS, Refine

(BAE,) = ESTIMATORS
NOWHERE = Path("some.pt")


@pytest.fixture
def annotator(seeded, tmp_path):
    """The tiny variant, loaded from a file as DataParallel writes it."""
    state = seeded(BAE.tiny().build(Checkpoint(NOWHERE, {})))
    torch.save({"model": {f"module.{key}": tensor for key, tensor in state.items()}}, tmp_path / "scannet.pt")
    return fathom.load(BAE.tiny(), weights=tmp_path / "scannet.pt", device="cpu")


def test_red_is_left_green_is_top_blue_is_front():
    left, top, front = torch.eye(3)
    raw = torch.stack([left, top, front], 1)[None, :, None]  # (1,3,1,3): one pixel for each
    normals = BAE.signal(raw)
    expected = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, 1]])  # x right, y up, z towards the viewer
    assert torch.equal(normals.vectors[0, 0], expected)
    assert torch.equal(normals.to_image()[0, 0], (torch.eye(3) + 1) / 2)
    assert torch.equal(normals.to_image("opengl")[0, 0], (expected + 1) / 2)


def test_the_network_gives_unit_vectors(annotator):
    with torch.inference_mode():
        raw = annotator.network(torch.randn(2, 3, 64, 96))
    assert raw.shape == (2, 3, 64, 96)
    torch.testing.assert_close(raw.norm(dim=1), torch.ones(2, 64, 96), rtol=0, atol=1e-5)


def test_vectors_stay_of_unit_length_at_any_result_size(annotator, scene):
    for resolution in (None, 0, 64, 100):
        normals = annotator(scene, resolution=resolution)
        size = (96, 128) if not resolution else (resolution, round(resolution * 4 / 3))
        assert normals.vectors.shape[1:3] == size
        torch.testing.assert_close(normals.vectors.norm(dim=-1), torch.ones(1, *size), rtol=0, atol=1e-5)


def test_the_refinement_enlarges_then_mixes(seeded):
    refine = Refine(5, 6)
    refine.load_state_dict(seeded(refine))
    features, estimate = torch.randn(2, 5, 3, 4), torch.randn(2, 4, 3, 4)
    x = torch.cat([features, estimate], 1)
    x = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True).flatten(2)
    for layer in refine:
        x = layer(x)
    expected = x[:, :3] / x[:, :3].norm(dim=1, keepdim=True)
    torch.testing.assert_close(refine(features, estimate)[:, :3].flatten(2), expected, rtol=1e-4, atol=1e-5)


def test_sizes():
    assert BAE.fit(427, 640, None).network == (480, 640) and BAE.fit(3000, 50, None).network == (480, 640)
    assert BAE.fit(427, 640, 512).network == (512, 768)
    for picture in [(1, 1), (65, 1), (50, 3000), (9, 16384)]:
        for resolution in (0, 64, 4096):
            height, width = BAE.fit(*picture, resolution).network
            assert height % 64 == width % 64 == 0 and 0 < height * width <= 1.1 * 2048 * 2048  # rounded


def test_another_file_is_refused(seeded, tmp_path):
    other = fathom.estimators()["midas-dpt-large"].tiny()
    torch.save(seeded(other.build(Checkpoint(NOWHERE, {}))), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="looks like a MiDaS DPT network"):
        fathom.load(BAE.tiny(), weights=tmp_path / "other.pt")


# ------------------------------------------------------------------------------------------------ full size


@pytest.mark.parity
def test_the_official_file_gives_the_official_numbers(tmp_path):
    annotator = fathom.load(BAE, weights=published("normal_bae/scannet.pt", tmp_path), device="cpu")
    picture = Image.open(DATA / "inputs" / "land640x427.png")
    kinds = []
    with np.load(DATA / "normal_bae" / "goldens.npz") as goldens:
        for number, about in enumerate(json.loads((DATA / "normal_bae" / "goldens.json").read_text())):
            kinds.append(about["kind"])
            if about["kind"] == "raw":
                pixels = fill.field(*about["input"])
                assert fill.sha(pixels) == about["sha256"]
                with torch.inference_mode():
                    ours = annotator.network(torch.from_numpy(pixels)[None])[0].permute(1, 2, 0).numpy()
                gate = 1e-4
            else:
                # The official results stay at the network's size.
                fit = BAE.fit(picture.height, picture.width, 512 if about["kind"] == "annotator" else None)
                assert list(fit.network) == about["network"]
                with torch.inference_mode():
                    raw = BAE.raw(annotator.network, as_pixels(picture), fit, fit.network, {})
                ours = BAE.signal(raw).to_image()[0].numpy()
                gate = 1e-3
            golden = goldens[str(number)]
            off = np.abs(ours[::16, ::16] - golden) / (golden.max() - golden.min())
            assert off.max() <= gate and off.mean() <= gate / 10, (about["kind"], off.max(), off.mean())
    assert sorted(kinds) == ["annotator", "endtoend", "raw", "raw", "raw"]
