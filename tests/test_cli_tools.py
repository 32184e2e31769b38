"""`fathom tool`: every command by its real entry point, against the functions beneath."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from test_phones import gdepth
from test_phones import lens_blur as lens_blur_photo

from fathom import Depth, Instances, Thing
from fathom.signals.depth import depth_from_metres
from fathom.signals.files import load_depth, save_depth
from fathom.tools.atmosphere import band_style, fog
from fathom.tools.depth_field import depth_field
from fathom.tools.geometry import geometric_normals
from fathom.tools.lens_blur import lens_blur
from fathom.tools.sobel import sobel_normals


@pytest.fixture
def run(run):
    """A function that runs `fathom tool ARGUMENTS` in this process: (exit status, stdout, stderr)."""
    return partial(run, "tool")


@pytest.fixture
def photo(tmp_path, scene):
    """A photo in a file, and what the file holds."""
    path = tmp_path / "photo.png"
    levels = (scene[0].numpy() * 255).round().astype(np.uint8)
    Image.fromarray(levels).save(path)
    return path, torch.from_numpy(levels).float()[None] / 255


@pytest.fixture
def depth(tmp_path):
    """A slanted wall in metres, in a file, and what the file holds."""
    path = tmp_path / "wall.exr"
    wall = depth_from_metres(torch.linspace(2, 6, 128).expand(1, 96, 128).contiguous(), focal=100.0)
    save_depth(wall, path)
    return path, load_depth(path)


def read(path):
    return torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32))[None] / 255


def same(path, image):
    return float((read(path) - image).abs().max()) <= 0.5 / 255 + 1e-6


def test_looks_of_a_photo(run, tmp_path, photo, depth):
    (picture, pixels), (file, held), out = photo, depth, tmp_path / "new" / "out.png"
    status, told, err = run("fog", picture, "-d", file, "-o", out, "--density", 0.2, "--colour", "#ffffff")
    assert (status, told.strip()) == (0, str(out)), err
    assert same(out, fog(pixels, held, 0.2, "#ffffff")[0])
    assert run("blur", picture, "-d", file, "-o", out, "--radius", 4, "--focus", 0.5)[0] == 0
    assert same(out, lens_blur(pixels, held, 4.0, focus=0.5)[0])
    assert run("bands", picture, "-d", file, "-o", out, "--style", "keep", "--style", "grey")[0] == 0
    assert same(out, band_style(pixels, held, "keep\ngrey")[0])


def test_depth_is_estimated_when_no_file_is_given(run, tmp_path, photo):
    out = tmp_path / "fog.png"
    assert run("fog", photo[0], "-o", out)[0] == 0
    assert read(out).shape == photo[1].shape and not same(out, photo[1])


def test_masks_and_normals_of_a_depth(run, tmp_path, depth):
    (file, held), out = depth, tmp_path / "out.png"
    assert run("mask", file, "-o", out, "--shape", "band", "--start", 0.2, "--end", 0.6)[0] == 0
    assert same(out, depth_field(held, "band", 0.2, 0.6)[..., None].expand(1, 96, 128, 3))
    assert run("normals", file, "-o", out, "--convention", "opengl")[0] == 0
    assert same(out, geometric_normals(held).to_image("opengl"))
    assert run("normals", file, "-o", out, "--method", "midas")[0] == 0
    assert same(out, sobel_normals(held).to_image())


@pytest.mark.parametrize(("command", "suffix"), [(c, s) for c in ("pointcloud", "mesh") for s in ("ply", "glb")])
def test_3d_files(run, tmp_path, photo, depth, command, suffix):
    trimesh = pytest.importorskip("trimesh")
    out = tmp_path / f"out.{suffix}"
    assert run(command, depth[0], "--image", photo[0], "--step", 2, "-o", out)[0] == 0
    loaded = trimesh.load(out)
    low, high = loaded.bounds
    assert low[2] == pytest.approx(-6, abs=0.1) and high[2] == pytest.approx(-2, abs=0.1)
    assert [p.name for p in tmp_path.glob("out*")] == [out.name]


def test_depth_in_another_format(run, tmp_path, depth):
    file, held = depth
    for suffix in ("npz", "safetensors", "exr"):
        out = tmp_path / f"again.{suffix}"
        assert run("convert", file, "-o", out)[0] == 0
        assert torch.equal(load_depth(out).values, held.values)
    millimetres = (held.metres()[0].numpy() * 1000).round().astype(np.uint16)
    Image.fromarray(millimetres).save(tmp_path / "sensor.png")
    out = tmp_path / "sensor.exr"
    assert run("convert", tmp_path / "sensor.png", "-o", out, "--meaning", "metric", "--unit", "mm")[0] == 0
    assert torch.allclose(load_depth(out).metres(), held.metres(), atol=6e-4)
    save_depth(Depth(held.values * 3 + 1, "affine_inverse"), tmp_path / "relative.npz")
    out = tmp_path / "metric.npz"
    assert run("convert", tmp_path / "relative.npz", "-o", out, "--near", 2, "--far", 6)[0] == 0
    assert torch.allclose(load_depth(out).metres(), held.metres(), rtol=1e-4)


def test_things_cut_out_of_a_photo(run, tmp_path, photo, depth):
    mask = torch.zeros(96, 128, dtype=torch.bool)
    mask[20:60, 30:70] = True
    things = Instances(((Thing("cat", 0.9, mask=mask), Thing("dog", 0.8, (80, 10, 120, 50))),), (96, 128))
    things.save(tmp_path / "things.json")
    out = tmp_path / "layers"
    status, told, err = run("isolate", photo[0], "--things", tmp_path / "things.json", "-d", depth[0], "-o", out)
    assert status == 0, err
    assert sorted(p.name for p in out.iterdir()) == ["00_background.png", "01_cat.png", "02_dog.png", "layers.json"]
    assert told.split()[-1] == str(out / "layers.json")
    placed = json.loads((out / "layers.json").read_text())["layers"]
    assert placed[1]["z_index"] > placed[2]["z_index"], "the wall is closer at its left"
    given = "--things", tmp_path / "things.json", "--names", "dog"
    assert run("isolate", photo[0], *given, "-o", tmp_path / "two")[0] == 0
    assert [p.name for p in (tmp_path / "two").glob("0[1-9]*")] == ["01_dog.png"]
    assert run("isolate", photo[0], "-d", depth[0], "--nearer", 0.8, "--whole", "-o", tmp_path / "near")[0] == 0
    assert (tmp_path / "near" / "01_near.png").is_file()
    assert run("isolate", photo[0], "--nearer", 0.8, "-o", tmp_path / "x")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fog", "{photo}", "-d", "{depth}", "-o", "a.jpg"], "a.png"),
        (["normals", "{depth}", "-o", "a.png", "--method", "best"], "geometry or midas"),
        (["normals", "{depth}", "-o", "a.png", "--convention", "unity"], "directx"),
        (["pointcloud", "{depth}", "-o", "a.obj"], "glb or ply"),
        (["mask", "{depth}", "-o", "a.png", "--shape", "disc"], "inverse band"),
        (["fog", "nothing.png", "-o", "a.png"], "nothing.png"),
        (["mask", "nothing.exr", "-o", "a.png"], "nothing.exr"),
    ],
)
def test_what_does_not_fit_is_told_in_a_paragraph(run, tmp_path, monkeypatch, photo, depth, arguments, word):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    status, _, err = run(*(a.format(photo=photo[0], depth=depth[0]) for a in arguments))
    assert status == 1 and word in err.replace("\n", " ") and "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


def test_the_depth_of_a_stereo_pair_in_metres(run, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (96, 208, 3), dtype=np.uint8)
    left, right = noise[:, :160], noise[:, 8:168]
    for name, view in (("l", left), ("r", right), ("both", np.concatenate([left, right], 1))):
        Image.fromarray(view).save(tmp_path / f"{name}.png")
    out, lens = tmp_path / "new" / "z.exr", ("--focal", 100, "--baseline", 0.2)
    status, told, err = run("stereo", tmp_path / "l.png", tmp_path / "r.png", "-o", out, *lens)
    assert (status, told.strip()) == (0, str(out)) and "disparities" in err
    held = load_depth(out)
    assert held.kind == "metric" and float(held.metres()[held.valid].median()) == pytest.approx(2.5, abs=0.05)
    both = ("stereo", tmp_path / "both.png", "-o", tmp_path / "b.npz", "--layout", "side by side, left first")
    assert run(*both)[0] == 0 and load_depth(tmp_path / "b.npz").kind == "affine_inverse"
    status, _, err = run("stereo", tmp_path / "l.png", "-o", out)
    assert status == 1 and "right picture is missing" in err


def test_the_depth_of_a_phones_photo(run, tmp_path):
    levels = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    source = lens_blur_photo(tmp_path / "p.jpg", gdepth(levels, "RangeInverse", "m"))
    status, told, err = run("phone", source, "-o", tmp_path / "p.npz", "--image", tmp_path / "p.png")
    assert status == 0 and told.split() == [str(tmp_path / "p.png"), str(tmp_path / "p.npz")]
    assert json.loads(err)["Format"] == "RangeInverse" and load_depth(tmp_path / "p.npz").kind == "metric"
    Image.fromarray(levels).save(tmp_path / "plain.jpg")
    status, _, err = run("phone", tmp_path / "plain.jpg", "-o", tmp_path / "q.npz")
    assert status == 1 and "can be read" in err and not (tmp_path / "q.npz").exists()


def test_the_depth_of_a_depth_camera(run, tmp_path):
    Image.fromarray(np.array([[0, 1000], [2000, 4000]], np.uint16)).save(tmp_path / "d.png")
    (tmp_path / "k.json").write_text('{"fx": 2, "fy": 2, "cx": 0.5, "cy": 0.5}')
    given = (
        "rgbd",
        tmp_path / "d.png",
        "-o",
        tmp_path / "d.npz",
        "--max-range",
        3,
        "--intrinsics",
        tmp_path / "k.json",
    )
    status, _, err = run(*given)
    assert status == 0, err
    held = load_depth(tmp_path / "d.npz")
    assert held.valid.tolist() == [[[False, True], [True, False]]] and held.metres()[0, 1, 0] == 2
    assert float(torch.as_tensor(held.focal).max()) == 2
