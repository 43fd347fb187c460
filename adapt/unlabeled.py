"""The label of an image without labels: which of its pixels are image and not padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from tadp_da.tasks.labels.label import Label, Size


@dataclass(frozen=True, eq=False)
class Extent(Label):
    """A mask ``bool (h, w)``, True on the image and False on padding."""

    @classmethod
    def whole(cls, size: Size) -> Self:
        """Of an image without padding."""
        from torchvision import tv_tensors

        return cls(tv_tensors.Mask(torch.ones(size, dtype=torch.bool)))
