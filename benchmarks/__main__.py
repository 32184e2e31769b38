"""Every benchmark, one after the other, as docs/performance.md lists them.

    python benchmarks [ID ...] [--comfyui PATH [--controlnet-aux PATH] [--kijai PATH]]

With ComfyUI it also measures the pack's import, and other packs beside it. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

IDS = ["fathom-tiny", "depth-anything-v2-small", "depth-anything-v2-large", "midas-dpt-hybrid", "zoedepth-n"]
IDS += ["normal-bae", "oneformer-ade20k"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=IDS)
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--controlnet-aux", type=Path)
    parser.add_argument("--kijai", type=Path)
    args = parser.parse_args()
    runs = [
        ["start.py"],
        ["overhead.py", *args.ids, "--repeats", "5"],
        ["cold.py", *args.ids, "--repeats", "3"],
        ["batches.py", *args.ids],
        ["memory.py", "forward", *args.ids],
        ["memory.py", "film"],
        ["operators.py", *args.ids],
        ["layouts.py", *args.ids],
        ["precision.py", "fathom-tiny", "depth-anything-v2-small"],
    ]
    if args.comfyui:
        packs = {"--controlnet-aux": args.controlnet_aux, "--kijai": args.kijai}
        named = [str(part) for flag, path in packs.items() if path for part in (flag, path)]
        runs += [["imports.py", "--comfyui", str(args.comfyui)], ["peers.py", "--comfyui", str(args.comfyui), *named]]
    failed = []
    for script, *rest in runs:
        print(f"\n$ python benchmarks/{' '.join([script, *rest])}", flush=True)
        if subprocess.run([sys.executable, Path(__file__).with_name(script), *rest]).returncode:
            failed.append(script)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
