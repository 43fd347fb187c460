"""A table as one HTML file that shows everything by itself: no framework, nothing from a network, no second file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.reports.page import attention, course, pictures, scores
from benchmarks.reports.page.material import Material, Section
from benchmarks.reports.statistics import Comparison
from benchmarks.reports.tables import ABSENT
from benchmarks.results import Report
from tadp_da.images import output_folder
from tadp_da.storage.files import write_text
from tadp_da.tasks import in_unit
from tadp_da.terminal import printable

PAGE = "index.html"
SECTIONS: tuple[Callable[[Material], Section | None], ...] = (
    scores.verdict,
    scores.table,
    scores.seeds,
    scores.differences,
    scores.classes,
    pictures.images,
    pictures.extremes,
    pictures.concepts,
    attention.attention,
    course.curves,
    course.health,
    course.findings,
    course.facts,
)
"""Parts of the page in their order; one that has nothing to show is None. Add a function here, and a template."""


def write_page(
    title: str,
    reports: Mapping[str, Mapping[int, Report]],
    comparison: Comparison | None,
    folder: Path,
    *,
    notes: Sequence[Mapping[str, Any]] = (),
    artifacts: Path | None = None,
) -> Path:
    """Write :data:`PAGE` into a folder.

    Args:
        title: of the page.
        reports: row to seed to report, in table order.
        comparison: of the reports; None where there is nothing to compare by.
        folder: created if it does not exist.
        notes: what the suite noted of every row and seed.
        artifacts: the run folder, where the reports, models and concepts are.

    Returns:
        The path of the page.
    """
    material = Material(
        title=title, reports=reports, comparison=comparison, notes=notes, folder=artifacts, place=folder
    )
    sections = [found for make in SECTIONS if (found := make(material)) is not None]
    path = output_folder(folder) / PAGE
    write_text(
        path,
        _template(comparison.unit if comparison else "%").render(
            title=title, lead=_lead(material), sections=sections, **_assets()
        ),
    )
    return path


def _lead(material: Material) -> str:
    """One sentence on what the page is about."""
    found = [r.evaluations for seeds in material.reports.values() for r in seeds.values()]
    domains = {name: (e.domain, e.images) for evaluations in found for name, e in evaluations.items()}
    told = [
        f"{what} {domains[name][0]} ({domains[name][1]} test images)"
        for name, what in (("source", "labels of"), ("target", "target"), ("test", "test images of"))
        if name in domains
    ]
    rows, seeds = len(material.rows), len(material.seeds)
    told.append(f"{rows} row{'s' * (rows != 1)} at {seeds} seed{'s' * (seeds != 1)}")
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]}."


@cache
def _assets() -> dict[str, str]:
    """Style and script, and the digest by which the page allows its own script and no other."""
    style, script = ((files(__name__) / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": style, "script": script, "digest": digest}


@cache
def _template(unit: str) -> Any:
    """The page's template; numbers are values in this unit unless it says otherwise. Whatever is filled in is
    text: names, captions and paths are never markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def text(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader(__name__),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": partial(_number, unit), "duration": _duration, "p": _p}
    return environment.get_template("page.html")


def _number(unit: str, value: float | None, form: str = "") -> str:
    """A number in a unit, with a sign if ``form`` is "+", or in that form; a dash where there is none."""
    return ABSENT if value is None else format(value, form) if form.strip("+") else in_unit(value, unit, form)


def _p(value: float | None) -> str:
    """A p-value in a table."""
    return ABSENT if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _duration(seconds: float | None) -> str:
    """Seconds in words."""
    if seconds is None:
        return ABSENT
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
