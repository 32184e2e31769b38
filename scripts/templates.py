"""Write example_workflows/*.json, the graphs that ComfyUI offers as templates.

    python scripts/templates.py

Their thumbnails come from running them: tests/test_templates.py writes them when FATHOM_THUMBNAILS names a folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fathom
from fathom.nodes.preset import PRESETS

FOLDER = Path(__file__).parents[1] / "example_workflows"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMPOSITOR")
GREEN, BLUE = "#8fd6a5", "#9cc8f0"

# Nodes of ComfyUI's own: sockets, widgets with the values that are used here, outputs. Their order is ComfyUI's.
CORE: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str, Any]], list[tuple[str, str]]]] = {
    "LoadImage": (
        [],
        [("image", "COMBO", "example.png"), ("upload", "IMAGEUPLOAD", "image")],
        [("IMAGE", "IMAGE"), ("MASK", "MASK")],
    ),
    "PreviewImage": ([("images", "IMAGE")], [], []),
    "SaveImage": ([("images", "IMAGE")], [("filename_prefix", "STRING", "fathom")], []),
    "MaskToImage": ([("mask", "MASK")], [], [("IMAGE", "IMAGE")]),
    "PreviewAny": ([("source", "*")], [], []),
    "CheckpointLoaderSimple": (
        [],
        [("ckpt_name", "COMBO", "v1-5-pruned-emaonly-fp16.safetensors")],
        [("MODEL", "MODEL"), ("CLIP", "CLIP"), ("VAE", "VAE")],
    ),
    "ControlNetLoader": ([], [("control_net_name", "COMBO", "")], [("CONTROL_NET", "CONTROL_NET")]),
    "CLIPTextEncode": ([("clip", "CLIP")], [("text", "STRING", "")], [("CONDITIONING", "CONDITIONING")]),
    "ControlNetApplyAdvanced": (
        [
            ("positive", "CONDITIONING"),
            ("negative", "CONDITIONING"),
            ("control_net", "CONTROL_NET"),
            ("image", "IMAGE"),
        ],
        [("strength", "FLOAT", 1.0), ("start_percent", "FLOAT", 0.0), ("end_percent", "FLOAT", 1.0)],
        [("positive", "CONDITIONING"), ("negative", "CONDITIONING")],
    ),
    "EmptyLatentImage": (
        [],
        [("width", "INT", 768), ("height", "INT", 512), ("batch_size", "INT", 1)],
        [("LATENT", "LATENT")],
    ),
    "KSampler": (
        [("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("latent_image", "LATENT")],
        [
            ("seed", "INT", 1),
            ("control_after_generate", "COMBO", "randomize"),
            ("steps", "INT", 20),
            ("cfg", "FLOAT", 7.0),
            ("sampler_name", "COMBO", "euler"),
            ("scheduler", "COMBO", "normal"),
            ("denoise", "FLOAT", 1.0),
        ],
        [("LATENT", "LATENT")],
    ),
    "VAEDecode": ([("samples", "LATENT"), ("vae", "VAE")], [], [("IMAGE", "IMAGE")]),
    "LoadVideo": ([], [("file", "COMBO", "video.mp4"), ("upload", "IMAGEUPLOAD", "image")], [("VIDEO", "VIDEO")]),
    "GetVideoComponents": (
        [("video", "VIDEO")],
        [],
        [("images", "IMAGE"), ("audio", "AUDIO"), ("fps", "FLOAT")],
    ),
    "SaveWEBM": (
        [("images", "IMAGE")],
        [
            ("filename_prefix", "STRING", "fathom"),
            ("codec", "COMBO", "vp9"),
            ("fps", "FLOAT", 24.0),
            ("crf", "FLOAT", 24.0),
        ],
        [],
    ),
    "ImageToMask": ([("image", "IMAGE")], [("channel", "COMBO", "red")], [("MASK", "MASK")]),
    "ImageBlend": (
        [("image1", "IMAGE"), ("image2", "IMAGE")],
        [("blend_factor", "FLOAT", 0.5), ("blend_mode", "COMBO", "normal")],
        [("IMAGE", "IMAGE")],
    ),
    "ImageCompositeMasked": (
        [("destination", "IMAGE"), ("source", "IMAGE"), ("mask", "MASK")],
        [("x", "INT", 0), ("y", "INT", 0), ("resize_source", "BOOLEAN", False)],
        [("IMAGE", "IMAGE")],
    ),
    "ImageScale": (
        [("image", "IMAGE")],
        [
            ("upscale_method", "COMBO", "lanczos"),
            ("width", "INT", 1024),
            ("height", "INT", 0),
            ("crop", "COMBO", "disabled"),
        ],
        [("IMAGE", "IMAGE")],
    ),
    "GetImageSize": ([("image", "IMAGE")], [], [("width", "INT"), ("height", "INT"), ("batch_size", "INT")]),
    "EmptySD3LatentImage": (
        [],
        [("width", "INT", 1024), ("height", "INT", 1024), ("batch_size", "INT", 1)],
        [("LATENT", "LATENT")],
    ),
    "UNETLoader": (
        [],
        [("unet_name", "COMBO", ""), ("weight_dtype", "COMBO", "default")],
        [("MODEL", "MODEL")],
    ),
    "LoraLoaderModelOnly": (
        [("model", "MODEL")],
        [("lora_name", "COMBO", ""), ("strength_model", "FLOAT", 1.0)],
        [("MODEL", "MODEL")],
    ),
    "CLIPLoader": (
        [],
        [("clip_name", "COMBO", ""), ("type", "COMBO", ""), ("device", "COMBO", "default")],
        [("CLIP", "CLIP")],
    ),
    "DualCLIPLoader": (
        [],
        [
            ("clip_name1", "COMBO", ""),
            ("clip_name2", "COMBO", ""),
            ("type", "COMBO", ""),
            ("device", "COMBO", "default"),
        ],
        [("CLIP", "CLIP")],
    ),
    "VAELoader": ([], [("vae_name", "COMBO", "")], [("VAE", "VAE")]),
    "FluxGuidance": (
        [("conditioning", "CONDITIONING")],
        [("guidance", "FLOAT", 10.0)],
        [("CONDITIONING", "CONDITIONING")],
    ),
    "ConditioningZeroOut": ([("conditioning", "CONDITIONING")], [], [("CONDITIONING", "CONDITIONING")]),
    "InstructPixToPixConditioning": (
        [("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("vae", "VAE"), ("pixels", "IMAGE")],
        [],
        [("positive", "CONDITIONING"), ("negative", "CONDITIONING"), ("latent", "LATENT")],
    ),
    "ModelPatchLoader": ([], [("name", "COMBO", "")], [("MODEL_PATCH", "MODEL_PATCH")]),
    "QwenImageDiffsynthControlnet": (
        [("model", "MODEL"), ("model_patch", "MODEL_PATCH"), ("vae", "VAE"), ("image", "IMAGE"), ("mask", "MASK")],
        [("strength", "FLOAT", 1.0)],
        [("MODEL", "MODEL")],
    ),
    "ModelSamplingAuraFlow": ([("model", "MODEL")], [("shift", "FLOAT", 3.0)], [("MODEL", "MODEL")]),
    "ImageCompositor": (
        [("layers", "LAYERS")],
        [("compositor", "COMPOSITOR", {})],
        [("IMAGE", "IMAGE"), ("MASK", "MASK")],
    ),
}
SEEN = ("PreviewImage", "SaveImage", "LoadImage", "LoadVideo", "SaveWEBM")
SD15 = "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
CONTROLNETS = "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
SDXL = "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/"
SDXL_DEPTH = "https://huggingface.co/diffusers/controlnet-depth-sdxl-1.0/resolve/main/"
FLUX = "https://huggingface.co/Comfy-Org/flux1-dev/resolve/main/"
FLUX_TEXT = "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/"
QWEN = "https://huggingface.co/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files/"
QWEN_CONTROL = "https://huggingface.co/Comfy-Org/Qwen-Image-DiffSynth-ControlNets/resolve/main/split_files/"
Z_IMAGE = "https://huggingface.co/Comfy-Org/z_image_turbo/resolve/main/split_files/"
Z_CONTROL = "https://huggingface.co/alibaba-pai/Z-Image-Turbo-Fun-Controlnet-Union/resolve/main/"


def model(name: str, folder: str, directory: str) -> dict[str, str]:
    """An entry of a node's `properties.models`, which the front end offers to download."""
    return {"name": name, "url": f"{folder}{name}", "directory": directory}


def weights_of(ids: str) -> list[dict[str, str]]:
    """The entries for the estimators that a comma-separated text names; none for one that ships with the pack."""
    made = []
    for id in (part.strip() for part in ids.split(",")):
        estimator = fathom.estimators().get(id)
        if estimator is not None and estimator.embedded is None:
            source = estimator.sources[0]
            address = f"https://huggingface.co/{source.repo}/resolve/{source.revision}/"
            made.append(model(source.file, address, f"annotators/{source.folder}"))
    return made


def _own(type: str) -> tuple[list[tuple[str, str]], list[tuple[str, str, Any]], list[tuple[str, str]]]:
    """As an entry of CORE, for a node of this pack."""
    node = fathom.NODE_CLASS_MAPPINGS[type]
    sockets, widgets = [], []
    types = node.INPUT_TYPES()
    for name, (kind, *rest) in {**types["required"], **types.get("optional", {})}.items():
        settings = rest[0] if rest else {}
        kind = "COMBO" if isinstance(kind, (list, tuple)) else kind
        if kind in WIDGETS:
            widgets.append((name, kind, settings.get("default", "")))
        else:
            sockets.append((name, kind))
    return sockets, widgets, list(zip(node.RETURN_NAMES, node.RETURN_TYPES, strict=True))


class Graph:
    """A graph in the editor's format, laid out in columns from left to right."""

    def __init__(self, about: str) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.groups: list[tuple[str, str, list[int]]] = []
        self._open: list[int] = []
        self.about = about

    def add(self, type: str, /, *, title: str = "", models: Sequence[Mapping[str, str]] = (), **given: Any) -> Any:
        """Add a node. given: an input by name, a widget's value or the output of another node: `node["image"]`.

        models: what the front end offers to download for it; unset = the weights of the estimator that is given.
        """
        sockets, widgets, outputs = CORE[type] if type in CORE else _own(type)
        models = models or weights_of(given.get("estimator", ""))
        unknown = given.keys() - {s[0] for s in sockets} - {w[0] for w in widgets}
        if unknown:
            raise ValueError(f"{type} has no input {', '.join(sorted(unknown))}")
        id = len(self.nodes) + 1
        inputs: list[dict[str, Any]] = [{"name": name, "type": kind, "link": None} for name, kind in sockets]
        values = []
        for name, kind, default in widgets:
            linked = isinstance(given.get(name), _Output)
            values.append(default if linked else given.get(name, default))
            if linked:
                inputs.append({"name": name, "type": kind, "widget": {"name": name}, "link": None})
        column = 0
        for slot, socket in enumerate(inputs):
            source = given.get(socket["name"])
            if isinstance(source, _Output):
                column = max(column, source.column + 1)
                link = len(self.links) + 1
                self.links.append([link, source.id, source.slot, id, slot, source.kind])
                socket["link"] = link
                self.nodes[source.id - 1]["outputs"][source.slot]["links"].append(link)
        lines = len(inputs) + len(values)
        shows = 230 if type in SEEN or type.startswith("Fathom") else 0
        text = 80 if type == "CLIPTextEncode" else 120 if type == "PreviewAny" else 0
        node = {
            "id": id,
            "type": type,
            "pos": [0, 0],
            "size": [330, 40 + 26 * max(lines, len(outputs)) + shows + text],
            "flags": {},
            "order": id - 1,
            "mode": 0,
            "inputs": inputs,
            "outputs": [{"name": name, "type": kind, "links": []} for name, kind in outputs],
            "properties": {"Node name for S&R": type, **({"models": list(models)} if models else {})},
            "widgets_values": values,
            "column": column,
        }
        if title:
            node["title"] = title
        self.nodes.append(node)
        self._open.append(id)
        return {name: _Output(id, slot, kind, column) for slot, (name, kind) in enumerate(outputs)}

    def group(self, title: str, colour: str = GREEN) -> None:
        """Frame the nodes added since the last group."""
        self.groups.append((title, colour, self._open))
        self._open = []

    def data(self) -> dict[str, Any]:
        """The graph as the editor saves it."""
        lines = self.about.count("\n") + len(self.about) // 60 + 3
        note = {
            "id": len(self.nodes) + 1,
            "type": "MarkdownNote",
            "pos": [0, 0],
            "size": [400, 40 + 22 * lines],
            "flags": {},
            "order": len(self.nodes),
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "title": "What to do",
            "properties": {},
            "widgets_values": [self.about],
            "color": "#233",
            "bgcolor": "#355",
        }
        frames, top = [], 0
        for title, colour, ids in self.groups:
            members = [self.nodes[id - 1] for id in ids]
            first = min(n["column"] for n in members)
            heights: dict[int, int] = {}
            for node in members:
                beside = [self.nodes[link[1] - 1] for link in self.links if link[3] == node["id"] and link[1] in ids]
                y = max([heights.get(node["column"], top + 70), *(source["pos"][1] for source in beside)])
                node["pos"] = [460 + 390 * node["column"], y]
                heights[node["column"]] = y + node["size"][1] + 60
            bottom, columns = max(heights.values()), max(heights) - first + 1
            frames.append(
                {
                    "id": len(frames) + 1,
                    "title": title,
                    "bounding": [440 + 390 * first, top, 390 * columns - 20, bottom - top],
                    "color": colour,
                    "font_size": 36,
                    "flags": {},
                }
            )
            top = bottom + 60
        nodes = [{k: v for k, v in node.items() if k != "column"} for node in self.nodes]
        return {
            "last_node_id": len(nodes) + 1,
            "last_link_id": len(self.links),
            "nodes": [*nodes, note],
            "links": self.links,
            "groups": frames,
            "config": {},
            # The note is the first thing that is seen, and can be read.
            # By the mark the front end knows a graph whose picture it may bring along (web/js/samples.mjs).
            "extra": {"ds": {"scale": 0.8, "offset": [60, 120]}, "fathom": {"template": True}},
            "version": 0.4,
        }


class _Output:
    def __init__(self, id: int, slot: int, kind: str, column: int) -> None:
        self.id, self.slot, self.kind, self.column = id, slot, kind, column


def depth_of(graph: Graph, image: Any, estimator: str = "depth-anything-v2-small", **more: Any) -> Any:
    """A Fathom Depth Map node."""
    return graph.add("FathomEstimateDepth", image=image, estimator=estimator, **more)


def show_mask(graph: Graph, mask: Any, title: str) -> None:
    """A mask as a picture to look at."""
    picture = graph.add("MaskToImage", mask=mask)
    graph.add("PreviewImage", title=title, images=picture["IMAGE"])


def diffusion(graph: Graph, image: Any, controlnet: str, prompt: str) -> None:
    """The diffusion part: Stable Diffusion 1.5 and a ControlNet over the conditioning picture."""
    base = checkpoint(graph, "v1-5-pruned-emaonly-fp16.safetensors", SD15)
    control = graph.add(
        "ControlNetLoader", control_net_name=controlnet, models=[model(controlnet, CONTROLNETS, "controlnet")]
    )
    with_controlnet(graph, base, control, image, prompt, graph.add("EmptyLatentImage")["LATENT"])
    graph.group("Paint it anew (Stable Diffusion 1.5)", BLUE)


def checkpoint(graph: Graph, name: str, folder: str) -> Any:
    """A checkpoint of model, text encoder and VAE."""
    return graph.add("CheckpointLoaderSimple", ckpt_name=name, models=[model(name, folder, "checkpoints")])


def with_controlnet(graph: Graph, base: Any, control: Any, image: Any, prompt: str, empty: Any) -> None:
    """A checkpoint and a ControlNet over the conditioning picture, to a saved picture."""
    good = graph.add("CLIPTextEncode", title="What to paint", clip=base["CLIP"], text=prompt)
    bad = graph.add("CLIPTextEncode", title="What to avoid", clip=base["CLIP"], text="blurry, low quality")
    both = graph.add(
        "ControlNetApplyAdvanced",
        positive=good["CONDITIONING"],
        negative=bad["CONDITIONING"],
        control_net=control["CONTROL_NET"],
        image=image,
        strength=0.9,
    )
    paint(graph, base["MODEL"], both["positive"], both["negative"], empty, base["VAE"])


def paint(graph: Graph, model: Any, good: Any, bad: Any, latent: Any, vae: Any, **settings: Any) -> None:
    """From noise to a saved picture. settings: of the sampler."""
    painted = graph.add("KSampler", model=model, positive=good, negative=bad, latent_image=latent, **settings)
    decoded = graph.add("VAEDecode", samples=painted["LATENT"], vae=vae)
    graph.add("SaveImage", images=decoded["IMAGE"])


def control_picture(graph: Graph, control_model: str, scaled: bool = True) -> Any:
    """The picture that a control model was trained with. scaled: bring a photo of any size to what the model paints."""
    photo = graph.add("LoadImage")
    image = graph.add("ImageScale", image=photo["IMAGE"]) if scaled else photo
    made = graph.add(
        "FathomControlNetPreset",
        image=image["IMAGE"],
        control_model=control_model,
        models=weights_of(PRESETS[control_model].estimator),
    )
    graph.add("PreviewImage", title="Depth map", images=made["image"])
    graph.add("PreviewAny", title="Who says so", source=made["about"])
    graph.group("The picture that the control model knows")
    return made["image"]


def sized(graph: Graph, type: str, image: Any) -> Any:
    """An empty latent of a picture's size."""
    size = graph.add("GetImageSize", image=image)
    return graph.add(type, width=size["width"], height=size["height"])["LATENT"]


def patched(graph: Graph, image: Any, prompt: str, files: Mapping[str, tuple[str, str]], kind: str) -> Any:
    """A diffusion model with a patch that follows the control picture: (model, positive, VAE, text encoder).

    files: (name, folder on the Hub) of "model", "text", "vae" and "patch". kind: of the text encoder.
    """

    def entry(part: str, directory: str) -> list[dict[str, str]]:
        return [model(*files[part], directory)]

    base = graph.add("UNETLoader", unet_name=files["model"][0], models=entry("model", "diffusion_models"))
    clip = graph.add("CLIPLoader", clip_name=files["text"][0], type=kind, models=entry("text", "text_encoders"))
    vae = graph.add("VAELoader", vae_name=files["vae"][0], models=entry("vae", "vae"))["VAE"]
    patch = graph.add("ModelPatchLoader", name=files["patch"][0], models=entry("patch", "model_patches"))
    shifted = graph.add("ModelSamplingAuraFlow", model=base["MODEL"], shift=3.1 if kind == "qwen_image" else 3.0)
    followed = graph.add(
        "QwenImageDiffsynthControlnet",
        model=shifted["MODEL"],
        model_patch=patch["MODEL_PATCH"],
        vae=vae,
        image=image,
    )
    good = graph.add("CLIPTextEncode", title="What to paint", clip=clip["CLIP"], text=prompt)
    return followed["MODEL"], good["CONDITIONING"], vae, clip["CLIP"]


def depth_controlnet() -> Graph:
    """Depth to a depth ControlNet."""
    graph = Graph(
        "## Depth to ControlNet\n\n1. Choose your picture in **Load Image**.\n2. Run. The depth map shows which things "
        "are near: near is white.\n3. Say what to paint in **What to paint**; the picture's space stays.\n\nDepth "
        "Anything V2 Small is fetched when it first runs. **fathom-tiny** needs no download and is a rough preview. "
        "Set the size of the new picture in **Empty Latent Image** to the shape of yours."
    )
    photo = graph.add("LoadImage")
    depth = depth_of(graph, photo["IMAGE"])
    graph.add("PreviewImage", title="Depth map", images=depth["image"])
    graph.group("Depth of the picture")
    diffusion(graph, depth["image"], "control_v11f1p_sd15_depth_fp16.safetensors", "a cosy reading room, oil painting")
    return graph


def depth_on_sdxl() -> Graph:
    """Depth to SDXL's depth ControlNet."""
    graph = Graph(
        "## Depth on SDXL\n\n1. Choose your picture in **Load Image**.\n2. Run. **ControlNet Preset** runs the "
        "annotator that this ControlNet was trained with, MiDaS at 1024.\n3. Say what to paint in **What to "
        "paint**.\n\nThe ControlNet's file has a name that others have too: if yours is elsewhere, choose it in **Load "
        "ControlNet Model**."
    )
    image = control_picture(graph, "SDXL depth (diffusers)", scaled=False)
    name = "diffusion_pytorch_model.fp16.safetensors"
    base = checkpoint(graph, "sd_xl_base_1.0.safetensors", SDXL)
    control = graph.add("ControlNetLoader", control_net_name=name, models=[model(name, SDXL_DEPTH, "controlnet")])
    empty = sized(graph, "EmptyLatentImage", image)
    with_controlnet(graph, base, control, image, "a winter garden, watercolour", empty)
    graph.group("Paint it anew (SDXL)", BLUE)
    return graph


def depth_on_flux() -> Graph:
    """Depth to FLUX.1 Depth."""
    graph = Graph(
        "## Depth on FLUX.1\n\n1. Choose your picture in **Load Image**; it is brought to a width of 1024.\n2. Run. "
        "**ControlNet Preset** draws depth as FLUX.1 Depth was trained: Depth Anything V1 Large, darker than you may "
        "be used to.\n3. Say what to paint in **What to paint**.\n\nFLUX.1 dev and Depth Anything V1 Large have "
        "licences of their own: **Who says so** tells the second."
    )
    image = control_picture(graph, "FLUX.1 Depth")
    unet, lora = "flux1-dev-fp8.safetensors", "flux1-depth-dev-lora.safetensors"
    base = graph.add("UNETLoader", unet_name=unet, models=[model(unet, FLUX, "diffusion_models")])
    control = graph.add(
        "LoraLoaderModelOnly",
        model=base["MODEL"],
        lora_name=lora,
        models=[model(lora, f"{FLUX}split_files/loras/", "loras")],
    )
    texts = ("clip_l.safetensors", "t5xxl_fp16.safetensors")
    clip = graph.add(
        "DualCLIPLoader",
        clip_name1=texts[0],
        clip_name2=texts[1],
        type="flux",
        models=[model(text, FLUX_TEXT, "text_encoders") for text in texts],
    )
    # The autoencoder is FLUX.1's own; Z-Image has the same file.
    vae = graph.add("VAELoader", vae_name="ae.safetensors", models=[model("ae.safetensors", f"{Z_IMAGE}vae/", "vae")])
    good = graph.add("CLIPTextEncode", title="What to paint", clip=clip["CLIP"], text="a glass house at dawn")
    guided = graph.add("FluxGuidance", conditioning=good["CONDITIONING"])
    none = graph.add("ConditioningZeroOut", conditioning=good["CONDITIONING"])
    both = graph.add(
        "InstructPixToPixConditioning",
        positive=guided["CONDITIONING"],
        negative=none["CONDITIONING"],
        vae=vae["VAE"],
        pixels=image,
    )
    paint(graph, control["MODEL"], both["positive"], both["negative"], both["latent"], vae["VAE"], cfg=1.0)
    graph.group("Paint it anew (FLUX.1 dev)", BLUE)
    return graph


def depth_on_qwen_image() -> Graph:
    """Depth to DiffSynth's blockwise control of Qwen-Image."""
    graph = Graph(
        "## Depth on Qwen-Image\n\n1. Choose your picture in **Load Image**; it is brought to a width of 1024.\n2. Run."
        " **ControlNet Preset** draws depth as DiffSynth's examples do, by MiDaS.\n3. Say what to paint in **What to "
        "paint**."
    )
    image = control_picture(graph, "Qwen-Image Blockwise depth (DiffSynth)")
    files = {
        "model": ("qwen_image_fp8_e4m3fn.safetensors", f"{QWEN}diffusion_models/"),
        "text": ("qwen_2.5_vl_7b_fp8_scaled.safetensors", f"{QWEN}text_encoders/"),
        "vae": ("qwen_image_vae.safetensors", f"{QWEN}vae/"),
        "patch": ("qwen_image_depth_diffsynth_controlnet.safetensors", f"{QWEN_CONTROL}model_patches/"),
    }
    unet, good, vae, clip = patched(graph, image, "a paper theatre, soft light", files, "qwen_image")
    bad = graph.add("CLIPTextEncode", title="What to avoid", clip=clip, text=" ")["CONDITIONING"]
    latent = sized(graph, "EmptySD3LatentImage", image)
    paint(graph, unet, good, bad, latent, vae, cfg=2.5, scheduler="simple")
    graph.group("Paint it anew (Qwen-Image)", BLUE)
    return graph


def depth_on_z_image() -> Graph:
    """Depth to the union control of Z-Image Turbo."""
    graph = Graph(
        "## Depth on Z-Image\n\n1. Choose your picture in **Load Image**; it is brought to a width of 1024.\n2. Run. "
        "**ControlNet Preset** draws depth as the makers of this control model do, by ZoeDepth.\n3. Say what to paint "
        "in **What to paint**.\n\nNeeds a ComfyUI of December 2025 or newer, which knows Z-Image."
    )
    image = control_picture(graph, "Z-Image Union depth")
    files = {
        "model": ("z_image_turbo_bf16.safetensors", f"{Z_IMAGE}diffusion_models/"),
        "text": ("qwen_3_4b.safetensors", f"{Z_IMAGE}text_encoders/"),
        "vae": ("ae.safetensors", f"{Z_IMAGE}vae/"),
        "patch": ("Z-Image-Turbo-Fun-Controlnet-Union.safetensors", Z_CONTROL),
    }
    unet, good, vae, _ = patched(graph, image, "a library in a forest, evening sun", files, "lumina2")
    none = graph.add("ConditioningZeroOut", conditioning=good)["CONDITIONING"]
    latent = sized(graph, "EmptySD3LatentImage", image)
    settings = {"steps": 8, "cfg": 1.0, "sampler_name": "res_multistep", "scheduler": "simple"}
    paint(graph, unet, good, none, latent, vae, **settings)
    graph.group("Paint it anew (Z-Image Turbo)", BLUE)
    return graph


def normals_controlnet() -> Graph:
    """Normals to a normal ControlNet."""
    graph = Graph(
        "## Surface normals to ControlNet\n\n1. Choose your picture in **Load Image**.\n2. Run. Colours say which way "
        "each surface faces.\n3. **Normals by a network** feeds the ControlNet; **Normals from depth** shows what any "
        "depth model gives, with the look of the first normal ControlNet: **a** makes it flatter."
    )
    photo = graph.add("LoadImage")
    depth = depth_of(graph, photo["IMAGE"])
    derived = graph.add("FathomDepthToNormals", title="Normals from depth", depth=depth["depth"], method="midas")
    graph.add("PreviewImage", title="Normals from depth", images=derived["image"])
    graph.group("From depth")
    normals = graph.add(
        "FathomEstimateNormals", title="Normals by a network", image=photo["IMAGE"], estimator="normal-bae"
    )
    graph.add("PreviewImage", title="Normal map", images=normals["image"])
    graph.group("By a network")
    diffusion(graph, normals["image"], "control_v11p_sd15_normalbae_fp16.safetensors", "a marble statue, studio light")
    return graph


def segmentation_controlnet() -> Graph:
    """Regions to a segmentation ControlNet, and a mask by name."""
    graph = Graph(
        "## Segmentation to ControlNet\n\n1. Choose your picture in **Load Image**.\n2. Run. Every colour is a kind of "
        "thing; **Legend** lists them.\n3. Write names from the legend into **Fathom Class Mask** for a mask, such as "
        "wall, floor, sky."
    )
    photo = graph.add("LoadImage")
    regions = graph.add("FathomSegment", image=photo["IMAGE"], estimator="oneformer-ade20k")
    graph.add("PreviewImage", title="Regions", images=regions["image"])
    graph.add("PreviewAny", title="Legend", source=regions["legend"])
    mask = graph.add("FathomClassMask", labels=regions["labels"], classes="wall, floor")
    show_mask(graph, mask["mask"], "Mask")
    graph.group("Regions of the picture")
    diffusion(graph, regions["image"], "control_v11p_sd15_seg_fp16.safetensors", "the same place at night, neon light")
    return graph


def compare_estimators() -> Graph:
    """Models side by side."""
    chosen = "fathom-tiny, depth-anything-v2-small, midas-dpt-hybrid, zoedepth-n, normal-bae"
    graph = Graph(
        "## Compare estimators\n\n1. Choose your picture in **Load Image**.\n2. Choose the models in the list of "
        "**Compare Estimators**.\n3. Run. Models are fetched when they first run, "
        "ZoeDepth alone is 1.4 GB: remove what you do not want."
    )
    photo = graph.add("LoadImage")
    sheet = graph.add("FathomCompareEstimators", image=photo["IMAGE"], estimators=chosen, models=weights_of(chosen))
    graph.add("SaveImage", images=sheet["image"], filename_prefix="compare")
    graph.group("Side by side")
    return graph


def fog_and_lens_blur() -> Graph:
    """Fog and lens blur from one depth."""
    graph = Graph(
        "## Fog and lens blur\n\n1. Choose your picture in **Load Image**.\n2. Run. One depth feeds everything; only "
        "what you change runs again.\n3. **Fog**: density and colour. **Lens Blur**: radius, and focus from 0, the "
        "farthest, to 1, the nearest. **Depth Field** is the mask for effects of your own."
    )
    photo = graph.add("LoadImage")
    depth = depth_of(graph, photo["IMAGE"])
    graph.group("Depth once")
    fog = graph.add("FathomFog", image=photo["IMAGE"], depth=depth["depth"], density=1.5, colour="#c9d4dc")
    graph.add("PreviewImage", title="Fog", images=fog["image"])
    blur = graph.add(
        "FathomLensBlur", image=photo["IMAGE"], depth=depth["depth"], radius=12.0, focus=0.9, highlights=0.5
    )
    graph.add("PreviewImage", title="Lens blur", images=blur["image"])
    field = graph.add("FathomDepthField", depth=depth["depth"])
    show_mask(graph, field["mask"], "Mask by depth")
    graph.group("Look after look")
    return graph


def region_crisp_depth() -> Graph:
    """Depth with the borders of regions."""
    graph = Graph(
        "## Region-crisp depth\n\nDepth networks blur borders. Two cures:\n\n- **Depth by Region** gives depth the "
        "borders of a segmentation, or of masks: connect SAM's or your own to **masks** instead.\n- **Refine Edges** "
        "moves soft edges to those of the photo.\n\n**Order Regions** tells which region is nearest: k = 1, 2, ..., "
        "and -1 is the farthest."
    )
    photo = graph.add("LoadImage")
    depth = depth_of(graph, photo["IMAGE"], resolution=0)
    regions = graph.add("FathomSegment", image=photo["IMAGE"], estimator="oneformer-ade20k", resolution=0)
    graph.group("Depth and regions")
    crisp = graph.add("FathomDepthByRegion", depth=depth["depth"], segmentation=regions["labels"])
    graph.add("PreviewImage", title="Crisp by region", images=crisp["image"])
    graph.add("PreviewAny", title="Depth of every region", source=crisp["statistics"])
    order = graph.add("FathomOrderRegions", depth=depth["depth"], segmentation=regions["labels"])
    show_mask(graph, order["kth"], "The nearest region")
    refined = graph.add("FathomRefineEdges", depth=depth["depth"], image=photo["IMAGE"])
    graph.add("PreviewImage", title="Refined by the photo", images=refined["image"])
    graph.group("Crisp borders")
    return graph


def phone_depth() -> Graph:
    """The depth in a phone's photo."""
    graph = Graph(
        "## Phone depth\n\n1. Drop a portrait or LiDAR photo (HEIC) on **Load Phone Depth**, or choose it with the "
        "button there. Send it as a file: messengers remove the depth.\n2. Run. No network is "
        "needed.\n\nNeeds the package **pillow-heif** in ComfyUI's Python: `pip install pillow-heif`."
    )
    phone = graph.add("FathomLoadPhoneDepth", file="portrait.heic")
    graph.add("PreviewAny", title="What the phone says", source=phone["info"])
    refined = graph.add("FathomRefineEdges", depth=phone["depth"], image=phone["image"])
    graph.add("PreviewImage", title="Depth at the photo's size", images=refined["image"])
    graph.group("The phone's depth")
    blur = graph.add("FathomLensBlur", image=phone["image"], depth=refined["depth"], radius=10.0, focus=1.0)
    graph.add("PreviewImage", title="Another lens", images=blur["image"])
    graph.group("What it is good for")
    return graph


def stereo_depth() -> Graph:
    """Depth from two cameras."""
    graph = Graph(
        "## Stereo depth\n\n1. Choose a side-by-side stereo picture in **Load Image**; for two files load both, set "
        "**layout** to separate and connect **right**.\n2. With **focal** (pixels) and **baseline** (metres) of the "
        "camera the depth is in metres.\n3. **Holes** are points that only one camera sees.\n4. **Parallax** moves a "
        "camera over the picture."
    )
    photo = graph.add("LoadImage")
    stereo = graph.add("FathomStereoDepth", image=photo["IMAGE"], layout="side by side, left first")
    graph.add("PreviewImage", title="Depth, holes black", images=stereo["image"])
    show_mask(graph, stereo["holes"], "Holes")
    graph.group("Depth by matching")
    shown = graph.add("FathomDepthToImage", depth=stereo["depth"], mode="percentile")
    graph.add("SaveImage", title="Depth map", images=shown["image"], filename_prefix="stereo")
    graph.add("FathomSaveDepth", depth=stereo["depth"], filename_prefix="depth/stereo", format="exr")
    graph.group("Keep it")
    return graph


def bundle_variations() -> Graph:
    """One picture taken apart once, many looks."""
    graph = Graph(
        "## Bundle: take apart once, vary for free\n\n1. Choose your picture in **Load Image**.\n2. Run. **Fathom "
        "Bundle** runs its models once and keeps the result on disk.\n3. Change any look and run again: no network "
        "runs, not even after a restart."
    )
    photo = graph.add("LoadImage")
    kept = graph.add(
        "FathomBundle",
        image=photo["IMAGE"],
        depth="depth-anything-v2-small",
        models=weights_of("depth-anything-v2-small"),
    )
    graph.add("FathomInspectBundle", bundle=kept["bundle"])
    graph.group("Once")
    image, depth = kept["image"], kept["depth"]
    looks = {
        "Fog": graph.add("FathomFog", image=image, depth=depth, density=1.5),
        "Lens blur": graph.add("FathomLensBlur", image=image, depth=depth, radius=10.0, focus=1.0),
        "Dream halo": graph.add("FathomDreamHalo", image=image, depth=depth),
        "Bands": graph.add("FathomBandStyle", image=image, depth=depth),
    }
    for title, look in looks.items():
        graph.add("PreviewImage", title=title, images=look["image"])
    graph.group("As often as you like")
    return graph


def video_without_flicker() -> Graph:
    """Depth of a video, on a scale that does not flicker."""
    graph = Graph(
        "## Video depth without flicker\n\n1. Choose a video in **Load Video**.\n2. Run. **scope** is video: black and "
        "white follow each shot slowly and start anew at a cut, so a passing thing does not make everything pump. "
        "batch keeps one scale for the whole clip.\n3. The depth video is in the output folder, with the frame rate of "
        "the input."
    )
    video = graph.add("LoadVideo")
    parts = graph.add("GetVideoComponents", video=video["VIDEO"])
    depth = depth_of(graph, parts["images"], scope="video")
    graph.add("PreviewImage", title="Frames", images=depth["image"])
    graph.add("SaveWEBM", images=depth["image"], fps=parts["fps"], filename_prefix="video/depth")
    graph.group("Depth of every frame")
    return graph


def which_face_is_furthest_back() -> Graph:
    """One face of several, by its depth."""
    graph = Graph(
        "## Which face is furthest back?\n\n1. Choose a picture with several people in **Load Image**.\n2. Run. "
        "**Fathom Pick** orders the faces by depth: rank 1 is the nearest, 2 the next, -1 the furthest.\n3. **Picked** "
        "tells its distance in metres. A rank that the picture does not have gives an empty mask and says so."
    )
    photo = graph.add("LoadImage")
    faces = graph.add("FathomFindFaces", image=photo["IMAGE"], estimator="yunet")
    graph.add("PreviewImage", title="Faces", images=faces["image"])
    space = graph.add("FathomMoGe", image=photo["IMAGE"], estimator="moge-2-small")
    graph.group("Faces and metres")
    picked = graph.add("FathomPick", instances=faces["instances"], depth=space["depth"], by="depth", rank=-1)
    show_mask(graph, picked["mask"], "The furthest face")
    graph.add("PreviewAny", title="Picked", source=picked["picked"])
    graph.group("Which one")
    return graph


def a_layer_for_each_person() -> Graph:
    """People cut out as layers in the order of their depth."""
    graph = Graph(
        "## A layer for each person\n\n1. Choose a picture with people in **Load Image**.\n2. Run. Everyone is cut out "
        "by themselves; the nearest is the top layer.\n3. **names** takes any other thing: dog, car.\n\n**Create "
        "Layered Image** is ComfyUI's own, of 2026: in an older ComfyUI delete it; **Cutouts** are the same layers."
    )
    photo = graph.add("LoadImage")
    people = graph.add("FathomFindObjects", image=photo["IMAGE"], estimator="oneformer-coco-objects", names="person")
    graph.add("PreviewImage", title="People", images=people["image"])
    depth = depth_of(graph, photo["IMAGE"])
    graph.group("Who, and how far")
    cut = graph.add(
        "FathomIsolate", image=photo["IMAGE"], instances=people["instances"], depth=depth["depth"], background="whole"
    )
    graph.add("PreviewImage", title="Cutouts", images=cut["cutouts"])
    graph.add("PreviewAny", title="Where each lies", source=cut["placed"])
    layered = graph.add("ImageCompositor", layers=cut["layers"])
    graph.add("SaveImage", title="Layered", images=layered["IMAGE"], filename_prefix="layers")
    graph.group("A layer each")
    return graph


def isolate_with_soft_depth() -> Graph:
    """What is near, cut out by depth alone, and a soft mask."""
    graph = Graph(
        "## Isolate the subject with soft depth\n\n1. Choose your picture in **Load Image**.\n2. Run. **Fathom "
        "Isolate** cuts out what is nearer than **nearer**: 0 is the farthest, 1 the nearest; its edges follow the "
        "photo.\n3. **Soft by depth** fades instead of cutting: move **start** and **end** of Depth Field."
    )
    photo = graph.add("LoadImage")
    depth = depth_of(graph, photo["IMAGE"])
    graph.group("Depth once")
    cut = graph.add("FathomIsolate", image=photo["IMAGE"], depth=depth["depth"], nearer=0.5, joined=True)
    graph.add("SaveImage", title="The subject", images=cut["cutouts"], filename_prefix="subject")
    soft = graph.add("FathomDepthField", depth=depth["depth"], start=0.3, end=0.6, easing="smoothstep")
    show_mask(graph, soft["mask"], "Soft by depth")
    fog = graph.add("FathomFog", image=photo["IMAGE"], depth=depth["depth"], density=3.0, colour="#ffffff")
    faded = graph.add("ImageCompositeMasked", destination=fog["image"], source=photo["IMAGE"], mask=soft["mask"])
    graph.add("PreviewImage", title="Before white", images=faded["IMAGE"])
    graph.group("Hard and soft")
    return graph


def relight_only_the_nearest() -> Graph:
    """Light from the side on the nearest thing alone."""
    graph = Graph(
        "## Relight only the nearest thing\n\n1. Choose your picture in **Load Image**.\n2. Run. The nearest thing is "
        "lit from the right, all else stays.\n3. **channel**: red lights from the right, green from above. **rank** "
        "chooses another thing, **blend_factor** how strong the light is."
    )
    photo = graph.add("LoadImage")
    objects = graph.add("FathomFindObjects", image=photo["IMAGE"], estimator="oneformer-coco-objects")
    space = graph.add("FathomMoGe", image=photo["IMAGE"], estimator="moge-2-small", convention="opengl")
    graph.add("PreviewImage", title="Normals", images=space["normal_image"])
    nearest = graph.add("FathomPick", instances=objects["instances"], depth=space["depth"], by="depth", rank=1)
    cut = graph.add("FathomIsolate", image=photo["IMAGE"], instances=nearest["instance"])
    show_mask(graph, cut["mask"], "The nearest thing")
    graph.group("The nearest thing and its shape")
    light = graph.add("ImageToMask", title="Light from the right", image=space["normal_image"], channel="red")
    shade = graph.add("MaskToImage", mask=light["MASK"])
    lit = graph.add("ImageBlend", image1=photo["IMAGE"], image2=shade["IMAGE"], blend_factor=1.0, blend_mode="overlay")
    made = graph.add("ImageCompositeMasked", destination=photo["IMAGE"], source=lit["IMAGE"], mask=cut["mask"])
    graph.add("SaveImage", title="Relit", images=made["IMAGE"], filename_prefix="relit")
    graph.group("Light it")
    return graph


def metres_normals_and_focal() -> Graph:
    """Everything that one forward of MoGe-2 gives."""
    graph = Graph(
        "## Metres, normals and focal length from one pass\n\n1. Choose your picture in **Load Image**.\n2. Run. "
        "MoGe-2 gives depth in metres, surface normals and the camera's lens at once.\n3. **Depth Inspector** tells "
        "the metres under the pointer; the point cloud has the right shape, because the lens is known."
    )
    photo = graph.add("LoadImage")
    space = graph.add("FathomMoGe", image=photo["IMAGE"], estimator="moge-2-small")
    graph.add("PreviewImage", title="Depth", images=space["image"])
    graph.add("PreviewImage", title="Normals", images=space["normal_image"])
    graph.group("One pass")
    seen = graph.add("FathomDepthInspector", depth=space["depth"])
    graph.add("PreviewImage", title="In metres", images=seen["image"])
    graph.add("FathomPointCloud", depth=space["depth"], image=photo["IMAGE"])
    graph.group("What it is good for")
    return graph


def film_that_holds_still() -> Graph:
    """Depth of a film by a network that sees its frames together."""
    graph = Graph(
        "## A film that holds still\n\n1. Choose a video in **Load Video**.\n2. Run. Video Depth Anything looks at 32 "
        "frames at a time, so depth does not flicker, and a film of any length takes the memory of those 32.\n3. The "
        "depth video is in the output folder, with the frame rate of the input."
    )
    video = graph.add("LoadVideo")
    parts = graph.add("GetVideoComponents", video=video["VIDEO"])
    depth = depth_of(graph, parts["images"], "video-depth-anything-small", scope="batch")
    graph.add("PreviewImage", title="Frames", images=depth["image"])
    graph.add("SaveWEBM", images=depth["image"], fps=parts["fps"], filename_prefix="video/still")
    graph.group("Depth of the film")
    return graph


def phone_lidar_made_sharp() -> Graph:
    """A coarse measured depth, at the photo's size."""
    graph = Graph(
        "## A phone's LiDAR made sharp\n\n1. Put the depth map that your scanner app saved (16-bit PNG, 256x192) into "
        "ComfyUI's **input** folder, reload the page, choose it in **RGB-D Depth** and its photo in **Load Image**."
        "\n2. Run. The result has the photo's size and edges, and keeps the measured metres.\n\nFor an iPhone's HEIC "
        "use **Load Phone Depth** instead."
    )
    photo = graph.add("LoadImage")
    coarse = graph.add("FathomRGBDDepth", file="lidar.png")
    graph.add("PreviewImage", title="As measured", images=coarse["image"])
    graph.group("Photo and LiDAR")
    whole = graph.add(
        "FathomCompleteDepth", image=photo["IMAGE"], measured=coarse["depth"], estimator="prompt-depth-anything-small"
    )
    graph.add("PreviewImage", title="Made sharp", images=whole["image"])
    graph.add("FathomSaveDepth", depth=whole["depth"], filename_prefix="depth/lidar", format="exr")
    graph.group("Made whole and sharp")
    return graph


TEMPLATES: dict[str, Callable[[], Graph]] = {
    made.__name__: made
    for made in (
        depth_controlnet,
        depth_on_sdxl,
        depth_on_flux,
        depth_on_qwen_image,
        depth_on_z_image,
        normals_controlnet,
        segmentation_controlnet,
        compare_estimators,
        fog_and_lens_blur,
        region_crisp_depth,
        phone_depth,
        stereo_depth,
        bundle_variations,
        video_without_flicker,
        which_face_is_furthest_back,
        a_layer_for_each_person,
        isolate_with_soft_depth,
        relight_only_the_nearest,
        metres_normals_and_focal,
        film_that_holds_still,
        phone_lidar_made_sharp,
    )
}


# ComfyUI shows people the name of the file as the template's title.
TITLES = {
    "depth_controlnet": "Depth to ControlNet, paint a picture anew in its space",
    "depth_on_sdxl": "Depth on SDXL, by the annotator it was trained with",
    "depth_on_flux": "Depth on FLUX, drawn as it was trained",
    "depth_on_qwen_image": "Depth on Qwen-Image",
    "depth_on_z_image": "Depth on Z-Image",
    "normals_controlnet": "Normals to ControlNet, keep every surface",
    "segmentation_controlnet": "Regions to ControlNet, and masks by name",
    "compare_estimators": "Compare models side by side",
    "fog_and_lens_blur": "Fog and lens blur from one depth",
    "region_crisp_depth": "Depth with crisp borders",
    "phone_depth": "The depth in a phone photo",
    "stereo_depth": "Depth from a stereo picture",
    "bundle_variations": "Take a picture apart once, vary for free",
    "video_without_flicker": "Depth of a video without flicker",
    "which_face_is_furthest_back": "Which face is furthest back",
    "a_layer_for_each_person": "A layer for each person",
    "isolate_with_soft_depth": "Isolate the subject with soft depth",
    "relight_only_the_nearest": "Relight only the nearest thing",
    "metres_normals_and_focal": "Metres, normals and focal length from one pass",
    "film_that_holds_still": "A film whose depth holds still",
    "phone_lidar_made_sharp": "A phone's LiDAR made sharp",
}


def main() -> None:
    """Write every template."""
    FOLDER.mkdir(exist_ok=True)
    for name, make in TEMPLATES.items():
        text = json.dumps(make().data(), indent=1, ensure_ascii=False)
        (FOLDER / f"{TITLES[name]}.json").write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
