"""The front door, as a person uses it: real commands on toy folders with tiny models, and what mistakes look like."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from tadp_da import cli
from tadp_da.errors import DataError
from tadp_da.storage.listing import image_files
from tests.tadp_da.captions.conftest import write_blip2
from tests.toy import NAMES, SIZE, draw_pair

Command = Callable[..., int]
COUNT = 2  # images in each folder


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw_pair(tmp_path_factory.mktemp("toys"), count=COUNT)
    write_blip2(root / "blip2")
    return root


def models(toys: Path, tiny_pipeline: Path) -> list[object]:
    return ["--model", tiny_pipeline, "--captioner", toys / "blip2", "--device", "cpu"]


def own(toys: Path, out: Path, rows: str) -> list[object]:
    return [
        "run", "--source-images", toys / "day/images", "--source-masks", toys / "day/masks", "--classes", NAMES,
        "--target-images", toys / "night/images", "--target-style", "dark night", "--preset", toys / "preset.yaml",
        "--strategies", rows, "--out", out,
    ]  # fmt: skip


def test_the_whole_figure_on_own_folders(
    command: Command,
    toys: Path,
    tiny_pipeline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("runs/own")  # relative, as the commands' own defaults are
    rows = "null,dreambooth,dreambooth-weights-only"
    tests = ["--target-test-images", toys / "test/images", "--target-test-masks", toys / "test/masks"]
    words = [*own(toys, out, rows), *tests, *models(toys, tiny_pipeline), "--seeds", "1"]
    words += ["--tracker", "tensorboard"]
    assert command(*words) == 0
    for kind in ("concept", "model", "report"):  # what was trained or has pictures
        assert list(out.glob(f"{kind}-*/tensorboard/events.*"))
    table = json.loads((out / "tables/own/table.json").read_text())
    assert [row["name"] for row in table["rows"]] == rows.split(",")
    assert all(set(row["primary"]["values"]) == {"1"} for row in table["rows"])
    assert (out / "tables/own/scores.png").stat().st_size > 1000
    assert (out / "tables/own/panels.png").stat().st_size > 1000
    page = (out / "tables/own/index.html").read_text()
    for section in ("verdict", "images", "curves", "facts"):  # one that has nothing to show is left out
        assert f'<section id="{section}"' in page
    overlays = sorted((out / "predictions/seed-1/dreambooth").glob("*.png"))
    assert [Image.open(p).size for p in overlays] == [(SIZE[1], SIZE[0])] * COUNT
    assert image_files(out) == ()
    # one concept serves DreamBooth and its ablation; a second call makes nothing anew
    assert len(list(out.glob("concept-*"))) == 2
    made = {p: p.stat().st_mtime_ns for p in out.glob("*/manifest.json")}
    assert command(*words) == 0
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/manifest.json")} == made
    capsys.readouterr()
    assert command("compare", out, "own") == 0
    assert "verdict" in capsys.readouterr().out
    judge = [
        "analyze",
        "selection",
        out,
        "--device",
        "cpu",
        "--set",
        "images=2",
        "--set",
        "record=record.json",
    ]
    assert command(*judge) == 0
    findings = json.loads((out / "tables/own/selection/findings.json").read_text())
    ranking = {row["row"]: row for row in findings["tables"]["ranking"]}
    assert {name: row["images seen"] for name, row in ranking.items()} == {n: 1 * ("d" in n) for n in ranking}
    assert all(row["test"] is not None for row in ranking.values())
    (entry,) = json.loads(Path("record.json").read_text())
    assert (entry["table"], entry["kinds"]["all"]["rows"]) == ("own", 3)
    assert "difference from null" in (out / "tables/own/table.md").read_text()
    again = json.loads((out / "tables/own/table.json").read_text())
    assert [row["name"] for row in again["rows"]] == rows.split(",")


def test_without_target_labels_there_are_predictions_and_no_table(
    command: Command, toys: Path, tiny_pipeline: Path, tmp_path: Path
) -> None:
    assert command(*own(toys, tmp_path, "null"), *models(toys, tiny_pipeline)) == 0
    assert len(list((tmp_path / "predictions/seed-0/null").glob("*.png"))) == COUNT
    assert not (tmp_path / "tables/own/table.json").exists()
    page = (tmp_path / "tables/own/index.html").read_text()
    assert page.count('alt="Image ') == page.count('alt="Prediction of null on') == COUNT


def test_stage_by_stage(command: Command, toys: Path, tiny_pipeline: Path, tmp_path: Path) -> None:
    concept, model = tmp_path / "concept", tmp_path / "model"
    common = ["--device", "cpu"]
    night = toys / "night/images"
    quick = ["--set", "steps=1", "--set", "batch=2", "--set", "resolution=64", "--set", "previews.images=0"]
    learn = [
        "personalize",
        night,
        "--out",
        concept,
        "--word",
        "<night>",
        "--like",
        "night",
        "--model",
        tiny_pipeline,
    ]
    assert command(*learn, *quick, "--set", "accumulate=1", *common) == 0
    captions = tmp_path / "night.json"
    assert (
        command("caption", night, "--out", captions, "--captioner", toys / "blip2", "--clean", *common) == 0
    )
    assert len(json.loads(captions.read_text())) == COUNT
    assert captions.with_suffix(".clean.json").exists()
    adapt = ["adapt", toys / "day/images", toys / "day/masks", "--classes", NAMES, "--out", model]
    adapt += ["--concept", concept, "--strategy", "textual-inversion", "--preset", toys / "preset.yaml"]
    assert command(*adapt, "--set", "adapt.steps=1", *models(toys, tiny_pipeline)) == 0
    score = tmp_path / "score"
    test = ["evaluate", model, toys / "test/images", toys / "test/masks", "--out", score]
    assert command(*test, "--captioner", toys / "blip2", *common) == 0
    assert json.loads((score / "report.json").read_text())["evaluations"]["test"]["images"] == COUNT
    seen = tmp_path / "seen"
    predict = ["predict", model, night, "--out", seen, "--captions", captions, "--attention", "photo,nowhere"]
    assert command(*predict, *common) == 0
    mask = np.asarray(Image.open(seen / "masks/0.png"))
    assert mask.shape == SIZE
    assert mask.max() < len(NAMES.split(","))
    assert sorted(p.name for p in (seen / "attention").glob("*.png")) == [
        f"{i}-photo.png" for i in range(COUNT)
    ]
    assert "<night>" in json.loads((seen / "prompts.json").read_text())["0.png"]
    one = tmp_path / "one"
    assert command("predict", model, night / "0.png", "--out", one, "--caption", "a street", *common) == 0
    assert len(list((one / "overlays").glob("*.png"))) == 1
    assert image_files(tmp_path) == (), "what the commands draw is not read as images of a folder above it"


@pytest.mark.parametrize(
    ("words", "code", "advice"),
    [
        (["benchmark", "run", "mini-nigt"], 2, "did you mean 'mini-night'"),
        (["benchmark", "run", "mini-night", "--set", "adapt.stepz=1"], 2, "did you mean 'steps'"),
        (["benchmark", "run", "mini-night", "--seeds", "0,0"], 2, "--seeds 0,1,2"),
        (["benchmark", "run", "mini-night", "--rows", "nul"], 2, "did you mean 'null'"),
        (["rewrite", "a car", "--strategy", "simpel"], 2, "did you mean 'simple'"),
        (["rewrite"], 3, "give captions"),
        (["personalize", "{tmp}", "--out", "{tmp}/x"], 3, "put images"),
        (
            ["personalize", "{tmp}", "--method", "dreamboth", "--out", "{tmp}/x"],
            2,
            "did you mean 'dreambooth'",
        ),
        (["compare", "{tmp}", "mini-night"], 3, "tadp-da benchmark run mini-night"),
        (["predict", "{tmp}", "{tmp}", "--out", "{tmp}/x"], 6, "tadp-da adapt"),
    ],
)
def test_mistakes_end_with_a_code_and_advice_and_no_traceback(
    command: Command,
    words: list[str],
    code: int,
    advice: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(*(word.replace("{tmp}", str(tmp_path)) for word in words)) == code
    shown = capsys.readouterr().err
    assert advice in shown
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) <= 3


@pytest.mark.parametrize("words", [["0", "1", "2"], ["0,1,2"], ["0,1", "2"]])
def test_seeds_are_parted_by_blanks_or_commas(
    command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, tuple[int, ...], int | None]] = []

    def run_suite(table: Any, seeds: tuple[int, ...], *_: Any) -> None:
        asked.append((table.name, seeds, table.rows["null"].limit))
        raise DataError("enough", where=tmp_path, fix="stop")

    monkeypatch.setattr("benchmarks.suite.run_suite", run_suite)
    run = ["benchmark", "run", "--seeds", *words, "mini-night", "--limit", "3", "--model", "x"]
    assert command(*run) == 3
    assert asked == [("mini-night-first-3", (0, 1, 2), 3)], "a smoke run is no run of the table"


def test_the_version_is_that_of_the_package(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    assert capsys.readouterr().out.strip() == f"tadp-da {version('tadp_da')}"


def test_every_command_has_help_with_an_example() -> None:
    root = get_command(cli.app)
    commands: dict[str, Any] = {}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        inner = {f"{name} {k}": v for k, v in getattr(command, "commands", {}).items()}
        commands |= inner or {name: command}
    assert {
        "demo",
        "personalize",
        "caption",
        "rewrite",
        "adapt",
        "evaluate",
        "predict",
        "run",
        "compare",
    } < set(commands)
    for name, command in commands.items():
        assert f"tadp-da {name}" in (command.help or ""), f"{name} shows no example"
        for option in command.params:
            # what is in angle brackets is taken for markup, and lost, unless it is code
            assert "<" not in re.sub(r"`[^`]*`", "", getattr(option, "help", None) or ""), (name, option.name)


def test_import_is_quick_light_and_touches_no_network() -> None:
    code = (
        "import socket, sys, time\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "start = time.perf_counter(); import tadp_da, tadp_da.cli\n"
        "assert time.perf_counter() - start < 2\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_listing_recipes_loads_no_networks() -> None:
    code = (
        "import sys\n"
        "from tadp_da import cli\n"
        "sys.argv = ['tadp-da', 'benchmark', 'list']\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torchvision', 'diffusers', 'transformers', 'peft', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_model_is_scored_with_the_ignored_value_that_it_was_trained_with(
    command: Command, tiny_pipeline: Path, tmp_path: Path
) -> None:
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"a.png": "a street", "b.png": "a street"}))
    rng = np.random.default_rng(0)
    for name in "ab":
        for folder, values in (
            ("i", rng.integers(0, 256, (*SIZE, 3), np.uint8)),
            ("m", np.where(rng.random(SIZE) < 0.2, 7, rng.integers(0, 3, SIZE)).astype(np.uint8)),
        ):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(values).save(path)
    data = [tmp_path / "i", tmp_path / "m", "--captions", captions, "--device", "cpu"]
    train = ["adapt", *data, "--classes", "a,b,c", "--model", tiny_pipeline, "--preset", "mini"]
    quick = ["--set", "adapt.steps=1", "--set", "adapt.batch=1", "--set", "inference.long=64"]
    assert command(*train, *quick, "--out", tmp_path / "refused") == 3, "7 is not a class"
    assert command(*train, *quick, "--out", tmp_path / "model", "--ignore-index", "7") == 0
    score = ["evaluate", tmp_path / "model", *data, "--allow-overlap", "--out", tmp_path / "score"]
    assert command(*score) == 0
    assert (
        json.loads((tmp_path / "score/report.json").read_text())["evaluations"]["test"]["labels"]["ignore"]
        == 7
    )
