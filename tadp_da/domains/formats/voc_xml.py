"""Annotations in the XML of Pascal VOC (Everingham et al., development kit, 2007-2012).

The kit counts pixels from 1 and means both ends: ``xmin = xmax = 1`` is the first pixel column. :class:`Boxes` counts
from 0 and is half-open, so ``x1 = xmin - 1`` and ``x2 = xmax``. It happens here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tadp_da.domains.formats.boxes import Annotation, Found, agreed_size, settle
from tadp_da.errors import DataError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DUMMY = (0.0, 0.0, 1.0, 1.0)
"""What ``(1, 1, 1, 1)`` is here: a placeholder where only the classes of an image are known."""


def read_annotation(
    path: Path, image: Path, classes: Sequence[str], *, drop: Collection[str] = ()
) -> Annotation:
    """The objects of one image.

    ``difficult`` is 0 when it is not said, the size is the picture's when it is not said or 0. Boxes may hold
    fractions; parts of objects are not objects.

    Args:
        path: the XML file.
        image: the picture that it speaks of.
        classes: names in the order of their ids, in any spelling.
        drop: names of objects that are left out on purpose.

    Raises:
        DataError: naming file and line: XML that is broken or declares a document type (entities hide attacks), a
            missing or senseless field, dummy boxes only, another picture size, an unknown class.
    """
    content, root = _parse(path)
    found = []
    for thing, line in zip(root.findall("object"), _lines(content, root), strict=True):
        where = f"{path}:{line}"
        found.append(Found(_name(thing, where), _corners(thing, where), _difficult(thing, where), where))
    dummies = [thing for thing in found if thing.xyxy == _DUMMY]
    if dummies and len(dummies) == len(found):
        raise DataError(
            f"all {len(found)} boxes are dummies (1, 1, 1, 1): only the classes of this image are known",
            where=dummies[0].where,
            fix="do not train or test boxes on this split (`extra` of Watercolor2K and Comic2K is one such); "
            "it serves as unlabelled images",
        )
    size = agreed_size(_size(root, path), image, path)
    known = [thing for thing in found if thing.xyxy != _DUMMY]
    settled = settle(known, size, classes, drop=drop)
    remarks = (f"{len(dummies)} dummy boxes (1, 1, 1, 1) dropped",) * bool(dummies)
    return Annotation(settled.boxes, remarks + settled.remarks)


def _parse(path: Path) -> tuple[bytes, Any]:
    from defusedxml import DefusedXmlException, ElementTree

    try:
        content = path.read_bytes()
        root = ElementTree.fromstring(content, forbid_dtd=True)
    except FileNotFoundError:
        raise DataError(
            "an annotation is missing",
            where=path,
            fix="give every labelled image an XML file of the same name",
        ) from None
    except DefusedXmlException:
        raise DataError(
            "an annotation declares a document type or entities, which VOC never does",
            where=path,
            fix="remove the <!DOCTYPE ...> block; do not use files from a source that you do not trust",
        ) from None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(
            f"an annotation is no XML: {error}", where=path, fix="export it again or remove it and its image"
        ) from None
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
                f"a box has no {corner}"
                if not text
                else f"a box has the {corner} {text!r}, which is no number",
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
    """(height, width) as stated, None when it is not."""
    size = root.find("size")
    if size is None:
        return None
    try:
        height, width = (int(float(size.findtext(side) or "0")) for side in ("height", "width"))
    except (ValueError, OverflowError):
        raise DataError(
            "an annotation states a size that is no number",
            where=path,
            fix="write width and height in pixels",
        ) from None
    return (height, width) if height and width else None
