"""Which estimators a weights file fits, told by its tensors."""

from __future__ import annotations

import gzip
import json
import os
from math import prod
from pathlib import Path

import pytest
import torch

import fathom

ROOT = Path(fathom.__file__).parent
DATA = Path(__file__).parent / "data"
TINY = ROOT / "weights" / "fathom-tiny.safetensors"
DEPTH_ANYTHING = [
    "depth-anything-v2-{0}",
    "depth-anything-v2-metric-indoor-{0}",
    "depth-anything-v2-metric-outdoor-{0}",
]
ANY_SIZE = [*DEPTH_ANYTHING, "depth-anything-{0}"]

LAYOUTS = {
    "depth_anything/depth_anything_v2_vits.pth": [id.format("small") for id in ANY_SIZE],
    "depth_anything/depth_anything_v2_vitb.pth": [id.format("base") for id in ANY_SIZE],
    "depth_anything/depth_anything_vits14.pth": [id.format("small") for id in ANY_SIZE],
    # The configuration beside the file tells them apart.
    "depth_anything/depth-anything--Depth-Anything-V2-Small-hf__model.safetensors": ["depth-anything-v2-small"],
    "midas/dpt_hybrid-midas-501f0c75.pt": ["midas-dpt-hybrid"],
    "midas/dpt_large-midas-2f21e586.pt": ["midas-dpt-large"],
    "midas/Intel--dpt-hybrid-midas__model.safetensors": ["midas-dpt-hybrid"],
    "normal_bae/scannet.pt": ["normal-bae"],
    "oneformer/ade20k": ["oneformer-ade20k", "oneformer-ade20k-objects", "oneformer-ade20k-panoptic"],
    "oneformer/coco": ["oneformer-coco", "oneformer-coco-objects", "oneformer-coco-panoptic"],
    "zoe/ZoeD_M12_N.pt": ["zoedepth-n"],
    "zoe/ZoeD_M12_NK.pt": ["zoedepth-nk"],
    "zoe/Intel--zoedepth-nyu-kitti__model.safetensors": ["zoedepth-nk"],
}
TYPES = {"float32": "F32", "float64": "F64", "int64": "I64", "float16": "F16", "int32": "I32", "bool": "BOOL"}


def hollow(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> Path:
    """A safetensors file of these names, types and shapes whose numbers are a hole in the file."""
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = prod(shape) * getattr(torch, dtype).itemsize
        header[name] = {"dtype": TYPES[dtype], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + at)
    return path


def published(layout: str, folder: Path) -> Path:
    with gzip.open(DATA / f"{layout}.json.gz") as stream:
        manifest = json.load(stream)
    tensors = {name: (about["dtype"], about["shape"]) for name, about in manifest["tensors"].items()}
    if manifest.get("config"):
        (folder / "config.json").write_text(json.dumps(manifest["config"]))
        return hollow(folder / "model.safetensors", tensors)
    return hollow(folder / "a file.safetensors", tensors)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_are_told_by_their_tensors(layout, tmp_path):
    path = published(layout, tmp_path)
    assert fathom.detect(path) == LAYOUTS[layout]
    assert fathom.detect(tmp_path) == LAYOUTS[layout]


def test_torch_files_and_wrong_names(tmp_path):
    from safetensors.torch import load_file

    state = load_file(TINY)
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "depth_anything_v2_vits.pth")
    torch.save(state, tmp_path / "old.safetensors", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        assert fathom.detect(str(path)) == ["fathom-tiny"]
    assert fathom.detect(TINY) == ["fathom-tiny"]


def test_what_fits_nothing_and_what_is_no_checkpoint(tmp_path):
    assert fathom.detect(hollow(tmp_path / "lora.safetensors", {"lora_a": ("float32", [4, 4])})) == []
    (tmp_path / "text.pth").write_bytes(b"hello")
    with pytest.raises(fathom.WeightsError, match="no checkpoint"):
        fathom.detect(tmp_path / "text.pth")
    with pytest.raises(fathom.WeightsError, match="no file or folder"):
        fathom.detect(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert fathom.detect(tmp_path / "empty") == []


def test_one_changed_shape_and_one_missing_key_are_no_fit(tmp_path):
    with gzip.open(DATA / "normal_bae/scannet.pt.json.gz") as stream:
        told = json.load(stream)["tensors"]
    tensors = {name: (about["dtype"], about["shape"]) for name, about in told.items()}
    first = next(iter(tensors))
    assert fathom.detect(hollow(tmp_path / "a.safetensors", tensors)) == ["normal-bae"]
    changed = {**tensors, first: (tensors[first][0], [*tensors[first][1], 1])}
    assert fathom.detect(hollow(tmp_path / "b.safetensors", changed)) == []
    assert fathom.detect(hollow(tmp_path / "c.safetensors", {k: v for k, v in tensors.items() if k != first})) == []


def test_the_error_for_a_wrong_file_says_what_it_fits():
    with pytest.raises(fathom.WeightsError, match=r"Fathom Tiny|fathom-tiny") as error:
        fathom.load("midas-dpt-large", weights=TINY, device="cpu")
    assert str(error.value).endswith("It fits fathom-tiny.")


def test_the_shells_command(run, tmp_path):
    assert run("models", "detect", TINY)[:2] == (0, "fathom-tiny\n")
    status, out, err = run("models", "detect", hollow(tmp_path / "l.safetensors", {"x": ("float32", [2])}))
    assert (status, out) == (1, "") and "fits none of the models" in err
    status, _, err = run("models", "detect", tmp_path / "none.pth")
    assert status == 1 and "no file or folder" in err
