"""Nodes under the ids of other packs: what their graphs post is taken, and means what it meant there."""

from __future__ import annotations

import json

import pytest
import torch

import fathom
from fathom import NODE_CLASS_MAPPINGS as NODES
from fathom.annotator.loading import cache
from fathom.models.marigold import of_repository
from fathom.nodes import dropin
from fathom.nodes.dropin import controlnet_aux
from fathom.nodes.dropin.depth_anything_v2 import engine_id
from fathom.signals import Depth


@pytest.fixture
def through_tiny(monkeypatch, tiny_annotator):
    """Let the cache hand out tiny variants, and note which estimators were asked for."""
    asked = []

    def take(e, dtype=None):
        asked.append(e.id)
        return tiny_annotator(e.id if e.id in fathom.estimators() else "marigold-depth")

    monkeypatch.setattr(cache, "take", take)
    return asked


@pytest.fixture
def photo():
    """A picture with odd sides."""
    return torch.rand(1, 45, 61, 3, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("given", "side"), [("96", 96), (96.0, 96), ("96.0", 96), (None, 512), (32, 512), ("32", 512)])
def test_numbers_in_text_are_numbers(through_tiny, photo, given, side):
    assert NODES["UniFormer-SemSegPreprocessor"]().semantic_segmentate(photo, given)[0].shape[1] == side


@pytest.mark.parametrize("given", ["wide", "", True, [512], float("nan"), "inf"])
def test_what_is_no_number_is_an_error(through_tiny, photo, given):
    with pytest.raises(fathom.SettingError, match="resolution must be a number"):
        NODES["Zoe-DepthMapPreprocessor"]().execute(photo, given)
    with pytest.raises(fathom.SettingError, match="bg_threshold must be a number"):
        NODES["MiDaS-NormalMapPreprocessor"]().execute(photo, 6.0, given, 64)


def test_uniformer_is_uniformer(through_tiny, photo):
    for id in ("UniFormer-SemSegPreprocessor", "SemSegPreprocessor"):
        NODES[id]().semantic_segmentate(photo, 64)
    assert through_tiny == ["uniformer-ade20k"] * 2


def test_metric_depth_anything_is_answered(through_tiny, photo):
    node = NODES["Metric_DepthAnythingV2Preprocessor"]()
    for environment in ("indoor", "outdoor"):
        (image,) = node.execute(photo, environment, 80.0, 64)
        assert image.shape == (1, 64, 87, 3) and image.min() == 0 and image.max() == 1
    assert through_tiny == [f"depth-anything-v2-metric-{place}-large" for place in ("indoor", "outdoor")]
    with pytest.raises(fathom.SettingError, match="environment must be one of indoor, outdoor"):
        node.execute(photo, "space")


@pytest.mark.parametrize("id", controlnet_aux.NEAR)
def test_ids_without_an_heir_stay_unregistered_and_their_names_get_a_sentence(through_tiny, photo, id):
    assert id not in dropin.DROP_INS
    with pytest.raises(fathom.SettingError, match="install comfyui_controlnet_aux") as told:
        NODES["AIO_Preprocessor"]().execute(id, photo, 64)
    assert controlnet_aux.NEAR[id] in str(told.value)


@pytest.mark.parametrize(
    ("mode", "side"), [("Just Resize", 576), ("Crop and Resize", 576), ("Resize and Fill", 512), (None, 576)]
)
def test_pixel_perfect_resolution_follows_the_old_rule(mode, side):
    node = NODES["PixelPerfectResolution"]()
    assert node.execute(torch.zeros(1, 400, 600, 3), "864", 512, mode) == (side,)
    with pytest.raises(fathom.SettingError, match="resize_mode must be one of"):
        node.execute(torch.zeros(1, 400, 600, 3), 512, 512, "Stretch")


def test_sizes_of_pictures_and_latents():
    assert NODES["ImageGenResolutionFromImage"]().execute(torch.zeros(1, 40, 60, 3)) == (60, 40)
    latent = {"samples": torch.zeros(1, 4, 5, 7)}
    assert NODES["ImageGenResolutionFromLatent"]().execute(latent) == (56, 40)


def test_odd_sides_are_cut_before_the_picture_is_spread(through_tiny, photo):
    (model,) = NODES["DownloadAndLoadDepthAnythingV2Model"]().loadmodel("depth_anything_v2_vits_fp32.safetensors")
    (image,) = NODES["DepthAnything_V2"]().process(model, photo)
    assert image.shape == (1, 44, 60, 3) and image.min() == 0 and image.max() == 1


@pytest.mark.parametrize(
    ("engine", "id"),
    [
        ("v1_depth_anything_vitl14-fp16.engine", "depth-anything-large"),
        ("depth_anything_vits14.engine", "depth-anything-small"),
        ("v2_depth_anything_vitb-fp16.engine", "depth-anything-v2-base"),
        ("depth_anything_v2_vitl.engine", "depth-anything-v2-large"),
        ("v2_depth_anything_metric_hypersim_vitl-fp16.engine", "depth-anything-v2-metric-indoor-large"),
        ("v2_depth_anything_metric_vkitti_vitl-fp16.engine", "depth-anything-v2-metric-outdoor-large"),
        ("DA3Mono-Large-fp16.engine", "depth-anything-3-mono-large"),
        ("DA3Metric-Large-fp16.engine", "depth-anything-3-metric-large"),
    ],
)
def test_engines_are_known_by_their_names(engine, id):
    assert engine_id(engine) == id


@pytest.mark.parametrize(
    "engine",
    ["Distill-Any-Depth-Multi-Teacher-Small-fp16.engine", "mine.engine", "DA3-vitl.engine", "vits.engine", None],
)
def test_engines_that_tell_nothing_are_refused(engine):
    with pytest.raises(fathom.SettingError, match="does not tell a network that Fathom has"):
        engine_id(engine)


def test_tensorrt_gives_the_network_of_the_engine(through_tiny, photo):
    (image,) = NODES["DepthAnythingTensorrt"]().main(photo, "v2_depth_anything_vits-fp16.engine")
    assert image.shape == photo.shape and through_tiny == ["depth-anything-v2-small"]


def test_a_film_is_scaled_down_and_shares_one_range(through_tiny):
    (model,) = NODES["LoadVideoDepthAnythingModel"]().loadmodel("video_depth_anything_vits.pth")
    frames = torch.rand(3, 40, 60, 3, generator=torch.Generator().manual_seed(1))
    node = NODES["VideoDepthAnythingProcess"]()
    image, fps = node.process(model, frames, "24", 28, 42, "gray")
    assert image.shape == (3, 28, 42, 3) and fps == 24
    assert image.min() == 0 and image.max() == 1 and (image[..., 0] == image[..., 2]).all()
    drawn, _ = node.process(model, frames, 24, 28, 0, "inferno")
    assert drawn.shape == frames.shape and not (drawn[..., 0] == drawn[..., 2]).all()
    with pytest.raises(fathom.SettingError, match="colormap must be one of inferno, gray"):
        node.process(model, frames, colormap="jet")
    with pytest.raises(fathom.SettingError, match="model must be one of"):
        NODES["LoadVideoDepthAnythingModel"]().loadmodel("video_depth_anything_vitx.pth")


def test_every_name_of_marigolds_loader_brings_its_own_weights(through_tiny, monkeypatch):
    node = NODES["MarigoldModelLoader"]()
    names = node.INPUT_TYPES()["required"]["model"][0]
    assert len(names) == 10
    monkeypatch.setattr(cache, "take", lambda e, dtype=None: through_tiny.append(e.id))
    for name in names:
        node.load(name)
    own = {"marigold-depth", "marigold-depth-lcm", "marigold-normals", "marigold-lighting", "marigold-appearance"}
    assert own < set(through_tiny) and len(set(through_tiny)) == 10
    with pytest.raises(fathom.SettingError, match="model must be one of"):
        node.load("prs-eth/marigold-v9")


def test_another_repository_is_the_same_estimator_with_other_files():
    made, known = of_repository("GonzaloMG/marigold-e2e-ft-normals", "marigold-normals"), "marigold-normals"
    assert {source.repo for source in made.sources} == {"GonzaloMG/marigold-e2e-ft-normals"}
    assert made.produces == fathom.estimators()[known].produces and made.id not in fathom.estimators()


def test_the_first_marigold_node_takes_the_old_inputs(through_tiny, photo):
    node = NODES["MarigoldDepthEstimation"]()
    types = node.INPUT_TYPES()
    widgets = {n: s[1].get("default") for g in types.values() for n, s in g.items() if n != "image"}
    widgets |= {"denoise_steps": "1", "n_repeat": 1}
    (near,) = node.process(photo, **widgets)
    assert near.shape == photo.shape
    (far,) = node.process(photo, **widgets | {"invert": False, "model": None})
    torch.testing.assert_close(near, 1 - far)
    dimmed = node.process((photo + 1) / 2, **widgets)[0]
    torch.testing.assert_close(node.process(photo, **widgets | {"normalize": False})[0], dimmed)
    assert set(through_tiny) == {"marigold-v1-0"}
    node.process(photo, **widgets | {"model": "marigold-lcm-v1-0"})
    assert through_tiny[-1] == "marigold-depth-lcm"


def test_marigolds_maps_become_one_batch(tiny_annotator, photo):
    node = NODES["MarigoldDepthEstimation_v2"]()
    made = tiny_annotator("marigold-lighting")
    (image,) = node.process(made, photo, 1, 1, 64, 1, "DDIMScheduler", False)
    assert image.shape == (3, 45, 61, 3)


def test_false_colours_are_those_of_the_names():
    node = NODES["ColorizeDepthmap"]()
    ramp = torch.linspace(0, 1, 257)[None, None, :, None].expand(1, 4, -1, 3)
    (image,) = node.color(ramp, "viridis")
    ends = torch.tensor([[68, 1, 84], [253, 231, 36]]) / 255
    torch.testing.assert_close(image[0, 0, [0, -1]], ends, atol=1.5 / 255, rtol=0)
    (image,) = node.color(ramp, "seismic")
    assert (image[0, 0, 128] > 0.95).all()
    assert len(node.INPUT_TYPES()["required"]["colorize_method"][0]) == 19
    assert node.color(torch.zeros(2, 3, 3, 3), None)[0].isfinite().all()
    with pytest.raises(fathom.SettingError, match="colorize_method must be one of"):
        node.color(ramp, "plaid")


def test_a_range_is_moved():
    node, image = NODES["RemapDepth"](), torch.tensor([0.0, 0.5, 1.0]).reshape(1, 1, 1, 3)
    torch.testing.assert_close(node.remap(image, 0.5, 2.0, False)[0].flatten(), torch.tensor([0.5, 1.25, 2.0]))
    assert node.remap(image, "0.5", "2", None)[0].max() == 1


# ---------------------------------------------------------------------------------------------- Depth Anything 3


class Said:
    """An annotator that gives what it is made of."""

    def __init__(self, **slots):
        self.slots = slots

    def annotate(self, image, resolution, options):
        self.options = options
        return self.slots


def depth_of(*rows):
    return torch.tensor(rows)[None]


def test_depth_anything_3_gives_what_it_has_and_stops_what_it_has_not(monkeypatch, photo):
    from fathom.annotator import host

    monkeypatch.setattr(host, "blocked", lambda message: message)
    values = torch.rand(1, 45, 61, generator=torch.Generator().manual_seed(2)) + 0.1
    depth = Depth(values, "scale_inverse", focal=50.0, confidence=values * 3)
    model = Said(depth=depth)
    node = NODES["DepthAnything_V3"]()
    made = dict(zip(node.RETURN_NAMES, node.execute(model, photo, "Standard"), strict=True))
    assert model.options == {"process_res": 61}
    for name in ("depth", "confidence", "resized_rgb_image"):
        assert made[name].shape == (1, 44, 60, 3), name
    assert made["sky_mask"].shape == (1, 44, 60) and made["sky_mask"].max() == 0
    assert json.loads(made["intrinsics_json"])["intrinsics"][0][0][0] == pytest.approx(50 * 60 / 61, abs=1e-3)
    for name in ("ray_origin", "ray_direction", "extrinsics", "intrinsics", "gaussian_ply_path"):
        assert "install ComfyUI-DepthAnythingV3" in made[name]
    with pytest.raises(fathom.SettingError, match="without camera_params"):
        node.execute(model, photo, "Raw", {"intrinsics": None})
    with pytest.raises(fathom.SettingError, match="normalization_mode must be one of"):
        node.execute(model, photo, "V3")


def test_depth_anything_3_draws_as_that_pack_did():
    node, picture = NODES["DepthAnything_V3"](), torch.rand(1, 2, 2, 3)
    model = Said(depth=Depth(depth_of([1.0, 0.5], [0.25, 0.2]), "scale_inverse"))
    raw = node.execute(model, picture, "Raw")[0][0, ..., 0]
    torch.testing.assert_close(raw, torch.tensor([[1.0, 2.0], [4.0, 5.0]]))
    near = node.execute(model, picture, "Standard")[0][0, ..., 0]
    torch.testing.assert_close(near, torch.tensor([[1.0, 0.75], [0.25, 0.0]]))
    far = node.execute(model, picture, "Standard", invert_depth=True)[0][0, ..., 0]
    torch.testing.assert_close(far, 1 - near)
    values = torch.linspace(0.1, 1, 1600).reshape(1, 40, 40)
    styled = node.execute(Said(depth=Depth(values, "scale_inverse")), torch.rand(1, 40, 40, 3), "V2-Style")[0]
    assert styled.min() == 0 and styled.max() == 1
    middle = (values[0, 20, 20] - values.quantile(0.01)) / (values.quantile(0.99) - values.quantile(0.01))
    assert float(styled[0, 20, 20, 0]) == pytest.approx(float(middle.sqrt()), abs=2e-3)


def test_depth_anything_3_leaves_the_sky_black():
    values = torch.linspace(0.1, 1, 1600).reshape(1, 40, 40)
    sky = torch.zeros(1, 40, 40)
    sky[:, :10] = 0.9
    model = Said(depth=Depth(values, "scale_inverse"), sky=type("Sky", (), {"values": sky})())
    styled = NODES["DepthAnything_V3"]().execute(model, torch.rand(1, 40, 40, 3), "V2-Style")
    assert styled[0][0, :9].max() == 0 and styled[7].max() == pytest.approx(0.9)


def test_every_id_that_stands_in_a_drop_in_is_an_estimator():
    from fathom.nodes.dropin import depth_anything_3, depth_anything_v2, marigold, video_depth_anything

    named = [*depth_anything_v2._FILES.values(), *marigold._OWN.values(), *video_depth_anything._FILES.values()]
    assert set(named) <= set(fathom.estimators())
    if any(id.startswith("depth-anything-3") for id in fathom.estimators()):
        assert set(depth_anything_3._FILES.values()) <= set(fathom.estimators())
