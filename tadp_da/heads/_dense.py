"""What heads with one decision per pixel share. A helper, not a plug-in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tadp_da.errors import DataError
from tadp_da.heads._confusion import check_ids
from tadp_da.images import geometry
from tadp_da.inference import InferenceSettings
from tadp_da.types import LabelSpace


@dataclass(frozen=True, eq=False)
class MaskAnnotation:
    """A mask that moves with its image.

    Attributes:
        ids: class ids ``uint8 (h, w)``.
        ignore: id that counts nowhere and pads the mask.
    """

    ids: NDArray[np.uint8]
    ignore: int = 255

    @classmethod
    def checked(cls, target: Any, size: tuple[int, int], labels: LabelSpace, where: object) -> MaskAnnotation:
        """A mask for an image of ``size`` (h, w).

        Raises:
            DataError: when the sizes differ, or an id is neither a class nor the ignore id.
        """
        ids = np.array(target)
        if ids.shape != size:
            raise DataError(
                f"the image is {size[0]}x{size[1]} and its label {ids.shape[0]}x{ids.shape[1]} pixels",
                where=where,
                fix="give every image a label of its own size",
            )
        check_ids(ids, labels, where=where)
        return cls(ids, labels.ignore)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.ids.shape[0], self.ids.shape[1]

    @property
    def nbytes(self) -> int:
        """Memory of the ids."""
        return self.ids.nbytes

    @property
    def blank(self) -> bool:
        """Whether no pixel is labelled."""
        return bool((self.ids == self.ignore).all())

    def resize(self, size: tuple[int, int]) -> MaskAnnotation:
        """Ids are picked, never mixed."""
        from torchvision import tv_tensors
        from torchvision.transforms import InterpolationMode

        mask = tv_tensors.Mask(torch.from_numpy(self.ids))
        return self._like(geometry().resize(mask, list(size), InterpolationMode.NEAREST_EXACT).numpy())

    def crop(self, top: int, left: int, size: tuple[int, int]) -> MaskAnnotation:
        """The part below and right of a corner."""
        return self._like(self.ids[top : top + size[0], left : left + size[1]])

    def pad(self, size: tuple[int, int]) -> MaskAnnotation:
        """New pixels are ignored."""
        missing = ((0, size[0] - self.ids.shape[0]), (0, size[1] - self.ids.shape[1]))
        return self._like(np.pad(self.ids, missing, constant_values=self.ignore))

    def flip(self) -> MaskAnnotation:
        """Left becomes right."""
        return self._like(np.ascontiguousarray(self.ids[:, ::-1]))

    def dominance(self) -> float:
        """Share of the most frequent class among the labelled pixels; 1 when there is none."""
        counts = np.bincount(self.ids[self.ids != self.ignore].reshape(-1))
        return float(counts.max() / counts.sum()) if counts.sum() else 1.0

    def tensors(self) -> Tensor:
        """Ids ``int64 (h, w)``."""
        return torch.from_numpy(self.ids.astype(np.int64))

    def _like(self, ids: NDArray[np.uint8]) -> MaskAnnotation:
        return MaskAnnotation(ids, self.ignore)


def see(
    view: Callable[[Tensor], Tensor], pixels: Tensor, viewing: InferenceSettings, size: tuple[int, int]
) -> Tensor:
    """Dense outputs ``(1, k, h, w)`` at the image's own ``size``, averaged over windows and mirror."""
    outputs = viewing.through(view, pixels)
    if outputs.shape[-2:] != size:
        outputs = F.interpolate(outputs.float(), size, mode="bilinear", align_corners=False)
    return outputs
