"""Lite R-ASPP, the segmentation head of MobileNetV3 (Howard et al., ICCV 2019, section 6.4)."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from tadp_da.heads import heads
from tadp_da.heads.dense.classes import PixelClasses
from tadp_da.heads.dense.fpn import enlarge
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LRASPPSettings:
    """Settings of :class:`LRASPP`.

    Attributes:
        use_attention: read the cross-attention maps behind the features, where there are any.
        width: channels of the coarse branch, a multiple of 8.
    """

    use_attention: bool = False
    width: Annotated[int, Field(ge=8, le=2048, multiple_of=8)] = 128


@heads.add("lraspp")
class LRASPP(PixelClasses, nn.Module):
    """Logits ``(b, k, h, w)`` from the two coarsest levels: the coarsest is convolved and weighted by its mean over the
    image, enlarged to the other, and both are classified and added.

    torchvision normalizes the coarse branch by batch; this one by groups, so that one image per step is enough.

    Args:
        spec: what the backbone gives.
        labels: a segmentation label space.
        settings: the defaults when None.

    Raises:
        UsageError: when the label space is not for segmentation or cannot be held by ``uint8``.
    """

    Settings = LRASPPSettings

    def __init__(self, spec: FeatureSpec, labels: LabelSpace, settings: LRASPPSettings | None = None) -> None:
        super().__init__()
        self.accept(labels)
        self.settings = made = settings or LRASPPSettings()
        self.use_attention = made.use_attention
        self.strides = tuple(sorted(spec.channels))[-2:]
        widths = spec.widths(use_attention=self.use_attention)
        low, high = (widths[s] for s in (self.strides[0], self.strides[-1]))
        self.convolve = nn.Sequential(
            nn.Conv2d(high, made.width, 1, bias=False),
            nn.GroupNorm(math.gcd(32, made.width // 4), made.width),
            nn.ReLU(),
        )
        self.weigh = nn.Sequential(nn.Conv2d(high, made.width, 1, bias=False), nn.Sigmoid())
        self.classify_low = nn.Conv2d(low, len(labels.classes), 1)
        self.classify_high = nn.Conv2d(made.width, len(labels.classes), 1)

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> Tensor:
        """Logits ``(b, k, h, w)`` for images of ``size`` = (h, w) pixels."""
        levels = pyramid.levels() if self.use_attention else pyramid.features
        low, high = levels[self.strides[0]], levels[self.strides[-1]]
        x = self.convolve(high) * self.weigh(high.mean((-2, -1), keepdim=True))
        x = enlarge(x, self.strides[-1] // self.strides[0], (low.shape[-2], low.shape[-1]))
        return enlarge(self.classify_low(low) + self.classify_high(x), self.strides[0], size)
