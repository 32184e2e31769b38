"""Odd pictures for every estimator, over its tiny variant: a sound signal of the right size, or a FathomError."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))
import test_files
from test_contract import Prompted, representatives
from test_files import SEED, in_time

from fathom import FathomError
from fathom.signals import Signal

pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore")]


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(SEED))


def with_value(value: float) -> torch.Tensor:
    picture = noise(1, 24, 32, 3)
    picture[0, 3, 4, 1] = value
    return picture


def closed() -> Image.Image:
    image = Image.new("RGB", (30, 20))
    image.close()
    return image


# What is a picture, if an odd one: it gives a signal.
GOOD: dict[str, Callable[[], Any]] = {
    "one pixel": lambda: noise(1, 1, 1, 3),
    "one row": lambda: noise(1, 1, 90, 3),
    "one column": lambda: noise(1, 90, 1, 3),
    "two pixels": lambda: noise(1, 2, 1, 3),
    "long": lambda: noise(1, 5, 200, 3),
    "black": lambda: torch.zeros(1, 24, 32, 3),
    "white": lambda: torch.ones(1, 24, 32, 3),
    "grey": lambda: noise(1, 24, 32, 1),
    "transparent": lambda: noise(1, 24, 32, 4),
    "bytes": lambda: (noise(1, 24, 32, 3) * 255).byte(),
    "half": lambda: noise(1, 24, 32, 3).half(),
    "bfloat16": lambda: noise(1, 24, 32, 3).bfloat16(),
    "double": lambda: noise(1, 24, 32, 3).double(),
    "beyond": lambda: noise(1, 24, 32, 3) * 9 - 4,
    "huge": lambda: with_value(3e38),
    "tiny numbers": lambda: with_value(1e-45),
    "planes": lambda: noise(1, 3, 24, 32).permute(0, 2, 3, 1),
    "strided": lambda: noise(1, 48, 64, 3)[:, ::2, ::2],
    "shared": lambda: noise(1, 1, 1, 3).expand(2, 24, 32, 3),
    "with a gradient": lambda: noise(1, 24, 32, 3).requires_grad_(),
    "of inference": lambda: torch.inference_mode()(noise)(1, 24, 32, 3),
    "pillow": lambda: Image.new("P", (32, 24)),
    "pillow, transparent": lambda: Image.new("LA", (32, 24)),
    "pillow, one bit": lambda: Image.new("1", (32, 24)),
    "pillow, print": lambda: Image.new("CMYK", (32, 24)),
}
# What is none, or whose white nobody knows: it is told.
BAD: dict[str, Callable[[], Any]] = {
    "NaN": lambda: with_value(float("nan")),
    "infinite": lambda: with_value(float("inf")),
    "both infinities": lambda: with_value(float("inf")) - with_value(float("inf")),
    "empty batch": lambda: noise(0, 24, 32, 3),
    "no height": lambda: noise(1, 0, 32, 3),
    "no channels": lambda: noise(1, 24, 32, 0),
    "two channels": lambda: noise(1, 24, 32, 2),
    "channels first": lambda: noise(1, 3, 24, 32),
    "no batch": lambda: noise(24, 32, 3),
    "five dimensions": lambda: noise(1, 1, 24, 32, 3),
    "whole numbers": lambda: torch.ones(1, 24, 32, 3, dtype=torch.int64),
    "truths": lambda: torch.ones(1, 24, 32, 3, dtype=torch.bool),
    "complex": lambda: torch.ones(1, 24, 32, 3, dtype=torch.complex64),
    "sparse": lambda: noise(1, 24, 32, 3).to_sparse(),
    "nested": lambda: torch.nested.nested_tensor([noise(24, 32, 3), noise(24, 30, 3)]),
    "nowhere": lambda: torch.empty(1, 24, 32, 3, device="meta"),
    "none": lambda: None,
    "a text": lambda: "photo.png",
    "an array": lambda: noise(1, 24, 32, 3).numpy(),
    "a list": lambda: [[0.5]],
    "closed": closed,
}


@pytest.fixture(params=representatives())
def tiny(request: pytest.FixtureRequest, tiny_annotator: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    # The patches of the boosted LeReS take their time.
    monkeypatch.setattr(test_files, "SECONDS", 120)
    return Prompted(tiny_annotator(request.param))


def sound(signal: Signal, count: int, size: tuple[int, ...] | None) -> None:
    """One finite row for each picture, which can be drawn."""
    tensors = signal._tensors()
    assert len(signal) == count
    for tensor in tensors.values():
        assert not tensor.is_floating_point() or bool(tensor.isfinite().all())
    image = signal.to_image()
    assert bool(image.isfinite().all()) and (size is None or tuple(image.shape[1:3]) == size)


def test_odd_pictures(tiny: Any, attacks: Callable[..., None]) -> None:
    odd = random.Random(f"{SEED} {tiny.estimator.id}")
    for name, make in GOOD.items():
        picture = make()
        plain = isinstance(picture, torch.Tensor)
        before = picture.detach().clone() if plain else None
        count, size = (len(picture), tuple(picture.shape[1:3])) if plain else (1, (24, 32))
        with in_time():
            if name == "huge":  # a lone number that any sum may lose: whichever it is, nothing silent comes of it
                try:
                    sound(tiny(picture, 0), count, size)
                except FathomError:
                    pass
            else:
                sound(tiny(picture, 0), count, size)
            if max(size) < 64:
                resolution = odd.choice((1, 2, 17, 33))
                sound(tiny(picture, resolution), count, None)
        if before is not None:
            assert torch.equal(picture.detach(), before), name
        attacks("odd pictures, every estimator", 2)
    for make in BAD.values():
        with in_time(), pytest.raises(FathomError) as told:
            tiny._annotator(make(), 0)
        assert len(str(told.value)) < 1000
        attacks("odd pictures, every estimator")


@pytest.mark.parametrize("resolution", [-1, 1.5, "512", float("nan"), 10**9, True, [64]])
def test_odd_resolutions_and_options(tiny: Any, resolution: Any, attacks: Callable[..., None]) -> None:
    picture = noise(1, 24, 32, 3)
    with in_time(), pytest.raises(FathomError):
        tiny(picture, resolution)
    with in_time(), pytest.raises(FathomError):
        tiny(picture, 0, no_such_option=resolution)
    for option in tiny.estimator.options:
        for value in (float("nan"), float("inf"), "\0", [], -(10**9), 10**9):
            if isinstance(value, int) and (option.least or 0) <= value <= (option.most or value):
                continue  # a seed may be any number
            with in_time(), pytest.raises(FathomError):
                tiny(picture, 0, **{option.name: value})
            attacks("odd settings, every estimator")
    attacks("odd settings, every estimator", 2)


def test_autocast_and_threads_change_nothing(tiny: Any, attacks: Callable[..., None]) -> None:
    picture = noise(1, 24, 32, 3)
    plain = tiny(picture, 0)._tensors()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        inside = tiny(picture, 0)._tensors()
    for name, tensor in plain.items():
        assert torch.equal(tensor, inside[name]), name
    attacks("odd settings, every estimator")
