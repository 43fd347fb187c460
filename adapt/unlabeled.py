"""What lies on an image without a label: nothing, but where it is moves with it as a label would."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Extent:
    """Where the image is, as it is resized, padded, cropped and mirrored.

    Attributes:
        inside: ``bool (h, w)``, False on padding.
    """

    inside: np.ndarray

    @classmethod
    def whole(cls, size: Size) -> Extent:
        """An image without padding."""
        return cls(np.ones(size, dtype=bool))

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.inside.shape[0], self.inside.shape[1]

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.inside.nbytes

    @property
    def blank(self) -> bool:
        """No image is without use where there are no labels."""
        return False

    def resize(self, size: Size) -> Extent:
        """By the nearest pixel."""
        rows, columns = (np.arange(new) * old // new for new, old in zip(size, self.size, strict=True))
        return Extent(self.inside[rows[:, None], columns])

    def crop(self, top: int, left: int, size: Size) -> Extent:
        """A part of it."""
        return Extent(self.inside[top : top + size[0], left : left + size[1]])

    def pad(self, size: Size) -> Extent:
        """Grown to the right and below by what is not the image."""
        grown = np.zeros(size, dtype=bool)
        grown[: self.size[0], : self.size[1]] = self.inside
        return Extent(grown)

    def flip(self) -> Extent:
        """Of the mirror image."""
        return Extent(self.inside[:, ::-1])

    def dominance(self) -> float:
        """There are no classes."""
        return 0.0

    def tensors(self) -> Tensor:
        """``bool (h, w)``."""
        return torch.from_numpy(self.inside.copy())
