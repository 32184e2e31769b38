"""Colours of picture files as sRGB, for any number of bits: ICC profiles, and what PNG and EXIF say without one.

Profiles of curves and a matrix are computed here in floating point: LittleCMS as Pillow hands it out takes 8 bits only.
Those of tables go through LittleCMS; 16-bit pictures by a grid of its answers, interpolated. ICC.1:2022, PNG third
edition, ITU-T H.273.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Curve = Callable[[Any], Any]

# Columns: red, green and blue of sRGB, adapted to the D50 of profiles (ICC's sRGB profile).
_SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D65 = (0.3127, 0.3290)
_PRIMARIES = {
    1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_ROWS = 2**20


@dataclass(frozen=True)
class Colours:
    """What the numbers of a picture mean. curves: from numbers in 0..1 to light, one or three. matrix: from light to
    XYZ of D50, (3,3), or None for grey."""

    curves: tuple[Curve, ...]
    matrix: Any = None

    @property
    def grey(self) -> bool:
        """Whether they are those of a grey picture."""
        return self.matrix is None

    def is_srgb(self) -> bool:
        """Whether they are sRGB to within one step of 8 bits."""
        steps = np.linspace(0, 1, 18)
        if self.grey:
            return bool(abs(self.to_srgb(steps[None])[0, :, 0] - steps).max() < 1 / 255)
        grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3)
        return bool(abs(self.to_srgb(grid) - grid).max() < 1 / 255)

    def to_srgb(self, numbers: Any) -> Any:
        """Numbers (H,W) or (H,W,3), uint8, uint16 or floats in 0..1, as float32 (H,W,1|3) sRGB in 0..1. Colours that
        sRGB does not hold are clipped."""
        numbers = numbers if numbers.ndim == 3 else numbers[..., None]
        tables = None
        if numbers.dtype.kind == "u":
            codes = np.linspace(0, 1, np.iinfo(numbers.dtype).max + 1)
            tables = [np.asarray(curve(codes), np.float32) for curve in self.curves]
        out = np.empty((*numbers.shape[:2], 1 if self.grey else 3), np.float32)
        turn = None if self.grey else (np.linalg.inv(_SRGB) @ self.matrix).T.astype(np.float32)
        for rows in _bands(numbers):
            part = numbers[rows]
            light = [
                self.curves[c](part[..., c].astype(np.float64)) if tables is None else tables[c][part[..., c]]
                for c in range(len(self.curves))
            ]
            stacked = np.stack(light, -1).astype(np.float32)
            out[rows] = _encode(stacked if turn is None else stacked @ turn)
        return out


def profile_colours(profile: bytes) -> Colours | None:
    """The colours of an ICC profile of curves and a matrix, or of a grey curve; None for another or a damaged one."""
    try:
        if profile[36:40] != b"acsp" or len(profile) > 2**26:
            return None
        space = profile[16:20]
        (count,) = struct.unpack_from(">I", profile, 128)
        tags = {}
        for i in range(min(count, 200)):
            name, at, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
            tags[name] = profile[at : at + size]
        # With tables beside the matrix, LittleCMS takes the tables.
        if b"A2B0" in tags or b"D2B0" in tags:
            return None
        if space == b"GRAY":
            return Colours((_curve(tags[b"kTRC"]),))
        if space != b"RGB " or profile[20:24] != b"XYZ ":
            return None
        columns = [[v / 65536 for v in struct.unpack_from(">3i", tags[n], 8)] for n in (b"rXYZ", b"gXYZ", b"bXYZ")]
        return Colours(tuple(_curve(tags[n]) for n in (b"rTRC", b"gTRC", b"bTRC")), np.array(columns).T)
    except (KeyError, ValueError, IndexError, OverflowError, struct.error):
        return None


def png_colours(data: bytes) -> Colours | None:
    """What a PNG without an ICC profile says of its colours (cICP, sRGB, gAMA with cHRM); None = sRGB or nothing."""
    chunks = dict(_png_chunks(data))
    grey = len(data) > 25 and data[25] in (0, 4)
    try:
        if b"cICP" in chunks:
            primaries, transfer = chunks[b"cICP"][0], chunks[b"cICP"][1]
            curve = {4: _power(2.2), 5: _power(2.8), 8: _power(1.0)}.get(transfer, _decode)
            return _of(curve, _PRIMARIES.get(primaries, _PRIMARIES[1]), _D65, grey)
        if b"sRGB" in chunks or b"gAMA" not in chunks:
            return None
        (gamma,) = struct.unpack(">I", chunks[b"gAMA"])
        corners = struct.unpack(">8I", chunks[b"cHRM"]) if b"cHRM" in chunks else (31270, 32900, *(
            round(v * 1e5) for v in _PRIMARIES[1]))  # fmt: skip
    except (struct.error, IndexError):
        return None
    if not 1000 <= gamma <= 1_000_000:
        return None
    # 1/2.2 stands for sRGB's own curve.
    curve = _decode if abs(gamma - 45455) < 600 else _power(1e5 / gamma)
    xy = [v / 1e5 for v in corners]
    try:
        return _of(curve, tuple(xy[2:]), (xy[0], xy[1]), grey)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return None


def png_is_hdr(data: bytes) -> bool:
    """Whether a PNG says that it is encoded for HDR displays (PQ or HLG), whose light is not that of a photo."""
    return any(name == b"cICP" and len(body) > 1 and body[1] in (16, 18) for name, body in _png_chunks(data))


def adobe_rgb() -> Colours:
    """Adobe RGB (1998), which cameras tell by EXIF alone."""
    return _of(_power(563 / 256), (0.64, 0.33, 0.21, 0.71, 0.15, 0.06), _D65, False)


def by_tables(numbers: Any, profile: bytes) -> Any:
    """uint16 RGB (H,W,3) of a profile of tables as float32 sRGB (H,W,3) in 0..1, to a step of 8 bits, without steps.

    Raises ImageCms.PyCMSError or OSError for a profile that LittleCMS does not take.
    """
    import torch
    import torch.nn.functional as F
    from PIL import Image, ImageCms

    steps = np.arange(0, 256, 5, dtype=np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1)
    flat = Image.fromarray(grid.reshape(-1, 52, 3))
    turned = ImageCms.profileToProfile(
        flat, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    table = torch.from_numpy(np.asarray(turned, np.float32).reshape(52, 52, 52, 3) / 255).permute(3, 0, 1, 2)[None]
    out = np.empty(numbers.shape, np.float32)
    for rows in _bands(numbers):
        places = torch.from_numpy(numbers[rows].astype(np.float32) / 32767.5 - 1)[None, None].flip(-1)
        found = F.grid_sample(table, places, align_corners=True, padding_mode="border")
        out[rows] = found[0, :, 0].permute(1, 2, 0).numpy()
    return out


def _bands(numbers: Any) -> Iterator[slice]:
    step = max(1, _ROWS // max(1, numbers.shape[1]))
    for start in range(0, len(numbers), step):
        yield slice(start, start + step)


def _encode(light: Any) -> Any:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def _decode(numbers: Any) -> Any:
    return np.where(numbers <= 0.04045, numbers / 12.92, ((np.maximum(numbers, 0) + 0.055) / 1.055) ** 2.4)


def _power(exponent: float) -> Curve:
    return lambda numbers: np.maximum(numbers, 0) ** exponent


def _curve(tag: bytes) -> Curve:
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        if count == 0:
            return _power(1.0)
        if count == 1:
            return _power(struct.unpack_from(">H", tag, 12)[0] / 256)
        table = np.frombuffer(tag, ">u2", count, 12) / 65535
        places = np.linspace(0, 1, count)
        return lambda numbers: np.interp(numbers, places, table)
    if tag[:4] != b"para":
        raise ValueError("curve")
    kind = struct.unpack_from(">H", tag, 8)[0]
    g, *rest = (v / 65536 for v in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12))
    a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if kind:
        a, b = rest[:2]
        # Below d the curve is a line: flat 0 or c, or of slope c from f on.
        d = rest[3] if kind > 2 else -b / a
    if kind == 2:
        e = f = rest[2]
    if kind > 2:
        c = rest[2]
    if kind == 4:
        e, f = rest[4:]
    return lambda numbers: np.where(numbers >= d, np.maximum(a * numbers + b, 0) ** g + e, c * numbers + f)


def _of(curve: Curve, corners: tuple[float, ...], white: tuple[float, float], grey: bool) -> Colours:
    """Colours of one curve, from the xy of red, green and blue (six numbers) and of white."""
    if grey:
        return Colours((curve,))
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in zip(corners[::2], corners[1::2], strict=True)]).T
    light = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    matrix = columns * np.linalg.solve(columns, light)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ light)
    return Colours((curve,) * 3, np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD @ matrix)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG before its pixels."""
    at = 8
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"IDAT":
            return
        yield name, data[at + 8 : at + 8 + size]
        at += 12 + size
