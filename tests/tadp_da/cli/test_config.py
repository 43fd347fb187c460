"""Options of `run` from a file: what init writes, what a run leaves behind, and what wins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.tadp_da.captions.conftest import write_blip2
from tests.tadp_da.test_terminal import Screen
from tests.toy import NAMES, draw_pair

Command = Callable[..., int]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw_pair(tmp_path_factory.mktemp("toys"), count=2)
    write_blip2(root / "blip2")
    return root


def asked(toys: Path, *more: object) -> list[object]:
    return [
        "init", "--source-images", toys / "day/images", "--source-labels", toys / "day/masks", "--classes", NAMES,
        "--target-images", toys / "night/images", "--target-style", "dark night", *more,
    ]  # fmt: skip


def test_init_checks_and_writes_what_run_runs_and_a_run_leaves_what_it_ran_with(
    command: Command, toys: Path, tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(*asked(toys, "--out", "first")) == 0
    written = yaml.safe_load(Path("run.yaml").read_text())
    assert written["source-masks"] == str(toys / "day/masks")
    assert "source-boxes" not in written
    more = {
        "model": str(tiny_pipeline),
        "captioner": str(toys / "blip2"),
        "preset": str(toys / "preset.yaml"),
    }
    Path("run.yaml").write_text(
        yaml.safe_dump(written | more | {"rows": ["null"], "seeds": 3, "device": "cpu", "ignore-index": 255})
    )
    assert command("run", "--config", "run.yaml", "--out", "second") == 0
    assert not Path("first").exists(), "the command line wins"
    assert list(Path("second/predictions/seed-3/null").glob("*.png"))
    made = {path: path.stat().st_mtime_ns for path in Path("second").glob("*/manifest.json")}
    left = yaml.safe_load(Path("second/run.yaml").read_text())
    assert left["seeds"] == "3"
    assert left["classes"] == NAMES
    assert left["ignore-index"] == 255
    assert command("run", "--config", "second/run.yaml") == 0
    assert {path: path.stat().st_mtime_ns for path in Path("second").glob("*/manifest.json")} == made


def test_init_asks_on_a_terminal_until_a_folder_exists(
    command: Command, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [
        "no/such/folder",
        toys / "day/images",
        toys / "day/masks",
        NAMES,
        toys / "night/images",
        "dark night",
        "",
    ]
    monkeypatch.setattr("sys.stdin", Screen("".join(f"{answer}\n" for answer in answers)))
    file = tmp_path / "new/run.yaml"
    assert command("init", "--file", file) == 0
    assert yaml.safe_load(file.read_text()) == {
        "source-images": str(toys / "day/images"),
        "source-masks": str(toys / "day/masks"),
        "classes": NAMES,
        "target-images": str(toys / "night/images"),
        "target-style": "dark night",
        "model": "mini",
        "out": "runs/own",
    }


def test_init_writes_nothing_when_something_is_wrong(
    command: Command,
    toys: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("init", "--source-images", toys / "day/images") == 2
    assert "--source-labels is not given" in capsys.readouterr().err
    wrong = [word if word != NAMES else "sky,road" for word in asked(toys)]
    assert command(*wrong) == 3
    assert "tadp-da data legend" in capsys.readouterr().out
    assert not Path("run.yaml").exists()
    Path("run.yaml").touch()
    assert command(*asked(toys)) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("target-stile: dusk", "did you mean 'target-style'?"),
        ("set: {adapt.steps: 2}", "not plain"),
        ("- run", "expected a mapping"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    assert command("run", "--config", tmp_path / "run.yaml") == 2
    assert says in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-depth", "-5"], "max_depth: Input should be greater than"),
        (["--max-depth", "0"], "max_depth: Input should be greater than"),
        (["--depth-unit", "-1"], "depth_unit: Input should be greater than"),
    ],
)
def test_numbers_out_of_their_range_are_named(
    command: Command, toys: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    folders = [toys / "day/images", toys / "day/masks"]
    assert command("data", "check", *folders, "--classes", NAMES, *words) == 2
    name, _, message = says.partition(": ")
    told = " ".join(capsys.readouterr().err.split())
    assert name in told
    assert message in told


def test_a_method_and_rows_are_not_both_given(
    command: Command, toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word for word in asked(toys) if word != "init"]
    given[given.index("--source-labels")] = "--source-masks"
    assert command("run", *given, "--out", tmp_path / "run", "--rows", "null", "--method", "best") == 2
    assert "omit one of them" in capsys.readouterr().err
