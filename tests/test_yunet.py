"""YuNet: what OpenCV decodes against numbers computed by hand, every size of picture, every broken file."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yunet_file as painted

import fathom
from fathom import SettingError, WeightsError
from fathom.annotator.weights import Found
from fathom.models import estimator, yunet
from fathom.signals.instances import FACE, Instances

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.write(tmp_path_factory.mktemp("yunet") / "face_detection_yunet_2023mar.onnx")


@pytest.fixture(scope="module")
def network(onnx: Path) -> yunet.YuNet:
    chosen = estimator("yunet")
    checkpoint = chosen.read(Found(onnx, onnx.parent, "given"))
    made = chosen.build(checkpoint)
    made.load_state_dict(checkpoint.tensors)
    assert isinstance(made, yunet.YuNet)
    return made


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255


def levels(generator: np.random.Generator, count: int) -> tuple[int, ...]:
    return tuple(int(v) for v in generator.integers(96, 160, count))


@pytest.mark.parametrize("seed", range(6))
def test_decoding_equals_numbers_made_by_hand(network: yunet.YuNet, seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = (int(v) for v in generator.integers(200, 600, 2))
    picture = np.zeros((height, width, 3), np.uint8)
    expected = []
    # Far enough from each other that nothing is suppressed.
    for stride in painted.STRIDES:
        for _ in range(2):
            row, column = (int(generator.integers(0, side // stride)) for side in (height, width))
            dx, dy = levels(generator, 2)
            box = dx, dy, int(generator.integers(70, 128)), int(generator.integers(70, 128))
            face = painted.paint(picture, stride, (row, column), (250, 255 - len(expected)), box, levels(generator, 10))
            if all(apart(face, other) for other in expected):
                expected.append(face)
            else:
                clear(picture, stride, (row, column))
    found = network(tensor(picture))[0]
    wanted = torch.tensor(sorted(expected, key=lambda face: -face[-1]), dtype=torch.float32)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def apart(a: list[float], b: list[float]) -> bool:
    return a[0] + a[2] < b[0] or b[0] + b[2] < a[0] or a[1] + a[3] < b[1] or b[1] + b[3] < a[1]


def clear(picture: np.ndarray, stride: int, cell: tuple[int, int]) -> None:
    painted.paint(picture, stride, cell, (0, 0), (0, 0, 0, 0), (0,) * 10)


def test_of_boxes_that_overlap_the_best_stays(network: yunet.YuNet) -> None:
    picture = np.zeros((128, 128, 3), np.uint8)
    best = painted.paint(picture, 8, (4, 4), (255, 255), (128, 128, 190, 190))
    painted.paint(picture, 8, (4, 5), (250, 250), (128, 128, 190, 190))
    (found,) = network(tensor(picture))
    assert len(found) == 1 and found[0, :4].tolist() == pytest.approx(best[:4], abs=1e-4)
    (both,) = network(tensor(picture), overlap=1.0)
    assert len(both) == 2
    assert len(network(tensor(picture), score=0.99)[0]) == 1 and not len(network(tensor(picture) * 0)[0])


def test_the_channels_are_the_right_way_round(onnx: Path, network: yunet.YuNet) -> None:
    # The network reads green; red and blue alone give nothing, in whichever order.
    picture = np.zeros((64, 64, 3), np.uint8)
    painted.paint(picture, 8, (2, 2), (255, 255), (128, 128, 160, 160))
    for channel, faces in ((0, 0), (1, 1), (2, 0)):
        alone = np.zeros_like(picture)
        alone[..., channel] = picture[..., channel]
        assert len(network(tensor(alone))[0]) == faces


def paint_block(picture: np.ndarray, scale: int, stride: int, cell: tuple[int, int], *what: Any) -> list[float]:
    """As `paint`, each pixel a block of `scale`, so that it is read when the picture is looked at that much smaller."""
    small = np.zeros((picture.shape[0] // scale, picture.shape[1] // scale, 3), np.uint8)
    face = painted.paint(small, stride, cell, *what)
    large = small.repeat(scale, 0).repeat(scale, 1)
    picture[: len(large), : large.shape[1]] = np.maximum(picture[: len(large), : large.shape[1]], large)
    return [v * scale for v in face[:-1]] + [face[-1]]


def test_a_large_picture_is_looked_at_in_tiles_and_at_several_sizes(
    network: yunet.YuNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks mean something at other sizes too, so what each look gave is seen, not what was joined.
    monkeypatch.setattr(yunet, "_merged", lambda faces, overlap: faces)
    picture = np.zeros((1600, 3200, 3), np.uint8)
    tiny = painted.paint(picture, 8, (190, 390), (255, 255), (128, 128, 136, 136))
    at_a_border = painted.paint(picture, 32, (20, 39), (255, 254), (128, 128, 160, 160))
    huge = paint_block(picture, 8, 32, (3, 9), (255, 253), (128, 128, 184, 184))
    (found,) = network(tensor(picture))
    boxes = found[:, :4].tolist()
    for face in (tiny, at_a_border, huge):
        assert any(box == pytest.approx(face[:4], abs=1e-2) for box in boxes), (face, boxes)
    assert tiny[2] < 12 and huge[2] > 1000


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (31, 33), (640, 640), (641, 20)])
def test_every_size_of_picture_runs(network: yunet.YuNet, size: tuple[int, int]) -> None:
    assert network(torch.zeros(2, 3, *size))[1].shape == (0, 15)


def test_a_face_where_tiles_overlap_is_found_once(network: yunet.YuNet) -> None:
    picture = np.zeros((200, 1700, 3), np.uint8)
    face = painted.paint(picture, 8, (10, 130), (255, 255), (128, 128, 160, 160))
    (found,) = network(tensor(picture))
    assert len(found) == 1 and found[0, :4].tolist() == pytest.approx(face[:4], abs=1e-3)


def test_a_part_of_a_face_is_no_second_face() -> None:
    whole = [0.0, 0, 100, 100, *[0] * 10, 0.95]
    eye = [20.0, 20, 12, 10, *[0] * 10, 0.92]
    beside = [105.0, 0, 50, 50, *[0] * 10, 0.93]
    assert yunet._merged(torch.tensor([eye, whole, beside]), 0.3)[:, 14].tolist() == pytest.approx([0.95, 0.93])


def test_the_network_travels(network: yunet.YuNet) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    painted.paint(picture, 8, (2, 2), (255, 255), (128, 128, 160, 160))
    expected = network(tensor(picture))[0]
    for other in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        assert torch.equal(other(tensor(picture))[0], expected)


def test_faces_are_a_signal_in_pixels_of_the_result(onnx: Path) -> None:
    annotator = fathom.load("yunet", weights=onnx, device="cpu")
    picture = np.zeros((100, 200, 3), np.uint8)
    x, y, width, height, *points, score = painted.paint(
        picture, 16, (3, 5), (255, 250), (128, 128, 150, 160), tuple(range(120, 130))
    )
    image = torch.from_numpy(picture)[None].float() / 255
    faces = annotator(image.expand(2, -1, -1, -1))
    assert isinstance(faces, Instances) and faces.size == (100, 200) and len(faces) == 2
    (face,) = faces.things[1]
    assert face.name == FACE and face.score == pytest.approx(score, abs=1e-5) and face.runs is None
    assert face.box == pytest.approx((x, y, x + width, y + height), abs=1e-4)
    assert face.points is not None and face.points.flatten().tolist() == pytest.approx(points, abs=1e-4)
    half = annotator(image, resolution=50)
    assert isinstance(half, Instances) and half.size == (50, 100)
    assert half.things[0][0].box == pytest.approx([v / 2 for v in face.box], abs=1e-4)
    assert not annotator(image, least=80).things[0]  # pyright: ignore[reportAttributeAccessIssue]
    assert not annotator(image * 0).things[0]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(SettingError, match="score"):
        annotator(image, score=2.0)


def test_an_older_opencv_takes_the_file_by_its_path(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    create = cv2.FaceDetectorYN.create
    asked = []

    class Older:
        """FaceDetectorYN of OpenCV 4.8, which knows paths alone."""

        @staticmethod
        def create(model: Any, config: Any, *rest: Any) -> Any:
            if not isinstance(config, str):
                raise TypeError("Can't convert object to 'str' for 'config'")
            asked.append(model)
            return create(model, config, *rest)

    monkeypatch.setattr(cv2, "FaceDetectorYN", Older)
    yunet._detector(onnx.read_bytes())
    assert len(asked) == 1 and not Path(asked[0]).exists()


def read(path: Path) -> Any:
    return estimator("yunet").read(Found(path, path.parent, "given"))


@pytest.mark.parametrize("cut", [0, 1, 100, 5000, -7])
def test_a_file_cut_short_is_told(onnx: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "cut.onnx").write_bytes(onnx.read_bytes()[:cut])
    with pytest.raises(WeightsError, match="damaged, cut short, or no ONNX"):
        read(tmp_path / "cut.onnx")


def test_another_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="its outputs are boxes; missing cls_8"):
        read(painted.write(tmp_path / "other.onnx", ("boxes",)))
    parts = (*painted.PARTS[:3], ("kps", 8))
    with pytest.raises(WeightsError, match="kps_8 gives 8 numbers for each cell, expected 10"):
        read(painted.write(tmp_path / "more.onnx", parts=parts))
    (tmp_path / "page.onnx").write_text("<!doctype html>" * 30)
    with pytest.raises(WeightsError, match="no ONNX network"):
        read(tmp_path / "page.onnx")


def test_a_missing_opencv_is_named(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SettingError, match="opencv-python-headless"):
        read(onnx)
