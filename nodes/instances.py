"""Nodes for the things of a picture: who and what is there, which of them, each cut out."""

from __future__ import annotations

import json
from typing import Any, cast, get_args

from torch import Tensor

from ..errors import SettingError
from ..models import ids
from ..signals import Depth
from ..signals.coco import to_coco
from ..signals.instances import Instances, without_duplicates
from ..tools import adopt
from ..tools import instances as tools
from ..tools.depth_field import Space
from ..tools.instances import By
from ..tools.isolate import Background, isolate, nearer_than
from ..tools.regions import Statistic
from .base import Node
from .estimate import run
from .fields import IMAGE, PLACE, advanced, choice, depth_input, in_metres, metres, number, space
from .regions import MEASURE

CATEGORY = "Fathom/Instances"

INSTANCES: tuple[str, dict[str, Any]] = (
    "FATHOM_INSTANCES",
    {"tooltip": "From Fathom Find Faces, Fathom Find Objects, Fathom Instances or Fathom Pick."},
)
_MOST: tuple[str, dict[str, Any]] = (
    "INT",
    {
        "default": 100,
        "min": 0,
        "max": 10000,
        "tooltip": "How many things of each picture, the best; 0 = all. Each gives one mask of the picture's size.",
    },
)
_NAMES: tuple[str, dict[str, Any]] = (
    "STRING",
    {
        "default": "",
        "tooltip": "Names of classes, separated by commas, such as: person, chair. Any synonym works. Empty = all.",
    },
)
_MEASURE_LAST = {name: advanced(spec) for name, spec in MEASURE.items()}
_FOUND_TYPES = ("IMAGE", "MASK", "FATHOM_INSTANCES", "BOUNDING_BOX", "STRING")
_FOUND_NAMES = ("image", "masks", "instances", "boxes", "annotations")
_FOUND_TOOLTIPS = (
    "The picture with what was found drawn into it: masks, boxes, names and scores.",
    "One mask for each thing, those of the first picture first; one empty mask where there is none.",
    "The things, for Fathom Pick, Fathom Isolate and the region tools.",
    "The boxes of each picture, for ComfyUI's own nodes.",
    "What was found, as JSON in COCO's form.",
)
Found = tuple[Tensor, Tensor, Instances, Any, str]


def _found(image: Any, instances: Instances) -> Found:
    boxes = tools.boxes_of(instances)
    return tools.draw(image, instances), tools.masks_of(instances), instances, boxes, json.dumps(to_coco(instances))


class FathomFindFaces(Node):
    """The faces of a picture."""

    DISPLAY_NAME = "Fathom Find Faces"
    DESCRIPTION = (
        "Finds every face by itself, from 10 pixels up to the whole picture, with a box, five landmarks and a score. "
        "Runs on the processor through OpenCV, in milliseconds."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["face detection", "detect faces", "yunet", "face mask", "bbox", "portrait", "people"]
    RETURN_TYPES = _FOUND_TYPES
    RETURN_NAMES = _FOUND_NAMES
    OUTPUT_TOOLTIPS = _FOUND_TOOLTIPS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": IMAGE,
                "estimator": choice(ids("faces"), "yunet"),
                "score": number(
                    0.9, 0.0, 1.0, 0.01, "The least score of a face. Lower finds more, and more that is none."
                ),
                "least": (
                    "INT",
                    {"default": 0, "min": 0, "max": 16384, "tooltip": "The least size of a face in pixels; 0 = any."},
                ),
                "most": _MOST,
            }
        }

    def execute(self, image: Any, estimator: str, score: float, least: int, most: int) -> Found:
        faces = cast(Instances, run(estimator, image, None, "faces", {"score": float(score), "least": least}))
        return _found(image, tools.select(faces, most=most))


class FathomFindObjects(Node):
    """The things of a picture."""

    DISPLAY_NAME = "Fathom Find Objects"
    DESCRIPTION = (
        "Finds people, animals and things, each with a mask of its own: three people are three masks. The coco models "
        "know 80 kinds of things, the ade20k models 100 of rooms and streets; panoptic ones let no two overlap."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "object detection",
        "instance segmentation",
        "panoptic",
        "person mask",
        "people",
        "oneformer",
        "detect objects",
        "segment anything",
    ]
    RETURN_TYPES = _FOUND_TYPES
    RETURN_NAMES = _FOUND_NAMES
    OUTPUT_TOOLTIPS = _FOUND_TOOLTIPS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        share = "The least size, as a share of the picture: 0.01 = one hundredth of it."
        published = "The class score that a thing must exceed to be found at all; 0 = as published."
        return {
            "required": {
                "image": IMAGE,
                "estimator": choice(ids("objects"), "oneformer-coco-objects"),
                "names": _NAMES,
                "score": number(0.0, 0.0, 1.0, 0.01, "The least score of a thing."),
                "least": number(0.0, 0.0, 1.0, 0.001, share),
                "most": _MOST,
            },
            "optional": {
                "once": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "advanced": True,
                        "tooltip": "Of things of one name with nearly the same mask keep the best alone. Off = as "
                        "published.",
                    },
                ),
                "threshold": advanced(number(0.0, 0.0, 1.0, 0.01, published)),
            },
        }

    def execute(
        self,
        image: Any,
        estimator: str,
        names: str,
        score: float,
        least: float,
        most: int,
        once: bool = False,
        threshold: float = 0.0,
    ) -> Found:
        options: dict[str, Any] = {"threshold": float(threshold)} if threshold else {}
        objects = cast(Instances, run(estimator, image, None, "objects", options))
        objects = without_duplicates(objects) if once else objects
        return _found(image, tools.select(objects, names, score, least, most))


class FathomInstances(Node):
    """Things that other nodes found."""

    DISPLAY_NAME = "Fathom Instances"
    DESCRIPTION = (
        "Takes what other nodes found: bounding boxes, MediaPipe's face landmarks, SAM3's masks and tracks, any masks, "
        "the Impact Pack's SEGS. Connect one of them; boxes and masks together when they belong together."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["bounding box", "SEGS", "SAM3", "mediapipe", "face landmarks", "convert masks", "import"]
    RETURN_TYPES = _FOUND_TYPES
    RETURN_NAMES = _FOUND_NAMES
    OUTPUT_TOOLTIPS = _FOUND_TOOLTIPS

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        word = "What the things are called where the source does not say."
        return {
            "required": {"image": IMAGE, "name": ("STRING", {"default": "object", "tooltip": word})},
            "optional": {
                "boxes": ("BOUNDING_BOX", {"forceInput": True, "tooltip": "One box, some, or some for each picture."}),
                "landmarks": ("FACE_LANDMARKS", {"tooltip": "Each face becomes a thing, its oval the mask."}),
                "masks": (
                    "MASK",
                    {
                        "tooltip": "Each mask is one thing; an empty one is none. For a batch of pictures the same "
                        "number for each, those of the first picture first, or as many as there are boxes."
                    },
                ),
                "segs": ("SEGS", {"tooltip": "From the Impact Pack; they belong to one picture."}),
                "track": ("SAM3_TRACK_DATA", {"tooltip": "From SAM3 Video Track: the objects of every frame."}),
            },
        }

    def execute(
        self,
        image: Any,
        name: str,
        boxes: Any = None,
        landmarks: Any = None,
        masks: Any = None,
        segs: Any = None,
        track: Any = None,
    ) -> Found:
        count, size = len(image), (int(image.shape[1]), int(image.shape[2]))
        given = [what for what in (boxes if boxes is not None else masks, landmarks, segs, track) if what is not None]
        if len(given) != 1:
            raise SettingError(
                f"connect one source of things, or boxes and masks that belong together; {len(given)} are connected."
            )
        if boxes is not None:
            adopted = adopt.from_boxes(boxes, count, size, name, masks)
        elif masks is not None:
            adopted = adopt.from_masks(masks, count, size, name)
        elif landmarks is not None:
            adopted = adopt.from_landmarks(landmarks, count, size)
        elif segs is not None:
            adopted = adopt.from_segs(segs, count, size)
        else:
            adopted = adopt.from_track(track, count, size, name)
        return _found(image, adopted)


class FathomPick(Node):
    """One thing of each picture."""

    DISPLAY_NAME = "Fathom Pick"
    DESCRIPTION = (
        "Which one? The nearest, the second, the furthest back; the largest, the leftmost, the one at a point. A "
        "picture that does not have it gives an empty mask and says so."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "nearest",
        "furthest face",
        "select instance",
        "choose person",
        "rank by depth",
        "largest",
        "track",
    ]
    RETURN_TYPES = ("MASK", "BOUNDING_BOX", "FATHOM_INSTANCES", "FLOAT", "STRING")
    RETURN_NAMES = ("mask", "box", "instance", "depth", "picked")
    OUTPUT_TOOLTIPS = (
        "The thing, one mask for each picture; empty where a picture does not have it.",
        "Its box: one for one picture, a list for each of several.",
        "The thing, for Fathom's other nodes.",
        "Its depth in metres where the depth has metres, else in the depth's own numbers, larger = closer; of the "
        "first picture that has it.",
        "What was picked in every picture, with its numbers, or why there is none, as JSON.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        pixels = {"default": 0, "min": 0, "max": 16384}
        return {
            "required": {
                "instances": INSTANCES,
                "by": (
                    list(get_args(By)),
                    {
                        "default": "depth",
                        "tooltip": "What decides. depth: the nearest first. point: the smallest thing that holds it "
                        "first.",
                    },
                ),
                "rank": (
                    "INT",
                    {
                        "default": 1,
                        "min": -10000,
                        "max": 10000,
                        "tooltip": "1 = the first (nearest, largest, best, leftmost), 2 = the next; -1 = the last "
                        "(furthest, smallest, ...).",
                    },
                ),
                "names": _NAMES,
            },
            "optional": {
                "depth": depth_input("The depth of the same pictures."),
                "video": (
                    "BOOLEAN",
                    {
                        "default": False,
                        "tooltip": "The pictures are frames of a video: what has the rank in the first frame is "
                        "followed through the others.",
                    },
                ),
                "x": ("INT", {**pixels, "tooltip": "For point: its column, in pixels of the picture."}),
                "y": ("INT", {**pixels, "tooltip": "For point: its row, in pixels of the picture."}),
                **_MEASURE_LAST,
            },
        }

    def execute(
        self,
        instances: Instances,
        by: By,
        rank: int,
        names: str,
        depth: Depth | None = None,
        video: bool = False,
        x: int = 0,
        y: int = 0,
        statistic: Statistic = "median",
        percentile: float = 50.0,
        erode: int = 4,
    ) -> tuple[Tensor, Any, Instances, float, str]:
        point = (x + 0.5, y + 0.5) if by == "point" else None
        picked = tools.pick(instances, depth, by, rank, names, point, video, statistic, percentile, erode)
        return picked.mask, picked.boxes(), picked.instances, picked.depth, picked.json()


class FathomIsolate(Node):
    """Things cut out of their picture."""

    DISPLAY_NAME = "Fathom Isolate"
    DESCRIPTION = (
        "Cuts things out with edges that follow the photo: each as a picture with transparency, all of them as layers "
        "ordered by depth for ComfyUI's compositor. Without instances: everything nearer than a depth."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["cut out", "remove background", "rgba", "layers", "foreground", "matting", "subject", "alpha"]
    RETURN_TYPES = ("IMAGE", "IMAGE", "MASK", "LAYERS", "STRING")
    RETURN_NAMES = ("cutouts", "background", "mask", "layers", "placed")
    OUTPUT_TOOLTIPS = (
        "Each thing in its place with transparency (RGBA), those of the first picture first.",
        "What is left, with transparency.",
        "All that was cut out, soft at its edges, one mask for each picture.",
        "The first picture as layers, the nearest on top, for Create Layered Image.",
        "Where every cutout lies, its place in depth and its numbers, as JSON.",
    )
    PREVIEW = ("cutouts",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": IMAGE,
                "radius": (
                    "INT",
                    {
                        "default": 6,
                        "min": 0,
                        "max": 64,
                        "tooltip": "How far an edge may move to follow the photo, in pixels; 0 = the mask as it is.",
                    },
                ),
                "background": (
                    list(get_args(Background)),
                    {
                        "default": "cut out",
                        "tooltip": "cut out: a hole where a thing was. whole: the photo stays as it is.",
                    },
                ),
                "joined": (
                    "BOOLEAN",
                    {"default": False, "tooltip": "All things of a picture in one cutout, instead of each by itself."},
                ),
            },
            "optional": {
                "instances": (INSTANCES[0], {"tooltip": "What is cut out. Without it: what is nearer than `nearer`."}),
                "depth": depth_input("The depth of the same pictures: it orders the layers."),
                "nearer": number(0.5, 0.0, 1e6, 0.01, f"Without instances: what is closer than this. {PLACE}"),
                "space": space("nearer"),
                "near": metres("closest", "needed for metres."),
                "far": metres("farthest", "needed for metres."),
                "sensitivity": advanced(
                    number(
                        0.03, 0.0001, 1.0, 0.001, "The step in colour that counts as an edge: smaller finds fainter."
                    )
                ),
            },
        }

    def execute(
        self,
        image: Any,
        radius: int,
        background: Background,
        joined: bool,
        instances: Instances | None = None,
        depth: Depth | None = None,
        nearer: float = 0.5,
        space: Space = "relative",
        near: float = 0.0,
        far: float = 0.0,
        sensitivity: float = 0.03,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Any], str]:
        if instances is None:
            if depth is None:
                raise SettingError("connect instances, or a depth to cut out what is nearer.")
            size = int(image.shape[1]), int(image.shape[2])
            instances = nearer_than(in_metres(depth, near, far), size, nearer, space)
        isolated = isolate(image, instances, depth, radius, sensitivity, joined, background)
        return isolated.images(), isolated.background, isolated.mask, isolated.layers(), isolated.json()


NODES = (FathomFindFaces, FathomFindObjects, FathomInstances, FathomPick, FathomIsolate)
