"""Which classes does an image show? Labels come from masks, and change as an image is cropped."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from tadp_da.errors import DataError
from tadp_da.tasks import Area, Measure, SharedClasses, Size, View, tasks
from tadp_da.tasks.labels.classes import predicted_ids, shared_classes
from tadp_da.tasks.labels.maps import keep_inside
from tadp_da.tasks.labels.masks import MaskLabel
from tadp_da.types import LabelSpace


@dataclass(frozen=True, eq=False)
class PresenceLabel(MaskLabel):
    """A mask, of which only the classes that occur in it are learned."""

    classes: int = 0

    def tensors(self) -> Tensor:
        """``float32 (k,)``: 1 for a class that occurs."""
        ids = super().tensors()
        return torch.stack([(ids == k).any() for k in range(self.classes)]).float()


class Accuracy:
    """Share of the decisions "this class occurs" and "it does not" that are right, over all images and classes."""

    def __init__(self, labels: LabelSpace, predicted: LabelSpace) -> None:
        self.classes = labels.classes
        self.order = predicted_ids(labels, predicted, other=-1)
        self.right: list[np.ndarray] = []

    def update(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        self.right.append(self._right(prediction, truth))

    def _right(self, prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
        own = np.zeros(len(self.classes), bool)
        own[self.order[prediction & (self.order >= 0)]] = True
        return own == np.isin(np.arange(len(self.classes)), truth)

    def compute(self) -> Sequence[Measure]:
        if not self.right:
            raise DataError("there was no image to measure", fix="give a split that is not empty")
        by_class = 100 * np.mean(self.right, axis=0)
        per_class = dict(zip(self.classes, by_class.tolist(), strict=True))
        return [Measure(name="accuracy", value=float(by_class.mean()), per_class=per_class)]

    def per_image(self, prediction: np.ndarray, truth: np.ndarray) -> float:
        return float(100 * self._right(prediction, truth).mean())

    def details(self) -> Mapping[str, Any]:
        return {}

    def notes(self) -> Sequence[str]:
        return []


class Presence:
    """Predictions are ``bool (k,)``, labels masks ``uint8 (h, w)``, raw outputs logits ``(b, k)``."""

    suffix, files, exports, pipeline_tag = ".json", "classes", (), "image-classification"

    def label(self, raw: Any, size: Size, labels: LabelSpace, *, where: object) -> PresenceLabel:
        mask = MaskLabel.checked(raw, size, labels, where)
        return PresenceLabel(mask.value, mask.fill, len(labels.classes))

    def outputs(self, head: Any, raw: Tensor) -> list[Tensor]:
        return list(raw.float())

    def merge(self, head: Any, outputs: Sequence[Tensor], views: Sequence[View], size: Size) -> np.ndarray:
        """A class occurs in the image if it occurs in one of the views."""
        found: np.ndarray = head.predict(torch.stack(list(outputs)).amax(0)[None])[0]
        return found

    def metric(self, labels: LabelSpace, predicted: LabelSpace) -> Accuracy:
        return Accuracy(labels, predicted)

    def shared(self, labels: LabelSpace, known: LabelSpace) -> SharedClasses:
        return shared_classes(labels, known, lambda mask, table, _: table[mask])

    def inside(self, label: np.ndarray, area: Area, labels: LabelSpace) -> np.ndarray:
        return keep_inside(label, area, labels.ignore)

    def render(self, image: Image.Image, value: Any, labels: LabelSpace, opacity: float = 0.6) -> Image.Image:
        shown = image.convert("RGB")
        ImageDraw.Draw(shown).text((2, 2), ", ".join(self.present(value, labels)), fill="white")
        return shown

    def present(self, value: np.ndarray, labels: LabelSpace) -> tuple[str, ...]:
        occurs = value if value.dtype == bool else np.isin(np.arange(len(labels.classes)), value)
        return tuple(name for name, there in zip(labels.classes, occurs, strict=True) if there)

    def write(self, prediction: np.ndarray, path: Path, labels: LabelSpace) -> None:
        path.write_text(json.dumps(list(self.present(prediction, labels))), encoding="utf-8")

    def read(self, path: Path, labels: LabelSpace) -> np.ndarray:
        try:
            names = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"not a list of classes: {error}", where=path, fix="predict again") from error
        return np.array([name in names for name in labels.classes])


tasks.add("presence")(Presence())
