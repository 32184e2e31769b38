"""`fathom models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .common import bars, console, print_table

app = typer.Typer(help="The estimators: size, licence, whether on disk.", invoke_without_command=True)


def where(e: Any) -> str | None:
    """Where the weights of an estimator are, or None."""
    from ..annotator.weights import find

    if e.embedded:
        return "comes with Fathom"
    found = find(e.sources)
    return str(found.path) if found else None


@app.callback()
def list_models(
    context: typer.Context,
    markdown: Annotated[bool, typer.Option(help="Print the table of docs/models.md.")] = False,
) -> None:
    """List every estimator: what it makes, its size, its licence, and where its weights are."""
    from ..models import descriptions

    if context.invoked_subcommand:
        return
    if markdown:
        typer.echo(markdown_table(), nl=False)
        return
    from rich.table import Table

    table = Table("id", "makes", "parameters", "licence of the weights", "on disk", box=None)
    for e in descriptions().values():
        location = where(e) or f"no, {_megabytes(e)} to fetch"
        table.add_row(e.id, ", ".join(e.produces), f"{e.parameters / 1e6:,.1f} M", str(e.licence), location)
    print_table(table)


def _megabytes(e: Any) -> str:
    """The size of an estimator's download; about, where no page tells it: four bytes a parameter."""
    sizes = [e.sources[0].pin(file)[1] for file in e.sources[0].files]
    # Where the main file's size is known, the others without one are small JSON.
    size = sum(size or 0 for size in sizes) if sizes[0] else None
    return f"{size / 1e6:,.0f} MB" if size else f"about {e.parameters * 4 / 1e6:,.0f} MB"


def markdown_table() -> str:
    """The table of docs/models.md, one row for each estimator."""
    from ..models import descriptions

    rows = ["| id | makes | parameters | download | licence of the weights | |", "|---|---|---|---|---|---|"]
    for e in descriptions().values():
        fetch = "comes along" if e.embedded else _megabytes(e)
        licence = f"[{e.licence}]({e.licence.url})" if e.licence.url else str(e.licence)
        makes = ", ".join(e.produces)
        rows.append(f"| `{e.id}` | {makes} | {e.parameters / 1e6:,.1f} M | {fetch} | {licence} | {e.about} |")
    return "\n".join(rows) + "\n"


@app.command()
def options(
    estimator: Annotated[
        list[str] | None, typer.Argument(help="Which models. Unset = all that have any.", show_default=False)
    ] = None,
) -> None:
    """List what `annotate --option` can set: each model's own options, their defaults and what they take."""
    from rich.table import Column, Table

    from ..models import description, descriptions

    about = Column("about", min_width=30)
    table = Table(Column("id", no_wrap=True), Column("option", no_wrap=True), "default", "takes", about, box=None)
    for e in map(description, estimator) if estimator else descriptions().values():
        for option in e.options:
            table.add_row(e.id, option.name, str(option.default).lower(), option.takes, option.about)
    if not table.rows:
        console().print("these models have no options.")
        return
    print_table(table)


@app.command()
def verify() -> None:
    """Hash every weights file on disk and compare it with the published one."""
    from rich.table import Column, Table

    from ..annotator.weights import survey
    from ..models import descriptions

    advice = {
        "mismatch": "not the published file: delete it and let Fathom fetch it again, unless you put it there yourself",
        "missing": "the model needs it: delete the folder and let Fathom fetch it again",
        "unknown hash": "the published hash is not known; its layout is checked when it is loaded",
    }
    # A path may be longer than the line is wide: it goes on below, and never takes the room of what is said about it.
    state_column, advice_column = Column("state", no_wrap=True), Column("what to do", min_width=30)
    table = Table(Column("file", overflow="fold"), state_column, advice_column, box=None)
    wrong = 0
    seen = set()
    with bars():
        for e in descriptions().values():
            for checked in survey(e.sources):
                if checked.found is None:
                    continue
                for file, verdict in checked.files.items():
                    path = checked.found.part(file)
                    if path in seen:
                        continue
                    seen.add(path)
                    state = verdict.state if verdict else "missing"
                    wrong += state in ("mismatch", "missing")
                    table.add_row(str(path), state, advice.get(state, ""))
    if not seen:
        console().print("no weights files are on disk besides Fathom Tiny's.")
        return
    print_table(table)
    if wrong:
        raise typer.Exit(1)


@app.command()
def detect(
    file: Annotated[Path, typer.Argument(help="A weights file, or a Hugging Face or diffusers folder.")],
) -> None:
    """List the models that a weights file fits, by its tensors: those that `annotate --weights` takes it for.

    Exit status: 0 when there are any, 1 when there is none.
    """
    from .. import detect

    fitting = detect(file)
    for id in fitting:
        typer.echo(id)
    if not fitting:
        console().print(f"{file} fits none of the models.", highlight=False, soft_wrap=True, markup=False)
        raise typer.Exit(1)
