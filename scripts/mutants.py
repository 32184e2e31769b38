"""Change the package in small ways, one at a time, and see whether a test notices.

    python scripts/mutants.py signals/depth.py tools/bundle.py    # every change of these files
    python scripts/mutants.py --sample 40                         # 40 of each file in TESTS, chosen by --seed

Each change (a comparison, an operator, a number, a condition, a return value, a call or a raise that is left out) is
made in a copy of the working tree, and the tests that TESTS names for the file are run over it: those that reach the
changed line, the quickest first. Printed are the changes that no test noticed, and for each file how many were. One
process loads torch once and forks for every change, so it runs where the system can fork.

SURVIVORS holds the reason for a change that no test could notice, as "original -> changed" of its line.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
SURVIVORS = Path(__file__).with_name("survivors.json")

# The tests that should notice a change of a file, without "tests/" and ".py".
TESTS: dict[str, str] = {
    "signals/base.py": "test_codec test_signals test_runtime test_load_signal test_depth_files test_instances",
    "signals/coco.py": "test_instances test_instance_nodes test_load_signal",
    "signals/codec.py": "test_codec test_signals test_depth_files test_load_signal test_bundle test_exif",
    "signals/depth.py": "test_signals test_depth_files test_codec test_runtime test_foreign_depth test_exif test_depth",
    "signals/exif.py": "test_exif test_load_signal",
    "signals/exr.py": "test_exr test_depth_files test_foreign_depth test_codec",
    "signals/field.py": "test_signals test_depth_field test_codec test_exif",
    "signals/files.py": "test_depth_files test_codec test_load_signal test_exif test_instances test_interrupt test_cli",
    "signals/foreign.py": "test_foreign_depth test_depth_files test_rgbd",
    "signals/instances.py": "test_instances test_isolate test_pick test_codec test_signals",
    "signals/intrinsics.py": "test_signals test_codec test_load_signal",
    "signals/lines.py": "test_lines test_codec test_signals",
    "signals/mask.py": "test_codec test_signals test_isolate",
    "signals/normals.py": "test_signals test_codec test_normal_bae test_load_signal",
    "signals/pose.py": "test_pose test_codec test_signals",
    "signals/scene.py": "test_codec test_bundle test_runtime test_one_pass",
    "signals/segmentation.py": "test_signals test_codec test_load_signal test_regions",
    "signals/thumbnail.py": "test_previews test_runtime",
    "signals/tiff.py": "test_foreign_depth test_depth_files",
    "annotator/colour.py": "test_colours test_pictures",
    "annotator/decode.py": "test_pictures test_colours test_mass_sources",
    "annotator/description.py": "test_contract test_runtime test_weights test_loading",
    "annotator/detect.py": "test_detect",
    "annotator/estimator.py": "test_runtime test_contract test_one_pass test_loading",
    "annotator/film.py": "test_mass_video test_video_depth_anything",
    "annotator/filters.py": "test_sizing test_midas test_depth_anything test_enlarged",
    "annotator/layers.py": "test_layers",
    "annotator/loading.py": "test_loading test_runtime test_replacing test_weights",
    "annotator/pictures.py": "test_pictures test_runtime test_enlarged test_mass",
    "annotator/runtime.py": "test_runtime test_one_pass test_enlarged test_replacing test_loading test_mass_video",
    "annotator/sizing.py": "test_sizing test_enlarged test_runtime",
    "annotator/weights/checkpoint.py": "test_weights test_loading test_detect test_replacing",
    "annotator/weights/digest.py": "test_weights test_replacing test_bundle",
    "annotator/weights/fetch.py": "test_weights",
    "annotator/weights/safetensors_file.py": "test_weights test_loading test_detect test_replacing",
    "annotator/weights/search.py": "test_weights test_leres test_loading",
    "annotator/weights/sources.py": "test_weights test_pins",
    "annotator/weights/strict.py": "test_weights test_loading",
    "annotator/weights/verification.py": "test_weights",
    "mass/films.py": "test_mass_video",
    "mass/job.py": "test_mass test_mass_names test_mass_video",
    "mass/manifest.py": "test_manifest test_mass test_mass_names test_mass_sources test_mass_video",
    "mass/sinks.py": "test_mass test_mass_names",
    "mass/sources.py": "test_mass_sources test_mass test_mass_names",
    "mass/video.py": "test_mass_video",
    "tools/adopt.py": "test_adopt",
    "tools/atmosphere.py": "test_atmosphere",
    "tools/bundle.py": "test_bundle",
    "tools/completion.py": "test_completion",
    "tools/convert.py": "test_convert test_foreign_depth test_stereo test_field_files",
    "tools/depth_field.py": "test_depth_field",
    "tools/geometry.py": "test_geometry test_convert test_rgbd test_depth_field",
    "tools/inspection.py": "test_inspector test_cli_tools",
    "tools/instances.py": "test_instances test_instance_nodes test_isolate test_pick",
    "tools/intrinsics_files.py": "test_phones test_rgbd test_signals",
    "tools/isolate.py": "test_isolate",
    "tools/jpeg.py": "test_phones test_exif",
    "tools/legend.py": "test_signals",
    "tools/lens_blur.py": "test_lens_blur",
    "tools/lines.py": "test_lines",
    "tools/parallax.py": "test_parallax",
    "tools/phones.py": "test_phones",
    "tools/plane_fit.py": "test_geometry",
    "tools/pose.py": "test_pose",
    "tools/regions.py": "test_regions",
    "tools/rgbd.py": "test_rgbd",
    "tools/sobel.py": "test_geometry test_signals",
    "tools/stereo.py": "test_stereo",
    "tools/xmp.py": "test_phones",
}

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip

# The way from the root of a syntax tree to a node: the name of each field, and the place in it where it is a list.
Way = tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Mutant:
    """A changed file. line: where. change: "original -> changed" of the part. source: the whole file."""

    line: int
    change: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every change of a file. Words, annotations, and what errors say are left alone."""
    tree = ast.parse(source)
    for node, path, line in _places(tree):
        for changed in _changes(node):
            yield Mutant(line, f"{_short(node)} -> {_short(changed)}", _with(tree, path, changed))


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, Way, int]]:
    """Every node that may be changed, with its way from the root and the first line of its statement."""
    waiting: list[tuple[ast.AST, Way, int]] = [(tree, (), 0)]
    while waiting:
        node, path, line = waiting.pop()
        if isinstance(node, (ast.stmt, ast.ExceptHandler)):
            line = node.lineno
        yield node, path, line
        for name, value in ast.iter_fields(node):
            # What an error says is not tested word by word; whether it is raised is.
            if name in ("annotation", "returns", "decorator_list") or isinstance(node, (ast.Raise, ast.JoinedStr)):
                continue
            if isinstance(value, ast.AST):
                waiting.append((value, (*path, (name, None)), line))
            elif isinstance(value, list):
                every = [(part, (*path, (name, at)), line) for at, part in enumerate(value)]
                waiting += [place for place in every if isinstance(place[0], ast.AST)]


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            changed = copy.deepcopy(node)
            changed.ops[at] = _COMPARED[type(operator)]()
            yield changed
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in _COMPUTED:
        changed = copy.deepcopy(node)
        changed.op = _COMPUTED[type(node.op)]()
        yield changed
    elif isinstance(node, ast.BoolOp):
        changed = copy.deepcopy(node)
        changed.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield changed
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):  # bool is one
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, (ast.If, ast.IfExp)):
        changed = copy.deepcopy(node)
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
        yield changed
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield ast.Pass()
    elif isinstance(node, (ast.Break, ast.Continue)):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _short(node: ast.AST) -> str:
    first = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).partition("\n")[0]
    return first if len(first) <= 100 else f"{first[:97]}..."


def _with(tree: ast.Module, path: Way, changed: ast.AST) -> str:
    made = copy.deepcopy(tree)
    at: Any = made
    for name, index in path[:-1]:
        at = getattr(at, name) if index is None else getattr(at, name)[index]
    name, index = path[-1]
    if index is None:
        setattr(at, name, changed)
    else:
        getattr(at, name)[index] = changed
    return ast.unparse(ast.fix_missing_locations(made))


# ---------------------------------------------------------------------------------------------- running tests


class Lines:
    """A pytest plugin: for each test that passes the lines of one file that it reaches, and how long it took; and
    the tests that fail."""

    def __init__(self, file: Path) -> None:
        self.file, self.now = str(file), ""
        self.failed: list[str] = []
        self.reached: dict[str, set[int]] = {}
        self.seconds: dict[str, float] = {}

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """What sys.settrace calls: it follows the file alone."""
        if frame.f_code.co_filename != self.file:
            return None
        self.reached.setdefault(self.now, set()).add(frame.f_lineno)
        return self.trace

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test begins."""
        import threading

        self.now = nodeid
        threading.settrace(self.trace)
        sys.settrace(self.trace)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """One of setup, call and teardown is over."""
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when == "call" and report.passed:
            self.seconds[report.nodeid] = report.duration


def forked(room: Path, arguments: list[str], seconds: float, lines: Lines | None = None) -> int | None:
    """pytest's exit status over the copy in `room`, in a process of its own; None when it took longer."""
    child = os.fork()
    if child == 0:
        status = 70
        with suppress(BaseException):
            os.setsid()
            os.chdir(room)
            sys.path.insert(0, str(room.parent))
            sys.dont_write_bytecode = True
            quiet = os.open(os.devnull if lines is None else str(room.parent / "said"), os.O_WRONLY | os.O_CREAT)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
            import pytest

            given = ["-n", "0", "-q", "-p", "no:cacheprovider", f"--basetemp={room.parent / 'temp'}", *arguments]
            given += [] if lines else ["-x"]
            status = int(pytest.main(given, [lines] if lines else []))
            if lines:
                sys.settrace(None)
                sound = {n: s for n, s in lines.seconds.items() if n not in lines.failed}
                told = {n: [s, sorted(lines.reached.get(n, ()))] for n, s in sound.items()}
                (room.parent / "lines.json").write_text(json.dumps(told))
                (room.parent / "said").write_text("\n".join(dict.fromkeys(lines.failed)))
        os._exit(status)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def run(file: str, room: Path, sample: int, seed: int, deselect: list[str]) -> tuple[int, list[Mutant]]:
    """(how many changes of `file` were tried, those that no test noticed). Tests that fail over the file as it is are
    named and left out. Raises SystemExit when none passes."""
    target = room / file
    source = target.read_text(encoding="utf-8")
    names = [f"tests/{name}.py" for name in TESTS[file].split()]
    first = [*names, "-m", "not comfyui and not ray and not browser and not parity and not attack", *deselect]
    status = forked(room, first, 1200, Lines(target))
    told: dict[str, Any] = json.loads((room.parent / "lines.json").read_text()) if status in (0, 1) else {}
    if not told:
        raise SystemExit(f"no test of {file} passes as it is: run {first[0]}")
    if status:
        print(f"{file}: left out, since they fail as it is: {(room.parent / 'said').read_text()}", file=sys.stderr)
    known = json.loads(SURVIVORS.read_text()).get(file, {}) if SURVIVORS.is_file() else {}
    every = [m for m in mutants(source) if m.change not in known]
    if sample and len(every) > sample:
        every = sorted(random.Random(f"{seed} {file}").sample(every, sample), key=lambda m: m.line)
    within = {line for _, lines in told.values() for line in lines}
    survivors = []
    try:
        for mutant in every:
            # What runs at import, before any test, concerns all.
            reaching = [n for n, (_, lines) in told.items() if mutant.line in lines or mutant.line not in within]
            reaching.sort(key=lambda name: told[name][0])
            if mutant.line not in within and _inside_a_function(source, mutant.line):
                survivors.append(mutant)
                continue
            target.write_text(mutant.source, encoding="utf-8")
            print(end=".", file=sys.stderr, flush=True)
            seconds = 20 + 5 * sum(told[name][0] for name in reaching)
            if forked(room, reaching[:300] or names, seconds) == 0:
                survivors.append(mutant)
    finally:
        target.write_text(source, encoding="utf-8")
    return len(every), survivors


def _inside_a_function(source: str, line: int) -> bool:
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef))
    return any(f.body[0].lineno <= line <= (f.end_lineno or 0) for f in functions)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", help="files of the package; none = all that have tests named")
    parser.add_argument("--sample", type=int, default=0, help="how many changes of each file; 0 = all")
    parser.add_argument("--seed", type=int, default=17, help="which")
    parser.add_argument("--deselect", action="append", default=[], help="a test to leave out, as pytest names it")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for module in ("torch", "torchvision", "numpy", "PIL.Image", "cv2", "hypothesis", "safetensors.torch", "pytest"):
        with suppress(ImportError):
            importlib.import_module(module)
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary).resolve() / "fathom"
        leave = shutil.ignore_patterns(".git", "__pycache__", ".venv", "node_modules", "*.pyc")
        shutil.copytree(ROOT, room, ignore=leave, symlinks=True)
        total = noticed = 0
        deselect = [f"--deselect={name}" for name in given.deselect]
        for file in given.files or TESTS:
            start = time.monotonic()
            count, survivors = run(file, room, given.sample, given.seed, deselect)
            total, noticed = total + count, noticed + count - len(survivors)
            for mutant in survivors:
                print(f"{file}:{mutant.line}: {mutant.change}")
            share = 100 * (1 - len(survivors) / max(count, 1))
            took = time.monotonic() - start
            print(f"== {file}: {count - len(survivors)} of {count} noticed ({share:.0f} %), {took:.0f} s", flush=True)
        print(f"== all: {noticed} of {total} noticed")


if __name__ == "__main__":
    main()
