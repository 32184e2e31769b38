"""The host: what it lists, names, keeps and says, outside ComfyUI and inside a stand-in for it."""

from __future__ import annotations

import multiprocessing
import os
import sys
import types
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import fathom
from fathom.annotator import host
from fathom.annotator.host.comfy import ComfyHost
from fathom.annotator.host.plain import PlainHost
from fathom.annotator.host.protocol import Host


@pytest.fixture
def comfy(tmp_path, monkeypatch):
    """As inside ComfyUI: its folders lie under tmp_path."""
    paths: Any = types.ModuleType("folder_paths")
    for name in ("input", "output", "temp", "user"):
        (tmp_path / name).mkdir()
        setattr(paths, f"get_{name}_directory", lambda name=name: str(tmp_path / name))
    paths.get_annotated_filepath = lambda name: str(tmp_path / "input" / name)
    paths.get_save_image_path = lambda prefix, root, *size: (root, prefix, 1, "", prefix)
    manager = types.ModuleType("comfy.model_management")
    for name, module in {"folder_paths": paths, "comfy": types.ModuleType("comfy"), manager.__name__: manager}.items():
        monkeypatch.setitem(sys.modules, name, module)
    return tmp_path


def test_one_host_or_the_other(comfy, monkeypatch):
    assert isinstance(host.current(), ComfyHost) and host.current() is host.current()
    monkeypatch.delitem(sys.modules, "folder_paths")
    assert isinstance(host.current(), PlainHost)
    wanted = {name for name in vars(Host) if not name.startswith("_")}
    assert wanted <= set(dir(ComfyHost)) & set(dir(PlainHost))


def test_a_listing_leaves_out_what_it_cannot_look_at(comfy):
    folder = comfy / "input"
    for name in ("b.PNG", "a.png", "text.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "broken.png").symlink_to(folder / "nowhere")
    os.close(os.open(os.fsencode(folder) + b"/odd\xff.png", os.O_CREAT))
    assert host.input_files((".png",)) == ["a.png", "b.PNG"]
    for entry in folder.iterdir():
        entry.rmdir() if entry.is_dir() else entry.unlink()
    folder.rmdir()
    assert host.input_files((".png",)) == []


@pytest.mark.parametrize("name", ["none.png", "loop.png", "a\0b.png", "x" * 5000])
def test_a_file_that_is_none_is_told(comfy, name):
    (comfy / "input" / "loop.png").symlink_to(comfy / "input" / "loop.png")
    with pytest.raises(fathom.PictureError, match="there is no file"):
        host.input_file(name)


@pytest.mark.parametrize("value", ["abc", "nan", "inf", "1e999", "[1]"])
def test_no_setting_takes_a_node_away(monkeypatch, value):
    monkeypatch.setenv("FATHOM_BUNDLE_LIMIT", value)
    node = fathom.NODE_CLASS_MAPPINGS["FathomBundle"]
    limit = node.INPUT_TYPES()["optional"]["limit_gb"][1]["default"]
    assert limit == 20
    with pytest.raises(fathom.SettingError, match="FATHOM_BUNDLE_LIMIT must be a number"):
        getattr(node(), node.FUNCTION)(torch.zeros(1, 4, 4, 3), "none", "none", "none")


def test_a_settings_file_of_any_content_is_passed_over(comfy):
    file = comfy / "user" / "default" / "comfy.settings.json"
    file.parent.mkdir()
    for number, text in enumerate(("", "[" * 100_000, "null", '{"Fathom.KeepLoaded": [1]}')):
        file.write_text(text)
        os.utime(file, ns=(number, number))
        assert host.shown_setting("KeepLoaded", "FATHOM_NONE", 3) == 3


def test_memory_is_what_psutil_says():
    assert abs(host.free_memory(torch.device("cpu")) - psutil.virtual_memory().available) < 2**32


def test_temporary_files_of_a_node_stay_few(comfy, monkeypatch):
    nodes = iter(["1"] * 100 + ["2"] * 3)
    monkeypatch.setattr(ComfyHost, "running_node", lambda self: next(nodes))
    monkeypatch.setattr(host, "KEEP_PER_NODE", 5)
    monkeypatch.setattr(host, "_kept", [])
    saved = [host.save_temp(b"x", comfy / "temp", ".bin")["filename"] for _ in range(103)]
    assert {p.name for p in (comfy / "temp").iterdir()} == {*saved[95:100], *saved[100:]}


def test_temporary_files_of_all_nodes_stay_few(comfy, monkeypatch):
    nodes = iter(range(50))
    monkeypatch.setattr(ComfyHost, "running_node", lambda self: str(next(nodes)))
    monkeypatch.setattr(host, "KEEP_IN_ALL", 7)
    monkeypatch.setattr(host, "_kept", [])
    saved = [host.save_temp(b"x", comfy / "temp", ".bin")["filename"] for _ in range(50)]
    assert {p.name for p in (comfy / "temp").iterdir()} == set(saved[-7:])


def test_names_are_taken_when_they_are_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [host.output_file("deep/r", ".exr")[1] for _ in range(3)]
    assert names == ["deep/r_00001_.exr", "deep/r_00002_.exr", "deep/r_00003_.exr"]
    (tmp_path / "deep" / "r_00006_.exr").write_bytes(b"")
    assert host.output_file("deep/r", ".exr", count=3)[1] == "deep/r_00007_.exr", "three in a row are free from 7 on"
    assert host.output_file("deep/r", ".exr")[1] == "deep/r_00004_.exr", "what was tried is free again"
    assert host.output_file("n%batch_num%", ".png")[1] == "n0_00001_.png"
    assert host.output_file("m%batch_num%", ".png", count=2)[1] == "m%batch_num%_00001_.png"
    assert {p.name for p in tmp_path.glob("m*")} == {"m0_00001_.png", "m1_00002_.png"}


def test_names_are_free_again_where_nothing_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, _ = host.output_file("n%batch_num%", ".png", count=3)
    with pytest.raises(ZeroDivisionError), host.released_on_error(first, 3):
        (tmp_path / "n0_00001_.png").write_bytes(b"written before the error")
        1 / 0  # noqa: B018
    assert [p.name for p in tmp_path.iterdir()] == ["n0_00001_.png"]


@pytest.mark.parametrize("prefix", ["../x", "a\0b", "/etc/x"])
def test_a_prefix_that_is_no_name_is_refused(tmp_path, monkeypatch, prefix):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fathom.SettingError, match="prefix"):
        host.output_file(prefix, ".png")


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(fathom.FathomError, match="nothing can be written"):
        host.output_file("file/x", ".png")


def _save_many(folder: str, gate: Any) -> None:
    os.chdir(folder)
    gate.wait()
    for _ in range(100):
        Path(host.output_file("race/r", ".bin")[0]).write_bytes(b"x")


def test_two_processes_never_get_the_same_name(tmp_path):
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(2)
    workers = [context.Process(target=_save_many, args=(str(tmp_path), gate)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    files = list((tmp_path / "race").iterdir())
    assert len(files) == 200 and all(file.read_bytes() == b"x" for file in files)
