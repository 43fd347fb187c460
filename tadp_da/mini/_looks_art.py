"""Looks made by hand: comic, watercolor and sketch in general; aquarelle and manga in particular; and thermal."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from tadp_da.mini._canvas import (
    PART_GLASS,
    PART_HEAD,
    PART_LAMP,
    PART_SIGNAL,
    PART_SKIN,
    PART_TAIL,
    PART_WHEEL,
    PART_WINDOW,
)
from tadp_da.mini._effects import (
    CAR,
    F32,
    GREEN,
    PERSON,
    SKY,
    U8,
    blur,
    colour,
    edges,
    grain,
    grey,
    outlines,
    to_float,
    to_uint8,
    unit,
)  # fmt: skip
from tadp_da.mini._ground import smooth_noise
from tadp_da.mini.world import Scene


def _saturate(x: F32, amount: float) -> F32:
    return grey(x)[..., None] * np.float32(1 - amount) + x * np.float32(amount)


def comic(scene: Scene, rng: np.random.Generator) -> U8:
    """Flat bright colours in few steps, with drawn outlines."""
    s = unit(scene)
    x = to_float(np.asarray(Image.fromarray(scene.image).filter(ImageFilter.MedianFilter(3))))
    light = grey(x)
    steps = np.float32(rng.integers(4, 7))
    flat = np.floor(np.clip(light * np.float32(1.06), 0, 0.999) * steps) / (steps - 1)
    # Only the light is cut into steps: steps per channel would speckle the greys with odd hues.
    hue = (x - light[..., None]) * np.float32(rng.uniform(1.3, 2.1))
    x = np.clip(flat[..., None] * np.float32(0.86) + np.float32(0.1) + hue, 0, 1)
    ink = outlines(scene, max(1, round(s * float(rng.integers(1, 3)))))
    drawn = edges(light)
    line = np.maximum(ink, np.clip((drawn - np.float32(rng.uniform(0.2, 0.3))) * 4, 0, 1) * 0.9)
    tone = (colour(16, 14, 22), colour(34, 18, 60), colour(10, 30, 50))[int(rng.integers(3))]
    x = x + (tone - x) * line[..., None].astype(np.float32)
    return to_uint8(grain(rng, x, 0.006))


def watercolor(scene: Scene, rng: np.random.Generator) -> U8:
    """Clear light washes on white paper, with soft darker rims or thin white gaps between them."""
    height, width = scene.mask.shape
    s = unit(scene)
    x = to_float(np.asarray(Image.fromarray(scene.image).filter(ImageFilter.MedianFilter(3))))
    x = blur(x, float(rng.uniform(0.5, 1.0)) * s)
    x = np.clip(_saturate(x, float(rng.uniform(1.2, 1.7))), 0, 1)
    wash = smooth_noise(rng, height, width, float(rng.uniform(4, 10))) * np.float32(rng.uniform(0.08, 0.2))
    water = np.float32(rng.uniform(0.62, 0.9)) * (1 + wash)
    line = blur(outlines(scene).astype(np.float32), 0.5 * s)
    if rng.random() < 0.4:
        water = water * (1 - line * np.float32(0.8))
    else:
        water = water + (line * 0.35 + np.clip(edges(grey(x)), 0, 0.4)) * np.float32(rng.uniform(0.5, 1.1))
    paper = 1 + 0.02 * rng.standard_normal((height, width, 1), dtype=np.float32)
    return to_uint8((1 - (1 - x) * water[..., None]) * paper * colour(255, 253, 248))


def sketch(scene: Scene, rng: np.random.Generator) -> U8:
    """Pencil lines and hatching on paper, grey or sepia."""
    height, width = scene.mask.shape
    s = unit(scene)
    tone = grey(to_float(scene.image))
    lines = np.clip((edges(tone) - 0.05) * np.float32(rng.uniform(2.2, 3.6)), 0, 0.85)
    lines = np.maximum(lines, outlines(scene) * np.float32(rng.uniform(0.6, 0.9)))
    lines *= np.clip(0.85 + 0.25 * smooth_noise(rng, height, width, 16.0), 0.3, 1)
    u, v = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    pitch = np.float32(rng.uniform(3.0, 4.2) * s)
    turn = rng.uniform(0.5, 1.0)
    hatch = np.zeros_like(tone)
    for level, sign in ((0.62, 1), (0.42, -1)):
        wave = np.sin(
            (u * np.float32(np.cos(turn)) + sign * v * np.float32(np.sin(turn))) * np.float32(6.283) / pitch
        )
        hatch += np.clip((level - tone) * 3.0, 0, 1) * np.clip(wave * 1.5, 0, 1) * 0.4
    paper = colour(246, 242, 232) * np.float32(rng.uniform(0.92, 1.02))
    pencil = colour(52, 52, 58) if rng.random() < 0.6 else colour(96, 62, 40)
    cover = np.clip(lines + hatch + (0.8 - tone) * np.float32(rng.uniform(0.05, 0.25)), 0, 1)[..., None]
    rough = 1 + 0.03 * rng.standard_normal((height, width, 1), dtype=np.float32)
    return to_uint8((paper + (pencil - paper) * cover) * rough)


def aquarelle(scene: Scene, rng: np.random.Generator) -> U8:
    """Wet in wet: pigments bleed and pool at the rims, granulate on rough cream paper, in a shifted palette."""
    height, width = scene.mask.shape
    s = unit(scene)
    x = to_float(np.asarray(Image.fromarray(scene.image).filter(ImageFilter.MedianFilter(3))))
    wet, wetter = blur(x, 1.3 * s), blur(x, 4.5 * s)
    flow = np.clip(0.45 + 0.6 * smooth_noise(rng, height, width, 5.0), 0, 1)[..., None]
    bled = wet + (wetter - wet) * flow * np.float32(0.8)
    # Pigment density per channel (Beer-Lambert), its hue turned: violet skies, teal leaves, orange for red.
    dense = -np.log(np.clip(bled, 0.04, 1)) @ _turn_hue(rng.uniform(24, 36), 1.35).T
    # A drying wash leaves its pigment at the rim: density gathers on the inner side of every border.
    rim = blur(outlines(scene).astype(np.float32), 0.6 * s) * 0.7 + np.clip(edges(grey(wet)) * 1.5, 0, 0.5)
    tooth = blur(rng.random((height, width), dtype=np.float32), 0.7 * s) - 0.5
    paper_grain = tooth * 6 + 0.4 * smooth_noise(rng, height, width, 30.0)
    backrun = np.clip(1 - np.abs(smooth_noise(rng, height, width, 6.0) - 0.6) * 2.5, 0, 1) ** 2 * 0.22
    weight = dense.mean(-1)
    amount = 0.42 + 0.28 * flow[..., 0] + rim * (0.35 + weight) + backrun
    amount *= 1 + 0.15 * paper_grain * np.clip(weight * 1.6, 0.3, 1)
    paper = colour(252, 242, 220) * (1 - 0.012 * paper_grain[..., None])
    return to_uint8(paper * np.exp(-np.maximum(dense, 0) * np.maximum(amount, 0.05)[..., None]))


def _turn_hue(degrees: float, saturation: float) -> F32:
    """A (3, 3) matrix that turns colours about the grey axis and scales their distance from it."""
    a = np.radians(degrees)
    k = np.full((3, 3), 1 / 3)
    cross = np.asarray(((0, -1, 1), (1, 0, -1), (-1, 1, 0))) / np.sqrt(3)
    return np.asarray(k + saturation * (np.cos(a) * (np.eye(3) - k) + np.sin(a) * cross), np.float32)


def manga(scene: Scene, rng: np.random.Generator) -> U8:
    """Printed black ink on cream paper: dot screens for tone, thick outlines, one spot colour."""
    height, width = scene.mask.shape
    s, mask = unit(scene), scene.mask
    light = grey(to_float(scene.image))
    tone = np.clip((blur(light, 0.7 * s) - 0.16) * np.float32(2.0), 0, 1)
    t = np.clip(np.arange(height, dtype=np.float32)[:, None] / scene.camera.horizon, 0, 1)
    tone = np.where(mask == SKY, 0.6 + 0.6 * t, tone)
    u, v = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    wave = np.float32(4.4429 / (4.0 * s))
    screen = (np.cos((u + v) * wave) + np.cos((u - v) * wave)) * np.float32(0.25) + np.float32(0.5)
    dots = np.clip((np.float32(0.92) - tone - screen) * 5 + 0.5, 0, 1)
    hatch = np.sin((u * np.float32(0.5) + v) * np.float32(6.283 / (3.4 * s)))
    leaves = np.clip((0.75 - light) * 2.2 + hatch * 0.7, 0, 1) * 0.9
    dots = np.where(mask == GREEN, leaves, dots)
    bodies = np.isin(mask, (CAR, PERSON))
    dots = np.where(bodies, np.clip((0.34 - light) * 6, 0, 1), dots)
    spot = (colour(232, 84, 96), colour(70, 170, 196), colour(236, 168, 60))[int(rng.integers(3))]
    x = np.broadcast_to(colour(246, 240, 226), (height, width, 3))
    x = np.where(
        (bodies & (scene.part == 0))[..., None], spot * np.clip(0.6 + 0.5 * light, 0, 1.1)[..., None], x
    )
    inside = np.clip((edges(light) - 0.22) * 5, 0, 1)
    cover = np.maximum(np.maximum(dots, inside), outlines(scene, max(2, round(2 * s))))[..., None]
    x = x + (colour(22, 20, 34) - x) * cover
    return to_uint8(grain(rng, x.astype(np.float32), 0.012))


_IRON = np.asarray(
    (
        (0, 0, 12),
        (28, 8, 92),
        (96, 6, 148),
        (176, 28, 140),
        (228, 84, 60),
        (250, 152, 20),
        (255, 218, 82),
        (255, 255, 230),
    ),
    np.float32,
)


_WARMER = {PART_GLASS: -0.22, PART_WHEEL: 0.26, PART_HEAD: 0.34, PART_TAIL: 0.26, PART_LAMP: 0.62, PART_SIGNAL: 0.5,
           PART_SKIN: 0.16}  # fmt: skip


def thermal(scene: Scene, rng: np.random.Generator) -> U8:
    """A thermal camera in false colour: warm people, engines, tyres and lamps; a cold sky."""
    height, width = scene.mask.shape
    s, part = unit(scene), scene.part
    warmth = np.asarray((0.05, 0.36, 0.30, 0.38, 0.22, 0.30, 0.50, 0.86), np.float32)
    warmth = warmth + rng.normal(0, 0.02, 8).astype(np.float32)
    heat = warmth[scene.mask]
    ids = scene.ident
    own = rng.normal(0, 0.045, int(ids.max()) + 1).astype(np.float32)
    own[:1] = 0
    heat = heat + own[ids]
    t = np.clip(np.arange(height, dtype=np.float32)[:, None] / scene.camera.horizon, 0, 1)
    heat = np.where(scene.mask == SKY, heat + 0.12 * t**2, heat)
    heat = heat + (grey(to_float(scene.image)) - 0.5) * np.float32(-0.16)
    change = np.zeros(256, np.float32)
    for code, warmer in _WARMER.items():
        change[code] = warmer
    heat = heat + change[part]
    heat = np.where(
        part >= PART_WINDOW, heat + np.where(part % 3 == 0, np.float32(0.2), np.float32(-0.08)), heat
    )
    heat = blur(np.clip(heat, 0, 1), 0.8 * s) * 0.8 + 0.2 * blur(np.clip(heat, 0, 1), 2.5 * s)
    heat += 0.02 * smooth_noise(rng, height, width, 4.0)
    heat += rng.normal(0, 0.008, (1, width)).astype(np.float32)
    heat += rng.standard_normal((height, width), dtype=np.float32) * np.float32(0.012)
    span = np.float32(rng.uniform(0.95, 1.12))
    place = np.clip((heat - 0.02) * span, 0, 1) * 255
    ramp = np.stack(
        [np.interp(np.arange(256), np.linspace(0, 255, len(_IRON)), _IRON[:, c]) for c in range(3)], 1
    )
    return np.asarray(ramp.astype(np.uint8)[place.astype(np.uint8)])
