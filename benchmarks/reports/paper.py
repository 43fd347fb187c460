"""The paper's tables 4 and 5 as data, and beside them what was measured here.

Numbers are those of the tables of arXiv 2310.00031v3 (CVPR 2024), in %. Where the paper's prose says otherwise, the
table stands.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table

from benchmarks.evaluate import Report
from benchmarks.recipe import read_benchmark
from benchmarks.suite import load_results
from tadp_da.errors import DataError

Variant = Literal["paper", "repo", "ours"]
VARIANTS: tuple[Variant, ...] = ("paper", "repo", "ours")
NOT_RUN = "not run"


@dataclass(frozen=True)
class Column:
    """A measure of a table.

    Attributes:
        target: the domain that is scored, by its name here.
        measure: ``"mIoU"``, ``"AP50"`` or ``"AP"`` (mean over overlaps 0.50 to 0.95).
        heading: as the paper calls it.
    """

    target: str
    measure: Literal["mIoU", "AP50", "AP"]
    heading: str


@dataclass(frozen=True)
class Row:
    """A method and its numbers in the order of the columns, None where the paper has none.

    Attributes:
        method: as the paper calls it.
        seen: what it saw of the target, besides test captions.
        numbers: one per column.
        row: name of the row in the recipes here; empty for the work of others.
    """

    method: str
    seen: str
    numbers: tuple[float | None, ...]
    row: str = ""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper."""

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]


TABLE_4 = PaperTable(
    number=4,
    title="Cityscapes to night, semantic segmentation",
    columns=(
        Column("dark-zurich", "mIoU", "Dark Zurich-val mIoU"),
        Column("nighttime-driving", "mIoU", "Nighttime Driving mIoU"),
    ),
    rows=(
        Row("DAFormer", "images", (None, 54.1)),
        Row("Refign-DAFormer", "images", (None, 56.8)),
        Row("PTDiffSeg", "-", (37.0, None)),
        Row("TADP null", "-", (42.8, 57.5), "null"),
        Row("TADP simple", "name", (39.1, 56.9), "simple"),
        Row("TADP TextualInversion", "500 images of Dark Zurich", (41.4, 60.8), "textual-inversion"),
        Row("TADP DreamBooth", "500 images of Dark Zurich", (38.9, 60.4), "dreambooth"),
        Row("TADP NearbyDomain", "-", (41.9, 56.9), "nearby"),
        Row("TADP UnrelatedDomain", "-", (42.3, 55.1), "unrelated"),
    ),
    remarks=(
        "The paper's prose gives null 60.8 on Nighttime Driving; its table says 57.5.",
        "The paper reports one run per row, evaluated on the test images during training.",
    ),
)
TABLE_5 = PaperTable(
    number=5,
    title="Pascal VOC to drawn pictures, object detection",
    columns=(
        Column("watercolor2k", "AP", "Watercolor2k AP"),
        Column("watercolor2k", "AP50", "Watercolor2k AP50"),
        Column("comic2k", "AP", "Comic2k AP"),
        Column("comic2k", "AP50", "Comic2k AP50"),
    ),
    rows=(
        Row("CLIP-the-Gap", "-", (None, 33.5, None, 43.4)),
        Row("PLGE", "images and their classes", (None, 56.5, None, 41.7)),
        Row("ICCM", "images and their classes", (None, 57.4, None, 37.1)),
        Row("H2FA R-CNN", "images and their classes", (None, 59.9, None, 46.4)),
        Row("ADDA", "images", (None, 49.8, None, 23.8)),
        Row("MCAR", "images", (None, 56.0, None, 33.5)),
        Row("UMT", "images", (None, 58.1, None, None)),
        Row("DASS-Detector", "images and many drawings", (None, 71.5, None, 64.2)),
        Row("TADP null", "-", (42.1, 72.1, 31.1, 57.4), "null"),
        Row("TADP simple", "name", (43.5, 72.2, 31.9, 56.6), "simple"),
        Row("TADP TextualInversion", "5 images", (43.2, 72.2, 33.2, 57.4), "textual-inversion"),
        Row("TADP DreamBooth", "5 images", (43.2, 72.2, 32.9, 56.9), "dreambooth"),
        Row("TADP NearbyDomain", "-", (42.0, 71.5, 31.8, 56.4), "nearby"),
        Row("TADP UnrelatedDomain", "-", (42.2, 71.9, 32.0, 55.9), "unrelated"),
    ),
    remarks=(
        "The paper does not say which AP it reports; ours is VOC 2007's (11 points), as its data sets' authors do.",
        "The paper reports one run per row, evaluated on the test images during training.",
    ),
)
TABLES = (TABLE_4, TABLE_5)


def benchmark_name(column: Column, variant: Variant) -> str:
    """Name of the recipe that fills a column."""
    return f"{column.target}-{variant}"


def extra_rows(table: PaperTable, variant: Variant) -> Iterator[Row]:
    """Rows that the recipes here add to the paper's, without numbers of the paper."""
    known = {row.row for row in table.rows}
    names = [name for c in table.columns for name in read_benchmark(benchmark_name(c, variant)).rows]
    for name in dict.fromkeys(names):
        if name not in known:
            seen = "images and labels" if name == "oracle" else "-"
            yield Row(f"ours: {name}", seen, (None,) * len(table.columns), name)


def measured(folder: Path | None, column: Column, variant: Variant, row: str) -> tuple[float, ...]:
    """One number per seed that stands in a run folder; empty where nothing was run with the recipe's settings."""
    if folder is None or not row:
        return ()
    name = benchmark_name(column, variant)
    try:
        seeds: Mapping[int, Report] = load_results(folder, name, only=read_benchmark(name).rows).get(row, {})
    except DataError:  # none of the benchmark is finished: its cells say so
        return ()
    found = (_value(report, column) for report in seeds.values())
    return tuple(value for value in found if value is not None)


def _value(report: Report, column: Column) -> float | None:
    if report.target is None:
        return None
    if column.measure == "mIoU":
        return report.target.main
    found: float | None = report.target.details["ap"]["VOC07"][column.measure]
    return found


def as_text(numbers: tuple[float, ...]) -> str:
    """Mean, spread over seeds and their number."""
    if not numbers:
        return NOT_RUN
    if len(numbers) == 1:
        return f"{numbers[0]:.1f} (1 seed)"
    return f"{statistics.mean(numbers):.1f} ± {statistics.stdev(numbers):.1f} ({len(numbers)} seeds)"


def beside_ours(table: PaperTable, variant: Variant, folder: Path | None) -> Table:
    """The paper's table with a column of ours behind each of its own, for the terminal.

    Args:
        table: which.
        variant: whose settings ours are.
        folder: run folder of ``benchmark run``; None for none.
    """
    drawn = Table(title=f"Table {table.number}: {table.title}", title_justify="left", header_style="bold")
    for heading in ("method", "seen of the target"):
        drawn.add_column(heading)
    for column in table.columns:
        drawn.add_column(column.heading, justify="right")
        drawn.add_column(f"here ({variant})", justify="right")
    for row in (*table.rows, *extra_rows(table, variant)):
        cells = []
        for column, number in zip(table.columns, row.numbers, strict=True):
            cells.append("-" if number is None else f"{number:.1f}")
            offered = row.row in read_benchmark(benchmark_name(column, variant)).rows
            cells.append(as_text(measured(folder, column, variant, row.row)) if offered else "-")
        drawn.add_row(row.method, row.seen, *cells)
    return drawn
