"""Published weights files by name; what is known of their content stands in sources.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from ..annotator.weights import Source

PINS = Path(__file__).with_name("sources.json")


@cache
def pins() -> dict[str, dict[str, dict[str, Any]]]:
    """{repository: {file: {"revision", "sha256", "size"}}}, each as far as somebody published it.

    scripts/pins.py checks the file and brings it up to date.
    """
    return json.loads(PINS.read_text(encoding="utf-8"))


def published(repo: str, file: str, layout: str = "official", also: tuple[str, ...] = ()) -> Source:
    """The Source of a published file, with revision, size and hash where they are known. Arguments as in Source."""
    known = pins().get(repo, {})
    main = known.get(file, {})
    further = {name: (known[name].get("sha256"), known[name].get("size")) for name in also if name in known}
    revision = main.get("revision", "main")
    return Source(repo, file, layout, also, main.get("sha256"), main.get("size"), revision, further)
