"""The books of a mass run, damaged between two runs, and disks that are full: what follows has the bytes of a run that
nobody disturbed, or is refused in words.

FATHOM_ATTACK_SEED chooses the damage (17 by default), FATHOM_ATTACK_BOOKS how often (24).
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))
from mass_runs import annotate, photo, tree
from test_files import SEED, in_time, mutants
from test_hostile_signals import rewritten

from fathom import FathomError
from fathom.mass import stores

pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore")]
COUNT = int(os.environ.get("FATHOM_ATTACK_BOOKS", "24"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos (in), and a run over them (out)."""
    root = tmp_path_factory.mktemp("books")
    for n in range(6):
        photo(root / "in" / f"p{n}.png", n)
    (root / "in" / "broken.jpg").write_bytes(b"broken")
    annotate(root / "in", root / "out", chunk=2)
    return root


def test_damaged_books(finished: Path, tmp_path: Path, attacks: Callable[..., None]) -> None:
    whole = tree(finished / "out")
    rng = random.Random(f"{SEED} books")
    books = sorted((finished / "out" / ".fathom").rglob("*.json*"))
    assert len(books) > 3
    for number in range(COUNT):
        out = tmp_path / str(number)
        shutil.copytree(finished / "out", out)
        book = out / rng.choice(books).relative_to(finished / "out")
        data = book.read_bytes()
        if number % 2:
            lines = data.decode().splitlines() if book.suffix == ".jsonl" else [data.decode()]
            at = rng.randrange(len(lines))
            lines[at] = next(iter(rewritten(lines[at], f"{number}", 1)))
            book.write_bytes("\n".join([*lines, ""]).encode())
        else:
            book.write_bytes(next(iter(mutants(data, f"{number}"))))
        with in_time():
            try:
                annotate(finished / "in", out, chunk=2)
            except FathomError as error:
                # Settings that read well and differ are another run's.
                assert book.name == "job.json" and len(str(error)) < 50_000
                annotate(finished / "in", out, chunk=2, resume=False)
        assert results_of(out) == results_of(finished / "out"), (number, book.name)
        assert whole.keys() == tree(out).keys()
        attacks("books of a run, damaged, then resumed")
        shutil.rmtree(out)


def results_of(root: Path) -> dict[str, str]:
    # A word of the books, such as why a picture failed, may be changed unnoticed: no result follows from it.
    return {name: sha for name, sha in tree(root).items() if not name.startswith((".fathom/", "failed.jsonl"))}


class _Full:
    """A file on a disk that takes half of what is written."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> None:
        """Half of it, then the system's error."""
        self._file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("layout", ["tree", "shards"])
def test_a_disk_that_is_full_at_any_write(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, attacks: Callable[..., None]
) -> None:
    annotate(finished / "in", tmp_path / "whole", chunk=2, layout=layout)
    whole = tree(tmp_path / "whole")
    rng = random.Random(f"{SEED} {layout}")
    write = stores._Writing.write
    left = [0]

    def counted(self: Any, data: bytes) -> Any:
        left[0] -= 1
        if left[0] < 0:
            self._file = _Full(self._file)
        return write(self, data)

    out = tmp_path / "out"
    for _ in range(COUNT // 3):
        left[0] = rng.randrange(20)
        with monkeypatch.context() as patch, in_time():
            patch.setattr(stores._Writing, "write", counted)
            try:
                annotate(finished / "in", out, chunk=2, layout=layout)
            except FathomError as error:
                assert "full" in str(error)
            else:
                shutil.rmtree(out)  # it was finished: again from nothing
        attacks("a full disk in a run, then resumed")
    annotate(finished / "in", out, chunk=2, layout=layout)
    assert tree(out) == whole
