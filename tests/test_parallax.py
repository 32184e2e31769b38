"""Parallax on scenes of flat cards, where every shift is known."""

from __future__ import annotations

import pytest
import torch

from fathom import Depth, SettingError, SignalError
from fathom.signals.depth import depth_from_metres, to_metric
from fathom.tools.parallax import PATHS, camera_path, parallax

HEIGHT, WIDTH = 60, 100


def picture() -> torch.Tensor:
    return torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0))


def card() -> tuple[torch.Tensor, Depth]:
    """A red card at 1 m before a green wall at 4 m."""
    image = torch.zeros(1, HEIGHT, WIDTH, 3)
    image[..., 1] = 1
    metres = torch.full((1, HEIGHT, WIDTH), 4.0)
    image[:, 20:40, 40:60] = torch.tensor((1.0, 0.0, 0.0))
    metres[:, 20:40, 40:60] = 1.0
    return image, depth_from_metres(metres)


@pytest.mark.parametrize("path", PATHS)
def test_a_camera_that_stands_still_sees_the_picture(path):
    depth = depth_from_metres(torch.rand(1, HEIGHT, WIDTH) + 1)
    frames, holes = parallax(picture(), depth, path=path, frames=3, strength=0.0)
    assert float((frames - picture()).abs().max()) < 1e-5
    assert not holes.any()


def test_near_things_move_against_the_camera_and_uncover_the_wall():
    image, depth = card()
    # Nearness 1 and 1/4, focus on the wall: the card moves by 3/4 of 8 pixels.
    frames, holes = parallax(image, depth, path="swing", frames=3, strength=0.08, focus=0.0, loop=False, fill=False)
    for frame, shift in ((0, 6), (1, 0), (2, -6)):
        red = frames[frame, ..., 0] > 0.5
        assert red.nonzero().amin(0).tolist() == [20, 40 + shift]
        assert red.nonzero().amax(0).tolist() == [39, 59 + shift]
        hidden = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
        hidden[20:40, 40:60] = True
        assert torch.equal(holes[frame].bool(), hidden & ~red), "a hole is where the card was and is not"
        assert float(frames[frame][~red & ~hidden][:, 1].min()) == pytest.approx(1.0, abs=1e-4)


def test_what_is_in_focus_stays():
    image, depth = card()
    frames, _ = parallax(image, depth, path="swing", frames=2, strength=0.08, focus=1.0, loop=False, fill=False)
    assert torch.equal(frames[0, ..., 0] > 0.5, image[0, ..., 0] > 0.5)


def test_holes_are_filled_from_the_background():
    image, depth = card()
    frames, holes = parallax(image, depth, path="swing", frames=2, strength=0.08, focus=0.0, loop=False)
    filled = frames[0][holes[0].bool()]
    assert len(filled) == 120
    assert float((filled - torch.tensor((0.0, 1.0, 0.0))).abs().max()) < 1e-4, "green, as the wall is"


def test_rise_moves_things_down_when_the_camera_goes_up():
    image, depth = card()
    frames, _ = parallax(image, depth, path="rise", frames=2, strength=0.08, focus=0.0, loop=False)
    assert (frames[1, ..., 0] > 0.9).nonzero().amin(0).tolist() == [26, 40]


def test_going_forward_magnifies_without_cracks():
    image = torch.zeros(1, HEIGHT, WIDTH, 3)
    image[:, 25:35, 45:55] = 1
    depth = depth_from_metres(torch.full((1, HEIGHT, WIDTH), 2.0))
    frames, holes = parallax(image, depth, path="dolly", frames=2, strength=0.5, loop=False)
    assert not holes.any()
    assert float(frames[1].sum() / frames[0].sum()) == pytest.approx(4.0, rel=0.02)
    still, _ = parallax(image, depth, path="vertigo", frames=2, strength=0.5, loop=False)
    assert float((still[1] - image[0]).abs().max()) < 1e-4


def test_pixels_without_depth_are_not_seen():
    image, depth = card()
    valid = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    valid[:, :5] = False
    _, holes = parallax(image, Depth(depth.values, "metric", valid), frames=1, strength=0.0)
    assert torch.equal(holes.bool(), ~valid)


def test_affine_inverse_moves_as_metric_does_when_the_wall_is_far_away():
    image, depth = card()
    relative = Depth((depth.values > 0.5).float() * 7 + 3, "affine_inverse")
    frames, _ = parallax(image, relative, path="swing", frames=2, strength=0.06, focus=0.0, loop=False)
    assert (frames[0, ..., 0] > 0.9).nonzero().amin(0).tolist() == [20, 46]
    metric = to_metric(relative, 1.0, 4.0)
    told, _ = parallax(image, metric, path="swing", frames=2, strength=0.08, focus=0.0, loop=False)
    assert (told[0, ..., 0] > 0.9).nonzero().amin(0).tolist() == [20, 46]


def test_a_depth_up_to_one_factor_moves_as_metric_does():
    image, depth = card()
    same = Depth(3 * depth.values, "scale_inverse")
    for ours, theirs in zip(parallax(image, same, frames=3), parallax(image, depth, frames=3), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_kinds_that_cannot_move_say_so():
    image, values = picture(), torch.rand(1, HEIGHT, WIDTH)
    with pytest.raises(SignalError, match="order only"):
        parallax(image, Depth(values, "ordinal"))
    with pytest.raises(SignalError, match="near and far"):
        parallax(image, Depth(values, "affine_depth"))
    with pytest.raises(SignalError, match="no valid pixel"):
        parallax(image, Depth(values, "metric", torch.zeros_like(values, dtype=torch.bool)))


def test_batches_and_sizes():
    depth = depth_from_metres(torch.rand(1, 30, 50) + 1)  # half the picture's size
    frames, holes = parallax(picture(), depth, frames=4)
    assert frames.shape == (4, HEIGHT, WIDTH, 3) and holes.shape == (4, HEIGHT, WIDTH)
    video = torch.stack([picture()[0] * f / 4 for f in range(1, 5)])
    moving, _ = parallax(video, depth, frames=4, strength=0.0)
    assert float((moving - video).abs().max()) < 1e-5
    with pytest.raises(SignalError, match="2 pictures for 4"):
        parallax(video[:2], depth, frames=4)


def test_every_frame_ticks_and_inputs_stay():
    image, depth = card()
    before, ticks = image.clone(), []
    parallax(image, depth, frames=5, tick=lambda: ticks.append(1))
    assert len(ticks) == 5
    assert torch.equal(image, before)


def test_paths_close_their_loop():
    for path in PATHS:
        steps = torch.cat((camera_path(path, 48), camera_path(path, 48)[:1])).diff(dim=0).norm(dim=-1)
        assert float(steps.max()) < 0.15
    assert camera_path("dolly", 1).shape == (1, 3)


@pytest.mark.parametrize("bad", [{"strength": 0.6}, {"focus": -0.1}, {"frames": 0}, {"path": "fly"}])
def test_bad_settings_are_refused(bad):
    image, depth = card()
    with pytest.raises(SettingError):
        parallax(image, depth, **bad)
