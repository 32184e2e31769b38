"""OneFormer: regions, objects, or both, by one network (Jain et al., CVPR 2023, arXiv 2211.06220).

Network: transformers' OneFormerModel on a Swin-L backbone of ours; weights of shi-labs on the Hugging Face Hub, and the
authors' own detectron2 files, which the ControlNet annotators use. Processing is that of transformers'
OneFormerImageProcessor on both layouts: the detectron2 code pads the picture to multiples of 32 and enlarges the
mask logits instead of the class scores, so its labels differ along the borders of regions.

What becomes of objects is the authors' own rule (SHI-Labs/OneFormer, oneformer_model.py, instance_inference and
panoptic_inference), not transformers': that one compares masks before the sigmoid, paints pixels that lie outside of
every mask, and gives one id to several segments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence, Option
from ..annotator.filters import ARGMAX_ELEMENTS, argmax_at, resize
from ..annotator.sizing import Fit, Size
from ..annotator.weights import Checkpoint, Source
from ..errors import SettingError, SignalError, WeightsError
from ..signals import Palette, Segmentation, Signal
from ..signals.instances import Instances, Thing, without_duplicates, without_empty
from ._sources import published
from ._swin import Swin

Task = Literal["semantic", "instance", "panoptic"]

# CLIP's tokens of "the task is ..."; the rest of the 77 places is 0.
_TASKS: Mapping[str, tuple[int, ...]] = {
    "semantic": (49406, 518, 10549, 533, 29119, 1550, 49407),
    "instance": (49406, 518, 10549, 533, 34572, 49407),
    "panoptic": (49406, 518, 10549, 533, 1072, 24755, 49407),
}
_TASK_LENGTH = 77

# OBJECT_MASK_THRESHOLD and DETECTIONS_PER_IMAGE of the authors' Swin-L configurations.
_PUBLISHED: Mapping[str, tuple[float, int]] = {"coco_panoptic": (0.8, 150), "ade20k": (0.5, 250)}
_OVERLAP = 0.8

_SWIN_LARGE = {"width": 192, "depths": (2, 2, 18, 2), "heads": (6, 12, 24, 48), "window": 12}


class OneFormer(nn.Module):
    """OneFormer, which is told its task with every picture.

    Input: (B,3,h,w) normalised, any h and w. Output of the task "semantic": class scores (B,C,h/4,w/4), float32: the
    sum over the queries of softmax(class), without the "no object" class, times sigmoid(mask). Of "instance" and
    "panoptic": the logits themselves, float32: classes (B,Q,C+1), the last "no object", and masks (B,Q,h/4,w/4).
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

    def forward(self, pixels: Tensor, task: Task = "semantic") -> Any:
        """(B,3,h,w) normalised -> class scores (B,C,h/4,w/4), or for other tasks (class logits, mask logits)."""
        tokens = pixels.new_zeros(len(pixels), _TASK_LENGTH)
        tokens[:, : len(_TASKS[task])] = pixels.new_tensor(_TASKS[task])
        out = self.model(pixels, tokens)
        classes = out.transformer_decoder_class_predictions.float()
        masks = out.transformer_decoder_mask_predictions.float()
        if task != "semantic":
            return classes, masks
        return torch.einsum("bqc,bqhw->bchw", classes.softmax(-1)[..., :-1], masks.sigmoid())


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
        bias = next((checkpoint.tensors[k] for k in embed if k in checkpoint.tensors), None)
        expected = len(Palette.named(self.palette))
        if bias is not None and len(bias) != expected + 1:
            raise WeightsError(
                f"{self.name}: {checkpoint.path} tells {len(bias) - 1} classes apart, {self.palette} has {expected}. "
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


# ------------------------------------------------------------------------------------------------ objects


def to_instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    size: Size,
    palette: str,
    *,
    threshold: float | None = None,
    countable: bool = True,
    most: int | None = None,
    network: Size | None = None,
    source: str = "",
) -> Instances:
    """The objects of the task "instance", by the authors' instance_inference; highest score first.

    class_logits (B,Q,K+1), the last class "no object"; mask_logits (B,Q,h,w); size: (height, width) of the result.
    palette: "coco_panoptic" or "ade20k". threshold: the class score that an object must exceed; None = as published,
    0.8 for COCO and 0.5 for ADE20K. countable: things alone, or stuff too. most: how many of the best pairs of query
    and class are looked at in a picture; None = as published, 150 and 250. network: (height, width) to which masks are
    brought first, as when a network saw the picture at that size. Masks are where the logit is above 0; a score is the
    class score times the mean probability inside the mask. Masks may overlap, and be equal or empty.

    Raises SettingError for another palette, SignalError for logits that do not fit it or hold NaN.
    """
    classes = _checked_logits(class_logits, mask_logits, palette)
    published, detections = _PUBLISHED[palette]
    threshold = published if threshold is None else threshold
    pictures = []
    for logits, masks in zip(class_logits.float(), mask_logits.float(), strict=True):
        scores = logits.softmax(-1)[:, :-1].flatten()
        best, pairs = scores.topk(min(detections if most is None else most, len(scores)))
        found: list[tuple[float, int, Thing]] = []
        for score, pair in zip(best, pairs.tolist(), strict=True):
            query, label = divmod(pair, len(classes))
            # A tensor compares in float32, as published.
            if not bool(score > threshold) or (countable and label not in classes.countable):
                continue
            mask = _enlarged(masks[query], network, size)
            inside = mask > 0
            share = (mask.sigmoid() * inside).sum() / (inside.sum() + 1e-6)
            final = float(score * share)
            found.append((-final, label, Thing(classes.names[label], min(final, 1.0), mask=inside)))
        # The order of equals must not hang on how the best were searched.
        pictures.append(tuple(thing for *_, thing in sorted(found, key=lambda f: f[:2])))
    return Instances(tuple(pictures), size, classes.names, source)


def to_panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    size: Size,
    palette: str,
    *,
    threshold: float | None = None,
    overlap: float = _OVERLAP,
    network: Size | None = None,
    source: str = "",
) -> tuple[Instances, Segmentation]:
    """The objects and the labels of the task "panoptic", by the authors' panoptic_inference; no two overlap.

    Arguments as in `to_instances`. overlap: the share of a query's own mask that must be left where it wins over the
    others. A pixel that no mask holds has label -1. Things have the class score of their query; stuff of one class is
    one region of the Segmentation, and no thing.
    """
    classes = _checked_logits(class_logits, mask_logits, palette)
    threshold = _PUBLISHED[palette][0] if threshold is None else threshold
    pictures, labels = [], []
    for logits, masks in zip(class_logits.float(), mask_logits.float(), strict=True):
        best, label = logits.softmax(-1).max(-1)
        kept = ((best > threshold) & (label < len(classes))).nonzero()[:, 0].tolist()
        winner, inside, areas = _winners(masks[kept], best[kept], network, size)
        seen = torch.bincount(winner.flatten() + 1, minlength=len(kept) + 1)[1:].tolist()
        map_: Tensor = torch.full(size, -1, dtype=torch.int64, device=masks.device)
        found: list[Thing] = []
        for k, query in enumerate(kept):
            # In float32, as it is published: a share of exactly `overlap` would else fall on the other side.
            if not areas[k] or not seen[k] or float(torch.tensor(seen[k]) / torch.tensor(areas[k])) < overlap:
                continue
            where = (winner == k) & inside
            if not bool(where.any()):
                continue
            number = int(label[query])
            map_[where] = number
            if number in classes.countable:
                found.append(Thing(classes.names[number], min(float(best[query]), 1.0), mask=where))
        pictures.append(tuple(sorted(found, key=lambda t: -(t.score or 0.0))))
        labels.append(map_)
    return (
        Instances(tuple(pictures), size, classes.names, source),
        Segmentation(torch.stack(labels), classes, source),
    )


def _winners(masks: Tensor, scores: Tensor, network: Size | None, size: Size) -> tuple[Tensor, Tensor, list[int]]:
    """Which mask wins every pixel, int64 (H,W), -1 where there is none at all; whether that one holds it; how many
    pixels each mask holds. One mask at a time: all of them at the size of a picture may not fit."""
    best = torch.full(size, -1.0, device=masks.device)
    winner = torch.full(size, -1, dtype=torch.int64, device=masks.device)
    inside = torch.zeros(size, dtype=torch.bool, device=masks.device)
    areas = []
    for k, (mask, score) in enumerate(zip(masks, scores, strict=True)):
        chance = _enlarged(mask, network, size).sigmoid()
        covers = chance >= 0.5
        areas.append(int(covers.sum()))
        better = score * chance > best
        best = torch.where(better, score * chance, best)
        winner.masked_fill_(better, k)
        inside = torch.where(better, covers, inside)
    return winner, inside, areas


def _enlarged(mask: Tensor, network: Size | None, size: Size) -> Tensor:
    for step in (network, size):
        if step is not None:
            mask = resize(mask[None, None], step, "bilinear")[0, 0]
    return mask


def _checked_logits(class_logits: Tensor, mask_logits: Tensor, palette: str) -> Palette:
    if palette not in _PUBLISHED:
        raise SettingError(f"OneFormer knows the palettes {', '.join(_PUBLISHED)}, not {palette!r}.")
    classes = Palette.named(palette)
    if class_logits.ndim != 3 or mask_logits.ndim != 4 or class_logits.shape[:2] != mask_logits.shape[:2]:
        raise SignalError(
            "class logits must be shaped (B,Q,K+1) and mask logits (B,Q,h,w), got "
            f"{tuple(class_logits.shape)} and {tuple(mask_logits.shape)}."
        )
    if class_logits.shape[2] != len(classes) + 1:
        raise SignalError(
            f"{palette} has {len(classes)} classes, so {len(classes) + 1} logits with the one for no object; "
            f"got {class_logits.shape[2]}."
        )
    if not bool(class_logits.isfinite().all()) or not bool(mask_logits.isfinite().all()):
        raise SignalError("the logits hold NaN or infinite values; run the network in float32.")
    return classes


@dataclass(frozen=True, kw_only=True)
class OneFormerObjects(OneFormerEstimator):
    """The same network, asked for another task. task: "instance" or "panoptic"."""

    task: Task = "instance"

    def infer(
        self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> dict[str, Signal]:
        """The slots "objects" and, of the panoptic task, "segmentation"."""
        inside = next(network.parameters()).dtype
        found: list[tuple[Signal, ...]] = []
        for picture in pixels.split(1):
            logits = network(self.normalise(fit.enter(picture)).to(inside), task=self.task)
            found.append(self._signals(logits[0], logits[1], fit, size, options))
        return {slot: parts[0].join(parts) for slot, *parts in zip(self.produces, *found, strict=True)}

    def _signals(
        self, classes: Tensor, masks: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> tuple[Signal, ...]:
        settings: dict[str, Any] = {"threshold": options["threshold"], "network": fit.network, "source": self.name}
        if self.task == "panoptic":
            objects, regions = to_panoptic(classes, masks, size, self.palette, overlap=options["overlap"], **settings)
            return objects, regions
        objects = without_empty(to_instances(classes, masks, size, self.palette, **settings))
        return (without_duplicates(objects) if options["once"] else objects,)


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
        # It is told its task with every picture, so one network serves all.
        shares=f"oneformer {palette}",
        palette=palette,
        queries=rule["queries"],
        short=rule["short"],
        long=rule["long"],
    )


def _objects(of: Estimator, task: Task, name: str, about: str) -> Estimator:
    """The same weights, asked for another task."""
    assert isinstance(of, OneFormerEstimator)  # noqa: S101
    kept = {f.name: getattr(of, f.name) for f in fields(of)}
    published = _PUBLISHED[of.palette][0]
    threshold = Option(
        "threshold", published, 0.0, 1.0, about="The class score that a thing must exceed; the default as published."
    )
    if task == "panoptic":
        share = "The share of its own mask that must be left of a thing where it wins over others."
        options = (threshold, Option("overlap", _OVERLAP, 0.0, 1.0, about=share))
        produces: tuple[str, ...] = ("objects", "segmentation")
    else:
        once = "Whether of things of one name with nearly the same mask the best alone stays; published is without."
        options, produces = (threshold, Option("once", False, about=once)), ("objects",)
    identity = {"id": f"{of.id}-{'panoptic' if task == 'panoptic' else 'objects'}", "name": f"{of.name} {name}"}
    return OneFormerObjects(
        **{**kept, **identity, "about": about, "produces": produces, "options": options, "task": task}
    )


_ADE_PTH = "250_16_swin_l_oneformer_ade20k_160k.pth"
_COCO_PTH = "150_16_swin_l_oneformer_coco_100ep.pth"

_SEMANTIC: tuple[Estimator, ...] = (
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

_ADE, _COCO = _SEMANTIC

ESTIMATORS: tuple[Estimator, ...] = (
    *_SEMANTIC,
    _objects(
        _ADE,
        "instance",
        "objects",
        "100 kinds of things of rooms and streets, each thing with a mask of its own; the network of oneformer-ade20k.",
    ),
    _objects(
        _COCO,
        "instance",
        "objects",
        "80 kinds of things, people and animals among them, each with a mask of its own: three people are three masks; "
        "the network of oneformer-coco.",
    ),
    _objects(
        _ADE,
        "panoptic",
        "panoptic",
        "Things and regions by one forward, of which no two overlap; the 150 classes of oneformer-ade20k.",
    ),
    _objects(
        _COCO,
        "panoptic",
        "panoptic",
        "Things and regions by one forward, of which no two overlap; the 133 classes of oneformer-coco.",
    ),
)
