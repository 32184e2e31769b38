"""Counts the attacks of a run, and prints them by kind at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

_COUNTS = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Nothing has been attacked yet."""
    config.stash[_COUNTS] = Counter()


@pytest.fixture
def attacks(request: pytest.FixtureRequest) -> Callable[..., None]:
    """A function (kind, number = 1) that counts attacks."""

    def count(kind: str, number: int = 1) -> None:
        request.config.stash[_COUNTS][kind] += number

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table."""
    counts = terminalreporter.config.stash[_COUNTS]
    if counts:
        terminalreporter.section("attacks")
        for kind, number in sorted(counts.items()):
            terminalreporter.line(f"{number:7,}  {kind}")
