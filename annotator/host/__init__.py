"""Where Fathom runs: inside ComfyUI (comfy.py), or on plain torch (plain.py); `current` chooses between the two.

What both do alike stands here.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import interrupt
from ...errors import FathomError, PictureError, SettingError
from ..environment import variable as environment
from .plain import PlainHost, Sink, cache_folder, sinks
from .protocol import Host, Preview, Progress

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = ["Host", "Preview", "Progress", "Resident", "Sink", "current"]

# How many files of `save_temp` stay for one node, and for all of them.
KEEP_PER_NODE, KEEP_IN_ALL = 64, 1024


def inside_comfyui() -> bool:
    """Whether a running ComfyUI has loaded this process's memory manager."""
    return "comfy.model_management" in sys.modules and "folder_paths" in sys.modules


def current() -> Host:
    """The host of this process."""
    return _inside() if inside_comfyui() else _outside()


@cache
def _inside() -> Host:
    from .comfy import ComfyHost

    return ComfyHost()


@cache
def _outside() -> Host:
    return PlainHost()


# ---------------------------------------------------------------------------------------------- folders


def register_folders() -> None:
    """Make models/annotators known to ComfyUI, beside whatever extra_model_paths.yaml or others put there."""
    current().register_folders()


def serve_web(pack: Path) -> None:
    """Let ComfyUI find the front end of the pack in `pack` under a plain address too, where the folder's is none.

    aiohttp answers 404 for a static folder whose address has to be quoted, such as one with spaces.
    """
    served = getattr(sys.modules.get("nodes"), "EXTENSION_WEB_DIRS", None)
    if served is not None and not re.fullmatch(r"[\w.~-]+", pack.name, re.ASCII):
        served.setdefault("comfy-fathom", str(pack / "web"))


def weight_folders() -> list[Path]:
    """Folders that hold Fathom's model files; downloads go to the first.

    ComfyUI: models/annotators and the entries "annotators" of extra_model_paths.yaml. Elsewhere: the folders in
    the environment variable FATHOM_MODELS, or fathom/ in the user's cache folder.
    """
    return current().weight_folders()


def neighbour_folders() -> dict[str, list[Path]]:
    """Folders in which other packs keep the same files.

    "aux": checkpoints of comfyui_controlnet_aux, <root>/<owner>/<repository>/<file>. "depthanything": flat folders.
    "diffusers": one folder per pipeline.
    """
    return current().neighbour_folders()


# ---------------------------------------------------------------------------------------------- files


def input_files(suffixes: tuple[str, ...]) -> list[str]:
    """Names of the files in ComfyUI's input folder that end in one of `suffixes` (lower case, with the dot).

    Never raises: a node's drop-down is made of it. What cannot be looked at, such as a link to itself, and names that
    are no text are left out.
    """
    folder = current().input_folder()
    names = []
    with suppress(OSError):
        for entry in os.scandir(folder) if folder else ():
            with suppress(OSError, UnicodeEncodeError):
                entry.name.encode()
                if entry.name.lower().endswith(suffixes) and entry.is_file():
                    names.append(entry.name)
    return sorted(names)


def input_file(name: str) -> Path:
    """The file that a node's widget names: "name", "name [output]" or "name [temp]" in ComfyUI, a path elsewhere.

    Raises PictureError when it does not exist or lies outside ComfyUI's input, output and temp folders.
    """
    if not isinstance(name, str):  # a graph that a program made
        raise PictureError(f"a file is named by text, got {name!r:.80}.")
    try:
        path = current().input_path(name)
    except FathomError:  # is a ValueError or a RuntimeError, but says more than that there is no such file
        raise
    except (OSError, ValueError, RuntimeError):  # NUL, links to themselves (an error of its own before 3.13)
        path = None
    if path is None or not _is_file(path):
        raise PictureError(f"there is no file {name!r}. Put it into ComfyUI's input folder and choose it again.")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def output_file(prefix: str, suffix: str, width: int = 0, height: int = 0, count: int = 1) -> tuple[Path, str]:
    """The next free numbered file in ComfyUI's output folder: its path, and its name relative to that folder.

    prefix: as in Save Image, may hold a subfolder, %date% marks, and %width% and %height%, which become those given.
    suffix: with the dot. count: how many numbers from this one on are wanted; the caller then puts the place among them
    where "%batch_num%" stands in the name. Elsewhere the folder is the working directory. The names are taken at once,
    by empty files that the caller writes over: no other process can get the same. `released_on_error` gives them back
    where nothing could be written.

    Raises SettingError for a prefix that leads outside the folder or is no name, FathomError where nothing can be
    written.
    """
    root = output_folder()
    name = prefix.replace("\\", "/").rpartition("/")[2].strip()
    if not name or name.startswith(".") or "\0" in prefix:
        raise SettingError(f"the prefix {prefix!r} names no file: give a name that begins with no dot, or folder/name.")
    try:
        inside = (root / prefix).resolve().is_relative_to(root.resolve())
    except (ValueError, OSError, RuntimeError):
        raise SettingError(f"the prefix {prefix!r} is no file name: give a name, or folder/name.") from None
    if not inside:
        raise SettingError(f"the prefix {prefix!r} leads outside the output folder: give a name, or folder/name.")
    try:
        folder, stem, number = current().next_number(prefix, width, height)
        while (taken := _take(folder, stem, suffix, number, count)) < count:
            number += taken + 1
    except OSError as error:
        raise FathomError(f"nothing can be written to {root / prefix}: {error.strerror}.") from error
    path = folder / f"{stem if count > 1 else _of_batch(stem, 0)}_{number:05}_{suffix}"
    return path, path.relative_to(root).as_posix()


def _take(folder: Path, stem: str, suffix: str, number: int, count: int) -> int:
    """How many names in a row were free from `number` on; all of them are taken, or none."""
    taken: list[Path] = []
    for index in range(count):
        path = folder / f"{_of_batch(stem, index)}_{number + index:05}_{suffix}"
        try:
            path.open("xb").close()
        except FileExistsError:
            for other in taken:
                other.unlink(missing_ok=True)
            return index
        taken.append(path)
    return count


@contextmanager
def released_on_error(first: Path, count: int = 1) -> Iterator[None]:
    """Give the `count` names back that `output_file` took from `first` on when the block fails: those of their files
    that are still empty are removed. The error goes on."""
    try:
        yield
    except BaseException:
        stem, number, suffix = first.name.rsplit("_", 2)
        for index in range(count):
            path = first.with_name(f"{_of_batch(stem, index)}_{int(number) + index:05}_{suffix}")
            with suppress(OSError):
                if path.stat().st_size == 0:
                    path.unlink()
        raise


def _of_batch(stem: str, index: int) -> str:
    return stem.replace("%batch_num%", str(index))


def embeds_metadata() -> bool:
    """Whether saved files carry the workflow: yes, unless ComfyUI was started with --disable-metadata."""
    return current().embeds_metadata()


def output_folder() -> Path:
    """ComfyUI's output folder; elsewhere the working directory."""
    return current().output_folder()


def temp_folder() -> Path | None:
    """ComfyUI's folder for files that last until it ends; None outside ComfyUI."""
    return current().temp_folder()


_kept: list[tuple[str | None, Path]] = []
_keeping = threading.Lock()


def save_temp(content: Tensor | bytes, folder: Path, suffix: str = ".jpg") -> dict[str, str]:
    """Save a file in ComfyUI's temp folder and describe it in the form that `ui` takes.

    content: a picture, uint8 (H,W,3), saved as `suffix` says; or the bytes themselves. Of the node that runs the newest
    KEEP_PER_NODE stay, of all nodes KEEP_IN_ALL; older ones are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"fathom_{secrets.token_hex(8)}{suffix}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        from PIL import Image

        Image.fromarray(content.numpy()).save(path, quality=90)
    node = current().running_node()
    with _keeping:
        _kept.append((node, path))
        own = [entry for entry in _kept if entry[0] == node]
        for entry in {*own[:-KEEP_PER_NODE], *_kept[:-KEEP_IN_ALL]}:
            _kept.remove(entry)
            with suppress(OSError):
                entry[1].unlink(missing_ok=True)
    return {"filename": path.name, "subfolder": "", "type": "temp"}


def bundle_folder() -> Path:
    """Where bundles are kept: the environment variable FATHOM_BUNDLES, else output/fathom_bundles of ComfyUI, else
    fathom/bundles in the user's cache folder."""
    if named := environment("FATHOM_BUNDLES"):
        return Path(named).expanduser()
    return output_folder() / "fathom_bundles" if inside_comfyui() else cache_folder() / "bundles"


def mesh(vertices: Tensor, faces: Tensor, uv: Tensor | None = None, texture: Tensor | None = None) -> Any:
    """ComfyUI's MESH of one surface; None outside ComfyUI.

    vertices (N,3), faces (M,3), uv (N,2) with v down, texture (H,W,3). Older ComfyUIs know vertices and faces only.
    """
    return current().mesh(vertices, faces, uv, texture)


def file_3d(path: Path) -> Any:
    """ComfyUI's File3D of a file on disk, None where ComfyUI has no such type."""
    return current().file_3d(path)


def blocked(message: str) -> Any:
    """What a node returns for an output that it does not have: whoever uses it is stopped with `message`. None
    outside ComfyUI."""
    return current().blocked(message)


# ---------------------------------------------------------------------------------------------- devices


def device() -> torch.device:
    """The device that networks run on."""
    return current().device()


def output_device() -> torch.device:
    """The device on which results are handed on."""
    return current().output_device()


def setting(name: str, variable: str, default: Any) -> Any:
    """What the user chose: the environment variable, else "Fathom.<name>" of ComfyUI's settings panel, else `default`.

    The result has the type of `default`. Raises SettingError for anything but a finite number where one is wanted; not
    for a node's INPUT_TYPES, see `shown_setting`.
    """
    chosen = environment(variable) or _user_settings().get(f"Fathom.{name}")
    if chosen is None:
        return default
    try:
        value = type(default)(chosen)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not isinstance(value, str) and not math.isfinite(value):
        raise SettingError(f"{variable} must be a number, got {chosen!r}.")
    return value


def shown_setting(name: str, variable: str, default: Any) -> Any:
    """As `setting`, but the default instead of an error: a node with a wrong setting is shown, and says so when run."""
    try:
        return setting(name, variable, default)
    except SettingError:
        return default


def _user_settings() -> dict[str, Any]:
    return current().user_settings()


_PRECISIONS = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def chosen_precision() -> str:
    """The precision that the user chose for all networks: "auto" unless said otherwise."""
    return setting("Precision", "FATHOM_PRECISION", "auto")


def precision(half: bool, where: torch.device) -> torch.dtype:
    """The precision that a network computes in on `where`. half: whether float16 is exact enough for it.

    The environment variable FATHOM_PRECISION (fp32, tf32, fp16, bf16) or ComfyUI's settings panel decides for all of
    them; without them float16 is taken where it is exact enough and the device is faster in it. Raises SettingError
    for another value.
    """
    import torch

    wanted = chosen_precision()
    if wanted in _PRECISIONS:
        return getattr(torch, _PRECISIONS[wanted])
    if wanted != "auto":
        raise SettingError(f"FATHOM_PRECISION must be auto, {', '.join(_PRECISIONS)}, got {wanted!r}.")
    return torch.float16 if half and where.type != "cpu" and _faster_in_half(where) else torch.float32


def tf32(exact_enough: bool | None) -> bool | None:
    """Whether float32 products on a GPU are TF32; None = as torch decides. The user's choice of a precision goes first.

    exact_enough: whether TF32 is for this network; None = nobody measured.
    """
    return {"fp32": False, "tf32": True}.get(chosen_precision(), exact_enough)


def _faster_in_half(where: torch.device) -> bool:
    return current().faster_in_half(where)


def free_memory(where: torch.device) -> int:
    """Bytes free on `where`, with what the memory manager could free at once."""
    return current().free_memory(where)


def release_device_memory() -> None:
    """Give cached blocks back to the device, after running out of memory."""
    current().release_device_memory()


class Resident:
    """A network whose place in memory the host decides.

    module: the network, float weights, eval mode. device: where it runs. patcher: ComfyUI's ModelPatcher, which
    ComfyUI looks for on objects that travel through a graph; None on plain torch.
    """

    def __init__(self, module: nn.Module, where: torch.device | None = None) -> None:
        module.eval().requires_grad_(False)
        self.device = where or device()
        self.module, self.patcher = current().adopt(module, where)

    @property
    def loaded(self) -> bool:
        """Whether ComfyUI keeps the network on its device; on plain torch always."""
        return self.patcher is None or current().is_loaded(self.patcher)

    def ready(self, memory: int) -> nn.Module:
        """The network on its device, with `memory` bytes made free beside it for one inference."""
        if self.patcher is not None:
            current().make_ready(self.patcher, memory)
        return self.module


# ---------------------------------------------------------------------------------------------- waiting


@contextmanager
def progress_to(sink: Sink) -> Iterator[None]:
    """Send the progress of plain runs to `sink(total, label, unit)`, a factory of context managers of Progress."""
    sinks.append(sink)
    try:
        yield
    finally:
        sinks.remove(sink)


def amount(done: int, total: int = 0, seconds: float = 0.0) -> str:
    """Bytes done, of how many, and how fast, for people: "12.3 of 470.0 MB, 5.1 MB/s". total, seconds: 0 = unknown."""
    text = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if total and done < total else f"{done / 1e6:.1f} MB"
    return f"{text}, {done / 1e6 / seconds:.1f} MB/s" if seconds > 0 else text


def progress(total: int, label: str, unit: str = "it") -> AbstractContextManager[Progress]:
    """Progress of `total` units (0 = unknown), shown on ComfyUI's node or by the shell; silent in plain Python."""
    check_interrupt()
    return current().progress(total, label, unit)


def check_interrupt() -> None:
    """Raise ComfyUI's interrupt when the user has cancelled the run."""
    current().check_interrupt()


interrupt.on_check(check_interrupt)


def holds_node(id: str) -> bool:
    """Whether ComfyUI already has a node of this id, from its core or from another pack."""
    if not inside_comfyui():
        return False
    registered = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})
    return id in registered
