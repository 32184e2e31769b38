"""Things cut out: edges after the photo, what is left, layers, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fathom import Depth, FathomError, SettingError, SignalError
from fathom.signals.depth import depth_from_metres
from fathom.signals.instances import Instances, Thing
from fathom.tools.isolate import isolate, nearer_than

SIZE = 60, 80


def disc(x: float, y: float, radius: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    return torch.hypot(columns - x + 0.0, rows - y + 0.0) <= radius


def people() -> tuple[torch.Tensor, Instances, Depth]:
    """A photo of a red disc far off and a green one before it, their masks, their depth."""
    far, near = disc(25, 30, 15), disc(45, 32, 12)
    photo = torch.full((1, *SIZE, 3), 0.2)
    photo[0, far] = torch.tensor([0.9, 0.1, 0.1])
    photo[0, near] = torch.tensor([0.1, 0.9, 0.1])
    metres = torch.full((1, *SIZE), 9.0)
    metres[0, far], metres[0, near] = 5.0, 2.0
    things = Thing("person", 0.9, mask=far & ~near), Thing("dog, hound", 0.8, mask=near)
    return photo, Instances((things,), SIZE), depth_from_metres(metres)


def over(layers: dict[str, Any]) -> torch.Tensor:
    """The layers composited, (H,W,3), as straight alpha is."""
    width, height = layers["canvas"]
    colour, cover = torch.zeros(height, width, 3), torch.zeros(height, width, 1)
    for layer in sorted(layers["layers"], key=lambda item: item["z_index"]):
        rgba = layer["image"][0]
        rows, columns = (slice(s, s + n) for s, n in zip((layer["y"], layer["x"]), rgba.shape[:2], strict=True))
        alpha = rgba[..., 3:]
        colour[rows, columns] = rgba[..., :3] * alpha + colour[rows, columns] * (1 - alpha)
        cover[rows, columns] = alpha + cover[rows, columns] * (1 - alpha)
    assert float(cover.amin()) > 1 - 1e-6
    return colour


@pytest.mark.parametrize("radius", [0, 3, 8])
def test_the_layers_over_each_other_are_the_photo(radius: int) -> None:
    photo, things, depth = people()
    made = isolate(photo, things, depth, radius=radius)
    layers = made.layers()
    assert layers["version"] == 1 and layers["canvas"] == (80, 60)
    assert [item["name"] for item in layers["layers"]] == ["background", "person", "dog, hound"]
    assert [item["z_index"] for item in layers["layers"]] == [0, 1, 2]
    assert torch.allclose(over(layers), photo[0], atol=1e-6)
    assert bool((made.background[0, ..., 3] == 0).any())
    whole = isolate(photo, things, depth, radius=radius, background="whole")
    assert torch.equal(whole.background[..., :3], photo) and bool((whole.background[..., 3] == 1).all())


def test_cutouts_lie_in_their_place_with_a_hard_edge_when_asked() -> None:
    photo, things, _ = people()
    made = isolate(photo, things, radius=0)
    images = made.images()
    assert images.shape == (2, *SIZE, 4)
    assert torch.equal(images[..., 3] > 0, things.masks(0))
    assert torch.equal(images[0][things.masks(0)[0]][:, :3], photo[0][things.masks(0)[0]])
    assert torch.equal(made.mask[0] > 0, things.masks(0).any(0))


def test_an_edge_moves_to_that_of_the_photo() -> None:
    photo, _, _ = people()
    truth = disc(45, 32, 12)
    rough = Instances(((Thing("dog", mask=disc(46, 33, 12.5)),),), SIZE)
    before = (rough.masks(0)[0] ^ truth).sum()
    after = ((isolate(photo, rough, radius=5).images()[0, ..., 3] > 0.5) ^ truth).sum()
    assert int(after) * 3 < int(before)


def test_a_cutout_is_no_larger_than_it_need_be() -> None:
    photo, things, _ = people()
    for radius in (0, 4):
        cutout = isolate(photo, things, radius=radius).cutouts[1]
        assert (cutout.left, cutout.top) == (33 - radius, 20 - radius)
        assert cutout.rgba.shape == (25 + 2 * radius, 25 + 2 * radius, 4)


def test_things_may_be_joined_and_none_is_an_answer() -> None:
    photo, things, depth = people()
    joined = isolate(photo, things, depth, radius=0, joined=True)
    assert [c.name for c in joined.cutouts] == ["person and dog, hound"]
    assert torch.equal(joined.cutouts[0].rgba[..., 3] > 0, things.masks(0).any(0)[15:46, 10:58])
    nothing = isolate(photo, Instances(((),), SIZE))
    assert nothing.images().shape == (1, *SIZE, 4) and not nothing.images().any() and not nothing.mask.any()
    assert torch.equal(over(nothing.layers()), photo[0])
    empty = Instances(((Thing("ghost", mask=torch.zeros(SIZE, dtype=torch.bool)),),), SIZE)
    assert isolate(photo, empty).cutouts == ()


def test_a_batch_keeps_its_pictures_apart() -> None:
    photo, things, depth = people()
    pair = Instances.join([things, Instances(((),), SIZE)])
    metres = torch.cat([depth.metres(), torch.ones(1, *SIZE)])
    made = isolate(photo.expand(2, -1, -1, -1), pair, depth_from_metres(metres), radius=2)
    assert [c.picture for c in made.cutouts] == [0, 0] and not made.mask[1].any()
    assert len(made.layers(1)["layers"]) == 1
    told = json.loads(made.json())
    assert [(t["name"], round(t["metres"], 3), t["z_index"]) for t in told] == [("person", 5, 1), ("dog, hound", 2, 2)]


def test_what_has_no_depth_lies_below_in_the_order_given() -> None:
    photo, things, depth = people()
    assert [i["name"] for i in isolate(photo, things).layers()["layers"]][1:] == ["dog, hound", "person"]
    valid = torch.ones(1, *SIZE, dtype=torch.bool)
    valid[0, things.masks(0)[1]] = False
    half = Depth(depth.values, "metric", valid)
    assert [i["name"] for i in isolate(photo, things, half).layers()["layers"]][1:] == ["dog, hound", "person"]


def test_everything_nearer_than_a_depth() -> None:
    photo, things, depth = people()
    near = nearer_than(depth, SIZE, 3.0, "metres")
    assert torch.equal(near.masks(0)[0], things.masks(0)[1])
    assert torch.equal(nearer_than(depth, SIZE, 6.0, "metres").masks(0)[0], things.masks(0).any(0))
    assert nearer_than(depth, SIZE, 1.0, "metres").things == ((),)
    assert torch.equal(nearer_than(depth, SIZE, 0.9).masks(0)[0], things.masks(0)[1])
    assert isolate(photo, near, depth).cutouts[0].name == "near"
    with pytest.raises(SignalError, match="order only"):
        nearer_than(Depth(depth.values, "ordinal"), SIZE, 3.0, "metres")


def test_a_folder_of_pictures_and_where_they_lie(tmp_path: Path) -> None:
    photo, things, depth = people()
    files = isolate(photo, things, depth, radius=0).save(tmp_path / "out")
    names = ["00_background.png", "01_person.png", "02_dog.png", "layers.json"]
    assert sorted(f.name for f in files) == names == sorted(p.name for p in (tmp_path / "out").iterdir())
    about = json.loads((tmp_path / "out/layers.json").read_text())
    assert about["canvas"] == [80, 60] and [layer["z_index"] for layer in about["layers"]] == [0, 1, 2]
    canvas = Image.new("RGBA", (80, 60))
    for layer in sorted(about["layers"], key=lambda layer: layer["z_index"]):
        with Image.open(tmp_path / "out" / layer["file"]) as part:
            assert part.mode == "RGBA"
            canvas.alpha_composite(part, (layer["left"], layer["top"]))
    again = torch.frombuffer(bytearray(canvas.convert("RGB").tobytes()), dtype=torch.uint8).view(*SIZE, 3)
    assert float((again / 255 - photo[0]).abs().amax()) <= 0.5 / 255 + 1e-6
    pair = Instances.join([things, Instances(((),), SIZE)])
    (tmp_path / "file").write_text("")
    with pytest.raises(FathomError, match="could not be written"):
        isolate(photo, things, depth, radius=0).save(tmp_path / "file")
    listed = isolate(photo.expand(2, -1, -1, -1), pair, radius=0).save(tmp_path / "two")
    assert {f.name for f in listed} >= {"0000_00_background.png", "0001_00_background.png"}


def test_things_found_in_a_smaller_picture_are_cut_out_of_the_large_one() -> None:
    photo, things, depth = people()
    large = photo.repeat_interleave(2, 1).repeat_interleave(2, 2)
    made = isolate(large, things, depth, radius=0)
    expected = things.masks(0).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(made.images()[..., 3] > 0, expected)
    face = Thing("face", 0.5, (1.5, 2.0, 10.0, 12.0), points=torch.tensor([[3.0, 4.0]]))
    (bigger,) = Instances(((face,),), SIZE).resized(120, 240).things[0]
    assert bigger.box == (4.5, 4.0, 30.0, 24.0) and bigger.points is not None and bigger.points.tolist() == [[9, 8]]


def test_what_does_not_fit_is_told() -> None:
    photo, things, depth = people()
    with pytest.raises(SignalError, match="instances of 1 pictures, the image holds 2"):
        isolate(photo.expand(2, -1, -1, -1), things)
    with pytest.raises(SignalError, match="80x60"):
        isolate(photo[:, :10], things)
    with pytest.raises(SignalError, match="depth of 2"):
        isolate(photo, things, depth_from_metres(depth.metres().expand(2, -1, -1)))
    with pytest.raises(SettingError, match="radius"):
        isolate(photo, things, radius=100)
    with pytest.raises(SettingError, match="background"):
        isolate(photo, things, background="none")  # pyright: ignore[reportArgumentType]
    many = Instances((tuple(Thing("a", box=(n, n, n + 2, n + 2)) for n in range(50)),), SIZE)
    with pytest.raises(SettingError, match="50 things"):
        isolate(photo, many, radius=0).layers()
