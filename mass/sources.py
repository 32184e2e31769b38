"""What to annotate: folders, globs, list files, videos, WebDataset tar shards, Parquet image columns.

Listing is lazy and always in the same order, so memory does not grow with the number of pictures and a run can be
taken up again. An Item names one picture; `Reader` brings its bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ..errors import FathomError, PictureError, SettingError
from . import stores
from .decode import PICTURES, decode

VIDEOS = frozenset(".mp4 .mov .mkv .webm .avi .m4v .mpg .mpeg .mxf .ts .m2ts .wmv .flv .ogv .y4m".split())
LISTS = frozenset((".txt", ".lst", ".list"))
TABLES = frozenset((".parquet", ".pq"))

Kind = Literal["file", "frame", "member", "row", "bad"]


@dataclass(frozen=True)
class Item:
    """One picture to annotate, or one thing that could not be listed.

    name: where its results go, relative, forward slashes, without suffix. path: the file. kind: "file" = the picture;
    "frame" = frame of a video at `at` (presentation time in the stream's units); "member" = of a tar at byte `at`,
    `size` long; "row" = number `at` of a Parquet file's `column`; "bad" = not readable, `column` says why.
    container: the video, tar or table it is in, as a relative name; "" = none. number: its place there.
    """

    name: str
    path: str
    kind: Kind = "file"
    at: int = 0
    size: int = 0
    column: str = ""
    container: str = ""
    number: int = 0

    @property
    def label(self) -> str:
        """For people: the file, with the place in it."""
        return self.path if self.kind in ("file", "bad") else f"{self.path}#{self.number}"


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def is_photo(source: str) -> bool:
    """Whether a source is named as one photo, not as a folder, glob, list, video, tar or table."""
    if stores.is_url(source) or os.path.isdir(source) or _is_glob(source):
        return False
    return _suffix(source) not in VIDEOS | LISTS | TABLES | {".tar"} and not source.lower().endswith(
        (".tar.gz", ".tgz", ".tar.zst")
    )


def _is_glob(source: str) -> bool:
    return any(c in source for c in "*?[") and not (not stores.is_url(source) and os.path.exists(source))


def check(sources: list[str], out: str) -> None:
    """Raises SettingError for a source that is not there, cannot be listed, holds the output, or is named twice."""
    folders: list[str] = []
    for source in sources:
        root = root_of(source)
        if not stores.exists(root):
            raise SettingError(f"there is no file or folder {source}.")
        if source.lower().endswith((".tar.gz", ".tgz", ".tar.zst")):
            raise SettingError(f"{source}: a compressed tar has no places to read from. Decompress it first.")
        folder = stores.is_folder(root)
        if folder:
            try:
                stores.scan(root)
            except OSError as error:
                raise SettingError(
                    f"the folder {root} cannot be read: {error.strerror or error}. Its rights must let you list it."
                ) from error
            if not _is_glob(source):
                folders.append(_real(root))
            if _inside(_real(out), _real(root)):
                raise SettingError(
                    f"the output {out} lies inside the source {root}, so results would be annotated in turn: choose a "
                    "folder outside it."
                )
        elif not _is_glob(source) and _real(root) == _real(out):
            raise SettingError(f"{out} is a source and cannot be the output folder.")
    for i, one in enumerate(folders):
        for other in folders[i + 1 :]:
            if _inside(one, other) or _inside(other, one):
                raise SettingError(f"the sources {one} and {other} hold the same pictures: name the outer one only.")
            if os.path.basename(one) == os.path.basename(other):
                raise SettingError(
                    f"the sources {one} and {other} have the same name, so their results would be mixed: use two runs "
                    "with two output folders."
                )
    for source in {s for s in sources if sources.count(s) > 1}:
        raise SettingError(f"{source} is named twice.")


def _real(path: str) -> str:
    return path.rstrip("/") if stores.is_url(path) else os.path.realpath(path)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/" + os.sep) + ("/" if stores.is_url(folder) else os.sep))


# ---------------------------------------------------------------------------------------------- listing


def items(sources: list[str], column: str = "") -> Iterator[Item]:
    """Every picture of the sources, in order. column: the image column of Parquet files, "" = the likely one.

    What cannot be listed comes as an Item of kind "bad".
    """
    folders = sum(not _is_glob(s) and stores.is_folder(s) for s in sources)
    for source in sources:
        if _is_glob(source):
            root = root_of(source)
            wanted = _pattern(source[len(root) :].lstrip("/" + os.sep))
            yield from _walk(root, "", column, wanted)
        elif stores.is_folder(source):
            prefix = f"{os.path.basename(_real(source))}/" if folders > 1 else ""
            yield from _walk(source, prefix, column, None)
        elif _suffix(source) in LISTS:
            yield from _listed(source, column)
        else:
            yield from _file(source, os.path.basename(source), column)


def root_of(source: str) -> str:
    """The file or folder that a source stands on: of a glob, what comes before its first wildcard."""
    return _fixed_part(source) if _is_glob(source) else source


def _fixed_part(pattern: str) -> str:
    head = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    cut = max(head.rfind("/"), head.rfind(os.sep))
    return head[: cut + 1].rstrip("/" + os.sep) or ("/" if head.startswith("/") else ".") if cut >= 0 else "."


def _pattern(glob: str) -> re.Pattern[str]:
    """A glob relative to its fixed part as a regular expression over names with forward slashes."""
    out, i = "", 0
    glob = glob.replace(os.sep, "/")
    while i < len(glob):
        if glob.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif glob.startswith("**", i):
            out, i = out + ".*", i + 2
        elif glob[i] == "[" and (end := glob.find("]", i + 2)) > 0:
            inner = glob[i + 1 : end].replace("\\", "\\\\")
            out, i = out + f"[{'^' + inner[1:] if inner[0] == '!' else inner}]", end + 1
        else:
            out, i = out + {"*": "[^/]*", "?": "[^/]"}.get(glob[i], re.escape(glob[i])), i + 1
    return re.compile(out)


def _walk(folder: str, name: str, column: str, wanted: re.Pattern[str] | None) -> Iterator[Item]:
    try:
        entries = stores.scan(folder)
    except OSError as error:
        yield Item(name.rstrip("/") or ".", folder, "bad", column=f"cannot be listed: {error.strerror or error}")
        return
    shared = _stems(e.name for e in entries if not e.folder)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.folder:
            yield from _walk(entry.path, f"{name}{entry.name}/", column, wanted)
        elif wanted is None or wanted.fullmatch(name + entry.name):
            if _suffix(entry.name) in PICTURES:
                yield Item(_name(name + entry.name, shared), entry.path)
            elif _suffix(entry.name) in VIDEOS | TABLES | {".tar"}:
                yield from _file(entry.path, name + entry.name, column)


def _stems(names: Any) -> Counter[str]:
    """How many pictures of a folder share each stem, lower case as some disks see them."""
    return Counter(os.path.splitext(n)[0].lower() for n in names if _suffix(n) in PICTURES)


def _name(relative: str, shared: Counter[str]) -> str:
    """The name without its suffix; with it where two pictures of the folder differ in nothing else."""
    stem = os.path.splitext(relative)[0]
    return relative if shared[os.path.basename(stem).lower()] > 1 else stem


@lru_cache(maxsize=64)
def _folder_stems(folder: str) -> Counter[str]:
    try:
        return _stems(e.name for e in stores.scan(folder))
    except OSError:
        return Counter()


def _listed(source: str, column: str) -> Iterator[Item]:
    base = source.rpartition("/")[0] if stores.is_url(source) else os.path.dirname(os.path.abspath(source))
    with stores.open_file(source) as lines:
        for raw in lines:
            line = raw.decode("utf-8-sig", "replace").strip()
            if not line or line.startswith("#"):
                continue
            inside = not stores.is_url(line) and not os.path.isabs(line)
            path = f"{base}/{line}" if stores.is_url(base) and inside else os.path.join(base, line) if inside else line
            relative = re.sub(r"^\w+://|^[A-Za-z]:", "", line).replace(os.sep, "/")
            relative = "/".join(p for p in relative.split("/") if p not in ("", ".", ".."))
            if _suffix(line) in VIDEOS | TABLES | {".tar"}:
                yield from _file(path, relative, column)
            else:
                folder = path.rpartition("/")[0] if stores.is_url(path) else os.path.dirname(path)
                yield Item(_name(relative, _folder_stems(folder)), path)


def _file(path: str, relative: str, column: str) -> Iterator[Item]:
    suffix = _suffix(path)
    opened: Callable[[str, str, str], Iterator[Item]] | None = (
        _frames if suffix in VIDEOS else _members if suffix == ".tar" else _rows if suffix in TABLES else None
    )
    if opened is None:
        yield Item(os.path.splitext(relative)[0], path)
        return
    try:
        yield from opened(path, relative, column)
    except PictureError as error:
        yield Item(relative, path, "bad", column=str(error))
    except OSError as error:
        yield Item(relative, path, "bad", column=f"cannot be read: {error.strerror or error}")


def _frames(path: str, relative: str, column: str) -> Iterator[Item]:
    from .video import frame_times

    for number, pts in enumerate(frame_times(path)):
        yield Item(f"{relative}/{number:06}", path, "frame", pts, container=relative, number=number)


def _members(path: str, relative: str, column: str) -> Iterator[Item]:
    """Pictures of a tar. Two of one key (a.jpg and a.seg.png) keep the rest of their names."""
    container = os.path.splitext(relative)[0]
    try:
        with stores.open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            number = 0
            before: str | None = None
            for member in tar:
                tar.members = []  # type: ignore[assignment]  # tarfile would remember every member
                if not member.isfile() or _suffix(member.name) not in PICTURES:
                    continue
                folder, _, file_name = member.name.rpartition("/")
                key, _, rest = file_name.partition(".")
                name = "/".join(p for p in (*folder.split("/"), key) if p not in ("", ".", ".."))
                # Members of one sample stand beside each other.
                shown = name if name != before else f"{name}.{rest}"
                before = name
                yield Item(
                    f"{container}/{shown}",
                    path,
                    "member",
                    member.offset_data,
                    member.size,
                    container=container,
                    number=number,
                )
                number += 1
            file.seek(tar.offset)  # type: ignore[attr-defined]
            if not file.read(tarfile.BLOCKSIZE):
                raise PictureError("the tar ends without its closing block: it was cut short")
    except tarfile.TarError as error:
        raise PictureError(f"the tar cannot be read: {error}") from error


def _parquet(path: str) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise FathomError(f"{path}: Parquet needs pyarrow: pip install 'comfy-fathom[parquet]'.") from error
    import pyarrow

    try:
        return pq.ParquetFile(stores.open_file(path) if stores.is_url(path) else path)
    except (pyarrow.ArrowException, ValueError) as error:
        raise PictureError(f"the Parquet file cannot be read: {error}") from error


def _rows(path: str, relative: str, column: str) -> Iterator[Item]:
    table = _parquet(path)
    chosen = _image_column(table.schema_arrow, column, path)
    container = os.path.splitext(relative)[0]
    for number in range(table.metadata.num_rows):
        yield Item(f"{container}/{number:08}", path, "row", number, column=chosen, container=container, number=number)


def _image_column(schema: Any, column: str, path: str) -> str:
    """The column given, or the one that holds pictures: bytes, or Hugging Face's struct of bytes and path."""
    import pyarrow.types as types

    def holds(kind: Any) -> bool:
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return types.is_binary(kind) or types.is_large_binary(kind)

    fit = [f.name for f in schema if holds(f.type)]
    if column:
        if column in fit:
            return column
        raise PictureError(f"has no image column {column!r}; columns that hold bytes: {', '.join(fit) or 'none'}")
    likely = [n for n in fit if n.lower() in ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")] or fit
    if len(likely) != 1:
        raise PictureError(f"say which column holds the pictures (--column): {', '.join(fit) or 'none holds bytes'}")
    return likely[0]


# ---------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Picture:
    """A decoded picture. image: PIL image or tensor (1,H,W,C). sha256: of the file's bytes, or a frame's pixels.
    size: in bytes. changed: the mark of the file it is in."""

    image: Any
    sha256: str
    size: int
    changed: int | str


class Reader:
    """Reads the pictures of items; keeps the few containers open that were read last. For many threads at once."""

    KEEP = 4

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Any] = OrderedDict()

    def read(self, item: Item) -> Picture:
        """Raises PictureError saying what is wrong with the picture."""
        try:
            if item.kind == "bad":
                raise PictureError(item.column)
            if item.kind == "frame":
                from .video import Frames

                image, sha256, size = self._container(item.path, Frames).frame(item.at)
                return Picture(image, sha256, size, stores.stat(item.path).changed)
            if item.kind == "file":
                data, about = stores.read_still(item.path)
            elif item.kind == "member":
                about = stores.stat(item.path)
                data = stores.read(item.path, item.at, item.size)
                if len(data) != item.size:
                    raise PictureError("the tar ends before it.")
            else:
                about = stores.stat(item.path)
                data = self._container(item.path, _Table).row(item.column, item.at)
            sha256 = hashlib.sha256(data).hexdigest()
            return Picture(decode(data, os.path.basename(item.path)), sha256, len(data), about.changed)
        except FileNotFoundError:
            raise PictureError("it is gone: it was there when the sources were listed.") from None
        except OSError as error:
            raise PictureError(f"cannot be read: {error.strerror or error}.") from error

    def _container(self, path: str, kind: Callable[[str], Any]) -> Any:
        with self._lock:
            if path not in self._open:
                self._open[path] = kind(path)
            self._open.move_to_end(path)
            while len(self._open) > self.KEEP:
                # Not closed here: another thread may be reading from it; it closes when the last one lets go.
                self._open.popitem(last=False)
            return self._open[path]


class _Table:
    """One Parquet file, read a row group at a time."""

    def __init__(self, path: str) -> None:
        self._file = _parquet(path)
        self._lock = threading.Lock()
        self._held: tuple[str, int, int, Any] | None = None
        ends, total = [], 0
        for group in range(self._file.metadata.num_row_groups):
            total += self._file.metadata.row_group(group).num_rows
            ends.append(total)
        self._ends = ends

    def row(self, column: str, number: int) -> bytes:
        """The picture's bytes."""
        import bisect

        import pyarrow

        with self._lock:
            group = bisect.bisect_right(self._ends, number)
            if self._held is None or self._held[:2] != (column, group):
                try:
                    values = self._file.read_row_group(group, columns=[column]).column(column)
                except (pyarrow.ArrowException, OSError) as error:
                    raise PictureError(f"the Parquet file is damaged: {error}") from error
                start = self._ends[group - 1] if group else 0
                self._held = (column, group, start, values)
            value = self._held[3][number - self._held[2]].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if not value:
            raise PictureError("the row holds no bytes: a picture that is only named by its path is not in the file.")
        return value
