"""Laws of the parsers: what is written in a format's own words is read back, whatever it says."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tadp_da.class_names import canonical, class_id
from tadp_da.domains.formats.coco import coco_domain
from tadp_da.domains.formats.masks import read_mask
from tadp_da.domains.formats.voc_xml import read_annotation
from tadp_da.plain_yaml import parse_value
from tadp_da.storage.listing import remarks
from tadp_da.types import LabelSpace
from tests.tadp_da.domains import trees

CLASSES = ("dog", "person", "tvmonitor")
WIDTH, HEIGHT = 40, 30


@st.composite
def things(draw: st.DrawFn) -> list[tuple[str, int, int, int, int]]:
    """Objects with corners in half-open pixels from zero, inside the picture."""
    found = []
    for _ in range(draw(st.integers(0, 5))):
        x, y = draw(st.integers(0, WIDTH - 2)), draw(st.integers(0, HEIGHT - 2))
        right, bottom = draw(st.integers(x + 2, WIDTH)), draw(st.integers(y + 2, HEIGHT))
        found.append((draw(st.sampled_from(CLASSES)), x, y, right, bottom))
    return list(dict.fromkeys(found))  # an object that is stated again is dropped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parsers")
    trees.picture(root / "1.png", (WIDTH, HEIGHT))
    return root


@given(told=things(), difficult=st.sampled_from([0, 1, None]))
def test_boxes_of_voc_are_read_back(
    folder: Path, told: list[tuple[str, int, int, int, int]], difficult: int
) -> None:
    counted_from_one = [(name, x + 1, y + 1, right, bottom) for name, x, y, right, bottom in told]
    path = trees.xml(folder / "1.xml", counted_from_one, (WIDTH, HEIGHT), difficult)
    with remarks.recording() as recorded:
        found = read_annotation(path, folder / "1.png", CLASSES)
    assert found.xyxy.tolist() == [[*box] for _, *box in told]
    assert [CLASSES[i] for i in found.labels] == [name for name, *_ in told]
    assert found.difficult.tolist() == [bool(difficult)] * len(told)
    assert recorded == []


@given(told=things(), crowd=st.booleans())
def test_boxes_of_coco_are_read_back(
    folder: Path, told: list[tuple[str, int, int, int, int]], crowd: bool
) -> None:
    boxes = [
        {
            "id": i,
            "image_id": 1,
            "category_id": 10 * (1 + CLASSES.index(name)),
            "bbox": [x, y, right - x, bottom - y],
            "iscrowd": int(crowd),
        }
        for i, (name, x, y, right, bottom) in enumerate(told)
    ]
    images = [{"id": 1, "file_name": "1.png", "width": WIDTH, "height": HEIGHT}]
    file = trees.coco(folder / f"{abs(hash(str(boxes)))}.json", images, boxes, CLASSES)
    domain = coco_domain("mine", images=folder, annotations=file)
    assert domain.label is not None
    found = domain.label(folder / "1.png")
    file.unlink()
    assert found.xyxy.tolist() == [[*box] for _, *box in told]
    assert found.difficult.tolist() == [crowd] * len(told)


@given(
    values=st.lists(st.sampled_from([0, 1, 2, 255]), min_size=12, max_size=12),
    mode=st.sampled_from(["L", "P", "I;16"]),
)
def test_masks_are_read_back_from_every_form(folder: Path, values: list[int], mode: str) -> None:
    ids = np.array(values, np.uint16 if mode == "I;16" else np.uint8).reshape(3, 4)
    image = Image.fromarray(ids)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(folder / "m.png")
    assert read_mask(folder / "m.png", LabelSpace("segmentation", CLASSES)).ravel().tolist() == values


@given(name=st.text(max_size=12), known=st.sampled_from(CLASSES), mark=st.sampled_from(["", " ", "_", "-"]))
def test_spelling_is_settled_once_and_for_all(name: str, known: str, mark: str) -> None:
    assert canonical(canonical(name)) == canonical(name)
    spelled = mark.join(known).upper()
    assert CLASSES[class_id(spelled, CLASSES, "here")] == known


_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)


@given(value=_PLAIN)
def test_plain_values_survive_yaml(value: object) -> None:
    with io.StringIO() as text:
        yaml.safe_dump(value, text, allow_unicode=True)
        assert parse_value(text.getvalue(), "here") == value
