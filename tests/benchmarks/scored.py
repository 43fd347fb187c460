"""Models that decide by rule, and reports made of given numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.evaluate import Evaluation, Report
from tadp_da.heads import heads
from tadp_da.types import FeatureSpec, LabelSpace

CLASSES = ("sky", "road", "car", "tree")
LABELS = LabelSpace(
    "segmentation", CLASSES, palette=((70, 130, 180), (128, 64, 128), (0, 0, 142), (0, 99, 0))
)
COUNT, SIZE = 7, (24, 36)


class Decides:
    """A model whose decision is a rule over (index of the call, image, prompt); its head is a real one."""

    def __init__(
        self, rule: Callable[[int, Image.Image, str], np.ndarray], labels: LabelSpace = LABELS
    ) -> None:
        self.labels, self.rule, self.prompts = labels, rule, list[str]()
        self.head: Any = heads["semantic-fpn"](FeatureSpec({4: 8}, {}), labels, width=8)

    def to(self, device: Any, /) -> None:
        self.head.to(device)

    def predict(self, image: Image.Image, prompt: str, /) -> np.ndarray:
        self.prompts.append(prompt)
        return self.rule(len(self.prompts) - 1, image, prompt)


def evaluation(main: float | None, classes: Mapping[str, float | None] | None = None) -> Evaluation:
    """Scores as a model that was never run would have them."""
    shown = dict.fromkeys(CLASSES, main) if classes is None else classes
    return Evaluation(
        domain="drawn",
        metric="mIoU",
        main=main,
        classes=shown,
        images=1,
        per_image={"a.png": main},
        labels=LABELS,
    )


def row(target: Mapping[int, float], source: float = 80.0) -> dict[int, Report]:
    """Reports of one row: seed to target score."""
    return {s: Report(source=evaluation(source + s), target=evaluation(v)) for s, v in target.items()}
