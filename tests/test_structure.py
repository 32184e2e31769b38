"""The house keeps its shape: imports point one way, nothing heavy at import, metadata agrees with itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

# Which rooms a room may import from, besides errors, interrupt and version. A tool that people wait for reports to the
# host.
MAY = {
    "errors": set(),
    "interrupt": set(),
    "version": set(),
    "signals": set(),
    "annotator": {"signals"},
    "models": {"signals", "annotator"},
    "tools": {"signals"},
    "nodes": {"signals", "annotator", "models", "tools"},
    "mass": {"signals", "annotator", "models"},
    "cli": {"signals", "annotator", "models", "tools", "nodes", "mass", ""},
    "training": {"signals", "annotator", "models", ""},
    "__main__": {"cli"},
    "": {"signals", "annotator", "models", "nodes"},
}
TOOLS_MAY = {"annotator": {"host", "pictures"}}


def package_files():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts[0] in {"tests", "benchmarks", "docs", "scripts", "build", ".venv"} or any(
            p.startswith(".") for p in parts
        ):
            continue
        yield path, parts


def room(parts):
    first = parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(path):
    """(level, module, names) of every import of a file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [a.name for a in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, []


@pytest.mark.parametrize(
    ("path", "parts"), list(package_files()), ids=lambda p: "/".join(p) if isinstance(p, tuple) else ""
)
def test_imports_point_one_way(path, parts):
    here = room(parts)
    for level, module, names in imports(path):
        if level == 0:
            assert module.split(".")[0] != "fathom", f"{path}: the pack has no importable name inside ComfyUI"
            continue
        depth = len(parts) - level
        assert depth >= 0, f"{path} reaches outside the package"
        if depth > 0:
            continue
        targets = [module.split(".")[0]] if module else names
        for target in targets:
            target = target if (ROOT / target).is_dir() or (ROOT / f"{target}.py").is_file() else ""
            if here == "tools" and target in TOOLS_MAY:
                assert set(module.split(".")[1:] or names) <= TOOLS_MAY[target], f"{path} imports {module}"
                continue
            assert target in MAY[here] | {here, "errors", "interrupt", "version"}, (
                f"{path} imports {target or 'the package itself'}"
            )


HOST_ONLY = ("comfy", "folder_paths", "server")


@pytest.mark.parametrize(
    ("path", "parts"), list(package_files()), ids=lambda p: "/".join(p) if isinstance(p, tuple) else ""
)
def test_only_the_host_names_comfyui(path, parts):
    if parts == ("annotator", "host", "comfy.py"):
        return
    named = {module.split(".")[0] for level, module, _ in imports(path) if level == 0}
    assert not named & set(HOST_ONLY)


def test_only_one_place_names_opencv():
    """It is not in requirements.txt, so wherever it is missing the user is told what to install."""
    naming = {"/".join(parts) for path, parts in package_files() if any(m == "cv2" for _, m, _ in imports(path))}
    assert naming == {"signals/opencv.py"}


def test_importing_the_pack_brings_nothing_heavy():
    heavy = (
        "timm transformers diffusers controlnet_aux cv2 scipy skimage av trimesh torchvision huggingface_hub accelerate"
    )
    code = (
        "import sys, torch; before = set(sys.modules); import fathom; fathom.estimators();"
        "[n.INPUT_TYPES() for n in fathom.NODE_CLASS_MAPPINGS.values()];"
        f"print([m for m in '{heavy}'.split() if m in sys.modules and m not in before])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert out.stdout.strip() == "[]" and not out.stderr.strip(), out.stdout + out.stderr


def requirement_name(line):
    return re.split(r"[<>=!~\[; ]", line.strip())[0].lower()


def test_requirements_are_lower_bounds_and_part_of_the_projects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [x for x in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if x.strip()]
    assert set(lines) <= set(project["dependencies"])
    for line in lines:
        assert re.fullmatch(r"[\w.-]+>=[\w.]+", line), line
    # What ComfyUI installs itself must not be asked for again. Nor OpenCV: it comes in several builds, other packs ask
    # for theirs, and two side by side break each other.
    core = {
        "torch",
        "torchvision",
        "torchaudio",
        "numpy",
        "pillow",
        "safetensors",
        "transformers",
        "scipy",
        "av",
        "einops",
    }
    names = [requirement_name(line) for line in lines]
    assert not core & set(names)
    assert not [n for n in names if "opencv" in n]


def test_what_benchmarks_take_from_each_other_is_there():
    scripts = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py")}
    taken = [(path, module, names) for path in scripts.values() for _, module, names in imports(path)]
    beside = [(path, module, names) for path, module, names in taken if module in scripts]
    assert beside
    for path, module, names in beside:
        top = ast.parse(scripts[module].read_text()).body
        made = {n.name for n in top if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        made |= {t.id for n in top if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
        assert set(names) <= made, f"{path.name} takes {set(names) - made} from {module}.py"


def test_versions_agree():
    import fathom

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == fathom.__version__
    assert f"## {fathom.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_package_folder_is_installed():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = {".".join(("fathom", *parts[:-1])) for _, parts in package_files() if parts[-1] == "__init__.py"}
    assert folders == set(packages)


def test_every_data_file_is_installed():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    told: set[Path] = set()
    for package, patterns in tool["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        told |= {path for pattern in patterns for path in folder.glob(pattern)}
    folders = [ROOT.joinpath(*package.split(".")[1:]) for package in tool["packages"] if package != "fathom"]
    beside = {p for folder in folders for p in folder.glob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    served = ("example_workflows", "locales", "subgraphs", "web", "weights")
    below = {p for name in served for p in (ROOT / name).rglob("*") if p.is_file()}
    assert not sorted(p.relative_to(ROOT).as_posix() for p in (beside | below) - told)
