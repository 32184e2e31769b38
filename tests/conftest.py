"""What several test files share: seeded weights for tiny networks, and real ComfyUI servers."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

sys.path.insert(0, str(Path(__file__).parent))

import yunet_file
from comfyui_server import ComfyUI, comfyui_checkouts


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process per processor for the whole suite; none beside this one for tests that are named."""
    return 0 if config.option.file_or_dir else os.cpu_count() or 1


def pytest_configure() -> None:
    """Processes that share the processors take one thread each, and so does what they start: the last bits of a result
    depend on the number. What they start heeds an interrupt, even where a shell started this in its background, which
    hands on that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        torch.set_num_threads(1)


class Together(LoadScopeScheduling):
    """Gives all tests inside one ComfyUI to one process, so that it is started once; of the others, each whole file."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, name = nodeid.partition("::")
        first = name.partition("[")[2]
        inside = [c.name for c in comfyui_checkouts() if first.startswith((f"{c.name}]", f"{c.name}-"))]
        return max(inside, key=len, default=file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How the tests are spread."""
    return Together(config, log)


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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs `fathom ARGUMENTS` in this process: (exit status, stdout, stderr)."""
    from fathom import cli

    def call(*arguments: object) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["fathom", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


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
            if tiny.family == "controlnet_aux" and not tiny.embedded and not importlib.util.find_spec("controlnet_aux"):
                pytest.skip("controlnet-aux is not installed")
            folder = tmp_path_factory.mktemp(id)
            path = folder / "tiny.safetensors"
            if tiny.family == "yunet":
                # OpenCV runs an ONNX file, which no state dict makes.
                path = yunet_file.write(folder / tiny.sources[0].file)
            else:
                network = tiny.build(Checkpoint(path, {}, None, None))
                save_file({k: v.contiguous() for k, v in seeded_state(network).items()}, path)
            made[id] = fathom.load(tiny, weights=path, device="cpu")
        return made[id]

    return make


@pytest.fixture
def comfy_folders(tmp_path, monkeypatch):
    """As inside ComfyUI: its folders lie under tmp_path."""
    import types

    import fathom.nodes  # before it would look for the rest of ComfyUI  # noqa: F401

    folder_paths = types.ModuleType("folder_paths")
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
        setattr(folder_paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name))
    folder_paths.get_annotated_filepath = lambda name: str(tmp_path / "input" / name)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "folder_paths", folder_paths)
    manager: Any = types.ModuleType("comfy.model_management")
    manager.intermediate_device = lambda: torch.device("cpu")
    monkeypatch.setitem(sys.modules, "comfy", types.ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.model_management", manager)
    return tmp_path


@pytest.fixture(scope="session")
def field_data() -> Path:
    """The folder of real files that FATHOM_FIELD_DATA names; the test skips without."""
    folder = os.environ.get("FATHOM_FIELD_DATA", "")
    if not folder:
        pytest.skip("FATHOM_FIELD_DATA names no folder of real files")
    return Path(folder)
