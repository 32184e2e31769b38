"""The estimators: one file per family. Adding a file here adds its models everywhere.

Each file offers ESTIMATORS, a tuple of Estimator; a file without it, one that fails to import, or two estimators
of one id are errors at once. The files import nothing heavy before a network is built.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import MappingProxyType

from ..annotator import detect
from ..annotator.estimator import Estimator
from ..errors import FathomError, SettingError


@cache
def estimators() -> MappingProxyType[str, Estimator]:
    """{id: Estimator} of every family, in the order of the files' names. Raises FathomError for a broken registry."""
    return collect(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def collect(modules: list[str]) -> MappingProxyType[str, Estimator]:
    """The registry of the named modules of this package; see `estimators`."""
    found: dict[str, Estimator] = {}
    for name in modules:
        module = importlib.import_module(f".{name}", __name__)
        listed = getattr(module, "ESTIMATORS", None)
        if not isinstance(listed, tuple) or not all(isinstance(e, Estimator) for e in listed):
            raise FathomError(f"models/{name}.py must offer ESTIMATORS, a tuple of Estimator; got {listed!r}.")
        for estimator in listed:
            if estimator.id in found:
                raise FathomError(f"models/{name}.py offers {estimator.id!r}, which another model file offers too.")
            found[estimator.id] = estimator
    return MappingProxyType(found)


def estimator(id: str) -> Estimator:
    """The estimator called `id`. Raises SettingError naming the closest ids when there is none."""
    every = estimators()
    if id in every:
        return every[id]
    import difflib

    near = difflib.get_close_matches(str(id), every, 3, 0.4)
    hint = f"Did you mean {', '.join(near)}?" if near else f"There are {', '.join(every)}."
    raise SettingError(f"there is no estimator {id!r}. {hint}")


def ids(slot: str) -> list[str]:
    """The ids of the estimators whose forward fills `slot`, such as "depth", "normals" or "segmentation", and that need
    nothing beside the picture."""
    return [e.id for e in estimators().values() if slot in e.produces and not e.takes]


detect.register(estimators)
