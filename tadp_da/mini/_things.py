"""Buildings, cars, people, trees and poles, painted far to near on a canvas."""

from __future__ import annotations

import numpy as np

from tadp_da.mini._canvas import (
    PART_GLASS,
    PART_HEAD,
    PART_LAMP,
    PART_NONE,
    PART_SIGNAL,
    PART_SKIN,
    PART_TAIL,
    PART_WHEEL,
    PART_WINDOW,
    Canvas,
    blend,
    blend_point,
    shade,
)  # fmt: skip
from tadp_da.mini._layout import RGB, Actor, Building, Camera, ScenePlan


def _window_code(rng: np.random.Generator) -> int:
    return PART_WINDOW + int(rng.random() * (256 - PART_WINDOW))


def draw_skyline(c: Canvas, rng: np.random.Generator, plan: ScenePlan, idents: tuple[int, int]) -> None:
    """Far towers and a tree line behind the end of the street; ``idents`` = (building, vegetation)."""
    width, _ = c.rgb.size
    cam, s = plan.camera, plan.unit
    haze = plan.tones["haze"]
    foot = cam.horizon + cam.focal * cam.height / 62
    if any(plan.built) or rng.random() < 0.6:
        c.ident = idents[0]
        u = float(rng.uniform(-10, 0)) * s
        while u < width:
            wide = float(rng.uniform(5, 13)) * s
            if rng.random() < 0.8:
                top = cam.horizon - float(rng.uniform(3, 20)) * s
                wall = blend((120, 130, 150), haze, float(rng.uniform(0.25, 0.5)))
                c.rect(u, top, u + wide, foot, wall)
                pane = shade(wall, 0.84)
                for row in range(int((foot - top) / (3.2 * s))):
                    v = top + (1.2 + 3.2 * row) * s
                    for column in range(int(wide / (2.6 * s))):
                        left = u + (1 + 2.6 * column) * s
                        c.rect(left, v, left + 1.1 * s, v + 1.4 * s, pane, _window_code(rng))
            u += wide
    c.ident = idents[1]
    leaf = blend(plan.tones["leaf"], haze, 0.35)
    points = int(14 * width / (s * 128)) + 2
    for k in range(points):
        u = width * (k + float(rng.uniform(-0.3, 0.3))) / (points - 1)
        r = float(rng.uniform(3.0, 6.5)) * s
        c.oval(u, foot - r * 0.25, r * 1.6, r * 0.8, shade(leaf, float(rng.uniform(0.88, 1.1))))
    for side, built in zip((-1, 1), plan.built, strict=True):
        if not built:
            _wood(c, rng, plan, side)


def _wood(c: Canvas, rng: np.random.Generator, plan: ScenePlan, side: int) -> None:
    """A hedge or low wood along the far side of a park."""
    cam = plan.camera
    leaf, edge = plan.tones["leaf"], plan.road + plan.walk + float(rng.uniform(5, 9))
    for k in range(13):
        z = 56 - 3.6 * k
        x = side * (edge + float(rng.uniform(0, 1.5)))
        u, v = cam.at(x, 0, z)
        r = cam.focal * float(rng.uniform(1.2, 2.3)) / z
        tone = shade(blend(leaf, plan.tones["haze"], min(0.4, z / 110)), float(rng.uniform(0.85, 1.05)))
        c.hedge(u, v - r * 0.4, r * 1.5, r * 0.75, shade(tone, 0.82), z)
        c.oval(u - r * 0.2 + plan.sun[0] * -r * 0.2, v - r * 0.55, r * 1.2, r * 0.55, tone, None)


def draw_building(c: Canvas, rng: np.random.Generator, plan: ScenePlan, b: Building) -> None:
    """One building: the wall facing the camera, the facade along the street, roof, windows, shop front."""
    cam, side = plan.camera, b.side
    lit = 1.0 + 0.12 * plan.sun[0] * -side * (plan.cloud < 1)
    fade = min(0.42, b.z0 / 130)
    wall = blend(shade(b.paint, 0.9 * lit), plan.tones["haze"], fade)
    front = blend(shade(b.paint, 0.72 if lit > 1 else 0.98), plan.tones["haze"], fade)
    trim, glass = blend(b.trim, plan.tones["haze"], fade), blend(b.glass, plan.tones["haze"], fade)
    x, outer = side * b.x, side * (b.x + 9.0)

    def on_facade(z: float, y: float) -> tuple[float, float]:
        return cam.at(x, y, z)

    c.poly(
        [cam.at(x, 0, b.z0), cam.at(outer, 0, b.z0), cam.at(outer, b.tall, b.z0), cam.at(x, b.tall, b.z0)],
        front,
    )
    if b.roof:
        ridge, tiles = b.tall + 2.2, blend((150, 74, 56), plan.tones["haze"], fade)
        middle = side * (b.x + 3.4)
        c.poly(
            [cam.at(x, b.tall, b.z0), cam.at(2 * middle - x, b.tall, b.z0), cam.at(middle, ridge, b.z0)],
            front,
        )
        c.poly([cam.at(x - side * 0.3, b.tall - 0.1, b.z0), cam.at(x - side * 0.3, b.tall - 0.1, b.z1),
                cam.at(middle, ridge, b.z1), cam.at(middle, ridge, b.z0)], shade(tiles, lit))  # fmt: skip
    c.poly([on_facade(b.z0, 0), on_facade(b.z1, 0), on_facade(b.z1, b.tall), on_facade(b.z0, b.tall)], wall)
    base = 0.0
    if b.shop is not None:
        base = 2.5
        _shop(c, cam, b, x, blend(b.shop, plan.tones["haze"], fade), glass, trim)
    else:
        c.poly(
            [on_facade(b.z0, 0), on_facade(b.z1, 0), on_facade(b.z1, 0.5), on_facade(b.z0, 0.5)],
            shade(wall, 0.8),
        )
    if not b.roof:
        c.poly([on_facade(b.z0, b.tall - 0.45), on_facade(b.z1, b.tall - 0.45), on_facade(b.z1, b.tall),
                on_facade(b.z0, b.tall)], trim)  # fmt: skip
    _windows(c, rng, cam, b, base, glass, trim)


def _shop(c: Canvas, cam: Camera, b: Building, x: float, awning: RGB, glass: RGB, trim: RGB) -> None:
    low, high = 0.35, 1.75
    c.poly([cam.at(x, low, b.z0 + 0.4), cam.at(x, low, b.z1 - 0.4), cam.at(x, high, b.z1 - 0.4),
            cam.at(x, high, b.z0 + 0.4)], shade(glass, 0.9), 250)  # fmt: skip
    steps = 6
    for k in range(steps):
        z0, z1 = (b.z0 + (b.z1 - b.z0) * (k + d) / steps for d in (0, 1))
        out = x - b.side * 0.55
        tone = awning if k % 2 else blend(awning, (250, 248, 240), 0.75)
        c.poly([cam.at(x, 2.5, z0), cam.at(x, 2.5, z1), cam.at(out, 1.95, z1), cam.at(out, 1.95, z0)], tone)


def _windows(
    c: Canvas, rng: np.random.Generator, cam: Camera, b: Building, base: float, glass: RGB, trim: RGB
) -> None:
    """Rows of windows on the facade and on the wall facing the camera, as far as they can be seen."""
    width, _ = c.rgb.size
    floors = int((b.tall - base - 0.5) / b.floor)
    x = b.side * b.x
    bays = max(1, int((b.z1 - b.z0) / b.bay))
    step = (b.z1 - b.z0) / bays
    for k in range(bays):
        z0, z1 = b.z0 + step * (k + 0.24), b.z0 + step * (k + 0.78)
        u0, u1 = cam.at(x, 0, z0)[0], cam.at(x, 0, z1)[0]
        if abs(u0 - u1) < 1.6 or max(u0, u1) < 0 or min(u0, u1) > width:
            continue
        for f in range(floors):
            y0, y1 = base + b.floor * f + 0.75, base + b.floor * f + b.floor * 0.84
            pane = [cam.at(x, y0, z0), cam.at(x, y0, z1), cam.at(x, y1, z1), cam.at(x, y1, z0)]
            if pane[3][1] > 0 or pane[0][1] > 0:
                c.poly(pane, shade(glass, float(rng.uniform(0.8, 1.2))), _window_code(rng))
                if abs(u0 - u1) > 7:
                    c.poly([pane[0], pane[1], cam.at(x, y0 - 0.2, z1), cam.at(x, y0 - 0.2, z0)], trim, None)
    if (b.side > 0 and cam.at(x, 0, b.z0)[0] > width) or (b.side < 0 and cam.at(x, 0, b.z0)[0] < 0):
        return
    for k in range(3):
        x0 = b.side * (b.x + 0.9 + 2.1 * k)
        for f in range(floors):
            y0, y1 = base + b.floor * f + 0.75, base + b.floor * f + b.floor * 0.84
            (u0, v0), (u1, v1) = cam.at(x0, y0, b.z0), cam.at(x0 + b.side * 1.1, y1, b.z0)
            if v0 > 0 and abs(u1 - u0) > 2:
                c.rect(u0, v0, u1, v1, shade(glass, float(rng.uniform(0.75, 1.1))), _window_code(rng))


def draw_car(c: Canvas, plan: ScenePlan, a: Actor) -> None:
    """A car seen from behind (``facing`` -1) or from the front (1), with the flank that the camera can see."""
    cam, half = plan.camera, a.wide / 2
    deep = 3.3
    belt = a.tall * 0.56
    z0, z1 = a.z, a.z + deep
    flank = a.x - half if a.x + 0.5 * cam.curve * a.z**2 > 0 else a.x + half
    body, dark = a.paint, shade(a.paint, 0.66)
    glass: RGB = (44, 58, 76)

    def side(z: float, y: float) -> tuple[float, float]:
        return cam.at(flank, y, z)

    def slab(x0: float, x1: float, y: float, za: float, zb: float) -> list[tuple[float, float]]:
        return [cam.at(x0, y, za), cam.at(x1, y, za), cam.at(x1, y, zb), cam.at(x0, y, zb)]

    c.poly([side(z0, 0.22), side(z1, 0.22), side(z1, belt), side(z0, belt)], dark)
    for zw in (z0 + 0.65, z1 - 0.65):
        (u, v), r = side(zw, 0.3), 0.33 * cam.focal / zw
        c.oval(
            u,
            v,
            max(1.2, abs(side(zw - 0.33, 0)[0] - side(zw + 0.33, 0)[0]) / 2),
            r,
            (26, 26, 30),
            PART_WHEEL,
        )
    c.poly(slab(a.x - half, a.x + half, belt, z0, z1), shade(body, 1.12))
    tuck = 0.16
    inner = a.x + (flank - a.x) * (1 - tuck)
    ca, cb = (z0 + 0.35, z1 - 1.1) if a.facing < 0 else (z0 + 1.0, z1 - 0.3)
    c.poly(
        [side(ca, belt), side(cb, belt), cam.at(inner, a.tall, cb - 0.3), cam.at(inner, a.tall, ca + 0.3)],
        dark,
    )
    c.poly([side(ca + 0.25, belt + 0.06), side(cb - 0.2, belt + 0.06), cam.at(inner, a.tall - 0.08, cb - 0.4),
            cam.at(inner, a.tall - 0.08, ca + 0.45)], shade(glass, 0.8), PART_GLASS)  # fmt: skip
    lo, hi = a.x - half * (1 - tuck), a.x + half * (1 - tuck)
    c.poly(slab(lo, hi, a.tall, ca + 0.3, cb - 0.3), shade(body, 1.2))
    c.poly([cam.at(a.x - half * 0.97, belt, ca), cam.at(a.x + half * 0.97, belt, ca), cam.at(hi, a.tall, ca + 0.3),
            cam.at(lo, a.tall, ca + 0.3)], shade(body, 0.94))  # fmt: skip
    pane = [cam.at(a.x - half * 0.84, belt + 0.05, ca), cam.at(a.x + half * 0.84, belt + 0.05, ca),
            cam.at(hi - 0.1, a.tall - 0.1, ca + 0.27), cam.at(lo + 0.1, a.tall - 0.1, ca + 0.27)]  # fmt: skip
    c.poly(pane, glass, PART_GLASS)
    c.poly([pane[3], blend_point(pane[3], pane[2], 0.45), blend_point(pane[0], pane[1], 0.2), pane[0]],
           (96, 120, 144), PART_GLASS)  # fmt: skip
    _car_end(c, cam, a, belt, half)


def _car_end(c: Canvas, cam: Camera, a: Actor, belt: float, half: float) -> None:
    """The face of the car towards the camera: wheels, body, lights, plate, grille."""
    (u0, v1), (u1, v0) = cam.at(a.x - half, 0, a.z), cam.at(a.x + half, belt, a.z)
    wide, tall = u1 - u0, v1 - v0
    for lo, hi in ((0.05, 0.24), (0.76, 0.95)):
        c.rect(u0 + wide * lo, v1 - tall * 0.34, u0 + wide * hi, v1, (24, 24, 28), PART_WHEEL)
    c.rect(u0, v0 + tall * 0.06, u1, v1 - tall * 0.24, a.paint)
    c.rect(u0 + wide * 0.04, v0, u1 - wide * 0.04, v0 + tall * 0.08, shade(a.paint, 1.16))
    c.rect(u0, v1 - tall * 0.34, u1, v1 - tall * 0.18, shade(a.paint, 0.5))
    front = a.facing > 0
    lamp: RGB = (255, 250, 220) if front else (226, 24, 30)
    for lo, hi in ((0.05, 0.24), (0.76, 0.95)):
        c.rect(u0 + wide * lo, v0 + tall * 0.2, u0 + wide * hi, v0 + tall * 0.42, lamp,
               PART_HEAD if front else PART_TAIL)  # fmt: skip
    if front:
        c.rect(u0 + wide * 0.3, v0 + tall * 0.26, u0 + wide * 0.7, v0 + tall * 0.44, (40, 42, 48))
    else:
        c.rect(
            u0 + wide * 0.04, v0 + tall * 0.47, u1 - wide * 0.04, v0 + tall * 0.52, shade(a.paint, 0.75), None
        )
    c.rect(u0 + wide * 0.38, v0 + tall * 0.54, u0 + wide * 0.62, v0 + tall * 0.66, (244, 244, 236), None)


def draw_person(c: Canvas, plan: ScenePlan, a: Actor) -> None:
    """A walking or standing person."""
    u, v = plan.camera.at(a.x, 0, a.z)
    h = plan.camera.focal * a.tall / a.z
    w = h * a.wide / a.tall
    f, stride = a.facing, (0.10 + 0.14 * abs(np.sin(6.28 * a.phase))) * h * (a.variant != 0)
    hip, neck = v - 0.46 * h, v - 0.82 * h
    thick = max(2.0, 0.115 * h)
    shoe: RGB = (36, 32, 34)
    for leg, tone in ((-1, shade(a.second, 0.78)), (1, a.second)):
        spread = leg * max(stride * 0.62, 0.055 * h)
        c.stroke([(u + leg * 0.035 * h, hip - 0.05 * h), (u + spread * 0.6, v - 0.22 * h), (u + spread, v - 0.02 * h)],
                 thick, tone)  # fmt: skip
        c.rect(u + spread - thick * 0.5, v - 0.05 * h, u + spread + thick * (0.5 + 0.35 * f), v, shoe)
    if a.variant == 1:
        c.poly([(u - 0.11 * h, hip - 0.1 * h), (u + 0.11 * h, hip - 0.1 * h), (u + 0.2 * h, v - 0.2 * h),
                (u - 0.2 * h, v - 0.2 * h)], a.second)  # fmt: skip
    arm = max(2.0, 0.085 * h)
    swing = stride * 0.6
    c.stroke(
        [(u - w * 0.36, neck + 0.06 * h), (u - w * 0.46 - swing * 0.2, hip + 0.02 * h)],
        arm,
        shade(a.paint, 0.74),
    )
    if a.variant == 3:
        c.rect(u - f * 0.26 * h, neck + 0.03 * h, u - f * 0.05 * h, hip - 0.08 * h, shade(a.hair, 0.9))
    c.poly([(u - w * 0.4, neck + 0.02 * h), (u - w * 0.2, neck - 0.02 * h), (u + w * 0.2, neck - 0.02 * h),
            (u + w * 0.4, neck + 0.02 * h), (u + w * 0.34, hip + 0.03 * h), (u - w * 0.34, hip + 0.03 * h)],
           a.paint)  # fmt: skip
    c.poly([(u + w * 0.1, neck), (u + w * 0.4, neck + 0.02 * h), (u + w * 0.34, hip + 0.03 * h),
            (u + w * 0.12, hip + 0.03 * h)], shade(a.paint, 0.84), None)  # fmt: skip
    elbow = (u + w * 0.44 + swing * 0.2, hip + 0.01 * h)
    c.stroke([(u + w * 0.37, neck + 0.06 * h), elbow], arm, shade(a.paint, 0.9))
    c.oval(elbow[0], elbow[1], arm * 0.5, arm * 0.5, a.skin, PART_SKIN)
    c.rect(u - 0.035 * h, neck - 0.05 * h, u + 0.035 * h, neck, shade(a.skin, 0.85), PART_SKIN)
    head = 0.09 * h
    c.oval(u, v - 0.905 * h, head * 0.92, head * 1.1, a.hair)
    c.oval(u + f * head * 0.18, v - 0.885 * h, head * 0.68, head * 0.82, a.skin, PART_SKIN)
    if a.variant == 4:
        c.rect(u - head, v - 0.96 * h, u + head * (1 + 0.5 * f), v - 0.93 * h, shade(a.paint, 0.6), PART_NONE)


def draw_tree(c: Canvas, rng: np.random.Generator, plan: ScenePlan, a: Actor) -> None:
    """A street tree: round crown (most), conifer or poplar."""
    cam = plan.camera
    u, v = cam.at(a.x, 0, a.z)
    px = cam.focal / a.z
    h, r = a.tall * px, a.wide * px / 2
    bark: RGB = (98, 72, 52)
    c.rect(u - 0.16 * px, v - h * 0.55, u + 0.16 * px, v, bark)
    c.rect(u + 0.02 * px, v - h * 0.55, u + 0.16 * px, v, shade(bark, 0.75), None)
    light = -1.0 if plan.sun[0] > 0 else 1.0
    if a.variant == 0:
        for k, (top, low, wide) in enumerate(((0.62, 0.22, 1.0), (0.82, 0.45, 0.78), (1.0, 0.66, 0.54))):
            tone = shade(a.paint, 0.72 + 0.1 * k)
            c.poly([(u - r * wide, v - h * low), (u + r * wide, v - h * low), (u, v - h * top)], tone)
            c.poly([(u + light * r * wide * 0.8, v - h * low), (u, v - h * low), (u, v - h * top)],
                   shade(tone, 1.25), None)  # fmt: skip
        return
    slim = 0.62 if a.variant == 1 else 1.0
    rv = h * (0.39 if a.variant == 1 else 0.3)
    cv = v - h + rv
    for k in range(9):
        turn = 6.283 * (k + float(rng.random()) * 0.5) / 9
        du, dv = np.cos(turn) * r * slim * 0.58, np.sin(turn) * rv * 0.55
        q = float(rng.uniform(0.42, 0.56))
        c.oval(u + du, cv + dv, r * slim * q, rv * q, shade(a.paint, 0.7 + 0.12 * (dv < 0)))
    c.oval(u, cv, r * slim * 0.75, rv * 0.75, shade(a.paint, 0.88))
    for _ in range(9):
        du, dv = rng.uniform(-0.62, 0.62) * r * slim, rng.uniform(-0.66, 0.5) * rv
        tone = shade(
            a.paint, 0.92 + 0.25 * (du / r * light - dv / rv) * 0.7 + float(rng.uniform(-0.05, 0.05))
        )
        q = float(rng.uniform(0.16, 0.3))
        c.oval(u + du, cv + dv, r * slim * q, rv * q, tone, None)


def draw_pole(c: Canvas, plan: ScenePlan, a: Actor) -> None:
    """A street lamp (variants 0-2), a traffic light (3) or a sign (4, 5)."""
    cam = plan.camera
    u, v = cam.at(a.x, 0, a.z)
    px = cam.focal / a.z
    half = max(0.13 * px, 1.6 * plan.unit)
    top = v - a.tall * px
    inward = -1.0 if a.x > 0 else 1.0
    tone = a.paint
    c.rect(u - half, top, u + half, v, tone)
    c.rect(u - half, top, u - half * 0.3, v, shade(tone, 1.5), None)
    c.rect(u - half * 1.5, v - 0.35 * px, u + half * 1.5, v, shade(tone, 0.85))
    if a.variant < 3:
        reach = u + inward * (1.15 * px)
        c.stroke([(u, top + half), (u + inward * 0.3 * px, top - 0.05 * px), (reach, top - 0.05 * px)],
                 max(2.6 * plan.unit, 0.16 * px), tone)  # fmt: skip
        c.rect(reach - 0.42 * px, top - 0.16 * px, reach + 0.42 * px, top + 0.06 * px, shade(tone, 0.8))
        c.rect(reach - 0.36 * px, top + 0.02 * px, reach + 0.36 * px, top + max(0.18 * px, 1.6 * plan.unit),
               (255, 246, 206), PART_LAMP)  # fmt: skip
    elif a.variant == 3:
        w, h = max(0.26 * px, half * 1.4), 1.15 * px
        c.rect(u - w, top, u + w, top + h, (34, 36, 40))
        on = int(a.phase * 3)
        for k, bright in enumerate(((238, 40, 36), (250, 186, 40), (50, 210, 100))):
            lamp: RGB = bright if k == on else shade(bright, 0.32)
            c.oval(
                u, top + h * (0.2 + 0.3 * k), w * 0.62, h * 0.12, lamp, PART_SIGNAL if k == on else PART_NONE
            )
    else:
        r = max(0.48 * px, half * 1.8)
        middle = top + r * 0.6
        if a.variant == 4:
            c.oval(u, middle, r, r, (214, 36, 40))
            c.oval(u, middle, r * 0.64, r * 0.64, (246, 246, 246), None)
        else:
            c.rect(u - r, middle - r, u + r, middle + r, (30, 84, 176))
            c.rect(u - r * 0.3, middle - r * 0.6, u + r * 0.3, middle + r * 0.6, (244, 244, 248), None)
