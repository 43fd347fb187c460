"""FPN neck and the semantic branch of Panoptic FPN (Kirillov et al., CVPR 2019): numbers for every pixel.

The paper reads its features with mmsegmentation's Semantic FPN (TADP, appendix). Ours normalizes by groups
instead of by batch, so that one image per step is enough.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from tadp_da.types import FeaturePyramid, FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FPNSettings:
    """Settings of :class:`FPN`.

    Attributes:
        use_attention: read the cross-attention maps behind the features (TADP, section 3.1).
        width: channels of the neck and of the branch, a multiple of 8.
        dropout: share of channels dropped before the last layer, during training.
    """

    use_attention: bool = True
    width: Annotated[int, Field(ge=8, le=2048, multiple_of=8)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class FPN(nn.Module):
    """Numbers ``(b, outputs, h, w)`` from a pyramid of any depth and size.

    Args:
        spec: what the backbone gives; channel widths come from here and from nowhere else.
        outputs: numbers per pixel.
        settings: the defaults when None.
    """

    Settings = FPNSettings

    def __init__(self, spec: FeatureSpec, outputs: int, settings: FPNSettings | None) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.settings = settings or FPNSettings()
        self.use_attention, width = self.settings.use_attention, self.settings.width
        self.strides = tuple(sorted(spec.channels))
        widths = spec.widths(use_attention=self.use_attention)
        self.neck = FeaturePyramidNetwork([widths[s] for s in self.strides], width)
        factors = [coarse // fine for fine, coarse in itertools.pairwise(self.strides)]
        self.ascents = nn.ModuleList(_Ascent(width, factors[:level]) for level in range(len(self.strides)))
        self.dropout = nn.Dropout2d(self.settings.dropout)
        self.classify = nn.Conv2d(width, outputs, kernel_size=1)

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> Tensor:
        """Numbers ``(b, outputs, h, w)`` for images of ``size`` = (h, w) pixels."""
        levels = pyramid.levels() if self.use_attention else pyramid.features
        neck = list(self.neck(OrderedDict((str(s), levels[s]) for s in self.strides)).values())
        sizes = [(x.shape[-2], x.shape[-1]) for x in neck]
        total = torch.stack([ascent(x, sizes) for ascent, x in zip(self.ascents, neck, strict=True)]).sum(0)
        return enlarge(self.classify(self.dropout(total)), self.strides[0], size)


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
                x = enlarge(x, self.factors[left], sizes[left])
        return x


def enlarge(x: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """Bilinear by a whole factor, then cut to ``size``.

    Off the grid the last cell covers pixels beyond the border; stretching to ``size`` instead would shift the image.
    """
    height, width = x.shape[-2] * factor, x.shape[-1] * factor
    x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    return x[..., : size[0], : size[1]]
