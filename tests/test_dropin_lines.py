"""Old ids for lines: they run, alone and by AIO_Preprocessor, and what is not there is told by name."""

from __future__ import annotations

import pytest
import torch

from fathom import SettingError
from fathom.nodes.dropin import DROP_INS, lines

pytest.importorskip("cv2")


@pytest.mark.parametrize("id", ["CannyEdgePreprocessor", "LineartStandardPreprocessor", "ShufflePreprocessor"])
def test_those_without_a_network_run_alone_and_by_name(id: str, scene: torch.Tensor) -> None:
    node = DROP_INS[id]()
    (alone,) = getattr(node, node.METHOD)(image=scene, resolution=64)
    (chosen,) = DROP_INS["AIO_Preprocessor"]().execute(id, scene, 64)
    assert alone.shape == (1, 64, 85, 3) and torch.equal(alone, chosen) and alone.max() > 0
    assert DROP_INS[f"Inference_Core_{id}"] is DROP_INS[id]


@pytest.mark.parametrize("id", list(lines.NEAR))
def test_what_is_not_there_is_told_with_what_is_near(id: str, scene: torch.Tensor) -> None:
    with pytest.raises(SettingError, match=f"no preprocessor '{id}'.*install comfyui_controlnet_aux"):
        DROP_INS["AIO_Preprocessor"]().execute(id, scene, 64)
