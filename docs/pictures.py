"""Draw the pictures of README and of the nodes' help pages.

    python docs/pictures.py

The scenes come from training/scenes.py, so their true depth is known: what a tool does is shown by itself, without the
errors of an estimator.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import fathom
from fathom import Depth
from fathom.signals.depth import depth_from_metres
from fathom.tools.atmosphere import band_style, blend_by_depth, dream_halo, fog
from fathom.tools.contact_sheet import contact_sheet
from fathom.tools.depth_field import depth_field
from fathom.tools.geometry import geometric_normals
from fathom.tools.lens_blur import lens_blur
from fathom.tools.parallax import parallax
from fathom.tools.regions import depth_by_region, refine_edges
from fathom.tools.sobel import sobel_normals
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


def main() -> None:
    PAGES.mkdir(parents=True, exist_ok=True)
    with Image.open(ROOT / "assets" / "sample.png") as file:
        sample = file.convert("RGB")
    tiny = fathom.load("fathom-tiny")(sample)
    picture = torch.from_numpy(np.array(sample, dtype=np.float32) / 255)[None]
    both = ("assets/sample.png", picture), ("sample_depth.png", tiny.to_image())
    save("first-run", *both, folder=ROOT / "docs" / "images")

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


if __name__ == "__main__":
    main()
