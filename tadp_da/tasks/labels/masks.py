"""Masks of class ids that move with their image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tadp_da.errors import DataError
from tadp_da.tasks.labels.label import Label, Size
from tadp_da.types import LabelSpace


@dataclass(frozen=True, eq=False)
class MaskLabel(Label):
    """Class ids ``uint8 (h, w)``; ``fill`` is the id that is ignored."""

    @classmethod
    def checked(cls, target: Any, size: Size, labels: LabelSpace, where: object) -> MaskLabel:
        """A mask for an image of ``size`` (h, w).

        Raises:
            DataError: when the sizes differ, or an id is neither a class nor the ignore id.
        """
        from torchvision import tv_tensors

        ids = np.array(target)
        if ids.shape != size:
            raise DataError(
                f"the image has {size[0]}x{size[1]} pixels and its label {'x'.join(map(str, ids.shape))}",
                where=where,
                fix="give every image a label of its own size",
            )
        check_ids(ids, labels, where=where)
        return cls(tv_tensors.Mask(torch.from_numpy(ids)), labels.ignore)

    @property
    def blank(self) -> bool:
        """Whether no pixel is labelled."""
        return bool((self.value == self.fill).all())

    def doubted(self, output: Tensor, confidence: float) -> Tensor:
        """Labelled pixels of which logits ``(k, h, w)`` hold another class that likely."""
        if output.shape[1:] != self.size:  # of another task, that reads masks too
            return super().doubted(output, confidence)
        sure, found = output.softmax(dim=0).cpu().max(dim=0)
        ids = self.value.as_subclass(Tensor)
        return (sure >= confidence) & (found != ids) & (ids != self.fill)

    def without(self, area: Tensor) -> MaskLabel:
        """Its pixels are ignored."""
        from torchvision import tv_tensors

        return self._moved(tv_tensors.Mask(self.value.as_subclass(Tensor).masked_fill(area, int(self.fill))))

    def dominance(self) -> float:
        """Share of the most frequent class among the labelled pixels; 1 when there is none."""
        ids = self.value.numpy()
        counts = np.bincount(ids[ids != self.fill].reshape(-1))
        return float(counts.max() / counts.sum()) if counts.sum() else 1.0

    def tensors(self) -> Tensor:
        """Ids ``int64 (h, w)``."""
        return self.value.as_subclass(Tensor).long()


def check_ids(mask: np.ndarray, labels: LabelSpace, *, where: object) -> None:
    """Refuse a mask that holds an id which is neither a class nor ``labels.ignore``.

    Raises:
        DataError: naming the ids, how many pixels have them, and the fix.
    """
    if (
        mask.dtype == np.uint8 and not ((mask >= len(labels.classes)) & (mask != labels.ignore)).any()
    ):  # faster than to count
        return
    counts = np.bincount(mask.reshape(-1).astype(np.int64), minlength=256)
    unknown = [i for i in np.flatnonzero(counts).tolist() if i >= len(labels.classes) and i != labels.ignore]
    if unknown:
        raise DataError(
            f"label ids {unknown} ({int(counts[unknown].sum())} pixels) are not classes: "
            f"expected 0 to {len(labels.classes) - 1}, or {labels.ignore} for ignore",
            where=where,
            fix="map the ids to the label space, or list every class",
        )
