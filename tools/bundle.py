"""Bundles: what the estimators said of a picture, kept on disk so that it is computed once.

A bundle is a saved Scene in a folder <root>/<key>/, with PNG previews beside it. The key is a hash of the decoded
pixels, of every estimator's identity and settings, and of the version, so a bundle never goes stale: another input has
another key. It is written under another name and renamed when complete, so a folder under a key is whole unless the
disk damaged it; that is noticed by the hash, and the bundle is made anew.
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
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import FathomError, SettingError, SignalError
from ..signals import Scene, Signal
from ..signals.codec import picture as encoded
from ..signals.field import check_shape
from ..signals.scene import FORMAT, MANIFEST, compact_picture, matches, parse_manifest

log = logging.getLogger(__name__)

LIMIT = 20 * 2**30  # bytes that all bundles of a folder may take together
_PIN = "pinned"
_PREVIEW = 512  # pixels of a preview's long side
_ABANDONED = 3600.0  # seconds after which an unfinished folder belongs to nobody


@dataclass(frozen=True)
class Entry:
    """A bundle in a list. size: bytes. used: seconds since 1970. parts: {slot: estimator}; empty when the manifest
    cannot be read."""

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

    picture: float (B,H,W,3). parts: for each slot that is wanted everything that decides its result, as JSON takes it:
    the estimator, the hash of its weights, its settings.
    """
    check_shape("the picture", picture, 4, 3)
    stored = compact_picture(picture)
    digest = hashlib.sha256()
    identity = {
        "format": FORMAT,
        "version": version,
        "parts": parts,
        "picture": [list(stored.shape), str(stored.dtype)],
    }
    digest.update(json.dumps(identity, sort_keys=True).encode())
    digest.update(stored.numpy().data)
    return digest.hexdigest()[:32]


# ---------------------------------------------------------------------------------------------- use


def obtain_bundle(
    root: Path,
    picture: Tensor,
    parts: Mapping[str, Mapping[str, Any]],
    estimate: Callable[[], Mapping[str, Signal]],
    *,
    version: str,
    pin: bool = False,
    limit: int = LIMIT,
) -> Scene:
    """The bundle of these inputs: loaded when it is there and sound, else made and kept. Its metadata has "key".

    estimate: gives the signal of every slot of `parts`; called only when the bundle has to be made. pin: keep it
    whatever `limit` says. limit: bytes for all bundles of `root`; those used longest ago go first. Other arguments as
    in `bundle_key`. Raises SettingError for no parts, FathomError when the disk takes no more (nothing stays behind
    then).
    """
    if not parts:
        raise SettingError("a bundle needs at least one estimator.")
    key = bundle_key(picture, parts, version)
    scene = _load_if_sound(root / key)
    if scene is None:
        signals = estimate()
        scene = _keep(root, key, picture, parts, {slot: signals[slot] for slot in parts}, version)
    # The result is in hand, whatever another process removes meanwhile or the folder forbids.
    if pin:
        with suppress(FathomError):
            pin_bundle(root, key)
    with suppress(FathomError):
        _trim(root, limit, key)
    return scene


def load_bundle(root: Path, key: str) -> Scene:
    """The bundle called `key` (or the only one whose key starts so). Raises SettingError when there is none,
    FathomError when it is damaged or was made by a Fathom of another layout."""
    folder = _folder(root, key)
    try:
        return _read(folder)
    except FathomError as damage:
        raise FathomError(
            f"bundle {folder.name} is damaged, or was made by another Fathom ({damage}). Remove it and make it again "
            "from its picture."
        ) from None


def list_bundles(root: Path) -> list[Entry]:
    """Every bundle in `root`, the one used last first. What cannot be looked at is left out."""
    found = []
    with suppress(OSError):
        for folder in root.iterdir() if root.is_dir() else ():
            if not _is_key(folder.name) or not folder.is_dir():
                continue
            with suppress(OSError):  # another process may remove it meanwhile
                size = sum(f.stat().st_size for f in folder.iterdir())
                manifest = folder / MANIFEST
                used = (manifest if manifest.is_file() else folder).stat().st_mtime
                found.append(Entry(folder.name, size, used, (folder / _PIN).exists(), _parts(manifest)))
    return sorted(found, key=lambda e: -e.used)


def _parts(manifest: Path) -> dict[str, str]:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        if manifest.stat().st_size < 2**24:
            parts = json.loads(manifest.read_text(encoding="utf-8"))["parts"]
            return {name: str(part.get("estimator", "")) for name, part in parts.items()}
    return {}


def verify_bundle(root: Path, key: str) -> str | None:
    """What is wrong with a bundle, None when it is sound; reads all of it. Raises SettingError when there is none."""
    folder = _folder(root, key)
    try:
        _read(folder)
        manifest = parse_manifest((folder / MANIFEST).read_bytes(), folder.name)
        for name in manifest["files"]:
            if Path(name).name != name or not matches(manifest, name, (folder / name).read_bytes()):
                return f"{name} is not as it was written"
    except (FathomError, OSError) as damage:
        return str(damage)
    return None


def remove_bundle(root: Path, key: str) -> None:
    """Remove a bundle, pinned or not. Raises SettingError when there is none, FathomError where that is forbidden."""
    _discard(_folder(root, key))


def pin_bundle(root: Path, key: str, pinned: bool = True) -> None:
    """Keep a bundle whatever the limit says, or stop doing so. Raises SettingError when there is none, FathomError
    where the folder may not be written to."""
    mark = _folder(root, key) / _PIN
    try:
        if pinned:
            mark.touch()
        else:
            mark.unlink(missing_ok=True)
    except OSError as error:
        raise FathomError(f"{mark} cannot be changed: {error.strerror}.") from error


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


def _load_if_sound(folder: Path) -> Scene | None:
    if not folder.is_dir():
        return None
    try:
        return _read(folder)
    except FathomError as damage:
        log.warning("bundle %s cannot be used (%s) and is made anew", folder.name, damage)
        return None


def _read(folder: Path) -> Scene:
    """Raises FathomError for anything that is not as it was written."""
    scene = Scene.load(folder)
    parts = scene.metadata.get("parts")
    if scene.metadata.get("key") != folder.name or scene.picture is None:
        raise SignalError("the manifest belongs to another bundle")
    if not isinstance(parts, dict) or set(parts) != set(scene.slots):
        raise SignalError("a part is missing")
    with suppress(OSError):  # a folder that may only be read has no order of use
        os.utime(folder / MANIFEST)
    return scene


# ---------------------------------------------------------------------------------------------- writing


def _keep(
    root: Path,
    key: str,
    picture: Tensor,
    parts: Mapping[str, Mapping[str, Any]],
    signals: Mapping[str, Signal],
    version: str,
) -> Scene:
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    manifest = {"key": key, "version": version, "created": created, "parts": parts, "shape": list(picture.shape)}
    scene = Scene(picture, signals, manifest)
    previews = {f"{slot}.png": _preview(signal[0].to_image()) for slot, signal in signals.items()}
    draft = root / f".{key}.{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        for name, data in scene.files({"picture.png": _preview(picture), **previews}).items():
            _store(draft / name, data)
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
    return scene


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
        with suppress(FathomError):
            _read(final)
            return
        _discard(final)
    raise FathomError(f"another program keeps writing damaged data to {final}.")


def _discard(folder: Path) -> None:
    # Renamed first: no reader ever meets a folder that is half gone.
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        os.rename(folder, aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FathomError(f"the bundle {folder} cannot be removed: {error.strerror}.") from error
    shutil.rmtree(aside, ignore_errors=True)


def _preview(image: Tensor) -> bytes:
    """The first picture as the bytes of a PNG, at most _PREVIEW pixels long."""
    first = image[:1].permute(0, 3, 1, 2).float().cpu()
    longest = max(first.shape[2:])
    if longest > _PREVIEW:
        size = [max(1, round(n * _PREVIEW / longest)) for n in first.shape[2:]]
        first = F.interpolate(first, size, mode="bilinear", antialias=True)
    return encoded(first[0].permute(1, 2, 0).clamp(0, 1), "png")


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
