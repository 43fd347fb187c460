"""Segmentation score from one confusion matrix over all images. A shared helper, not a plug-in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tadp_da.errors import DataError, UsageError
from tadp_da.types import LabelSpace


class ConfusionScore:
    """Mean intersection over union, per-class IoU and pixel accuracy, all in %.

    Counted over the pixels of all images together (mmsegmentation's mIoU, TADP section 4), at the resolution of
    the truth. A class that is in no truth and in no decision is absent: its IoU is None and it does not enter the
    mean.

    Args:
        labels: names and ids of the truths' classes; pixels with ``labels.ignore`` do not count.
        decides: classes of the decisions, by name at least those of the truths. A decision for another class is wrong
            where the truth is known, and that class has no score.

    Raises:
        UsageError: when a class of the truths is none that the model knows.
    """

    def __init__(self, labels: LabelSpace, *, decides: LabelSpace | None = None) -> None:
        from torchmetrics.classification import MulticlassConfusionMatrix

        self.labels, self.images = labels, 0
        self._decides, count = decides or labels, len(labels.classes)
        _refuse_unknown(self._decides, labels)
        # decisions under the truths' ids; all other classes share the last
        known = [labels.classes.index(n) if n in labels.classes else count for n in self._decides.classes]
        self._ids = np.array(known, dtype=np.int64)
        # The arguments are checked below, once per image and with a message that a person can act on.
        self.matrix = MulticlassConfusionMatrix(
            num_classes=max(count, max(known) + 1), ignore_index=labels.ignore, validate_args=False
        )

    def update(self, decision: Any, truth: Any) -> None:
        """Count one image: two integer arrays ``(h, w)`` of class ids, each of its own label space.

        Raises:
            DataError: when the sizes differ or a true id is neither a class nor the ignore id.
        """
        decision, truth = np.asarray(decision), np.asarray(truth)
        if decision.shape != truth.shape:
            raise DataError(
                f"a decision of size {decision.shape} cannot be scored against a label of size {truth.shape}",
                where=f"image {self.images} of this score",
                fix="predict at the label's own resolution, or check that image and label belong together",
            )
        check_ids(truth, self.labels, where=f"image {self.images} of this score")
        self.matrix.update(
            torch.from_numpy(self._ids[decision]).reshape(1, -1),
            torch.from_numpy(truth.astype(np.int64)).reshape(1, -1),
        )
        self.images += 1

    def compute(self) -> dict[str, Any]:
        """``main`` (mIoU), ``metric``, ``classes`` (IoU or None by name), ``pixel_accuracy``, ``counted`` (classes
        in the mean), ``images`` and ``confusion`` (rows: truth, columns: decision, in pixels; a column more than
        classes holds decisions for classes that the truths lack).

        Raises:
            DataError: when no labelled pixel was counted.
        """
        count = len(self.labels.classes)
        confusion = self.matrix.confmat.double().cpu()[:count]
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
        return {
            "main": sum(present) / len(present),
            "metric": "mIoU",
            "classes": iou,
            "pixel_accuracy": 100 * float(hits.sum() / total),
            "counted": len(present),
            "images": self.images,
            "confusion": confusion.long().tolist(),
        }

    def alone(self, decision: Any, truth: Any) -> float | None:
        """mIoU of one image, None when all of it is ignored."""
        if (np.asarray(truth) == self.labels.ignore).all():
            return None
        one = ConfusionScore(self.labels, decides=self._decides)
        one.update(decision, truth)
        main: float = one.compute()["main"]
        return main

    def paint(
        self, decision: Any, truth: Any, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Masks are pictures already; decisions for classes that the truths lack are left blank."""
        blank = np.append(np.arange(len(self.labels.classes)), self.labels.ignore)
        return blank[self._ids[np.asarray(decision)]].astype(np.uint8), truth


def _refuse_unknown(mine: LabelSpace, theirs: LabelSpace) -> None:
    """Refuse truths of classes that a model does not know."""
    known, given = mine.classes, theirs.classes
    if unknown := [name for name in given if name not in known]:
        unused = [name for name in known if name not in given]
        also = f"; only the model has {', '.join(unused)}" if unused else ""
        raise UsageError(
            f"the model and the labels name different classes: only the labels have {', '.join(unknown)}{also}",
            fix="give labels of classes that the model knows; masks that number otherwise can be mapped",
        )


def check_ids(mask: np.ndarray, labels: LabelSpace, *, where: object) -> None:
    """Refuse a mask that holds an id which is neither a class nor ``labels.ignore``.

    Raises:
        DataError: naming the ids, how many pixels have them, and what to do.
    """
    counts = np.bincount(mask.reshape(-1).astype(np.int64), minlength=256)
    strange = [i for i in np.flatnonzero(counts).tolist() if i >= len(labels.classes) and i != labels.ignore]
    if strange:
        raise DataError(
            f"label ids {strange} ({int(counts[strange].sum())} pixels) are no classes: "
            f"expected 0 to {len(labels.classes) - 1}, or {labels.ignore} for ignore",
            where=where,
            fix="map the ids to the label space, or list every class",
        )
