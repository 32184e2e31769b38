"""`fathom compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import bars, open_picture
from .models import where


def compare(
    photo: Annotated[Path, typer.Argument(help="The picture.", show_default=False)],
    estimator: Annotated[
        list[str] | None,
        typer.Option("--estimator", "-e", help="A model; give several. Unset = every one that is on disk."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The PNG to write. Unset = beside the shell.")] = None,
    resolution: Annotated[int, typer.Option("--resolution", "-r", help="Short side of each result.")] = 512,
) -> None:
    """Run several models over one picture and lay the results out side by side with their names."""
    from .. import estimators, load
    from ..annotator.pictures import as_pixels
    from ..models import estimator as by_id
    from ..signals.codec import save_image
    from ..tools.contact_sheet import contact_sheet

    chosen = [by_id(id) for id in estimator] if estimator else [e for e in estimators().values() if where(e)]
    picture = open_picture(photo)
    results = [("Picture", as_pixels(picture).permute(0, 2, 3, 1))]
    with bars():
        for each in chosen:
            results.append((each.name, load(each)(picture, resolution).to_image()))
    target = out or Path(f"{photo.stem}_compared.png")
    save_image(contact_sheet(results)[0], target)
    typer.echo(target)
