"""Depth of stereo pairs whose truth is known: rendered ones, and real ones."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from fathom import Depth, PictureError, SettingError
from fathom.tools import stereo


def test_without_opencv_the_error_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SettingError, match="pip install opencv-python-headless.*install one only"):
        stereo.stereo_depth(*(torch.rand(1, 64, 160, 3) for _ in range(2)))


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
    depth = stereo.stereo_depth(left, right, focal=FOCAL, baseline=BASELINE)
    assert depth.kind == "metric" and depth.focal == FOCAL
    assert depth.valid is not None
    assert float(depth.valid.float().mean()) > 0.7
    error = (depth.values * FOCAL * BASELINE - FOCAL * BASELINE / distance)[depth.valid].abs()
    assert float((error <= 1).float().mean()) >= 0.95
    relative = (depth.metres() / distance)[depth.valid]
    assert float(relative.median()) == pytest.approx(1.0, abs=0.02)


def test_points_that_one_camera_alone_sees_are_holes(pair):
    left, right, distance = pair
    valid = stereo.stereo_depth(left, right).valid
    assert valid is not None
    columns = (torch.arange(320) - FOCAL * BASELINE / distance).round().long()
    behind = render(BASELINE)[1].gather(2, columns.clamp(0, 319)) < distance - 0.3
    assert int(behind.sum()) > 500
    assert float(valid[behind].float().mean()) < 0.3
    assert not valid[columns < 0].any()


def test_without_focal_and_baseline_stereo_is_affine(pair):
    left, right, distance = pair
    depth = stereo.stereo_depth(left, right, focal=FOCAL)
    assert depth.kind == "affine_inverse"
    error = (depth.values - FOCAL * BASELINE / distance)[depth.valid].abs()
    assert float(error.median()) < 0.5


def test_a_swapped_pair_is_noticed(pair):
    left, right, _ = pair
    with pytest.raises(PictureError, match="swapped"):
        stereo.stereo_depth(right, left)


def test_side_by_side_layouts_and_batches(pair):
    left, right, _ = pair
    wide = torch.cat((left, right), 2)
    straight = stereo.split_pair(wide, None, stereo.LAYOUTS[1])
    crossed = stereo.split_pair(torch.cat((right, left), 2), None, stereo.LAYOUTS[2])
    for one, two in (straight, crossed):
        assert torch.equal(one, left) and torch.equal(two, right)
    depth = stereo.stereo_depth(left.expand(2, -1, -1, -1), right)
    assert len(depth) == 2
    assert torch.equal(depth.values[0], depth.values[1])


def test_bad_stereo_input_is_refused(pair):
    left, right, _ = pair
    with pytest.raises(PictureError, match="equal in size"):
        stereo.stereo_depth(left, right[:, :, :-1])
    with pytest.raises(PictureError, match="even width"):
        stereo.split_pair(left[:, :, :-1], None, stereo.LAYOUTS[1])
    with pytest.raises(SettingError, match="missing"):
        stereo.split_pair(left, None, stereo.LAYOUTS[0])
    with pytest.raises(SettingError, match="holds both"):
        stereo.split_pair(left, right, stereo.LAYOUTS[1])
    with pytest.raises(SettingError, match="baseline"):
        stereo.stereo_depth(left, right, focal=1.0, baseline=-1.0)
    with pytest.raises(SettingError, match="max_disparity"):
        stereo.stereo_depth(left, right, max_disparity=320)


def test_flat_pictures_match_nowhere_and_do_not_fail():
    grey = torch.full((1, 64, 96, 3), 0.5)
    depth = stereo.stereo_depth(grey, grey)
    assert bool(depth.values.isfinite().all())


def test_the_stereo_node_tells_its_holes(pair):
    from fathom.nodes.sensors import FathomStereoDepth

    left, right, _ = pair
    depth, image, holes, report = FathomStereoDepth().execute(
        torch.cat((left, right), 2), stereo.LAYOUTS[1], focal=FOCAL, baseline=BASELINE
    )
    assert depth.kind == "metric"
    assert torch.equal(holes.bool(), ~depth.valid)
    assert image.shape == left.shape
    assert "searched" in report


# ------------------------------------------------------------------------------ pairs as people have them


def moved(picture: torch.Tensor, down: float = 0.0, turn: float = 0.0, black: bool = False) -> torch.Tensor:
    """What a camera shows that points `down` pixels higher and is turned by `turn` degrees. black: what it has no
    picture of, which is what stands at the edge otherwise."""
    import cv2

    height, width = picture.shape[1:3]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, 1.0)
    matrix[1, 2] += down
    edge = cv2.BORDER_CONSTANT if black else cv2.BORDER_REPLICATE
    turned = cv2.warpAffine(picture[0].numpy(), matrix, (width, height), borderMode=edge)
    return torch.from_numpy(turned)[None]


def bad_share(depth: Depth, truth: torch.Tensor, pixels: float = 2.0) -> float:
    """The share of the valid pixels that are off by more."""
    assert depth.valid is not None
    return float(((depth.values - truth)[depth.valid].abs() > pixels).float().mean())


@pytest.mark.parametrize(("down", "turn"), [(2.0, 0.0), (-6.0, 0.0), (0.0, 1.0)])
def test_rows_that_are_off_are_found_and_put_right(pair, down, turn):
    left, right, distance = pair
    report: list[str] = []
    depth = stereo.stereo_depth(left, moved(right, down, turn), report=report)
    assert depth.valid is not None and float(depth.valid.float().mean()) > 0.65
    assert bad_share(depth, FOCAL * BASELINE / distance) < 0.02
    assert any("rows of the right picture" in line for line in report)
    report = []
    stereo.stereo_depth(left, right, report=report)
    assert not any("rows" in line for line in report), "a rectified pair is left alone"


@pytest.mark.parametrize("taller", [0.97, 1.03])
def test_a_camera_with_another_lens_is_put_right_along_the_rows(pair, taller):
    import cv2

    left, right, distance = pair
    matrix = np.array([[1, 0, 0], [0, taller, (1 - taller) * 99.5]])
    stretched = cv2.warpAffine(right[0].numpy(), matrix, (320, 200), borderMode=cv2.BORDER_REPLICATE)
    depth = stereo.stereo_depth(left, torch.from_numpy(stretched)[None])
    assert depth.valid is not None and float(depth.valid.float().mean()) > 0.65
    assert bad_share(depth, FOCAL * BASELINE / distance) < 0.02


@pytest.mark.parametrize(("down", "turn"), [(6.0, 0.0), (-6.0, 0.0), (0.0, 3.0), (0.0, -3.0)])
def test_what_the_turned_camera_does_not_show_is_a_hole(pair, down, turn):
    left, right, distance = pair
    valid = stereo.stereo_depth(left, moved(right, down, turn)).valid
    gone = moved(torch.ones_like(right), -down, -turn, black=True)[..., 0] < 0.01
    landing = (torch.arange(320) - FOCAL * BASELINE / distance).round().long().clamp(0, 319)
    lost = gone.gather(2, landing)
    assert valid is not None and int(lost.sum()) > 400
    assert float(valid[lost].float().mean()) < 0.05


def test_a_range_of_both_signs_is_found_in_a_small_copy_of_a_wide_pair(pair):
    left, right, distance = pair

    def wide(picture: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(picture.movedim(-1, 1), scale_factor=3, mode="bicubic").movedim(1, -1)

    truth = wide((FOCAL * BASELINE / distance)[..., None])[..., 0] * 3 - 42
    report: list[str] = []
    depth = stereo.stereo_depth(wide(left).clamp(0, 1), shifted(wide(right).clamp(0, 1), 42), report=report)
    assert depth.valid is not None and bad_share(depth, truth) < 0.05
    low, high = (int(n) for n in re.findall(r"disparities (-?\d+) to (-?\d+) searched", " ".join(report))[0])
    least, most = float(truth.min()), float(truth.max())
    assert low < least and high > most and high - low < 2 * (most - least)


def test_another_exposure_is_evened(pair):
    left, right, distance = pair
    report: list[str] = []
    depth = stereo.stereo_depth(left, right.pow(1.8) * 0.6, report=report)
    assert depth.valid is not None and float(depth.valid.float().mean()) > 0.65
    assert bad_share(depth, FOCAL * BASELINE / distance) < 0.02
    assert any("exposure" in line for line in report)


def test_a_converged_pair_has_disparities_of_both_signs(pair):
    left, right, distance = pair
    truth = FOCAL * BASELINE / distance - 14
    depth = stereo.stereo_depth(left[:, :, :-14], shifted(right, 14)[:, :, :-14])
    assert depth.valid is not None
    known = depth.values[depth.valid]
    assert float(known.min()) < -3 and float(known.max()) > 3
    assert bad_share(depth, truth[:, :, :-14]) < 0.02


def shifted(picture: torch.Tensor, right: int) -> torch.Tensor:
    return torch.cat((picture[:, :, :1].expand(-1, -1, right, -1), picture[:, :, :-right]), 2)


def test_the_offset_of_the_principal_points_gives_metres(pair):
    left, right, distance = pair
    depth = stereo.stereo_depth(left, shifted(right, 14), focal=FOCAL, baseline=BASELINE, offset=14.0)
    assert depth.valid is not None
    relative = (depth.metres() / distance)[depth.valid]
    assert float(relative.median()) == pytest.approx(1.0, abs=0.02)
    with pytest.raises(PictureError, match="negative disparity.*offset"):
        stereo.stereo_depth(left, shifted(right, 14), focal=FOCAL, baseline=BASELINE)


def test_the_first_columns_are_no_hole(pair):
    left, right, distance = pair
    truth = FOCAL * BASELINE / distance
    seen = torch.arange(320) >= truth + 1
    valid = stereo.stereo_depth(left, right).valid
    assert valid is not None
    assert float(valid[:, :, :32][seen[:, :, :32]].float().mean()) > 0.6


def test_what_shifts_more_than_max_disparity_is_a_hole(pair):
    left, right, distance = pair
    truth = FOCAL * BASELINE / distance
    depth = stereo.stereo_depth(left, right, max_disparity=12)
    assert depth.valid is not None
    beyond = truth > 13
    assert int(beyond.sum()) > 5000
    assert float(depth.valid[beyond].float().mean()) < 0.01
    assert float(depth.valid[truth < 11].float().mean()) > 0.6


def test_top_bottom_layouts(pair):
    left, right, _ = pair
    for layout, tall in ((stereo.LAYOUTS[3], (left, right)), (stereo.LAYOUTS[4], (right, left))):
        one, two = stereo.split_pair(torch.cat(tall, 1), None, layout)
        assert torch.equal(one, left) and torch.equal(two, right)
    with pytest.raises(PictureError, match="even height"):
        stereo.split_pair(left[:, :-1], None, stereo.LAYOUTS[3])


def occluded(disparity: np.ndarray) -> np.ndarray:
    """Which pixels with a known disparity (> 0) the right camera does not see."""
    height, width = disparity.shape
    columns = np.arange(width)
    hidden = np.zeros(disparity.shape, bool)
    for y in range(height):
        landing = np.round(columns - disparity[y]).astype(int)
        known = disparity[y] > 0
        inside = known & (landing >= 0)
        nearest = np.full(width + 2, -1.0)
        np.maximum.at(nearest, landing[inside] + 1, disparity[y][inside])
        around = np.maximum(np.maximum(nearest[:-2], nearest[1:-1]), nearest[2:])
        hidden[y] = known & ((landing < 0) | (around[landing.clip(0)] > disparity[y] + 2))
    return hidden


def beside_opencv(left: np.ndarray, right: np.ndarray, truth: np.ndarray) -> None:
    """More pixels than OpenCV's matcher with usual settings, at 0.7 of its wrong ones."""
    cv2 = pytest.importorskip("cv2")
    usual = cv2.StereoSGBM.create(0, 64, 5, 8 * 3 * 25, 32 * 3 * 25, 1, 0, 10, 100, 2)
    theirs = usual.compute(left, right).astype(np.float32) / 16
    ours = stereo.stereo_depth(*(torch.from_numpy(p).float()[None] / 255 for p in (left, right)))
    assert ours.valid is not None
    hidden = occluded(truth)
    seen = (truth > 0) & ~hidden

    def measured(disparity: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
        error = np.abs(disparity - truth)[seen & valid]
        return float(valid[seen].mean()), float((error > 2).mean())

    density, bad = measured(theirs, theirs >= 0)
    own_density, own_bad = measured(ours.values[0].numpy(), ours.valid[0].numpy())
    assert own_density >= density
    assert own_bad <= 0.7 * bad
    assert float(ours.valid[0].numpy()[hidden].mean()) < 0.11


def test_a_public_pair_beside_opencv():
    data = pytest.importorskip("skimage.data")
    left, right, truth = data.stereo_motorcycle()
    beside_opencv(left, right, np.where(np.isfinite(truth), truth, 0).astype(np.float32))


@pytest.mark.field
def test_a_real_pair_beside_opencv(field_data):
    left, right = (
        np.array(Image.open(field_data / f"stereo_cones_{side}.png").convert("RGB")) for side in ("left", "right")
    )
    truth = np.array(Image.open(field_data / "stereo_cones_gt.png").convert("L")).astype(np.float32)
    beside_opencv(left, right, truth)


@pytest.mark.field
def test_a_real_converged_pair(field_data):
    with Image.open(field_data / "stereo_converged_left_right.jpg") as picture:
        half = picture.convert("RGB").resize((picture.width // 4 * 2, picture.height // 2))
    image = torch.from_numpy(np.array(half)).float()[None] / 255
    depth = stereo.stereo_depth(*stereo.split_pair(image, None, stereo.LAYOUTS[1]))
    assert depth.valid is not None
    values, valid, height = depth.values[0], depth.valid[0], image.shape[1]
    top, bottom = slice(0, height // 3), slice(-height // 10, None)
    assert float(values[valid].min()) < 0 < float(values[valid].max())
    assert float(values[bottom][valid[bottom]].median()) > float(values[top][valid[top]].median())


# ------------------------------------------------------------------------------ one step at a time


@pytest.mark.parametrize("number", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["focal", "baseline"])
def test_focal_and_baseline_are_positive_numbers(name, number):
    picture = torch.rand(1, 32, 64, 3)
    with pytest.raises(SettingError, match=f"^{name} must be positive"):
        stereo.stereo_depth(picture, picture, **{name: number})


@pytest.mark.parametrize("offset", [float("inf"), float("-inf"), float("nan")])
def test_the_offset_is_a_number(offset):
    picture = torch.rand(1, 32, 64, 3)
    with pytest.raises(SettingError, match="offset must be a number"):
        stereo.stereo_depth(picture, picture, offset=offset)


def test_the_limit_of_disparities_lies_within_the_width():
    picture = torch.rand(1, 32, 64, 3)
    for wrong in (-1, 64):
        with pytest.raises(SettingError, match="between 0 and the width, 64"):
            stereo.stereo_depth(picture, picture, max_disparity=wrong)
    assert len(stereo.stereo_depth(picture, picture, max_disparity=63)) == 1


def test_batches_of_two_sizes_make_no_pairs():
    two, three = torch.rand(2, 32, 64, 3), torch.rand(3, 32, 64, 3)
    with pytest.raises(PictureError, match="equal in size"):
        stereo.stereo_depth(two, three)
    with pytest.raises(SettingError, match="layout must be one of two pictures; .*got 'diagonal'"):
        stereo.split_pair(two, None, "diagonal")


def test_every_pair_is_reported_and_counted(pair):
    left, right, _ = pair
    lines: list[str] = []
    ticks: list[int] = []
    depth = stereo.stereo_depth(left, right.expand(2, -1, -1, -1), report=lines, tick=lambda: ticks.append(1))
    assert len(depth) == len(ticks) == 2
    assert [line[:7] for line in lines] == ["pair 0:", "pair 1:"]
    assert depth.valid is not None
    share = float(depth.valid[0].float().mean())
    assert int(lines[0].rsplit(" searched, ", 1)[1].split("%")[0]) == pytest.approx(100 * share, abs=0.51)
    assert bool((depth.values[~depth.valid] == 0).all())


def test_metres_of_a_few_points_beyond_infinity():
    shift = torch.full((1, 10, 10), 4.0)
    shift[0, 0, :5] = -2.0
    shift[0, 1, 0], shift[0, 1, 1] = -1.0, -0.5
    valid = torch.ones(1, 10, 10, dtype=torch.bool)
    depth = stereo._metric(shift.clone(), valid, 20.0, 0.1)
    assert depth.valid is not None and depth.kind == "metric" and depth.focal == 20.0
    assert not depth.valid[0, 0, :5].any() and int(depth.valid.sum()) == 95
    assert bool((depth.values[0, 1, :2] == 0).all()) and bool(depth.valid[0, 1, :2].all())
    assert bool((depth.values[0, 2:] == 2.0).all()) and bool((depth.values[0, 0, :5] == 0).all())
    shift[0, 0, 5] = -3.0
    with pytest.raises(PictureError, match=r"^6% of the pixels have a negative disparity \(down to -3 pixels\)"):
        stereo._metric(shift, valid, 20.0, 0.1)
    nothing = stereo._metric(shift, ~valid, 20.0, 0.1)
    assert nothing.valid is not None and not nothing.valid.any() and not nothing.values.any()


def test_exposure_is_evened_from_four_levels_on():
    left = np.random.default_rng(0).integers(30, 200, (60, 80, 3)).astype(np.uint8)
    notes: list[str] = []
    near = left + np.uint8(3)
    assert stereo._even_exposure(left, near, notes) is near and not notes
    for channels in ((0,), (1,), (2,), (0, 1, 2)):
        other, notes = left.copy(), []
        other[..., channels] += np.uint8(21)
        evened = stereo._even_exposure(left, other, notes)
        assert evened.dtype == np.uint8
        assert int(np.abs(evened.astype(int) - left).max()) == 0
        assert notes == ["the exposure of the pictures differs by 21 of 255 levels, evened"]


def test_the_plane_of_most_points_is_found():
    generator = np.random.default_rng(1)
    x, y = generator.uniform(-300, 300, 200), generator.uniform(-200, 200, 200)
    off = 3.0 + 0.01 * x - 0.02 * y
    off[:80] += generator.uniform(5, 40, 80)
    assert stereo._robust_plane(x, y, off) == pytest.approx((3.0, 0.01, -0.02), abs=1e-9)
    off[:125] += 50 + 40 * generator.standard_normal(125)
    assert stereo._robust_plane(x, y, off) is None, "fewer than 0.4 of them lie on it"
    exact = 1.0 - 0.03 * x[:30] + 0.005 * y[:30]
    assert stereo._robust_plane(x[:30], y[:30], exact) == pytest.approx((1.0, -0.03, 0.005), abs=1e-9)
    assert stereo._robust_plane(x[:29], y[:29], exact[:29]) is None, "too few to say"
    same = np.zeros(40)
    assert stereo._robust_plane(same, same, same) is None or stereo._robust_plane(same, same, same)[0] == 0


def test_contrast_is_that_of_the_channel_that_differs_most():
    row = np.zeros((1, 4, 3), np.uint8)
    row[0, 1], row[0, 2], row[0, 3] = (5, 0, 0), (5, 200, 9), (0, 190, 255)
    assert stereo._contrast(row).tolist() == [[0, 5, 200, 246]]


def test_rises_are_taken_from_the_last_valid_pixel():
    disparity = np.array([[1, 1, 9, 9, 4, 4, 2, 5], [7, 9, 9, 9, 9, 9, 9, 9.0], [9] + [1] * 7], np.float32)
    valid = np.array([[1, 1, 0, 0, 1, 1, 1, 1], [0] + [1] * 7, [1] * 8], bool)
    rows, columns, before, jump = stereo._rises(disparity, valid, 2.0)
    assert (rows.tolist(), columns.tolist(), before.tolist(), jump.tolist()) == ([0, 0], [4, 7], [1, 6], [3, 3])
    assert len(stereo._rises(disparity, valid, 3.0)[0]) == 0
    assert len(stereo._rises(disparity, np.zeros_like(valid), 0.0)[0]) == 0


def edge_scene(jump: int, edge: int, light: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture that gets lighter at column `edge`, with disparities that rise at column `jump`."""
    picture = np.full((4, 40, 3), 100, np.uint8)
    picture[:, edge:] = light
    disparity = np.full((4, 40), 2.0, np.float32)
    disparity[:, jump:] = 6.0
    return picture, disparity, np.ones((4, 40), bool)


@pytest.mark.parametrize(
    ("edge", "gone"), [(21, [20]), (24, [20, 21, 22, 23]), (28, list(range(20, 28))), (29, []), (20, []), (18, [])]
)
def test_what_stands_before_the_edge_of_a_near_thing_is_a_hole(edge, gone):
    picture, disparity, valid = edge_scene(20, edge)
    fat = stereo._before_edges(picture, disparity, valid)
    for row in fat:
        assert np.flatnonzero(row).tolist() == gone


def test_edges_are_strong_jumps_more_than_a_pixel_and_a_half_and_holes_stay_holes():
    assert not stereo._before_edges(*edge_scene(20, 24, light=108)).any()
    assert stereo._before_edges(*edge_scene(20, 24, light=109)).any()
    picture, disparity, valid = edge_scene(20, 24)
    disparity[:, 20:] = 3.5
    assert not stereo._before_edges(picture, disparity, valid).any()
    disparity[:, 20:] = 3.6
    assert stereo._before_edges(picture, disparity, valid).any()
    valid[:, 21] = False
    assert np.flatnonzero(stereo._before_edges(picture, disparity, valid)[0]).tolist() == [20, 22, 23]
    at_the_end = edge_scene(37, 39)
    assert np.flatnonzero(stereo._before_edges(*at_the_end)[0]).tolist() == [37, 38]


def test_what_looks_unlike_its_match_is_a_hole_where_much_around_it_is_one():
    cv2 = pytest.importorskip("cv2")
    generator = np.random.default_rng(2)
    right = generator.integers(0, 256, (60, 100, 3)).astype(np.uint8)
    left = np.roll(right, 7, 1)
    disparity = np.full((60, 100), 7.0, np.float32)
    whole, half = np.ones((60, 100), bool), np.ones((60, 100), bool)
    half[:, 1::2] = False
    inner = slice(10, -10), slice(20, -10)
    assert not stereo._unlike(cv2, left, right, disparity, half)[inner].any(), "equal, with holes around"
    other = generator.integers(0, 256, (60, 100, 3)).astype(np.uint8)
    assert not stereo._unlike(cv2, other, right, disparity, whole)[inner].any(), "unlike, with none"
    assert stereo._unlike(cv2, other, right, disparity, half)[inner].mean() > 0.95
    brighter = (left * 0.5 + 100).astype(np.uint8)
    assert stereo._unlike(cv2, brighter, right, disparity, half)[inner].mean() < 0.05, "as in another exposure"
    # Unlike for about 0.45 of the neighbours: a quarter of holes is the least that counts.
    few = np.ones((60, 100), bool)
    few[::3, ::3] = False
    assert stereo._unlike(cv2, other, right, disparity, few)[inner].mean() < 0.05
    many = np.ones((60, 100), bool)
    many[::3] = False
    assert stereo._unlike(cv2, other, right, disparity, many)[inner].mean() > 0.9


def test_small_patches_are_speckles():
    cv2 = pytest.importorskip("cv2")
    disparity = np.zeros((30, 60), np.float32)
    valid = np.zeros((30, 60), bool)
    valid[2:9, 2:9] = True  # 49 pixels
    valid[2:7, 20:30] = True  # 50 pixels
    valid[15:20, 2:12] = True  # 50 pixels, of two surfaces more than a pixel apart
    disparity[15:20, 7:12] = 1.25
    valid[15:20, 20:30] = True  # 50 pixels of a slope
    disparity[15:20, 25:30] = 1.0
    kept = stereo._without_speckles(cv2, disparity, valid, 50)
    # The matcher's own filter leaves out patches of up to the size it is given.
    assert not kept[2:9, 2:9].any() and not kept[15:20, 2:12].any()
    bigger = valid.copy()
    bigger[7, 20], bigger[20, 20] = True, True
    kept = stereo._without_speckles(cv2, disparity, bigger, 50)
    assert kept[2:7, 20:30].all() and kept[15:20, 20:30].all() and int(kept.sum()) == 102


def grain(shift: int, height: int = 80, width: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """A pair of a flat wall, whose left picture shows everything `shift` pixels further right."""
    wide = np.random.default_rng(3).integers(0, 256, (height, width + 64, 3)).astype(np.uint8)
    return wide[:, 32 - shift : 32 - shift + width], wide[:, 32 : 32 + width]


@pytest.mark.parametrize("shift", [-9, 0, 10])
def test_a_wall_is_matched_within_the_range_alone(shift):
    cv2 = pytest.importorskip("cv2")
    left, right = grain(shift)
    inside = np.ones(left.shape[:2], bool)
    disparity, valid = stereo._match(cv2, left, right, inside, shift - 4, shift + 4)
    seen = np.zeros_like(valid)
    seen[2:-2, max(0, shift) + 4 : 200 + min(0, shift) - 4] = True
    assert valid[seen].mean() > 0.99
    assert np.abs(disparity - shift)[seen & valid].max() <= 0.25
    landing = np.arange(200) - shift
    assert not valid[:, (landing < 0) | (landing > 199)].any(), "outside the right picture"
    for low in (shift + 2, shift - 40):
        disparity, valid = stereo._match(cv2, left, right, inside, low, low + 14)
        assert valid[seen].mean() < 0.4, "beyond the range"
        assert low + 0.5 < disparity[valid].min() and disparity[valid].max() < low + 14.5
    inside[:, 100] = False
    assert not stereo._match(cv2, left, right, inside, shift - 4, shift + 4)[1][:, 100 + shift].any()


def test_the_limit_of_disparities_is_itself_believed():
    left, right = (torch.from_numpy(p.copy()).float()[None] / 255 for p in grain(10))
    for limit, share in ((10, 0.5), (9, 0.0)):
        depth = stereo.stereo_depth(left, right, max_disparity=limit)
        assert depth.valid is not None
        assert bool((depth.values[depth.valid] <= limit).all())
        assert float((depth.values == 10).float().mean()) >= share
        assert (float(depth.valid.float().mean()) > 0.02) == bool(share)


def test_the_range_of_a_wall_and_of_nothing():
    cv2 = pytest.importorskip("cv2")
    left, right = grain(10)
    low, high = stereo._search_range(cv2, left, right)
    assert 5 <= low < 9 and 11 < high <= 15
    flat = np.full((80, 400, 3), 90, np.uint8)
    assert stereo._search_range(cv2, flat, flat) == (0, 50)
    assert stereo._search_range(cv2, flat[:, :96], flat[:, :96]) == (0, 16)


def test_a_grainy_pair_is_matched_at_half_its_size():
    generator = np.random.default_rng(4)
    smooth = np.kron(generator.integers(40, 216, (40, 180, 3)), np.ones((4, 4, 1)))
    pictures = []
    for at in (26, 40):
        view = smooth[:, at : at + 640] + generator.normal(0, 90, (160, 640, 3))
        pictures.append(torch.from_numpy(view.clip(0, 255) / 255).float()[None])
    report: list[str] = []
    depth = stereo.stereo_depth(pictures[0], pictures[1], report=report)
    assert any("matched at 1/2 of the size" in line for line in report), report
    assert depth.valid is not None and float(depth.valid.float().mean()) > 0.4
    assert float((depth.values - 14)[depth.valid].abs().median()) < 0.5
    assert tuple(depth.values.shape) == (1, 160, 640)


def holes_beside_cards(right: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """40 rows of two near cards, whose edges are seen, with a hole of six pixels at their right or their left."""
    picture = np.full((40, 120, 3), 100, np.uint8)
    disparity = np.full((40, 120), 4.0, np.float32)
    valid = np.ones((40, 120), bool)
    for start in (30, 80):
        picture[:, start : start + 20] = 220
        disparity[:, start : start + 20] = 10.0
        valid[:, start - 6 : start] = False
        if right:
            # A swapped pair: the jump up comes first, the hole belongs to the near thing.
            picture[:, start - 6 : start] = 220
    return picture, disparity, valid


def test_holes_on_the_wrong_side_tell_a_swapped_pair():
    notes: list[str] = []
    stereo._check_order(*holes_beside_cards(False), notes)
    assert not notes
    with pytest.raises(PictureError, match="wrong side of near things at 100% of 80 edges"):
        stereo._check_order(*holes_beside_cards(True), notes)
    picture, disparity, valid = (part[:29] for part in holes_beside_cards(True))
    stereo._check_order(picture, disparity, valid, notes)
    assert not notes, "58 edges are too few to say so"
    stereo._check_order(picture, disparity - 20, valid, notes)
    assert notes == ["all disparities are negative: if nearer things look farther, exchange left and right"]
    notes.clear()
    stereo._check_order(picture, disparity, np.zeros_like(valid), notes)
    assert not notes
