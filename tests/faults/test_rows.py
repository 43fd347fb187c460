"""Every fault that the project has thought of is provoked by a test, or listed in CONTRIBUTING.md with the reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FAULTS = range(1, 78)
_SECTION = re.compile(r"^## Faults and their tests\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def provoked() -> set[int]:
    """Rows in the names of tests: ``test_row_03_04_what_happens`` provokes both."""
    names = (
        node.name
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    )
    rows = (re.match(r"test_row_((?:\d\d_)+)", name) for name in names)
    return {int(row) for match in rows if match for row in match[1].strip("_").split("_")}


def excepted() -> dict[int, str]:
    """Rows of the table of faults without a test, and why."""
    section = _SECTION.search((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert section, "CONTRIBUTING.md has no section 'Faults and their tests'"
    return {
        int(row): why.strip() for row, why in re.findall(r"^- row (\d+): (.+)$", section[1], re.MULTILINE)
    }


def test_every_row_has_a_test_or_a_reason() -> None:
    missing = set(FAULTS) - provoked() - excepted().keys()
    assert not missing, f"no test and no reason for rows {sorted(missing)}"


def test_no_row_is_excepted_that_is_tested_and_none_is_unknown() -> None:
    assert not provoked() & excepted().keys()
    assert provoked() | excepted().keys() <= set(FAULTS)
