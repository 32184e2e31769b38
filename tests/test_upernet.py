"""UPerNet on ConvNeXt-T against transformers' own processor and class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import lively

from fathom.annotator import loading
from fathom.annotator.weights import Checkpoint
from fathom.models import estimator
from fathom.signals import Palette

ID = "upernet-convnext-tiny"


def reference() -> Any:
    """transformers' class in the sizes of the tiny variant, auxiliary head and all, with seeded weights."""
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    tiny: Any = estimator(ID).tiny()
    stages = [f"stage{i + 1}" for i in range(4)]
    config = UperNetConfig(
        backbone_config=ConvNextConfig(**tiny.backbone, out_features=stages),
        **{"hidden_size": tiny.width, "num_labels": 150, "auxiliary_in_channels": 16, "auxiliary_channels": 8},
    )
    network = UperNetForSemanticSegmentation(config).eval()
    network.load_state_dict(lively(network))
    return network


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Any, Any]:
    """(transformers' network, our annotator) over one file of the published layout."""
    network = reference()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    return network, loading.load(estimator(ID).tiny(), tmp_path / "pytorch_model.bin", device="cpu")


def test_the_network_is_transformers(pair: Any) -> None:
    theirs, ours = pair
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(pixels).logits
        torch.testing.assert_close(ours.network(pixels), expected, atol=1e-5, rtol=1e-5)
    assert expected.argmax(1).unique().numel() > 1


def test_labels_are_the_published_processors(pair: Any) -> None:
    from PIL import Image
    from transformers import SegformerImageProcessor

    theirs, ours = pair
    levels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = Image.fromarray(levels).resize((90, 60), Image.Resampling.BICUBIC)
    side = {"height": 64, "width": 64}
    processor = SegformerImageProcessor(size=side, do_reduce_labels=False, resample=2)
    # The newer processors resize with torch; the published rule is PIL's, so the picture comes resized.
    small = image.resize((64, 64), Image.Resampling.BILINEAR)
    batch = processor(small, return_tensors="pt", do_resize=False)
    with torch.inference_mode():
        outputs = theirs(**batch)
    expected = processor.post_process_semantic_segmentation(outputs, target_sizes=[(60, 90)])[0]
    labels = ours(image).labels[0]
    assert expected.unique().numel() > 1
    assert (labels == expected).float().mean() >= 0.999


def test_the_first_labels_are_ade20ks() -> None:
    names = Palette.named("ade20k").names
    assert len(names) == 150 and names[0] == "wall" and names[2] == "sky" and names[12].startswith("person")


def test_the_networks_size() -> None:
    upernet = estimator(ID)
    assert upernet.fit(427, 640, None).network == (512, 512)
    assert upernet.fit(427, 640, 512).network == (512, round(640 * 512 / 427))
    assert upernet.fit(50, 3000, 512).network == (34, 2048)
    assert upernet.fit(1, 16384, 64).network == (32, 2048)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (65, 1), (50, 3000)])
def test_extreme_pictures_run(size: tuple[int, int], tiny_annotator: Any) -> None:
    annotator = tiny_annotator(ID)
    assert annotator(torch.rand(1, *size, 3)).labels.shape == (1, *size)
    assert min(annotator(torch.rand(1, *size, 3), resolution=64).labels.shape[1:]) == 64


def test_a_batch_equals_single_runs(tiny_annotator: Any) -> None:
    annotator = tiny_annotator(ID)
    batch = torch.rand(3, 40, 56, 3, generator=torch.Generator().manual_seed(2))
    together = annotator(batch).labels
    for i in range(3):
        assert torch.equal(together[i], annotator(batch[i : i + 1]).labels[0])


def test_the_parameter_count_is_the_networks() -> None:
    upernet = estimator(ID)
    with loading.parameters_on_meta():
        network = upernet.build(Checkpoint(Path(), {}))
    assert sum(p.numel() for p in network.parameters()) == upernet.parameters
