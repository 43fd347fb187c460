"""A segmentation model of one convolution, and its two streams: laws of objectives need no network."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapt.batches import collate
from tadp_da.types import LabelSpace

LABELS = LabelSpace("segmentation", ("road", "sky", "pole"))
STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "blur": 0.0}
"""Settings of a student that sees what its teacher sees."""


class Pixelwise(nn.Module):
    """Logits of a pixel from its colour."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 1)
        self.labels, self.device = LABELS, torch.device("cpu")
        self.backbone = SimpleNamespace(generates=False)
        self.head = SimpleNamespace(task="segmentation", labels=LABELS, loss=self.loss)

    def loss(self, raw: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(raw, targets, ignore_index=LABELS.ignore)

    def forward(self, pixels: Tensor, text: Tensor, generators: Any = None) -> Tensor:
        return self.layer(pixels)


class Images:
    """Random colours, with labels on the source and without on the target."""

    def __init__(self, answer: str, count: int = 6, size: tuple[int, int] = (8, 16)) -> None:
        self.answer, self.count, self.size = answer, count, size
        self.fetched: list[int] = []

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return f"{self.answer}-{index}"

    def fetch(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        self.fetched.append(index)
        noise = torch.Generator().manual_seed(index + 100 * (self.answer == "valid"))
        pixels = torch.rand(3, *self.size, generator=noise) * 2 - 1
        valid = torch.ones(self.size, dtype=torch.bool)
        answer = valid if self.answer == "valid" else pixels.argmax(0)
        return {"pixels": pixels, "text": torch.zeros(1, 2), "size": self.size, self.answer: answer}

    collate = staticmethod(collate)


def streams() -> dict[str, Any]:
    """Source and target."""
    return {"source": Images("target"), "target": Images("valid")}


def batches(count: int = 2) -> dict[str, Any]:
    """A batch of each stream."""
    return {
        name: collate([images.fetch(i, np.random.default_rng(i)) for i in range(count)])
        for name, images in streams().items()
    }


def generators(count: int = 2) -> dict[str, list[torch.Generator]]:
    """Those of :func:`batches`."""
    return {name: [torch.Generator().manual_seed(i) for i in range(count)] for name in ("source", "target")}
