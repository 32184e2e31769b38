"""What the ControlNet annotators do to every picture before their networks see it."""

from __future__ import annotations

from ..annotator.filters import Filter
from ..annotator.sizing import MAX_NETWORK_PIXELS, Size, bounded, round_to


def controlnet_picture(height: int, width: int, resolution: int, most: int = MAX_NETWORK_PIXELS) -> tuple[Size, Filter]:
    """((height, width), filter) of the picture that a ControlNet annotator hands to its network.

    resolution: the short side asked for, 0 = the picture's own. Each side is rounded, half to even, to a multiple of
    64; cv2 Lanczos enlarges, cv2 area shrinks. most: the area is kept below it, aspect kept. Source:
    annotator/util.py of lllyasviel/ControlNet-v1-1-nightly.
    """
    scale = (resolution or min(height, width)) / min(height, width)
    rows, columns = bounded(height * scale, width * scale, 64, most)
    return (round_to(rows, 64), round_to(columns, 64)), "lanczos4" if scale > 1 else "area"
