"""ComfyUI's table of nodes: who holds an id, what replaces it, and when to look again."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)


def _server() -> Any:
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def node_classes() -> tuple[dict[str, type], dict[str, str]] | None:
    """ComfyUI's own tables {id: class} and {id: display name}, to be looked at and written to; None outside ComfyUI."""
    nodes = sys.modules.get("nodes")
    classes, names = (getattr(nodes, f"NODE_{what}_MAPPINGS", None) for what in ("CLASS", "DISPLAY_NAME"))
    return None if classes is None or names is None or _server() is None else (classes, names)


def offer_replacements(offers: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell ComfyUI which nodes replace the ids in `offers`, {old id: the fields of its NodeReplace}. False where this
    ComfyUI has no such thing; its editor then knows nothing of them."""
    manager = getattr(_server(), "node_replace_manager", None)
    if manager is None:
        return False
    try:
        from comfy_api.latest import io  # pyright: ignore[reportMissingImports]

        for old, fields in offers.items():
            manager.register(io.NodeReplace(old_node_id=old, **fields))
    except Exception as error:  # of whatever a ComfyUI to come makes of it: the ids then stay registered
        log.warning("Fathom: no replacements are offered: %s: %s", type(error).__name__, error)
        return False
    return True


def follow(start: Callable[[], None], prompt: Callable[[dict[str, Any]], None]) -> None:
    """Call `start` once all packs are loaded, and `prompt` with the graph {node: {"class_type", "inputs"}} of every
    prompt before ComfyUI looks at it; what it changes there counts. Does nothing outside ComfyUI."""
    server = _server()
    if server is None:
        return

    async def started(_app: Any) -> None:
        start()

    def posted(data: dict[str, Any]) -> dict[str, Any]:
        if isinstance(graph := data.get("prompt"), dict):
            prompt(graph)
        return data

    server.app.on_startup.append(started)
    server.add_on_prompt_handler(posted)


def forget_results() -> None:
    """Let ComfyUI drop the nodes and results that it keeps from earlier runs, before it runs what is posted next.

    ComfyUI looks at this flag after each run, and when it is woken while it waits for one. A flag set in between, while
    it still tidies up, would be seen only after the next run: a queue that runs nothing is woken until it has looked.
    """
    queue = getattr(_server(), "prompt_queue", None)
    if queue is None:
        return
    for _ in range(500):
        queue.set_flag("free_memory", True)
        if queue.currently_running:
            return
        time.sleep(0.01)
        if not queue.get_flags(reset=False):
            return
