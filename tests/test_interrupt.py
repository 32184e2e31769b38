"""Work on a batch can be cancelled between its pictures, wherever a person may wait for it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import fathom
from fathom import Depth, interrupt
from fathom.annotator import host
from fathom.nodes.depth_io import FathomSaveDepth
from fathom.signals import codec
from fathom.signals.field import percentiles
from fathom.signals.lines import Lines
from fathom.tools.geometry import geometric_normals, point_clouds, surfaces
from fathom.tools.inspection import false_colour
from fathom.tools.lines import lines_by_depth

COUNT = 5


class Cancelled(BaseException):
    """As ComfyUI's interrupt, no Exception."""


@pytest.fixture
def depth() -> Depth:
    """Pictures so large that each is a piece of its own."""
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(COUNT, 1200, 1200, generator=generator) + 1
    return Depth(values, "metric", values > 1.01, focal=900.0)


def asked(monkeypatch: pytest.MonkeyPatch, at: int = -1) -> list[int]:
    """The asks from now on; the one with the number `at` is answered with a cancel."""
    asks: list[int] = []

    def ask() -> None:
        asks.append(len(asks))
        if asks[-1] == at:
            raise Cancelled

    monkeypatch.setattr(interrupt, "_checks", [ask])
    return asks


def works(depth: Depth) -> dict[str, Any]:
    return {
        "picture": lambda: depth.to_image(),
        "false colours": lambda: false_colour(depth),
        "percentiles": lambda: percentiles(depth.values, (2.0, 85.0), depth.valid, "image"),
        "npz": lambda: codec.npz({"values": depth.values}, {}, {"source": "test"}),
    }


@pytest.mark.parametrize("name", list(works(Depth(torch.ones(1, 2, 2), "metric"))))
def test_it_asks_for_each_picture_and_ends_when_told(name: str, depth: Depth, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = asked(monkeypatch)
    works(depth)[name]()
    assert len(asks) >= COUNT
    asks = asked(monkeypatch, at=2)
    with pytest.raises(Cancelled):
        works(depth)[name]()
    assert len(asks) == 3


@pytest.mark.parametrize("name", ["normals", "lines", "clouds", "surfaces"])
def test_pictures_are_worked_on_one_after_the_other(name: str, depth: Depth) -> None:
    """What one picture gives does not depend on the others, so that a batch may be left in the middle."""
    small = Depth(depth.values[:3, :60, :80], "metric", depth.valid[:3, :60, :80], focal=70.0)  # pyright: ignore
    strokes = Lines(small.values - 1, "test")
    work = {
        "normals": lambda d, s: [(n.vectors, n.valid) for n in [geometric_normals(d)]],
        "lines": lambda d, s: [(lines_by_depth(s, d, thick=3).strength,)],
        "clouds": lambda d, s: [(c.positions,) for c in point_clouds(d)],
        "surfaces": lambda d, s: [(c.vertices, c.faces, c.uv) for c in surfaces(d)],
    }[name]
    whole = work(small, strokes)
    for place in range(3):
        (alone,) = work(small[place], Lines(strokes.strength[place : place + 1], "test"))
        parts = whole[place] if len(whole) == 3 else [t[place : place + 1] for t in whole[0]]
        for a, b in zip(parts, alone, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_an_npz_is_what_numpy_writes(depth: Depth) -> None:
    tensors = {"values": depth.values[:1, :9, :7], "valid": depth.values[:1] > 1.5, "none": torch.zeros(0, 4)}
    data = codec.npz(tensors, {"note": "ä text"}, {"names": ["a", "bc"]})
    out = io.BytesIO()
    arrays = {"names": np.array(["a", "bc"]), "note": np.array("ä text")}
    np.savez_compressed(out, **arrays, **{name: tensor.numpy() for name, tensor in tensors.items()})
    with np.load(io.BytesIO(data)) as mine, np.load(io.BytesIO(out.getvalue())) as theirs:
        assert mine.files == theirs.files
        for name in mine.files:
            assert mine[name].dtype == theirs[name].dtype and mine[name].shape == theirs[name].shape
            assert (mine[name] == theirs[name]).all()


def test_a_cancelled_save_leaves_whole_pictures_and_no_taken_names(
    depth: Depth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = Depth(depth.values[:, :40, :50], "metric", focal=50.0)
    asked(monkeypatch, at=2)
    with pytest.raises(Cancelled):
        FathomSaveDepth().execute(small, "kept", "png16")
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 2 and all(p.stat().st_size for p in pictures)
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".png", ".json")]


@pytest.mark.parametrize("id", ["ShufflePreprocessor", "BinaryPreprocessor", "Scribble_XDoG_Preprocessor"])
def test_old_ids_that_draw_ask_too(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asks: list[None] = []
    monkeypatch.setattr(host, "progress", lambda total, *_: told(asks))
    node = fathom.NODE_CLASS_MAPPINGS[id]()
    (made,) = getattr(node, node.FUNCTION)(image=torch.rand(COUNT, 20, 30, 3), resolution=64)
    assert len(made) == COUNT == len(asks)


@contextmanager
def told(asks: list[None]) -> Iterator[Any]:
    """Progress that notes every step."""
    yield SimpleNamespace(update=lambda *_: asks.append(None))
