"""What the files of a data set show only together: what was left out, and masks that do not mean what they seem to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tadp_da.domains.checks.report import EXAMPLES, DataFinding
from tadp_da.domains.formats.masks import LEGEND, Colour, StoredMask, total_counts
from tadp_da.domains.shared import driving
from tadp_da.storage.listing import Remark
from tadp_da.types import LabelSpace


def listing_findings(decisions: Iterable[Remark]) -> list[DataFinding]:
    """What a listing left out or paired on its own, one finding for each kind."""
    kinds: dict[tuple[str, str], set[Path]] = defaultdict(set)
    for remark in decisions:
        kinds[remark.what, remark.fix].add(remark.path)
    return [
        DataFinding.at("warning" if fix else "note", what, sorted(paths), fix)
        for (what, fix), paths in kinds.items()
    ]


def correction_findings(corrections: Iterable[Remark]) -> list[DataFinding]:
    """What was corrected in the labels of a split, one finding for each kind with the number of its objects."""
    kinds: dict[tuple[str, str], list[Remark]] = defaultdict(list)
    for remark in corrections:
        kinds[remark.what, remark.fix].append(remark)
    return [
        DataFinding(
            "warning" if fix else "note",
            f"{sum(r.count for r in those)} {what}, in {len(those)} images",
            1,
            tuple(str(r.path) for r in those[:EXAMPLES]),
            fix,
        )
        for (what, fix), those in kinds.items()
    ]


def doubtful_values(stored: Sequence[StoredMask], labels: LabelSpace, ignored: int) -> list[DataFinding]:
    """Masks of a split whose values are allowed one by one, and together probably mean something else.

    Args:
        stored: the masks.
        labels: their label space.
        ignored: how many of their pixels are ignored.
    """
    if labels == driving.LABELS:
        return [DataFinding.at("error", what, files, fix) for what, files, fix in driving.misnamed(stored)]
    direct = [mask for mask in stored if mask.direct]
    counts, ignore = total_counts(mask.counts for mask in direct), labels.ignore
    values = np.flatnonzero(counts)
    if not ignored or values.tolist() != [0, ignore]:
        return []
    share = counts[ignore] / counts.sum()
    lacking = ", ".join(repr(name) for name in labels.classes[1:])
    other = (
        f"--ignore-index none, which reads it as {labels.classes[1]!r}; or "
        if len(labels.classes) == 2
        else ""
    )
    fix = (
        f"nothing, if it means pixels without a label; otherwise {other}name the classes of both in {LEGEND}"
    )
    what = (
        f"the masks hold only 0 and {ignore}, and {ignore}, {share:.0%} of all pixels, is ignored: no mask "
        f"has {lacking}. Is {ignore} a class here?"
    )
    return [DataFinding.at("warning", what, [direct[0].path], fix)]


def palette_findings(stored: Iterable[StoredMask]) -> list[DataFinding]:
    """Palette files in which one colour is stored under different values: written by a program that sorts colours, they
    hold other classes than their values say."""
    seen: dict[Colour, dict[int, Path]] = defaultdict(dict)
    for mask in stored:
        if not mask.direct or mask.palette is None:
            continue
        used = [int(v) for v in np.flatnonzero(mask.counts) if v < len(mask.palette)]
        colours = [(int(r), int(g), int(b)) for r, g, b in mask.palette[used]]
        for value, colour in zip(used, colours, strict=True):
            if colours.count(colour) == 1:
                seen[colour].setdefault(value, mask.path)
    several = [(colour, files) for colour, files in seen.items() if len(files) > 1]
    if not several:
        return []
    colour, files = several[0]
    (one, first), (two, second), *_ = files.items()
    what = f"palettes of masks contradict each other: the colour {colour} is the value {one} in one, {two} in another"
    line = "`{} {} {}: NAME`".format(*colour)
    fix = (
        f"name the classes by their colours in {LEGEND} with lines such as {line}; or, if the values are right and "
        f"the colours arbitrary, by values: `{one}: NAME`"
    )
    return [DataFinding.at("error", what, [f"{first} and {second}"], fix)]
