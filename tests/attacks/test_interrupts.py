"""Runs that are interrupted or killed at random moments: they end at once, leave no half file, and go on to the bytes
of a run that nobody disturbed. FATHOM_ATTACKS: how many of each; its seed is printed when one fails."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))
from mass_runs import annotate, photo, tree

pytestmark = pytest.mark.attack
COUNT = int(os.environ.get("FATHOM_ATTACKS", "16"))
WITHIN = 5.0  # seconds from the signal to the end

# The libraries are there before the fork, so that a moment is one of the run, not of imports.
FORKED = """
import os, random, signal, sys, time
import torch, PIL.Image, rich.progress
from fathom import cli
from fathom.cli import app
from fathom.mass import run, video
from fathom.models import estimator
count, seed, longest, number = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)
arguments = sys.argv[5:]
for attack in range(count):
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["fathom", *arguments]
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        cli.main()
        os._exit(0)
    time.sleep(rng.uniform(0.001, longest))
    os.kill(pid, number)
    struck = time.monotonic()
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() - struck > 20:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            break
        time.sleep(0.005)
    print(os.waitstatus_to_exitcode(ended[1]) if ended[0] else "hung", f"{time.monotonic() - struck:.2f}", flush=True)
"""


def attacked(arguments, longest, number, seed):
    """(exit status, seconds from the signal to the end) of each of COUNT runs, and what they said."""
    command = [
        sys.executable,
        "-c",
        FORKED,
        str(COUNT),
        str(seed),
        str(longest),
        str(int(number)),
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30 * COUNT + 60)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == COUNT and all(status != "hung" for status, _ in lines), (seed, lines)
    return [(int(status), float(seconds)) for status, seconds in lines], done.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photos and what an undisturbed run makes of it."""
    root = tmp_path_factory.mktemp("attack")
    for n in range(24):
        photo(root / "in" / ("a" if n % 3 else "b") / f"p{n:03}.png", n)
    (root / "in" / "a" / "broken.jpg").write_bytes(b"broken")
    start = time.monotonic()
    annotate(root / "in", root / "whole", cores=1)
    return root, time.monotonic() - start


def arguments(root, out, layout):
    how = ("-f", "png16", "--chunk", "4", "--device", "cpu", "--cpus", "1", "--layout", layout)
    return "annotate", root / "in", "-o", out, *how


def nothing_is_half_written(out):
    """Whatever bears a result's name is whole: the names of an undisturbed run with its bytes."""
    return {name: sha for name, sha in tree(out).items() if not name.startswith(".fathom")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
@pytest.mark.parametrize("layout", ["tree", "shards"])
def test_at_random_moments(photos, tmp_path, number, layout, attacks):
    root, seconds = photos
    seed = random.SystemRandom().randrange(2**32)
    whole = tree(root / "whole") if layout == "tree" else None
    out = tmp_path / "out"
    ends, told = attacked(arguments(root, out, layout), max(1.0, seconds), number, seed)
    attacks("runs ended at random moments by an interrupt, TERM or KILL, then resumed", len(ends))
    # Before the command's first line and behind its last, an interrupt ends it as any program.
    allowed = {130, -number} if number == signal.SIGINT else {-number}
    finished = {3}  # before the signal came; one picture is broken
    assert {status for status, _ in ends} <= allowed | finished, (seed, ends, told)
    assert max(seconds for _, seconds in ends) <= WITHIN, (seed, ends)
    assert "Traceback" not in told and "Exception" not in told, (seed, told)
    if whole is not None and out.exists():
        left = nothing_is_half_written(out)
        left.pop("failed.jsonl", None)
        assert left.items() <= whole.items(), seed
    annotate(root / "in", out, layout=layout, cores=1)
    if whole is None:
        annotate(root / "in", tmp_path / "whole", layout=layout, cores=1)
        whole = tree(tmp_path / "whole")
    assert tree(out) == whole, seed


def before_fathom(told: str) -> bool:
    """Whether Python itself was still starting: what it says then is its own."""
    return "init_import_site" in told or "Could not import runpy" in told


def test_from_the_first_millisecond(photos, tmp_path, attacks):
    """Real starts of the command: before its own first line, an interrupt ends Python as it ends any program."""
    root, _ = photos
    seed = random.SystemRandom().randrange(2**32)
    rng = random.Random(seed)
    for attack in range(max(4, COUNT // 4)):
        command = [sys.executable, "-m", "fathom", *map(str, arguments(root, tmp_path / "out", "tree"))]
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(rng.uniform(0.001, 0.05 if attack % 2 else 3.0))
        started.send_signal(signal.SIGINT)
        struck = time.monotonic()
        _, told = started.communicate(timeout=20)
        attacks("starts of the command, interrupted")
        assert time.monotonic() - struck <= WITHIN, seed
        assert started.returncode in (130, 3, -signal.SIGINT) or before_fathom(told), (seed, told)
        if started.returncode == 130:
            assert "Traceback" not in told, (seed, told)
    annotate(root / "in", tmp_path / "out", cores=1)
    assert tree(tmp_path / "out") == tree(root / "whole")


def test_a_thread_that_asks_is_never_left_waiting():
    """Interrupts while one thread answers many: each of them gets its answer or is told that the run has stopped."""
    script = Path(__file__).with_name("interrupted_queue.py")
    done = subprocess.run([sys.executable, script, str(max(3, COUNT // 4))], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
