"""Where long work asks whether it is still wanted. Who runs it says how it is told: annotator/host registers ComfyUI's
cancel, so that code below that room can be stopped too."""

from __future__ import annotations

from collections.abc import Callable

_checks: list[Callable[[], None]] = []


def on_check(ask: Callable[[], None]) -> None:
    """Let every `check` call `ask`, which raises what ends the work."""
    _checks.append(ask)


def check() -> None:
    """Raise what the host raises when the user has cancelled; nothing where nobody asks."""
    for ask in _checks:
        ask()
