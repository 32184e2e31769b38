"""Every command of the shell with what no person means: numbers at their ends, folders for files, odd words."""

from __future__ import annotations

import inspect
import os
import random
import shutil
import sys
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.models import ArgumentInfo, CommandInfo, OptionInfo

sys.path.insert(0, os.path.dirname(__file__))
from test_files import SEED, in_time
from test_hostile_nodes import TURNS
from test_hostile_nodes import WORDS as NODE_WORDS

from fathom import Depth, FathomError
from fathom.cli.app import app
from fathom.signals.files import save_depth

pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore")]

PLAIN = ["photo.png", "metric.npz", "metric.exr", "photos", "photo.png"]
PATHS = [*PLAIN, "text.png", "empty", "K.json", "loop", "none", "/dev/null", "..", "a" * 300, "deep/er.png", "nul.txt"]
NUMBERS = {
    int: ["0", "1", "-1", "2", "7", "64", "99999999999999999999"],
    float: ["nan", "inf", "-inf", "0", "-1", "0.5", "2", "1e308", "5e-324"],
}
WORDS = [
    *(word for word in NODE_WORDS if "\0" not in word),
    *PATHS,
    "fathom-tiny",
    "steps=1",
    "=",
    "cuda:9",
    "-",
    "1:2",
]
RESULTS = ["made.png", "made.exr", "made.npz", "made.ply", "made.glb", "made", "deep/er/made.png", "text.png/made.png"]


def commands() -> Iterator[tuple[list[str], CommandInfo]]:
    for group, prefix in [(app, []), *((g.typer_instance, [g.name]) for g in app.registered_groups)]:
        assert group is not None
        for command in group.registered_commands:
            assert command.callback
            yield [*prefix, command.name or command.callback.__name__.replace("_", "-")], command


COMMANDS = {" ".join(path): command for path, command in commands()}


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a little of everything, in which the commands run."""
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    monkeypatch.setenv("FATHOM_BUNDLES", str(inside / "bundles"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fill(inside)
    return inside


def fill(folder: Path) -> None:
    levels = np.random.default_rng(0)
    (folder / "photos").mkdir()
    (folder / "empty").mkdir()
    Image.fromarray(levels.integers(0, 255, (24, 32, 3), np.uint8)).save(folder / "photo.png")
    shutil.copy(folder / "photo.png", folder / "photos" / "a.png")
    metric = Depth(torch.from_numpy(levels.random((1, 24, 32), np.float32)) * 5 + 1, "metric")
    save_depth(metric, folder / "metric.npz")
    save_depth(metric, folder / "metric.exr")
    (folder / "text.png").write_text("no picture")
    (folder / "nul.txt").write_bytes(b"a\0b\n")
    (folder / "K.json").write_text('{"fx": 30, "fy": 30, "cx": 16, "cy": 12}')
    (folder / "loop").symlink_to("loop")


def value(name: str, kind: Any, rng: random.Random) -> str:
    """Something for an argument of this annotation."""
    kinds = [kind, *typing.get_args(kind)]
    if name == "out":
        return rng.choice(RESULTS if rng.random() < 0.8 else PATHS)
    for part in kinds:
        if typing.get_origin(part) is typing.Literal and rng.random() < 0.8:
            return rng.choice(typing.get_args(part))
        if isinstance(part, type) and issubclass(part, Enum) and rng.random() < 0.8:
            return rng.choice(list(part)).value
        if part in NUMBERS and rng.random() < 0.9:
            return rng.choice(NUMBERS[part])
        if part is Path:
            return rng.choice(PATHS if rng.random() < 0.5 else PLAIN)
    return rng.choice(WORDS)


def line(command: CommandInfo, rng: random.Random) -> list[str]:
    """Arguments for a command: most of what it needs as it should be, and some options."""
    assert command.callback
    hints = typing.get_type_hints(command.callback, include_extras=True)
    needed, given = [], []
    for name, parameter in inspect.signature(command.callback).parameters.items():
        kind, *more = typing.get_args(hints[name]) or [hints[name]]
        about = next((m for m in more if isinstance(m, (OptionInfo, ArgumentInfo))), None)
        if isinstance(about, ArgumentInfo):
            needed.append(rng.choice(PLAIN) if rng.random() < 0.85 else value("", kind, rng))
        elif isinstance(about, OptionInfo):
            required = parameter.default is inspect.Parameter.empty or name == "out"
            if required or rng.random() < 0.2:
                long = [d for d in about.param_decls or () if d.startswith("--")] or [f"--{name.replace('_', '-')}"]
                given += long[0].split("/")[:1] if kind is bool else [long[0], value(name, kind, rng)]
    if "--engine" in given:  # a cluster has its own tests
        at = given.index("--engine")
        del given[at : at + 2]
    return [*needed, *given]


@pytest.mark.parametrize("name", COMMANDS)
def test_odd_arguments(name: str, inside: Path, attacks: Callable[..., None], capfd: Any) -> None:
    rng = random.Random(f"{SEED} {name}")
    root = typer.main.get_command(app)
    for _ in range(4 * TURNS):
        arguments = [*name.split(), *line(COMMANDS[name], rng)]
        with in_time():
            try:
                root.main(arguments, prog_name="fathom", standalone_mode=False)
            except (FathomError, typer.Exit):
                pass
            except Exception as error:
                # Misuse, as the library of the command line tells it; it lies in another module in newer versions.
                assert any(kind.__name__ == "ClickException" for kind in type(error).__mro__), arguments
        attacks("commands of the shell, odd arguments")
        assert "Traceback" not in capfd.readouterr().err, arguments
        for path in inside.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        fill(inside)
    assert [path.name for path in inside.parent.iterdir()] == ["inside"]
