"""Every fault in the table of ``README.md`` is provoked by a test, or has a reason why it cannot be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+) \|$", re.MULTILINE)
ROWS = {int(number): tests for number, _, _, tests in ROW.findall((FOLDER / "README.md").read_text("utf-8"))}
TESTS = {
    node.name
    for path in sorted(FOLDER.parent.rglob("test_*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.FunctionDef)
}


def test_rows_are_numbered_without_a_gap() -> None:
    assert list(ROWS) == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 77


def test_every_row_names_tests_that_exist_or_a_reason() -> None:
    for number, cell in ROWS.items():
        names = set(re.findall(r"`(test_\w+)`", cell))
        assert names or cell.startswith("- "), f"row {number} names no test and no reason"
        assert names <= TESTS, f"row {number}: no test is named {sorted(names - TESTS)}"
