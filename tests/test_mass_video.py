"""Every frame that FFmpeg decodes, from start to end, whatever the container tells of it."""

from __future__ import annotations

import enum
import json
import os
import random
import sys
import types
from fractions import Fraction

import av
import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(__file__))
from mass_runs import annotate, photo, results

import fathom
from fathom.mass import sources, video

COUNT = 45


def film(path, codec, container=None, pix="yuv420p", size=(64, 48), count=COUNT, **options):
    """A video of `count` frames that all differ."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", format=container) as made:
        try:
            stream = made.add_stream(codec, rate=25)
        except av.error.FFmpegError:
            pytest.skip(f"this FFmpeg does not write {codec}")
        stream.width, stream.height = size
        stream.pix_fmt, stream.options, stream.gop_size = pix, {k: str(v) for k, v in options.items()}, 12
        for n in range(count):
            width, height = size
            array = np.full((height, width, 3), 5 * n % 256, np.uint8)
            array[:, n % 60 : n % 60 + 4] = 255
            array[:6] = noise.integers(0, 255, (6, width, 3))
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(format=pix)
            frame.pts, frame.time_base = n, Fraction(1, 25)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return path


def decoded(path):
    """What FFmpeg decodes from start to end."""
    with av.open(str(path)) as opened:
        return [f.to_ndarray(format="rgb24") for f in opened.decode(opened.streams.video[0])]


KINDS = [
    ("x.ts", "mpeg2video", {"bf": 2}),
    ("x.ts", "libx264", {"bf": 3}),
    ("x.m2ts", "libx264", {"container": "mpegts", "bf": 3}),
    ("x.mts", "libx264", {"container": "mpegts"}),
    ("x.avi", "libx264", {"bf": 3}),
    ("x.avi", "mpeg4", {"bf": 2}),
    ("x.mkv", "libx264", {"bf": 3}),
    ("x.mp4", "libx264", {"bf": 3}),
    ("x.mov", "mpeg4", {}),
    ("x.webm", "libvpx-vp9", {"cpu-used": 8, "deadline": "realtime"}),
    ("x.h264", "libx264", {"container": "h264", "bf": 3}),
    ("x.mpg", "mpeg1video", {"bf": 2}),
    ("x.vob", "mpeg2video", {}),
    ("x.flv", "flv", {}),
    ("x.3gp", "mpeg4", {}),
    ("x.wmv", "wmv2", {}),
    ("x.mxf", "mpeg2video", {}),
]


@pytest.mark.parametrize(("name", "codec", "how"), KINDS, ids=lambda v: v if isinstance(v, str) else "")
def test_every_frame_in_order_backwards_and_anyhow(tmp_path, monkeypatch, name, codec, how):
    path = film(tmp_path / name, codec, **how)
    expected = decoded(path)
    items = list(sources.items([str(path)]))
    assert len(items) == len(expected) >= COUNT - 1 and all(i.kind == "frame" for i in items)
    monkeypatch.setattr(video.Frames, "FAR", 5)
    monkeypatch.setattr(video.Frames, "NEAR", 3)
    monkeypatch.setattr(video.Frames, "KEEP", 0)
    monkeypatch.setattr(video.Frames, "LEAST", 2)
    anyhow = random.Random(0).sample(range(len(items)), 12)
    for order in (range(len(items)), range(len(items) - 1, len(items) - 20, -1), anyhow, range(30, len(items))):
        reader = sources.Reader()
        for n in order:
            assert np.array_equal(reader.read(items[n]).image[0], expected[n]), n


def test_a_seek_that_lands_elsewhere_is_not_believed(tmp_path, monkeypatch):
    path = film(tmp_path / "x.mkv", "libx264", bf=3)
    expected = decoded(path)
    items = list(sources.items([str(path)]))
    monkeypatch.setattr(video.Frames, "FAR", 5)
    plain = video._time
    monkeypatch.setattr(video, "_time", lambda frame: plain(frame) + 40)  # one frame off
    assert np.array_equal(sources.Reader().read(items[30]).image[0], expected[30])
    # Frames that decode otherwise after a seek are found by their hash.
    monkeypatch.setattr(video, "_time", plain)
    mark, calls = video._mark, []

    def failing(frame):
        calls.append(frame)
        return mark(frame) if len(calls) < 3 else "other"

    monkeypatch.setattr(video, "_mark", failing)
    reader = sources.Reader()
    for n in (30, 33, 35):
        assert np.array_equal(reader.read(items[n]).image[0], expected[n])


def test_a_damaged_packet_costs_its_own_frames(tmp_path):
    path = film(tmp_path / "x.avi", "mjpeg", pix="yuvj420p")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xd8", len(data) // 2)
    data[at : at + 600] = bytes(600)
    path.write_bytes(data)
    items = list(sources.items([str(path)]))
    assert COUNT - 3 <= len(items) < COUNT + 1
    assert annotate(path, tmp_path / "out", format="png").done == len(items)


def test_a_video_without_a_frame_is_listed(tmp_path):
    path = film(tmp_path / "x.mkv", "ffv1", pix="bgr0", count=1)
    data = path.read_bytes()
    photo(tmp_path / "in" / "a.png", 1)
    (tmp_path / "in" / "x.mkv").write_bytes(data[: len(data) // 3])
    report = annotate(tmp_path / "in", tmp_path / "out", format="png")
    assert (report.done, report.failed) == (1, 1)


@pytest.mark.parametrize("how", ["frames", "video"])
def test_a_video_of_changing_size_is_not_stretched(tmp_path, how):
    (tmp_path / "in").mkdir()
    wide = {"a": (64, 48), "b": (96, 64)}
    parts = [film(tmp_path / f"{n}.ts", "mpeg2video", size=size, count=6) for n, size in wide.items()]
    (tmp_path / "in" / "x.ts").write_bytes(b"".join(p.read_bytes() for p in parts))
    photo(tmp_path / "in" / "y.png", 3)
    sizes = {f.shape[:2] for f in decoded(tmp_path / "in" / "x.ts")}
    assert sizes == {(48, 64), (64, 96)}
    report = annotate(tmp_path / "in", tmp_path / "out", format="png", video=how, resolution=0)
    if how == "frames":
        assert report.failed == 0 and report.done == len(decoded(tmp_path / "in" / "x.ts")) + 1
        return
    (failure,) = [json.loads(x) for x in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert "frames change from 64x48 to 96x64" in failure["error"] and "--video frames" in failure["error"]
    assert results(tmp_path / "out") == {"y_depth.png", "failed.jsonl"} and report.failed == 1


def test_frames_without_times_become_a_video_of_even_ones(tmp_path):
    path = film(tmp_path / "x.h264", "libx264", container="h264", bf=3)
    assert annotate(path, tmp_path / "out", format="png", video="video").failed == 0
    with av.open(str(tmp_path / "out" / "x_depth.mkv")) as made:
        times = [frame.pts for frame in made.decode(made.streams.video[0])]
    assert len(times) == COUNT and len(set(np.diff(times))) <= 2 and min(np.diff(times)) > 0


def test_two_videos_of_one_name_are_refused_as_videos_only(tmp_path):
    (tmp_path / "in").mkdir()
    for suffix in ("mkv", "avi"):
        film(tmp_path / "in" / f"x.{suffix}", "mpeg4", count=3)
    with pytest.raises(fathom.SettingError, match="would both be written as x"):
        annotate(tmp_path / "in", tmp_path / "out", video="video", format="png")
    assert annotate(tmp_path / "in", tmp_path / "out", format="png").done == 6


@pytest.mark.parametrize("flags", [0x400, enum.Flag("Old", {"default": 1, "attached_pic": 0x400}).attached_pic])
def test_a_cover_is_known_by_its_flag_in_every_pyav(flags):
    """A flag without arithmetic in PyAV 14 to 16 at least, a whole number in 18."""
    plain = type(flags)(1)  # a default stream
    streams = [types.SimpleNamespace(disposition=flags), types.SimpleNamespace(disposition=plain)]
    container = types.SimpleNamespace(streams=types.SimpleNamespace(video=streams))
    assert video._stream(container) is streams[1]
