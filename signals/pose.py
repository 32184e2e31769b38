"""The points of a person, as OpenPose counts them (Cao et al., IEEE PAMI 2019, arXiv 1812.08008).

A person among `Instances` has `POINTS` points: the body's 18, the left hand's 21, the right hand's 21 and the face's
71, in this order. One that was not seen is (-1,-1).
"""

from __future__ import annotations

from typing import Any

import torch

from .instances import Instances, Thing

PERSON = "person"
NAMES = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye",
    "right ear", "left ear",
)  # fmt: skip
BODY, LEFT_HAND, RIGHT_HAND, FACE = slice(0, 18), slice(18, 39), slice(39, 60), slice(60, 131)
PARTS = {"body": BODY, "left hand": LEFT_HAND, "right hand": RIGHT_HAND, "face": FACE}
POINTS = 131


def people(instances: Instances, picture: int) -> list[Thing]:
    """The things of a picture that have a person's points."""
    return [t for t in instances.things[picture] if t.points is not None and len(t.points) == POINTS]


def to_openpose(instances: Instances) -> list[dict[str, Any]]:
    """What OpenPose writes for each picture: {"people", "canvas_height", "canvas_width"}, points as x, y in pixels and
    1 where seen, three zeros where not. The face has OpenPose's 70 points."""
    height, width = instances.size
    pictures = []
    for picture in range(len(instances)):
        persons = [
            {
                "pose_keypoints_2d": _flat(t.points[BODY]),  # pyright: ignore[reportOptionalSubscript]
                "face_keypoints_2d": _flat(t.points[FACE][:70]),  # pyright: ignore[reportOptionalSubscript]
                "hand_left_keypoints_2d": _flat(t.points[LEFT_HAND]),  # pyright: ignore[reportOptionalSubscript]
                "hand_right_keypoints_2d": _flat(t.points[RIGHT_HAND]),  # pyright: ignore[reportOptionalSubscript]
            }
            for t in people(instances, picture)
        ]
        pictures.append({"people": persons, "canvas_height": int(height), "canvas_width": int(width)})
    return pictures


def _flat(points: torch.Tensor) -> list[float]:
    seen = [(x, y, 1.0) if x >= 0 and y >= 0 else (0.0, 0.0, 0.0) for x, y in points.tolist()]
    return [float(v) for point in seen for v in point]
