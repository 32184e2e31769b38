"""Mass annotation: many pictures from the shell, never lost, never done twice."""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import sys
import tarfile
import zlib
from dataclasses import dataclass, fields

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

sys.path.insert(0, os.path.dirname(__file__))
from mass_runs import annotate, killed_at, photo, results, tree

import fathom
from fathom.annotator.decode import decode
from fathom.mass import pipeline, sources, stores
from fathom.mass.job import Job, Wanted, chunks
from fathom.mass.run import load as load_job
from fathom.signals.files import load_depth


@pytest.fixture
def photos(tmp_path):
    """A folder of 14 photos in three folders, one file that is no picture, and one that is no candidate."""
    root = tmp_path / "photos"
    for i in range(14):
        photo(root / ("", "a", "a/b")[i % 3] / f"p{i:02}.{'png' if i % 4 else 'jpg'}", i)
    (root / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    (root / "notes.md").write_text("not a picture")
    return root


@pytest.fixture
def run(run):
    """A function that runs `fathom ARGUMENTS` in this process: (exit status, stdout, stderr in one line)."""

    def call(*arguments):
        status, out, err = run(*arguments)
        return status, out, " ".join(err.split())

    return call


# ------------------------------------------------------------------------------ what comes out


def test_a_folder_is_mirrored_and_its_failures_listed(run, photos, tmp_path):
    status, _, err = run("annotate", photos, "-o", tmp_path / "out", "-f", "npz", "--chunk", "4")
    assert status == 3 and "14 pictures annotated" in err and "1 failed" in err
    assert {"p00_depth.npz", "a/p01_depth.npz", "a/b/p02_depth.npz", "failed.jsonl"} <= results(tmp_path / "out")
    assert len(results(tmp_path / "out")) == 15
    failure = json.loads((tmp_path / "out" / "failed.jsonl").read_text())
    assert failure["name"] == "a/broken" and failure["error"].startswith("broken.jpg")
    # The numbers are those of the estimator called by itself, to the bit.
    expected = fathom.load("fathom-tiny")(Image.open(photos / "a" / "p01.png"))
    found = load_depth(tmp_path / "out" / "a" / "p01_depth.npz")
    assert torch.equal(found.values, expected.values) and found.kind == "ordinal"


def test_several_signals_from_one_decoding(photos, tmp_path, monkeypatch):
    read = []
    plain = sources.Reader.read
    monkeypatch.setattr(sources.Reader, "read", lambda self, item: read.append(item.name) or plain(self, item))
    report = annotate(photos / "a" / "b", tmp_path / "out", signals=["depth=fathom-tiny", "view=fathom-tiny:webp"])
    assert report.done == len(read) == 4
    assert {"p02_depth.png", "p02_depth.json", "p02_view.webp"} <= results(tmp_path / "out")
    view = np.asarray(Image.open(tmp_path / "out" / "p02_view.webp")).astype(float)
    depth = np.asarray(Image.open(tmp_path / "out" / "p02_depth.png")).astype(float)
    assert np.abs(view[..., 0] - (depth - 1) / 65534 * 255).max() <= 0.51  # lossless


@pytest.fixture
def two_slots(monkeypatch):
    """Fathom Tiny, whose one forward gives depth and normals, also under the id "both"; how often that is run is
    counted in `forwards`."""
    from types import SimpleNamespace

    from fathom.annotator.estimator import Estimator
    from fathom.mass import job, run
    from fathom.models import estimator as by_id

    made = SimpleNamespace(forwards=0)
    tiny = by_id("fathom-tiny")
    assert tiny.produces == ("depth", "normals")

    @dataclass(frozen=True)
    class Both(type(tiny)):
        def infer(self, network, pixels, fit, size, options):
            made.forwards += 1
            return super().infer(network, pixels, fit, size, options)

    known = {f.name: getattr(tiny, f.name) for f in fields(Estimator)}
    both = Both(**{**known, "id": "both", "name": "Both"})
    for module in (job, run):
        monkeypatch.setattr(module, "by_id", lambda id: both if id == "both" else by_id(id))
    return made


def test_slots_of_one_estimator_come_from_one_forward(photos, tmp_path, two_slots):
    """NAME=ESTIMATOR takes the slot called NAME where the estimator has one, else the main one."""
    signals = ["depth=both:npz", "normals=both:npz", "again=both:npz", "other=fathom-tiny:npz"]
    assert annotate(photos / "a" / "b", tmp_path / "out", signals=signals).done == 4
    assert two_slots.forwards == 4
    depth, again, other = (load_depth(tmp_path / "out" / f"p02_{n}.npz").values for n in ("depth", "again", "other"))
    assert torch.equal(depth, again) and torch.equal(depth, other)
    normals = fathom.load_signal(tmp_path / "out" / "p02_normals.npz")
    assert type(normals) is fathom.Normals and normals.vectors.shape[:3] == depth.shape


def test_forwards_are_shared_by_pictures_where_the_network_gives_several_results():
    from fathom.mass.network import _split

    result = {"depth": torch.arange(6).view(3, 2), "rest": (torch.arange(3), [torch.ones(3, 1)])}
    first, second = _split(result, [1, 2])
    assert first["depth"].tolist() == [[0, 1]] and second["depth"].tolist() == [[2, 3], [4, 5]]
    assert second["rest"][0].tolist() == [1, 2] and second["rest"][1][0].shape == (2, 1)


def test_a_way_of_several_forwards_of_its_own_runs_as_well(tmp_path, monkeypatch, tiny_annotator):
    from fathom.annotator import loading

    photo(tmp_path / "in" / "x.png", 3)
    tiny = tiny_annotator("leres-boost")
    monkeypatch.setattr(loading, "load", lambda *_: tiny)
    annotate(tmp_path / "in", tmp_path / "out", signals=["depth=leres-boost:npz"], cores=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = tiny(Image.open(tmp_path / "in" / "x.png"))
    torch.set_num_threads(threads)
    assert torch.equal(load_depth(tmp_path / "out" / "x_depth.npz").values, expected.values)


@pytest.mark.parametrize("format", ["png", "png16", "exr", "npz", "safetensors", "webp"])
def test_every_format(tmp_path, format):
    photo(tmp_path / "in" / "x.png", 3)
    annotate(tmp_path / "in", tmp_path / "out", format=format)
    suffix = {"png16": "png"}.get(format, format)
    path = tmp_path / "out" / f"x_depth.{suffix}"
    if format in ("png", "webp"):
        assert Image.open(path).size == (50, 50)
    else:
        assert load_depth(path).values.shape == (1, 50, 50)


@pytest.mark.parametrize("layout", ["tree", "shards"])
def test_every_map_of_a_decomposition_is_written_and_resumed(tmp_path, monkeypatch, tiny_annotator, layout):
    from fathom.annotator import loading

    photo(tmp_path / "in" / "x.png", 3)
    tiny = tiny_annotator("marigold-appearance")
    monkeypatch.setattr(loading, "load", lambda *_: tiny)
    how = {"signals": ["intrinsics=marigold-appearance:png"], "layout": layout}
    assert annotate(tmp_path / "in", tmp_path / "out", **how).done == 1
    maps = ("albedo", "roughness", "metallicity")
    if layout == "tree":
        assert results(tmp_path / "out") == {f"x_intrinsics_{name}.png" for name in maps}
        (tmp_path / "out" / "x_intrinsics_roughness.png").unlink()
    else:
        with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
            assert tar.getnames() == [f"x.intrinsics_{name}.png" for name in maps]
        (tmp_path / "out" / "000000.tar").unlink()
    again = annotate(tmp_path / "in", tmp_path / "out", **how)
    assert again.done == 1 and again.skipped == 0


def test_shards_hold_every_result_in_order_under_webdataset_keys(photos, tmp_path):
    annotate(photos, tmp_path / "out", layout="shards", chunk=6)
    assert results(tmp_path / "out") == {"000000.tar", "000001.tar", "000002.tar", "failed.jsonl"}
    names = []
    for shard in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                assert member.mtime == 0
                names.append(member.name)
                if member.name.endswith(".json"):
                    assert json.load(tar.extractfile(member))["fathom"] == "depth"
    keys = [n.removesuffix(".depth.png") for n in names if n.endswith(".png")]
    assert keys == sorted(keys, key=lambda k: (not k.startswith("a/"), not k.startswith("a/b"), k)) and len(keys) == 14
    assert names.count("a/p01.depth.json") == 1


def test_pictures_that_differ_in_their_suffix_alone_keep_it(tmp_path):
    photo(tmp_path / "in" / "x.png", 0)
    photo(tmp_path / "in" / "x.jpg", 1)
    photo(tmp_path / "in" / "y.jpg", 2)
    annotate(tmp_path / "in", tmp_path / "out", format="png")
    assert results(tmp_path / "out") == {"x.png_depth.png", "x.jpg_depth.png", "y_depth.png"}


def test_globs_and_lists(photos, tmp_path):
    annotate(f"{photos}/**/p0[1-4].*", tmp_path / "glob", format="png")
    assert results(tmp_path / "glob") == {f"{n}_depth.png" for n in ("a/p01", "a/b/p02", "p03", "a/p04")}
    (photos / "list.txt").write_text(f"# chosen\na/p01.png\n{photos}/p03.png\ngone.png\n")
    report = annotate(photos / "list.txt", tmp_path / "list", format="png")
    absolute = f"{photos}/p03_depth.png".lstrip("/")
    assert results(tmp_path / "list") == {"a/p01_depth.png", absolute, "failed.jsonl"} and report.failed == 1
    assert "gone" in (tmp_path / "list" / "failed.jsonl").read_text()


# ------------------------------------------------------------------------------ never lost, never twice


def test_a_second_run_does_nothing_and_a_lost_file_comes_back(photos, tmp_path):
    out = tmp_path / "out"
    annotate(photos, out)
    whole = tree(out)
    times = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    report = annotate(photos, out)
    assert (report.done, report.skipped, report.failed) == (0, 14, 1)
    assert tree(out) == whole and all(p.stat().st_mtime_ns == t for p, t in times.items())
    (out / "a" / "p01_depth.png").unlink()
    (out / "p03_depth.json").write_text("{}")
    report = annotate(photos, out)
    assert (report.done, report.skipped) == (2, 12) and tree(out) == whole


def test_damage_of_the_same_size_is_found_by_its_hash(photos, tmp_path):
    annotate(photos, tmp_path / "out")
    whole = tree(tmp_path / "out")
    path = tmp_path / "out" / "p03_depth.png"
    path.write_bytes(bytes(path.stat().st_size))
    assert annotate(photos, tmp_path / "out").done == 0
    assert annotate(photos, tmp_path / "out", verify=True).done == 1 and tree(tmp_path / "out") == whole


def test_new_changed_and_repaired_pictures_alone_are_done(photos, tmp_path):
    annotate(photos, tmp_path / "out", chunk=2)
    photo(photos / "a" / "p01.png", 77)
    photo(photos / "a" / "broken.jpg", 5)
    report = annotate(photos, tmp_path / "out", chunk=2)
    assert (report.done, report.skipped, report.failed) == (2, 13, 0)
    photo(photos / "zz.png", 8)
    report = annotate(photos, tmp_path / "out", chunk=2)
    assert 1 <= report.done <= 8 and report.done + report.skipped == 16
    annotate(photos, tmp_path / "fresh", chunk=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.parametrize(("layout", "moments"), [("tree", (5, 40)), ("shards", (23,))])
def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(photos, tmp_path, layout, moments):
    annotate(photos, tmp_path / "whole", layout=layout)
    for moment in moments:
        killed_at(moment, "annotate", photos, "-o", tmp_path / "out", "-f", "png16", "--chunk", "4", "--layout", layout)
        assert tree(tmp_path / "out") != tree(tmp_path / "whole")
    report = annotate(photos, tmp_path / "out", layout=layout)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    if layout == "tree":
        assert report.skipped > 0


def test_shared_forwards_give_the_same_bytes_at_every_run_and_are_fewer(photos, tmp_path):
    counted = []
    for out, threads, batch in (("one", 18, 4), ("two", 30, 4), ("single", 6, 1)):
        plain = pipeline.NetworkQueue.run

        def run(self, plain=plain):
            plain(self)
            counted.append(self.forwards)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline.NetworkQueue, "run", run)
            annotate(photos, tmp_path / out, batch=batch, chunk=50, threads=threads)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert counted[0] == counted[1] < counted[2] / 2
    for name in results(tmp_path / "one") - {"failed.jsonl"}:
        if name.endswith(".png"):
            a, b = (load_depth(tmp_path / k / name).values for k in ("one", "single"))
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_few_pictures_are_in_memory_at_once(tmp_path, monkeypatch):
    for i in range(40):
        photo(tmp_path / "in" / f"{i:03}.png", i, (32, 32))
    alive = {"now": 0, "most": 0}
    plain = pipeline.Engine._picture

    def watched(self, *arguments):
        alive["now"] += 1
        alive["most"] = max(alive["most"], alive["now"])
        try:
            return plain(self, *arguments)
        finally:
            alive["now"] -= 1

    monkeypatch.setattr(pipeline.Engine, "_picture", watched)
    assert annotate(tmp_path / "in", tmp_path / "out", threads=3, chunk=16).done == 40
    assert alive["most"] <= 3


def test_a_chunk_keeps_its_pictures_when_others_are_added():
    def ids(names):
        items = iter([sources.Item(n, n) for n in names])
        return [c.id for c in chunks(items, Job(("x",), "out", (), chunk=8))]

    names = [f"n{i:04}" for i in range(400)]
    before, after = ids(names), ids(sorted([*names, "n0100b", "n0300b"]))
    assert 20 < len(before) < 100 and len(set(before) - set(after)) <= 2


# ------------------------------------------------------------------------------ what can go wrong


def test_settings_that_cannot_be_are_told_before_anything_is_written(run, photos, tmp_path):
    cases = [
        ([photos, "-o", photos / "out"], "lies inside the source"),
        ([tmp_path / "nowhere" / "*.png", "-o", tmp_path / "o"], "there is no file or folder"),
        ([photos, photos / "a", "-o", tmp_path / "o"], "hold the same pictures"),
        ([photos, "-o", tmp_path / "o", "-s", "depth"], "name=estimator"),
        ([photos, "-o", tmp_path / "o", "-s", "r=upernet-convnext-tiny:exr"], "segmentation can be written as"),
        ([photos, "-o", tmp_path / "o", "-s", "a=fathom-tiny", "-s", "a=fathom-tiny"], "are called 'a'"),
        ([photos, "-o", tmp_path / "o", "-e", "marigold-lighting", "--video", "video"], "use --video frames"),
        ([photos, "-o", tmp_path / "o", "-e", "fathom-tony"], "Did you mean fathom-tiny"),
    ]
    for arguments, words in cases:
        status, _, err = run("annotate", *arguments)
        assert status == 1 and words in err and "Traceback" not in err, err
    assert not (tmp_path / "o").exists() and not (photos / "out").exists()


def test_an_unreadable_folder_is_told_or_listed(photos, tmp_path, monkeypatch):
    plain = os.scandir

    def denied(path):
        if os.path.basename(str(path)) == "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return plain(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(fathom.SettingError, match="cannot be read: Permission denied"):
        annotate(photos / "a" / "b", tmp_path / "out")
    report = annotate(photos, tmp_path / "out")
    assert report.failed == 2 and "cannot be listed: Permission denied" in (tmp_path / "out/failed.jsonl").read_text()


def test_an_option_goes_to_the_models_that_have_it_and_into_the_manifest(tmp_path, monkeypatch, tiny_annotator):
    from fathom.annotator import loading

    photo(tmp_path / "in" / "x.png", 3)
    load = loading.load
    zoe = tiny_annotator("zoedepth-n")
    monkeypatch.setattr(loading, "load", lambda e, *rest: zoe if e.id == "zoedepth-n" else load(e, *rest))
    out, how = tmp_path / "out", {"signals": ["metres=zoedepth-n:npz", "depth=fathom-tiny:npz"], "resolution": 64}
    assert annotate(tmp_path / "in", out, options=["flip_augmentation=false"], **how).done == 1
    told = json.loads((out / ".fathom" / "job.json").read_text())["signals"]
    assert told["metres"]["options"] == {"flip_augmentation": False} and "options" not in told["depth"]
    picture = Image.open(tmp_path / "in" / "x.png")
    expected = zoe(picture, 64, flip_augmentation=False).values
    torch.testing.assert_close(load_depth(out / "x_metres.npz").values, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(fathom.SettingError, match="signals.*--no-resume"):
        annotate(tmp_path / "in", out, **how)


def test_two_runs_into_one_output_and_other_settings_are_refused(photos, tmp_path):
    out = tmp_path / "out"
    annotate(photos, out)
    with pytest.raises(fathom.SettingError, match='format.*"png16".*"exr".*--no-resume'):
        annotate(photos, out, format="exr")
    assert annotate(photos, out, format="exr", resume=False).done == 14
    import filelock

    with filelock.FileLock(out / ".fathom" / "lock"):
        with pytest.raises(fathom.SettingError, match="another run is writing into"):
            annotate(photos, out, format="exr")


def test_a_full_disk_stops_the_run_and_the_same_command_goes_on(run, photos, tmp_path, monkeypatch):
    arguments = ("annotate", photos, "-o", tmp_path / "out", "-f", "png16", "--chunk", "4")
    plain, room = os.replace, [12]

    def full(*paths):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(*paths)

    monkeypatch.setattr(stores.os, "replace", full)
    status, _, err = run(*arguments)
    assert status == 1 and "the disk is full" in err and "run the same command again" in err
    monkeypatch.setattr(stores.os, "replace", plain)
    status, _, err = run(*arguments)
    assert status == 3 and " 0 were whole" not in err
    annotate(photos, tmp_path / "fresh")
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_a_source_that_is_still_written_is_listed(photos, tmp_path, monkeypatch):
    plain = stores.read

    def growing(place, *rest):
        data = plain(place, *rest)
        if place.endswith("p03.png"):
            with open(place, "ab") as file:
                file.write(b"more")
        return data

    monkeypatch.setattr(stores, "read", growing)
    report = annotate(photos, tmp_path / "out")
    assert report.failed == 2 and "changes while it is read" in (tmp_path / "out" / "failed.jsonl").read_text()


def test_an_error_of_ours_stops_the_run_and_is_raised(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.Engine, "_tasks", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        annotate(photos, tmp_path / "out")


# ------------------------------------------------------------------------------ decoding


def encoded(image, format="PNG", **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@pytest.mark.parametrize(("kind", "orientation"), [("TIFF", 1), *(("PNG", n) for n in range(1, 9))])
def test_sixteen_bits_of_colour_upright(kind, orientation):
    wide = np.random.default_rng(0).integers(0, 65535, (5, 7, 3)).astype(np.uint16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    small = Image.fromarray((wide >> 8).astype(np.uint8))
    expected = np.asarray(decode(encoded(small, exif=exif), "small"))
    data = cv2.imencode("." + kind.lower(), wide[..., ::-1])[1].tobytes()
    if kind == "PNG":
        body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
        data = data[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
    found = decode(data, "wide")
    levels = (found[0].numpy() * 65535).round().astype(np.uint16)
    assert np.array_equal(levels >> 8, expected) and sorted(levels.ravel()) == sorted(wide.ravel())


def test_colour_profiles_and_cmyk_become_srgb():
    grey = Image.new("RGB", (4, 4), (200, 30, 30))
    lab = ImageCms.createProfile("LAB")
    plain = decode(encoded(grey), "plain")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode(encoded(grey, icc_profile=srgb), "same").getpixel((0, 0)) == plain.getpixel((0, 0))
    cmyk = decode(encoded(grey.convert("CMYK"), "JPEG", quality=100), "cmyk")
    assert cmyk.mode == "RGB" and max(abs(a - b) for a, b in zip(cmyk.getpixel((0, 0)), (200, 30, 30), strict=True)) < 4
    # A profile that does not fit the picture is left out, not fatal.
    odd = ImageCms.ImageCmsProfile(lab).tobytes()
    assert decode(encoded(grey, icc_profile=odd), "odd").getpixel((0, 0)) == (200, 30, 30)
    swapped = _linear_profile(srgb)
    assert decode(encoded(grey, icc_profile=swapped), "linear").getpixel((0, 0)) != (200, 30, 30)


def _linear_profile(srgb):
    """The sRGB profile under another name with its curves made straight."""
    data = bytearray(srgb.replace(b"sRGB", b"line"))
    count = int.from_bytes(data[128:132], "big")
    for i in range(count):
        at = 132 + 12 * i
        if data[at : at + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            place = int.from_bytes(data[at + 4 : at + 8], "big")
            data[place : place + 12] = b"curv" + bytes(8)
    return bytes(data)


def test_animated_pictures_give_their_first_frame_and_damage_is_named():
    red, blue = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    for format in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(red, format, save_all=True, append_images=[blue])
        first = decode(data, "animated").convert("RGB")
        assert first.size == (8, 6) and first.getpixel((3, 3))[0] > 240
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "JPEG")
    for data, words in ((whole[:-900], "cannot be read"), (b"", "is empty"), (b"hello", "not a picture")):
        with pytest.raises(fathom.PictureError, match=words):
            decode(data, "x.jpg")


def test_huge_pictures_pass_and_absurd_ones_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    huge = encoded(Image.new("1", (20000, 10000)))
    assert decode(huge, "huge").size == (20000, 10000)
    with pytest.raises(fathom.PictureError, match="more than 256 megapixels"):
        decode(encoded(Image.new("1", (20000, 14000))), "absurd")


def test_the_precision_is_the_one_that_the_manifest_names(monkeypatch, tmp_path):
    monkeypatch.setenv("FATHOM_PRECISION", "fp16")
    for half, dtype in ((False, torch.float32), (True, torch.float16)):
        job = Job(("x",), str(tmp_path), (Wanted("depth", "fathom-tiny", "png"),), half=half)
        assert load_job(job)[1][0].dtype == dtype
        assert job.settings["precision"] == str(dtype).removeprefix("torch.")
