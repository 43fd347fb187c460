"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from tadp_da.images import opened
from tadp_da.tasks import Area, SharedClasses, Size, View, tasks
from tadp_da.tasks.labels.classes import shared_classes
from tadp_da.tasks.labels.maps import keep_inside, merged
from tadp_da.tasks.labels.masks import MaskLabel
from tadp_da.tasks.metrics.confusion import MeanIoU
from tadp_da.types import LabelSpace
from tadp_da.visualize import overlay, save_mask


class Segmentation:
    """Labels and predictions are class ids ``uint8 (h, w)``; raw outputs are logits ``(b, k, h, w)``."""

    suffix, files, pipeline_tag = ".png", "masks", "image-segmentation"
    exports: tuple[str, ...] = ()

    def label(self, raw: Any, size: Size, labels: LabelSpace, *, where: object) -> MaskLabel:
        """A mask of the image's own size."""
        return MaskLabel.checked(raw, size, labels, where)

    def outputs(self, head: Any, raw: Tensor) -> list[Tensor]:
        """Logits ``(k, h, w)`` of each view."""
        return list(raw.float())

    def merge(
        self, head: Any, outputs: Sequence[Tensor], views: Sequence[View], size: Size
    ) -> NDArray[np.uint8]:
        """``uint8 (h, w)`` of ``size``. Logits are averaged over windows, then over the image and its mirror image, are
        scaled bilinearly and averaged over scales before the likeliest class is taken."""
        prediction: NDArray[np.uint8] = head.predict(merged(outputs, views, size)[None])[0]
        return prediction

    def metric(self, labels: LabelSpace, predicted: LabelSpace) -> MeanIoU:
        """Mean intersection over union."""
        return MeanIoU(labels, predicted)

    def shared(self, labels: LabelSpace, known: LabelSpace) -> SharedClasses:
        """Pixels of classes that the model does not know are ignored."""
        return shared_classes(labels, known, lambda mask, table, _: table[mask].astype(np.uint8))

    def inside(self, label: NDArray[np.uint8], area: Area, labels: LabelSpace) -> NDArray[np.uint8]:
        """Pixels outside are ignored."""
        return keep_inside(label, area, labels.ignore)

    def render(
        self, image: Image, value: NDArray[np.uint8], labels: LabelSpace, opacity: float = 0.6
    ) -> Image:
        """The colour of each class laid over the image; ignored pixels show the image."""
        return overlay(image, value, labels, opacity)

    def present(self, value: NDArray[np.uint8], labels: LabelSpace) -> tuple[str, ...]:
        """Classes of at least one pixel."""
        ids = set(np.unique(value).tolist())
        return tuple(name for i, name in enumerate(labels.classes) if i in ids)

    def write(self, prediction: NDArray[np.uint8], path: Path, labels: LabelSpace) -> None:
        """A PNG of class ids with a palette: viewers show colours, readers of masks get the ids."""
        save_mask(prediction, labels, path)

    def read(self, path: Path, labels: LabelSpace) -> NDArray[np.uint8]:
        """The class ids."""
        with opened(path, "a prediction") as image:
            return np.array(image)


tasks.add("segmentation")(Segmentation())
