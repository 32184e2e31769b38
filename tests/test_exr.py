"""EXR files of renderers: which channel is the depth, every compression, parts, windows, and what is refused."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest
from exr_files import attribute, exr_file, exr_parts

from fathom import SignalError
from fathom.signals import exr

DEPTH = np.linspace(2, 30, 24 * 40, dtype=np.float32).reshape(24, 40)
UNIT = np.full((24, 40), 0.5, np.float32)


def vector(name: str) -> dict[str, np.ndarray]:
    return {f"{name}.{axis}": UNIT for axis in "XYZ"}


@pytest.fixture(params=["OpenEXR", "without"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to read: the library, and what is there without it."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "OpenEXR", None)
    else:
        pytest.importorskip("OpenEXR")
    return request.param


def read(data: bytes, channel: str = "") -> tuple[np.ndarray, str]:
    plane, name, _ = exr.decode(data, channel)
    return plane.numpy(), name


# ---------------------------------------------------------------------------------------------- which channel


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ({**vector("N"), **vector("P")}, "Z"),
        (vector("ViewLayer.Denoising Normal"), "ViewLayer.Depth.Z"),
        ({**vector("AONormal"), "ViewLayer.Mist.Z": UNIT}, "ViewLayer.Depth.Z"),
        ({"R": UNIT, "G": UNIT, "B": UNIT}, "depth.Z"),
        ({"left.Z": UNIT, **vector("left.N")}, "Z"),
        ({"R": UNIT, "G": UNIT}, "Depth.V"),
        ({"R": UNIT, **vector("P")}, "Pz"),
        ({"R": UNIT, "ZDepth.G": UNIT, "ZDepth.B": UNIT}, "ZDepth.R"),
        ({"R": UNIT, "VRayWorldDepth.G": UNIT}, "VRayWorldDepth.R"),
        ({"R": UNIT, "Z-Depth.G": UNIT}, "Z-Depth.R"),  # Octane
        ({"R": UNIT, "CGeometry_ZDepth.G": UNIT}, "CGeometry_ZDepth.R"),  # Corona
        ({"R": UNIT, "G": UNIT}, "VRayZDepth"),
        ({"A": UNIT}, "Y"),
        ({"VL.Denoising Normal.Z": UNIT}, "VL.Denoising Depth.Z"),
        ({"x.depth.Z": UNIT}, "Z"),
    ],
)
def test_the_depth_is_found_among_other_passes(reader: str, others: dict[str, np.ndarray], name: str) -> None:
    plane, found = read(exr_file({**others, name: DEPTH}))
    assert found == name and np.array_equal(plane, DEPTH)


def test_grey_as_colour_is_a_depth_and_colour_is_none(reader: str) -> None:
    assert np.array_equal(read(exr_file({"R": DEPTH, "G": DEPTH, "B": DEPTH, "A": UNIT}))[0], DEPTH)
    with pytest.raises(SignalError, match="no depth channel: it holds B, G, R"):
        read(exr_file({"R": DEPTH, "G": UNIT, "B": DEPTH}))


@pytest.mark.parametrize(
    "channels",
    [
        vector("Position"),
        {f"P{axis}": UNIT for axis in "xyz"},
        {f"N.{axis}": UNIT for axis in "xyz"},
        {"ViewLayer.Mist.Z": UNIT, "ViewLayer.IndexOB.X": UNIT},
        vector("Depth"),
        {f"Depth.P{axis}": UNIT for axis in "xyz"},
    ],
)
def test_what_is_no_depth_is_refused_with_the_names(reader: str, channels: dict[str, np.ndarray]) -> None:
    with pytest.raises(SignalError, match=f"no depth channel.*{sorted(channels)[0]}.*channel"):
        read(exr_file(channels))


def test_several_depths_are_asked_for(reader: str) -> None:
    data = exr_file({"A.Depth.Z": UNIT, "B.Depth.Z": DEPTH, **vector("N")})
    with pytest.raises(SignalError, match=r"2 channels.*A\.Depth\.Z, B\.Depth\.Z.*input channel"):
        read(data)
    assert np.array_equal(read(data, "B.Depth.Z")[0], DEPTH)
    assert np.array_equal(read(data, "b.depth.z ".strip())[0], DEPTH)
    assert np.array_equal(read(data, "N.Z")[0], UNIT), "what is chosen by name is taken, a vector too"
    with pytest.raises(SignalError, match="no channel 'C.Z'"):
        read(data, "C.Z")


def test_the_first_view_of_a_stereo_file(reader: str) -> None:
    views = attribute("multiView", "stringvector", b"".join(struct.pack("<i", len(v)) + v for v in (b"right", b"left")))
    plane, name = read(exr_file({"Z": DEPTH, "left.Z": UNIT}, extra=views))
    assert name == "Z" and np.array_equal(plane, DEPTH)
    # Blender names the first view as well.
    plane, name = read(exr_file({"VL.Depth.right.Z": DEPTH, "VL.Depth.left.Z": UNIT}, extra=views))
    assert name == "VL.Depth.right.Z" and np.array_equal(plane, DEPTH)


# ---------------------------------------------------------------------------------------------- kinds of files


@pytest.mark.parametrize("compression", [0, 2, 3])
@pytest.mark.parametrize("kind", ["f2", "f4", "u4"])
def test_every_kind_of_number(reader: str, compression: int, kind: str) -> None:
    whole = (np.arange(24 * 40).reshape(24, 40) * 7 % 65000).astype(kind)
    plane, _ = read(exr_file({"Z": whole, "A": UNIT.astype("f2")}, compression))
    assert np.array_equal(plane, whole.astype(np.float32))


@pytest.mark.parametrize("compression", [0, 3])
def test_parts(reader: str, compression: int) -> None:
    colours = dict.fromkeys("RGB", UNIT)
    data = exr_parts({"rgba": colours, "N": dict.fromkeys("XYZ", UNIT), "depth": {"Z": DEPTH}}, compression)
    plane, name = read(data)
    assert name == "Z" and np.array_equal(plane, DEPTH)
    data = exr_parts({"rgba": colours, "Mist": {"Z": UNIT}, "depth_left": {"Z": DEPTH}}, compression, "left")
    assert np.array_equal(read(data)[0], DEPTH), "the mist is not taken for the depth"
    data = exr_parts({"rgba": colours, "depth": dict.fromkeys("RGB", DEPTH)}, compression)
    assert np.array_equal(read(data)[0], DEPTH), "a part is a layer, of colour too"
    data = exr_parts({"one": {"depth.Z": UNIT}, "two": {"depth.Z": DEPTH}}, compression)
    with pytest.raises(SignalError, match="one/depth.Z, two/depth.Z"):
        read(data)
    assert np.array_equal(read(data, "two/depth.Z")[0], DEPTH)


NAMES = ["RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB", "HTJ2K256", "HTJ2K32", "LJ2K", "ZSTD"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tiled", [False, True])
def test_every_compression_is_read_or_refused_by_its_name(
    name: str, tiled: bool, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    OpenEXR = pytest.importorskip("OpenEXR")
    if not hasattr(OpenEXR, f"{name}_COMPRESSION"):
        pytest.skip("this OpenEXR does not know it")
    plane = np.tile(DEPTH, (4, 4))
    kind = {"compression": getattr(OpenEXR, f"{name}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    if tiled:
        kind |= {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
    path = f"{tmp_path}/a.exr"
    try:
        OpenEXR.File(kind, {"Z": plane, "A": plane}).write(path)
    except Exception:
        pytest.skip("this OpenEXR does not write it")
    with open(path, "rb") as file:
        data = file.read()
    assert np.allclose(read(data)[0], plane, rtol=2e-2)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    if name.startswith(("DWA", "HT", "LJ", "ZSTD")):
        with pytest.raises(SignalError, match=f"{name}.*OpenEXR reads it"):
            read(data)
    else:
        assert np.allclose(read(data)[0], plane, rtol=2e-2)


def test_what_lies_outside_the_data_window_is_nan(reader: str) -> None:
    plane, _ = read(exr_file({"Z": DEPTH}, 3, (10, 5, 49, 28), (0, 0, 59, 39)))
    assert plane.shape == (40, 60) and np.isnan(plane).sum() == 40 * 60 - 24 * 40
    assert np.array_equal(plane[5:29, 10:50], DEPTH)
    plane, _ = read(exr_file({"Z": DEPTH}, 3, (-4, -2, 35, 21), (0, 0, 29, 19)))
    assert np.array_equal(plane, DEPTH[2:22, 4:34]), "an overscan is cut away"
    with pytest.raises(SignalError, match="outside the window"):
        read(exr_file({"Z": DEPTH}, 0, None, (100, 100, 110, 110)))
    plane, _ = read(exr_file({"Z": DEPTH}, 3, (-4, -2, 35, 21), (-10, -5, 39, 24)))
    assert plane.shape == (30, 50) and np.array_equal(plane[3:27, 6:46], DEPTH)
    plane, _ = read(exr_file({"Z": DEPTH}, 3, (104, 202, 143, 225), (100, 200, 149, 239)))
    assert plane.shape == (40, 50) and np.array_equal(plane[2:26, 4:44], DEPTH)


def run_lengths(plain: bytes) -> bytes:
    """OpenEXR's RLE: a count less one and a byte for runs, a negative count and that many bytes for the rest."""
    out, at = b"", 0
    while at < len(plain):
        run = next((n for n in range(1, min(128, len(plain) - at)) if plain[at + n] != plain[at]), 1)
        out += bytes([run - 1, plain[at]]) if run > 2 else struct.pack("b", -1) + plain[at : at + 1]
        at += run if run > 2 else 1
    return out


def test_ffmpeg_reads_the_channel_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    steps = np.repeat(np.arange(1, 25, dtype=np.float32)[:, None], 40, axis=1)
    channels = {"A": 2 * steps, "N.X": 3 * steps, "Z": steps}
    for channel, plane in channels.items():
        data = exr_file(channels, 1, pack=run_lengths)
        assert np.array_equal(read(data, channel)[0], plane), channel


def test_ffmpeg_is_not_asked_for_what_it_reads_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(SignalError, match="calls its depth 'VRayZDepth'.*OpenEXR"):
        read(exr_file({"VRayZDepth": DEPTH}, 1, pack=run_lengths))
    with pytest.raises(SignalError, match="Z holds whole numbers.*OpenEXR"):
        read(exr_file({"Z": DEPTH.astype("u4")}, 1, pack=run_lengths))


# ---------------------------------------------------------------------------------------------- refused


def test_deep_files_are_refused_by_their_name(reader: str) -> None:
    extra = attribute("type", "string", b"deepscanline") + attribute("maxSamplesPerPixel", "int", struct.pack("<i", 3))
    with pytest.raises(SignalError, match="deep EXR"):
        read(exr_file({"Z": DEPTH}, 2, extra=extra))


@pytest.mark.parametrize(("compression", "row"), [(0, -1), (0, 24), (0, 3), (3, 8), (3, 32), (3, 0)])
def test_rows_that_do_not_fit_together_are_refused(reader: str, compression: int, row: int) -> None:
    """row: what the second block says it begins with: outside, inside a block, or that of another block."""
    data = bytearray(exr_file({"Z": DEPTH}, compression))
    table = data.index(b"screenWindowWidth\0float\0\4\0\0\0") + len(b"screenWindowWidth\0float\0") + 8 + 1
    (second,) = struct.unpack_from("<Q", data, table + 8)
    struct.pack_into("<i", data, second, row)
    with pytest.raises(SignalError, match="rows do not fit together"):
        read(bytes(data))


def test_a_compression_that_nobody_knows_is_refused_by_its_number(reader: str) -> None:
    old, new = (attribute("compression", "compression", bytes([n])) for n in (0, 14))
    with pytest.raises(
        SignalError, match=r"unknown kind \(number 14\)" if reader == "without" else "OpenEXR cannot read"
    ):
        read(exr_file({"Z": DEPTH}).replace(old, new))


@pytest.mark.parametrize(("at", "number"), [(0, 3), (8, 0), (12, 0), (8, -1)])
def test_a_channel_that_is_none_is_damage(reader: str, at: int, number: int) -> None:
    """at: where its type and its sampling across and down stand."""
    data = bytearray(exr_file({"Z": DEPTH}))
    struct.pack_into("<i", data, data.index(b"Z\0" + struct.pack("<iiii", 2, 0, 1, 1)) + 2 + at, number)
    with pytest.raises(SignalError, match="truncated or damaged"):
        read(bytes(data))


def test_a_size_of_tiles_in_a_file_of_rows_is_left_alone(reader: str) -> None:
    tiles = attribute("tiles", "tiledesc", struct.pack("<IIB", 16, 16, 0))
    assert np.array_equal(read(exr_file({"Z": DEPTH}, 3, extra=tiles))[0], DEPTH)


@pytest.mark.parametrize("compression", [0, 2, 3])
def test_a_data_window_wider_than_the_data_is_refused(reader: str, compression: int) -> None:
    with pytest.raises(SignalError):
        read(exr_file({"Z": DEPTH}, compression, (0, 0, 400, 23)))


def test_a_block_that_ffmpeg_gives_back_empty_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    OpenEXR = pytest.importorskip("OpenEXR")
    path = f"{tmp_path}/a.exr"
    OpenEXR.File({"compression": OpenEXR.PIZ_COMPRESSION, "type": OpenEXR.scanlineimage}, {"Z": DEPTH}).write(path)
    with open(path, "rb") as file:
        data = bytearray(file.read())
    for box in (b"dataWindow\0box2i\0", b"displayWindow\0box2i\0"):
        at = data.index(box) + len(box) + 4
        data[at : at + 16] = struct.pack("<4i", 0, 0, 400, 23)
    for library in (OpenEXR, None):
        monkeypatch.setitem(sys.modules, "OpenEXR", library)
        with pytest.raises(SignalError):
            read(bytes(data))


@pytest.mark.parametrize(
    "window", [(0, 0, 2**30, 2**30), (0, 0, 2**31 - 1, 0), (-(2**31), 0, 2**31 - 1, 9), (5, 0, 0, 9)]
)
def test_impossible_windows_are_told_before_anything_is_unpacked(reader: str, window: tuple[int, ...]) -> None:
    with pytest.raises(SignalError, match=r"megapixels|damaged"):
        read(exr_file({"Z": DEPTH}, 0, window))


def test_missing_rows_are_told(reader: str) -> None:
    data = bytearray(exr_file({"Z": DEPTH}))
    first = data.index(struct.pack("<Q", len(data) - 24 * (8 + 160)))
    data[first + 8 : first + 16] = data[first : first + 8]  # the second row's place leads to the first row
    with pytest.raises(SignalError):
        read(bytes(data))


def test_a_part_that_cannot_be_read_is_not_replaced_by_the_next(reader: str) -> None:
    data = bytearray(exr_parts({"depth": {"Z": DEPTH}, "other": {"Z.Z": UNIT}}, 3))
    assert np.array_equal(read(bytes(data), "depth/Z")[0], DEPTH)
    at = exr.headers(bytes(data))[0].offsets[0] + 12
    data[at : at + 40] = b"\xff" * 40
    with pytest.raises(SignalError, match="damaged"):
        read(bytes(data), "depth/Z")


def test_a_display_window_far_beyond_the_data_is_told(reader: str) -> None:
    with pytest.raises(SignalError, match="shows 100 megapixels"):
        read(exr_file({"Z": DEPTH}, 0, (0, 0, 39, 23), (0, 0, 9999, 9999)))
