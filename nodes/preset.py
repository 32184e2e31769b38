"""One node that makes the control picture of a control model as that model was trained with it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast, get_args

from torch import Tensor

from ..errors import SettingError
from ..models import estimator as by_id
from ..signals import Depth
from ..signals.field import Scope
from .base import Node
from .estimate import run
from .fields import IMAGE

Size = Literal["trained", "picture"]
_CATEGORY = "ControlNet Preprocessors"


class Preset(NamedTuple):
    """How a control model's pictures were made.

    estimator: its id. side: the short side of the control picture and of what the network sees; 0 = that of the
    picture; None = the picture's, with the network at its own published size. source: the public page that says so.
    unsaid: what no page says and was chosen here. white: the network's number that is drawn white, 0 being black;
    None = the annotator's own rendering.
    """

    estimator: str
    side: int | None
    source: str
    unsaid: str = ""
    scope: Scope = "image"
    white: float | None = None


_HF = "https://huggingface.co"
_GITHUB = "https://github.com"
_CONTROLNET = f"{_GITHUB}/lllyasviel/ControlNet-v1-1-nightly"
_FUN = f"{_GITHUB}/aigc-apps/VideoX-Fun/blob/main/comfyui/annotator/nodes.py"
_DIFFSYNTH = f"{_GITHUB}/modelscope/DiffSynth-Studio/blob/main/diffsynth/controlnets/processors.py"
_VACE = f"{_GITHUB}/ali-vilab/VACE/blob/main/vace/configs/video_preproccess.py"

PRESETS: dict[str, Preset] = {
    "SD1.5 ControlNet 1.1 depth": Preset("midas-dpt-hybrid", 512, _CONTROLNET),
    "SD1.5 ControlNet 1.1 normalbae": Preset("normal-bae", 512, _CONTROLNET),
    "SD1.5 ControlNet 1.1 seg": Preset("oneformer-ade20k", 512, _CONTROLNET),
    "SD1.5 ControlNet 1.0 seg": Preset("uniformer-ade20k", 512, f"{_GITHUB}/lllyasviel/ControlNet"),
    "SDXL depth (diffusers)": Preset("midas-dpt-hybrid", 1024, f"{_HF}/diffusers/controlnet-depth-sdxl-1.0"),
    "SDXL depth (diffusers, Zoe)": Preset("zoedepth-n", 1024, f"{_HF}/diffusers/controlnet-zoe-depth-sdxl-1.0"),
    "SDXL depth (xinsir)": Preset(
        "midas-dpt-hybrid",
        1024,
        f"{_HF}/xinsir/controlnet-depth-sdxl-1.0",
        "MiDaS or ZoeDepth, at random: MiDaS is taken",
    ),
    "FLUX.1 Depth": Preset(
        "depth-anything-large",
        None,
        f"{_GITHUB}/black-forest-labs/flux/blob/main/src/flux/modules/image_embedders.py",
        "the size",
        white=255.0,
    ),
    "FLUX.1 ControlNet Depth (Shakker)": Preset(
        "depth-anything-v2-large",
        None,
        f"{_HF}/Shakker-Labs/FLUX.1-dev-ControlNet-Depth",
        "the size of the network, and the size of the picture",
    ),
    "FLUX.1 ControlNet Union Pro 2.0": Preset(
        "depth-anything-v2-large",
        512,
        f"{_HF}/Shakker-Labs/FLUX.1-dev-ControlNet-Union-Pro-2.0",
        "which Depth Anything, and the size of its network",
    ),
    "VACE depth (MiDaS)": Preset("midas-dpt-hybrid", 0, _VACE, "which of the two annotators it was trained with"),
    "VACE depth (Depth Anything V2)": Preset(
        "depth-anything-v2-large", None, _VACE, "which of the two annotators it was trained with"
    ),
    "VideoX-Fun depth": Preset("zoedepth-n", 512, _FUN, "the size it was trained with: that of its own node"),
    "Z-Image Union depth": Preset("zoedepth-n", 512, _FUN, "the size it was trained with: that of its makers' node"),
    "Cosmos-Transfer 2.5 depth": Preset(
        "video-depth-anything-small",
        None,
        f"{_GITHUB}/nvidia-cosmos/cosmos-transfer2.5/tree/main/cosmos_transfer2/_src/transfer2/auxiliary/depth_anything",
        "the size of the picture",
        "batch",
    ),
    "Qwen-Image In-Context depth (DiffSynth)": Preset(
        "midas-dpt-hybrid", 0, _DIFFSYNTH, "whether training used the annotator of the examples"
    ),
    "Qwen-Image In-Context normal (DiffSynth)": Preset(
        "normal-bae", 0, _DIFFSYNTH, "whether training used the annotator of the examples"
    ),
    "Qwen-Image Blockwise depth (DiffSynth)": Preset(
        "midas-dpt-hybrid", 0, _DIFFSYNTH, "whether training used the annotator of the examples"
    ),
}


def preset(name: str) -> Preset:
    """The preset of a control model. Raises SettingError naming those there are."""
    if name not in PRESETS:
        raise SettingError(f"control_model must be one of {', '.join(PRESETS)}, got {name!r}.")
    return PRESETS[name]


class FathomControlNetPreset(Node):
    """The control picture that a control model was trained with."""

    DISPLAY_NAME = "Fathom ControlNet Preset"
    DESCRIPTION = (
        "Choose the control model: the node runs the annotator that it was trained with, at its size, drawn its way. "
        "What nobody has published is told in the output about."
    )
    CATEGORY = _CATEGORY
    SEARCH_ALIASES = [
        "controlnet depth",
        "controlnet preprocessor",
        "controlnet normal",
        "controlnet segmentation",
        "which preprocessor",
        "flux depth",
        "sdxl depth",
        "vace depth",
        "qwen image depth",
        "z-image depth",
        "cosmos depth",
        "aio preprocessor",
    ]
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "about")
    OUTPUT_TOOLTIPS = (
        "The control picture.",
        "Which annotator ran, at which size, who says so, and what nobody says.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        lines = [f"{name}: {preset.estimator}. {by_id(preset.estimator).licence}." for name, preset in PRESETS.items()]
        about = "trained: the short side that the control model was trained with. picture: that of the picture."
        return {
            "required": {
                "image": IMAGE,
                "control_model": (list(PRESETS), {"default": next(iter(PRESETS)), "tooltip": "\n".join(lines)}),
            },
            "optional": {"size": (list(get_args(Size)), {"default": "trained", "tooltip": about})},
        }

    def execute(self, image: Any, control_model: str, size: Size = "trained") -> tuple[Tensor, str]:
        if size not in get_args(Size):
            raise SettingError(f"size must be one of {', '.join(get_args(Size))}, got {size!r}.")
        chosen = preset(control_model)
        signal = run(chosen.estimator, image, chosen.side if size == "trained" or chosen.side is None else 0)
        if not isinstance(signal, Depth):
            picture = cast(Any, signal).to_image()
        elif chosen.white is None:
            picture = signal.to_image(chosen.scope)
        else:
            picture = (signal.values / chosen.white).clamp(0, 1)[..., None].repeat(1, 1, 1, 3)
        return picture, about(control_model, picture.shape[1:3])


def about(name: str, size: Any) -> str:
    """What is known of a control model's annotator, in lines. size: (height, width) of what was made."""
    chosen = preset(name)
    known = by_id(chosen.estimator)
    lines = [
        f"{name}: {known.name} ({chosen.estimator}), {size[1]}x{size[0]}",
        f"licence of its weights: {known.licence}",
        f"source: {chosen.source}",
    ]
    return "\n".join(lines + ([f"not stated there: {chosen.unsaid}"] if chosen.unsaid else []))


NODES = (FathomControlNetPreset,)
