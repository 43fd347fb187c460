"""Boxes as YOLO writes them: a text file per image, a line ``class x y width height`` per object, the centre and the
sides in fractions of the image. Lines of more than two points are polygons, ``class x1 y1 x2 y2 x3 y3 ...``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from tadp_da.domains.formats.boxes import RawObject, kept, to_boxes
from tadp_da.errors import DataError
from tadp_da.images import displayed_size
from tadp_da.types import Boxes

CLASS_FILE = "classes.txt"
"""Class names, one per line, beside the labels of YOLO."""


def class_file(folder: Path) -> tuple[str, ...]:
    """Class names that LabelImg wrote into a folder of labels; none where it did not."""
    file = folder / CLASS_FILE
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines() if file.is_file() else []
    return tuple(name.strip() for name in lines if name.strip())


def read_yolo(path: Path, image: Path, classes: Sequence[str], *, drop: Collection[str] = ()) -> Boxes:
    """The objects of one image.

    Args:
        path: the text file; one that is absent states no objects.
        image: the image that it describes.
        classes: names in the order of their ids in the file, those to leave out included.
        drop: names of objects to leave out.

    Raises:
        DataError: naming file and line: something other than numbers, boxes in pixels, or an unknown class.
    """
    try:
        lines = [] if not path.exists() else path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read YOLO labels: {error}", where=path, fix="export them again") from None
    size = displayed_size(image)
    objects = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"{path}:{number}"
            label, corners = _object(line.split(), where)
            if label >= len(classes):
                raise DataError(
                    f"a line has the class {label}, and there are {len(classes)} classes: {', '.join(classes)}",
                    where=where,
                    fix="name all classes in the order of their ids, as the data.yaml of the data set does",
                )
            x1, y1, x2, y2 = (corners * size[::-1]).ravel().tolist()
            objects.append(RawObject(classes[label], (x1, y1, x2, y2), False, where))
    return to_boxes(objects, image, size, kept(classes, drop), drop=drop)


def _object(fields: Sequence[str], where: str) -> tuple[int, np.ndarray]:
    """Class id, and corners ``(2, 2)`` in fractions of the image."""
    try:
        values = np.array(fields, float)
        points = values[1:].reshape(-1, 2)
        if not np.isfinite(values).all() or values[0] < 0 or values[0] % 1 or len(points) < 2:
            raise ValueError("expected class x y width height, or the points of a polygon")
    except ValueError as error:
        raise DataError(
            f"a line is not an object of YOLO: {error}",
            where=where,
            fix="write `class x y width height` in fractions of the image; lines of six values are predictions with "
            "their score, not labels",
        ) from None
    if np.abs(points).max() > 2:
        raise DataError(
            f"a line has the coordinate {np.abs(points).max():g}: YOLO counts in fractions of the image, not in pixels",
            where=where,
            fix="divide x and width by the width of the image, y and height by its height",
        )
    if len(points) == 2:
        centre, sides = points
        return int(values[0]), np.stack([centre - sides / 2, centre + sides / 2])
    return int(values[0]), np.stack([points.min(axis=0), points.max(axis=0)])
