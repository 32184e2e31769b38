"""Thousands of damaged and hostile files: each gives a depth, a picture or a FathomError, in time.

FATHOM_ATTACK_SEED chooses the mutations (17 by default), FATHOM_ATTACK_COUNT how many of each file (150 by default).
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exr_files import exr_file, exr_parts
from icc_profiles import SRGB, gamma, icc_chunk, png, profile
from PIL import Image

from fathom import Depth, FathomError
from fathom.annotator.decode import decode
from fathom.annotator.pictures import as_pixels
from fathom.signals.files import save_depth
from fathom.tools.convert import depth_from_file

Count = Callable[..., None]
pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore")]

SEED = int(os.environ.get("FATHOM_ATTACK_SEED", "17"))
COUNT = int(os.environ.get("FATHOM_ATTACK_COUNT", "150"))
SECONDS = 30
METRES = np.linspace(1.5, 9, 24 * 40, dtype=np.float32).reshape(24, 40)
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000, 0x01000000)


class TooLongError(Exception):
    """A file took more than SECONDS."""


@contextmanager
def in_time() -> Iterator[None]:
    """Ends what takes longer than SECONDS, where the system can."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutants(data: bytes, seed: str) -> Iterator[bytes]:
    """Damaged copies: flipped, cut, doubled, zeroed, and numbers of the header at their ends."""
    rng = random.Random(f"{SEED} {seed}")
    for _ in range(COUNT):
        made = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
            # Headers decide most, so they are hit most.
            at = rng.randrange(max(1, min(len(made), 400 if rng.random() < 0.7 else len(made))))
            kind = rng.randrange(6)
            if kind == 0:
                made[at : at + 1] = bytes([rng.randrange(256)])
            elif kind == 1:
                made[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(EXTREMES))
            elif kind == 2:
                del made[at : at + rng.choice((1, 4, 50, len(made)))]
            elif kind == 3:
                made[at:at] = made[at : at + rng.choice((1, 8, 300))]
            elif kind == 4:
                made[at : at + rng.choice((2, 30))] = b""
            else:
                size = rng.choice((1, 8, 60))
                made[at : at + size] = bytes(size)
        yield bytes(made)


def saved(suffix: str, folder: Path) -> bytes:
    depth = Depth(torch.from_numpy(METRES)[None], "metric", None, 300.0)
    save_depth(depth, folder / f"own{suffix}")
    return (folder / f"own{suffix}").read_bytes()


def by(write: Callable[[Any], None]) -> bytes:
    out = io.BytesIO()
    write(out)
    return out.getvalue()


def exr_by_library(folder: Path, name: str, tiled: bool) -> bytes:
    OpenEXR = pytest.importorskip("OpenEXR")
    head = {"compression": getattr(OpenEXR, f"{name}_COMPRESSION"), "type": OpenEXR.scanlineimage}
    if tiled:
        head |= {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
    OpenEXR.File(head, {"Z": METRES, "A": METRES.astype(np.float16)}).write(str(folder / "library.exr"))
    return (folder / "library.exr").read_bytes()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    return by(lambda out: pytest.importorskip("tifffile").imwrite(out, array, **options))


SIXTEEN = (METRES * 1000).astype(np.uint16)
DEPTHS: dict[str, Callable[[Path], bytes]] = {
    "plain.exr": lambda _: exr_file({"Z": METRES, "A": METRES}),
    "zip.exr": lambda _: exr_file({"Z": METRES.astype("f2"), "A": METRES}, 3),
    "parts.exr": lambda _: exr_parts({"rgba": {"R": METRES}, "depth": {"Z": METRES}}, 2),
    **{
        f"{name}{'-tiled' * tiled}.exr": lambda folder, name=name, tiled=tiled: exr_by_library(folder, name, tiled)
        for name in ("RLE", "PIZ", "PXR24", "B44", "DWAA", "DWAB", "HTJ2K32")
        for tiled in (False, True)
    },
    "grey.png": lambda _: png(SIXTEEN, 0),
    "colour.png": lambda _: png(np.dstack([SIXTEEN] * 4), 6),
    "eight.png": lambda _: png(np.dstack([SIXTEEN >> 8] * 3).astype(np.uint8), 2),
    "float.tif": lambda _: tiff(METRES),
    "tiles.tif": lambda _: tiff(SIXTEEN, tile=(16, 16), compression="zlib", predictor=True),
    "pages.tif": lambda _: tiff(np.stack([SIXTEEN, SIXTEEN]), byteorder=">"),
    "d.pfm": lambda _: b"Pf\n40 24\n-1.0\n" + METRES.tobytes(),
    "d.pgm": lambda _: b"P5\n40 24\n65535\n" + SIXTEEN.astype(">u2").tobytes(),
    "d.npy": lambda _: by(lambda out: np.save(out, METRES)),
    "d.npz": lambda _: by(lambda out: np.savez(out, depth=METRES, mask=METRES > 3)),
    "packed.npz": lambda _: by(lambda out: np.savez_compressed(out, depth=METRES, K=np.eye(3))),
}


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("name", DEPTHS)
def test_damaged_depth_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: bool, attacks: Count
) -> None:
    data = DEPTHS[name](tmp_path)
    path = tmp_path / f"x{Path(name).suffix}"
    if not library:
        if path.suffix not in (".exr", ".tif"):
            pytest.skip("it needs no library")
        for module in ("OpenEXR", "tifffile"):
            monkeypatch.setitem(sys.modules, module, None)
    for mutant in mutants(data, name):
        path.write_bytes(mutant)
        attacks("depth and pictures of other programs, damaged")
        with in_time():
            try:
                depth_from_file(path, "metric", 1.0, "m" if path.suffix not in (".png", ".pgm") else "mm")
            except FathomError as error:
                assert len(str(error)) < 5000


@pytest.mark.parametrize("suffix", [".exr", ".png", ".npz", ".safetensors"])
def test_damaged_depth_of_fathom(tmp_path: Path, suffix: str, attacks: Count) -> None:
    data = saved(suffix, tmp_path)
    for mutant in mutants(data, suffix):
        (tmp_path / f"own{suffix}").write_bytes(mutant)
        attacks("depth of Fathom, damaged")
        with in_time():
            try:
                depth_from_file(tmp_path / f"own{suffix}")
            except FathomError as error:
                assert len(str(error)) < 5000


HOSTILE = [
    "[" * 100_000,
    '{"a":' * 100_000,
    '{"fathom": "depth", "version": 1, "kind": "metric", "low": 1' + "0" * 400 + "}",
    '{"fathom": "depth", "version": ' + "9" * 5000 + "}",
    "null",
    "5",
    "[]",
    '"depth"',
    "",
    "\ufeff{}",
    '{"fathom": "depth", "version": 1}',
]
CHANGES: list[dict[str, Any]] = [
    {"look": None},
    {"look": []},
    {"look": {"space": "values", "low": 0, "high": 100, "fixed": 1}},
    {"look": {"space": "values", "low": 0, "high": 100, "fixed": [1]}},
    {"look": {"space": 3, "low": "a", "high": {}, "fixed": None}},
    {"kind": None},
    {"kind": "metric\0"},
    {"kind": 10**400},
    {"focal": "wide"},
    {"focal": -1},
    {"focal": [1, 2, 3]},
    {"focal": 1e400},
    {"low": None},
    {"low": 10**400},
    {"high": float("nan")},
    {"masked": "perhaps"},
    {"source": 5},
    {"source": {"a": {}}},
    {"version": 99},
    {"version": None},
    {"fathom": "depth of another kind"},
]


@pytest.mark.parametrize("place", ["aside", "inside"])
def test_hostile_descriptions(tmp_path: Path, place: str, attacks: Count) -> None:
    save_depth(Depth(torch.from_numpy(METRES)[None], "metric"), tmp_path / "d.png")
    about = json.loads((tmp_path / "d.json").read_text())
    for text in [*HOSTILE, *(json.dumps({**about, **change}) for change in CHANGES)]:
        if place == "aside":
            (tmp_path / "d.json").write_text(text, encoding="utf-8")
        else:
            (tmp_path / "d.json").unlink(missing_ok=True)
            chunk = (b"tEXt", b"fathom\0" + text.encode("latin-1", "replace"))
            (tmp_path / "d.png").write_bytes(png(SIXTEEN, 0, [chunk]))
        attacks("descriptions, archives and colour profiles, hostile")
        with in_time():
            try:
                depth_from_file(tmp_path / "d.png")
            except FathomError as error:
                assert len(str(error)) < 5000


def test_hostile_archives(tmp_path: Path, attacks: Count) -> None:
    head = b"\x93NUMPY\x01\0"
    shapes = ["(1000000, 1000000)", "(" + "9" * 400 + ", 4)", "(-1, 4)", "(" * 3000, "(4, 4.0)", "()", "(True, 4)"]
    for shape in shapes:
        words = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        for name in ("depth.npy", "values.npy", "fathom.npy"):
            with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
                archive.writestr(name, head + struct.pack("<H", len(words)) + words + bytes(64))
            for meaning in ("as saved", "metric"):
                attacks("descriptions, archives and colour profiles, hostile")
                with in_time(), pytest.raises(FathomError):
                    depth_from_file(tmp_path / "d.npz", meaning)
    good = by(lambda out: np.savez(out, values=METRES, fathom=np.array("{}")))
    local, central = good.index(b"PK\3\4"), good.index(b"PK\1\2")
    for flags, method in ((1, 0), (0, 97), (0, 12), (0, 14), (0x41, 8)):
        data = bytearray(good)
        for at in (local + 6, central + 8):
            data[at : at + 4] = struct.pack("<HH", flags, method)
        (tmp_path / "d.npz").write_bytes(data)
        for meaning in ("as saved", "metric"):
            attacks("descriptions, archives and colour profiles, hostile")
            with in_time(), pytest.raises(FathomError):
                depth_from_file(tmp_path / "d.npz", meaning)


def test_pictures_that_are_too_large(tmp_path: Path, attacks: Count) -> None:
    for width, height in ((14_000, 14_000), (70_000, 70_000), (2**31 - 1, 1)):
        for kind, bits in ((0, 16), (2, 16), (2, 8), (0, 8)):
            ihdr = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
            data = b"\x89PNG\r\n\x1a\n"
            for name, body in ((b"IHDR", ihdr), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")):
                data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
            (tmp_path / "d.png").write_bytes(data)
            for meaning in ("as saved", "inverse"):
                attacks("descriptions, archives and colour profiles, hostile")
                with in_time(), pytest.raises(FathomError):
                    depth_from_file(tmp_path / "d.png", meaning, 1.0, "relative")
            attacks("descriptions, archives and colour profiles, hostile")
            with in_time(), pytest.raises(FathomError):
                as_pixels(decode(data, "d.png"))


WORDS = profile("Linear sRGB", gamma(1.0), SRGB)
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
KINDS = ("JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "TGA", "ICO", "DDS", "SGI", "PCX", "JPEG2000")


def photo_by_pillow(kind: str) -> bytes:
    return by(lambda out: Image.fromarray(PHOTO).save(out, kind, icc_profile=WORDS))


PHOTOS: dict[str, Callable[[], bytes]] = {
    "profile.png": lambda: png(PHOTO, 2, [icc_chunk(WORDS)]),
    "sixteen.png": lambda: png(PHOTO.astype(np.uint16) * 257, 2, [icc_chunk(WORDS)]),
    "gamma.png": lambda: png(PHOTO, 2, [(b"gAMA", struct.pack(">I", 100000)), (b"cHRM", bytes(range(32)))]),
    "deep.tif": lambda: tiff(np.moveaxis(PHOTO, -1, 0).astype(np.uint16), photometric="rgb", planarconfig="separate"),
    "float.tif": lambda: tiff((PHOTO / 255).astype(np.float32), photometric="rgb", iccprofile=WORDS),
    **{f"photo.{kind.lower()}": partial(photo_by_pillow, kind) for kind in KINDS},
}


@pytest.mark.parametrize("library", [True, False])
@pytest.mark.parametrize("name", PHOTOS)
def test_damaged_photos(monkeypatch: pytest.MonkeyPatch, name: str, library: bool, attacks: Count) -> None:
    data = PHOTOS[name]()
    if not library:
        monkeypatch.setitem(sys.modules, "tifffile", None)
    for mutant in mutants(data, name):
        attacks("depth and pictures of other programs, damaged")
        with in_time():
            try:
                as_pixels(decode(mutant, name))
            except FathomError as error:
                assert len(str(error)) < 5000


def test_profiles_that_are_damaged(attacks: Count) -> None:
    for mutant in mutants(WORDS, "profile"):
        attacks("descriptions, archives and colour profiles, hostile")
        with in_time():
            for bits in (1, 257):
                try:
                    as_pixels(decode(png(PHOTO.astype(f"u{1 + (bits > 1)}") * bits, 2, [icc_chunk(mutant)]), "photo"))
                except FathomError as error:
                    assert len(str(error)) < 5000
