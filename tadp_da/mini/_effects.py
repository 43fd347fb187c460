"""Small image operations shared by the looks. Images are float32 (h, w, 3) in 0..1 unless said otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tadp_da.mini.world import Scene

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
SKY, BUILDING, ROAD, WALK, GREEN, POLE, CAR, PERSON = range(8)


def unit(scene: Scene) -> float:
    """Size of the image relative to 128 pixels, to scale strokes and blurs."""
    return min(scene.mask.shape) / 128


def to_float(image: U8) -> F32:
    """Bytes to 0..1."""
    return np.multiply(image, np.float32(1 / 255), dtype=np.float32)


def to_uint8(x: F32) -> U8:
    """0..1 to bytes, clipped."""
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)


def colour(red: float, green: float, blue: float) -> F32:
    """A colour given in 0..255 as a (3,) vector in 0..1."""
    return np.asarray((red / 255, green / 255, blue / 255), np.float32)


def grey(x: F32) -> F32:
    """Luminance (h, w)."""
    return np.asarray(x @ np.asarray((0.299, 0.587, 0.114), np.float32), np.float32)


def grain(rng: np.random.Generator, x: F32, strength: float, chroma: float = 0.0) -> F32:
    """Add sensor noise: ``strength`` shared by the channels and ``chroma`` for each on its own."""
    height, width, _ = x.shape
    noise = rng.standard_normal((height, width, 1), dtype=np.float32) * np.float32(strength)
    if chroma:
        noise = noise + rng.standard_normal(x.shape, dtype=np.float32) * np.float32(chroma)
    return x + noise


def blur(x: F32, radius: float) -> F32:
    """Gaussian blur of a image (h, w, 3) or a map (h, w) in 0..1, in bytes, which is fast and exact enough."""
    blurred = Image.fromarray(to_uint8(x)).filter(ImageFilter.GaussianBlur(radius))
    return to_float(np.asarray(blurred))


def outlines(scene: Scene, width: int = 1) -> NDArray[np.bool_]:
    """Pixels (h, w) on the border between two things, ``width`` pixels thick."""
    ids = scene.ident
    line = np.zeros(ids.shape, np.bool_)
    line[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    line[1:] |= ids[1:] != ids[:-1]
    for step in range(1, width):
        grown = line.copy()
        if step % 2:
            grown[:, :-1] |= line[:, 1:]
            grown[:-1] |= line[1:]
        else:
            grown[:, 1:] |= line[:, :-1]
            grown[1:] |= line[:-1]
        line = grown
    return line


def edges(x: F32) -> F32:
    """Strength of brightness edges (h, w) of a map (h, w)."""
    out = np.zeros_like(x)
    out[:, 1:-1] += np.abs(x[:, 2:] - x[:, :-2])
    out[1:-1] += np.abs(x[2:] - x[:-2])
    return out
