"""What is said of an estimator before it runs: names, licence, sources, options. Nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import SettingError
from .weights import Source


@dataclass(frozen=True)
class Licence:
    """The licence of the weights. commercial: whether it allows commercial use; None = nobody has said."""

    name: str
    commercial: bool | None
    url: str = ""

    def __str__(self) -> str:
        return self.name + {True: "", False: ", non-commercial", None: ", terms unclear"}[self.commercial]


@dataclass(frozen=True)
class Option:
    """One setting of an estimator beyond `resolution`: a switch, a number with its range, or a choice."""

    name: str
    default: bool | int | float | str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    about: str = ""

    @property
    def takes(self) -> str:
        """The values that it takes, for people: "1..50", "true, false", the choices."""
        if isinstance(self.default, bool):
            return "true, false"
        return ", ".join(self.choices) or f"{self.least}..{self.most}"

    def parse(self, text: str) -> Any:
        """The value that a shell's `text` stands for, checked. Raises SettingError."""
        value: Any = text
        if isinstance(self.default, bool):
            value = {"true": True, "false": False}.get(text.lower(), text)
        elif isinstance(self.default, (int, float)):
            with suppress(ValueError):
                value = type(self.default)(text)
        return self.check(value)

    def check(self, value: Any) -> Any:
        """`value`, or the default for None. Raises SettingError naming the range for anything outside it."""
        if value is None:
            return self.default
        if self.choices:
            if value not in self.choices:
                raise SettingError(f"{self.name} must be one of {', '.join(self.choices)}, got {value!r}.")
            return value
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise SettingError(f"{self.name} must be True or False, got {value!r}.")
            return value
        whole = isinstance(self.default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise SettingError(f"{self.name} must be a {'whole number' if whole else 'number'}, got {value!r}.")
        # Not the other way round: NaN is neither less nor more.
        low, high = (-math.inf if self.least is None else self.least), (math.inf if self.most is None else self.most)
        if not (low <= value <= high and (isinstance(value, int) or math.isfinite(value))):
            raise SettingError(f"{self.name} must lie in {self.least}..{self.most}, got {value}.")
        return value


@dataclass(frozen=True, kw_only=True)
class Description:
    """One model that people choose by name, in words.

    id: what graphs and shells write, stable. name: what people read. family: the subject of its file under models/.
    produces: the slots that one forward fills, the main one first, such as ("depth", "normals"). licence: of the
    weights. parameters: how many numbers the network holds. sources: published files, the preferred first. about: one
    sentence on what it is good at. options: settings beyond the resolution. embedded: the weights file that ships with
    the pack, relative to it. takes: the kinds of signal of which it needs one beside the picture, such as ("depth",)
    for a measured map; `infer` finds it in its options as "prompt".
    """

    id: str
    name: str
    family: str
    produces: tuple[str, ...]
    licence: Licence
    parameters: int
    sources: tuple[Source, ...]
    about: str = ""
    options: tuple[Option, ...] = ()
    embedded: str | None = None
    takes: tuple[str, ...] = ()

    def slot(self, name: str) -> str:
        """Which of `produces` a scene's slot of this name takes: the one called so, else the main one."""
        return name if name in self.produces else self.produces[0]

    def parse(self, text: str) -> dict[str, Any]:
        """The options that lines of name=value set. Raises SettingError for a line that is none, an unknown name, or a
        value that it does not take."""
        known = {o.name: o for o in self.options}
        chosen: dict[str, Any] = {}
        for line in filter(None, map(str.strip, text.splitlines())):
            name, equals, value = (part.strip() for part in line.partition("="))
            if not equals:
                raise SettingError(f"an option is name=value, such as steps=10; got {line!r}.")
            chosen[name] = known[name].parse(value) if name in known else value
        self.settings(chosen)
        return chosen

    def settings(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its checked value. Raises SettingError for an unknown name or a bad value."""
        known = {o.name: o for o in self.options}
        for name in given:
            if name not in known:
                have = f"its options are {', '.join(known)}" if known else "it has no options"
                raise SettingError(f"{self.id} has no option {name!r}: {have}.")
        return {name: option.check(given.get(name)) for name, option in known.items()}
