"""mIoU against a short reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassJaccardIndex

from tadp_da.domains import domains
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


@pytest.mark.parametrize(("name", "images"), [("ade20k", 3), ("voc-segmentation-aug", 5)])
def test_scores_of_ade20k_and_voc_are_those_of_torchmetrics(name: str, images: int) -> None:
    """Its counts over all images: a class that is nowhere is left out, an ignored pixel counts nowhere."""
    labels, rng = domains[name].labels, np.random.default_rng(len(name))
    assert labels is not None
    classes = len(labels.classes)
    score = MeanIoU(labels)
    theirs = MulticlassJaccardIndex(classes, average="none", ignore_index=labels.ignore)
    for _ in range(images):
        truth = rng.integers(0, classes, (12, 17)).astype(np.uint8)
        prediction = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes, truth.shape))
        truth[(truth == 5) | (rng.random(truth.shape) < 0.1)] = labels.ignore
        prediction[prediction == 5] = 6
        score.update(prediction.astype(np.uint8), truth)
        theirs.update(torch.from_numpy(prediction), torch.from_numpy(truth.astype(np.int64)))
    expected = 100 * theirs.compute().double().numpy()
    counted = theirs.confmat.sum(0) + theirs.confmat.sum(1) > 0
    main = score.compute()[0]
    assert main.value == pytest.approx(expected[counted].mean(), abs=1e-4)
    confusion = theirs.confmat.double().numpy()
    exact = np.diag(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diag(confusion)).clip(1)
    assert main.value == pytest.approx(100 * exact[counted.numpy()].mean(), abs=1e-6)
    assert main.per_class[labels.classes[5]] is None
    assert not counted[5]
