"""The graphs that ComfyUI offers as templates: sound, in step with the nodes, and run to their conditioning images.

Depth is Fathom Tiny's. Networks for regions and normals, whose weights are not on disk, run as their tiny variants and
then answer with the truth of a procedural scene. With FATHOM_THUMBNAILS=<folder> the thumbnails are written there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent))

import people as drawn
import yunet_file
from graphs import declared, to_prompt, widget_names, without

import fathom
from fathom.nodes.preset import PRESETS

ROOT = Path(__file__).parents[1]
THUMBNAILS = os.environ.get("FATHOM_THUMBNAILS")
NEEDS_MODELS = {"CheckpointLoaderSimple", "ControlNetLoader", "UNETLoader", "LoraLoaderModelOnly", "CLIPLoader"}
NEEDS_MODELS |= {"DualCLIPLoader", "VAELoader", "ModelPatchLoader"}
STAND_INS = ("normal-bae", "oneformer-ade20k", "oneformer-coco-objects", "moge-2-small", "video-depth-anything-small")
STAND_INS += ("prompt-depth-anything-small", "depth-anything-3-small")
STAND_INS += ("midas-dpt-hybrid", "zoedepth-n", "depth-anything-large")
DIRECTORIES = ("checkpoints", "controlnet", "annotators", "diffusion_models", "text_encoders", "vae", "loras")
DIRECTORIES += ("model_patches",)
NETWORKS = ("yunet",)
"""Whose stand-in is a file of its own."""


def load(path):
    """A module by path."""
    spec = importlib.util.spec_from_file_location(f"by_path_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


templates = load(ROOT / "scripts" / "templates.py")
NAMES = list(templates.TEMPLATES)


def read(name):
    return json.loads((ROOT / "example_workflows" / f"{templates.TITLES[name]}.json").read_text(encoding="utf-8"))


def overlap(one, two):
    (x, y, w, h), (a, b, c, d) = one, two
    return x < a + c and a < x + w and y < b + d and b < y + h


# ------------------------------------------------------------------------------ the files


def test_the_folder_holds_each_template_with_its_thumbnail_and_nothing_else():
    held = {p.name for p in (ROOT / "example_workflows").iterdir()}
    titles = [templates.TITLES[name] for name in NAMES]
    assert held == {f"{t}.json" for t in titles} | {f"{t}.jpg" for t in titles}
    assert not [t for t in titles if "_" in t or "%" in t], "people read these, and addresses hold them"


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_what_the_script_writes(name):
    assert read(name) == templates.TEMPLATES[name]().data(), "run python scripts/templates.py"


@pytest.mark.parametrize("name", NAMES)
def test_nodes_stand_in_groups_side_by_side_with_a_note_on_what_to_do(name):
    graph = read(name)
    boxes = {n["id"]: (*n["pos"], *n["size"]) for n in graph["nodes"]}
    notes = [n for n in graph["nodes"] if n["type"] == "MarkdownNote"]
    assert len(notes) == 1 and notes[0]["widgets_values"][0].startswith("## ")
    ids = list(boxes)
    for place, id in enumerate(ids):
        for other in ids[place + 1 :]:
            assert not overlap(boxes[id], boxes[other]), f"{id} lies over {other}"
    for node in graph["nodes"]:
        x, y, w, h = boxes[node["id"]]
        inside = [g for g in graph["groups"] if g["bounding"][0] <= x and g["bounding"][1] <= y]
        inside = [g for g in inside if x + w <= sum(g["bounding"][::2]) and y + h <= sum(g["bounding"][1::2])]
        assert len(inside) == (node["type"] != "MarkdownNote"), node["type"]


@pytest.mark.parametrize("name", NAMES)
def test_links_to_models_are_told_where_a_file_is_needed(name):
    for node in read(name)["nodes"]:
        links = node["properties"].get("models", [])
        named = [v for v in node["widgets_values"] if isinstance(v, str)]
        if node["type"] in NEEDS_MODELS:
            assert [m["name"] for m in links] == [v for v in named if v.endswith(".safetensors")]
        named += [PRESETS[v].estimator for v in named if node["type"] == "FathomControlNetPreset" and v in PRESETS]
        chosen = [id.strip() for v in named for id in v.split(",") if id.strip() in fathom.estimators()]
        wanted = [e.sources[0] for id in chosen if not (e := fathom.estimators()[id]).embedded]
        if wanted:
            assert [m["name"] for m in links] == [s.file for s in wanted]
        for m in links:
            assert m["url"].startswith("https://huggingface.co/") and m["url"].endswith("/" + m["name"])
            assert m["directory"].split("/")[0] in DIRECTORIES


@pytest.mark.parametrize("name", NAMES)
def test_thumbnails_are_small_pictures(name):
    path = ROOT / "example_workflows" / f"{templates.TITLES[name]}.jpg"
    with Image.open(path) as image:
        assert image.format == "JPEG" and 300 <= image.width <= 800 and 200 <= image.height <= 600
        assert np.asarray(image.convert("L")).std() > 10
    assert path.stat().st_size < 60_000


# ------------------------------------------------------------------------------ running


@pytest.fixture(scope="module")
def scene():
    """A procedural scene with its truth."""
    from fathom.training.scenes import render

    return render([15], 320, 480, kind="interior")


@pytest.fixture(scope="module")
def prepared(comfyui, scene, tmp_path_factory):
    """ComfyUI with the templates' input files, and stand-ins for models that are not on disk."""
    from safetensors.torch import save_file

    from fathom.annotator.weights import Checkpoint

    phones = load(ROOT / "tests" / "test_phones.py")
    conftest = load(ROOT / "tests" / "conftest.py")
    inputs, folder = comfyui.base / "input", tmp_path_factory.mktemp("stand-ins")

    picture = (scene.image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(picture).save(inputs / "scene.png")
    with Image.open(ROOT / "assets" / "sample.png") as sample:
        sample.convert("RGB").save(inputs / "example.png")
    left, right = stereo_pair()
    pair = (torch.cat((left, right), 2)[0] * 255).round().byte().numpy()
    Image.fromarray(pair).save(inputs / "pair.png")
    write_video(inputs / "video.mp4", picture)

    for id in STAND_INS:
        tiny = fathom.estimators()[id].tiny()
        network = tiny.build(Checkpoint(folder / "none", {}, None, None))
        state = {k: v.contiguous() for k, v in conftest.seeded_state(network).items()}
        save_file(state, folder / f"{id}.safetensors")
    classes = torch.tensor([0, 3, 5, 19, 15, 7, 24, 22, 8, 57, 10, 33, 64, 23, 28, 36])  # of a room, in ADE20K
    torch.save({"labels": classes[scene.regions % len(classes)]}, folder / "oneformer-ade20k.pt")
    torch.save({"vectors": scene.normals}, folder / "normal-bae.pt")
    save_truths(folder, scene)
    prepare_people(inputs, folder)
    prepare_lidar(inputs, scene)
    (folder / "packages").mkdir()
    # Compiled for this Python's version: a ComfyUI on another one leaves out the templates that need them.
    carry(folder / "packages", "cv2", "cv2", "opencv_python*.libs")
    if carry(folder / "packages", "pillow_heif", "pillow_heif*", "_pillow_heif*"):
        depth = 1 / scene.depth[0]
        ramp = ((depth - depth.min()) / (depth.max() - depth.min()) * 255).round().byte().numpy()
        phones.phone(inputs / "portrait.heic", phones.apple_xmp(0.25, 3.5, "relative"), ramp=ramp, photo=picture)
    entry = comfyui.run({"1": {"class_type": "UseStandIns", "inputs": {"folder": str(folder)}}})
    assert entry["status"]["status_str"] == "success", entry["status"]
    return comfyui


def carry(packages, module, *parts):
    """Link what a module consists of from this environment into `packages`; whether there is such a module."""
    if (found := importlib.util.find_spec(module)) is None:
        return False
    site = Path(found.origin).parents[1]
    for part in (path for pattern in parts for path in site.glob(pattern)):
        (packages / part.name).symlink_to(part)
    return True


def save_truths(folder, scene):
    """What the stand-ins say of scene.png, and of the film that moves over it."""
    from fathom import Depth, Normals
    from fathom.signals.depth import depth_from_metres

    depth = depth_from_metres(scene.depth, focal=scene.focal)
    depth.save(folder / "moge-2-small.320x480.depth.npz")
    Normals(scene.normals).save(folder / "moge-2-small.320x480.normals.npz")
    depth.save(folder / "prompt-depth-anything-small.320x480.depth.npz")
    # What a control model's annotator says of scene.png: as it is, and brought to a width of 1024.
    for size in ((320, 480), (683, 1024)):
        metres = torch.nn.functional.interpolate(scene.depth[None], size, mode="nearest-exact")[0]
        for id in ("midas-dpt-hybrid", "zoedepth-n"):
            depth_from_metres(metres).save(folder / f"{id}.{size[0]}x{size[1]}.depth.npz")
        near = (1 / metres - 1 / metres.max()) / (1 / metres.min() - 1 / metres.max())
        raw = Depth(200 * near, "affine_inverse")
        raw.save(folder / f"depth-anything-large.{size[0]}x{size[1]}.depth.npz")
    frames = torch.stack([scene.depth[0, 40:280, 10 * step : 10 * step + 320] for step in range(6)])
    depth_from_metres(frames).save(folder / "video-depth-anything-small.240x320.depth.npz")


def prepare_people(inputs, folder):
    """The picture people.png, and stand-ins that know what is in it."""
    from fathom.training.scenes import render

    room = render([15], 352, 480, kind="interior")
    made = drawn.draw(room.image[0].permute(1, 2, 0), room.depth[0], room.normals[0])
    Image.fromarray(made.image).save(inputs / "people.png")
    made.depth.save(folder / "moge-2-small.352x480.depth.npz")
    made.normals.save(folder / "moge-2-small.352x480.normals.npz")
    made.objects.save(folder / "oneformer-coco-objects.352x480.objects.npz")
    if importlib.util.find_spec("onnx"):
        yunet_file.write(folder / "yunet.onnx")


def prepare_lidar(inputs, scene):
    """lidar.png: the distances of scene.png in millimetres as a phone gives them, coarse and with a hole."""
    metres = torch.nn.functional.interpolate(scene.depth[None], (40, 60), mode="nearest-exact")[0, 0]
    metres[10:16, 20:30] = 0
    levels = (metres.nan_to_num(0, 0, 0) * 1000).round().clamp(0, 65535).numpy().astype(np.uint16)
    Image.fromarray(levels).save(inputs / "lidar.png")


def stereo_pair():
    """What two cameras beside each other see of a procedural scene."""
    from fathom.signals.depth import depth_from_metres
    from fathom.tools.parallax import parallax
    from fathom.training.scenes import render

    room = render([17], 256, 384, kind="interior")
    depth = depth_from_metres(room.depth, focal=room.focal)
    views, _ = parallax(room.image.permute(0, 2, 3, 1), depth, frames=8, strength=0.06, focus=0.0)
    return views[6:7], views[2:3]


def write_video(path, picture):
    """Six frames that move over a picture."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for step in range(6):
            crop = np.ascontiguousarray(picture[40:280, 10 * step : 10 * step + 320])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(crop, format="rgb24")))
        container.mux(stream.encode())


def offline(prompt):
    """The prompt with fathom-tiny in place of depth models that are not on disk."""
    depth = set(fathom.estimators()) - {*STAND_INS, *NETWORKS}
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if node["class_type"] == "FathomCompareEstimators" and name == "estimators":
                node["inputs"][name] = "fathom-tiny, normal-bae"
            elif value in depth if isinstance(value, str) else False:
                node["inputs"][name] = "fathom-tiny"
    return prompt


INPUTS = {"stereo_depth": "pair.png", "normals_controlnet": "scene.png", "segmentation_controlnet": "scene.png"}
INPUTS |= {"region_crisp_depth": "scene.png", "compare_estimators": "scene.png"}
INPUTS |= {"which_face_is_furthest_back": "people.png", "a_layer_for_each_person": "people.png"}
INPUTS |= {"relight_only_the_nearest": "people.png", "metres_normals_and_focal": "scene.png"}
INPUTS |= {"phone_lidar_made_sharp": "scene.png"}
INPUTS |= {name: "scene.png" for name in NAMES if name.startswith("depth_on_")}
NEED = {"phone_depth": "pillow_heif", "stereo_depth": "cv2", "which_face_is_furthest_back": "cv2"}
OF_NEWER_CORES = {"ImageCompositor"}


def known_to(graph, nodes):
    """The graph without nodes that an older ComfyUI has not, and what hangs on them."""
    gone = {n["id"] for n in graph["nodes"] if n["type"] in OF_NEWER_CORES - nodes.keys()}
    for link in graph["links"]:
        if link[1] in gone:
            gone.add(link[3])
    return {**graph, "nodes": [n for n in graph["nodes"] if n["id"] not in gone]}


@pytest.mark.comfyui
@pytest.mark.parametrize("name", NAMES)
def test_the_template_runs(name, prepared):
    nodes = prepared.get("/object_info")
    graph = known_to(read(name), nodes)
    whole = to_prompt(graph, nodes)
    for node in whole.values():
        for input, kind, options in declared(nodes[node["class_type"]]):
            listed = kind if isinstance(kind, list) else options.get("options") or []
            value = node["inputs"].get(input)
            if node["class_type"] in NEEDS_MODELS | {"KSampler"} and listed and isinstance(value, str):
                assert value in listed or value.endswith(".safetensors"), f"{node['class_type']}.{input}: {value}"
    prompt = offline(without(whole, NEEDS_MODELS))
    if name in NEED and not has(prepared, NEED[name]):
        pytest.skip(f"ComfyUI has no {NEED[name]}, and its Python cannot load this environment's")
    for node in prompt.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = INPUTS.get(name, node["inputs"]["image"])
    entry = prepared.run(prompt, 300)
    assert entry["status"]["status_str"] == "success", entry["status"]
    shown = {}
    for node in graph["nodes"]:
        if node["type"] in ("PreviewImage", "SaveImage") and str(node["id"]) in prompt:
            files = entry["outputs"][str(node["id"])]["images"]
            shown[node.get("title", node["type"])] = [picture_of(prepared, file) for file in files]
    assert shown
    for title, pictures in shown.items():
        for picture in pictures:
            assert picture.std() > 1, f"{title} is one colour"
    check_said(name, graph, entry["outputs"])
    if THUMBNAILS:
        write_thumbnail(Path(THUMBNAILS) / f"{templates.TITLES[name]}.jpg", name, prepared, shown)


def check_said(name, graph, outputs):
    """What the previews of text must say."""
    said = {n["title"]: outputs[str(n["id"])]["text"][0] for n in graph["nodes"] if n["type"] == "PreviewAny"}
    if name == "which_face_is_furthest_back":
        (picked,) = json.loads(said["Picked"])
        column, _, radius, metres, *_ = drawn.PEOPLE[-1]
        assert picked["metres"] == pytest.approx(metres) and picked["of"] == len(drawn.PEOPLE)
        assert abs((picked["box"][0] + picked["box"][2]) / 2 - column) < radius
    if name == "a_layer_for_each_person":
        placed = json.loads(said["Where each lies"])
        assert sorted(p["z_index"] for p in placed) == [1, 2, 3] and {p["name"] for p in placed} == {"person"}


@pytest.mark.comfyui
def test_things_go_from_node_to_node_and_through_a_bundle(prepared):
    if not has(prepared, "cv2"):
        pytest.skip("ComfyUI has no cv2, and its Python cannot load this environment's")

    def node(type, **inputs):
        return {"class_type": type, "inputs": inputs}

    pick = {"rank": 1, "names": "", "by": "left to right"}
    nothing = dict.fromkeys(("normals", "segmentation"), "none")
    prompt = {
        "photo": node("LoadImage", image="people.png"),
        "faces": node("FathomFindFaces", image=["photo", 0], estimator="yunet", score=0.9, least=0, most=100),
        "boxes": node("FathomInstances", image=["photo", 0], name="face", boxes=["faces", 3]),
        "masks": node("FathomInstances", image=["photo", 0], name="face", masks=["faces", 1]),
        "depth": node("FathomDepthAnything3", image=["photo", 0], estimator="depth-anything-3-small", resolution=64),
        "first": node("FathomPick", instances=["boxes", 2], depth=["depth", 1], **pick),
        "last": node("FathomPick", instances=["masks", 2], **{**pick, "rank": -1}),
        "ordered": node("FathomOrderRegions", depth=["depth", 1], k=1, instances=["masks", 2], statistic="median",
                        percentile=50.0, erode=0),
        "bundle": node("FathomBundle", image=["photo", 0], depth="fathom-tiny", resolution=64, faces="yunet",
                       objects="oneformer-coco-objects", **nothing),
        "seen": node("FathomInspectBundle", bundle=["bundle", 0]),
        "previews": node("PreviewImage", images=["seen", 1]),
        "one": node("PreviewAny", source=["first", 4]),
        "other": node("PreviewAny", source=["last", 4]),
        "order": node("MaskToImage", mask=["ordered", 1]),
        "shown": node("PreviewImage", images=["order", 0]),
    }  # fmt: skip
    entry = prepared.run(prompt, 300)
    assert entry["status"]["status_str"] == "success", entry["status"]
    for id, person in (("one", drawn.PEOPLE[0]), ("other", drawn.PEOPLE[-1])):
        (picked,) = json.loads(entry["outputs"][id]["text"][0])
        assert abs((picked["box"][0] + picked["box"][2]) / 2 - person[0]) < person[2]
    previews = [picture_of(prepared, file) for file in entry["outputs"]["previews"]["images"]]
    assert len(previews) == 4 and all(p.std() > 1 for p in previews)  # the picture, depth, faces, objects


def has(comfyui, module):
    """Whether ComfyUI's Python has a compiled module, or is the version that this environment's is compiled for."""
    version = comfyui.get("/system_stats")["system"]["python_version"]
    same = version.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.") and importlib.util.find_spec(module)
    return bool(same) or subprocess.run([comfyui.python, "-c", f"import {module}"], capture_output=True).returncode == 0


def picture_of(comfyui, file):
    folder = comfyui.base / file["type"] if file["type"] != "temp" else comfyui.base / "temp"
    with Image.open(folder / file["subfolder"] / file["filename"]) as image:
        if image.mode == "RGBA":
            # What is transparent lies over grey.
            image = Image.alpha_composite(Image.new("RGBA", image.size, "#606060"), image)
        return np.asarray(image.convert("RGB"))


def write_thumbnail(path, name, comfyui, shown):
    """Up to four of the pictures shown, the input first unless it is among them, in one small JPEG."""
    files = {"phone_depth": "scene.png", "video_without_flicker": "scene.png", "film_that_holds_still": "scene.png"}
    with Image.open(comfyui.base / "input" / (files.get(name) or INPUTS.get(name, "example.png"))) as image:
        first = np.asarray(image.convert("RGB"))
    pictures = [first, *(p for listed in shown.values() for p in listed[-1:])]
    if name == "compare_estimators":
        pictures = pictures[1:]
    if name == "stereo_depth":
        pictures[0] = first[:, : first.shape[1] // 2]
    height, width = (160, 240) if len(pictures) > 3 else (320, 480 // len(pictures))
    cells = [
        ImageOps.fit(Image.fromarray(p), (width, height), Image.Resampling.LANCZOS, centering=(0.2, 0.5))
        for p in pictures[:4]
    ]
    sheet = Image.new("RGB", (480, 320))
    for place, cell in enumerate(cells):
        sheet.paste(cell, (place * width % 480, place * width // 480 * height))
    sheet.save(path, quality=82)


@pytest.mark.comfyui
def test_comfyui_offers_the_templates(comfyui):
    # Their files are served too, but aiohttp's static routes find none in a folder with spaces in its name.
    offered = comfyui.get("/workflow_templates")["fathom 0.1 test"]
    assert sorted(offered) == sorted(templates.TITLES[name] for name in NAMES)


# ------------------------------------------------------------------------------ the converter


INFO = {
    "Pic": {
        "input": {"required": {"image": [["a.png"], {"image_upload": True}]}},
        "output": ["IMAGE"],
    },
    "Net": {
        "input": {
            "required": {"image": ["IMAGE"], "seed": ["INT", {}], "mode": [["x", "y"], {}]},
            "optional": {"scale": ["FLOAT", {}]},
        },
        "output": ["IMAGE"],
    },
}


def small_graph():
    pic = {"id": 1, "type": "Pic", "inputs": [], "outputs": [{"links": [1]}], "widgets_values": ["a.png", "image"]}
    socket = {"name": "image", "type": "IMAGE", "link": 1}
    net = {"id": 2, "type": "Net", "inputs": [socket], "outputs": [{"links": []}]}
    net["widgets_values"] = [7, "randomize", "y", 0.5]
    return {"nodes": [pic, net, {"id": 3, "type": "MarkdownNote"}], "links": [[1, 1, 0, 2, 0, "IMAGE"]]}


def test_the_converter_reads_widgets_by_place_and_links_by_socket():
    prompt = to_prompt(small_graph(), INFO)
    assert prompt == {
        "1": {"class_type": "Pic", "inputs": {"image": "a.png"}},
        "2": {"class_type": "Net", "inputs": {"image": ["1", 0], "seed": 7, "mode": "y", "scale": 0.5}},
    }
    assert without(prompt, {"Pic"}) == {}


def test_the_converter_refuses_what_does_not_agree():
    graph = small_graph()
    graph["nodes"][1]["widgets_values"].pop()
    with pytest.raises(AssertionError, match="widgets are"):
        to_prompt(graph, INFO)
    graph = small_graph()
    graph["links"][0][5] = "MASK"
    with pytest.raises(AssertionError, match="gives no MASK"):
        to_prompt(graph, INFO)
    assert widget_names(INFO["Net"]) == ["seed", None, "mode", "scale"]
