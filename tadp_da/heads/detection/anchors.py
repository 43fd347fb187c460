"""torchvision's anchors and pooling for levels whose strides are known.

torchvision guesses strides from sizes, which goes wrong off the grid, where the last cell covers pixels beyond the
border.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper


class StridedAnchors(AnchorGenerator):  # type: ignore[misc]  # torchvision is untyped
    """One anchor size per level, in several shapes, at every cell.

    Args:
        strides: pixels per cell, finest level first.
        scale: side of a square anchor in cells.
        ratios: height by width of the shapes; all have the area of the square.
    """

    def __init__(self, strides: Sequence[int], scale: float, ratios: Sequence[float]) -> None:
        super().__init__(tuple((scale * s,) for s in strides), (tuple(ratios),) * len(strides))
        self.strides = tuple(strides)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors ``(n, 4)`` of each image, levels behind one another."""
        device = feature_maps[0].device
        self.set_cell_anchors(torch.float32, device)
        strides = [[torch.tensor(s, device=device)] * 2 for s in self.strides]
        anchors = torch.cat(self.grid_anchors([list(x.shape[-2:]) for x in feature_maps], strides))
        return [anchors] * len(image_list.image_sizes)


def roi_align(strides: Sequence[int], size: int, samples: int, canonical: int) -> MultiScaleRoIAlign:
    """RoIAlign over levels named by their strides; as in torchvision, samples lie half a cell off.

    Args:
        strides: pixels per cell, each twice the one before.
        size: cells of the pooled square on a side.
        samples: samples per cell on a side.
        canonical: side of the region that is pooled from the level of stride 16 (Lin et al., 2017, equation 1).
    """
    pool = MultiScaleRoIAlign([str(s) for s in strides], size, samples, canonical_scale=canonical)
    levels = [s.bit_length() - 1 for s in strides]
    pool.scales = [1 / s for s in strides]
    pool.map_levels = initLevelMapper(levels[0], levels[-1], canonical_scale=canonical)
    return pool
