"""Mean intersection over union from one confusion matrix over all images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tadp_da.errors import DataError
from tadp_da.tasks import Measure
from tadp_da.tasks.labels.classes import predicted_ids
from tadp_da.tasks.labels.masks import check_ids
from tadp_da.types import LabelSpace


class MeanIoU:
    """Mean intersection over union, IoU per class and pixel accuracy, in %.

    Counted over the pixels of all images together (mmsegmentation's mIoU, TADP section 4), at the resolution of the
    labels. A class that occurs neither in the labels nor in the predictions has no IoU and does not enter the mean.

    Args:
        labels: names and ids of the labels' classes; pixels with ``labels.ignore`` do not count.
        predicted: classes of the predictions, by name at least those of the labels. Another class that is predicted on
            a labelled pixel is an error, and has no IoU itself.

    Raises:
        UsageError: when a class of the labels cannot be predicted.
    """

    def __init__(self, labels: LabelSpace, predicted: LabelSpace | None = None) -> None:
        from torchmetrics.classification import MulticlassConfusionMatrix

        self.labels, self.images = labels, 0
        self._predicted, count = predicted or labels, len(labels.classes)
        # predictions under the ids of the labels; all other classes share the last one
        self._ids = predicted_ids(labels, self._predicted, count)
        # The arguments are checked below, once per image and with a message that a person can act on.
        self.matrix = MulticlassConfusionMatrix(
            num_classes=max(count, int(self._ids.max()) + 1), ignore_index=labels.ignore, validate_args=False
        )

    def update(self, prediction: Any, truth: Any) -> None:
        """Count one image: two integer arrays ``(h, w)`` of class ids, each of its own label space.

        Raises:
            DataError: when the sizes differ or an id of the label is neither a class nor the ignore id.
        """
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        if prediction.shape != truth.shape:
            raise DataError(
                f"a prediction of size {prediction.shape} cannot be scored against a label of size {truth.shape}",
                where=f"image {self.images} of this metric",
                fix="predict at the label's own resolution, or check that image and label belong together",
            )
        check_ids(truth, self.labels, where=f"image {self.images} of this metric")
        self.matrix.update(
            torch.from_numpy(self._ids[prediction]).reshape(1, -1),
            torch.from_numpy(truth.astype(np.int64)).reshape(1, -1),
        )
        self.images += 1

    def _confusion(self) -> Tensor:
        return self.matrix.confmat.double().cpu()[: len(self.labels.classes)]

    def compute(self) -> tuple[Measure, ...]:
        """``mIoU`` with the IoU of each class, and ``pixel accuracy``.

        Raises:
            DataError: when no labelled pixel was counted.
        """
        confusion, count = self._confusion(), len(self.labels.classes)
        hits, total = confusion.diagonal(), confusion.sum()
        if total == 0:
            raise DataError(
                f"nothing to score: {self.images} images without a single labelled pixel",
                fix=f"give labels that use other ids than ignore ({self.labels.ignore})",
            )
        union = confusion.sum(0)[:count] + confusion.sum(1) - hits
        iou = {
            name: None if u == 0 else 100 * float(h / u)
            for name, h, u in zip(self.labels.classes, hits, union, strict=True)
        }
        present = [value for value in iou.values() if value is not None]
        return (
            Measure(name="mIoU", value=sum(present) / len(present), per_class=iou),
            Measure(name="pixel accuracy", value=100 * float(hits.sum() / total)),
        )

    def per_image(self, prediction: Any, truth: Any) -> float | None:
        """mIoU of one image, None when all of it is ignored."""
        if (np.asarray(truth) == self.labels.ignore).all():
            return None
        one = MeanIoU(self.labels, self._predicted)
        one.update(prediction, truth)
        return one.compute()[0].value

    def details(self) -> dict[str, Any]:
        """``confusion``: pixels by class of the label (rows) and of the prediction (columns; one more than classes
        where predictions have classes that the labels lack)."""
        return {"confusion": self._confusion().long().tolist()}

    def notes(self) -> tuple[str, ...]:
        """None."""
        return ()
