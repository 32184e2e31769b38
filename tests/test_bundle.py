"""Bundles: one estimator run, whole or not there at all, bounded, and sound after damage."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fathom import Depth, FathomError, Intrinsics, Normals, Scene, Segmentation, SettingError
from fathom.models import estimator
from fathom.signals import DepthLook, Layer, Palette
from fathom.signals.normals import unit_vectors
from fathom.tools import bundle as store

PARTS = {"depth": {"estimator": "some", "weights": "abc", "resolution": 64}}


def picture(seed: int = 0, size: int = 16) -> torch.Tensor:
    pixels = torch.randint(0, 256, (1, size, size, 3), generator=torch.Generator().manual_seed(seed))
    return pixels.float() / 255


def depth_of(seed: int = 0, size: int = 16) -> Depth:
    return Depth(torch.rand(1, size, size, generator=torch.Generator().manual_seed(seed)), "affine_inverse", source="x")


class Counted:
    """An estimate that counts its calls."""

    def __init__(self, **signals: Any) -> None:
        self.signals, self.calls = signals, 0

    def __call__(self) -> Any:
        self.calls += 1
        return self.signals


def keep(root: Path, seed: int = 0, size: int = 16, **options: Any) -> Scene:
    signal = depth_of(seed, size)
    return store.obtain_bundle(root, picture(seed, size), PARTS, lambda: {"depth": signal}, version="1", **options)


def folder_of(root: Path, bundle: Scene) -> Path:
    return root / bundle.metadata["key"]


def leftovers(root: Path) -> list[str]:
    return [p.name for p in root.iterdir() if p.name.startswith(".")]


def test_every_signal_comes_back_as_it_was(tmp_path):
    gen = torch.Generator().manual_seed(3)
    valid = torch.rand(2, 9, 7, generator=gen) > 0.3
    look = DepthLook("metres", 2.0, 85.0, (0.5, 9.0))
    palette = Palette("two", ("a", "b"), ((1, 2, 3), (4, 5, 6)))
    made = {
        "depth": Depth(torch.rand(2, 9, 7, generator=gen), "metric", valid, torch.tensor([5.0, 6.5]), "d", look),
        "normals": Normals(unit_vectors(torch.randn(2, 9, 7, 3, generator=gen)), valid, "n", ("+z", "+y", "-x")),
        "segmentation": Segmentation(torch.randint(-1, 2, (2, 9, 7), generator=gen), palette, "s"),
    }
    image = torch.rand(2, 9, 7, 3, generator=gen)  # floats that no 8-bit file holds
    parts = {name: {"estimator": name} for name in made}
    first = store.obtain_bundle(tmp_path, image, parts, lambda: made, version="1")
    again = store.load_bundle(tmp_path, first.metadata["key"])
    assert torch.equal(again.picture, image)
    depth, normals, regions = again.depth, again.normals, again.segmentation
    assert depth is not None and normals is not None and regions is not None
    assert torch.equal(depth.values, made["depth"].values)
    assert torch.equal(depth.valid, valid)
    assert depth.focal.tolist() == [5.0, 6.5]
    assert (depth.kind, depth.source, depth.look) == ("metric", "d", look)
    assert torch.equal(normals.vectors, made["normals"].vectors)
    assert normals.trained == ("+z", "+y", "-x")
    assert torch.equal(regions.labels, made["segmentation"].labels)
    assert regions.palette == palette
    held = {p.name for p in folder_of(tmp_path, again).iterdir()}
    assert held == {
        "manifest.json",
        "signals.safetensors",
        "picture.png",
        "depth.png",
        "normals.png",
        "segmentation.png",
    }


def test_the_same_inputs_are_estimated_once(tmp_path):
    estimate = Counted(depth=depth_of())
    for _ in range(20):
        store.obtain_bundle(tmp_path, picture(), PARTS, estimate, version="1")
    assert estimate.calls == 1


def test_whatever_decides_the_result_decides_the_key():
    base = store.bundle_key(picture(), PARTS, "1")
    assert store.bundle_key(picture().clone(), {"depth": dict(reversed(PARTS["depth"].items()))}, "1") == base
    others = [
        store.bundle_key(picture(1), PARTS, "1"),
        store.bundle_key(picture(), PARTS, "2"),
        store.bundle_key(picture(), {"depth": {**PARTS["depth"], "weights": "abd"}}, "1"),
        store.bundle_key(picture(), {"depth": {**PARTS["depth"], "resolution": 65}}, "1"),
        store.bundle_key(picture(), {"normals": PARTS["depth"]}, "1"),
        store.bundle_key(picture() * 0.999, PARTS, "1"),
        store.bundle_key(picture().reshape(1, 8, 32, 3), PARTS, "1"),
    ]
    assert len({base, *others}) == 8


def test_an_8_bit_picture_is_kept_small_and_exact(tmp_path):
    bundle = keep(tmp_path, size=256)
    assert (folder_of(tmp_path, bundle) / "signals.safetensors").stat().st_size < 256 * 256 * (4 + 3) + 1000
    assert torch.equal(store.load_bundle(tmp_path, bundle.metadata["key"]).picture, picture(size=256))


@pytest.mark.parametrize("damage", ["truncate", "flip", "no manifest", "bad manifest", "no signals", "empty folder"])
def test_a_damaged_bundle_is_noticed_and_made_anew(tmp_path, damage, caplog):
    estimate = Counted(depth=depth_of())
    first = store.obtain_bundle(tmp_path, picture(), PARTS, estimate, version="1")
    signals, manifest = folder_of(tmp_path, first) / "signals.safetensors", folder_of(tmp_path, first) / "manifest.json"
    data = bytearray(signals.read_bytes())
    if damage == "truncate":
        signals.write_bytes(data[:-5])
    elif damage == "flip":
        data[-3] ^= 1
        signals.write_bytes(data)
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "bad manifest":
        manifest.write_text("{")
    elif damage == "no signals":
        signals.unlink()
    else:
        shutil.rmtree(folder_of(tmp_path, first))
        folder_of(tmp_path, first).mkdir()
    assert store.verify_bundle(tmp_path, first.metadata["key"])
    with pytest.raises(FathomError, match="damaged"):
        store.load_bundle(tmp_path, first.metadata["key"])
    again = store.obtain_bundle(tmp_path, picture(), PARTS, estimate, version="1")
    assert estimate.calls == 2
    assert "made anew" in caplog.text
    assert torch.equal(again.depth.values, depth_of().values)
    assert store.verify_bundle(tmp_path, first.metadata["key"]) is None
    assert leftovers(tmp_path) == []


def test_a_damaged_preview_is_told_by_verify_alone(tmp_path):
    bundle = keep(tmp_path)
    (folder_of(tmp_path, bundle) / "depth.png").write_bytes(b"x")
    assert "depth.png" in (store.verify_bundle(tmp_path, bundle.metadata["key"]) or "")
    assert store.load_bundle(tmp_path, bundle.metadata["key"]).depth is not None


def test_the_oldest_go_first_and_pinned_ones_stay(tmp_path):
    keys = [keep(tmp_path, seed).metadata["key"] for seed in range(4)]
    for age, key in enumerate(reversed(keys)):
        os.utime(tmp_path / key / "manifest.json", (1e9 - age, 1e9 - age))
    store.pin_bundle(tmp_path, keys[0])
    store.load_bundle(tmp_path, keys[1])  # used now: the oldest that is not pinned becomes keys[2]
    size = store.list_bundles(tmp_path)[0].size
    fresh = keep(tmp_path, 9, limit=int(size * 3.5)).metadata["key"]
    left = {e.key for e in store.list_bundles(tmp_path)}
    assert left == {keys[0], keys[1], fresh}
    store.pin_bundle(tmp_path, keys[0], False)
    assert not any(e.pinned for e in store.list_bundles(tmp_path))
    assert folder_of(tmp_path, keep(tmp_path, 11, limit=1)).is_dir(), "what was just made is never removed"
    assert len(store.list_bundles(tmp_path)) == 1


def test_list_remove_and_short_keys(tmp_path):
    assert store.list_bundles(tmp_path / "nowhere") == []
    bundle = keep(tmp_path, pin=True)
    (entry,) = store.list_bundles(tmp_path)
    assert entry.key == bundle.metadata["key"] and entry.pinned and dict(entry.parts) == {"depth": "some"}
    assert entry.size == sum(f.stat().st_size for f in folder_of(tmp_path, bundle).iterdir())
    assert store.load_bundle(tmp_path, bundle.metadata["key"][:6]).metadata["key"] == bundle.metadata["key"]
    store.remove_bundle(tmp_path, bundle.metadata["key"][:6])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SettingError, match="no bundle"):
        store.load_bundle(tmp_path, bundle.metadata["key"])


@pytest.mark.parametrize("key", ["../secret", "", "/etc", "ABC", "*", "a" * 33])
def test_a_key_cannot_lead_elsewhere(tmp_path, key):
    for use in (store.load_bundle, store.remove_bundle, store.verify_bundle):
        with pytest.raises(SettingError, match="hexadecimal"):
            use(tmp_path, key)


def test_bad_parts_are_refused(tmp_path):
    with pytest.raises(SettingError, match="at least one"):
        store.obtain_bundle(tmp_path, picture(), {}, dict, version="1")


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    root = tmp_path / "bundles"
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # the kernel refuses to let a file grow beyond
    try:
        with pytest.raises(FathomError, match=r"full.*Nothing of it was left"):
            keep(root, size=128)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(root.iterdir()) == []
    assert keep(root, size=128).depth is not None


def test_an_estimator_that_fails_leaves_nothing(tmp_path):
    def fail() -> Any:
        raise FathomError("no weights")

    with pytest.raises(FathomError, match="no weights"):
        store.obtain_bundle(tmp_path / "b", picture(), PARTS, fail, version="1")
    assert not (tmp_path / "b").exists()


def test_drafts_that_a_crash_left_are_cleaned_up_after_a_while(tmp_path):
    for name, age in ((".old", 7200), (".young", 0)):
        (tmp_path / name).mkdir()
        when = os.stat(tmp_path).st_mtime - age
        os.utime(tmp_path / name, (when, when))
    keep(tmp_path)
    assert leftovers(tmp_path) == [".young"]


def _write_many(root: str, turns: int, limit: int) -> None:
    torch.set_num_threads(1)
    for turn in range(turns):
        bundle = keep(Path(root), turn % 5, limit=limit)
        assert bundle.depth is not None
        assert torch.equal(bundle.depth.values, depth_of(turn % 5).values)
        if turn % 4 == 0:  # damage under the other writers' feet
            (folder_of(Path(root), bundle) / "signals.safetensors").unlink(missing_ok=True)


@pytest.mark.parametrize("limit", [store.LIMIT, 20_000])
def test_two_writers_never_see_each_others_halves(tmp_path, limit):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pool.starmap(_write_many, [(str(tmp_path), 20, limit)] * 3)
    assert leftovers(tmp_path) == []
    for entry in store.list_bundles(tmp_path):
        fault = store.verify_bundle(tmp_path, entry.key)
        assert fault is None or "there is no file" in fault and "signals.safetensors" in fault


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    from fathom.annotator.weights import digest

    weights, notes = tmp_path / "w.bin", tmp_path / "root" / "digests.json"
    weights.write_bytes(b"a" * 1000)
    os.utime(weights, (1e9, 1e9))
    first = digest.file_digest(weights, notes)
    weights.write_bytes(b"b" * 1000)
    os.utime(weights, (1e9, 1e9))
    assert digest.file_digest(weights, notes) == first, "same size and time: the file is not opened"
    monkeypatch.setattr(digest, "_known", {})  # as another process
    assert digest.file_digest(weights, notes) == first
    os.utime(weights, (1e9, 1e9 + 1))
    assert digest.file_digest(weights, notes) != first
    for rubbish in ("{ not json", "[]", json.dumps({str(weights): 3})):
        notes.write_text(rubbish)
        monkeypatch.setattr(digest, "_known", {})
        assert len(digest.file_digest(weights, notes)) == 64
    assert leftovers(notes.parent) == []


# ------------------------------------------------------------------------------ with a real network


@pytest.fixture
def tiny(tmp_path, seeded, monkeypatch):
    """nodes.bundle over a tiny estimator whose weights lie in tmp_path, and bundles in tmp_path/bundles."""
    from safetensors.torch import save_file

    from fathom.annotator.weights import Checkpoint
    from fathom.nodes import bundle as nodes

    path = tmp_path / "tiny.safetensors"
    small = estimator("fathom-tiny").tiny()
    network = small.build(Checkpoint(path, {}, None, None))
    save_file({k: v.contiguous() for k, v in seeded(network).items()}, path)
    os.utime(path, (1e9, 1e9))
    small = replace(small, embedded=str(path))
    monkeypatch.setattr(nodes, "by_id", lambda _: small)
    monkeypatch.setenv("FATHOM_BUNDLES", str(tmp_path / "bundles"))
    nodes.loading.cache.clear()
    yield path
    nodes.loading.cache.clear()


@pytest.fixture
def forwards(monkeypatch):
    """Counts the forwards of the tiny network."""
    from fathom.models.tiny import TinyDepth

    count = [0]
    real = TinyDepth.forward

    def forward(self: Any, pixels: torch.Tensor) -> torch.Tensor:
        count[0] += 1
        return real(self, pixels)

    monkeypatch.setattr(TinyDepth, "forward", forward)
    return count


def test_twenty_variations_cost_one_run_and_open_no_weights(tiny, forwards, scene, monkeypatch):
    from fathom.annotator import loading
    from fathom.nodes.bundle import FathomBundle

    node = FathomBundle()
    first = node.execute(scene, "fathom-tiny", "none", "none", 64)
    (once,) = forwards  # a run looks at several sizes
    assert once > 0
    # From here on the weights are rubbish of the same size and time: whoever opened them would fail.
    when = tiny.stat()
    tiny.write_bytes(b"\0" * when.st_size)
    os.utime(tiny, ns=(when.st_atime_ns, when.st_mtime_ns))
    monkeypatch.setattr("fathom.annotator.estimator.read", lambda *_: pytest.fail("weights were read"))
    opened: list[str] = []
    watching = [True]
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" and watching[0] else None)
    for _ in range(20):
        loading.cache.clear()  # as after a restart
        bundle, image, depth, *_ = node.execute(scene, "fathom-tiny", "none", "none", 64)
        assert torch.equal(depth.values, first[2].values)
        assert torch.equal(image, scene.clamp(0, 1))
    watching[0] = False
    assert forwards == [once]
    assert opened and not [name for name in opened if name == str(tiny)]
    assert bundle.metadata["parts"]["depth"]["estimator"] == "fathom-tiny"


def test_another_process_loads_it_without_importing_a_network(tiny, scene, tmp_path):
    from fathom.nodes.bundle import FathomBundle

    bundle, *_ = FathomBundle().execute(scene, "fathom-tiny", "none", "none", 64)
    tiny.unlink()
    script = (
        "import sys, pathlib, fathom\n"
        "from fathom.tools.bundle import load_bundle\n"
        f"b = load_bundle(pathlib.Path({str(tmp_path / 'bundles')!r}), {bundle.metadata['key']!r})\n"
        "assert not {'timm', 'transformers', 'diffusers'} & set(sys.modules)\n"
        "print(float(b.depth.values.double().sum()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(float(bundle.depth.values.double().sum()), rel=1e-12)


def test_a_bundle_of_the_first_version_is_told_apart(tmp_path):
    folder = tmp_path / ("0" * 32)
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "key": folder.name, "signals": {}, "files": {}}))
    with pytest.raises(FathomError, match="older Fathom"):
        store.load_bundle(tmp_path, folder.name)


def test_a_bundle_keeps_every_kind_under_any_name(tmp_path):
    layers = (Layer("albedo", 3, "srgb"), Layer("roughness", 1))
    made = {"near-depth": depth_of(), "intrinsics": Intrinsics(torch.rand(1, 16, 16, 4), layers, "i")}
    parts = {slot: {"estimator": slot} for slot in made}
    first = store.obtain_bundle(tmp_path, picture(), parts, lambda: made, version="1")
    again = store.load_bundle(tmp_path, first.metadata["key"])
    assert list(again.slots) == list(made)
    assert torch.equal(again["intrinsics"].values, made["intrinsics"].values)
    assert again["intrinsics"].layers == layers


@pytest.mark.parametrize("text", ["null", "[]", "5", "[" * 100_000, '{"format": ' + "9" * 5000 + "}"])
def test_a_manifest_that_is_none_takes_nothing_away(tmp_path, text):
    kept = keep(tmp_path).metadata["key"]
    odd = tmp_path / ("1" * 32)
    odd.mkdir()
    (odd / "manifest.json").write_text(text)
    (tmp_path / ("2" * 32)).write_text("a file of such a name")
    assert [e.key for e in store.list_bundles(tmp_path) if e.parts] == [kept]
    with pytest.raises(FathomError, match="damaged"):
        store.load_bundle(tmp_path, odd.name)


def test_other_weights_make_another_bundle(tiny, forwards, scene, seeded):
    from safetensors.torch import load_file, save_file

    from fathom.nodes import bundle as nodes

    one = nodes.make_bundle(scene, {"depth": "fathom-tiny"}, 64)
    (once,) = forwards
    save_file({k: v * 1.01 for k, v in load_file(tiny).items()}, tiny)
    os.utime(tiny, (2e9, 2e9))
    nodes.loading.cache.clear()
    two = nodes.make_bundle(scene, {"depth": "fathom-tiny"}, 64)
    assert one.metadata["key"] != two.metadata["key"]
    assert forwards == [2 * once]


def test_load_and_inspect_nodes(tiny, scene):
    from fathom.nodes.bundle import FathomBundle, FathomInspectBundle, FathomLoadBundle

    bundle, *_ = FathomBundle().execute(scene, "fathom-tiny", "none", "none", 64)
    (keys, _) = FathomLoadBundle.INPUT_TYPES()["required"]["key"]
    assert keys == [bundle.metadata["key"]]
    assert FathomLoadBundle.VALIDATE_INPUTS(bundle.metadata["key"]) is True
    assert "no bundle" in str(FathomLoadBundle.VALIDATE_INPUTS("f" * 32))
    loaded, image, depth, normals, regions, *things = FathomLoadBundle().execute(bundle.metadata["key"])
    assert torch.equal(depth.values, bundle.depth.values)
    assert normals is None and regions is None and things == [None, None]
    shown = FathomInspectBundle().execute(loaded)
    text, previews = shown["result"]
    assert json.loads(text)["key"] == bundle.metadata["key"]
    assert [p.shape for p in previews] == [image.shape, (1, *depth.values.shape[1:], 3)]


def test_no_estimator_at_all_is_refused(tiny, scene):
    from fathom.nodes.bundle import FathomBundle

    with pytest.raises(SettingError, match="at least one"):
        FathomBundle().execute(scene, "none", "none", "none")


def test_a_result_is_handed_out_whatever_its_folder_forbids(tmp_path, monkeypatch):
    """Pins and removals may fail, as on a folder that may only be read; who asks for them alone is told."""
    keep(tmp_path, 1)
    key = keep(tmp_path, 2).metadata["key"]

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store.Path, "touch", forbidden)
    monkeypatch.setattr(store.os, "rename", forbidden)
    assert torch.equal(keep(tmp_path, 2, pin=True, limit=0)["depth"].values, depth_of(2).values)
    with pytest.raises(FathomError, match="cannot be changed: Permission denied"):
        store.pin_bundle(tmp_path, key)
    with pytest.raises(FathomError, match="cannot be removed: Permission denied"):
        store.remove_bundle(tmp_path, key)
