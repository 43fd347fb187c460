"""A drawing surface that keeps colour and identity together: every shape is painted into both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tadp_da.mini._layout import FAR, RGB

Point = tuple[float, float]

PART_NONE, PART_LAMP, PART_HEAD, PART_TAIL, PART_SIGNAL, PART_WHEEL, PART_GLASS, PART_SKIN = range(8)
PART_WINDOW = 16
"""Part codes from here to 255 are building windows; the code itself says which windows are lit at night."""


def shade(colour: RGB, factor: float) -> RGB:
    """``colour`` brighter (factor > 1) or darker (factor < 1)."""
    return (
        min(255, int(colour[0] * factor)),
        min(255, int(colour[1] * factor)),
        min(255, int(colour[2] * factor)),
    )


def blend(a: RGB, b: RGB, t: float) -> RGB:
    """The colour a fraction ``t`` of the way from ``a`` to ``b``."""
    return (
        int(a[0] + (b[0] - a[0]) * t),
        int(a[1] + (b[1] - a[1]) * t),
        int(a[2] + (b[2] - a[2]) * t),
    )


class Canvas:
    """An RGB image and an identity image of one size, drawn at twice the final resolution.

    Identity of a pixel is ``256 * ident + part``: which thing it belongs to and which part of it (lamp, window, ...).
    Hedges are one thing at many distances, which are kept beside it.
    """

    def __init__(self, rgb: NDArray[np.uint8], ident: NDArray[np.int32]) -> None:
        self.rgb = Image.fromarray(rgb)
        self.code = Image.fromarray(ident * 256)
        self._paint = ImageDraw.Draw(self.rgb)
        self._mark = ImageDraw.Draw(self.code)
        self._hedges = Image.new("F", self.rgb.size, FAR)
        self._away = ImageDraw.Draw(self._hedges)
        self.ident = 0

    def poly(self, points: Sequence[Point], colour: RGB, part: int | None = PART_NONE) -> None:
        """A filled polygon; ``part=None`` paints colour only, over whatever is there already."""
        self._paint.polygon(points, fill=colour)
        if part is not None:
            self._mark.polygon(points, fill=self.ident * 256 + part)

    def rect(
        self, u0: float, v0: float, u1: float, v1: float, colour: RGB, part: int | None = PART_NONE
    ) -> None:
        """A filled rectangle between two corners in any order."""
        if u0 > u1:
            u0, u1 = u1, u0
        if v0 > v1:
            v0, v1 = v1, v0
        self._paint.rectangle((u0, v0, u1, v1), fill=colour)
        if part is not None:
            self._mark.rectangle((u0, v0, u1, v1), fill=self.ident * 256 + part)

    def oval(
        self, u: float, v: float, ru: float, rv: float, colour: RGB, part: int | None = PART_NONE
    ) -> None:
        """A filled ellipse around (u, v) with the given half axes."""
        corners = (u - ru, v - rv, u + ru, v + rv)
        self._paint.ellipse(corners, fill=colour)
        if part is not None:
            self._mark.ellipse(corners, fill=self.ident * 256 + part)

    def hedge(self, u: float, v: float, ru: float, rv: float, colour: RGB, metres: float) -> None:
        """A filled ellipse at a distance."""
        self.oval(u, v, ru, rv, colour)
        self._away.ellipse((u - ru, v - rv, u + ru, v + rv), fill=metres)

    def hedges(self) -> NDArray[np.float32]:
        """Half-size distances of hedges ``(h, w)``, of the nearest in each pixel; far where there is none."""
        away = np.asarray(self._hedges, np.float32)
        return np.minimum.reduce([away[i::2, j::2] for i in (0, 1) for j in (0, 1)])

    def stroke(
        self, points: Sequence[Point], width: float, colour: RGB, part: int | None = PART_NONE
    ) -> None:
        """A thick polyline."""
        thick = max(1, round(width))
        self._paint.line(points, fill=colour, width=thick, joint="curve")
        if part is not None:
            self._mark.line(points, fill=self.ident * 256 + part, width=thick, joint="curve")

    def count(self, box: tuple[float, float, float, float], ident: int) -> tuple[int, float]:
        """Pixels of ``ident`` within ``box`` (left, top, right, bottom), clipped to the canvas."""
        width, height = self.code.size
        left, top = max(0, int(box[0])), max(0, int(box[1]))
        right, bottom = min(width, int(box[2]) + 1), min(height, int(box[3]) + 1)
        if right <= left or bottom <= top:
            return 0, 0.0
        crop = np.asarray(self.code.crop((left, top, right, bottom)))
        inside = (right - left) * (bottom - top) / max(1.0, (box[2] - box[0]) * (box[3] - box[1]))
        return int(np.count_nonzero(crop >> 8 == ident)), min(1.0, inside)

    def halved(self) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.uint8]]:
        """Half-size image (h, w, 3) by box average, idents (h, w) by majority, parts (h, w)."""
        rgb = np.asarray(self.rgb.reduce(2))
        code = np.asarray(self.code)
        ids = code >> 8
        a, b, c, d = ids[::2, ::2], ids[::2, 1::2], ids[1::2, ::2], ids[1::2, 1::2]
        # a wins unless it differs from an agreeing pair: identities are never averaged.
        alone = (a != b) & (a != c) & (a != d)
        other = np.where((c == d) & alone, c, b)
        ident = np.where(alone & ((b == c) | (b == d) | (c == d)), other, a).astype(np.int32)
        quarters = np.stack([code[::2, ::2], code[::2, 1::2], code[1::2, ::2], code[1::2, 1::2]])
        part = np.where(quarters >> 8 == ident, quarters & 255, 0).max(0).astype(np.uint8)
        return rgb, ident, part


def blend_point(p: tuple[float, float], q: tuple[float, float], t: float) -> tuple[float, float]:
    """The point a fraction ``t`` of the way from ``p`` to ``q``."""
    return p[0] + (q[0] - p[0]) * t, p[1] + (q[1] - p[1]) * t
