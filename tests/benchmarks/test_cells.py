"""In which order several processes fill a table: nobody waits for a concept that another learns."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cells import Cell, SharedConcept, for_several, in_turn, next_task
from benchmarks.recipe import read_benchmark
from tadp_da.storage.files import locked

ROWS = read_benchmark("demo").rows


def cell(name: str, seed: int = 0) -> Cell:
    return Cell("demo", name, list(ROWS).index(name), seed, ROWS[name], Path(), ())


def names(tasks: list[Cell | SharedConcept]) -> list[str]:
    return [
        f"concept {task.of.seed}" if isinstance(task, SharedConcept) else f"{task.name} {task.seed}"
        for task in tasks
    ]


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    return tmp_path / "nowhere"


def test_several_processes_learn_a_shared_concept_first_and_then_the_longest_rows() -> None:
    tasks = for_several([cell(name, seed) for seed in (0, 1) for name in ROWS])
    rows = ["best", "null", "strong", "dreambooth"]  # of equal length: in the order of the table
    assert names(tasks) == [
        each for seed in (0, 1) for each in (f"concept {seed}", *(f"{r} {seed}" for r in rows))
    ]
    assert names(for_several([cell("null"), cell("best")])) == ["best 0", "null 0"], "no one shares it"


def test_rows_of_a_concept_wait_until_it_is_learned_and_others_do_not(nowhere: Path) -> None:
    concept, *left = for_several([cell(name) for name in ROWS])
    found = next_task(left, [concept], lambda _: nowhere)
    assert found is not None
    assert names([left[found]]) == ["null 0"]
    assert next_task([cell("best"), cell("dreambooth")], [concept], lambda _: nowhere) is None
    assert next_task([cell("best", 1)], [concept], lambda _: nowhere) == 0, "another seed's"
    assert next_task(left, [cell("strong")], lambda _: nowhere) == 0


def test_rows_whose_lock_another_command_holds_come_last(tmp_path: Path) -> None:
    with locked(tmp_path / "null"), locked(tmp_path / "strong"):
        turn = in_turn([cell(name) for name in ROWS], lambda each: tmp_path / each.name)
        assert [next(turn).name, next(turn).name] == ["dreambooth", "best"]
        assert next(turn).name == "null", "all are held: the first is waited for"
    assert [each.name for each in turn] == ["strong"]
    assert not list(tmp_path.iterdir())
