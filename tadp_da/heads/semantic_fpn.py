"""Semantic segmentation from a feature pyramid: FPN neck and the semantic branch of Panoptic FPN
(Kirillov et al., CVPR 2019), see :mod:`tadp_da.heads.dense.fpn`.
"""

from __future__ import annotations

from tadp_da.heads import heads
from tadp_da.heads.dense.classes import PixelClasses
from tadp_da.heads.dense.fpn import FPN, FPNSettings
from tadp_da.types import FeatureSpec, LabelSpace


@heads.add("semantic-fpn")
class SemanticFPN(PixelClasses, FPN):
    """Logits ``(b, k, h, w)`` of every pixel from a pyramid of any depth and size.

    Args:
        spec: what the backbone gives; channel widths come from here and from nowhere else.
        labels: a segmentation label space.
        settings: the defaults when None.

    Raises:
        UsageError: when the label space is not for segmentation or cannot be held by ``uint8``.
    """

    def __init__(self, spec: FeatureSpec, labels: LabelSpace, settings: FPNSettings | None = None) -> None:
        super().__init__(spec, len(labels.classes), settings)
        self.accept(labels)
