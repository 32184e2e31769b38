"""The weights store: where a model file lies, how it is fetched, whether it can be trusted, how it is
loaded.

Places are searched in this order: the path that the caller gave, Fathom's own folders, the folders of other
packs, the Hugging Face cache, and last the network. What is found is never asked for over the network.

A download gets its final name only when its size and hash are right, so a file under that name needs no
second hashing; whatever is found is checked by size alone, and strict loading does the rest. `survey`
hashes on request.

The transfer is done here, over huggingface_hub's session, addresses, headers and token: its own download
discards the part that an interrupted run has fetched (since 1.x), cannot be stopped between chunks of 10
MB, and leaves checking the content to the caller.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from . import host

log = logging.getLogger(__name__)
T = TypeVar("T")

CHUNK = 1 << 16  # bytes per write; a dropped connection loses less than this
RETRIES, PAUSE = 3, 1.0  # attempts in a row that bring nothing, and the seconds between two
WORKSHOP = ".partial"  # folder of unfinished downloads, beside the finished ones

# Names that every repository uses: outside a repository's own folder they say nothing about the content.
_GENERIC = re.compile(
    r"(config|model_index|preprocessor_config|pytorch_model|diffusion_pytorch_model|model)[.-]"
)
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model.fp16.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WRAPPERS = ("state_dict", "model_state_dict", "model", "depth_model", "params", "net", "ema")
_BOOKKEEPING = ("optim", "sched", "hyper", "args", "config", "callback", "loop")
_LOOKS = (
    ("model.diffusion_model.", "a Stable Diffusion checkpoint"),
    ("lora_", "a LoRA"),
    ("control_model.", "a ControlNet"),
    ("core.core.", "a ZoeDepth network, official layout"),
    ("relative_head.", "a ZoeDepth network, transformers layout"),
    ("pretrained.model.", "a MiDaS DPT network, official layout"),
    ("pretrained.", "a Depth Anything network, official layout"),
    ("dpt.", "a MiDaS DPT network, transformers layout"),
    ("encoder.original_model.", "a NormalBae network"),
    ("model.pixel_level_module.", "a OneFormer or Mask2Former network, transformers layout"),
    ("backbone.embeddings.", "a depth network, transformers layout"),
)


# ------------------------------------------------------------------------------------------ sources


@dataclass(frozen=True)
class Source:
    """One published place of an estimator's weights.

    repo: "owner/name" on the Hugging Face Hub, "spaces/owner/name", or the web address ("https://...") of
    the folder that holds the file; anything else is a name to search by, and never fetched. file: the main
    file inside the repository, "model_index.json" for a diffusers folder. layout: the checkpoint's layout;
    estimators dispatch on it. also: further files that must lie beside it. sha256, size: of `file`; None =
    not published, known by name only. pins: (sha256, size) of files in `also`, each may be None. revision:
    the pinned commit where it is known.
    """

    repo: str
    file: str
    layout: str = "official"
    also: tuple[str, ...] = ()
    sha256: str | None = None
    size: int | None = None
    revision: str = "main"
    pins: Mapping[str, tuple[str | None, int | None]] = field(default_factory=dict, compare=False)

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that must be there, the main one first."""
        return (self.file, *self.also)

    @property
    def on_web(self) -> bool:
        return self.repo.startswith(("https://", "http://"))

    @property
    def on_hub(self) -> bool:
        return re.fullmatch(r"(spaces/)?[\w.-]+/[\w.-]+", self.repo) is not None

    @property
    def folder(self) -> str:
        """Where the repository's files lie below a model folder: "owner/name", the layout of
        controlnet_aux.
        """
        return self.repo.removeprefix("spaces/") if self.on_hub else ""

    @property
    def url(self) -> str:
        """The page to fetch the file from by hand."""
        if self.on_hub:
            return f"{_endpoint()}/{self.repo}/blob/{self.revision}/{self.file}"
        return f"{self.repo.rstrip('/')}/{self.file}"

    def pin(self, file: str) -> tuple[str | None, int | None]:
        """The published (sha256, size) of one of `files`."""
        return (self.sha256, self.size) if file == self.file else self.pins.get(file, (None, None))


@dataclass(frozen=True)
class Found:
    """Weights on disk. path: the main file. root: the folder that the source's file names start from.
    origin: "given", "annotators", "aux", "depthanything", "diffusers", "hub cache" or "downloaded". layout:
    None = tell by the keys.
    """

    path: Path
    root: Path
    origin: str
    source: Source | None = None
    layout: str | None = None

    def part(self, file: str) -> Path:
        """The path of one of the source's files; flat folders hold it under its last name."""
        return self.root / file if (self.root / file).exists() else self.root / Path(file).name


# ------------------------------------------------------------------------------------------ search


def find(sources: Sequence[Source]) -> Found | None:
    """The first source that lies on disk, complete and of the published size. Never uses the network."""
    return _search(sources)[0]


def obtain(sources: Sequence[Source], *, name: str) -> Found:
    """The weights of the estimator called `name`: found on disk, or else downloaded from the first source
    that has them. Raises WeightsError that says what was tried, where, and how to fetch the file by hand.
    """
    found, passed = _search(sources)
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
    lines = [f"The weights of {name} are not on this machine and could not be downloaded.", *reasons]
    lines += [f"Passed over: {note}" for note in passed]
    own, others = host.weight_folders(), host.neighbour_folders()
    places = [*own, *(folder for folders in others.values() for folder in folders), _hub_cache()]
    lines.append(f"Looked in: {', '.join(str(p) for p in places)}")
    for source in sources[:1]:
        wanted = ", ".join(source.files)
        lines.append(f"By hand: fetch {wanted} from {source.url} and put it into {own[0] / source.folder}")
    raise WeightsError("\n".join(lines))


def resolve(weights: str | Path, sources: Sequence[Source], *, name: str) -> Found:
    """The weights that the caller chose: a file, or a Hugging Face style or diffusers folder.

    The layout is told by the file's name where that is possible. Raises WeightsError when nothing is there.
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return _given(path, path.parent, sources)
    if not path.is_dir():
        raise WeightsError(f"{name}: there is no file or folder {path}.")
    if (path / "model_index.json").is_file():
        return _given(path / "model_index.json", path, sources)
    published = [file for s in sources for file in (s.file, Path(s.file).name)]
    alone = [p.name for p in path.iterdir() if p.suffix in (".safetensors", ".pth", ".pt", ".bin", ".ckpt")]
    for file in (*published, *_FOLDER_FILES, *(alone if len(alone) == 1 else ())):
        if (path / file).is_file():
            return _given(path / file, path, sources)
    have = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
    wanted = ", ".join(dict.fromkeys((*published, *_FOLDER_FILES)))
    raise WeightsError(f"{name}: the folder {path} holds none of {wanted}. It holds {have}.")


def _given(path: Path, root: Path, sources: Sequence[Source]) -> Found:
    same = [s for s in sources if Path(s.file).name == path.name]
    sure = [s for s in same if not _GENERIC.match(path.name) or s.repo.endswith(f"/{root.name}")]
    layouts = {s.layout for s in sure or same}
    return Found(path, root, "given", sure[0] if sure else None, layouts.pop() if len(layouts) == 1 else None)


def _search(sources: Sequence[Source]) -> tuple[Found | None, list[str]]:
    """The first sound source, and a line on every copy that was there and passed over."""
    passed: list[str] = []
    for source in sources:
        for found in _places(source):
            if not (fault := _fault(found, source)):
                return found, passed
            passed.append(fault)
            log.warning("not used: %s", fault)
    return None, passed


def _places(source: Source) -> Iterator[Found]:
    """Every place where the source's main file lies, best first, sound or not."""
    seen = set()
    owner, _, repository = source.folder.rpartition("/")
    folders = {"annotators": host.weight_folders(), **host.neighbour_folders()}
    for origin, folder in ((origin, folder) for origin, listed in folders.items() for folder in listed):
        roots = (
            [folder / source.folder, folder / f"{owner}--{repository}", folder / repository] if owner else []
        )
        paths = [(root, root / source.file) for root in roots]
        if not any(_GENERIC.match(Path(file).name) for file in source.files):
            paths.append((folder, folder / Path(source.file).name))
        for root, path in paths:
            if path.is_file() and path not in seen:
                seen.add(path)
                yield Found(path, root, origin, source, source.layout)
    if source.on_hub:
        for root in _snapshots(source):
            if (root / source.file).is_file():
                yield Found(root / source.file, root, "hub cache", source, source.layout)


def _snapshots(source: Source) -> list[Path]:
    """Folders of the Hugging Face cache that hold revisions of the repository, the pinned one first."""
    kind = "spaces" if source.repo.startswith("spaces/") else "models"
    base = _hub_cache() / "--".join([kind, *source.folder.split("/")])
    try:
        main = (base / "refs" / "main").read_text().strip()
    except (OSError, UnicodeDecodeError):
        main = ""
    folders = [p for p in (base / "snapshots").glob("*") if p.is_dir()]
    if source.revision == "main" or source.size or source.sha256:
        # The content is pinned, or any state of the repository will do.
        return sorted(folders, key=lambda p: (not p.name.startswith(source.revision), p.name != main, p.name))
    return [p for p in folders if p.name.startswith(source.revision)]


def _fault(found: Found, source: Source) -> str | None:
    """Why this copy cannot be used, as far as a glance tells: missing parts, sizes, names that are hashes."""
    for file in source.files:
        path, (sha, size) = found.part(file), source.pin(file)
        if not path.is_file():
            return f"{found.path}: {file} is missing beside it"
        length = path.stat().st_size
        if length == 0 or (size is not None and length != size):
            expected = "" if size is None else f" instead of {size}: cut short, or another file"
            return f"{path} has {length} bytes{expected}"
        blob = path.resolve().name if found.origin == "hub cache" else ""
        if sha and re.fullmatch("[0-9a-f]{64}", blob) and blob != sha:
            return f"{path} is another version (sha256 {blob} instead of {sha})"
    return None


# ------------------------------------------------------------------------------------------ verification


@dataclass(frozen=True)
class Verdict:
    """Whether a file is the published one. expected, found: (sha256, size); None = not published, not
    computed.
    """

    state: Literal["match", "mismatch", "unknown hash"]
    expected: tuple[str | None, int | None]
    found: tuple[str | None, int | None]


@dataclass(frozen=True)
class Checked:
    """One source, the copy that was looked at and the verdict on each of its files; None: it is not on
    disk.
    """

    source: Source
    found: Found | None
    files: Mapping[str, Verdict | None]

    @property
    def state(self) -> str:
        states = ["missing" if v is None else v.state for v in self.files.values()]
        return next((s for s in ("mismatch", "missing", "unknown hash") if s in states), "match")


def verify(path: Path, source: Source, file: str | None = None) -> Verdict:
    """Compare `path` with the published size and sha256 of `file` (default: the main file). Reads the whole
    file when a hash is published and the size is right.
    """
    sha, size = source.pin(file or source.file)
    length = path.stat().st_size
    if size is not None and size != length:
        return Verdict("mismatch", (sha, size), (None, length))
    if sha is None:
        return Verdict("unknown hash", (sha, size), (None, length))
    came = _sha256(path)
    return Verdict("match" if came == sha else "mismatch", (sha, size), (came, length))


def survey(sources: Sequence[Source]) -> list[Checked]:
    """For every source, each copy on disk with the verdict on its files; one entry without a copy where
    none is.
    """
    result = []
    for source in sources:
        copies = list(_places(source))
        for found in copies:
            paths = {file: found.part(file) for file in source.files}
            verdicts = {file: verify(p, source, file) if p.is_file() else None for file, p in paths.items()}
            result.append(Checked(source, found, verdicts))
        if not copies:
            result.append(Checked(source, None, dict.fromkeys(source.files)))
    return result


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file, host.progress(path.stat().st_size, f"Checking {path.name}", "B") as bar:
        while block := file.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------ download


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
    found = Found(
        folder / _place(source, source.file), folder / source.folder, "downloaded", source, source.layout
    )
    for file in source.files:
        target, size = folder / _place(source, file), source.pin(file)[1]
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
            raise _Failed(
                f"{folder}: {why if full else f'cannot be written: {error}'}", final=True
            ) from error
    return found


def _fetch(source: Source, file: str, target: Path, workshop: Path) -> None:
    """Bring one file of the source to `target`, going on from what an earlier run fetched. Raises _Failed,
    OSError.
    """
    sha, size = source.pin(file)
    url, headers, told, tag = _attend(partial(_ask, source, file))
    for what, ours, theirs in zip(("sha256", "size"), (sha, size), told, strict=True):
        if ours and theirs and ours != theirs:
            raise _Failed(
                f"{url} is not the published file any more: its {what} is {theirs}, expected {ours}"
            )
    sha, size = sha or told[0], size or told[1]
    # Named by the content: what was fetched of another version is not continued.
    part = _Part(workshop / f"{_slug(source, file)}.{tag[:16]}.part")
    try:
        if size is not None and part.size > size:
            part.restart()
        resumed, shown = part.size, 0
        free, wanted = shutil.disk_usage(workshop).free, (size or 0) - part.size
        if free < wanted:
            raise _Failed(
                f"the disk is full: {_mb(wanted)} needed, {_mb(free)} free in {workshop.parent}", final=True
            )
        with host.progress(size or 0, f"Downloading {target.name}", "B") as bar:

            def tick() -> None:
                nonlocal shown
                now, before = part.size, shown
                shown = now
                bar.update(now - before)

            if part.size != size:
                _attend(partial(_pour, source, url, headers, part, size), tick)
            tick()
        os.fsync(part.file.fileno())
    finally:
        part.close()
    came = (_sha256(part.path) if sha else None, part.path.stat().st_size)
    if came == (sha, size or came[1]):
        part.path.replace(target)
        return
    part.path.unlink()
    if resumed:
        log.warning("%s: the continued download is not the published file; it is fetched whole", target.name)
        return _fetch(source, file, target, workshop)
    raise _Failed(
        f"wrong content from {url}: sha256 {came[0]} and {came[1]} bytes came, {sha} and {size} "
        "expected. It was thrown away. Try again; if it happens again, a proxy or mirror alters files: "
        "unset HF_ENDPOINT or fetch it by hand"
    )


def _ask(source: Source, file: str) -> tuple[str, dict[str, str], tuple[str | None, int | None], str]:
    """What the Hub says of a file: address, request headers, (sha256, size), a tag of the content. Raises
    _Failed.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    if source.on_web:  # no token goes there
        return (
            f"{source.repo.rstrip('/')}/{file}",
            {"user-agent": "fathom"},
            (None, None),
            source.sha256 or "web",
        )
    headers = build_hf_headers(library_name="fathom")
    kind = "space" if source.repo.startswith("spaces/") else "model"
    address = partial(hf_hub_url, source.folder, file, repo_type=kind, endpoint=_endpoint())
    url = address(revision=source.revision)
    try:
        meta = get_hf_file_metadata(url, headers=headers, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:
        raise _net_failure(error, source) from error
    if not meta.etag or not meta.commit_hash:
        raise _Failed(
            f"{url} is not answered by a model hub; is a proxy, a log-in page or HF_ENDPOINT in the way?"
        )
    sha = meta.etag if re.fullmatch("[0-9a-f]{64}", meta.etag) else None
    tag = re.sub(r"[^0-9A-Za-z]", "", meta.etag)
    return address(revision=meta.commit_hash), headers, (sha, meta.size), tag


def _pour(source: Source, url: str, headers: dict[str, str], part: _Part, size: int | None) -> None:
    """Append the rest of `url` to the part, over dropped connections. Raises _Failed, _Disk, _Stopped."""
    idle = 0
    while True:
        before = part.size
        try:
            total = _receive(url, headers, part) or size
            if total is None or part.size >= total:
                return
            raise ConnectionError(f"closed after {part.size} of {total} bytes")
        except (_Disk, _Stopped):
            raise
        except Exception as error:  # of whichever HTTP library huggingface_hub uses
            idle = 0 if part.size > before else idle + 1
            status = _status(error)
            lasting = status is not None and status < 500 and status not in (408, 416, 429)
            if lasting or idle >= RETRIES:
                raise _net_failure(error, source, part.size, size) from error
            part.stopped.wait(PAUSE)


def _receive(url: str, headers: dict[str, str], part: _Part) -> int | None:
    """One request for what the part lacks; the whole file's length where the server tells it."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    session: Any = get_session()  # requests before huggingface_hub 1.0, httpx since
    send = (
        session.stream
        if callable(getattr(session, "stream", None))
        else partial(session.request, stream=True)
    )
    ranged = {"Range": f"bytes={part.size}-"} if part.size else {}
    headers = {**headers, **ranged, "Accept-Encoding": "identity"}
    with send("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as reply:
        partly = reply.status_code == 206 and reply.headers.get("Content-Range", "").startswith(
            f"bytes {part.size}-"
        )
        if part.size and not partly and reply.status_code in (200, 206, 416):
            part.restart()  # the server does not continue where this file ends
        hf_raise_for_status(reply)
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
    if status == 404:
        return _Failed(f"there is no such repository, revision or file (404) at {source.url}")
    if status is not None:
        return _Failed(f"the server answered with error {status}; try again later")
    cause = f"{type(error).__name__}: {error}".rstrip(": ")
    if have:
        done = f"{_mb(have)} of {_mb(size)}" if size else _mb(have)
        return _Failed(f"the connection broke after {done}; run again to go on from there ({cause})")
    return _Failed(f"no connection to {source.repo if source.on_web else _endpoint()} ({cause})")


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _place(source: Source, file: str) -> Path:
    return Path(source.folder) / file if source.on_hub else Path(Path(file).name)


def _slug(source: Source, file: str) -> str:
    return re.sub(r"[^\w.-]+", "--", f"{source.repo}/{file}")


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in (
        "1",
        "ON",
        "YES",
        "TRUE",
    )


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


# ------------------------------------------------------------------------------------------ checkpoints


@dataclass
class Checkpoint:
    """A checkpoint file, read. tensors: by name, wrapper and uniform prefix taken off; safetensors and zip
    files stay mapped to the file, so treat them as read-only. config: config.json of a Hugging Face style
    folder. layout: what the source or the file's name says; None = tell by the keys. wrapper: the outer
    keys taken off, as in "model". metadata: of a safetensors file.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None
    wrapper: str | None = None
    layout: str | None = None
    found: Found | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read(weights: Found | str | Path) -> Checkpoint:
    """Open a checkpoint: safetensors, torch's zip or older format, or the index of a sharded one. Raises
    WeightsError for anything else, for a damaged file, and for a pickle that asks for code (which is not
    run).
    """
    found = weights if isinstance(weights, Found) else None
    path = found.path if found else Path(weights)  # pyright: ignore[reportArgumentType]
    metadata: dict[str, str] = {}
    if path.name.endswith(".index.json"):
        held: dict[Any, Any] = {}
        for shard in _shards(path):
            held.update(_open(shard, metadata))
    else:
        held = _open(path, metadata)
    tensors, wrapper = _unwrap(held, path)
    config_file = path.parent / "config.json"
    config = None
    if config_file.is_file() and (_GENERIC.match(path.name) or (found and found.origin == "given")):
        config = _json(config_file)
    return Checkpoint(path, tensors, config, wrapper, found.layout if found else None, found, metadata)


def _shards(index: Path) -> list[Path]:
    listed = _json(index).get("weight_map")
    names = set(listed.values()) if isinstance(listed, dict) else set()
    if not names or not all(isinstance(n, str) and Path(n).name == n for n in names):
        raise WeightsError(f"{index} does not list the files of a sharded checkpoint.")
    if missing := [n for n in sorted(names) if not (index.parent / n).is_file()]:
        raise WeightsError(f"{index} lists {len(names)} files; missing beside it: {', '.join(missing)}.")
    return [index.parent / n for n in sorted(names)]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} should hold a JSON object, but holds a {type(value).__name__}.")
    return value


def _open(path: Path, metadata: dict[str, str]) -> Any:
    """The content of one file, told by its first bytes: endings lie."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise WeightsError(f"{path} is empty. Delete it and fetch it again.")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{path} is a web page, not a checkpoint: delete it and use the page's download button."
        )
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is a Git LFS pointer of {size} bytes: fetch the file itself (git lfs pull)."
        )
    if path.name == "model_index.json":
        raise WeightsError(
            f"{path} is a diffusers folder, which this estimator cannot use: give it a checkpoint file."
        )
    safetensors = head[8:9] == b"{" and head[:1] != b"\x80"
    try:
        if safetensors:
            from safetensors import safe_open

            with safe_open(str(path), framework="pt") as file:
                metadata.update(file.metadata() or {})
                return {key: file.get_tensor(key) for key in file.keys()}
        zipped = head.startswith(b"PK\x03\x04")
        if not zipped and head[:1] != b"\x80":
            raise WeightsError(f"{path} is no checkpoint: it is neither safetensors nor a torch file.")
        with _allowed_globals():
            # torch.load itself is sometimes patched by other packs to trust every file.
            return torch.serialization.load(
                str(path), map_location="cpu", weights_only=True, mmap=zipped or None
            )
    except WeightsError:
        raise
    except Exception as error:  # damage shows as any error at all, from KeyError to MemoryError
        raise _unreadable(path, size, error) from error


def _unreadable(path: Path, size: int, error: Exception) -> WeightsError:
    said = str(error)
    asked = re.search(
        r"(?:GLOBAL|[Cc]lass|function) ([\w.<>]+)[^\n]*(?:not an allowed|blocked|unsupported)", said
    )
    asked = asked or re.search(r"unrecognized function (.+)|classes allowlisted[^\n]* got (.+)", said)
    if asked:
        what = next(g for g in asked.groups() if g)
        return WeightsError(
            f"{path} is refused: besides weights it asks to call {what}, which could run code. Nothing of it "
            "was run. Use the publisher's own file, or a safetensors version."
        )
    if "TorchScript" in said:
        return WeightsError(
            f"{path} is refused: it is a TorchScript archive, which holds code. Use the plain weights."
        )
    # Behind torch's advice, which would let the file run code, stands what was wrong.
    reason = said.rpartition("WeightsUnpickler error:")[2].strip().split("\n")[0][:120]
    if "Unsupported operand" in said:
        return WeightsError(
            f"{path} ({size} bytes) is refused: it is damaged, or a pickle with instructions that plain weights do "
            f"not need and that could run code ({reason}). Nothing of it was run. Use a safetensors version."
        )
    return WeightsError(
        f"{path} ({size} bytes) is damaged, cut short, or no checkpoint ({type(error).__name__}: {reason}). "
        "Delete it and fetch it again."
    )


def _allowed_globals() -> Any:
    """Context in which torch accepts the harmless globals that published checkpoints hold besides tensors."""
    if not hasattr(torch.serialization, "safe_globals"):  # torch < 2.5: fewer files load, none unsafely
        return nullcontext()
    import argparse

    import numpy as np

    core: Any = getattr(np, "_core", None) or np.core
    wanted: list[Any] = [argparse.Namespace, np.dtype, np.ndarray]
    wanted += [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    for function in (core.multiarray.scalar, core.multiarray._reconstruct):
        wanted.append(function)
        if hasattr(
            torch.serialization, "get_unsafe_globals_in_checkpoint"
        ):  # names by pair came with it, 2.6
            home = "numpy.core.multiarray" if "._core" in function.__module__ else "numpy._core.multiarray"
            wanted.append((function, f"{home}.{function.__name__}"))
    # On leaving, torch forgets what is listed here, also where someone else had listed it before.
    before = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([g for g in dict.fromkeys(wanted) if g not in before])


def _unwrap(held: Any, path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors by name, and the outer keys around them."""
    outer: list[str] = []
    while isinstance(held, Mapping) and len(outer) < 4:
        inner = {k: v for k, v in held.items() if isinstance(k, str) and isinstance(v, Mapping)}
        keys = [k for k in _WRAPPERS if k in inner]
        if not keys and not any(isinstance(v, Tensor) for v in held.values()):
            keys = [k for k in inner if not any(word in k.lower() for word in _BOOKKEEPING)]
            keys = keys if len(keys) == 1 else []
        if not keys:
            break
        outer.append(keys[0])
        held = inner[keys[0]]
    items = held.items() if isinstance(held, Mapping) else ()
    tensors = {k: v.detach() for k, v in items if isinstance(k, str) and _plain(v)}
    if not tensors:
        kind = f"a {type(held).__name__}" + (f" of {', '.join(map(str, list(held)[:5]))}" if items else "")
        raise WeightsError(f"{path} holds no weights: it is {kind}, not named tensors.")
    for prefix in ("module.", "_orig_mod."):  # left by DataParallel and torch.compile
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: tensor for key, tensor in tensors.items()}
    return tensors, "/".join(outer) or None


def _plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized)
    )


# ------------------------------------------------------------------------------------------ loading


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    extras: Mapping[str, str],
    name: str,
    path: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Give every parameter and persistent buffer of `module` its tensor, itself, not a copy.

    extras: patterns (fnmatch) of keys that may be in the file and are not needed, each with the reason; a
    key that the module has is never dropped. dtype: type of floating point weights, None = as in the file.
    Raises WeightsError for missing, surplus, wrong-shaped and non-finite weights; ValueError when the
    builder left a buffer without values.
    """
    expected = module.state_dict()
    given: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key in expected or not any(fnmatch.fnmatchcase(key, pattern) for pattern in extras):
            given[key] = tensor
    missing = [key for key in expected if key not in given]
    surplus = [key for key in given if key not in expected]
    misfits = [
        f"{key} {_shape(given[key])}, expected {_shape(want)}"
        for key, want in expected.items()
        if key in given
        and (given[key].shape != want.shape or given[key].is_floating_point() != want.is_floating_point())
    ]
    if missing or surplus or misfits:
        raise WeightsError(_misfit(name, path, tensors, expected, missing, surplus, misfits))
    for key, tensor in given.items():
        if tensor.is_floating_point():
            given[key] = tensor = tensor if dtype is None else tensor.to(dtype)
            if not _finite(tensor):
                raise WeightsError(
                    f"{name}: {path} is damaged: {key} holds NaN or infinity ({tensor.dtype})."
                )
    module.load_state_dict(given, strict=True, assign=True)
    every = [*module.named_parameters(), *module.named_buffers()]
    if empty := [key for key, tensor in every if tensor.is_meta]:
        raise ValueError(f"{name}: its builder must give values to {_few(empty)}, which no checkpoint holds.")


def _finite(tensor: Tensor) -> bool:
    if tensor.numel() == 0:
        return True
    wide = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    least, most = torch.aminmax(wide)  # one pass, no mask in memory; NaN comes through
    return bool(torch.isfinite(least) & torch.isfinite(most))


def _misfit(
    name: str,
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    missing: list[str],
    surplus: list[str],
    misfits: list[str],
) -> str:
    looks = next(
        (what for start, what in _LOOKS if any(key.startswith(start) for key in tensors)), "another network"
    )
    lines = [f"{name}: {path} does not hold these weights."]
    if misfits and not missing and not surplus:
        lines.append("It has the right names but other sizes: it belongs to another size of this network.")
    else:
        start = next(iter(tensors), "nothing")
        lines.append(
            f"It looks like {looks} ({len(tensors)} tensors, first {start}); {len(expected)} are expected."
        )
    for what, keys in (
        ("missing", missing),
        ("not expected", surplus),
        ("of another shape or kind", misfits),
    ):
        if keys:
            lines.append(f"{len(keys)} {what}: {_few(keys)}.")
    return " ".join(lines)


def _few(keys: Sequence[str]) -> str:
    return ("; " if " " in keys[0] else ", ").join(keys[:4]) + (", ..." if len(keys) > 4 else "")


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or 'scalar'}"
