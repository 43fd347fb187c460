"""Looks that change light and air: day, night, fog, rain, snow, sunset, city-night, misty-night."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tadp_da.mini._canvas import PART_GLASS, PART_HEAD, PART_LAMP, PART_SIGNAL, PART_TAIL, PART_WINDOW
from tadp_da.mini._effects import (
    BUILDING,
    CAR,
    F32,
    GREEN,
    PERSON,
    ROAD,
    SKY,
    U8,
    WALK,
    blur,
    colour,
    grain,
    grey,
    to_float,
    to_uint8,
    unit,
)  # fmt: skip
from tadp_da.mini._ground import smooth_noise
from tadp_da.mini.world import Scene


def day(scene: Scene, rng: np.random.Generator) -> U8:
    """Daylight with a camera's own exposure, contrast and white balance."""
    x = to_float(scene.image)
    balance = 1 + rng.normal(0, 0.03, 3).astype(np.float32)
    x = (x - 0.5) * np.float32(rng.uniform(0.9, 1.08)) + 0.5 + np.float32(rng.uniform(-0.04, 0.05))
    return to_uint8(grain(rng, x * balance, float(rng.uniform(0.002, 0.02))))


def _shift(scene: Scene) -> F32:
    """Rows above the horizon from 0 at the top to 1 at the horizon, (h, 1)."""
    rows = np.arange(scene.mask.shape[0], dtype=np.float32)
    return np.clip(rows / scene.camera.horizon, 0, 1)[:, None]


def night(scene: Scene, rng: np.random.Generator) -> U8:
    """A moonlit night: blue, dim, even; some pale windows and small lamps."""
    x = to_float(scene.image)
    light = np.float32(rng.uniform(0.3, 0.52))
    tint = np.asarray((0.52, 0.68, 1.0), np.float32) * (1 + rng.normal(0, 0.05, 3).astype(np.float32))
    keep = np.float32(rng.uniform(0.35, 0.65))
    x = (x * keep + grey(x)[..., None] * (1 - keep)) * tint * light
    sky = scene.mask == SKY
    t = _shift(scene)[..., None]
    above = colour(8, 14, 38) * (1 - t) + colour(34, 50, 92) * t * np.float32(rng.uniform(0.6, 1.3))
    x = np.where(sky[..., None], above + x * 0.12, x)
    stars = sky & (rng.random(sky.shape, dtype=np.float32) < 0.004 * (not scene.cloudy))
    x[stars] = colour(200, 206, 220)
    part = scene.part
    lit = (part >= PART_WINDOW) & (part < PART_WINDOW + int(rng.uniform(12, 90)))
    lamps = np.zeros_like(x)
    lamps[lit] = colour(232, 222, 170) * np.float32(rng.uniform(0.5, 0.85))
    lamps[(part == PART_LAMP) | (part == PART_HEAD)] = colour(244, 244, 230)
    lamps[part == PART_TAIL] = colour(220, 40, 40)
    lamps[part == PART_SIGNAL] = to_float(scene.image)[part == PART_SIGNAL]
    x = np.maximum(x, lamps)
    x += blur(lamps, 2.2 * unit(scene)) * np.float32(rng.uniform(0.5, 1.1))
    return to_uint8(grain(rng, x, float(rng.uniform(0.006, 0.02)), 0.006))


def _illumination(scene: Scene, rng: np.random.Generator) -> F32:
    """Warm light (h, w) that lamps, unseen lamps and headlights throw on every surface, by distance in metres."""
    height, width = scene.mask.shape
    cam, z = scene.camera, np.minimum(scene.air, 80.0)
    x = (np.arange(width, dtype=np.float32)[None] - np.float32(cam.cx)) * z / np.float32(cam.focal)
    x -= np.float32(0.5 * cam.curve) * z * z
    below = np.arange(height, dtype=np.float32)[:, None] - np.float32(cam.horizon)
    y = np.float32(cam.height) - below * z / np.float32(cam.focal)
    side = 1 if rng.random() < 0.5 else -1
    unseen = [(side * 3.4, 5.0, float(rng.uniform(1, 5))), (-side * 4.6, 6.0, float(rng.uniform(9, 16))),
              (side * 3.6, 5.0, float(rng.uniform(24, 38)))]  # fmt: skip
    light = np.zeros((height, width), np.float32)
    strength = [np.float32(44)] * len(scene.lamps) + [np.float32(16 if scene.lamps else 30)] * len(unseen)
    for (lx, ly, lz), power in zip([*scene.lamps, *unseen], strength, strict=True):
        dx, dy, dz = x - np.float32(lx), y - np.float32(ly), z - np.float32(lz)
        far = dx * dx + dy * dy * np.float32(0.35) + dz * dz * np.float32(0.8) + np.float32(1.2)
        light += power / far / (1 + far * np.float32(0.07))
    for lx, _, lz in scene.headlights:
        ahead = np.float32(lz) - z
        cone = np.exp(-((x - np.float32(lx)) ** 2) / (0.6 + 0.25 * np.maximum(ahead, 0) ** 1.5))
        light += np.where((ahead > -0.2) & (y < 1.0), 0.9 * cone * np.exp(-np.maximum(ahead, 0) / 4.5), 0)
    # The camera's own car lights the road in front of it.
    light += np.float32(0.4) * np.exp(-((x / np.float32(2.2)) ** 2) - z / 9)
    return np.asarray(light, np.float32)


def city_night(scene: Scene, rng: np.random.Generator) -> U8:
    """A sodium-lit city night: pools of warm light, lit windows, headlights, crushed blacks, noise, glow."""
    x = to_float(scene.image)
    s = unit(scene)
    light = _illumination(scene, rng)
    sodium = colour(255, 168, 82)
    base = x**1.25 * 0.55 + grey(x)[..., None] * 0.25
    ambient = np.asarray((0.112, 0.104, 0.128), np.float32) * np.float32(rng.uniform(0.85, 1.2))
    out = base * (ambient + np.minimum(light, 3.0)[..., None] * sodium * np.float32(rng.uniform(0.5, 0.68)))
    t = _shift(scene)[..., None]
    glow = colour(10, 9, 16) * (1 - t) + colour(58, 38, 34) * t**2
    sky = (scene.mask == SKY)[..., None]
    out = np.where(sky, glow + x * 0.02, out)
    # Wet-looking sheen of facades under the city's glow keeps walls and leaves apart from the sky.
    out += (scene.mask == BUILDING)[..., None] * colour(17, 12, 11) * (0.4 + grey(x))[..., None]
    out += (scene.mask == GREEN)[..., None] * colour(4, 9, 5) * (0.4 + grey(x))[..., None]
    part = scene.part
    lamps = np.zeros_like(out)
    on = (part >= PART_WINDOW) & (part % 16 < int(rng.integers(3, 8)))
    tone = 0.35 + 0.65 * (part % 7 / 6).astype(np.float32)
    lamps = np.where(on[..., None], tone[..., None] * colour(255, 190, 104), lamps)
    lamps[part == PART_LAMP] = colour(255, 226, 168)
    lamps[part == PART_HEAD] = colour(255, 250, 236)
    lamps[part == PART_TAIL] = colour(255, 26, 20)
    lamps[part == PART_SIGNAL] = to_float(scene.image)[part == PART_SIGNAL]
    strong = lamps * ((part > 0) & (part < PART_WINDOW))[..., None]
    out = (
        np.maximum(out, lamps * 0.92)
        + blur(strong, 1.8 * s) * 1.6
        + blur(blur(strong, 3.0 * s) * 4, 5.0 * s) * 0.9
    )
    out += blur(lamps, 1.4 * s) * 0.25
    if rng.random() < 0.6:
        drift = max(1, round(s))
        out = 0.6 * out + 0.2 * np.roll(out, drift, 1) + 0.2 * np.roll(out, -drift, 1)
    shot = np.sqrt(np.clip(out, 0, 1) * 0.0016 + 0.00035).astype(np.float32)
    out += rng.standard_normal(out.shape, dtype=np.float32) * shot * np.float32(rng.uniform(0.7, 1.3))
    return to_uint8((out - 0.018) * np.float32(rng.uniform(0.95, 1.2)))


def misty_night(scene: Scene, rng: np.random.Generator) -> U8:
    """A wet night in mist under cold mercury lamps: green air that hides what is far, glow, mirrors in the street."""
    x, s, part = to_float(scene.image), unit(scene), scene.part
    height, width = scene.mask.shape
    mercury = colour(150, 236, 206) * (1 + rng.normal(0, 0.04, 3).astype(np.float32))
    light = np.minimum(_illumination(scene, rng), 2.2)[..., None]
    base = grey(x)[..., None] * 0.62 + x * 0.38
    out = base * (colour(24, 34, 40) + light * mercury * np.float32(rng.uniform(0.34, 0.5)))
    drift = 1 + 0.3 * smooth_noise(rng, height, width, 4.0, 2.5)[..., None]
    reach = np.float32(rng.uniform(16, 34))
    clear = np.exp(-np.minimum(scene.air, 60)[..., None] / reach * np.maximum(drift, 0.4))
    air = mercury * np.float32(rng.uniform(0.24, 0.36)) * (0.55 + 0.45 * _shift(scene)[..., None]) * drift
    out = out * clear + air * (1 - clear)
    lamps = np.zeros_like(out)
    lit = (part >= PART_WINDOW) & (part % 16 < int(rng.integers(1, 4)))
    lamps[lit] = colour(186, 214, 255) * np.float32(rng.uniform(0.4, 0.6))
    lamps[part == PART_LAMP] = colour(226, 255, 242)
    lamps[part == PART_HEAD] = colour(255, 248, 214)
    lamps[part == PART_TAIL] = colour(255, 60, 44)
    lamps[part == PART_SIGNAL] = to_float(scene.image)[part == PART_SIGNAL]
    out = np.maximum(out, lamps) + blur(lamps, 2.4 * s) * 0.9 + blur(blur(lamps, 4.0 * s) * 3, 7.0 * s) * 0.8
    wet = np.isin(scene.mask, (ROAD, WALK))[..., None] * np.float32(rng.uniform(0.35, 0.55))
    out += (_mirror(scene, out) - out) * wet * np.clip(drift, 0.3, 1)
    noise = 0.014 * np.float32(rng.uniform(0.7, 1.4))
    return to_uint8(grain(rng, blur(out, 0.5 * s), float(noise), float(noise)))


def fog(scene: Scene, rng: np.random.Generator) -> U8:
    """Fog whose density grows with distance, in drifts."""
    x = to_float(scene.image)
    height, width = scene.mask.shape
    reach = np.float32(rng.uniform(7, 22))
    drift = 1 + 0.22 * smooth_noise(rng, height, width, 3.0, 2.5)
    clear = np.exp(-np.maximum(scene.air - 2.0, 0) / reach * np.maximum(drift, 0.3))
    clear = np.maximum(clear, 0.07)[..., None].astype(np.float32)
    air = (
        colour(204, 208, 212)
        * np.float32(rng.uniform(0.84, 1.1))
        * (1 + rng.normal(0, 0.015, 3).astype(np.float32))
    )
    keep = np.float32(rng.uniform(0.5, 0.8))
    x = x * keep + grey(x)[..., None] * (1 - keep)
    return to_uint8(grain(rng, x * clear + air * (1 - clear), float(rng.uniform(0.004, 0.014))))


def _mirror(scene: Scene, x: F32) -> F32:
    """The image reflected in a wet street: rows mirrored about the horizon, smeared vertically."""
    height = x.shape[0]
    rows = np.arange(height)
    foot = scene.camera.horizon
    source = np.clip((2 * foot - rows).astype(np.int64), 0, height - 1)
    mirrored = x[source]
    return (
        mirrored + np.roll(mirrored, 2, 0) + np.roll(mirrored, -2, 0) + np.roll(mirrored, 4, 0)
    ) * np.float32(0.25)


def rain(scene: Scene, rng: np.random.Generator) -> U8:
    """Dull light, wet reflections, slanted streaks."""
    x = to_float(scene.image)
    height, width = scene.mask.shape
    s = unit(scene)
    dim = np.float32(rng.uniform(0.56, 0.8))
    x = (x * 0.5 + grey(x)[..., None] * 0.5) * dim * colour(236, 246, 255)
    t = _shift(scene)[..., None]
    clouds = smooth_noise(rng, height, width, 4.0, 2.0)[..., None] * 0.035
    cover = colour(96, 104, 116) * (1 - t) + colour(140, 148, 156) * t
    sky = (scene.mask == SKY)[..., None]
    x = np.where(sky, cover * (dim + 0.35) + clouds, x)
    veil = (1 - np.exp(-np.minimum(scene.air, 80) / np.float32(rng.uniform(35, 70))))[..., None] * ~sky
    x += (colour(130, 138, 148) * (dim + 0.3) - x) * veil
    wet = (np.isin(scene.mask, (ROAD, WALK)))[..., None] * np.float32(rng.uniform(0.3, 0.5))
    puddle = np.clip(0.8 + 0.5 * smooth_noise(rng, height, width, 7.0, 3.0), 0.2, 1.4)[..., None]
    x += (_mirror(scene, x) * 1.05 - x) * wet * puddle
    lights = np.isin(scene.part, (PART_LAMP, PART_HEAD, PART_TAIL))[..., None] * to_float(scene.image)
    x = np.maximum(x, lights) + blur(lights, 2 * s) * 0.5
    streaks = Image.new("L", (width, height))
    pen = ImageDraw.Draw(streaks)
    slant = rng.uniform(-0.35, 0.35)
    for _ in range(int(rng.uniform(60, 170) * width * height / (128 * 128 * s))):
        u, v, long = rng.uniform(0, width), rng.uniform(-5, height), rng.uniform(4, 11) * s
        pen.line(
            (u, v, u + slant * long, v + long), fill=int(rng.uniform(50, 150)), width=max(1, round(s * 0.7))
        )
    x += to_float(np.asarray(streaks))[..., None] * 0.62
    return to_uint8(grain(rng, x, 0.01))


def snow(scene: Scene, rng: np.random.Generator) -> U8:
    """Snow on ground, leaves, roofs and cars, a pale sky and falling flakes."""
    x = to_float(scene.image)
    height, width = scene.mask.shape
    s, mask = unit(scene), scene.mask
    x = x * 0.62 + grey(x)[..., None] * 0.38
    t = _shift(scene)[..., None]
    x = np.where((mask == SKY)[..., None], colour(176, 186, 202) * (1 - t) + colour(218, 222, 228) * t, x)
    patch = smooth_noise(rng, height, width, 9.0, 2.5)
    fine = rng.standard_normal((height, width), dtype=np.float32)
    cover = np.asarray((0.0, 0.06, 0.5, 0.86, 0.76, 0.05, 0.03, 0.0), np.float32)[mask]
    cover = cover * np.float32(rng.uniform(0.75, 1.1)) + np.where(
        cover > 0.3, 0.2 * patch + np.where(mask == GREEN, 0.11, 0.04) * fine, 0
    )
    # Snow lies on everything that has open air above it.
    open_air = np.zeros((height, width), np.bool_)
    for step in range(1, max(2, round(2 * s)) + 1):
        top = np.zeros_like(open_air)
        top[step:] = (mask[step:] != mask[:-step]) & np.isin(mask[step:], (BUILDING, GREEN, CAR, PERSON))
        open_air |= top
    cover = np.clip(np.maximum(cover, 0.85 * open_air), 0, 0.96)[..., None]
    white = colour(240, 244, 252) * (0.94 + 0.03 * patch[..., None])
    x = x + (white * (0.72 + 0.28 * grey(x)[..., None]) - x) * cover
    veil = (1 - np.exp(-np.minimum(scene.air, 80) / np.float32(rng.uniform(35, 80))))[..., None]
    x += (colour(214, 220, 228) - x) * veil * (mask != SKY)[..., None]
    flakes = Image.new("L", (width, height))
    pen = ImageDraw.Draw(flakes)
    for _ in range(int(rng.uniform(60, 200) * width * height / (128 * 128 * s * s))):
        u, v, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.3, 1.15) * s
        pen.ellipse((u - r, v - r, u + r, v + r), fill=int(rng.uniform(120, 255)))
    flakes = flakes.filter(ImageFilter.GaussianBlur(0.45 * s))
    x += (1 - x) * to_float(np.asarray(flakes))[..., None]
    return to_uint8(grain(rng, x, 0.008))


def sunset(scene: Scene, rng: np.random.Generator) -> U8:
    """A low sun: orange and purple sky, warm back light, long haze, dim foreground."""
    x = to_float(scene.image)
    height, width = scene.mask.shape
    t = _shift(scene)[..., None]
    top = (colour(70, 52, 118), colour(96, 84, 150), colour(130, 70, 110))[int(rng.integers(3))]
    low = (colour(255, 150, 60), colour(255, 176, 90), colour(250, 116, 78))[int(rng.integers(3))]
    middle = colour(226, 104, 96)
    sky = np.where(t < 0.55, top + (middle - top) * t / 0.55, middle + (low - middle) * (t - 0.55) / 0.45)
    u, v = rng.uniform(0.15, 0.85) * width, scene.camera.horizon - rng.uniform(4, 26) * unit(scene)
    far = np.hypot(
        np.arange(width, dtype=np.float32)[None] - u, np.arange(height, dtype=np.float32)[:, None] - v
    )
    far = (far / unit(scene))[..., None].astype(np.float32)
    cloud = np.clip(grey(to_float(scene.image)) - 0.72, 0, 0.25)[..., None] * 1.4
    sun = np.clip(1.5 - far / 6.0, 0, 1)
    halo = np.exp(-far / 22.0)
    sky = sky * (0.92 - cloud * 0.5) + halo * colour(255, 210, 120) * 0.5
    sky = sky + (colour(255, 244, 190) - sky) * sun
    dim = np.float32(rng.uniform(0.52, 0.78))
    warm = colour(255, 196, 150) * (1 + rng.normal(0, 0.03, 3).astype(np.float32))
    body = (x * 0.8 + grey(x)[..., None] * 0.2) * warm * dim + halo * colour(255, 150, 70) * 0.28
    haze = (1 - np.exp(-np.minimum(scene.air, 80) / 60))[..., None]
    body += (low * 0.8 - body) * haze * 0.7
    x = np.where((scene.mask == SKY)[..., None], sky, body)
    glass = scene.part == PART_GLASS
    panes = (scene.part >= PART_WINDOW) & (scene.part % 5 == 0)
    x = np.where((glass | panes)[..., None], x * 0.7 + low * 0.3, x)
    return to_uint8(grain(rng, x.astype(np.float32), float(rng.uniform(0.004, 0.016))))
