"""Depth of field: what stays constant, where light goes, what may spread over what."""

from __future__ import annotations

import math

import pytest
import torch

from fathom import Depth, SettingError, SignalError
from fathom.signals.depth import depth_from_metres
from fathom.tools.lens_blur import _Lens, lens_blur
from fathom.tools.pixels import to_linear

SIDE = 96


def photo(batch: int = 1, side: int = SIDE) -> torch.Tensor:
    return torch.rand(batch, side, side, 3, generator=torch.Generator().manual_seed(5))


def halves(left: float, right: float, side: int = SIDE) -> Depth:
    """Left and right half at two depths, with one pixel each of 0 and 1 in a corner so that the range is 0..1."""
    values = torch.full((1, side, side), right)
    values[:, :, : side // 2] = left
    values[:, 0, 0], values[:, 0, -1] = 0.0, 1.0
    return Depth(values, "affine_inverse")


@pytest.mark.parametrize(("highlights", "blades"), [(0.0, 0), (0.9, 5)])
@pytest.mark.parametrize("grey", [0.0, 0.4, 1.0])
def test_a_constant_picture_is_that_picture(highlights: float, blades: int, grey: float) -> None:
    made = torch.Generator().manual_seed(1)
    for values in (torch.rand(1, 70, 90, generator=made), torch.linspace(0, 1, 90).expand(1, 70, 90).contiguous()):
        image = torch.full((1, 70, 90, 3), grey)
        depth = Depth(values, "affine_inverse")
        got, _ = lens_blur(image, depth, 15.0, focus=0.5, highlights=highlights, blades=blades)
        assert float((got - image).abs().amax()) < 2e-4


@pytest.mark.parametrize("radius", [0.8, 2.3, 7.0, 20.0])
@pytest.mark.parametrize("blades", [0, 6])
def test_a_point_light_keeps_its_energy_and_fills_a_disc(radius: float, blades: int) -> None:
    image = torch.zeros(1, SIDE, SIDE, 3)
    image[:, 48, 48] = 1.0
    for depth, focus in ((halves(0.0, 0.0), 1.0), (halves(1.0, 1.0), 0.0)):
        got, amount = lens_blur(image, depth, radius, focus=focus, blades=blades)
        light = to_linear(got)[0, :, :, 0]
        assert float(light.sum()) == pytest.approx(1, abs=0.02)
        assert float(amount[0, 48, 48]) == 1
        if radius >= 2 and not blades:
            y, x = torch.meshgrid(torch.arange(SIDE) - 48.0, torch.arange(SIDE) - 48.0, indexing="ij")
            far_off = torch.hypot(x, y)
            assert float(light[far_off > radius + 1].amax()) < 1e-5
            even = light[far_off < radius - 1]
            assert torch.allclose(even, torch.full_like(even, 1 / (math.pi * radius**2)), rtol=0.05)


def test_radius_is_proportional_to_the_distance_in_inverse_depth() -> None:
    metres = torch.tensor([1.0, 2.0, 4.0, 20.0])
    image = torch.zeros(1, SIDE, 4 * SIDE, 3)
    image[:, 48, 48::SIDE] = 1.0
    depth = depth_from_metres(metres.repeat_interleave(SIDE)[None, None].expand(1, SIDE, -1).contiguous())
    got, amount = lens_blur(image, depth, 20.0, "metres", 1.0)
    wanted = 20 * (1 - 1 / metres) / (1 - 1 / 20)
    assert amount[0, 48, 48::SIDE].tolist() == pytest.approx((wanted / 20).tolist(), abs=1e-5)
    for place, radius in enumerate(wanted.tolist()):
        lit = to_linear(got)[0, :, place * SIDE : (place + 1) * SIDE, 0]
        if radius == 0:
            assert int((lit > 1e-4).sum()) == 1
        else:
            area = float(lit.sum()) / float(lit[48, 48])
            assert math.sqrt(area / math.pi) == pytest.approx(radius, abs=0.6)


def test_background_never_bleeds_onto_the_subject() -> None:
    image = photo()
    image[:, :, SIDE // 2 :] = 1.0  # a glaring background
    image[:, :, : SIDE // 2] *= 0.3
    got, _ = lens_blur(image, halves(1.0, 0.0), 16.0, focus=1.0, highlights=0.9)
    assert torch.equal(got[:, 1:, : SIDE // 2], image[:, 1:, : SIDE // 2])


def test_nor_onto_a_subject_that_is_slightly_out_of_focus() -> None:
    image = torch.zeros(1, SIDE, SIDE, 3)
    image[:, :, SIDE // 2 :] = 1.0
    # The subject blurs by 1.6 pixels, what is behind by 16.
    got, _ = lens_blur(image, halves(0.9, 0.0), 16.0, focus=1.0)
    assert float(got[:, 4:-4, : SIDE // 2 - 4].amax()) < 1e-3


def test_the_sharp_subject_does_not_bleed_onto_the_background() -> None:
    image = torch.zeros(1, SIDE, SIDE, 3)
    image[:, :, : SIDE // 2] = 1.0  # a bright subject, a black background
    got, _ = lens_blur(image, halves(1.0, 0.0), 16.0, focus=1.0)
    assert float(got[:, 20:-20, SIDE // 2 :].amax()) < 1e-3


def test_foreground_spreads_over_the_sharp_background() -> None:
    image = torch.zeros(1, SIDE, SIDE, 3)
    image[:, :, : SIDE // 2] = 1.0
    got, _ = lens_blur(image, halves(1.0, 0.0), 12.0, focus=0.0)
    row = to_linear(got)[0, SIDE // 2, :, 0]
    middle = SIDE // 2
    assert float(row[middle : middle + 3].amin()) > 0.3 and float(row[middle + 14 :].amax()) < 1e-4
    assert bool((row[15:].diff() <= 1e-4).all())
    # Its edge is soft on both sides: what it hid is continued from the background.
    assert float(row[middle - 1]) < 0.65 and float(row[middle - 14]) > 0.98


def test_in_focus_comes_through_unchanged() -> None:
    image = photo()
    got, amount = lens_blur(image, halves(0.5, 0.5), 10.0, focus=0.5)
    assert torch.equal(got[:, 20:], image[:, 20:]) and not bool(amount[:, 20:].any())
    assert torch.equal(lens_blur(image, halves(1.0, 0.0), 0.0)[0], image)


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo()
    depth = Depth(torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(3)), "affine_inverse")
    whole, _ = lens_blur(image, depth, 7.0, focus=0.4)
    monkeypatch.setattr("fathom.tools.lens_blur._TILE", 40)
    tiled, _ = lens_blur(image, depth, 7.0, focus=0.4)
    assert torch.allclose(whole, tiled, atol=1e-4)


def test_focus_by_point_and_by_mask() -> None:
    image, depth = photo(), halves(0.8, 0.2)
    right = torch.zeros(1, 10, 10)
    right[:, :, 6:] = 1
    for settings in ({"focus_by": "point", "point": (0.9, 0.5)}, {"focus_by": "mask", "mask": right}):
        got, _ = lens_blur(image, depth, 10.0, **settings)
        assert torch.equal(got[:, 20:-20, 70:], image[:, 20:-20, 70:])
        assert not torch.allclose(got[:, 20:-20, :30], image[:, 20:-20, :30], atol=0.05)


def test_a_mask_of_one_half_is_no_empty_mask() -> None:
    whole, half = torch.ones(1, SIDE, SIDE), torch.full((1, SIDE, SIDE), 0.5)
    made = [lens_blur(photo(), halves(0.8, 0.2), 10.0, focus_by="mask", mask=mask)[0] for mask in (whole, half)]
    assert torch.equal(*made)


def test_what_is_not_valid_stays_in_focus() -> None:
    values = torch.rand(1, SIDE, SIDE)
    nothing = Depth(values * torch.nan, "ordinal", torch.zeros(1, SIDE, SIDE, dtype=torch.bool))
    assert torch.equal(lens_blur(photo(), nothing, 9.0)[0], photo())


def test_blades_make_a_polygon_and_foreground_turns_it() -> None:
    lens = _Lens(20.0, 3, 0.0, torch.device("cpu"))
    last = len(lens.radii) - 1
    behind, before = lens.kernel(-last), lens.kernel(last)
    assert float(behind.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(behind.flip(0, 1), before) and not torch.allclose(behind, before)
    triangle = 3 * math.sqrt(3) / 4 * 20**2
    assert 1 / float(behind.amax()) == pytest.approx(triangle, rel=0.02)


def test_highlights_outshine() -> None:
    image = torch.full((1, SIDE, SIDE, 3), 0.2)
    image[:, 48, 48] = 1.0
    dull, _ = lens_blur(image, halves(0.0, 0.0), 6.0)
    bright, _ = lens_blur(image, halves(0.0, 0.0), 6.0, highlights=1.0)
    assert float(bright[0, 48, 48, 0]) > float(dull[0, 48, 48, 0]) + 0.1


def test_batches_sizes_and_small_pictures() -> None:
    got, amount = lens_blur(photo(3), Depth(torch.rand(1, 12, 12), "ordinal"), 5.0)
    assert got.shape == (3, SIDE, SIDE, 3) and amount.shape == (3, SIDE, SIDE)
    assert lens_blur(photo(1), Depth(torch.rand(2, 96, 96), "ordinal"), 3.0)[0].shape[0] == 2
    for height, width in ((1, 1), (1, 30), (5, 3)):
        image = torch.rand(1, height, width, 3)
        got, _ = lens_blur(image, Depth(torch.rand(1, height, width), "affine_inverse"), 40.0, focus=0.3)
        assert got.shape == image.shape and bool(got.isfinite().all())


def test_bad_input() -> None:
    depth = halves(1.0, 0.0)
    for bad in ({"radius": -1.0}, {"focus": 2.0}, {"focus_by": "ear"}, {"highlights": 2.0}, {"blades": 2}):
        with pytest.raises(SettingError, match=next(iter(bad))):
            lens_blur(photo(), depth, **bad)
    with pytest.raises(SettingError, match="mask"):
        lens_blur(photo(), depth, focus_by="mask")
    with pytest.raises(SignalError, match="mask is empty"):
        lens_blur(photo(), depth, focus_by="mask", mask=torch.zeros(1, SIDE, SIDE))
    with pytest.raises(SignalError, match="near and far"):
        lens_blur(photo(), depth, focus_by="metres", focus=2.0)
    with pytest.raises(SignalError, match="do not fit"):
        lens_blur(photo(2), Depth(torch.rand(3, 96, 96), "ordinal"))
