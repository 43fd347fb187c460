"""Depth from end to end, as a person uses it: own folders, a table, a prediction, a score."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.results import Report
from tadp_da import api
from tadp_da.mini.styles import render
from tadp_da.mini.world import draw_scene
from tests.tadp_da.domains import trees

SIZE = (64, 96)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes by day and by night with their depth, millimetres in whole numbers."""
    root = tmp_path_factory.mktemp("toys")
    for place, (side, look) in enumerate((("day", "day"), ("night", "city-night"), ("test", "city-night"))):
        for index in range(3):
            scene = draw_scene(11, 100 * place + index, size=SIZE)
            image = root / f"{side}/images/{index}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(render(scene, look, 11, index)).save(image)
            trees.depth(root / f"{side}/depth/{index}.png", np.where(scene.depth < 65, scene.depth, 0))
    return root


def test_the_whole_figure_on_own_depth(
    command: Callable[..., int],
    toys: Path,
    tiny_pipeline: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = ["--model", tiny_pipeline, "--captioner", "mini", "--preset", "mini-depth", "--device", "cpu"]
    quick = [
        word
        for name in ("steps=2", "batch=2", "augment.cut_depth=0.5")
        for word in ("--set", f"adapt.{name}")
    ]
    words = ["run", "--source-images", toys / "day/images", "--source-depth", toys / "day/depth"]
    words += ["--target-images", toys / "night/images", "--target-style", "dark night", "--max-depth", "60"]
    words += ["--target-test-images", toys / "test/images", "--target-test-depth", toys / "test/depth"]
    words += [
        "--rows",
        "null,simple",
        "--out",
        tmp_path / "out",
        *models,
        *quick,
        "--set",
        "inference.long=96",
    ]
    assert command(*words) == 0
    capsys.readouterr()
    (place,) = (tmp_path / "out").rglob("table.md")
    table = place.read_text()
    assert "| row | target RMSE (m) | source RMSE (m) | seeds |" in table
    assert "lower RMSE is better" in table
    assert "| row | AbsRel | SqRel | log10 | RMSE log | SILog | delta 1 | delta 2 | delta 3 |" in table
    assert re.search(r"\| simple \| \d+\.\d{3} \|", table), "three digits of a metre"
    assert "RMSE (m)" in place.with_name("index.html").read_text()
    (model, *_) = sorted((tmp_path / "out").glob("model-*"))
    loaded = api.load_model(model)
    assert loaded.labels.range == (0.001, 60)
    out = tmp_path / "predictions"
    assert command("predict", model, toys / "night/images", "--out", out, "--captioner", "mini") == 0
    assert f"depth maps in {out / 'depth'}" in " ".join(capsys.readouterr().out.split())
    metres = np.load(out / "depth/0.npy")
    assert (metres.shape, metres.dtype) == (SIZE, np.float32)
    with Image.open(out / "depth/0.png") as stored:
        assert stored.info["depth unit in metres"] == "0.001"
        assert np.abs(np.asarray(stored) / 1000 - metres).max() < 6e-4
    score = tmp_path / "score"
    words = [
        "evaluate",
        model,
        toys / "test/images",
        toys / "test/depth",
        "--out",
        score,
        "--captioner",
        "mini",
    ]
    assert command(*words, "--device", "cpu", "--set", "crop=[8, 60, 0, 96]") == 0
    assert "RMSE" in capsys.readouterr().out
    found = Report.load(score).evaluations["test"]
    assert found.labels.range == (0.001, 60), "that of the model"
    assert found.main.unit == "m"
    assert "only rows 8 to 60" in found.notes[-1]
    assert json.loads((score / "report.json").read_text())["evaluations"]["test"]["details"]["pixels"] > 0


def test_a_source_without_labels_is_answered_with_the_options(
    command: Callable[..., int], toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--source-images", toys / "day/images", "--target-images", toys / "night/images"]
    assert command(*words, "--target-style", "dark", "--out", tmp_path / "out") == 2
    assert "--source-depth FOLDER" in " ".join(capsys.readouterr().err.split())
