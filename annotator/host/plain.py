"""The host outside ComfyUI: the shell, Python, workers of a mass run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..environment import variable
from .protocol import Preview, Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Sink = Callable[[int, str, str], Any]
sinks: list[Sink] = []


def cache_folder() -> Path:
    """fathom/ in the user's cache folder."""
    cache = variable("XDG_CACHE_HOME") or variable("LOCALAPPDATA")
    return (Path(cache) if cache else Path.home() / ".cache") / "fathom"


class PlainHost:
    """See `Host`."""

    def register_folders(self) -> None:
        pass

    def weight_folders(self) -> list[Path]:
        if listed := variable("FATHOM_MODELS"):
            return [Path(p).expanduser() for p in listed.split(os.pathsep) if p]
        return [cache_folder()]

    def neighbour_folders(self) -> dict[str, list[Path]]:
        aux = [Path(p) for p in [variable("AUX_ANNOTATOR_CKPTS_PATH")] if p]
        return {"aux": aux, "depthanything": [], "diffusers": []}

    def input_folder(self) -> Path | None:
        return None

    def input_path(self, name: str) -> Path:
        return Path(name).expanduser()

    def output_folder(self) -> Path:
        return Path.cwd()

    def temp_folder(self) -> Path | None:
        return None

    def next_number(self, prefix: str, width: int, height: int) -> tuple[Path, str, int]:
        path = self.output_folder() / prefix
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.parent, path.name, 1

    def embeds_metadata(self) -> bool:
        return True

    def user_settings(self) -> dict[str, Any]:
        return {}

    def device(self) -> torch.device:
        import torch

        for kind in ("cuda", "xpu", "mps"):
            backend = getattr(torch, kind, None) or getattr(torch.backends, kind, None)
            if backend is not None and backend.is_available():
                return torch.device(kind)
        return torch.device("cpu")

    def output_device(self) -> torch.device:
        import torch

        return torch.device("cpu")

    def faster_in_half(self, where: torch.device) -> bool:
        import torch

        return where.type == "cuda" and torch.cuda.get_device_capability(where)[0] >= 7

    def free_memory(self, where: torch.device) -> int:
        if where.type == "cuda":
            import torch

            free, _ = torch.cuda.mem_get_info(where)
            return free + torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
        import psutil

        return int(psutil.virtual_memory().available)

    def release_device_memory(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def adopt(self, module: nn.Module, where: torch.device | None) -> tuple[nn.Module, Any]:
        return module.to(where or self.device()), None

    def is_loaded(self, patcher: Any) -> bool:
        return True

    def make_ready(self, patcher: Any, memory: int) -> None:
        pass

    @contextmanager
    def progress(self, total: int, label: str, unit: str) -> Iterator[Progress]:
        if sinks:
            with sinks[-1](total, label, unit) as bar:
                yield _Ticker(bar.update)
        else:
            yield _Ticker(lambda n: None)

    def check_interrupt(self) -> None:
        pass

    def running_node(self) -> str | None:
        return None

    def mesh(self, vertices: Tensor, faces: Tensor, uv: Tensor | None, texture: Tensor | None) -> Any:
        return None

    def file_3d(self, path: Path) -> Any:
        return None

    def blocked(self, message: str) -> Any:
        return None


class _Ticker:
    def __init__(self, advance: Callable[[int], Any]) -> None:
        self._advance = advance

    def update(self, n: int = 1, preview: Preview | None = None) -> None:
        from . import check_interrupt

        check_interrupt()
        self._advance(n)
