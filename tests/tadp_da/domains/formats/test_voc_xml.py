"""Boxes in VOC's XML: the pixel convention, what is mended with a remark, what is refused with its line."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tadp_da.domains.formats.box_folder import box_folder_domain
from tadp_da.domains.formats.voc_xml import read_annotation
from tadp_da.errors import DataError, UsageError
from tadp_da.storage.listing import remarks
from tadp_da.types import Boxes
from tests.tadp_da.domains import trees

CLASSES = ("dog", "person", "tvmonitor")


def read(tmp_path: Path, *things: trees.Thing | str, **options: object) -> Boxes:
    image = trees.picture(tmp_path / "1.jpg")
    path = trees.xml(tmp_path / "1.xml", things, **options)  # type: ignore[arg-type]
    return read_annotation(path, image, CLASSES)


def test_both_ends_counted_from_one_become_half_open_from_zero(tmp_path: Path) -> None:
    boxes = read(tmp_path, ("dog", 1, 1, 40, 30), ("person", 3, 5, 3, 5))
    assert boxes.xyxy.tolist() == [[0, 0, 40, 30], [2, 4, 3, 5]]  # the whole picture, and one pixel
    assert boxes.labels.tolist() == [0, 1]
    assert (boxes.xyxy.dtype, boxes.labels.dtype, boxes.difficult.dtype) == (np.float32, np.int64, np.bool_)


@pytest.mark.parametrize(("difficult", "flag"), [(1, True), (0, False), (None, False)])
def test_difficult_is_kept_and_off_when_unsaid(tmp_path: Path, difficult: int, flag: bool) -> None:
    assert read(tmp_path, ("dog", 1, 1, 9, 9), difficult=difficult).difficult.tolist() == [flag]


def test_fractions_are_kept(tmp_path: Path) -> None:
    found = read(tmp_path, ("dog", 1.5, 2.25, 10.75, 9)).xyxy.tolist()
    assert found == [[0.5, 1.25, 10.75, 9]]


OBJECT = "  <object><name>dog</name>{}</object>"
BOX = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"


@pytest.mark.parametrize(
    ("thing", "what", "fix"),
    [
        (OBJECT.format(""), "an object has no box", "add <bndbox> or remove the object"),
        (OBJECT.format("<bndbox><xmin>1</xmin></bndbox>"), "a box has no ymin", "counted from 1"),
        (OBJECT.format(BOX.format("left")), "the xmin 'left', which is not a number", "number of pixels"),
        (OBJECT.format(BOX.format("nan")), "a coordinate that is not a number", "correct or remove"),
        (OBJECT.format(BOX.format("inf")), "a coordinate that is not a number", "correct or remove"),
        (OBJECT.format(BOX.format("30")), "swapped corners: x 29 to 9", "smaller coordinate as the minimum"),
        (OBJECT.format("<difficult>maybe</difficult>" + BOX.format(1)), "difficult='maybe'", "write 0 or 1"),
        ("  <object>" + BOX.format(1) + "</object>", "an object has no name", "<name>car</name>"),
    ],
)
def test_a_senseless_object_is_refused_with_its_line(tmp_path: Path, thing: str, what: str, fix: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, ("dog", 1, 1, 5, 5), thing)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where == f"{tmp_path / '1.xml'}:6"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("things", "boxes", "told"),
    [
        ([("dog", 1, 1, 1, 1), ("dog", 1, 1, 5, 5)], [[0, 0, 5, 5]], "dummy boxes (1, 1, 1, 1) dropped"),
        # xmax = xmin - 1: no column
        ([("dog", 9, 9, 8, 20), ("dog", 1, 1, 5, 5)], [[0, 0, 5, 5]], "boxes without area dropped"),
        (
            [("dog", 0, 5, 99, 31), ("dog", 1, 1, 40, 30)],
            [[0, 4, 40, 30], [0, 0, 40, 30]],
            "boxes reach outside the image and were clipped",
        ),
    ],
)
def test_what_is_dropped_or_clipped_is_told(
    tmp_path: Path, things: list[trees.Thing], boxes: list[list[int]], told: str
) -> None:
    with remarks.recording() as recorded:
        found = read(tmp_path, *things)
    assert found.xyxy.tolist() == boxes
    assert [(r.count, r.what, r.path) for r in recorded] == [(1, told, tmp_path / "1.jpg")]


@pytest.mark.parametrize("corners", [(41, 1, 50, 9), (1, 31, 9, 40), (-9, 1, 0, 9)])
def test_a_box_wholly_outside_is_refused(tmp_path: Path, corners: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="is outside its 40x30 image") as caught:
        read(tmp_path, ("dog", *corners))  # type: ignore[arg-type]
    assert "belongs to this image" in caught.value.fix


def test_a_picture_without_objects_has_no_boxes(tmp_path: Path) -> None:
    boxes = read(tmp_path)
    assert len(boxes) == 0
    assert boxes.xyxy.shape == (0, 4)
    assert boxes.labels.dtype == np.int64


@pytest.mark.parametrize("name", ["Person", " person ", "PERSON", "TV_Monitor", "television", "tv"])
def test_usual_spellings_are_understood(tmp_path: Path, name: str) -> None:
    expected = 1 if "person" in name.lower() else 2
    assert read(tmp_path, (name, 1, 1, 9, 9)).labels.tolist() == [expected]


def test_an_unknown_name_is_answered_with_the_nearest_and_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown class 'persn', did you mean 'person'") as caught:
        read(tmp_path, ("persn", 1, 1, 9, 9))
    assert "known: dog, person, tvmonitor" in caught.value.fix
    assert str(caught.value.where).endswith("1.xml:5")


def test_names_may_be_left_out_on_purpose(tmp_path: Path) -> None:
    image = trees.picture(tmp_path / "1.jpg")
    path = trees.xml(tmp_path / "1.xml", [("unicorn", 1, 1, 9, 9), ("dog", 1, 1, 9, 9)])
    found = read_annotation(path, image, CLASSES, drop=["Unicorn"])
    assert found.labels.tolist() == [0]


def test_parts_of_objects_are_not_objects(tmp_path: Path) -> None:
    part = "<part><name>head</name>" + BOX.format(1) + "</part>"
    found = read(tmp_path, OBJECT.format(part + BOX.format(3)))
    assert found.xyxy.tolist() == [[2, 0, 9, 9]]


def test_boxes_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="made for 80x60 pixels, the image is 40x30") as caught:
        read(tmp_path, ("dog", 1, 1, 9, 9), size=(80, 60))
    assert "restore the image that was annotated" in caught.value.fix


def test_boxes_made_before_an_exif_turn_are_refused(tmp_path: Path) -> None:
    image = trees.turned(tmp_path / "1.jpg", (40, 30))
    path = trees.xml(tmp_path / "1.xml", size=(40, 30))
    with pytest.raises(DataError, match="rotated by its EXIF tag, the boxes are not") as caught:
        read_annotation(path, image, CLASSES)
    assert "exiftool -Orientation=" in caught.value.fix
    trees.xml(path, size=(30, 40))
    assert len(read_annotation(path, image, CLASSES)) == 1


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_a_size_that_is_not_said_is_the_pictures(tmp_path: Path, size: tuple[int, int] | None) -> None:
    assert read(tmp_path, ("dog", 1, 1, 99, 99), size=size).xyxy.tolist() == [[0, 0, 40, 30]]


LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
ATTACKS = {
    "a small entity": '<!DOCTYPE annotation [<!ENTITY a "dog">]>',
    "a billion laughs": f'<!DOCTYPE annotation [<!ENTITY l0 "ha">{LAUGHS}]>',
    "a file of yours": '<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    "a document type from afar": '<!DOCTYPE annotation SYSTEM "http://localhost/x.dtd">',
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_document_types_and_entities_are_refused_at_once(tmp_path: Path, attack: str) -> None:
    path = trees.xml(tmp_path / "1.xml", [OBJECT.format(BOX.format(1)).replace("dog", "&a;&l11;")])
    path.write_text(ATTACKS[attack] + path.read_text())
    start = time.perf_counter()
    with pytest.raises(DataError, match="declares a document type or entities") as caught:
        read_annotation(path, trees.picture(tmp_path / "1.jpg"), CLASSES)
    assert time.perf_counter() - start < 1
    assert "remove the <!DOCTYPE ...> block" in caught.value.fix
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "content", [b"", b"<annotation>", b"no xml", b"\xff\xfe\x00", b"<?xml encoding='none'?><a/>"]
)
def test_what_is_no_xml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1.xml").write_bytes(content)
    with pytest.raises(DataError, match="an annotation is not valid XML") as caught:
        read_annotation(tmp_path / "1.xml", trees.picture(tmp_path / "1.jpg"), CLASSES)
    assert "export it again" in caught.value.fix


def test_other_xml_and_missing_files_are_refused(tmp_path: Path) -> None:
    image = trees.picture(tmp_path / "1.jpg")
    (tmp_path / "1.xml").write_text("<svg/>")
    with pytest.raises(DataError, match="begins with <svg>"):
        read_annotation(tmp_path / "1.xml", image, CLASSES)
    with pytest.raises(DataError, match="an annotation is missing") as caught:
        read_annotation(tmp_path / "2.xml", image, CLASSES)
    assert "XML file of the same name" in caught.value.fix


# -- own folders


def own(root: Path, **options: object) -> list[list[int]]:
    domain = box_folder_domain("mine", images=root / "i", annotations=root / "x", classes=CLASSES, **options)  # type: ignore[arg-type]
    images = domain.unlabeled(root, "train")
    data = domain.labeled(root, "train", {images.key(k): "c" for k in range(len(images))})
    return [example.target.labels.tolist() for example in (data[k] for k in range(len(data)))]


def test_own_pictures_pair_with_xml_by_name_in_either_case(tmp_path: Path) -> None:
    trees.picture(tmp_path / "i/a/1.JPG", format="JPEG")
    trees.xml(tmp_path / "x/a/1.XML", [("person", 1, 1, 9, 9)])
    trees.picture(tmp_path / "i/b.2.png")
    trees.xml(tmp_path / "x/b.2.xml", [])
    assert own(tmp_path) == [[1], []]


def test_pictures_and_annotations_without_partner_are_listed(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        trees.picture(tmp_path / f"i/{name}.png")
    trees.xml(tmp_path / "x/1.xml")
    with pytest.raises(DataError, match="2 of 3 images have no annotation: 2, 3"):
        own(tmp_path)
    for name in ("2", "3", "4"):
        trees.xml(tmp_path / f"x/{name}.xml")
    with pytest.raises(DataError, match="1 of 4 annotations have no image: 4") as caught:
        own(tmp_path)
    assert "remove the files without partner" in caught.value.fix


@pytest.mark.parametrize("classes", [(), ("dog", "dog")])
def test_classes_must_be_named_once(tmp_path: Path, classes: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"no class names|a class twice") as caught:
        box_folder_domain("mine", images=tmp_path, annotations=tmp_path, classes=classes)
    assert "name every class once" in caught.value.fix
