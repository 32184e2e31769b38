"""How long ComfyUI waits for a pack at its start: this one, and others beside it.

    python benchmarks/imports.py --comfyui ~/ComfyUI [PACK ...] [--repeats 7]

Each import runs in a process of its own, with the interpreter of that ComfyUI (COMFYUI_PYTHON, else its .venv, else
this one), after ComfyUI's own modules, as its "Import times" counts it; the packs take turns. Files are compiled and
in the page cache, as from the second start on.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORT = """
import importlib.util, sys, time
folder = sys.argv.pop()
sys.argv[1:] = ["--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import utils.install_util  # before a module of the same name comes along
import server, execution, nodes
start = time.perf_counter()
spec = importlib.util.spec_from_file_location("the_pack", folder + "/__init__.py", submodule_search_locations=[folder])
pack = importlib.util.module_from_spec(spec)
sys.modules["the_pack"] = pack
spec.loader.exec_module(pack)
# ComfyUI asks for it at once, and a pack may import its nodes only then.
assert pack.NODE_CLASS_MAPPINGS
took = time.perf_counter() - start
print("took", took)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="*", type=Path, help="folders of other packs")
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    comfyui = args.comfyui.resolve()
    own = [comfyui / ".venv/bin/python", comfyui / ".venv/Scripts/python.exe"]
    python = os.environ.get("COMFYUI_PYTHON") or next((str(p) for p in own if p.is_file()), sys.executable)
    packs = [ROOT, *(pack.resolve() for pack in args.packs)]
    times: dict[Path, list[float]] = {pack: [] for pack in packs}
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for turn in range(args.repeats + 1):
            for pack in packs:
                command = [python, "-c", IMPORT, str(pack)]
                done = subprocess.run(command, cwd=comfyui, env=environment, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(f"{pack} could not be imported:\n{done.stderr[-2000:]}")
                if turn:
                    times[pack].append(float(done.stdout.split("took ")[-1].split()[0]))
    print(f"median of {args.repeats} (least to most), seconds")
    for pack, took in times.items():
        print(f"{pack.name:32} {statistics.median(took):6.3f} ({min(took):.3f} to {max(took):.3f})")


if __name__ == "__main__":
    main()
