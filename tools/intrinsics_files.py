"""A camera's intrinsics from the files that scanner apps, data sets and calibration programs write."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import PictureError, SettingError
from ..signals import Depth

SUFFIXES = (".json", ".txt", ".csv", ".npz", ".npy")
_LARGEST = 16 << 20  # bytes
_ACROSS = ("fx", "fl_x", "focal_x", "f_x")
_DOWN = ("fy", "fl_y", "focal_y", "f_y")
_X = ("cx", "ppx", "c_x", "principal_x")
_Y = ("cy", "ppy", "c_y", "principal_y")
_MATRICES = (
    "K", "k", "intrinsics", "intrinsic", "intrinsic_matrix", "camera_matrix", "cameraMatrix", "intrinsicMatrix",
    "cam_K", "camera_intrinsics", "intrinsics_matrix", "depth_intrinsics", "mtx", "data",
)  # fmt: skip
_WIDTHS, _HEIGHTS = ("width", "w", "image_width", "imageWidth"), ("height", "h", "image_height", "imageHeight")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_HELP = (
    "Give JSON with fx, fy, cx, cy or a 3x3 matrix K (also of ARKit, Open3D, RealSense, Record3D, NeRF), a text file "
    "with a 3x3 or 4x4 matrix or with fx fy cx cy, Middlebury's calib.txt, or npz or npy with K."
)


@dataclass(frozen=True)
class Pinhole:
    """Focal lengths and principal point in pixels; width, height: of the picture that they are of, None = not told."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: float | None = None
    height: float | None = None


def load_pinhole(path: Path) -> Pinhole:
    """The camera in a file: .json, .npz, .npy, or text (.txt, .csv).

    Matrices are taken by rows, or by columns where their zeros say so (ARKit, Record3D, Open3D). Raises PictureError
    for a file that holds no camera, two that differ, or numbers that no camera has.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise PictureError(f"{path.name} is larger than any file of intrinsics.")
        suffix = path.suffix.lower()
        found = list(_arrays(path) if suffix in (".npz", ".npy") else _texts(path, suffix))
    except (OSError, ValueError, RecursionError, EOFError) as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"{path.name} cannot be read as intrinsics ({error}). {_HELP}") from error
    cameras = list(dict.fromkeys(found))
    if not cameras:
        raise PictureError(f"{path.name} holds no camera that is understood. {_HELP}")
    if len(cameras) > 1:
        listed = "; ".join(f"fx {c.fx:g}, cx {c.cx:g}" for c in cameras[:3])
        raise PictureError(
            f"{path.name} holds {len(cameras)} cameras that differ ({listed}): give a file of one camera."
        )
    camera = cameras[0]
    numbers = (camera.fx, camera.fy, camera.cx, camera.cy)
    if not all(math.isfinite(n) for n in numbers) or camera.fx <= 0 or camera.fy <= 0:
        raise PictureError(f"{path.name} holds no camera: fx, fy, cx, cy are {', '.join(f'{n:g}' for n in numbers)}.")
    return camera


def with_camera(depth: Depth, path: Path, width: int = 0) -> Depth:
    """`depth` with the camera in a file, scaled to its size.

    width: pixels of the picture that the file's numbers are of; 0 = as the file says, else the depth's own. Raises
    SettingError when the numbers are plainly of another size, and errors as in `load_pinhole`.
    """
    camera = load_pinhole(path)
    height, own = depth.values.shape[1:]
    across = width or camera.width or own
    share = own / across
    down = height / camera.height if camera.height and not width else share
    if abs(down / share - 1) > 0.02:
        raise SettingError(
            f"{path.name} is of a picture of {camera.width:g}x{camera.height:g} and the depth is {own}x{height}: their "
            "shapes differ, so one was cut out of the other. Give the intrinsics of the depth itself."
        )
    x, y = (camera.cx + 0.5) * share - 0.5, (camera.cy + 0.5) * down - 0.5
    if not (0.2 * own < x < 0.8 * own and 0.2 * height < y < 0.8 * height):
        raise SettingError(
            f"the optical axis would meet the depth of {own}x{height} at ({x:.0f}, {y:.0f}): {path.name} looks to be "
            f"of a picture about {2 * camera.cx:.0f} wide. Give that picture's width, or the intrinsics of the depth."
        )
    focal = depth.values.new_tensor([[camera.fx * share, camera.fy * down]]).expand(len(depth), 2)
    return replace(depth, focal=focal, principal=depth.values.new_tensor([[x, y]]).expand(len(depth), 2))


# ---------------------------------------------------------------------------------------------- reading


def _arrays(path: Path) -> Iterator[Pinhole]:
    import numpy as np

    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        yield from _matrix(loaded.reshape(-1).tolist() if loaded.ndim == 2 else [])
        return
    with loaded:
        arrays = {name: loaded[name].tolist() for name in loaded.files if loaded[name].size <= 16}
    yield from _mapping(arrays)


def _texts(path: Path, suffix: str) -> Iterator[Pinhole]:
    text = path.read_text(encoding="utf-8-sig")
    if suffix == ".json" or text.lstrip().startswith("{"):
        yield from _json(json.loads(text))
        return
    named = dict(re.findall(rf"^\s*(\w+)\s*[:=]\s*\[?((?:{_NUMBER}[\s,;]*)+)\]?\s*$", text, re.MULTILINE))
    listed = {name: [float(n) for n in re.findall(_NUMBER, numbers)] for name, numbers in named.items()}
    flat = {name: numbers[0] if len(numbers) == 1 else numbers for name, numbers in listed.items()}
    if flat:
        # Middlebury names two cameras, of which the left one is the depth's; ScanNet those of colour and of depth.
        size = {k: flat[k] for k in ("width", "height") if k in flat}
        for name in ("cam0", "m_calibrationDepthIntrinsic"):
            if isinstance(flat.get(name), list):
                yield from _mapping({"K": flat[name], **size})
                return
        depth = {name[: -len("_depth")]: value for name, value in flat.items() if name.endswith("_depth")}
        yield from _mapping({**size, **depth} if "fx" in depth else flat)
        return
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    numbers = [float(n) for n in re.findall(_NUMBER, " ".join(lines))]
    if len(numbers) == 4:
        yield Pinhole(*numbers)
    else:
        yield from _matrix(numbers)


def _json(content: Any, depth: int = 0) -> Iterator[Pinhole]:
    if isinstance(content, Mapping):
        found = list(_mapping(content))
        if not found and depth < 4:
            within = {k: v for k, v in content.items() if isinstance(v, Mapping)}
            # Where colour and depth have a camera each, the depth's is meant.
            chosen = {k: v for k, v in within.items() if "depth" in str(k).lower()} or within
            found = [camera for value in chosen.values() for camera in _json(value, depth + 1)]
        yield from found
    elif isinstance(content, list):
        yield from _matrix(_flat(content))


def _mapping(content: Mapping[str, Any]) -> Iterator[Pinhole]:
    """The camera in named numbers or a named matrix."""
    width, height = _first(content, _WIDTHS), _first(content, _HEIGHTS)
    fx, cx, cy = _first(content, _ACROSS), _first(content, _X), _first(content, _Y)
    if fx is not None and cx is not None and cy is not None:
        fy = _first(content, _DOWN)
        yield Pinhole(fx, fx if fy is None else fy, cx, cy, width, height)
        return
    for name in _MATRICES:
        value = content.get(name)
        if isinstance(value, Mapping):
            value = value.get("data", value.get("matrix"))
        if isinstance(value, list):
            for camera in _matrix(_flat(value)):
                yield replace(camera, width=width, height=height)


def _first(content: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        value = content.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def _flat(values: list[Any]) -> list[float]:
    flat = [n for row in values for n in (row if isinstance(row, list) else [row])]
    return [float(n) for n in flat] if all(isinstance(n, (int, float)) for n in flat) else []


def _matrix(numbers: list[float]) -> Iterator[Pinhole]:
    """The camera in a matrix of 9, 12 or 16 numbers, by rows or by columns."""
    size = {9: 3, 12: 4, 16: 4}.get(len(numbers))
    if size is None:
        return
    rows = [numbers[at : at + size] for at in range(0, len(numbers), size)]
    across, along = (rows[0][2], rows[1][2]), (rows[2][0], rows[2][1])
    if across == (0, 0) and along != (0, 0):
        across, along = along, across
    if along != (0, 0) or rows[2][2] != 1:
        return
    yield Pinhole(rows[0][0], rows[1][1], across[0], across[1])
