"""Which estimators a weights file fits: told by the names and shapes of its tensors, not by its own name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from ..errors import WeightsError
from . import weights
from .estimator import Estimator
from .meta import parameters_on_meta

log = logging.getLogger(__name__)

# Numbers that a network holds beside its parameters, such as running means, as a share of them and in all.
_BESIDE = 1.05, 2**21


def detect(path: str | Path, estimators: Mapping[str, Estimator]) -> list[str]:
    """The ids of those `estimators` that the weights at `path`, a file or a folder, would load into, in their order.

    Several fit where models differ in their values alone (Depth Anything V1, V2 and the metric ones). Only names and
    shapes are read. Raises WeightsError when there is no file or folder, or the file is no checkpoint.
    """
    path, kind = weights.look(path)
    with weights.shapes_only():
        if kind == "file" and path.name != "model_index.json":
            weights.read(path)
        elif not kind:
            raise WeightsError(f"there is no file or folder {path}.")
        return [id for id, estimator in estimators.items() if _fits(estimator, path)]


def _fits(estimator: Estimator, path: Path) -> bool:
    try:
        checkpoint = estimator.read(weights.resolve(path, estimator.sources, name=estimator.name))
        estimator = estimator.adapt(checkpoint)
        tensors = estimator.translate(dict(checkpoint.tensors))
        # Building takes long, and libraries that other estimators do without.
        if not _about_as_large(estimator, tensors):
            return False
        with parameters_on_meta():
            expected = estimator.build(checkpoint).state_dict()
        return not weights.compare(weights.wanted(tensors, expected, estimator.extras), expected)
    except Exception:  # whatever another model's names and shapes bring about in a family's code
        log.debug("%s does not fit %s", path, estimator.id, exc_info=True)
        return False


def _about_as_large(estimator: Estimator, tensors: Mapping[str, Tensor]) -> bool:
    """Whether there are as many numbers as the network has parameters, give or take what lies beside those."""
    needed = weights.wanted(tensors, (), estimator.extras)
    most, least = (sum(t.numel() for t in some.values() if t.is_floating_point()) for some in (tensors, needed))
    return most >= estimator.parameters and least <= estimator.parameters * _BESIDE[0] + _BESIDE[1]


_known: Callable[[], Mapping[str, Estimator]] = dict


def register(known: Callable[[], Mapping[str, Estimator]]) -> None:
    """Tell where the estimators are listed that `advice` may speak of."""
    global _known
    _known = known


def advice(estimator: Estimator, path: Path) -> str:
    """A sentence on which other estimators the weights at `path` fit; empty where none does, or `estimator` does."""
    try:
        fitting = detect(path, _known())
    except WeightsError:
        return ""
    if not fitting or estimator.id in fitting:
        return ""
    return f" It fits {', '.join(fitting[:-1])}{' or ' if fitting[1:] else ''}{fitting[-1]}."
