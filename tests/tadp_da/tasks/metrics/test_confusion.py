"""mIoU against a short reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tadp_da.errors import DataError
from tadp_da.tasks.metrics.confusion import MeanIoU
from tadp_da.types import LabelSpace

FIVE = LabelSpace("segmentation", ("a", "b", "c", "d", "e"))


def reference(
    predictions: list[np.ndarray], truths: list[np.ndarray], ignore: int = 255
) -> tuple[float, dict[int, float]]:
    """Mean IoU and IoU per class in %, the short way."""
    prediction, truth = (
        np.concatenate([d.ravel() for d in predictions]),
        np.concatenate([t.ravel() for t in truths]),
    )
    prediction, truth = prediction[truth != ignore], truth[truth != ignore]
    iou = {}
    for k in range(5):
        union = ((prediction == k) | (truth == k)).sum()
        if union:
            iou[k] = 100 * ((prediction == k) & (truth == k)).sum() / union
    return float(np.mean(list(iou.values()))), iou


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), used=st.integers(1, 5), images=st.integers(1, 4))
def test_score_agrees_with_the_reference(seed: int, used: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    predictions, truths, score = [], [], MeanIoU(FIVE)
    for _ in range(images):
        size = tuple(rng.integers(2, 12, 2))
        predictions.append(rng.integers(0, used, size).astype(np.uint8))
        truths.append(rng.integers(0, used, size).astype(np.uint8))
        truths[-1][rng.random(size) < 0.3] = 255
        truths[-1][0, 0] = 0
        score.update(predictions[-1], truths[-1])
    main, (mean, iou) = score.compute()[0], reference(predictions, truths)
    assert (main.name, main.unit, main.higher_is_better) == ("mIoU", "%", True)
    assert main.value == pytest.approx(mean)
    assert main.per_class == {n: pytest.approx(iou[k]) if k in iou else None for k, n in enumerate("abcde")}


def test_absent_classes_are_none_and_do_not_count() -> None:
    score = MeanIoU(FIVE)
    score.update(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 0]]))
    main, accuracy = score.compute()
    assert main.per_class == {"a": pytest.approx(200 / 3), "b": 50, "c": None, "d": None, "e": None}
    assert main.value == pytest.approx((200 / 3 + 50) / 2)
    assert (accuracy.name, accuracy.value) == ("pixel accuracy", 75)
    assert score.details()["confusion"][0][:2] == [2, 1]


def test_shuffled_predictions_score_chance() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (300, 300))
    score = MeanIoU(FIVE)
    score.update(rng.permutation(truth.ravel()).reshape(truth.shape), truth)
    # five classes of equal share p: intersection p^2, union 2p - p^2
    assert score.compute()[0].value == pytest.approx(100 * 0.2 / 1.8, abs=0.5)


def test_nothing_labelled_is_an_error_that_says_so() -> None:
    score = MeanIoU(FIVE)
    score.update(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8))
    with pytest.raises(DataError, match="give labels that use other ids than ignore"):
        score.compute()


def test_other_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="predict at the label's own resolution"):
        MeanIoU(FIVE).update(np.zeros((4, 4), np.uint8), np.zeros((8, 8), np.uint8))
