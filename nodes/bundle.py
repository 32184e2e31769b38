"""Nodes that keep what the estimators said of a picture, so that no later run needs a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..annotator import host, loading
from ..annotator.pictures import as_pixels
from ..models import estimator as by_id
from ..models import ids
from ..signals import Depth, Instances, Normals, Scene, Segmentation
from ..tools import bundle as store
from ..version import __version__
from .base import Node
from .fields import advanced, choice, resolution

CATEGORY = "Fathom/Bundle"
NONE = "none"
PARTS = ("depth", "normals", "segmentation", "faces", "objects")

BUNDLE: tuple[str, dict[str, Any]] = ("FATHOM_BUNDLE", {"tooltip": "A bundle from Fathom Bundle or Load Bundle."})
Parts = tuple[Scene, Any, "Depth | Any", "Normals | Any", "Segmentation | Any", "Instances | Any", "Instances | Any"]


def make_bundle(
    image: Any,
    slots: Mapping[str, str],
    resolution: int = 512,
    *,
    root: Path | None = None,
    pin: bool = False,
    limit: int = store.LIMIT,
) -> Scene:
    """The bundle of a picture: loaded when it was made before, else made with the networks and kept.

    slots: {"depth": id, "faces": id}: the estimator of each slot, at least one. root: None = the host's bundle folder.
    Other arguments and errors as in `tools.bundle.obtain_bundle` and `Annotator.__call__`.
    """
    root = root or host.bundle_folder()
    chosen = {slot: by_id(id) for slot, id in slots.items()}
    picture = as_pixels(image).permute(0, 2, 3, 1)
    notes = root / "digests.json"
    parts = {
        slot: {
            "estimator": e.id,
            "weights": loading.locate(e).digest(notes),
            "resolution": resolution,
            **e.settings({}),
        }
        for slot, e in chosen.items()
    }
    return store.obtain_bundle(
        root,
        picture,
        parts,
        lambda: loading.decompose(picture, chosen, resolution).slots,
        version=__version__,
        pin=pin,
        limit=limit,
    )


def _outputs(bundle: Scene) -> Parts:
    return bundle, bundle.picture, *(_part(bundle, name) for name in PARTS)  # pyright: ignore[reportReturnType]


def _part(bundle: Scene, name: str) -> Any:
    if name in bundle:
        return bundle[name]
    have = ", ".join(bundle.slots)
    key = bundle.metadata.get("key", "")
    return host.blocked(f"bundle {key} holds no {name}, only {have}. Choose an estimator for it.")


_RETURN_TYPES = (
    "FATHOM_BUNDLE",
    "IMAGE",
    "FATHOM_DEPTH",
    "FATHOM_NORMALS",
    "FATHOM_SEGMENTATION",
    "FATHOM_INSTANCES",
    "FATHOM_INSTANCES",
)
_RETURN_NAMES = ("bundle", "image", *PARTS)
_OUTPUT_TOOLTIPS = (
    "Everything together, for Inspect Bundle.",
    "The picture.",
    "The depth, when the bundle holds one.",
    "The normals, when the bundle holds them.",
    "The regions, when the bundle holds them.",
    "The faces, when the bundle holds them.",
    "The things, when the bundle holds them.",
)


class FathomBundle(Node):
    """Decompose a picture once."""

    DISPLAY_NAME = "Fathom Bundle"
    DESCRIPTION = (
        "Runs the chosen estimators on a picture once and keeps the result in a folder. Any later run with the same "
        "picture, models and settings, in any graph and after any restart, loads it without touching a network."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["cache", "precompute", "decompose", "depth cache", "bake", "store"]
    RETURN_TYPES = _RETURN_TYPES
    RETURN_NAMES = _RETURN_NAMES
    OUTPUT_TOOLTIPS = _OUTPUT_TOOLTIPS
    PREVIEW = ("image", *PARTS)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        def pick(produces: str, default: str) -> tuple[list[str], dict[str, Any]]:
            listed = ids(produces)
            _, options = choice(listed, listed[0] if default == NONE else default)
            return [NONE, *listed], {**options, "default": default}

        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The picture, or a batch of pictures of one size."}),
                "depth": pick("depth", "fathom-tiny"),
                "normals": pick("normals", NONE),
                "segmentation": pick("segmentation", NONE),
                "resolution": resolution(),
            },
            "optional": {
                "pin": (
                    "BOOLEAN",
                    {"default": False, "advanced": True, "tooltip": "Keep this bundle when the folder is full."},
                ),
                "limit_gb": (
                    "FLOAT",
                    {
                        "default": host.shown_setting("BundleLimit", "FATHOM_BUNDLE_LIMIT", store.LIMIT / 2**30),
                        "min": 0.1,
                        "max": 10000.0,
                        "step": 1.0,
                        "advanced": True,
                        "tooltip": "Space for all bundles together, in GiB; those used longest ago are removed first.",
                    },
                ),
                "faces": advanced(pick("faces", NONE)),
                "objects": advanced(pick("objects", NONE)),
            },
        }

    def execute(
        self,
        image: Any,
        depth: str,
        normals: str,
        segmentation: str,
        resolution: int = 512,
        pin: bool = False,
        limit_gb: float = store.LIMIT / 2**30,
        faces: str = NONE,
        objects: str = NONE,
    ) -> Parts:
        host.setting("BundleLimit", "FATHOM_BUNDLE_LIMIT", limit_gb)  # told here: INPUT_TYPES may not raise
        chosen = dict(zip(PARTS, (depth, normals, segmentation, faces, objects), strict=True))
        wanted = {part: id for part, id in chosen.items() if id != NONE}
        return _outputs(make_bundle(image, wanted, resolution, pin=pin, limit=int(limit_gb * 2**30)))


class FathomLoadBundle(Node):
    """A bundle that was made before."""

    DISPLAY_NAME = "Fathom Load Bundle"
    DESCRIPTION = "Loads the picture and everything the estimators said of it from a bundle; needs no network."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["load cache", "open bundle", "load depth", "restore", "depth cache"]
    RETURN_TYPES = _RETURN_TYPES
    RETURN_NAMES = _RETURN_NAMES
    OUTPUT_TOOLTIPS = _OUTPUT_TOOLTIPS
    PREVIEW = ("image", *PARTS)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        keys = [entry.key for entry in store.list_bundles(host.bundle_folder())]
        tooltip = "Which bundle, the one used last first. Reload the page to see new ones."
        return {"required": {"key": (keys, {"tooltip": tooltip})}}

    @classmethod
    def VALIDATE_INPUTS(cls, key: str | None = None) -> bool | str:
        # Takes the place of the check against the list, which a bundle made after the page was loaded is not in. None:
        # another node names it, or none is named, which ComfyUI tells itself.
        if key is None:
            return True
        known = {entry.key for entry in store.list_bundles(host.bundle_folder())}
        return True if isinstance(key, str) and key in known else f"there is no bundle {key!r}."

    def execute(self, key: str) -> Parts:
        return _outputs(store.load_bundle(host.bundle_folder(), key))


class FathomInspectBundle(Node):
    """What a bundle holds."""

    DISPLAY_NAME = "Fathom Inspect Bundle"
    DESCRIPTION = "Tells what a bundle holds: models, settings, sizes, age; and shows each part as a picture."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ["bundle info", "cache info", "manifest", "metadata"]
    RETURN_TYPES = ("STRING", "IMAGE")
    RETURN_NAMES = ("manifest", "previews")
    OUTPUT_TOOLTIPS = ("The manifest as JSON.", "The picture, then each part that the bundle holds.")
    OUTPUT_IS_LIST = (False, True)
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"bundle": BUNDLE}}

    def execute(self, bundle: Scene) -> dict[str, Any]:
        text = json.dumps({**bundle.metadata, "pictures": len(bundle)}, indent=1)
        shown = [] if bundle.picture is None else [bundle.picture]
        previews = [*shown, *(signal.to_image() for signal in bundle.slots.values())]
        return {"ui": {"text": [text]}, "result": (text, previews)}


NODES = (FathomBundle, FathomLoadBundle, FathomInspectBundle)
