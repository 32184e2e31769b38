"""The books of a mass run by themselves, in a folder and on a remote store: what is kept, what is dropped, the lock."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fathom import SettingError
from fathom.mass import manifest
from fathom.mass.job import Chunk, Job, Wanted
from fathom.mass.manifest import FAILED, Ledger, NoBooks, failed
from fathom.mass.sources import Item
from fathom.mass.stores import OutputError, Store, stat

DATA = b"a result"


@pytest.fixture(params=["folder", "remote"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An output: a folder that is not there yet, or a store that is no folder."""
    if request.param == "folder":
        yield str(tmp_path / "far" / "out")
        return
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    yield f"memory://{tmp_path.name}"
    memory.store.clear()


def job(out: str, **settings: Any) -> Job:
    return Job(("in",), out, (Wanted("depth", "fathom-tiny", "png16"),), **settings)


def ledger(root: str, **settings: Any) -> Ledger:
    return Ledger(Store(root), job(root, **settings))


def pictures(folder: Path, *names: str) -> list[Item]:
    for name in names:
        (folder / f"{name}.jpg").write_bytes(name.encode())
    return [Item(name, str(folder / f"{name}.jpg")) for name in names]


def done(store: Store, item: Item) -> dict[str, Any]:
    """The record of a picture whose result is written."""
    store.write(f"{item.name}_depth.png", DATA)
    return manifest.done(item, {"changed": stat(item.path).changed}, {f"{item.name}_depth.png": DATA})


def names(store: Store, folder: str) -> set[str]:
    return set(store.names(f".fathom/{folder}"))


def test_what_was_finished_is_known_to_the_next_run(root: str, tmp_path: Path) -> None:
    one, two = pictures(tmp_path, "one", "two")
    first, chunk = ledger(root), Chunk("c", 0, (one, two))
    first.open()
    assert first.recall(chunk) == (False, {})
    records = [done(first.store, one), failed(two, "it is none")]
    for record in records:
        first.note(chunk, record)
    first.commit(chunk, records)
    assert not names(first.store, "journal"), "what the manifest says is told once"
    first.close(finished=True)
    assert [json.loads(line)["error"] for line in (first.store.read(FAILED) or b"").splitlines()] == ["it is none"]
    second = ledger(root)
    second.open()
    assert second.recall(chunk) == (True, dict(enumerate(records)))
    second.close(finished=False)
    other = ledger(root, batch=3)
    other.open()
    assert other.recall(chunk)[0], "how it is run does not matter"
    other.close(finished=False)
    with pytest.raises(SettingError, match="other settings"):
        ledger(root, resolution=64).open()
    again = ledger(root, resolution=64)
    again.open(resume=False)
    assert again.recall(chunk) == (False, {})
    again.close(finished=False)


def test_a_killed_run_left_a_journal_in_a_folder_and_none_elsewhere(root: str, tmp_path: Path) -> None:
    one, two = pictures(tmp_path, "one", "two")
    first, chunk = ledger(root), Chunk("c", 0, (one, two))
    first.open()
    record = done(first.store, one)
    first.note(chunk, record)
    first.note(chunk, failed(two, "it is none"))
    assert (first.store.read(FAILED) is not None) == (not first.store.remote), "a failure shows at once where it can"
    first.close(finished=False)
    second = ledger(root)
    second.open()
    assert second.recall(chunk) == (False, {} if first.store.remote else {0: record, 1: failed(two, "it is none")})
    assert second.store.read(FAILED) is None, "the list is that of this run"
    second.close(finished=False)


def test_manifests_of_chunks_that_are_no_more_are_dropped(root: str, tmp_path: Path) -> None:
    (one,) = pictures(tmp_path, "one")
    for chunk, kept in ((Chunk("a/b", 0, (one,)), {"a%2Fb.jsonl"}), (Chunk("c", 0, (one,)), {"c.jsonl"})):
        books = ledger(root)
        books.open()
        books.commit(chunk, [done(books.store, one)])
        books.close(finished=True)
        assert names(books.store, "manifest") == kept
        assert not names(books.store, "tmp") and not names(books.store, "journal")
    books = ledger(root)
    books.open()
    books.close(finished=False)
    assert names(books.store, "manifest") == {"c.jsonl"}, "a run that was stopped drops nothing"


def test_folders_that_were_cleared_are_made_again(root: str, tmp_path: Path) -> None:
    (one,) = pictures(tmp_path, "one")
    books, chunk = ledger(root), Chunk("c", 0, (one,))
    for _ in range(2):
        books.open(resume=False)
        books.note(chunk, done(books.store, one))
        books.commit(chunk, [done(books.store, one)])
        books.close(finished=False)
        books._seen.clear()
    assert names(books.store, "manifest") == {"c.jsonl"}


def test_one_run_at_a_time(root: str) -> None:
    books = ledger(root)
    books.open()
    with pytest.raises(SettingError, match=r"another run is writing into .*process \d+ on "):
        ledger(root).open()
    books.close(finished=False)
    second = ledger(root)
    second.open()
    second.close(finished=True)
    assert second.store.read(".fathom/lock.json") is None


def test_a_remote_lock_ends_a_while_after_the_last_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    store = Store("memory://locked")
    for age, free in ((89.0, False), (90.5, True)):
        store.write(".fathom/lock.json", json.dumps({"owner": "process 1", "time": time.time() - age}).encode())
        books = Ledger(store, job(store.root))
        if not free:
            with pytest.raises(SettingError, match="process 1.*its lock ends after 90 seconds"):
                books.open()
            continue
        monkeypatch.setattr(manifest, "_STALE", 0.4)
        books.open()
        keeper = next(thread for thread in threading.enumerate() if thread.name == "fathom-lock")
        assert keeper.daemon, "a process that ends need not wait for it"
        before = json.loads(store.read(".fathom/lock.json") or b"{}")["time"]
        until = time.monotonic() + 10
        while json.loads(store.read(".fathom/lock.json") or b"{}")["time"] == before:
            assert time.monotonic() < until, "no sign of life"
            time.sleep(0.02)
        books.close(finished=False)
        assert not keeper.is_alive()
    for odd in (b"", b"[]", b"{}", b'{"owner": 1, "time": "x"}', b"\xff"):
        store.write(".fathom/lock.json", odd)
        books = Ledger(store, job(store.root))
        books.open()
        books.close(finished=False)
    fsspec.filesystem("memory").store.clear()


def test_a_lock_is_given_back_where_the_settings_differ(root: str) -> None:
    books = ledger(root)
    books.open()
    books.close(finished=False)
    for _ in range(2):
        with pytest.raises(SettingError, match="other settings"):
            ledger(root, chunk=7).open()


def test_one_manifest_in_the_place_of_several(root: str, tmp_path: Path) -> None:
    one, two, three = pictures(tmp_path, "one", "two", "three")
    books = ledger(root)
    books.open()
    books.commit(Chunk("a", 0, (one,)), [failed(one, "bad")])
    books.commit(Chunk("b", 1, (two,)), [done(books.store, two)])
    books.commit(Chunk("c", 2, (three,)), [done(books.store, three)])
    assert books.since(1) == ["b", "c"] and books.since(0) == ["a", "b", "c"]
    books.replace("film", 0, {"about": "a film"}, [done(books.store, one)], ["a", "b"])
    assert books.since(0) == ["film", "c"] and books.lines("film")[0]["about"] == "a film"
    assert books.lines("none") == []
    with pytest.raises(SettingError, match="both be written as c"):
        books.seen("c", 3, False)
    books.close(finished=True)
    assert names(books.store, "manifest") == {"film.jsonl", "c.jsonl"} and books.store.read(FAILED) is None


def test_a_run_without_books_leaves_nothing_but_its_folder(tmp_path: Path) -> None:
    (one,) = pictures(tmp_path, "one")
    out = tmp_path / "far" / "out"
    books, chunk = NoBooks(Store(str(out), beside=True), job(str(out))), Chunk("c", 1, (one,))
    books.open()
    assert out.is_dir()
    books.commit(chunk, [record := done(books.store, one)])
    books.commit(Chunk("b", 0, (one,)), [failed(one, "bad")])
    assert books.records == [failed(one, "bad"), record] and books.recall(chunk) == (False, {})
    books.note(chunk, record)
    books.close(finished=True)
    assert [p.name for p in out.iterdir()] == ["one_depth.png"]


def test_an_output_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for kind in (Ledger, NoBooks):
        out = str(tmp_path / "file" / "out")
        with pytest.raises(OutputError, match="cannot be made"):
            kind(Store(out), job(out)).open()
