"""Heads: what reads a feature pyramid. A head brings its own loss, decision and score; benchmarks never ask
for the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from tadp_da.registry import Registry
from tadp_da.types import FeaturePyramid


class Score(Protocol):
    """An accumulating metric. ``update`` takes one image's decision and truth at the truth's own
    resolution."""

    def update(self, decision: Any, truth: Any) -> None: ...

    def compute(self) -> Mapping[str, Any]:
        """Plain numbers: a main figure under ``"main"`` (in %), its name under ``"metric"``, per-class
        values under ``"classes"`` (None where absent), ``"images"``: how many were scored."""


class TaskHead(Protocol):
    """Built by ``heads[name](spec: FeatureSpec, labels: LabelSpace, **settings)``; an ``nn.Module``.

    Attributes:
        maps: whether it reads attention maps, so that a backbone captures them only where they are used.
    """

    maps: bool

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> Any:
        """Raw outputs for images of ``size`` (h, w); for segmentation logits ``(b, k, h, w)``."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Scalar loss; pixels or objects marked ``ignore`` are inert."""

    def decide(self, outputs: Any) -> Any:
        """Decisions, one per image; for segmentation a ``uint8 (h, w)`` array."""

    def score(self) -> Score:
        """A fresh metric for this task."""


heads: Registry[Any] = Registry("head", "tadp_da.heads")
