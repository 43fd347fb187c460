"""The course of personalizers that train on the denoising objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass as settings

from personalize.settings import STRICT, TrainingSettings, check_word
from personalize.templates import check, wants_caption
from tadp_da.settings import as_json

if TYPE_CHECKING:
    from personalize.denoising import LatentDataset
    from tadp_da.backbones import Backbone
    from tadp_da.concept import Concept
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled


@settings(frozen=True, kw_only=True, config=STRICT)
class TrainedPersonalizer(TrainingSettings, ABC):
    """Base class of these personalizers.

    Attributes:
        word: of the concept.
    """

    method: ClassVar[str]
    needs_images: ClassVar[bool] = True

    word: Annotated[str, AfterValidator(check_word)]

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.sentences)

    @property
    @abstractmethod
    def sentences(self) -> tuple[str, ...]:
        """Templates of the prompts."""

    @property
    def needs_captions(self) -> bool:
        """Whether a template holds ``{caption}``."""
        return wants_caption(self.sentences)

    def __call__(
        self, backbone: Backbone, images: Unlabeled, run: Run, captions: Mapping[str, str] | None = None
    ) -> Concept:
        """Learn the concept; the backbone holds it afterwards.

        Raises:
            UsageError: when a new word is in the vocabulary.
            DataError: when there is no image, or a caption is needed and missing.
            DivergedError: when the loss is not finite.
        """
        from personalize.denoising import LatentDataset, Prompts
        from personalize.latents import encode
        from personalize.training import BeforeAfterLogger
        from tadp_da.concept import Concept

        base = backbone.fingerprint
        prompts = Prompts.of(self.sentences, self.add_word(backbone), images, captions)
        views = LatentDataset(encode(backbone, images, self, run), prompts, self.prior(backbone, run))
        with BeforeAfterLogger(backbone, views, self, run, images)():
            learned = self.learn(backbone, views, run)
        origin: dict[str, Any] = {"domain": images.domain, "backbone": base, "method": self.method}
        return Concept(word=self.word, settings=as_json(self), **origin, **learned)

    def add_word(self, backbone: Any) -> str:
        """Add the word to the backbone, if it is to be new; returns what replaces ``{word}``."""
        return self.word

    def prior(self, backbone: Any, run: Run) -> LatentDataset | None:
        """Images of the class without the word, if training is to preserve them."""
        return None

    @abstractmethod
    def learn(self, backbone: Any, views: LatentDataset, run: Run) -> dict[str, Any]:
        """Train, in place; returns ``rows``, ``weights`` or ``lora`` of the concept."""
