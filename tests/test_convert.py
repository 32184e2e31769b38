"""Depth from pictures and geometries and back; metres, inverse, disparity."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fathom import Depth, PictureError, SettingError, SignalError
from fathom.signals.depth import depth_from_metres
from fathom.signals.depth import to_metric as metres_of
from fathom.signals.files import save_depth
from fathom.tools.convert import (
    convert_depth,
    depth_from_file,
    depth_from_geometry,
    depth_from_image,
    depth_from_numbers,
    depth_to_image,
    disparity,
    focal_at,
    focal_from_view,
    normals_from_geometry,
    numbers_to_image,
    parse_points,
    to_metric,
)

RAMP = torch.linspace(0, 1, 1001)[None, None, :, None].expand(1, 4, 1001, 3)


def grey(*values: float) -> torch.Tensor:
    return torch.tensor([[list(values)]])[..., None].expand(-1, -1, -1, 3)


# ---------------------------------------------------------------------------------------------- from a picture


def test_inverse_picture_is_an_affine_depth() -> None:
    depth = depth_from_image(RAMP)
    assert depth.kind == "affine_inverse" and torch.equal(depth.values, RAMP[..., 0])
    assert torch.allclose(depth_from_image(RAMP, near="black").values, 1 - RAMP[..., 0])
    metric = depth_from_image(RAMP, unit="cm", scale=0.02)
    assert metric.kind == "metric" and float(metric.values.amax()) == pytest.approx(2.0)  # 0.02/cm


def test_metric_picture_has_black_near_and_zero_unknown() -> None:
    depth = depth_from_image(grey(0.0, 0.25, 1.0), "metric", 10.0, "m")
    assert depth.kind == "metric" and depth.valid is not None
    assert depth.valid.flatten().tolist() == [False, True, True]
    assert depth.metres()[0, 0, 1:].tolist() == [2.5, 10.0]
    white = depth_from_image(grey(0.0, 0.75), "metric", 10.0, "m", near="white")
    assert white.metres().flatten().tolist() == [10.0, 2.5]
    feet = depth_from_image(grey(1.0), "metric", 10.0, "ft")
    assert float(feet.metres()) == pytest.approx(3.048)


def test_relative_distance_is_larger_closer_too() -> None:
    depth = depth_from_image(grey(0.25, 1.0), "metric", unit="relative")
    assert depth.kind == "affine_depth" and depth.values.flatten().tolist() == [-0.25, -1.0]


def test_disparity_picture_with_and_without_a_camera() -> None:
    assert depth_from_image(grey(0.5, 0.2), "disparity", 64.0).kind == "affine_inverse"
    depth = depth_from_image(grey(0.5, 0.0), "disparity", 64.0, focal=800.0, baseline=0.1)
    assert depth.kind == "metric" and depth.metres().flatten().tolist() == [pytest.approx(2.5), math.inf]
    assert depth.focal == 800


def test_picture_of_8_bits_is_told(caplog: pytest.LogCaptureFixture) -> None:
    coarse = (RAMP * 255).round() / 255
    with caplog.at_level(logging.WARNING):
        assert depth_from_image(coarse, "metric", 5.0, "m").source == "a picture of 8 bits"
    assert "8 bits" in caplog.text
    caplog.clear()
    assert depth_from_image(RAMP, "metric", 5.0, "m").source == "a picture"
    assert not caplog.text


def test_mask_of_what_was_measured_is_resized_and_broadcast() -> None:
    mask = torch.tensor([[[1.0, 0.0]]])
    depth = depth_from_image(torch.rand(3, 4, 8, 1), valid=mask)
    assert depth.valid is not None and depth.valid.shape == (3, 4, 8)
    assert bool(depth.valid[:, :, :4].all()) and not bool(depth.valid[:, :, 4:].any())
    nothing = depth_from_image(torch.rand(1, 4, 8, 3)[..., :1], valid=torch.zeros(1, 4, 8))
    assert nothing.valid is not None and not bool(nothing.valid.any())
    with pytest.raises(SignalError, match="do not fit"):
        depth_from_image(torch.rand(3, 4, 8, 1), valid=torch.ones(2, 4, 8))


def test_bad_pictures_and_settings() -> None:
    with pytest.raises(PictureError, match="coloured"):
        depth_from_image(torch.rand(1, 4, 4, 3))
    with pytest.raises(PictureError, match="NaN"):
        depth_from_image(torch.full((1, 4, 4, 3), torch.nan))
    for bad in ({"meaning": "z"}, {"unit": "yard"}, {"near": "grey"}, {"scale": 0.0}, {"scale": math.nan}):
        with pytest.raises(SettingError, match=next(iter(bad))):
            depth_from_image(RAMP, **bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SettingError, match="above 0"):
        depth_from_image(RAMP, "disparity", focal=500.0, baseline=-1.0)


# ---------------------------------------------------------------------------------------------- from files


def write_png(path: Path, array: np.ndarray) -> None:
    import cv2

    assert cv2.imwrite(str(path), array)


def test_sensor_png_in_millimetres(tmp_path: Path) -> None:
    write_png(tmp_path / "kinect.png", np.array([[0, 1500, 65535]], np.uint16))
    depth = depth_from_file(tmp_path / "kinect.png", "metric", 1.0, "mm")
    assert depth.valid is not None and depth.valid.flatten().tolist() == [False, True, True]
    assert depth.metres()[0, 0, 1:].tolist() == pytest.approx([1.5, 65.535])


def test_8_bit_png_given_as_16_bit_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "d.png", np.array([[0, 15, 255]], np.uint8))
    with pytest.raises(PictureError, match="8 bits"):
        depth_from_file(tmp_path / "d.png", "metric", 1.0, "mm")
    assert depth_from_file(tmp_path / "d.png", "inverse", unit="relative").kind == "affine_inverse"


def test_files_of_fathom_need_no_meaning(tmp_path: Path) -> None:
    depth = depth_from_metres(torch.rand(1, 5, 6) + 1)
    for suffix in (".exr", ".npz"):
        save_depth(depth, tmp_path / f"d{suffix}")
        assert torch.equal(depth_from_file(tmp_path / f"d{suffix}").values, depth.values)
    with pytest.raises(SettingError, match="as saved"):
        depth_from_file(tmp_path / "d.npz", "metric")


def test_a_depth_up_to_one_factor_needs_one_known_distance() -> None:
    metres = torch.linspace(2, 9, 40).reshape(1, 5, 8)
    depth = Depth(7 / metres, "scale_inverse")
    by_point = to_metric(depth, points=[(3, 2, float(metres[0, 2, 3]))])
    for metric, _ in (to_metric(depth, near=2.0), to_metric(depth, far=9.0), by_point):
        assert metric.kind == "metric"
        torch.testing.assert_close(metric.metres(), metres)
    fitted, fit = to_metric(depth, points=[(0, 0, 2.0), (7, 4, 9.0)])
    torch.testing.assert_close(fitted.metres(), metres)
    assert fit is not None and fit.space == "inverse" and fit.offset == [0.0]
    with pytest.raises(SettingError, match="at least one point"):
        to_metric(depth, points=[])
    with pytest.raises(SettingError, match="at least two points"):
        to_metric(Depth(7 / metres, "affine_inverse"), points=[(0, 0, 2.0)])


# ---------------------------------------------------------------------------------------------- geometries


def test_moge_geometry() -> None:
    metres = torch.rand(2, 6, 8) * 5 + 1
    metres[0, 0, 0] = torch.inf
    mask = torch.ones(2, 6, 8, dtype=torch.bool)
    mask[0, 0, 0] = False
    lens = torch.tensor([[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]).expand(2, 3, 3)
    given = {"depth": metres, "mask": mask, "intrinsics": lens, "points": torch.zeros(2, 6, 8, 3), "image": None}
    depth = depth_from_geometry(given)
    assert depth.kind == "metric" and depth.valid is not None and torch.equal(depth.valid, mask)
    assert torch.allclose(depth.metres()[mask], metres[mask])
    assert isinstance(depth.focal, torch.Tensor) and depth.focal.tolist() == pytest.approx([7.2, 7.2])
    relative = depth_from_geometry(given, "relative")
    assert relative.kind == "scale_inverse" and torch.equal(relative.values, depth.values)


def test_moge_panorama_has_no_metres() -> None:
    given = {"depth": torch.ones(1, 4, 8), "mask": torch.ones(1, 4, 8, dtype=torch.bool), "points": torch.ones(1)}
    with pytest.raises(SignalError, match="relative"):
        depth_from_geometry(given)
    assert depth_from_geometry(given, "relative").focal is None


def test_da3_metres_need_the_focal_length_of_what_the_network_saw() -> None:
    numbers = torch.rand(2, 6, 8) + 1
    sky = torch.zeros(2, 6, 8)
    sky[:, 0] = 0.9
    given = {"depth": numbers, "mode": "mono", "sky": sky, "image": None}
    with pytest.raises(SignalError, match="known focal length: give the field of view"):
        depth_from_geometry(given)
    assert depth_from_geometry(given, "relative").kind == "scale_inverse"
    # At 60 degrees 504 pixels have a focal length of 436, and 6 rows became 378.
    depth = depth_from_geometry(given, focal=focal_from_view(60.0, 8))
    assert depth.kind == "metric" and bool(depth.metres()[:, 0].isinf().all())
    torch.testing.assert_close(depth.metres()[:, 1:], numbers[:, 1:] * (252 / math.tan(math.pi / 6) / 300))
    assert torch.allclose(torch.as_tensor(depth.focal), torch.tensor(4 / math.tan(math.pi / 6)))
    # 6 rows of 252 columns would be 189, which lies between 182 and 196.
    halved = depth_from_geometry(given, focal=focal_from_view(60.0, 8), longest=252)
    share = (252 / 8 + 196 / 6) / (504 / 8 + 378 / 6)
    torch.testing.assert_close(halved.metres()[:, 1:], depth.metres()[:, 1:] * share)
    with pytest.raises(SettingError, match="between 0 and 180"):
        focal_from_view(180.0, 8)


def test_da3_multiview_has_a_lens_and_confidence_but_no_metres() -> None:
    numbers = torch.rand(2, 6, 8) + 1
    # The network saw 504 pixels of width: its focal length is given for them.
    lens = torch.tensor([[400.0, 0, 252], [0, 400, 189], [0, 0, 1]]).expand(1, 2, 3, 3)
    sure = torch.rand(2, 6, 8) + 1
    given = {"depth": numbers, "mode": "multiview", "confidence": sure, "intrinsics": lens}
    with pytest.raises(SignalError, match="relative"):
        depth_from_geometry(given)
    relative = depth_from_geometry(given, "relative")
    assert isinstance(relative.focal, torch.Tensor) and relative.focal.tolist() == pytest.approx([400 * 8 / 504] * 2)
    assert relative.confidence is not None and torch.equal(relative.confidence, sure)
    torch.testing.assert_close(focal_at(relative, 16), 2 * relative.focal)
    identity = torch.eye(3).expand(1, 2, 3, 3)
    bare = depth_from_geometry({**given, "intrinsics": identity}, "relative")
    assert bare.focal is None
    with pytest.raises(SignalError, match="no lens to take"):
        focal_at(bare, 8)
    # One known distance is what a factor needs.
    metric = depth_from_geometry(given, near=3.0)
    assert metric.kind == "metric" and float(metric.metres()[0].min()) == pytest.approx(3.0)


def test_the_sky_of_a_geometry_is_infinitely_far_from_one_half_on() -> None:
    sky = torch.tensor([[[0.0, 0.49, 0.5, 1.0]]])
    given = {"depth": torch.full((1, 1, 4), 300.0), "mode": "mono", "sky": sky, "image": None}
    depth = depth_from_geometry(given, "relative")
    assert (depth.values[0, 0] == 0).tolist() == [False, False, True, True]


@pytest.mark.parametrize(("numbers", "seen"), [([-2, -1, 0, 1], [True] * 4), ([0, 1, 2, 3], [False, True, True, True])])
def test_disparity_of_0_is_one_where_others_are_negative(tmp_path: Path, numbers: list[int], seen: list[bool]) -> None:
    np.save(tmp_path / "d.npy", np.array([numbers, numbers], np.int16))
    depth = depth_from_file(tmp_path / "d.npy", "disparity")
    valid = torch.ones(1, 2, 4, dtype=torch.bool) if depth.valid is None else depth.valid
    assert valid[0, 0].tolist() == seen


def test_moge_normals_turn_to_the_viewer() -> None:
    vectors = torch.tensor([0.6, 0.0, -0.8]).repeat(1, 4, 5, 1)
    vectors[0, 0, 0] = 0
    normals = normals_from_geometry({"depth": torch.ones(1, 4, 5), "normal": vectors})
    assert normals is not None and normals.valid is not None and int((~normals.valid).sum()) == 1
    torch.testing.assert_close(normals.vectors[0, 1, 1], torch.tensor([0.6, 0.0, 0.8]))
    assert normals_from_geometry({"depth": torch.ones(1, 4, 5)}) is None
    vectors[0, 1, 1] = torch.tensor([0.0, 0.3, -0.4])
    vectors[0, 1, 2] = torch.tensor([0.0, 0.0, 2.0])
    hidden = torch.ones(1, 4, 5, dtype=torch.bool)
    hidden[0, 2, 2] = False
    normals = normals_from_geometry({"normal": vectors, "mask": hidden})
    assert normals is not None and normals.valid is not None
    assert (~normals.valid)[0].nonzero().tolist() == [[0, 0], [1, 1], [2, 2]], "half a unit long is no normal"
    assert normals.vectors[0, 1, 2].tolist() == [0, 0, -1]


@pytest.mark.parametrize("bad", [None, {}, {"depth": None}, {"points": torch.ones(1)}])
def test_what_is_no_geometry_is_told(bad: object) -> None:
    with pytest.raises(SignalError, match="geometry"):
        depth_from_geometry(bad)  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------------------------------------- to a picture


def test_to_image_modes() -> None:
    depth = Depth(torch.tensor([[[0.0, 1.0, 2.0, 10.0]], [[0.0, 5.0, 10.0, 20.0]]]), "affine_inverse")
    assert depth_to_image(depth)[..., 0].tolist()[0][0] == pytest.approx([0, 0.1, 0.2, 1])
    assert depth_to_image(depth, scope="batch")[0, 0, :, 0].tolist() == pytest.approx([0, 0.05, 0.1, 0.5])
    assert depth_to_image(depth, gamma=2.0)[0, 0, :, 0].tolist() == pytest.approx([0, 0.01, 0.04, 1])
    clipped = depth_to_image(depth, "percentile", low=0, high=100 * 2 / 3)[0, 0, :, 0]
    assert clipped.tolist() == pytest.approx([0, 0.5, 1, 1])
    metric = depth_from_metres(torch.tensor([[[1.0, 2.0, 3.0, 4.0, 5.0]]]))
    seen = depth_to_image(metric, "percentile", low=25, high=75, space="metres")[0, 0, :, 0]
    assert seen.tolist() == pytest.approx([1, 1, 0.5, 0, 0])
    seen = depth_to_image(metric, "percentile", low=0, high=75, space="metres")[0, 0, :, 0]
    assert seen.tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3, 0]), "75 from the far end is 2 metres"
    assert torch.equal(depth_to_image(depth, "percentile", low=0, high=100), depth_to_image(depth))
    for bad in ({"low": -0.5}, {"low": 100.5, "high": 101.0}, {"high": 100.5}, {"low": 60.0, "high": 40.0}):
        with pytest.raises(SettingError, match="low|high"):
            depth_to_image(depth, "percentile", **bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SettingError, match="gamma"):
        depth_to_image(depth, gamma=100.5)


def test_fixed_near_and_far() -> None:
    metric = depth_from_metres(torch.tensor([[[1.0, 2.0, 4.0, torch.inf, 0.0]]]))
    seen = depth_to_image(metric, "fixed", near=1.0, far=4.0)[0, 0, :, 0]
    assert seen.tolist() == pytest.approx([1, 1 / 3, 0, 0, 0])
    seen = depth_to_image(metric, "fixed", near=1.0, far=4.0, space="metres")[0, 0, :, 0]
    assert seen.tolist() == pytest.approx([1, 2 / 3, 0, 0, 0])
    half = depth_from_metres(torch.tensor([[[0.25, 0.5, 1.0, 2.0]]]))
    seen = depth_to_image(half, "fixed", near=0.5, far=2.0)[0, 0, :, 0]
    assert seen.tolist() == pytest.approx([1, 1, 1 / 3, 0])
    for near, far in ((4.0, 1.0), (0.0, 1.0), (1.0, 1.0), (None, 1.0), (1.0, None)):
        with pytest.raises(SettingError, match="0 < near < far"):
            depth_to_image(metric, "fixed", near=near, far=far)
    with pytest.raises(SignalError, match="convert it"):
        depth_to_image(Depth(torch.rand(1, 2, 2), "ordinal"), "fixed", near=1.0, far=2.0)


def test_pictures_without_contrast_or_validity_have_no_nan() -> None:
    flat = Depth(torch.full((1, 3, 3), 2.0), "metric")
    nothing = Depth(torch.full((1, 3, 3), torch.nan), "metric", torch.zeros(1, 3, 3, dtype=torch.bool))
    for depth in (flat, nothing):
        for mode in ("min-max", "percentile"):
            for space in ("inverse", "metres"):
                assert bool(depth_to_image(depth, mode, space=space).isfinite().all())  # pyright: ignore


# ---------------------------------------------------------------------------------------------- conversion


def test_metres_inverse_metres_within_1e_6() -> None:
    metres = torch.logspace(-2, 4, 10000)[None, None]
    depth = depth_from_metres(metres, focal=500.0)
    _, inverse, _ = convert_depth(depth, "inverse")
    back = depth_from_numbers(inverse, "inverse", unit="m")
    assert float((back.metres() / metres - 1).abs().amax()) < 1e-6
    _, pixels, _ = convert_depth(depth, "disparity", baseline=0.12)
    again = depth_from_numbers(pixels, "disparity", focal=500.0, baseline=0.12)
    assert float((again.metres() / metres - 1).abs().amax()) < 1e-6


def test_disparity_needs_a_camera() -> None:
    depth = depth_from_metres(torch.full((1, 2, 2), 4.0))
    with pytest.raises(SignalError, match="focal"):
        disparity(depth, 0.1)
    with pytest.raises(SettingError, match="baseline"):
        disparity(depth, None, 500.0)
    assert disparity(depth, 0.1, 800.0).unique().tolist() == pytest.approx([20.0])
    with pytest.raises(SignalError, match="needs a metric depth, got affine_inverse"):
        disparity(Depth(torch.ones(1, 2, 2), "affine_inverse"), 0.1, 800.0)


def test_one_hot_pixel_does_not_stretch_near_and_far(caplog: pytest.LogCaptureFixture) -> None:
    values = torch.linspace(0, 1, 64 * 64).view(1, 64, 64)
    clean = metres_of(Depth(values, "affine_inverse"), 1.0, 4.0)
    values = values.clone()
    values[0, 10, 10] = 2.0
    hot = metres_of(Depth(values, "affine_inverse"), 1.0, 4.0)
    keep = torch.ones(64, 64, dtype=torch.bool)
    keep[10, 10] = False
    assert torch.allclose(hot.values[0][keep], clean.values[0][keep]) and float(hot.values[0, 10, 10]) == 1
    assert torch.equal(to_metric(Depth(values, "affine_inverse"), 1.0, 4.0)[0].values, hot.values)
    assert "lone pixels" in caplog.text


def test_near_and_far_make_metres() -> None:
    depth = Depth(torch.tensor([[[0.0, 1.0, 3.0]]]), "affine_inverse")
    metric, numbers, report = convert_depth(depth, near=1.0, far=4.0)
    assert metric.kind == "metric" and numbers[0, 0].tolist() == pytest.approx([4, 2, 1])
    assert json.loads(report)["fit"] is None
    with pytest.raises(SignalError, match="near and far"):
        convert_depth(depth)
    with pytest.raises(SignalError, match="order only"):
        convert_depth(Depth(torch.rand(1, 2, 2), "ordinal"), near=1.0, far=2.0)


@pytest.mark.parametrize("kind", ["affine_inverse", "affine_depth"])
def test_fit_to_points_finds_the_truth_and_tells_the_residual(kind: str) -> None:
    truth = torch.rand(2, 20, 30, generator=torch.Generator().manual_seed(0)) * 8 + 1
    truth[1] = truth[0]
    values = 7 / truth - 3 if kind == "affine_inverse" else 5 - 0.3 * truth
    depth = Depth(values, kind)  # pyright: ignore[reportArgumentType]
    points = [(x, y, float(truth[0, y, x])) for x, y in ((3, 4), (20, 15), (29, 0), (0, 19))]
    metric, fit = to_metric(depth, points=points)
    assert fit is not None and fit.residual == pytest.approx([0, 0], abs=1e-4) and fit.points == 4
    assert torch.allclose(metric.metres(), truth, rtol=1e-4)
    off = [*points[:3], (points[3][0], points[3][1], points[3][2] + 0.5)]
    _, fit = to_metric(depth, points=off)
    assert fit is not None and 0.01 < fit.residual[0] < 0.5 and fit.worst[0] >= fit.residual[0]
    text = "\n".join(f"{x}, {y} {m}" for x, y, m in points)
    _, numbers, report = convert_depth(depth, points=text)
    assert torch.allclose(numbers, truth, rtol=1e-4) and json.loads(report)["fit"]["points"] == 4


def test_fit_beyond_infinity_is_told() -> None:
    depth = Depth(torch.tensor([[[0.0, 1.0, 2.0]]]), "affine_inverse")
    metric, fit = to_metric(depth, points=[(1, 0, 10.0), (2, 0, 1.0)])
    assert metric.metres()[0, 0, 0] == math.inf and fit is not None and fit.beyond == pytest.approx([1 / 3])


def test_bad_points() -> None:
    depth = Depth(torch.tensor([[[0.0, 1.0, 1.0]]]), "affine_inverse")
    with pytest.raises(SignalError, match="contradict"):
        to_metric(depth, points=[(0, 0, 1.0), (1, 0, 5.0)])
    with pytest.raises(SignalError, match="one and the same"):
        to_metric(depth, points=[(1, 0, 1.0), (2, 0, 5.0)])
    for bad in ([(0, 0, 1.0)], [(0, 0), (1, 0)], [(0, 0, 1.0), (9, 0, 1.0)], [(0, 0, 1.0), (1, 0, -1.0)]):
        with pytest.raises(SettingError, match="point"):
            to_metric(depth, points=bad)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SettingError, match="x y metres"):
        parse_points("1 2 three")
    with pytest.raises(SettingError, match="either"):
        to_metric(depth, 1.0, 2.0, [(0, 0, 1.0), (1, 0, 5.0)])
    holes = Depth(torch.tensor([[[0.0, 1.0, 2.0]]]), "affine_inverse", torch.tensor([[[True, True, False]]]))
    with pytest.raises(SettingError, match="not valid: choose another place"):
        to_metric(holes, points=[(0, 0, 5.0), (2, 0, 1.0)])


def test_three_points_that_no_line_goes_through_are_met_in_the_mean() -> None:
    depth = Depth(torch.tensor([[[0.0, 1.0, 2.0]]]), "affine_depth")
    metric, fit = to_metric(depth, points=[(0, 0, 7.0), (1, 0, 4.0), (2, 0, 2.0)])
    slope, middle = np.polyfit([-1, 0, 1], [7.0, 4.0, 2.0], 1)
    assert metric.metres()[0, 0].tolist() == pytest.approx([middle - slope, middle, middle + slope])
    assert fit is not None and fit.beyond == [0]


@pytest.mark.parametrize(("levels", "coloured"), [(8, False), (8, True)])
def test_a_grey_picture_may_be_off_by_what_compression_does(levels: int, coloured: bool) -> None:
    picture = torch.full((1, 4, 4, 3), 100 / 255)
    picture[0, 1, 1, 0] += (levels + 0.02 * (1 if coloured else -1)) / 255
    if coloured:
        with pytest.raises(PictureError, match="coloured"):
            depth_from_image(picture, "inverse")
    else:
        assert depth_from_image(picture, "inverse").kind == "affine_inverse"


def test_what_was_not_measured_is_zero_in_the_depth() -> None:
    depth = depth_from_numbers(torch.tensor([[[2.0, torch.nan, 4.0]]]), "metric", unit="m")
    assert depth.valid is not None and depth.valid.tolist() == [[[True, False, True]]]
    assert depth.values[0, 0].tolist() == [0.5, 0.0, 0.25]
    depth = depth_from_image(grey(0.5, 0.25, 1.0), "inverse", valid=torch.tensor([[[1.0, 0.0, 1.0]]]))
    assert depth.values[0, 0].tolist() == [0.5, 0.0, 1.0]


def test_numbers_as_image_hold_no_infinity() -> None:
    image = numbers_to_image(torch.tensor([[[1.5, torch.inf]], [[3.0, 2.0]]]))
    assert image[0, 0, :, 0].tolist() == [1.5, 1.5] and image[1, 0, :, 2].tolist() == [3, 2]


def test_not_valid_numbers_are_zero() -> None:
    depth = depth_from_metres(torch.tensor([[[2.0, 0.0]]]), focal=100.0)
    for to, wanted in (("metric", 2.0), ("inverse", 0.5), ("disparity", 5.0)):
        _, numbers, _ = convert_depth(depth, to, baseline=0.1)  # pyright: ignore[reportArgumentType]
        assert numbers[0, 0].tolist() == pytest.approx([wanted, 0.0])
