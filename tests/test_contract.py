"""What every estimator must do. Parametrised over the registry: a new model is covered without an edit here.

Each estimator's tiny variant goes through the real loading path: seeded weights in a real file, read, loaded
strictly, run.
"""

from __future__ import annotations

import threading
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from PIL import Image

import fathom
from fathom import FathomError, Instances, PictureError, Segmentation, SettingError, Signal
from fathom.annotator.meta import parameters_on_meta
from fathom.annotator.sizing import result_size
from fathom.annotator.weights import Checkpoint
from fathom.models import collect, estimator, ids
from fathom.signals import kind_of_slot
from fathom.signals.depth import depth_from_metres

EVERY = list(fathom.estimators())
SAME_NETWORK = ("id", "name", "licence", "parameters", "sources", "about", "memory", "embedded", "half", "tf32")


def representatives():
    """One id for each distinct tiny variant: models that differ in nothing but size and weights share theirs."""
    seen = {}
    for id in EVERY:
        tiny = fathom.estimators()[id].tiny()
        kept = {f.name: repr(getattr(tiny, f.name)) for f in fields(tiny) if f.name not in SAME_NETWORK}
        seen.setdefault((type(tiny), *sorted(kept.items())), id)
    return list(seen.values())


class Prompted:
    """An annotator that gets a coarse measured depth beside every picture, where it takes one."""

    def __init__(self, annotator):
        self._annotator = annotator

    def __getattr__(self, name):
        return getattr(self._annotator, name)

    def __call__(self, image, resolution=None, **options):
        return self._annotator(image, resolution, prompt=self._prompt(image), **options)

    def scene(self, image, resolution=None):
        return self._annotator.scene(image, resolution, prompt=self._prompt(image))

    def annotate(self, image, resolution=None, options=None, lend=None):
        return self._annotator.annotate(image, resolution, options, lend, self._prompt(image))

    def _prompt(self, image):
        if not self._annotator.estimator.takes:
            return None
        metres = 1 + torch.rand(1, 6, 8, generator=torch.Generator().manual_seed(3))
        return depth_from_metres(metres.repeat(max(1, len(image)) if isinstance(image, torch.Tensor) else 1, 1, 1))


@pytest.fixture(params=representatives())
def tiny(request, tiny_annotator):
    """The loaded tiny variant of each estimator in turn."""
    return Prompted(tiny_annotator(request.param))


def values(signal):
    """The tensor of a signal; of things, which one is seen at every pixel."""
    if isinstance(signal, Instances):
        return torch.stack([signal.ids(i) for i in range(len(signal))])
    return next(iter(signal._tensors().values()))


def main_kind(e):
    """The kind of signal that a call of the estimator gives."""
    return kind_of_slot(e.produces[0])


def assert_same(one, other, exactly=False):
    a, b = values(one), values(other)
    assert a.shape == b.shape
    if isinstance(one, Instances):
        assert one._rest() == other._rest() or not exactly
    if isinstance(one, (Segmentation, Instances)):
        assert (a == b).float().mean() >= (1 if exactly else 0.999)
    elif exactly:
        assert torch.equal(a, b)
    else:
        scale = float((b.amax() - b.amin()).clamp_min(1e-6))
        assert float((a - b).abs().max()) <= 1e-3 * scale


# ------------------------------------------------------------------------------- the description


@pytest.mark.parametrize("id", EVERY)
def test_the_parameters_are_those_of_the_network(id):
    """Built without values at its full size."""
    e = fathom.estimators()[id]
    if e.family == "marigold" or id == "yunet":
        pytest.skip("its network comes from its files")
    with parameters_on_meta():
        network = e.build(Checkpoint(Path("none.safetensors"), {}, None, None))
    assert sum(parameter.numel() for parameter in network.parameters()) == e.parameters


@pytest.mark.parametrize("id", EVERY)
def test_descriptions_are_complete(id):
    e = fathom.estimators()[id]
    assert e.id == id == id.lower() and " " not in id
    assert e.name and e.family and e.about.endswith(".") and e.licence.name and e.parameters > 0 and e.memory > 0
    assert e.produces and len(set(e.produces)) == len(e.produces)
    assert all(issubclass(kind_of_slot(slot), Signal) for slot in e.produces)
    assert e.sources or e.embedded, "an estimator needs somewhere to get its weights from"
    for source in e.sources:
        assert (source.on_hub or source.on_web) and source.file and source.url.startswith("https://")
        assert source.sha256 is None or len(source.sha256) == 64


def test_the_registry_is_strict(tmp_path, monkeypatch):
    import fathom.models as models

    monkeypatch.setattr(models, "__path__", [str(tmp_path), *models.__path__])
    (tmp_path / "nothing.py").write_text("X = 1\n")
    with pytest.raises(FathomError, match="nothing.py must offer ESTIMATORS"):
        collect(["nothing"])
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere\n")
    with pytest.raises(ModuleNotFoundError):
        collect(["broken"])
    (tmp_path / "twice.py").write_text("from .tiny import ESTIMATORS\n")
    with pytest.raises(FathomError, match="'fathom-tiny', which another"):
        collect(["tiny", "twice"])


def test_an_unknown_id_names_its_neighbours():
    with pytest.raises(SettingError, match="fathom-tiny"):
        estimator("fathom-tony")
    with pytest.raises(SettingError, match="no estimator"):
        fathom.load("no-such-model")


def test_ids_by_kind():
    assert "fathom-tiny" in ids("depth")
    slots = {slot for e in fathom.estimators().values() for slot in e.produces}
    alone = {e.id for e in fathom.estimators().values() if not e.takes}
    assert {id for slot in slots for id in ids(slot)} == alone


# ------------------------------------------------------------------------------- the way of a picture


@pytest.mark.parametrize("id", EVERY)
def test_every_id_runs(id, tiny_annotator, scene):
    signal = Prompted(tiny_annotator(id))(scene, 64)
    assert values(signal).shape[1:3] == (64, 85) and type(signal) is main_kind(fathom.estimators()[id])


def test_a_picture_gives_its_signal_at_its_own_size(tiny, scene):
    before = scene.clone()
    signal = tiny(scene)
    assert type(signal) is main_kind(tiny.estimator)
    assert values(signal).shape[:3] == scene.shape[:3]
    assert torch.equal(scene, before), "the input was changed"
    image = signal.to_image()
    assert image.shape == scene.shape and image.dtype == torch.float32
    assert 0 <= image.min() and image.max() <= 1


def test_a_scene_has_every_slot_that_is_promised(tiny, scene):
    made = tiny.scene(scene, 64)
    assert tuple(made.slots) == tiny.estimator.produces
    for slot, signal in made.slots.items():
        assert type(signal) is kind_of_slot(slot) and len(signal) == 1
    assert_same(made[tiny.estimator.produces[0]], tiny(scene, 64), exactly=True)


def test_a_saved_scene_comes_back_as_it_was(tiny, scene, tmp_path):
    made = tiny.scene(scene, 64)
    made.save(tmp_path)
    again = fathom.Scene.load(tmp_path)
    assert torch.equal(again.picture, made.picture)
    for slot in made:
        assert again[slot]._rest() == made[slot]._rest()
        assert_same(again[slot], made[slot], exactly=True)


def test_the_mass_engine_gives_the_same_bits(tiny, scene, tmp_path):
    """Through the threads and the queue of a run of many pictures, and as a node calls it."""
    from fathom.mass.network import NetworkQueue, Queued, Ticket

    queue, ticket = NetworkQueue(), Ticket()
    made = {}

    def work():
        try:
            torch.set_num_threads(1)
            made.update(tiny.annotate(scene, 64, lend=lambda network: Queued(queue, network, ticket)))
        finally:
            queue.stop()

    threads = torch.get_num_threads()
    thread = threading.Thread(target=work)
    thread.start()
    queue.run()
    thread.join()
    torch.set_num_threads(threads)
    expected = tiny.annotate(scene, 64)
    assert made.keys() == expected.keys()
    for slot in made:
        assert_same(made[slot], expected[slot], exactly=True)


@pytest.mark.parametrize("resolution", [0, 64, 100])
def test_the_short_side_is_the_resolution(tiny, scene, resolution):
    signal = tiny(scene, resolution)
    assert values(signal).shape[1:3] == result_size(96, 128, resolution)


def test_the_same_picture_gives_the_same_bytes(tiny, scene):
    assert_same(tiny(scene), tiny(scene), exactly=True)


def test_a_batch_equals_its_singles(tiny, scene):
    if tiny.estimator.window > 1:
        pytest.skip("a batch is one film, whose frames see each other")
    batch = torch.cat([scene, scene.flip(2), 1 - scene])
    together = tiny(batch, 64)
    for index in range(3):
        assert_same(together[index], tiny(batch[index : index + 1], 64))


def test_rgb_equals_opaque_rgba_equals_pil(tiny, scene):
    levels = (scene * 255).round() / 255
    expected = tiny(levels, 64)
    assert_same(tiny(torch.cat([levels, torch.ones(1, 96, 128, 1)], -1), 64), expected)
    assert_same(tiny((levels * 255).round().to(torch.uint8), 64), expected)
    assert_same(tiny(Image.fromarray((levels[0] * 255).round().to(torch.uint8).numpy()), 64), expected)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_constant_picture_has_no_nan(tiny, level):
    signal = tiny(torch.full((1, 64, 64, 3), level), 64)
    assert signal.to_image().isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (9, 1), (1, 7), (33, 34), (10, 47)])
@pytest.mark.parametrize("resolution", [None, 0])
def test_any_shape_of_picture_works(tiny, size, resolution):
    picture = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(1))
    assert values(tiny(picture, resolution)).shape[1:3] == size


@pytest.mark.parametrize("kind", ["fp16", "view", "grad", "grey"])
def test_unusual_tensors_work(tiny, scene, kind):
    picture = {
        "fp16": scene.half(),
        "view": scene[:, ::2, ::2],
        "grad": scene.clone().requires_grad_(),
        "grey": scene[..., :1],
    }[kind]
    signal = tiny(picture, 64)
    assert values(signal).isfinite().all() and not values(signal).requires_grad


@pytest.mark.parametrize("resolution", ["512", 51.2, -64, True])
def test_a_wrong_resolution_is_told(tiny, scene, resolution):
    with pytest.raises(SettingError, match="resolution"):
        tiny(scene, resolution)


def test_a_wrong_picture_is_told(tiny):
    with pytest.raises(PictureError, match="NaN"):
        tiny(torch.full((1, 8, 8, 3), float("nan")))
    with pytest.raises(PictureError, match="empty"):
        tiny(torch.zeros(0, 8, 8, 3))


def test_unknown_options_are_told(tiny, scene):
    with pytest.raises(SettingError, match="no option 'colour'"):
        tiny(scene, colour=3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_an_option_is_a_number_in_its_range(value):
    from fathom.annotator.estimator import Option

    with pytest.raises(SettingError, match="threshold must"):
        Option("threshold", 0.5, 0.0, 1.0).check(value)


# ------------------------------------------------------------------------------- the network


def test_the_bare_network_is_in_eval_without_gradients(tiny):
    network = tiny.network
    assert isinstance(network, torch.nn.Module) and not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert {p.device.type for p in network.parameters()} == {"cpu"}


def test_the_memory_estimate_grows_with_the_batch(tiny):
    fit = tiny.estimator.fit(96, 128, 64)
    one, four = (tiny.estimator.memory_required(n, fit, torch.float32) for n in (1, 4))
    assert 0 < one < four


def test_networks_stay_bounded_for_a_long_strip(tiny):
    from fathom.annotator.sizing import MAX_NETWORK_PIXELS

    height, width = tiny.estimator.fit(50, 16384, 4096).network
    # The short side is rounded to a multiple, which can enlarge a side of few multiples by up to a half.
    assert height * width <= MAX_NETWORK_PIXELS * 1.5


# ------------------------------------------------------------------------------- while it runs


def test_a_cancelled_run_leaves_nothing_behind(tiny, scene, monkeypatch):
    from fathom.annotator import host

    class Cancelled(Exception):
        pass

    expected = tiny(scene, 64)
    checks = []

    def cancel():
        checks.append(1)
        if len(checks) == 2:  # the first is before the run, the second in it
            raise Cancelled

    monkeypatch.setattr(host, "check_interrupt", cancel)
    with pytest.raises(Cancelled):
        tiny(scene, 64)
    monkeypatch.undo()
    assert_same(tiny(scene, 64), expected, exactly=True)


def test_two_runs_at_once_give_what_each_gives_alone(tiny, scene):
    from concurrent.futures import ThreadPoolExecutor

    pictures = [scene, 1 - scene]
    expected = [tiny(p, 64) for p in pictures]
    with ThreadPoolExecutor(2) as pool:
        for one, other in zip(pool.map(lambda p: tiny(p, 64), pictures), expected, strict=True):
            assert_same(one, other)
