"""The settings and the course of personalizers that train on the denoising objective."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from personalize.templates import check, wants_caption
from tadp_da.settings import Effect, as_json

if TYPE_CHECKING:
    from personalize.denoising import LatentDataset
    from tadp_da.backbones import Backbone
    from tadp_da.concept import Concept
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


def check_word(word: str) -> str:
    """Refuse a word that cannot be part of a prompt.

    Raises:
        ValueError: pydantic turns it into a message about the setting.
    """
    if not word or word.split() != [word]:
        raise ValueError(f"{word!r} is not one word; choose one without blanks, e.g. '<night>'")
    if word != word.lower():
        raise ValueError(f"{word!r} has capitals, which CLIP's tokenizer folds away; write {word.lower()!r}")
    if set(word) & set("{}"):
        raise ValueError(f"{word!r} holds braces, which templates use; choose a word without them")
    return word


@settings(frozen=True, kw_only=True, config=STRICT)
class Previews:
    """``before_after.png``: samples before and after training, above real images of the domain.

    Attributes:
        images: samples per row; 0 for none.
        prompts: of the samples, with ``{word}`` for the new word, repeated to fill the row; by default the
            personalizer's templates.
        steps: denoising steps per sample.
        guidance: weight of classifier-free guidance.
    """

    images: Count = 4
    prompts: tuple[str, ...] = ()
    steps: Positive = 20
    guidance: Annotated[float, Field(ge=0)] = 5.0


@settings(frozen=True, kw_only=True, config=STRICT)
class TrainingSettings(ABC):
    """Base class of personalizers that train on the denoising objective, whichever parameters are trained.

    Attributes:
        word: of the concept.
        steps: optimizer steps.
        batch: images per forward pass.
        accumulate: forward passes per step.
        learning_rate: of AdamW; not scaled by batch size.
        warmup: steps over which the learning rate rises linearly from 0.
        decay: whether it then stays, or falls to 0 at the last step along a cosine.
        weight_decay: of AdamW.
        clip: largest gradient norm, 0 for none.
        optimizer: AdamW or its 8-bit form.
        snr_gamma: weighs time steps by min(SNR, gamma) (Hang et al. 2023, "Min-SNR", with 5); None weighs them equally.
        gradient_checkpointing: recompute activations in the backward pass: less memory, more time.
        resolution: side of the square, or (height, width), of training images; None takes the backbone's. Images are
            resized to cover it, aspect ratio kept, and cropped.
        crop: at the center, or at ``views`` places per image, drawn once; ``"squash"`` resizes the whole image, aspect
            ratio not kept (textual inversion in TADP's code).
        views: random crops per image.
        flip: also learn from mirror images.
        posterior: take the mode of the latents' posterior, or a new sample at every step.
        checkpoint_every: steps between checkpoints; 0 saves one only at the end and when a signal stops the training.
        previews: samples before and after.
    """

    method: ClassVar[str]
    needs_images: ClassVar[bool] = True

    word: Annotated[str, AfterValidator(check_word)]
    steps: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    batch: Positive = 1
    accumulate: Positive = 1
    warmup: Count = 0
    decay: Literal["none", "cosine"] = "none"
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    clip: Annotated[float, Field(ge=0)] = 1.0
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    snr_gamma: Annotated[float, Field(gt=0)] | None = None
    gradient_checkpointing: Annotated[bool, Effect.SPEED] = False
    resolution: Positive | tuple[Positive, Positive] | None = None
    crop: Literal["center", "random", "squash"] = "center"
    views: Positive = 1
    flip: bool = True
    posterior: Literal["mode", "sample"] = "mode"
    checkpoint_every: Annotated[Count, Effect.SPEED] = 250
    previews: Annotated[Previews, Effect.ILLUSTRATION] = Previews()

    def __post_init__(self) -> None:
        if self.views > 1 and self.crop != "random":
            raise ValueError(
                f"views={self.views} of a {self.crop} crop are all the same; set crop='random' or views=1"
            )
        if self.warmup >= self.steps:
            raise ValueError(f"warmup={self.warmup} leaves none of {self.steps} steps; lower it")
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
        with BeforeAfterLogger(backbone, images, views, self, run)():
            learned = self.learn(backbone, views, run)
        fields: dict[str, Any] = {
            "domain": images.domain,
            "backbone": base,
            "method": self.method,
            "settings": as_json(self),
        }
        return Concept(word=self.word, **fields, **learned)

    def add_word(self, backbone: Any) -> str:
        """Add the word to the backbone, if it is to be new; returns what replaces ``{word}``."""
        return self.word

    def prior(self, backbone: Any, run: Run) -> LatentDataset | None:
        """Images of the class without the word, if training is to preserve them."""
        return None

    @abstractmethod
    def learn(self, backbone: Any, views: LatentDataset, run: Run) -> dict[str, Any]:
        """Train, in place; returns ``rows``, ``weights`` or ``lora`` of the concept."""

    def factor(self, step: int) -> float:
        """Factor on the learning rate at a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.decay == "none":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))
