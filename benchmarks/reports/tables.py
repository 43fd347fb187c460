"""Tables of a comparison: in the terminal, as Markdown, CSV and JSON, with plots and panels beside them."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.reports.plots import plot_panels, plot_scores
from benchmarks.reports.statistics import ComparedRow, Comparison, Difference, Spread
from benchmarks.results import Report
from tadp_da.storage.files import write_json

if TYPE_CHECKING:
    from rich.table import Table

ABSENT = "-"
_WORDS = ("row", "verdict")
_MEASURES = "Further measures of the same predictions"
NOTES = (
    "± is the sample standard deviation over training seeds. The difference is taken seed by seed on the {images}; in "
    "brackets its 95 % interval (Student's t). A row helps or hurts when that interval does not contain zero; "
    "{direction} {metric} is better. Intervals are not corrected for the number of rows, and do not cover the "
    "randomness of the backbone's pretraining."
)


@dataclass(frozen=True)
class Written:
    """Files of one comparison; a plot that has nothing to show is None."""

    markdown: Path
    csv: Path
    json: Path
    plot: Path
    panels: Path | None


def write(comparison: Comparison, reports: Mapping[str, Mapping[int, Report]], folder: Path) -> Written:
    """Write tables, plot and panels into a folder.

    Args:
        comparison: the table.
        reports: what it was made from, for panels: those of the lowest seed of each row.
        folder: created if it does not exist; files of an earlier report are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = Written(
        folder / "table.md",
        folder / "table.csv",
        folder / "table.json",
        folder / "scores.png",
        folder / "panels.png",
    )
    plot_scores(comparison, files.plot)
    shown = {name: seeds[min(seeds)] for name, seeds in reports.items() if seeds}
    panels = files.panels if files.panels and plot_panels(shown, files.panels) else None
    plots = [path.name for path in (files.plot, panels) if path is not None]
    files.markdown.write_text(markdown(comparison, plots=plots), encoding="utf-8")
    files.csv.write_text(as_csv(comparison), encoding="utf-8")
    write_json(files.json, dataclasses.asdict(comparison) | {"conclusion": comparison.conclusion()})
    return dataclasses.replace(files, panels=panels)


def terminal(comparison: Comparison) -> Table:
    """The table for a rich console: scores, differences and verdicts."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(comparison.title), title_justify="left", caption_justify="left", header_style="bold"
    )
    table.caption = Text("\n".join([comparison.conclusion(), *_notes(comparison)]))
    for column in _header(comparison):
        table.add_column(Text(column), justify="left" if column in _WORDS else "right")
    inks = {"helps": "green", "hurts": "red"}
    for row in comparison.rows:
        table.add_row(*(Text(cell) for cell in _cells(comparison, row)), style=inks.get(row.verdict))
    return table


def terminal_classes(comparison: Comparison) -> Table:
    """The per-class table for a rich console: means, "-" where a class is absent."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=_classes_title(comparison), title_justify="left", header_style="bold")
    table.add_column("row")
    for name in comparison.classes:
        table.add_column(Text(name), justify="right")
    for row in comparison.rows:
        table.add_row(Text(row.name), *_class_cells(comparison, row))
    return table


def markdown(comparison: Comparison, *, plots: list[str] | None = None) -> str:
    """The report as Markdown: title, table, conclusion, per-class table, notes."""
    parts = [
        f"# {_escaped(comparison.title)}",
        _grid(_header(comparison), (_cells(comparison, row) for row in comparison.rows)),
    ]
    parts.append(_escaped(comparison.conclusion()))
    parts += [f"![{Path(name).stem}]({name})" for name in plots or []]
    if comparison.classes:
        parts.append(f"## {_classes_title(comparison)}")
        lines = ([row.name, *_class_cells(comparison, row)] for row in comparison.rows)
        parts.append(_grid(["row", *comparison.classes], lines))
    if measures := next((tuple(row.measures) for row in comparison.rows if row.measures), ()):
        parts.append(f"## {_MEASURES}{_on(comparison)}")
        lines = ([row.name, *_numbers(row.measures, measures)] for row in comparison.rows)
        parts.append(_grid(["row", *measures], lines))
    parts += map(_escaped, _notes(comparison))
    images = "target's test images" if comparison.evaluation == "target" else "test images"
    direction = "higher" if comparison.higher_is_better else "lower"
    parts.append(NOTES.format(images=images, direction=direction, metric=_escaped(comparison.metric)))
    return "\n\n".join(parts) + "\n"


def as_csv(comparison: Comparison) -> str:
    """One line per row and seed-free figures in full precision; an absent value is an empty cell."""
    out, name = io.StringIO(), comparison.evaluation
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(
        ["row", "verdict", f"{name}_mean", f"{name}_std", f"{name}_seeds", "source_mean", "source_std"]
        + ["difference", "difference_low", "difference_high", "difference_seeds"]
        + [f"{name}_{class_name}" for class_name in comparison.classes]
    )
    for row in comparison.rows:
        primary, source, paired = row.primary, row.source, row.difference
        cells: list[object] = [_harmless(row.name), row.verdict]
        cells += [primary.mean, primary.std, len(primary.values)] if primary else [None, None, 0]
        cells += [source.mean, source.std] if source else [None, None]
        cells += [paired.mean, paired.low, paired.high] if paired else [None, None, None]
        cells += [len(paired.values) if paired else 0]
        lines.writerow([*cells, *(row.classes.get(class_name) for class_name in comparison.classes)])
    return out.getvalue()


def _notes(comparison: Comparison) -> list[str]:
    """Notes of the evaluations, each once."""
    return list(dict.fromkeys(note for row in comparison.rows for note in row.notes))


def _on(comparison: Comparison) -> str:
    return " on the target" if comparison.evaluation == "target" else ""


def _classes_title(comparison: Comparison) -> str:
    return f"{comparison.metric} per class{_on(comparison)}, {comparison.unit}"


def _header(comparison: Comparison) -> list[str]:
    metric = comparison.metric if comparison.unit == "%" else f"{comparison.metric} ({comparison.unit})"
    source = [f"source {metric}"] if comparison.evaluation == "target" else []
    scores = [f"{comparison.evaluation} {metric}", *source]
    return ["row", *scores, "seeds", f"difference from {comparison.baseline}", "verdict"]


def _cells(comparison: Comparison, row: ComparedRow) -> list[str]:
    seeds = str(len(row.primary.values)) if row.primary else "0"
    source = [_spread(row.source)] if comparison.evaluation == "target" else []
    return [row.name, _spread(row.primary), *source, seeds, _paired(row.difference), row.verdict]


def _class_cells(comparison: Comparison, row: ComparedRow) -> list[str]:
    return _numbers(row.classes, comparison.classes)


def _numbers(values: Mapping[str, float | None], names: Iterable[str]) -> list[str]:
    return [ABSENT if (value := values.get(name)) is None else f"{value:.1f}" for name in names]


def _spread(found: Spread | None) -> str:
    if found is None:
        return ABSENT
    return f"{found.mean:.1f}" + (f" ± {found.std:.1f}" if found.std is not None else "")


def _paired(found: Difference | None) -> str:
    if found is None:
        return ABSENT
    interval = (
        f" ({found.low:+.1f} to {found.high:+.1f})"
        if found.low is not None and found.high is not None
        else ""
    )
    return f"{found.mean:+.1f}{interval}"


def _grid(header: list[str], lines: Iterable[list[str]]) -> str:
    rule = ["---" if name in _WORDS else "---:" for name in header]
    escaped = ([_escaped(cell) for cell in cells] for cells in (header, *lines))
    first, *rest = (f"| {' | '.join(cells)} |" for cells in escaped)
    return "\n".join([first, f"| {' | '.join(rule)} |", *rest])


def _escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is: names come from files that others wrote."""
    flat = " ".join(html.escape(text, quote=False).split())
    for mark in "\\|`*_[]<>#!$":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


def _harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
