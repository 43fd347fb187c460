"""Time and memory of a piece of work, and processes of their own to measure it in."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from tadp_da.errors import EnvironmentSetupError

MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """What one piece of work took.

    Attributes:
        seconds: of wall time.
        cpu_seconds: of all threads of the process; on a busy machine it says more than wall time.
        extra_bytes: peak of memory above what was held before.
    """

    seconds: float
    cpu_seconds: float
    extra_bytes: int

    def as_json(self) -> str:
        """One line, as :func:`apart` reads it."""
        return json.dumps(asdict(self))


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
    with _Peak(device) as peak:
        begun, cpu = time.perf_counter(), time.process_time()
        kept = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    del kept
    return Cost(seconds, cpu_seconds, peak.extra)


class _Peak(AbstractContextManager["_Peak"]):
    """Peak of memory above what was held on entering: of the device's allocator, or of the resident set."""

    extra: int

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> _Peak:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
            return self
        _give_back()
        self.exact = _forget_peak()
        self.before = self.highest = psutil.Process().memory_info().rss
        self.done = threading.Event()
        self.watch = threading.Thread(target=self._look, daemon=True)
        if not self.exact:
            self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.extra = torch.cuda.max_memory_allocated(self.device) - self.before
            return
        if self.exact:
            self.highest = _status("VmHWM")
        else:
            self.done.set()
            self.watch.join()
        self.extra = self.highest - self.before

    def _look(self) -> None:
        process = psutil.Process()
        while not self.done.wait(0.002):
            self.highest = max(self.highest, process.memory_info().rss)


def _give_back() -> None:
    """Return freed memory to the system (glibc), so that it is counted when it is taken again."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _forget_peak() -> bool:
    """Let Linux count the peak of the resident set anew; elsewhere it must be watched."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmHWM") > 0
    except (OSError, StopIteration):
        return False


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


def apart(module: str, words: Sequence[str]) -> Any:
    """The last line that ``python -m module words`` prints, read as JSON. Memory of one measurement is none of the
    next.

    Raises:
        EnvironmentSetupError: when the process fails, most likely for want of memory.
    """
    done = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise EnvironmentSetupError(
            f"a measurement ended with exit code {done.returncode}: {last}",
            where=" ".join(["python -m", module, *words]),
            fix="leave it out with --only, or take a machine with more memory",
        )
    return json.loads(lines[-1])
