"""MoGe-2: exact networks, the published solver, directions and units, and files that are something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import DATA, assert_golden, golden_input, goldens, published, published_shapes
from PIL import Image

import fathom
from fathom import WeightsError
from fathom.annotator.loading import parameters_on_meta
from fathom.annotator.weights import Checkpoint, read
from fathom.models._focal import focal_and_shift, least_squares
from fathom.models._uv import view_plane
from fathom.models.moge import ESTIMATORS, SPECS, TINY, MoGeNetwork, token_grid

BY_ID = {e.id: e for e in ESTIMATORS}
SMALL = BY_ID["moge-2-small"]
FILES = {f"Ruicheng--moge-2-vit{size[0]}-normal__model.pt": f"moge-2-{size}" for size in SPECS}
SMALL_FILE = next(iter(FILES))
NOWHERE = Path("model.pt")


# ------------------------------------------------------------------------------- exact


@pytest.mark.parametrize("file", FILES)
def test_published_files_fit_the_network(file):
    estimator = BY_ID[FILES[file]]
    with parameters_on_meta():
        network = estimator.build(Checkpoint(NOWHERE, {}))
    ours = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    theirs = published_shapes(f"moge/{file}")
    assert set(theirs) - set(ours) == {"encoder.backbone.mask_token"}
    assert ours == {name: theirs[name] for name in ours}
    assert sum(p.numel() for p in network.parameters()) == estimator.parameters


@pytest.mark.parametrize(
    "file", [SMALL_FILE, *(pytest.param(file, marks=pytest.mark.parity) for file in list(FILES)[1:])]
)
def test_official_files_give_the_official_numbers(file, tmp_path):
    annotator = fathom.load(FILES[file], weights=published(f"moge/{file}", tmp_path), device="cpu")
    picture = Image.open(DATA / "inputs" / "land640x427.png").convert("RGB")
    kinds = []
    for about, golden in goldens("moge"):
        if about["file"] != file:
            continue
        kinds.append(about["kind"])
        if about["kind"] == "raw":
            with torch.inference_mode():
                found = annotator.network(golden_input(about), num_tokens=about["num_tokens"])
            for name, numbers in golden.items():
                assert_golden(found[name] if found[name].ndim == 1 else found[name][0], numbers, about, name, 1e-4)
            continue
        scene = annotator.scene(picture, num_tokens=about["num_tokens"])
        depth = scene.depth
        assert depth.kind == "metric" and depth.valid is not None
        assert bool((depth.valid[0, ::16, ::16].numpy() == golden["mask"].astype(bool)).all())
        metres = depth.metres().masked_fill(~depth.valid, torch.inf)
        assert_golden(metres[0], golden["depth"], about, "depth", 1e-4)
        vectors = (scene.normals.vectors * torch.tensor([1.0, -1.0, -1.0])).masked_fill(~depth.valid[..., None], 0)
        assert_golden(vectors[0], golden["normal"], about, "normal", 1e-4)
        relative = depth.focal[0] / torch.tensor([640.0, 427.0])
        np.testing.assert_allclose(relative, np.diag(golden["intrinsics"])[:2], rtol=1e-5)
        np.testing.assert_array_equal(depth.principal, [[319.5, 213.0]])
    assert kinds.count("endtoend") == 1 and "raw" in kinds


# ------------------------------------------------------------------------------- the solver


def cameras(count):
    """Seeded points of a camera with the focal length and the shift that they were made with, and some noise."""
    generator = torch.Generator().manual_seed(3)
    for number in range(count):
        focal, shift, noise = (float(torch.rand(1, generator=generator)) for _ in range(3))
        focal, shift, noise = 0.4 + 2 * focal, 0.8 * shift, (0.0, 0.02, 0.3)[number % 3] * noise
        plane = view_plane(48, 80, 80 / 48)
        z = 1 + 3 * torch.rand(48, 80, 1, generator=generator)
        points = torch.cat([plane * z / focal, z - shift], -1)
        yield points + noise * torch.randn(points.shape, generator=generator), focal, shift, noise


def test_the_solver_finds_the_camera_that_made_the_points():
    everywhere = torch.ones(48, 80, dtype=torch.bool)
    for points, focal, shift, noise in cameras(12):
        found = focal_and_shift(points, everywhere)
        if not noise:
            assert found == pytest.approx((focal, shift), rel=1e-2, abs=1e-2)


def test_the_solver_takes_minpacks_steps():
    optimize = pytest.importorskip("scipy.optimize")
    for points, *_ in cameras(24):
        across, z = points[..., :2].reshape(-1, 2).double(), points[..., 2:].reshape(-1, 1).double()
        plane = view_plane(48, 80, 80 / 48).reshape(-1, 2).double()

        def errors(shift, across=across, z=z, plane=plane):
            projected = across / (z + shift)
            return ((projected * plane).sum() / projected.square().sum() * projected - plane).flatten()

        theirs = optimize.least_squares(
            lambda x, errors=errors: errors(float(x[0])).numpy(), 0.0, ftol=1e-3, method="lm", x_scale="jac"
        )
        assert least_squares(errors) == pytest.approx(float(theirs.x[0]), rel=1e-6, abs=1e-6)


def test_too_few_points_give_what_the_published_code_says():
    nothing = torch.zeros(9, 7, dtype=torch.bool)
    assert focal_and_shift(torch.ones(9, 7, 3), nothing) == (1.0, 0.0)
    nothing[0, 0] = True
    assert focal_and_shift(torch.ones(9, 7, 3), nothing)[1] == 0.0


# ------------------------------------------------------------------------------- units and directions


class Fixed(torch.nn.Module):
    """A network that sees a plane 2 before the shift, tilted normals, and a bad row at the top."""

    def __init__(self, focal=0.8, shift=0.5, scale=3.0):
        super().__init__()
        self.focal, self.shift, self.scale = focal, shift, scale
        self.forwards = 0
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pixels, num_tokens, size):
        self.forwards += 1
        height, width = size
        z = torch.full((height, width, 1), 2.0)
        across = view_plane(height, width, width / height) * z / self.focal
        mask = torch.ones(height, width)
        mask[0] = 0.2
        normal = torch.tensor([0.6, 0.0, -0.8]).expand(height, width, 3)
        points = torch.cat([across, z - self.shift], -1)
        count = len(pixels)
        return {
            "points": points.expand(count, -1, -1, -1).clone(),
            "normal": normal.expand(count, -1, -1, -1),
            "mask": mask.expand(count, -1, -1),
            "metric_scale": torch.full((count,), self.scale),
        }


def infer(network, height=40, width=60, size=None):
    settings = SMALL.settings({})
    return SMALL.infer(
        network, torch.zeros(2, 3, height, width), SMALL.plan(height, width, None, settings),
        size or (height, width), settings,
    )  # fmt: skip


def test_one_forward_gives_metres_normals_and_the_lens():
    network = Fixed()
    # A flat wall tells no shift: any is right, and the solver stays near 0.
    found = infer(network)
    assert network.forwards == 1 and set(found) == {"depth", "normals"} == set(SMALL.produces)
    depth, normals = found["depth"], found["normals"]
    assert depth.kind == "metric" and len(depth) == 2
    metres = depth.metres()
    assert torch.equal(depth.valid, normals.valid) and not depth.valid[:, 0].any() and depth.valid[:, 1:].all()
    torch.testing.assert_close(metres[:, 1:], metres[:, 1:2, :1].expand(2, 39, 60))
    # The camera looks along z with y down; Fathom's y is up and its z comes towards the viewer.
    torch.testing.assert_close(normals.vectors[0, 5, 5], torch.tensor([0.6, 0.0, 0.8]))
    assert depth.focal.shape == (2, 2) and torch.equal(depth.focal[:, 0], depth.focal[:, 1])


def test_depth_is_shifted_before_it_is_scaled():
    network = Fixed()
    z = 1 + torch.rand(40, 60, 1, generator=torch.Generator().manual_seed(0))
    network.forward = lambda pixels, num_tokens, size: {  # type: ignore[method-assign]
        "points": torch.cat([view_plane(40, 60, 1.5) * z / 0.8, z - 0.5], -1)[None],
        "normal": torch.tensor([0.0, 0.0, -1.0]).expand(1, 40, 60, 3),
        "mask": torch.ones(1, 40, 60),
        "metric_scale": torch.tensor([3.0]),
    }
    depth = infer(network)["depth"]
    torch.testing.assert_close(depth.metres()[0], 3 * z[..., 0], rtol=1e-2, atol=1e-2)
    # 0.8 of half the diagonal of 40x60.
    assert float(depth.focal[0, 0]) == pytest.approx(0.8 * 36.06, rel=1e-2)


@pytest.mark.parametrize("size", [(1, 1), (90, 10), (3, 27), (64, 48)])
def test_any_picture_runs(size, tiny_annotator):
    scene = tiny_annotator("moge-2-small").scene(torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(0)))
    assert scene.depth.values.shape == scene.normals.vectors.shape[:3] == (1, *size)
    assert scene.depth.focal is not None and bool(torch.as_tensor(scene.depth.focal).gt(0).all())


def test_the_token_grid_keeps_the_aspect_and_its_bounds():
    assert token_grid(427, 640, 400) == (16, 24) and token_grid(168, 250, 130) == (9, 14)
    assert token_grid(1, 16384, 3600) == (1, 3600) and token_grid(1, 1, 1) == (1, 1)
    settings = SMALL.settings({"num_tokens": 400})
    assert SMALL.plan(427, 640, 128, settings).network == (224, 336) == SMALL.plan(427, 640, None, settings).network


# ------------------------------------------------------------------------------- files that are something else


@pytest.fixture
def tiny_file(seeded, tmp_path):
    """A function that writes a file of the tiny network as MoGe's are, weights and configuration side by side."""

    def write(config=None, keep=lambda key: True):
        state = {key: value for key, value in seeded(MoGeNetwork(TINY)).items() if keep(key)}
        path = tmp_path / "model.pt"
        torch.save({"model_config": config or {}, "model": state}, path)
        return path

    return write


def test_the_file_names_the_blocks_that_are_summed(tiny_file):
    path = tiny_file({"encoder": {"intermediate_layers": [0, 2]}})
    assert read(path).config == {"encoder": {"intermediate_layers": [0, 2]}}
    assert fathom.load(SMALL.tiny(), weights=path).network.encoder.taps == (0, 2)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"remap_output": "linear"}, "remap_output is 'linear', expected 'exp'"),
        ({"neck": {"res_block_in_norm": "layer_norm"}}, "neck.res_block_in_norm is 'layer_norm', expected 'none'"),
        ({"mask_head": {"resamplers": ["bilinear"] * 4}}, "mask_head.resamplers"),
        ({"encoder": {"intermediate_layers": [1, 4]}}, r"intermediate_layers is \[1, 4\], expected 2 of its 4 blocks"),
        ({"encoder": {"intermediate_layers": "all"}}, "intermediate_layers is 'all'"),
        ({"encoder": {"intermediate_layers": [3]}}, r"intermediate_layers is \[3\]"),
    ],
)
def test_another_configuration_is_told(config, told, tiny_file):
    with pytest.raises(WeightsError, match=f"configuration of another network: .*{told}"):
        fathom.load(SMALL.tiny(), weights=tiny_file(config))


def test_other_models_are_told_by_their_names(tiny_file):
    with pytest.raises(WeightsError, match="looks like moge-2-large: choose that"):
        SMALL.adapt(Checkpoint(NOWHERE, {"encoder.backbone.cls_token": torch.zeros(1, 1, 1024)}))
    with pytest.raises(WeightsError, match="No MoGe-2 model has that"):
        SMALL.adapt(Checkpoint(NOWHERE, {"encoder.backbone.cls_token": torch.zeros(1, 1, 48)}))
    with pytest.raises(WeightsError, match="looks like MoGe-1"):
        SMALL.adapt(Checkpoint(NOWHERE, {"backbone.cls_token": torch.zeros(1, 1, 1024)}))
    path = tiny_file(keep=lambda key: not key.startswith("normal_head"))
    with pytest.raises(WeightsError, match="without normals.*-normal"):
        fathom.load(SMALL.tiny(), weights=path)


def test_a_truncated_file_is_told(tiny_file):
    path = tiny_file()
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(WeightsError, match="damaged, cut short"):
        fathom.load(SMALL.tiny(), weights=path)


def test_a_file_without_a_configuration_loads(tiny_file):
    path = tiny_file()
    torch.save(torch.load(path, weights_only=True)["model"], path)
    assert fathom.load(SMALL.tiny(), weights=path).network.encoder.taps == TINY.taps
