"""Rows of a table over seeds: mean, spread, and the paired differences from two rows with confidence intervals.

Two runs at one seed share their data order, noise and head initialization, so differences are taken seed by seed; the
interval is Student's over these differences. Three seeds make wide intervals: that is the point. Verdicts are given by
each interval alone, and corrected for the number of rows (Holm, 1979).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.reports.intervals import (
    CLEAR,
    LEVEL,
    Difference,
    Spread,
    Verdict,
    holm,
    p_value,
    spread,
    verdict,
)
from benchmarks.results import Evaluation, Report
from tadp_da.errors import UsageError
from tadp_da.registry import nearest
from tadp_da.tasks import in_unit

BASELINE = "null"
"""The row that others are compared with, where a table has it."""


@dataclass(frozen=True)
class ComparedRow:
    """One row of the table.

    Attributes:
        name: the row, e.g. a caption strategy.
        primary: main measure on the test images that rows are compared by, None where no seed has one.
        source: main measure on the source's test images, None where no seed has one.
        against: difference from the baseline, None for itself.
        against_blind: the strongest row that sees no target image, where it is another than the baseline; None for
            itself.
        sees_target: whether anything of it was learned from target images; None where nobody knows.
        classes: mean per class; None where the class is absent at every seed.
        measures: means of the further measures by name; None where no seed has one.
        notes: of the evaluations.
    """

    name: str
    primary: Spread | None
    source: Spread | None
    against: Difference | None
    against_blind: Difference | None
    sees_target: bool | None
    classes: Mapping[str, float | None]
    measures: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def difference(self) -> Spread | None:
        """From the baseline."""
        return self.against.spread if self.against else None

    @property
    def verdict(self) -> Verdict:
        """What the interval of :attr:`difference` says."""
        return self.against.verdict if self.against else "baseline"


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
        blind: the best row that sees no target image, where it is another than the baseline. It is chosen by its test
            score, so that differences from it are rather too small than too large.
    """

    title: str
    evaluation: str
    metric: str
    unit: str
    higher_is_better: bool
    baseline: str
    rows: tuple[ComparedRow, ...]
    blind: str | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return next((tuple(row.classes) for row in self.rows if row.classes), ())

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the further measures."""
        return next((tuple(row.measures) for row in self.rows if row.measures), ())

    def conclusion(self) -> str:
        """The verdicts in a few sentences."""
        told = self._verdicts(self.baseline, [(row.name, row.against) for row in self.rows])
        if self.blind:
            told += self._verdicts(
                self.blind, [(row.name, row.against_blind) for row in self.rows], few=False
            )
        return " ".join(told) or "There is nothing to compare yet."

    def _verdicts(
        self, base: str, differences: Sequence[tuple[str, Difference | None]], *, few: bool = True
    ) -> list[str]:
        where = "on the target" if self.evaluation == "target" else "on the test images"
        names: dict[str, list[str]] = {}
        kept, compared = [], 0
        for name, found in differences:
            if found is None:
                continue
            gain = (
                f" ({in_unit(found.spread.mean, self.unit, '+')})"
                if found.verdict in CLEAR and found.spread
                else ""
            )
            names.setdefault(found.verdict, []).append(name + gain)
            compared += found.p is not None
            kept += [name] if found.corrected in CLEAR else []
        sentences = [
            f"{word} than {base} {where}: {', '.join(names[verdict])}."
            for verdict, word in CLEAR.items()
            if verdict in names
        ]
        if sentences and compared > 1:
            sentences.append(f"Corrected for {compared} rows (Holm): {', '.join(kept) or 'none of them'}.")
        if "no clear difference" in names:
            sentences.append(f"No clear difference from {base}: {', '.join(names['no clear difference'])}.")
        if few and "too few seeds" in names:
            rows = ", ".join(names["too few seeds"])
            sentences.append(f"Too few seeds for a verdict: {rows}; run at least two, better five.")
        return sentences


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
    if not mains:
        raise UsageError("there are no scores to compare", fix="score the rows on labelled test images")
    if len(kinds) != 1 or len(names) != 1:
        raise UsageError(
            f"rows were evaluated by {', '.join(sorted({m.name for m in mains}))} on "
            f"{' and '.join(sorted(names))} images, expected one measure on one kind of test images",
            fix="compare runs of one task that have labelled test images",
        )
    ((metric, unit, higher),), (evaluation,) = kinds, names
    rows = [_row(name, seeds, evaluation) for name, seeds in reports.items()]
    blind = _strongest_blind(rows, higher=higher) if evaluation == "target" else None
    other = None if blind == baseline else blind
    against = _differences(reports, baseline, evaluation, higher=higher)
    against_blind = _differences(reports, other, evaluation, higher=higher) if other else {}
    compared = tuple(
        dataclasses.replace(r, against=against.get(r.name), against_blind=against_blind.get(r.name))
        for r in rows
    )
    return Comparison(title, evaluation, metric, unit, higher, baseline, compared, other)


def without_classes(
    reports: Mapping[str, Mapping[int, Report]], names: Sequence[str]
) -> dict[str, dict[int, Report]]:
    """The same reports with the main measure recomputed as the mean over all classes but these.

    Raises:
        UsageError: for an unknown class, or where no class is left.
    """

    def reduced(found: Evaluation) -> Evaluation:
        left = {name: value for name, value in found.main.per_class.items() if name not in names}
        for name in names:
            if name not in found.main.per_class:
                raise UsageError(
                    f"{found.domain} has no class {name!r}{nearest(name, list(found.main.per_class))}",
                    fix=f"choose from: {', '.join(found.main.per_class) or 'no class is scored by itself'}",
                )
        present = [value for value in left.values() if value is not None]
        if not left:
            raise UsageError("no class is left to compare by", fix="leave out fewer classes")
        value = statistics.fmean(present) if present else None
        title = f"{found.main.name} without {', '.join(names)}"
        main = dataclasses.replace(found.main, name=title, value=value, per_class=left)
        # what single images score is known of all classes together only
        saved = tuple(dataclasses.replace(each, score=None) for each in found.saved)
        return dataclasses.replace(found, main=main, per_image={}, saved=saved)

    return {
        row: {
            seed: dataclasses.replace(
                report, evaluations={name: reduced(e) for name, e in report.evaluations.items()}
            )
            for seed, report in seeds.items()
        }
        for row, seeds in reports.items()
    }


def _row(name: str, seeds: Mapping[int, Report], evaluation: str) -> ComparedRow:
    """A row from its reports, compared with nothing yet."""
    found = [e for report in seeds.values() if (e := report.primary) is not None]
    sees = {report.sees_target for report in seeds.values()}
    return ComparedRow(
        name=name,
        primary=spread(_values(seeds, evaluation)),
        source=spread(_values(seeds, "source")),
        against=None,
        against_blind=None,
        sees_target=sees.pop() if len(sees) == 1 else None,
        classes=_means([e.main.per_class for e in found]),
        measures=_means([{m.name: m.value for m in e.further} for e in found]),
        notes=tuple(dict.fromkeys(note for e in found for note in e.notes)),
    )


def _strongest_blind(rows: Sequence[ComparedRow], *, higher: bool) -> str | None:
    """The best row, by its mean, that is known to see no target image."""
    found = {r.name: r.primary.mean for r in rows if r.sees_target is False and r.primary is not None}
    return (max if higher else min)(found, key=found.__getitem__, default=None)


def _differences(
    reports: Mapping[str, Mapping[int, Report]], base: str, evaluation: str, *, higher: bool
) -> dict[str, Difference]:
    """Differences of all other rows from a row, corrected for how many they are."""
    found = {
        name: _difference(seeds, reports[base], evaluation, higher=higher)
        for name, seeds in reports.items()
        if name != base
    }
    for row, p in holm({row: d.p for row, d in found.items() if d.p is not None}).items():
        kept = p < 1 - LEVEL or found[row].verdict not in CLEAR
        corrected = found[row].verdict if kept else "no clear difference"
        found[row] = dataclasses.replace(found[row], p_holm=p, corrected=corrected)
    return found


def _difference(
    seeds: Mapping[int, Report], base: Mapping[int, Report], evaluation: str, *, higher: bool
) -> Difference:
    values, others = _values(seeds, evaluation), _values(base, evaluation)
    paired = spread({seed: value - others[seed] for seed, value in values.items() if seed in others})
    tables = [
        {
            name: None
            if value is None or (other := there.main.per_class.get(name)) is None
            else value - other
            for name, value in here.main.per_class.items()
        }
        for seed in sorted(seeds.keys() & base.keys())
        if (here := seeds[seed].primary) is not None and (there := base[seed].primary) is not None
    ]
    return Difference(
        paired, verdict(paired, higher=higher), p_value(paired), None, "too few seeds", _means(tables)
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


def _means(tables: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean of each number over the seeds that have it, under the names that the first seed has."""
    present = {
        name: [v for table in tables if (v := table.get(name)) is not None] for name in (tables or [{}])[0]
    }
    return {name: statistics.fmean(values) if values else None for name, values in present.items()}
