"""Every node in a running ComfyUI with graphs that no editor makes: what any program may post to it."""

from __future__ import annotations

import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from test_files import SEED
from test_hostile_nodes import TURNS, WORDS

from fathom import errors

pytestmark = pytest.mark.attack

# Written as Python's json does, so NaN, infinities and lone surrogates go over the line too.
LITERALS: list[Any] = [5, -1, 2**70, 1e308, float("nan"), float("inf"), True, None, "x", "", "\ud800", {}, {"a": [1]}]
LITERALS += [[1], [[]], ["picture"], ["mask", 0], ["picture", 0], {"__value__": ["picture", 0]}]
SOURCES = {
    "picture": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 8355711}},
    "mask": {"class_type": "SolidMask", "inputs": {"value": 0.5, "width": 64, "height": 48}},
}
LINKS = {"IMAGE": ["picture", 0], "MASK": ["mask", 0]}
WIDGETS = ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO")
OURS = {name for name in vars(errors) if name.endswith("Error")}


def ours(comfyui: Any) -> dict[str, Any]:
    """What the server tells of each node of this pack."""
    told = comfyui.get("/object_info")
    return {name: node for name, node in told.items() if "fathom" in node["python_module"]}


def usual(spec: list[Any]) -> Any:
    """What an editor would put there; None for a signal, which this file makes none of."""
    kind, options = spec[0], (spec[1] if len(spec) > 1 else {})
    if isinstance(kind, list):
        return options.get("default", kind[0] if kind else "")
    if kind == "COMBO":
        return options.get("default", (options.get("options") or [""])[0])
    if kind in WIDGETS:
        return options.get("default", {"INT": 1, "FLOAT": 1.0, "BOOLEAN": False}.get(kind, ""))
    return LINKS.get(kind)


def graph(name: str, node: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    made = {**SOURCES, "node": {"class_type": name, "inputs": given}}
    if not node["output_node"]:
        made["sink"] = {"class_type": "PreviewAny", "inputs": {"source": ["node", 0]}}
    return made


def attacks_on(name: str, node: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    """Inputs of the node, each with something that does not belong there."""
    specs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    plain = {key: value for key, spec in specs.items() if (value := usual(spec)) is not None}
    made = [{}, plain]
    for key, spec in specs.items():
        socket = isinstance(spec[0], str) and spec[0] not in WIDGETS
        values = LITERALS if socket else [*LITERALS, *WORDS]
        made += [{**plain, key: value} for value in rng.sample(values, min(TURNS // 2, len(values)))]
        made.append({k: v for k, v in plain.items() if k != key})
    for _ in range(TURNS):
        made.append({key: rng.choice([plain.get(key), *LITERALS, *WORDS]) for key in specs})
    return made


def post(comfyui: Any, prompt: dict[str, Any]) -> tuple[int, Any]:
    body = json.dumps({"prompt": prompt}).encode()
    address = f"http://127.0.0.1:{comfyui.port}/prompt"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text.startswith(b"{") else text


def refusals(answer: dict[str, Any]) -> list[str]:
    """The kinds of what ComfyUI found wrong with each node."""
    return [error["type"] for node in answer["node_errors"].values() for error in node["errors"]]


def ended(comfyui: Any, number: str) -> dict[str, Any]:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if entry := comfyui.get(f"/history/{number}").get(number):
            return entry
        time.sleep(0.02)
    raise AssertionError(f"no end after 120 s:\n{comfyui.log()[-4000:]}")


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_graphs_that_no_editor_makes(comfyui, attacks: Callable[..., None]) -> None:
    nodes = ours(comfyui)
    assert len(nodes) > 60
    places = [comfyui.base / part for part in ("input", "models", "custom_nodes")]
    before, around = [files(p) for p in places], set(os.listdir(comfyui.base.parent))
    faults: list[str] = []
    for name, node in sorted(nodes.items()):
        rng = random.Random(f"{SEED} {name}")
        posted: list[tuple[dict[str, Any], str]] = []
        for given in attacks_on(name, node, rng):
            status, answer = post(comfyui, graph(name, node, given))
            attacks("graphs posted to a running ComfyUI")
            if status == 200:
                posted.append((given, answer["prompt_id"]))
            elif status != 400 or any(kind.startswith("exception") for kind in refusals(answer)):
                faults.append(f"{name} {given!r:.300}: {status} {answer!r:.600}")
        for given, number in posted:
            told = ended(comfyui, number)["status"]
            for kind, message in told["messages"]:
                if kind == "execution_error" and message["node_id"] == "node":
                    error = message["exception_type"].rpartition(".")[2]
                    if error not in OURS or len(message["exception_message"]) > 12_000:
                        faults.append(f"{name} {given!r:.300}: {error}: {message['exception_message']:.600}")
    assert not faults, f"{len(faults)}:\n" + "\n".join(faults[:40])
    assert [files(p) for p in places] == before and set(os.listdir(comfyui.base.parent)) == around
    assert comfyui.get("/system_stats") and comfyui.process.poll() is None
