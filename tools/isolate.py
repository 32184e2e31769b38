"""Things cut out of their picture, with edges that follow it, and what is left: as pictures, as layers, as files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..annotator.pictures import as_pixels
from ..errors import SettingError, SignalError
from ..signals import Depth
from ..signals.codec import write_whole
from ..signals.instances import Instances, Runs, Thing
from .depth_field import Space, depth_field
from .instances import on_picture, thing_depth
from .pixels import check_choice, check_range, each_picture, nth_depth
from .regions import core_of, guided, mask_at, same_pictures

Background = Literal["cut out", "whole"]

MOST_LAYERS = 50
"""As many as ComfyUI's compositor takes (comfy_extras/nodes_compositor.py)."""


@dataclass(frozen=True, eq=False)
class Cutout:
    """One thing, cut out. picture: which of the batch. name: as the thing's. rgba: float32 (h,w,4) in 0..1, straight
    alpha. left, top: where its corner lies in the picture. depth: its numbers, as `thing_depth` tells them, or {}."""

    picture: int
    name: str
    rgba: Tensor
    left: int
    top: int
    depth: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Isolated:
    """What `isolate` made. cutouts: those of the first picture first, in the order of the things. background: RGBA
    (B,H,W,4). mask: float32 (B,H,W), all that was cut out. size: (height, width)."""

    cutouts: tuple[Cutout, ...]
    background: Tensor
    mask: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return int(self.mask.shape[1]), int(self.mask.shape[2])

    def images(self) -> Tensor:
        """Each cutout in its place, RGBA (N,H,W,4); one that is empty where there is none."""
        images = torch.zeros(max(1, len(self.cutouts)), *self.size, 4)
        for canvas, cutout in zip(images, self.cutouts, strict=False):
            height, width = cutout.rgba.shape[:2]
            canvas[cutout.top : cutout.top + height, cutout.left : cutout.left + width] = cutout.rgba
        return images

    def layers(self, picture: int = 0) -> dict[str, Any]:
        """One picture as ComfyUI's LAYERS: the background below, the nearest thing on top.

        Things without a depth lie below those that have one, the first above the second. Raises SettingError for more
        layers than ComfyUI takes.
        """
        here = [cutout for cutout in self.cutouts if cutout.picture == picture]
        if len(here) >= MOST_LAYERS:
            raise SettingError(
                f"there are {len(here)} things and one background, ComfyUI's compositor takes {MOST_LAYERS} layers: "
                "choose fewer, by name, score or size."
            )
        height, width = self.size
        items = [_layer("background", self.background[picture], 0, 0, 0)]
        for index, cutout in enumerate(back_to_front(here), 1):
            items.append(_layer(cutout.name, cutout.rgba, cutout.left, cutout.top, index))
        return {"version": 1, "canvas": (width, height), "layers": items}

    def json(self) -> str:
        """The cutouts as JSON: picture, name, left, top, width, height, z_index, and their depth."""
        return json.dumps([row for picture in range(len(self.mask)) for row in self._rows(picture)])

    def _rows(self, picture: int) -> Iterator[dict[str, Any]]:
        here = [cutout for cutout in self.cutouts if cutout.picture == picture]
        places = {id(cutout): index for index, cutout in enumerate(back_to_front(here), 1)}
        for cutout in here:
            height, width = cutout.rgba.shape[:2]
            box = {"left": cutout.left, "top": cutout.top, "width": width, "height": height}
            yield {"picture": picture, "name": cutout.name, **box, "z_index": places[id(cutout)], **cutout.depth}

    def save(self, folder: str | Path) -> list[Path]:
        """Write every background and cutout as PNG, and layers.json, which says where they lie; gives the files back.

        A cutout is as large as what it holds. Raises FathomError when the folder cannot be written to.
        """
        folder = Path(folder)
        files: dict[Path, bytes] = {}
        layers = []
        for picture in range(len(self.mask)):
            start = f"{picture:04}_" if len(self.mask) > 1 else ""
            name = f"{start}00_background.png"
            files[folder / name] = _png(self.background[picture])
            layers.append({"picture": picture, "file": name, "name": "background", "left": 0, "top": 0, "z_index": 0})
            here = [cutout for cutout in self.cutouts if cutout.picture == picture]
            for number, (cutout, row) in enumerate(zip(here, self._rows(picture), strict=True), 1):
                name = f"{start}{number:02}_{_file_name(cutout.name)}.png"
                files[folder / name] = _png(cutout.rgba)
                layers.append({"picture": picture, "file": name, **row})
        about = {"canvas": [self.size[1], self.size[0]], "layers": layers}
        files[folder / "layers.json"] = json.dumps(about, indent=1).encode()
        write_whole(files)
        return list(files)


def back_to_front(cutouts: Sequence[Cutout]) -> list[Cutout]:
    """Cutouts of one picture from the furthest to the nearest; those without a depth first, the last of them below."""
    last_first = list(reversed(cutouts))
    return sorted(last_first, key=lambda c: -torch.inf if c.depth.get("value") is None else c.depth["value"])


def _layer(name: str, rgba: Tensor, left: int, top: int, index: int) -> dict[str, Any]:
    return {"type": "raster", "image": rgba[None], "x": left, "y": top, "z_index": index, "name": name}


def _png(rgba: Tensor) -> bytes:
    import io

    from PIL import Image

    levels = (rgba.cpu() * 255).round().clamp(0, 255).to(torch.uint8)
    target = io.BytesIO()
    Image.fromarray(levels.numpy(), "RGBA").save(target, "PNG")
    return target.getvalue()


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "_", name.split(",")[0]).strip("_")[:40] or "thing"


def isolate(
    image: Any,
    instances: Instances,
    depth: Depth | None = None,
    radius: int = 6,
    sensitivity: float = 0.03,
    joined: bool = False,
    background: Background = "cut out",
) -> Isolated:
    """Cut things out of their pictures.

    image: (B,H,W,C), as many pictures as the instances are of, which are brought to its size. depth: orders the layers
    and is told with each cutout. radius: how far an edge may move after the photo, in pixels; 0 = the mask as it is.
    sensitivity: the step in the photo's colour, 0..1, that counts as an edge. joined: all things of a picture in one
    cutout. background: "cut out": transparent where a cutout is solid, so that cutouts over it give the photo again;
    "whole": the photo.

    Raises SignalError for pictures of another number or size, SettingError for a value out of range.
    """
    check_range("radius", radius, 0, 64)
    check_range("sensitivity", sensitivity, 1e-4, 1)
    check_choice("background", background, get_args(Background))
    pixels = as_pixels(image)
    if len(pixels) != len(instances):
        raise SignalError(f"there are instances of {len(instances)} pictures, the image holds {len(pixels)}.")
    instances = on_picture(instances, pixels)
    if depth is not None:
        same_pictures(depth, instances)
    cutouts: list[Cutout] = []
    mask = torch.zeros(len(pixels), *instances.size)
    for i in each_picture(len(pixels), "Isolate"):
        photo = pixels[i].cpu()
        things = _joined(instances.things[i], instances.size) if joined else instances.things[i]
        for thing in things:
            runs = thing.shape(instances.size)
            if not runs.area:
                continue
            alpha, top, left = matte(photo, runs, int(radius), sensitivity)
            height, width = alpha.shape
            part = photo[:, top : top + height, left : left + width].permute(1, 2, 0)
            numbers = {} if depth is None else thing_depth(thing, instances.size, nth_depth(depth, i))
            cutouts.append(Cutout(i, thing.name, torch.cat([part, alpha[..., None]], -1), left, top, numbers))
            seen = mask[i, top : top + height, left : left + width]
            torch.maximum(seen, alpha, out=seen)
    alpha = (mask < 1).float() if background == "cut out" else torch.ones_like(mask)
    rest = torch.cat([pixels.cpu().permute(0, 2, 3, 1), alpha[..., None]], -1)
    return Isolated(tuple(cutouts), rest, mask)


def _joined(things: Sequence[Thing], size: tuple[int, int]) -> tuple[Thing, ...]:
    if len(things) < 2:
        return tuple(things)
    whole = torch.zeros(size, dtype=torch.bool)
    for thing in things:
        whole |= thing.shape(size).whole().cpu()
    return (Thing(" and ".join(dict.fromkeys(thing.name for thing in things)), None, mask=whole),)


def matte(photo: Tensor, runs: Runs, radius: int, sensitivity: float) -> tuple[Tensor, int, int]:
    """The opacity of a thing, float32 (h,w) in 0..1, and the top and left of that part of the photo (3,H,W).

    Within `radius` of the mask's edge the guided filter follows the photo; elsewhere the mask is kept. What lies
    farther out than that is not part of the result.
    """
    top, left, rows, columns = runs.extent
    halo = 4 * radius  # what the filter looks at around the band in which its result counts
    y = slice(max(0, top - halo), min(runs.size[0], top + rows + halo))
    x = slice(max(0, left - halo), min(runs.size[1], left + columns + halo))
    hard = torch.zeros(y.stop - y.start, x.stop - x.start)
    hard[top - y.start :, left - x.start :][:rows, :columns] = runs.inside().cpu().float()
    if not radius:
        return hard, y.start, x.start
    soft = guided(hard, torch.ones_like(hard), photo[:, y, x], radius, sensitivity).clamp(0, 1)
    # The filter leaves a haze of a few thousandths where nothing should be left.
    soft = ((soft - 0.02) / 0.96).clamp(0, 1)
    alpha = torch.where(core_of(hard.long(), radius), hard, soft)
    inner_y = slice(max(0, top - radius - y.start), min(len(hard), top + rows + radius - y.start))
    inner_x = slice(max(0, left - radius - x.start), min(hard.shape[1], left + columns + radius - x.start))
    return alpha[inner_y, inner_x], y.start + inner_y.start, x.start + inner_x.start


def nearer_than(
    depth: Depth,
    size: tuple[int, int],
    share: float,
    space: Space = "relative",
) -> Instances:
    """Everything nearer than a place in depth as one thing of each picture, none where nothing is.

    size: (height, width) of the pictures. share, space: as `start` and `space` of `depth_field`. Raises
    what that raises.
    """
    step = depth_field(depth, "ramp", share, share, space=space) > 0.5
    pictures = []
    for mask in step:
        mask = mask_at(mask, *size)
        pictures.append((Thing("near", None, mask=mask),) if bool(mask.any()) else ())
    return Instances(tuple(pictures), size, source=depth.source)
