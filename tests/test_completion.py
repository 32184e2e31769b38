"""Completing measured depth: bad measurements are told, good ones come out again, and the node joins it all."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fathom import Depth, SettingError
from fathom.signals.depth import depth_from_metres
from fathom.signals.field import fill_smoothly
from fathom.tools.completion import keep_measured, measured, with_camera_of


def smooth(height: int = 48, width: int = 64, seed: int = 0) -> torch.Tensor:
    """Metres (1,height,width) between 1 and 5."""
    coarse = torch.rand(1, 1, 4, 5, generator=torch.Generator().manual_seed(seed))
    return 1 + 4 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[:, 0]


def test_unknown_places_are_filled_between_their_neighbours_and_known_ones_kept() -> None:
    values = smooth()[:, None]
    known = torch.rand(1, 1, 48, 64, generator=torch.Generator().manual_seed(1)) < 0.1
    filled = fill_smoothly(values.masked_fill(~known, float("nan")), known)
    assert torch.equal(filled[known], values[known]) and filled.isfinite().all()
    assert float(filled.min()) >= float(values[known].min()) - 1e-4
    assert float((filled - values).abs().mean()) < 0.15


def test_a_measurement_is_checked() -> None:
    size = (1, 480, 640)
    lidar = depth_from_metres(smooth())
    assert measured(lidar, size).valid is None
    with pytest.raises(SettingError, match="must be in metres, this one is affine_inverse"):
        measured(Depth(lidar.values, "affine_inverse"), size)
    with pytest.raises(SettingError, match="got 1 for 2 pictures"):
        measured(lidar, (2, 480, 640))
    with pytest.raises(SettingError, match=r"\(64x48\) and the picture \(480x640\).*turn one of them by 90 degrees"):
        measured(lidar, (1, 640, 480))
    with pytest.raises(SettingError, match="crop the wider one"):
        measured(lidar, (1, 360, 640))
    with pytest.raises(SettingError, match="lies at 2,... metres: these are probably millimetres"):
        measured(depth_from_metres(1000 * smooth()), size)
    with pytest.raises(SettingError, match="picture 1 has no measured depth that is believed"):
        measured(depth_from_metres(torch.zeros(1, 48, 64)), size)


def test_what_is_trusted_too_little_is_left_out() -> None:
    metres, size = smooth(), (1, 480, 640)
    trust = torch.zeros(1, 48, 64)
    trust[:, :, 32:] = 0.5
    trust[:, :, 48:] = 1.0
    lidar = depth_from_metres(metres)
    for least, share in ((0.0, 1.0), (0.5, 0.5), (0.75, 0.25)):
        valid = measured(lidar, size, trust, least).valid
        assert (1.0 if valid is None else float(valid.float().mean())) == share
    own = Depth(lidar.values, "metric", confidence=trust)
    assert float(measured(own, size).valid.float().mean()) == 0.5  # pyright: ignore[reportOptionalMemberAccess]
    with pytest.raises(SettingError, match="no measured depth that is believed"):
        measured(own, size, torch.zeros(1, 480, 640), 0.5)


def test_measured_pixels_come_out_exactly_and_the_rest_follows_without_a_seam() -> None:
    truth, valid = smooth(), torch.zeros(1, 48, 64, dtype=torch.bool)
    valid[:, 8:40, 8:56] = True
    known = depth_from_metres(truth, valid=valid)
    estimate = depth_from_metres(truth * 1.3 + 0.2)
    kept = keep_measured(estimate, known)
    torch.testing.assert_close(kept.metres()[valid], truth[valid])
    assert float((kept.metres() - truth).abs().max()) < 0.25 < float((estimate.metres() - truth).abs().max())


def test_a_coarse_map_is_met_and_the_detail_of_the_estimate_stays() -> None:
    truth = smooth(192, 256)
    truth[:, 60:130, 90:170] -= 0.6
    coarse = torch.nn.functional.interpolate(truth[:, None], (24, 32), mode="bilinear", align_corners=False)[:, 0]
    kept = keep_measured(depth_from_metres(1.25 * truth), depth_from_metres(coarse)).metres()
    again = torch.nn.functional.interpolate(kept[:, None], (24, 32), mode="bilinear", align_corners=False)[:, 0]
    assert float((again / coarse - 1).abs().mean()) < 0.01
    step = (truth[:, 1:] - truth[:, :-1]).abs() > 0.5
    assert float((kept[:, 1:] - kept[:, :-1]).abs()[step].mean()) > 0.5


def test_the_camera_of_the_measurement_moves_to_the_pictures_size() -> None:
    known = Depth(torch.ones(1, 48, 64), "metric", focal=50.0, principal=torch.tensor([[31.5, 20.0]]))
    full = with_camera_of(Depth(torch.ones(1, 480, 640), "metric"), known)
    assert full.camera() is not None and full.camera().tolist() == [[500.0, 500.0, 319.5, 204.5]]
    assert with_camera_of(Depth(torch.ones(1, 2, 2), "metric"), Depth(torch.ones(1, 2, 2), "metric")).focal is None


def test_the_node_completes_a_batch(tiny_annotator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fathom.nodes.completion import FathomCompleteDepth, cache

    monkeypatch.setattr(cache, "take", lambda estimator, dtype=None: tiny_annotator(estimator.id))
    pictures = torch.rand(2, 96, 128, 3, generator=torch.Generator().manual_seed(4))
    valid = torch.ones(2, 24, 32, dtype=torch.bool)
    valid[:, 4:9, 4:9] = False
    lidar = depth_from_metres(torch.cat([smooth(24, 32, 1), smooth(24, 32, 2) + 3]), valid=valid, focal=30.0)
    image, depth = FathomCompleteDepth().execute(pictures, lidar)
    assert image.shape == pictures.shape and depth.kind == "metric" and depth.values.shape == (2, 96, 128)
    assert float(depth.camera()[0, 0]) == 120
    own = FathomCompleteDepth().execute(pictures, lidar, keep_measured=False)[1]
    assert not torch.equal(own.values, depth.values)
    for number in range(2):
        alone = FathomCompleteDepth().execute(pictures[number : number + 1], lidar[number])[1]
        torch.testing.assert_close(alone.values[0], depth.values[number], rtol=1e-4, atol=1e-5)


def test_a_prompt_is_asked_for_and_refused_where_it_has_no_use(tiny_annotator: Any) -> None:
    picture, lidar = torch.rand(1, 32, 32, 3), depth_from_metres(smooth())
    with pytest.raises(SettingError, match="needs a measured depth beside the picture"):
        tiny_annotator("prompt-depth-anything-small")(picture)
    with pytest.raises(SettingError, match="got 1 for 2 pictures"):
        tiny_annotator("prompt-depth-anything-small")(picture.expand(2, -1, -1, -1), prompt=lidar)
    with pytest.raises(SettingError, match="leave prompt out"):
        tiny_annotator("fathom-tiny")(picture, prompt=lidar)
