"""What a node shows of its result on itself, as small pictures in ComfyUI's temp folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ..annotator import host
from ..signals.thumbnail import MOST, SIDE, thumbnails

# What is shown of a node's outputs unless its class says so itself: the first of these that it has.
ORDER = ("depth_image", "image", "depth", "frames", "mask", "ordered", "previews")

log = logging.getLogger(__name__)


def shows_result(node: type) -> type:
    """Let ComfyUI show the result of `node` on the node, and hand the class back.

    What is shown: the outputs that the class names in PREVIEW, else the first of `ORDER` that it has; a node without
    any is left as it is. `execute` stays as it is and returns the plain tuple, and so does the method that ComfyUI
    calls when there is no ComfyUI.
    """
    names = node_preview(node)
    if not names:
        return node
    execute: Callable[..., Any] = node.execute  # pyright: ignore[reportAttributeAccessIssue]
    places = [outputs(node).index(name) for name in names]

    @wraps(execute)
    def execute_and_show(self: Any, *args: Any, **inputs: Any) -> Any:
        made = execute(self, *args, **inputs)
        told = made if isinstance(made, dict) else {"result": made}
        ui = told.get("ui", {})
        if "images" in ui and ui["images"]:
            return made
        files = save_previews([told["result"][place] for place in places])
        return {**told, "ui": {**ui, "images": files}} if files else made

    setattr(node, "execute_and_show", execute_and_show)  # noqa: B010
    setattr(node, "FUNCTION", "execute_and_show")  # noqa: B010
    return node


def outputs(node: Any) -> list[str]:
    """The names of a node's outputs."""
    return list(getattr(node, "RETURN_NAMES", node.RETURN_TYPES))


def node_preview(node: Any) -> tuple[str, ...]:
    """The names of the outputs that a node shows; none when it has nothing to see."""
    if (named := getattr(node, "PREVIEW", None)) is not None:
        return named
    return next(((name,) for name in ORDER if name in outputs(node)), ())


def save_previews(results: Sequence[Any], side: int = SIDE, most: int = MOST) -> list[dict[str, str]]:
    """Save what can be seen of `results` as small JPEGs in ComfyUI's temp folder, in the form that `ui` takes.

    Arguments as in `thumbnails`. Empty outside ComfyUI, and where the folder cannot be written to: a preview is never
    worth a failed run. Empty too where the user wants none (ComfyUI's settings panel, or FATHOM_NODE_PREVIEWS=0).
    """
    folder = host.temp_folder()
    if folder is None or not host.setting("NodePreviews", "FATHOM_NODE_PREVIEWS", 1):
        return []
    try:
        return [host.save_temp(picture, folder) for result in results for picture in thumbnails(result, side, most)]
    except OSError as error:
        log.warning("no preview: %s", error)
        return []
