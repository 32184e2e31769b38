"""Where an estimator's time goes, by kind of operator: one warm run from IMAGE to IMAGE under torch.profiler.

    python benchmarks/operators.py [ID ...] [--size 512] [--repeats 3]

Shares of the whole time, the mean of the repeats; "host" is what the run took beyond the operators. On a GPU its
kernels are counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch
from networks import load, prompt
from torch.profiler import ProfilerActivity, profile

KINDS = {
    "convolution": ("conv", "wgrad", "fprop"),
    "matmul": ("addmm", "aten::mm", "bmm", "gemm", "cutlass", "aten::dot", "aten::linear"),
    "attention": ("attention", "flash", "fmha"),
    "norms": ("norm",),
    "resize": ("upsample", "grid_sampl", "interpolate", "pool"),
    "copies": ("copy", "aten::cat", "memcpy", "memset", "contiguous", "fill"),
}


def kind(operator: str, shapes: Sequence[Sequence[int]] = ()) -> str:
    """The kind that an operator's or a kernel's name belongs to; what is left is elementwise for the most part.

    shapes: of its inputs. A convolution over one row of pixels is a linear layer (annotator/layers.py).
    """
    lower = operator.lower()
    if "conv" in lower and shapes and len(shapes[0]) == 4 and shapes[0][0] == shapes[0][2] == 1:
        return "matmul"
    # Attention's kernels say "gemm", too.
    for name in ("attention", *KINDS):
        if any(part in lower for part in KINDS[name]):
            return name
    return "elementwise"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", default=["fathom-tiny"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    columns = [*KINDS, "elementwise", "host"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.size} px, mean of {args.repeats}")
    print(f"{'estimator':28} {'ms':>8}", *(f"{name:>11}" for name in columns))
    with tempfile.TemporaryDirectory() as folder:
        for id in args.ids:
            est = load(id, Path(folder))
            on_gpu = est.device.type == "cuda"
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
            count = est.estimator.window
            image = torch.rand(count, args.size, args.size, 3, generator=torch.Generator().manual_seed(0))
            beside = prompt(est.estimator, count)
            est(image, args.size, **beside).to_image()
            spent: defaultdict[str, float] = defaultdict(float)
            for _ in range(args.repeats):
                with profile(activities=activities, record_shapes=True) as profiler:
                    start = time.perf_counter()
                    est(image, args.size, **beside).to_image().cpu()
                    whole = (time.perf_counter() - start) * 1e6
                inside = 0.0
                for event in profiler.key_averages(group_by_input_shape=True):
                    if on_gpu and event.device_type.name != "CUDA":
                        continue  # the operators that launched the kernels report their time once more
                    own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
                    spent[kind(event.key, event.input_shapes)] += own
                    inside += own
                spent["host"] += max(0.0, whole - inside)
            total = sum(spent.values())
            shares = (f"{spent[name] / total:11.1%}" for name in columns)
            print(f"{id:28} {total / args.repeats / 1e3:8.1f}", *shares)


if __name__ == "__main__":
    main()
