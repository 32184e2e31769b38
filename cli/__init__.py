"""The shell's door: `fathom annotate`, `fathom compare`, `fathom models`, `fathom bundle`, `fathom tool`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .common import open_picture

__all__ = ["main", "open_picture"]

INTERRUPTED = 130
_PATIENCE = 3.5  # seconds between an interrupt and the end, whatever hinders it


def main() -> None:
    """Run the command line; exit status 0 = done, 1 = an error told in one paragraph, 2 = misuse, 3 = done but some
    pictures failed, 130 = interrupted."""
    with _interrupts():
        from ..errors import FathomError
        from .app import app
        from .common import tell_error

        try:
            app()
        except FathomError as error:
            tell_error(error)
            sys.exit(1)


@contextmanager
def _interrupts() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, and end the process with 130 whatever becomes of that.

    Libraries turn it into errors of their own, or lose it; a thread may compute for minutes, or a lock stay closed for
    good. So the number of the signal also goes into a pipe, at once and below Python, and a thread that reads it there
    lets the process wait no longer than a moment. What was written is whole, as after any kill.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    struck = False

    def strike(*_: Any) -> None:
        nonlocal struck
        if struck:
            _leave()
        struck = True
        raise KeyboardInterrupt

    def watch() -> None:
        while (numbers := os.read(ear, 1)) not in (b"", bytes([signal.SIGINT])):
            pass
        if numbers:
            time.sleep(_PATIENCE)
            _leave()

    ear, mouth = os.pipe()
    if os.name != "nt":
        os.set_blocking(mouth, False)
    before = signal.signal(signal.SIGINT, strike)
    heard = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True, name="fathom-interrupts")
    try:
        watcher.start()
        yield
    finally:
        if struck:
            _leave()
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(heard)
        os.close(mouth)
        watcher.join()
        os.close(ear)


def _leave() -> None:
    """End at once: threads that still compute would be cut off in the middle of their libraries' own endings."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(INTERRUPTED)
