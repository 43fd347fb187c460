"""Work in several processes: all of it, once; what goes wrong in one comes back as it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.workers import run_parallel
from tadp_da.errors import DataError, EnvironmentSetupError
from tadp_da.run import Run


def note(name: str, run: Run) -> str:
    with (run.folder / "notes").open("a") as file:
        file.write(f"{name} {os.getpid()}\n")
    time.sleep(0.2)  # so that the other process takes one too
    return name


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
    os.kill(os.getppid(), signal.SIGINT)
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


@pytest.fixture
def _heard() -> Iterator[None]:
    """SIGINT as at a terminal: a shell that starts tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heard")
def test_a_signal_ends_all_of_them(run: Run) -> None:
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_parallel(stop_parent, ["one"], run, 1)
    assert (run.folder / "asked").exists()
    assert time.monotonic() - begun < 120
