"""The demo as a stranger runs it: real weights, real scenes, minutes rather than seconds."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from benchmarks.demo import run_demo
from tadp_da.run import Run
from tadp_da.terminal import TextConsole


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demo_fills_its_table_and_says_where_everything_is(tmp_path: Path) -> None:
    text = io.StringIO()
    folder = run_demo(
        Run(folder=tmp_path / "demo", device="cpu"), tmp_path / "data", TextConsole(file=text, width=160)
    )
    table = json.loads((folder / "table.json").read_text())
    scores = {row["name"]: row["primary"]["mean"] for row in table["rows"]}
    assert set(scores) == {"null", "strong", "dreambooth", "best"}
    # 8 classes: a network that learned nothing stays near the 4 % of calling everything road
    assert min(scores.values()) > 20
    for name in ("index.html", "table.md", "scores.png", "panels.png", "concept_before_after.png"):
        assert (folder / name).stat().st_size > 500
        assert name in text.getvalue()
