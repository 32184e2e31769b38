"""The setting "Answer in place of comfyui_controlnet_aux": while it is on, that pack's ids of depth, normals and
regions run on Fathom; switched off, they are its own again. Ids that anyone else holds are never touched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ...annotator import host
from ...annotator.host import registry
from .base import DropIn
from .controlnet_aux import MAPS
from .replacements import rename

log = logging.getLogger(__name__)

_PACK = "controlnet_aux"
_SAID = "Answered by Fathom in place of comfyui_controlnet_aux: Settings, Fathom, Old graphs."
# {id: (the class that held it, its display name)} while Fathom answers.
_before: dict[str, tuple[type, str | None]] = {}


def follow() -> None:
    """Look at the setting once all packs are loaded, and before every prompt."""
    registry.follow(sync, prepare)


def prepare(graph: Mapping[str, Any]) -> None:
    """Before a prompt: follow the setting, and let old ids that nobody holds find their alias."""
    sync()
    tables = registry.node_classes()
    rename(graph, tables[0] if tables else ())


def sync() -> None:
    """Take the ids over or give them back, as the setting says now."""
    tables = registry.node_classes()
    if tables is None:
        return
    wanted = bool(host.shown_setting("AnswerForAux", "FATHOM_ANSWER_FOR_AUX", 0))
    changed = take(*tables) if wanted else give_back(*tables)
    if changed:
        done = "answers in place of comfyui_controlnet_aux for" if wanted else "gave back to comfyui_controlnet_aux"
        log.info("Fathom %s %s", done, ", ".join(changed))
        registry.forget_results()


def take(classes: dict[str, type], names: dict[str, str]) -> list[str]:
    """Put Fathom's nodes in place of comfyui_controlnet_aux's. Returns the ids that changed hands."""
    taken = []
    for id, node in MAPS.items():
        theirs = classes.get(id)
        if theirs is None or issubclass(theirs, DropIn) or not _of_the_pack(theirs):
            continue
        _before[id] = theirs, names.get(id)
        classes[id] = _in_place(node, classes)
        names[id] = f"{names.get(id, id)} (Fathom)"
        taken.append(id)
    return taken


def give_back(classes: dict[str, type], names: dict[str, str]) -> list[str]:
    """The reverse of `take`, for the ids that are still as it left them."""
    given = []
    for id, (theirs, name) in list(_before.items()):
        del _before[id]
        if issubclass(classes.get(id, object), DropIn):
            classes[id] = theirs
            if name is None:
                names.pop(id, None)
            else:
                names[id] = name
            given.append(id)
    return given


def _of_the_pack(node: type) -> bool:
    module = getattr(node, "RELATIVE_PYTHON_MODULE", node.__module__)
    return _PACK in str(module).replace("-", "_").lower()


def _in_place(node: type[DropIn], classes: Mapping[str, type]) -> type:
    """The node as it is shown while it answers: in menus, and said to be Fathom's."""
    own = getattr(classes.get("FathomEstimateDepth"), "RELATIVE_PYTHON_MODULE", node.__module__)
    about = f"{_SAID} {getattr(node, 'DESCRIPTION', '')}"
    return type(node.__name__, (node,), {"DEPRECATED": False, "DESCRIPTION": about, "RELATIVE_PYTHON_MODULE": own})
