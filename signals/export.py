"""Any signal in a file that other programs open."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import SettingError
from . import Depth, Intrinsics, Normals, Segmentation, Signal, exr
from .files import FORMATS, encode_depth, write_whole
from .opencv import opencv

SUFFIXES = {"png": ".png", **FORMATS, "webp": ".webp"}
KINDS = {
    "depth": ("png", "png16", "exr", "npz", "safetensors", "webp"),
    "normals": ("png", "png16", "exr", "npz", "safetensors", "webp"),
    "segmentation": ("png", "npz", "safetensors", "webp"),
    "intrinsics": ("png", "png16", "exr", "npz", "safetensors", "webp"),
}


def save_image(image: Tensor, path: str | Path, bits: int = 8) -> None:
    """Write one picture (H,W,3) in 0..1 as PNG with 8 or 16 bits a channel. Whole or not at all.

    Raises FathomError when the file cannot be written.
    """
    write_whole({Path(path): _png(image, bits)})


def save_signal(signal: Signal, path: str | Path, format: str) -> list[Path]:
    """Write a signal of one picture; formats and SettingError as in `encode_signal`. Whole or not at all.

    Returns the files written. Raises FathomError when one cannot be.
    """
    files = encode_signal(signal, path, format)
    write_whole(files)
    return list(files)


def check_format(kind: str, format: str) -> None:
    """Raises SettingError when a signal of this kind, such as "normals", cannot be written as `format`."""
    if format not in KINDS[kind]:
        raise SettingError(f"{kind} can be written as {', '.join(KINDS[kind])}, not as {format}.")


def encode_signal(signal: Signal, path: str | Path, format: str) -> dict[Path, bytes]:
    """The files of a signal of one picture, by path.

    format: "png" = the ControlNet picture in 8 bits, "webp" = the same, lossless, a third smaller. "png16" = depth in
    16 bits with a JSON sidecar, normals in 16 bits. "exr" = depth in float32; of normals red, green, blue are x right,
    y up, z to the viewer in -1..1, 0 where there is none. "npz", "safetensors" = the numbers of any signal: depth as
    in `files`, `vectors` of normals, `labels` and class names of a segmentation, each layer of intrinsics by its name.

    Pictures of intrinsics, in linear light as "exr", are one file for each layer: <stem>_<layer>.<suffix>.

    Raises SettingError for a format that the signal does not have.
    """
    check_format(type(signal).__name__.lower(), format)
    path = Path(path)
    if isinstance(signal, Intrinsics) and format not in ("npz", "safetensors"):
        return {path.with_name(f"{path.stem}_{n}{path.suffix}"): _layer(signal, n, format) for n in signal.names}
    if format == "png":
        return {path: _png(signal.to_image()[0], 8)}
    if format == "webp":
        return {path: _webp(signal.to_image()[0])}
    if isinstance(signal, Depth):
        return encode_depth(signal, path)
    if format == "png16":
        return {path: _png(signal.to_image()[0], 16)}
    if format == "exr" and isinstance(signal, Normals):
        return {path: _exr(signal)}
    return {path: _npz(signal) if format == "npz" else _safetensors(signal)}


def _exr(signal: Normals) -> bytes:
    vectors = signal.vectors[0] if signal.valid is None else signal.vectors[0] * signal.valid[0, ..., None]
    return exr.encode(vectors.cpu(), {"fathom": json.dumps({"fathom": "normals", "source": signal.source})})


def _layer(signal: Intrinsics, name: str, format: str) -> bytes:
    if format != "exr":
        image = signal.to_image(name)[0]
        return _webp(image) if format == "webp" else _png(image, 16 if format == "png16" else 8)
    light = signal.to_image(name, "linear")[0].cpu()
    texts = {"fathom": json.dumps({"fathom": "intrinsics", "source": signal.source, **asdict(signal.layer(name))})}
    return exr.encode(light if signal.layer(name).channels == 3 else light[..., 0], texts)


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


def _npz(signal: Normals | Segmentation | Intrinsics) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    if isinstance(signal, Intrinsics):
        maps: dict[str, Any] = {name: signal.map(name).cpu().numpy() for name in signal.names}
        np.savez_compressed(buffer, **maps, layers=json.dumps([asdict(x) for x in signal.layers]), source=signal.source)
    elif isinstance(signal, Normals):
        np.savez_compressed(buffer, vectors=signal.vectors.cpu().numpy(), source=signal.source)
    else:
        labels = signal.labels.cpu().numpy().astype(np.int16)
        np.savez_compressed(buffer, labels=labels, names=np.array(signal.names), source=signal.source)
    return buffer.getvalue()


def _safetensors(signal: Normals | Segmentation | Intrinsics) -> bytes:
    from safetensors.torch import save

    # One text: the order of several would change from run to run.
    about: dict[str, Any] = {"fathom": type(signal).__name__.lower(), "source": signal.source}
    if isinstance(signal, Intrinsics):
        about["layers"] = [asdict(layer) for layer in signal.layers]
        maps = {name: signal.map(name).cpu().contiguous() for name in signal.names}
        return save(maps, {"fathom": json.dumps(about)})
    if isinstance(signal, Normals):
        return save({"vectors": signal.vectors.cpu().contiguous()}, {"fathom": json.dumps(about)})
    about["names"] = signal.names
    return save({"labels": signal.labels.cpu().to(torch.int16)}, {"fathom": json.dumps(about)})
