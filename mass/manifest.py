"""What is finished: a manifest for each chunk, the list of failures, and the lock on the output folder.

    OUT/.fathom/job.json            the settings
    OUT/.fathom/manifest/ID.jsonl   one line for the chunk, then one for each picture
    OUT/.fathom/journal/ID.jsonl    the same lines while the chunk is not finished; gone at the end
    OUT/failed.jsonl                what could not be read, with the reason; absent when nothing failed

A chunk's manifest is written when all its files are. Everything in it follows from the inputs and the settings, so
that a run which was killed and taken up again ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..errors import FathomError, SettingError
from . import stores
from .job import Chunk, Job, differences
from .sources import Item
from .stores import TEMPORARY, WORK, Store

Record = dict[str, Any]
FAILED = "failed.jsonl"
_OWNER = f"{TEMPORARY}/owner"  # in tmp, so that it is gone at the end
_log = logging.getLogger(__name__)
_STALE = 90.0  # seconds without a sign of life after which a lock on a remote store is no longer believed


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def _json(data: bytes) -> Any:
    """What a JSON text says, None when it is none: cut short, not UTF-8, or nested deeper than anything of ours."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _lines(data: bytes | None) -> list[Record]:
    """The whole lines of a file; a last one that a kill cut short is left out, and so is all after a line of another
    kind."""
    found: list[Record] = []
    for line in (data or b"").split(b"\n")[:-1]:
        record = _json(line)
        if not (_is_record(record) if found else isinstance(record, dict)):
            break
        found.append(record)
    return found


def _is_record(line: Any) -> bool:
    """Whether a line tells of a picture as `done`, `failed` or `replace` write it."""
    if not isinstance(line, dict) or not isinstance(line.get("name"), str):
        return False
    if "error" in line:
        return isinstance(line["error"], str)
    return isinstance(line.get("input"), dict) and _are_outputs(line.get("outputs", {}))


def _are_outputs(outputs: Any) -> bool:
    return isinstance(outputs, dict) and all(
        isinstance(about, dict) and "size" in about and not name.startswith("/") and ".." not in name.split("/")
        for name, about in outputs.items()
    )


def done(item: Item, input: Mapping[str, Any], files: Mapping[str, bytes]) -> Record:
    """The line of a finished picture."""
    outputs = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    return {"name": item.name, "source": item.label, "input": dict(input), "outputs": outputs}


def failed(item: Item, reason: str) -> Record:
    """The line of a picture that could not be annotated."""
    return {"name": item.name, "source": item.label, "error": reason}


def make_folder(path: str) -> None:
    """Make an output folder. Raises OutputError."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise stores.OutputError(f"the output folder {path} cannot be made: {error.strerror}.") from error


class Ledger:
    """The books of one output folder. Workers on other machines use `commit` and `recall` alone."""

    def __init__(self, store: Store, job: Job, verify: bool = False) -> None:
        self.store, self.job, self.verify = store, job, verify
        self._settings = hashlib.sha256(_line(job.settings).encode()).hexdigest()
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._with_failures: dict[int, str] = {}
        self._run_lock: Any = None
        self._warned = False
        self._stop = threading.Event()

    # ------------------------------------------------------------------------------ the whole run

    def open(self, resume: bool = True) -> None:
        """Lock the output, clear what a killed run left half written, and check that the settings agree.

        resume: False = forget what is finished and do everything again. Raises SettingError.
        """
        if not self.store.remote:
            make_folder(os.path.join(self.store.root, TEMPORARY))
        self._take_lock()
        try:
            self._clear(("tmp",) if resume else ("tmp", "manifest", "journal", "job.json", "frames"))
            about = self.job.settings
            old = self.store.read(f"{WORK}/job.json")
            if old is not None:
                known = _json(old)
                if not isinstance(known, dict):
                    self._unreadable("job.json")
                elif known != json.loads(json.dumps(about)):
                    raise SettingError(
                        f"{self.store.root} holds a run with other settings ({differences(known, about)}). Use another "
                        "output folder, or --no-resume to do everything again."
                    )
            if not self.store.remote:
                self._owner()
            self.store.write(f"{WORK}/job.json", (json.dumps(about, indent=1) + "\n").encode())
            if not self.store.remote:
                self.store.remove(FAILED)
        except BaseException:
            self._give_lock()
            raise

    def _unreadable(self, name: str) -> None:
        """Tell once that something in the books is not what a run writes."""
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s is not what a run of Fathom writes: what it told of is done again.",
                self.store.path(f"{WORK}/{name}"),
            )

    def close(self, finished: bool) -> None:
        """finished: every chunk is committed, so write the list of failures and drop what belongs to no chunk."""
        try:
            if finished:
                self._write_failures()
                self._prune()
                self._clear(("journal", "frames"))
            self._clear(("tmp",))
        finally:
            self._give_lock()

    def _clear(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.store.remove(f"{WORK}/{name}")
        with self.store._lock:
            self.store._folders.clear()

    def _write_failures(self) -> None:
        if not self._with_failures:
            self.store.remove(FAILED)
            return
        with self.store.writing(FAILED) as part:
            for _, id in sorted(self._with_failures.items()):
                for record in _lines(self.store.read(self._name(id)))[1:]:
                    if "error" in record:
                        part.write(_line(record).encode())

    def _prune(self) -> None:
        """Drop manifests of chunks that are no more, because pictures were added or removed."""
        for name in list(self.store.names(f"{WORK}/manifest")):
            if name.removesuffix(".jsonl") not in self._seen:
                self.store.remove(f"{WORK}/manifest/{name}")

    # ------------------------------------------------------------------------------ one chunk

    def _name(self, id: str, folder: str = "manifest") -> str:
        return f"{WORK}/{folder}/{id.replace('/', '%2F')}.jsonl"

    def recall(self, chunk: Chunk) -> tuple[bool, dict[int, Record]]:
        """Whether the chunk has a manifest, and the records of its pictures that are whole or failed, by place.

        A picture is whole when its input did not change and its files have the size that was written (with `verify`,
        the content); on a remote store, which publishes files whole, the manifest is believed.
        """
        data = self.store.read(self._name(chunk.id))
        lines = _lines(data)
        if data is not None and len(lines) != data.count(b"\n"):
            self._unreadable(f"manifest/{chunk.id}.jsonl")
            lines = []
        committed = bool(lines) and lines[0].get("settings") == self._settings
        if not committed and not self.store.remote:
            lines = _lines(self.store.read(self._name(chunk.id, "journal")))
            if lines and lines[0].get("settings") != self._settings:
                lines = []
        elif not committed:
            lines = []
        by_name = {record["name"]: record for record in lines[1:]}
        committed = committed and [r["name"] for r in lines[1:]] == [i.name for i in chunk.items]
        marks: dict[str, Any] = {}
        found = {}
        for index, item in enumerate(chunk.items):
            record = by_name.get(item.name)
            if record is not None and ("error" in record or self._whole(item, record, marks)):
                found[index] = record
        return committed, found

    def _whole(self, item: Item, record: Record, marks: dict[str, Any]) -> bool:
        if item.path not in marks:
            marks.clear()
            try:
                about = stores.stat(item.path)
                marks[item.path] = about.changed
            except OSError:
                marks[item.path] = None
        if marks[item.path] is None or marks[item.path] != record["input"].get("changed"):
            return False
        if record.get("source") != item.label or not record.get("outputs"):
            return False
        for name, about in record["outputs"].items():
            if self.verify:
                data = self.store.read(name)
                if data is None or hashlib.sha256(data).hexdigest() != about.get("sha256"):
                    return False
            elif not self.store.remote and self.store.size(name) != about["size"]:
                return False
        return True

    def note(self, chunk: Chunk, record: Record) -> None:
        """Remember a finished picture of a chunk that is not finished; a failure also shows in failed.jsonl."""
        if self.store.remote:
            return
        path = self.store.path(self._name(chunk.id, "journal"))
        try:
            with self._lock:
                self.store.make(os.path.dirname(path))
                with open(path, "a", encoding="utf-8") as file:
                    if not file.tell():
                        file.write(_line({"settings": self._settings}))
                    file.write(_line(record))
                if "error" in record:
                    with open(self.store.path(FAILED), "a", encoding="utf-8") as file:
                        file.write(_line(record))
        except OSError as error:
            raise stores.OutputError(
                f"{path} could not be written: {error.strerror}. What was finished is kept."
            ) from error

    def commit(self, chunk: Chunk, records: list[Record], changed: bool = True) -> None:
        """The chunk is finished: write its manifest. changed: False = the one there is the same."""
        if changed:
            head = {"settings": self._settings, "id": chunk.id, **self.job.about}
            self.store.write(self._name(chunk.id), "".join(map(_line, [head, *records])).encode())
            if not self.store.remote:
                self.store.remove(self._name(chunk.id, "journal"))
        self.seen(chunk.id, chunk.index, any("error" in r for r in records))

    def replace(self, id: str, index: int, about: Record, records: list[Record], chunks: list[str]) -> None:
        """Write one manifest in the place of those of `chunks`: for a video, whose frames are no more."""
        head = {"settings": self._settings, "id": id, **self.job.about, **about}
        self.store.write(self._name(id), "".join(map(_line, [head, *records])).encode())
        with self._lock:
            for old in chunks:
                self._with_failures.pop(self._seen.pop(old), None)
        self.seen(id, index, any("error" in r for r in records))

    def lines(self, id: str) -> list[Record]:
        """The lines of a manifest of these settings; none when there is no such."""
        lines = _lines(self.store.read(self._name(id)))
        return lines if lines and lines[0].get("settings") == self._settings else []

    def since(self, index: int) -> list[str]:
        """The ids of the chunks of this run from `index` on, in order."""
        with self._lock:
            return [id for id, at in sorted(self._seen.items(), key=lambda s: s[1]) if at >= index]

    def seen(self, id: str, index: int, failures: bool) -> None:
        """Remember that a chunk of this run is finished."""
        with self._lock:
            name = id.replace("/", "%2F")
            if name in self._seen:
                raise SettingError(f"two sources would both be written as {id}: annotate them into two folders.")
            self._seen[name] = index
            if failures:
                self._with_failures[index] = id

    # ------------------------------------------------------------------------------ the lock

    def _take_lock(self) -> None:
        if self.store.remote:
            self._take_remote_lock()
            return
        from filelock import FileLock, Timeout

        self._run_lock = FileLock(self.store.path(f"{WORK}/lock"))
        try:
            self._run_lock.acquire(timeout=0)
        except Timeout:
            owner = (self.store.read(_OWNER) or b"").decode("utf-8", "replace")
            raise SettingError(
                f"another run is writing into {self.store.root}{owner and ' (' + owner + ')'}: wait for it, or choose "
                "another output folder."
            ) from None
        except NotImplementedError:  # a network drive without locks
            self._run_lock = None

    def _owner(self) -> None:
        self.store.write(_OWNER, f"process {os.getpid()} on {platform.node()}".encode())

    def _take_remote_lock(self) -> None:
        name = f"{WORK}/lock.json"
        owner, since = "", 0.0
        with suppress(ValueError, KeyError, TypeError):
            holder = json.loads(self.store.read(name) or b"null")
            owner, since = str(holder["owner"]), float(holder["time"])
        if time.time() - since < _STALE:
            raise SettingError(
                f"another run is writing into {self.store.root} ({owner}): wait for it, or choose another output. If "
                f"it was killed, its lock ends after {_STALE:.0f} seconds."
            )

        def mark() -> None:
            owner = f"process {os.getpid()} on {platform.node()}"
            self.store.write(name, json.dumps({"owner": owner, "time": time.time()}).encode())

        def keep() -> None:
            while not self._stop.wait(_STALE / 4):
                with suppress(FathomError):
                    mark()

        mark()
        self._run_lock = threading.Thread(target=keep, daemon=True, name="fathom-lock")
        self._run_lock.start()

    def _give_lock(self) -> None:
        if isinstance(self._run_lock, threading.Thread):
            self._stop.set()
            self._run_lock.join()
            self.store.remove(f"{WORK}/lock.json")
        elif self._run_lock is not None:
            self._run_lock.release()
        self._run_lock = None


class NoBooks(Ledger):
    """The books of a run that keeps none: nothing is known of an earlier run, nothing is left for a later one."""

    def __init__(self, store: Store, job: Job) -> None:
        super().__init__(store, job)
        self._chunks: dict[int, list[Record]] = {}

    @property
    def records(self) -> list[Record]:
        """What came of every picture, in order."""
        return [record for _, records in sorted(self._chunks.items()) for record in records]

    def open(self, resume: bool = True) -> None:
        """Make the folder. Raises OutputError."""
        make_folder(self.store.root)

    def recall(self, chunk: Chunk) -> tuple[bool, dict[int, Record]]:
        """Nothing."""
        return False, {}

    def note(self, chunk: Chunk, record: Record) -> None:
        """Nothing: a chunk that is not finished leaves no trace."""

    def commit(self, chunk: Chunk, records: list[Record], changed: bool = True) -> None:
        """Keep the records for the end of the run."""
        self._chunks[chunk.index] = records
