"""A whole run: settings checked, networks loaded, output locked, one of the engines, the books closed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from typing import Any

import torch

from ..annotator import loading
from ..annotator.runtime import Annotator
from ..annotator.weights import Found
from ..errors import SettingError
from ..models import estimator as by_id
from ..signals import kind_of_slot
from . import sources
from .job import Chunk, Job, Wanted, becomes_video, check, chunks
from .manifest import Ledger, NoBooks, Record
from .pipeline import Engine, Report, count_in_background
from .stores import Store


def wanted_signals(
    signals: list[str], estimator: str, format: str, weights: str | None = None, options: Sequence[str] = ()
) -> tuple[Wanted, ...]:
    """The signals of a job. signals: "name=estimator" or "name=estimator:format"; none = the one of `estimator`, under
    the name of what it makes. options: as in `with_options`. Raises SettingError."""
    if not signals:
        main = by_id(estimator).produces[0]
        kind_of_slot(main).check_format(format)
        return with_options((Wanted(main, estimator, format, weights=weights),), options)
    if weights is not None and len(signals) > 1:
        raise SettingError("--weights goes with one signal: put the files into the model folder instead.")
    wanted: list[Wanted] = []
    for text in signals:
        name, _, rest = text.partition("=")
        id, _, own = rest.partition(":")
        if not rest or not name.replace("-", "").replace("_", "").isalnum():
            raise SettingError(f"a signal is name=estimator, such as depth=depth-anything-v2-small; got {text!r}.")
        if name in {w.name for w in wanted}:
            raise SettingError(f"two signals are called {name!r}: their files would be the same.")
        chosen = own or format
        kind_of_slot(by_id(id).slot(name)).check_format(chosen)
        wanted.append(Wanted(name, id, chosen, weights=weights))
    return with_options(tuple(wanted), options)


def with_options(signals: tuple[Wanted, ...], options: Sequence[str]) -> tuple[Wanted, ...]:
    """The signals with the options of their models. options: "name=value" each, for every signal whose model has it.

    Raises SettingError for an option that none of the models has, and for a value that it does not take.
    """
    chosen: dict[str, dict[str, Any]] = {wanted.name: {} for wanted in signals}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingError(f"an option is name=value, such as steps=10; got {text!r}.")
        having = [(w, o) for w in signals for o in by_id(w.estimator).options if o.name == name]
        if not having:
            ids = ", ".join(dict.fromkeys(wanted.estimator for wanted in signals))
            raise SettingError(f"{ids} has no option {name!r}: `fathom models options` lists what there is.")
        for wanted, option in having:
            chosen[wanted.name][name] = option.parse(value)
    return tuple(replace(w, options=tuple(sorted(chosen[w.name].items()))) for w in signals)


def _check_device(name: str | None) -> None:
    """Raises SettingError for a device that torch does not know or that is not there."""
    if name is None:
        return
    try:
        torch.zeros(1, device=torch.device(name)).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise SettingError(
            f"the device {name!r} cannot be used: {why}. Give cpu, cuda, cuda:1, mps or another that this machine has."
        ) from error


def find(job: Job) -> tuple[Job, dict[str, Found]]:
    """The job with the identities of its models, and their files by estimator; no network is loaded. Raises
    WeightsError."""
    found = {w.estimator: loading.locate(by_id(w.estimator), w.weights) for w in job.signals}
    return _identified(job, found), found


def load(job: Job, found: Mapping[str, Found] | None = None) -> tuple[Job, list[Annotator]]:
    """The job with the identities of its models, and the loaded annotators. found: their files by estimator, None = as
    `find` does. Raises SettingError, WeightsError."""
    _check_device(job.device)
    # Never the host's own choice: the manifest names the precision, and every machine of a run has to agree on it.
    dtype = torch.float16 if job.half else torch.float32
    loaded: dict[str, Annotator] = {}
    for wanted in job.signals:
        if wanted.estimator not in loaded:
            files = found[wanted.estimator] if found else wanted.weights
            loaded[wanted.estimator] = loading.load(by_id(wanted.estimator), files, job.device, dtype)
    job = _identified(job, {id: annotator.found for id, annotator in loaded.items()})
    return job, [loaded[w.estimator] for w in job.signals]


def _identified(job: Job, found: Mapping[str, Found]) -> Job:
    digests = {id: files.digest() for id, files in found.items()}
    return replace(job, signals=tuple(replace(w, model=digests[w.estimator]) for w in job.signals))


def check_sources(job: Job) -> None:
    """Raises SettingError for sources that cannot be, see `sources.check`."""
    sources.check(list(job.sources), job.out, shards=job.layout == "shards", videos=job.video == "video")


Runner = Callable[[Iterator[Chunk], Ledger, Report], None]


def annotate_locally(
    job: Job, report: Report, *, resume: bool = True, verify: bool = False, threads: int | None = None
) -> None:
    """Annotate everything in this process. report: filled as it goes.

    Raises SettingError, WeightsError, OutputError; pictures that cannot be read are counted and listed instead.
    """
    check(job)
    check_sources(job)
    job, annotators = load(job)
    engine = Engine(job, Store(job.out), annotators, threads)
    undisturbed(lambda: keep_books(job, engine.run, report, resume=resume, verify=verify), engine.stop)


def annotate_photos(job: Job, report: Report) -> list[Record]:
    """Annotate photos that are named one by one, as `annotate_locally` does, without books: what came of each, in
    order."""
    check(job)
    check_sources(job)
    job, annotators = load(job)
    store = Store(job.out, beside=True)
    engine = Engine(job, store, annotators)
    books = NoBooks(store, job)

    def work() -> None:
        books.open()
        engine.run(chunks(sources.items(list(job.sources)), job), books, report)

    undisturbed(work, engine.stop)
    return books.records


_PATIENCE = 2.5  # seconds for the books to be closed after an interrupt


def undisturbed(work: Callable[[], None], stop: Callable[[], None]) -> None:
    """Do `work` where no interrupt strikes between two of its lines: in a thread of its own, for which this one waits.

    At Ctrl-C `stop` is called, `work` gets a moment to close its books, and KeyboardInterrupt is raised. A forward that
    takes longer than the moment ends in its own time; it writes nothing more.
    """
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as failure:  # the waiting thread raises it
            error = failure
        ended.put(error)

    try:
        threading.Thread(target=run, daemon=True, name="fathom-run").start()
        while True:
            try:
                error = ended.get(timeout=0.5)
                break
            except queue.Empty:
                continue
    except KeyboardInterrupt:
        stop()
        with suppress(queue.Empty):
            ended.get(timeout=_PATIENCE)
        raise
    if error is not None:
        raise error


def keep_books(job: Job, run: Runner, report: Report, *, resume: bool = True, verify: bool = False) -> None:
    """Lock the output, bring every chunk to `run`, put videos together, close the books. What both engines share."""
    store = Store(job.out)
    ledger = Ledger(store, job, verify)
    ledger.open(resume)
    finished = False
    try:
        listed = partial(sources.items, list(job.sources), job.column)
        count_in_background(partial(sources.count, list(job.sources), job.column), report)
        index = 0

        def numbered(some: Iterator[Any]) -> Iterator[Chunk]:
            nonlocal index
            for chunk in chunks(some, job, index):
                index = chunk.index + 1
                yield chunk

        for container, group in groupby(listed(), lambda i: i.container if becomes_video(i, job) else None):
            some = iter(group)
            if container is None:
                run(numbered(some), ledger, report)
                continue
            from .video import VideoAssembly

            first = next(some)
            film = VideoAssembly(store, job, ledger, first, index)
            if film.whole():
                report.add(skipped=1 + sum(1 for _ in some))
            else:
                run(numbered(chain([first], some)), ledger, report)
                if not film.assemble():
                    report.add(failed=1)
            index += 1
        finished = True
    finally:
        ledger.close(finished)
