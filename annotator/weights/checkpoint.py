"""Reading checkpoints: safetensors, torch files without running what is in them, sharded and wrapped ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import WeightsError
from .sources import Found, is_index, read_json, shards

_WRAPPERS = ("state_dict", "model_state_dict", "model", "depth_model", "params", "net", "ema")
_BOOKKEEPING = ("optim", "sched", "hyper", "args", "config", "callback", "loop")


@dataclass
class Checkpoint:
    """A checkpoint file, read. tensors: by name, wrapper and uniform prefix taken off; safetensors and zip
    files stay mapped to the file, so treat them as read-only. config: config.json of a Hugging Face style
    folder. layout: what the source or the file's name says; None = tell by the keys. wrapper: the outer
    keys taken off, as in "model". metadata: of a safetensors file.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None
    wrapper: str | None = None
    layout: str | None = None
    found: Found | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def read(weights: Found | str | Path) -> Checkpoint:
    """Open a checkpoint: safetensors, torch's zip or older format, or the index of a sharded one. Raises
    WeightsError for anything else, for a damaged file, and for a pickle that asks for code (which is not
    run).
    """
    found = weights if isinstance(weights, Found) else None
    path = found.path if found else Path(weights)  # pyright: ignore[reportArgumentType]
    metadata: dict[str, str] = {}
    if is_index(path):
        held: dict[Any, Any] = {}
        for shard in shards(path):
            held.update(_open(shard, metadata))
    else:
        held = _open(path, metadata)
    tensors, wrapper = _unwrap(held, path)
    config_file = (found or Found(path, path.parent, "")).config_file
    config = read_json(config_file) if config_file else None
    return Checkpoint(path, tensors, config, wrapper, found.layout if found else None, found, metadata)


def _open(path: Path, metadata: dict[str, str]) -> Any:
    """The content of one file, told by its first bytes: endings lie."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise WeightsError(f"{path} is empty. Delete it and fetch it again.")
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(f"{path} is a web page, not a checkpoint: delete it and use the page's download button.")
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer of {size} bytes: fetch the file itself (git lfs pull).")
    if path.name == "model_index.json":
        raise WeightsError(f"{path} is a diffusers folder, which this estimator cannot use: give it a checkpoint file.")
    safetensors = head[8:9] == b"{" and head[:1] != b"\x80"
    try:
        if safetensors:
            from safetensors import safe_open

            with safe_open(str(path), framework="pt") as file:
                metadata.update(file.metadata() or {})
                return {key: file.get_tensor(key) for key in file.keys()}
        zipped = head.startswith(b"PK\x03\x04")
        if not zipped and head[:1] != b"\x80":
            raise WeightsError(f"{path} is no checkpoint: it is neither safetensors nor a torch file.")
        with _allowed_globals():
            # torch.load itself is sometimes patched by other packs to trust every file.
            return torch.serialization.load(str(path), map_location="cpu", weights_only=True, mmap=zipped or None)
    except WeightsError:
        raise
    except Exception as error:  # damage shows as any error at all, from KeyError to MemoryError
        raise _unreadable(path, size, error) from error


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


def _allowed_globals() -> Any:
    """Context in which torch accepts the harmless globals that published checkpoints hold besides tensors."""
    if not hasattr(torch.serialization, "safe_globals"):  # torch < 2.5: fewer files load, none unsafely
        return nullcontext()
    import argparse

    import numpy as np

    core: Any = getattr(np, "_core", None) or np.core
    wanted: list[Any] = [argparse.Namespace, np.dtype, np.ndarray]
    wanted += [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    for function in (core.multiarray.scalar, core.multiarray._reconstruct):
        wanted.append(function)
        if hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):  # names by pair came with it, 2.6
            home = "numpy.core.multiarray" if "._core" in function.__module__ else "numpy._core.multiarray"
            wanted.append((function, f"{home}.{function.__name__}"))
    # On leaving, torch forgets what is listed here, also where someone else had listed it before.
    before = torch.serialization.get_safe_globals()
    return torch.serialization.safe_globals([g for g in dict.fromkeys(wanted) if g not in before])


def _unwrap(held: Any, path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors by name, and the outer keys around them."""
    outer: list[str] = []
    while isinstance(held, Mapping) and len(outer) < 4:
        inner = {k: v for k, v in held.items() if isinstance(k, str) and isinstance(v, Mapping)}
        keys = [k for k in _WRAPPERS if k in inner]
        if not keys and not any(isinstance(v, Tensor) for v in held.values()):
            keys = [k for k in inner if not any(word in k.lower() for word in _BOOKKEEPING)]
            keys = keys if len(keys) == 1 else []
        if not keys:
            break
        outer.append(keys[0])
        held = inner[keys[0]]
    items = held.items() if isinstance(held, Mapping) else ()
    tensors = {k: v.detach() for k, v in items if isinstance(k, str) and _plain(v)}
    if not tensors:
        kind = f"a {type(held).__name__}" + (f" of {', '.join(map(str, list(held)[:5]))}" if items else "")
        raise WeightsError(f"{path} holds no weights: it is {kind}, not named tensors.")
    for prefix in ("module.", "_orig_mod."):  # left by DataParallel and torch.compile
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key[len(prefix) :]: tensor for key, tensor in tensors.items()}
    return tensors, "/".join(outer) or None


def _plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not (value.is_meta or value.is_quantized)
