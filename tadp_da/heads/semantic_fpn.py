"""Semantic segmentation from a feature pyramid: FPN neck and the semantic branch of Panoptic FPN
(Kirillov et al., CVPR 2019), see :mod:`tadp_da.heads.dense.fpn`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.heads.dense.fpn import FPN, FPNSettings
from tadp_da.types import FeatureSpec, LabelSpace


@heads.add("semantic-fpn")
class SemanticFPN(FPN):
    """Logits ``(b, k, h, w)`` of every pixel from a pyramid of any depth and size.

    Args:
        spec: what the backbone gives; channel widths come from here and from nowhere else.
        labels: a segmentation label space.
        settings: the defaults when None.

    Raises:
        UsageError: when the label space is not for segmentation or cannot be held by ``uint8``.
    """

    task = "segmentation"

    def __init__(self, spec: FeatureSpec, labels: LabelSpace, settings: FPNSettings | None = None) -> None:
        if (
            labels.task != self.task
            or not 2 <= len(labels.classes) <= 255
            or labels.ignore < len(labels.classes)
        ):
            raise UsageError(
                f"semantic-fpn cannot read {labels.task} labels of {len(labels.classes)} classes "
                f"with ignore id {labels.ignore}",
                fix="give segmentation labels with 2 to 255 classes and an ignore id above them",
            )
        super().__init__(spec, len(labels.classes), settings)
        self.labels = labels

    def loss(self, raw: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits ``(b, k, h, w)`` against ids ``(b, h, w)`` over the labelled pixels; zero
        when there is none."""
        total = F.cross_entropy(raw.float(), targets, ignore_index=self.labels.ignore, reduction="sum")
        return total / (targets != self.labels.ignore).sum().clamp(min=1)

    def predict(self, raw: Tensor) -> list[np.ndarray]:
        """The likeliest class of every pixel: one ``uint8 (h, w)`` array per image."""
        return list(raw.argmax(dim=1).to(torch.uint8).cpu().numpy())
