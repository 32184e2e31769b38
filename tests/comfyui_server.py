"""Real ComfyUI servers for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from archive import ROOT, unpack


def comfyui_checkouts() -> list[Path]:
    """The ComfyUI checkouts to test against: those that COMFYUI_PATH names, else the usual two."""
    named = os.environ.get("COMFYUI_PATH")
    paths = named.split(os.pathsep) if named else ["~/ComfyUI", "~/ComfyUI-new"]
    return [p for p in (Path(p).expanduser() for p in paths) if (p / "main.py").is_file()]


class ComfyUI:
    """A running ComfyUI server with this pack in its custom_nodes, as the registry hands it out.

    folder: what the pack's folder is called there; with spaces and dots, for the pack may rely on no importable name.
    packs: further packs, {folder there: folder in tests}.
    """

    def __init__(
        self, checkout: Path, base: Path, folder: str = "fathom 0.1 test", packs: Mapping[str, str] | None = None
    ) -> None:
        self.checkout, self.base = checkout, base
        for name in ("custom_nodes", "input", "output", "models", "user"):
            (base / name).mkdir(parents=True)
        unpack(base / "custom_nodes" / folder)
        for name, source in {"stand_ins": "stand_ins", **(packs or {})}.items():
            (base / "custom_nodes" / name).symlink_to(ROOT / "tests" / source)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log_path = base / "server.log"
        venv = [checkout / ".venv/bin/python", checkout / ".venv/Scripts/python.exe"]
        self.python = os.environ.get("COMFYUI_PYTHON") or next((str(p) for p in venv if p.is_file()), sys.executable)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        environment.pop("FATHOM_MODELS", None)
        arguments = ["--cpu", "--port", str(self.port), "--base-directory", str(base)]
        arguments += ["--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}", "--disable-api-nodes"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [self.python, "main.py", *arguments],
                cwd=checkout,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until:
            if self.process.poll() is not None:
                pytest.fail(f"ComfyUI at {self.checkout} ended while starting:\n{self.log()[-4000:]}")
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        self.stop()
        pytest.fail(f"ComfyUI at {self.checkout} did not start in 300 s:\n{self.log()[-4000:]}")

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
