"""The commands put together. Importing it brings no torch: `fathom --help` should not wait for it."""

from __future__ import annotations

import typer

from . import annotate, bundle, compare, models, tool

app = typer.Typer(
    help="Depth, surface normals and regions of pictures, for ControlNet and every later step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(annotate.annotate)
app.command()(compare.compare)
app.add_typer(models.app, name="models")
app.add_typer(bundle.app, name="bundle")
app.add_typer(tool.app, name="tool")
