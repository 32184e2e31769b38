"""Picture files for mass runs: `annotator.decode`, where the shell finds it too."""

from ..annotator.decode import MOST_PIXELS, PICTURES, decode

__all__ = ["MOST_PIXELS", "PICTURES", "decode"]
