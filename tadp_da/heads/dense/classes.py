"""What heads of segmentation share: loss and prediction of logits."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tadp_da.errors import UsageError
from tadp_da.types import LabelSpace


class PixelClasses:
    """Raw outputs are logits ``(b, k, h, w)``."""

    task = "segmentation"

    def accept(self, labels: LabelSpace) -> None:
        """Keep the label space.

        Raises:
            UsageError: when it is not for segmentation or cannot be held by ``uint8``.
        """
        if (
            labels.task != self.task
            or not 2 <= len(labels.classes) <= 255
            or labels.ignore < len(labels.classes)
        ):
            name = type(self).__name__
            raise UsageError(
                f"{name} cannot read {labels.task} labels of {len(labels.classes)} classes "
                f"with ignore id {labels.ignore}",
                fix="give segmentation labels with 2 to 255 classes and an ignore id above them",
            )
        self.labels = labels

    def loss(self, raw: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits ``(b, k, h, w)`` against ids ``(b, h, w)`` over the labelled pixels; zero
        when there is none."""
        total = F.cross_entropy(raw.float(), targets, ignore_index=self.labels.ignore, reduction="sum")
        return total / (targets != self.labels.ignore).sum().clamp(min=1)

    def predict(self, raw: Tensor) -> list[np.ndarray]:
        """The likeliest class of every pixel: one ``uint8 (h, w)`` array per image."""
        return list(raw.argmax(dim=1).to(torch.uint8).cpu().numpy())
