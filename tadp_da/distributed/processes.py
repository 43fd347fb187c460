"""Several processes that share one command: rank and device of each, exchange of objects, and how they are started.

    tadp-da adapt ... --processes 2        # or: torchrun --nproc-per-node 2 -m tadp_da.cli adapt ...

All run the same program with the same arguments and synchronize at every gradient and at every call of
:func:`all_gather_object`. The main process is the one of rank 0: it alone writes results.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from tadp_da.errors import EnvironmentSetupError, InterruptedRunError, TadpError, UsageError
from tadp_da.training.signals import end_with_parent, handling

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_TIMEOUT = timedelta(days=30)  # one may wait for another's lock; a process that died is noticed at once
passed_on: list[str] = []
"""Arguments that the processes of :func:`relaunch` are given beside ``sys.argv``."""
_LAUNCHER = "TADP_DA_LAUNCHER"  # the environment variable with the launcher's process id


def rank() -> int:
    """The number of this process, from 0, as set by the launcher."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def count() -> int:
    """The number of processes; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes the results."""
    return rank() == 0


def device_of(asked: str) -> torch.device:
    """The device of a name; ``"auto"`` takes CUDA, then MPS, then the CPU. Each of several processes gets its own GPU.

    Raises:
        UsageError: when torch does not know the name.
        EnvironmentSetupError: when this machine has no such device.
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
        raise UsageError(f"{asked!r} is not a device", fix="choose auto, cpu, cuda, cuda:1 or mps") from None
    if (device.index or 0) >= kinds.get(device.type, 1):
        raise EnvironmentSetupError(
            f"there is no device {asked!r} here",
            fix="choose auto or cpu; tadp-da doctor says what can be used",
        )
    return torch.device("cuda", local()) if name == "cuda" and count() > 1 else device


def has_bf16(device: torch.device) -> bool:
    """Whether a device is a GPU that computes in bfloat16; emulation does not count."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def local() -> int:
    """The number of this process on its machine, and of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if count() > 1 else 0


def join(device: Any) -> None:
    """Connect to the other processes, over NCCL on GPUs and gloo on CPUs, unless this has been done."""
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=device.type == "cpu")


def all_gather_object(work: Callable[..., T], *args: Any) -> list[T]:
    """Results of ``work(*args)`` by rank; every process must call this.

    Raises:
        TadpError: in all processes, the first that was raised in any of them.
    """
    if count() == 1:
        return [work(*args)]
    from torch import distributed

    own: Any
    try:
        own = True, work(*args)
    except TadpError as error:
        own = False, error
    results: list[Any] = [None] * count()
    distributed.all_gather_object(results, own, group=_object_group())
    for succeeded, result in results:
        if not succeeded:
            raise result
    return [result for _, result in results]


def broadcast(work: Callable[..., T], *args: Any) -> T:
    """Result of ``work(*args)``, called in the main process only; every process must call this.

    Raises:
        TadpError: in all processes, what it raised there.
    """
    if count() == 1:
        return work(*args)
    result: Any = all_gather_object(work, *args)[0] if is_main() else all_gather_object(lambda: None)[0]
    return result


def wait() -> None:
    """Return once every process has called this."""
    all_gather_object(lambda: None)


@cache
def _object_group() -> Any:
    """The group for objects; that for gradients may be of GPUs, and times out after minutes."""
    import torch
    from torch import distributed

    join(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return distributed.new_group(backend="gloo", timeout=_TIMEOUT)


def launch(command: Sequence[str], processes: int) -> int:
    """Run a command in several processes on this machine, and wait for all.

    Signals are passed on to each, and they stop at the same step. When one fails, the others are told to stop. Only the
    main process writes to the terminal; stderr of another one is shown when that one failed first.

    Args:
        command: program and arguments.
        processes: how many.

    Returns:
        Exit code: that of the first process that failed, else 75 when any was interrupted, else 0. A process that the
        first signal ended before it could handle any was interrupted; one that the second signal ended has saved
        nothing, and the code is 128 plus the signal's number, as in a shell.

    Raises:
        EnvironmentSetupError: when another signal ended one, most often for lack of memory.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    shared[_LAUNCHER] = str(os.getpid())
    # torch uses every core in every process otherwise
    cores = max(1, (os.cpu_count() or 1) // processes)
    shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(cores)
    started: list[subprocess.Popen[bytes]] = []
    with _passing_on(started) as signals, tempfile.TemporaryFile() as errors:
        for number in range(processes):
            own = {"RANK": str(number), "LOCAL_RANK": str(number), "LOCAL_WORLD_SIZE": str(processes)}
            quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": errors} if number else {}
            started.append(subprocess.Popen([*command], env=os.environ | shared | own, **quiet))
            for missed in list(signals):  # those that arrived before this process was in the list
                started[-1].send_signal(missed)
        first = _first_failure(started, signals)
        if first is None:
            return InterruptedRunError.exit_code if any(process.returncode for process in started) else 0
        if first is not started[0]:
            errors.seek(0)
            sys.stderr.write(errors.read().decode(errors="replace"))
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
    """Wait for all; the process that failed first, after which the others were told to stop."""

    def failed(process: subprocess.Popen[bytes]) -> bool:
        # all are interrupted together, and need no second signal
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
    """Pass every signal on to the processes; yields the list of those that arrived."""
    arrived: list[int] = []

    def pass_on(number: int, _frame: Any) -> None:
        arrived.append(number)
        for process in started:
            process.send_signal(number)

    with handling(pass_on):
        yield arrived


def relaunch(processes: int) -> None:
    """Run this command in several processes instead and exit with their exit code; return at once in one of them, or
    if ``processes`` is 1."""
    if launcher := os.environ.pop(_LAUNCHER, None):
        end_with_parent(partial(_wait_for, int(launcher)))
    if processes > 1 and count() == 1:
        # -m alone also searches the current folder, which holds the user's data; it is searched only if this process
        # was started that way, for then the package itself may be there
        safe = [] if sys.path[:1] in ([""], [os.getcwd()]) else ["-P"]
        command = [sys.executable, *safe, "-m", "tadp_da.cli", *sys.argv[1:], *passed_on]
        sys.exit(launch(command, processes))


def _wait_for(parent: int) -> None:
    """Return once the parent of this process is no longer the one with this id."""
    while os.getppid() == parent:
        time.sleep(0.5)
