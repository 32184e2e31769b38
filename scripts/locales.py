"""Keep locales/*/nodeDefs.json in step with the nodes.

    python scripts/locales.py

English comes from the declarations. In every other language names of nodes, inputs and outputs that are gone are
dropped, and a new input or output gets the words that the same name has on other nodes. What is left for a translator
is told, and the exit status is 1.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fathom.nodes import NODES

LOCALES = Path(__file__).parents[1] / "locales"


def english() -> dict[str, Any]:
    """The file for English: every own node's display name and the names of its inputs and outputs."""
    made = {}
    for node in NODES:
        types: dict[str, Any] = node.INPUT_TYPES()  # pyright: ignore[reportAttributeAccessIssue]
        inputs = [*types.get("required", {}), *types.get("optional", {})]
        outputs: tuple[str, ...] = node.RETURN_NAMES  # pyright: ignore[reportAttributeAccessIssue]
        made[node.__name__] = {
            "display_name": vars(node)["DISPLAY_NAME"],
            **({"inputs": {name: {"name": name} for name in inputs}} if inputs else {}),
            **({"outputs": {str(i): {"name": name} for i, name in enumerate(outputs)}} if outputs else {}),
        }
    return made


def fill(source: Mapping[str, Any], held: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """`held` in the shape of `source`, and the keys that have no words yet."""
    words: dict[tuple[str, str], Counter[str]] = {}
    for id, told in held.items():
        for group in ("inputs", "outputs"):
            for key, entry in told.get(group, {}).items():
                name = source.get(id, {}).get(group, {}).get(key, {}).get("name")
                words.setdefault((group, name), Counter())[entry["name"]] += 1
    made, missing = {}, []
    for id, told in source.items():
        old = held.get(id, {})
        made[id] = {"display_name": old.get("display_name", "")}
        if not made[id]["display_name"]:
            missing.append(id)
        for group in ("inputs", "outputs"):
            for key, entry in told.get(group, {}).items():
                common = words.get((group, entry["name"]), Counter()).most_common(1)
                name = old.get(group, {}).get(key, {}).get("name") or (common[0][0] if common else "")
                made[id].setdefault(group, {})[key] = {"name": name}
                if not name:
                    missing.append(f"{id}.{group}.{key}")
    return made, missing


def main() -> None:
    """Write the files; end with what lacks words."""
    source, lacking = english(), []
    for folder in sorted(LOCALES.iterdir()):
        path = folder / "nodeDefs.json"
        if folder.name == "en":
            made: dict[str, Any] = source
        else:
            held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            made, missing = fill(source, held)
            lacking += [f"{folder.name}: {key}" for key in missing]
        lines = [f" {json.dumps(id)}: {json.dumps(told, ensure_ascii=False)}" for id, told in made.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")
    if lacking:
        sys.exit("\n".join(["no words yet for", *lacking]))


if __name__ == "__main__":
    main()
