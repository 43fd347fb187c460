"""COCO's JSON: pictures by the file's list, boxes as they stand, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tadp_da.domains import Domain
from tadp_da.domains.formats.coco import coco_domain
from tadp_da.errors import DataError, UsageError
from tadp_da.storage.listing import remarks
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
        ({"category_id": 99}, "unknown category 99", "category_id"),
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
    assert str(caught.value.where).endswith("annotations[0]")


def test_boxes_without_area_and_outside_are_told(tmp_path: Path) -> None:
    domain = build(tmp_path, [DOG | {"bbox": [1, 1, 0, 5]}, DOG | {"bbox": [30, 1, 20, 5]}])
    with remarks.recording() as recorded:
        assert len(targets(domain, tmp_path)[0]) == 1
    assert len(recorded) == 2


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "b/../../x.jpg", "C:\\x.jpg", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="leads out of the image folder"):
        build(tmp_path, [], [{"id": 1, "file_name": name}]).unlabeled(tmp_path, "train")


def test_missing_pictures_are_listed(tmp_path: Path) -> None:
    images = [*IMAGES, {"id": 9, "file_name": "gone.jpg"}]
    with pytest.raises(DataError, match=r"1 of 3 images are missing: gone.jpg"):
        build(tmp_path, [], images).unlabeled(tmp_path, "train")
    with pytest.raises(DataError, match=r"'1.jpg' is listed twice"):
        build(tmp_path, [], [*IMAGES, IMAGES[1] | {"id": 4}]).unlabeled(tmp_path, "train")


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


def test_images_that_the_file_does_not_name_are_told(tmp_path: Path) -> None:
    domain = build(tmp_path)
    trees.picture(tmp_path / "i/3.jpg")
    with remarks.recording() as recorded:
        assert len(domain.unlabeled(tmp_path, "train").paths) == 2
    assert [(r.what, r.path.name) for r in recorded] == [
        ("images that the COCO file does not name are left out", "3.jpg")
    ]


# -- what tools write


def written(root: Path, **changes: Any) -> Domain:
    """Two images with a dog on the first, and changes of the file."""
    for name in ("b/2.jpg", "1.jpg"):
        trees.picture(root / "i" / name)
    content = {"images": IMAGES, "annotations": [DOG], "categories": [{"id": 10, "name": "dog"}]} | changes
    (root / "boxes.json").write_text(json.dumps(content))
    return coco_domain("mine", images=root / "i", annotations=root / "boxes.json")


def test_images_that_share_an_id_are_refused(tmp_path: Path) -> None:
    """Their boxes would all go to one of them."""
    with pytest.raises(DataError, match=r"two images share the id 3: b/2\.jpg and 1\.jpg") as caught:
        written(tmp_path, images=[IMAGES[0] | {"id": "3"}, IMAGES[1]])
    assert "an id of its own" in caught.value.fix


def test_ids_may_be_text_or_floating_point(tmp_path: Path) -> None:
    images = [IMAGES[0] | {"id": "a b.jpg"}, IMAGES[1] | {"id": "3"}]
    boxes = [DOG | {"image_id": 3.0}, DOG | {"image_id": "a b.jpg", "category_id": "10"}]
    assert [len(t) for t in targets(written(tmp_path, images=images, annotations=boxes), tmp_path)] == [1, 1]
    for number in (None, True, [1]):
        with pytest.raises(DataError, match="expected a number or text"):
            written(tmp_path, annotations=[DOG | {"image_id": number}])


def test_a_category_that_is_only_the_parent_of_others_is_no_class(tmp_path: Path) -> None:
    """Roboflow writes one first, and a detector learned a class of it."""
    root = {"id": 0, "name": "things", "supercategory": "none"}
    others = [
        {"id": 10, "name": "dog", "supercategory": "things"},
        {"id": 2, "name": "cat", "supercategory": "cat"},
    ]
    domain = written(tmp_path, categories=[root, *others])
    assert domain.labels.classes == ("cat", "dog")  # type: ignore[union-attr]
    with remarks.recording() as recorded:
        domain.unlabeled(tmp_path, "train")
    assert [r.what for r in recorded if r.what.endswith("are no class: things")]
    used = written(tmp_path, categories=[root, *others], annotations=[DOG | {"category_id": 0}])
    assert used.labels.classes == ("things", "cat", "dog")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("category", "what"),
    [
        ({"id": 5, "name": "dog "}, "2 categories share the name 'dog'"),
        ({"id": "10", "name": "cat"}, "2 categories share the id '10'"),
        ({"id": 5, "name": None}, "valid string"),
        ({"id": 5, "name": " "}, "at least 1 character"),
        ({"id": 5}, "Field required"),
    ],
)
def test_categories_without_a_name_of_their_own_are_refused(
    tmp_path: Path, category: dict[str, Any], what: str
) -> None:
    with pytest.raises(DataError, match=what) as caught:
        written(tmp_path, categories=[{"id": 10, "name": "dog"}, category])
    assert "boxes.json" in str(caught.value.where)


@pytest.mark.parametrize("box", [{"bbox": []}, {"bbox": None}])
def test_an_annotation_without_a_box_has_that_of_its_polygons(tmp_path: Path, box: dict[str, Any]) -> None:
    parts = [[2, 3, 12, 3, 12, 9], [20, 1, 21, 1, 21, 2]]
    (found, _) = targets(written(tmp_path, annotations=[DOG | box | {"segmentation": parts}]), tmp_path)
    assert found.xyxy.tolist() == [[2, 1, 21, 9]]
    for nothing in (None, [], [[]], [[1]], {"counts": "aa", "size": [30, 40]}, [["a", "b"]]):
        with pytest.raises(DataError, match="neither a bbox nor polygons"):
            written(tmp_path, annotations=[DOG | box | {"segmentation": nothing}])


@pytest.mark.parametrize(
    "name",
    ["/data/local-files/?d=images/2.jpg", "images\\2.jpg", "C:\\me\\2.jpg", "../i/b/2.jpg", "b\\2.jpg"],
)
def test_an_image_of_another_machines_path_is_found_by_its_base_name(tmp_path: Path, name: str) -> None:
    domain = written(tmp_path, images=[IMAGES[0] | {"file_name": name}, IMAGES[1]])
    with remarks.recording() as recorded:
        assert [p.name for p in domain.unlabeled(tmp_path, "train").paths] == ["1.jpg", "2.jpg"]
    told = {r.path: r.what for r in recorded}
    renamed = "images are found by their base name, the COCO file has other paths"
    assert told == ({tmp_path / "i/b/2.jpg": renamed} if name != "b\\2.jpg" else {})
    trees.picture(tmp_path / "i/c/2.jpg")  # now it could be either
    if name != "b\\2.jpg":
        with pytest.raises(
            DataError, match=r"2 images in the folder have this base name|1 of 2 images are missing"
        ):
            written(tmp_path, images=[IMAGES[0] | {"file_name": name}, IMAGES[1]], info={}).unlabeled(
                tmp_path, "train"
            )
