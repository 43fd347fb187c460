"""Depth maps: metres per pixel, read from 16-bit PNG or NPY and recorded for the checks of a whole set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tadp_da.errors import DataError
from tadp_da.images import displayed_size
from tadp_da.storage.depth_files import MILLIMETRE, read_values
from tadp_da.storage.listing import Recorder, label_files

SUFFIXES = (".png", ".npy")
Depth = NDArray[np.float32]


@dataclass(frozen=True)
class StoredDepth:
    """A depth map as it was read.

    Attributes:
        path: the file.
        pixels: how many there are.
        known: how many of them are not 0.
        quantiles: metres of the 5, 50, 95 and 100 % of known pixels; empty where there is none.
        at_most: share of the known pixels that hold the largest value.
        halves: median metres of the upper and of the lower half of the image; empty where one is unknown.
    """

    path: Path
    pixels: int
    known: int
    quantiles: tuple[float, ...]
    at_most: float
    halves: tuple[float, ...]


stored_depths: Recorder[StoredDepth] = Recorder("stored_depths")
"""Every depth map that was read."""


def read_depth(path: Path, *, image: Path | None = None, unit: float | None = None) -> Depth:
    """Metres ``float32 (h, w)`` of a file, 0 where the depth is unknown: stored as 0, or in NPY as NaN or infinity.

    EXIF rotation is not applied: a depth map must be stored as its image is displayed.

    Args:
        path: a 16-bit PNG, or an NPY file.
        image: the image that it belongs to, whose displayed size must be its own.
        unit: metres that a stored value of 1 means in a file that does not say it; if None, 0.001 for whole numbers and
            1 for fractions.

    Raises:
        DataError: when the file is missing or of another form, a value is negative, or the sizes differ.
    """
    if not path.is_file():
        fix = "give every image a depth map of the same name"
        raise DataError("a depth map is missing", where=path, fix=fix)
    values, stated = read_values(path)
    if image is not None and values.shape != (expected := displayed_size(image)):
        raise DataError(
            f"a depth map is {values.shape[1]}x{values.shape[0]} pixels, its image {expected[1]}x{expected[0]}",
            where=f"{path} and {image}",
            fix="export the depth map at the size of its image, without smoothing",
        )
    scale = stated or unit or (1.0 if values.dtype.kind == "f" else MILLIMETRE)
    depth = np.where(np.isfinite(values), values, 0).astype(np.float64) * scale
    if (depth < 0).any():
        raise DataError(
            f"a depth map holds negative values ({int((depth < 0).sum())} pixels, the least is {depth.min():g})",
            where=path,
            fix="give metric depth along the optical axis, and 0 where it is unknown; relative depth has no unit and "
            "cannot be learned from or scored",
        )
    found = depth.astype(np.float32)
    stored_depths.add(_summary(path, found))
    return found


def _summary(path: Path, depth: Depth) -> StoredDepth:
    counted = depth[depth > 0]
    middle = len(depth) // 2
    halves = [half[half > 0] for half in (depth[:middle], depth[middle:])]
    return StoredDepth(
        path,
        depth.size,
        counted.size,
        tuple(np.percentile(counted, (5, 50, 95, 100)).tolist()) if counted.size else (),
        float((counted == counted.max()).mean()) if counted.size else 0.0,
        tuple(float(np.median(half)) for half in halves) if all(half.size for half in halves) else (),
    )


def holds_depth(folder: Path) -> bool:
    """Whether the labels of a folder are depth maps and not masks: arrays, or PNG of 16 bits."""
    first = next(iter(label_files(folder, SUFFIXES)), None)
    if first is None or first.suffix.lower() == ".npy":
        return first is not None
    try:
        return read_values(first)[0].dtype != np.uint8
    except DataError:
        return False
