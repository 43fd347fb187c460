"""Class names in the spellings of different data sets: ``tvmonitor``, ``television`` and ``TV`` are one class."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from tadp_da.errors import DataError
from tadp_da.registry import nearest

_SAME = (
    ("aeroplane", "airplane", "plane"),
    ("bicycle", "bike", "pushbike"),
    ("diningtable", "dinnertable"),
    ("motorbike", "motorcycle"),
    ("pedestrian", "person", "human"),
    ("pottedplant", "houseplant"),
    ("sofa", "couch"),
    ("tvmonitor", "television", "tv", "televisionset"),
    ("pavement", "sidewalk"),
    ("cellphone", "mobilephone"),
    ("hairdrier", "hairdryer"),
    ("doughnut", "donut"),
)  # fmt: skip
"""Synonyms, without blanks, hyphens and capitals."""

_CANONICAL = {name: group[0] for group in _SAME for name in group}


def canonical(name: str) -> str:
    """The canonical spelling of a class: no capitals, blanks, hyphens or underscores, and one of its synonyms."""
    return _CANONICAL.get(_plain(name), _plain(name))


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.casefold())


_SPELLINGS: tuple[Callable[[str], str], ...] = (str, _plain, canonical)
"""How names are compared, strictest first: a data set may have both `person` and `pedestrian`."""


_SPOKEN = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "tvmonitor": "television",
}
"""Names of Pascal VOC that no caption holds, as TADP writes them in prompts."""


def spoken(name: str) -> str:
    """A class name as prompts say it: words that text encoders were trained on."""
    return _SPOKEN.get(name, name.replace("_", " "))


def class_id(name: str, classes: Sequence[str], where: object) -> int:
    """Index of the class of a name in any spelling; the closest spelling wins.

    Args:
        name: as spelled in a label file.
        classes: names in the order of their ids.
        where: file and line, for the message.

    Raises:
        DataError: if there is no such class; the message names the nearest and all of them.
    """
    for spelled in _SPELLINGS:
        for index, known in enumerate(classes):
            if spelled(known) == spelled(name):
                return index
    raise DataError(
        f"a label names an unknown class {name!r}{nearest(name.casefold(), list(classes))}",
        where=where,
        fix=f"correct the name, add it to --classes, or leave out its objects: --classes {','.join(classes)},-{name}; "
        f"known: {', '.join(classes)}",
    )


def same_classes(ours: Sequence[str], theirs: Sequence[str]) -> Mapping[int, int]:
    """Our class ids to theirs, for the classes that both have. For instance, a detector of VOC's twenty classes is
    scored on the six of Watercolor2K."""
    shared: dict[int, int] = {}
    for spelled in _SPELLINGS:
        free = {spelled(name): j for j, name in reversed([*enumerate(theirs)]) if j not in shared.values()}
        for i, name in enumerate(ours):
            if i not in shared and spelled(name) in free:
                shared[i] = free.pop(spelled(name))
    return dict(sorted(shared.items()))
