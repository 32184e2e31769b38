"""Marigold against diffusers' own pipelines, on tiny networks in folders of the published layout."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fathom
from fathom.annotator import host, loading
from fathom.annotator.sizing import MAX_NETWORK_PIXELS
from fathom.models import estimator

IDS = {
    "depth": "marigold-depth",
    "normals": "marigold-normals",
    "appearance": "marigold-appearance",
    "lighting": "marigold-lighting",
}
PIPELINES = {
    "depth": "MarigoldDepthPipeline",
    "normals": "MarigoldNormalsPipeline",
    "appearance": "MarigoldIntrinsicsPipeline",
    "lighting": "MarigoldIntrinsicsPipeline",
}
# As the repositories' own model_index.json tells.
MEASURE = {"prediction_space": "linear", "up_to_scale": False}
TARGETS = {
    "appearance": {
        "target_names": ["albedo", "material"],
        "albedo": {"prediction_space": "srgb"},
        "material": {"prediction_space": "stack", "sub_target_names": ["roughness", "metallicity", None]},
        "roughness": MEASURE,
        "metallicity": MEASURE,
    },
    "lighting": {
        "target_names": ["albedo", "shading", "residual"],
        "albedo": MEASURE,
        "shading": {"prediction_space": "linear", "up_to_scale": True},
        "residual": {"prediction_space": "linear", "up_to_scale": True},
    },
}
DDIM = {
    **{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    **{"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
    **{"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1},
}
LCM = {
    **{"_class_name": "LCMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    **{"prediction_type": "v_prediction", "original_inference_steps": 50, "clip_sample": False},
}


def seed(module: torch.nn.Module) -> Any:
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data = torch.randn(parameter.shape, generator=generator) * fan**-0.5
    return module.eval()


def make_folder(root: Path, kind: str, scheduler: dict[str, Any]) -> Path:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    shapes: Any = estimator(IDS[kind]).tiny()
    seed(UNet2DConditionModel.from_config(dict(shapes.config["unet"]))).save_pretrained(root / "unet")
    seed(AutoencoderKL.from_config(dict(shapes.config["vae"]))).save_pretrained(root / "vae")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    seed(CLIPTextModel(CLIPTextConfig(vocab_size=49408, **sizes))).save_pretrained(root / "text_encoder")
    (root / "scheduler").mkdir()
    (root / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    index = {"_class_name": PIPELINES[kind], "default_denoising_steps": 3, "default_processing_resolution": 768}
    if kind in TARGETS:
        index["target_properties"] = TARGETS[kind]
    (root / "model_index.json").write_text(json.dumps(index))
    return root


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    made = {}
    for kind in IDS:
        for name, scheduler in (("ddim", DDIM), ("lcm", LCM)):
            made[kind, name] = make_folder(tmp_path_factory.mktemp(f"{kind}-{name}"), kind, scheduler)
    return made


@cache
def official(folder: Path, kind: str) -> Any:
    """diffusers' pipeline of the folder; the empty prompt goes through the folder's text encoder."""
    import diffusers
    from transformers import CLIPTextModel

    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    parts: dict[str, Any] = {
        "unet": diffusers.UNet2DConditionModel.from_pretrained(folder / "unet"),
        "vae": diffusers.AutoencoderKL.from_pretrained(folder / "vae"),
        "scheduler": getattr(diffusers, scheduler["_class_name"]).from_config(scheduler),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
        "tokenizer": None,
    }
    own = {"target_properties": TARGETS[kind]} if kind in TARGETS else {}
    pipe = getattr(diffusers, PIPELINES[kind])(
        **parts,
        **own,
        prediction_type="intrinsics" if kind in TARGETS else kind,
        default_denoising_steps=3,
        default_processing_resolution=64,
    )
    with torch.no_grad():
        pipe.empty_text_embedding = parts["text_encoder"](torch.tensor([[49406, 49407]]))[0]
    pipe.set_progress_bar_config(disable=True)
    return pipe


def loaded(folder: Path, kind: str) -> Any:
    return loading.load(estimator(IDS[kind]), folder, device="cpu")


def picture(height: int = 40, width: int = 56, count: int = 1) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(height * width + count))


@pytest.mark.parametrize("scheduler", ["ddim", "lcm"])
@pytest.mark.parametrize("kind", list(IDS))
@pytest.mark.parametrize(
    ("steps", "members", "edge"), [(1, 1, 64), (3, 1, 64), (2, 3, 64), (2, 1, 0), (0, 4, 48), (2, 1, 96)]
)
def test_equals_diffusers(folders: Any, kind: str, scheduler: str, steps: int, members: int, edge: int) -> None:
    from PIL import Image

    folder = folders[kind, scheduler]
    levels = (picture() * 255).round().to(torch.uint8)
    image = Image.fromarray(levels[0].numpy())
    expected = official(folder, kind)(
        image,
        num_inference_steps=steps or None,
        ensemble_size=members,
        processing_resolution=edge,
        generator=torch.Generator().manual_seed(11),
        output_type="pt",
    ).prediction
    ours = loaded(folder, kind)(image, steps=steps, ensemble_size=members, processing_resolution=edge, seed=11)
    assert expected.std() > 1e-3
    if kind == "depth":
        assert ours.kind == "affine_depth"
        torch.testing.assert_close(1 - ours.values, expected[:, 0], atol=1e-5, rtol=0)
    elif kind == "appearance":
        assert ours.names == ("albedo", "roughness", "metallicity")
        maps = [expected[0], expected[1, 0:1], expected[1, 1:2]]
        torch.testing.assert_close(ours.values[0].permute(2, 0, 1), torch.cat(maps), atol=1e-5, rtol=0)
    elif kind == "lighting":
        assert ours.names == ("albedo", "shading", "residual")
        torch.testing.assert_close(ours.values[0].permute(2, 0, 1), expected.flatten(0, 1), atol=1e-5, rtol=0)
    else:
        torch.testing.assert_close(ours.vectors.permute(0, 3, 1, 2), expected, atol=1e-5, rtol=0)


def test_same_seed_same_bytes_and_batch_equals_singles(folders: Any) -> None:
    annotator = loaded(folders["depth", "lcm"], "depth")
    batch = picture(24, 40, 3)
    options = {"steps": 2, "processing_resolution": 64}
    together = annotator(batch, seed=5, **options).values
    assert torch.equal(together, annotator(batch, seed=5, **options).values)
    assert not torch.equal(together, annotator(batch, seed=6, **options).values)
    for i in range(3):
        assert torch.equal(together[i], annotator(batch[i : i + 1], seed=5, **options).values[0])


@pytest.mark.parametrize("kind", list(TARGETS))
def test_a_decomposition_looks_as_diffusers_shows_it(folders: Any, kind: str) -> None:
    pipe, image = official(folders[kind, "ddim"], kind), picture()
    start = {"ensemble_size": 3, "processing_resolution": 64}
    raw = pipe(
        image.permute(0, 3, 1, 2), generator=torch.Generator().manual_seed(4), output_type="pt", **start
    ).prediction
    (shown,) = pipe.image_processor.visualize_intrinsics(raw, TARGETS[kind])
    ours = loaded(folders[kind, "ddim"], kind)(image, seed=4, **start)
    colours = [layer for layer in ours.layers if layer.channels == 3]
    assert len(colours) == {"appearance": 1, "lighting": 3}[kind]
    for layer in colours:
        levels = torch.from_numpy(np.array(shown[layer.name])) / 255
        # There 8 bits round down.
        torch.testing.assert_close(ours.to_image(layer.name)[0], levels, atol=1 / 255 + 1e-4, rtol=0)


@pytest.mark.parametrize("kind", list(TARGETS))
def test_a_decomposition_is_the_same_for_a_seed_and_for_each_picture_of_a_batch(folders: Any, kind: str) -> None:
    annotator = loaded(folders[kind, "ddim"], kind)
    batch = picture(24, 40, 3)
    before = batch.clone()
    options = {"steps": 1, "ensemble_size": 3, "processing_resolution": 64}
    together = annotator(batch, seed=5, **options).values
    assert torch.equal(batch, before)
    assert torch.equal(together, annotator(batch, seed=5, **options).values)
    assert not torch.equal(together, annotator(batch, seed=6, **options).values)
    for i in range(3):
        assert torch.equal(together[i], annotator(batch[i : i + 1], seed=5, **options).values[0])
    opaque = torch.cat([batch, torch.ones(3, 24, 40, 1)], -1)
    assert torch.equal(together, annotator(opaque, seed=5, **options).values)


def test_the_folder_tells_the_space_of_each_map(folders: Any, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(folders["lighting", "ddim"], folder)
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    index["target_properties"]["albedo"] = {"prediction_space": "srgb"}
    path.write_text(json.dumps(index))
    found = loaded(folder, "lighting")(picture(16, 16), steps=1, processing_resolution=64)
    assert [layer.space for layer in found.layers] == ["srgb", "linear", "linear"]
    assert [layer.up_to_scale for layer in found.layers] == [False, True, True]
    del index["target_properties"]
    path.write_text(json.dumps(index))
    found = loaded(folder, "lighting")(picture(16, 16), steps=1, processing_resolution=64)
    assert [layer.space for layer in found.layers] == ["linear"] * 3


@pytest.mark.parametrize(
    ("targets", "word"),
    [
        (TARGETS["appearance"], "predicts albedo, roughness, metallicity; expected albedo, shading, residual"),
        ({"target_names": ["albedo"]}, "not known"),
        ({"target_names": 3}, "not known"),
        (TARGETS["lighting"] | {"albedo": {"prediction_space": "lab"}}, "not known"),
        (TARGETS["lighting"] | {"albedo": {"prediction_space": "stack", "sub_target_names": ["a"]}}, "not known"),
    ],
)
def test_other_maps_are_told(folders: Any, tmp_path: Path, targets: Any, word: str) -> None:
    folder = tmp_path / "other"
    shutil.copytree(folders["lighting", "ddim"], folder)
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_properties": targets}))
    with pytest.raises(fathom.WeightsError, match=word):
        loaded(folder, "lighting")


def test_a_decomposition_with_too_few_channels_is_told(folders: Any, tmp_path: Path) -> None:
    folder = tmp_path / "narrow"
    shutil.copytree(folders["lighting", "ddim"], folder)
    path = folder / "unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"out_channels": 8}))
    with pytest.raises(fathom.WeightsError, match="3 maps, which need 12 channels"):
        loaded(folder, "lighting")


def test_the_grey_picture_is_the_prediction_turned_round(folders: Any) -> None:
    depth = loaded(folders["depth", "ddim"], "depth")(picture(), processing_resolution=64)
    torch.testing.assert_close(depth.to_image()[..., 0], depth.values, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (65, 1), (30, 3), (3, 2000), (1, 3000)])
@pytest.mark.parametrize("edge", [64, 0])
def test_any_size(folders: Any, size: tuple[int, int], edge: int) -> None:
    depth = loaded(folders["depth", "ddim"], "depth")(picture(*size), steps=1, processing_resolution=edge)
    assert depth.values.shape == (1, *size)
    normals = loaded(folders["normals", "ddim"], "normals")
    assert min(normals(picture(*size), resolution=2, steps=1, processing_resolution=64).vectors.shape[1:3]) == 2


def test_sizes_are_bounded_and_the_option_decides() -> None:
    marigold = estimator("marigold-depth")
    options = marigold.settings({"processing_resolution": 0})
    rows, columns = marigold.plan(9000, 16384, None, options).network
    assert rows * columns <= MAX_NETWORK_PIXELS and abs(columns / rows - 16384 / 9000) < 0.01
    assert marigold.plan(427, 640, None, options).network == (427, 640)
    assert marigold.fit(427, 640, 1024).network == (427 * 768 // 640, 768)
    assert marigold.memory_required(1, marigold.plan(2000, 2000, None, options), torch.float32) > 5e9


def test_progress_counts_every_step_and_diffusers_is_silent(folders: Any, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, str]] = []
    done: list[int] = []

    class Bar:
        def __init__(self, total: int, label: str, unit: str) -> None:
            seen.append((total, unit))
            self.unit = unit

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: int = 1) -> None:
            done.extend([n] * (self.unit == "step"))

    annotator = loaded(folders["depth", "ddim"], "depth")
    capfd.readouterr()
    with host.progress_to(Bar):
        annotator(picture(16, 16, 2), steps=3, ensemble_size=3, processing_resolution=64)
    assert (2 * 3 * 3, "step") in seen and sum(done) == 18
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_between_steps_ends_the_run(folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    annotator = loaded(folders["depth", "ddim"], "depth")
    calls = 0

    def interrupt() -> None:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(host, "check_interrupt", interrupt)
    with pytest.raises(KeyboardInterrupt):
        annotator(picture(), steps=50, processing_resolution=64)
    monkeypatch.undo()
    assert annotator(picture(), steps=1, processing_resolution=64).values.isfinite().all()


def test_half_precision_and_fp16_files(folders: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(folders["depth", "ddim"], folder)
    stems = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    for part, stem in stems.items():
        path = folder / part / f"{stem}.safetensors"
        save_file({k: v.half() for k, v in load_file(path).items()}, folder / part / f"{stem}.fp16.safetensors")
        path.unlink()
    half = loaded(folder, "depth")(picture(), processing_resolution=64).values
    full = loaded(folders["depth", "ddim"], "depth")(picture(), processing_resolution=64).values
    assert (half - full).abs().mean() < 2e-2
    bfloat = loading.load(estimator("marigold-depth"), folder, "cpu", torch.bfloat16)
    assert bfloat(picture(), processing_resolution=64).values.isfinite().all()


def test_old_attention_names_load(folders: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "old"
    shutil.copytree(folders["depth", "ddim"], folder)
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        tensors = {k.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): v for k, v in tensors.items()}
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, path)
    image = picture(16, 16)
    ours = loaded(folder, "depth")(image, processing_resolution=64).values
    assert torch.equal(ours, loaded(folders["depth", "ddim"], "depth")(image, processing_resolution=64).values)


def test_wrong_folders_are_told(folders: Any, tmp_path: Path) -> None:
    with pytest.raises(fathom.WeightsError, match="MarigoldNormalsPipeline"):
        loaded(folders["depth", "ddim"], "normals")
    with pytest.raises(fathom.WeightsError, match="expected albedo, shading, residual"):
        loaded(folders["appearance", "ddim"], "lighting")
    with pytest.raises(fathom.WeightsError, match="expected MarigoldIntrinsicsPipeline"):
        loaded(folders["depth", "ddim"], "appearance")
    with pytest.raises(fathom.WeightsError, match="is one file"):
        loaded(folders["depth", "ddim"] / "unet/diffusion_pytorch_model.safetensors", "depth")
    broken = tmp_path / "broken"
    shutil.copytree(folders["depth", "ddim"], broken)
    (broken / "vae/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(fathom.WeightsError, match="holds none of"):
        loaded(broken, "depth")
    (broken / "scheduler/scheduler_config.json").write_text('{"_class_name": "os"}')
    shutil.copytree(folders["depth", "ddim"] / "vae", broken / "vae", dirs_exist_ok=True)
    with pytest.raises(fathom.WeightsError, match="scheduler"):
        loaded(broken, "depth")


def changed(folder: Path, target: Path, name: str, **settings: Any) -> Path:
    """A copy of the folder in which one configuration says something else."""
    shutil.copytree(folder, target)
    path = target / name
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return target


def test_a_configuration_cannot_bring_code(folders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers asks the package `kernels` for the attention "owner/name": a stand-in notes whether it does."""
    (tmp_path / "packages" / "kernels").mkdir(parents=True)
    note = tmp_path / "asked"
    code = f"open({str(note)!r}, 'a').write('asked')\ndef __getattr__(name):\n    raise ImportError(name)\n"
    (tmp_path / "packages" / "kernels" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    for number, key in enumerate(("attn_implementation", "_attn_implementation", "attn_implementation_internal")):
        bad = changed(
            folders["depth", "ddim"], tmp_path / str(number), "text_encoder/config.json", **{key: "owner/name"}
        )
        with pytest.raises(fathom.WeightsError, match=f"text_encoder.config.json says '{key}'.*publisher's own file"):
            loaded(bad, "depth")
    assert not note.exists()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "x.y"}}, "'auto_map'"),
        ("unet/config.json", {"quantization_config": {}}, "'quantization_config'"),
        ("vae/config.json", {"custom": 1, "other": 2}, "'custom', 'other'"),
        ("scheduler/scheduler_config.json", {"solver": 1}, "'solver'"),
        ("unet/config.json", {"down_block_types": ["os.system"]}, "cannot be built"),
        ("unet/config.json", {"block_out_channels": "wide"}, "cannot be built"),
        ("unet/config.json", {"cross_attention_dim": None}, "cannot be built"),
        ("vae/config.json", {"act_fn": "__import__"}, "cannot be built"),
        ("text_encoder/config.json", {"num_attention_heads": 0}, "text_encoder/config.json"),
        ("text_encoder/config.json", {"hidden_act": "none such"}, "text_encoder/config.json"),
    ],
)
def test_configurations_that_are_not_the_published_ones(
    folders: Any, tmp_path: Path, name: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(fathom.WeightsError, match=words):
        loaded(changed(folders["depth", "ddim"], tmp_path / "bad", name, **settings), "depth")


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
def test_a_configuration_nested_without_end(folders: Any, tmp_path: Path, name: str) -> None:
    shutil.copytree(folders["depth", "ddim"], tmp_path / "deep")
    (tmp_path / "deep" / name).write_text("[" * 100_000)
    with pytest.raises(fathom.WeightsError, match="not readable JSON"):
        loaded(tmp_path / "deep", "depth")


def test_what_published_configurations_say_besides_sizes_is_let_pass(folders: Any, tmp_path: Path) -> None:
    settings = {
        **{"_name_or_path": "x", "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0},
        **{"dropout": 0.0, "eos_token_id": 2, "initializer_factor": 1.0, "initializer_range": 0.02},
        **{"model_type": "clip_text_model", "pad_token_id": 1, "projection_dim": 512, "torch_dtype": "float32"},
        **{"transformers_version": "4.31.0"},
    }
    good = changed(folders["depth", "ddim"], tmp_path / "good", "text_encoder/config.json", **settings)
    same = loaded(folders["depth", "ddim"], "depth")(picture(), processing_resolution=64).values
    assert torch.equal(loaded(good, "depth")(picture(), processing_resolution=64).values, same)


@pytest.mark.parametrize(
    "bad", [{"steps": -1}, {"ensemble_size": 0}, {"seed": -1}, {"processing_resolution": 5000}, {"step": 1}]
)
def test_bad_options(bad: dict[str, int]) -> None:
    with pytest.raises(fathom.SettingError):
        estimator("marigold-depth").settings(bad)


@pytest.mark.parametrize(("kind", "maps"), [("depth", 1), ("appearance", 2), ("lighting", 3)])
def test_parameters_of_the_published_networks(kind: str, maps: int) -> None:
    marigold: Any = estimator(IDS[kind])
    blocks = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    unet = {
        **{"in_channels": 4 + 4 * maps, "out_channels": 4 * maps},
        **{"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]},
        **{"down_block_types": blocks[0], "up_block_types": blocks[1], "use_linear_projection": True},
    }
    vae = {
        **{"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4},
        **{"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4},
    }
    config = {"model_index": {}, "unet": unet, "vae": vae, "scheduler": DDIM}
    with loading.parameters_on_meta():
        network = replace(marigold, config=config).build(fathom.annotator.weights.Checkpoint(Path(), {}))
    assert sum(p.numel() for p in network.parameters()) == marigold.parameters
