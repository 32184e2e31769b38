"""Depth in files: 16-bit PNG, 32-bit EXR, npz, safetensors.

.png: 16-bit grey, one picture. 1..65535 from low to high, near = white, 0 = not valid; the description as text in the
    file and beside it as .json. Back come the same 16-bit numbers: values within half a step, (high - low) / 131068.
.exr: float32, channel Z, one picture. NaN = not valid; the description in the header. Back come the same bits.
.npz, .safetensors: the whole batch, `valid` and `focal` as arrays. Back come the same bits, also where not valid.

The description is JSON: kind, focal, source, look, and how the numbers are stored.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FathomError, SettingError, SignalError
from . import exr
from .depth import Depth, DepthLook, depth_from_metres
from .field import check_scope, percentiles

FORMATS = {"png16": ".png", "exr": ".exr", "npz": ".npz", "safetensors": ".safetensors"}

_KEY = "fathom"
_STEPS = 65534  # code 0 says not valid
_PNG_END = b"IEND\xaeB`\x82"
_log = logging.getLogger(__name__)


def save_depth(
    depth: Depth,
    path: str | Path,
    *,
    metres: bool = False,
    ends: tuple[float, float] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write `depth` to `path`, whose suffix names the format. A file appears whole or not at all.

    metres: EXR only: Z holds metres instead of `values`, as renderers and compositors expect; the depth must be
    metric. Metres come back exactly, 1/metre to the last bit but one. ends: PNG only: the values that become black
    and white, which must enclose those of the picture; None = its own least and greatest. texts: more texts to
    embed, such as ComfyUI's prompt and workflow.

    Raises SignalError when PNG or EXR is given a batch or the metres are unknown, SettingError for another suffix,
    FathomError when the file cannot be written.
    """
    write_whole(encode_depth(depth, path, metres=metres, ends=ends, texts=texts))


def encode_depth(
    depth: Depth,
    path: str | Path,
    *,
    metres: bool = False,
    ends: tuple[float, float] | None = None,
    texts: Mapping[str, str] | None = None,
) -> dict[Path, bytes]:
    """The files that `save_depth` would write, the .json of a PNG first. Arguments and errors as there."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS.values():
        raise SettingError(f"{path.name}: the suffix must be one of {', '.join(FORMATS.values())}.")
    if metres and suffix != ".exr":
        raise SettingError(f"metres can be written to .exr only, not to {suffix}.")
    if suffix in (".png", ".exr") and len(depth) != 1:
        raise SignalError(f"a {suffix} file holds one picture, got a batch of {len(depth)}: save each, or use .npz.")
    depth = depth.to("cpu")
    texts = dict(texts or {})
    if suffix == ".png":
        codes, low, high = _quantise(depth, ends)
        about = _describe(depth, low=low, high=high)
        described = json.dumps(about, indent=1).encode()
        return {path.with_suffix(".json"): described, path: _png(codes, {**texts, _KEY: json.dumps(about)})}
    if suffix == ".exr":
        plane = depth.metres() if metres else depth.values
        if depth.valid is not None:
            plane = plane.masked_fill(~depth.valid, torch.nan)
        about = _describe(depth, stored="metres" if metres else "values")
        return {path: exr.encode(plane[0], {**texts, _KEY: json.dumps(about)})}
    tensors = {"values": depth.values.contiguous()}
    if depth.valid is not None:
        tensors["valid"] = depth.valid.contiguous()
    if isinstance(depth.focal, Tensor):
        tensors["focal"] = depth.focal.contiguous()
    about = json.dumps(_describe(depth))
    return {path: (_npz if suffix == ".npz" else _safetensors)(tensors, {**texts, _KEY: about})}


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
    for place, part in enumerate(parts):
        name = numbered[1].replace("%batch_num%", str(place)) + f"{int(numbered[2]) + place:05}_{first.suffix}"
        written.append(first.with_name(name))
        save_depth(part, written[-1], metres=metres, ends=ends[place] if ends else None, texts=texts)
    return written


def load_depth(path: str | Path) -> Depth:
    """The Depth in a file that `save_depth` wrote.

    For a PNG the .json beside it is read, and without one the copy in the file. Raises SignalError when the file is
    truncated, of another kind, converted to 8 bits, or not described; FathomError when it cannot be opened.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npz", ".safetensors"):
        with reading(path):
            tensors, text = _read_npz(path) if suffix == ".npz" else _read_safetensors(path)
            about = _parse(text)
            return _described(about, tensors["values"], tensors.get("valid"), tensors.get("focal"))
    plane, bits, text = read_plane(path)
    aside = path.with_suffix(".json")
    if suffix == ".png" and aside.is_file():
        with reading(aside):
            text = aside.read_text(encoding="utf-8")
    if text is None:
        raise SignalError(
            f"{path.name} does not say what its numbers mean, so it was not written by Fathom. Say it: choose its "
            "meaning (inverse, metric or disparity), scale and unit."
        )
    with reading(path):
        about = _parse(text)
        if suffix == ".exr":
            known = ~plane.isnan()[None]
            valid = known if about["masked"] else None
            if about["stored"] == "metres":
                depth = depth_from_metres(plane[None], valid=valid)
                return _described(about, depth.values, valid)
            return _described(about, plane[None].masked_fill(~known, 0.0), valid)
        if bits != 16:
            raise SignalError(
                f"it was written with 16 bits and has {bits} now: a program has thrown the fine steps away. "
                "Use the original file."
            )
        return _from_codes(plane, about)


def decode_depth_png(data: bytes) -> Depth:
    """The Depth in the bytes of a 16-bit PNG that `encode_depth` made."""
    plane, text = _read_png(data)
    return _from_codes(plane, _parse(text))


def _from_codes(plane: Tensor, about: dict[str, Any]) -> Depth:
    low, high = float(about["low"]), float(about["high"])
    codes = plane.double()
    values = (low + (high - low) * (codes - 1) / _STEPS).float()
    known = codes > 0
    return _described(about, values.masked_fill(~known, 0.0)[None], known[None] if about["masked"] else None)


def read_plane(path: str | Path) -> tuple[Tensor, int, str | None]:
    """The bare numbers of a PNG or EXR file of one channel: float32 (H,W), bits per number, Fathom's description.

    PNG: the whole numbers as they are stored, 0..255 or 0..65535, from the first colour channel. A 16-bit file that
    holds nothing but multiples of 257 was made from 8 bits, and a warning says so. EXR: the channel Z.
    Raises SignalError for another or a truncated file, FathomError when it cannot be opened.
    """
    path = Path(path)
    with reading(path):
        data = path.read_bytes()
        if path.suffix.lower() == ".exr":
            plane, _, texts = exr.decode(data)
            return plane, 32, texts.get(_KEY)
        if data[:8] != b"\x89PNG\r\n\x1a\n":
            raise SignalError("it is not a PNG, EXR, npz or safetensors file.")
        # Decoders fill a missing end with black.
        if data.rfind(_PNG_END) < 0:
            raise SignalError("the PNG file is truncated.")
        plane, text = _read_png(data)
    bits = data[24]
    if bits == 16 and bool(plane.any()) and bool((plane % 257 == 0).all()):
        _log.warning(
            "%s is a 16-bit PNG that was made from 8 bits: it holds %d levels only, so distances come in coarse steps.",
            path.name,
            len(plane.unique()),
        )
    return plane, bits, text


def fingerprint(path: str | Path) -> str:
    """A hash of a depth file and of the .json beside a PNG: it changes when what would be loaded does."""
    path = Path(path)
    made = hashlib.sha256()
    with reading(path):
        for part in (path, path.with_suffix(".json")) if path.suffix.lower() == ".png" else (path,):
            if part.is_file():
                made.update(hashlib.sha256(part.read_bytes()).digest())
    return made.hexdigest()


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together: each to a temporary file beside it, then all are renamed, so none is ever half
    written and none is replaced unless there was room for all.

    Raises FathomError with the system's reason, for instance a full disk; the temporary files are gone then.
    """
    parts = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}.part") for path in contents}
    try:
        for path, part in parts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "xb") as file:
                file.write(contents[path])
                file.flush()
                os.fsync(file.fileno())
        for path, part in parts.items():
            os.replace(part, path)
    except BaseException as error:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            names = " and ".join(str(p) for p in contents)
            raise FathomError(
                f"{names} could not be written: {error.strerror or error}. Nothing was changed there; make room or "
                "choose another folder."
            ) from error
        raise


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong while reading `path` into one message that names it."""
    try:
        yield
    except SignalError as error:
        raise SignalError(f"{path.name}: {error}") from error
    except FileNotFoundError as error:
        raise FathomError(f"there is no file {path}.") from error
    except OSError as error:
        if error.errno is not None:
            raise FathomError(f"{path} cannot be read: {error.strerror}.") from error
        raise SignalError(f"{path.name} is truncated or damaged: {error}") from error
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, EOFError, SyntaxError) as error:
        raise SignalError(f"{path.name} is truncated, damaged or not a depth file: {error}") from error


# ---------------------------------------------------------------------------------------------- description


def _describe(depth: Depth, **stored: Any) -> dict[str, Any]:
    look, focal = depth.look, depth.focal
    if isinstance(focal, Tensor) and focal.numel() > 1:
        focal = None  # stored as an array
    return {
        "fathom": "depth",
        "version": 1,
        "kind": depth.kind,
        "unit": depth.unit,
        "source": depth.source,
        "focal": None if focal is None else float(focal),
        "look": {"space": look.space, "low": look.low, "high": look.high, "fixed": look.fixed},
        "masked": depth.valid is not None,
        **stored,
    }


def _parse(text: str | None) -> dict[str, Any]:
    about = json.loads(text) if text else None
    if not isinstance(about, dict) or about.get("fathom") != "depth":
        raise SignalError("it holds no description of a depth.")
    if about.get("version") != 1:
        raise SignalError(f"it was written by a newer Fathom (layout {about.get('version')}): update Fathom.")
    return about


def _described(about: dict[str, Any], values: Tensor, valid: Tensor | None, focal: Tensor | None = None) -> Depth:
    look = dict(about["look"])
    fixed = look.pop("fixed")
    shown = DepthLook(**look, fixed=None if fixed is None else (float(fixed[0]), float(fixed[1])))
    return Depth(values, about["kind"], valid, about["focal"] if focal is None else focal, about["source"], shown)


# ---------------------------------------------------------------------------------------------- formats


def _ends(depth: Depth) -> tuple[float, float]:
    seen = depth.values if depth.valid is None else depth.values[depth.valid]
    return (float(seen.amin()), float(seen.amax())) if seen.numel() else (0.0, 0.0)


def _quantise(depth: Depth, ends: tuple[float, float] | None) -> tuple[Tensor, float, float]:
    low, high = own = _ends(depth)
    if ends is not None:
        low, high = ends
        if own[0] < low or own[1] > high:
            raise SettingError(f"ends must enclose the values {own[0]:g}..{own[1]:g}, got {low:g}..{high:g}.")
    share = (depth.values[0].double() - low) / ((high - low) or 1.0)
    if depth.valid is not None:
        share = share.masked_fill(~depth.valid[0], 0.0)
    codes = share.mul_(_STEPS).round_().add_(1)
    if depth.valid is not None:
        codes.masked_fill_(~depth.valid[0], 0.0)
    return codes.int(), low, high


def _png(codes: Tensor, texts: Mapping[str, str]) -> bytes:
    import numpy as np
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    out = io.BytesIO()
    Image.fromarray(codes.numpy().astype(np.uint16)).save(out, "PNG", pnginfo=info, compress_level=4)
    return out.getvalue()


def _read_png(data: bytes) -> tuple[Tensor, str | None]:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.load()
        text = getattr(image, "text", {}).get(_KEY)
        if image.mode.startswith(("I", "L", "F")):
            array = np.asarray(image, dtype=np.float32)
            array = array[..., 0] if array.ndim == 3 else array
        elif data[24] == 16:
            # Pillow keeps the upper 8 bits of 16-bit colour.
            from av import Packet
            from av.codec import CodecContext

            coder = CodecContext.create("png", "r")
            frames = [*coder.decode(Packet(data)), *coder.decode(None)]  # pyright: ignore[reportAttributeAccessIssue]
            array = frames[0].to_ndarray(format="rgb48le")[..., 0].astype(np.float32)
        else:
            array = np.asarray(image.convert("RGB"), dtype=np.float32)[..., 0]
    return torch.from_numpy(np.ascontiguousarray(array)), text


def _npz(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    import numpy as np

    out = io.BytesIO()
    arrays: dict[str, Any] = {name: np.array(text) for name, text in texts.items()}
    arrays |= {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def _read_npz(path: Path) -> tuple[dict[str, Tensor], str | None]:
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        names = [n for n in ("values", "valid", "focal") if n in stored]
        tensors = {name: torch.from_numpy(stored[name]) for name in names}
        return tensors, str(stored[_KEY]) if _KEY in stored else None


def _safetensors(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    from safetensors.torch import save

    return save(dict(tensors), dict(texts))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as stored:
            names = set(stored.keys()) & {"values", "valid", "focal"}
            return {name: stored.get_tensor(name) for name in names}, (stored.metadata() or {}).get(_KEY)
    except SafetensorError as error:
        raise SignalError(f"the file is truncated or damaged: {error}") from error
