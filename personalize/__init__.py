"""Stage 1: learn the appearance of an unlabelled domain as a :class:`~tadp_da.concept.Concept`.

Each method is a frozen dataclass of settings, to be called::

    concept = TextualInversion(word="<night>", like="night", steps=1000)(backbone, images, run)
    concept.save(folder)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tadp_da.registry import Registry

if TYPE_CHECKING:
    from tadp_da.backbones import Backbone
    from tadp_da.concept import Concept
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled


class Personalizer(Protocol):
    """Learns a concept from images. Its fields are settings, validated when it is created."""

    needs_images: ClassVar[bool]
    """Whether it reads the images."""
    learns_weights: ClassVar[bool]
    """Whether its concept changes the network, and so works without a word."""

    @property
    def needs_captions(self) -> bool:
        """Whether a template holds ``{caption}``, so that every image must have one."""

    def __call__(
        self,
        backbone: Backbone,
        images: Unlabeled,
        run: Run,
        captions: Mapping[str, str] | None = None,
    ) -> Concept:
        """Train on ``images`` and return what was learned.

        Args:
            backbone: a fresh backbone; it holds the concept afterwards.
            images: the domain's images; the type holds no labels.
            run: seed, device, precision, and the folder for ``metrics.jsonl`` and ``before_after.png``.
            captions: caption of each image by its key (``images.key``), if :attr:`needs_captions`.
        """


personalizers: Registry[Any] = Registry("personalizer", "personalize.methods")

__all__ = ["Personalizer", "personalizers"]
