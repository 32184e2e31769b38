"""Loading: side by side in threads, without a trace in torch, and anew when a file of the model was replaced."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import fathom
from fathom.annotator import loading

ROOT = Path(fathom.__file__).parent
TINY = ROOT / "weights" / "fathom-tiny.safetensors"


class WithBuffers(nn.Module):
    """What builders of the libraries do: parameters of every origin, and buffers that no checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm2d(4)
        self.table = nn.Parameter(torch.randn(2, 3) * 0.02)
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("steps", torch.arange(4), persistent=False)
        self.register_buffer("mask", torch.ones(2, 2).triu(), persistent=False)


def test_parameters_have_no_values_and_buffers_do():
    before = torch.get_rng_state()
    with loading.parameters_on_meta():
        network = WithBuffers()
    assert torch.equal(torch.get_rng_state(), before), "no random number was drawn"
    assert network.linear.weight.is_meta and network.table.is_meta
    assert network.steps.tolist() == [0, 1, 2, 3] and network.mask.tolist() == [[1, 1], [0, 1]]
    assert network.norm.running_var.tolist() == [1] * 4


def test_other_threads_build_as_ever_meanwhile():
    built: list[nn.Module] = []
    with loading.parameters_on_meta():
        thread = threading.Thread(target=lambda: built.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
    assert built[0].weight.device.type == "cpu"
    assert nn.Linear(2, 2).weight.device.type == "cpu"


def test_loads_run_side_by_side(monkeypatch):
    """Two loads meet inside the building of their networks: neither waits for the other."""
    together = threading.Barrier(2, timeout=20)
    estimator = fathom.estimators()["fathom-tiny"]
    build = type(estimator).build

    def meet(self, checkpoint):
        together.wait()
        network = build(self, checkpoint)
        together.wait()
        return network

    monkeypatch.setattr(type(estimator), "build", meet)
    loaded, plain = {}, []

    def work(name: int) -> None:
        loaded[name] = fathom.load(estimator, device="cpu")
        plain.append(nn.Linear(2, 2).weight.device.type)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()
    picture = torch.rand(1, 32, 32, 3)
    wanted = fathom.load(estimator, device="cpu")(picture).values
    assert len(loaded) == 2 and all(torch.equal(a(picture).values, wanted) for a in loaded.values())
    assert plain == ["cpu", "cpu"]


def test_the_cache_loads_different_models_side_by_side(monkeypatch):
    together = threading.Barrier(2, timeout=20)
    monkeypatch.setattr(loading, "load", lambda *args, load=loading.load, **more: together.wait() * 0 or load(*args))
    tiny = fathom.estimators()["fathom-tiny"]
    cache, taken = loading.AnnotatorCache(keep=2), []
    kinds = (torch.float32, None)
    threads = [threading.Thread(target=lambda d=d: taken.append(cache.take(tiny, d))) for d in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 2 and taken[0] is not taken[1]


def test_threads_that_want_one_model_load_it_once():
    tiny = fathom.estimators()["fathom-tiny"]
    cache, taken = loading.AnnotatorCache(keep=1), []
    threads = [threading.Thread(target=lambda: taken.append(cache.take(tiny))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(annotator) for annotator in taken}) == 1


@pytest.mark.parametrize("how", ["written over", "renamed over"])
def test_a_file_of_the_same_size_and_time_is_seen_by_its_inode_or_time(tmp_path, monkeypatch, how):
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(TINY.read_bytes())
    monkeypatch.setattr(loading, "locate", lambda e, _=None, locate=loading.locate: locate(e, path))
    cache, tiny = loading.AnnotatorCache(keep=1), fathom.estimators()["fathom-tiny"]
    first, state = cache.take(tiny), path.stat()
    if how == "renamed over":
        other = tmp_path / "other"
        other.write_bytes(TINY.read_bytes())
        os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
        other.replace(path)
    else:
        os.utime(path, ns=(1, 1))
    assert cache.take(tiny) is not first


def test_estimators_that_share_run_over_one_network_in_memory(tmp_path, seeded):
    from safetensors.torch import save_file

    one = replace(fathom.estimators()["fathom-tiny"].tiny(), shares="a pair")
    other = replace(one, id="fathom-other", name="Other")
    alone = replace(one, id="fathom-alone", shares="")
    network = one.build(None)
    save_file({k: v.contiguous() for k, v in seeded(network).items()}, tmp_path / "w.safetensors")
    first, second, third = (loading.load(e, tmp_path / "w.safetensors") for e in (one, other, alone))
    assert first.network is second.network and first.network is not third.network
    assert (first.estimator.id, second.estimator.id) == ("fathom-tiny", "fathom-other")
    half = loading.load(one, tmp_path / "w.safetensors", dtype=torch.float16)
    assert half.network is not first.network
    kept = weakref.ref(first.network)
    del first, second, network
    gc.collect()
    assert kept() is None, "a shared network outlives its annotators"
