"""OneFormer: semantic segmentation by one network for every task (Jain et al., CVPR 2023, arXiv 2211.06220).

Network: transformers' OneFormerModel on a Swin-L backbone of ours; weights of shi-labs on the Hugging Face Hub, and the
authors' own detectron2 files, which the ControlNet annotators use. Processing is that of transformers'
OneFormerImageProcessor on both layouts: the detectron2 code pads the picture to multiples of 32 and enlarges the
mask logits instead of the class scores, so its labels differ along the borders of regions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence
from ..annotator.sizing import ARGMAX_ELEMENTS, Fit, Size, argmax_at
from ..annotator.weights import Checkpoint, Source
from ..errors import WeightsError
from ..signals import Palette, Segmentation
from ._sources import published
from ._swin import Swin

# CLIP's tokens of "the task is semantic"; the rest of the 77 places is 0.
_TASK = (49406, 518, 10549, 533, 29119, 1550, 49407)
_TASK_LENGTH = 77

_SWIN_LARGE = {"width": 192, "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48), "window": 12}


class OneFormer(nn.Module):
    """OneFormer asked for semantic segmentation.

    Input: (B,3,h,w) normalised, any h and w. Output: class scores (B,C,h/4,w/4), float32: the sum over the queries
    of softmax(class), without the "no object" class, times sigmoid(mask).
    """

    def __init__(self, swin: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import OneFormerConfig, SwinConfig
        from transformers.models.oneformer.modeling_oneformer import OneFormerModel

        # transformers' own backbone is built with one block per stage, for its widths alone.
        stages = len(swin["depths"])
        few: dict[str, Any] = {"embed_dim": swin["width"], "depths": [1] * stages, "num_heads": [1] * stages}
        few["out_features"] = [f"stage{i + 1}" for i in range(stages)]
        config = OneFormerConfig(
            backbone_config=SwinConfig(**few),  # pyright: ignore[reportArgumentType]
            use_auxiliary_loss=False,
            output_auxiliary_logits=False,
            **settings,
        )
        self.model = OneFormerModel(config)
        self.model.pixel_level_module.encoder = Swin(**swin)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B,3,h,w) normalised -> class scores (B,C,h/4,w/4)."""
        task = pixels.new_zeros(len(pixels), _TASK_LENGTH)
        task[:, : len(_TASK)] = pixels.new_tensor(_TASK)
        out = self.model(pixels, task)
        classes = out.transformer_decoder_class_predictions.float().softmax(-1)[..., :-1]
        masks = out.transformer_decoder_mask_predictions.float().sigmoid()
        return torch.einsum("bqc,bqhw->bchw", classes, masks)


@dataclass(frozen=True, kw_only=True)
class OneFormerEstimator(Estimator):
    """palette: of the data set. queries: object queries. short, long: the network's short side and the most its long
    side may have. swin: the arguments of the backbone. decoder: what differs from OneFormerConfig's defaults."""

    palette: str
    queries: int
    short: int
    long: int
    swin: Mapping[str, Any] = field(default_factory=lambda: dict(_SWIN_LARGE))
    decoder: Mapping[str, Any] = field(default_factory=dict)

    def adapt(self, checkpoint: Checkpoint) -> Estimator:
        embed = "model.transformer_module.decoder.class_embed.bias", "sem_seg_head.predictor.class_embed.bias"
        held = next((checkpoint.tensors[k] for k in embed if k in checkpoint.tensors), None)
        expected = len(Palette.named(self.palette))
        if held is not None and len(held) != expected + 1:
            raise WeightsError(
                f"{self.name}: {checkpoint.path} tells {len(held) - 1} classes apart, {self.palette} has {expected}. "
                "It is a OneFormer of another data set: choose the estimator of that one."
            )
        return self

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        classes = len(Palette.named(self.palette))
        return OneFormer(self.swin, {"num_queries": self.queries, "num_labels": classes, **self.decoder})

    def translate(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if any(name.startswith("sem_seg_head.") for name in tensors):
            return _from_detectron2(tensors)
        return tensors

    def tiny(self) -> Estimator:
        swin = {"width": 8, "depths": (2, 1, 1, 1), "heads": (1, 1, 2, 2), "window": 4}
        small = {
            **dict.fromkeys(("conv_dim", "mask_dim", "hidden_dim", "encoder_feedforward_dim", "dim_feedforward"), 32),
            **{"encoder_layers": 1, "decoder_layers": 3, "query_dec_layers": 1, "num_attention_heads": 4},
        }
        return replace(self, swin=swin, decoder=small, queries=20, short=64, long=256)

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        """The published rule whatever the resolution, as in the ControlNet annotator: `resolution` is the result's."""
        side, other = min(height, width), max(height, width)
        short, long = self.short, int(self.short * other / side)
        if long > self.long:
            short, long = max(1, int(self.long * short / long)), self.long
        network = (short, long) if height <= width else (long, short)
        return Fit((height, width), network, "bilinear_pil", "bilinear")

    def raw(self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]) -> Tensor:
        """Labels int64 (B,height,width)."""
        inside = next(network.parameters()).dtype
        # One at a time: the decoder's hard masks turn the last bit of a sum, which depends on the batch, into labels.
        return torch.cat([argmax_at(network(self.normalise(fit.enter(p)).to(inside)), size) for p in pixels.split(1)])

    def signal(self, raw: Tensor) -> Segmentation:
        return Segmentation(raw, Palette.named(self.palette), self.name)

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        return labelling_memory(self.memory, batch, fit, dtype)


def labelling_memory(per_pixel: int, batch: int, fit: Fit, dtype: torch.dtype) -> int:
    """Bytes of a forward of one picture after the other, with the picture in its forms and the work of `argmax_at`."""
    network, picture = fit.network[0] * fit.network[1], fit.source[0] * fit.source[1]
    return network * (per_pixel * dtype.itemsize // 4) + picture * (12 * batch + 60) + 4 * ARGMAX_ELEMENTS


# ------------------------------------------------------------------------------------------------ names

# The detectron2 files' names -> those of transformers 4. Source of the correspondence: transformers'
# convert_to_hf_oneformer.py.
_DETECTRON2 = (
    (r"^backbone\.patch_embed\.proj\.", "E.embeddings.patch_embeddings.projection."),
    (r"^backbone\.patch_embed\.norm\.", "E.embeddings.norm."),
    (r"^backbone\.norm0\.", "E.hidden_states_norms.stage1."),
    (r"^backbone\.norm1\.", "E.hidden_states_norms.stage2."),
    (r"^backbone\.norm2\.", "E.hidden_states_norms.stage3."),
    (r"^backbone\.norm3\.", "E.hidden_states_norms.stage4."),
    (r"^(backbone\.layers.*)\.norm1\.", r"\1.layernorm_before."),
    (r"^(backbone\.layers.*)\.norm2\.", r"\1.layernorm_after."),
    (r"^(backbone\.layers.*)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"^(backbone\.layers.*)\.attn\.(relative|query|key|value)", r"\1.attention.self.\2"),
    (r"^(backbone\.layers.*)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(backbone\.layers.*)\.mlp\.fc2\.", r"\1.output.dense."),
    (r"^backbone\.layers\.", "E.encoder.layers."),
    (r"^sem_seg_head\.pixel_decoder\.(adapter_1|layer_1)\.norm\.", r"D.\1.1."),
    (r"^sem_seg_head\.pixel_decoder\.(adapter_1|layer_1)\.", r"D.\1.0."),
    (r"^sem_seg_head\.pixel_decoder\.input_proj\.", "D.input_projections."),
    (r"^sem_seg_head\.pixel_decoder\.mask_features\.", "D.mask_projection."),
    (r"^sem_seg_head\.pixel_decoder\.transformer\.level_embed$", "D.level_embed"),
    (r"^sem_seg_head\.pixel_decoder\.transformer\.", "D."),
    (r"^(D\.encoder\.layers\.\d+)\.linear([12])\.", r"\1.fc\2."),
    (r"^(D\.encoder\.layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"^(D\.encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"^sem_seg_head\.predictor\.query_embed\.", "T.queries_embedder."),
    (r"^sem_seg_head\.predictor\.level_embed\.", "T.level_embed."),
    (r"^sem_seg_head\.predictor\.class_input_proj\.", "T.decoder.query_input_projection."),
    (r"^sem_seg_head\.predictor\.class_transformer\.", "T.decoder.query_transformer."),
    (r"^sem_seg_head\.predictor\.mask_embed\.layers\.(\d)\.", r"T.decoder.mask_embed.layers.\1.0."),
    (r"^sem_seg_head\.predictor\.transformer_cross_attention_layers\.(\d+)\.", r"T.decoder.layers.\1.cross_attn."),
    (r"^sem_seg_head\.predictor\.transformer_self_attention_layers\.(\d+)\.", r"T.decoder.layers.\1.self_attn."),
    (r"^sem_seg_head\.predictor\.transformer_ffn_layers\.(\d+)\.", r"T.decoder.layers.\1.ffn."),
    (r"^sem_seg_head\.predictor\.(decoder_norm|class_embed)\.", r"T.decoder.\1."),
    (r"^task_mlp\.layers\.(\d)\.", r"model.task_encoder.task_mlp.layers.\1.0."),
    (r"^E\.", "model.pixel_level_module.encoder."),
    (r"^D\.", "model.pixel_level_module.decoder."),
    (r"^T\.", "model.transformer_module."),
)
_BACKBONE_QKV = re.compile(r"(backbone\..*\.attn\.)qkv\.(weight|bias)")
_DECODER_QKV = re.compile(r"(sem_seg_head\.predictor\.transformer_self_.*\.self_attn\.)in_proj_(weight|bias)")


def _from_detectron2(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' own layout under the names of transformers 4; joint query, key, value projections are parted."""
    parted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := _BACKBONE_QKV.fullmatch(name):
            names = [f"{match[1]}{part}.{match[2]}" for part in ("query", "key", "value")]
            parted.update(zip(names, tensor.chunk(3), strict=True))
        elif match := _DECODER_QKV.fullmatch(name):
            names = [f"{match[1]}{part}_proj.{match[2]}" for part in "qkv"]
            parted.update(zip(names, tensor.chunk(3), strict=True))
        else:
            parted[name] = tensor
    renamed = {}
    for name, tensor in parted.items():
        for pattern, to in _DETECTRON2:
            name = re.sub(pattern, to, name)
        renamed[name] = tensor
    return renamed


_EXTRAS = {
    "criterion.*": "weights of the training loss",
    "model.text_mapper.*": "the text branch, which training alone compares the queries with",
    "text_encoder.*": "the text branch of the detectron2 files, which training alone compares the queries with",
    "text_projector.*": "the same",
    "prompt_ctx.*": "the same",
    "*relative_position_index": "follows from the window size and is computed",
}


def _oneformer(id: str, name: str, palette: str, about: str, sources: tuple[Source, ...], **rule: int) -> Estimator:
    return OneFormerEstimator(
        id=id,
        name=name,
        family="oneformer",
        produces=("segmentation",),
        licence=Licence("MIT", True, f"https://huggingface.co/{sources[0].repo}"),
        parameters=rule["parameters"],
        sources=sources,
        about=about,
        memory=1700,
        # The decoder cuts its masks at one half: other last bits become other regions.
        fast_linear=False,
        extras=_EXTRAS,
        palette=palette,
        queries=rule["queries"],
        short=rule["short"],
        long=rule["long"],
    )


_ADE_PTH = "250_16_swin_l_oneformer_ade20k_160k.pth"
_ADE_SHA = "f7ac095c28ddea4715e854a587eaee24327c624cbbdb17095bc9903c51930b16"
_COCO_PTH = "150_16_swin_l_oneformer_coco_100ep.pth"
_COCO_SHA = "0684dfc39720c772b81d43639c3ae1896b5c15aa9ee9a76f4c593b19dfa33855"

ESTIMATORS: tuple[Estimator, ...] = (
    _oneformer(
        "oneformer-ade20k",
        "OneFormer ADE20K",
        "ade20k",
        "150 classes of indoor and outdoor scenes, floors, walls, sky and furniture among them; sharp regions.",
        (
            published("shi-labs/oneformer_ade20k_swin_large", "pytorch_model.bin", "transformers"),
            published("lllyasviel/Annotators", _ADE_PTH, "detectron2"),
            published("shi-labs/oneformer_ade20k_swin_large", _ADE_PTH, "detectron2"),
        ),
        parameters=218_811_147,
        queries=250,
        short=640,
        long=2560,
    ),
    _oneformer(
        "oneformer-coco",
        "OneFormer COCO",
        "coco_panoptic",
        "133 classes: the 80 countable things of COCO, people and animals among them, and 53 kinds of background.",
        (
            # Known by name only: the hash of the newest revision is not published where we can see it.
            published("shi-labs/oneformer_coco_swin_large", "pytorch_model.bin", "transformers"),
            published("lllyasviel/Annotators", _COCO_PTH, "detectron2"),
            published("shi-labs/oneformer_coco_swin_large", _COCO_PTH, "detectron2"),
        ),
        parameters=218_781_178,
        queries=150,
        short=800,
        long=1333,
    ),
)
