"""Annotations in the XML of Pascal VOC (Everingham et al., development kit, 2007-2012).

The kit counts pixels from 1 and includes both ends: ``xmin = xmax = 1`` is the first pixel column. :class:`Boxes`
counts from 0 and is half-open, so ``x1 = xmin - 1`` and ``x2 = xmax``. The conversion happens here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from tadp_da.domains.formats.boxes import RawObject, check_size, flag, to_boxes
from tadp_da.errors import DataError
from tadp_da.storage.listing import Remark, remarks
from tadp_da.types import Boxes

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DUMMY = (0.0, 0.0, 1.0, 1.0)
"""``(1, 1, 1, 1)`` after conversion: a placeholder where only the classes of an image are known."""


def read_annotation(path: Path, image: Path, classes: Sequence[str], *, drop: Collection[str] = ()) -> Boxes:
    """The objects of one image.

    ``difficult`` defaults to 0, the size to that of the image if it is missing or 0. Coordinates may be fractions;
    parts of objects are not objects.

    Args:
        path: the XML file.
        image: the image that it describes.
        classes: names in the order of their ids, in any spelling.
        drop: names of objects to leave out.

    Raises:
        DataError: naming file and line: XML that is broken or declares a document type (entities hide attacks), a
            missing or invalid field, dummy boxes only, another image size, an unknown class.
    """
    content, root = _parse(path)
    lines = _lines(content, root)
    objects = [
        _object(thing, f"{path}:{line}") for thing, line in zip(root.findall("object"), lines, strict=True)
    ]
    known = [thing for thing in objects if thing.xyxy != _DUMMY]
    dummies = len(objects) - len(known)
    if dummies and not known:
        raise DataError(
            f"all {dummies} boxes are dummies (1, 1, 1, 1): only the classes of this image are known",
            where=objects[0].where,
            fix="do not train or test boxes on this split (`extra` of Watercolor2K and Comic2K is one such); "
            "use it as unlabelled images",
        )
    if dummies:
        fix = "draw these boxes, or remove the objects"
        remarks.add(Remark("dummy boxes (1, 1, 1, 1) dropped", image, fix, dummies))
    return to_boxes(known, image, check_size(_size(root, path), image, path), classes, drop=drop)


def _parse(path: Path) -> tuple[bytes, Any]:
    from defusedxml import DefusedXmlException, ElementTree

    try:
        content = path.read_bytes()
        root = ElementTree.fromstring(content, forbid_dtd=True)
    except FileNotFoundError:
        fix = "give every labelled image an XML file of the same name"
        raise DataError("an annotation is missing", where=path, fix=fix) from None
    except DefusedXmlException:
        raise DataError(
            "an annotation declares a document type or entities, which VOC never does",
            where=path,
            fix="remove the <!DOCTYPE ...> block; do not use files from a source that you do not trust",
        ) from None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        fix = "export it again, or remove it and its image"
        raise DataError(f"an annotation is not valid XML: {error}", where=path, fix=fix) from None
    if root.tag != "annotation":
        raise DataError(
            f"an annotation begins with <{root.tag}>, expected <annotation>",
            where=path,
            fix="export labels as Pascal VOC XML, or as COCO JSON",
        )
    return content, root


def _lines(content: bytes, root: Any) -> list[str]:
    """The line of every object; ``?`` where comments or an unusual encoding make counting unsafe."""
    count = len(root.findall("object"))
    parts = re.split(rb"<object[\s>/]", content)
    if len(parts) != count + 1:
        return ["?"] * count
    return [str(1 + lines) for lines in accumulate(part.count(b"\n") for part in parts[:-1])]


def _object(thing: Any, where: str) -> RawObject:
    if not (name := (thing.findtext("name") or "").strip()):
        raise DataError("an object has no name", where=where, fix="write its class as <name>car</name>")
    if (box := thing.find("bndbox")) is None:
        raise DataError("an object has no box", where=where, fix="add <bndbox> or remove the object")
    corners = []
    for corner in _CORNERS:
        text = (box.findtext(corner) or "").strip()
        try:
            corners.append(float(text))
        except ValueError:
            raise DataError(
                f"a box has the {corner} {text!r}, which is not a number"
                if text
                else f"a box has no {corner}",
                where=where,
                fix=f"write <{corner}> as a number of pixels, counted from 1",
            ) from None
    try:
        difficult = flag(thing.findtext("difficult"))
    except ValueError as error:
        raise DataError(f"difficult={error}", where=where, fix="write 0 or 1, or leave it out") from None
    x, y, right, bottom = corners
    return RawObject(name, (x - 1, y - 1, right, bottom), difficult, where)


def _size(root: Any, path: Path) -> tuple[int, int] | None:
    """(height, width) as stated; None if missing or 0."""
    size = root.find("size")
    if size is None:
        return None
    try:
        height, width = (int(float(size.findtext(side) or "0")) for side in ("height", "width"))
    except (ValueError, OverflowError):
        fix = "write width and height in pixels"
        raise DataError("an annotation states a size that is not a number", where=path, fix=fix) from None
    return (height, width) if height and width else None
