"""The shell's door: `fathom annotate`, `fathom models`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn
from rich.table import Column, Table

from . import cli_tools
from .errors import FathomError, PictureError, SettingError

if TYPE_CHECKING:
    from .mass.job import Wanted

app = typer.Typer(
    help="Depth, surface normals and regions of pictures, for ControlNet and every later step.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console(stderr=True)


class Format(str, Enum):
    """The file formats that `annotate` writes."""

    png16 = "png16"
    png = "png"
    exr = "exr"
    npz = "npz"
    safetensors = "safetensors"
    webp = "webp"


class Layout(str, Enum):
    """How the results of many pictures lie in the output folder."""

    tree = "tree"
    shards = "shards"


class Video(str, Enum):
    """What becomes of a video."""

    frames = "frames"
    video = "video"


class EngineName(str, Enum):
    """What runs many pictures."""

    local = "local"
    ray = "ray"


@contextmanager
def _bars(console: Console) -> Iterator[None]:
    """Show every wait of the layers below as one line each: pictures by count, downloads by bytes and speed."""
    from .annotator import host

    @contextmanager
    def show(total: int, label: str, unit: str) -> Iterator[Any]:
        sized = unit == "B"
        columns = [DownloadColumn(), SpeedColumn()] if sized else [MofNCompleteColumn()]
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *columns,
            TimeRemainingColumn(),
            console=console,
            disable=total == 1 and not sized,
            transient=True,
        ) as bar:
            task = bar.add_task(label, total=total or None)
            yield _Bar(bar, task)

    with host.progress_to(show):
        yield


class _Bar:
    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress, self._task = progress, task

    def update(self, n: int = 1) -> None:
        self._progress.advance(self._task, n)


def open_picture(path: Path) -> Any:
    """A photo as a PIL image or a tensor (1,H,W,3), upright, in sRGB. Raises PictureError naming the file and what is
    wrong with it."""
    from .annotator.decode import decode

    if not path.exists():
        raise PictureError(f"there is no file {path}.")
    if path.is_dir():
        raise PictureError(f"{path} is a folder; name the pictures in it, as in {path}/*.jpg.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror}.") from None
    return decode(data, str(path))


_RUN = "Many pictures"


@app.command()
def annotate(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Photos; or folders, quoted globs such as 'shots/**/*.png', .txt lists, videos, .tar shards, .parquet "
            "files, or any of them at a URL such as s3://.",
            show_default=False,
        ),
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="The folder to write into; made when missing.")] = ".",
    estimator: Annotated[str, typer.Option("--estimator", "-e", help="Which model, see `models`.")] = "fathom-tiny",
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            "-f",
            help="png: the ControlNet picture in 8 bits; webp: the same, lossless. png16: depth in 16 bits, black to "
            "white, with a JSON file that turns it back into numbers; normals in 16 bits. exr: depth in 32-bit float; "
            "x, y and z of normals. npz, safetensors: any signal. Of intrinsics each map is a file, "
            "NAME_intrinsics_albedo.png and so on; exr holds them in linear light.",
        ),
    ] = Format.png,
    resolution: Annotated[
        int | None,
        typer.Option("--resolution", "-r", help="Short side of the result; 0 = the picture's. Unset = the model's."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="name=value, an option of the model, such as steps=10; see `models options`."),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A weights file or folder instead of the known ones.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda. Unset = the best there is.")] = None,
    signal: Annotated[
        list[str] | None,
        typer.Option(
            "--signal",
            "-s",
            help="name=estimator or name=estimator:format; give several to make them in one pass.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    layout: Annotated[
        Layout,
        typer.Option(help="tree: the sources' folders again. shards: WebDataset tars.", rich_help_panel=_RUN),
    ] = Layout.tree,
    chunk: Annotated[
        int,
        typer.Option(help="Pictures in a shard, or about as many in a manifest.", rich_help_panel=_RUN),
    ] = 128,
    video: Annotated[
        Video,
        typer.Option(help="Results of a video: frames, or a video of the same times.", rich_help_panel=_RUN),
    ] = Video.frames,
    column: Annotated[
        str, typer.Option(help="The image column of Parquet files. Unset = the likely one.", rich_help_panel=_RUN)
    ] = "",
    batch: Annotated[
        int,
        typer.Option(help="Most pictures in one forward. 0 = 1 on a CPU, 8 elsewhere.", rich_help_panel=_RUN),
    ] = 0,
    half: Annotated[bool, typer.Option("--half", help="Run networks in float16.", rich_help_panel=_RUN)] = False,
    resume: Annotated[
        bool, typer.Option(help="Skip what is whole, or do everything again.", rich_help_panel=_RUN)
    ] = True,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Believe a finished file by its hash, not its size.", rich_help_panel=_RUN),
    ] = False,
    engine: Annotated[
        EngineName,
        typer.Option(help="local: this machine. ray: a Ray cluster (extra `ray`).", rich_help_panel=_RUN),
    ] = EngineName.local,
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster. Unset = a new one here.", rich_help_panel=_RUN)
    ] = None,
    workers: Annotated[
        str, typer.Option(help="Ray workers that hold the networks: N, or MIN:MAX.", rich_help_panel=_RUN)
    ] = "1",
    gpus: Annotated[
        float | None,
        typer.Option(help="GPUs of a Ray worker, as 1 or 0.5. Unset = 1 if there are any.", rich_help_panel=_RUN),
    ] = None,
    cpus: Annotated[
        float, typer.Option(help="CPU cores of a network. 0 = all; of a Ray worker, 1.", rich_help_panel=_RUN)
    ] = 0,
) -> None:
    """Annotate pictures: write each one's depth, normals, regions or intrinsic maps into a folder.

    Single photos are written as OUT/NAME_depth.png and so on. Given folders, globs, lists, videos, tars or tables, the
    run keeps a manifest in OUT/.fathom: the same command again goes on where it stopped. Pictures that cannot be read
    are listed in OUT/failed.jsonl.

    Exit status: 0 done, 1 stopped by an error, 2 misuse, 3 done but some pictures failed.
    """
    from .mass.run import wanted_signals
    from .mass.sources import is_photo

    given = None if weights is None else str(weights)
    special = signal or layout != Layout.tree or engine != EngineName.local or half or batch or verify or not resume
    wanted = wanted_signals(signal or [], estimator, format.value, given, option or [])
    if not special and all(is_photo(source) for source in sources):
        _annotate_photos([Path(s) for s in sources], Path(out), wanted[0], resolution, device)
        return
    from .mass.job import Job

    job = Job(
        sources=tuple(sources),
        out=out,
        signals=wanted,
        resolution=resolution,
        layout=layout.value,
        chunk=chunk,
        batch=batch,
        device=device,
        column=column,
        half=half,
        cores=int(cpus),
        video=video.value,
    )
    _annotate_many(job, engine, {"resume": resume, "verify": verify}, address, workers, gpus, cpus)


def _annotate_photos(photos: list[Path], out: Path, wanted: Wanted, resolution: int | None, device: str | None) -> None:
    from . import load
    from .annotator import host
    from .models import estimator as by_id

    targets = _targets(photos, out, by_id(wanted.estimator).produces[0], Format(wanted.format))
    written: list[Path] = []
    out.mkdir(parents=True, exist_ok=True)
    with _bars(console):
        annotator = load(wanted.estimator, wanted.weights, device)
        with host.progress(len(photos), annotator.estimator.name, "picture") as bar:
            for photo, target in zip(photos, targets, strict=True):
                signal = annotator(open_picture(photo), resolution, **dict(wanted.options))
                files = signal.save(target, wanted.format)
                written += [target] if target in files else files
                bar.update()
    for file in written:
        typer.echo(file)


def _annotate_many(
    job: Any,
    engine: EngineName,
    how: dict[str, Any],
    address: str | None,
    workers: str,
    gpus: float | None,
    cpus: float,
) -> None:
    from .mass.pipeline import Report
    from .mass.run import annotate_locally

    report = Report()
    try:
        with _bars(console), _live(report):
            if engine is EngineName.ray:
                from .mass.ray_engine import annotate_on_ray

                annotate_on_ray(job, report, address=address, workers=workers, gpus=gpus, cpus=cpus, **how)
            else:
                annotate_locally(job, report, **how)
    except KeyboardInterrupt:
        console.print("stopped. The same command goes on from here.", highlight=False)
        raise typer.Exit(130) from None
    rate = report.done / max(report.seconds, 1e-9)
    busy = f", network busy {report.network / report.seconds:.0%}" if report.network else ""
    console.print(
        f"{report.done:,} pictures annotated at {rate:,.1f} pictures/s{busy}; {report.skipped:,} were whole; "
        f"{report.failed:,} failed{f', see {job.out}/failed.jsonl' if report.failed else ''}.",
        highlight=False,
        soft_wrap=True,
    )
    if report.failed:
        raise typer.Exit(3)


@contextmanager
def _live(report: Any) -> Iterator[None]:
    """Show a run while it goes: pictures/s, the time left, failures, GPU memory. In a log, a line twice a minute."""
    import threading

    ended = threading.Event()

    def numbers() -> dict[str, Any]:
        finished = report.done + report.failed + report.skipped
        text = f"{report.done / max(report.seconds, 1e-9):,.1f} pictures/s, {report.failed:,} failed{_gpu_memory()}"
        return {"completed": finished, "total": report.total, "numbers": text}

    def log() -> None:
        while not ended.wait(30):
            told = numbers()
            total = "" if told["total"] is None else f" of {told['total']:,}"
            console.print(f"{told['completed']:,}{total} pictures, {told['numbers']}", highlight=False)

    def draw() -> None:
        columns = [TextColumn("annotating"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}")]
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task("", total=None, numbers="")
            while not ended.wait(0.25):
                bar.update(task, **numbers())

    thread = threading.Thread(target=draw if console.is_terminal else log, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _gpu_memory() -> str:
    import torch

    if not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return ""
    free, total = torch.cuda.mem_get_info()
    return f", GPU {(total - free) / 2**30:.1f} of {total / 2**30:.0f} GB"


def _targets(photos: list[Path], out: Path, kind: str, format: Format) -> list[Path]:
    from .signals.codec import SUFFIXES

    targets = [out / f"{photo.stem}_{kind}{SUFFIXES[format.value]}" for photo in photos]
    seen: dict[Path, Path] = {}
    for photo, target in zip(photos, targets, strict=True):
        if target in seen:
            raise SettingError(
                f"{seen[target]} and {photo} would both be written to {target}: annotate them into two folders."
            )
        seen[target] = photo
    return targets


@app.command()
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
    from . import estimators, load
    from .annotator.pictures import as_pixels
    from .models import estimator as by_id
    from .signals.codec import save_image
    from .tools.contact_sheet import contact_sheet

    chosen = [by_id(id) for id in estimator] if estimator else [e for e in estimators().values() if _where(e)]
    picture = open_picture(photo)
    results = [("Picture", as_pixels(picture).permute(0, 2, 3, 1))]
    with _bars(console):
        for each in chosen:
            results.append((each.name, load(each)(picture, resolution).to_image()))
    target = out or Path(f"{photo.stem}_compared.png")
    save_image(contact_sheet(results)[0], target)
    typer.echo(target)


models = typer.Typer(help="The estimators: size, licence, whether on disk.", invoke_without_command=True)
app.add_typer(models, name="models")


def _where(e: Any) -> str | None:
    """Where the weights of an estimator are, or None."""
    from .annotator.weights import find

    if e.embedded:
        return "comes with Fathom"
    found = find(e.sources)
    return str(found.path) if found else None


@models.callback()
def list_models(
    context: typer.Context,
    markdown: Annotated[bool, typer.Option(help="Print the table of docs/models.md.")] = False,
) -> None:
    """List every estimator: what it makes, its size, its licence, and where its weights are."""
    from . import estimators

    if context.invoked_subcommand:
        return
    if markdown:
        typer.echo(markdown_table(), nl=False)
        return
    table = Table("id", "makes", "parameters", "licence of the weights", "on disk", box=None)
    for e in estimators().values():
        where = _where(e) or f"no, {_megabytes(e)} to fetch"
        table.add_row(e.id, ", ".join(e.produces), f"{e.parameters / 1e6:,.1f} M", str(e.licence), where)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _megabytes(e: Any) -> str:
    """The size of an estimator's download; about, where no page tells it: four bytes a parameter."""
    sizes = [e.sources[0].pin(file)[1] for file in e.sources[0].files]
    # Where the main file's size is known, the others without one are small JSON.
    size = sum(size or 0 for size in sizes) if sizes[0] else None
    return f"{size / 1e6:,.0f} MB" if size else f"about {e.parameters * 4 / 1e6:,.0f} MB"


def markdown_table() -> str:
    """The table of docs/models.md, one row for each estimator."""
    from . import estimators

    rows = ["| id | makes | parameters | download | licence of the weights | |", "|---|---|---|---|---|---|"]
    for e in estimators().values():
        fetch = "comes along" if e.embedded else _megabytes(e)
        licence = f"[{e.licence}]({e.licence.url})" if e.licence.url else str(e.licence)
        makes = ", ".join(e.produces)
        rows.append(f"| `{e.id}` | {makes} | {e.parameters / 1e6:,.1f} M | {fetch} | {licence} | {e.about} |")
    return "\n".join(rows) + "\n"


@models.command()
def options(
    estimator: Annotated[
        list[str] | None, typer.Argument(help="Which models. Unset = all that have any.", show_default=False)
    ] = None,
) -> None:
    """List what `annotate --option` can set: each model's own options, their defaults and what they take."""
    from . import estimators
    from .models import estimator as by_id

    about = Column("about", min_width=30)
    table = Table(Column("id", no_wrap=True), Column("option", no_wrap=True), "default", "takes", about, box=None)
    for e in [by_id(id) for id in estimator] if estimator else estimators().values():
        for option in e.options:
            table.add_row(e.id, option.name, str(option.default).lower(), option.takes, option.about)
    if not table.rows:
        console.print("these models have no options.")
        return
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@models.command()
def verify() -> None:
    """Hash every weights file on disk and compare it with the published one."""
    from . import estimators
    from .annotator.weights import survey

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
    with _bars(console):
        for e in estimators().values():
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
        console.print("no weights files are on disk besides Fathom Tiny's.")
        return
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    if wrong:
        raise typer.Exit(1)


@models.command()
def detect(
    file: Annotated[Path, typer.Argument(help="A weights file, or a Hugging Face or diffusers folder.")],
) -> None:
    """List the models that a weights file fits, by its tensors: those that `annotate --weights` takes it for.

    Exit status: 0 when there are any, 1 when there is none.
    """
    from . import detect

    fitting = detect(file)
    for id in fitting:
        typer.echo(id)
    if not fitting:
        console.print(f"{file} fits none of the models.", highlight=False, soft_wrap=True)
        raise typer.Exit(1)


bundles = typer.Typer(help="Bundles: pictures decomposed once, kept on disk.", no_args_is_help=True)
app.add_typer(bundles, name="bundle")

Root = Annotated[Path | None, typer.Option("--folder", help="The folder of the bundles. Unset = Fathom's own.")]


def _bundle_folder(given: Path | None) -> Path:
    from .annotator import host

    return given or host.bundle_folder()


@bundles.command("ls")
def list_them(folder: Root = None) -> None:
    """List the bundles, the one used last first."""
    from .tools.bundle import list_bundles

    table = Table("key", "size", "pinned", "used", box=None)
    for entry in list_bundles(_bundle_folder(folder)):
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.key, f"{entry.size / 1e6:,.1f} MB", "yes" if entry.pinned else "", used)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@bundles.command("rm")
def remove_them(keys: Annotated[list[str], typer.Argument(help="Keys as in ls.")], folder: Root = None) -> None:
    """Remove bundles."""
    from .tools.bundle import remove_bundle

    for key in keys:
        remove_bundle(_bundle_folder(folder), key)


@bundles.command("verify")
def verify_them(folder: Root = None) -> None:
    """Check every bundle's files against its manifest; exit status 1 when one is damaged."""
    from .tools.bundle import list_bundles, verify_bundle

    root = _bundle_folder(folder)
    damaged = {e.key: why for e in list_bundles(root) if (why := verify_bundle(root, e.key))}
    for key, why in damaged.items():
        typer.echo(f"{key}: {why}")
    if damaged:
        raise typer.Exit(1)


app.add_typer(cli_tools.app, name="tool")


def main() -> None:
    """Run the command line; exit status 0 = done, 1 = an error told in one paragraph, 2 = misuse."""
    try:
        app()
    except FathomError as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(1)
