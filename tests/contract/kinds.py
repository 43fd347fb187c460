"""Labels of each task for the contract tests; a new task adds its entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tadp_da.types import Boxes, Detections, LabelSpace

CLASSES = ("sky", "road", "car")


@dataclass(frozen=True)
class Kind:
    """One kind of label.

    Attributes:
        labels: its label space.
        label: makes one for an image of (h, w).
        strange: the same with an id that is not a class, or a value that is none.
        advice: of the error that says so.
        best: main measure of predictions that are right.
        truth: the label that a prediction would be right for.
        same: whether two predictions are the same.
    """

    labels: LabelSpace
    label: Callable[[tuple[int, int]], Any]
    strange: Callable[[tuple[int, int]], Any]
    truth: Callable[[Any], Any]
    same: Callable[[Any, Any], bool]
    advice: str = "map the ids to the label space"
    best: float = 100


def mask(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 3, size, dtype=np.uint8)


def depth(size: tuple[int, int]) -> np.ndarray:
    """Every tenth pixel is unknown."""
    metres = np.random.default_rng(1).uniform(0.5, 9, size).astype(np.float32)
    metres.reshape(-1)[::10] = 0
    return metres


def boxes(size: tuple[int, int], label: int = 2) -> Boxes:
    """A small object and a large one."""
    height, width = size
    corners = [[0, 0, width / 3, height / 3], [width / 4, height / 4, width, height]]
    return Boxes(np.array(corners, np.float32), np.array([0, label]), np.zeros(2, bool))


def found_again(prediction: Detections) -> Boxes:
    return Boxes(prediction.xyxy, prediction.labels, np.zeros(len(prediction), bool))


KINDS = {
    "segmentation": Kind(
        LabelSpace("segmentation", CLASSES),
        mask,
        lambda size: np.full(size, 9, np.uint8),
        lambda x: x,
        np.array_equal,
    ),
    "detection": Kind(
        LabelSpace("detection", CLASSES),
        boxes,
        lambda size: boxes(size, label=9),
        found_again,
        lambda a, b: np.allclose(a.xyxy, b.xyxy, atol=1e-3) and np.array_equal(a.labels, b.labels),
    ),
    "depth": Kind(
        LabelSpace("depth", (), range=(0.001, 10.0)),
        depth,
        lambda size: np.full(size, -1, np.float32),
        lambda x: x,
        np.allclose,
        advice="0 where the depth is unknown",
        best=0,
    ),
}
