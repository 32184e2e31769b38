"""The lens of a photo by its EXIF: read, refused where the photo was cut, and on its way to metres."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mass_runs import annotate
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

import fathom
from fathom.annotator.decode import decode
from fathom.signals.exif import focal_length

METRIC = "depth-anything-3-metric-large"
FOCAL = 28 / math.hypot(36, 24) * math.hypot(96, 64)


def photo(path: Path, tags: dict[int, Any], **more: Any) -> Path:
    """A JPEG of 96x64 whose EXIF holds `tags`."""
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(tags)
    exif[0x0112] = more.pop("turn", 1)
    noise = np.random.default_rng(3).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC).save(path, exif=exif, quality=95, **more)
    return path


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({0xA405: 28}, FOCAL),
        ({0xA405: 28, 0xA002: 960, 0xA003: 640}, FOCAL),  # made smaller since
        ({0xA405: 28, 0xA002: 640, 0xA003: 960}, FOCAL),  # turned since
        ({0xA405: 28, 0xA002: 96, 0xA003: 96}, None),  # cut since
        # 6 mm over pixels of which 8000 lie on 2 centimetres, the photo a tenth of the sensor.
        ({0x920A: IFDRational(6), 0xA20E: IFDRational(4000), 0xA210: 3, 0xA002: 960, 0xA003: 640}, 240.0),
        ({0xA405: 0}, None),
        ({0xA405: 60000}, None),
        ({0x920A: IFDRational(6)}, None),
        ({}, None),
    ],
)
def test_a_photos_focal_length(tags: dict[int, Any], expected: float | None, tmp_path: Path) -> None:
    assert focal_length(Image.open(photo(tmp_path / "a.jpg", tags))) == pytest.approx(expected)


def test_what_is_no_photo_tells_no_lens() -> None:
    assert focal_length(torch.rand(1, 4, 4, 3)) is None and focal_length(Image.new("RGB", (4, 4))) is None


@pytest.mark.parametrize("turn", [1, 6])
def test_decoding_keeps_the_lens(turn: int, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for number, more in enumerate(({}, {"icc_profile": profile})):
        data = photo(tmp_path / f"{number}.jpg", {0xA405: 28}, turn=turn, **more).read_bytes()
        assert focal_length(decode(data, "a.jpg")) == pytest.approx(FOCAL)


def test_a_photo_becomes_metres_by_its_own_lens(tmp_path: Path, tiny_annotator: Any, monkeypatch: Any) -> None:
    from fathom.annotator import loading

    tiny = tiny_annotator(METRIC)
    (tmp_path / "in").mkdir()
    path = photo(tmp_path / "in" / "a.jpg", {0xA405: 28})
    expected: Any = tiny(Image.open(path).copy().convert("RGB"), focal=FOCAL)
    depth: Any = tiny(Image.open(path))
    assert depth.kind == "metric" and torch.equal(depth.values, expected.values)
    assert torch.equal(tiny.scene(Image.open(path)).depth.values, expected.values)
    asked: Any = tiny(Image.open(path), field_of_view=90.0)
    assert float(asked.focal[0, 0]) == pytest.approx(48)
    plain: Any = tiny(torch.from_numpy(np.array(Image.open(path)))[None])
    assert plain.kind == "scale_inverse"
    made = loading.decompose(Image.open(path), {"depth": tiny.estimator}, take=lambda estimator: tiny)
    assert made.depth.kind == "metric"
    monkeypatch.setattr(loading, "load", lambda *_: tiny)
    photo(tmp_path / "in" / "b.jpg", {})
    annotate(tmp_path / "in", tmp_path / "out", signals=[f"depth={METRIC}:npz"])
    metres: Any = fathom.load_signal(tmp_path / "out" / "a_depth.npz")
    torch.testing.assert_close(metres.values, expected.values)
    other: Any = fathom.load_signal(tmp_path / "out" / "b_depth.npz")
    assert other.kind == "scale_inverse"


def test_the_node_gives_the_view_that_metres_need(tmp_path: Path, tiny_annotator: Any, monkeypatch: Any) -> None:
    from fathom.nodes import one_pass, sensors

    path = photo(tmp_path / "a.jpg", {0xA405: 28})
    monkeypatch.setattr(sensors.host, "input_file", lambda file: path)
    image, view, focal = sensors.FathomLoadPhoto().execute("a.jpg")
    assert image.shape == (1, 64, 96, 3) and focal == pytest.approx(FOCAL)
    monkeypatch.setattr(one_pass.cache, "take", lambda estimator: tiny_annotator(METRIC))
    _, depth, _ = one_pass.FathomDepthAnything3().execute(image, METRIC, field_of_view=view)
    assert depth.kind == "metric"
    assert float(torch.as_tensor(depth.focal)[0, 0]) == pytest.approx(FOCAL, rel=1e-5)
    path = photo(tmp_path / "b.jpg", {})
    assert sensors.FathomLoadPhoto().execute("b.jpg")[1:] == (0.0, 0.0)
