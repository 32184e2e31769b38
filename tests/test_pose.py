"""Poses: drawn as the library draws them, written as OpenPose writes them, found as the library finds them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import seeded_state

from fathom.annotator.weights import Checkpoint, Found
from fathom.models import controlnet_aux as family
from fathom.models import estimator
from fathom.nodes.lines import FathomPose
from fathom.signals.instances import Instances, Thing
from fathom.signals.pose import BODY, FACE, LEFT_HAND, PERSON, POINTS, RIGHT_HAND, to_openpose
from fathom.tools.pose import draw_poses

cv2: Any = pytest.importorskip("cv2")
HAS_LIBRARY = importlib.util.find_spec("controlnet_aux") is not None
with_library = pytest.mark.skipif(not HAS_LIBRARY, reason="controlnet-aux is not installed")
SIZES = [(192, 256), (320, 128), (256, 320)]


def person(height: int, width: int, seed: int, missing: int = 0) -> Thing:
    """Somebody whose points lie anywhere; the first `missing` of the body and of each hand are not seen."""
    random = np.random.default_rng(seed)
    points = torch.from_numpy(random.uniform(0, 1, (POINTS, 2)) * [width - 9, height - 9]).floor().float().clamp_min(1)
    for part in (BODY, LEFT_HAND, RIGHT_HAND):
        points[part.start : part.start + missing] = -1.0
    there = points[(points >= 0).all(1)]
    return Thing(PERSON, 0.5, (*there.amin(0).tolist(), *there.amax(0).tolist()), points=points)


@with_library
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_bodies_are_drawn_to_the_last_level(size: tuple[int, int]) -> None:
    height, width = size
    module, body = family.library("open_pose", "x"), family.library("open_pose.body", "x")
    things = tuple(person(*size, seed, missing=seed) for seed in range(3))
    poses = []
    for thing in things:
        points = thing.points[BODY].double().tolist()  # type: ignore[index]
        keys = [body.Keypoint(x / float(width), y / float(height)) if x >= 0 else None for x, y in points]
        poses.append(module.PoseResult(body.BodyResult(keys, 1.0, 18), None, None, None))
    expected = module.draw_poses(poses, height, width, draw_hand=False, draw_face=False)
    made = draw_poses(Instances((things,), size, (PERSON,)), hands=False, faces=False)
    assert np.array_equal((made[0] * 255).round().to(torch.uint8).numpy(), expected) and expected.max() > 0


@with_library
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_hands_and_faces_are_drawn_to_the_last_level(size: tuple[int, int]) -> None:
    pytest.importorskip("matplotlib.colors")
    height, width = size
    util, body = family.library("open_pose.util", "x"), family.library("open_pose.body", "x")
    thing = person(*size, 5, missing=2)
    shares = (thing.points.double() + 0.25) / torch.tensor([width, height])  # type: ignore[union-attr]
    keys = [body.Keypoint(x, y) for x, y in shares.tolist()]
    expected = np.zeros((height, width, 3), np.uint8)
    for hand in (LEFT_HAND, RIGHT_HAND):
        expected = util.draw_handpose(expected, keys[hand])
    expected = util.draw_facepose(expected, keys[FACE])
    made = draw_poses(Instances(((thing,),), size, (PERSON,)), body=False)
    assert np.array_equal((made[0] * 255).round().to(torch.uint8).numpy(), expected) and expected.max() > 0


class Painted(torch.nn.Module):
    """Stands for OpenPose's networks: heat at a person's points, and fields along the limbs."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: torch.Tensor, part: str = "body") -> Any:
        height, width = x.shape[-2] // 8, x.shape[-1] // 8
        heat, fields = torch.zeros(1, 19, height, width), torch.zeros(1, 38, height, width)
        for index in range(18):
            heat[0, index, height // 4 + index // 6 * 4, 3 + index % 6 * 4] = 1.0
        fields[:, :] = 0.7
        return fields, heat


@with_library
def test_people_are_those_of_the_library() -> None:
    chosen = estimator("openpose")
    picture = np.random.default_rng(0).integers(0, 256, (256, 320, 3), np.uint8)
    network = Painted()
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    fit = chosen.fit(256, 320, 256)
    settings = chosen.settings({"hands": False, "faces": False})
    with torch.inference_mode():
        made = chosen.infer(network, pixels, fit, (256, 320), settings)["people"]
        module = family.library("open_pose", "x")
        poses = chosen._detector(network).detect_poses(picture)  # type: ignore[attr-defined]
    assert isinstance(made, Instances) and len(made.things[0]) == len(poses) > 0
    expected = module.draw_poses(poses, 256, 320, draw_hand=False, draw_face=False)
    assert np.array_equal((draw_poses(made)[0] * 255).round().to(torch.uint8).numpy(), expected)


@with_library
def test_the_three_files_fill_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = estimator("openpose").tiny()
    network = chosen.build(Checkpoint(Path("x"), {}, None, None))
    state = seeded_state(network)
    named = {"body": "body_pose_model.pth", "hand": "hand_pose_model.pth", "face": "facenet.pth"}
    for part, file in named.items():
        torch.save({k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(part)}, tmp_path / file)
    files = list(named.values())
    read = chosen.read(Found(tmp_path / files[0], tmp_path, "given", also=tuple(files[1:])))
    assert {k: torch.equal(v, state[k]) for k, v in read.tensors.items()} == dict.fromkeys(state, True)


@with_library
def test_names_of_the_files_lead_to_the_networks_of_the_library() -> None:
    from fathom.annotator.meta import parameters_on_meta

    chosen = estimator("openpose")
    with parameters_on_meta():
        wanted = chosen.build(Checkpoint(Path("x"), {}, None, None)).state_dict()
    in_files = {
        key if key.startswith("face") else f"{key.split('.')[0]}.{key.split('.', 2)[2]}": tensor
        for key, tensor in wanted.items()
    }
    assert len(in_files) == len(wanted) and chosen.translate(in_files).keys() == wanted.keys()


def test_openposes_json_tells_what_was_seen() -> None:
    (told,) = to_openpose(Instances(((person(192, 256, 1, missing=2), Thing("cat", 0.5, (0, 0, 4, 4))),), (192, 256)))
    json.dumps(told)
    assert (told["canvas_height"], told["canvas_width"], len(told["people"])) == (192, 256, 1)
    somebody = told["people"][0]
    assert [len(somebody[k]) // 3 for k in sorted(somebody)] == [70, 21, 21, 18]
    assert somebody["pose_keypoints_2d"][:6] == [0.0] * 6 and somebody["pose_keypoints_2d"][8] == 1.0


def test_people_found_before_are_drawn_alone() -> None:
    one = Instances(((person(96, 128, 1),),), (96, 128), (PERSON,))
    image, same, told = FathomPose().execute(torch.zeros(1, 96, 128, 3), "openpose", instances=one)
    assert same is one and torch.equal(image, draw_poses(one)) and len(json.loads(told)[0]["people"]) == 1
