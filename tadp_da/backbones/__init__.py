"""Backbones: what turns images and prompts into a feature pyramid. One file per family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from tadp_da.concept import Concept
from tadp_da.noising import Generators
from tadp_da.registry import Registry
from tadp_da.settings import build
from tadp_da.types import FeaturePyramid, FeatureSpec


class DiffusionBackbone(Protocol):
    """A text-to-image diffusion model read as a perception backbone (TADP, section 3.1). Every member is an
    ``nn.Module`` too. Of the parts only ``unet`` is ever trained, and ``settings`` says how images are encoded."""

    spec: FeatureSpec
    settings: Any
    unet: torch.nn.Module
    vae: torch.nn.Module
    text_encoder: torch.nn.Module
    tokenizer: Any

    @property
    def fingerprint(self) -> str:
        """blake2b of the base weights as loaded, before any concept: tells whether a concept fits."""

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Prompts to ``(b, t, d)``; a prompt over the tokenizer's limit is an error."""

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt, without the begin and end marks."""

    @property
    def token_limit(self) -> int:
        """Most tokens that a prompt may hold, without the begin and end marks (75 for CLIP)."""

    def encode_image(self, pixels: Tensor, generator: Generators | None = None) -> Tensor:
        """Pixels ``(b, 3, h, w)`` in [-1, 1] to scaled latents ``(b, 4, u, v)``; h and w must be multiples
        of the coarsest stride."""

    def decode_image(self, latents: Tensor) -> Tensor:
        """Latents back to pixels in [-1, 1]."""

    def denoise(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """The network's raw prediction (epsilon or v) for noisy latents."""

    def pyramid(
        self, pixels: Tensor, text: Tensor, *, attention: bool = True, generator: Generators | None = None
    ) -> FeaturePyramid:
        """One pass on the clean latent. Sizes off the grid are padded and the pyramid is cropped back (ceil
        of size / stride)."""

    def pyramid_of(
        self, latents: Tensor, text: Tensor, size: tuple[int, int], *, attention: bool = True
    ) -> FeaturePyramid:
        """The same for images of ``size`` whose latents are known already."""

    def trainable(
        self, kind: Literal["frozen", "full", "lora"], *, rank: int = 8
    ) -> list[torch.nn.Parameter]:
        """Choose what of the UNet trains, and return it."""

    def fuse_lora(self) -> None:
        """Add low-rank layers to the weights and take them out."""

    def save(self, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Write what ``load(folder)``, a class method, reads back."""

    def add_tokens(self, word: str, like: str, vectors: int = 1) -> tuple[str, ...]:
        """Add ``vectors`` new tokens named ``word``, ``word_1``, ... whose rows start as those of
        ``like``."""

    def noise_loss(self, latents: Tensor, text: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the denoising objective per sample, shape ``(b,)``; noise and timesteps from
        the generator (CPU)."""

    def load_concept(self, concept: Concept) -> DiffusionBackbone:
        """Put a concept's rows and weights in place (in place, returns self); refuses one made on another
        base."""

    def sample(
        self,
        prompts: Sequence[str],
        *,
        seed: int,
        steps: int = 30,
        guidance: float = 3.0,
        size: tuple[int, int] | None = None,
    ) -> list[Any]:
        """One PIL image per prompt through the diffusers pipeline; image i uses the generator of (seed,
        i)."""


backbones: Registry[Any] = Registry("backbone", "tadp_da.backbones")


def load_backbone(name: str, model: str, settings: Mapping[str, Any] | None = None) -> Any:
    """A fresh backbone.

    Args:
        name: in the registry.
        model: weights: an alias, a folder, a file or a hub id.
        settings: fields of the backbone's ``Settings``.

    Raises:
        UsageError: for an unknown backbone or setting.
        EnvironmentSetupError: when the model is not here and cannot be fetched.
        ArtifactError: when it is corrupt, or of another family.
    """
    found = backbones[name]
    return found.from_pretrained(model, build(found.Settings, settings or {}, "backbone.settings"))


def portable_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a backbone's settings decides the features, as JSON values; the rest is about speed and memory."""
    portable: dict[str, Any] = build(backbones[name].Settings, settings, "backbone.settings").portable()
    return portable
