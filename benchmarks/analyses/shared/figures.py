"""Figures of analyses, as images."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.reports.intervals import Spread
from benchmarks.reports.plots import new_figure


def figure(
    size: tuple[float, float], draw: Callable[[Any], None], dpi: int = 110, **layout: Any
) -> Image.Image:
    """A figure of this size in inches that ``draw`` fills, as an image."""
    buffer = io.BytesIO()
    with new_figure(buffer, size, dpi, **layout) as drawn:
        draw(drawn)
    with Image.open(buffer) as image:
        return image.convert("RGB")


def tiles(
    lines: Mapping[str, Sequence[Image.Image]], header: Sequence[str] = (), *, side: float = 1.5
) -> Image.Image:
    """Images in named lines under a header, each ``side`` inches high. Names are wrapped to that height."""
    names = ["\n".join(textwrap.fill(part, int(15 * side)) for part in name.split("\n")) for name in lines]
    widest = max(len(line) for line in lines.values())
    first = next(iter(lines.values()))[0]
    width = side * first.width / first.height
    above = 0.35 + 0.16 * max((name.count("\n") for name in header), default=0)
    beside = 0.4 + 0.16 * max(name.count("\n") for name in names)

    def draw(drawn: Any) -> None:
        grid = drawn.subplots(len(lines), widest, squeeze=False)
        for y, (name, line) in enumerate(zip(names, lines.values(), strict=True)):
            for x, axes in enumerate(grid[y]):
                axes.spines[:].set_visible(False)
                axes.set(xticks=[], yticks=[])
                if x < len(line):
                    axes.imshow(np.asarray(line[x].convert("RGB")), interpolation="auto")
                if y == 0 and x < len(header):
                    axes.set_title(header[x], size=9)
            grid[y][0].set_ylabel(name, size=9)

    return figure((width * widest + beside, (side + 0.05) * len(lines) + above), draw, w_pad=0.02, h_pad=0.02)


def intervals(
    axes: Any, y: Sequence[float], found: Sequence[Spread | None], ink: str, label: str = "", scale: float = 1
) -> None:
    """Means and their intervals at heights ``y``."""
    for at, each in zip(y, found, strict=True):
        if each is None:
            continue
        if each.low is not None and each.high is not None:
            ends = [scale * each.low, scale * each.high]
            axes.plot(ends, [at, at], color=ink, lw=2, solid_capstyle="butt")
        axes.scatter([scale * each.mean], [at], s=28, color=ink, zorder=3, label=label or None)
        label = ""  # one entry in the legend
