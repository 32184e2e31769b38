"""Depth of depth cameras, read through the real decoders from files that the tests write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fathom import Depth, PictureError, SettingError, SignalError
from fathom.tools import intrinsics_files, rgbd
from fathom.tools.convert import depth_from_file

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


# ------------------------------------------------------------------------------ confidence and cameras


@pytest.mark.parametrize("levels", [(0, 1, 2), (0, 54, 255), (0, 127, 255)])
@pytest.mark.parametrize("least", [0, 1, 2])
def test_arkit_s_confidence_tells_what_is_valid(tmp_path, levels, least):
    depth = png16(tmp_path / "d.png", np.full((3, 4), 1500))
    marks = np.array(levels, np.uint8)[:, None].repeat(4, 1)
    Image.fromarray(marks).save(tmp_path / "c.png")
    found, _ = rgbd.load_rgbd(depth, confidence=tmp_path / "c.png", least_confidence=least)
    valid = torch.ones(3, 4, dtype=torch.bool) if found.valid is None else found.valid[0]
    assert valid.all(1).tolist() == [level >= least for level in range(3)]
    assert found.confidence is not None and found.confidence[0, :, 0].tolist() == [0.0, 1.0, 2.0]


def test_a_confidence_map_of_another_size_or_meaning_is_refused(tmp_path):
    depth = png16(tmp_path / "d.png", np.full((3, 4), 1500))
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(PictureError, match="8x6 and the depth 4x3"):
        rgbd.load_rgbd(depth, confidence=tmp_path / "c.png")
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "c.png")
    with pytest.raises(PictureError, match="no confidence map"):
        rgbd.load_rgbd(depth, confidence=tmp_path / "c.png")


ROWS = [[500.0, 0.0, 311.5], [0.0, 520.0, 244.25], [0.0, 0.0, 1.0]]
COLUMNS = [500.0, 0.0, 0.0, 0.0, 520.0, 0.0, 311.5, 244.25, 1.0]
FLAT = [n for row in ROWS for n in row]
FOUR = "500 0 311.5 0\n0 520 244.25 0\n0 0 1 0\n0 0 0 1\n"
LAYOUTS: dict[str, Any] = {
    "plain.json": {"fx": 500, "fy": 520, "cx": 311.5, "cy": 244.25},
    "realsense.json": {"width": 640, "height": 480, "ppx": 311.5, "ppy": 244.25, "fx": 500, "fy": 520, "coeffs": []},
    "nerf.json": {"fl_x": 500, "fl_y": 520, "cx": 311.5, "cy": 244.25, "w": 640, "h": 480, "frames": []},
    "rows.json": {"K": ROWS},
    "record3d.json": {"w": 640, "h": 480, "K": COLUMNS, "fps": 60},
    "open3d.json": {"width": 640, "height": 480, "intrinsic_matrix": COLUMNS},
    "ros.json": {"image_width": 640, "camera_matrix": {"rows": 3, "cols": 3, "data": FLAT}},
    "arkit.json": {"frame_index": 3, "intrinsics": COLUMNS, "cameraPoseARFrame": [1] * 16},
    "both.json": {"color": {"fx": 900, "fy": 900, "cx": 640, "cy": 360}, "depth": {"K": FLAT}},
    "list.json": ROWS,
    "K.txt": "\n".join(" ".join(map(str, row)) for row in ROWS),
    "camera_matrix.csv": "\n".join(",".join(map(str, row)) for row in ROWS),
    "intrinsic_depth.txt": FOUR,
    "four.txt": "# fx fy cx cy\n500 520 311.5 244.25",
    "scannet.txt": "colorWidth = 1296\nfx_color = 1170.1\nfx_depth = 500\nfy_depth = 520\nmx_color = 647.7\n"
    "m_calibrationDepthIntrinsic = " + FOUR.replace("\n", " "),
    "calib.txt": "cam0=[500 0 311.5; 0 520 244.25; 0 0 1]\ncam1=[500 0 342.2; 0 520 244.25; 0 0 1]\ndoffs=30.7\n"
    "baseline=176\nwidth=640\nheight=480\nndisp=145",
    "camera.npz": {"K": np.array(ROWS), "pose": np.eye(4)},
    "named.npz": {"fx": np.array(500.0), "fy": np.array(520.0), "cx": np.array(311.5), "cy": np.array(244.25)},
    "K.npy": np.array(ROWS),
}


def written(folder: Path, name: str, held: Any) -> Path:
    path = folder / name
    if name.endswith(".npz"):
        np.savez(path, **held)
    elif name.endswith(".npy"):
        np.save(path, held)
    else:
        path.write_text(held if isinstance(held, str) else json.dumps(held))
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_camera_is_read_from_what_programs_write(tmp_path, name):
    camera = intrinsics_files.load_pinhole(written(tmp_path, name, LAYOUTS[name]))
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 520, 311.5, 244.25)


def test_the_camera_of_a_larger_picture_is_scaled(tmp_path):
    depth = png16(tmp_path / "d.png", np.full((192, 256), 1500))
    lens = written(tmp_path, "camera_matrix.csv", "1440,0,959.5\n0,1440,719.5\n0,0,1")
    with pytest.raises(SettingError, match="about 1919 wide"):
        rgbd.load_rgbd(depth, intrinsics=lens)
    found, _ = rgbd.load_rgbd(depth, intrinsics=lens, intrinsics_width=1920)
    assert isinstance(found.focal, torch.Tensor) and found.principal is not None
    assert found.focal[0].tolist() == pytest.approx([192, 192])
    assert found.principal[0].tolist() == pytest.approx([127.5, 95.5])
    told = written(tmp_path, "c.json", {"w": 1920, "h": 1440, "fx": 1440, "fy": 1440, "cx": 959.5, "cy": 719.5})
    again, _ = rgbd.load_rgbd(depth, intrinsics=told)
    assert again.principal is not None and torch.equal(again.principal, found.principal)


@pytest.mark.parametrize(
    ("name", "held", "said"),
    [
        ("a.json", {"pose": [1] * 16}, "no camera"),
        ("a.json", "{" * 5000, "cannot be read"),
        ("a.json", {"a": {"fx": 1, "cx": 2, "cy": 3}, "b": {"fx": 2, "cx": 2, "cy": 3}}, "2 cameras that differ"),
        ("a.txt", "0 0 0\n0 0 0\n0 0 1", "no camera"),
        ("a.txt", "hello", "no camera"),
        ("a.npz", {"other": np.eye(3)}, "no camera"),
        ("a.json", "[" * 200_000, "cannot be read"),
    ],
)
def test_a_file_without_a_camera_is_refused_in_words(tmp_path, name, held, said):
    with pytest.raises(PictureError, match=said):
        intrinsics_files.load_pinhole(written(tmp_path, name, held))


def test_a_camera_of_another_shape_is_refused(tmp_path):
    depth = png16(tmp_path / "d.png", np.full((192, 256), 1500))
    lens = {"w": 1920, "h": 1080, "fx": 1440, "fy": 1440, "cx": 959.5, "cy": 539.5}
    with pytest.raises(SettingError, match="shapes differ"):
        rgbd.load_rgbd(depth, intrinsics=written(tmp_path, "c.json", lens))


@pytest.mark.field
def test_a_real_lidar_frame(field_data):
    depth, _ = rgbd.load_rgbd(field_data / "lidar_arkit.png")
    assert depth.values.shape == (1, 192, 256)
    assert float(depth.metres().min()) == pytest.approx(1.566, abs=1e-5)
    assert float(depth.metres().max()) == pytest.approx(3.512, abs=1e-5)


# ------------------------------------------------------------------------------ nodes


def test_the_nodes_take_a_camera_from_a_file(comfy_folders):
    from fathom.nodes.geometry import FathomDepthToNormals
    from fathom.nodes.sensors import FathomRGBDDepth

    png16(comfy_folders / "input" / "d.png", np.full((480, 640), 1500))
    written(comfy_folders / "input", "camera.json", LAYOUTS["plain.json"])
    listed, settings = FathomRGBDDepth.INPUT_TYPES()["optional"]["intrinsics"]
    assert listed == ["none", "camera.json"] and settings["default"] == "none"
    depth, *_ = FathomRGBDDepth().execute("d.png", 1000.0, intrinsics="camera.json")
    assert depth.camera()[0].tolist() == [500, 520, 311.5, 244.25]
    without, *_ = FathomRGBDDepth().execute("d.png", 1000.0)
    _, normals = FathomDepthToNormals().execute(without, "geometry", "opengl", intrinsics="camera.json")
    assert float(normals.vectors[..., 2].min()) > 0.999


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


def test_geometry_runs_again_when_the_camera_in_a_file_changes(comfy_folders):
    from fathom.nodes.geometry import FathomDepthToNormals, FathomMesh, FathomPointCloud

    path = comfy_folders / "input" / "K.json"
    for node in (FathomDepthToNormals, FathomPointCloud, FathomMesh):
        path.write_text('{"fx": 500, "fy": 500, "cx": 4, "cy": 4}')
        first = node.IS_CHANGED(intrinsics="K.json", field_of_view=0.0)
        assert node.IS_CHANGED(intrinsics="K.json") == first
        path.write_text('{"fx": 600, "fy": 500, "cx": 4, "cy": 4}')
        assert node.IS_CHANGED(intrinsics="K.json") != first
        assert node.IS_CHANGED() == node.IS_CHANGED(intrinsics=None) == ""


@pytest.mark.parametrize("magic", [b"bvx-", b"bvx1", b"bvx2", b"bvxn"])
def test_record3ds_own_files_are_refused_by_name(tmp_path, magic):
    depth = tmp_path / "0.png"
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(depth)
    (tmp_path / "0.conf").write_bytes(magic + bytes(40))
    (tmp_path / "0.depth").write_bytes(magic + bytes(40))
    with pytest.raises(PictureError, match="0.conf is compressed by Apple's LZFSE.*export EXR or PNG"):
        rgbd.load_rgbd(depth, confidence=tmp_path / "0.conf")
    with pytest.raises(PictureError, match="0.depth is compressed"):
        rgbd.load_rgbd(tmp_path / "0.depth")
    with pytest.raises(SignalError, match="0.depth is compressed"):
        depth_from_file(tmp_path / "0.depth", "metric")
