"""Average precision by hand, by law, by a second implementation in the development kit's own terms, and by COCO's."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tadp_da.errors import DataError, UsageError
from tadp_da.tasks.metrics.average_precision import NO_COCO, AveragePrecision
from tadp_da.tasks.metrics.voc_ap import Curve, match, overlap
from tadp_da.types import Boxes, Detections, LabelSpace

TWO = LabelSpace("detection", ("car", "dog"))
BOX = (10, 10, 20, 20)
NEAR = (10, 10, 20, 18)  # overlaps BOX by 0.8
FAR = (60, 60, 70, 70)


def truth(*rows: tuple[Any, ...]) -> Boxes:
    """Rows of (box, class id) or (box, class id, difficult)."""
    return Boxes(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int64),
        np.array([len(r) > 2 and r[2] for r in rows], bool),
    )


def found(*rows: tuple[Any, ...]) -> Detections:
    """Rows of (box, class id, score)."""
    return Detections(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.float32),
    )


def metric_of(
    pairs: list[tuple[Detections, Boxes]], labels: LabelSpace = TWO, **settings: Any
) -> AveragePrecision:
    metric = AveragePrecision(labels, **({"coco": False} | settings))
    for prediction, label in pairs:
        metric.update(prediction, label)
    return metric


def scored(
    pairs: list[tuple[Detections, Boxes]], labels: LabelSpace = TWO, **settings: Any
) -> dict[str, float | None]:
    """Values by name of the measure."""
    return {m.name: m.value for m in metric_of(pairs, labels, **settings).compute()}


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


# -- by law and by others


def random_pairs(seed: int, images: int = 6, ties: bool = True) -> list[tuple[Detections, Boxes]]:
    """Objects, and finds that jitter around them, with doubles, misses, false alarms, ties and difficult objects."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        count = int(rng.integers(0, 5))
        corners = rng.integers(0, 60, (count, 2))
        boxes = np.concatenate([corners, corners + rng.integers(4, 40, (count, 2))], axis=1)
        label = Boxes(boxes.astype(np.float32), rng.integers(0, 2, count), rng.random(count) < 0.25)
        copies = np.repeat(np.arange(count), rng.integers(0, 3, count))
        shift = rng.integers(-4, 5, (len(copies), 4))
        near = boxes[copies] + shift
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        noise = rng.integers(0, 60, (int(rng.integers(0, 3)), 2))
        finds = np.concatenate([near, np.concatenate([noise, noise + 15], axis=1)])
        classes = np.concatenate([label.labels[copies], rng.integers(0, 2, len(noise))])
        scores = (
            rng.integers(1, 6, len(finds)) / 6
            if ties
            else rng.permutation(97)[: len(finds)] / 97 + rng.random() / 200
        )
        pairs.append(
            (Detections(finds.astype(np.float32), classes.astype(np.int64), scores.astype(np.float32)), label)
        )
    return [*pairs, (found(), truth((BOX, 0), (BOX, 1)))]


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


def test_nothing_found_is_zero_and_perfect_is_a_hundred_in_all_three() -> None:
    pairs = random_pairs(5)
    assert set(scored([(found(), t) for _, t in pairs], coco=True).values()) == {0.0}
    perfect = [(Detections(t.xyxy, t.labels, np.ones(len(t), np.float32)), t) for _, t in pairs]
    assert list(scored(perfect, coco=True).values()) == pytest.approx([100.0] * 6)
    shuffled = [(d, t) for (d, _), (_, t) in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    assert all(v is not None and v < 25 for v in scored(shuffled, coco=True).values())


def pycocotools(pairs: list[tuple[Detections, Boxes]]) -> tuple[float, float]:
    """AP and AP50 by COCO's own code."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def sides(box: list[float]) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations, results = [], []
    for number, (decision, label) in enumerate(pairs):
        for box, k, d in zip(
            label.xyxy.tolist(), label.labels.tolist(), label.difficult.tolist(), strict=True
        ):
            x, y, w, h = sides(box)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": k, "bbox": [x, y, w, h]}
                | {"area": w * h, "iscrowd": int(d)}
            )
        results += [
            {"image_id": number, "category_id": k, "bbox": sides(box), "score": score}
            for box, k, score in zip(
                decision.xyxy.tolist(), decision.labels.tolist(), decision.scores.tolist(), strict=True
            )
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(pairs))],
            "categories": [{"id": 0}, {"id": 1}],
            "annotations": annotations,
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return 100 * judge.stats[0], 100 * judge.stats[1]


@pytest.mark.parametrize("seed", range(6))
def test_coco_numbers_are_cocos_own(seed: int) -> None:
    pairs = random_pairs(seed, ties=False)
    result = scored(pairs, coco=True)
    assert (result["AP (COCO)"], result["AP50 (COCO)"]) == pytest.approx(pycocotools(pairs))


def test_without_the_package_coco_is_absent_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "faster_coco_eval" else real(name, *a)
    )
    metric = metric_of([(found((BOX, 0, 0.5)), truth((BOX, 0)))], coco=True)
    values = {m.name: m.value for m in metric.compute()}
    assert (values["AP50 (VOC07)"], values["AP50 (COCO)"], values["AP (COCO)"]) == (100, None, None)
    assert metric.notes() == (NO_COCO,)
    assert "tadp-da[det]" in NO_COCO
