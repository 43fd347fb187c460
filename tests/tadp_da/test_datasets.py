"""A stranger's folders: masks with a legend, VOC XML, COCO JSON; class lists that differ; labels that do not fit."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.custom import read_preset
from benchmarks.recipe import read_benchmark, read_table, shipped
from tadp_da import cli
from tadp_da.custom_dataset import CustomDataset
from tadp_da.datasets import resolve
from tadp_da.domains.formats.legend import read_legend
from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tests.tadp_da.domains import trees

THINGS = (("person", 1, 1, 30, 24), ("Car", 5, 5, 20, 20))
LEGEND = "7: road\n26: car\n0: ignore\n8: road\n"


def labels_of(own: CustomDataset, split: str, tmp_path: Path) -> list:
    placed = resolve(own, tmp_path)
    return [placed.domain.label(path) for path in placed.images(split).paths]  # type: ignore[misc]


def test_a_legend_tells_values_and_the_order_of_classes(tmp_path: Path) -> None:
    trees.picture(tmp_path / "i/a.png")
    trees.mask(tmp_path / "m/a.png", (7, 26, 0, 8))
    (tmp_path / "legend.yaml").write_text(LEGEND)
    own = CustomDataset(
        name="own", images=tmp_path / "i", masks=tmp_path / "m", legend=tmp_path / "legend.yaml"
    )
    (mask,) = labels_of(own, "train", tmp_path)
    assert mask.ravel()[:4].tolist() == [0, 1, 255, 0]
    labels = resolve(own, tmp_path).domain.labels
    assert labels is not None
    assert labels.classes == ("road", "car")
    assert read_legend(tmp_path / "legend.yaml", ("car", "road")).values == {7: 1, 26: 0, 0: 255, 8: 1}


def test_a_legend_of_colours_gives_the_palette_too(tmp_path: Path) -> None:
    file = tmp_path / "legend.yaml"
    file.write_text("128 64 128: road\n0,0,142: car\n0 0 0: ignore\n1 1 1: road\n")
    found = read_legend(file)
    assert found.colours == {(128, 64, 128): 0, (0, 0, 142): 1, (0, 0, 0): 255, (1, 1, 1): 0}
    assert found.palette == ((128, 64, 128), (0, 0, 142))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_legend_of_cvat_is_a_legend_of_colours(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "labelmap.txt"
    text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nstra\u00dfe:128, 64,128:wheel,door:\n"
    file.write_text(text, encoding=encoding)
    found = read_legend(file)
    assert found.classes == ("background", "stra\u00dfe")
    assert found.colours == {(0, 0, 0): 0, (128, 64, 128): 1}
    file.write_text("a:0,0,0::\nb:0,0,0::\n")
    with pytest.raises(UsageError, match="given twice"):
        read_legend(file)


def test_a_legend_in_another_encoding_is_answered_with_the_command_that_converts_it(tmp_path: Path) -> None:
    file = tmp_path / "legend.yaml"
    file.write_text("0: stra\u00dfe\n1: himmel\n", encoding="latin-1")
    with pytest.raises(UsageError, match="not UTF-8") as caught:
        read_legend(file)
    assert "iconv -f latin1 -t utf8 legend.yaml" in caught.value.fix
    assert caught.value.where == str(file)
    file.write_text("0: stra\u00dfe\n1: himmel\n", encoding="utf-16")
    assert read_legend(file).classes == ("stra\u00dfe", "himmel")


def test_every_command_that_reads_labels_takes_the_same_options() -> None:
    from typer.main import get_command

    root: Any = get_command(cli.app)
    commands = {**root.commands, "data check": root.commands["data"].commands["check"]}
    wanted = {"classes", "legend", "ignore_index"}
    for name in ("data check", "adapt", "evaluate", "run"):
        assert wanted <= {option.name for option in commands[name].params}, name


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("7: road\n1 2 3: car\n", "values or colours"),
        ("# 808080: road\n{}\n", "values or colours"),
        ("- road\n- car\n", "values or colours"),
        ("7: rod\n", "did you mean 'road'"),
        ("1 2 300: road\n", "colours as 128 64 128: road"),
        ("road: 7\n", "write values as 7: road"),
        ("7: road\n7: car\n", "keep one"),
        ("1 2 3: road\n", "has no colour of car"),
    ],
)
def test_a_legend_that_says_nothing_clear_is_refused(tmp_path: Path, text: str, advice: str) -> None:
    (tmp_path / "legend.yaml").write_text(text)
    with pytest.raises(UsageError, match=advice):
        read_legend(tmp_path / "legend.yaml", ("road", "car"))


def test_boxes_are_read_from_xml_and_from_coco(tmp_path: Path) -> None:
    for name in "ab":
        trees.picture(tmp_path / f"i/{name}.jpg")
        trees.xml(tmp_path / f"x/{name}.xml", THINGS)
        trees.picture(tmp_path / f"u/{name}.jpg")
    xml = CustomDataset(name="own", images=tmp_path / "i", boxes=tmp_path / "x", classes=("car", "person"))
    assert [boxes.labels.tolist() for boxes in labels_of(xml, "train", tmp_path)] == [[1, 0], [1, 0]]
    entries = [{"id": i, "file_name": f"{n}.jpg", "width": 40, "height": 30} for i, n in enumerate("ab")]
    objects = [{"id": 1, "image_id": 1, "category_id": 20, "bbox": [1, 2, 10, 20]}]
    file = trees.coco(tmp_path / "gt.json", entries, objects, ("car", "dog"))
    target = CustomDataset(name="t", images=tmp_path / "u", test_images=tmp_path / "i", test_boxes=file)
    placed = resolve(target, tmp_path)
    assert placed.domain.splits == ("unlabeled", "test")
    assert not placed.has("unlabeled")
    assert placed.has("test")
    assert placed.domain.labels is not None
    assert placed.domain.labels.classes == ("car", "dog")
    assert [boxes.xyxy.tolist() for boxes in labels_of(target, "test", tmp_path)] == [[], [[1, 2, 11, 22]]]
    assert [path.parent.name for path in placed.images("unlabeled").paths] == ["u", "u"]


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"masks": "m", "boxes": "b"}, "omit all but one of them"),
        ({"boxes": "b", "legend": "l"}, "name the classes instead"),
        ({"test_images": "t"}, "give both, or neither"),
        ({"test_boxes": "t"}, "give both, or neither"),
    ],
)
def test_labels_that_contradict_each_other_are_refused(fields: dict[str, str], advice: str) -> None:
    with pytest.raises(UsageError, match=advice):
        CustomDataset(name="own", images=Path("i"), **{k: Path(v) for k, v in fields.items()})


def test_there_is_a_preset_with_boxes_and_one_with_depth_for_every_one_with_masks() -> None:
    folders, tasks = {"name": "own", "images": "i"}, dict[str, set[str]]()
    for name in shipped("presets"):
        if not read_table(name, "presets").get("models"):
            continue  # for a smaller GPU
        table = read_benchmark(name, base={"source": folders, "target": folders}, kind="presets")
        (task,) = {heads[recipe.head.name].task for recipe in table.rows.values()}
        tasks.setdefault(name.removesuffix("-boxes").removesuffix("-depth"), set()).add(task)
    assert tasks == {key: {"segmentation", "detection", "depth"} for key in ("mini", "stable-diffusion")}


def test_a_stranger_with_boxes_is_scored_on_the_classes_that_both_sides_have(
    tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(3):
        trees.picture(tmp_path / f"day/{index}.jpg")
        trees.xml(tmp_path / f"xml/{index}.xml", THINGS)
        trees.picture(tmp_path / f"dusk/{index}.jpg")
        trees.picture(tmp_path / f"test/{index}.jpg")
    entries = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in range(3)]
    objects = [
        {"id": 10 * i + k, "image_id": i, "category_id": 10 * k, "bbox": [1, 2, 10, 20]}
        for i in range(3)
        for k in (1, 2)
    ]
    file = trees.coco(tmp_path / "test.json", entries, objects, ("dog", "car"))
    words = [
        "run",
        "--source-images",
        tmp_path / "day",
        "--source-boxes",
        tmp_path / "xml",
        "--classes",
        "person,car",
    ]
    words += ["--target-images", tmp_path / "dusk", "--target-style", "dark dusk", "--strategies", "null"]
    words += [
        "--target-test-images",
        tmp_path / "test",
        "--target-test-boxes",
        file,
        "--target-classes",
        "dog,car",
    ]
    words += [
        "--out",
        tmp_path / "out",
        "--model",
        tiny_pipeline,
        "--captioner",
        "mini",
        "--preset",
        "mini-boxes",
        "--device",
        "cpu",
    ]
    words += ["--set", "adapt.steps=1", "--set", "adapt.batch=2", "--set", "inference.long=64"]
    monkeypatch.setattr(sys, "argv", ["tadp-da", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code, capsys.readouterr().err
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "scored on 1 classes that labels and model share; only the labels have dog; only the model has person"
        in said
    )
    table = json.loads((tmp_path / "out/tables/own/table.json").read_text())
    assert list(table["rows"][0]["classes"]) == ["car"]
    assert "only the labels have dog" in (tmp_path / "out/tables/own/table.md").read_text()
    assert len(list((tmp_path / "out/predictions/seed-0/null").glob("*.png"))) == 3
    assert np.isfinite(table["rows"][0]["primary"]["mean"])


def test_a_preset_without_null_is_refused(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "base: {backbone: stable-diffusion, head: semantic-fpn}\nrows: {simple: {strategy: simple}}\n"
    )
    with pytest.raises(UsageError, match=r"no row 'null'.*simple"):
        read_preset(str(preset))


def test_the_kind_of_labels_is_read_from_what_is_there(tmp_path: Path) -> None:
    trees.picture(tmp_path / "i/a.png")
    trees.mask(tmp_path / "m/a.png", (0, 1, 0, 1))
    trees.xml(tmp_path / "x/a.xml", THINGS)
    (tmp_path / "gt.json").write_text("{}")
    kinds = {
        name: CustomDataset.of(tmp_path / "i", tmp_path / name, classes=("a", "b"))
        for name in ("m", "x", "gt.json")
    }
    assert [own.masks is not None for own in kinds.values()] == [True, False, False]
    assert [own.boxes is not None for own in kinds.values()] == [False, True, True]
    test = CustomDataset.of(tmp_path / "i", tmp_path / "m", classes=("a", "b"), test=True)
    assert (resolve(test, tmp_path).has("test"), resolve(test, tmp_path).domain.splits) == (
        True,
        ("unlabeled", "test"),
    )


def test_labels_that_mean_other_classes_are_other_data(tmp_path: Path) -> None:
    trees.picture(tmp_path / "i/a.png")
    trees.mask(tmp_path / "m/a.png", (0, 1, 0, 1))

    def digest(*classes: str, ignore: int = 255) -> str:
        own = CustomDataset.of(tmp_path / "i", tmp_path / "m", classes=classes, ignore=ignore)
        return resolve(own, tmp_path).digest("train")

    assert digest("a", "b") == digest("a", "b")
    assert len({digest("a", "b"), digest("b", "a"), digest("a", "c"), digest("a", "b", ignore=7)}) == 4


def test_names_and_places_of_images_are_not_what_a_model_depends_on(tmp_path: Path) -> None:
    trees.picture(tmp_path / "one/i/a.png")
    trees.mask(tmp_path / "one/m/a.png", (0, 1, 0, 1))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two/i/a.png").rename(tmp_path / "two/i/b.png")
    (tmp_path / "two/m/a.png").rename(tmp_path / "two/m/b.png")
    one, two = (
        resolve(CustomDataset.of(tmp_path / f / "i", tmp_path / f / "m", classes=("a", "b")), tmp_path)
        for f in ("one", "two")
    )
    assert one.digest("train") == two.digest("train")
    assert one.digest("train", names=True) != two.digest("train", names=True)
