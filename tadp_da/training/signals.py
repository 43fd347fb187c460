"""Signals: SIGINT, SIGTERM, SIGUSR1 and SIGHUP stop a command without losing work.

    with attended():                  # once, around the whole command
        with held():                  # where work must be completed first
            for batch in batches:
                ...
                check()               # a good moment to stop

The first signal raises :class:`Stop` wherever the program is, because files are complete at any moment; inside ``held``
it waits for ``check``, so that a step is finished and saved. A second signal ends the process at once.

Worker processes call :func:`end_with_parent`: when their parent is killed they stop as after a signal.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from typing import Any

from tadp_da.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_ECHO = 1.0  # seconds: a terminal or a batch system, and the parent process, send the same signal
_NOTE = b"\nstopping as soon as this step is saved; a second signal ends at once\n"


class Stop(BaseException):
    """A signal arrived outside :func:`held`. It is no ``KeyboardInterrupt``, which command-line libraries turn into an
    exit code of their own, and no ``Exception``, which others catch."""


class _State:
    """The signals that this process has received."""

    process: int = 0
    held: int = 0
    first: float | None = None


_state = _State()


@contextmanager
def handling(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle :data:`SIGNALS` inside the block. SIGUSR1 and SIGHUP stay ignored where they were (``nohup``)."""
    always = (signal.SIGINT, signal.SIGTERM)
    numbers = [n for n in SIGNALS if n in always or signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def attended() -> Iterator[None]:
    """Handle signals inside the block as described above; does nothing outside the main thread, which alone can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with handling(_receive):
        _state.process, _state.first = os.getpid(), None
        try:
            yield
        finally:
            _state.first = None


@contextmanager
def held() -> Iterator[None]:
    """Let the first signal wait for :func:`check`, or for the end of the block."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    check()


def asked() -> bool:
    """Whether a signal has arrived."""
    return _state.first is not None


def check() -> None:
    """Stop here if a signal has arrived.

    Raises:
        InterruptedRunError: if so.
    """
    if asked():
        raise interrupted()


def interrupted(done: str = "") -> InterruptedRunError:
    """The error that reports a stop after saving; ``done`` says how far the work has come."""
    return InterruptedRunError(
        f"interrupted{', ' + done if done else ''}; what is done is saved",
        fix="run the same command again to go on",
    )


def end_with_parent(gone: Callable[[], object] | None = None, number: int = signal.SIGTERM) -> None:
    """Send this worker process a signal when its parent has ended, even if that was killed.

    Args:
        gone: returns when the parent has ended; of processes started by ``multiprocessing`` it is known.
        number: the signal.
    """
    parent = parent_process()
    wait = gone or (parent.join if parent else None)
    assert wait is not None, "only a worker process has a parent to wait for"

    def watch() -> None:
        wait()
        os.kill(os.getpid(), number)

    threading.Thread(target=watch, daemon=True).start()


def data_worker(_worker: int = 0) -> None:
    """Set up a data-loading process: it ignores signals, for its parent ends it, and does not outlive its parent."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(number=signal.SIGKILL)


def _receive(number: int, _frame: Any) -> None:
    if os.getpid() != _state.process:  # a forked worker
        return
    now, first = time.monotonic(), _state.first
    if first is None:
        _state.first = now
        if _state.held:
            with suppress(OSError):
                os.write(2, _NOTE)
    if number == signal.SIGHUP:
        _leave_terminal()
    if first is None and not _state.held:
        raise Stop
    if first is not None and now - first > _ECHO:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _leave_terminal() -> None:
    """Write nothing to a closed terminal: that fails, and would end the process before it has saved."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(stream).st_mode):
                os.dup2(null, stream)
    os.close(null)
