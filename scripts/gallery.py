"""Run the commands of README's gallery, and keep what they make as its pictures: `python scripts/gallery.py`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]


def gallery() -> list[tuple[str, list[list[str]]]]:
    """(picture, relative to the project; the commands that make it, without the word fathom) of README's gallery."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## What it makes\n")[2].partition("\n## ")[0]
    pictures = re.findall(r"\((docs/images/gallery-\w+\.jpg)\)", section)
    cells = [re.findall("`fathom ([^`]+)`", cell) for cell in section.split("|")]
    commands = [[shlex.split(command) for command in cell] for cell in cells if cell]
    assert len(pictures) == len(commands), "each picture has its commands in the cell beneath it"
    return list(zip(pictures, commands, strict=True))


def made(commands: list[list[str]], room: Path) -> Path:
    """The picture that the last of the commands made in the folder `room`: its latest PNG."""
    for command in commands:
        subprocess.run([sys.executable, "-m", "fathom", *command], cwd=room, check=True)
    files = [p for p in room.rglob("*.png") if "assets" not in p.parts]
    return max(files, key=lambda p: (p.stat().st_mtime_ns, p.name))


def main() -> None:
    """The command line."""
    for picture, commands in gallery():
        with tempfile.TemporaryDirectory() as temporary:
            room = Path(temporary)
            (room / "assets").symlink_to(ROOT / "assets")
            with Image.open(made(commands, room)) as file:
                shown = file.convert("RGBA")
            white = Image.new("RGBA", shown.size, "white")
            white.alpha_composite(shown)
            white.convert("RGB").resize((384, round(384 * shown.height / shown.width))).save(ROOT / picture, quality=88)
            sys.stdout.write(f"{picture}\n")


if __name__ == "__main__":
    main()
