"""`fathom annotate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import SettingError
from .common import bars, console

if TYPE_CHECKING:
    from ..mass.job import Job
    from ..mass.pipeline import Report


class Format(str, Enum):
    """The file formats that `annotate` writes."""

    png16 = "png16"
    png = "png"
    exr = "exr"
    npz = "npz"
    safetensors = "safetensors"
    webp = "webp"
    json = "json"


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


_RUN = "Many pictures"


def annotate(
    context: typer.Context,
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
            "NAME_intrinsics_albedo.png and so on; exr holds them in linear light. Of objects and faces: json is "
            "COCO's annotation form, png which of them is seen at every pixel.",
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
    are listed in OUT/failed.jsonl, of single photos here.

    Exit status: 0 done, 1 stopped by an error, 2 misuse, 3 done but some pictures failed, 130 interrupted.
    """
    from ..mass.job import Job
    from ..mass.run import wanted_signals
    from ..mass.sources import is_photo

    given = {name for name in context.params if (s := context.get_parameter_source(name)) and s.name == "COMMANDLINE"}
    special = signal or layout != Layout.tree or engine != EngineName.local or half or batch or verify or not resume
    books = bool(special) or not all(is_photo(source) for source in sources)
    _refuse_what_does_nothing(given, engine, books, photos=all(is_photo(source) for source in sources))
    for name, number in (("cpus", cpus), ("gpus", gpus)):
        if number is not None and not 0 <= number <= 4096:
            raise SettingError(f"--{name} must lie in 0..4096, got {number}.")
    if engine is EngineName.local and cpus != int(cpus):
        raise SettingError(f"--cpus is a whole number here, got {cpus}; parts of a core are for --engine ray.")
    job = Job(
        sources=tuple(sources),
        out=out,
        signals=wanted_signals(
            signal or [], estimator, format.value, None if weights is None else str(weights), option or []
        ),
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
    if books:
        _annotate_many(job, engine, {"resume": resume, "verify": verify}, address, workers, gpus, cpus)
    else:
        _annotate_photos(job)


def _refuse_what_does_nothing(given: set[str], engine: EngineName, books: bool, photos: bool) -> None:
    """Raises SettingError for an option that was given and would not be heard."""
    useless: dict[str, str] = {}
    if engine is EngineName.local:
        useless |= dict.fromkeys(("workers", "gpus", "address"), "without --engine ray")
    else:
        useless["device"] = "with --engine ray, whose workers take what they have: see --gpus"
    if "signal" in given:
        useless["estimator"] = "beside --signal, which names the estimators"
    if photos:
        useless |= {"column": "for photos: it is of Parquet files", "video": "for photos: it is of videos"}
    if not books:
        useless["chunk"] = "for photos named one by one, which keep no manifest"
    for name in sorted(given & useless.keys()):
        raise SettingError(f"--{name} does nothing {useless[name]}. Leave it out.")


def _annotate_photos(job: Job) -> None:
    """A run that keeps no books, over photos named one by one: tell every file written, and every failure."""
    from ..mass.pipeline import Report
    from ..mass.run import annotate_photos

    report = Report(total=len(job.sources))
    try:
        with bars(), _live(report):
            records = annotate_photos(job, report)
    except KeyboardInterrupt:
        console().print("stopped.", highlight=False)
        raise typer.Exit(130) from None
    for record in records:
        names = record.get("outputs", {})
        for name in names:
            # Beside a depth in 16 bits lies what its numbers mean.
            if not name.endswith(".json") or f"{name[:-5]}.png" not in names:
                typer.echo(Path(job.out) / name)
    for record in records:
        if "error" in record:
            console().print(f"{record['source']}: {record['error']}", highlight=False, soft_wrap=True, markup=False)
    if report.failed:
        raise typer.Exit(3)


def _annotate_many(
    job: Job,
    engine: EngineName,
    how: dict[str, Any],
    address: str | None,
    workers: str,
    gpus: float | None,
    cpus: float,
) -> None:
    from ..mass.pipeline import Report
    from ..mass.run import annotate_locally

    report = Report()
    try:
        with bars(), _live(report):
            if engine is EngineName.ray:
                from ..mass.ray_engine import annotate_on_ray

                annotate_on_ray(job, report, address=address, workers=workers, gpus=gpus, cpus=cpus, **how)
            else:
                annotate_locally(job, report, **how)
    except KeyboardInterrupt:
        console().print("stopped. The same command goes on from here.", highlight=False)
        raise typer.Exit(130) from None
    rate = report.done / max(report.seconds, 1e-9)
    busy = f", network busy {report.network / report.seconds:.0%}" if report.network else ""
    console().print(
        f"{report.done:,} pictures annotated at {rate:,.1f} pictures/s{busy}; {report.skipped:,} were whole; "
        f"{report.failed:,} failed{f', see {job.out}/failed.jsonl' if report.failed else ''}.",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    if report.failed:
        raise typer.Exit(3)


@contextmanager
def _live(report: Report) -> Iterator[None]:
    """Show a run while it goes: pictures/s, the time left, failures, GPU memory. In a log, a line twice a minute."""
    import threading

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    ended = threading.Event()

    def numbers() -> dict[str, Any]:
        finished = report.done + report.failed + report.skipped
        text = f"{report.done / max(report.seconds, 1e-9):,.1f} pictures/s, {report.failed:,} failed{_gpu_memory()}"
        return {"completed": finished, "total": report.total, "numbers": text}

    def log() -> None:
        while not ended.wait(30):
            counts = numbers()
            total = "" if counts["total"] is None else f" of {counts['total']:,}"
            console().print(f"{counts['completed']:,}{total} pictures, {counts['numbers']}", highlight=False)

    def draw() -> None:
        columns = [TextColumn("annotating"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}")]
        with Progress(*columns, TimeRemainingColumn(), console=console(), transient=True) as bar:
            task = bar.add_task("", total=None, numbers="")
            while not ended.wait(0.25):
                bar.update(task, **numbers())

    thread = threading.Thread(target=draw if console().is_terminal else log, daemon=True)
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
