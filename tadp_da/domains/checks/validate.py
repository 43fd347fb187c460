"""Check a whole data set before training: every image decoded, every label read, counts compared, and test images
searched for among the training images."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tadp_da.domains import Domain, domains
from tadp_da.domains.checks.depths import depth_findings, depth_summary
from tadp_da.domains.checks.report import EXAMPLES, CheckReport, DataFinding, Level, SplitReport
from tadp_da.domains.checks.stored import (
    correction_findings,
    doubtful_values,
    listing_findings,
    palette_findings,
)
from tadp_da.domains.formats.depth import StoredDepth, stored_depths
from tadp_da.domains.formats.masks import StoredMask, stored_masks
from tadp_da.errors import DataError, TadpError
from tadp_da.images import open_image, opened
from tadp_da.storage.files import file_digest
from tadp_da.storage.listing import Remark, remarks
from tadp_da.types import SMALLEST_BOX, Boxes, LabelSpace

Tracked = Callable[[Iterable[Any], int, str], Iterable[Any]]


class Working(NamedTuple):
    """From an image's height and width to those at which a model reads it, and what to call these."""

    size: Callable[[int, int], tuple[int, int]]
    name: str


AS_STORED = Working(lambda height, width: (height, width), "its own size")


def check_data(
    domain: str | Domain,
    root: Path,
    *,
    splits: Sequence[str] = (),
    partial: bool = False,
    skip_bad: bool = False,
    allow_overlap: bool = False,
    working: Working = AS_STORED,
    threads: int = 4,
    tracked: Tracked = lambda items, _total, _what: items,
) -> CheckReport:
    """Check all images and labels of a data set.

    Labels of test splits are counted too, to show that they can be read; nothing is chosen by them.

    Args:
        domain: a registry name, or a domain of your own folders (:mod:`tadp_da.domains.formats`).
        root: data root of the domain.
        splits: which to check; if empty, all that exist. A split that is named must exist.
        partial: accept fewer images than the data set has.
        skip_bad: images that cannot be used will be left out: report them as warnings.
        allow_overlap: report test images among the others as warnings.
        working: the size at which a model will read the images: objects under a pixel there are not learned from.
        threads: images decoded in parallel.
        tracked: wraps the iteration, for a progress bar: ``(items, total, what) -> items``.

    Raises:
        UsageError: for an unknown name or split.
        DataError: if no split has any image; the message says where to get the data.
    """
    chosen = domains[domain] if isinstance(domain, str) else domain
    reports, contents, stored = [], {}, list[StoredMask]()
    for name in splits or chosen.splits:
        try:
            with remarks.recording() as decisions:
                paths = chosen.unlabeled(root, name).paths
        except DataError as error:
            if error.fix != chosen.fetch or name in splits:  # anything but an absent split
                reports.append(SplitReport(name, findings=(_finding(error),)))
            continue
        with ThreadPoolExecutor(threads) as pool:
            look = functools.partial(_check_image, chosen, chosen.has_labels(name), working)
            results = pool.map(look, paths)
            checked = list(tracked(results, len(paths), f"{chosen.name} {name}"))
        report = _split_report(chosen, name, checked, root, partial, skip_bad)
        findings = (*listing_findings(decisions), *report.findings)
        reports.append(replace(report, findings=findings))
        stored += [mask for one in checked for mask in one.stored]
        contents[name] = _by_content(checked)
    if not reports:
        raise DataError(f"no images of {chosen.name!r} in any split", where=root, fix=chosen.fetch)
    task = chosen.labels.task if chosen.labels else None
    across = (*palette_findings(stored), *_overlaps(contents, allow_overlap))
    return CheckReport(chosen.name, str(root), task, tuple(reports), across)


@dataclass
class _CheckedImage:
    """One image and its label: ``amounts`` are pixels or objects by class id, without ``ignored`` ones."""

    path: Path
    digest: str = ""
    size: str = ""
    mode: str = ""
    amounts: Mapping[int, int] = field(default_factory=dict)
    ignored: int = 0
    labelled: bool = False
    problem: DataFinding | None = None
    stored: Sequence[StoredMask] = ()
    depths: Sequence[StoredDepth] = ()
    corrections: Sequence[Remark] = ()


def _check_image(domain: Domain, labelled: bool, working: Working, path: Path) -> _CheckedImage:
    one = _CheckedImage(path)
    with (
        stored_masks.recording() as one.stored,
        stored_depths.recording() as one.depths,
        remarks.recording() as one.corrections,
    ):
        try:
            digest = file_digest(path)
            with opened(path) as image:
                one.mode, kind, frames = str(image.mode), image.format, getattr(image, "n_frames", 1)
            if frames > 1 and kind in ("GIF", "TIFF", "WEBP", "PNG"):  # a JPEG may hold its own preview
                what = "frames behind the first are not used"
                remarks.add(Remark(what, path, "nothing, if this is intended", frames - 1))
            width, height = open_image(path).size
            one.size = f"{width}x{height}"
            one.digest = digest
            if labelled and domain.label and domain.labels:
                target = domain.label(path)
                if isinstance(target, Boxes) and (lost := _lost(target, (height, width), working)):
                    what = (
                        f"objects are under a pixel wide or high at {working.name}: training leaves them out"
                    )
                    remarks.add(Remark(what, path, "train at a larger size, or remove them", lost))
                one.amounts, one.ignored = _amounts(target, domain.labels)
                one.labelled = True
        except TadpError as error:
            one.problem = _finding(error)
        except OSError as error:
            fix = "check its permissions, and where it leads if it is a link; or remove it"
            one.problem = DataFinding.at("error", f"cannot read a file: {error.strerror}", [path], fix)
    return one


def _lost(target: Boxes, size: tuple[int, int], working: Working) -> int:
    """How many boxes are too small to be learned from at the working size."""
    height, width = np.array(working.size(*size)) / size
    sides = (target.xyxy[:, 2:] - target.xyxy[:, :2]) * [width, height]
    return int((sides < SMALLEST_BOX).any(axis=1).sum())


def _amounts(target: Any, labels: LabelSpace) -> tuple[dict[int, int], int]:
    """Pixels or objects by class id, and how many of them are ignored or difficult; none of labels without classes."""
    if not labels.classes:
        return {}, 0
    counts = np.bincount(np.ravel(target.labels if isinstance(target, Boxes) else target))
    amounts = {int(i): int(counts[i]) for i in np.flatnonzero(counts)}
    if isinstance(target, Boxes):
        return amounts, int(target.difficult.sum())
    return amounts, amounts.pop(labels.ignore, 0)


def _split_report(
    domain: Domain, name: str, checked: Sequence[_CheckedImage], root: Path, partial: bool, skip_bad: bool
) -> SplitReport:
    problems = {one.path.relative_to(root).as_posix(): one.problem for one in checked if one.problem}
    findings = _grouped(problems.values())
    if skip_bad and len(problems) < len(checked):
        findings = [
            replace(f, level="warning", what=f"left out: {f.what}", fix=f"{f.fix}; or leave it out")
            for f in findings
        ]
    expected = domain.counts.get(name)
    if expected is not None and len(checked) != expected:
        what = f"found {len(checked)} images, the data set has {expected}: results are not comparable with others"
        level: Level = "warning" if partial and len(checked) < expected else "error"
        fix = f"{domain.fetch}; or accept a part of it: --partial"
        findings.insert(0, DataFinding.at(level, what, [root], fix))
    findings += correction_findings(remark for one in checked for remark in one.corrections)
    read, depths = [one for one in checked if one.labelled], [d for one in checked for d in one.depths]
    ignored = sum(one.ignored for one in read)
    if read and domain.labels is not None:
        findings += doubtful_values([m for one in checked for m in one.stored], domain.labels, ignored)
        findings += depth_findings(depths, domain.labels)
    if read and domain.doubts is not None:
        doubts = domain.doubts([mask for one in checked for mask in one.stored])
        findings += [DataFinding.at("warning", what, files, fix) for what, files, fix in doubts]
    blank = [one.path for one in read if not one.amounts]
    if blank and domain.labels is not None and domain.labels.task == "segmentation":
        what = "a mask has ignored pixels only: nothing can be learned from it"
        findings.append(DataFinding.at("warning", what, blank, "label something, or remove image and mask"))
    classes = domain.labels.classes if domain.labels and read else ()
    return SplitReport(
        name=name,
        images=len(checked),
        expected=expected,
        sizes=dict(Counter(one.size for one in checked if one.size).most_common()),
        modes=dict(Counter(one.mode for one in checked if one.mode).most_common()),
        labels={c: sum(one.amounts.get(i, 0) for one in read) for i, c in enumerate(classes)},
        holding={c: sum(i in one.amounts for one in read) for i, c in enumerate(classes)},
        ignored=ignored,
        empty=len(blank),
        told=depth_summary(depths),
        bad={key: problem.what for key, problem in problems.items()},
        findings=tuple(findings),
    )


def _by_content(checked: Iterable[_CheckedImage]) -> dict[str, list[Path]]:
    contents = defaultdict(list)
    for one in checked:
        if one.digest:
            contents[one.digest].append(one.path)
    return contents


def _finding(error: TadpError) -> DataFinding:
    return DataFinding.at("error", error.what, [error.where or ""], error.fix)


def _grouped(findings: Iterable[DataFinding]) -> list[DataFinding]:
    """One finding per kind: the same but for numbers and quoted words."""
    kinds = defaultdict(list)
    for finding in findings:
        kinds[re.sub(r"'[^']*'|\d+(\.\d+)?", "#", finding.what)].append(finding)
    return [
        replace(group[0], count=len(group), where=tuple(place for f in group[:EXAMPLES] for place in f.where))
        for group in kinds.values()
    ]


def _overlaps(contents: Mapping[str, Mapping[str, Sequence[Path]]], allowed: bool) -> tuple[DataFinding, ...]:
    """Test images that are in other splits too, and images that occur twice in a split, by the bytes of their files."""
    findings = []
    test = contents.get("test", {})
    for name, other in contents.items():
        if name != "test" and (shared := [digest for digest in test if digest in other]):
            what = f"{len(shared)} test images are also in {name!r}: scores would be those of known images"
            fix = f"remove them from {name!r}; or where this is intended: --allow-overlap"
            pairs = [f"{test[digest][0]} = {other[digest][0]}" for digest in shared]
            findings.append(DataFinding.at("warning" if allowed else "error", what, pairs, fix))
        if twice := [paths for paths in other.values() if len(paths) > 1]:
            what = f"{len(twice)} images of {name!r} occur several times: they count several times"
            pairs = [" = ".join(map(str, paths[:2])) for paths in twice]
            findings.append(DataFinding.at("warning", what, pairs, "keep one of each"))
    return tuple(findings)
