"""The download: it goes on from what an earlier run fetched, hears an interrupt at once, and gives a file its final
name only when its size and hash are right.

The transfer is done here, over huggingface_hub's session, addresses, headers and token: its own download
discards the part that an interrupted run has fetched (since 1.x), cannot be stopped between chunks of 10
MB, and leaves checking the content to the caller.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ...errors import WeightsError
from .. import host
from ..environment import variable
from .checkpoint import read, shapes_only
from .digest import sha256_of
from .search import hub_cache, search
from .sources import Found, Source, endpoint, read_json

log = logging.getLogger(__name__)
T = TypeVar("T")

CHUNK = 1 << 16  # bytes per write; a dropped connection loses less than this
RETRIES, PAUSE = 3, 1.0  # attempts in a row that bring nothing, and the seconds between two
LONGEST_PAUSE = 60.0  # seconds that a busy server may ask for by Retry-After
WORKSHOP = ".partial"  # folder of unfinished downloads, beside the finished ones


def obtain(sources: Sequence[Source], *, name: str) -> Found:
    """The weights of the estimator called `name`: found on disk, or else downloaded from the first source
    that has them. Raises WeightsError that says what was tried, where, and how to fetch the file by hand.
    """
    found, passed = search(sources)
    if found:
        return found
    reasons = []
    for source in (s for s in sources if s.on_hub or s.on_web):
        try:
            return _download(source)
        except _Failed as failure:
            reasons.append(f"{source.file} of {source.repo}: {failure}")
            log.warning("%s: %s", name, reasons[-1])
            if failure.final:
                break
    lines = [f"The weights of {name} are not on this machine and could not be downloaded."]
    lines += dict.fromkeys(reasons)  # the variants of one repository fail alike
    lines += [f"Passed over: {note}" for note in passed]
    own, others = host.weight_folders(), host.neighbour_folders()
    places = [*own, *(folder for folders in others.values() for folder in folders), hub_cache()]
    lines.append(f"Looked in: {', '.join(str(p) for p in places)}")
    for source in sources[:1]:
        wanted = ", ".join(source.files)
        nested = ", in folders of the same names," if "/" in wanted else ""
        put = f"put them{nested}" if source.also else "put it"
        lines.append(f"By hand: fetch {wanted} from {source.url} and {put} into {own[0] / source.folder}")
    raise WeightsError("\n".join(lines))


class _Failed(Exception):
    """A source gave nothing. final: no other source can do better (no network, no room)."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


class _Disk(OSError):
    """The part could not be written."""


class _Stopped(Exception):
    """The calling thread has given up: nothing may be written any more."""


class _Part:
    """The growing file of one download. A stop takes hold between two writes, never within one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Unbuffered: nothing may be left to write when the disk is full or the part is closed.
        self.file = path.open("ab", buffering=0)
        self.size = self.file.seek(0, os.SEEK_END)
        self.lock, self.stopped = threading.Lock(), threading.Event()
        # What the server calls the version that this is a part of; of use where no hash tells two versions apart.
        self.version_file = path.with_suffix(".version")

    def write(self, data: bytes) -> None:
        with self.lock:
            if self.stopped.is_set():
                raise _Stopped
            view = memoryview(data)
            try:
                while view:
                    done = self.file.write(view) or 0
                    self.size += done
                    view = view[done:]
            except OSError as error:
                raise _Disk(error.errno, error.strerror) from error

    def restart(self) -> None:
        with self.lock:
            if self.stopped.is_set():
                raise _Stopped
            self.file.truncate(0)
            self.size = 0

    @property
    def version(self) -> str:
        """What `begin` noted; empty where nothing is."""
        try:
            return self.version_file.read_text(encoding="latin-1")
        except OSError:
            return ""

    def begin(self, version: str) -> None:
        """Note the version of which the first byte is about to come."""
        self.version_file.write_text(version, encoding="latin-1")

    def finish(self, target: Path | None) -> None:
        """Give the file its final name; None: throw it away."""
        self.version_file.unlink(missing_ok=True)
        self.path.unlink() if target is None else self.path.replace(target)

    def close(self) -> None:
        with self.lock:
            self.stopped.set()
            self.file.close()


def _download(source: Source) -> Found:
    """Fetch what is missing of the source into the first model folder. Raises _Failed."""
    if _offline():
        raise _Failed("HF_HUB_OFFLINE is set, so nothing is downloaded; unset it to allow that", final=True)
    folder = host.weight_folders()[0]
    workshop = folder / WORKSHOP
    main = folder / _path_in_folder(source, source.file)
    found = Found(main, folder / source.folder, "downloaded", source, source.layout, source.also)
    for file in source.files:
        target, size = folder / _path_in_folder(source, file), source.pin(file)[1]
        try:
            workshop.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(workshop / f"{_slug(source, file)}.lock"):
                # Another process may have brought it while this one waited.
                length = target.stat().st_size if target.is_file() else 0
                if length == 0 or (size is not None and length != size):
                    _fetch(source, file, target, workshop)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None), errno.EFBIG)
            why = f"the disk is full ({error.strerror}); make room and run again, what came so far is kept"
            raise _Failed(f"{folder}: {why if full else f'cannot be written: {error}'}", final=True) from error
    return found


def _fetch(source: Source, file: str, target: Path, workshop: Path) -> None:
    """Bring one file of the source to `target`, going on from what an earlier run fetched. Raises _Failed, OSError."""
    sha, size = source.pin(file)
    gone = threading.Event()
    try:
        url, headers, published, tag = _attend(partial(_ask, source, file, gone))
    finally:
        gone.set()
    for what, ours, theirs in zip(("sha256", "size"), (sha, size), published, strict=True):
        if ours and theirs and ours != theirs:
            raise _Failed(f"{url} is not the published file any more: its {what} is {theirs}, expected {ours}")
    sha, size = sha or published[0], size or published[1]
    # Named by the content: what was fetched of another version is not continued.
    part = _Part(workshop / f"{_slug(source, file)}.{tag[:16]}.part")
    try:
        if size is not None and part.size > size:
            part.restart()
        resumed, shown = part.size, 0
        free, wanted = shutil.disk_usage(workshop).free, (size or 0) - part.size
        if free < wanted:
            raise _Failed(f"the disk is full: {_mb(wanted)} needed, {_mb(free)} free in {workshop.parent}", final=True)
        with host.progress(size or 0, f"Downloading {target.name}", "B") as bar:

            def tick() -> None:
                nonlocal shown
                now, before = part.size, shown
                shown = now
                bar.update(now - before)

            if part.size != size:
                _attend(partial(_pour, source, url, headers, part, size, bool(sha)), tick)
            tick()
        os.fsync(part.file.fileno())
    finally:
        part.close()
    came = (sha256_of(part.path) if sha else None, part.path.stat().st_size)
    fault = None if sha else _unlike(part.path, file)
    if came == (sha, size or came[1]) and fault is None:
        part.finish(target)
        return
    part.finish(None)
    if resumed:
        log.warning("%s: the continued download is not the published file; it is fetched whole", target.name)
        return _fetch(source, file, target, workshop)
    if fault is not None:
        raise _Failed(
            f"{came[1]} bytes came from {url}, which do not open as what it should be: {fault} They were thrown away. "
            "The server may have stopped early; try again"
        )
    raise _Failed(
        f"wrong content from {url}: sha256 {came[0]} and {came[1]} bytes came, {sha} and {size} "
        "expected. It was thrown away. Try again; if it happens again, a proxy or mirror alters files: "
        "unset HF_ENDPOINT or fetch it by hand"
    )


def _unlike(path: Path, file: str) -> str | None:
    """What is wrong with a download whose hash nobody knows, by opening it as what its published name says."""
    suffix = Path(file).suffix
    try:
        if suffix == ".json":
            read_json(path)
        elif suffix in (".safetensors", ".pth", ".pt", ".ckpt", ".bin"):
            with shapes_only():
                read(path)
        elif not path.stat().st_size:
            return "it is empty."
    except WeightsError as error:
        return str(error)
    return None


def _ask(
    source: Source, file: str, gone: threading.Event
) -> tuple[str, dict[str, str], tuple[str | None, int | None], str]:
    """What the Hub says of a file: address, request headers, (sha256, size), a tag of the content.

    gone: set when nobody waits for the answer any more. Raises _Failed, _Stopped.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    if source.on_web:  # no token goes there
        return f"{source.repo.rstrip('/')}/{file}", {"user-agent": "fathom"}, (None, None), source.sha256 or "web"
    headers = build_hf_headers(library_name="fathom")
    kind = "space" if source.repo.startswith("spaces/") else "model"
    address = partial(hf_hub_url, source.folder, file, repo_type=kind, endpoint=endpoint())
    url = address(revision=source.revision)

    def ask(attempts: int = RETRIES) -> Any:
        try:
            return get_hf_file_metadata(url, headers=headers, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except Exception as error:
            asked = _asked_pause(error)
            if asked is None or asked > LONGEST_PAUSE or attempts == 1:
                raise _net_failure(error, source) from error
            if gone.wait(asked):
                raise _Stopped from error
            return ask(attempts - 1)

    meta = ask()
    if not meta.etag or not meta.commit_hash:
        raise _Failed(f"{url} is not answered by a model hub; is a proxy, a log-in page or HF_ENDPOINT in the way?")
    sha = meta.etag if re.fullmatch("[0-9a-f]{64}", meta.etag) else None
    tag = re.sub(r"[^0-9A-Za-z]", "", meta.etag)
    return address(revision=meta.commit_hash), headers, (sha, meta.size), tag


def _pour(source: Source, url: str, headers: dict[str, str], part: _Part, size: int | None, hashed: bool) -> None:
    """Append the rest of `url` to the part, over dropped connections. hashed: whether the content will be checked by a
    hash. Raises _Failed, _Disk, _Stopped."""
    idle = 0
    while True:
        before = part.size
        try:
            total = _receive(url, headers, part, hashed) or size
            if total is None or part.size >= total:
                return
            raise ConnectionError(f"closed after {part.size} of {total} bytes")
        except (_Disk, _Stopped):
            raise
        except Exception as error:  # of whichever HTTP library huggingface_hub uses
            idle = 0 if part.size > before else idle + 1
            status = _status(error)
            lasting = status is not None and status < 500 and status not in (408, 416, 429)
            asked = _asked_pause(error) or 0.0
            if lasting or idle >= RETRIES or asked > LONGEST_PAUSE:
                raise _net_failure(error, source, part.size, size) from error
            if part.stopped.wait(max(PAUSE, asked)):
                raise _Stopped from error


def _asked_pause(error: Exception) -> float | None:
    """The seconds that a busy server asks to wait (Retry-After of 429 and 503); None where it asks for none."""
    if _status(error) not in (429, 503):
        return None
    response: Any = getattr(error, "response", None)
    said = response.headers.get("Retry-After", "")
    try:
        return max(
            0.0, float(said) if said.strip().isdigit() else parsedate_to_datetime(said).timestamp() - time.time()
        )
    except (TypeError, ValueError, OverflowError):
        return None


def _receive(url: str, headers: dict[str, str], part: _Part, hashed: bool) -> int | None:
    """One request for what the part lacks; the whole file's length where the server tells it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    session: Any = get_session()  # requests before huggingface_hub 1.0, httpx since
    send = session.stream if callable(getattr(session, "stream", None)) else partial(session.request, stream=True)
    if part.size and not hashed and not part.version:
        part.restart()  # of which version it is a part nobody could tell
    ranged = {"Range": f"bytes={part.size}-"} if part.size else {}
    if part.size and not hashed:
        ranged["If-Range"] = part.version
    headers = {**headers, **ranged, "Accept-Encoding": "identity"}
    with send("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as reply:
        partly = reply.status_code == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
        if part.size and not partly and reply.status_code in (200, 206, 416):
            part.restart()  # the server does not continue where this file ends
        hf_raise_for_status(reply)
        if not part.size and not hashed:
            tag = reply.headers.get("ETag", "")
            part.begin(tag if tag and not tag.startswith("W/") else reply.headers.get("Last-Modified", ""))
        start, length = part.size, reply.headers.get("Content-Length")
        chunks = reply.iter_content if hasattr(reply, "iter_content") else reply.iter_bytes
        for chunk in chunks(CHUNK):
            part.write(chunk)
        return start + int(length) if length and not reply.headers.get("Content-Encoding") else None


def _attend(call: Callable[[], T], tick: Callable[[], None] = lambda: None) -> T:
    """Run `call` in another thread, so that an interrupt is heard at once whatever the network does.
    Progress and interrupts stay in this thread: ComfyUI tells by it which node is running.
    """
    result: futures.Future[T] = futures.Future()

    def work() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True, name="fathom-download").start()
    while not futures.wait([result], timeout=0.1).done:
        host.check_interrupt()
        tick()
    return result.result()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; waiting can be interrupted."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        while not lock.is_locked:
            try:
                lock.acquire(timeout=0.2)
            except Timeout:
                host.check_interrupt()
            except NotImplementedError:  # a network drive; two writers end in a wrong hash at worst
                log.warning("%s cannot be locked", path)
                break
        yield
    finally:
        lock.release()


def _net_failure(error: Exception, source: Source, have: int = 0, size: int | None = None) -> _Failed:
    status = _status(error)
    if status in (401, 403):
        return _Failed(
            f"access was denied ({status}): the repository is gated, private or misnamed. Accept its "
            f"licence on {source.url} and set HF_TOKEN to a token of your account; "
            "an expired token is refused as well"
        )
    if status == 407:
        return _Failed(
            f"{_proxy() or 'a proxy'} wants a name and a password (407): write them into the variable, as in "
            "http://NAME:PASSWORD@HOST:PORT"
        )
    if status == 404:
        return _Failed(f"there is no such repository, revision or file (404) at {source.url}")
    if status is not None:
        asked = _asked_pause(error)
        when = f"in {asked:.0f} seconds, as it asks" if asked else "later"
        return _Failed(f"the server answered with error {status}; try again {when}")
    # Addresses and numbers of requests make one failure look different for each file.
    cause = re.sub(
        r" object at 0x[0-9a-f]+| with url: \S+|, '\(Request ID: [\w-]+\)'",
        "",
        f"{type(error).__name__}: {error}".rstrip(": "),
    )
    if have:
        done = f"{_mb(have)} of {_mb(size)}" if size else _mb(have)
        return _Failed(f"the connection broke after {done}; run again to go on from there ({cause})")
    by = f" by {way}" if (way := _proxy()) else ""
    return _Failed(f"no connection to {source.repo if source.on_web else endpoint()}{by} ({cause})")


def _proxy() -> str | None:
    """The variable that names a proxy for downloads, in words; not its value, which may hold a password."""
    names = ("HTTP_PROXY", "ALL_PROXY") if endpoint().startswith("http://") else ("HTTPS_PROXY", "ALL_PROXY")
    named = next((n for name in names for n in (name, name.lower()) if variable(n)), None)
    return f"the proxy that {named} names" if named else None


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _path_in_folder(source: Source, file: str) -> Path:
    return Path(source.folder) / file if source.on_hub else Path(Path(file).name)


def _slug(source: Source, file: str) -> str:
    return re.sub(r"[^\w.-]+", "--", f"{source.repo}/{file}")


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or (variable("HF_HUB_OFFLINE") or "").upper() in ("1", "ON", "YES", "TRUE")
