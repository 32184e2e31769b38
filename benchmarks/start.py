"""How long people wait before anything is computed: processor seconds of a fresh process, beside torch's own import.

    python benchmarks/start.py [--repeats 5]

Processor time, not the clock: it is the same on a busy machine. Files are compiled and in the page cache, as from the
second start on. What the pack adds to ComfyUI's start, imports.py measures.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PHOTO = str(ROOT / "assets" / "sample.png")
# Each with the processor seconds that it may take: of its own, or beyond torch's import.
RUNS = {
    "python": (["-c", "pass"], None),
    "import torch": (["-c", "import torch"], None),
    "import fathom": (["-c", "import fathom"], 0.1),
    "fathom --help": (["-m", "fathom", "--help"], 0.4),
    "fathom models": (["-m", "fathom", "models"], 0.8),
    "first photo, Tiny, beyond torch": (["-m", "fathom", "annotate", PHOTO, "-o", "{out}"], 1.0),
}


def processor_seconds(arguments: list[str]) -> float:
    """User and system time of a fresh Python with these arguments. Raises CalledProcessError when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in RUNS}
    with tempfile.TemporaryDirectory() as out:
        for turn in range(args.repeats + 1):
            for name, (arguments, _) in RUNS.items():
                took = processor_seconds([out if part == "{out}" else part for part in arguments])
                if turn:
                    times[name].append(took)
    torch = statistics.median(times["import torch"])
    print(f"processor seconds, median of {args.repeats}; bound")
    for name, (_, bound) in RUNS.items():
        took = statistics.median(times[name]) - (torch if name.endswith("beyond torch") else 0)
        print(f"{name:32} {took:6.2f}" + (f"  {bound:.1f}" if bound else ""))


if __name__ == "__main__":
    main()
