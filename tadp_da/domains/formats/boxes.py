"""Boxes as files tell them, made into :class:`Boxes`: checked, clipped to the picture, numbered by class."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tadp_da.class_names import canonical, class_id
from tadp_da.domains.formats.files import stored_size
from tadp_da.errors import DataError
from tadp_da.images import displayed_size
from tadp_da.types import Boxes


@dataclass(frozen=True)
class Found:
    """One object as a label file tells it.

    Attributes:
        name: its class as the file spells it.
        xyxy: left, top, right, bottom in pixels, half-open.
        difficult: whether neither finding nor missing it counts.
        where: file and line or number, for messages.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    difficult: bool
    where: str


@dataclass(frozen=True)
class Annotation:
    """Boxes of one image, and what had to be mended to get them."""

    boxes: Boxes
    remarks: tuple[str, ...]


def settle(
    found: Sequence[Found], size: tuple[int, int], classes: Sequence[str], *, drop: Collection[str] = ()
) -> Annotation:
    """Make boxes of what a file tells of an image of ``size`` (h, w).

    Boxes are clipped to the picture, those without area dropped, both with a remark.

    Args:
        found: the objects in the file's order.
        size: height and width of the displayed picture.
        classes: names in the order of their ids.
        drop: names of objects that are left out on purpose, in any spelling.

    Raises:
        DataError: for a number that is none, swapped corners, a box wholly outside the picture, an unknown class.
    """
    height, width = size
    left_out = {canonical(name) for name in drop}
    kept, empty, clipped = [], 0, 0
    for thing in found:
        if canonical(thing.name) in left_out:
            continue
        _check(thing, size)
        number = class_id(thing.name, classes, thing.where)
        x1, y1, x2, y2 = thing.xyxy
        if x1 == x2 or y1 == y2:
            empty += 1
            continue
        inside = (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height))
        clipped += inside != thing.xyxy
        kept.append((inside, number, thing.difficult))
    remarks = [f"{empty} boxes without area dropped"] * bool(empty)
    remarks += [f"{clipped} boxes reach outside the picture and were clipped"] * bool(clipped)
    boxes = Boxes(
        xyxy=np.array([box for box, _, _ in kept], dtype=np.float32).reshape(-1, 4),
        labels=np.array([number for _, number, _ in kept], dtype=np.int64),
        difficult=np.array([difficult for _, _, difficult in kept], dtype=np.bool_),
    )
    return Annotation(boxes, tuple(remarks))


def _check(thing: Found, size: tuple[int, int]) -> None:
    x1, y1, x2, y2 = thing.xyxy
    if not all(map(math.isfinite, thing.xyxy)):
        raise DataError(
            f"a box of {thing.name!r} has a coordinate that is no number",
            where=thing.where,
            fix="correct or remove the object",
        )
    if x1 > x2 or y1 > y2:
        raise DataError(
            f"a box of {thing.name!r} has swapped corners: x {x1:g} to {x2:g}, y {y1:g} to {y2:g}",
            where=thing.where,
            fix="write the smaller coordinate as the minimum; check that x and y, or corners and widths, are not mixed",
        )
    if x2 <= 0 or y2 <= 0 or x1 >= size[1] or y1 >= size[0]:
        raise DataError(
            f"a box of {thing.name!r} lies outside its {size[1]}x{size[0]} picture: "
            f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g}",
            where=thing.where,
            fix="check that the label belongs to this picture and was not made for another size; "
            "else remove the object",
        )


def agreed_size(stated: tuple[int, int] | None, image: Path, where: object) -> tuple[int, int]:
    """(height, width) of the displayed picture, which a label file must state too if it states any.

    Raises:
        DataError: when they differ: boxes made for one size say nothing about another.
    """
    shown = displayed_size(image)
    if stated is None or stated == shown:
        return shown
    what = f"boxes were made for {stated[1]}x{stated[0]} pixels, the picture shows {shown[1]}x{shown[0]}"
    if stated == stored_size(image):
        raise DataError(
            f"{what}: it is turned by its EXIF tag, the boxes are not",
            where=f"{where} and {image}",
            fix="if the boxes fit the unturned picture, remove its tag (exiftool -Orientation= FILE); "
            "else turn the boxes",
        )
    raise DataError(
        what,
        where=f"{where} and {image}",
        fix="put back the picture that was annotated, or scale boxes and stated size to this one",
    )
