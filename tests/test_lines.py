"""Lines: the annotators of controlnet-aux against the library's own detectors, and those that need no library."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import seeded_state

import fathom
from fathom import Depth, SettingError, SignalError
from fathom.annotator.weights import Checkpoint
from fathom.models import controlnet_aux as family
from fathom.models import estimator
from fathom.signals.lines import Lines
from fathom.tools.lines import content_shuffle, lines_by_depth

cv2: Any = pytest.importorskip("cv2")
HAS_LIBRARY = importlib.util.find_spec("controlnet_aux") is not None
with_library = pytest.mark.skipif(not HAS_LIBRARY, reason="controlnet-aux is not installed")

# (module, class, what its call takes beside the picture and the two resolutions)
DETECTORS: dict[str, tuple[str, str]] = {
    "canny": ("canny", "CannyDetector"),
    "hed": ("hed", "HEDdetector"),
    "pidinet": ("pidi", "PidiNetDetector"),
    "lineart": ("lineart", "LineartDetector"),
    "lineart-coarse": ("lineart", "LineartDetector"),
    "lineart-anime": ("lineart_anime", "LineartAnimeDetector"),
    "mlsd": ("mlsd", "MLSDdetector"),
    "teed": ("teed", "TEEDdetector"),
    "anyline": ("anyline", "AnylineDetector"),
    "lineart-standard": ("lineart_standard", "LineartStandardDetector"),
}
SIZES = [(64, 64), (100, 130), (140, 70)]
OWN_SIZE = ("teed", "anyline", "lineart-standard")  # the library gives these at the picture's size


def photo(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(height).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    picture = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(picture, (width // 2, height // 2), min(height, width) // 3, (255, 240, 20), -1)
    cv2.line(picture, (3, 5), (width - 9, height - 4), (0, 0, 0), 2)
    return picture


def network_of(id: str) -> torch.nn.Module:
    chosen = estimator(id).tiny()
    network = chosen.build(Checkpoint(Path("x"), {}, None, None))
    network.load_state_dict(seeded_state(network))
    return network.eval().requires_grad_(False)


def detector(id: str, network: torch.nn.Module) -> Any:
    module, name = DETECTORS[id]
    made = getattr(family.library(module, id), name)
    if id in ("canny", "lineart-standard"):
        return made()
    return made(network, network) if module == "lineart" else made(network)


def ours(id: str, network: torch.nn.Module, picture: np.ndarray, size: tuple[int, int], **options: Any) -> Lines:
    chosen = estimator(id).tiny()
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    fit = chosen.fit(*picture.shape[:2], 64)
    made = chosen.infer(network, pixels, fit, size, chosen.settings(options))["lines"]
    assert isinstance(made, Lines)
    return made


@with_library
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("id", list(DETECTORS))
def test_the_picture_is_the_librarys_to_the_last_level(id: str, size: tuple[int, int]) -> None:
    picture, network = photo(*size), network_of(id)
    with torch.inference_mode():
        if id in OWN_SIZE:
            expected = detector(id, network)(picture, detect_resolution=64, output_type="np")
        else:
            expected = detector(id, network)(picture, detect_resolution=64, image_resolution=64, output_type="np")
        options = {"drawing": "8-bit"} if any(o.name == "drawing" for o in estimator(id).options) else {}
        lines = ours(id, network, picture, expected.shape[:2], **options)
    drawn = (lines.strength[0] * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(drawn, expected[..., 0])
    assert expected.max() > 0


@with_library
@pytest.mark.parametrize(
    ("id", "options"),
    [
        ("hed", {"safe": True}),
        ("hed", {"scribble": True}),
        ("pidinet", {"scribble": True}),
        ("pidinet", {"safe": True}),
    ],
    ids=str,
)
def test_options_draw_as_the_librarys_do(id: str, options: dict[str, bool]) -> None:
    picture, network = photo(100, 130), network_of(id)
    with torch.inference_mode():
        expected = detector(id, network)(picture, 64, 64, output_type="np", **options)
        lines = ours(id, network, picture, expected.shape[:2], **options)
    assert np.array_equal((lines.strength[0] * 255).round().to(torch.uint8).numpy(), expected[..., 0])


@with_library
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_anylines_edges_alone_are_teeds_over_its_weights(size: tuple[int, int]) -> None:
    picture, network = photo(*size), network_of("anyline")
    with torch.inference_mode():
        expected = detector("teed", network)(picture, detect_resolution=64, output_type="np")
        lines = ours("anyline", network, picture, expected.shape[:2], merged=False)
    assert np.array_equal((lines.strength[0] * 255).round().to(torch.uint8).numpy(), expected[..., 0])


def raw(id: str, network: Any, levels: torch.Tensor) -> torch.Tensor:
    """The library's numbers before it rounds them, by its own steps in numpy."""
    height, width = levels.shape[-2:]
    if id in ("hed", "teed"):
        maps = [cv2.resize(m[0, 0].numpy(), (width, height), interpolation=cv2.INTER_LINEAR) for m in network(levels)]
        return torch.from_numpy(1 / (1 + np.exp(-np.mean(np.stack(maps, 2), 2).astype(np.float64))))
    if id == "pidinet":
        return network(levels.flip(1) / 255)[-1][0, 0]
    if id == "lineart-anime":
        inside = -(-width // 256) * 256, -(-height // 256) * 256
        seen = cv2.resize(levels[0].permute(1, 2, 0).numpy().astype(np.uint8), inside, interpolation=cv2.INTER_CUBIC)
        line = network(torch.from_numpy(seen).permute(2, 0, 1)[None].float() / 127.5 - 1)[0, 0] * 127.5 + 127.5
        line = cv2.resize(line.numpy(), (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255)
        return 1 - torch.from_numpy(line) / 255
    return 1 - network(levels / 255)[0, 0]


@with_library
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("id", ["hed", "pidinet", "lineart", "lineart-coarse", "lineart-anime", "teed"])
def test_the_numbers_are_the_librarys_before_rounding(id: str, size: tuple[int, int]) -> None:
    picture, network = photo(*size), network_of(id)
    util = family.library("util", id)
    seen = util.resize_image(picture, 64)
    options = {"steps": 0} if id == "teed" else {}
    with torch.inference_mode():
        expected = raw(id, network, torch.from_numpy(seen).permute(2, 0, 1)[None].float())
        lines = ours(id, network, picture, seen.shape[:2], **options)
    assert float((lines.strength[0].double() - expected.double()).abs().max()) < 1e-4


@with_library
def test_the_library_is_imported_without_its_init() -> None:
    code = (
        "import os, sys, fathom; from fathom.models.controlnet_aux import library;"
        "library('hed', 'x'); library('open_pose', 'x');"
        "print('controlnet_aux' in sys.modules, 'controlnet_aux.segment_anything' in sys.modules,"
        "'KMP_DUPLICATE_LIB_OK' not in os.environ)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False", "True"], out.stdout + out.stderr


def test_without_the_library_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in [n for n in sys.modules if n.split(".")[0] == "controlnet_aux"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SettingError, match="HED needs the library controlnet-aux.*pip install controlnet-aux"):
        estimator("hed").build(Checkpoint(Path("x"), {}, None, None))


@pytest.mark.parametrize("id", ["canny", "lineart-standard"])
def test_those_without_a_network_run_offline(id: str, scene: torch.Tensor) -> None:
    lines = fathom.load(id, device="cpu")(scene, 64)
    assert isinstance(lines, Lines) and lines.strength.shape == (1, 64, 85) and lines.strength.amax() > 0


@pytest.mark.parametrize(("id", "told"), [("dwpose", "mmcv.*Choose openpose"), ("content-shuffle", "ShufflePrepro")])
def test_what_is_no_estimator_is_told_with_what_to_use(id: str, told: str) -> None:
    with pytest.raises(SettingError, match=told):
        fathom.load(id)


@with_library
def test_a_second_run_opens_no_file(tmp_path: Path) -> None:
    opened, watching = [], [False]
    # A hook stays for the life of the process, so it listens for as long as it is told to.
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" and watching[0] else None)
    for id in ("hed", "lineart", "mlsd", "openpose"):
        chosen = estimator(id).tiny()
        path = tmp_path / f"{id}.pth"
        torch.save(seeded_state(chosen.build(Checkpoint(Path("x"), {}, None, None))), path)
        annotator, pixels = fathom.load(chosen, weights=path, device="cpu"), torch.rand(1, 64, 64, 3)
        drawings: tuple[dict[str, Any], ...] = ({}, {"drawing": "8-bit"}) if id in ("hed", "lineart") else ({},)
        for options in drawings:
            annotator.annotate(pixels, 64, options)
            watching[0] = True
            try:
                annotator.annotate(pixels, 64, options)
            finally:
                watching[0] = False
    assert [path for path in opened if not path.startswith("/proc/")] == []


def test_lines_out_of_form_are_told() -> None:
    with pytest.raises(SignalError, match="must be"):
        Lines(torch.zeros(4, 4))
    with pytest.raises(SignalError, match="float32"):
        Lines(torch.zeros(1, 4, 4).half())
    for bad in (1.5, -0.1, float("nan")):
        with pytest.raises(SignalError, match="0..1"):
            Lines(torch.full((1, 2, 2), bad))


# ------------------------------------------------------------------------------- with depth


def outlines() -> tuple[Lines, Depth]:
    """Two upright lines, the left one where the picture is near, the right one where it is far."""
    strength = torch.zeros(1, 20, 40)
    strength[:, :, 8], strength[:, :, 30] = 1.0, 1.0
    near = torch.linspace(1.0, 0.1, 40).expand(1, 20, 40).contiguous()
    return Lines(strength, "t"), Depth(near, "affine_inverse")


def test_only_the_lines_of_what_is_near_stay() -> None:
    lines, depth = outlines()
    kept = lines_by_depth(lines, depth, 0.5, 0.0)
    assert torch.equal(kept.strength[..., :20], lines.strength[..., :20])
    assert float(kept.strength[..., 20:].max()) == 0


def test_lines_are_wider_where_they_are_closer() -> None:
    lines, depth = outlines()
    grown = lines_by_depth(lines, depth, 0.0, 0.0, thick=5, reach=0)
    wide = (grown.strength[0, 10] > 0).int()
    assert int(wide[:20].sum()) == 2 * round(5 * 31 / 39) + 1 and int(wide[20:].sum()) == 2 * round(5 * 9 / 39) + 1


def test_an_outline_beside_a_thing_counts_as_its_own() -> None:
    strength = torch.zeros(1, 9, 20)
    strength[:, :, 11] = 1.0
    near = torch.zeros(1, 9, 20)
    near[:, :, :10] = 1.0
    depth = Depth(near, "affine_inverse")
    assert lines_by_depth(Lines(strength), depth, 0.5, 0.0, reach=1).strength.max() == 0
    assert lines_by_depth(Lines(strength), depth, 0.5, 0.0, reach=2).strength.max() == 1


def test_depth_of_another_size_or_number() -> None:
    lines, depth = outlines()
    small = Depth(depth.values[:, ::2, ::2].contiguous(), "affine_inverse")
    assert lines_by_depth(lines, small).strength.shape == lines.strength.shape
    two = Lines(lines.strength.repeat(3, 1, 1))
    assert len(lines_by_depth(two, depth)) == 3
    with pytest.raises(SignalError, match="3 drawings and 2 depths"):
        lines_by_depth(two, Depth(depth.values.repeat(2, 1, 1), "affine_inverse"))


@with_library
@pytest.mark.parametrize("size", [(64, 128), (320, 256), (512, 640)], ids=str)
def test_a_shuffle_is_the_librarys_after_the_same_seed(size: tuple[int, int]) -> None:
    picture = photo(*size)
    np.random.seed(7)
    expected = family.library("shuffle", "x").ContentShuffleDetector()(
        picture, detect_resolution=min(size), image_resolution=min(size), output_type="np"
    )
    made = content_shuffle(torch.from_numpy(picture).float() / 255, 7)
    assert np.array_equal((made * 255).round().to(torch.uint8).numpy(), expected)
