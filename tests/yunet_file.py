"""An ONNX file with the inputs and outputs of YuNet whose predictions are written into the picture itself.

Each cell of each stride reads 16 numbers from 16 pixels of its own: class and object score as level / 255, the box and
the five landmarks as (level - 128) / 32. So a test paints a picture and knows by hand what must be found.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

STRIDES = (8, 16, 32)
PARTS = (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
RED, GREEN, BLUE = 0, 1, 2


def place(stride: int, number: int) -> tuple[int, int]:
    """Row and column, within its cell, of the pixel that holds `number` (0..15) of a stride."""
    return STRIDES.index(stride) * 2 + number // 8, number % 8


def write(path: Path, outputs: tuple[str, ...] = (), parts: tuple[tuple[str, int], ...] = PARTS) -> Path:
    """Write the file; `outputs` under other names where they are given. parts: the outputs and their numbers."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights, results = [], [], []
    for stride in STRIDES:
        number = 0
        for part, channels in parts:
            kernel = np.zeros((channels, 3, stride, stride), dtype=np.float32)
            scale, shift = (1 / 255, 0.0) if part in ("cls", "obj") else (1 / 32, -4.0)
            for channel in range(channels):
                row, column = place(stride, number)
                kernel[channel, :, row, column] = (0, scale, 0)  # the network sees blue, green, red
                number += 1
            name = f"{part}_{stride}"
            weights += [
                numpy_helper.from_array(kernel, f"{name}.weight"),
                numpy_helper.from_array(np.full(channels, shift, dtype=np.float32), f"{name}.bias"),
                numpy_helper.from_array(np.array([1, -1, channels], dtype=np.int64), f"{name}.shape"),
            ]
            inputs = ["input", f"{name}.weight", f"{name}.bias"]
            nodes += [
                helper.make_node("Conv", inputs, [f"{name}.map"], strides=[stride] * 2, kernel_shape=[stride] * 2),
                helper.make_node("Transpose", [f"{name}.map"], [f"{name}.last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}.last", f"{name}.shape"], [name]),
            ]
            results.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, channels]))
    if outputs:
        for new, result in zip(outputs, results, strict=False):
            for node in nodes:
                node.output[:] = [new if name == result.name else name for name in node.output]
            result.name = new
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "faces", [given], results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.save(model, str(path))
    return path


def paint(
    picture: np.ndarray,
    stride: int,
    cell: tuple[int, int],
    score: tuple[int, int],
    box: tuple[int, int, int, int],
    points: tuple[int, ...] = (128,) * 10,
) -> list[float]:
    """Write one prediction into `picture` (H,W,3 levels) and say what it is in pixels: x, y, width, height, points,
    score. cell: row and column; score: levels of class and object; box, points: levels."""
    for number, level in enumerate((*score, *box, *points)):
        row, column = place(stride, number)
        picture[cell[0] * stride + row, cell[1] * stride + column] = level
    dx, dy, dw, dh = ((level - 128) / 32 for level in box)
    width, height = np.exp(dw) * stride, np.exp(dh) * stride
    x, y = (cell[1] + dx) * stride - width / 2, (cell[0] + dy) * stride - height / 2
    marks = [((level - 128) / 32 + cell[1 - i % 2]) * stride for i, level in enumerate(points)]
    return [x, y, width, height, *marks, float(np.sqrt(score[0] / 255 * score[1] / 255))]
