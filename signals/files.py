"""Signals on disk: saved, loaded, numbered.

.png: 16 bits, one picture; depth has its description beside it as .json as well. .exr: 32-bit float, one picture.
.npz, .safetensors: the whole batch. How each kind fills them: `encode` of the kind. What comes back: the same bits, but
for 16-bit PNG of depth and normals, which comes back within half a step.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .. import interrupt
from ..errors import SettingError, SignalError
from . import codec
from .base import Signal, kinds
from .codec import reading
from .depth import Depth
from .field import check_scope, percentiles

S = TypeVar("S", bound=Signal)


# What depth itself, not a rendering of it, is kept as.
FORMATS = {"png16": ".png", "exr": ".exr", "npz": ".npz", "safetensors": ".safetensors"}


def load_signal(path: str | Path) -> Signal:
    """The signal of any kind in a file that `Signal.save` or `fathom annotate` wrote.

    Raises SignalError when the file is truncated, of another kind, converted to 8 bits, or does not say what it holds;
    FathomError when it cannot be opened.
    """
    path = Path(path)
    content = codec.read_content(path)
    with reading(path):
        kind = content.metadata[codec.KEY]
        if kind not in kinds():
            raise SignalError(f"it holds {kind!r}, and this Fathom knows {', '.join(kinds())}: update Fathom.")
        return kinds()[kind].from_file(content)


def summary(signal: Signal) -> dict[str, Any]:
    """What a signal is, as JSON takes it: its kind, how many pictures, the shape of every tensor, and its
    words."""
    words, tensors = signal.pack()
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    return {"signal": signal.KIND, "pictures": len(signal), "tensors": shapes, **words}


def decode_png(data: bytes) -> Signal:
    """The signal in the bytes of a 16-bit PNG that `Signal.encode` made. Raises SignalError for another."""
    plane, text = codec.read_png(data)
    metadata = codec.parse(text)
    return kinds()[metadata[codec.KEY]].from_file(codec.Content("png16", metadata, {"plane": plane}))


def load_as(kind: type[S], path: str | Path) -> S:
    """As `load_signal`, for one kind of signal. Raises SignalError for a file of another."""
    signal = load_signal(path)
    if not isinstance(signal, kind):
        raise SignalError(f"{Path(path).name} holds {signal.KIND}, and {kind.KIND} is wanted.")
    return signal


def load_depth(path: str | Path) -> Depth:
    """The Depth in a file that Fathom wrote. Errors as in `load_signal`."""
    return load_as(Depth, path)


def save_depth(
    depth: Depth,
    path: str | Path,
    *,
    metres: bool = False,
    ends: tuple[float, float] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write `depth` to `path`, whose suffix names the format, .png the one of 16 bits. Whole or not at all.

    Arguments and errors as in `Depth.encode`; FathomError when the file cannot be written.
    """
    codec.write_whole(depth.encode(path, texts=texts, metres=metres, ends=ends))


def save_series(
    depth: Depth,
    first: str | Path,
    *,
    metres: bool = False,
    scope: str = "image",
    texts: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a batch the way ComfyUI numbers its pictures: `first` is <name>_<number>_.<suffix>, then the numbers rise.

    PNG and EXR get one file per picture, npz and safetensors one for the whole batch; returns the files.
    "%batch_num%" in the name becomes the picture's place in the batch. scope: PNG only: which pictures
    decide what is black and white, as in `Depth.unit_range`. The rest and the errors as in `save_depth`.
    """
    first = Path(first)
    numbered = re.fullmatch(r"(.*_)(\d+)(_)", first.stem)
    if not numbered:
        raise SettingError(f"a series needs a name like depth_00001_.png to count from, got {first.name}.")
    check_scope(scope)
    each = first.suffix.lower() in (".png", ".exr")
    parts = [depth[i] for i in range(len(depth))] if each else [depth]
    ends = None
    if first.suffix.lower() == ".png" and scope != "image":
        low, high = percentiles(depth.values, (0.0, 100.0), depth.valid, scope)
        ends = list(zip(low.flatten().tolist(), high.flatten().tolist(), strict=True))
    written = []
    for index, part in enumerate(parts):
        interrupt.check()
        name = numbered[1].replace("%batch_num%", str(index)) + f"{int(numbered[2]) + index:05}_{first.suffix}"
        written.append(first.with_name(name))
        save_depth(part, written[-1], metres=metres, ends=ends[index] if ends else None, texts=texts)
    return written


def fingerprint(path: str | Path) -> str:
    """A hash of a signal's file and of the .json beside a PNG: it changes when what would be loaded does."""
    path = Path(path)
    digest = hashlib.sha256()
    with reading(path):
        for part in (path, path.with_suffix(".json")) if path.suffix.lower() == ".png" else (path,):
            if part.is_file():
                digest.update(hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()
