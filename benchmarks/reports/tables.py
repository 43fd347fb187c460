"""Tables of a comparison: in the terminal, as Markdown, CSV and JSON, with plots and panels beside them."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.reports.intervals import Difference, Spread
from benchmarks.reports.plots import plot_panels, plot_scores
from benchmarks.reports.statistics import Comparison
from benchmarks.results import Report
from tadp_da.images import output_folder
from tadp_da.storage.files import write_json
from tadp_da.tasks import in_unit

if TYPE_CHECKING:
    from rich.table import Table

ABSENT = "-"
_NUMBERS = "+-0123456789"
_INKS = {"helps": "green", "hurts": "red"}
NOTES = (
    "± is the sample standard deviation over training seeds. The difference is taken seed by seed on the {images}; in "
    "brackets its 95 % interval (Student's t). A row helps or hurts when that interval does not contain zero; "
    "{direction} {metric} is better. p is that of the paired t-test, corrected for the number of rows (Holm): a "
    "verdict with p below 0.05 stands however many rows there are. Intervals are not corrected for the number of rows, "
    "and do not cover the randomness of the backbone's pretraining."
)
BLIND = (
    "{blind} is the strongest of the rows that see no target image ({rows}). It is chosen by its score on the "
    "{images}, so that differences from it are rather too small than too large."
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
    stored = dataclasses.asdict(comparison) | {"conclusion": comparison.conclusion()}
    for row, told in zip(comparison.rows, stored["rows"], strict=True):
        told |= {"difference": told["against"] and told["against"]["spread"], "verdict": row.verdict}
    write_json(data, stored)
    return files


def terminal(comparison: Comparison) -> Table:
    """The table for a rich console: scores, differences and verdicts, without columns in which nothing is known."""
    from rich.text import Text

    caption = Text("\n".join([comparison.conclusion(), *_notes(comparison)]))
    styles = [_INKS.get(row.verdict) for row in comparison.rows]
    table = _scores(comparison)
    known = [any(line[i] != "-" for line in table.lines) for i in range(len(table.header))]
    shown = Grid(
        table.title,
        [*compress(table.header, known)],
        [[*compress(line, known)] for line in table.lines],
    )
    return shown.rich(styles, caption=caption, caption_justify="left")


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
    for table in _further(comparison):
        if len(table.header) > 1:
            parts += [f"## {table.title}", table.markdown()]
    parts += map(_escaped, [*_notes(comparison), *footnotes(comparison)])
    return "\n\n".join(parts) + "\n"


def footnotes(comparison: Comparison) -> list[str]:
    """What a reader of the numbers has to know, as plain text."""
    images = "target's test images" if comparison.evaluation == "target" else "test images"
    direction = "higher" if comparison.higher_is_better else "lower"
    found = [NOTES.format(images=images, direction=direction, metric=comparison.metric)]
    if comparison.blind:
        rows = ", ".join(row.name for row in comparison.rows if row.sees_target is False)
        found.append(BLIND.format(blind=comparison.blind, rows=rows, images=images))
    return found


def as_csv(comparison: Comparison) -> str:
    """One line per row and seed-free numbers in full precision; an absent value is an empty cell."""
    out, name, classes = io.StringIO(), comparison.evaluation, comparison.classes
    fields = ("mean", "low", "high", "values")
    parts = [(name, ("mean", "std", "values")), ("source", ("mean", "std"))]
    header = ["row", "sees_target", "verdict"]
    header += [f"{part}_{field}".replace("values", "seeds") for part, kept in parts for field in kept]
    compared = {"difference": "against"} | (
        {"difference_from_blind": "against_blind"} if comparison.blind else {}
    )
    for part in compared:
        header += [
            part,
            *(f"{part}_{field}" for field in ("low", "high", "seeds", "p", "p_holm", "corrected")),
        ]
    header += [f"{part}_{one}" for part in (name, *compared) for one in classes]
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(header)
    for row in comparison.rows:
        cells: list[object] = [harmless(row.name), row.sees_target, row.verdict]
        for found, (_, kept) in zip((row.primary, row.source), parts, strict=True):
            cells += _cells(found, kept)
        differences: list[Difference | None] = [getattr(row, part) for part in compared.values()]
        for d in differences:
            cells += [
                *_cells(d.spread if d else None, fields),
                *((d.p, d.p_holm, d.corrected) if d else [None] * 3),
            ]
        for values in (row.classes, *(d.classes if d else {} for d in differences)):
            cells += [values.get(one) for one in classes]
        lines.writerow(cells)
    return out.getvalue()


def _cells(found: Spread | None, fields: Sequence[str]) -> list[object]:
    known = {} if found is None else vars(found) | {"values": len(found.values)}
    return [known.get(field, 0 if field == "values" else None) for field in fields]


def _notes(comparison: Comparison) -> list[str]:
    """Notes of the evaluations, each once."""
    return list(dict.fromkeys(note for row in comparison.rows for note in row.notes))


def _scores(comparison: Comparison) -> Grid:
    metric = comparison.metric if comparison.unit == "%" else f"{comparison.metric} ({comparison.unit})"
    unit = comparison.unit
    sides = ["target", "source"] if comparison.evaluation == "target" else [comparison.evaluation]
    header = ["row", *(f"{side} {metric}" for side in sides)]
    header += ["seeds", f"difference from {comparison.baseline}", "verdict", "p (Holm)"]
    header += [f"difference from {comparison.blind}", "p (Holm)"] if comparison.blind else []
    lines = []
    for row in comparison.rows:
        spreads = [mean_and_deviation(found, unit) for found in (row.primary, row.source)][: len(sides)]
        seeds = str(len(row.primary.values)) if row.primary else "0"
        cells = [
            row.name,
            *spreads,
            seeds,
            mean_and_interval(row.difference, unit),
            row.verdict,
            _p(row.against),
        ]
        if comparison.blind:
            cells += [
                mean_and_interval(row.against_blind.spread if row.against_blind else None, unit),
                _p(row.against_blind),
            ]
        lines.append(cells)
    return Grid(comparison.title, header, lines)


def _further(comparison: Comparison) -> list[Grid]:
    """Tables below the scores: per class, their differences, and further measures."""
    found = [_means(comparison, "classes")]
    for name, base in (("against", comparison.baseline), ("against_blind", comparison.blind)):
        rows = {row.name: d.classes for row in comparison.rows if (d := getattr(row, name)) is not None}
        if base and any(rows.values()):
            title = f"Difference of {comparison.metric} from {base} per class, {comparison.unit}"
            found.append(_table(title, comparison.classes, rows, comparison.unit, "+"))
    return [*found, _means(comparison, "measures")]


def _means(comparison: Comparison, field: str) -> Grid:
    """Means per class, or of the further measures."""
    names = comparison.classes if field == "classes" else comparison.measures
    on = " on the target" if comparison.evaluation == "target" else ""
    title = f"Further measures of the same predictions{on}"
    if field == "classes":
        title = f"{comparison.metric} per class{on}, {comparison.unit}"
    return _table(title, names, {row.name: getattr(row, field) for row in comparison.rows}, comparison.unit)


def _table(
    title: str,
    names: Sequence[str],
    rows: Mapping[str, Mapping[str, float | None]],
    unit: str,
    sign: str = "",
) -> Grid:
    lines = [
        [row, *(in_unit(values.get(name), unit, sign) for name in names)] for row, values in rows.items()
    ]
    return Grid(title, ["row", *names], lines)


def mean_and_deviation(found: Spread | None, unit: str) -> str:
    """A mean over seeds, with the deviation where there are several."""
    if found is None:
        return ABSENT
    return in_unit(found.mean, unit) + ("" if found.std is None else f" ± {in_unit(found.std, unit)}")


def mean_and_interval(found: Spread | None, unit: str) -> str:
    """A difference, with its interval where there are several seeds."""
    if found is None:
        return ABSENT
    mean, low, high = (in_unit(value, unit, "+") for value in (found.mean, found.low, found.high))
    return mean + ("" if found.low is None else f" ({low} to {high})")


def _p(found: Difference | None) -> str:
    return ABSENT if found is None or found.p_holm is None else f"{found.p_holm:.3f}"


def _escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is: names come from files that others wrote."""
    flat = " ".join(html.escape(text, quote=False).split())
    for mark in "\\|`*_[]<>#!$":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
