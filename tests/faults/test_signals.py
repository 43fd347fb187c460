"""Signals of batch systems and terminals, and parents that are killed: nothing goes on unseen, nothing is lost."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from benchmarks import workers
from tadp_da import cli
from tadp_da.run import Run
from tadp_da.storage.artifacts import verify
from tadp_da.training.signals import asked, attended, check, held
from tests.faults.victims import Line, Points, begin, command, train, until

ROOT = Path(__file__).parents[2]
#: In a process of ``--processes``: touch a file when it has started, and another when it has been stopped.
MEMBER = """
import os, sys, time
from pathlib import Path
from tadp_da.distributed.processes import relaunch
from tadp_da.training.signals import Stop, attended
place = Path(sys.argv[1])
try:
    with attended():
        relaunch(2)
        (place / f"started-{os.environ['RANK']}").touch()
        time.sleep(60)
except Stop:
    (place / f"ended-{os.environ['RANK']}").touch()
"""


@pytest.fixture
def _default(request: pytest.FixtureRequest) -> Iterator[None]:
    """The signal's default action, whatever started the tests: nohup ignores SIGHUP."""
    number = request.getfixturevalue("number")
    before = signal.signal(number, signal.SIG_DFL)
    yield
    signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
@pytest.mark.usefixtures("_default")
def test_the_front_door_stops_at_once_where_nothing_is_held(
    command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "app", lambda: (signal.raise_signal(number), pytest.fail("went on")))
    assert command() == 75
    assert "Run the same command again" in capsys.readouterr().err
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGHUP])
@pytest.mark.usefixtures("_default")
def test_a_hangup_that_nohup_ignores_stays_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    with attended():
        signal.raise_signal(number)
        assert not asked()
    assert signal.getsignal(number) is signal.SIG_IGN


def at_a_terminal(folder: str, terminal: str) -> None:
    """Train as a command does, at a terminal of its own, until that is closed."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    slave = os.open(terminal, os.O_RDWR)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for stream in (0, 1, 2):
        os.dup2(slave, stream)
    # those of the fork server are of files, which can be sought
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    line = Line(lambda: time.sleep(0.02))
    command([], lambda: train(Path(folder), line, steps=1000, quiet=False, checkpoint_every=0))


def test_a_closed_terminal_stops_a_training_after_saving(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    victim = begin(at_a_terminal, str(tmp_path), os.ttyname(slave))
    shown = b""

    def loss_is_shown() -> bool:
        nonlocal shown
        if select.select([master], [], [], 0)[0]:
            shown += os.read(master, 1000)
        assert victim.is_alive(), shown.decode()
        return b"loss" in shown

    until(loss_is_shown)
    os.close(slave)
    os.close(master)
    victim.join(60)
    assert victim.exitcode == 75
    (kept,) = (tmp_path / "unfinished/line").iterdir()
    verify(kept)


def steps(name: str, run: Run) -> str:
    """A task of ``--jobs`` that checks for a signal after every step."""
    with held():
        (run.folder / f"started-{name}").touch()
        for _ in range(3000):
            time.sleep(0.02)
            if asked():
                (run.folder / f"ended-{name}").touch()
            check()
    return name


def jobs(folder: str) -> None:
    """Two tasks, in processes that need not import anything anew."""
    workers.get_context = lambda _: multiprocessing.get_context("fork")  # type: ignore[assignment,attr-defined]
    run = Run(folder=Path(folder), device="cpu", quiet=True)
    workers.run_parallel(steps, ["0", "1"], run, 2)


class Stuck(Points):
    """Samples that take a minute; the process that loads one holds a lock for as long as it lives."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    def fetch(self, index: int, rng: np.random.Generator) -> Tensor:
        name = multiprocessing.current_process().name
        file = (self.folder / f"lock-{name}").open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        (self.folder / f"started-{name}").touch()
        time.sleep(60)
        raise AssertionError("the data worker went on")


def loading(folder: str) -> None:
    """Train with two processes that load samples."""
    train(Path(folder), examples=Stuck(folder), workers=2)


def names(folder: Path, kind: str) -> Sequence[Path]:
    return list(folder.glob(f"{kind}-*"))


def killed(folder: Path, victim: Any) -> None:
    """Kill a process once two of its workers have started."""
    until(lambda: len(names(folder, "started")) == 2)
    victim.kill()
    victim.wait() if isinstance(victim, subprocess.Popen) else victim.join()


def test_when_the_parent_is_killed_the_workers_of_jobs_stop_after_saving(tmp_path: Path) -> None:
    killed(tmp_path, begin(jobs, str(tmp_path), daemon=False))
    until(lambda: len(names(tmp_path, "ended")) == 2, 20)


def test_when_the_launcher_is_killed_its_processes_stop(tmp_path: Path) -> None:
    launched = [sys.executable, "-c", MEMBER, str(tmp_path)]
    code = f"from tadp_da.distributed.processes import launch; launch({launched}, 2)"
    killed(tmp_path, subprocess.Popen([sys.executable, "-c", code], cwd=ROOT))
    until(lambda: len(names(tmp_path, "ended")) == 2, 20)


def test_when_a_training_is_killed_its_data_workers_end(tmp_path: Path) -> None:
    killed(tmp_path, begin(loading, str(tmp_path), daemon=False))

    def ended() -> bool:
        for path in names(tmp_path, "lock"):
            with path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
        return True

    until(ended, 20)
