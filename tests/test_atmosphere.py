"""Fog, blends, halo and bands: analytic truth and bad input."""

from __future__ import annotations

import math

import pytest
import torch

from fathom import Depth, PictureError, SettingError, SignalError
from fathom.signals.depth import depth_from_metres, to_metric
from fathom.tools.atmosphere import TREATMENTS, band_style, blend_by_depth, dream_halo, fog, gaussian
from fathom.tools.pixels import colour, to_linear, to_srgb

METRES = torch.tensor([[[0.5, 1.0, 2.0, 7.0, 30.0, torch.inf]]])
METRIC = depth_from_metres(METRES)
AFFINE = Depth(torch.tensor([[[0.0, 1.0, 2.0, 3.0, 4.0]]]), "affine_inverse")


def flat(value: float, width: int, batch: int = 1, height: int = 1) -> torch.Tensor:
    return torch.full((batch, height, width, 3), value)


def photo(batch: int = 1, height: int = 24, width: int = 32) -> torch.Tensor:
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(5))


def test_fog_thickens_along_the_ray_where_the_focal_length_is_known() -> None:
    wall = torch.full((1, 3, 5), 10.0)
    for principal, corner in ((None, (1.0, 2.0)), (torch.tensor([[1.0, 0.0]]), (2.0, 3.0))):
        depth = depth_from_metres(wall, focal=torch.tensor([[4.0, 2.0]]), principal=principal)
        _, amount = fog(torch.ones(1, 3, 5, 3), depth, 0.05)
        ray = 10 * math.sqrt(1 + (corner[1] / 4) ** 2 + (corner[0] / 2) ** 2)
        assert float(amount[0, 2, 4]) == pytest.approx(1 - math.exp(-0.05 * ray), abs=1e-6)
    _, amount = fog(torch.ones(1, 3, 5, 3), depth_from_metres(wall), 0.05)
    assert float(amount[0, 2, 4]) == pytest.approx(1 - math.exp(-0.5), abs=1e-6)


# ---------------------------------------------------------------------------------------------- fog


@pytest.mark.parametrize("beta", [0.01, 0.2, 3.0])
def test_fog_at_distance_z_is_exp_of_minus_beta_z(beta: float) -> None:
    wanted = torch.exp(-beta * METRES)
    picture, amount = fog(flat(1.0, 6), METRIC, beta, "#000000")
    assert torch.allclose(1 - amount, wanted, atol=1e-6)
    assert torch.allclose(to_linear(picture)[..., 0], wanted, atol=1e-5)
    white, _ = fog(flat(0.0, 6), METRIC, beta, "#fff")
    assert torch.allclose(to_linear(white)[..., 1], 1 - wanted, atol=1e-5)


def test_fog_of_an_affine_depth() -> None:
    _, amount = fog(flat(1.0, 5), AFFINE, 2.0)
    assert amount[0, 0].tolist() == pytest.approx([1 - math.exp(-2 * d) for d in (1, 0.75, 0.5, 0.25, 0)], abs=1e-6)
    _, amount = fog(flat(1.0, 5), to_metric(AFFINE, 1.0, 5.0), 0.1)
    metres = AFFINE.metres(1.0, 5.0)
    assert torch.allclose(1 - amount, torch.exp(-0.1 * metres), atol=1e-6)


def test_no_fog_changes_nothing() -> None:
    image = photo()
    depth = depth_from_metres(torch.rand(1, 24, 32) * 50)
    for settings in ({"density": 0.0}, {"density": 0.0, "height_falloff": 2.0}):
        picture, amount = fog(image, depth, **settings)
        assert torch.allclose(picture, image, atol=2e-6) and not bool(amount.any())


def test_height_falloff_equals_the_integral_along_the_ray() -> None:
    height, width, beta, falloff = 9, 5, 0.05, 0.3
    metres = torch.rand(1, height, width, generator=torch.Generator().manual_seed(2)) * 20 + 1
    depth = depth_from_metres(metres, focal=6.0)
    _, amount = fog(flat(0.0, width, height=height), depth, beta, "#ffffff", falloff, horizon=0.5)
    t = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    for row in range(height):
        slope = (height / 2 - row - 0.5) / 6.0
        z = metres[0, row].double()[:, None]
        across = ((torch.arange(width, dtype=torch.float64) - (width - 1) / 2) / 6.0)[:, None]
        ray = z * (1 + across**2 + slope**2).sqrt()
        thickness = (torch.exp(-falloff * slope * z * t) * ray).mean(1) * beta
        assert torch.allclose(amount[0, row].double(), 1 - torch.exp(-thickness), atol=1e-5)


def test_sky_above_thinning_fog_is_seen_and_below_is_not() -> None:
    depth = depth_from_metres(torch.full((1, 4, 3), torch.inf), focal=3.0)
    _, amount = fog(flat(0.0, 3, height=4), depth, 0.1, "#ffffff", 0.5)
    assert bool(amount.isfinite().all())
    # Upwards: the integral to infinity is density / (falloff * slope), the slope being that along the ray.
    ray = math.sqrt(1 + (1 / 3) ** 2 + (1.5 / 3) ** 2)
    assert float(amount[0, 0, 0]) == pytest.approx(1 - math.exp(-0.1 * ray / (0.5 * 1.5 / 3)), abs=1e-5)
    assert float(amount[0, 3, 0]) == 1


def test_fog_leaves_what_is_not_valid() -> None:
    depth = depth_from_metres(torch.tensor([[[0.0, 5.0]]]))
    picture, amount = fog(flat(0.3, 2), depth, 1.0)
    assert amount[0, 0, 0] == 0 and picture[0, 0, 0].tolist() == pytest.approx([0.3] * 3, abs=1e-6)
    nothing = Depth(torch.full((1, 1, 2), torch.nan), "ordinal", torch.zeros(1, 1, 2, dtype=torch.bool))
    assert torch.allclose(fog(flat(0.3, 2), nothing)[0], flat(0.3, 2), atol=1e-6)


def test_fog_broadcasts_and_fits_sizes() -> None:
    picture, amount = fog(photo(3), Depth(torch.rand(1, 12, 16), "ordinal"))
    assert picture.shape == (3, 24, 32, 3) and amount.shape == (3, 24, 32)
    picture, _ = fog(photo(1), Depth(torch.rand(4, 24, 32), "ordinal"))
    assert picture.shape == (4, 24, 32, 3)
    with pytest.raises(SignalError, match="do not fit"):
        fog(photo(3), Depth(torch.rand(2, 24, 32), "ordinal"))


def test_fog_bad_input() -> None:
    with pytest.raises(SettingError, match="density"):
        fog(photo(), AFFINE, -1.0)
    with pytest.raises(SettingError, match="colour"):
        fog(photo(), AFFINE, 1.0, "mist")
    with pytest.raises(PictureError, match="NaN"):
        fog(flat(math.nan, 5), AFFINE)
    with pytest.raises(SignalError, match="near and far"):
        fog(photo(), to_metric(METRIC, 1.0, 2.0))


# ---------------------------------------------------------------------------------------------- blend


def test_blend_ends_are_the_pictures_themselves() -> None:
    a, b = photo(), 1 - photo()
    field = torch.zeros(1, 24, 32)
    field[:, :, :10] = 1
    got = blend_by_depth(a, b, field=field)
    assert torch.equal(got[:, :, :10], a[:, :, :10]) and torch.equal(got[:, :, 10:], b[:, :, 10:])


def test_blend_is_of_light_or_of_values() -> None:
    half = torch.full((1, 1, 1), 0.5)
    got = blend_by_depth(flat(1.0, 1), flat(0.0, 1), field=half)
    assert float(got[0, 0, 0, 0]) == pytest.approx(0.735357, abs=1e-5)
    assert float(blend_by_depth(flat(1.0, 1), flat(0.0, 1), field=half, linear=False)[0, 0, 0, 0]) == 0.5


def test_blend_by_the_depth_itself_and_broadcast() -> None:
    got = blend_by_depth(flat(1.0, 5), flat(0.0, 5, batch=3), AFFINE, linear=False)
    assert got.shape == (3, 1, 5, 3) and got[2, 0, :, 0].tolist() == [0, 0.25, 0.5, 0.75, 1]
    other = blend_by_depth(photo(), photo(1, 50, 70), field=torch.rand(2, 7, 9))
    assert other.shape == (2, 24, 32, 3)
    with pytest.raises(SettingError, match="either"):
        blend_by_depth(photo(), photo())
    with pytest.raises(SignalError, match="NaN"):
        blend_by_depth(photo(), photo(), field=torch.full((1, 4, 4), math.nan))


# ---------------------------------------------------------------------------------------------- halo


def test_halo_leaves_the_subject_and_lights_what_is_behind() -> None:
    image = flat(0.2, 64, height=64)
    image[:, 28:36, 28:36] = 1.0
    values = torch.zeros(1, 64, 64)
    values[:, :, 40:] = 1.0
    got = dream_halo(image, Depth(values, "affine_inverse"), 1.0, 20.0, 0.3)
    assert torch.equal(got[:, :, 40:], image[:, :, 40:])
    gain = (got - image)[0, :, :40, 0]
    assert float(gain.amin()) >= -1e-6 and float(gain[32, 24]) > 0.02
    assert float(gain[32, 24]) > float(gain[32, 4])


def test_halo_grows_with_distance() -> None:
    image = flat(0.2, 64, height=64)
    image[:, ::8] = 1.0
    values = torch.linspace(1, 0, 64)[None, None].expand(1, 64, 64).contiguous()
    got = dream_halo(image, Depth(values, "affine_inverse"), 1.0, 5.0, 0.3, 0.9)
    gain = (got - image)[0, 4, :, 0]
    assert float(gain[:6].abs().amax()) < 1e-6 and float(gain[30]) < float(gain[45]) < float(gain[60])


def test_gaussian_keeps_constants_and_energy() -> None:
    assert torch.allclose(gaussian(torch.full((3, 40, 50), 0.3), 12.0), torch.full((3, 40, 50), 0.3), atol=1e-6)
    point = torch.zeros(1, 201, 201)
    point[0, 100, 100] = 1.0
    for sigma in (0.7, 3.0, 20.0):
        got = gaussian(point, sigma)
        assert float(got.sum()) == pytest.approx(1, abs=0.01)
        spread = ((torch.arange(201) - 100.0) ** 2 * got[0].sum(0)).sum().sqrt()
        assert float(spread) == pytest.approx(sigma, rel=0.06)


# ---------------------------------------------------------------------------------------------- bands


def test_bands_from_near_to_far() -> None:
    depth = Depth(torch.tensor([[[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]]]), "ordinal")
    picture, index = band_style(flat(0.5, 6), depth, "flat #ff0000\nkeep\nflat #0000ff")
    assert index[0, 0].tolist() == [0, 0, 0.5, 0.5, 1, 1]
    assert picture[0, 0].tolist() == [[0, 0, 1]] * 2 + [[0.5] * 3] * 2 + [[1, 0, 0]] * 2


def test_bands_of_equal_area() -> None:
    depth = Depth(torch.tensor([[[0.0, 0.01, 0.02, 1.0]]]), "ordinal")
    _, index = band_style(flat(0.5, 4), depth, "keep\ngrey", spacing="area")
    assert index[0, 0].tolist() == [0, 0, 1, 1]


def test_soft_bands_blend() -> None:
    depth = Depth(torch.linspace(0, 1, 101)[None, None], "ordinal")
    picture, _ = band_style(flat(0.5, 101), depth, "flat #ffffff\nflat #000000", softness=0.5)
    got = picture[0, 0, :, 0]
    assert got[0] == 0 and got[100] == 1 and float(got[50]) == pytest.approx(0.5, abs=1e-5)
    assert bool((got.diff() >= -1e-6).all())


def test_every_treatment_runs_and_keeps_the_range() -> None:
    given = {"flat": "#123456", "tint": "#ff8800 0.5", "brightness": "0.5", "posterise": "4", "blur": "9"}
    given["pixelate"] = "99"
    depth = Depth(torch.rand(2, 24, 32), "ordinal")
    for name in TREATMENTS:
        picture, _ = band_style(photo(2), depth, f"keep\n{name} {given.get(name, '')} + keep")
        assert picture.shape == (2, 24, 32, 3) and 0 <= float(picture.amin()) and float(picture.amax()) <= 1
        assert bool(picture.isfinite().all())
    grey = band_style(photo(), Depth(torch.rand(1, 24, 32), "ordinal"), "grey")[0]
    assert torch.allclose(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize("bad", ["", "sparkle", "blur", "blur x", "flat", "flat red", "posterise 1", "keep 3"])
def test_bad_styles_are_told(bad: str) -> None:
    with pytest.raises(SettingError):
        band_style(photo(), AFFINE, bad)


def test_colours() -> None:
    assert colour("#ff0080") == (1, 0, 128 / 255) and colour("abc") == colour("#aabbcc")
    assert colour((0, 0.5, 1)) == (0, 0.5, 1)
    for bad in ("#12", "red", (1, 2, 3), (0.1, 0.2)):
        with pytest.raises(SettingError, match="colour"):
            colour(bad)


def test_srgb_round_trip() -> None:
    values = torch.linspace(0, 1, 4097)
    assert float((to_srgb(to_linear(values)) - values).abs().amax()) < 1e-6


def test_inputs_are_not_changed() -> None:
    image, values = photo(), torch.rand(1, 24, 32)
    kept = image.clone(), values.clone()
    depth = Depth(values, "affine_inverse")
    fog(image, depth)
    dream_halo(image, depth)
    band_style(image, depth)
    blend_by_depth(image, image, depth)
    assert torch.equal(image, kept[0]) and torch.equal(values, kept[1])
