"""Instances in COCO's annotation form (https://cocodataset.org/#format-data), masks as run lengths, so that
pycocotools and whatever else reads COCO takes them.

Run lengths are counted down the columns, False first. In their text form each count is written in groups of five bits,
the lowest first, with a sixth that says whether more follow, as characters from "0" on; from the fourth count on it is
the difference to the count two before (cocodataset/cocoapi, common/maskApi.c, rleToString).

Beside what COCO defines an annotation holds "box": x0, y0, x1, y1 to the last bit, and "shape": "box" for a thing
without a mask, whose segmentation is then the rectangle. "info" holds what else brings the same Instances back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import SignalError
from .instances import Instances, Runs, Thing, from_run_lengths, run_lengths

Size = tuple[int, int]


def to_coco(instances: Instances, names: Iterable[str] = ()) -> dict[str, Any]:
    """The pictures, categories and annotations of `instances`; ids begin at 1.

    names: the file name of each picture. A category's id is the place of its name among the classes, or among the
    names that occur where the classes are not known.
    """
    height, width = instances.size
    found = dict.fromkeys([*instances.classes, *(t.name for picture in instances.things for t in picture)])
    numbers = {name: number for number, name in enumerate(found, 1)}
    files = dict(enumerate(names))
    images, annotations = [], []
    for i, picture in enumerate(instances.things):
        image = {"id": i + 1, "width": width, "height": height}
        images.append({**image, "file_name": files[i]} if i in files else image)
        for thing in picture:
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i + 1, "category_id": numbers[thing.name]}
                | _annotation(thing, instances.size)
            )
    about = {"description": instances.source, "size": [height, width], "classes": list(instances.classes)}
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {"info": about, "images": images, "categories": categories, "annotations": annotations}


def _annotation(thing: Thing, size: Size) -> dict[str, Any]:
    x0, y0, x1, y1 = thing.box
    annotation: dict[str, Any] = {"bbox": [x0, y0, x1 - x0, y1 - y0], "box": [x0, y0, x1, y1], "iscrowd": 0}
    if thing.runs is not None:
        annotation |= {"segmentation": encode_mask(thing.runs), "area": thing.runs.area}
    else:
        rectangle = [[x0, y0, x1, y0, x1, y1, x0, y1]]
        annotation |= {"segmentation": rectangle, "area": (x1 - x0) * (y1 - y0), "shape": "box"}
    if thing.score is not None:
        annotation["score"] = thing.score
    if thing.points is not None:
        if not bool(thing.points.isfinite().all()):
            raise SignalError(f"a landmark of {thing.name!r} is NaN or infinite, which JSON cannot hold.")
        annotation["keypoints"] = [v for x, y in thing.points.tolist() for v in (x, y, 2)]
        annotation["num_keypoints"] = len(thing.points)
    return annotation


def from_coco(coco: Any) -> Instances:
    """Instances from COCO's form. Masks may be run lengths, as text or as numbers, or polygons.

    Pictures keep their order, and so do annotations that this pack wrote; those of others come best first. Raises
    SignalError for another structure, pictures of several sizes, and run lengths that do not fill their picture.
    """
    try:
        return _from_coco(coco)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, SignalError):
            raise
        raise SignalError(f"this is not COCO's annotation form: {error!r}.") from error


def _from_coco(coco: Any) -> Instances:
    images = coco["images"]
    sizes = sorted({(int(image["height"]), int(image["width"])) for image in images})
    if len(sizes) != 1:
        raise SignalError(
            f"the pictures of these annotations have {len(sizes)} sizes; instances are of pictures of one size."
        )
    names = {category["id"]: str(category["name"]) for category in coco["categories"]}
    found: dict[Any, list[Thing]] = {image["id"]: [] for image in images}
    for annotation in coco["annotations"]:
        found[annotation["image_id"]].append(_thing(annotation, names[annotation["category_id"]], sizes[0]))
    info = coco.get("info") or {}
    classes = info.get("classes", list(names.values()))
    pictures = tuple(tuple(things) for things in found.values())
    if "classes" not in info:
        pictures = tuple(tuple(sorted(p, key=lambda t: -(1.0 if t.score is None else t.score))) for p in pictures)
    return Instances(pictures, sizes[0], tuple(classes), str(info.get("description", "")))


def _thing(annotation: Mapping[str, Any], name: str, size: Size) -> Thing:
    x, y, width, height = (float(v) for v in annotation["bbox"])
    shape = annotation.get("segmentation")
    mask = None if not shape or annotation.get("shape") == "box" else decode_mask(shape, size)
    marks = annotation.get("keypoints")
    points = None if marks is None else torch.tensor(marks, dtype=torch.float32).view(-1, 3)[:, :2].contiguous()
    return Thing(name, annotation.get("score"), annotation.get("box", (x, y, x + width, y + height)), mask, points)


def encode_mask(runs: Runs) -> dict[str, Any]:
    """A mask as {"size": [height, width], "counts": text}."""
    height, width = runs.size
    top, left, rows, columns = runs.extent
    block = torch.zeros(columns, height, dtype=torch.bool, device=runs.lengths.device)
    block[:, top : top + rows] = runs.inside().T
    counts = run_lengths(block.flatten()).tolist() if columns else [0]
    counts[0] += left * height
    if after := (width - left - columns) * height:
        # An odd number of counts ends with pixels that are False.
        counts[len(counts) - 1 if len(counts) % 2 else len(counts) :] = [after + (counts[-1] if len(counts) % 2 else 0)]
    return {"size": [height, width], "counts": _to_text(counts)}


def decode_mask(shape: Any, size: Size) -> Runs:
    """A mask of `size` (height, width) from run lengths or from polygons, lists of x, y, x, y, ..."""
    if isinstance(shape, list):
        return Runs.of(polygons([list(zip(ring[::2], ring[1::2], strict=True)) for ring in shape], size))
    counts = shape["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    if isinstance(counts, str):
        counts = _from_text(counts)
    if tuple(shape["size"]) != tuple(size) or sum(counts) != size[0] * size[1] or min(counts, default=0) < 0:
        raise SignalError(f"a mask of {sum(counts)} pixels, {shape['size']}, does not fill its picture of {size}.")
    return Runs.of(from_run_lengths(torch.tensor(counts)).view(size[1], size[0]).T)


def _to_text(counts: list[int]) -> str:
    text = []
    for i, count in enumerate(counts):
        rest = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            # The last group's highest bit is the sign.
            more = rest != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + (32 if more else 0)))
    return "".join(text)


def _from_text(text: str) -> list[int]:
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise SignalError(f"the run lengths of a mask hold {character!r}, which is none of their characters.")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise SignalError("the run lengths of a mask are cut short.")
    return counts


def polygons(rings: Iterable[list[tuple[float, float]]], size: Size) -> Tensor:
    """What closed lines hold, bool (H,W)."""
    import numpy as np
    from PIL import Image, ImageDraw

    canvas = Image.new("L", (size[1], size[0]), 0)
    pen = ImageDraw.Draw(canvas)
    for ring in rings:
        if len(ring) > 1:
            pen.polygon(ring, fill=255)
    return torch.from_numpy(np.array(canvas)) > 0
