"""Ranks, the guard, the choice, and how right they were, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.selection.ranking import Candidate, choose, judge, ranked, read_record, so_far, write_record
from tadp_da.errors import DataError


def rows(**scores: tuple[float, float | None, float, float | None]) -> list[Candidate]:
    """Candidates by name: two scores, source, test."""
    return [
        Candidate(
            row=name,
            scores={"jitter": jitter, "committee": committee},
            source=source,
            test=test,
            kinds=("personalize none" if name != "db" else "personalize dreambooth",),
        )
        for name, (jitter, committee, source, test) in scores.items()
    ]


FOUR = rows(
    null=(50.0, 50.0, 80.0, 40.0),
    strong=(60.0, 55.0, 78.0, 50.0),
    db=(60.0, 70.0, 76.0, 49.0),
    broken=(99.0, 80.0, 60.0, 10.0),
)


def test_the_rank_is_the_mean_of_ranks_and_equals_share_one() -> None:
    assert [c.rank for c in ranked(FOUR, 5.0)] == [4.0, 2.75, 2.25, 1.0]


def test_a_row_that_lost_the_source_is_flagged_and_not_chosen() -> None:
    found = ranked(FOUR, 5.0)
    assert [c.flagged for c in found] == [False, False, False, True]
    chosen = choose(found)
    assert chosen is not None
    assert chosen.row == "db"
    assert [c.flagged for c in ranked(FOUR, 3.0)] == [False, False, True, True]
    assert {c.flagged for c in ranked(FOUR[1:], 3.0)} == {None}, "there is no null to lose against"


def test_null_is_kept_where_nothing_ranks_above_it() -> None:
    chosen = choose(ranked(rows(x=(1.0, 1.0, 80.0, None), null=(1.0, 1.0, 80.0, None)), 5.0))
    assert chosen is not None
    assert chosen.row == "null"


def test_a_score_that_a_row_lacks_ranks_none() -> None:
    found = ranked(rows(null=(1.0, None, 80.0, None), x=(2.0, 9.0, 80.0, None)), 5.0)
    assert [c.rank for c in found] == [2.0, 1.0]
    alone = ranked(rows(null=(1.0, 2.0, 80.0, None)), 5.0)
    assert alone[0].rank is None
    assert choose(alone) is None


def test_a_ranking_is_judged_over_all_rows_and_those_of_one_kind() -> None:
    judged = judge(ranked(FOUR, 5.0))
    assert set(judged) == {"all", "personalize none"}
    # by rank: null, strong, db, broken; by test score: broken, null, db, strong: 1 - 6 (1 + 4 + 0 + 9) / 60
    assert judged["all"].spearman == pytest.approx(1 - 6 * (1 + 4 + 0 + 9) / 60)
    assert (judged["all"].chosen, judged["all"].best, judged["all"].regret) == ("db", "strong", 1.0)
    assert (judged["personalize none"].rows, judged["personalize none"].regret) == (3, 0.0)


def test_where_lower_is_better_the_best_row_is_the_lowest() -> None:
    errors = rows(null=(2.0, 2.0, 5.0, 9.0), x=(3.0, 3.0, 5.0, 7.0), y=(1.0, 1.0, 5.0, 9.5))
    judged = judge(ranked(errors, 5.0, higher=False), higher=False)["all"]
    assert (judged.chosen, judged.best, judged.regret, judged.spearman) == ("x", "x", 0.0, pytest.approx(1.0))


def test_what_was_measured_is_noted_by_table_and_told(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    assert "not been measured" in so_far(read_record(file))
    judged = judge(ranked(FOUR, 5.0))
    for table in ("b", "a", "b"):
        write_record(file, table, "mIoU", judged)
    assert [entry["table"] for entry in json.loads(file.read_text())] == ["a", "b"]
    told = so_far(read_record(file))
    assert "on 2 tables with test labels: a: Spearman -0.40, regret 1.0, 4 rows; b: " in told
    assert "personalize none" in told
    file.write_text('[{"table": 1}]')
    with pytest.raises(DataError, match="not a record of rankings"):
        read_record(file)


def test_the_shipped_record_can_be_read() -> None:
    assert isinstance(so_far(read_record()), str)
