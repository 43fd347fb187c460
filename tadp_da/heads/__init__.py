"""Heads: what reads a feature pyramid. A head brings its own loss, decision and score, and says how its labels move
with their images; neither training nor benchmarks ever ask for the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tadp_da.inference import InferenceSettings
from tadp_da.registry import Registry
from tadp_da.types import FeaturePyramid, LabelSpace, Task

Size = tuple[int, int]


class Annotation(Protocol):
    """The label of one image on its way through augmentation: it moves as its image moves. Never changed in place."""

    @property
    def size(self) -> Size:
        """Height and width of the image that it lies on."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""

    @property
    def blank(self) -> bool:
        """Whether its image can teach nothing."""

    def resize(self, size: Size) -> Self: ...

    def crop(self, top: int, left: int, size: Size) -> Self: ...

    def pad(self, size: Size) -> Self:
        """For an image that grows to ``size``, to the right and below."""

    def flip(self) -> Self:
        """For the mirror image."""

    def dominance(self) -> float:
        """Share of the most frequent class, 1 where nothing is labelled, 0 for labels that have no shares."""

    def tensors(self) -> Any:
        """What ``loss`` reads of one image: a tensor, which a batch stacks, or a dict of tensors, which it lists."""


class Score(Protocol):
    """An accumulating metric. ``update`` takes one image's decision and truth at the truth's own
    resolution."""

    def update(self, decision: Any, truth: Any) -> None: ...

    def compute(self) -> Mapping[str, Any]:
        """Plain numbers: a main figure under ``"main"`` (in %), its name under ``"metric"``, per-class
        values under ``"classes"`` (None where absent), ``"images"``: how many were scored. Where there are other
        figures that readers compare with, those by name under ``"measures"`` (None where absent), and ``"notes"``."""

    def alone(self, decision: Any, truth: Any) -> float | None:
        """The main figure of one image by itself, None where it shows nothing to score; counts nowhere."""

    def paint(self, decision: Any, truth: Any, size: Size) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Decision and truth as pictures: class ids ``uint8 (h, w)`` of the truth's label space, its ignore id where
        there is nothing to see."""


class TaskHead(Protocol):
    """Built by ``heads[name](spec: FeatureSpec, labels: LabelSpace, **settings)``; an ``nn.Module``.

    Attributes:
        task: the kind of label that it learns from.
        maps: whether it reads attention maps, so that a backbone captures them only where they are used.
    """

    task: Task
    maps: bool

    def forward(self, pyramid: FeaturePyramid, size: Size) -> Any:
        """Raw outputs for images of ``size`` (h, w); for segmentation logits ``(b, k, h, w)``."""

    def annotation(self, target: Any, size: Size, *, where: object) -> Annotation:
        """A label for training on an image of ``size`` (h, w).

        Raises:
            DataError: naming ``where``, when the label does not fit the image or the label space.
        """

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Scalar loss against a batch of what :meth:`Annotation.tensors` gives; pixels or objects marked ``ignore``
        are inert."""

    def decide(self, outputs: Any) -> Any:
        """Decisions, one per image; for segmentation a ``uint8 (h, w)`` array, for detection ``Detections``."""

    def look(
        self, view: Callable[[Tensor], Any], pixels: Tensor, viewing: InferenceSettings, size: Size
    ) -> Any:
        """Decision for one image at its own resolution.

        Args:
            view: raw outputs for pixels ``(1, 3, h, w)``.
            pixels: the image at its working size.
            viewing: windows and mirror.
            size: height and width of the image itself.
        """

    def paint(self, decision: Any, size: Size) -> NDArray[np.uint8]:
        """The decision for an image of ``size`` as a picture: class ids ``uint8 (h, w)``, the ignore id where there is
        nothing to see."""

    def tell(self, decision: Any) -> list[dict[str, Any]] | None:
        """The decision as plain values; None where the picture holds all of it."""

    def score(self, labels: LabelSpace | None = None) -> Score:
        """A fresh metric for truths of these labels; of the head's own where none are given.

        Raises:
            UsageError: when decisions of this head cannot be held against such labels.
        """


heads: Registry[Any] = Registry("head", "tadp_da.heads")
