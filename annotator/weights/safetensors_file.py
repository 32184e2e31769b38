"""Reading safetensors: https://github.com/huggingface/safetensors (format described in its README).

The library maps files into memory; tensors would then change, or the process end, when somebody writes over the file.
Here the bytes are read once, into memory of their own.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from ...signals.codec import DTYPES
from .. import host

_LARGEST_HEADER = 100_000_000  # bytes; the library's own bound
_PIECE = 1 << 26  # bytes between two looks for an interrupt


class Entry(NamedTuple):
    """One tensor of a file: its type and shape, its first byte counted from the file's, and how many it takes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    size: int


def looks_like_safetensors(head: bytes) -> bool:
    """Whether a file that begins so is of this format: a length below 4 GiB in eight bytes, then a JSON object. Its
    first byte may be that of a pickle, which no four zeros follow."""
    return head[4:9] == b"\0\0\0\0{"


def read_header(file: BinaryIO) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors of an open file by name, and its metadata; the tensors' bytes are not touched.

    Raises ValueError saying what is wrong with a file that is cut short, or whose header does not describe it.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
        raise ValueError(f"its header should take {length} bytes")
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata is not text by name")
    entries = {name: _entry(name, about, 8 + length) for name, about in header.items()}
    at = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].size)):
        if entry.start != at:
            raise ValueError(f"{name} does not begin where the tensor before it ends")
        at += entry.size
    if at != size:
        raise ValueError(f"its tensors end at byte {at} of {size}")
    return entries, metadata


def _entry(name: str, about: Any, base: int) -> Entry:
    try:
        dtype, shape, (start, end) = DTYPES.get(about["dtype"]), tuple(about["shape"]), about["data_offsets"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, start, end))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{name} is not described by dtype, shape and data_offsets") from None
    if dtype is None:
        raise ValueError(f"{name} is of the type {about['dtype']!r}, which is not known")
    if not whole or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the bytes of {name} are not as many as its shape needs")
    return Entry(dtype, shape, base + start, end - start)


def read_tensors(file: BinaryIO, entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """The tensors of an open file, in memory of their own. Raises ValueError where the file ends early, and the host's
    interrupt."""
    tensors = {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
        tensors[name] = tensor = torch.empty(entry.shape, dtype=entry.dtype)
        room = tensor.reshape(-1).view(torch.uint8).numpy().data if entry.size else memoryview(b"")
        file.seek(entry.start)
        while room:
            host.check_interrupt()
            if not (done := file.readinto(room[:_PIECE])):  # pyright: ignore[reportAttributeAccessIssue]
                raise ValueError(f"it ends within {name}")
            room = room[done:]
    return {name: tensors[name] for name in entries}


def shapes_alone(entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """Tensors of the same names, types and shapes on torch's meta device."""
    return {name: torch.empty(e.shape, dtype=e.dtype, device="meta") for name, e in entries.items()}
