"""Work in several processes: all of it, once; what goes wrong in one comes back as it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.workers import run_parallel
from tadp_da.errors import DataError, EnvironmentSetupError
from tadp_da.run import Run
from tadp_da.training.signals import Stop, attended


def note(name: str, run: Run) -> str:
    notes = run.folder / "notes"
    with notes.open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    for _ in range(24_000):
        if len({line.split()[1] for line in notes.read_text().splitlines()}) == 2:
            return name
        time.sleep(0.005)
    raise AssertionError("waited in vain for the other process")


def refuse(name: str, run: Run) -> str:
    if name == "bad":
        raise DataError("no such picture", where=run.folder / name, fix="give another one")
    time.sleep(250)  # must be cut short
    return name


def die(_name: str, _run: Run) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def stop_parent(_name: str, run: Run) -> str:
    (run.folder / "asked").touch()
    os.kill(os.getppid(), signal.SIGUSR1)
    time.sleep(250)
    return ""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(folder=tmp_path, device="cpu", quiet=True)


def test_every_task_is_done_once_by_more_than_one_process(run: Run) -> None:
    tasks = [f"task-{i}" for i in range(8)]
    run_parallel(note, tasks, run, 2)
    lines = (run.folder / "notes").read_text().split("\n")[:-1]
    assert sorted(line.split()[0] for line in lines) == tasks
    processes = {int(line.split()[1]) for line in lines}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_an_error_comes_back_whole_and_ends_the_others(run: Run) -> None:
    begun = time.monotonic()
    with pytest.raises(DataError, match="no such picture") as caught:
        run_parallel(refuse, ["good", "bad"], run, 2)
    assert caught.value.where == str(run.folder / "bad")
    assert caught.value.fix == "give another one"
    assert time.monotonic() - begun < 120


def test_a_process_that_dies_is_told_of(run: Run) -> None:
    with pytest.raises(EnvironmentSetupError, match="exit code -9") as caught:
        run_parallel(die, ["one"], run, 1)
    assert "memory" in caught.value.fix


def test_a_signal_ends_all_of_them(run: Run) -> None:
    begun = time.monotonic()
    with attended(), pytest.raises(Stop):
        run_parallel(stop_parent, ["one"], run, 1)
    assert (run.folder / "asked").exists()
    assert time.monotonic() - begun < 120


def follow(name: str, run: Run) -> str:
    if name == "first":
        for _ in range(24_000):
            if (run.folder / "other").exists():
                break
            time.sleep(0.005)
    elif name == "second":
        assert (run.folder / "first").exists(), "begun too early"
    (run.folder / name).touch()
    return name


def wait_for_first(left: Sequence[str], running: Sequence[str]) -> int | None:
    ready = [i for i, name in enumerate(left) if name != "second" or "first" not in running]
    return ready[0] if ready else None


def test_a_process_waits_while_no_task_may_be_begun(run: Run) -> None:
    # the other process gets "other" and then nothing, until "first" is done
    run_parallel(follow, ["first", "second", "other"], run, 2, choose=wait_for_first)
    assert {file.name for file in run.folder.iterdir()} == {"first", "second", "other"}


def test_a_task_for_which_nobody_is_waited_is_done_though_it_is_not_chosen(run: Run) -> None:
    run_parallel(follow, ["other"], run, 2, choose=lambda left, running: None)
    assert (run.folder / "other").exists()
