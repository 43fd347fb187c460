"""One number over seeds: mean, spread and Student's interval; a paired difference with its test and verdicts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["baseline", "helps", "hurts", "no clear difference", "too few seeds"]
CLEAR = {"helps": "Better", "hurts": "Worse"}
LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """Values by seed: ``std`` is the sample standard deviation, ``low`` and ``high`` bound Student's interval of the
    mean; None for a single seed."""

    values: Mapping[int, float]
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """How a row differs from another, over the seeds that both have.

    Attributes:
        spread: of the main measure; None where no seed is shared.
        verdict: what its interval says.
        p: two-sided p-value of the paired t-test, None below two seeds.
        p_holm: the same corrected for the number of rows that are compared with the same one (Holm, 1979).
        corrected: the verdict after the correction.
        classes: mean difference per class; None for a class that one of both lacks.
    """

    spread: Spread | None
    verdict: Verdict
    p: float | None = None
    p_holm: float | None = None
    corrected: Verdict = "too few seeds"
    classes: Mapping[str, float | None] = field(default_factory=dict)


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """P-values corrected for their number, step down (Holm, 1979): the k-th smallest of m times m - k + 1, and none
    below a smaller one's."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(values, key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[name]))
        corrected[name] = largest
    return corrected


def spread(values: Mapping[int, float]) -> Spread | None:
    """Of values by seed; None for none."""
    if not values:
        return None
    numbers = list(values.values())
    mean = statistics.fmean(numbers)
    if len(numbers) == 1:
        return Spread(values, mean)
    from scipy.stats import t

    std = statistics.stdev(numbers)
    half = float(t.ppf((1 + LEVEL) / 2, len(numbers) - 1)) * std / math.sqrt(len(numbers))
    return Spread(values, mean, std, mean - half, mean + half)


def verdict(paired: Spread | None, *, higher: bool) -> Verdict:
    """What the interval of a difference says where higher, or lower, values are better."""
    if paired is None or paired.low is None or paired.high is None:
        return "too few seeds"
    if paired.low <= 0 <= paired.high:
        return "no clear difference"
    return "helps" if (paired.low > 0) is higher else "hurts"


def p_value(paired: Spread | None) -> float | None:
    """Of the paired t-test, two-sided."""
    if paired is None or paired.std is None:
        return None
    if paired.std == 0:
        return 0.0 if paired.mean else 1.0
    from scipy.stats import t

    count = len(paired.values)
    return 2 * float(t.sf(abs(paired.mean) / paired.std * math.sqrt(count), count - 1))
