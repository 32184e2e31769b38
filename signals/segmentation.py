"""Segmentation: what a segmentation estimator predicts. Labels first; colours are a rendering of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import SettingError, SignalError
from . import codec
from .base import Signal, format_of
from .field import check_shape


@dataclass(frozen=True)
class Palette:
    """The classes of a data set: names and 8-bit RGB colours by label. Two classes may share a colour.

    countable: the labels of things, each of which is one (a person, a chair); the others are stuff (sky, floor).

    Raises SignalError for another number of colours than names, colours that are none, or countable labels that are
    none.
    """

    name: str
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    countable: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for colour in self.colours:
            if len(colour) != 3 or not all(type(level) is int and 0 <= level <= 255 for level in colour):
                raise SignalError(f"a colour of a palette is three whole numbers in 0..255, got {str(colour)[:100]}.")
        if len(self.names) != len(self.colours) or not all(isinstance(name, str) for name in self.names):
            raise SignalError(f"a palette needs a name for each colour, got {len(self.names)} and {len(self.colours)}.")
        if not all(type(label) is int and 0 <= label < len(self.names) for label in self.countable):
            raise SignalError(f"countable must hold labels in 0..{len(self.names) - 1}, got {self.countable}.")

    def __len__(self) -> int:
        return len(self.names)

    @staticmethod
    @cache
    def named(name: str) -> Palette:
        """The palette that ships as signals/<name>.json: "ade20k" or "coco_panoptic"."""
        path = Path(__file__).with_name(f"{name}.json")
        if not path.is_file():
            have = ", ".join(sorted(p.stem for p in path.parent.glob("*.json")))
            raise SettingError(f"there is no palette {name!r}; there are {have}.")
        classes = json.loads(path.read_text(encoding="utf-8"))["classes"]
        colours = tuple((int(r), int(g), int(b)) for r, g, b in (c["colour"] for c in classes))
        countable = tuple(i for i, c in enumerate(classes) if c.get("thing"))
        return Palette(name, tuple(c["name"] for c in classes), colours, countable)

    def find(self, query: str) -> list[int]:
        """The labels whose class is called `query` (any of its comma or semicolon separated synonyms, case ignored).

        Raises SettingError naming the closest classes when there is none.
        """
        wanted = query.strip().casefold()
        found = [i for i, name in enumerate(self.names) if wanted in _synonyms(name)]
        if not found:
            import difflib

            every = sorted({s for name in self.names for s in _synonyms(name)})
            near = difflib.get_close_matches(wanted, every, 5, 0.5) or [s for s in every if wanted and wanted in s][:5]
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise SettingError(f"{self.name} has no class {query!r}.{hint}")
        return found


def _synonyms(name: str) -> list[str]:
    whole = name.casefold()
    return [whole, *(part.strip() for part in whole.replace(";", ",").split(","))]


@dataclass(frozen=True, eq=False)
class Segmentation(Signal):
    """A batch of label maps.

    labels: int64 (B,H,W); -1 where the estimator gave no class.
    palette: the classes of the data set, indexed by label.
    source: what made it, for people to read.

    Raises SignalError for a wrong shape or dtype or labels outside the palette.
    """

    KIND: ClassVar[str] = "segmentation"
    SLOTS: ClassVar[tuple[str, ...]] = ("segmentation",)
    FORMATS: ClassVar[tuple[str, ...]] = ("png", "png16", "npz", "safetensors", "webp")

    labels: Tensor
    palette: Palette
    source: str = ""

    def __post_init__(self) -> None:
        check_shape("labels", self.labels, 3)
        if self.labels.dtype != torch.int64:
            raise SignalError(f"labels must be int64, got {self.labels.dtype}: call .long() first.")
        low, high = int(self.labels.amin()), int(self.labels.amax())
        if low < -1 or high >= len(self.palette):
            raise SignalError(
                f"labels must lie in -1..{len(self.palette) - 1} for {self.palette.name}, got {low}..{high}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The class names by label, as the data set spells them."""
        return self.palette.names

    def to_image(self) -> Tensor:
        """The data set's colours, float32 (B,H,W,3) in 0..1: the picture a segmentation ControlNet expects.

        Pixels without a class are black.
        """
        # The last row answers label -1.
        table = torch.tensor([*self.palette.colours, (0, 0, 0)], device=self.labels.device, dtype=torch.float32) / 255
        return table[self.labels]

    def mask(self, classes: Sequence[str | int]) -> Tensor:
        """Where any of `classes` (names or labels) is: float32 (B,H,W), 0 or 1.

        Raises SettingError for an unknown one.
        """
        wanted = [label for c in classes for label in ([c] if isinstance(c, int) else self.palette.find(c))]
        if not wanted:
            raise SettingError("no class was named: give at least one class name or label.")
        for label in wanted:
            if not 0 <= label < len(self.palette):
                raise SettingError(f"{self.palette.name} has labels 0..{len(self.palette) - 1}, got {label}.")
        return torch.isin(self.labels, torch.tensor(wanted, device=self.labels.device)).float()

    def present(self) -> list[tuple[int, str, float]]:
        """The classes in this batch as (label, name, share of the pixels), largest first."""
        counts = torch.bincount(self.labels.reshape(-1) + 1, minlength=len(self.palette) + 1)[1:]
        shares = (counts / self.labels.numel()).tolist()
        order = sorted((i for i, s in enumerate(shares) if s), key=lambda i: -shares[i])
        return [(i, self.palette.names[i], shares[i]) for i in order]

    def encode(
        self, path: str | Path, format: str | None = None, texts: Mapping[str, str] | None = None
    ) -> dict[Path, bytes]:
        """As `Signal.encode`. "png16": grey codes, label + 1, and 0 where there is no class; the class names inside."""
        path = Path(path)
        format = self.check_format(format or format_of(path, self.FORMATS))
        if format != "png16":
            return super().encode(path, format, texts)
        about = codec.described(self.KIND, self.pack()[0])
        return {path: codec.png16(self.one(format).labels[0] + 1, {codec.KEY: about, **(texts or {})})}

    def pack(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        metadata, tensors = super().pack()
        small = torch.int16 if len(self.palette) < 2**15 else torch.int32
        return {**metadata, "names": list(self.names)}, {"labels": tensors["labels"].to(small)}

    @classmethod
    def unpack(cls, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Segmentation:
        return super().unpack(metadata, {"labels": tensors["labels"].long()})

    @classmethod
    def from_file(cls, content: codec.Content) -> Segmentation:
        if content.format == "png16":
            return cls.unpack(content.metadata, {"labels": content.tensors["plane"][None] - 1})
        return super().from_file(content)

    @classmethod
    def _word(cls, name: str, value: Any) -> Any:
        if name != "palette":
            return value
        colours = tuple((int(r), int(g), int(b)) for r, g, b in value["colours"])
        return Palette(value["name"], tuple(value["names"]), colours, tuple(value.get("countable", ())))
