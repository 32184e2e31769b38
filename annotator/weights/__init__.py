"""The weights store: where a model file lies, how it is fetched, whether it can be trusted, how it is
loaded.

Places are searched in this order: the path that the caller gave, Fathom's own folders, the folders of other
packs, the Hugging Face cache, and last the network. What is found is never asked for over the network.

A download gets its final name only when its size and hash are right, so a file under that name needs no
second hashing; whatever is found is checked by size alone, and strict loading does the rest. `survey`
hashes on request.

Looking for files and checking them needs no torch: what does is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .search import find, look, places, resolve
from .sources import Found, Source, Stamp, named_settings, read_json
from .verification import Checked, Verdict, survey, verify

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, read, shapes_only
    from .fetch import obtain
    from .strict import compare, load_strict, wanted

__all__ = [
    "Checked",
    "Checkpoint",
    "Found",
    "Source",
    "Stamp",
    "Verdict",
    "compare",
    "find",
    "load_strict",
    "look",
    "named_settings",
    "obtain",
    "places",
    "read",
    "read_json",
    "resolve",
    "shapes_only",
    "survey",
    "verify",
    "wanted",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import checkpoint, fetch, strict

    value = next(getattr(home, name) for home in (checkpoint, fetch, strict) if hasattr(home, name))
    globals()[name] = value
    return value
