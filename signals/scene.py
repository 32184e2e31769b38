"""Scene: what is known of a batch of pictures, each signal in a slot of its own name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SettingError, SignalError
from . import codec
from .base import Signal, kinds
from .field import check_shape

if TYPE_CHECKING:
    from .depth import Depth
    from .intrinsics import Intrinsics
    from .normals import Normals
    from .segmentation import Segmentation

FORMAT = 2
MANIFEST, SIGNALS = "manifest.json", "signals.safetensors"


class Scene:
    """A batch of pictures and what is known of them.

    picture: float32 (B,H,W,3) in 0..1, or None where only the signals are kept. slots: the signals by name, such as
    "depth", "normals", "faces"; `scene["depth"]` and `scene.depth` give one. metadata: words that travel along, as
    JSON takes them.

    A name is free; what it holds is a Signal of as many pictures. Raises SettingError for a name that is none,
    SignalError for a signal of another number of pictures, and for a slot that it lacks, saying which it has.
    """

    def __init__(
        self,
        picture: Tensor | None = None,
        slots: Mapping[str, Signal] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        if picture is not None:
            check_shape("the picture", picture, 4, 3)
        self.picture = picture
        self.slots: Mapping[str, Signal] = dict(slots or {})
        self.metadata: Mapping[str, Any] = dict(metadata or {})
        sizes = {name: len(signal) for name, signal in self.slots.items()}
        if picture is not None:
            sizes = {"picture": len(picture), **sizes}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in sizes.items())
            raise SignalError(f"a scene is one batch, but its parts have different numbers of pictures: {listed}.")
        for name in self.slots:
            if not name.replace("-", "_").isidentifier() or name in ("picture", "slots", "metadata"):
                raise SettingError(f"a slot needs a name of letters, digits, - and _, got {name!r}.")

    if TYPE_CHECKING:
        depth: Depth
        normals: Normals
        segmentation: Segmentation
        intrinsics: Intrinsics
    else:

        def __getattr__(self, name: str) -> Signal:
            if name.startswith("_") or "slots" not in self.__dict__:
                raise AttributeError(name)
            try:
                return self[name]
            except SignalError as error:
                raise AttributeError(str(error)) from None

    def __getitem__(self, slot: str) -> Signal:
        """The signal in a slot. Raises SignalError naming the slots there are."""
        if slot not in self.slots:
            raise SignalError(f"the scene has no {slot!r}: it has {', '.join(self.slots) or 'nothing'}.")
        return self.slots[slot]

    def __contains__(self, slot: str) -> bool:
        return slot in self.slots

    def __iter__(self) -> Iterator[str]:
        return iter(self.slots)

    def __len__(self) -> int:
        """How many pictures."""
        first = self.picture if self.picture is not None else next(iter(self.slots.values()), ())
        return len(first)

    def to(self, device: torch.device | str) -> Scene:
        """The same on `device`; itself where all of it lies there."""
        picture = None if self.picture is None else self.picture.to(device)
        slots = {name: signal.to(device) for name, signal in self.slots.items()}
        if picture is self.picture and all(slots[name] is self.slots[name] for name in slots):
            return self
        return Scene(picture, slots, self.metadata)

    # ------------------------------------------------------------------------------ files

    def files(self, beside: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """The files of the saved scene by name: signals.safetensors, and last manifest.json with the words of every
        signal, and the sizes and hashes of the files. beside: more files to keep with them, such as previews."""
        from safetensors.torch import save

        packed = {name: signal.pack() for name, signal in self.slots.items()}
        tensors = {f"{name}.{key}": tensor for name, (_, part) in packed.items() for key, tensor in part.items()}
        if self.picture is not None:
            tensors["picture"] = compact_picture(self.picture)
        # Signals may share a tensor, a file may not.
        every = {SIGNALS: save({key: tensor.clone() for key, tensor in tensors.items()}), **(beside or {})}
        manifest = {
            "format": FORMAT,
            **self.metadata,
            "pictures": len(self),
            "signals": {name: {codec.KEY: self.slots[name].KIND, **words} for name, (words, _) in packed.items()},
            "files": {name: {"size": len(data), "sha256": _sha256(data)} for name, data in every.items()},
        }
        return {**every, MANIFEST: json.dumps(manifest, indent=1).encode()}

    def save(self, folder: str | Path) -> None:
        """Write the scene into `folder`, made where it is missing. Exact there and back. Raises FathomError when the
        disk takes no more; an earlier scene in the folder is whole then."""
        codec.write_whole({Path(folder) / name: data for name, data in self.files().items()})

    @classmethod
    def load(cls, folder: str | Path) -> Scene:
        """The scene that `save`, or a bundle, wrote into `folder`. Raises FathomError when there is none, SignalError
        when it is damaged or was written by a Fathom of another layout."""
        root = Path(folder)

        def stored(name: str) -> bytes:
            with codec.reading(root / name):
                return (root / name).read_bytes()

        return cls.read(stored, str(root))

    @classmethod
    def read(cls, stored: Callable[[str], bytes], name: str) -> Scene:
        """As `load`, from whatever gives the bytes of a file by its name. name: what errors call it."""
        manifest = parse_manifest(stored(MANIFEST), name)
        data = stored(SIGNALS)
        if not matches(manifest, SIGNALS, data):
            raise SignalError(f"{name}: {SIGNALS} is not as it was written.")
        with codec.reading(Path(name) / MANIFEST):
            tensors = codec.tensors_of(data)
            slots = {
                slot: kinds()[words[codec.KEY]].unpack(words, _within(tensors, slot))
                for slot, words in manifest["signals"].items()
            }
            picture = tensors.get("picture")
            if picture is not None and picture.dtype == torch.uint8:
                picture = picture.float().div_(255)
            words = {k: v for k, v in manifest.items() if k not in ("format", "pictures", "signals", "files")}
            return cls(picture, slots, words)


def parse_manifest(data: bytes, name: str) -> dict[str, Any]:
    """The manifest of a saved scene. Raises SignalError for what is none, or of a Fathom of another layout."""
    with codec.reading(Path(name) / MANIFEST):
        manifest = codec.parse_json(data)
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(k), dict) for k in ("signals", "files")):
        raise SignalError(f"{name}: {MANIFEST} describes no scene.")
    if manifest.get("format") != FORMAT:
        raise SignalError(
            f"{name} was written by {'an older' if manifest.get('format') == 1 else 'another'} Fathom (layout "
            f"{manifest.get('format')}, this one reads {FORMAT}): make it again from its picture."
        )
    return manifest


def matches(manifest: Mapping[str, Any], name: str, data: bytes) -> bool:
    """Whether `data` is what the manifest tells of the file `name`."""
    digest = manifest["files"].get(name)
    return isinstance(digest, dict) and digest.get("size") == len(data) and digest.get("sha256") == _sha256(data)


def compact_picture(picture: Tensor) -> Tensor:
    """The picture as uint8 when that loses nothing (any decoded 8-bit file), else float32; contiguous, on the CPU."""
    picture = picture.detach().cpu().float().contiguous()
    whole = picture.mul(255).round_().clamp_(0, 255).to(torch.uint8)
    return whole if torch.equal(whole.float().div_(255), picture) else picture


def _within(tensors: Mapping[str, Tensor], slot: str) -> dict[str, Tensor]:
    start = f"{slot}."
    return {key[len(start) :]: tensor for key, tensor in tensors.items() if key.startswith(start)}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
