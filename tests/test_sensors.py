"""Measured depth, read through the real decoders from files that the tests write."""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fathom import Depth, PictureError, SettingError
from fathom.tools import sensors

# ------------------------------------------------------------------------------ HEIC
#
# No encoder that Python can reach writes depth into HEIC, so the files are made as phones lay them out: two pictures
# encoded by libheif, and in the boxes around them the second is declared the depth map of the first (ISO/IEC
# 23008-12: a reference "auxl", a property "auxC" with the HEVC message that describes the numbers).

DEPTH_AUX = b"urn:mpeg:hevc:2015:auxid:2"
MATTE_AUX = b"urn:com:apple:photo:2018:aux:portraiteffectsmatte"


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def boxes(data: bytes, start: int, end: int) -> list[tuple[bytes, int, int]]:
    found = []
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        found.append((kind, start, start + size))
        start += size
    return found


def declare_auxiliary(data: bytes, aux: bytes, message: bytes, turns: tuple[int, int]) -> bytes:
    """Make the second picture an auxiliary of the first. turns: quarter turns, anticlockwise, of photo and depth."""
    ((start, end),) = [(a, b) for kind, a, b in boxes(data, 0, len(data)) if kind == b"meta"]
    items = next(data[a:b] for kind, a, b in boxes(data, start + 12, end) if kind == b"iinf")
    entries = [items[a:b] for _, a, b in boxes(items, 14, len(items))]
    photo, depth = (struct.unpack_from(">H", e, 12)[0] for e in entries if e[16:20] == b"hvc1")

    def rebuilt(shift: int) -> bytes:
        made = []
        for kind, a, b in boxes(data, start + 12, end):
            raw = bytearray(data[a:b])
            if kind == b"iloc":
                for item in range(struct.unpack_from(">H", raw, 14)[0]):
                    at = 16 + 18 * item + 4
                    struct.pack_into(">I", raw, at, struct.unpack_from(">I", raw, at)[0] + shift)
            elif kind == b"iref":
                raw = bytearray(box(b"iref", raw[8:], box(b"auxl", struct.pack(">HHH", depth, 1, photo))))
            elif kind == b"iprp":
                inner = {k: data[i:j] for k, i, j in boxes(data, a + 8, b)}
                known = len(boxes(inner[b"ipco"], 8, len(inner[b"ipco"])))
                extra = [box(b"auxC", bytes(4), aux + b"\0", message)]
                extra += [box(b"irot", bytes([turn])) for turn in turns]
                table, rows, at = inner[b"ipma"], b"", 16
                for _ in range(struct.unpack_from(">I", table, 12)[0]):
                    item, count = struct.unpack_from(">HB", table, at)
                    used = table[at + 3 : at + 3 + count]
                    at += 3 + count
                    used += bytes([0x80 | known + 1]) if item == depth else b""
                    used += bytes([0x80 | known + 2]) if item == photo and turns[0] else b""
                    used += bytes([0x80 | known + 3]) if item == depth and turns[1] else b""
                    rows += struct.pack(">HB", item, len(used)) + used
                properties = box(b"ipco", inner[b"ipco"][8:], *extra)
                raw = bytearray(box(b"iprp", properties, box(b"ipma", table[8:16], rows)))
            made.append(bytes(raw))
        return box(b"meta", bytes(4), *made)

    return data[:start] + rebuilt(len(rebuilt(0)) - (end - start)) + data[end:]


def representation(kind: int, **known: float) -> bytes:
    """The HEVC message "depth representation info": bits as annex G of H.265 lays them out."""

    def unsigned(n: int) -> str:
        digits = format(n + 1, "b")
        return "0" * (len(digits) - 1) + digits

    def number(value: float) -> str:
        mantissa, exponent = math.frexp(abs(value))
        share = round((mantissa * 2 - 1) * 2**31)
        return f"{int(value < 0)}{exponent - 1 + 31:07b}{30:05b}{share:031b}"

    names = ("z_near", "z_far", "d_min", "d_max")
    bits = "".join(str(int(n in known)) for n in names) + unsigned(kind)
    bits += unsigned(0) if {"d_min", "d_max"} & set(known) else ""
    bits += "".join(number(known[n]) for n in names if n in known) + "1"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    unit = bytes([39 << 1, 1, 177, len(payload)]) + payload + b"\x80"
    return struct.pack(">II", len(unit) + 4, len(unit)) + unit


def apple_xmp(low: float, high: float, accuracy: str | None, quantity: str = "disparity", extra: str = "") -> bytes:
    told = f"<depthData:Accuracy>{accuracy}</depthData:Accuracy>" if accuracy else ""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description rdf:about="">'
        "<apdi:IntMinValue>0</apdi:IntMinValue><apdi:IntMaxValue>255</apdi:IntMaxValue>"
        f"<apdi:FloatMinValue>{low}</apdi:FloatMinValue><apdi:FloatMaxValue>{high}</apdi:FloatMaxValue>"
        f"<apdi:AuxiliaryImageType>{quantity}</apdi:AuxiliaryImageType>{told}{extra}"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


INTRINSICS = (
    "<depthData:IntrinsicMatrixReferenceWidth>4000</depthData:IntrinsicMatrixReferenceWidth>"
    "<depthData:IntrinsicMatrixReferenceHeight>3000</depthData:IntrinsicMatrixReferenceHeight>"
    "<depthData:IntrinsicMatrix><rdf:Seq>"
    + "".join(f"<rdf:li>{n}</rdf:li>" for n in (3200, 0, 0, 0, 3200, 0, 2000, 1500, 1))
    + "</rdf:Seq></depthData:IntrinsicMatrix>"
)
RAMP = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(64, 0)


def phone(
    path: Path,
    xmp: bytes | None = None,
    message: bytes = b"",
    aux: bytes = DEPTH_AUX,
    ramp: np.ndarray = RAMP[:48],
    turns: tuple[int, int] = (0, 0),
    photo: np.ndarray | None = None,
    **options: Any,
) -> Path:
    """A photo, of 128x96 and red on its left half unless given, with `ramp` as depth."""
    heif_library = pytest.importorskip("pillow_heif")
    if photo is None:
        photo = np.zeros((96, 128, 3), np.uint8)
        photo[:, :64, 0] = 255
    heif = heif_library.HeifFile()
    heif.add_from_pillow(Image.fromarray(photo))
    second = Image.fromarray(ramp)
    second.info["xmp"] = xmp if xmp is not None else b"<x:xmpmeta></x:xmpmeta>"
    heif.add_from_pillow(second)
    data = io.BytesIO()
    heif.save(data, quality=-1, save_all=True, **options)
    path.write_bytes(declare_auxiliary(data.getvalue(), aux, message, turns))
    return path


def test_two_camera_disparity_is_never_metric(tmp_path):
    found = sensors.load_phone_depth(phone(tmp_path / "a.heic", apple_xmp(0.25, 3.5, "relative", extra=INTRINSICS)))
    assert found.depth.kind == "affine_inverse"
    assert found.depth.values.shape == (1, 48, 64)
    truth = torch.from_numpy(RAMP[:48]).float() / 255 * 3.25 + 0.25
    assert float((found.depth.values[0] - truth).abs().max()) < 3.25 / 255 * 1.01  # the encoder's own rounding
    assert found.depth.focal == pytest.approx(3200 * 64 / 4000)
    assert found.told["focal_from"] == "intrinsics"
    assert found.image.shape == (1, 96, 128, 3)
    assert float(found.image[0, 10, 10, 0]) > 0.9 and float(found.image[0, 10, 120, 0]) < 0.1


def test_absolute_disparity_and_distance_are_metric(tmp_path):
    near = sensors.load_phone_depth(phone(tmp_path / "a.heic", apple_xmp(0.25, 4.0, "absolute"))).depth
    assert near.kind == "metric"
    assert float(near.metres().amin()) == pytest.approx(1 / 4.0, rel=0.02)
    assert float(near.metres().amax()) == pytest.approx(1 / 0.25, rel=0.08)
    far = sensors.load_phone_depth(phone(tmp_path / "b.heic", apple_xmp(0.5, 5.0, "absolute", "depth"))).depth
    assert far.kind == "metric"
    assert float(far.metres()[0, 20, 0]) == pytest.approx(0.5, abs=0.05)
    assert float(far.metres()[0, 20, -1]) == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize("accuracy", ["relative", None])
def test_relative_distance_is_affine_depth_and_larger_is_closer(tmp_path, accuracy):
    depth = sensors.load_phone_depth(phone(tmp_path / "a.heic", apple_xmp(0.5, 5.0, accuracy, "depth"))).depth
    assert depth.kind == "affine_depth"
    assert float(depth.values[0, 20, 0]) > float(depth.values[0, 20, -1])


@pytest.mark.parametrize(
    ("message", "kind", "low", "high"),
    [
        (representation(0, z_near=0.5, z_far=4.0), "affine_inverse", 0.25, 2.0),
        (representation(1, d_min=0.125, d_max=3.0), "affine_inverse", 0.125, 3.0),
        (representation(2, z_near=1.0, z_far=3.0), "affine_depth", -1.0, -3.0),
        (b"", "ordinal", 0.0, 1.0),
    ],
)
def test_without_xmp_the_hevc_message_tells_the_representation(tmp_path, message, kind, low, high):
    depth = sensors.load_phone_depth(phone(tmp_path / "a.heic", message=message)).depth
    assert depth.kind == kind
    assert float(depth.values[0, 20, 0]) == pytest.approx(low, abs=0.03)
    assert float(depth.values[0, 20, -1]) == pytest.approx(high, abs=0.03)


def test_the_mattes_beside_it_do_not_describe_the_depth(tmp_path):
    matte = apple_xmp(7, 9, "absolute", "depth", "<apdi:AuxiliaryImageSubType>matte</apdi:AuxiliaryImageSubType>")
    path = phone(tmp_path / "a.heic", matte + apple_xmp(0.25, 3.5, "relative"))
    assert sensors.load_phone_depth(path).depth.kind == "affine_inverse"


@pytest.mark.parametrize("depth_turns", [3, 0])
def test_depth_is_turned_as_the_photo_is(tmp_path, depth_turns):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter clockwise: the encoder marks the photo so
    turns = (0, depth_turns)
    path = phone(tmp_path / "a.heic", apple_xmp(0, 1, "relative"), turns=turns, exif=exif.tobytes())
    found = sensors.load_phone_depth(path)
    assert found.image.shape == (1, 128, 96, 3)
    assert found.depth.values.shape == (1, 64, 48)
    # Left became top: red and far lie there.
    assert float(found.image[0, 10, 40, 0]) > 0.9
    assert float(found.depth.values[0, 2, 20]) < 0.1 < 0.9 < float(found.depth.values[0, -2, 20])


def test_a_map_turned_without_a_word_is_refused(tmp_path):
    path = phone(tmp_path / "a.heic", apple_xmp(0, 1, "relative"), turns=(3, 0))
    with pytest.raises(PictureError, match="which way"):
        sensors.load_phone_depth(path)


def test_the_35_mm_equivalent_gives_the_focal_length_where_nothing_better_does(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    path = phone(tmp_path / "a.heic", apple_xmp(0, 1, "relative"), exif=exif.tobytes())
    depth = sensors.load_phone_depth(path).depth
    assert depth.focal == pytest.approx(26 / math.hypot(36, 24) * math.hypot(48, 64))


def test_heic_without_depth_says_what_it_holds(tmp_path):
    path = phone(tmp_path / "IMG_1.HEIC", aux=MATTE_AUX)
    with pytest.raises(PictureError, match=r"holds no depth.*128x96.*portraiteffectsmatte x1"):
        sensors.load_phone_depth(path)


@pytest.mark.parametrize("keep", [0, 10, 300, 900, 2000])
def test_truncated_heic_is_refused_in_words(tmp_path, keep):
    path = phone(tmp_path / "a.heic", apple_xmp(0, 1, "relative"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PictureError, match=r"a\.heic"):
        sensors.load_phone_depth(path)


def test_without_pillow_heif_the_error_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(SettingError, match="pip install pillow-heif"):
        sensors.load_phone_depth(tmp_path / "a.heic")


def test_without_opencv_the_error_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SettingError, match="pip install opencv-python-headless.*install one only"):
        sensors.stereo_depth(*(torch.rand(1, 64, 160, 3) for _ in range(2)))


# ------------------------------------------------------------------------------ stereo

FOCAL, BASELINE = 260.0, 0.12


def texture(x: torch.Tensor, y: torch.Tensor, seed: int) -> torch.Tensor:
    """A smooth aperiodic pattern over the plane, (H,W,3)."""
    gen = torch.Generator().manual_seed(seed)
    waves = torch.randn(3, 24, 2, generator=gen) * 28
    phases = torch.rand(3, 24, generator=gen) * 6.28
    total = torch.stack(
        [
            sum(
                torch.sin(float(a) * x + float(b) * y + float(p)) for (a, b), p in zip(waves[c], phases[c], strict=True)
            )
            for c in range(3)
        ],
        -1,
    )
    return (0.5 + total / 14).clamp(0, 1)


def render(eye: float, height: int = 200, width: int = 320) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture and the distances that a camera at (eye, 0) sees: a slanted wall and two cards before it."""
    x = ((torch.arange(width) + 0.5 - width / 2) / FOCAL).expand(height, width)
    y = ((torch.arange(height) + 0.5 - height / 2) / FOCAL)[:, None].expand(height, width)
    # The wall: z = 3 + 0.4 * X, with X = eye + x * z.
    z = (3 + 0.4 * eye) / (1 - 0.4 * x)
    picture = texture(eye + x * z, y * z, 1)
    cards = ((2, (-0.5, -0.1, -0.4, 0.3), 1.6), (3, (0.1, 0.4, -0.2, 0.5), 2.2))
    for seed, (left, right, top, bottom), distance in cards:
        across, down = eye + x * distance, y * distance
        hit = (across > left) & (across < right) & (down > top) & (down < bottom)
        picture = torch.where(hit[..., None], texture(across, down, seed), picture)
        z = torch.where(hit, torch.full_like(z, distance), z)
    return picture[None], z[None]


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    left, distance = render(0.0)
    return left, render(BASELINE)[0], distance


def test_stereo_disparity_is_within_a_pixel_of_the_truth(pair):
    left, right, distance = pair
    depth = sensors.stereo_depth(left, right, focal=FOCAL, baseline=BASELINE)
    assert depth.kind == "metric" and depth.focal == FOCAL
    assert depth.valid is not None
    assert float(depth.valid.float().mean()) > 0.7
    error = (depth.values * FOCAL * BASELINE - FOCAL * BASELINE / distance)[depth.valid].abs()
    assert float((error <= 1).float().mean()) >= 0.95
    relative = (depth.metres() / distance)[depth.valid]
    assert float(relative.median()) == pytest.approx(1.0, abs=0.02)


def test_points_that_one_camera_alone_sees_are_holes(pair):
    left, right, distance = pair
    valid = sensors.stereo_depth(left, right).valid
    assert valid is not None
    columns = (torch.arange(320) - FOCAL * BASELINE / distance).round().long()
    behind = render(BASELINE)[1].gather(2, columns.clamp(0, 319)) < distance - 0.3
    assert int(behind.sum()) > 500
    assert float(valid[behind].float().mean()) < 0.3
    assert not valid[columns < 0].any()


def test_without_focal_and_baseline_stereo_is_affine(pair):
    left, right, distance = pair
    depth = sensors.stereo_depth(left, right, focal=FOCAL)
    assert depth.kind == "affine_inverse"
    error = (depth.values - FOCAL * BASELINE / distance)[depth.valid].abs()
    assert float(error.median()) < 0.5


def test_a_swapped_pair_is_noticed(pair):
    left, right, _ = pair
    with pytest.raises(PictureError, match="swapped"):
        sensors.stereo_depth(right, left)


def test_side_by_side_layouts_and_batches(pair):
    left, right, _ = pair
    wide = torch.cat((left, right), 2)
    straight = sensors.split_pair(wide, None, sensors.LAYOUTS[1])
    crossed = sensors.split_pair(torch.cat((right, left), 2), None, sensors.LAYOUTS[2])
    for one, two in (straight, crossed):
        assert torch.equal(one, left) and torch.equal(two, right)
    depth = sensors.stereo_depth(left.expand(2, -1, -1, -1), right)
    assert len(depth) == 2
    assert torch.equal(depth.values[0], depth.values[1])


def test_bad_stereo_input_is_refused(pair):
    left, right, _ = pair
    with pytest.raises(PictureError, match="equal in size"):
        sensors.stereo_depth(left, right[:, :, :-1])
    with pytest.raises(PictureError, match="even width"):
        sensors.split_pair(left[:, :, :-1], None, sensors.LAYOUTS[1])
    with pytest.raises(SettingError, match="missing"):
        sensors.split_pair(left, None, sensors.LAYOUTS[0])
    with pytest.raises(SettingError, match="holds both"):
        sensors.split_pair(left, right, sensors.LAYOUTS[1])
    with pytest.raises(SettingError, match="baseline"):
        sensors.stereo_depth(left, right, focal=1.0, baseline=-1.0)
    with pytest.raises(SettingError, match="max_disparity"):
        sensors.stereo_depth(left, right, max_disparity=320)


def test_flat_pictures_match_nowhere_and_do_not_fail():
    grey = torch.full((1, 64, 96, 3), 0.5)
    depth = sensors.stereo_depth(grey, grey)
    assert bool(depth.values.isfinite().all())


# ------------------------------------------------------------------------------ depth cameras


def png16(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values.astype(np.uint16)).save(path)
    return path


def test_millimetres_become_metres_and_zero_is_a_hole(tmp_path):
    values = np.full((6, 8), 1500)
    values[2, 3] = 0
    values[4, 4] = 9000
    depth, filled = sensors.load_rgbd(png16(tmp_path / "d.png", values), max_range=8.0, focal=600.0)
    assert depth.kind == "metric" and depth.focal == 600.0
    assert depth.valid is not None
    assert (~depth.valid[0]).nonzero().tolist() == [[2, 3], [4, 4]]
    assert torch.allclose(depth.metres()[depth.valid], torch.tensor(1.5))
    assert float(filled.sum()) == 0


def test_every_16_bit_value_is_exact(tmp_path):
    values = np.arange(65536).reshape(256, 256)
    depth, _ = sensors.load_rgbd(png16(tmp_path / "d.png", values), units_per_metre=5000.0)
    assert depth.valid is not None
    metres = depth.metres()[0]
    truth = torch.from_numpy(values).float() / 5000
    assert torch.allclose(metres.flatten()[1:], truth.flatten()[1:], rtol=3e-7, atol=0)


def test_filling_reaches_so_far_and_says_where(tmp_path):
    values = np.full((40, 60), 2000)
    values[5, 5] = 0
    values[10:30, 20:50] = 0
    depth, filled = sensors.load_rgbd(png16(tmp_path / "d.png", values), fill=3)
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
    depth, filled = sensors.load_rgbd(png16(tmp_path / "d.png", holed), fill=32)
    where = filled[0] > 0
    assert int(where.sum()) == (holed == 0).sum() > 500
    error = (depth.values[0] - torch.from_numpy(inverse).float())[where].abs()
    assert float(error.max()) < 0.02 and float(error.mean()) < 0.002
    low, high = 1000 / values[holed > 0].max(), 1000 / values[holed > 0].min()
    assert low - 1e-6 <= float(depth.values.min()) and float(depth.values.max()) <= high + 1e-6


def test_an_8_bit_file_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "d.png")
    with pytest.raises(PictureError, match="8-bit grey"):
        sensors.load_rgbd(tmp_path / "d.png")


def test_a_truncated_or_foreign_file_is_refused(tmp_path):
    path = png16(tmp_path / "d.png", np.random.default_rng(0).integers(0, 65535, (64, 64)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(PictureError, match="damaged"):
        sensors.load_rgbd(path)
    path.write_bytes(b"hello")
    with pytest.raises(PictureError, match="damaged"):
        sensors.load_rgbd(path)


def test_a_frame_without_any_measurement_is_all_holes(tmp_path):
    depth, filled = sensors.load_rgbd(png16(tmp_path / "d.png", np.zeros((4, 4))), fill=5)
    assert isinstance(depth, Depth) and depth.valid is not None
    assert not depth.valid.any() and not filled.any()


@pytest.mark.parametrize("bad", [{"units_per_metre": 0.0}, {"max_range": -1.0}, {"fill": -1}])
def test_bad_camera_settings_are_refused(tmp_path, bad):
    with pytest.raises(SettingError, match=next(iter(bad))):
        sensors.load_rgbd(png16(tmp_path / "d.png", np.ones((4, 4))), **bad)


# ------------------------------------------------------------------------------ nodes


@pytest.fixture
def comfy_folders(tmp_path, monkeypatch):
    """As inside ComfyUI: its folders lie under tmp_path."""
    import sys
    import types

    folder_paths = types.ModuleType("folder_paths")
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
        setattr(folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name))
    folder_paths.get_annotated_filepath = lambda name: str(tmp_path / "input" / name)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "folder_paths", folder_paths)
    manager: Any = types.ModuleType("comfy.model_management")
    manager.intermediate_device = lambda: torch.device("cpu")
    monkeypatch.setitem(sys.modules, "comfy", types.ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.model_management", manager)
    return tmp_path


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


def test_the_phone_node_gives_photo_depth_and_description(comfy_folders):
    import json

    from fathom.nodes.sensors import FathomLoadPhoneDepth

    phone(comfy_folders / "input" / "a.heic", apple_xmp(0.25, 3.5, "relative"))
    image, depth, picture, info = FathomLoadPhoneDepth().execute("a.heic")
    assert image.shape == (1, 96, 128, 3) and picture.shape == (1, 48, 64, 3)
    assert depth.kind == json.loads(info)["kind"] == "affine_inverse"
    assert float(picture[0, 20, -1, 0]) == 1.0, "near is white"


def test_the_stereo_node_tells_its_holes(pair):
    from fathom.nodes.sensors import FathomStereoDepth

    left, right, _ = pair
    depth, image, holes = FathomStereoDepth().execute(
        torch.cat((left, right), 2), sensors.LAYOUTS[1], focal=FOCAL, baseline=BASELINE
    )
    assert depth.kind == "metric"
    assert torch.equal(holes.bool(), ~depth.valid)
    assert image.shape == left.shape
