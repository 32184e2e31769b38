"""OpenCV, where it is needed. Several builds exist, and two of them side by side break each other."""

from __future__ import annotations

from typing import Any

from ..errors import SettingError


def opencv(use: str) -> Any:
    """The module cv2, of whichever build is installed. use: what needs it, for the error.

    Raises SettingError naming what to install when there is none.
    """
    try:
        import cv2
    except ImportError as error:
        raise SettingError(
            f"{use} needs OpenCV, which is not installed: pip install opencv-python-headless. Any build of it will "
            f"do; install one only. ({error})"
        ) from None
    return cv2
