"""Heads: networks that read a feature pyramid, one file each, registered by a decorator on the class.

A head holds the network, the loss and the step from raw outputs to predictions. What a label is, how predictions of
windows are merged, scored and shown belongs to its task (:mod:`tadp_da.tasks`). Settings: a head's class has an
attribute ``Settings``, a frozen dataclass, and is built as ``heads[name](spec, labels, settings)``. A head whose raw
outputs are not one tensor can be exported if it has a method ``graph_outputs(raw)``, which returns the prediction of a
single image as tensors by name, without choices that depend on sizes or values.
``tests/contract/test_heads.py`` covers a new head from the moment its file exists.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from torch import Tensor

from tadp_da.registry import Registry
from tadp_da.types import FeaturePyramid, LabelSpace


class Head(Protocol):
    """An ``nn.Module`` that is built from a ``FeatureSpec``, a ``LabelSpace`` and its settings.

    Attributes:
        task: name of its task in the registry.
        labels: label space of its predictions.
        use_attention: whether it reads attention maps: a backbone records them only where they are used.
    """

    Settings: ClassVar[type]
    task: str
    labels: LabelSpace
    use_attention: bool

    def forward(self, pyramid: FeaturePyramid, size: tuple[int, int]) -> Any:
        """Raw outputs for images of ``size`` (h, w); for segmentation logits ``(b, k, h, w)``."""

    def loss(self, raw: Any, targets: Any) -> Tensor:
        """Scalar loss against a batch of what ``Label.tensors`` gives; pixels and objects that are ignored have no
        influence."""

    def predict(self, raw: Any) -> list[Any]:
        """Predictions, one per image, in pixels of the images that were given to the backbone."""


heads: Registry[Any] = Registry("head", "tadp_da.heads")
