"""Fill a table: every row at every seed, what is finished is not done again; then compare and write it down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report as reports_of
from benchmarks.comparison import Comparison, compare
from benchmarks.evaluate import Report
from benchmarks.jobs import side_by_side
from benchmarks.pipeline import reproduce
from benchmarks.recipe import Benchmark, Recipe
from benchmarks.report import Written
from tadp_da.errors import DataError
from tadp_da.run import Run, write_json

Reports = Mapping[str, Mapping[int, Report]]


@dataclass(frozen=True)
class _Cell:
    """One row at one seed."""

    table: str
    name: str
    place: int
    seed: int
    recipe: Recipe
    data: Path


def fill(benchmark: Benchmark, seeds: Sequence[int], run: Run, data: Path, jobs: int = 1) -> Reports:
    """Run every row at every seed and note where each report lies, so that several processes can share the work.

    Args:
        benchmark: the rows.
        seeds: training seeds; every row uses the same ones, so that differences are paired.
        run: folder, device, precision.
        data: folder of the registry's domains.
        jobs: rows that run at a time, each in a process of its own.
    """
    cells = [
        _Cell(benchmark.name, name, benchmark.order.index(name), seed, recipe, data)
        for seed in seeds
        for name, recipe in benchmark.rows.items()
    ]
    if jobs > 1:
        side_by_side(_fill_one, cells, run, jobs, benchmark.name)
    else:
        for cell in cells:
            with run.progress(1, cell.table) as advance:
                advance(_fill_one(cell, run))
    return finished(run.folder, benchmark.name)


def _fill_one(cell: _Cell, run: Run) -> str:
    report = reproduce(cell.recipe, run.with_seed(cell.seed), cell.data)
    note = _notes(run.folder, cell.table) / f"{cell.name}-{cell.seed}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    # a report lies at an absolute path, and --out may be a relative one
    place = report.folder.relative_to(run.folder.absolute()).as_posix() if report.folder else ""
    facts = {"row": cell.name, "place": cell.place, "seed": cell.seed, "report": place}
    write_json(note, facts | {"recipe": cell.recipe.as_json()})
    found = report.target
    score = "" if found is None or found.main is None else f": {found.metric} {found.main:.1f}"
    return f"{cell.name}, seed {cell.seed}{score}"


def finished(folder: Path, name: str, *, only: Mapping[str, Recipe] | None = None) -> Reports:
    """Reports of a benchmark that stand in a run folder, by row and seed, in the order of its table.

    Args:
        folder: run folder.
        name: of the benchmark.
        only: leave out reports of rows that were made with other settings than these, but for where models and captions
            lie.

    Raises:
        DataError: when none does.
    """
    found: dict[str, dict[int, Report]] = {}
    notes = [json.loads(n.read_text(encoding="utf-8")) for n in _notes(folder, name).glob("*.json")]
    for told in sorted(notes, key=lambda note: (note["place"], note["row"], note["seed"])):
        if only is not None and not _alike(told["recipe"], only.get(told["row"])):
            continue
        found.setdefault(told["row"], {})[int(told["seed"])] = Report.load(folder / told["report"])
    if not found:
        raise DataError(
            f"no finished run of {name!r}",
            where=folder,
            fix=f"run it first: tadp-da benchmark run {name} --out {folder}",
        )
    return found


def _alike(told: Mapping[str, Any], recipe: Recipe | None) -> bool:
    if recipe is None:
        return False
    mine, theirs = dict(told), recipe.as_json()
    for model in ("model", "captioner"):  # a path or a mirror is the same model, the embedded one is another
        mine[model], theirs[model] = mine.get(model) == "mini", theirs[model] == "mini"
    mine["caption_files"] = theirs["caption_files"]
    return mine == theirs


def publish(title: str, reports: Reports, folder: Path, baseline: str = "null") -> tuple[Comparison, Written]:
    """Compare, and write table, plot and panels into ``folder``."""
    comparison = compare(reports, baseline=baseline, title=title)
    return comparison, reports_of.write(comparison, reports, folder)


def _notes(folder: Path, name: str) -> Path:
    return folder / "tables" / name / "rows"
