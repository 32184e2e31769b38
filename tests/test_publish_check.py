"""What the registry's scanner would find in the archive, and the program that lists it."""

from __future__ import annotations

import subprocess
import zipfile

import pytest
from archive import ROOT, publish_check

script = publish_check()


@pytest.fixture(scope="module")
def packed():
    try:
        return script.packed()
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("not a git checkout")


def test_every_place_that_the_scanner_finds_has_a_reason(packed):
    assert list(script.faults(script.places(packed), script.REASONS)) == []


def test_the_archive_holds_what_comfyui_loads_and_no_more(packed, tmp_path):
    script.write_archive(tmp_path / "node.zip")
    with zipfile.ZipFile(tmp_path / "node.zip") as archive:
        assert archive.namelist() == packed
    rooms = {name.split("/")[0] for name in packed}
    code = {
        "__init__.py",
        "errors.py",
        "interrupt.py",
        "version.py",
        "annotator",
        "models",
        "nodes",
        "signals",
        "tools",
    }
    data = {"example_workflows", "locales", "subgraphs", "web", "weights"}
    assert rooms - code - data == {"LICENSE", "README.md", "pyproject.toml", "requirements.txt"}
    assert code < rooms


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.py", "import os\nhome = os.environ['HOME']\n", "python_environment_manipulation"),
        ("a.py", "import requests\n", "python_network_operations"),
        ("a.js", "socket.send(text)\n", "python_network_operations"),
        ("a.py", "import subprocess\n", "python_command_injection_risk"),
        ("a.py", "value = eval(text)\n", "python_code_execution"),
        ("a.js", "const run = new Function(text)\n", "python_code_execution"),
        ("a.py", "importlib.import_module(name)\n", "python_bytecode_manipulation"),
        ("a.py", "import sqlite3\n", "python_database_connections"),
        ("a.md", "rm -rf build\n", "contains_rm_rf"),
        ("a.mjs", "/** @license MIT */\n", "vendored"),
        ("a.mjs", "a" * 3000, "minified"),
        ("a.so", "", "binary"),
    ],
)
def test_a_new_place_of_any_class_fails(tmp_path, name, text, kind):
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = list(script.places([name], tmp_path))
    assert [place.kind for place in found] == [kind]
    (fault,) = script.faults(found, script.REASONS)
    assert name in fault and kind in fault
    assert list(script.faults(found, {(kind, name): (1, "why")})) == []
    assert len(list(script.faults([*found, *found], {(kind, name): (1, "why")}))) == 1


def test_what_looks_alike_is_no_place(tmp_path):
    (tmp_path / "a.py").write_text("module.eval()\nre.compile('x')\nmodel.compile(x)\n", encoding="utf-8")
    assert list(script.places(["a.py"], tmp_path)) == []


def test_placeholders_stand_in_one_place_and_keep_a_release_back(monkeypatch, capsys, packed):
    names = [line.split(" is ")[0] for line in script.placeholders()]
    assert names == ["project.name", "project.urls.Repository", "tool.comfy.PublisherId"]
    monkeypatch.setattr("sys.argv", ["publish_check.py", "--release"])
    assert script.main() == 1
    assert "PublisherId is 'comfy-fathom', which is a placeholder" in capsys.readouterr().err
    assert "publish_check.py --release" in (ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8")
