"""Nodes whose network gives several things in one forward."""

from __future__ import annotations

import math

import pytest
import torch

from fathom import Depth, FathomError, SettingError, SignalError
from fathom.annotator import host
from fathom.nodes import estimate
from fathom.nodes.depth_io import FathomDepthFromGeometry
from fathom.nodes.one_pass import FathomDepthAnything3, FathomMoGe
from fathom.signals.depth import depth_from_metres

METRIC = "depth-anything-3-metric-large"


@pytest.fixture(autouse=True)
def through_tiny(monkeypatch, tiny_annotator):
    """Let the cache hand out tiny variants."""
    monkeypatch.setattr(estimate.cache, "take", lambda e, dtype=None: tiny_annotator(e.id))


@pytest.fixture
def told(monkeypatch):
    """What outputs that are not there say."""
    said = []
    monkeypatch.setattr(host, "blocked", said.append)
    return said


def lens(*focal, width=64):
    """A depth whose map is `width` pixels wide, with these focal lengths."""
    depth = depth_from_metres(torch.ones(len(focal), 48, width))
    return Depth(depth.values, "metric", focal=torch.tensor(focal))


def test_moge_gives_depth_and_normals_of_one_forward(tiny_annotator, scene):
    forwards = []
    handle = tiny_annotator("moge-2-small").network.register_forward_hook(lambda *_: forwards.append(1))
    image, normal_image, depth, normals = FathomMoGe().execute(scene, "moge-2-small", 48, num_tokens=20)
    handle.remove()
    assert len(forwards) == 1 and image.shape == normal_image.shape == (1, 48, 64, 3)
    assert depth.kind == "metric" and depth.focal is not None and normals.vectors.shape == (1, 48, 64, 3)
    opengl = FathomMoGe().execute(scene, "moge-2-small", 48, convention="directx", num_tokens=20)[1]
    torch.testing.assert_close(opengl[normals.valid][:, 1], 1 - normal_image[normals.valid][:, 1])


def test_depth_anything_3_tells_sky_where_it_knows_it(scene, told):
    _, depth, sky = FathomDepthAnything3().execute(scene, "depth-anything-3-mono-large", 48, process_res=56)
    assert depth.kind == "scale_inverse" and sky.shape == (1, 48, 64) and told == []
    _, depth, _ = FathomDepthAnything3().execute(scene, "depth-anything-3-small", 48, process_res=56)
    assert depth.focal is not None and depth.confidence is not None
    assert told == ["Depth Anything 3 Small tells no sky: choose depth-anything-3-mono-large or -metric-large."]


def test_the_metric_model_takes_its_lens_from_the_view_or_from_another_depth(scene):
    node = FathomDepthAnything3()
    plain = node.execute(scene, METRIC, 48, process_res=56)[1]
    assert plain.kind == "scale_inverse"
    seen = node.execute(scene, METRIC, 48, field_of_view=60.0, process_res=56)[1]
    assert seen.kind == "metric"
    # The picture is 128 pixels wide, the lens is told of a map of 64.
    focal = 32 / math.tan(math.radians(30))
    torch.testing.assert_close(node.execute(scene, METRIC, 48, lens=lens(focal), process_res=56)[1].values, seen.values)
    both = node.execute(scene.repeat(2, 1, 1, 1), METRIC, 48, lens=lens(focal, 2 * focal), process_res=56)
    torch.testing.assert_close(both[1].metres()[1], 2 * seen.metres()[0])
    assert len(both[2]) == 2 and both[1].focal.shape == (2, 2)
    with pytest.raises(SignalError, match="no lens to take"):
        node.execute(scene, METRIC, 48, lens=plain)
    with pytest.raises(SettingError, match="no option 'field_of_view'"):
        node.execute(scene, "depth-anything-3-small", 48, field_of_view=60.0)


def test_a_lens_of_another_batch_is_told(scene):
    with pytest.raises(FathomError, match="2 pictures.*3"):
        FathomDepthAnything3().execute(scene.repeat(3, 1, 1, 1), METRIC, 48, lens=lens(40.0, 50.0))


# ------------------------------------------------------------------------------- geometries of ComfyUI's own nodes


def geometries():
    """What Run Depth Anything 3 (Metric) and Run MoGe Inference give of one picture."""
    numbers = torch.rand(1, 42, 56, generator=torch.Generator().manual_seed(0)) + 1
    sky = torch.zeros(1, 42, 56)
    sky[:, :5] = 0.8
    da3 = {"depth": numbers, "sky": sky, "image": torch.zeros(1, 42, 56, 3), "mode": "mono"}
    across = 0.5 / math.tan(math.radians(30))
    matrix = torch.tensor([[[across, 0, 0.5], [0, across * 56 / 42, 0.5], [0, 0, 1]]])
    mask = torch.ones(1, 42, 56, dtype=torch.bool)
    normal = torch.tensor([0.0, 0.0, -1.0]).repeat(1, 42, 56, 1)
    moge = {"depth": 2 * numbers, "mask": mask, "intrinsics": matrix, "points": numbers, "normal": normal}
    return da3, moge


def test_geometry_nodes_share_the_lens(told):
    da3, moge = geometries()
    node = FathomDepthFromGeometry()
    with pytest.raises(SignalError, match="give the field of view"):
        node.execute("metres", da3)
    # 504 pixels of 60 degrees have a focal length of 436: 1.45 times the numbers.
    depth, image, _, sky = node.execute("metres", da3, field_of_view=60.0)
    below = depth.metres()[:, 5:] / da3["depth"][:, 5:]
    torch.testing.assert_close(below, torch.full_like(below, 252 / math.tan(math.radians(30)) / 300))
    assert image.shape == (1, 42, 56, 3) and torch.equal(sky, da3["sky"]) and "MoGe 2" in told[0]
    both, _, normals, _ = node.execute("metres", da3, moge)
    torch.testing.assert_close(both.values, depth.values)
    torch.testing.assert_close(normals.vectors[0, 0, 0], torch.tensor([0.0, 0.0, 1.0]))
    by_lens = node.execute("metres", da3, lens=lens(float(both.camera()[0, 0]), width=56))[0]
    torch.testing.assert_close(by_lens.values, depth.values)


def test_one_known_distance_makes_a_relative_geometry_metric(told):
    da3, moge = geometries()
    relative, *_ = FathomDepthFromGeometry().execute("relative", da3)
    assert relative.kind == "scale_inverse"
    near, *_ = FathomDepthFromGeometry().execute("relative", da3, near=3.0)
    assert near.kind == "metric" and float(near.metres().min()) == pytest.approx(3.0)
    metres, *_ = FathomDepthFromGeometry().execute("metres", moge_geometry=moge)
    torch.testing.assert_close(metres.metres(), moge["depth"])
    assert len([line for line in told if "sky" in line]) == 1
    with pytest.raises(SignalError, match="geometry must be a dict"):
        FathomDepthFromGeometry().execute("metres")
