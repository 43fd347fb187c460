"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from tadp_da.images import opened
from tadp_da.tasks import SharedClasses, Size, View, tasks
from tadp_da.tasks.labels.classes import shared_classes
from tadp_da.tasks.labels.masks import MaskLabel
from tadp_da.tasks.metrics.confusion import MeanIoU
from tadp_da.types import LabelSpace
from tadp_da.visualize import overlay, save_mask


class Segmentation:
    """Labels and predictions are class ids ``uint8 (h, w)``; raw outputs are logits ``(b, k, h, w)``."""

    suffix, files, pipeline_tag = ".png", "masks", "image-segmentation"

    def label(self, raw: Any, size: Size, labels: LabelSpace, *, where: object) -> MaskLabel:
        """A mask of the image's own size."""
        return MaskLabel.checked(raw, size, labels, where)

    def outputs(self, head: Any, raw: Tensor) -> list[Tensor]:
        """Logits ``(k, h, w)`` of each view."""
        return list(raw.float())

    def merge(
        self, head: Any, outputs: Sequence[Tensor], views: Sequence[View], shape: Size, size: Size
    ) -> NDArray[np.uint8]:
        """``uint8 (h, w)`` of ``size``. Logits are averaged over windows, then over the image and its mirror image, and
        enlarged bilinearly before the likeliest class is taken."""
        sides = []
        for mirrored in (False, True):
            those = [(x, view) for x, view in zip(outputs, views, strict=True) if view.mirrored is mirrored]
            if those:
                mean = _mean(those, shape)
                sides.append(mean.flip(-1) if mirrored else mean)
        logits = sides[0] if len(sides) == 1 else (sides[0] + sides[1]) / 2
        if shape != size:
            logits = F.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0]
        prediction: NDArray[np.uint8] = head.predict(logits[None])[0]
        return prediction

    def metric(self, labels: LabelSpace, predicted: LabelSpace) -> MeanIoU:
        """Mean intersection over union."""
        return MeanIoU(labels, predicted)

    def shared(self, labels: LabelSpace, known: LabelSpace) -> SharedClasses:
        """Pixels of classes that the model does not know are ignored."""
        return shared_classes(labels, known, lambda mask, table, _: table[mask].astype(np.uint8))

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


def _mean(views: Sequence[tuple[Tensor, View]], shape: Size) -> Tensor:
    """Mean logits ``(k, h, w)`` of windows that cover an image of ``shape``."""
    first = views[0][0]
    if len(views) == 1:
        return first
    total, covered = first.new_zeros(len(first), *shape), first.new_zeros(shape)
    for logits, view in views:
        total[..., view.rows, view.columns] += logits
        covered[view.rows, view.columns] += 1
    return total / covered


tasks.add("segmentation")(Segmentation())
