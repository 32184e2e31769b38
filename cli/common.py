"""What several commands share: where they talk to, how they show waiting, how they open a picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FathomError, PictureError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@cache
def console() -> Console:
    """Standard error, for people."""
    from rich.console import Console

    return Console(stderr=True)


def tell_error(error: FathomError) -> None:
    """Print an error as one paragraph."""
    from rich.markup import escape

    console().print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table on standard output, wide where no person reads it."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(table)


@contextmanager
def bars() -> Iterator[None]:
    """Show every wait of the layers below as one line each: pictures by count, downloads by bytes and speed."""
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as SpeedColumn

    from ..annotator import host

    @contextmanager
    def show(total: int, label: str, unit: str) -> Iterator[Any]:
        sized = unit == "B"
        columns = [DownloadColumn(), SpeedColumn()] if sized else [MofNCompleteColumn()]
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *columns,
            TimeRemainingColumn(),
            console=console(),
            disable=total == 1 and not sized,
            transient=True,
        ) as bar:
            task = bar.add_task(label, total=total or None)
            yield _Bar(bar, task)

    with host.progress_to(show):
        yield


class _Bar:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task = progress, task

    def update(self, n: int = 1) -> None:
        self._progress.advance(self._task, n)


def open_picture(path: Path) -> Any:
    """A photo as a PIL image or a tensor (1,H,W,3), upright, in sRGB. Raises PictureError naming the file and what is
    wrong with it."""
    from ..annotator.decode import decode
    from ..mass.stores import check_file

    try:
        if not path.exists():
            raise PictureError(f"there is no file {path}.")
        if path.is_dir():
            raise PictureError(f"{path} is a folder; name the pictures in it, as in {path}/*.jpg.")
    except OSError as error:  # a name too long, a link to itself
        raise PictureError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        check_file(str(path))
        data = path.read_bytes()
    except PictureError as error:
        raise PictureError(f"{path} {error}") from None
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror}.") from None
    return decode(data, str(path))
