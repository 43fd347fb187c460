"""The sky and the ground plane, computed per pixel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tadp_da.mini._layout import FAR, Camera, ScenePlan

SKY, BUILDING, ROAD, WALK, GREEN = 0, 1, 2, 3, 4
"""Idents of stuff equal the class ids; things (cars, trees, single buildings, ...) get idents from 8 on."""

F32 = NDArray[np.float32]


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: float, across: float = 1.0) -> F32:
    """Smooth noise (h, w) with mean 0 and deviation near 1; ``cells`` per shorter side, stretched by ``across``."""
    scale = cells / min(height, width)
    rows, columns = max(2, round(height * scale)), max(2, round(width * scale / across))
    grid = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), np.float32) * np.float32(1.25)


def draw_sky(rng: np.random.Generator, plan: ScenePlan, height: int, width: int) -> F32:
    """A gradient with soft clouds, float32 (h, w, 3) in 0..255, over the whole canvas."""
    top, low = (np.asarray(plan.tones[k], np.float32) for k in ("zenith", "haze"))
    if plan.cloud == 1.0:
        grey = np.asarray((176, 186, 198), np.float32)
        top, low = 0.2 * top + 0.8 * grey, 0.3 * low + 0.7 * np.asarray((214, 218, 222), np.float32)
    t = np.clip(np.arange(height, dtype=np.float32) / plan.camera.horizon, 0, 1)[:, None, None] ** 1.2
    sky = np.empty((height, width, 3), np.float32)
    sky[:] = top * (1 - t) + low * t
    if plan.cloud:
        small = 4
        rows, columns = max(8, int(plan.camera.horizon / small)), width // small
        image = Image.new("L", (columns, rows))
        pen = ImageDraw.Draw(image)
        span = plan.unit / small
        for _ in range(int(rng.integers(2, 4) + 4 * plan.cloud)):
            u, v = rng.uniform(0, columns), rng.uniform(0, rows * 0.72)
            wide = rng.uniform(9, 20) * span * (1 + plan.cloud)
            for puff in range(6):
                x = u + (puff - 2.5) / 2.5 * wide * 0.62
                r = wide * rng.uniform(0.16, 0.34) * (1.25 - abs(puff - 2.5) / 3.4)
                pen.ellipse(
                    (x - r * 1.3, v - r * 0.8, x + r * 1.3, v + r * 0.45), fill=int(rng.uniform(180, 255))
                )
        image = image.filter(ImageFilter.GaussianBlur(0.8 * span * 2)).resize(
            (width, rows * small), Image.Resampling.BICUBIC
        )
        alpha = np.asarray(image, np.float32)[:height, :, None] / 255
        # A cloud is white above and grey-blue below: its own shadow is its shape moved down.
        base = np.roll(alpha, int(-1.6 * plan.unit), 0)
        white = 238 + 17 * (1 - base) - (34 if plan.cloud == 1.0 else 14) * base
        body = np.concatenate([white - 6 * base, white - 2 * base, white + 5 * base], 2)
        rows_all = alpha.shape[0]
        sky[:rows_all] += (body - sky[:rows_all]) * (alpha * 0.92)
    return sky


def _shadows(plan: ScenePlan, height: int, width: int) -> F32:
    """Light left on the ground (h, w) in 0..1: cast shadows of things, soft blobs under them."""
    quarter = 0.5  # of the canvas: shadows are soft anyway
    image = Image.new("L", (int(width * quarter), int(height * quarter)), 255)
    pen = ImageDraw.Draw(image)
    cam, deep = plan.camera.scaled(quarter), (0.86 if plan.cloud == 1.0 else 0.6)
    sx, sz = plan.sun
    for a in plan.actors:
        if a.kind == "car":
            near, far, half = a.z - 0.15, a.z + 3.5, a.wide / 2
            shift = sx * a.tall * 0.9
            left, right = a.x - half + min(0, shift), a.x + half + max(0, shift)
            quad = [
                cam.at(left, 0, near),
                cam.at(right, 0, near),
                cam.at(right, 0, far),
                cam.at(left, 0, far),
            ]
            pen.polygon(quad, fill=int(255 * deep * 0.8))
            continue
        x, z = a.x, a.z
        if plan.cloud < 1.0:
            x, z = a.x + sx * a.tall * 0.9, max(2.0, a.z + sz * a.tall * 0.6 + 0.3)
            foot, tip = 0.2 - 0.08 * (a.kind != "person"), a.wide * (0.12 if a.kind == "tree" else 0.3)
            outline = [
                cam.at(a.x - foot, 0, a.z),
                cam.at(a.x + foot, 0, a.z),
                cam.at(x + tip, 0, z),
                cam.at(x - tip, 0, z),
            ]
            pen.polygon(outline, fill=int(255 * deep))
        if a.kind == "tree":
            _blob(pen, cam, x, z, a.wide * 0.42, deep)
        elif a.kind == "person":
            _blob(pen, cam, a.x, a.z, a.wide * 0.6, deep)
    image = image.filter(ImageFilter.GaussianBlur(0.4 * plan.unit * quarter + 0.3)).resize((width, height))
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def _blob(pen: ImageDraw.ImageDraw, cam: Camera, x: float, z: float, radius: float, light: float) -> None:
    """A flat ellipse of shadow on the ground."""
    u, v = cam.at(x, 0, z)
    r = cam.focal * radius / z
    pen.ellipse((u - r, v - r * 0.3, u + r, v + r * 0.3), fill=int(255 * light))


def draw_ground(rng: np.random.Generator, plan: ScenePlan, rgb: F32, ident: NDArray[np.int32]) -> None:
    """Paint road, sidewalks and verges below the horizon into ``rgb`` and ``ident``, in place."""
    height, width = ident.shape
    cam = plan.camera
    first = max(0, int(np.ceil(cam.horizon + cam.focal * cam.height / FAR)))
    v = np.arange(first, height, dtype=np.float32)[:, None] + 0.5
    z = np.float32(cam.focal * cam.height) / (v - np.float32(cam.horizon))
    u = np.arange(width, dtype=np.float32)[None] + 0.5
    x = (u - np.float32(cam.cx)) * (z / np.float32(cam.focal)) - np.float32(0.5 * cam.curve) * z * z
    side, off = x > 0, np.abs(x)
    verge = np.where(side, np.float32(plan.verge[1]), np.float32(plan.verge[0]))
    paved = plan.road + plan.walk
    on_road, on_walk = off < plan.road, off < paved
    green = ~on_walk & (off < paved + verge)
    kind = np.where(on_road, ROAD, np.where(green, GREEN, WALK)).astype(np.int32)
    lut = np.zeros((8, 3), np.float32)
    for key, name in ((ROAD, "road"), (WALK, "walk"), (GREEN, "grass")):
        lut[key] = plan.tones[name]
    light = np.ones_like(x)
    pixel = z * np.float32(1 / cam.focal)
    # Slabs of the sidewalk, a bright kerb with a dark gutter, worn wheel tracks, mown stripes.
    light[~on_road & ~green & (z < 22) & (z % np.float32(1.4) < 0.07)] = 0.88
    light[np.abs(off - np.float32(plan.road + 0.09)) < np.maximum(0.09, pixel * 0.8)] = 1.16
    light[np.abs(off - np.float32(plan.road - 0.08)) < np.maximum(0.07, pixel * 0.7)] = 0.78
    light[np.abs(off - np.float32(plan.road * 0.5)) < 0.25] -= np.float32(0.05)
    light[green & (off % np.float32(3.2) < 1.6)] -= np.float32(0.05)
    colour = lut[kind] * light[..., None]
    _markings(plan, x, z, pixel, colour)
    dusk = 1 - _shadows(plan, height, width)[first:, :, None]
    grain = smooth_noise(rng, height - first, width, 40.0, 2.5)
    grain *= np.asarray((0, 0, 2.2, 2.2, 5.0), np.float32)[kind]
    haze = np.minimum(z / np.float32(FAR), 1)[..., None] * np.float32(0.45)
    for channel, depth in enumerate((1.0, 0.97, 0.86)):  # shadows are a little blue: the sky lights them
        plane = colour[..., channel]
        plane *= 1 - dusk[..., 0] * np.float32(depth)
        plane += grain
        plane += (np.float32(plan.tones["haze"][channel]) - plane) * haze[..., 0]
    rgb[first:] = colour
    ident[first:] = kind


def _markings(plan: ScenePlan, x: F32, z: F32, pixel: F32, colour: F32) -> None:
    """Lane lines and a crosswalk, painted into ``colour`` in place."""
    thick = np.maximum(0.075, pixel * 0.9)
    dash = ((z + 1) % np.float32(4.4)) < 2.3
    centre = np.abs(x) < thick
    if plan.lines == 1:
        centre = np.abs(np.abs(x) - 0.16) < thick * 0.8
        dash = np.ones_like(dash)
    paint = centre & dash
    if plan.lines >= 2:
        paint |= np.abs(np.abs(x) - (plan.road - 0.3)) < thick * 0.85
    white: tuple[int, int, int] = (240, 238, 230) if plan.lines != 1 else (240, 200, 70)
    if plan.crosswalk > 0:
        zone = (z > plan.crosswalk - 0.5) & (z < plan.crosswalk + 2.2)
        paint &= ~zone
        bars = (z > plan.crosswalk) & (z < plan.crosswalk + 1.8) & (np.abs(x) < plan.road - 0.35)
        bars &= ((x + 40) % np.float32(0.95)) < 0.5
        colour[bars] = (236, 236, 232)
    colour[paint] = white
