"""The shell: every command by its real entry point."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fathom
from fathom.annotator import loading
from fathom.signals.files import load_depth


@pytest.fixture
def photo(tmp_path, scene):
    """A photo in a file."""
    path = tmp_path / "photo.png"
    Image.fromarray((scene[0].numpy() * 255).round().astype(np.uint8)).save(path)
    return path


def test_the_installed_command_annotates_offline(tmp_path, photo):
    done = subprocess.run(
        [sys.executable, "-m", "fathom", "annotate", str(photo), "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "", "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    target = tmp_path / "out" / "photo_depth.png"
    assert done.stdout.split() == [str(target)]
    assert np.asarray(Image.open(target)).shape == (96, 128, 3)


@pytest.mark.parametrize("format", ["png", "png16", "exr", "npz"])
def test_every_format_holds_the_same_depth(run, tmp_path, photo, scene, format):
    assert run("annotate", photo, "-o", tmp_path, "-f", format, "-r", "64")[0] == 0
    expected = fathom.load("fathom-tiny")((scene * 255).round() / 255, 64)
    written = tmp_path / ("photo_depth." + {"png16": "png"}.get(format, format))
    if format == "png":
        levels = (expected.to_image()[0].numpy() * 255).round()
        assert np.abs(np.asarray(Image.open(written)).astype(float) - levels).max() <= 1
        return
    depth = load_depth(written)
    assert depth.kind == "ordinal"
    step = float(expected.values.amax() - expected.values.amin()) / 65534 if format == "png16" else 1e-4
    torch.testing.assert_close(depth.values, expected.values, rtol=0, atol=step)


@pytest.mark.parametrize("format", ["png", "exr", "npz"])
def test_every_map_of_a_decomposition_is_told(run, tmp_path, photo, scene, format, tiny_annotator, monkeypatch):
    tiny = tiny_annotator("marigold-lighting")
    monkeypatch.setattr(loading, "load", lambda *_: tiny)
    status, out, _ = run("annotate", photo, "-o", tmp_path / "out", "-f", format, "-e", "marigold-lighting", "-r", "64")
    names = ["_albedo", "_shading", "_residual"] if format != "npz" else [""]
    written = [tmp_path / "out" / f"photo_intrinsics{name}.{format}" for name in names]
    assert status == 0 and out.split() == [str(path) for path in written]
    if format == "png":
        made = tiny((scene * 255).round() / 255, 64)
        for path, name in zip(written, made.names, strict=True):
            levels = (made.to_image(name)[0].numpy() * 255).round()
            assert np.abs(np.asarray(Image.open(path)).astype(float) - levels).max() <= 1


@pytest.mark.parametrize("name", ["a" * 300, "link"], ids=["too long", "to itself"])
def test_a_path_that_cannot_be_looked_at_is_told(run, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("link")
    status, _, err = run("tool", "fog", name, "-o", "fog.png")
    assert status == 1 and ("cannot be read" in err or "no file" in err) and "Traceback" not in err


def test_upright_by_exif(run, tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 40), "grey").save(path, exif=exif)
    assert run("annotate", path, "-o", tmp_path)[0] == 0
    assert Image.open(tmp_path / "turned_depth.png").size == (40, 80)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such.png"], "there is no file no-such.png"),
        (["."], "lies inside the source"),
        (["photo.png", "-e", "fathom-tony"], "Did you mean fathom-tiny"),
        (["photo.png", "-r", "-4"], "resolution must lie in 0..16384"),
        (["photo.png", "sub/photo.png"], "would both be written"),
        (["photo.png", "--weights", "text.png"], "text.png"),
        (["photo.png", "--option", "steps=2"], "fathom-tiny has no option 'steps'"),
        (["photo.png", "-e", "marigold-depth", "--option", "steps=ten"], "steps must be a whole number, got 'ten'"),
        (["photo.png", "-e", "zoedepth-n", "--option", "flip_augmentation"], "an option is name=value"),
    ],
)
def test_errors_are_one_paragraph_and_status_1(run, tmp_path, photo, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "photo.png").write_bytes(photo.read_bytes())
    status, _, err = run("annotate", *arguments)
    assert status == 1 and words in err.replace("\n", " ") and "Traceback" not in err


def test_an_unreadable_photo_is_told_and_the_others_are_done(run, tmp_path, photo):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    out = tmp_path / "out"
    status, told, err = run("annotate", tmp_path / "text.png", photo, tmp_path / "link.png", "-o", out, "-f", "png16")
    assert status == 3 and told.split() == [str(out / "photo_depth.png")]
    lines = err.splitlines()
    assert len(lines) == 2 and "text.png is not a picture" in lines[0] and "a link to a file that is not" in lines[1]
    # No books, no half-written files: photos named one by one leave nothing but their results.
    assert {p.name for p in out.iterdir()} == {"photo_depth.png", "photo_depth.json"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--video", "video"], "--video does nothing for photos"),
        (["--column", "image"], "--column does nothing for photos"),
        (["--workers", "2"], "--workers does nothing without --engine ray"),
        (["--address", "auto"], "--address does nothing without --engine ray"),
        (["--gpus", "1"], "--gpus does nothing without --engine ray"),
        (["--chunk", "64"], "--chunk does nothing for photos named one by one"),
        (["-s", "a=fathom-tiny", "-e", "fathom-tiny"], "--estimator does nothing beside --signal"),
        (["--cpus", "0.5"], "--cpus is a whole number here"),
        (["--cpus", "-2"], "--cpus must lie in 0..4096, got -2"),
        (["--cpus", "inf"], "--cpus must lie in 0..4096, got inf"),
        (["--cpus", "1e308"], "--cpus must lie in 0..4096"),
        (["--engine", "ray", "--gpus", "nan"], "--gpus must lie in 0..4096, got nan"),
        (["--device", "cudaa"], "the device 'cudaa' cannot be used"),
        (["--device", "meta"], "the device 'meta' cannot be used"),
        (["-o", "{photo}"], "cannot be the output folder"),
        (["-o", "{photo}/deeper"], "cannot be made"),
    ],
)
def test_what_would_do_nothing_or_cannot_be_is_refused(run, tmp_path, photo, arguments, words):
    out = [] if "-o" in arguments else ["-o", tmp_path / "out"]
    status, _, err = run("annotate", photo, *(a.format(photo=photo) for a in arguments), *out)
    assert status == 1 and words in err.replace("\n", " ") and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_photos_take_the_settings_of_a_run(run, tmp_path, photo):
    assert run("annotate", photo, "-o", tmp_path / "out", "--cpus", "1", "-r", "32")[0] == 0
    assert Image.open(tmp_path / "out" / "photo_depth.png").size == (43, 32)


def test_misuse_is_status_2(run):
    status, _, err = run("annotate")
    assert status == 2 and "Missing argument" in err


def test_models_lists_every_estimator(run):
    status, out, _ = run("models")
    assert status == 0
    for e in fathom.estimators().values():
        line = next(part for part in out.splitlines() if part.split()[0] == e.id)
        assert e.licence.name.split()[0] in line
    assert "comes with Fathom" in out


def test_the_models_page_is_the_registrys(run):
    from pathlib import Path

    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    assert run("models", "--markdown")[1] in page, "run: fathom models --markdown, and put the table in docs/models.md"


def test_options_of_models_are_listed(run):
    status, out, _ = run("models", "options", "marigold-depth", "zoedepth-n", "fathom-tiny")
    assert status == 0 and "fathom-tiny" not in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert any(line.startswith("marigold-depth ensemble_size 1 1..100") for line in lines)
    assert any(line.startswith("zoedepth-n flip_augmentation true true, false") for line in lines)
    assert "no options" in run("models", "options", "fathom-tiny")[2]


def test_an_option_of_the_model_is_set(run, tmp_path, photo, tiny_annotator, monkeypatch, scene):
    tiny = tiny_annotator("zoedepth-n")
    monkeypatch.setattr(loading, "load", lambda *_: tiny)
    how = ["annotate", photo, "-e", "zoedepth-n", "-f", "npz", "-r", "64"]
    assert run(*how, "-o", tmp_path / "one", "--option", "flip_augmentation=False")[0] == 0
    assert run(*how, "-o", tmp_path / "two")[0] == 0
    one, two = (load_depth(tmp_path / name / "photo_depth.npz").values for name in ("one", "two"))
    picture = (scene * 255).round() / 255
    torch.testing.assert_close(one, tiny(picture, 64, flip_augmentation=False).values)
    torch.testing.assert_close(two, tiny(picture, 64).values)
    assert not torch.equal(one, two)


def test_verify_tells_a_file_that_is_not_the_published_one(run, tmp_path, monkeypatch):
    # A path longer than a line.
    folder = tmp_path / ("long" * 20) / ("path" * 30)
    folder.mkdir(parents=True)
    monkeypatch.setenv("FATHOM_MODELS", str(folder))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
    assert run("models", "verify")[0] == 0
    source = fathom.estimators()["midas-dpt-hybrid"].sources[0]
    with open(folder / source.file, "wb") as file:
        file.truncate(source.size)
    status, out, _ = run("models", "verify")
    assert status == 1 and "mismatch" in out and "delete it" in out
    assert str(folder / source.file) in "".join(line.split("  ")[0].strip() for line in out.splitlines()[1:])


def test_compare_lays_results_out(run, tmp_path, photo):
    target = tmp_path / "sheet.png"
    assert run("compare", photo, "-e", "fathom-tiny", "-o", target, "-r", "64")[0] == 0
    assert Image.open(target).size[0] > 2 * 85


def test_the_commands_of_readmes_gallery_make_its_pictures(run, tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    spec = importlib.util.spec_from_file_location("gallery", root / "scripts" / "gallery.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets").mkdir()
    with Image.open(root / "assets" / "sample.png") as file:
        file.resize((192, 128)).save(tmp_path / "assets" / "sample.png")
    for picture, commands in script.gallery():
        assert (root / picture).is_file()
        for command in commands:
            status, _, told = run(*command)
            assert status == 0, told
    names = {"sample_depth.png", "sample_normals.png", "sample_lines.png", "fog.png", "blur.png", "01_near.png"}
    assert names <= {path.name for path in tmp_path.rglob("*.png")}
