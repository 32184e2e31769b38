"""Depth of depth cameras, read through the real decoders from files that the tests write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fathom import Depth, PictureError, SettingError
from fathom.tools import rgbd

# ------------------------------------------------------------------------------ depth cameras


def png16(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values.astype(np.uint16)).save(path)
    return path


def test_millimetres_become_metres_and_zero_is_a_hole(tmp_path):
    values = np.full((6, 8), 1500)
    values[2, 3] = 0
    values[4, 4] = 9000
    depth, filled = rgbd.load_rgbd(png16(tmp_path / "d.png", values), max_range=8.0, focal=600.0)
    assert depth.kind == "metric" and depth.focal == 600.0
    assert depth.valid is not None
    assert (~depth.valid[0]).nonzero().tolist() == [[2, 3], [4, 4]]
    assert torch.allclose(depth.metres()[depth.valid], torch.tensor(1.5))
    assert float(filled.sum()) == 0


def test_every_16_bit_value_is_exact(tmp_path):
    values = np.arange(65536).reshape(256, 256)
    depth, _ = rgbd.load_rgbd(png16(tmp_path / "d.png", values), units_per_metre=5000.0)
    assert depth.valid is not None
    metres = depth.metres()[0]
    truth = torch.from_numpy(values).float() / 5000
    assert torch.allclose(metres.flatten()[1:], truth.flatten()[1:], rtol=3e-7, atol=0)


def test_filling_reaches_so_far_and_says_where(tmp_path):
    values = np.full((40, 60), 2000)
    values[5, 5] = 0
    values[10:30, 20:50] = 0
    depth, filled = rgbd.load_rgbd(png16(tmp_path / "d.png", values), fill=3)
    assert depth.valid is not None
    assert float(filled[0, 5, 5]) == 1 and float(filled[0, 12, 30]) == 1 and float(filled[0, 20, 35]) == 0
    assert torch.equal(depth.valid[0], torch.from_numpy(values > 0) | filled[0].bool())
    assert torch.allclose(depth.metres()[depth.valid], torch.tensor(2.0), rtol=1e-5)


def test_what_is_filled_in_continues_its_surroundings(tmp_path):
    inverse = np.linspace(0.1, 0.6, 384)[None] + np.linspace(0, 0.1, 256)[:, None]
    values = (1000 / inverse).round()
    generator = np.random.default_rng(0)
    holed = values.copy()
    for y, x, size in generator.integers(((8, 8, 2),) * 40, ((240, 360, 12),) * 40):
        holed[y : y + size, x : x + size] = 0
    depth, filled = rgbd.load_rgbd(png16(tmp_path / "d.png", holed), fill=32)
    where = filled[0] > 0
    assert int(where.sum()) == (holed == 0).sum() > 500
    error = (depth.values[0] - torch.from_numpy(inverse).float())[where].abs()
    assert float(error.max()) < 0.02 and float(error.mean()) < 0.002
    low, high = 1000 / values[holed > 0].max(), 1000 / values[holed > 0].min()
    assert low - 1e-6 <= float(depth.values.min()) and float(depth.values.max()) <= high + 1e-6


def test_an_8_bit_file_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "d.png")
    with pytest.raises(PictureError, match="8-bit grey"):
        rgbd.load_rgbd(tmp_path / "d.png")


def test_a_truncated_or_foreign_file_is_refused(tmp_path):
    path = png16(tmp_path / "d.png", np.random.default_rng(0).integers(0, 65535, (64, 64)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(PictureError, match="damaged"):
        rgbd.load_rgbd(path)
    path.write_bytes(b"hello")
    with pytest.raises(PictureError, match="damaged"):
        rgbd.load_rgbd(path)


def test_a_frame_without_any_measurement_is_all_holes(tmp_path):
    depth, filled = rgbd.load_rgbd(png16(tmp_path / "d.png", np.zeros((4, 4))), fill=5)
    assert isinstance(depth, Depth) and depth.valid is not None
    assert not depth.valid.any() and not filled.any()


@pytest.mark.parametrize("bad", [{"units_per_metre": 0.0}, {"max_range": -1.0}, {"fill": -1}])
def test_bad_camera_settings_are_refused(tmp_path, bad):
    with pytest.raises(SettingError, match=next(iter(bad))):
        rgbd.load_rgbd(png16(tmp_path / "d.png", np.ones((4, 4))), **bad)


def test_files_come_from_comfyui_s_folders_only(comfy_folders):
    from fathom.nodes.sensors import FathomRGBDDepth

    png16(comfy_folders / "input" / "in.png", np.full((4, 4), 1500))
    png16(comfy_folders / "secret.png", np.full((4, 4), 1500))
    listed, _ = FathomRGBDDepth.INPUT_TYPES()["required"]["file"]
    assert listed == ["in.png"]
    depth, image, holes, filled = FathomRGBDDepth().execute("in.png", 1000.0)
    assert float(depth.metres()[0, 0, 0]) == pytest.approx(1.5)
    assert image.shape == (1, 4, 4, 3) and not holes.any() and not filled.any()
    assert FathomRGBDDepth.VALIDATE_INPUTS("in.png") is True
    for outside in ("../secret.png", str(comfy_folders / "secret.png")):
        assert "outside" in str(FathomRGBDDepth.VALIDATE_INPUTS(outside))
        with pytest.raises(PictureError, match="outside"):
            FathomRGBDDepth().execute(outside, 1000.0)
    assert "no file" in str(FathomRGBDDepth.VALIDATE_INPUTS("gone.png"))


def test_a_changed_file_is_read_again(comfy_folders):
    from fathom.nodes.sensors import FathomRGBDDepth

    path = png16(comfy_folders / "input" / "in.png", np.full((4, 4), 1500))
    first = FathomRGBDDepth.IS_CHANGED("in.png", units_per_metre=1.0)
    assert FathomRGBDDepth.IS_CHANGED("in.png") == first
    png16(path, np.arange(64).reshape(8, 8))
    assert FathomRGBDDepth.IS_CHANGED("in.png") != first
