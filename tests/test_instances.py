"""Instances: what a thing may be, masks kept small, COCO's form, nothing lost on the way."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fathom import SettingError, SignalError
from fathom.signals import Scene, coco, load_signal
from fathom.signals.instances import (
    FACE,
    Instances,
    Runs,
    Thing,
    box_runs,
    colours,
    iou,
    shared_area,
    without_duplicates,
    without_empty,
)

IMAGE = {"id": 1, "width": 2, "height": 2}
FOUND = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}


def random_mask(height: int, width: int, seed: int, share: float = 0.5) -> torch.Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share


def block(size: tuple[int, int], top: int, left: int, height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def some() -> Instances:
    size = 20, 30
    points = torch.tensor([[3.5, 4.25], [7.0, 9.0]])
    first = (
        Thing(FACE, 0.9, (1.5, 2.25, 11.0, 14.0), points=points),
        Thing("person", 0.5, mask=random_mask(*size, 1)),
        Thing("dog", None, (0.1, 0.2, 9.7, 8.9), random_mask(*size, 2, 0.02)),
    )
    return Instances((first, (), (Thing("person", 1.0, mask=torch.zeros(size, dtype=torch.bool)),)), size, ("a",), "x")


def same(one: Instances, other: Instances) -> bool:
    if (one.size, one.classes, one.source) != (other.size, other.classes, other.source) or len(one) != len(other):
        return False
    for a, b in zip((t for p in one.things for t in p), (t for p in other.things for t in p), strict=True):
        if (a.name, a.score, a.box) != (b.name, b.score, b.box):
            return False
        for left, right in ((a.mask, b.mask), (a.points, b.points)):
            if (left is None) != (right is None) or (left is not None and not torch.equal(left, right)):
                return False
    return [len(p) for p in one.things] == [len(p) for p in other.things]


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 10**6), st.floats(0, 1))
def test_runs_hold_any_mask(height: int, width: int, seed: int, share: float) -> None:
    mask = random_mask(height, width, seed, share)
    runs = Runs.of(mask)
    assert torch.equal(runs.whole(), mask) and runs.area == int(mask.sum())
    other = random_mask(height, width, seed + 1, 0.5)
    assert shared_area(runs, Runs.of(other)) == int((mask & other).sum())


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((1, 2, 4, 5), (2, 1, 3, 3)),
        ((0.4, 0.4, 2.6, 2.4), (0, 0, 2, 3)),
        ((-5, -5, 100, 100), (0, 0, 8, 9)),
        ((3.6, 3.6, 4.4, 4.4), (0, 0, 0, 0)),
        ((2, 2, 2, 2), (0, 0, 0, 0)),
    ],
)
def test_a_box_holds_the_pixels_whose_centres_lie_in_it(box: Any, expected: tuple[int, ...]) -> None:
    assert box_runs(tuple(map(float, box)), (8, 9)).extent == expected
    mask = box_runs(tuple(map(float, box)), (8, 9)).whole()
    x, y = torch.arange(9) + 0.5, torch.arange(8) + 0.5
    inside = ((y >= box[1]) & (y < box[3]))[:, None] & (x >= box[0]) & (x < box[2])
    assert torch.equal(mask, inside)


def test_masks_are_the_mask_the_oval_of_a_face_or_the_box() -> None:
    things = some()
    masks = things.masks(0)
    assert masks.shape == (3, 20, 30) and masks.dtype == torch.bool and things.masks(1).shape == (0, 20, 30)
    assert torch.equal(masks[1], random_mask(20, 30, 1))
    x, y = torch.arange(30) + 0.5, torch.arange(20) + 0.5
    oval = ((y - 8.125) / 5.875)[:, None] ** 2 + ((x - 6.25) / 4.75) ** 2 <= 1
    assert torch.equal(masks[0], oval)
    plain = Instances(((Thing("cup", box=(1, 2, 3, 4)),),), (5, 6))
    assert torch.equal(plain.masks(0)[0], block((5, 6), 2, 1, 2, 2))


def test_of_two_that_overlap_the_first_is_seen() -> None:
    pair = Thing("a", 0.9, (0, 0, 4, 4)), Thing("b", 0.8, (2, 2, 6, 6))
    ids = Instances((pair,), (6, 6)).ids(0)
    assert ids[3, 3] == 1 and ids[5, 5] == 2 and ids[0, 5] == 0
    image = Instances((pair, ()), (6, 6)).to_image()
    assert image.shape == (2, 6, 6, 3) and not image[1].any() and float(image[0].amax()) == 1
    assert len({tuple(c.tolist()) for c in colours(500)}) == 501


@pytest.mark.parametrize("name", ["pack", "coco"])
def test_nothing_is_lost_on_the_way(name: str) -> None:
    things = some()
    if name == "pack":
        about, tensors = things.pack()
        back = Instances.unpack(json.loads(json.dumps(about)), tensors)
    else:
        back = coco.from_coco(json.loads(json.dumps(coco.to_coco(things))))
    assert same(things, back)


def test_a_part_and_a_whole_of_a_batch() -> None:
    things = some()
    assert len(things) == 3 and same(Instances.join([things[0], things[1:]]), things) and len(things[-1]) == 1
    assert things.to("cpu") is things
    with pytest.raises(SignalError, match="cannot follow"):
        Instances.join([things, Instances(((),), (5, 5))])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Thing("a", math.nan, (0, 0, 1, 1)), "score"),
        (lambda: Thing("a", 1.5, (0, 0, 1, 1)), "score"),
        (lambda: Thing("a", 0.5, (0, 0, math.nan, 1)), "box"),
        (lambda: Thing("a", 0.5, (5, 0, 1, 1)), "x0 <= x1"),
        (lambda: Thing("a", 0.5), "neither a box nor a mask"),
        (lambda: Thing("a", 0.5, mask=torch.ones(3, 3)), "bool"),
        (lambda: Thing("a", 0.5, (0, 0, 1, 1), points=torch.ones(3, 3)), r"\(N,2\)"),
        (lambda: Instances(((Thing("a", box=(50, 0, 60, 5)),),), (20, 20)), "lies outside picture 0"),
        (lambda: Instances(((Thing("a", mask=torch.ones(3, 4, dtype=torch.bool)),),), (4, 4)), "4x3"),
        (lambda: Instances((), (4, 4)), "every picture"),
        (lambda: Instances(((),), (0, 4)), "size"),
    ],
)
def test_what_is_no_thing_is_refused(make: Any, message: str) -> None:
    with pytest.raises(SignalError, match=message):
        make()


def test_a_damaged_pack_is_told() -> None:
    about, tensors = some().pack()
    for broken in (
        {**tensors, "lengths": tensors["lengths"] + 1},
        {**tensors, "count": tensors["count"] + 1},
        {**tensors, "extent": tensors["extent"] + 5},
        {k: v for k, v in tensors.items() if k != "box"},
    ):
        with pytest.raises((SignalError, KeyError, ValueError, RuntimeError)):
            Instances.unpack(about, broken)


def test_things_are_called_by_any_synonym_and_the_closest_is_told() -> None:
    classes = ("person, individual, someone", "traffic light", "sky")
    things = Instances(
        ((Thing(classes[0], box=(0, 0, 1, 1)), Thing(classes[1], box=(0, 0, 1, 1))), ()), (4, 4), classes
    )
    assert things.called("Someone") == ((0,), ()) and things.called("individual, traffic light") == ((0, 1), ())
    assert things.called("sky") == ((), ()) and things.called(classes[0]) == ((0,), ())
    with pytest.raises(SettingError, match="Did you mean person"):
        things.called("persn")
    with pytest.raises(SettingError, match="no class 'cat'"):
        things.called("sky, cat")
    assert Instances(((),), (4, 4)).called("cat") == ((),)


def test_duplicates_and_empty_ones_go_when_asked() -> None:
    size = 10, 10
    a, b = block(size, 0, 0, 8, 8), block(size, 0, 0, 8, 7)
    things = (Thing("x", 0.9, mask=a), Thing("x", 0.8, mask=b), Thing("y", 0.7, mask=a), Thing("x", 0.6, mask=a & ~a))
    whole = Instances((things,), size)
    assert iou(things[0], things[1], size) == pytest.approx(56 / 64)
    assert without_duplicates(whole).things[0] == (things[0], things[2], things[3])
    assert without_duplicates(whole, 0.9).things[0] == things
    assert without_empty(whole).things[0] == things[:3]


def test_a_thousand_things_in_sixteen_megapixels_stay_small() -> None:
    generator = torch.Generator().manual_seed(0)
    size = 4096, 4096
    disc = (torch.linspace(-1, 1, 700)[:, None] ** 2 + torch.linspace(-1, 1, 700) ** 2) <= 1
    runs = Runs.of(disc)
    things = []
    for n in range(1000):
        top, left = torch.randint(0, 4096 - 700, (2,), generator=generator).tolist()
        placed = Runs(size, (top + runs.extent[0], left + runs.extent[1], *runs.extent[2:]), runs.lengths.clone())
        things.append(Thing("person", n / 1000, mask=placed))
    whole = Instances((tuple(things),), size)
    _, tensors = whole.pack()
    assert sum(t.numel() * t.element_size() for t in tensors.values()) < 20e6
    assert int(whole.ids(0).amax()) > 980


# ---------------------------------------------------------------------------------------------- COCO


def test_masks_are_written_as_pycocotools_does() -> None:
    masks = pytest.importorskip("pycocotools.mask")
    import numpy as np

    for seed in range(60):
        height, width = torch.randint(1, 40, (2,), generator=torch.Generator().manual_seed(seed)).tolist()
        mask = random_mask(height, width, seed, (seed % 11) / 10)
        if seed % 3 == 0:
            mask[: height // 2] = False
            mask[:, width // 3 :] = False
        ours = coco.encode_mask(Runs.of(mask))
        theirs = masks.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        assert ours["counts"] == theirs["counts"].decode() and ours["size"] == theirs["size"]
        assert torch.equal(coco.decode_mask(ours, (height, width)).whole(), mask)


def test_run_lengths_by_hand() -> None:
    # Down the columns: 1 empty, 2 filled, 3 empty.
    mask = torch.tensor([[0, 1, 0], [1, 0, 0]]).bool()
    assert coco.encode_mask(Runs.of(mask)) == {"size": [2, 3], "counts": "123"}
    assert torch.equal(coco.decode_mask({"size": [2, 3], "counts": [1, 2, 3]}, (2, 3)).whole(), mask)
    triangle = coco.decode_mask([[0, 0, 4, 0, 4, 4]], (5, 5)).whole()
    assert bool(triangle[0, 4]) and not bool(triangle[4, 0])


def test_pycocotools_reads_what_is_written(tmp_path: Any) -> None:
    module = pytest.importorskip("pycocotools.coco")
    things = some()
    things.save(tmp_path / "found.json")
    api = module.COCO(str(tmp_path / "found.json"))
    assert [len(api.getAnnIds(imgIds=[n])) for n in api.getImgIds()] == [3, 0, 1]
    face, person, dog = api.loadAnns(api.getAnnIds(imgIds=[1]))
    assert torch.equal(torch.from_numpy(api.annToMask(person)).bool(), things.things[0][1].mask)
    assert int(api.annToMask(face).sum()) > 0 and face["score"] == 0.9 and "score" not in dog
    assert {c["name"] for c in api.loadCats(api.getCatIds())} == {"a", "face", "person", "dog"}


def test_annotations_of_others_come_best_first() -> None:
    boxes = [{"image_id": 7, "category_id": 3, "bbox": [0, 0, 2, 2], "score": score} for score in (0.2, 0.9)]
    image = {"id": 7, "width": 4, "height": 3}
    found = coco.from_coco({"images": [image], "categories": [{"id": 3, "name": "cat"}], "annotations": boxes})
    assert [t.score for t in found.things[0]] == [0.9, 0.2] and found.classes == ("cat",) and found.size == (3, 4)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([], "not COCO"),
        ({"images": [], "categories": [], "annotations": []}, "0 sizes"),
        ({"images": [IMAGE, {**IMAGE, "id": 2, "width": 3}], "categories": [], "annotations": []}, "2 sizes"),
        (
            {
                "images": [IMAGE],
                "categories": [{"id": 1, "name": "a"}],
                "annotations": [{**FOUND, "segmentation": {"size": [2, 2], "counts": "9"}}],
            },
            "does not fill",
        ),
    ],
)
def test_what_is_not_coco_is_told(told: Any, message: str) -> None:
    with pytest.raises(SignalError, match=message):
        coco.from_coco(told)


# ---------------------------------------------------------------------------------------------- files


def test_a_png_holds_which_thing_is_seen_where(tmp_path: Any) -> None:
    import numpy as np
    from PIL import Image

    things = some()[0]
    things.save(tmp_path / "ids.png")
    with Image.open(tmp_path / "ids.png") as image:
        assert np.array_equal(np.asarray(image), things.ids(0).numpy())
    back = load_signal(tmp_path / "ids.png")
    assert isinstance(back, Instances) and torch.equal(back.ids(0), things.ids(0))
    assert [(t.name, t.score, t.box) for t in back.things[0]] == [(t.name, t.score, t.box) for t in things.things[0]]
    things.save(tmp_path / "ids.json")
    assert load_signal(tmp_path / "ids.png")._rest() == things._rest()
    with pytest.raises(SignalError, match="one picture"):
        some().save(tmp_path / "all.png")


@pytest.mark.parametrize("format", ["json", "npz", "safetensors"])
def test_files_keep_every_bit(tmp_path: Any, format: str) -> None:
    for n, things in enumerate((some(), Instances(((), ()), (5, 7)))):
        (path,) = things.save(tmp_path / f"{n}.{format}")
        assert load_signal(path)._rest() == things._rest()


def test_a_scene_keeps_things_in_its_slots(tmp_path: Any) -> None:
    scene = Scene(torch.zeros(3, 20, 30, 3), {"faces": some(), "objects": some()})
    scene.save(tmp_path)
    back = Scene.load(tmp_path)
    assert back["faces"]._rest() == some()._rest() and tuple(back) == ("faces", "objects")
