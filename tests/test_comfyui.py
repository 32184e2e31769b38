"""The pack inside real ComfyUIs, over HTTP, as API users drive it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.comfyui


@pytest.fixture
def photo(comfyui):
    """The sample picture, a room, in ComfyUI's input folder."""
    shutil.copy(ROOT / "assets" / "sample.png", comfyui.base / "input" / "photo.png")
    return "photo.png"


def depth_graph(photo, **inputs):
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": photo}},
        "2": {
            "class_type": "FathomEstimateDepth",
            "inputs": {"image": ["1", 0], "estimator": "fathom-tiny", "resolution": 128, **inputs},
        },
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "depth"}},
    }


def test_the_pack_loads_without_a_word(comfyui):
    # How long that takes is for benchmarks/imports.py.
    log = comfyui.log()
    line = re.search(r"[\d.]+ seconds(.*): .*fathom 0\.1 test", log)
    assert line, log[-3000:]
    assert "FAILED" not in line[1]
    pack = [part for part in log.splitlines() if "fathom" in part.lower() and "seconds" not in part]
    assert not [part for part in pack if re.search(r"warn|error|traceback", part, re.I)], pack


def test_a_graph_gives_a_depth_picture_near_is_lighter(comfyui, photo):
    entry = comfyui.run(depth_graph(photo))
    assert entry["status"]["status_str"] == "success", entry["status"]
    saved = entry["outputs"]["3"]["images"][0]
    depth = np.asarray(Image.open(comfyui.base / "output" / saved["filename"]))
    assert depth.shape == (128, 192, 3)
    assert depth.min() == 0 and depth.max() == 255
    assert (depth[..., 0] == depth[..., 1]).all() and (depth[..., 1] == depth[..., 2]).all()
    floor, far_wall = depth[-20:], depth[25:65, 136:160]
    assert floor.mean() > far_wall.mean() + 100


def test_every_input_is_explained(comfyui):
    nodes = comfyui.get("/object_info")
    ours = {id: info for id, info in nodes.items() if id.startswith("Fathom")}
    assert ours
    for id, info in ours.items():
        assert info["description"], id
        for group in ("required", "optional"):
            for name, spec in info["input"].get(group, {}).items():
                assert len(spec) > 1 and spec[1].get("tooltip"), f"{id}.{name} has no tooltip"
        assert len(info["output_tooltips"]) == len(info["output"]), id


def test_a_missing_model_is_told_on_the_node(comfyui, photo):
    ids = comfyui.get("/object_info/FathomEstimateDepth")["FathomEstimateDepth"]["input"]["required"]["estimator"][0]
    if "midas-dpt-hybrid" not in ids:
        pytest.skip("this build has no estimator that needs a download")
    entry = comfyui.run(depth_graph(photo, estimator="midas-dpt-hybrid"))
    assert entry["status"]["status_str"] == "error"
    message = next(m[1]["exception_message"] for m in entry["status"]["messages"] if m[0] == "execution_error")
    for part in ("lllyasviel/Annotators", "dpt_hybrid-midas-501f0c75.pt", "annotators", "https://"):
        assert part in message, message


def test_models_annotators_is_a_folder_of_comfyui(comfyui):
    assert "annotators" in comfyui.get("/models")


def test_old_graphs_run_with_null_and_missing_widgets(comfyui, photo):
    nodes = comfyui.get("/object_info")
    # Where the editor replaces old ids, those are not registered, and prompts find the alias of the same class.
    old = nodes.get("MiDaS-DepthMapPreprocessor", nodes["Inference_Core_MiDaS-DepthMapPreprocessor"])
    assert old["deprecated"]
    assert [old["input"]["optional"][n][0] for n in ("a", "bg_threshold", "resolution")] == ["FLOAT", "FLOAT", "INT"]
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": photo}},
        "2": {"class_type": "ControlNetPreprocessorSelector", "inputs": {"preprocessor": "none"}},
        "3": {
            "class_type": "AIO_Preprocessor",
            "inputs": {"image": ["1", 0], "preprocessor": ["2", 0], "resolution": None},
        },
        "4": {
            "class_type": "AIO_Preprocessor",
            "inputs": {"image": ["3", 0], "preprocessor": "none", "resolution": 500},
        },
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "old"}},
    }
    entry = comfyui.run(graph)
    assert entry["status"]["status_str"] == "success", entry["status"]
    for widgets in ({}, {"a": None, "bg_threshold": None, "resolution": None}, {"resolution": 321}):
        graph = {
            "1": {"class_type": "LoadImage", "inputs": {"image": photo}},
            "2": {"class_type": "MiDaS-DepthMapPreprocessor", "inputs": {"image": ["1", 0], **widgets}},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "old"}},
        }
        entry = comfyui.run(graph)
        # The graph is accepted; without weights and without a hub the node itself says so.
        message = next(m[1]["exception_message"] for m in entry["status"]["messages"] if m[0] == "execution_error")
        assert "dpt_hybrid-midas-501f0c75.pt" in message


def test_one_pass_feeds_every_depth_tool(comfyui, photo):
    depth = ["2", 1]
    graph = {
        **{k: v for k, v in depth_graph(photo).items() if k != "3"},
        "10": {"class_type": "FathomFog", "inputs": {"image": ["1", 0], "depth": depth}},
        "11": {"class_type": "FathomLensBlur", "inputs": {"image": ["10", 0], "depth": depth}},
        "12": {"class_type": "FathomDepthField", "inputs": {"depth": depth}},
        "13": {"class_type": "FathomRefineEdges", "inputs": {"depth": depth, "image": ["1", 0]}},
        "14": {"class_type": "FathomDreamHalo", "inputs": {"image": ["11", 0], "depth": ["13", 0]}},
        "15": {"class_type": "MaskToImage", "inputs": {"mask": ["12", 0]}},
        "16": {"class_type": "SaveImage", "inputs": {"images": ["14", 0], "filename_prefix": "look"}},
        "17": {"class_type": "SaveImage", "inputs": {"images": ["15", 0], "filename_prefix": "field"}},
        "18": {"class_type": "FathomSaveDepth", "inputs": {"depth": depth}},
    }
    nodes = comfyui.get("/object_info")
    for node in graph.values():
        required = nodes[node["class_type"]]["input"].get("required", {})
        for name, spec in required.items():
            if name not in node["inputs"]:
                options = spec[1] if len(spec) > 1 else {}
                node["inputs"][name] = options.get("default", spec[0][0] if isinstance(spec[0], list) else None)
    entry = comfyui.run(graph)
    assert entry["status"]["status_str"] == "success", entry["status"]
    look = np.asarray(Image.open(comfyui.base / "output" / entry["outputs"]["16"]["images"][0]["filename"]))
    assert look.shape == (512, 768, 3)


def test_weights_stay_until_comfyui_frees_them(comfyui, photo):
    def loads():
        return comfyui.log().count("Fathom: loaded Fathom Tiny")

    def settle(times):
        for _ in range(100):
            if loads() >= times:
                break
            time.sleep(0.05)
        return loads()

    comfyui.run(depth_graph(photo, resolution=96))
    before = loads()
    comfyui.run(depth_graph(photo, resolution=97))
    assert loads() == before
    comfyui.post("/free", {"unload_models": True, "free_memory": True})
    time.sleep(1.5)
    comfyui.run(depth_graph(photo, resolution=98))
    assert settle(before + 1) == before + 1


def test_the_client_of_the_documentation_works(comfyui, tmp_path):
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    client = next(block for block in blocks if "urllib" in block)
    assert "http://127.0.0.1:8188" in client
    shutil.copy(ROOT / "assets" / "sample.png", tmp_path / "photo.png")
    code = client.replace("http://127.0.0.1:8188", f"http://127.0.0.1:{comfyui.port}")
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    saved = sorted(p.name for p in tmp_path.iterdir())
    assert [re.sub(r"\d+_", "", name) for name in saved] == ["depth_.png", "fog_.png", "photo.png"]
    with Image.open(tmp_path / saved[0]) as depth:
        assert depth.size == (768, 512)
    broken = code.replace('"fathom-tiny"', '"midas-dpt-large"')
    ran = subprocess.run(
        [sys.executable, "-c", broken], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 1 and "RuntimeError: FathomEstimateDepth: The weights of" in ran.stderr


def test_the_settings_panel_is_heard(comfyui, photo):
    def limit():
        return comfyui.get("/object_info/FathomBundle")["FathomBundle"]["input"]["optional"]["limit_gb"][1]["default"]

    before = limit()
    try:
        comfyui.post("/settings", {"Fathom.BundleLimit": 7, "Fathom.Precision": "half", "Fathom.KeepLoaded": 0})
        assert limit() == 7 != before
        entry = comfyui.run(depth_graph(photo, resolution=136))
        message = next(m[1]["exception_message"] for m in entry["status"]["messages"] if m[0] == "execution_error")
        assert "fp16" in message and "'half'" in message
        comfyui.post("/settings", {"Fathom.Precision": "bf16"})
        assert comfyui.run(depth_graph(photo, resolution=136))["status"]["status_str"] == "success"
    finally:
        comfyui.post("/settings", {"Fathom.BundleLimit": before, "Fathom.Precision": "auto", "Fathom.KeepLoaded": 3})
    assert comfyui.run(depth_graph(photo, resolution=144))["status"]["status_str"] == "success"
