"""Names of classes as different data sets spell them: ``tvmonitor`` is ``television`` is ``TV``."""

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
"""Groups of names for one class, each without blanks, hyphens and capitals."""

_CANONICAL = {name: group[0] for group in _SAME for name in group}


def canonical(name: str) -> str:
    """One spelling for all spellings of a class: no capitals, blanks, hyphens or underscores; one of each synonyms."""
    return _CANONICAL.get(_plain(name), _plain(name))


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name.casefold())


_SPELLINGS: tuple[Callable[[str], str], ...] = (str, _plain, canonical)
"""How names are compared, the strictest first: a set may have both `person` and `pedestrian`."""


def class_id(name: str, classes: Sequence[str], where: object) -> int:
    """Index of the class that a name stands for, however it is spelled; the likest spelling wins.

    Args:
        name: as a label file has it.
        classes: names in the order of their ids.
        where: file and line, for the message.

    Raises:
        DataError: when no class is meant; the message names the nearest and all of them.
    """
    for spelled in _SPELLINGS:
        for index, known in enumerate(classes):
            if spelled(known) == spelled(name):
                return index
    raise DataError(
        f"a label names an unknown class {name!r}{nearest(name.casefold(), list(classes))}",
        where=where,
        fix=f"correct the name, add the class, or leave it out (drop=[{name!r}]); known: {', '.join(classes)}",
    )


def same_classes(ours: Sequence[str], theirs: Sequence[str]) -> Mapping[int, int]:
    """Which of our class ids is which of theirs; classes of one side only are left out. A detector of VOC's twenty
    classes is scored on the six of Watercolor2K this way."""
    shared: dict[int, int] = {}
    for spelled in _SPELLINGS:
        free = {spelled(name): j for j, name in reversed([*enumerate(theirs)]) if j not in shared.values()}
        for i, name in enumerate(ours):
            if i not in shared and spelled(name) in free:
                shared[i] = free.pop(spelled(name))
    return dict(sorted(shared.items()))
