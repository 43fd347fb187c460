"""What is printed is text: nothing in a name, path or caption is markup, and no control code reaches the terminal."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


@contextmanager
def progress(
    total: int, description: str, *, quiet: bool = False, transient: bool = False
) -> Iterator[Callable[[str], None]]:
    """A progress bar on a terminal, one line at the end elsewhere. Call the yielded function once per unit with a short
    note."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = TextConsole(stderr=True, quiet=quiet)
    if not sys.stderr.isatty():
        last = [""]
        yield lambda note: last.__setitem__(0, note)
        count = "" if total == 1 else f"{total} "
        console.print(f"{description}: {count}done{', ' + last[0] if last[0] else ''}")
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
