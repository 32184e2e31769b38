"""Numbers that no tool can use: each is told by its name, with what is expected and what came."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from fathom import Depth, SettingError, SignalError
from fathom.signals.instances import Instances, Thing
from fathom.signals.lines import Lines
from fathom.tools import atmosphere, convert, geometry, instances, lines, parallax, regions, sobel
from fathom.tools.pixels import check_range, check_whole

HUGE = 10**25
IMAGE = torch.rand(1, 12, 16, 3)
DEPTH = Depth(torch.rand(1, 12, 16) + 1, "metric", None, 20.0)
INVERSE = Depth(torch.rand(1, 12, 16), "affine_inverse")
MASK = torch.zeros(12, 16, dtype=torch.bool)
MASK[3:8, 4:12] = True
THINGS = Instances(((Thing("cat", 0.5, mask=MASK),),), (12, 16))
LINES = Lines(torch.rand(1, 12, 16))

CALLS: dict[str, Callable[[Any], Any]] = {
    "step": lambda v: next(geometry.point_clouds(DEPTH, step=v)),
    "edge": lambda v: next(geometry.surfaces(DEPTH, edge=v)),
    "radius": lambda v: geometry.geometric_normals(DEPTH, radius=v),
    "frames": lambda v: parallax.parallax(IMAGE, DEPTH, frames=v),
    "thick": lambda v: lines.lines_by_depth(LINES, DEPTH, thick=v),
    "seed": lambda v: lines.content_shuffle(IMAGE[0], v),
    "most": lambda v: instances.select(THINGS, most=v),
    "erode": lambda v: regions.order_regions(DEPTH, THINGS, erode=v),
    "bg_threshold": lambda v: sobel.foreground(INVERSE, v),
}


@pytest.mark.parametrize("value", [math.nan, HUGE, -HUGE, "x", [1], True], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_a_number_that_cannot_be_is_told_by_its_name(name: str, value: Any) -> None:
    if name == "seed":
        pytest.importorskip("cv2")
    with pytest.raises(SettingError, match=f"{name} must be"):
        CALLS[name](value)


@pytest.mark.parametrize("value", [0.5, 2.0, math.inf])
@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("edge", "bg_threshold")])
def test_what_is_counted_is_whole(name: str, value: float) -> None:
    if name == "seed":
        pytest.importorskip("cv2")
    with pytest.raises(SettingError, match=f"{name} must be a whole number"):
        CALLS[name](value)


def test_the_ends_are_inside() -> None:
    for value in (0, 3, torch.tensor(2)):
        check_whole("n", value, 0, 3)  # pyright: ignore[reportArgumentType]
    for value in (-1, 4, True, 1.0, None):
        with pytest.raises(SettingError, match=r"n must be a whole number in 0\.\.3"):
            check_whole("n", value, 0, 3)  # pyright: ignore[reportArgumentType]
    check_range("x", 0, 0, 3)
    check_range("x", 3.0, 0, 3)
    for number in (-1e-9, 3.0001, math.nan, True, "1"):
        with pytest.raises(SettingError, match=r"x must be a number in 0\.\.3"):
            check_range("x", number, 0, 3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "given", [5, 0.5, None, [1, 2], [0, 0, 2], [0, 0, math.nan], "red", [[1], 0, 0], HUGE], ids=str
)
def test_a_colour_that_is_none(given: Any) -> None:
    with pytest.raises(SettingError, match="a colour must be written"):
        atmosphere.fog(IMAGE, DEPTH, colour_of_fog=given)


@pytest.mark.parametrize(
    "given", [3, [3], [(1, 2)], [("a", 1, 2)], "near", [(1, 2, HUGE**20)]], ids=lambda g: str(g)[:20]
)
def test_points_that_are_none(given: Any) -> None:
    with pytest.raises(SettingError, match="points are"):
        convert.to_metric(INVERSE, points=given)


@pytest.mark.parametrize("given", [(Thing("cat", 0.5, mask=MASK),), 5, None], ids=["things alone", "5", "None"])
def test_things_that_lie_in_no_picture(given: Any) -> None:
    with pytest.raises(SignalError, match="a tuple of them for every picture"):
        Instances(given, (12, 16))
