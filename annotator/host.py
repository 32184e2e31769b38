"""Where Fathom runs: inside ComfyUI, or on plain torch. The only file that names comfy, folder_paths or server.

Inside ComfyUI its memory manager owns every network: a network lies on the offload device until `Resident.ready`
asks for it, and ComfyUI may take it off the device again at any time between two calls.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import torch
from torch import Tensor, nn

from ..errors import PictureError, SettingError

WEIGHTS_KEY = "annotators"

_log = logging.getLogger(__name__)


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


def serve_web(pack: Path) -> None:
    """Let ComfyUI find the front end of the pack in `pack` under a plain address too, where the folder's is none.

    aiohttp answers 404 for a static folder whose address has to be quoted, such as one with spaces.
    """
    served = getattr(sys.modules.get("nodes"), "EXTENSION_WEB_DIRS", None)
    if served is not None and quote(pack.name) != pack.name:
        served.setdefault("comfy-fathom", str(pack / "web"))


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
    return [_cache_folder()]


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(cache) if cache else Path.home() / ".cache") / "fathom"


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


# ---------------------------------------------------------------------------------------------- files


def input_files(suffixes: tuple[str, ...]) -> list[str]:
    """Names of the files in ComfyUI's input folder that end in one of `suffixes` (lower case, with the dot)."""
    if not inside_comfyui():
        return []
    import folder_paths  # pyright: ignore[reportMissingImports]

    return sorted(_files_of(folder_paths.get_input_directory(), suffixes))


def _files_of(folder: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        # What cannot be looked at, such as a link that leads to itself, is left out of the list, not the list out.
        with suppress(OSError):
            if entry.name.lower().endswith(suffixes) and entry.is_file():
                yield entry.name


def input_file(name: str) -> Path:
    """The file that a node's widget names: "name", "name [output]" or "name [temp]" in ComfyUI, a path elsewhere.

    Raises PictureError when it does not exist or lies outside ComfyUI's input, output and temp folders.
    """
    if not inside_comfyui():
        path = Path(name).expanduser()
    else:
        import folder_paths  # pyright: ignore[reportMissingImports]

        path = Path(folder_paths.get_annotated_filepath(name)).resolve()
        places = (
            folder_paths.get_input_directory(),
            folder_paths.get_output_directory(),
            folder_paths.get_temp_directory(),
        )
        if not any(path.is_relative_to(Path(place).resolve()) for place in places):
            raise PictureError(
                f"{name!r} lies outside ComfyUI's input, output and temp folders. Put the file into the input folder."
            )
    if not path.is_file():
        raise PictureError(f"there is no file {name!r}. Put it into ComfyUI's input folder and choose it again.")
    return path


def output_file(prefix: str, suffix: str, width: int = 0, height: int = 0) -> tuple[Path, str]:
    """The next free numbered file in ComfyUI's output folder: its path, and its name relative to that folder.

    prefix: as in Save Image, may hold a subfolder, %date% marks, and %width% and %height%, which become those given.
    suffix: with the dot. Elsewhere the folder is the working directory. Raises SettingError for a prefix that leads
    outside the folder.
    """
    root = output_folder()
    name = prefix.replace("\\", "/").rpartition("/")[2].strip()
    if not name or name.startswith(".") or "\0" in prefix:
        raise SettingError(f"the prefix {prefix!r} names no file: give a name that begins with no dot, or folder/name.")
    if not (root / prefix).resolve().is_relative_to(root.resolve()):
        raise SettingError(f"the prefix {prefix!r} leads outside the output folder: give a name, or folder/name.")
    if inside_comfyui():
        import folder_paths  # pyright: ignore[reportMissingImports]

        folder, stem, counter, _, _ = folder_paths.get_save_image_path(prefix, str(root), width, height)
        path = Path(folder) / f"{stem}_{counter:05}_{suffix}"
    else:
        stem = root / prefix
        stem.parent.mkdir(parents=True, exist_ok=True)
        names = (stem.with_name(f"{stem.name}_{counter:05}_{suffix}") for counter in range(1, 100_000))
        path = next(name for name in names if not name.exists())
    return path, path.relative_to(root).as_posix()


def embeds_metadata() -> bool:
    """Whether saved files carry the workflow: yes, unless ComfyUI was started with --disable-metadata."""
    if not inside_comfyui():
        return True
    from comfy.cli_args import args  # pyright: ignore[reportMissingImports]

    return not args.disable_metadata


def output_folder() -> Path:
    """ComfyUI's output folder; elsewhere the working directory."""
    if inside_comfyui():
        import folder_paths  # pyright: ignore[reportMissingImports]

        return Path(folder_paths.get_output_directory())
    return Path.cwd()


def temp_folder() -> Path | None:
    """ComfyUI's folder for files that last until it ends; None outside ComfyUI."""
    if not inside_comfyui():
        return None
    import folder_paths  # pyright: ignore[reportMissingImports]

    return Path(folder_paths.get_temp_directory())


def save_temp(content: Tensor | bytes, folder: Path, suffix: str = ".jpg") -> dict[str, str]:
    """Write a file of a name that nobody has into the temp folder: what names it to the front end.

    content: a picture, uint8 (H,W,3), saved as `suffix` says; or the bytes themselves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"fathom_{secrets.token_hex(8)}{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        from PIL import Image

        Image.fromarray(content.numpy()).save(path, quality=90)
    return {"filename": path.name, "subfolder": "", "type": "temp"}


def bundle_folder() -> Path:
    """Where bundles are kept: the environment variable FATHOM_BUNDLES, else output/fathom_bundles of ComfyUI, else
    fathom/bundles in the user's cache folder."""
    if named := os.environ.get("FATHOM_BUNDLES"):
        return Path(named).expanduser()
    if inside_comfyui():
        return output_folder() / "fathom_bundles"
    return _cache_folder() / "bundles"


def mesh(vertices: Tensor, faces: Tensor, uv: Tensor | None = None, texture: Tensor | None = None) -> Any:
    """ComfyUI's MESH of one surface; None outside ComfyUI.

    vertices (N,3), faces (M,3), uv (N,2) with v down, texture (H,W,3). Older ComfyUIs know vertices and faces only.
    """
    if not inside_comfyui():
        return None
    try:
        from comfy_api.latest import Types  # pyright: ignore[reportMissingImports]

        made = Types.MESH
    except (ImportError, AttributeError):
        from comfy_extras.nodes_hunyuan3d import MESH as made  # pyright: ignore[reportMissingImports]
    if uv is not None and texture is not None and "texture" in inspect.signature(made).parameters:
        return made(vertices[None], faces[None], uvs=uv[None], texture=texture[None])
    return made(vertices[None], faces[None])


def file_3d(path: Path) -> Any:
    """ComfyUI's File3D of a file on disk, None where ComfyUI has no such type."""
    if not inside_comfyui():
        return None
    try:
        from comfy_api.latest import Types  # pyright: ignore[reportMissingImports]

        return Types.File3D(str(path))
    except (ImportError, AttributeError):
        return None


def blocked(message: str) -> Any:
    """What a node returns for an output that it does not have: whoever uses it is stopped with `message`. None
    outside ComfyUI."""
    if not inside_comfyui():
        return None
    from comfy_execution.graph_utils import ExecutionBlocker  # pyright: ignore[reportMissingImports]

    return ExecutionBlocker(message)


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


def setting(name: str, variable: str, default: Any) -> Any:
    """What the user chose: the environment variable, else "Fathom.<name>" of ComfyUI's settings panel, else `default`.

    The result has the type of `default`. Raises SettingError for text where a number is wanted.
    """
    chosen = os.environ.get(variable) or _user_settings().get(f"Fathom.{name}")
    if chosen is None:
        return default
    try:
        return type(default)(chosen)
    except (TypeError, ValueError):
        raise SettingError(f"{variable} must be a number, got {chosen!r}.") from None


def _user_settings() -> dict[str, Any]:
    """What ComfyUI's settings panel wrote; empty where there is none."""
    if not inside_comfyui():
        return {}
    import folder_paths  # pyright: ignore[reportMissingImports]

    path = os.path.join(folder_paths.get_user_directory(), "default", "comfy.settings.json")
    try:
        return _read_settings(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError):
        return {}


@lru_cache(maxsize=1)
def _read_settings(path: str, changed: int) -> dict[str, Any]:
    """The settings in a file of that age. Asked for at every run, read only when they were changed."""
    with open(path, encoding="utf-8") as text:
        read = json.load(text)
    return read if isinstance(read, dict) else {}


_PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def chosen_precision() -> str:
    """The precision that the user chose for all networks: "auto" unless said otherwise."""
    return setting("Precision", "FATHOM_PRECISION", "auto")


def precision(half: bool, where: torch.device) -> torch.dtype:
    """The precision that a network computes in on `where`. half: whether float16 is exact enough for it.

    The environment variable FATHOM_PRECISION (fp32, tf32, fp16, bf16) or ComfyUI's settings panel decides for all of
    them; without them float16 is taken where it is exact enough and the device is faster in it. Raises SettingError
    for another value.
    """
    wanted = chosen_precision()
    if wanted in _PRECISIONS:
        return _PRECISIONS[wanted]
    if wanted != "auto":
        raise SettingError(f"FATHOM_PRECISION must be auto, {', '.join(_PRECISIONS)}, got {wanted!r}.")
    return torch.float16 if half and where.type != "cpu" and _faster_in_half(where) else torch.float32


def tf32(exact_enough: bool | None) -> bool | None:
    """Whether float32 products on a GPU are TF32; None = as torch decides. The user's choice of a precision goes first.

    exact_enough: whether TF32 is for this network; None = nobody measured.
    """
    return {"fp32": False, "tf32": True}.get(chosen_precision(), exact_enough)


def _faster_in_half(where: torch.device) -> bool:
    if inside_comfyui():
        import comfy.model_management as manager  # pyright: ignore[reportMissingImports]

        return bool(manager.should_use_fp16(where))
    return where.type == "cuda" and torch.cuda.get_device_capability(where)[0] >= 7


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

    @property
    def loaded(self) -> bool:
        """Whether ComfyUI keeps the network on its device; on plain torch always."""
        if self.patcher is None:
            return True
        import comfy.model_management as manager  # pyright: ignore[reportMissingImports]

        return any(entry.model is self.patcher for entry in manager.current_loaded_models)

    def ready(self, memory: int) -> nn.Module:
        """The network on its device, with `memory` bytes made free beside it for one inference."""
        if self.patcher is not None:
            import comfy.model_management as manager  # pyright: ignore[reportMissingImports]

            # The layers are torch's own, not ComfyUI's casting ones: half-loaded they could not run.
            manager.load_models_gpu([self.patcher], memory_required=memory, force_full_load=True)
        return self.module


# ---------------------------------------------------------------------------------------------- waiting


Preview = Callable[[], "Tensor | None"]


class Progress(Protocol):
    """What a loop reports to."""

    def update(self, n: int = 1, preview: Preview | None = None) -> None:
        """`n` more units are done. Raises the host's interrupt when the user has cancelled.

        preview: makes a picture of what came last, uint8 (H,W,3); called only when and where it will be seen.
        """
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

    def update(self, n: int = 1, preview: Preview | None = None) -> None:
        check_interrupt()
        if self._advance is not None:
            self._advance(n)


# Seconds between two previews, and between two texts, on ComfyUI's node.
_PREVIEW_EVERY = 0.5
_TEXT_EVERY = 0.5


class _NodeTicker:
    """Progress on the node that ComfyUI runs: the bar, previews, and for bytes how many there are and how fast."""

    def __init__(self, total: int, label: str, unit: str) -> None:
        import comfy.utils  # pyright: ignore[reportMissingImports]

        self._bar: Any = comfy.utils.ProgressBar(total) if total > 0 else None
        self._total, self._label, self._sized = total, label, unit == "B"
        self._done = 0
        self._started = self._told = self._previewed = time.monotonic()
        self._spoke = False

    def update(self, n: int = 1, preview: Preview | None = None) -> None:
        check_interrupt()
        self._done += n
        now = time.monotonic()
        shown = None
        # The last one is not worth it: the result follows at once.
        if preview is not None and self._done < self._total and now - self._previewed >= _PREVIEW_EVERY:
            shown, self._previewed = _preview_image(preview), now
        if self._bar is not None:
            self._bar.update_absolute(self._done, preview=shown)
        if self._sized and now - self._told >= _TEXT_EVERY:
            self._told, self._spoke = now, True
            tell(f"{self._label}: {amount(self._done, self._total, now - self._started)}")

    def close(self) -> None:
        # The text stays on the node, so it must not go on telling of a download that is over.
        if self._spoke:
            whole = self._done >= self._total
            tell(f"{self._label}: {'' if whole else 'stopped at '}{amount(self._done, self._total)}{', done' * whole}")


def _preview_image(preview: Preview) -> tuple[str, Any, int] | None:
    picture = preview()
    if picture is None:
        return None
    from PIL import Image

    return "JPEG", Image.fromarray(picture.numpy()), max(picture.shape[:2])


def amount(done: int, total: int = 0, seconds: float = 0.0) -> str:
    """Bytes done, of how many, and how fast, for people: "12.3 of 470.0 MB, 5.1 MB/s". total, seconds: 0 = unknown."""
    text = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total and done < total else f"{done / 1e6:.1f} MB"
    return f"{text}, {done / 1e6 / seconds:.1f} MB/s" if seconds > 0 else text


def tell(text: str) -> None:
    """Show a line of text on the node that ComfyUI runs; silent where ComfyUI has no such thing."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    send = getattr(server, "send_progress_text", None)
    node = _running_node(server)
    if send is None or node is None:
        return
    try:
        send(text, node, server.client_id)  # pyright: ignore[reportOptionalMemberAccess]
    except Exception as error:  # of whatever a ComfyUI to come makes of it: a line of text is worth no failed run
        _log.debug("no progress text: %s", error)


def _running_node(server: Any) -> str | None:
    try:
        from comfy_execution.utils import get_executing_context  # pyright: ignore[reportMissingImports]
    except ImportError:
        return getattr(server, "last_node_id", None)
    context = get_executing_context()
    return getattr(server, "last_node_id", None) if context is None else context.node_id


@contextmanager
def progress(total: int, label: str, unit: str = "it") -> Iterator[Progress]:
    """Progress of `total` units (0 = unknown), shown on ComfyUI's node or by the shell; silent in plain Python."""
    check_interrupt()
    if inside_comfyui():
        bar = _NodeTicker(total, label, unit)
        try:
            yield bar
        finally:
            bar.close()
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


def holds_node(id: str) -> bool:
    """Whether ComfyUI already has a node of this id, from its core or from another pack."""
    if not inside_comfyui():
        return False
    registered = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
    return id in registered
