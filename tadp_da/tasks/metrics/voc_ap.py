"""Average precision as the development kits of Pascal VOC compute it (Everingham et al., 2010).

The kits count pixels: a box from column 3 to column 5 is three wide. Our boxes are half-open, 3 to 6, so their widths
and overlaps are those numbers without a ``+ 1`` anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tadp_da.types import Boxes, Detections

THRESHOLDS = tuple(k / 20 for k in range(10, 20))
"""Overlaps 0.5, 0.55, ..., 0.95; the first is VOC's."""


@dataclass(frozen=True)
class Curve:
    """What became of one class's detections, best first.

    Attributes:
        hits: ``bool (n,)``: found an object that was not found before; the others are false alarms. Detections of
            difficult objects are neither, and not among them.
        objects: how many there were to find.
    """

    hits: NDArray[np.bool_]
    objects: int

    def eleven_points(self) -> float | None:
        """VOC 2007: mean over the recalls 0, 0.1, ..., 1 of the best precision at that recall or beyond."""
        if self.objects == 0:
            return None
        found, precision = np.cumsum(self.hits), self._precision()
        # recall >= k / 10 in whole numbers: in floating point 3 of 10 objects are not 0.3 of them
        best = [precision[10 * found >= k * self.objects].max(initial=0.0) for k in range(11)]
        return float(np.mean(best))

    def area(self) -> float | None:
        """VOC 2010 and later: area under the precision that is made to fall with recall."""
        if self.objects == 0:
            return None
        falling = np.maximum.accumulate(self._precision()[::-1])[::-1]
        return float(falling[self.hits].sum() / self.objects)

    def _precision(self) -> NDArray[np.float64]:
        return np.cumsum(self.hits) / np.arange(1, len(self.hits) + 1)


@dataclass(frozen=True)
class Matches:
    """Every detection of one class with the object of its image that it overlaps most.

    Attributes:
        overlap: ``float64 (n,)``, best score first; 0 where the image has no object of the class.
        nearest: ``int64 (n,)``: number of that object over all images.
        difficult: ``bool (m,)``: of every object.
    """

    overlap: NDArray[np.float64]
    nearest: NDArray[np.int64]
    difficult: NDArray[np.bool_]

    def at(self, threshold: float) -> Curve:
        """Hits at an overlap of at least ``threshold``: the best detection of an object is one, the rest are false."""
        close = self.overlap >= threshold
        spared = np.zeros(len(close), bool)
        spared[close] = self.difficult[self.nearest[close]]
        candidates = np.flatnonzero(close & ~spared)
        hits = np.zeros(len(close), bool)
        hits[candidates[np.unique(self.nearest[candidates], return_index=True)[1]]] = True
        return Curve(hits[~spared], int((~self.difficult).sum()))


def match(detections: Sequence[Detections], truths: Sequence[Boxes], label: int) -> Matches:
    """Match one class over all images. Equal scores keep the order of images, and within one that of the detections.

    Args:
        detections: per image.
        truths: per image, in the same order.
        label: the class id in both.
    """
    overlaps, nearest, scores, difficult = [], [], [], []
    seen = 0
    for found, truth in zip(detections, truths, strict=True):
        mine, theirs = found.labels == label, truth.labels == label
        table = overlap(found.xyxy[mine], truth.xyxy[theirs])
        empty = table.shape[1] == 0
        overlaps.append(np.zeros(len(table)) if empty else table.max(axis=1))
        nearest.append(np.zeros(len(table), np.int64) if empty else seen + table.argmax(axis=1))
        scores.append(found.scores[mine])
        difficult.append(truth.difficult[theirs])
        seen += table.shape[1]
    order = np.argsort(-_joined(scores, np.float64), kind="stable")
    return Matches(
        _joined(overlaps, np.float64)[order], _joined(nearest, np.int64)[order], _joined(difficult, np.bool_)
    )


def overlap(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union ``(n, m)`` of half-open boxes ``(n, 4)`` and ``(m, 4)``."""
    a, b = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(min=0).prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _joined(parts: Sequence[NDArray], kind: type) -> NDArray:
    return np.concatenate(parts).astype(kind) if parts else np.zeros(0, kind)
