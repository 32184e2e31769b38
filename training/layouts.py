"""What stands where: parts, compound objects and the kinds of scenes that ``scenes.py`` renders.

World frame: x right, y up, z away from a camera that looks straight ahead; metres. A part is a unit shape
under an affine map. All randomness comes from the one generator of a layout, so a seed names a scene.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

SPHERE, BOX, FRUSTUM, CARD, DISC, TORUS, LEAVES, GROUND = range(8)
"""Unit shapes: ball of radius 1; cube of half side 1; y in -1..1 with radius 1 at the bottom and `shape` at
the top (negative `shape`: the same without a lid); square and disc in the plane y = 0; ring of radius 1 and
tube `shape` around y; ball with holes at frequency `shape`; the endless plane y = 0."""

Vector = tuple[float, float, float]


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """(3,3): turn about z by `roll`, then x by `pitch` (positive lifts +z), then y by `yaw`, radians."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


@dataclass
class Material:
    """Two colours (linear RGB) mixed by a pattern, and how the surface answers light."""

    dark: np.ndarray
    light: np.ndarray
    pattern: int = 0
    tile: float = 1.0  # metres that one repeat of the pattern covers
    grain: float = 0.2  # strength of the fine second noise
    gloss: float = 0.0
    bump: float = 0.0
    glow: float = 0.0


@dataclass
class Layout:
    """One scene: parts as they accumulate, camera, light and air."""

    rng: np.random.Generator
    patterns: int
    parts: list[dict] = field(default_factory=list)
    objects: int = 0
    origin: np.ndarray = field(default_factory=lambda: np.zeros(3))
    frame: np.ndarray = field(default_factory=lambda: np.eye(3))
    palette: np.ndarray = field(default_factory=lambda: np.zeros((1, 3)))
    eye: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.6, 0.0]))
    look: np.ndarray = field(default_factory=lambda: np.eye(3))
    fov: float = 1.0  # of the longer side, radians
    focus: float | None = None
    indoor: bool = False
    fog: float = 0.0  # 1/metre
    lamps: list[tuple[np.ndarray, float]] = field(default_factory=list)  # position in metres and strength

    def __post_init__(self) -> None:
        self.palette = self._palette()

    def _palette(self) -> np.ndarray:
        styles = ["home", "any", "earth", "grey", "vivid", "dark", "pale"]
        style = self.rng.choice(styles, p=[0.45, 0.12, 0.12, 0.09, 0.06, 0.07, 0.09])
        hue, sat, val = self.rng.random(7), self.rng.random(7), self.rng.random(7)
        if style == "home":
            # Walls, wood, cloth and metal are near grey or brown; one or two things have a colour.
            plain = self.rng.random(7) < 0.8
            hue = np.where(plain, 0.06 + 0.06 * hue, hue)
            sat, val = np.where(plain, 0.45 * sat**1.5, 0.3 + 0.5 * sat), 0.25 + 0.75 * val**0.7
        elif style == "earth":
            hue, sat, val = hue * 0.32, 0.2 + 0.5 * sat, 0.1 + 0.7 * val
        elif style == "grey":
            sat, val = 0.15 * sat, 0.05 + 0.9 * val
        elif style == "vivid":
            sat, val = 0.6 + 0.4 * sat, 0.3 + 0.7 * val
        elif style == "dark":
            sat, val = 0.7 * sat, 0.03 + 0.3 * val
        elif style == "pale":
            sat, val = 0.35 * sat, 0.6 + 0.4 * val
        sector = (hue[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6
        rgb = val[:, None] * (1 - sat[:, None] * np.clip(1 - np.abs(sector - 3) + 1, 0, 1))
        return np.clip(rgb, 0.01, 0.98) ** 2.0

    def uniform(self, low: float, high: float) -> float:
        """A plain uniform draw."""
        return float(self.rng.uniform(low, high))

    def spread(self, low: float, high: float) -> float:
        """A draw uniform in the logarithm."""
        return float(np.exp(self.rng.uniform(math.log(low), math.log(high))))

    def chance(self, p: float) -> bool:
        """True with probability `p`."""
        return bool(self.rng.random() < p)

    def count(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def colour(self) -> np.ndarray:
        """One of the scene's colours, varied a little."""
        base = self.palette[self.rng.integers(len(self.palette))]
        return np.clip(base * np.exp(self.rng.normal(0, 0.15, 3)), 0.005, 1.0)

    def material(self, size: float, colour: np.ndarray | None = None, plain: float = 0.45) -> Material:
        """A surface for something about `size` metres across. `plain`: chance of little or no pattern."""
        light = self.colour() if colour is None else np.asarray(colour, dtype=float)
        if self.chance(plain):
            dark, grain = light * self.uniform(0.8, 1.0), self.uniform(0.0, 0.15)
        else:
            dark = self.colour() if self.chance(0.45) else light * self.uniform(0.2, 0.8)
            grain = self.uniform(0.0, 0.8) ** 1.5
        return Material(
            dark,
            light,
            int(self.rng.integers(self.patterns)),
            size * self.spread(0.25, 2.5),
            grain,
            gloss=self.uniform(0.1, 0.9) if self.chance(0.3) else 0.0,
            bump=self.uniform(0, 1.2) * grain,
        )

    def place(
        self,
        position: Vector | np.ndarray,
        yaw: float | None = None,
        scale: float = 1.0,
        pitch: float = 0.0,
        roll: float = 0.0,
        base: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        """Begin an object: parts that follow are in its frame, itself within `base` (origin, frame)."""
        yaw = self.uniform(0, 2 * math.pi) if yaw is None else yaw
        origin, frame = base if base is not None else (np.zeros(3), np.eye(3))
        self.origin = origin + frame @ np.asarray(position, dtype=float)
        self.frame = frame @ rotation(yaw, pitch, roll) * scale
        if base is None:
            self.objects += 1

    def add(
        self,
        kind: int,
        centre: Vector,
        half: Vector,
        material: Material,
        turn: Vector = (0.0, 0.0, 0.0),
        shape: float = 1.0,
    ) -> None:
        """Add a part: unit shape scaled by `half`, turned by (yaw, pitch, roll), moved to `centre`."""
        self.parts.append(
            {
                "kind": kind,
                "origin": self.origin + self.frame @ np.asarray(centre, dtype=float),
                "axes": self.frame @ rotation(*turn) @ np.diag(half),
                "shape": shape,
                "object": self.objects,
                "metric": np.abs(np.asarray(half)) * np.cbrt(np.linalg.det(self.frame)),
                "material": material,
                "uv": self.rng.random(3),
            }
        )

    def aim(self, eye: Vector, target: Vector, roll: float, fov: float) -> None:
        """Camera at `eye` looking at `target`; `fov` of the longer side in radians."""
        self.eye = np.asarray(eye, dtype=float)
        ray = np.asarray(target, dtype=float) - self.eye
        self.look = rotation(math.atan2(ray[0], ray[2]), math.atan2(ray[1], math.hypot(ray[0], ray[2])), roll)
        self.fov = fov


def capsule(s: Layout, a: Vector, b: Vector, radius: float, material: Material, top: float = 1.0) -> None:
    """A rod from `a` to `b`."""
    delta = np.subtract(b, a)
    length = float(np.linalg.norm(delta)) + 1e-9
    yaw, lift = math.atan2(delta[0], delta[2]), math.asin(np.clip(delta[1] / length, -1, 1))
    middle = tuple(np.add(a, b) / 2)
    # The frustum's axis is y; pitching it by lift - 90 degrees lays it along the rod.
    s.add(FRUSTUM, middle, (radius, length / 2, radius), material, (yaw, lift - math.pi / 2, 0.0), top)


def person(s: Layout) -> None:
    """Standing figure, 1.7 m, feet at the origin."""
    skin = s.material(0.3, np.array([0.75, 0.5, 0.38]) * s.spread(0.15, 1.1), 0.9)
    shirt, legs, hair = s.material(0.5), s.material(0.5), s.material(0.1, s.colour() * 0.4)
    stride, bend = s.uniform(0, 0.25), s.uniform(0.05, 0.5)
    for side in (-1, 1):
        capsule(s, (side * 0.12, 0, side * stride), (side * 0.1, 0.85, 0), 0.075, legs, 1.2)
        capsule(
            s,
            (side * (0.2 + bend), 0.85 + s.uniform(-0.1, 0.7), s.uniform(-0.2, 0.3)),
            (side * 0.2, 1.38, 0),
            0.05,
            shirt,
            1.1,
        )
    s.add(SPHERE, (0, 1.12, 0), (0.22, 0.36, 0.14), shirt)
    s.add(FRUSTUM, (0, 1.0, 0), (0.19, 0.2, 0.13), shirt, shape=1.05)
    s.add(SPHERE, (0, 1.57, 0), (0.095, 0.13, 0.11), skin)
    s.add(SPHERE, (0, 1.62, 0.025), (0.1, 0.11, 0.11), hair)


def bust(s: Layout) -> None:
    """Head and shoulders facing -z, chin about 0, head about 0.25 m tall; the body reaches down to -0.9."""
    skin = s.material(0.3, np.array([0.75, 0.5, 0.38]) * s.spread(0.12, 1.15), 0.9)
    cloth, hair = s.material(0.4), s.material(0.1, s.colour() * s.uniform(0.1, 0.8))
    hair.grain, hair.bump = 0.9, 1.0
    tilt = (s.uniform(-0.6, 0.6), s.uniform(-0.25, 0.25), s.uniform(-0.2, 0.2))
    s.add(SPHERE, (0, 0.12, 0), (0.078, 0.12, 0.1), skin, tilt)
    s.add(SPHERE, (0.02 * tilt[0], 0.09, -0.1), (0.016, 0.028, 0.022), skin)
    dark = s.material(0.05, np.array([0.03, 0.02, 0.02]), 1.0)
    for side in (-1, 1):
        s.add(SPHERE, (side * 0.032, 0.13, -0.085), (0.014, 0.008, 0.01), dark)
        s.add(SPHERE, (side * 0.079, 0.1, 0.005), (0.012, 0.03, 0.02), skin)
        shoulder = s.uniform(0.15, 0.2)
        s.add(SPHERE, (side * shoulder, -0.17, 0.03), (0.08, 0.085, 0.085), cloth)
        capsule(
            s,
            (side * (shoulder + s.uniform(0.03, 0.12)), -0.5, s.uniform(-0.1, 0.05)),
            (side * (shoulder + 0.02), -0.17, 0.03),
            0.06,
            cloth,
        )
    s.add(SPHERE, (0, 0.04, -0.078), (0.026, 0.008, 0.012), s.material(0.05, np.array([0.4, 0.1, 0.1]), 1.0))
    style = s.count(0, 3)
    if style < 3:
        s.add(SPHERE, (0, 0.16, 0.025), (0.092, 0.105, 0.105), hair, tilt)
    if style == 1:
        s.add(SPHERE, (0, 0.02, 0.06), (0.13, 0.22, 0.07), hair)
    if style == 3 and s.chance(0.6):
        s.add(FRUSTUM, (0, 0.24, 0.0), (0.1, 0.05, 0.11), cloth, tilt, 0.85)
        s.add(DISC, (0, 0.2, -0.03), (0.15, 1, 0.16), cloth, tilt)
    s.add(FRUSTUM, (0, -0.03, 0.02), (0.06, 0.09, 0.06), skin, shape=0.9)
    s.add(SPHERE, (0, -0.2, 0.03), (0.2, 0.13, 0.11), cloth)
    s.add(FRUSTUM, (0, -0.55, 0.03), (0.17, 0.38, 0.12), cloth, shape=1.15)
    if s.chance(0.35):
        prop = s.material(0.1)
        prop.gloss = s.uniform(0, 0.9)
        size = s.uniform(0.05, 0.15)
        s.add(
            s.count(0, 2),
            (s.uniform(-0.25, 0.25), -s.uniform(0.25, 0.5), -0.12 - size / 2),
            (size, size * s.uniform(0.6, 1.2), size * s.uniform(0.2, 1)),
            prop,
            (s.uniform(-0.6, 0.6), 0, 0.2),
        )


def muzzle(s: Layout) -> None:
    """Furry head facing -z, about 0.2 m across, with ears and a body behind and below it."""
    fur_colour = s.colour()
    fur, pale = s.material(0.12, fur_colour, 0.2), s.material(0.1, fur_colour * 0.5 + 0.4, 0.4)
    fur.grain, fur.bump = s.uniform(0.3, 1.0), 0.8
    dark = s.material(0.05, np.array([0.02, 0.02, 0.02]), 1.0)
    eye = s.material(0.02, s.colour(), 0.9)
    eye.gloss = 0.9
    s.add(SPHERE, (0, 0, 0), (0.11, 0.1, 0.1), fur)
    long = s.uniform(0.03, 0.12)
    s.add(SPHERE, (0, -0.035, -0.07 - long / 3), (0.05, 0.04, long), pale)
    s.add(SPHERE, (0, -0.02, -0.085 - long), (0.016, 0.012, 0.012), dark)
    ear, spread = s.uniform(0.05, 0.13), s.uniform(0.04, 0.09)
    for side in (-1, 1):
        kind = FRUSTUM if s.chance(0.75) else SPHERE
        s.add(
            kind,
            (side * (spread + 0.02), 0.07 + ear / 2, 0.01),
            (0.04, ear, 0.018),
            fur,
            (0, 0, -side * s.uniform(0.1, 0.5)),
            0.1,
        )
        s.add(SPHERE, (side * 0.045, 0.02, -0.085), (0.02, 0.018, 0.015), eye)
        s.add(SPHERE, (side * 0.045, 0.02, -0.096), (0.008, 0.013, 0.006), dark)
        capsule(s, (side * 0.08, -0.5, 0.05), (side * 0.07, -0.15, 0.12), 0.04, fur)
    s.add(SPHERE, (0, -0.12, 0.1), (0.1, 0.13, 0.12), fur)
    side = s.uniform(-0.2, 0.2)
    s.add(SPHERE, (side, -0.22, 0.28), (0.17, 0.18, 0.28), fur)
    s.add(SPHERE, (0, -0.2, 0.08), (0.09, 0.13, 0.07), pale)


def quadruped(s: Layout) -> None:
    """Four-legged animal about 1 m long, feet at 0."""
    fur = s.material(0.4, plain=0.3)
    s.add(SPHERE, (0, 0.55, 0), (0.18, 0.2, 0.45), fur)
    for x in (-0.11, 0.11):
        for z in (-0.3, 0.3):
            capsule(s, (x, 0, z + s.uniform(-0.1, 0.1)), (x, 0.5, z), 0.05, fur, 1.4)
    lift = s.uniform(0.0, 0.45)
    capsule(s, (0, 0.6, -0.35), (0, 0.7 + lift, -0.55), 0.1, fur, 0.8)
    s.add(SPHERE, (0, 0.74 + lift, -0.62), (0.09, 0.1, 0.16), fur)
    for x in (-0.06, 0.06):
        s.add(FRUSTUM, (x, 0.86 + lift, -0.55), (0.03, 0.07, 0.02), fur, shape=0.2)
    capsule(s, (0, 0.6, 0.42), (s.uniform(-0.2, 0.2), s.uniform(0.3, 0.9), 0.7), 0.03, fur)


def tree(s: Layout) -> None:
    """Broad-leaved tree or conifer about 5 m tall."""
    bark = s.material(0.3, np.array([0.15, 0.1, 0.06]) * s.spread(0.5, 3))
    green = np.array([0.12, 0.2, 0.04]) * np.exp(s.rng.normal(0, 0.45, 3)) if s.chance(0.8) else s.colour()
    leaf = s.material(0.8, green, 0.1)
    leaf.grain, leaf.bump = 1.0, 1.5
    if s.chance(0.35):
        capsule(s, (0, 0, 0), (0, 4.6, 0), 0.12, bark, 0.3)
        for level in range(4):
            s.add(
                FRUSTUM,
                (0, 1.4 + level * 1.05, 0),
                (1.5 - 0.32 * level, 0.85, 1.5 - 0.32 * level),
                leaf,
                shape=0.12,
            )
        return
    trunk = s.uniform(1.2, 2.8)
    capsule(s, (0, 0, 0), (s.uniform(-0.2, 0.2), trunk + 1, 0), s.uniform(0.08, 0.25), bark, 0.7)
    bare = s.chance(0.15)
    for _ in range(s.count(5, 9)):
        centre = (s.uniform(-1.2, 1.2), trunk + s.uniform(0.5, 2.6), s.uniform(-1.2, 1.2))
        if bare or s.chance(0.2):
            capsule(s, (0, trunk * s.uniform(0.7, 1.2), 0), centre, 0.04, bark, 0.4)
        if not bare:
            size = s.uniform(0.5, 1.1)
            s.add(
                LEAVES,
                centre,
                (size, size * s.uniform(0.6, 1), size),
                leaf,
                (s.uniform(0, 3), 0, 0),
                s.uniform(3, 9),
            )


def bush(s: Layout) -> None:
    """Low foliage, about 1 m."""
    leaf = s.material(0.4, np.array([0.12, 0.2, 0.05]) * np.exp(s.rng.normal(0, 0.5, 3)), 0.1)
    leaf.grain, leaf.bump = 1.0, 1.5
    for _ in range(s.count(2, 5)):
        size = s.uniform(0.25, 0.6)
        s.add(
            LEAVES,
            (s.uniform(-0.6, 0.6), s.uniform(0.1, 0.6), s.uniform(-0.6, 0.6)),
            (size, size * 0.8, size),
            leaf,
            shape=s.uniform(3, 8),
        )


def building(s: Layout) -> None:
    """Block 6-40 m tall with a pattern of windows, perhaps a roof, perhaps balconies."""
    wide, deep, tall = s.spread(3, 15), s.spread(3, 15), s.spread(2.5, 25)
    wall = s.material(3.0, plain=0.25)
    wall.tile = s.spread(1.5, 12)
    s.add(BOX, (0, tall / 2, 0), (wide / 2, tall / 2, deep / 2), wall)
    if s.chance(0.45):
        roof = s.material(2.0)
        # A square frustum is a frustum no more; a box turned on its edge makes the gable.
        s.add(BOX, (0, tall, 0), (wide / 2.83, wide / 2.83, deep / 2 + 0.3), roof, (0, 0, math.pi / 4))
    elif s.chance(0.5):
        s.add(BOX, (s.uniform(-0.3, 0.3) * wide, tall + 0.8, 0), (wide * 0.2, 1.0, deep * 0.2), s.material(1.0))
    if s.chance(0.4):
        ledge = s.material(1.0)
        for k in range(1, s.count(2, 5)):
            s.add(BOX, (0, tall * k / 5, 0), (wide / 2 + 0.25, 0.1, deep / 2 + 0.25), ledge)


def car(s: Layout) -> None:
    """Car about 4 m long along z."""
    paint, glass, tyre = (
        s.material(1.0, plain=0.9),
        s.material(1.0, np.array([0.03, 0.04, 0.05]), 1),
        s.material(0.3),
    )
    paint.gloss = glass.gloss = 0.8
    tyre.light = tyre.dark = np.full(3, 0.02)
    s.add(BOX, (0, 0.6, 0), (0.85, 0.3, 2.1), paint)
    s.add(BOX, (0, 1.1, -0.2), (0.75, 0.28, 1.1), glass)
    s.add(BOX, (0, 1.4, -0.2), (0.7, 0.04, 0.9), paint)
    for x in (-0.8, 0.8):
        for z in (-1.3, 1.3):
            s.add(FRUSTUM, (x, 0.33, z), (0.33, 0.12, 0.33), tyre, (0, 0, math.pi / 2))


def table(s: Layout) -> None:
    """Table 0.75 m high, round or square."""
    wood, half = s.material(0.8), s.uniform(0.35, 0.9)
    depth = s.uniform(0.35, 0.7)
    if s.chance(0.3):
        s.add(FRUSTUM, (0, 0.73, 0), (half, 0.02, half), wood)
        capsule(s, (0, 0, 0), (0, 0.72, 0), 0.05, wood)
        s.add(FRUSTUM, (0, 0.02, 0), (half * 0.6, 0.02, half * 0.6), wood)
    else:
        s.add(BOX, (0, 0.73, 0), (half, 0.025, depth), wood)
        for x in (-half * 0.9, half * 0.9):
            for z in (-depth * 0.88, depth * 0.88):
                s.add(BOX, (x, 0.36, z), (0.03, 0.36, 0.03), wood)
    base = (s.origin, s.frame)
    for _ in range(s.count(0, 3)):
        s.place((s.uniform(-0.6, 0.6) * half, 0.75, s.uniform(-0.6, 0.6) * depth), base=base)
        small_thing(s)


def chair(s: Layout) -> None:
    """Chair with its back towards +z."""
    wood, seat = s.material(0.4), s.material(0.4)
    s.add(BOX, (0, 0.45, 0), (0.22, 0.03, 0.22), seat)
    for x in (-0.19, 0.19):
        s.add(BOX, (x, 0.22, -0.19), (0.02, 0.22, 0.02), wood)
        s.add(BOX, (x, 0.48, 0.2), (0.02, 0.48, 0.02), wood)
    if s.chance(0.5):
        s.add(BOX, (0, 0.78, 0.2), (0.2, 0.16, 0.02), seat)
    else:
        for y in (0.6, 0.75, 0.9):
            s.add(BOX, (0, y, 0.2), (0.2, 0.025, 0.015), wood)


def sofa(s: Layout) -> None:
    """Sofa or bed."""
    cloth, cushion, wide = s.material(0.8), s.material(0.4), s.uniform(0.6, 1.2)
    s.add(BOX, (0, 0.22, 0), (wide, 0.22, 0.42), cloth)
    s.add(BOX, (0, 0.55, 0.35), (wide, 0.35, 0.12), cloth)
    for x in (-wide, wide):
        s.add(BOX, (x, 0.35, 0), (0.1, 0.3, 0.42), cloth)
    for _ in range(s.count(0, 3)):
        s.add(SPHERE, (s.uniform(-wide, wide) * 0.8, 0.58, 0.15), (0.2, 0.18, 0.08), cushion, (0.2, -0.3, 0))


def shelf(s: Layout) -> None:
    """Shelf or cupboard, filled with books and boxes."""
    wood, wide, tall = s.material(0.8), s.uniform(0.3, 0.9), s.uniform(0.8, 2.1)
    if s.chance(0.4):
        s.add(BOX, (0, tall / 2, 0), (wide, tall / 2, 0.25), wood)
        return
    s.add(BOX, (0, tall / 2, 0.14), (wide, tall / 2, 0.01), wood)
    rows = max(2, int(tall / 0.4))
    for x in (-wide, wide):
        s.add(BOX, (x, tall / 2, 0), (0.02, tall / 2, 0.15), wood)
    for k in range(rows + 1):
        s.add(BOX, (0, tall * k / rows, 0), (wide, 0.015, 0.15), wood)
        if k < rows and s.chance(0.85):
            span = s.uniform(0.3, 0.95) * wide
            books = s.material(0.3, plain=0.05)
            books.tile = 0.25
            s.add(
                BOX,
                (s.uniform(-1, 1) * (wide - span), tall * (k + 0.4) / rows, 0.03),
                (span, tall * 0.38 / rows, 0.08),
                books,
            )


def lamp(s: Layout) -> None:
    """Floor lamp or pole with a shade or a sign."""
    metal, shade = s.material(0.2), s.material(0.3, plain=0.8)
    height = s.uniform(0.8, 2.2)
    shade.glow = s.uniform(0, 3) if s.chance(0.5) else 0.0
    capsule(s, (0, 0, 0), (0, height, 0), 0.025, metal)
    s.add(FRUSTUM, (0, 0.02, 0), (0.16, 0.02, 0.16), metal)
    if s.chance(0.6):
        s.add(FRUSTUM, (0, height, 0), (0.2, 0.15, 0.2), shade, shape=s.uniform(0.4, 1))
    else:
        s.add(BOX, (0, height, 0), (s.uniform(0.1, 0.4), s.uniform(0.1, 0.4), 0.02), shade)


def cup(s: Layout) -> None:
    """Cup with a handle and perhaps a saucer and a spoon, 0.1 m."""
    china = s.material(0.1, np.full(3, 0.8) if s.chance(0.4) else None, 0.7)
    china.gloss = 0.7
    drink = s.material(0.1, np.array([0.12, 0.05, 0.02]) * s.spread(0.4, 6), 0.6)
    tall, top = s.uniform(0.03, 0.06), s.uniform(1.0, 1.6)
    if s.chance(0.6):
        s.add(FRUSTUM, (0, 0.006, 0), (0.05, 0.006, 0.05), china, shape=1.7)
    s.add(FRUSTUM, (0, 0.01 + tall, 0), (0.04, tall, 0.04), china, shape=-top)
    level = s.uniform(0.3, 0.85)
    radius = 0.04 * (1 + (top - 1) * (1 + level) / 2) * 0.97
    s.add(DISC, (0, 0.01 + tall * (1 + level), 0), (radius, 1, radius), drink)
    turn = s.uniform(0, 6.3)
    reach = 0.04 * (1 + top) / 2
    s.add(
        TORUS,
        (reach * math.cos(turn), 0.01 + tall, -reach * math.sin(turn)),
        (0.026, 0.026, 0.026),
        china,
        (turn, -math.pi / 2, 0),
        0.25,
    )
    if s.chance(0.5):
        spoon(s)


def spoon(s: Layout) -> None:
    """Spoon lying at y = 0.01, 0.15 m."""
    metal = s.material(0.1, np.full(3, 0.6), 1.0)
    metal.gloss = 0.9
    turn, x, z = s.uniform(0, 6.3), s.uniform(-0.1, 0.1), s.uniform(-0.1, 0.1)
    end = (x + 0.13 * math.cos(turn), s.uniform(0.01, 0.05), z + 0.13 * math.sin(turn))
    capsule(s, (x, 0.014, z), end, 0.005, metal)
    s.add(SPHERE, (x, 0.014, z), (0.025, 0.007, 0.017), metal, (-turn, 0, 0))


def plate(s: Layout) -> None:
    """Plate or bowl with food on it."""
    china, food, radius = s.material(0.2, plain=0.7), s.material(0.08), s.uniform(0.08, 0.15)
    china.gloss = 0.5
    if s.chance(0.5):
        s.add(FRUSTUM, (0, 0.01, 0), (radius * 0.7, 0.01, radius * 0.7), china, shape=1.4)
    else:
        s.add(FRUSTUM, (0, 0.035, 0), (radius * 0.5, 0.035, radius * 0.5), china, shape=-1.9)
    for _ in range(s.count(0, 7)):
        size = s.uniform(0.012, 0.045)
        s.add(
            s.count(0, 1),
            (s.uniform(-0.6, 0.6) * radius, 0.02 + size / 2, s.uniform(-0.6, 0.6) * radius),
            (size, size * s.uniform(0.3, 1), size),
            food,
            (s.uniform(0, 6), 0.2, 0),
        )


def bottle(s: Layout) -> None:
    """Bottle, jar or vase with flowers, 0.25 m."""
    glass, radius, tall = s.material(0.1), s.uniform(0.025, 0.06), s.uniform(0.04, 0.1)
    glass.gloss = 0.8 if s.chance(0.6) else 0.0
    s.add(FRUSTUM, (0, tall, 0), (radius, tall, radius), glass, shape=s.uniform(0.8, 1.1))
    s.add(FRUSTUM, (0, tall * 2 + 0.02, 0), (radius, 0.025, radius), glass, shape=0.4)
    s.add(FRUSTUM, (0, tall * 2 + 0.06, 0), (radius * 0.4, 0.04, radius * 0.4), glass)
    if s.chance(0.35):
        stem, petal = s.material(0.05, np.array([0.1, 0.2, 0.05])), s.material(0.05)
        for _ in range(s.count(2, 6)):
            tip = (s.uniform(-0.1, 0.1), tall * 2 + s.uniform(0.12, 0.3), s.uniform(-0.1, 0.1))
            capsule(s, (0, tall * 2, 0), tip, 0.003, stem)
            s.add(SPHERE, tip, (0.03, 0.02, 0.03), petal, (0, s.uniform(-1, 1), 0))


def book(s: Layout) -> None:
    """One to four flat boxes in a stack: books, telephones, parcels."""
    y = 0.0
    for _ in range(s.count(1, 4)):
        thick = s.spread(0.004, 0.04)
        s.add(
            BOX,
            (0, y + thick, 0),
            (s.uniform(0.06, 0.12), thick, s.uniform(0.08, 0.16)),
            s.material(0.2),
            (s.uniform(-0.4, 0.4), 0, 0),
        )
        y += 2 * thick


def fruit(s: Layout) -> None:
    """A few balls."""
    skin = s.material(0.05)
    for _ in range(s.count(1, 5)):
        size = s.uniform(0.02, 0.05)
        s.add(
            SPHERE,
            (s.uniform(-0.08, 0.08), size, s.uniform(-0.08, 0.08)),
            (size, size * s.uniform(0.8, 1), size),
            skin,
        )


def ring(s: Layout) -> None:
    """A torus lying or standing."""
    tube = s.uniform(0.15, 0.45)
    s.add(TORUS, (0, 0.05, 0), (0.06, 0.06, 0.06), s.material(0.06), (0, s.uniform(-1.6, 1.6), 0), tube)


def abstract(s: Layout) -> None:
    """One to six turned primitives around the origin, about 1 m across all together."""
    shared = s.material(0.5)
    for _ in range(s.count(1, 6)):
        kind = int(s.rng.choice([SPHERE, BOX, FRUSTUM, TORUS, CARD, DISC], p=[0.25, 0.3, 0.25, 0.08, 0.07, 0.05]))
        half = np.exp(s.rng.normal(math.log(0.25), 0.5, 3))
        if kind == TORUS:
            half[:] = half[0]
        if s.chance(0.2):
            half[s.count(0, 2)] *= 0.1
        centre = s.rng.normal(0, 0.25, 3)
        shape = s.uniform(0.1, 0.4) if kind == TORUS else s.uniform(0.0, 1.3) * (-1 if s.chance(0.2) else 1)
        s.add(
            kind,
            tuple(centre),
            tuple(half),
            shared if s.chance(0.5) else s.material(0.5),
            tuple(s.rng.uniform(-3, 3, 3)),
            shape,
        )


def tower(s: Layout) -> None:
    """Rocket, lighthouse or chimney, 20 m, perhaps with boosters or a lattice beside it."""
    skin, nose = s.material(4.0, np.full(3, 0.8) if s.chance(0.5) else None), s.material(2.0)
    radius, y = s.spread(0.5, 1.8), 0.0
    taper = s.uniform(0.75, 1.0)
    for _ in range(s.count(1, 3)):
        tall = s.uniform(3, 8)
        s.add(
            FRUSTUM,
            (0, y + tall / 2, 0),
            (radius, tall / 2, radius),
            s.material(4.0) if s.chance(0.5) else skin,
            shape=taper,
        )
        y, radius = y + tall, radius * taper * s.uniform(0.85, 1.0)
    s.add(FRUSTUM, (0, y + radius * 1.2, 0), (radius, radius * 1.2, radius), nose, shape=s.uniform(0.0, 0.4))
    if s.chance(0.4):
        for side in (-1, 1):
            s.add(FRUSTUM, (side * radius * 2, y * 0.3, 0), (radius * 0.6, y * 0.3, radius * 0.6), skin)
            s.add(
                FRUSTUM,
                (side * radius * 2, y * 0.6 + radius, 0),
                (radius * 0.6, radius, radius * 0.6),
                nose,
                shape=0.1,
            )
    if s.chance(0.45):
        x = s.uniform(2.5, 6) * (-1 if s.chance(0.5) else 1)
        lattice(s, x, s.uniform(0.6, 1.2) * y)


def lattice(s: Layout, x: float, tall: float) -> None:
    """Open steel tower of rods at `x`, `tall` metres high."""
    steel, half = s.material(1.0), s.uniform(0.5, 1.2)
    for dx in (-half, half):
        for dz in (-half, half):
            capsule(s, (x + dx, 0, dz), (x + dx, tall, dz), 0.1, steel)
    floors = s.count(3, 7)
    for k in range(1, floors + 1):
        y = tall * k / floors
        s.add(BOX, (x, y, 0), (half, 0.06, half), steel)
        capsule(s, (x - half, y - tall / floors, -half), (x + half, y, -half), 0.06, steel)


def cycle(s: Layout) -> None:
    """Bicycle or motorcycle, 1.8 m long along x, wheels on the ground."""
    tyre, steel, tank = s.material(0.2, np.full(3, 0.03), 1.0), s.material(0.2), s.material(0.4, plain=0.8)
    tank.gloss = steel.gloss = 0.7
    tube, bulk = s.uniform(0.06, 0.2), s.uniform(0.02, 0.16)
    for x in (-0.6, 0.6):
        s.add(TORUS, (x, 0.34, 0), (0.3, 0.3, 0.3), tyre, (0, math.pi / 2, 0), tube)
        for turn in range(4):
            dx, dy = 0.28 * math.cos(turn * 0.785), 0.28 * math.sin(turn * 0.785)
            capsule(s, (x - dx, 0.34 - dy, 0), (x + dx, 0.34 + dy, 0), 0.012, steel)
    joints = {
        "rear": (-0.6, 0.34, 0.0),
        "seat": (-0.25, 0.85, 0.0),
        "crank": (-0.05, 0.35, 0.0),
        "fork": (0.42, 0.9, 0.0),
        "front": (0.6, 0.34, 0.0),
    }
    for a, b in (
        ("rear", "seat"),
        ("rear", "crank"),
        ("seat", "crank"),
        ("seat", "fork"),
        ("crank", "fork"),
        ("fork", "front"),
    ):
        capsule(s, joints[a], joints[b], 0.025, steel)
    s.add(SPHERE, (0.1, 0.8, 0), (0.3, bulk, bulk), tank)
    s.add(BOX, (0.0, 0.45, 0), (0.2, bulk, bulk), steel)
    s.add(SPHERE, (-0.35, 0.87, 0), (0.25, 0.05, 0.1), tyre)
    capsule(s, (0.4, 1.05, -0.3), (0.4, 1.05, 0.3), 0.02, steel)
    s.add(SPHERE, (0.5, 0.95, 0), (0.08, 0.09, 0.09), steel)


def lights(s: Layout, far: float) -> None:
    """Small bright lamps at up to `far` metres."""
    for _ in range(s.count(1, 7)):
        z = far * s.uniform(0.3, 1.0)
        glare = s.material(1.0, np.array([1.0, 0.85, 0.6]), 1.0)
        glare.glow = s.spread(3, 30)
        size = z * s.uniform(0.003, 0.012)
        s.place((z * s.uniform(-0.5, 0.5), z * s.uniform(0.0, 0.15), z))
        s.add(SPHERE, (0, 0, 0), (size, size, size), glare)


def fence(s: Layout) -> None:
    """Posts and rails along x, 4 m."""
    wood, tall, step = s.material(0.3), s.uniform(0.6, 1.8), s.uniform(0.25, 1.0)
    posts = int(4 / step)
    for k in range(posts + 1):
        s.add(BOX, (-2 + k * step, tall / 2, 0), (0.04, tall / 2, 0.04), wood)
    for y in (0.35, 0.85):
        s.add(BOX, (0, tall * y, 0), (2, 0.04, 0.02), wood)


Thing = Callable[[Layout], None]
SMALL: tuple[Thing, ...] = (cup, cup, plate, bottle, book, fruit, ring, spoon)
FURNITURE: tuple[Thing, ...] = (table, chair, sofa, shelf, lamp, person, abstract, chair, cycle)
OUTDOOR: tuple[Thing, ...] = (
    person,
    person,
    tree,
    tree,
    bush,
    building,
    car,
    lamp,
    quadruped,
    fence,
    tower,
    cycle,
    abstract,
)


def small_thing(s: Layout) -> None:
    """Any table-top thing."""
    SMALL[s.count(0, len(SMALL) - 1)](s)


def pick(s: Layout, things: tuple[Thing, ...]) -> Thing:
    """One of `things`."""
    return things[s.count(0, len(things) - 1)]


def ground(s: Layout, size: float, y: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> None:
    """Endless plane, perhaps with a path on it."""
    s.place((0, y, 0), yaw=s.uniform(-0.5, 0.5), pitch=pitch, roll=roll)
    s.add(GROUND, (0, 0, 0), (1, 1, 1), s.material(size, plain=0.25))


def hills(s: Layout) -> None:
    """Far, wide ridges."""
    for _ in range(s.count(1, 5)):
        far = s.spread(50, 500)
        s.place((s.uniform(-0.8, 0.8) * far, -far * 0.02, far))
        s.add(
            SPHERE,
            (0, 0, 0),
            (far * s.uniform(0.3, 1), far * s.uniform(0.04, 0.25), far * 0.3),
            s.material(far * 0.1, plain=0.3),
        )


def room(
    s: Layout, wide: float, tall: float, near: float, far: float, things_on_walls: int, floor: float = 0.0
) -> None:
    """Floor, ceiling and walls of the corridor x in +-wide/2, y - floor in 0..tall, z in near..far."""
    s.indoor = True
    middle, length = (near + far) / 2, (far - near) / 2
    wall = s.material(2.0, plain=0.6)
    planes = (
        ((0, 0, middle), (wide / 2, 1, length), (0, 0, 0), s.material(1.0, plain=0.25)),
        ((0, tall, middle), (wide / 2, 1, length), (0, 0, 0), s.material(2.0, plain=0.8)),
        ((0, tall / 2, far), (wide / 2, 1, tall / 2), (0, math.pi / 2, 0), s.material(2.0, plain=0.5)),
        ((-wide / 2, tall / 2, middle), (tall / 2, 1, length), (0, 0, math.pi / 2), wall),
        ((wide / 2, tall / 2, middle), (tall / 2, 1, length), (0, 0, math.pi / 2), wall),
        ((0, tall / 2, near), (wide / 2, 1, tall / 2), (0, math.pi / 2, 0), wall),
    )
    for centre, half, turn, material in planes:
        s.place((0, floor, 0), yaw=0.0)
        s.add(CARD, centre, half, material, turn)
    for _ in range(things_on_walls):
        frame, pane = s.material(0.2), s.material(0.6, plain=0.2)
        if s.chance(0.3):
            pane.glow = s.spread(0.5, 6)
        w, h = s.uniform(0.15, 0.7), s.uniform(0.15, 0.7)
        y, yaw = s.uniform(0.35, 0.85) * tall, float(s.rng.choice([0.0, 0.0, math.pi / 2, -math.pi / 2]))
        if yaw == 0.0:
            s.place((s.uniform(-0.4, 0.4) * wide, floor + y, far - 0.03), yaw=0.0)
        else:
            s.place((math.copysign(wide / 2 - 0.03, yaw), floor + y, s.uniform(max(near, 0) + 0.5, far)), yaw=yaw)
        if s.chance(0.25):
            h = y - 0.02
        s.add(BOX, (0, 0, 0), (w, h, 0.03), frame)
        s.add(BOX, (0, 0, -0.02), (w * 0.88, h * 0.88, 0.02), pane)


def vista(s: Layout) -> None:
    """Out of doors with things strewn from near to far."""
    height = s.spread(0.3, 3.0) if s.chance(0.8) else s.spread(3, 40)
    reach = max(1.0, height / 2)
    fov = s.uniform(0.6, 1.45)
    ground(s, s.spread(0.5, 8) * reach)
    if s.chance(0.4):
        s.place((s.uniform(-2, 2) * reach, 0.01, 20), yaw=s.uniform(-0.6, 0.6))
        s.add(CARD, (0, 0, 0), (s.uniform(0.5, 4) * reach, 1, 200), s.material(2 * reach))
    if s.chance(0.5):
        hills(s)
    if s.chance(0.3):
        side = s.uniform(3, 12)
        for k in range(s.count(3, 8)):
            s.place(
                ((side + 4) * (1 if k % 2 else -1), 0, 6 + 6 * k * s.uniform(0.8, 1.2)),
                yaw=s.uniform(-0.1, 0.1),
            )
            building(s)
    for _ in range(s.count(3, 13)):
        thing = pick(s, OUTDOOR)
        z = reach * (s.spread(8, 90) if thing in (building, tower) else s.spread(2.2, 45))
        s.place((z * s.uniform(-0.6, 0.6), 0, z), scale=s.uniform(0.8, 1.25) * (0.4 if thing is tower else 1))
        thing(s)
    if s.chance(0.4):
        z = s.uniform(1.3, 4.0) * max(1.0, height / 2)
        s.place((z * s.uniform(-0.4, 0.4), 0, z), scale=s.uniform(0.8, 1.2))
        pick(s, (person, person, quadruped, cycle, bush, abstract))(s)
    if s.chance(0.15):
        lights(s, 40)
    s.fog = s.spread(0.001, 0.05) if s.chance(0.35) else 0.0
    s.aim(
        (0, height, 0),
        (s.uniform(-2, 2), height + s.uniform(-4.5, 2.5) + 0.15 * (3 - height), 10),
        tilt(s),
        fov,
    )


def tilt(s: Layout) -> float:
    """Roll of a hand-held camera, radians."""
    return float(s.rng.normal(0, 0.05)) if s.chance(0.9) else s.uniform(-0.5, 0.5)


def interior(s: Layout) -> None:
    """A furnished room or corridor."""
    wide, tall, far = s.uniform(2.2, 8), s.uniform(2.2, 3.6), s.spread(3, 12)
    room(s, wide, tall, -1.0, far, s.count(0, 6))
    height = s.uniform(0.5, 2.0)
    for _ in range(s.count(1, 9)):
        z = s.uniform(1.3, far - 0.3)
        thing = pick(s, FURNITURE)
        x = s.uniform(-0.45, 0.45) * wide
        if thing in (shelf, sofa) and s.chance(0.7):
            z, x = far - 0.45, x * 0.8
            s.place((x, 0, z), yaw=0.0)
        else:
            s.place((x, 0, z), scale=0.8 if thing is abstract else 1.0)
        thing(s)
    if s.chance(0.3):
        s.place((s.uniform(-0.3, 0.3) * wide, tall, s.uniform(1.5, far)), roll=math.pi)
        lamp(s)
    x = s.uniform(-0.35, 0.35) * wide
    s.aim((x, height, 0), (x + s.uniform(-2, 2), height + s.uniform(-1.6, 0.7), 3), tilt(s), s.uniform(0.8, 1.6))


def surroundings(s: Layout, floor: float, near: float, scale: float) -> None:
    """What stands behind and around a subject `scale` metres tall near the origin: a room, open land or a wall.

    The floor is at y = `floor` and runs from z = -`near`, behind the camera, to whatever closes the view.
    """
    style = s.rng.choice(["room", "land", "wall"], p=[0.45, 0.37, 0.18])
    behind = scale * 0.7 + s.spread(0.3, 4.0)
    if style == "room":
        wide, tall = 2 * s.spread(1.2, 4) + near * 0.4, max(s.uniform(2.3, 3.4), scale * 1.4)
        room(s, wide, tall, -near - 0.6, behind + s.spread(0.3, 4), s.count(0, 6), floor)
        things, reach = FURNITURE, behind + 1.0
    elif style == "land":
        ground(s, s.spread(0.5, 6), floor)
        if s.chance(0.5):
            hills(s)
        things, reach = OUTDOOR, s.spread(3, 30)
        s.fog = s.spread(0.002, 0.03) if s.chance(0.2) else 0.0
    else:
        s.indoor = s.chance(0.5)
        ground(s, s.spread(0.3, 2.0), floor)
        s.place((0, floor, behind), yaw=float(s.rng.normal(0, 0.25)))
        s.add(CARD, (0, 0, 0), (100, 1, 100), s.material(1.5, plain=0.4), (0, math.pi / 2, 0))
        things, reach = FURNITURE, behind
    for _ in range(s.count(0, 7)):
        thing = pick(s, things)
        z = scale * 0.6 + reach * s.uniform(0.15, 0.95)
        if thing in (building, tower):
            z = max(z, 15.0)
        s.place((s.uniform(-0.7, 0.7) * (z + near), floor, z), scale=s.uniform(0.8, 1.2))
        thing(s)


def subject_in_front(s: Layout, thing: Thing, size: float, centre: Vector, stands: float, tight: float = 1.2) -> None:
    """`thing`, about `size` metres tall, fills up to `tight` of the frame.

    `centre`: the point of the thing to look at; `stands`: how far its origin is above the floor.
    """
    fov = s.uniform(0.45, 1.1)
    fill = s.uniform(0.4, tight)
    away = size / (2 * math.tan(fov / 2) * fill) + size * 0.35
    surroundings(s, -stands, away, size)
    if size < 0.4 and stands > 0.5:
        # Small things stand on a table, whose top is at y = 0.
        half = s.uniform(0.3, 1.0)
        s.place((0, -0.02, half * s.uniform(0.0, 0.6)), yaw=s.uniform(-0.6, 0.6))
        s.add(FRUSTUM if s.chance(0.3) else BOX, (0, 0, 0), (half, 0.02, half), s.material(0.4))
        for _ in range(s.count(0, 4)):
            s.place((s.uniform(-0.4, 0.4), 0, s.uniform(0.05, 0.5)))
            small_thing(s)
    s.place((0, 0, 0), yaw=float(s.rng.normal(0, 0.5)), roll=float(s.rng.normal(0, 0.04)))
    thing(s)
    if s.chance(0.25):
        side = size * s.uniform(0.6, 1.5) * (1 if s.chance(0.5) else -1)
        s.place((side, 0, size * s.uniform(0.2, 2.0)))
        thing(s)
    angle, lift = s.uniform(-0.4, 0.4), float(s.rng.normal(0.1, 0.18))
    target = np.asarray(centre) + np.array([s.uniform(-0.25, 0.25), s.uniform(-0.15, 0.15), 0]) * size
    eye = np.asarray(centre) + away * np.array([math.sin(angle), math.sin(lift), -math.cos(angle) * math.cos(lift)])
    eye[1] = max(eye[1], 0.12 * size - (0 if size < 0.4 else stands) * 0.9)
    s.aim(tuple(eye), tuple(target), tilt(s), fov)
    s.focus = away if s.chance(0.5) else None


def portrait(s: Layout) -> None:
    """Head and shoulders of somebody who sits or stands."""
    subject_in_front(s, bust, 0.5, (0, s.uniform(-0.2, 0.15), 0), s.uniform(0.95, 1.5), tight=1.5)


def animal(s: Layout) -> None:
    """A furry head close up."""
    subject_in_front(s, muzzle, 0.3, (0, s.uniform(-0.1, 0.02), 0), s.uniform(0.42, 0.5), tight=1.6)


def thing_closeup(s: Layout) -> None:
    """Some other subject: a figure, a heap of shapes, a bush, an animal, a cup on a table."""
    thing, size, centre, stands = [
        (abstract, 1.0, (0.0, 0.0, 0.0), 0.5),
        (person, 1.6, (0.0, 0.9, 0.0), 0.0),
        (quadruped, 1.0, (0.0, 0.5, 0.0), 0.0),
        (cup, 0.12, (0.0, 0.05, 0.0), 0.75),
        (bottle, 0.25, (0.0, 0.12, 0.0), 0.75),
        (bush, 1.0, (0.0, 0.4, 0.0), 0.0),
        (cycle, 1.2, (0.0, 0.5, 0.0), 0.0),
        (chair, 1.0, (0.0, 0.45, 0.0), 0.0),
    ][s.count(0, 7)]
    subject_in_front(s, thing, size, centre, stands)


def tabletop(s: Layout) -> None:
    """Small things on a table seen from above."""
    # Steeper than that and nearly the whole picture is at one distance.
    down = s.uniform(0.25, 1.25)
    away = s.spread(0.18, 1.0)
    if s.chance(0.55):
        ground(s, 0.4)
    else:
        s.place((0, -0.02, 0), yaw=s.uniform(-0.6, 0.6))
        half = s.uniform(0.25, 0.8)
        s.add(FRUSTUM if s.chance(0.3) else BOX, (0, 0, 0), (half, 0.02, half), s.material(0.4))
        ground(s, 0.6, -s.uniform(0.4, 0.8))
        if s.chance(0.5):
            s.place((0, 0, s.uniform(1.0, 3.0)), yaw=s.uniform(-0.4, 0.4))
            s.add(CARD, (0, 0, 0), (20, 1, 20), s.material(1.0), (0, math.pi / 2, 0))
    s.place((0, 0, 0))
    if s.chance(0.75):
        # Half the time the thing fills the frame, like the cup one is about to drink from.
        s.frame = s.frame * (s.uniform(0.8, 1.6) if s.chance(0.5) else away * s.uniform(2.0, 4.0))
        pick(s, (cup, cup, cup, plate, bottle, book, fruit, ring))(s)
    for _ in range(s.count(1, 7)):
        s.place((s.uniform(-0.8, 0.8) * away, 0, s.uniform(-0.7, 0.9) * away), scale=s.uniform(0.7, 1.5))
        small_thing(s)
    yaw = s.uniform(-0.5, 0.5)
    eye = (
        away * math.cos(down) * math.sin(yaw),
        away * math.sin(down) + 0.05,
        -away * math.cos(down) * math.cos(yaw),
    )
    s.aim(eye, (s.uniform(-0.1, 0.1) * away, 0.03, s.uniform(-0.1, 0.1) * away), tilt(s), s.uniform(0.5, 1.2))
    s.indoor = True
    s.focus = away if s.chance(0.4) else None


def skyward(s: Layout) -> None:
    """A tower, trees or poles against the sky, seen from below, the ground low or out of the picture."""
    ground(s, 4.0)
    far = s.spread(15, 60)
    s.place((s.uniform(-0.25, 0.25) * far, 0, far), scale=s.uniform(0.6, 1.2))
    pick(s, (tower, tower, tower, building, tree))(s)
    for _ in range(s.count(0, 4) if s.chance(0.4) else 0):
        z = far * s.uniform(0.5, 1.3)
        s.place((z * s.uniform(-0.5, 0.5), 0, z))
        lattice(s, 0.0, z * s.uniform(0.2, 0.5))
    if s.chance(0.3):
        lights(s, far)
    for _ in range(s.count(0, 6)):
        z = s.spread(10, 120)
        s.place((z * s.uniform(-0.6, 0.6), 0, z))
        pick(s, (tree, bush, building, lamp, tower, fence, person))(s)
    if s.chance(0.3):
        hills(s)
    if s.chance(0.25):
        # A horizontal sheet overhead: ceilings, bridges, undersides of leaves.
        s.place((0, s.uniform(4, 9), s.uniform(5, 15)), yaw=s.uniform(-0.3, 0.3))
        s.add(BOX, (0, 0, 0), (s.spread(2, 40), 0.2, s.spread(1, 10)), s.material(2.0))
    height = s.spread(0.5, 4)
    s.aim((0, height, 0), (0, height + far * s.uniform(0.05, 0.5), far), tilt(s), s.uniform(0.5, 1.2))


def wall_side(s: Layout) -> None:
    """A wall running away to one side of a floor or a path, with things standing along it."""
    side = 1 if s.chance(0.5) else -1
    turn = side * s.uniform(0.6, 1.4)
    height = s.uniform(0.8, 1.8)
    ground(s, 1.0)
    s.place((side * s.uniform(0.6, 2.0), 0, 2.0), yaw=turn)
    s.add(CARD, (0, 0, 0), (80, 1, 80), s.material(1.5), (0, math.pi / 2, 0))
    along = (s.origin, s.frame)
    for _ in range(s.count(1, 8)):
        s.objects += 1
        s.place((s.uniform(-3, 10), 0, -s.uniform(0.3, 1.5)), base=along, scale=s.uniform(0.6, 1.1))
        pick(s, (shelf, chair, bush, person, lamp, table))(s)
    s.aim(
        (0, height, -0.5),
        (s.uniform(-0.4, 0.4), height + s.uniform(-0.6, 0.3), 2),
        tilt(s),
        s.uniform(0.7, 1.4),
    )


SCENES: dict[str, tuple[Callable[[Layout], None], float]] = {
    "vista": (vista, 0.1),
    "interior": (interior, 0.08),
    "portrait": (portrait, 0.07),
    "animal": (animal, 0.04),
    "closeup": (thing_closeup, 0.07),
    "tabletop": (tabletop, 0.06),
    "skyward": (skyward, 0.03),
    "wall": (wall_side, 0.04),
}
"""Kinds of scenes by name: the function that lays one out, and its share beside those of ``rooms.EYE_LEVEL``."""
