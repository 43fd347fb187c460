"""Look at a whole data set before anything is trained on it: every picture decoded, every label read, counts compared,
test pictures looked for among the training pictures. What is wrong is told with the first offenders and the mend."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tadp_da.domains import Domain, domains
from tadp_da.domains.formats.files import some
from tadp_da.domains.shared.driving import Heard, hearing, misnamed
from tadp_da.errors import DataError, TadpError
from tadp_da.images import open_image, opened
from tadp_da.storage.files import file_digest
from tadp_da.types import Boxes, LabelSpace

Tracked = Callable[[Iterable[Any], int, str], Iterable[Any]]
_OFFENDERS = 3


@dataclass(frozen=True)
class Finding:
    """One kind of trouble.

    Attributes:
        level: ``"error"`` stops a run or falsifies its numbers, ``"warning"`` may.
        what: the first case, as a run would tell it.
        count: how many there are of the kind.
        where: the first offenders.
        fix: the mend.
    """

    level: Literal["error", "warning"]
    what: str
    count: int
    where: tuple[str, ...]
    fix: str


@dataclass(frozen=True)
class SplitReport:
    """What a split holds.

    Attributes:
        name: the split.
        images: how many pictures it has.
        expected: how many a complete one has, None where nobody says.
        sizes: pictures by ``"1920x1080"`` (width x height, as displayed), most frequent first.
        modes: pictures by colour mode of the file, e.g. ``"RGB"``.
        labels: pixels or objects by class; empty without labels.
        holding: pictures that hold the class.
        ignored: ignored pixels, or objects marked difficult.
        empty: labelled pictures without any object, or with ignored pixels only.
        bad: what is wrong with each picture that cannot be used, it or its label, by path relative to the root.
        findings: what is wrong.
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
    bad: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_data` found."""

    domain: str
    root: str
    task: str | None
    splits: tuple[SplitReport, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing stands against using the data; warnings do not."""
        return not any(finding.level == "error" for finding in self.all_findings)

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """Findings of the splits and across them."""
        return tuple(f for split in self.splits for f in split.findings) + self.findings

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"ok": self.ok} | dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [f"{self.domain} in {self.root}"]
        for split in self.splits:
            lines += _split_lines(split, self.task)
        lines += _finding_lines(self.findings)
        errors = sum(f.level == "error" for f in self.all_findings)
        warned = len(self.all_findings) - errors
        verdict = "good to use" if self.ok else f"{errors} kinds of errors: mend them first"
        return [*lines, "", verdict + (f"; {warned} warnings" if warned else "")]


def check_data(
    domain: str | Domain,
    root: Path,
    *,
    splits: Sequence[str] = (),
    partial: bool = False,
    skip_bad: bool = False,
    allow_overlap: bool = False,
    threads: int = 4,
    tracked: Tracked = lambda items, _total, _what: items,
) -> CheckReport:
    """Look at all of a data set's pictures and labels.

    Labels of test splits are counted too, to tell that they can be read; nothing is chosen by them.

    Args:
        domain: a registry name, or a domain of your own folders (``folder_domain``, ``voc_domain``, ``coco_domain``).
        root: as the domain wants it.
        splits: which to look at; none for all that are there. A split that is named must be there.
        partial: whether fewer pictures than the data set has are all right.
        skip_bad: whether pictures that cannot be used are to be left out: then they are warnings.
        allow_overlap: whether test pictures may be among the others: then they are warnings.
        threads: pictures that are decoded at a time.
        tracked: wraps what is gone through, for a progress bar: ``(items, total, what) -> items``.

    Raises:
        UsageError: for an unknown name or split.
        DataError: when no split has any picture; the message says where to get the data.
    """
    chosen = domains[domain] if isinstance(domain, str) else domain
    reports, contents = [], {}
    for name in splits or chosen.splits:
        try:
            paths = chosen.unlabeled(root, name).paths
        except DataError as error:
            if error.fix != chosen.fetch or name in splits:  # other than that nothing is there
                reports.append(SplitReport(name, findings=(_finding(error),)))
            continue
        with ThreadPoolExecutor(threads) as pool:
            looks = pool.map(functools.partial(_look, chosen, chosen.has_labels(name)), paths)
            seen = list(tracked(looks, len(paths), f"{chosen.name} {name}"))
        reports.append(_split_report(chosen, name, seen, root, partial, skip_bad))
        contents[name] = _by_content(seen)
    if not reports:
        raise DataError(f"no images of {chosen.name!r} in any split", where=root, fix=chosen.fetch)
    task = chosen.labels.task if chosen.labels else None
    return CheckReport(chosen.name, str(root), task, tuple(reports), _leaks(contents, allow_overlap))


@dataclass(frozen=True)
class _Seen:
    """What was seen of one picture and its label."""

    path: Path
    digest: str = ""
    size: str = ""
    mode: str = ""
    amounts: Mapping[int, int] = field(default_factory=dict)
    ignored: int = 0
    labelled: bool = False
    findings: tuple[Finding, ...] = ()
    heard: Heard = field(default_factory=list)

    @property
    def error(self) -> str:
        """Why the picture cannot be used; empty when it can."""
        return next((finding.what for finding in self.findings if finding.level == "error"), "")


def _look(domain: Domain, labelled: bool, path: Path) -> _Seen:
    try:
        digest = file_digest(path)
        with opened(path) as image:
            mode = str(image.mode)
        width, height = open_image(path).size
    except TadpError as error:
        return _Seen(path, findings=(_finding(error),))
    except OSError as error:
        return _Seen(
            path, findings=(Finding("error", f"cannot read a file: {error}", 1, (str(path),), "check it"),)
        )
    seen = _Seen(path, digest, f"{width}x{height}", mode)
    if not labelled or domain.label is None or domain.labels is None:
        return seen
    try:
        with hearing() as heard:
            target = domain.label(path)
        remarks = domain.remarks(path) if domain.remarks else ()
    except TadpError as error:
        return dataclasses.replace(seen, findings=(_finding(error),), heard=heard)
    amounts, ignored = _amounts(target, domain.labels)
    return dataclasses.replace(
        seen,
        amounts=amounts,
        ignored=ignored,
        labelled=True,
        heard=heard,
        findings=tuple(
            Finding("warning", remark, 1, (str(path),), "nothing, if that is meant") for remark in remarks
        ),
    )


def _amounts(target: Any, labels: LabelSpace) -> tuple[dict[int, int], int]:
    """Pixels or objects by class id, and how many of them count nowhere."""
    counts = np.bincount(np.ravel(target.labels if isinstance(target, Boxes) else target))
    amounts = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    if isinstance(target, Boxes):
        return amounts, int(target.difficult.sum())
    return amounts, amounts.pop(labels.ignore, 0)


def _split_report(
    domain: Domain, name: str, seen: Sequence[_Seen], root: Path, partial: bool, skip_bad: bool
) -> SplitReport:
    expected = domain.counts.get(name)
    bad = {_key(one.path, root): why for one in seen if (why := one.error)}
    findings = _grouped(finding for one in seen for finding in one.findings)
    if skip_bad and len(bad) < len(seen):
        findings = tuple(_left_out(f) if f.level == "error" else f for f in findings)
    if expected is not None and len(seen) != expected:
        short = Finding(
            "warning" if partial and len(seen) < expected else "error",
            f"found {len(seen)} images, the data set has {expected}: numbers cannot be compared with others",
            1,
            (str(root),),
            f"{domain.fetch}; or say that a part will do: --partial",
        )
        findings = (short, *findings)
    findings += tuple(
        Finding("error", what, len(files), tuple(map(str, files[:_OFFENDERS])), fix)
        for what, files, fix in misnamed(pair for one in seen for pair in one.heard)
    )
    read = [one for one in seen if one.labelled]
    blank = [one for one in read if not one.amounts]
    if blank and domain.labels is not None and domain.labels.task == "segmentation":
        what = "a mask holds ignored pixels only: nothing can be learned from it"
        places = tuple(str(one.path) for one in blank[:_OFFENDERS])
        findings += (
            Finding("warning", what, len(blank), places, "label something, or remove image and mask"),
        )
    labels = _by_class(domain.labels, read)
    return SplitReport(
        name=name,
        images=len(seen),
        expected=expected,
        sizes=dict(Counter(one.size for one in seen if one.size).most_common()),
        modes=dict(Counter(one.mode for one in seen if one.mode).most_common()),
        labels=labels[0],
        holding=labels[1],
        ignored=sum(one.ignored for one in read),
        empty=len(blank),
        bad=bad,
        findings=findings,
    )


def _key(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _left_out(finding: Finding) -> Finding:
    return dataclasses.replace(
        finding, level="warning", what=f"left out: {finding.what}", fix=f"{finding.fix}; or leave it out"
    )


def _by_content(seen: Iterable[_Seen]) -> dict[str, list[Path]]:
    contents: dict[str, list[Path]] = {}
    for one in seen:
        if one.digest:
            contents.setdefault(one.digest, []).append(one.path)
    return contents


def _by_class(labels: LabelSpace | None, read: Sequence[_Seen]) -> tuple[dict[str, int], dict[str, int]]:
    """Pixels or objects, and pictures that hold any, by class name; nothing where no label was read."""
    if labels is None or not read:
        return {}, {}
    amounts: Counter[int] = Counter()
    holding: Counter[int] = Counter()
    for one in read:
        amounts.update(one.amounts)
        holding.update(one.amounts.keys())
    return tuple({c: part[i] for i, c in enumerate(labels.classes)} for part in (amounts, holding))  # type: ignore[return-value]


def _finding(error: TadpError) -> Finding:
    return Finding("error", error.what, 1, (error.where or "",), error.fix)


def _grouped(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """One finding per kind: alike but for numbers and quoted words."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kind = re.sub(r"'[^']*'|\d+(\.\d+)?", "#", finding.what)
        kinds.setdefault((finding.level, kind), []).append(finding)
    return tuple(
        dataclasses.replace(
            group[0],
            count=len(group),
            where=tuple(place for finding in group[:_OFFENDERS] for place in finding.where),
        )
        for group in kinds.values()
    )


def _leaks(
    contents: Mapping[str, Mapping[str, Sequence[Path]]], allowed: bool = False
) -> tuple[Finding, ...]:
    """Test pictures that are training or unlabelled pictures too, and pictures that come twice, told by their bytes."""
    findings = []
    test = contents.get("test", {})
    for name, other in contents.items():
        if name != "test" and (shared := [digest for digest in test if digest in other]):
            pairs = tuple(f"{test[d][0]} = {other[d][0]}" for d in shared[:_OFFENDERS])
            what = (
                f"{len(shared)} test pictures are also in {name!r}: scores would be those of known pictures"
            )
            fix = f"remove them from {name!r}; or where that is meant: --allow-overlap"
            findings.append(Finding("warning" if allowed else "error", what, len(shared), pairs, fix))
        if twice := [paths for paths in other.values() if len(paths) > 1]:
            pairs = tuple(" = ".join(map(str, paths[:2])) for paths in twice[:_OFFENDERS])
            what = f"{len(twice)} pictures of {name!r} come several times: they count several times"
            findings.append(Finding("warning", what, len(twice), pairs, "keep one of each"))
    return tuple(findings)


def _split_lines(split: SplitReport, task: str | None) -> list[str]:
    of = "" if split.expected is None else f" of {split.expected}"
    sizes = some([f"{size} ({count})" for size, count in split.sizes.items()])
    modes = (
        ""
        if set(split.modes) <= {"RGB"}
        else f"; modes {some([f'{m} ({n})' for m, n in split.modes.items()], 9)}"
    )
    lines = ["", f"{split.name}: {split.images}{of} images" + (f", {sizes}{modes}" if sizes else "")]
    lines += [f"  {len(split.bad)} of them cannot be used"] * bool(split.bad)
    if split.labels:
        total = sum(split.labels.values()) or 1
        wide = max(map(len, split.labels))
        boxes = task == "detection"
        lines += [
            f"  {name:{wide}}  {f'{amount:8d}' if boxes else f'{100 * amount / total:7.2f} %'}"
            f"  in {split.holding[name]} images"
            for name, amount in split.labels.items()
        ]
        lines.append(
            f"  {split.ignored} objects are difficult; {split.empty} images have no object"
            if boxes
            else f"  {100 * split.ignored / (split.ignored + total):.2f} % of all pixels are ignored"
        )
    return lines + _finding_lines(split.findings)


def _finding_lines(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        more = f" (and {finding.count - 1} more of the kind)" if finding.count > len(finding.where) else ""
        lines.append(f"  {finding.level}: {finding.what}{more}")
        lines += [f"    where: {place}" for place in finding.where if place]
        lines += [f"    fix:   {finding.fix}"] * bool(finding.fix)
    return lines
