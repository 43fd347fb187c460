"""Maps of a value, or of a vector, per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tadp_da.errors import DataError
from tadp_da.tasks import Area, Size, View


def merged(outputs: Sequence[Tensor], views: Sequence[View], size: Size) -> Tensor:
    """Maps ``(c, h, w)`` of views as one of the image: averaged over windows, then over the image and its mirror image,
    scaled bilinearly to ``size``, and averaged over the sizes at which the image was read."""
    found = []
    for shape in dict.fromkeys(view.shape for view in views):
        chosen = [(x, view) for x, view in zip(outputs, views, strict=True) if view.shape == shape]
        found.append(_one_size(chosen, shape, size))
    return found[0] if len(found) == 1 else torch.stack(found).mean(dim=0)


def _one_size(outputs: Sequence[tuple[Tensor, View]], shape: Size, size: Size) -> Tensor:
    sides = []
    for mirrored in (False, True):
        those = [(x, view) for x, view in outputs if view.mirrored is mirrored]
        if those:
            mean = _mean(those, shape)
            sides.append(mean.flip(-1) if mirrored else mean)
    found = sides[0] if len(sides) == 1 else (sides[0] + sides[1]) / 2
    if shape != size:
        found = F.interpolate(found[None].float(), size, mode="bilinear", align_corners=False)[0]
    return found


def _mean(views: Sequence[tuple[Tensor, View]], shape: Size) -> Tensor:
    """Mean of windows that cover an image of ``shape``."""
    first = views[0][0]
    if len(views) == 1:
        return first
    total, covered = first.new_zeros(len(first), *shape), first.new_zeros(shape)
    for values, view in views:
        total[..., view.rows, view.columns] += values
        covered[view.rows, view.columns] += 1
    return total / covered


def keep_inside(label: NDArray[Any], area: Area, fill: float) -> NDArray[Any]:
    """A map ``(h, w)`` with ``fill`` outside of an area.

    Raises:
        DataError: when the area reaches outside the map.
    """
    top, bottom, left, right = area
    if bottom > label.shape[0] or right > label.shape[1]:
        raise DataError(
            f"rows {top} to {bottom} and columns {left} to {right} are to be scored, and an image has "
            f"{label.shape[0]}x{label.shape[1]} pixels",
            fix="give evaluate.crop for images of this size, or omit it",
        )
    kept = np.full_like(label, fill)
    kept[top:bottom, left:right] = label[top:bottom, left:right]
    return kept
