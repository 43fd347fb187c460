"""Folders in the layout of Pascal VOC: ``JPEGImages``, ``Annotations``, ``SegmentationClass``, and lists of image ids
that define the splits, ``ImageSets/Main/<list>.txt``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tadp_da.domains import Doubt
from tadp_da.domains.formats.files import dataset_folder, some
from tadp_da.domains.formats.masks import Mask, StoredMask, read_mask
from tadp_da.domains.formats.voc_xml import read_annotation
from tadp_da.errors import DataError
from tadp_da.storage.listing import Remark, remarks
from tadp_da.types import Boxes, LabelSpace

_ENOUGH = 20
"""Masks below which nothing is concluded from what they lack."""

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes of VOC, in the order and spelling of the development kit."""

_PALETTE = (
    (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128), (64, 0, 0),
    (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128), (0, 64, 0),
    (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
)  # fmt: skip
BOXES = LabelSpace("detection", CLASSES, palette=_PALETTE)
MASKS = LabelSpace("segmentation", ("background", *CLASSES), palette=((0, 0, 0), *_PALETTE))
_BOUNDARY = MASKS.ignore
_LUMA = np.array([*MASKS.palette, (224, 224, 192)]) @ np.array([0.299, 0.587, 0.114])
_GREY = {int(value) for value in (*np.floor(_LUMA), *np.round(_LUMA))}
"""What the colours of the classes and of the boundary become when they are turned to grey."""
_PALETTE_PNG = (
    "unpack SegmentationClass again, and do not convert its files: VOC's masks are palette PNGs whose indices are the "
    "class ids, and a library that opens them as RGB or grey saves the colours"
)


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


def year_folder(root: Path, year: int) -> Path:
    """The folder of one year, also in the nesting of torchvision."""
    own = f"VOC{year}"
    places = (f"VOCdevkit/{own}", own, f"VOCdevkit/{own}/VOCdevkit/{own}", f"{own}/VOCdevkit/{own}")
    return dataset_folder(root, places, "ImageSets")


def mask_of(image: Path, folder: str) -> Mask:
    """Class ids of an image in ``JPEGImages``, 255 for the boundary, from a folder beside it.

    Raises:
        DataError: if the mask is missing, or its colours were saved instead of their indices.
    """
    try:
        return read_mask(image.parents[1] / folder / f"{image.stem}.png", MASKS, image=image)
    except DataError as error:
        values = {int(v) for v in re.findall(r"value (\d+) in", error.what)}
        if "one channel" in error.what:
            raise DataError(error.what, where=error.where, fix=_PALETTE_PNG) from None
        if values and values <= _GREY:
            what = f"{error.what}; these are the colours of VOC's palette turned to grey"
            raise DataError(what, where=error.where, fix=_PALETTE_PNG) from None
        raise


def without_boundary(stored: Sequence[StoredMask]) -> list[Doubt]:
    """Masks of VOC's own people of which none has a boundary: it became a class. Those of SBD have none."""
    own = [mask for mask in stored if mask.path.parent.name == "SegmentationClass"]
    if len(own) < _ENOUGH or any(len(mask.counts) > _BOUNDARY for mask in own):
        return []
    what = (
        f"none of {len(own)} masks holds {_BOUNDARY}, with which VOC marks the boundary of objects: it was stored as a "
        "class, probably as background, and would be learned and scored"
    )
    return [(what, tuple(mask.path for mask in own), _PALETTE_PNG)]


def box_reader(classes: Sequence[str]) -> Callable[[Path], Boxes]:
    """``Domain.label`` for images in ``JPEGImages``."""
    files = "Annotations"
    return lambda image: read_annotation(image.parents[1] / files / f"{image.stem}.xml", image, classes)
