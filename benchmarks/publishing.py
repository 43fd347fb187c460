"""What is written of a table: table, plot, panels, and the page that shows everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.reports import tables
from benchmarks.reports.page import write_page
from benchmarks.reports.page.material import Material
from benchmarks.reports.statistics import BASELINE, Comparison, compare, without_classes
from benchmarks.reports.tables import Written
from benchmarks.suite import Reports, read_notes, table_folder
from tadp_da.model_files import MODELS
from tadp_da.storage.files import write_json


def publish(
    title: str,
    reports: Reports,
    folder: Path,
    baseline: str = BASELINE,
    without: Sequence[str] = (),
    *,
    table: tuple[Path, str] | None = None,
) -> tuple[Comparison, Written, Path]:
    """Compare, by a measure without these classes if any, and write table, plot, panels and page into ``folder``.

    Args:
        title: of table and page.
        reports: row to seed to report.
        folder: created if it does not exist.
        baseline: the row that others are compared with.
        without: classes to leave out.
        table: run folder and name, where the page finds settings, models and concepts.
    """
    if without:
        reports, title = without_classes(reports, without), f"{title}, without {', '.join(without)}"
    comparison = compare(reports, baseline=baseline, title=title)
    written = tables.write(comparison, reports, folder)
    return comparison, written, _page(title, reports, comparison, folder, table)


def publish_unscored(folder: Path, name: str, reports: Reports) -> Path:
    """Write the page of a table whose test images have no labels: predictions, concepts and training."""
    return _page(name, reports, None, table_folder(folder, name), (folder, name))


def _page(
    title: str, reports: Reports, comparison: Comparison | None, folder: Path, table: tuple[Path, str] | None
) -> Path:
    notes, artifacts = (read_notes(*table), table[0]) if table else ([], None)
    notes = [n for n in notes if n["seed"] in reports.get(n["row"], {})]
    page = write_page(title, reports, comparison, folder, notes=notes, artifacts=artifacts)
    if artifacts is not None:
        write_json(folder / MODELS, models_of(reports, artifacts))
    return page


def models_of(reports: Reports, folder: Path) -> dict[str, dict[str, str]]:
    """Names of the models' folders in a run folder, by row and seed; of those that are there."""
    material = Material(title="", reports=reports, comparison=None, folder=folder)
    found = {
        row: {str(seed): model[0].name for seed in sorted(seeds) if (model := material.model(row, seed))}
        for row, seeds in reports.items()
    }
    return {row: models for row, models in found.items() if models}
