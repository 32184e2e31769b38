"""What would break, or wait, on a GPU: every estimator, and the tools' nodes, on one that is pretended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_gpu import OnGPU, pretend_gpu
from test_contract import assert_same, representatives

import fathom
from fathom import Depth, Instances, Segmentation, Thing
from fathom.annotator import host
from fathom.annotator.layers import tf32_allowed
from fathom.models import ids
from fathom.nodes import NODES
from fathom.nodes.base import moved, save_previews
from fathom.signals import Palette
from fathom.signals.lines import Lines

GPU = torch.device("cuda")
# What a picture more may add to a copy: which of several ways it takes, a filter's table of its own.
SMALL = 2**13


def test_the_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    with pretend_gpu() as traffic:
        there, here = torch.ones(3, device=GPU), torch.ones(3)
        assert type(there) is OnGPU and there.device.type == "cuda" and torch.equal((there + 1).cpu(), here + 1)
        with pytest.raises(RuntimeError, match="both cuda:0 and the processor"):
            there + here
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="both"):
            torch.nn.functional.linear(here, torch.nn.Linear(3, 2).to(GPU).weight)
        traffic.clear()
        reshaped = there[None].clone().squeeze_(0)
        assert reshaped.shape == (3,) and reshaped.inner.shape == (3,)
        assert float((there * here.to(GPU)).sum()) == 3 and (there + 2.0).tolist() == [3.0, 3.0, 3.0]
    assert [size for size, _ in traffic.up] == [12] and [size for size, _ in traffic.down] == [12]
    assert len(traffic.asked) == 1


# ------------------------------------------------------------------------------------------ estimators

# Estimators whose way depends on what they see, or whose pipeline is a library's: the rest asks a GPU for no more than
# what the checks of the result need, however long the batch.
ASKS = {
    "leres-boost": "edges choose the patches",
    "zoedepth-nk": "indoor or outdoor head, as each picture needs",
    **{id: "diffusers' pipeline" for id, e in fathom.estimators().items() if e.family == "marigold"},
    **{id: "transformers' decoder" for id, e in fathom.estimators().items() if e.family == "oneformer"},
}

# Those that work on the processor whatever the device, or that need more than a picture.
NOT_THERE = {
    **{id: "drawn on the processor" for id, e in fathom.estimators().items() if e.family == "controlnet_aux"},
    "yunet": "OpenCV runs it on the processor",
    "video-depth-anything-metric-small": "seeded, its metres lie near 0, where 1/metre has few digits",
    "prompt-depth-anything-small": "it needs a measured depth beside the picture",
}
# Those whose results are worked out on the processor: more than the results comes down.
WORKED_OUT = {
    **{id: "its focal length is solved for on samples" for id in fathom.estimators() if id.startswith("moge-2-")},
    **dict.fromkeys(ids("objects"), "things are told apart one by one"),
}


def bytes_by_line(copies: list[tuple[int, str]]) -> list[tuple[str, int]]:
    """The copies as (line of the pack, bytes); more than one of a line stand one after the other."""
    return [(line, size) for size, line in copies]


def grown(before: list[tuple[str, int]], copies: list[tuple[int, str]]) -> list[int]:
    """By how many bytes the copies of a longer film grew, leaving out what did not; a copy more counts whole."""
    left = list(before)
    added = []
    for line, size in bytes_by_line(copies):
        match = next((entry for entry in left if entry[0] == line), (line, 0))
        left = [entry for entry in left if entry is not match]
        added.append(size - match[1])
    return [size for size in added if size > SMALL]


@pytest.fixture(params=[id for id in representatives() if id not in NOT_THERE])
def pair(request: pytest.FixtureRequest, tiny_annotator: Any) -> Any:
    """(the tiny variant on the processor, a function that loads it elsewhere)."""
    there = tiny_annotator(request.param)
    tiny = fathom.estimators()[request.param].tiny()
    return there, lambda **how: fathom.load(tiny, weights=there.found.path, **how)


def test_an_estimator_gives_the_same_there_for_one_copy_up_and_one_down(pair: Any, scene: torch.Tensor) -> None:
    """Constants go up as well, a mean or a filter's table of any size: their copies do not grow with the film."""
    here, load = pair
    id = here.estimator.id
    film = torch.cat([scene, scene.flip(2)])
    longer = torch.cat([film, film, film[:1]])
    expected = here.scene(film, 64)
    with pretend_gpu() as traffic:
        there = load(device=GPU, dtype=torch.float32)
        assert there.device.type == "cuda" and isinstance(next(there.network.parameters()), OnGPU)
        traffic.clear()
        before = there.annotate(film, 64)
        up, down = bytes_by_line(traffic.up), bytes_by_line(traffic.down)
        traffic.clear()
        there.annotate(longer, 64)
    for slot, signal in before.items():
        assert_same(signal, expected[slot])
    assert traffic.tf32 and set().union(*traffic.tf32.values()) == {False}, traffic.tf32
    more = grown(up, traffic.up)
    picture = (len(longer) - len(film)) * scene.numel() * 4
    assert sum(more) == picture or (id in ASKS and more[0] == picture > 100 * max(more[1:])), traffic.up
    kept = sum(isinstance(value, torch.Tensor) for signal in before.values() for value in vars(signal).values())
    frames = (len(longer) - len(film)) if here.estimator.window > 1 else 1
    assert 1 <= len(grown(down, traffic.down)) <= kept * frames or id in WORKED_OUT, traffic.down
    if id not in {**ASKS, **WORKED_OUT} and here.estimator.window == 1:
        assert len(traffic.asked) <= 3, traffic.asked


@pytest.mark.parametrize("id", [id for id in representatives() if fathom.estimators()[id].half])
def test_an_estimator_runs_there_in_half_where_that_is_exact_enough(
    id: str, tiny_annotator: Any, scene: torch.Tensor, monkeypatch: Any
) -> None:
    here = tiny_annotator(id)
    monkeypatch.delenv("FATHOM_PRECISION", raising=False)
    monkeypatch.setattr(host, "_faster_in_half", lambda where: True)
    with pretend_gpu():
        there = fathom.load(here.estimator, here.found.path, GPU)
        assert there.dtype == torch.float16
        result = there(scene, 64)
    values, expected = result.values, here(scene, 64).values
    assert values.dtype == torch.float32
    assert float((values - expected).abs().max()) <= 0.02 * float(expected.amax() - expected.amin())


class Cancelled(BaseException):
    """What ComfyUI raises when a user cancels, in its newer versions: no Exception."""


def cancel(*_: Any) -> None:
    """A hook of a module that is cancelled while it runs."""
    raise Cancelled


@pytest.mark.parametrize(
    ("wanted", "measured", "by_name", "products"),
    [
        ("auto", None, False, "torch's own"),
        ("auto", True, False, (True, True)),
        ("auto", False, False, (False, False)),
        ("fp32", True, False, (False, False)),
        ("tf32", None, False, (True, True)),
        ("auto", True, True, (False, False)),
    ],
)
def test_float32_products_are_tf32_where_that_is_exact_enough(
    tiny_annotator: Any, scene: torch.Tensor, monkeypatch: Any, wanted: str, measured: Any, by_name: bool, products: Any
) -> None:
    here = tiny_annotator("normal-bae")
    monkeypatch.setenv("FATHOM_PRECISION", wanted)
    before, seen = tf32_allowed(), []
    with pretend_gpu():
        estimator = replace(here.estimator, tf32=measured)
        there = fathom.load(estimator, here.found.path, GPU, torch.float32 if by_name else None)
        there.network.decoder.register_forward_hook(lambda *_: seen.append(tf32_allowed()))
        there(scene, 64)
        there.network.decoder.conv2.register_forward_hook(cancel)
        with pytest.raises(Cancelled):
            there(scene, 64)
    assert seen == [before if products == "torch's own" else products]
    assert tf32_allowed() == before


# ----------------------------------------------------------------------------------------------- nodes

BY_FILE = {
    "FathomLoadDepth",
    "FathomLoadSignal",
    "FathomLoadPhoneDepth",
    "FathomLoadPhoto",
    "FathomRGBDDepth",
    "FathomLoadBundle",
}
BY_ESTIMATOR = {n.__name__ for n in NODES if n.__module__.endswith(".estimate")}
BY_ESTIMATOR -= {"FathomEstimateDepth", "FathomClassMask"}
BY_ESTIMATOR |= {
    *("FathomFindFaces", "FathomFindObjects", "FathomLines", "FathomPose", "FathomControlNetPreset"),
    *("FathomCompleteDepth", "FathomMoGe", "FathomDepthAnything3"),
}
ELSEWHERE = {"FathomDepthFromGeometry", "FathomInspectBundle", *BY_FILE, *BY_ESTIMATOR}
USUAL = {"field_of_view": 60.0, "frames": 2, "format": "ply"}


def inputs(node: Any) -> dict[str, Any]:
    """An input for every socket of `node`, its widgets at their defaults, but for `USUAL`."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 48, 64, 3, generator=generator)
    valid = torch.ones(2, 48, 64, dtype=torch.bool)
    valid[0, :4, :4] = False
    labels = torch.zeros(2, 48, 64, dtype=torch.long)
    labels[:, :, 32:] = 3
    kinds = {
        "IMAGE": image,
        "MASK": (image[..., 0] > 0.5).float(),
        "FATHOM_DEPTH": Depth(torch.rand(2, 48, 64, generator=generator) * 4 + 1, "metric", valid),
        "FATHOM_SEGMENTATION": Segmentation(labels, Palette.named("ade20k"), "test"),
        "FATHOM_INSTANCES": Instances(((Thing("person", 0.9, (4, 4, 40, 40)),), ()), (48, 64)),
        "FATHOM_LINES": Lines(image[..., 0], "test"),
    }
    declared = node.INPUT_TYPES()
    given = {}
    for name, (kind, *more) in {**declared.get("required", {}), **declared.get("optional", {})}.items():
        if isinstance(kind, str) and kind in kinds:
            given[name] = kinds[kind]
        elif name in USUAL and (not isinstance(kind, list) or USUAL[name] in kind):
            given[name] = USUAL[name]
        elif more and "default" in more[0]:
            given[name] = more[0]["default"]
    for one, other in (("depth", "field"), ("segmentation", "masks"), ("segmentation", "instances")):
        if one in given:
            given.pop(other, None)
    if node.__name__ == "FathomDepthFromImage":
        given["image"] = image[..., :1].expand(-1, -1, -1, 3)
    return given


def tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor in what a node gave; files aside."""
    parts = value["result"] if isinstance(value, dict) else value
    held = [getattr(part, name, None) for part in parts for name in ("values", "vectors", "labels")]
    return [x for x in (*parts, *held) if isinstance(x, torch.Tensor)]


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and folders for bundles and previews."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FATHOM_BUNDLES", str(tmp_path / "bundles"))
    monkeypatch.setattr(host, "temp_folder", lambda: tmp_path / "temp")
    return tmp_path


@pytest.mark.parametrize("node", [n for n in NODES if n.__name__ not in ELSEWHERE], ids=lambda n: n.__name__)
def test_a_node_joins_what_lies_in_different_places(node: Any, rooms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with --gpu-only: what estimators gave is on the GPU, what files gave is not, and results stay on the GPU."""
    given = inputs(node)
    expected = tensors(node().run(**given))
    monkeypatch.setattr(host, "output_device", lambda: GPU)
    with pretend_gpu():
        results = node().run(**{k: v if isinstance(v, torch.Tensor) else moved(v, GPU) for k, v in given.items()})
        save_previews(results["result"] if isinstance(results, dict) else results)
        found = tensors(results)
        assert all(isinstance(t, OnGPU) for t in found)
        here = [t.cpu() for t in found]
    assert len(here) == len(expected)
    for a, b in zip(here, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_what_lies_inside_other_things_moves_too() -> None:
    depth, mask = Depth(torch.ones(1, 2, 3), "metric"), torch.ones(1, 2, 3)
    with pretend_gpu():
        there = moved({"depth": depth, "more": [mask, (mask, "text")], "number": 3}, GPU)
        assert isinstance(there["depth"].values, OnGPU) and isinstance(there["more"][1][0], OnGPU)
        assert there["more"][1][1] == "text" and there["number"] == 3
        back = moved(there, torch.device("cpu"))
    assert torch.equal(back["depth"].values, depth.values) and type(back["more"][0]) is torch.Tensor
    for stays in (mask, depth, [mask, depth], {"more": (mask, 3)}):
        assert moved(stays, torch.device("cpu")) is stays
