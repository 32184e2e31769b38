"""Geometry against planes and spheres whose normals and places are known in closed form."""

from __future__ import annotations

import io
import math

import pytest
import torch

from fathom import Depth, SettingError, SignalError
from fathom.signals.depth import depth_from_metres
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
    places, _ = geometry.points(Depth(values, "affine_inverse"), 60.0, near=1.0, far=4.0)
    assert float(-places[..., 2].amax()) == pytest.approx(1.0, rel=1e-5)
    assert float(-places[..., 2].amin()) == pytest.approx(4.0, rel=1e-5)


def test_without_a_focal_length_the_field_of_view_is_asked_for():
    depth = depth_from_metres(torch.ones(1, 4, 4))
    with pytest.raises(SignalError, match="field of view"):
        geometry.points(depth)
    with pytest.raises(SettingError, match="180"):
        geometry.points(depth, 180.0)


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
