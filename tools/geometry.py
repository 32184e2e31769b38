"""Depth as geometry: normals, points and surfaces in camera space.

The camera is a pinhole without distortion, with the focal length and the principal point that the depth carries; its
axis goes through the middle of the picture where nothing else is known. Camera space is that of Normals and of glTF:
x right, y up, z towards the viewer, so what the camera sees has negative z. Unit: metres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError, SignalError
from ..signals import Depth, Normals
from ..signals.depth import focal_of_view
from ..signals.field import check_shape
from ..signals.normals import unit_vectors
from .pixels import check_range, check_whole, each_picture, nth_depth
from .plane_fit import fit_planes


@dataclass(frozen=True, eq=False)
class Points:
    """What one picture shows, as points. positions: float32 (N,3). colours: float32 (N,3), sRGB 0..1, or None."""

    positions: Tensor
    colours: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Surface:
    """What one picture shows, as triangles.

    vertices: float32 (N,3). faces: int64 (M,3), counterclockwise seen from the camera. uv: float32 (N,2), the place
    of each vertex in the picture, 0..1, v down as glTF has it. colours: float32 (N,3), sRGB 0..1, or None. texture:
    the picture, float32 (H,W,3), or None.
    """

    vertices: Tensor
    faces: Tensor
    uv: Tensor
    colours: Tensor | None = None
    texture: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera for each picture of a batch, in pixels of the map; pixel centres lie at whole numbers.

    focal: float32 (B,2), across and down. principal: float32 (B,2), x and y of the optical axis.
    """

    focal: Tensor
    principal: Tensor

    def rays(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """x to the right (B,1,W) and y down (B,H,1) of each pixel's ray at distance 1 along the axis."""
        columns = torch.arange(width, device=self.focal.device, dtype=torch.float32)
        rows = torch.arange(height, device=self.focal.device, dtype=torch.float32)
        right = (columns - self.principal[:, :1]) / self.focal[:, :1]
        down = (rows - self.principal[:, 1:]) / self.focal[:, 1:]
        return right[:, None, :], down[:, :, None]


def camera(depth: Depth, field_of_view: float | None = None) -> Camera:
    """The camera of each picture, on the depth's device.

    field_of_view: horizontal, degrees, 0 < angle < 180, for square pixels; None = the depth's own focal length.
    Raises SettingError for another angle, SignalError when the depth has no focal length.
    """
    if field_of_view is not None:
        depth = replace(depth, focal=focal_of_view(field_of_view, depth.values.shape[-1]))
    lens = depth.camera()
    if lens is None:
        raise SignalError(
            f"{depth.source or 'this depth'} tells no focal length. Give the horizontal field of view in degrees "
            "(a phone's main camera has about 65, a 50 mm lens on full frame 40)."
        )
    return Camera(lens[:, :2], lens[:, 2:])


def geometric_normals(
    depth: Depth,
    field_of_view: float | None = None,
    *,
    radius: int | None = None,
) -> Normals:
    """The normals of the surface that `depth` describes.

    On a plane inverse distance is linear in the pixel's place, so its gradient gives the plane, exactly: with
    rays (x, y, 1) and 1/z = a*x + b*y + c the plane's normal is (a, b, c). The slopes between a pixel and its two
    neighbours of a row (column) are mixed so that one across a jump in depth counts for almost nothing (a limiter
    after van Albada's, of fourth power); a neighbour that is not valid counts for nothing. Infinitely far pixels
    are not valid.

    Depth that moves in steps (8 bits, depth cameras) has no slopes between neighbours: there planes are fitted over
    windows, see tools.plane_fit.

    field_of_view: see `camera`. radius: of the windows in pixels, 0..64; None = as the
    steps ask for, 0 = neighbours only. Raises SignalError for a depth that is neither metric nor
    right up to a factor (see signals.depth.to_metric), or without a focal length; SettingError for another radius.
    """
    lens = camera(depth, field_of_view)
    vectors = depth.values.new_empty(*depth.values.shape, 3)
    valid = torch.empty_like(depth.values, dtype=torch.bool)
    for at in each_picture(len(depth), "Depth to normals"):
        here = Camera(lens.focal[at : at + 1], lens.principal[at : at + 1])
        vectors[at], valid[at] = _facing(nth_depth(depth, at), here, radius)
    return Normals(vectors, None if bool(valid.all()) else valid, f"{depth.source} (geometry)")


def _facing(depth: Depth, lens: Camera, radius: int | None) -> tuple[Tensor, Tensor]:
    """The vectors (H,W,3) of one picture, and where there are some."""
    # Where a surface faces does not depend on the one factor that such a depth lacks.
    inverse = depth.values if depth.kind == "scale_inverse" else depth.inverse()
    valid = _seen(depth, inverse)
    inverse = inverse.masked_fill(~valid, 0.0)
    focal_across, focal_down = lens.focal[:, :1, None], lens.focal[:, 1:, None]
    across = _slope(inverse, valid, focal_across, 2).div_(focal_across)
    along = _slope(inverse, valid, focal_down, 1).div_(focal_down)
    focal = float(lens.focal[0, 0]), float(lens.focal[0, 1])
    across[0], along[0], inverse[0] = fit_planes(inverse[0], valid[0], across[0], along[0], focal, radius)
    across.mul_(focal_across)
    along.mul_(focal_down)
    right, down = lens.rays(*inverse.shape[1:])
    vectors = inverse.new_empty(*inverse.shape, 3)
    vectors[..., 0] = -across
    toward = inverse - across.mul_(right)
    vectors[..., 1] = along
    vectors[..., 2] = toward.sub_(along.mul_(down))
    del across, along, toward
    return unit_vectors(vectors)[0], valid[0]


def _slope(inverse: Tensor, valid: Tensor, focal: Tensor, dim: int) -> Tensor:
    """d(inverse)/d(ray) along axis `dim`; (B,H,W)."""
    steps = inverse.diff(dim=dim) * focal
    known = valid.narrow(dim, 1, steps.shape[dim]) & valid.narrow(dim, 0, steps.shape[dim])
    before, after = ([0, 0, 1, 0], [0, 0, 0, 1]) if dim == 1 else ([1, 0], [0, 1])
    back, ahead = F.pad(steps, before), F.pad(steps, after)
    has_back, has_ahead = F.pad(known, before), F.pad(known, after)
    del steps, known
    # The other side's slope weighs; it takes over where it exceeds the distance threefold per unit of ray.
    unit = inverse.clamp_min(1e-12)
    weight_back = (ahead / unit).clamp_(-1e4, 1e4).pow_(4).add_(81.0).mul_(has_back)
    weight_ahead = (back / unit).clamp_(-1e4, 1e4).pow_(4).add_(81.0).mul_(has_ahead)
    del unit
    total = weight_back + weight_ahead
    mixed = back.mul_(weight_back).add_(ahead.mul_(weight_ahead))
    return mixed.div_(total.masked_fill_(total == 0, 1.0))


def points(depth: Depth, field_of_view: float | None = None) -> tuple[Tensor, Tensor]:
    """Every pixel in camera space: float32 (B,H,W,3) in metres and bool (B,H,W), where there is something.

    Not valid and infinitely far pixels are (0,0,0) and False. Arguments and errors as in `geometric_normals`.
    """
    lens = camera(depth, field_of_view)
    inverse = depth.inverse()
    valid = _seen(depth, inverse)
    distance = inverse.reciprocal().masked_fill_(~valid, 0.0)
    right, down = lens.rays(*inverse.shape[1:])
    places = distance.new_empty(*distance.shape, 3)
    places[..., 0] = distance * right
    places[..., 1] = -(distance * down)
    places[..., 2] = -distance
    return places, valid


def point_clouds(
    depth: Depth,
    image: Tensor | None = None,
    field_of_view: float | None = None,
    *,
    step: int = 1,
    edge: float = 0.04,
) -> Iterator[Points]:
    """One cloud per picture.

    image: float (B or 1,h,w,3) in 0..1 for the colours, of any size; None = none. step: take every step-th pixel of
    every step-th row. edge: a pixel that jumps by more than this share of the distance from both its neighbours of a
    row, or of a column, floats between two surfaces and is left out; 0 = keep all. Other arguments and errors as in
    `geometric_normals`; SettingError for a bad step or edge; SignalError when a picture has no point at all.
    """
    _check_grid(step, edge)
    colours = _colours(image, depth)
    for index in range(len(depth)):
        places, valid = points(nth_depth(depth, index), field_of_view)
        if edge:
            valid &= ~_floating(places[..., 2], valid, edge)
        keep = valid[0, ::step, ::step]
        if not bool(keep.any()):
            raise SignalError(_nothing(depth, index))
        shades = None if colours is None else colours[index, ::step, ::step][keep]
        yield Points(places[0, ::step, ::step][keep], shades)


def surfaces(
    depth: Depth,
    image: Tensor | None = None,
    field_of_view: float | None = None,
    *,
    step: int = 1,
    edge: float = 0.04,
) -> Iterator[Surface]:
    """One surface per picture: two triangles between each four neighbouring pixels, cut where depth jumps.

    edge: a triangle is left out when the distance changes along one of its sides by more than this share of the
    farther end, per pixel of `step`; 0 = cut nothing. Other arguments and errors as in `point_clouds`.
    """
    _check_grid(step, edge)
    colours = _colours(image, depth)
    height, width = depth.values.shape[1:]
    rows = torch.arange(0, height, step, device=depth.values.device)
    columns = torch.arange(0, width, step, device=depth.values.device)
    v, u = torch.meshgrid((rows + 0.5) / height, (columns + 0.5) / width, indexing="ij")
    uv = torch.stack((u, v), -1)
    for index in range(len(depth)):
        places, valid = points(nth_depth(depth, index), field_of_view)
        grid, here = places[0, ::step, ::step], valid[0, ::step, ::step]
        faces = _triangles(grid[..., 2], here, edge * step)
        if not len(faces):
            raise SignalError(_nothing(depth, index))
        used = torch.zeros(here.numel(), dtype=torch.bool, device=here.device)
        used[faces.reshape(-1)] = True
        renumber = used.cumsum(0) - 1
        shades = texture = None
        if image is not None and colours is not None:
            shades = colours[index, ::step, ::step].reshape(-1, 3)[used]
            texture = image[min(index, len(image) - 1), ..., :3]
        yield Surface(grid.reshape(-1, 3)[used], renumber[faces], uv.reshape(-1, 2)[used], shades, texture)


def _triangles(z: Tensor, valid: Tensor, edge: float) -> Tensor:
    """Indices (M,3) into the flattened grid."""
    height, width = z.shape
    first = torch.arange(height * width, device=z.device).view(height, width)[:-1, :-1]
    corners = (first, first + width, first + width + 1, first + 1)  # counterclockwise as the viewer sees them
    found = []
    # The diagonal runs between the two corners whose distances are closer, so that it follows an edge of the scene.
    flat = z.reshape(-1)
    falling = (flat[corners[0]] - flat[corners[2]]).abs() <= (flat[corners[1]] - flat[corners[3]]).abs()
    for chosen, triples in ((falling, ((0, 1, 2), (0, 2, 3))), (~falling, ((0, 1, 3), (1, 2, 3)))):
        for triple in triples:
            triangle = torch.stack([corners[c][chosen] for c in triple], -1)
            whole = valid.reshape(-1)[triangle].all(-1)
            if edge:
                far, near = flat[triangle].amin(-1).abs(), flat[triangle].amax(-1).abs()
                whole &= far - near <= edge * far
            found.append(triangle[whole])
    return torch.cat(found)


def _floating(z: Tensor, valid: Tensor, edge: float) -> Tensor:
    lonely = torch.zeros_like(valid)
    for dim in (1, 2):
        length = z.shape[dim] - 1
        a, b = z.narrow(dim, 1, length).abs(), z.narrow(dim, 0, length).abs()
        jump = (a - b).abs() > edge * torch.maximum(a, b)
        jump |= ~(valid.narrow(dim, 1, length) & valid.narrow(dim, 0, length))
        if length > 1:
            inner = jump.narrow(dim, 1, length - 1) & jump.narrow(dim, 0, length - 1)
            lonely.narrow(dim, 1, length - 1).logical_or_(inner)
    return lonely


def _seen(depth: Depth, inverse: Tensor) -> Tensor:
    there = inverse > 0
    return there if depth.valid is None else there & depth.valid


def _colours(image: Tensor | None, depth: Depth) -> Tensor | None:
    """The picture at the depth's size, one per depth: (B,H,W,3)."""
    if image is None:
        return None
    check_shape("the picture", image, 4, 4 if image.shape[-1] == 4 else 3)
    if len(image) not in (1, len(depth)):
        raise SignalError(f"there are {len(image)} pictures for {len(depth)} depths: give one, or as many.")
    colours = image[..., :3].to(depth.values.device, torch.float32)
    height, width = depth.values.shape[1:]
    if colours.shape[1:3] != (height, width):
        channels_first = colours.permute(0, 3, 1, 2)
        channels_first = F.interpolate(channels_first, (height, width), mode="bilinear", antialias=True)
        colours = channels_first.permute(0, 2, 3, 1)
    return colours.clamp(0, 1).expand(len(depth), -1, -1, -1)


def _check_grid(step: int, edge: float) -> None:
    check_whole("step", step, 1)
    check_range("edge", edge, 0, 1e9)


def _nothing(depth: Depth, index: int) -> str:
    return (
        f"picture {index} of {depth.source or 'this depth'} leaves nothing to build: every pixel is not valid, "
        "infinitely far or cut off. Raise edge (0 cuts nothing) or lower step."
    )


# ---------------------------------------------------------------------------------------------- files


def encode_points(cloud: Points, format: str = "ply") -> bytes:
    """A cloud as the bytes of a binary "ply" or a "glb" file. Raises SettingError for another format."""
    trimesh = _trimesh()
    linear = format == "glb"
    shades = None if cloud.colours is None else _bytes(_linear(cloud.colours) if linear else cloud.colours)
    body = trimesh.PointCloud(cloud.positions.cpu().numpy(), colors=shades)
    return _export(trimesh.Scene(body) if linear else body, format)


def encode_surface(surface: Surface, format: str = "glb") -> bytes:
    """A surface as the bytes of a "glb" file, the picture as its texture, or of a binary "ply" with coloured vertices.

    Raises SettingError for another format.
    """
    trimesh = _trimesh()
    body = trimesh.Trimesh(surface.vertices.cpu().numpy(), surface.faces.cpu().numpy(), process=False)
    if format == "glb" and surface.texture is not None:
        from PIL import Image

        # trimesh counts v upwards and turns it when it writes glTF.
        uv = surface.uv.cpu().numpy() * (1, -1) + (0, 1)
        material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(_bytes(surface.texture)), metallicFactor=0.0, roughnessFactor=1.0
        )
        body.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    elif surface.colours is not None:
        body.visual = trimesh.visual.ColorVisuals(body, vertex_colors=_bytes(surface.colours))
    return _export(body, format)


def _export(body: Any, format: str) -> bytes:
    if format not in ("glb", "ply"):
        raise SettingError(f"the format must be glb or ply, got {format!r}.")
    return body.export(file_type=format)


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise SettingError("3D files need the package trimesh: pip install trimesh") from error
    return trimesh


def _bytes(colours: Tensor) -> Any:
    return colours.clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()


def _linear(colours: Tensor) -> Tensor:
    # glTF holds the colours of points in linear light, those of textures in sRGB.
    return torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
