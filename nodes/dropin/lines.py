"""Lines and poses of comfyui_controlnet_aux (Fannovel16) and ComfyUI-Inference-Core-Nodes: names, order and defaults of
its node_wrappers."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from ...annotator.pictures import as_pictures, to_pixels
from ...annotator.sizing import resize, result_size
from ...errors import SettingError
from ...signals.instances import Instances
from ...signals.lines import Lines
from ...signals.pose import to_openpose
from ...tools import drawings
from ...tools.lines import content_shuffle, without_spots
from ...tools.pixels import each_picture
from ...tools.pose import draw_poses
from ..estimate import run
from .base import RESOLUTION, DropIn, chosen, combo, grey, integer, number, short_side, value

_LINES = "ControlNet Preprocessors/Line Extractors"
_POSES = "ControlNet Preprocessors/Faces and Poses Estimators"
_WITHOUT = "Runs old graphs. In new ones use Fathom Lines."


def _toggle(first: str, about: str) -> Any:
    return combo(["enable", "disable"] if first == "enable" else ["disable", "enable"], first, about)


def _on(given: Any, default: str) -> bool:
    return chosen(given, default) == "enable"


def _lines(id: str, image: Any, resolution: Any, **options: Any) -> tuple[Tensor]:
    return (cast(Lines, run(id, image, short_side(resolution), "lines", options)).to_image(),)


class _Lines(DropIn):
    CATEGORY = _LINES
    DESCRIPTION = _WITHOUT


class Canny(_Lines):
    DISPLAY_NAME = "Canny Edge"
    WIDGETS = {
        "low_threshold": number("INT", "A faint edge counts from here.", default=100, min=0, max=255, step=1),
        "high_threshold": number("INT", "A strong edge counts from here.", default=200, min=0, max=255, step=1),
        "resolution": RESOLUTION,
    }

    def execute(
        self, image: Any, low_threshold: Any = 100, high_threshold: Any = 200, resolution: Any = 512, **_: Any
    ) -> tuple[Tensor]:
        low, high = value("low_threshold", low_threshold, 100), value("high_threshold", high_threshold, 200)
        return _lines("canny", image, resolution, low_threshold=int(low), high_threshold=int(high))


class _Soft(_Lines):
    ID: ClassVar[str]
    SCRIBBLE: ClassVar[bool] = False
    WIDGETS = {"safe": _toggle("enable", "Three strengths of line instead of all."), "resolution": RESOLUTION}

    def execute(self, image: Any, safe: Any = "enable", resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return _lines(self.ID, image, resolution, safe=_on(safe, "enable"), scribble=self.SCRIBBLE)


class Hed(_Soft):
    DISPLAY_NAME = "HED Soft-Edge Lines"
    ID = "hed"


class FakeScribble(Hed):
    DISPLAY_NAME = "Fake Scribble Lines (aka scribble_hed)"
    SCRIBBLE = True


class PidiNet(_Soft):
    DISPLAY_NAME = "PiDiNet Soft-Edge Lines"
    ID = "pidinet"


class LineArt(_Lines):
    DISPLAY_NAME = "Realistic Lineart"
    WIDGETS = {"coarse": _toggle("disable", "Fewer and bolder lines."), "resolution": RESOLUTION}

    def execute(self, image: Any, coarse: Any = "disable", resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return _lines("lineart-coarse" if _on(coarse, "disable") else "lineart", image, resolution)


class AnimeLineArt(_Lines):
    DISPLAY_NAME = "Anime Lineart"
    WIDGETS = {"resolution": RESOLUTION}

    def execute(self, image: Any, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return _lines("lineart-anime", image, resolution)


class StandardLineart(_Lines):
    DISPLAY_NAME = "Standard Lineart"
    WIDGETS = {
        "guassian_sigma": number("FLOAT", "How far surroundings reach.", default=6.0, min=0.0, max=100.0, step=0.01),
        "intensity_threshold": number("INT", "Darker by more than this counts.", default=8, min=0, max=16, step=1),
        "resolution": RESOLUTION,
    }

    def execute(
        self, image: Any, guassian_sigma: Any = 6.0, intensity_threshold: Any = 8, resolution: Any = 512, **_: Any
    ) -> tuple[Tensor]:
        sigma = max(0.1, value("guassian_sigma", guassian_sigma, 6.0))
        least = int(value("intensity_threshold", intensity_threshold, 8))
        return _lines("lineart-standard", image, resolution, sigma=sigma, threshold=least)


class Mlsd(_Lines):
    DISPLAY_NAME = "M-LSD Lines"
    WIDGETS = {
        "score_threshold": number("FLOAT", "The least score.", default=0.1, min=0.01, max=2.0, step=0.01),
        "dist_threshold": number("FLOAT", "The least length.", default=0.1, min=0.01, max=20.0, step=0.01),
        "resolution": RESOLUTION,
    }

    def execute(
        self, image: Any, score_threshold: Any = 0.1, dist_threshold: Any = 0.1, resolution: Any = 512, **_: Any
    ) -> tuple[Tensor]:
        score, distance = value("score_threshold", score_threshold, 0.1), value("dist_threshold", dist_threshold, 0.1)
        return _lines("mlsd", image, resolution, score=score, distance=distance)


class Teed(_Lines):
    DISPLAY_NAME = "TEED Soft-Edge Lines"
    WIDGETS = {
        "safe_steps": number("INT", "How many strengths of line; 0 = all.", default=2, min=0, max=10, step=1),
        "resolution": RESOLUTION,
    }

    def execute(self, image: Any, safe_steps: Any = 2, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return _lines("teed", image, resolution, steps=int(value("safe_steps", safe_steps, 2)))


class Shuffle(DropIn):
    DISPLAY_NAME = "Content Shuffle"
    DESCRIPTION = "Runs old graphs."
    CATEGORY = "ControlNet Preprocessors/T2IAdapter-only"
    METHOD = "preprocess"
    WIDGETS = {
        "resolution": RESOLUTION,
        "seed": number("INT", "Same seed, same picture.", default=0, min=0, max=2**64 - 1, step=1),
    }

    def preprocess(self, image: Any, resolution: Any = 512, seed: Any = 0, **_: Any) -> tuple[Tensor]:
        pixels = to_pixels(as_pictures(image))
        size = result_size(int(pixels.shape[-2]), int(pixels.shape[-1]), short_side(resolution))
        seen = resize(pixels, size, "lanczos4" if size[0] > pixels.shape[-2] else "area").permute(0, 2, 3, 1)
        fixed = integer("seed", seed, 0)
        return (torch.stack([content_shuffle(seen[i], fixed) for i in each_picture(len(seen), self.DISPLAY_NAME)]),)


class _Drawn(_Lines):
    """What is drawn from brightness alone."""

    def _each(self, image: Any, resolution: Any, draw: drawings.Draw, **how: Any) -> tuple[Tensor]:
        pictures = to_pixels(as_pictures(image)).permute(0, 2, 3, 1)
        size = result_size(pictures.shape[1], pictures.shape[2], short_side(resolution))
        turns = each_picture(len(pictures), "Draw")
        drawn = [drawings.drawn(pictures[i], size, draw, **how) for i in turns]
        return (grey(torch.stack(drawn)),)


class XDoG(_Drawn):
    DISPLAY_NAME = "Scribble XDoG Lines"
    WIDGETS = {
        "threshold": number("INT", "Darker than its surroundings by half of this counts.", default=32, min=1, max=64),
        "resolution": RESOLUTION,
    }

    def execute(self, image: Any, threshold: Any = 32, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        least = int(value("threshold", threshold, 32))
        return self._each(image, resolution, lambda levels: drawings.xdog(levels, least))


class Scribble(_Drawn):
    DISPLAY_NAME = "Scribble Lines"
    WIDGETS = {"resolution": RESOLUTION}

    def execute(self, image: Any, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        return self._each(image, resolution, drawings.scribble, enlarge="area")


class Binary(_Drawn):
    DISPLAY_NAME = "Binary Lines"
    WIDGETS = {
        "bin_threshold": number("INT", "Lighter than this is white; 0 or 255 = Otsu's.", default=100, min=0, max=255),
        "resolution": RESOLUTION,
    }

    def execute(self, image: Any, bin_threshold: Any = 100, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        least = int(value("bin_threshold", bin_threshold, 100))
        return self._each(image, resolution, lambda levels: drawings.binary(levels, least))


class PyraCanny(_Drawn):
    DISPLAY_NAME = "PyraCanny"
    WIDGETS = {
        "low_threshold": number("INT", "A faint edge counts from here.", default=64, min=0, max=255, step=1),
        "high_threshold": number("INT", "A strong edge counts from here.", default=128, min=0, max=255, step=1),
        "resolution": RESOLUTION,
    }

    def execute(
        self, image: Any, low_threshold: Any = 64, high_threshold: Any = 128, resolution: Any = 512, **_: Any
    ) -> tuple[Tensor]:
        low = int(value("low_threshold", low_threshold, 64))
        high = int(value("high_threshold", high_threshold, 128))
        return self._each(image, resolution, lambda levels: drawings.pyramid_canny(levels, low, high))


class Luminance(_Drawn):
    DISPLAY_NAME = "Image Luminance"
    DESCRIPTION = "Runs old graphs: how light a picture is, for Recolor."
    CATEGORY = "ControlNet Preprocessors/Recolor"
    WIDGETS = {
        "gamma_correction": number("FLOAT", "Above 1 darkens.", default=1.0, min=0.1, max=2.0, step=0.01),
        "resolution": RESOLUTION,
    }
    DRAW: ClassVar[Any] = staticmethod(drawings.luminance)

    def execute(self, image: Any, gamma_correction: Any = 1.0, resolution: Any = 512, **_: Any) -> tuple[Tensor]:
        gamma = value("gamma_correction", gamma_correction, 1.0)
        return self._each(image, resolution, lambda levels: self.DRAW(levels, gamma))


class Intensity(Luminance):
    DISPLAY_NAME = "Image Intensity"
    DRAW: ClassVar[Any] = staticmethod(drawings.intensity)


_MERGED = {
    "lineart_standard": ("lineart-standard", {"sigma": 2.0, "threshold": 3}),
    "lineart_realisitic": ("lineart", {"drawing": "8-bit"}),
    "lineart_anime": ("lineart-anime", {"drawing": "8-bit"}),
}


class AnyLine(_Lines):
    DISPLAY_NAME = "AnyLine Lineart"
    RETURN_NAMES = ("image",)
    METHOD = "get_anyline"
    WIDGETS = {
        "merge_with_lineart": combo(
            [*_MERGED, "manga_line"], "lineart_standard", "Which lines are added to the edges."
        ),
        "resolution": number("INT", "Short side of the result.", default=1280, min=64, max=16384, step=8),
        "lineart_lower_bound": number("FLOAT", "Fainter lines are left out.", default=0, min=0, max=1, step=0.01),
        "lineart_upper_bound": number("FLOAT", "Stronger lines are left out.", default=1, min=0, max=1, step=0.01),
        "object_min_size": number("INT", "Spots of fewer pixels, three for each, go.", default=36, min=1, max=16384),
        "object_connectivity": number("INT", "1: spots touch at sides; more: at corners.", default=1, min=1, max=16384),
    }

    def get_anyline(
        self,
        image: Any,
        merge_with_lineart: Any = "lineart_standard",
        resolution: Any = 512,
        lineart_lower_bound: Any = 0,
        lineart_upper_bound: Any = 1,
        object_min_size: Any = 36,
        object_connectivity: Any = 1,
        **_: Any,
    ) -> tuple[Tensor]:
        chosen_lines = chosen(merge_with_lineart, "lineart_standard")
        if chosen_lines not in _MERGED:
            raise SettingError(
                f"merge_with_lineart must be one of {', '.join(_MERGED)}, got {chosen_lines!r}. For manga_line, whose "
                "network controlnet-aux has not, install comfyui_controlnet_aux, which then takes this node over."
            )
        low = value("lineart_lower_bound", lineart_lower_bound, 0)
        high = value("lineart_upper_bound", lineart_upper_bound, 1)
        # The pack counts each pixel of a spot in all three channels.
        least = int(value("object_min_size", object_min_size, 36)) / 3
        corners = value("object_connectivity", object_connectivity, 1) > 1
        side = short_side(resolution)
        id, options = _MERGED[chosen_lines]
        edges = cast(Lines, run("anyline", image, side, "lines", {"merged": False}))
        added = cast(Lines, run(id, image, side, "lines", options)).strength
        added = torch.where((added >= low) & (added <= high), added, 0.0)
        added = torch.stack([without_spots(drawing, least, corners) for drawing in added])
        return (grey(1 - (1 - added) * (1 - edges.strength)),)


class OpenPose(DropIn):
    DISPLAY_NAME = "OpenPose Pose"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Pose."
    CATEGORY = _POSES
    RETURN_TYPES = ("IMAGE", "POSE_KEYPOINT")
    OUTPUT_TOOLTIPS = ("The poses drawn.", "The points as OpenPose writes them, for each picture.")
    METHOD = "estimate_pose"
    WIDGETS = {
        "detect_hand": _toggle("enable", "Hands as well."),
        "detect_body": _toggle("enable", "Draw bodies."),
        "detect_face": _toggle("enable", "Faces as well."),
        "resolution": RESOLUTION,
        "scale_stick_for_xinsr_cn": _toggle("disable", "Wider limbs; Fathom draws them at one width."),
    }

    def estimate_pose(
        self,
        image: Any,
        detect_hand: Any = "enable",
        detect_body: Any = "enable",
        detect_face: Any = "enable",
        resolution: Any = 512,
        scale_stick_for_xinsr_cn: Any = "disable",
        **_: Any,
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        if _on(scale_stick_for_xinsr_cn, "disable"):
            raise SettingError("Fathom draws limbs at one width: set scale_stick_for_xinsr_cn to disable.")
        hands, faces = _on(detect_hand, "enable"), _on(detect_face, "enable")
        found = run("openpose", image, short_side(resolution), "people", {"hands": hands, "faces": faces})
        people = cast(Instances, found)
        return draw_poses(people, _on(detect_body, "enable"), hands, faces), to_openpose(people)


PREPROCESSORS: dict[str, type[DropIn]] = {
    "CannyEdgePreprocessor": Canny,
    "HEDPreprocessor": Hed,
    "FakeScribblePreprocessor": FakeScribble,
    "PiDiNetPreprocessor": PidiNet,
    "LineArtPreprocessor": LineArt,
    "AnimeLineArtPreprocessor": AnimeLineArt,
    "LineartStandardPreprocessor": StandardLineart,
    "M-LSDPreprocessor": Mlsd,
    "TEEDPreprocessor": Teed,
    "ShufflePreprocessor": Shuffle,
    "OpenposePreprocessor": OpenPose,
    "Scribble_XDoG_Preprocessor": XDoG,
    "ScribblePreprocessor": Scribble,
    "BinaryPreprocessor": Binary,
    "PyraCannyPreprocessor": PyraCanny,
    "ImageLuminanceDetector": Luminance,
    "ImageIntensityDetector": Intensity,
    "AnyLineArtPreprocessor_aux": AnyLine,
}
# Told by name where a graph gives them as a value.
NEAR: dict[str, str] = {
    "DWPreprocessor": "controlnet-aux runs DWPose on mmpose, mmdet and mmcv, which must be compiled for each version "
    "of PyTorch; near to it is OpenposePreprocessor, with other points in the same form.",
}
