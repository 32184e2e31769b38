"""The host inside ComfyUI. The only file that names comfy, folder_paths or server.

ComfyUI's memory manager owns every network: a network lies on the offload device until it is asked for, and ComfyUI may
take it off the device again at any time between two calls. ComfyUI's modules are imported where they are used: they are
there by then, whatever came first.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import inspect
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import PictureError
from .plain import PlainHost
from .protocol import Preview, Progress

log = logging.getLogger(__name__)

WEIGHTS_KEY = "annotators"
# Seconds between two previews, and between two texts, on a node.
_PREVIEW_EVERY = 0.5
_TEXT_EVERY = 0.5


class ComfyHost:
    """See `Host`."""

    # ------------------------------------------------------------------------------ folders and files

    def register_folders(self) -> None:
        import folder_paths

        paths, extensions = folder_paths.folder_names_and_paths.get(WEIGHTS_KEY, ([], set()))
        own = os.path.join(folder_paths.models_dir, WEIGHTS_KEY)
        merged = [*paths, *([] if own in paths else [own])]
        known = set(extensions) | set(folder_paths.supported_pt_extensions)
        folder_paths.folder_names_and_paths[WEIGHTS_KEY] = (merged, known)

    def weight_folders(self) -> list[Path]:
        import folder_paths

        self.register_folders()
        own = os.path.join(folder_paths.models_dir, WEIGHTS_KEY)
        paths = folder_paths.get_folder_paths(WEIGHTS_KEY)
        # A folder that the user configured as default comes first in ComfyUI's list and stays first.
        return [Path(p) for p in dict.fromkeys([*paths, own])]

    def neighbour_folders(self) -> dict[str, list[Path]]:
        import folder_paths

        aux = PlainHost().neighbour_folders()["aux"]
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

    def input_folder(self) -> Path | None:
        import folder_paths

        return Path(folder_paths.get_input_directory())

    def input_path(self, name: str) -> Path:
        import folder_paths

        path = Path(folder_paths.get_annotated_filepath(name)).resolve()
        places = (
            folder_paths.get_input_directory(),
            folder_paths.get_output_directory(),
            folder_paths.get_temp_directory(),
        )
        if not any(path.is_relative_to(Path(root).resolve()) for root in places):
            raise PictureError(
                f"{name!r} lies outside ComfyUI's input, output and temp folders. Put the file into the input folder."
            )
        return path

    def output_folder(self) -> Path:
        import folder_paths

        return Path(folder_paths.get_output_directory())

    def temp_folder(self) -> Path | None:
        import folder_paths

        return Path(folder_paths.get_temp_directory())

    def next_number(self, prefix: str, width: int, height: int) -> tuple[Path, str, int]:
        import folder_paths

        folder, stem, number, _, _ = folder_paths.get_save_image_path(prefix, str(self.output_folder()), width, height)
        return Path(folder), stem, number

    def embeds_metadata(self) -> bool:
        from comfy.cli_args import args

        return not args.disable_metadata

    def user_settings(self) -> dict[str, Any]:
        import folder_paths

        path = os.path.join(folder_paths.get_user_directory(), "default", "comfy.settings.json")
        try:
            return _read_settings(path, os.stat(path).st_mtime_ns)
        except (OSError, ValueError, RecursionError):
            return {}

    # ------------------------------------------------------------------------------ devices

    def device(self) -> torch.device:
        import comfy.model_management as manager

        return manager.get_torch_device()

    def output_device(self) -> torch.device:
        import comfy.model_management as manager

        return manager.intermediate_device()

    def faster_in_half(self, where: torch.device) -> bool:
        import comfy.model_management as manager

        return bool(manager.should_use_fp16(where))

    def free_memory(self, where: torch.device) -> int:
        import comfy.model_management as manager

        return int(manager.get_free_memory(where))

    def release_device_memory(self) -> None:
        import comfy.model_management as manager

        manager.soft_empty_cache()

    def adopt(self, module: nn.Module, where: torch.device | None) -> tuple[nn.Module, Any]:
        if where is not None and where != self.device():
            return module.to(where), None
        import comfy.model_management as manager
        import comfy.model_patcher as patchers

        patcher = getattr(patchers, "CoreModelPatcher", patchers.ModelPatcher)
        offload = manager.unet_offload_device()
        module = module.to(offload)
        return module, patcher(module, load_device=where or self.device(), offload_device=offload)

    def is_loaded(self, patcher: Any) -> bool:
        import comfy.model_management as manager

        return any(entry.model is patcher for entry in manager.current_loaded_models)

    def make_ready(self, patcher: Any, memory: int) -> None:
        import comfy.model_management as manager

        # The layers are torch's own, not ComfyUI's casting ones: half-loaded they could not run.
        manager.load_models_gpu([patcher], memory_required=memory, force_full_load=True)

    # ------------------------------------------------------------------------------ waiting

    @contextmanager
    def progress(self, total: int, label: str, unit: str) -> Iterator[Progress]:
        bar = _NodeTicker(total, label, unit)
        try:
            yield bar
        finally:
            bar.close()

    def check_interrupt(self) -> None:
        import comfy.model_management as manager

        # Code that stands in for ComfyUI, in tests of other packs, may have nothing to ask.
        if ask := getattr(manager, "throw_exception_if_processing_interrupted", None):
            ask()

    def running_node(self) -> str | None:
        server = _server()
        try:
            from comfy_execution.utils import get_executing_context
        except ImportError:
            return getattr(server, "last_node_id", None)
        context = get_executing_context()
        return getattr(server, "last_node_id", None) if context is None else context.node_id

    # ------------------------------------------------------------------------------ results

    def mesh(self, vertices: Tensor, faces: Tensor, uv: Tensor | None, texture: Tensor | None) -> Any:
        try:
            from comfy_api.latest import Types

            mesh = Types.MESH
        except (ImportError, AttributeError):
            from comfy_extras.nodes_hunyuan3d import MESH as mesh
        if uv is not None and texture is not None and "texture" in inspect.signature(mesh).parameters:
            return mesh(vertices[None], faces[None], uvs=uv[None], texture=texture[None])
        return mesh(vertices[None], faces[None])

    def file_3d(self, path: Path) -> Any:
        try:
            from comfy_api.latest import Types

            return Types.File3D(str(path))
        except (ImportError, AttributeError):
            return None

    def blocked(self, message: str) -> Any:
        from comfy_execution.graph_utils import ExecutionBlocker

        return ExecutionBlocker(message)


@lru_cache(maxsize=1)
def _read_settings(path: str, changed: int) -> dict[str, Any]:
    """The settings in a file of that age. Asked for at every run, read only when they were changed."""
    with open(path, encoding="utf-8") as text:
        read = json.load(text)
    return read if isinstance(read, dict) else {}


def _server() -> Any:
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


class _NodeTicker:
    """Progress on the node that ComfyUI runs: the bar, previews, and for bytes how many there are and how fast."""

    def __init__(self, total: int, label: str, unit: str) -> None:
        import comfy.utils

        self._bar: Any = comfy.utils.ProgressBar(total) if total > 0 else None
        self._total, self._label, self._sized = total, label, unit == "B"
        self._done = 0
        self._started = self._texted = self._previewed = time.monotonic()
        self._spoke = False

    def update(self, n: int = 1, preview: Preview | None = None) -> None:
        from . import amount, check_interrupt

        check_interrupt()
        self._done += n
        now = time.monotonic()
        shown = None
        # The last one is not worth it: the result follows at once.
        if preview is not None and self._done < self._total and now - self._previewed >= _PREVIEW_EVERY:
            shown, self._previewed = _preview_image(preview), now
        if self._bar is not None:
            self._bar.update_absolute(self._done, preview=shown)
        if self._sized and now - self._texted >= _TEXT_EVERY:
            self._texted, self._spoke = now, True
            _tell(f"{self._label}: {amount(self._done, self._total, now - self._started)}")

    def close(self) -> None:
        from . import amount

        # The text stays on the node, so it must not go on telling of a download that is over.
        if self._spoke:
            whole = self._done >= self._total
            _tell(f"{self._label}: {'' if whole else 'stopped at '}{amount(self._done, self._total)}{', done' * whole}")


def _preview_image(preview: Preview) -> tuple[str, Any, int] | None:
    picture = preview()
    if picture is None:
        return None
    from PIL import Image

    return "JPEG", Image.fromarray(picture.numpy()), max(picture.shape[:2])


def _tell(text: str) -> None:
    """Show a line of text on the node that ComfyUI runs; silent where ComfyUI has no such thing."""
    from . import current

    server = _server()
    send = getattr(server, "send_progress_text", None)
    node = current().running_node()
    if send is None or node is None:
        return
    try:
        send(text, node, server.client_id)
    except Exception as error:  # of whatever a ComfyUI to come makes of it: a line of text is worth no failed run
        log.debug("no progress text: %s", error)
