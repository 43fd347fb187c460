"""What readers notice beside what they return, for reports over a whole data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Counts = NDArray[np.int64]
"""How many pixels hold each value, ``(largest value + 1,)``."""


class Recorder(Generic[T]):
    """Collects what is added within a block, in this thread; outside of any block it is dropped."""

    def __init__(self, name: str) -> None:
        self._current: ContextVar[list[T] | None] = ContextVar(name, default=None)

    def add(self, item: T) -> None:
        """Record an item."""
        if (recorded := self._current.get()) is not None:
            recorded.append(item)

    @contextmanager
    def recording(self) -> Iterator[list[T]]:
        """The items that are added within the block; those of a block around it too."""
        outer, recorded = self._current.get(), list[T]()
        token = self._current.set(recorded)
        try:
            yield recorded
        finally:
            self._current.reset(token)
            if outer is not None:
                outer += recorded


@dataclass(frozen=True)
class Remark:
    """What a reader decided by itself, for instance to leave out a file or to clip a box.

    Attributes:
        what: in the plural, without the count: ``"hidden or system files are left out"``.
        path: the file or folder.
        fix: what can be done about it; empty where nothing needs to be done.
        count: of the objects in a label.
    """

    what: str
    path: Path
    fix: str = ""
    count: int = 1


@dataclass(frozen=True)
class StoredMask:
    """A mask file as it was stored.

    Attributes:
        path: the file.
        counts: pixels by stored value up to 255, before any value was refused.
        palette: ``(n, 3)`` colours of the stored values, of a palette file.
        direct: the values were used as class ids, and not looked up in a legend.
    """

    path: Path
    counts: Counts
    palette: NDArray[Any] | None
    direct: bool


def total_counts(histograms: Iterable[Counts]) -> Counts:
    """The sum of histograms of different lengths."""
    parts = list(histograms)
    total = np.zeros(max(map(len, parts), default=0), dtype=np.int64)
    for part in parts:
        total[: len(part)] += part
    return total


remarks: Recorder[Remark] = Recorder("remarks")
"""What listings decided, and what was corrected in labels."""

stored_masks: Recorder[StoredMask] = Recorder("stored_masks")
"""Every mask that was read."""
