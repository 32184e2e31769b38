"""Bundles: what the estimators said of a picture, kept on disk so that it is computed once.

A bundle is a folder <root>/<key>/ with manifest.json, signals.safetensors and PNG previews. The key is a hash of the
decoded pixels, of every estimator's identity and settings, and of the version, so a bundle never goes stale: another
input has another key. It is written under another name and renamed when complete, so a folder under a key is whole
unless the disk damaged it; that is noticed by the hash, and the bundle is made anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FathomError, SettingError, SignalError
from ..signals import Depth, DepthLook, Normals, Palette, Segmentation, Signal
from ..signals.field import check_shape

log = logging.getLogger(__name__)

FORMAT = 1
LIMIT = 20 * 2**30  # bytes that all bundles of a folder may take together
PARTS = ("depth", "normals", "segmentation")
_MANIFEST, _SIGNALS, _PIN, _DIGESTS = "manifest.json", "signals.safetensors", "pinned", "digests.json"
_PREVIEW = 512  # pixels of a preview's long side
_ABANDONED = 3600.0  # seconds after which an unfinished folder belongs to nobody


@dataclass(frozen=True, eq=False)
class Bundle:
    """A picture and what is known about it.

    key: hexadecimal name. folder: where it lies. picture: float32 (B,H,W,3) in 0..1. depth, normals, segmentation:
    None where no estimator was asked. manifest: what manifest.json says.
    """

    key: str
    folder: Path
    picture: Tensor
    depth: Depth | None = None
    normals: Normals | None = None
    segmentation: Segmentation | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Bundle:
        """The same with its picture and signals on `device`; itself where they lie there."""
        held = {name: part for name in ("picture", *PARTS) if (part := getattr(self, name)) is not None}
        there = {name: part.to(device) for name, part in held.items()}
        return self if all(there[name] is held[name] for name in held) else replace(self, **there)


@dataclass(frozen=True)
class Entry:
    """A bundle in a list. size: bytes. used: seconds since 1970. parts: {"depth": estimator, ...}; empty when the
    manifest cannot be read."""

    key: str
    size: int
    used: float
    pinned: bool
    parts: Mapping[str, str]


class _Corrupt(Exception):
    """A bundle's folder does not hold what it should."""


# ---------------------------------------------------------------------------------------------- key


def bundle_key(picture: Tensor, parts: Mapping[str, Mapping[str, Any]], version: str) -> str:
    """The name of the bundle that these inputs make: 32 hexadecimal digits.

    picture: float (B,H,W,3). parts: for each of PARTS that is wanted everything that decides its result, as JSON
    takes it: the estimator, the hash of its weights, its settings.
    """
    check_shape("the picture", picture, 4, 3)
    stored = _compact(picture)
    digest = hashlib.sha256()
    told = {"format": FORMAT, "version": version, "parts": parts, "picture": [list(stored.shape), str(stored.dtype)]}
    digest.update(json.dumps(told, sort_keys=True).encode())
    digest.update(stored.numpy().data)
    return digest.hexdigest()[:32]


def _compact(picture: Tensor) -> Tensor:
    """The picture as uint8 when that loses nothing (any decoded 8-bit file), else float32; contiguous, on the CPU."""
    picture = picture.detach().cpu().float().contiguous()
    whole = picture.mul(255).round_().clamp_(0, 255).to(torch.uint8)
    return whole if torch.equal(whole.float().div_(255), picture) else picture


def file_digest(path: Path, root: Path) -> str:
    """The SHA-256 of a file, remembered in `root` by path, size and time of change: a second call opens no file."""
    path = path.resolve()
    state = path.stat()
    seen = [state.st_mtime_ns, state.st_size]
    notes = root / _DIGESTS
    known: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        known = json.loads(notes.read_text(encoding="utf-8"))
    noted = known.get(str(path))
    if noted and noted[:2] == seen:
        return noted[2]
    sha = hashlib.sha256()
    with open(path, "rb") as data:
        while chunk := data.read(1 << 20):
            sha.update(chunk)
    known[str(path)] = [*seen, sha.hexdigest()]
    root.mkdir(parents=True, exist_ok=True)
    fresh = root / f".{_DIGESTS}.{uuid.uuid4().hex}"
    try:
        fresh.write_text(json.dumps(known, indent=1), encoding="utf-8")
        os.replace(fresh, notes)
    except OSError:  # a note that is not written costs the next run a hash, no more
        fresh.unlink(missing_ok=True)
    return sha.hexdigest()


# ---------------------------------------------------------------------------------------------- use


def obtain_bundle(
    root: Path,
    picture: Tensor,
    parts: Mapping[str, Mapping[str, Any]],
    estimate: Callable[[str], Signal],
    *,
    version: str,
    pin: bool = False,
    limit: int = LIMIT,
) -> Bundle:
    """The bundle of these inputs: loaded when it is there and sound, else made and kept.

    estimate: called with "depth", "normals" or "segmentation" for each of `parts`, and only when the bundle has to
    be made. pin: keep it whatever `limit` says. limit: bytes for all bundles of `root`; those used longest ago go
    first. Other arguments as in `bundle_key`. Raises SettingError for no or unknown parts, FathomError when the disk
    takes no more (nothing stays behind then).
    """
    if not parts or not set(parts) <= set(PARTS):
        raise SettingError(f"a bundle needs at least one of {', '.join(PARTS)}, got {', '.join(parts) or 'none'}.")
    key = bundle_key(picture, parts, version)
    bundle = _load_if_sound(root / key)
    if bundle is None:
        signals = {name: estimate(name) for name in PARTS if name in parts}
        bundle = _keep(root, key, picture, parts, signals, version)
    if pin:
        with suppress(SettingError):  # another process may just have removed it; the result is in hand all the same
            pin_bundle(root, key)
    _trim(root, limit, key)
    return bundle


def load_bundle(root: Path, key: str) -> Bundle:
    """The bundle called `key` (or the only one whose key starts so). Raises SettingError when there is none,
    FathomError when it is damaged."""
    folder = _folder(root, key)
    try:
        return _read(folder)
    except _Corrupt as damage:
        raise FathomError(
            f"bundle {folder.name} is damaged ({damage}). Remove it and make it again from its picture."
        ) from None


def list_bundles(root: Path) -> list[Entry]:
    """Every bundle in `root`, the one used last first."""
    found = []
    for folder in root.iterdir() if root.is_dir() else ():
        if not _is_key(folder.name):
            continue
        with suppress(FileNotFoundError):  # another process may remove it meanwhile
            size = sum(f.stat().st_size for f in folder.iterdir())
            manifest = folder / _MANIFEST
            used = (manifest if manifest.is_file() else folder).stat().st_mtime
            parts: dict[str, str] = {}
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                told = json.loads(manifest.read_text(encoding="utf-8"))["parts"]
                parts = {name: str(part.get("estimator", "")) for name, part in told.items()}
            found.append(Entry(folder.name, size, used, (folder / _PIN).exists(), parts))
    return sorted(found, key=lambda e: -e.used)


def verify_bundle(root: Path, key: str) -> str | None:
    """What is wrong with a bundle, None when it is sound; reads all of it. Raises SettingError when there is none."""
    folder = _folder(root, key)
    try:
        _read(folder)
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        for name in manifest["files"]:
            _checked(folder, manifest, name)
    except _Corrupt as damage:
        return str(damage)
    return None


def remove_bundle(root: Path, key: str) -> None:
    """Remove a bundle, pinned or not. Raises SettingError when there is none."""
    _discard(_folder(root, key))


def pin_bundle(root: Path, key: str, pinned: bool = True) -> None:
    """Keep a bundle whatever the limit says, or stop doing so. Raises SettingError when there is none."""
    mark = _folder(root, key) / _PIN
    if pinned:
        mark.touch()
    else:
        mark.unlink(missing_ok=True)


def _is_key(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{32}", name) is not None


def _folder(root: Path, key: str) -> Path:
    if not re.fullmatch(r"[0-9a-f]{1,32}", key):
        raise SettingError(f"a bundle's key is hexadecimal, at most 32 digits, got {key!r}.")
    matches = [p for p in root.glob(f"{key}*") if _is_key(p.name)] if root.is_dir() else []
    if len(matches) != 1:
        count = f"are {len(matches)} bundles" if matches else "is no bundle"
        raise SettingError(f"there {count} {key!r} in {root}.")
    return matches[0]


# ---------------------------------------------------------------------------------------------- reading


def _load_if_sound(folder: Path) -> Bundle | None:
    if not folder.is_dir():
        return None
    try:
        return _read(folder)
    except _Corrupt as damage:
        log.warning("bundle %s is damaged (%s) and is made anew", folder.name, damage)
        return None


def _read(folder: Path) -> Bundle:
    """Raises _Corrupt for anything that is not as it was written."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or manifest["key"] != folder.name:
            raise _Corrupt("the manifest belongs to another bundle or format")
        tensors = load(_checked(folder, manifest, _SIGNALS))
        picture = tensors["picture"]
        picture = picture.float().div_(255) if picture.dtype == torch.uint8 else picture
        signals: dict[str, Any] = {
            name: _unpack(told, {k.split(".", 1)[1]: t for k, t in tensors.items() if k.startswith(f"{name}.")})
            for name, told in manifest["signals"].items()
        }
        bundle = Bundle(folder.name, folder, picture, manifest=manifest, **signals)
        if set(signals) != set(manifest["parts"]):
            raise _Corrupt("a part is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError, FathomError) as error:
        raise _Corrupt(str(error) or type(error).__name__) from error
    with suppress(OSError):  # a folder that may only be read has no order of use
        os.utime(folder / _MANIFEST)
    return bundle


def _checked(folder: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    try:
        data, wanted = (folder / name).read_bytes(), manifest["files"][name]
    except (OSError, KeyError) as error:
        raise _Corrupt(f"{name} is missing") from error
    if len(data) != wanted["size"] or hashlib.sha256(data).hexdigest() != wanted["sha256"]:
        raise _Corrupt(f"{name} is not as it was written")
    return data


def _pack(signal: Signal) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What to write of a signal: the words for the manifest, and the tensors."""
    told: dict[str, Any] = {"source": signal.source}
    if isinstance(signal, Depth):
        told |= {"kind": signal.kind, "look": asdict(signal.look)}
        tensors = {"values": signal.values}
        if signal.focal is not None:
            tensors["focal"] = torch.as_tensor(signal.focal, dtype=torch.float64)
        if signal.valid is not None:
            tensors["valid"] = signal.valid.clone()  # depth and normals may share it, safetensors may not
    elif isinstance(signal, Normals):
        told["trained"] = list(signal.trained)
        tensors = {"vectors": signal.vectors}
        if signal.valid is not None:
            tensors["valid"] = signal.valid.clone()
    elif not isinstance(signal, Segmentation):
        raise SignalError(f"a bundle holds {', '.join(PARTS)}, got {type(signal).__name__}.")
    else:
        told["palette"] = asdict(signal.palette)
        small = torch.int16 if len(signal.palette) < 2**15 else torch.int32
        tensors = {"labels": signal.labels.to(small)}
    return told, tensors


def _unpack(told: Mapping[str, Any], tensors: dict[str, Tensor]) -> Signal:
    if "values" in tensors:
        look = dict(told["look"])
        look["fixed"] = None if look["fixed"] is None else tuple(look["fixed"])
        focal = tensors.get("focal")
        focal = float(focal) if focal is not None and focal.ndim == 0 else focal
        return Depth(
            tensors["values"], told["kind"], tensors.get("valid"), focal, told["source"], DepthLook(**look)
        )
    if "vectors" in tensors:
        return Normals(tensors["vectors"], tensors.get("valid"), told["source"], tuple(told["trained"]))
    shown = told["palette"]
    palette = Palette(shown["name"], tuple(shown["names"]), tuple(tuple(c) for c in shown["colours"]))
    return Segmentation(tensors["labels"].long(), palette, told["source"])


# ---------------------------------------------------------------------------------------------- writing


def _keep(
    root: Path,
    key: str,
    picture: Tensor,
    parts: Mapping[str, Mapping[str, Any]],
    signals: Mapping[str, Signal],
    version: str,
) -> Bundle:
    from safetensors.torch import save

    packed = {name: _pack(signal) for name, signal in signals.items()}
    tensors = {f"{name}.{k}": t.cpu().contiguous() for name, (_, part) in packed.items() for k, t in part.items()}
    tensors["picture"] = _compact(picture)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "key": key,
        "version": version,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "picture": {"shape": list(picture.shape)},
        "parts": parts,
        "signals": {name: told for name, (told, _) in packed.items()},
        "files": {},
    }
    draft = root / f".{key}.{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        _write(draft, manifest, _SIGNALS, save(tensors))
        _write(draft, manifest, "picture.png", _preview(picture))
        for name, signal in signals.items():
            _write(draft, manifest, f"{name}.png", _preview(signal.to_image()))
        _store(draft / _MANIFEST, json.dumps(manifest, indent=1).encode())
        _publish(draft, root / key)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "the disk is full" if full else error.strerror or str(error)
        raise FathomError(
            f"the bundle could not be written to {root}: {what}. Nothing of it was left behind. "
            "Free some space, or remove old bundles."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Bundle(key, root / key, picture, manifest=manifest, **signals)  # pyright: ignore[reportArgumentType]


def _write(folder: Path, manifest: dict[str, Any], name: str, data: bytes) -> None:
    _store(folder / name, data)
    manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _store(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _publish(draft: Path, final: Path) -> None:
    """Give a finished folder its name. Another writer may be as far: the same key holds the same content."""
    for _ in range(8):
        try:
            os.rename(draft, final)
            return
        except OSError as error:
            # The folder in the way may be gone again by now: yet another writer made room.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not final.is_dir():
                raise
        with suppress(_Corrupt):
            _read(final)
            return
        _discard(final)
    raise FathomError(f"another program keeps writing damaged data to {final}.")


def _discard(folder: Path) -> None:
    # Renamed first: no reader ever meets a folder that is half gone.
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _preview(image: Tensor) -> bytes:
    """The first picture as the bytes of a PNG, at most _PREVIEW pixels long."""
    import io

    from PIL import Image

    first = image[:1].permute(0, 3, 1, 2).float().cpu()
    longest = max(first.shape[2:])
    if longest > _PREVIEW:
        size = [max(1, round(n * _PREVIEW / longest)) for n in first.shape[2:]]
        first = F.interpolate(first, size, mode="bilinear", antialias=True)
    pixels = first[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().to(torch.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(data, "PNG")
    return data.getvalue()


def _trim(root: Path, limit: int, spare: str) -> None:
    """Remove the bundles used longest ago until all take `limit` bytes, never a pinned one nor `spare`."""
    entries = list_bundles(root)
    total = sum(e.size for e in entries)
    for entry in reversed(entries):
        if total <= limit:
            break
        if entry.pinned or entry.key == spare:
            continue
        _discard(root / entry.key)
        total -= entry.size
    for left in root.glob(".*"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - _ABANDONED:
                shutil.rmtree(left) if left.is_dir() else left.unlink()

