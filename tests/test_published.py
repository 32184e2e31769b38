"""What was published stays: ids, inputs, their order and defaults, outputs."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(name):
    """A module of docs/."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


contract = script("contract")
PUBLISHED = json.loads(contract.RECORD.read_text(encoding="utf-8"))


def test_nothing_published_is_broken():
    broken = contract.breaches(PUBLISHED, contract.declared())
    assert not broken, "saved graphs or API users would break:\n" + "\n".join(broken)


def test_the_record_holds_what_people_use():
    assert {"FathomEstimateDepth", "FathomBundle", "MiDaS-DepthMapPreprocessor", "AIO_Preprocessor"} <= set(PUBLISHED)
    scope = PUBLISHED["FathomEstimateDepth"]["inputs"]["scope"]
    assert scope["default"] == "image" and scope["choices"][:2] == ["image", "batch"] and not scope["required"]
    assert PUBLISHED["FathomEstimateDepth"]["outputs"] == [["image", "IMAGE"], ["depth", "FATHOM_DEPTH"]]
    assert "choices" not in PUBLISHED["FathomLoadDepth"]["inputs"]["file"]


def node(**changes):
    record = {
        "inputs": {
            "image": {"type": "IMAGE", "required": True},
            "size": {"type": "INT", "required": True, "default": 512, "min": 0, "max": 9},
            "mode": {"type": "COMBO", "required": False, "default": "a", "choices": ["a", "b"]},
        },
        "outputs": [["image", "IMAGE"]],
    }
    record = copy.deepcopy(record)
    for name, change in changes.items():
        if change is None:
            del record["inputs"][name]
        elif name == "outputs":
            record["outputs"] = change
        else:
            record["inputs"][name] = record["inputs"].get(name, {}) | change
    return {"Node": record}


OPTIONAL = {"type": "FLOAT", "required": False, "default": 1.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": OPTIONAL},
        {"outputs": [["image", "IMAGE"], ["mask", "MASK"]]},
        {"mode": {"choices": ["c", "a", "b"]}},
        {"size": {"min": -1, "max": 10}},
        {"size": {"required": False}},
    ],
)
def test_additions_are_allowed(changes):
    assert contract.breaches(node(), node(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"mode": None}, "mode is gone"),
        ({"extra": OPTIONAL | {"required": True}}, "new and required"),
        ({"size": {"default": 256}}, "default was 512"),
        ({"size": {"min": 1}}, "min was 0"),
        ({"size": {"max": 8}}, "max was 9"),
        ({"mode": {"choices": ["a"]}}, "choices are gone: b"),
        ({"mode": {"required": True}}, "was optional"),
        ({"image": {"type": "MASK"}}, "type was IMAGE"),
        ({"outputs": [["mask", "MASK"], ["image", "IMAGE"]]}, "outputs were"),
    ],
)
def test_a_break_is_told(changes, word):
    assert any(word in line for line in contract.breaches(node(), node(**changes)))


def test_a_widget_put_before_others_is_told():
    moved = node()
    inputs = moved["Node"]["inputs"]
    moved["Node"]["inputs"] = {"image": inputs["image"], "extra": OPTIONAL, **inputs}
    assert any("widgets were" in line for line in contract.breaches(node(), moved))
    assert contract.breaches(node(), {}) == ["Node is gone"]
