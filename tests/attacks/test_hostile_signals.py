"""Damaged and hostile files of every kind of signal, scenes and bundles: each gives a signal or a FathomError, in time.

FATHOM_ATTACK_SEED chooses the damage (17 by default), FATHOM_ATTACK_COUNT how often each file is damaged (150).
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))
from contend import contend
from test_bundle import depth_of, keep
from test_codec import SIGNALS
from test_files import COUNT, SEED, in_time, mutants

import fathom
from fathom import Depth, FathomError, Scene
from fathom.nodes import bundle as bundle_nodes
from fathom.tools import bundle as store

pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore")]

# What may stand where a word or a number of ours stood.
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 10**400, 1e400, float("nan"), "", "\0", "x" * 10_000, "../../x", "/", [], {}, [[]],
    {"a": {}}, [1], ["a", None], "depth", "normals", 2**63, -(2**70),
]  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything inside what JSON gave."""
    if way:
        yield way
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*way, key))


def rewritten(text: str, seed: str, count: int = COUNT) -> Iterator[str]:
    """JSON texts that differ from `text` in a few places: other values, left out, under other names."""
    rng = random.Random(f"{SEED} {seed}")
    for _ in range(count):
        value = json.loads(text)
        for _ in range(rng.choice((1, 1, 2, 4))):
            ways = list(places(value))
            if not ways:
                break
            *outer, key = rng.choice(ways)
            inside = value
            for step in outer:
                inside = inside[step]
            kind = rng.randrange(4)
            if kind == 0 and isinstance(inside, dict):
                inside[rng.choice(("depth", "\0", "../x", "a" * 300, ""))] = inside.pop(key)
            elif kind == 1:
                del inside[key]
            else:
                inside[key] = copy.deepcopy(rng.choice(ODD))
        yield json.dumps(value)


def whole(signal: Any) -> None:
    """What came back can be used: it has a size and a picture."""
    assert len(signal) >= 0
    _, tensors = signal.pack()
    if len(signal) and sum(tensor.numel() for tensor in tensors.values()) < 2**20:
        image = signal[0].to_image()
        assert bool(image.isfinite().all()) and 0 <= float(image.amin()) and float(image.amax()) <= 1


def forms() -> Iterator[Any]:
    for name, signal in SIGNALS.items():
        for format in signal.FORMATS:
            if format not in ("png", "webp"):
                yield pytest.param(name, format, id=f"{name}-{format}")


@pytest.mark.parametrize(("name", "format"), list(forms()))
def test_damaged_signals(tmp_path: Path, attacks: Callable[..., None], name: str, format: str) -> None:
    signal = SIGNALS[name]
    files = signal.save(tmp_path / f"x.{format.removesuffix('16')}", format)
    contents = {path: path.read_bytes() for path in files}
    for path, data in contents.items():
        for mutant in mutants(data, f"{name} {format}"):
            path.write_bytes(mutant)
            with in_time():
                try:
                    whole(fathom.load_signal(files[-1]))
                except FathomError as error:
                    assert len(str(error)) < 5000
            attacks("files of signals, damaged")
        path.write_bytes(data)


@pytest.mark.parametrize("name", SIGNALS)
def test_hostile_words(tmp_path: Path, attacks: Callable[..., None], name: str) -> None:
    """The words of a kind, changed inside a file that is whole."""
    from fathom.signals import codec

    words, tensors = SIGNALS[name].pack()
    text = codec.described(SIGNALS[name].KIND, words)
    for changed in rewritten(text, name):
        (tmp_path / "x.safetensors").write_bytes(codec.safetensors(tensors, {codec.KEY: changed}, {}))
        with in_time():
            try:
                whole(fathom.load_signal(tmp_path / "x.safetensors"))
            except FathomError as error:
                assert len(str(error)) < 40_000
        attacks("words of signals, changed")


def test_damaged_scenes(tmp_path: Path, attacks: Callable[..., None]) -> None:
    slots = {name: signal for name, signal in SIGNALS.items() if name != "segmentation"}
    Scene(None, slots).save(tmp_path / "scene")
    for name in ("manifest.json", "signals.safetensors"):
        data = (tmp_path / "scene" / name).read_bytes()
        for mutant in mutants(data, name):
            (tmp_path / "scene" / name).write_bytes(mutant)
            with in_time():
                try:
                    Scene.load(tmp_path / "scene")
                except FathomError as error:
                    assert len(str(error)) < 5000
            attacks("scenes and bundles, damaged")
        (tmp_path / "scene" / name).write_bytes(data)
    text = (tmp_path / "scene" / "manifest.json").read_text()
    for changed in rewritten(text, "scene"):
        (tmp_path / "scene" / "manifest.json").write_text(changed)
        with in_time():
            try:
                Scene.load(tmp_path / "scene")
            except FathomError as error:
                assert len(str(error)) < 40_000
        attacks("scenes and bundles, damaged")


def test_damaged_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attacks: Callable[..., None]) -> None:
    """A damaged bundle is made anew, listed or left out, and never takes a node away."""
    monkeypatch.setenv("FATHOM_BUNDLES", str(tmp_path))
    key = keep(tmp_path).metadata["key"]
    expected = depth_of().values
    good = {path.name: path.read_bytes() for path in (tmp_path / key).iterdir()}
    rng = random.Random(SEED)
    texts = rewritten(good["manifest.json"].decode(), "bundle")
    for number, text in enumerate(texts):
        name = rng.choice(list(good))
        mutant = text.encode() if number % 2 else next(iter(mutants(good[name], str(number))))
        (tmp_path / key / ("manifest.json" if number % 2 else name)).write_bytes(mutant)
        with in_time():
            store.list_bundles(tmp_path)
            store.verify_bundle(tmp_path, key)
            bundle_nodes.FathomLoadBundle.INPUT_TYPES()
            try:
                store.load_bundle(tmp_path, key)
            except FathomError:
                pass
            assert torch.equal(keep(tmp_path).depth.values, expected)
        attacks("scenes and bundles, damaged")
        for file, data in good.items():
            (tmp_path / key / file).write_bytes(data)


def test_odd_entries_of_a_bundle_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATHOM_BUNDLES", str(tmp_path))
    key = keep(tmp_path).metadata["key"]
    (tmp_path / ("a" * 32)).write_text("a file")
    (tmp_path / ("b" * 32)).mkdir()
    (tmp_path / ("b" * 32) / "manifest.json").write_text("[" * 100_000)
    (tmp_path / ("c" * 32)).symlink_to(tmp_path / ("c" * 32))
    (tmp_path / ("d" * 32)).mkdir()
    (tmp_path / ("d" * 32) / "manifest.json").mkdir()
    (tmp_path / "digests.json").write_text("{" * 100_000)
    assert key in bundle_nodes.FathomLoadBundle.INPUT_TYPES()["required"]["key"][0]
    assert torch.equal(keep(tmp_path).depth.values, depth_of().values)
    assert torch.equal(keep(tmp_path, 1, limit=0).depth.values, depth_of(1).values)


def test_processes_on_one_bundle(tmp_path: Path, attacks: Callable[..., None]) -> None:
    """Several processes make, pin, drop and remove the same three bundles: each gets what it asked for."""
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=contend, args=(tmp_path, number)) for number in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    assert [process.exitcode for process in running] == [0] * 4  # what a process raised stands in its output
    attacks("uses of one bundle by four processes", 32)
    for seed in range(3):
        assert torch.equal(keep(tmp_path, seed).depth.values, depth_of(seed).values)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_bundle_folder_that_may_only_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    keep(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy")
    (tmp_path / "copy").chmod(0o500)
    assert isinstance(keep(tmp_path / "copy", pin=True, limit=0)["depth"], Depth)
