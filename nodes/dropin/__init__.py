"""The ids of older packs, hidden from menus, so that their graphs, API calls and Python callers run on Fathom.

Each class takes the names, order and defaults that the older node had, and gives its first output at the same size.
What those nodes did wrongly (8 bits, colours, an ignored resolution) is done rightly: docs/migration.md. One file for
each pack.

An id that another pack has registered is left to that pack.
"""

from __future__ import annotations

from collections.abc import Callable

from . import controlnet_aux, depth_anything_3, depth_anything_v2, marigold, video_depth_anything
from .base import DropIn
from .controlnet_aux import PREPROCESSORS
from .replacements import PREFIX, offer
from .takeover import follow

__all__ = ["DROP_INS", "PREPROCESSORS", "DropIn", "follow", "free", "offer"]

_AUX = {**PREPROCESSORS, **controlnet_aux.OTHERS}

DROP_INS: dict[str, type[DropIn]] = {
    **_AUX,
    **controlnet_aux.FORKS,
    **controlnet_aux.SIZES,
    **{PREFIX + id: node for id, node in _AUX.items()},
    **depth_anything_v2.NODES,
    **marigold.NODES,
    **video_depth_anything.NODES,
    **depth_anything_3.NODES,
}


def free(taken: Callable[[str], bool]) -> dict[str, type[DropIn]]:
    """The drop-ins whose ids nobody holds; held(id) tells whether another pack does."""
    return {id: node for id, node in DROP_INS.items() if not taken(id)}
