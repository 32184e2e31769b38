"""LeReS: against the code of controlnet-aux, and its direction and sizes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import fathom
from fathom import WeightsError
from fathom.annotator.pictures import as_pixels
from fathom.annotator.weights import Checkpoint
from fathom.models.leres import ESTIMATORS

(LERES,) = ESTIMATORS
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
    yield lambda name: importlib.import_module(f"aux_only.leres.leres.{name}")
    for name in set(sys.modules) - before:
        if name.startswith("aux_only"):
            sys.modules.pop(name, None)


def small_peer(aux):
    """controlnet-aux's network with one block in each stage, and ours of the same sizes."""
    nets, resnext = aux("network_auxi"), aux("Resnext_torch")
    peer = aux("multi_depth_model_woauxi").RelDepthModel("resnext101")
    encoder = resnext.ResNet(resnext.Bottleneck, [1, 1, 1, 1], groups=8, width_per_group=4)
    peer.depth_model.encoder_modules.encoder = encoder
    assert isinstance(peer.depth_model.decoder_modules, nets.Decoder)
    return peer.eval()


def test_it_gives_what_controlnet_aux_gives(aux, seeded, tmp_path, scene):
    """On the picture that its network was trained for: the port's detector swaps the colours and leaves them at 0..255,
    so its function is given what undoes that."""
    from dataclasses import replace

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
    expected = aux("depthmap").estimateleres(given, peer, 192, 128)
    fit = estimator.fit(96, 128, 128)
    assert fit.network == (128, 192)  # 171 rounded to a multiple of 64
    with torch.inference_mode():
        raw = estimator.infer(annotator.network, as_pixels(torch.from_numpy(picture)[None]), fit, fit.network, {})
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
