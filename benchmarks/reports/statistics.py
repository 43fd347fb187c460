"""Rows of a table over seeds: mean, spread, and the paired difference from one row with a confidence interval.

Two runs at one seed share their data order, noise and head initialization, so differences are taken seed by seed; the
interval is Student's over these differences. Three seeds make wide intervals: that is the point.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.evaluate import Evaluation, Report
from tadp_da.errors import UsageError
from tadp_da.registry import nearest
from tadp_da.types import Side

Verdict = Literal["baseline", "helps", "hurts", "no clear difference", "too few seeds"]
LEVEL = 0.95
BASELINE = "null"
"""The row that others are compared with, where a table has it."""


@dataclass(frozen=True)
class Spread:
    """Values over seeds: ``std`` is the sample standard deviation, None for a single seed."""

    values: Mapping[int, float]
    mean: float
    std: float | None


@dataclass(frozen=True)
class Difference:
    """Paired difference from the baseline over the seeds that both have; ``low`` and ``high`` bound the interval."""

    values: Mapping[int, float]
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: the row, e.g. a caption strategy.
        target: main figure on the target's test images, None where no seed has one.
        source: main figure on the source's test images, likewise.
        difference: from the baseline on the target; None for the baseline and where no seed is shared.
        verdict: what the interval says.
        classes: mean per class on the target; None where the class is absent at every seed.
        measures: means of other figures on the target that the score gives beside the main one, likewise.
        notes: what the score says of them.
    """

    name: str
    target: Spread | None
    source: Spread | None
    difference: Difference | None
    verdict: Verdict
    classes: Mapping[str, float | None]
    measures: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A table.

    Attributes:
        title: what is compared.
        metric: name of the figures, in %.
        baseline: name of the row that others are compared with.
        rows: in the order given.
    """

    title: str
    metric: str
    baseline: str
    rows: tuple[Row, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return next((tuple(row.classes) for row in self.rows if row.classes), ())

    def conclusion(self) -> str:
        """What the table says in two or three sentences, also when it says nothing."""
        said = []
        for verdict, words in (("helps", "better than"), ("hurts", "worse than")):
            found = [row for row in self.rows if row.verdict == verdict]
            if found:
                names = ", ".join(
                    f"{row.name} ({row.difference.mean:+.1f})" for row in found if row.difference is not None
                )
                said.append(f"{words.capitalize()} {self.baseline} on the target: {names}.")
        compared = sum(row.verdict in ("helps", "hurts", "no clear difference") for row in self.rows)
        if said and compared > 1:
            chance = (1 - LEVEL) * compared
            said.append(
                f"Of {compared} rows without any effect about {chance:.1f} would stand there by chance."
            )
        if open_ := [row.name for row in self.rows if row.verdict == "no clear difference"]:
            said.append(f"No clear difference from {self.baseline}: {', '.join(open_)}.")
        if few := [row.name for row in self.rows if row.verdict == "too few seeds"]:
            said.append(f"Too few seeds for a verdict: {', '.join(few)}; run at least two, better five.")
        return " ".join(said) or "There is nothing to compare yet."


def compare(
    reports: Mapping[str, Mapping[int, Report]], *, baseline: str = BASELINE, title: str = "comparison"
) -> Comparison:
    """Compare rows over seeds.

    Args:
        reports: row name to seed to report, in table order; rows may have different seeds, only shared ones are paired.
        baseline: the row that others are compared with.
        title: what is compared.

    Raises:
        UsageError: when the baseline is no row, no row has a score, or rows were scored by different metrics.
    """
    if baseline not in reports:
        raise UsageError(
            f"the baseline {baseline!r} is no row{nearest(baseline, list(reports))}",
            fix=f"choose one of: {', '.join(reports)}",
        )
    metrics = sorted({e.metric for seeds in reports.values() for r in seeds.values() for e in _both(r)})
    if len(metrics) != 1:
        raise UsageError(
            f"rows were scored by {', '.join(metrics) or 'nothing'}, expected one metric",
            fix="compare runs of one task that have labelled test images",
        )
    base = _values(reports[baseline], "target")
    rows = []
    for name, seeds in reports.items():
        target = _values(seeds, "target")
        scored = [r.target for r in seeds.values() if r.target is not None]
        measured = [e.details.get("measures", {}) for e in scored]
        paired = None if name == baseline else _difference(target, base)
        rows.append(
            Row(
                name=name,
                target=_spread(target),
                source=_spread(_values(seeds, "source")),
                difference=paired,
                verdict="baseline" if name == baseline else _verdict(paired),
                classes=_means([e.classes for e in scored], scored[0].labels.classes if scored else ()),
                measures=_means(measured, tuple(measured[0]) if scored else ()),
                notes=tuple(dict.fromkeys(note for e in scored for note in e.details.get("notes", ()))),
            )
        )
    return Comparison(title=title, metric=metrics[0], baseline=baseline, rows=tuple(rows))


def baseline_of(rows: Iterable[str]) -> str:
    """The row that others are compared with when nobody chooses one: ``"null"``, or else the first; ``rows`` are not
    none."""
    names = tuple(rows)
    return BASELINE if BASELINE in names else names[0]


def student_t(degrees: int, level: float = LEVEL) -> float:
    """The t that |T| stays below with probability ``level``, for a Student variable of ``degrees`` degrees of freedom.

    For whole degrees the distribution is a finite sum (Abramowitz and Stegun, 26.7.3, 26.7.4), inverted by bisection.
    """
    if degrees < 1 or not 0 < level < 1:
        raise ValueError(f"no such quantile: {degrees} degrees of freedom, level {level}")
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _inside(angle: float, degrees: int) -> float:
    """P(|T| < sqrt(degrees) * tan(angle))."""
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for step in range(2 + odd, degrees + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (step - 1) / step
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


def _both(report: Report) -> list[Evaluation]:
    return [e for e in (report.source, report.target) if e is not None]


def _values(seeds: Mapping[int, Report], side: Side) -> dict[int, float]:
    found = {seed: getattr(report, side) for seed, report in sorted(seeds.items())}
    return {seed: e.main for seed, e in found.items() if e is not None and e.main is not None}


def _spread(values: Mapping[int, float]) -> Spread | None:
    if not values:
        return None
    numbers = list(values.values())
    return Spread(values, statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None)


def _difference(values: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    shared = {seed: value - base[seed] for seed, value in values.items() if seed in base}
    spread = _spread(shared)
    if spread is None:
        return None
    if spread.std is None:
        return Difference(shared, spread.mean, None, None)
    half = student_t(len(shared) - 1) * spread.std / math.sqrt(len(shared))
    return Difference(shared, spread.mean, spread.mean - half, spread.mean + half)


def _verdict(paired: Difference | None) -> Verdict:
    if paired is None or paired.low is None or paired.high is None:
        return "too few seeds"
    if paired.low > 0:
        return "helps"
    return "hurts" if paired.high < 0 else "no clear difference"


def _means(tables: Sequence[Mapping[str, float | None]], names: Sequence[str]) -> dict[str, float | None]:
    """Mean of each figure over the seeds that have it."""
    means: dict[str, float | None] = {}
    for name in names:
        present = [v for table in tables if (v := table.get(name)) is not None]
        means[name] = statistics.fmean(present) if present else None
    return means
