"""YuNet: faces with five landmarks (Wu et al., Machine Intelligence Research 2023, doi 10.1007/s11633-023-1423-y).

Network: the ONNX file of opencv/opencv_zoo, run by OpenCV's own FaceDetectorYN, which also holds the published
processing: BGR levels 0..255 as they are, zeros added below and to the right up to multiples of 32, score =
sqrt(class x object), boxes from strides 8, 16 and 32, non-maximum suppression. OpenCV computes on the processor, on
every machine.

The network was trained on faces of 10 to 300 pixels. A larger picture is therefore looked at several times: as it is,
at half its size, at a quarter, until its long side is at most 640 pixels; and in tiles that overlap by more than the
largest such face, so that memory does not grow with the picture. One that is small enough is looked at once, which is
the published way.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..annotator.estimator import Estimator, Licence, Option
from ..annotator.sizing import Fit, Size
from ..annotator.weights import Checkpoint, Found
from ..errors import FathomError, WeightsError
from ..signals import Signal
from ..signals.instances import FACE, Instances, Thing
from ..signals.opencv import opencv
from ._sources import published

# Numbers that each cell of each stride gives.
_OUTPUTS = {
    f"{part}_{stride}": numbers
    for part, numbers in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
    for stride in (8, 16, 32)
}
_ENOUGH = 640  # the long side at which a face that fills the picture is still found
_TILE, _SHARED = 1280, 384
_MOST = 5000  # boxes before suppression, FaceDetectorYN's own default
_PART = 0.7  # a box with this share of it inside a better one is a part of that face


class YuNet(nn.Module):
    """The bytes of the ONNX file, and OpenCV's detector over them. It computes on the processor wherever it lies.

    Input: (B,3,h,w), RGB in 0..1. Output: for each picture float32 (N,15): x, y, width, height of the box, x and y of
    right eye, left eye, nose tip, right and left corner of the mouth (the person's right), score. Best first.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self.register_buffer("onnx", torch.zeros(length, dtype=torch.uint8))
        # What asks a network for its precision and its device looks at a parameter.
        self.precision = nn.Parameter(torch.zeros(1), requires_grad=False)
        self._detector: Any = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What travels to another process: OpenCV's detector and the lock are made there."""
        return {k: v for k, v in super().__getstate__().items() if k not in ("_detector", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._detector, self._lock = None, threading.Lock()

    def forward(self, pixels: Tensor, score: float = 0.9, overlap: float = 0.3) -> list[Tensor]:
        """(B,3,h,w) RGB in 0..1 -> (N,15) for each picture, on the processor. score: the least of a face. overlap: the
        intersection over union above which only the better of two boxes stays."""
        levels = (pixels.float() * 255).round().clamp(0, 255).to(torch.uint8)
        return [self._faces(picture, score, overlap) for picture in levels.flip(1).permute(0, 2, 3, 1).cpu().numpy()]

    def _faces(self, picture: Any, score: float, overlap: float) -> Tensor:
        cv2 = opencv("Finding faces")
        looks = []
        scale = 1.0
        while True:
            size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
            small = picture if scale == 1.0 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            looks += [self._look(tile, left, top, scale, score, overlap) for tile, left, top in _tiles(small)]
            if max(size) <= _ENOUGH:
                break
            scale /= 2
        return looks[0] if len(looks) == 1 else _merged(torch.cat(looks), overlap)

    def _look(self, picture: Any, left: int, top: int, scale: float, score: float, overlap: float) -> Tensor:
        with self._lock:
            if self._detector is None:
                self._detector = _detector(bytes(self.onnx.cpu().numpy()))  # pyright: ignore[reportCallIssue]
            self._detector.setInputSize((picture.shape[1], picture.shape[0]))
            self._detector.setScoreThreshold(score)
            self._detector.setNMSThreshold(overlap)
            try:
                found = self._detector.detect(picture)[1]
            except opencv("Finding faces").error as error:
                height, width = picture.shape[:2]
                raise FathomError(f"OpenCV failed to look for faces in {width}x{height} pixels: {error}") from error
        if found is None:
            return torch.zeros(0, 15)
        offset = torch.tensor([left, top, 0, 0, *(left, top) * 5, 0.0])
        faces = torch.from_numpy(found).float() + offset
        faces[:, :14] /= scale
        return faces[faces[:, 14].argsort(descending=True, stable=True)]


def _tiles(picture: Any) -> Iterator[tuple[Any, int, int]]:
    """Parts of a picture (H,W,C) that overlap, each with its left and its top; the whole where it is small."""
    import numpy as np

    for top in _starts(picture.shape[0]):
        for left in _starts(picture.shape[1]):
            yield np.ascontiguousarray(picture[top : top + _TILE, left : left + _TILE]), left, top


def _starts(length: int) -> range:
    return range(0, max(1, length - _SHARED), _TILE - _SHARED)


def _merged(faces: Tensor, overlap: float) -> Tensor:
    """The faces of several looks at one picture, each once, best first."""
    faces = faces[faces[:, 14].argsort(descending=True, stable=True)]
    start, extent = faces[:, :2], faces[:, 2:4]
    area = extent.prod(1)
    kept: list[int] = []
    for i in range(len(faces)):
        others = torch.tensor(kept, dtype=torch.long)
        low = torch.maximum(start[i], start[others])
        high = torch.minimum(start[i] + extent[i], start[others] + extent[others])
        shared = (high - low).clamp_min(0).prod(1)
        same = shared / (area[i] + area[others] - shared).clamp_min(1e-9) > overlap
        # A look at another size may take an eye for a face.
        part = shared / torch.minimum(area[i], area[others]).clamp_min(1e-9) > _PART
        if not bool((same | part).any()):
            kept.append(i)
    return faces[kept]


def _detector(onnx: bytes) -> Any:
    cv2 = opencv("Finding faces")
    settings = (320, 320), 0.9, 0.3, _MOST, cv2.dnn.DNN_BACKEND_OPENCV, cv2.dnn.DNN_TARGET_CPU
    try:
        import numpy as np

        return cv2.FaceDetectorYN.create("onnx", np.frombuffer(onnx, np.uint8), np.zeros(0, np.uint8), *settings)
    except (TypeError, cv2.error):
        # OpenCV 4.8 and older take the path of a file alone.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "yunet.onnx"
            path.write_bytes(onnx)
            return cv2.FaceDetectorYN.create(str(path), "", *settings)


def _check_network(onnx: bytes, path: Path) -> None:
    """Raise WeightsError unless OpenCV can read the file and it has YuNet's outputs."""
    cv2 = opencv("Finding faces")
    if not hasattr(cv2, "FaceDetectorYN"):
        raise WeightsError(
            f"this OpenCV ({cv2.__version__}) has no FaceDetectorYN: pip install --upgrade opencv-python-headless."
        )
    try:
        import numpy as np

        network = cv2.dnn.readNetFromONNX(np.frombuffer(onnx, np.uint8))
        outputs = set(network.getUnconnectedOutLayersNames())
        shapes = _shapes(network) if outputs >= set(_OUTPUTS) else {}
    except cv2.error as error:
        reason = str(error).strip().splitlines()[-1][:160] if str(error).strip() else "no reason given"
        raise WeightsError(
            f"YuNet: {path} ({len(onnx)} bytes) is damaged, cut short, or no ONNX network: delete it and fetch it "
            f"again ({reason})."
        ) from None
    if not shapes:
        missing, more = sorted(set(_OUTPUTS) - outputs), sorted(outputs - set(_OUTPUTS))
        raise WeightsError(
            f"YuNet: {path} is another network: its outputs are {', '.join(more[:6]) or 'too few'}; missing "
            f"{', '.join(missing[:4]) or 'none'}. Needed is face_detection_yunet_2023mar.onnx."
        )
    if wrong := [name for name, numbers in _OUTPUTS.items() if shapes[name][-1] != numbers]:
        raise WeightsError(
            f"YuNet: {path} is another network: {wrong[0]} gives {shapes[wrong[0]][-1]} numbers for each cell, "
            f"expected {_OUTPUTS[wrong[0]]}. Needed is face_detection_yunet_2023mar.onnx."
        )


def _shapes(network: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each output, of one forward at the size that the published file names."""
    import numpy as np

    network.setInput(np.zeros((1, 3, 640, 640), np.float32))
    return dict(zip(_OUTPUTS, map(np.shape, network.forward(list(_OUTPUTS))), strict=True))


@dataclass(frozen=True, kw_only=True)
class YuNetEstimator(Estimator):
    """Faces; the slot "faces"."""

    def read(self, found: Found) -> Checkpoint:
        """The bytes of the ONNX file as one tensor."""
        try:
            onnx = found.path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{found.path} cannot be read: {error.strerror}.") from error
        _check_network(onnx, found.path)
        tensors = {"onnx": torch.frombuffer(bytearray(onnx), dtype=torch.uint8), "precision": torch.zeros(1)}
        return Checkpoint(found.path, tensors, None, None, found.layout, found)

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return YuNet(checkpoint.tensors["onnx"].numel())

    def tiny(self) -> Estimator:
        return self

    def fit(self, height: int, width: int, resolution: int | None) -> Fit:
        """The picture as it is: faces are looked for at every size."""
        return Fit((height, width), (height, width), "bilinear", "bilinear")

    def infer(
        self, network: nn.Module, pixels: Tensor, fit: Fit, size: Size, options: Mapping[str, Any]
    ) -> dict[str, Signal]:
        """The slot "faces", in pixels of `size`."""
        found = network(pixels, score=options["score"], overlap=options["overlap"])
        across, down = size[1] / fit.source[1], size[0] / fit.source[0]
        pictures = tuple(_things(faces, across, down, options["least"], size) for faces in found)
        return {"faces": Instances(pictures, (int(size[0]), int(size[1])), (FACE,), self.name)}

    def memory_required(self, batch: int, fit: Fit, dtype: torch.dtype) -> int:
        """Levels and their copies; the network's own memory is that of a tile, on the processor."""
        return batch * fit.source[0] * fit.source[1] * 24 + self.memory * _TILE * _TILE


def _things(faces: Tensor, across: float, down: float, least: int, size: Size) -> tuple[Thing, ...]:
    scale = torch.tensor([across, down])
    things = []
    for face in faces:
        x, y, width, height, *_ = face.tolist()
        inside = x < size[1] / across and y < size[0] / down and x + width > 0 and y + height > 0
        if not inside or max(width, height) < least:
            continue
        box = x * across, y * down, (x + width) * across, (y + height) * down
        things.append(Thing(FACE, min(float(face[14]), 1.0), box, points=face[4:14].view(5, 2) * scale))
    return tuple(things)


ESTIMATORS: tuple[Estimator, ...] = (
    YuNetEstimator(
        id="yunet",
        name="YuNet",
        family="yunet",
        produces=("faces",),
        licence=Licence("MIT", True, "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet"),
        parameters=75_856,
        sources=(published("opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx", "onnx"),),
        about="Faces of 10 pixels up to the whole picture, each with a box, five landmarks and a score; runs on the "
        "processor through OpenCV, on every machine, in milliseconds.",
        memory=100,
        options=(
            Option("score", 0.9, 0.0, 1.0, about="The least score of a face; lower finds more, and more that is none."),
            Option(
                "overlap", 0.3, 0.0, 1.0, about="Of boxes that overlap by more than this share, only the best stays."
            ),
            Option("least", 0, 0, 16384, about="The least size of a face in pixels of the picture; 0 = any."),
        ),
    ),
)
