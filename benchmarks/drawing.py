"""Drawing a split of the drawn world ahead of its use, in a process that has little to import and starts at once."""

from __future__ import annotations

from pathlib import Path

from tadp_da.domains import domains
from tadp_da.run import Run


def draw_now(wanted: tuple[str, str, Path], _run: Run) -> str:
    """Draw a split, given as domain, split and data folder; rows that run side by side then find it."""
    name, split, data = wanted
    return f"{name} {split}: {len(domains[name].unlabeled(data, split))} images"
