"""Rows ranked by scores without labels, one of them chosen, and how right rankings have been where labels exist."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.reports.statistics import BASELINE
from tadp_da.errors import DataError
from tadp_da.storage.files import write_json

RECORD = "track_record.json"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row to choose.

    Attributes:
        row: its name.
        scores: without labels, in %; those that rank it.
        further: other scores without labels.
        source: mean of the main measure on the source's test images.
        test: mean of the main measure on the target's test images; it ranks nothing.
        seen: how many of the images were among those that its models learned from, the largest of all seeds.
        kinds: what kind of row it is, e.g. ``"personalize dreambooth"``.
        rank: mean of its ranks by the scores, the best is 1; None where there is nothing to rank by.
        flagged: its source score is too far below that of ``null``; None where there is none.
    """

    row: str
    scores: Mapping[str, float | None]
    further: Mapping[str, float | None] = field(default_factory=dict)
    source: float | None = None
    test: float | None = None
    seen: int = 0
    kinds: tuple[str, ...] = ()
    rank: float | None = None
    flagged: bool | None = None


def ranked(candidates: Sequence[Candidate], guard: float, *, higher: bool = True) -> list[Candidate]:
    """The candidates with rank and flag, in the same order.

    Args:
        candidates: rows with their scores; a score that one of them lacks ranks none.
        guard: how far a row's source score may lie below that of ``null``.
        higher: whether higher source scores are better.
    """
    from scipy.stats import rankdata

    columns = [[c.scores[name] for c in candidates] for name in (candidates[0].scores if candidates else ())]
    known = [[v for v in column if v is not None] for column in columns if None not in column]
    ranks = [rankdata([-v for v in column]) for column in known] if len(candidates) > 1 else []
    null = next((c.source for c in candidates if c.row == BASELINE), None)

    def lost(c: Candidate) -> bool | None:
        if c.source is None or null is None:
            return None
        return ((null - c.source) if higher else (c.source - null)) > guard

    return [
        replace(c, rank=fmean(float(r[i]) for r in ranks) if ranks else None, flagged=lost(c))
        for i, c in enumerate(candidates)
    ]


def choose(candidates: Iterable[Candidate]) -> Candidate | None:
    """The best-ranked row that is not flagged; of equals ``null``, else the first. None where nothing is ranked."""
    free = [c for c in candidates if c.rank is not None and not c.flagged]
    return min(free, key=lambda c: (c.rank, c.row != BASELINE), default=None)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How right a ranking was.

    Attributes:
        rows: how many rows.
        spearman: correlation of rank and test score over them, 1 for the same order; None below three rows.
        regret: test score of the best row minus that of the chosen one.
        chosen: the chosen row.
        best: the best row.
    """

    rows: int
    spearman: float | None
    regret: float
    chosen: str
    best: str


def judge(candidates: Sequence[Candidate], *, higher: bool = True) -> dict[str, Judgement]:
    """The ranking against the test scores, over all rows and by kind of row; kinds of at least three rows."""
    scored = [c for c in candidates if c.test is not None and c.rank is not None]
    kinds = {"all": scored}
    for candidate in scored:
        for kind in candidate.kinds:
            kinds.setdefault(kind, []).append(candidate)
    return {
        kind: found
        for kind, rows in kinds.items()
        if len(rows) >= (2 if kind == "all" else 3) and (kind == "all" or len(rows) < len(scored))
        if (found := _judged(rows, higher=higher))
    }


def _judged(rows: Sequence[Candidate], *, higher: bool) -> Judgement | None:
    from scipy.stats import spearmanr

    sign = 1 if higher else -1
    tests = [sign * c.test for c in rows if c.test is not None]
    ranks = [-c.rank for c in rows if c.rank is not None]
    chosen = choose(rows)
    if chosen is None or chosen.test is None:
        return None
    varied = len(rows) > 2 and len(set(tests)) > 1 and len(set(ranks)) > 1
    best = rows[tests.index(max(tests))]
    return Judgement(
        rows=len(rows),
        spearman=float(spearmanr(ranks, tests).statistic) if varied else None,
        regret=max(tests) - sign * chosen.test,
        chosen=chosen.row,
        best=best.row,
    )


def read_record(file: Path | None = None) -> list[dict[str, Any]]:
    """Judgements of tables: ``{"table", "measure", "kinds": {kind: judgement}}``.

    Args:
        file: which; the shipped ones when None, none when it does not exist.

    Raises:
        DataError: when it is not such a file.
    """
    place = resources.files("benchmarks.selection") / RECORD if file is None else file
    if not place.is_file():
        return []
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        return [
            {"table": str(e["table"]), "measure": str(e["measure"]), "kinds": dict(e["kinds"])} for e in found
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not a record of rankings: {error!r}",
            where=file or RECORD,
            fix="choose another file, or delete it",
        ) from None


def write_record(file: Path, table: str, measure: str, judged: Mapping[str, Judgement]) -> None:
    """Add what is known of a table to a file; what it held of the same table is replaced."""
    kept = [e for e in read_record(file) if e["table"] != table]
    entry = {"table": table, "measure": measure, "kinds": {kind: vars(j) for kind, j in judged.items()}}
    write_json(file, sorted([*kept, entry], key=lambda e: str(e["table"])))


def so_far(record: Sequence[Mapping[str, Any]]) -> str:
    """How right rankings have been in measured tables, in plain words."""
    if not record:
        return "How right such rankings are has not been measured on any table yet."
    every = [(entry["table"], entry["kinds"]["all"]) for entry in record if "all" in entry["kinds"]]
    told = "; ".join(
        f"{table}: Spearman {_number(j['spearman'])}, regret {j['regret']:.1f}, {j['rows']} rows"
        for table, j in every
    )
    kinds: dict[str, list[float]] = {}
    for entry in record:
        for kind, j in entry["kinds"].items():
            if kind != "all" and j["spearman"] is not None:
                kinds.setdefault(kind, []).append(j["spearman"])
    within = ", ".join(
        f"{kind} {fmean(values):+.2f} ({len(values)} tables)" for kind, values in sorted(kinds.items())
    )
    text = f"How right such rankings were on {len(every)} tables with test labels: {told}"
    text += " (regret: best row minus chosen row)."
    return text + (f" Spearman among rows of one kind: {within}." if within else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
