"""ComfyUI-Video-Depth-Anything (yuvraj108c)."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor

from ...annotator.loading import cache
from ...annotator.runtime import Annotator
from ...annotator.sizing import resize
from ...errors import SettingError
from ...models import estimator as by_id
from ...signals import Depth
from ...tools.inspection import false_colour
from .base import DropIn, by_file, combo, number, value

_FILES = {
    "video_depth_anything_vits.pth": "video-depth-anything-small",
    "video_depth_anything_vitl.pth": "video-depth-anything-large",
}
_COLOURS = ["inferno", "gray"]


class LoadVideoDepthAnything(DropIn):
    DISPLAY_NAME = "Load Video Depth Anything Model"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Map, which loads by itself."
    CATEGORY = "VideoDepthAnything"
    RETURN_TYPES = ("VDAMODEL",)
    RETURN_NAMES = ("vda_model",)
    OUTPUT_TOOLTIPS = ("For Video Depth Anything Process.",)
    METHOD = "loadmodel"
    DEFAULT = "video_depth_anything_vits.pth"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": combo(list(_FILES), cls.DEFAULT, "Which model.")}}

    def loadmodel(self, model: Any) -> tuple[Annotator]:
        return (cache.take(by_id(by_file(model, _FILES, self.DEFAULT, "model"))),)


class RunVideoDepthAnything(DropIn):
    DISPLAY_NAME = "Video Depth Anything Process"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Map with video-depth-anything-small."
    CATEGORY = "VideoDepthAnything"
    RETURN_TYPES = ("IMAGE", "FLOAT")
    RETURN_NAMES = ("image", "fps")
    OUTPUT_TOOLTIPS = ("The depth of the film; all frames share one range.", "The target_fps given.")
    METHOD = "process"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "vda_model": ("VDAMODEL", {"tooltip": "From Load Video Depth Anything Model."}),
                "images": ("IMAGE", {"tooltip": "The frames of one film."}),
                "target_fps": number("FLOAT", "Handed on; frames are neither dropped nor added.", default=15),
                "input_size": number("INT", "Short side inside the network.", default=518),
                "max_res": number("INT", "A longer side is made this long first; 0 or less = as it is.", default=1280),
                "colormap": combo(_COLOURS, "gray", "How depth is drawn."),
            }
        }

    def process(
        self,
        vda_model: Annotator,
        images: Tensor,
        target_fps: Any = 15,
        input_size: Any = 518,
        max_res: Any = 1280,
        colormap: Any = "gray",
    ) -> tuple[Tensor, float]:
        if colormap not in _COLOURS:
            raise SettingError(f"colormap must be one of {', '.join(_COLOURS)}, got {colormap!r}.")
        frames = _no_longer(images, value("max_res", max_res, 1280))
        depth = cast(Depth, vda_model(frames, 0, input_size=int(value("input_size", input_size, 518))))
        drawn = depth.to_image("batch") if colormap == "gray" else false_colour(depth, "inferno", "batch")
        return drawn, value("target_fps", target_fps, 15)


def _no_longer(frames: Tensor, longest: float) -> Tensor:
    """Frames whose longer side is at most `longest`, the sides then even."""
    height, width = frames.shape[1:3]
    if not 0 < longest < max(height, width):
        return frames
    scale = longest / max(height, width)
    size = tuple(side + side % 2 for side in (round(height * scale), round(width * scale)))
    return resize(frames.permute(0, 3, 1, 2), (size[0], size[1]), "area_float").permute(0, 2, 3, 1)


NODES: dict[str, type[DropIn]] = {
    "LoadVideoDepthAnythingModel": LoadVideoDepthAnything,
    "VideoDepthAnythingProcess": RunVideoDepthAnything,
}
