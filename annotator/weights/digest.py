"""Hashes of files, each computed once while the file stays as it is."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .. import host

# Seconds that a file must have rested before its hash is kept: clocks of file systems are coarse, and a change within
# the same tick would not show.
_RESTED = 2.0

_known: dict[tuple[str, int, int, int], str] = {}
_hashing = threading.Lock()


def file_state(path: Path) -> tuple[int, int, int]:
    """What tells that a file was replaced or written to: (size, time of change in ns, inode). Opens nothing.

    Raises OSError where there is none.
    """
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


def file_digest(path: Path) -> str:
    """The sha256 of a file in hex digits, remembered in this process while size, time and inode stay the same."""
    path = path.resolve()
    with _hashing:
        state = file_state(path)
        key = (str(path), *state)
        if key not in _known:
            digest = sha256_of(path)
            if state != file_state(path) or time.time() - state[1] / 1e9 < _RESTED:
                return digest
            _known[key] = digest
        return _known[key]


def joint_digest(files: Sequence[tuple[str, Path]]) -> str:
    """One sha256 for (name, path) of several files: of each one's name and sha256, whatever their order. For a single
    file it is that file's own, the one that publishers list, whatever it is called."""
    if len(files) == 1:
        return file_digest(files[0][1])
    lines = sorted(f"{name}\0{file_digest(path)}\n" for name, path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The hash of a whole file, in hex digits. Reading it shows progress and can be interrupted."""
    digest = hashlib.sha256()
    with path.open("rb") as file, host.progress(path.stat().st_size, f"Checking {path.name}", "B") as bar:
        while block := file.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
