"""Any signal in a file that other programs open."""

from __future__ import annotations

import io
from pathlib import Path

from torch import Tensor

from ..errors import SettingError
from . import Depth, Normals, Segmentation, Signal
from .files import FORMATS, save_depth, write_whole

SUFFIXES = {"png": ".png", **FORMATS}


def save_image(image: Tensor, path: str | Path, bits: int = 8) -> None:
    """Write one picture (H,W,3) in 0..1 as PNG with 8 or 16 bits a channel. Whole or not at all.

    Raises FathomError when the file cannot be written.
    """
    import cv2
    import numpy as np

    most = 2**bits - 1
    levels = (image * most).round().clamp(0, most).cpu().numpy().astype(np.uint8 if bits == 8 else np.uint16)
    _, data = cv2.imencode(".png", levels[..., ::-1])
    write_whole({Path(path): data.tobytes()})


def save_signal(signal: Signal, path: str | Path, format: str) -> None:
    """Write a signal of one picture.

    format: "png" = the ControlNet picture in 8 bits. "png16" = depth in 16 bits with a JSON sidecar, normals in 16
    bits. "exr" = depth in float32. "npz" = the numbers of any signal: depth as in `files`, `vectors` of normals,
    `labels` and class names of a segmentation. Whole or not at all.

    Raises SettingError for a format that the signal does not have, FathomError when the file cannot be written.
    """
    if format == "png":
        save_image(signal.to_image()[0], path)
    elif isinstance(signal, Depth) and format in FORMATS:
        save_depth(signal, path)
    elif isinstance(signal, Normals) and format == "png16":
        save_image(signal.to_image()[0], path, 16)
    elif format == "npz" and isinstance(signal, (Normals, Segmentation)):
        write_whole({Path(path): _npz(signal)})
    else:
        has = "png, png16, exr, npz" if isinstance(signal, Depth) else "png, png16, npz"
        has = "png, npz" if isinstance(signal, Segmentation) else has
        raise SettingError(f"{type(signal).__name__.lower()} can be written as {has}, not as {format}.")


def _npz(signal: Normals | Segmentation) -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    if isinstance(signal, Normals):
        np.savez_compressed(buffer, vectors=signal.vectors.cpu().numpy(), source=signal.source)
    else:
        labels = signal.labels.cpu().numpy().astype(np.int16)
        np.savez_compressed(buffer, labels=labels, names=np.array(signal.names), source=signal.source)
    return buffer.getvalue()
