"""Rows and seeds of a table on other machines: as tasks of Ray, or as an array job of Slurm.

Every machine needs this package in an environment like this one, and the run folder and the data at the same paths.
A row whose machine is lost is started again elsewhere, and goes on from its last checkpoint in the run folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tadp_da.errors import EnvironmentSetupError, TadpError, UsageError
from tadp_da.run import Run
from tadp_da.training.signals import attended

T = TypeVar("T")
RETRIES = 3
"""How often Ray starts a row again whose machine or process was lost."""
_MOST_TIMES = 1000


def run_on(where: str, work: Callable[[T, Run], str], tasks: Sequence[T], run: Run, title: str) -> None:
    """Call ``work(task, run)`` for every task, on a cluster.

    Args:
        where: ``"ray"`` for a cluster of Ray that lasts as long as the command, or that ``RAY_ADDRESS`` names;
            ``"ray:ADDRESS"``; ``"slurm"``, or ``"slurm:KEY=VALUE,..."`` with parameters of submitit's ``AutoExecutor``,
            such as ``slurm_partition=gpu``. ``slurm:cluster=local`` runs the jobs on this machine, without Slurm.
        work: a function of a module; its result is shown beside the progress bar.
        tasks: can be pickled.
        run: its folder must be the same on all machines.
        title: of the progress bar.

    Raises:
        UsageError: for another kind of cluster, or a parameter that is not KEY=VALUE.
        EnvironmentSetupError: when the extra is not installed, or a task is lost more often than it is started again.
        TadpError: the first that a task raised; the others are told to stop.
    """
    kind, _, details = where.partition(":")
    if kind not in ("ray", "slurm"):
        raise UsageError(
            f"--on {where!r} names no kind of cluster", fix="write ray, ray:ADDRESS, slurm or slurm:KEY=VALUE"
        )
    run = replace(run, folder=run.folder.absolute(), quiet=True)
    calls = [_Call(work, task, run, tuple(sys.argv)) for task in tasks]
    finished = _on_ray(details, calls) if kind == "ray" else _on_slurm(details, calls)
    with replace(run, quiet=False).progress(len(tasks), title) as advance:
        for result in finished:
            if isinstance(result, TadpError):
                finished.close()
                raise result
            advance(result)


@dataclass(frozen=True)
class _Call:
    """A task as it is sent to another machine."""

    work: Callable[[Any, Run], str]
    task: Any
    run: Run
    argv: tuple[str, ...]

    def __call__(self) -> str | TadpError:
        """Its result, or its error as a value: packages wrap exceptions in their own."""
        sys.argv = list(self.argv)  # records say which command was given
        try:
            with attended():
                return self.work(self.task, self.run)
        except TadpError as error:
            return error

    def checkpoint(self) -> Any:
        """What submitit submits when the job's time is over or it is preempted: the same, which goes on."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _gpus(run: Run) -> int:
    return 0 if run.device in ("cpu", "mps") else 1


def _on_ray(address: str, calls: Sequence[_Call]) -> Generator[str | TadpError]:
    ray = _imported("ray", "ray")
    ray.init(address=address or None, log_to_driver=False, logging_level="error")
    try:
        gpus = min(_gpus(calls[0].run), int(ray.cluster_resources().get("GPU", 0)))
        start = ray.remote(_result).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
        waiting = [start.remote(call) for call in calls]
        try:
            while waiting:
                done, waiting = ray.wait(waiting)
                yield from (_got(ray.get, each, ray.exceptions.RayError) for each in done)
        finally:
            for each in waiting:
                ray.cancel(each)
    finally:
        ray.shutdown()


def _result(call: _Call) -> str | TadpError:
    return call()


def _on_slurm(details: str, calls: Sequence[_Call]) -> Generator[str | TadpError]:
    submitit = _imported("submitit", "slurm")
    options = _parameters(details)
    cluster = str(options.pop("cluster", "slurm"))
    run = calls[0].run
    # a job whose time is over goes on from its checkpoint; submitit gives up after three of them otherwise
    folder = run.folder / "jobs"
    executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=_MOST_TIMES)
    usual: dict[str, Any] = {"name": "tadp-da", "timeout_min": 24 * 60, "gpus_per_node": _gpus(run)}
    if cluster == "slurm":
        usual["slurm_additional_parameters"] = {"requeue": True}  # where a node fails
    try:
        executor.update_parameters(**usual | options)
    except NameError as error:
        raise UsageError(f"--on slurm: {error}", fix="see AutoExecutor of submitit for the names") from None
    jobs = executor.map_array(_result, calls)
    try:
        for job in submitit.helpers.as_completed(jobs):
            yield _got(lambda each: each.result(), job, submitit.core.utils.UncompletedJobError)
    finally:
        for job in jobs:
            if not job.done():
                job.cancel()


def _parameters(text: str) -> dict[str, int | str]:
    parts = [part.partition("=") for part in text.split(",") if part]
    for name, equals, value in parts:
        if not (name and equals and value):
            raise UsageError(
                f"{name!r} is not KEY=VALUE",
                where="--on",
                fix="write slurm:slurm_partition=gpu,timeout_min=600",
            )
    return {name: int(value) if value.isdecimal() else value for name, _, value in parts}


def _got(get: Callable[[Any], Any], handle: Any, lost: type[Exception]) -> str | TadpError:
    try:
        found: str | TadpError = get(handle)
    except lost as error:
        return EnvironmentSetupError(
            f"a row was lost on the cluster: {error}",
            fix="look at the logs of the machine; the same command goes on from the last checkpoint",
        )
    return found


def _imported(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise EnvironmentSetupError(
            f"--on {extra} needs {name}, which does not import here: {error}",
            fix=f"pip install 'tadp-da[{extra}]'",
        ) from None
