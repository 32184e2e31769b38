"""The search on disk: Fathom's own folders, those of other packs, and the Hugging Face cache, in this order."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import WeightsError
from .. import host
from .sources import GENERIC, Found, Source

log = logging.getLogger(__name__)

_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "model.fp16.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_PIPELINE_FILES = {".json", ".safetensors", ".bin"}


def find(sources: Sequence[Source]) -> Found | None:
    """The first source that lies on disk, complete and of the published size. Never uses the network."""
    return search(sources)[0]


def resolve(weights: str | Path, sources: Sequence[Source], *, name: str) -> Found:
    """The weights that the caller chose: a file, or a Hugging Face style or diffusers folder.

    The layout is told by the file's name where that is possible. Raises WeightsError when nothing is there.
    """
    path, kind = look(weights)
    if kind == "file":
        return _given(path, path.parent, sources)
    if kind != "folder":
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


def look(weights: str | Path) -> tuple[Path, str]:
    """A path that a person named, and what lies there: "file", "folder" or "" for nothing that can be looked at, such
    as a name too long, a link to itself, the home of a user whom nobody knows."""
    path = Path(weights)
    try:
        path = path.expanduser()
        return path, "file" if path.is_file() else "folder" if path.is_dir() else ""
    except (OSError, ValueError, RuntimeError):
        return path, ""


def _given(path: Path, root: Path, sources: Sequence[Source]) -> Found:
    same = [s for s in sources if Path(s.file).name == path.name]
    sure = [s for s in same if not GENERIC.match(path.name) or s.repo.endswith(f"/{root.name}")]
    layouts = {s.layout for s in sure or same}
    layout = layouts.pop() if len(layouts) == 1 else None
    return Found(path, root, "given", sure[0] if sure else None, layout, _parts(path, root, same or sources))


def _parts(path: Path, root: Path, sources: Sequence[Source]) -> tuple[str, ...]:
    """The further files of a model that somebody chose: those of the first source that is there as a whole, else of a
    diffusers folder every configuration and weights file in it, else whatever lies beside the main file under a name
    that says what it is."""
    here = Found(path, root, "given")
    whole = (s.also for s in sources if s.also and all(here.part(file).is_file() for file in s.also))
    if (also := next(whole, None)) is not None:
        return also
    if path.name == "model_index.json":
        listed = sorted(p for p in (*root.glob("*"), *root.glob("*/*")) if p != path and p.suffix in _PIPELINE_FILES)
        return tuple(p.relative_to(root).as_posix() for p in listed if p.is_file())
    every = dict.fromkeys(file for s in sources for file in s.also if not GENERIC.match(Path(file).name))
    return tuple(file for file in every if here.part(file).is_file())


def search(sources: Sequence[Source]) -> tuple[Found | None, list[str]]:
    """The first sound source, and a line on every copy that was there and passed over."""
    passed: list[str] = []
    for source in sources:
        for found in places(source):
            if not (fault := _fault(found, source)):
                return found, passed
            passed.append(fault)
            log.warning("not used: %s", fault)
    return None, passed


def places(source: Source) -> Iterator[Found]:
    """Every place where the source's main file lies, best first, sound or not."""
    seen = set()
    owner, _, repository = source.folder.rpartition("/")
    folders = {"annotators": host.weight_folders(), **host.neighbour_folders()}
    for origin, folder in ((origin, folder) for origin, listed in folders.items() for folder in listed):
        roots = [folder / source.folder, folder / f"{owner}--{repository}", folder / repository] if owner else []
        paths = [(root, root / source.file) for root in roots]
        if not any(GENERIC.match(Path(file).name) for file in source.files):
            paths.append((folder, folder / Path(source.file).name))
        for root, path in paths:
            if path.is_file() and path not in seen:
                seen.add(path)
                yield Found(path, root, origin, source, source.layout, source.also)
    if source.on_hub:
        for root in _snapshots(source):
            if (root / source.file).is_file():
                yield Found(root / source.file, root, "hub cache", source, source.layout, source.also)


def _snapshots(source: Source) -> list[Path]:
    """Folders of the Hugging Face cache that hold revisions of the repository, the pinned one first."""
    kind = "spaces" if source.repo.startswith("spaces/") else "models"
    base = hub_cache() / "--".join([kind, *source.folder.split("/")])
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


def hub_cache() -> Path:
    """The folder in which huggingface_hub keeps what it downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
