"""Which one: by depth, size, score, side, name, point; along a video; drawn."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from fathom import Depth, Segmentation, SettingError, SignalError
from fathom.signals import Palette
from fathom.signals.depth import depth_from_metres
from fathom.signals.instances import FACE, Instances, Thing
from fathom.tools.instances import boxes_of, draw, follow, masks_of, pick, select, thing_depth
from fathom.tools.regions import depth_by_region, order_regions

SIZE = 48, 64


def disc(x: float, y: float, radius: float, size: tuple[int, int] = SIZE) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return torch.hypot(columns - x + 0.0, rows - y + 0.0) <= radius


def made_scene(seed: int) -> tuple[Instances, Depth, list[float]]:
    """Up to six discs at known distances, painted from back to front: things, depth, distance of each thing."""
    generator = torch.Generator().manual_seed(seed)

    def draw_number(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    count = seed % 7
    metres = torch.full(SIZE, 60.0)
    shapes = []
    for _ in range(count):
        # Some stand at the very border, some overlap, and every third scene has two at one distance.
        distance = round(draw_number(1, 30), 3)
        shapes.append((disc(draw_number(-3, 66), draw_number(-3, 51), draw_number(5, 11)), distance))
    if seed % 3 == 0 and count > 1:
        shapes[1] = shapes[1][0], shapes[0][1]
    order = sorted(range(count), key=lambda n: -shapes[n][1])
    for n in order:
        metres[shapes[n][0]] = shapes[n][1]
    things, distances = [], []
    for n, (mask, distance) in enumerate(shapes):
        nearer = [shapes[m][0] for m in order[order.index(n) + 1 :]]
        seen = mask & ~torch.stack(nearer).any(0) if nearer else mask
        # A detector's mask reaches a little over what stands before a thing.
        whole = mask if int((mask & ~seen).sum()) * 3 < int(mask.sum()) else seen
        if int(seen.sum()) > 20:
            things.append(Thing("person", 0.9 - n / 10, mask=whole))
            distances.append(distance)
    return Instances((tuple(things),), SIZE), depth_from_metres(metres[None]), distances


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_the_order_in_depth_is_right_in_made_scenes(start: int) -> None:
    for seed in range(start, start + 50):
        things, depth, distances = made_scene(seed)
        right = sorted(range(len(distances)), key=lambda n: distances[n])
        for rank in (1, 2, 3, -1, -2):
            picked = pick(things, depth, rank=rank, erode=1)
            told = picked.choices[0]
            if not -len(right) <= rank <= len(right):
                assert told["number"] is None and not picked.mask.any() and picked.instances.things == ((),)
                assert math.isnan(picked.depth) and picked.boxes() == [[]]
                continue
            wanted = right[rank - 1 if rank > 0 else rank]
            assert told["number"] == wanted + 1, (seed, rank, distances)
            assert picked.depth == pytest.approx(distances[wanted], rel=1e-4)
            assert torch.equal(picked.mask[0] > 0, things.things[0][wanted].mask)  # pyright: ignore


def line_up() -> Instances:
    things = (
        Thing("person", 0.9, mask=disc(10, 24, 8)),
        Thing("dog", 0.8, mask=disc(50, 24, 4)),
        Thing("person", 0.7, mask=disc(32, 24, 6)),
    )
    return Instances((things,), SIZE, ("person", "dog", "cat"))


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"by": "size"}, 1),
        ({"by": "size", "rank": -1}, 2),
        ({"by": "score", "rank": 2}, 2),
        ({"by": "left to right", "rank": 2}, 3),
        ({"by": "left to right", "rank": -1}, 2),
        ({"by": "size", "names": "dog"}, 2),
        ({"by": "left to right", "names": "person", "rank": 2}, 3),
        ({"by": "point", "point": (32.5, 24.5)}, 3),
        ({"by": "point", "point": (0.5, 0.5)}, None),
        ({"by": "size", "names": "cat"}, None),
        ({"by": "size", "rank": 4}, None),
        ({"by": "size", "rank": -4}, None),
    ],
)
def test_ranks_that_need_no_depth(settings: dict[str, Any], number: int | None) -> None:
    picked = pick(line_up(), **settings)
    assert picked.choices[0]["number"] == number
    assert bool(picked.mask.any()) == (number is not None)
    if number is None:
        assert "choose from" in picked.choices[0]["why"]


def test_of_what_holds_a_point_the_smallest_comes_first() -> None:
    things = Instances(((Thing("a", box=(0, 0, 40, 40)), Thing("b", box=(10, 10, 20, 20))),), SIZE)
    assert pick(things, by="point", point=(15, 15)).choices[0]["name"] == "b"
    assert pick(things, by="point", point=(15, 15), rank=2).choices[0]["name"] == "a"
    assert pick(things, by="point", point=(20, 15)).choices[0]["name"] == "a"


def test_what_was_not_measured_has_no_place_in_depth() -> None:
    valid = torch.ones(1, *SIZE, dtype=torch.bool)
    valid[:, :, :24] = False
    depth = Depth(torch.arange(1.0, 65).expand(1, *SIZE).contiguous(), "affine_inverse", valid)
    assert pick(line_up(), depth, rank=-1).choices[0]["number"] == 3
    assert pick(line_up(), depth, rank=3).choices[0]["number"] is None
    assert pick(line_up(), depth, by="left to right").choices[0]["value"] is None


def test_a_depth_of_another_size_measures_the_same_thing() -> None:
    metres = torch.full((1, 96, 128), 9.0)
    metres[:, :, :44] = 2.0
    small = metres[:, ::3, ::3]
    for field in (metres, small):
        told = thing_depth(line_up().things[0][0], SIZE, depth_from_metres(field.contiguous()))
        assert told["metres"] == pytest.approx(2.0) and told["unit"] == "1/metre"


def test_each_picture_of_a_batch_has_its_own_answer() -> None:
    first, second = made_scene(5), made_scene(6)
    things = Instances.join([first[0], second[0], Instances(((),), SIZE)])
    depth = depth_from_metres(torch.cat([first[1].metres(), second[1].metres(), torch.ones(1, *SIZE)]))
    picked = pick(things, depth, erode=1)
    for i, (_, _, distances) in enumerate((first, second)):
        assert picked.choices[i]["metres"] == pytest.approx(min(distances), rel=1e-4)
    assert picked.choices[2]["number"] is None and picked.mask.shape == (3, *SIZE)
    assert [len(boxes) for boxes in picked.boxes()] == [1, 1, 0]
    assert json.loads(picked.json())[2]["why"] == "there is none to choose from"
    with pytest.raises(SignalError, match="instances of 3 pictures and depth of 1"):
        pick(things, first[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank"),
        ({"by": "depth"}, "connect a depth"),
        ({"by": "point"}, "its x and y"),
        ({"by": "age"}, "by must be one of"),
        ({"by": "size", "names": "prson"}, "Did you mean person"),
    ],
)
def test_what_cannot_be_picked_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        pick(line_up(), **settings)


# ---------------------------------------------------------------------------------------------- video


def walk(places: list[list[tuple[str, float] | None]]) -> Instances:
    """Frames of faces, by name and column; None = not there."""
    frames = [tuple(Thing(p[0], 0.9, (p[1], 10, p[1] + 12, 24)) for p in frame if p is not None) for frame in places]
    return Instances(tuple(frames), SIZE)


def test_the_same_thing_is_followed_although_ranks_change() -> None:
    # Two faces cross in the list and in depth; the one that was nearest at first is wanted.
    frames: list[Any] = [[(FACE, 5 + 2 * n), (FACE, 40 - n)] for n in range(8)]
    frames[3].reverse()
    frames[5] = [(FACE, 35)]
    things = walk(frames)
    metres = torch.ones(8, *SIZE)
    for n, frame in enumerate(frames):
        for _, x in frame:
            left = x < 25
            metres[n, 10:24, int(x) : int(x) + 12] = (2 + n) if left else (5 - n / 2)
    depth = depth_from_metres(metres)
    followed = pick(things, depth, video=True, erode=0)
    assert [p[0].box[0] if p else None for p in followed.instances.things] == [5, 7, 9, 11, 13, None, 17, 19]
    assert followed.choices[5]["number"] is None and followed.choices[5]["why"].startswith("lost")
    alone = pick(things, depth, erode=0)
    assert [p[0].box[0] for p in alone.instances.things][-1] == 33


def test_a_thing_is_known_again_after_a_gap_but_not_after_long() -> None:
    gap: list[Any] = [[(FACE, 5)], *[[]] * 5, [(FACE, 6)], *[[]] * 13, [(FACE, 6)]]
    assert [numbers[0] for numbers in follow(walk(gap)) if numbers] == [0, 0, 1]
    assert follow(walk([[("dog", 5)], [("cat", 5)], [("dog", 40)]])) == [[0], [1], [2]]


def test_nobody_is_two_people_at_once() -> None:
    numbers = follow(walk([[(FACE, 10)], [(FACE, 9), (FACE, 11), (FACE, 12)]]))
    assert sorted(numbers[1]) == [0, 1, 2]


# ---------------------------------------------------------------------------------------------- selected, drawn


def test_names_scores_and_sizes_select() -> None:
    things = line_up()
    assert [t.name for t in select(things, "person, dog").things[0]] == ["person", "dog", "person"]
    assert len(select(things, score=0.75).things[0]) == 2
    assert [t.score for t in select(things, least=100 / (48 * 64)).things[0]] == [0.9, 0.7]
    assert [t.score for t in select(things, most=1).things[0]] == [0.9]
    assert masks_of(things).shape == (3, *SIZE) and masks_of(select(things, "cat")).shape == (1, *SIZE)
    with pytest.raises(SettingError, match="no class"):
        select(things, "horse")


def test_what_was_found_is_drawn() -> None:
    face = Thing(FACE, 0.95, (20, 4, 40, 30), points=torch.tensor([[28.0, 12.0]]))
    things = Instances(((face, Thing("person, human", mask=disc(32, 24, 20))), ()), SIZE)
    grey = torch.full((2, *SIZE, 3), 0.5)
    image = draw(grey, things)
    assert image.shape == (2, *SIZE, 3) and float((image[1] - 0.5).abs().amax()) < 0.01
    assert float((image[0, 24, 40] - 0.5).abs().amax()) > 0.05
    assert torch.equal(draw(grey[:1], things), image)
    with pytest.raises(SignalError, match="64x48"):
        draw(torch.zeros(2, 8, 8, 3), things)


def test_boxes_for_others_lie_inside_the_picture() -> None:
    things = Instances(((Thing("a", 0.5, (-3.5, 2.5, 70, 12.25)),), ()), SIZE)
    assert boxes_of(things) == [[{"x": 0, "y": 2, "width": 64, "height": 11, "label": "a", "score": 0.5}], []]


# ---------------------------------------------------------------------------------------------- regions


def test_regions_take_instances() -> None:
    metres = torch.full(SIZE, 20.0)
    for thing, distance in zip(line_up().things[0], (3.0, 9.0, 1.5), strict=True):
        metres[thing.mask] = distance  # pyright: ignore[reportArgumentType, reportCallIssue]
    depth = depth_from_metres(metres[None])
    ordered, chosen, told = order_regions(depth, line_up(), -1, erode=1)
    assert [r["region"] for r in json.loads(told)] == ["person 3", "person 1", "dog 2"]
    assert torch.equal(chosen[0] > 0, line_up().things[0][1].mask) and ordered.shape == (3, *SIZE)  # pyright: ignore
    _, chosen, told = order_regions(depth, line_up(), 5)
    assert not chosen.any() and json.loads(told)[-1] == {"picture": 0, "place": 5, "region": None}
    ordered, chosen, told = order_regions(depth, Instances(((),), SIZE))
    assert ordered.shape == (1, *SIZE) and not ordered.any() and not chosen.any()
    flat, told = depth_by_region(depth, line_up(), fill="flat", erode=1)
    assert float(flat.metres()[0, 24, 32]) == pytest.approx(1.5) and len(json.loads(told)) == 3
    labels = torch.full((1, *SIZE), -1)
    labels[0][line_up().things[0][1].mask] = 0  # pyright: ignore[reportArgumentType, reportCallIssue]
    alike = depth_by_region(depth, Segmentation(labels, Palette("p", ("dog",), ((0, 0, 0),))), erode=1)[0]
    only = Instances(((line_up().things[0][1],),), SIZE)
    assert torch.equal(depth_by_region(depth, only, erode=1)[0].values, alike.values)
    with pytest.raises(SignalError, match="instances of 2 pictures"):
        order_regions(depth, Instances.join([line_up(), line_up()]))
