"""Video Depth Anything: the windows and their alignment against a plain version of the published rule, what a film
costs and how far it looks ahead, and the official numbers at full size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import DATA, fill, published

import fathom
from fathom import FathomError, PictureError, SettingError, WeightsError
from fathom.annotator.loading import parameters_on_meta
from fathom.annotator.weights import Checkpoint
from fathom.models.video_depth_anything import BLEND, KEYFRAMES, OVERLAP, STEP, WINDOW, Alignment, FilmInWindows

ID = "video-depth-anything-small"
NOWHERE = Path("some.pth")


def film_of(frames: int, height: int = 40, width: int = 56, seed: int = 0) -> torch.Tensor:
    """A slow pan over noise: float (frames,height,width,3)."""
    wide = torch.rand(1, 3, height // 4, (width + frames) // 4 + 2, generator=torch.Generator().manual_seed(seed))
    wide = torch.nn.functional.interpolate(wide, (height, width + frames), mode="bilinear")
    return torch.stack([wide[0, :, :, i : i + width] for i in range(frames)]).permute(0, 2, 3, 1)


def plainly(frames: torch.Tensor, window_depth: Any, metric: bool) -> torch.Tensor:
    """The published way over a whole film in memory: frames (N,...), window_depth(window (32,...)) -> (32,H,W)."""
    total = len(frames)
    frames = torch.cat([frames, frames[-1:].expand(2 * WINDOW, *frames.shape[1:])])
    made: list[torch.Tensor] = []
    anchors: list[torch.Tensor] = []
    before = None
    for start in range(0, total, STEP):
        window = frames[start : start + WINDOW].clone()
        if before is not None:
            window[:OVERLAP] = before[list(KEYFRAMES)]
        before, depth = window, window_depth(window)
        scale, shift = torch.tensor(1.0), torch.tensor(0.0)
        if anchors and not metric:
            x, y = depth[:2].flatten().double(), torch.stack(anchors).flatten().double()
            scale, shift = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None]).solution[:, 0]
        if anchors:
            depth = (depth * scale.float() + shift.float()).clamp(min=0)
            for i in range(BLEND):
                share = i / (BLEND - 1)
                made[i - BLEND] = made[i - BLEND] * (1 - share) + depth[2 + i] * share
            made += [*depth[OVERLAP:]]
            anchors = [anchors[0], depth[12]]
        else:
            made = [*depth]
            anchors = [depth[0], depth[12]]
    return torch.stack(made[:total])


@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 22, 23, 31, 32, 33, 44, 45, 80])
def test_windows_are_joined_as_published(frames: int, metric: bool) -> None:
    """A network whose scale and shift depend on what the window holds, as the real one's do."""
    pixels = torch.rand(frames, 1, 5, 6, generator=torch.Generator().manual_seed(frames))

    class Network:
        def __call__(self, x: torch.Tensor, *maps: torch.Tensor, part: str) -> Any:
            if part == "encode":
                return [x, x, x, x]
            if part == "fuse":
                return x * (1 + x.mean()) + x[3].mean()
            return (x * 2 + 0 * maps[0])[:, 0]

    def window_depth(window: torch.Tensor) -> torch.Tensor:
        return (window * (1 + window.mean()) + window[3].mean())[:, 0] * 2

    film = FilmInWindows(Network(), lambda p: p, lambda d: d, lambda d: d, metric)
    streamed = torch.stack([*film.push(pixels), *film.flush()])
    torch.testing.assert_close(streamed, plainly(pixels, window_depth, metric), rtol=1e-5, atol=1e-5)


def test_frames_without_relief_keep_their_scale() -> None:
    alignment = Alignment()
    list(alignment.add(lambda place: torch.full((2, 3), 5.0)))
    second = list(alignment.add(lambda place: torch.full((2, 3), 7.0)))
    assert all(torch.isfinite(depth).all() for depth in second)
    assert torch.equal(second[0], torch.full((2, 3), 5.0)) and torch.equal(second[-1], torch.full((2, 3), 7.0))


def test_a_window_seen_whole_equals_its_parts(tiny_annotator: Any) -> None:
    network = tiny_annotator(ID).network
    frames = torch.randn(1, WINDOW, 3, 28, 42, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        whole = network(frames)
        maps = network(frames[0], part="encode")
        path = network(maps[2], maps[3], maps[1], part="fuse")
        assert whole.shape == (1, WINDOW, 28, 42)
        torch.testing.assert_close(network(path, maps[1], maps[0], part="finish"), whole[0], rtol=1e-4, atol=1e-5)
        assert network(frames[:, :3]).shape == (1, 3, 28, 42)


def test_a_film_costs_one_pass_of_the_backbone_for_each_frame(tiny_annotator: Any) -> None:
    tiny = tiny_annotator(ID)
    seen: list[int] = []
    hook = tiny.network.pretrained.patch_embed.proj.register_forward_hook(lambda _, x, y: seen.append(len(y)))
    tiny(film_of(50))
    hook.remove()
    assert sum(seen) == 50


@pytest.mark.parametrize("frames", [1, 2, 31, 33])
def test_a_batch_is_one_film_and_a_stream_gives_the_same(frames: int, tiny_annotator: Any) -> None:
    tiny, film = tiny_annotator(ID), film_of(frames)
    whole: Any = tiny(film, 20)
    assert whole.values.shape == (frames, 20, 28) and whole.kind == "affine_inverse"
    stream = tiny.film(40, 56, 20)
    parts = [signals["depth"] for frame in film.split(1) for signals in stream.push(frame)]
    parts += [signals["depth"] for signals in stream.flush()]
    # One frame at a time instead of four: sums in another order, up to 1.4e-4 apart (torch 2.6).
    torch.testing.assert_close(torch.cat([part.values for part in parts]), whole.values, rtol=1e-3, atol=2e-4)


def test_a_stream_looks_ahead_fewer_frames_than_a_window(tiny_annotator: Any) -> None:
    stream, given = tiny_annotator(ID).film(40, 56), 0
    for number, frame in enumerate(film_of(100).split(1), 1):
        given += len(list(stream.push(frame)))
        assert number - given < WINDOW
    assert given + len(list(stream.flush())) == 100


def test_what_is_held_does_not_grow_with_the_film(tiny_annotator: Any) -> None:
    """Tensors that live four windows apart, at the same frame of a window, by the collector's count."""
    import gc

    stream, film = tiny_annotator(ID).film(40, 56), film_of(60 + 4 * STEP)

    def held(frames: torch.Tensor) -> int:
        for _ in stream.push(frames):
            pass
        gc.collect()
        return sum(type(o) is torch.Tensor for o in gc.get_objects())

    first = held(film[:60])
    assert held(film[60:]) <= first


def test_frames_of_another_size_are_told(tiny_annotator: Any) -> None:
    stream = tiny_annotator(ID).film(40, 56)
    list(stream.push(film_of(3)))
    with pytest.raises(PictureError, match="frame 4 is 60x40, but the film began with 56x40"):
        list(stream.push(film_of(1, width=60)))
    with pytest.raises(SettingError, match="fathom-tiny sees one picture at a time"):
        tiny_annotator("fathom-tiny").film(40, 56)


def test_a_cancelled_window_leaves_nothing_behind(tiny_annotator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fathom.annotator import host

    class Cancelled(Exception):
        pass

    tiny, film, checks = tiny_annotator(ID), film_of(40), []
    expected: Any = tiny(film)

    def cancel() -> None:
        checks.append(1)
        if len(checks) == 12:  # between two frames that come out of the first window
            raise Cancelled

    monkeypatch.setattr(host, "check_interrupt", cancel)
    with pytest.raises(Cancelled):
        tiny(film)
    monkeypatch.undo()
    again: Any = tiny(film)
    assert torch.equal(again.values, expected.values)


def test_no_room_for_a_window_is_told(tiny_annotator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = tiny_annotator(ID)

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tiny.network.head, "fuse", full)
    with pytest.raises(FathomError, match="ran out of memory"):
        tiny(film_of(2))


def test_the_networks_size_follows_input_size() -> None:
    small = fathom.estimators()[ID]
    assert small.fit(1080, 1920, None).network == (518, 924)
    assert small.fit(1080, 1920, 256).network == (518, 924)  # 16:9 is 1.777
    assert small.plan(96, 128, None, {"input_size": 98}).network == (98, 126)
    assert small.plan(800, 1920, None, {"input_size": 518}).network == (378, 910)  # int(518 * 1.777 / 2.4) = 383
    fit = small.plan(1, 4000, None, {"input_size": 518})
    assert fit.network[0] == 14 and (fit.way_in, fit.way_out) == ("bicubic", "bilinear_corners")


def test_files_of_other_networks_are_told() -> None:
    small = fathom.estimators()[ID]
    single = {"pretrained.cls_token": torch.zeros(1, 1, 384), "depth_head.projects.0.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match="for single pictures, not for film"):
        small.adapt(Checkpoint(NOWHERE, single))
    with pytest.raises(WeightsError, match="1024 wide, expected 384; choose video-depth-anything-large"):
        small.adapt(Checkpoint(NOWHERE, {"pretrained.cls_token": torch.zeros(1, 1, 1024)}))


@pytest.mark.parametrize("size", ["small", "base", "large", "metric-small"])
def test_the_parameter_count_is_the_networks(size: str) -> None:
    estimator = fathom.estimators()[f"video-depth-anything-{size}"]
    with parameters_on_meta():
        network = estimator.build(Checkpoint(NOWHERE, {}))
    assert sum(p.numel() for p in network.parameters()) == estimator.parameters
    assert ("non-commercial" in str(estimator.licence)) == (size in ("base", "large"))


def test_metres_of_nothing_are_no_measurement() -> None:
    metres = torch.tensor([[[[0.0, 2.0]]]])
    depth: Any = fathom.estimators()["video-depth-anything-metric-small"].signal(metres)
    assert depth.kind == "metric" and depth.valid.tolist() == [[[False, True]]]
    relative: Any = fathom.estimators()[ID].signal(metres)
    assert relative.kind == "affine_inverse" and relative.valid is None


@pytest.mark.parity
@pytest.mark.parametrize("size", ["small", "metric-small"])
def test_official_files_give_the_official_numbers(size: str, tmp_path: Path) -> None:
    file = ("metric_" if size != "small" else "") + "video_depth_anything_vits.pth"
    path = published(f"video_depth_anything/{file}", tmp_path)
    annotator = fathom.load(f"video-depth-anything-{size}", weights=path, device="cpu")
    goldens = np.load(DATA / "video_depth_anything" / "goldens.npz")
    for number, about in enumerate(json.loads((DATA / "video_depth_anything" / "goldens.json").read_text())):
        if about["file"] != file:
            continue
        if about["kind"] == "raw":
            height, width = about["size"]
            pan = fill.field(0, f"input/{height}x{width}", height, width + 62)
            frames = torch.from_numpy(np.stack([pan[:, :, 2 * i : 2 * i + width] for i in range(WINDOW)]))[None]
            assert fill.sha(frames.numpy()) == about["sha256"]
            with torch.inference_mode():
                ours = annotator.network(frames)[0, ::4, ::8, ::8]
        else:
            pan = fill.field(0, "video/96x128x44", 96, 257).transpose(1, 2, 0)
            frames = np.stack([((pan[:, 3 * i : 3 * i + 128] / 4 + 0.5) * 255).astype(np.uint8) for i in range(44)])
            depth: Any = annotator(torch.from_numpy(frames), input_size=98)
            ours = (
                (depth.metres().masked_fill(~depth.valid, 0.0) if depth.valid is not None else depth.metres())
                if depth.kind == "metric"
                else depth.values
            )
            ours = ours[:, ::8, ::8]
        off = np.abs(ours.numpy() - goldens[str(number)]) / (about["max"] - about["min"])
        assert off.max() <= 1e-5, about
