"""Small photos, runs over them in this process, and what they wrote."""

from __future__ import annotations

import hashlib
import subprocess
import sys
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


def annotate(source, out, *, signals=(), format="png16", options=(), **settings):
    """One run in this process; its Report."""
    report = Report()
    how = {k: settings.pop(k) for k in ("resume", "verify", "threads") if k in settings}
    listed = [source] if isinstance(source, (str, Path)) else source
    settings = {"chunk": 4, **settings}
    job = Job(
        tuple(map(str, listed)),
        str(out),
        wanted_signals(list(signals), "fathom-tiny", format, options=options),
        device="cpu",
        **settings,
    )
    annotate_locally(job, report, **how)
    return report


KILLER = """
import os, sys
from fathom import cli
from fathom.mass import stores
left = int(sys.argv.pop(1))
plain, write = os.replace, stores._Writing.write
def count(*a):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
def replace(*a):
    count(); plain(*a); count()
def cut(self, data):
    write(self, data[: len(data) // 2]); count(); return write(self, data[len(data) // 2 :])
stores.os.replace, stores._Writing.write = replace, cut
cli.main()
"""


def killed_at(moment, *arguments):
    """Run `fathom ARGUMENTS` in a process that is killed at its `moment`th write or rename."""
    command = [sys.executable, "-c", KILLER, str(moment), *map(str, arguments), "--device", "cpu"]
    killed = subprocess.run(command, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
