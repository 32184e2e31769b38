"""Mass annotation of what holds many pictures: videos, tar shards, Parquet tables, other file systems."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, os.path.dirname(__file__))
from mass_runs import annotate, killed_at, photo, results, tree

import fathom
from fathom.mass import sources
from fathom.signals.files import load_depth

TIMES = [0, 40, 90, 100, 300, 301, 350, 480]  # thousandths: a variable frame rate


def clip(path, times=TIMES, size=(64, 48), rotate=0):
    """A lossless video whose frame n is of grey level 20 n + 10, with a bright bar that moves."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = *size, "bgr0"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for n, pts in enumerate(times):
            array = np.full((size[1], size[0], 3), (20 * n + 10) % 256, np.uint8)
            array[:, 4 * n : 4 * n + 8] = 255
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = pts, Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    return path


@pytest.fixture
def video(tmp_path):
    """A folder with one video."""
    (tmp_path / "in").mkdir()
    return clip(tmp_path / "in" / "clip.mkv")


def levels(items):
    reader = sources.Reader()
    return [int(reader.read(i).image[0, 0, 63, 0]) for i in items]


def test_frames_come_at_any_order(video):
    items = list(sources.items([str(video)]))
    assert [i.at for i in items] == TIMES and items[3].name == "clip.mkv/000003"
    expected = [20 * n + 10 for n in range(8)]
    assert levels(items) == expected
    order = [5, 0, 7, 1, 6, 2]
    assert levels([items[i] for i in order]) == [expected[i] for i in order]


def test_a_video_becomes_a_sequence(video, tmp_path):
    report = annotate(video.parent, tmp_path / "out", format="exr", chunk=3)
    assert report.done == 8
    assert {f"clip.mkv/{n:06}_depth.exr" for n in range(8)} == results(tmp_path / "out")
    expected = fathom.load("fathom-tiny")(sources.Reader().read(next(sources.items([str(video)]))).image)
    found = load_depth(tmp_path / "out" / "clip.mkv" / "000000_depth.exr")
    np.testing.assert_array_equal(found.values, expected.values)
    assert annotate(video.parent, tmp_path / "out", format="exr", chunk=3).skipped == 8


@pytest.mark.parametrize(("format", "kind"), [("png", "gray"), ("png16", "gray16le")])
def test_a_video_becomes_a_video_of_the_same_times_that_does_not_flicker(video, tmp_path, format, kind):
    photo(video.parent / "still.png", 1)
    report = annotate(video.parent, tmp_path / "out", format=format, video="video", chunk=3)
    assert report.done == 9
    still = {"still_depth.png"} | ({"still_depth.json"} if format == "png16" else set())
    assert results(tmp_path / "out") == {"clip_depth.mkv"} | still
    with av.open(str(tmp_path / "out" / "clip_depth.mkv")) as film:
        stream = film.streams.video[0]
        frames = list(film.decode(stream))
    assert [round(float(f.pts * f.time_base) * 1000) for f in frames] == TIMES
    assert frames[0].format.name == kind
    # Every frame between the same two ends.
    annotate(video, tmp_path / "raw", format="npz")
    values = np.stack([load_depth(p).values[0] for p in sorted((tmp_path / "raw" / "clip.mkv").glob("*.npz"))])
    most = 65535 if format == "png16" else 255
    expected = (values - values.min()) / (values.max() - values.min()) * most
    found = np.stack([f.to_ndarray() for f in frames]).astype(float)
    assert np.abs(found - expected).max() <= 1.1
    whole = tree(tmp_path / "out")
    again = annotate(video.parent, tmp_path / "out", format=format, video="video", chunk=3)
    assert (again.done, again.skipped) == (0, 9) and tree(tmp_path / "out") == whole
    (tmp_path / "out" / "clip_depth.mkv").unlink()
    assert annotate(video.parent, tmp_path / "out", format=format, video="video", chunk=3).done == 8
    assert tree(tmp_path / "out") == whole


@pytest.fixture
def film_estimator(monkeypatch, tiny_annotator):
    """The shell's "video-depth-anything-small" is its tiny variant."""
    from fathom.annotator import loading

    tiny = tiny_annotator("video-depth-anything-small")
    load = loading.load
    monkeypatch.setattr(loading, "load", lambda e, *rest, **how: tiny if e.id == tiny.estimator.id else load(e, *rest))
    return tiny


@pytest.mark.parametrize("layout", ["tree", "shards"])
def test_an_estimator_of_films_sees_a_video_as_one(tmp_path, film_estimator, layout):
    (tmp_path / "in").mkdir()
    clip(tmp_path / "in" / "a.mkv", [40 * n for n in range(34)], (32, 24))
    clip(tmp_path / "in" / "b.mkv", [40 * n for n in range(3)], (40, 24))
    signals = ["depth=video-depth-anything-small:npz", "quick=fathom-tiny:npz"]
    report = annotate(tmp_path / "in", tmp_path / "out", signals=signals, layout=layout, chunk=7)
    assert (report.done, report.failed) == (37, 0)
    if layout == "shards":
        assert results(tmp_path / "out") == {"000000.tar", "000001.tar"}
    else:
        assert len(results(tmp_path / "out")) == 74
        reader = sources.Reader()
        frames = [reader.read(i).image for i in sources.items([str(tmp_path / "in" / "a.mkv")])]
        expected = film_estimator(torch.cat([torch.as_tensor(frame) for frame in frames])).values
        found = [load_depth(p).values[0] for p in sorted((tmp_path / "out" / "a.mkv").glob("*_depth.npz"))]
        torch.testing.assert_close(torch.stack(found), expected, rtol=1e-3, atol=1e-4)
    whole = tree(tmp_path / "out")
    again = annotate(tmp_path / "in", tmp_path / "out", signals=signals, layout=layout, chunk=7)
    assert (again.done, again.skipped) == (0, 37) and tree(tmp_path / "out") == whole
    if layout == "tree":
        (tmp_path / "out" / "b.mkv" / "000001_depth.npz").unlink()
        once_more = annotate(tmp_path / "in", tmp_path / "out", signals=signals, layout=layout, chunk=7)
        # A frame needs its film.
        assert (once_more.done, once_more.skipped) == (3, 34) and tree(tmp_path / "out") == whole


def test_a_single_picture_is_no_film_and_a_broken_film_is_told(tmp_path, film_estimator, monkeypatch):
    photo(tmp_path / "in" / "still.png", 1)
    clip(tmp_path / "in" / "a.mkv", [40 * n for n in range(6)], (32, 24))
    reading = sources.Reader.read

    def read(self, item):
        picture = reading(self, item)
        return replace(picture, image=picture.image[:, :20]) if item.name.endswith("000004") else picture

    monkeypatch.setattr(sources.Reader, "read", read)
    signals = ["depth=video-depth-anything-small:npz"]
    assert annotate(tmp_path / "in", tmp_path / "out", signals=signals).failed == 7
    listed = (tmp_path / "out" / "failed.jsonl").read_text()
    told = {record["name"]: record["error"] for record in map(json.loads, listed.splitlines())}
    assert "is a single picture: give it the video" in told["still"]
    assert "frame 5 is 32x20, but the film began with 32x24" in told["a.mkv/000005"]


@pytest.mark.parametrize("moment", [36, 44])  # among the frames, and after the video but before its manifest
def test_a_video_that_was_killed_ends_with_the_same_bytes(video, tmp_path, moment):
    annotate(video.parent, tmp_path / "whole", video="video", chunk=3)
    arguments = ("annotate", video.parent, "-o", tmp_path / "out", "-f", "png16", "--chunk", "3", "--video", "video")
    killed_at(moment, *arguments)
    annotate(video.parent, tmp_path / "out", video="video", chunk=3)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_damaged_video_is_listed_and_the_rest_goes_on(video, tmp_path):
    (video.parent / "bad.mp4").write_bytes(b"not a video")
    cut = video.parent / "cut.mkv"
    cut.write_bytes(video.read_bytes()[:-2000])
    report = annotate(video.parent, tmp_path / "out", format="png")
    told = (tmp_path / "out" / "failed.jsonl").read_text()
    assert report.done >= 8 and "not a video that FFmpeg can read" in told


def member(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path):
    """Two WebDataset shards of five samples, with captions, one damaged picture and one sample of two pictures."""
    folder = tmp_path / "web"
    folder.mkdir()
    number = 0
    for shard in range(2):
        with tarfile.open(folder / f"data-{shard}.tar", "w") as tar:
            for _ in range(5):
                data = photo(tmp_path / "one.jpg", number).read_bytes()
                member(tar, f"s{number:03}.jpg", b"broken" if number == 7 else data)
                member(tar, f"s{number:03}.txt", b"a caption")
                if number == 2:
                    member(tar, f"s{number:03}.second.png", photo(tmp_path / "two.png", 40).read_bytes())
                number += 1
    return folder


def test_tar_shards_become_tar_shards_of_the_same_names_and_keys(shards, tmp_path):
    report = annotate(shards, tmp_path / "out", format="png", layout="shards")
    assert (report.done, report.failed) == (10, 1)
    assert results(tmp_path / "out") == {"data-0.tar", "data-1.tar", "failed.jsonl"}
    with tarfile.open(tmp_path / "out" / "data-0.tar") as tar:
        keys = [n.split(".")[0] for n in tar.getnames()]
    assert keys == ["s000", "s001", "s002", "s002%2Esecond%2Epng", "s003", "s004"]
    assert json.loads((tmp_path / "out" / "failed.jsonl").read_text())["source"].endswith("data-1.tar#2")
    assert annotate(shards, tmp_path / "out", format="png", layout="shards").skipped == 10


def test_a_tar_becomes_a_tree(shards, tmp_path):
    annotate(shards / "data-0.tar", tmp_path / "out", format="npz")
    assert {"data-0/s000_depth.npz", "data-0/s002.second.png_depth.npz"} <= results(tmp_path / "out")
    photo(tmp_path / "same" / "s003.jpg", 3)
    expected = fathom.load("fathom-tiny")(Image.open(tmp_path / "same" / "s003.jpg"))
    found = load_depth(tmp_path / "out" / "data-0" / "s003_depth.npz")
    np.testing.assert_array_equal(found.values, expected.values)


def test_a_cut_or_packed_tar_is_told(shards, tmp_path):
    path = shards / "data-0.tar"
    path.write_bytes(path.read_bytes()[: 3 * 1024])
    report = annotate(shards, tmp_path / "out", format="png")
    assert report.failed >= 2 and report.done >= 4
    (tmp_path / "x.tar.gz").write_bytes(b"")
    with pytest.raises(fathom.SettingError, match="Decompress it"):
        annotate(tmp_path / "x.tar.gz", tmp_path / "out2")


def test_parquet_columns(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    data = [photo(tmp_path / "one.png", n).read_bytes() for n in range(7)]
    hub = [{"bytes": d, "path": f"{n}.png"} for n, d in enumerate(data)]
    hub[4] = {"bytes": None, "path": "elsewhere.png"}
    table = pa.table({"image": hub, "mask": data, "label": list(range(7))})
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "train.parquet", row_group_size=3)
    report = annotate(tmp_path / "in", tmp_path / "out", format="png")
    assert (report.done, report.failed) == (6, 1)
    assert "only named by its path" in (tmp_path / "out" / "failed.jsonl").read_text()
    assert {f"train/{n:08}_depth.png" for n in (0, 1, 2, 3, 5, 6)} < results(tmp_path / "out")
    assert annotate(tmp_path / "in", tmp_path / "out2", format="png", column="mask").done == 7
    report = annotate(tmp_path / "in", tmp_path / "out3", format="png", column="picture")
    assert report.failed == 1 and "image, mask" in (tmp_path / "out3" / "failed.jsonl").read_text()


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(fathom.FathomError, match=r"comfy-fathom\[parquet\]"):
        annotate(tmp_path / "x.parquet", tmp_path / "out")


def test_another_file_system_gives_the_local_results(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for n in range(5):
        path = photo(tmp_path / "in" / ("a" if n % 2 else "b") / f"p{n}.png", n)
        memory.pipe_file(f"/fathom-in/{path.relative_to(tmp_path / 'in').as_posix()}", path.read_bytes())
    memory.pipe_file("/fathom-in/bad.jpg", b"broken")
    (tmp_path / "in" / "bad.jpg").write_bytes(b"broken")
    annotate(tmp_path / "in", tmp_path / "out")
    report = annotate("memory://fathom-in", "memory://fathom-out")
    assert (report.done, report.failed) == (5, 1)
    for name in results(tmp_path / "out") - {"failed.jsonl"}:
        assert memory.cat_file(f"/fathom-out/{name}") == (Path(tmp_path) / "out" / name).read_bytes()
    assert b"bad.jpg" in memory.cat_file("/fathom-out/failed.jsonl")
    assert annotate("memory://fathom-in", "memory://fathom-out").skipped == 5
    assert not memory.exists("/fathom-out/.fathom/lock.json")
    memory.pipe_file("/fathom-out/.fathom/lock.json", json.dumps({"owner": "me", "time": 9e12}).encode())
    with pytest.raises(fathom.SettingError, match="another run is writing"):
        annotate("memory://fathom-in", "memory://fathom-out")
    memory.rm("/fathom-in", recursive=True)
    memory.rm("/fathom-out", recursive=True)
