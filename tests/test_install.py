"""What the registry packs and ComfyUI loads: complete, small, and never written into."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path, PureWindowsPath

import pytest
from archive import publish_check, unpack

ROOT = Path(__file__).parents[1]
if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


def packed():
    """The files of the registry's archive."""
    try:
        return publish_check().packed()
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("not a git checkout")


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    """The packed files in a folder with spaces and dots in its name."""
    folder = tmp_path_factory.mktemp("custom_nodes") / "comfy fathom.v0.1 (copy)"
    packed()
    unpack(folder)
    return folder


def test_the_pack_is_complete_and_small(pack):
    for name in (
        "__init__.py",
        "requirements.txt",
        "web",
        "web/docs",
        "locales",
        "example_workflows",
        "weights",
        "LICENSE",
    ):
        assert (pack / name).exists(), name
    assert not any((pack / name).exists() for name in ("tests", "training", "mass", "cli", "docs", "scripts"))
    assert sum(p.stat().st_size for p in pack.rglob("*") if p.is_file()) < 16e6


RUN = """
import importlib.util, os, sys
folder, name = sys.argv[1], sys.argv[1].replace(".", "_x_")
sys.dont_write_bytecode = True
written = []
def watch(event, args):
    if event == "open" and isinstance(args[0], str) and os.path.abspath(args[0]).startswith(folder):
        if (isinstance(args[1], str) and set(args[1]) & set("wax+")) or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            written.append(args[0])
    if event in ("os.mkdir", "os.rename", "os.remove") and str(args[0]).startswith(folder):
        written.append(str(args[0]))
sys.addaudithook(watch)
spec = importlib.util.spec_from_file_location(name, os.path.join(folder, "__init__.py"))
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
import torch
picture = torch.rand(1, 40, 60, 3)
nodes = module.NODE_CLASS_MAPPINGS
for node in nodes.values():
    node.INPUT_TYPES()
image, depth = nodes["FathomEstimateDepth"]().execute(picture, "fathom-tiny", 64)
nodes["FathomFog"]().execute(picture, depth, 1.0, "#ffffff", 0.0, 0.5)
bundle = nodes["FathomBundle"]().execute(picture, "fathom-tiny", "none", "none", 64)
measured = nodes["FathomDepthFromImage"]().execute(picture[..., :1] + 1, "metric", 2.0, "m", "auto")[0]
nodes["FathomMesh"]().execute(measured, "glb", "mesh", field_of_view=60.0)
assert not written, written
print(len(nodes))
"""


def test_the_pack_runs_from_a_folder_that_is_never_written_into(pack, tmp_path):
    before = sorted(pack.rglob("*"))
    environment = {
        "PATH": "",
        "FATHOM_BUNDLES": str(tmp_path / "bundles"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path),
    }
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(pack)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert int(ran.stdout.split()[-1]) > 40
    assert sorted(pack.rglob("*")) == before


def test_the_registrys_table_is_complete():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    comfy, project = data["tool"]["comfy"], data["project"]
    assert comfy["PublisherId"] and comfy["DisplayName"] == "Fathom"
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert comfy["requires-comfyui"].removeprefix(">=") in (ROOT / "README.md").read_text(encoding="utf-8")
    address = project["urls"]["Repository"].replace("github.com", "raw.githubusercontent.com") + "/main/"
    assert comfy["Icon"].startswith(address) and (ROOT / comfy["Icon"].removeprefix(address)).is_file()


def test_names_of_files_are_legal_on_windows():
    reserved = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))}
    seen = {}
    for name in packed():
        for part in Path(name).parts:
            assert not re.search(r'[<>:"|?*\\]', part) and not part.endswith((" ", ".")), name
            assert part.split(".")[0].lower() not in reserved, name
        assert seen.setdefault(name.lower(), name) == name, f"{name} and {seen[name.lower()]} differ in case only"
        assert len(name) < 120, name


def test_places_of_weights_are_legal_on_windows():
    from fathom import estimators

    root = PureWindowsPath("C:/Users/somebody with spaces/ComfyUI/models/annotators")
    for estimator in estimators().values():
        for source in estimator.sources:
            for file in source.files:
                path = root / source.folder / file
                assert path.is_relative_to(root) and len(str(path)) < 200, path
                for part in path.relative_to(root).parts:
                    assert not re.search(r'[<>:"|?*]', part) and not part.endswith((" ", ".")), path
