"""What to annotate: folders, globs, list files, videos, WebDataset tar shards, Parquet image columns.

Listing is lazy and always in the same order, so memory does not grow with the number of pictures and a run can be
taken up again. An Item names one picture; `Reader` brings its bytes.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import logging
import os
import re
import tarfile
import threading
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from ..annotator.decode import PICTURES, decode
from ..errors import FathomError, PictureError, SettingError
from . import stores

VIDEOS = frozenset(
    ".mp4 .mov .mkv .webm .avi .m4v .mpg .mpeg .mpe .m2v .mxf .ts .m2t .mts .m2ts .wmv .asf .flv .f4v .ogv .ogm .y4m "
    ".3gp .3g2 .vob .divx .dv .qt .ivf .nut .h264 .264 .h265 .265 .hevc .obu .mjpg .mjpeg .rm .rmvb .wtv".split()
)
LISTS = frozenset((".txt", ".lst", ".list"))
TABLES = frozenset((".parquet", ".pq"))

KNOWN = PICTURES | VIDEOS | TABLES | {".tar"}
_log = logging.getLogger(__name__)

Kind = Literal["file", "frame", "member", "row", "bad"]


@dataclass(frozen=True)
class Item:
    """One picture to annotate, or one thing that could not be listed.

    name: where its results go, relative, forward slashes, without suffix. path: the file. kind: "file" = the picture;
    "frame" = of a video, with its time as `at` in the stream's units (None = the video tells none) and the hash of its
    planes as `column`; "member" = of a tar at byte `at`, `size` long; "row" = number `at` of a Parquet file's `column`;
    "bad" = not readable, `column` says why. container: the video, tar or table it is in, as a relative name; "" = none.
    number: its place there, from 0.
    """

    name: str
    path: str
    kind: Kind = "file"
    at: int | None = 0
    size: int = 0
    column: str = ""
    container: str = ""
    number: int = 0

    @property
    def label(self) -> str:
        """For people: the file, with the place in it."""
        path = readable(self.path)
        return path if self.kind in ("file", "bad") else f"{path}#{self.number}"


class LibraryError(FathomError):
    """A library that a kind of source needs is not installed."""


@dataclass(frozen=True)
class Candidate:
    """A file that looks like a picture or like a container of pictures. name: of its results, or before those of its
    pictures. problem: why it cannot be looked at, "" = nothing known."""

    name: str
    path: str
    container: bool = False
    problem: str = ""


def readable(name: str) -> str:
    """A name as text that any file system and any JSON holds: each byte that is not UTF-8 as %XX."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "".join(_escaped(c) if "\ud800" <= c <= "\udfff" else c for c in name)
    return name


def _escaped(surrogate: str) -> str:
    code = ord(surrogate)
    return f"%{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else f"%u{code:04X}"


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


def check(sources: list[str], out: str, *, shards: bool = False, videos: bool = False) -> None:
    """Look at the sources before anything runs. shards: results go into tars. videos: of a video into one video.

    Raises SettingError for a source that is not there, cannot be listed, holds the output, is named twice, or holds no
    pictures, and for two pictures whose results would have one name.
    """
    _check_places(sources, out)
    empty = [s for s in sources if next(candidates([s]), None) is None]
    if len(empty) == len(sources):
        raise SettingError(
            f"there is no picture in {', '.join(map(readable, empty))}. Pictures, videos, .tar and .parquet files are "
            "found by their suffix; hidden ones are passed over."
        )
    for source in empty:
        _log.warning("%s holds no picture.", readable(source))
    many = len(sources) > 1 or _suffix(sources[0]) in LISTS
    folds = _folds_case(out)
    if many or shards or videos or folds:
        _check_names(sources, shards, videos, folds)


def _check_names(sources: list[str], shards: bool, videos: bool, folds: bool) -> None:
    """Raises SettingError when two candidates have one name. Eight bytes a picture; containers and folders whole."""
    from array import array

    hashes, loose = array("Q"), False
    folders: dict[str, str] = {}
    containers: dict[str, str] = {}
    for one in candidates(sources):
        name = _folded(one.name, folds)
        if one.container:
            video = _suffix(one.path) in VIDEOS
            name = os.path.splitext(name)[0] if videos and video else name
            if name in containers:
                raise _same(containers[name], one.path, name)
            containers[name] = one.path
            loose = loose or video
            continue
        loose = True
        hashes.append(_hash(name))
        folder = name.rpartition("/")[0]
        while folder and folder not in folders:
            folders[folder] = one.path
            folder = folder.rpartition("/")[0]
    for name, path in containers.items():
        if name in folders:
            raise _same(path, folders[name], name)
        if shards and loose and re.fullmatch(r"\d{6,}", name):
            raise SettingError(
                f"the results of {readable(path)} and of the pictures outside of tars would both be {name}.tar: "
                "annotate them into two folders."
            )
    if len(set(hashes)) == len(hashes):
        return
    once: dict[str, str] = {}
    twice = {h for h, count in Counter(hashes).items() if count > 1}
    for one in candidates(sources):
        name = _folded(one.name, folds)
        if not one.container and _hash(name) in twice and once.setdefault(name, one.path) != one.path:
            raise _same(once[name], one.path, one.name)


def _folded(name: str, folds: bool) -> str:
    return unicodedata.normalize("NFC", name).casefold() if folds else name


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _same(one: str, other: str, name: str) -> SettingError:
    return SettingError(
        f"{readable(one)} and {readable(other)} would both be written as {name}: annotate them into two folders."
    )


def _folds_case(out: str) -> bool:
    """Whether the disk of the output takes A and a for one name, as those of Windows and macOS do."""
    if stores.is_url(out):
        return False
    folder = os.path.abspath(out)
    while not os.path.exists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    try:
        return folder != folder.swapcase() and os.path.samefile(folder, folder.swapcase())
    except OSError:
        return False


def _check_places(sources: list[str], out: str) -> None:
    folders: list[str] = []
    for source in sources:
        root = root_of(source)
        if not _is_there(root):
            what = "file" if is_photo(source) else "file or folder"
            raise SettingError(f"there is no {what} {readable(source)}.")
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


def _is_there(location: str) -> bool:
    """Whether there is such a file or folder; a link that leads nowhere is there, and fails by itself."""
    try:
        return stores.exists(location) or (not stores.is_url(location) and os.path.lexists(location))
    except FathomError:
        raise
    except Exception as error:  # of whatever driver serves a URL
        raise SettingError(f"{location} cannot be reached: {error}") from error


def _real(path: str) -> str:
    return path.rstrip("/") if stores.is_url(path) else os.path.realpath(path)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/" + os.sep) + ("/" if stores.is_url(folder) else os.sep))


# ---------------------------------------------------------------------------------------------- listing


def items(sources: list[str], column: str = "") -> Iterator[Item]:
    """Every picture of the sources, in order. column: the image column of Parquet files, "" = the likely one.

    What cannot be listed comes as an Item of kind "bad".
    """
    for one in candidates(sources):
        if one.problem:
            yield Item(one.name, one.path, "bad", column=one.problem)
        elif one.container:
            yield from _inside_of(one, column)
        else:
            yield Item(one.name, one.path)


def count(sources: list[str], column: str = "") -> int:
    """About how many pictures there are, for the time left: the frames of videos as their files tell, undecoded."""
    total = 0
    for one in candidates(sources):
        if one.container and _suffix(one.path) in VIDEOS:
            from .video import told_frames

            total += told_frames(one.path)
        elif one.container and not one.problem:
            total += sum(1 for _ in _inside_of(one, column))
        else:
            total += 1
    return total


def candidates(sources: list[str]) -> Iterator[Candidate]:
    """Every file of the sources, in order; containers are not opened."""
    folders = sum(not _is_glob(s) and stores.is_folder(s) for s in sources)
    for source in sources:
        if _is_glob(source):
            root = root_of(source)
            wanted = _pattern(source[len(root) :].lstrip("/" + os.sep))
            yield from _walk(root, "", wanted)
        elif stores.is_folder(source):
            prefix = f"{readable(os.path.basename(_real(source)))}/" if folders > 1 else ""
            yield from _walk(source, prefix, None)
        elif _suffix(source) in LISTS:
            yield from _listed(source)
        else:
            yield _candidate(readable(os.path.basename(source)), source)


def _candidate(relative: str, path: str, keep: bool = False) -> Candidate:
    """keep: the suffix belongs to the name, because something else has the name without it."""
    suffix = _suffix(path)
    container = suffix in VIDEOS | TABLES | {".tar"}
    # The frames of a video are a folder under its whole name.
    name = relative if keep or suffix in VIDEOS else os.path.splitext(relative)[0]
    return Candidate(name, path, container)


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
    try:
        return re.compile(out)
    except re.error as error:
        raise SettingError(f"{glob} is not a pattern of file names: {error}.") from error


def _walk(folder: str, name: str, wanted: re.Pattern[str] | None) -> Iterator[Candidate]:
    """Everything below a folder, by name. name: of the folder, with a slash, or ""."""
    waiting: list[Iterator[Candidate | tuple[str, str]]] = [_entries(folder, name, wanted)]
    while waiting:
        one = next(waiting[-1], None)
        if one is None:
            waiting.pop()
        elif isinstance(one, Candidate):
            yield one
        else:
            waiting.append(_entries(*one, wanted))


def _entries(folder: str, name: str, wanted: re.Pattern[str] | None) -> Iterator[Candidate | tuple[str, str]]:
    """The candidates and the folders (path, name with a slash) right in a folder."""
    try:
        entries = [e for e in stores.scan(folder) if not e.name.startswith(".")]
    except Exception as error:
        why = getattr(error, "strerror", None) or error
        yield Candidate(name.rstrip("/") or ".", folder, problem=f"cannot be listed: {why}")
        return
    keep = _keepers((readable(e.name), e.folder) for e in entries)
    escaped: set[str] = set()
    for entry in entries:
        shown = readable(entry.name)
        if entry.folder:
            yield entry.path, f"{name}{shown}/"
        elif (wanted is None or wanted.fullmatch(name + entry.name)) and _suffix(entry.name) in KNOWN:
            if shown != entry.name and (shown in escaped or any(e.name == shown for e in entries)):
                yield Candidate(name + shown, entry.path, problem="its name, made readable, is that of another file.")
                continue
            escaped |= {shown} if shown != entry.name else set()
            yield _candidate(name + shown, entry.path, shown in keep)


def _keepers(entries: Iterable[tuple[str, bool]]) -> frozenset[str]:
    """The files of a folder, of (name, whether it is a folder), that keep their suffix in the name of their results:
    two pictures or two containers that differ in nothing else. As some disks see names, in lower case."""
    listed = list(entries)
    files = [n for n, folder in listed if not folder]
    return frozenset(
        _alike([n for n in files if _suffix(n) in PICTURES], ())
        | _alike(
            [n for n in files if _suffix(n) in TABLES | {".tar"}],
            [n for n, folder in listed if folder or _suffix(n) in VIDEOS],
        )
    )


def _alike(names: list[str], taken: Iterable[str]) -> set[str]:
    """Those of `names` whose stem is that of another, is `taken`, or is the whole name of one that keeps its own."""
    stems = {n: os.path.splitext(n)[0].casefold() for n in names}
    often = Counter(stems.values())
    used = {n.casefold() for n in taken}
    keep: set[str] = set()
    while more := {n for n in names if n not in keep and (often[stems[n]] > 1 or stems[n] in used)}:
        keep |= more
        used |= {n.casefold() for n in more}
    return keep


@lru_cache(maxsize=64)
def _folder_keepers(folder: str) -> frozenset[str]:
    try:
        return _keepers((readable(e.name), e.folder) for e in stores.scan(folder))
    except Exception:  # a folder that cannot be listed: reading from it tells why
        return frozenset()


def _listed(source: str) -> Iterator[Candidate]:
    """The lines of a list. The same line twice is one picture."""
    base = source.rpartition("/")[0] if stores.is_url(source) else os.path.dirname(os.path.abspath(source))
    seen: set[int] = set()
    try:
        with stores.open_file(source) as file:
            for number, line in enumerate(_lines(file), 1):
                line = line.strip()
                if not line or line.startswith("#"):
                    continue
                one = _line(line, base, number, os.path.basename(source))
                if (mark := _hash(f"{one.name}\0{readable(one.path)}")) not in seen:
                    seen.add(mark)
                    yield one
    except OSError as error:
        yield Candidate(
            readable(os.path.basename(source)), source, problem=f"cannot be read: {error.strerror or error}"
        )


def _line(line: str, base: str, number: int, of: str) -> Candidate:
    if "\0" in line or len(line) >= _LONGEST_LINE:
        wrong = "holds a NUL" if "\0" in line else f"is longer than {_LONGEST_LINE} letters"
        return Candidate(readable(f"{of}/line {number}"), f"{of}#{number}", problem=f"line {number} {wrong}: no path.")
    inside = not stores.is_url(line) and not os.path.isabs(line)
    path = f"{base}/{line}" if stores.is_url(base) and inside else os.path.join(base, line) if inside else line
    if not stores.is_url(path) and ".." not in path:
        path = os.path.normpath(path)
    relative = re.sub(r"^\w+://|^[A-Za-z]:", "", line).replace(os.sep, "/")
    relative = readable("/".join(p for p in relative.split("/") if p not in ("", ".", "..")))
    if not relative:
        return Candidate(f"line {number}", path, problem="is no picture.")
    folder = path.rpartition("/")[0] if stores.is_url(path) else os.path.dirname(path)
    return _candidate(relative, path, relative.rpartition("/")[2] in _folder_keepers(folder))


_LONGEST_LINE = 2**16
_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16"}
_MARKS |= {codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}


def _lines(file: Any) -> Iterator[str]:
    """The lines of a text in the encoding that its first bytes tell, UTF-8 without any; other bytes are kept."""
    head = file.read(4)
    file.seek(0)
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
    errors = "replace" if encoding in ("utf-16", "utf-32") else "surrogateescape"
    text = io.TextIOWrapper(file, encoding, errors)
    while line := text.readline(_LONGEST_LINE):
        yield line


def _inside_of(one: Candidate, column: str) -> Iterator[Item]:
    """The pictures in a container; what is wrong with it comes last, as one more."""
    suffix = _suffix(one.path)
    opened = _frames if suffix in VIDEOS else _members if suffix == ".tar" else _rows
    wrong, some = "", False
    try:
        for item in opened(one.path, one.name, column):
            some = True
            yield item
        wrong = "" if some else "holds no picture."
    except LibraryError:
        raise
    except FathomError as error:
        wrong = str(error)
    except OSError as error:
        wrong = f"cannot be read: {error.strerror or error}"
    except Exception as error:  # of whatever library opens it
        wrong = f"cannot be read: {type(error).__name__}: {error}"
    if wrong:
        yield Item(one.name + os.path.splitext(one.path)[1] * (suffix not in VIDEOS), one.path, "bad", column=wrong)


def _frames(path: str, container: str, column: str) -> Iterator[Item]:
    from .video import listed_frames

    for number, (time, mark) in enumerate(listed_frames(path)):
        yield Item(f"{container}/{number:06}", path, "frame", time, column=mark, container=container, number=number)


def _members(path: str, container: str, column: str) -> Iterator[Item]:
    """Pictures of a tar. After the first one of a key (a.jpg), the others (a.seg.png) keep the rest of their names."""
    keys: set[str] = set()
    number = 0
    try:
        with stores.open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[assignment]  # tarfile would remember every member
                shown = readable("/".join(p for p in _PARTS.split(member.name) if p not in ("", ".", "..")))
                folder, _, file_name = shown.rpartition("/")
                # What macOS puts beside each file, and hidden files as in folders.
                hidden = file_name.startswith(".") or "__MACOSX" in folder.split("/")
                if not member.isfile() or _suffix(file_name) not in PICTURES or hidden:
                    continue
                key = f"{folder}/{file_name.partition('.')[0]}".lstrip("/")
                name = shown if key.casefold() in keys else key
                position = {"container": container, "number": number}
                if name.casefold() in keys or member.issparse():
                    wrong = "is stored with holes" if member.issparse() else "is in the tar twice"
                    yield Item(f"{container}/{shown}#{number}", path, "bad", column=f"{shown} {wrong}.", **position)
                else:
                    at, size = member.offset_data, member.size
                    yield Item(f"{container}/{name}", path, "member", at, size, **position)
                keys |= {key.casefold(), name.casefold()}
                number += 1
            file.seek(tar.offset)  # type: ignore[attr-defined]
            if not file.read(tarfile.BLOCKSIZE):
                raise PictureError("the tar ends without its closing block: it was cut short")
    except tarfile.TarError as error:
        raise PictureError(f"the tar cannot be read: {error}") from error


_PARTS = re.compile(r"[/\\]" if os.name == "nt" else "/")


def _parquet(path: str) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise LibraryError(f"{path}: Parquet needs pyarrow: pip install 'comfy-fathom[parquet]'.") from error
    import pyarrow

    stores.check_file(path)
    try:
        return pq.ParquetFile(stores.open_file(path) if stores.is_url(path) else path)
    except (pyarrow.ArrowException, ValueError) as error:
        raise PictureError(f"the Parquet file cannot be read: {error}") from error


def _rows(path: str, container: str, column: str) -> Iterator[Item]:
    table = _parquet(path)
    chosen = _image_column(table.schema_arrow, column, path)
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

                image, sha256, size = self._container(item.path, Frames).frame(item.number, item.at, item.column)
                return Picture(image, sha256, size, stores.stat(item.path).changed)
            if item.kind == "file":
                data, about = stores.read_still(item.path)
            elif item.kind == "member":
                about = stores.stat(item.path)
                data = stores.read(item.path, item.at or 0, item.size)
                if len(data) != item.size:
                    raise PictureError("the tar ends before it.")
            else:
                about = stores.stat(item.path)
                data = self._container(item.path, _Table).row(item.column, item.number)
            sha256 = hashlib.sha256(data).hexdigest()
            return Picture(decode(data, readable(os.path.basename(item.path))), sha256, len(data), about.changed)
        except FileNotFoundError:
            what = "it is a link to a file that is not there" if os.path.islink(item.path) else "there is no such file"
            raise PictureError(f"{what}: {readable(item.path)}.") from None
        except OSError as error:
            raise PictureError(f"cannot be read: {error.strerror or error}.") from error
        except ValueError as error:
            if isinstance(error, FathomError):
                raise
            raise PictureError(f"cannot be read: {error}.") from error

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
        self._cache: tuple[str, int, int, Any] | None = None
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
            if self._cache is None or self._cache[:2] != (column, group):
                try:
                    values = self._file.read_row_group(group, columns=[column]).column(column)
                except (pyarrow.ArrowException, OSError) as error:
                    raise PictureError(f"the Parquet file is damaged: {error}") from error
                start = self._ends[group - 1] if group else 0
                self._cache = (column, group, start, values)
            value = self._cache[3][number - self._cache[2]].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if not value:
            raise PictureError("the row holds no bytes: a picture that is only named by its path is not in the file.")
        return value
