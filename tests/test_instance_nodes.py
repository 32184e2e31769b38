"""The nodes of things: from a picture to what was found, which one, cut out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yunet_file as painted

import fathom
from fathom import Depth, SettingError
from fathom.annotator import loading
from fathom.nodes import bundle
from fathom.nodes import instances as nodes
from fathom.signals.depth import depth_from_metres
from fathom.signals.instances import Instances, Thing
from fathom.tools.instances import pick as tools_pick

SIZE = 96, 128


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_annotator: Any) -> list[str]:
    """Every estimator is its tiny variant; gives the ids that were asked for."""
    asked: list[str] = []

    def take(estimator: Any, *_: Any) -> Any:
        asked.append(estimator.id)
        return tiny_annotator(estimator.id)

    monkeypatch.setattr(loading.cache, "take", take)
    return asked


def faces() -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of a picture with three faces and one without, and metres at which the faces stand: 3, 9, 1.5."""
    picture = np.zeros((*SIZE, 3), np.uint8)
    metres = torch.full((2, *SIZE), 50.0)
    for column, score, distance in ((1, 254, 3.0), (4, 253, 9.0), (6, 255, 1.5)):
        x, y, width, height, *_ = painted.paint(picture, 16, (3, column), (score, score), (128, 128, 144, 150))
        metres[0, round(y) : round(y + height), round(x) : round(x + width)] = distance
    image = torch.from_numpy(picture)[None].float() / 255
    return torch.cat([image, torch.zeros_like(image)]), metres


def test_which_face_is_furthest_back(tiny: list[str]) -> None:
    image, metres = faces()
    drawn, masks, found, boxes, told = nodes.FathomFindFaces().execute(image, "yunet", 0.9, 0, 100)
    assert drawn.shape == image.shape and masks.shape == (3, *SIZE) and [len(b) for b in boxes] == [3, 0]
    assert [t.score for t in found.things[0]] == sorted((t.score for t in found.things[0]), reverse=True)  # type: ignore
    assert len(json.loads(told)["annotations"]) == 3 and tiny == ["yunet"]
    depth = depth_from_metres(metres)
    mask, box, one, distance, picked = nodes.FathomPick().execute(found, "depth", -1, "", depth, erode=1)
    assert distance == pytest.approx(9.0) and mask.shape == (2, *SIZE) and not mask[1].any()
    assert bool(mask[0, 50, 64]) and len(one.things[0]) == 1 and box[0][0]["x"] in range(50, 64)
    assert json.loads(picked)[1]["why"] == "there is none to choose from"
    none = nodes.FathomPick().execute(found, "depth", 4, "", depth)
    assert not none[0].any() and math.isnan(none[3])
    at = nodes.FathomPick().execute(found, "point", 1, "", x=16, y=48)
    assert json.loads(at[4])[0]["box"][0] == pytest.approx(found.things[0][1].box[0])


def test_objects_are_found_by_name(tiny: list[str], scene: torch.Tensor) -> None:
    find = nodes.FathomFindObjects().execute
    _, masks, found, _, _ = find(scene, "oneformer-coco-objects", "", 0.0, 0.0, 100, threshold=1e-6)
    assert len(masks) == len(found.things[0]) > 1
    name = found.things[0][0].name
    _, _, named, _, _ = find(scene, "oneformer-coco-objects", name, 0.0, 0.0, 1, threshold=1e-6)
    assert [t.name for t in named.things[0]] == [name]
    assert len(find(scene, "oneformer-coco-objects", "", 0.0, 0.0, 100, True, 1e-6)[2].things[0]) < len(masks)
    _, masks, nothing, boxes, _ = find(scene, "oneformer-coco-objects", "", 0.0, 0.0, 100)
    assert nothing.things == ((),) and masks.shape == (1, *SIZE) and not masks.any() and boxes == [[]]
    with pytest.raises(SettingError, match="Did you mean person"):
        find(scene, "oneformer-coco-objects", "persn", 0.0, 0.0, 100)


def test_panoptic_gives_regions_to_the_nodes_of_regions(tiny: list[str], scene: torch.Tensor) -> None:
    image, labels, _ = fathom.NODE_CLASS_MAPPINGS["FathomSegment"]().execute(scene, "oneformer-coco-panoptic", 64)  # type: ignore
    assert isinstance(labels, fathom.Segmentation) and image.shape == (1, 64, 85, 3)
    assert "oneformer-coco-panoptic" in nodes.FathomFindObjects.INPUT_TYPES()["required"]["estimator"][0]


def test_one_source_of_things_is_taken(scene: torch.Tensor) -> None:
    adopt = nodes.FathomInstances().execute
    mask = torch.zeros(1, *SIZE)
    mask[:, 10:20, 10:20] = 1
    box = [[{"x": 10, "y": 10, "width": 10, "height": 10, "score": 0.5}]]
    assert adopt(scene, "cup", masks=mask)[2].things[0][0].name == "cup"
    both = adopt(scene, "cup", boxes=box, masks=mask)[2].things[0][0]
    assert both.score == 0.5 and both.runs is not None
    for given in ({}, {"boxes": box, "track": {}}, {"masks": mask, "segs": ((96, 128), [])}):
        with pytest.raises(SettingError, match="connect one source"):
            adopt(scene, "cup", **given)


def test_things_and_what_is_near_are_cut_out(scene: torch.Tensor) -> None:
    depth = depth_from_metres(torch.linspace(1, 9, SIZE[1]).expand(1, *SIZE).contiguous())
    cut = nodes.FathomIsolate().execute
    things = Instances(((Thing("cat", box=(10, 10, 40, 40)), Thing("dog", box=(80, 10, 110, 40))),), SIZE)
    cutouts, background, mask, layers, told = cut(scene, 4, "cut out", False, things, depth)
    assert cutouts.shape == (2, *SIZE, 4) and background.shape == (1, *SIZE, 4) and mask.shape == (1, *SIZE)
    assert [i["name"] for i in layers["layers"]] == ["background", "dog", "cat"] and len(json.loads(told)) == 2
    near = cut(scene, 0, "whole", False, depth=depth, nearer=3.0, space="metres")[2]
    assert torch.equal(near > 0, depth.metres() <= 3.0)
    affine = Depth(depth.values, "affine_inverse")
    some = cut(scene, 0, "whole", False, depth=affine, nearer=3.0, space="metres", near=1.0, far=9.0)[2]
    assert torch.equal(some > 0, depth.metres() <= 3.0)
    with pytest.raises(SettingError, match="connect instances, or a depth"):
        cut(scene, 4, "cut out", False)


def test_a_node_hands_things_on_and_shows_them(tiny: list[str]) -> None:
    image, _ = faces()
    result = nodes.FathomFindFaces().run(image, "yunet", score=0.9, least=0, most=2)
    assert isinstance(result[2], Instances) and len(result[2].things[0]) == 2
    assert nodes.FathomFindFaces.shown() == ("image",) and nodes.FathomIsolate.shown() == ("cutouts",)


def test_a_bundle_of_depth_regions_and_faces_runs_no_network_twice(
    tiny: list[str], scene: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locate = loading.locate
    located = lambda e, path=None: locate(e, path) if path else SimpleNamespace(digest=lambda notes: e.id)  # noqa: E731
    monkeypatch.setattr(loading, "locate", located)
    slots = {"depth": "fathom-tiny", "segmentation": "oneformer-coco-panoptic", "faces": "yunet"}
    slots |= {"objects": "oneformer-coco-panoptic"}
    made = bundle.make_bundle(scene, slots, 64, root=tmp_path)
    assert sorted(tiny) == ["fathom-tiny", "oneformer-coco-panoptic", "yunet"]
    tiny.clear()
    for _ in range(24):
        again = bundle.make_bundle(scene, slots, 64, root=tmp_path)
        tools_pick(again["faces"], again["depth"])
    assert tiny == [] and set(again) == set(slots)
    assert again["objects"]._rest() == made["objects"]._rest() and again["faces"].size == (64, 85)  # type: ignore
    text, previews = bundle.FathomInspectBundle().execute(again)["result"]
    assert len(previews) == 5 and "yunet" in text
