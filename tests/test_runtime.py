"""Running in pieces, keeping networks, giving memory back."""

from __future__ import annotations

import copy
import os
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import fathom
from fathom import SignalError
from fathom.annotator import host, loading, runtime
from fathom.signals import Depth

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tiny():
    return fathom.load("fathom-tiny")


def test_a_film_in_pieces_equals_its_frames(tiny):
    film = torch.rand(7, 48, 64, 3, generator=torch.Generator().manual_seed(1))
    together = tiny(film, 64)
    assert len(together) == 7 > runtime._MOST_PER_CPU_BATCH
    for index in (0, 3, 4, 6):
        torch.testing.assert_close(
            together[index].values, tiny(film[index : index + 1], 64).values, rtol=1e-4, atol=1e-4
        )


def test_a_processor_takes_large_pictures_one_at_a_time(tiny, monkeypatch):
    taken, run = [], type(tiny)._within_memory
    monkeypatch.setattr(
        type(tiny), "_within_memory", lambda self, part, *rest: taken.append(len(part)) or run(self, part, *rest)
    )
    tiny(torch.rand(5, 32, 32, 3))
    tiny(torch.rand(2, 2048, 2048, 3), 64)
    assert taken == [4, 1, 1, 1]


def test_a_slow_network_takes_few_pictures_together_so_that_it_can_be_cancelled(tiny, monkeypatch):
    taken, moment, run = [], [0.0], type(tiny)._within_memory

    def slow(self, part, *rest):
        taken.append(len(part))
        moment[0] += 0.6 * len(part) if len(taken) < 4 else 0.1 * len(part)
        return run(self, part, *rest)

    monkeypatch.setattr(type(tiny), "_within_memory", slow)
    monkeypatch.setattr(runtime.time, "monotonic", lambda: moment[0])
    tiny(torch.rand(14, 32, 32, 3))
    assert taken == [4, 1, 1, 1, 4, 3], (
        "4 at once took longer than a second; once they are quick again, all go together"
    )


def test_a_processor_gets_the_memory_layout_that_it_is_quicker_in(tiny_annotator, scene):
    network = tiny_annotator("depth-anything-v2-small").network
    widest = network.depth_head.scratch.output_conv1.weight
    assert widest.is_contiguous(memory_format=torch.channels_last) and not widest.is_contiguous()
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    assert plain.depth_head.scratch.output_conv1.weight.is_contiguous()
    pixels = scene[:, :84, :126].movedim(-1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(network(pixels), plain(pixels), rtol=1e-5, atol=1e-5)
    other = tiny_annotator("leres").network
    assert all(p.is_contiguous() for p in other.parameters())


def test_pieces_that_differ_in_what_is_valid_come_together():
    values = torch.arange(1.0, 6.0)[:, None, None].expand(5, 2, 3)
    valid = torch.ones(1, 2, 3, dtype=torch.bool)
    valid[0, 0, 0] = False
    film = Depth.gather(5)
    for part in (Depth(values[:2], "metric"), Depth(values[2:3], "metric", valid), Depth(values[3:], "metric")):
        film.add(part)
    whole = film.whole()
    assert torch.equal(whole.values, values)
    assert whole.valid.sum() == 5 * 6 - 1 and not whole.valid[2, 0, 0]


@pytest.mark.parametrize("first", [0, 1])
def test_pieces_of_which_only_some_are_sure_are_refused(first):
    values = torch.ones(2, 2, 3)
    parts = Depth(values, "metric"), Depth(values, "metric", confidence=values)
    with pytest.raises(SignalError, match="only some have confidence"):
        Depth.join([parts[first], parts[1 - first]])
    assert Depth.join(parts[:1]) is parts[0]
    assert torch.equal(Depth.join([parts[1], parts[1]]).confidence, torch.ones(4, 2, 3))


def test_as_many_pictures_come_as_were_told():
    film = Depth.gather(3)
    film.add(Depth(torch.ones(2, 2, 3), "metric"))
    with pytest.raises(SignalError, match="3 pictures were to come, 2 came"):
        film.whole()
    with pytest.raises(SignalError, match="1 pictures were to come, 0 came"):
        Depth.gather(1).whole()


class Starved(torch.nn.Module):
    """A network on a device that has memory for so many pictures at once. error: what too many raise."""

    def __init__(self, network, most, error):
        super().__init__()
        self.network, self.most, self.error = network, most, error
        self.taken, self.alive = [], []

    def forward(self, x):
        activation = x.new_ones(10)
        self.alive.append(weakref.ref(activation))
        self.taken.append(len(x))
        if len(x) > self.most:
            raise type(self.error)(*self.error.args)  # a new one: an error holds the frames that it went through
        return self.network(x)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["gpu", "processor", "python"])
def test_too_many_pictures_for_the_memory_are_halved(tiny, error, monkeypatch):
    film = torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(2))
    starved = Starved(tiny.network, 1, error)
    held = []
    release = host.release_device_memory
    monkey = pytest.MonkeyPatch()
    monkey.setattr(
        host, "release_device_memory", lambda: held.extend(r() is not None for r in starved.alive) or release()
    )
    with monkey.context():
        signals = tiny.annotate(film, 32, lend=lambda network: starved)
    monkey.undo()
    assert starved.taken[:3] == [4, 2, 1]
    assert held and not any(held), "what the failed forward computed was still alive when memory was asked for again"
    torch.testing.assert_close(signals["depth"].values, tiny(film, 32).values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["gpu", "processor", "python"])
def test_one_picture_too_large_for_the_memory_is_told(tiny, error):
    with pytest.raises(fathom.FathomError, match="ran out of memory .* Lower resolution"):
        tiny.annotate(torch.rand(1, 32, 32, 3), 32, lend=lambda network: Starved(network, 0, error))


def test_other_errors_are_not_taken_for_too_little_memory(tiny):
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        tiny.annotate(torch.rand(1, 32, 32, 3), lend=lambda network: Starved(network, 0, RuntimeError("mat1 and mat2")))


def test_a_callers_autocast_changes_nothing(tiny, scene_picture):
    expected = tiny(scene_picture).values
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tiny(scene_picture).values, expected)


def test_a_scene_has_the_picture_and_every_slot_of_one_forward(tiny, scene_picture):
    scene = tiny.scene(scene_picture, 64)
    assert scene.picture.shape == (1, 128, 192, 3) and list(scene.slots) == list(tiny.estimator.produces)
    assert torch.equal(scene.depth.values, tiny(scene_picture, 64).values)


def test_an_estimator_of_two_slots_runs_once(tiny, monkeypatch):
    calls = []
    annotate = runtime.Annotator.annotate
    monkeypatch.setattr(runtime.Annotator, "annotate", lambda self, *rest: calls.append(1) or annotate(self, *rest))
    picture = torch.rand(1, 32, 32, 3)
    scene = fathom.decompose(picture, {"depth": "fathom-tiny", "rough-depth": "fathom-tiny"}, 32)
    assert list(scene.slots) == ["depth", "rough-depth"] and len(calls) == 1


def test_a_bad_frame_late_in_a_film_stops_it_before_anything_runs(tiny, monkeypatch):
    film = torch.rand(6, 32, 32, 3)
    film[5, 0, 0, 0] = torch.nan
    monkeypatch.setattr(type(tiny), "_within_memory", lambda *_: pytest.fail("a frame was run"))
    with pytest.raises(fathom.PictureError, match="1 NaN"):
        tiny(film)


def test_the_cache_keeps_a_network_until_its_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "tiny.safetensors"
    source = Path(runtime.__file__).parents[1] / "weights" / "fathom-tiny.safetensors"
    path.write_bytes(source.read_bytes())
    estimator = fathom.estimators()["fathom-tiny"]
    monkeypatch.setattr(loading, "locate", lambda e, _=None, locate=loading.locate: locate(e, path))
    cache = loading.AnnotatorCache(keep=1)
    first = cache.take(estimator)
    assert cache.take(estimator) is first
    os.utime(path, ns=(1, 1))
    second = cache.take(estimator)
    assert second is not first
    path.unlink()
    assert cache.take(estimator) is second
    cache.release_unloaded()
    assert cache.take(estimator) is second, "plain torch has nobody who unloads"


@pytest.mark.parametrize(
    ("wanted", "dtype"),
    [
        ("auto", torch.float32),
        ("fp32", torch.float32),
        ("tf32", torch.float32),
        ("fp16", torch.float16),
        ("bf16", torch.bfloat16),
    ],
)
def test_the_environment_chooses_the_precision(monkeypatch, wanted, dtype):
    monkeypatch.setenv("FATHOM_PRECISION", wanted)
    assert fathom.load("fathom-tiny", device="cpu").dtype == dtype


def test_an_unknown_precision_is_refused(monkeypatch):
    monkeypatch.setenv("FATHOM_PRECISION", "half")
    with pytest.raises(fathom.SettingError, match="fp16.*'half'"):
        fathom.load("fathom-tiny")


def test_half_is_taken_only_where_exact_and_faster(monkeypatch):
    monkeypatch.delenv("FATHOM_PRECISION", raising=False)
    gpu = torch.device("cuda")
    monkeypatch.setattr(host, "_faster_in_half", lambda where: True)
    assert host.precision(True, gpu) == torch.float16
    assert host.precision(False, gpu) == torch.float32
    assert host.precision(True, torch.device("cpu")) == torch.float32
    monkeypatch.setattr(host, "_faster_in_half", lambda where: False)
    assert host.precision(True, gpu) == torch.float32


def test_half_precision_drifts_less_than_half_a_grey_level(tiny, scene_picture):
    exact = tiny(scene_picture).values
    half = fathom.load("fathom-tiny", device="cpu", dtype=torch.float16)(scene_picture).values
    off = ((half - exact).abs() / (exact.amax() - exact.amin())).flatten()
    assert 0 < off.kthvalue(round(0.999 * off.numel())).values < 1 / 510


@pytest.fixture(scope="module")
def scene_picture():
    return Image.open(ROOT / "assets" / "sample.png").convert("RGB").resize((192, 128))


def test_the_user_chooses_how_many_models_stay(monkeypatch):
    estimator = fathom.estimators()["fathom-tiny"]
    cache = loading.AnnotatorCache()
    monkeypatch.setenv("FATHOM_KEEP_LOADED", "0")
    assert cache.take(estimator) is not cache.take(estimator)
    monkeypatch.setenv("FATHOM_KEEP_LOADED", "1")
    kept = cache.take(estimator)
    assert cache.take(estimator) is kept
    monkeypatch.setenv("FATHOM_PRECISION", "bf16")
    assert cache.take(estimator).dtype == torch.bfloat16
    monkeypatch.setenv("FATHOM_KEEP_LOADED", "many")
    with pytest.raises(fathom.SettingError, match="FATHOM_KEEP_LOADED must be a number, got 'many'"):
        cache.take(estimator)


def test_a_node_that_is_dropped_while_a_network_loads_takes_nothing_away(monkeypatch):
    # Garbage is collected at any moment, so a dropped node may speak up in the middle of `take`.
    cache = loading.AnnotatorCache(keep=2)
    monkeypatch.setattr(runtime.Annotator, "loaded", False)
    monkeypatch.setattr(loading.log, "info", lambda *_: cache.release_unloaded())
    assert cache.take(fathom.estimators()["fathom-tiny"]).estimator.id == "fathom-tiny"
    cache.release_unloaded()
    assert not cache._entries


class Shown:
    """The progress that a run showed: (total, label, unit), and each step with its picture."""

    def __init__(self, monkeypatch):
        self.told, self.steps, self.pictures = [], [], []
        monkeypatch.setattr(host, "progress", self.progress)

    def progress(self, *told):
        self.told.append(told)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count, picture=None):
        self.steps.append(count)
        if picture is not None:
            self.pictures.append(picture().size)


def test_progress_counts_pictures_and_shows_the_latest(tiny, monkeypatch):
    shown = Shown(monkeypatch)
    tiny(torch.rand(6, 32, 48, 3), 32)
    assert shown.told == [(6, tiny.estimator.name, "picture")]
    assert sum(shown.steps) == 6 and len(shown.pictures) == len(shown.steps)
    tiny.annotate(torch.rand(1, 32, 48, 3), 32, lend=lambda network: network)
    assert len(shown.told) == 1, "who lends a network shows progress of its own"


@pytest.mark.parametrize("frames", [1, 5, 33])
def test_progress_of_a_film_counts_its_frames(tiny_annotator, frames, monkeypatch):
    film = tiny_annotator("video-depth-anything-small")
    pictures = torch.rand(frames, 28, 42, 3, generator=torch.Generator().manual_seed(1))
    shown = Shown(monkeypatch)
    depth = film(pictures, 28, input_size=28)
    assert shown.told == [(frames, film.estimator.name, "frame")] and sum(shown.steps) == frames
    assert len(shown.pictures) == frames and len(depth) == frames
    lent = film.annotate(pictures, 28, {"input_size": 28}, lambda network: network)
    assert len(shown.told) == 1 and torch.equal(lent["depth"].values, depth.values)


def test_a_film_is_for_those_that_see_several_frames(tiny, tiny_annotator):
    with pytest.raises(fathom.SettingError, match="fathom-tiny sees one picture at a time"):
        tiny.film(32, 32)
    film = tiny_annotator("video-depth-anything-small")
    with pytest.raises(fathom.SettingError, match="resolution"):
        film.film(32, 32, -1)
    for error in OUT_OF_MEMORY:
        with pytest.raises(fathom.FathomError, match="ran out of memory"):
            film.annotate(
                torch.rand(2, 28, 28, 3), 28, {"input_size": 28}, lambda network, e=error: Refusing(network, e)
            )


class Refusing(torch.nn.Module):
    """A network on a device without any room."""

    def __init__(self, network, error):
        super().__init__()
        self.network, self.error = network, error

    def forward(self, *_, **__):
        raise type(self.error)(*self.error.args)


@pytest.mark.parametrize(("room", "wanted"), [(0, 1), (1, 1), (2.4, 1), (2.6, 2), (3.8, 3), (1000, 4)])
def test_as_many_run_together_as_four_fifths_of_the_memory_hold(tiny, room, wanted, monkeypatch):
    fit = tiny.estimator.fit(32, 32, 32)
    single = tiny.estimator.memory_required(1, fit, tiny.dtype)
    monkeypatch.setattr(host, "free_memory", lambda device: int(room * single))
    assert tiny._best_batch(50, fit) == wanted
    assert tiny._best_batch(1, fit) == 1
    elsewhere = copy.copy(tiny)
    elsewhere._resident = SimpleNamespace(module=tiny._resident.module, device=torch.device("cuda"))
    assert elsewhere._best_batch(50, fit) == max(wanted, int(min(room * 0.8, 32)))


@pytest.mark.parametrize("kind", ["float64", "uint8", "grey", "rgba"])
def test_a_scenes_picture_is_what_the_network_saw(tiny, kind):
    levels = torch.randint(0, 256, (1, 24, 36, 3), generator=torch.Generator().manual_seed(4), dtype=torch.uint8)
    image = {
        "float64": levels.double() / 255,
        "uint8": levels,
        "grey": levels[..., :1].float() / 255,
        "rgba": torch.cat((levels, torch.full_like(levels[..., :1], 255)), -1).float() / 255,
    }[kind]
    expected = levels[..., :1].expand(-1, -1, -1, 3) if kind == "grey" else levels
    scene = tiny.scene(image, 24)
    assert scene.picture.dtype == torch.float32
    torch.testing.assert_close(scene.picture, expected.float() / 255, rtol=0, atol=1e-6)
