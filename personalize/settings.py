"""Settings of personalizers that train on the denoising objective."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from tadp_da.settings import Effect

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
class TrainingSettings:
    """Training on the denoising objective, whichever parameters are trained.

    Attributes:
        steps: optimizer steps.
        batch: images per forward pass.
        accumulate: forward passes per step.
        learning_rate: of AdamW; not scaled by batch size.
        warmup: steps over which the learning rate rises linearly from 0.
        decay: whether it then stays, or falls along a cosine that would be 0 one step after the last.
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

    def factor(self, step: int) -> float:
        """Factor on the learning rate at a step, counted from 0."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.decay == "none":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / (self.steps - self.warmup)))
