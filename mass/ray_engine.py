"""The Ray engine: chunks go through a Ray Data pipeline whose actors hold the networks and run the local stages.

A row is a chunk of a hundred or so names, not pictures: an actor reads, annotates, writes and commits its chunk
itself, so no pixel passes through the object store and a chunk that is done twice, because its worker was lost after
the last write, is written with the same bytes. The driver lists the sources, holds the lock and closes the books.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..annotator.host import weight_folders
from ..annotator.weights import Found
from ..errors import FathomError, SettingError, WeightsError
from . import sources, stores
from .job import Chunk, Job, check
from .manifest import Ledger, failed
from .pipeline import Engine, Report
from .run import check_sources, find, keep_books, load
from .stores import TEMPORARY, Store

ATTEMPTS = 7  # at a chunk whose workers die, before its unfinished pictures are given up; docs/scale.md says why
GROUP = 2048  # chunks in one pipeline: bounds the driver's memory
Models = dict[str, tuple[Found, dict[str, Any]]]
_TOLD = ("done", "failed", "skipped", "pixels", "written", "network")


def annotate_on_ray(
    job: Job,
    report: Report,
    *,
    address: str | None = None,
    workers: str = "1",
    gpus: float | None = None,
    cpus: float = 0,
    resume: bool = True,
    verify: bool = False,
) -> None:
    """Annotate everything on a Ray cluster. address: None = the running one that RAY_ADDRESS names, or a new one here.

    workers: actors that hold the networks, "N" or "MIN:MAX". gpus, cpus: of each; gpus None = 1
    where there are any, cpus 0 = 1.
    Raises SettingError, WeightsError, OutputError as the local engine does.
    """
    for name, number in (("cpus", cpus), ("gpus", gpus)):
        if number is not None and not 0 <= number <= 4096:
            raise SettingError(f"{name} of a worker must lie in 0..4096, got {number}.")
    least, most = _workers(workers)
    check(job)
    job = replace(job, out=_absolute(job.out), sources=tuple(map(_absolute, job.sources)))
    check_sources(job)
    ray = _ray()
    # The networks live in the workers alone.
    job, found = find(job)
    job = replace(job, device=None, cores=max(1, int(cpus or 1)))
    mine = not ray.is_initialized()
    if mine:
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = False
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        models = {
            id: (files, {name: ray.put(path.read_bytes()) for name, path in _names(files).items()})
            for id, files in found.items()
        }

        def run(chunks: Iterator[Chunk], ledger: Ledger, report: Report) -> None:
            ledger.store.write(f"{TEMPORARY}/shared", b"")
            while group := list(islice(chunks, GROUP)):
                rows = [{"chunk": pickle.dumps(chunk)} for chunk in group]
                annotated = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                    Worker,
                    batch_size=1,
                    compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
                    fn_constructor_args=(job, models, verify),
                    num_cpus=cpus or 1,
                    num_gpus=gpus,
                )
                for row in annotated.iter_rows():
                    ledger.seen(row["id"], int(row["index"]), bool(row["failures"]))
                    report.add(**{name: row[name] for name in _TOLD})

        try:
            keep_books(job, run, report, resume=resume, verify=verify)
        except ray.exceptions.RayError as error:
            raise _cause(error) from error
    finally:
        if mine:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise FathomError("--engine ray needs Ray: pip install 'comfy-fathom[ray]'.") from error
    return ray


def _workers(text: str) -> tuple[int, int]:
    least, _, most = text.partition(":")
    try:
        found = int(least), int(most or least)
    except ValueError:
        found = (0, 0)
    if not 1 <= found[0] <= found[1]:
        raise SettingError(f"--workers is a number such as 4, or MIN:MAX such as 2:16; got {text!r}.")
    return found


def _absolute(location: str) -> str:
    return location if stores.is_url(location) else os.path.abspath(location)


def _names(found: Found) -> dict[str, Path]:
    """Every file of a model by its place below the model's root, or beside it."""
    inside = {path: path.is_relative_to(found.root) for path in found.files}
    return {path.relative_to(found.root).as_posix() if inside[path] else path.name: path for path in found.files}


def _cause(error: Any) -> Exception:
    """Our own error inside Ray's, or one that says what Ray says."""
    seen: Any = error
    while seen is not None:
        if isinstance(seen, FathomError):
            return FathomError(str(seen).splitlines()[-1]) if hasattr(seen, "as_instanceof_cause") else seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    last = str(error).strip().splitlines()[-1]
    return FathomError(f"the Ray run stopped: {last} What was finished is kept; the same command goes on.")


class Worker:
    """One actor: the networks, and the local engine over one chunk at a time.

    models: by estimator the files that the driver found, and their bytes in the object store, by name.
    """

    def __init__(self, job: Job, models: Models, verify: bool) -> None:
        import platform

        here = platform.node()
        store = Store(job.out)
        if store.size(f"{TEMPORARY}/shared") is None:
            raise SettingError(
                f"the worker on {here} does not see the output {job.out}: use a folder that every machine mounts, or a "
                "place such as s3://bucket/folder."
            )
        for source in job.sources:
            root = sources.root_of(source)
            if not stores.exists(root):
                raise SettingError(f"the worker on {here} does not see the source {root}: mount it there as well.")
        digests = {w.estimator: w.model for w in job.signals}
        found = {id: _here(*models[id], digests[id]) for id in digests}
        loaded, annotators = load(job, found)
        for wanted in loaded.signals:
            if wanted.model != digests[wanted.estimator]:
                raise WeightsError(f"the worker on {here} holds other weights of {wanted.estimator} than the driver.")
        self._engine = Engine(job, store, annotators)
        self._store, self._job, self._verify = store, job, verify

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Annotate and commit the chunks of a batch; what was done, one row a chunk."""
        rows: dict[str, list[Any]] = {name: [] for name in ("id", "index", "failures", *_TOLD)}
        for packed in batch["chunk"]:
            chunk: Chunk = pickle.loads(packed)  # noqa: S301  # made by the driver
            report = Report()
            ledger = Ledger(self._store, self._job, self._verify)
            if self._attempt(chunk.id) <= ATTEMPTS:
                self._engine.run(iter([chunk]), ledger, report)
            else:
                self._give_up(chunk, ledger, report)
            for name in _TOLD:
                rows[name].append(getattr(report, name))
            rows["id"].append(chunk.id)
            rows["index"].append(chunk.index)
            rows["failures"].append(report.failed)
        return rows

    def _attempt(self, id: str) -> int:
        """Which attempt at this chunk begins now: Ray itself starts lost work again for ever."""
        number = 1
        while self._store.size(f"{TEMPORARY}/attempts/{id}/{number}") is not None:
            number += 1
        self._store.write(f"{TEMPORARY}/attempts/{id}/{number}", b"")
        return number

    def _give_up(self, chunk: Chunk, ledger: Ledger, report: Report) -> None:
        """List the pictures that were on their way whenever a worker died as failed, and go on."""
        _, records = ledger.recall(chunk)
        reason = f"the process that annotated it died {ATTEMPTS} times, as one does that runs out of memory."
        lost = {i: failed(item, reason) for i, item in enumerate(chunk.items) if i not in records}
        if self._job.layout == "shards":
            lost = {i: failed(item, reason) for i, item in enumerate(chunk.items)}
        report.add(failed=len(lost), skipped=len(chunk.items) - len(lost))
        ledger.commit(chunk, [lost.get(i) or records[i] for i in range(len(chunk.items))])


def _here(found: Found, packed: dict[str, Any], digest: str) -> Found:
    """The files of a model on this machine: the driver's where they are the same here, else copies of the driver's,
    which travel through the object store once a machine instead of from a hub once a worker."""
    if _is(found, digest):
        return found
    names = _names(found)
    main = next(iter(names))
    root = weight_folders()[0] / "ray" / digest[:20]
    copied = replace(found, path=root / main, root=root, origin="given")
    if _is(copied, digest):
        return copied
    import ray

    part = root.with_name(f".{root.name}-{os.getpid()}.part")
    for name, data in packed.items():
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_bytes(ray.get(data))
    try:
        os.replace(part, root)
    except OSError:  # another worker of this machine was first, or a broken copy is in the way
        if not _is(copied, digest):
            shutil.rmtree(root, ignore_errors=True)
            os.replace(part, root)
        shutil.rmtree(part, ignore_errors=True)
    return copied


def _is(found: Found, digest: str) -> bool:
    """Whether the files are here and are those of the digest."""
    try:
        return found.digest() == digest
    except WeightsError:
        return False
