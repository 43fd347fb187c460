"""Looks made by hand: comic, watercolor and sketch in general; aquarelle and manga in particular; and thermal."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from tadp_da.mini._canvas import PART_GLASS, PART_HEAD, PART_LAMP, PART_SIGNAL, PART_SKIN, PART_TAIL, PART_WHEEL, PART_WINDOW
from tadp_da.mini._effects import (
    CAR, F32, GREEN, PERSON, SKY, U8, blur, colour, edges, grain, grey, outlines, smooth_noise, to_float, to_uint8,
    unit,
)  # fmt: skip
from tadp_da.mini.world import Scene


def _saturate(x: F32, amount: float) -> F32:
    return grey(x)[..., None] * np.float32(1 - amount) + x * np.float32(amount)


def comic(scene: Scene, rng: np.random.Generator) -> U8:
    """Flat bright colours in few steps, with drawn outlines."""
    s = unit(scene)
    picture = Image.fromarray(scene.image).filter(ImageFilter.MedianFilter(3))
    x = np.clip(_saturate(to_float(np.asarray(picture)), float(rng.uniform(1.3, 2.0))), 0, 1)
    steps = np.float32(rng.integers(3, 6))
    x = np.round(np.clip(x * 1.08, 0, 1) * steps) / steps
    ink = outlines(scene, max(1, round(s * float(rng.integers(1, 3)))))
    drawn = edges(grey(to_float(scene.image)))
    line = np.maximum(ink, np.clip((drawn - 0.22) * 4, 0, 1) * 0.9)
    tone = (colour(16, 14, 22), colour(34, 18, 60), colour(10, 30, 50))[int(rng.integers(3))]
    x = x + (tone - x) * line[..., None].astype(np.float32)
    return to_uint8(grain(rng, x, 0.006))


def watercolor(scene: Scene, rng: np.random.Generator) -> U8:
    """Light, smooth washes with soft darker rims on white paper."""
    height, width = scene.mask.shape
    s = unit(scene)
    picture = Image.fromarray(scene.image).filter(ImageFilter.MedianFilter(5))
    x = blur(to_float(np.asarray(picture)), float(rng.uniform(0.5, 1.2)) * s)
    x = np.clip(_saturate(x, float(rng.uniform(0.9, 1.3))), 0, 1)
    wash = smooth_noise(rng, height, width, float(rng.uniform(4, 9))) * np.float32(rng.uniform(0.05, 0.12))
    lift = np.float32(rng.uniform(0.25, 0.42))
    pale = x + (1 - x) * np.clip(lift + wash, 0, 1)[..., None]
    rim = np.clip(edges(grey(x)) * 1.2, 0, 0.35)[..., None] * np.float32(rng.uniform(0.6, 1.3))
    paper = 1 + 0.018 * rng.standard_normal((height, width, 1), dtype=np.float32)
    return to_uint8(pale * (1 - rim) * paper * colour(254, 252, 246))


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
        wave = np.sin((u * np.float32(np.cos(turn)) + sign * v * np.float32(np.sin(turn))) * np.float32(6.283) / pitch)
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
    x = to_float(np.asarray(Image.fromarray(scene.image).filter(ImageFilter.MedianFilter(5))))
    wet, wetter = blur(x, 1.6 * s), blur(x, 4.5 * s)
    flow = np.clip(0.5 + 0.55 * smooth_noise(rng, height, width, 5.0), 0, 1)[..., None]
    bled = wet + (wetter - wet) * flow * np.float32(0.75)
    # Pigment density per channel (Beer-Lambert); the mixing matrix replaces the paints of the palette.
    dense = -np.log(np.clip(bled, 0.03, 1))
    turn = float(rng.uniform(0.75, 1.0))
    mix = np.asarray(((0.62, 0.10, 0.42), (0.46, 0.60, 0.02), (0.02, 0.52, 0.44)), np.float32)
    mix = np.eye(3, dtype=np.float32) * np.float32(1 - turn) + mix * np.float32(turn)
    dense = dense @ mix.T
    # A drying wash leaves its pigment at the rim: density gathers on the inner side of every border.
    soft = outlines(scene, 2).astype(np.float32)
    rim = blur(soft, 0.7 * s) * 0.75 + np.clip(edges(grey(wet)), 0, 0.4) * 1.0
    tooth = rng.standard_normal((height, width), dtype=np.float32)
    paper_grain = 0.75 * tooth + 0.25 * np.roll(tooth, 1, 0) + 0.5 * smooth_noise(rng, height, width, 45.0)
    bloom = smooth_noise(rng, height, width, 7.0)
    backrun = np.clip(1 - np.abs(bloom - 0.4) * 7, 0, 1) * 0.22
    amount = (0.55 + 0.26 * flow[..., 0] + 0.9 * rim * (0.5 + dense.mean(-1)) + backrun) * (1 + 0.16 * paper_grain)
    paper = colour(250, 238, 212) * (1 - 0.014 * paper_grain[..., None])
    return to_uint8(paper * np.exp(-dense * np.maximum(amount, 0.05)[..., None]))


def manga(scene: Scene, rng: np.random.Generator) -> U8:
    """Printed black ink on cream paper: dot screens for tone, thick outlines, one spot colour."""
    height, width = scene.mask.shape
    s = unit(scene)
    tone = blur(grey(to_float(scene.image)), 0.8 * s)
    tone = np.clip((tone - 0.12) * 1.25, 0, 1) ** 0.9
    u, v = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    pitch = np.float32(4.0 * s)
    p, q = (u + v) * np.float32(4.4429) / pitch, (u - v) * np.float32(4.4429) / pitch
    screen = (np.cos(p) + np.cos(q)) * 0.25 + 0.5
    dots = np.clip((0.86 * (1 - tone) - screen) * 7 + 0.5, 0, 1)
    ink = colour(22, 20, 34)
    spot = (colour(232, 84, 96), colour(70, 170, 196), colour(236, 168, 60))[int(rng.integers(3))]
    paper = np.broadcast_to(colour(244, 238, 222), (height, width, 3))
    bodies = np.isin(scene.mask, (CAR, PERSON)) & (scene.part == 0)
    leaves = scene.mask == GREEN
    paint = np.where(bodies[..., None], spot, paper)
    lines = np.sin((u * np.float32(0.5) + v) * np.float32(6.283) / np.float32(3.4 * s)) > 0.1
    dots = np.where(leaves, np.maximum(lines * 0.85, dots * 0.5), dots)
    dots = np.where(scene.mask == SKY, dots * 0.6, dots)
    dots = np.where(bodies, dots * 0.45, dots)
    inside = np.clip((edges(grey(to_float(scene.image))) - 0.2) * 5, 0, 1)
    cover = np.maximum(np.maximum(dots, inside), outlines(scene, max(2, round(2 * s))))[..., None]
    x = paint + (ink - paint) * cover.astype(np.float32)
    return to_uint8(grain(rng, x.astype(np.float32), 0.012))


_IRON = np.asarray(
    ((0, 0, 12), (28, 8, 92), (96, 6, 148), (176, 28, 140), (228, 84, 60), (250, 152, 20), (255, 218, 82), (255, 255, 230)),
    np.float32,
)


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
    heat = np.where(scene.mask == SKY, heat + 0.12 * t ** 2, heat)
    heat = heat + (grey(to_float(scene.image)) - 0.5) * np.float32(-0.16)
    for code, change in ((PART_GLASS, -0.22), (PART_WHEEL, 0.26), (PART_HEAD, 0.34), (PART_TAIL, 0.26), (PART_LAMP, 0.62),
                         (PART_SIGNAL, 0.5), (PART_SKIN, 0.16)):  # fmt: skip
        heat = np.where(part == code, heat + np.float32(change), heat)
    heat = np.where(part >= PART_WINDOW, heat + np.where(part % 3 == 0, np.float32(0.2), np.float32(-0.08)), heat)
    heat = blur(np.clip(heat, 0, 1), 0.8 * s) * 0.8 + 0.2 * blur(np.clip(heat, 0, 1), 2.5 * s)
    heat += 0.02 * smooth_noise(rng, height, width, 4.0)
    heat += rng.normal(0, 0.008, (1, width)).astype(np.float32)
    heat += rng.standard_normal((height, width), dtype=np.float32) * np.float32(0.012)
    span = np.float32(rng.uniform(0.95, 1.12))
    place = np.clip((heat - 0.02) * span, 0, 1) * 255
    ramp = np.stack([np.interp(np.arange(256), np.linspace(0, 255, len(_IRON)), _IRON[:, c]) for c in range(3)], 1)
    return np.asarray(ramp.astype(np.uint8)[place.astype(np.uint8)])
