"""What is printed is text: nothing in a name, path or caption is markup, and no control code reaches the terminal."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console
from rich.segment import Segment
from rich.text import Text

T = TypeVar("T")
# control codes except for tabs and line breaks, marks that change the direction of text, and undecodable bytes
_HIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Text with control codes, direction marks and undecodable bytes written as escapes: ``\\x1b``, ``\\udcdf``."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class TextConsole(Console):
    """A console that prints strings as they are, in tables and progress bars too, with :func:`printable` applied.

    The terminal wraps long lines, so that paths can be copied; tables and the like fit its width.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's, for strings without wrapping."""
        options.setdefault("soft_wrap", all(isinstance(each, str | Text) for each in objects))
        super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Before rich drops some control codes and measures the width."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """For what was made outside of :meth:`render_str`, such as ``Text``."""
        for part in super().render(renderable, options):
            yield part if part.control else part._replace(text=printable(part.text))


class Lines:
    """Progress for the reader of a log: a line every half minute or tenth part, whichever is sooner.

    Args:
        total: units.
        description: what is being done.
        write: takes each line.
        clock: in seconds.
    """

    SELDOM, OFTEN = 30, 5  # seconds between lines

    def __init__(
        self,
        total: int,
        description: str,
        write: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total, self.description, self.write, self.clock = total, description, write, clock
        self.done, self.note = 0, ""
        self.begun = self.last = clock()
        self.told = 0

    def __call__(self, note: str) -> None:
        """Count a unit."""
        self.done, self.note, now = self.done + 1, note, self.clock()
        tenth = 10 * self.done // self.total > 10 * self.told // self.total
        since = now - self.last
        if self.done < self.total and (since >= self.SELDOM or (tenth and since >= self.OFTEN)):
            each = (now - self.begun) / self.done
            left = timedelta(seconds=round(each * (self.total - self.done)))
            speed = f"{1 / each:.3g}/s" if each < 1 else f"{each:.3g} s each"
            self._tell(f"{self.done} of {self.total}", f"{speed}, {left} left")
            self.last, self.told = now, self.done

    def end(self) -> None:
        """The last line."""
        self._tell("done" if self.total == 1 else f"{self.total} done")

    def _tell(self, count: str, *more: str) -> None:
        self.write(f"{self.description}: {', '.join(filter(None, (count, self.note, *more)))}")


@contextmanager
def progress(
    total: int, description: str, *, quiet: bool = False, transient: bool = False
) -> Iterator[Callable[[str], None]]:
    """A progress bar on a terminal, elsewhere :class:`Lines`. Call the yielded function once per unit with a short
    note."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = TextConsole(stderr=True, quiet=quiet)
    if not sys.stderr.isatty():
        lines = Lines(total, description, console.print)
        yield lines
        lines.end()
        return
    what, note = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[note]"))
    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
    with Progress(*columns, console=console, transient=transient) as bar:
        task = bar.add_task(printable(description), total=total, note="")
        yield lambda note: bar.update(task, advance=1, note=printable(note))


def tracked(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """Items, with a progress bar that goes when they end; silent where there is no terminal."""
    with progress(total, description, quiet=not sys.stderr.isatty(), transient=True) as advance:
        for item in items:
            yield item
            advance("")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def prepare_streams() -> None:
    """Make warnings and both output streams of this process safe for any text."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Formatter())


def print_json(value: Any) -> None:
    """Write JSON to the standard output, in ASCII."""
    sys.stdout.write(json.dumps(value, indent=1) + "\n")
