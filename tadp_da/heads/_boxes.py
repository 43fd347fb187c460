"""Boxes that move with their image, and how a detector's finds on windows and mirrors become those of one image. A
helper, not a plug-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tadp_da.errors import DataError
from tadp_da.images import geometry
from tadp_da.inference import InferenceSettings
from tadp_da.types import Boxes, Detections, LabelSpace

if TYPE_CHECKING:
    from torchvision import tv_tensors

SMALLEST = 1.0
"""Pixels of the shorter side below which a box at its working size teaches nothing."""


@dataclass(frozen=True, eq=False)
class BoxAnnotation:
    """Labelled boxes that move with their image.

    Attributes:
        boxes: ``float32 (n, 4)``, half-open, with the size of the image that they lie on.
        labels: class ids ``int64 (n,)``.
        visible: share of a box that a crop must keep; with less the box is dropped.
    """

    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    visible: float = 0.25

    @classmethod
    def checked(
        cls,
        target: Boxes,
        size: tuple[int, int],
        labels: LabelSpace,
        where: object,
        *,
        difficult: bool = False,
        visible: float = 0.25,
    ) -> BoxAnnotation:
        """Boxes for an image of ``size`` (h, w).

        Args:
            target: the label.
            size: of the image.
            labels: its classes.
            where: for messages.
            difficult: keep difficult objects instead of dropping them.
            visible: share of a box that a crop must keep.

        Raises:
            DataError: when a box is empty or not on the image, or an id is no class.
        """
        from torchvision import tv_tensors

        check_boxes(target, labels, where=where, size=size)
        chosen = np.ones(len(target), bool) if difficult else ~target.difficult
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(target.xyxy[chosen].astype(np.float32)).reshape(-1, 4),
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=size,
        )
        clipped = geometry().clamp_bounding_boxes(boxes)
        return cls(clipped, torch.from_numpy(target.labels[chosen].astype(np.int64)), visible)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        height, width = self.boxes.canvas_size
        return int(height), int(width)

    @property
    def nbytes(self) -> int:
        """Memory of boxes and labels."""
        return int(self.boxes.nbytes + self.labels.nbytes)

    @property
    def blank(self) -> bool:
        """Never: an image without objects teaches what no object looks like."""
        return False

    def resize(self, size: tuple[int, int]) -> BoxAnnotation:
        """Scaled with the image, each side by its own factor."""
        return BoxAnnotation(geometry().resize(self.boxes, list(size)), self.labels, self.visible)

    def crop(self, top: int, left: int, size: tuple[int, int]) -> BoxAnnotation:
        """Cut off at the border; boxes that lose too much are dropped."""
        from torchvision import tv_tensors
        from torchvision.ops import box_area

        cut = geometry().crop(self.boxes, top, left, *size)
        kept = box_area(_plain(cut)) >= self.visible * box_area(_plain(self.boxes)).clamp(min=1e-6)
        return BoxAnnotation(tv_tensors.wrap(_plain(cut)[kept], like=cut), self.labels[kept], self.visible)

    def pad(self, size: tuple[int, int]) -> BoxAnnotation:
        """The image grows to the right and below: boxes stay."""
        missing = [0, 0, size[1] - self.size[1], size[0] - self.size[0]]
        return BoxAnnotation(geometry().pad(self.boxes, missing), self.labels, self.visible)

    def flip(self) -> BoxAnnotation:
        """Left becomes right."""
        return BoxAnnotation(geometry().horizontal_flip(self.boxes), self.labels, self.visible)

    def dominance(self) -> float:
        """Boxes have no shares."""
        return 0.0

    def tensors(self) -> dict[str, Tensor]:
        """``boxes (n, 4)`` and ``labels (n,)`` of what is at least a pixel wide and high."""
        boxes = _plain(self.boxes)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST).all(dim=1)
        return {"boxes": boxes[large], "labels": self.labels[large]}


def check_boxes(
    target: Any, labels: LabelSpace, *, where: object, size: tuple[int, int] | None = None
) -> None:
    """Refuse what is no label of boxes: empty or lying outside, or with an id that is no class.

    Raises:
        DataError: naming the first offender, and what to do.
    """
    if not isinstance(target, Boxes) or not (
        target.xyxy.shape == (len(target), 4) and target.difficult.shape == target.labels.shape
    ):
        raise DataError(
            "a label holds no boxes", where=where, fix="choose a domain with boxes, or another head"
        )
    left, top, right, bottom = target.xyxy.T
    right_end, bottom_end = (np.inf, np.inf) if size is None else (size[1], size[0])
    sound = np.isfinite(target.xyxy).all(axis=1) & (right > left) & (bottom > top)
    sound &= (left < right_end) & (top < bottom_end) & (right > 0) & (bottom > 0)
    if not sound.all():
        raise DataError(
            f"box {target.xyxy[~sound][0].tolist()} (left, top, right, bottom) is empty or not on the image",
            where=where,
            fix="drop such boxes from the labels",
        )
    known = (target.labels >= 0) & (target.labels < len(labels.classes))
    if not known.all():
        raise DataError(
            f"class id {int(target.labels[~known][0])} is no class: expected 0 to {len(labels.classes) - 1}",
            where=where,
            fix="map the ids to the label space, or list every class",
        )


class Found(NamedTuple):
    """Detections of one image as tensors: ``boxes (n, 4)``, ``labels (n,)``, ``scores (n,)``."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def arrays(self) -> Detections:
        """As arrays, best first; equal scores keep their order."""
        order = self.scores.argsort(descending=True, stable=True)
        boxes, labels, scores = (x[order].detach().cpu().numpy() for x in self)
        return Detections(boxes.astype(np.float32), labels.astype(np.int64), scores.astype(np.float32))


def see(
    detect: Callable[[Tensor], Found],
    pixels: Tensor,
    viewing: InferenceSettings,
    size: tuple[int, int],
    *,
    nms: float,
    most: int,
) -> Found:
    """Detections of one image at its own resolution.

    What windows and mirror find is put together, and overlapping boxes of one class are reduced to the best.

    Args:
        detect: finds on pixels ``(1, 3, h, w)``.
        pixels: the image at its working size.
        viewing: windows and mirror.
        size: height and width of the image itself.
        nms: overlap above which two boxes of one class from different views are one.
        most: detections to keep.
    """
    from torchvision.ops import batched_nms, clip_boxes_to_image

    height, width = pixels.shape[-2:]
    views = []
    for mirrored in (False, True) if viewing.flip else (False,):
        image = pixels.flip(-1) if mirrored else pixels
        for rows, columns in viewing.boxes(height, width):
            found = detect(image[..., rows, columns])
            boxes = found.boxes + found.boxes.new_tensor([columns.start, rows.start] * 2)
            if mirrored:
                left, top, right, bottom = boxes.unbind(dim=1)
                boxes = torch.stack([width - right, top, width - left, bottom], dim=1)
            views.append(found._replace(boxes=boxes))
    boxes, labels, scores = (torch.cat(parts) for parts in zip(*views, strict=True))
    if len(views) > 1:
        kept = batched_nms(boxes, scores, labels, nms)[:most]
        boxes, labels, scores = boxes[kept], labels[kept], scores[kept]
    scale = boxes.new_tensor([size[1] / width, size[0] / height] * 2)
    return Found(clip_boxes_to_image(boxes * scale, size), labels, scores)


def _plain(boxes: Tensor) -> Tensor:
    return boxes.as_subclass(Tensor)
