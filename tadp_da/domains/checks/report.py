"""The result of checking a data set, as JSON and as text."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tadp_da.domains.formats.files import some

EXAMPLES = 3
"""Places that a finding names."""
Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class DataFinding:
    """One kind of problem in a data set.

    Attributes:
        level: ``"error"`` stops a run or falsifies its numbers, ``"warning"`` may, a ``"note"`` is for information.
        what: the first case, in the words that a run would use.
        count: how many there are of the kind.
        where: the first places.
        fix: what to do about it.
    """

    level: Level
    what: str
    count: int
    where: tuple[str, ...]
    fix: str

    @classmethod
    def at(cls, level: Level, what: str, places: Sequence[object], fix: str = "") -> DataFinding:
        """A finding at some places, of which the first are named."""
        return cls(level, what, len(places), tuple(map(str, places[:EXAMPLES])), fix)

    @property
    def title(self) -> str:
        """Level, problem and number of cases."""
        more = f" (and {self.count - 1} more of this kind)" if self.count > len(self.where) else ""
        return f"{self.level}: {self.what}{more}"

    def lines(self) -> list[str]:
        """For a terminal."""
        places = [f"    where: {place}" for place in self.where if place]
        return [f"  {self.title}", *places, *[f"    fix:   {self.fix}"] * bool(self.fix)]


@dataclass(frozen=True)
class SplitReport:
    """Content of a split.

    Attributes:
        name: the split.
        images: number of images.
        expected: number of images of a complete split, None if unknown.
        sizes: images by ``"1920x1080"`` (width x height, as displayed), most frequent first.
        modes: images by color mode of the file, e.g. ``"RGB"``.
        labels: pixels or objects by class; empty without labels.
        holding: images that contain the class.
        ignored: ignored pixels, or objects marked difficult.
        told: further lines on the labels.
        empty: labelled images without any object, or with ignored pixels only.
        bad: why an image (or its label) cannot be used, by path relative to the root.
        findings: problems of the split.
    """

    name: str
    images: int = 0
    expected: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    holding: Mapping[str, int] = field(default_factory=dict)
    ignored: int = 0
    empty: int = 0
    told: tuple[str, ...] = ()
    bad: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[DataFinding, ...] = ()

    def lines(self, task: str | None) -> list[str]:
        """For a terminal."""
        total = "" if self.expected is None else f" of {self.expected}"
        line = f"{self.name}: {self.images}{total} images"
        if self.sizes:
            line += ", " + some([f"{size} ({count})" for size, count in self.sizes.items()])
        if not set(self.modes) <= {"RGB"}:
            line += "; modes " + some([f"{mode} ({count})" for mode, count in self.modes.items()], 9)
        lines = ["", line, *[f"  {len(self.bad)} of them cannot be used"] * bool(self.bad)]
        lines += self._label_lines(boxes=task == "detection") if self.labels else []
        lines += [f"  {line}" for line in self.told]
        return lines + [line for finding in self.findings for line in finding.lines()]

    def _label_lines(self, boxes: bool) -> list[str]:
        total = sum(self.labels.values()) or 1
        width = max(map(len, self.labels))
        lines = []
        for name, amount in self.labels.items():
            shown = f"{amount:8d}" if boxes else f"{100 * amount / total:7.2f} %"
            lines.append(f"  {name:{width}}  {shown}  in {self.holding[name]} images")
        if boxes:
            return [*lines, f"  {self.ignored} objects are difficult; {self.empty} images have no object"]
        return [*lines, f"  {100 * self.ignored / (self.ignored + total):.2f} % of all pixels are ignored"]


@dataclass(frozen=True)
class CheckReport:
    """Result of :func:`tadp_da.domains.checks.validate.check_data`; ``findings`` are those across splits."""

    domain: str
    root: str
    task: str | None
    splits: tuple[SplitReport, ...]
    findings: tuple[DataFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether the data can be used, with or without warnings."""
        return not any(finding.level == "error" for finding in self.all_findings)

    @property
    def all_findings(self) -> tuple[DataFinding, ...]:
        """Findings within the splits and across them."""
        return tuple(f for split in self.splits for f in split.findings) + self.findings

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"ok": self.ok} | dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [line for split in self.splits for line in split.lines(self.task)]
        lines += [line for finding in self.findings for line in finding.lines()]
        levels = Counter(finding.level for finding in self.all_findings)
        kinds = (
            "1 kind of error: fix it"
            if levels["error"] == 1
            else f"{levels['error']} kinds of errors: fix them"
        )
        verdict = "ready to use" if self.ok else f"{kinds} first"
        verdict += f"; {levels['warning']} warnings" if levels["warning"] else ""
        return [f"{self.domain} in {self.root}", *lines, "", verdict]
