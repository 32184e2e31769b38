"""Hashes of files, each computed once while the file stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

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


def file_digest(path: Path, notes: Path | None = None) -> str:
    """The sha256 of a file in hex digits, remembered while size, time and inode stay the same: in this process, and
    for later ones in the JSON file `notes`."""
    path = path.resolve()
    with _hashing:
        state = file_state(path)
        key = (str(path), *state)
        if key not in _known:
            noted = _noted(notes).get(str(path)) if notes else None
            if isinstance(noted, list) and noted[:3] == list(state) and len(noted) == 4:
                _known[key] = str(noted[3])
                return _known[key]
            digest = sha256_of(path)
            if state != file_state(path) or time.time() - state[1] / 1e9 < _RESTED:
                return digest
            _known[key] = digest
            if notes:
                _note(notes, str(path), [*state, digest])
        return _known[key]


def _noted(notes: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        read = json.loads(notes.read_text(encoding="utf-8"))
        return read if isinstance(read, dict) else {}
    return {}


def _note(notes: Path, path: str, line: list[Any]) -> None:
    part = notes.with_name(f".{notes.name}.{secrets.token_hex(4)}")
    # A note that is not written costs the next process a hash, no more.
    with suppress(OSError):
        notes.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(json.dumps({**_noted(notes), path: line}, indent=1), encoding="utf-8")
            os.replace(part, notes)
        finally:
            part.unlink(missing_ok=True)


def joint_digest(files: Sequence[tuple[str, Path]], notes: Path | None = None) -> str:
    """One sha256 for (name, path) of several files: of each one's name and sha256, whatever their order. For a single
    file it is that file's own, the one that publishers list, whatever it is called. notes: as in `file_digest`."""
    if len(files) == 1:
        return file_digest(files[0][1], notes)
    lines = sorted(f"{name}\0{file_digest(path, notes)}\n" for name, path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The hash of a whole file, in hex digits. Reading it shows progress and can be interrupted."""
    digest = hashlib.sha256()
    with path.open("rb") as file, host.progress(path.stat().st_size, f"Checking {path.name}", "B") as bar:
        while block := file.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()
