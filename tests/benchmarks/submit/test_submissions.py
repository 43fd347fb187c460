"""Predictions for servers and tools: what is written is what they read, and what they would misread is refused."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.submit.mask_zips import MASK_ZIPS
from benchmarks.submit.submissions import FORMS, submit, write_coco, write_voc
from tadp_da.domains import domains
from tadp_da.errors import DataError, UsageError
from tadp_da.inference import InferenceSettings
from tadp_da.perception_model import PerceptionModel
from tadp_da.run import Run
from tadp_da.tasks import tasks
from tadp_da.tasks.metrics.average_precision import AveragePrecision
from tadp_da.types import Boxes, Detections, LabelSpace, Unlabeled
from tests.tadp_da.domains import trees

ANIMALS = LabelSpace("detection", ("cat", "dog", "tvmonitor"))
FOUND = [
    Detections(
        np.array([[0, 0, 10, 20], [4.25, 5, 30, 30]], np.float32),
        np.array([1, 0]),
        np.array([0.875, 0.1], np.float32),
    ),
    Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32)),
]


@pytest.fixture
def pictures(tmp_path: Path) -> Unlabeled:
    """Two pictures of 40x30."""
    paths = tuple(trees.picture(tmp_path / f"data/set/2008_00000{i}.jpg") for i in (1, 2))
    return Unlabeled(domain="drawn", root=tmp_path / "data", paths=paths)


def read_voc(place: Path, images: Unlabeled, labels: LabelSpace) -> list[Detections]:
    """The kit's files as detections: its pixels are counted from 1, both ends meant."""
    rows: dict[str, list[tuple[int, float, list[float]]]] = {path.stem: [] for path in images.paths}
    for label, name in enumerate(labels.classes):
        for line in (place / f"comp4_det_test_{name}.txt").read_text().splitlines():
            number, score, *corners = line.split()
            rows[number].append((label, float(score), [float(v) for v in corners]))
    return [
        Detections(
            np.array([box for *_, box in found], np.float32).reshape(-1, 4)
            - np.array([1, 1, 0, 0], np.float32),
            np.array([label for label, *_ in found], np.int64),
            np.array([score for _, score, _ in found], np.float32),
        )
        for found in rows.values()
    ]


def test_voc_files_count_from_one_and_mean_both_ends(pictures: Unlabeled, tmp_path: Path) -> None:
    write_voc(ANIMALS, pictures, FOUND, tmp_path / "voc")
    assert (
        tmp_path / "voc/comp4_det_test_dog.txt"
    ).read_text() == "2008_000001 0.875 1.000 1.000 10.000 20.000\n"
    assert (tmp_path / "voc/comp4_det_test_tvmonitor.txt").read_text() == ""
    truth = [Boxes(f.xyxy, f.labels, np.zeros(len(f), bool)) for f in FOUND]
    score = AveragePrecision(ANIMALS, coco=False)
    for found, true in zip(read_voc(tmp_path / "voc", pictures, ANIMALS), truth, strict=True):
        score.update(found, true)
    assert score.compute()[0].value == 100.0
    with pytest.raises(UsageError, match="choose another --out"):
        write_voc(ANIMALS, pictures, FOUND, tmp_path / "voc")


def test_coco_results_come_with_the_numbers_they_speak_of(pictures: Unlabeled, tmp_path: Path) -> None:
    write_coco(ANIMALS, pictures, FOUND, tmp_path / "out.json")
    first, second = json.loads((tmp_path / "out.json").read_text())
    assert first == {"image_id": 1, "category_id": 2, "bbox": [0, 0, 10, 20], "score": 0.875}
    assert second["bbox"] == [4.25, 5, 25.75, 25]
    numbers = json.loads((tmp_path / "out.images.json").read_text())
    assert numbers["images"][1] == {"id": 2, "file_name": "set/2008_000002.jpg", "height": 30, "width": 40}
    assert numbers["categories"][2] == {"id": 3, "name": "tvmonitor"}


def test_coco_results_take_the_ids_of_a_file_however_it_spells_them(
    pictures: Unlabeled, tmp_path: Path
) -> None:
    entries = [{"id": 70 + i, "file_name": f"2008_00000{i}.jpg"} for i in (2, 1)]
    file = trees.coco(tmp_path / "gt.json", entries, [], ("TV", "Dog", "horse"))
    write_coco(ANIMALS, pictures, FOUND, tmp_path / "out.json", file)
    assert [(r["image_id"], r["category_id"]) for r in json.loads((tmp_path / "out.json").read_text())] == [
        (71, 20)
    ]
    trees.coco(file, entries[:1], [], ("dog",))
    with pytest.raises(DataError, match=r"1 of 2 images .*2008_000001(.|\n)*the file of this split"):
        write_coco(ANIMALS, pictures, FOUND, tmp_path / "out.json", file)
    trees.coco(file, entries, [], ("horse",))
    with pytest.raises(DataError, match="none of the model's classes"):
        write_coco(ANIMALS, pictures, FOUND, tmp_path / "out.json", file)
    trees.coco(file, [{"id": 1, "file_name": "1.jpg"}], [], ANIMALS.classes)
    twins = tuple(trees.picture(tmp_path / f"data/{side}/1.jpg") for side in "xy")
    with pytest.raises(DataError, match=r"2 images are named '1\.jpg' in the COCO file: x/1\.jpg, y/1\.jpg"):
        write_coco(ANIMALS, dataclasses.replace(pictures, paths=twins), FOUND, tmp_path / "out.json", file)
    file.write_text("[]")
    with pytest.raises(DataError, match="file_name"):
        write_coco(ANIMALS, pictures, FOUND, tmp_path / "out.json", file)


def test_names_that_a_form_cannot_hold_are_refused(tmp_path: Path) -> None:
    twins = tuple(trees.picture(tmp_path / f"{side}/a.jpg") for side in "xy")
    images = Unlabeled(domain="drawn", root=tmp_path, paths=twins)
    with pytest.raises(DataError, match="flat"):
        MASK_ZIPS["cityscapes"].names(images)
    with pytest.raises(DataError, match=r"name(.|\n)*of its own"):
        write_voc(ANIMALS, images, FOUND, tmp_path / "voc")
    blank = Unlabeled(domain="drawn", root=tmp_path, paths=(trees.picture(tmp_path / "my cat.jpg"),))
    with pytest.raises(DataError, match="without blanks"):
        write_voc(ANIMALS, blank, FOUND[:1], tmp_path / "voc")
    one = Unlabeled(domain="drawn", root=tmp_path, paths=twins[:1])
    with pytest.raises(DataError, match="rename the class"):
        write_voc(LabelSpace("detection", ("../x",)), one, FOUND[:1], tmp_path / "voc")


def driver(backbone: Any) -> PerceptionModel:
    labels = domains["cityscapes"].labels
    assert labels is not None
    return PerceptionModel.assemble(
        backbone, "semantic-fpn", labels, inference=InferenceSettings(long=64), width=8
    )


def test_a_model_is_asked_only_for_what_it_does(backbone: Any, pictures: Unlabeled, tmp_path: Path) -> None:
    run, model = Run(folder=tmp_path, quiet=True, device="cpu"), driver(backbone)

    def texts() -> dict[str, str]:
        raise AssertionError("captions are made although the form does not fit")

    for form, advice in (("voc", "cityscapes, dark-zurich"), ("cityscape", "did you mean 'cityscapes'")):
        with pytest.raises(UsageError, match=advice):
            submit(model, pictures, texts, form, tmp_path / "x", run)
    with pytest.raises(UsageError, match="leave out --like"):
        submit(model, pictures, texts, "cityscapes", tmp_path / "x", run, like=tmp_path / "gt.json")
    own = PerceptionModel.assemble(
        backbone, "semantic-fpn", LabelSpace("segmentation", ("road", "barn")), width=8
    )
    with pytest.raises(UsageError, match="does not score barn"):
        submit(own, pictures, texts, "cityscapes", tmp_path / "x", run)
    twins = (*pictures.paths, trees.picture(pictures.root / "set/2008_000001.png"))
    with pytest.raises(DataError, match="2 images are called 2008_000001"):
        submit(
            driver(backbone),
            dataclasses.replace(pictures, paths=twins),
            texts,
            "cityscapes",
            tmp_path / "x",
            run,
        )
    assert {form.task for form in FORMS.values()} <= set(tasks)
    assert not list(tmp_path.glob("*x*"))


def test_the_command_writes_what_the_servers_want(
    backbone: Any, tmp_path: Path, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    root = trees.cityscapes(tmp_path / "data")
    model = driver(backbone)
    model.save(tmp_path / "model")
    captions = tmp_path / "captions.json"
    captions.write_text(
        json.dumps({"berlin/berlin_000000_000019_leftImg8bit.png": {"captions": ["a street"]}})
    )
    words = [
        "submit",
        tmp_path / "model",
        "cityscapes",
        *["--split", "server", "--form", "cityscapes", "--data"],
        root,
    ]
    words += ["--out", tmp_path / "out/results.zip", "--captions", captions, "--device", "cpu"]
    assert command(*words) == 3
    assert "1 of 1525 images" in capsys.readouterr().err
    assert command(*words, "--partial") == 0
    with zipfile.ZipFile(tmp_path / "out/results.zip") as archive:
        assert archive.namelist() == ["berlin_000000_000019_leftImg8bit.png"]
        with archive.open(archive.namelist()[0]) as file, Image.open(file) as picture:
            stored = np.asarray(picture)
    image = domains["cityscapes"].unlabeled(root, "server")[0]
    decision = model.predict(image, caption="a street")
    labels = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    np.testing.assert_array_equal(stored, np.array(labels)[decision])
    folder = root / "cityscapes/leftImg8bit/test"
    place = tmp_path / "again.zip"
    words = [
        "submit",
        tmp_path / "model",
        folder,
        "--form",
        "cityscapes",
        "--out",
        place,
        "--captions",
        captions,
    ]
    assert command(*words, "--device", "cpu") == 0
    assert place.read_bytes() == (tmp_path / "out/results.zip").read_bytes()
