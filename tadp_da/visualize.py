"""Masks and maps in colour: palettes, overlays and index images."""

from __future__ import annotations

import colorsys
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tadp_da.errors import UsageError
from tadp_da.types import LabelSpace

RGB = tuple[int, int, int]
IGNORED: RGB = (255, 255, 255)
_GOLDEN = 0.618033988749895


def colours(labels: LabelSpace) -> tuple[RGB, ...]:
    """One colour per class: the label space's palette, or hues spread by the golden ratio where it has none."""
    if labels.palette:
        return labels.palette
    shades = ((0.75, 0.85), (0.55, 0.65), (0.9, 0.95))
    found = (
        colorsys.hsv_to_rgb((0.58 + i * _GOLDEN) % 1, *shades[i % 3]) for i in range(len(labels.classes))
    )
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in found)


def recoloured(labels: LabelSpace, like: LabelSpace) -> LabelSpace:
    """A label space with the colours of another's classes of the same names; classes that the other lacks are white."""
    known = dict(zip(like.classes, colours(like), strict=True))
    return dataclasses.replace(labels, palette=tuple(known.get(name, IGNORED) for name in labels.classes))


def palette_image(mask: Any, labels: LabelSpace) -> Image.Image:
    """A mask ``uint8 (h, w)`` as a palette image: viewers show colours, and it holds the class ids.

    Raises:
        UsageError: when it is not a mask.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise UsageError(
            f"expected a uint8 mask (h, w), found {mask.dtype} {mask.shape}",
            fix="give class ids per pixel",
        )
    table = np.full((256, 3), IGNORED, dtype=np.uint8)
    table[: len(labels.classes)] = colours(labels)
    image = Image.fromarray(mask)
    image.putpalette(table.tobytes())
    return image


def save_mask(mask: Any, labels: LabelSpace, path: Path) -> None:
    """Write a mask as a palette PNG: any viewer shows colours, any reader of index masks gets the ids."""
    palette_image(mask, labels).save(path)


def colour_mask(mask: Any, labels: LabelSpace) -> Image.Image:
    """A mask in the colours of its classes, RGB; ignored pixels are white."""
    return palette_image(mask, labels).convert("RGB")


def overlay(image: Image.Image, mask: Any, labels: LabelSpace, opacity: float = 0.6) -> Image.Image:
    """The image with its mask ``uint8 (h, w)`` laid over it; ignored pixels show the image. An opacity of 0 shows the
    image, of 1 the mask.

    Raises:
        UsageError: when the sizes differ.
    """
    mask = np.asarray(mask)
    if mask.shape != (image.height, image.width):
        raise UsageError(
            f"a mask of {mask.shape} does not fit an image of {(image.height, image.width)}",
            fix="resize the mask with nearest-neighbour first",
        )
    under = image.convert("RGB")
    mixed = Image.blend(under, colour_mask(mask, labels), opacity)
    shown = Image.fromarray(np.where(mask == labels.ignore, 0, 255).astype(np.uint8))
    return Image.composite(mixed, under, shown)


def heat_overlay(image: Image.Image, heat: Any) -> Image.Image:
    """The image with a map ``(h, w)`` laid over it, e.g. one of ``PerceptionModel.attention``: dark at its lowest value
    and yellow at its highest, so that maps of different images or words share no scale."""
    import matplotlib as mpl

    scaled = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-8)
    shown = Image.fromarray((255 * mpl.colormaps["inferno"](scaled)[..., :3]).astype(np.uint8))
    return Image.blend(image.convert("RGB"), shown, 0.6)
