"""The procedural scenes say the truth, and the shipped Tiny weights do what their model card says."""

from __future__ import annotations

import ast
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from fathom.errors import FathomError
from fathom.models.tiny import TinyDepth
from fathom.training import train
from fathom.training.evaluate import (
    attainable,
    edge_error,
    estimate,
    evaluate_real,
    load_tiny,
    nearest_above,
    ramp,
    read_real,
    score,
    spearman,
)
from fathom.training.heldout import render_heldout
from fathom.training.layouts import BOX, GROUND, SPHERE, TORUS, Layout
from fathom.training.patterns import pattern_bank
from fathom.training.photo import PHOTO_NAMES, grain
from fathom.training.scenes import PATTERNS, SCENES, Scenes, draw_packed, render, render_layouts
from fathom.training.train import (
    WEIGHTS,
    Pool,
    augment,
    closeness,
    depth_loss,
    folded,
    normal_loss,
    target,
    with_batch_norm,
)

TRAINING = Path(__file__).parents[1] / "training"


def layout(*parts: tuple[int, tuple[float, float, float], tuple[float, float, float], float]) -> Layout:
    """A scene of plain parts seen from 1.5 m above the origin, level, 90 degrees wide."""
    scene = Layout(np.random.default_rng(0), PATTERNS)
    for kind, centre, half, shape in parts:
        scene.place((0, 0, 0), yaw=0.0)
        scene.add(kind, centre, half, scene.material(1.0), shape=shape)
    scene.aim((0.0, 1.5, 0.0), (0.0, 1.5, 1.0), 0.0, math.pi / 2)
    return scene


def unproject(scenes: Scenes, index: int) -> Tensor:
    """Camera-frame points (H,W,3), x right, y up, z towards the viewer, of one scene's depth."""
    depth = scenes.depth[index].double()
    height, width = depth.shape
    focal = float(scenes.focal[index])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(x + 0.5 - width / 2) / focal * depth, (height / 2 - y - 0.5) / focal * depth, -depth], -1)


def check_truth(scenes: Scenes) -> None:
    """Unit normals that face the camera and agree with the depth, regions that agree with the sky."""
    sky = torch.isinf(scenes.depth)
    assert bool((scenes.depth > 0).all())
    assert torch.equal(scenes.regions == 0, sky)
    torch.testing.assert_close(scenes.normals.norm(dim=-1), torch.ones_like(scenes.depth), atol=1e-4, rtol=0)
    assert 0 <= float(scenes.image.min()) and float(scenes.image.max()) <= 1
    for index in range(len(scenes.depth)):
        points = unproject(scenes, index)
        across = points[1:-1, 2:] - points[1:-1, :-2]
        down = points[2:, 1:-1] - points[:-2, 1:-1]
        normal = torch.nn.functional.normalize(torch.linalg.cross(down, across, dim=-1), dim=-1)
        truth = scenes.normals[index, 1:-1, 1:-1].double()
        region = scenes.regions[index]
        flat = torch.ones_like(truth[..., 0], dtype=torch.bool)
        for dy in (0, 1, 2):
            for dx in (0, 1, 2):
                flat &= region[dy : dy + truth.shape[0], dx : dx + truth.shape[1]] == region[1:-1, 1:-1]
                neighbour = scenes.normals[index, dy : dy + truth.shape[0], dx : dx + truth.shape[1]].double()
                flat &= (neighbour * truth).sum(-1) > 0.995
        flat &= region[1:-1, 1:-1] > 0
        agreement = (normal * truth).sum(-1)[flat]
        if len(agreement) > 200:
            assert float(agreement.quantile(0.1)) > 0.98


def test_ground_depth_is_camera_height_over_slope() -> None:
    scenes = render_layouts([layout((GROUND, (0, 0, 0), (1, 1, 1), 1.0))], [0], 64, 96)
    rows = torch.arange(64) + 0.5 - 32
    expected = torch.where(rows > 0, 1.5 * 48 / rows, torch.inf)
    torch.testing.assert_close(scenes.depth[0], expected[:, None].expand(64, 96), rtol=1e-4, atol=0)
    assert float(scenes.focal[0]) == pytest.approx(48)
    torch.testing.assert_close(scenes.normals[0, 40:], torch.tensor([0.0, 1, 0]).expand(24, 96, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "shape", "depth"), [(SPHERE, 1.0, 3.5), (BOX, 1.0, 3.5), (TORUS, 0.25, 3.375)])
def test_middle_of_a_shape_is_where_arithmetic_puts_it(kind: int, shape: float, depth: float) -> None:
    # The torus lies flat at the level of the eye: its near rim is a radius and a tube ahead of its centre.
    scenes = render_layouts([layout((kind, (0, 1.5, 4), (0.5, 0.5, 0.5), shape))], [0], 128, 128)
    middle = scenes.depth[0, 63:65, 63:65]
    torch.testing.assert_close(middle, torch.full_like(middle, depth), atol=4e-3, rtol=0)


@pytest.mark.parametrize("kind", SCENES)
def test_every_kind_of_scene_tells_the_truth(kind: str) -> None:
    check_truth(render([11, 12], 64, 96, kind=kind))


def test_heldout_scenes_tell_the_truth() -> None:
    check_truth(render_heldout(range(5), 48, 64))


def test_same_seed_same_bytes() -> None:
    first, second = render([5, 6], 64, 64), render([5, 6], 64, 64)
    for name in ("image", "depth", "normals", "regions"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert first.kinds == second.kinds
    assert not torch.equal(first.image[0], first.image[1])
    assert torch.equal(render_heldout([3], 32, 32).image, render_heldout([3], 32, 32).image)


def test_a_scene_does_not_depend_on_its_batch() -> None:
    alone, among = render([6], 64, 64), render([5, 6, 7], 64, 64)
    assert (alone.regions[0] == among.regions[1]).float().mean() > 0.999
    assert (alone.image[0] - among.image[1]).abs().mean() < 1e-3


def test_sizes_that_do_not_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        render([0], 60, 64)


def test_training_never_sees_the_heldout_generator() -> None:
    for path in TRAINING.glob("*.py"):
        imported = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert "heldout" not in imported or path.name == "evaluate.py"
        assert path.name != "train.py" or "evaluate" not in imported


def test_target_and_loss() -> None:
    depth = torch.tensor([[[1.0, 2.0], [4.0, torch.inf]]])
    target = closeness(depth)
    torch.testing.assert_close(target, torch.tensor([[[2 / 3, 0.5], [1 / 3, 0.0]]]))
    maps = torch.rand(2, 32, 32)
    assert float(depth_loss(3 * maps + 7, maps)) == pytest.approx(0, abs=1e-4)
    assert float(depth_loss(-maps, maps)) > 1
    assert torch.isfinite(depth_loss(torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)))


def test_folding_keeps_the_function() -> None:
    torch.manual_seed(0)
    net = with_batch_norm(TinyDepth(width=12, depth=1, context=1))
    picture = torch.randn(2, 3, 64, 64)
    net.train()(picture)
    net.eval()
    plain = folded(net)
    assert plain.state_dict().keys() == TinyDepth(width=12, depth=1, context=1).state_dict().keys()
    torch.testing.assert_close(plain(picture), net(picture), atol=1e-4, rtol=1e-3)


def test_spearman() -> None:
    a = torch.tensor([1.0, 2.0, 2.0, 5.0])
    assert spearman(a, a**3) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)
    assert spearman(a, torch.ones(4)) == 0
    # Worked by hand with mean ranks for the tie: the sums of products are 3, 4.5 and 5.
    assert spearman(a, torch.tensor([1.0, 2.0, 4.0, 3.0])) == pytest.approx(3 / math.sqrt(4.5 * 5))
    # Three of four tied: the others' order is all there is to find.
    tied = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert spearman(torch.tensor([1.0, 2.0, 3.0, 4.0]), tied) == pytest.approx(attainable(tied))


def test_shipped_weights_fit_and_stay_small() -> None:
    assert WEIGHTS.stat().st_size <= 8_000_000
    state = load_file(WEIGHTS)
    TinyDepth().load_state_dict(state, strict=True)
    assert sum(value.numel() for value in state.values()) <= 4_000_000
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize("size", [(32, 32), (32, 96), (192, 160)])
@torch.inference_mode()
def test_any_multiple_of_32_and_a_constant_picture(size: tuple[int, int]) -> None:
    net = load_tiny()
    out = net(torch.zeros(2, 3, *size))
    assert out.shape == (2, 4, *size)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[0], out[1])


def test_shipped_weights_see_depth_and_normals() -> None:
    net = load_tiny()
    # The model card's figures are over many scenes; these few stand guard against broken weights.
    for draw, rank, degrees in ((lambda: render(range(12), 192, 256), 0.8, 20), (lambda: heldout_few(), 0.7, 35)):
        ours, base, turned, _ = np.nanmean(score(net, draw()), 0)
        assert ours > rank
        assert ours > base
        assert turned < degrees


def heldout_few() -> Scenes:
    return render_heldout(range(10), 96, 128)


def test_mirrored_walls_have_mirrored_normals() -> None:
    net = load_tiny()
    scenes = render([3], 192, 256, kind="corridor")
    _, normals = estimate(net, scenes.image)
    _, mirrored = estimate(net, scenes.image.flip(-1))
    back = mirrored.flip(2) * torch.tensor([-1.0, 1, 1])
    assert float((normals * back).sum(-1).mean()) > 0.9


def test_target_keeps_the_order_and_ties_what_is_level() -> None:
    depth = torch.linspace(1, 100, 64 * 64).view(1, 64, 64)
    depth[0, :8] = torch.inf
    truth = target(depth)[0]
    order = depth[0, 8:].flatten().argsort()
    assert bool((truth[8:].flatten()[order].diff() <= 0).all())
    assert float(truth[:8].max()) < float(truth[8:].min())
    level = target(3 + 1e-6 * torch.rand(1, 32, 32))
    assert float(level.std()) < 1e-5


def test_normal_loss_leaves_the_sky_out() -> None:
    truth = torch.zeros(1, 3, 4, 4)
    truth[:, 2, 2:] = 1
    assert float(normal_loss(5 * truth, truth)) < 0.02
    prediction = 5 * truth
    prediction[:, 0, :2] = -3
    assert float(normal_loss(prediction, truth)) == pytest.approx(float(normal_loss(5 * truth, truth)))
    assert float(normal_loss(-truth, truth)) > 2


def test_a_mirrored_batch_keeps_its_normals_true() -> None:
    images, targets = torch.rand(2, 3, 64, 64), torch.rand(2, 64, 64)
    normals = torch.tensor([1.0, 0, 0])[None, :, None, None].expand(2, 3, 64, 64)
    seen = set()
    for seed in range(12):
        _, _, turned = augment(images, targets, normals, np.random.default_rng(seed))
        seen.add(float(turned[0, 0, 0, 0]))
    assert seen == {-1.0, 1.0}


def test_scenes_of_a_pool_are_photographed_anew() -> None:
    bank = pattern_bank(1, 16, torch.device("cpu"))
    pool = Pool(3)
    for first in (0, 2):
        pool.draw([draw_packed(first + k, patterns=16) for k in range(2)], 32, 64, torch.device("cpu"), bank)
    assert pool.count == 3
    images, targets, normals = pool.sample(5)
    assert images.shape == normals.shape == (5, 3, 32, 64) and targets.shape == (5, 32, 64)
    assert 0 <= float(images.min()) and float(images.max()) <= 1
    length = normals.norm(dim=1)
    assert bool(((length - 1).abs().lt(0.01) | length.eq(0)).all())
    assert "focus" in PHOTO_NAMES


def test_grain_is_white_and_a_seeds_own() -> None:
    noise = grain(torch.Size([2, 3, 64, 64]), torch.tensor([1.0, 2.0]))
    assert float(noise.mean().abs()) < 0.02 and float(noise.std()) == pytest.approx(1, abs=0.03)
    assert float((noise[0] * noise[1]).mean().abs()) < 0.03
    assert float((noise[..., 1:] * noise[..., :-1]).mean().abs()) < 0.03
    assert torch.equal(noise[1:], grain(torch.Size([1, 3, 64, 64]), torch.tensor([2.0])))


def write_real(folder: Path, entry: dict) -> None:
    """A folder of one photograph, a ramp of distances in millimetres with a hole."""
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(folder / "a.png")
    depth = np.linspace(4000, 1000, 48).astype(np.uint16)[:, None].repeat(64, 1)
    depth[:5] = 7
    Image.fromarray(depth).save(folder / "a_depth.png")
    (folder / "index.json").write_text(json.dumps([entry]))


def test_real_photographs_are_read_as_their_index_says(tmp_path: Path) -> None:
    entry = {"picture": "a.png", "depth": "a_depth.png", "kind": "distance", "scale": 0.001, "invalid": 7}
    write_real(tmp_path, entry)
    (photo,) = read_real(tmp_path)
    assert photo.image.shape == (1, 3, 48, 64)
    assert int(photo.known.sum()) == 43 * 64
    assert float(photo.closeness[-1, 0]) == pytest.approx(1.0)
    ((ours, base),) = evaluate_real(load_tiny(), [photo])
    assert base == pytest.approx(1)
    assert -1 <= ours <= 1
    write_real(tmp_path, entry | {"far": 2.0})
    assert float(read_real(tmp_path)[0].closeness[read_real(tmp_path)[0].known].min()) > 0.5


@pytest.mark.parametrize("wrong", [{"kind": "metres"}, {"depth": "wide.png"}, None])
def test_a_wrong_index_of_photographs_is_refused(tmp_path: Path, wrong: dict | None) -> None:
    write_real(tmp_path, {"picture": "a.png", "depth": "a_depth.png", "kind": "distance"} | (wrong or {}))
    Image.fromarray(np.ones((10, 64), np.uint16)).save(tmp_path / "wide.png")
    if wrong is None:
        (tmp_path / "index.json").write_text('[{"picture": "a.png"}]')
    with pytest.raises(FathomError):
        read_real(tmp_path)
    with pytest.raises(FathomError, match=r"index\.json"):
        read_real(tmp_path / "nowhere")


def test_edges_and_the_place_of_near_are_measured() -> None:
    truth = torch.ones(32, 32)
    truth[:, 16:] = 3
    assert edge_error(truth, truth) == 0
    soft = torch.arange(32.0)[None].expand(32, 32)
    assert 0 < edge_error(soft, truth) < edge_error(-soft, truth)
    assert math.isnan(edge_error(truth, torch.ones(32, 32)))
    known = torch.ones(32, 32, dtype=torch.bool)
    assert nearest_above(ramp(32, 32), known) == 0
    assert nearest_above(-ramp(32, 32), known) == 1


def test_a_run_is_continued_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "SMALL_SIZES", ((32, 64),))
    common = ["--processes", "1", "--fresh", "2", "--batch", "2", "--keep", "4", "--patterns", "16", "--small", "1"]
    files = ["--checkpoint", str(tmp_path / "a.pt"), "--output", str(tmp_path / "a.safetensors"), "--device", "cpu"]
    steps, minutes = [], 0.0
    for more in ([], ["--resume", str(tmp_path / "a.pt")]):
        # On a busy machine one step may take longer than the whole budget.
        monkeypatch.setattr(sys, "argv", ["train", "--minutes", str(minutes + 0.02), *common, *files, *more])
        train.main()
        saved = torch.load(tmp_path / "a.pt", weights_only=True)
        steps.append(saved["step"])
        minutes = saved["minutes"]
    assert 0 < steps[0] < steps[1]
    TinyDepth().load_state_dict(load_file(tmp_path / "a.safetensors"), strict=True)
