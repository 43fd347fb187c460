"""The layout of a scene: a random street in metres, seen by a pinhole camera.

World axes: x to the right, y up, z forward, in metres, the camera at x = 0, z = 0. A curve bends the whole street
sideways by ``curve * z**2 / 2``. Sizes on screen are chosen for images of 128 pixels; people and poles are a little
stout so that they survive the 4x smaller latent grid of a small diffusion model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

RGB = tuple[int, int, int]
FAR = 80.0
"""Metres at which the street ends behind the skyline."""

CAR_PAINTS: tuple[RGB, ...] = (
    (200, 38, 42), (36, 84, 170), (238, 238, 240), (46, 48, 54), (242, 184, 32), (52, 128, 84),
    (160, 166, 176), (226, 110, 36), (110, 190, 214), (122, 40, 66),
)  # fmt: skip
WALL_PAINTS: tuple[RGB, ...] = (
    (196, 108, 82), (222, 196, 152), (176, 182, 190), (232, 220, 200), (150, 92, 80), (206, 160, 108),
    (140, 152, 172), (214, 142, 128), (186, 200, 190), (236, 206, 128), (120, 126, 140), (170, 128, 104),
)  # fmt: skip
LEAVES: tuple[RGB, ...] = ((58, 128, 52), (82, 146, 56), (44, 108, 62), (112, 150, 48), (66, 120, 74))
CLOTHES: tuple[RGB, ...] = (
    (214, 48, 56), (40, 96, 190), (244, 200, 50), (250, 250, 250), (120, 60, 150), (30, 150, 130), (240, 128, 48),
    (52, 56, 66), (236, 120, 160), (90, 140, 60),
)  # fmt: skip
TROUSERS: tuple[RGB, ...] = (
    (40, 48, 80),
    (54, 50, 48),
    (96, 84, 70),
    (30, 32, 38),
    (70, 90, 120),
    (130, 40, 50),
)
SKINS: tuple[RGB, ...] = ((242, 204, 174), (224, 172, 132), (176, 122, 84), (118, 76, 52))
HAIRS: tuple[RGB, ...] = ((40, 28, 22), (96, 60, 30), (196, 150, 80), (20, 20, 24), (150, 70, 40))


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; ``focal``, ``cx`` and ``horizon`` in pixels, ``height`` and ``1 / curve`` in metres."""

    focal: float
    cx: float
    horizon: float
    height: float
    curve: float

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Pixel (column, row) of the world point (x, y, z)."""
        return (
            self.cx + self.focal * (x / z + 0.5 * self.curve * z),
            self.horizon + self.focal * (self.height - y) / z,
        )

    def scaled(self, factor: float) -> Camera:
        """The same camera for a image ``factor`` times as large."""
        return Camera(self.focal * factor, self.cx * factor, self.horizon * factor, self.height, self.curve)


@dataclass(frozen=True)
class Actor:
    """A countable thing on the ground: ``kind`` is car, person, tree or pole; metres; ``box`` in pixels."""

    kind: str
    x: float
    z: float
    tall: float
    wide: float
    variant: int
    paint: RGB
    second: RGB
    skin: RGB
    hair: RGB
    facing: int
    phase: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Building:
    """A box beside the street: facade plane at ``x``, from ``z0`` to ``z1``, ``tall`` metres; side is -1 or 1."""

    side: int
    x: float
    z0: float
    z1: float
    tall: float
    paint: RGB
    trim: RGB
    glass: RGB
    floor: float
    bay: float
    roof: int
    shop: RGB | None


@dataclass(frozen=True)
class ScenePlan:
    """The layout of a scene before any pixel is drawn. ``unit`` is the canvas size relative to 128."""

    camera: Camera
    unit: float
    road: float
    walk: float
    verge: tuple[float, float]
    built: tuple[bool, bool]
    lines: int
    crosswalk: float
    cloud: float
    sun: tuple[float, float]
    light: float
    tones: dict[str, RGB]
    buildings: tuple[Building, ...]
    actors: tuple[Actor, ...] = ()


def pick(rng: np.random.Generator, options: tuple[RGB, ...], spread: float = 14.0) -> RGB:
    """A colour from ``options``, moved a little, so that no two scenes share an exact palette."""
    red, green, blue = options[int(rng.integers(len(options)))]
    a, b, c = rng.standard_normal(3).tolist()
    return (
        min(252, max(8, int(red + spread * a))),
        min(252, max(8, int(green + spread * b))),
        min(252, max(8, int(blue + spread * c))),
    )


def _camera(rng: np.random.Generator, height: int, width: int, unit: float) -> Camera:
    cx = width * rng.uniform(0.38, 0.62)
    curve = 0.0 if rng.random() < 0.45 else float(rng.uniform(-0.007, 0.007))
    return Camera(
        float(rng.uniform(104, 128)) * unit, float(cx), height * float(rng.uniform(0.36, 0.5)),
        float(rng.uniform(1.9, 3.0)), curve,
    )  # fmt: skip


def _buildings(rng: np.random.Generator, side: int, x: float) -> list[Building]:
    out: list[Building] = []
    z = float(rng.uniform(4.5, 7.5))
    style = rng.random()
    while z < 62:
        deep = float(rng.uniform(5.5, 11.0)) * (1 + z / 50)
        house = rng.random() < (0.75 if style < 0.35 else 0.12)
        tall = float(rng.uniform(3.6, 5.2) if house else rng.uniform(6.5, 15.0))
        paint = pick(rng, WALL_PAINTS)
        trim = pick(rng, ((246, 240, 228), (96, 84, 80), (210, 200, 186), (70, 62, 66)), 8)
        shop = pick(rng, CLOTHES) if not house and rng.random() < 0.5 else None
        out.append(Building(
            side, x + float(rng.uniform(0, 0.8)), z, z + deep, tall, paint, trim,
            pick(rng, ((86, 116, 142), (62, 78, 98), (128, 160, 180)), 10), float(rng.uniform(1.9, 2.7)),
            float(rng.uniform(1.7, 2.6)), 1 if house else 0, shop,
        ))  # fmt: skip
        z += deep + (float(rng.uniform(1.5, 5.0)) if rng.random() < 0.35 else 0.0)
    return out


_PAINTS: dict[str, tuple[tuple[RGB, ...], float]] = {
    "car": (CAR_PAINTS, 14.0),
    "person": (CLOTHES, 14.0),
    "tree": (LEAVES, 8.0),
    "pole": (((74, 78, 84), (60, 84, 78), (96, 94, 92), (66, 70, 92)), 5.0),
}


def _between(rng: np.random.Generator, near: float, far: float) -> float:
    """A distance for which the size on screen is spread evenly, a little towards the large ones."""
    return float(1 / (1 / near + (1 / far - 1 / near) * rng.random() ** 1.15))


def _candidate(rng: np.random.Generator, kind: str, plan: ScenePlan) -> Actor:
    """One random thing of this kind at a random place where such things are found."""
    cam, side = plan.camera, (1 if rng.random() < 0.5 else -1)
    metre = cam.focal / plan.unit
    near = metre * cam.height / (128 * 0.52)
    facing, variant, phase = -side, int(rng.integers(6)), float(rng.random())
    if kind == "car":
        wide, tall = float(rng.uniform(1.7, 2.0)), float(rng.uniform(1.35, 1.75))
        z = _between(rng, max(near, metre * wide / 58), metre * wide / 17.5)
        lane = plan.road * 0.5 if rng.random() < 0.6 else plan.road - 1.05
        x = side * (lane + float(rng.uniform(-0.12, 0.12)))
    elif kind == "person":
        tall = float(rng.uniform(1.75, 2.1))
        wide = tall * float(rng.uniform(0.34, 0.4))
        far = metre * tall / 18.5
        z = _between(rng, max(near, metre * tall / 45), far)
        if plan.crosswalk > 0 and rng.random() < 0.45:
            x, z = (
                float(rng.uniform(-plan.road, plan.road)),
                min(far, plan.crosswalk + float(rng.uniform(0.4, 1.4))),
            )
        elif rng.random() < 0.2:
            x = float(rng.uniform(-plan.road, plan.road))
        else:
            x = side * (plan.road + float(rng.uniform(0.45, plan.walk - 0.3)))
        facing = 1 if rng.random() < 0.5 else -1
    elif kind == "tree":
        tall, wide = float(rng.uniform(3.6, 6.2)), float(rng.uniform(2.2, 3.4))
        z = float(rng.uniform(max(near + 1, 8.0), 22.0))
        deep = plan.verge[0 if side < 0 else 1]
        x = side * (plan.road + plan.walk + float(rng.uniform(-0.2, max(0.3, min(deep, 6.0)))))
    else:
        tall = float(rng.uniform(3.9, 5.6)) if variant < 3 else float(rng.uniform(2.7, 3.5))
        wide, z = 0.26, float(rng.uniform(max(near + 0.5, 6.5), 16.0))
        x = side * (plan.road + float(rng.uniform(0.2, 0.5)))
    paints, spread = _PAINTS[kind]
    paint = pick(rng, paints, spread)
    u0, v1 = cam.at(x - wide / 2, 0, z)
    u1, v0 = cam.at(x + wide / 2, tall, z)
    return Actor(kind, x, z, tall, wide, variant, paint, pick(rng, TROUSERS), pick(rng, SKINS, 6),
                 pick(rng, HAIRS, 8), facing, phase, (u0, v0, u1, v1))  # fmt: skip


def _fits(new: Actor, placed: list[Actor], height: int, width: int) -> bool:
    """Whether ``new`` is well inside the frame, is visible, and hides no other (nor is hidden)."""
    u0, v0, u1, v1 = new.box
    inside = (min(u1, width) - max(u0, 0)) / (u1 - u0)
    if inside < 0.8 or v1 > 0.985 * height or (new.kind != "tree" and new.kind != "pole" and v0 < 0):
        return False
    for old in placed:
        a0, b0, a1, b1 = old.box
        if abs(new.x - old.x) < (new.wide + old.wide) / 2 and abs(new.z - old.z) < _clearance(new, old):
            return False
        across, down = min(u1, a1) - max(u0, a0), min(v1, b1) - max(v0, b0)
        if across <= 0 or down <= 0:
            continue
        behind = new if new.z > old.z else old
        area = (behind.box[2] - behind.box[0]) * (behind.box[3] - behind.box[1])
        if across * down > 0.3 * area:
            return False
    return True


def _clearance(a: Actor, b: Actor) -> float:
    return 4.4 if "car" in (a.kind, b.kind) else 0.8


def _actors(rng: np.random.Generator, plan: ScenePlan, height: int, width: int) -> tuple[Actor, ...]:
    placed: list[Actor] = []
    odds = {"car": (0.16, 0.26, 0.22, 0.2, 0.16), "person": (0.18, 0.26, 0.24, 0.18, 0.14),
            "pole": (0.16, 0.3, 0.26, 0.18, 0.1), "tree": (0.16, 0.22, 0.22, 0.2, 0.2)}  # fmt: skip
    for kind, chances in odds.items():
        for _ in range(int(rng.choice(5, p=chances))):
            for _ in range(14):
                new = _candidate(rng, kind, plan)
                if _fits(new, placed, height, width):
                    placed.append(new)
                    break
    return tuple(sorted(placed, key=lambda a: -a.z))


def make_plan(rng: np.random.Generator, height: int, width: int) -> ScenePlan:
    """Decide everything about a scene for a canvas of ``height`` x ``width`` pixels."""
    unit = min(height, width) / 128
    camera = _camera(rng, height, width, unit)
    road, walk = float(rng.uniform(2.5, 3.7)), float(rng.uniform(1.6, 2.7))
    kinds = ((True, True), (True, True), (True, False), (False, True), (False, False))
    built = kinds[int(rng.integers(len(kinds)))]
    verge = tuple(
        float(rng.uniform(0.0, 1.4)) if b and rng.random() < 0.6 else 0.0 if b else 40.0 for b in built
    )
    buildings: list[Building] = []
    for side, has, strip in zip((-1, 1), built, verge, strict=True):
        if has:
            buildings += _buildings(rng, side, road + walk + strip)
    grey = float(rng.uniform(84, 126))
    tones: dict[str, RGB] = {
        "road": pick(rng, ((int(grey), int(grey), int(grey + 6)),), 4),
        "walk": pick(rng, ((190, 184, 174), (206, 192, 176), (172, 172, 176), (200, 180, 164)), 7),
        "grass": pick(rng, ((104, 160, 72), (128, 168, 78), (92, 146, 84), (146, 164, 84)), 8),
        "leaf": pick(rng, LEAVES, 10),
        "zenith": pick(rng, ((64, 128, 212), (86, 150, 222), (110, 168, 224), (70, 140, 190)), 8),
        "haze": pick(rng, ((206, 226, 240), (226, 230, 226), (190, 216, 240)), 6),
    }
    cloud = float(rng.choice((0.0, 0.35, 0.6, 1.0), p=(0.2, 0.35, 0.2, 0.25)))
    near = camera.focal / unit * camera.height / (128 * 0.5)
    crosswalk = float(rng.uniform(near + 0.5, near + 4.5)) if rng.random() < 0.3 else 0.0
    sun = (float(rng.uniform(-0.9, 0.9)), float(rng.uniform(-0.25, 0.5)))
    plan = ScenePlan(camera, unit, road, walk, (verge[0], verge[1]), built, int(rng.integers(4)), crosswalk, cloud, sun,
                float(rng.uniform(0.92, 1.06)), tones, tuple(sorted(buildings, key=lambda b: -b.z0)))  # fmt: skip
    return replace(plan, actors=_actors(rng, plan, height, width))
