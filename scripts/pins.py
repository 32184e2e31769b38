"""Check models/sources.json, and ask the publishers what it lacks.

    python scripts/pins.py             # its form, and that every entry belongs to an estimator; no network
    python scripts/pins.py --refresh   # also fill in what the Hub tells of files that are not pinned yet

What is pinned is never changed: a publisher's new file is another file, for a person to look at. Exit status 1 when
something is wrong or differs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PINS = ROOT / "models" / "sources.json"
_FORMS = {
    "revision": lambda value: isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40}|refs/pr/\d+", value),
    "sha256": lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value),
    "size": lambda value: type(value) is int and value > 0,
}

Pins = dict[str, dict[str, dict[str, Any]]]


def faults(pins: Pins, sources: list[Any]) -> Iterator[str]:
    """A line on everything that is wrong with the form of `pins`, and on entries that no source asks for."""
    wanted = {(source.repo, file) for source in sources for file in source.files}
    for repo, files in pins.items():
        for file, about in files.items():
            where = f"{repo} {file}"
            if (repo, file) not in wanted:
                yield f"{where}: no estimator names this file"
            if not about:
                yield f"{where}: says nothing; leave it out"
            for key, value in about.items():
                if key not in _FORMS:
                    yield f"{where}: {key!r} is none of {', '.join(_FORMS)}"
                elif not _FORMS[key](value):
                    yield f"{where}: {value!r} is no {key}"
        if list(files) != sorted(files):
            yield f"{repo}: its files are not in order"
    if list(pins) != sorted(pins):
        yield "the repositories are not in order"


def refresh(pins: Pins, sources: list[Any], told: Any) -> Iterator[str]:
    """Fill in what `told(source, file)` says, {"revision", "sha256", "size"} or None, and `pins` lacks; a line on each
    change, and on each pinned value that differs."""
    for source in sources:
        for file in source.files:
            about = pins.setdefault(source.repo, {}).setdefault(file, {})
            keys = _FORMS if file == source.file else {"sha256", "size"}
            for key, value in (told(source, file) or {}).items():
                if key not in keys or value is None:
                    continue
                if key not in about:
                    about[key] = value
                    yield f"{source.repo} {file}: {key} is {value}"
                elif key != "revision" and about[key] != value:
                    yield f"{source.repo} {file}: {key} is {value} now, pinned is {about[key]}"
    for repo in list(pins):
        pins[repo] = {file: about for file, about in sorted(pins[repo].items()) if about}
        if not pins[repo]:
            del pins[repo]


def ask_hub(source: Any, file: str) -> dict[str, Any] | None:
    """What the Hub says of a file of a source; None where it cannot be asked."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if not source.on_hub:
        return None
    kind = "space" if source.repo.startswith("spaces/") else "model"
    try:
        meta = get_hf_file_metadata(hf_hub_url(source.folder, file, repo_type=kind, revision=source.revision))
    except Exception as error:  # of whichever HTTP library there is: the next file may do
        print(f"{source.repo} {file}: {type(error).__name__}: {error}", file=sys.stderr)
        return None
    sha256 = meta.etag if re.fullmatch("[0-9a-f]{64}", meta.etag or "") else None
    return {"revision": meta.commit_hash, "sha256": sha256, "size": meta.size if sha256 else None}


def text(pins: Pins) -> str:
    """The file's text."""
    return json.dumps(dict(sorted(pins.items())), indent=1) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refresh", action="store_true", help="ask the Hub for what is missing")
    args = parser.parse_args()
    import fathom

    sources = [source for estimator in fathom.estimators().values() for source in estimator.sources]
    pins = json.loads(PINS.read_text(encoding="utf-8"))
    wrong = list(faults(pins, sources))
    if args.refresh:
        wrong += refresh(pins, sources, ask_hub)
        PINS.write_text(text(pins), encoding="utf-8")
    for line in wrong:
        print(line)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
