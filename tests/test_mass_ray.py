"""The Ray engine: its workers in this process, and a real cluster of several nodes that lose a worker and a node."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from mass_runs import annotate, photo, results, tree

import fathom
from fathom.annotator.weights import Found
from fathom.mass import ray_engine
from fathom.mass.job import Job, chunks
from fathom.mass.manifest import Ledger
from fathom.mass.pipeline import Report
from fathom.mass.run import find, load, wanted_signals
from fathom.mass.sources import items
from fathom.mass.stores import Store


def many(folder, count):
    for n in range(count):
        photo(folder / ("a" if n % 3 else "b") / f"p{n:03}.png", n)
    (folder / "a" / "broken.png").write_bytes(b"broken")
    return folder


@pytest.fixture
def job(tmp_path):
    """A job over nine photos whose output is open, as the driver would leave it."""
    many(tmp_path / "in", 8)
    plain = Job((str(tmp_path / "in"),), str(tmp_path / "out"), wanted_signals([], "fathom-tiny", "png16"), chunk=4)
    job, _ = load(plain)
    Ledger(Store(job.out), job).open()
    Store(job.out).write(".fathom/tmp/shared", b"")
    return job


def models(job, found=None, packed=None):
    found = found or find(job)[1]["fathom-tiny"]
    return {"fathom-tiny": (found, packed or {})}


def packed(job):
    return {"chunk": [pickle.dumps(c) for c in chunks(items(list(job.sources)), job)]}


def test_a_worker_writes_what_the_local_engine_writes(job, tmp_path):
    told = ray_engine.Worker(job, models(job), False)(packed(job))
    assert sum(told["done"]) == 8 and sum(told["failed"]) == 1
    annotate(tmp_path / "in", tmp_path / "local")
    local = {k: v for k, v in tree(tmp_path / "local").items() if not k.endswith(("failed.jsonl", "/lock"))}
    assert local.items() <= tree(job.out).items()
    again = ray_engine.Worker(job, models(job), False)(packed(job))
    assert sum(again["done"]) == 0 and sum(again["skipped"]) == 8


def test_a_film_is_one_chunk_whose_frames_see_each_other(tmp_path, monkeypatch, tiny_annotator):
    pytest.importorskip("av")
    from test_mass_video import film

    from fathom.annotator import loading

    tiny = tiny_annotator("video-depth-anything-small")
    monkeypatch.setattr(loading, "load", lambda *_: tiny)
    (tmp_path / "in").mkdir()
    film(tmp_path / "in" / "a.mkv", "ffv1", pix="bgr0", size=(40, 24), count=24)
    film(tmp_path / "in" / "b.mkv", "ffv1", pix="bgr0", size=(40, 24), count=2)
    signals = ["depth=video-depth-anything-small:npz"]
    plain = Job((str(tmp_path / "in"),), str(tmp_path / "out"), wanted_signals(signals, "fathom-tiny", "npz"), chunk=4)
    job, _ = load(plain)
    Ledger(Store(job.out), job).open()
    Store(job.out).write(".fathom/tmp/shared", b"")
    made = packed(job)
    assert [len(pickle.loads(chunk).items) for chunk in made["chunk"]] == [24, 2]
    told = ray_engine.Worker(job, {tiny.estimator.id: (tiny.found, {})}, False)(made)
    assert told["done"] == [24, 2]
    annotate(tmp_path / "in", tmp_path / "local", signals=signals)
    outputs = results(tmp_path / "local")
    assert len(outputs) == 26
    local, there = tree(tmp_path / "local"), tree(job.out)
    assert {k: local[k] for k in outputs} == {k: there[k] for k in outputs}


def test_a_worker_without_the_weights_gets_every_file_of_the_drivers(job, tmp_path, monkeypatch):
    import types

    own = find(job)[1]["fathom-tiny"]
    data = own.path.read_bytes()
    (tmp_path / "driver" / "net").mkdir(parents=True)
    (tmp_path / "driver" / "net" / "model.safetensors").write_bytes(data)
    (tmp_path / "driver" / "index.json").write_text("{}")
    driver = tmp_path / "driver"
    many = Found(driver / "net" / "model.safetensors", driver, "downloaded", None, own.layout, ("index.json",))
    monkeypatch.setenv("FATHOM_MODELS", str(tmp_path / "models"))
    names = ray_engine._names(many)
    assert list(names) == ["net/model.safetensors", "index.json"]
    packed, digest = {name: path.read_bytes() for name, path in names.items()}, many.digest()
    # Where the driver's own files are, nothing travels.
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(get=lambda ref: pytest.fail("fetched")))
    assert ray_engine._here(many, packed, digest) == many
    os.rename(driver, tmp_path / "elsewhere")
    fetched = []
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(get=lambda ref: fetched.append(1) or ref))
    here = ray_engine._here(many, packed, digest)
    assert len(fetched) == 2 and here.digest() == digest and here.path.read_bytes() == data
    assert ray_engine._here(many, packed, digest) == here and len(fetched) == 2
    # A copy that is not whole any more is made anew.
    (here.root / "index.json").write_text("[]")
    assert ray_engine._here(many, packed, digest).digest() == digest and len(fetched) == 4
    assert [p.name for p in (tmp_path / "models" / "ray").iterdir()] == [digest[:20]]


def test_the_driver_loads_no_network(tmp_path, monkeypatch):
    from fathom.annotator import loading

    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("a network was loaded"))
    plain = Job((str(tmp_path),), str(tmp_path / "out"), wanted_signals([], "fathom-tiny", "png16"), chunk=4)
    job, found = find(plain)
    assert job.signals[0].model == found["fathom-tiny"].digest() and len(job.signals[0].model) == 64


def test_a_worker_that_does_not_see_the_folders_says_so(job):
    Store(job.out).remove(".fathom/tmp/shared")
    with pytest.raises(fathom.SettingError, match="does not see the output"):
        ray_engine.Worker(job, models(job), False)
    Store(job.out).write(".fathom/tmp/shared", b"")
    os.rename(job.sources[0], job.sources[0] + "-elsewhere")
    with pytest.raises(fathom.SettingError, match="does not see the source"):
        ray_engine.Worker(job, models(job), False)


def test_a_chunk_that_kills_its_workers_is_given_up(job):
    worker = ray_engine.Worker(job, models(job), False)
    some = packed(job)
    chunk = pickle.loads(some["chunk"][0])
    for _ in range(ray_engine.ATTEMPTS):
        worker._attempt(chunk.id)
    told = worker({"chunk": some["chunk"][:1]})
    assert told["failed"] == [len(chunk.items)] and told["done"] == [0]
    lines = (Path(job.out) / ".fathom" / "manifest" / f"{chunk.id}.jsonl").read_text().splitlines()
    assert "died 7 times" in json.loads(lines[1])["error"]


@pytest.mark.parametrize("text", ["0", "x", "4:2", "1:2:3"])
def test_worker_counts_are_checked(text):
    with pytest.raises(fathom.SettingError, match="MIN:MAX"):
        ray_engine._workers(text)


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of a head without cores and two nodes of one core each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    room = {"object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **room})
    made.workers = [made.add_node(num_cpus=1, **room) for _ in range(2)]
    made.room = room
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def below(word):
    """Ids of the processes below this one whose command line begins with `word`."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    ours, found = {os.getpid()}, []
    for pid, parent, *arguments in sorted(rows, key=lambda r: int(r[0])):
        if int(parent) in ours:
            ours.add(int(pid))
            if arguments and arguments[0].startswith(word):
                found.append(int(pid))
    return found


@pytest.mark.ray
def test_a_worker_and_a_node_are_lost_and_nothing_else(cluster, tmp_path):
    count = 240
    many(tmp_path / "in", count)
    annotate(tmp_path / "in", tmp_path / "local", cores=1, chunk=4)
    job = Job((str(tmp_path / "in"),), str(tmp_path / "out"), wanted_signals([], "fathom-tiny", "png16"), chunk=4)
    report, errors = Report(), []

    def drive():
        try:
            ray_engine.annotate_on_ray(job, report, workers="2", gpus=0, cpus=1)
        except BaseException as error:
            errors.append(error)

    def wait_for(manifests):
        folder = tmp_path / "out" / ".fathom" / "manifest"
        until = time.monotonic() + 240
        while not folder.exists() or len(list(folder.iterdir())) < manifests:
            assert run.is_alive() and time.monotonic() < until, errors
            time.sleep(0.01)

    run = threading.Thread(target=drive)
    run.start()
    wait_for(5)
    os.kill(below("ray::MapWorker")[0], signal.SIGKILL)
    wait_for(12)
    cluster.remove_node(cluster.workers.pop(), allow_graceful=False)
    cluster.workers.append(cluster.add_node(num_cpus=1, **cluster.room))
    run.join(300)
    assert not run.is_alive() and not errors
    assert report.failed == 1 and tree(tmp_path / "out") == tree(tmp_path / "local")
    assert len(results(tmp_path / "out")) == 2 * count + 1


@pytest.mark.ray
def test_an_error_of_ours_comes_back_as_itself(cluster, tmp_path):
    many(tmp_path / "in", 2)
    job = Job((str(tmp_path / "in"),), str(tmp_path / "out"), wanted_signals([], "fathom-tiny", "png"), chunk=4)
    (tmp_path / "out").mkdir()
    annotate(tmp_path / "in", tmp_path / "out", format="png16")
    with pytest.raises(fathom.SettingError, match="other settings"):
        ray_engine.annotate_on_ray(job, Report(), gpus=0)


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("layout", ["tree", "shards"])
def test_a_driver_that_is_ended_at_random_moments_goes_on_to_the_same_bytes(cluster, tmp_path, number, layout):
    """FATHOM_RAY_ENDS: how often; the workers that a killed driver leaves behind may still be at their chunks."""
    many(tmp_path / "in", 60)
    annotate(tmp_path / "in", tmp_path / "local", cores=1, chunk=4, layout=layout)
    command = [sys.executable, "-m", "fathom", "annotate", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    command += ["-f", "png16", "--chunk", "4", "--layout", layout, "--engine", "ray", "--address", cluster.address]
    command += ["--workers", "2", "--gpus", "0"]
    seed = random.SystemRandom().randrange(2**32)
    chance, finished = random.Random(seed), 0
    manifests = tmp_path / "out" / ".fathom" / "manifest"
    with open(tmp_path / "told", "w+") as told:
        for attack in range(int(os.environ.get("FATHOM_RAY_ENDS", "2"))):
            driver = subprocess.Popen(command, stdout=told, stderr=told, start_new_session=True)
            time.sleep(1)  # before Fathom's own first line, Python answers as it does for any program
            wanted = len(list(manifests.glob("*.jsonl"))) + chance.randrange(3) if attack % 3 else 0
            until = time.monotonic() + (60 if wanted else chance.uniform(0, 12))
            while driver.poll() is None and time.monotonic() < until:
                if wanted and len(list(manifests.glob("*.jsonl"))) >= wanted:
                    break
                time.sleep(0.002)
            driver.send_signal(number)
            struck = time.monotonic()
            status = driver.wait(30)
            said = (tmp_path / "told").read_text()
            took = time.monotonic() - struck
            assert status in {3, -number, 130 if number == signal.SIGINT else number}, (seed, attack, said)
            assert took < 10, (seed, attack, status, took, said)
            finished += status == 3
        last = subprocess.run(command, stdout=told, stderr=told, timeout=300)
        said = (tmp_path / "told").read_text()
    assert last.returncode == 3, (seed, said)
    assert tree(tmp_path / "out") == tree(tmp_path / "local"), (seed, finished, said)
