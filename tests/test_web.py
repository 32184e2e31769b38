"""The front end's files: one entry, nothing fetched from elsewhere, nothing but its own source."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from fathom.annotator import host

ROOT = Path(__file__).parents[1]
JS = ROOT / "web" / "js"
OWN = sorted(JS.glob("*js"))


def test_comfyui_finds_one_entry():
    # It loads every .js file below the folder by itself.
    assert [p.relative_to(JS).as_posix() for p in (ROOT / "web").rglob("*.js")] == ["fathom.js"]
    assert "registerExtension" in (JS / "fathom.js").read_text(encoding="utf-8")
    assert not [p for p in JS.glob("*.mjs") if "registerExtension" in p.read_text("utf-8")]


@pytest.mark.parametrize("path", OWN, ids=lambda p: p.name)
def test_modules_are_checked_and_self_contained(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("// @ts-check\n")
    assert not re.search(r"https?://", text), "nothing comes from another server"
    assert not re.search(r"setInterval|(?:window|globalThis)\.\w+ =", text), "no polling, no globals"
    for name in re.findall(r"""(?:from|import\()\s*["'](\.{1,2}/[^"']+)""", text):
        if "scripts/" not in name:  # ComfyUI's own
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("path", sorted(JS.glob("*js")), ids=lambda p: p.name)
def test_modules_are_valid(path, tmp_path):
    copy = tmp_path / f"{path.stem}.mjs"
    shutil.copy(path, copy)
    assert subprocess.run(["node", "--check", copy], capture_output=True).returncode == 0


def test_everything_is_source_that_can_be_read():
    assert {p.suffix for p in JS.iterdir()} <= {".js", ".mjs"}, "nothing of others is carried along"
    for path in OWN:
        assert max(map(len, path.read_text(encoding="utf-8").splitlines())) < 200, f"{path.name} is minified"
    package = json.loads((ROOT / "frontend" / "package.json").read_text(encoding="utf-8"))
    lock = json.loads((ROOT / "frontend" / "package-lock.json").read_text(encoding="utf-8"))
    assert "dependencies" not in package and lock["packages"][""]["devDependencies"] == package["devDependencies"]
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry], "no registry is named"


def test_the_words_of_the_front_end_are_there_in_every_language():
    text = (JS / "words.mjs").read_text(encoding="utf-8")
    words = dict(re.findall(r'^  (\w+): "([^"]+)",$', text, re.MULTILINE))
    used = {w for p in OWN for w in re.findall(r'say\("(\w+)"\)', p.read_text(encoding="utf-8"))}
    assert len(words) > 30 and used <= set(words)
    for folder in (ROOT / "locales").iterdir():
        told = json.loads((folder / "main.json").read_text(encoding="utf-8"))["fathom"]
        assert told == words if folder.name == "en" else told.keys() == words.keys(), folder.name


@pytest.mark.parametrize(("folder", "served"), [("fathom", {}), ("a b", {"comfy-fathom": "web"})])
def test_a_folder_name_that_must_be_quoted_is_served_under_a_plain_one(folder, served, tmp_path, monkeypatch):
    known = {}
    monkeypatch.setitem(sys.modules, "nodes", SimpleNamespace(EXTENSION_WEB_DIRS=known))
    host.serve_web(tmp_path / folder)
    assert known == {name: str(tmp_path / folder / web) for name, web in served.items()}


@pytest.mark.comfyui
def test_comfyui_serves_the_front_end(comfyui):
    entries = [e for e in comfyui.get("/extensions") if e.endswith("/js/fathom.js")]
    assert "/extensions/comfy-fathom/js/fathom.js" in entries
    for name in ("fathom.js", "inspector.mjs", "cloud.mjs"):
        address = f"http://127.0.0.1:{comfyui.port}/extensions/comfy-fathom/js/{name}"
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert "javascript" in answer.headers["Content-Type"]
            assert answer.read() == (JS / name).read_bytes()
