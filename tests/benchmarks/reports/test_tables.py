"""Tables say the same in every format, show what is absent, and trust no name."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks.evaluate import EvaluationSettings, evaluate
from benchmarks.reports.statistics import Comparison, compare
from benchmarks.reports.tables import as_csv, markdown, terminal, terminal_classes, write
from benchmarks.results import Report
from tadp_da.run import Run
from tadp_da.types import Labeled
from tests.benchmarks.scored import LABELS, Predicts, evaluation, report, row

NULL = {0: 46.0, 1: 44.0, 2: 45.0}
GAIN = {0: 49.1, 1: 47.0, 2: 47.9}
HOSTILE = "=cmd|'x'!A1 <script>alert(1)</script> [a](http://x) $\\frac$ \n| b |"


@pytest.fixture
def comparison() -> Comparison:
    return compare({"null": row(NULL), "dreambooth": row(GAIN)}, title="day to night")


def shown(*tables: object) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(*tables)
    return console.file.getvalue()


def test_every_format_says_the_same(comparison: Comparison) -> None:
    for text in (shown(terminal(comparison)), markdown(comparison)):
        for part in (
            "day to night",
            "dreambooth",
            "48.0 ± 1.1",
            "+3.0 (+2.8 to +3.2)",
            "helps",
            "45.0 ± 1.0",
        ):
            assert part in text
    first, second = csv.DictReader(io.StringIO(as_csv(comparison)))
    assert first["verdict"] == "baseline"
    assert first["difference"] == ""
    assert float(second["target_mean"]) == pytest.approx(48.0)
    assert float(second["difference"]) == pytest.approx(3.0)
    assert second["difference_seeds"] == "3"


def test_absent_classes_are_dashes_not_zeros() -> None:
    classes = {"sky": 80.0, "road": None, "car": 0.0, "tree": 1.0}
    reports = {0: report(target=evaluation(50.0, classes))}
    comparison = compare({"null": reports})
    assert "| null | 80.0 | - | 0.0 | 1.0 |" in markdown(comparison)
    line = next(line for line in shown(terminal_classes(comparison)).splitlines() if "null" in line)
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells == ["null", "80.0", "-", "0.0", "1.0"]
    assert next(csv.DictReader(io.StringIO(as_csv(comparison))))["target_road"] == ""


def test_notes_tell_what_the_numbers_do_not(comparison: Comparison) -> None:
    text = markdown(comparison)
    for part in ("sample standard deviation", "95 % interval", "not corrected", comparison.conclusion()[:30]):
        assert part in text


def test_hostile_names_are_shown_as_they_are(tmp_path: Path) -> None:
    reports = {"null": row(NULL), HOSTILE: row(GAIN)}
    comparison = compare(reports, title=HOSTILE)
    text = markdown(comparison)
    assert "<script" not in text
    assert r"\[a\](http://x) \$\\frac\$" in text, "no link, no formula"
    table = next(line for line in text.splitlines() if line.startswith("| =cmd"))
    assert table.replace("\\|", "").count("|") == 8
    assert list(csv.DictReader(io.StringIO(as_csv(comparison))))[1]["row"].startswith("'=cmd")
    assert "[a](http://x)" in shown(terminal(comparison)).replace("\n", "")
    written = write(comparison, reports, tmp_path)
    assert written.plot.stat().st_size > 10_000


def test_all_files_are_written_and_hold_the_pictures(
    data: Labeled, truths: list[np.ndarray], run: Run, tmp_path: Path
) -> None:
    reports: dict[str, dict[int, Report]] = {}
    for name, flip in (("null", 0), ("textual-inversion", 1)):
        for seed in range(2):
            folder = tmp_path / name / str(seed)
            model = Predicts(
                lambda i, *_, f=flip: np.where(truths[i] > 2, 0, truths[i] * (1 - f)).astype(np.uint8)
            )
            found = evaluate(
                model, data, str, run, EvaluationSettings(save_images=2), images=folder / "target"
            )
            report(target=found).save(folder)
            reports.setdefault(name, {})[seed] = Report.load(folder)
    comparison = compare(reports)
    written = write(comparison, reports, tmp_path / "table")
    assert written.panels is not None
    for path in dataclasses.astuple(written):
        assert path.stat().st_size > 0
    text = written.markdown.read_text()
    assert "(scores.png)" in text
    assert "(panels.png)" in text
    stored = json.loads(written.json.read_text())
    assert stored["conclusion"] == comparison.conclusion()
    better, worse = (reports[name][1].evaluations["target"].main.value for name in reports)
    assert worse is not None
    assert better == 100.0 > worse
    assert stored["rows"][1]["difference"]["values"]["1"] == worse - 100.0
    with Image.open(written.panels) as panels:
        colours = {colour for _, colour in panels.convert("RGB").getcolors(2**20)}
    assert set(LABELS.palette[:3]) <= colours, "the legend names the classes that are shown"
    assert LABELS.palette[3] not in colours


def test_without_saved_images_there_are_no_panels_and_none_are_promised(tmp_path: Path) -> None:
    reports = {"null": row(NULL), "x": row(GAIN)}
    written = write(compare(reports), reports, tmp_path)
    assert written.panels is None
    assert not (tmp_path / "panels.png").exists()
    assert "panels" not in written.markdown.read_text()


def test_the_strongest_row_that_sees_no_target_image_is_a_second_baseline(tmp_path: Path) -> None:
    rows = {"null": (NULL, False), "strong": (GAIN, False), "dreambooth": ({0: 49.9, 1: 48.1, 2: 48.6}, True)}
    reports = {
        name: {s: dataclasses.replace(r, sees_target=sees) for s, r in row(values).items()}
        for name, (values, sees) in rows.items()
    }
    comparison = compare(reports)
    text = markdown(comparison)
    for part in (
        "| difference from strong | p (Holm) |",
        "strong is the strongest of the rows that see no target image (null, strong).",
        "## Difference of mIoU from null per class, %",
        "## Difference of mIoU from strong per class, %",
    ):
        assert part in text
    assert "difference from strong" in shown(terminal(comparison))
    _, strong, dreambooth = csv.DictReader(io.StringIO(as_csv(comparison)))
    assert (strong["sees_target"], strong["difference_from_blind"]) == ("False", "")
    assert dreambooth["sees_target"] == "True"
    assert float(dreambooth["difference_from_blind"]) == pytest.approx((0.8 + 1.1 + 0.7) / 3)
    assert float(dreambooth["difference_from_blind_sky"]) == pytest.approx((0.8 + 1.1 + 0.7) / 3)
    stored = json.loads(write(comparison, reports, tmp_path).json.read_text())
    assert stored["blind"] == "strong"
    assert stored["rows"][2]["against_blind"]["classes"]["sky"] == pytest.approx((0.8 + 1.1 + 0.7) / 3)
