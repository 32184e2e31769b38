"""models/catalog.json: what is told of every estimator without importing torch equals what the estimators say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import fathom
from fathom import SettingError, models
from fathom.annotator.description import Description
from fathom.models import _catalog


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_what_the_script_makes():
    assert _catalog.CATALOG.read_text(encoding="utf-8") == load_script("catalog").text(), "run scripts/catalog.py"


def test_descriptions_equal_the_estimators():
    told, estimators = models.descriptions(), fathom.estimators()
    assert list(told) == list(estimators)
    for id, e in estimators.items():
        for field in fields(Description):
            assert getattr(told[id], field.name) == getattr(e, field.name), (id, field.name)
        for one, other in zip(told[id].sources, e.sources, strict=True):
            assert [one.pin(file) for file in one.files] == [other.pin(file) for file in other.files], (id, one.repo)


def test_a_family_that_the_file_does_not_know_is_listed(monkeypatch):
    known = _catalog.read_catalog()
    monkeypatch.setattr(_catalog, "read_catalog", lambda: {k: v for k, v in known.items() if k != "tiny"})
    models.descriptions.cache_clear()
    try:
        assert models.descriptions() is models.estimators()
    finally:
        models.descriptions.cache_clear()


def test_an_unknown_id_names_close_ones():
    with pytest.raises(SettingError, match="'fathom-tiny2'. Did you mean fathom-tiny"):
        models.description("fathom-tiny2")
    assert models.description("fathom-tiny").embedded


@pytest.mark.parametrize(
    "command", ["import fathom", "--help", "models", "models options", "models --markdown", "models --help"]
)
def test_what_people_wait_for_brings_no_torch(command, tmp_path):
    code = "import fathom"
    if command != "import fathom":
        code = f"import sys; sys.argv = ['fathom', *{command.split()!r}]\n"
        code += "from fathom import cli\ntry: cli.main()\nexcept SystemExit: pass"
    code += "\nimport sys; heavy = {'torch', 'numpy', 'PIL', 'huggingface_hub.hf_api'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
