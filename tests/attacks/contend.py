"""One of several processes at the same three bundles: `contend(folder, seed)`, in a module that a spawned process can
import by its name."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from test_bundle import depth_of, keep

from fathom import FathomError
from fathom.tools import bundle as store


def contend(root: Path, number: int) -> None:
    """Makes, pins, drops and removes bundles, eight times; raises where one is not what was asked for."""
    rng = random.Random(number)
    for turn in range(8):
        seed = rng.randrange(3)
        limit = rng.choice((0, 2**30))
        found = keep(root, seed, pin=rng.random() < 0.2, limit=limit)
        assert torch.equal(found.depth.values, depth_of(seed).values)
        if turn % 3 == 0:
            try:
                store.remove_bundle(root, found.metadata["key"])
            except FathomError:
                pass  # another was quicker
        store.list_bundles(root)
