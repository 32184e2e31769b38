"""Scenes as a camera at eye height sees them: rooms, corridors, workshops, streets, people, hands, gardens.

They stand beside the scenes of ``layouts.py``, whose parts and frame they share. What they add is what a vertical ramp
gets wrong: walls that run away to both sides, shelves, pipes and lamps overhead, near things in the upper half, heaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .layouts import (
    BOX,
    CARD,
    DISC,
    FRUSTUM,
    FURNITURE,
    GROUND,
    LEAVES,
    SPHERE,
    TORUS,
    Layout,
    Thing,
    abstract,
    book,
    bottle,
    building,
    bush,
    bust,
    capsule,
    car,
    chair,
    cycle,
    fence,
    ground,
    hills,
    lamp,
    person,
    pick,
    quadruped,
    small_thing,
    sofa,
    table,
    tilt,
    tree,
)


def _inside(s: Layout, base: tuple[np.ndarray, np.ndarray], thing: Thing, at: tuple[float, float, float]) -> None:
    """`thing` as an object of its own at `at` in the frame `base`, turned at random."""
    s.objects += 1
    s.place(at, base=base, scale=s.uniform(0.8, 1.4))
    thing(s)


def crate(s: Layout) -> None:
    """Box, case or appliance, 0.2 to 0.8 m, perhaps with a lid, a label or knobs."""
    wide, tall, deep = s.spread(0.1, 0.4), s.spread(0.08, 0.4), s.spread(0.1, 0.35)
    skin = s.material(0.4)
    s.add(BOX, (0, tall, 0), (wide, tall, deep), skin)
    if s.chance(0.4):
        s.add(BOX, (0, 2 * tall, 0), (wide * 1.04, 0.02, deep * 1.04), s.material(0.3))
    if s.chance(0.4):
        s.add(BOX, (0, tall * s.uniform(0.6, 1.4), -deep), (wide * 0.6, tall * 0.4, 0.01), s.material(0.1))
    if s.chance(0.25):
        for k in range(s.count(1, 4)):
            s.add(SPHERE, (wide * (k - 1.5) / 2, tall * 1.6, -deep), (0.03, 0.03, 0.03), s.material(0.05, plain=0.9))


def bucket(s: Layout) -> None:
    """Bin, pot, drum, basket or roll, 0.2 to 0.7 m."""
    radius, tall = s.spread(0.08, 0.28), s.spread(0.08, 0.35)
    skin = s.material(0.3)
    s.add(FRUSTUM, (0, tall, 0), (radius, tall, radius), skin, shape=s.uniform(0.8, 1.3) * (-1 if s.chance(0.6) else 1))
    if s.chance(0.4):
        leaf = s.material(0.2, np.array([0.1, 0.2, 0.05]) * np.exp(s.rng.normal(0, 0.5, 3)), 0.1)
        for _ in range(s.count(2, 7)):
            tip = (s.uniform(-0.3, 0.3), 2 * tall + s.uniform(0.1, 0.6), s.uniform(-0.3, 0.3))
            capsule(s, (0, tall, 0), tip, 0.012, leaf)
            s.add(LEAVES, tip, (s.uniform(0.1, 0.25), 0.1, s.uniform(0.1, 0.25)), leaf, shape=s.uniform(4, 9))


def pile(s: Layout) -> None:
    """Boxes, rolls and odd shapes heaped up to about 1 m."""
    level = 0.0
    for _ in range(s.count(2, 6)):
        wide, tall, deep = s.spread(0.1, 0.4), s.spread(0.03, 0.22), s.spread(0.1, 0.35)
        centre = (s.uniform(-0.12, 0.12), level + tall, s.uniform(-0.1, 0.1))
        if s.chance(0.7):
            s.add(BOX, centre, (wide, tall, deep), s.material(0.3), (s.uniform(-0.6, 0.6), 0, 0))
        else:
            s.add(FRUSTUM, centre, (wide * 0.7, tall, wide * 0.7), s.material(0.3), shape=s.uniform(0.5, 1.1))
        level += 2 * tall
    for _ in range(s.count(0, 4)):
        size = s.spread(0.05, 0.2)
        at = (s.uniform(-0.6, 0.6), size, s.uniform(-0.5, 0.3))
        kind = s.count(0, 2)
        s.add(kind, at, (size, size * s.uniform(0.5, 1), size), s.material(0.2), (s.uniform(0, 6), s.uniform(0, 1), 0))


def rack(s: Layout) -> None:
    """Open shelves up to 2.4 m tall, every board crowded with things of their own colours."""
    wide, tall, deep = s.uniform(0.35, 1.3), s.uniform(0.9, 2.4), s.uniform(0.13, 0.3)
    wood = s.material(0.8)
    if s.chance(0.6):
        s.add(BOX, (0, tall / 2, deep), (wide, tall / 2, 0.01), s.material(0.8))
    for x in (-wide, wide):
        s.add(BOX, (x, tall / 2, 0), (0.02, tall / 2, deep), wood)
    rows = max(2, round(tall / s.uniform(0.28, 0.5)))
    step = tall / rows
    shared = [s.material(0.2) for _ in range(4)]
    for k in range(rows + 1):
        s.add(BOX, (0, step * k, 0), (wide, 0.015, deep), wood)
        x = -wide + 0.04
        while k < rows and x < wide - 0.06:
            size = min(s.spread(0.015, 0.16), (wide - x) / 2)
            high = step * s.uniform(0.15, 0.47)
            front = s.uniform(-0.5, 0.3) * deep
            skin = shared[s.count(0, 3)] if s.chance(0.5) else s.material(0.15)
            if s.chance(0.75):
                s.add(BOX, (x + size, step * k + 0.015 + high, front), (size, high, deep * 0.5), skin)
            elif s.chance(0.6):
                s.add(
                    FRUSTUM, (x + size, step * k + 0.015 + high, front), (size, high, min(size, deep)), skin, shape=0.9
                )
            else:
                s.add(
                    SPHERE, (x + size, step * k + 0.015 + size, front), (size, min(size, high), min(size, deep)), skin
                )
            x += 2 * size + (s.spread(0.005, 0.3) if s.chance(0.3) else 0.004)


def bench(s: Layout) -> None:
    """Work bench, desk or counter with a crowd of things on it and beneath it."""
    wide, deep, tall = s.uniform(0.5, 1.2), s.uniform(0.25, 0.45), s.uniform(0.6, 1.0)
    wood = s.material(0.8)
    s.add(BOX, (0, tall - 0.02, 0), (wide, 0.02, deep), wood)
    if s.chance(0.4):
        s.add(BOX, (0, tall / 2, 0.05), (wide * 0.97, tall / 2, deep * 0.8), s.material(0.6))
    else:
        for x in (-wide * 0.93, wide * 0.93):
            for z in (-deep * 0.9, deep * 0.9):
                s.add(BOX, (x, tall / 2, z), (0.025, tall / 2, 0.025), wood)
    base = (s.origin, s.frame)
    for _ in range(s.count(2, 9)):
        thing = pick(s, (crate, crate, bucket, pile, screen, small_thing, small_thing, book, bottle, abstract))
        s.place(
            (s.uniform(-0.85, 0.85) * wide, tall, s.uniform(-0.6, 0.7) * deep),
            base=base,
            yaw=s.uniform(-0.7, 0.7),
            scale=s.uniform(0.3, 0.7) if thing in (crate, bucket, pile, abstract) else s.uniform(0.9, 1.5),
        )
        thing(s)
    for _ in range(s.count(0, 2)):
        _inside(s, base, pick(s, (crate, bucket, pile)), (s.uniform(-0.7, 0.7) * wide, 0, 0))


def screen(s: Layout) -> None:
    """Monitor, picture frame or mirror on a foot, 0.4 m."""
    wide, tall, dark = s.uniform(0.12, 0.4), s.uniform(0.1, 0.28), s.material(0.1, np.full(3, 0.03), 0.9)
    face = s.material(0.4, plain=0.3)
    face.gloss, face.glow = s.uniform(0, 0.9), s.uniform(0, 1.2) if s.chance(0.4) else 0.0
    s.add(BOX, (0, 0.12 + tall, 0), (wide, tall, 0.02), dark)
    s.add(BOX, (0, 0.12 + tall, -0.015), (wide * 0.94, tall * 0.92, 0.01), face)
    s.add(BOX, (0, 0.07, 0.02), (0.02, 0.07, 0.02), dark)
    s.add(DISC, (0, 0.005, 0), (0.12, 1, 0.09), dark)


def ladder(s: Layout) -> None:
    """Ladder, easel or tripod leaning, 1.8 m."""
    wood, tall, lean = s.material(0.3), s.uniform(1.2, 2.4), s.uniform(0.1, 0.6)
    for side in (-0.22, 0.22):
        capsule(s, (side, 0, 0), (side * 0.8, tall, lean), 0.025, wood)
    rungs = s.count(2, 7)
    for k in range(1, rungs + 1):
        share = k / (rungs + 1)
        capsule(s, (-0.22, tall * share, lean * share), (0.22, tall * share, lean * share), 0.018, wood)


def coat(s: Layout) -> None:
    """Clothes, towels or bags that hang from about 1.7 m."""
    for _ in range(s.count(1, 3)):
        cloth, x = s.material(0.4), s.uniform(-0.4, 0.4)
        long = s.uniform(0.2, 0.6)
        s.add(SPHERE, (x, 1.7 - long, 0), (s.uniform(0.08, 0.25), long, s.uniform(0.03, 0.1)), cloth)


CLUTTER: tuple[Thing, ...] = (
    crate,
    crate,
    bucket,
    pile,
    pile,
    rack,
    bench,
    ladder,
    chair,
    table,
    lamp,
    abstract,
    cycle,
)
WALLSIDE: tuple[Thing, ...] = (rack, rack, bench, bench, sofa, crate, pile, ladder, coat, table, bucket, lamp)


def _wall_colour(s: Layout) -> np.ndarray | None:
    """White, grey or cream, as most walls are; None for any colour."""
    return s.uniform(0.35, 0.9) * np.array([1.0, s.uniform(0.9, 1.0), s.uniform(0.75, 1.0)]) if s.chance(0.65) else None


def walls(s: Layout, wide: float, tall: float, near: float, far: float) -> None:
    """Floor, ceiling and four walls around x in +-wide/2, y in 0..tall, z in near..far, none of them bare."""
    s.indoor = True
    middle, length = (near + far) / 2, (far - near) / 2
    wall = s.material(1.5, _wall_colour(s), plain=0.7)
    if s.chance(0.6):
        wall.dark = wall.light * s.uniform(0.75, 1.0)
        wall.grain *= 0.3
    floor = s.material(0.8, plain=0.25)
    if s.chance(0.4):
        floor.gloss = s.uniform(0.2, 0.9)
    for centre, half, turn, material in (
        ((0, 0, middle), (wide / 2, 1, length), (0, 0, 0), floor),
        ((0, tall, middle), (wide / 2, 1, length), (0, 0, 0), s.material(1.5, _wall_colour(s), plain=0.85)),
        ((0, tall / 2, far), (wide / 2, 1, tall / 2), (0, math.pi / 2, 0), s.material(1.5) if s.chance(0.3) else wall),
        ((-wide / 2, tall / 2, middle), (tall / 2, 1, length), (0, 0, math.pi / 2), wall),
        ((wide / 2, tall / 2, middle), (tall / 2, 1, length), (0, 0, math.pi / 2), wall),
        ((0, tall / 2, near), (wide / 2, 1, tall / 2), (0, math.pi / 2, 0), wall),
    ):
        s.place((0, 0, 0), yaw=0.0)
        s.add(CARD, centre, half, material, turn)
    if s.chance(0.5):
        board = s.material(0.5, plain=0.9)
        s.place((0, 0, 0), yaw=0.0)
        for x in (-wide / 2, wide / 2):
            s.add(BOX, (x, 0.06, middle), (0.015, 0.06, length), board)
        s.add(BOX, (0, 0.06, far), (wide / 2, 0.06, 0.015), board)


def _on_wall(s: Layout, wide: float, near: float, far: float, inset: float) -> float:
    """Begin an object on the foot of a wall, facing into the room; returns how long that wall is."""
    side = s.count(-1, 1)
    if side == 0:
        s.place((s.uniform(-0.45, 0.45) * wide, 0, far - inset), yaw=0.0)
        return wide
    s.place((side * (wide / 2 - inset), 0, s.uniform(max(near, -0.5) + 0.4, far - 0.2)), yaw=side * math.pi / 2)
    return far - near


def fittings(s: Layout, wide: float, tall: float, near: float, far: float) -> None:
    """Doors, windows, pictures, boards and radiators on the walls; lamps, pipes and beams on the ceiling."""
    for _ in range(s.count(1, 8)):
        _on_wall(s, wide, near, far, 0.02)
        frame, pane = s.material(0.2), s.material(0.6, plain=0.3)
        style = s.rng.choice(["door", "window", "picture", "radiator", "board"], p=[0.25, 0.25, 0.25, 0.1, 0.15])
        if style == "door":
            s.add(BOX, (0, 1.02, 0), (0.5, 1.05, 0.03), frame)
            s.add(BOX, (0, 1.0, -0.02), (0.42, 1.0, 0.03), pane)
            s.add(SPHERE, (0.36, 1.0, -0.08), (0.03, 0.03, 0.03), s.material(0.05, np.full(3, 0.5), 1.0))
        elif style == "window":
            w, h = s.uniform(0.3, 1.0), s.uniform(0.35, 0.7)
            pane.glow, pane.gloss = s.spread(0.5, 8) if s.chance(0.7) else 0.0, 0.6
            y = s.uniform(1.2, max(1.3, tall - h - 0.1))
            s.add(BOX, (0, y, 0), (w, h, 0.01), pane)
            for k in range(s.count(2, 4)):
                s.add(BOX, (-w + 2 * w * k / 3, y, -0.02), (0.03, h, 0.03), frame)
            for dy in (-h, h):
                s.add(BOX, (0, y + dy, -0.03), (w + 0.05, 0.03, 0.05), frame)
            if s.chance(0.4):
                cloth = s.material(0.3)
                for x in (-w, w):
                    for k in range(4):
                        s.add(FRUSTUM, (x + 0.09 * k - 0.15, y - 0.2, -0.08), (0.06, h + 0.3, 0.05), cloth)
        elif style == "radiator":
            for k in range(9):
                s.add(BOX, (0.1 * k - 0.4, 0.4, -0.05), (0.04, 0.3, 0.05), frame)
        elif style == "board":
            y = s.uniform(1.2, tall - 0.3)
            w = s.uniform(0.2, 0.7)
            s.add(BOX, (0, y, -0.12), (w, 0.015, 0.13), frame)
            base = (s.origin, s.frame)
            for _ in range(s.count(1, 6)):
                s.place((s.uniform(-0.9, 0.9) * w, y + 0.015, -0.12), base=base, scale=s.uniform(0.5, 1.2))
                pick(s, (bottle, book, crate, bucket, fruit_like))(s)
        else:
            w, h, y = s.uniform(0.1, 0.6), s.uniform(0.1, 0.5), s.uniform(1.1, tall - 0.4)
            s.add(BOX, (0, y, 0), (w, h, 0.03), frame)
            s.add(BOX, (0, y, -0.02), (w * 0.9, h * 0.9, 0.02), pane)
    for _ in range(s.count(0, 4)):
        z, x = s.uniform(0.6, far), s.uniform(-0.45, 0.45) * wide
        glow = s.spread(1, 15) if s.chance(0.7) else 0.0
        shade, cord = s.material(0.3, plain=0.9), s.material(0.1, np.full(3, 0.05), 1.0)
        shade.glow = glow
        s.place((x, tall, z), yaw=0.0)
        if s.chance(0.5):
            drop = s.uniform(0.2, 0.9)
            capsule(s, (0, 0, 0), (0, -drop, 0), 0.008, cord)
            if s.chance(0.5):
                s.add(FRUSTUM, (0, -drop - 0.1, 0), (0.22, 0.1, 0.22), shade, shape=0.5)
            else:
                s.add(SPHERE, (0, -drop - 0.1, 0), (0.13, 0.13, 0.13), shade)
        else:
            s.add(BOX, (0, -0.03, 0), (s.uniform(0.06, 0.3), 0.03, s.uniform(0.1, 0.7)), shade)
        if glow and s.chance(0.8):
            s.lamps.append((s.origin - np.array([0.0, s.uniform(0.2, 0.6), 0.0]), glow))
    if s.chance(0.35):
        metal = s.material(0.3)
        metal.gloss = s.uniform(0, 0.8)
        for _ in range(s.count(1, 5)):
            radius, y = s.spread(0.015, 0.14), tall - s.uniform(0.05, 0.5)
            s.place((0, 0, 0), yaw=0.0)
            if s.chance(0.5):
                x = s.uniform(-0.48, 0.48) * wide
                capsule(s, (x, y, near), (x, y, far), radius, metal)
            else:
                z = s.uniform(0.8, far)
                capsule(s, (-wide / 2, y, z), (wide / 2, y, z), radius, metal)
            if s.chance(0.4):
                x, z = s.uniform(-0.48, 0.48) * wide, s.uniform(0.8, far)
                capsule(s, (x, 0, z), (x, tall, z), radius, metal)
    if s.chance(0.15):
        wood = s.material(0.5)
        for k in range(s.count(2, 5)):
            s.place((0, tall - 0.08, 1.0 + k * s.uniform(0.8, 1.3)), yaw=0.0)
            s.add(BOX, (0, 0, 0), (wide / 2, 0.08, 0.06), wood)


def fruit_like(s: Layout) -> None:
    """A ball or a vase, 0.1 m."""
    size = s.uniform(0.03, 0.1)
    s.add(SPHERE, (0, size, 0), (size, size, size), s.material(0.1))


def foreground(s: Layout, eye: tuple[float, float, float], yaw: float) -> None:
    """Something near at the edge of the frame, as often above as below: a lamp, leaves, a door post, a shoulder."""
    away, side = s.uniform(0.5, 1.3), s.uniform(0.25, 0.75) * (1 if s.chance(0.5) else -1)
    s.place(eye, yaw=yaw)
    base = (s.origin, s.frame)
    style = s.count(0, 5)
    if style == 0:
        s.add(BOX, (side * away, 0, away), (s.spread(0.03, 0.2), 3.0, s.spread(0.03, 0.3)), s.material(0.4))
    elif style == 1:
        s.add(FRUSTUM, (side * away, s.uniform(0.1, 0.5) * away, away), (0.16, 0.1, 0.16), s.material(0.2), shape=0.6)
        capsule(s, (side * away, 0.2, away), (side * away, 2.0, away), 0.008, s.material(0.1))
    elif style == 2:
        leaf = s.material(0.2, np.array([0.1, 0.2, 0.05]) * np.exp(s.rng.normal(0, 0.5, 3)), 0.1)
        for _ in range(s.count(2, 6)):
            at = (side * away * s.uniform(0.5, 1.2), s.uniform(-0.1, 0.7) * away, away * s.uniform(0.8, 1.3))
            s.add(LEAVES, at, (0.2 * away, 0.15 * away, 0.2 * away), leaf, shape=s.uniform(4, 9))
    elif style == 3:
        s.place((side * away * 0.8, -s.uniform(0.0, 0.3), away), base=base, yaw=s.uniform(0, 6.3))
        bust(s)
    elif style == 4:
        s.add(BOX, (0, s.uniform(0.3, 0.5) * away, away), (2.0, s.spread(0.02, 0.1), 0.1), s.material(0.4))
    else:
        s.place((side * away, -s.uniform(0.2, 0.7) * away, away), base=base, scale=s.uniform(0.3, 0.6))
        pick(s, (crate, bucket, pile, abstract))(s)


def look(
    s: Layout, eye: tuple[float, float, float], yaw: float, pitch: float, low: float = 50, high: float = 80
) -> None:
    """Camera at `eye`; `yaw` and `pitch` in radians; field of view of the longer side in `low`..`high` degrees."""
    away = (math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch))
    s.aim(eye, tuple(np.add(eye, away)), tilt(s), math.radians(s.uniform(low, high)))


def eye_room(s: Layout) -> None:
    """A furnished, cluttered room from eye height, in any direction."""
    wide, tall = s.spread(2.2, 7.5), s.uniform(2.2, 3.3)
    far, near = s.spread(2.6, 9), -s.uniform(1.0, 3.5)
    walls(s, wide, tall, near, far)
    fittings(s, wide, tall, near, far)
    for _ in range(s.count(2, 9)):
        thing = pick(s, WALLSIDE)
        _on_wall(s, wide, near, far, 0.35)
        thing(s)
    for _ in range(s.count(0, 8)):
        thing = pick(s, CLUTTER if s.chance(0.6) else FURNITURE)
        s.place((s.uniform(-0.42, 0.42) * wide, 0, s.uniform(1.2, far - 0.3)), scale=0.7 if thing is abstract else 1.0)
        thing(s)
    eye = (s.uniform(-0.38, 0.38) * wide, s.uniform(1.2, 1.7) if s.chance(0.8) else s.uniform(0.5, 2.0), 0.0)
    yaw = float(s.rng.normal(0, 0.45))
    if s.chance(0.35):
        foreground(s, eye, yaw)
    look(s, eye, yaw, float(s.rng.normal(-0.12, 0.16)), *((50, 80) if s.chance(0.75) else (32, 55)))


def corridor(s: Layout) -> None:
    """A passage with doors on both sides and pipes or lamps overhead."""
    wide, tall, far = s.uniform(1.2, 3.0), s.uniform(2.1, 3.2), s.spread(5, 25)
    walls(s, wide, tall, -1.5, far)
    fittings(s, wide, tall, -1.0, far)
    step = s.uniform(1.5, 3.5)
    frame, pane = s.material(0.3), s.material(0.8)
    for k in range(int(far / step)):
        for side in (-1, 1):
            if s.chance(0.6):
                s.place((side * wide / 2, 0, 1.0 + k * step), yaw=side * math.pi / 2)
                s.add(BOX, (0, 1.02, 0), (0.5, 1.04, 0.06), frame)
                s.add(BOX, (0, 1.0, -0.02), (0.42, 0.98, 0.03), pane)
        if s.chance(0.5):
            tube = s.material(0.2, np.full(3, 0.9), 1.0)
            tube.glow = s.spread(1, 10)
            s.place((0, tall - 0.03, 1.0 + k * step), yaw=0.0)
            s.add(BOX, (0, 0, 0), (0.1, 0.03, 0.5), tube)
            s.lamps.append((s.origin - np.array([0.0, 0.4, 0.0]), tube.glow))
    for _ in range(s.count(0, 4)):
        s.place((s.uniform(-0.4, 0.4) * wide, 0, s.uniform(1.8, far)))
        pick(s, (person, crate, bucket, chair, pile, cycle))(s)
    eye = (s.uniform(-0.3, 0.3) * wide, s.uniform(1.1, 1.75), 0.0)
    look(s, eye, float(s.rng.normal(0, 0.2)), float(s.rng.normal(-0.08, 0.12)))


def workshop(s: Layout) -> None:
    """Heaps of things 1 to 4 m away before a wall or a full rack, seen with a narrower lens."""
    far = s.spread(1.6, 5.0)
    wide, tall = s.uniform(2.5, 6), s.uniform(2.2, 3.2)
    walls(s, wide, tall, -1.5, far)
    fittings(s, wide, tall, -0.5, far)
    for _ in range(s.count(1, 4)):
        s.place((s.uniform(-0.4, 0.4) * wide, 0, far - s.uniform(0.3, 0.5)), yaw=s.uniform(-0.2, 0.2))
        pick(s, (rack, rack, bench, bench, coat, ladder))(s)
    for _ in range(s.count(4, 13)):
        z = s.uniform(0.35, 0.95) * far
        s.place((s.uniform(-0.65, 0.65) * z, 0, z), scale=s.uniform(0.6, 1.2))
        pick(s, CLUTTER)(s)
    if s.chance(0.5):
        # Things that hang from above or lean in from the side, nearer than the rest.
        for _ in range(s.count(1, 5)):
            z = s.uniform(0.4, 0.9) * far
            top = (s.uniform(-0.5, 0.5) * z, tall, z)
            low = (top[0] + s.uniform(-0.3, 0.3), s.uniform(1.2, 2.0), z + s.uniform(-0.3, 0.3))
            s.place((0, 0, 0), yaw=0.0)
            capsule(s, low, top, s.spread(0.006, 0.05), s.material(0.2))
            s.place(low, pitch=s.uniform(-0.6, 0.6), scale=s.uniform(0.4, 0.9))
            pick(s, (crate, bucket, abstract, fruit_like, pile))(s)
    eye = (s.uniform(-0.3, 0.3), s.uniform(0.8, 1.7), -s.uniform(0.0, 0.5))
    yaw = float(s.rng.normal(0, 0.2))
    if s.chance(0.3):
        foreground(s, eye, yaw)
    look(s, eye, yaw, float(s.rng.normal(-0.15, 0.17)), 36, 66)


def facade(s: Layout, wide: float, tall: float) -> None:
    """House front facing -z: windows in rows, a door, ledges, awnings or balconies that stand out."""
    wall = s.material(2.0, plain=0.35)
    s.add(BOX, (0, tall / 2, 4), (wide / 2, tall / 2, 4), wall)
    frame, pane = s.material(0.5), s.material(1.0, s.colour() * 0.2, 0.8)
    pane.gloss, pane.glow = 0.8, s.uniform(0, 0.6) if s.chance(0.3) else 0.0
    across, floors = max(1, int(wide / s.uniform(1.6, 3.0))), max(1, min(4, int(tall / 3)))
    for row in range(floors):
        for column in range(across):
            x = (column + 0.5) / across * wide - wide / 2
            y = 1.6 + 3 * row
            s.add(BOX, (x, y, 0), (0.55, 0.8, 0.05), pane)
            if s.chance(0.5):
                s.add(BOX, (x, y - 0.85, -0.1), (0.65, 0.05, 0.12), frame)
    if s.chance(0.4):
        s.add(BOX, (0, 2.9, -0.6), (wide * 0.4, 0.05, 0.6), s.material(0.5), (0, 0.25, 0))
    if s.chance(0.3):
        s.add(BOX, (s.uniform(-0.3, 0.3) * wide, 3.2, -0.5), (1.2, 0.45, 0.5), s.material(0.5))
    if s.chance(0.4):
        s.add(BOX, (0, tall, 4), (wide / 2 + 0.3, 0.15, 4.3), frame)


def street(s: Layout) -> None:
    """House fronts on one or both sides, kerbs, parked cars, trees, people, posts and wires overhead."""
    half = s.spread(2.5, 11)
    ground(s, 2.0)
    kerb = s.material(1.0)
    long = s.spread(25, 120)
    for side in (-1, 1):
        if s.chance(0.85):
            s.place((0, 0, 0), yaw=0.0)
            s.add(BOX, (side * half * 0.85, 0.07, long / 2), (half * 0.25, 0.07, long / 2), kerb)
            z = -4.0
            while z < long:
                wide = s.uniform(4, 14)
                if s.chance(0.85):
                    s.place((side * (half + s.uniform(0, 0.8)), 0, z + wide / 2), yaw=side * math.pi / 2)
                    facade(s, wide, s.spread(3.5, 18))
                z += wide + (s.uniform(0.5, 6) if s.chance(0.3) else 0.0)
        z = s.uniform(2, 8)
        while z < min(long, 45):
            thing = pick(s, (car, car, tree, lamp, person, bush, cycle, fence))
            s.place(
                (side * half * s.uniform(0.55, 0.8), 0.05, z), yaw=s.uniform(-0.1, 0.1) + (0 if thing is car else 1)
            )
            if s.chance(0.7):
                s.frame = s.frame * (2.0 if thing is lamp else 1.0)
                thing(s)
            z += s.spread(2, 12)
    for _ in range(s.count(0, 6)):
        z = s.spread(2.5, 40)
        s.place((s.uniform(-0.5, 0.5) * half, 0, z))
        pick(s, (person, person, car, cycle, quadruped))(s)
    if s.chance(0.35):
        wire = s.material(0.5, np.full(3, 0.02), 1.0)
        for _ in range(s.count(1, 4)):
            y, z = s.uniform(3, 7), s.uniform(3, 20)
            s.place((0, 0, 0), yaw=0.0)
            capsule(s, (-half, y, z), (half, y + s.uniform(-1, 1), z + s.uniform(-3, 8)), 0.015, wire)
    if s.chance(0.4):
        s.place((0, 0, long), yaw=s.uniform(-0.2, 0.2))
        building(s)
    if s.chance(0.4):
        hills(s)
    s.fog = s.spread(0.001, 0.03) if s.chance(0.3) else 0.0
    eye = (s.uniform(-0.5, 0.5) * half, s.uniform(1.1, 1.9) if s.chance(0.85) else s.uniform(2, 6), 0.0)
    yaw = float(s.rng.normal(0, 0.25 if s.chance(0.7) else 0.7))
    if s.chance(0.15):
        foreground(s, eye, yaw)
    look(s, eye, yaw, float(s.rng.normal(0.0, 0.12)), 50, 85)


def people(s: Layout) -> None:
    """Several persons from an arm's length to across the place, some cut off by the frame."""
    outside = s.chance(0.5)
    if outside:
        ground(s, 2.0)
        for _ in range(s.count(0, 8)):
            z = s.spread(6, 40)
            s.place((s.uniform(-0.8, 0.8) * z, 0, z))
            pick(s, (tree, bush, building, car, fence, lamp))(s)
    else:
        wide, tall, far = s.uniform(3, 9), s.uniform(2.3, 3.5), s.spread(3, 10)
        walls(s, wide, tall, -2, far)
        fittings(s, wide, tall, -1, far)
        for _ in range(s.count(0, 5)):
            _on_wall(s, wide, -1, far, 0.4)
            pick(s, WALLSIDE)(s)
    for _ in range(s.count(1, 6)):
        z = s.spread(0.8, 7)
        s.place((s.uniform(-0.5, 0.5) * (z + 0.4), 0, z), scale=s.uniform(0.85, 1.1))
        if z < 2.2:
            s.place((s.uniform(-0.5, 0.5) * z, s.uniform(1.2, 1.5), z), yaw=float(s.rng.normal(0, 1.0)))
            bust(s)
        else:
            person(s)
    look(s, (0.0, s.uniform(1.1, 1.7), 0.0), 0.0, float(s.rng.normal(-0.03, 0.1)), 40, 75)


def hand(s: Layout) -> None:
    """An arm that reaches into the frame and holds something, a room or a table behind it."""
    room_like = s.chance(0.6)
    if room_like:
        wide, far = s.uniform(2.5, 6), s.uniform(2, 6)
        walls(s, wide, 2.6, -1.5, far)
        fittings(s, wide, 2.6, -1, far)
        for _ in range(s.count(1, 5)):
            _on_wall(s, wide, -1, far, 0.35)
            pick(s, WALLSIDE)(s)
    else:
        s.indoor = True
        ground(s, 0.8, 0.7)
        for _ in range(s.count(2, 7)):
            s.place((s.uniform(-0.6, 0.6), 0.7, s.uniform(0.4, 1.2)), scale=s.uniform(0.8, 1.5))
            small_thing(s)
    skin = s.material(0.2, np.array([0.75, 0.5, 0.38]) * s.spread(0.15, 1.1), 0.9)
    sleeve = s.material(0.3)
    eye = np.array([0.0, s.uniform(1.2, 1.6), 0.0])
    pitch = float(s.rng.normal(-0.1, 0.1)) if room_like else -s.uniform(0.5, 1.0)
    s.place(tuple(eye), yaw=0.0, pitch=pitch)
    base = (s.origin, s.frame)
    away = s.uniform(0.35, 0.6)
    palm = np.array([s.uniform(-0.12, 0.12), s.uniform(-0.12, 0.08), away])
    side = 1 if s.chance(0.5) else -1
    elbow = palm + np.array([side * s.uniform(0.05, 0.3), -s.uniform(0.15, 0.35), -s.uniform(0.0, 0.25)])
    capsule(s, tuple(elbow), tuple(palm), 0.04, sleeve if s.chance(0.5) else skin, 0.7)
    s.add(SPHERE, tuple(palm), (0.045, 0.05, 0.022), skin, (s.uniform(-1, 1), 0, s.uniform(-0.5, 0.5)))
    spread = s.uniform(0.1, 1.0)
    for k in range(5):
        angle = (k - 2) * 0.3 * spread + s.uniform(-0.1, 0.1)
        middle = palm + np.array([math.sin(angle) * 0.07, math.cos(angle) * 0.07, s.uniform(-0.02, 0.03)])
        tip = middle + np.array([math.sin(angle) * 0.035, math.cos(angle) * 0.04, s.uniform(-0.04, 0.02)])
        capsule(s, tuple(palm), tuple(middle), 0.011, skin)
        capsule(s, tuple(middle), tuple(tip), 0.01, skin)
        s.add(SPHERE, tuple(tip), (0.01, 0.01, 0.01), skin)
    if s.chance(0.6):
        s.place(tuple(palm + np.array([0, 0.03, 0.02])), base=base, scale=s.uniform(0.6, 1.1))
        pick(s, (bottle, fruit_like, book, small_thing))(s)
    look(s, tuple(eye), 0.0, pitch, 45, 75)


def garden(s: Layout) -> None:
    """Lawns, beds, hedges, sheds and benches under branches that hang into the picture."""
    ground(s, s.spread(0.3, 2))
    green = np.array([0.13, 0.2, 0.05])
    for _ in range(s.count(5, 18)):
        z = s.spread(1.5, 25)
        thing = pick(s, (bush, bush, bush, tree, tree, fence, bucket, bench, person, lamp, abstract))
        s.place((s.uniform(-0.7, 0.7) * z, 0, z), scale=s.uniform(0.6, 1.5))
        thing(s)
    if s.chance(0.5):
        z, turn = s.spread(4, 20), s.uniform(-0.5, 0.5)
        s.place((0, 0, z), yaw=turn)
        if s.chance(0.5):
            s.add(BOX, (0, 1, 0), (30, s.uniform(0.8, 2.2), 0.2), s.material(0.6))
        else:
            facade(s, s.uniform(6, 16), s.uniform(3, 9))
    if s.chance(0.4):
        s.place((s.uniform(-1, 1), 0.01, 10), yaw=s.uniform(-0.4, 0.4))
        s.add(CARD, (0, 0, 0), (s.uniform(0.4, 1.5), 1, 60), s.material(0.5))
    eye = (0.0, s.uniform(0.8, 1.75), 0.0)
    if s.chance(0.5):
        bark, leaf = s.material(0.2), s.material(0.3, green * np.exp(s.rng.normal(0, 0.5, 3)), 0.1)
        for _ in range(s.count(1, 5)):
            z, side = s.uniform(0.8, 3.0), s.uniform(-0.8, 0.8)
            root = np.array([side * z * 1.5, eye[1] + z * s.uniform(0.3, 0.9), z * s.uniform(0.9, 1.4)])
            tip = np.array([side * z * s.uniform(-0.3, 0.6), eye[1] + z * s.uniform(0.0, 0.5), z])
            s.place((0, 0, 0), yaw=0.0)
            capsule(s, tuple(root), tuple(tip), 0.015 * z, bark, 0.5)
            for _ in range(s.count(2, 6)):
                at = root + (tip - root) * s.uniform(0.2, 1.1) + s.rng.normal(0, 0.08, 3) * z
                size = z * s.uniform(0.05, 0.16)
                s.add(LEAVES, tuple(at), (size, size * 0.6, size), leaf, (s.uniform(0, 3), 0, 0), s.uniform(3, 9))
    look(s, eye, float(s.rng.normal(0, 0.2)), float(s.rng.normal(-0.05, 0.14)), 45, 80)


def rackwall(s: Layout) -> None:
    """A rack, a counter or a market stall seen nearly head on from up close."""
    s.indoor = s.chance(0.7)
    ground(s, 0.8)
    away = s.uniform(0.7, 2.2)
    turn = float(s.rng.normal(0, 0.4))
    s.place((0, 0, away + 0.35), yaw=turn)
    s.add(CARD, (0, 2, 0), (20, 1, 20), s.material(1.0), (0, math.pi / 2, 0))
    along = (s.origin, s.frame)
    for k in range(-1, 2):
        s.objects += 1
        s.place((k * s.uniform(1.2, 1.9), s.uniform(-0.5, 0.2), -0.3), base=along, yaw=s.uniform(-0.1, 0.1))
        pick(s, (rack, rack, rack, bench, coat))(s)
    for _ in range(s.count(0, 3)):
        s.place((s.uniform(-0.6, 0.6), 0, away * s.uniform(0.5, 0.9)))
        pick(s, (person, crate, pile, ladder, bucket, chair))(s)
    look(
        s,
        (s.uniform(-0.3, 0.3), s.uniform(0.8, 1.6), 0.0),
        float(s.rng.normal(0, 0.2)),
        float(s.rng.normal(-0.05, 0.12)),
        40,
        80,
    )


def still(s: Layout) -> None:
    """A handful of solids of any kind on a table before a wall, a lamp or a ring hanging above them."""
    s.indoor = True
    s.place((0, -0.02, 0.1), yaw=s.uniform(-0.4, 0.4))
    half = s.uniform(0.4, 1.0)
    s.add(FRUSTUM if s.chance(0.3) else BOX, (0, 0, 0), (half, 0.02, half * 0.8), s.material(0.4))
    ground(s, 0.8, -0.75)
    wall = s.uniform(0.6, 3.0)
    s.place((0, 0, wall), yaw=s.uniform(-0.5, 0.5))
    s.add(CARD, (0, 0, 0), (20, 1, 20), s.material(0.8), (0, math.pi / 2, 0))
    for _ in range(s.count(0, 3)):
        s.place((s.uniform(-0.7, 0.7) * (wall + 1), -0.75, wall - 0.35), yaw=s.uniform(-0.3, 0.3))
        pick(s, (rack, crate, pile, sofa, chair))(s)
    for _ in range(s.count(2, 9)):
        thing = pick(s, (crate, bucket, pile, bottle, book, screen, small_thing, abstract, fruit_like))
        heavy = thing in (crate, bucket, pile, abstract)
        s.place(
            (s.uniform(-0.45, 0.45), 0.12 if thing is abstract else 0, s.uniform(-0.3, 0.5)),
            scale=s.uniform(0.2, 0.45) if heavy else s.uniform(0.8, 1.6),
        )
        thing(s)
    if s.chance(0.3):
        s.place((s.uniform(-0.4, 0.4), s.uniform(0.3, 0.6), s.uniform(-0.3, 0.4)))
        if s.chance(0.5):
            s.add(FRUSTUM, (0, 0, 0), (0.15, 0.1, 0.15), s.material(0.2), shape=0.5)
            capsule(s, (0, 0, 0), (0, 2, 0), 0.006, s.material(0.1))
        else:
            s.add(TORUS, (0, 0, 0), (0.1, 0.1, 0.1), s.material(0.1), (0, s.uniform(-1.5, 1.5), 0), 0.2)
    down, away = s.uniform(0.05, 0.9), s.uniform(0.7, 1.5)
    eye = (s.uniform(-0.3, 0.3), away * math.sin(down) + 0.12, -away * math.cos(down))
    s.aim(eye, (s.uniform(-0.1, 0.1), s.uniform(0.0, 0.2), 0.1), tilt(s), math.radians(s.uniform(34, 62)))
    s.focus = away if s.chance(0.3) else None


def rolling(s: Layout) -> None:
    """Open land whose ground itself rises and falls, with what grows and stands on it."""
    height = s.spread(1.2, 9)
    earth = s.material(s.spread(1, 8), plain=0.3)
    s.place((0, 0, 0), yaw=0.0)
    s.add(GROUND, (0, 0, 0), (1, 1, 1), earth)
    for _ in range(s.count(4, 14)):
        z = s.spread(6, 140)
        wide = z * s.uniform(0.15, 0.7)
        s.place((s.uniform(-0.9, 0.9) * z, -0.1 * wide, z + wide * 0.6), yaw=s.uniform(0, 3))
        skin = earth if s.chance(0.7) else s.material(s.spread(1, 8), plain=0.3)
        s.add(SPHERE, (0, 0, 0), (wide, wide * s.uniform(0.12, 0.5), wide * s.uniform(0.4, 1)), skin)
    for _ in range(s.count(1, 9)):
        z = s.spread(3, 50)
        s.place((s.uniform(-0.6, 0.6) * z, -0.1, z), scale=s.uniform(0.8, 1.6))
        pick(s, (tree, bush, person, quadruped, fence, abstract, crate, lamp))(s)
    if s.chance(0.5):
        hills(s)
    s.fog = s.spread(0.002, 0.04) if s.chance(0.5) else 0.0
    look(s, (0.0, height, 0.0), 0.0, s.uniform(-0.3, 0.12), 45, 75)


def figure(s: Layout) -> None:
    """A standing or floating figure that fills the frame, before a wall, in a place or before nothing at all."""
    size = s.uniform(0.4, 2.0)
    away = size * s.uniform(0.7, 2.0)
    foot = -s.uniform(0.6, 0.9) * size
    behind = away + size * s.uniform(0.5, 6)
    s.indoor = s.chance(0.5)
    if s.chance(0.65):
        s.place((0, 0, behind), yaw=float(s.rng.normal(0, 0.35)))
        s.add(CARD, (0, 0, 0), (60, 1, 60), s.material(behind * 0.3), (0, math.pi / 2, 0))
    if s.chance(0.65):
        ground(s, size, foot)
    for _ in range(s.count(0, 7)):
        s.place(
            (s.uniform(-0.7, 0.7) * behind, s.uniform(-0.7, 0.5) * size, behind * s.uniform(0.5, 1.0)),
            scale=size * s.uniform(0.3, 1.2),
            pitch=s.uniform(-0.5, 0.5),
        )
        pick(s, (abstract, crate, bucket, pile, chair, bush))(s)
    s.place((s.uniform(-0.25, 0.25) * size, foot, away), yaw=s.uniform(0, 6.3), scale=size / 1.7)
    pick(s, (person, person, person, ladder, lamp, quadruped))(s)
    look(s, (0.0, 0.0, 0.0), s.uniform(-0.12, 0.12), s.uniform(-0.12, 0.12), 34, 64)


EYE_LEVEL: dict[str, tuple[Callable[[Layout], None], float]] = {
    "eye room": (eye_room, 0.22),
    "corridor": (corridor, 0.04),
    "workshop": (workshop, 0.16),
    "street": (street, 0.1),
    "people": (people, 0.06),
    "hand": (hand, 0.03),
    "garden": (garden, 0.06),
    "rack wall": (rackwall, 0.05),
    "still": (still, 0.07),
    "rolling": (rolling, 0.05),
    "figure": (figure, 0.05),
}
"""Kinds of scenes by name: the function that lays one out, and its share beside the other kinds."""
