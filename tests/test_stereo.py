"""Depth of stereo pairs whose truth is known: rendered ones, and real ones."""

from __future__ import annotations

import pytest
import torch

from fathom import PictureError, SettingError
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
