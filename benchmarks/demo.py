"""The demo: the whole figure on the drawn world in a few minutes, with a table that says what it brought."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from benchmarks.drawing import draw_now
from benchmarks.publishing import publish
from benchmarks.recipe import read_benchmark
from benchmarks.reports.page.material import Material
from benchmarks.reports.tables import terminal, terminal_classes
from benchmarks.suite import Reports, run_suite
from benchmarks.workers import run_parallel
from personalize.training import PICTURE
from tadp_da.run import Run
from tadp_da.terminal import TextConsole

NAME = "demo"
SPLITS = (("mini-day", "train"), ("mini-night", "unlabeled"), ("mini-day", "test"), ("mini-night", "test"))


def run_demo(run: Run, data: Path, out: TextConsole) -> Path:
    """Fill the demo's table at one seed and show it.

    Args:
        run: folder and seed.
        data: folder that the world is drawn into.
        out: where to print.

    Returns:
        The folder with table and images.
    """
    begun = time.perf_counter()
    table = read_benchmark(NAME)
    out.print(
        "Source: drawn street scenes by day, with masks. Target: the same world at a night that the diffusion model "
        "never saw, images only.\nThe demo learns the night (DreamBooth) and adapts four models: null (the plain "
        "caption), strong (augmentation that sees no night), dreambooth (with what was learned), best (all of it, and "
        "self-training on night images).",
        soft_wrap=False,
    )
    jobs = min(len(table.rows), os.cpu_count() or 1)  # two slow processes do more than one of two threads
    run_parallel(draw_now, [(name, split, data) for name, split in SPLITS], run, jobs, "drawing")
    reports = run_suite(table, (run.seed,), run, data, jobs)
    comparison, written, page = publish(NAME, reports, run.folder / "report", table=(run.folder, NAME))
    before_after = _before_after(reports, run)
    out.print(terminal(comparison))
    out.print(terminal_classes(comparison))
    shown = [
        page,
        written.markdown,
        written.plot,
        *([written.panels] if written.panels else []),
        before_after,
    ]
    out.print("Look at:", *(f"  {path}" for path in shown), sep="\n")
    out.print(
        f"One seed shows the way, not the size: `tadp-da benchmark run mini-night --seeds 0,1,2` gives means and "
        f"intervals. {time.perf_counter() - begun:.0f} s.",
        soft_wrap=False,
    )
    return written.markdown.parent


def _before_after(reports: Reports, run: Run) -> Path:
    """The personalizer's image of samples before and after, copied beside the table."""
    material = Material(title=NAME, reports=reports, comparison=None, folder=run.folder)
    found = material.concept("dreambooth", run.seed)
    assert found is not None  # the row was just made with it
    return Path(shutil.copy(found[0] / PICTURE, run.folder / "report" / "concept_before_after.png"))
