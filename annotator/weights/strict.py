"""Strict loading: every weight of the network from the file, and every one of the file in the network."""

from __future__ import annotations

import fnmatch
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import WeightsError

_LOOKS = (
    ("model.diffusion_model.", "a Stable Diffusion checkpoint"),
    ("lora_", "a LoRA"),
    ("control_model.", "a ControlNet"),
    ("core.core.", "a ZoeDepth network, official layout"),
    ("relative_head.", "a ZoeDepth network, transformers layout"),
    ("pretrained.model.", "a MiDaS DPT network, official layout"),
    ("pretrained.", "a Depth Anything network, official layout"),
    ("dpt.", "a MiDaS DPT network, transformers layout"),
    ("encoder.original_model.", "a NormalBae network"),
    ("model.pixel_level_module.", "a OneFormer or Mask2Former network, transformers layout"),
    ("backbone.embeddings.", "a depth network, transformers layout"),
)


class Differences(NamedTuple):
    """What keeps tensors from filling a network: keys that it lacks, keys too many, and what has another shape or kind
    of number, in words. False where there is none of them."""

    missing: list[str]
    surplus: list[str]
    misfits: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.surplus or self.misfits)


def wanted(tensors: Mapping[str, Tensor], expected: Container[str], extras: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors but for known extras: patterns (fnmatch) of keys that a file may have and nobody needs, each with
    the reason. A key that the network has is never dropped."""
    return {
        key: tensor
        for key, tensor in tensors.items()
        if key in expected or not any(fnmatch.fnmatchcase(key, pattern) for pattern in extras)
    }


def compare(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Differences:
    """How tensors differ from a network's state dict, by keys, shapes and kinds of number; values are not looked at."""
    return Differences(
        [key for key in expected if key not in given],
        [key for key in given if key not in expected],
        [
            f"{key} {_shape(given[key])}, expected {_shape(want)}"
            for key, want in expected.items()
            if key in given
            and (given[key].shape != want.shape or given[key].is_floating_point() != want.is_floating_point())
        ],
    )


def load_strict(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    extras: Mapping[str, str],
    name: str,
    path: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Give every parameter and persistent buffer of `module` its tensor, itself, not a copy.

    extras: as in `wanted`. dtype: type of floating point weights, None = as in the file.
    Raises WeightsError for missing, surplus, wrong-shaped and non-finite weights; ValueError when the
    builder left a buffer without values.
    """
    expected = module.state_dict()
    given = wanted(tensors, expected, extras)
    if differences := compare(given, expected):
        raise WeightsError(_misfit(name, path, tensors, expected, differences))
    for key, tensor in given.items():
        if tensor.is_floating_point():
            given[key] = tensor = tensor if dtype is None else tensor.to(dtype)
            if not _finite(tensor):
                raise WeightsError(f"{name}: {path} is damaged: {key} holds NaN or infinity ({tensor.dtype}).")
    module.load_state_dict(given, strict=True, assign=True)
    every = [*module.named_parameters(), *module.named_buffers()]
    if empty := [key for key, tensor in every if tensor.is_meta]:
        raise ValueError(f"{name}: its builder must give values to {_few(empty)}, which no checkpoint holds.")


def _finite(tensor: Tensor) -> bool:
    if tensor.numel() == 0:
        return True
    wide = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    least, most = torch.aminmax(wide)  # one pass, no mask in memory; NaN comes through
    return bool(torch.isfinite(least) & torch.isfinite(most))


def _misfit(
    name: str,
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    differences: Differences,
) -> str:
    missing, surplus, misfits = differences
    looks = next((what for start, what in _LOOKS if any(key.startswith(start) for key in tensors)), "another network")
    lines = [f"{name}: {path} does not hold these weights."]
    if misfits and not missing and not surplus:
        lines.append("It has the right names but other sizes: it belongs to another size of this network.")
    else:
        start = next(iter(tensors), "nothing")
        lines.append(f"It looks like {looks} ({len(tensors)} tensors, first {start}); {len(expected)} are expected.")
    for what, keys in (
        ("missing", missing),
        ("not expected", surplus),
        ("of another shape or kind", misfits),
    ):
        if keys:
            lines.append(f"{len(keys)} {what}: {_few(keys)}.")
    return " ".join(lines)


def _few(keys: Sequence[str]) -> str:
    return ("; " if " " in keys[0] else ", ").join(keys[:4]) + (", ..." if len(keys) > 4 else "")


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or 'scalar'}"
