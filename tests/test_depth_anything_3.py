"""Depth Anything 3: exact networks and resizes, units, sky, and files that are something else."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import DATA, assert_golden, golden_input, goldens, published, published_shapes
from PIL import Image
from safetensors.torch import save_file

import fathom
from fathom import SettingError, SignalError, WeightsError
from fathom.annotator.loading import parameters_on_meta
from fathom.annotator.pictures import as_pixels
from fathom.annotator.weights import Checkpoint, read
from fathom.models.depth_anything_3 import ESTIMATORS, _fill_sky, upper_bound

BY_ID = {e.id: e for e in ESTIMATORS}
SMALL, LARGE = BY_ID["depth-anything-3-small"], BY_ID["depth-anything-3-large"]
MONO, METRIC = BY_ID["depth-anything-3-mono-large"], BY_ID["depth-anything-3-metric-large"]
FILES = {
    "depth-anything--DA3-SMALL__model.safetensors": SMALL,
    "depth-anything--DA3-BASE__model.safetensors": BY_ID["depth-anything-3-base"],
    "depth-anything--DA3-LARGE__model.safetensors": LARGE,
    "depth-anything--DA3MONO-LARGE__model.safetensors": MONO,
    "depth-anything--DA3METRIC-LARGE__model.safetensors": METRIC,
}
SMALL_FILE = next(iter(FILES))
NOWHERE = Path("model.safetensors")
TOKEN = "model.backbone.pretrained.cls_token"


# ------------------------------------------------------------------------------- exact


@pytest.mark.parametrize("file", FILES)
def test_published_files_fit_the_network(file):
    estimator = FILES[file]
    with parameters_on_meta():
        network = estimator.build(Checkpoint(NOWHERE, {}))
    theirs = published_shapes(f"depth_anything_3/{file}")
    named = estimator.translate({name: torch.empty(shape, device="meta") for name, shape in theirs.items()})
    ours = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert ours == {name: named[name].shape for name in ours}
    unused = {name.split(".")[0] for name in set(named) - set(ours) if "output_conv" not in name}
    assert unused == (set() if estimator in (MONO, METRIC) else {"cam_enc"})
    assert sum(p.numel() for p in network.parameters()) == estimator.parameters


@pytest.mark.parametrize(
    "file",
    [
        SMALL_FILE,
        *(pytest.param(file, marks=pytest.mark.parity) for file in list(FILES)[1:] if "DA3-LARGE" not in file),
    ],
)
def test_official_files_give_the_official_numbers(file, tmp_path):
    estimator = FILES[file]
    annotator = fathom.load(estimator, weights=published(f"depth_anything_3/{file}", tmp_path), device="cpu")
    more = {"rays": True} if estimator.spec.turns is not None else {}
    picture = as_pixels(Image.open(DATA / "inputs" / "land640x427.png").convert("RGB"))
    kinds = []
    for about, golden in goldens("depth_anything_3"):
        if about["file"] != file:
            continue
        kinds.append(about["kind"])
        if about["kind"] == "raw":
            with torch.inference_mode():
                found = annotator.network(golden_input(about), **more)
            for name, numbers in golden.items():
                assert_golden(found[name][0], numbers, about, name, 1e-4)
            continue
        settings = estimator.settings({"process_res": about["process_res"]})
        fit = estimator.plan(427, 640, None, settings)
        assert list(fit.network) == about["network_size"]
        levels = (fit.enter(picture) * 255).round()[0].permute(1, 2, 0)
        np.testing.assert_array_equal(levels[::16, ::16], golden["network_input_u8"])
        # The published code leaves its result at the network's size.
        with torch.inference_mode():
            slots = annotator.estimator.infer(annotator.network, picture, fit, fit.network, settings)
        assert tuple(slots) == estimator.produces
        depth = slots["depth"]
        assert_golden(depth.values[0].reciprocal(), golden["depth"], about, "depth", 1e-4)
        if "conf" in golden:
            assert_golden(depth.confidence[0], golden["conf"], about, "conf", 1e-4)
            np.testing.assert_allclose(depth.focal[0], np.diag(golden["intrinsics"])[:2], rtol=1e-5)
        else:
            thin = slots["sky"].values[0, ::16, ::16]
            np.testing.assert_allclose(thin, golden["sky"].astype(np.float32).clip(0, 1), atol=1e-4)
    assert kinds.count("endtoend") == 1 and "raw" in kinds


@pytest.mark.parametrize("source", [(427, 640), (720, 480), (61, 90), (1080, 1920), (505, 504), (30, 504)])
def test_both_resizes_are_opencvs(source):
    import cv2

    if int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("cv2 before 5 has other cubic weights")
    levels = np.random.default_rng(sum(source)).integers(0, 256, (*source, 3), dtype=np.uint8)
    scale = 504 / max(source)
    size = tuple(round(side * scale) for side in source)
    flags = {True: cv2.INTER_CUBIC, False: cv2.INTER_AREA}
    expected = levels if scale == 1 else cv2.resize(levels, size[::-1], interpolation=flags[scale > 1])
    whole = tuple((side + 7) // 14 * 14 for side in size)
    grows = any(w > s for w, s in zip(whole, size, strict=True))
    if whole != size:
        expected = cv2.resize(expected, whole[::-1], interpolation=flags[grows])
    fit = SMALL.fit(*source, None)
    ours = fit.enter(torch.from_numpy(levels).permute(2, 0, 1)[None].float() / 255)
    assert fit.network == whole
    off = np.abs((ours[0].permute(1, 2, 0) * 255).round().numpy() - expected)
    assert off.max() <= 1 and (off > 0).mean() <= 1e-4


def test_sizes_follow_process_res_alone():
    assert upper_bound(427, 640, 504).network == (336, 504) and upper_bound(720, 480, 504).network == (504, 336)
    assert upper_bound(1, 16384, 504).network == (14, 504) and upper_bound(1, 1, 504).network == (504, 504)
    assert upper_bound(100, 147, 147).network == (98, 154)  # 147 lies between 140 and 154: the upper one
    settings = SMALL.settings({"process_res": 224})
    assert SMALL.plan(300, 400, 1024, settings).network == SMALL.plan(300, 400, None, settings).network == (168, 224)


def test_rays_are_computed_on_demand(tiny_annotator):
    network = tiny_annotator("depth-anything-3-small").network
    pixels = torch.rand(1, 3, 42, 56)
    with torch.inference_mode():
        assert "ray" not in network(pixels)
        found = network(pixels, rays=True)
    assert found["ray"].shape == (1, 24, 32, 6) and found["ray_conf"].shape == (1, 24, 32)


# ------------------------------------------------------------------------------- units


@pytest.mark.parametrize("size", [(1, 1), (90, 10), (3, 27)])
@pytest.mark.parametrize("id", ["depth-anything-3-small", "depth-anything-3-mono-large"])
def test_any_picture_runs(size, id, tiny_annotator):
    scene = tiny_annotator(id).scene(torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(0)))
    assert scene.depth.values.shape == (1, *size) and scene.depth.kind == "scale_inverse"
    assert bool((scene.depth.values > 0).all())
    if "sky" in scene:
        assert scene["sky"].values.shape == (1, *size)


def test_depth_turns_distance_round_and_brings_the_lens(tiny_annotator):
    annotator = tiny_annotator("depth-anything-3-small")
    estimator, picture = annotator.estimator, torch.rand(1, 3, 60, 100)
    settings = estimator.settings({})
    fit = estimator.plan(60, 100, None, settings)
    with torch.inference_mode():
        raw = annotator.network(estimator.normalise(fit.enter(picture)))
        own = estimator.infer(annotator.network, picture, fit, fit.network, settings)["depth"]
        twice = estimator.infer(annotator.network, picture, fit, (2 * fit.network[0], 2 * fit.network[1]), settings)
    torch.testing.assert_close(own.values, raw["depth"].reciprocal())
    torch.testing.assert_close(own.confidence, raw["conf"])
    torch.testing.assert_close(own.focal, torch.stack([raw["intrinsics"][:, 0, 0], raw["intrinsics"][:, 1, 1]], 1))
    torch.testing.assert_close(twice["depth"].focal, 2 * own.focal)


def metric(**given):
    """The metric model's depth of a 60x100 picture at 90x150, its network seeing 1 everywhere."""

    class Ones(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pixels):
            return {"depth": torch.ones(len(pixels), *pixels.shape[-2:]), "sky": pixels[:, 0] * 0 + 2}

    settings = METRIC.settings(given)
    fit = METRIC.plan(60, 100, None, settings)
    assert fit.network == (308, 504)
    return METRIC.infer(Ones(), torch.zeros(2, 3, 60, 100), fit, (90, 150), settings)


def test_metres_need_the_focal_length_in_pixels_of_the_networks_input():
    slots = metric(focal=80.0)
    depth = slots["depth"]
    inside = 80 * (504 / 100 + 308 / 60) / 2
    assert depth.kind == "metric" and float(depth.metres()[0, 0, 0]) == pytest.approx(inside / 300)
    torch.testing.assert_close(depth.focal, torch.full((2, 2), 120.0))
    assert float(slots["sky"].values.min()) == 1.0
    view = math.degrees(2 * math.atan(50 / 80))
    torch.testing.assert_close(metric(field_of_view=view)["depth"].values, depth.values)


def test_without_a_focal_length_metres_are_refused():
    depth = metric()["depth"]
    assert depth.kind == "scale_inverse" and depth.focal is None
    with pytest.raises(SignalError, match="one known distance"):
        depth.metres()
    torch.testing.assert_close(depth.metres(near=4.0), torch.full((2, 90, 150), 4.0))
    with pytest.raises(SettingError, match="focal or field_of_view, not both"):
        metric(focal=80.0, field_of_view=60.0)


# ------------------------------------------------------------------------------- sky


def test_sky_goes_as_far_as_the_rest():
    depth = torch.arange(400.0).reshape(20, 20) + 1
    sky = torch.zeros(20, 20)
    sky[:2] = 0.31
    filled = _fill_sky(depth, sky)
    assert torch.equal(filled[2:], depth[2:])
    assert filled[:2].unique().tolist() == [float(torch.quantile(depth[2:], 0.99))]
    few = torch.zeros(20, 20)
    few[0, :10] = 1
    assert torch.equal(_fill_sky(depth, few), depth) and torch.equal(_fill_sky(depth, 1 - few), depth)


def test_sky_is_filled_alike_whatever_was_drawn_before():
    depth = torch.rand(400, 400, generator=torch.Generator().manual_seed(0))
    sky = torch.zeros(400, 400)
    sky[:100] = 1
    torch.manual_seed(1)
    first, state = _fill_sky(depth, sky), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(_fill_sky(depth, sky), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    # What the published code draws when its generator is at the same start.
    seen = depth[sky < 0.3]
    torch.manual_seed(0)
    assert float(first[0, 0]) == float(torch.quantile(seen[torch.randint(0, len(seen), (100_000,))], 0.99))


def test_each_picture_of_a_batch_fills_its_own_sky(tiny_annotator):
    network = tiny_annotator("depth-anything-3-mono-large").network
    pixels = torch.rand(2, 3, 56, 70, generator=torch.Generator().manual_seed(0)) * 3
    with torch.inference_mode():
        both = network(pixels)["depth"]
        each = torch.cat([network(one)["depth"] for one in pixels.split(1)])
    torch.testing.assert_close(both, each)


# ------------------------------------------------------------------------------- files that are something else


def small_file(folder, metadata=None, drop=()):
    network = SMALL.tiny().build(Checkpoint(NOWHERE, {}))
    torch.manual_seed(1)
    state = {f"model.{key}": torch.randn_like(value) * 0.1 for key, value in network.state_dict().items()}
    aliases = {}
    for kind in ("weight", "bias"):
        written, other = (f"model.head.scratch.output_conv2_aux.{level}.2.{kind}" for level in (0, 3))
        state[written] = state.pop(other)
        aliases[other] = written
    path = folder / "model.safetensors"
    save_file(state, path, metadata=aliases if metadata is None else metadata)
    return path, state


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_the_shared_norm_is_found_by_its_alias_or_its_first_name(metadata, tmp_path):
    path, state = small_file(tmp_path, metadata)
    assert ("model.head.scratch.output_conv2_aux.3.2.weight" in read(path).tensors) == (metadata is None)
    network = fathom.load(SMALL.tiny(), weights=path, device="cpu").network
    loaded = network.state_dict()["head.scratch.output_conv2_aux.3.2.weight"]
    assert torch.equal(loaded, state["model.head.scratch.output_conv2_aux.0.2.weight"])


def test_files_of_other_models_are_told_by_the_right_id(tmp_path):
    token = {TOKEN: torch.zeros(1, 1, 1024)}
    turning = {**token, "model.backbone.pretrained.camera_token": torch.zeros(1, 2, 1024)}
    with pytest.raises(WeightsError, match="looks like depth-anything-3-large: choose that"):
        MONO.adapt(Checkpoint(NOWHERE, turning))
    with pytest.raises(WeightsError, match="depth-anything-3-mono-large or depth-anything-3-metric-large"):
        LARGE.adapt(Checkpoint(NOWHERE, token))
    with pytest.raises(WeightsError, match="looks like depth-anything-3-large"):
        SMALL.adapt(Checkpoint(NOWHERE, turning))
    giant = {**turning, TOKEN: torch.zeros(1, 1, 1536)}
    with pytest.raises(WeightsError, match="Fathom has no such model"):
        LARGE.adapt(Checkpoint(NOWHERE, giant))
    assert LARGE.adapt(Checkpoint(NOWHERE, turning, {"model_name": "da3-large-1.1"})) is LARGE


def test_only_the_configuration_tells_mono_and_metric_apart(tmp_path):
    network = METRIC.tiny().build(Checkpoint(NOWHERE, {}))
    state = {f"model.{key}": torch.zeros_like(value) for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_name": "da3mono-large", "config": {"exec": "rm"}}))
    checkpoint = read(tmp_path / "model.safetensors")
    full = Checkpoint(checkpoint.path, {TOKEN: torch.zeros(1, 1, 1024)}, checkpoint.config)
    with pytest.raises(WeightsError, match="says da3mono-large, expected da3metric-large. Choose depth-anything-3-m"):
        METRIC.adapt(full)
    assert MONO.adapt(full) is MONO


# ------------------------------------------------------------------------------- many pictures


def test_pictures_that_share_a_forward_each_get_their_own_maps(tiny_annotator):
    from fathom.mass.network import NetworkQueue, Queued, Ticket, Window

    annotator = tiny_annotator("depth-anything-3-mono-large")
    pictures = torch.rand(2, 56, 70, 3, generator=torch.Generator().manual_seed(0))
    network, window, made = NetworkQueue(batch=2), Window(2), {}

    def work(number):
        ticket = Ticket(window, number)
        try:
            picture = pictures[number : number + 1]
            made[number] = annotator.annotate(picture, 0, lend=lambda real: Queued(network, real, ticket))
        finally:
            network.leave(ticket)
            if len(made) == 2:
                network.stop()

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    network.run()
    for thread in threads:
        thread.join()
    assert network.forwards == 1
    for number in (0, 1):
        alone = annotator.annotate(pictures[number : number + 1], 0)
        for slot in ("depth", "sky"):
            torch.testing.assert_close(made[number][slot].values, alone[slot].values)
