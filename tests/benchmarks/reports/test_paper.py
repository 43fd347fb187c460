"""The paper's tables hold what the paper says, every row of them has its recipe, and ours stands beside it."""

from __future__ import annotations

import dataclasses
import io
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.recipe import Recipe, read_benchmark
from benchmarks.reports.paper import (
    NOT_RUN,
    VARIANTS,
    Variant,
    as_text,
    benchmark_name,
    beside_ours,
    measured,
)
from benchmarks.reports.paper_tables import (
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLES,
    PaperTable,
)
from tadp_da.captions.strategies import PromptContext, find
from tadp_da.domains import domains
from tadp_da.domains.shared.paper_description import AS_PUBLISHED
from tadp_da.storage.files import write_json
from tadp_da.tasks import Measure
from tests.benchmarks.scored import evaluation, report

COLUMNS = [(table, column) for table in (TABLE_4, TABLE_5) for column in table.columns]
SINGLE = [(table, i) for table in (TABLE_1, TABLE_2, TABLE_3) for i in range(len(table.columns))]
TARGETS = sorted({column.target for _, column in COLUMNS})


def said(table: PaperTable, row: str) -> tuple[float | None, ...]:
    return next(r.numbers for r in table.rows if r.row == row)


def shown(table: PaperTable, variant: Variant, folder: Path | None) -> list[str]:
    console = Console(width=220, record=True, file=io.StringIO())
    console.print(beside_ours(table, variant, folder))
    return console.export_text().splitlines()


def test_the_numbers_give_the_averages_that_the_paper_quotes() -> None:
    def mean(table: PaperTable, row: str, *columns: int) -> float:
        numbers = said(table, row)
        return statistics.mean(numbers[i] or 0.0 for i in columns)

    quoted = {"simple": 48.0, "textual-inversion": 51.1}
    assert {row: mean(TABLE_4, row, 0, 1) for row in quoted} == pytest.approx(quoted, abs=0.051)
    quoted = {"null": 36.6, "simple": 37.7, "textual-inversion": 38.2, "dreambooth": 38.1}
    assert {row: mean(TABLE_5, row, 0, 2) for row in quoted} == pytest.approx(quoted, abs=0.051)


def test_the_papers_gains_follow_from_its_rows() -> None:
    null, inverted = said(TABLE_4, "null")[1], said(TABLE_4, "textual-inversion")[1]
    assert null is not None
    assert inverted is not None
    assert round(inverted - null, 1) == 3.3


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=lambda x: getattr(x, "heading", ""))
def test_every_row_of_the_paper_has_its_recipe(table: PaperTable, column: Any, variant: Variant) -> None:
    benchmark = read_benchmark(benchmark_name(column, variant))
    assert {row.row_of(0) for row in table.rows if row.row} <= set(benchmark.rows)
    assert "no-text" in benchmark.rows
    assert ("oracle" in benchmark.rows) == ("train" in domains[column.target].splits)
    assert {recipe.target for recipe in benchmark.rows.values()} == {column.target}
    assert "Not yet run at full size" in " ".join(benchmark.claim.split())


def prompt(recipe: Recipe) -> str:
    assert isinstance(recipe.target, str)
    words = domains[recipe.target].description
    word = recipe.personalize.settings.get("word")
    context = PromptContext(side="target", source=words, target=words, word=word)
    return find(recipe.strategy)("a car on a street", context)


@pytest.mark.parametrize("target", TARGETS)
def test_the_published_prompts_are_said_to_the_letter_and_ours_in_english(target: str) -> None:
    rows = {variant: read_benchmark(f"{target}-{variant}").rows for variant in VARIANTS}
    for name, template in AS_PUBLISHED[target].items():
        recipe = rows["repo"][name]
        expected = template.replace("{caption!r}", "a car on a street")
        assert prompt(recipe) == expected.replace("{word}", recipe.personalize.settings.get("word", ""))
        english = [prompt(rows[variant][name]) for variant in ("paper", "ours")]
        assert not any(re.search(r"\ba an? ", text) for text in english)
    assert prompt(rows["repo"]["null"]) == prompt(rows["ours"]["null"]) == "a car on a street"


@pytest.mark.parametrize("target", TARGETS)
def test_rows_differ_in_words_and_concepts_only(target: str) -> None:
    for variant in VARIANTS:
        rows = read_benchmark(f"{target}-{variant}").rows
        peers = {name for name, recipe in rows.items() if recipe.backbone != rows["null"].backbone}
        assert peers == ({"dinov2"} if variant == "ours" else set())
        rows = {name: recipe for name, recipe in rows.items() if name not in peers}
        alike = {"personalize": rows["null"].personalize, "strategy": "null", "train_on": "source"}
        alike["target_images"] = rows["null"].target_images
        assert {str(dataclasses.replace(recipe, **alike)) for recipe in rows.values()} == {str(rows["null"])}


@pytest.mark.parametrize("target", TARGETS)
def test_only_the_repo_keeps_the_faults_of_the_published_code(target: str) -> None:
    null = {variant: read_benchmark(f"{target}-{variant}").rows["null"] for variant in VARIANTS}
    assert [null[v].backbone.settings["pixels"] for v in VARIANTS] == ["sd", "imagenet", "sd"]
    detects = null["ours"].head.name == "faster-rcnn"
    assert [null[v].sides for v in VARIANTS] == ["both", "target" if detects else "both", "both"]
    assert null["repo"].backbone.settings["scaled"] is not detects
    assert (null["repo"].backbone.settings["posterior"] == "sample") is not detects
    ours = null["ours"]
    assert (ours.backbone.settings["scaled"], ours.backbone.settings["posterior"], ours.inference.squash) == (
        True,
        "mode",
        None,
    )
    assert ours.adapt.augment.flip > 0
    assert ours.adapt.augment.scale[0] < ours.adapt.augment.scale[1]


@pytest.mark.parametrize("target", TARGETS)
def test_concepts_are_learned_from_as_many_images_as_the_authors_took(target: str) -> None:
    art = target.endswith("2k")
    for variant, word, network in (
        ("paper", 5 if art else 500, 5 if art else 500),
        ("repo", 5 if art else None, 10 if art else 500),
        ("ours", 5 if art else 500, 5 if art else 500),
    ):
        rows = read_benchmark(f"{target}-{variant}").rows
        assert (rows["textual-inversion"].target_images, rows["dreambooth"].target_images) == (word, network)
        assert {recipe.clean_target for recipe in rows.values()} == {art}
        assert rows["textual-inversion"].personalize.settings["crop"] == (
            "center" if variant == "ours" else "squash"
        )


def test_driving_is_trained_and_seen_at_the_papers_sizes() -> None:
    for variant in ("paper", "repo"):
        recipe = read_benchmark(f"nighttime-driving-{variant}").rows["null"]
        assert recipe.inference.size(1080, 1920) == (512, 910)
        assert len(recipe.inference.windows(512, 910)) == 3
        height, width = recipe.inference.size(1024, 2048)
        factor = recipe.adapt.augment.scale[0]
        assert (height * factor, width * factor) == (640, 1280)
    ours = read_benchmark("nighttime-driving-ours").rows["null"]
    assert ours.inference.size(1080, 1920) == (1080, 1920)


def write_report(
    folder: Path,
    name: str,
    row: str,
    seed: int,
    main: float,
    name_of: str = "mIoU",
    further: tuple[Measure, ...] = (),
    sets: tuple[str, ...] = (),
) -> None:
    place = folder / f"{name}-{row}-{seed}"
    target = dataclasses.replace(evaluation(main, name=name_of), further=further)
    report(target=target).save(place)
    note = folder / "tables" / name / "rows" / f"{row}-{seed}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    recipe = read_benchmark(name, sets).rows[row].as_json()
    write_json(note, {"row": row, "place": 0, "seed": seed, "report": place.name, "recipe": recipe})


def test_ours_stands_beside_the_papers_number_or_is_not_run(tmp_path: Path) -> None:
    for seed, main in enumerate((43.0, 45.0)):
        write_report(tmp_path, "dark-zurich-ours", "null", seed, main)
    lines = shown(TABLE_4, "ours", tmp_path)
    null = next(line for line in lines if "TADP null" in line)
    assert "42.8" in null
    assert "44.0 ± 1.4 (2 seeds)" in null
    assert null.count(NOT_RUN) == 1
    assert "not run" in next(line for line in lines if "TADP simple" in line)
    assert NOT_RUN not in next(line for line in lines if "DAFormer" in line)
    assert all("(2 seeds)" not in line for line in shown(TABLE_4, "repo", tmp_path))


@pytest.mark.parametrize(
    ("sets", "counts"),
    [("model=/models/sd15", True), ("model=mini", False), ("adapt.steps=1", False), ("limit=2", False)],
)
def test_a_run_with_other_settings_is_none_of_the_recipe(tmp_path: Path, sets: str, counts: bool) -> None:
    write_report(tmp_path, "dark-zurich-ours", "null", 0, 43.0, sets=(sets,))
    assert measured(tmp_path, TABLE_4.columns[0], "ours", "null") == ((43.0,) if counts else ())


def test_both_precisions_of_a_detector_are_read(tmp_path: Path) -> None:
    further = (Measure(name="AP (VOC07)", value=41.5),)
    write_report(tmp_path, "comic2k-ours", "oracle", 0, 70.25, "AP50 (VOC07)", further)
    ap, ap50 = (measured(tmp_path, column, "ours", "oracle") for column in TABLE_5.columns[2:])
    assert (ap, ap50) == ((41.5,), (70.25,))
    line = next(line for line in shown(TABLE_5, "ours", tmp_path) if "ours: oracle" in line)
    assert "41.5 (1 seed)" in line
    assert line.count(NOT_RUN) == 2


def test_without_a_folder_every_row_of_the_paper_is_there_and_nothing_is_run() -> None:
    for table in TABLES:
        lines = "\n".join(shown(table, "ours", None))
        assert all(row.method in lines for row in table.rows)
        assert lines.count(NOT_RUN) >= sum(
            bool(row.row_of(i)) for row in table.rows for i in range(len(table.columns))
        )
    assert as_text(()) == NOT_RUN


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("table", "index"), SINGLE, ids=lambda x: str(getattr(x, "number", x)))
def test_every_row_of_one_data_set_has_its_recipe(table: PaperTable, index: int, variant: Variant) -> None:
    column = table.columns[index]
    benchmark = read_benchmark(benchmark_name(column, variant))
    assert {name for row in table.rows if (name := row.row_of(index))} <= set(benchmark.rows)
    assert {recipe.target for recipe in benchmark.rows.values()} == {None}
    assert "Not yet run at full size" in " ".join(benchmark.claim.split())
    assert len({(row.method, row.numbers) for row in table.rows}) == len(table.rows)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_of_prompts_say_and_see_what_the_paper_says(variant: Variant) -> None:
    voc, ade = (read_benchmark(f"{name}-{variant}").rows for name in ("voc-segmentation", "ade20k"))
    for rows in (voc, ade):
        lengths = {row: rows[row].captions.min_new_tokens for row in ("null", "min-20", "min-0")}
        assert lengths == {"null": 40, "min-20": 20, "min-0": 0}
        assert find(rows["oracle"].strategy).reads_labels
        for name in ("vpd", "vpd-scaled"):
            assert len(find(rows[name].strategy).class_templates) == 80
            assert rows[name].text_adapter
            assert rows[name].backbone.settings["scaled"] is (name == "vpd-scaled")
        assert rows["null"].backbone.settings["scaled"]
        assert rows["null"].backbone.settings["latent"] is (variant == "paper")
        assert rows["null"].backbone.settings["pixels"] == "sd"
    assert (voc["nouns"].strategy, voc["nouns"].captions.min_new_tokens) == ("nouns", 20)
    assert round(voc["null"].adapt.steps * 8 / 10_582, 2) == 15
    for steps in (4, 8):
        without, vpd = (ade[f"{row}-{steps}k"].backbone for row in ("no-text", "vpd"))
        assert without == vpd, "the paper's rows of VPD do not scale latents"
        fast, adapter = ade[f"min-20-{steps}k"], ade[f"text-adapter-{steps}k"]
        assert fast.adapt.steps == 1000 * steps
        assert fast.adapt.head_lr == 2 * ade["null"].adapt.head_lr
        assert round(fast.adapt.warmup * fast.adapt.steps) == 75 * steps / 4
        assert dataclasses.replace(fast, text_adapter=True) == adapter
        assert fast.captions.min_new_tokens == 20
    depth = read_benchmark(f"nyu-v2-{variant}").rows["min-0-1-epoch"].adapt
    assert round(depth.steps * depth.batch * depth.accumulate / 24_231, 2) == 1


def test_the_papers_oracle_says_that_it_reads_labels_and_so_does_ours(tmp_path: Path) -> None:
    for table in (TABLE_1, TABLE_2):
        (oracle,) = [row for row in table.rows if "oracle" in row.method]
        assert "label" in oracle.seen
        assert any("reads labels of test images" in remark for remark in table.remarks)
    write_report(tmp_path, "voc-segmentation-ours", "oracle", 0, 90.125)
    write_report(tmp_path, "nyu-v2-ours", "null", 0, 0.2512, "RMSE")
    assert "90.12 (1 seed)" in next(line for line in shown(TABLE_1, "ours", tmp_path) if "oracle" in line)
    assert "0.251 (1 seed)" in next(line for line in shown(TABLE_2, "ours", tmp_path) if "TADP-40" in line)
    assert not any("ours: min-20-4k" in line for line in shown(TABLE_2, "ours", None))


def test_a_row_of_ours_at_one_scale_is_not_among_several_scales(tmp_path: Path) -> None:
    write_report(tmp_path, "ade20k-ours", "min-20", 0, 51.5)
    write_report(tmp_path, "ade20k-ours", "null-scales", 0, 52.5)
    lines = shown(TABLE_2, "ours", tmp_path)
    assert next(line for line in lines if "ours: min-20 " in line).count("51.5 (1 seed)") == 1
    assert next(line for line in lines if "TADP-40" in line).count("52.5 (1 seed)") == 1
