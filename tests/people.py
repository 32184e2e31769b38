"""Three people before a background, drawn, with all that networks would say of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import yunet_file as painted

from fathom import Normals
from fathom.signals.depth import depth_from_metres
from fathom.signals.instances import Instances, Thing

# Column and row of the head's middle, its radius in pixels, metres, the colours of skin and clothes.
PEOPLE = (
    (112, 112, 34, 2.5, (0.72, 0.52, 0.42), (0.20, 0.35, 0.65)),
    (256, 136, 20, 4.5, (0.55, 0.38, 0.30), (0.65, 0.25, 0.22)),
    (384, 144, 13, 8.0, (0.74, 0.58, 0.48), (0.25, 0.55, 0.32)),
)


@dataclass
class People:
    """image: uint8 (H,W,3). depth, normals, objects: what is true of it, for one picture."""

    image: np.ndarray
    depth: object
    normals: Normals
    objects: Instances


def draw(background: torch.Tensor, metres: torch.Tensor, normals: torch.Tensor) -> People:
    """The people of PEOPLE, the furthest first, before a picture (H,W,3) with its metres (H,W) and normals (H,W,3).

    Each head carries a face that tests/yunet_file.py's network finds; no other pixel looks like one.
    """
    # Cells as bright as this would be faces to that network.
    image, metres, normals = background.clamp(max=0.8).clone(), metres.clone(), normals.clone()
    height, width = metres.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    masks = []
    for column, row, radius, distance, skin, clothes in reversed(PEOPLE):
        whole = torch.zeros(height, width, dtype=torch.bool)
        body = (column, row + 4.6 * radius, 2.1 * radius, 3.6 * radius, clothes)
        for across, down, wide, tall, colour in (body, (column, row, radius, 1.25 * radius, skin)):
            u, v = (x - across) / wide, (y - down) / tall
            inside = u * u + v * v < 1
            facing = torch.stack([u, -v, (1 - u * u - v * v).clamp_min(0.01).sqrt()], -1)
            facing = torch.nn.functional.normalize(facing, dim=-1)
            light = 0.55 + 0.45 * (facing @ torch.tensor([-0.4, 0.5, 0.77])).clamp_min(0)
            image[inside] = (torch.tensor(colour) * light[..., None])[inside]
            metres[inside], normals[inside] = distance, facing[inside]
            whole |= inside
        for side in (-1, 1):
            eye = torch.hypot(x - column - side * 0.38 * radius, y - row + 0.2 * radius) < 0.13 * radius
            image[eye] = 0.1
        mouth = ((x - column).abs() < 0.35 * radius) & ((y - row - 0.6 * radius).abs() < 0.08 * radius)
        image[mouth] = torch.tensor([0.55, 0.2, 0.2])
        masks.append(whole)
    masks.reverse()
    for nearer, mask in enumerate(masks):
        for other in masks[:nearer]:
            mask &= ~other
    levels = (image * 255).round().byte().numpy()
    for number, (column, row, radius, *_) in enumerate(PEOPLE):
        size = round(128 + 32 * float(np.log(2 * radius / 16)))
        painted.paint(levels, 16, (row // 16, column // 16), (250 - number, 250), (128, 128, size, size + 7))
    things = tuple(Thing("person", 0.98 - 0.02 * n, mask=mask) for n, mask in enumerate(masks))
    return People(
        levels,
        depth_from_metres(metres[None], focal=1.2 * width),
        Normals(normals[None]),
        Instances((things,), (height, width), ("person", "chair")),
    )
