"""Plots: predictions of each row on the same images, and measures over seeds."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from tadp_da.tasks import in_unit
from tadp_da.visualize import colours

if TYPE_CHECKING:
    from benchmarks.reports.intervals import Spread
    from benchmarks.reports.statistics import Comparison
    from benchmarks.results import Report, SavedImage, Shown

_INK, _FAINT, _GRID = "#22262b", "#8a9099", "#e3e6ea"
_VERDICT_INK = {"helps": "#1a7f4b", "hurts": "#b3261e", "baseline": _INK}
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": _GRID,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a dollar sign in a name is one
}
_STYLE |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK)


@contextmanager
def new_figure(path: Path | BinaryIO, size: tuple[float, float], dpi: int, **layout: Any) -> Iterator[Any]:
    """A figure of this size in inches, saved after the block."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(**layout))
        yield figure
        figure.savefig(path, dpi=dpi)


def plot_scores(comparison: Comparison, path: Path) -> None:
    """Write a PNG of every row: its seeds and their mean, the paired difference, and the same on the source if any."""
    rows, name, unit = comparison.rows, comparison.evaluation, comparison.unit
    widths = (1.2, 1.3, 0.9) if name == "target" else (1.2, 1.3)
    with new_figure(path, (12, 1.7 + 0.42 * len(rows)), 150, wspace=0.08) as figure:
        panels = figure.subplots(1, len(widths), sharey=True, width_ratios=widths)
        primary, difference = panels[:2]
        limit = reach([row.difference for row in rows if row.difference is not None])
        difference.set_xlim(-limit, limit)
        difference.axvline(0, color=_INK, lw=0.8)
        for y, row in enumerate(rows):
            ink = _VERDICT_INK.get(row.verdict, "#4a6fa5")
            _dots(primary, y, row.primary, ink, unit)
            _interval(difference, y, row.difference, limit, ink, unit)
            for source in panels[2:]:
                _dots(source, y, row.source, _FAINT, unit)
        seeds = max((len(row.primary.values) for row in rows if row.primary), default=0)
        titles = (f"{name} {comparison.metric} ({unit})", f"difference from {comparison.baseline}, {name}")
        for axes, title in zip(panels, (*titles, f"source {comparison.metric} ({unit})"), strict=False):
            axes.set_title(title, loc="left", weight="bold")
            axes.grid(axis="x", color=_GRID, lw=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(length=0)
            axes.margins(x=0.08)
            axes.spines[["top", "right", "left"]].set_visible(False)
        primary.set_yticks(range(len(rows)), [row.name for row in rows])
        primary.set_ylim(len(rows) - 0.4, -0.6)
        figure.suptitle(comparison.title, x=0.01, ha="left", weight="bold", size=13)
        figure.supxlabel(
            f"dots: seeds (up to {seeds}); vertical bars and diamonds: mean; horizontal bars: 95 % Student interval of "
            "the paired difference; arrows: beyond the scale",
            x=0.01, ha="left", size=8.5, color=_FAINT,
        )  # fmt: skip


def plot_panels(reports: Mapping[str, Report], path: Path, *, most: int = 6) -> bool:
    """Write a PNG of image, label and each row's prediction, one line per saved image.

    Args:
        reports: row name to one report of that row, all at one seed.
        path: of the PNG.
        most: images to show.

    Returns:
        Whether there was anything to show: without saved images no file is written.
    """
    from matplotlib.patches import Patch

    rows = {name: report for name, report in reports.items() if report.primary and report.primary.saved}
    if not rows:
        return False
    first = next(iter(rows.values()))
    assert first.primary is not None  # it has saved images
    labels, shown, columns = first.primary.labels, first.primary.saved[:most], 2 + len(rows)
    with Image.open(first.image(first.primary_name, shown[0], "image")) as image:
        cell = 1.9 * image.height / image.width
    with new_figure(
        path, (1.95 * columns, (cell + 0.1) * len(shown) + 0.75), 120, w_pad=0.02, h_pad=0.02
    ) as figure:
        grid = figure.subplots(len(shown), columns, squeeze=False)
        seen = {name for line, saved in zip(grid, shown, strict=True) for name in _line(line, saved, rows)}
        for axes, name in zip(grid[0], ("image", "truth", *rows), strict=True):
            axes.set_title(textwrap.fill(name, 18), size=10, weight="bold")
        handles = [
            Patch(facecolor="#{:02x}{:02x}{:02x}".format(*colour), edgecolor=_GRID, label=name)
            for name, colour in zip(labels.classes, colours(labels), strict=True)
            if name in seen
        ]
        if handles:
            ncols = max(4, 2 * columns - 2)
            figure.legend(handles=handles, loc="outside lower left", ncols=ncols, frameon=False)
    return True


def _line(line: Sequence[Any], saved: SavedImage, rows: Mapping[str, Report]) -> set[str]:
    """Draw one image, its label and the predictions of all rows; returns the names of the classes that are shown."""
    first, seen = next(iter(rows.values())), set[str]()
    both: tuple[Shown, ...] = ("image", "truth")
    cells: list[tuple[Path | None, str | None]] = [
        (first.image(first.primary_name, saved, s), None) for s in both
    ]
    for report in rows.values():
        assert report.primary is not None  # it has saved images
        own = next((s for s in report.primary.saved if s.key == saved.key), None)
        if own is None:  # rows may save different numbers of images
            cells.append((None, None))
            continue
        score = None if own.score is None else in_unit(own.score, report.primary.main.unit)
        cells.append((report.image(report.primary_name, own, "prediction"), score))
        seen |= set(own.classes)
    for axes, (path, score) in zip(line, cells, strict=True):
        if path:
            with Image.open(path) as image:
                axes.imshow(np.asarray(image.convert("RGB")), interpolation="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if score is not None:
            box = {"facecolor": "black", "alpha": 0.55, "pad": 1.5, "linewidth": 0}
            at = {"transform": axes.transAxes, "ha": "right", "va": "top", "bbox": box}
            axes.text(0.97, 0.96, score, size=8, color="white", **at)  # depth has its scale at the bottom
    return seen


def _dots(axes: Any, y: float, spread: Spread | None, ink: str, unit: str) -> None:
    if spread is None:
        return
    values = list(spread.values.values())
    axes.scatter(values, [y] * len(values), s=26, color=ink, alpha=0.45, linewidths=0, zorder=3)
    ends = [y - 0.27, y + 0.27]
    axes.plot([spread.mean] * 2, ends, color=ink, lw=2.4, solid_capstyle="butt", zorder=4)
    deviation = f" ± {in_unit(spread.std, unit)}" if spread.std is not None else ""
    _beside(axes, y, in_unit(spread.mean, unit) + deviation)


def _interval(axes: Any, y: float, found: Spread | None, reach: float, ink: str, unit: str) -> None:
    if found is None:
        return
    _beside(axes, y, in_unit(found.mean, unit, "+"), ink)
    if abs(found.mean) > reach:
        arrow, x = ">" if found.mean > 0 else "<", math.copysign(0.97 * reach, found.mean)
        axes.scatter([x], [y], s=70, color=ink, marker=arrow, linewidths=0)
        return
    if found.low is not None:
        axes.plot([found.low, found.high], [y] * 2, color=ink, lw=2, solid_capstyle="butt", zorder=2)
    values = list(found.values.values())
    axes.scatter(values, [y + 0.26] * len(values), s=16, color=ink, alpha=0.45, linewidths=0)
    diamond = {"marker": "D", "zorder": 4, "edgecolors": "white", "linewidths": 0.8}
    axes.scatter([found.mean], [y], s=48, color=ink, **diamond)


def reach(found: Sequence[Spread]) -> float:
    """Half the width of an axis of differences: some far beyond the others (an upper bound) must not flatten the
    rest."""
    ends = sorted(max(abs(v) for v in (d.mean, d.low, d.high) if v is not None) for d in found)
    for smaller, larger in itertools.pairwise(ends[(len(ends) - 1) // 2 :]):
        if larger > 2.5 * smaller > 0:
            return 1.15 * smaller
    return 1.15 * max([*ends, 0.1])


def _beside(axes: Any, y: float, text: str, ink: str = _INK) -> None:
    axes.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center", size=9, color=ink)
