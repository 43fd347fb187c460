"""Statistics of analyses against what they must be, and the drawing of figures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.analyses.shared.statistics import (
    Correlation,
    auroc,
    average_precision,
    correlate,
    mass_ratio,
    mean_interval,
    permuted_names,
)

RNG = np.random.default_rng(0)
MASK = RNG.random((9, 14)) < 0.3


def test_a_map_that_is_the_mask_finds_it_and_a_flat_one_finds_nothing() -> None:
    mask = MASK.astype(float)
    assert auroc(mask, MASK) == average_precision(mask, MASK) == 1
    assert mass_ratio(mask, MASK) == pytest.approx(1 / MASK.mean())
    assert auroc(-mask, MASK) == 0
    flat = np.ones(MASK.shape)
    assert auroc(flat, MASK) == 0.5
    assert mass_ratio(flat, MASK) == pytest.approx(1)
    assert average_precision(flat, MASK) == pytest.approx(MASK.mean())


def test_measures_of_a_map_agree_with_their_definitions() -> None:
    values = np.round(RNG.random(MASK.shape), 1)  # with ties
    inside, outside = values[MASK], values[~MASK]
    pairs = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
    assert auroc(values, MASK) == pytest.approx(pairs.mean())
    area, before = 0.0, 0.0
    for threshold in np.unique(values)[::-1]:
        recall = (inside >= threshold).mean()
        area += (recall - before) * MASK[values >= threshold].mean()
        before = recall
    assert average_precision(values, MASK) == pytest.approx(area)


def test_regions_without_pixels_have_no_measure() -> None:
    nowhere = np.zeros(MASK.shape, bool)
    values = RNG.random(MASK.shape)
    assert auroc(values, nowhere) is auroc(values, ~nowhere) is average_precision(values, nowhere) is None
    assert mass_ratio(values, nowhere) is mass_ratio(np.zeros(MASK.shape), MASK) is None


def bounds(found: Correlation) -> tuple[float, tuple[float, float]]:
    assert found.r is not None
    assert found.low is not None
    assert found.high is not None
    return found.r, (found.low, found.high)


def test_a_partial_correlation_takes_the_third_variable_out() -> None:
    z = RNG.normal(size=200)
    x, y = z + 0.3 * RNG.normal(size=200), z + 0.3 * RNG.normal(size=200)
    plain, (low, high) = bounds(correlate(x.tolist(), y.tolist(), resamples=200))
    assert plain == pytest.approx(spearmanr(x, y).statistic)
    assert 0.7 < low < plain < high
    partial, (low, high) = bounds(correlate(x.tolist(), y.tolist(), z.tolist(), resamples=200))
    assert abs(partial) < 0.25
    assert low < 0 < high
    assert correlate(x.tolist(), [1.0] * 200).r is None
    assert correlate([1.0, float("nan"), 2.0], [1.0, 1.0, 2.0]).n == 2


def test_intervals_are_wider_where_pairs_come_in_groups() -> None:
    x, y = np.repeat(RNG.normal(size=(2, 20)), 20, axis=1) + 1e-3 * RNG.normal(size=(2, 400))
    groups = np.repeat(range(20), 20).tolist()
    _, (low, high) = bounds(correlate(x.tolist(), y.tolist(), resamples=200))
    _, (lowest, highest) = bounds(correlate(x.tolist(), y.tolist(), groups=groups, resamples=200))
    assert highest - lowest > 2 * (high - low)


def test_permuted_names_are_the_null_of_a_relation_between_matrices() -> None:
    places = RNG.random((8, 2))
    distance = np.linalg.norm(places[:, None] - places, axis=-1)
    r, p = permuted_names(-distance, distance, permutations=300)
    assert r == pytest.approx(-1)
    assert (p or 0) < 0.02
    _, nothing = permuted_names(RNG.random((8, 8)), distance, permutations=300)
    assert (nothing or 0) > 0.05
    assert permuted_names(np.full((8, 8), np.nan), distance) == (None, None)


def test_means_leave_out_what_is_not_a_number() -> None:
    found = mean_interval([1.0, float("nan"), 3.0])
    assert found is not None
    assert found.mean == 2
    assert mean_interval([]) is None
