"""What labels of all tasks have in common: a tv_tensor that torchvision's transforms.v2 move with the image."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from tadp_da.images import geometry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torchvision.tv_tensors import TVTensor

Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Label:
    """The label of one image on its way through augmentation: it moves as its image moves. Never changed in place.

    Attributes:
        value: mask, boxes or another tv_tensor.
        fill: what a mask holds where padding has added pixels.
    """

    value: TVTensor
    fill: float = 0

    @property
    def size(self) -> Size:
        """Height and width of its image."""
        height, width = geometry().get_size(self.value)
        return int(height), int(width)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        fields = (getattr(self, f.name) for f in dataclasses.fields(self))
        return sum(int(x.nbytes) for x in fields if isinstance(x, Tensor))

    @property
    def blank(self) -> bool:
        """Whether nothing can be learned from its image."""
        return False

    @property
    def lost(self) -> int:
        """Number of objects that are too small to be learned from at the label's size."""
        return 0

    def resize(self, size: Size) -> Self:
        """Scaled with the image, each side by its own factor. Values of a mask are picked, never mixed."""
        from torchvision.transforms import InterpolationMode

        return self._moved(geometry().resize(self.value, list(size), InterpolationMode.NEAREST_EXACT))

    def crop(self, top: int, left: int, size: Size) -> Self:
        """The part below and to the right of a corner."""
        return self._moved(geometry().crop(self.value, top, left, *size))

    def resized_crop(self, size: Size, top: int, left: int, crop: Size) -> Self:
        """``resize(size)``, then ``pad`` to at least ``crop``, then ``crop(top, left, crop)``; of a mask, only what is
        in the crop is computed."""
        from torchvision import tv_tensors

        if not isinstance(self.value, tv_tensors.Mask):
            return self.resize(size).pad((max(size[0], crop[0]), max(size[1], crop[1]))).crop(top, left, crop)
        value = self.value.as_subclass(Tensor)
        for axis, start in enumerate((top, left)):
            places = torch.arange(start, min(start + crop[axis], size[axis]), dtype=torch.float32) + 0.5
            places = (places * (value.shape[axis] / size[axis])).long().clamp(max=value.shape[axis] - 1)
            value = value.index_select(axis, places)
        return self._moved(tv_tensors.Mask(value)).pad(crop)

    def pad(self, size: Size) -> Self:
        """For an image that grows to ``size``, to the right and below."""
        height, width = self.size
        if (height, width) == size:
            return self
        grown = [0, 0, size[1] - width, size[0] - height]
        return self._moved(geometry().pad(self.value, grown, fill=self.fill))

    def flip(self) -> Self:
        """For the mirror image."""
        return self._moved(geometry().horizontal_flip(self.value))

    def doubted(self, output: Any, confidence: float) -> Tensor:
        """Where a prediction contradicts the label, ``bool (h, w)``; nowhere, for labels that do not say.

        Args:
            output: of :meth:`~tadp_da.tasks.Task.outputs`, for the image at the label's size.
            confidence: least probability of a prediction that counts.
        """
        return torch.zeros(self.size, dtype=torch.bool)

    def without(self, area: Tensor) -> Self:
        """The same, with nothing to learn from this part ``bool (h, w)`` of the image; itself, where that cannot be
        said: an object without its box would be learned as background."""
        return self

    def painted(self) -> NDArray[np.uint8] | None:
        """The label as a grey image ``(h, w)``; None for labels that are no quantity."""
        return None

    def dominance(self) -> float:
        """Share of the most frequent class, 1 where nothing is labelled, 0 for labels without shares."""
        return 0.0

    def tensors(self) -> Any:
        """What ``loss`` reads of one image: a tensor, which a batch stacks, or a dict of tensors, which it lists."""
        return self.value.as_subclass(Tensor)

    def _moved(self, value: TVTensor, **changes: Any) -> Self:
        return dataclasses.replace(self, value=value, **changes)
