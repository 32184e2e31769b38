"""LeReS and LeReS++: against the code of controlnet-aux, and direction, sizes, patches."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fathom
from fathom import WeightsError
from fathom.annotator.pictures import as_pixels
from fathom.annotator.weights import Checkpoint
from fathom.models import leres_boost
from fathom.models.leres import ESTIMATORS
from fathom.models.leres_boost import BoostFit, Rule, best_size, patches

(LERES,) = ESTIMATORS
(BOOST,) = leres_boost.ESTIMATORS
NOWHERE = Path("some.pt")


@pytest.fixture
def aux(monkeypatch):
    """A function that imports a module of controlnet-aux's LeReS without the package's own start, which takes seconds
    and changes timm's registry."""
    spec = importlib.util.find_spec("controlnet_aux")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("controlnet-aux is not installed")
    root = Path(next(iter(spec.submodule_search_locations)))
    before = set(sys.modules)
    for name, path in (("aux_only", root), ("aux_only.leres", root / "leres")):
        package = types.ModuleType(name)
        package.__path__ = [str(path)]
        monkeypatch.setitem(sys.modules, name, package)
    util = types.ModuleType("aux_only.util")
    util.torch_gc = lambda: None
    monkeypatch.setitem(sys.modules, "aux_only.util", util)
    yield lambda name: importlib.import_module(f"aux_only.leres.{name}")
    for name in set(sys.modules) - before:
        if name.startswith("aux_only"):
            sys.modules.pop(name, None)


def small_peer(aux):
    """controlnet-aux's network with one block in each stage, and ours of the same sizes."""
    nets, resnext = aux("leres.network_auxi"), aux("leres.Resnext_torch")
    peer = aux("leres.multi_depth_model_woauxi").RelDepthModel("resnext101")
    encoder = resnext.ResNet(resnext.Bottleneck, [1, 1, 1, 1], groups=8, width_per_group=4)
    peer.depth_model.encoder_modules.encoder = encoder
    assert isinstance(peer.depth_model.decoder_modules, nets.Decoder)
    return peer.eval()


def test_it_gives_what_controlnet_aux_gives(aux, seeded, tmp_path, scene):
    """On the picture that its network was trained for: the port's detector swaps the colours and leaves them at 0..255,
    so its function is given what undoes that."""
    cv2 = pytest.importorskip("cv2")
    peer = small_peer(aux)
    peer.load_state_dict(seeded(peer))
    state = {f"module.{key}": tensor for key, tensor in peer.state_dict().items()}
    torch.save({"depth_model": state, "shift_model": {"weight": torch.zeros(1)}}, tmp_path / "res101.pth")
    estimator = replace(LERES, architecture=replace(LERES.architecture, blocks=(1, 1, 1, 1), groups=8, group=4))
    annotator = fathom.load(estimator, weights=tmp_path / "res101.pth", device="cpu")

    pixels = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected = peer.depth_model(pixels)[:, 0]
        raw = annotator.network(pixels)
    torch.testing.assert_close(raw, expected, rtol=1e-4, atol=1e-5 * float(expected.max() - expected.min()))

    picture = (scene[0] * 255).round().byte().numpy()
    resized = cv2.resize(picture, (192, 128), interpolation=cv2.INTER_LANCZOS4)
    given = resized[:, :, ::-1].astype(np.float32) / 255
    expected = aux("leres.depthmap").estimateleres(given, peer, 192, 128)
    fit = estimator.fit(96, 128, 128)
    assert fit.network == (128, 192)  # 171 rounded to a multiple of 64
    with torch.inference_mode():
        raw = estimator.raw(annotator.network, as_pixels(torch.from_numpy(picture)[None]), fit, fit.network, {})
    off = np.abs(raw[0, 0].numpy() - expected) / np.ptp(expected)
    assert off.max() <= 5e-3 and off.mean() <= 1e-3

    # The annotator's picture: near is white.
    expected = 1 - (expected - expected.min()) / np.ptp(expected)
    image = estimator.signal(raw).to_image()[0, ..., 0].numpy()
    assert np.abs(image - expected).max() <= 1e-2


def test_larger_is_closer():
    depth = LERES.signal(torch.tensor([[[[1.0, 2.0, 5.0]]]]))
    assert depth.kind == "affine_depth"
    assert depth.values.tolist() == [[[-1.0, -2.0, -5.0]]]
    assert depth.to_image()[0, 0, :, 0].tolist() == [1.0, 0.75, 0.0]


def test_files_without_step_counters_load(seeded, tmp_path):
    state = seeded(LERES.tiny().build(Checkpoint(NOWHERE, {})))
    state = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    torch.save({"depth_model": state}, tmp_path / "res101.pth")
    assert fathom.load(LERES.tiny(), weights=tmp_path / "res101.pth", device="cpu").network is not None


def test_sizes():
    assert LERES.fit(427, 640, None).network == (448, 448)
    assert LERES.fit(427, 640, 512).network == (512, 768)
    for picture in [(1, 1), (65, 1), (50, 3000), (9, 16384)]:
        for resolution in (0, 64, 4096):
            height, width = LERES.fit(*picture, resolution).network
            assert height % 64 == width % 64 == 0 and 0 < height * width <= 1.1 * 2048 * 2048  # rounded


def test_another_file_is_refused(seeded, tmp_path):
    other = fathom.estimators()["midas-dpt-large"].tiny()
    torch.save(seeded(other.build(Checkpoint(NOWHERE, {}))), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="looks like a MiDaS DPT network"):
        fathom.load(LERES.tiny(), weights=tmp_path / "other.pt")


# ---------------------------------------------------------------------------------------------- LeReS++


def busy(height, width, top, left, side):
    """A grey picture (1,3,height,width), flat but for one square of checks. Its values are those of 8 bits."""
    picture = torch.full((height, width), 120.0)
    checks = (torch.arange(side)[:, None] // 8 + torch.arange(side) // 8) % 2
    picture[top : top + side, left : left + side] += 60 * checks
    return (picture / 255).expand(1, 3, -1, -1)


class Merger:
    """controlnet-aux's object around its merge network, without the options that it reads from the command line."""

    def __init__(self, aux, network):
        kind = aux("pix2pix.models.pix2pix4depth_model").Pix2Pix4DepthModel
        self.network, self.device = network, "cpu"
        self.normalize = lambda x: kind.normalize(self, x)
        self.set_input = lambda outer, inner: kind.set_input(self, outer, inner)

    @torch.inference_mode()
    def test(self):
        self.fake_B = self.network(self.real_A)

    def get_current_visuals(self):
        return {"fake_B": self.fake_B}


@pytest.mark.parity
@pytest.mark.parametrize("patched", [True, False], ids=["patches", "whole"])
def test_boost_gives_what_controlnet_aux_gives(aux, seeded, tmp_path, monkeypatch, patched):
    pytest.importorskip("skimage")
    peer_map, fit_line = aux("leres.depthmap"), np.polyfit
    # In float32 polyfit takes over a million samples for nearly dependent and drops the offset of a pale patch.
    monkeypatch.setattr(np, "polyfit", lambda x, y, deg: fit_line(x.astype(float), y.astype(float), deg))
    # Two patches tell as much as all of them, which the next test compares.
    all_patches, all_squares = peer_map.generatepatchs, leres_boost.patches
    monkeypatch.setattr(peer_map, "generatepatchs", lambda *given: all_patches(*given)[:2])
    monkeypatch.setattr(leres_boost, "patches", lambda *given: all_squares(*given)[:2])
    peer = small_peer(aux)
    peer.load_state_dict(seeded(peer))
    generator = aux("pix2pix.models.networks").define_G(2, 1, 4, "unet_1024", "none", False, "normal", 0.02, [])
    generator.load_state_dict(seeded(generator))
    torch.save({"depth_model": peer.state_dict()}, tmp_path / "res101.pth")
    torch.save(generator.state_dict(), tmp_path / "latest_net_G.pth")
    small = replace(BOOST.architecture, blocks=(1, 1, 1, 1), groups=8, group=4)
    estimator = replace(BOOST, architecture=small, rule=Rule(width=4))
    annotator = fathom.load(estimator, weights=tmp_path / "res101.pth", device="cpu")

    picture = busy(320, 512, 90, 60, 150)
    best, _ = best_size(picture, estimator.rule, 1600)
    assert best == 448
    limit = best if patched else best - 1
    fit = BoostFit((320, 512), (320, 512), "area", "bicubic", largest=1600, patches_below=limit)
    with torch.inference_mode():
        raw = estimator.raw(annotator.network, picture, fit, (320, 512), {})[0, 0].numpy()
    # A grey picture: the port swaps its colours and leaves them at 0..255, but what it is given is its own affair.
    given = picture[0].permute(1, 2, 0).numpy().copy()
    expected = peer_map.estimateboost(given, peer, 0, Merger(aux, generator), limit)
    assert np.abs(raw - expected).max() <= 1e-3 * np.ptp(expected)
    if patched:
        whole = replace(fit, patches_below=0)
        with torch.inference_mode():
            without = estimator.raw(annotator.network, picture, whole, (320, 512), {})[0, 0].numpy()
        assert np.abs(raw - without).max() > 0.01 * np.ptp(expected), "the patches change nothing"


def test_sizes_and_patches_are_those_of_controlnet_aux(aux, monkeypatch):
    pytest.importorskip("skimage")
    old = pytest.importorskip("cv2").__version__ < "5"
    peer_map = aux("leres.depthmap")
    wave = (torch.sin(torch.arange(700) / 9) * torch.sin(torch.arange(500) / 7)[:, None] * 40 + 120).round() / 255
    pictures = busy(512, 700, 0, 100, 300), busy(500, 700, 200, 300, 150), wave.expand(1, 3, -1, -1)
    sizes = []
    for picture in pictures:
        given = picture[0].permute(1, 2, 0).numpy().copy()
        size, near = peer_map.calculateprocessingres(given, 448, 0.2, 3, 1600)
        assert best_size(picture, Rule(), 1600) == (size, pytest.approx(near))
        sizes.append(size)
        for factor in (1, 0.3):
            monkeypatch.setattr(peer_map, "factor", factor, raising=False)
            squares = [tuple(p["rect"]) for _, p in peer_map.generatepatchs(given, 100)]
            ours = [(x, y, n, n) for x, y, n in patches(picture, 100, int(32 / factor))]
            # OpenCV before 5 sums in another order: a square that holds just the average may be in or out.
            assert squares and len(set(squares) ^ set(ours)) <= (2 if old else 0) and (old or squares == ours)
    assert len(set(sizes)) > 1


def test_the_merge_network_is_the_published_one(aux, seeded):
    generator = aux("pix2pix.models.networks").define_G(2, 1, 4, "unet_128", "none", False, "normal", 0.02, [])
    state = seeded(generator)
    generator.load_state_dict(state)
    ours = leres_boost.MergeNetwork(7, 4)
    named = {key.removeprefix("merge."): value for key, value in leres_boost._merge_names(state).items()}
    ours.load_state_dict(named)
    pair = torch.rand(1, 2, 128, 128) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(ours(pair), generator(pair))


def test_the_merge_network_must_be_there(seeded, tmp_path):
    torch.save(seeded(LERES.tiny().build(Checkpoint(NOWHERE, {}))), tmp_path / "res101.pth")
    with pytest.raises(WeightsError, match=r"needs two files: .*latest_net_G\.pth, which is not\. Fetch it"):
        fathom.load(replace(BOOST.tiny(), sources=BOOST.sources), weights=tmp_path / "res101.pth", device="cpu")


def test_patches_lie_where_the_edges_are():
    picture = busy(600, 800, 300, 500, 200)
    found = patches(picture, 100, 32)
    assert found and found == sorted(found, key=lambda square: -square[2])
    for left, top, side in found:
        assert left < 700 and left + side > 500 and top < 500 and top + side > 300
        assert 0 <= left and left + side <= 800 and 0 <= top and top + side <= 600
    assert patches(torch.full((1, 3, 600, 800), 0.3), 100, 32) == []


def test_more_edges_allow_a_larger_view():
    rule = Rule()
    texture = busy(512, 512, 0, 0, 512)
    flat = torch.full((1, 3, 512, 512), 0.5)
    sizes = [best_size(picture, rule, 1600)[0] for picture in (flat, busy(512, 512, 0, 0, 64), texture)]
    assert sizes == [448, 448, 1344]
    assert best_size(texture, rule, 900)[0] == 672


def test_the_boosted_picture_is_its_own_or_the_annotators():
    fit = BOOST.fit(427, 640, None)
    assert (fit.network, fit.largest) == ((427, 640), 3000) and fit.patches_below > 1e6
    fit = BOOST.fit(427, 640, 512)
    assert (fit.network, fit.largest, fit.patches_below) == ((512, 768), 1600, 768)
