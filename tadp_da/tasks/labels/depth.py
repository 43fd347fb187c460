"""Depth maps that move with their image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tadp_da.errors import DataError, UsageError
from tadp_da.tasks.labels.label import Label, Size
from tadp_da.types import LabelSpace


@dataclass(frozen=True, eq=False)
class DepthLabel(Label):
    """Metres ``float32 (h, w)`` along the optical axis; 0 where the depth is unknown or outside the range of the label
    space.

    Values are picked when an image is scaled, never mixed, and never changed: a scaled image counts as one of the same
    scene by a camera of another focal length (in pixels). Training at random scales therefore teaches that the size of
    things in the image does not tell their distance; where source and target have the same camera, leave them out.

    Attributes:
        furthest: upper end of the range, in metres.
    """

    furthest: float = 1.0

    @classmethod
    def checked(cls, target: Any, size: Size, labels: LabelSpace, where: object) -> DepthLabel:
        """A depth map for an image of ``size`` (h, w).

        Raises:
            DataError: when the sizes differ, or a value is negative or not a number.
        """
        from torchvision import tv_tensors

        depth = np.asarray(target, np.float32)
        if depth.shape != size:
            raise DataError(
                f"the image has {size[0]}x{size[1]} pixels and its label {'x'.join(map(str, depth.shape))}",
                where=where,
                fix="give every image a depth map of its own size",
            )
        check_depth(depth, where=where)
        depth = np.where(known(depth, labels), depth, np.float32(0))
        return cls(tv_tensors.Mask(torch.from_numpy(depth)), furthest=depth_range(labels)[1])

    @property
    def blank(self) -> bool:
        """Whether no depth is known."""
        return not bool((self.value > 0).any())

    def without(self, area: Tensor) -> DepthLabel:
        """Its pixels are unknown."""
        from torchvision import tv_tensors

        return self._moved(tv_tensors.Mask(self.value.as_subclass(Tensor).masked_fill(area, 0)))

    def painted(self) -> NDArray[np.uint8]:
        """Grey in proportion to the depth, 255 at the end of the range, 0 where it is unknown."""
        return (255 / self.furthest * self.value.as_subclass(Tensor)).round().to(torch.uint8).numpy()


def depth_range(labels: LabelSpace) -> tuple[float, float]:
    """Metres between which depths count.

    Raises:
        UsageError: when the label space states no such range.
    """
    if labels.task != "depth" or labels.range is None or not 0 < labels.range[0] < labels.range[1]:
        raise UsageError(
            f"these are {labels.task} labels with the range {labels.range}, and depth is expected",
            fix="give depth maps, and a range such as 0.001 to 10 m",
        )
    return labels.range


def known(depth: NDArray[np.float32], labels: LabelSpace) -> NDArray[np.bool_]:
    """Where the depth of a label counts, ``bool (h, w)``: inside the range, without its ends (Eigen et al., 2014)."""
    low, high = depth_range(labels)
    return (depth > low) & (depth < high)


def check_depth(depth: NDArray[np.float32], *, where: object) -> None:
    """Refuse a label with values that are no depth.

    Raises:
        DataError: naming the first such value, and how many there are.
    """
    wrong = ~(np.isfinite(depth) & (depth >= 0))
    if wrong.any():
        raise DataError(
            f"a depth map holds {depth[wrong][0]} ({int(wrong.sum())} values that are negative or not finite)",
            where=where,
            fix="give metres, and 0 where the depth is unknown",
        )
