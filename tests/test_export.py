"""Intrinsics and normals in files that other programs open."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from fathom import Intrinsics, Normals, SettingError
from fathom.signals import Layer, exr
from fathom.signals.export import encode_signal, save_signal

LAYERS = (Layer("albedo", 3, "srgb"), Layer("roughness", 1), Layer("shading", 3, "linear", up_to_scale=True))
VALUES = torch.rand(1, 19, 23, 7, generator=torch.Generator().manual_seed(2))
VALUES[..., 4:] *= 0.4
MADE = Intrinsics(VALUES, LAYERS, "a test")


def colour(path: Path) -> torch.Tensor:
    """The picture (H,W,3) of an EXR file, through another way than `exr` goes."""
    import av

    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "gbrpf32le"
    planes = [np.frombuffer(p, np.float32).reshape(frame.height, -1)[:, : frame.width] for p in frame.planes]
    return torch.from_numpy(np.stack([planes[2], planes[0], planes[1]], -1))


@pytest.mark.parametrize(("format", "bits"), [("png", 8), ("webp", 8), ("png16", 16)])
def test_every_layer_is_a_picture(tmp_path: Path, format: str, bits: int) -> None:
    import cv2

    suffix = format.removesuffix("16")
    written = save_signal(MADE, tmp_path / f"x_intrinsics.{suffix}", format)
    assert [p.name for p in written] == [f"x_intrinsics_{layer.name}.{suffix}" for layer in LAYERS]
    for path, layer in zip(written, LAYERS, strict=True):
        levels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1].astype(np.float64)
        expected = MADE.to_image(layer.name)[0].numpy().astype(np.float64) * (2**bits - 1)
        assert np.abs(levels - expected).max() < 0.51


def test_exr_holds_linear_light_exactly(tmp_path: Path) -> None:
    albedo, roughness, shading = save_signal(MADE, tmp_path / "x.exr", "exr")
    assert torch.equal(colour(albedo), MADE.to_image("albedo", "linear")[0])
    assert torch.equal(colour(shading), MADE.map("shading")[0])
    plane, _, texts = exr.decode(roughness.read_bytes())
    assert torch.equal(plane, MADE.map("roughness")[0])
    told = json.loads(texts["fathom"])
    assert told["fathom"] == "intrinsics" and told["name"] == "roughness" and told["source"] == "a test"


def test_exr_holds_the_normals_themselves(tmp_path: Path) -> None:
    vectors = torch.nn.functional.normalize(VALUES[..., :3] - 0.5, dim=-1)
    valid = torch.rand(vectors.shape[:-1], generator=torch.Generator().manual_seed(3)) < 0.8
    for kept in (None, valid):
        (path,) = save_signal(Normals(vectors, kept, "a test"), tmp_path / "n.exr", "exr")
        shown = torch.ones_like(valid) if kept is None else kept
        assert torch.equal(colour(path), torch.where(shown[0, ..., None], vectors[0], 0))


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_numbers_keep_every_bit_and_their_spaces(tmp_path: Path, format: str) -> None:
    from safetensors import safe_open

    (path,) = save_signal(MADE, tmp_path / f"x.{format}", format)
    if format == "npz":
        with np.load(path) as stored:
            maps = {name: torch.from_numpy(stored[name]) for name in MADE.names}
            layers = json.loads(str(stored["layers"]))
            assert str(stored["source"]) == "a test"
    else:
        with safe_open(path, "pt") as stored:
            maps = {name: stored.get_tensor(name) for name in stored.keys()}
            layers = json.loads(stored.metadata()["fathom"])["layers"]
    assert {name: torch.equal(maps[name], MADE.map(name)) for name in maps} == dict.fromkeys(MADE.names, True)
    assert tuple(Layer(**layer) for layer in layers) == LAYERS


def test_members_of_a_tar_keep_their_key() -> None:
    names = [p.as_posix() for p in encode_signal(MADE, PurePosixPath("a/k.maps.png"), "png")]  # type: ignore[arg-type]
    assert names == ["a/k.maps_albedo.png", "a/k.maps_roughness.png", "a/k.maps_shading.png"]


def test_a_format_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="intrinsics can be written as"):
        save_signal(MADE, tmp_path / "x.tif", "tif")
