"""Whether what lies on disk is what was published: sizes and hashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .digest import sha256_of
from .search import places
from .sources import Found, Source


@dataclass(frozen=True)
class Verdict:
    """Whether a file is the published one. expected, found: (sha256, size); None = not published, not computed."""

    state: Literal["match", "mismatch", "unknown hash"]
    expected: tuple[str | None, int | None]
    found: tuple[str | None, int | None]


@dataclass(frozen=True)
class Checked:
    """One source, the copy that was looked at and the verdict on each of its files; None: it is not on disk."""

    source: Source
    found: Found | None
    files: Mapping[str, Verdict | None]

    @property
    def state(self) -> str:
        states = ["missing" if v is None else v.state for v in self.files.values()]
        return next((s for s in ("mismatch", "missing", "unknown hash") if s in states), "match")


def verify(path: Path, source: Source, file: str | None = None) -> Verdict:
    """Compare `path` with the published size and sha256 of `file` (default: the main file). Reads the whole
    file when a hash is published and the size is right.
    """
    sha, size = source.pin(file or source.file)
    length = path.stat().st_size
    if size is not None and size != length:
        return Verdict("mismatch", (sha, size), (None, length))
    if sha is None:
        return Verdict("unknown hash", (sha, size), (None, length))
    came = sha256_of(path)
    return Verdict("match" if came == sha else "mismatch", (sha, size), (came, length))


def survey(sources: Sequence[Source]) -> list[Checked]:
    """For every source, each copy on disk with the verdict on its files; one entry without a copy where none is."""
    result = []
    for source in sources:
        copies = list(places(source))
        for found in copies:
            paths = {file: found.part(file) for file in source.files}
            verdicts = {file: verify(p, source, file) if p.is_file() else None for file, p in paths.items()}
            result.append(Checked(source, found, verdicts))
        if not copies:
            result.append(Checked(source, None, dict.fromkeys(source.files)))
    return result
