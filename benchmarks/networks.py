"""Loaded estimators for the benchmarks, also on machines that hold no weights."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fathom
from fathom.annotator import loading, weights
from fathom.annotator.estimator import Estimator
from fathom.annotator.layers import ProcessorLinear
from fathom.annotator.runtime import Annotator
from fathom.signals.depth import depth_from_metres

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from checkpoints import published

LAYOUTS = {
    "depth-anything-v2-small": "depth_anything/depth_anything_v2_vits.pth",
    "depth-anything-v2-base": "depth_anything/depth_anything_v2_vitb.pth",
    "depth-anything-v2-metric-indoor-small": "depth_anything/depth_anything_v2_metric_hypersim_vits.pth",
    "depth-anything-3-small": "depth_anything_3/depth-anything--DA3-SMALL__model.safetensors",
    "depth-anything-3-base": "depth_anything_3/depth-anything--DA3-BASE__model.safetensors",
    "depth-anything-3-large": "depth_anything_3/depth-anything--DA3-LARGE__model.safetensors",
    "depth-anything-3-mono-large": "depth_anything_3/depth-anything--DA3MONO-LARGE__model.safetensors",
    "depth-anything-3-metric-large": "depth_anything_3/depth-anything--DA3METRIC-LARGE__model.safetensors",
    "moge-2-small": "moge/Ruicheng--moge-2-vits-normal__model.pt",
    "moge-2-base": "moge/Ruicheng--moge-2-vitb-normal__model.pt",
    "moge-2-large": "moge/Ruicheng--moge-2-vitl-normal__model.pt",
    "midas-dpt-hybrid": "midas/dpt_hybrid-midas-501f0c75.pt",
    "midas-dpt-large": "midas/dpt_large-midas-2f21e586.pt",
    "zoedepth-n": "zoe/ZoeD_M12_N.pt",
    "normal-bae": "normal_bae/scannet.pt",
    "uniformer-ade20k": "uniformer/upernet_global_small.pth",
    "prompt-depth-anything-small": "prompt_depth_anything/promptda_vits.ckpt",
    "video-depth-anything-small": "video_depth_anything/video_depth_anything_vits.pth",
    "video-depth-anything-metric-small": "video_depth_anything/metric_video_depth_anything_vits.pth",
}


# Of Marigold v1-1, that is of Stable Diffusion 2, with twice the input channels.
_MARIGOLD = {
    "model_index": {"default_denoising_steps": 4},
    "unet": {
        "in_channels": 8,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "vae": {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "scheduler": {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "clip_sample": False,
    },
}


def described(id: str) -> Estimator:
    """The estimator, complete: Marigold's configuration lies beside its weights otherwise."""
    estimator: Any = fathom.estimators()[id]
    return replace(estimator, config=_MARIGOLD) if estimator.family == "marigold" else estimator


def checkpoint(id: str, folder: Path) -> Path:
    """A checkpoint of `id` in `folder`, filled from a seed, in the published layout where the tests hold it.

    Speed does not depend on the values; error measures on them stand in for those on the published weights.
    """
    if id in LAYOUTS:
        return published(LAYOUTS[id], folder)
    from safetensors.torch import save_file

    with loading.parameters_on_meta():
        network = described(id).build(weights.Checkpoint(folder, {}))
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in network.state_dict().items():
        value = torch.randn(tensor.shape, generator=generator) * 0.02 if tensor.is_floating_point() else tensor
        if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            value = value.abs() + 1
        state[name] = value.contiguous()
    path = folder / f"{id}.safetensors"
    save_file(state, path)
    return path


# How the published repositories of transformers models prepare a picture.
_HALF = {"do_resize": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
_PREPARE = {
    "midas/Intel--dpt-hybrid-midas": _HALF
    | {"size": {"height": 384, "width": 384}, "image_processor_type": "DPTImageProcessor"},
    "zoe/Intel--zoedepth-nyu-kitti": _HALF
    | {
        "size": {"height": 384, "width": 512},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 32,
        "do_pad": True,
        "image_processor_type": "ZoeDepthImageProcessor",
    },
}


def repository(layout: str, hub: Path) -> Path:
    """A transformers repository in a Hugging Face cache at `hub`, its weights filled from a seed; its weights file."""
    folder = hub / f"models--{layout.split('/')[1]}"
    snapshot = folder / "snapshots" / "seed0"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("seed0")
    (snapshot / "preprocessor_config.json").write_text(json.dumps(_PREPARE[layout]))
    return published(f"{layout}__model.safetensors", snapshot) / "model.safetensors"


def load(id: str, folder: Path, dtype: torch.dtype | None = None) -> Annotator:
    """The loaded estimator, on its real weights where they are on disk, else on `checkpoint`'s."""
    estimator = described(id)
    if estimator.embedded or weights.find(estimator.sources):
        return fathom.load(id, dtype=dtype)
    path = folder / Path(LAYOUTS.get(id, f"{id}.safetensors")).name
    return fathom.load(estimator, path if path.exists() else checkpoint(id, folder), dtype=dtype)


def prompt(estimator: Estimator, count: int) -> dict[str, Any]:
    """What `estimator` takes beside `count` pictures, for a call: a measured map as of a phone, or nothing."""
    if not estimator.takes:
        return {}
    metres = 1 + 3 * torch.rand(count, 192, 256, generator=torch.Generator().manual_seed(0))
    return {"prompt": depth_from_metres(metres)}


def network_inputs(annotator: Annotator, size: int) -> tuple[torch.Tensor, ...]:
    """What the bare network takes for one picture of `size` x `size`, random."""
    estimator = annotator.estimator
    fit = estimator.fit(size, size, size)
    # MoGe resizes within its network.
    height, width = fit.source if estimator.family == "moge" else fit.network
    window = (1, estimator.window) if estimator.window > 1 else (1,)
    pixels = torch.rand(*window, 3, height, width, device=annotator.device, dtype=annotator.dtype)
    beside = prompt(estimator, 1)
    return (pixels, beside["prompt"].metres()[:, None].to(annotator.device)) if beside else (pixels,)


def plain_linear_layers(network: nn.Module) -> nn.Module:
    """`network` with torch's own linear layers, changed in place."""
    for module in network.modules():
        if type(module) is ProcessorLinear:
            module.__class__ = nn.Linear
    return network
