"""Labels move with their images: boxes as masks of them would, masks as pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tadp_da.errors import DataError
from tadp_da.tasks import tasks
from tadp_da.tasks.labels.boxes import BoxLabel
from tadp_da.types import Boxes, LabelSpace

LABELS = LabelSpace("detection", ("car", "person", "tree"))
MASKS = LabelSpace("segmentation", ("car", "person", "tree"))
DEPTH = LabelSpace("depth", (), range=(0.001, 10.0))


def boxes(*rows: tuple[float, ...], labels: tuple[int, ...] = ()) -> Boxes:
    return Boxes(
        np.array(rows, np.float32).reshape(-1, 4),
        np.array(labels or (0,) * len(rows), np.int64),
        np.zeros(len(rows), bool),
    )


def annotation(label: Boxes, size: tuple[int, int] = (64, 64)) -> BoxLabel:
    return BoxLabel.checked(label, size, LABELS, "here")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_boxes_move_as_masks_of_them_would(seed: int) -> None:
    """Crops, mirror images, padding and whole enlargements: the box of the moved pixels is the moved box."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(12, 40, 2))
    x, y = int(rng.integers(width - 4)), int(rng.integers(height - 4))
    w, h = int(rng.integers(2, width - x + 1)), int(rng.integers(2, height - y + 1))
    moved = annotation(boxes((x, y, x + w, y + h)), (height, width))
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + h, x : x + w] = 1
    for step in rng.permutation(4):
        rows, columns = mask.shape
        if step == 0:
            moved, mask = moved.flip(), mask[:, ::-1]
        elif step == 1:
            moved, mask = moved.pad((rows + 3, columns + 5)), np.pad(mask, ((0, 3), (0, 5)))
        elif step == 2:
            moved, mask = moved.resize((2 * rows, 3 * columns)), mask.repeat(2, 0).repeat(3, 1)
        else:
            top, left = int(rng.integers(rows // 2)), int(rng.integers(columns // 2))
            size = rows // 2, columns // 2
            moved = moved.crop(top, left, size)
            mask = mask[top : top + size[0], left : left + size[1]]
        assert moved.size == mask.shape
    inside = np.argwhere(mask)
    expected = [[*inside.min(0)[::-1], *(inside.max(0)[::-1] + 1)]] if len(inside) else []
    assert moved.tensors()["boxes"].tolist() == expected


def test_a_crop_says_how_much_of_an_object_is_left() -> None:
    label = annotation(boxes((0, 0, 20, 20), (10, 0, 30, 20), (40, 40, 50, 50), labels=(0, 1, 2)))
    kept = label.crop(0, 16, (40, 40)).tensors()
    assert kept["labels"].tolist() == [0, 1], "an object outside is left out"
    assert kept["boxes"].tolist() == [[0, 0, 4, 20], [0, 0, 14, 20]]
    assert kept["visible"].tolist() == pytest.approx([0.2, 0.7])
    again = label.crop(0, 16, (40, 40)).resize((80, 80)).crop(0, 0, (20, 80)).tensors()
    assert again["visible"].tolist() == pytest.approx([0.1, 0.35])


def test_boxes_are_cut_off_at_the_border() -> None:
    assert annotation(boxes((-5, 10, 30, 99))).tensors()["boxes"].tolist() == [[0, 10, 30, 64]]


def test_an_image_without_objects_is_not_blank() -> None:
    empty = annotation(boxes())
    assert not empty.blank
    assert empty.flip().crop(2, 3, (9, 9)).resize((18, 18)).tensors()["boxes"].shape == (0, 4)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (70, 5, 90, 9), (0, 0, np.inf, 4), (-9, 0, -2, 8)])
def test_boxes_that_are_none_are_refused_with_their_place(box: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="drop such boxes") as caught:
        annotation(boxes((1, 1, 9, 9), box))
    assert caught.value.where == "here"


def test_masks_are_not_boxes() -> None:
    with pytest.raises(DataError, match="choose a domain with boxes"):
        tasks["detection"].label(np.zeros((64, 64), np.uint8), (64, 64), LABELS, where="x")


def test_a_mask_is_padded_with_the_ignored_id_and_knows_its_shares() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[:, 4:] = 2
    label = tasks["segmentation"].label(mask, (4, 6), MASKS, where="x")
    assert label.dominance() == pytest.approx(2 / 3)
    grown = label.pad((6, 8))
    assert (grown.tensors()[4:] == 255).all()
    assert (grown.tensors()[:, 6:] == 255).all()
    assert grown.dominance() == label.dominance()
    assert label.flip().tensors()[:, :2].unique().tolist() == [2]
    assert grown.crop(4, 0, (2, 8)).blank
    assert grown.crop(4, 0, (2, 8)).dominance() == 1.0
    assert not grown.blank


def test_boxes_may_have_more_classes_than_masks_have_values() -> None:
    """LVIS has 1203; only masks are bound to 8 bits. Ids of 255 and more were not drawn, or ended the run."""
    many = LabelSpace("detection", tuple(f"class {i}" for i in range(300)))
    label, task = boxes((1, 1, 9, 9), (20, 1, 30, 9), labels=(299, 255)), tasks["detection"]
    drawn = np.asarray(task.render(Image.new("RGB", (40, 30)), label, many, 1.0))
    assert drawn[1, 1].any()
    assert drawn[1, 20].any()
    shared = task.shared(many, LabelSpace("detection", many.classes[250:]))
    assert shared.convert(label).labels.tolist() == [49, 5]
    assert len(shared.labels.classes) == 50


def test_a_depth_map_moves_as_its_pixels_and_keeps_its_metres() -> None:
    metres = np.array([[1, 2, 3], [0, 5, 20]], np.float32)
    label: Any = tasks["depth"].label(metres, (2, 3), DEPTH, where="x")
    assert label.tensors().tolist() == [[1, 2, 3], [0, 5, 0]], "20 m is out of the range"
    assert label.flip().tensors().tolist() == [[3, 2, 1], [0, 5, 0]]
    assert label.crop(0, 1, (2, 2)).tensors().tolist() == [[2, 3], [5, 0]]
    assert label.pad((3, 4)).tensors()[2].tolist() == [0] * 4
    large = label.resize((4, 9))
    assert large.tensors().tolist() == [[1] * 3 + [2] * 3 + [3] * 3] * 2 + [[0] * 3 + [5] * 3 + [0] * 3] * 2
    assert large.painted()[0].tolist() == [26] * 3 + [51] * 3 + [76] * 3
    assert label.without(label.tensors() > 2).tensors().tolist() == [[1, 2, 0], [0, 0, 0]]
    assert label.crop(1, 0, (1, 1)).blank


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_what_is_no_depth_is_refused_with_its_place(value: float) -> None:
    with pytest.raises(DataError, match="negative or not finite") as caught:
        tasks["depth"].label(np.full((2, 2), value, np.float32), (2, 2), DEPTH, where="here")
    assert caught.value.where == "here"


def test_depth_is_drawn_in_colours_with_a_scale_and_unknown_pixels_show_the_image() -> None:
    image = Image.new("RGB", (240, 120), (7, 7, 7))
    depth = np.zeros((120, 240), np.float32)
    depth[:40, :120], depth[:40, 120:] = 0.5, 9.5
    drawn = np.asarray(tasks["depth"].render(image, depth, DEPTH, 1.0)).astype(int)
    near, far, unknown = drawn[10, 10], drawn[10, 200], drawn[60, 60]
    assert near[0] > near[2], "red"
    assert far[2] > far[0], "blue"
    assert unknown.tolist() == [7, 7, 7]
    assert len(np.unique(drawn[111], axis=0)) > 100, "a scale"
