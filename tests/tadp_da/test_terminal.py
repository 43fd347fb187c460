"""What is printed: text, whatever is in a name."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from tadp_da.cli.options import out
from tadp_da.run import Run
from tadp_da.terminal import Lines, TextConsole, prepare_streams, print_json, printable, progress
from tests.tadp_da.domains import trees

HOSTILE = "night[/x] :car: [bold]\x1b[31m\x9b\r\x08\u202e\udcdf"
SHOWN = r"night[/x] :car: [bold]\x1b[31m\x9b\r\x08\u202e\udcdf"


class Screen(io.StringIO):
    """A file that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_escapes_leave_ordinary_text_alone() -> None:
    assert printable(HOSTILE) == SHOWN == printable(SHOWN)
    assert printable(plain := "grün 街\t[x]\nnext ± 👩\u200d🔧") == plain


@pytest.mark.parametrize("wrap", [str, Text, lambda text: [text]], ids=["str", "Text", "list"])
def test_nothing_is_markup_and_no_control_code_reaches_the_terminal(wrap: Callable[[str], object]) -> None:
    out = TextConsole(file=(file := io.StringIO()), width=300)
    out.print(wrap(HOSTILE))
    if wrap is str:
        assert file.getvalue() == SHOWN + "\n"
    assert "night[/x] :car: [bold]" in file.getvalue()
    assert not set("\x1b\x9b\r\x08\u202e\udcdf") & set(file.getvalue())


def test_tables_are_text_too() -> None:
    table = Table(HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE)
    TextConsole(file=(file := io.StringIO()), width=300).print(table)
    assert file.getvalue().count(SHOWN) == 4
    assert len({len(line) for line in file.getvalue().splitlines() if "┃" in line or "│" in line}) == 1


def test_names_of_classes_in_a_table_of_a_command_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("class")
    table.add_row("car [left]")
    out.print(table)
    assert "car [left]" in capsys.readouterr().out


def test_only_one_module_prints_with_rich() -> None:
    """The others print through it, so that none forgets that names are not markup."""
    parts = ("tadp_da", "adapt", "personalize", "benchmarks")
    sources = [path for part in parts for path in Path(__file__).parents[2].joinpath(part).rglob("*.py")]
    found = [
        path.name
        for path in sources
        if re.search(r"rich\.(console|progress|markup)", path.read_text("utf-8"))
    ]
    assert found == ["terminal.py"]


def test_long_lines_are_not_broken() -> None:
    out = TextConsole(file=(file := io.StringIO()), width=20)
    out.print(path := "a/" * 40)
    assert file.getvalue() == path + "\n"


@pytest.mark.parametrize("stream", [Screen, io.StringIO])
def test_progress_shows_names_as_text(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := stream())
    monkeypatch.setenv("COLUMNS", "300")
    with Run(folder=Path("x")).progress(1, HOSTILE) as advance:
        advance(HOSTILE)
    with progress(1, "quiet", quiet=True) as advance:
        advance("")
    assert file.getvalue().count(SHOWN) >= 2
    assert "\x9b" not in file.getvalue()
    assert "\x1b[31m\x9b" not in file.getvalue()


def test_streams_and_warnings_take_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    assert logging.lastResort is not None
    monkeypatch.setattr(logging, "lastResort", handler := type(logging.lastResort)())
    prepare_streams()
    print_json({"x": HOSTILE})
    handler.handle(logging.LogRecord("x", logging.WARNING, "", 0, "in %s", (HOSTILE + "街",), None))
    written = [stream.buffer.getvalue() for stream in streams if not stream.flush()]  # type: ignore[attr-defined]
    assert json.loads(written[0]) == {"x": HOSTILE}
    assert written[1].decode() == rf"in {SHOWN}\u8857" + "\n"


def test_commands_take_folders_with_brackets(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        trees.picture(tmp_path / f"night[/x]/[red]{name}.png")
    assert command("data", "check", tmp_path / "night[/x]") == 0
    assert f"{tmp_path}/night[/x]" in capsys.readouterr().out
    (tmp_path / "night[/x]/[red]b.png").write_bytes(b"")
    assert command("data", "check", tmp_path / "night[/x]") == 3
    assert "night[/x]/[red]b.png" in capsys.readouterr().out
    assert command("rewrite", "a [/car]", "--strategy", "null", "--style", "[bold]x") == 0
    assert capsys.readouterr().out.count("a [/car]") == 2


def log(total: int, seconds: float) -> list[str]:
    """Lines of work whose units take so many seconds."""
    now, lines = [0.0], list[str]()
    advance = Lines(total, "fine-tuning", lines.append, lambda: now[0])
    for unit in range(total):
        now[0] += seconds
        advance(f"loss {unit + 1}")
    advance.end()
    return lines


def test_a_log_says_how_far_a_long_training_is() -> None:
    lines = log(600, 1.0)  # ten minutes
    assert len(lines) == 20
    assert lines[0] == "fine-tuning: 30 of 600, loss 30, 1 s each, 0:09:30 left"
    assert lines[-1] == "fine-tuning: 600 done, loss 600"


def test_a_log_has_a_line_for_each_tenth_of_a_shorter_one() -> None:
    lines = log(100, 0.6)
    assert [line.split()[1] for line in lines] == [str(n) for n in range(10, 101, 10)]
    assert lines[1] == "fine-tuning: 20 of 100, loss 20, 1.67/s, 0:00:48 left"


def test_what_is_over_soon_has_one_line_in_a_log() -> None:
    assert log(1000, 0.001) == ["fine-tuning: 1000 done, loss 1000"]
    assert log(1, 100) == ["fine-tuning: done, loss 1"]
