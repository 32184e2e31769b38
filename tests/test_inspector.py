"""The Depth Inspector's half in Python: colours, band, and the values that the browser gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fathom
from fathom import Depth, SettingError, SignalError
from fathom.annotator import host
from fathom.nodes import NODE_CLASS_MAPPINGS
from fathom.signals.depth import depth_from_metres
from fathom.signals.field import percentiles
from fathom.tools.inspection import PALETTES, depth_band, depth_samples, false_colour, film_samples


@pytest.fixture
def ramp():
    """An affine depth (2,4,101): 0 at the left to 10 at the right; the second picture twice as much."""
    values = torch.linspace(0, 10, 101).expand(4, 101)
    return Depth(torch.stack([values, values * 2]), "affine_inverse", source="Net")


@pytest.mark.parametrize("palette", PALETTES)
def test_colours_go_from_the_farthest_to_the_closest(ramp, palette):
    picture = false_colour(ramp, palette)
    ends = [bytes.fromhex(PALETTES[palette][i]) for i in (0, -1)]
    for at, end in ((0, ends[0]), (-1, ends[1])):
        assert torch.allclose(picture[0, 0, at] * 255, torch.tensor(list(end)).float(), atol=0.01)
    assert torch.equal(picture[0], picture[1])
    assert float(picture.diff(dim=2).abs().max()) < 0.12, "no step in the colours"


def test_known_colours():
    # matplotlib's values at the same places.
    values = torch.tensor([[[0.0, 0.25, 0.5, 0.75, 1.0]]])
    depth = Depth(values, "ordinal")
    expected = {
        "turbo": [(48, 18, 59), (40, 187, 235), (164, 252, 60), (251, 126, 33), (122, 4, 3)],
        "inferno": [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)],
    }
    for palette, colours in expected.items():
        assert (false_colour(depth, palette)[0, 0] * 255 - torch.tensor(colours)).abs().max() <= 2, palette


def test_what_is_not_valid_is_black(ramp):
    valid = torch.ones_like(ramp.values, dtype=torch.bool)
    valid[:, :, :50] = False
    depth = Depth(ramp.values, "ordinal", valid)
    assert (false_colour(depth)[:, :, :50] == 0).all()
    assert (depth_band(depth, 1, 0)[:, :, :50] == 0).all()


def test_the_band_is_a_mask(ramp):
    mask = depth_band(ramp, 0.75, 0.25)
    assert mask.shape == (2, 4, 101) and torch.equal(mask, depth_band(ramp, 0.25, 0.75))
    assert mask[0, 0].nonzero()[[0, -1], 0].tolist() == [25, 75]
    assert torch.equal(mask[0], mask[1])
    assert not torch.equal(*depth_band(ramp, 0.75, 0.25, scope="batch"))


def test_a_band_in_metres():
    depth = depth_from_metres(torch.tensor([[[1.0, 2.0, 3.0, float("inf")]]]))
    assert depth_band(depth, 1.5, 3.5, space="metres").tolist() == [[[0, 1, 1, 0]]]


def test_metres_of_a_depth_that_has_none(ramp):
    with pytest.raises(SignalError, match="Fathom Convert Depth"):
        depth_band(ramp, 1, 2, space="metres")


def test_the_browser_gets_the_values_themselves(ramp):
    sent, told = depth_samples(ramp, 1)
    values = np.frombuffer(sent, "<f4").reshape(told["height"], told["width"])
    assert np.array_equal(values, ramp.values[1].numpy())
    assert (told["low"], told["high"], told["kind"], told["pictures"]) == (0, 20, "affine_inverse", 2)
    assert told["unit"] == "a/z + b with unknown a > 0 and b"
    assert depth_samples(ramp, 0, "batch")[1]["high"] == 20
    # The range of a video looks ahead: what the browser shows has to be what the mask is cut from.
    assert depth_samples(ramp, 0, "video")[1]["high"] == pytest.approx(
        float(percentiles(ramp.values, (0.0, 100.0), None, "video")[1][0])
    )
    assert depth_samples(ramp, 0, "video")[1]["high"] > 10


def test_a_large_depth_is_sampled_not_blended():
    values = (torch.arange(1200) % 2).float().expand(1, 900, 1200).contiguous()
    valid = torch.ones_like(values, dtype=torch.bool)
    valid[:, :300] = False
    sent, told = depth_samples(Depth(values, "ordinal", valid, focal=600.0))
    seen = np.frombuffer(sent, "<f4").reshape(told["height"], told["width"])
    assert (told["width"], told["height"], told["full"]) == (512, 384, [1200, 900])
    assert told["focal"] == pytest.approx(256)
    assert np.isnan(seen[:128]).all() and set(np.unique(seen[128:])) <= {0.0, 1.0}


def test_a_film_is_sent_smaller_so_that_it_fits():
    depth = Depth(torch.rand(40, 60, 80), "ordinal")
    sent, frames, (width, height) = film_samples(depth, side=80, most=40 * 30 * 40 * 4)
    assert (len(frames), width, height) == (40, 40, 30) and len(sent) == 40 * 30 * 40 * 4
    sent, frames, (width, height) = film_samples(depth, side=80, most=10 * 12 * 16 * 4)
    assert [frames[i][0] for i in (0, -1)] == [0, 39] and (len(frames), width, height) == (10, 16, 12)
    third = np.frombuffer(sent, "<f4").reshape(10, 12, 16)[3]
    assert np.isin(third, depth.values[frames[3][0]].numpy()).all()


def test_a_picture_that_is_not_there(ramp):
    with pytest.raises(SettingError, match="0 to 1"):
        depth_samples(ramp, 2)


def test_the_node_hands_the_depth_on_and_sends_files(ramp, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "temp_folder", lambda: tmp_path)
    node = NODE_CLASS_MAPPINGS["FathomDepthInspector"]
    photo = torch.rand(1, 8, 202, 3)
    made = getattr(node(), node.FUNCTION)(ramp, "turbo", "relative", 0.75, 0.25, 0.5, image=photo, picture=1)
    depth, mask, coloured, *numbers = made["result"]
    assert depth is ramp and numbers == [0.5, 0.75, 0.25]
    assert torch.equal(mask, depth_band(ramp, 0.75, 0.25)) and torch.equal(coloured, false_colour(ramp))
    (told,) = made["ui"]["fathom_depth"]
    assert told["chosen"] == {"near": 0.75, "far": 0.25, "focus": 0.5, "softness": 0.0}
    sent = np.fromfile(tmp_path / told["values"]["filename"], "<f4").reshape(2, told["height"], told["width"])
    assert np.array_equal(sent, ramp.values.numpy()), "every picture of the batch is there to step through"
    assert [frame[:3] for frame in told["frames"]] == [(0, 0, 10), (1, 0, 20)]
    assert told["photos"] == [(tmp_path / told["photo"]["filename"]).stat().st_size], "one photo stands for all"
    assert len(made["ui"]["images"]) == 2, "the plain preview, where the widget cannot be had"


def test_the_node_outside_comfyui(scene):
    depth = fathom.load("fathom-tiny")(scene, 64)
    node = NODE_CLASS_MAPPINGS["FathomDepthInspector"]()
    made = node.execute(depth, "grey", "relative", 1.0, 0.0, 1.0)
    assert made["ui"] == {} and bool((made["result"][1] == 1).all())
