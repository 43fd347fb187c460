"""Fill a table: every row at every seed, what is finished is not done again; then compare and write it down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import report as reports_of
from benchmarks.comparison import Comparison, compare
from benchmarks.evaluate import Report
from benchmarks.pipeline import reproduce
from benchmarks.recipe import Benchmark, Recipe
from benchmarks.report import Written
from tadp_da.errors import DataError
from tadp_da.run import Run, write_json

Reports = Mapping[str, Mapping[int, Report]]


def fill(benchmark: Benchmark, seeds: Sequence[int], run: Run, data: Path) -> Reports:
    """Run every row at every seed and note where each report lies, so that several processes can share the work.

    Args:
        benchmark: the rows.
        seeds: training seeds; every row uses the same ones, so that differences are paired.
        run: folder, device, precision.
        data: folder of the registry's domains.
    """
    for seed in seeds:
        for name, recipe in benchmark.rows.items():
            with run.progress(1, f"{benchmark.name} / {name} / seed {seed}") as advance:
                report = reproduce(recipe, run.with_seed(seed), data)
                advance("" if report.target is None else f"{report.target.metric} {report.target.main}")
            note = _notes(run.folder, benchmark.name) / f"{name}-{seed}.json"
            note.parent.mkdir(parents=True, exist_ok=True)
            place = report.folder.relative_to(run.folder).as_posix() if report.folder else ""
            write_json(note, {"row": name, "seed": seed, "report": place, "recipe": recipe.as_json()})
    return finished(run.folder, benchmark.name, list(benchmark.rows))


def finished(
    folder: Path, name: str, order: Sequence[str] = (), *, only: Mapping[str, Recipe] | None = None
) -> Reports:
    """Reports of a benchmark that stand in a run folder, by row and seed.

    Args:
        folder: run folder.
        name: of the benchmark.
        order: rows to list first.
        only: leave out reports of rows that were made with other settings than these, but for where models and captions
            lie.

    Raises:
        DataError: when none does.
    """
    found: dict[str, dict[int, Report]] = {row: {} for row in order}
    for note in sorted(_notes(folder, name).glob("*.json")):
        told = json.loads(note.read_text(encoding="utf-8"))
        if only is not None and not _alike(told["recipe"], only.get(told["row"])):
            continue
        found.setdefault(told["row"], {})[int(told["seed"])] = Report.load(folder / told["report"])
    kept = {row: dict(sorted(seeds.items())) for row, seeds in found.items() if seeds}
    if not kept:
        raise DataError(
            f"no finished run of {name!r}",
            where=folder,
            fix=f"run it first: tadp-da benchmark run {name} --out {folder}",
        )
    return kept


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
