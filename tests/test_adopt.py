"""What other nodes found becomes Instances: structures as ComfyUI and the Impact Pack really give them."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfyui_server import comfyui_checkouts

from fathom import SignalError
from fathom.signals.instances import FACE
from fathom.tools.adopt import from_boxes, from_landmarks, from_masks, from_segs, from_track, loops

SIZE = 40, 60
SEG = namedtuple("SEG", "cropped_image cropped_mask confidence crop_region bbox label control_net_wrapper")


def box(x: float, y: float, width: float, height: float, **more: Any) -> dict[str, Any]:
    return {"x": x, "y": y, "width": width, "height": height, **more}


@pytest.mark.parametrize(
    ("boxes", "count", "expected"),
    [
        (box(1, 2, 3, 4), 2, [[(1, 2, 4, 6)], [(1, 2, 4, 6)]]),
        ([box(1, 2, 3, 4), box(5, 5, 1, 1)], 2, [[(1, 2, 4, 6), (5, 5, 6, 6)]] * 2),
        ([[box(1, 2, 3, 4)], []], 2, [[(1, 2, 4, 6)], []]),
        ([[box(1, 2, 3, 4)]], 2, [[(1, 2, 4, 6)]] * 2),
        ([[]], 1, [[]]),
        ([], 2, [[], []]),
    ],
)
def test_boxes_in_every_form_that_core_knows(boxes: Any, count: int, expected: Any) -> None:
    found = from_boxes(boxes, count, SIZE)
    assert [[thing.box for thing in picture] for picture in found.things] == expected and found.size == SIZE
    assert all(thing.name == "object" and thing.score is None for picture in found.things for thing in picture)


def test_labels_and_scores_are_kept_and_the_best_comes_first() -> None:
    boxes = [[box(0, 0, 5, 5, label="dog", score=0.5), box(1.5, 0, 5, 5, label="cat", score=0.75)]]
    assert [(t.name, t.score) for t in from_boxes(boxes, 1, SIZE).things[0]] == [("cat", 0.75), ("dog", 0.5)]
    named = box(0, 0, 5, 5, metadata={"name": "sun", "type": "obj"})
    assert from_boxes(named, 1, SIZE, "thing").things[0][0].name == "sun"


def test_each_box_has_its_mask() -> None:
    # As SAM3 Detect gives them with individual_masks: all masks in a row, boxes by frame.
    masks = torch.zeros(3, *SIZE)
    for n in range(3):
        masks[n, 5 * n : 5 * n + 4, 8:16] = 1
    boxes = [[box(8, 0, 8, 4, score=0.5), box(8, 5, 8, 4, score=0.9)], [box(8, 10, 8, 4, score=0.7)]]
    found = from_boxes(boxes, 2, SIZE, "person", masks)
    assert torch.equal(found.masks(0), masks[[1, 0]] > 0) and torch.equal(found.masks(1), masks[2:] > 0)
    with pytest.raises(SignalError, match="3 boxes and 2 masks.*individual_masks"):
        from_boxes(boxes, 2, SIZE, "person", masks[:2])
    small = from_boxes(boxes, 2, SIZE, "person", masks[:, ::2, ::2])
    assert small.masks(0).shape == (2, *SIZE)


def test_masks_of_a_batch_are_shared_out_and_empty_ones_are_none() -> None:
    masks = torch.zeros(4, *SIZE)
    masks[0, :5] = masks[2, 5:9] = masks[3, 20:] = 1
    found = from_masks(masks, 2, SIZE, "hand")
    assert [len(picture) for picture in found.things] == [1, 2] and found.things[1][0].name == "hand"
    assert torch.equal(found.masks(1), masks[2:] > 0)
    assert [len(p) for p in from_masks(torch.zeros(2, *SIZE), 2, SIZE).things] == [0, 0]
    with pytest.raises(SignalError, match="4 masks cannot be shared out among 3"):
        from_masks(masks, 3, SIZE)
    with pytest.raises(SignalError, match="NaN"):
        from_masks(torch.full((1, *SIZE), math.nan), 1, SIZE)


@pytest.mark.parametrize(
    ("boxes", "count", "message"),
    [
        ([[box(1, 2, 3, 4)]] * 3, 2, "3 pictures, the image holds 2"),
        (box(100, 100, 5, 5), 1, "lies outside"),
        (box(1, 2, 3, 4, score=math.nan), 1, "score"),
        (box(1, 2, -3, 4), 1, "x0 <= x1"),
        (box(1, 2, math.inf, 4), 1, "box"),
        ([{"bbox": [0, 0, 1, 1]}], 1, "x, y, width and height"),
        ([box(1, 2, 3, 4), [box(1, 2, 3, 4)]], 1, "mix"),
        ("no boxes", 1, "must be a box"),
    ],
)
def test_what_are_no_boxes_is_told(boxes: Any, count: int, message: str) -> None:
    with pytest.raises(SignalError, match=message):
        from_boxes(boxes, count, SIZE)


def landmarks() -> dict[str, Any]:
    """As MediaPipe's node gives them: two faces in the first picture, none in the second."""
    angle = np.linspace(0, 2 * np.pi, 13)[:-1]

    def face(x: float, y: float, radius: float, score: float) -> dict[str, Any]:
        points = np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1).astype(np.float32)
        corners = np.array([x - radius, y - radius, x + radius, y + radius], np.float32)
        return {"bbox_xyxy": corners, "landmarks_xy": points, "score": score, "presence": 1.0}

    edges = frozenset((i, (i + 1) % 12) for i in range(12))
    frames = [[face(15, 15, 8.5, 0.8), face(40, 20, 10, 0.9)], []]
    return {"frames": frames, "image_size": SIZE, "connection_sets": {"face_oval": edges}}


def test_each_face_of_the_landmarks_is_a_thing_with_its_oval() -> None:
    found = from_landmarks(landmarks(), 2, SIZE)
    first, second = found.things[0]
    assert found.things[1] == () and (first.name, first.score, second.score) == (FACE, 0.9, 0.8)
    assert first.box == (30, 10, 50, 30) and first.points is not None and first.points.shape == (12, 2)
    assert first.mask is not None and bool(first.mask[20, 40]) and not bool(first.mask[5, 40])
    assert not (found.masks(0)[0] & found.masks(0)[1]).any()
    with pytest.raises(SignalError, match="2 pictures of 60x40"):
        from_landmarks(landmarks(), 1, SIZE)
    with pytest.raises(SignalError, match="frames"):
        from_landmarks({}, 1, SIZE)


def test_rings_are_walked_whatever_the_order_of_their_edges() -> None:
    two = loops(frozenset({(0, 1), (2, 1), (2, 0), (7, 5), (5, 6), (6, 7)}))
    assert sorted(map(sorted, two)) == [[0, 1, 2], [5, 6, 7]]


def test_segs_of_the_impact_pack() -> None:
    mask = np.zeros((10, 12), np.float32)
    mask[2:8, 3:9] = 1
    low = SEG(None, mask, np.array([0.5]), [20, 5, 32, 15], [22, 6, 30, 14], "face", None)
    high = SEG(None, torch.from_numpy(mask)[None], 0.9, [0, 0, 12, 10], [1, 1, 11, 9], "hand", None)
    found = from_segs(((40, 60), [low, high]), 1, SIZE)
    assert [(t.name, t.score, t.box) for t in found.things[0]] == [
        ("hand", 0.9, (1, 1, 11, 9)),
        ("face", 0.5, (22, 6, 30, 14)),
    ]
    whole = torch.zeros(SIZE, dtype=torch.bool)
    whole[7:13, 23:29] = True
    assert torch.equal(found.masks(0)[1], whole)
    for wrong, count, message in (
        (((9, 9), [low]), 1, "9x9"),
        (((40, 60), [low]), 2, "one picture"),
        ([1], 1, "SEGS"),
    ):
        with pytest.raises(SignalError, match=message):
            from_segs(wrong, count, SIZE)


def track() -> dict[str, Any]:
    masks = torch.zeros(2, 2, 20, 32, dtype=torch.bool)
    masks[0, 0, 4:9, 3:11] = masks[1, 1, 10:15, 17:30] = True
    packed = (masks.view(2, 2, 20, 4, 8) * (1 << torch.arange(8))).sum(-1).byte()
    return {"packed_masks": packed, "orig_size": (40, 64), "n_frames": 2, "scores": [0.9, 0.6]}


def test_the_objects_of_a_track() -> None:
    found = from_track(track(), 2, (40, 64), "ball")
    (first,), (second,) = found.things
    assert (first.score, second.score) == (0.9, 0.6) and first.box == (6, 8, 22, 18) and second.box == (34, 20, 60, 30)
    assert from_track({**track(), "packed_masks": None}, 2, (40, 64)).things == ((), ())
    with pytest.raises(SignalError, match="2 frames of 64x40"):
        from_track(track(), 3, (40, 64))


CORE = """
import json, sys
sys.path.insert(0, sys.argv.pop(1))
path, sys.argv = sys.argv[1], [sys.argv[0], "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import torch
from comfy_extras.nodes_mediapipe import MediaPipeFaceMask
from comfy_extras.nodes_sam3 import SAM3_TrackToMask
given = torch.load(path, weights_only=False)
each = {"regions": "custom", "face_oval": True}
faces = [{**given["landmarks"], "frames": [[face]]} for face in given["landmarks"]["frames"][0]]
ovals = torch.cat([MediaPipeFaceMask.execute(face, each).args[0] for face in faces])
tracked = [SAM3_TrackToMask.execute(given["track"], str(n)).args[0] for n in range(2)]
torch.save({"ovals": ovals, "tracked": torch.stack(tracked, 1)}, path)
"""


@pytest.mark.comfyui
def test_masks_are_those_of_cores_own_nodes(tmp_path: Path) -> None:
    checkout = next((c for c in comfyui_checkouts() if (c / "comfy_extras/nodes_mediapipe.py").is_file()), None)
    if checkout is None:
        pytest.skip("no ComfyUI checkout with MediaPipe's nodes: name one in COMFYUI_PATH")
    torch.save({"landmarks": landmarks(), "track": track()}, tmp_path / "given.pt")
    ran = subprocess.run(
        [sys.executable, "-c", CORE, str(checkout), str(tmp_path / "given.pt")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    if "ModuleNotFoundError" in ran.stderr or "PackageNotFoundError" in ran.stderr:
        pytest.skip(f"this checkout's requirements are not installed: {ran.stderr.strip().splitlines()[-1]}")
    assert ran.returncode == 0, ran.stderr
    theirs = torch.load(tmp_path / "given.pt", weights_only=True)
    ours = from_landmarks(landmarks(), 2, SIZE)
    assert torch.equal(ours.masks(0)[[1, 0]].float(), theirs["ovals"])
    followed = from_track(track(), 2, (40, 64))
    # Core enlarges what it draws bilinearly; above one half lies the nearest pixel here, where sizes double.
    for frame in range(2):
        assert torch.equal(followed.masks(frame)[0], theirs["tracked"][frame, frame] > 0.5)
