"""Objects as label files state them, converted to :class:`Boxes`: checked, clipped to the image, class ids assigned."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tadp_da.class_names import canonical, class_id
from tadp_da.errors import DataError
from tadp_da.images import displayed_size, opened
from tadp_da.types import Boxes


@dataclass(frozen=True)
class RawObject:
    """One object as stated by a label file.

    Attributes:
        name: its class as spelled in the file.
        xyxy: left, top, right, bottom in pixels, half-open.
        difficult: whether it counts neither as found nor as missed.
        where: file and line or number, for messages.
    """

    name: str
    xyxy: tuple[float, float, float, float]
    difficult: bool
    where: str


@dataclass(frozen=True)
class BoxAnnotation:
    """Boxes of one image, and what had to be corrected to get them."""

    boxes: Boxes
    remarks: tuple[str, ...]


def readers(
    read: Callable[[Path], BoxAnnotation],
) -> tuple[Callable[[Path], Boxes], Callable[[Path], tuple[str, ...]]]:
    """``Domain.label`` and ``Domain.remarks`` from a function that reads the annotation of an image."""
    return lambda image: read(image).boxes, lambda image: read(image).remarks


def to_boxes(
    objects: Sequence[RawObject],
    size: tuple[int, int],
    classes: Sequence[str],
    *,
    drop: Collection[str] = (),
) -> BoxAnnotation:
    """Boxes of an image from the objects that a file states.

    Boxes are clipped to the image and those without area dropped, both with a remark.

    Args:
        objects: in the file's order.
        size: height and width of the displayed image.
        classes: names in the order of their ids.
        drop: names of objects to leave out, in any spelling.

    Raises:
        DataError: for a coordinate that is not finite, swapped corners, a box entirely outside the image, or an
            unknown class.
    """
    height, width = size
    left_out = {canonical(name) for name in drop}
    kept, empty, clipped = [], 0, 0
    for thing in objects:
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
    remarks += [f"{clipped} boxes reach outside the image and were clipped"] * bool(clipped)
    boxes = Boxes(
        xyxy=np.array([box for box, _, _ in kept], dtype=np.float32).reshape(-1, 4),
        labels=np.array([number for _, number, _ in kept], dtype=np.int64),
        difficult=np.array([difficult for _, _, difficult in kept], dtype=np.bool_),
    )
    return BoxAnnotation(boxes, tuple(remarks))


def _check(thing: RawObject, size: tuple[int, int]) -> None:
    x1, y1, x2, y2 = thing.xyxy
    if not all(map(math.isfinite, thing.xyxy)):
        raise DataError(
            f"a box of {thing.name!r} has a coordinate that is not a number",
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
            f"a box of {thing.name!r} is outside its {size[1]}x{size[0]} image: "
            f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g}",
            where=thing.where,
            fix="check that the label belongs to this image and was not made for another size; "
            "otherwise remove the object",
        )


def check_size(stated: tuple[int, int] | None, image: Path, where: object) -> tuple[int, int]:
    """(height, width) of the displayed image; a label file that states a size must state this one.

    Raises:
        DataError: if they differ: boxes made for one size cannot be used with another.
    """
    shown = displayed_size(image)
    if stated is None or stated == shown:
        return shown
    what = f"boxes were made for {stated[1]}x{stated[0]} pixels, the image is {shown[1]}x{shown[0]}"
    with opened(image) as file:
        stored = file.height, file.width
    if stated == stored:
        raise DataError(
            f"{what}: it is rotated by its EXIF tag, the boxes are not",
            where=f"{where} and {image}",
            fix="if the boxes fit the unrotated image, remove its tag (exiftool -Orientation= FILE); "
            "otherwise rotate the boxes",
        )
    raise DataError(
        what,
        where=f"{where} and {image}",
        fix="restore the image that was annotated, or scale boxes and stated size to this one",
    )
