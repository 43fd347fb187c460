"""Object detection: boxes with a class and a score."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tadp_da.errors import DataError, UsageError
from tadp_da.storage.files import write_json
from tadp_da.tasks import Area, SharedClasses, Size, View, tasks
from tadp_da.tasks.labels.boxes import BoxLabel, check_detections
from tadp_da.tasks.labels.classes import shared_classes
from tadp_da.tasks.metrics.average_precision import AveragePrecision
from tadp_da.types import Boxes, Detections, LabelSpace
from tadp_da.visualize import colours

SHOWN = 0.5
"""Least score of a detection that is drawn."""


class Detection:
    """Labels are :class:`~tadp_da.types.Boxes`, predictions :class:`~tadp_da.types.Detections`.

    A head of this task has the attributes ``nms``, the overlap above which of two boxes of one class from different
    views only the better is kept, and ``most``, the number of detections that it keeps of an image.
    """

    suffix, files, pipeline_tag = ".json", "objects", "object-detection"
    exports: tuple[str, ...] = ()

    def label(self, raw: Boxes, size: Size, labels: LabelSpace, *, where: object) -> BoxLabel:
        """Boxes on the image."""
        return BoxLabel.checked(raw, size, labels, where)

    def outputs(self, head: Any, raw: Any) -> list[Detections]:
        """Detections in each view, in pixels of the view."""
        found: list[Detections] = head.predict(raw)
        return found

    def merge(
        self, head: Any, outputs: Sequence[Detections], views: Sequence[View], size: Size
    ) -> Detections:
        """Detections of all views in pixels of the image; of boxes of one class that overlap, the best."""
        from torchvision.ops import batched_nms, clip_boxes_to_image

        moved = []
        for found, view in zip(outputs, views, strict=True):
            boxes, (height, width) = torch.from_numpy(found.xyxy), view.shape
            boxes = boxes + boxes.new_tensor([view.columns.start, view.rows.start] * 2)
            if view.mirrored:
                left, top, right, bottom = boxes.unbind(dim=1)
                boxes = torch.stack([width - right, top, width - left, bottom], dim=1)
            moved.append(boxes * boxes.new_tensor([size[1] / width, size[0] / height] * 2))
        boxes = torch.cat(moved)
        labels = torch.from_numpy(np.concatenate([found.labels for found in outputs]))
        scores = torch.from_numpy(np.concatenate([found.scores for found in outputs]))
        if len(views) > 1:
            kept = batched_nms(boxes, scores, labels, head.nms)[: head.most]
            boxes, labels, scores = boxes[kept], labels[kept], scores[kept]
        return Detections.sorted(clip_boxes_to_image(boxes, size), labels, scores)

    def metric(self, labels: LabelSpace, predicted: LabelSpace) -> AveragePrecision:
        """Average precision."""
        return AveragePrecision(labels, predicted)

    def shared(self, labels: LabelSpace, known: LabelSpace) -> SharedClasses:
        """Boxes of classes that the model does not know are left out."""
        return shared_classes(labels, known, _renumbered)

    def inside(self, label: Boxes, area: Area, labels: LabelSpace) -> Boxes:
        """Refused: an object may reach out of the area."""
        raise UsageError("boxes are scored on whole images", where="evaluate.crop", fix="omit evaluate.crop")

    def render(
        self, image: Image.Image, value: Boxes | Detections, labels: LabelSpace, opacity: float = 0.6
    ) -> Image.Image:
        """Outlines of the boxes, of detections those that score at least 0.5, the best on top."""
        shown, palette = _shown(value), colours(labels)
        image = image.convert("RGB")
        drawn = image.copy()
        pen, thick = ImageDraw.Draw(drawn), max(1, round(min(image.size) / 200))
        boxes, ids = value.xyxy[shown][::-1].tolist(), value.labels[shown][::-1].tolist()
        for (left, top, right, bottom), label in zip(boxes, ids, strict=True):
            x1, y1 = round(left), round(top)
            corners = (x1, y1, max(x1, round(right) - 1), max(y1, round(bottom) - 1))
            pen.rectangle(corners, outline=palette[label], width=thick)
        return Image.blend(image, drawn, opacity)

    def present(self, value: Boxes | Detections, labels: LabelSpace) -> tuple[str, ...]:
        """Classes of the boxes that are drawn."""
        ids = set(value.labels[_shown(value)].tolist())
        return tuple(name for i, name in enumerate(labels.classes) if i in ids)

    def write(self, prediction: Detections, path: Path, labels: LabelSpace) -> None:
        """A JSON list of ``{"class", "score", "xyxy"}``, best first."""
        rows = zip(
            prediction.labels.tolist(), prediction.scores.tolist(), prediction.xyxy.tolist(), strict=True
        )
        write_json(
            path,
            [{"class": labels.classes[label], "score": score, "xyxy": box} for label, score, box in rows],
        )

    def read(self, path: Path, labels: LabelSpace) -> Detections:
        """The same detections."""
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            found = Detections(
                np.array([row["xyxy"] for row in rows], np.float32).reshape(-1, 4),
                np.array([labels.classes.index(row["class"]) for row in rows], np.int64),
                np.array([row["score"] for row in rows], np.float32),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"not a file of detections: {error!r}", where=path, fix="predict the image again"
            ) from None
        check_detections(found, len(labels.classes), where=path)
        return found


def _renumbered(label: Boxes, table: NDArray[np.int64], shared: Mapping[int, int]) -> Boxes:
    kept = np.isin(label.labels, list(shared))
    return Boxes(label.xyxy[kept], table[label.labels[kept]], label.difficult[kept])


def _shown(value: Boxes | Detections) -> NDArray[np.bool_]:
    return value.scores >= SHOWN if isinstance(value, Detections) else np.ones(len(value), bool)


tasks.add("detection")(Detection())
