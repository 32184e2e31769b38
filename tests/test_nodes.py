"""Every node: declared completely, and one call of the layer below."""

from __future__ import annotations

import inspect
import json
import math
import re
from pathlib import Path

import pytest
import torch

import fathom
from fathom import Depth, FathomError, SettingError
from fathom.nodes import NODES, dropin, estimate, fields

ROOT = Path(__file__).parents[1]

NODES_BY_ID = fathom.NODE_CLASS_MAPPINGS


def inputs(node):
    """{name: spec} of required and optional inputs, in order."""
    types = node.INPUT_TYPES()
    return {**types.get("required", {}), **types.get("optional", {})}


@pytest.mark.parametrize("id", NODES_BY_ID)
def test_a_node_is_declared_completely(id):
    node = NODES_BY_ID[id]
    assert fathom.NODE_DISPLAY_NAME_MAPPINGS[id] == node.DISPLAY_NAME
    assert node.DESCRIPTION.endswith((".", "?")) and node.CATEGORY
    for name, spec in inputs(node).items():
        assert spec[1].get("tooltip"), f"{id}.{name} has no tooltip"
        if isinstance(spec[0], list) and "default" in spec[1]:
            assert spec[1]["default"] in spec[0], f"{id}.{name}"
    names = getattr(node, "RETURN_NAMES", node.RETURN_TYPES)
    assert len(node.RETURN_TYPES) == len(names) == len(node.OUTPUT_TOOLTIPS)
    assert all(told.strip() for told in node.OUTPUT_TOOLTIPS), f"{id} has an output without a tooltip"
    json.dumps(node.INPUT_TYPES())


@pytest.mark.parametrize("id", NODES_BY_ID)
def test_the_function_takes_what_the_node_declares(id):
    node = NODES_BY_ID[id]
    signature = inspect.signature(getattr(node, node.METHOD))
    declared = node.INPUT_TYPES()
    for name in inputs(node):
        assert name in signature.parameters, f"{id}.{name}"
    hidden = declared.get("hidden", {})
    for name in (*declared.get("optional", {}), *hidden):
        assert signature.parameters[name].default is not inspect.Parameter.empty, f"{id}.{name} needs a default"
    for name, spec in declared.get("optional", {}).items():
        if "default" in spec[1] and not getattr(node, "DEPRECATED", False):
            assert signature.parameters[name].default == spec[1]["default"], f"{id}.{name}"


@pytest.mark.parametrize("value", [5, "x", [1], {}, None, torch.rand(1, 2, 2, 3)])
def test_a_socket_refuses_what_is_not_of_its_type(value):
    """ComfyUI hands on whatever a program puts into a graph where a link belongs."""
    with pytest.raises(SettingError, match="'depth' takes Depth, got .*connect"):
        NODES_BY_ID["FathomDepthToImage"]().run(depth=value)
    image = torch.rand(1, 4, 4, 3)
    with pytest.raises(SettingError, match="'depth' takes Depth"):
        NODES_BY_ID["FathomFog"]().run(image=image, depth=value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_refused(value):
    """NaN is neither below the least nor above the most, so that ComfyUI lets it through."""
    with pytest.raises(SettingError, match="'limit_gb' takes a finite number"):
        NODES_BY_ID["FathomBundle"]().run(image=torch.rand(1, 4, 4, 3), depth="fathom-tiny", limit_gb=value)


@pytest.mark.parametrize(
    ("id", "given", "told"),
    [
        ("FathomEstimateDepth", {"estimator": {}}, "'estimator' takes one of the words that it lists, got dict"),
        ("AIO_Preprocessor", {"preprocessor": {"a": [1]}}, "'preprocessor' takes one of the words"),
        ("DownloadAndLoadDepthAnythingV2Model", {"model": "x"}, "model must be one of"),
        ("DownloadAndLoadDepthAnythingV2Model", {"precision": "fp8"}, "precision must be one of auto, fp32"),
        ("DepthAnything_V2", {"da_model": {}}, "'da_model' takes Annotator, got dict: connect"),
        ("DepthAnything_V3", {"da3_model": None}, "'da3_model' takes Annotator, got NoneType: connect"),
        ("MarigoldDepthEstimation_v2", {"marigold_model": 5}, "'marigold_model' takes Annotator, got int: connect"),
        ("VideoDepthAnythingProcess", {"vda_model": "x"}, "'vda_model' takes Annotator, got str: connect"),
        ("ImageGenResolutionFromLatent", {"latent": 5}, "'latent' takes dict, got int: connect"),
        ("ImageGenResolutionFromLatent", {"latent": {"a": 1}}, "latent: expected a latent"),
        ("ImageGenResolutionFromLatent", {"latent": {"samples": torch.zeros(3)}}, "latent: expected a latent"),
        ("ShufflePreprocessor", {"seed": "x"}, "seed must be a number, got 'x'"),
        ("FathomLoadDepth", {"file": 5}, "a file is named by text, got 5"),
    ],
)
def test_what_a_program_may_put_into_a_graph_is_refused_in_words(id, given, told):
    pictures = {"image", "images"} & set(NODES_BY_ID[id].INPUT_TYPES()["required"])
    usual = dict.fromkeys(pictures, torch.rand(1, 8, 8, 3))
    if id == "DownloadAndLoadDepthAnythingV2Model":
        usual["model"] = "depth_anything_v2_vits_fp32.safetensors"
    with pytest.raises(FathomError, match=told):
        NODES_BY_ID[id]().run(**{**usual, **given})


def test_every_digit_of_a_seed_counts():
    pictures = torch.rand(1, 64, 64, 3)
    node = NODES_BY_ID["ShufflePreprocessor"]()
    first, second = (node.run(image=pictures, resolution=64, seed=2**53 + n)[0] for n in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("node", NODES, ids=lambda n: n.__name__)
def test_a_file_that_another_node_names_is_left_to_the_run(node):
    """ComfyUI asks before the graph runs, with None or nothing for what a link brings."""
    for name in ("file", "key"):
        if name in node.INPUT_TYPES().get("required", {}) and hasattr(node, "VALIDATE_INPUTS"):
            assert node.VALIDATE_INPUTS() is True is node.VALIDATE_INPUTS(**{name: None})
            assert isinstance(node.VALIDATE_INPUTS(**{name: [1]}), str)
            if hasattr(node, "IS_CHANGED"):
                assert math.isnan(node.IS_CHANGED()) and math.isnan(node.IS_CHANGED(**{name: None}))


@pytest.mark.parametrize("node", NODES, ids=lambda n: n.__name__)
def test_own_nodes_can_be_found_by_the_words_people_use(node):
    assert node.__name__.startswith("Fathom") and node.DISPLAY_NAME.startswith("Fathom ")
    assert len(node.SEARCH_ALIASES) >= 2 and all(a == a.strip() for a in node.SEARCH_ALIASES)


def found_by(word):
    """Ids of own nodes whose display name or aliases hold the word."""
    words = {n.__name__: " | ".join([n.DISPLAY_NAME, *n.SEARCH_ALIASES]).lower() for n in NODES}
    return {id for id, text in words.items() if word.lower() in text}


@pytest.mark.parametrize(
    ("word", "id"),
    [
        *((w, "FathomEstimateDepth") for w in ("depth", "z-depth", "disparity", "controlnet", "preprocessor", "midas")),
        *((w, "FathomEstimateDepth") for w in ("DPT", "depth anything", "DAv2", "zoe", "marigold", "leres")),
        *((w, "FathomEstimateNormals") for w in ("normal", "normal map", "bae", "controlnet")),
        *((w, "FathomSegment") for w in ("segmentation", "seg", "semantic", "ade20k", "oneformer", "controlnet")),
        *((w, "FathomLensBlur") for w in ("bokeh", "dof", "depth of field")),
        *((w, "FathomDepthField") for w in ("depth mask", "threshold")),
        ("DAv2", "FathomDepthAnythingV2"),
        *((w, "FathomMarigoldAppearance") for w in ("albedo", "roughness", "metallic", "PBR", "delight")),
        *((w, "FathomMarigoldLighting") for w in ("relight", "shading", "albedo", "shadow")),
        ("haze", "FathomFog"),
        ("point cloud", "FathomPointCloud"),
        ("glb", "FathomMesh"),
        ("iphone", "FathomLoadPhoneDepth"),
        ("sbs", "FathomStereoDepth"),
        ("realsense", "FathomRGBDDepth"),
        ("cache", "FathomBundle"),
        ("exr", "FathomSaveDepth"),
    ],
)
def test_a_search_for_this_word_finds_the_node(word, id):
    assert id in found_by(word)


WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")


@pytest.mark.parametrize("node", NODES, ids=lambda n: n.__name__)
def test_advanced_inputs_stand_last(node):
    widgets = [spec[1] for spec in inputs(node).values() if isinstance(spec[0], list) or spec[0] in WIDGETS]
    flags = [bool(told.get("advanced")) for told in widgets]
    assert flags == sorted(flags), list(inputs(node))


def test_licences_stand_where_the_model_is_chosen():
    for name in ("FathomEstimateDepth", "FathomMiDaSDepth", "FathomBundle"):
        for listed, told, *_ in inputs(NODES_BY_ID[name]).values():
            for id in told.get("estimators", ()):
                assert id in listed and told["estimators"][id]["licence"] == str(fathom.estimators()[id].licence)
    told = inputs(NODES_BY_ID["FathomEstimateDepth"])["estimator"][1]
    assert set(told["estimators"]) == set(inputs(NODES_BY_ID["FathomEstimateDepth"])["estimator"][0])
    assert len(told["tooltip"]) < 400, "a tooltip that is taller than the window shows nothing"
    assert "preview" in told["tooltip"] and told["estimators"]["fathom-tiny"]["preview"]


def test_estimators_stand_in_the_packs_own_folder():
    for id in ("FathomEstimateDepth", "FathomEstimateNormals", "FathomSegment", "FathomClassMask"):
        assert NODES_BY_ID[id].CATEGORY == "Fathom/Estimate"


def test_people_find_what_they_search_for():
    words = {word for node in NODES for word in getattr(node, "SEARCH_ALIASES", ())}
    assert {"sky mask", "controlnet depth", "matting", "remove background", "export ply"} <= words


def test_a_list_tells_what_is_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("FATHOM_MODELS", str(tmp_path))
    fields._on_disk.cache_clear()
    told = fields.choice(["leres"], "leres")[1]["estimators"]["leres"]
    assert told["size"] > 2**20 and told["url"].startswith("https://") and not fields._on_disk("leres", 0)
    source = fathom.estimators()["leres"].sources[0]
    path = tmp_path / source.folder / source.file
    path.parent.mkdir(parents=True)
    path.touch()
    assert fields._on_disk("leres", 1) and not fields._on_disk("leres", 0)
    fields._on_disk.cache_clear()


def test_estimate_depth_gives_the_picture_and_the_depth(scene):
    before = scene.clone()
    image, depth = NODES_BY_ID["FathomEstimateDepth"]().execute(scene, "fathom-tiny", 64)
    assert isinstance(depth, Depth) and image.shape == (1, 64, 85, 3) and torch.equal(scene, before)
    assert torch.equal(image, depth.to_image())


def test_a_second_run_opens_no_file(scene, monkeypatch):
    node = NODES_BY_ID["FathomEstimateDepth"]
    first = node().execute(scene, "fathom-tiny", 64)[0]

    def refuse(*_args, **_kwargs):
        raise AssertionError("a weights file was opened again")

    monkeypatch.setattr("fathom.annotator.estimator.read", refuse)
    assert torch.equal(node().execute(scene, "fathom-tiny", 64)[0], first)


# ------------------------------------------------------------------------------- drop-ins


@pytest.fixture
def through_tiny(monkeypatch, tiny_annotator):
    """Let the cache hand out tiny variants, and note which estimators were asked for."""
    asked = []

    def take(e, dtype=None):
        asked.append((e.id, dtype))
        return tiny_annotator(e.id)

    monkeypatch.setattr(estimate.cache, "take", take)
    return asked


def test_marigold_appearance_gives_the_numbers(through_tiny, tiny_annotator, scene):
    node = NODES_BY_ID["FathomMarigoldAppearance"]()
    albedo, roughness, metallicity = node.execute(scene, "marigold-appearance", 48, 1, 3, 7, 64)
    made = tiny_annotator("marigold-appearance")(scene, 48, steps=1, ensemble_size=3, seed=7, processing_resolution=64)
    assert torch.equal(albedo, made.map("albedo")) and albedo.shape == (1, 48, 64, 3)
    for image, name in ((roughness, "roughness"), (metallicity, "metallicity")):
        assert torch.equal(image, made.map(name)[..., None].expand(-1, -1, -1, 3))


def test_marigold_lighting_shows_light_or_gives_it_to_compute_with(through_tiny, tiny_annotator, scene):
    node = NODES_BY_ID["FathomMarigoldLighting"]()
    made = tiny_annotator("marigold-lighting")(scene, 48, steps=1, seed=7, processing_resolution=64)
    shown = node.execute(scene, "marigold-lighting", 48, 1, 1, 7, 64)
    assert all(torch.equal(image, made.to_image(n)) for image, n in zip(shown, made.names, strict=True))
    assert shown[1].amax() == 1 and made.map("shading").amax() < 1
    light = node.execute(scene, "marigold-lighting", 48, 1, 1, 7, 64, colour_space="linear")
    assert all(torch.equal(image, made.map(n)) for image, n in zip(light, made.names, strict=True))
    films = torch.cat([scene, 0.2 * scene])
    own, together = (node.execute(films, "marigold-lighting", 48, 1, 1, 7, 64, scope) for scope in ("image", "batch"))
    assert own[1].amax((1, 2, 3)).tolist() == [1, 1] and together[1].amax((1, 2, 3)).tolist().count(1) == 1


@pytest.mark.parametrize(
    ("id", "kind"),
    [("FathomEstimateDepth", "depth"), ("FathomEstimateNormals", "normals"), ("FathomSegment", "segmentation")],
)
def test_a_drop_down_lists_its_own_kind_alone(id, kind):
    assert inputs(NODES_BY_ID[id])["estimator"][0] == [
        e.id for e in fathom.estimators().values() if kind in e.produces and not e.takes
    ]


@pytest.mark.parametrize("id", dropin.PREPROCESSORS)
def test_drop_ins_are_called_as_ever(id, through_tiny, scene):
    node = NODES_BY_ID[id]
    assert node.DEPRECATED and NODES_BY_ID[f"Inference_Core_{id}"] is node
    run = getattr(node(), node.FUNCTION)
    assert run(scene)[0].shape == (1, 512, 683, 3)
    assert run(scene, resolution=100)[0].shape == (1, 100, 133, 3)
    assert run(image=scene, resolution=None)[0].shape == (1, 512, 683, 3)
    assert run(image=scene, resolution=32)[0].shape[1] == 512


def test_midas_drop_ins_take_a_and_bg_threshold_in_order(through_tiny, scene):
    normal = NODES_BY_ID["MiDaS-NormalMapPreprocessor"]()
    flat = normal.execute(scene, 15.0, 0.9, resolution=64)[0]
    steep = normal.execute(scene, 0.5, 0.0, resolution=64)[0]
    assert not torch.equal(flat, steep)
    assert list(inspect.signature(normal.execute).parameters)[:4] == ["image", "a", "bg_threshold", "resolution"]
    assert torch.equal(normal.execute(scene, None, None, None)[0], normal.execute(scene)[0])


def test_checkpoint_names_choose_the_model(through_tiny, scene):
    NODES_BY_ID["DepthAnythingV2Preprocessor"]().execute(scene, "depth_anything_v2_vits.pth", 64)
    NODES_BY_ID["DepthAnythingPreprocessor"]().execute(scene)
    assert [id for id, _ in through_tiny] == ["depth-anything-v2-small", "depth-anything-large"]
    with pytest.raises(fathom.SettingError, match="ckpt_name must be one of"):
        NODES_BY_ID["DepthAnythingPreprocessor"]().execute(scene, "depth_anything_vitx14.pth")


def test_aio_runs_any_preprocessor_by_name(through_tiny, scene):
    aio = NODES_BY_ID["AIO_Preprocessor"]()
    assert aio.execute("none", scene)[0] is scene
    assert aio.execute("OneFormer-ADE20K-SemSegPreprocessor", scene, 64)[0].shape == (1, 64, 85, 3)
    with pytest.raises(fathom.SettingError, match="comfyui_controlnet_aux"):
        aio.execute("DWPreprocessor", scene, 64)
    selected = NODES_BY_ID["ControlNetPreprocessorSelector"]().get_preprocessor("Zoe-DepthMapPreprocessor")
    assert selected == ("Zoe-DepthMapPreprocessor",)


def test_kijais_depth_anything_pair_gives_even_sides(through_tiny):
    (model,) = NODES_BY_ID["DownloadAndLoadDepthAnythingV2Model"]().loadmodel("depth_anything_v2_vits_fp32.safetensors")
    (image,) = NODES_BY_ID["DepthAnything_V2"]().process(model, torch.rand(2, 45, 61, 3))
    assert image.shape == (2, 44, 60, 3)
    assert through_tiny == [("depth-anything-v2-small", torch.float32)]


def test_kijais_marigold_pair(through_tiny):
    (model,) = NODES_BY_ID["MarigoldModelLoader"]().load("prs-eth/marigold-depth-lcm-v1-0")
    picture = torch.rand(1, 48, 64, 3)
    (image,) = NODES_BY_ID["MarigoldDepthEstimation_v2"]().process(model, picture, 1, 1, 64, 1, "LCMScheduler", False)
    assert image.shape == (1, 48, 64, 3)


def test_leres_cuts_as_the_old_node_did(through_tiny, scene):
    node = NODES_BY_ID["LeReS-DepthMapPreprocessor"]()
    whole = node.execute(scene, resolution=64)[0]
    cut = node.execute(scene, 30, 20, 64)[0]
    assert torch.equal(cut, whole.masked_fill(1 - whole <= 0.3, 1.0).masked_fill(whole <= 0.2, 0.0))


def test_leres_boost_is_the_other_network(through_tiny, scene):
    node = NODES_BY_ID["LeReS-DepthMapPreprocessor"]()
    plain, boosted = (node.execute(scene, resolution=64, boost=b)[0] for b in ("disable", "enable"))
    assert boosted.shape == plain.shape and not torch.equal(boosted, plain)


def test_ids_of_other_packs_are_left_alone():
    kept = dropin.free(lambda id: id == "AIO_Preprocessor")
    assert "AIO_Preprocessor" not in kept and "Inference_Core_AIO_Preprocessor" in kept


@pytest.mark.parametrize("node", NODES, ids=lambda n: n.__name__)
def test_every_node_has_a_help_page_that_names_its_inputs(node):
    page = ROOT / "web" / "docs" / f"{node.__name__}.md"
    assert page.is_file(), f"{page.name} is missing"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {node.DISPLAY_NAME}\n")
    for name in (*inputs(node), *node.RETURN_NAMES):
        assert f"**{name}**" in text, f"{page.name} does not tell about {name}"
    for name, (kind, *rest) in inputs(node).items():
        # Lists of estimators are explained by the tooltip; those without a default are files.
        if name != "estimator" and isinstance(kind, list) and len(kind) <= 6 and "default" in rest[0]:
            missing = [choice for choice in kind if not re.search(rf"\b{re.escape(choice)}\b", text)]
            assert not missing, f"{page.name} does not tell what {name} may be: {missing}"


def test_help_pages_have_a_node():
    assert {p.stem for p in (ROOT / "web" / "docs").glob("*.md")} == {n.__name__ for n in NODES}


def test_pages_of_tools_show_what_they_do():
    pages = ROOT / "web" / "docs"
    shown = {}
    for page in pages.glob("*.md"):
        shown[page.stem] = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
        for name in shown[page.stem]:
            assert (pages / name).stat().st_size < 90_000
    tools = ("Fathom/Depth Tools", "Fathom/Regions", "Fathom/Geometry", "Fathom/Depth Sources")
    bare = [n.__name__ for n in NODES if n.CATEGORY in tools and not shown[n.__name__]]
    assert not bare and shown["FathomBundle"], bare
    used = {Path(name).name for names in shown.values() for name in names}
    assert used == {p.name for p in (pages / "images").iterdir()}


def test_presets_set_what_their_node_has():
    for node in NODES_BY_ID.values():
        types = node.INPUT_TYPES()
        inputs = {**types.get("required", {}), **types.get("optional", {})}
        for _, told in (spec for spec in inputs.values() if len(spec) > 1):
            for preset in told.get("presets", {}).values():
                for name, value in preset.items():
                    kind, limits = inputs[name]
                    assert (
                        value in kind
                        if isinstance(kind, list)
                        else kind == "STRING" or (limits["min"] <= value <= limits["max"])
                    ), (node, name, value)
