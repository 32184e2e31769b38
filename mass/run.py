"""A whole run: settings checked, networks loaded, output locked, one of the engines, the books closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, groupby
from typing import Any

import torch

from ..annotator import loading
from ..annotator.runtime import Annotator
from ..errors import SettingError
from ..models import estimator as by_id
from ..signals import kind_of_slot
from . import sources
from .job import Chunk, Job, Wanted, becomes_video, check, chunks, model_hash
from .manifest import Ledger
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
    made: list[Wanted] = []
    for text in signals:
        name, _, rest = text.partition("=")
        id, _, own = rest.partition(":")
        if not rest or not name.replace("-", "").replace("_", "").isalnum():
            raise SettingError(f"a signal is name=estimator, such as depth=depth-anything-v2-small; got {text!r}.")
        if name in {w.name for w in made}:
            raise SettingError(f"two signals are called {name!r}: their files would be the same.")
        chosen = own or format
        kind_of_slot(by_id(id).slot(name)).check_format(chosen)
        made.append(Wanted(name, id, chosen, weights=weights))
    return with_options(tuple(made), options)


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


def load(job: Job) -> tuple[Job, list[Annotator]]:
    """The job with the hashes of its models, and the loaded annotators. Raises WeightsError."""
    # Never the host's own choice: the manifest names the precision, and every machine of a run has to agree on it.
    dtype = torch.float16 if job.half else torch.float32
    held: dict[str, Any] = {}
    for wanted in job.signals:
        if wanted.estimator not in held:
            held[wanted.estimator] = loading.load(by_id(wanted.estimator), wanted.weights, job.device, dtype)
    hashes = {id: model_hash(annotator.found.path) for id, annotator in held.items()}
    signals = tuple(replace(w, model=hashes[w.estimator]) for w in job.signals)
    return replace(job, signals=signals), [held[w.estimator] for w in job.signals]


Runner = Callable[[Iterator[Chunk], Ledger, Report], None]


def annotate_locally(
    job: Job, report: Report, *, resume: bool = True, verify: bool = False, threads: int | None = None
) -> None:
    """Annotate everything in this process. report: filled as it goes.

    Raises SettingError, WeightsError, OutputError; pictures that cannot be read are counted and listed instead.
    """
    check(job)
    sources.check(list(job.sources), job.out)
    job, annotators = load(job)
    engine = Engine(job, Store(job.out), annotators, threads)
    keep_books(job, engine.run, report, resume=resume, verify=verify)


def keep_books(job: Job, run: Runner, report: Report, *, resume: bool = True, verify: bool = False) -> None:
    """Lock the output, bring every chunk to `run`, put videos together, close the books. What both engines share."""
    store = Store(job.out)
    ledger = Ledger(store, job, verify)
    ledger.open(resume)
    finished = False
    try:
        listed = partial(sources.items, list(job.sources), job.column)
        count_in_background(listed, report)
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
            from .video import Film

            first = next(some)
            film = Film(store, job, ledger, first, index)
            if film.whole():
                report.add(skipped=1 + sum(1 for _ in some))
            else:
                run(numbered(chain([first], some)), ledger, report)
                film.assemble()
            index += 1
        finished = True
    finally:
        ledger.close(finished)
