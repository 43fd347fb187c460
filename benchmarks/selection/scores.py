"""Scores of rows without labels: how well the models of a row agree with themselves and with those of other rows.

A table's predictions are given by row and seed. All scores are in %, higher is better, and a row's is the mean over its
seeds; None where there is nothing to compare.

- masks: agreement under jitter, with the committee (majority of all other rows, each of the same weight) and of the
  row's own seeds, as mIoU over all pixels of all images together;
- boxes: AP50 against the boxes that most of the committee finds, and the overlap of boxes with and without jitter (box
  stability, Yang et al., arXiv 2403.13803, with jitter in place of dropout).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.selection.predictions import BINS, Predictions
from tadp_da.tasks.metrics.average_precision import AveragePrecision
from tadp_da.types import Boxes, Detections, LabelSpace

Table = Mapping[str, Mapping[int, Predictions]]
Scores = dict[str, float | None]
CONFIDENT = 0.5
"""Least score of a detection that is a vote, or that has to be stable."""
SAME = 0.5
"""Least overlap of boxes that are taken for one object."""


def confusion(pairs: Any, classes: int) -> NDArray[np.int64]:
    """``int64 (k, k)``: pixels by class of the first mask (rows) and of the second of each pair."""
    total = np.zeros(classes * classes, np.int64)
    for one, other in pairs:
        total += np.bincount(one.astype(np.int64).ravel() * classes + other.ravel(), minlength=classes**2)
    return total.reshape(classes, classes)


def mean_iou(matrix: NDArray[np.int64]) -> float | None:
    """In %, over the classes that occur on one side at least."""
    hits = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - hits
    present = union > 0
    return 100 * float((hits[present] / union[present]).mean()) if present.any() else None


def masks(table: Table, classes: int) -> dict[str, Scores]:
    """Scores of rows that predict masks."""
    committee = _against_committee(table, classes)
    found: dict[str, Scores] = {}
    for row, seeds in table.items():
        stable = [mean_iou(confusion(zip(p.plain, p.jittered, strict=True), classes)) for p in seeds.values()]
        pairs = itertools.combinations(seeds.values(), 2)
        alike = [mean_iou(confusion(zip(a.plain, b.plain, strict=True), classes)) for a, b in pairs]
        found[row] = {"jitter": mean(stable), "committee": committee[row], "seeds": mean(alike)}
    return found


def _against_committee(table: Table, classes: int) -> Scores:
    totals = {(row, seed): np.zeros((classes, classes), np.int64) for row in table for seed in table[row]}
    images = len(next(iter(next(iter(table.values())).values())).plain)
    for index in range(images):
        votes = {
            row: _votes([p.plain[index] for p in seeds.values()], classes) for row, seeds in table.items()
        }
        everyone = sum(votes.values())
        for row, seeds in table.items():
            # rounded again, so that equal votes are equal
            majority = np.argmax(np.round(everyone - votes[row], 6), axis=0).astype(np.uint8)
            for seed, predicted in seeds.items():
                totals[row, seed] += confusion([(majority, predicted.plain[index])], classes)
    if len(table) < 2:
        return dict.fromkeys(table)
    return {row: mean([mean_iou(totals[row, seed]) for seed in seeds]) for row, seeds in table.items()}


def _votes(predicted: Sequence[Any], classes: int) -> NDArray[np.float64]:
    """``float64 (k, h, w)``: share of these masks that say the class."""
    return np.stack([sum(mask == k for mask in predicted) / len(predicted) for k in range(classes)])


def information(predicted: Predictions, source: Sequence[float] | None) -> float | None:
    """Minus the divergence of the mean prediction from the source's class shares, minus the mean entropy; in nats, at
    most 0. The source's shares need not be the target's."""
    if predicted.shares is None or predicted.entropy is None or source is None:
        return None
    prior = np.asarray(source, float) / max(1e-12, float(np.sum(source)))
    divergence = np.sum(predicted.shares * (np.log(predicted.shares) - np.log(np.maximum(prior, 1e-3))))
    return -float(divergence) - predicted.entropy


def estimated_accuracy(target: Predictions, source: Predictions, accuracy: float | None) -> float | None:
    """Average thresholded confidence (Garg et al., 2022), in %: pixel accuracy on the target, as the share of pixels
    above the confidence that as many of the source's pixels exceed as are right there."""
    if target.confidence is None or source.confidence is None or accuracy is None:
        return None
    above = np.cumsum(source.confidence[::-1])[::-1]  # share of pixels in this bin or a higher one
    threshold = int(np.argmin(np.abs(above - accuracy / 100)))
    return 100 * float(target.confidence[threshold:BINS].sum())


def boxes(table: Table, labels: LabelSpace) -> dict[str, Scores]:
    """Scores of rows that predict boxes."""
    found: dict[str, Scores] = {}
    for row, seeds in table.items():
        others = {name: list(those.values()) for name, those in table.items() if name != row}
        ap = [_against_fused(p, others, labels) for p in seeds.values()] if others else []
        stable = [
            mean([stability(a, b) for a, b in zip(p.plain, p.jittered, strict=True)]) for p in seeds.values()
        ]
        found[row] = {"committee": mean(ap), "jitter": mean(stable)}
    return found


def _against_fused(
    candidate: Predictions, others: Mapping[str, Sequence[Predictions]], labels: LabelSpace
) -> float | None:
    metric, objects = AveragePrecision(labels, coco=False), 0
    for index, found in enumerate(candidate.plain):
        votes = [(p.plain[index], 1 / len(others) / len(those)) for those in others.values() for p in those]
        truth = fuse(votes)
        assert isinstance(found, Detections)
        objects += len(truth)
        metric.update(found, truth)
    return metric.compute()[0].value if objects else None


def fuse(votes: Sequence[tuple[Any, float]]) -> Boxes:
    """Objects that detectors of at least half of all weight find, each the mean of their boxes, weighted by score.

    Args:
        votes: confident detections of each detector in one image count, with the detector's weight; the weights sum to
            one, and each detector finds an object once.
    """
    found = [
        (found, i, d, w)
        for d, (found, w) in enumerate(votes)
        for i in np.flatnonzero(found.scores >= CONFIDENT)
    ]
    clusters: list[dict[str, Any]] = []
    for detections, i, detector, weight in sorted(found, key=lambda each: -float(each[0].scores[each[1]])):
        box, label, score = (
            detections.xyxy[i].astype(float),
            int(detections.labels[i]),
            float(detections.scores[i]),
        )
        free = [c for c in clusters if c["label"] == label and detector not in c["weights"]]
        overlaps = overlap(box[None], np.array([c["box"] for c in free]).reshape(-1, 4))[0]
        if len(free) and overlaps.max() >= SAME:
            best = free[int(overlaps.argmax())]
        else:
            best = {"label": label, "weights": {}, "sum": np.zeros(4), "scores": 0.0}
            clusters.append(best)
        best["weights"][detector] = weight
        best["sum"], best["scores"] = best["sum"] + score * box, best["scores"] + score
        best["box"] = best["sum"] / best["scores"]
    kept = [c for c in clusters if sum(c["weights"].values()) >= 0.5 - 1e-9]
    return Boxes(
        np.array([c["box"] for c in kept], np.float32).reshape(-1, 4),
        np.array([c["label"] for c in kept], np.int64),
        np.zeros(len(kept), bool),
    )


def stability(plain: Any, jittered: Any) -> float | None:
    """Mean overlap, in %, of the confident detections of both, matched one to one within a class; one without a partner
    counts as 0. None where neither has any."""
    one, other = _confident(plain), _confident(jittered)
    if not len(one) and not len(other):
        return None
    overlaps = overlap(one.xyxy, other.xyxy) * (one.labels[:, None] == other.labels[None])
    rows, columns = linear_sum_assignment(-overlaps)
    return 100 * float(overlaps[rows, columns].sum()) / max(len(one), len(other))


def _confident(found: Any) -> Detections:
    kept = found.scores >= CONFIDENT
    return Detections(found.xyxy[kept], found.labels[kept], found.scores[kept])


def overlap(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union ``(n, m)`` of boxes."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    areas = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(-1) for b in (one, other)]
    union = areas[0][:, None] + areas[1][None] - both
    return np.asarray(np.divide(both, union, out=np.zeros(both.shape), where=union > 0), np.float64)


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are there; None for none."""
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
