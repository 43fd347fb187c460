"""Textual Inversion (Gal et al. 2022, arXiv 2208.01618): the embedding of a new word is learned; all else is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass as settings

from personalize import personalizers
from personalize.settings import STRICT, Positive
from personalize.templates import TEMPLATES, Property
from personalize.trained import TrainedPersonalizer

if TYPE_CHECKING:
    from personalize.denoising import LatentDataset
    from tadp_da.run import Run


@personalizers.add("textual-inversion")
@settings(frozen=True, kw_only=True, config=STRICT)
class TextualInversion(TrainedPersonalizer):
    """Learn the embedding of a new word. Defaults are those of the TADP paper's appendix (Table S4 d) for Stable
    Diffusion: 3000 steps of 4 images at 5e-4.

    Attributes:
        word: the new word; not in the vocabulary.
        like: known words; the new rows start from the mean of theirs.
        vectors: rows of the new word, each with a token of its own in the prompt.
        learnable_property: which sentences to learn from (see ``templates.py``); ``"captioned"`` needs captions.
        templates: sentences of your own instead; each holds ``{word}`` and may hold ``{caption}``.
    """

    method: ClassVar[str] = "textual-inversion"
    learns_weights: ClassVar[bool] = False

    like: str
    vectors: Positive = 1
    learnable_property: Property = "style"
    templates: tuple[str, ...] = ()
    steps: Positive = 3000
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    accumulate: Positive = 4

    @property
    def sentences(self) -> tuple[str, ...]:
        """The templates in use."""
        return self.templates or TEMPLATES[self.learnable_property]

    def add_word(self, backbone: Any) -> str:
        """All placeholder tokens."""
        return " ".join(backbone.add_tokens(self.word, self.like, self.vectors))

    def learn(self, backbone: Any, views: LatentDataset, run: Run) -> dict[str, Any]:
        """Rows of the new word; all other rows stay bit for bit."""
        from personalize.denoising import NoisePrediction
        from personalize.training import train

        objective = NoisePrediction(backbone, backbone.encode_text, self.snr_gamma)
        with backbone.trained_rows(views.prompts.word.split()) as rows:
            train(objective, [rows], views, self, run, "textual inversion")
        return {"rows": rows.detach().float().cpu().clone()}
