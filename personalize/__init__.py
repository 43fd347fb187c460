"""Stage 1: what an unlabelled domain looks like, learned as a :class:`~tadp_da.concept.Concept`.

One file per method; each is a frozen dataclass of settings that you call::

    concept = TextualInversion(word="<night>", like="night", steps=1000)(backbone, images, run)
    concept.save(folder)

No method sees a label: the images are :class:`~tadp_da.types.Unlabeled`, which holds none.
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
    """Learns a concept from images. Settings are its fields; they are refused at birth when they make no
    sense."""

    needs_images: ClassVar[bool]
    """Whether it reads the images at all."""
    learns_weights: ClassVar[bool]
    """Whether its concept changes the network, so that it works without a word."""

    @property
    def needs_captions(self) -> bool:
        """Whether a template speaks of what each image shows: then every image must have a caption."""

    def __call__(
        self,
        backbone: Backbone,
        images: Unlabeled,
        run: Run,
        captions: Mapping[str, str] | None = None,
    ) -> Concept:
        """Train on ``images`` and say what was learned.

        Args:
            backbone: a fresh backbone; it holds the concept afterwards.
            images: the domain's unlabelled images.
            run: seed, device, precision, and the folder for ``metrics.jsonl`` and ``before_after.png``.
            captions: caption of each image by its key (``images.key``); read only where a template holds
                ``{caption}``.
        """


personalizers: Registry[Any] = Registry("personalizer", "personalize.methods")

__all__ = ["Personalizer", "personalizers"]
