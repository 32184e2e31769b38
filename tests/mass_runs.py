"""Small photos, runs over them in this process, and what they wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from fathom.mass.job import Job
from fathom.mass.pipeline import Report
from fathom.mass.run import annotate_locally, wanted_signals

SIZES = [(64, 48), (48, 64), (72, 54), (50, 50)]


def photo(path, number, size=None):
    """A small JPEG or PNG that differs for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size or SIZES[number % 4], Image.Resampling.BICUBIC).save(path)
    return path


def tree(root):
    """Every file below a folder with the hash of its bytes."""
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(Path(root).rglob("*"))
        if p.is_file()
    }


def results(root):
    return {name for name in tree(root) if not name.startswith(".fathom")}


def annotate(source, out, *, signals=(), format="png16", **settings):
    """One run in this process; its Report."""
    report = Report()
    how = {k: settings.pop(k) for k in ("resume", "verify", "threads") if k in settings}
    listed = [source] if isinstance(source, (str, Path)) else source
    settings = {"chunk": 4, **settings}
    job = Job(
        tuple(map(str, listed)),
        str(out),
        wanted_signals(list(signals), "fathom-tiny", format),
        device="cpu",
        **settings,
    )
    annotate_locally(job, report, **how)
    return report
