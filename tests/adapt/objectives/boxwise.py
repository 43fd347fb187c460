"""A detector of two small convolutions, and its two streams: laws of objectives need no network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapt.batches import collate
from tadp_da.heads import heads
from tadp_da.types import FeaturePyramid, FeatureSpec, LabelSpace

THINGS = LabelSpace("detection", ("car", "person"))
SMALL: dict[str, Any] = {
    "width": 8, "hidden": 16, "pool": 3, "rpn_candidates": (40, 30), "rpn_proposals": (30, 20), "rpn_batch": 32,
    "roi_batch": 16,
}  # fmt: skip
SIZE = (32, 48)


class Boxwise(nn.Module):
    """Regions of mean colours."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(2))
        self.labels, self.device = THINGS, torch.device("cpu")
        entry = heads["faster-rcnn"]
        self.head = entry(FeatureSpec({4: 4, 8: 4}, {}), THINGS, entry.Settings(**SMALL))
        with torch.no_grad():  # opinions to differ about
            scores = self.head.regions.box_predictor.cls_score
            scores.weight.mul_(30)
            scores.bias[0] += 5
            self.head.rpn.head.cls_logits.weight.mul_(3000)

    def forward(self, pixels: Tensor, text: Tensor, generators: Any = None) -> Any:
        levels = {s: F.avg_pool2d(pixels, s) for s in (4, 8)}
        features = {s: layer(x) for (s, x), layer in zip(levels.items(), self.layers, strict=True)}
        return self.head(FeaturePyramid(features, {}), tuple(pixels.shape[-2:]))


class Images:
    """Random colours, with a box on the source and none on the target."""

    def __init__(self, answer: str, count: int = 6) -> None:
        self.answer, self.count = answer, count

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return f"{self.answer}-{index}"

    def fetch(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        noise = torch.Generator().manual_seed(index + 100 * (self.answer == "valid"))
        pixels = F.interpolate(torch.rand(1, 3, 4, 6, generator=noise) * 2 - 1, SIZE)[0]
        box = {
            "boxes": torch.tensor([[4.0, 4.0, 20.0, 28.0]]),
            "labels": torch.tensor([index % 2]),
            "difficult": torch.tensor([False]),
            "visible": torch.ones(1),
        }
        answer = torch.ones(SIZE, dtype=torch.bool) if self.answer == "valid" else box
        return {"pixels": pixels, "text": torch.zeros(1, 2), "size": SIZE, self.answer: answer}

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
