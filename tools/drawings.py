"""Pictures drawn from brightness alone, as ControlNet's annotators that have no network draw them.

Each takes a picture in whole levels, uint8 (h,w,3) RGB, and gives uint8 (h,w). What they compute is that of
comfyui_controlnet_aux (recolor, scribble, binary, pyracanny), to the last level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from ..signals.opencv import opencv
from .pixels import check_range, check_whole, whole_levels

Draw = Callable[[Any], Any]
_SCALES = tuple(k / 10 for k in range(2, 11))


def drawn(picture: Tensor, size: tuple[int, int], draw: Draw, enlarge: Literal["cubic", "area"] = "cubic") -> Tensor:
    """A picture (H,W,3) in 0..1 drawn at `size`, (h,w): float32 (h,w) in 0..1.

    It is resized in whole levels, by area or, where it grows, by `enlarge`, and continued by its last pixels to
    multiples of 64 while `draw` looks at it.
    """
    import numpy as np

    cv2 = opencv("Drawing a picture")
    levels = whole_levels(picture)
    height, width = size
    grows = height > levels.shape[0] and enlarge == "cubic"
    way = cv2.INTER_CUBIC if grows else cv2.INTER_AREA
    levels = cv2.resize(levels, (width, height), interpolation=way)
    levels = np.pad(levels, ((0, -height % 64), (0, -width % 64), (0, 0)), mode="edge")
    drawing = np.ascontiguousarray(draw(np.ascontiguousarray(levels))[:height, :width])
    return torch.from_numpy(drawing).float() / 255


def luminance(levels: Any, gamma: float = 1.0) -> Any:
    """CIE lightness to the power `gamma`, of red and blue exchanged, for so Recolor's control models were trained."""
    cv2 = opencv("Lightness")
    return _power(cv2.cvtColor(levels, cv2.COLOR_BGR2LAB)[..., 0], gamma)


def intensity(levels: Any, gamma: float = 1.0) -> Any:
    """The strongest of the three colours to the power `gamma`."""
    return _power(levels.max(2), gamma)


def _power(values: Any, gamma: float) -> Any:
    import numpy as np

    check_range("gamma", gamma, 0.01, 100)
    return ((values.astype(np.float32) / 255) ** gamma * 255).clip(0, 255).astype(np.uint8)


def scribble(levels: Any) -> Any:
    """Black where one of the colours is below 127, white elsewhere."""
    import numpy as np

    return np.where(levels.min(2) < 127, 0, 255).astype(np.uint8)


def binary(levels: Any, threshold: int = 100) -> Any:
    """White where the grey is above `threshold`; 0 and 255 stand for Otsu's threshold."""
    cv2 = opencv("Binary lines")
    check_whole("threshold", threshold, 0, 255)
    grey = cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY)
    how = cv2.THRESH_BINARY + (cv2.THRESH_OTSU if threshold in (0, 255) else 0)
    return cv2.threshold(grey, threshold, 255, how)[1]


def xdog(levels: Any, threshold: int = 32) -> Any:
    """White where the picture is darker than its surroundings: the difference of two Gaussians (Winnemoeller et al.,
    Computers & Graphics 2012, as ControlNet draws it). A difference of 128 or more counts as 128 less, as there."""
    import numpy as np

    cv2 = opencv("XDoG")
    check_whole("threshold", threshold, 0, 255)
    colours = levels.astype(np.float32)
    near, far = (cv2.GaussianBlur(colours, (0, 0), sigma) for sigma in (0.5, 5.0))
    # 255 minus the difference is cut to a whole number, so a difference counts from its next whole number.
    darker = 255 - (255 - (far - near).min(2)).clip(0, 255).astype(np.uint8).astype(np.int32)
    return np.where(2 * darker % 256 > threshold, 255, 0).astype(np.uint8)


def pyramid_canny(levels: Any, low: int = 64, high: int = 128) -> Any:
    """Canny's edges at nine sizes from a fifth on, each size a quarter of the sum so far, for Stability's Control-LoRA;
    black to white from percentile 1 to 99."""
    import numpy as np

    cv2 = opencv("Canny")
    for name, value in (("low", low), ("high", high)):
        check_whole(name, value, 0, 255)
    height, width = levels.shape[:2]
    together: Any = None
    for scale in _SCALES:
        # The product is cut to a whole number as it is in double precision, where 0.7 * 10 is 7.
        small = cv2.resize(levels, (int(width * scale), int(height * scale)), interpolation=cv2.INTER_AREA)
        edges = np.stack([cv2.Canny(np.ascontiguousarray(small[..., c]), low, high) for c in range(3)], 2)
        edges = edges.astype(np.float32) / 255
        if together is None:
            together = edges
        else:
            larger = cv2.resize(together, (edges.shape[1], edges.shape[0]), interpolation=cv2.INTER_LINEAR)
            together = larger * 0.75 + edges * 0.25
    strength = together.sum(2)
    black, white = np.percentile(strength, 1), np.percentile(strength, 99)
    if white <= black:
        return np.zeros((height, width), np.uint8)
    return ((strength - np.float32(black)) / np.float32(white - black) * 255.0).clip(0, 255).astype(np.uint8)
