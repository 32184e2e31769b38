"""XMP: the properties that cameras and phones write into their files, read in time that grows with the size alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

LARGEST = 256 << 20  # bytes of a packet; extended XMP carries whole pictures
_DEEPEST, _MOST = 64, 100_000  # nested elements, elements
_START, _END = b"<x:xmpmeta", b"</x:xmpmeta>"
# Writers may choose the prefixes of these names; the rest is known by the customary one.
_PREFIXES = {
    "http://www.w3.org/1999/02/22-rdf-syntax-ns#": "rdf",
    "http://ns.apple.com/pixeldatainfo/1.0/": "apdi",
    "http://ns.apple.com/depthData/1.0/": "depthData",
    "http://ns.google.com/photos/1.0/depthmap/": "GDepth",
    "http://ns.google.com/photos/1.0/image/": "GImage",
    "http://ns.google.com/photos/dd/1.0/depthmap/": "DepthMap",
    "http://ns.google.com/photos/dd/1.0/camera/": "Camera",
    "http://ns.google.com/photos/dd/1.0/device/": "Device",
    "http://ns.google.com/photos/dd/1.0/imagingmodel/": "ImagingModel",
    "http://ns.google.com/photos/dd/1.0/container/": "Container",
    "http://ns.google.com/photos/dd/1.0/item/": "Item",
    "http://ns.google.com/photos/1.0/container/": "Container",
    "http://ns.google.com/photos/1.0/container/item/": "Item",
    "http://ns.adobe.com/xmp/note/": "xmpNote",
}


@dataclass
class Element:
    """One element: its name with its prefix, its attributes, its text and what it holds."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def every(self) -> Iterator[Element]:
        """Itself and all that it holds, in the file's order."""
        waiting: list[Element] = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting.extend(reversed(element.children))

    def value(self, name: str) -> str | None:
        """A simple property of this element, which may be an attribute or an element within it; None = not there."""
        if name in self.attributes:
            return self.attributes[name].strip()
        return next((c.text.strip() for c in self.children if c.name == name), None)

    def find(self, name: str) -> str | None:
        """The first such property anywhere within."""
        return next((v for e in self.every() if (v := e.value(name)) is not None), None)

    def number(self, name: str) -> float | None:
        """The same as a finite number."""
        return as_number(self.find(name))

    def numbers(self, name: str) -> list[float | None]:
        """The numbers of a list property."""
        element = next((e for e in self.every() if e.name == name), None)
        return [] if element is None else [as_number(e.text) for e in element.every() if e.name == "rdf:li"]


def as_number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text) if text is not None and len(text) < 64 else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def packets(raw: bytes) -> Iterator[Element]:
    """The XMP packets of a file of any type: they are made to be found by scanning it. Damaged ones are left out."""
    start = raw.find(_START)
    while start >= 0:
        end = raw.find(_END, start)
        if end < 0:
            return
        end += len(_END)
        # A packet that never ended before the next one began is no packet: the last beginning counts.
        parsed = parse(raw[raw.rfind(_START, start, end) : end])
        if parsed is not None:
            yield parsed
        start = raw.find(_START, end)


def parse(packet: bytes) -> Element | None:
    """The root of one packet, None when it is damaged, larger or deeper than any camera's, or declares entities."""
    from xml.parsers import expat

    if len(packet) > LARGEST:
        return None
    builder = _Builder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(packet, True)
    except (expat.ExpatError, _TooMuch, ValueError):
        return None
    return builder.root


class _TooMuch(Exception):
    pass


def _refuse(*_: Any) -> None:
    raise _TooMuch


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self.open: list[Element] = []
        self.texts: list[list[str]] = []
        self.prefixes: dict[str, str] = {}
        self.count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if len(self.open) >= _DEEPEST or self.count > _MOST:
            raise _TooMuch
        for key, uri in attributes.items():
            if key.startswith("xmlns:") and uri in _PREFIXES:
                self.prefixes[key[6:]] = _PREFIXES[uri]
        element = Element(self._usual(name), {self._usual(k): v for k, v in attributes.items()})
        if self.open:
            self.open[-1].children.append(element)
        elif self.root is None:
            self.root = element
        self.open.append(element)
        self.texts.append([])

    def end(self, _: str) -> None:
        self.open.pop().text = "".join(self.texts.pop())

    def data(self, text: str) -> None:
        if self.texts:
            self.texts[-1].append(text)

    def _usual(self, name: str) -> str:
        prefix, colon, rest = name.partition(":")
        return f"{self.prefixes.get(prefix, prefix)}{colon}{rest}"
