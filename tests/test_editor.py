"""Blueprints and replaced nodes in the newest ComfyUI's editor, in Chromium."""

from __future__ import annotations

import json

import pytest
from comfyui_server import ROOT, ComfyUI, comfyui_checkouts
from test_browser import Front, browser  # noqa: F401 - a fixture

pytestmark = pytest.mark.browser
CHECKOUTS = [c for c in comfyui_checkouts() if (c / "app" / "node_replace_manager.py").is_file()]


@pytest.fixture(scope="module")
def front(browser, tmp_path_factory):  # noqa: F811
    """The front end of a ComfyUI that has blueprints and replacements."""
    if not CHECKOUTS:
        pytest.skip("no ComfyUI with blueprints and replacements")
    server = ComfyUI(CHECKOUTS[-1], tmp_path_factory.mktemp("editor"), folder="fathom")
    page = browser.new_page()
    page.set_default_timeout(120_000)
    yield Front(page, server, "nodes")
    server.stop()


@pytest.mark.parametrize("path", sorted((ROOT / "subgraphs").iterdir()), ids=lambda p: p.stem)
def test_a_blueprint_opens_and_becomes_a_prompt(front, path):
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    (inner,) = blueprint["definitions"]["subgraphs"]
    told = front.js(
        """async (graph) => {
            await app.loadGraphData(graph);
            const [node] = app.graph.nodes;
            const made = await app.graphToPrompt();
            return {
                title: node.title,
                inputs: node.inputs.map((i) => i.name),
                outputs: node.outputs.map((o) => o.name),
                widgets: (node.widgets ?? []).map((w) => w.name),
                values: (node.widgets ?? []).map((w) => w.value),
                prompt: made.output,
            };
        }""",
        blueprint,
    )
    assert told["title"] == path.stem
    assert told["inputs"] == [entry["name"] for entry in inner["inputs"]]
    assert told["outputs"] == [entry["name"] for entry in inner["outputs"]]
    promoted = [name for _, name in blueprint["nodes"][0]["properties"]["proxyWidgets"]]
    assert [name for name in told["widgets"] if name in promoted] == promoted
    assert None not in told["values"], told
    assert sorted(node["class_type"] for node in told["prompt"].values()) == sorted(n["type"] for n in inner["nodes"])
    estimators = [n["inputs"].get("estimator") for n in told["prompt"].values() if "estimator" in n["inputs"]]
    saved = [n["widgets_values"] for n in inner["nodes"]]
    assert all(any(id in values for values in saved) for id in estimators)


def test_an_old_node_is_offered_its_heir(front):
    old = {
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [
            {
                "id": 1,
                "type": "BAE-NormalMapPreprocessor",
                "pos": [0, 0],
                "size": [300, 100],
                "flags": {},
                "order": 0,
                "mode": 0,
                "inputs": [{"name": "image", "type": "IMAGE", "link": None}],
                "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": []}],
                "properties": {"Node name for S&R": "BAE-NormalMapPreprocessor"},
                "widgets_values": [768],
            }
        ],
        "links": [],
        "version": 0.4,
    }
    front.js("(graph) => { app.loadGraphData(graph); }", old)
    offered = front.page.get_by_text("Replace", exact=False).first
    offered.wait_for(timeout=60_000)
    assert front.page.get_by_text("BAE-NormalMapPreprocessor").first.is_visible()
