"""models/sources.json: the form of what is pinned, and how the script fills in what is missing."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest

import fathom
from fathom.annotator.weights import Source

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("pins", ROOT / "scripts" / "pins.py")
assert spec and spec.loader
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

TEXT = script.PINS.read_text(encoding="utf-8")
SOURCES = [source for estimator in fathom.estimators().values() for source in estimator.sources]
GOOD = {"o/n": {"a.bin": {"revision": "0" * 40, "sha256": "1" * 64, "size": 5}, "b.bin": {"size": 1}}}
BOTH = [Source("o/n", "a.bin", also=("b.bin",))]


def test_the_pins_are_in_form_and_reach_the_sources():
    assert list(script.faults(json.loads(TEXT), SOURCES)) == []
    assert script.text(json.loads(TEXT)) == TEXT
    pinned = next(s for s in SOURCES if s.file == "depth_anything_v2_vits.pth")
    assert pinned.sha256 == json.loads(TEXT)[pinned.repo][pinned.file]["sha256"] and pinned.size and pinned.revision
    boosted = fathom.estimators()["leres-boost"].sources[0]
    assert boosted.pin("latest_net_G.pth")[1] == 318268048


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "1" * 63}, "no sha256"),
        ({"sha256": "G" * 64}, "no sha256"),
        ({"size": 0}, "no size"),
        ({"size": True}, "no size"),
        ({"revision": "main"}, "no revision"),
        ({"sha": "1"}, "'sha' is none of"),
    ],
)
def test_what_is_out_of_form_is_told(change, words):
    pins = copy.deepcopy(GOOD)
    assert list(script.faults(pins, BOTH)) == []
    pins["o/n"]["a.bin"] |= change
    assert [words in line for line in script.faults(pins, BOTH)] == [True]


def test_entries_without_a_source_without_content_and_out_of_order_are_told():
    assert "no estimator names" in next(script.faults(GOOD, []))
    assert "says nothing" in next(script.faults({"o/n": {"a.bin": {}}}, BOTH))
    turned = {"o/n": dict(reversed(GOOD["o/n"].items()))}
    assert "not in order" in next(script.faults(turned, BOTH))


def test_refresh_fills_in_and_never_changes():
    pins = {"o/n": {"a.bin": {"sha256": "1" * 64}}}
    told = {"revision": "0" * 40, "sha256": "2" * 64, "size": 5}
    lines = list(script.refresh(pins, BOTH, lambda source, file: told))
    assert pins["o/n"]["a.bin"] == {"sha256": "1" * 64, "revision": "0" * 40, "size": 5}
    assert pins["o/n"]["b.bin"] == {"sha256": "2" * 64, "size": 5}, "a source has one revision, its main file's"
    assert any("sha256 is 2" in line and "pinned is 1" in line for line in lines)
    unknown = {}
    assert list(script.refresh(unknown, BOTH, lambda source, file: None)) == [] and unknown == {}
