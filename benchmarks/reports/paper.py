"""The paper's tables 4 and 5 as data, and beside them what was measured here.

Numbers are those of the tables of arXiv 2310.00031v3 (CVPR 2024), in %. Where the paper's prose says otherwise, the
table stands.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Literal, NamedTuple

from rich.table import Table

from benchmarks.recipe import read_benchmark
from benchmarks.reports.tables import Grid
from benchmarks.suite import load_results
from tadp_da.errors import DataError

Variant = Literal["paper", "repo", "ours"]
VARIANTS: tuple[Variant, ...] = ("paper", "repo", "ours")
NOT_RUN = "not run"


class Column(NamedTuple):
    """A measure of a table: the target domain and the measure by their names here, and the paper's heading. ``AP`` is
    the mean over overlaps 0.50 to 0.95."""

    target: str
    measure: str
    heading: str


class PaperRow(NamedTuple):
    """A method, what it has used of the target besides test captions, its numbers in the order of the columns (None
    where the paper has none), and the name of the row in the recipes here; empty for the work of others."""

    method: str
    seen: str
    numbers: tuple[float | None, ...]
    row: str = ""


class PaperTable(NamedTuple):
    """A table of the paper."""

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[PaperRow, ...]
    remarks: tuple[str, ...]


TABLE_4 = PaperTable(
    number=4,
    title="Cityscapes to night, semantic segmentation",
    columns=(
        Column("dark-zurich", "mIoU", "Dark Zurich-val mIoU"),
        Column("nighttime-driving", "mIoU", "Nighttime Driving mIoU"),
    ),
    rows=(
        PaperRow("DAFormer", "images", (None, 54.1)),
        PaperRow("Refign-DAFormer", "images", (None, 56.8)),
        PaperRow("PTDiffSeg", "-", (37.0, None)),
        PaperRow("TADP null", "-", (42.8, 57.5), "null"),
        PaperRow("TADP simple", "name", (39.1, 56.9), "simple"),
        PaperRow("TADP TextualInversion", "500 images of Dark Zurich", (41.4, 60.8), "textual-inversion"),
        PaperRow("TADP DreamBooth", "500 images of Dark Zurich", (38.9, 60.4), "dreambooth"),
        PaperRow("TADP NearbyDomain", "-", (41.9, 56.9), "nearby"),
        PaperRow("TADP UnrelatedDomain", "-", (42.3, 55.1), "unrelated"),
    ),
    remarks=(
        "The paper's prose gives null 60.8 on Nighttime Driving; its table says 57.5.",
        "The paper reports one run per row, evaluated on the test images during training.",
    ),
)
TABLE_5 = PaperTable(
    number=5,
    title="Pascal VOC to drawings, object detection",
    columns=(
        Column("watercolor2k", "AP (VOC07)", "Watercolor2k AP"),
        Column("watercolor2k", "AP50 (VOC07)", "Watercolor2k AP50"),
        Column("comic2k", "AP (VOC07)", "Comic2k AP"),
        Column("comic2k", "AP50 (VOC07)", "Comic2k AP50"),
    ),
    rows=(
        PaperRow("CLIP-the-Gap", "-", (None, 33.5, None, 43.4)),
        PaperRow("PLGE", "images and their classes", (None, 56.5, None, 41.7)),
        PaperRow("ICCM", "images and their classes", (None, 57.4, None, 37.1)),
        PaperRow("H2FA R-CNN", "images and their classes", (None, 59.9, None, 46.4)),
        PaperRow("ADDA", "images", (None, 49.8, None, 23.8)),
        PaperRow("MCAR", "images", (None, 56.0, None, 33.5)),
        PaperRow("UMT", "images", (None, 58.1, None, None)),
        PaperRow("DASS-Detector", "images and many drawings", (None, 71.5, None, 64.2)),
        PaperRow("TADP null", "-", (42.1, 72.1, 31.1, 57.4), "null"),
        PaperRow("TADP simple", "name", (43.5, 72.2, 31.9, 56.6), "simple"),
        PaperRow("TADP TextualInversion", "5 images", (43.2, 72.2, 33.2, 57.4), "textual-inversion"),
        PaperRow("TADP DreamBooth", "5 images", (43.2, 72.2, 32.9, 56.9), "dreambooth"),
        PaperRow("TADP NearbyDomain", "-", (42.0, 71.5, 31.8, 56.4), "nearby"),
        PaperRow("TADP UnrelatedDomain", "-", (42.2, 71.9, 32.0, 55.9), "unrelated"),
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


def measured(folder: Path | None, column: Column, variant: Variant, row: str) -> tuple[float, ...]:
    """One number per seed of the runs in a run folder; empty where nothing was run with the recipe's settings."""
    if folder is None or not row:
        return ()
    name = benchmark_name(column, variant)
    try:
        reports = load_results(folder, name, only=read_benchmark(name).rows).get(row, {}).values()
    except DataError:  # none of the benchmark is finished: its cells say so
        return ()
    found = (report.primary.measure(column.measure) for report in reports if report.primary)
    return tuple(measure.value for measure in found if measure and measure.value is not None)


def as_text(numbers: tuple[float, ...]) -> str:
    """Mean, spread over seeds and their number."""
    if len(numbers) < 2:
        return f"{numbers[0]:.1f} (1 seed)" if numbers else NOT_RUN
    return f"{statistics.mean(numbers):.1f} ± {statistics.stdev(numbers):.1f} ({len(numbers)} seeds)"


def beside_ours(table: PaperTable, variant: Variant, folder: Path | None) -> Table:
    """The paper's table with a column of ours behind each of its own, for the terminal.

    Args:
        table: which.
        variant: whose settings ours are.
        folder: run folder of ``benchmark run``; None for none.
    """
    header, known = ["method", "seen of the target"], {row.row for row in table.rows}
    recipes = [read_benchmark(benchmark_name(column, variant)).rows for column in table.columns]
    rows = list(table.rows)
    for name in dict.fromkeys(name for found in recipes for name in found if name not in known):
        labels = any(found[name].uses_target_labels for found in recipes if name in found)
        seen = "images and labels" if labels else "-"
        rows.append(PaperRow(f"ours: {name}", seen, (None,) * len(table.columns), name))
    lines = [[row.method, row.seen] for row in rows]
    for i, column in enumerate(table.columns):
        header += [column.heading, f"here ({variant})"]
        for row, line in zip(rows, lines, strict=True):
            number = row.numbers[i]
            ours = as_text(measured(folder, column, variant, row.row)) if row.row in recipes[i] else "-"
            line += ["-" if number is None else f"{number:.1f}", ours]
    return Grid(f"Table {table.number}: {table.title}", header, lines).rich()
