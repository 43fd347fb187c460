"""The statistics: Student's interval over paired seeds, and verdicts that follow from it alone."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.reports.intervals import holm
from benchmarks.reports.statistics import compare, without_classes
from benchmarks.results import Report
from tadp_da.errors import UsageError
from tests.benchmarks.scored import evaluation, report, row

NULL = {0: 46.0, 1: 44.0, 2: 45.0}


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng, hits, times = np.random.default_rng(0), 0, 500
    for _ in range(times):
        values = rng.normal(1.5, 2.0, size=4)
        found = compare({"null": row(dict.fromkeys(range(4), 0.0)), "x": row(dict(enumerate(values)))}).rows[
            1
        ]
        assert found.difference is not None
        hits += found.difference.low <= 1.5 <= found.difference.high
    assert hits / times == pytest.approx(0.95, abs=0.02)


def test_differences_are_paired_by_seed() -> None:
    """Seeds that differ by much do not hide a gain that every seed shows."""
    null = {0: 20.0, 1: 50.0, 2: 80.0}
    gained = {seed: value + 1 + 0.1 * seed for seed, value in null.items()}
    base, better = compare({"null": row(null), "better": row(gained)}).rows
    assert base.verdict == "baseline"
    assert base.difference is None
    assert better.difference is not None
    assert better.difference.mean == pytest.approx(1.1)
    assert better.difference.high - better.difference.low == pytest.approx(
        2 * 4.3027 * 0.1 / math.sqrt(3), abs=1e-3
    )
    assert better.verdict == "helps"
    assert better.primary is not None
    assert better.primary.std == pytest.approx(statistics.stdev(gained.values()))


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((2.0, 2.1, 1.9), "helps"),
        ((-2.0, -2.1, -1.9), "hurts"),
        ((3.0, -1.0, 1.0), "no clear difference"),
        ((0.0, 0.0, 0.0), "no clear difference"),
        ((4.0, 2.0), "no clear difference"),
        ((9.0,), "too few seeds"),
        ((), "too few seeds"),
    ],
)
def test_verdicts_follow_from_the_interval(gains: tuple[float, ...], verdict: str) -> None:
    scores = {seed: NULL[seed] + gain for seed, gain in enumerate(gains)}
    found = compare({"null": row(NULL), "x": row(scores)}).rows[1]
    assert found.verdict == verdict


def test_only_shared_seeds_are_paired() -> None:
    found = compare({"null": row(NULL), "x": row({1: 47.0, 2: 48.0, 7: 99.0})}).rows[1]
    assert found.difference is not None
    assert found.difference.values == {1: 3.0, 2: 3.0}
    assert found.primary is not None
    assert sorted(found.primary.values) == [1, 2, 7]


def test_rows_do_not_depend_on_each_other_or_on_their_order() -> None:
    rows = {"null": row(NULL), "a": row({0: 50.0, 1: 49.0, 2: 48.0}), "b": row({0: 10.0, 1: 11.0, 2: 12.5})}
    forth, back = compare(rows), compare(dict(reversed(rows.items())))
    assert forth.rows == back.rows[::-1]


def test_classes_absent_everywhere_stay_absent_and_others_are_averaged() -> None:
    scores = [
        {"sky": 80.0, "road": None, "car": 10.0, "tree": None},
        {"sky": 90.0, "road": None, "car": None, "tree": 0.0},
    ]
    reports = {s: report(target=evaluation(50.0, c)) for s, c in enumerate(scores)}
    found = compare({"null": reports}).rows[0]
    assert found.classes == {"sky": 85.0, "road": None, "car": 10.0, "tree": 0.0}
    assert found.source is None


def test_a_target_without_labels_leaves_the_source_scores() -> None:
    reports = {0: report(source=evaluation(70.0))}
    comparison = compare({"null": reports, "x": reports})
    assert [r.primary for r in comparison.rows] == [None, None]
    assert comparison.rows[1].verdict == "too few seeds"
    assert comparison.rows[0].source is not None


def test_the_conclusion_says_what_helps_what_hurts_and_what_does_not_matter() -> None:
    said = compare(
        {
            "null": row(NULL),
            "up": row({0: 48.0, 1: 46.1, 2: 46.9}),
            "down": row({0: 44.0, 1: 42.05, 2: 42.95}),
            "same": row({0: 45.0, 1: 45.0, 2: 45.0}),
            "once": row({0: 60.0}),
        }
    ).conclusion()
    assert "Better than null on the target: up (+2.0)" in said
    assert "Worse than null on the target: down (-2.0)" in said
    assert "Corrected for 3 rows (Holm): up, down." in said
    assert "No clear difference from null: same." in said
    assert "Too few seeds for a verdict: once" in said
    assert compare({"null": row(NULL)}).conclusion() == "There is nothing to compare yet."


def test_what_cannot_be_compared_is_refused_with_advice() -> None:
    with pytest.raises(UsageError, match="did you mean 'null'") as caught:
        compare({"null": row(NULL)}, baseline="nul")
    assert "choose one of: null" in caught.value.fix
    with pytest.raises(UsageError, match="no scores to compare") as caught:
        compare({"null": {}})
    assert "labelled test images" in caught.value.fix


def single(values: Mapping[int, float], **measure: Any) -> dict[int, Report]:
    """Reports of a benchmark with a single domain."""
    return {seed: report(test=evaluation(value, {}, **measure)) for seed, value in values.items()}


def test_where_lower_is_better_a_fall_helps() -> None:
    error = {"name": "RMSE", "unit": "m", "higher_is_better": False}
    null = {0: 4.0, 1: 5.0, 2: 6.0}
    fallen, risen = ({s: v + d + 0.01 * s for s, v in null.items()} for d in (-1, 1))
    found = compare(
        {"null": single(null, **error), "a": single(fallen, **error), "b": single(risen, **error)}
    )
    assert [row.verdict for row in found.rows] == ["baseline", "helps", "hurts"]
    assert (found.evaluation, found.metric, found.unit) == ("test", "RMSE", "m")
    assert "Better than null on the test images: a (-0.990)" in found.conclusion()


def test_a_single_domain_is_not_compared_with_source_and_target() -> None:
    with pytest.raises(UsageError, match="one kind of test images"):
        compare({"null": row(NULL), "x": single(NULL)})
    with pytest.raises(UsageError, match="one measure"):
        compare({"null": row(NULL), "x": {0: report(target=evaluation(1.0, name="RMSE"))}})


@pytest.mark.parametrize(
    ("values", "corrected"),
    [
        ({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}, {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}),
        ({"a": 0.6, "b": 0.7}, {"a": 1.0, "b": 1.0}),
        ({"a": 0.02}, {"a": 0.02}),
        ({}, {}),
    ],
)
def test_holm_steps_down_from_the_smallest(values: dict[str, float], corrected: dict[str, float]) -> None:
    """By hand: 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 that may not be below 0.06."""
    assert holm(values) == pytest.approx(corrected)


def test_a_verdict_may_not_survive_the_number_of_rows() -> None:
    """Gains of 2, 2.5 and 3 have t = 8.66 with 2 degrees of freedom, p = 0.013; among ten rows that is 0.13."""
    gains = {"x": (2.0, 2.5, 3.0)} | {f"n{i}": (1.0, -1.0, 0.5) for i in range(9)}
    rows = {"null": row(NULL)} | {
        name: row({s: NULL[s] + g for s, g in enumerate(gain)}) for name, gain in gains.items()
    }
    alone = compare({name: rows[name] for name in ("null", "x")}).rows[1].against
    among = compare(rows).rows[1].against
    assert alone is not None
    assert among is not None
    assert alone.p == among.p == pytest.approx(0.01307, abs=1e-4)
    assert (alone.p_holm, among.p_holm) == (alone.p, pytest.approx(10 * alone.p))
    assert (alone.verdict, alone.corrected) == ("helps", "helps")
    assert (among.verdict, among.corrected) == ("helps", "no clear difference")
    assert "Corrected for 10 rows (Holm): none of them." in compare(rows).conclusion()


def seen(values: Mapping[int, float], sees: bool | None) -> dict[int, Report]:
    return {s: dataclasses.replace(r, sees_target=sees) for s, r in row(values).items()}


def test_rows_are_compared_with_the_strongest_that_sees_no_target_image_too() -> None:
    rows = {
        "null": seen(NULL, sees=False),
        "strong": seen({0: 50.0, 1: 48.0, 2: 49.0}, sees=False),
        "unknown": seen({0: 70.0, 1: 70.0, 2: 70.0}, sees=None),
        "dreambooth": seen({0: 52.0, 1: 50.1, 2: 50.9}, sees=True),
    }
    found = compare(rows)
    assert found.blind == "strong"
    null, strong, _, dreambooth = found.rows
    assert strong.against_blind is None
    assert null.against_blind is not None
    assert null.against_blind.spread is not None
    assert null.against_blind.spread.mean == pytest.approx(-4.0)
    assert dreambooth.against_blind is not None
    assert dreambooth.against_blind.spread is not None
    assert dreambooth.against_blind.spread.mean == pytest.approx(2.0)
    assert dreambooth.against_blind.classes == pytest.approx(
        dict.fromkeys(("sky", "road", "car", "tree"), 2.0)
    )
    assert "Better than strong on the target:" in found.conclusion()
    del rows["strong"]
    assert compare(rows).blind is None, "null is the strongest, and already the baseline"
    assert compare(rows, baseline="dreambooth").blind == "null"


def test_a_class_can_be_left_out_of_the_measure() -> None:
    scores = [
        {"sky": 10.0, "road": 50.0, "car": 30.0, "tree": None},
        {"sky": 90.0, "road": 48.0, "car": 34.0, "tree": None},
    ]
    rows = {
        name: {0: report(source=evaluation(40.0), target=evaluation(0.0, c))}
        for name, c in zip(("null", "x"), scores, strict=True)
    }
    found = compare(without_classes(rows, ["sky"]))
    assert found.metric == "mIoU without sky"
    (changed,) = without_classes({"x": rows["x"]}, ["sky"])["x"].values()
    assert changed.evaluations["target"].per_image == {}, "of all classes together, and no score of these"
    assert [r.primary.mean for r in found.rows if r.primary] == [40.0, 41.0]
    assert found.classes == ("road", "car", "tree")
    assert found.rows[1].against is not None
    assert found.rows[1].against.classes == {"road": -2.0, "car": 4.0, "tree": None}
    with pytest.raises(UsageError, match="no class 'sly', did you mean 'sky'"):
        without_classes(rows, ["sly"])
    with pytest.raises(UsageError, match="no class is left"):
        without_classes(rows, ["sky", "road", "car", "tree"])
