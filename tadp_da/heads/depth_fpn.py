"""Depth from a feature pyramid: the head of segmentation with metres instead of classes."""

from __future__ import annotations

from torch import Tensor

from tadp_da.heads import heads
from tadp_da.heads.dense.fpn import FPN, FPNSettings
from tadp_da.heads.dense.metres import MetricDepth
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace


@heads.add("depth-fpn")
class DepthFPN(MetricDepth, FPN):
    """Metres ``(b, 1, h, w)`` of every pixel from a pyramid of any depth and size.

    Args:
        spec: what the backbone gives.
        labels: of depth, with a range.
        settings: the defaults when None.

    Raises:
        UsageError: when the label space is not of depth, or states no range.
    """

    def __init__(self, spec: FeatureSpec, labels: LabelSpace, settings: FPNSettings | None = None) -> None:
        super().__init__(spec, 1, settings)
        self.accept(labels)

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> Tensor:
        """Metres ``(b, 1, h, w)`` for images of ``size`` = (h, w) pixels."""
        return self.metres(super().forward(pyramid, size))
