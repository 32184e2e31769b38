"""The one place that touches the process's environment: it is read, and what a library sets in it is put back.

| Variable | Decides |
|---|---|
| FATHOM_MODELS | folders of model files outside ComfyUI, joined as in PATH |
| FATHOM_BUNDLES | where bundles are kept |
| FATHOM_PRECISION, FATHOM_KEEP_LOADED and the like | a setting of ComfyUI's panel, before it: `host.setting` |
| HF_ENDPOINT, HF_HUB_OFFLINE | as huggingface_hub reads them, also when they are set after its import |
| HTTPS_PROXY, HTTP_PROXY, ALL_PROXY | proxies of downloads, as huggingface_hub's HTTP library reads them |
| AUX_ANNOTATOR_CKPTS_PATH | where comfyui_controlnet_aux keeps its files |
| XDG_CACHE_HOME, LOCALAPPDATA | the user's cache folder |
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def variable(name: str) -> str | None:
    """The value of an environment variable; None where it is unset or empty."""
    return os.environ.get(name) or None


@contextmanager
def kept(name: str) -> Iterator[None]:
    """Within it a library may set the environment variable `name`; afterwards it is what it was."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
