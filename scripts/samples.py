"""Write web/samples/, what templates show where the input folder has nothing yet: `python scripts/samples.py`.

The picture is assets/sample.png; the film is a camera that moves aside over it, by its depth.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

import fathom
from fathom.tools.parallax import parallax

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "web" / "samples"
FRAMES, RATE, SIZE = 24, 12, (480, 320)


def main() -> None:
    """Write both files."""
    FOLDER.mkdir(exist_ok=True)
    with Image.open(ROOT / "assets" / "sample.png") as file:
        picture = file.convert("RGB")
    picture.save(FOLDER / "example.jpg", quality=90)
    small = torch.from_numpy(np.asarray(picture.resize(SIZE, Image.Resampling.LANCZOS)) / np.float32(255))[None]
    # Tiny knows order alone: what it gives is taken as inverse distances, for it only has to look like a film.
    depth = replace(fathom.load("fathom-tiny")(small), kind="affine_inverse")
    views, _ = parallax(small, depth, frames=FRAMES, strength=0.025)
    with av.open(str(FOLDER / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.options = {"crf": "26", "preset": "veryslow"}
        for view in views:
            levels = (view * 255).round().byte().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
