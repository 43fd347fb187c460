"""Folders in the layout of Pascal VOC: ``JPEGImages``, ``Annotations``, ``SegmentationClass``, and lists of image ids
that define the splits, ``ImageSets/Main/<list>.txt``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tadp_da.domains.formats.files import some
from tadp_da.domains.formats.voc_xml import read_annotation
from tadp_da.errors import DataError
from tadp_da.storage.listing import Remark, remarks
from tadp_da.types import Boxes

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes of VOC, in the order and spelling of the development kit."""


def listed_images(folder: Path, names: str, *, kind: str = "Main") -> tuple[Path, ...]:
    """The images of a list, in the list's order; empty if there is no such list.

    A line holds an id and, in lists of one class, a second column that is ignored.

    Raises:
        DataError: if a listed image is missing, or listed twice.
    """
    file = folder / "ImageSets" / kind / f"{names}.txt"
    if not file.is_file():
        return ()
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    ids = [line.split()[0] for line in lines if line.strip()]
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise DataError(
            f"{len(twice)} images are listed twice: {some(twice)}", where=file, fix="fetch the list again"
        )
    place = folder / "JPEGImages"
    there = set(os.listdir(place)) if place.is_dir() else set()
    if missing := [name for name in ids if f"{name}.jpg" not in there]:
        raise DataError(
            f"{len(missing)} of {len(ids)} listed images are missing: {some(missing)}",
            where=place,
            fix=f"unpack the data set again: {file.name} lists what JPEGImages must hold as <id>.jpg",
        )
    spare = there - {f"{name}.jpg" for name in ids}
    for other in sorted((folder / "ImageSets").rglob("*.txt")) if spare else ():
        if not spare:
            break
        text = other.read_text(encoding="utf-8", errors="replace")
        spare -= {f"{line.split()[0]}.jpg" for line in text.splitlines() if line.strip()}
    for name in sorted(spare):
        remarks.add(Remark("images that no list of ImageSets names are left out", place / name))
    return tuple(place / f"{name}.jpg" for name in ids)


def box_reader(classes: Sequence[str]) -> Callable[[Path], Boxes]:
    """``Domain.label`` for images in ``JPEGImages``."""
    files = "Annotations"
    return lambda image: read_annotation(image.parents[1] / files / f"{image.stem}.xml", image, classes)
