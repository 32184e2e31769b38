"""Sizes and resize filters: equal to the published ones, and undone exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom import SettingError
from fathom.annotator.filters import reflect_pad, resize
from fathom.annotator.sizing import MAX_NETWORK_PIXELS, Fit, bounded, check_resolution, result_size, round_to

SOURCES = [(427, 640), (720, 480), (50, 333), (7, 5), (520, 630), (1, 9)]
TARGETS = [(512, 768), (384, 576), (100, 77), (512, 640), (3, 4)]


def picture(height, width):
    levels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return levels, torch.from_numpy(levels.astype(np.float32) / 255).permute(2, 0, 1)[None]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
def test_filters_equal_opencvs(source, filter):
    import cv2

    flag = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}
    levels, pixels = picture(*source)
    for target in TARGETS:
        ours = resize(pixels, target, filter)[0].permute(1, 2, 0).numpy()
        theirs = cv2.resize(levels.astype(np.float64) / 255, target[::-1], interpolation=flag[filter])
        np.testing.assert_allclose(ours, theirs, atol=2e-4, err_msg=str(target))


@pytest.mark.parametrize("source", SOURCES)
def test_the_antialiased_filter_equals_pillows(source):
    from PIL import Image

    levels, pixels = picture(*source)
    for target in TARGETS:
        planes = [Image.fromarray(levels[..., c].astype(np.float32)).resize(target[::-1], 2) for c in range(3)]
        theirs = np.stack([np.asarray(p) for p in planes]) / 255
        np.testing.assert_allclose(resize(pixels, target, "bilinear_aa")[0].numpy(), theirs, atol=1e-4)


def in_8_bits(pixels, target, filter):
    return (resize(pixels, target, filter)[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)


@pytest.mark.parametrize("filter", ["bilinear_pil", "bicubic_pil"])
@pytest.mark.parametrize("target", [(640, 959), (512, 768), (100, 77), (300, 640)])
def test_8_bit_filters_equal_pillows_bit_for_bit(target, filter):
    from PIL import Image

    flag = Image.Resampling.BILINEAR if filter == "bilinear_pil" else Image.Resampling.BICUBIC
    levels, pixels = picture(427, 640)
    theirs = np.asarray(Image.fromarray(levels).resize(target[::-1], flag))
    np.testing.assert_array_equal(in_8_bits(pixels, target, filter), theirs)


@pytest.mark.parametrize("filter", ["area", "lanczos4", "bilinear_cv"])
@pytest.mark.parametrize("source", SOURCES)
def test_8_bit_filters_equal_opencvs_bit_for_bit(source, filter):
    import cv2

    levels, pixels = picture(*source)
    halves = [(source[0] // 2, source[1] // 2)] if source == (520, 630) else []
    for target in (*TARGETS, *halves):
        if filter == "lanczos4" and min(source) < 4:
            continue  # cv2 reads outside so small a picture in another way
        flag = {"area": cv2.INTER_AREA, "lanczos4": cv2.INTER_LANCZOS4, "bilinear_cv": cv2.INTER_LINEAR}[filter]
        theirs = cv2.resize(levels, target[::-1], interpolation=flag)
        np.testing.assert_array_equal(in_8_bits(pixels, target, filter), theirs, err_msg=str(target))


@pytest.mark.parametrize("source", [(720, 480), (600, 800), (100, 150)])
def test_areas_that_fall_on_half_a_level_are_rounded_as_opencv_does(source):
    import cv2

    levels, pixels = picture(*source)
    scale = 504 / max(source) if max(source) > 504 else 0.93
    target = round(source[0] * scale), round(source[1] * scale)
    theirs = cv2.resize(levels, target[::-1], interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(in_8_bits(pixels, target, "area"), theirs)


@pytest.mark.parametrize("source", [size for size in SOURCES if min(size) > 4])
def test_the_8_bit_cubic_filter_equals_opencvs(source):
    import cv2

    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("cv2 before 5 has other weights")
    levels, pixels = picture(*source)
    for target in TARGETS:
        theirs = cv2.resize(levels, target[::-1], interpolation=cv2.INTER_CUBIC)
        off = np.abs(in_8_bits(pixels, target, "bicubic_cv").astype(int) - theirs)
        assert off.max() <= 1 and (off > 0).sum() <= max(3, 5e-5 * off.size), target


@pytest.mark.parametrize("source", SOURCES)
def test_the_mean_of_areas_equals_opencvs_on_floats(source):
    import cv2

    levels, pixels = picture(*source)
    for target in ((100, 77), (3, 4), (260, 315)):
        if target[0] <= source[0] and target[1] <= source[1]:
            theirs = cv2.resize(levels.astype(np.float32) / 255, target[::-1], interpolation=cv2.INTER_AREA)
            ours = resize(pixels, target, "area_float")[0].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(ours, theirs, atol=2e-6, err_msg=str(target))


def test_resize_refuses_an_unknown_filter_and_changes_nothing_in_place():
    _, pixels = picture(9, 7)
    before = pixels.clone()
    for filter in ("bilinear", "bicubic", "bilinear_corners", "area", "lanczos4", "bilinear_aa", "bicubic_pil"):
        resize(pixels, (4, 5), filter)
    assert torch.equal(pixels, before)
    with pytest.raises(SettingError, match="'nearest'"):
        resize(pixels, (4, 5), "nearest")  # type: ignore[arg-type]


@given(height=st.integers(1, 16384), width=st.integers(1, 16384), resolution=st.integers(0, 4096))
@settings(max_examples=300, deadline=None)
def test_the_short_side_becomes_the_resolution_and_the_aspect_stays(height, width, resolution):
    try:
        size = result_size(height, width, resolution)
    except SettingError as error:
        assert "megapixels" in str(error)
        return
    if resolution == 0:
        assert size == (height, width)
    else:
        assert min(size) == resolution
        assert abs(max(size) - max(height, width) * resolution / min(height, width)) <= 0.5


def test_sizes_round_as_the_annotators_do():
    assert result_size(427, 640, 512) == (512, 767)
    assert result_size(480, 720, 512) == (512, 768)
    assert result_size(2, 5, 1) == (1, 2)  # 2.5 rounds half to even
    assert round_to(512, 14, 518) == 518 and round_to(511, 14) == 504 and round_to(3, 32) == 32


@given(height=st.floats(1, 20000), width=st.floats(1, 20000), multiple=st.sampled_from([14, 32, 64]))
def test_networks_never_see_more_than_their_bound(height, width, multiple):
    inner = bounded(height, width, multiple)
    assert max(inner[0], multiple) * max(inner[1], multiple) <= MAX_NETWORK_PIXELS * 1.0001
    if height * width <= MAX_NETWORK_PIXELS and min(height, width) >= multiple:
        assert inner == (height, width)


@pytest.mark.parametrize("bad", [True, 512.0, "512", None, -1, 20000, float("nan")])
def test_a_resolution_that_is_no_whole_number_is_told(bad):
    with pytest.raises(SettingError, match="resolution must"):
        check_resolution(bad)


def test_bounds_belong_to_what_is_allowed():
    assert [check_resolution(n) for n in (0, 1, 16384)] == [0, 1, 16384]
    with pytest.raises(SettingError, match="0..16384"):
        check_resolution(16385)
    for size in ((16384, 16384), (8192, 32768), (32768, 8192)):
        assert result_size(*size, min(size)) == size  # 2^28 pixels
    for size in ((16384, 16385), (16385, 16384)):
        with pytest.raises(SettingError, match="more than 256 megapixels"):
            result_size(*size, 16384)
    assert bounded(2048, 2048, 14) == (2048, 2048) and bounded(4096, 4096, 14) == (2048, 2048)


def test_a_strip_is_as_long_as_its_least_width_allows():
    assert bounded(1, 1e6, 64)[1] == bounded(1e6, 1, 64)[0] == 2048 * 2048 / 64


def test_a_fit_adds_nothing_unasked():
    field = torch.rand(1, 3, 6, 8)
    fit = Fit((6, 8), (6, 8), "bilinear", "bilinear")
    assert torch.equal(fit.enter(field), field) and torch.equal(fit.leave(field, (6, 8)), field)


@pytest.mark.parametrize("pad", [(0, 0), (3, 5), (20, 40), (0, 5), (3, 0)])
def test_a_fit_undoes_its_padding(pad):
    field = torch.rand(1, 3, 12, 16)
    fit = Fit((12, 16), (12 + 2 * pad[0], 16 + 2 * pad[1]), "bilinear", "bilinear", pad)
    torch.testing.assert_close(fit.leave(fit.enter(field), (12, 16)), field)


def test_padding_mirrors_as_numpy_does_however_small_the_picture():
    for height, width in ((5, 6), (2, 3), (1, 4)):
        field = torch.rand(1, 1, height, width)
        expected = np.pad(field[0, 0].numpy(), ((7, 7), (9, 9)), mode="reflect")
        np.testing.assert_array_equal(reflect_pad(field, 7, 9)[0, 0].numpy(), expected)
