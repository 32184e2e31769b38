"""Marigold: depth, surface normals and intrinsic images by a diffusion model.

Ke et al., CVPR 2024, arXiv 2312.02145; arXiv 2505.09358.

The pipelines, the schedulers and the networks are those of diffusers (MarigoldDepthPipeline,
MarigoldNormalsPipeline, MarigoldIntrinsicsPipeline); here stand the sizes around them, the loading of the repository's
folder and the seeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..annotator import host
from ..annotator.estimator import HALF_MEAN, HALF_STD, Estimator, Licence, Option
from ..annotator.loading import parameters_on_meta
from ..annotator.sizing import Fit, Size, bounded
from ..annotator.weights import Checkpoint, Found, Source, load_strict, named_settings, read, read_json
from ..errors import SignalError, WeightsError
from ..signals import Depth, Intrinsics, Layer, Normals, Signal
from ..signals.depth import DepthLook
from ..signals.normals import unit_vectors
from ._sources import published

_SCHEDULERS = ("DDIMScheduler", "LCMScheduler")
_EMPTY_PROMPT = (49406, 49407)  # CLIP's tokens of "": begin and end
_VAE_SCALE = 8
_UNKNOWN = (KeyError, TypeError, ValueError, AttributeError, SignalError)
_UNBUILDABLE = (KeyError, TypeError, ValueError, AttributeError, NotImplementedError, ZeroDivisionError, RuntimeError)
_LATENT = 4  # channels of the autoencoder's code for one map
_PIPELINES: dict[str, tuple[str, ...]] = {
    "depth": ("MarigoldDepthPipeline", "MarigoldPipeline"),
    "normals": ("MarigoldNormalsPipeline",),
    "intrinsics": ("MarigoldIntrinsicsPipeline",),
}
# What each configuration may say: for the networks whatever changes their shape or arithmetic in the published files,
# then what stands there and changes nothing. Anything else is refused: libraries take code from where a key says.
_UNET = frozenset(
    "in_channels out_channels center_input_sample flip_sin_to_cos freq_shift down_block_types mid_block_type "
    "up_block_types only_cross_attention block_out_channels layers_per_block downsample_padding mid_block_scale_factor "
    "dropout act_fn norm_num_groups norm_eps cross_attention_dim transformer_layers_per_block "
    "reverse_transformer_layers_per_block encoder_hid_dim encoder_hid_dim_type attention_head_dim num_attention_heads "
    "dual_cross_attention use_linear_projection class_embed_type addition_embed_type addition_time_embed_dim "
    "num_class_embeds upcast_attention resnet_time_scale_shift resnet_skip_time_act resnet_out_scale_factor "
    "time_embedding_type time_embedding_dim time_embedding_act_fn timestep_post_act time_cond_proj_dim conv_in_kernel "
    "conv_out_kernel projection_class_embeddings_input_dim attention_type class_embeddings_concat "
    "mid_block_only_cross_attention cross_attention_norm addition_embed_type_num_heads".split()
)
_VAE = frozenset(
    "in_channels out_channels down_block_types up_block_types block_out_channels layers_per_block act_fn "
    "latent_channels norm_num_groups scaling_factor shift_factor latents_mean latents_std force_upcast use_quant_conv "
    "use_post_quant_conv mid_block_add_attention".split()
)
_TEXT = frozenset(
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads max_position_embeddings hidden_act "
    "layer_norm_eps".split()
)
_SCHEDULER = frozenset(
    "_class_name num_train_timesteps beta_start beta_end beta_schedule trained_betas clip_sample set_alpha_to_one "
    "steps_offset prediction_type thresholding dynamic_thresholding_ratio clip_sample_range sample_max_value "
    "timestep_spacing rescale_betas_zero_snr original_inference_steps timestep_scaling".split()
)
_DIFFUSERS = {"_class_name", "_diffusers_version", "_name_or_path", "sample_size"}
_WITHOUT_EFFECT = {
    "unet": _DIFFUSERS,
    "vae": _DIFFUSERS,
    "scheduler": {"_diffusers_version", "skip_prk_steps"},
    "text_encoder": set(
        "_name_or_path architectures attention_dropout bos_token_id dropout dtype eos_token_id initializer_factor "
        "initializer_range model_type pad_token_id projection_dim return_dict torch_dtype transformers_version "
        "use_cache".split()
    ),
}
_CONFIGURATIONS = {"unet": _UNET, "vae": _VAE, "text_encoder": _TEXT, "scheduler": _SCHEDULER}


def _diffusers() -> Any:
    """diffusers, whose typed modules export nothing by name."""
    import diffusers

    return diffusers


class Marigold(nn.Module):
    """The networks of a Marigold repository, driven by diffusers' own pipeline.

    config: the contents of model_index.json ("model_index") and of the folders' configurations ("unet", "vae",
    "scheduler"). produces: what the pipeline predicts. text: the embedding of the empty prompt, in place of the text
    encoder.
    """

    def __init__(self, config: Mapping[str, Any], produces: str) -> None:
        super().__init__()
        diffusers = _diffusers()
        self.config, self.produces = config, produces
        self.unet = diffusers.UNet2DConditionModel.from_config(dict(config["unet"]))
        self.vae = diffusers.AutoencoderKL.from_config(dict(config["vae"]))
        self.text: Tensor
        self.register_buffer("text", torch.zeros(1, len(_EMPTY_PROMPT), config["unet"]["cross_attention_dim"]))

    @property
    def default_steps(self) -> int:
        """The denoising steps that the repository recommends."""
        return int(self.config["model_index"].get("default_denoising_steps") or 1)

    def forward(
        self,
        pixels: Tensor,
        steps: int = 0,
        ensemble_size: int = 1,
        seed: int = 0,
        tick: Callable[[], Any] = lambda: None,
    ) -> Tensor:
        """(B,3,h,w) in -1..1, at the processing resolution -> depth (B,h,w), 0 near to 1 far; normals (B,3,h,w); or
        intrinsic maps (B,3n,h,w), one after the other, in 0..1.

        steps: 0 = the repository's default. seed: every picture starts from it anew, so a batch equals single
        runs. tick: called after each denoising step of each member of each ensemble.
        """
        pipe = self._pipeline(tick)
        parts = [
            pipe(
                picture,
                num_inference_steps=steps or self.default_steps,
                ensemble_size=ensemble_size,
                processing_resolution=0,
                match_input_resolution=False,
                generator=torch.Generator().manual_seed(seed),
                output_type="pt",
            ).prediction
            for picture in pixels.split(1)
        ]
        # Of one picture, the maps of a decomposition come as a batch of their own.
        result = torch.stack(parts).flatten(1, 2)
        return result[:, 0] if self.produces == "depth" else result

    def _pipeline(self, tick: Callable[[], Any]) -> Any:
        from diffusers.pipelines.marigold.marigold_image_processing import MarigoldImageProcessor

        diffusers = _diffusers()
        index, scheduler = self.config["model_index"], self.config["scheduler"]
        parts = {
            "unet": self.unet,
            "vae": self.vae,
            "scheduler": getattr(diffusers, scheduler["_class_name"]).from_config(dict(scheduler)),
            "text_encoder": None,
            "tokenizer": None,
        }
        if self.produces == "normals":
            pipe = diffusers.MarigoldNormalsPipeline(
                **parts,
                prediction_type="normals",
                use_full_z_range=index.get("use_full_z_range", True),
            )
        elif self.produces == "intrinsics":
            pipe = diffusers.MarigoldIntrinsicsPipeline(**parts, prediction_type="intrinsics")
        else:
            pipe = diffusers.MarigoldDepthPipeline(
                **parts,
                prediction_type="depth",
                scale_invariant=index.get("scale_invariant", True),
                shift_invariant=index.get("shift_invariant", True),
            )
        pipe.empty_text_embedding = self.text
        # Pictures come resized and normalised.
        pipe.image_processor = MarigoldImageProcessor(pipe.vae_scale_factor, do_normalize=False, do_range_check=False)

        def progress_bar(iterable: Any, **_: Any) -> Any:
            # The pipeline reports two loops: over the members (a range) and over the timesteps (a tensor).
            for item in iterable:
                yield item
                if isinstance(iterable, Tensor):
                    tick()

        pipe.progress_bar = progress_bar
        return pipe


@dataclass(frozen=True, kw_only=True)
class MarigoldEstimator(Estimator):
    """config: the configuration, as in `Marigold`, of a network that comes as one file; None = the folder's.
    targets: of a decomposition, the maps that it predicts, as model_index.json tells it in "target_properties"."""

    config: Mapping[str, Any] | None = None
    targets: Mapping[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------------------ the network

    def read(self, found: Found) -> Checkpoint:
        """All parts of the folder as one checkpoint: "unet.*", "vae.*" and "text", the empty prompt's embedding."""
        if found.path.name != "model_index.json" and self.config is not None:
            return read(found)
        if found.path.name != "model_index.json":
            raise WeightsError(
                f"{self.name}: {found.path} is one file; Marigold is a diffusers folder with model_index.json, unet, "
                "vae, text_encoder and scheduler. Give the folder."
            )
        names = {part: f"{part}/config.json" for part in ("unet", "vae", "text_encoder")}
        names["scheduler"] = "scheduler/scheduler_config.json"
        config: dict[str, Any] = {"model_index": read_json(found.path)}
        for part, name in names.items():
            config[part] = named_settings(found.root / name, _CONFIGURATIONS[part], _WITHOUT_EFFECT[part])
        tensors = {"text": self._empty_prompt(found, config["text_encoder"])}
        for part in ("unet", "vae"):
            part_tensors = self._part(found, part, "diffusion_pytorch_model").tensors
            tensors |= {f"{part}.{name}": tensor for name, tensor in part_tensors.items()}
        return Checkpoint(found.path, tensors, config, layout=found.layout, found=found)

    def _part(self, found: Found, part: str, stem: str) -> Checkpoint:
        chosen = [name.partition("/")[2] for name in found.also if name.startswith(f"{part}/")]
        bins = "pytorch_model" if part == "text_encoder" else stem
        names = [name for name in chosen if not name.endswith(".json")]
        names += [f"{stem}.safetensors", f"{stem}.fp16.safetensors", f"{bins}.bin", f"{bins}.fp16.bin"]
        for name in names:
            if (found.root / part / name).is_file():
                return read(found.root / part / name)
        raise WeightsError(f"{self.name}: {found.root / part} holds none of {', '.join(names)}.")

    def _empty_prompt(self, found: Found, config: Mapping[str, Any]) -> Tensor:
        from transformers import CLIPTextConfig, CLIPTextModel

        checkpoint = self._part(found, "text_encoder", "model")
        if all(tensor.is_meta for tensor in checkpoint.tensors.values()):
            return torch.empty(1, len(_EMPTY_PROMPT), int(config.get("hidden_size") or 0), device="meta")
        try:
            with parameters_on_meta():
                encoder = CLIPTextModel(CLIPTextConfig(**{**config, "attn_implementation": "sdpa"}))
        except _UNBUILDABLE as error:
            raise WeightsError(f"{self.name}: {found.root / 'text_encoder/config.json'}: {error}") from error
        # Newer transformers leave out the outer name that the files carry.
        outer = "text_model." if next(iter(encoder.state_dict())).startswith("text_model.") else ""
        tensors = {outer + name.removeprefix("text_model."): tensor for name, tensor in checkpoint.tensors.items()}
        extras = {"*position_ids": "counts upwards"}
        load_strict(encoder, tensors, extras=extras, name=f"{self.name}, text encoder", path=checkpoint.path)
        with torch.no_grad():
            return encoder.float().eval()(torch.tensor([_EMPTY_PROMPT]))[0].detach()

    def adapt(self, checkpoint: Checkpoint) -> Estimator:
        if checkpoint.config is None:
            return self
        index = checkpoint.config["model_index"]
        kind, wanted = str(index.get("_class_name")), _PIPELINES[self.produces[0]]
        if kind not in wanted:
            raise WeightsError(f"{self.name}: {checkpoint.path} describes a {kind}, expected {' or '.join(wanted)}.")
        scheduler = checkpoint.config["scheduler"].get("_class_name")
        if scheduler not in _SCHEDULERS:
            raise WeightsError(
                f"{self.name}: the scheduler beside {checkpoint.path} is {scheduler!r}, "
                f"expected {' or '.join(_SCHEDULERS)}."
            )
        return self if "intrinsics" not in self.produces else self._decomposing(index, checkpoint)

    def _decomposing(self, index: Mapping[str, Any], checkpoint: Checkpoint) -> Estimator:
        """The estimator with the maps that the folder tells of, where it tells."""
        targets = index.get("target_properties") or self.targets
        try:
            names, count = [layer.name for layer, _ in _layers(targets)], len(targets["target_names"])
        except _UNKNOWN as error:
            raise WeightsError(
                f"{self.name}: {checkpoint.path} describes its maps in target_properties in a way that is not known: "
                f"{targets!r}."
            ) from error
        wanted = [layer.name for layer, _ in _layers(self.targets)]
        if names != wanted:
            raise WeightsError(
                f"{self.name}: {checkpoint.path} predicts {', '.join(names)}; expected {', '.join(wanted)}. Choose the "
                "estimator that goes with this folder."
            )
        assert checkpoint.config is not None  # noqa: S101
        if (channels := checkpoint.config["unet"].get("out_channels")) != count * _LATENT:
            raise WeightsError(
                f"{self.name}: {checkpoint.path} predicts {count} maps, which need {count * _LATENT} channels; its "
                f"unet/config.json tells of {channels}."
            )
        return replace(self, targets=targets)

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        config = checkpoint.config or self.config
        if config is None:
            raise WeightsError(f"{self.name}: {checkpoint.path} comes without the configuration of its networks.")
        try:
            return Marigold(config, self.produces[0])
        except _UNBUILDABLE as error:
            raise WeightsError(
                f"{self.name}: the networks that unet/config.json and vae/config.json beside {checkpoint.path} "
                f"describe cannot be built: {type(error).__name__}: {error}"
            ) from error

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        # The autoencoder is Stable Diffusion 2's, whose file names its attention in the way of diffusers 0.10.
        old = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
        pattern = re.compile(r"(vae\..*\.attentions\.\d+\.)(query|key|value|proj_attn)\.")
        return {pattern.sub(lambda m: f"{m[1]}{old[m[2]]}.", name): tensor for name, tensor in tensors.items()}

    def tiny(self) -> Estimator:
        down, up = ["DownBlock2D", "CrossAttnDownBlock2D"], ["CrossAttnUpBlock2D", "UpBlock2D"]
        latent = _LATENT * len(self.targets.get("target_names", [""]))
        unet = {
            **{"in_channels": _LATENT + latent, "out_channels": latent},
            **{"block_out_channels": [8, 16], "layers_per_block": 1},
            **{"down_block_types": down, "up_block_types": up, "cross_attention_dim": 8, "attention_head_dim": 4},
            **{"norm_num_groups": 4, "use_linear_projection": True},
        }
        vae = {
            **{"block_out_channels": [4, 4, 4, 8], "layers_per_block": 1, "latent_channels": _LATENT},
            **{"norm_num_groups": 2},
            **{"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4},
        }
        scheduler = {
            **{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"},
            **{"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "clip_sample": False},
        }
        index = {"default_denoising_steps": 2}
        config = {"model_index": index, "unet": unet, "vae": vae, "scheduler": scheduler}
        options = tuple(replace(o, default=64) if o.name == "processing_resolution" else o for o in self.options)
        return replace(self, config=config, options=options)

    # ------------------------------------------------------------------------------ one picture's way

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        return self.plan(height, width, resolution, self.settings({}))

    def plan(self, height: int, width: int, resolution: int | None, options: Mapping[str, Any]) -> Fit:
        """The long side is `processing_resolution` (0 = the picture's own size, at most 4 megapixels); `resolution`
        is the result's alone."""
        if edge := options["processing_resolution"]:
            longer = max(height, width)
            network = (max(1, height * edge // longer), max(1, width * edge // longer))
        else:
            rows, columns = bounded(height, width, _VAE_SCALE)
            network = (max(1, int(rows)), max(1, int(columns)))
        return Fit((height, width), network, "bilinear_aa", "bilinear")

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        inside = next(network.parameters()).dtype
        steps = options["steps"] or network.default_steps
        members, seed = options["ensemble_size"], options["seed"]
        parts = []
        with host.progress(len(pixels) * members * steps, self.name, "step") as bar:
            for picture in pixels.split(1):
                # In diffusers' order and in the memory order of a PIL image there, to the bit: ensembles are aligned
                # by gradients that are mostly rounding.
                picture = picture.contiguous(memory_format=torch.channels_last)
                entering = fit.enter(self.normalise(picture)).to(inside)
                raw = network(entering, steps, members, seed, bar.update).float()
                parts.append(fit.leave(raw[:, None] if raw.ndim == 3 else raw, size))
        return torch.cat(parts)

    def signal(self, raw: Tensor) -> Signal:
        if "normals" in self.produces:
            # The published frame is ours: x right, y up, z towards the viewer.
            return Normals(unit_vectors(raw.permute(0, 2, 3, 1)), None, self.name)
        if "intrinsics" in self.produces:
            layers = _layers(self.targets)
            channels = [channel for layer, first in layers for channel in range(first, first + layer.channels)]
            values = raw[:, channels].permute(0, 2, 3, 1).contiguous()
            return Intrinsics(values, tuple(layer for layer, _ in layers), self.name)
        # The published values are 0 at the near plane and 1 at the far plane, which the model chooses.
        return Depth(1 - raw[:, 0], "affine_depth", source=self.name, look=DepthLook(fixed=(0, 1)))

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        # One picture after the other.
        network, picture = fit.network[0] * fit.network[1], fit.source[0] * fit.source[1]
        maps = len(self.targets.get("target_names", [""]))
        return network * (self.memory * dtype.itemsize // 4) + picture * 12 * maps * (2 * batch + 2)


def _layers(targets: Mapping[str, Any]) -> list[tuple[Layer, int]]:
    """The maps that `targets` (as in MarigoldEstimator) names, each with its first channel in the network's result.

    A target is a colour, or a stack of up to three measures. Raises one of `_UNKNOWN` for a description that is none.
    """
    found = []
    for index, name in enumerate(targets["target_names"]):
        about = targets[name]
        if about.get("prediction_space") != "stack":
            found.append((_layer(name, 3, about), 3 * index))
            continue
        for channel, measure in zip(range(3), about["sub_target_names"], strict=True):
            if measure is not None:
                found.append((_layer(measure, 1, targets[measure]), 3 * index + channel))
    return found


def _layer(name: str, channels: Literal[1, 3], about: Mapping[str, Any]) -> Layer:
    return Layer(name, channels, about.get("prediction_space", "srgb"), bool(about.get("up_to_scale", False)))


def _options(edge: int = 768) -> tuple[Option, ...]:
    return (
        Option("steps", 0, 0, 1000, about="Denoising steps; 0 = what the model's publisher recommends."),
        Option("ensemble_size", 1, 1, 100, about="Predictions to combine; 3 or more are steadier, and slower."),
        Option("seed", 0, 0, 2**64 - 1, about="Start of the noise; every picture of a batch starts from the same."),
        Option(
            "processing_resolution",
            edge,
            0,
            4096,
            about="Long side that the network sees, in pixels; 0 = the picture's own.",
        ),
    )


def _sources(repo: str) -> tuple[Source, ...]:
    configs = tuple(f"{part}/config.json" for part in ("unet", "vae", "text_encoder"))
    sources = []
    for variant in ("", ".fp16"):
        main = f"unet/diffusion_pytorch_model{variant}.safetensors"
        vae = f"vae/diffusion_pytorch_model{variant}.safetensors"
        text = f"text_encoder/model{variant}.safetensors"
        also = (*configs, "scheduler/scheduler_config.json", main, vae, text)
        sources.append(published(repo, "model_index.json", "diffusers", also))
    return tuple(sources)


_RAIL = Licence(
    "CreativeML Open RAIL++-M", True, "https://huggingface.co/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL"
)


_ETH_RAIL = Licence("Open RAIL++-M", True, "https://github.com/prs-eth/Marigold/blob/main/LICENSE-MODEL.txt")

_LINEAR = {"prediction_space": "linear", "up_to_scale": False}
_TO_SCALE = {"prediction_space": "linear", "up_to_scale": True}
_APPEARANCE = {
    "target_names": ["albedo", "material"],
    "albedo": {"prediction_space": "srgb"},
    "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
    "roughness": _LINEAR,
    "metallicity": _LINEAR,
}
_LIGHTING = {
    "target_names": ["albedo", "shading", "residual"],
    "albedo": _LINEAR,
    "shading": _TO_SCALE,
    "residual": _TO_SCALE,
}


def _marigold(
    id: str,
    name: str,
    repo: str,
    about: str,
    licence: Licence,
    produces: tuple[str, ...] = ("depth",),
    targets: Mapping[str, Any] | None = None,
) -> Estimator:
    # Each further map widens the first and the last convolution of the denoiser.
    further = len((targets or {}).get("target_names", [""])) - 1
    return MarigoldEstimator(
        id=id,
        name=name,
        family="marigold",
        produces=produces,
        licence=licence,
        parameters=949_576_107 + further * 23_044,
        targets=targets or {},
        sources=_sources(repo),
        about=about,
        memory=6500,
        options=_options(),
        mean=HALF_MEAN,
        std=HALF_STD,
    )


ESTIMATORS: tuple[Estimator, ...] = (
    _marigold(
        "marigold-depth",
        "Marigold Depth",
        "prs-eth/marigold-depth-v1-1",
        "Fine detail and clean edges in a few diffusion steps; relative distance, slow without a GPU.",
        _RAIL,
    ),
    _marigold(
        "marigold-depth-lcm",
        "Marigold Depth LCM",
        "prs-eth/marigold-depth-lcm-v1-0",
        "The first Marigold distilled to one step: faster, somewhat softer.",
        Licence("not stated", None, "https://huggingface.co/prs-eth/marigold-depth-lcm-v1-0"),
    ),
    _marigold(
        "marigold-normals",
        "Marigold Normals",
        "prs-eth/marigold-normals-v1-1",
        "Surface normals with fine relief in a few diffusion steps; slow without a GPU.",
        _RAIL,
        produces=("normals",),
    ),
    _marigold(
        "marigold-appearance",
        "Marigold Appearance",
        "prs-eth/marigold-iid-appearance-v1-1",
        "What surfaces are like whatever the light: colour, roughness, metal; best indoors, slow without a GPU.",
        _ETH_RAIL,
        produces=("intrinsics",),
        targets=_APPEARANCE,
    ),
    _marigold(
        "marigold-lighting",
        "Marigold Lighting",
        "prs-eth/marigold-iid-lighting-v1-1",
        "The colour of surfaces, the light on them and what shines, apart; best indoors, slow without a GPU.",
        _ETH_RAIL,
        produces=("intrinsics",),
        targets=_LIGHTING,
    ),
)


def of_repository(repository: str, like: str) -> Estimator:
    """The estimator `like`, "marigold-depth" or "marigold-normals", with the weights of another repository of the same
    layout, such as an earlier version. It is no estimator of the registry: nothing is known of its files beforehand."""
    known = next(e for e in ESTIMATORS if e.id == like)
    name = repository.rpartition("/")[2]
    licence = Licence("not stated", None, f"https://huggingface.co/{repository}")
    return replace(known, id=name, name=name, licence=licence, sources=_sources(repository))
