"""Real files of real programs and cameras: each gives what its README says is true of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fathom.annotator.decode import decode
from fathom.annotator.pictures import as_pixels
from fathom.tools.convert import depth_from_file

pytestmark = pytest.mark.field


def field(name: str) -> Path:
    folder = os.environ.get("FATHOM_FIELD_DATA")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip("FATHOM_FIELD_DATA names no folder that holds it")
    return Path(folder) / name


def test_a_render_whose_data_window_is_smaller_than_its_display_window() -> None:
    depth = depth_from_file(field("render_beachball.exr"), "metric", 1, "m")
    assert depth.source.endswith(": Z") and depth.values.shape == (1, 1556, 2048) and depth.valid is not None
    seen = depth.metres()[depth.valid]
    assert float(depth.valid.float().mean()) < 0.25 and 8 < float(seen.amin()) < float(seen.amax()) < 12
    assert not bool(depth.valid[0, :200].any()), "it lies above the data window"


def test_a_renderers_65504() -> None:
    path = field("normals_truth_depth.npy")
    depth = depth_from_file(path, "metric", 1, "m")
    stored = np.load(path)
    assert int(depth.metres().isinf().sum()) == int((stored == 65504).sum()) > 0 and depth.valid is None
    finite = depth.metres()[0][torch.from_numpy(stored < 65504)]
    assert np.allclose(finite.numpy(), stored[stored < 65504], rtol=1e-6)


def test_depth_cameras_in_millimetres() -> None:
    kinect = depth_from_file(field("kinect_redwood.png"), "metric", 1, "mm")
    assert kinect.valid is not None and float((~kinect.valid).float().mean()) == pytest.approx(0.13, abs=0.005)
    lidar = depth_from_file(field("lidar_arkit.png"), "metric", 1, "mm")
    assert lidar.valid is None
    assert float(lidar.metres().amin()) == pytest.approx(1.566) and float(lidar.metres().amax()) == pytest.approx(3.512)


def test_a_disparity_map() -> None:
    depth = depth_from_file(field("stereo_cones_gt.png"), "disparity")
    assert depth.valid is not None and depth.kind == "affine_inverse"
    assert 0 < float((~depth.valid).float().mean()) < 0.1 and float(depth.values[depth.valid].amin()) > 0


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [
        ("phone_depth.jpg", 3024, 4032),
        ("phone_gdepth.jpg", 768, 1024),
        ("lidar_arkit_picture.jpg", 1920, 1440),
        ("stereo_converged_left_right.jpg", 3643, 1574),
        ("normals_truth_picture.png", 640, 480),
    ],
)
def test_photos(name: str, width: int, height: int) -> None:
    assert as_pixels(decode(field(name).read_bytes(), name)).shape == (1, 3, height, width)
