"""Files of every kind of signal, read in a graph and from the shell."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fathom import Depth, Normals, Segmentation, SignalError
from fathom.annotator import host
from fathom.nodes.depth_io import FathomLoadSignal
from fathom.signals import Mask, Palette


def up(height, width):
    normals = torch.zeros(1, height, width, 3)
    normals[..., 2] = 1
    return normals


SIGNALS = {
    "depth": Depth(torch.rand(1, 4, 5) + 0.1, "metric", source="a camera"),
    "normals": Normals(up(4, 5)),
    "segmentation": Segmentation(torch.tensor([[[0, 2], [2, 1]]]), Palette.named("ade20k")),
    "mask": Mask(torch.rand(1, 4, 5)),
}


@pytest.fixture
def blocks(monkeypatch):
    """What is handed on instead of a signal is the message."""
    monkeypatch.setattr(host, "blocked", lambda message: message)


@pytest.mark.parametrize("kind", SIGNALS)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_the_node_gives_the_kind_that_the_file_holds(blocks, tmp_path, kind, suffix):
    path = tmp_path / f"a{suffix}"
    SIGNALS[kind].save(path)
    outputs = dict(zip(FathomLoadSignal.RETURN_NAMES, FathomLoadSignal().execute(str(path)), strict=True))
    torch.testing.assert_close(outputs.pop("image"), SIGNALS[kind].to_image(), rtol=0, atol=0)
    assert json.loads(outputs.pop("report"))["signal"] == kind
    got = outputs.pop(kind)
    expected = SIGNALS[kind].values if kind == "mask" else next(iter(SIGNALS[kind]._tensors().values()))
    assert torch.equal(got if kind == "mask" else next(iter(got._tensors().values())), expected)
    for other, message in outputs.items():
        assert f"holds {kind}, no {other}" in message


def test_a_bare_picture_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(SignalError, match=r"a\.png"):
        FathomLoadSignal().execute(str(tmp_path / "a.png"))


@pytest.mark.parametrize("kind", SIGNALS)
def test_the_shell_tells_what_a_file_holds(run, tmp_path, kind):
    SIGNALS[kind].save(tmp_path / "a.npz")
    status, out, _ = run("tool", "show", tmp_path / "a.npz", "-o", tmp_path / "a.png")
    told = json.loads(out.rpartition("}")[0] + "}")
    assert status == 0 and told["signal"] == kind and told["pictures"] == 1
    assert Image.open(tmp_path / "a.png").size == SIGNALS[kind].to_image().shape[2:0:-1]


def test_what_annotate_wrote_is_told(run, tmp_path, scene):
    Image.fromarray((scene[0].numpy() * 255).round().astype(np.uint8)).save(tmp_path / "photo.png")
    assert run("annotate", tmp_path / "photo.png", "-o", tmp_path / "out", "-f", "exr", "-r", "64")[0] == 0
    (written,) = (tmp_path / "out").glob("*depth.exr")
    status, out, _ = run("tool", "show", written)
    assert status == 0 and json.loads(out)["signal"] == "depth"
    status, _, err = run("tool", "show", tmp_path / "photo.png")
    assert status == 1 and "photo.png" in err
