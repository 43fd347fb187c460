"""Boxes of every format: what is refused, what is dropped, and that a check counts it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tadp_da.custom_dataset import CustomDataset
from tadp_da.datasets import DataSource, resolve
from tadp_da.domains.checks.report import CheckReport
from tadp_da.domains.checks.validate import check_data
from tadp_da.domains.formats.boxes import MOST_BOXES, flag
from tadp_da.errors import DataError, UsageError
from tadp_da.types import Boxes
from tests.tadp_da.domains import trees
from tests.tadp_da.domains.checks.checked import command

WIDTH, HEIGHT = 40, 30
Row = tuple[str, float, float, float, float]
"""Class, left, top, right, bottom: half-open, from 0."""


def coco(root: Path, rows: list[Row], **more: Any) -> Path:
    boxes = [
        {"image_id": 1, "category_id": 10 if name == "car" else 20, "bbox": [x1, y1, x2 - x1, y2 - y1]} | more
        for name, x1, y1, x2, y2 in rows
    ]
    return trees.coco(root / "boxes.json", [{"id": 1, "file_name": "1.png"}], boxes, ["car", "person"])


def voc(root: Path, rows: list[Row]) -> Path:
    counted_from_one = [(name, x1 + 1, y1 + 1, x2, y2) for name, x1, y1, x2, y2 in rows]
    return trees.xml(root / "labels/1.xml", counted_from_one, (WIDTH, HEIGHT)).parent


def yolo(root: Path, rows: list[Row]) -> Path:
    (root / "labels").mkdir()
    lines = [
        f"{('car', 'person').index(name)} {(x1 + x2) / 2 / WIDTH} {(y1 + y2) / 2 / HEIGHT} {(x2 - x1) / WIDTH} "
        f"{(y2 - y1) / HEIGHT}"
        for name, x1, y1, x2, y2 in rows
    ]
    (root / "labels/1.txt").write_text("\n".join(lines))
    (root / "labels/classes.txt").write_text("car\nperson\n")  # LabelImg puts it there
    return root / "labels"


def labelme(root: Path, rows: list[Row]) -> Path:
    """The files lie beside the images, where labelme puts them."""
    shapes = [
        {"label": name, "points": [[x2, y2], [x1, y1]], "shape_type": "rectangle", "flags": {}}
        for name, x1, y1, x2, y2 in rows
    ]
    facts = {"version": "5.4.1", "shapes": shapes, "imagePath": "1.png", "imageData": None}
    text = json.dumps(facts | {"imageHeight": HEIGHT, "imageWidth": WIDTH})
    (root / "i/1.json").write_text(text)
    return root / "i"


FORMATS: list[Callable[[Path, list[Row]], Path]] = [coco, voc, yolo, labelme]
every_format = pytest.mark.parametrize("write", FORMATS)


def source(root: Path, labels: Path, classes: tuple[str, ...] = ("car", "person")) -> DataSource:
    """As every command finds it."""
    return resolve(CustomDataset.of(root / "i", labels, classes=classes), root)


def read(root: Path, labels: Path, classes: tuple[str, ...] = ("car", "person")) -> Boxes:
    label = source(root, labels, classes).domain.label
    assert label is not None
    boxes: Boxes = label(root / "i/1.png")
    return boxes


def check(root: Path, labels: Path, classes: tuple[str, ...] = ("car", "person")) -> CheckReport:
    found = source(root, labels, classes)
    return check_data(found.domain, found.root)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    trees.picture(tmp_path / "i/1.png", (WIDTH, HEIGHT))
    return tmp_path


@every_format
def test_boxes_are_found_by_what_lies_there(root: Path, write: Callable[..., Path]) -> None:
    boxes = read(root, write(root, [("person", 2, 3, 12, 24), ("car", 0, 0, 40, 30)]))
    assert boxes.xyxy == pytest.approx(np.array([[2, 3, 12, 24], [0, 0, 40, 30]]), abs=1e-4)
    assert boxes.labels.tolist() == [1, 0]
    assert not boxes.difficult.any()
    labels = root / "boxes.json" if write is coco else root / ("i" if write is labelme else "labels")
    assert command("data", "check", root / "i", labels, "--classes", "car,person") == 0


@pytest.mark.parametrize("write", FORMATS[:2])
def test_boxes_in_fractions_of_the_image_are_refused(root: Path, write: Callable[..., Path]) -> None:
    labels = write(root, [("car", 0.1, 0.1, 0.4, 0.4), ("person", 0.5, 0.4, 0.7, 0.6)])
    if labels.is_dir():  # as a tool writes them that knows nothing of VOC's pixels
        trees.xml(labels / "1.xml", [("car", 0.1, 0.1, 0.4, 0.4), ("person", 0.5, 0.4, 1, 1)])
    with pytest.raises(DataError, match="within one pixel: they look like fractions of the image") as caught:
        read(root, labels)
    assert "multiply x by 40 and y by 30" in caught.value.fix
    assert command("data", "check", root / "i", labels, "--classes", "car,person") == 3


@every_format
def test_what_training_drops_is_counted(root: Path, write: Callable[..., Path]) -> None:
    kept = ("person", 2, 3, 12, 24)
    thin, nothing = ("car", 30.5, 20, 31, 25), ("car", 30.5, 20, 30.500001, 25)
    out = [("car", 30, 20, 44, 25), ("car", 29, 20, 45, 25)]
    report = check(root, write(root, [kept, kept, thin, nothing, nothing, *out]))
    told = [finding.what for finding in report.all_findings if finding.level != "note"]
    assert told == [
        "2 boxes without area dropped, in 1 images",
        "1 objects stated again dropped, in 1 images",
        "2 boxes reach outside the image and were clipped, in 1 images",
        "1 objects are under a pixel wide or high at its own size: training leaves them out, in 1 images",
    ]
    assert not any("nothing" in finding.fix for finding in report.all_findings)
    assert any("another image size" in finding.fix for finding in report.all_findings)
    assert report.splits[0].labels == {"car": 3, "person": 1}
    assert report.ok


@pytest.mark.parametrize(
    ("options", "lost", "size"),
    [
        ((), 0, ""),
        (("--set", "inference.long=8"), 1, "the size of mini-boxes's settings (inference.long=8)"),
        (("--model", "else/where", "--set", "inference.long=8"), 1, "stable-diffusion-boxes's settings"),
    ],
)
def test_objects_that_vanish_at_the_working_size_are_counted_by_the_check(
    root: Path, options: tuple[str, ...], lost: int, size: str, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = coco(root, [("car", 0, 0, 4, 30), ("car", 0, 0, 9, 30), ("person", 0, 0, 40, 30)])
    assert command("data", "check", root / "i", labels, *options) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert (f"{lost} objects are under a pixel wide or high at " in told) == bool(lost)
    assert size in told


@pytest.mark.parametrize("write", [coco, voc])
def test_more_boxes_than_memory_holds_are_refused_at_once(root: Path, write: Callable[..., Path]) -> None:
    labels = write(root, [("car", 1, 1, 9, 9)] * 20_000)
    start = time.perf_counter()
    with pytest.raises(DataError, match=f"20000 boxes, at most {MOST_BOXES}") as caught:
        read(root, labels)
    assert "tiles" in caught.value.fix
    assert time.perf_counter() - start < 10, "83,000 would take a minute if it grew with the square"


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        *((no, False) for no in (0, "0", "false", "No", None, "", 0.0)),
        *((yes, True) for yes in (1, "1", " True", "yes", 1.0)),
    ],
)
def test_flags_may_be_text(root: Path, value: object, meaning: bool) -> None:
    assert flag(value) is meaning
    assert read(root, coco(root, [("car", 1, 1, 9, 9)], iscrowd=value)).difficult.tolist() == [meaning]
    trees.xml(root / "x/1.xml", [("car", 1, 1, 9, 9)], difficult=value)  # type: ignore[arg-type]
    if value is not None:
        assert read(root, root / "x").difficult.tolist() == [meaning]


def test_a_flag_that_is_none_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match="'maybe' is neither 0 nor 1") as caught:
        read(root, coco(root, [("car", 1, 1, 9, 9)], iscrowd="maybe"))
    assert str(caught.value.where).endswith("annotations[0].iscrowd")


# -- YOLO and labelme


def test_polygons_have_their_box(root: Path) -> None:
    labels = yolo(root, [])
    (labels / "1.txt").write_text("\n1.0 0.1 0.1 0.5 0.1 0.5 0.9\n")
    assert read(root, labels).xyxy == pytest.approx(np.array([[4, 3, 20, 27]]), abs=1e-4)
    file = root / "i/1.json"
    shapes = [
        {"label": "car", "points": [[4, 3], [20, 3], [20, 27]], "shape_type": "polygon"},
        {"label": "car", "points": [[20, 15], [23, 19]], "shape_type": "circle", "difficult": True},
    ]
    file.write_text(json.dumps({"shapes": shapes}))
    found = read(root, root / "i")
    assert found.xyxy.tolist() == [[4, 3, 20, 27], [15, 10, 25, 20]]
    assert found.difficult.tolist() == [False, True]


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("0 0.5 0.5 0.2", "not an object of YOLO", "fractions of the image"),
        ("car 0.5 0.5 0.2 0.2", "not an object of YOLO", "fractions of the image"),
        ("0 0.5 0.5 0.2 0.2 0.9", "not an object of YOLO", "predictions with their score"),
        ("0.5 0.5 0.5 0.2 0.2", "not an object of YOLO", "fractions of the image"),
        ("-1 0.5 0.5 0.2 0.2", "not an object of YOLO", "fractions of the image"),
        ("0 0.5 0.5 -0.2 0.2", "swapped corners", "smaller coordinate"),
        ("0 nan 0.5 0.2 0.2", "not an object of YOLO", "fractions of the image"),
        ("0 20 15 8 8", "the coordinate 20", "divide x and width"),
        (
            "2 0.5 0.5 0.2 0.2",
            "the class 2, and there are 2 classes: car, person",
            "in the order of their ids",
        ),
    ],
)
def test_lines_that_are_no_objects_are_refused(root: Path, line: str, what: str, fix: str) -> None:
    labels = yolo(root, [("car", 1, 1, 9, 9)])
    (labels / "1.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    with pytest.raises(DataError, match=what) as caught:
        read(root, labels)
    assert fix in caught.value.fix
    assert caught.value.where == f"{labels}/1.txt:2"


def test_images_without_a_file_of_yolo_are_background(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = yolo(root, [("car", 1, 1, 9, 9)])
    for number in (2, 3):
        trees.picture(root / f"i/{number}.png", (WIDTH, HEIGHT))
    assert command("data", "check", root / "i", labels) == 0
    told = capsys.readouterr().out
    assert "images without a label file are background" in told
    assert "2 images have no object" in told
    label = source(root, labels).domain.label
    assert label is not None
    assert [len(label(root / f"i/{number}.png")) for number in (1, 2, 3)] == [1, 0, 0]
    (labels / "1.txt").rename(labels / "other.txt")
    with pytest.raises(DataError, match="3 of 3 images have no annotation"):
        source(root, labels).domain.unlabeled(root / "i", "train")


@every_format
def test_objects_of_a_class_with_a_minus_are_left_out(root: Path, write: Callable[..., Path]) -> None:
    """What the error for an unknown class advises; YOLO's ids count all classes."""
    labels = write(root, [("car", 1, 1, 9, 9), ("person", 2, 3, 12, 24)])
    if write is not yolo:
        with pytest.raises(DataError, match="unknown class 'car'") as caught:
            read(root, labels, ("person",))
        assert "--classes person,-car" in caught.value.fix
    for classes in (("-car", "person"), ("-Car",))[: 2 if write in (coco, yolo) else 1]:
        space = source(root, labels, classes).domain.labels
        assert space is not None
        assert space.classes == ("person",)
        assert read(root, labels, classes).labels.tolist() == [0]
    findings = {
        finding.what: finding.level for finding in check(root, labels, ("-car", "person")).all_findings
    }
    assert findings["1 objects of classes with a minus are left out, in 1 images"] == "note"
    with pytest.raises(UsageError, match="-car leaves out objects") as refused:
        CustomDataset(name="x", images=root, masks=root, classes=("road", "-car"))
    assert "legend" in refused.value.fix


def test_classes_of_yolo_are_those_of_its_file(root: Path) -> None:
    labels = yolo(root, [("person", 2, 3, 12, 24)])
    domain = resolve(CustomDataset.of(root / "i", labels), root).domain
    assert domain.labels is not None
    assert domain.labels.classes == ("car", "person")
    (labels / "classes.txt").unlink()
    with pytest.raises(UsageError, match="no class names") as caught:
        resolve(CustomDataset.of(root / "i", labels), root)
    assert "--classes car,person" in caught.value.fix


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", '{"images": []}', '{"shapes": [{"label": null, "points": [[1, 1], [2, 2]]}]}'),
        *('{"shapes": [{"label": "car", "points": [[1, 1], [2, NaN]]}]}', '{"shapes": [{"label": "car"}]}'),
        '{"shapes": [{"label": "car", "points": [[1, 1], [2, 2]], "shape_type": "line"}]}',
    ],
)
def test_what_is_not_of_labelme_is_refused(root: Path, content: str) -> None:
    (root / "i/1.json").write_text(content)
    with pytest.raises(DataError, match="not labels of labelme") as caught:
        read(root, root / "i")
    assert "1.json" in str(caught.value.where)
    assert "rectangles, polygons and circles" in caught.value.fix


def test_masks_with_other_files_beside_them_are_masks(root: Path) -> None:
    trees.mask(root / "m/1.png", size=(WIDTH, HEIGHT))
    (root / "m/readme.txt").write_text("masks")
    (root / "m/legend.json").write_text("{}")
    domain = source(root, root / "m").domain
    assert domain.labels is not None
    assert domain.labels.task == "segmentation"
