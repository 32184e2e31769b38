"""Depth in other programs' files: what is read of each format, what is no measurement, what is refused."""

from __future__ import annotations

import io
import logging
import math
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exr_files import exr_file
from PIL import Image

from fathom import Depth, FathomError, PictureError, SettingError, SignalError, load_signal
from fathom.annotator.decode import decode
from fathom.signals.foreign import MOST_PIXELS, SUFFIXES, read_numbers
from fathom.tools.convert import depth_from_file, depth_from_image, to_metric

METRES = np.linspace(1.5, 9, 12 * 20, dtype=np.float32).reshape(12, 20)
MILLIMETRES = np.rint(METRES * 1000).astype(np.uint16)


def png(array: np.ndarray, kind: int, bits: int) -> bytes:
    """A PNG whose numbers are just these. kind: 0 grey, 2 colour, 4 grey and 6 colour with transparency."""
    height, width = array.shape[:2]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + r.astype(">u2" if bits == 16 else "u1").tobytes() for r in array)
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def metres(path: Path, *said: Any, **more: Any) -> np.ndarray:
    depth = depth_from_file(path, *(said or ("metric", 1.0, "m")), **more)
    found = depth.metres().numpy()
    return found if depth.valid is None else np.where(depth.valid.numpy(), found, np.nan)


def valid(depth: Depth) -> list[bool]:
    return (torch.ones_like(depth.values, dtype=torch.bool) if depth.valid is None else depth.valid).flatten().tolist()


# ---------------------------------------------------------------------------------------------- formats


def tiff(tmp_path: Path, array: np.ndarray, **options: Any) -> Path:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "d.tif", array, **options)
    return tmp_path / "d.tif"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw"},
        {"bigtiff": True},
        {"rowsperstrip": 5},
    ],
)
@pytest.mark.parametrize("kind", ["f4", "f8", "u2", "u4"])
def test_tiff_in_metres_or_millimetres(tmp_path: Path, options: dict[str, Any], kind: str) -> None:
    if options.get("compression"):
        pytest.importorskip("imagecodecs")
    whole = kind[0] == "u"
    numbers = MILLIMETRES if whole else METRES
    found = metres(
        tiff(tmp_path, numbers.astype(kind), photometric="minisblack", **options), "metric", 1, "mm" if whole else "m"
    )
    assert np.allclose(found[0], numbers / (1000 if whole else 1), rtol=1e-6)


@pytest.mark.parametrize("kind", ["f4", "u2"])
def test_tiff_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tiff(tmp_path, (METRES if kind == "f4" else MILLIMETRES).astype(kind), photometric="minisblack")
    other = (tmp_path / "o.tif", METRES.astype("f8"))
    pytest.importorskip("tifffile").imwrite(*other)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert np.allclose(metres(path, "metric", 1, "m" if kind == "f4" else "mm")[0], METRES, atol=6e-4)
    with pytest.raises(SignalError, match="tifffile"):
        metres(other[0])


def test_tiff_whose_white_is_zero(tmp_path: Path) -> None:
    path = tiff(tmp_path, 65535 - MILLIMETRES, photometric="miniswhite")
    assert np.allclose(metres(path, "metric", 1, "mm")[0], METRES, atol=6e-4)


@pytest.mark.parametrize(("nothing", "kind"), [("-9999", "f4"), ("-3.4028234663852886e+38", "f4"), ("65535", "u2")])
@pytest.mark.parametrize("library", [True, False])
def test_what_gdal_calls_no_data_is_not_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing: str, kind: str, library: bool
) -> None:
    numbers = (METRES if kind == "f4" else MILLIMETRES).astype(kind)
    numbers[0, :2] = float(nothing)
    path = tiff(tmp_path, numbers, photometric="minisblack", extratags=[(42113, "s", 0, nothing, True)])
    if not library:
        monkeypatch.setitem(sys.modules, "tifffile", None)
    found = read_numbers(path)
    assert found.valid is not None and (~found.valid).nonzero().tolist() == [[0, 0, 0], [0, 0, 1]]


def gdal_says(**roles: Any) -> str:
    items = "".join(f'  <Item name="{r.upper()}" sample="0" role="{r}">{v}</Item>\n' for r, v in roles.items())
    return f'<GDALMetadata>\n  <Item name="SCALE" sample="1" role="scale">7</Item>\n{items}</GDALMetadata>'


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize(
    "roles", [{"offset": 1, "scale": "0.001"}, {"scale": "0.00100000000000000002"}, {"offset": -1}]
)
def test_what_gdal_calls_scale_and_offset_is_applied_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, roles: Any, library: bool
) -> None:
    numbers = MILLIMETRES if "scale" in roles else MILLIMETRES // 100
    numbers = numbers.copy()
    numbers[0, 0] = 65535
    tags = [(42112, "s", 0, gdal_says(**roles), True), (42113, "s", 0, "65535", True)]
    path = tiff(tmp_path, numbers, photometric="minisblack", extratags=tags)
    if not library:
        monkeypatch.setitem(sys.modules, "tifffile", None)
    found = metres(path)[0]
    wanted = numbers * float(roles.get("scale", 1)) + float(roles.get("offset", 0))
    assert np.isnan(found[0, 0]) and np.allclose(found.flatten()[1:], wanted.flatten()[1:], rtol=1e-6)
    assert "says what its numbers mean" in caplog.text


@pytest.mark.parametrize(
    "roles", [{"scale": "0"}, {"scale": "nan"}, {"offset": "inf"}, {"scale": "much"}, {"offset": ""}]
)
def test_a_scale_or_an_offset_that_is_none_is_refused(tmp_path: Path, roles: Any) -> None:
    path = tiff(tmp_path, MILLIMETRES, photometric="minisblack", extratags=[(42112, "s", 0, gdal_says(**roles), True)])
    with pytest.raises(SignalError, match="multiplied by .* and .* added"):
        metres(path)
    assert decode(path.read_bytes(), path.name).shape[1:3] == METRES.shape, "a photo's colours have no such meaning"


@pytest.mark.parametrize("colours", [1, 3])
def test_transparent_pixels_of_a_tiff_are_not_valid(tmp_path: Path, colours: int) -> None:
    alpha = np.where(METRES < 3, 0, np.where(METRES < 5, 1, 255)).astype(np.uint16)
    levels = np.concatenate([np.repeat(MILLIMETRES[..., None], colours, 2), alpha[..., None]], 2)
    kind = "minisblack" if colours == 1 else "rgb"
    path = tiff(tmp_path, levels, photometric=kind, extrasamples=["unassalpha"], planarconfig="contig")
    found = metres(path, "metric", 1.0, "mm")[0]
    assert np.array_equal(np.isfinite(found), alpha > 0), "one level of 65535 is seen"
    assert np.allclose(found[alpha > 0], METRES[alpha > 0], atol=1e-3)


def test_tiff_pages_are_asked_for(tmp_path: Path) -> None:
    path = tiff(tmp_path, np.stack([METRES, METRES * 2]), photometric="minisblack")
    with pytest.raises(SignalError, match="2 pages"):
        metres(path)
    assert np.allclose(metres(path, channel="1")[0], METRES * 2)
    with pytest.raises(SignalError, match="pages 0 to 1"):
        metres(path, channel="2")
    with pytest.raises(SettingError, match="number of its page"):
        metres(path, channel="Z")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("colours", [1, 3])
def test_pfm(tmp_path: Path, order: str, colours: int) -> None:
    scale, magic = ("-1.0" if order == "<" else "1"), "Pf" if colours == 1 else "PF"
    rows = np.repeat(METRES[::-1, :, None], colours, 2).astype(order + "f4")
    for head in (f"{magic}\n20 12\n{scale}\n", f"{magic} 20\t12 {scale} ", f"{magic}\r\n20 12\r\n{scale}\r\n"):
        (tmp_path / "d.pfm").write_bytes(head.encode() + rows.tobytes())
        assert np.allclose(metres(tmp_path / "d.pfm")[0], METRES)
    (tmp_path / "d.pfm").write_bytes(f"{magic}\n# by a renderer\n20 12\n# metres\n{scale}\n".encode() + rows.tobytes())
    assert np.allclose(metres(tmp_path / "d.pfm")[0], METRES)
    assert read_numbers(tmp_path / "d.pfm").bits == 32


def test_one_white_space_parts_the_numbers_of_a_pfm_from_its_header(tmp_path: Path) -> None:
    rows = METRES[::-1].astype("<f4").tobytes()
    for head, tail in ((b"Pf\n20 12\n-1.0\n", b"\n"), (b"Pf\n20 12\n-1.0\r", b""), (b"Pf\n20 12\n-1.0\r\n", b"")):
        (tmp_path / "d.pfm").write_bytes(head + rows + tail)
        assert np.allclose(metres(tmp_path / "d.pfm")[0], METRES)
    line_feed = np.frombuffer(b"\n" + rows[1:], "<f4").reshape(12, 20)[::-1]
    (tmp_path / "d.pfm").write_bytes(b"Pf\n20 12\n-1.0\r" + line_feed[::-1].tobytes())
    assert np.array_equal(read_numbers(tmp_path / "d.pfm").values[0].numpy(), line_feed), "the first number begins so"


@pytest.mark.parametrize("scale", ["1e5e", "--1", "nan", "inf", "", ".", "e", "1" * 400])
def test_a_pfm_whose_scale_is_no_number(tmp_path: Path, scale: str) -> None:
    (tmp_path / "d.pfm").write_bytes(f"Pf\n20 12\n{scale}\n".encode() + METRES.tobytes())
    with pytest.raises(SignalError, match="does not begin as a PFM"):
        metres(tmp_path / "d.pfm")


@pytest.mark.parametrize("suffix", ["pfm", "pgm"])
@pytest.mark.parametrize("filling", [b" ", b"#", b"#\n", b" #\n"])
def test_a_header_of_nothing_takes_no_time(tmp_path: Path, suffix: str, filling: bytes) -> None:
    start = {"pfm": b"Pf", "pgm": b"P5"}[suffix]
    (tmp_path / f"d.{suffix}").write_bytes(start + filling * (1_000_000 // len(filling)))
    started = time.monotonic()
    with pytest.raises(SignalError, match="does not begin"):
        metres(tmp_path / f"d.{suffix}")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("most", [255, 65535])
def test_pgm(tmp_path: Path, most: int) -> None:
    numbers = (np.arange(240).reshape(12, 20) + 1).astype(">u2" if most > 255 else "u1")
    (tmp_path / "d.pgm").write_bytes(f"P5\n# a camera\n20 12\n{most}\n".encode() + numbers.tobytes())
    depth = depth_from_file(tmp_path / "d.pgm", "inverse", 1, "relative")
    assert np.array_equal(depth.values[0].numpy(), numbers.astype(np.float32))


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_a_picture_beyond_pillows_limit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    Image.fromarray((METRES * 1000).astype(np.uint16)).save(tmp_path / f"d{suffix}")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(SignalError, match="larger than Pillow's limit: cut it into pieces"):
        metres(tmp_path / f"d{suffix}")


def test_a_text_pgm_is_told(tmp_path: Path) -> None:
    (tmp_path / "d.pgm").write_bytes(b"P2\n2 1\n255\n7 9\n")
    with pytest.raises(SignalError, match=r"text PGM \(P2\): save it as a binary one"):
        metres(tmp_path / "d.pgm")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_another_program_without_a_meaning_is_asked_for_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"d{suffix}"
    if suffix == ".npz":
        np.savez(path, depth=METRES)
    elif suffix == ".npy":
        np.save(path, METRES)
    elif suffix == ".pfm":
        path.write_bytes(b"Pf\n20 12\n-1.0\n" + METRES.tobytes())
    elif suffix == ".exr":
        path.write_bytes(exr_file({"Z": METRES}))
    elif suffix == ".pgm":
        path.write_bytes(b"P5\n20 12\n65535\n" + METRES.astype(">u2").tobytes())
    else:
        Image.fromarray((METRES * 1000).astype(np.uint16)).save(path)
    assert metres(path).shape == (1, 12, 20)
    for load in (load_signal, lambda p: depth_from_file(p, "as saved", 1, "m")):
        with pytest.raises(SignalError, match=r"Fathom.*take a meaning \(inverse, metric or disparity\)"):
            load(path)


@pytest.mark.parametrize("shape", [(2, 3), (5, 4), (7, 2), (3, 5), (1, 2, 3, 1), (1, 1, 6, 4)])
def test_an_array_as_narrow_as_colours_are_many_is_a_depth_where_it_has_two_sides(tmp_path: Path, shape: Any) -> None:
    array = np.arange(1, 1 + math.prod(shape), dtype=np.float32).reshape(shape)
    np.save(tmp_path / "d.npy", array)
    if len(shape) == 2:
        assert np.allclose(metres(tmp_path / "d.npy")[0], array)
    else:
        with pytest.raises(SignalError, match="shaped"):
            metres(tmp_path / "d.npy")


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4", "u2", "i4"])
@pytest.mark.parametrize("shape", [(12, 20), (1, 12, 20), (12, 20, 1), (3, 4, 20), (3, 1, 4, 20)])
def test_npy(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    numbers = (METRES * 100).round().astype(kind).reshape(shape)
    np.save(tmp_path / "d.npy", numbers)
    found = metres(tmp_path / "d.npy", "metric", 1, "cm")
    assert found.shape[0] == (3 if shape[0] == 3 else 1)
    assert np.allclose(found.ravel(), numbers.astype(np.float32).ravel() / 100, rtol=1e-3)


def test_npz_takes_the_depth_and_its_mask_and_asks_among_several(tmp_path: Path) -> None:
    mask = METRES < 5
    np.savez(tmp_path / "a.npz", depth=METRES, mask=mask, K=np.eye(3), image=np.zeros((12, 20, 3), np.uint8))
    found = metres(tmp_path / "a.npz")
    assert np.array_equal(np.isfinite(found[0]), mask) and np.allclose(found[0][mask], METRES[mask])
    np.savez_compressed(tmp_path / "b.npz", one=METRES, two=METRES * 2)
    with pytest.raises(SignalError, match="one, two.*input channel"):
        metres(tmp_path / "b.npz")
    assert np.allclose(metres(tmp_path / "b.npz", channel="two")[0], METRES * 2)
    with pytest.raises(SignalError, match="no picture 'three'"):
        metres(tmp_path / "b.npz", channel="three")
    np.savez(tmp_path / "c.npz", mine=METRES, row=np.ones((1, 4)), column=np.ones((4, 1)), lens=np.ones(4))
    assert np.allclose(metres(tmp_path / "c.npz")[0], METRES), "a row or a column is no picture"
    np.savez(tmp_path / "d.npz", mine=METRES[None], batch=np.ones((1, 1, 4)))
    with pytest.raises(SignalError, match="mine, batch"):
        metres(tmp_path / "d.npz")


@pytest.mark.parametrize("colours", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_of_every_kind(tmp_path: Path, colours: int, bits: int) -> None:
    most = 2**bits - 1
    numbers = np.arange(1, 241).reshape(12, 20) * (257 if bits == 16 else 1) - (bits == 16)
    planes = np.repeat(numbers[..., None], colours, 2)
    if colours in (2, 4):
        planes[..., -1] = most
        planes[0, :5, -1] = 0
        planes[1, 0, -1] = 1
    (tmp_path / "d.png").write_bytes(png(planes, {1: 0, 2: 4, 3: 2, 4: 6}[colours], bits))
    depth = depth_from_file(tmp_path / "d.png", "inverse", 1, "relative")
    seen = np.ones((12, 20), bool)
    seen[0, :5] = colours not in (2, 4)
    assert np.array_equal(np.reshape(valid(depth), (12, 20)), seen), "transparent is not valid"
    assert np.array_equal(depth.values[0].numpy()[seen], numbers[seen])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pfm"])
def test_colour_maps_are_refused(tmp_path: Path, suffix: str) -> None:
    colours = (np.random.default_rng(0).random((12, 20, 3)) * 255).astype(np.uint8)
    if suffix == ".png":
        (tmp_path / "d.png").write_bytes(png(colours, 2, 8))
    elif suffix == ".tif":
        tiff(tmp_path, colours, photometric="rgb")
    else:
        (tmp_path / "d.pfm").write_bytes(b"PF\n20 12\n-1\n" + colours.astype("<f4").tobytes())
    with pytest.raises(SignalError, match="coloured"):
        depth_from_file(tmp_path / f"d{suffix}", "inverse", 1, "relative")


# ---------------------------------------------------------------------------------------------- no measurement


@pytest.mark.parametrize("far", [math.inf, 1e10, 1e30, 3.4e38, 65504.0])
@pytest.mark.parametrize("suffix", [".exr", ".npy", ".pfm", ".tif"])
@pytest.mark.parametrize("unit", ["m", "cm"])
def test_a_renderers_nothing_is_infinity(tmp_path: Path, far: float, suffix: str, unit: str, caplog: Any) -> None:
    numbers = METRES.copy()
    numbers[:4] = far
    path = tmp_path / f"d{suffix}"
    if suffix == ".exr":
        path.write_bytes(exr_file({"ViewLayer.Depth.Z": numbers}))
    elif suffix == ".npy":
        np.save(path, numbers)
    elif suffix == ".pfm":
        path.write_bytes(b"Pf\n20 12\n-1\n" + numbers[::-1].tobytes())
    else:
        tiff(tmp_path, numbers)
    with caplog.at_level(logging.INFO):
        depth = depth_from_file(path, "metric", 1, unit)
    assert all(valid(depth)) and float(depth.values[0, :4].abs().amax()) == 0
    assert float(depth.metres()[0, 5, 0]) == pytest.approx(numbers[5, 0] * (1 if unit == "m" else 0.01))
    assert math.isinf(far) or "nothing stands there" in caplog.text


def test_whole_numbers_of_65504_are_distances(tmp_path: Path) -> None:
    (tmp_path / "d.png").write_bytes(png(np.array([[65504, 1000, 0]], np.uint16), 0, 16))
    assert metres(tmp_path / "d.png", "metric", 1, "mm")[0, 0, :2].tolist() == pytest.approx([65.504, 1.0])


@pytest.mark.parametrize("far", [-math.inf, -1e10, 1e10])
def test_a_camera_that_looks_along_minus_z(tmp_path: Path, far: float) -> None:
    numbers = -METRES
    numbers[:3] = far
    (tmp_path / "d.exr").write_bytes(exr_file({"Pz": numbers}))
    found = metres(tmp_path / "d.exr")[0]
    assert np.isinf(found[:3]).all() and np.allclose(found[3:], METRES[3:])
    numbers[5, 5] = 4.0  # of both signs: what is behind the camera is no measurement
    (tmp_path / "d.exr").write_bytes(exr_file({"Pz": numbers}))
    assert np.isfinite(metres(tmp_path / "d.exr")[0, 3:]).sum() == 1


def test_outside_the_data_window_is_not_valid(tmp_path: Path) -> None:
    (tmp_path / "d.exr").write_bytes(exr_file({"Z": METRES}, 0, (2, 3, 21, 14), (0, 0, 29, 19)))
    found = metres(tmp_path / "d.exr")[0]
    assert found.shape == (20, 30) and np.isfinite(found).sum() == 240


@pytest.mark.parametrize(
    ("numbers", "seen"),
    [
        ([-1, 0, 3, 7.5, math.nan], [0, 0, 1, 1, 0]),
        ([0, 3, 7.5, math.inf, 1e10], [0, 1, 1, 0, 0]),
        ([-16, 3, 7.5, -16, 9], [0, 1, 1, 0, 1]),
        ([-5, -3, 0, 2, 4], [1, 1, 1, 1, 1]),  # a converged pair
    ],
)
def test_disparity_that_is_none(tmp_path: Path, numbers: list[float], seen: list[int]) -> None:
    np.save(tmp_path / "d.npy", np.array([numbers, numbers], np.float32))
    depth = depth_from_file(tmp_path / "d.npy", "disparity")
    assert valid(depth)[:5] == [bool(s) for s in seen]


@pytest.mark.parametrize("least", [-64, 16])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_matchers_smallest_number(tmp_path: Path, least: int, fixed: bool) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(least * 16, (least + 64) * 16, (40, 60)).astype(np.float32) / 16
    marks = rng.random((40, 60)) < 0.1
    marks[:, :4] = True
    numbers[marks] = least - 1
    np.save(tmp_path / "d.npy", (numbers * 16).astype(np.int16) if fixed else numbers)
    depth = depth_from_file(tmp_path / "d.npy", "disparity")
    assert np.array_equal(np.reshape(valid(depth), (40, 60)), ~marks)


def test_a_far_wall_is_no_mark_of_a_matcher(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).integers(320, 640, (40, 60)).astype(np.float32) / 16
    numbers[:, 20:40] = 5.0
    np.save(tmp_path / "d.npy", numbers)
    assert all(valid(depth_from_file(tmp_path / "d.npy", "disparity")))


def test_rotated_bits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stored = ((MILLIMETRES.astype(np.uint32) << 3) | (MILLIMETRES >> 13)).astype(np.uint16)
    (tmp_path / "d.png").write_bytes(png(stored, 0, 16))
    found = metres(tmp_path / "d.png", "metric", 1, "mm", reading="SUN RGB-D")
    assert np.allclose(found[0], MILLIMETRES / 1000) and not caplog.text
    near = stored[:8]  # below 8.192 m no bit has gone round
    (tmp_path / "n.png").write_bytes(png(near, 0, 16))
    metres(tmp_path / "n.png", "metric", 1, "mm")
    assert "SUN RGB-D" in caplog.text
    caplog.clear()
    (tmp_path / "m.png").write_bytes(png(MILLIMETRES, 0, 16))
    metres(tmp_path / "m.png", "metric", 1, "mm")
    assert not caplog.text
    np.save(tmp_path / "f.npy", METRES)
    with pytest.raises(SettingError, match="16-bit whole"):
        metres(tmp_path / "f.npy", reading="SUN RGB-D")
    with pytest.raises(SettingError, match="reading must be"):
        metres(tmp_path / "f.npy", reading="rotated")


def test_transparent_pixels_of_a_depth_picture_are_not_valid() -> None:
    grey = torch.linspace(0.1, 0.9, 8)[None, None, :, None].expand(1, 4, 8, 3)
    alpha = torch.ones(1, 4, 8, 1)
    alpha[:, 0] = 0
    alpha[:, 1] = 0.25
    depth = depth_from_image(torch.cat([grey, alpha], -1))
    assert valid(depth) == [False] * 8 + [True] * 24
    assert torch.equal(depth.values[:, 1:], grey[:, 1:, :, 0]), "what is half transparent keeps its grey"
    masked = depth_from_image(torch.cat([grey, alpha], -1), valid=torch.ones(1, 4, 8) * (torch.arange(8) < 4))
    assert valid(masked) == [False] * 8 + ([True] * 4 + [False] * 4) * 3


# ---------------------------------------------------------------------------------------------- hot pixels


@pytest.mark.parametrize("kind", ["affine_inverse", "affine_depth"])
@pytest.mark.parametrize("hot", [2.0, -1.0, 1e6])
def test_one_hot_pixel_does_not_ruin_near_and_far(kind: Any, hot: float, caplog: pytest.LogCaptureFixture) -> None:
    values = torch.rand(2, 40, 50, generator=torch.Generator().manual_seed(0))
    spoilt = values.clone()
    spoilt[1, 20, 25] = hot
    valid = torch.rand(2, 40, 50, generator=torch.Generator().manual_seed(1)) > 0.1
    valid[1, 20, 25] = True
    clean = to_metric(Depth(values, kind, valid), 1.0, 10.0)[0].values
    made = to_metric(Depth(spoilt, kind, valid), 1.0, 10.0)[0].values
    same = valid.clone()
    same[1, 20, 25] = False
    assert torch.allclose(made[same], clean[same], rtol=0.02) and "1 lone pixels of picture 2" in caplog.text


@pytest.mark.parametrize("kind", ["affine_inverse", "affine_depth"])
def test_near_and_far_are_exact_where_nothing_is_hot(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 60), indexing="ij")
    small = torch.zeros(40, 60)
    small[10:12, 20:22] = 3  # a thing of four pixels that is close
    for values in (x, (-((x * 9) ** 2) - (y * 9) ** 2).exp(), small + 0.1 * x, torch.zeros(40, 60), x[:3, :3]):
        depth = Depth(values[None].contiguous(), kind)
        assert torch.equal(to_metric(depth, 1.0, 10.0)[0].values, depth.inverse(1.0, 10.0))
    assert not caplog.text


# ---------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("data", [b"", b"x", b"this is a text" * 20, b"\0" * 200])
def test_what_is_no_such_file_is_told(tmp_path: Path, suffix: str, data: bytes) -> None:
    (tmp_path / f"d{suffix}").write_bytes(data)
    with pytest.raises(SignalError, match=f"d{suffix}"):
        depth_from_file(tmp_path / f"d{suffix}", "metric")
    with pytest.raises(FathomError, match="no file"):
        depth_from_file(tmp_path / f"gone{suffix}", "metric")


def npy(shape: str, kind: str = "<f4", data: bytes = b"") -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head + data


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (npy("(1000000, 1000000)"), "million numbers"),
        (npy("(" + "9" * 400 + ", 2)"), "million numbers|damaged"),
        (npy("(20, 30)"), "truncated"),
        (npy("(0, 30)"), "empty"),
        (npy("(4, 6)", "|O", bytes(192)), "object"),
        (npy("(4, 6)", "<c8", bytes(192)), "complex"),
        (npy("(24,)", "<f4", bytes(96)), "shaped"),
        (npy("(4, 6, 3)", "<f4", bytes(288)), "shaped"),
        (npy("(" * 5000), "damaged"),
        (b"\x93NUMPY\x09\0" + bytes(100), "layout 9"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_arrays_are_told(tmp_path: Path, data: bytes, word: str, packed: bool) -> None:
    path = tmp_path / ("d.npz" if packed else "d.npy")
    if packed:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("depth.npy", data)
        word += "|size|no picture"
    else:
        path.write_bytes(data)
    with pytest.raises(SignalError, match=word):
        depth_from_file(path, "metric")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("depth.npy", "w") as member:
        member.write(npy("(20000, 5000)"))
        for _ in range(100):
            member.write(bytes(4_000_000))
    (tmp_path / "d.npz").write_bytes(made.getvalue())
    with pytest.raises(SignalError, match="would unpack"):
        depth_from_file(tmp_path / "d.npz", "metric")


def test_an_honest_array_is_read_however_large_or_even(tmp_path: Path) -> None:
    even = np.full((1500, 1000), 2.0, np.float32)
    np.savez_compressed(tmp_path / "even.npz", depth=even)
    assert (tmp_path / "even.npz").stat().st_size * 256 < even.nbytes < 2**26
    assert float(metres(tmp_path / "even.npz").mean()) == 2
    large = np.random.default_rng(0).random((4200, 4100), np.float32) + 1
    np.savez(tmp_path / "large.npz", depth=large)
    assert large.nbytes > 2**26 and np.allclose(metres(tmp_path / "large.npz")[0], large)


def test_an_array_of_as_many_numbers_as_may_be_is_no_impossible_one(tmp_path: Path) -> None:
    for shape, word in (((1, MOST_PIXELS), "truncated|damaged|cut"), ((1, MOST_PIXELS + 1), "million numbers")):
        (tmp_path / "d.npy").write_bytes(npy(str(shape)))
        with pytest.raises(SignalError, match=word):
            depth_from_file(tmp_path / "d.npy", "metric")


def test_encrypted_and_unknown_compression_of_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", depth=METRES)
    data = bytearray((tmp_path / "d.npz").read_bytes())
    local, central = data.index(b"PK\3\4"), data.index(b"PK\1\2")
    for flags, method in ((1, 0), (0, 97)):
        changed = data.copy()
        for at in (local + 6, central + 8):
            changed[at : at + 4] = struct.pack("<HH", flags, method)
        (tmp_path / "x.npz").write_bytes(changed)
        with pytest.raises(SignalError, match="encrypted" if flags else "compression"):
            depth_from_file(tmp_path / "x.npz", "metric")


def test_pictures_of_impossible_size_are_told(tmp_path: Path) -> None:
    for width, height in ((2**31 - 1, 2**31 - 1), (20000, 20000), (0, 7)):
        data = bytearray(png(np.zeros((2, 2), np.uint16), 0, 16))
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        (tmp_path / "d.png").write_bytes(data)
        with pytest.raises(SignalError, match="megapixels|empty"):
            depth_from_file(tmp_path / "d.png", "metric", 1, "mm")
    for head in (b"Pf\n99999999 99999999\n-1\n", b"Pf\n0 4\n-1\n"):
        (tmp_path / "d.pfm").write_bytes(head + bytes(64))
        with pytest.raises(SignalError, match="megapixels|empty"):
            depth_from_file(tmp_path / "d.pfm", "metric")


def test_what_the_arguments_may_be(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", METRES)
    with pytest.raises(SettingError, match="no channels"):
        depth_from_file(tmp_path / "d.npy", "metric", channel="Z")
    with pytest.raises(SettingError, match="other programs"):
        depth_from_file(tmp_path / "d.npz", channel="Z")
    with pytest.raises(SettingError, match="suffix"):
        depth_from_file(tmp_path / "d.jpg", "metric")
    (tmp_path / "e.pgm").write_bytes(b"P5 2 1 255\n\x09\x0a")
    with pytest.raises(PictureError, match="8 bits"):
        depth_from_file(tmp_path / "e.pgm", "metric", 1, "m")


# ---------------------------------------------------------------------------------------------- node and shell


def test_load_depth_takes_a_channel_and_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fathom.nodes.depth_io import FathomLoadDepth

    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.exr").write_bytes(exr_file({"A.Depth.Z": METRES, "B.Depth.Z": METRES * 2}))
    node = FathomLoadDepth()
    depth, image = node.execute("d.exr", "metric", 1 / 256, "m", "B.Depth.Z")
    assert float(depth.metres()[0, 0, 0]) == pytest.approx(3 / 256) and image.shape == (1, 12, 20, 3)
    with pytest.raises(SignalError, match=r"A\.Depth\.Z, B\.Depth\.Z"):
        node.execute("d.exr", "metric")
    inputs = FathomLoadDepth.INPUT_TYPES()["optional"]
    assert list(inputs) == ["meaning", "scale", "unit", "channel", "reading"]
    digits = -round(math.log10(inputs["scale"][1]["step"]))
    assert round(1 / 256, digits) == 1 / 256 and inputs["scale"][1]["round"] is False


def test_one_odd_entry_takes_no_node_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from fathom.annotator import host
    from fathom.nodes.depth_io import FathomLoadDepth

    for name in ("a.exr", "b.TIFF", "c.pfm", "d.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.npy").symlink_to("nowhere.npy")
    (tmp_path / "folder.exr").mkdir()
    folder = SimpleNamespace(get_input_directory=lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "folder_paths", folder)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(host, "inside_comfyui", lambda: True)
    assert FathomLoadDepth.INPUT_TYPES()["required"]["file"][0] == ["a.exr", "b.TIFF", "c.pfm"]
    folder.get_input_directory = lambda: str(tmp_path / "missing")
    assert FathomLoadDepth.INPUT_TYPES()["required"]["file"][0] == []


@pytest.mark.parametrize("prefix", ["", " ", "folder/", ".hidden", "folder/.hidden", "a\0b"])
def test_a_prefix_that_names_no_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    from fathom.nodes.depth_io import FathomSaveDepth

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match="names no file"):
        FathomSaveDepth().execute(Depth(torch.rand(1, 4, 5), "ordinal"), prefix, "exr")
    assert not list(tmp_path.iterdir())


def test_the_shell_chooses_a_channel(tmp_path: Path, run: Any) -> None:
    (tmp_path / "d.exr").write_bytes(exr_file({"A.Depth.Z": METRES, "B.Depth.Z": METRES * 2}))
    said = ("tool", "convert", tmp_path / "d.exr", "-o", tmp_path / "o.npz", "--meaning", "metric")
    status, _, err = run(*said)
    assert status == 1 and "A.Depth.Z, B.Depth.Z" in err.replace("\n", " ")
    assert run(*said, "--channel", "B.Depth.Z")[0] == 0
    assert np.allclose(depth_from_file(tmp_path / "o.npz").metres()[0].numpy(), METRES * 2)
