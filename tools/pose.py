"""Poses drawn as the ControlNets for poses expect them: coloured limbs, hands and faces on black.

Colours, widths and the order of limbs are those of OpenPose as ControlNet's annotator draws it.
"""

from __future__ import annotations

import colorsys
import math
from typing import Any

import torch
from torch import Tensor

from ..signals.instances import Instances
from ..signals.opencv import opencv
from ..signals.pose import BODY, FACE, LEFT_HAND, RIGHT_HAND, people
from .pixels import each_picture

# Eighteen hues once round the circle, in steps of a third of a channel.
_COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
)  # fmt: skip
# Which points a limb joins, in the order in which limbs are drawn over each other.
_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
_FINGERS = tuple((0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, 21))


def draw_poses(instances: Instances, body: bool = True, hands: bool = True, faces: bool = True) -> Tensor:
    """The poses of every picture, float32 (B,H,W,3) in 0..1; things without a person's points are left out."""
    return torch.stack(
        [_drawn(instances, picture, body, hands, faces) for picture in each_picture(len(instances), "Draw poses")]
    )


def _drawn(instances: Instances, picture: int, body: bool, hands: bool, faces: bool) -> Tensor:
    import numpy as np

    cv2 = opencv("Drawing poses")
    canvas = np.zeros((*instances.size, 3), np.uint8)
    for person in people(instances, picture):
        points = person.points.cpu().numpy()  # pyright: ignore[reportOptionalMemberAccess]
        if body:
            _draw_body(cv2, canvas, points[BODY].astype(np.float64))
        for hand in (LEFT_HAND, RIGHT_HAND) if hands else ():
            _draw_hand(cv2, canvas, points[hand])
        if faces:
            for x, y in points[FACE].astype(int).tolist():
                if x > 0 and y > 0:
                    cv2.circle(canvas, (x, y), 3, (255, 255, 255), thickness=-1)
    return torch.from_numpy(canvas).float() / 255


def _draw_body(cv2: Any, canvas: Any, points: Any) -> None:
    height, width = canvas.shape[:2]
    # By way of shares of the picture, as the annotator does, for the last bit decides about a pixel.
    across, down = points[:, 0] / float(width) * float(width), points[:, 1] / float(height) * float(height)
    seen = (points >= 0).all(1)
    for (one, other), colour in zip(_LIMBS, _COLOURS, strict=False):
        if not (seen[one] and seen[other]):
            continue
        dx, dy = across[one] - across[other], down[one] - down[other]
        centre = int((across[one] + across[other]) / 2), int((down[one] + down[other]) / 2)
        half = int((dy**2 + dx**2) ** 0.5 / 2)
        limb = cv2.ellipse2Poly(centre, (half, 4), int(math.degrees(math.atan2(dy, dx))), 0, 360, 1)
        cv2.fillConvexPoly(canvas, limb, [int(part * 0.6) for part in colour])
    for x, y, there, colour in zip(across, down, seen, _COLOURS, strict=True):
        if there:
            cv2.circle(canvas, (int(x), int(y)), 4, colour, thickness=-1)


def _draw_hand(cv2: Any, canvas: Any, points: Any) -> None:
    at = points.astype(int).tolist()
    seen = [x > 0 and y > 0 for x, y in at]
    for number, (one, other) in enumerate(_FINGERS):
        if seen[one] and seen[other]:
            colour = [part * 255 for part in colorsys.hsv_to_rgb(number / len(_FINGERS), 1.0, 1.0)]
            cv2.line(canvas, at[one], at[other], colour, thickness=2)
    for point, there in zip(at, seen, strict=True):
        if there:
            cv2.circle(canvas, point, 4, (0, 0, 255), thickness=-1)
