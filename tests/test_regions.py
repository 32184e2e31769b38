"""Depth by region, their order, and edges after the photo."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from fathom import Depth, Segmentation, SettingError, SignalError
from fathom.signals import Palette
from fathom.signals.depth import depth_from_metres
from fathom.tools.atmosphere import gaussian
from fathom.tools.regions import blur_at_borders, core_of, depth_by_region, eroded, order_regions, refine_edges
from fathom.training.scenes import Scenes, render


def palette(count: int) -> Palette:
    return Palette("test", tuple(f"thing {i}" for i in range(count)), ((0, 0, 0),) * count)


def discs(*centres: int, radius: int = 8, side: int = 64) -> torch.Tensor:
    """One mask per centre: a disc in the middle row at that column."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([(torch.hypot(x - c + 0.0, y - side / 2) <= radius).float() for c in centres])


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return render(range(16), 128, 160)


@pytest.fixture(scope="module")
def large_scenes() -> Scenes:
    # Most things are wider than what erosion takes off: below that no core is left to go by.
    return render(range(6), 256, 320)


def at_borders(labels: torch.Tensor, reach: int) -> torch.Tensor:
    field = labels.float()[:, None]
    size = 2 * reach + 1
    widest, least = F.max_pool2d(field, size, 1, reach), -F.max_pool2d(-field, size, 1, reach)
    return ((widest != field) | (least != field))[:, 0]


def error(depth: torch.Tensor, truth: torch.Tensor, where: torch.Tensor) -> float:
    """Mean over scenes of each scene's mean error of inverse depth."""
    return sum(float((d - t).abs()[w].mean()) for d, t, w in zip(depth, truth, where, strict=True)) / len(truth)


@pytest.mark.parametrize(("sigma", "erode", "times"), [(1.0, None, 3.5), (1.5, 4, 2), (2.5, None, 1.8)])
def test_region_crisp_depth_is_better_at_borders(
    large_scenes: Scenes, sigma: float, erode: int | None, times: float
) -> None:
    truth = large_scenes.depth.reciprocal()
    blurred = Depth(gaussian(truth, sigma), "metric")  # what an estimator's soft borders look like
    regions = Segmentation(large_scenes.regions, palette(int(large_scenes.regions.max()) + 1))
    crisp, _ = depth_by_region(blurred, regions, erode=erode)
    border = at_borders(large_scenes.regions, 2)
    assert error(crisp.values, truth, border) * times <= error(blurred.values, truth, border)


@pytest.mark.parametrize("sigma", [0.0, 1.5, 3.5])
def test_erosion_follows_the_blur_of_the_depth(large_scenes: Scenes, sigma: float) -> None:
    labels, truth = large_scenes.regions[:4], large_scenes.depth[:4].reciprocal()
    blurred = gaussian(truth, sigma) if sigma else truth
    regions = Segmentation(labels, palette(int(labels.max()) + 1))
    border = at_borders(labels, 2)
    fixed, found = (depth_by_region(Depth(blurred, "metric"), regions, erode=e)[0].values for e in (8, None))
    assert error(found, truth, border) <= min(0.036, 1.25 * error(fixed, truth, border))


@pytest.mark.parametrize(("sigma", "least", "most"), [(0.0, 0, 0), (1.0, 1, 3), (2.0, 3, 5), (4.0, 6, 9)])
@pytest.mark.parametrize("beside", [0, 2])
def test_blur_is_measured_across_the_borders(sigma: float, least: int, most: int, beside: int) -> None:
    labels = torch.zeros(128, 128, dtype=torch.int32)
    labels[32:96, 32:96] = 1
    sharp = torch.where(labels == 1, 1.0 + torch.arange(128) / 500, torch.tensor(0.2))
    soft = gaussian(sharp[None], sigma)[0] if sigma else sharp
    # A mask that lies beside the depth's edge: what it says wrongly is not measured either.
    known = torch.ones_like(labels, dtype=torch.bool)
    found = blur_at_borders(soft, known, labels.roll((beside, beside), (0, 1)))
    assert found is not None and least <= found <= most + 1.5 * beside
    assert blur_at_borders(torch.ones(128, 128), known, labels) in (None, 8)


def test_settings_of_erosion() -> None:
    depth = Depth(gaussian(discs(32, radius=16)[:1] + 1, 3.0), "metric")
    sizes = {}
    for name, settings in {"4": (4, False), "at least": (4, True), "measured": (None, False)}.items():
        told = depth_by_region(depth, discs(32, radius=16), erode=settings[0], follow_blur=settings[1])[1]
        ordered = order_regions(depth, discs(32, radius=16), erode=settings[0], follow_blur=settings[1])[2]
        sizes[name] = json.loads(told)[0]["measured"]
        assert json.loads(ordered)[0]["measured"] == sizes[name]
    assert sizes["at least"] == sizes["measured"] < sizes["4"]


def test_a_slanted_plane_stays_one_and_its_border_is_exact() -> None:
    x = torch.arange(64.0).expand(64, 64)
    plane, behind = 0.5 + x / 100, torch.full((64, 64), 0.1)
    mask = torch.zeros(64, 64)
    mask[16:48, 16:48] = 1
    truth = torch.where(mask > 0, plane, behind)
    blurred = Depth(gaussian(truth[None], 1.2)[None, 0], "metric")
    crisp, _ = depth_by_region(blurred, mask[None], erode=4)
    assert float((crisp.values[0] - truth).abs().amax()) < 2e-3
    assert float((blurred.values[0] - truth).abs().amax()) > 0.3


def test_strips_do_not_show_in_crisp_depth(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    blurred = Depth(gaussian(scenes.depth[:1].reciprocal(), 1.5), "metric")
    regions = Segmentation(scenes.regions[:1], palette(int(scenes.regions.max()) + 1))
    whole, _ = depth_by_region(blurred, regions)
    monkeypatch.setattr("fathom.tools.regions._STRIP", 32)
    assert torch.allclose(depth_by_region(blurred, regions)[0].values, whole.values, atol=1e-6)


@pytest.mark.parametrize(
    ("statistic", "percentile", "wanted"),
    [("median", 0, 3), ("mean", 0, 22.0), ("percentile", 0, 1.0), ("percentile", 75, 4.0), ("percentile", 100, 100.0)],
)
def test_flat_statistics(statistic: str, percentile: float, wanted: float) -> None:
    values = torch.tensor([[[1.0, 2.0, 3.0, 4.0, 100.0, -7.0]]])
    depth = Depth(values, "affine_inverse")
    mask = torch.tensor([[[1.0, 1, 1, 1, 1, 0]]])
    made, told = depth_by_region(depth, mask, statistic, percentile, 0, "flat")  # pyright: ignore[reportArgumentType]
    assert made.values[0, 0].tolist() == pytest.approx([wanted] * 5 + [-7])
    (row,) = json.loads(told)
    assert row["value"] == pytest.approx(wanted) and row["pixels"] == row["measured"] == 5 and row["region"] == "mask 1"


def test_the_border_is_not_measured() -> None:
    mask = discs(32)
    values = torch.where(mask[0] > 0, torch.tensor(2.0), torch.tensor(1.0))
    soft = Depth(gaussian(values[None], 1.5), "metric")
    made, told = depth_by_region(soft, mask, erode=5, fill="flat")
    assert float(made.values[0, 32, 32]) == pytest.approx(2, abs=1e-3)
    row = json.loads(told)[0]
    assert row["metres"] == pytest.approx(0.5, abs=1e-3) and 0 < row["measured"] < row["pixels"]
    # Too thin to have a core: measured whole.
    thin = torch.zeros(1, 64, 64)
    thin[:, 32, 28:36] = 1
    assert json.loads(depth_by_region(soft, thin, erode=5)[1])[0]["measured"] == 8


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (40, 33), (3, 200)])
def test_a_mask_is_eroded_as_its_labels_have_a_core(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    for reach in (0, 1, 2, 3, 4, 7, 16, 40):
        for holes in (0.0, 0.002, 0.02, 0.3):
            mask = torch.rand(size, generator=generator) >= holes
            assert torch.equal(eroded(mask, reach), mask & core_of(mask.long(), reach)), (reach, holes)


def test_holes_are_filled_and_what_is_unknown_stays_so() -> None:
    depth = depth_from_metres(torch.full((1, 64, 64), 2.0))
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    valid[:, 30:34, 30:34] = False
    valid[:, :, 50:] = False
    holes = Depth(depth.values.masked_fill(~valid, torch.nan), "metric", valid)
    for fill in ("flat", "edge-snapping"):
        made, _ = depth_by_region(holes, discs(32), fill=fill)  # pyright: ignore[reportArgumentType]
        assert made.valid is not None and bool(made.valid[0, 24:40, 26:38].all())
        assert float(made.values[0, 31, 31]) == 0.5 and not bool(made.valid[:, :, 50:].any())


def test_nothing_valid_and_empty_masks() -> None:
    nothing = Depth(torch.full((1, 64, 64), torch.nan), "ordinal", torch.zeros(1, 64, 64, dtype=torch.bool))
    for fill in ("flat", "edge-snapping"):
        made, told = depth_by_region(nothing, discs(20, 44), fill=fill)  # pyright: ignore[reportArgumentType]
        assert made.valid is not None and not bool(made.valid.any())
        assert [r["value"] for r in json.loads(told)] == [None, None]
    some = Depth(torch.rand(1, 64, 64), "ordinal")
    made, told = depth_by_region(some, torch.zeros(1, 64, 64))
    assert torch.equal(made.values, some.values) and json.loads(told) == []


def test_masks_are_resized_shared_out_and_layered() -> None:
    depth = Depth(torch.rand(2, 64, 64), "ordinal")
    small = F.interpolate(discs(20, 44)[:, None], (32, 32))[:, 0]
    rows = json.loads(depth_by_region(depth, small, fill="flat")[1])
    assert [(r["picture"], r["region"]) for r in rows] == [(0, "mask 1"), (1, "mask 1")]
    rows = json.loads(depth_by_region(depth, discs(20, 44, 10, 50))[1])
    assert [(r["picture"], r["region"]) for r in rows] == [(0, "mask 1"), (0, "mask 2"), (1, "mask 1"), (1, "mask 2")]
    with pytest.raises(SignalError, match="3 masks"):
        depth_by_region(depth, discs(10, 20, 30))
    over = json.loads(depth_by_region(depth[0], torch.ones(2, 64, 64))[1])
    assert [r["region"] for r in over] == ["mask 2"]
    with pytest.raises(SignalError, match="NaN"):
        depth_by_region(depth, torch.full((1, 64, 64), torch.nan))


def test_segmentation_labels_and_their_names() -> None:
    labels = torch.full((1, 32, 32), -1)
    labels[:, 8:24, 8:24] = 3
    depth = Depth(torch.rand(3, 64, 64), "affine_inverse")
    made, told = depth_by_region(depth, Segmentation(labels, palette(5)), fill="flat")
    rows = json.loads(told)
    assert [r["region"] for r in rows] == ["thing 3"] * 3 and rows[0]["pixels"] == 32 * 32
    assert made.values.shape == (3, 64, 64) and torch.equal(made.values[:, :16], depth.values[:, :16])


# ---------------------------------------------------------------------------------------------- order


def test_which_face_is_furthest_back() -> None:
    faces = discs(10, 32, 54)
    metres = torch.full((64, 64), 50.0)
    for face, distance in zip(faces, (3.0, 9.0, 1.5), strict=True):
        metres[face > 0] = distance
    depth = depth_from_metres(metres[None])
    ordered, chosen, told = order_regions(depth, faces, -1)
    assert torch.equal(ordered, faces[[2, 0, 1]]) and torch.equal(chosen[0], faces[1])
    rows = json.loads(told)
    assert [r["metres"] for r in rows] == pytest.approx([1.5, 3, 9]) and [r["place"] for r in rows] == [1, 2, 3]
    assert torch.equal(order_regions(depth, faces, 1)[1][0], faces[2])
    assert torch.equal(order_regions(depth, faces, 2)[1][0], faces[0])
    for k in (0, 4, -4):
        with pytest.raises(SettingError, match="k must"):
            order_regions(depth, faces, k)


def test_order_of_unmeasured_equal_and_overlapping_regions() -> None:
    values = torch.ones(1, 64, 64)
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    valid[:, :, :20] = False
    depth = Depth(values, "ordinal", valid)
    _, _, told = order_regions(depth, discs(10, 32, 34))
    assert [r["region"] for r in json.loads(told)] == ["mask 2", "mask 3", "mask 1"]
    assert json.loads(told)[0]["pixels"] == json.loads(told)[1]["pixels"]
    with pytest.raises(SignalError, match="empty"):
        order_regions(depth, torch.zeros(2, 64, 64))


def test_order_in_a_batch() -> None:
    depth = Depth(torch.stack([discs(20)[0], discs(44)[0]]), "ordinal")
    ordered, chosen, _ = order_regions(depth, torch.cat([discs(20, 44)] * 2))
    assert ordered.shape[0] == 4 and torch.equal(chosen, discs(20, 44))


# ---------------------------------------------------------------------------------------------- refine


# What is left of the error beside borders, over these scenes: joint 0.77, guided 0.86 after the photo, whose texture,
# shade and noise also have edges; guided 0.61 after a picture with no edge but the truth's. A filter that looks at no
# photo, at the wrong place of it, or takes values from the ramps too makes it worse: 1.17 and more.
@pytest.mark.parametrize(
    ("method", "radius", "exact", "most"),
    [("joint", 6, False, 0.85), ("guided", 4, False, 0.9), ("guided", 4, True, 0.65)],
    ids=["joint-6", "guided-4", "guided-4-exact"],
)
def test_refined_edges_are_nearer_to_the_truth(
    scenes: Scenes, method: str, radius: int, exact: bool, most: float
) -> None:
    truth = scenes.depth.reciprocal()
    blurred = Depth(gaussian(truth, 2.0), "metric")
    shade = (truth / truth.amax((1, 2), keepdim=True))[..., None].expand(-1, -1, -1, 3)
    photo = shade if exact else scenes.image.permute(0, 2, 3, 1)
    refined = refine_edges(blurred, photo, radius, method=method)  # pyright: ignore[reportArgumentType]
    border = at_borders(scenes.regions, 4)
    assert error(refined.values, truth, border) < most * error(blurred.values, truth, border)


@pytest.mark.parametrize("method", ["guided", "joint"])
def test_a_clean_edge_becomes_a_step(method: str) -> None:
    photo = torch.zeros(1, 40, 60, 3)
    photo[:, :, 30:] = 1
    soft = Depth(gaussian(photo[..., 0] + 3, 2.0), "affine_inverse")
    refined = refine_edges(soft, photo, method=method)  # pyright: ignore[reportArgumentType]
    truth = photo[..., 0] + 3
    assert float((refined.values - truth).abs().amax()) * 3 < float((soft.values - truth).abs().amax())


@pytest.mark.parametrize("method", ["guided", "joint"])
def test_refine_keeps_validity_range_and_strips_do_not_show(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = torch.Generator().manual_seed(1)
    values, photo = torch.rand(1, 50, 40, generator=made) + 1, torch.rand(2, 50, 40, 3, generator=made)
    valid = torch.rand(1, 50, 40, generator=made) > 0.3
    depth = Depth(values.masked_fill(~valid, torch.nan), "metric", valid)
    refined = refine_edges(depth, photo, 3, method=method)  # pyright: ignore[reportArgumentType]
    assert refined.values.shape == (2, 50, 40) and refined.valid is not None and torch.equal(refined.valid[:1], valid)
    seen = refined.values[refined.valid]
    assert float(seen.amin()) >= 1 - 1e-5 and float(seen.amax()) <= 2 + 1e-5
    monkeypatch.setattr("fathom.tools.regions._STRIP", 16)
    again = refine_edges(depth, photo, 3, method=method)  # pyright: ignore[reportArgumentType]
    assert torch.allclose(again.values, refined.values, atol=1e-4)
    constant = refine_edges(Depth(torch.full((1, 9, 9), 5.0), "ordinal"), torch.rand(1, 9, 9, 3), method=method)  # pyright: ignore
    assert torch.allclose(constant.values, torch.full((1, 9, 9), 5.0), atol=1e-5)


def test_refine_enlarges_a_small_depth_to_the_photo() -> None:
    depth = Depth(torch.rand(1, 16, 16), "metric", focal=20.0)
    refined = refine_edges(depth, torch.rand(1, 64, 64, 3), 2)
    assert refined.values.shape == (1, 64, 64) and refined.focal == 80
    tiny = refine_edges(Depth(torch.rand(1, 1, 1), "ordinal"), torch.rand(1, 1, 1, 3))
    assert tiny.values.shape == (1, 1, 1)


@pytest.mark.parametrize("bad", [{"radius": 0}, {"radius": 100}, {"sensitivity": 0.0}, {"method": "magic"}])
def test_refine_bad_settings(bad: dict[str, object]) -> None:
    with pytest.raises(SettingError, match=next(iter(bad))):
        refine_edges(Depth(torch.rand(1, 8, 8), "ordinal"), torch.rand(1, 8, 8, 3), **bad)  # pyright: ignore
