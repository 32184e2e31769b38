"""Depth as a weight: shapes, softness, easing, what is not valid."""

from __future__ import annotations

import math

import pytest
import torch

import fathom
from fathom import Depth, SettingError, SignalError
from fathom.signals.depth import depth_from_metres, to_metric
from fathom.tools.depth_field import depth_field


def line(*values: float, kind: str = "affine_inverse", valid: list[bool] | None = None) -> Depth:
    mask = None if valid is None else torch.tensor([[valid]])
    return Depth(torch.tensor([[list(values)]]), kind, mask)  # pyright: ignore[reportArgumentType]


FIVE = line(0.0, 1.0, 2.0, 3.0, 4.0)


def weights(depth: Depth = FIVE, **settings: object) -> list[float]:
    return depth_field(depth, **settings)[0, 0].tolist()  # pyright: ignore[reportArgumentType]


def test_ramp_rises_towards_end() -> None:
    assert weights() == [0, 0.25, 0.5, 0.75, 1]
    assert weights(start=1.0, end=0.0) == [1, 0.75, 0.5, 0.25, 0]
    assert weights(start=0.25, end=0.75) == [0, 0, 0.5, 1, 1]


def test_step_is_the_ramp_of_length_zero_and_keeps_what_is_closer() -> None:
    assert weights(start=0.5, end=0.5) == [0, 0, 1, 1, 1]
    metric = depth_from_metres(torch.tensor([[[1.0, 2.0, 4.0, torch.inf]]]))
    assert weights(metric, space="metres", start=2.0, end=2.0) == [1, 1, 0, 0]


def test_softness_widens_the_ramp_on_both_sides() -> None:
    assert weights(start=0.5, end=0.5, softness=0.5) == [0, 0.25, 0.5, 0.75, 1]


def test_band_and_its_inverse() -> None:
    assert weights(shape="band", start=0.5, end=0.75) == [0, 0, 1, 1, 0]
    assert weights(shape="band", start=0.75, end=0.5) == [0, 0, 1, 1, 0]
    assert weights(shape="band", start=0.5, end=0.5, softness=0.5) == [0, 0.5, 1, 0.5, 0]
    assert weights(shape="inverse band", start=0.5, end=0.75) == [1, 1, 0, 0, 1]


def test_gamma_acts_on_the_final_weight() -> None:
    assert weights(gamma=2.0)[1:3] == [0.0625, 0.25]
    assert weights(shape="inverse band", start=0.5, end=0.5, softness=0.5, gamma=2.0)[1] == 0.25


@pytest.mark.parametrize("easing", ["linear", "smoothstep", "smootherstep", "exponential"])
def test_easing_keeps_the_ends_and_never_falls(easing: str) -> None:
    many = Depth(torch.linspace(0, 1, 101)[None, None], "ordinal")
    got = depth_field(many, easing=easing)[0, 0]  # pyright: ignore[reportArgumentType]
    assert got[0] == 0 and got[-1] == 1
    assert bool((got.diff() >= 0).all())
    at_quarter = {
        "linear": 0.25,
        "smoothstep": 3 / 16 - 2 / 64,
        "smootherstep": 6 / 1024 - 15 / 256 + 10 / 64,
        "exponential": (2**2.5 - 1) / 1023,
    }
    assert math.isclose(float(got[25]), at_quarter[easing], abs_tol=1e-6)


def test_metres_of_a_metric_depth() -> None:
    metric = depth_from_metres(torch.tensor([[[1.0, 2.0, 3.0, torch.inf]]]))
    assert weights(metric, space="metres", start=1.0, end=3.0) == [0, 0.5, 1, 1]
    node = fathom.NODE_CLASS_MAPPINGS["FathomDepthField"]()
    with pytest.raises(SettingError, match="near and far"):
        node.execute(metric, "ramp", 0.0, 1.0, 0.0, "linear", 1.0, "relative", 1.0, 2.0)


def test_metres_of_an_affine_depth_need_near_and_far() -> None:
    with pytest.raises(SignalError, match="near and far"):
        depth_field(FIVE, space="metres", start=1.0, end=4.0)
    # Inverse depth runs from 1/4 to 1; the middle, 0.625, is 1.6 m.
    got = weights(to_metric(FIVE, 1.0, 4.0), space="metres", start=1.0, end=4.0)
    assert got == pytest.approx([1, (1 / 0.4375 - 1) / 3, 0.2, (1 / 0.8125 - 1) / 3, 0], abs=1e-6)


def test_what_is_not_valid_weighs_nothing_in_every_shape() -> None:
    holes = line(torch.nan, 1.0, 2.0, 3.0, torch.inf, valid=[False, True, True, True, False])
    for shape in ("ramp", "band", "inverse band"):
        got = weights(holes, shape=shape, start=0.5, end=0.5)
        assert got[0] == 0 and got[4] == 0 and all(math.isfinite(w) for w in got)
    nothing = line(torch.nan, 1.0, valid=[False, False])
    assert weights(nothing) == [0, 0]
    assert weights(nothing, shape="inverse band", start=0.5, end=0.6) == [0, 0]


def test_scope_batch_measures_all_pictures_alike() -> None:
    two = Depth(torch.tensor([[[0.0, 1.0]], [[0.0, 4.0]]]), "ordinal")
    assert depth_field(two)[:, 0, 1].tolist() == [1, 1]
    assert depth_field(two, scope="batch")[:, 0, 1].tolist() == [0.25, 1]


@pytest.mark.parametrize(
    "bad",
    [
        {"shape": "cone"}, {"easing": "bounce"}, {"space": "feet"}, {"softness": -1.0}, {"gamma": 0.0},
        {"start": math.nan}, {"end": math.inf}, {"scope": "film"},
    ],
)  # fmt: skip
def test_bad_settings_are_named(bad: dict[str, object]) -> None:
    with pytest.raises((SettingError, SignalError), match=next(iter(bad))):
        depth_field(FIVE, **bad)  # pyright: ignore[reportArgumentType]


def test_input_is_not_changed() -> None:
    values = torch.rand(2, 5, 7)
    depth = Depth(values.clone(), "ordinal")
    for shape in ("ramp", "band", "inverse band"):
        depth_field(depth, shape, 0.2, 0.6, 0.1, "smoothstep", 2.0)  # pyright: ignore[reportArgumentType]
    assert torch.equal(depth.values, values)
