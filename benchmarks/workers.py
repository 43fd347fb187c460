"""Independent tasks in several processes: each with a GPU of its own, or a share of the cores."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from tadp_da.errors import EnvironmentSetupError, InterruptedRunError, TadpError
from tadp_da.run import Run
from tadp_da.training.signals import Stop, attended, end_with_parent

T = TypeVar("T")


def run_parallel(
    work: Callable[[T, Run], str],
    tasks: Sequence[T],
    run: Run,
    jobs: int,
    title: str = "tasks",
    choose: Callable[[Sequence[T], Sequence[T]], int | None] = lambda left, running: 0,
) -> None:
    """Call ``work(task, run)`` for every task, in ``jobs`` processes.

    When one fails, or this process is signalled or killed, the others stop as after a signal: they save their step.

    Args:
        work: a function of a module; its result is shown beside the progress bar.
        tasks: can be pickled.
        run: with device ``auto`` and several GPUs, process i gets GPU i.
        jobs: number of processes.
        title: of the progress bar.
        choose: index of the task that a free process gets, of those left, while others are running; None to let it wait
            until one of these is done.

    Raises:
        TadpError: the first that a process raised.
        EnvironmentSetupError: when a process died, most often for lack of memory.
    """
    left = list(tasks)
    ends = dict(_start(work, run, number, jobs) for number in range(min(jobs, len(tasks))))
    busy, idle, running = set(ends), set[Connection](), dict[Connection, T]()
    try:
        with run.progress(len(tasks), title) as advance:
            while busy:
                for end in wait(list(busy)):
                    assert isinstance(end, Connection)
                    if (done := _receive(end, ends[end])) is not None:
                        advance(done)
                    running.pop(end, None)
                    idle.add(end)
                for end in sorted(idle, key=list(ends).index):
                    chosen = choose(left, list(running.values())) if left else None
                    if left and chosen is None and running:
                        continue
                    task = left.pop(chosen or 0) if left else None
                    end.send(task)
                    idle.remove(end)
                    if task is None:
                        busy.remove(end)
                    else:
                        running[end] = task
    finally:
        for end in busy:
            ends[end].terminate()  # SIGTERM: it saves, then ends
        for process in ends.values():
            process.join()


def _start(work: Callable[[Any, Run], str], run: Run, number: int, jobs: int) -> tuple[Connection, Any]:
    context = get_context("spawn")  # a fork would break torch's threads and CUDA
    ours, theirs = context.Pipe()
    process = context.Process(target=_worker, args=(theirs, run, number, jobs))
    process.start()
    ours.send(work)
    theirs.close()
    return ours, process


def _receive(end: Connection, process: Any) -> str | None:
    """The result of a process's task; None if it asks for its first task."""
    try:
        message: TadpError | str | None = end.recv()
    except EOFError:
        process.join()
        raise EnvironmentSetupError(
            f"a worker process died without reporting an error (exit code {process.exitcode})",
            fix="look for lack of memory (-9: the system killed it), and take fewer --jobs",
        ) from None
    if isinstance(message, TadpError):
        raise message
    return message


def _worker(end: Connection, run: Run, number: int, jobs: int) -> None:
    import torch

    end_with_parent()
    # it warns on import of a kernel that nothing here uses; what imports it comes with the work
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    work: Callable[[Any, Run], str] = end.recv()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    run = replace(run, device=_device(run.device, number), quiet=run.quiet or sys.stderr.isatty())
    try:
        with attended():
            end.send(None)
            while (task := end.recv()) is not None:
                end.send(work(task, run))
    except TadpError as error:
        with suppress(BrokenPipeError):
            end.send(error)
    except (Stop, EOFError, BrokenPipeError):  # a signal, or the parent is gone
        sys.exit(InterruptedRunError.exit_code)


def _device(asked: str, number: int) -> str:
    import torch

    many = asked == "auto" and torch.cuda.device_count() > 1
    return f"cuda:{number % torch.cuda.device_count()}" if many else asked
