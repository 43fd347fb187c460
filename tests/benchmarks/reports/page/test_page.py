"""A page says what the table says, holds everything by itself, and takes no name for markup."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.publishing import publish_unscored
from benchmarks.reports.page import pictures, write_page
from benchmarks.reports.page.course import curves, facts
from benchmarks.reports.page.material import Material
from benchmarks.reports.page.pictures import BUDGET
from benchmarks.reports.page.scores import verdict
from benchmarks.reports.statistics import compare
from benchmarks.suite import load_results, table_folder
from tadp_da import model_files
from tadp_da.cli import app
from tadp_da.errors import UsageError
from tadp_da.model_files import MODELS
from tadp_da.storage.files import write_json
from tests.benchmarks.reports.page.conftest import GAINS, HOSTILE, TABLE, artifact, fill, keep_maps, picture
from tests.benchmarks.scored import evaluation, report, row

NULL = {0: 46.0, 1: 44.0, 2: 45.0}


class Page(HTMLParser):
    """Elements, visible text, and text of the headings of sections."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.inside = "", [""]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside.append("")

    def handle_data(self, data: str) -> None:
        if self.inside[-1] not in ("style", "script"):
            self.text += " " + data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def read(page: Path) -> Page:
    return Page(page.read_text(encoding="utf-8"))


def test_everything_is_there_and_in_order(read: Page) -> None:
    ids = [a["id"] for a in read.all("section")]
    expected = [
        "verdict",
        "table",
        "seeds",
        "differences",
        "classes",
        "images",
        "extremes",
        "concepts",
        "attention",
        "curves",
    ]
    assert ids == [*expected, "health", "findings", "facts"]
    text = " ".join(read.text.split())
    for part in (
        "dreambooth is better than null on the target, by 3.1 points of mIoU on average over 3 seeds.",
        "+2.8 to +3.5",
        "3 seeds - few: such an interval is wide",
        "worse",
        "d1gest",
        "abc1234",
        "1.25",  # of an analysis
        "dark night 0.1 to 25 %",  # attention
        "25 min of computing",  # 12 models, 12 reports, and one concept although three seeds use it
        "adapt.steps 80",
    ):
        assert part in text, part
    assert len(read.all("polyline")) == 3 * len(GAINS) + 1 + 2 * len(GAINS)


def test_no_name_is_markup_or_a_template(page: Path, read: Page) -> None:
    assert len(read.all("script")) == 1
    assert not [a for _, a in read.tags if any(name.startswith("on") for name in a)]
    assert read.text.count("<script>alert(1)</script>\"'{{ 7*7 }}{% x %}\\u202e</td>") > 20
    assert "\u202e" not in page.read_text(encoding="utf-8"), "marks of direction are shown as escapes"
    assert all(
        a["src"] is None or a["src"].startswith("data:image/webp") for a in read.all("img") if "src" in a
    )


def test_every_image_has_a_text_and_every_table_has_headers(read: Page) -> None:
    shown = [a["alt"] for a in read.all("img") if "src" in a]
    assert len(shown) == 2 * (2 + len(GAINS)) + 8 * len(GAINS) + 1
    assert all(shown)
    assert "Prediction of dreambooth on a/1.png, mIoU 49.0" in shown
    assert "Attention of dreambooth for “dark night” on a/1.png" in shown
    assert all(a.get("scope") in ("row", "col") for a in read.all("th"))
    ids = [a["id"] for _, a in read.tags if "id" in a]
    assert len(set(ids)) == len(ids)


def test_nothing_is_named_that_lies_outside(page: Path) -> None:
    text = re.sub(r"data:image/webp;base64,[\w+/=]+", "", page.read_text(encoding="utf-8"))
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"(?m)^// .*$", "", text))
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("gains", "seeds", "tone", "says"),
    [
        (
            {"x": 3.0},
            3,
            "good",
            "x is better than null on the target, by 3.0 points of mIoU on average over 3 seeds.",
        ),
        ({"x": -3.0}, 3, "bad", "No row is better than null on the target; x is worse"),
        ({"x": 3.0, "y": 9.0}, 3, "good", "y is better than null"),
        ({"x": 3.0}, 1, "open", "x is 3.0 points of mIoU above null on the target, at one seed: too few"),
        ({}, 3, "open", "null scores 45.0 % ± 1.0 mIoU on the target."),
    ],
)
def test_the_verdict_is_in_words(gains: dict[str, float], seeds: int, tone: str, says: str) -> None:
    base = {seed: NULL[seed] for seed in range(seeds)}
    noise = {0: 0.1, 1: -0.1, 2: 0.0}
    reports = {"null": row(base)} | {
        name: row({s: v + gain + noise[s] * (seeds > 1) for s, v in base.items()})
        for name, gain in gains.items()
    }
    data = verdict(Material(title="t", reports=reports, comparison=compare(reports))).data
    assert data["headline"].startswith(says)
    assert data["tone"] == tone
    assert data["unsure"]


def test_unclear_and_uncorrected_differences_are_called_that() -> None:
    base = dict.fromkeys(range(3), 45.0)
    unclear = {"null": row(base), "x": row({0: 44.0, 1: 46.0, 2: 46.5})}
    told = verdict(Material(title="t", reports=unclear, comparison=compare(unclear))).data
    assert told["headline"] == "No row is clearly better than null on the target."
    barely = {"x": row({0: 45.7, 1: 46.0, 2: 46.3})}
    others = {f"y{i}": row({0: 44.0, 1: 46.0, 2: 46.5 + 0.1 * i}) for i in range(9)}
    reports = {"null": row(base), **barely, **others}
    data = verdict(Material(title="t", reports=reports, comparison=compare(reports))).data
    assert data["headline"].startswith("x is better")
    assert data["tone"] == "open"
    assert any("does not stand after a correction" in told for told in data["unsure"])


def test_a_row_that_saw_target_labels_is_no_winner() -> None:
    reports = {"null": row(NULL), "x": row({s: v + 1 for s, v in NULL.items()})}
    reports["oracle"] = row({s: v + 25 for s, v in NULL.items()})
    notes = [{"row": "oracle", "seed": 0, "recipe": {"train_on": "target"}}]
    material = Material(title="t", reports=reports, comparison=compare(reports), notes=notes)
    assert verdict(material).data["headline"].startswith("x is better")


def test_where_smaller_is_better_the_sign_does_not_mislead() -> None:
    def errors(values: dict[int, float]) -> dict[int, object]:
        kind = {"name": "RMSE", "unit": "m", "higher_is_better": False}
        return {s: report(target=evaluation(v, None, **kind)) for s, v in values.items()}

    reports = {"null": errors(NULL), "x": errors({s: v - 3 - s / 10 for s, v in NULL.items()})}
    data = verdict(Material(title="t", reports=reports, comparison=compare(reports))).data  # type: ignore[arg-type]
    assert data["headline"].startswith("x is better than null on the target, by 3.100 m of RMSE")


def test_without_labels_there_are_predictions_maps_a_legend_and_a_ranking(tmp_path: Path) -> None:
    reports = {}
    picture(tmp_path / "predictions/images/one.png", 0)
    for name in ("null", "simple"):
        seed = 0 if name == "null" else 1  # of each row at its lowest seed
        picture(tmp_path / f"predictions/seed-{seed}/{name}/one.png", 1)
        keep_maps(tmp_path / f"predictions/seed-{seed}/{name}", ["one.png"], name, 1)
        model = artifact(tmp_path, "model", {"row": name})
        write_json(model / "model.json", {"labels": {"task": "segmentation", "classes": ["sky", HOSTILE]}})
        found = artifact(tmp_path, "report", {"model": {"row": name}})
        reports[name] = dict.fromkeys((0, 1), dataclasses.replace(report(), folder=found))
    choice = table_folder(tmp_path, "own") / "selection/findings.json"
    choice.parent.mkdir(parents=True)
    write_json(choice, {"text": "the choice is simple"})
    read = Page(publish_unscored(tmp_path, "own", reports).read_text(encoding="utf-8"))
    assert "There are no scores" in read.text
    assert read.text.count("the choice is simple") == 2, "in the verdict and with its tables"
    assert len([a for a in read.all("i") if (a.get("style") or "").startswith("background:#")]) == 2
    shown = [a["alt"] or "" for a in read.all("img") if "src" in a]
    assert shown[:3] == ["Image one", *(f"Prediction of {n} on one" for n in reports)]
    assert [alt.startswith("Attention of ") for alt in shown[3:]] == [True] * 4


def test_settings_that_differ_are_choices_by_name_with_those_inside_them() -> None:
    def noted(row: str, style: object, steps: int) -> dict[str, object]:
        recipe = {"strategy": "null", "source_style": style, "adapt": {"steps": steps}, "limit": None}
        return {"row": row, "recipe": recipe, "made_of": {}}

    strong = {"name": "strong", "settings": {"gamma": 0.9, "sigma": [0.2, 1.2], "view": {"blur": 0.5}}}
    mix = {"name": "mix", "settings": {"changed": 0.5, "styles": [{"name": "fourier"}, strong]}}
    notes = [noted("plain", {"name": "original", "settings": {}}, 10), noted("mixed", mix, 20)]
    reports = {row: {0: report()} for row in ("plain", "mixed")}
    data = facts(Material(title="t", reports=reports, comparison=None, notes=notes)).data
    assert data["columns"] == ["source_style", "adapt.steps"]
    assert [*data["brief"]["plain"].values()] == ["original", "10"]
    assert [*data["brief"]["mixed"].values()] == ["mix (fourier, strong)", "20"]
    assert data["own"]["mixed"]["source_style.changed"] == 0.5


def test_images_are_made_to_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BUDGET", 100_000)
    folder = fill(tmp_path, {str(i): 0.0 for i in range(11)}, seeds=1, saved=1, size=(320, 160))
    section = pictures.images(Material(title="t", reports=load_results(folder, TABLE), comparison=None))
    assert section is not None
    sources = [cell.src for line in section.data["lines"] for cell in line.cells]
    assert len(sources) == 13
    assert 10_000 < sum(map(len, sources)) * 3 / 4 < 100_000
    assert BUDGET < 0.75 * 8_000_000, "what is encoded as text leaves room for the rest of the page"


def test_what_is_missing_or_broken_is_left_out(tmp_path: Path) -> None:
    folder = fill(tmp_path, {"null": 0.0, "x": 2.0}, seeds=1)
    for path in [*folder.glob("model-*/metrics.jsonl"), *folder.glob("concept-*/*.json")]:
        path.write_text("{")
    next(folder.glob("report-*/target/00-prediction.png")).unlink()
    reports = load_results(folder, TABLE)
    material = Material(title="t", reports=reports, comparison=compare(reports), folder=folder)
    assert curves(material) is None
    section = pictures.images(material)
    assert section is not None
    assert [bool(cell and cell.src) for line in section.data["lines"] for cell in line.cells].count(
        False
    ) == 1
    assert write_page("t", reports, compare(reports), tmp_path, artifacts=folder).exists()


def test_the_command_writes_the_page_of_every_table_and_names_it(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", {"null": 0.0, "x": 2.0}, seeds=2, saved=1)
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    written = table_folder(folder, TABLE) / "index.html"
    assert f"Report: {written}" in result.output.replace("\n", "")
    assert HOSTILE not in written.read_text(encoding="utf-8")
    empty = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert "no table of finished runs" in str(empty.exception)


def test_the_model_of_every_row_and_seed_is_named(page: Path, read: Page) -> None:
    folder = page.parents[2]
    models = json.loads((page.parent / MODELS).read_text(encoding="utf-8"))
    assert list(models) == list(GAINS)
    for name, seeds in models.items():
        assert list(seeds) == ["0", "1", "2"]
        for seed, place in seeds.items():
            inputs = json.loads((folder / place / "manifest.json").read_text())["inputs"]
            assert (inputs["row"], inputs["seed"]) == (name, int(seed))
            assert place in read.text
    with pytest.raises(UsageError, match="this is a run folder") as caught:
        model_files.read(folder)
    assert str(folder / models["null"]["1"]) in caught.value.fix
