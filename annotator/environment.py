"""The one place that reads the process's environment; nothing here or elsewhere writes to it.

| Variable | Decides |
|---|---|
| FATHOM_MODELS | folders of model files outside ComfyUI, joined as in PATH |
| FATHOM_BUNDLES | where bundles are kept |
| FATHOM_PRECISION, FATHOM_KEEP_LOADED and the like | a setting of ComfyUI's panel, before it: `host.setting` |
| HF_ENDPOINT, HF_HUB_OFFLINE | as huggingface_hub reads them, also when they are set after its import |
| AUX_ANNOTATOR_CKPTS_PATH | where comfyui_controlnet_aux keeps its files |
| XDG_CACHE_HOME, LOCALAPPDATA | the user's cache folder |
"""

from __future__ import annotations

import os


def variable(name: str) -> str | None:
    """The value of an environment variable; None where it is unset or empty."""
    return os.environ.get(name) or None
