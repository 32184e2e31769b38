"""Old ids for lines: they run, alone and by AIO_Preprocessor, and what is not there is told by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fathom import SettingError
from fathom.nodes.dropin import DROP_INS, lines
from fathom.signals.lines import Lines
from fathom.tools.lines import without_spots

cv2 = pytest.importorskip("cv2")


@pytest.mark.parametrize("id", ["CannyEdgePreprocessor", "LineartStandardPreprocessor", "ShufflePreprocessor"])
def test_those_without_a_network_run_alone_and_by_name(id: str, scene: torch.Tensor) -> None:
    node = DROP_INS[id]()
    (alone,) = getattr(node, node.METHOD)(image=scene, resolution=64)
    (chosen,) = DROP_INS["AIO_Preprocessor"]().execute(id, scene, 64)
    assert alone.shape == (1, 64, 85, 3) and torch.equal(alone, chosen) and alone.max() > 0
    assert DROP_INS[f"Inference_Core_{id}"] is DROP_INS[id]


@pytest.mark.parametrize("id", list(lines.NEAR))
def test_what_is_not_there_is_told_with_what_is_near(id: str, scene: torch.Tensor) -> None:
    with pytest.raises(SettingError, match=f"no preprocessor '{id}'.*install comfyui_controlnet_aux"):
        DROP_INS["AIO_Preprocessor"]().execute(id, scene, 64)


# ------------------------------------------------------------------------------- drawn from brightness


def shapes(height: int = 150, width: int = 211) -> torch.Tensor:
    """Two pictures (2,H,W,3) in whole levels: soft colours, dark strokes and noise."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    wave = torch.stack([(rows * f + columns * g).sin() for f, g in ((0.05, 0.02), (0.01, 0.07), (0.03, 0.03))], -1)
    picture = wave * 0.3 + 0.6
    picture[(rows - columns).abs() < 3] = 0.05
    picture[40:70, 100:140] *= 0.3
    noise = torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(5)) * 0.1
    return ((picture + noise).clamp(0, 1) * 255).round() / 255


def as_published(
    levels: np.ndarray, short_side: int, draw: Callable[[np.ndarray], np.ndarray], grow: int
) -> np.ndarray:
    """What comfyui_controlnet_aux does around each annotator: resize, continue to multiples of 64, draw, cut."""
    scale = short_side / min(levels.shape[:2])
    height, width = (int(np.round(side * scale)) for side in levels.shape[:2])
    seen = cv2.resize(levels, (width, height), interpolation=grow if scale > 1 else cv2.INTER_AREA)
    below, beside = (int(np.ceil(side / 64) * 64 - side) for side in (height, width))
    return draw(np.pad(seen, [[0, below], [0, beside], [0, 0]], mode="edge"))[:height, :width]


def published_xdog(seen: np.ndarray, threshold: int) -> np.ndarray:
    fine, coarse = (cv2.GaussianBlur(seen.astype(np.float32), (0, 0), s) for s in (0.5, 5.0))
    light = (255 - np.min(coarse - fine, axis=2)).clip(0, 255).astype(np.uint8)
    return (2 * (255 - light) > threshold).astype(np.uint8) * 255


def published_power(values: np.ndarray, gamma: float) -> np.ndarray:
    return ((values.astype(np.float32) / 255.0) ** gamma * 255.0).clip(0, 255).astype(np.uint8)


def published_pyramid(seen: np.ndarray, low: int, high: int) -> np.ndarray:
    total = None
    for share in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        size = int(seen.shape[1] * share), int(seen.shape[0] * share)
        small = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
        edges = np.stack([cv2.Canny(small[..., c].copy(), low, high).astype(np.float32) / 255.0 for c in range(3)], 2)
        total = (
            edges if total is None else cv2.resize(total, size, interpolation=cv2.INTER_LINEAR) * 0.75 + edges * 0.25
        )
    strength = np.sum(total, axis=2)
    least, most = np.percentile(strength, 1), np.percentile(strength, 99)
    strength -= least
    strength /= most - least
    return (strength * 255.0).clip(0, 255).astype(np.uint8)


def published_binary(seen: np.ndarray, threshold: int) -> np.ndarray:
    grey = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY)
    otsu = cv2.THRESH_OTSU if threshold in (0, 255) else 0
    return 255 - cv2.threshold(grey, 0 if otsu else threshold, 255, cv2.THRESH_BINARY_INV + otsu)[1]


DRAWN: list[tuple[str, dict[str, Any], Callable[[np.ndarray], np.ndarray], int]] = [
    ("Scribble_XDoG_Preprocessor", {}, lambda s: published_xdog(s, 32), cv2.INTER_CUBIC),
    ("Scribble_XDoG_Preprocessor", {"threshold": 5}, lambda s: published_xdog(s, 5), cv2.INTER_CUBIC),
    ("ScribblePreprocessor", {}, lambda s: np.where(s.min(2) < 127, 0, 255).astype(np.uint8), cv2.INTER_AREA),
    ("BinaryPreprocessor", {}, lambda s: published_binary(s, 100), cv2.INTER_CUBIC),
    ("BinaryPreprocessor", {"bin_threshold": 0}, lambda s: published_binary(s, 0), cv2.INTER_CUBIC),
    ("PyraCannyPreprocessor", {}, lambda s: published_pyramid(s, 64, 128), cv2.INTER_CUBIC),
    (
        "ImageLuminanceDetector",
        {"gamma_correction": 0.7},
        lambda s: published_power(cv2.cvtColor(s, cv2.COLOR_BGR2LAB)[..., 0], 0.7),
        cv2.INTER_CUBIC,
    ),
    (
        "ImageIntensityDetector",
        {"gamma_correction": 1.6},
        lambda s: published_power(cv2.cvtColor(s, cv2.COLOR_BGR2HSV)[..., 2], 1.6),
        cv2.INTER_CUBIC,
    ),
]


@pytest.mark.parametrize("resolution", [64, 128, 300])
@pytest.mark.parametrize(("id", "given", "draw", "grow"), DRAWN, ids=[f"{d[0]} {d[1]}" for d in DRAWN])
def test_drawn_as_published(id: str, given: dict[str, Any], draw: Any, grow: int, resolution: int) -> None:
    pictures = shapes()
    (made,) = DROP_INS[id]().execute(pictures, **given, resolution=resolution)
    assert made.shape[0] == 2 and made.shape[-1] == 3 and made.dtype == torch.float32
    for picture, drawing in zip(pictures, made, strict=True):
        levels = (picture * 255).round().to(torch.uint8).numpy()
        expected = as_published(levels, resolution, draw, grow)
        assert 0 < expected.mean() < 255
        assert np.array_equal((drawing[..., 0] * 255).round().numpy(), expected)


@pytest.mark.parametrize("id", list(dict.fromkeys(d[0] for d in DRAWN)))
def test_pictures_of_one_and_of_four_channels_are_drawn(id: str) -> None:
    grey = shapes()[..., :1]
    colours = torch.cat((shapes(), torch.ones(2, 150, 211, 1)), -1)
    node = DROP_INS[id]()
    assert node.execute(grey, resolution=64)[0].shape == (2, 64, 90, 3)
    assert torch.equal(node.execute(colours, resolution=64)[0], node.execute(shapes(), resolution=64)[0])


def test_a_flat_picture_has_no_edges() -> None:
    (made,) = DROP_INS["PyraCannyPreprocessor"]().execute(torch.full((1, 64, 64, 3), 0.5), resolution=64)
    assert made.shape == (1, 64, 64, 3) and float(made.abs().max()) == 0


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("least", [1, 12, 40])
def test_spots_go_by_their_size_in_all_three_channels(corners: bool, least: int) -> None:
    """As scikit-image's remove_small_objects did before 0.26, which takes those of exactly that size as well."""
    measure = pytest.importorskip("skimage.measure")
    noise = torch.rand(80, 90, generator=torch.Generator().manual_seed(1))
    drawing = torch.where(noise > 0.55, noise, 0.0)
    solid = np.repeat((drawing.numpy() > 0)[..., None], 3, 2)
    labels = measure.label(solid, connectivity=2 if corners else 1)
    kept = (np.bincount(labels.ravel())[labels] >= 3 * least)[..., 0]
    assert torch.equal(without_spots(drawing, least, corners), drawing * torch.from_numpy(kept))


def test_edges_and_lines_are_merged_in_float(monkeypatch: pytest.MonkeyPatch, scene: torch.Tensor) -> None:
    """As the pack merges them: 1 - (1 - line)(1 - edge), lines between the bounds alone, without spots."""
    edges, added = torch.zeros(1, 20, 20), torch.zeros(1, 20, 20)
    edges[:, :, 3], edges[:, 5] = 0.5, 1.0
    added[:, :, 3], added[:, 10], added[:, 15, 15] = 0.25, 0.75, 0.5  # the last is a spot
    asked = []

    def run(id: str, image: Any, resolution: int, slot: str, options: dict[str, Any]) -> Lines:
        asked.append((id, resolution, options))
        return Lines(edges if id == "anyline" else added)

    monkeypatch.setattr(lines, "run", run)
    node = DROP_INS["AnyLineArtPreprocessor_aux"]()
    (made,) = node.get_anyline(scene)
    expected = 1 - (1 - added) * (1 - edges)
    expected[:, 15, 15] = 0
    assert torch.equal(made[..., 0], expected) and torch.equal(made[..., 1], made[..., 2])
    assert asked == [
        ("anyline", 512, {"merged": False}),
        ("lineart-standard", 512, {"sigma": 2.0, "threshold": 3}),
    ]
    (made,) = node.get_anyline(scene, "lineart_anime", 64, lineart_lower_bound=0.5, object_min_size=1)
    expected = 1 - (1 - torch.where(added >= 0.5, added, 0.0)) * (1 - edges)
    assert torch.equal(made[..., 0], expected) and asked[-1][0] == "lineart-anime"
    with pytest.raises(SettingError, match="lineart_anime, got 'manga_line'.*comfyui_controlnet_aux"):
        node.get_anyline(scene, "manga_line")
