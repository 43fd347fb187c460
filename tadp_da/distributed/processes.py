"""Several processes at one piece of work: who each is, what they tell each other, and how a command starts them.

    tadp-da adapt ... --processes 2        # or: torchrun --nproc-per-node 2 -m tadp_da.cli adapt ...

All run the same program on the same arguments and meet in the same order: at every gradient, and wherever one must
know what another did. The first is the main one: it alone writes what lasts.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from tadp_da.errors import EnvironmentSetupError, InterruptedRunError, TadpError, UsageError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_PATIENCE = timedelta(days=30)  # one may wait for another's lock; a process that died is noticed at once


def rank() -> int:
    """The number of this process, from 0, as launchers tell it."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def count() -> int:
    """How many processes work together; 1 where no launcher says otherwise."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes what lasts."""
    return rank() == 0


def device_of(asked: str) -> torch.device:
    """The device of a name, ``"auto"`` being the best there is; of several processes on GPUs each takes its own.

    Raises:
        UsageError: when torch knows no such device.
        EnvironmentSetupError: when this machine has none.
    """
    import torch

    kinds = {
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    name = next(kind for kind in kinds if kinds[kind]) if asked == "auto" else asked
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"{asked!r} is no device", fix="choose auto, cpu, cuda, cuda:1 or mps") from None
    if (device.index or 0) >= kinds.get(device.type, 1):
        raise EnvironmentSetupError(
            f"there is no device {asked!r} here",
            fix="choose auto or cpu; tadp-da doctor says what can be used",
        )
    return torch.device("cuda", local()) if name == "cuda" and count() > 1 else device


def local() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if count() > 1 else 0


def join(device: Any) -> None:
    """Meet the other processes: over NCCL where the device is a GPU, over gloo where it is the CPU. Does nothing alone,
    nor a second time."""
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")


def all_gather_object(work: Callable[..., T], *args: Any) -> list[T]:
    """What ``work(*args)`` gives in every process, by rank; every process must come here.

    Raises:
        TadpError: the first one that it raised in any of them, in all of them.
    """
    if count() == 1:
        return [work(*args)]
    told: Any
    try:
        told = True, work(*args)
    except TadpError as error:
        told = False, (type(error), error.what, error.where, error.fix)
    answers = _told_by_all(told)
    for fine, answer in answers:
        if not fine:
            kind, what, where, fix = answer
            raise kind(what, where=where, fix=fix)
    return [answer for _, answer in answers]


def broadcast(work: Callable[..., T], *args: Any) -> T:
    """What ``work(*args)`` gives in the main process, which alone does it; every process must come here.

    Raises:
        TadpError: what it raised there, in all of them.
    """
    if count() == 1:
        return work(*args)
    answer: Any = all_gather_object(work, *args)[0] if is_main() else all_gather_object(lambda: None)[0]
    return answer


def wait() -> None:
    """Go on when every process has come here."""
    all_gather_object(lambda: None)


def _told_by_all(told: Any) -> list[Any]:
    from torch import distributed

    answers: list[Any] = [None] * count()
    distributed.all_gather_object(answers, told, group=_words())
    return answers


@cache
def _words() -> Any:
    """The group for words; that for gradients may be of GPUs, and loses its patience in minutes."""
    import torch
    from torch import distributed

    join(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return distributed.new_group(backend="gloo", timeout=_PATIENCE)


def launch(command: Sequence[str], processes: int) -> int:
    """Run a command in several processes on this machine, and wait for all.

    A signal is passed on to each, and they stop at the same step. When one fails, the others are told to stop. Only the
    main one speaks; what another said is shown when that one failed and the main one does not know why.

    Args:
        command: program and arguments.
        processes: how many.

    Returns:
        Exit code: that of the first one that failed, else 75 when any was interrupted, else 0. One that was ended by
        the first signal, before it could listen for any, was interrupted; one that was ended by the second saved
        nothing, and the code is what a shell calls it: 128 and the signal's number.

    Raises:
        EnvironmentSetupError: when one was ended from outside, most often for lack of memory.
    """
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(processes)}
    # torch takes every core in every process otherwise, and they stand in each other's way
    cores = max(1, (os.cpu_count() or 1) // processes)
    shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(cores)
    started: list[subprocess.Popen[bytes]] = []
    with _passing_on(started) as signals, tempfile.TemporaryFile() as words:
        for number in range(processes):
            own = {"RANK": str(number), "LOCAL_RANK": str(number), "LOCAL_WORLD_SIZE": str(processes)}
            quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": words} if number else {}
            started.append(subprocess.Popen([*command], env=os.environ | shared | own, **quiet))
            for missed in list(signals):  # which came before this one was among those that hear of them
                started[-1].send_signal(missed)
        first = _first_failure(started, signals)
        if first is None:
            return InterruptedRunError.exit_code if any(process.returncode for process in started) else 0
        if first is not started[0]:
            words.seek(0)
            sys.stderr.write(words.read().decode(errors="replace"))
    if -first.returncode in signals:
        return 128 - first.returncode
    if first.returncode < 0:
        raise EnvironmentSetupError(
            f"process {started.index(first)} of {processes} was ended by signal {-first.returncode}",
            fix="look for lack of memory (9: the system killed it), and take fewer --processes or a smaller batch",
        )
    return first.returncode


def _first_failure(
    started: Sequence[subprocess.Popen[bytes]], signals: Sequence[int]
) -> subprocess.Popen[bytes] | None:
    """Wait for all; the process that failed first, and then the others were told to stop."""

    def failed(process: subprocess.Popen[bytes]) -> bool:
        # one that was interrupted was so in step with the others, who need no second word
        fine = process.returncode in (None, 0, InterruptedRunError.exit_code)
        return not fine and list(signals) != [-process.returncode]

    first: subprocess.Popen[bytes] | None = None
    running = list(started)
    while running:
        time.sleep(0.05)
        running = [process for process in started if process.poll() is None]
        if first is None and (first := next(filter(failed, started), None)):
            for process in running:
                process.terminate()
    return first


@contextmanager
def _passing_on(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Hand every signal to the processes, which know what to do about it; yields those that came."""
    came: list[int] = []

    def pass_on(number: int, _frame: Any) -> None:
        came.append(number)
        for process in started:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


def without(arguments: Sequence[str], option: str) -> list[str]:
    """Arguments without an option and its value."""
    kept, skip = list[str](), False
    for argument in arguments:
        if not skip and argument != option and not argument.startswith(f"{option}="):
            kept.append(argument)
        skip = not skip and argument == option
    return kept


def relaunch(processes: int) -> None:
    """Run this very command in several processes instead, and end with their exit code; return at once in one of them,
    or where one is enough."""
    if processes > 1 and count() == 1:
        # -m alone runs what it finds in the current folder, among the data; so does this process if it was begun that
        # way, and then the package itself may lie there
        safe = [] if sys.path[:1] in ([""], [os.getcwd()]) else ["-P"]
        command = [sys.executable, *safe, "-m", "tadp_da.cli", *without(sys.argv[1:], "--processes")]
        sys.exit(launch(command, processes))
