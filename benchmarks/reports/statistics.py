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

from benchmarks.results import Report
from tadp_da.errors import UsageError
from tadp_da.registry import nearest

Verdict = Literal["baseline", "helps", "hurts", "no clear difference", "too few seeds"]
_CLEAR = {"helps": "Better", "hurts": "Worse"}
LEVEL = 0.95
BASELINE = "null"
"""The row that others are compared with, where a table has it."""


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
class ComparedRow:
    """One row of the table.

    Attributes:
        name: the row, e.g. a caption strategy.
        primary: main measure on the test images that rows are compared by, None where no seed has one.
        source: main measure on the source's test images, None where no seed has one.
        difference: of ``primary`` from the baseline, over the seeds that both have; None for the baseline and where no
            seed is shared.
        verdict: what the interval says.
        classes: mean per class; None where the class is absent at every seed.
        measures: means of the further measures by name; None where no seed has one.
        notes: of the evaluations.
    """

    name: str
    primary: Spread | None
    source: Spread | None
    difference: Spread | None
    verdict: Verdict
    classes: Mapping[str, float | None]
    measures: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A table.

    Attributes:
        title: what is compared.
        evaluation: name of the evaluation that rows are compared by: ``"target"``, or ``"test"`` for a single domain.
        metric: name of the main measure.
        unit: its unit.
        higher_is_better: its direction.
        baseline: name of the row that others are compared with.
        rows: in the order given.
    """

    title: str
    evaluation: str
    metric: str
    unit: str
    higher_is_better: bool
    baseline: str
    rows: tuple[ComparedRow, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return next((tuple(row.classes) for row in self.rows if row.classes), ())

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the further measures."""
        return next((tuple(row.measures) for row in self.rows if row.measures), ())

    def conclusion(self) -> str:
        """The verdicts in two or three sentences."""
        where = "on the target" if self.evaluation == "target" else "on the test images"
        names: dict[str, list[str]] = {}
        for row in self.rows:
            gain = f" ({row.difference.mean:+.1f})" if row.verdict in _CLEAR and row.difference else ""
            names.setdefault(row.verdict, []).append(row.name + gain)
        sentences = [
            f"{word} than {self.baseline} {where}: {', '.join(names[verdict])}."
            for verdict, word in _CLEAR.items()
            if verdict in names
        ]
        compared = sum(len(names.get(verdict, ())) for verdict in (*_CLEAR, "no clear difference"))
        if sentences and compared > 1:
            chance = (1 - LEVEL) * compared
            sentences.append(
                f"Of {compared} rows without any effect about {chance:.1f} would be listed there by chance."
            )
        if "no clear difference" in names:
            sentences.append(
                f"No clear difference from {self.baseline}: {', '.join(names['no clear difference'])}."
            )
        if "too few seeds" in names:
            few = ", ".join(names["too few seeds"])
            sentences.append(f"Too few seeds for a verdict: {few}; run at least two, better five.")
        return " ".join(sentences) or "There is nothing to compare yet."


def compare(
    reports: Mapping[str, Mapping[int, Report]], *, baseline: str = BASELINE, title: str = "comparison"
) -> Comparison:
    """Compare rows over seeds.

    Args:
        reports: row name to seed to report, in table order; rows may have different seeds, only shared ones are paired.
        baseline: the row that others are compared with.
        title: what is compared.

    Raises:
        UsageError: when the baseline is not a row, no row has a measure, or rows have different measures.
    """
    if baseline not in reports:
        raise UsageError(
            f"the baseline {baseline!r} is not a row{nearest(baseline, list(reports))}",
            fix=f"choose one of: {', '.join(reports)}",
        )
    every = [report for seeds in reports.values() for report in seeds.values()]
    mains = [e.main for report in every for e in report.evaluations.values()]
    kinds = {(m.name, m.unit, m.higher_is_better) for m in mains}
    names = {report.primary_name for report in every}
    if len(kinds) != 1 or len(names) != 1:
        raise UsageError(
            f"rows were evaluated by {', '.join(sorted({m.name for m in mains})) or 'nothing'} on "
            f"{' and '.join(sorted(names))} images, expected one measure on one kind of test images",
            fix="compare runs of one task that have labelled test images",
        )
    ((metric, unit, higher),), (evaluation,) = kinds, names
    base = _values(reports[baseline], evaluation)
    rows = (
        _row(name, seeds, evaluation, None if name == baseline else base, higher=higher)
        for name, seeds in reports.items()
    )
    return Comparison(title, evaluation, metric, unit, higher, baseline, tuple(rows))


def _row(
    name: str, seeds: Mapping[int, Report], evaluation: str, base: Mapping[int, float] | None, *, higher: bool
) -> ComparedRow:
    """A row from its reports, and the baseline's values by seed; None for the baseline itself."""
    values = _values(seeds, evaluation)
    found = [e for report in seeds.values() if (e := report.primary) is not None]
    paired = (
        _spread({seed: value - base[seed] for seed, value in values.items() if seed in base})
        if base
        else None
    )
    return ComparedRow(
        name=name,
        primary=_spread(values),
        source=_spread(_values(seeds, "source")),
        difference=paired,
        verdict="baseline" if base is None else _verdict(paired, higher=higher),
        classes=_means([e.main.per_class for e in found]),
        measures=_means([{m.name: m.value for m in e.further} for e in found]),
        notes=tuple(dict.fromkeys(note for e in found for note in e.notes)),
    )


def baseline_of(rows: Iterable[str]) -> str:
    """The row that others are compared with when nobody chooses one: ``"null"``, or else the first of at
    least one."""
    names = tuple(rows)
    return BASELINE if BASELINE in names else names[0]


def _values(seeds: Mapping[int, Report], evaluation: str) -> dict[int, float]:
    """The main measure by seed."""
    found = {seed: report.evaluations.get(evaluation) for seed, report in sorted(seeds.items())}
    return {s: e.main.value for s, e in found.items() if e is not None and e.main.value is not None}


def _spread(values: Mapping[int, float]) -> Spread | None:
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


def _verdict(paired: Spread | None, *, higher: bool) -> Verdict:
    if paired is None or paired.low is None or paired.high is None:
        return "too few seeds"
    if paired.low <= 0 <= paired.high:
        return "no clear difference"
    return "helps" if (paired.low > 0) is higher else "hurts"


def _means(tables: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean of each number over the seeds that have it, under the names that the first seed has."""
    present = {
        name: [v for table in tables if (v := table.get(name)) is not None] for name in (tables or [{}])[0]
    }
    return {name: statistics.fmean(values) if values else None for name, values in present.items()}
