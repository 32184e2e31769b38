"""`fathom bundle`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from .common import print_table

app = typer.Typer(help="Bundles: pictures decomposed once, kept on disk.", no_args_is_help=True)

Root = Annotated[Path | None, typer.Option("--folder", help="The folder of the bundles. Unset = Fathom's own.")]


def _bundle_folder(given: Path | None) -> Path:
    from ..annotator import host

    return given or host.bundle_folder()


@app.command("ls")
def list_them(folder: Root = None) -> None:
    """List the bundles, the one used last first."""
    from rich.table import Table

    from ..tools.bundle import list_bundles

    table = Table("key", "size", "pinned", "used", box=None)
    for entry in list_bundles(_bundle_folder(folder)):
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.key, f"{entry.size / 1e6:,.1f} MB", "yes" if entry.pinned else "", used)
    print_table(table)


@app.command("rm")
def remove_them(keys: Annotated[list[str], typer.Argument(help="Keys as in ls.")], folder: Root = None) -> None:
    """Remove bundles."""
    from ..tools.bundle import remove_bundle

    for key in keys:
        remove_bundle(_bundle_folder(folder), key)


@app.command("verify")
def verify_them(folder: Root = None) -> None:
    """Check every bundle's files against its manifest; exit status 1 when one is damaged."""
    from ..tools.bundle import list_bundles, verify_bundle

    root = _bundle_folder(folder)
    damaged = {e.key: why for e in list_bundles(root) if (why := verify_bundle(root, e.key))}
    for key, why in damaged.items():
        typer.echo(f"{key}: {why}")
    if damaged:
        raise typer.Exit(1)
