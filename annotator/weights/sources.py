"""Where weights are published, and where a copy of them lies."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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


def endpoint() -> str:
    """The address of the Hugging Face Hub, or of the mirror that HF_ENDPOINT names; no slash at its end."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
