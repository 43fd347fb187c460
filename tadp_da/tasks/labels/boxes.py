"""Boxes of objects that move with their image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tadp_da.errors import DataError
from tadp_da.images import geometry
from tadp_da.tasks.labels.label import Label, Size
from tadp_da.types import SMALLEST_BOX, Boxes, Detections, LabelSpace


@dataclass(frozen=True, eq=False, kw_only=True)
class BoxLabel(Label):
    """Labelled objects; ``value`` holds ``float32 (n, 4)`` half-open boxes.

    Attributes:
        ids: class ids ``int64 (n,)``.
        difficult: ``bool (n,)``, as in :class:`~tadp_da.types.Boxes`.
        visible: ``float32 (n,)``: share of the area of each object that crops have left.
    """

    ids: Tensor
    difficult: Tensor
    visible: Tensor

    @classmethod
    def checked(cls, target: Boxes, size: Size, labels: LabelSpace, where: object) -> BoxLabel:
        """Boxes for an image of ``size`` (h, w), cut off at its border.

        Raises:
            DataError: when a box is empty or not on the image, or an id is not a class.
        """
        from torchvision import tv_tensors

        check_boxes(target, labels, where=where, size=size)
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(target.xyxy.astype(np.float32)).reshape(-1, 4),
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=size,
        )
        return cls(
            geometry().clamp_bounding_boxes(boxes),
            ids=torch.from_numpy(target.labels.astype(np.int64)),
            difficult=torch.from_numpy(target.difficult.astype(bool)),
            visible=torch.ones(len(target)),
        )

    def _large(self) -> Tensor:
        boxes = self.value.as_subclass(Tensor)
        return ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_BOX).all(dim=1)

    @property
    def lost(self) -> int:
        """Number of boxes that :meth:`tensors` leaves out."""
        return int((~self._large()).sum())

    def crop(self, top: int, left: int, size: Size) -> BoxLabel:
        """Cut off at the border of the part."""
        from torchvision.ops import box_area

        cut = geometry().crop(self.value, top, left, *size)
        before, after = (box_area(x.as_subclass(Tensor)) for x in (self.value, cut))
        return self._moved(cut, visible=self.visible * after / before.clamp(min=1e-6))

    def doubted(self, output: Detections, confidence: float) -> Tensor:
        """The area of objects that are not found: no detection of their class that scores at least ``1 - confidence``
        overlaps them by half."""
        from torchvision.ops import box_iou

        boxes, fits = self.value.as_subclass(Tensor), torch.from_numpy(output.scores) >= 1 - confidence
        overlap = box_iou(boxes, torch.from_numpy(output.xyxy)[fits])
        same = self.ids[:, None] == torch.from_numpy(output.labels)[fits]
        area = torch.zeros(self.size, dtype=torch.bool)
        for left, top, right, bottom in boxes[~((overlap >= 0.5) & same).any(dim=1)].round().int().tolist():
            area[top:bottom, left:right] = True
        return area

    def tensors(self) -> dict[str, Tensor]:
        """``boxes (n, 4)``, ``labels (n,)``, ``difficult (n,)`` and ``visible (n,)`` of what is at least a pixel wide
        and high."""
        large = self._large()
        fields = {
            "boxes": self.value.as_subclass(Tensor),
            "labels": self.ids,
            "difficult": self.difficult,
            "visible": self.visible,
        }
        return {name: values[large] for name, values in fields.items()}


def check_boxes(target: Any, labels: LabelSpace, *, where: object, size: Size | None = None) -> None:
    """Refuse boxes that are empty or not on the image, and ids that are not classes.

    Raises:
        DataError: naming the first such box or id, and the fix.
    """
    if not isinstance(target, Boxes) or not (
        target.xyxy.shape == (len(target), 4) and target.difficult.shape == target.labels.shape
    ):
        raise DataError(
            "a label does not hold boxes", where=where, fix="choose a domain with boxes, or another head"
        )
    left, top, right, bottom = target.xyxy.T
    right_end, bottom_end = (np.inf, np.inf) if size is None else (size[1], size[0])
    valid = np.isfinite(target.xyxy).all(axis=1) & (right > left) & (bottom > top)
    valid &= (left < right_end) & (top < bottom_end) & (right > 0) & (bottom > 0)
    if not valid.all():
        raise DataError(
            f"box {target.xyxy[~valid][0].tolist()} (left, top, right, bottom) is empty or not on the image",
            where=where,
            fix="drop such boxes from the labels",
        )
    known = (target.labels >= 0) & (target.labels < len(labels.classes))
    if not known.all():
        raise DataError(
            f"class id {int(target.labels[~known][0])} is not a class: expected 0 to {len(labels.classes) - 1}",
            where=where,
            fix="map the ids to the label space, or list every class",
        )


def check_detections(found: Detections, classes: int, *, where: object) -> None:
    """Refuse detections whose boxes or scores are not finite, whose corners are swapped, or whose ids are not below
    ``classes``: one infinite box or score that is not a number changes an average precision.

    Raises:
        DataError: naming the first such detection, and the fix.
    """
    valid = np.isfinite(found.xyxy).all(axis=1) & np.isfinite(found.scores)
    valid &= (found.xyxy[:, 2:] >= found.xyxy[:, :2]).all(axis=1)
    valid &= (found.labels >= 0) & (found.labels < classes)
    if not valid.all():
        box, score, label = (x[~valid][0].tolist() for x in (found.xyxy, found.scores, found.labels))
        raise DataError(
            f"a detection has the box {box} (left, top, right, bottom), the score {score} and the class id {label}: "
            f"expected finite numbers, ordered corners and an id below {classes}",
            where=where,
            fix="predict the image again; a model that gives such numbers has diverged: train it with a lower learning "
            "rate",
        )
