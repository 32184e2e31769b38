"""What may be handed in as a picture, and what is refused with which words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fathom import PictureError
from fathom.annotator.pictures import as_pixels


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 4]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.uint8]),
    seed=st.integers(0, 9),
)
@settings(max_examples=80, deadline=None)
def test_any_picture_becomes_rgb_in_0_to_1_and_is_not_changed(height, width, batch, channels, dtype, seed):
    image = torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.2
    image = (image.clamp(0, 1) * 255).to(dtype) if dtype == torch.uint8 else image.to(dtype)
    before = image.clone()
    pixels = as_pixels(image)
    assert pixels.shape == (batch, 3, height, width) and pixels.dtype == torch.float32
    assert 0 <= pixels.min() and pixels.max() <= 1
    assert torch.equal(image, before)


def test_rgb_equals_opaque_rgba_and_transparency_lies_over_white():
    rgb = torch.rand(1, 5, 4, 3)
    assert torch.equal(as_pixels(rgb), as_pixels(torch.cat([rgb, torch.ones(1, 5, 4, 1)], -1)))
    assert as_pixels(torch.cat([rgb, torch.zeros(1, 5, 4, 1)], -1)).eq(1).all()


def test_views_and_graph_tensors_work():
    image = torch.rand(1, 8, 10, 3)
    assert torch.equal(as_pixels(image[:, ::2, 1:]), as_pixels(image[:, ::2, 1:].contiguous()))
    wanted = torch.rand(1, 4, 4, 3, requires_grad=True)
    assert not as_pixels(wanted).requires_grad


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "F"])
def test_pil_modes(mode):
    array = np.linspace(0, 255, 6 * 5).reshape(6, 5).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(array.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(array.astype(np.float32) / 255)
    else:
        image = Image.fromarray(array).convert(mode)
    pixels = as_pixels(image)
    assert pixels.shape == (1, 3, 6, 5)
    if mode in ("RGB", "RGBA", "L", "LA", "I;16", "F"):
        np.testing.assert_allclose(pixels[0, 0].numpy(), array / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (torch.zeros(4, 4, 3), r"image\[None\]"),
        (torch.zeros(1, 4, 4, 2), "1, 3 or 4 channels"),
        (torch.zeros(0, 4, 4, 3), "empty"),
        (torch.zeros(1, 0, 4, 3), "empty"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.int64), "int64"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.bool), "bool"),
        (torch.full((1, 2, 2, 3), float("nan")), "12 NaN or infinite values of 12"),
        (torch.tensor([0.0, float("inf"), 0.5]).view(1, 1, 1, 3), "1 NaN or infinite values of 3"),
        (torch.tensor([float("-inf"), float("inf"), 0.5]).view(1, 1, 1, 3), "2 NaN"),
        (np.zeros((4, 4, 3)), "torch.from_numpy"),
        ("photo.png", "str"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_told(image, word):
    with pytest.raises(PictureError, match=word):
        as_pixels(image)


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.arange(256).reshape(16, 16).astype(np.float32), np.arange(256).reshape(16, 16) / 255),
        (np.linspace(-0.05, 1.1, 256).reshape(16, 16).astype(np.float32), None),
        (
            np.linspace(0, 65535, 256).reshape(16, 16).astype(np.int32),
            np.linspace(0, 65535, 256).reshape(16, 16) / 65535,
        ),
        (np.zeros((16, 16), np.int32), np.zeros((16, 16))),
    ],
)
def test_i_and_f_whose_range_is_plain(array, wanted):
    got = as_pixels(Image.fromarray(array))[0, 0].numpy()
    np.testing.assert_allclose(got, array.clip(0, 1) if wanted is None else wanted, atol=2e-5)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(256).reshape(16, 16).astype(np.int32),
        np.linspace(0, 255, 256).reshape(16, 16).astype(np.float32) + np.float32(0.01),
        np.linspace(0, 4000, 256).reshape(16, 16).astype(np.float32),
        np.linspace(-4, 1, 256).reshape(16, 16).astype(np.float32),
        np.linspace(0, 2**30, 256).reshape(16, 16).astype(np.int32),
        np.linspace(-5, 300, 256).reshape(16, 16).astype(np.int32),
    ],
)
def test_i_and_f_whose_white_cannot_be_told_are_refused(array):
    with pytest.raises(PictureError, match="what is white cannot be told.*Divide"):
        as_pixels(Image.fromarray(array))


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
@pytest.mark.parametrize("how", ["closed", "cut"])
def test_a_pil_image_that_cannot_be_read_is_told(tmp_path, mode, how):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    made = Image.fromarray(noise if mode == "RGB" else noise[..., 0].astype(np.uint16 if mode == "I;16" else np.uint8))
    made.save(tmp_path / "a.png")
    if how == "cut":
        data = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    image = Image.open(tmp_path / "a.png")
    if how == "closed":
        image.close()
    with pytest.raises(PictureError, match="cannot be read"):
        as_pixels(image)


def test_sparse_and_nested_tensors_are_told():
    for image, word in (
        (torch.rand(1, 4, 4, 3).to_sparse(), "sparse"),
        (torch.nested.nested_tensor([torch.rand(4, 4, 3), torch.rand(5, 4, 3)]), "nested"),
    ):
        with pytest.raises(PictureError, match=word):
            as_pixels(image)


def test_a_tensor_without_values_is_told():
    with pytest.raises(PictureError, match="without values"):
        as_pixels(torch.empty(1, 4, 5, 3, device="meta"))
