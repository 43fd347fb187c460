"""Time and memory of a piece of work, in a process of its own where memory of the one before must not count."""

from __future__ import annotations

import argparse
import ctypes
import gc
import multiprocessing
import platform
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
import torch

from tadp_da.doctor.finding import in_a_line
from tadp_da.errors import EnvironmentSetupError

MIB = 2**20
T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What one piece of work took.

    Attributes:
        seconds: wall time.
        cpu_seconds: of all threads of the process; on a busy machine it says more than wall time.
        extra_bytes: peak of memory above what was held before.
    """

    seconds: float
    cpu_seconds: float
    extra_bytes: int


def measure(
    work: Callable[[], Any], device: torch.device, *, reset: Callable[[], Any] = lambda: None
) -> Cost:
    """Do the work twice and measure the second time: the first one pays for what libraries set up once.

    Args:
        work: what it returns is held until it is measured.
        device: where it runs.
        reset: frees what the work has left behind, such as gradients.
    """
    work()
    reset()
    gc.collect()
    peak = peak_of(device)
    begun, cpu = time.perf_counter(), time.process_time()
    held = work()
    synchronize(device)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    extra = peak()
    del held
    return Cost(seconds, cpu_seconds, extra)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_of(device: torch.device) -> Callable[[], int]:
    """Watch memory from now on; the function returns its peak above what is held now: that of the device's allocator,
    or the resident set."""
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        allocated = torch.cuda.memory_allocated(device)
        return lambda: torch.cuda.max_memory_allocated(device) - allocated
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)  # return freed memory to the system (glibc), so that it is counted when it is taken again
    process = psutil.Process()
    before = highest = process.memory_info().rss
    if _reset_peak():
        return lambda: _high_water() - before
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, process.memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()

    def stop() -> int:
        done.set()
        thread.join()
        return highest - before

    return stop


def _reset_peak() -> bool:
    """Let Linux count the peak of the resident set anew; elsewhere it must be watched."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _high_water() > 0
    except (OSError, StopIteration):
        return False


def _high_water() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def apart(work: Callable[..., T], *arguments: Any) -> T:
    """The result of ``work`` in a new process.

    Raises:
        EnvironmentSetupError: when it fails, most likely for lack of memory.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(work, *arguments).result()
    except (RuntimeError, MemoryError) as error:  # a killed process is a BrokenProcessPool
        raise EnvironmentSetupError(
            f"a measurement failed: {in_a_line(error)}",
            where=", ".join(map(str, arguments)),
            fix="leave it out with --only, or use a machine with more memory",
        ) from error


def options_of(module: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options that all measurements share."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--device", default="cpu")
    return parser


def machine(device: str) -> str:
    """The end of a report: where it was measured."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor()
    return f"{device} {name}, {torch.get_num_threads()} threads, torch {torch.__version__}."
