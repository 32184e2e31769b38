"""Odd entries of the sources cost themselves alone, and no result takes the name of another."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import tarfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from mass_runs import annotate, photo, results, tree

import fathom
from fathom.mass import pipeline, sources, stores


def png(tmp_path, number=0):
    return photo(tmp_path / f"one{number}.png", number, (24, 16)).read_bytes()


def tar(path, members, **how):
    with tarfile.open(path, "w", **how) as made:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return path


def failures(out):
    path = out / "failed.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def folder(tmp_path):
    """A folder with a first and a last good picture."""
    for n, name in enumerate(("a", "z")):
        photo(tmp_path / "in" / f"{name}.png", n, (24, 16))
    return tmp_path / "in"


def fifo(folder):
    os.mkfifo(folder / "m.png")


def listening(folder):
    os.chdir(folder)  # the name of a socket is short
    socket.socket(socket.AF_UNIX).bind("m.png")


ODD = {
    "a link to itself": (lambda f: (f / "m.png").symlink_to("m.png"), "Too many levels"),
    "a broken link": (lambda f: (f / "m.png").symlink_to("nowhere.png"), "a link to a file that is not there"),
    "a pipe": (fifo, "is a pipe"),
    "a pipe for a video": (lambda f: os.mkfifo(f / "m.mp4"), "is a pipe"),
    "a pipe for a tar": (lambda f: os.mkfifo(f / "m.tar"), "is a pipe"),
    "a socket": (listening, "is a socket"),
    "a name of 250 letters": (lambda f: (f / ("n" * 246 + ".png")).write_bytes((f / "a.png").read_bytes()), "too long"),
    "an empty tar": (lambda f: tar(f / "m.tar", []), "holds no picture"),
    "a broken table": (lambda f: (f / "m.parquet").write_bytes(b"PAR1"), "Parquet"),
    "no permission": (None, "Permission denied"),
}


@pytest.mark.skipif(os.name == "nt", reason="names and files of POSIX")
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_entry_costs_itself_alone(folder, tmp_path, monkeypatch, kind):
    make, words = ODD[kind]
    monkeypatch.chdir(tmp_path)
    if make is None:
        (folder / "m.png").write_bytes(b"?")
        plain = stores.read
        monkeypatch.setattr(stores, "read", lambda p, *r: _denied(p) if "m.png" in str(p) else plain(p, *r))
    elif kind == "a broken table":
        pytest.importorskip("pyarrow")
        make(folder)
    else:
        make(folder)
    report = annotate(folder, tmp_path / "out", format="png")
    assert (report.done, report.failed) == (2, 1)
    (failure,) = failures(tmp_path / "out")
    assert words in failure["error"] and "Traceback" not in failure["error"]
    # What failed left nothing behind, and the next run goes on.
    assert results(tmp_path / "out") == {"a_depth.png", "z_depth.png", "failed.jsonl"}
    assert annotate(folder, tmp_path / "out", format="png").skipped == 2


def _denied(path):
    raise PermissionError(13, "Permission denied", path)


@pytest.mark.parametrize(
    "error", [ValueError("?"), RuntimeError("bad"), KeyError("x"), MemoryError(), RecursionError()]
)
def test_whatever_a_decoder_raises_is_its_pictures_own(folder, tmp_path, monkeypatch, error):
    photo(folder / "m.png", 5, (24, 16))
    plain = sources.decode

    def decode(data, name):
        if name == "m.png":
            raise error
        return plain(data, name)

    monkeypatch.setattr(sources, "decode", decode)
    report = annotate(folder, tmp_path / "out", format="png")
    assert (report.done, report.failed) == (2, 1) and failures(tmp_path / "out")[0]["name"] == "m"


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="the disk takes any bytes as a name")
def test_names_that_are_not_utf8(folder, tmp_path):
    (folder / "list.txt").write_bytes(b"a.png\ncaf\xe9.png\n")
    with open(os.path.join(os.fsencode(folder), b"caf\xe9.png"), "wb") as file:
        file.write((folder / "a.png").read_bytes())
    expected = {"a_depth.png", "caf%E9_depth.png", "z_depth.png"}
    assert annotate(folder, tmp_path / "out", format="png").done == 3
    assert results(tmp_path / "out") == expected
    assert annotate(folder, tmp_path / "out", format="png").skipped == 3
    annotate(folder / "list.txt", tmp_path / "list", format="png")
    assert results(tmp_path / "list") == expected - {"z_depth.png"}
    data = png(tmp_path)
    members = [("one.png", data), ("caf\xe9.png", data), ("two.png", data)]
    path = tar(tmp_path / "b.tar", members, format=tarfile.GNU_FORMAT, encoding="latin-1")
    assert annotate(path, tmp_path / "tar", format="png").done == 3
    assert "b/caf%E9_depth.png" in results(tmp_path / "tar")
    shards = annotate(path, tmp_path / "shards", format="png", layout="shards")
    assert shards.done == 3


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "utf-8"])
def test_lists_in_the_encoding_that_their_first_bytes_tell(folder, tmp_path, encoding):
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    photo(folder / "größe.png", 3, (24, 16))
    (folder / "list.txt").write_bytes(mark + "a.png\r\ngröße.png\r\n# z.png\r\na.png\r\n".encode(encoding))
    assert annotate(folder / "list.txt", tmp_path / "out", format="png").done == 2
    assert results(tmp_path / "out") == {"a_depth.png", "größe_depth.png"}


def test_wrong_lines_of_a_list_are_told_as_they_are(folder, tmp_path):
    (folder / "list.txt").write_bytes(
        b"a.png\nb\0.png\nfoo://x/y.png\nfoo://x/y.tar\nnever.png\n..\nz.png\n" + b"x" * 70000
    )
    report = annotate(folder / "list.txt", tmp_path / "out", format="png")
    assert report.done == 2
    told = [f["error"] for f in failures(tmp_path / "out")]
    assert sum("holds a NUL" in t for t in told) == 1 and sum("foo" in t for t in told) == 2
    assert any("there is no such file" in t and "never.png" in t for t in told) and "gone" not in str(told)
    assert any("longer than" in t for t in told)


def test_companions_of_macos_are_passed_over(tmp_path):
    data = png(tmp_path)
    double = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)
    members = [(name, d) for k in range(3) for name, d in ((f"./._{k}.png", double), (f"./{k}.png", data))]
    path = tar(tmp_path / "mac.tar", [*members, ("__MACOSX/0.png", double), ("a/.hidden.png", double)])
    report = annotate(path, tmp_path / "out", format="png")
    assert (report.done, report.failed) == (3, 0)


def test_nothing_to_annotate_is_said(run, folder, tmp_path, caplog):
    empty = tmp_path / "empty"
    (empty / "deep").mkdir(parents=True)
    (empty / "notes.md").write_text("no picture")
    (empty / "list.txt").write_text("# nothing\n\n")
    for source in (empty, empty / "list.txt", f"{folder}/*.jpg"):
        status, _, err = run("annotate", source, "-o", tmp_path / "out")
        assert status == 1 and "there is no picture in" in " ".join(err.split())
        assert not (tmp_path / "out").exists()
    assert annotate([empty, folder], tmp_path / "out", format="png").done == 2
    assert "empty holds no picture" in caplog.text


def test_results_that_would_have_one_name_are_refused_before_anything_runs(folder, tmp_path):
    photo(tmp_path / "other" / "a.png", 7)
    (tmp_path / "list.txt").write_text("in/a.png\n../" + tmp_path.name + "/in/a.png\n./in/a.png\n")
    (folder / "list.txt").write_text("a.png\n../a.png\n")
    tar(tmp_path / "a.tar", [("x.png", png(tmp_path))])
    photo(tmp_path / "deep" / "a" / "x.png", 1)
    cases = [
        [folder / "a.png", tmp_path / "other"],
        [f"{folder}/*.png", f"{tmp_path}/other/*.png"],
        [folder / "a.png", tmp_path / "other" / "a.png"],
        [tmp_path / "a.tar", tmp_path / "deep"],
        [folder / "list.txt"],
    ]
    for case in cases:
        with pytest.raises(fathom.SettingError, match="would both be written as a"):
            annotate(case, tmp_path / "out", format="png")
        assert not (tmp_path / "out").exists()
    # The same file by two lines is one picture, under two names two.
    assert annotate(tmp_path / "list.txt", tmp_path / "out", format="png").done == 2


def test_pictures_and_containers_of_one_folder_all_keep_their_results(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for n, name in enumerate(("x.png", "x.jpg", "X.bmp", "x.png.gif", "data.png", "data/s.png")):
        photo(root / name, n, (24, 16))
    tar(root / "data.tar", [("s.png", png(tmp_path))])
    report = annotate(root, tmp_path / "out", format="png")
    assert (report.done, report.failed) == (7, 0)
    assert results(tmp_path / "out") == {
        *(f"{n}_depth.png" for n in ("x.png", "x.jpg", "X.bmp", "x.png.gif", "data", "data/s", "data.tar/s"))
    }


def test_members_of_one_key_all_have_results(tmp_path):
    pictures = [png(tmp_path, n) for n in range(5)]
    names = ["2024.01.png", "2025.01.png", "2024.02.png", "a.png", "b.png", "a.jpg", "A.webp"]
    path = tar(tmp_path / "t.tar", [(n, pictures[i % 5]) for i, n in enumerate(names)])
    for layout, count in (("tree", 7), ("shards", 1)):
        out = tmp_path / layout
        report = annotate(path, out, format="png", layout=layout)
        assert (report.done, report.failed) == (7, 0) and len(results(out)) == count
    with tarfile.open(tmp_path / "shards" / "t.tar") as made:
        assert len(set(made.getnames())) == 7
    twice = tar(tmp_path / "twice.tar", [("a.png", pictures[0]), ("a.png", pictures[1]), ("a.png", pictures[2])])
    report = annotate(twice, tmp_path / "twice", format="png")
    assert (report.done, report.failed) == (2, 1) and "in the tar twice" in failures(tmp_path / "twice")[0]["error"]


def test_names_that_only_case_tells_apart_are_refused_where_the_disk_sees_none(tmp_path, monkeypatch):
    photo(tmp_path / "in" / "D" / "a.png", 1)
    photo(tmp_path / "in" / "d" / "A.png", 2)
    monkeypatch.setattr(sources, "_folds_case", lambda out: True)
    with pytest.raises(fathom.SettingError, match="would both be written"):
        annotate(tmp_path / "in", tmp_path / "out", format="png")
    monkeypatch.undo()
    if not sources._folds_case(str(tmp_path)):
        assert annotate(tmp_path / "in", tmp_path / "out", format="png").done == 2


@pytest.mark.parametrize("names", [("depth", "far_depth"), ("view", "view_two")])
def test_names_of_signals_that_could_meet_are_refused(folder, tmp_path, names):
    with pytest.raises(fathom.SettingError, match="could give files of two pictures one name"):
        annotate(folder, tmp_path / "out", signals=[f"{n}=fathom-tiny" for n in names], format="png")
    assert annotate(folder, tmp_path / "o", signals=[f"{n}=fathom-tiny" for n in names], layout="shards").done == 2


def test_a_numbered_tar_and_loose_pictures_are_not_written_into_one(tmp_path):
    tar(tmp_path / "000000.tar", [("x.png", png(tmp_path))])
    photo(tmp_path / "in" / "y.png", 1)
    with pytest.raises(fathom.SettingError, match=r"would both be 000000\.tar"):
        annotate([tmp_path / "000000.tar", tmp_path / "in"], tmp_path / "out", layout="shards")


def test_a_tree_of_a_thousand_folders_is_walked(tmp_path, monkeypatch):
    def scan(folder):
        last = folder.count("/d") == 1500
        return [stores.Entry("x.png", f"{folder}/x.png", False) if last else stores.Entry("d", f"{folder}/d", True)]

    monkeypatch.setattr(stores, "scan", scan)
    monkeypatch.setattr(stores, "is_folder", lambda location: True)
    (found,) = sources.items(["/top"])
    assert found.name == "d/" * 1500 + "x"


# ------------------------------------------------------------------------------ books of another kind


@pytest.mark.parametrize("text", ["null", "[]", "5", '"x"', "{", "[" * 100_000, '{"name": "a"}', "\xff"])
@pytest.mark.parametrize("book", ["manifest", "job", "record"])
def test_what_is_no_manifest_is_done_again_and_told_once(folder, tmp_path, caplog, text, book):
    out = tmp_path / "out"
    annotate(folder, out)
    whole = tree(out)
    for path in (out / ".fathom" / "manifest").iterdir() if book != "job" else [out / ".fathom" / "job.json"]:
        lines = path.read_bytes().splitlines(keepends=True)
        data = text.encode("latin-1") + b"\n"
        path.write_bytes(data if book != "record" else b"".join([lines[0], data, *lines[2:]]))
    if book == "job" and text.startswith('{"'):
        with pytest.raises(fathom.SettingError, match="other settings"):
            annotate(folder, out)
        return
    report = annotate(folder, out)
    assert report.done == (0 if book == "job" else 2) and tree(out) == whole
    # A JSON object may be the head of a manifest of other settings.
    silent = book == "manifest" and text.startswith('{"')
    assert caplog.text.count("is not what a run of Fathom writes") == (0 if silent else 1)


def test_a_manifest_that_names_files_elsewhere_is_none(folder, tmp_path):
    out = tmp_path / "out"
    annotate(folder, out)
    for path in (out / ".fathom" / "manifest").iterdir():
        path.write_text(path.read_text().replace("a_depth.png", "../a_depth.png"))
    assert annotate(folder, out).done >= 1


# ------------------------------------------------------------------------------ memory


def test_memory_that_runs_out_on_a_processor_halves_and_then_fails_the_one_picture(tmp_path, monkeypatch):
    from fathom.mass.network import NetworkQueue

    for n in range(6):
        photo(tmp_path / "in" / f"p{n}.png", n, (64, 48))
    photo(tmp_path / "in" / "wide.png", 9, (128, 48))
    plain, groups = NetworkQueue._forward, []

    def forward(self, requests):
        groups.append(len(requests))
        if len(requests) > 2 or requests[0].x.shape[-1] > 1.5 * requests[0].x.shape[-2]:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
        return plain(self, requests)

    monkeypatch.setattr(pipeline.NetworkQueue, "_forward", forward)
    report = annotate(tmp_path / "in", tmp_path / "out", batch=4, format="png", chunk=50)
    assert report.done == 6 and report.failed == 1 and max(groups) == 4 and 2 in groups
    assert "memory" in failures(tmp_path / "out")[0]["error"]


def test_what_failed_for_memory_is_let_go_before_the_next_try():
    import gc
    import threading
    import weakref

    import torch

    from fathom.mass.network import NetworkQueue, Queued, Ticket, Window

    kept, alive, window = [], [], Window(2)

    class Activation(torch.nn.Module):
        pass

    def network(x):
        big = Activation()
        alive.append(sum(ref() is not None for ref in kept))
        kept.append(weakref.ref(big))
        if len(x) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return x

    queue = NetworkQueue(2)
    made = []

    def ask(number):
        made.append(Queued(queue, network, Ticket(window, number))(torch.ones(1, 1, 2, 2)))

    askers = [threading.Thread(target=ask, args=(n,)) for n in range(2)]
    for asker in askers:
        asker.start()

    def stop():
        for asker in askers:
            asker.join()
        queue.stop()

    threading.Thread(target=stop).start()
    gc.disable()
    try:
        queue.run()
    finally:
        gc.enable()
    assert len(made) == 2 and alive == [0, 0, 0]
