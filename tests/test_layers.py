"""Linear layers on a processor against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from pretend_gpu import pretend_gpu
from torch import nn

from fathom.annotator import layers

BOTH = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
pytestmark = pytest.mark.skipif(not BOTH, reason="torch without MKL or oneDNN")


@pytest.fixture
def convolved(monkeypatch):
    """The shapes of what goes into F.conv2d, as they come."""
    shapes, plain = [], F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda x, *rest: shapes.append(tuple(x.shape)) or plain(x, *rest))
    return shapes


@pytest.mark.parametrize("bias", [True, False])
def test_a_large_product_goes_through_onednn_and_is_the_same(bias, convolved):
    torch.manual_seed(0)
    layer = nn.Linear(512, 640, bias=bias)
    x = torch.randn(2, 450, 3, 512).transpose(1, 2)
    expected = layer(x)
    network = nn.Sequential(layer)
    before = dict(network.named_parameters())
    layers.speed_up_linear_layers(network)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)
    assert convolved == [(1, 512, 1, 2700)]
    after = dict(network.named_parameters())
    assert after.keys() == before.keys() and all(after[name] is before[name] for name in before)


def test_what_nothing_is_won_for_stays_torchs_own(convolved):
    network = nn.Sequential(nn.Linear(512, 640), nn.MultiheadAttention(8, 2))
    kept = type(network[1].out_proj)
    layers.speed_up_linear_layers(network)
    assert type(network[1].out_proj) is kept
    network[0](torch.rand(4, 512))
    network[0].bfloat16()(torch.rand(1000, 512, dtype=torch.bfloat16))
    with pretend_gpu():
        network[0].float().to("cuda")(torch.rand(1000, 512).to("cuda"))
    assert convolved == []


def test_a_network_whose_regions_hang_on_last_bits_keeps_them(tiny_annotator):
    def kinds(id):
        return {type(m) for m in tiny_annotator(id).network.modules() if isinstance(m, nn.Linear)}

    assert layers.ProcessorLinear in kinds("depth-anything-v2-small")
    assert layers.ProcessorLinear not in kinds("oneformer-ade20k")


def test_switches_that_nobody_may_read_stay_as_they_are(monkeypatch):
    network = nn.Sequential(nn.Linear(4, 4))
    layers.compute_float32_products(network, tf32=True)
    before = layers.tf32_allowed()

    def mixed():
        raise RuntimeError("a mix of the legacy and new APIs")

    with monkeypatch.context() as patched:
        patched.setattr(layers, "tf32_allowed", mixed)
        patched.setattr(layers, "_allow_tf32", lambda *_: pytest.fail("switched"))
        network(torch.rand(1, 4))
    assert layers.tf32_allowed() == before
    seen = []
    network[0].register_forward_hook(lambda *_: seen.append(layers.tf32_allowed()))
    network(torch.rand(1, 4))
    assert seen == [(True, True)] and layers.tf32_allowed() == before
