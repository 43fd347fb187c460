"""COCO's JSON: pictures by the file's list, boxes as they stand, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tadp_da.domains import Domain
from tadp_da.domains.formats.coco import coco_domain
from tadp_da.errors import DataError, UsageError
from tests.tadp_da.domains import trees

IMAGES = [
    {"id": 7, "file_name": "b/2.jpg", "width": 40, "height": 30},
    {"id": 3, "file_name": "1.jpg", "width": 40, "height": 30},
]
DOG = {"id": 1, "image_id": 3, "category_id": 10, "bbox": [2, 3, 10, 20.5]}
CROWD = {"id": 2, "image_id": 3, "category_id": 20, "bbox": [0, 0, 40, 30], "iscrowd": 1}


def build(root: Path, annotations: Any = (DOG, CROWD), images: Any = IMAGES, **options: Any) -> Domain:
    for name in ("b/2.jpg", "1.jpg"):
        trees.picture(root / "i" / name)
    file = trees.coco(root / "boxes.json", images, annotations, ["dog", "television"])
    return coco_domain("mine", images=root / "i", annotations=file, **options)


def targets(domain: Domain, root: Path) -> list[Any]:
    images = domain.unlabeled(root, "train")
    data = domain.labeled(root, "train", {images.key(k): "c" for k in range(len(images))})
    return [data[k].target for k in range(len(data))]


def test_boxes_are_corner_and_size_and_crowds_are_difficult(tmp_path: Path) -> None:
    domain = build(tmp_path)
    assert [p.name for p in domain.unlabeled(tmp_path, "train").paths] == ["1.jpg", "2.jpg"]
    first, second = targets(domain, tmp_path)
    assert first.xyxy.tolist() == [[2, 3, 12, 23.5], [0, 0, 40, 30]]
    assert first.labels.tolist() == [0, 1]
    assert first.difficult.tolist() == [False, True]
    assert len(second) == 0


def test_classes_are_the_categories_by_id_or_those_that_are_given(tmp_path: Path) -> None:
    assert build(tmp_path).labels.classes == ("dog", "television")  # type: ignore[union-attr]
    given = build(tmp_path, classes=("tvmonitor", "dog"))
    assert targets(given, tmp_path)[0].labels.tolist() == [1, 0]
    some = build(tmp_path, classes=("dog",), drop=("television",))
    assert targets(some, tmp_path)[0].labels.tolist() == [0]
    with pytest.raises(DataError, match="unknown class 'television'"):
        targets(build(tmp_path, classes=("dog",)), tmp_path)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    domain = build(tmp_path)
    assert len(targets(domain, tmp_path)[0]) == 2
    trees.coco(tmp_path / "boxes.json", IMAGES, [DOG], ["dog", "television"])
    os.utime(tmp_path / "boxes.json", ns=(1, 1))
    assert len(targets(domain, tmp_path)[0]) == 1


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        ({"bbox": [1, 2, 3]}, "is malformed", "bbox"),
        ({"bbox": [1, 2, 3, "x"]}, "is malformed", "bbox"),
        ({"bbox": None}, "is malformed", "bbox"),
        ({"category_id": 99}, "lacks or misstates 99", "category_id"),
        ({"image_id": 99}, "belong to no image: ids 99", "add the images"),
    ],
)
def test_a_malformed_annotation_is_refused(
    tmp_path: Path, change: dict[str, Any], what: str, fix: str
) -> None:
    with pytest.raises(DataError) as caught:
        build(tmp_path, [DOG | change]).unlabeled(tmp_path, "train")
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert "boxes.json" in str(caught.value.where)


@pytest.mark.parametrize(
    ("box", "what"),
    [([0, 0, -3, 9], "swapped corners"), ([50, 0, 3, 9], "is outside")],
)
def test_a_senseless_box_is_refused_with_its_number(tmp_path: Path, box: list[int], what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        targets(build(tmp_path, [DOG | {"bbox": box}]), tmp_path)
    assert str(caught.value.where).endswith("annotation 1")


def test_boxes_without_area_and_outside_are_told(tmp_path: Path) -> None:
    domain = build(tmp_path, [DOG | {"bbox": [1, 1, 0, 5]}, DOG | {"bbox": [30, 1, 20, 5]}])
    assert len(targets(domain, tmp_path)[0]) == 1
    assert domain.remarks is not None
    assert len(domain.remarks(tmp_path / "i/1.jpg")) == 2


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "b/../../x.jpg", "C:\\x.jpg", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="leads out of the image folder"):
        build(tmp_path, [], [{"id": 1, "file_name": name}]).unlabeled(tmp_path, "train")


def test_missing_pictures_are_listed(tmp_path: Path) -> None:
    images = [*IMAGES, {"id": 9, "file_name": "gone.jpg"}]
    with pytest.raises(DataError, match=r"1 of 3 images are missing: gone.jpg"):
        build(tmp_path, [], images).unlabeled(tmp_path, "train")
    with pytest.raises(DataError, match=r"'1.jpg' is listed twice"):
        build(tmp_path, [], [*IMAGES, IMAGES[1]]).unlabeled(tmp_path, "train")


def test_boxes_of_another_size_are_refused(tmp_path: Path) -> None:
    images = [IMAGES[0], IMAGES[1] | {"width": 80}]
    with pytest.raises(DataError, match="made for 80x30 pixels, the image is 40x30"):
        targets(build(tmp_path, [DOG], images), tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": []}', '{"images": NaN}', "[" * 100_000, "\x00"])
def test_what_is_no_coco_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"a COCO file (is not valid JSON|has no list)") as caught:
        coco_domain("mine", images=tmp_path, annotations=tmp_path / "x.json")
    assert '"bbox": [x, y, width, height]' in caught.value.fix


def test_missing_files_and_unequal_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a COCO file is missing"):
        coco_domain("mine", images=tmp_path, annotations=tmp_path / "x.json")
    with pytest.raises(UsageError, match="images for test and COCO files for train"):
        coco_domain("mine", images={"test": tmp_path}, annotations={"train": tmp_path / "x.json"})
