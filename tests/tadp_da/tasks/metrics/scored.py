"""Objects and finds drawn here, and what the metric makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tadp_da.tasks.metrics.average_precision import AveragePrecision
from tadp_da.types import Boxes, Detections, LabelSpace

TWO = LabelSpace("detection", ("car", "dog"))
BOX = (10, 10, 20, 20)
NEAR = (10, 10, 20, 18)  # overlaps BOX by 0.8
FAR = (60, 60, 70, 70)


def truth(*rows: tuple[Any, ...]) -> Boxes:
    """Rows of (box, class id) or (box, class id, difficult)."""
    return Boxes(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int64),
        np.array([len(r) > 2 and r[2] for r in rows], bool),
    )


def found(*rows: tuple[Any, ...]) -> Detections:
    """Rows of (box, class id, score)."""
    return Detections(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.int64),
        np.array([r[2] for r in rows], np.float32),
    )


def metric_of(
    pairs: list[tuple[Detections, Boxes]], labels: LabelSpace = TWO, **settings: Any
) -> AveragePrecision:
    metric = AveragePrecision(labels, **({"coco": False} | settings))
    for prediction, label in pairs:
        metric.update(prediction, label)
    return metric


def scored(
    pairs: list[tuple[Detections, Boxes]], labels: LabelSpace = TWO, **settings: Any
) -> dict[str, float | None]:
    """Values by name of the measure."""
    return {m.name: m.value for m in metric_of(pairs, labels, **settings).compute()}


def random_pairs(seed: int, images: int = 6, ties: bool = True) -> list[tuple[Detections, Boxes]]:
    """Objects, and finds that jitter around them, with doubles, misses, false alarms, ties and difficult objects."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        count = int(rng.integers(0, 5))
        corners = rng.integers(0, 60, (count, 2))
        boxes = np.concatenate([corners, corners + rng.integers(4, 40, (count, 2))], axis=1)
        label = Boxes(boxes.astype(np.float32), rng.integers(0, 2, count), rng.random(count) < 0.25)
        copies = np.repeat(np.arange(count), rng.integers(0, 3, count))
        shift = rng.integers(-4, 5, (len(copies), 4))
        near = boxes[copies] + shift
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        noise = rng.integers(0, 60, (int(rng.integers(0, 3)), 2))
        finds = np.concatenate([near, np.concatenate([noise, noise + 15], axis=1)])
        classes = np.concatenate([label.labels[copies], rng.integers(0, 2, len(noise))])
        scores = (
            rng.integers(1, 6, len(finds)) / 6
            if ties
            else rng.permutation(97)[: len(finds)] / 97 + rng.random() / 200
        )
        pairs.append(
            (Detections(finds.astype(np.float32), classes.astype(np.int64), scores.astype(np.float32)), label)
        )
    return [*pairs, (found(), truth((BOX, 0), (BOX, 1)))]
