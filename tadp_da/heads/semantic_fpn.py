"""Semantic segmentation from a feature pyramid: FPN neck and the semantic branch of Panoptic FPN
(Kirillov et al., CVPR 2019).

The paper reads its features with mmsegmentation's Semantic FPN (TADP, appendix). Ours normalizes by groups
instead of by batch, so that one image per step is enough.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SemanticFPNSettings:
    """Settings of :class:`SemanticFPN`.

    Attributes:
        use_attention: read the cross-attention maps behind the features (TADP, section 3.1).
        width: channels of the neck and of the branch, a multiple of 8.
        dropout: share of channels dropped before the classifier, during training.
    """

    use_attention: bool = True
    width: Annotated[int, Field(ge=8, le=2048, multiple_of=8)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


@heads.add("semantic-fpn")
class SemanticFPN(nn.Module):
    """Logits of every pixel from a pyramid of any depth and size.

    Args:
        spec: what the backbone gives; channel widths come from here and from nowhere else.
        labels: a segmentation label space.
        settings: the defaults when None.

    Raises:
        UsageError: when the label space is not for segmentation or cannot be held by ``uint8``.
    """

    Settings = SemanticFPNSettings
    task = "segmentation"

    def __init__(
        self, spec: FeatureSpec, labels: LabelSpace, settings: SemanticFPNSettings | None = None
    ) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
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
        self.labels, self.settings = labels, settings or SemanticFPNSettings()
        self.use_attention, width = self.settings.use_attention, self.settings.width
        self.strides = tuple(sorted(spec.channels))
        widths = spec.widths(use_attention=self.use_attention)
        self.neck = FeaturePyramidNetwork([widths[s] for s in self.strides], width)
        factors = [coarse // fine for fine, coarse in itertools.pairwise(self.strides)]
        self.ascents = nn.ModuleList(_Ascent(width, factors[:level]) for level in range(len(self.strides)))
        self.dropout = nn.Dropout2d(self.settings.dropout)
        self.classify = nn.Conv2d(width, len(labels.classes), kernel_size=1)

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> Tensor:
        """Logits ``(b, k, h, w)`` for images of ``size`` = (h, w) pixels."""
        levels = pyramid.levels() if self.use_attention else pyramid.features
        neck = list(self.neck(OrderedDict((str(s), levels[s]) for s in self.strides)).values())
        sizes = [(x.shape[-2], x.shape[-1]) for x in neck]
        total = torch.stack([ascent(x, sizes) for ascent, x in zip(self.ascents, neck, strict=True)]).sum(0)
        return _enlarge(self.classify(self.dropout(total)), self.strides[0], size)

    def loss(self, raw: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits ``(b, k, h, w)`` against ids ``(b, h, w)`` over the labelled pixels; zero
        when there is none."""
        total = F.cross_entropy(raw.float(), targets, ignore_index=self.labels.ignore, reduction="sum")
        return total / (targets != self.labels.ignore).sum().clamp(min=1)

    def predict(self, raw: Tensor) -> list[np.ndarray]:
        """The likeliest class of every pixel: one ``uint8 (h, w)`` array per image."""
        return list(raw.argmax(dim=1).to(torch.uint8).cpu().numpy())


class _Ascent(nn.Module):
    """Brings one level to the finest resolution: convolve, normalize, enlarge, once per level in between.

    Args:
        width: channels in and out.
        factors: by how much each level is finer than the next, finest first; none for the finest level itself,
            which is convolved once.
    """

    def __init__(self, width: int, factors: list[int]) -> None:
        super().__init__()
        self.factors = factors
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
                # Four channels or more in a group: a small image may leave them a single cell to be normalized over.
                nn.GroupNorm(math.gcd(32, width // 4), width),
                nn.ReLU(inplace=True),
            )
            for _ in range(max(1, len(factors)))
        )

    def forward(self, x: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        for left, stage in zip(range(len(self.stages) - 1, -1, -1), self.stages, strict=True):
            x = stage(x)
            if self.factors:
                x = _enlarge(x, self.factors[left], sizes[left])
        return x


def _enlarge(x: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """Bilinear by a whole factor, then cut to ``size``.

    Off the grid the last cell covers pixels beyond the border; stretching to ``size`` instead would shift the image.
    """
    height, width = x.shape[-2] * factor, x.shape[-1] * factor
    x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    return x[..., : size[0], : size[1]]
