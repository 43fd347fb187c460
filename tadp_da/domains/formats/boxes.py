"""Objects as label files state them, converted to :class:`Boxes`: checked, clipped to the image, class ids assigned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tadp_da.class_names import canonical, class_id
from tadp_da.errors import DataError
from tadp_da.images import displayed_size, opened
from tadp_da.storage.listing import Remark, remarks
from tadp_da.types import Boxes

MOST_BOXES = 5000
"""Objects that an image may have: training compares each with every anchor, which takes 2.7 GB for so many at 512x512
pixels (measured on a CPU)."""

NO_AREA = 1e-3
"""Pixels of a side below which a box is a rounding error."""

ROUNDING = 0.05
"""Pixels by which a box may reach outside its image without a remark: YOLO's fractions have few digits."""

_FLAGS = dict.fromkeys(("0", "false", "no", "none", ""), False) | dict.fromkeys(("1", "true", "yes"), True)


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


def flag(value: object) -> bool:
    """A flag as tools write it: 0, 1, true, false, yes, no or nothing, also as text in either case.

    Raises:
        ValueError: for anything else.
    """
    text = str(value).strip().lower().removesuffix(".0")
    if text not in _FLAGS:
        raise ValueError(f"{value!r} is neither 0 nor 1")
    return _FLAGS[text]


def kept(classes: Sequence[str], drop: Collection[str]) -> tuple[str, ...]:
    """The classes without those to leave out, in any spelling."""
    left_out = {canonical(name) for name in drop}
    return tuple(name for name in classes if canonical(name) not in left_out)


def to_boxes(
    objects: Sequence[RawObject],
    image: Path,
    size: tuple[int, int],
    classes: Sequence[str],
    *,
    drop: Collection[str] = (),
) -> Boxes:
    """Boxes of an image from the objects that a file states.

    Boxes are clipped to the image, and those without area or stated before are dropped; all of this is recorded
    (:data:`~tadp_da.storage.listing.remarks`).

    Args:
        objects: in the file's order.
        image: the image file.
        size: its height and width as displayed.
        classes: names in the order of their ids.
        drop: names of objects to leave out, in any spelling.

    Raises:
        DataError: for more than :data:`MOST_BOXES` objects, a coordinate that is not finite, swapped corners, a box
            entirely outside the image, boxes in fractions of the image, or an unknown class.
    """
    used = kept([thing.name for thing in objects], drop)
    stated = [thing for thing in objects if thing.name in used]
    if dropped := len(objects) - len(stated):
        remarks.add(Remark("objects of classes with a minus are left out", image, count=dropped))
    xyxy = np.array([thing.xyxy for thing in stated], np.float64).reshape(-1, 4)
    _check(stated, xyxy, size)
    ids: dict[str, int] = {}
    for thing in stated:
        if thing.name not in ids:
            ids[thing.name] = class_id(thing.name, classes, thing.where)
    inside = xyxy.clip(0, [size[1], size[0]] * 2)
    labels = np.array([ids[thing.name] for thing in stated], np.int64)
    difficult = np.array([thing.difficult for thing in stated], np.bool_)
    sides = (inside[:, 2:] - inside[:, :2]).min(axis=1)
    large, clipped = sides >= NO_AREA, np.abs(inside - xyxy).max(axis=1) > ROUNDING
    first = np.unique(np.column_stack([inside, labels, difficult]), axis=0, return_index=True)[1]
    again = ~np.isin(np.arange(len(stated)), first)
    for which, what, fix in (
        (~large, "boxes without area dropped", "remove them from the labels"),
        (
            large & again,
            "objects stated again dropped",
            "remove them from the labels: each would count twice",
        ),
        (
            large & clipped,
            "boxes reach outside the image and were clipped",
            "check some: many of them come from boxes of another image size, or from x, y, width, height in the place "
            "of corners",
        ),
    ):
        if which.any():
            remarks.add(Remark(what, image, fix, int(which.sum())))
    large &= ~again
    return Boxes(inside[large].astype(np.float32), labels[large], difficult[large])


def _check(objects: Sequence[RawObject], xyxy: NDArray[np.float64], size: tuple[int, int]) -> None:
    if len(objects) > MOST_BOXES:
        raise DataError(
            f"an image has {len(objects)} boxes, at most {MOST_BOXES} can be trained on",
            where=objects[0].where,
            fix="check that they belong to one image; otherwise cut image and boxes into tiles",
        )
    finite = np.isfinite(xyxy).all(axis=1)
    left, top, right, bottom = xyxy.T
    ordered = (left <= right) & (top <= bottom)
    on_image = (right > 0) & (bottom > 0) & (left < size[1]) & (top < size[0])
    for valid, problem, fix in (
        (finite, "has a coordinate that is not a number", "correct or remove the object"),
        (
            ordered,
            "has swapped corners",
            "write the smaller coordinate as the minimum; check that x and y, or corners and widths, are not mixed",
        ),
        (
            on_image,
            f"is outside its {size[1]}x{size[0]} image",
            "check that the label belongs to this image and was not made for another size; otherwise remove the object",
        ),
    ):
        if not valid.all():
            thing = objects[int(np.argmin(valid))]
            x1, y1, x2, y2 = thing.xyxy
            raise DataError(
                f"a box of {thing.name!r} {problem}: x {x1:g} to {x2:g}, y {y1:g} to {y2:g}",
                where=thing.where,
                fix=fix,
            )
    if len(xyxy) and np.abs(xyxy).max() <= 1 < min(size) and (xyxy % 1).any():
        raise DataError(
            f"all {len(xyxy)} boxes of an image are within one pixel: they look like fractions of the image",
            where=objects[0].where,
            fix=f"write pixels: multiply x by {size[1]} and y by {size[0]}, the width and height of the image",
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
    fix = "restore the image that was annotated, or scale boxes and stated size to this one"
    if stated == stored:
        what += ": it is rotated by its EXIF tag, the boxes are not"
        fix = (
            "if the boxes fit the unrotated image, remove its tag (exiftool -Orientation= FILE); otherwise rotate the "
            "boxes"
        )
    raise DataError(what, where=f"{where} and {image}", fix=fix)
