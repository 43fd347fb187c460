"""Signals: SIGINT and SIGTERM end a command where nothing is lost.

    with attended():                  # once, around the whole command
        with held():                  # where work must come to a good end first
            for batch in batches:
                ...
                check()               # a good end

A first signal raises :class:`Stop` where it finds the program, because everything on disk is whole at any moment;
inside ``held`` it waits for ``check``, so that a step is finished and saved. A second one ends the process at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tadp_da.errors import InterruptedRunError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO = 1.0  # seconds: a terminal and a launcher both pass the same key press on
_NOTE = b"\nstopping as soon as this step is saved; a second signal ends at once\n"


class Stop(BaseException):
    """A signal came, and nothing had to be finished first. No ``KeyboardInterrupt``, which command-line libraries turn
    into an exit code of their own, and no ``Exception``, which others catch."""


class _State:
    """What this process knows of signals."""

    process: int = 0
    held: int = 0
    first: float | None = None


_state = _State()


@contextmanager
def attended() -> Iterator[None]:
    """Handle signals inside the block as the module says. Only a main thread can; elsewhere they keep their meaning."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _receive) for number in SIGNALS}
    _state.process, _state.first = os.getpid(), None
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state.first = None


@contextmanager
def held() -> Iterator[None]:
    """Let a first signal wait for :func:`check`, or for the end of the block."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    check()


def asked() -> bool:
    """Whether a signal has come."""
    return _state.first is not None


def check() -> None:
    """A moment at which it is good to stop.

    Raises:
        InterruptedRunError: when a signal has come.
    """
    if asked():
        raise interrupted()


def interrupted(done: str = "") -> InterruptedRunError:
    """What a stop after saving is told as; ``done`` says how far the work came."""
    return InterruptedRunError(
        f"interrupted{', ' + done if done else ''}; what is done is saved",
        fix="run the same command again to go on",
    )


def ignore(_worker: int = 0) -> None:
    """For helper processes: the signals are meant for who started them, and who ends them when it stops."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _receive(number: int, _frame: Any) -> None:
    if os.getpid() != _state.process:  # a forked helper
        return
    now = time.monotonic()
    if _state.first is None:
        _state.first = now
        if not _state.held:
            raise Stop
        os.write(2, _NOTE)
    elif now - _state.first > _ECHO:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
