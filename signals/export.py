"""Any signal in a file that other programs open."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import SettingError
from . import Depth, Normals, Segmentation, Signal
from .files import FORMATS, encode_depth, write_whole
from .opencv import opencv

SUFFIXES = {"png": ".png", **FORMATS, "webp": ".webp"}
KINDS = {
    "depth": ("png", "png16", "exr", "npz", "safetensors", "webp"),
    "normals": ("png", "png16", "npz", "safetensors", "webp"),
    "segmentation": ("png", "npz", "safetensors", "webp"),
}


def save_image(image: Tensor, path: str | Path, bits: int = 8) -> None:
    """Write one picture (H,W,3) in 0..1 as PNG with 8 or 16 bits a channel. Whole or not at all.

    Raises FathomError when the file cannot be written.
    """
    write_whole({Path(path): _png(image, bits)})


def save_signal(signal: Signal, path: str | Path, format: str) -> None:
    """Write a signal of one picture; formats and SettingError as in `encode_signal`. Whole or not at all.

    Raises FathomError when the file cannot be written.
    """
    write_whole(encode_signal(signal, path, format))


def check_format(kind: str, format: str) -> None:
    """Raises SettingError when a signal of this kind, such as "normals", cannot be written as `format`."""
    if format not in KINDS[kind]:
        raise SettingError(f"{kind} can be written as {', '.join(KINDS[kind])}, not as {format}.")


def encode_signal(signal: Signal, path: str | Path, format: str) -> dict[Path, bytes]:
    """The files of a signal of one picture, by path.

    format: "png" = the ControlNet picture in 8 bits, "webp" = the same, lossless, a third smaller. "png16" = depth in
    16 bits with a JSON sidecar, normals in 16 bits. "exr" = depth in float32. "npz", "safetensors" = the numbers of
    any signal: depth as in `files`, `vectors` of normals, `labels` and class names of a segmentation.

    Raises SettingError for a format that the signal does not have.
    """
    check_format(type(signal).__name__.lower(), format)
    path = Path(path)
    if format == "png":
        return {path: _png(signal.to_image()[0], 8)}
    if format == "webp":
        return {path: _webp(signal.to_image()[0])}
    if isinstance(signal, Depth):
        return encode_depth(signal, path)
    if format == "png16":
        return {path: _png(signal.to_image()[0], 16)}
    return {path: _npz(signal) if format == "npz" else _safetensors(signal)}


def _levels(image: Tensor, bits: int) -> Any:
    import numpy as np

    most = 2**bits - 1
    levels = (image * most).round_().clamp_(0, most)
    return levels.to(torch.uint8).cpu().numpy() if bits == 8 else levels.cpu().numpy().astype(np.uint16)


def _png(image: Tensor, bits: int) -> bytes:
    _, data = opencv("Writing PNG").imencode(".png", _levels(image, bits)[..., ::-1])
    return data.tobytes()


def _webp(image: Tensor) -> bytes:
    from PIL import Image

    if max(image.shape[:2]) > 16383:
        raise SettingError(f"webp holds at most 16383 pixels a side, got {image.shape[1]}x{image.shape[0]}: use png.")
    out = io.BytesIO()
    Image.fromarray(_levels(image, 8)).save(out, "WEBP", lossless=True, quality=0)
    return out.getvalue()


def _npz(signal: Normals | Segmentation) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    if isinstance(signal, Normals):
        np.savez_compressed(buffer, vectors=signal.vectors.cpu().numpy(), source=signal.source)
    else:
        labels = signal.labels.cpu().numpy().astype(np.int16)
        np.savez_compressed(buffer, labels=labels, names=np.array(signal.names), source=signal.source)
    return buffer.getvalue()


def _safetensors(signal: Normals | Segmentation) -> bytes:
    from safetensors.torch import save

    # One text: the order of several would change from run to run.
    about: dict[str, Any] = {"fathom": type(signal).__name__.lower(), "source": signal.source}
    if isinstance(signal, Normals):
        return save({"vectors": signal.vectors.cpu().contiguous()}, {"fathom": json.dumps(about)})
    about["names"] = signal.names
    return save({"labels": signal.labels.cpu().to(torch.int16)}, {"fathom": json.dumps(about)})
