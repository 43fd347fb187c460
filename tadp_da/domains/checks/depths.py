"""What the depth maps of a data set show only together: another unit, relative or inverse depth, marks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tadp_da.domains.checks.report import DataFinding
from tadp_da.domains.formats.depth import StoredDepth
from tadp_da.types import LabelSpace

_FEW = 5
"""Depth maps below which nothing is concluded from what they have in common."""
_CLOSE = 0.05
"""Metres below which no scene is, by half."""


def depth_summary(stored: Sequence[StoredDepth]) -> tuple[str, ...]:
    """Metres and unknown pixels of a split, as lines."""
    seen = [each.quantiles for each in stored if each.quantiles]
    if not seen:
        return ()
    (low, middle, high), most = np.median(seen, axis=0)[:3].tolist(), max(q[3] for q in seen)
    unknown = 1 - sum(each.known for each in stored) / sum(each.pixels for each in stored)
    return (
        f"depth {low:.3g} to {high:.3g} m (5 to 95 % of the pixels), median {middle:.3g} m, largest {most:.3g} m",
        f"{unknown:.1%} of all pixels are 0 and count as unknown",
    )


def depth_findings(stored: Sequence[StoredDepth], labels: LabelSpace) -> list[DataFinding]:
    """Depth maps of a split that are allowed one by one, and together probably mean something else.

    Args:
        stored: the maps.
        labels: their label space.
    """
    seen = [each for each in stored if each.quantiles]
    if labels.range is None or not stored:
        return []
    paths, found = [each.path for each in seen], list[DataFinding]()
    if empty := [each.path for each in stored if not each.quantiles]:
        what = "a depth map has unknown pixels only: nothing can be learned from it"
        found.append(DataFinding.at("warning", what, empty, "remove image and depth map"))
    if not seen:
        return found
    low, high = max(labels.range[0], _CLOSE), labels.range[1]
    median, largest = (float(np.median([each.quantiles[i] for each in seen])) for i in (1, 3))
    where = f"(median {median:.3g} m)"
    if median >= high:
        unit = "they look like millimetres read as metres" if median > 200 else "is that the unit?"
        what = f"half of the depths are beyond {high:g} m, where nothing counts {where}: {unit}"
        fix = f"give the unit: --depth-unit 0.001 for millimetres; of large scenes, --max-depth {math.ceil(largest)}"
        found.append(DataFinding.at("error", what, paths, fix))
    elif median < low:
        what = f"half of the depths are below {low:g} m {where}: they look like metres read as millimetres"
        fix = "state the unit: --depth-unit 1 for metres, 0.00390625 for 1/256 m as in KITTI"
        found.append(DataFinding.at("error", what, paths, fix))
    return found + (_in_common(seen, high) if len(seen) >= _FEW else [])


def _in_common(seen: Sequence[StoredDepth], furthest: float) -> list[DataFinding]:
    """What several maps have in common and depths of different scenes have not."""
    paths, found = [each.path for each in seen], list[DataFinding]()
    maxima = np.array([each.quantiles[3] for each in seen])
    at_most, largest = float(np.median([each.at_most for each in seen])), float(maxima[0])
    if np.ptp(maxima) < 1e-6 * largest:
        if at_most < 0.005:
            what = f"the largest depth of every map is {largest:g} m: they look normalized one by one (relative depth)"
            fix = "give metric depth: what is relative has no unit, and another one in every image"
            found.append(DataFinding.at("warning", what, paths, fix))
        elif at_most > 0.01 and largest < furthest:
            what = f"{at_most:.1%} of the pixels hold the largest value, {largest:g} m: does it mark unknown ones?"
            fix = f"store 0 where the depth is unknown, or leave it out of the range: --max-depth {largest:g}"
            found.append(DataFinding.at("warning", what, paths, fix))
    halves = [each.halves for each in seen if each.halves]
    turned = sum(lower > upper for upper, lower in halves)
    if len(halves) >= _FEW and turned > 0.8 * len(halves):
        what = (
            f"the lower half of the image is farther away than the upper one in {turned} of {len(halves)} maps: "
            "inverse depth, disparity, or images upside down?"
        )
        fix = "nothing, if it is so; otherwise give depth: baseline x focal length / disparity"
        found.append(DataFinding.at("warning", what, paths, fix))
    return found
