"""Hundreds of executions and interrupts inside one running ComfyUI: what it holds stays flat.

    pytest -m long -n 0

FATHOM_EXECUTIONS (1,000) and FATHOM_COMFYUI_INTERRUPTS (300) say how many. What was measured is printed at the end.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))
from comfyui_server import ComfyUI

pytestmark = [pytest.mark.long, pytest.mark.timeout(5400)]
EXECUTIONS = int(os.environ.get("FATHOM_EXECUTIONS", "1000"))
INTERRUPTS = int(os.environ.get("FATHOM_COMFYUI_INTERRUPTS", "300"))
SEED = int(os.environ.get("FATHOM_ATTACK_SEED", "17"))
WARM = 100  # executions after which memory is compared: allocators and caches have grown by then


def graph(part: float, frames: int = 1) -> dict[str, Any]:
    """A picture that no other `part` gives, its depth and normals, fog, and what the nodes show. frames: of a batch."""
    tiny = {"estimator": "fathom-tiny", "resolution": 256}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "noise.png"}},
        "2": {"class_type": "EmptyImage", "inputs": {"width": 320, "height": 240, "batch_size": frames, "color": 99}},
        "3": {
            "class_type": "ImageBlend",
            "inputs": {"image1": ["2", 0], "image2": ["1", 0], "blend_factor": part, "blend_mode": "normal"},
        },
        "4": {"class_type": "FathomEstimateDepth", "inputs": {"image": ["3", 0], **tiny}},
        "5": {
            "class_type": "FathomFog",
            "inputs": {"image": ["3", 0], "depth": ["4", 1], "density": 1.0, "colour": "#c8d2dc"},
        },
        "6": {"class_type": "FathomEstimateNormals", "inputs": {"image": ["3", 0], **tiny}},
        "7": {
            "class_type": "FathomDepthInspector",
            "inputs": {"depth": ["4", 1], "palette": "turbo", "space": "relative", "near": 1, "far": 0, "focus": 0.5},
        },
        "8": {"class_type": "PreviewImage", "inputs": {"images": ["5", 0]}},
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["6", 0]}},
    }


def state(server: ComfyUI) -> dict[str, int]:
    """Resident memory (MiB), descriptors, threads, and temporary files that are not the core's previews."""
    process = psutil.Process(server.process.pid)
    files = [p for p in (server.base / "temp").rglob("*") if p.is_file() and not p.name.startswith("ComfyUI_temp")]
    return {
        "MiB": process.memory_info().rss // 2**20,
        "descriptors": process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
        "threads": process.num_threads(),
        "temporary files": len(files),
    }


@pytest.fixture
def noise(comfyui: ComfyUI) -> None:
    rng = random.Random(SEED)
    Image.frombytes("RGB", (320, 240), rng.randbytes(320 * 240 * 3)).save(Path(comfyui.base) / "input" / "noise.png")


def test_executions(comfyui: ComfyUI, noise: None, attacks: Callable[..., None], capsys: Any) -> None:
    rng = random.Random(SEED)
    seen = []
    for turn in range(EXECUTIONS):
        entry = comfyui.run(graph(rng.random()))
        assert entry["status"]["status_str"] == "success", entry["status"]
        if (turn + 1) % WARM == 0:
            seen.append({"executions": turn + 1, **state(comfyui)})
    with capsys.disabled():
        sys.stdout.write("\n".join(["", comfyui.checkout.name, *map(str, seen), ""]))
    first, last = seen[0], seen[-1]
    assert last["MiB"] < first["MiB"] + 60
    assert last["descriptors"] <= first["descriptors"] + 4
    assert last["threads"] <= first["threads"] + 2
    assert last["temporary files"] <= first["temporary files"] + 8
    attacks(f"executions in one ComfyUI ({comfyui.checkout.name})", EXECUTIONS)


def test_interrupts(comfyui: ComfyUI, noise: None, attacks: Callable[..., None], capsys: Any) -> None:
    """At random moments of a batch: the run ends, the next one is whole, nothing is left behind."""
    rng = random.Random(SEED)
    # As large as what is struck, so that allocators have grown by then.
    assert comfyui.run(graph(0.5, 40), 600)["status"]["status_str"] == "success"
    before, slowest, struck = state(comfyui), 0.0, 0
    for _ in range(INTERRUPTS):
        sent = comfyui.post("/prompt", {"prompt": graph(rng.random(), 40)})["prompt_id"]
        time.sleep(rng.uniform(0, 2))
        comfyui.post("/interrupt", {})
        start = time.monotonic()
        while not (entry := comfyui.get(f"/history/{sent}").get(sent)):
            assert time.monotonic() - start < 120, comfyui.log()[-3000:]
            time.sleep(0.02)
            if comfyui.get("/queue")["queue_running"] and time.monotonic() - start > 5:
                comfyui.post("/interrupt", {})  # it came before the run had begun
        slowest = max(slowest, time.monotonic() - start)
        told = [m for m in entry["status"]["messages"] if m[0] == "execution_error"]
        assert not told, told
        struck += any(m[0] == "execution_interrupted" for m in entry["status"]["messages"])
    assert comfyui.run(graph(0.25))["status"]["status_str"] == "success"
    after = state(comfyui)
    with capsys.disabled():
        sys.stdout.write(f"\n{struck} of {INTERRUPTS} struck, the slowest took {slowest:.1f} s: {before}, {after}\n")
    assert struck > INTERRUPTS // 2
    assert after["descriptors"] <= before["descriptors"] + 4 and after["threads"] <= before["threads"] + 2
    assert after["MiB"] < before["MiB"] + 150
    attacks(f"interrupts in one ComfyUI ({comfyui.checkout.name})", INTERRUPTS)
