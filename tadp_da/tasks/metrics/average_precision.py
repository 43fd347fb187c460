"""Average precision by the rules of VOC 2007, VOC 2010 and COCO, side by side."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np

from tadp_da.errors import DataError
from tadp_da.tasks import Measure
from tadp_da.tasks.labels.boxes import check_boxes, check_detections
from tadp_da.tasks.labels.classes import predicted_ids
from tadp_da.tasks.metrics.voc_ap import THRESHOLDS, Matches, match
from tadp_da.types import Boxes, Detections, LabelSpace

NO_COCO = "COCO numbers need a package that is not installed: pip install 'tadp-da[det]'"


class AveragePrecision:
    """Average precision over all images together, in %.

    The main measure is that of the authors of Watercolor2k and Comic2k (Inoue et al., 2018): VOC 2007's 11 points at an
    overlap of 0.5. The area under the curve of the later kits and COCO's 101 points are computed beside it, each at 0.5
    and as the mean over 0.5, 0.55, ..., 0.95. Difficult objects neither have to be found nor count as false alarms. A
    class without an object to find has no average precision and does not enter a mean. Images without objects count:
    what is detected on them is a false alarm.

    Args:
        labels: classes of the labels.
        predicted: classes of the detections, by name at least those of the labels; detections of others are dropped.
        coco: compute COCO's numbers where the package for it is installed.

    Raises:
        UsageError: when a class of the labels cannot be predicted.
    """

    def __init__(self, labels: LabelSpace, predicted: LabelSpace | None = None, *, coco: bool = True) -> None:
        self.labels, self.coco = labels, coco
        self._ids = predicted_ids(labels, predicted or labels, -1)
        self._detections: list[Detections] = []
        self._truths: list[Boxes] = []

    def update(self, prediction: Detections, truth: Boxes) -> None:
        """Count one image.

        Raises:
            DataError: when a box of the label is empty or its id is not a class, or a detection is not finite.
        """
        check_boxes(truth, self.labels, where=self._image)
        self._detections.append(self._translated(prediction))
        self._truths.append(truth)

    def compute(self) -> tuple[Measure, ...]:
        """``AP50 (VOC07)`` first, then ``AP (VOC07)`` and both for ``VOC10`` and ``COCO``; those of VOC 2007 and 2010
        at 0.5 with their values per class, COCO's None where its package is missing.

        Raises:
            DataError: when there was no object to find.
        """
        matches = [match(self._detections, self._truths, k) for k in range(len(self.labels.classes))]
        if sum(m.at(0.5).objects for m in matches) == 0:
            raise DataError(
                f"nothing to score: {len(self._truths)} images without an object to find",
                fix="give labels with objects that are not all difficult",
            )
        coco = self._coco() if self.coco and not self.notes() else (None, None)
        return (
            *self._voc("VOC07", matches, "eleven_points"),
            *self._voc("VOC10", matches, "area"),
            Measure(name="AP50 (COCO)", value=coco[0]),
            Measure(name="AP (COCO)", value=coco[1]),
        )

    def per_image(self, prediction: Detections, truth: Boxes) -> float | None:
        """The main measure of one image; None when it has no object to find."""
        found = self._translated(prediction)
        each = [match([found], [truth], k).at(0.5).eleven_points() for k in range(len(self.labels.classes))]
        return _percent(_mean(each))

    def details(self) -> dict[str, Any]:
        """``objects``: how many there were to find."""
        return {"objects": sum(int((~truth.difficult).sum()) for truth in self._truths)}

    def notes(self) -> tuple[str, ...]:
        """That COCO's numbers are missing, where they are."""
        missing = self.coco and importlib.util.find_spec("faster_coco_eval") is None
        return (NO_COCO,) if missing else ()

    @property
    def _image(self) -> str:
        return f"image {len(self._truths)} of this metric"

    def _translated(self, prediction: Detections) -> Detections:
        """Detections of the labels' classes, under the labels' ids."""
        check_detections(prediction, len(self._ids), where=self._image)
        ids = self._ids[prediction.labels]
        kept = ids >= 0
        return Detections(prediction.xyxy[kept], ids[kept], prediction.scores[kept])

    def _voc(self, kit: str, matches: Sequence[Matches], kind: str) -> tuple[Measure, Measure]:
        table = [[_percent(getattr(m.at(t), kind)()) for t in THRESHOLDS] for m in matches]
        first = [row[0] for row in table]
        per_class = dict(zip(self.labels.classes, first, strict=True))
        return (
            Measure(name=f"AP50 ({kit})", value=_mean(first), per_class=per_class),
            Measure(name=f"AP ({kit})", value=_mean([value for row in table for value in row])),
        )

    def _coco(self) -> tuple[float | None, float | None]:
        import torch
        from torchmetrics.detection import MeanAveragePrecision

        # the defaults of torchmetrics are float32, where 0.6 is 0.60000002: an overlap of 0.6 would be a miss
        metric = MeanAveragePrecision(
            iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
            rec_thresholds=np.linspace(0, 1, 101).tolist(),
            backend="faster_coco_eval",
            extended_summary=True,
        )
        metric.warn_on_many_detections = False  # COCO's rules cut off all beyond 100
        for found, truth in zip(self._detections, self._truths, strict=True):
            prediction = {"boxes": found.xyxy.astype(float), "labels": found.labels, "scores": found.scores}
            label = {
                "boxes": truth.xyxy.astype(float),
                "labels": truth.labels,
                "iscrowd": truth.difficult * 1,
            }
            metric.update(
                *([{name: torch.from_numpy(x) for name, x in one.items()}] for one in (prediction, label))
            )
        # of shape (thresholds, recalls, classes, areas, limits), here of all areas and a hundred detections; the means
        # that torchmetrics gives are rounded to float32
        precision = metric.compute()["precision"][:, :, :, 0, -1]
        return _mean_present(precision[0]), _mean_present(precision)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _mean_present(values: Any) -> float | None:
    """In %; COCO writes -1 for classes without an object to find."""
    present = values[values > -1]
    return 100 * float(present.mean()) if len(present) else None
