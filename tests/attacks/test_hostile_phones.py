"""Phones' photos, damaged in their boxes, segments, indices and descriptions: a photo with its depth or a sentence."""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(__file__)))
import test_phones as made
from test_files import COUNT, SEED, in_time, mutants

from fathom import FathomError
from fathom.tools import heif_camera, jpeg, phones, xmp

pytestmark = [pytest.mark.attack, pytest.mark.filterwarnings("ignore")]

APPLE = made.apple_xmp(0.25, 3.5, "relative", extra=made.INTRINSICS)
PHOTOS: dict[str, Callable[[Path], Path]] = {
    "apple.jpg": lambda path: made.iphone_jpeg(path, APPLE),
    "gdepth.jpg": lambda path: made.lens_blur(path, made.gdepth(made.RAMP[:48], "RangeInverse", "m")),
    "dynamic.jpg": made.dynamic_depth,
    "stereo.mpo": lambda path: made.stereo_mpo(path, 64, 96),
    "apple.heic": lambda path: made.phone(path, APPLE),
    "hevc.heic": lambda path: made.phone(path, message=made.representation(0, z_near=0.5, z_far=4.0)),
    "spatial.heic": lambda path: made.spatial_photo(path, 64, 96),
}
NUMBERS = ("-1", "0", "1e309", "nan", "", "9" * 400, "-9223372036854775808", "1e-320", "0x10", "4 4", "2147483647")


def words(data: bytes, seed: str) -> Iterator[bytes]:
    """Copies in which numbers and names of the description are others, of the same and of other lengths."""
    rng = random.Random(f"{SEED} {seed} words")
    places = [m.span(1) for m in re.finditer(rb'[">]([^<>"\0-\x1f\x7f-\xff]{1,60})["<]', data)]
    for _ in range(COUNT if places else 0):
        start, end = rng.choice(places)
        new = rng.choice(NUMBERS).encode() if rng.random() < 0.8 else data[slice(*rng.choice(places))]
        # Segments say how long they are: most copies keep to that, so that the words are reached.
        new = new[: end - start].ljust(end - start) if rng.random() < 0.8 else new
        yield data[:start] + new + data[end:]


@pytest.mark.parametrize("name", PHOTOS)
def test_damaged_photos_of_phones(tmp_path: Path, name: str, attacks: Callable[..., None]) -> None:
    data = PHOTOS[name](tmp_path / name).read_bytes()
    path = tmp_path / f"x{Path(name).suffix}"
    for mutant in (*mutants(data, name), *words(data, name)):
        path.write_bytes(mutant)
        with in_time():
            try:
                found = phones.load_phone_depth(path)
            except FathomError as error:
                assert len(str(error)) < 5000
            else:
                assert found.depth.values[found.depth.valid].isfinite().all()
        attacks("photos of phones with depth, damaged and with other words (150 of each file, twice)")


def test_damaged_packets_and_indices(attacks: Callable[..., None]) -> None:
    photo = made.multi([made.encoded(made.red_left()), made.encoded(made.RAMP[:48])], [0x030000, 0])
    index = next(content[4:] for marker, _, content in jpeg.segments(photo) if marker == 0xE2)
    for packet in (*mutants(APPLE, "packet"), *words(APPLE, "packet")):
        with in_time():
            list(xmp.packets(packet * 20))
            xmp.parse(packet)
        attacks("packets of XMP and indices of pictures, damaged")
    for mutant in mutants(index, "index"):
        with in_time():
            jpeg.frames(photo.replace(index, mutant))
            heif_camera.stereo_group(mutant)
        attacks("packets of XMP and indices of pictures, damaged")


@pytest.mark.parametrize(
    "packet",
    [
        b"<x:xmpmeta " * 200_000,
        b"<x:xmpmeta>" * 200_000,
        b"<x:xmpmeta>" + b"<a>" * 500_000 + b"</x:xmpmeta>",
        b"<x:xmpmeta " + b" ".join(b'a%d="x"' % n for n in range(200_000)) + b"></x:xmpmeta>",
        b'<!DOCTYPE x [<!ENTITY a "' + b"A" * 1000 + b'">]><x:xmpmeta>' + b"&a;" * 100_000 + b"</x:xmpmeta>",
        b"<x:xmpmeta>" + b"</x:xmpmeta>" * 200_000,
        (b"<x:xmpmeta>" + b"</x:xmpmeta>") * 100_000,
    ],
    ids=["open tags", "beginnings", "deep", "attributes", "entities", "ends", "packets"],
)
def test_a_packet_takes_no_more_time_than_its_size(packet: bytes) -> None:
    with in_time():
        assert sum(1 for _ in xmp.packets(packet)) <= 100_000
