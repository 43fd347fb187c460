"""What a page is made of: a table, its reports, and the artifacts that they came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from benchmarks.reports.statistics import Comparison
from benchmarks.results import Report
from benchmarks.suite import reads_test_labels
from tadp_da.model_files import FACTS
from tadp_da.storage.artifacts import MANIFEST, input_digest
from tadp_da.types import LabelSpace


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: of its heading, for links.
        title: its heading.
        template: a file of ``templates/``.
        data: what the template shows, as ``data``.
    """

    id: str
    title: str
    template: str
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Material:
    """What sections are made of.

    Attributes:
        title: of the page.
        reports: row to seed to report, in table order.
        comparison: of the reports; None where there is nothing to compare by.
        notes: what the suite noted of every row and seed; empty where nothing was noted.
        folder: the run folder, where artifacts are; None where there is none.
        place: the folder of the page, where an analysis of the table has its findings in a folder of its own.
    """

    title: str
    reports: Mapping[str, Mapping[int, Report]]
    comparison: Comparison | None
    notes: Sequence[Mapping[str, Any]] = ()
    folder: Path | None = None
    place: Path | None = None

    @property
    def rows(self) -> list[str]:
        """Names in table order."""
        return list(self.reports)

    @cached_property
    def seeds(self) -> list[int]:
        """All seeds, in order."""
        return sorted({seed for seeds in self.reports.values() for seed in seeds})

    @cached_property
    def bounds(self) -> dict[str, str]:
        """Rows that know more than the task allows, and what it is. They show what could be reached, and are not
        compared as methods."""
        recipes = {note["row"]: note["recipe"] for note in self.notes}
        trained = {row: "target labels" for row, r in recipes.items() if r.get("train_on") == "target"}
        return trained | {row: "reads test labels" for row, r in recipes.items() if reads_test_labels(r)}

    @property
    def better(self) -> int:
        """1 where a larger measure is better, -1 where a smaller one is."""
        return 1 if self.comparison is None or self.comparison.higher_is_better else -1

    @cached_property
    def findings(self) -> dict[str, dict[str, Any]]:
        """What analyses of the table found, by their names."""
        files = sorted(self.place.glob("*/findings.json")) if self.place else []
        return {file.parent.name: read_json(file) for file in files}

    @cached_property
    def _manifests(self) -> dict[Path, dict[str, Any]]:
        found = sorted(self.folder.glob(f"*/{MANIFEST}")) if self.folder else []
        return {path.parent: read_json(path) for path in found}

    def report(self, row: str, seed: int) -> tuple[Path, dict[str, Any]] | None:
        """The folder and manifest of a report."""
        report = self.reports[row].get(seed)
        folder = report.folder if report else None
        manifest = read_json(folder / MANIFEST) if folder else {}
        return (folder, manifest) if folder and manifest else None

    def model(self, row: str, seed: int) -> tuple[Path, dict[str, Any]] | None:
        """The folder and manifest of the model of a row."""
        found = self.report(row, seed)
        inputs = found[1].get("inputs", {}).get("model") if found else None
        if not isinstance(inputs, dict):
            return None
        key = input_digest(inputs)
        return self._artifact(lambda _, m: m.get("kind") == "model" and m.get("key") == key)

    def labels(self) -> LabelSpace | None:
        """The label space of the models, as the first that is known says."""
        found = (self.model(row, min(seeds)) for row, seeds in self.reports.items() if seeds)
        for folder, _ in filter(None, found):
            with suppress(ValidationError):
                return TypeAdapter(LabelSpace).validate_python(read_json(folder / FACTS).get("labels"))
        return None

    def concept(self, row: str, seed: int) -> tuple[Path, dict[str, Any]] | None:
        """The folder and manifest of the concept that the model of a row was made with: by its fingerprint, or, where
        only a part of it is used, by what it was learned with. None where nothing was learned."""
        model = self.model(row, seed)
        fingerprint = model[1]["inputs"].get("concept") if model else ""
        if not fingerprint:
            return None
        method = next((n["recipe"].get("personalize") for n in self.notes if n["row"] == row), None) or {}

        def made_by(m: Mapping[str, Any]) -> bool:
            known = m["inputs"].get("method") or {}
            settings = {k: method.get("settings", {}).get(k) for k in known.get("settings", {})}
            same = (known.get("name"), known.get("settings")) == (method.get("name"), settings)
            return same and m["inputs"].get("seed") == seed

        return self._artifact(
            lambda folder, m: (
                m.get("kind") == "concept"
                and read_json(folder / "concept.json").get("fingerprint") == fingerprint
            )
        ) or self._artifact(lambda _, m: m.get("kind") == "concept" and made_by(m))

    def _artifact(self, fits: Any) -> tuple[Path, dict[str, Any]] | None:
        return next(((folder, m) for folder, m in self._manifests.items() if fits(folder, m)), None)

    def made(self) -> Iterator[tuple[str, int, str, Path, dict[str, Any]]]:
        """Row, seed, kind, folder and manifest of every artifact that is known; one that rows share comes once."""
        seen = set[Path]()
        for row, seeds in self.reports.items():
            for seed in sorted(seeds):
                for kind, find in (("concept", self.concept), ("model", self.model), ("report", self.report)):
                    if (found := find(row, seed)) and found[0] not in seen:
                        seen.add(found[0])
                        yield row, seed, kind, *found


def read_json(path: Path) -> dict[str, Any]:
    """What is in a file; nothing where it cannot be read: a page is written of what there is."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log in JSON that can be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [found for line in lines if isinstance(found := json.loads(line), dict)]
    except (OSError, ValueError):
        return []
