"""Classes that source and target share: where their lists differ, scores are about these alone, and say so."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.evaluate import Evaluation
from tadp_da.class_names import same_classes
from tadp_da.domains import Domain
from tadp_da.errors import UsageError
from tadp_da.types import Boxes, LabelSpace


def in_common(domain: Domain, known: LabelSpace) -> tuple[Domain, str]:
    """The domain with labels of the classes that a model knows too, under the model's names, in the domain's order.

    Pixels of other classes are ignored and boxes of other classes are left out: the model was never taught them.

    Args:
        domain: one with labels; none is read here.
        known: classes of the model.

    Returns:
        The domain, and what was left out on either side; empty when nothing was.

    Raises:
        UsageError: when no class is shared.
    """
    theirs, read = domain.labels, domain.label
    if theirs is None or read is None:
        raise UsageError(f"domain {domain.name!r} has no labels", fix="choose a labelled domain")
    shared = same_classes(theirs.classes, known.classes)
    if not shared:
        raise UsageError(
            f"the model and the labels of {domain.name!r} share no class: {', '.join(known.classes)}; "
            f"{', '.join(theirs.classes)}",
            fix="give both the names of what they have in common",
        )
    names = tuple(known.classes[mine] for mine in shared.values())
    if names == theirs.classes == known.classes:
        return domain, ""
    palette = tuple(theirs.palette[i] for i in shared) if theirs.palette else ()
    labels = dataclasses.replace(theirs, classes=names, palette=palette)
    table = np.full(256, theirs.ignore, np.uint8)
    table[list(shared)] = range(len(shared))
    fewer = dataclasses.replace(
        domain, labels=labels, label=lambda path: _renumbered(read(path), table, shared)
    )
    return fewer, _left_out(domain.name, theirs.classes, known.classes, shared)


def noted(found: Evaluation, note: str) -> Evaluation:
    """The evaluation with a note that tables show."""
    if not note:
        return found
    return dataclasses.replace(
        found, details={**found.details, "notes": [*found.details.get("notes", ()), note]}
    )


def _renumbered(label: Any, table: np.ndarray, shared: Mapping[int, int]) -> Any:
    if not isinstance(label, Boxes):
        return table[label]
    kept = np.isin(label.labels, list(shared))
    return Boxes(label.xyxy[kept], table[label.labels[kept]].astype(np.int64), label.difficult[kept])


def _left_out(domain: str, theirs: tuple[str, ...], ours: tuple[str, ...], shared: Mapping[int, int]) -> str:
    only = {
        "the labels": [name for i, name in enumerate(theirs) if i not in shared],
        "the model": [name for i, name in enumerate(ours) if i not in shared.values()],
    }
    parts = [f"only {side} have {', '.join(names)}" for side, names in only.items() if names]
    parts = [part.replace("the model have", "the model has") for part in parts]
    if not parts:
        return ""
    return f"{domain} is scored on {len(shared)} classes that labels and model share; {'; '.join(parts)}"
