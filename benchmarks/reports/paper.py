"""The paper's tables 1 to 5, and beside them what was measured here."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rich.table import Table

from benchmarks.recipe import Recipe, read_benchmark
from benchmarks.reports.paper_tables import TABLES, Column, PaperRow, PaperTable
from benchmarks.reports.tables import Grid
from benchmarks.suite import load_results, reads_test_labels
from tadp_da.errors import DataError

Variant = Literal["paper", "repo", "ours"]
VARIANTS: tuple[Variant, ...] = ("paper", "repo", "ours")
NOT_RUN = "not run"


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


def as_text(numbers: tuple[float, ...], digits: int = 1) -> str:
    """Mean, spread over seeds and their number."""
    if len(numbers) < 2:
        return f"{numbers[0]:.{digits}f} (1 seed)" if numbers else NOT_RUN
    mean, spread = statistics.mean(numbers), statistics.stdev(numbers)
    return f"{mean:.{digits}f} ± {spread:.{digits}f} ({len(numbers)} seeds)"


def beside_ours(table: PaperTable, variant: Variant, folder: Path | None) -> Table:
    """The paper's table with a column of ours behind each of its own, for the terminal.

    Args:
        table: which.
        variant: whose settings ours are.
        folder: run folder of ``benchmark run``; None for none.
    """
    header = ["method", table.about]
    recipes = [read_benchmark(benchmark_name(column, variant)).rows for column in table.columns]
    rows = [*table.rows, *(_further(table, recipes) if table.further else ())]
    lines = [[row.method, row.seen] for row in rows]
    for i, column in enumerate(table.columns):
        header += [column.heading, f"here ({variant})"]
        for row, line in zip(rows, lines, strict=True):
            number, name = row.numbers[i], row.row_of(i)
            ours = as_text(measured(folder, column, variant, name), column.digits)
            line += [
                "-" if number is None else f"{number:.{column.digits}f}",
                ours if name in recipes[i] else "-",
            ]
    return Grid(f"Table {table.number}: {table.title}", header, lines).rich()


def _further(table: PaperTable, recipes: list[Mapping[str, Recipe]]) -> list[PaperRow]:
    """Rows of the recipes that the paper's tables do not have."""
    known = {
        (c.target, r.row_of(i)) for each in TABLES for r in each.rows for i, c in enumerate(each.columns)
    }
    # two columns of one benchmark tell rows apart (several scales): a row of ours that is in neither is in the first
    first = {(c.target, c.measure): i for i, c in reversed(list(enumerate(table.columns)))}
    found: dict[str, tuple[str, ...]] = {}
    for name in dict.fromkeys(name for rows in recipes for name in rows):
        found[name] = tuple(
            name if name in rows and (c.target, name) not in known and first[c.target, c.measure] == i else ""
            for i, (c, rows) in enumerate(zip(table.columns, recipes, strict=True))
        )
    nothing = (None,) * len(table.columns)
    return [
        PaperRow(f"ours: {name}", _seen(next(r[name] for r in recipes if name in r)), nothing, places)
        for name, places in found.items()
        if any(places)
    ]


def _seen(recipe: Recipe) -> str:
    """What a row of ours is told, in the words of the table."""
    if reads_test_labels({"strategy": recipe.strategy}):
        return "labels of test images"
    if recipe.target is None:
        return (
            recipe.strategy
            if recipe.caption_source is None
            else f"{recipe.strategy}, {recipe.caption_source}"
        )
    return "images and labels" if recipe.uses_target_labels else "-"
