"""What a detector with two stages says before it decides: its anchors, its proposals and their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How many samples of an image are trained on, and what share of them are objects, at most."""

    count: int
    positive: float

    def expected(self, foreground: Tensor, background: Tensor) -> Tensor:
        """Probability ``(n,)`` of each sample of one image to be drawn, from masks ``bool (n,)``; 0 in neither."""
        objects, rest = foreground.sum(), background.sum()
        taken = objects.clamp(max=int(self.count * self.positive))
        others = torch.minimum(self.count - taken, rest)
        return foreground * (taken / objects.clamp(min=1)) + background * (others / rest.clamp(min=1))


@dataclass(frozen=True)
class Anchors:
    """Outputs of the first stage for ``b`` images with ``n`` anchors each.

    Attributes:
        objectness: logits ``(b, n)``.
        moves: ``(b, n, 4)``, from anchor to box, as they are regressed.
    """

    objectness: Tensor
    moves: Tensor


@dataclass(frozen=True)
class Regions:
    """Outputs of the second stage for ``m`` regions of all images.

    Attributes:
        logits: ``(m, k + 1)``, the background first.
        moves: ``(m, k + 1, 4)``, from region to box if it is of that class, as they are regressed.
    """

    logits: Tensor
    moves: Tensor


@runtime_checkable
class RegionHead(Protocol):
    """A head of two stages.

    Attributes:
        anchor_sampling, region_sampling: what each stage's loss is computed on.
    """

    anchor_sampling: Sampling
    region_sampling: Sampling

    def losses(self, raw: Any, targets: Any) -> dict[str, Tensor]:
        """Summands of ``loss`` by name; those of box regression contain ``box_reg``."""

    def anchors(self, raw: Any) -> Anchors:
        """Outputs of the first stage."""

    def proposals(self, raw: Any, anchors: Anchors) -> list[Tensor]:
        """The boxes ``(m, 4)`` in pixels that it proposes in each image, best first; without gradient."""

    def classify(self, raw: Any, boxes: Sequence[Tensor]) -> Regions:
        """Outputs of the second stage for boxes ``(m, 4)`` of each image."""
