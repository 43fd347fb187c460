"""A table holds what belongs together: rows of one benchmark, made with its settings from the same data."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks import suite as tables
from benchmarks.custom import custom_benchmark
from benchmarks.experiment import Experiment
from benchmarks.recipe import Benchmark, read_benchmark
from benchmarks.reports.paper import measured
from benchmarks.reports.paper_tables import TABLE_4
from benchmarks.results import Report
from benchmarks.suite import load_results, run_suite
from tadp_da.custom_dataset import CustomDataset
from tadp_da.errors import UsageError
from tadp_da.run import Run
from tadp_da.storage.files import locked, write_json
from tests.benchmarks.scored import evaluation
from tests.tadp_da.domains import trees

SPEED = (
    "adapt.workers=3",
    "adapt.checkpoint_every=7",
    "adapt.cache_images=0.5",
    "adapt.cache_latents=false",
    "adapt.gradient_checkpointing=true",
    "captions.batch=3",
    "evaluate.save_images=1",
    "backbone.settings.channels_last=true",
    "backbone.settings.attention=sdpa",
    "backbone.settings.compile=true",
)


def pretended(experiment: Experiment) -> Report:
    """What ``reproduce`` leaves behind, of no training: a score of its steps."""
    recipe, run = experiment.recipe, experiment.run
    inputs = {"recipe": recipe.as_json(), "seed": run.seed, "facts": experiment.facts()}
    report = Report(evaluations={"target": evaluation(recipe.adapt.steps + run.seed / 10)})
    return run.get_or_create("report", inputs, report.save, Report.load)


@pytest.fixture(autouse=True)
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "reproduce", pretended)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Source pictures with masks, and two targets."""
    for name in ("day", "night", "fog"):
        trees.picture(tmp_path / name / "a.png")
    trees.mask(tmp_path / "masks/a.png", (0, 1, 0, 1))
    return tmp_path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path / "run", quiet=True, device="cpu")


def own(
    folders: Path, rows: Sequence[str] = ("no-text", "null", "simple"), *sets: str, target: str = "night"
) -> Benchmark:
    source = {"name": "source", "images": folders / "day", "masks": folders / "masks", "classes": ("a", "b")}
    return custom_benchmark(
        rows=tuple(rows),
        source=source,
        target={"name": "target", "images": folders / target},
        model="mini",
        captioner="mini",
        preset="mini",
        sets=sets,
    )


def at(*expected: int) -> dict[str, list[int]]:
    """Three rows at these seeds."""
    return {name: list(expected) for name in ("no-text", "null", "simple")}


def seeds(reports: tables.Reports) -> dict[str, list[int]]:
    return {name: sorted(found) for name, found in reports.items()}


ODD = ("a/b", "../../up", "..", ".hidden", "a" * 300, "[bold]", "b\\c", "ü?", "")
CHANGED = "the runs of 'own' are not alike: "


@pytest.mark.parametrize(
    ("sets", "target", "what"),
    [
        (["adapt.steps=8"], "night", "adapt.steps is 8"),
        ([], "fog", "target.images is"),
        (["limit=1"], "night", "limit is 1"),
    ],
)
def test_runs_of_other_settings_or_another_target_never_share_a_table(
    folders: Path, run: Run, monkeypatch: pytest.MonkeyPatch, sets: list[str], target: str, what: str
) -> None:
    assert seeds(run_suite(own(folders), (0, 1), run, folders)) == at(0, 1)
    notes = {file: file.read_bytes() for file in run.folder.glob("tables/own/rows/*")}
    with monkeypatch.context() as patch:
        patch.setattr(tables, "reproduce", lambda _: pytest.fail("trained before it was refused"))
        with pytest.raises(UsageError, match=CHANGED + what) as no:
            run_suite(own(folders, ["null"], *sets, target=target), (0,), run, folders)
    assert "choose another --out" in no.value.fix
    assert {file: file.read_bytes() for file in run.folder.glob("tables/own/rows/*")} == notes
    assert seeds(run_suite(own(folders, ["simple"]), (2,), run, folders)) == at(0, 1) | {"simple": [0, 1, 2]}
    shutil.rmtree(no.value.where or "")  # as the advice says
    assert seeds(run_suite(own(folders, ["null"], *sets, target=target), (0,), run, folders)) == {"null": [0]}


def test_a_table_that_another_command_has_begun_meanwhile_is_not_overwritten(
    folders: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(experiment: Experiment) -> Report:
        with monkeypatch.context() as patch:
            patch.setattr(tables, "reproduce", pretended)
            run_suite(own(folders, ["simple"], "adapt.steps=8"), (0,), run, folders)
        return pretended(experiment)

    monkeypatch.setattr(tables, "reproduce", slow)
    with pytest.raises(UsageError, match=CHANGED + "adapt.steps is"):
        run_suite(own(folders, ["null"]), (0,), run, folders)
    (note,) = run.folder.glob("tables/own/rows/*.json")
    assert json.loads(note.read_text())["recipe"]["adapt"]["steps"] == 8


def test_rows_that_another_command_works_on_come_last(
    folders: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run.folder / "tables/own/rows"
    rows.mkdir(parents=True)
    order: list[str] = []
    with ExitStack() as other:
        other.enter_context(locked(rows / ".no-text-0.lock"))

        def work(experiment: Experiment) -> Report:
            order.append(experiment.recipe.strategy)
            other.close()
            return pretended(experiment)

        monkeypatch.setattr(tables, "reproduce", work)
        run_suite(own(folders, ["no-text", "null"]), (0,), run, folders)
    assert order == ["null", "no-text"]


@pytest.mark.parametrize("what", ["day/a.png", "night/a.png", "masks/a.png"])
def test_a_table_of_files_that_have_changed_since_is_not_filled_any_further(
    folders: Path, run: Run, what: str
) -> None:
    run_suite(own(folders, ["null"]), (0,), run, folders)
    if what.startswith("masks"):
        trees.mask(folders / what, (1, 1, 0, 0))
    else:
        trees.picture(folders / what, mode="L")
    side = "target/unlabeled" if what.startswith("night") else "source/train"
    with pytest.raises(UsageError, match=f"{CHANGED}content of {side} is .* at seed"):
        run_suite(own(folders, ["simple"]), (0,), run, folders)


def test_another_precision_or_base_is_another_setting(folders: Path, run: Run, tiny_pipeline: Path) -> None:
    run_suite(own(folders, ["null"]), (0,), run, folders)
    with pytest.raises(UsageError, match=r"precision is 'bf16' .*'no'"):
        run_suite(own(folders, ["null"]), (1,), dataclasses.replace(run, precision="bf16"), folders)
    with pytest.raises(UsageError, match=f"{CHANGED}(model|weights) is"):
        run_suite(own(folders, ["null"], f"model={tiny_pipeline}"), (1,), run, folders)


def test_without_a_terminal_every_row_says_which_it_is(
    folders: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run_suite(own(folders, ["null"]), (0, 1), dataclasses.replace(run, quiet=False), folders)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("own, ")]
    assert [line.split(": ")[0] for line in lines] == ["own, 1 of 2", "own, 2 of 2"]
    assert all(": done, null, seed " in line for line in lines)


def test_rows_that_are_run_one_by_one_make_one_table(folders: Path, run: Run) -> None:
    """Also those that differ in more than words by design, as a network without pretraining does in its rate."""
    whole = own(folders, ["scratch", "null", "dreambooth"])
    for name in whole.rows:
        found = run_suite(whole.only((name,)), (0,), run, folders)
    assert list(found) == list(load_results(run.folder, "own")) == ["scratch", "null", "dreambooth"]
    run_suite(own(folders, ["simple"]), (0,), run, folders)
    assert "simple" in load_results(run.folder, "own"), "another command, but alike"


def test_a_table_of_anything_may_be_made_of_rows_that_differ_in_it(folders: Path, run: Run) -> None:
    file = folders / "mine.yaml"
    base = f"{{source: {{name: s, images: {folders}/day, masks: {folders}/masks, classes: [a, b]}}, "
    base += f"target: {{name: t, images: {folders}/night}}, backbone: stable-diffusion, head: semantic-fpn}}"
    file.write_text(f"base: {base}\nrows: {{'null': {{}}, longer: {{adapt: {{steps: 9}}}}}}\n")
    run_suite(read_benchmark(str(file)), (0, 1), run, folders)
    assert seeds(load_results(run.folder, "mine")) == {"null": [0, 1], "longer": [0, 1]}
    with pytest.raises(UsageError, match=r"inference\.long is"):
        run_suite(read_benchmark(str(file), ("inference.long=64",)).only(("longer",)), (1,), run, folders)


@pytest.mark.parametrize("setting", SPEED)
def test_settings_that_change_no_result_do_not_make_another_row(tmp_path: Path, setting: str) -> None:
    for seed, sets in enumerate(((), (setting,))):
        Report(evaluations={"target": evaluation(43.0)}).save(tmp_path / f"r{seed}")
        note = tmp_path / f"tables/dark-zurich-ours/rows/null-{seed}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        recipe = read_benchmark("dark-zurich-ours", sets).rows["null"].as_json()
        write_json(note, {"row": "null", "place": 0, "seed": seed, "report": f"r{seed}", "recipe": recipe})
    assert measured(tmp_path, TABLE_4.columns[0], "ours", "null") == (43.0, 43.0)
    assert seeds(load_results(tmp_path, "dark-zurich-ours")) == {"null": [0, 1]}


def words(folders: Path, *, rows: str) -> list[object]:
    return [
        "run", "--source-images", folders / "day", "--source-masks", folders / "masks", "--classes", "a,b",
        "--target-images", folders / "night", "--target-style", "dark", "--strategies", rows, "--out", folders / "run",
        "--target-test-images", folders / "fog", "--target-test-masks", folders / "masks", "--device", "cpu",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["null", "strong", "best"]),
        (["--method", "dreambooth-strong"], ["null", "strong", "dreambooth-strong"]),
        (["--rows", "null,simple"], ["null", "simple"]),
    ],
)
def test_a_run_tries_a_method_with_a_few_labels_of_the_target(
    command: Callable[..., int],
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    expected: list[str],
) -> None:
    seen: list[Benchmark] = []
    monkeypatch.setattr(tables, "run_suite", lambda table, *_: seen.append(table) or {})
    monkeypatch.setattr(tables, "show_predictions", lambda *_: folders)
    few = ["--target-labelled", folders / "fog", "--target-labels", folders / "masks"]
    monkeypatch.setattr("tadp_da.cli.benchmark._publish", lambda *_: None)
    assert command(*words(folders, rows=""), *given, *few) == 0
    (table,) = seen
    assert list(table.rows) == expected
    for recipe in table.rows.values():
        assert recipe.target_labelled is not None
        own = recipe.target_labelled.images
        assert isinstance(own, CustomDataset)
        assert (own.images, own.masks, own.classes) == (folders / "fog", folders / "masks", ("a", "b"))


def test_bad_target_images_are_found_before_any_row_is_trained(
    folders: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where no row learns from them: predictions are shown on them at the end."""
    (folders / "night/b.png").write_bytes(b"not an image")
    assert command(*words(folders, rows="null")) == 3
    assert "night/b.png" in capsys.readouterr().err
    assert not list((folders / "run").glob("report-*")), "nothing was run"


def test_without_null_the_first_row_is_what_others_are_compared_with(
    folders: Path,
    command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(tables, "show_predictions", lambda *a: shown.append(a) or folders / "predictions")
    assert command(*words(folders, rows="no-text,simple")) == 0
    assert shown, "predictions are made as ever"
    table = json.loads((folders / "run/tables/own/table.json").read_text())
    assert (table["baseline"], table["title"]) == ("no-text", "own, compared with no-text")
    assert "difference from no-text" in (folders / "run/tables/own/table.md").read_text()
    assert "own, compared with no-text" in capsys.readouterr().out
    assert command("compare", folders / "run", "own") == 0
    assert command("compare", folders / "run", "own", "--baseline", "simple") == 0
    assert "difference from simple" in (folders / "run/tables/own/table.md").read_text()
    assert command("compare", folders / "run", "own", "--baseline", "null") == 2


def test_a_process_with_some_rows_shows_those_of_the_others(
    folders: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folders / "mine.yaml"
    base = f"{{source: {{name: s, images: {folders}/day, masks: {folders}/masks, classes: [a, b]}}, "
    base += f"target: {{name: t, images: {folders}/night}}, "
    base += "backbone: stable-diffusion, head: semantic-fpn}"
    file.write_text(f"base: {base}\nrows: {{'null': {{}}, simple: {{strategy: simple}}, dark: {{}}}}\n")
    run = ["benchmark", "run", file, "--seeds", "0", "--out", folders / "run", "--device", "cpu"]

    def rows() -> tuple[str, list[str]]:
        table = json.loads((folders / "run/tables/mine/table.json").read_text())
        return table["baseline"], [row["name"] for row in table["rows"]]

    assert command(*run, "--rows", "simple") == 0
    assert rows() == ("simple", ["simple"])
    assert command(*run, "--rows", "null") == 0
    assert rows() == ("null", ["null", "simple"])
    assert command(*run, "--rows", "dark") == 0
    assert rows() == ("null", ["null", "simple", "dark"])


def test_a_table_knows_which_rows_see_the_target_and_compares_without_a_class(
    folders: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "show_predictions", lambda *a: folders / "predictions")
    assert command(*words(folders, rows="null,simple,dreambooth")) == 0
    found = load_results(folders / "run", "own")
    sees = {name: seeds[0].sees_target for name, seeds in found.items()}
    assert sees == {"null": False, "simple": False, "dreambooth": True}
    assert all(
        note["command"] and note["table"] == "own" for note in tables.read_notes(folders / "run", "own")
    )
    assert command("compare", folders / "run", "own", "--without-class", "sky") == 0
    table = json.loads((folders / "run/tables/own/without-sky/table.json").read_text())
    assert table["metric"] == "mIoU without sky"
    assert json.loads((folders / "run/tables/own/table.json").read_text())["metric"] == "mIoU"


def test_names_of_rows_and_tables_never_lead_out_of_their_folder(folders: Path, run: Run) -> None:
    recipe = own(folders, ["null"]).rows["null"]
    table = Benchmark(name="../../mine", claim="", rows=dict.fromkeys(ODD, recipe))
    outside = set(folders.rglob("*"))
    assert seeds(run_suite(table, (0, 1), run, folders)) == {name: [0, 1] for name in ODD}
    assert list(load_results(run.folder, "../../mine")) == list(ODD)
    written = set(folders.rglob("*")) - outside - {run.folder}
    assert all(path.is_relative_to(run.folder) for path in written)
    assert len(list(run.folder.glob("tables/*/rows/*.json"))) == 2 * len(ODD)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_rows_that_differ_in_method_come_one_by_one(folders: Path, run: Run, skip_bad: bool) -> None:
    """What is skipped is skipped for rows that learn nothing from the target, too: all rows have the same content."""
    if skip_bad:
        (folders / "night/b.png").write_bytes(b"not an image")
    run = dataclasses.replace(run, skip_bad=skip_bad)
    for row in ("null", "strong", "self-training"):
        reports = run_suite(own(folders, [row]), (0,), run, Path("data"))
    assert seeds(reports) == {"null": [0], "strong": [0], "self-training": [0]}
    assert bool(list(run.folder.glob("skipped-*.json"))) is skip_bad
