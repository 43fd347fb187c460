"""Textual Inversion (Gal et al. 2022, arXiv 2208.01618): the embedding of a new word is learned; all else is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass as settings

from personalize import personalizers
from personalize.settings import STRICT, Positive, TrainingSettings, check_word
from personalize.templates import TEMPLATES, Property, check, wants_caption
from tadp_da.settings import as_json

if TYPE_CHECKING:
    from tadp_da.backbones import Backbone
    from tadp_da.concept import Concept
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled


@personalizers.add("textual-inversion")
@settings(frozen=True, kw_only=True, config=STRICT)
class TextualInversion(TrainingSettings):
    """Learn the embedding of a new word. Defaults are those of the TADP paper's appendix (Table S4 d) for Stable
    Diffusion: 3000 steps of 4 images at 5e-4.

    Attributes:
        word: the new word; not in the vocabulary.
        like: known words; the new rows start from the mean of theirs.
        vectors: rows of the new word, each with a token of its own in the prompt.
        learnable_property: which sentences to learn from (see ``templates.py``); ``"captioned"`` needs captions.
        templates: sentences of your own instead; each holds ``{word}`` and may hold ``{caption}``.
    """

    needs_images: ClassVar[bool] = True
    learns_weights: ClassVar[bool] = False

    word: Annotated[str, AfterValidator(check_word)]
    like: str
    vectors: Positive = 1
    learnable_property: Property = "style"
    templates: tuple[str, ...] = ()
    steps: Positive = 3000
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    accumulate: Positive = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The templates in use."""
        return self.templates or TEMPLATES[self.learnable_property]

    @property
    def needs_captions(self) -> bool:
        """Whether a template holds ``{caption}``."""
        return wants_caption(self.sentences)

    def __call__(
        self,
        backbone: Backbone,
        images: Unlabeled,
        run: Run,
        captions: Mapping[str, str] | None = None,
    ) -> Concept:
        """Train the new rows, in place; all other rows stay bit for bit.

        Raises:
            UsageError: when the vocabulary holds ``word``.
            DataError: when there is no image, or a caption is needed and missing.
            DivergedError: when the loss is not finite.
        """
        from personalize.denoising import LatentDataset, NoisePrediction, Prompts
        from personalize.latents import encode
        from personalize.training import BeforeAfterLogger, train
        from tadp_da.concept import Concept

        base = backbone.fingerprint
        tokens = backbone.add_tokens(self.word, self.like, self.vectors)
        prompts = Prompts.of(self.sentences, " ".join(tokens), images, captions)
        views = LatentDataset(encode(backbone, images, self, run), prompts)
        objective = NoisePrediction(backbone, backbone.encode_text, self.snr_gamma)
        log = BeforeAfterLogger(backbone, images, views, self, run)
        with log(), backbone.trained_rows(tokens) as rows:
            train(objective, [rows], views, self, run, "textual inversion")
        return Concept(
            word=self.word,
            domain=images.domain,
            backbone=base,
            method="textual-inversion",
            rows=rows.detach().float().cpu().clone(),
            settings=as_json(self),
        )
