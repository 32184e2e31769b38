"""The blueprints in subgraphs/: whole, what the program writes, and run inside ComfyUI."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

import fathom

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("blueprints", ROOT / "scripts" / "blueprints.py")
script = importlib.util.module_from_spec(spec)
sys.path.insert(0, str(ROOT / "scripts"))
spec.loader.exec_module(script)
sys.path.remove(str(ROOT / "scripts"))

NAMES = list(script.BLUEPRINTS)


def read(name):
    return json.loads((ROOT / "subgraphs" / f"{name}.json").read_text(encoding="utf-8"))


def inner(name):
    (graph,) = read(name)["definitions"]["subgraphs"]
    return graph


def declared(type):
    types = fathom.NODE_CLASS_MAPPINGS[type].INPUT_TYPES()
    return {**types["required"], **types.get("optional", {})}


def widgets(type):
    listed = ("INT", "FLOAT", "STRING", "BOOLEAN")
    return [name for name, (kind, *_) in declared(type).items() if not isinstance(kind, str) or kind in listed]


def prompt(name, **given):
    """The blueprint's inside as a prompt, its inputs given as values or as links."""
    graph = inner(name)
    links = {link["id"]: link for link in graph["links"]}
    made = {}
    for node in graph["nodes"]:
        values = dict(zip(widgets(node["type"]), node["widgets_values"], strict=True))
        for socket in node["inputs"]:
            link = links.get(socket["link"])
            if link and link["origin_id"] == script.WITHIN:
                entry = graph["inputs"][link["origin_slot"]]["name"]
                if entry in given:
                    values[socket["name"]] = given[entry]
            elif link:
                values[socket["name"]] = [f"b{link['origin_id']}", link["origin_slot"]]
        made[f"b{node['id']}"] = {"class_type": node["type"], "inputs": values}
    return made


def test_the_folder_holds_what_the_program_writes():
    assert {p.stem for p in (ROOT / "subgraphs").iterdir()} == set(NAMES)
    for name in NAMES:
        assert (ROOT / "subgraphs" / f"{name}.json").read_text(encoding="utf-8") == script.made(name), name


@pytest.mark.parametrize("name", NAMES)
def test_a_blueprint_is_whole(name):
    (outer,), graph = read(name)["nodes"], inner(name)
    assert outer["type"] == graph["id"] and outer["title"] == graph["name"] == name
    assert [e["name"] for e in outer["inputs"]] == [e["name"] for e in graph["inputs"]]
    assert [e["name"] for e in outer["outputs"]] == [e["name"] for e in graph["outputs"]]
    nodes = {node["id"]: node for node in graph["nodes"]}
    ends = {script.WITHIN: graph["inputs"], script.WITHOUT: graph["outputs"]}
    ids = [link["id"] for link in graph["links"]]
    assert len(set(ids)) == len(ids) and max(ids) == graph["state"]["lastLinkId"]
    for link in graph["links"]:
        from_end = ends[script.WITHIN] if link["origin_id"] == script.WITHIN else nodes[link["origin_id"]]["outputs"]
        to_end = ends[script.WITHOUT] if link["target_id"] == script.WITHOUT else nodes[link["target_id"]]["inputs"]
        source, target = from_end[link["origin_slot"]], to_end[link["target_slot"]]
        assert source["type"] == target["type"] == link["type"], link
        assert link["id"] in (source.get("links") or source["linkIds"])
        assert link["id"] == target["link"] if "link" in target else link["id"] in target["linkIds"]
    for end in (*graph["inputs"], *graph["outputs"]):
        assert end["linkIds"], end["name"]
    for node in nodes.values():
        assert len(widgets(node["type"])) == len(node["widgets_values"])
        for socket in node["inputs"]:
            assert socket["name"] in declared(node["type"])
            required = fathom.NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES()["required"]
            assert socket["link"] is not None or "widget" in socket or socket["name"] not in required
    for id, widget in outer["properties"]["proxyWidgets"]:
        assert widget in widgets(nodes[int(id)]["type"])


@pytest.mark.comfyui
@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(("Subject", "Fog", "Film"))])
def test_a_blueprint_runs(comfyui, name):
    shutil.copy(ROOT / "assets" / "sample.png", comfyui.base / "input" / "photo.png")
    picture = {"image": ["1", 0], "frames": ["1", 0]}
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}}}
    graph |= prompt(name, estimator="fathom-tiny", resolution=64, **picture)
    end = next(link for link in inner(name)["links"] if link["target_id"] == script.WITHOUT)
    result = [f"b{end['origin_id']}", end["origin_slot"]]
    if end["type"] == "MASK":
        graph["m"] = {"class_type": "MaskToImage", "inputs": {"mask": result}}
        result = ["m", 0]
    graph["p"] = {"class_type": "PreviewImage", "inputs": {"images": result}}
    entry = comfyui.run(graph)
    assert entry["status"]["status_str"] == "success", entry["status"]


@pytest.mark.comfyui
def test_comfyui_lists_them(comfyui):
    if not (comfyui.checkout / "app" / "subgraph_manager.py").is_file():
        pytest.skip("this ComfyUI has no blueprints")
    listed = comfyui.get("/global_subgraphs")
    ours = {entry["name"]: id for id, entry in listed.items() if "fathom" in entry["info"]["node_pack"]}
    assert set(ours) == set(NAMES)
    for name, id in ours.items():
        assert json.loads(comfyui.get(f"/global_subgraphs/{id}")["data"]) == read(name)
