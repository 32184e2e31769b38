"""Where Fathom runs: inside ComfyUI, or on plain torch. The only file that names comfy, folder_paths or server.

Inside ComfyUI its memory manager owns every network: a network lies on the offload device until `Resident.ready`
asks for it, and ComfyUI may take it off the device again at any time between two calls.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

WEIGHTS_KEY = "annotators"


def inside_comfyui() -> bool:
    """Whether a running ComfyUI has loaded this process's memory manager."""
    return "comfy.model_management" in sys.modules and "folder_paths" in sys.modules


# ---------------------------------------------------------------------------------------------- folders


def register_folders() -> None:
    """Make models/annotators known to ComfyUI, beside whatever extra_model_paths.yaml or others put there."""
    if not inside_comfyui():
        return
    import folder_paths  # pyright: ignore[reportMissingImports]

    paths, extensions = folder_paths.folder_names_and_paths.get(WEIGHTS_KEY, ([], set()))
    own = os.path.join(folder_paths.models_dir, WEIGHTS_KEY)
    merged = [*paths, *([] if own in paths else [own])]
    known = set(extensions) | set(folder_paths.supported_pt_extensions)
    folder_paths.folder_names_and_paths[WEIGHTS_KEY] = (merged, known)


def weight_folders() -> list[Path]:
    """Folders that hold Fathom's model files; downloads go to the first.

    ComfyUI: models/annotators and the entries "annotators" of extra_model_paths.yaml. Elsewhere: the folders in
    the environment variable FATHOM_MODELS, or fathom/ in the user's cache folder.
    """
    if inside_comfyui():
        import folder_paths  # pyright: ignore[reportMissingImports]

        register_folders()
        own = os.path.join(folder_paths.models_dir, WEIGHTS_KEY)
        paths = folder_paths.get_folder_paths(WEIGHTS_KEY)
        # A folder that the user configured as default comes first in ComfyUI's list and stays first.
        return [Path(p) for p in dict.fromkeys([*paths, own])]
    if listed := os.environ.get("FATHOM_MODELS"):
        return [Path(p).expanduser() for p in listed.split(os.pathsep) if p]
    cache = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return [(Path(cache) if cache else Path.home() / ".cache") / "fathom"]


def neighbour_folders() -> dict[str, list[Path]]:
    """Folders in which other packs keep the same files.

    "aux": checkpoints of comfyui_controlnet_aux, <root>/<owner>/<repository>/<file>. "depthanything": flat folders.
    "diffusers": one folder per pipeline.
    """
    aux = [Path(p) for p in [os.environ.get("AUX_ANNOTATOR_CKPTS_PATH")] if p]
    if not inside_comfyui():
        return {"aux": aux, "depthanything": [], "diffusers": []}
    import folder_paths  # pyright: ignore[reportMissingImports]

    for root in folder_paths.get_folder_paths("custom_nodes"):
        if os.path.isdir(root):
            packs = sorted(e.path for e in os.scandir(root) if e.name.lower().startswith("comfyui_controlnet_aux"))
            aux += [Path(p) / "ckpts" for p in packs]
    flat = []
    for key in ("depthanything", "depthanything3"):
        registered = folder_paths.folder_names_and_paths.get(key, ([], set()))[0]
        flat += [*registered, os.path.join(folder_paths.models_dir, key)]
    return {
        "aux": aux,
        "depthanything": [Path(p) for p in dict.fromkeys(flat)],
        "diffusers": [Path(p) for p in folder_paths.get_folder_paths("diffusers")],
    }


# ---------------------------------------------------------------------------------------------- devices


def device() -> torch.device:
    """The device that networks run on."""
    if inside_comfyui():
        import comfy.model_management as manager  # pyright: ignore[reportMissingImports]

        return manager.get_torch_device()
    for kind in ("cuda", "xpu", "mps"):
        backend = getattr(torch, kind, None) or getattr(torch.backends, kind, None)
        if backend is not None and backend.is_available():
            return torch.device(kind)
    return torch.device("cpu")


def output_device() -> torch.device:
    """The device on which results are handed on."""
    if inside_comfyui():
        import comfy.model_management as manager  # pyright: ignore[reportMissingImports]

        return manager.intermediate_device()
    return torch.device("cpu")


def free_memory(where: torch.device) -> int:
    """Bytes free on `where`, with what the memory manager could free at once."""
    if inside_comfyui():
        import comfy.model_management as manager  # pyright: ignore[reportMissingImports]

        return int(manager.get_free_memory(where))
    if where.type == "cuda":
        free, _ = torch.cuda.mem_get_info(where)
        return free + torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
    return _free_system_memory()


def _free_system_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 * 2**30


def release_device_memory() -> None:
    """Give cached blocks back to the device, after running out of memory."""
    if inside_comfyui():
        import comfy.model_management as manager  # pyright: ignore[reportMissingImports]

        manager.soft_empty_cache()
    elif torch.cuda.is_available():
        torch.cuda.empty_cache()


class Resident:
    """A network whose place in memory the host decides.

    module: the network, float weights, eval mode. device: where it runs. patcher: ComfyUI's ModelPatcher, which
    ComfyUI looks for on objects that travel through a graph; None on plain torch.
    """

    def __init__(self, module: nn.Module, where: torch.device | None = None) -> None:
        module.eval().requires_grad_(False)
        self.module = module
        self.device = where or device()
        self.patcher: Any = None
        if inside_comfyui() and (where is None or where == device()):
            import comfy.model_management as manager  # pyright: ignore[reportMissingImports]
            import comfy.model_patcher as patchers  # pyright: ignore[reportMissingImports]

            patcher = getattr(patchers, "CoreModelPatcher", patchers.ModelPatcher)
            offload = manager.unet_offload_device()
            self.module = module.to(offload)
            self.patcher = patcher(self.module, load_device=self.device, offload_device=offload)
        else:
            self.module = module.to(self.device)

    def ready(self, memory: int) -> nn.Module:
        """The network on its device, with `memory` bytes made free beside it for one inference."""
        if self.patcher is not None:
            import comfy.model_management as manager  # pyright: ignore[reportMissingImports]

            # The layers are torch's own, not ComfyUI's casting ones: half-loaded they could not run.
            manager.load_models_gpu([self.patcher], memory_required=memory, force_full_load=True)
        return self.module


# ---------------------------------------------------------------------------------------------- waiting


class Progress(Protocol):
    """What a loop reports to."""

    def update(self, n: int = 1) -> None:
        """`n` more units are done. Raises the host's interrupt when the user has cancelled."""
        ...


Sink = Callable[[int, str, str], Any]
_sinks: list[Sink] = []


@contextmanager
def progress_to(sink: Sink) -> Iterator[None]:
    """Send the progress of plain runs to `sink(total, label, unit)`, a factory of context managers of Progress."""
    _sinks.append(sink)
    try:
        yield
    finally:
        _sinks.remove(sink)


class _Ticker:
    def __init__(self, advance: Callable[[int], Any] | None) -> None:
        self._advance = advance

    def update(self, n: int = 1) -> None:
        check_interrupt()
        if self._advance is not None:
            self._advance(n)


@contextmanager
def progress(total: int, label: str, unit: str = "it") -> Iterator[Progress]:
    """Progress of `total` units (0 = unknown), shown on ComfyUI's node or by the shell; silent in plain Python."""
    check_interrupt()
    if inside_comfyui():
        import comfy.utils  # pyright: ignore[reportMissingImports]

        yield _Ticker(comfy.utils.ProgressBar(total).update if total > 0 else None)
    elif _sinks:
        with _sinks[-1](total, label, unit) as bar:
            yield _Ticker(bar.update)
    else:
        yield _Ticker(None)


def check_interrupt() -> None:
    """Raise ComfyUI's interrupt when the user has cancelled the run."""
    if inside_comfyui():
        import comfy.model_management as manager  # pyright: ignore[reportMissingImports]

        manager.throw_exception_if_processing_interrupted()
