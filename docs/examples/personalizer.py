"""A word that the base model already knows, in place of one that was learned: what does learning add?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, ConfigDict
from pydantic.dataclasses import dataclass

from personalize import personalizers
from personalize.settings import check_word

if TYPE_CHECKING:
    from tadp_da.backbones import Backbone
    from tadp_da.concept import Concept
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled


@personalizers.add("known-word")
@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class KnownWord:
    """A concept that is a word of the vocabulary; nothing is trained.

    Attributes:
        word: the word, e.g. ``"night"``.
    """

    needs_images: ClassVar[bool] = False
    needs_captions: ClassVar[bool] = False
    learns_weights: ClassVar[bool] = False

    word: Annotated[str, AfterValidator(check_word)]

    def __call__(
        self,
        backbone: "Backbone",
        images: "Unlabeled",
        run: "Run",
        captions: Mapping[str, str] | None = None,
    ) -> "Concept":
        """The concept; no image is opened."""
        from tadp_da.concept import Concept

        return Concept(
            word=self.word, domain=images.domain, backbone=backbone.fingerprint, method="known-word"
        )
