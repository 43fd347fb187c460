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
class ComparedRow:
    """One row of the table.

    Attributes:
        name: the row, e.g. a caption strategy.
        primary: main measure on the test images that rows are compared by, None where no seed has one.
        source: main measure on the source's test images, None where no seed has one.
        difference: of ``primary`` from the baseline; None for the baseline and where no seed is shared.
        verdict: what the interval says.
        classes: mean per class; None where the class is absent at every seed.
        measures: means of the further measures by name; None where no seed has one.
        notes: of the evaluations.
    """

    name: str
    primary: Spread | None
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

    def conclusion(self) -> str:
        """The verdicts in two or three sentences."""
        said = []
        for verdict, words in (("helps", "better than"), ("hurts", "worse than")):
            found = [row for row in self.rows if row.verdict == verdict]
            if found:
                names = ", ".join(
                    f"{row.name} ({row.difference.mean:+.1f})" for row in found if row.difference is not None
                )
                where = "on the target" if self.evaluation == "target" else "on the test images"
                said.append(f"{words.capitalize()} {self.baseline} {where}: {names}.")
        compared = sum(row.verdict in ("helps", "hurts", "no clear difference") for row in self.rows)
        if said and compared > 1:
            chance = (1 - LEVEL) * compared
            said.append(
                f"Of {compared} rows without any effect about {chance:.1f} would be listed there by chance."
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
    return Comparison(
        title=title,
        evaluation=evaluation,
        metric=metric,
        unit=unit,
        higher_is_better=higher,
        baseline=baseline,
        rows=tuple(
            _row(name, seeds, evaluation, None if name == baseline else base, higher=higher)
            for name, seeds in reports.items()
        ),
    )


def _row(
    name: str,
    seeds: Mapping[int, Report],
    evaluation: str,
    base: Mapping[int, float] | None,
    *,
    higher: bool,
) -> ComparedRow:
    """A row from its reports, and the baseline's values by seed; None for the baseline itself."""
    values = _values(seeds, evaluation)
    found = [e for report in seeds.values() if (e := report.primary) is not None]
    further = [{m.name: m.value for m in e.further} for e in found]
    paired = None if base is None else _difference(values, base)
    return ComparedRow(
        name=name,
        primary=_spread(values),
        source=_spread(_values(seeds, "source")),
        difference=paired,
        verdict="baseline" if base is None else _verdict(paired, higher=higher),
        classes=_means([e.main.per_class for e in found], tuple(found[0].main.per_class) if found else ()),
        measures=_means(further, tuple(further[0]) if further else ()),
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
    return Spread(values, statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None)


def _difference(values: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    shared = {seed: value - base[seed] for seed, value in values.items() if seed in base}
    spread = _spread(shared)
    if spread is None:
        return None
    if spread.std is None:
        return Difference(shared, spread.mean, None, None)
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(shared) - 1)) * spread.std / math.sqrt(len(shared))
    return Difference(shared, spread.mean, spread.mean - half, spread.mean + half)


def _verdict(paired: Difference | None, *, higher: bool) -> Verdict:
    if paired is None or paired.low is None or paired.high is None:
        return "too few seeds"
    if paired.low <= 0 <= paired.high:
        return "no clear difference"
    return "helps" if (paired.low > 0) is higher else "hurts"


def _means(tables: Sequence[Mapping[str, float | None]], names: Sequence[str]) -> dict[str, float | None]:
    """Mean of each figure over the seeds that have it."""
    means: dict[str, float | None] = {}
    for name in names:
        present = [v for table in tables if (v := table.get(name)) is not None]
        means[name] = statistics.fmean(present) if present else None
    return means
