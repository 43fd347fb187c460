"""A small sound set to spoil, and the one thing that a check finds wrong with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tadp_da import cli
from tadp_da.domains import Domain
from tadp_da.domains.checks.report import CheckReport, DataFinding
from tadp_da.domains.checks.validate import check_data
from tadp_da.domains.formats.folder import folder_domain
from tests.tadp_da.domains import trees

CLASSES = ("sky", "road")


def four_pictures(root: Path) -> Path:
    """Four pictures with masks of both classes, in ``i`` and ``m``."""
    for number in range(4):
        trees.picture(root / f"i/{number}.png")
        trees.mask(root / f"m/{number}.png", (1, 0, 0, 255))
    return root


def mine(root: Path) -> Domain:
    """The domain of these folders."""
    return folder_domain("mine", images=root / "i", masks=root / "m", classes=CLASSES)


def check(root: Path) -> CheckReport:
    """What is wrong with them."""
    return check_data(mine(root), root)


def only(report: CheckReport, level: str = "error") -> DataFinding:
    """The one finding of the report."""
    (finding,) = report.all_findings
    assert finding.level == level
    assert report.ok == (level == "warning")
    assert any(finding.what in line for line in report.lines())
    assert any(finding.fix in line for line in report.lines())
    return finding


def command(*words: object) -> int:
    """Runs ``tadp-da`` in this process; its exit code."""
    old, sys.argv = sys.argv, ["tadp-da", *map(str, words)]
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.argv = old
    return int(left.value.code or 0)
