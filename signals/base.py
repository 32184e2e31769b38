"""Signal: what every kind of prediction has in common, and the registry of the kinds."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ..errors import FathomError, SettingError, SignalError
from . import codec

S = TypeVar("S", bound="Signal")


@dataclass(frozen=True, eq=False)
class Signal:
    """A batch of predictions of one kind. A kind is a frozen dataclass in a file of its own in this folder.

    KIND: its name, which files and bundles carry. SLOTS: the names under which a scene usually holds it. FORMATS: what
    one picture of it can be written as, see `encode`.

    Every field that is a tensor has one row for each picture. A kind whose fields are tensors, numbers, texts and
    tuples of them saves, loads, joins and moves by what stands here; others override `pack` and `unpack`, and
    `__len__`, `__getitem__`, `to` and `join` where a row is no row of a tensor.
    """

    KIND: ClassVar[str]
    SLOTS: ClassVar[tuple[str, ...]]
    FORMATS: ClassVar[tuple[str, ...]] = ("png", "npz", "safetensors", "webp")

    def __len__(self) -> int:
        return len(next(iter(self._tensors().values())))

    def __getitem__(self: S, index: int | slice) -> S:
        """The picture or pictures at `index`, still as a batch."""
        at = slice(index, index + 1 or None) if isinstance(index, int) else index
        return self._with({name: value[at] for name, value in self._tensors().items()})

    def to(self: S, device: torch.device | str) -> S:
        """The same on `device`; itself where it lies there."""
        before = self._tensors()
        after = {name: value.to(device) for name, value in before.items()}
        return self if all(after[name] is before[name] for name in before) else self._with(after)

    @classmethod
    def join(cls: type[S], parts: Sequence[S]) -> S:
        """The pictures of all parts as one batch. Raises SignalError when the parts differ in more than numbers."""
        if len(parts) == 1:
            return parts[0]
        gathered = cls.gather(sum(map(len, parts)))
        for part in parts:
            gathered.add(part)
        return gathered.whole()

    @classmethod
    def gather(cls: type[S], total: int) -> Gather[S]:
        """What takes the parts of a batch of `total` pictures as they come."""
        return Gather(total)

    def to_image(self) -> Tensor:
        """The picture that a ControlNet of this kind expects, float32 (B,H,W,3) in 0..1."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is drawn")

    # ------------------------------------------------------------------------------ numbers and words

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What to keep: words and numbers as JSON takes them, and tensors on the CPU. `unpack` takes them back."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self._tensors().items()}
        return {name: _plain(value) for name, value in self._rest().items()}, tensors

    @classmethod
    def unpack(cls: type[S], metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> S:
        """The signal that `pack` took apart. Raises KeyError, TypeError, ValueError or SignalError for what is none.

        Words that this version does not know are left out, tensors and words that it does not find keep their default.
        """
        given: dict[str, Any] = {}
        for field in fields(cls):
            if field.name in tensors:
                given[field.name] = tensors[field.name]
            elif field.name in metadata:
                given[field.name] = cls._word(field.name, metadata[field.name])
            elif field.default is MISSING and field.default_factory is MISSING:
                raise KeyError(field.name)
        return cls(**given)

    @classmethod
    def _word(cls, name: str, value: Any) -> Any:
        """The value of a field from what JSON gave. A kind with nested fields overrides it."""
        return value

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}

    def _rest(self) -> dict[str, Any]:
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in every.items() if value is not None and not isinstance(value, Tensor)}

    def _with(self: S, tensors: Mapping[str, Tensor]) -> S:
        # Not made anew: that would check every number again, for which a GPU would have to be waited for.
        changed = copy(self)
        for name, value in tensors.items():
            object.__setattr__(changed, name, value)
        return changed

    # ------------------------------------------------------------------------------ files

    def encode(
        self, path: str | Path, format: str | None = None, texts: Mapping[str, str] | None = None
    ) -> dict[Path, bytes]:
        """The files that `save` would write, by path; a sidecar comes before the file that it describes.

        format: one of FORMATS, None = by the suffix of `path`. texts: more texts to embed where the format takes them,
        such as ComfyUI's prompt and workflow. "png" is the rendering in 8 bits, "webp" the same, lossless; npz and
        safetensors hold the whole batch, exactly. Raises SettingError for a format that the kind does not have,
        SignalError for a batch in a format of one picture.
        """
        path = Path(path)
        format = self.check_format(format or format_of(path, self.FORMATS))
        if format in ("npz", "safetensors"):
            metadata, tensors = self.pack()
            write = codec.npz if format == "npz" else codec.safetensors
            return {path: write(tensors, {codec.KEY: codec.described(self.KIND, metadata), **(texts or {})}, metadata)}
        return {path: codec.picture(self.one(format).to_image()[0], format)}

    def save(self, path: str | Path, format: str | None = None) -> list[Path]:
        """Write the signal; whole or not at all. Returns the files. Arguments and errors as in `encode`, and
        FathomError when a file cannot be written."""
        files = self.encode(path, format)
        codec.write_whole(files)
        return list(files)

    @classmethod
    def check_format(cls, format: str) -> str:
        """`format`. Raises SettingError when this kind cannot be written so."""
        if format not in cls.FORMATS:
            raise SettingError(f"{cls.KIND} can be written as {', '.join(cls.FORMATS)}, not as {format}.")
        return format

    def one(self: S, format: str) -> S:
        """Itself. Raises SignalError when it is more than the one picture that a file of `format` holds."""
        if len(self) != 1:
            raise SignalError(
                f"a file of the format {format} holds one picture, got a batch of {len(self)}: save each, or use npz."
            )
        return self

    @classmethod
    def from_file(cls: type[S], content: codec.Content) -> S:
        """The signal in a file that `encode` wrote, parsed. Errors as in `unpack`."""
        return cls.unpack(content.metadata, content.tensors)


class Gather(Generic[S]):
    """The parts of a batch, written as they come into memory taken once: a list joined at the end would hold
    everything twice."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._first: S | None = None
        self._tensors: dict[str, Tensor] = {}

    def add(self, part: S) -> None:
        """Append the pictures of `part`. Raises SignalError when it differs from the first in more than numbers."""
        start, self._done = self._done, self._done + len(part)
        if self._first is None:
            self._first = part
        elif part._rest() != self._first._rest():
            raise SignalError(f"parts of one {part.KIND} differ: {part._rest()}, and {self._first._rest()} before.")
        tensors = part._tensors()
        if len(part) == self._total:
            return
        for name in {**self._tensors, **tensors}:
            value = tensors.get(name)
            if name not in self._tensors:
                like = tensors[name]
                missing = start > 0
                self._tensors[name] = like.new_ones((self._total, *like.shape[1:]))
            else:
                missing = value is None
            # A mask of what is valid is None while every pixel is.
            if missing and self._tensors[name].dtype != torch.bool:
                raise SignalError(f"parts of one {part.KIND} differ: only some have {name}.")
            if value is not None:
                self._tensors[name][start : self._done] = value

    def whole(self) -> S:
        """All pictures, once all parts are added."""
        if self._first is None or self._done != self._total:
            raise SignalError(f"{self._total} pictures were to come, {self._done} came.")
        return self._first._with(self._tensors)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return list(map(_plain, value)) if isinstance(value, tuple) else value


def format_of(path: Path, formats: Sequence[str]) -> str:
    """The format that the suffix of `path` stands for, of two that share one the exact one (png16). Raises
    SettingError naming the suffixes there are."""
    suffix = path.suffix.lower()
    fitting = [format for format in formats if codec.SUFFIXES[format] == suffix]
    if not fitting:
        every = ", ".join(dict.fromkeys(codec.SUFFIXES[format] for format in formats))
        raise SettingError(f"{path.name}: the suffix must be one of {every}.")
    return "png16" if "png16" in fitting else fitting[0]


# ---------------------------------------------------------------------------------------------- the registry


@cache
def kinds() -> Mapping[str, type[Signal]]:
    """{KIND: class} of every file of this folder that defines a kind. Raises FathomError when two share a name."""
    package = __name__.rpartition(".")[0]
    found: dict[str, type[Signal]] = {}
    folder = str(Path(__file__).parent)
    for module in sorted(m.name for m in pkgutil.iter_modules([folder])):
        for value in vars(importlib.import_module(f".{module}", package)).values():
            own = isinstance(value, type) and value.__module__ == f"{package}.{module}"
            if not (own and issubclass(value, Signal) and value is not Signal):
                continue
            if value.KIND in found:
                raise FathomError(f"signals/{module}.py defines the kind {value.KIND!r}, which another file has too.")
            found[value.KIND] = value
    return MappingProxyType(found)


def kind_of_slot(slot: str) -> type[Signal]:
    """The kind of signal that a slot of this name usually holds. Raises SettingError for a name that says nothing."""
    for kind in kinds().values():
        if slot in kind.SLOTS:
            return kind
    every = ", ".join(slot for kind in kinds().values() for slot in kind.SLOTS)
    raise SettingError(f"no kind of signal goes by {slot!r}: there are {every}.")
