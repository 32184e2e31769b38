"""Reading checkpoints: safetensors, torch files without running what is in them, sharded and wrapped ones.

What is read lies in memory of its own: a file that is written over afterwards, in place or by another, changes nothing.
"""

from __future__ import annotations

import os
import pickle
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ...errors import WeightsError
from .safetensors_file import looks_like_safetensors, read_header, read_tensors, shapes_alone
from .sources import Found, is_index, read_json, shards

_WRAPPERS = ("state_dict", "model_state_dict", "model", "depth_model", "params", "net", "ema")
_BOOKKEEPING = ("optim", "sched", "hyper", "args", "config", "callback", "loop")
_PREFIXES = ("module.", "_orig_mod.")  # left by DataParallel and torch.compile, in any order and number


@dataclass
class Checkpoint:
    """A checkpoint, read. tensors: by name, wrapper and uniform prefix taken off; on torch's meta device where shapes
    alone were asked for. config: config.json of a Hugging Face style folder, or "model_config" beside the weights in a
    torch file. layout: what the source or the file's name says; None = tell by the keys. wrapper: the outer keys taken
    off, as in "model". metadata: of a safetensors file.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None
    wrapper: str | None = None
    layout: str | None = None
    found: Found | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def setting(self, name: str) -> Any:
        """What config.json says under `name`, which may lead inwards as in "backbone_config.layer_norm_eps"; None where
        it says nothing, or there is none."""
        value: Any = self.config
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def number(self, name: str, default: float) -> float:
        """The number that `setting` tells, or the default. Raises WeightsError for anything but a positive number."""
        value = self.setting(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
            raise WeightsError(
                f"config.json beside {self.path}: {name} should be a positive number, not {value!r:.80}."
            )
        return float(value)


# While shapes alone are asked for: what each file holds, and its metadata.
_shapes_only: ContextVar[dict[Path, tuple[Any, dict[str, str]]] | None] = ContextVar("_shapes_only", default=None)


@contextmanager
def shapes_only() -> Iterator[None]:
    """What `read` gives within: names, types and shapes of the tensors on torch's meta device, without the numbers,
    which of safetensors and torch's zip format are then not read at all. Each file is opened once. Holds in the calling
    thread."""
    token = _shapes_only.set({})
    try:
        yield
    finally:
        _shapes_only.reset(token)


def read(weights: Found | str | Path) -> Checkpoint:
    """Open a checkpoint: safetensors, torch's zip or older format, told apart by content, or the index of a sharded
    one. See `shapes_only` for less.

    Raises WeightsError for anything else, for a damaged file, for one that is written to meanwhile, and for a pickle
    that asks for code or a TorchScript archive (which are not run).
    """
    found = weights if isinstance(weights, Found) else Found(Path(weights), Path(weights).parent, "")
    path = found.path
    metadata: dict[str, str] = {}
    if is_index(path):
        content: dict[Any, Any] = {}
        for shard in shards(path):
            content.update(_open(shard, metadata))
    else:
        content = _open(path, metadata)
    tensors, wrapper = _unwrap(content, path)
    if _shapes_only.get() is not None:
        tensors = {key: tensor.to("meta") for key, tensor in tensors.items()}
    elif empty := next((key for key, tensor in tensors.items() if tensor.is_meta), None):
        raise WeightsError(f"{path}: {empty} was saved without its values (on torch's meta device). Fetch it again.")
    config = read_json(found.config_file) if found.config_file else None
    if config is None and isinstance(content, Mapping) and isinstance(content.get("model_config"), dict):
        config = content["model_config"]
    return Checkpoint(path, tensors, config, wrapper, found.layout, found if found is weights else None, metadata)


def _open(path: Path, metadata: dict[str, str]) -> Any:
    """The content of one file, told by its first bytes: endings lie."""
    seen = _shapes_only.get()
    if seen is not None and path in seen:
        content, about = seen[path]
        metadata.update(about)
        return content
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            head = file.read(512)
            _check_head(path, head, before.st_size)
            content = _content(path, file, head, before.st_size, metadata)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise WeightsError(f"{path} was written to while it was read. Run again when that is done.")
    if seen is not None:
        seen[path] = content, dict(metadata)
    return content


def _check_head(path: Path, head: bytes, size: int) -> None:
    if not head:
        raise WeightsError(f"{path} is empty. Delete it and fetch it again.")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(f"{path} is a web page, not a checkpoint: delete it and use the page's download button.")
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer of {size} bytes: fetch the file itself (git lfs pull).")
    if path.name == "model_index.json":
        raise WeightsError(f"{path} is a diffusers folder, which this estimator cannot use: give it a checkpoint file.")


def _content(path: Path, file: BinaryIO, head: bytes, size: int, metadata: dict[str, str]) -> Any:
    try:
        if looks_like_safetensors(head):
            entries, about = read_header(file)
            metadata.update(about)
            tensors = shapes_alone(entries) if _shapes_only.get() is not None else read_tensors(file, entries)
            return _with_aliases(tensors, about)
        zipped = head.startswith(b"PK\x03\x04")
        if zipped:
            _check_listing(path, file)
        elif head[:1] != b"\x80":
            raise WeightsError(f"{path} is no checkpoint: it is neither safetensors nor a torch file.")
        file.seek(0)
        # torch reads a path that ends in .safetensors as such, whatever the file is.
        if _shapes_only.get() is not None and zipped and path.suffix != ".safetensors":
            return _torch_load(str(path), map_location="meta", mmap=True)
        return _torch_load(file, map_location="cpu", mmap=False)
    except WeightsError:
        raise
    except Exception as error:  # damage shows as any error at all, from KeyError to MemoryError
        raise _unreadable(path, size, error) from error


def _check_listing(path: Path, file: BinaryIO) -> None:
    """Raises WeightsError for an archive that torch would not have written, TorchScript's among them, before torch sees
    it: torch before 2.6 runs the code in them (CVE-2025-32434)."""
    with zipfile.ZipFile(file) as archive:
        listed = archive.infolist()
    names = [entry.filename.rpartition("/")[2] for entry in listed]
    if "constants.pkl" in names or any("/code/" in f"/{entry.filename}" for entry in listed):
        raise WeightsError(f"{path} is refused: it is a TorchScript archive, which holds code. Use the plain weights.")
    if "data.pkl" not in names:
        raise WeightsError(f"{path} is a zip archive without weights: unpack it, and choose the checkpoint in it.")
    if packed := [entry.filename for entry in listed if entry.compress_type != zipfile.ZIP_STORED]:
        raise WeightsError(f"{path} is refused: {packed[0]} in it is compressed, and torch writes no such file.")


def _torch_load(file: BinaryIO | str, **how: Any) -> Any:
    """torch.load of weights alone; harmless further globals are accepted only for a file that asks for them."""

    def load() -> Any:
        # torch.load itself is sometimes patched by other packs to trust every file.
        return torch.serialization.load(file, weights_only=True, **how)  # pyright: ignore[reportArgumentType]

    try:
        return load()
    except pickle.UnpicklingError:  # it asks for a global, or is damaged
        pass
    if not isinstance(file, str):
        file.seek(0)
    with _allowing, _allowed_globals():
        return load()


_allowing = threading.Lock()


def _with_aliases(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """A tensor that a model holds under several names is written once; the metadata tell {other name: written name},
    as safetensors.torch.save_model does it."""
    for other, written in metadata.items():
        if written in tensors:
            tensors.setdefault(other, tensors[written])
    return tensors


def _unreadable(path: Path, size: int, error: Exception) -> WeightsError:
    said = str(error)
    asked = re.search(r"(?:GLOBAL|[Cc]lass|function) ([\w.<>]+)[^\n]*(?:not an allowed|blocked|unsupported)", said)
    asked = asked or re.search(r"unrecognized function (.+)|classes allowlisted[^\n]* got (.+)", said)
    if asked:
        what = next(g for g in asked.groups() if g)
        return WeightsError(
            f"{path} is refused: besides weights it asks to call {what}, which could run code. Nothing of it "
            "was run. Use the publisher's own file, or a safetensors version."
        )
    if "TorchScript" in said:
        return WeightsError(f"{path} is refused: it is a TorchScript archive, which holds code. Use the plain weights.")
    # Behind torch's advice, which would let the file run code, stands what was wrong.
    reason = said.rpartition("WeightsUnpickler error:")[2].strip().split("\n")[0][:120]
    if "Unsupported operand" in said:
        return WeightsError(
            f"{path} ({size} bytes) is refused: it is damaged, or a pickle with instructions that plain weights do "
            f"not need and that could run code ({reason}). Nothing of it was run. Use a safetensors version."
        )
    return WeightsError(
        f"{path} ({size} bytes) is damaged, cut short, or no checkpoint ({type(error).__name__}: {reason}). "
        "Delete it and fetch it again."
    )


def _allowed_globals() -> AbstractContextManager[Any]:
    """Context in which torch accepts the harmless globals that published checkpoints hold besides tensors. torch's list
    of them is one for all threads, so only one may be inside."""
    import argparse

    import numpy as np

    core: Any = getattr(np, "_core", None) or np.core
    wanted: list[Any] = [argparse.Namespace, np.dtype, np.ndarray]
    wanted += [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    for function in (core.multiarray.scalar, core.multiarray._reconstruct):
        home = "numpy.core.multiarray" if "._core" in function.__module__ else "numpy._core.multiarray"
        wanted += [function, (function, f"{home}.{function.__name__}")]
    # On leaving, torch forgets what is listed here, also where someone else had listed it before.
    before = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([g for g in dict.fromkeys(wanted) if g not in before])


def _unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors by name, and the outer keys around them."""
    outer: list[str] = []
    while isinstance(content, Mapping) and len(outer) < 4:
        inner = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Mapping)}
        keys = [k for k in _WRAPPERS if k in inner]
        if not keys and not any(isinstance(v, Tensor) for v in content.values()):
            keys = [k for k in inner if not any(word in k.lower() for word in _BOOKKEEPING)]
            keys = keys if len(keys) == 1 else []
        if not keys:
            break
        outer.append(keys[0])
        content = inner[keys[0]]
    items = content.items() if isinstance(content, Mapping) else ()
    tensors = {k: v.detach() for k, v in items if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        kind = f"a {type(content).__name__}" + (f" of {', '.join(map(str, list(content)[:5]))}" if items else "")
        raise WeightsError(f"{path} holds no weights: it is {kind}, not named tensors.")
    for key, tensor in tensors.items():
        if (kind := _oddity(tensor)) is not None:
            raise WeightsError(f"{path}: {key} is {kind}; save it as a plain tensor of its values.")
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) and k != p for k in tensors)), None):
        tensors = {key[len(prefix) :]: tensor for key, tensor in tensors.items()}
    return tensors, "/".join(outer) or None


def _oddity(tensor: Tensor) -> str | None:
    """What keeps a tensor from being a weight."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return f"a sparse tensor ({str(tensor.layout).removeprefix('torch.')})"
    return "a quantised tensor" if tensor.is_quantized else None
