"""Depth, Normals, Segmentation, Intrinsics: conventions, normalisation, rendering, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom import Depth, Intrinsics, Normals, Segmentation, SettingError, SignalError
from fathom.signals import DepthLook, Layer, Palette
from fathom.signals.depth import depth_from_metres, without_hot_pixels
from fathom.signals.field import AHEAD, fill_smoothly, percentiles, scene_cuts, sketches, slices
from fathom.signals.normals import unit_vectors
from fathom.tools.sobel import foreground, sobel_normals

GENERATOR = torch.Generator().manual_seed(5)
FIELD = torch.rand(2, 9, 12, generator=GENERATOR) * 7 - 2


def metres(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, -1)


# -------------------------------------------------------------------------------------------- depth


def test_metres_become_inverse_metres_and_back():
    distance = torch.rand(1, 5, 6, generator=GENERATOR) * 80 + 0.1
    depth = depth_from_metres(distance)
    assert depth.kind == "metric"
    torch.testing.assert_close(depth.metres(), distance, rtol=1e-6, atol=0)
    assert depth.values.amax() == 1 / distance.amin()


def test_infinitely_far_is_zero_and_no_measurement_is_not_valid():
    depth = depth_from_metres(metres(2.0, math.inf, 0.0, -1.0, math.nan))
    assert depth.values.tolist() == [[[0.5, 0, 0, 0, 0]]]
    assert depth.valid is not None and depth.valid.tolist() == [[[True, True, False, False, False]]]
    assert depth.metres()[0, 0, 1] == math.inf


@pytest.mark.parametrize("kind", ["affine_inverse", "affine_depth"])
def test_affine_depth_becomes_metres_by_near_and_far_only(kind):
    truth = torch.linspace(2, 10, 24).view(1, 4, 6)
    raw = 3 / truth - 0.4 if kind == "affine_inverse" else 5 - 0.7 * truth
    depth = Depth(raw, kind)
    torch.testing.assert_close(depth.metres(2, 10), truth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(depth.inverse(2, 10), 1 / truth, rtol=1e-5, atol=1e-6)
    with pytest.raises(SignalError, match="near and far"):
        depth.metres()
    with pytest.raises(SignalError, match="0 < near < far"):
        depth.metres(10, 2)


def test_an_ordinal_depth_never_has_metres():
    with pytest.raises(SignalError, match="order only"):
        Depth(FIELD, "ordinal").metres(1, 2)


def test_a_metric_depth_refuses_other_metres():
    with pytest.raises(SignalError, match="leave near and far out"):
        depth_from_metres(metres(1, 2)).metres(1, 2)


@pytest.mark.parametrize("kind", ["affine_inverse", "affine_depth", "ordinal"])
def test_closer_is_lighter(kind):
    image = Depth(FIELD, kind).to_image()
    assert image.shape == (2, 9, 12, 3) and image.dtype == torch.float32
    for field, grey in zip(FIELD, image[..., 0], strict=True):
        assert grey.min() == 0 and grey.max() == 1
        torch.testing.assert_close(grey, (field - field.min()) / (field.max() - field.min()))


def test_scope_batch_takes_one_range_for_all():
    image = Depth(FIELD, "ordinal").to_image("batch")[..., 0]
    torch.testing.assert_close(image, (FIELD - FIELD.min()) / (FIELD.max() - FIELD.min()))


def test_zoe_look_equals_numpy_percentiles_of_the_metres():
    distance = torch.rand(2, 31, 17, generator=GENERATOR) * 9 + 0.5
    image = depth_from_metres(distance, look=DepthLook("metres", 2, 85)).to_image()[..., 0]
    for z, grey in zip(distance.numpy(), image.numpy(), strict=True):
        low, high = np.percentile(z, 2), np.percentile(z, 85)
        np.testing.assert_allclose(grey, np.clip(1 - (z - low) / (high - low), 0, 1), atol=2e-6)


def test_sky_takes_no_part_in_a_metric_picture():
    depth = depth_from_metres(metres(1.0, 2.0, 3.0, math.inf))
    assert depth.to_image()[0, 0, :, 0].tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0])


def test_what_is_not_valid_is_black_and_moves_no_other_pixel():
    values = metres(1.0, 2.0, 3.0, 99.0)
    valid = torch.tensor([[[True, True, True, False]]])
    assert Depth(values, "ordinal", valid).to_image()[0, 0, :, 0].tolist() == [0, 0.5, 1, 0]
    assert Depth(values, "ordinal", torch.zeros_like(valid)).to_image().abs().sum() == 0


@given(value=st.floats(-1e6, 1e6, width=32), size=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
@settings(max_examples=40, deadline=None)
def test_a_constant_picture_has_no_nan(value, size):
    for kind in ("affine_inverse", "affine_depth", "ordinal"):
        image = Depth(torch.full(size, value), kind).to_image()
        assert image.eq(0).all()
    if value > 1e-3:
        assert depth_from_metres(torch.full(size, value)).to_image("batch").isfinite().all()


@given(
    low=st.floats(0, 60),
    high=st.floats(61, 100),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_percentiles_equal_numpys(low, high, height, width, seed):
    values = torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed))
    unit = Depth(values, "ordinal").unit_range(low=low, high=high)
    ends = np.percentile(values.double().numpy(), [low, high])
    expected = np.clip((values.numpy() - ends[0]) / max(ends[1] - ends[0], 1e-12), 0, 1)
    if ends[1] - ends[0] > 1e-6:
        np.testing.assert_allclose(unit.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "kind", "valid", "focal", "word"),
    [
        (torch.zeros(4, 4), "ordinal", None, None, r"\(B,H,W\)"),
        (torch.zeros(1, 0, 4), "ordinal", None, None, "empty"),
        (torch.zeros(1, 4, 4, dtype=torch.float16), "ordinal", None, None, "float32"),
        (torch.zeros(1, 4, 4), "inverse", None, None, "kind"),
        (torch.full((1, 2, 2), math.nan), "ordinal", None, None, "4 of 4 .* NaN"),
        (torch.full((1, 2, 2), math.inf), "ordinal", None, None, "infinite"),
        (torch.full((1, 2, 2), -1.0), "metric", None, None, "negative"),
        (torch.zeros(1, 4, 4), "ordinal", torch.ones(1, 4, 4), None, "bool"),
        (torch.zeros(1, 4, 4), "ordinal", torch.ones(1, 3, 4, dtype=torch.bool), None, r"\(1, 4, 4\)"),
        (torch.zeros(1, 4, 4), "ordinal", None, -3.0, "focal"),
        (torch.zeros(2, 4, 4), "ordinal", None, torch.ones(3), "focal"),
        ([[1.0]], "ordinal", None, None, "tensor"),
    ],
)
def test_a_wrong_depth_cannot_be_made(values, kind, valid, focal, word):
    with pytest.raises(SignalError, match=word):
        Depth(values, kind, valid, focal)


def test_indexing_keeps_what_belongs_to_each_picture():
    valid = FIELD > -1
    depth = Depth(FIELD, "affine_inverse", valid, torch.tensor([500.0, 600.0]), "x")
    part = depth[1:]
    assert torch.equal(part.values, FIELD[1:]) and torch.equal(part.valid, valid[1:])
    assert part.focal.tolist() == [600]


def film(frames: int, seed: int = 0) -> torch.Tensor:
    """A still scene whose range the estimator moves a little from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    still = torch.rand(1, 24, 32, generator=generator).cumsum(1)
    scale = 1 + 0.1 * torch.randn(frames, 1, 1, generator=generator)
    return still * scale


def test_a_video_does_not_flicker_and_nothing_is_clipped():
    frames = film(60)
    # One thing comes close for a single frame: per picture, everything else would turn dark in it.
    frames[30, :2, :2] = 2 * frames.max()
    depth = Depth(frames, "ordinal")
    alone, steady = depth.to_image("image")[..., 0], depth.to_image("video")[..., 0]
    still = (slice(None), slice(8, None))
    assert steady[still].diff(dim=0)[28:31].abs().mean() < 0.3 * alone[still].diff(dim=0)[28:31].abs().mean()
    low, high = percentiles(frames, (0.0, 100.0), None, "video")
    assert bool((low <= frames.amin((1, 2), keepdim=True)).all())
    assert bool((high >= frames.amax((1, 2), keepdim=True)).all())
    assert high.diff(dim=0).abs().max() < frames.amax() / AHEAD


def test_a_cut_begins_a_new_range():
    first, second = film(40), 50 + 9 * film(30, 1).flip(1)
    both = torch.cat([first, second])
    assert scene_cuts(sketches(both)) == [0, 40]
    together = Depth(both, "ordinal").to_image("video")
    torch.testing.assert_close(together[:40], Depth(first, "ordinal").to_image("video"))
    torch.testing.assert_close(together[40:], Depth(second, "ordinal").to_image("video"))


def shots(*angles: float) -> torch.Tensor:
    """Thumbnails between two patterns: neighbours differ by what the sines of their angles differ by."""
    columns, rows = torch.ones(16, 16), torch.ones(16, 16)
    columns[:, 8:] = rows[8:] = -1
    return torch.stack([math.cos(a) * columns + math.sin(a) * rows for a in angles])


def test_a_cut_stands_out_from_what_is_around_it():
    lively = [0.0, 0.12] * 5
    assert scene_cuts(shots(*lively, *[a - 0.3 for a in lively])) == [0, 10], "3.5 times the usual change"
    assert scene_cuts(shots(*lively, *[a - 0.2 for a in lively])) == [0], "2.7 times"
    calm = [0.0, 0.001] * 5
    assert scene_cuts(shots(*calm, *[a - 0.28 for a in calm])) == [0], "less than three tenths"
    assert scene_cuts(shots(0.0, 1.5)) == [0, 1] and scene_cuts(shots(0.0, 0.1)) == [0]
    assert scene_cuts(shots(1.0)) == [0]


def test_a_cut_shows_whatever_offset_and_scale_the_frames_have():
    film = shots(*[0.0] * 6, *[1.5] * 6)
    scale = torch.tensor([1.0, 3.0, 0.5] * 4)[:, None, None]
    assert scene_cuts(scale * film + 100 * scale.flip(0)) == [0, 6]


@pytest.mark.parametrize("points", [(1.0, 100.0), (0.0, 99.0), (0.0, 100.0)])
def test_each_percentile_is_its_own(points):
    for found, point in zip(percentiles(FIELD, points, None, "image"), points, strict=True):
        np.testing.assert_allclose(found.flatten(), np.percentile(FIELD.flatten(1), point, axis=1), rtol=1e-5)


def test_pieces_of_a_batch_have_a_bound(monkeypatch):
    monkeypatch.setattr("fathom.signals.field._AT_ONCE", 250)
    assert list(slices(torch.zeros(5, 10, 10))) == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert list(slices(torch.zeros(2, 20, 20))) == [slice(0, 1), slice(1, 2)]


def test_holes_are_filled_from_around():
    values = torch.rand(2, 3, 11, 14, generator=torch.Generator().manual_seed(4))
    known = torch.zeros(2, 1, 11, 14, dtype=torch.bool)
    known[0, 0, :, :3] = known[0, 0, ::4, ::5] = known[1, 0, 7, 9] = True
    filled = fill_smoothly(values, known)
    assert torch.equal(filled[known.expand_as(values)], values[known.expand_as(values)])
    seen = values.masked_fill(~known, math.inf).amin((2, 3)), values.masked_fill(~known, -math.inf).amax((2, 3))
    assert bool((filled >= seen[0][..., None, None] - 1e-6).all() and (filled <= seen[1][..., None, None] + 1e-6).all())
    torch.testing.assert_close(filled[1], values[1, :, 7, 9, None, None].expand(3, 11, 14))
    assert torch.equal(fill_smoothly(values, torch.ones_like(known)), values)


def test_a_small_thing_far_out_is_no_hot_pixel():
    values = torch.rand(1, 100, 100, generator=torch.Generator().manual_seed(6)) + 1
    thing = values.clone()
    thing[0, 50:53, 20:23] = 9
    depth = Depth(thing, "affine_inverse")
    assert without_hot_pixels(depth) is depth
    three = values.clone()
    three[0, 50, 20:23] = 9
    torch.testing.assert_close(without_hot_pixels(Depth(three, "affine_inverse")).values.amax(), values.amax())


def test_one_frame_and_a_still_film_look_as_pictures_do():
    one = Depth(FIELD[:1], "ordinal")
    assert torch.equal(one.to_image("video"), one.to_image("image"))
    still = Depth(FIELD[:1].expand(30, -1, -1).clone(), "ordinal")
    torch.testing.assert_close(still.to_image("video"), still.to_image("image"))


@pytest.mark.parametrize("scope", ["image", "batch", "video"])
@pytest.mark.parametrize("look", [DepthLook(), DepthLook("metres", 2, 85), DepthLook("values", fixed=(0.0, 2.0))])
def test_rendering_in_pieces_changes_nothing(monkeypatch, scope, look):
    values = torch.rand(9, 20, 30, generator=torch.Generator().manual_seed(3)) + 0.1
    depth = Depth(values, "metric", values > 0.2, look=look)
    whole = depth.to_image(scope)
    monkeypatch.setattr("fathom.signals.field._AT_ONCE", 20 * 30 * 3 * 2)
    assert torch.equal(depth.to_image(scope), whole)


def test_an_unknown_scope_is_named():
    with pytest.raises(SignalError, match="image, batch"):
        Depth(FIELD, "ordinal").to_image("film")


# -------------------------------------------------------------------------------------------- normals


def test_conventions_of_normals():
    vectors = unit_vectors(torch.tensor([[[[0.6, 0.3, 0.7]]]]))
    x, y, z = vectors[0, 0, 0].tolist()
    normals = Normals(vectors, trained=("+z", "+y", "-x"))

    def picture(convention):
        return (normals.to_image(convention)[0, 0, 0] * 2 - 1).tolist()

    assert picture("opengl") == pytest.approx([x, y, z], abs=1e-6)
    assert picture("directx") == pytest.approx([x, -y, z], abs=1e-6)
    assert picture("controlnet") == pytest.approx([z, y, -x], abs=1e-6)
    with pytest.raises(SignalError, match="opengl"):
        normals.to_image("dx")  # type: ignore[arg-type]


def test_normals_must_be_unit_vectors():
    with pytest.raises(SignalError, match="unit length"):
        Normals(torch.full((1, 2, 2, 3), 0.9))
    with pytest.raises(SignalError, match=r"\(B,H,W,3\)"):
        Normals(torch.zeros(1, 3, 2, 2))
    assert unit_vectors(torch.zeros(1, 1, 1, 3)).tolist() == [[[[0, 0, 1]]]]


def sobel_by_cv2(values, a, threshold):
    import cv2

    x = cv2.Sobel(values, cv2.CV_32F, 1, 0, ksize=3)
    y = cv2.Sobel(values, cv2.CV_32F, 0, 1, ksize=3)
    unit = (values - values.min()) / (values - values.min()).max()
    x[unit < threshold] = 0
    y[unit < threshold] = 0
    n = np.stack([x, y, np.full_like(x, a)], 2)
    return n / np.linalg.norm(n, axis=2, keepdims=True)


@pytest.mark.parametrize(("a", "threshold"), [(2 * math.pi, 0.1), (3 * math.pi, 0.4), (0.5, 0.0)])
def test_the_midas_normal_map_equals_the_published_formula(a, threshold):
    depth = Depth(FIELD, "affine_inverse")
    image = sobel_normals(depth, a, threshold).to_image()
    for values, picture in zip(FIELD.numpy(), image.numpy(), strict=True):
        expected = sobel_by_cv2(values, a, threshold)
        # The annotator stores x, y, z in BGR order.
        np.testing.assert_allclose(picture, expected[..., ::-1] / 2 + 0.5, atol=1e-6)


def test_the_midas_normal_of_a_floor_points_up_and_of_a_left_wall_points_right():
    rows = torch.arange(16.0).view(1, 16, 1).expand(1, 16, 16).contiguous()
    up = sobel_normals(Depth(rows, "affine_inverse"), bg_threshold=0).vectors[0, 8, 8]
    assert up[1] > 0.5 and abs(up[0]) < 1e-6
    wall = rows.mT.flip(2).contiguous()  # nearer to the left
    right = sobel_normals(Depth(wall, "affine_inverse"), bg_threshold=0).vectors[0, 8, 8]
    assert right[0] > 0.5 and abs(right[1]) < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_the_midas_normal_map_works_at_any_size(size):
    normals = sobel_normals(Depth(torch.rand(1, *size), "ordinal"))
    assert normals.vectors.shape == (1, *size, 3)


def test_foreground_is_what_reaches_the_threshold():
    assert foreground(Depth(metres(0, 1, 5, 10), "ordinal"), 0.5).tolist() == [[[0, 0, 1, 1]]]


# -------------------------------------------------------------------------------------------- segmentation


def test_palettes_are_the_data_sets_own():
    ade, coco = Palette.named("ade20k"), Palette.named("coco_panoptic")
    assert len(ade) == 150 and len(coco) == 133
    assert ade.colours[0] == (120, 120, 120) and ade.names[0] == "wall"
    assert ade.colours[2] == (6, 230, 230) and ade.colours[6] == ade.colours[48] == (140, 140, 140)
    assert coco.colours[0] == (220, 20, 60) and coco.names[0] == "person"


def test_labels_render_in_their_colours_and_nothing_in_black():
    segmentation = Segmentation(torch.tensor([[[0, 2, -1]]]), Palette.named("ade20k"))
    image = (segmentation.to_image() * 255).round().int()
    assert image[0, 0].tolist() == [[120, 120, 120], [6, 230, 230], [0, 0, 0]]


def test_masks_tell_classes_of_one_colour_apart():
    segmentation = Segmentation(torch.tensor([[[6, 48, 0]]]), Palette.named("ade20k"))
    assert segmentation.mask(["road"]).tolist() == [[[1, 0, 0]]]
    assert segmentation.mask(["Skyscraper", "wall"]).tolist() == [[[0, 1, 1]]]
    assert segmentation.mask([6, 48]).tolist() == [[[1, 1, 0]]]
    assert segmentation.present()[0][2] == pytest.approx(1 / 3)


def test_an_unknown_class_names_its_neighbours():
    segmentation = Segmentation(torch.zeros(1, 1, 1, dtype=torch.int64), Palette.named("ade20k"))
    with pytest.raises(SettingError, match="building"):
        segmentation.mask(["bulding"])
    with pytest.raises(SettingError, match="at least one"):
        segmentation.mask([])
    with pytest.raises(SettingError, match=r"0\.\.149"):
        segmentation.mask([150])


def test_labels_outside_the_palette_are_refused():
    with pytest.raises(SignalError, match="149"):
        Segmentation(torch.full((1, 1, 1), 150), Palette.named("ade20k"))
    with pytest.raises(SignalError, match="int64"):
        Segmentation(torch.zeros(1, 1, 1), Palette.named("ade20k"))


# -------------------------------------------------------------------------------------------- intrinsics

LAYERS = (Layer("albedo", 3, "srgb"), Layer("roughness", 1), Layer("shading", 3, "linear", up_to_scale=True))


def taken_apart(batch=2):
    values = torch.rand(batch, 4, 5, 7, generator=torch.Generator().manual_seed(8))
    values[..., 4:] *= torch.tensor([0.2, 0.6])[:batch, None, None, None]
    return Intrinsics(values, LAYERS, "a test")


def test_layers_come_apart_in_their_order():
    made = taken_apart()
    assert made.names == ("albedo", "roughness", "shading") and len(made) == 2
    assert torch.equal(made.map("albedo"), made.values[..., :3])
    assert torch.equal(made.map("roughness"), made.values[..., 3])
    assert torch.equal(made[1].map("shading"), made.values[1:, ..., 4:])
    with pytest.raises(SettingError, match="a test has no 'residual': it has albedo, roughness, shading"):
        made.map("residual")


def test_each_layer_renders_by_what_it_is():
    made = taken_apart()
    before = made.values.clone()
    assert torch.equal(made.to_image(), made.map("albedo"))
    torch.testing.assert_close(made.to_image(space="linear"), made.map("albedo") ** 2.2)
    for space in ("srgb", "linear"):
        assert torch.equal(made.to_image("roughness", space), made.map("roughness")[..., None].expand(-1, -1, -1, 3))
    shading = made.map("shading")
    assert torch.equal(made.to_image("shading", "linear"), shading)
    own = shading / shading.amax((1, 2, 3), keepdim=True)
    torch.testing.assert_close(made.to_image("shading"), own ** (1 / 2.2))
    torch.testing.assert_close(made.to_image("shading", scope="batch"), (shading / shading.amax()) ** (1 / 2.2))
    assert torch.equal(made.values, before), "a picture is a copy"
    with pytest.raises(SignalError, match="srgb, linear"):
        made.to_image(space="lab")  # type: ignore[arg-type]


def test_no_light_renders_black():
    dark = Intrinsics(torch.zeros(1, 2, 2, 7), LAYERS)
    assert all(torch.equal(dark.to_image(name), torch.zeros(1, 2, 2, 3)) for name in dark.names)


@pytest.mark.parametrize(
    ("values", "layers", "word"),
    [
        (torch.zeros(1, 2, 2, 6), LAYERS, r"\(B,H,W,7\)"),
        (torch.zeros(1, 2, 2, 7).half(), LAYERS, "float32"),
        (torch.full((1, 2, 2, 7), math.nan), LAYERS, "28 of 28"),
        (torch.zeros(1, 2, 2, 6), (LAYERS[0], LAYERS[0]), "names of their own"),
        (torch.zeros(1, 2, 2, 6), (), "names of their own"),
    ],
)
def test_wrong_intrinsics_cannot_be_made(values, layers, word):
    with pytest.raises(SignalError, match=word):
        Intrinsics(values, layers)


@pytest.mark.parametrize("wrong", [{"channels": 2}, {"space": "lab"}])
def test_a_wrong_layer_cannot_be_made(wrong):
    with pytest.raises(SignalError, match="1 or 3 channels"):
        Layer("albedo", **wrong)


# ------------------------------------------------------------------- normals and labels to the last bound


@pytest.mark.parametrize(
    ("length", "unit"), [(1.0, True), (1.009, True), (0.991, True), (1.011, False), (0.989, False)]
)
def test_normals_may_be_off_by_a_hundredth(length, unit):
    vectors = torch.zeros(1, 2, 2, 3)
    vectors[..., 2] = 1
    vectors[0, 0, 0] *= length
    if unit:
        Normals(vectors)
    else:
        with pytest.raises(SignalError, match="1 of 4 normals .* unit length"):
            Normals(vectors)


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf, 5.0])
def test_what_is_not_valid_may_be_any_vector_and_is_black(bad):
    vectors = unit_vectors(torch.rand(1, 2, 3, 3, generator=GENERATOR))
    vectors[0, 1, 2] = bad
    valid = torch.ones(1, 2, 3, dtype=torch.bool)
    with pytest.raises(SignalError):
        Normals(vectors, valid)
    valid[0, 1, 2] = False
    image = Normals(vectors, valid).to_image()
    assert image[0, 1, 2].tolist() == [0, 0, 0] and bool((image[valid] > 0).all())
    torch.testing.assert_close(image[valid], (vectors[valid] + 1) / 2)
    with pytest.raises(SignalError, match="valid"):
        Normals(vectors, valid[:, :1])


@pytest.mark.parametrize(
    "trained", [(), ("+x", "+y"), ("+x", "+y", "+y"), ("x", "y", "z"), ("+x", "+y", "+w"), (1, 2, 3), ("+x",) * 3]
)
def test_channels_of_normals_hold_each_axis_once(trained):
    with pytest.raises(SignalError, match="trained must hold"):
        Normals(unit_vectors(torch.ones(1, 2, 2, 3)), trained=trained)


def test_a_vector_of_no_length_looks_at_the_viewer():
    found = unit_vectors(torch.tensor([[0.0, 0, 0], [0, 3, 4]]))
    torch.testing.assert_close(found, torch.tensor([[0, 0, 1], [0, 0.6, 0.8]]))


@pytest.mark.parametrize(
    ("names", "colours"),
    [
        (("a",), ()),
        (("a",), ((1, 2, 3), (4, 5, 6))),
        ((5,), ((1, 2, 3),)),
        (("a",), ((1, 2),)),
        (("a",), ((1, 2, 256),)),
        (("a",), ((-1, 2, 3),)),
        (("a",), ((1.5, 2, 3),)),
    ],
)
def test_a_palette_has_a_colour_for_each_name(names, colours):
    with pytest.raises(SignalError, match="palette"):
        Palette("x", names, colours)
    Palette("x", ("a",), ((0, 255, 3),))


def test_classes_present_come_largest_first_with_their_shares():
    labels = torch.tensor([[[2, 2, 2, 0], [2, 2, -1, 0]]])
    palette = Palette("p", ("wall", "sky; heaven", "floor, flooring"), ((1, 2, 3), (4, 5, 6), (255, 0, 16)))
    found = Segmentation(labels, palette)
    assert found.present() == [(2, "floor, flooring", 0.625), (0, "wall", 0.25)]
    assert Segmentation(torch.full((1, 2, 2), -1), palette).present() == []


def test_a_class_goes_by_each_of_its_synonyms():
    palette = Palette("p", ("wall", "sky; Heaven", "floor, flooring"), ((1, 2, 3), (4, 5, 6), (255, 0, 16)))
    for word, label in (("Heaven", 1), (" sky ", 1), ("flooring", 2), ("FLOOR, flooring", 2), ("sky; heaven", 1)):
        assert palette.find(word) == [label]
    with pytest.raises(SettingError, match="Did you mean floor"):
        palette.find("flor")
    with pytest.raises(SettingError, match="no class ''.$"):
        palette.find("")


def test_an_unknown_palette_names_those_there_are():
    with pytest.raises(SettingError, match="there are ade20k, coco_panoptic"):
        Palette.named("cityscapes")


def test_masks_refuse_what_is_no_label():
    found = Segmentation(torch.zeros(1, 2, 2, dtype=torch.long), Palette("p", ("a", "b"), ((1, 2, 3), (4, 5, 6))))
    assert found.mask([0]).tolist() == [[[1, 1], [1, 1]]] and found.mask([1]).count_nonzero() == 0
    for classes in ([], [2], [-1]):
        with pytest.raises(SettingError):
            found.mask(classes)
    for wrong in (-2, 2):
        with pytest.raises(SignalError, match=r"-1\.\.1"):
            Segmentation(torch.full((1, 2, 2), wrong), found.palette)


def test_the_legend_has_a_line_for_each_class_present():
    from fathom.tools.legend import legend

    palette = Palette("p", ("wall", "sky", "floor"), ((1, 2, 3), (4, 5, 6), (255, 0, 16)))
    labels = torch.tensor([[[2, 2, 2, 0], [2, 2, -1, 0]]])
    assert legend(Segmentation(labels, palette)) == "floor  #ff0010  62.5%\nwall  #010203  25.0%"
    assert legend(Segmentation(torch.full((1, 2, 2), -1), palette)) == ""


@pytest.mark.parametrize("size", [(10**400, 3), (2**20, 2**20), (0, 3), (3,)])
def test_instances_of_no_size_that_a_picture_has_are_refused(size):
    from fathom import Instances

    with pytest.raises(SignalError, match="the size of instances"):
        Instances(((),), size)
