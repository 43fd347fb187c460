"""Scores without labels against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.selection.predictions import BINS, Predictions
from benchmarks.selection.scores import (
    boxes,
    estimated_accuracy,
    fuse,
    information,
    masks,
    overlap,
    stability,
)
from tadp_da.types import Detections, LabelSpace

THINGS = LabelSpace("detection", ("car", "dog"))


def mask(*ids: int) -> np.ndarray:
    return np.array([ids], np.uint8)


def said(plain: np.ndarray, jittered: np.ndarray | None = None) -> Predictions:
    return Predictions(plain=[plain], jittered=[plain if jittered is None else jittered])


def found(*objects: tuple[float, ...], label: int = 0) -> Detections:
    """Objects as left, top, right, bottom, score."""
    table = np.array(objects, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], np.full(len(table), label, np.int64), table[:, 4])


def test_rows_of_masks_agree_with_themselves_their_seeds_and_the_others() -> None:
    table = {
        "a": {0: said(mask(0, 0, 1, 1), mask(0, 1, 1, 1)), 1: said(mask(0, 0, 1, 0))},
        "b": {0: said(mask(0, 0, 1, 1))},
        "c": {0: said(mask(0, 0, 0, 0))},
    }
    score = masks(table, 3)
    # class 0: 1 of 2, class 1: 2 of 3; the second seed is stable
    assert score["a"]["jitter"] == pytest.approx((100 * (1 / 2 + 2 / 3) / 2 + 100) / 2)
    # class 0: 2 of 3, class 1: 1 of 2
    assert score["a"]["seeds"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert score["b"]["seeds"] is None
    # against c, two seeds of a have the weight of one b: 0 0 1 (1: b alone and half of a)
    assert score["c"]["committee"] == pytest.approx(100 * (2 / 4 + 0) / 2)
    # against a, b and c are at odds in the last two pixels: the lower class
    assert score["a"]["committee"] == pytest.approx((100 * (2 / 4 + 0) / 2 + 100 * (3 / 4 + 0) / 2) / 2)


def test_a_row_has_the_weight_of_another_however_many_seeds_it_has() -> None:
    many = {seed: said(mask(1, 1)) for seed in range(5)}
    table = {"many": many, "b": {0: said(mask(0, 0))}, "c": {0: said(mask(0, 0))}, "d": {0: said(mask(0, 0))}}
    assert masks(table, 2)["d"]["committee"] == 100.0
    assert masks({"alone": many}, 2)["alone"]["committee"] is None


def test_information_is_at_most_zero_and_falls_with_doubt_and_with_other_class_shares() -> None:
    sure = Predictions(plain=[], shares=np.array([0.5, 0.5]), entropy=0.0)
    assert information(sure, [30, 30]) == pytest.approx(0.0)
    doubtful = Predictions(plain=[], shares=np.array([0.5, 0.5]), entropy=0.3)
    assert information(doubtful, [30, 30]) == pytest.approx(-0.3)
    expected = -(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))
    assert information(sure, [10, 30]) == pytest.approx(expected)
    assert information(sure, None) is None


def test_accuracy_is_the_share_above_the_confidence_that_the_right_share_of_the_source_exceeds() -> None:
    def confidence(shares: dict[int, float]) -> Predictions:
        values = np.zeros(BINS)
        values[list(shares)] = list(shares.values())
        return Predictions(plain=[], confidence=values)

    source = confidence({500: 0.2, 800: 0.3, 990: 0.5})
    assert estimated_accuracy(confidence({400: 0.6, 900: 0.4}), source, 80.0) == pytest.approx(40.0)
    assert estimated_accuracy(confidence({400: 0.6, 800: 0.4}), source, 50.0) == pytest.approx(0.0)
    assert estimated_accuracy(confidence({400: 1.0}), source, None) is None


def test_overlaps() -> None:
    one = np.array([[0, 0, 10, 10]])
    other = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]])
    assert overlap(one, other).tolist() == [[1.0, pytest.approx(50 / 150), 0.0, 0.0]]
    assert overlap(one, np.zeros((0, 4))).shape == (1, 0)


def test_boxes_of_the_committee_are_fused_where_half_of_its_weight_agrees() -> None:
    third = 1 / 3
    votes = [
        (found((0, 0, 10, 10, 0.9), (50, 50, 60, 60, 0.9)), third),
        (found((1, 0, 11, 10, 0.6), (80, 80, 90, 90, 0.4)), third),
        (found((0, 0, 10, 10, 0.9), label=1), third),
    ]
    fused = fuse(votes)
    # the mean of two boxes by their scores; what one of three finds, or another class there, is no object
    assert fused.xyxy.tolist() == [[pytest.approx(0.6 / 1.5), 0, pytest.approx(10 + 0.6 / 1.5), 10]]
    assert fused.labels.tolist() == [0]
    assert len(fuse([(found(), 1.0)])) == 0


def test_a_detector_votes_once_for_an_object() -> None:
    twice = found((0, 0, 10, 10, 0.9), (0, 0, 10, 9, 0.8))
    assert len(fuse([(twice, 0.25), (found(), 0.75)])) == 0


def test_detections_are_scored_against_the_committee_of_the_others() -> None:
    good = found((0, 0, 10, 10, 0.9))
    table = {
        "a": {0: Predictions(plain=[good], jittered=[good])},
        "b": {0: Predictions(plain=[good], jittered=[found((0, 0, 10, 5, 0.9))])},
        "c": {0: Predictions(plain=[found((40, 40, 50, 50, 0.9))], jittered=[found()])},
    }
    score = boxes(table, THINGS)
    # against a: b's box and c's, both of half the weight; 11 points: precision 1 up to recall 0.5
    assert score["a"]["committee"] == pytest.approx(100 * 6 / 11)
    assert score["c"]["committee"] == 0.0
    assert [score[row]["jitter"] for row in "abc"] == [100.0, 50.0, 0.0]


def test_stable_boxes_are_matched_one_to_one_within_a_class() -> None:
    one = found((0, 0, 10, 10, 0.9), (20, 0, 30, 10, 0.8), (70, 0, 80, 10, 0.1))
    assert stability(one, one) == 100.0
    assert stability(one, found((20, 0, 30, 10, 0.9))) == 50.0
    assert stability(one, found((0, 0, 10, 10, 0.9), label=1)) == 0.0
    assert stability(found(), found((0, 0, 9, 9, 0.2))) is None


def test_equal_votes_are_equal_however_they_come_about() -> None:
    """Thirds that are added and taken away again leave a rest of 1e-17."""
    thirds = {0: said(mask(0)), 1: said(mask(1)), 2: said(mask(2))}
    table = {"a": thirds, "b": {0: said(mask(1))}, "c": {0: said(mask(0))}, "d": thirds}
    # against the others of b: a third each and one more of class 0; of c: one more of class 1
    assert masks(table, 3)["b"]["committee"] == 0.0
    even = {f"row {i}": thirds for i in range(7)} | {"last": {0: said(mask(0))}}
    assert masks(even, 3)["last"]["committee"] == 100.0, "the lower class of three equal ones"
