"""Where weights are published, where a copy of them lies, and which files make it up."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import WeightsError
from ..environment import variable
from .digest import file_state, joint_digest

# Names that every repository uses: outside a repository's own folder they say nothing about the content.
GENERIC = re.compile(r"(config|model_index|preprocessor_config|pytorch_model|diffusion_pytorch_model|model)[.-]")


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
        """Where the repository's files lie below a model folder: "owner/name", the layout of controlnet_aux."""
        return self.repo.removeprefix("spaces/") if self.on_hub else ""

    @property
    def url(self) -> str:
        """The page to fetch the file, or the files, from by hand."""
        if self.on_hub and self.also:
            return f"{endpoint()}/{self.repo}/tree/{self.revision}"
        if self.on_hub:
            return f"{endpoint()}/{self.repo}/blob/{self.revision}/{self.file}"
        return f"{self.repo.rstrip('/')}/{self.file}"

    def pin(self, file: str) -> tuple[str | None, int | None]:
        """The published (sha256, size) of one of `files`."""
        return (self.sha256, self.size) if file == self.file else self.pins.get(file, (None, None))


Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Found:
    """Weights on disk. path: the main file. root: the folder that the source's file names start from.
    origin: "given", "annotators", "aux", "depthanything", "diffusers", "hub cache" or "downloaded". layout:
    None = tell by the keys. also: the further files of the model by their names below `root`, as in Source; of a
    sharded model its index names more.
    """

    path: Path
    root: Path
    origin: str
    source: Source | None = None
    layout: str | None = None
    also: tuple[str, ...] = ()

    def part(self, file: str) -> Path:
        """The path of one of the source's files; flat folders hold it under its last name."""
        return self.root / file if (self.root / file).exists() else self.root / Path(file).name

    @property
    def config_file(self) -> Path | None:
        """The config.json that describes these weights; None where there is none, or it may be another model's."""
        path = self.path.parent / "config.json"
        belongs = GENERIC.match(self.path.name) or self.origin == "given"
        return path if belongs and self.path.name != "model_index.json" and path.is_file() else None

    @cached_property
    def named_files(self) -> tuple[tuple[str, Path], ...]:
        """(name, path) of every file of the model, the main one first: further files by their published names, which
        say what they are for. Raises WeightsError for the index of a sharded model that cannot be read."""
        named = {self.path.name: self.path}
        if is_index(self.path):
            named |= {shard.name: shard for shard in shards(self.path)}
        if config := self.config_file:
            named["config.json"] = config
        named |= {name: self.part(name) for name in self.also}
        paths = {path: name for name, path in reversed(named.items())}
        return tuple((name, path) for path, name in reversed(paths.items()))

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the model is made of, the main one first; what ships a model ships these."""
        return tuple(path for _, path in self.named_files)

    def digest(self, notes: Path | None = None) -> str:
        """The model's identity: one sha256 over all its files, the same wherever they lie. Of a model of one file it
        is that file's sha256, of several that of their published names and hashes. A file is read only when it is
        new or changed; `notes`, a file, remembers that for later processes. Raises WeightsError when one is missing."""
        try:
            return joint_digest(self.named_files, notes)
        except OSError as error:
            raise WeightsError(f"{error.filename} cannot be read: {error.strerror}.") from error

    def stamp(self) -> Stamp | None:
        """What tells that any of the files was replaced or written to: names, sizes, times, inodes; None when one is
        missing. Opens nothing."""
        try:
            return tuple((str(path), *file_state(path)) for path in self.files)
        except OSError:
            return None


def is_index(path: Path) -> bool:
    """Whether this is the index of a model in several files."""
    return path.name.endswith(".index.json")


def shards(index: Path) -> list[Path]:
    """The files that the index of a sharded model lists. Raises WeightsError where it lists none, names places outside
    its own folder, or one is missing."""
    listed = read_json(index).get("weight_map")
    names = set(listed.values()) if isinstance(listed, dict) and all(_is_name(v) for v in listed.values()) else set()
    if not names:
        raise WeightsError(
            f"{index} does not list the files of a sharded checkpoint: its weight_map should hold the name of a "
            "file beside it for each tensor."
        )
    if missing := [n for n in sorted(names) if not (index.parent / n).is_file()]:
        raise WeightsError(f"{index} lists {len(names)} files; missing beside it: {', '.join(missing)}.")
    return [index.parent / n for n in sorted(names)]


def _is_name(value: object) -> bool:
    return isinstance(value, str) and Path(value).name == value and "\0" not in value


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a small file. Raises WeightsError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} should hold a JSON object, but holds a {type(value).__name__}.")
    return value


def named_settings(path: Path, wanted: Collection[str], without_effect: Collection[str]) -> dict[str, Any]:
    """The settings called `wanted` of a library's configuration file, as far as it has them.

    without_effect: keys that may stand there and are left out. Raises WeightsError naming any other key: libraries take
    code, and whom to ask for it, from configurations.
    """
    content = read_json(path)
    if unknown := [key for key in content if key not in wanted and key not in without_effect]:
        raise WeightsError(
            f"{path} says {', '.join(map(repr, unknown[:4]))}, which no published configuration does and which is not "
            "known to be harmless. Use the publisher's own file."
        )
    return {key: value for key, value in content.items() if key in wanted}


def endpoint() -> str:
    """The address of the Hugging Face Hub, or of the mirror that HF_ENDPOINT names; no slash at its end."""
    return (variable("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
