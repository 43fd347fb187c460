"""The objective of stage 1: predict the noise that was added to the domain's latents, given a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from personalize.templates import wants_caption
from tadp_da.errors import DataError
from tadp_da.fingerprints import embeddings
from tadp_da.noising import normal

if TYPE_CHECKING:
    from personalize.latents import Latents
    from tadp_da.run import Run
    from tadp_da.types import Unlabeled

Text = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class Prompts:
    """Prompts of each image.

    Attributes:
        templates: with ``{word}`` and perhaps ``{caption}``.
        word: replaces ``{word}``: all placeholder tokens, or the rare token.
        captions: caption of each image; None if no template holds ``{caption}``.
    """

    templates: tuple[str, ...]
    word: str
    captions: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls, templates: tuple[str, ...], word: str, images: Unlabeled, captions: Mapping[str, str] | None
    ) -> Prompts:
        """Prompts for these images.

        Raises:
            DataError: when a template holds ``{caption}`` and an image has none.
        """
        if not wants_caption(templates):
            return cls(templates, word)
        keys = [images.key(i) for i in range(len(images))]
        missing = [key for key in keys if key not in (captions or {})]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(keys)} images of {images.domain!r} have no caption, and a template "
                "holds {caption}",
                where=missing[0],
                fix=f"make them: tadp-da caption {images.root} --out captions.json; or use templates without it",
            )
        return cls(templates, word, tuple((captions or {})[key] for key in keys))

    def say(self, image: int, template: int) -> str:
        """The prompt of an image by a template; both numbers wrap around."""
        caption = self.captions[image % len(self.captions)] if self.captions else ""
        return self.templates[template % len(self.templates)].format(word=self.word, caption=caption)

    def all(self) -> list[str]:
        """All different prompts."""
        images = len(self.captions) if self.captions else 1
        return list(dict.fromkeys(self.say(i, t) for i in range(images) for t in range(len(self.templates))))


class Batch(NamedTuple):
    """Latents ``(b, c, u, v)`` with their prompts, and as many of class images for prior preservation."""

    mean: Tensor
    std: Tensor | None
    prompts: list[str]
    prior: Batch | None = None


@dataclass(frozen=True)
class LatentDataset:
    """Training set of cached latents; a view and a prompt of each image are drawn per epoch.

    Attributes:
        latents: of the domain's images.
        prompts: of the images.
        prior: a training set of class images, one of which is drawn beside every image.
    """

    latents: Latents
    prompts: Prompts
    prior: LatentDataset | None = None

    def __len__(self) -> int:
        return len(self.latents)

    def key(self, index: int) -> str:
        """Name of an image in messages: its number in the order of the file names."""
        return f"image {index}"

    def fetch(self, index: int, rng: np.random.Generator) -> Batch:
        """One image as a batch without its first axis."""
        view = int(rng.integers(self.latents.views))
        prompt = self.prompts.say(index, int(rng.integers(len(self.prompts.templates))))
        prior = self.prior.fetch(int(rng.integers(len(self.prior))), rng) if self.prior else None
        std = self.latents.std
        return Batch(
            self.latents.mean[index, view], None if std is None else std[index, view], [prompt], prior
        )

    @classmethod
    def collate(cls, samples: Sequence[Batch]) -> Batch:
        """Join samples to a batch."""
        stds = [s.std for s in samples if s.std is not None]
        priors = [s.prior for s in samples if s.prior is not None]
        return Batch(
            torch.stack([s.mean for s in samples]),
            torch.stack(stds) if stds else None,
            [prompt for s in samples for prompt in s.prompts],
            cls.collate(priors) if priors else None,
        )


def text_table(backbone: Any, prompts: Sequence[str], run: Run) -> Text:
    """The frozen text encoder's embeddings of prompts, computed once."""
    index = {prompt: i for i, prompt in enumerate(prompts)}
    table = embeddings(backbone, prompts, run).float()
    return lambda some: table[[index[prompt] for prompt in some]]


class NoisePrediction(nn.Module):
    """Mean squared error of the denoising objective, as a model for :func:`tadp_da.training.loop.fit`.

    Args:
        backbone: what is trained, or part of it.
        text: prompts to embeddings: the backbone's encoder, or a :func:`text_table`.
        snr_gamma: weight of time steps (Hang et al. 2023), None for equal weights.
        prior_weight: weight of the class images' loss (Ruiz et al. 2023, equation 2).
    """

    def __init__(
        self, backbone: Any, text: Text, snr_gamma: float | None = None, prior_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.backbone, self.snr_gamma, self.prior_weight = backbone, snr_gamma, prior_weight
        self._text = text

    def forward(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """Scalar loss; noise and time steps are drawn from the generators, one per sample."""
        loss = self._losses(batch, generators).mean()
        if batch.prior is not None:
            loss = loss + self.prior_weight * self._losses(batch.prior, generators).mean()
        return loss

    def _losses(self, batch: Batch, generators: Sequence[torch.Generator]) -> Tensor:
        """Loss of every sample, ``(b,)``."""
        clean = batch.mean
        if batch.std is not None:
            clean = clean + batch.std * normal(clean.shape, generators).to(clean.device)
        text = self._text(batch.prompts).to(clean.device)
        return self.backbone.noise_loss(clean, text, generators, min_snr=self.snr_gamma)
