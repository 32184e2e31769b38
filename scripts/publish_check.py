"""List what the registry's scanner finds in the published archive, each place with the reason why it must stay.

    python scripts/publish_check.py                     # every place and its reason
    python scripts/publish_check.py --archive fathom.zip  # also write the archive, as comfy-cli would
    python scripts/publish_check.py --release           # placeholders are errors too

The archive is what `comfy node publish` packs: the files that git tracks, without those that .comfyignore names. The
classes are those of public reports of flagged versions (docs/registry.md); the scanner matches text, and so does this.
Exit status 1 for a place without a reason.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).parents[1]

# Class -> what it matches, in files of these suffixes. A rule for Python has been seen to match scripts of the front
# end, so those are read by every rule.
_TEXT = (".py", ".js", ".mjs", ".json", ".toml", ".md", ".txt")
_CODE = (".py", ".js", ".mjs")
CLASSES: dict[str, tuple[tuple[str, ...], re.Pattern[str]]] = {
    "python_environment_manipulation": (_CODE, re.compile(r"\bos\.environ|\bgetenv\(|\bputenv\(")),
    "python_network_operations": (
        _CODE,
        re.compile(
            r"\b(?:import|from) (?:socket|requests|httpx|aiohttp|urllib|http|ftplib|smtplib|websockets?)\b"
            r"|\bget_session\b|\burlopen\b|\bXMLHttpRequest\b|\bnew WebSocket\b|\.connect\(|\.send\("
        ),
    ),
    "python_command_injection_risk": (_CODE, re.compile(r"\bsubprocess\b|\bos\.(?:system|popen|exec\w*|spawn\w*)\(")),
    "python_code_execution": (
        _CODE,
        re.compile(r"(?<![\w.])(?:eval|exec|compile|__import__)\(|\bnew Function\(|\bmarshal\b|\bpickle\.loads?\("),
    ),
    "python_bytecode_manipulation": (_CODE, re.compile(r"\bimportlib\.import_module\(|\bimportlib\.util\b")),
    "python_database_connections": (_CODE, re.compile(r"\bsqlite3\b|\bpsycopg2?\b|\bpymysql\b|\bsqlalchemy\b")),
    "contains_rm_rf": (_TEXT, re.compile(r"\brm -(?:rf|fr)\b")),
    "vendored": (_CODE, re.compile(r"@license\b|@preserve\b")),
    "minified": (_CODE, re.compile(r"^.{2000,}$", re.MULTILINE)),
}
# Suffixes that hold programs which nobody can read.
BINARY = {".so", ".dll", ".dylib", ".exe", ".pyd", ".pyc", ".whl", ".wasm", ".zip", ".tar", ".gz", ".jar", ".bin"}

# (class, file) -> (how many places at most, why they must stay).
REASONS: dict[tuple[str, str], tuple[int, str]] = {
    ("python_environment_manipulation", "annotator/environment.py"): (
        4,
        "Reads where models are kept, HF_ENDPOINT and the user's settings, and puts back the one variable that "
        "controlnet-aux sets when it is imported. The one place.",
    ),
    ("python_network_operations", "annotator/weights/fetch.py"): (
        2,
        "The session that huggingface_hub makes, with its proxies, mirror and token, asks for the files of a model in "
        "parts: huggingface_hub's own download can neither be cancelled from ComfyUI nor join a broken one whose file "
        "was replaced meanwhile. Only the addresses of models/sources.json are asked, and each file is compared with "
        "its published SHA-256.",
    ),
    ("python_bytecode_manipulation", "models/__init__.py"): (
        1,
        "Imports the modules of its own folder by name, so that a new model is one new file. ComfyUI loads the pack "
        "under a name that no import statement can spell.",
    ),
    ("python_bytecode_manipulation", "models/controlnet_aux.py"): (
        3,
        "Imports parts of the optional library controlnet-aux by name, without its __init__, which takes seconds and "
        "replaces entries of timm's registry.",
    ),
    ("python_bytecode_manipulation", "signals/base.py"): (1, "As models/__init__.py, for the kinds of signals."),
    ("vendored", "web/js/cloud.mjs"): (
        4,
        "Three.js, MIT, for the point cloud of the inspector. ComfyUI gives packs no Three.js of its own to import. "
        "frontend/package-lock.json names its version, web/js/THREE-LICENSE.txt is its licence, `npm ci && npm run "
        "build` in frontend/ makes the same bytes again.",
    ),
    ("python_network_operations", "web/js/cloud.mjs"): (
        2,
        "Three.js connects a controller for virtual reality to its input. No network.",
    ),
    ("minified", "web/js/cloud.mjs"): (11, "As vendored: Three.js, made by frontend/build.mjs."),
}


class Place(NamedTuple):
    """Where a class matches."""

    kind: str
    file: str
    line: int
    text: str


def packed(root: Path = ROOT) -> list[str]:
    """The files of the archive: tracked by git, and not named by .comfyignore, whose patterns are git's own.

    Raises subprocess.CalledProcessError where `root` is no git checkout.
    """

    def listed(*options: str) -> list[str]:
        ran = subprocess.run(["git", "ls-files", "-z", *options], cwd=root, capture_output=True, check=True)
        return [name for name in ran.stdout.decode().split("\0") if name]

    ignored = set(listed("--cached", "--ignored", "--exclude-from=.comfyignore"))
    return [name for name in listed() if name not in ignored and (root / name).is_file()]


def write_archive(target: Path, root: Path = ROOT) -> None:
    """Write the archive that the registry would get."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in packed(root):
            archive.write(root / name, name)


def places(files: Iterable[str], root: Path = ROOT) -> Iterator[Place]:
    """Every place that a class of the scanner matches in `files`, and every file that nobody can read."""
    for name in files:
        path = root / name
        if path.suffix in BINARY:
            yield Place("binary", name, 0, path.suffix)
        if path.suffix not in _TEXT:
            continue
        text = path.read_text(encoding="utf-8")
        for kind, (suffixes, pattern) in CLASSES.items():
            if path.suffix in suffixes:
                for match in pattern.finditer(text):
                    yield Place(kind, name, text.count("\n", 0, match.start()) + 1, match[0][:60])


def faults(found: Iterable[Place], reasons: dict[tuple[str, str], tuple[int, str]]) -> Iterator[str]:
    """A line on every place beyond those that have a reason."""
    left = {key: count for key, (count, _) in reasons.items()}
    for place in found:
        key = place.kind, place.file
        left[key] = left.get(key, 0) - 1
        if left[key] < 0:
            yield f"{place.file}:{place.line}: {place.kind}: {place.text!r} has no reason in {Path(__file__).name}"


def placeholders(root: Path = ROOT) -> list[str]:
    """What pyproject.toml says is a placeholder: "tool.comfy.PublisherId is 'comfy-fathom'"."""
    data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return [f"{key} is {_at(data, key)!r}" for key in data["tool"]["fathom"]["placeholders"]]


def _at(data: Any, key: str) -> Any:
    for part in key.split("."):
        data = data[part]
    return data


def main() -> int:
    """Tell every place; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, help="also write the archive here")
    parser.add_argument("--release", action="store_true", help="placeholders are errors")
    given = parser.parse_args()
    files = packed()
    found = list(places(files))
    for place in found:
        reason = REASONS.get((place.kind, place.file), (0, "NO REASON"))[1]
        print(f"{place.file}:{place.line}: {place.kind}: {place.text}\n    {reason}")
    size = sum((ROOT / name).stat().st_size for name in files)
    print(f"{len(files)} files, {size / 1e6:.1f} MB; {len(found)} places of {len({p.kind for p in found})} classes")
    if given.archive:
        write_archive(given.archive)
    wrong = list(faults(found, REASONS))
    pending = placeholders()
    print(*(f"placeholder: {line}" for line in pending), sep="\n")
    if given.release:
        wrong += [f"{line}, which is a placeholder" for line in pending]
    print(*wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
