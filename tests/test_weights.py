"""The weights store: search, download against a local hub with every fault, verification, reading, strict loading."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from hub import COMMIT, Hub, Proxy

import fathom
from fathom.annotator import host, weights
from fathom.annotator.weights import Source, fetch
from fathom.errors import WeightsError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(CONTENT).hexdigest()
REPO, FILE = "owner/Annotators", "net-1.pt"
SOURCE = Source(REPO, FILE, sha256=SHA, size=len(CONTENT))


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The folder of Fathom's models: empty, like every other place, and no hub to be reached."""
    from huggingface_hub import constants

    for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(fetch, "PAUSE", 0.02)
    folder = tmp_path / "annotators"
    monkeypatch.setattr(host, "weight_folders", lambda: [folder, tmp_path / "more"])
    places = {key: [tmp_path / key] for key in ("aux", "depthanything", "diffusers")}
    monkeypatch.setattr(host, "neighbour_folders", lambda: places)
    return folder


@pytest.fixture
def hub(models, monkeypatch):
    with Hub({f"{REPO}/{FILE}": CONTENT}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def parts(models: Path) -> list[Path]:
    return list((models / fetch.WORKSHOP).glob("*.part"))


def target(models: Path) -> Path:
    return models / REPO / FILE


# ------------------------------------------------------------------------------------------ search


@pytest.mark.parametrize(
    ("place", "origin"),
    [
        (f"annotators/{REPO}/{FILE}", "annotators"),
        (f"annotators/Annotators/{FILE}", "annotators"),
        (f"annotators/{FILE}", "annotators"),
        (f"more/{FILE}", "annotators"),
        (f"aux/{REPO}/{FILE}", "aux"),
        (f"depthanything/{FILE}", "depthanything"),
        (f"hub-cache/models--owner--Annotators/snapshots/{COMMIT}/{FILE}", "hub cache"),
    ],
)
def test_a_file_is_found_in_every_place_without_a_request(models, hub, tmp_path, place, origin):
    path = put(tmp_path / place)
    found = weights.obtain([SOURCE], name="Net")
    assert (found.path, found.origin, found.layout) == (path, origin, "official")
    assert hub.requests == hub.side == []


def test_fathoms_own_folder_comes_first_and_sources_are_tried_in_order(models, tmp_path):
    put(tmp_path / "aux" / REPO / FILE)
    own = put(models / FILE)
    other = Source("someone/else", "better.safetensors", "other")
    assert weights.find([other, SOURCE]).path == own
    put(tmp_path / "aux" / "someone/else/better.safetensors", b"x")
    assert weights.find([other, SOURCE]).layout == "other"


def test_generic_names_say_nothing_in_a_flat_folder(models):
    source = Source("owner/depth-hf", "model.safetensors", also=("config.json",))
    put(models / "model.safetensors"), put(models / "config.json", b"{}")
    assert weights.find([source]) is None
    put(models / "depth-hf" / "model.safetensors")
    assert weights.find([source]) is None, "config.json is missing beside it"
    put(models / "depth-hf" / "config.json", b"{}")
    found = weights.find([source])
    assert found.root == models / "depth-hf" and found.part("config.json").read_bytes() == b"{}"


@pytest.mark.parametrize("folder", ["marigold-depth-v1-1", "prs-eth--marigold-depth-v1-1"])
def test_a_diffusers_folder_is_found_with_its_parts(models, tmp_path, folder):
    source = Source("prs-eth/marigold-depth-v1-1", "model_index.json", "diffusers", ("unet/net.safetensors",))
    root = tmp_path / "diffusers" / folder
    put(root / "model_index.json", b"{}")
    assert weights.find([source]) is None
    part = put(root / "unet" / "net.safetensors", b"x")
    found = weights.find([source])
    assert (found.root, found.origin, found.part("unet/net.safetensors")) == (root, "diffusers", part)


def test_a_truncated_file_is_passed_over_and_named(models, tmp_path, caplog, monkeypatch):
    bad = put(models / FILE, CONTENT[:1000])
    good = put(tmp_path / "aux" / REPO / FILE)
    with caplog.at_level(logging.WARNING):
        assert weights.find([SOURCE]).path == good
    assert "1000 bytes instead of 1048576" in caplog.text
    good.unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="Passed over: .*net-1.pt has 1000 bytes") as error:
        weights.obtain([SOURCE], name="Net")
    assert str(bad) in str(error.value)


def test_another_version_in_the_hub_cache_is_known_by_its_blob(models, tmp_path):
    cache = tmp_path / "hub-cache" / "models--owner--Annotators"
    blob = put(cache / "blobs" / ("0" * 64))
    link = cache / "snapshots" / COMMIT / FILE
    link.parent.mkdir(parents=True)
    try:
        link.symlink_to(blob)
    except OSError:
        pytest.skip("no symbolic links here")
    assert weights.find([SOURCE]) is None
    assert weights.find([Source(REPO, FILE, revision="f" * 40)]) is None, "another commit, content not pinned"
    assert weights.find([Source(REPO, FILE, revision=COMMIT)]).origin == "hub cache"


# ------------------------------------------------------------------------------------------ download


def test_download_with_progress_and_hash(models, hub, monkeypatch):
    seen = []

    @contextmanager
    def progress(total, label, unit="it"):
        class Bar:
            def update(self, n=1):
                seen.append((label, total, unit, n))

        yield Bar()

    monkeypatch.setattr(host, "progress", progress)
    found = weights.obtain([SOURCE], name="Net")
    assert (found.path, found.origin) == (target(models), "downloaded")
    assert found.path.read_bytes() == CONTENT and parts(models) == []
    loaded = [n for label, total, unit, n in seen if label.startswith("Downloading") and total == len(CONTENT)]
    assert sum(loaded) == len(CONTENT)
    count = len(hub.requests)
    assert weights.obtain([SOURCE], name="Net").origin == "annotators"
    assert len(hub.requests) == count == 2


def test_every_file_of_a_source_is_fetched_once(models, hub):
    hub.files |= {f"{REPO}/config.json": b"{}", f"{REPO}/unet/net.bin": b"abc"}
    source = Source(REPO, FILE, also=("config.json", "unet/net.bin"), pins={"unet/net.bin": (None, 3)})
    put(models / REPO / "config.json", b"{ }")
    found = weights.obtain([source], name="Net")
    assert found.part("unet/net.bin").read_bytes() == b"abc"
    assert found.part("config.json").read_bytes() == b"{ }", "what is there stays"


def test_a_dropped_connection_is_continued_within_the_run(models, hub):
    hub.drop = 6 * fetch.CHUNK + 9
    assert weights.obtain([SOURCE], name="Net").path.read_bytes() == CONTENT
    asked = [headers.get("range") for method, _, headers in hub.requests if method == "GET"]
    assert asked[0] is None and asked[1] == f"bytes={6 * fetch.CHUNK}-"


@pytest.mark.parametrize("ranges", [True, False])
def test_a_lost_connection_is_told_and_the_next_run_goes_on(models, hub, monkeypatch, ranges):
    original = fetch._receive

    def lose(url, headers, part, hashed):
        hub.drop = 9 * fetch.CHUNK
        if part.size:
            raise ConnectionResetError("the cable is out")
        return original(url, headers, part, hashed)

    monkeypatch.setattr(fetch, "_receive", lose)
    with pytest.raises(WeightsError, match="connection broke after 0.6 MB of 1.0 MB; run again to go on"):
        weights.obtain([SOURCE], name="Net")
    assert not target(models).exists() and weights.find([SOURCE]) is None
    assert parts(models)[0].stat().st_size == 9 * fetch.CHUNK
    monkeypatch.setattr(fetch, "_receive", original)
    hub.drop, hub.ranges = None, ranges
    assert weights.obtain([SOURCE], name="Net").path.read_bytes() == CONTENT
    assert hub.requests[-1][2]["range"] == f"bytes={9 * fetch.CHUNK}-"


def test_a_hub_with_trouble_is_retried_then_told(models, hub):
    hub.broken = 503
    with pytest.raises(WeightsError, match="answered with error 503"):
        weights.obtain([SOURCE], name="Net")
    assert hub.count("GET") == fetch.RETRIES


def test_wrong_content_is_refused_and_thrown_away(models, hub):
    hub.altered[f"{REPO}/{FILE}"] = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match=f"wrong content .*{SHA}.*thrown away.*proxy or mirror"):
        weights.obtain([SOURCE], name="Net")
    assert not target(models).exists() and parts(models) == []
    hub.altered.clear()
    assert weights.obtain([SOURCE], name="Net").path.read_bytes() == CONTENT


def test_the_hubs_own_hash_guards_a_file_known_by_name_only(models, hub):
    hub.altered[f"{REPO}/{FILE}"] = CONTENT[:-1] + b"!"
    with pytest.raises(WeightsError, match="wrong content"):
        weights.obtain([Source(REPO, FILE)], name="Net")
    assert not target(models).exists()


def test_a_file_that_the_publisher_replaced_is_not_even_fetched(models, hub):
    with pytest.raises(WeightsError, match="not the published file any more: its sha256 is"):
        weights.obtain([Source(REPO, FILE, sha256="0" * 64)], name="Net")
    assert hub.count("GET") == 0


def test_a_foreign_part_is_dropped_and_the_file_fetched_whole(models, hub):
    put(models / fetch.WORKSHOP / f"owner--Annotators--{FILE}.{SHA[:16]}.part", b"z" * 1000)
    assert weights.obtain([SOURCE], name="Net").path.read_bytes() == CONTENT
    assert hub.count("GET") == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_repository(models, hub, status):
    hub.denied[REPO] = status
    with pytest.raises(WeightsError, match=rf"access was denied \({status}\).*licence on .*HF_TOKEN"):
        weights.obtain([SOURCE], name="Net")


def test_nothing_there(models, hub, tmp_path):
    source = Source(REPO, "gone.pt", revision="abc")
    with pytest.raises(WeightsError, match="404") as error:
        weights.obtain([source], name="Net")
    text = str(error.value)
    page = f"{hub.url}/{REPO}/blob/abc/gone.pt"
    for part in (REPO, "gone.pt", page, models / REPO, tmp_path / "aux", tmp_path / "hub-cache"):
        assert str(part) in text


def test_the_next_source_serves_when_the_first_has_nothing(models, hub):
    gone = Source("owner/gone", "net.safetensors", "other")
    assert weights.obtain([gone, Source("a name only", "x.pt"), SOURCE], name="Net").source == SOURCE


def test_no_connection(models):
    with pytest.raises(WeightsError, match="no connection to http://127.0.0.1:9"):
        weights.obtain([SOURCE], name="Net")


def test_several_files_by_hand(models):
    sources = [Source("owner/net", "index.json", "diffusers", (f"unet/net{v}.safetensors",)) for v in ("", ".fp16")]
    with pytest.raises(WeightsError) as told:
        weights.obtain(sources, name="Net")
    text = str(told.value)
    assert text.count("no connection to") == 1
    assert "fetch index.json, unet/net.safetensors from http://127.0.0.1:9/owner/net/tree/main and put them" in text


def test_a_page_in_the_way_is_not_a_hub(models, hub):
    hub.plain = True
    with pytest.raises(WeightsError, match="not answered by a model hub"):
        weights.obtain([SOURCE], name="Net")


def test_no_downloadable_source(models):
    with pytest.raises(WeightsError, match="By hand: fetch x.pt from someone's page/x.pt"):
        weights.obtain([Source("someone's page", "x.pt")], name="Net")


def test_the_token_goes_to_the_hub_and_not_to_the_cdn(models, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.redirect = True
    weights.obtain([SOURCE], name="Net")
    sent = {path.startswith("/cdn/"): headers.get("authorization") for _, path, headers in hub.requests}
    assert sent == {False: "Bearer hf_secret", True: None}


def test_a_plain_web_address_gets_no_token(models, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.files["releases/1_0/net.pt"] = CONTENT
    source = Source(f"{hub.url}/releases/1_0", "net.pt", sha256=SHA, size=len(CONTENT))
    assert weights.obtain([source], name="Net").path == models / "net.pt"
    assert [("authorization" in h, m) for m, _, h in hub.requests] == [(False, "GET")]
    hub.requests.clear()
    assert weights.find([source]).path == models / "net.pt" and hub.requests == []


def test_the_offline_switch(models, hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        weights.obtain([SOURCE], name="Net")
    assert hub.requests == hub.side == []


@pytest.mark.parametrize("moment", ["before the first byte", "mid file"])
def test_an_interrupt_stops_at_once_and_the_next_run_goes_on(models, hub, monkeypatch, moment):
    class Cancelled(BaseException):
        """Stands for the host's own interrupt."""

    stop = threading.Event()

    def check():
        if stop.is_set():
            raise Cancelled

    hub.piece, hub.pace = 1 << 14, 0.02
    if moment == "mid file":
        monkeypatch.setattr(fetch, "CHUNK", 1 << 14)
    monkeypatch.setattr(host, "check_interrupt", check)
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(Cancelled):
        weights.obtain([SOURCE], name="Net")
    size = parts(models)[0].stat().st_size
    assert size < len(CONTENT) and not target(models).exists()
    time.sleep(0.1)
    assert parts(models)[0].stat().st_size == size, "nothing is written after the stop"
    stop.clear()
    hub.pace = 0
    assert weights.obtain([SOURCE], name="Net").path.read_bytes() == CONTENT


@pytest.mark.parametrize("form", ["{:d}", "date"])
def test_a_busy_server_is_waited_for_as_long_as_it_asks(models, hub, form):
    hub.busy = 2
    hub.retry_after = formatdate(time.time() + 2, usegmt=True) if form == "date" else "1"
    started = time.monotonic()
    assert weights.obtain([SOURCE], name="Net").path.read_bytes() == CONTENT
    assert time.monotonic() - started > (0.9 if form == "date" else 1.9)
    assert hub.count("GET") >= 2


def test_a_server_that_asks_for_too_long_is_not_waited_for(models, hub):
    hub.busy, hub.retry_after = 9, "3600"
    started = time.monotonic()
    with pytest.raises(WeightsError, match="error 429; try again in 3600 seconds, as it asks"):
        weights.obtain([SOURCE], name="Net")
    assert time.monotonic() - started < 5 and hub.count("GET") == 1


def test_an_interrupt_is_heard_while_a_busy_server_is_waited_for(models, hub, monkeypatch):
    hub.busy, hub.retry_after = 9, "30"
    monkeypatch.setattr(host, "check_interrupt", lambda: hub.count("GET") and (_ for _ in ()).throw(KeyboardInterrupt))
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        weights.obtain([SOURCE], name="Net")
    assert time.monotonic() - started < 5
    assert nothing_asked_after(hub)


def nothing_asked_after(hub):
    """Whether what was cancelled is asked for no more when the connection breaks, and no thread of it is left."""

    class Cut:
        def wait(self):
            raise ConnectionError

    hub.gate = Cut()
    asked, until = len(hub.requests), time.monotonic() + 10
    while any(thread.name == "fathom-download" for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.02)
    return len(hub.requests) == asked and time.monotonic() < until


def test_a_drip_can_be_cancelled_at_once(models, hub, monkeypatch):
    hub.piece, hub.pace = 1, 0.05
    stop = time.monotonic() + 1
    cancelled = lambda: time.monotonic() > stop and (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
    monkeypatch.setattr(host, "check_interrupt", cancelled)
    with pytest.raises(KeyboardInterrupt):
        weights.obtain([SOURCE], name="Net")
    assert time.monotonic() - stop < 1.5
    assert nothing_asked_after(hub)


def web_source(hub: Hub, name: str, content: bytes) -> Source:
    hub.files[f"releases/{name}"] = content
    return Source(f"{hub.url}/releases", name)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "json"])
@pytest.mark.parametrize("share", [0.3, 0.999])
def test_what_stops_early_without_length_and_hash_gets_no_name(models, hub, tmp_path, kind, share):
    if kind == "json":
        path = put(tmp_path / "made.json", json.dumps({"a": list(range(500))}).encode())
    else:
        path = tmp_path / f"made.{'safetensors' if kind == 'safetensors' else 'pth'}"
        save_safe(path) if kind == "safetensors" else save(path, zipped=kind == "zip")
    content = path.read_bytes()
    source = web_source(hub, path.name, content)
    hub.bare, hub.drop = True, int(len(content) * share)
    with pytest.raises(WeightsError, match="do not open as what it should be.*thrown away"):
        weights.obtain([source], name="Net")
    assert weights.find([source]) is None and not (models / path.name).exists() and parts(models) == []
    hub.drop = None
    assert weights.obtain([source], name="Net").path.read_bytes() == content


def test_parts_of_two_versions_are_never_joined_where_no_hash_would_tell(models, hub, monkeypatch, tmp_path):
    first, second = (save(tmp_path / n, {"x": torch.full((9000,), float(n))}).read_bytes() for n in "12")
    source = web_source(hub, "net.pth", first)
    hub.version, hub.drop = '"first"', 20_000
    monkeypatch.setattr(fetch, "RETRIES", 0)
    monkeypatch.setattr(fetch, "CHUNK", 4096)
    with pytest.raises(WeightsError, match="connection broke"):
        weights.obtain([source], name="Net")
    (part,) = parts(models)
    assert part.stat().st_size
    hub.files["releases/net.pth"], hub.version, hub.drop = second, '"second"', None
    assert weights.obtain([source], name="Net").path.read_bytes() == second
    assert hub.requests[-1][2]["if-range"] == '"first"'
    assert list((models / fetch.WORKSHOP).glob("*.version")) == []


def test_a_part_of_the_same_version_goes_on_where_no_hash_would_tell(models, hub, monkeypatch, tmp_path):
    content = save(tmp_path / "net", {"x": torch.arange(9000.0)}).read_bytes()
    source = web_source(hub, "net.pth", content)
    hub.version, hub.drop = '"one"', 20_000
    monkeypatch.setattr(fetch, "RETRIES", 0)
    monkeypatch.setattr(fetch, "CHUNK", 4096)
    with pytest.raises(WeightsError, match="connection broke"):
        weights.obtain([source], name="Net")
    had, hub.drop = parts(models)[0].stat().st_size, None
    assert weights.obtain([source], name="Net").path.read_bytes() == content
    assert hub.requests[-1][2]["range"] == f"bytes={had}-"


# ------------------------------------------------------------------------------------------ disk


def test_a_limit_on_file_size_stops_like_a_full_disk_and_the_next_run_goes_on(models, hub):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(WeightsError, match="disk is full .*kept"):
            weights.obtain([SOURCE], name="Net")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert parts(models)[0].stat().st_size == 500_000 and not target(models).exists()
    assert weights.obtain([SOURCE], name="Net").path.read_bytes() == CONTENT


@pytest.fixture
def small_disk(models):
    """The model folder on a disk of its own with room for half the file."""
    models.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(models)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root on Linux")
    yield models
    subprocess.run(["umount", "-l", str(models)], check=True)


def test_a_small_disk_is_seen_before_the_download(small_disk, hub):
    with pytest.raises(WeightsError, match="disk is full: 1.0 MB needed, 0.5 MB free"):
        weights.obtain([SOURCE], name="Net")
    assert hub.count("GET") == 0


def test_a_disk_that_fills_up_meanwhile(small_disk, hub, monkeypatch):
    usage = fetch.shutil.disk_usage(small_disk)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage._replace(free=1 << 40))
    with pytest.raises(WeightsError, match="disk is full .*No space left"):
        weights.obtain([SOURCE], name="Net")
    assert not target(small_disk).exists()


def test_a_folder_that_cannot_be_made(models, hub):
    put(models, b"a file in the folder's place")
    with pytest.raises(WeightsError, match="cannot be written"):
        weights.obtain([SOURCE], name="Net")


# ------------------------------------------------------------------------------------------ processes

CHILD = """
import logging, sys
from pathlib import Path
logging.basicConfig()
from fathom.annotator import host, weights
from fathom.errors import WeightsError
assert not {"huggingface_hub", "safetensors", "timm", "transformers"} & set(sys.modules), "start-up must be light"
host.weight_folders = lambda: [Path(sys.argv[1])]
host.neighbour_folders = lambda: {}
source = weights.Source(sys.argv[2], sys.argv[3], sha256=sys.argv[4], size=int(sys.argv[5]))
print("ready", flush=True)
try:
    print(weights.obtain([source], name="Net").origin)
except WeightsError as error:
    print(error)
"""


def child(models: Path, hub: Hub, **env: str) -> subprocess.Popen[str]:
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(models.parent / "home")} | env
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", CHILD, str(models), REPO, FILE, SHA, str(len(CONTENT))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_one_fetches_and_when_it_dies_the_other_goes_on(models, hub):
    hub.piece = 2 * fetch.CHUNK
    hub.gate.clear()
    children = {f"Bearer {token}": child(models, hub, HF_TOKEN=token) for token in ("hf_a", "hf_b")}
    for process in children.values():
        assert process.stdout and process.stdout.readline() == "ready\n"
    while not (parts(models) and parts(models)[0].stat().st_size):
        time.sleep(0.02)
    time.sleep(0.5)  # the other now waits
    first = children.pop(next(h["authorization"] for m, _, h in hub.requests if m == "GET"))
    assert hub.count("GET") == 1
    first.kill()
    first.communicate()
    assert not target(models).exists() and weights.find([SOURCE]) is None
    hub.gate.set()
    (second,) = children.values()
    assert second.communicate()[0] == "downloaded\n"
    assert target(models).read_bytes() == CONTENT and parts(models) == []
    assert hub.count("GET") == 2 and hub.requests[-1][2]["range"] == f"bytes={2 * fetch.CHUNK}-"


def test_a_download_killed_again_and_again_ends_whole(models, hub):
    hub.piece, hub.pace = fetch.CHUNK // 4, 0.01
    random = np.random.default_rng(0)
    for _ in range(4):
        process = child(models, hub)
        assert process.stdout and process.stdout.readline() == "ready\n"
        had = parts(models)[0].stat().st_size if parts(models) else 0
        wanted = had + int(random.integers(1, 200_000))
        while not parts(models) or parts(models)[0].stat().st_size < wanted:
            time.sleep(0.005)
        process.kill()  # SIGKILL: nothing is tidied up
        process.communicate()
        assert weights.find([SOURCE]) is None and not target(models).exists()
    hub.pace = 0
    assert weights.obtain([SOURCE], name="Net").path.read_bytes() == CONTENT
    assert parts(models) == [] and "range" in hub.requests[-1][2]


def test_of_two_threads_only_one_fetches(models, hub):
    hub.pace = 0.01
    got: list[weights.Found] = []
    threads = [threading.Thread(target=lambda: got.append(weights.obtain([SOURCE], name="Net"))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.path for found in got] == [target(models)] * 2 and hub.count("GET") == 1


# ------------------------------------------------------------------------------------------ proxies


@pytest.fixture
def through(models, monkeypatch):
    """A function: what is said when the file is fetched through the proxy of this address."""
    from huggingface_hub import utils

    # Since 1.0 its session reads the environment when it is made; before, at each request.
    fresh = getattr(utils, "close_session", lambda: None)

    def run(address: str) -> str:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, address)
        fresh()
        try:
            return weights.obtain([SOURCE], name="Net").origin
        except WeightsError as error:
            assert not target(models).exists()
            return str(error)

    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield run
    fresh()


def test_a_download_goes_through_the_proxy_that_the_environment_names(models, hub, through):
    with Proxy() as proxy:
        assert through(proxy.url.replace("://", "://ann:secret@")) == "downloaded"
    assert target(models).read_bytes() == CONTENT
    assert [method for method, _, _ in proxy.asked] == [method for method, _, _ in hub.requests] == ["HEAD", "GET"]
    assert {host for _, host, _ in proxy.asked} == {hub.url.removeprefix("http://")}
    assert {shown for _, _, shown in proxy.asked} == {"Basic YW5uOnNlY3JldA=="}, "the proxy's own credentials"
    assert not any("proxy-authorization" in headers for _, _, headers in hub.requests)


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"refuses": 407}, "the proxy that HTTP_PROXY names wants a name and a password (407)"),
        ({"refuses": 502}, "the server answered with error 502; try again later"),
        ({"refuses": 403}, "access was denied (403)"),
        ({"page": b"<html>Log in to the network</html>"}, "a proxy, a log-in page or HF_ENDPOINT in the way"),
        ({"page": b"<html>Log in</html>" * 9, "head": False}, "wrong content"),
        ({"page": b"", "head": False}, "closed after 0 of 1048576 bytes"),
        ({"alters": (CONTENT[7000:7016], b"<script>" * 2)}, "a proxy or mirror alters files"),
        ({"strips": ("ETag", "X-Linked-Etag", "X-Repo-Commit")}, "a proxy, a log-in page or HF_ENDPOINT in the way"),
    ],
    ids=["password", "gateway", "forbidden", "log-in", "log-in later", "nothing", "altered", "stripped"],
)
def test_what_a_proxy_does_instead_is_told(models, hub, through, faults, words):
    with Proxy(**faults) as proxy:
        told = through(proxy.url.replace("://", "://ann:secret@"))
    assert words in told and "secret" not in told and "By hand: fetch" in told
    assert through("") == "downloaded", "without it nothing is left of it"
    assert target(models).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "address",
    [
        "http://ann:secret@127.0.0.1:9",
        "ftp://ann:secret@127.0.0.1:9",
        "http://ann:secret@127.0.0.1:port",
        "http://ann:secret@[",
        "nonsense",
    ],
)
def test_a_proxy_that_cannot_be_reached_is_named(models, hub, through, address):
    told = through(address)
    assert "no connection" in told and "by the proxy that HTTP_PROXY names" in told and "secret" not in told
    assert not hub.requests


def test_a_proxy_that_drops_connections(models, hub, through):
    with Proxy(drop=6 * fetch.CHUNK + 9) as proxy:
        assert through(proxy.url) == "downloaded" and target(models).read_bytes() == CONTENT


def test_a_proxy_that_drops_connections_and_ranges(models, hub, through):
    with Proxy(drop=6 * fetch.CHUNK + 9, whole=True) as proxy:
        assert "the connection broke after" in through(proxy.url), "each attempt begins anew and ends at one place"
        proxy.drop = None
        assert through(proxy.url) == "downloaded" and target(models).read_bytes() == CONTENT


def test_a_proxy_that_drips_can_be_cancelled_at_once(models, hub, through, monkeypatch):
    stop = time.monotonic() + 1
    cancelled = lambda: time.monotonic() > stop and (_ for _ in ()).throw(KeyboardInterrupt)  # noqa: E731
    monkeypatch.setattr(host, "check_interrupt", cancelled)
    with Proxy(piece=1, pace=0.05) as proxy, pytest.raises(KeyboardInterrupt):
        through(proxy.url)
    assert time.monotonic() - stop < 1.5 and not target(models).exists()


# ------------------------------------------------------------------------------------------ verification


def test_verify_and_survey(models, tmp_path):
    good = put(models / REPO / FILE)
    assert weights.verify(good, SOURCE).state == "match"
    assert weights.verify(good, Source(REPO, FILE, size=5)).state == "mismatch"
    unknown = weights.verify(good, Source(REPO, FILE))
    assert (unknown.state, unknown.found) == ("unknown hash", (None, len(CONTENT)))
    altered = put(tmp_path / "aux" / REPO / FILE, CONTENT[:-1] + b"!")
    verdict = weights.verify(altered, SOURCE)
    assert (verdict.state, verdict.expected[0]) == ("mismatch", SHA) and verdict.found[0] not in (None, SHA)
    absent = Source("owner/none", "none.pt", also=("more.pt",))
    got = weights.survey([SOURCE, absent])
    assert [(c.found and c.found.origin, c.state) for c in got] == [
        ("annotators", "match"),
        ("aux", "mismatch"),
        (None, "missing"),
    ]


# ------------------------------------------------------------------------------------------ identity


def named(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        put(folder / name, content)


PIPELINE = {"unet/config.json": b"{}", "unet/net.safetensors": b"1", "text/model.bin": b"2"}


@pytest.mark.parametrize("changed", ["model_index.json", *PIPELINE])
def test_every_file_of_a_folder_is_part_of_its_identity(models, tmp_path, changed):
    named(folder := tmp_path / "mine", {"model_index.json": b"{}", **PIPELINE})
    source = Source("owner/net", "model_index.json", "diffusers", tuple(PIPELINE))
    for sources in ([source], []):  # as published, and some other pipeline
        found = weights.resolve(folder, sources, name="Net")
        assert {p.relative_to(folder).as_posix() for p in found.files} == {"model_index.json", *PIPELINE}
        assert found.files[0].name == "model_index.json"
        digest, stamp = found.digest(), found.stamp()
        content = (folder / changed).read_bytes()
        put(folder / changed, b"3")
        assert found.digest() != digest and found.stamp() != stamp
        put(folder / changed, content)
        assert weights.resolve(folder, sources, name="Net").digest() == digest
    (folder / changed).unlink()
    assert found.stamp() is None
    with pytest.raises(WeightsError, match=f"{Path(changed).name} cannot be read"):
        found.digest()


def test_of_a_published_folder_only_the_files_of_one_variant_count(models, tmp_path):
    named(folder := tmp_path / "mine", {"model_index.json": b"{}", **PIPELINE, "unet/net.fp16.safetensors": b"4"})
    sources = [Source("owner/net", "model_index.json", "diffusers", ("unet/none.safetensors",))]
    sources += [Source("owner/net", "model_index.json", "diffusers", tuple(PIPELINE))]
    assert len(weights.resolve(folder, sources, name="Net").files) == 4


def test_a_single_files_identity_is_its_published_hash_wherever_it_lies(models, tmp_path):
    found = weights.resolve(put(tmp_path / "renamed.pt"), [SOURCE], name="Net")
    assert found.digest() == SHA
    put(models / FILE)
    assert weights.find([SOURCE]).digest() == SHA


def test_two_files_that_belong_together(models, tmp_path):
    source = Source(REPO, FILE, also=("merge.pth",))
    folders = {}
    for place in (f"annotators/{REPO}", "aux/Annotators"):
        named(tmp_path / place, {FILE: b"1", "merge.pth": b"2"})
        found = weights.find([source])
        folders[found.path.parent.parent.name] = found.digest()
        found.path.unlink()
    assert len(folders) == 2 and len(set(folders.values())) == 1
    for name in (FILE, "renamed.pth"):
        named(tmp_path / "own", {name: b"1", "merge.pth": b"2", "config.json": b"{}"})
        found = weights.resolve(tmp_path / "own" / name, [source], name="Net")
        assert {p.name for p in found.files} == {name, "merge.pth", "config.json"}


def test_what_lies_beside_a_chosen_file_counts_by_names_that_say_what_it_is(tmp_path, models):
    source = Source("owner/net", "net.pth", also=("merge.pth", "model.safetensors", "far.pth"))
    named(tmp_path / "own", {"mine.pth": b"1", "merge.pth": b"2", "model.safetensors": b"3"})
    found = weights.resolve(tmp_path / "own" / "mine.pth", [source], name="Net")
    assert [p.name for p in found.files] == ["mine.pth", "merge.pth"]


def test_the_layout_is_told_by_the_name_or_the_folder(tmp_path, models):
    one, other = Source("owner/one", "model.safetensors", "a"), Source("owner/two", "model.safetensors", "b")
    sources = [one, other, Source("owner/net", "net.pth", "c")]
    for place, layout in {"one/model.safetensors": "a", "two/model.safetensors": "b", "net.pth": "c"}.items():
        found = weights.resolve(put(tmp_path / place, b"x"), sources, name="Net")
        assert found.layout == layout and found.source is not None
    unsure = put(tmp_path / "mine" / "model.safetensors", b"x")
    assert weights.resolve(unsure, sources, name="Net").layout is None
    found = weights.resolve(unsure, [one], name="Net")
    assert found.layout == "a" and found.source is None, "one layout alone bears that name"


def test_of_many_files_eight_are_named(tmp_path, models):
    named(tmp_path / "m", {f"{i}.txt": b"x" for i in range(9)})
    with pytest.raises(WeightsError, match=r"It holds 0.txt, .*, 7.txt\.$"):
        weights.resolve(tmp_path / "m", [SOURCE], name="Net")


def test_of_several_snapshots_the_pinned_one_comes_first_then_that_of_main(models, tmp_path):
    base = tmp_path / "hub-cache/models--owner--Annotators"
    for commit in ("aaaa", "bbbb", "cccc", "dddd"):
        put(base / "snapshots" / commit / FILE)
    put(base / "refs" / "main", b"cccc\n")
    source = Source(REPO, FILE, sha256=SHA, size=len(CONTENT), revision="dd")
    order = [found.root.name for found in weights.search.places(source)]
    assert order == ["dddd", "cccc", "aaaa", "bbbb"]
    assert [f.root.name for f in weights.search.places(Source(REPO, FILE, revision="dd"))] == ["dddd"], "nothing else"


def test_shards_and_the_configuration_count(tmp_path, models):
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors", "z": "a.safetensors"}}
    files = {"a.safetensors": b"1", "b.safetensors": b"2", "config.json": b"{}", "c.safetensors": b"3"}
    named(tmp_path / "m", {"model.safetensors.index.json": json.dumps(index).encode(), **files})
    found = weights.resolve(tmp_path / "m", [], name="Net")
    names = [p.name for p in found.files]
    assert names == ["model.safetensors.index.json", "a.safetensors", "b.safetensors", "config.json"]


def test_the_parts_cannot_be_exchanged(tmp_path):
    named(tmp_path / "m", {"a": b"1", "b": b"2"}), named(tmp_path / "n", {"a": b"2", "b": b"1"})
    one, two = (weights.Found(tmp_path / m / "a", tmp_path / m, "", also=("b",)).digest() for m in "mn")
    assert one != two


def test_an_unchanged_file_is_hashed_once(tmp_path, monkeypatch):
    from fathom.annotator.weights import digest

    reads = []
    monkeypatch.setattr(
        digest, "sha256_of", lambda path: reads.append(path) or hashlib.sha256(path.read_bytes()).hexdigest()
    )
    path = put(tmp_path / "net.pt")
    found = weights.Found(path, tmp_path, "")
    assert found.digest() == found.digest() == SHA and len(reads) == 2, "fresh files may change within a clock tick"
    os.utime(path, (1, 1))
    assert found.digest() == found.digest() == SHA and len(reads) == 3
    put(tmp_path / "other", CONTENT[:-1] + b"!")
    os.utime(tmp_path / "other", (1, 1))
    (tmp_path / "other").replace(path)
    assert found.digest() != SHA and len(reads) == 4, "another inode of the same size and time"


def test_a_hash_is_remembered_once_its_file_has_rested_for_two_seconds(tmp_path, monkeypatch):
    from fathom.annotator.weights import digest

    reads = []
    monkeypatch.setattr(digest, "sha256_of", lambda path: reads.append(path) or "hash")
    monkeypatch.setattr(digest, "_known", {})
    path, notes = put(tmp_path / "net.pt"), tmp_path / "far" / "away" / "hashes.json"
    for age, read in ((1.5, 2), (2.5, 1)):
        reads.clear()
        then = time.time() - age
        os.utime(path, (then, then))
        assert digest.file_digest(path, notes) == digest.file_digest(path, notes) == "hash"
        assert len(reads) == read, age
    reads.clear()
    digest._known.clear()
    assert digest.file_digest(path, notes) == "hash" and not reads, "a later process reads the note"
    other = put(tmp_path / "other.pt")
    os.utime(other, (1, 1))
    digest.file_digest(other, notes)
    digest._known.clear()
    reads.clear()
    assert digest.file_digest(other, notes) == digest.file_digest(path, notes) == "hash" and not reads
    assert [p.name for p in notes.parent.iterdir()] == [notes.name]


def test_a_hash_shows_how_far_it_is(tmp_path, monkeypatch):
    from fathom.annotator.weights import digest

    shown = []

    class Bar:
        update = shown.append

    @contextmanager
    def progress(total, label, unit):
        shown.append((total, label, unit))
        yield Bar

    monkeypatch.setattr(host, "progress", progress)
    path = put(tmp_path / "net.pt", bytes((1 << 22) + 5))
    assert digest.sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert shown == [((1 << 22) + 5, "Checking net.pt", "B"), 1 << 22, 5]


# ------------------------------------------------------------------------------------------ reading


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


STATE = {key: tensor.clone() for key, tensor in small().state_dict().items()}


def meta() -> nn.Module:
    module = small()
    for part in module.modules():
        for key, value in part._parameters.items():
            part._parameters[key] = nn.Parameter(value.to("meta"))
    return module


def check(path: Path, *, wrapper: str | None = None) -> weights.Checkpoint:
    checkpoint = weights.read(path)
    assert checkpoint.wrapper == wrapper
    module = meta()
    weights.load_strict(module, checkpoint.tensors, extras={}, name="Net", path=path)
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, STATE[key])
    return checkpoint


def save(path: Path, held: object = None, *, zipped: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(STATE if held is None else held, path, _use_new_zipfile_serialization=zipped)
    return path


def save_safe(path: Path, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(STATE if tensors is None else tensors, path, metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("held", "wrapper"),
    [
        (STATE, None),
        ({"model": STATE, "optimizer": {"state": {0: {"m": torch.ones(1)}}}, "epoch": 3}, "model"),
        (
            {"state_dict": {f"module.{k}": v for k, v in STATE.items()}, "args": argparse.Namespace(a=1)},
            "state_dict",
        ),
        ({"epoch": torch.tensor(3), "state_dict": {"model": STATE}}, "state_dict/model"),
        ({"network_x": STATE, "best": np.float64(0.5), "sizes": np.zeros(3)}, "network_x"),
        ({**STATE, "version": "1.0"}, None),
    ],
)
def test_torch_files(tmp_path, held, wrapper, zipped):
    check(save(tmp_path / "net.pth", held, zipped=zipped), wrapper=wrapper)


def test_numpy_scalars_pickled_under_either_name_of_the_module(tmp_path):
    path = tmp_path / "net.pth"
    names = b"numpy._core.multiarray", b"numpy.core.multiarray"
    for ours, theirs in (names, names[::-1]):
        save(path, {"model": STATE, "best": np.float32(0.5)}, zipped=False)
        check(put(path, path.read_bytes().replace(ours, theirs)), wrapper="model")


def test_the_allow_list_leaves_what_others_allowed(tmp_path):
    if not hasattr(torch.serialization, "get_safe_globals"):
        pytest.skip("torch without an allow-list")
    with torch.serialization.safe_globals([np.dtype]):
        weights.read(save(tmp_path / "net.pth"))
        assert torch.serialization.get_safe_globals().count(np.dtype) == 1
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_safetensors_and_folders(tmp_path, models):
    folder = tmp_path / "owner" / "net-hf"
    path = save_safe(folder / "model.safetensors")
    put(folder / "config.json", b'{"depth": 2}')
    sources = [Source("o/n", "net.pth"), Source("owner/net-hf", "model.safetensors", "hf")]
    found = weights.resolve(folder, sources, name="Net")
    assert (found.path, found.root, found.layout, found.origin) == (path, folder, "hf", "given")
    checkpoint = weights.read(found)
    assert (checkpoint.config, checkpoint.layout, checkpoint.metadata) == (
        {"depth": 2},
        "hf",
        {"format": "pt"},
    )
    check(path)
    path.rename(folder / "renamed.safetensors")
    assert weights.resolve(folder, sources, name="Net").layout is None
    save(folder / "net.pth")
    assert weights.resolve(folder, sources, name="Net").source == sources[0]
    assert weights.resolve(str(folder / "net.pth"), sources, name="Net").layout == "official"
    put(folder / "model_index.json", b"{}")
    assert weights.resolve(folder, sources, name="Net").path == folder / "model_index.json"
    with pytest.raises(WeightsError, match="diffusers folder"):
        weights.read(weights.resolve(folder, sources, name="Net"))


def test_sharded_folders(tmp_path):
    keys = list(STATE)
    save_safe(tmp_path / "a.safetensors", {k: STATE[k] for k in keys[:3]})
    save_safe(tmp_path / "b.safetensors", {k: STATE[k] for k in keys[3:]})
    shards = {k: "a.safetensors" if i < 3 else "b.safetensors" for i, k in enumerate(keys)}
    index = put(tmp_path / "model.safetensors.index.json", json.dumps({"weight_map": shards}).encode())
    assert weights.resolve(tmp_path, [], name="Net").path == index
    check(index)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(WeightsError, match="missing beside it: b.safetensors"):
        weights.read(index)
    put(index, b'{"weight_map": {"x": "../../secret.safetensors"}}')
    with pytest.raises(WeightsError, match="does not list"):
        weights.read(index)


@pytest.mark.parametrize("change", ["written over", "cut short"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_a_file_that_is_written_over_changes_nothing_that_was_read(tmp_path, kind, change):
    path = save_safe(tmp_path / "n") if kind == "safetensors" else save(tmp_path / "n", zipped=kind == "zip")
    tensors = weights.read(path).tensors
    with path.open("r+b") as file:  # as cp and rsync --inplace do: the same inode
        size = path.stat().st_size
        file.truncate(0)
        file.write(b"\xff" * (size if change == "written over" else 3))
    for key, tensor in tensors.items():
        assert torch.equal(tensor, STATE[key])


def test_nothing_that_was_read_is_mapped(tmp_path):
    if not Path("/proc/self/maps").exists():
        pytest.skip("told by Linux only")
    for path in (save(tmp_path / "zip.pth"), save_safe(tmp_path / "net.safetensors")):
        held = weights.read(path)
        assert held.tensors and str(path) not in Path("/proc/self/maps").read_text()


def test_a_file_that_is_written_to_while_it_is_read_is_told(tmp_path, monkeypatch):
    path = save_safe(tmp_path / "net.safetensors")
    monkeypatch.setattr(host, "check_interrupt", lambda: os.utime(path, ns=(1, 1)))
    with pytest.raises(WeightsError, match="written to while it was read"):
        weights.read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_under_the_name_of_safetensors_and_the_reverse(tmp_path, zipped):
    check(save(tmp_path / "a.safetensors", zipped=zipped))
    check(save_safe(tmp_path / "b.pth"))
    check(save_safe(tmp_path / "c"))


def test_a_header_as_long_as_a_pickles_first_byte(tmp_path):
    text = b"{}".ljust(0x280)
    path = put(tmp_path / "net.safetensors", len(text).to_bytes(8, "little") + text)
    assert path.read_bytes()[:1] == b"\x80"
    with pytest.raises(WeightsError, match="holds no weights"):  # it was read
        weights.read(path)


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "_orig_mod.module.", "_orig_mod._orig_mod.module.module."])
def test_prefixes_in_any_order(tmp_path, prefix):
    check(save(tmp_path / "net.pth", {prefix + key: tensor for key, tensor in STATE.items()}))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: t.to_sparse(), "0.weight is a sparse tensor"),
        (lambda t: t.to_sparse_csr(), "0.weight is a sparse tensor"),
        # torch since 2.15 does not rebuild one from a file at all.
        (lambda t: torch.nested.nested_tensor([t, t[:2]]), "0.weight is a nested tensor|_rebuild_nested_tensor"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "0.weight is a quantised tensor"),
        (lambda t: t.to("meta"), "0.weight was saved without its values"),
    ],
)
def test_tensors_that_are_no_weights_are_told(tmp_path, make, words):
    path = save(tmp_path / "net.pth", {**STATE, "0.weight": make(STATE["0.weight"])})
    with pytest.raises(WeightsError, match=words):
        weights.read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_shapes_alone(tmp_path, zipped):
    paths = save_safe(tmp_path / "a.safetensors"), save(tmp_path / "b.pth", {"model": STATE}, zipped=zipped)
    for path in (*paths, save(tmp_path / "c.safetensors", zipped=zipped)):
        with weights.shapes_only():
            tensors = weights.read(path).tensors
        assert all(tensor.is_meta for tensor in tensors.values())
        assert {k: (t.shape, t.dtype) for k, t in tensors.items()} == {k: (t.shape, t.dtype) for k, t in STATE.items()}


def test_shapes_alone_read_no_numbers(tmp_path):
    """A file of 100 GB, all hole: its header and its directory are all that is looked at."""
    size = 25 * 10**9
    header = json.dumps({"x": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]}}).encode()
    path = put(tmp_path / "large.safetensors", len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + 4 * size)
    with weights.shapes_only():
        assert weights.read(path).tensors["x"].shape == (size,)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "bytes of x are not as many"),
        ({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}, "bytes of x are not as many"),
        ({"x": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, "bytes of x are not as many"),
        ({"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "bytes of x are not as many"),
        ({"x": {"dtype": "F32", "shape": [10**400, 0], "data_offsets": [0, 0]}}, "end at byte"),
        ({"x": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, "x is not described"),
        ({"x": {"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]}}, "x is of the type 'Q4'"),
        ({"x": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}}, "x is not described"),
        ({"x": [1]}, "x is not described"),
        ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "x does not begin where"),
        ({}, "end at byte"),
        ({"__metadata__": {"a": 1}}, "metadata is not text"),
    ],
)
def test_headers_that_do_not_describe_their_file(tmp_path, header, words):
    text = json.dumps(header).encode()
    path = put(tmp_path / "net.safetensors", len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(WeightsError, match=f"damaged, .*{words}"):
        weights.read(path)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["zip", "legacy", "plain pickle", "newest pickle", "inside a wrapper"])
def test_a_pickle_with_code_is_refused_unexecuted(tmp_path, monkeypatch, how):
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a patched torch.load was trusted"))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "executed"
    path = tmp_path / "net.pth"
    if "pickle" in how:
        put(path, pickle.dumps(Evil(mark), protocol=2 if how == "plain pickle" else 5))
    else:
        held = {"state_dict": STATE, "extra": Evil(mark)} if "wrapper" in how else Evil(mark)
        save(path, held, zipped=how != "legacy")
    with pytest.raises(WeightsError) as error:
        weights.read(path)
    assert not mark.exists()
    assert "refused" in str(error.value) and "weights_only" not in str(error.value)
    if how != "newest pickle":  # its instructions are refused before the name is known
        assert "system" in str(error.value)


def test_any_other_global_is_refused_by_name(tmp_path):
    import fractions

    with pytest.raises(WeightsError, match="asks to call fractions.Fraction"):
        weights.read(save(tmp_path / "net.pth", {"model": STATE, "rate": fractions.Fraction(1, 2)}))


def zip_of(path: Path, files: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    zipped, safe = save(folder / "zip.pth").read_bytes(), save_safe(folder / "ok.safetensors").read_bytes()
    legacy = save(folder / "legacy.pth", zipped=False).read_bytes()
    torch.jit.script(nn.Linear(2, 2)).save(str(folder / "script.pt"))
    page = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"
    return {
        "empty": (put(folder / "empty.pth", b""), "is empty"),
        "page": (put(folder / "page.pth", page), "web page"),
        "pointer": (
            put(folder / "lfs.pth", b"version https://git-lfs.github.com/spec/v1\noid"),
            "Git LFS pointer",
        ),
        "text": (put(folder / "text.safetensors", b"hello world" * 9), "no checkpoint"),
        "truncated zip": (put(folder / "t1.pth", zipped[: len(zipped) // 2]), "damaged"),
        "truncated legacy": (put(folder / "t2.pth", legacy[: len(legacy) - 9]), "damaged"),
        "truncated safetensors": (put(folder / "t3.safetensors", safe[:-9]), "damaged"),
        "header": (put(folder / "h.safetensors", safe[:20] + b"}{" + safe[22:]), "damaged"),
        "script": (folder / "script.pt", "TorchScript"),
        "archive": (zip_of(folder / "a.zip", {"weights/net.pth": b"x"}), "zip archive without weights"),
        "packed": (zip_of(folder / "p.pth", {"a/data.pkl": b"x" * 99}, zipfile.ZIP_DEFLATED), "is compressed"),
        "no tensors": (save(folder / "n.pth", {"a": 1, "b": [2]}), "holds no weights: it is a dict of a, b"),
        "a tensor": (save(folder / "one.pth", torch.zeros(3)), "holds no weights"),
        "a folder": (folder, "cannot be read"),
        "nowhere": (folder / "nowhere.pth", "cannot be read: No such file"),
    }


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_bad_files(tmp_path):
    for kind, (path, words) in bad_files(tmp_path).items():
        with pytest.raises(WeightsError) as error:
            weights.read(path)
        assert words in str(error.value) and str(path) in str(error.value), kind
        assert "weights_only" not in str(error.value), kind


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torch_never_sees_a_torchscript_archive(tmp_path, monkeypatch):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    monkeypatch.setattr(torch.serialization, "load", lambda *a, **k: pytest.fail("torch was given the archive"))
    with pytest.raises(WeightsError, match="TorchScript"):
        weights.read(tmp_path / "script.pt")


@pytest.mark.parametrize("listed", [["a"], "a", {"x": ["a"]}, {"x": None}, {"x": "a\0b"}, {"x": "../b"}, {}, None])
def test_an_index_that_lists_no_files(tmp_path, listed):
    index = put(tmp_path / "model.safetensors.index.json", json.dumps({"weight_map": listed}).encode())
    with pytest.raises(WeightsError, match="does not list the files of a sharded checkpoint"):
        weights.read(index)


def test_a_nul_in_a_path_is_no_file(models):
    with pytest.raises(WeightsError, match="there is no file or folder"):
        weights.resolve("a\0b.safetensors", [SOURCE], name="Net")


def test_bad_choices(tmp_path, models):
    (tmp_path / "loop").symlink_to("loop")
    for nothing in (tmp_path / "none", tmp_path / ("a" * 300), tmp_path / "loop", "~nobody-of-this-name/x", "a\0b"):
        with pytest.raises(WeightsError, match="no file or folder"):
            weights.resolve(nothing, [SOURCE], name="Net")
        with pytest.raises(WeightsError, match="no file or folder"):
            fathom.detect(nothing)
    (tmp_path / "loop").unlink()
    put(tmp_path / "readme.txt", b"x")
    with pytest.raises(WeightsError, match="holds none of net-1.pt.*It holds readme.txt"):
        weights.resolve(tmp_path, [SOURCE], name="Net")
    save_safe(tmp_path / "model.safetensors"), put(tmp_path / "config.json", b"[]")
    with pytest.raises(WeightsError, match="config.json should hold a JSON object"):
        weights.read(weights.resolve(tmp_path, [SOURCE], name="Net"))


@pytest.mark.parametrize("value", ["1e-6", True, [1], 0, -1, 1e9, float("nan"), float("inf"), 10**400])
def test_a_number_of_a_configuration_is_one(tmp_path, value):
    checkpoint = weights.Checkpoint(tmp_path / "net", {}, {"deep": {"eps": value}, "good": 2, "flat": 3})
    with pytest.raises(WeightsError, match="config.json beside .*: deep.eps should be a positive number"):
        checkpoint.number("deep.eps", 1.0)
    assert checkpoint.number("good", 1.0) == 2 and checkpoint.number("flat.eps", 1.0) == 1 == checkpoint.number("no", 1)


# ------------------------------------------------------------------------------------------ strict loading


def strict(tensors: dict[str, torch.Tensor], **more) -> nn.Module:
    module = meta()
    options = {"extras": {"head.*": "an unused classifier"}, "name": "Net", "path": Path("net.pth")} | more
    weights.load_strict(module, tensors, **options)
    return module


def test_known_extras_are_dropped_and_the_rest_is_assigned(tmp_path):
    module = strict({**STATE, "head.weight": torch.full((2,), float("nan"))})
    assert module[0].weight.data_ptr() == STATE["0.weight"].data_ptr() and module[0].weight.requires_grad
    half = strict({k: v.half() if v.is_floating_point() else v for k, v in STATE.items()})
    assert half[0].weight.dtype == torch.float16
    single = strict(half.state_dict(), dtype=torch.float32)
    assert single[0].weight.dtype == torch.float32 and single[1].num_batches_tracked.dtype == torch.int64
    assert torch.equal(strict(STATE, extras={"*": "all"})[0].bias, STATE["0.bias"]), "what is needed stays"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(0, 3), (1,), ()])
def test_numbers_of_every_type_and_count_are_checked(dtype, shape):
    def load(tensor: torch.Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer("table", torch.empty(shape, device="meta"))
        weights.load_strict(module, {"table": tensor}, extras={}, name="Net", path=Path("net.pth"))
        return module

    assert load(torch.ones(shape).to(dtype)).table.dtype == dtype
    broken = torch.full(shape, float("nan")).to(dtype)
    if broken.numel():
        with pytest.raises(WeightsError, match="table holds NaN or infinity"):
            load(broken)


def test_what_differs_is_listed_up_to_four():
    four = {f"layer.{i}": torch.zeros(1) for i in range(4)}
    with pytest.raises(WeightsError, match=r"4 not expected: layer.0, layer.1, layer.2, layer.3\.$"):
        strict({**STATE, **four})
    with pytest.raises(WeightsError, match=r"5 not expected: layer.0, layer.1, layer.2, layer.3, \.\.\.\.$"):
        strict({**STATE, **four, "layer.4": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"float32 8x3, expected float32 4x3; 0.bias float32 8, expected"):
        strict({**STATE, "0.weight": torch.zeros(8, 3), "0.bias": torch.zeros(8)})


def test_what_was_found_stays_with_what_was_read(tmp_path, models):
    found = weights.resolve(save_safe(tmp_path / "net.safetensors"), [SOURCE], name="Net")
    assert weights.read(found).found is found
    assert weights.read(found.path).found is None and weights.read(str(found.path)).path == found.path


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors", "net.bin"])
@pytest.mark.parametrize("content", [b"weights", b"\0" * 4096, b"\x7fELF" + b"\0" * 64, b"GGUF\3\0\0\0"])
def test_what_is_no_checkpoint_is_told_before_torch_sees_it(tmp_path, monkeypatch, name, content):
    monkeypatch.setattr(torch.serialization, "load", lambda *_, **__: pytest.fail("torch was asked"))
    with pytest.raises(WeightsError, match="neither safetensors nor a torch file"):
        weights.read(put(tmp_path / name, content))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.bias": None}, "1 missing: 0.bias"),
        ({"1.surplus": torch.zeros(1)}, "1 not expected: 1.surplus"),
        ({"0.weight": torch.zeros(8, 3)}, "another size.*0.weight float32 8x3, expected float32 4x3"),
        ({"0.bias": torch.zeros(4, dtype=torch.int64)}, "0.bias int64 4, expected float32 4"),
        ({"0.bias": torch.tensor([0, 0, 0, float("nan")])}, "0.bias holds NaN"),
        ({"0.bias": torch.tensor([0, 0, 0, float("-inf")]).half()}, "0.bias holds NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    tensors = {k: v for k, v in {**STATE, **change}.items() if v is not None}
    with pytest.raises(WeightsError, match=words):
        strict(tensors)


def test_another_network_is_recognised():
    with pytest.raises(WeightsError, match="Net: net.pth does not hold .*looks like a ZoeDepth network"):
        strict({"core.core.x": torch.zeros(1)})
    with pytest.raises(WeightsError, match="looks like another network"):
        strict({})


def test_numbers_too_large_for_the_type_are_told():
    with pytest.raises(WeightsError, match="0.bias holds NaN or infinity"):
        strict({**STATE, "0.bias": torch.full((4,), 1e30)}, dtype=torch.float16)


def test_a_buffer_that_the_builder_left_empty_is_told():
    module = meta()
    module.register_buffer("grid", torch.zeros(2, device="meta"), persistent=False)
    with pytest.raises(ValueError, match="must give values to grid"):
        weights.load_strict(module, STATE, extras={}, name="Net", path=Path("net.pth"))


# ------------------------------------------------------------------------------------------ damage


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    paths = save(folder / "z.pth"), save(folder / "l.pth", zipped=False), save_safe(folder / "s.safetensors")
    return folder, [path.read_bytes() for path in paths]


damage = st.lists(
    st.tuples(
        st.sampled_from(["cut", "set", "drop", "insert"]),
        st.floats(0, 1, width=32),
        st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", [0, 1, 2])
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage)
@example([("cut", 0.0, b"x")])
def test_damage_gives_a_weights_error_or_a_sound_load(originals, kind, changes):
    folder, contents = originals
    content = bytearray(contents[kind])
    for what, where, data in changes:
        at = int(where * len(content))
        if what == "cut":
            del content[at:]
        elif what == "drop":
            del content[at : at + len(data)]
        elif what == "insert":
            content[at:at] = data
        else:
            content[at : at + len(data)] = data
    path = put(folder / f"damaged-{kind}", bytes(content))
    module = meta()
    try:
        weights.load_strict(module, weights.read(path).tensors, extras={}, name="Net", path=path)
    except WeightsError as error:
        assert str(error)
    else:  # a changed number cannot be told without the published hash
        for key, tensor in module.state_dict().items():
            assert tensor.shape == STATE[key].shape and bool(torch.isfinite(tensor).all())
    pinned = Source("o/n", "x", sha256=hashlib.sha256(contents[kind]).hexdigest(), size=len(contents[kind]))
    assert weights.verify(path, pinned).state == ("match" if bytes(content) == contents[kind] else "mismatch")
