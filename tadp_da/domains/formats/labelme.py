"""Boxes as labelme writes them: a JSON file per image with its shapes. Rectangles and polygons have the box of their
points, circles (a centre and a point of the rim) the square around them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, ValidationError

from tadp_da.domains.formats.boxes import RawObject, check_size, flag, to_boxes
from tadp_da.errors import DataError
from tadp_da.types import Boxes


class _Shape(BaseModel):
    label: Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]
    points: Annotated[list[tuple[FiniteFloat, FiniteFloat]], Field(min_length=2)]
    shape_type: Literal["rectangle", "polygon", "circle", "mask", "rotation"] = "polygon"
    difficult: Annotated[bool, BeforeValidator(flag)] = False

    def xyxy(self) -> tuple[float, float, float, float]:
        if self.shape_type == "circle":
            (x, y), rim = self.points[:2]
            radius = math.dist((x, y), rim)
            return x - radius, y - radius, x + radius, y + radius
        columns, rows = zip(*self.points, strict=True)
        return min(columns), min(rows), max(columns), max(rows)


class _File(BaseModel):
    shapes: list[_Shape]
    imageHeight: int | None = None
    imageWidth: int | None = None


def read_labelme(path: Path, image: Path, classes: Sequence[str], *, drop: Collection[str] = ()) -> Boxes:
    """The objects of one image; see :func:`tadp_da.domains.formats.yolo.read_yolo`.

    Raises:
        DataError: naming file and shape: not labelme's JSON, a shape without area, or an unknown class.
    """
    try:
        file = _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read labelme labels: {error}", where=path, fix="check the path") from None
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise DataError(
            f"not labels of labelme: {problem['msg']}",
            where=f"{path}, {place}" if place else path,
            fix='the file holds {"shapes": [{"label", "points": [[x, y], ...], "shape_type": "rectangle"}]}, with '
            "rectangles, polygons and circles only; a COCO file is given by its own path, not by its folder",
        ) from None
    objects = [
        RawObject(s.label, s.xyxy(), s.difficult, f"{path}, shapes.{i}") for i, s in enumerate(file.shapes)
    ]
    stated = (file.imageHeight, file.imageWidth) if file.imageHeight and file.imageWidth else None
    return to_boxes(objects, image, check_size(stated, image, path), classes, drop=drop)
