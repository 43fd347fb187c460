"""Annotations in the XML of Pascal VOC (Everingham et al., development kit, 2007-2012).

The kit counts pixels from 1 and includes both ends: ``xmin = xmax = 1`` is the first pixel column. :class:`Boxes`
counts from 0 and is half-open, so ``x1 = xmin - 1`` and ``x2 = xmax``. The conversion happens here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tadp_da.domains.formats.boxes import BoxAnnotation, RawObject, check_size, to_boxes
from tadp_da.errors import DataError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DUMMY = (0.0, 0.0, 1.0, 1.0)
"""``(1, 1, 1, 1)`` after conversion: a placeholder where only the classes of an image are known."""


def read_annotation(
    path: Path, image: Path, classes: Sequence[str], *, drop: Collection[str] = ()
) -> BoxAnnotation:
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
    objects = []
    for thing, line in zip(root.findall("object"), _lines(content, root), strict=True):
        where = f"{path}:{line}"
        objects.append(
            RawObject(_name(thing, where), _corners(thing, where), _difficult(thing, where), where)
        )
    known = [thing for thing in objects if thing.xyxy != _DUMMY]
    dummies = len(objects) - len(known)
    if dummies and not known:
        raise DataError(
            f"all {dummies} boxes are dummies (1, 1, 1, 1): only the classes of this image are known",
            where=objects[0].where,
            fix="do not train or test boxes on this split (`extra` of Watercolor2K and Comic2K is one such); "
            "use it as unlabelled images",
        )
    found = to_boxes(known, check_size(_size(root, path), image, path), classes, drop=drop)
    return BoxAnnotation(
        found.boxes, (f"{dummies} dummy boxes (1, 1, 1, 1) dropped",) * bool(dummies) + found.remarks
    )


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
    starts = [match.start() for match in re.finditer(rb"<object[\s>/]", content)]
    count = len(root.findall("object"))
    if len(starts) != count:
        return ["?"] * count
    return [str(content.count(b"\n", 0, start) + 1) for start in starts]


def _name(thing: Any, where: str) -> str:
    name = (thing.findtext("name") or "").strip()
    if not name:
        raise DataError("an object has no name", where=where, fix="write its class as <name>car</name>")
    return str(name)


def _corners(thing: Any, where: str) -> tuple[float, float, float, float]:
    box = thing.find("bndbox")
    if box is None:
        raise DataError("an object has no box", where=where, fix="add <bndbox> or remove the object")
    values = []
    for corner in _CORNERS:
        text = (box.findtext(corner) or "").strip()
        try:
            values.append(float(text))
        except ValueError:
            raise DataError(
                f"a box has the {corner} {text!r}, which is not a number"
                if text
                else f"a box has no {corner}",
                where=where,
                fix=f"write <{corner}> as a number of pixels, counted from 1",
            ) from None
    return values[0] - 1, values[1] - 1, values[2], values[3]


def _difficult(thing: Any, where: str) -> bool:
    text = (thing.findtext("difficult") or "0").strip()
    if text not in ("0", "1"):
        raise DataError(f"an object is difficult={text!r}", where=where, fix="write 0 or 1, or leave it out")
    return text == "1"


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
