"""Draw the pictures of README and of the nodes' help pages.

    python scripts/pictures.py

The scenes come from training/scenes.py, so their true depth is known: what a tool does is shown by itself, without the
errors of an estimator.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

import fathom
from fathom import Depth
from fathom.annotator.decode import decode
from fathom.nodes.bundle import make_bundle
from fathom.signals.depth import depth_from_metres
from fathom.signals.exif import focal_length
from fathom.tools.atmosphere import band_style, blend_by_depth, dream_halo, fog
from fathom.tools.completion import keep_measured
from fathom.tools.contact_sheet import contact_sheet
from fathom.tools.convert import depth_to_image
from fathom.tools.depth_field import depth_field
from fathom.tools.geometry import Points, Surface, geometric_normals, point_clouds, surfaces
from fathom.tools.lens_blur import lens_blur
from fathom.tools.parallax import parallax
from fathom.tools.phones import load_phone_depth
from fathom.tools.regions import depth_by_region, order_regions, refine_edges
from fathom.tools.rgbd import load_rgbd
from fathom.tools.sobel import sobel_normals
from fathom.tools.stereo import stereo_depth
from fathom.training.scenes import render

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "web" / "docs" / "images"


def save(name: str, *pictures: tuple[str, Tensor], folder: Path = PAGES) -> None:
    """Pictures (1,H,W,3) side by side, each under its name, as JPEG."""
    row = torch.cat([contact_sheet([picture])[0] for picture in pictures], 1)
    Image.fromarray((row * 255).round().byte().numpy()).save(folder / f"{name}.jpg", quality=88)


def grey(mask: Tensor) -> Tensor:
    """A MASK (1,H,W) as a picture."""
    return mask[..., None].expand(*mask.shape, 3)


def scene(seed: int, kind: str) -> tuple[Tensor, Depth, Tensor]:
    """A picture, its true depth and its regions."""
    drawn = render([seed], 256, 384, kind=kind)
    image = drawn.image.permute(0, 2, 3, 1)
    return image, depth_from_metres(drawn.depth, focal=drawn.focal, source="scene"), drawn.regions


def turned(surface: Surface, size: tuple[int, int] = (384, 256), yaw: float = 0.5, pitch: float = 0.25) -> Tensor:
    """A surface seen from the side: flat shading, the far triangles drawn first. A picture (1,H,W,3)."""
    points = surface.vertices - surface.vertices.median(0).values
    turn = torch.tensor([[math.cos(yaw), 0.0, math.sin(yaw)], [0.0, 1.0, 0.0], [-math.sin(yaw), 0.0, math.cos(yaw)]])
    tilt = torch.tensor(
        [[1.0, 0.0, 0.0], [0.0, math.cos(pitch), -math.sin(pitch)], [0.0, math.sin(pitch), math.cos(pitch)]]
    )
    points = points @ turn.T @ tilt.T
    corners = points[surface.faces]
    order = corners[..., 2].mean(1).argsort()
    across = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    light = torch.nn.functional.normalize(across, dim=-1) @ torch.tensor([0.3, 0.5, 0.8])
    shades = (0.25 + 0.7 * light.clamp(0, 1)) * 255
    drawn, canvas = _canvas(points, size)
    for index in order.tolist():
        shade = round(float(shades[index]))
        canvas.polygon([tuple(p) for p in drawn[surface.faces[index]].tolist()], (shade, shade, shade))
    return _finished(canvas)


def scattered(cloud: Points, size: tuple[int, int] = (384, 256), yaw: float = 0.35, pitch: float = 0.2) -> Tensor:
    """Points seen from the side, the far ones drawn first. A picture (1,H,W,3)."""
    points = cloud.positions - cloud.positions.median(0).values
    x = points[:, 0] * math.cos(yaw) + points[:, 2] * math.sin(yaw)
    z = points[:, 2] * math.cos(yaw) - points[:, 0] * math.sin(yaw)
    y = points[:, 1] * math.cos(pitch) - z * math.sin(pitch)
    depth = points[:, 1] * math.sin(pitch) + z * math.cos(pitch)
    drawn, canvas = _canvas(torch.stack((x, y, depth), -1), size)
    colours = torch.full_like(points, 0.7) if cloud.colours is None else cloud.colours[:, :3]
    for index in depth.argsort().tolist():
        colour = tuple(round(float(c) * 255) for c in colours[index])
        left, top = drawn[index].tolist()
        canvas.rectangle((left - 1, top - 1, left, top), colour)
    return _finished(canvas)


def _canvas(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, ImageDraw.ImageDraw]:
    """Places on a new canvas of `size` that fit nearly all of the points, y down."""
    low, high = (torch.quantile(points[:: max(1, len(points) // 9999), :2], q, 0) for q in (0.02, 0.98))
    scale = float((torch.tensor(size) * 0.9 / (high - low)).min())
    middle = torch.tensor(size) / 2
    flip = torch.tensor([1.0, -1.0])
    drawn = (points[:, :2] - (low + high) / 2) * scale * flip + middle
    return drawn, ImageDraw.Draw(Image.new("RGB", size, (24, 26, 30)))


def _finished(canvas: ImageDraw.ImageDraw) -> Tensor:
    return torch.from_numpy(np.array(canvas._image, dtype=np.float32) / 255)[None]


def sources() -> None:
    """The pictures of the nodes that read measured depth, from files as devices write them."""
    spec = importlib.util.spec_from_file_location("heic", ROOT / "tests" / "test_phones.py")
    assert spec is not None and spec.loader is not None
    heic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(heic)
    image, depth, _ = scene(15, "interior")
    shown = ("Picture", image)
    pixels = (image[0] * 255).round().byte().numpy()
    with tempfile.TemporaryDirectory() as folder:
        low, high = float(depth.values.min()), float(depth.values.max())
        small = torch.nn.functional.interpolate(depth.values[:, None], (128, 192), mode="area")[0, 0]
        ramp = ((small - low) / (high - low) * 255).round().clamp(0, 255).byte().numpy()
        photo = heic.phone(
            Path(folder) / "portrait.heic", heic.apple_xmp(low, high, "absolute"), ramp=ramp, photo=pixels
        )
        found = load_phone_depth(photo)
        told = found.depth.to_image().repeat_interleave(2, 1).repeat_interleave(2, 2)
        save("FathomLoadPhoneDepth", ("photo", found.image), ("its depth, half as wide", told))

        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned
        exif.get_ifd(0x8769)[0xA405] = 28  # millimetres, as if on 35 mm film
        lying = Path(folder) / "photo.jpg"
        Image.fromarray(np.rot90(pixels).copy()).save(lying, quality=92, exif=exif)
        made = decode(lying.read_bytes(), lying.name)
        upright = torch.from_numpy(np.array(made, dtype=np.float32) / 255)[None]
        view = math.degrees(2 * math.atan(made.width / 2 / (focal_length(made) or math.inf)))
        with Image.open(lying) as file:
            stored = torch.from_numpy(np.array(file, dtype=np.float32) / 255)[None]
        stored = torch.nn.functional.interpolate(stored.permute(0, 3, 1, 2), (256, 170), mode="area").permute(
            0, 2, 3, 1
        )
        save("FathomLoadPhoto", ("as stored", stored), (f"field_of_view {view:.1f}", upright))

        millimetres = (depth.metres()[0] * 1000).round().clamp(0, 65535)
        noise = torch.nn.functional.avg_pool2d(
            torch.rand(1, 1, 280, 408, generator=torch.Generator().manual_seed(3)), 25, 1
        )
        millimetres[noise[0, 0] > 0.525] = 0
        path = Path(folder) / "depth.png"
        Image.fromarray(millimetres.numpy().astype(np.uint16)).save(path)
        raw, _ = load_rgbd(path)
        whole, filled = load_rgbd(path, fill=32)
        save(
            "FathomRGBDDepth",
            ("fill 0: holes black", raw.to_image()),
            ("fill 32", whole.to_image()),
            ("filled", grey(filled)),
        )

        metres = depth.metres()
        coarse = torch.nn.functional.interpolate(metres[:, None], (32, 48), mode="nearest-exact")[:, 0]
        hidden = torch.nn.functional.interpolate(noise[..., :256, :384], (32, 48))[0] > 0.525
        measured = depth_from_metres(coarse, valid=~hidden)
        # An estimate with every edge and with distances that are off by up to a half, as if by a network.
        off = depth_from_metres(metres * torch.linspace(0.8, 1.5, metres.shape[2]))
        blocks = measured.to_image().repeat_interleave(8, 1).repeat_interleave(8, 2)
        save(
            "FathomCompleteDepth",
            ("photo", image),
            ("measured: 48x32, holes black", blocks),
            ("estimate, corrected by it", keep_measured(off, measured).to_image()),
        )

        bundle = make_bundle(image, {"depth": "fathom-tiny"}, 0, root=Path(folder))
        assert bundle.depth is not None
        save(
            "FathomBundle",
            shown,
            ("kept depth", bundle.depth.to_image()),
            ("fog", fog(image, bundle.depth, 1.5)[0]),
            ("lens blur", lens_blur(image, bundle.depth, 8.0, focus=0.9)[0]),
        )
    image, depth, _ = scene(17, "interior")
    views, _ = parallax(image, depth, frames=8, strength=0.06, focus=0.0)
    left, right = views[6:7], views[2:3]
    measured = stereo_depth(left, right)
    save(
        "FathomStereoDepth",
        ("left", left),
        ("right", right),
        ("depth, holes black", measured.to_image()),
    )


def solids() -> None:
    """The pictures of the nodes that write 3D files."""
    image, depth, _ = scene(17, "interior")
    shown = ("Picture", image)
    cloud = next(iter(point_clouds(depth, image)))
    save("FathomPointCloud", shown, ("the points from the side", scattered(cloud)))
    surface = next(iter(surfaces(depth, step=2, edge=0.08)))
    save("FathomMesh", shown, ("the mesh from the side", turned(surface, yaw=0.35, pitch=0.2)))


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    with Image.open(ROOT / "assets" / "sample.png") as file:
        sample = file.convert("RGB")
    tiny = fathom.load("fathom-tiny")(sample)
    picture = torch.from_numpy(np.array(sample, dtype=np.float32) / 255)[None]
    both = ("assets/sample.png", picture), ("sample_depth.png", tiny.to_image())
    save("first-run", *both, folder=ROOT / "docs" / "images")
    small = [p[:, ::2, ::2] for p in (picture, tiny.to_image())]
    save("FathomEstimateDepth", ("picture", small[0]), ("fathom-tiny", small[1]))

    image, depth, regions = scene(4, "vista")
    here = ("Picture", image)
    save("FathomFog", here, ("density 0.05 per metre", fog(image, depth, 0.05)[0]))
    band = depth_field(depth, "band", 0.1, 0.4)
    save("FathomDepthField", here, ("ramp", grey(depth_field(depth))), ("band", grey(band)))
    save("FathomDepthToNormals", here, ("geometric", geometric_normals(depth).to_image("opengl")))
    save("FathomMiDaSNormal", here, ("a = 2 pi", sobel_normals(Depth(depth.values * 40, "affine_inverse")).to_image()))

    save("FathomLensBlur", here, ("focus on the nearest", lens_blur(image, depth, 12.0, "point", point=(0.1, 0.6))[0]))
    save("FathomDreamHalo", here, ("halo", dream_halo(image, depth, 1.5, 5.0, 0.2)))
    drawing = image.mean(-1, keepdim=True).expand_as(image)
    save("FathomBlendByDepth", here, ("near in colour, far in grey", blend_by_depth(image, drawing, depth)))
    save("FathomBandStyle", here, ("three bands", band_style(image, depth, spacing="area")[0]))
    frames, holes = parallax(image, depth, frames=8, strength=0.08, fill=False)
    save("FathomParallax", ("left", frames[2:3]), ("right", frames[6:7]), ("uncovered", grey(holes[6:7])))

    soft = torch.nn.functional.avg_pool2d(depth.values[:, None], 9, 1, 4, count_include_pad=False)[:, 0]
    raw = Depth(soft, "affine_inverse")
    crisp = depth_by_region(raw, torch.nn.functional.one_hot(regions)[0].permute(2, 0, 1).float(), erode=5)[0]
    save("FathomDepthByRegion", here, ("blurred depth", raw.to_image()), ("by region", crisp.to_image()))
    save("FathomRefineEdges", here, ("blurred depth", raw.to_image()), ("refined", refine_edges(raw, image).to_image()))
    space = depth_to_image(depth, mode="percentile", low=5, high=95)
    drawn = (("min-max", depth_to_image(depth)), ("percentile 5 to 95", space))
    save("FathomDepthToImage", *drawn, ("gamma 0.5", depth_to_image(depth, gamma=0.5)))
    masks = torch.nn.functional.one_hot(regions)[0].permute(2, 0, 1).float()
    masks = masks[masks.mean((1, 2)) > 0.01]
    ranked = [order_regions(depth, masks, k)[1] for k in (1, 2, -1)]
    labels = ("k = 1", "k = 2", "k = -1")
    save("FathomOrderRegions", here, *((name, grey(mask)) for name, mask in zip(labels, ranked, strict=True)))
    sources()
    solids()


if __name__ == "__main__":
    main()
