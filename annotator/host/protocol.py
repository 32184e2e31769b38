"""What a host is asked for. The package's functions of the same names say more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Preview = Callable[[], "Tensor | None"]


class Progress(Protocol):
    """What a loop reports to."""

    def update(self, n: int = 1, preview: Preview | None = None) -> None:
        """`n` more units are done. Raises the host's interrupt when the user has cancelled.

        preview: makes a picture of what came last, uint8 (H,W,3); called only when and where it will be seen.
        """
        ...


class Host(Protocol):
    """Where Fathom runs: inside ComfyUI, or on plain torch."""

    def register_folders(self) -> None: ...

    def weight_folders(self) -> list[Path]: ...

    def neighbour_folders(self) -> dict[str, list[Path]]: ...

    def input_folder(self) -> Path | None:
        """The folder whose files the nodes offer; None where there is none."""
        ...

    def input_path(self, name: str) -> Path:
        """Where the file lies that a widget names. Raises PictureError for a place outside the host's folders."""
        ...

    def output_folder(self) -> Path: ...

    def temp_folder(self) -> Path | None: ...

    def next_number(self, prefix: str, width: int, height: int) -> tuple[Path, str, int]:
        """(folder, stem, number) of the next output file with a prefix that leads nowhere else; the folder is made."""
        ...

    def embeds_metadata(self) -> bool: ...

    def user_settings(self) -> dict[str, Any]:
        """What the user chose in a settings panel; empty where there is none."""
        ...

    def device(self) -> torch.device: ...

    def output_device(self) -> torch.device: ...

    def faster_in_half(self, where: torch.device) -> bool:
        """Whether `where` computes faster in float16."""
        ...

    def free_memory(self, where: torch.device) -> int: ...

    def release_device_memory(self) -> None: ...

    def adopt(self, module: nn.Module, where: torch.device | None) -> tuple[nn.Module, Any]:
        """The network where it waits for work, and ComfyUI's ModelPatcher of it or None. where: None = as it likes."""
        ...

    def is_loaded(self, patcher: Any) -> bool:
        """Whether a ModelPatcher's network lies on its device."""
        ...

    def make_ready(self, patcher: Any, memory: int) -> None:
        """Bring a ModelPatcher's network to its device, with `memory` bytes free beside it."""
        ...

    def progress(self, total: int, label: str, unit: str) -> AbstractContextManager[Progress]: ...

    def check_interrupt(self) -> None: ...

    def running_node(self) -> str | None:
        """The id of the node that runs now; None where there are none."""
        ...

    def mesh(self, vertices: Tensor, faces: Tensor, uv: Tensor | None, texture: Tensor | None) -> Any: ...

    def file_3d(self, path: Path) -> Any: ...

    def blocked(self, message: str) -> Any: ...
