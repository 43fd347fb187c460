"""Lists of class names that are wrong by a given amount: an oracle at some precision and recall (TADP, table S2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def imperfect(
    key: str,
    present: Sequence[str],
    classes: Sequence[str],
    precision: float,
    recall: float,
    *,
    seed: int = 0,
) -> list[str]:
    """The classes in an image, with some left out and others added.

    Which ones is a function of the key and the seed: at a lower recall a subset of what is named at a higher one, at a
    lower precision a superset of what is added at a higher one.

    Args:
        key: of the image.
        present: classes in its label.
        classes: all classes, in the order that names are listed in.
        precision: share of the named classes that are present, reached as far as there are absent classes; in (0, 1].
        recall: share of the present classes that are named, rounded to at least one class; in (0, 1].
        seed: of the choice.

    Returns:
        Names in the order of ``classes``. At precision 1 and recall 1 the present ones.
    """

    def rank(name: str) -> bytes:
        return hashlib.blake2b(
            f"{seed}:{key}:{name}".encode(errors="surrogateescape"), digest_size=8
        ).digest()

    absent = [name for name in classes if name not in present]
    kept = sorted(present, key=rank)[: max(round(recall * len(present)), min(1, len(present)))]
    added = sorted(absent, key=rank)[: round(len(kept) * (1 / precision - 1))]
    return [name for name in classes if name in kept or name in added]
