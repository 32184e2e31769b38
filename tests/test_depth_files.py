"""Depth in files: exact round trips, foreign files, damaged files, full disks."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from exr_files import exr_file

from fathom import Depth, FathomError, Normals, SettingError, SignalError
from fathom.signals import DepthLook, codec, exr, files
from fathom.signals.depth import depth_from_metres
from fathom.signals.files import load_depth, save_depth, save_series
from fathom.signals.foreign import read_numbers

SUFFIXES = [".png", ".exr", ".npz", ".safetensors"]
EXACT = [".exr", ".npz", ".safetensors"]
KINDS = ["metric", "affine_inverse", "affine_depth", "ordinal"]


def random_depth(kind: str = "affine_inverse", batch: int = 1, masked: bool = True, seed: int = 0) -> Depth:
    made = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, 37, 53, generator=made) * 100
    valid = torch.rand(batch, 37, 53, generator=made) > 0.2 if masked else None
    look = DepthLook("metres", 2, 85) if kind == "metric" else DepthLook(fixed=(-1.5, 0.1))
    return Depth(values.abs() if kind == "metric" else values, kind, valid, 612.3, "tests", look)  # pyright: ignore[reportArgumentType]


def same_fields(one: Depth, other: Depth) -> None:
    assert one.kind == other.kind and one.source == other.source and one.look == other.look
    assert (one.valid is None) == (other.valid is None)
    assert one.valid is None or other.valid is None or torch.equal(one.valid, other.valid)
    a, b = (None if d.focal is None else torch.as_tensor(d.focal) for d in (one, other))
    assert (a is None) == (b is None) and (a is None or b is None or torch.equal(a, b.to(a.dtype)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [True, False])
def test_every_field_comes_back(tmp_path: Path, suffix: str, kind: str, masked: bool) -> None:
    depth = random_depth(kind, masked=masked)
    save_depth(depth, tmp_path / f"d{suffix}")
    back = load_depth(tmp_path / f"d{suffix}")
    same_fields(depth, back)
    seen = torch.ones_like(depth.values, dtype=torch.bool) if depth.valid is None else depth.valid
    if suffix in EXACT:
        assert torch.equal(back.values[seen], depth.values[seen])
    else:
        low, high = float(depth.values[seen].amin()), float(depth.values[seen].amax())
        assert float((back.values - depth.values)[seen].abs().amax()) <= (high - low) / 131068 * 1.001
        assert float(back.values[seen].amin()) == low and float(back.values[seen].amax()) == high
    assert not list(tmp_path.glob(".*")), "temporary files are left"


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_arrays_keep_batches_focals_and_what_is_not_valid(tmp_path: Path, suffix: str) -> None:
    depth = random_depth(batch=3)
    values = depth.values.clone()
    values[0, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    valid = torch.ones_like(values, dtype=torch.bool)
    valid[0, 0, :3] = False
    depth = Depth(values, "affine_inverse", valid, torch.tensor([1.1, 2.2, 3.3]), "three")
    save_depth(depth, tmp_path / f"d{suffix}")
    back = load_depth(tmp_path / f"d{suffix}")
    same_fields(depth, back)
    assert torch.equal(back.values.view(torch.int32), values.view(torch.int32))


def test_png_repeats_its_own_16_bit_numbers(tmp_path: Path) -> None:
    save_depth(random_depth(), tmp_path / "a.png")
    save_depth(load_depth(tmp_path / "a.png"), tmp_path / "b.png")
    first, again = codec.read_plane(tmp_path / "a.png")[0], codec.read_plane(tmp_path / "b.png")[0]
    assert codec.read_plane(tmp_path / "a.png")[1] == 16 and torch.equal(first, again)
    assert float(first.amax()) == 65535 and float(first.amin()) == 0  # 0: not valid


def test_png_is_16_bit_grey_that_others_read(tmp_path: Path) -> None:
    import cv2

    depth = random_depth(masked=False)
    save_depth(depth, tmp_path / "a.png")
    seen = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    assert seen is not None and seen.dtype == np.uint16 and seen.shape == (37, 53)
    assert seen.argmax() == int(depth.values.argmax())  # near is white
    aside = json.loads((tmp_path / "a.json").read_text())
    assert aside["kind"] == "affine_inverse" and aside["unit"] == depth.unit


def test_png_reads_its_sidecar_first_and_needs_none(tmp_path: Path) -> None:
    save_depth(random_depth(), tmp_path / "a.png")
    about = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**about, "source": "edited"}))
    assert load_depth(tmp_path / "a.png").source == "edited"
    (tmp_path / "a.json").unlink()
    assert load_depth(tmp_path / "a.png").source == "tests"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (17, 16)])
def test_small_and_constant_pictures(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    depth = Depth(torch.full((1, *size), 2.5), "ordinal")
    save_depth(depth, tmp_path / f"d{suffix}")
    assert torch.equal(load_depth(tmp_path / f"d{suffix}").values, depth.values)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_valid(tmp_path: Path, suffix: str) -> None:
    depth = Depth(torch.full((1, 4, 5), torch.nan), "ordinal", torch.zeros(1, 4, 5, dtype=torch.bool))
    save_depth(depth, tmp_path / f"d{suffix}")
    back = load_depth(tmp_path / f"d{suffix}")
    assert back.valid is not None and not bool(back.valid.any())


# ---------------------------------------------------------------------------------------------- EXR


def test_exr_repeats_every_bit_of_float32() -> None:
    bits = torch.randint(-(2**31), 2**31 - 1, (64, 63), generator=torch.Generator().manual_seed(1))
    plane = bits.to(torch.int32).view(torch.float32)
    back, name, texts = exr.decode(exr.encode(plane, {"workflow": "ü" * 70000}))
    assert name == "Z" and texts["workflow"] == "ü" * 70000
    assert torch.equal(back.view(torch.int32), plane.view(torch.int32))


def test_exr_in_metres_for_other_programs(tmp_path: Path) -> None:
    metres = torch.tensor([[[1.3, 2.7, torch.inf, 0.0]]])
    depth = depth_from_metres(metres)
    save_depth(depth, tmp_path / "m.exr", metres=True)
    plane, _, _ = exr.decode((tmp_path / "m.exr").read_bytes())
    assert plane[0, :3].tolist() == depth.metres()[0, 0, :3].tolist() and plane[0, 3].isnan()
    back = load_depth(tmp_path / "m.exr")
    assert back.kind == "metric" and back.valid is not None and depth.valid is not None
    assert torch.equal(back.valid, depth.valid)
    assert torch.allclose(back.values, depth.values, rtol=1.2e-7, atol=0)
    with pytest.raises(SignalError, match="near and far"):
        save_depth(random_depth(), tmp_path / "n.exr", metres=True)


@pytest.mark.parametrize("compression", [0, 2])
@pytest.mark.parametrize(
    "names",
    [
        ["Z"],
        ["A", "B", "G", "R", "Z"],
        ["ViewLayer.Combined.R", "ViewLayer.Depth.Z"],
        ["Y"],
        ["R", "depth.V"],
        ["R", "q.V"],
    ],
)
def test_exr_of_renderers(names: list[str], compression: int) -> None:
    rng = np.random.default_rng(3)
    wanted = next((n for n in names if n[-1] in "ZY" or n == "depth.V"), None)
    made = {n: np.round(rng.random((11, 40)) * 9, 1).astype(np.float32) for n in names}
    data = exr_file(made, compression)
    if wanted is None:
        with pytest.raises(SignalError, match="no depth channel"):
            exr.decode(data)
        return
    plane, name, _ = exr.decode(data)
    assert name == wanted and np.array_equal(plane.numpy(), made[wanted])


def test_exr_of_half_floats() -> None:
    made = (np.random.default_rng(4).random((9, 33)) * 20).astype(np.float16)
    plane, _, _ = exr.decode(exr_file({"Z": made}))
    assert np.array_equal(plane.numpy(), made.astype(np.float32))


# ---------------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_told(tmp_path: Path, suffix: str, share: float) -> None:
    file = tmp_path / f"d{suffix}"
    save_depth(random_depth(), file)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SignalError, match=f"d{suffix}"):
        load_depth(file)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_and_foreign_files_are_told(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(FathomError, match="no file"):
        load_depth(tmp_path / f"gone{suffix}")
    (tmp_path / f"text{suffix}").write_bytes(b"this is a text, not a depth map" * 9)
    with pytest.raises(SignalError, match="text"):
        load_depth(tmp_path / f"text{suffix}")


def write_png(path: Path, array: np.ndarray) -> None:
    import cv2

    assert cv2.imwrite(str(path), array)


def test_png_of_others_must_be_explained(tmp_path: Path) -> None:
    write_png(tmp_path / "sensor.png", np.arange(60, dtype=np.uint16).reshape(6, 10) * 1001)
    with pytest.raises(SignalError, match="not written by Fathom"):
        load_depth(tmp_path / "sensor.png")
    plane, bits, text = codec.read_plane(tmp_path / "sensor.png")
    assert bits == 16 and text is None and float(plane[5, 9]) == 59 * 1001


def test_png_of_16_bit_colour_keeps_all_bits(tmp_path: Path) -> None:
    grey = (np.arange(60, dtype=np.uint16).reshape(6, 10) * 1001).astype(np.uint16)
    write_png(tmp_path / "rgb.png", np.stack([grey] * 3, -1))
    plane, bits, _ = codec.read_plane(tmp_path / "rgb.png")
    assert bits == 16 and np.array_equal(plane[..., 0].numpy(), grey.astype(np.float32))


def test_8_bits_are_found_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_depth(random_depth(), tmp_path / "a.png")
    grey = (codec.read_plane(tmp_path / "a.png")[0] // 256).numpy().astype(np.uint8)
    write_png(tmp_path / "a.png", grey)  # the sidecar still says 16 bits
    with pytest.raises(SignalError, match="16 bits and has 8"):
        load_depth(tmp_path / "a.png")
    write_png(tmp_path / "b.png", grey.astype(np.uint16) * 257)
    with caplog.at_level(logging.WARNING):
        read_numbers(tmp_path / "b.png")
    assert "made from 8 bits" in caplog.text


@pytest.mark.parametrize("suffix", [".png", ".exr"])
def test_one_picture_per_png_or_exr(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(SignalError, match="batch of 2"):
        save_depth(random_depth(batch=2), tmp_path / f"d{suffix}")
    assert not list(tmp_path.iterdir())


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="suffix"):
        save_depth(random_depth(), tmp_path / "d.jpg")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, step: str) -> None:
    save_depth(random_depth(seed=1), tmp_path / f"old{suffix}")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    calls = []

    def full(*_: object) -> None:
        calls.append(1)
        if suffix == ".png" and step == "fsync" and len(calls) % 2:
            return  # there is room for the sidecar, not for the picture
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(codec.os, step, full)
    for name in ("new", "old"):
        with pytest.raises(FathomError, match="No space left"):
            save_depth(random_depth(seed=2), tmp_path / f"{name}{suffix}")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/full")
def test_a_really_full_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open

    def on_full_device(path: object, mode: str = "r", *rest: object) -> object:
        return real("/dev/full", "wb") if mode == "xb" else real(path, mode, *rest)  # pyright: ignore

    monkeypatch.setattr("builtins.open", on_full_device)
    with pytest.raises(FathomError, match="No space left"):
        save_depth(random_depth(), tmp_path / "d.exr")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- series


def test_series_counts_on(tmp_path: Path) -> None:
    depth = random_depth(batch=3)
    written = save_series(depth, tmp_path / "a%batch_num%_00007_.exr", texts={"prompt": "{}"})
    assert [p.name for p in written] == ["a0_00007_.exr", "a1_00008_.exr", "a2_00009_.exr"]
    for place, path in enumerate(written):
        same_fields(load_depth(path), depth[place])
    assert [p.name for p in save_series(depth, tmp_path / "a_00001_.npz")] == ["a_00001_.npz"]
    with pytest.raises(SettingError, match="00001"):
        save_series(depth, tmp_path / "a.npz")


def test_series_of_a_video_shares_black_and_white(tmp_path: Path) -> None:
    depth = Depth(torch.tensor([[[0.0, 1.0]], [[0.0, 4.0]]]), "ordinal")
    planes = [codec.read_plane(p)[0][0, 1] for p in save_series(depth, tmp_path / "v_00001_.png", scope="batch")]
    assert [float(p) for p in planes] == [1 + round(65534 / 4), 65535]
    back = [float(load_depth(tmp_path / f"v_0000{i}_.png").values[0, 0, 1]) for i in (1, 2)]
    assert back == pytest.approx([1, 4], abs=1e-4)


def test_each_picture_of_a_series_has_its_own_black_and_white_unless_it_is_asked_otherwise(tmp_path: Path) -> None:
    depth = Depth(torch.tensor([[[1.0, 2.0, 3.0]], [[2.0, 5.0, 9.0]]]), "ordinal")
    for first in ("a_00001_.png", "b_00001_.exr", "c_00001_.npz"):
        files.save_series(depth, tmp_path / first, scope="image")
    planes = [codec.read_plane(tmp_path / f"a_0000{i}_.png")[0][0] for i in (1, 2)]
    assert [(float(p[0]), float(p[2])) for p in planes] == [(1.0, 65535.0)] * 2
    shared = [codec.read_plane(p)[0][0] for p in save_series(depth, tmp_path / "d_00001_.png", scope="batch")]
    assert float(shared[0][0]) == 1.0 and float(shared[1][2]) == 65535.0, "the very ends, whatever their share"
    for first in ("e_00001_.exr", "e_00001_.npz"):
        back = load_depth(save_series(depth, tmp_path / first, scope="batch")[-1])
        assert torch.equal(back.values[-1], depth.values[-1])
    for suffix in SUFFIXES:
        with pytest.raises(SignalError, match="scope"):
            save_series(depth, tmp_path / f"f_00001_{suffix}", scope="film")


def test_a_file_of_another_kind_of_signal_is_told(tmp_path: Path) -> None:
    normals = Normals(torch.tensor([0.0, 0.0, 1.0]).expand(1, 4, 5, 3))
    normals.save(tmp_path / "n.npz")
    with pytest.raises(SignalError, match="n.npz holds normals, and depth is wanted"):
        load_depth(tmp_path / "n.npz")


def test_a_signal_comes_back_from_the_bytes_of_its_png() -> None:
    depth = random_depth()
    written = depth.encode("d.png")
    back = files.decode_png(next(data for path, data in written.items() if path.suffix == ".png"))
    assert isinstance(back, Depth) and back.kind == depth.kind
    assert depth.valid is not None and back.valid is not None and torch.equal(back.valid, depth.valid)
    with pytest.raises(SignalError, match="does not say what it holds"):
        files.decode_png(codec.picture(torch.rand(4, 4, 3), "png"))


def test_a_fingerprint_counts_what_would_be_loaded(tmp_path: Path) -> None:
    for suffix, counts in {".png": True, ".npz": False}.items():
        path = tmp_path / f"d{suffix}"
        save_depth(random_depth(), path)
        before = files.fingerprint(path)
        (tmp_path / "d.json").write_text("{}")
        assert (files.fingerprint(path) != before) == counts, suffix
        (tmp_path / "d.json").unlink()
        save_depth(random_depth(seed=1), path)
        assert files.fingerprint(path) != before


def test_texts_travel_in_every_format(tmp_path: Path) -> None:
    from PIL import Image
    from safetensors import safe_open

    texts = {"prompt": '{"1": "ä"}', "workflow": "{}"}
    for suffix in SUFFIXES:
        save_depth(random_depth(), tmp_path / f"d{suffix}", texts=texts)
    with Image.open(tmp_path / "d.png") as image:
        assert {k: image.text[k] for k in texts} == texts  # pyright: ignore[reportAttributeAccessIssue]
    assert texts.items() <= exr.decode((tmp_path / "d.exr").read_bytes())[2].items()
    with np.load(tmp_path / "d.npz") as stored:
        assert {k: str(stored[k]) for k in texts} == texts
    with safe_open(tmp_path / "d.safetensors", "pt") as stored:
        assert texts.items() <= stored.metadata().items()


# ---------------------------------------------------------------------------------------------- nodes


@pytest.mark.parametrize("format", list(files.FORMATS))
def test_nodes_save_numbered_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    from fathom.nodes.depth_io import FathomLoadDepth, FathomSaveDepth

    monkeypatch.chdir(tmp_path)
    suffix = files.FORMATS[format]
    depth = random_depth(batch=2)
    for first in (1, 3 if format in ("png16", "exr") else 2):
        hidden = {"prompt": {"1": {}}, "extra_pnginfo": {"workflow": {}}}
        told = FathomSaveDepth().execute(depth, "sub/d_%width%", format, **hidden)
        assert told["result"][0] is depth and len(told["ui"]["images"]) == (2 if format == "png16" else 0)
        assert any(p.name.endswith(f"_{first:05}_{suffix}") for p in (tmp_path / "sub").iterdir())
    file = next(p for p in sorted((tmp_path / "sub").iterdir()) if p.suffix == suffix).relative_to(tmp_path).as_posix()
    assert FathomLoadDepth.VALIDATE_INPUTS(file) is True
    back, image = FathomLoadDepth().execute(file)
    assert back.kind == depth.kind and image.shape[1:] == (37, 53, 3)
    before = FathomLoadDepth.IS_CHANGED(file)
    (tmp_path / file).write_bytes(b"other")
    assert FathomLoadDepth.IS_CHANGED(file) != before
    assert "no file" in str(FathomLoadDepth.VALIDATE_INPUTS("sub/gone.exr"))


def test_node_saves_nothing_outside_the_output_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fathom.nodes.depth_io import FathomSaveDepth

    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    for prefix in ("../d", "a/../../d", str(tmp_path / "d")):
        with pytest.raises(SettingError, match="outside"):
            FathomSaveDepth().execute(random_depth(), prefix, "exr")
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and not list((tmp_path / "out").iterdir())
