"""The depth decoder of the paper's code (TADP, section 4; VPD, Zhao et al., 2023), without its attention maps."""

from __future__ import annotations

import itertools
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from tadp_da.errors import UsageError
from tadp_da.heads import heads
from tadp_da.heads.dense.metres import MetricDepth
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DepthDecoderSettings:
    """Settings of :class:`DepthDecoder`.

    Attributes:
        use_attention: read the cross-attention maps behind the features; the paper's depth model does not.
        width: channels of the last layers; the joined features have eight times as many. A multiple of 8.
        filters: channels of the transposed convolutions, a multiple of 8.
    """

    use_attention: bool = False
    width: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = 192
    filters: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = 32


@heads.add("depth-decoder")
class DepthDecoder(MetricDepth, nn.Module):
    """Metres ``(b, 1, h, w)`` of every pixel from a pyramid of strides that double.

    The authors' code normalizes the last layers by batch; ours by groups, so that one image per step is enough, and
    nothing but parameters is to be kept, averaged and shared between processes.

    All levels are joined at the stride of the coarsest but one: finer ones by convolutions of stride 2, the coarsest
    by repeating its cells. Three transposed convolutions and bilinear steps enlarge the joined features.

    Args:
        spec: what the backbone gives.
        labels: of depth, with a range.
        settings: the defaults when None.

    Raises:
        UsageError: when the label space is not of depth or states no range, or strides do not double.
    """

    Settings = DepthDecoderSettings

    def __init__(
        self, spec: FeatureSpec, labels: LabelSpace, settings: DepthDecoderSettings | None = None
    ) -> None:
        super().__init__()
        self.accept(labels)
        self.settings = made = settings or DepthDecoderSettings()
        self.use_attention = made.use_attention
        self.strides = strides = tuple(sorted(spec.channels))
        if len(strides) < 2 or any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
            raise UsageError(
                f"depth-decoder needs two or more strides, each twice the one before; found {strides}",
                fix="choose a backbone with such levels, or the head depth-fpn",
            )
        widths = spec.widths(use_attention=self.use_attention)
        joint = strides[-2]
        self.descents = nn.ModuleDict(
            {str(s): _descent(widths[s], (joint // s).bit_length() - 1) for s in strides[:-2]}
        )
        width = 8 * made.width
        self.join = nn.Sequential(nn.Conv2d(sum(widths.values()), width, 1), _groups(width), nn.ReLU())
        doublings = joint.bit_length() - 1
        transposed = min(3, doublings)
        self.smooth = doublings - transposed
        ascents: list[nn.Module] = []
        for before in (width, *[made.filters] * 2)[:transposed]:
            ascents += [
                nn.ConvTranspose2d(before, made.filters, 2, stride=2, bias=False),
                _groups(made.filters),
                nn.ReLU(),
            ]
        last = made.filters if transposed else width
        ascents += [nn.Conv2d(last, made.width, 3, padding=1, bias=False), _groups(made.width), nn.ReLU()]
        self.ascent = nn.Sequential(*ascents)
        self.measure = nn.Sequential(
            nn.Conv2d(made.width, made.width, 3, padding=1), nn.ReLU(), nn.Conv2d(made.width, 1, 3, padding=1)
        )

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> Tensor:
        """Metres ``(b, 1, h, w)`` for images of ``size`` = (h, w) pixels."""
        levels = pyramid.levels() if self.use_attention else pyramid.features
        joint, coarsest = levels[self.strides[-2]], levels[self.strides[-1]]
        # cells beyond the border of the image, with which a backbone fills up its grid, are cut off
        cells = [-(-side // self.strides[-2]) for side in size]
        parts = [self.descents[str(s)](levels[s]) for s in self.strides[:-2]]
        parts += [joint, F.interpolate(coarsest, scale_factor=2.0)]
        x = self.join(torch.cat([part[..., : cells[0], : cells[1]] for part in parts], dim=1))
        x = self.ascent(x)
        for _ in range(self.smooth):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
        return self.metres(self.measure(x)[..., : size[0], : size[1]])


def _descent(width: int, halvings: int) -> nn.Sequential:
    """Convolutions of stride 2 with norm and activation between them."""
    layers: list[nn.Module] = []
    for i in range(halvings):
        layers += [_groups(width), nn.ReLU()] if i else []
        layers.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
    return nn.Sequential(*layers)


def _groups(width: int) -> nn.GroupNorm:
    """Sixteen groups, or as many as there are of four channels or more."""
    return nn.GroupNorm(max(n for n in range(1, 17) if width % n == 0 and (n == 1 or width // n >= 4)), width)
