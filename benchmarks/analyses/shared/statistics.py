"""Statistics of analyses: correlations with their uncertainty, and how well a map finds a region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reports.intervals import LEVEL, Spread, spread

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation ``r`` of ``n`` pairs with its 95 % bootstrap interval; None where it has none."""

    r: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def clear(self) -> bool:
        """Whether the interval lacks zero."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high

    def __str__(self) -> str:
        if self.r is None:
            return f"none (n = {self.n})"
        bounds = "" if self.low is None else f" ({self.low:+.2f} to {self.high:+.2f})"
        return f"{self.r:+.2f}{bounds}, n = {self.n}"


def mean_interval(values: Sequence[float]) -> Spread | None:
    """Mean with Student's 95 % interval over independent values, such as those of images."""
    return spread({i: float(v) for i, v in enumerate(values) if np.isfinite(v)})


def told(found: Spread | None, scale: float = 1.0, *, sign: str = "+") -> str:
    """A mean with its interval in words; ``sign`` is that of format specifications."""
    if found is None:
        return "none"

    def number(value: float) -> str:
        return format(scale * value, f"{sign}.2f")

    if found.low is None or found.high is None:
        return number(found.mean)
    return f"{number(found.mean)} ({number(found.low)} to {number(found.high)})"


def correlate(
    x: Sequence[float],
    y: Sequence[float],
    without: Sequence[float] | None = None,
    groups: Sequence[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = 500,
) -> Correlation:
    """Rank correlation of pairs, with what a third variable explains taken out of both.

    Args:
        x, y: pairs; those with a number that is not finite are left out.
        without: the third variable (partial rank correlation).
        groups: pairs of one group, such as an image, are drawn together for the interval.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    columns = [np.asarray(v, float) for v in (x, y, *([] if without is None else [without]))]
    whole = np.isfinite(np.stack(columns)).all(0)
    table = np.stack(columns)[:, whole]
    names = np.asarray(range(len(whole)) if groups is None else list(map(str, groups)))[whole]
    r = _partial(table)
    _, of = np.unique(names, return_inverse=True)
    members = [np.flatnonzero(of == g) for g in range(of.max() + 1)] if len(of) else []
    if r is None or len(members) < 4:
        return Correlation(r, None, None, table.shape[1])
    rng = np.random.default_rng(seed)
    drawn = (np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
             for _ in range(resamples))  # fmt: skip
    found = [value for rows in drawn if (value := _partial(table[:, rows])) is not None]
    if len(found) < resamples / 2:
        return Correlation(r, None, None, table.shape[1])
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Correlation(r, float(low), float(high), table.shape[1])


def _partial(table: Numbers) -> float | None:
    """Correlation of the ranks of the first two rows, those of the third one taken out where there is one."""
    from scipy.stats import rankdata

    if table.shape[1] < 4 or (np.ptp(table, axis=1) == 0)[:2].any():
        return None
    ranks = rankdata(table, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    if len(ranks) == 3 and ranks[2].any():
        ranks[:2] -= (ranks[:2] @ ranks[2] / (ranks[2] @ ranks[2]))[:, None] * ranks[2]
    size = float(np.linalg.norm(ranks[0]) * np.linalg.norm(ranks[1]))
    return float(ranks[0] @ ranks[1]) / size if size > 1e-9 else None


def permuted_names(
    rise: Numbers, distance: Numbers, *, seed: int = 0, permutations: int = 2000
) -> tuple[float | None, float | None]:
    """Rank correlation of two matrices over their pairs of names, and the two-sided p-value of the null hypothesis that
    it does not matter which name is which (Mantel, 1967).

    Args:
        rise: ``(k, k)``, NaN for pairs without a value; its diagonal does not count.
        distance: ``(k, k)`` between names; rows and columns are permuted alike.
        seed: of the permutations.
        permutations: how many.
    """
    known = np.isfinite(rise) & ~np.eye(len(rise), dtype=bool)

    def r(order: Any) -> float | None:
        return _partial(np.stack([rise[known], distance[np.ix_(order, order)][known]]))

    found = r(np.arange(len(rise)))
    if found is None:
        return None, None
    rng = np.random.default_rng(seed)
    null = [abs(v) for _ in range(permutations) if (v := r(rng.permutation(len(rise)))) is not None]
    return found, (1 + sum(v >= abs(found) - 1e-12 for v in null)) / (1 + len(null))


def auroc(values: Numbers, inside: NDArray[np.bool_]) -> float | None:
    """Probability that a pixel inside has a higher value than one outside, ties counting half; None where there are no
    pixels of one kind."""
    from scipy.stats import rankdata

    first = int(inside.sum())
    last = inside.size - first
    if not first or not last:
        return None
    total = float(rankdata(values.ravel())[inside.ravel()].sum())
    return (total - first * (first + 1) / 2) / (first * last)


def average_precision(values: Numbers, inside: NDArray[np.bool_]) -> float | None:
    """Area under precision over recall of the pixels above every threshold; None where no pixel is inside."""
    order = np.argsort(-values.ravel(), kind="stable")
    ordered, hits = values.ravel()[order], inside.ravel()[order].cumsum()
    if not len(hits) or not hits[-1]:
        return None
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of equal values
    gained = np.diff(hits[ends], prepend=0)
    return float((gained * hits[ends] / (ends + 1)).sum() / hits[-1])


def mass_ratio(values: Numbers, inside: NDArray[np.bool_]) -> float | None:
    """Share of a map's mass that is inside, over the share of the area: 1 for a map that ignores the region."""
    total = float(values.sum())
    if not inside.any() or total <= 0:
        return None
    return float(values[inside].sum()) / total / float(inside.mean())
