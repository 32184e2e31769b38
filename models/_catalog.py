"""What every estimator says of itself, readable without torch: models/catalog.json, and its way there and back.

`python scripts/catalog.py` makes the file anew from the registry; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ..annotator.description import Description, Licence, Option
from ..annotator.weights import Source
from ._sources import published

CATALOG = Path(__file__).with_name("catalog.json")


def catalog_text(families: Mapping[str, tuple[Description, ...]]) -> str:
    """The file's text, a line for each estimator. families: {name of a family's file, without .py: its estimators}."""
    families_text = []
    for family, estimators in families.items():
        entries = ",\n".join(f"  {json.dumps(_entry(e), ensure_ascii=False)}" for e in estimators)
        families_text.append(f' "{family}": [\n{entries}\n ]')
    return "{\n" + ",\n".join(families_text) + "\n}\n"


def read_catalog() -> dict[str, list[Description]]:
    """{name of a family's file, without .py: what its estimators say of themselves}."""
    listed = json.loads(CATALOG.read_text(encoding="utf-8"))
    return {family: [_description(entry) for entry in entries] for family, entries in listed.items()}


def _entry(e: Description) -> dict[str, Any]:
    named = {f.name: getattr(e, f.name) for f in fields(Description)}
    sources = [_source_entry(s) for s in e.sources]
    return named | {"licence": asdict(e.licence), "options": [asdict(o) for o in e.options], "sources": sources}


def _source_entry(s: Source) -> dict[str, Any]:
    entry = {"repo": s.repo, "file": s.file, "layout": s.layout, "also": s.also}
    # Revisions, sizes and hashes stand in sources.json; here only where a family's file says them itself.
    same = published(**entry) == s
    return entry if same else entry | {"sha256": s.sha256, "size": s.size, "revision": s.revision}


def _source(entry: dict[str, Any]) -> Source:
    entry = {**entry, "also": tuple(entry["also"])}
    return Source(**entry) if "revision" in entry else published(**entry)


def _description(entry: dict[str, Any]) -> Description:
    options = tuple(Option(**{**option, "choices": tuple(option["choices"])}) for option in entry["options"])
    sources = tuple(map(_source, entry["sources"]))
    tuples = {name: tuple(entry[name]) for name in ("produces", "takes")}
    parts = {"licence": Licence(**entry["licence"]), "options": options, "sources": sources}
    return Description(**{**entry, **tuples, **parts})
