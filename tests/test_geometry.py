"""Geometry against planes and spheres whose normals and places are known in closed form."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fathom import Depth, SettingError, SignalError
from fathom.signals.depth import depth_from_metres, to_metric
from fathom.tools import geometry


def rays(height: int, width: int, focal: float) -> torch.Tensor:
    """(H,W,3) in camera space, x right, y up, z towards the viewer, float64."""
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - width / 2) / focal
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - height / 2) / focal
    return torch.stack((x.expand(height, width), -y[:, None].expand(height, width), -torch.ones(height, width)), -1)


def plane(normal: tuple[float, float, float], distance: float, height: int, width: int, focal: float) -> Depth:
    """A plane with this unit normal (facing the camera), `distance` metres from it."""
    along = (rays(height, width, focal) @ torch.tensor(normal, dtype=torch.float64)).neg()
    assert (along > 0).all(), "the plane must fill the picture"
    return depth_from_metres((distance / along).float()[None], focal=focal)


def unit(*v: float) -> tuple[float, float, float]:
    length = math.hypot(*v)
    return v[0] / length, v[1] / length, v[2] / length


TILTS = [unit(0, 0, 1), unit(0.6, 0, 0.8), unit(0, 0.8, 0.6), unit(-0.5, -0.4, 0.7), unit(0.9, 0.1, 0.42)]


@pytest.mark.parametrize("normal", TILTS)
@pytest.mark.parametrize("size", [(48, 64), (480, 640), (33, 17)])
def test_a_tilted_plane_gives_its_normal_at_every_pixel(normal, size):
    focal = 2.5 * max(size)
    found = geometry.geometric_normals(plane(normal, 3.0, *size, focal))
    cosine = (found.vectors.double() @ torch.tensor(normal, dtype=torch.float64)).clamp(-1, 1)
    assert math.degrees(float(cosine.arccos().max())) < 0.5
    assert found.valid is None


def test_a_step_in_depth_does_not_bend_the_normals_beside_it():
    metres = torch.full((1, 40, 40), 4.0)
    metres[:, 10:30, 10:30] = 2.0
    found = geometry.geometric_normals(depth_from_metres(metres, focal=60.0))
    off = found.vectors[..., 2].clamp(-1, 1).arccos().rad2deg()
    assert float(off.max()) < 1.0


def test_a_sphere_gives_radial_normals():
    focal, centre = 200.0, torch.tensor((0.0, 0.0, -3.0), dtype=torch.float64)
    ray = rays(160, 160, focal)
    a, b, c = (ray * ray).sum(-1), (ray @ centre) * -2, float(centre @ centre) - 1
    root = b * b - 4 * a * c
    metres = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / (2 * a), torch.inf)
    found = geometry.geometric_normals(depth_from_metres(metres.float()[None], focal=focal))
    truth = ray * metres[..., None] - centre
    inside = (root > 0) & (truth[..., 2] > 0.6)  # the limb, at 1/3, is 4 pixels further out
    error = (found.vectors[0].double() * truth).sum(-1)[inside].clamp(-1, 1).arccos().rad2deg()
    assert float(error.max()) < 1.0
    assert found.valid is not None
    assert not found.valid[0, 0, 0], "the sky has no normal"


def test_field_of_view_equals_its_focal_length():
    depth = plane(TILTS[1], 2.0, 30, 60, 90.0)
    angle = math.degrees(2 * math.atan(60 / 2 / 90.0))
    told = geometry.geometric_normals(Depth(depth.values, "metric"), angle)
    assert torch.allclose(told.vectors, geometry.geometric_normals(depth).vectors, atol=1e-5)


def test_the_conventions_differ_only_in_green():
    normals = geometry.geometric_normals(plane(TILTS[3], 2.0, 20, 20, 60.0))
    opengl, directx = normals.to_image("opengl"), normals.to_image("directx")
    assert torch.allclose(opengl[..., 1], 1 - directx[..., 1], atol=1e-6)
    assert torch.equal(opengl[..., ::2], directx[..., ::2])
    assert float(opengl[..., 1].mean()) < 0.5, "a surface that faces down is dark in OpenGL's green"


@pytest.mark.parametrize("normal", TILTS)
def test_the_points_of_a_plane_are_flat(normal):
    places, valid = geometry.points(plane(normal, 3.0, 120, 160, 400.0))
    off = places.double() @ torch.tensor(normal, dtype=torch.float64) + 3.0
    assert bool(valid.all())
    assert float(off.abs().max()) < 1e-5


def test_points_stand_where_the_camera_sees_them():
    places, valid = geometry.points(depth_from_metres(torch.full((1, 3, 4), 2.0), focal=1.0))
    assert places[0, 0, 0].tolist() == [-3.0, 2.0, -2.0]
    assert places[0, 2, 3].tolist() == [3.0, -2.0, -2.0]
    assert bool(valid.all())


def test_affine_depth_needs_near_and_far_and_ordinal_is_refused():
    values = torch.rand(1, 8, 8)
    with pytest.raises(SignalError, match="near and far"):
        geometry.points(Depth(values, "affine_inverse"), 60.0)
    with pytest.raises(SignalError, match="order only"):
        geometry.geometric_normals(Depth(values, "ordinal"), 60.0)
    places, _ = geometry.points(to_metric(Depth(values, "affine_inverse"), 1.0, 4.0), 60.0)
    assert float(-places[..., 2].amax()) == pytest.approx(1.0, rel=1e-5)
    assert float(-places[..., 2].amin()) == pytest.approx(4.0, rel=1e-5)


def test_without_a_focal_length_the_field_of_view_is_asked_for():
    depth = depth_from_metres(torch.ones(1, 4, 4))
    with pytest.raises(SignalError, match="field of view"):
        geometry.points(depth)
    for angle in (180.0, 0.0, -1.0, 1e-300, 5e-324, float("nan")):
        with pytest.raises(SettingError, match="180"):
            geometry.points(depth, angle)


def test_each_picture_keeps_its_own_focal_length():
    depth = depth_from_metres(torch.ones(2, 4, 4), focal=torch.tensor([1.0, 2.0]))
    places, _ = geometry.points(depth)
    assert torch.equal(places[0, ..., :2], places[1, ..., :2] * 2)


def test_not_valid_and_infinite_pixels_are_no_points():
    metres = torch.full((1, 6, 6), 2.0)
    metres[0, 0, 0], metres[0, 1, 1], metres[0, 2, 2] = torch.inf, torch.nan, 0.0
    (cloud,) = geometry.point_clouds(depth_from_metres(metres, focal=5.0), edge=0)
    assert len(cloud.positions) == 33
    assert bool(cloud.positions.isfinite().all())


def test_an_empty_depth_is_refused_in_words():
    depth = Depth(torch.ones(1, 4, 4), "metric", torch.zeros(1, 4, 4, dtype=torch.bool), 4.0)
    for build in (geometry.point_clouds, geometry.surfaces):
        with pytest.raises(SignalError, match="nothing to build"):
            list(build(depth))
    normals = geometry.geometric_normals(depth)
    assert normals.valid is not None and not normals.valid.any()


def test_a_pixel_between_two_surfaces_is_left_out():
    metres = torch.full((1, 9, 9), 4.0)
    metres[..., :4] = 1.0
    metres[..., 4] = 2.0
    (cloud,) = geometry.point_clouds(depth_from_metres(metres, focal=9.0))
    assert len(cloud.positions) == 72
    assert 2.0 not in (-cloud.positions[:, 2]).tolist()


def test_the_surface_is_cut_at_jumps_and_faces_the_camera():
    metres = torch.full((1, 10, 10), 4.0)
    metres[..., :5] = 2.0
    (cut,) = geometry.surfaces(depth_from_metres(metres, focal=10.0))
    (joined,) = geometry.surfaces(depth_from_metres(metres, focal=10.0), edge=0)
    assert len(joined.faces) == 2 * 81
    assert len(cut.faces) == 2 * 72
    a, b, c = (cut.vertices[cut.faces[:, i]] for i in range(3))
    assert bool((torch.linalg.cross(b - a, c - a)[:, 2] > 0).all())
    spread = cut.vertices[cut.faces][..., 2]
    assert float((spread.amax(1) - spread.amin(1)).max()) == 0


def test_vertices_that_no_triangle_uses_are_dropped():
    metres = torch.full((1, 5, 5), 2.0)
    metres[0, :, 2] = torch.inf
    (surface,) = geometry.surfaces(depth_from_metres(metres, focal=5.0))
    assert len(surface.vertices) == 20
    assert sorted(set(surface.faces.reshape(-1).tolist())) == list(range(20))


def test_colours_come_from_a_picture_of_another_size_and_one_serves_all():
    depth = depth_from_metres(torch.full((2, 4, 4), 2.0), focal=4.0)
    image = torch.zeros(1, 16, 16, 3)
    image[:, :, 8:, 0] = 1.0
    clouds = list(geometry.point_clouds(depth, image))
    assert len(clouds) == 2
    shades = clouds[1].colours
    assert shades is not None
    right = clouds[1].positions[:, 0] > 0.5
    assert bool((shades[right, 0] > 0.9).all())
    with pytest.raises(SignalError, match="3 pictures for 2"):
        list(geometry.point_clouds(depth, image.expand(3, -1, -1, -1)))


def test_step_thins_the_grid():
    depth = depth_from_metres(torch.full((1, 9, 9), 2.0), focal=9.0)
    (surface,) = geometry.surfaces(depth, step=4)
    assert len(surface.vertices) == 9
    with pytest.raises(SettingError, match="step"):
        list(geometry.surfaces(depth, step=0))


@pytest.mark.parametrize("format", ["ply", "glb"])
def test_files_give_the_same_geometry_back(format):
    trimesh = pytest.importorskip("trimesh")
    depth = plane(TILTS[1], 3.0, 12, 16, 40.0)
    image = torch.rand(1, 24, 32, 3, generator=torch.Generator().manual_seed(1))
    (surface,) = geometry.surfaces(depth, image)
    (cloud,) = geometry.point_clouds(depth, image)
    coded = io.BytesIO(geometry.encode_surface(surface, format))
    mesh = trimesh.load(coded, file_type=format, force="mesh", process=False)
    assert torch.allclose(torch.tensor(mesh.vertices).float(), surface.vertices, atol=1e-6)
    assert torch.equal(torch.tensor(mesh.faces).long(), surface.faces)
    loaded = trimesh.load(io.BytesIO(geometry.encode_points(cloud, format)), file_type=format)
    body = next(iter(loaded.geometry.values())) if format == "glb" else loaded
    assert torch.allclose(torch.tensor(body.vertices).float(), cloud.positions, atol=1e-6)
    assert cloud.colours is not None
    if format == "ply":
        shades = torch.tensor(body.colors)[:, :3]
        assert float((shades.float() / 255 - cloud.colours).abs().max()) <= 0.5 / 255 + 1e-6
    else:
        texture = mesh.visual.material.baseColorTexture
        assert texture.size == (32, 24)
        # glTF counts v downwards, trimesh upwards: the first vertex is the top left pixel.
        assert 1 - mesh.visual.uv[0][1] == pytest.approx(0.5 / 12, abs=1e-6)
        assert mesh.visual.uv[0][0] == pytest.approx(0.5 / 16, abs=1e-6)


def test_an_unknown_format_is_refused():
    depth = depth_from_metres(torch.full((1, 4, 4), 2.0), focal=4.0)
    (surface,) = geometry.surfaces(depth)
    with pytest.raises(SettingError, match="glb or ply"):
        geometry.encode_surface(surface, "obj")


def test_inputs_are_left_alone():
    depth = plane(TILTS[1], 3.0, 12, 16, 40.0)
    before = depth.values.clone()
    geometry.geometric_normals(depth)
    list(geometry.surfaces(depth))
    assert torch.equal(depth.values, before)


# ------------------------------------------------------------------------------ depth in steps


def angles(vectors: torch.Tensor, normal: torch.Tensor | tuple[float, float, float]) -> torch.Tensor:
    """Degrees between vectors (...,3) and a normal."""
    truth = torch.as_tensor(normal, dtype=torch.float64)
    return (vectors.double() * truth).sum(-1).clamp(-1, 1).arccos().rad2deg()


def mean_angle(vectors: torch.Tensor, normal: torch.Tensor | tuple[float, float, float]) -> float:
    mean = vectors.double().reshape(-1, 3).mean(0)
    return float(angles(mean / mean.norm(), normal))


def in_steps(depth: Depth, step: float, of: str) -> Depth:
    """The depth in whole steps of inverse distance, or of distance in metres."""
    if of == "inverse":
        return Depth((depth.values / step).round() * step, "metric", depth.values > step, depth.focal)
    return depth_from_metres((depth.metres() / step).round() * step, focal=depth.focal)


TILTED = [unit(math.sqrt(3), 0, 1), unit(0, math.sqrt(3), 1), unit(-1, math.sqrt(2), 1)]


@pytest.mark.parametrize("normal", TILTED)
@pytest.mark.parametrize("of", ["inverse", "metres"])
def test_an_8_bit_plane_tilted_by_60_degrees_keeps_its_normal(normal, of):
    exact = plane(normal, 2.0, 240, 320, 400.0)
    span = float(exact.values.max()) if of == "inverse" else float(exact.metres().max())
    found = geometry.geometric_normals(in_steps(exact, span / 255, of))
    error = angles(found.vectors[0, 2:-2, 2:-2], normal)
    assert float(error.mean()) < 1.2 and float(error.quantile(0.95)) < 3.0
    assert mean_angle(found.vectors, normal) < 0.3
    plain = geometric_neighbours(in_steps(exact, span / 255, of))
    assert mean_angle(plain, normal) > 5


def geometric_neighbours(depth: Depth) -> torch.Tensor:
    return geometry.geometric_normals(depth, radius=0).vectors


def test_the_steps_of_a_depth_camera_do_not_tilt_a_floor():
    # Kinect: an eighth of a pixel of disparity, in whole millimetres, a pixel's noise in every other row.
    exact = plane(unit(0, 1, 0.25), 1.2, 240, 320, 525.0)
    disparity = exact.values * 525 * 0.075
    disparity[:, 1::2] += 0.1 * torch.randn(disparity[:, 1::2].shape, generator=torch.Generator().manual_seed(1))
    metres = 525 * 0.075 / ((disparity * 8).round() / 8)
    found = geometry.geometric_normals(depth_from_metres((metres * 1000).round() / 1000, focal=525.0))
    assert mean_angle(found.vectors, unit(0, 1, 0.25)) < 0.5
    assert float(angles(found.vectors, unit(0, 1, 0.25)).mean()) < 2.0


@pytest.mark.parametrize(("far", "diagonal"), [(0, {1, 2}), (3, {1, 2}), (1, {0, 3}), (2, {0, 3})])
def test_the_diagonal_leaves_out_the_corner_that_stands_apart(far, diagonal):
    z = -torch.ones(4)
    z[far] = -5
    faces = geometry._triangles(z.view(2, 2), torch.ones(2, 2, dtype=torch.bool), 0.0).tolist()
    assert len(faces) == 2 and set(faces[0]) & set(faces[1]) == diagonal


@pytest.mark.parametrize(("edge", "count"), [(0.5, 2), (0.49, 1)])
def test_a_jump_of_just_the_edges_share_is_none(edge, count):
    z = -torch.tensor([[1.0, 1.0], [1.0, 2.0]])
    assert len(geometry._triangles(z, torch.ones(2, 2, dtype=torch.bool), edge)) == count


def test_edges_stay_sharp_in_depth_that_moves_in_steps():
    wall, card = plane(unit(0.5, 0, 1), 4.0, 160, 200, 300.0), plane(unit(0, -0.4, 1), 2.0, 160, 200, 300.0)
    on_card = torch.zeros(160, 200, dtype=torch.bool)
    on_card[50:110, 60:140] = True
    both = Depth(torch.where(on_card, card.values, wall.values), "metric", focal=300.0)
    found = geometry.geometric_normals(in_steps(both, float(both.values.max()) / 255, "inverse")).vectors[0]
    # Bars as for one plane alone: nothing of the other side comes in, up to the last pixel.
    assert float(angles(found[on_card], unit(0, -0.4, 1)).quantile(0.98)) < 6
    assert float(angles(found[~on_card], unit(0.5, 0, 1)).quantile(0.98)) < 6
    rim = on_card & ~torch.nn.functional.max_pool2d(-on_card.float()[None], 3, 1, 1)[0].neg().bool()
    assert float(angles(found[rim], unit(0, -0.4, 1)).median()) < 4


def test_a_band_of_rows_gives_what_the_whole_gives(monkeypatch):
    from fathom.tools import plane_fit

    depth = in_steps(plane(unit(0.5, 0.2, 1), 2.0, 150, 60, 120.0), 1 / 300, "inverse")
    whole = geometry.geometric_normals(depth).vectors
    monkeypatch.setattr(plane_fit, "_BAND", 60 * 20)
    assert torch.allclose(geometry.geometric_normals(depth).vectors, whole, atol=1e-6)


def test_depth_without_steps_is_not_averaged():
    generator = torch.Generator().manual_seed(3)
    depth = depth_from_metres(2 + 0.02 * torch.rand(1, 60, 80, generator=generator), focal=80.0)
    assert torch.equal(geometry.geometric_normals(depth).vectors, geometric_neighbours(depth))


def test_a_radius_averages_noise():
    exact = plane(unit(0.5, 0, 1), 2.0, 80, 100, 200.0)
    noise = 0.002 * torch.randn(exact.values.shape, generator=torch.Generator().manual_seed(2))
    noisy = Depth(exact.values + noise, "metric", focal=200.0)
    few, many = (
        float(angles(geometry.geometric_normals(noisy, radius=r).vectors, unit(0.5, 0, 1)).mean()) for r in (0, 8)
    )
    assert many < 2.5 < 10 < few
    with pytest.raises(SettingError, match="radius"):
        geometry.geometric_normals(noisy, radius=65)


def test_the_principal_point_and_both_focal_lengths_place_the_points():
    lens = {"focal": torch.tensor([[2.0, 4.0]]), "principal": torch.tensor([[1.0, 0.0]])}
    depth = Depth(torch.full((1, 3, 4), 0.5), "metric", **lens)
    places, _ = geometry.points(depth)
    assert places[0, 0, 1].tolist() == [0.0, 0.0, -2.0]
    assert places[0, 2, 3].tolist() == [2.0, -1.0, -2.0]


def test_normals_use_the_principal_point_and_both_focal_lengths():
    normal, focal, principal = unit(0.5, -0.3, 1), (90.0, 120.0), (20.0, 55.0)
    x = (torch.arange(80, dtype=torch.float64) - principal[0]) / focal[0]
    y = (torch.arange(60, dtype=torch.float64)[:, None] - principal[1]) / focal[1]
    inverse = ((normal[2] - normal[0] * x + normal[1] * y) / 2).float()[None]
    depth = Depth(inverse, "metric", focal=torch.tensor([focal]), principal=torch.tensor([principal]))
    assert float(angles(geometry.geometric_normals(depth).vectors, normal).max()) < 0.1
    middle = Depth(inverse, "metric", focal=90.0)
    assert mean_angle(geometry.geometric_normals(middle).vectors, normal) > 2


def test_normals_of_depth_up_to_one_factor_need_no_metres():
    depth = plane(TILTS[1], 3.0, 20, 30, 60.0)
    scaled = Depth(depth.values * 7, "scale_inverse", focal=60.0)
    found = geometry.geometric_normals(scaled).vectors
    assert torch.allclose(found, geometry.geometric_normals(depth).vectors, atol=1e-5)
    with pytest.raises(SignalError, match="factor"):
        geometry.points(scaled)


@pytest.mark.field
def test_the_floor_that_a_real_kinect_saw_is_level(field_data):
    metres = torch.from_numpy(np.array(Image.open(field_data / "kinect_redwood.png")).astype(np.float32)) / 1000
    depth = depth_from_metres(metres[None], focal=525.0)
    places, valid = geometry.points(depth)
    floor = torch.zeros_like(valid)
    floor[:, 400:455, 130:330] = True
    floor &= valid
    on_it = places[floor].double()
    truth = torch.linalg.svd(on_it - on_it.mean(0), full_matrices=False).Vh[2]
    truth = truth * truth[1].sign()
    found = geometry.geometric_normals(depth).vectors[floor]
    assert mean_angle(found, truth) < 0.5
    assert float(angles(found, truth).mean()) < 2.0


@pytest.mark.field
def test_normals_agree_with_those_of_a_renderer(field_data):
    depth = torch.from_numpy(np.load(field_data / "normals_truth_depth.npy"))
    truth = torch.from_numpy(np.array(Image.open(field_data / "normals_truth.png")).astype(np.float32)) / 127.5 - 1
    there = (depth < 1e4) & ((truth.norm(dim=-1) - 1).abs() < 0.1)
    truth = truth / truth.norm(dim=-1, keepdim=True) * torch.tensor((-1.0, 1.0, 1.0))  # its x points to the left
    found = geometry.geometric_normals(depth_from_metres(depth[None], valid=there[None], focal=320.0))
    assert float(angles(found.vectors[0][there], truth[there]).median()) < 3.0


# ------------------------------------------------------------------------------ nodes


def test_the_nodes_write_one_numbered_file_per_picture(tmp_path, monkeypatch):
    from fathom.nodes.geometry import FathomMesh, FathomPointCloud

    trimesh = pytest.importorskip("trimesh")
    monkeypatch.chdir(tmp_path)
    depth = depth_from_metres(torch.full((2, 6, 8), 2.0), focal=8.0)
    image = torch.rand(1, 12, 16, 3)
    _, _, names = FathomMesh().execute(depth, "glb", "3d/mesh", image)
    assert names == ["3d/mesh_00001_.glb", "3d/mesh_00002_.glb"]
    assert len(trimesh.load(tmp_path / names[1], force="mesh").faces) == 2 * 5 * 7
    _, again = FathomPointCloud().execute(depth[0], "ply", "3d/mesh", image)
    assert again == ["3d/mesh_00001_.ply"]
    assert len(trimesh.load(tmp_path / again[0]).vertices) == 48
    with pytest.raises(SettingError, match="outside"):
        FathomMesh().execute(depth, "glb", "../mesh", image)
    assert not (tmp_path.parent / "mesh_00001_.glb").exists()


def test_the_normals_node_serves_both_methods():
    from fathom.nodes.geometry import FathomDepthToNormals
    from fathom.tools.sobel import sobel_normals

    depth = plane(TILTS[1], 3.0, 20, 30, 60.0)
    image, normals = FathomDepthToNormals().execute(depth, "geometry", "opengl")
    assert torch.equal(image, geometry.geometric_normals(depth).to_image("opengl"))
    assert float((normals.vectors - torch.tensor(TILTS[1])).abs().max()) < 1e-2
    image, _ = FathomDepthToNormals().execute(depth, "midas", "controlnet", a=3.0, bg_threshold=0.0)
    assert torch.equal(image, sobel_normals(depth, 3.0, 0.0).to_image())
    ordinal = Depth(depth.values, "ordinal")
    FathomDepthToNormals().execute(ordinal, "midas", "controlnet")
    with pytest.raises(SignalError, match="order only"):
        FathomDepthToNormals().execute(ordinal, "geometry", "opengl", field_of_view=60.0)


def test_the_parallax_node_gives_frames_and_masks():
    from fathom.nodes.geometry import FathomParallax

    depth = depth_from_metres(torch.rand(1, 6, 8) + 1)
    frames, uncovered = FathomParallax().execute(torch.rand(1, 12, 16, 4), depth, "circle", 3, 0.05, 0.5)
    assert frames.shape == (3, 12, 16, 3) and uncovered.shape == (3, 12, 16)


@pytest.mark.parametrize("name", ["FathomPointCloud", "FathomMesh"])
def test_a_full_disk_leaves_no_piece_of_a_3d_file(name, tmp_path, monkeypatch):
    import errno
    import os

    import fathom
    from fathom.signals.depth import depth_from_metres

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    depth = depth_from_metres(torch.full((1, 8, 8), 2.0), focal=8.0)
    with pytest.raises(fathom.FathomError, match="No space left"):
        fathom.NODE_CLASS_MAPPINGS[name]().execute(depth, "ply", "3d/out")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
