"""Fathom ControlNet Preset: each control model gets its annotator's picture, and its source is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fathom
from fathom.nodes import estimate
from fathom.nodes.preset import PRESETS, FathomControlNetPreset, about

DOCS = Path(__file__).parents[1] / "docs" / "controlnet.md"


@pytest.fixture
def asked(monkeypatch, tiny_annotator):
    """Let tiny variants run; (id, resolution) of every run."""
    seen = []

    class Noted:
        def __init__(self, id):
            self.id = id

        def annotate(self, image, resolution, options=None):
            seen.append((self.id, resolution))
            return tiny_annotator(self.id).annotate(image, resolution and min(resolution, 64), options)

    monkeypatch.setattr(estimate.cache, "take", lambda e, dtype=None: Noted(e.id))
    return seen


@pytest.mark.parametrize("name", PRESETS)
def test_a_control_model_gets_its_annotator_at_its_size(asked, name):
    picture = torch.rand(2, 40, 60, 3, generator=torch.Generator().manual_seed(1))
    image, told = FathomControlNetPreset().execute(picture, name)
    made = PRESETS[name]
    assert asked == [(made.estimator, made.side)]
    assert image.shape[0] == 2 and image.shape[-1] == 3 and 0 <= image.min() and image.max() <= 1
    assert made.estimator in told and made.source in told and (made.unsaid in told)
    FathomControlNetPreset().execute(picture[:1], name, "picture")
    assert asked[1] == (made.estimator, 0 if made.side is not None else None)


def test_flux_sees_the_networks_numbers_as_its_makers_code_draws_them(asked, tiny_annotator):
    """Over 255 and not stretched, from the network at its published size."""
    picture = torch.rand(2, 40, 60, 3, generator=torch.Generator().manual_seed(1))
    image, _ = FathomControlNetPreset().execute(picture, "FLUX.1 Depth")
    depth = tiny_annotator("depth-anything-large")(picture)
    torch.testing.assert_close(image, (depth.values / 255).clamp(0, 1)[..., None].expand(-1, -1, -1, 3))
    assert image.shape == picture.shape and 0 < image.max() < 1


def test_a_film_shares_one_range(asked):
    frames = torch.rand(3, 40, 60, 3, generator=torch.Generator().manual_seed(2))
    image, _ = FathomControlNetPreset().execute(frames, "Cosmos-Transfer 2.5 depth")
    assert image.min() == 0 and image.max() == 1
    assert sorted(image.amax((1, 2, 3)).tolist()).count(1.0) < 3


def test_every_row_of_the_table_is_the_presets():
    rows = [line.split("|") for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
    table = {row[1].strip(): row for row in rows}
    assert set(table) == set(PRESETS)
    for name, made in PRESETS.items():
        _, _, annotator, side, unsaid, source, _ = table[name]
        assert made.estimator in fathom.estimators() and annotator.strip() == f"`{made.estimator}`"
        assert side.strip() == (str(made.side) if made.side else "not stated: the picture's own")
        assert unsaid.strip() == (made.unsaid or "-") and f"({made.source})" in source
        assert made.source.startswith("https://") and (made.side or made.unsaid)


def test_what_is_not_stated_is_said():
    assert "not stated there: the size" in about("FLUX.1 Depth", (8, 8))
    assert "not stated" not in about("SD1.5 ControlNet 1.1 depth", (8, 8)).splitlines()[-1]


def test_other_names_and_sizes_are_refused():
    picture = torch.rand(1, 8, 8, 3)
    with pytest.raises(fathom.SettingError, match="control_model must be one of SD1.5"):
        FathomControlNetPreset().execute(picture, "SD4 depth")
    with pytest.raises(fathom.SettingError, match="size must be one of trained, picture"):
        FathomControlNetPreset().execute(picture, "FLUX.1 Depth", "big")
