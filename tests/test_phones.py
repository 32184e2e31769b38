"""Depth in phones' photos, read through the real decoders from files that the tests write."""

from __future__ import annotations

import base64
import io
import math
import random
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fathom import FathomError, PictureError, SettingError
from fathom.tools import jpeg, phones, xmp

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


def with_boxes(
    data: bytes, properties: tuple[list[bytes], list[bytes]], reference: bytes = b"", group: bytes = b""
) -> bytes:
    """A file of two pictures with further properties of each. reference, group: called with the items' numbers as
    "{photo}" and "{second}" they make the boxes of iref and grpl."""
    ((start, end),) = [(a, b) for kind, a, b in boxes(data, 0, len(data)) if kind == b"meta"]
    items = next(data[a:b] for kind, a, b in boxes(data, start + 12, end) if kind == b"iinf")
    entries = [items[a:b] for _, a, b in boxes(items, 14, len(items))]
    photo, second = (struct.unpack_from(">H", e, 12)[0] for e in entries if e[16:20] == b"hvc1")

    def rebuilt(shift: int) -> bytes:
        made = []
        for kind, a, b in boxes(data, start + 12, end):
            raw = bytearray(data[a:b])
            if kind == b"iloc":
                for item in range(struct.unpack_from(">H", raw, 14)[0]):
                    at = 16 + 18 * item + 4
                    struct.pack_into(">I", raw, at, struct.unpack_from(">I", raw, at)[0] + shift)
            elif kind == b"iref" and reference:
                raw = bytearray(box(b"iref", raw[8:], box(reference, struct.pack(">HHH", second, 1, photo))))
            elif kind == b"iprp":
                inner = {k: data[i:j] for k, i, j in boxes(data, a + 8, b)}
                known = len(boxes(inner[b"ipco"], 8, len(inner[b"ipco"])))
                numbers = {photo: list(range(len(properties[0]))), second: []}
                numbers[second] = [len(properties[0]) + n for n in range(len(properties[1]))]
                table, rows, at = inner[b"ipma"], b"", 16
                for _ in range(struct.unpack_from(">I", table, 12)[0]):
                    item, count = struct.unpack_from(">HB", table, at)
                    used = table[at + 3 : at + 3 + count]
                    at += 3 + count
                    used += bytes(0x80 | known + 1 + n for n in numbers.get(item, []))
                    rows += struct.pack(">HB", item, len(used)) + used
                every = box(b"ipco", inner[b"ipco"][8:], *properties[0], *properties[1])
                raw = bytearray(box(b"iprp", every, box(b"ipma", table[8:16], rows)))
            made.append(bytes(raw))
        if group:
            pair = struct.pack(">IIII", 99, 2, photo, second)
            made.append(box(b"grpl", box(group, bytes(4), pair)))
        return box(b"meta", bytes(4), *made)

    return data[:start] + rebuilt(len(rebuilt(0)) - (end - start)) + data[end:]


def declare_auxiliary(data: bytes, aux: bytes, message: bytes, turns: tuple[int, int]) -> bytes:
    """Make the second picture an auxiliary of the first. turns: quarter turns, anticlockwise, of photo and depth."""
    of_photo, of_depth = ([box(b"irot", bytes([turn]))] if turn else [] for turn in turns)
    return with_boxes(data, (of_photo, [box(b"auxC", bytes(4), aux + b"\0", message), *of_depth]), b"auxl")


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
    found = phones.load_phone_depth(phone(tmp_path / "a.heic", apple_xmp(0.25, 3.5, "relative", extra=INTRINSICS)))
    assert found.depth.kind == "affine_inverse"
    assert found.depth.values.shape == (1, 48, 64)
    truth = torch.from_numpy(RAMP[:48]).float() / 255 * 3.25 + 0.25
    assert float((found.depth.values[0] - truth).abs().max()) < 3.25 / 255 * 1.01  # the encoder's own rounding
    assert found.depth.focal == pytest.approx(3200 * 64 / 4000)
    assert found.metadata["focal_from"] == "intrinsics"
    assert found.image.shape == (1, 96, 128, 3)
    assert float(found.image[0, 10, 10, 0]) > 0.9 and float(found.image[0, 10, 120, 0]) < 0.1


def test_absolute_disparity_and_distance_are_metric(tmp_path):
    near = phones.load_phone_depth(phone(tmp_path / "a.heic", apple_xmp(0.25, 4.0, "absolute"))).depth
    assert near.kind == "metric"
    assert float(near.metres().amin()) == pytest.approx(1 / 4.0, rel=0.02)
    assert float(near.metres().amax()) == pytest.approx(1 / 0.25, rel=0.08)
    far = phones.load_phone_depth(phone(tmp_path / "b.heic", apple_xmp(0.5, 5.0, "absolute", "depth"))).depth
    assert far.kind == "metric"
    assert float(far.metres()[0, 20, 0]) == pytest.approx(0.5, abs=0.05)
    assert float(far.metres()[0, 20, -1]) == pytest.approx(5.0, abs=0.05)


@pytest.mark.parametrize("accuracy", ["relative", None])
def test_relative_distance_is_affine_depth_and_larger_is_closer(tmp_path, accuracy):
    depth = phones.load_phone_depth(phone(tmp_path / "a.heic", apple_xmp(0.5, 5.0, accuracy, "depth"))).depth
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
    depth = phones.load_phone_depth(phone(tmp_path / "a.heic", message=message)).depth
    assert depth.kind == kind
    assert float(depth.values[0, 20, 0]) == pytest.approx(low, abs=0.03)
    assert float(depth.values[0, 20, -1]) == pytest.approx(high, abs=0.03)


def test_the_mattes_beside_it_do_not_describe_the_depth(tmp_path):
    matte = apple_xmp(7, 9, "absolute", "depth", "<apdi:AuxiliaryImageSubType>matte</apdi:AuxiliaryImageSubType>")
    path = phone(tmp_path / "a.heic", matte + apple_xmp(0.25, 3.5, "relative"))
    assert phones.load_phone_depth(path).depth.kind == "affine_inverse"


@pytest.mark.parametrize("depth_turns", [3, 0])
def test_depth_is_turned_as_the_photo_is(tmp_path, depth_turns):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter clockwise: the encoder marks the photo so
    turns = (0, depth_turns)
    path = phone(tmp_path / "a.heic", apple_xmp(0, 1, "relative"), turns=turns, exif=exif.tobytes())
    found = phones.load_phone_depth(path)
    assert found.image.shape == (1, 128, 96, 3)
    assert found.depth.values.shape == (1, 64, 48)
    # Left became top: red and far lie there.
    assert float(found.image[0, 10, 40, 0]) > 0.9
    assert float(found.depth.values[0, 2, 20]) < 0.1 < 0.9 < float(found.depth.values[0, -2, 20])


def test_a_map_turned_without_a_word_is_refused(tmp_path):
    path = phone(tmp_path / "a.heic", apple_xmp(0, 1, "relative"), turns=(3, 0))
    with pytest.raises(PictureError, match="which way"):
        phones.load_phone_depth(path)


def test_the_35_mm_equivalent_gives_the_focal_length_where_nothing_better_does(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26
    path = phone(tmp_path / "a.heic", apple_xmp(0, 1, "relative"), exif=exif.tobytes())
    depth = phones.load_phone_depth(path).depth
    assert depth.focal == pytest.approx(26 / math.hypot(36, 24) * math.hypot(48, 64))


def test_heic_without_depth_says_what_it_holds(tmp_path):
    path = phone(tmp_path / "IMG_1.HEIC", aux=MATTE_AUX)
    with pytest.raises(PictureError, match=r"holds no depth.*128x96.*portraiteffectsmatte x1"):
        phones.load_phone_depth(path)


@pytest.mark.parametrize("keep", [0, 10, 300, 900, 2000])
def test_truncated_heic_is_refused_in_words(tmp_path, keep):
    path = phone(tmp_path / "a.heic", apple_xmp(0, 1, "relative"))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PictureError, match=r"a\.heic"):
        phones.load_phone_depth(path)


def test_without_pillow_heif_the_error_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"anything")
    with pytest.raises(SettingError, match="pip install pillow-heif"):
        phones.load_phone_depth(tmp_path / "a.heic")


# ------------------------------------------------------------------------------ JPEG


def encoded(pixels: np.ndarray, **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, **{"format": "JPEG", "quality": 95, **options})
    return data.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(picture: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments after its beginning."""
    return picture[:2] + b"".join(segments) + picture[2:]


def multi(frames: list[bytes], kinds: list[int]) -> bytes:
    """Several JPEG frames in one file with the index that finds them (CIPA DC-007)."""

    def index(sizes: list[int], offsets: list[int]) -> bytes:
        entries = b"".join(
            struct.pack(">IIIHH", kind, size, offset, 0, 0)
            for kind, size, offset in zip(kinds, sizes, offsets, strict=True)
        )
        fields = struct.pack(">HHI4s", 0xB000, 7, 4, b"0100") + struct.pack(">HHII", 0xB001, 4, 1, len(frames))
        fields += struct.pack(">HHII", 0xB002, 7, len(entries), 8 + 2 + 36 + 4)
        return b"MPF\0" + b"MM\0*" + struct.pack(">IH", 8, 3) + fields + bytes(4) + entries

    rest = frames[1:]
    blank = with_segments(frames[0], segment(0xE2, index([0] * len(frames), [0] * len(frames))))
    place = 2 + 4 + 4  # of the index behind its segment's head and name
    offsets, at = [0], len(blank)
    for frame in rest:
        offsets.append(at - place)
        at += len(frame)
    sizes = [len(blank), *map(len, rest)]
    return with_segments(frames[0], segment(0xE2, index(sizes, offsets))) + b"".join(rest)


def xmp_segment(packet: bytes) -> bytes:
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)


def red_left(height: int = 96, width: int = 128) -> np.ndarray:
    photo = np.zeros((height, width, 3), np.uint8)
    photo[:, : width // 2, 0] = 255
    return photo


def iphone_jpeg(path: Path, xmp_packet: bytes, exif: Image.Exif | None = None) -> Path:
    depth = with_segments(encoded(RAMP[:48]), xmp_segment(xmp_packet))
    photo = encoded(red_left(), **({"exif": exif.tobytes()} if exif else {}))
    path.write_bytes(multi([photo, depth], [0x030000, 0]))
    return path


def test_the_depth_frame_of_an_iphone_jpeg_is_read(tmp_path):
    found = phones.load_phone_depth(iphone_jpeg(tmp_path / "a.jpg", apple_xmp(0.25, 3.5, "relative", extra=INTRINSICS)))
    truth = torch.from_numpy(RAMP[:48]).float() / 255 * 3.25 + 0.25
    assert found.depth.kind == "affine_inverse" and found.depth.values.shape == (1, 48, 64)
    assert float((found.depth.values[0] - truth).abs().max()) < 0.1
    assert found.depth.focal == pytest.approx(3200 * 64 / 4000)
    assert found.depth.principal is not None
    assert found.depth.principal[0].tolist() == pytest.approx([2000.5 * 64 / 4000 - 0.5, 1500.5 * 64 / 4000 - 0.5])


def test_photo_and_depth_of_a_jpeg_are_turned_together(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    found = phones.load_phone_depth(
        iphone_jpeg(tmp_path / "a.jpg", apple_xmp(0, 1, "relative", extra=INTRINSICS), exif)
    )
    assert found.image.shape == (1, 128, 96, 3) and found.depth.values.shape == (1, 64, 48)
    assert float(found.image[0, 10, 40, 0]) > 0.9
    assert float(found.depth.values[0, 2, 20]) < 0.1 < 0.9 < float(found.depth.values[0, -2, 20])
    principal = found.depth.principal
    assert principal is not None
    assert principal[0].tolist() == pytest.approx([47 - (1500.5 * 64 / 4000 - 0.5), 2000.5 * 64 / 4000 - 0.5])


def gdepth(pixels: np.ndarray, shape: str, units: str = "", **more: str) -> tuple[bytes, bytes]:
    """GDepth's XMP in two parts: what describes the map, and the map itself, too long for one segment."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    told = {"Format": shape, "Near": "2.0", "Far": "10.0", "Mime": "image/png", **({"Units": units} if units else {})}
    said = " ".join(f'GDepth:{k}="{v}"' for k, v in {**told, **more}.items())
    space = 'xmlns:GDepth="http://ns.google.com/photos/1.0/depthmap/"'
    whole = "<x:xmpmeta><rdf:RDF><rdf:Description {} {}/></rdf:RDF></x:xmpmeta>"
    content = f'GDepth:Data="{base64.b64encode(data.getvalue()).decode()}"'
    return whole.format(space, said).encode(), whole.format(space, content).encode()


def lens_blur(path: Path, parts: tuple[bytes, bytes]) -> Path:
    standard, extended = parts
    segments = [xmp_segment(standard)]
    for at in range(0, len(extended), 500):
        head = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">II", len(extended), at)
        segments.append(segment(0xE1, head + extended[at : at + 500]))
    path.write_bytes(with_segments(encoded(red_left()), *segments))
    return path


@pytest.mark.parametrize(("shape", "middle"), [("RangeInverse", 0.3), ("RangeLinear", 1 / 6)])
@pytest.mark.parametrize(("units", "kind"), [("m", "metric"), ("", "scale_inverse")])
def test_google_depth_runs_from_near_to_far(tmp_path, shape, middle, units, kind):
    depth = phones.load_phone_depth(lens_blur(tmp_path / "a.jpg", gdepth(RAMP[:48], shape, units))).depth
    assert depth.kind == kind
    assert float(depth.values[0, 5, 0]) == pytest.approx(1 / 2, rel=1e-3)
    assert float(depth.values[0, 5, -1]) == pytest.approx(1 / 10, rel=1e-3)
    assert float(depth.values[0, 5, 31:33].mean()) == pytest.approx(middle, rel=0.02)


def test_google_depth_along_rays_needs_a_focal_length(tmp_path):
    depth = phones.load_phone_depth(
        lens_blur(tmp_path / "a.jpg", gdepth(RAMP[:48], "RangeLinear", "m", MeasureType="OpticRay"))
    ).depth
    assert depth.kind == "ordinal"


def dynamic_depth(path: Path, units: str = "Meters") -> Path:
    """Pictures behind the main one, listed with their lengths, as Dynamic Depth 1.0 has it."""
    depth, trust = encoded(RAMP[:48]), encoded(np.full((48, 64), 128, np.uint8))
    spaces = " ".join(
        f'xmlns:{name}="http://ns.google.com/photos/dd/1.0/{uri}/"'
        for name, uri in (("DM", "depthmap"), ("Camera", "camera"), ("Container", "container"), ("Item", "item"),
                          ("ImagingModel", "imagingmodel"))
    )  # fmt: skip
    items = "".join(
        f'<rdf:li><Container:Item Item:Mime="image/jpeg" Item:Length="{length}" Item:DataURI="{uri}"/></rdf:li>'
        for length, uri in ((0, "primary"), (len(depth), "android/depthmap"), (len(trust), "android/confidencemap"))
    )
    packet = (
        f"<x:xmpmeta {spaces}><rdf:RDF><rdf:Description>"
        f'<Camera:DepthMap DM:Format="RangeInverse" DM:Near="0.5" DM:Far="4" DM:Units="{units}" '
        'DM:DepthURI="android/depthmap" DM:ConfidenceURI="android/confidencemap"/>'
        '<Camera:ImagingModel ImagingModel:FocalLengthX="3200" ImagingModel:FocalLengthY="3200" '
        'ImagingModel:PrincipalPointX="2000" ImagingModel:PrincipalPointY="1500" ImagingModel:ImageWidth="4000" '
        'ImagingModel:ImageHeight="3000"/>'
        f"<Container:Directory><rdf:Seq>{items}</rdf:Seq></Container:Directory>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    path.write_bytes(with_segments(encoded(red_left()), xmp_segment(packet.encode())) + depth + trust)
    return path


def test_dynamic_depth_is_read_with_its_lens_and_confidence(tmp_path):
    depth = phones.load_phone_depth(dynamic_depth(tmp_path / "a.jpg")).depth
    assert depth.kind == "metric"
    assert float(depth.metres()[0, 5, 0]) == pytest.approx(0.5, rel=0.02)
    assert float(depth.metres()[0, 5, -1]) == pytest.approx(4.0, rel=0.1)
    assert depth.focal == pytest.approx(3200 * 64 / 4000)
    assert depth.confidence is not None and float(depth.confidence.mean()) == pytest.approx(0.5, abs=0.02)


def test_a_jpeg_without_depth_says_what_can_be_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(red_left()))
    with pytest.raises(PictureError, match=r"holds no depth: it is a JPEG of 128x96.*stereo MPO"):
        phones.load_phone_depth(tmp_path / "a.jpg")


@pytest.mark.parametrize("keep", [2, 4, 100, 800, 2000])
def test_a_truncated_jpeg_is_refused_in_words(tmp_path, keep):
    path = dynamic_depth(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PictureError, match=r"a\.jpg"):
        phones.load_phone_depth(path)


def test_damaged_files_are_refused_in_words_or_read(tmp_path):
    pytest.importorskip("pillow_heif")
    sources = [
        iphone_jpeg(tmp_path / "a.jpg", apple_xmp(0.25, 3.5, "relative", extra=INTRINSICS)),
        lens_blur(tmp_path / "b.jpg", gdepth(RAMP[:48], "RangeInverse", "m")),
        dynamic_depth(tmp_path / "c.jpg"),
        phone(tmp_path / "d.heic", apple_xmp(0.25, 3.5, "relative", extra=INTRINSICS)),
    ]
    chance, refused = random.Random(1), 0
    for turn in range(200):
        source = sources[turn % 4]
        raw = bytearray(source.read_bytes())
        for _ in range(chance.choice((1, 1, 4))):
            at = chance.randrange(min(len(raw), chance.choice((400, 2000))))
            raw[at : at + chance.choice((1, 1, 7))] = bytes([chance.randrange(256)])
        (tmp_path / f"x{source.suffix}").write_bytes(raw)
        try:
            assert phones.load_phone_depth(tmp_path / f"x{source.suffix}").depth.to_image().isfinite().all()
        except FathomError:
            refused += 1
    assert 50 < refused < 200


def test_an_index_whose_pictures_overlap_takes_no_more_than_the_file(tmp_path):
    photo = multi([encoded(red_left())] * 64, [0x030000] * 64)
    whole = photo + bytes(4 << 20)
    start, _, index = next(
        (photo.index(content), marker, content) for marker, _, content in jpeg.segments(photo) if marker == 0xE2
    )
    assert len(jpeg.frames(photo)) == 64
    entries = len(index) - 16 * 64
    hostile = bytearray(whole)
    for n in range(64):  # each is the whole file
        struct.pack_into(">II", hostile, start + entries + 16 * n + 4, len(whole), 0)
    assert sum(len(frame.data) for frame in jpeg.frames(bytes(hostile))) <= len(whole)


def test_negative_lengths_do_not_make_more_of_a_file_than_it_holds():
    raw = bytes(1000)
    items = "".join(f'<Item Item:Mime="image/jpeg" Item:Length="{900 * (-1) ** n}"/>' for n in range(1001))
    packet = xmp.parse(f"<x:xmpmeta>{items}</x:xmpmeta>".encode())
    assert packet is not None
    assert sum(len(data) for _, _, data in phones._items([packet], raw)) <= len(raw)


# ------------------------------------------------------------------------------ two views


def views() -> tuple[np.ndarray, np.ndarray]:
    """A pattern whose right view lies 12 pixels further left."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 60, 110, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (240, 440), mode="bicubic")[0].permute(1, 2, 0)
    pixels = (wide.clamp(0, 1) * 255).byte().numpy()
    return np.ascontiguousarray(pixels[:, 40:360]), np.ascontiguousarray(pixels[:, 52:372])


def stereo_mpo(path: Path, high: int = 240, wide: int = 320) -> Path:
    path.write_bytes(multi([encoded(v[:high, :wide]) for v in views()], [jpeg.DISPARITY, jpeg.DISPARITY]))
    return path


def test_a_stereo_mpo_gives_the_depth_of_its_left_view(tmp_path):
    pytest.importorskip("cv2")
    found = phones.load_phone_depth(stereo_mpo(tmp_path / "a.mpo"))
    assert found.depth.kind == "affine_inverse" and found.depth.valid is not None
    assert float(found.depth.values[found.depth.valid].median()) == pytest.approx(12, abs=0.2)


def test_previews_in_an_mpo_are_no_second_view(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(multi([encoded(red_left()), encoded(red_left(48, 64))], [0x030000, 0x010001]))
    with pytest.raises(PictureError, match="no depth.*2 pictures"):
        phones.load_phone_depth(path)


def camera_boxes(place: int) -> list[bytes]:
    """A lens of 1.5 times the width, and its place in micrometres."""
    unit = 1 << 20
    lens = struct.pack(">iii", int(1.5 * unit), unit // 2, unit // 2)
    flags = (20 << 8).to_bytes(3, "big")
    return [box(b"cmin", b"\0" + flags, lens), box(b"cmex", b"\0" + (1).to_bytes(3, "big"), struct.pack(">i", place))]


def spatial_photo(path: Path, high: int = 240, wide: int = 320) -> Path:
    heif = pytest.importorskip("pillow_heif").HeifFile()
    for view in views():
        heif.add_from_pillow(Image.fromarray(view[:high, :wide]))
    data = io.BytesIO()
    heif.save(data, quality=90, save_all=True)
    path.write_bytes(with_boxes(data.getvalue(), (camera_boxes(0), camera_boxes(20000)), group=b"ster"))
    return path


def test_a_spatial_photo_is_metric_stereo(tmp_path):
    pytest.importorskip("cv2")
    found = phones.load_phone_depth(spatial_photo(tmp_path / "a.heic"))
    assert found.depth.kind == "metric" and found.depth.valid is not None
    assert found.depth.focal == pytest.approx(1.5 * 320)
    assert found.metadata["baseline"] == pytest.approx(0.02)
    metres = found.depth.metres()[found.depth.valid]
    assert float(metres.median()) == pytest.approx(1.5 * 320 * 0.02 / 12, rel=0.02)


# ------------------------------------------------------------------------------ XMP


@pytest.mark.parametrize(
    "attack",
    [
        b"<x:xmpmeta" * 100_000,
        b"<x:xmpmeta" * 50_000 + b"</x:xmpmeta>" * 50_000,
        (b"<x:xmpmeta>" + b"</x:xmpmeta>") * 20_000,
        b"<x:xmpmeta>" + b"<a>" * 100_000 + b"</x:xmpmeta>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x:xmpmeta>&a;</x:xmpmeta>',
        b"<x:xmpmeta " + b" ".join(b'a%d="1"' % n for n in range(20_000)) + b"/></x:xmpmeta>",
    ],
)
def test_xmp_takes_time_in_proportion_to_its_size(attack):
    before = time.process_time()
    list(xmp.packets(attack))
    assert time.process_time() - before < 2


def test_a_prefix_of_another_name_is_known_by_its_address():
    packet = (
        b'<x:xmpmeta xmlns:q="http://ns.apple.com/pixeldatainfo/1.0/"><q:NativeFormat>hdis</q:NativeFormat></x:xmpmeta>'
    )
    (found,) = xmp.packets(b"before" + packet + b"after")
    assert found.find("apdi:NativeFormat") == "hdis"


# ------------------------------------------------------------------------------ real files


@pytest.mark.field
def test_a_real_portrait_photo(field_data):
    pytest.importorskip("pillow_heif")
    found = phones.load_phone_depth(field_data / "phone_portrait.heic")
    assert found.depth.kind == "affine_inverse" and found.depth.values.shape == (1, 576, 768)
    assert float(found.depth.values.min()) == pytest.approx(1.498, abs=1e-3)
    assert float(found.depth.values.max()) == pytest.approx(4.383, abs=1e-3)
    assert found.depth.focal == pytest.approx(577.64, abs=0.01)


@pytest.mark.field
def test_a_real_iphone_jpeg_with_depth(field_data):
    found = phones.load_phone_depth(field_data / "phone_depth.jpg")
    values = found.depth.values
    assert found.depth.kind == "affine_inverse" and values.shape == (1, 768, 576)
    assert found.image.shape == (1, 4032, 3024, 3)
    assert float(values.min()) == pytest.approx(0.650879, abs=1e-5)
    assert float(values.max()) == pytest.approx(2.509766, abs=1e-5)
    assert float(values[0, 384, 288]) > float(values[0, 60, 288]) + 1, "the vase is before the wall"


@pytest.mark.field
def test_a_real_lens_blur_photo(field_data):
    found = phones.load_phone_depth(field_data / "phone_gdepth.jpg")
    assert found.depth.kind == "scale_inverse" and found.depth.values.shape == (1, 1024, 768)
    assert float(found.depth.values.max()) <= 1 / 12.423588 + 1e-6
    assert float(found.depth.values.min()) >= 1 / 390.539307 - 1e-6
    assert float(found.depth.values[0, 900].mean()) > 3 * float(found.depth.values[0, 300].mean())


# ------------------------------------------------------------------------------ nodes


def test_the_phone_node_gives_photo_depth_and_description(comfy_folders):
    import json

    from fathom.nodes.sensors import FathomLoadPhoneDepth

    phone(comfy_folders / "input" / "a.heic", apple_xmp(0.25, 3.5, "relative"))
    image, depth, picture, info = FathomLoadPhoneDepth().execute("a.heic")
    assert image.shape == (1, 96, 128, 3) and picture.shape == (1, 48, 64, 3)
    assert depth.kind == json.loads(info)["kind"] == "affine_inverse"
    assert float(picture[0, 20, -1, 0]) == 1.0, "near is white"
