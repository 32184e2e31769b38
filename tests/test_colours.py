"""Picture files of every depth and colour space as sRGB: the same picture is the same in 8 and in 16 bits."""

from __future__ import annotations

import io
import logging
import struct
import sys
from typing import Any

import numpy as np
import pytest
from icc_profiles import SRGB, WIDE, gamma, icc_chunk, parametric, png, profile, table
from PIL import Image, ImageCms

from fathom import PictureError
from fathom.annotator import colour
from fathom.annotator.decode import decode
from fathom.annotator.pictures import as_pixels

Y, X = np.mgrid[0:1:40j, 0:1:56j]
TRUTH = np.dstack([X, Y, 0.5 + 0 * X]) * 0.8 + 0.1
GREY = TRUTH.mean(2)


def light(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def codes(numbers: np.ndarray, bits: int) -> np.ndarray:
    return np.rint(numbers.clip(0, 1) * (2**bits - 1)).astype(f"u{bits // 8}")


def pixels(data: bytes) -> np.ndarray:
    return as_pixels(decode(data, "photo"))[0].permute(1, 2, 0).numpy()


def off(data: bytes, truth: np.ndarray = TRUTH) -> float:
    wanted = truth if truth.ndim == 3 else truth[..., None].repeat(3, 2)
    return float(abs(pixels(data) - wanted).max())


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", ["Linear", "Linear sRGB"])
def test_a_profile_is_known_by_its_content_not_by_its_name(bits: int, name: str) -> None:
    chunk = icc_chunk(profile(name, gamma(1.0), SRGB))
    assert off(png(codes(light(TRUTH), bits), 2, [chunk])) < (0.012 if bits == 8 else 0.001)


@pytest.mark.parametrize("alpha", [False, True])
def test_a_wide_profile_gives_the_same_colours_in_every_storage(alpha: bool) -> None:
    wide = profile("Wide", gamma(1.8), WIDE)
    said = ImageCms.ImageCmsProfile(io.BytesIO(wide))
    srgb = Image.fromarray(codes(TRUTH, 8))
    stored = ImageCms.profileToProfile(srgb, ImageCms.createProfile("sRGB"), said, outputMode="RGB")
    eight = np.asarray(stored)
    extra = [np.full((*eight.shape[:2], 1), 255, np.uint8)] if alpha else []
    eight = np.concatenate([eight, *extra], 2)
    kind = 6 if alpha else 2
    one, two = (
        pixels(png(eight, kind, [icc_chunk(wide)])),
        pixels(png(eight.astype(np.uint16) * 257, kind, [icc_chunk(wide)])),
    )
    assert abs(one - two).max() < 0.003 and abs(one - TRUTH).mean() < 0.005
    out = io.BytesIO()
    stored.quantize(256).save(out, "PNG", icc_profile=wide)
    assert float(abs(pixels(out.getvalue()) - TRUTH).mean()) < 0.03
    for name, options in (("JPEG", {"quality": 100, "subsampling": 0}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        out = io.BytesIO()
        stored.save(out, name, icc_profile=wide, **options)
        assert float(abs(pixels(out.getvalue()) - TRUTH).mean()) < 0.01, name


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_a_profile(bits: int) -> None:
    linear = icc_chunk(profile("Grey", gamma(1.0)))
    assert off(png(codes(light(GREY), bits), 0, [linear]), GREY) < (0.02 if bits == 8 else 0.001)
    both = np.dstack([codes(light(GREY), bits), np.full(GREY.shape, 2**bits - 1, f"u{bits // 8}")])
    assert off(png(both, 4, [linear]), GREY) < (0.02 if bits == 8 else 0.001)
    of_colours = icc_chunk(profile("Linear", gamma(1.0), SRGB))
    assert off(png(codes(light(GREY), bits), 0, [of_colours]), GREY) < (0.02 if bits == 8 else 0.001)


SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


@pytest.mark.parametrize(
    "curve",
    [
        table(light(np.linspace(0, 1, 1024))),
        parametric(3, *SRGB_CURVE),
        parametric(4, *SRGB_CURVE, 0.0, 0.0),
    ],
)
def test_srgb_written_as_any_curve_leaves_the_picture_as_it_is(curve: bytes) -> None:
    srgb = profile("Any", curve, SRGB)
    known = colour.profile_colours(srgb)
    assert known is not None and known.is_srgb()
    for bits in (8, 16):
        stored = codes(TRUTH, bits)
        found = pixels(png(stored, 2, [icc_chunk(srgb)]))
        assert np.array_equal(found, stored.astype(np.float32) / (2**bits - 1))


@pytest.mark.parametrize(
    ("curve", "wanted"),
    [
        (parametric(0, 2.0), lambda v: v**2),
        (parametric(1, 2.0, 0.5, 0.1), lambda v: (0.5 * v + 0.1) ** 2),
        (parametric(2, 2.0, 0.5, 0.1, 0.2), lambda v: (0.5 * v + 0.1) ** 2 + 0.2),
        (table(np.array([0.0, 0.25, 1.0])), lambda v: np.interp(v, [0, 0.5, 1], [0, 0.25, 1])),
        (b"curv\0\0\0\0" + bytes(4), lambda v: v),
    ],
)
def test_curves(curve: bytes, wanted: Any) -> None:
    known = colour.profile_colours(profile("Grey", curve))
    steps = np.linspace(0, 1, 50)
    assert known is not None and np.allclose(known.curves[0](steps), wanted(steps), atol=1e-4)


@pytest.mark.parametrize("primaries", [SRGB, WIDE])
@pytest.mark.parametrize("power", [1.0, 1.8, 2.2])
def test_matrix_profiles_are_computed_as_littlecms_does(primaries: Any, power: float) -> None:
    data = profile("Any", gamma(power), primaries)
    stored = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    said = ImageCms.ImageCmsProfile(io.BytesIO(data))
    peer = ImageCms.profileToProfile(Image.fromarray(stored), said, ImageCms.createProfile("sRGB"), outputMode="RGB")
    known = colour.profile_colours(data)
    assert known is not None
    assert abs(known.to_srgb(stored) - np.asarray(peer) / 255).max() < 1.2 / 255
    by_grid = colour.by_tables(stored.astype(np.uint16) * 257, data)
    assert abs(by_grid - np.asarray(peer) / 255).mean() < 0.5 / 255


def test_a_profile_of_tables_in_16_bits_goes_by_littlecms() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert colour.profile_colours(lab) is None
    data = bytearray(profile("Tables", gamma(1.0), SRGB))
    data[data.index(b"cprt") : data.index(b"cprt") + 4] = b"A2B0"
    assert colour.profile_colours(bytes(data)) is None


def test_a_damaged_profile_is_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    for bits in (8, 16):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert off(png(codes(TRUTH, bits), 2, [icc_chunk(b"no profile" * 20)])) < 0.003
        assert "profile is left out" in caplog.text


def test_cmyk_and_lab() -> None:
    srgb = Image.fromarray(codes(TRUTH, 8))
    out = io.BytesIO()
    srgb.convert("CMYK").save(out, "TIFF")
    assert off(out.getvalue()) < 0.02
    lab = ImageCms.profileToProfile(
        srgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    out = io.BytesIO()
    lab.save(out, "TIFF")
    assert float(abs(pixels(out.getvalue()) - TRUTH).mean()) < 0.02


def said(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 1e5))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("chunks", "stored"),
    [
        ([said(1.0)], light(TRUTH)),
        ([said(1 / 1.8)], light(TRUTH) ** (1 / 1.8)),
        ([said(0.45455)], TRUTH),
        ([said(1.0), (b"sRGB", b"\0")], TRUTH),
        ([(b"cICP", bytes([1, 8, 0, 1]))], light(TRUTH)),
        ([(b"cICP", bytes([1, 13, 0, 1])), said(1.0)], TRUTH),
        ([icc_chunk(profile("x", gamma(1.0), SRGB)), said(0.7)], light(TRUTH)),
    ],
)
def test_what_a_png_says_of_its_colours(bits: int, chunks: Any, stored: np.ndarray) -> None:
    assert off(png(codes(stored, bits), 2, chunks)) < (0.012 if bits == 8 else 0.001)


def test_primaries_of_a_png() -> None:
    swapped = struct.pack(">8I", 31270, 32900, 15000, 6000, 30000, 60000, 64000, 33000)
    assert off(png(codes(TRUTH[..., ::-1], 16), 2, [said(0.45455), (b"cHRM", swapped)])) < 0.001
    pixels(png(codes(TRUTH, 8), 2, [said(0.45455), (b"cHRM", bytes(32))]))


def test_adobe_rgb_told_by_exif() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    out = io.BytesIO()
    green = np.zeros((16, 16, 3), np.uint8)
    green[..., 1] = 128
    Image.fromarray(green).save(out, "JPEG", quality=100, exif=exif)
    assert decode(out.getvalue(), "a").getpixel((4, 4))[0] == 0
    greyish = np.full((16, 16, 3), (100, 150, 100), np.uint8)
    out = io.BytesIO()
    Image.fromarray(greyish).save(out, "JPEG", quality=100, exif=exif)
    red, _, blue = decode(out.getvalue(), "a").getpixel((4, 4))
    assert red < 70 and blue < 100, "its green is greener"


# ---------------------------------------------------------------------------------------------- TIFF


def tiff(array: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    pytest.importorskip("tifffile").imwrite(out, array, **options)
    return out.getvalue()


SIXTEEN = codes(TRUTH, 16)


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize(
    ("array", "options", "truth", "alone"),
    [
        (np.moveaxis(SIXTEEN, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}, TRUTH, False),
        (np.moveaxis(codes(TRUTH, 8), -1, 0), {"photometric": "rgb", "planarconfig": "separate"}, TRUTH, True),
        (SIXTEEN, {"photometric": "rgb", "byteorder": ">"}, TRUTH, True),
        (SIXTEEN, {"photometric": "rgb", "tile": (16, 16), "compression": "zlib", "predictor": True}, TRUTH, True),
        (65535 - codes(GREY, 16), {"photometric": "miniswhite"}, GREY, True),
        (255 - codes(GREY, 8), {"photometric": "miniswhite"}, GREY, True),
        (codes(GREY, 32), {"photometric": "minisblack"}, GREY, True),
        (GREY.astype(np.float32), {"photometric": "minisblack"}, GREY, True),
        (TRUTH.astype(np.float32), {"photometric": "rgb"}, TRUTH, False),
        (GREY, {"photometric": "minisblack"}, GREY, False),
        (np.rint(GREY * 255).astype(np.float32), {"photometric": "minisblack"}, GREY, True),
        (np.stack([SIXTEEN, SIXTEEN[::-1]]), {"photometric": "rgb"}, TRUTH, True),
        (SIXTEEN, {"photometric": "rgb", "bigtiff": True}, TRUTH, True),
    ],
)
def test_tiff(
    monkeypatch: pytest.MonkeyPatch, library: bool, array: Any, options: Any, truth: Any, alone: bool
) -> None:
    if options.get("predictor"):
        pytest.importorskip("imagecodecs")
    data = tiff(array, **options)
    if not library:
        monkeypatch.setitem(sys.modules, "tifffile", None)
        if not alone:
            with pytest.raises(PictureError, match="tifffile"):
                pixels(data)
            return
    assert off(data, truth) < (0.003 if array.dtype.itemsize == 1 or array.max() > 1 else 1e-4)


@pytest.mark.parametrize("library", [True, False])
def test_tiff_of_16_bits_with_a_profile(monkeypatch: pytest.MonkeyPatch, library: bool) -> None:
    data = tiff(codes(light(TRUTH), 16), photometric="rgb", iccprofile=profile("Linear sRGB", gamma(1.0), SRGB))
    monkeypatch.setitem(sys.modules, "tifffile", None) if not library else None
    assert off(data) < 0.001


def test_colours_of_a_tiff_that_are_multiplied_by_its_transparency() -> None:
    alpha = np.linspace(0.2, 1, GREY.size).reshape(GREY.shape)
    stored = codes(np.dstack([TRUTH * alpha[..., None], alpha]), 16)
    over_white = TRUTH * alpha[..., None] + 1 - alpha[..., None]
    assert off(tiff(stored, photometric="rgb", extrasamples=["assocalpha"]), over_white) < 1e-3
    straight = codes(np.dstack([TRUTH, alpha]), 16)
    assert off(tiff(straight, photometric="rgb", extrasamples=["unassalpha"]), over_white) < 1e-3


def test_float_tiff_whose_white_cannot_be_told_is_refused() -> None:
    for array in (GREY * 200.3, GREY * 4000, GREY - 40):
        with pytest.raises(PictureError, match="what is white cannot be told"):
            pixels(tiff(array.astype(np.float32), photometric="minisblack"))
    with pytest.raises(PictureError, match="what is white cannot be told"):
        pixels(tiff(codes(GREY, 16).astype(np.uint32) // 300, photometric="minisblack"))


def test_16_bits_of_a_transparent_png_are_kept() -> None:
    stored = np.dstack([SIXTEEN, np.full(GREY.shape, 65535, np.uint16)])
    assert off(png(stored, 6)) < 1e-5
    stored[:5, :, 3] = 0
    assert (pixels(png(stored, 6))[:5] == 1).all(), "transparent lies over white"


def test_a_cut_16_bit_png_is_told() -> None:
    data = png(np.random.default_rng(0).integers(0, 65536, (40, 56, 3), dtype=np.uint16), 2)
    for share in (0.3, 0.7, 0.99):
        with pytest.raises(PictureError):
            decode(data[: int(len(data) * share)], "cut")
