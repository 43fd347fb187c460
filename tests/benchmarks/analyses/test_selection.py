"""A table is ranked without labels, on images that nothing was learned from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import suite
from benchmarks.recipe import read_benchmark
from benchmarks.selection import predictions
from benchmarks.selection.predictions import jitter
from tadp_da.custom_dataset import CustomDataset
from tadp_da.datasets import resolve
from tadp_da.provenance import learned_from
from tests.tadp_da.captions.conftest import write_blip2
from tests.toy import NAMES, draw_pair

Command = Callable[..., int]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw_pair(tmp_path_factory.mktemp("toys"))
    write_blip2(root / "blip2")
    return root


def words(toys: Path, tiny_pipeline: Path, out: Path) -> list[object]:
    return [
        "run", "--source-images", toys / "day/images", "--source-masks", toys / "day/masks", "--classes", NAMES,
        "--target-images", toys / "night/images", "--target-style", "dark night", "--preset", toys / "preset.yaml",
        "--strategies", "null,dreambooth", "--out", out, "--model", tiny_pipeline, "--captioner", toys / "blip2",
        "--device", "cpu",
    ]  # fmt: skip


def found(out: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / "tables/own/selection/findings.json").read_text())
    return read


def test_a_run_without_test_labels_ends_with_a_ranking_on_images_that_were_held_out(
    command: Command,
    toys: Path,
    tiny_pipeline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert command(*words(toys, tiny_pipeline, out)) == 0
    told = capsys.readouterr().out
    assert "on 1 unlabelled target images the choice is" in " ".join(told.split())
    assert "How right such rankings" in " ".join(told.split())
    ranking = {row["row"]: row for row in found(out)["tables"]["ranking"]}
    assert set(ranking) == {"null", "dreambooth"}
    assert [row["images seen"] for row in ranking.values()] == [0, 0]
    seen = [learned_from(model) for model in out.glob("model-*")]
    assert sorted(len(each) for each in seen) == [4, 7], "DreamBooth has seen three of four"
    # judged by the same predictions: nothing is predicted anew
    monkeypatch.setattr(predictions, "predict_images", None)
    assert command("analyze", "selection", out, "--set", f"record={tmp_path}/record.json") == 2
    assert "no test scores" in capsys.readouterr().err
    assert command("analyze", "selection", out, "--device", "cpu") == 0
    assert command("analyze", "selection", out, "--table", "owl") == 2
    assert "did you mean 'own'" in capsys.readouterr().err
    assert command("analyze", "selection", tmp_path) == 2
    assert "no table" in capsys.readouterr().err


def test_the_held_out_third_is_a_function_of_contents(toys: Path, tmp_path: Path) -> None:
    night = CustomDataset(name="night", images=toys / "night/images")
    source = resolve(night, tmp_path)
    (held,) = source.part(1 / 3, held_out=True).images("unlabeled").paths
    rest = source.part(1 / 3, held_out=False).images("unlabeled").paths
    assert sorted((held, *rest)) == sorted(source.images("unlabeled").paths)
    copies = tmp_path / "copies"
    copies.mkdir()
    for index, path in enumerate(source.images("unlabeled").paths[::-1]):
        for copy in "ab":
            (copies / f"{index}{copy}.png").write_bytes(path.read_bytes())
    moved = resolve(CustomDataset(name="copies", images=copies), tmp_path)
    out = moved.part(1 / 3, held_out=True).images("unlabeled").paths
    assert [path.read_bytes() for path in out] == [held.read_bytes()] * 2
    assert source.part(0.0, held_out=False) is source, "keys of what holds out nothing stay"


def test_recipes_hold_out_nothing_unless_they_say_so_and_fit_records_of_earlier_versions() -> None:
    for recipe in read_benchmark("mini-night").rows.values():
        earlier = {name: value for name, value in recipe.as_json().items() if name != "held_out"}
        assert suite._same_config(earlier, recipe)
    held_out = read_benchmark("mini-night", ("held_out=0.3",)).rows["null"]
    assert not suite._same_config(read_benchmark("mini-night").rows["null"].as_json(), held_out)


def test_jitter_is_a_function_of_the_content() -> None:
    image = Image.new("RGB", (8, 8), (90, 120, 40))
    assert jitter(image, "12ab34cd56ef").tobytes() == jitter(image, "12ab34cd56ef").tobytes()
    assert jitter(image, "12ab34cd56ef").tobytes() != jitter(image, "22ab34cd56ef").tobytes()
