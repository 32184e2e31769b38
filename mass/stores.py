"""Where pictures are read from and results are written to: the local disk, or any file system that fsspec knows."""

from __future__ import annotations

import errno
import os
import platform
import secrets
import shutil
import stat as filesystem
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import FathomError, PictureError

WORK = ".fathom"
TEMPORARY = f"{WORK}/tmp"  # noqa: S108


# What a disk says of one name: too long, not in its alphabet, a file where a folder should be. Other names work.
_NAME = {
    getattr(errno, name)
    for name in ("ENAMETOOLONG", "EILSEQ", "EINVAL", "ENOTDIR", "EISDIR", "EEXIST", "ENOTEMPTY", "ELOOP")
    if hasattr(errno, name)
}


@dataclass(frozen=True)
class Stat:
    """size: bytes. changed: what differs when the content does: nanoseconds of the last change, or an object's tag."""

    size: int
    changed: int | str


@dataclass(frozen=True)
class Entry:
    """One name in a folder. path: joined with the folder."""

    name: str
    path: str
    folder: bool


def is_url(location: str) -> bool:
    """Whether a place is on another file system, such as s3://bucket/folder."""
    return "://" in location


@cache
def _remote(protocol: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise FathomError(
            f"{protocol}:// needs fsspec and its driver: pip install 'comfy-fathom[ray]' (and s3fs, gcsfs ...)."
        ) from error
    try:
        return fsspec.filesystem(protocol)
    except (ImportError, ValueError) as error:
        raise FathomError(f"{protocol}:// cannot be used: {error}.") from error


def _split(url: str) -> tuple[Any, str]:
    fs = _remote(url.partition("://")[0])
    return fs, fs._strip_protocol(url)


# ------------------------------------------------------------------------------------------------ reading


def scan(folder: str) -> list[Entry]:
    """The entries of one folder, sorted by name. Links to folders are not followed. Raises OSError."""
    if is_url(folder):
        fs, path = _split(folder)
        protocol = folder.partition("://")[0]
        found = [
            Entry(e["name"].rstrip("/").rpartition("/")[2], f"{protocol}://{e['name']}", e["type"] == "directory")
            for e in fs.ls(path, detail=True)
            if e["name"].rstrip("/") != path.rstrip("/")
        ]
    else:
        with os.scandir(folder) as listed:
            found = [
                Entry(e.name, os.path.join(folder, e.name), e.is_dir(follow_symlinks=False))
                for e in listed
                if e.is_dir(follow_symlinks=False) or not _leads_to_folder(e)
            ]
    return sorted(found, key=lambda e: e.name)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself; reading it tells
        return False


def check_file(location: str) -> None:
    """Raises PictureError for what has no bytes to read: a pipe would keep its reader waiting for ever."""
    if not is_url(location):
        mode = os.stat(location).st_mode
        for is_kind, kind in _NO_FILES.items():
            if is_kind(mode):
                raise PictureError(f"is {kind}, not a file.")


_NO_FILES = {
    filesystem.S_ISFIFO: "a pipe",
    filesystem.S_ISSOCK: "a socket",
    filesystem.S_ISCHR: "a device",
    filesystem.S_ISBLK: "a device",
    filesystem.S_ISDIR: "a folder",
}


def is_folder(location: str) -> bool:
    """Whether `location` is an existing folder."""
    if is_url(location):
        fs, path = _split(location)
        return bool(fs.isdir(path))
    return os.path.isdir(location)


def exists(location: str) -> bool:
    """Whether there is such a file or folder."""
    if is_url(location):
        fs, path = _split(location)
        return bool(fs.exists(path))
    return os.path.exists(location)


def stat(location: str) -> Stat:
    """Size and mark of a file. Raises OSError."""
    if is_url(location):
        fs, path = _split(location)
        about = fs.info(path)
        mark = next((about[k] for k in ("ETag", "etag", "md5Hash", "mtime", "LastModified") if k in about), "")
        return Stat(int(about["size"] or 0), str(mark))
    about = os.stat(location)
    return Stat(about.st_size, about.st_mtime_ns)


def read_still(location: str) -> tuple[bytes, Stat]:
    """The whole of a file that did not change meanwhile. Raises OSError, or PictureError when it keeps changing."""
    check_file(location)
    for _ in range(3):
        before = stat(location)
        data = read(location)
        if stat(location) == before and len(data) == before.size:
            return data, before
    raise PictureError(f"{location} changes while it is read: something is still writing it.")


def read(location: str, offset: int = 0, size: int = -1) -> bytes:
    """Bytes of a file. Raises OSError."""
    if is_url(location):
        fs, path = _split(location)
        return fs.cat_file(path, start=offset or None, end=None if size < 0 else offset + size)
    with open(location, "rb") as file:
        file.seek(offset)
        return file.read(size)


def open_file(location: str) -> Any:
    """A file open for reading, seekable. Raises OSError."""
    if is_url(location):
        fs, path = _split(location)
        return fs.open(path, "rb")
    check_file(location)
    return open(location, "rb")


# ------------------------------------------------------------------------------------------------ writing


class Store:
    """A folder that results are written into. Names are relative, with forward slashes.

    A file appears whole or not at all: locally it is written under .fathom/tmp, or with `beside` as a hidden file in
    its own folder, and renamed; object stores publish a file when its last byte has come.
    """

    def __init__(self, root: str, beside: bool = False) -> None:
        self.root = root.rstrip("/") if is_url(root) else root
        self.beside = beside
        self.remote = is_url(root)
        self._folders: set[str] = set()
        self._lock = threading.Lock()

    def path(self, name: str) -> str:
        """The full place of a name."""
        return f"{self.root}/{name}" if self.remote else os.path.join(self.root, name)

    def write(self, name: str, data: bytes) -> None:
        """Publish a file. Raises FathomError with the system's reason, for instance a full disk."""
        with self.writing(name) as part:
            part.write(data)

    def writing(self, name: str) -> _Writing:
        """A file to write in pieces, published when the block ends without an error. Errors as in `write`."""
        return _Writing(self, name)

    def read(self, name: str) -> bytes | None:
        """A file's bytes, None when there is none."""
        try:
            return read(self.path(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FathomError(f"{self.path(name)} cannot be read: {error.strerror or error}.") from error

    def size(self, name: str) -> int | None:
        """A file's size in bytes, None when there is none."""
        try:
            return stat(self.path(name)).size
        except OSError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file or a folder if it is there."""
        location = self.path(name)
        if self.remote:
            fs, path = _split(location)
            if fs.exists(path):
                fs.rm(path, recursive=True)
        elif os.path.isdir(location):
            shutil.rmtree(location, ignore_errors=True)
        else:
            Path(location).unlink(missing_ok=True)

    def names(self, folder: str) -> Iterator[str]:
        """The names of the files right in `folder`, sorted; none when it does not exist."""
        try:
            yield from (e.name for e in scan(self.path(folder)) if not e.folder)
        except OSError:
            return

    def make(self, folder: str) -> None:
        """Make a folder of the local disk once."""
        with self._lock:
            if folder in self._folders:
                return
        os.makedirs(folder, exist_ok=True)
        with self._lock:
            # Of a million folders only the last few are asked for again.
            if len(self._folders) > 4096:
                self._folders.clear()
            self._folders.add(folder)


class _Writing:
    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._part = ""

    _file: Any

    def __enter__(self) -> Any:
        try:
            if self._store.remote:
                fs, path = _split(self._store.path(self._name))
                self._file = fs.open(path, "wb")
            else:
                own = os.path.dirname(self._store.path(self._name))
                folder = own if self._store.beside else os.path.join(self._store.root, TEMPORARY)
                self._store.make(folder)
                part = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
                self._part = os.path.join(folder, f".{part}.part" if self._store.beside else part)
                self._file = open(self._part, "xb")
        except OSError as error:
            raise self._failed(error) from error
        return self

    def write(self, data: bytes) -> int:
        """Append."""
        try:
            return self._file.write(data)
        except OSError as error:
            raise self._failed(error) from error

    def tell(self) -> int:
        """Bytes written."""
        return self._file.tell()

    def flush(self) -> None:
        """Nothing: the block's end publishes."""

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is not None:
                self._drop()
                return
            self._file.close()
            if self._part:
                # No fsync: what survives a power cut short or empty is seen by its size, and done again.
                target = self._store.path(self._name)
                self._store.make(os.path.dirname(target))
                os.replace(self._part, target)
        except OSError as failure:
            self._drop()
            raise self._failed(failure) from failure

    def _drop(self) -> None:
        if self._part:
            try:
                self._file.close()
            except OSError:
                pass
            Path(self._part).unlink(missing_ok=True)
        elif hasattr(self._file, "discard"):
            self._file.discard()

    def _failed(self, error: OSError) -> FathomError:
        location = self._store.path(self._name)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(
                f"the disk is full: {location} could not be written. What was finished is kept; make room and run the "
                "same command again."
            )
        if error.errno in _NAME:
            return PictureError(f"{location} could not be written: {error.strerror}. Give the picture another name.")
        return OutputError(f"{location} could not be written: {error.strerror or error}. What was finished is kept.")


class OutputError(FathomError):
    """The output cannot be written: the run stops, what was finished is kept."""
