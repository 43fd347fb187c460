"""Average precision by hand, by law, and by a second implementation in the development kit's own terms."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tadp_da.errors import DataError, UsageError
from tadp_da.tasks.detection import Detection
from tadp_da.tasks.metrics.average_precision import AveragePrecision
from tadp_da.tasks.metrics.voc_ap import Curve, match, overlap
from tadp_da.types import Boxes, Detections, LabelSpace
from tests.tadp_da.tasks.metrics.scored import (
    BOX,
    FAR,
    NEAR,
    TWO,
    found,
    metric_of,
    random_pairs,
    scored,
    truth,
)


def ap50(pairs: list[tuple[Detections, Boxes]], kind: str = "VOC07") -> float:
    value = scored(pairs)[f"AP50 ({kind})"]
    assert value is not None
    return value


# -- by hand


@pytest.mark.parametrize(
    ("hits", "objects", "eleven", "area"),
    [
        ([1, 1], 2, 1.0, 1.0),
        ([], 2, 0.0, 0.0),
        ([0, 0], 1, 0.0, 0.0),
        ([0, 1], 1, 0.5, 0.5),
        # half of the objects at full precision: recalls 0 to 0.5 are 6 of 11 points, and half of the area
        ([1], 2, 6 / 11, 0.5),
        # precision 1, 1/2, 2/3 at recalls 1/2, 1/2, 1: six points of 1, five of 2/3
        ([1, 0, 1], 2, (6 + 5 * 2 / 3) / 11, (1 + 2 / 3) / 2),
        # three of ten objects is a recall of 0.3: four points, though 3 / 10 < 0.1 * 3 in floating point
        ([1, 1, 1], 10, 4 / 11, 0.3),
        # precision may rise again: what counts is the best at this recall or beyond
        ([0, 0, 1, 1, 1, 1], 4, 4 / 6, 4 / 6),
    ],
)
def test_curves_worked_by_hand(hits: list[int], objects: int, eleven: float, area: float) -> None:
    curve = Curve(np.array(hits, bool), objects)
    assert curve.eleven_points() == pytest.approx(eleven)
    assert curve.area() == pytest.approx(area)


def test_without_an_object_there_is_no_precision() -> None:
    assert Curve(np.zeros(3, bool), 0).eleven_points() is None
    assert Curve(np.zeros(0, bool), 0).area() is None


def test_overlap_counts_pixels_as_the_development_kit_does() -> None:
    """Columns 0 to 9 and 5 to 14, one row: five shared pixels of fifteen."""
    assert overlap(np.array([[0, 0, 10, 1]]), np.array([[5, 0, 15, 1]])) == pytest.approx(5 / 15)
    assert overlap(np.array([[0, 0, 1, 1]]), np.array([[1, 0, 2, 1]])) == 0, "neighbours share no pixel"


def test_an_overlap_of_exactly_a_half_is_a_hit() -> None:
    assert ap50([(found(((0, 0, 10, 10), 0, 0.9)), truth(((0, 0, 10, 20), 0)))]) == 100


def test_the_second_find_of_an_object_is_false() -> None:
    twice = found((NEAR, 0, 0.9), (BOX, 0, 0.8))
    assert ap50([(twice, truth((BOX, 0), (FAR, 0)))], "VOC10") == pytest.approx(50)
    first_false = found((FAR, 0, 0.9), (BOX, 0, 0.8))
    assert ap50([(first_false, truth((BOX, 0)))], "VOC10") == pytest.approx(50)


def test_a_find_counts_for_the_object_it_overlaps_most_even_if_that_is_taken() -> None:
    """The kit does not look for the second best object: the weaker find of the left one is false."""
    left, right = (0, 0, 10, 10), (4, 0, 14, 10)
    between = (1, 0, 11, 10)  # 9 of 11 with the left one, 7 of 13 with the right one: both over a half
    pairs = [(found((left, 0, 0.9), (between, 0, 0.8)), truth((left, 0), (right, 0)))]
    assert ap50(pairs, "VOC10") == pytest.approx(50)


def test_difficult_objects_are_neither_missed_nor_found() -> None:
    label = truth((BOX, 0), (FAR, 0, True))
    assert ap50([(found((BOX, 0, 0.5)), label)]) == 100, "not finding it costs nothing"
    both = found((FAR, 0, 0.9), (FAR, 0, 0.8), (BOX, 0, 0.5))
    assert ap50([(both, label)]) == 100, "finding it, even twice, is no false alarm"
    with pytest.raises(DataError, match="not all difficult"):
        scored([(both, truth((FAR, 0, True)))])


def test_equal_scores_keep_the_order_of_images_and_of_finds() -> None:
    good, bad = (found((BOX, 0, 0.5)), truth((BOX, 0))), (found((FAR, 0, 0.5)), truth())
    assert ap50([good, bad], "VOC10") == 100
    assert ap50([bad, good], "VOC10") == pytest.approx(50)
    assert ap50([(found((BOX, 0, 0.5), (FAR, 0, 0.5)), truth((BOX, 0)))]) == 100


def test_classes_never_meet_and_an_absent_one_is_not_averaged() -> None:
    metric = metric_of([(found((BOX, 1, 0.9)), truth((BOX, 0)))])
    main = metric.compute()[0]
    assert (main.name, main.value, main.unit, main.higher_is_better) == ("AP50 (VOC07)", 0.0, "%", True)
    assert main.per_class == {"car": 0.0, "dog": None}
    assert metric.details() == {"objects": 1}


def test_an_image_without_objects_counts() -> None:
    good = (found((BOX, 0, 0.5)), truth((BOX, 0)))
    assert ap50([good, (found((BOX, 0, 0.9)), truth())], "VOC10") == pytest.approx(50)
    assert ap50([good, (found(), truth((BOX, 0)))], "VOC10") == pytest.approx(50)


def test_the_mean_over_overlaps() -> None:
    """An overlap of 0.8 is a hit at 0.5, ..., 0.8: seven of ten."""
    result = scored([(found((NEAR, 0, 0.9)), truth((BOX, 0)))])
    assert result["AP (VOC10)"] == pytest.approx(70)
    assert result["AP50 (VOC07)"] == 100


def test_six_of_twenty_classes_finds_of_others_are_dropped() -> None:
    all_of_them = LabelSpace("detection", ("sofa", "dog", "car"))
    pairs = [(found((BOX, 2, 0.5), (FAR, 0, 0.9), (NEAR, 1, 0.7)), truth((BOX, 0)))]
    main = metric_of(pairs, predicted=all_of_them).compute()[0]
    assert main.per_class == {"car": 100.0, "dog": None}
    with pytest.raises(UsageError, match="does not predict dog") as caught:
        AveragePrecision(TWO, LabelSpace("detection", ("car",)))
    assert "with these classes" in caught.value.fix


def test_one_image_alone() -> None:
    score = AveragePrecision(TWO, coco=False)
    assert score.per_image(found((BOX, 0, 0.5)), truth((BOX, 0), (FAR, 1))) == pytest.approx(50)
    assert score.per_image(found((BOX, 0, 0.5)), truth((BOX, 0, True))) is None
    assert score.per_image(found(), truth()) is None


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (0, 0, np.nan, 4)])
def test_boxes_that_are_none_are_refused(box: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="drop such boxes"):
        AveragePrecision(TWO).update(found(), truth((box, 0)))


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    "find",
    [
        ((0, 0, INF, 9), 0, 0.5),
        ((0, 0, 9, NAN), 0, 0.5),
        ((9, 0, 0, 9), 0, 0.5),
        (BOX, 0, NAN),
        (BOX, 0, INF),
        (BOX, 2, 1),
    ],
)
def test_detections_that_are_none_are_refused_where_they_enter(find: tuple[Any, ...]) -> None:
    """An infinite box doubled COCO's AP50, and a score of NaN was a bare ValueError."""
    metric = AveragePrecision(TWO)
    for enter in (metric.update, metric.per_image):
        with pytest.raises(DataError, match="a detection has the box") as caught:
            enter(found((BOX, 1, 0.9), find), truth((BOX, 0)))
        assert caught.value.where == "image 0 of this metric"
        assert "lower learning rate" in caught.value.fix


@pytest.mark.parametrize(
    "row", ['[0, 0, Infinity, 9], "score": 1', '[0, 0, 9, 9], "score": NaN', '[0, 9, 9], "score": 1']
)
def test_a_file_of_detections_that_are_none_is_refused(row: str, tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text(f'[{{"class": "car", "xyxy": {row}}}]')
    with pytest.raises(DataError, match="detection") as caught:
        Detection().read(tmp_path / "1.json", TWO)
    assert caught.value.where == str(tmp_path / "1.json")


# -- by law and by others


def devkit(
    pairs: list[tuple[Detections, Boxes]], label: int, threshold: float
) -> tuple[list[float], list[float]]:
    """Recall and precision after every detection, as the kit's manual tells it: in inclusive pixels, one by one."""
    lines = [
        (float(score), number, x1, y1, x2 - 1, y2 - 1)
        for number, (decision, _) in enumerate(pairs)
        for (x1, y1, x2, y2), score, k in zip(
            decision.xyxy.tolist(), decision.scores, decision.labels, strict=True
        )
        if k == label
    ]
    lines.sort(key=lambda line: -line[0])  # a stable sort
    objects = [
        [
            {"box": (x1, y1, x2 - 1, y2 - 1), "difficult": bool(d), "taken": False}
            for (x1, y1, x2, y2), k, d in zip(t.xyxy.tolist(), t.labels, t.difficult, strict=True)
            if k == label
        ]
        for _, t in pairs
    ]
    wanted = sum(not o["difficult"] for image in objects for o in image)
    true, false, recall, precision = 0, 0, [], []
    for _, number, *box in lines:
        best, chosen = -np.inf, None
        for candidate in objects[number]:
            other = candidate["box"]
            width = min(box[2], other[2]) - max(box[0], other[0]) + 1
            height = min(box[3], other[3]) - max(box[1], other[1]) + 1
            if width <= 0 or height <= 0:
                continue
            area = sum((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)) - width * height
            if width * height / area > best:
                best, chosen = width * height / area, candidate
        if chosen is not None and best >= threshold:
            if chosen["difficult"]:
                pass
            elif chosen["taken"]:
                false += 1
            else:
                chosen["taken"], true = True, true + 1
        else:
            false += 1
        if true + false:
            recall.append(true / wanted)
            precision.append(true / (true + false))
    return recall, precision


def kit_2007(recall: list[float], precision: list[float]) -> float:
    best = [
        max((p for r, p in zip(recall, precision, strict=True) if r >= k / 10 - 1e-9), default=0)
        for k in range(11)
    ]
    return 100 * sum(best) / 11


def kit_2010(recall: list[float], precision: list[float]) -> float:
    r, p = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(p) - 2, -1, -1):
        p[i] = max(p[i], p[i + 1])
    return 100 * sum((r[i] - r[i - 1]) * p[i] for i in range(1, len(r)))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), threshold=st.sampled_from([0.5, 0.65, 0.75, 0.9]))
def test_it_agrees_with_the_kit_in_its_own_terms(seed: int, threshold: float) -> None:
    pairs = random_pairs(seed)
    for label in range(2):
        curve = match([d for d, _ in pairs], [t for _, t in pairs], label).at(threshold)
        recall, precision = devkit(pairs, label, threshold)
        assert 100 * (curve.eleven_points() or 0) == pytest.approx(kit_2007(recall, precision))
        assert 100 * (curve.area() or 0) == pytest.approx(kit_2010(recall, precision))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_laws(seed: int) -> None:
    pairs = random_pairs(seed)
    plain = scored(pairs)
    monotone = [(dataclasses.replace(d, scores=d.scores**3 / 2), t) for d, t in pairs]
    assert scored(monotone) == plain, "only the order of scores counts"
    grown = [
        (dataclasses.replace(d, xyxy=d.xyxy * 4), dataclasses.replace(t, xyxy=t.xyxy * 4)) for d, t in pairs
    ]
    assert scored(grown) == plain, "the size of the picture does not count"
    worse = [*pairs, (found((BOX, 0, 1.0), (BOX, 1, 1.0)), truth())]
    assert scored(worse)["AP50 (VOC10)"] <= plain["AP50 (VOC10)"]
    late = [*pairs, (found((BOX, 0, 0.0), (BOX, 1, 0.0)), truth())]
    assert scored(late) == plain, "a false alarm behind everything costs nothing"
    assert all(
        0 <= plain[f"AP ({k})"] <= plain[f"AP50 ({k})"] + 1e-9 <= 100 + 1e-6 for k in ("VOC07", "VOC10")
    )
    perfect = [(Detections(t.xyxy, t.labels, np.ones(len(t), np.float32)), t) for _, t in pairs]
    assert set(scored(perfect).values()) == {100.0, None}, "COCO is not asked for"
