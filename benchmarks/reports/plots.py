"""Plots: what each row predicted on the same images, and scores over seeds."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tadp_da.types import LabelSpace, Side
from tadp_da.visualize import colours, overlay

if TYPE_CHECKING:
    from benchmarks.evaluate import Report, SavedImage
    from benchmarks.reports.statistics import Comparison, Row, Spread

_INK, _FAINT, _GRID = "#22262b", "#8a9099", "#e3e6ea"
_VERDICT_INK = {"helps": "#1a7f4b", "hurts": "#b3261e"}
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.edgecolor": _GRID,
    "figure.facecolor": "white",
}


def plot_scores(comparison: Comparison, path: Path) -> None:
    """Write a PNG of every row: its seeds and their mean on target and source, and the paired difference."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = comparison.rows
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 1.7 + 0.42 * len(rows)), layout=ConstrainedLayoutEngine(wspace=0.08))
        target, difference, source = figure.subplots(1, 3, sharey=True, width_ratios=(1.2, 1.3, 0.9))
        reach = _reach(rows)
        difference.set_xlim(-reach, reach)
        difference.axvline(0, color=_INK, lw=0.8)
        for place, row in enumerate(rows):
            _dots(target, place, row.target, _ink(row))
            _dots(source, place, row.source, _FAINT)
            _interval(difference, place, row, reach)
        seeds = max((len(row.target.values) for row in rows if row.target), default=0)
        target.set_title(f"target {comparison.metric} (%)", loc="left", weight="bold")
        difference.set_title(f"difference from {comparison.baseline}, target", loc="left", weight="bold")
        source.set_title(f"source {comparison.metric} (%)", loc="left", weight="bold")
        for axes in (target, difference, source):
            _bare(axes)
        target.set_yticks(range(len(rows)), [_plain(row.name) for row in rows])
        target.set_ylim(len(rows) - 0.4, -0.6)
        figure.suptitle(_plain(comparison.title), x=0.01, ha="left", weight="bold", size=13)
        figure.supxlabel(
            f"dots: seeds (up to {seeds}); upright bars and diamonds: mean; level bars: 95 % Student interval of the "
            "paired difference; arrows: beyond the scale",
            x=0.01, ha="left", size=8.5, color=_FAINT,
        )  # fmt: skip
        figure.savefig(path, dpi=150)


def plot_panels(reports: Mapping[str, Report], path: Path, *, side: Side = "target", most: int = 6) -> bool:
    """Write a PNG of image, truth and each row's decision, one line per kept image.

    Args:
        reports: row name to one report of that row, all at one seed.
        path: where to.
        side: whose test images.
        most: images to show.

    Returns:
        Whether there was anything to show: rows that kept no pictures leave none, and no file.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Patch

    rows = {name: report for name, report in reports.items() if (e := getattr(report, side)) and e.kept}
    if not rows:
        return False
    first = next(iter(rows.values()))
    labels, shown = getattr(first, side).labels, getattr(first, side).kept[:most]
    with Image.open(first.picture(side, shown[0], "image")) as image:
        cell = 1.9 * image.height / image.width
    with mpl.rc_context(_STYLE):
        columns = 2 + len(rows)
        figure = Figure(
            figsize=(1.95 * columns, (cell + 0.1) * len(shown) + 0.75),
            layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02),
        )
        grid = figure.subplots(len(shown), columns, squeeze=False)
        seen: set[int] = set()
        for line, kept in zip(grid, shown, strict=True):
            seen |= _line(line, kept, rows, side, labels)
        for axes, name in zip(grid[0], ("image", "truth", *rows), strict=True):
            axes.set_title(textwrap.fill(_plain(name), 18), size=10, weight="bold")
        paint = colours(labels)
        handles = [
            Patch(facecolor="#{:02x}{:02x}{:02x}".format(*paint[i]), edgecolor=_GRID, label=_plain(name))
            for i, name in enumerate(labels.classes)
            if i in seen
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=max(4, 2 * columns - 2), frameon=False)
        figure.savefig(path, dpi=120)
    return True


def _line(
    line: Sequence[Any], kept: SavedImage, rows: Mapping[str, Report], side: Side, labels: LabelSpace
) -> set[int]:
    """One image, its truth and the decisions of all rows; returns the class ids that were shown."""
    first = next(iter(rows.values()))
    with Image.open(first.picture(side, kept, "image")) as opened:
        image = opened.convert("RGB")
    truth = _stored(first.picture(side, kept, "truth"))
    shown: list[tuple[Image.Image, str]] = [(image, ""), (overlay(image, truth, labels, 0.85), "")]
    seen = set(np.unique(truth).tolist())
    for report in rows.values():
        mine = next(k for k in getattr(report, side).kept if k.key == kept.key)
        decision = _stored(report.picture(side, mine, "decision"))
        seen |= set(np.unique(decision).tolist())
        shown.append(
            (overlay(image, decision, labels, 0.85), "" if mine.score is None else f"{mine.score:.1f}")
        )
    for axes, (picture, note) in zip(line, shown, strict=True):
        axes.imshow(np.asarray(picture), interpolation="auto")
        axes.set(xticks=[], yticks=[])
        if note:
            box = {"facecolor": "black", "alpha": 0.55, "pad": 1.5, "linewidth": 0}
            axes.text(0.97, 0.04, note, transform=axes.transAxes, ha="right", size=8, color="white", bbox=box)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return seen


def _stored(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


def _dots(axes: Any, place: int, spread: Spread | None, ink: str) -> None:
    if spread is None:
        return
    values = list(spread.values.values())
    axes.scatter(values, [place] * len(values), s=26, color=ink, alpha=0.45, linewidths=0, zorder=3)
    axes.plot(
        [spread.mean] * 2, [place - 0.27, place + 0.27], color=ink, lw=2.4, solid_capstyle="butt", zorder=4
    )
    _beside(axes, place, f"{spread.mean:.1f}" + (f" ± {spread.std:.1f}" if spread.std is not None else ""))


def _interval(axes: Any, place: int, row: Row, reach: float) -> None:
    found, ink = row.difference, _ink(row)
    if found is None:
        return
    _beside(axes, place, f"{found.mean:+.1f}", ink)
    if abs(found.mean) > reach:
        arrow = ">" if found.mean > 0 else "<"
        axes.scatter(
            [math.copysign(0.97 * reach, found.mean)], [place], s=70, color=ink, marker=arrow, linewidths=0
        )
        return
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [place] * 2, color=ink, lw=2, solid_capstyle="butt", zorder=2)
    values = list(found.values.values())
    axes.scatter(values, [place + 0.26] * len(values), s=16, color=ink, alpha=0.45, linewidths=0)
    axes.scatter(
        [found.mean], [place], s=48, color=ink, marker="D", zorder=4, edgecolors="white", linewidths=0.8
    )


def _reach(rows: Sequence[Row]) -> float:
    """Half the width of the difference axis: rows far beyond the others (a ceiling) must not flatten the rest."""
    found = [row.difference for row in rows if row.difference is not None]
    ends = sorted(max(abs(v) for v in (d.mean, d.low, d.high) if v is not None) for d in found)
    for smaller, larger in itertools.pairwise(ends[(len(ends) - 1) // 2 :]):
        if larger > 2.5 * smaller > 0:
            return 1.15 * smaller
    return 1.15 * max([*ends, 0.1])


def _beside(axes: Any, place: int, text: str, ink: str = _INK) -> None:
    axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", size=9, color=ink)


def _ink(row: Row) -> str:
    return _VERDICT_INK.get(row.verdict, _INK if row.verdict == "baseline" else "#4a6fa5")


def _bare(axes: Any) -> None:
    axes.grid(axis="x", color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.margins(x=0.08)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _plain(text: str) -> str:
    """Text that matplotlib prints as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")
