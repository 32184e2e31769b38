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
    sources = [{"repo": s.repo, "file": s.file, "layout": s.layout, "also": s.also} for s in e.sources]
    return named | {"licence": asdict(e.licence), "options": [asdict(o) for o in e.options], "sources": sources}


def _description(entry: dict[str, Any]) -> Description:
    options = tuple(Option(**{**option, "choices": tuple(option["choices"])}) for option in entry["options"])
    # Revisions, sizes and hashes stand in sources.json, for both.
    sources = tuple(published(s["repo"], s["file"], s["layout"], tuple(s["also"])) for s in entry["sources"])
    tuples = {name: tuple(entry[name]) for name in ("produces", "takes")}
    parts = {"licence": Licence(**entry["licence"]), "options": options, "sources": sources}
    return Description(**{**entry, **tuples, **parts})
