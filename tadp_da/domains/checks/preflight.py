"""Before a run: every image that it will use is decoded and every label read, once.

A file that cannot be used ends the run with the first places and the fix; with ``Run.skip_bad`` it is left out and
listed in ``skipped-<domain>.json`` in the run's folder. Files are never moved or changed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tadp_da.domains import Domain
from tadp_da.domains.checks.report import CheckReport
from tadp_da.domains.checks.validate import check_data
from tadp_da.errors import DataError
from tadp_da.run import Run
from tadp_da.storage.files import file_name, stamps, write_json

_log = logging.getLogger(__name__)
_REPORTS: dict[Any, CheckReport] = {}


def preflight(domain: Domain, root: Path, splits: Sequence[str], run: Run, about: str = "") -> Domain:
    """The domain without images that cannot be used.

    A check is not repeated within a process unless the size or time stamp of an image changes: all rows of a table use
    the same folders. Labels of test splits are only checked to be readable.

    Args:
        domain: what to check.
        root: data root of the domain.
        splits: those that the run will use.
        about: what else tells its labels from those of another domain with the same images.
        run: ``skip_bad``, ``allow_overlap``, the folder of the list, and progress bars.

    Raises:
        DataError: if an image or label cannot be used, files do not pair, a split is empty or entirely unusable, or
            test images are among those that are learned from.
    """
    report = _report(domain, root, splits, run, about)
    if errors := [finding for finding in report.all_findings if finding.level == "error"]:
        first, bad = errors[0], sum(len(split.bad) for split in report.splits)
        total = sum(split.images for split in report.splits)
        count = f"{bad} of {total} images of {domain.name!r} cannot be used: " if bad else ""
        skip = "; or continue without them: --skip-bad" if 0 < bad < total and not run.skip_bad else ""
        raise DataError(
            f"{count}{first.what}", where=", ".join(first.where) or root, fix=f"{first.fix}{skip}"
        )
    return _without(domain, {split.name: split.bad for split in report.splits if split.bad}, run)


def _report(domain: Domain, root: Path, splits: Sequence[str], run: Run, about: str) -> CheckReport:
    key: Any = (domain.name, domain.labels, about, root, tuple(splits), run.skip_bad, run.allow_overlap)
    key += tuple(stamps(*domain.unlabeled(root, split).paths) for split in splits)
    if key not in _REPORTS:

        def tracked(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
            with run.progress(total, f"checking {what}") as advance:
                for item in items:
                    yield item
                    advance("")

        _REPORTS[key] = check_data(
            domain,
            root,
            splits=splits,
            partial=True,
            skip_bad=run.skip_bad,
            allow_overlap=run.allow_overlap,
            tracked=tracked,
        )
        for finding in _REPORTS[key].all_findings:
            if finding.level != "error":
                # a name of undecodable bytes cannot be written to a log in UTF-8
                places = ", ".join(finding.where).encode(errors="backslashreplace").decode()
                fix = f"; fix: {finding.fix}" * bool(finding.fix)
                _log.warning("%s: %s (%s)%s", domain.name, finding.title, places, fix)
    return _REPORTS[key]


def _without(domain: Domain, bad: Mapping[str, Mapping[str, str]], run: Run) -> Domain:
    place = run.folder / f"skipped-{file_name(domain.name)}.json"
    if not bad:
        place.unlink(missing_ok=True)  # of an earlier run, before the files were fixed
        return domain
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(place, bad)
    count = sum(map(len, bad.values()))
    _log.warning(
        "%s: %s images cannot be used and are left out; they are listed in %s", domain.name, count, place
    )

    def images(root: Path, split: str) -> tuple[Path, ...]:
        left_out = bad.get(split, {})
        return tuple(p for p in domain.images(root, split) if p.relative_to(root).as_posix() not in left_out)

    return dataclasses.replace(domain, images=images)
