"""Models that decide by rule, and reports made of given numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from PIL import Image

from benchmarks.results import Evaluation, Report
from tadp_da.inference import InferenceSettings
from tadp_da.tasks import Measure
from tadp_da.types import LabelSpace

CLASSES = ("sky", "road", "car", "tree")
LABELS = LabelSpace(
    "segmentation", CLASSES, palette=((70, 130, 180), (128, 64, 128), (0, 0, 142), (0, 99, 0))
)
COUNT, SIZE = 7, (24, 36)


class Predicts:
    """A model whose prediction is a rule over (index of the call, image, prompt)."""

    def __init__(self, rule: Callable[[int, Image.Image, str], Any], labels: LabelSpace = LABELS) -> None:
        self.labels, self.rule, self.prompts = labels, rule, list[str]()
        self.inference = InferenceSettings(short=64)
        self.asked: InferenceSettings | None = None

    def to(self, device: Any, /) -> None:
        """It has no weights."""

    def predict_images(
        self,
        items: Iterable[tuple[Image.Image, str]],
        *,
        batch: int,
        precision: str,
        inference: InferenceSettings,
    ) -> Iterator[Any]:
        self.asked = inference
        for image, prompt in items:
            self.prompts.append(prompt)
            yield self.rule(len(self.prompts) - 1, image, prompt)


def evaluation(
    main: float | None, classes: Mapping[str, float | None] | None = None, **measure: Any
) -> Evaluation:
    """Measures as a model that was never run would have them."""
    shown = dict.fromkeys(CLASSES, main) if classes is None else classes
    return Evaluation(
        domain="drawn",
        labels=LABELS,
        images=1,
        main=Measure(**({"name": "mIoU", "value": main, "per_class": shown} | measure)),
        per_image={"a.png": main},
    )


def report(**evaluations: Evaluation) -> Report:
    """A report of these evaluations."""
    return Report(evaluations=evaluations)


def row(target: Mapping[int, float], source: float = 80.0) -> dict[int, Report]:
    """Reports of one row: seed to target score."""
    return {s: report(source=evaluation(source + s), target=evaluation(v)) for s, v in target.items()}
