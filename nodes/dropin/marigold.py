"""ComfyUI-Marigold (kijai)."""

from __future__ import annotations

import json
from functools import cache as once
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...annotator.estimator import Estimator
from ...annotator.loading import cache
from ...annotator.runtime import Annotator
from ...errors import SettingError
from ...models import estimator as by_id
from ...models.marigold import of_repository
from ...signals import Depth, Intrinsics, Normals
from ...signals.field import percentiles
from .base import DropIn, combo, number, switch, value

_CATEGORY = "Marigold"
# Repositories that are estimators of Fathom's, and others with the same networks inside.
_OWN = {
    "prs-eth/marigold-depth-lcm-v1-0": "marigold-depth-lcm",
    "prs-eth/marigold-depth-v1-1": "marigold-depth",
    "prs-eth/marigold-normals-v1-1": "marigold-normals",
    "prs-eth/marigold-iid-lighting-v1-1": "marigold-lighting",
    "prs-eth/marigold-iid-appearance-v1-1": "marigold-appearance",
}
_ALIKE = {
    "prs-eth/marigold-v1-0": "marigold-depth",
    "prs-eth/marigold-normals-v0-1": "marigold-normals",
    "prs-eth/marigold-normals-lcm-v0-1": "marigold-normals",
    "GonzaloMG/marigold-e2e-ft-depth": "marigold-depth",
    "GonzaloMG/marigold-e2e-ft-normals": "marigold-normals",
}
_ORDER = [
    "prs-eth/marigold-v1-0",
    "prs-eth/marigold-depth-lcm-v1-0",
    "prs-eth/marigold-depth-v1-1",
    "prs-eth/marigold-normals-v0-1",
    "prs-eth/marigold-normals-lcm-v0-1",
    "prs-eth/marigold-normals-v1-1",
    "GonzaloMG/marigold-e2e-ft-depth",
    "GonzaloMG/marigold-e2e-ft-normals",
    "prs-eth/marigold-iid-lighting-v1-1",
    "prs-eth/marigold-iid-appearance-v1-1",
]
_SCHEDULERS = ["DDIMScheduler", "LCMScheduler"]
_SEED = ("INT", {"default": 123, "min": 0, "max": 2**64 - 1, "step": 1, "tooltip": "Same seed, same result."})
_COUNT = {"min": 1, "max": 4096, "step": 1}
_KEEP = "Ignored: ComfyUI decides what stays loaded."


def _of(repository: Any) -> Estimator:
    """The estimator with the weights of a repository. Raises SettingError naming those there are."""
    if repository in _OWN:
        return by_id(_OWN[repository])
    if repository in _ALIKE:
        return of_repository(repository, _ALIKE[repository])
    raise SettingError(f"model must be one of {', '.join(_ORDER)}, got {repository!r}.")


class LoadMarigold(DropIn):
    DISPLAY_NAME = "MarigoldModelLoader"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Marigold Depth, which loads by itself."
    CATEGORY = _CATEGORY
    RETURN_TYPES = ("MARIGOLDMODEL",)
    RETURN_NAMES = ("marigold_model",)
    OUTPUT_TOOLTIPS = ("For MarigoldDepthEstimation_v2.",)
    METHOD = "load"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": combo(_ORDER, _ORDER[1], "Which model.")}}

    def load(self, model: Any) -> tuple[Annotator]:
        return (cache.take(_of(model)),)


class RunMarigold(DropIn):
    DISPLAY_NAME = "MarigoldDepthEstimation_v2"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Marigold Depth or Fathom Marigold Normals."
    CATEGORY = _CATEGORY
    RETURN_NAMES = ("image",)
    METHOD = "process"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 768, "min": 64, "max": 4096, "step": 8, "tooltip": "Long side inside the network."}
        return {
            "required": {
                "marigold_model": ("MARIGOLDMODEL", {"tooltip": "From MarigoldModelLoader."}),
                "image": ("IMAGE", {"tooltip": "The pictures."}),
                "seed": _SEED,
                "denoise_steps": ("INT", {"default": 4, **_COUNT, "tooltip": "Denoising steps."}),
                "ensemble_size": ("INT", {"default": 3, **_COUNT, "tooltip": "Results to merge."}),
                "processing_resolution": ("INT", side),
                "scheduler": combo(_SCHEDULERS, "LCMScheduler", "No effect, as in the old node."),
                "use_taesd_vae": switch(False, "Ignored: Fathom uses the model's own decoder."),
            },
            "optional": {"keep_model_loaded": switch(False, _KEEP)},
        }

    def process(
        self,
        marigold_model: Annotator,
        image: Any,
        seed: int,
        denoise_steps: int,
        processing_resolution: int,
        ensemble_size: int,
        scheduler: str,
        use_taesd_vae: bool,
        keep_model_loaded: bool = False,
    ) -> tuple[Tensor]:
        signal = marigold_model(
            image,
            0,
            steps=denoise_steps,
            ensemble_size=ensemble_size,
            seed=seed,
            processing_resolution=processing_resolution,
        )
        if isinstance(signal, Intrinsics):  # the old node joined the maps of all pictures into one batch
            maps = [signal.map(layer.name).clamp(0, 1) for layer in signal.layers]
            pictures = [m if m.ndim == 4 else m[..., None].expand(-1, -1, -1, 3) for m in maps]
            return (torch.stack(pictures, 1).flatten(0, 1),)
        return (cast("Depth | Normals", signal).to_image(),)


class RunFirstMarigold(DropIn):
    """The first node of that pack, with its own ensembling and loader."""

    DISPLAY_NAME = "MarigoldDepthEstimation"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Marigold Depth."
    CATEGORY = _CATEGORY
    RETURN_NAMES = ("ensembled_image",)
    METHOD = "process"
    MODELS = {"Marigold": "prs-eth/marigold-v1-0", "marigold-lcm-v1-0": "prs-eth/marigold-depth-lcm-v1-0"}

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        own = "No effect: results are merged as the model's authors published."
        schedulers = ["DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "DEISMultistepScheduler", "LCMScheduler"]
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The pictures."}),
                "seed": _SEED,
                "denoise_steps": number("INT", "Denoising steps.", default=10, **_COUNT),
                "n_repeat": number("INT", "Results to merge.", default=10, **_COUNT),
                "regularizer_strength": number("FLOAT", own, default=0.02, min=0.001, max=4096, step=0.001),
                "reduction_method": combo(["median", "mean"], "median", own),
                "max_iter": number("INT", own, default=5, **_COUNT),
                "tol": number("FLOAT", own, default=1e-3, min=1e-6, max=1e-1, step=1e-6),
                "invert": switch(True, "On: near is white. Off: near is black."),
                "keep_model_loaded": switch(True, _KEEP),
                "n_repeat_batch_size": number("INT", "No effect.", default=2, **_COUNT),
                "use_fp16": switch(True, "No effect: Fathom's setting of precision decides."),
                "scheduler": combo(schedulers, "DDIMScheduler", "No effect: the model's own scheduler is taken."),
                "normalize": switch(True, "Off: the picture's 0..1 stand for the upper half of what the network sees."),
            },
            "optional": {"model": combo(list(cls.MODELS), "Marigold", "Which model.")},
        }

    def process(
        self,
        image: Tensor,
        seed: Any = 123,
        denoise_steps: Any = 10,
        n_repeat: Any = 10,
        regularizer_strength: Any = 0.02,
        reduction_method: Any = "median",
        max_iter: Any = 5,
        tol: Any = 1e-3,
        invert: Any = True,
        keep_model_loaded: Any = True,
        n_repeat_batch_size: Any = 2,
        use_fp16: Any = True,
        scheduler: Any = "DDIMScheduler",
        normalize: Any = True,
        model: Any = "Marigold",
    ) -> tuple[Tensor]:
        if (name := "Marigold" if model is None else model) not in self.MODELS:
            raise SettingError(f"model must be one of {', '.join(self.MODELS)}, got {model!r}.")
        depth = cache.take(_of(self.MODELS[name]))(
            image if normalize in (True, None) else 0.5 + 0.5 * image,
            0,
            steps=int(value("denoise_steps", denoise_steps, 10)),
            ensemble_size=int(value("n_repeat", n_repeat, 10)),
            seed=123 if seed is None else int(seed),
            processing_resolution=0,
        )
        near = cast(Depth, depth).to_image()
        return (near if invert in (True, None) else 1 - near,)


@once
def _colours() -> dict[str, Tensor]:
    """Matplotlib's colour maps of these names as tables of 256 colours, (256,3) in 0..1."""
    read = json.loads((Path(__file__).parent / "colormaps.json").read_text(encoding="utf-8"))
    return {
        name: torch.tensor(list(bytes.fromhex(table)), dtype=torch.float32).reshape(256, 3) / 255
        for name, table in read.items()
    }


class ColorizeDepthmap(DropIn):
    """A depth map in false colours: percentiles 0.03 and 99.97 of its first channel are the ends of the map."""

    DISPLAY_NAME = "ColorizeDepthmap"
    DESCRIPTION = "Runs old graphs. In new ones use Fathom Depth Inspector."
    CATEGORY = _CATEGORY
    RETURN_NAMES = ("image",)
    METHOD = "color"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "A depth map."}),
                "colorize_method": combo(list(_colours()), "Spectral", "Which colours."),
            }
        }

    def color(self, image: Tensor, colorize_method: Any = "Spectral") -> tuple[Tensor]:
        if (name := "Spectral" if colorize_method is None else colorize_method) not in _colours():
            raise SettingError(f"colorize_method must be one of {', '.join(_colours())}, got {colorize_method!r}.")
        field = image[..., 0].float()
        low, high = percentiles(field, (0.03, 99.97), None, "image")
        share = (field - low) / (high - low).clamp_min(1e-12)
        return (_colours()[name].to(field.device)[(share * 256).long().clamp_(0, 255)],)


class RemapDepth(DropIn):
    """min + image * (max - min)."""

    DISPLAY_NAME = "RemapDepth"
    DESCRIPTION = "Runs old graphs: a depth map's 0..1 onto another range."
    CATEGORY = _CATEGORY
    METHOD = "remap"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "A depth map."}),
                "min": number("FLOAT", "What 0 becomes.", default=0.0, min=-10.0, max=1.0, step=0.01),
                "max": number("FLOAT", "What 1 becomes.", default=1.0, min=0.0, max=10.0, step=0.01),
                "clamp": switch(True, "Keep the result in 0..1."),
            }
        }

    def remap(self, image: Tensor, min: Any = 0.0, max: Any = 1.0, clamp: Any = True) -> tuple[Tensor]:
        low, high = value("min", min, 0.0), value("max", max, 1.0)
        remapped = low + image.float() * (high - low)
        return (remapped.clamp(0, 1) if clamp in (True, None) else remapped,)


NODES: dict[str, type[DropIn]] = {
    "MarigoldModelLoader": LoadMarigold,
    "MarigoldDepthEstimation_v2": RunMarigold,
    "MarigoldDepthEstimation": RunFirstMarigold,
    "ColorizeDepthmap": ColorizeDepthmap,
    "RemapDepth": RemapDepth,
}
