"""The convolution of an enlarged map against enlarging and convolving."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fathom.models import _enlarged


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("small", "large"), [((5, 7), (10, 14)), ((4, 4), (13, 9)), ((1, 3), (4, 12)), ((6, 5), (6, 5))]
)
def test_it_equals_enlarging_and_convolving(small, large, align_corners):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 96, *small, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 96, 3, 3, generator=generator, dtype=torch.float64)
    enlarged = F.interpolate(x, large, mode="bilinear", align_corners=align_corners)
    expected = F.conv2d(enlarged, weight, padding=1)
    torch.testing.assert_close(_enlarged.convolve_enlarged(x, weight, large, align_corners), expected)


def test_the_short_way_is_taken_where_it_saves_and_only_there(monkeypatch):
    sizes = []
    plain = F.conv2d
    seen = lambda x, *rest, **more: sizes.append(tuple(x.shape[-2:])) or plain(x, *rest, **more)  # noqa: E731
    monkeypatch.setattr(F, "conv2d", seen)
    _enlarged.convolve_enlarged(torch.rand(1, 256, 8, 8), torch.rand(16, 256, 3, 3), (16, 16), True)
    _enlarged.convolve_enlarged(torch.rand(1, 4, 8, 8), torch.rand(16, 4, 3, 3), (16, 16), True)
    assert sizes == [(8, 8), (16, 16)]
