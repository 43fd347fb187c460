"""Errors of depth against a plain loop over pixels, written from the benchmark's definition (Eigen et al., 2014; the
evaluation of BTS, which VPD and TADP use)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tadp_da.errors import DataError, UsageError
from tadp_da.tasks import tasks
from tadp_da.tasks.metrics.depth_errors import MEASURES, DepthErrors
from tadp_da.types import LabelSpace

TEN = LabelSpace("depth", (), range=(0.001, 10.0))


def loop(
    prediction: np.ndarray, truth: np.ndarray, low: float = 0.001, high: float = 10.0
) -> dict[str, float]:
    """The measures of one image, pixel by pixel."""
    sums, count = dict.fromkeys(("sq", "abs", "sqrel", "log", "log2", "log10", "d1", "d2", "d3"), 0.0), 0
    for row in range(truth.shape[0]):
        for column in range(truth.shape[1]):
            t, p = float(truth[row, column]), float(prediction[row, column])
            if not low < t < high:
                continue
            p, count = min(max(p, low), high), count + 1
            sums["sq"] += (t - p) ** 2
            sums["abs"] += abs(t - p) / t
            sums["sqrel"] += (t - p) ** 2 / t
            sums["log"] += math.log(p) - math.log(t)
            sums["log2"] += (math.log(t) - math.log(p)) ** 2
            sums["log10"] += abs(math.log10(t) - math.log10(p))
            for k in (1, 2, 3):
                sums[f"d{k}"] += max(t / p, p / t) < 1.25**k
    mean = {name: total / count for name, total in sums.items()}
    return {
        "RMSE": math.sqrt(mean["sq"]),
        "AbsRel": mean["abs"],
        "SqRel": mean["sqrel"],
        "log10": mean["log10"],
        "RMSE log": math.sqrt(mean["log2"]),
        "SILog": math.sqrt(mean["log2"] - 0.5 * mean["log"] ** 2),
        **{f"delta {k}": mean[f"d{k}"] for k in (1, 2, 3)},
    }


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), images=st.integers(1, 4))
def test_every_measure_agrees_with_a_loop_over_pixels(seed: int, images: int) -> None:
    rng, metric, each = np.random.default_rng(seed), DepthErrors(TEN), []
    for _ in range(images):
        size = tuple(rng.integers(2, 9, 2))
        truth = rng.uniform(0.2, 12, size).astype(np.float32)  # some beyond the range
        truth[rng.random(size) < 0.2] = 0
        truth[0, 0] = 3
        prediction = (truth * rng.lognormal(0, 0.4, size) + rng.uniform(0, 0.2)).astype(np.float32)
        metric.update(prediction, truth)
        each.append(loop(prediction, truth))
        assert metric.per_image(prediction, truth) == pytest.approx(each[-1]["RMSE"], abs=1e-6)
    for measure in metric.compute():
        assert measure.value == pytest.approx(np.mean([found[measure.name] for found in each]), abs=1e-6)
        assert (measure.unit, measure.higher_is_better) == MEASURES[measure.name]


def test_the_mean_is_over_images_and_not_over_pixels() -> None:
    """A large image counts as much as a small one."""
    metric = DepthErrors(TEN)
    for side, wrong in ((2, 1.0), (20, 3.0)):
        truth = np.full((side, side), 2, np.float32)
        metric.update(truth + np.float32(wrong), truth)
    main, *_ = metric.compute()
    assert (main.name, main.unit, main.higher_is_better) == ("RMSE", "m", False)
    assert main.value == pytest.approx(2)


def test_predictions_are_clipped_to_the_range_and_images_without_depth_do_not_count() -> None:
    metric, truth = DepthErrors(TEN), np.array([[9.0, 0.0, 12.0]], np.float32)
    metric.update(np.array([[50.0, 1.0, 1.0]], np.float32), truth)
    metric.update(np.array([[50.0, 1.0, 1.0]], np.float32), np.zeros((1, 3), np.float32))
    assert metric.compute()[0].value == pytest.approx(1)
    assert metric.per_image(truth, 0 * truth) is None
    assert metric.details() == {"pixels": 1}
    assert "in metres" in metric.notes()[0]


@pytest.mark.parametrize(
    ("prediction", "truth", "what"),
    [
        ([[1.0]], [[1.0, 2.0]], "of size"),
        ([[np.nan]], [[1.0]], "a prediction is not finite"),
        ([[1.0]], [[-2.0]], "a depth map holds -2"),
    ],
)
def test_what_cannot_be_scored_is_refused(prediction: object, truth: object, what: str) -> None:
    with pytest.raises(DataError, match=what):
        DepthErrors(TEN).update(np.array(prediction, np.float32), np.array(truth, np.float32))
    with pytest.raises(DataError, match="nothing to score") as caught:
        DepthErrors(TEN).compute()
    assert "check the unit" in caught.value.fix


def test_labels_of_another_range_are_scored_where_both_know_depths() -> None:
    far, near = LabelSpace("depth", (), range=(1.0, 80.0)), LabelSpace("depth", (), range=(20.0, 80.0))
    shared = tasks["depth"].shared(far, TEN)
    assert shared.labels.range == (1.0, 10.0)
    assert "between 1 and 10 m" in shared.left_out
    assert tasks["depth"].shared(TEN, TEN).left_out == ""
    with pytest.raises(UsageError, match="no range in common"):
        tasks["depth"].shared(near, TEN)
    with pytest.raises(UsageError, match="depth is expected"):
        DepthErrors(LabelSpace("depth", ()))
