"""Every node with what a program may put into a graph: other types on sockets, numbers at their ends, odd words."""

from __future__ import annotations

import math
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))
from test_files import SEED, in_time
from test_gpu import BY_ESTIMATOR, BY_FILE, inputs, tensors

from fathom import FathomError
from fathom.annotator import host
from fathom.nodes import NODES
from fathom.nodes.base import socket_types

pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore")]

TURNS = int(os.environ.get("FATHOM_ATTACK_TURNS", "12"))
WORDS = [
    "",
    " ",
    "\0",
    "../../x",
    "/etc/passwd",
    "a" * 5000,
    "\ud800",
    "%date:yyyy%",
    "CON",
    "nan",
    "[" * 3000,
    "x\ny=1",
]
LITERALS: list[Any] = [5, "x", [1], {}, math.nan, True, object(), torch.rand(3)]


@pytest.fixture(autouse=True)
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of their own, so that what is written outside of them shows."""
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    monkeypatch.setenv("FATHOM_BUNDLES", str(inside / "bundles"))
    monkeypatch.setattr(host, "temp_folder", lambda: inside / "temp")
    return tmp_path


def declared(node: Any) -> dict[str, Any]:
    types = node.INPUT_TYPES()
    return {**types.get("required", {}), **types.get("optional", {})}


def odd(kind: Any, options: dict[str, Any], rng: random.Random) -> Any:
    """A value that ComfyUI's own checks let through: they compare with `min` and `max`, which NaN passes."""
    if isinstance(kind, list):
        return rng.choice(kind) if kind else "x"
    least, most = options.get("min", 0), options.get("max", 64)
    if kind == "INT":
        return rng.choice((least, min(most, max(least, 96)), options.get("default", least)))
    if kind == "FLOAT":
        return rng.choice(
            (least, most, math.nan, max(least, 5e-324), (least + most) / 2, options.get("default", least))
        )
    if kind == "BOOLEAN":
        return rng.random() < 0.5
    return rng.choice(WORDS)


EACH = [n for n in NODES if n.__name__ not in BY_ESTIMATOR and n.__name__ != "FathomCompareEstimators"]


@pytest.mark.parametrize("node", NODES, ids=lambda n: n.__name__)
def test_literals_on_sockets(node: Any, attacks: Callable[..., None]) -> None:
    given = inputs(node)
    types = socket_types()
    required = node.INPUT_TYPES().get("required", {})
    for name, (kind, *_) in declared(node).items():
        if not isinstance(kind, str) or kind not in types:
            continue
        for value in [*LITERALS, *([None] if name in required else [])]:
            if isinstance(value, types[kind]):
                continue
            with in_time(), pytest.raises(FathomError, match=name):
                node().run(**{**given, name: value})
            attacks("nodes, other types on sockets")


@pytest.mark.parametrize("node", EACH, ids=lambda n: n.__name__)
def test_odd_values_of_widgets(node: Any, rooms: Path, attacks: Callable[..., None]) -> None:
    rng = random.Random(f"{SEED} {node.__name__}")
    usual = inputs(node)
    if node.__name__ == "FathomInspectBundle":
        return
    for _ in range(TURNS):
        given = dict(usual)
        specs = {name: spec for name, spec in declared(node).items() if name in given or node.__name__ in BY_FILE}
        for name, (kind, *more) in specs.items():
            options = more[0] if more else {}
            widget = isinstance(kind, list) or kind in ("INT", "FLOAT", "BOOLEAN", "STRING")
            if widget and not options.get("image_upload") and rng.random() < 0.4:
                given[name] = odd(kind, options, rng)
            elif name not in given and widget:
                given[name] = rng.choice(WORDS)
        with in_time():
            try:
                result = node().run(**given)
            except FathomError as error:
                assert len(str(error)) < 12_000
            else:
                for tensor in tensors(result):
                    assert not tensor.is_floating_point() or not bool(tensor.isnan().any()), given
        attacks("nodes, odd values of widgets")
    assert [p.name for p in rooms.iterdir()] == ["inside"]
