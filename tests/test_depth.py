"""Depth to the last bound: its lens, metres from known distances, ranges over what is valid."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fathom import Depth, SignalError
from fathom.signals import DepthLook
from fathom.signals.depth import depth_from_metres, to_metric

VALUES = torch.tensor([[[2.0, 4.0], [8.0, 5.0], [3.0, 6.0]]])


def depth(kind: Any = "metric", **fields: Any) -> Depth:
    return Depth(VALUES, kind, **fields)


# ------------------------------------------------------------------------------------------------- the lens


def test_a_focal_length_of_one_number_is_a_float() -> None:
    assert type(depth(focal=torch.tensor(500.0)).focal) is float


@pytest.mark.parametrize("focal", [0.0, -1.0, math.inf, math.nan, torch.tensor([0.0]), torch.ones(2), torch.ones(1, 3)])
def test_a_focal_length_that_is_none_is_refused(focal: Any) -> None:
    with pytest.raises(SignalError, match="focal must be"):
        depth(focal=focal)


@pytest.mark.parametrize("principal", [(1.0, 2.0), torch.ones(2), torch.ones(2, 2), torch.tensor([[1.0, math.inf]])])
def test_a_principal_point_that_is_none_is_refused(principal: Any) -> None:
    with pytest.raises(SignalError, match="principal must be"):
        depth(principal=principal)


@pytest.mark.parametrize(
    ("focal", "principal", "camera"),
    [
        (500.0, None, [[500, 500, 0.5, 1.0]] * 2),
        (torch.tensor([500.0, 600.0]), None, [[500, 500, 0.5, 1.0], [600, 600, 0.5, 1.0]]),
        (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[9.0, 8.0], [7.0, 6.0]]), [[1, 2, 9, 8], [3, 4, 7, 6]]),
    ],
)
def test_the_camera_of_each_picture(focal: Any, principal: Any, camera: Any) -> None:
    assert Depth(VALUES.expand(2, 3, 2), "metric", None, focal, principal=principal).camera().tolist() == camera
    assert depth().camera() is None


def test_a_lens_follows_the_size() -> None:
    assert depth(focal=500.0).lens_at(6, 4) == {"focal": 1000.0, "principal": None}
    assert depth().lens_at(6, 4) == {"focal": None, "principal": None}
    wide = depth(focal=500.0, principal=torch.tensor([[0.5, 1.0]])).lens_at(6, 2)
    assert wide["focal"].tolist() == [[500.0, 1000.0]] and wide["principal"].tolist() == [[0.5, 2.5]]
    assert depth(focal=torch.tensor([500.0])).lens_at(3, 4)["focal"].tolist() == [[1000.0, 500.0]]
    assert depth(focal=torch.tensor([500.0])).lens_at(6, 4)["focal"].tolist() == [1000.0]
    assert depth(focal=torch.tensor([[500.0, 7.0]])).lens_at(6, 4)["focal"].tolist() == [[1000.0, 14.0]]


# --------------------------------------------------------------------------------------------------- metres


@pytest.mark.parametrize(("near", "far"), [(1.0, None), (None, 9.0), (1.0, 9.0)])
def test_a_metric_depth_takes_no_distance(near: Any, far: Any) -> None:
    with pytest.raises(SignalError, match="has its own metres"):
        depth().metres(near, far)


@pytest.mark.parametrize(
    ("near", "far", "word"),
    [
        (1.0, None, "two known"),
        (None, 9.0, "two known"),
        (2.0, 2.0, "0 < near < far"),
        (0.0, 2.0, "0 < near"),
        (math.nan, 2.0, "0 < near"),
    ],
)
def test_an_affine_depth_needs_two_distances_that_differ(near: Any, far: Any, word: str) -> None:
    for kind in ("affine_inverse", "affine_depth"):
        with pytest.raises(SignalError, match=word):
            depth(kind).metres(near, far)


def test_one_distance_gives_the_factor() -> None:
    scaled = depth("scale_inverse")
    torch.testing.assert_close(scaled.inverse(near=2.0), VALUES / 16)
    torch.testing.assert_close(scaled.inverse(far=10.0), VALUES / 20)
    ends = scaled.metres(1.0, 4.0)
    assert float(ends.amin()) == 1 and float(ends.amax()) == 4
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(SignalError, match="above 0"):
            scaled.inverse(near=wrong)
    with pytest.raises(SignalError, match="infinitely far"):
        Depth(torch.tensor([[[0.0, 1.0]]]), "scale_inverse").inverse(far=3.0)
    with pytest.raises(SignalError, match="one known distance|one known"):
        scaled.inverse()


def test_what_is_not_valid_gives_no_factor() -> None:
    valid = torch.tensor([[[False, True], [False, True], [True, True]]])
    scaled = depth("scale_inverse", valid=valid)
    torch.testing.assert_close(scaled.inverse(near=1.0), VALUES / 6)
    torch.testing.assert_close(scaled.inverse(far=1.0), VALUES / 3)


def test_metres_are_made_once_at_the_door() -> None:
    metric = depth(focal=500.0)
    assert to_metric(metric) is metric and to_metric(metric, focal=9.0) is metric
    lent = to_metric(depth(), focal=9.0)
    assert lent.focal == 9.0 and torch.equal(lent.values, VALUES)
    valid = VALUES < 8
    made = to_metric(depth("scale_inverse", valid=valid), near=2.0, focal=7.0)
    assert made.kind == "metric" and made.focal == 7.0 and made.look == DepthLook("metres")
    torch.testing.assert_close(made.values, (VALUES / 12).masked_fill(~valid, 0.0))
    assert to_metric(depth("scale_inverse", focal=3.0), near=2.0, focal=7.0).focal == 3.0
    with pytest.raises(SignalError, match="leave near and far out"):
        to_metric(metric, near=1.0)


# ------------------------------------------------------------------------------------------- what takes part


def test_a_range_is_that_of_what_is_valid() -> None:
    valid = torch.tensor([[[True, True], [False, True], [True, True]]])
    share = depth("ordinal", valid=valid).unit_range()
    assert share.flatten().tolist() == [0, 0.5, 0, 0.75, 0.25, 1]
    clipped = depth("ordinal").unit_range(low=20.0, high=80.0)
    torch.testing.assert_close(clipped, ((VALUES - 3) / 3).clamp(0, 1))


@pytest.mark.parametrize("scope", ["image", "batch", "video"])
def test_a_constant_metric_picture_is_black(scope: str) -> None:
    image = depth_from_metres(torch.full((2, 4, 5), 3.0)).to_image(scope)
    assert image.count_nonzero() == 0


def test_neither_sky_nor_what_is_not_valid_takes_part_in_metres() -> None:
    metres = torch.tensor([[[1.0, 3.0, 5.0, math.inf, 100.0]]])
    valid = torch.tensor([[[True, True, True, True, False]]])
    image = depth_from_metres(metres, valid=valid).to_image()[0, 0, :, 0]
    assert image.tolist() == [1, 0.5, 0, 0, 0]


def test_cuts_are_found_in_what_is_valid() -> None:
    """A film whose invalid half flashes is one shot; one whose valid half changes is two."""
    still = torch.linspace(1, 2, 64).reshape(1, 8, 8).repeat(12, 1, 1)
    valid = torch.ones_like(still, dtype=torch.bool)
    valid[:, :, 4:] = False
    flashing = still.clone()
    flashing[6:, :, 4:] = 50.0
    shown = Depth(flashing, "ordinal", valid).to_image("video")
    torch.testing.assert_close(shown, Depth(still, "ordinal", valid).to_image("video"))
    other = still.clone()
    other[6:] = other[6:].flip(1) * 9
    cut = Depth(other, "ordinal", valid).to_image("video")
    assert float(cut[6].amax()) == 1 and float(cut[5].amax()) > 0.999


@pytest.mark.parametrize("value", [0.0, 1.0, 7.5])
def test_a_constant_map_has_one_code(value: float, tmp_path: Any) -> None:
    from fathom.signals.files import load_depth

    Depth(torch.full((1, 3, 4), value), "affine_inverse").save(tmp_path / "flat.png", "png16")
    assert load_depth(tmp_path / "flat.png").values.unique().tolist() == [value]


def test_invalid_places_are_zero_in_a_file_of_codes(tmp_path: Any) -> None:
    from fathom.signals.codec import read_plane
    from fathom.signals.files import load_depth

    valid = VALUES > 2
    depth("ordinal", valid=valid).save(tmp_path / "x.png", "png16")
    plane, bits, _ = read_plane(tmp_path / "x.png")
    assert bits == 16 and plane[0, 0] == 0 and plane[1, 0] == 65535 and plane[2, 0] == 1
    again = load_depth(tmp_path / "x.png")
    assert again.valid is not None and torch.equal(again.valid, valid)
