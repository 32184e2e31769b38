"""What several test files share: seeded weights for tiny networks, and real ComfyUI servers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]


def seeded_state(module: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of small normal numbers that depend on the seed and each tensor's name alone."""
    state = {}
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            state[name] = torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor
            continue
        key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:7], "big")
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(key))
        fan = max(1, tensor[0].numel() if tensor.ndim > 1 else 1)
        positive = name.endswith("running_var")
        state[name] = noise.abs() + 0.5 if positive else noise * (fan**-0.5 if tensor.ndim > 1 else 0.1)
    return state


def comfyui_checkouts() -> list[Path]:
    """The ComfyUI checkouts to test against: those that COMFYUI_PATH names, else the usual two."""
    named = os.environ.get("COMFYUI_PATH")
    paths = named.split(os.pathsep) if named else ["~/ComfyUI", "~/ComfyUI-new"]
    return [p for p in (Path(p).expanduser() for p in paths) if (p / "main.py").is_file()]


class ComfyUI:
    """A running ComfyUI server with this pack linked into its custom_nodes."""

    def __init__(self, checkout: Path, base: Path) -> None:
        self.checkout, self.base = checkout, base
        for name in ("custom_nodes", "input", "output", "models", "user"):
            (base / name).mkdir(parents=True)
        # A name with spaces and dots: the pack may rely on no importable name.
        (base / "custom_nodes" / "fathom 0.1 test").symlink_to(ROOT)
        (base / "custom_nodes" / "stand_ins").symlink_to(ROOT / "tests" / "stand_ins")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log_path = base / "server.log"
        venv = [checkout / ".venv/bin/python", checkout / ".venv/Scripts/python.exe"]
        python = os.environ.get("COMFYUI_PYTHON") or next((str(p) for p in venv if p.is_file()), sys.executable)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        environment.pop("FATHOM_MODELS", None)
        arguments = ["--cpu", "--port", str(self.port), "--base-directory", str(base)]
        arguments += ["--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}", "--disable-api-nodes"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [python, "main.py", *arguments],
                cwd=checkout,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + 180
        while time.monotonic() < until:
            if self.process.poll() is not None:
                pytest.fail(f"ComfyUI at {self.checkout} ended while starting:\n{self.log()[-4000:]}")
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        self.stop()
        pytest.fail(f"ComfyUI at {self.checkout} did not start in 180 s:\n{self.log()[-4000:]}")

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
        return json.loads(text) if text else None

    def run(self, graph: dict[str, Any], timeout: float = 120) -> dict[str, Any]:
        """Post an API graph and wait: the history entry. Fails the test when ComfyUI refuses the graph."""
        answer = self.post("/prompt", {"prompt": graph})
        assert "prompt_id" in answer, json.dumps(answer, indent=1)
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            entry = self.get(f"/history/{answer['prompt_id']}").get(answer["prompt_id"])
            if entry and entry["status"]["completed"] | (entry["status"]["status_str"] == "error"):
                return entry
            time.sleep(0.1)
        raise AssertionError(f"the graph did not finish in {timeout} s:\n{self.log()[-4000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session", params=comfyui_checkouts() or [None], ids=lambda p: p.name if p else "none")
def comfyui(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    """A running ComfyUI, one for each checkout."""
    if request.param is None:
        pytest.skip("no ComfyUI checkout: name one or more in COMFYUI_PATH (or put them at ~/ComfyUI, ~/ComfyUI-new)")
    server = ComfyUI(request.param, tmp_path_factory.mktemp("base"))
    yield server
    server.stop()


@pytest.fixture
def seeded() -> Any:
    """The function `seeded_state`."""
    return seeded_state


@pytest.fixture
def scene() -> torch.Tensor:
    """A small float picture (1,96,128,3) with edges, gradients and texture; the same in every run."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 128), indexing="ij")
    noise = torch.rand(96, 128, generator=torch.Generator().manual_seed(0))
    disc = ((x - 0.6) ** 2 + (y - 0.45) ** 2 < 0.05).float()
    red = 0.2 + 0.6 * y * (1 - disc) + 0.1 * noise
    green = 0.3 + 0.5 * disc + 0.1 * torch.sin(40 * x)
    blue = 0.9 - 0.7 * y
    return torch.stack([red, green, blue], -1).clamp(0, 1)[None]


@pytest.fixture(scope="session")
def tiny_annotator(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function id -> Annotator: the estimator's tiny variant with seeded weights, through the real loading path."""
    from safetensors.torch import save_file

    import fathom
    from fathom.annotator.weights import Checkpoint

    made: dict[str, Any] = {}

    def make(id: str) -> Any:
        if id not in made:
            tiny = fathom.estimators()[id].tiny()
            folder = tmp_path_factory.mktemp(id)
            path = folder / "tiny.safetensors"
            network = tiny.build(Checkpoint(path, {}, None, None))
            save_file({k: v.contiguous() for k, v in seeded_state(network).items()}, path)
            made[id] = fathom.load(tiny, weights=path, device="cpu")
        return made[id]

    return make
