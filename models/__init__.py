"""The estimators: one file per family. Adding a file here adds its models everywhere.

Each file offers ESTIMATORS, a tuple of Estimator; a file without it, one that fails to import, or two estimators
of one id are errors at once. The files import nothing heavier than torch before a network is built, and
`descriptions` not even that.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import FathomError, SettingError

if TYPE_CHECKING:
    from ..annotator.description import Description
    from ..annotator.estimator import Estimator


def families() -> list[str]:
    """The names of the files of this package that offer estimators, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


@cache
def estimators() -> MappingProxyType[str, Estimator]:
    """{id: Estimator} of every family, in the order of the files' names. Raises FathomError for a broken registry."""
    from ..annotator import detect

    detect.register(estimators)
    return collect(families())


def collect(modules: list[str]) -> MappingProxyType[str, Estimator]:
    """The registry of the named modules of this package; see `estimators`."""
    found: dict[str, Estimator] = {}
    for name in modules:
        for estimator in offered(name):
            if estimator.id in found:
                raise FathomError(f"models/{name}.py offers {estimator.id!r}, which another model file offers too.")
            found[estimator.id] = estimator
    return MappingProxyType(found)


def offered(name: str) -> tuple[Estimator, ...]:
    """The estimators of one module of this package. Raises FathomError where it offers none."""
    from ..annotator.estimator import Estimator

    listed = getattr(importlib.import_module(f".{name}", __name__), "ESTIMATORS", None)
    if not isinstance(listed, tuple) or not all(isinstance(e, Estimator) for e in listed):
        raise FathomError(f"models/{name}.py must offer ESTIMATORS, a tuple of Estimator; got {listed!r}.")
    return listed


@cache
def descriptions() -> Mapping[str, Description]:
    """As `estimators`, but what they say of themselves alone, without importing torch.

    It is read from catalog.json. Where that was made for other files than there are, the estimators themselves are
    returned, which takes as long as importing torch does.
    """
    from ._catalog import read_catalog

    listed = read_catalog()
    if list(listed) != families():
        return estimators()
    return MappingProxyType({e.id: e for entries in listed.values() for e in entries})


def estimator(id: str) -> Estimator:
    """The estimator called `id`. Raises SettingError naming the closest ids when there is none."""
    _check_id(id, estimators())
    return estimators()[id]


def description(id: str) -> Description:
    """What the estimator called `id` says of itself, as `descriptions`. Raises SettingError as `estimator`."""
    _check_id(id, descriptions())
    return descriptions()[id]


# Annotators that are known by these names elsewhere and are no estimators here.
_ELSEWHERE = {
    "dwpose": "controlnet-aux runs DWPose on mmpose, mmdet and mmcv, and mmcv must be compiled for each version of "
    "PyTorch. Choose openpose: points of bodies, hands and faces in the same form, by another network.",
    "content-shuffle": "it makes a picture and estimates nothing. fathom.tools.lines.content_shuffle does it, in a "
    "graph ShufflePreprocessor.",
}


def _check_id(id: str, known: Iterable[str]) -> None:
    known = list(known)
    if id in known:
        return
    if id in _ELSEWHERE:
        raise SettingError(f"there is no estimator {id!r}: {_ELSEWHERE[id]}")
    import difflib

    near = difflib.get_close_matches(str(id), known, 3, 0.4)
    hint = f"Did you mean {', '.join(near)}?" if near else f"There are {', '.join(known)}."
    raise SettingError(f"there is no estimator {id!r}. {hint}")


def ids(slot: str) -> list[str]:
    """The ids of the estimators whose forward fills `slot`, such as "depth", "normals" or "segmentation", and that need
    nothing beside the picture."""
    return [e.id for e in estimators().values() if slot in e.produces and not e.takes]
