"""Classes that the labels of a data set and a model have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tadp_da.class_names import same_classes
from tadp_da.errors import UsageError
from tadp_da.tasks import SharedClasses
from tadp_da.types import LabelSpace

Renumber = Callable[[Any, NDArray[np.int64], Mapping[int, int]], Any]


def shared_classes(labels: LabelSpace, known: LabelSpace, renumber: Renumber) -> SharedClasses:
    """The classes of ``labels`` that ``known`` has too, under the names of ``known``, in the order of ``labels``.

    Args:
        labels: of a data set.
        known: of a model.
        renumber: gives a label its new ids, from the label, the table of new ids by old ones (the ignore id for
            classes that are not shared) and the shared classes: ids of ``known`` by ids of ``labels``.

    Raises:
        UsageError: when no class is shared.
    """
    shared = same_classes(labels.classes, known.classes)
    if not shared:
        raise UsageError(
            f"the model and the labels share no class: {', '.join(known.classes)}; {', '.join(labels.classes)}",
            fix="give both the names of what they have in common",
        )
    names = tuple(known.classes[i] for i in shared.values())
    if names == labels.classes:
        return SharedClasses(labels, lambda label: label, _left_out(labels, known, shared))
    palette = tuple(labels.palette[i] for i in shared) if labels.palette else ()
    table = np.full(max(256, len(labels.classes)), labels.ignore, np.int64)
    table[list(shared)] = range(len(shared))
    return SharedClasses(
        dataclasses.replace(labels, classes=names, palette=palette),
        lambda label: renumber(label, table, shared),
        _left_out(labels, known, shared),
    )


def _left_out(labels: LabelSpace, known: LabelSpace, shared: Mapping[int, int]) -> str:
    theirs = [name for i, name in enumerate(labels.classes) if i not in shared]
    ours = [name for i, name in enumerate(known.classes) if i not in shared.values()]
    parts = [f"only the labels have {', '.join(theirs)}"] if theirs else []
    parts += [f"only the model has {', '.join(ours)}"] if ours else []
    return f"scored on {len(shared)} classes that labels and model share; {'; '.join(parts)}" if parts else ""


def predicted_ids(labels: LabelSpace, predicted: LabelSpace, other: int) -> NDArray[np.int64]:
    """Ids in ``labels`` by ids in ``predicted``; ``other`` for classes that the labels lack.

    Raises:
        UsageError: when a class of the labels cannot be predicted.
    """
    if unknown := [name for name in labels.classes if name not in predicted.classes]:
        raise UsageError(
            f"the model does not predict {', '.join(unknown)}: it knows {', '.join(predicted.classes)}",
            fix="train on a source with these classes, or give labels of classes that the model knows",
        )
    found = [labels.classes.index(n) if n in labels.classes else other for n in predicted.classes]
    return np.array(found, np.int64)
