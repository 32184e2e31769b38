"""The containers that hold signals: npz, safetensors, 16-bit PNG, EXR, and pictures. Bytes in, bytes out.

What a kind keeps, `Signal.pack` says: words (JSON) and tensors. Every container carries the words as one text under the
key "fathom": npz as an array of that name, safetensors and EXR in their header, PNG as a text chunk.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from .. import interrupt
from ..errors import FathomError, SettingError, SignalError
from . import exr

_PIECE = 2**22  # bytes that are compressed between two chances to cancel

KEY = "fathom"
VERSION = 1
SUFFIXES = {
    "png": ".png",
    "png16": ".png",
    "exr": ".exr",
    "npz": ".npz",
    "safetensors": ".safetensors",
    "webp": ".webp",
    "json": ".json",
}
# torch's types by their names in safetensors: https://github.com/huggingface/safetensors, README.
DTYPES: Mapping[str, torch.dtype] = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "C64": torch.complex64},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "BOOL": torch.bool},
}
# What an npz may unpack to: deflate makes a thousand bytes of one.
MOST_BYTES = 2**33
_PNG_MAGIC, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Content:
    """A file of a signal, parsed. format: "png16", "exr", "npz", "safetensors" or "json". metadata: what
    `Signal.pack` said, with "fathom" = the kind. tensors: by name; of PNG and EXR the numbers as they are stored, under
    "plane": float32 (H,W) or (H,W,3)."""

    format: str
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- words


_FOREIGN = (
    "If it is the depth of another program (PNG, EXR, TIFF, PFM, PGM, npy or npz), say what its numbers are: Fathom "
    "Load Depth and `fathom tool convert` take a meaning (inverse, metric or disparity), scale and unit."
)


def described(kind: str, metadata: Mapping[str, Any], *, indent: int | None = None, **stored: Any) -> str:
    """The text that says what a file of a signal holds."""
    return json.dumps({KEY: kind, "version": VERSION, **metadata, **stored}, indent=indent)


def parse(text: str | bytes | None) -> dict[str, Any]:
    """What `described` said. Raises SignalError for a text that is none, or that a newer Fathom wrote."""
    metadata = parse_json(text) if text else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(KEY), str):
        raise SignalError(f"it does not say what it holds, so it was not written by Fathom. {_FOREIGN}")
    if metadata.get("version", VERSION) != VERSION:
        raise SignalError(f"it was written by a newer Fathom (layout {metadata['version']}): update Fathom.")
    return metadata


def parse_json(text: str | bytes) -> Any:
    """JSON, of which a hostile file may hold any. Raises SignalError for what is none, too deep or has numbers of
    hundreds of digits."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SignalError(f"its description is no readable JSON ({error}).") from None


# ---------------------------------------------------------------------------------------------- writing


def npz(tensors: Mapping[str, Tensor], texts: Mapping[str, str], metadata: Mapping[str, Any]) -> bytes:
    """An npz file. Texts and lists of the metadata are arrays of their own as well, for readers that know no JSON."""
    import numpy as np

    arrays: dict[str, Any] = {}
    for name, value in metadata.items():
        if isinstance(value, list) and any(not isinstance(part, str) for part in value):
            value = json.dumps(value)
        if isinstance(value, (str, list)) and name not in tensors:
            arrays[name] = np.array(value)
    arrays |= {name: np.array(text) for name, text in texts.items()}
    arrays |= {name: tensor.numpy() for name, tensor in tensors.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as stored:
        for name, array in arrays.items():
            with stored.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write_array(member, array)
    return out.getvalue()


def _write_array(member: IO[bytes], array: Any) -> None:
    """An array as numpy's .npy has it, in pieces: a long film takes seconds to compress, and may be cancelled."""
    import numpy as np

    array = np.ascontiguousarray(array).reshape(array.shape)
    np.lib.format.write_array_header_1_0(member, np.lib.format.header_data_from_array_1_0(array))
    content = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(content), _PIECE):
        interrupt.check()
        member.write(content[start : start + _PIECE])


def safetensors(tensors: Mapping[str, Tensor], texts: Mapping[str, str], metadata: Mapping[str, Any]) -> bytes:
    """A safetensors file."""
    from safetensors.torch import save

    # Its header's order of several texts changes from run to run, so the file of a signal alone has one.
    return save(dict(tensors), dict(texts))


def png16(codes: Tensor, texts: Mapping[str, str]) -> bytes:
    """A PNG of 16 bits. codes: whole numbers 0..65535, (H,W) grey or (H,W,3) colour."""
    import numpy as np

    levels = codes.cpu().numpy().astype(np.uint16)
    if levels.ndim == 3:
        from .opencv import opencv

        _, data = opencv("Writing 16-bit colour").imencode(".png", levels[..., ::-1])
        return with_texts(data.tobytes(), texts)
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(levels).save(out, "PNG", compress_level=4)
    return with_texts(out.getvalue(), texts)


def with_texts(png: bytes, texts: Mapping[str, str]) -> bytes:
    """The PNG with texts in its header: ASCII as tEXt, others as iTXt."""
    chunks = []
    for key, value in texts.items():
        name = key.encode("latin-1", "replace")[:79]
        if value.isascii():
            chunks.append(_chunk(b"tEXt", name + b"\0" + value.encode()))
        else:
            chunks.append(_chunk(b"iTXt", name + b"\0\0\0\0\0" + value.encode("utf-8")))
    start = len(_PNG_MAGIC) + 25  # behind the first chunk, IHDR
    return png[:start] + b"".join(chunks) + png[start:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def picture(image: Tensor, format: str) -> bytes:
    """A picture (H,W,3) in 0..1 as PNG or lossless WebP of 8 bits. Raises SettingError for one too long for WebP."""
    from PIL import Image

    levels = image.mul(255).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
    out = io.BytesIO()
    if format == "webp":
        if max(image.shape[:2]) > 16383:
            raise SettingError(
                f"webp holds at most 16383 pixels a side, got {image.shape[1]}x{image.shape[0]}: use png."
            )
        Image.fromarray(levels).save(out, "WEBP", lossless=True, quality=0)
    else:
        Image.fromarray(levels).save(out, "PNG", compress_level=4)
    return out.getvalue()


def save_image(image: Tensor, path: str | Path, bits: int = 8) -> None:
    """Write one picture (H,W,3) in 0..1 as PNG with 8 or 16 bits a channel. Whole or not at all.

    Raises FathomError when the file cannot be written.
    """
    codes = image.mul(65535).round_().clamp_(0, 65535)
    write_whole({Path(path): png16(codes, {}) if bits == 16 else picture(image, "png")})


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together: each to a temporary file beside it, then all are renamed, so none is ever half
    written and none is replaced unless there was room for all.

    Raises FathomError with the system's reason, for instance a full disk; the temporary files are gone then.
    """
    parts = {path: path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.part") for path in contents}
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


# ---------------------------------------------------------------------------------------------- reading


def read_content(path: Path) -> Content:
    """What a file of a signal holds. Of a PNG the .json beside it goes before the text inside.

    Raises SignalError for a file that is truncated, of another kind, or says nothing of itself; FathomError when it
    cannot be opened.
    """
    suffix = path.suffix.lower()
    with reading(path):
        if suffix == ".npz":
            tensors, text = read_npz(path)
            return Content("npz", parse(text), tensors)
        if suffix == ".safetensors":
            tensors, text = read_safetensors(path)
            return Content("safetensors", parse(text), tensors)
        if suffix == ".json":
            return Content("json", parse(path.read_text(encoding="utf-8")))
        if suffix == ".exr":
            data = path.read_bytes()
            if exr.is_colour(data):
                plane, texts = exr.decode_colour(data)
            else:
                plane, _, texts = exr.decode(data)
            return Content("exr", parse(texts.get(KEY)), {"plane": plane})
    plane, bits, text = read_plane(path)
    aside = path.with_suffix(".json")
    if aside.is_file():
        with reading(aside):
            text = aside.read_text(encoding="utf-8")
    with reading(path):
        metadata = parse(text)
        if bits != 16:
            raise SignalError(
                f"it was written with 16 bits and has {bits} now: a program has thrown the fine steps away. "
                "Use the original file."
            )
    return Content("png16", metadata, {"plane": plane})


def read_npz(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The number arrays of an npz, and Fathom's text. Sizes are checked before anything is unpacked; an array of
    objects, which could run code, is refused."""
    import numpy as np

    with zipfile.ZipFile(path) as stored:
        members = {info.filename.removesuffix(".npy"): info for info in stored.infolist()}
        if sum(info.file_size for info in members.values()) > MOST_BYTES:
            raise SignalError(f"it would unpack to more than {MOST_BYTES // 2**30} GiB.")
        tensors: dict[str, Tensor] = {}
        text = None
        for name, info in members.items():
            with stored.open(info) as member:
                version = np.lib.format.read_magic(member)
                header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
                shape, _, dtype = header(member)
                if dtype.hasobject:
                    raise SignalError(f"its array {name!r} holds objects, not numbers.")
                count = 1
                for length in shape:
                    count *= int(length)
                if member.tell() + count * dtype.itemsize != info.file_size:
                    raise SignalError(f"its array {name!r} is not as large as it says.")
            if dtype.kind in "fiub" or name == KEY:
                with stored.open(info) as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
                if name == KEY:
                    text = str(array)
                else:
                    tensors[name] = torch.from_numpy(np.ascontiguousarray(array.astype(dtype.newbyteorder("="))))
        return tensors, text


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors of a safetensors file, and Fathom's text."""
    from safetensors import safe_open

    with safe_open(path, "pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        return tensors, (stored.metadata() or {}).get(KEY)


def tensors_of(data: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file. The library's own `load` fails on empty ones before 0.5."""
    from safetensors import deserialize

    tensors = {}
    for name, stored in deserialize(data):
        dtype, bytes_of = DTYPES[stored["dtype"]], stored["data"]
        flat = torch.frombuffer(bytes_of, dtype=dtype) if len(bytes_of) else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(stored["shape"])
    return tensors


def read_plane(path: Path) -> tuple[Tensor, int, str | None]:
    """The bare numbers of a PNG: float32 (H,W), or (H,W,3) of a colour; bits per number; Fathom's text.

    Raises SignalError for another or a truncated file, FathomError when it cannot be opened.
    """
    with reading(path):
        data = path.read_bytes()
        if data[:8] != _PNG_MAGIC:
            raise SignalError(f"it is not a PNG, EXR, npz or safetensors file, as Fathom writes. {_FOREIGN}")
        # Decoders fill a missing end with black.
        if data.rfind(_PNG_END) < 0:
            raise SignalError("the PNG file is truncated.")
        plane, text = read_png(data)
        return plane, data[24], text


def read_png(data: bytes) -> tuple[Tensor, str | None]:
    """The whole numbers of a PNG as they are stored, float32 (H,W), or (H,W,3) of a colour without its transparency;
    and Fathom's text."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.load()
        text = getattr(image, "text", {}).get(KEY)
        if image.mode.startswith(("I", "L", "F")):
            array = np.asarray(image, dtype=np.float32)
            array = array[..., 0] if array.ndim == 3 else array
        elif data[24] == 16:
            # Pillow keeps the upper 8 bits of 16-bit colour.
            from av import Packet
            from av.codec import CodecContext

            coder = CodecContext.create("png", "r")
            frames = [*coder.decode(Packet(data)), *coder.decode(None)]  # pyright: ignore[reportAttributeAccessIssue]
            array = frames[0].to_ndarray(format="rgb48le").astype(np.float32)
        else:
            array = np.asarray(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(array)), text


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while reading `path` into one message that names it."""
    try:
        yield
    except SignalError as error:
        raise SignalError(f"{path.name}: {error}") from error
    except FathomError:
        raise
    except FileNotFoundError as error:
        raise FathomError(f"there is no file {path}.") from error
    except MemoryError as error:
        raise SignalError(f"{path.name} does not fit into memory.") from error
    except Exception as error:  # a damaged file shows as any error at all, from KeyError to NotImplementedError
        if isinstance(error, OSError) and error.errno is not None:
            raise FathomError(f"{path} cannot be read: {error.strerror}.") from error
        # Some tell the whole header.
        raise SignalError(f"{path.name} is truncated, damaged or of another kind: {str(error)[:500]}") from error
