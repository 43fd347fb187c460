"""Procedurally drawn street scenes: image, class mask, depth, boxes and a truthful caption.

Everything is a function of (seed, index, size). ``contact_sheet.py`` draws all looks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tadp_da.mini._canvas import Canvas
from tadp_da.mini._grammar import NOUNS, make_caption, parse_counts
from tadp_da.mini._ground import SKY, draw_ground, draw_sky
from tadp_da.mini._layout import FAR, Actor, Camera, ScenePlan, make_plan
from tadp_da.mini._things import draw_building, draw_car, draw_person, draw_pole, draw_skyline, draw_tree

__all__ = ["CLASSES", "PALETTE", "SKY_DEPTH", "Box", "Camera", "Scene", "draw_scene", "parse_counts"]

CLASSES = ("sky", "building", "road", "sidewalk", "vegetation", "pole", "car", "person")
"""Class names; the id of a class in a mask is its place here."""

PALETTE = (
    (70, 130, 180), (86, 86, 96), (128, 64, 128), (244, 35, 232), (107, 142, 35), (220, 200, 60), (0, 0, 160),
    (220, 20, 60),
)  # fmt: skip
"""Colours of the classes in images of masks."""

SKY_DEPTH = 200.0
"""Depth of the sky in metres: further than anything else (the street ends at 80 m)."""

FIRST_THING = 8
WOOD = FIRST_THING + 1
"""Ident of the trees behind the end of the street, and of hedges beside it."""
MIN_SIZE = 64
_KINDS = {"tree": 4, "pole": 5, "car": 6, "person": 7}
_SALT = 11


@dataclass(frozen=True)
class Box:
    """The visible part of one thing: class id and (left, top, right, bottom) in pixels, right and bottom exclusive."""

    label: int
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """One street scene; arrays share height h and width w.

    image: uint8 (h, w, 3), the plain day image. mask: uint8 (h, w), class ids. depth: float32 (h, w), metres.
    air: the same for looks, which draw haze before hedges as far as behind them: the published images have it so.
    ident: int32 (h, w), one number per thing (below 8: stuff). part: uint8 (h, w), see ``_canvas``: lamps, windows, ...
    boxes: cars, people, poles and trees (as vegetation). counts: visible cars, people and trees, as the caption says.
    lamps: lamp heads, headlights: the fronts of oncoming cars, beams: where light cones start, all (x, y, z) in metres.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    depth: NDArray[np.float32]
    air: NDArray[np.float32]
    boxes: tuple[Box, ...]
    caption: str
    counts: dict[str, int]
    ident: NDArray[np.int32]
    part: NDArray[np.uint8]
    camera: Camera
    lamps: tuple[tuple[float, float, float], ...]
    headlights: tuple[tuple[float, float, float], ...]
    cloudy: bool


def _check(size: tuple[int, int]) -> tuple[int, int]:
    height, width = size
    if min(height, width) < MIN_SIZE:
        raise ValueError(
            f"size is {height} x {width} pixels; a scene needs at least {MIN_SIZE} on both sides: "
            f"draw it larger and resize the result"
        )
    return height, width


def _paint(
    rng: np.random.Generator, plan: ScenePlan, canvas: Canvas
) -> tuple[list[int], list[tuple[Actor, int]]]:
    """Paint all things far to near. Returns the class of every ident, and (actor, ident) for the countable things."""
    classes = [*range(FIRST_THING), 1, 4]
    draw_skyline(canvas, rng, plan, (FIRST_THING, WOOD))
    for building in plan.buildings:
        canvas.ident = len(classes)
        classes.append(1)
        draw_building(canvas, rng, plan, building)
    placed = []
    for actor in plan.actors:
        canvas.ident = len(classes)
        classes.append(_KINDS[actor.kind])
        if actor.kind == "car":
            draw_car(canvas, plan, actor)
        elif actor.kind == "person":
            draw_person(canvas, plan, actor)
        elif actor.kind == "tree":
            draw_tree(canvas, rng, plan, actor)
        else:
            draw_pole(canvas, plan, actor)
        placed.append((actor, canvas.ident))
    return classes, placed


def _ground(camera: Camera, height: int) -> NDArray[np.float32]:
    """Metres ``(h,)`` of the ground in each row."""
    rows = np.arange(height, dtype=np.float32) + 0.5 - np.float32(camera.horizon)
    return np.where(rows > 0, camera.focal * camera.height / np.maximum(rows, 1e-3), FAR)


def _depth(plan: ScenePlan, camera: Camera, ident: NDArray[np.int32], actors: list[tuple[Actor, int]]
           ) -> NDArray[np.float32]:  # fmt: skip
    """Metres per pixel: the ground by its plane, things by their distance, facades between their two ends."""
    height, width = ident.shape
    ground = _ground(camera, height)
    top = int(ident.max()) + 1
    table = np.full(max(top, FIRST_THING + 2), FAR, np.float32)
    table[SKY] = SKY_DEPTH
    for actor, number in actors:
        if number < top:
            table[number] = actor.z
    depth = table[ident]
    stuff = (ident > SKY) & (ident < FIRST_THING)
    depth = np.where(stuff, np.minimum(ground, FAR)[:, None], depth)
    columns = np.arange(width, dtype=np.float32) + 0.5
    for number, b in enumerate(plan.buildings, FIRST_THING + 2):
        u0, u1 = camera.at(b.side * b.x, 0, b.z0)[0], camera.at(b.side * b.x, 0, b.z1)[0]
        t = np.clip((columns - u0) / (u1 - u0 if abs(u1 - u0) > 1e-3 else 1e-3), 0, 1)
        metres = 1 / ((1 - t) / b.z0 + t / b.z1)
        here = ident == number
        depth = np.where(here, metres[None], depth)
    return depth.astype(np.float32)


def _boxes(
    ident: NDArray[np.int32], actors: list[tuple[Actor, int]]
) -> tuple[tuple[Box, ...], dict[str, int], list[Actor]]:
    """Boxes and counts of what can be seen, and the actors of which too little can be seen to count them.

    Seen means: at least 40 % of its pixels, and at least 20 of them at 128 x 128.
    """
    counts = dict.fromkeys(NOUNS, 0)
    boxes, doubtful = [], []
    least = 20 * (min(ident.shape) / 128) ** 2
    for actor, number in actors:
        rows, columns = np.nonzero(ident == number)
        if len(rows) < max(least, 0.4 * _nominal(actor)):
            doubtful.append(actor)
            continue
        boxes.append(Box(_KINDS[actor.kind], (float(columns.min()), float(rows.min()),
                                              float(columns.max() + 1), float(rows.max() + 1))))  # fmt: skip
        if actor.kind in counts:
            counts[actor.kind] += 1
    return tuple(boxes), counts, doubtful


def _texture(
    rng: np.random.Generator, image: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Leaf, asphalt and wall texture by class, and the faintest sensor grain."""
    height, width = mask.shape
    strength = np.asarray((0.5, 1.8, 2.0, 2.0, 8.0, 1.5, 0.8, 0.8), np.float32)[mask]
    noise = rng.standard_normal((height, width), dtype=np.float32)
    return np.clip(image + (noise * strength)[..., None], 0, 255).astype(np.uint8)


def draw_scene(seed: int, index: int, size: tuple[int, int] = (128, 128)) -> Scene:
    """Scene number ``index`` of the world ``seed``, ``size`` = (height, width) in pixels, each at least 64."""
    height, width = _check(size)
    rng = np.random.default_rng([seed, index, _SALT])
    plan = make_plan(rng, 2 * height, 2 * width)
    ident = np.zeros((2 * height, 2 * width), np.int32)
    rgb = draw_sky(rng, plan, 2 * height, 2 * width)
    draw_ground(rng, plan, rgb, ident)
    ground, stuff = np.clip(rgb, 0, 255).astype(np.uint8), ident
    while True:
        canvas = Canvas(ground, stuff)
        classes, actors = _paint(rng, plan, canvas)
        image, ident, part = canvas.halved()
        boxes, counts, doubtful = _boxes(ident, actors)
        if not doubtful:
            break
        # Rare: someone is barely visible behind two others. Remove them, so that the caption is unambiguous.
        plan = replace(plan, actors=tuple(a for a in plan.actors if a not in doubtful))
    mask = np.asarray(classes, np.uint8)[ident]
    camera = plan.camera.scaled(0.5)
    air = _depth(plan, camera, ident, actors)
    # leaves that are drawn below their foot lie on the ground
    depth = np.where(ident == WOOD, np.minimum(canvas.hedges(), _ground(camera, height)[:, None]), air)
    tall = sum(b.tall > 9 for b in plan.buildings[-6:]) >= 4
    cloudy = plan.cloud == 1.0
    caption = make_caption(rng, counts, plan.built, tall, cloudy, plan.crosswalk > 0)
    lamps = tuple(
        (a.x - (1.15 if a.x > 0 else -1.15), a.tall, a.z)
        for a in plan.actors
        if a.kind == "pole" and a.variant < 3
    )
    beams = tuple((a.x, 0.6, a.z) for a in plan.actors if a.kind == "car" and a.facing > 0)
    return Scene(_texture(rng, image, mask), mask, depth, air, boxes, caption, counts, ident, part, camera, lamps,
                 beams, cloudy)  # fmt: skip


def _nominal(a: Actor) -> float:
    """Roughly the pixels of an actor that nothing hides."""
    fill = {"car": 0.85, "person": 0.55, "tree": 0.5, "pole": 0.8}[a.kind]
    return fill * (a.box[2] - a.box[0]) * (a.box[3] - a.box[1]) / 4
