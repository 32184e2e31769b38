"""What nodes show on themselves: small, cheap, and in nobody's way."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

import fathom
from fathom import Depth
from fathom.annotator import host
from fathom.annotator.host import comfy
from fathom.nodes import NODES, base
from fathom.signals.depth import depth_from_metres
from fathom.signals.thumbnail import thumbnails

# Nodes that give no picture, mask or depth.
BLIND = {"FathomPointCloud", "FathomMesh"}


@pytest.fixture
def temp(tmp_path, monkeypatch):
    """A temp folder, as inside ComfyUI."""
    monkeypatch.setattr(host, "temp_folder", lambda: tmp_path / "temp")
    return tmp_path / "temp"


@pytest.mark.parametrize("node", NODES, ids=lambda n: n.__name__)
def test_every_node_that_makes_something_to_see_shows_it(node):
    named = node.shown()
    assert bool(named) == (node.__name__ not in BLIND)
    assert set(named) <= set(node.outputs())
    assert node.FUNCTION == "run"


def test_a_single_result_is_shown_at_its_size_and_handed_on_whole(temp, scene):
    node = fathom.NODE_CLASS_MAPPINGS["FathomEstimateDepth"]
    plain = node().execute(scene, "fathom-tiny", 600)
    shown = getattr(node(), node.FUNCTION)(scene, "fathom-tiny", 600)
    assert isinstance(plain, tuple) and torch.equal(shown["result"][0], plain[0])
    (file,) = shown["ui"]["images"]
    assert file["type"] == "temp" and file["subfolder"] == ""
    with Image.open(temp / file["filename"]) as picture:
        assert picture.size == (800, 600), "ComfyUI writes the size of what it shows beneath it"
        seen = np.asarray(picture.convert("L").resize((80, 60)), dtype=float) / 255
    whole = torch.nn.functional.interpolate(plain[0][None, ..., 0], (60, 80), mode="bilinear", antialias=True)
    assert np.abs(seen - whole[0, 0].numpy()).mean() < 0.02


def test_outside_comfyui_the_plain_tuple_comes_back(scene):
    node = fathom.NODE_CLASS_MAPPINGS["FathomEstimateDepth"]
    image, depth = getattr(node(), node.FUNCTION)(scene, "fathom-tiny", 64)
    assert image.shape == (1, 64, 85, 3) and isinstance(depth, Depth)


def test_a_long_batch_shows_a_few_taken_evenly():
    ramp = torch.linspace(0, 1, 300)[:, None, None].expand(300, 4, 6)
    levels = [int(small[0, 0, 0]) for small in thumbnails(ramp, most=16)]
    assert len(levels) == 16 and levels[0] == 0 and levels[-1] == 255 and levels == sorted(set(levels))


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 4000, 3, 3), (1, 3, 5000, 4), (3, 20, 30, 1), (1, 9, 9)])
def test_any_shape_is_drawn(shape):
    for small in thumbnails(torch.rand(shape)):
        assert small.dtype == torch.uint8 and small.shape[2] == 3 and max(small.shape[:2]) <= 512


def test_metres_up_to_the_sky_are_drawn_by_inverse_distance():
    (small,) = thumbnails(depth_from_metres(torch.tensor([[[1.0, 2.0, 4.0, 100000.0]]])))
    assert small[0, :, 0].tolist() == [255, 127, 64, 0]


def test_what_cannot_be_seen_is_passed_over(temp):
    assert base.save_previews([None, "text", object()]) == []
    assert base.save_previews([torch.full((1, 4, 4), float("nan")), None])


def test_the_parts_of_a_bundle_are_shown_beside_each_other(temp, scene, tmp_path, monkeypatch):
    monkeypatch.setenv("FATHOM_BUNDLES", str(tmp_path / "bundles"))
    node = fathom.NODE_CLASS_MAPPINGS["FathomBundle"]
    shown = getattr(node(), node.FUNCTION)(scene, "fathom-tiny", "none", "none", 64)
    assert len(shown["ui"]["images"]) == 2  # the picture and its depth


def test_a_temp_folder_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch, scene):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(host, "temp_folder", lambda: tmp_path / "file")
    node = fathom.NODE_CLASS_MAPPINGS["FathomEstimateDepth"]
    assert isinstance(getattr(node(), node.FUNCTION)(scene, "fathom-tiny", 64), tuple)


def test_who_wants_no_previews_gets_none(temp, monkeypatch):
    monkeypatch.setattr(host, "_user_settings", lambda: {"Fathom.NodePreviews": False})
    assert base.save_previews([torch.rand(1, 4, 4, 3)]) == []
    monkeypatch.setenv("FATHOM_NODE_PREVIEWS", "1")
    assert base.save_previews([torch.rand(1, 4, 4, 3)])


def test_the_settings_are_read_again_only_when_they_were_changed(tmp_path, monkeypatch):
    file = tmp_path / "default" / "comfy.settings.json"
    file.parent.mkdir()
    file.write_text('{"Fathom.NodePreviews": false}')
    monkeypatch.setattr(host, "inside_comfyui", lambda: True)
    monkeypatch.setitem(sys.modules, "folder_paths", SimpleNamespace(get_user_directory=lambda: str(tmp_path)))
    before = comfy._read_settings.cache_info().misses
    assert [host.setting("NodePreviews", "FATHOM_NODE_PREVIEWS", 1) for _ in range(3)] == [0, 0, 0]
    assert comfy._read_settings.cache_info().misses == before + 1
    file.write_text('{"Fathom.NodePreviews": true}')
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
    assert host.setting("NodePreviews", "FATHOM_NODE_PREVIEWS", 0) == 1
    file.write_text("{broken")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
    assert host.setting("NodePreviews", "FATHOM_NODE_PREVIEWS", 1) == 1


def test_a_preview_of_a_large_picture_is_cheap(temp):
    class Largest(TorchDispatchMode):
        """Notes the size of the largest tensor that is newly made."""

        made = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().data_ptr() != given:
                self.made = max(self.made, result.numel())
            return result

    picture = torch.rand(1, 4096, 4096, 3)
    given = picture.untyped_storage().data_ptr()
    with Largest() as largest:
        assert base.save_previews([picture])
    assert 0 < largest.made <= 3 * base.WHOLE**2


# ------------------------------------------------------------------------------- while it runs


class Comfy:
    """As much of ComfyUI as progress needs, noting what it is sent."""

    def __init__(self):
        self.bars, self.texts = [], []
        self.client_id = "somebody"

    def install(self, monkeypatch, texts=True):
        note = self

        class ProgressBar:
            def __init__(self, total):
                self.total = total

            def update_absolute(self, value, total=None, preview=None):
                note.bars.append((value, self.total, preview))

        def send_progress_text(text, node_id, sid=None):
            note.texts.append((text, node_id, sid))

        management = SimpleNamespace(throw_exception_if_processing_interrupted=lambda: None)
        utils = SimpleNamespace(ProgressBar=ProgressBar)
        if texts:
            self.send_progress_text = send_progress_text
        context = SimpleNamespace(node_id="7")
        modules = {
            "comfy": SimpleNamespace(model_management=management, utils=utils),
            "comfy.model_management": management,
            "comfy.utils": utils,
            "folder_paths": SimpleNamespace(),
            "server": SimpleNamespace(PromptServer=SimpleNamespace(instance=self)),
            "comfy_execution": SimpleNamespace(),
            "comfy_execution.utils": SimpleNamespace(get_executing_context=lambda: context),
        }
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        return self


@pytest.fixture
def clock(monkeypatch):
    """A clock that tells a quarter of a second more each time."""
    ticks = count(0, 0.25)
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))


def test_a_long_batch_shows_what_came_last(monkeypatch, clock):
    comfy = Comfy().install(monkeypatch)
    drawn = []

    def draw():
        drawn.append(1)
        return torch.zeros(4, 6, 3, dtype=torch.uint8)

    with host.progress(8, "Net", "picture") as bar:
        for _ in range(8):
            bar.update(1, draw)
    assert [(done, total) for done, total, _ in comfy.bars] == [(n, 8) for n in range(1, 9)]
    previews = [preview for *_, preview in comfy.bars if preview]
    assert len(previews) == len(drawn) == 3, "every half second, and not for the last"
    assert comfy.bars[-1][2] is None and previews[0][0] == "JPEG" and previews[0][1].size == (6, 4)
    assert not comfy.texts


def test_a_download_tells_how_much_and_how_fast(monkeypatch, clock):
    comfy = Comfy().install(monkeypatch)
    with host.progress(40_000_000, "Downloading net.pt", "B") as bar:
        for _ in range(4):
            bar.update(10_000_000)
    assert comfy.texts[0] == ("Downloading net.pt: 20.0 of 40.0 MB, 40.0 MB/s", "7", "somebody")
    assert comfy.texts[-1][0] == "Downloading net.pt: 40.0 MB, done"


def test_a_cancelled_download_is_not_told_to_go_on(monkeypatch, clock):
    comfy = Comfy().install(monkeypatch)
    with pytest.raises(KeyboardInterrupt), host.progress(40_000_000, "Downloading net.pt", "B") as bar:
        for _ in range(2):
            bar.update(10_000_000)
        raise KeyboardInterrupt
    assert comfy.texts[-1][0] == "Downloading net.pt: stopped at 20.0 of 40.0 MB"


def test_an_older_comfyui_without_texts_is_served_in_silence(monkeypatch, clock):
    comfy = Comfy().install(monkeypatch, texts=False)
    with host.progress(0, "Downloading net.pt", "B") as bar:
        for _ in range(4):
            bar.update(10_000_000)
    assert not comfy.bars and not comfy.texts


def test_an_estimator_shows_the_last_picture_of_each_part(monkeypatch, scene):
    shown = []

    @contextmanager
    def progress(total, label, unit="it"):
        yield SimpleNamespace(update=lambda n=1, preview=None: shown.append(preview))

    est = fathom.load("fathom-tiny")
    monkeypatch.setattr(host, "progress", progress)
    monkeypatch.setattr(type(est), "_best_batch", lambda *_: 1)
    depth = est(torch.cat([scene, scene.flip(2)]), 64)
    assert len(shown) == 2
    last = shown[-1]()
    assert last.dtype == torch.uint8 and last.shape == (64, 85, 3)
    expected = (depth[1].to_image()[0] * 255).round().to(torch.uint8)
    assert torch.equal(last, expected)
