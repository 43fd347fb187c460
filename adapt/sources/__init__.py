"""Source styles: labelled source images as they are, or in the target's style."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tadp_da.registry import Registry

if TYPE_CHECKING:
    from tadp_da.perception_model import PerceptionModel
    from tadp_da.run import Run
    from tadp_da.types import Labeled, Unlabeled

sources: Registry[Any] = Registry("source style", "adapt.sources")
"""Built by ``sources[name](settings: Settings)``, where ``Settings`` is the class's attribute of that name, a frozen
pydantic dataclass; the instance keeps them as ``settings``.

A member derives from :class:`Source`:

- a call is a function of its arguments: all randomness comes from ``rng``, itself a function of (seed, epoch, index);
  the image and the label are not changed in place.
- the image that it returns is ``uint8 (h, w, 3)``, of the label's size.
- ``identity`` is True only if images are never changed: their latents may then be cached.
- ``reads_target`` is True if it needs target images; otherwise it works with ``target=None``.
"""


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a style may make images from, before the training.

    Attributes:
        model: that is to be trained: an untrained head on the backbone with its concept.
        data: labelled images with captions.
        prompts: of the images by key, as a target image with their caption would be prompted.
        target: the target's unlabelled images, if any are given.
        judge: the same model trained on unchanged images, without the target.
        inputs: everything that these depend on, as JSON values.
        run: where artifacts go, seed and device.
    """

    model: PerceptionModel
    data: Labeled
    prompts: Mapping[str, str]
    target: Unlabeled | None
    judge: Callable[[], PerceptionModel]
    inputs: Mapping[str, Any]
    run: Run


class Source(ABC):
    """Base class of source styles.

    Attributes:
        identity: whether images are always shown as they are.
        reads_target: whether target images must be given.
        passes: of the network for each source image before the training, for estimates of the cost.
    """

    identity: bool = False
    reads_target: bool = False
    passes: float = 0

    def setup(  # noqa: B027 - an optional hook
        self, model: PerceptionModel, images: Unlabeled, target: Unlabeled | None, run: Run
    ) -> None:
        """Called once before training, to prepare statistics of the target or images."""

    def prepare(self, material: Callable[[], Material]) -> None:  # noqa: B027 - an optional hook
        """Called once before :meth:`setup` by the stage, for images that take long to make and are kept."""

    @abstractmethod
    def __call__(
        self, key: str, image: np.ndarray, label: Any, target: Unlabeled | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        """Change one image.

        Args:
            key: of the image.
            image: ``uint8 (h, w, 3)``, before augmentation.
            label: has ``resize``, ``crop``, ``pad`` and ``flip``, as the image.
            target: the target's unlabelled images, if any are given.
            rng: the source of randomness.

        Returns:
            Image and label to learn from instead.
        """


__all__ = ["Material", "Source", "sources"]
