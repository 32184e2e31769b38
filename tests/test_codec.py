"""Signals in files: of every kind, exact there and back, and open to other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fathom import Depth, FathomError, Instances, Intrinsics, Normals, Segmentation, SettingError, SignalError, Thing
from fathom.signals import DepthLook, Layer, Palette, codec, exr, kinds
from fathom.signals.base import Signal
from fathom.signals.files import load_signal
from fathom.signals.lines import Lines
from fathom.signals.normals import unit_vectors

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
    written = MADE.save(tmp_path / f"x_intrinsics.{suffix}", format)
    assert [p.name for p in written] == [f"x_intrinsics_{layer.name}.{suffix}" for layer in LAYERS]
    for path, layer in zip(written, LAYERS, strict=True):
        levels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., ::-1].astype(np.float64)
        expected = MADE.to_image(layer.name)[0].numpy().astype(np.float64) * (2**bits - 1)
        assert np.abs(levels - expected).max() < 0.51


def test_exr_holds_linear_light_exactly(tmp_path: Path) -> None:
    albedo, roughness, shading = MADE.save(tmp_path / "x.exr", "exr")
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
        (path,) = Normals(vectors, kept, "a test").save(tmp_path / "n.exr", "exr")
        shown = torch.ones_like(valid) if kept is None else kept
        assert torch.equal(colour(path), torch.where(shown[0, ..., None], vectors[0], 0))


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_numbers_keep_every_bit_and_their_spaces(tmp_path: Path, format: str) -> None:
    from safetensors import safe_open

    (path,) = MADE.save(tmp_path / f"x.{format}", format)
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
    names = [p.as_posix() for p in MADE.encode("a/k.maps.png", "png")]
    assert names == ["a/k.maps_albedo.png", "a/k.maps_roughness.png", "a/k.maps_shading.png"]


def test_a_format_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="intrinsics can be written as"):
        MADE.save(tmp_path / "x.tif", "tif")


# ------------------------------------------------------------------------------- there and back, every kind

GEN = torch.Generator().manual_seed(5)
VALID = torch.rand(1, 9, 7, generator=GEN) > 0.3
VECTORS = unit_vectors(torch.randn(1, 9, 7, 3, generator=GEN))
TWO = Palette("two", ("a", "b"), ((1, 2, 3), (4, 5, 6)))
SIGNALS = {
    "depth": Depth(
        torch.rand(1, 9, 7, generator=GEN) + 0.1,
        "metric",
        VALID,
        torch.tensor([[500.0, 510.5]]),
        "d",
        DepthLook("metres", 2.0, 85.0, (0.5, 9.0)),
        torch.tensor([[3.25, 4.5]]),
    ),
    "normals": Normals(VECTORS, VALID, "n", ("+z", "+y", "-x")),
    "lines": Lines(torch.rand(1, 9, 7, generator=torch.Generator().manual_seed(6)), "l"),
    "segmentation": Segmentation(torch.randint(-1, 2, (1, 9, 7), generator=GEN), TWO, "s"),
    "intrinsics": MADE,
    "instances": Instances(
        ((Thing("face", 0.25, (0.5, 1.25, 4.0, 6.5)), Thing("cat", None, mask=VALID[0], points=VECTORS[0, 0, :, :2])),),
        (9, 7),
        ("face", "cat"),
        "i",
    ),
}
PICTURES = ("png", "webp")


def same(one, other, close=0.0):
    """Whether two signals agree in every field, tensors within `close`; where nothing is valid anything may stand."""
    mine, theirs = one._tensors(), other._tensors()
    assert mine.keys() == theirs.keys() and one._rest() == other._rest()
    valid = mine.get("valid")
    for name, tensor in mine.items():
        a, b = tensor, theirs[name]
        assert a.dtype == b.dtype or name in ("focal", "principal")
        if close and valid is not None and a.shape[:3] == valid.shape:
            a, b = a[valid], b[valid]
        assert a.shape == b.shape and bool(((a.double() - b.double()).abs() <= close).all()), name


def kept_whole():
    for name, signal in SIGNALS.items():
        for format in signal.FORMATS:
            if format not in PICTURES and not (name == "intrinsics" and format in ("png16", "exr")):
                yield pytest.param(name, format, id=f"{name}-{format}")


@pytest.mark.parametrize(("name", "format"), kept_whole())
def test_a_signal_comes_back_from_every_format(tmp_path: Path, name: str, format: str) -> None:
    signal = SIGNALS[name]
    path = signal.save(tmp_path / f"x.{format.removesuffix('16')}", format)[-1]
    again = load_signal(path)
    assert type(again) is type(signal)
    steps = {("depth", "png16"): 2e-5, ("normals", "png16"): 4e-5}
    if (name, format) == ("depth", "exr") or (name, format) == ("normals", "exr"):
        same(signal, again, 1e-12)  # what is not valid is not kept
    else:
        same(signal, again, steps.get((name, format), 0.0))


def test_every_kind_is_tried_here() -> None:
    assert set(SIGNALS) <= set(kinds())


def test_one_layer_of_intrinsics_comes_back_in_linear_light(tmp_path: Path) -> None:
    albedo = load_signal(MADE.save(tmp_path / "x.exr", "exr")[0])
    assert isinstance(albedo, Intrinsics) and albedo.layers == (Layer("albedo", 3, "linear"),)
    assert torch.equal(albedo.values, MADE.to_image("albedo", "linear"))


@pytest.mark.parametrize("kind", [kind for kind in SIGNALS if kind != "instances"])
def test_a_picture_of_a_signal_is_not_taken_for_the_signal(tmp_path: Path, kind: str) -> None:
    (path, *_) = SIGNALS[kind].save(tmp_path / "x.png", "png")
    with pytest.raises(SignalError, match="does not say what it holds.*take a meaning"):
        load_signal(path)


def test_texts_travel_along_and_special_letters_too(tmp_path: Path) -> None:
    from PIL import Image

    files = SIGNALS["depth"].encode(tmp_path / "x.png", "png16", {"prompt": "eine Tür", "workflow": "{}"})
    path = tmp_path / "x.png"
    path.write_bytes(files[path])
    with Image.open(path) as image:
        assert image.text["prompt"] == "eine Tür" and image.text["workflow"] == "{}"  # type: ignore[attr-defined]
        assert json.loads(image.text["fathom"])["fathom"] == "depth"  # type: ignore[attr-defined]


HOSTILE = ["[" * 100_000, "{" * 5000, '{"fathom": "depth", "version": ' + "9" * 5000 + "}", "null", "5", '"x"', "[]"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_description_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    from safetensors.torch import save_file

    np.savez(tmp_path / "x.npz", values=np.ones((1, 2, 2), np.float32), fathom=np.array(text))
    save_file({"values": torch.ones(1, 2, 2)}, tmp_path / "x.safetensors", {"fathom": text})
    SIGNALS["depth"].save(tmp_path / "x.png")
    (tmp_path / "x.json").write_text(text)
    for suffix in ("npz", "safetensors", "png"):
        with pytest.raises(SignalError, match=f"x.(json|{suffix})"):
            load_signal(tmp_path / f"x.{suffix}")


LOOKS = [{"fixed": [1.0]}, {"fixed": 3}, {"low": "a"}, [], None]


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_words_of_another_shape_are_told(tmp_path: Path, look: object) -> None:
    SIGNALS["depth"].save(tmp_path / "x.png")
    about = json.loads((tmp_path / "x.json").read_text())
    about["look"] = {**about["look"], **look} if isinstance(look, dict) else look
    (tmp_path / "x.json").write_text(json.dumps(about))
    with pytest.raises(SignalError, match="x.png"):
        load_signal(tmp_path / "x.png")


def test_an_npz_that_unpacks_to_more_than_it_says_is_refused_unread(tmp_path: Path) -> None:
    import struct
    import zipfile

    header = b"\x93NUMPY\x01\x00"
    for shape in ("(1, 1000000, 1000000)", "(1, 2, 2)"):
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
        with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("values.npy", header + struct.pack("<H", len(text)) + text + bytes(10**6))
        with pytest.raises(SignalError, match="not as large as it says"):
            load_signal(tmp_path / "x.npz")


def test_an_npz_of_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", values=np.array([{"a": 1}], dtype=object), fathom=np.array("{}"))
    with pytest.raises(SignalError, match="objects, not numbers"):
        load_signal(tmp_path / "x.npz")


def test_a_kind_of_a_newer_fathom_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", values=np.ones(3), fathom=np.array('{"fathom": "odour", "version": 1}'))
    with pytest.raises(SignalError, match="holds 'odour'.*update Fathom"):
        load_signal(tmp_path / "x.npz")
    with pytest.raises(FathomError, match="there is no file"):
        load_signal(tmp_path / "gone.npz")


def test_a_layout_of_a_newer_fathom_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", values=np.ones(3), fathom=np.array('{"fathom": "depth", "version": 2}'))
    with pytest.raises(SignalError, match=r"x.npz: it was written by a newer Fathom \(layout 2\)"):
        load_signal(tmp_path / "x.npz")


def test_what_a_description_lacks_is_named() -> None:
    with pytest.raises(KeyError, match="values"):
        Depth.unpack({"kind": "metric"}, {})
    with pytest.raises(NotImplementedError, match="Depth must say how it is drawn"):
        Signal.to_image(Depth(torch.ones(1, 2, 2), "metric"))


def test_webp_has_a_longest_side() -> None:
    assert codec.picture(torch.zeros(1, 16383, 3), "webp")[8:12] == b"WEBP"
    for size in ((1, 16384), (16384, 1)):
        with pytest.raises(SettingError, match="at most 16383 pixels a side"):
            codec.picture(torch.zeros(*size, 3), "webp")
    assert codec.picture(torch.zeros(1, 16384, 3), "png")[1:4] == b"PNG"


def test_a_png_may_say_what_it_is_after_its_pixels(tmp_path: Path) -> None:
    SIGNALS["depth"].save(tmp_path / "x.png")
    (tmp_path / "x.json").unlink()
    data = (tmp_path / "x.png").read_bytes()
    chunks, at = [], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        chunks.append(data[at:end])
        at = end
    chunks[1:-1] = sorted(chunks[1:-1], key=lambda chunk: chunk[4:8] != b"IDAT")
    assert chunks[1][4:8] == b"IDAT" and chunks[-2][4:8] in (b"tEXt", b"iTXt")
    (tmp_path / "x.png").write_bytes(data[:8] + b"".join(chunks))
    assert load_signal(tmp_path / "x.png").KIND == "depth"


def test_what_goes_wrong_while_reading_is_told_by_its_kind(tmp_path: Path) -> None:
    def read(error: Exception) -> None:
        with codec.reading(tmp_path / "x.npz"):
            raise error

    for error, kind, words in (
        (SettingError("so it is"), SettingError, "^so it is$"),
        (SignalError("no depth"), SignalError, "^x.npz: no depth$"),
        (MemoryError(), SignalError, "does not fit into memory"),
        (OSError("half a header"), SignalError, "truncated, damaged or of another kind: half a header"),
        (PermissionError(13, "Permission denied"), FathomError, "cannot be read: Permission denied"),
    ):
        with pytest.raises(FathomError, match=words) as told:
            read(error)
        assert type(told.value) is kind


def test_tensors_of_every_kind_come_back_from_bytes_the_empty_ones_too():
    """safetensors before 0.5 cannot load an empty tensor: a scene with nobody in it could not be opened."""
    from safetensors.torch import load, save

    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    kinds += [torch.int8, torch.uint8, torch.bool]
    full = {str(kind): torch.arange(6).reshape(2, 3).to(kind) for kind in kinds}
    empty = {f"no {kind}": torch.empty(0, 4, dtype=kind) for kind in kinds}
    made = codec.tensors_of(save({**full, **empty}))
    assert all(torch.equal(made[name], tensor) and made[name].dtype == tensor.dtype for name, tensor in full.items())
    assert all(made[n].shape == (0, 4) and made[n].dtype == t.dtype for n, t in empty.items())
    assert {n: t.shape for n, t in load(save(full)).items()} == {n: made[n].shape for n in full}
