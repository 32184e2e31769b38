"""Things that other nodes found, as Instances: ComfyUI's own structures, and the Impact Pack's.

Sources of the structures: ComfyUI comfy_api/latest/_io.py (BOUNDING_BOX), comfy_extras/nodes_mediapipe.py
(FACE_LANDMARKS), nodes_sam3.py (masks, SAM3_TRACK_DATA), nodes_rtdetr.py (boxes with label and score);
ltdrdata/ComfyUI-Impact-Pack modules/impact/core.py (SEGS).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import SignalError
from ..signals.coco import polygons
from ..signals.instances import FACE, Instances, Thing
from .pixels import match_mask
from .regions import mask_at

Size = tuple[int, int]


def from_boxes(boxes: Any, count: int, size: Size, name: str = "object", masks: Any = None) -> Instances:
    """ComfyUI's BOUNDING_BOX: {x, y, width, height}, with label and score where the node gave them.

    boxes: one box or a list of boxes, which serve all `count` pictures; or for each picture a list. size: (height,
    width) of the pictures. name: of a box without a label. masks: MASK (N,H,W), one for each box, those of the first
    picture first, as SAM3 Detect gives them with individual_masks; None = the boxes alone.

    Raises SignalError for another structure, lists of another number of pictures, masks of another number, boxes that
    lie outside the picture, and NaN.
    """
    lists = _box_lists(boxes, count)
    total = sum(len(part) for part in lists)
    if masks is not None:
        given = match_mask(masks, *size)
        if len(given) != total:
            hint = " Turn individual_masks on, so that each has its own." if len(given) == count else ""
            raise SignalError(f"there are {total} boxes and {len(given)} masks: each box needs one mask.{hint}")
        shapes: Iterable[Tensor | None] = (mask > 0.5 for mask in given)
    else:
        shapes = (None for _ in range(total))
    places = iter(shapes)
    pictures = [tuple(_thing_of_box(box, name, next(places)) for box in part) for part in lists]
    return Instances(tuple(_best_first(picture) for picture in pictures), size, source="boxes")


def _box_lists(boxes: Any, count: int) -> list[list[Mapping[str, Any]]]:
    if isinstance(boxes, Mapping):
        return [[boxes]] * count
    if not isinstance(boxes, (list, tuple)):
        raise SignalError(f"bounding boxes must be a box, a list of boxes, or a list for each picture; got {boxes!r}.")
    if not boxes:
        return [[] for _ in range(count)]
    if all(isinstance(box, Mapping) for box in boxes):
        return [list(boxes)] * count
    if not all(isinstance(part, (list, tuple)) for part in boxes):
        raise SignalError("bounding boxes mix boxes and lists of boxes: give a list for each picture.")
    # A single list is shared, as core's own nodes read it.
    lists = [list(part) for part in boxes] * (count if len(boxes) == 1 else 1)
    if len(lists) != count:
        raise SignalError(f"there are bounding boxes of {len(boxes)} pictures, the image holds {count}.")
    return lists


def _thing_of_box(box: Any, name: str, mask: Tensor | None) -> Thing:
    if not isinstance(box, Mapping) or not {"x", "y", "width", "height"} <= set(box):
        raise SignalError(f"a bounding box must have x, y, width and height, got {box!r}.")
    x, y, width, height = (float(box[key]) for key in ("x", "y", "width", "height"))
    more = box.get("metadata") if isinstance(box.get("metadata"), Mapping) else {}
    label = box.get("label") or (more or {}).get("name") or (more or {}).get("desc") or name
    score = box.get("score")
    return Thing(str(label), None if score is None else float(score), (x, y, x + width, y + height), mask)


def _best_first(things: tuple[Thing, ...]) -> tuple[Thing, ...]:
    """By score, where each has one; else in the order they came."""
    if any(thing.score is None for thing in things):
        return things
    return tuple(sorted(things, key=lambda thing: -(thing.score or 0.0)))


def from_landmarks(landmarks: Any, count: int, size: Size) -> Instances:
    """ComfyUI's FACE_LANDMARKS (MediaPipe): each face by itself, its oval as the mask, all landmarks as points.

    Raises SignalError for another structure, another number of pictures or another size.
    """
    if not isinstance(landmarks, Mapping) or not {"frames", "image_size", "connection_sets"} <= set(landmarks):
        raise SignalError("face landmarks must hold frames, image_size and connection_sets, as MediaPipe's node gives.")
    of = tuple(int(side) for side in landmarks["image_size"])
    frames = landmarks["frames"]
    if of != tuple(size) or len(frames) != count:
        raise SignalError(
            f"the face landmarks belong to {len(frames)} pictures of {of[1]}x{of[0]}, the image holds {count} of "
            f"{size[1]}x{size[0]}."
        )
    rings = loops(landmarks["connection_sets"]["face_oval"])
    pictures = []
    for frame in frames:
        faces = []
        for face in frame:
            points = torch.as_tensor(face["landmarks_xy"], dtype=torch.float32)[:, :2]
            box = [float(value) for value in face["bbox_xyxy"]]
            mask = polygons([[tuple(points[n].tolist()) for n in ring] for ring in rings], size)
            faces.append(Thing(FACE, min(max(float(face["score"]), 0.0), 1.0), box, mask, points))
        pictures.append(_best_first(tuple(faces)))
    return Instances(tuple(pictures), size, (FACE,), "face landmarks")


def loops(edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Closed ways around, from the edges between neighbours, of a set in which each place has two neighbours."""
    beside: dict[int, list[int]] = {}
    for a, b in edges:
        beside.setdefault(int(a), []).append(int(b))
        beside.setdefault(int(b), []).append(int(a))
    left, found = dict.fromkeys(beside), []
    while left:
        way = [next(iter(left))]
        left.pop(way[0])
        while (onward := next((n for n in beside[way[-1]] if n in left), None)) is not None:
            left.pop(onward)
            way.append(onward)
        found.append(way)
    return found


def from_masks(masks: Tensor, count: int, size: Size, name: str = "object") -> Instances:
    """A MASK batch: each mask one thing, above 0.5; an empty one is none.

    masks (N,H,W): N must be a multiple of the `count` pictures, the first N / count belong to the first picture; those
    of another size are resized to the nearest pixel. Raises SignalError for another number or NaN.
    """
    given = match_mask(masks, *size) > 0.5
    if len(given) % count:
        raise SignalError(
            f"{len(given)} masks cannot be shared out among {count} pictures: give the same number of masks for every "
            "picture, those of the first picture first, or connect the boxes that belong to them too."
        )
    each = len(given) // count
    pictures = []
    for start in range(0, len(given), each):
        found = given[start : start + each]
        pictures.append(tuple(Thing(name, None, mask=mask) for mask in found if bool(mask.any())))
    return Instances(tuple(pictures), size, source="masks")


def from_segs(segs: Any, count: int, size: Size) -> Instances:
    """The Impact Pack's SEGS: (height, width) and the segments, each with its label, confidence, box and mask.

    SEGS are of one picture. Raises SignalError for another structure, size, or more than one picture.
    """
    wrong = not isinstance(segs, (list, tuple)) or len(segs) != 2 or not isinstance(segs[0], (list, tuple))
    if wrong or any(not hasattr(seg, part) for seg in segs[1] for part in ("cropped_mask", "crop_region", "bbox")):
        raise SignalError("SEGS must be ((height, width), [segments]), as the Impact Pack's detectors give them.")
    of = tuple(int(side) for side in segs[0][:2])
    if of != tuple(size) or count != 1:
        raise SignalError(
            f"the SEGS belong to one picture of {of[1]}x{of[0]}, the image holds {count} of {size[1]}x{size[0]}."
        )
    things = []
    for seg in segs[1]:
        left, top, right, bottom = (int(value) for value in seg.crop_region)
        part = torch.as_tensor(seg.cropped_mask).float().reshape(-1, *torch.as_tensor(seg.cropped_mask).shape[-2:])[0]
        inside = mask_at(part > 0.5, bottom - top, right - left)
        mask = torch.zeros(size, dtype=torch.bool)
        mask[top:bottom, left:right] = inside
        score = torch.as_tensor(seg.confidence, dtype=torch.float64).reshape(-1)
        label = getattr(seg, "label", None) or "object"
        box = [float(value) for value in seg.bbox]
        things.append(Thing(str(label), float(score[0]) if len(score) else None, box, mask))
    return Instances((_best_first(tuple(things)),), size, source="SEGS")


def from_track(track: Any, count: int, size: Size, name: str = "object") -> Instances:
    """SAM3_TRACK_DATA: for each frame the objects that are seen in it, in the order of the tracker.

    Raises SignalError for another structure, number of frames or size.
    """
    if not isinstance(track, Mapping) or not {"packed_masks", "orig_size"} <= set(track):
        raise SignalError("track data must hold packed_masks and orig_size, as SAM3 Video Track gives them.")
    packed = track["packed_masks"]
    frames = int(track.get("n_frames", 0)) if packed is None else len(packed)
    of = tuple(int(side) for side in track["orig_size"])
    if of != tuple(size) or frames != count:
        raise SignalError(
            f"the track data belong to {frames} frames of {of[1]}x{of[0]}, the image holds {count} of "
            f"{size[1]}x{size[0]}."
        )
    given = track.get("scores")
    scores = torch.as_tensor([] if given is None else given, dtype=torch.float64).flatten().tolist()
    pictures: list[tuple[Thing, ...]] = []
    for frame in range(frames):
        found = []
        for number, bits in enumerate(() if packed is None else packed[frame]):
            mask = mask_at(_unpacked(bits), *size)
            if bool(mask.any()):
                score = min(max(float(scores[number]), 0.0), 1.0) if number < len(scores) else None
                found.append(Thing(name, score, mask=mask))
        pictures.append(tuple(found))
    return Instances(tuple(pictures), size, source="SAM3 track")


def _unpacked(bits: Tensor) -> Tensor:
    """Eight pixels from each byte, the lowest bit first: uint8 (H,W/8) -> bool (H,W)."""
    powers = 2 ** torch.arange(8, device=bits.device)
    return (bits[..., None].int() & powers.int()).bool().flatten(-2)
