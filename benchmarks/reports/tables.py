"""Tables of a comparison: in the terminal, as Markdown, CSV and JSON, with plots and panels beside them."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.reports.plots import plot_panels, plot_scores
from benchmarks.reports.statistics import Comparison, Spread
from benchmarks.results import Report
from tadp_da.images import output_folder
from tadp_da.storage.files import write_json

if TYPE_CHECKING:
    from rich.table import Table

ABSENT = "-"
_NUMBERS = "+-0123456789"
_INKS = {"helps": "green", "hurts": "red"}
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


@dataclass(frozen=True)
class Grid:
    """Cells under a header."""

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]

    def right(self) -> list[bool]:
        """Which columns hold numbers; they are aligned to the right."""
        return [all(line[i][:1] in _NUMBERS for line in self.lines) for i in range(len(self.header))]

    def markdown(self) -> str:
        """The table without its title."""
        rule = ["---:" if right else "---" for right in self.right()]
        first, *rest = ([_escaped(cell) for cell in cells] for cells in (self.header, *self.lines))
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (first, rule, *rest))

    def rich(self, styles: Sequence[str | None] = (), **options: Any) -> Table:
        """The table for a rich console, whatever its cells contain."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.title), title_justify="left", header_style="bold", **options)
        for name, right in zip(self.header, self.right(), strict=True):
            table.add_column(Text(name), justify="right" if right else "left")
        for i, line in enumerate(self.lines):
            table.add_row(*map(Text, line), style=styles[i] if styles else None)
        return table


def grid(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return Grid("", header, lines).markdown()


def write(comparison: Comparison, reports: Mapping[str, Mapping[int, Report]], folder: Path) -> Written:
    """Write tables, plot and panels into a folder.

    Args:
        comparison: the table.
        reports: what it was made from, for panels: those of the lowest seed of each row.
        folder: created if it does not exist; files of an earlier report are replaced.
    """
    output_folder(folder)
    names = ("table.md", "table.csv", "table.json", "scores.png", "panels.png")
    text, table, data, plot, panels = (folder / name for name in names)
    plot_scores(comparison, plot)
    shown = {name: seeds[min(seeds)] for name, seeds in reports.items() if seeds}
    files = Written(text, table, data, plot, panels if plot_panels(shown, panels) else None)
    plots = [path.name for path in (files.plot, files.panels) if path is not None]
    text.write_text(markdown(comparison, plots=plots), encoding="utf-8")
    table.write_text(as_csv(comparison), encoding="utf-8")
    write_json(data, dataclasses.asdict(comparison) | {"conclusion": comparison.conclusion()})
    return files


def terminal(comparison: Comparison) -> Table:
    """The table for a rich console: scores, differences and verdicts."""
    from rich.text import Text

    caption = Text("\n".join([comparison.conclusion(), *_notes(comparison)]))
    styles = [_INKS.get(row.verdict) for row in comparison.rows]
    return _scores(comparison).rich(styles, caption=caption, caption_justify="left")


def terminal_classes(comparison: Comparison) -> Table:
    """The per-class table for a rich console: means, "-" where a class is absent."""
    return _means(comparison, "classes").rich()


def markdown(comparison: Comparison, *, plots: list[str] | None = None) -> str:
    """The report as Markdown: title, table, conclusion, per-class table, notes."""
    parts = [
        f"# {_escaped(comparison.title)}",
        _scores(comparison).markdown(),
        _escaped(comparison.conclusion()),
    ]
    parts += [f"![{Path(name).stem}]({name})" for name in plots or []]
    for table in (_means(comparison, "classes"), _means(comparison, "measures")):
        if len(table.header) > 1:
            parts += [f"## {table.title}", table.markdown()]
    parts += map(_escaped, _notes(comparison))
    images = "target's test images" if comparison.evaluation == "target" else "test images"
    direction = "higher" if comparison.higher_is_better else "lower"
    parts.append(NOTES.format(images=images, direction=direction, metric=_escaped(comparison.metric)))
    return "\n\n".join(parts) + "\n"


def as_csv(comparison: Comparison) -> str:
    """One line per row and seed-free numbers in full precision; an absent value is an empty cell."""
    out, name = io.StringIO(), comparison.evaluation
    header = ["row", "verdict", f"{name}_mean", f"{name}_std", f"{name}_seeds", "source_mean", "source_std"]
    header += ["difference", "difference_low", "difference_high", "difference_seeds"]
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow([*header, *(f"{name}_{class_name}" for class_name in comparison.classes)])
    for row in comparison.rows:
        cells: list[object] = [_harmless(row.name), row.verdict]
        for found, fields in (
            (row.primary, ("mean", "std", "values")),
            (row.source, ("mean", "std")),
            (row.difference, ("mean", "low", "high", "values")),
        ):
            known = {} if found is None else vars(found) | {"values": len(found.values)}
            cells += [known.get(field, 0 if field == "values" else None) for field in fields]
        lines.writerow([*cells, *(row.classes.get(class_name) for class_name in comparison.classes)])
    return out.getvalue()


def _notes(comparison: Comparison) -> list[str]:
    """Notes of the evaluations, each once."""
    return list(dict.fromkeys(note for row in comparison.rows for note in row.notes))


def _scores(comparison: Comparison) -> Grid:
    metric = comparison.metric if comparison.unit == "%" else f"{comparison.metric} ({comparison.unit})"
    sides = ["target", "source"] if comparison.evaluation == "target" else [comparison.evaluation]
    header = ["row", *(f"{side} {metric}" for side in sides)]
    lines = []
    for row in comparison.rows:
        spreads = [_spread(row.primary), _spread(row.source)][: len(sides)]
        seeds = str(len(row.primary.values)) if row.primary else "0"
        lines.append([row.name, *spreads, seeds, _paired(row.difference), row.verdict])
    header += ["seeds", f"difference from {comparison.baseline}", "verdict"]
    return Grid(comparison.title, header, lines)


def _means(comparison: Comparison, field: str) -> Grid:
    """Means per class, or of the further measures."""
    names = comparison.classes if field == "classes" else comparison.measures
    on = " on the target" if comparison.evaluation == "target" else ""
    title = f"Further measures of the same predictions{on}"
    if field == "classes":
        title = f"{comparison.metric} per class{on}, {comparison.unit}"
    lines = []
    for row in comparison.rows:
        values = getattr(row, field)
        lines.append([row.name, *(ABSENT if values.get(n) is None else f"{values[n]:.1f}" for n in names)])
    return Grid(title, ["row", *names], lines)


def _spread(found: Spread | None) -> str:
    if found is None:
        return ABSENT
    return f"{found.mean:.1f}" + ("" if found.std is None else f" ± {found.std:.1f}")


def _paired(found: Spread | None) -> str:
    if found is None:
        return ABSENT
    return f"{found.mean:+.1f}" + ("" if found.low is None else f" ({found.low:+.1f} to {found.high:+.1f})")


def _escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is: names come from files that others wrote."""
    flat = " ".join(html.escape(text, quote=False).split())
    for mark in "\\|`*_[]<>#!$":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


def _harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
