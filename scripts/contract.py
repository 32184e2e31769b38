"""Extend tests/data/contract.json, the record of what saved graphs and API users rely on.

    python scripts/contract.py

New nodes, inputs, choices and outputs are added. What is recorded already stays, and when a node no longer keeps it,
the command changes nothing and tells what is broken.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fathom

RECORD = Path(__file__).parents[1] / "tests" / "data" / "contract.json"
GROUPS = ("required", "optional")


def declared(nodes: Mapping[str, Any] = fathom.NODE_CLASS_MAPPINGS) -> dict[str, Any]:
    """What the nodes promise: {id: {"inputs": {name: promise}, "outputs": [[name, type]]}}, in the graph's order.

    A promise has "type", "required", and where there are some "default", "choices", "min" and "max". The choices of
    a drop-down without a default are files on disk and promised by nobody.
    """
    made = {}
    for id, node in nodes.items():
        inputs = {}
        types = node.INPUT_TYPES()
        for group in GROUPS:
            for name, (kind, *rest) in types.get(group, {}).items():
                settings = rest[0] if rest else {}
                listed = isinstance(kind, (list, tuple))
                promise: dict[str, Any] = {"type": "COMBO" if listed else kind, "required": group == "required"}
                if listed and "default" in settings:
                    promise["choices"] = list(kind)
                inputs[name] = promise | {k: settings[k] for k in ("default", "min", "max") if k in settings}
        names = getattr(node, "RETURN_NAMES", node.RETURN_TYPES)
        outputs = [list(pair) for pair in zip(names, node.RETURN_TYPES, strict=True)]
        made[id] = {"inputs": inputs, "outputs": outputs}
    return made


def _keeps(old: Any, new: Any) -> bool:
    """Whether an output is what it was; one of choices may have gained some, as the input that takes them has."""
    if old == new:
        return True
    choices = isinstance(old[1], list) and isinstance(new[1], list)
    return choices and old[0] == new[0] and new[1][: len(old[1])] == old[1]


def breaches(published: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What `published` promises and `current` does not keep, one line each."""
    found = []
    for id, old in published.items():
        if id not in current:
            found.append(f"{id} is gone")
            continue
        new = current[id]
        for name, promise in old["inputs"].items():
            if name not in new["inputs"]:
                found.append(f"{id}.{name} is gone")
            else:
                found += [f"{id}.{name}: {what}" for what in _narrower(promise, new["inputs"][name])]
        for name in new["inputs"].keys() - old["inputs"].keys():
            if new["inputs"][name]["required"]:
                found.append(f"{id}.{name} is new and required: older graphs do not have it, make it optional")
        # A saved graph holds the values of widgets by place, and links to outputs by number.
        before, after = _widgets(old["inputs"]), _widgets(new["inputs"])
        if after[: len(before)] != before and set(before) <= set(after):
            found.append(f"{id}: widgets were {before}, are {after}; new ones go to the end")
        same = len(new["outputs"]) >= len(old["outputs"]) and all(map(_keeps, old["outputs"], new["outputs"]))
        if not same:
            found.append(f"{id}: outputs were {old['outputs']}, are {new['outputs']}; new ones go to the end")
    return found


def _narrower(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    found = []
    if old["type"] != new["type"]:
        found.append(f"type was {old['type']}, is {new['type']}")
    if new["required"] and not old["required"]:
        found.append("was optional, is required")
    if "default" in old and old["default"] != new.get("default"):
        found.append(f"default was {old['default']!r}, is {new.get('default')!r}")
    if lost := set(old.get("choices", [])) - set(new.get("choices", [])):
        found.append(f"choices are gone: {', '.join(sorted(lost))}")
    if "min" in new and new["min"] > old.get("min", float("-inf")):
        found.append(f"min was {old.get('min')}, is {new['min']}")
    if "max" in new and new["max"] < old.get("max", float("inf")):
        found.append(f"max was {old.get('max')}, is {new['max']}")
    return found


def _widgets(inputs: Mapping[str, Any]) -> list[str]:
    return [
        name for name, promise in inputs.items() if promise["type"] in ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN")
    ]


def main() -> None:
    """Write the record, or end with what is broken."""
    current = declared()
    if RECORD.is_file():
        broken = breaches(json.loads(RECORD.read_text(encoding="utf-8")), current)
        if broken:
            sys.exit("\n".join(broken))
    lines = [f" {json.dumps(id)}: {json.dumps(current[id])}" for id in current]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
