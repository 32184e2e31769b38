"""The registry's archive, for tests: what of this checkout ComfyUI's users get."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def publish_check() -> Any:
    """The program scripts/publish_check.py as a module."""
    spec = importlib.util.spec_from_file_location("publish_check", ROOT / "scripts" / "publish_check.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["publish_check"] = module
    spec.loader.exec_module(module)
    return module


def unpack(folder: Path) -> None:
    """Put the pack into `folder` as it comes from the registry; where this is no git checkout, as it lies here."""
    try:
        files = publish_check().packed()
    except (subprocess.CalledProcessError, FileNotFoundError):
        folder.symlink_to(ROOT)
        return
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
